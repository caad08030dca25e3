"""The last look before a request goes: what its host asked for while there was no connection yet."""

from __future__ import annotations

import asyncio

import pytest

from fetcher.config import Limits, RetryPolicy
from fetcher.errors import Skipped
from fetcher.hosts.hosts import Host, Hosts
from fetcher.middleware.departure import departure
from fetcher.model import Request
from fetcher.request_state import RequestState, Requeue
from fetcher.urls import parse


class Clock:
    """A clock that stands until it is put on."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def hosts_of(delay: float = 0.0, *, robots: bool = False) -> Hosts[str]:
    return Hosts[str](Limits(delay=delay), RetryPolicy(), robots=robots)


def flight_to(host: Host[str], *, deferrable: bool = True) -> RequestState:
    url = f"http://{host.key}/"
    state = RequestState(Request(1, url), parse(url))
    state.deferrable = deferrable
    return state


async def test_what_has_no_reason_to_wait_goes(clock: Clock) -> None:
    host = hosts_of().get("a", clock())
    depart = departure(host, flight_to(host), clock)
    assert [depart(), depart()] == [0.0, 0.0]
    assert host.not_before == 0.0


async def test_a_delay_counts_from_when_the_one_before_was_sent(clock: Clock) -> None:
    hosts = hosts_of(delay=0.5)
    host = hosts.get("a", clock())
    hosts.start(host, clock())
    first, second = (departure(host, flight_to(host), clock) for _ in range(2))
    clock.now += 0.375  # to connect
    assert first() == 0.0
    assert host.not_before == clock() + 0.5
    with pytest.raises(Requeue) as later:
        second()
    assert later.value.due == clock() + 0.5
    clock.now += 0.4375
    assert second() == 0.0625
    clock.now += 0.0625
    assert second() == 0.0
    assert host.not_before == clock() + 0.5


async def test_a_loop_that_writes_at_the_end_of_its_turn_makes_no_delay_shorter(clock: Clock) -> None:
    host = hosts_of(delay=0.5).get("a", clock())
    assert departure(host, flight_to(host), clock)() == 0.0
    clock.now += 0.25  # what else there was to do in this turn
    await asyncio.sleep(0)
    assert host.not_before == clock() + 0.5


async def test_a_crawl_delay_counts_from_when_robots_txt_was_asked_for(clock: Clock) -> None:
    hosts = hosts_of(robots=True)
    host = hosts.get("a", clock())
    hosts.start(host, clock())
    clock.now += 0.25
    departure(host, flight_to(host), clock)()
    await asyncio.sleep(0)
    sent = clock()
    clock.now += 0.25
    hosts.set_delay(host, 2.0)
    assert host.not_before == sent + 2.0


async def test_a_refusal_is_obeyed_by_what_was_connecting(clock: Clock) -> None:
    hosts = hosts_of()
    host = hosts.get("a", clock())
    hosts.charge(host, clock(), 5.0)
    clock.now += 1.0
    with pytest.raises(Requeue) as later:
        departure(host, flight_to(host), clock)()
    assert later.value.due == clock() + 4.0
    clock.now += 4.0 - 0.0625
    assert departure(host, flight_to(host), clock)() == 0.0625
    clock.now += 0.0625
    assert departure(host, flight_to(host), clock)() == 0.0


async def test_what_nobody_takes_back_waits_in_its_place(clock: Clock) -> None:
    hosts = hosts_of()
    host = hosts.get("a", clock())
    hosts.charge(host, clock(), 5.0)
    assert departure(host, flight_to(host, deferrable=False), clock)() == 5.0


async def test_nothing_more_goes_to_a_host_that_was_given_up(clock: Clock) -> None:
    hosts = hosts_of()
    host = hosts.get("a", clock())
    hosts.charge(host, clock(), 1e9)
    with pytest.raises(Skipped, match="asks to wait"):
        departure(host, flight_to(host), clock)()


# What an earlier run of the job learnt


def test_a_crawl_delay_is_remembered_until_robots_txt_is_read_again(clock: Clock) -> None:
    hosts = hosts_of(robots=True)
    hosts.restore({"asked": 2.0, "unasked": 3.0}, clock(), {"asked": 2.0, "unasked": 3.0})
    host = hosts.get("asked", clock())
    assert (host.delay, host.not_before) == (2.0, clock() + 2.0)
    clock.now += 10.0
    assert hosts.delays() == {"asked": 2.0, "unasked": 3.0}  # killed now, the next run waits as long
    host.asked_delay = 0.0
    hosts.set_delay(host, 0.0)
    hosts.know_robots(host)
    assert (host.delay, hosts.delays()) == (0.0, {"unasked": 3.0})
