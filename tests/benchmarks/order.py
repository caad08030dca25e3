"""Owns what one huge host at the head of a list costs the others: their time, and memory.

Run it with ``python -m tests.benchmarks.order [delay] [slow] [--rows N] [--first N] [--rounds N]``. A list begins with
``--first`` rows of one host that gives 20 pages a second, because it is told to be asked no faster (``delay``) or
because it takes that long (``slow``); behind them stand ``--rows`` rows of 200 hosts. What these take is compared
with what they take alone, in interleaved rounds, best against best; then the run is stopped. It exits with 1 where a
figure does not hold.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from tests.benchmarks.figures import Figure, at_most
from tests.lab.command import argv, environment
from tests.lab.town import Town, living_in

HUGE = "127.0.1.1"
HOSTS = 200
SPEED = 20  # pages a second of the huge host
MEMORY = 200  # MB
DEADLINE = 600.0


class Passed(NamedTuple):
    """The seconds until the last row of the others was fetched, and the peak of memory in MB."""

    seconds: float
    memory: float


def measure(town: Town, how: str, rows: int, first: int, rounds: int) -> Iterator[Figure]:
    """Measure one kind of huge host."""
    others = [town.url("living", f"127.0.2.{row % HOSTS + 1}", row, 0) for row in range(rows)]
    pause = 1_000 * 6 // SPEED if how == "slow" else 0  # six at once are the default
    huge = [town.url("living", HUGE, row, pause) for row in range(first)]
    alone: list[Passed] = []
    behind: list[Passed] = []
    for _ in range(rounds):
        alone.append(_pass(others, rows, how))
        behind.append(_pass([*huge, *others], rows, how))
    best = min(passed.seconds for passed in alone)
    yield Figure(f"{how}: {rows} rows of {HOSTS} hosts alone", best, " s")
    yield Figure(f"{how}: behind {first} of one", min(passed.seconds for passed in behind) / best, " ×", at_most(1.1))
    yield Figure(f"{how}: memory", max(passed.memory for passed in behind), " MB", at_most(MEMORY))


def _pass(urls: Iterable[str], rows: int, how: str) -> Passed:
    """Crawl until ``rows`` rows of others than the huge host have their record, then stop."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "urls.txt").write_text("".join(f"{url}\n" for url in urls))
        config = f'[hosts."{HUGE}"]\ndelay = {1 / SPEED if how == "delay" else 0}\n'
        (folder / "huge.toml").write_text(config)
        # One process: by itself a run would take two for the list that begins with many sites, and for that one alone.
        words = argv("crawl", "urls.txt", "--config", "huge.toml", "-o", "pages.jsonl", "-q", "--workers", "1")
        began, deadline = time.time(), time.monotonic() + DEADLINE
        with subprocess.Popen(words, cwd=folder, env=environment(folder), stderr=subprocess.DEVNULL) as crawling:
            try:
                memory = 0.0
                seen = Seen(folder / "pages.jsonl")
                while seen.others < rows:
                    if time.monotonic() > deadline or crawling.poll() not in (None, 0):
                        raise TimeoutError(f"{seen.others} of {rows} rows, exit {crawling.returncode}")
                    time.sleep(0.1)
                    memory = max(memory, _peak(crawling.pid))
                    seen.look()
            finally:
                for _ in range(2):
                    crawling.send_signal(signal.SIGINT)
                    time.sleep(0.2)
                crawling.wait(30)
        return Passed(seen.last - began, memory)


class Seen:
    """The records of the others, as they are written."""

    def __init__(self, path: Path) -> None:
        self.others = 0
        self.last = 0.0  # seconds since the epoch
        self._path = path
        self._read = 0

    def look(self) -> None:
        """Count what has come since."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            if HUGE.encode() not in line:
                self.others += 1
                self.last = max(self.last, _fetched_at(line))


def _fetched_at(line: bytes) -> float:
    return datetime.fromisoformat(msgspec.json.decode(line)["fetched_at"]).timestamp()


def _peak(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")] or ["VmHWM 0"]
    return int(line.split()[1]) / 1024


def main() -> int:
    """Measure what is named, print the figures, and say by the exit code whether all of them hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.order")
    parser.add_argument("how", nargs="*", default=["delay", "slow"], help="delay, slow")
    parser.add_argument("--rows", type=int, default=100_000, help="of the others")
    parser.add_argument("--first", type=int, default=200_000, help="of the huge host, before them")
    parser.add_argument("--rounds", type=int, default=2)
    words = parser.parse_args()
    held = True
    print(f"{words.rounds} rounds on {os.cpu_count()} cores", flush=True)
    for how in words.how:
        with living_in() as town:
            for figure in measure(town, how, words.rows, words.first, words.rounds):
                print(f"  {figure}", flush=True)
                held &= figure.holds
    return not held


if __name__ == "__main__":
    sys.exit(main())
