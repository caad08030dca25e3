"""Time runs out when it should, by the code of what it was spent on; what waits for memory does not age."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from fetcher.config import Config
from fetcher.errors import FetchError
from fetcher.model import Request, Stage
from fetcher.request_state import RequestState
from fetcher.transport.watchdog import Watch, Watchdog
from fetcher.urls import parse
from tests.lab.crawl import code_of, crawl, one
from tests.lab.server import LabServer, black_hole, silent_port


@pytest.fixture
async def lab() -> AsyncIterator[LabServer]:
    async with LabServer(hosts=3) as lab:
        yield lab


# Time


@pytest.mark.parametrize(
    ("target", "code", "options", "deadline"),
    [
        ("/silent", "read_timeout", {"read_timeout": 0.3}, 0.3),
        ("/silent?after=head", "read_timeout", {"read_timeout": 0.3}, 0.3),
        ("/silent?after=body", "read_timeout", {"read_timeout": 0.3}, 0.3),
        ("/silent", "total_timeout", {"timeout": 1.0}, 1.0),
        ("/slow-headers?n=10000&gap=0.01", "total_timeout", {"timeout": 1.0}, 1.0),
        ("/drip?n=10000&gap=0.01", "too_slow", {"timeout": 1.0}, 1.0),
        ("/slow-body?chunks=10000&gap=0.01", "too_slow", {"timeout": 1.0}, 1.0),
        ("/delay/0/silent?after=body", "too_slow", {"timeout": 1.0}, 1.0),
    ],
)
async def test_time_runs_out_when_it_should(
    lab: LabServer, target: str, code: str, options: dict[str, Any], deadline: float
) -> None:
    began = time.monotonic()
    outcome = await one(lab.url(target), **options)
    took = time.monotonic() - began
    assert code_of(outcome) == code
    assert f"{deadline:g} s" in outcome.error.message  # type: ignore[union-attr]  # the code says it failed
    assert deadline <= took < 5 * deadline + 1
    assert deadline <= outcome.elapsed <= took
    await lab.until(lambda: lab.connections.open == 0)


async def test_time_to_connect_is_told_by_what_it_was_spent_on() -> None:
    with black_hole() as hole, silent_port() as silent:
        urls = [f"http://127.0.0.1:{hole}/", f"https://127.0.0.1:{silent}/"]
        for clock in ("connect_timeout", "timeout"):
            options: dict[str, Any] = {clock: 1.0}
            outcomes = await crawl(urls, **options)
            assert [code_of(outcome) for outcome in outcomes] == ["connect_timeout", "tls_timeout"]
            for outcome in outcomes:
                assert 1.0 <= outcome.elapsed < 5 * 1.0


async def test_bytes_that_come_drop_by_drop_are_no_silence(lab: LabServer) -> None:
    targets = ["/slow-headers?n=20&gap=0.05", "/slow-body?chunks=20&gap=0.05", "/drip?n=20&gap=0.05"]
    outcomes = await crawl([lab.url(target) for target in targets], read_timeout=0.6)
    assert [code_of(outcome) for outcome in outcomes] == [200] * 3
    assert min(outcome.elapsed for outcome in outcomes) > 0.6


class Line:
    """A connection, as the clocks see it."""

    heard = 0.0


class Clock:
    """A clock that stands until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("fetcher.transport.watchdog.monotonic", clock)
    return clock


async def end_of(clock: Clock, act: Callable[[Any], None]) -> str:
    """Run one watch with a total of 30 s and 15 s between reads, and return the code it ends with, or ``none``."""
    dog = Watchdog(Config.of(timeout=30, read_timeout=15).timeouts)
    state = RequestState(Request(1, "http://a/"), parse("http://a/"))
    for stage in (Stage.CONNECTING, Stage.WAITING, Stage.READING):
        state.enter(stage)
    try:
        with Watch(dog, state) as watch:
            act(watch)
            watch.check(clock.now)
            await asyncio.sleep(0)
    except FetchError as error:
        return error.code
    finally:
        dog.close()
    return "none"


async def test_no_time_passes_while_a_body_waits_for_memory(clock: Clock) -> None:
    def run(*steps: float, pause: float = 0.0) -> Callable[[Any], None]:
        def act(watch: Any) -> None:
            line = Line()
            watch.listen(line)
            for step in steps:
                clock.now += step
                line.heard = clock.now
            if pause:
                watch.pause()
                clock.now += pause
                watch.check(clock.now)
                watch.resume()
            clock.now += 14

        return act

    assert await end_of(clock, run(14)) == "none"
    assert await end_of(clock, run(14, pause=1000)) == "none"
    assert await end_of(clock, run(14, 3)) == "too_slow"
    assert await end_of(clock, run(14, 3, pause=1000)) == "too_slow"


async def test_silence_is_counted_from_the_last_byte_or_the_request(clock: Clock) -> None:
    def act(watch: Any) -> None:
        line = Line()
        line.heard = clock.now - 500  # it was idle for long
        watch.listen(line)
        clock.now += 14.9
        watch.check(clock.now)
        clock.now += 0.2

    assert await end_of(clock, act) == "read_timeout"


async def test_while_there_is_no_connection_only_the_whole_time_counts(clock: Clock) -> None:
    def act(watch: Any) -> None:
        watch.listen(Line())
        watch.listen(None)  # aiohttp asks again on a new connection
        clock.now += 29

    assert await end_of(clock, act) == "none"


async def test_whoever_cancels_is_heard_even_when_time_runs_out_in_the_same_instant(clock: Clock) -> None:
    dog = Watchdog(Config.of(timeout=30).timeouts)

    async def exchange() -> None:
        with Watch(dog, None) as watch:
            clock.now += 31
            watch.check(clock.now)
            await asyncio.sleep(60)

    task = asyncio.create_task(exchange())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    dog.close()
