"""The least time that politeness allows, held against the frontier's own, and how it is told."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.config import Limits
from fetcher.observe.census import HostRows
from fetcher.observe.forecast import Forecast, HostShare, Least, NamesSampled, RobotsSampled, least_time
from tests.test_frontier import World, length_of, plain


def hosts_of(**rows: int) -> list[HostRows]:
    ordered = sorted(rows.items(), key=lambda item: -item[1])
    return [HostRows(host, number, f"http://{host}/") for host, number in ordered]


def test_the_host_with_the_most_rows_sets_the_time() -> None:
    least = least_time(hosts_of(a=41, b=3), 44, Limits(delay=0.5))
    assert least == Least(20.0, "delay", "a")


def test_one_row_takes_no_time() -> None:
    assert least_time(hosts_of(a=1, b=1), 2, Limits(delay=5)) == Least(0.0, "delay", "a")


def test_a_rate_is_for_all() -> None:
    assert least_time(hosts_of(a=5, b=3), 800, Limits(delay=0.5, rate=4.0)) == Least(200.0, "rate")


def test_a_host_that_asks_for_more_may_set_it_with_fewer_rows() -> None:
    least = least_time(hosts_of(a=40, b=10), 50, Limits(delay=0.5), delays={"b": 10.0}, ahead=1)
    assert least == Least(100.0, "delay", "b")
    least = least_time(hosts_of(a=40, b=10), 50, Limits(delay=0.5), delays={"b": 0.1})
    assert least == Least(19.5, "delay", "a")


def test_without_a_delay_only_a_latency_that_was_measured_says_something() -> None:
    assert least_time(hosts_of(a=600, b=3), 603, Limits()) is None
    least = least_time(hosts_of(a=600, b=3), 603, Limits(per_host=6), latencies={"b": 0.1, "c": 0.2, "d": 0.3})
    assert least == Least(20.0, "per_host", "a")
    least = least_time(hosts_of(a=6, b=3), 10_000, Limits(per_host=6, concurrency=10), latencies={"b": 0.2})
    assert least == Least(200.0, "concurrency")


def test_an_empty_list_takes_no_time() -> None:
    assert least_time([], 0, Limits(delay=1)) is None


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 8), st.sampled_from([0.1, 0.5, 2.0]), st.sampled_from([0.01, 0.2, 0.6]), st.sampled_from([1, 3, 6])
)
def test_it_is_within_a_tenth_of_what_the_frontier_does(mean: int, delay: float, latency: float, most: int) -> None:
    limits = Limits(delay=delay, per_host=most, concurrency=100)
    rows = {"large": 20 * mean, **{f"h{n}": mean for n in range(30)}}
    scripts = [script for host, number in rows.items() for script in plain(host, latency, number)]
    real = length_of(World(limits, scripts, known=True).run())
    least = least_time(hosts_of(**rows), len(scripts), limits, latencies=dict.fromkeys(rows, latency))
    assert least is not None
    assert least.seconds == pytest.approx(real, rel=0.1, abs=latency)
    blind = least_time(hosts_of(**rows), len(scripts), limits)
    assert blind is not None
    assert blind.seconds <= real * 1.001
    if delay >= latency:
        assert blind.host == "large"


FORECAST = Forecast(
    rows=1_234_567,
    invalid=67,
    duplicates=500,
    left_out=False,
    fetched=1_234_500,
    hosts=1_001,
    half=1,
    largest=[
        HostShare("large.example", 1_000_000, 0.81, 0.5),
        *(HostShare(f"h{n}", 234 - n, 0.0002, 0) for n in range(9)),
    ],
    names=NamesSampled(50, 42, {f"gone{n}.example": "Name or service not known" for n in range(8)}),
    robots=RobotsSampled(50, 40, 7, {"robots_unreachable": 3}, {"h1": 5.0}),
    least=Least(499_999.5, "delay", "large.example"),
)


def test_it_is_told_in_words() -> None:
    assert FORECAST.as_text().split("\n") == [
        "rows      1,234,567: 1,234,500 to fetch, 67 invalid, 500 duplicates (--dedupe leaves them out)",
        "hosts     1,001; half of the rows are on 1",
        "          large.example 1,000,000 (81.0%, one every 0.5 s)",
        *(f"          h{n} {234 - n} (0.0%)" for n in range(4)),
        "names     42 of 50 looked up have an address",
        *(f"          gone{n}.example: Name or service not known" for n in range(5)),
        "          and 3 more",
        "robots    of 50 rows looked up 40 may be fetched, 7 may not, 3 unknown (robots_unreachable)",
        "          h1 asks for 5 s between two",
        "time      at least 138 h 53 min, set by large.example (1,000,000 rows, the delay between two)",
    ]


@pytest.mark.parametrize(
    ("least", "said"),
    [
        (None, "as fast as the hosts answer: neither --delay nor --rate sets a least time"),
        (Least(5.0, "rate"), "at least 5.0 s, set by --rate"),
        (Least(5.0, "concurrency"), "at least 5.0 s, set by --concurrency and the latency of the sample"),
        (Least(5.0, "per_host", "h1"), "at least 5.0 s, set by h1 (233 rows, --per-host and its latency)"),
    ],
)
def test_what_sets_the_time_is_named(least: Least | None, said: str) -> None:
    import msgspec

    last = msgspec.structs.replace(FORECAST, least=least).as_text().split("\n")[-1]
    assert last == f"time      {said}"


def test_the_json_has_it_all() -> None:
    told = json.loads(FORECAST.as_json())
    assert (told["rows"], told["least"]) == (
        1_234_567,
        {"seconds": 499_999.5, "set_by": "delay", "host": "large.example"},
    )
    assert told["names"]["failed"]["gone7.example"] == "Name or service not known"
    assert told["robots"]["delays"] == {"h1": 5.0}
