"""The circuit breaker of a host: when it is left alone, and when it is given up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.config import Limits, RetryPolicy
from fetcher.hosts.breaker import MAX_CHARGES, ROBOTS_BACKOFFS, Breaker, BreakerState
from fetcher.hosts.scheduler import (
    DISPATCH,
    GIVEN_UP,
    Scheduler,
)
from fetcher.hosts.state import HostState

NOW = 1_000.0


def hosts_of(retry: RetryPolicy | None = None, **limits: Any) -> Scheduler:
    return Scheduler(Limits(**limits), retry or RetryPolicy())


# Its states


def breaker_of(**retry: Any) -> Breaker:
    return Breaker("a.example", RetryPolicy(**retry))


def test_a_new_host_is_half_open_until_it_answers_and_again_when_it_failed() -> None:
    breaker = breaker_of()
    assert breaker.state(NOW) is BreakerState.HALF_OPEN
    breaker.close()
    assert breaker.state(NOW) is BreakerState.CLOSED
    breaker.trip()
    assert breaker.state(NOW) is BreakerState.HALF_OPEN


@pytest.mark.parametrize("answered", [True, False])
def test_it_is_open_as_long_as_it_is_parked_and_then_as_it_was(answered: bool) -> None:
    breaker = breaker_of()
    if answered:
        breaker.close()
    before = breaker.state(NOW)
    breaker.park(NOW + 5.0)
    breaker.park(NOW + 2.0)  # no parking shortens another
    assert breaker.state(NOW + 4.99) is BreakerState.OPEN
    assert breaker.state(NOW + 5.0) is before


def test_it_is_open_as_long_as_a_dead_host_rests() -> None:
    breaker = breaker_of(backoff=1.0)
    assert breaker.charge_dead(NOW, 0.1, robots_known=True) == 0.5
    assert (breaker.open_until, breaker.parked_until) == (NOW + 0.5, 0.0)
    assert breaker.state(NOW + 0.49) is BreakerState.OPEN
    assert breaker.state(NOW + 0.5) is BreakerState.HALF_OPEN
    breaker.charge_dead(NOW + 1.0, 0.1, robots_known=True)
    breaker.end_rest()
    assert breaker.state(NOW + 1.0) is BreakerState.HALF_OPEN
    assert breaker.open_until == 0.0


def test_given_up_is_the_end() -> None:
    breaker = breaker_of()
    assert breaker.charge(NOW, 301.0) is None
    for after in (breaker.close, breaker.trip, breaker.forgive, breaker.end_rest, lambda: breaker.park(NOW + 9.0)):
        after()
        assert breaker.state(NOW) is BreakerState.GIVEN_UP
    assert breaker.given_up == "a.example asks to wait 301 s, max-retry-after is 300 s"


# What a charge costs


def test_a_charge_says_for_how_long_the_host_is_parked() -> None:
    breaker = breaker_of(backoff=0.5, max_backoff=3.0)
    pauses, now = [], NOW
    for _ in range(5):
        pauses.append(breaker.charge(now, None))
        now += pauses[-1] or 0.0
        breaker.park(now)
    assert pauses == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert breaker.charge(now, 17.0) == 17.0
    assert (breaker.charges, breaker.first_charge_at, breaker.retry_after_until) == (6, NOW, now + 17.0)
    breaker.charge(now, 5.0)
    assert breaker.retry_after_until == now + 17.0
    breaker.forgive()
    assert breaker.charges == 0


def test_what_comes_back_while_it_is_parked_is_no_new_charge() -> None:
    breaker = breaker_of()
    breaker.charge(NOW, 10.0)
    breaker.park(NOW + 10.0)
    for _ in range(MAX_CHARGES):
        assert breaker.charge(NOW + 9.9, 10.0) == 10.0
    assert (breaker.charges, breaker.given_up) == (1, None)
    breaker.charge(NOW + 10.0, None)
    assert breaker.charges == 2


@pytest.mark.parametrize(
    ("retry", "robots_known", "lasted", "rests"),
    [
        ({"backoff": 0.5}, True, 0.1, [0.25, 0.25, 0.25]),
        ({"backoff": 0.5}, True, 2.0, [2.0, 2.0, 2.0]),  # for as long as it kept us waiting
        ({"backoff": 0.5}, False, 0.1, [0.5 * ROBOTS_BACKOFFS, ROBOTS_BACKOFFS, 2.0 * ROBOTS_BACKOFFS]),
        ({"backoff": 0.5, "max_backoff": 7.0}, False, 0.1, [5.0, 7.0, 7.0]),
        ({"backoff": 0.5, "host_patience": 6.0}, False, 0.1, [5.0, 1.0, None]),  # its last probe is when that ends
        ({"backoff": 0.5, "retries": 0}, True, 2.0, [0.0, 0.0, 0.0]),
    ],
)
def test_a_host_that_seems_dead_rests(
    retry: dict[str, Any], robots_known: bool, lasted: float, rests: list[float | None]
) -> None:
    breaker = breaker_of(**retry)
    found: list[float | None] = []
    now = NOW
    for _ in rests:
        rest = breaker.charge_dead(now, lasted, robots_known=robots_known)
        found.append(rest if breaker.given_up is None else None)
        now += rest
    assert found == rests


def test_the_last_rests_of_a_dead_host_grow() -> None:
    """Fifteen probes follow each other, for they are the attempts of few rows; those that are left are far apart."""
    breaker = breaker_of(backoff=0.5, max_backoff=20.0, host_patience=1_000.0)
    rests, now = [], NOW
    for _ in range(MAX_CHARGES - 1):
        rests.append(breaker.charge_dead(now, 0.0, robots_known=True))
        now += rests[-1]
    assert rests == [0.25] * 15 + [1.0, 3.0, 9.0, 20.0]
    assert breaker.given_up is None


def test_a_dead_host_is_given_up_after_twenty_charges_or_its_patience() -> None:
    breaker = breaker_of(backoff=0.0)
    for _ in range(MAX_CHARGES):
        assert breaker.given_up is None
        breaker.charge_dead(NOW, 0.0, robots_known=True)
    assert breaker.given_up == "a.example did not answer 20 times without one success"
    breaker = breaker_of(host_patience=30.0)
    for now in (NOW, NOW + 29.9):
        breaker.charge_dead(now, 0.0, robots_known=True)
        assert breaker.given_up is None
    breaker.charge_dead(NOW + 30.0, 0.0, robots_known=True)
    assert breaker.given_up == "a.example did not answer for 30 s, host-patience is 30 s"


def test_failures_are_counted_until_there_is_a_sign_of_life() -> None:
    breaker = breaker_of()
    breaker.failed(NOW)
    breaker.failed(NOW + 1.0)
    assert (breaker.failures, breaker.last_failure_at) == (2, NOW + 1.0)
    breaker.recovered()
    assert (breaker.failures, breaker.last_failure_at) == (0, NOW + 1.0)


def test_a_wish_makes_the_answers_to_what_was_sent_before_it_old_news() -> None:
    breaker = breaker_of()
    breaker.charge(NOW, None)
    breaker.charge(NOW + 1.0, 0.0)
    assert breaker.last_failure_at == 0.0
    breaker.charge(NOW + 2.0, 5.0)
    assert (breaker.last_failure_at, breaker.failures) == (NOW + 2.0, 0)


@pytest.mark.parametrize(
    ("answered", "charges", "failures", "state"),
    [
        (True, 0, 0, BreakerState.CLOSED),
        (False, 0, 0, BreakerState.HALF_OPEN),
        (True, 1, 0, BreakerState.HALF_OPEN),
        (True, 0, 1, BreakerState.HALF_OPEN),
        (False, 2, 3, BreakerState.HALF_OPEN),
    ],
)
def test_what_was_kept_of_a_host_is_taken_over(
    answered: bool, charges: int, failures: int, state: BreakerState
) -> None:
    breaker = breaker_of()
    breaker.restore(NOW + 8.0, 20.0, charges, failures, answered=answered)
    assert (breaker.charges, breaker.failures, breaker.first_charge_at) == (charges, failures, NOW - 12.0)
    assert breaker.state(NOW + 7.9) is BreakerState.OPEN
    assert breaker.state(NOW + 8.0) is state
    breaker.restore(NOW + 3.0, 0.0, 0, 0, answered=True)
    assert breaker.parked_until == NOW + 8.0


# Whose fault: the host as it is parked and given up


def charged(policy: RetryPolicy, *charges: tuple[float, float | None]) -> HostState:
    hosts = hosts_of(policy)
    host = hosts.get("a.example", NOW)
    for after, wish in charges:
        hosts.health.park(host, NOW + after, wish)
    return host


def test_retry_after_is_obeyed() -> None:
    host = charged(RetryPolicy(), (0.0, 17.0))
    assert (host.breaker.parked_until, host.not_before, host.breaker.given_up) == (NOW + 17, NOW + 17, None)


def test_retry_after_is_obeyed_when_it_is_longer_than_our_patience() -> None:
    host = charged(RetryPolicy(host_patience=60, max_retry_after=300), (0.0, 300.0))
    assert (host.not_before, host.breaker.given_up) == (NOW + 300, None)


def test_retry_after_over_the_maximum_gives_the_host_up() -> None:
    host = charged(RetryPolicy(), (0.0, 300.5))
    assert host.breaker.given_up == "a.example asks to wait 301 s, max-retry-after is 300 s"
    assert hosts_of().decide(host, DISPATCH, NOW) == GIVEN_UP  # its rows come, to be told


def test_without_retry_after_the_pause_doubles() -> None:
    policy = RetryPolicy(backoff=0.5, max_backoff=3.0, host_patience=1_000)
    hosts = hosts_of(policy)
    host, now, pauses = hosts.get("a", NOW), NOW, []
    for _ in range(6):
        hosts.health.park(host, now, None)
        pauses.append(host.not_before - now)
        now = host.not_before
    assert pauses == [0.5, 1.0, 2.0, 3.0, 3.0, 3.0]


def test_a_retry_after_of_nothing_is_no_leave_to_hammer() -> None:
    policy = RetryPolicy(backoff=0.5)
    assert charged(policy, (0.0, 0.0)).not_before == NOW + 0.5
    assert charged(policy, (0.0, 0.0), (0.5, 0.0)).not_before == NOW + 1.5


def test_answers_from_before_the_parking_count_once() -> None:
    host = charged(RetryPolicy(), *[(0.01 * n, 10.0) for n in range(50)])
    assert host.breaker.charges == 1
    assert host.breaker.given_up is None
    assert host.not_before == pytest.approx(NOW + 10.49)  # the latest wish holds


def test_a_shorter_wish_does_not_shorten_the_parking() -> None:
    assert charged(RetryPolicy(), (0.0, 10.0), (1.0, 2.0)).not_before == NOW + 10


def test_twenty_refusals_are_enough() -> None:
    policy = RetryPolicy(host_patience=1e6)
    assert charged(policy, *[(2.0 * n, 1.0) for n in range(MAX_CHARGES - 1)]).breaker.given_up is None
    host = charged(policy, *[(2.0 * n, 1.0) for n in range(MAX_CHARGES)])
    assert host.breaker.given_up == "a.example refused 20 times without one success"


def test_patience_ends() -> None:
    policy = RetryPolicy(host_patience=60)
    assert charged(policy, (0.0, 30.0), (59.9, 1.0)).breaker.given_up is None
    host = charged(policy, (0.0, 30.0), (60.0, 1.0))
    assert host.breaker.given_up == "a.example refused for 60 s, host-patience is 60 s"


def test_no_patience_at_all() -> None:
    assert charged(RetryPolicy(host_patience=0), (0.0, 1.0)).breaker.given_up is not None


def test_a_success_begins_a_new_count() -> None:
    hosts = hosts_of(RetryPolicy(host_patience=60, backoff=0.5))
    host = hosts.get("a", NOW)
    for n in range(MAX_CHARGES - 1):
        hosts.health.park(host, NOW + n, 0.5)
    host.answered(80)
    assert (host.ports, host.breaker.charges) == ((80,), 0)
    hosts.health.park(host, NOW + 100, None)
    assert (host.breaker.charges, host.breaker.given_up, host.not_before) == (1, None, NOW + 100.5)


def test_a_success_while_parked_does_not_break_the_doubling() -> None:
    hosts = hosts_of()
    host = hosts.get("a", NOW)
    hosts.health.park(host, NOW, 10.0)
    host.answered(80)
    hosts.health.park(host, NOW + 1, None)
    assert host.not_before == NOW + 10


def test_who_is_given_up_stays_so_for_the_first_reason() -> None:
    hosts = hosts_of(RetryPolicy(backoff=0.0))
    host = hosts.get("a", NOW)
    hosts.health.park(host, NOW, 999.0)
    for _ in range(5_000):  # what was in flight
        hosts.health.park(host, NOW, None)
    host.answered(80)
    assert host.breaker.given_up == "a asks to wait 999 s, max-retry-after is 300 s"


def test_a_refusal_is_an_answer_and_no_success() -> None:
    host = charged(RetryPolicy(), (0.0, 1.0))
    host.answered(8080, well=False)
    assert (host.ports, host.breaker.charges) == ((8080,), 1)


def test_a_bounded_number_of_ports_is_known() -> None:
    host = hosts_of().get("a", NOW)
    for port in (*range(1, 100), 99):
        host.answered(port)
    assert host.ports == tuple(range(84, 100))


@given(
    st.lists(st.tuples(st.floats(0, 50), st.none() | st.floats(0, 400)), max_size=60),
    st.sampled_from([RetryPolicy(), RetryPolicy(backoff=0.0), RetryPolicy(max_backoff=0.0, host_patience=1e9)]),
)
def test_a_host_is_never_unparked_and_charges_end(
    charges: list[tuple[float, float | None]], policy: RetryPolicy
) -> None:
    hosts = hosts_of(policy)
    host, now = hosts.get("a", NOW), NOW
    for gap, wish in charges:
        now += gap
        before = host.not_before
        hosts.health.park(host, now, wish)
        assert host.not_before >= before
        assert host.not_before <= now + max(policy.max_retry_after, policy.max_backoff)
        assert host.breaker.charges < MAX_CHARGES or host.breaker.given_up is not None
