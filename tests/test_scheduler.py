"""One decision about hosts: slots and reservations, delay and rate, suspects and groups, the queue of the gate."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.config import HostPolicy, Limits, RetryPolicy
from fetcher.hosts.health import FailureKind
from fetcher.hosts.limits import MAX_CATCH_UP_SECONDS, RECHECK_RESERVED_SECONDS, block
from fetcher.hosts.scheduler import (
    CONNECT,
    CONNECT_IN_PLACE,
    DISPATCH,
    GIVEN_UP,
    MAX_WAIT_IN_TASK_SECONDS,
    RECHECK_SHARED_SECONDS,
    SEND,
    WHEN_ONE_ENDS,
    Scheduler,
    Step,
    must_go_back,
)
from fetcher.hosts.state import HostState
from fetcher.middleware.gate import Gate

NOW = 1_000.0


def hosts_of(retry: RetryPolicy | None = None, **limits: Any) -> Scheduler:
    return Scheduler(Limits(**limits), retry or RetryPolicy())


def known(hosts: Scheduler, *keys: str) -> list[HostState]:
    """Return hosts that have answered, and may have all that is configured."""
    found = [hosts.get(key, NOW) for key in keys]
    for host in found:
        host.answered(80)
    return found


def may_start(hosts: Scheduler, host: HostState, now: float) -> bool:
    """Whether an exchange with the host would find its slots now."""
    return hosts.decide(host, CONNECT_IN_PLACE, now) <= now


# The table: which rule holds at which step


AT_ONCE = "at once"
STEPS = (DISPATCH, CONNECT, CONNECT_IN_PLACE, SEND)
Situation = tuple[Scheduler, HostState]


def given_up() -> Situation:
    hosts = hosts_of()
    (host,) = known(hosts, "a")
    hosts.health.park(host, NOW, 1e9)
    return hosts, host


def no_slot_of_all() -> Situation:
    hosts = hosts_of(concurrency=1)
    host, other = known(hosts, "a", "b")
    hosts.shared.take(other, NOW)
    return hosts, host


def no_rate_of_all() -> Situation:
    hosts = hosts_of(rate=1.0)
    host, other = known(hosts, "a", "b")
    hosts.shared.take(other, NOW)
    hosts.finish(other)
    return hosts, host


def no_slot_of_the_host() -> Situation:
    hosts = hosts_of(per_host=1)
    (host,) = known(hosts, "a")
    hosts.shared.take(host, NOW)
    return hosts, host


def a_slot_of_the_host_reserved() -> Situation:
    hosts = hosts_of(per_host=1)
    (host,) = known(hosts, "a")
    hosts.shared.reserve(host)
    return hosts, host


def another_waits_for_the_host() -> Situation:
    hosts = hosts_of(per_host=1)
    (host,) = known(hosts, "a")
    hosts.wait(host, "another")
    return hosts, host


def robots_unknown() -> Situation:
    hosts = Scheduler(Limits(), RetryPolicy(), robots=True)
    (host,) = known(hosts, "a")
    return hosts, host


def robots_unknown_and_a_row_reserved() -> Situation:
    hosts, host = robots_unknown()
    hosts.shared.reserve(host)
    return hosts, host


def breaker_open() -> Situation:
    hosts = hosts_of(RetryPolicy(backoff=1.0))
    host = hosts.get("a", NOW)
    for _ in range(2):  # connects that failed
        hosts.health.failed(host, 80, FailureKind.UNREACHED, NOW, NOW)
    return hosts, host


def breaker_closes_now_and_no_slot_of_the_host() -> Situation:
    hosts = hosts_of(per_host=1)
    (host,) = known(hosts, "a")
    hosts.shared.take(host, NOW)
    host.breaker.open_until = NOW
    return hosts, host


def breaker_closes_now_and_suspects_hold_their_share() -> Situation:
    hosts, host = suspects_hold_their_share()
    host.breaker.open_until = NOW
    return hosts, host


def breaker_open_and_parked_for_longer() -> Situation:
    hosts, host = breaker_open()
    hosts.health.park(host, NOW, 9.0)
    return hosts, host


def suspects_hold_their_share() -> Situation:
    hosts = hosts_of(concurrency=12)
    host, other, good = known(hosts, "a", "b", "c")
    for suspect in (host, other):
        hosts.shared.set_suspect(suspect, suspect=True)
    hosts.shared.take(other, NOW)
    hosts.shared.take(good, NOW)
    return hosts, host


def group_full() -> Situation:
    hosts = hosts_of(per_site=1)
    host, other = known(hosts, "a.site.example", "b.site.example")
    hosts.shared.take(other, NOW)
    return hosts, host


def group_reserved() -> Situation:
    hosts = hosts_of(per_site=1)
    host, other = known(hosts, "a.site.example", "b.site.example")
    hosts.shared.reserve(other)
    return hosts, host


def others_wait_for_the_group() -> Situation:
    hosts = hosts_of(per_site=1)
    host, other = known(hosts, "a.site.example", "b.site.example")
    hosts.wait(other, "other")
    return hosts, host


def delay_since_the_last_start() -> Situation:
    hosts = hosts_of(delay=2.0)
    (host,) = known(hosts, "a")
    hosts.shared.take(host, NOW)
    hosts.finish(host)
    return hosts, host


def delay_with_rows_ahead() -> Situation:
    hosts = hosts_of(delay=2.0)
    (host,) = known(hosts, "a")
    hosts.shared.reserve(host)
    hosts.wait(host, "another")
    return hosts, host


def delay_since_the_last_start_and_no_slot() -> Situation:
    hosts = hosts_of(delay=2.0, per_host=1)
    (host,) = known(hosts, "a")
    hosts.shared.take(host, NOW)
    return hosts, host


def delay_is_over_and_no_slot() -> Situation:
    hosts = hosts_of(delay=2.0, per_host=1)
    (host,) = known(hosts, "a")
    hosts.shared.take(host, NOW - 2.0)
    return hosts, host


def parked() -> Situation:
    hosts = hosts_of(RetryPolicy(backoff=1.0))
    (host,) = known(hosts, "a")
    hosts.health.park(host, NOW, None)
    return hosts, host


def asked_to_be_left_alone() -> Situation:
    hosts = hosts_of()
    (host,) = known(hosts, "a")
    hosts.health.park(host, NOW, 9.0)
    return hosts, host


def delay_since_the_last_sending() -> Situation:
    hosts = hosts_of()
    (host,) = known(hosts, "a")
    host.sent(NOW)
    hosts.table.set_crawl_delay(host, 2.0)
    return hosts, host


def nothing() -> Situation:
    hosts = hosts_of()
    (host,) = known(hosts, "a")
    return hosts, host


ENDS, RESERVED, SHARED = WHEN_ONE_ENDS, NOW + RECHECK_RESERVED_SECONDS, NOW + RECHECK_SHARED_SECONDS
TABLE: list[tuple[Callable[[], Situation], tuple[float | str, ...]]] = [
    (nothing, (AT_ONCE, AT_ONCE, AT_ONCE, AT_ONCE)),
    (given_up, (GIVEN_UP, GIVEN_UP, GIVEN_UP, GIVEN_UP)),
    (no_slot_of_all, (AT_ONCE, ENDS, ENDS, AT_ONCE)),
    (no_rate_of_all, (AT_ONCE, ENDS, ENDS, AT_ONCE)),
    (no_slot_of_the_host, (ENDS, ENDS, ENDS, AT_ONCE)),
    (a_slot_of_the_host_reserved, (RESERVED, AT_ONCE, AT_ONCE, AT_ONCE)),
    (another_waits_for_the_host, (RESERVED, AT_ONCE, AT_ONCE, AT_ONCE)),
    (robots_unknown, (AT_ONCE, AT_ONCE, AT_ONCE, AT_ONCE)),
    (robots_unknown_and_a_row_reserved, (RESERVED, AT_ONCE, AT_ONCE, AT_ONCE)),
    (breaker_open, (NOW + 0.5, NOW + 0.5, AT_ONCE, AT_ONCE)),
    (breaker_closes_now_and_no_slot_of_the_host, (ENDS, ENDS, ENDS, AT_ONCE)),
    (breaker_closes_now_and_suspects_hold_their_share, (SHARED, RESERVED, RESERVED, AT_ONCE)),
    (breaker_open_and_parked_for_longer, (NOW + 9.0, NOW + 9.0, NOW + 9.0, NOW + 9.0)),
    (suspects_hold_their_share, (SHARED, RESERVED, RESERVED, AT_ONCE)),
    (group_full, (SHARED, RESERVED, RESERVED, AT_ONCE)),
    (group_reserved, (SHARED, AT_ONCE, AT_ONCE, AT_ONCE)),
    (others_wait_for_the_group, (SHARED, AT_ONCE, AT_ONCE, AT_ONCE)),
    (delay_since_the_last_start, (NOW + 2.0, NOW + 2.0, NOW + 2.0, AT_ONCE)),
    (delay_with_rows_ahead, (NOW + 4.0, AT_ONCE, AT_ONCE, AT_ONCE)),
    (delay_since_the_last_start_and_no_slot, (ENDS, NOW + 2.0, NOW + 2.0, AT_ONCE)),
    (delay_is_over_and_no_slot, (ENDS, ENDS, ENDS, AT_ONCE)),
    (parked, (NOW + 1.0, NOW + 1.0, NOW + 1.0, AT_ONCE)),
    (asked_to_be_left_alone, (NOW + 9.0, NOW + 9.0, NOW + 9.0, NOW + 9.0)),
    (delay_since_the_last_sending, (AT_ONCE, AT_ONCE, AT_ONCE, NOW + 2.0)),
]


@pytest.mark.parametrize(("situation", "answers"), TABLE, ids=lambda value: getattr(value, "__name__", ""))
def test_which_rule_holds_at_which_step(situation: Callable[[], Situation], answers: tuple[float | str, ...]) -> None:
    hosts, host = situation()
    found = [hosts.decide(host, step, NOW) for step in STEPS]
    assert tuple(AT_ONCE if GIVEN_UP < opens <= NOW else opens for opens in found) == answers


@pytest.mark.parametrize("step", STEPS)
def test_time_may_begin_at_zero(step: Step) -> None:
    """As on a machine that has just booted: what never was is not in the future."""
    hosts = hosts_of()
    assert hosts.decide(hosts.get("a", 0.0), step, 0.0) <= 0.0
    assert hosts.shared.has_room(0.0)


@pytest.mark.parametrize("situation", [situation for situation, _ in TABLE])
def test_all_hosts_are_asked_for_together_once_before_each(situation: Callable[[], Situation]) -> None:
    """What a new row finds of the slots and the rate of all is said by ``has_room``, not by ``decide``."""
    hosts, _ = situation()
    waits = (
        no_slot_of_all,
        no_rate_of_all,
        another_waits_for_the_host,
        others_wait_for_the_group,
        delay_with_rows_ahead,
    )
    assert hosts.shared.has_room(NOW) is (situation not in waits)


def fields_of(value: Any) -> Any:
    """Return all that an object holds, as plain values."""
    names = getattr(type(value), "__slots__", None) or getattr(value, "__dict__", None)
    if isinstance(value, dict | list | tuple | deque):
        items = value.items() if isinstance(value, dict) else value
        return [fields_of(item) for item in items]
    if names is None or isinstance(value, RetryPolicy | Limits) or callable(value):
        return value
    return {name: fields_of(getattr(value, name)) for name in names}


@pytest.mark.parametrize("situation", [situation for situation, _ in TABLE])
def test_a_decision_changes_nothing(situation: Callable[[], Situation]) -> None:
    hosts, host = situation()
    watched = (host, hosts.shared, hosts.network, hosts.table._hosts, hosts._sleepers)
    before = fields_of(watched)
    assert before[0]["breaker"]["half_open"] is host.breaker.half_open  # it looks into what it shows
    for step in STEPS:
        assert hosts.decide(host, step, NOW) == hosts.decide(host, step, NOW)
    assert fields_of(watched) == before


@pytest.mark.parametrize(
    ("open_for", "opens_in", "goes_back"),
    [
        (-NOW, -NOW, False),
        (-NOW, 0.0, False),
        (-NOW, MAX_WAIT_IN_TASK_SECONDS, False),
        (-NOW, MAX_WAIT_IN_TASK_SECONDS + 0.01, True),
        (-NOW, WHEN_ONE_ENDS, False),
        (-NOW, GIVEN_UP, False),
        (0.0, 0.2, False),  # it was open until now
        (0.2, 0.2, True),  # a host that seems dead is not waited for, however short that is
    ],
)
def test_a_row_waits_in_its_task_for_a_second_at_most(open_for: float, opens_in: float, goes_back: bool) -> None:
    host = hosts_of().get("a", NOW)
    host.breaker.open_until = NOW + open_for
    assert must_go_back(host, NOW + opens_in, NOW) is goes_back


# What is seen at a glance


def test_a_host_shows_its_state() -> None:
    hosts = hosts_of(RetryPolicy(backoff=1.0), per_host=2, delay=0.5)
    host = hosts.get("a.test", NOW)
    assert repr(host) == (
        "<HostState a.test: 0/1 on wire, 0 reserved, 0 waiting, half-open, delay 0.5 s, not before 0.000>"
    )
    host.answered(80)
    hosts.shared.take(host, NOW)
    hosts.shared.reserve(host)
    hosts.wait(host, "another")
    hosts.shared.set_suspect(host, suspect=True)
    assert repr(host) == (
        "<HostState a.test: 1/2 on wire, 1 reserved, 1 waiting, closed, suspect, delay 0.5 s, not before 1000.500>"
    )
    hosts.health.park(host, NOW, 1e9)
    assert "given up" in repr(host)


def test_the_gate_shows_its_state() -> None:
    hosts = hosts_of(concurrency=5, per_host=3)
    a, b = known(hosts, "a", "b")
    hosts.get("c", NOW)
    hosts.shared.take(a, NOW)
    hosts.shared.take(a, NOW)
    hosts.shared.reserve(a)
    hosts.wait(b, "another")
    assert repr(Gate(hosts)) == "<Gate 2/5 on wire, 1 reserved, 1 hosts waited for, 3 known>"


# Slots and reservations


def test_a_new_host_is_a_blank_state() -> None:
    hosts = hosts_of()
    host = hosts.get("a", NOW)
    assert hosts.get("a", NOW) is host
    assert (host.on_wire, host.reserved, host.ports, host.breaker.given_up, len(hosts.table)) == (0, 0, (), None, 1)
    assert (host.delay, host.crawl_delay, host.requests, host.suspect) == (0.0, 0.0, 0, False)
    assert host.idle(NOW)
    assert hosts.decide(host, DISPATCH, NOW) == 0.0
    assert may_start(hosts, host, NOW)


@pytest.mark.parametrize("at_work", ["on_wire", "reserved", "waiters"])
def test_a_host_with_anything_under_way_is_not_idle(at_work: str) -> None:
    hosts = hosts_of()
    host = hosts.get("a", NOW)
    assert host.idle(NOW)
    if at_work == "on_wire":
        hosts.shared.take(host, NOW)
    elif at_work == "reserved":
        hosts.shared.reserve(host)
    else:
        hosts.wait(host, "waiter")
    assert not host.idle(NOW)
    assert host.awaited


def test_a_host_that_rests_is_not_idle_until_its_time_has_come() -> None:
    hosts = hosts_of()
    host = hosts.get("a", NOW)
    hosts.health.park(host, NOW, 5.0)
    assert (host.idle(NOW + 4.9), host.idle(NOW + 5.0)) == (False, True)


@pytest.mark.parametrize(
    ("robots", "answered", "suspect", "awaited"),
    [
        (False, False, False, True),  # its first answer
        (False, True, False, False),
        (True, True, False, True),  # its robots.txt
        (True, False, False, True),
        (False, False, True, False),  # it may never come
        (True, True, True, False),
    ],
)
def test_what_may_come_at_any_moment_is_a_first_answer_or_robots_txt(
    robots: bool, answered: bool, suspect: bool, awaited: bool
) -> None:
    hosts = Scheduler(Limits(), RetryPolicy(), robots=robots)
    host = hosts.get("a", NOW)
    if answered:
        host.answered(80)
    hosts.shared.set_suspect(host, suspect=suspect)
    assert not host.awaited
    hosts.shared.take(host, NOW)
    assert host.awaited is awaited


def test_both_slots_are_taken_and_given_back_together() -> None:
    hosts = hosts_of(concurrency=3, per_host=2)
    a, b = known(hosts, "a", "b")
    hosts.shared.take(a, NOW)
    hosts.shared.take(a, NOW)
    assert not may_start(hosts, a, NOW)
    hosts.shared.take(b, NOW)
    assert not may_start(hosts, b, NOW)
    assert (hosts.shared.on_wire, a.on_wire, b.on_wire) == (3, 2, 1)
    hosts.finish(a)
    assert may_start(hosts, b, NOW)
    assert (hosts.shared.on_wire, a.on_wire, b.on_wire) == (2, 1, 1)


def test_reservations_count_for_new_rows_and_block_nobody_at_the_gate() -> None:
    hosts = hosts_of(concurrency=2, per_host=2)
    (host,) = known(hosts, "a")
    hosts.shared.reserve(host)
    hosts.shared.reserve(host)
    assert not hosts.shared.has_room(NOW)
    assert may_start(hosts, host, NOW)
    assert hosts.decide(host, DISPATCH, NOW) == NOW + RECHECK_RESERVED_SECONDS
    hosts.shared.unreserve(host)
    assert hosts.shared.has_room(NOW)
    assert (hosts.shared.reserved, host.reserved) == (1, 1)


def test_a_full_host_opens_when_one_ends() -> None:
    hosts = hosts_of(per_host=2)
    (host,) = known(hosts, "a")
    hosts.shared.take(host, NOW)
    hosts.shared.reserve(host)
    assert hosts.decide(host, DISPATCH, NOW) == WHEN_ONE_ENDS
    hosts.shared.unreserve(host)
    assert hosts.decide(host, DISPATCH, NOW) == 0.0


def test_those_who_wait_at_the_gate_count_before_new_rows() -> None:
    hosts = hosts_of(per_host=2)
    (host,) = known(hosts, "a")
    hosts.health.park(host, NOW, 5.0)
    hosts.wait(host, "one")
    assert hosts.decide(host, DISPATCH, NOW) == NOW + 5.0
    hosts.wait(host, "two")
    assert hosts.decide(host, DISPATCH, NOW) == NOW + 5.0
    assert (
        hosts.decide(host, DISPATCH, NOW + 5.0) == NOW + 5.0 + RECHECK_RESERVED_SECONDS
    )  # they go first, and they may be cancelled


def test_a_host_whose_robots_are_unknown_has_one_row() -> None:
    hosts = Scheduler(Limits(), RetryPolicy(), robots=True)
    (host,) = known(hosts, "a")
    assert hosts.decide(host, DISPATCH, NOW) == 0.0
    hosts.shared.reserve(host)
    assert hosts.decide(host, DISPATCH, NOW) == NOW + RECHECK_RESERVED_SECONDS
    assert may_start(hosts, host, NOW)  # robots.txt itself, and a hop
    host.know_robots()
    assert hosts.decide(host, DISPATCH, NOW) == 0.0


# Delay and rate


def test_the_delay_is_from_start_to_start() -> None:
    hosts = hosts_of(delay=2.0)
    (host,) = known(hosts, "a")
    hosts.shared.take(host, NOW)
    assert not may_start(hosts, host, NOW + 1.99)
    assert may_start(hosts, host, NOW + 2.0)
    assert hosts.decide(host, DISPATCH, NOW) == NOW + 2.0
    assert may_start(hosts, hosts.get("b", NOW), NOW)


def test_a_host_that_nobody_has_asked_is_asked_at_once_whatever_its_delay_is() -> None:
    """Also where time begins at zero, as on a machine that has just booted."""
    hosts = hosts_of(max_crawl_delay=300.0)
    host = hosts.get("a", 0.0)
    hosts.table.set_crawl_delay(host, 60.0)
    assert all(hosts.decide(host, step, 0.0) <= 0.0 for step in STEPS)
    hosts.table.set_policy("a", HostPolicy(delay=90.0))
    assert host.delay == 90.0
    assert all(hosts.decide(host, step, 0.0) <= 0.0 for step in STEPS)


def test_the_delay_counts_from_when_a_request_was_sent_too() -> None:
    hosts = hosts_of(delay=2.0)
    (host,) = known(hosts, "a")
    hosts.shared.take(host, NOW)
    host.sent(NOW + 1.0)
    assert hosts.decide(host, DISPATCH, NOW) == NOW + 3.0
    hosts.health.park(host, NOW + 1.0, 9.0)
    host.sent(NOW + 1.5)
    assert hosts.decide(host, DISPATCH, NOW) == NOW + 10.0


def test_reservations_take_their_turns_in_the_delay() -> None:
    hosts = hosts_of(delay=2.0)
    (host,) = known(hosts, "a")
    hosts.shared.reserve(host)
    assert hosts.decide(host, DISPATCH, NOW) == NOW + 2.0
    hosts.shared.reserve(host)
    assert hosts.decide(host, DISPATCH, NOW) == NOW + 4.0


def test_the_rate_is_for_all_hosts_together() -> None:
    hosts = hosts_of(rate=4.0)
    a, b = hosts.get("a", NOW), hosts.get("b", NOW)
    hosts.shared.take(a, NOW)
    assert not may_start(hosts, b, NOW)
    assert not hosts.shared.has_room(NOW)
    assert hosts.shared.room_at(NOW) == hosts.shared.rate_next == NOW + 0.25 - MAX_CATCH_UP_SECONDS
    assert may_start(hosts, b, NOW + 0.25)


def test_an_idle_rate_saves_nothing_up() -> None:
    hosts = hosts_of(rate=100.0, per_host=100)
    (host,) = known(hosts, "a")
    hosts.shared.take(host, NOW)
    started, now = 0, NOW + 3_600
    while may_start(hosts, host, now):
        hosts.shared.take(host, now)
        started += 1
    assert started <= 100 * MAX_CATCH_UP_SECONDS + 1


@given(st.lists(st.floats(0.0, 0.4), max_size=120), st.sampled_from([0.5, 3.0, 50.0, 2_000.0]))
def test_no_window_of_time_has_more_starts_than_the_rate(gaps: list[float], rate: float) -> None:
    hosts = hosts_of(rate=rate, per_host=1_000, concurrency=1_000)
    (host,), now, starts = known(hosts, "a"), NOW, []
    for gap in gaps:
        now += gap
        if may_start(hosts, host, now):
            hosts.shared.take(host, now)
            starts.append(now)
    for first, since in enumerate(starts):
        for last in range(first, len(starts)):
            assert last - first + 1 <= rate * (starts[last] - since + MAX_CATCH_UP_SECONDS) + 1 + 1e-6


def test_there_is_room_from_when_time_alone_makes_it() -> None:
    hosts = hosts_of(concurrency=1, rate=1.0)
    host = hosts.get("a", NOW)
    assert hosts.shared.room_at(NOW) is None  # there is room
    hosts.shared.take(host, NOW)
    assert hosts.shared.room_at(NOW) is None  # an exchange must end
    hosts.finish(host)
    assert hosts.shared.room_at(NOW) == hosts.shared.rate_next
    assert hosts.shared.has_room(hosts.shared.rate_next)
    assert hosts.shared.room_at(hosts.shared.rate_next) is None
    hosts.shared.reserve(host)
    assert hosts.shared.room_at(NOW) == NOW + RECHECK_RESERVED_SECONDS  # it may come to nothing
    hosts.shared.unreserve(host)
    hosts.wait(host, "w")
    assert not hosts.shared.has_room(hosts.shared.rate_next)
    assert (
        hosts.shared.room_at(hosts.shared.rate_next) == hosts.shared.rate_next + MAX_CATCH_UP_SECONDS
    )  # the gate's turn comes first


def test_behind_what_is_reserved_is_asked_again_soon_for_it_may_come_to_nothing() -> None:
    shared = hosts_of(rate=2.0).shared
    host = hosts_of().get("a", NOW)
    shared.reserve(host)
    assert not shared.has_room(NOW)
    assert shared.room_at(NOW) == NOW + RECHECK_RESERVED_SECONDS
    shared.rest_until(NOW + 0.2)
    assert shared.room_at(NOW) == NOW + 0.2
    shared.paused = True
    assert shared.room_at(NOW) is None


def test_time_that_has_come_is_no_time_to_wait_for() -> None:
    shared = hosts_of().shared
    shared.rest_until(NOW + 1.0)
    assert (shared.room_at(NOW), shared.room_at(NOW + 1.0)) == (NOW + 1.0, None)


# The queue of the gate


def test_the_gate_asks_again_for_those_alone_who_wait_for_time() -> None:
    hosts = hosts_of(concurrency=1, rate=1.0)
    a, b = known(hosts, "a", "b")
    hosts.shared.take(a, NOW)
    assert hosts.next_through(NOW) == ([], None)  # nobody waits
    hosts.wait(b, "b")
    assert hosts.next_through(NOW) == ([], hosts.shared.rate_next)
    assert hosts.next_through(hosts.shared.rate_next) == ([], None)  # what it waits for is the end of another


def test_hosts_whose_time_comes_at_once_go_in_the_order_of_arrival() -> None:
    hosts = hosts_of()
    for key in "abc":
        hosts.health.park(hosts.get(key, NOW), NOW, 5.0)
        hosts.wait(hosts.get(key, NOW), key)
    assert hosts.next_through(NOW) == ([], NOW + 5.0)
    assert hosts.next_through(NOW + 5.0) == (["a", "b", "c"], None)


def test_who_gives_slots_back_is_told_whether_somebody_waits() -> None:
    hosts = hosts_of(per_host=1)
    a, b = known(hosts, "a", "b")
    hosts.shared.take(a, NOW)
    assert not hosts.finish(a)
    hosts.health.park(b, NOW, 5.0)
    hosts.wait(b, "b")
    hosts.shared.take(a, NOW)
    assert hosts.finish(a)  # it may go through
    hosts.next_through(NOW)
    hosts.shared.take(a, NOW)
    assert hosts.finish(a)  # it waits for its time


def test_who_waits_for_a_full_host_is_not_asked_again_before_one_of_its_own_ends() -> None:
    hosts = hosts_of(per_host=1)
    (a,) = known(hosts, "a")
    hosts.shared.take(a, NOW)
    hosts.wait(a, "a2")
    assert not hosts.shared.at_gate
    assert hosts.finish(a)
    assert list(hosts.shared.at_gate) == [a]


def test_waiters_go_through_one_host_after_the_other() -> None:
    hosts = hosts_of(concurrency=5, per_host=2)
    known(hosts, "a", "b", "c")
    for waiter in ("a1", "a2", "a3", "b1", "b2", "c1"):
        hosts.wait(hosts.get(waiter[0], NOW), waiter)
    through, again = hosts.next_through(NOW)
    assert (through, again) == (["a1", "b1", "c1", "a2", "b2"], None)
    assert hosts.shared.on_wire == 5
    hosts.finish(hosts.get("b", NOW))
    assert hosts.next_through(NOW) == ([], None)  # a is full, and b has no waiter left
    hosts.finish(hosts.get("a", NOW))
    assert hosts.next_through(NOW) == (["a3"], None)


def test_waiters_of_one_host_keep_their_order_and_its_delay() -> None:
    hosts = hosts_of(delay=1.0)
    (host,) = known(hosts, "a")
    for waiter in ("one", "two", "three"):
        hosts.wait(host, waiter)
    assert hosts.next_through(NOW) == (["one"], NOW + 1)
    assert hosts.next_through(NOW + 0.5) == ([], NOW + 1)
    assert hosts.next_through(NOW + 1) == (["two"], NOW + 2)
    assert hosts.next_through(NOW + 9) == (["three"], None)


def test_a_parked_host_holds_up_nobody_at_the_gate() -> None:
    hosts = hosts_of(concurrency=2)
    parked = hosts.get("p", NOW)
    hosts.health.park(parked, NOW, 9.0)
    hosts.wait(parked, "p1")
    hosts.wait(hosts.get("a", NOW), "a1")
    assert hosts.next_through(NOW) == (["a1"], NOW + 9)
    assert hosts.shared.has_room(NOW)
    assert hosts.next_through(NOW + 9) == (["p1"], None)


def test_the_gate_asks_again_when_the_rate_allows() -> None:
    hosts = hosts_of(rate=1.0)
    hosts.shared.take(hosts.get("a", NOW), NOW)
    hosts.wait(hosts.get("b", NOW), "b1")
    assert hosts.next_through(NOW) == ([], hosts.shared.rate_next)
    assert hosts.next_through(hosts.shared.rate_next)[0] == ["b1"]


def test_the_gate_asks_again_when_the_first_of_both_allows() -> None:
    hosts = hosts_of(rate=1.0)
    parked = hosts.get("p", NOW)
    hosts.health.park(parked, NOW, 9.0)
    hosts.wait(parked, "p1")
    assert hosts.next_through(NOW) == ([], NOW + 9)
    hosts.shared.take(hosts.get("a", NOW), NOW)
    hosts.wait(hosts.get("b", NOW), "b1")
    assert NOW < hosts.shared.rate_next < NOW + 9
    assert hosts.next_through(NOW) == ([], hosts.shared.rate_next)


def test_who_leaves_is_not_let_through() -> None:
    hosts = hosts_of(per_host=1)
    host = hosts.get("a", NOW)
    hosts.shared.take(host, NOW)
    hosts.wait(host, "one")
    hosts.wait(host, "two")
    hosts.leave(host, "one")
    hosts.leave(host, "never came")
    hosts.finish(host)
    assert hosts.next_through(NOW) == (["two"], None)
    hosts.leave(host, "two")
    hosts.finish(host)
    assert hosts.next_through(NOW) == ([], None)


def test_coming_and_going_leaves_nothing_in_the_gate() -> None:
    hosts = hosts_of()
    host = hosts.get("a", NOW)
    hosts.health.park(host, NOW, 200.0)
    for n in range(1_000):
        hosts.wait(host, "w")
        assert hosts.next_through(NOW + n / 100) == ([], NOW + 200)
        hosts.leave(host, "w")
    assert len(hosts._sleepers) + len(hosts.shared.at_gate) == 1
    assert hosts.next_through(NOW + 200) == ([], None)
    assert not host.at_gate


# Hosts earn their share


def test_a_host_has_one_slot_until_it_answers() -> None:
    hosts = hosts_of(per_host=3)
    host = hosts.get("a", NOW)
    hosts.shared.take(host, NOW)
    assert not may_start(hosts, host, NOW)
    assert hosts.decide(host, DISPATCH, NOW) == WHEN_ONE_ENDS
    host.answered(80, well=False)
    assert may_start(hosts, host, NOW)
    assert host.limit == 3


def test_suspect_hosts_hold_a_twelfth_together() -> None:
    hosts = hosts_of(concurrency=48)
    (good,) = known(hosts, "good")
    hosts.shared.take(good, NOW)
    dead = [hosts.get(f"d{n}", NOW) for n in range(30)]
    for host in dead:
        hosts.shared.set_suspect(host, suspect=True)
    started = 0
    for host in dead:
        if may_start(hosts, host, NOW):
            hosts.shared.take(host, NOW)
            started += 1
    assert started == hosts.shared.suspected == 4
    assert hosts.decide(dead[9], DISPATCH, NOW) == NOW + RECHECK_SHARED_SECONDS
    assert may_start(hosts, good, NOW)
    hosts.finish(dead[0])
    assert may_start(hosts, dead[9], NOW)
    hosts.wait(dead[9], "probe")
    hosts.wait(dead[10], "next")
    assert hosts.next_through(NOW) == (["probe"], NOW + RECHECK_RESERVED_SECONDS)
    hosts.shared.set_suspect(dead[10], suspect=False)  # it answered to somebody else
    assert hosts.next_through(NOW + RECHECK_RESERVED_SECONDS) == (["next"], None)


def test_reservations_for_suspects_count() -> None:
    hosts = hosts_of(concurrency=24)
    hosts.shared.take(hosts.get("good", NOW), NOW)
    dead = [hosts.get(f"d{n}", NOW) for n in range(5)]
    for host in dead:
        hosts.shared.set_suspect(host, suspect=True)
        if hosts.decide(host, DISPATCH, NOW) <= NOW:
            hosts.shared.reserve(host)
    assert hosts.shared.suspected == hosts.shared.reserved == 2
    hosts.shared.set_suspect(dead[0], suspect=False)
    assert hosts.shared.suspected == 1
    hosts.shared.unreserve(dead[1])
    assert hosts.shared.suspected == 0


def test_with_nobody_else_at_work_suspects_have_half() -> None:
    hosts = hosts_of(concurrency=24)
    for n in range(24):
        host = hosts.get(f"d{n}", NOW)
        hosts.shared.set_suspect(host, suspect=True)
        if may_start(hosts, host, NOW):
            hosts.shared.take(host, NOW)
    assert hosts.shared.on_wire == 12
    hosts.shared.take(hosts.get("good", NOW), NOW)
    assert hosts.shared.suspects_share == 2


@pytest.mark.parametrize(("concurrency", "most"), [(1, 1), (2, 1), (3, 1), (5, 2)])
def test_of_few_slots_too_suspects_leave_half_to_others(concurrency: int, most: int) -> None:
    hosts = hosts_of(concurrency=concurrency)
    for n in range(concurrency):
        host = hosts.get(f"d{n}", NOW)
        hosts.shared.set_suspect(host, suspect=True)
        if may_start(hosts, host, NOW):
            hosts.shared.take(host, NOW)
    assert hosts.shared.on_wire == most
    assert hosts.shared.suspects_share == most


def test_even_of_few_slots_one_may_be_a_suspects() -> None:
    hosts = hosts_of(concurrency=2)
    hosts.shared.take(hosts.get("good", NOW), NOW)
    host = hosts.get("dead", NOW)
    hosts.shared.set_suspect(host, suspect=True)
    assert may_start(hosts, host, NOW)


# Limits that are shared


def test_a_site_has_its_limit_over_all_its_hosts() -> None:
    hosts = hosts_of(per_site=2, per_host=2)
    a, b, c = known(hosts, "a.site.example", "b.site.example", "site.example")
    (other,) = known(hosts, "other.example")
    hosts.shared.take(a, NOW)
    hosts.shared.reserve(b)
    assert hosts.decide(c, DISPATCH, NOW) == NOW + RECHECK_SHARED_SECONDS
    assert hosts.decide(other, DISPATCH, NOW) == 0.0
    hosts.shared.unreserve(b)
    hosts.shared.take(b, NOW)
    assert not may_start(hosts, c, NOW)
    assert may_start(hosts, other, NOW)
    hosts.wait(c, "c1")
    assert hosts.next_through(NOW) == ([], NOW + RECHECK_RESERVED_SECONDS)
    block(c)  # it has a row
    assert not hosts.shared.freed
    told: list[str] = []
    hosts.listeners.append(told.append)
    hosts.finish(a)
    hosts.tell_blocked()
    assert told == []  # who waits at the gate goes first
    assert hosts.next_through(NOW + RECHECK_RESERVED_SECONDS) == (["c1"], None)
    hosts.finish(b)
    hosts.tell_blocked()
    assert told == ["site.example"]
    hosts.tell_blocked()
    assert not hosts.shared.freed  # nobody is left to be told


def test_whose_row_has_got_a_slot_of_the_site_need_not_be_told_of_the_next() -> None:
    hosts = hosts_of(per_site=2)
    a, b, c, d = known(hosts, *(f"{name}.site.example" for name in "abcd"))
    for host in (a, b):
        hosts.shared.take(host, NOW)
    block(c)
    block(d)
    hosts.finish(a)
    hosts.shared.reserve(c)  # it was asked in its turn
    told: list[str] = []
    hosts.listeners.append(told.append)
    hosts.finish(b)
    hosts.tell_blocked()
    assert told == ["d.site.example"]


def test_those_behind_one_address_share_its_limit() -> None:
    hosts = hosts_of(per_address=2, per_host=2)
    a, b, c, d = known(hosts, "a.example", "b.example", "c.example", "d.example")
    hosts.shared.take(a, NOW)  # before it was known
    hosts.table.locate(a, "192.0.2.1")
    hosts.table.locate(b, "192.0.2.1")
    hosts.table.locate(c, "192.0.2.2")
    assert not d.located
    hosts.table.locate(d, None)
    assert all(host.located for host in (a, b, c, d))
    assert may_start(hosts, b, NOW)
    hosts.shared.take(b, NOW)
    assert not may_start(hosts, a, NOW)
    assert may_start(hosts, c, NOW)
    assert may_start(hosts, d, NOW)
    hosts.finish(b)
    hosts.finish(a)
    assert [group.on_wire + group.ahead for host in (a, b, c) for group in host.groups] == [0, 0, 0]


def test_all_that_a_host_has_under_way_counts_for_an_address_that_is_learnt_then() -> None:
    hosts = hosts_of(per_address=3, per_host=3)
    a, b = known(hosts, "a.example", "b.example")
    hosts.shared.take(a, NOW)
    hosts.shared.reserve(a)
    hosts.wait(a, "another")
    for host in (a, b):
        hosts.table.locate(host, "192.0.2.1")
    assert hosts.decide(b, DISPATCH, NOW) == NOW + RECHECK_SHARED_SECONDS
    hosts.leave(a, "another")
    assert hosts.decide(b, DISPATCH, NOW) <= NOW


@given(st.lists(st.tuples(st.sampled_from("swpdxlz"), st.integers(0, 5)), max_size=200))
def test_shared_counts_never_drift(steps: list[tuple[str, int]]) -> None:
    hosts = hosts_of(per_site=3, per_host=2, concurrency=6)
    every = known(hosts, *(f"{name}.{site}.example" for name in "abc" for site in ("one", "two")))
    now = NOW
    for step, number in steps:
        host = every[number]
        if step == "s" and may_start(hosts, host, now):
            hosts.shared.take(host, now)
        elif step == "w":
            hosts.wait(host, str(number))
        elif step == "p":
            hosts.shared.reserve(host)
        elif step == "d" and host.reserved:
            hosts.shared.unreserve(host)
        elif step == "x" and host.on_wire:
            hosts.finish(host)
            hosts.next_through(now)
        elif step == "l":
            hosts.leave(host, str(number))
        elif step == "z":
            hosts.shared.set_suspect(host, suspect=not host.suspect)
        now += 0.01
        assert hosts.shared.suspected == sum(one.on_wire + one.reserved for one in every if one.suspect)
        assert hosts.shared.on_wire == sum(one.on_wire for one in every) <= 6
        for group in {id(group): group for one in every for group in one.groups}.values():
            members = [one for one in every if group in one.groups]
            assert group.on_wire == sum(one.on_wire for one in members) <= 3
            assert group.ahead == sum(one.reserved + len(one.waiters) for one in members)
