"""The least time that politeness allows, held against the frontier's own, and how it is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.config import Limits
from fetcher.hosts.state import HostState
from fetcher.report import census as counting
from fetcher.report.census import Census, HostRows, SiteRows
from fetcher.report.forecast import (
    Forecast,
    HostShare,
    LeastTime,
    NamesSampled,
    RobotsSampled,
    Sharing,
    groups_of,
    least_time,
    sharing_of,
    surely,
)
from fetcher.urls import parse
from tests.test_frontier import World, length_of, plain


def hosts_of(**rows: int) -> list[HostRows]:
    ordered = sorted(rows.items(), key=lambda item: -item[1])
    return [HostRows(host, number, f"http://{host}/") for host, number in ordered]


def test_the_host_with_the_most_rows_sets_the_time() -> None:
    least = least_time(hosts_of(a=41, b=3), 44, Limits(delay=0.5))
    assert least == LeastTime(20.0, "delay", "a")


def test_one_row_takes_no_time() -> None:
    assert least_time(hosts_of(a=1, b=1), 2, Limits(delay=5)) == LeastTime(0.0, "delay", "a")


def test_a_rate_is_for_all() -> None:
    assert least_time(hosts_of(a=5, b=3), 800, Limits(delay=0.5, rate=4.0)) == LeastTime(200.0, "rate")


def test_a_host_that_asks_for_more_may_set_it_with_fewer_rows() -> None:
    least = least_time(hosts_of(a=40, b=10), 50, Limits(delay=0.5), delays={"b": 10.0}, ahead=1)
    assert least == LeastTime(100.0, "delay", "b")
    least = least_time(hosts_of(a=40, b=10), 50, Limits(delay=0.5), delays={"b": 0.1})
    assert least == LeastTime(19.5, "delay", "a")


def test_without_a_delay_only_a_latency_that_was_measured_says_something() -> None:
    assert least_time(hosts_of(a=600, b=3), 603, Limits()) is None
    least = least_time(hosts_of(a=600, b=3), 603, Limits(per_host=6), latencies={"b": 0.1, "c": 0.2, "d": 0.3})
    assert least == LeastTime(20.0, "per_host", "a")
    least = least_time(hosts_of(a=6, b=3), 10_000, Limits(per_host=6, concurrency=10), latencies={"b": 0.2})
    assert least == LeastTime(200.0, "concurrency")


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


def test_what_hosts_share_may_set_the_time() -> None:
    hosts = hosts_of(a=10, b=10)
    site = Sharing("per_site", "shop.example", 2, rows=400, hosts=40, members=hosts)
    least = least_time(hosts, 440, Limits(per_site=2), latencies={"a": 0.1, "c": 0.1}, sharing=[site])
    assert least is not None
    assert (least.set_by, least.host) == ("per_site", "shop.example")
    assert least.seconds == pytest.approx(20.0)
    least = least_time(
        hosts, 440, Limits(per_site=2), latencies={"a": 4.1, "c": 0.1, "d": 0.1}, sharing=[site], ahead=1
    )
    assert least is not None
    assert least.seconds == pytest.approx((11 * 4.1 + 429 * 0.1) / 2)
    assert least_time(hosts, 440, Limits(per_site=2), sharing=[site]) is None


class Telling(World):
    """A world whose gate tells a host of a site that there is a slot again, as ours does."""

    def __init__(self, *given: Any, **known: Any) -> None:
        super().__init__(*given, **known)
        self.hosts.listeners.append(self.note)

    def note(self, key: str) -> None:
        self.frontier.host_free(key)
        self.admit()

    def tell(self, host: HostState) -> None:
        super().tell(host)
        self.hosts.tell_blocked()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.sampled_from([0.02, 0.2, 0.6]), st.sampled_from([1, 3, 6]), st.sampled_from([2, 30]))
def test_it_is_within_a_tenth_of_what_the_frontier_does_for_a_site(
    mean: int, latency: float, most: int, hosts: int
) -> None:
    limits = Limits(per_site=most, concurrency=100)
    rows = {f"h{n}.shop.example": mean for n in range(hosts)} | {"h0.shop.example": 6 * mean, "elsewhere.example": mean}
    scripts = [script for host, number in rows.items() for script in plain(host, latency, number)]
    real = max(Telling(limits, scripts, known=True).run().ended_at.values()) - 1_000.0
    census = census_of(rows)
    latencies = dict.fromkeys(rows, latency)
    groups = {host: groups_of(host, limits, {}) for host in rows}
    sharing = sharing_of(census, limits, groups)
    least = least_time(census.largest(20), len(scripts), limits, latencies=latencies, sharing=sharing)
    assert least is not None
    assert least.seconds == pytest.approx(real, rel=0.1, abs=latency)


def census_of(rows: dict[str, int]) -> Census:
    census = Census()
    for host, number in rows.items():
        for row in range(number):
            census.add(parse(f"http://{host}/{row}"))
    return census


@pytest.mark.parametrize("memory", [3, 100_000])
def test_rows_are_counted_by_site(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "HOSTS_IN_MEMORY", memory)
    census = census_of(
        {"a.shop.co.uk": 3, "b.shop.co.uk": 4, "blog.example": 5, "127.0.0.1": 2, "co.uk": 1, "[::1]": 1}
    )
    assert census.largest_sites(3) == [
        SiteRows("shop.co.uk", 7, 2),
        SiteRows("blog.example", 5, 1),
        SiteRows("127.0.0.1", 2, 1),
    ]
    assert [(site.site, site.rows) for site in census.largest_sites(9)[3:]] == [("[::1]", 1), ("co.uk", 1)]
    assert census.rows_of("b.shop.co.uk") == 4
    census.close()


def test_who_is_behind_an_address_is_known_of_those_that_were_looked_up() -> None:
    limits = Limits(per_address=3)
    census = census_of({"a.example": 5, "b.example": 2, "c.example": 1, "127.0.0.1": 4})
    addresses = {"a.example": "127.0.0.1", "b.example": "10.0.0.1", "127.0.0.1": "127.0.0.1"}
    groups = {host: groups_of(host, limits, addresses) for host in ("a.example", "b.example", "c.example", "127.0.0.1")}
    assert [tuple(sharing)[:5] for sharing in sharing_of(census, limits, groups)] == [
        ("per_address", "127.0.0.1", 3, 9, 2),
        ("per_address", "10.0.0.1", 3, 2, 1),
    ]


def test_of_a_great_many_hosts_behind_an_address_a_sample_tells() -> None:
    limits = Limits(per_address=3)
    census = census_of({**{f"h{n}.example": 2 for n in range(2_000)}, **{f"x{n}.example": 4 for n in range(1_000)}})
    groups = {
        target.host: groups_of(target.host, limits, {target.host: "10.0.0.1" if target.host < "x" else "10.0.0.2"})
        for target in census.sample
    }
    first, second = sorted(sharing_of(census, limits, groups), key=lambda sharing: sharing.name)
    for sharing in (first, second):
        assert 0.6 * 4_000 <= sharing.rows <= 4_000  # half of the hundred drawn are there, more or less
    assert sharing_of(census, limits, {}) == []
    assert (first.hosts, second.hosts) == (round(first.rows / 2), round(second.rows / 4))


@given(st.integers(1, 400), st.integers(0, 400))
def test_an_estimate_is_below_what_was_found(asked: int, found: int) -> None:
    found = min(asked, found)
    assert 0 <= surely(found, asked) <= found / asked
    assert surely(100, 100) > 0.95
    assert surely(0, 5) == 0


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
    least=LeastTime(499_999.5, "delay", "large.example"),
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
        (LeastTime(5.0, "rate"), "at least 5.0 s, set by --rate"),
        (LeastTime(5.0, "concurrency"), "at least 5.0 s, set by --concurrency and the latency of the sample"),
        (
            LeastTime(5.0, "per_site", "shop.example"),
            "at least 5.0 s, set by shop.example (all its hosts, --per-site and their latency)",
        ),
        (LeastTime(5.0, "per_host", "h1"), "at least 5.0 s, set by h1 (233 rows, --per-host and its latency)"),
    ],
)
def test_what_sets_the_time_is_named(least: LeastTime | None, said: str) -> None:
    import msgspec

    last = msgspec.structs.replace(FORECAST, least=least).as_text().split("\n")[-1]
    assert last == f"time      {said}"


def test_a_list_of_addresses_has_no_line_of_names() -> None:
    import msgspec

    text = msgspec.structs.replace(FORECAST, names=NamesSampled(0, 0)).as_text()
    assert "names" not in text
    assert "robots" in text


def test_the_json_has_it_all() -> None:
    told = json.loads(FORECAST.as_json())
    assert (told["rows"], told["least"]) == (
        1_234_567,
        {"seconds": 499_999.5, "set_by": "delay", "host": "large.example"},
    )
    assert told["names"]["failed"]["gone7.example"] == "Name or service not known"
    assert told["robots"]["delays"] == {"h1": 5.0}
