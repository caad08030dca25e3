"""The least possible time: known cases, a slow reading of the same rule, and what no schedule can beat."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.bench.schedule import least_time, usable_slots

A, B, C = "a.example", "b.example", "c.example"


@pytest.mark.parametrize(
    ("latencies", "hosts", "slots", "per_host", "least"),
    [
        ([], "", 5, 6, 0),
        ([4], "a", 5, 6, 4),
        ([1, 2, 3], "abc", 1, 6, 6),  # one slot: the sum
        ([1, 2, 3], "abc", 3, 6, 3),  # a slot each: the longest
        ([1, 2, 3], "abc", 900, 6, 3),
        ([3, 1, 1, 1], "abcd", 2, 6, 3),
        ([1, 1, 1, 3], "abcd", 2, 6, 4),  # the order counts: the long one comes last
        ([1, 1, 2, 2, 3, 3], "abcdef", 2, 6, 6),
        ([1] * 12, "a" * 12, 100, 6, 2),  # one host: its limit, not the slots
        ([1] * 12, "a" * 12, 100, 1, 12),
        ([1] * 12, "a" * 6 + "b" * 6, 12, 3, 2),
        ([2, 2, 1, 1], "aabb", 2, 1, 4),  # b does not wait behind a's second row
        ([5, 5, 1, 1, 1], "aabbb", 3, 1, 10),
        ([0, 0, 0], "abc", 1, 1, 0),
    ],
)
def test_known_cases(latencies: list[float], hosts: str, slots: int, per_host: int, least: float) -> None:
    assert least_time(latencies, list(hosts), slots, per_host) == pytest.approx(least)


ROWS = st.lists(st.tuples(st.integers(0, 20), st.sampled_from([A, B, C])), max_size=25)


def simulated(latencies: list[int], hosts: list[str], slots: int, per_host: int) -> int:
    """The rule, followed tick by tick: rows not begun in order, rows under way with their ends."""
    todo = list(range(len(latencies)))
    ends: dict[int, int] = {}
    now = last = 0
    while todo or ends:
        ends = {row: end for row, end in ends.items() if end > now}
        while True:  # a row of no length frees its slot at once
            busy = Counter(hosts[row] for row in ends)
            row = next((row for row in todo if busy[hosts[row]] < per_host), None) if len(ends) < slots else None
            if row is None:
                break
            todo.remove(row)
            last = max(last, now + latencies[row])
            if latencies[row]:
                ends[row] = now + latencies[row]
        now += 1
    return last


@given(ROWS, st.integers(1, 8), st.integers(1, 4))
def test_it_is_the_rule_followed_tick_by_tick(rows: list[tuple[int, str]], slots: int, per_host: int) -> None:
    latencies = [latency or 1 for latency, _ in rows]
    hosts = [host for _, host in rows]
    assert least_time(latencies, hosts, slots, per_host) == simulated(latencies, hosts, slots, per_host)


@given(ROWS, st.integers(1, 8), st.integers(1, 4))
def test_nothing_beats_the_sum_the_longest_and_the_hosts(
    rows: list[tuple[int, str]], slots: int, per_host: int
) -> None:
    latencies = [latency for latency, _ in rows]
    hosts = [host for _, host in rows]
    least = least_time(latencies, hosts, slots, per_host)
    of_host: Counter[str] = Counter()
    for latency, host in rows:
        of_host[host] += latency
    bounds = [0.0, sum(latencies) / slots, *latencies, *(total / per_host for total in of_host.values())]
    assert least >= max(bounds) - 1e-9
    assert least <= sum(latencies)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 4))
def test_without_host_limits_it_is_within_grahams_bound_of_the_best(latencies: list[int], slots: int) -> None:
    best = min(
        max(
            sum(latency for latency, slot in zip(latencies, given_to, strict=True) if slot == at) for at in range(slots)
        )
        for given_to in itertools.product(range(slots), repeat=len(latencies))
    )
    least = least_time(latencies, [str(row) for row in range(len(latencies))], slots, 1)
    assert best <= least <= math.nextafter((2 - 1 / slots) * best, math.inf)


def test_a_hundred_thousand_rows_are_no_burden() -> None:
    n = 100_000
    assert least_time([1.0] * n, [str(row % 1000) for row in range(n)], 500, 6) == pytest.approx(n / 500)


def test_usable_slots() -> None:
    assert usable_slots([], 6) == 0
    assert usable_slots([A] * 10, 6) == 6
    assert usable_slots([A] * 10 + [B] * 3, 6) == 9
