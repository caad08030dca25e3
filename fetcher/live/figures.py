"""The figures that the page adds to a run's own: its pace over time, how long rows take, when it will end.

Law 3: the history and the latencies are bounded, however long a run is. Law 9: plain values, the clock a parameter; and
a clock that is set back makes no rate below zero.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from fetcher.config import Limits
from fetcher.hosts.standing import HostStanding
from fetcher.live.state import Eta, Latency, Point, RowCounts
from fetcher.report.census import HostRows
from fetcher.report.forecast import LeastTime, least_time
from fetcher.stats import counted

__all__ = ["History", "Latencies", "estimate", "thinned"]

MAX_POINTS = 600
PACE_SECONDS = 5.0
"""The pace that is shown is that of so many seconds."""
ETA_SECONDS = 30.0
"""What is left is reckoned by the pace of so many seconds."""
STEPS_A_DECADE = 10
LEAST_SECONDS, DECADES = 0.001, 5


class History:
    """How far a run was over time: at most 600 points, evenly over its life, and the last half minute by the second."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._recent: deque[Point] = deque(maxlen=int(ETA_SECONDS) + 1)
        self._spacing = 0.0

    def add(self, point: Point) -> None:
        """Take a moment, later than those before; one that is not is left out."""
        if self._recent and point.seconds <= self._recent[-1].seconds:
            return
        self._recent.append(point)
        if self.points and point.seconds < self.points[-1].seconds + self._spacing:
            return
        self.points.append(point)
        if len(self.points) > MAX_POINTS:
            self.points = thinned(self.points, MAX_POINTS // 2)
            self._spacing = (self.points[-1].seconds - self.points[0].seconds) / (len(self.points) - 1)

    def pace(self, seconds: float) -> tuple[float, float, float]:
        """Return the pages, the rows with an outcome and the bytes a second over about the last so many."""
        if len(self._recent) < 2:
            return 0.0, 0.0, 0.0
        last = self._recent[-1]
        first = next((point for point in self._recent if last.seconds - point.seconds <= seconds), last)
        if first is last:
            first = self._recent[-2]
        passed = last.seconds - first.seconds
        rows = last.ok + last.failed + last.skipped - first.ok - first.failed - first.skipped
        return (last.ok - first.ok) / passed, rows / passed, max(0, last.bytes - first.bytes) / passed


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """Return at most ``most`` of the points, evenly over them, the first and the last among these."""
    if len(points) <= most:
        return list(points)
    step = (len(points) - 1) / (most - 1)
    return [points[round(number * step)] for number in range(most)]


class Latencies:
    """How long rows took on the wire: counts of ten steps a decade, from a millisecond to 100 seconds."""

    def __init__(self) -> None:
        self.counts = [0] * (STEPS_A_DECADE * DECADES)
        self._last = len(self.counts) - 1

    def add(self, seconds: float, many: int = 1) -> None:
        """Count so many rows."""
        step = int(math.log10(seconds / LEAST_SECONDS) * STEPS_A_DECADE) if seconds > LEAST_SECONDS else 0
        self.counts[min(step, self._last)] += many

    def as_latency(self) -> Latency | None:
        """Return what is known, without the empty steps at both ends; ``None`` where nothing is."""
        filled = [step for step, many in enumerate(self.counts) if many]
        if not filled:
            return None
        first, last = filled[0], filled[-1]
        edges = [_edge(step) for step in range(first, last + 2)]
        return Latency(edges, self.counts[first : last + 1], *map(self._percentile, (0.5, 0.95, 0.99)))

    def _percentile(self, share: float) -> float:
        wanted, seen = share * sum(self.counts), 0
        for step, many in enumerate(self.counts):
            if many and seen + many >= wanted:
                return float(LEAST_SECONDS * 10 ** ((step + (wanted - seen) / many) / STEPS_A_DECADE))
            seen += many
        return 0.0


def _edge(step: int) -> float:
    return float(f"{LEAST_SECONDS * 10 ** (step / STEPS_A_DECADE):.3g}")


def estimate(
    counts: RowCounts,
    rows_per_second: float,
    hosts: Sequence[HostStanding],
    limits: Limits,
    *,
    over: float = ETA_SECONDS,
) -> Eta:
    """Return when all will be done: by the pace of late, or by what is left of a host, whichever takes longer."""
    total = max(counts.total or 0, counts.input) if counts.more else counts.input
    left = total - counts.done
    if counts.more and counts.total is None:
        return Eta(None, "the list is still being read, and nobody knows how long it is")
    if left <= 0:
        return Eta(None, "the list is longer than it was thought to be") if counts.more else Eta(0.0, "all is done")
    about = "about " if counts.more else ""
    seconds = left / rows_per_second if rows_per_second > 0 else None
    least, parked = _least(hosts, left, limits), max((host.parked for host in hosts), default=0.0)
    if least is not None and least.seconds > (seconds or 0.0):
        return Eta(least.seconds, _by_host(least, hosts) if least.host else f"--rate: {limits.rate:g} a second")
    if seconds is None:
        return Eta(None, "nothing is coming in" + (f": a host is left alone for {parked:.0f} s" if parked else ""))
    return Eta(seconds, f"{about}{counted(left, 'row')} left, by the pace of the last {min(over, ETA_SECONDS):.0f} s")


def _least(hosts: Sequence[HostStanding], left: int, limits: Limits) -> LeastTime | None:
    slow = [host for host in hosts if host.left and (host.delay or host.parked)]
    rows = [HostRows(host.host, host.left, "") for host in slow]
    found = least_time(rows, left, limits, delays={host.host: host.delay or 0.0 for host in slow})
    parked = [LeastTime(host.parked + (host.left - 1) * (host.delay or 0.0), "delay", host.host) for host in slow]
    return max([*parked, *([found] if found is not None else [])], key=lambda least: least.seconds, default=None)


def _by_host(least: LeastTime, hosts: Sequence[HostStanding]) -> str:
    host = next(host for host in hosts if host.host == least.host)
    pace = f", one every {host.delay:g} s" if host.delay else ""
    rest = f", left alone for {host.parked:.0f} s more" if host.parked else ""
    return f"{host.host}: {counted(host.left, 'row')}{pace}{rest}"
