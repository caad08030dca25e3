"""Owns the bench's strict figures, on the built-in site: what fifty at once buy, and that one at once costs nothing.

Run it with ``python -m tests.benchmarks.speedup [ROUNDS]`` on a machine that has nothing else to do (some four
minutes); it exits with 1 where a figure does not hold. The tests hold the same with five times as much room.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import msgspec

from fetcher.bench import compare
from fetcher.bench.plan import site_of
from fetcher.bench.results import Report, Round
from fetcher.bench.schedule import least_time
from fetcher.demo.scenarios import ROUND_HEADER
from fetcher.urls import parse

ROUNDS = 3
ROWS = 300
SLOTS = 50
LATENCY = (0.05, 0.15)


def measured(rounds: int) -> tuple[Report, dict[str, list[dict[str, Any]]]]:
    """Run the bench, and return its report with the site's log by round."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "site.log")
        with patch("fetcher.bench.runner.site_of", lambda bench: msgspec.structs.replace(site_of(bench), log=str(log))):
            report = compare(n=ROWS, rounds=rounds, concurrency=[1, SLOTS], latency=LATENCY, progress=_tell)
        visits: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for line in log.read_bytes().splitlines():
            visit = msgspec.json.decode(line)
            visits[visit["headers"][ROUND_HEADER]].append(visit)
    return report, visits


def _tell(moment: Any) -> None:
    if moment.round is not None:
        print(f"{moment.number} of {moment.of}: {moment.round.wall:.2f} s", file=sys.stderr)


def by_the_site(round_: Round, visits: list[dict[str, Any]]) -> float:
    """Return the efficiency by the site's service times: what the network and the client's own queues take counts."""
    hosts = [parse(f"http://{visit['host']}/").host for visit in visits]
    least = least_time([visit["service"] for visit in visits], hosts, round_.concurrency, 6)
    return least / round_.wall


def figures(
    report: Report, visits: dict[str, list[dict[str, Any]]]
) -> list[tuple[str, float, str, Callable[[float], bool]]]:
    """Return each figure with what is asked of it, in words and as a test."""
    sequential, one, many = report.modes
    assert many.speed_up is not None
    counted = [(round_, visits[str(number)]) for number, round_ in enumerate(report.rounds) if not round_.warm_up]
    served = [round_.wall / sum(v["service"] for v in log) for round_, log in counted if round_.mode == "sequential"]
    by_site = median(by_the_site(*pair) for pair in counted if pair[0].concurrency == SLOTS)
    most = max(visit["in_flight"] for round_, log in counted if round_.concurrency == SLOTS for visit in log)
    return [
        (f"speed-up of -c {SLOTS}", many.speed_up.median, "at least 36", lambda value: value >= 36),
        (f"efficiency of -c {SLOTS}", many.efficiency, "at least 0.93", lambda value: value >= 0.93),
        ("  by the site's service times", by_site, "no bound", lambda _: True),
        ("most in flight at the site", most, f"{SLOTS}", lambda value: value == SLOTS),
        ("-c 1 over sequential", one.wall.median / sequential.wall.median, "0.95 to 1.05", lambda v: 0.95 <= v <= 1.05),
        ("sequential over the site's sum", median(served), "at most 1.06", lambda value: value <= 1.06),
        ("pages that differ", len(report.mismatches), "none", lambda value: value == 0),
    ]


def main() -> int:
    """Measure, print the figures, and say by the exit code whether all of them hold."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    report, visits = measured(rounds)
    print(f"{ROWS} pages of {LATENCY[0] * 1000:g} to {LATENCY[1] * 1000:g} ms, {rounds} rounds; {report.machine.loop}")
    held = True
    for name, value, wanted, holds in figures(report, visits):
        held &= holds(value)
        print(f"{name:<32} {value:8.3f}   {wanted:<14} {'ok' if holds(value) else 'NOT MET'}")
    for text in report.warnings:
        print(f"warning: {text}")
    return not held


if __name__ == "__main__":
    sys.exit(main())
