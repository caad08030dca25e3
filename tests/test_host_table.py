"""All hosts by their names: which are remembered, what holds for each, and what is told of them."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from fetcher.config import HostPolicy, Limits, RetryPolicy
from fetcher.hosts.remote import RemoteHosts, worst
from fetcher.hosts.scheduler import Scheduler
from fetcher.hosts.state import HostReport, HostState, fold, unfold
from fetcher.hosts.table import MAX_REPORTED, HostTable

NOW = 1_000.0
MAX_HOSTS = 8_192  # here: an eighth of what it is


@pytest.fixture(autouse=True)
def few_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fetcher.hosts.table.MAX_HOSTS", MAX_HOSTS)


def hosts_of(retry: RetryPolicy | None = None, **limits: Any) -> Scheduler:
    return Scheduler(Limits(**limits), retry or RetryPolicy())


def known(hosts: Scheduler, *keys: str) -> list[HostState]:
    """Return hosts that have answered, and may have all that is configured."""
    found = [hosts.get(key, NOW) for key in keys]
    for host in found:
        host.answered(80)
    return found


# Forgetting


def test_what_nothing_depends_on_is_forgotten_and_nothing_else() -> None:
    hosts = hosts_of(delay=5.0)
    busy, reserved, waiting, parked, delayed = (hosts.get(key, NOW) for key in ("b", "p", "w", "k", "d"))
    hosts.shared.take(busy, NOW)
    hosts.shared.reserve(reserved)
    hosts.health.park(parked, NOW, 90.0)
    hosts.wait(waiting, "w")
    hosts.shared.take(delayed, NOW)
    hosts.finish(delayed)
    given_up = hosts.get("g", NOW)
    hosts.health.park(given_up, NOW, 1e9)
    for n in range(MAX_HOSTS):
        hosts.get(f"h{n}", NOW + 1)
    assert len(hosts.table) < 100
    for host in (busy, reserved, waiting, given_up):
        assert hosts.get(host.key, NOW + 1) is host
    for host, until in ((parked, NOW + 90.0), (delayed, NOW + 5.0)):  # of them no more than that
        assert hosts.get(host.key, NOW + 1).not_before == until


def test_the_delay_of_a_host_that_is_remembered_in_a_few_bytes_goes_to_the_next_run() -> None:
    hosts = hosts_of()
    slow = hosts.get("slow", NOW)
    hosts.table.set_crawl_delay(slow, 5.0)
    hosts.shared.take(slow, NOW)
    hosts.finish(slow)
    for n in range(MAX_HOSTS):
        hosts.get(f"h{n}", NOW + 1)
    assert len(hosts.table) < MAX_HOSTS
    assert hosts.table.delays() == {"slow": 5.0}


def test_a_host_that_rests_is_remembered_in_a_few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fetcher.hosts.table.MAX_RESTING_REPORTED", MAX_HOSTS)
    hosts = hosts_of()
    (host,) = known(hosts, "a")
    host.answered(8080)
    hosts.table.set_crawl_delay(host, 7.0)
    for wait in range(3):
        hosts.health.park(host, NOW + wait, None)
    told = hosts.table.parked(NOW + 3)
    last = (host.breaker.parked_until, host.breaker.charges, host.breaker.first_charge_at, host.ports)
    assert len(fold(host)) < 40
    for n in range(MAX_HOSTS):
        hosts.health.park(hosts.get(f"h{n}", NOW + 3), NOW + 3, 50.0)
    assert hosts.table.find("a") is None
    assert hosts.table.parked(NOW + 3)["a"] == told["a"] == 7.0
    again = hosts.get("a", NOW + 4)
    assert again is not host
    assert (
        again.breaker.parked_until,
        again.breaker.charges,
        round(again.breaker.first_charge_at, 3),
        again.ports,
    ) == last
    assert (again.own_delay, again.delay, again.limit) == (7.0, 7.0, 1)
    hosts.health.park(again, NOW + 70, None)
    assert again.breaker.given_up is not None  # its patience was not forgotten


def test_of_failures_beyond_count_it_is_remembered_that_there_were_many() -> None:
    host, again = hosts_of().get("a", NOW), hosts_of().get("a", NOW)
    for _ in range(1_000):
        host.breaker.failed(NOW)
    unfold(again, fold(host))
    assert again.breaker.failures == 255


def test_of_too_many_that_rest_those_that_rest_longest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fetcher.hosts.table.MAX_FOLDED", 2 * MAX_HOSTS)
    monkeypatch.setattr("fetcher.hosts.table.MAX_RESTING_REPORTED", 10)
    hosts = hosts_of()
    for n in range(5 * MAX_HOSTS):
        hosts.health.park(hosts.get(f"h{n}", NOW), NOW, 250.0)
        assert len(hosts.table) <= MAX_HOSTS
    assert len(hosts.table._folded) <= 2 * MAX_HOSTS
    assert hosts.get("h0", NOW).not_before == NOW + 250.0  # one of the thousand that are told of
    assert hosts.get(f"h{MAX_HOSTS // 2}", NOW).not_before == 0.0
    assert hosts.get(f"h{5 * MAX_HOSTS - 1}", NOW).not_before == NOW + 250.0
    assert hosts.get(f"h{4 * MAX_HOSTS}", NOW).not_before == NOW + 250.0
    assert len(hosts.table.parked(NOW)) <= MAX_HOSTS + 10


def test_as_long_as_there_is_place_all_that_rest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fetcher.hosts.table.MAX_HOSTS", 4)
    monkeypatch.setattr("fetcher.hosts.table.MAX_FOLDED", 6)
    hosts = hosts_of()
    for when, kind, seconds in ((NOW, "short", 1.0), (NOW + 10, "long", 250.0)):
        for n in range(5):
            hosts.health.park(hosts.get(f"{kind}{n}", when), when, seconds)
    assert not any(key.startswith("short") for key in hosts.table._folded)  # their time has come
    assert [hosts.get(f"long{n}", NOW + 10).not_before for n in range(5)] == [NOW + 260] * 5


def test_few_that_rest_are_all_remembered_where_the_time_of_the_others_has_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fetcher.hosts.table.MAX_HOSTS", 4)
    monkeypatch.setattr("fetcher.hosts.table.MAX_FOLDED", 8)
    hosts = hosts_of()
    for number, (kind, delay) in enumerate([("long", 30.0)] * 3 + [("short", 3.5)] * 25):
        host = hosts.get(f"{kind}{number}", NOW + number)
        hosts.table.set_crawl_delay(host, delay)
        hosts.shared.take(host, NOW + number)
        hosts.finish(host)
    assert [hosts.get(f"long{n}", NOW + 28).not_before for n in range(3)] == [NOW + 30.0, NOW + 31.0, NOW + 32.0]


def test_hosts_are_looked_through_when_there_are_many_and_not_with_each_that_is_new() -> None:
    hosts = hosts_of()
    for n in range(MAX_HOSTS + 1):
        hosts.get(f"h{n}", NOW)
    assert len(hosts.table) == 1  # of all that nothing depends on, the newest is left
    for n in range(MAX_HOSTS - 1):
        hosts.get(f"new{n}", NOW)
    assert len(hosts.table) == MAX_HOSTS


def test_where_nobody_asks_for_robots_txt_a_host_has_all_its_slots() -> None:
    assert HostTable(Limits(), RetryPolicy()).get("a", NOW).robots_known
    assert not HostTable(Limits(), RetryPolicy(), robots=True).get("a", NOW).robots_known


def test_those_who_refused_are_not_remembered_for_ever() -> None:
    hosts = hosts_of()
    for n in range(3 * MAX_HOSTS):
        hosts.health.park(hosts.get(f"h{n}", NOW), NOW, 1e9)
        assert len(hosts.table) <= MAX_HOSTS
    assert hosts.get(f"h{3 * MAX_HOSTS - 1}", NOW).breaker.given_up is not None


def test_of_those_who_refused_the_newest_quarter_is_remembered() -> None:
    hosts = hosts_of()
    for n in range(MAX_HOSTS):
        hosts.health.park(hosts.get(f"h{n}", NOW), NOW, 1e9)
    hosts.get("one more", NOW)
    assert len(hosts.table) <= MAX_HOSTS // 2 + 1  # or the next would have all of them looked through again
    found = [hosts.table.find(f"h{n}") for n in range(MAX_HOSTS * 3 // 4, MAX_HOSTS)]
    assert all(host is not None and host.breaker.given_up is not None for host in found)


def test_hosts_at_work_are_not_looked_through_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fetcher.hosts.table.MAX_HOSTS", 4)
    hosts, calls = hosts_of(), 0

    def note(frame: FrameType, event: str, _: object) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code.co_filename.endswith("table.py")

    sys.setprofile(note)
    try:
        for n in range(1_000):
            hosts.shared.reserve(hosts.get(f"h{n}", NOW))
    finally:
        sys.setprofile(None)
    assert 2_000 <= calls < 3_000


def test_when_all_are_at_work_all_are_kept() -> None:
    hosts = hosts_of()
    for n in range(MAX_HOSTS + 1_000):
        hosts.shared.reserve(hosts.get(f"h{n}", NOW))
    assert len(hosts.table) == hosts.shared.reserved == MAX_HOSTS + 1_000


# What holds for one host


POLICIES = (
    ("slow.example", HostPolicy(per_host=1, delay=2.0)),
    ("*.example", HostPolicy(per_host=2, host_patience=5.0)),
    ("*.deep.example", HostPolicy(per_host=3, max_crawl_delay=100.0)),
)


@pytest.mark.parametrize(
    ("key", "most", "delay", "patience"),
    [
        ("slow.example", 1, 2.0, 60.0), ("any.example", 2, 0.5, 5.0), ("a.b.example", 2, 0.5, 5.0),
        ("x.deep.example", 3, 0.5, 60.0), ("deep.example", 2, 0.5, 5.0), ("example", 6, 0.5, 60.0),
        ("notexample", 6, 0.5, 60.0), ("192.0.2.1", 6, 0.5, 60.0),
    ],
)  # fmt: skip
def test_the_most_particular_policy_holds(key: str, most: int, delay: float, patience: float) -> None:
    host = Scheduler(Limits(delay=0.5), RetryPolicy(), POLICIES).get(key, NOW)
    assert (host.settings.per_host, host.delay, host.settings.retry.host_patience) == (most, delay, patience)


def test_a_crawl_delay_holds_up_to_the_cap_and_a_larger_delay_wins() -> None:
    hosts = Scheduler(Limits(delay=1.0, max_crawl_delay=30.0), RetryPolicy(), POLICIES)
    for key, asked, delay in (
        ("a.test", 5.0, 5.0), ("b.test", 0.5, 1.0), ("c.test", 600.0, 30.0), ("x.deep.example", 600.0, 100.0),
        ("slow.example", 1.0, 2.0),
    ):  # fmt: skip
        host = hosts.get(key, NOW)
        hosts.shared.take(host, NOW)  # its robots.txt
        hosts.table.set_crawl_delay(host, asked)
        assert (host.delay, host.not_before) == (delay, NOW + delay)
        hosts.finish(host)


# From run to run, and what is told


def test_what_is_parked_is_parked_in_the_next_run() -> None:
    first = hosts_of(delay=1.0)
    hosts = [first.get(key, NOW) for key in ("parked", "over", "crawl", "plain")]
    for host in hosts:
        first.shared.take(host, NOW)
        first.finish(host)
    first.health.park(hosts[0], NOW, 60.0)
    first.health.park(hosts[1], NOW, 5.0)
    first.table.set_crawl_delay(hosts[2], 10.0)
    parked = first.table.parked(NOW + 20)
    assert parked == {"parked": 40.0, "crawl": 10.0}
    later = NOW + 1_000
    second = hosts_of(delay=1.0)
    early = second.get("early", later)
    second.table.restore(parked, later)
    found = {key: second.get(key, later + 5).not_before - later for key in ("parked", "crawl", "plain")}
    assert found == {"parked": 40.0, "crawl": 10.0, "plain": 1.0}  # nobody knows when it was asked last
    assert early.not_before == later + 1.0
    second.table.set_crawl_delay(second.get("told", later), 7.0)
    assert second.get("told", later).not_before == later + 7.0
    assert second.table.parked(later) == {"parked": 40.0, "crawl": 10.0, "told": 7.0}


def test_of_a_parking_is_told_what_is_left_however_short() -> None:
    hosts = hosts_of()
    hosts.health.park(hosts.get("parked", NOW), NOW, 60.0)
    assert hosts.table.parked(NOW + 59.75) == {"parked": 0.25}


def test_a_delay_is_remembered_only_until_the_rules_of_the_host_are_known() -> None:
    for robots, delay in ((True, 2.0), (False, 0.0)):
        hosts = Scheduler(Limits(), RetryPolicy(), robots=robots)
        hosts.table.restore({}, NOW, {"a": 2.0})
        assert hosts.get("a", NOW).delay == delay
        assert hosts.get("b", NOW).delay == 0.0  # of it nothing is remembered


def test_those_in_trouble_are_told_of_the_worst_first() -> None:
    hosts = hosts_of()
    for n in range(5 * MAX_REPORTED):
        hosts.table.counts(hosts.get(f"h{n}", NOW)).refused += n
        assert len(hosts.table._troubled) <= 2 * MAX_REPORTED
    found = hosts.table.troubled()
    assert [report.host for report in found[:3]] == [f"h{5 * MAX_REPORTED - n}" for n in (1, 2, 3)]
    assert len(found) == MAX_REPORTED == 1_000


def test_every_sort_of_trouble_counts_for_who_is_the_worst() -> None:
    hosts = hosts_of()
    plain = hosts.table.counts(hosts.get("plain", NOW))
    plain.refused, plain.failed, plain.slow, plain.denied, plain.parked = 2, 2, 2, 2, 2.0
    for name in ("refused", "failed", "slow", "denied", "parked"):
        counts = hosts.table.counts(hosts.get(name, NOW))
        setattr(counts, name, 11)
    assert [report.host for report in hosts.table.troubled()][-1] == "plain"


def test_what_another_process_says_of_its_hosts_holds_from_when_it_was_said() -> None:
    remote = RemoteHosts()
    assert (remote.parked(NOW), remote.delays, remote.troubled) == ({}, {}, [])
    report = HostReport("a", refused=1)
    remote.heard({"a": 5.0, "b": 9.0}, {"b": 2.0}, [report], NOW)
    assert remote.parked(NOW) == {"a": 5.0, "b": 9.0}
    assert remote.parked(NOW + 5.0) == {"b": 4.0}
    assert (remote.delays, remote.troubled) == ({"b": 2.0}, [report])
    remote.heard({}, {}, [], NOW + 1.0)  # the last that was heard is what is so
    assert (remote.parked(NOW + 2.0), remote.delays, remote.troubled) == ({}, {}, [])


def test_of_the_troubles_of_several_processes_the_worst_come_first() -> None:
    reports = [
        HostReport("none"),
        HostReport("refused", refused=3),
        HostReport("failed", failed=4),
        HostReport("slow", slow=5),
        HostReport("denied", denied=6),
        HostReport("parked", parked=7.0),
        HostReport("some", refused=2, failed=2, slow=2, denied=1, parked=1.0),
    ]
    assert [report.host for report in worst(reports)] == [
        "some", "parked", "denied", "slow", "failed", "refused", "none",
    ]  # fmt: skip
    assert len(worst([HostReport(f"h{n}") for n in range(1_500)])) == 1_000


def test_a_report_says_what_was_found() -> None:
    assert HostReport("a") == HostReport("a", 0, 0, 0, 0, 0, 0.0, None, 0.0, None)  # nothing, where nothing is said
    hosts = hosts_of()
    (host,) = known(hosts, "a.example")
    for _ in range(7):
        hosts.shared.take(host, NOW)
    hosts.health.park(host, NOW, 5.0)
    hosts.health.park(host, NOW + 1, 10.0)
    hosts.table.counts(host).denied += 2
    assert hosts.table.troubled() == [HostReport("a.example", requests=7, denied=2, parked=11.0)]
    hosts.health.park(host, NOW, 1e9)
    assert hosts.table.troubled()[0].given_up == host.breaker.given_up != ""


def test_a_report_says_what_a_host_was_found_to_bear_where_that_is_less_than_was_allowed() -> None:
    hosts = hosts_of(per_host=6)
    (host,) = known(hosts, "a.example")
    for _ in range(6):
        hosts.shared.take(host, NOW)
    hosts.health.refused(host, 429, None, NOW, NOW)
    assert [report.ceiling for report in hosts.table.troubled()] == [5]
    while host.limit < 6:
        hosts.health.answered(host, 80, 200, NOW, NOW)
    assert [report.ceiling for report in hosts.table.troubled()] == [None]


def test_a_million_hosts_leave_what_is_bounded() -> None:
    hosts = hosts_of(per_site=5)
    for n in range(5 * MAX_HOSTS):
        host = hosts.get(f"h.site{n}.example", NOW)
        hosts.shared.reserve(host)
        hosts.shared.unreserve(host)
        hosts.shared.take(host, NOW)
        if n % 10 == 0:
            hosts.table.counts(host).failed += 1
        hosts.finish(host)
    assert len(hosts.table) <= MAX_HOSTS
    assert len(hosts.table._sites) <= MAX_HOSTS
    assert len(hosts.table._troubled) <= 2 * MAX_REPORTED
