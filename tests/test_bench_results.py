"""The figures of a bench, by hand and by another program, the recommendation, and pages that differ."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.bench.conclusions import warnings_of
from fetcher.bench.plan import Listing
from fetcher.bench.results import (
    Mode,
    Round,
    Sample,
    all_failed,
    counted_rounds,
    mismatches,
    percentile,
    recommended,
    summarise,
)
from fetcher.bench.worker import Row
from fetcher.config import Limits

HOSTS = ("a.example", "b.example", "c.example", "d.example")
URLS = {row: f"http://{HOSTS[row % 4]}/{row}" for row in range(1, 9)}
LISTING = Listing("urls.txt", [Row(row, url) for row, url in URLS.items()], [HOSTS[row % 4] for row in URLS])


def sampled(row: int, latency: float = 1.0, **more: Any) -> Sample:
    """A page of 100 characters, taken up in the order of the list."""
    page: dict[str, Any] = {"status": 200, "length": 100, "bytes": 120}
    return Sample(
        id=row, host=HOSTS[row % 4], start=row / 1000, end=row / 1000 + latency, latency=latency, **page | more
    )


def sequential(index: int, wall: float = 8.0, **more: Any) -> Round:
    return measured("sequential", 1, index, wall, **more)


def concurrent(slots: int, index: int, wall: float, **more: Any) -> Round:
    return measured("concurrent", slots, index, wall, **more)


def measured(mode: Any, slots: int, index: int, wall: float, **more: Any) -> Round:
    settings: dict[str, Any] = {
        "cpu": 0.08,
        "peak_memory": 50_000_000 + index,
        "most_in_flight": slots,
        "samples": [sampled(row) for row in URLS],
    }
    return Round(mode=mode, concurrency=slots, index=index, warm_up=index == 0, wall=wall, **settings | more)


def summed(*rounds: Round, per_host: int = 6) -> dict[tuple[str, int], Mode]:
    return {(mode.mode, mode.concurrency): mode for mode in summarise(rounds, per_host)}


# Figures


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.sampled_from([0.0, 0.25, 0.5, 0.95, 0.99, 1.0]))
def test_percentiles_are_numpys(values: list[float], share: float) -> None:
    assert percentile(values, share) == pytest.approx(np.percentile(values, share * 100, method="linear"), rel=1e-9)


def test_the_percentiles_of_a_mode_are_those_of_its_raw_times() -> None:
    rng = random.Random(3)
    rounds = [
        concurrent(2, index, 5.0, samples=[sampled(row, rng.expovariate(10)) for row in URLS]) for index in (0, 1, 2, 3)
    ]
    mode = summed(*rounds)["concurrent", 2]
    raw = [sample.latency for round_ in rounds[1:] for sample in round_.samples]
    for name, share in (("p50", 50), ("p95", 95), ("p99", 99)):
        assert mode.latency[name] == pytest.approx(np.percentile(raw, share))


def test_the_figures_of_a_mode_by_hand() -> None:
    rounds = [
        sequential(0, 100.0),
        concurrent(4, 0, 100.0),
        sequential(1, 8.0),
        concurrent(4, 1, 4.0, cpu=0.4),
        sequential(2, 9.0),
        concurrent(4, 2, 2.0, cpu=0.08),
        sequential(3, 10.0),
        concurrent(4, 3, 2.5, cpu=0.0),
    ]
    modes = summed(*rounds)
    assert list(modes) == [("sequential", 1), ("concurrent", 4)]
    mode = modes["concurrent", 4]
    assert (mode.rounds, mode.wall.median, mode.wall.low, mode.wall.high) == (3, 2.5, 2.0, 4.0)
    assert mode.speed_up is not None
    assert (mode.speed_up.median, mode.speed_up.low, mode.speed_up.high) == (4.0, 2.0, 4.5)  # 8/4, 9/2, 10/2.5
    assert mode.pages_per_second == 8 / 2.5
    assert mode.cpu_ms_per_page == pytest.approx(1000 * 0.48 / 24)
    assert (mode.bytes, mode.failures) == (24 * 120, {})
    assert (mode.peak_memory, mode.most_in_flight) == (50_000_003, 4)
    assert (mode.least, mode.efficiency) == (2.0, 2.0 / 2.5)  # eight rows of a second in four slots
    baseline = modes["sequential", 1]
    assert (baseline.least, baseline.efficiency) == (8.0, 8.0 / 9.0)
    assert baseline.speed_up is not None
    assert baseline.speed_up.median == 1.0


def test_the_least_time_keeps_to_the_hosts_limit() -> None:
    assert summed(concurrent(8, 1, 1.0), per_host=2)["concurrent", 8].least == 1.0
    assert summed(concurrent(8, 1, 2.0), per_host=1)["concurrent", 8].least == 2.0


def test_a_speed_up_is_of_rounds_that_ran_side_by_side() -> None:
    """A slow minute strikes both: the ratio holds where the medians would not."""
    mode = summed(sequential(1, 8), concurrent(4, 1, 2), sequential(2, 80), concurrent(4, 2, 20))["concurrent", 4]
    assert mode.speed_up is not None
    assert (mode.speed_up.low, mode.speed_up.high) == (4.0, 4.0)


def test_what_was_not_measured_is_none() -> None:
    mode = summed(concurrent(4, 1, 2.0, peak_memory=None, most_in_flight=None))["concurrent", 4]
    assert (mode.peak_memory, mode.most_in_flight, mode.speed_up) == (None, None, None)
    half = summed(sequential(1), concurrent(4, 1, 2.0), concurrent(4, 2, 3.0))["concurrent", 4]  # stopped midway
    assert half.speed_up is not None
    assert (half.rounds, half.speed_up.low, half.speed_up.high) == (2, 4.0, 4.0)


def test_nothing_is_divided_by_nothing() -> None:
    assert summarise([], 6) == []
    assert summarise([concurrent(4, 0, 1.0)], 6) == []
    refused = [sampled(row, 0.0, code="connect_refused", status=None, length=None, bytes=0) for row in URLS]
    for samples in ([], refused):
        (mode,) = summarise([concurrent(4, 1, 0.0, samples=samples)], 6)
        assert (mode.pages_per_second, mode.efficiency, mode.least) == (0.0, 0.0, 0.0)
        assert mode.latency == {"p50": 0.0, "p95": 0.0, "p99": 0.0}
        assert recommended([mode, mode]) is None
        assert warnings_of([concurrent(4, 1, 0.0, samples=samples)], Limits(), LISTING) is not None


def test_failures_are_counted_by_code_the_most_frequent_first() -> None:
    samples = [sampled(1, code="read_timeout"), *(sampled(row, code="http_500") for row in (2, 3)), sampled(4)]
    mode = summed(concurrent(4, 1, 2.0, samples=samples), concurrent(4, 2, 2.0, samples=samples))["concurrent", 4]
    assert list(mode.failures.items()) == [("http_500", 4), ("read_timeout", 2)]
    assert mode.pages_per_second == 0.5


def test_rows_that_were_never_asked_for_have_no_latency() -> None:
    samples = [sampled(1, 2.0), sampled(2, 0.0, code="host_budget")]
    assert summed(concurrent(4, 1, 2.0, samples=samples))["concurrent", 4].latency["p50"] == 2.0


# The recommendation


@pytest.mark.parametrize(
    ("walls", "best"),
    [
        ({10: 4.0, 50: 1.0, 100: 0.99}, 50),
        ({10: 4.0, 50: 1.0, 100: 0.9}, 100),
        ({10: 1.0, 50: 1.0, 100: 1.0}, 10),
        ({10: 1.0, 50: 2.0, 100: 3.0}, 10),
        ({10: 1.05, 50: 1.0}, 10),
        ({50: 1.0}, None),
        ({}, None),
    ],
)
def test_the_smallest_within_five_per_cent_of_the_best(walls: dict[int, float], best: int | None) -> None:
    rounds = [sequential(1), *(concurrent(slots, 1, wall) for slots, wall in walls.items())]
    assert recommended(summarise(rounds, 6)) == best


# Pages that differ


def altered(round_: Round, row: int, **more: Any) -> Round:
    samples = [msgspec.structs.replace(sample, **more) if sample.id == row else sample for sample in round_.samples]
    return msgspec.structs.replace(round_, samples=samples)


def test_the_same_pages_in_all_modes_are_no_mismatch() -> None:
    assert mismatches([], URLS) == []
    assert mismatches([sequential(1), concurrent(4, 1, 2.0), concurrent(8, 1, 2.0)], URLS) == []


@pytest.mark.parametrize(
    ("change", "got"),
    [
        ({"length": 7_230}, "7,230 characters"),
        ({"length": None, "bytes": 4_000}, "4,000 bytes"),
        ({"code": "read_timeout", "length": None}, "read_timeout"),
    ],
)
def test_a_page_that_differs_is_named(change: dict[str, Any], got: str) -> None:
    (found,) = mismatches([sequential(1), altered(concurrent(4, 1, 2.0), 3, **change)], URLS)
    assert (found.id, found.url, found.expected, found.got) == (3, URLS[3], "100 characters", got)
    assert (found.mode, found.concurrency) == ("concurrent", 4)


def test_a_page_that_is_missing_is_named() -> None:
    short = concurrent(4, 1, 2.0)
    short = msgspec.structs.replace(short, samples=short.samples[1:])
    assert [(found.id, found.got) for found in mismatches([sequential(1), short], URLS)] == [(1, "nothing")]
    (found,) = mismatches(
        [msgspec.structs.replace(short, mode="sequential", concurrency=1), concurrent(4, 1, 2.0)], URLS
    )
    assert (found.id, found.expected, found.got) == (1, "nothing", "100 characters")


def test_every_counted_round_is_compared_and_no_warm_up() -> None:
    rounds = [sequential(1), altered(concurrent(4, 0, 2.0), 3, length=1), concurrent(4, 1, 2.0)]
    assert mismatches(rounds, URLS) == []
    (found,) = mismatches([*rounds, altered(concurrent(4, 2, 2.0), 3, length=1)], URLS)
    assert (found.expected, found.got) == ("100 characters", "1 character or 100 characters")


def test_without_a_baseline_the_smallest_concurrency_is_the_measure() -> None:
    (found,) = mismatches([altered(concurrent(50, 1, 2.0), 3, length=1), concurrent(10, 1, 2.0)], URLS)
    assert (found.concurrency, found.expected, found.got) == (50, "100 characters", "1 character")


def test_a_list_that_fails_wholly() -> None:
    refused = [sampled(row, code="connect_refused") for row in URLS]
    assert all_failed([concurrent(4, 0, 1.0, samples=refused)])
    assert not all_failed([concurrent(4, 0, 1.0, samples=[*refused[1:], sampled(1)])])
    assert not all_failed([])


def test_rounds_are_gathered_by_mode_the_baseline_first() -> None:
    rounds = [concurrent(50, 0, 1), concurrent(50, 1, 1), concurrent(10, 1, 1), sequential(1), concurrent(50, 2, 1)]
    found = counted_rounds(rounds)
    assert [(*mode, len(of_mode)) for mode, of_mode in found.items()] == [
        ("sequential", 1, 1), ("concurrent", 10, 1), ("concurrent", 50, 2),
    ]  # fmt: skip
