"""Owns the figures of politeness that are ratios of one run: Retry-After, the ceiling, the plan and robots.txt.

Run it with ``python -m tests.benchmarks.politeness [retry-after] [ceiling] [plan] [robots] [--rounds N]``: all of them
without a name, some twelve minutes. It exits with 1 where a figure does not hold. The rounds are interleaved and the
best of each is taken: what disturbs one only adds to it. The hosts are a server in a process of its own, whose log is
the judge, and what is measured is ``fetcher crawl`` as a process.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator

from tests.benchmarks.figures import Figure
from tests.benchmarks.foresight import planned, robots
from tests.benchmarks.hosts import Street, street
from tests.benchmarks.refusals import ceiling, retry_after

PARTS: dict[str, tuple[Callable[[Street, int], Iterator[Figure]], int]] = {
    "retry-after": (retry_after, 2),
    "ceiling": (ceiling, 3),
    "plan": (planned, 2),
    "robots": (robots, 9),
}
"""What is measured, and in how many rounds."""


def main() -> int:
    """Measure what is named, print the figures, and say by the exit code whether all of them hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.politeness")
    parser.add_argument("part", nargs="*", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, help="of each part")
    words = parser.parse_args()
    held = True
    for name in words.part or PARTS:
        if name not in PARTS:
            parser.error(f"there is no {name}: {', '.join(PARTS)}")
    for name in words.part or PARTS:
        measure, rounds = PARTS[name]
        with street() as hosts:
            rounds = words.rounds or rounds
            print(f"{name}, {rounds} rounds", flush=True)
            for figure in measure(hosts, rounds):
                print(f"  {figure}", flush=True)
                held &= figure.holds
    return not held


if __name__ == "__main__":
    sys.exit(main())
