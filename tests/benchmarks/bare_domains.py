"""Owns what becomes of a list of bare domains, and what it costs not to know their schemes.

Run it with ``python -m tests.benchmarks.bare_domains [--rows N] [--rounds N] [--latency MS]`` on a machine that is not
busy; it exits with 1 where a figure does not hold. Of 200 names half answer by http alone, for their port for https
refuses, is silent, speaks without TLS, or ends or resets the handshake; a tenth are dead; of the rest some have a
certificate that does not hold. Then, without the silent ones, the list is fetched once as it is and once with the
scheme before each name that answers; the runs are interleaved and the best of each counts.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from fetcher import Config, Fetcher, Request
from fetcher.event_loop import fastest_loop
from fetcher.model import Failure, Outcome
from tests.lab.crawl import code_of
from tests.lab.doors import Doors

HOSTS = 200
MOST = 1.3  # times the time of knowing the scheme

KINDS = {
    "both": 60, "secure": 10, "untrusted": 10, "refusing": 30, "speaking": 20, "closing": 10, "resetting": 10,
    "silent": 30, "dead": 10, "mute": 4, "nameless": 6,
}  # fmt: skip
"""How many of each kind there are (``tests/lab/doors.py``)."""

QUICK_KINDS = {**KINDS, "refusing": 60, "silent": 0, "dead": 14, "mute": 0}
"""The same with nobody who is silent."""

FATES: dict[str, tuple[str, str | int]] = {
    **dict.fromkeys(("both", "secure"), ("https", 200)),
    "untrusted": ("https", "tls_verify"),
    **dict.fromkeys(("refusing", "speaking", "closing", "resetting", "silent"), ("http", 200)),
    "dead": ("https", "connect_refused"),
    "mute": ("https", "tls_timeout"),
    "nameless": ("https", "dns_not_found"),
}
"""By which scheme a person expects a host to be asked in the end, and what then comes."""

LIVING = frozenset(kind for kind, (_, code) in FATES.items() if code == 200)


class Run(NamedTuple):
    """One crawl: fates by kind, the seconds to the last row, and to the last of a living host; rows asked by http."""

    fates: Counter[tuple[str, str, str | int]]
    seconds: float
    living: float
    by_http: int


def listed(kinds: dict[str, int], rows: int, latency: int, *, known: bool = False) -> list[Request]:
    """Return the list, mixed; with the scheme of each host where it is to be ``known``."""
    found = [
        Request(0, f"{FATES[kind][0] + '://' if known else ''}{kind}-{n}.door.test/{latency}/{row}", tag=kind)
        for kind, number in kinds.items()
        for n in range(number)
        for row in range(rows)
    ]
    random.Random(1).shuffle(found)
    return found


def fate_of(outcome: Outcome) -> tuple[str, str, str | int]:
    """Return the kind of a row's host, the scheme it was asked by last, and its status or code."""
    url = outcome.url or (outcome.error.url if isinstance(outcome, Failure) else None) or ""
    return outcome.request.tag, url.partition(":")[0], code_of(outcome)


async def crawled(doors: Doors, rows: Sequence[Request]) -> Run:
    """Fetch them as by default."""
    config = Config.of(ca_bundle=doors.ca)
    transport = doors.transport(config)
    fates: Counter[tuple[str, str, str | int]] = Counter()
    living = 0.0
    began = time.monotonic()
    try:
        async with Fetcher(config, transport=transport) as fetcher, fetcher.stream(rows) as outcomes:
            async for outcome in outcomes:
                fates[fate_of(outcome)] += 1
                if outcome.request.tag in LIVING:
                    living = time.monotonic() - began
    finally:
        await transport.close()
    return Run(fates, time.monotonic() - began, living, outcomes.stats.by_http)


def in_loop(doors: Doors, rows: Sequence[Request]) -> Run:
    """Run it as the command line would."""
    with asyncio.Runner(loop_factory=fastest_loop()) as runner:
        return runner.run(crawled(doors, rows))


def expected(kinds: dict[str, int], rows: int) -> Counter[tuple[str, str, str | int]]:
    """Return what a person expects of a list."""
    return Counter({(kind, *FATES[kind]): number * rows for kind, number in kinds.items() if number})


def told(run: Run, kinds: dict[str, int], rows: int) -> bool:
    """Print what became of each kind; say whether it is what a person expects."""
    for (kind, scheme, code), number in sorted(run.fates.items(), key=str):
        right = (scheme, code) == FATES[kind]
        print(f"    {kind:<10} {number:6,} rows {scheme:<5} {code}{'' if right else '   NOT EXPECTED'}")
    return run.fates == expected(kinds, rows)


def main() -> int:
    """Measure, print, and say by the exit code whether all holds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=20, help="of each host")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", type=int, default=50, help="milliseconds of a page")
    given = parser.parse_args()
    assert sum(KINDS.values()) == sum(QUICK_KINDS.values()) == HOSTS
    with Doors.in_process() as doors:
        run = in_loop(doors, listed(KINDS, given.rows, given.latency))
        print(f"{HOSTS} names of {given.rows} rows, no scheme: {run.seconds:.1f} s, {run.by_http:,} rows by http")
        right = told(run, KINDS, given.rows)
        print(f"  each as expected: {'ok' if right else 'NOT MET'}")
        best: dict[str, tuple[float, float]] = {}
        for _ in range(given.rounds):
            for case in ("known", "auto"):
                run = in_loop(doors, listed(QUICK_KINDS, given.rows, given.latency, known=case == "known"))
                right &= run.fates == expected(QUICK_KINDS, given.rows)
                print(f"  {case:<6} {run.seconds:6.2f} s, the living {run.living:6.2f} s", flush=True)
                before = best.get(case, (run.seconds, run.living))
                best[case] = min(before[0], run.seconds), min(before[1], run.living)
    whole, living = (best["auto"][n] / best["known"][n] for n in (0, 1))
    held = max(whole, living) <= MOST
    print(f"  nobody silent: {whole:.2f} x the time, {living:.2f} x for the living (at most {MOST}): ", end="")
    print("ok" if held and right else "NOT MET")
    return not (held and right)


if __name__ == "__main__":
    sys.exit(main())
