"""Owns what dead hosts cost the others, and whether one that comes back loses rows, on a town of loopback hosts.

Run it with ``python -m tests.benchmarks.dead [--hosts 50|1000] [--seconds 120] [--rounds 2] [--part PART]`` on a
machine that is not busy; it exits with 1 where a figure does not hold. A tenth of the hosts is dead, in five ways, and
the rest must be as fast, to their last row, as with the dead hosts' rows left out of the list. The runs are interleaved
and the best of each counts: what disturbs one only adds to it.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias, TypeVar

from fetcher import Config, Fetcher, Request
from fetcher.event_loop import fastest_loop
from fetcher.transport.connector import StagedResolver
from fetcher.transport.session import Transport
from tests.lab.crawl import code_of
from tests.lab.town import Town, living_in

T = TypeVar("T")

SLOTS = 100
LATENCY = 200  # milliseconds
LEAST = 0.9
GONE = 5.0  # seconds
PATIENCE = 5.0  # seconds after which a look-up that nobody answers is given up

OWN = {
    "refused": "connect_refused",
    "hole": "connect_timeout",
    "nameless": "dns_not_found",
    "unnamed": "dns_timeout",
    "silent": "read_timeout",
}
"""The ways to be dead, and the code each ends with: nobody listens · the SYN is dropped · there is no such name · no
name server answers · whoever accepts never says a word."""

ABSENT = {"late": 100, "few": 2, "leaving": 300}
"""The ways to be away, and rows of such a host: refused from the start, the same with few rows, and refused within."""

KINDS = ("living", *OWN, *ABSENT)

Host: TypeAlias = tuple[str, str]
"""Its kind and its name or address."""

Act: TypeAlias = tuple[float, Callable[[], None]]
"""After how many seconds something is done."""


@dataclass
class Run:
    """What became of a list: by kind of host and code, and when the last row of each kind was done."""

    codes: Counter[tuple[str, str | int]] = field(default_factory=Counter)
    last: dict[str, float] = field(default_factory=dict)
    cpu: float = 0.0  # of one core, until the last row of a living host

    @property
    def rate(self) -> float:
        """The rows of living hosts a second, until their last."""
        return self.codes["living", 200] / self.last["living"]

    @property
    def lost(self) -> int:
        """How many rows are no pages."""
        return sum(number for (_, code), number in self.codes.items() if code != 200)

    def told(self, kind: str) -> str:
        """Say what became of the rows of hosts of that kind."""
        codes = ", ".join(f"{number} {code}" for (one, code), number in self.codes.most_common() if one == kind)
        return f"{kind:<9} {codes}; the last after {self.last[kind]:.1f} s"


def look_up(host: str, port: int, family: int) -> list[tuple[Any, ...]]:
    """Answer for the names of the town without asking anybody, in a thread of the resolver's."""
    if host.startswith("unnamed"):
        threading.Event().wait(PATIENCE)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def hosts_of(kind: str, number: int) -> list[Host]:
    """Return so many hosts of one kind."""
    if OWN.get(kind, "").startswith("dns"):
        return [(kind, f"{kind}{n}.test") for n in range(number)]
    return [(kind, f"127.{KINDS.index(kind) + 1}.{n // 250}.{n % 250 + 1}") for n in range(number)]


def a_tenth_dead(number: int) -> tuple[list[Host], list[Host]]:
    """Return so many hosts, the living and the dead, of which there are as many of each kind as can be."""
    dead = [hosts_of(kind, number // 10)[n] for n, kind in zip(range(number // 10), list(OWN) * number, strict=False)]
    return hosts_of("living", number - len(dead)), dead


def listed(town: Town, hosts: Iterable[Host], rows: int, *, latency: int = LATENCY) -> list[Request]:
    """Return as many rows of each host, one host after the other."""
    return [
        Request(n, town.url("living" if OWN.get(kind, "").startswith("dns") else kind, name, n, latency), tag=kind)
        for kind, name in hosts
        for n in range(rows)
    ]


async def crawled(rows: list[Request], acts: Iterable[Act] = (), *, whole: bool = True, **options: Any) -> Run:
    """Fetch all rows, mixed, as by default and at 100 at once; call something after so many seconds.

    If not ``whole``, it is over with the last row of a living host.
    """
    config = Config.of(**{"concurrency": SLOTS, **options})
    transport = Transport(config, resolver=StagedResolver(look_up))
    mixed = random.Random(len(rows)).sample(rows, len(rows))
    left = sum(row.tag == "living" for row in rows)
    run = Run()
    loop = asyncio.get_running_loop()
    try:
        async with Fetcher(config, transport=transport) as fetcher:
            cpu, began = time.process_time(), time.monotonic()
            timers = [loop.call_later(after, act) for after, act in acts]
            async with fetcher.stream(mixed) as outcomes:
                async for outcome in outcomes:
                    kind = outcome.request.tag
                    run.codes[kind, code_of(outcome)] += 1
                    run.last[kind] = time.monotonic() - began
                    left -= kind == "living"
                    if kind == "living":
                        run.cpu = (time.process_time() - cpu) / run.last[kind]
                    if not (left or whole):
                        break
            for timer in timers:
                timer.cancel()
    finally:
        await transport.close()
    return run


def in_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run it as the command line would."""
    with asyncio.Runner(loop_factory=fastest_loop()) as runner:
        return runner.run(work)


# The parts


def rates(hosts: int, seconds: float, rounds: int) -> bool:
    """Compare the rest with themselves alone."""
    living, dead = a_tenth_dead(hosts)
    rows = max(1, round(seconds * SLOTS * 1000 / LATENCY / len(living)))
    print(f"{hosts} hosts of {rows} rows, {len(dead)} of them dead; {LATENCY} ms, {SLOTS} at once")
    cases: dict[str, tuple[list[Host], dict[str, Any]]] = {
        "left out": (living, {}),
        "dead": (living + dead, {}),
        "dead, no robots.txt": (living + dead, {"robots": False}),
    }
    best = dict.fromkeys(cases, 0.0)
    with living_in() as town:
        for number in range(rounds):
            for case, (names, options) in cases.items():
                run = in_loop(crawled(listed(town, names, rows), whole=not number, **options))
                best[case] = max(best[case], run.rate)
                print(
                    f"  {case:<19} {run.rate:6.1f} rows/s in {run.last['living']:.1f} s, CPU {run.cpu:.0%}", flush=True
                )
                if case != "left out" and not number:
                    print(*(f"    {run.told(kind)}" for kind in OWN), sep="\n", flush=True)
                assert run.codes["living", 200] == len(living) * rows
    held = True
    for case in list(cases)[1:]:
        share = best[case] / best["left out"]
        held &= share >= LEAST
        print(f"  {case}: the rest at {share:.3f} of their speed (at least {LEAST}): {verdict(share >= LEAST)}")
    return held


def absences(town: Town, gone: float, begin: float) -> tuple[list[Host], list[Act]]:
    """Settle hosts of ``ABSENT``, three of each kind; return them with what is to be done to them, and when."""
    hosts = [host for kind in ABSENT for host in hosts_of(kind, 3)]
    acts: list[Act] = []
    for kind, name in hosts:
        town.settle(name)
        if kind == "leaving":
            town.rise(name)
            acts.append((begin, partial(town.fall, name)))
        acts.append((gone + begin * (kind == "leaving"), partial(town.rise, name)))
    return hosts, acts


def comes_back(seconds: float = 12.0) -> bool:
    """Have hosts away for five seconds, at the start and within, and see that each row is fetched."""
    held = True
    for options in ({}, {"robots": False}):
        with living_in() as town:
            hosts, acts = absences(town, GONE, 2.0)
            rows = listed(town, hosts_of("living", 40), round(seconds * SLOTS * 1000 / LATENCY / 50))
            rows += [row for host in hosts for row in listed(town, [host], ABSENT[host[0]])]
            run = in_loop(crawled(rows, acts, **options))
        print(f"back after {GONE:g} s{', no robots.txt' if options else ''}")
        print(*(f"    {run.told(kind)}" for kind in ABSENT), sep="\n")
        print(f"  rows lost: {run.lost}: {verdict(not run.lost)}")
        held &= not run.lost
    return held


def with_one_try() -> bool:
    """See that hosts that never answered end by their own codes where rows have one try."""
    with living_in() as town:
        living, dead = a_tenth_dead(50)
        rows = listed(town, living, 40) + listed(town, dead, 3)
        run = in_loop(crawled(rows, retries=0, robots=False))
    print("one try, no robots.txt")
    for kind in OWN:
        print(f"    {run.told(kind)}")
    held = all(run.codes[kind, code] == 3 for kind, code in OWN.items())
    print(f"  each by its own code: {verdict(held)}")
    return held


def nobody_lives(number: int = 100) -> bool:
    """See how long a list takes of which no host lives; nothing is asked of that but an end."""
    with living_in() as town:
        _, dead = a_tenth_dead(10 * number)
        run = in_loop(crawled(listed(town, dead, 20)))
    print(f"{number} hosts of 20 rows, all dead")
    for kind in OWN:
        print(f"    {run.told(kind)}")
    return run.codes.total() == 20 * number


def verdict(held: bool) -> str:
    return "ok" if held else "NOT MET"


def main() -> int:
    """Measure, print, and say by the exit code whether all holds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hosts", type=int, action="append", help="50 and 1000")
    parser.add_argument("--seconds", type=float, default=120.0, help="that the living take")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--part", choices=["rates", "back", "once", "all-dead"], action="append")
    given = parser.parse_args()
    parts = given.part or ["rates", "back", "once", "all-dead"]
    held = []
    if "rates" in parts:
        held += [rates(hosts, given.seconds, given.rounds) for hosts in given.hosts or (50, 1000)]
    if "back" in parts:
        held.append(comes_back())
    if "once" in parts:
        held.append(with_one_try())
    if "all-dead" in parts:
        held.append(nobody_lives())
    return not all(held)


if __name__ == "__main__":
    sys.exit(main())
