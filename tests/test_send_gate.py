"""The last look before a request is sent: what its host asked for while there was no connection yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from fetcher.config import Limits, RetryPolicy
from fetcher.errors import Skipped
from fetcher.hosts.scheduler import Scheduler
from fetcher.hosts.state import HostState
from fetcher.middleware.gate import Gate
from fetcher.model import Request
from fetcher.request_state import RequestState, Requeue, Transfer
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


def hosts_of(delay: float = 0.0, *, robots: bool = False) -> Scheduler:
    return Scheduler(Limits(delay=delay), RetryPolicy(), robots=robots)


def send_gate(hosts: Scheduler, host: HostState, clock: Clock, *, can_requeue: bool = True) -> Callable[[], float]:
    """Return what asks the gate for a row of the host that is about to be sent."""
    url = f"http://{host.key}/"
    state = RequestState(Request(1, url), parse(url), transfer=Transfer(host, clock()))
    state.can_requeue = can_requeue
    gate = Gate(hosts, clock)
    return lambda: gate.before_sending(state)


async def test_what_has_no_reason_to_wait_goes(clock: Clock) -> None:
    hosts = hosts_of()
    host = hosts.get("a", clock())
    send = send_gate(hosts, host, clock)
    assert [send(), send()] == [0.0, 0.0]
    assert host.not_before == 0.0


async def test_a_delay_counts_from_when_the_one_before_was_sent(clock: Clock) -> None:
    hosts = hosts_of(delay=0.5)
    host = hosts.get("a", clock())
    hosts.shared.take(host, clock())
    first, second = (send_gate(hosts, host, clock) for _ in range(2))
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
    hosts = hosts_of(delay=0.5)
    host = hosts.get("a", clock())
    assert send_gate(hosts, host, clock)() == 0.0
    clock.now += 0.25  # what else there was to do in this turn
    await asyncio.sleep(0)
    assert host.not_before == clock() + 0.5


async def test_a_crawl_delay_counts_from_when_robots_txt_was_asked_for(clock: Clock) -> None:
    hosts = hosts_of(robots=True)
    host = hosts.get("a", clock())
    hosts.shared.take(host, clock())
    clock.now += 0.25
    send_gate(hosts, host, clock)()
    await asyncio.sleep(0)
    sent = clock()
    clock.now += 0.25
    hosts.table.set_crawl_delay(host, 2.0)
    assert host.not_before == sent + 2.0


async def test_a_refusal_is_obeyed_by_what_was_connecting(clock: Clock) -> None:
    hosts = hosts_of()
    host = hosts.get("a", clock())
    hosts.health.park(host, clock(), 5.0)
    clock.now += 1.0
    with pytest.raises(Requeue) as later:
        send_gate(hosts, host, clock)()
    assert later.value.due == clock() + 4.0
    clock.now += 4.0 - 0.0625
    assert send_gate(hosts, host, clock)() == 0.0625
    clock.now += 0.0625
    assert send_gate(hosts, host, clock)() == 0.0


async def test_what_nobody_takes_back_waits_in_its_place(clock: Clock) -> None:
    hosts = hosts_of()
    host = hosts.get("a", clock())
    hosts.health.park(host, clock(), 5.0)
    assert send_gate(hosts, host, clock, can_requeue=False)() == 5.0


async def test_nothing_more_goes_to_a_host_that_was_given_up(clock: Clock) -> None:
    hosts = hosts_of()
    host = hosts.get("a", clock())
    hosts.health.park(host, clock(), 1e9)
    with pytest.raises(Skipped, match="asks to wait"):
        send_gate(hosts, host, clock)()


# What an earlier run of the job learnt


def test_a_crawl_delay_is_remembered_until_robots_txt_is_read_again(clock: Clock) -> None:
    hosts = hosts_of(robots=True)
    hosts.table.restore({"asked": 2.0, "unasked": 3.0}, clock(), {"asked": 2.0, "unasked": 3.0})
    host = hosts.get("asked", clock())
    assert (host.delay, host.not_before) == (2.0, clock() + 2.0)
    clock.now += 10.0
    assert hosts.table.delays() == {"asked": 2.0, "unasked": 3.0}  # killed now, the next run waits as long
    hosts.table.set_crawl_delay(host, 0.0)
    host.know_robots()
    assert (host.delay, hosts.table.delays()) == (0.0, {"unasked": 3.0})
