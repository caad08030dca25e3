"""The figures that the live page adds: the pace over time, how long rows take, and when all will be done."""

from __future__ import annotations

import os
import random
from itertools import pairwise

import pytest

from fetcher.config import Limits, RetryPolicy
from fetcher.hosts.limits import SharedLimits
from fetcher.hosts.standing import HostStanding, standings_of
from fetcher.hosts.table import HostTable
from fetcher.live.figures import MAX_POINTS, History, Latencies, estimate, thinned
from fetcher.live.machine import MachineWatch, uses
from fetcher.live.state import Point, RowCounts


def point(seconds: float, ok: int = 0, size: int = 0) -> Point:
    return Point(seconds, ok, 0, 0, size, 0)


def counts(done: int, taken: int, *, more: bool = False, total: int | None = None) -> RowCounts:
    return RowCounts(taken, done, 0, 0, taken - done, more, 0, total)


@pytest.mark.parametrize(
    ("taken", "next_at", "rate", "why"),
    [
        (0, 0.0, 25.0, ""),
        (4, 0.0, None, "there is no free slot"),
        (0, 9.0, 25.0, "--rate: 25 a second"),
        (0, 9.0, None, "our own network rests"),
    ],
)
def test_what_holds_up_all_hosts_is_told_of_each(taken: int, next_at: float, rate: float | None, why: str) -> None:
    limits = Limits(concurrency=4, rate=rate)
    table = HostTable(limits, RetryPolicy())
    shared = SharedLimits(limits)
    shared.on_wire, shared.rate_next = taken, next_at
    (standing,) = standings_of(table, shared, waiting={"a.example": 3}, running={}, now=5.0, most=9)
    assert standing.why == "not asked yet"
    table.get("a.example", 5.0).robots_known = True
    (standing,) = standings_of(table, shared, waiting={"a.example": 3}, running={}, now=5.0, most=9)
    assert standing.why == why


def test_a_pace_is_that_of_the_last_seconds() -> None:
    history = History()
    assert history.pace(5) == (0, 0, 0)
    for second in range(20):
        history.add(point(float(second), ok=10 * second, size=100 * second))
    for second in range(20, 26):
        history.add(point(float(second), ok=200 + 30 * (second - 20), size=2000))
    pages, rows, size = history.pace(5)
    assert pages == rows == pytest.approx(30)
    assert size == 0


def test_a_clock_that_is_set_back_makes_no_point() -> None:
    history = History()
    history.add(point(5.0, ok=5))
    history.add(point(4.0, ok=9))
    history.add(point(5.0, ok=9))
    assert history.points == [point(5.0, ok=5)]
    assert history.pace(5) == (0, 0, 0)


def test_a_long_run_has_points_evenly_over_its_life() -> None:
    history = History()
    for second in range(100_000):
        history.add(point(float(second), ok=second))
    points = history.points
    assert MAX_POINTS // 3 < len(points) <= MAX_POINTS
    gaps = [after.seconds - before.seconds for before, after in pairwise(points)]
    assert max(gaps) <= 4 * min(gaps)
    assert points[0].seconds == 0
    assert points[-1].seconds > 99_000
    assert history.pace(5)[0] == pytest.approx(1)


def test_points_are_thinned_with_both_ends() -> None:
    points = [point(float(n)) for n in range(1000)]
    few = thinned(points, 10)
    assert (len(few), few[0], few[-1]) == (10, points[0], points[-1])
    assert thinned(points[:5], 10) == points[:5]


def test_latencies_have_percentiles() -> None:
    assert Latencies().as_latency() is None
    chance, latencies = random.Random(1), Latencies()
    drawn = sorted(chance.uniform(0.1, 0.9) for _ in range(5000))
    for seconds in drawn:
        latencies.add(seconds)
    told = latencies.as_latency()
    assert told is not None
    assert sum(told.counts) == 5000
    assert len(told.edges) == len(told.counts) + 1
    assert told.edges[0] <= drawn[0]
    assert told.edges[-1] >= drawn[-1]
    for share, value in ((0.5, told.p50), (0.95, told.p95), (0.99, told.p99)):
        assert value == pytest.approx(drawn[int(share * 5000)], rel=0.13)


def test_latencies_take_whatever_comes() -> None:
    latencies = Latencies()
    for seconds in (0.0, 1e-9, 0.001, 99.0, 1e9):
        latencies.add(seconds)
    latencies.add(2.0, 7)
    told = latencies.as_latency()
    assert told is not None
    assert sum(told.counts) == 12


def test_the_end_is_reckoned_by_the_pace() -> None:
    told = estimate(counts(100, 400), 10.0, [], Limits())
    assert told.seconds == 30
    assert told.how.startswith("300 rows left, by the pace of the last")
    told = estimate(counts(100, 200, more=True, total=1100), 10.0, [], Limits())
    assert told.seconds == 100
    assert told.how.startswith("about 1,000 rows left")


def test_a_slow_host_sets_the_end() -> None:
    hosts = [HostStanding("slow.example", 210, 2, delay=5.0), HostStanding("fast.example", 100, 3, delay=0.0)]
    told = estimate(counts(100, 415), 30.0, hosts, Limits())
    assert told.how == "slow.example: 212 rows, one every 5 s"
    assert told.seconds == pytest.approx(211 * 5)
    parked = [HostStanding("away.example", 3, delay=0.0, parked=120.0)]
    told = estimate(counts(97, 100), 30.0, parked, Limits())
    assert (told.seconds, told.how) == (120, "away.example: 3 rows, left alone for 120 s more")


def test_the_rate_sets_the_end() -> None:
    told = estimate(counts(0, 600), 100.0, [], Limits(rate=2.0))
    assert (told.seconds, told.how) == (300, "--rate: 2 a second")


def test_what_cannot_be_known_is_said() -> None:
    assert estimate(counts(5, 10, more=True), 10.0, [], Limits()).how.startswith("the list is still being read")
    assert estimate(counts(10, 10), 10.0, [], Limits()).how == "all is done"
    assert estimate(counts(5, 10), 0.0, [], Limits()).how == "nothing is coming in"
    assert estimate(counts(12, 12, more=True, total=10), 1.0, [], Limits()).seconds is None


def test_a_process_of_ours_is_looked_at() -> None:
    watch = MachineWatch()
    told = watch.look()
    if not os.path.isdir("/proc/self/fd"):
        assert told.memory is None
        return
    assert told.memory is not None and told.memory > 1_000_000
    assert told.descriptors is not None and told.descriptors >= 3
    assert uses(2**22 + 1) == (None, None)
