"""Owns what happens to a run while its own network is away for five seconds: no row may fail for it.

Run it with ``python -m tests.benchmarks.away [--how here|there|dropped] [--hosts few|many|new] [--no-robots]``; it
needs network namespaces, and exits with 1 where a row failed. The cable is pulled in three ways: within a list of few
hosts, all of them known by then; of many, of which new ones come meanwhile; and of a row each. Half of the many have
names.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

from fetcher import Config, Fetcher, Request
from fetcher.event_loop import fastest_loop
from fetcher.transport.connector import StagedResolver
from fetcher.transport.resolver import Lookup
from fetcher.transport.session import Transport
from tests.lab.cable import Cable, How, address_of, apart, impossible, laid
from tests.lab.crawl import code_of
from tests.lab.town import Town

SLOTS = 100
LATENCY = 200  # milliseconds
FEW = 24  # hosts
PATIENCE = 5.0  # seconds after which a look-up that nobody answers is given up


def names(cable: Cable) -> Lookup:
    """Return a look-up that fails while the cable is pulled: at once where there is no route, or after a while."""

    def look_up(host: str, port: int, family: int) -> list[tuple[Any, ...]]:
        if cable.missing and cable.how != "here":
            threading.Event().wait(PATIENCE)
        if cable.missing:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        address = address_of(int(host.partition(".")[0]))
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    return look_up


def few_hosts(town: Town, requests: int) -> list[Request]:
    """Return rows of 24 hosts."""
    return [Request(n, town.url("living", address_of(n % FEW), n, LATENCY)) for n in range(requests)]


def many_hosts(town: Town, requests: int) -> list[Request]:
    """Return two rows of each of so many hosts that there are new ones at any time: robots.txt is a request too."""
    hosts = range(requests // 3)
    places = [f"{n}.test" if n % 2 else address_of(n) for n in hosts]
    return [Request(2 * n + row, town.url("living", places[n], row, LATENCY)) for n in hosts for row in range(2)]


def new_hosts(town: Town, requests: int) -> list[Request]:
    """Return a row each of as many hosts: whichever cannot be reached has never answered before."""
    places = [f"{n}.test" if n % 2 else address_of(n) for n in range(requests)]
    return [Request(n, town.url("living", place, n, LATENCY)) for n, place in enumerate(places)]


LISTS: dict[str, Callable[[Town, int], list[Request]]] = {"few": few_hosts, "many": many_hosts, "new": new_hosts}


async def crawled(
    rows: list[Request], acts: dict[float, Callable[[], None]], cable: Cable, **options: Any
) -> tuple[Counter[str | int], list[int]]:
    """Fetch all rows as by default, pulling the cable and so on at their seconds; return the codes, and rows a second."""
    config = Config.of(**{"concurrency": SLOTS, **options})
    transport = Transport(config, resolver=StagedResolver(names(cable)))
    mixed = random.Random(len(rows)).sample(rows, len(rows))
    codes: Counter[str | int] = Counter()
    seconds: Counter[int] = Counter()
    loop = asyncio.get_running_loop()
    try:
        async with Fetcher(config, transport=transport) as fetcher:
            began = time.monotonic()
            timers = [loop.call_later(after, act) for after, act in acts.items()]
            async with fetcher.stream(mixed) as outcomes:
                async for outcome in outcomes:
                    codes[code_of(outcome)] += 1
                    seconds[int(time.monotonic() - began)] += 1
            assert timers[-1].when() < loop.time(), "the list was over before the network was back"
    finally:
        await transport.close()
    return codes, [seconds[n] for n in range(max(seconds) + 1)]


def inside(given: argparse.Namespace) -> int:
    """Run each list with the cable pulled in each way; say by the exit code whether a row failed."""
    failed = 0
    for how in given.how or get_args(How):
        for kind in given.hosts or LISTS:
            with laid() as (town, cable), asyncio.Runner(loop_factory=fastest_loop()) as runner:
                rows = LISTS[kind](town, round(given.seconds * SLOTS * 1000 / LATENCY))
                acts: dict[float, Callable[[], None]] = {
                    given.after: partial(cable.pull, how),
                    given.after + given.away: cable.plug,
                }
                options = {"retries": given.retries, "robots": not given.no_robots}
                codes, each = runner.run(crawled(rows, acts, cable, **options))
            lost = len(rows) - codes[200]
            failed += lost
            told = ", ".join(f"{number} {code}" for code, number in codes.most_common())
            print(f"{kind:<4} hosts, {how:<7}: {told}: {'NOT MET' if lost else 'ok'}")
            print(f"    rows in each second: {' '.join(map(str, each))}", flush=True)
    return failed > 0


def main() -> int:
    """Run it in a namespace of its own, and say by the exit code whether a row failed for the network."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--how", choices=get_args(How), action="append")
    parser.add_argument("--hosts", choices=list(LISTS), action="append")
    parser.add_argument("--seconds", type=float, default=12.0, help="that the list takes where nothing is away")
    parser.add_argument("--after", type=float, default=3.0, help="seconds until the cable is pulled")
    parser.add_argument("--away", type=float, default=5.0, help="seconds until it is back")
    parser.add_argument("--retries", type=int, default=2)
    parser.add_argument("--no-robots", action="store_true")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        return inside(given)
    if (reason := impossible()) is not None:
        print(reason, file=sys.stderr)
        return 2
    return subprocess.run(apart("tests.benchmarks.away", "--inside", *sys.argv[1:]), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
