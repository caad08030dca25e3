"""Whose fault a failure is, and what answers mean for their host."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable
from typing import Any

import pytest

from fetcher.config import HostPolicy, Limits, RetryPolicy
from fetcher.errors import (
    ConnectError,
    DNSError,
    FetchError,
    FetchTimeout,
    InvalidURL,
    ParseError,
    ProtocolError,
    RedirectError,
    Skipped,
    TLSError,
    TooLarge,
)
from fetcher.hosts.breaker import MAX_CHARGES, STEADY_CHARGES
from fetcher.hosts.health import MAX_SLOW_SHARE, SILENT_SECONDS, FailureKind, failure_kind
from fetcher.hosts.network import MIN_FAILED_HOSTS
from fetcher.hosts.scheduler import CONNECT_IN_PLACE, DISPATCH, Scheduler, Step
from fetcher.hosts.state import HostState
from fetcher.middleware.gate import has_any_route
from fetcher.model import Stage

NOW = 1_000.0
REFUSED = ConnectError("connect_refused")
GONE = ConnectError("connect_timeout")
NO_NAME = DNSError("dns_not_found")
SILENCE = FetchTimeout("read_timeout")
NO_SERVER = DNSError("dns_timeout")


def refused_by(number: int) -> FetchError:
    """A failed connect as the transport raises it, with the system's word behind it."""
    error = ConnectError("connect_refused")
    error.__cause__ = OSError(number, "")
    return error


NO_ROUTE = refused_by(errno.ENETUNREACH)
CLOSED = refused_by(errno.ECONNREFUSED)


UNREACHED, NO_NAME_KIND, NO_ROUTE_KIND = FailureKind.UNREACHED, FailureKind.NO_NAME, FailureKind.NO_ROUTE
UNHEARD, BROKE_OFF, SPOKE = FailureKind.UNHEARD, FailureKind.BROKE_OFF, FailureKind.SPOKE

UNCONNECTED = (Stage.LISTED, Stage.ADMITTED, Stage.RESOLVING, Stage.CONNECTING, Stage.HANDSHAKING)
SENT = (Stage.WAITING,)
READING = (Stage.READING, Stage.WAITING_FOR_MEMORY)


# What a failure is to its host


@pytest.mark.parametrize(
    ("error", "unconnected", "sent", "reading"),
    [
        (REFUSED, UNREACHED, BROKE_OFF, UNREACHED),
        (GONE, UNREACHED, BROKE_OFF, UNREACHED),
        (ConnectError("connect_reset"), UNREACHED, BROKE_OFF, UNREACHED),
        (refused_by(errno.ECONNREFUSED), UNREACHED, BROKE_OFF, UNREACHED),
        (refused_by(errno.EHOSTUNREACH), UNREACHED, BROKE_OFF, UNREACHED),
        (refused_by(errno.ENETUNREACH), NO_ROUTE_KIND, BROKE_OFF, NO_ROUTE_KIND),
        (refused_by(errno.ENETDOWN), NO_ROUTE_KIND, BROKE_OFF, NO_ROUTE_KIND),
        (refused_by(errno.EADDRNOTAVAIL), NO_ROUTE_KIND, BROKE_OFF, NO_ROUTE_KIND),
        (NO_NAME, NO_NAME_KIND, BROKE_OFF, NO_NAME_KIND),
        (NO_SERVER, NO_ROUTE_KIND, BROKE_OFF, NO_ROUTE_KIND),
        (TLSError("tls_timeout"), UNHEARD, UNHEARD, UNHEARD),
        (TLSError("tls_verify"), SPOKE, SPOKE, SPOKE),
        (TLSError("tls_protocol"), SPOKE, SPOKE, SPOKE),
        (FetchTimeout("read_timeout"), UNHEARD, UNHEARD, SPOKE),
        (FetchTimeout("too_slow"), UNHEARD, UNHEARD, SPOKE),
        (FetchTimeout("total_timeout"), UNHEARD, UNHEARD, SPOKE),
        (ProtocolError("empty_reply"), BROKE_OFF, BROKE_OFF, BROKE_OFF),
        (ProtocolError("truncated"), SPOKE, SPOKE, SPOKE),
        (ProtocolError("malformed_response"), SPOKE, SPOKE, SPOKE),
        (ProtocolError("headers_too_large"), SPOKE, SPOKE, SPOKE),
        (ProtocolError("bad_encoding"), SPOKE, SPOKE, SPOKE),
        (TooLarge(), SPOKE, SPOKE, SPOKE),
        (InvalidURL(), BROKE_OFF, BROKE_OFF, BROKE_OFF),
        (RedirectError("redirect_loop"), BROKE_OFF, BROKE_OFF, BROKE_OFF),
        (ParseError("parse_crash"), BROKE_OFF, BROKE_OFF, BROKE_OFF),
        (Skipped("address_blocked"), BROKE_OFF, BROKE_OFF, BROKE_OFF),
    ],
    ids=lambda value: value.code if isinstance(value, FetchError) else "",
)
def test_what_an_error_in_a_stage_is_to_its_host(
    error: FetchError, unconnected: FailureKind, sent: FailureKind, reading: FailureKind
) -> None:
    assert {failure_kind(error, stage) for stage in UNCONNECTED} == {unconnected}
    assert {failure_kind(error, stage) for stage in SENT} == {sent}
    assert {failure_kind(error, stage) for stage in READING} == {reading}


def test_without_a_connection_are_three_kinds() -> None:
    assert [kind for kind in FailureKind if kind.unconnected] == [NO_NAME_KIND, NO_ROUTE_KIND, UNREACHED]


class Court:
    """Hosts, who hears of their health, and a clock."""

    def __init__(
        self, retry: RetryPolicy | None = None, *, has_route: Callable[[], bool] = lambda: True, **limits: Any
    ) -> None:
        self.hosts = Scheduler(Limits(**limits), retry or RetryPolicy(), has_route=has_route)
        self.health = self.hosts.health
        self.now = NOW

    def host(self, key: str = "a.test", *, known: bool = True) -> HostState:
        host = self.hosts.get(key, self.now)
        if known:
            self.answer(host)
        return host

    def start(self, host: HostState, times: int = 1) -> float:
        """Begin that many exchanges; return the time."""
        for _ in range(times):
            self.hosts.shared.take(host, self.now)
        return self.now

    def answer(self, host: HostState, status: int = 200, *, wish: float | None = None, took: float = 0.1) -> None:
        """Have the host answer one exchange, begun now unless there is one."""
        began = self.now if host.on_wire else self.start(host)
        self.now += took
        self.health.answered(host, 80, status, began, self.now)
        if status in (429, 503):
            self.health.refused(host, status, wish, began, self.now)
        self.hosts.finish(host)

    def fail(
        self,
        host: HostState,
        error: FetchError,
        stage: Stage = Stage.CONNECTING,
        *,
        took: float = 0.1,
        since: float = 0.0,
    ) -> str:
        """Have one exchange fail; return who pays."""
        kind = failure_kind(error, stage)
        began = since or (self.now if host.on_wire else self.start(host))
        self.now += took
        self.health.failed(host, 80, kind, began, self.now)
        self.hosts.finish(host)
        return self.health.blame(host, 80, kind, self.now)


def blame_for(error: FetchError, stage: Stage, *, known: bool) -> str:
    court = Court()
    return court.fail(court.host(known=known), error, stage)


@pytest.mark.parametrize(
    ("error", "stage", "unknown", "known"),
    [
        (REFUSED, Stage.CONNECTING, "row", "host"),
        (GONE, Stage.CONNECTING, "row", "host"),
        (DNSError("dns_timeout"), Stage.RESOLVING, "row", "host"),
        (NO_NAME, Stage.RESOLVING, "row", "host"),
        (ConnectError("connect_reset"), Stage.WAITING, "row", "row"),
        (SILENCE, Stage.WAITING, "row", "row"),
        (FetchTimeout("too_slow"), Stage.READING, "row", "row"),
        (TLSError("tls_verify"), Stage.HANDSHAKING, "row", "row"),
        (ProtocolError("empty_reply"), Stage.WAITING, "row", "row"),
    ],
    ids=lambda value: value.code if isinstance(value, FetchError) else str(value),
)
def test_whose_fault(error: FetchError, stage: Stage, unknown: str, known: str) -> None:
    assert blame_for(error, stage, known=False) == unknown
    assert blame_for(error, stage, known=True) == known


# Throttled


def test_a_429_without_a_wish_lowers_what_is_at_once_and_parks_nobody() -> None:
    court = Court()
    host = court.host()
    court.start(host, 6)
    for _ in range(3):
        court.answer(host, 429, took=0.0)
    assert (host.limit, host.breaker.parked_until, host.breaker.charges) == (3, 0.0, 0)
    for _ in range(3):
        court.answer(host)
    for _ in range(97):
        court.answer(host)
    assert host.limit == 4


@pytest.mark.parametrize("per_host", [2, 6])
def test_a_429_among_two_at_once_parks_nobody(per_host: int) -> None:
    court = Court(per_host=per_host)
    host = court.host()
    court.start(host, 2)
    court.answer(host, 429)
    assert (host.limit, host.breaker.charges, host.not_before) == (1, 0, 0.0)


def test_a_429_where_there_is_one_at_a_time_is_a_growing_pause() -> None:
    court = Court(RetryPolicy(backoff=0.5))
    host = court.host(known=False)
    pauses = []
    for _ in range(4):
        court.answer(host, 429)
        pauses.append(host.not_before - court.now)
        court.now = host.not_before
    assert pauses == pytest.approx([0.5, 1.0, 2.0, 4.0])


def test_a_429_where_there_should_be_one_at_a_time_is_a_pause_whatever_is_still_under_way() -> None:
    court = Court(RetryPolicy(backoff=0.5))
    host = court.host()
    court.start(host, 3)
    court.hosts.table.set_policy(host.key, HostPolicy(per_host=1))
    court.answer(host, 429)
    assert (host.on_wire, host.breaker.charges, host.breaker.parked_until) == (2, 1, court.now + 0.5)


def test_a_503_parks_where_there_is_one_at_a_time_only_if_it_speaks_of_waiting() -> None:
    court = Court(RetryPolicy(backoff=0.5))
    host = court.host(known=False)
    court.answer(host, 503)
    assert (host.breaker.charges, host.breaker.parked_until) == (0, 0.0)
    court.answer(host, 503, wish=0.0)
    assert (host.breaker.charges, host.breaker.parked_until) == (1, court.now + 0.5)


def test_a_wish_parks_and_a_second_one_soon_after_lowers() -> None:
    court = Court()
    host = court.host()
    began = court.start(host, 6)
    for _ in range(6):  # one wave
        court.health.refused(host, 429, 2.0, began, court.now + 0.1)
        court.hosts.finish(host)
    assert (host.limit, host.not_before) == (6, court.now + 2.1)
    court.now += 3.0
    court.start(host, 6)
    court.answer(host, 429, wish=2.0)
    assert host.limit == 5


def test_a_host_that_asks_to_be_left_alone_has_nothing_and_is_charged_with_nothing() -> None:
    court = Court()
    host = court.host()
    court.health.asked_to_wait(host, court.now, 3.0)
    assert {court.hosts.decide(host, step, court.now) for step in Step} == {court.now + 3.0}
    assert host.breaker.charges == 0
    (report,) = court.hosts.table.troubled()
    assert report.refused == 1
    assert report.parked == pytest.approx(3.0)


def test_what_a_host_did_is_counted() -> None:
    court = Court()
    host = court.host()
    for status in (429, 200, 503, 503):
        court.answer(host, status)
    court.health.asked_to_wait(host, court.now, 3.0)
    court.answer(host, took=2.5)
    for error, stage in ((REFUSED, Stage.CONNECTING), (SILENCE, Stage.WAITING)):
        court.fail(host, error, stage)
    (report,) = court.hosts.table.troubled()
    assert (report.refused, report.slow, report.failed, report.denied) == (4, 1, 2, 0)


def test_one_broken_page_does_not_slow_its_host() -> None:
    court = Court()
    host = court.host()
    for _ in range(20):
        court.start(host, 5)
        court.answer(host, 503)
        for _ in range(12):
            court.answer(host)
        while host.on_wire:
            court.answer(host)
    assert (host.limit, host.breaker.given_up, host.breaker.parked_until) == (6, None, 0.0)


@pytest.mark.parametrize(("at_once", "limit"), [(1, 6), (2, 1), (3, 2)])
def test_one_that_says_itself_how_long_to_wait_bears_less_only_where_it_had_several_at_once(
    at_once: int, limit: int
) -> None:
    court = Court()
    host = court.host()
    for _ in range(2):
        court.start(host, at_once)
        court.answer(host, 429, wish=2.0)
        while host.on_wire:
            court.answer(host)
        court.now += 3.0
    assert host.limit == limit


@pytest.mark.parametrize(("at_once", "limit"), [(1, 6), (2, 1), (3, 2)])
def test_a_silence_is_load_only_where_there_were_several_at_once(at_once: int, limit: int) -> None:
    court = Court()
    host = court.host()
    for expected in (6, limit):
        court.fail(host, SILENCE, Stage.WAITING, since=court.start(host, at_once))
        assert (host.limit, host.breaker.half_open, host.breaker.charges) == (expected, False, 0)
        while host.on_wire:
            court.answer(host)
        court.answer(host)


def test_a_second_silence_in_a_row_is_a_rest_however_many_are_under_way() -> None:
    court = Court(RetryPolicy(backoff=0.5))
    host = court.host()
    for charges in (0, 1):
        court.fail(host, SILENCE, Stage.WAITING, since=court.start(host, 3), took=2.0)
        assert (host.breaker.half_open, host.breaker.charges) == (charges > 0, charges)
    assert (host.limit, host.breaker.open_until) == (1, court.now + 2.0)


def test_timeouts_under_load_count_too() -> None:
    court = Court()
    host = court.host()
    began = court.start(host, 6)
    court.fail(host, SILENCE, Stage.WAITING, since=began)
    court.answer(host)
    began = court.start(host)
    court.fail(host, SILENCE, Stage.WAITING, since=court.now)
    assert host.limit < 6


# Dead


def rests(court: Court, host: HostState, took: float) -> list[float]:
    """Return the pauses of a host that never answers, until it is given up."""
    assert court.fail(host, REFUSED, took=took) == "row"
    assert host.breaker.parked_until == 0.0
    pauses = []
    while not host.breaker.given_up:
        assert court.fail(host, REFUSED, took=took) == "row"
        pauses.append(host.breaker.open_until - court.now)
        court.now = host.breaker.open_until
    assert host.not_before == 0.0  # who cannot wait elsewhere is not held up
    assert host.limit == 1
    return pauses[:-1]


def test_a_host_that_never_answered_is_probed_for_a_while_and_then_less_and_less() -> None:
    court = Court(RetryPolicy(backoff=0.5, max_backoff=30.0))
    host = court.host(known=False)
    pauses = rests(court, host, 0.001)
    assert pauses[:STEADY_CHARGES] == pytest.approx(
        [0.25] * STEADY_CHARGES
    )  # five rows have used up three attempts each by then
    assert pauses[STEADY_CHARGES:] == pytest.approx([1.0, 3.0, 9.0, 27.0])
    assert host.breaker.given_up == f"{host.key} did not answer 20 times without one success"


def test_the_rest_of_a_dead_host_is_told_of_and_remembered_until_it_is_given_up() -> None:
    court = Court(RetryPolicy(backoff=0.5))
    host = court.host(known=False)
    for _ in range(2):
        assert court.hosts.table.parked(court.now) == {}
        court.fail(host, REFUSED, took=10.0)
    assert court.hosts.table.parked(court.now) == {host.key: pytest.approx(10.0)}
    (told,) = court.hosts.table.troubled()
    assert told.host == host.key
    assert told.parked == pytest.approx(10.0)
    while not host.breaker.given_up:
        court.now = host.breaker.open_until
        court.fail(host, REFUSED, took=10.0)
    charges, until = host.breaker.charges, host.breaker.open_until
    court.fail(host, REFUSED, took=10.0)
    court.hosts.health.park(host, court.now, 60.0)
    assert (host.breaker.charges, host.breaker.open_until, host.not_before) == (charges, until, 0.0)


def test_a_host_that_keeps_us_waiting_rests_for_as_long() -> None:
    court = Court(RetryPolicy(backoff=0.5))
    host = court.host(known=False)
    pauses = rests(court, host, 10.0)
    assert pauses == pytest.approx([10.0, 10.0, 10.0])
    assert host.breaker.given_up == f"{host.key} did not answer for 60 s, host-patience is 60 s"


def test_a_host_whose_robots_are_not_to_be_had_has_time_to_come_back() -> None:
    court = Court(RetryPolicy(backoff=0.5))
    host = court.host(known=False)
    host.know_robots(known=False)
    pauses = rests(court, host, 0.001)
    assert pauses[:3] == pytest.approx([5.0, 10.0, 20.0])
    assert sum(pauses) == pytest.approx(60.0, abs=1.0)  # the last probe is when patience ends


def test_what_is_known_of_the_robots_of_a_dead_host_ends_its_rest() -> None:
    court = Court()
    host = court.host(known=False)
    host.know_robots(known=False)
    court.fail(host, REFUSED)
    court.fail(host, REFUSED)
    assert host.breaker.open_until > court.now
    host.know_robots()  # they could not be had, and say so to each row
    assert court.hosts.decide(host, DISPATCH, court.now) == 0.0


def test_where_a_row_has_one_attempt_nothing_rests() -> None:
    court = Court(RetryPolicy(retries=0))
    assert rests(court, court.host(known=False), 0.001) == [0.0] * 19


def test_a_host_that_is_gone_is_probed_by_one_and_forgiven_at_once() -> None:
    court = Court(RetryPolicy(backoff=0.5))
    host = court.host()
    began = court.start(host, 6)
    for _ in range(6):
        assert court.fail(host, REFUSED, since=began, took=0.01) == "host"
    assert (host.limit, host.breaker.charges, host.breaker.failures, host.suspect) == (1, 1, 1, True)
    court.now = host.not_before
    assert court.hosts.decide(host, CONNECT_IN_PLACE, court.now) <= court.now
    court.answer(host)
    assert (host.limit, host.breaker.charges, host.breaker.failures, host.suspect) == (6, 0, 0, False)


def test_a_host_that_stays_away_is_given_up() -> None:
    court = Court(RetryPolicy(backoff=0.0, host_patience=1e9))
    host = court.host()
    for _ in range(MAX_CHARGES):
        assert host.breaker.given_up is None
        court.fail(host, GONE)
    assert host.breaker.given_up is not None


def test_a_name_that_is_none_does_not_make_its_rows_wait() -> None:
    court = Court()
    host = court.host(known=False)
    for _ in range(30):
        assert court.fail(host, NO_NAME, Stage.RESOLVING) == "row"
    assert (host.breaker.parked_until, host.breaker.given_up) == (0.0, None)


def test_a_bad_certificate_is_a_sign_of_life() -> None:
    court = Court()
    host = court.host(known=False)
    court.fail(host, TLSError("tls_verify"), Stage.HANDSHAKING)
    assert (host.limit, host.suspect, host.ports) == (6, False, ())


# Silent


def test_two_seconds_without_a_word_are_suspect() -> None:
    court = Court()
    host = court.host()
    began = court.start(host, 2)
    assert not court.health.silent(host, Stage.WAITING, began, began + SILENT_SECONDS - 0.01)
    assert not court.health.silent(host, Stage.READING, began, began + 9)
    assert court.health.silent(host, Stage.CONNECTING, began, began + SILENT_SECONDS)
    assert (host.suspect, court.hosts.shared.suspected) == (True, 2)
    court.answer(host)
    assert (host.suspect, court.hosts.shared.suspected) == (False, 0)
    assert not court.health.silent(host, Stage.WAITING, began, began + SILENT_SECONDS)  # it has just spoken


def test_a_head_is_an_answer() -> None:
    court = Court()
    host = court.host(known=False)
    began = court.start(host)
    assert not court.health.silent(host, Stage.READING, began, began + 9)
    assert host.limit == 6


@pytest.mark.parametrize("reserved", [False, True])
def test_room_is_made_only_where_the_slots_are_gone(reserved: bool) -> None:
    court = Court(concurrency=24)
    for n in range(23):
        host = court.host(f"dead{n}.test", known=False)
        began = court.start(host)
        court.health.silent(host, Stage.CONNECTING, began, began + 3)
    assert court.hosts.shared.excess_of_suspects == 0
    good = court.host("good.test")
    if reserved:
        court.hosts.shared.reserve(good)
    else:
        court.start(good)
    assert court.hosts.shared.excess_of_suspects == 21


def test_no_room_is_made_by_those_who_hold_no_more_than_their_share() -> None:
    court = Court(concurrency=24)
    for n in range(2):
        court.hosts.shared.set_suspect(host := court.host(f"dead{n}.test", known=False), suspect=True)
        court.start(host)
    court.start(court.host("good.test"), 22)
    assert court.hosts.shared.excess_of_suspects == 0


def test_what_was_sent_is_broken_off_only_where_silence_is_rare() -> None:
    court = Court()
    known, new = court.host(), court.host("new.test", known=False)
    assert court.health.may_break_off(known, Stage.CONNECTING)
    assert not court.health.may_break_off(known, Stage.WAITING)
    assert court.health.may_break_off(new, Stage.WAITING)
    for n in range(6):
        court.answer(court.host(f"slow{n}.test", known=False), took=3.0)
    assert not court.health.may_break_off(new, Stage.WAITING)
    for n in range(100):
        court.answer(court.host(f"quick{n}.test", known=False))
    assert court.health.may_break_off(new, Stage.WAITING)
    for n in range(100):  # and what is quick does not add up
        court.answer(court.host(f"more{n}.test", known=False))
    assert court.health.may_break_off(new, Stage.WAITING)


# Our own network


def test_with_our_own_network_away_nobody_pays() -> None:
    court = Court(concurrency=40)
    many = [court.host(f"h{n}.test") for n in range(20)]
    fresh = court.host("fresh.test", known=False)
    blamed = [court.fail(host, REFUSED, took=0.01) for host in many]
    assert blamed == ["host"] * (MIN_FAILED_HOSTS - 1) + ["network"] * (20 - MIN_FAILED_HOSTS + 1)
    assert [host.breaker.charges for host in many] == [1] * (MIN_FAILED_HOSTS - 1) + [0] * (20 - MIN_FAILED_HOSTS + 1)
    assert court.fail(fresh, GONE) == "network"
    assert court.fail(fresh, SILENCE, Stage.WAITING) == "network"
    assert (fresh.breaker.failures, fresh.breaker.charges, fresh.breaker.parked_until) == (0, 0, 0.0)


def test_it_is_tried_with_less_and_less_and_with_more_once_it_is_back() -> None:
    court = Court(concurrency=40)
    many = [court.host(f"h{n}.test") for n in range(9)]
    began = court.now
    for host in many:
        court.start(host)
    for host in many:
        court.fail(host, REFUSED, took=0.0, since=began)
    hosts = court.hosts
    assert hosts.shared.concurrency == 20  # the wave counts once
    assert not hosts.shared.has_room(court.now)
    assert not (hosts.decide(many[8], CONNECT_IN_PLACE, court.now) <= court.now)
    assert hosts.shared.room_at(court.now) == hosts.shared.rate_next > court.now
    for _ in range(9):
        court.now = hosts.shared.rate_next
        court.fail(many[8], REFUSED)
    assert hosts.shared.concurrency == 1
    court.now = hosts.shared.rate_next
    for _ in range(100):
        court.answer(many[8])
    assert (hosts.shared.concurrency, hosts.network.away_since) == (40, None)


def test_it_is_the_hosts_again_when_our_patience_is_over() -> None:
    court = Court(RetryPolicy(host_patience=60.0))
    for n in range(MIN_FAILED_HOSTS):
        court.fail(court.host(f"h{n}.test"), REFUSED, took=0.0)  # each answers a while before
    many = [court.host(f"g{n}.test") for n in range(MIN_FAILED_HOSTS)]
    court.now += 100.0
    assert [court.fail(host, REFUSED, took=0.0) for host in many][-1] == "network"
    court.now += 61.0
    assert court.fail(many[0], REFUSED) == "host"


def test_a_row_does_not_pay_while_it_is_doubtful() -> None:
    court = Court()
    fresh = court.host("fresh.test", known=False)
    court.fail(court.host(), REFUSED)
    assert court.fail(fresh, REFUSED) == "network"
    court.answer(court.host("good.test", known=False))
    assert court.fail(fresh, REFUSED) == "row"


class Road:
    """A route to the world, there or not."""

    def __init__(self, *, there: bool = True) -> None:
        self.there = there

    def __call__(self) -> bool:
        return self.there


@pytest.mark.parametrize("error", [NO_ROUTE, NO_SERVER])
def test_without_a_route_not_even_a_stranger_pays(error: FetchError) -> None:
    road = Road()
    court = Court(concurrency=100, has_route=road)
    court.host()
    one, other, dead = (court.host(key, known=False) for key in ("one.test", "other.test", "dead.test"))
    assert court.fail(one, error) == "row"  # there is one
    road.there = False
    assert court.fail(dead, CLOSED) == "row"  # somebody is there, by some other way
    assert court.fail(other, error) == court.fail(dead, GONE) == "network"
    assert (other.breaker.failures, other.suspect, court.hosts.network.away(court.now)) == (0, False, True)
    assert court.hosts.shared.concurrency == 50
    road.there = True
    assert court.fail(dead, GONE) == "row"
    assert not court.hosts.network.away(court.now)


def test_where_there_never_was_a_route_its_want_says_nothing() -> None:
    court = Court(has_route=Road(there=False))
    court.host("here.test")
    assert court.fail(court.host(known=False), NO_ROUTE) == "row"


def test_where_nobody_ever_answered_it_says_nothing_either() -> None:
    court = Court(has_route=Road(there=False))
    assert court.fail(court.host(known=False), NO_ROUTE) == "row"


def test_a_route_is_told_without_a_word_to_anybody() -> None:
    assert has_any_route() in (True, False)


@pytest.mark.parametrize(
    ("number", "there"), [(errno.ENETUNREACH, False), (errno.EAFNOSUPPORT, False), (errno.EMFILE, True)]
)
def test_where_something_else_is_missing_there_may_be_a_route(
    number: int, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fetcher.middleware.gate.socket.socket", refuse)
    assert has_any_route() is there


def test_silence_is_rare_below_its_bound() -> None:
    court = Court()
    new = court.host("new.test", known=False)
    court.health.slow_share = MAX_SLOW_SHARE
    assert not court.health.may_break_off(new, Stage.WAITING)
    court.health.slow_share = math.nextafter(MAX_SLOW_SHARE, 0)
    assert court.health.may_break_off(new, Stage.WAITING)
