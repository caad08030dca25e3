"""How a host stands, as people are told while a run goes on: what is left of it, and what it waits for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fetcher.config import HostPolicy, Limits, RetryPolicy
from fetcher.hosts.health import FailureKind
from fetcher.hosts.scheduler import Scheduler
from fetcher.hosts.standing import HostStanding, longest, standing_of, standings_of
from fetcher.hosts.state import HostState

NOW = 1_000.0
NAME = "a.example"


def scheduler_of(*, robots: bool = False, **limits: Any) -> Scheduler:
    policies = [("slow.example", HostPolicy(delay=7.0))]
    return Scheduler(Limits(**{"per_host": 3, **limits}), RetryPolicy(), policies, robots=robots)


def standing(
    hosts: Scheduler, name: str = NAME, *, now: float = NOW, waiting: int = 9, running: int = 0
) -> HostStanding:
    return standing_of(hosts.table.find(name), name, hosts.shared, waiting=waiting, running=running, now=now)


def why(hosts: Scheduler, name: str = NAME, *, now: float = NOW) -> str:
    return standing(hosts, name, now=now).why


def known(hosts: Scheduler, name: str = NAME) -> HostState:
    host = hosts.get(name, NOW)
    hosts.health.answered(host, 80, 200, NOW, NOW)
    return host


def test_a_host_that_nobody_asked_has_rows_and_nothing_else() -> None:
    found = standing(scheduler_of(), waiting=4, running=1)
    assert found == HostStanding(NAME, 4, 1, why="not asked yet")
    assert (found.left, found.seconds, found.rows_per_slot) == (5, 0.0, 5.0)


def test_a_host_that_is_being_asked_waits_for_nothing() -> None:
    hosts = scheduler_of()
    host = known(hosts)
    hosts.shared.take(host, NOW)
    assert standing(hosts, running=1) == HostStanding(NAME, 9, 1, on_wire=1, limit=3, delay=0.0, requests=1)
    assert standing(hosts, running=1).rows_per_slot == pytest.approx(10 / 3)


def refuse(hosts: Scheduler, host: HostState, wish: float | None = None) -> None:
    hosts.health.park(host, NOW, wish)


def die(hosts: Scheduler, host: HostState) -> None:
    for _ in range(2):
        hosts.health.failed(host, 81, FailureKind.UNREACHED, NOW, NOW)


def fill(hosts: Scheduler, host: HostState, number: int = 3) -> None:
    for _ in range(number):
        hosts.shared.take(host, NOW)


def fall(hosts: Scheduler, host: HostState) -> None:
    fill(hosts, host)
    hosts.health.refused(host, 429, None, NOW, NOW)


def rest(hosts: Scheduler, host: HostState) -> None:
    hosts.shared.take(host, NOW)
    hosts.shared.release(host)


@pytest.mark.parametrize(
    ("act", "limits", "said"),
    [
        (lambda hosts, host: refuse(hosts, host, 30.0), {}, "it asked to be left alone (Retry-After)"),
        (refuse, {}, "it refused a request"),
        (
            lambda hosts, host: [hosts.health.park(host, when, None) for when in (NOW - 30, NOW)],
            {},
            "it refused 2 times",
        ),
        (die, {}, "it does not answer"),
        (lambda hosts, host: hosts.health.failed(host, 80, FailureKind.UNREACHED, NOW, NOW), {}, "it does not answer"),
        (fill, {}, "its limit: 3 at once"),
        (fall, {}, "it bears 2 at once"),
        (lambda hosts, host: fill(hosts, host, 2), {"concurrency": 2}, "there is no free slot"),
        (rest, {"delay": 4.0}, "--delay: 4 s between two"),
        (lambda hosts, host: host.know_robots(known=False), {}, "its robots.txt is not read yet"),
    ],
)
def test_what_a_host_waits_for(
    act: Callable[[Scheduler, HostState], object], limits: dict[str, Any], said: str
) -> None:
    hosts = scheduler_of(**limits)
    host = known(hosts)
    assert why(hosts) == ""
    act(hosts, host)
    assert why(hosts) == said


@pytest.mark.parametrize("act", [lambda hosts, host: refuse(hosts, host, 30.0), refuse, die])
def test_a_pause_is_over_when_its_time_has_come(act: Callable[[Scheduler, HostState], object]) -> None:
    hosts = scheduler_of()
    host = known(hosts)
    act(hosts, host)
    over = max(host.breaker.parked_until, host.breaker.open_until, host.breaker.retry_after_until)
    assert (why(hosts, now=over - 0.001) != "", why(hosts, now=over)) == (True, "")
    assert standing(hosts, now=over).parked == 0.0


def test_pauses_between_two_requests_are_said_to_be_whose_they_are() -> None:
    hosts = scheduler_of()
    for name in ("slow.example", "asks.example", "bears.example"):
        rest(hosts, known(hosts, name))
    assert why(hosts, "slow.example") == "--delay: 7 s between two"
    assert why(hosts, "slow.example", now=NOW + 7.0) == ""
    hosts.table.set_crawl_delay(hosts.get("asks.example", NOW), 5.0)
    rest(hosts, hosts.get("asks.example", NOW))
    assert why(hosts, "asks.example") == "its robots.txt asks for 5 s between two"
    hosts.table.set_crawl_delay(hosts.get("slow.example", NOW), 5.0)
    assert why(hosts, "slow.example") == "--delay: 7 s between two"
    slow = hosts.get("bears.example", NOW)
    for _ in range(4):
        slow.refused(NOW, sure=True)  # one by one, until its starts move apart
    rest(hosts, slow)
    assert why(hosts, "bears.example") == "it bears one in 0.08 s"


@pytest.mark.parametrize(
    ("limits", "said"), [({"rate": 2.0}, "--rate: 2 a second"), ({}, "our own network rests")], ids=["rate", "network"]
)
def test_what_all_hosts_wait_for_is_over_when_its_time_has_come(limits: dict[str, Any], said: str) -> None:
    hosts = scheduler_of(**limits)
    rest(hosts, known(hosts))
    if not limits:
        hosts.shared.rest_until(NOW + 0.5)
    over = hosts.shared.rate_next
    assert over == pytest.approx(NOW + 0.5, abs=0.1)
    assert (why(hosts, now=over - 0.001), why(hosts, now=over)) == (said, "")


def test_one_that_is_probed_has_one_at_once() -> None:
    hosts = scheduler_of()
    host = known(hosts)
    hosts.health.failed(host, 80, FailureKind.UNREACHED, NOW, NOW)
    later = host.breaker.parked_until
    hosts.shared.take(host, later)
    assert (host.limit, why(hosts, now=later)) == (1, "one at once until it answers")
    hosts.health.answered(host, 80, 200, later, later)
    assert why(hosts, now=later) == ""


def test_the_last_word_is_said_first() -> None:
    hosts = scheduler_of()
    host = known(hosts)
    refuse(hosts, host, 30.0)
    hosts.shared.paused = True
    assert why(hosts) == "the run is paused"
    hosts.health.park(host, NOW + 31, 1e9)
    assert why(hosts).startswith(f"given up: {NAME} asks to wait ")


def test_a_pause_counts_until_it_is_over_and_then_rows_by_their_delay() -> None:
    hosts = scheduler_of(delay=4.0)
    host = known(hosts)
    assert (standing(hosts, waiting=3).parked, standing(hosts, waiting=3).seconds) == (0.0, 8.0)
    assert standing(hosts, waiting=0).seconds == 0.0
    refuse(hosts, host, 30.0)
    assert (standing(hosts, now=NOW + 10, waiting=3).parked, standing(hosts, now=NOW + 40).parked) == (20.0, 0.0)
    assert standing(hosts, now=NOW + 10, waiting=2, running=1).seconds == 28.0


def test_those_come_first_that_are_needed_for_longest() -> None:
    hosts = scheduler_of()
    for name in ("few", "many", "parked"):
        known(hosts, name)
    refuse(hosts, hosts.get("parked", NOW), 30.0)
    waiting, running = {"few": 1, "many": 8, "parked": 1}, {"many": 1, "new": 2}
    found = standings_of(hosts.table, hosts.shared, waiting=waiting, running=running, now=NOW, most=4)
    assert [(each.host, each.waiting, each.running) for each in found] == [
        ("parked", 1, 0), ("many", 8, 1), ("new", 0, 2), ("few", 1, 0),
    ]  # fmt: skip
    assert longest(found[::-1], 2) == found[:2]
