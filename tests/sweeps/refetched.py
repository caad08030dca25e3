"""Owns the account of what a kill costs: the rows that were asked for again, and how many may be.

A kill may cost what was on the wire, which is at most ``-c``, and what was finished since the last commit but one,
which is what was answered within two intervals.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.sweeps.site import Entry

__all__ = ["INTERVAL", "Cost", "costs_of"]

INTERVAL = 1.0
BATCH = 1_000


@dataclass(frozen=True)
class Cost:
    """Rows asked for again because of one kill, and the most that may be."""

    refetched: int
    allowed: int


def costs_of(entries: Iterable[Entry], runs: Sequence[tuple[float, float]], concurrency: int) -> list[Cost]:
    """Return what the end of each run cost, from the server's log and when each run began and was ended.

    A row is charged to the run that asked for it last before it was asked for again: the runs between may have been
    struck before they came to it.
    """
    starts = [began for began, _ in runs]
    asked: dict[int, int] = {}
    again = [0] * len(runs)
    recent: list[set[int]] = [set() for _ in runs]
    for entry in sorted(entries):
        run = bisect_right(starts, entry.t) - 1
        if not entry.came:
            if entry.t >= runs[run][1] - 2 * INTERVAL:
                recent[run].add(entry.row)
            continue
        before = asked.get(entry.row, run)
        if before != run:
            again[before] += 1
        asked[entry.row] = run
    return [Cost(count, concurrency + min(2 * BATCH, len(rows))) for count, rows in zip(again, recent, strict=True)]
