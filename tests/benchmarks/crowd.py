"""Owns how much memory a crowd of hosts takes: a million driven by hand, and fifty thousand that are real.

Run it with ``python -m tests.benchmarks.crowd [answered] [refused] [dead] [real] [--hosts N] [--real-hosts N]``. The
first three drive ``Scheduler`` and ``Frontier`` as the pipeline does, without a socket, each in a process of its own: a
row a host, five thousand a second by a clock that is turned by hand; ``refused`` ones ask for five minutes' pause,
``dead`` ones cannot be reached. ``real`` is a crawl of as many addresses of 127.0.0.0/8. It exits with 1 where a
figure does not hold.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fetcher.config import Limits, RetryPolicy
from fetcher.frontier.frontier import Frontier
from fetcher.hosts.health import FailureKind
from fetcher.hosts.scheduler import Scheduler
from fetcher.model import Request
from fetcher.request_state import RequestState
from fetcher.urls import Target
from tests.benchmarks.figures import Figure, at_most
from tests.lab.command import argv, environment
from tests.lab.town import living_in

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("answered", "refused", "dead")
MEMORY = 300  # MB
STEP = 0.0002  # seconds from row to row
WISH = 300.0  # seconds
RETRIES = 3  # of a row whose host is dead


def drive(kind: str, number: int, folder: str) -> None:
    """Start a row of each of ``number`` hosts, and let each host answer in its way."""
    limits = Limits()
    hosts = Scheduler(limits, RetryPolicy(), robots=True)
    frontier = Frontier(hosts, limits, folder=folder)
    now, granted = 0.0, 0
    for row in range(1, number + 1):
        frontier.push(_row(row))
        granted -= 1
        while (state := frontier.pop(now)) is not None:
            _exchange(kind, hosts, frontier, state, now)
        now += STEP
        while granted <= 0 and frontier.size >= limits.lookahead:
            granted = frontier.make_room(limits.lookahead // 8, now)
            if granted <= 0:
                now += STEP * 50
                while (state := frontier.pop(now)) is not None:
                    _exchange(kind, hosts, frontier, state, now)
    print(len(hosts.table), len(hosts.table.parked(now)), frontier.size)


def _row(number: int) -> RequestState:
    name = f"shop{number}.example"
    url = f"http://{name}/{number}"
    return RequestState(Request(number, url), Target(url, "http", name, 80))


def _exchange(kind: str, hosts: Scheduler, frontier: Frontier, state: RequestState, now: float) -> None:
    health, host = hosts.health, state.take_reservation()
    assert host is not None
    hosts.shared.unreserve(host)
    hosts.shared.take(host, now)
    if kind == "dead":
        health.failed(host, 80, FailureKind.UNREACHED, now, now)
        hosts.finish(host)
        state.attempts += 1
        if state.attempts <= RETRIES:
            frontier.defer(state, now + 2.0**state.attempts)
    elif kind == "refused" and state.target.host == host.key and not host.breaker.charges:
        health.answered(host, 80, 429, now, now)
        health.refused(host, 429, WISH, now, now)
        hosts.finish(host)
        frontier.defer(state, host.not_before)
    else:
        health.answered(host, 80, 200, now, now)
        host.know_robots()
        hosts.finish(host)
    frontier.host_free(host.key)


def driven(kind: str, number: int) -> Iterator[Figure]:
    """Drive hosts of a kind in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "tests.benchmarks.crowd", "--drive", kind, "--hosts", str(number)]
        began = time.monotonic()
        peak = _peak_of(subprocess.Popen([*words, "--folder", folder], cwd=ROOT))
        seconds = time.monotonic() - began
    yield Figure(f"{kind}: {number} hosts, driven", 1e6 * seconds / number, " µs a row")
    yield Figure(f"{kind}: memory", peak, " MB", at_most(MEMORY))


def real(number: int) -> Iterator[Figure]:
    """Crawl a page of each of as many hosts of 127.0.0.0/8."""
    with living_in() as town, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        urls = [town.url("living", f"127.{n >> 16 & 63 | 1}.{n >> 8 & 255}.{n & 255}", n, 0) for n in range(number)]
        (folder / "urls.txt").write_text("".join(f"{url}\n" for url in urls))
        words = argv("crawl", "urls.txt", "-o", "pages.jsonl", "-q")
        began = time.monotonic()
        peak = _peak_of(subprocess.Popen(words, cwd=folder, env=environment(folder, FETCHER_ROBOTS="1")))
        seconds = time.monotonic() - began
        lines = (folder / "pages.jsonl").read_bytes().splitlines()
        lost = number - sum(b'"error":null' in line for line in lines)
    yield Figure(f"real: {number} hosts, a robots.txt and a page each", number / seconds, " hosts/s")
    yield Figure("real: rows without a page", lost, "", at_most(0))
    yield Figure("real: memory", peak, " MB", at_most(MEMORY))


def _peak_of(process: subprocess.Popen[bytes]) -> float:
    """Wait for a process; return its peak of memory in MB."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"exit {process.returncode}"
    return usage.ru_maxrss / 1024


def main() -> int:
    """Measure what is named, print the figures, and say by the exit code whether all of them hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.crowd")
    parser.add_argument("kind", nargs="*", default=[*KINDS, "real"], help=f"{', '.join(KINDS)}, real")
    parser.add_argument("--hosts", type=int, default=1_000_000)
    parser.add_argument("--real-hosts", type=int, default=50_000)
    parser.add_argument("--drive", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.drive:
        drive(words.drive, words.hosts, words.folder)
        return 0
    held = True
    for kind in words.kind:
        for figure in real(words.real_hosts) if kind == "real" else driven(kind, words.hosts):
            print(f"  {figure}", flush=True)
            held &= figure.holds
    return not held


if __name__ == "__main__":
    sys.exit(main())
