"""Owns what workers are worth: ``python -m tests.benchmarks.workers [--rows N] [--hosts N] [--rounds N] [--bytes N]``.

One list is crawled into a job, in turn by one process, by ``--workers 2``, by ``auto``, and by two runs at the same
time over the halves of its hosts, which is the bound. The server shares the cores, so only the ratios say something: of
each the median over the rounds. Beside the wall time stand the CPU seconds of all processes, what the parent spends on
a row (from the first records on), and the memory of a worker that is its own (PSS).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from fetcher.event_loop import fastest_loop
from tests.lab.command import argv, environment
from tests.lab.connection import ServerConnection, whole_answer
from tests.sweeps.processes import workers_of

__all__ = ["Measured", "measure", "serving"]

ROOT = Path(__file__).resolve().parents[2]
TICK = os.sysconf("SC_CLK_TCK")
DEADLINE = 600.0
LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Measured:
    """One run, or two at a time: wall and CPU in seconds, microseconds of the parent a row, bytes of a worker."""

    wall: float
    cpu: float
    parent: float = 0.0
    pss: int = 0


class Page(ServerConnection):
    """A connection that answers each request at once: a page, or that there is no robots.txt."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self._page = page

    def asked(self, path: str, head: bytes) -> None:
        self.send(MISSING if path == "/robots.txt" else self._page)


MISSING = whole_answer("404 Not Found", b"")
LINE = b"<p class=item><a href=/item/7>An item of the list</a> with a line of text behind it</p>\n"


async def serve(size: int) -> None:
    """Serve until standard input ends."""
    body = b"<!doctype html><title>A page of the list</title>" + LINE * (size // len(LINE))
    page = whole_answer("200 OK", body)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Page(page), "0.0.0.0", 0, backlog=1_000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


@contextmanager
def serving(size: int) -> Iterator[int]:
    """Serve pages of about so many bytes at every address of 127.0.0.0/8, until the block is left; gives the port."""
    words = [sys.executable, "-m", "tests.benchmarks.workers", "--serve", str(size)]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


def measure(lists: Sequence[Sequence[str]], *words: str) -> Measured:
    """Crawl these lists at the same time, and look at the processes meanwhile."""
    with ExitStack() as stack:
        runs = [_Run(Path(stack.enter_context(tempfile.TemporaryDirectory())), urls, words) for urls in lists]
        began = time.monotonic()
        while any([run.goes_on() for run in runs]):  # noqa: C419  (each of them is looked at)
            assert time.monotonic() - began < DEADLINE
            time.sleep(LOOK_SECONDS)
        ended = [run.ended for run in runs]
        rows = sum(run.rows_seen for run in runs)
        parent = sum(run.parent for run in runs)
        return Measured(
            max(ended) - began,
            sum(run.cpu for run in runs),
            1e6 * parent / max(1, rows),
            max(run.pss for run in runs),
        )


class _Run:
    def __init__(self, folder: Path, urls: Sequence[str], words: Sequence[str]) -> None:
        self._folder = folder
        self._rows = len(urls)
        (folder / "urls.txt").write_text("".join(f"{url}\n" for url in urls))
        self._said = open(folder / "said.txt", "wb")
        self._process = subprocess.Popen(
            argv("crawl", "urls.txt", "-o", "pages.jsonl", "--no-progress", "--per-host", "50", *words),
            cwd=folder,
            env=environment(folder, FETCHER_ROBOTS="1"),
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=self._said,
        )
        self.ended = self.cpu = self.parent = 0.0
        self.pss = self.rows_seen = 0
        self._first: tuple[float, int] | None = None

    def goes_on(self) -> bool:
        """Look at it; say whether it still runs."""
        if self.ended:
            return False
        pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
        if pid == 0:
            self._look()
            return True
        self.ended = time.monotonic()
        self.cpu = usage.ru_utime + usage.ru_stime
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._said.close()
        records = (self._folder / "pages.jsonl").read_bytes().count(b"\n")
        assert (self._process.returncode, records) == (0, self._rows), (self._folder / "said.txt").read_text()
        return False

    def _look(self) -> None:
        with contextlib.suppress(OSError, IndexError, ValueError):
            spent = _cpu_of(self._process.pid)
            output = self._folder / "pages.jsonl"
            size = output.stat().st_size if output.exists() else 0
            if size and self._first is None:
                self._line = size / max(1, output.read_bytes().count(b"\n"))
                self._first = spent, size
            elif size and self._first is not None:
                self.parent = spent - self._first[0]
                self.rows_seen = round((size - self._first[1]) / self._line)
            for worker in workers_of(self._process.pid):
                self.pss = max(self.pss, _pss_of(worker.pid))


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def _pss_of(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.workers")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--hosts", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bytes", type=int, default=30_000, help="of a page")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.serve is not None:
        asyncio.Runner(loop_factory=fastest_loop()).run(serve(wanted.serve))
        return
    with serving(wanted.bytes) as port:
        urls = [f"http://127.0.1.{1 + n % wanted.hosts}:{port}/{n}" for n in range(wanted.rows)]
        halves = [urls[0::2], urls[1::2]] if wanted.hosts % 2 == 0 else [urls[: len(urls) // 2], urls[len(urls) // 2 :]]
        ways = {
            "one process": ([urls], ["--workers", "1"]),
            "--workers 2": ([urls], ["--workers", "2"]),
            "auto": ([urls], ["--workers", "auto"]),
            "two runs, a half each": (halves, ["--workers", "1", "-c", "50"]),
        }
        found: dict[str, list[Measured]] = {name: [] for name in ways}
        for _ in range(wanted.rounds):
            for name, (lists, words) in ways.items():
                found[name].append(measure(lists, *words))
    _print(found, wanted.rows)


def _print(found: dict[str, list[Measured]], rows: int) -> None:
    print(f"{'':<22} {'pages/s':>8} {'of one':>7} {'CPU ms/page':>12} {'parent µs/row':>14} {'worker MB':>10}")
    one = found["one process"]
    for name, runs in found.items():
        faster = statistics.median(first.wall / run.wall for first, run in zip(one, runs, strict=True))
        wall, cpu = (statistics.median(getattr(run, what) for run in runs) for what in ("wall", "cpu"))
        parent, pss = statistics.median(run.parent for run in runs), max(run.pss for run in runs)
        print(
            f"{name:<22} {rows / wall:>8.0f} {faster:>7.2f} {1000 * cpu / rows:>12.3f} {parent:>14.0f} {pss / 1e6:>10.0f}"
        )


if __name__ == "__main__":
    main()
