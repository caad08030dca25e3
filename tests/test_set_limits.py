"""Limits that change while a run goes on, a pause, and what a fetcher tells of itself. The lab's log is the judge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from fetcher import ConfigError, Fetcher
from fetcher.client import Snapshot
from fetcher.config import Config, HostPolicy, Limits, RetryPolicy, changed_limits
from fetcher.dispatcher import Window
from fetcher.hosts.scheduler import CONNECT_IN_PLACE, DISPATCH, WHEN_ONE_ENDS, Scheduler
from fetcher.hosts.standing import standing_of
from fetcher.parallel.shares import Part, move
from fetcher.transport.descriptors import descriptors_for_connections
from tests.lab.held_case import HeldCase
from tests.lab.server import LabServer

HOSTS = 8


@pytest.fixture
async def lab() -> AsyncIterator[LabServer]:
    async with LabServer(hosts=HOSTS) as server:
        yield server


def active(lab: LabServer) -> int:
    return len(lab.site.stats.active())


async def nothing_more(lab: LabServer, requests: int) -> None:
    with pytest.raises((TimeoutError, AssertionError)):
        await lab.until(lambda: len(lab.log) > requests, timeout=0.4)


async def seen(fetcher: Fetcher, holds: Callable[[Snapshot], bool]) -> Snapshot:
    """What the fetcher tells, once it is so."""
    async with asyncio.timeout(60):
        while not holds(snapshot := fetcher.snapshot()):
            await asyncio.sleep(0.02)
    return snapshot


@pytest.mark.parametrize("workers", [1, 2])
async def test_more_and_fewer_at_once_while_it_runs(lab: LabServer, workers: int) -> None:
    gate = HeldCase()
    lab.add("/held", gate)
    urls = [lab.url(f"/held?n={n}", n % HOSTS + 1) for n in range(40)]
    urls += [lab.url(f"/ok?n={n}", n % HOSTS + 1) for n in range(40)]
    async with Fetcher(concurrency=4, workers=workers, robots=False, per_host=1) as fetcher:
        async with fetcher.stream(urls) as outcomes:
            await lab.until(lambda: active(lab) == 4)
            fetcher.set_limits(concurrency=8)
            await lab.until(lambda: active(lab) == 8)
            assert fetcher.config.limits.concurrency == fetcher.snapshot().limits.concurrency == 8
            fetcher.set_limits(concurrency=2)
            assert active(lab) == 8, "what is on the wire stays there"
            await nothing_more(lab, 8)
            gate.open()
            found = [outcome async for outcome in outcomes]
    assert len(found) == 80
    assert all(outcome.ok for outcome in found)
    assert lab.peak() == 8


async def test_fewer_at_once_is_kept(lab: LabServer) -> None:
    async with Fetcher(concurrency=8, robots=False) as fetcher:
        fetcher.set_limits(concurrency=1)
        async with fetcher.stream([lab.url(f"/ok?n={n}", n % HOSTS + 1) for n in range(24)]) as outcomes:
            assert len([outcome async for outcome in outcomes]) == 24
    assert lab.peak() == 1


@pytest.mark.parametrize("workers", [1, 2])
async def test_one_host_gets_a_limit_of_its_own(lab: LabServer, workers: int) -> None:
    gate = HeldCase()
    lab.add("/held", gate)
    urls = [lab.url(f"/held?n={n}", n % 2 + 1) for n in range(40)]
    host = lab.url("/", 1).partition("//")[2].partition(":")[0]
    async with Fetcher(concurrency=20, workers=workers, robots=False, per_host=3) as fetcher:
        async with fetcher.stream(urls) as outcomes:
            await lab.until(lambda: active(lab) == 2)  # one each, until a first answer
            fetcher.set_limits(hosts={host: {"per_host": 1}})
            assert dict(fetcher.config.hosts)[host].per_host == 1
            gate.open()
            assert len([outcome async for outcome in outcomes]) == 40
    assert lab.peak(1) == 1
    assert lab.peak(2) > 1


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_pause_sends_nothing_and_loses_nothing(lab: LabServer, workers: int) -> None:
    gate = HeldCase()
    lab.add("/held", gate)
    urls = [lab.url(f"/held?n={n}", n % HOSTS + 1) for n in range(40)]
    async with Fetcher(concurrency=4, workers=workers, robots=False, per_host=1) as fetcher:
        async with fetcher.stream(urls) as outcomes:
            await lab.until(lambda: active(lab) == 4)
            fetcher.pause()
            assert fetcher.snapshot().paused
            if workers > 1:
                await asyncio.sleep(0.2)  # it is on its way to them
            gate.open()
            four = [await anext(outcomes) for _ in range(4)]
            assert all(outcome.ok for outcome in four), "what is on the wire finishes"
            await nothing_more(lab, 4)
            fetcher.pause(paused=False)
            rest = [outcome async for outcome in outcomes]
    assert len(rest) == 36
    assert all(outcome.ok for outcome in rest)


async def test_a_paused_run_can_be_stopped(lab: LabServer) -> None:
    urls = [lab.url(f"/ok?n={n}", n % HOSTS + 1) for n in range(40)]
    async with asyncio.timeout(30), Fetcher(concurrency=4, robots=False) as fetcher:
        fetcher.pause()
        async with fetcher.stream(urls) as outcomes:
            await nothing_more(lab, 0)
            fetcher.stop(1)
            assert [outcome async for outcome in outcomes] == []
            assert outcomes.stats.pending == 40


@pytest.mark.parametrize("workers", [1, 2])
async def test_it_tells_what_each_host_has_left_and_waits_for(lab: LabServer, workers: int) -> None:
    gate = HeldCase()
    lab.add("/held", gate)
    urls = [lab.url(f"/held?n={n}", 1) for n in range(9)] + [lab.url("/held?n=x", 2)]
    async with Fetcher(concurrency=5, workers=workers, robots=False) as fetcher:
        async with fetcher.stream(urls) as outcomes:
            await lab.until(lambda: active(lab) == 2)
            snapshot = await seen(fetcher, lambda told: sum(bool(host.on_wire) for host in told.hosts) == 2)
            first, second = snapshot.hosts
            assert (first.left, first.on_wire, first.limit) == (9, 1, 1)
            assert (first.host, second.left) == (lab.url("", 1).partition("//")[2].partition(":")[0], 1)
            assert first.why == "one at once until it answers"
            assert [worker.rows > 0 for worker in snapshot.workers] == [True] * (workers if workers > 1 else 0)
            assert sum(worker.slots for worker in snapshot.workers) == (5 if workers > 1 else 0)
            gate.open()
            assert len([outcome async for outcome in outcomes]) == 10
        assert fetcher.snapshot().hosts == []


async def test_what_is_no_limit_is_refused_in_words() -> None:
    async with Fetcher(robots=False) as fetcher:
        for options, words in (
            ({"concurrency": 0}, "concurrency 0: must be at least 1"),
            ({"concurrency": "many"}, "concurrency many: must be a whole number"),
            ({"rate": "fast"}, "rate fast: must be a number"),
            ({"hosts": {"example.com": {"per_hots": 1}}}, "did you mean 'per-host'"),
            ({"hosts": {"no host": {"delay": 1}}}, "no host"),
            ({"timeout": 3}, "timeout cannot be changed while a stream runs: concurrency, rate, hosts can"),
        ):
            with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
                fetcher.set_limits(**options)
        assert fetcher.config == Config.of(robots=False)


async def test_more_than_there_are_descriptors_is_refused() -> None:
    most = descriptors_for_connections()
    if most is None:
        pytest.skip("there is no limit of file descriptors here")
    async with Fetcher() as fetcher:
        with pytest.raises(ConfigError, match=r"more than the limit of file descriptors allows: .*ulimit -n"):
            fetcher.set_limits(concurrency=most + 1)


async def test_fewer_than_the_workers_is_refused(lab: LabServer) -> None:
    async with Fetcher(workers=3, concurrency=9, robots=False) as fetcher:
        async with fetcher.stream([lab.url(f"/ok?n={n}", n % HOSTS + 1) for n in range(9)]) as outcomes:
            with pytest.raises(ConfigError, match="2 is fewer than one for each of 3 workers"):
                fetcher.set_limits(concurrency=2)
            assert len([outcome async for outcome in outcomes]) == 9


async def test_a_fetcher_that_is_not_open_has_no_limits_to_change() -> None:
    with pytest.raises(RuntimeError, match="not open"):
        Fetcher().set_limits(concurrency=3)


# The parts, without a loop


def test_what_is_said_of_a_host_twice_adds_up() -> None:
    config = Config.of(hosts={"a.example": {"per_host": 2, "delay": 1}})
    config, news = changed_limits(config, {"hosts": {"a.example": {"delay": 3}}, "rate": "60/m"})
    assert news == (("a.example", HostPolicy(delay=3.0)),)
    assert dict(config.hosts)["a.example"] == HostPolicy(per_host=2, delay=3.0)
    assert config.limits.rate == 1.0
    config, _ = changed_limits(config, {"rate": None})
    assert config.limits.rate is None


def scheduler(**limits: object) -> Scheduler:
    return Scheduler(Limits(**limits), RetryPolicy())  # type: ignore[arg-type]  # as the test names them


def test_nothing_may_start_in_a_pause_and_no_host_is_blamed_for_it() -> None:
    made = scheduler(concurrency=2)
    host = made.get("a.example", 1.0)
    assert made.shared.has_room(1.0)
    assert made.decide(host, CONNECT_IN_PLACE, 1.0) <= 1.0
    made.shared.paused = True
    assert not made.shared.has_room(1.0)
    assert made.shared.room_at(1.0) is None
    assert made.decide(host, CONNECT_IN_PLACE, 1.0) == WHEN_ONE_ENDS
    host.breaker.charge(10.0, None)
    made.table.excuse(100.0)
    host.breaker.charge(200.0, None)
    host.breaker.charge(130.0, None)
    assert host.breaker.given_up is None or host.breaker.first_charge_at == 110.0


def test_a_shorter_delay_holds_at_once_and_a_wish_of_the_host_goes_on() -> None:
    made = scheduler(delay=60.0)
    host = made.get("a.example", 1.0)
    made.shared.reserve(host)
    made.shared.unreserve(host)
    made.shared.take(host, 1.0)
    host.sent(1.0)
    made.shared.release(host)
    assert made.decide(host, DISPATCH, 2.0) == 61.0
    assert made.table.set_policy("a.example", HostPolicy(delay=2.0)) == [host]
    assert made.decide(host, DISPATCH, 2.0) == 3.0
    assert made.table.set_policy("a.example", HostPolicy(per_host=4)) == [host]
    assert (host.settings.per_host, host.settings.delay) == (4, 2.0)
    assert made.table.set_policy("*.b.example", HostPolicy(delay=1.0)) == []
    assert made.get("x.b.example", 2.0).delay == 1.0


def test_a_delay_of_robots_txt_stays() -> None:
    made = scheduler()
    host = made.get("a.example", 1.0)
    made.table.set_crawl_delay(host, 5.0)
    made.table.set_policy("a.example", HostPolicy(delay=1.0))
    assert host.delay == 5.0
    shown = standing_of(host, "a.example", made.shared, waiting=3, running=0, now=1.0)
    assert (shown.delay, shown.left) == (5.0, 3)


def test_a_window_grows_and_wakes_who_waits() -> None:
    async def main() -> None:
        window = Window(1)
        await window.acquire()
        waits = asyncio.ensure_future(window.acquire())
        await asyncio.sleep(0)
        window.widen(3)
        await waits
        assert (window.free, window.open) == (1, True)
        window.widen(2)
        assert window.free == 1

    asyncio.run(main())


def test_shares_follow_a_total_that_has_changed_by_little() -> None:
    parts = [Part(50, 50, 100), Part(50, 50, 100)]
    assert sum(move(98, parts)) <= 98
    assert sum(move(104, parts)) == 104
