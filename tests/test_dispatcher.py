"""Which rows run: a row that must wait leaves its task, and comes back though nothing else goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from fetcher import Config, Fetcher, Request, Response
from fetcher.config import Limits, RetryPolicy
from fetcher.dispatcher import Dispatcher, Window
from fetcher.errors import FetchTimeout, SinkError
from fetcher.hosts.scheduler import Scheduler
from fetcher.middleware.gate import Gate
from fetcher.model import Exchange
from fetcher.request_state import RequestState
from fetcher.stats import Stats
from fetcher.urls import parse

DEADLINE = 30.0


async def test_the_only_row_comes_back_after_a_wait_that_left_its_task(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = woken = 0
    stages: set[str] = set()
    time_has_come = Dispatcher._time_has_come

    def counted(dispatcher: Dispatcher) -> None:
        nonlocal woken
        woken += 1
        time_has_come(dispatcher)

    monkeypatch.setattr(Dispatcher, "_time_has_come", counted)

    async def transport(request: Request) -> Response:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise FetchTimeout("read_timeout", "nothing came")
        return Response(request, request.url, 200)

    # Backoff is between half of this and the whole: over a second in any case, so the row goes to the frontier.
    config = Config.of(robots=False, backoff=2.2, retries=1)
    async with asyncio.timeout(DEADLINE), Fetcher(config, transport=transport) as fetcher:
        async with fetcher.stream(["http://127.0.0.1/"]) as outcomes:
            reading = asyncio.ensure_future(anext(outcomes))
            while not reading.done():
                stages.add(",".join(row.stage for row in fetcher.in_flight()))
                await asyncio.sleep(0.01)
            outcome = await reading
    assert outcome.ok
    assert (asked, outcome.attempts) == (2, 2)
    assert outcome.waited > 1.0
    assert "" in stages, "the row never left its task"
    assert 1 <= woken <= 3, "the timer goes off when the time has come, and not over and over until then"


async def test_a_row_that_waits_keeps_no_place_in_the_window() -> None:
    waiting = asyncio.Event()

    async def transport(request: Request) -> Response:
        if request.url.endswith("/0"):
            waiting.set()
            raise FetchTimeout("read_timeout", "nothing came")
        return Response(request, request.url, 200)

    config = Config.of(robots=False, backoff=60, max_backoff=60, retries=1)
    async with asyncio.timeout(DEADLINE), Fetcher(config, transport=transport) as fetcher:
        urls = [f"http://127.0.0.1/{n}" for n in range(3 * config.limits.window)]
        async with fetcher.stream(urls) as outcomes:
            got = [(await anext(outcomes)).request.id for _ in range(len(urls) - 1)]
    assert waiting.is_set()
    assert sorted(got) == list(range(2, len(urls) + 1))


async def test_however_many_hosts_are_told_of_rows_are_started_once_in_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, turns = asyncio.get_running_loop(), 0
    call_soon = loop.call_soon

    def counted(*words: Any, **named: Any) -> asyncio.Handle:
        nonlocal turns
        turns += 1
        return call_soon(*words, **named)

    async def never(state: RequestState) -> None:
        raise AssertionError(state)

    limits = Limits()
    scheduler = Scheduler(limits, RetryPolicy())
    dispatcher = Dispatcher(Gate(scheduler), limits, never, lambda _: None, ordered=False)
    monkeypatch.setattr(loop, "call_soon", counted)
    for n in range(50):
        scheduler.tell(f"h{n}.example")
        dispatcher.source_ended()
    assert turns == 1
    await asyncio.sleep(0)
    before = turns
    for n in range(50):
        scheduler.tell(f"h{n}.example")
    assert turns == before + 1
    dispatcher.close()


def row(host: str, number: int) -> RequestState:
    url = f"http://{host}/{number}"
    return RequestState(Request(number, url), parse(url), number)


def dispatcher_of(
    limits: Limits, run_row: Callable[[RequestState], Coroutine[Any, Any, None]]
) -> tuple[Dispatcher, Scheduler]:
    scheduler = Scheduler(limits, RetryPolicy())
    bugs: list[BaseException | None] = []
    return Dispatcher(Gate(scheduler), limits, run_row, bugs.append, ordered=False), scheduler


async def test_what_comes_after_the_end_is_not_started() -> None:
    started: list[RequestState] = []

    async def run(state: RequestState) -> None:
        started.append(state)

    dispatcher, _ = dispatcher_of(Limits(), run)
    dispatcher.push(row("a.example", 1))
    dispatcher.source_ended()
    dispatcher.close()
    dispatcher.push(row("b.example", 2))
    for _ in range(3):
        await asyncio.sleep(0)
    assert started == []
    assert not dispatcher.running


# Beyond the look-ahead


async def test_a_reader_that_is_not_waiting_is_given_no_more_than_the_look_ahead() -> None:
    """Six rows fill the slots, so the reader is not asked for more; when they have ended it is on its way already."""
    ended = 0

    async def run(state: RequestState) -> None:
        nonlocal ended
        ended += 1

    dispatcher, scheduler = dispatcher_of(Limits(lookahead=100, concurrency=6), run)
    scheduler.health.park(scheduler.get("parked.example", 0.0), time.monotonic(), 60.0)
    for number in range(100):
        dispatcher.push(row(f"h{number}.example" if number < 6 else "parked.example", number))
    assert dispatcher.full
    await dispatcher.space()
    while ended < 6 or dispatcher.running:
        await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)
    for number in range(100, 106):
        assert not dispatcher.full
        dispatcher.push(row("parked.example", number))
    assert dispatcher.full
    await dispatcher.space()  # there are slots for other hosts
    for number in range(106, 106 + 100 // 8):
        assert not dispatcher.full
        dispatcher.push(row("parked.example", number))
    assert dispatcher.full  # an eighth of the look-ahead at a time
    dispatcher.close()


async def test_a_row_that_a_middleware_answers_makes_place_for_the_next_of_its_host() -> None:
    async def answer(request: Request, proceed: Exchange) -> Response:
        return Response(request, request.url, 200)

    config = Config.of(robots=False, per_host=1)
    async with asyncio.timeout(5), Fetcher(config, middleware=[answer]) as fetcher:  # or it takes 15 s
        async with fetcher.stream([f"http://a.example/{n}" for n in range(300)]) as outcomes:
            assert len([outcome async for outcome in outcomes]) == 300


class Slow:
    """A transport that never answers for one host, and the others at once."""

    def __init__(self) -> None:
        self.held = asyncio.Event()

    async def __call__(self, request: Request) -> Response:
        if "slow" in request.url:
            await self.held.wait()
        return Response(request, request.url, 200)


async def test_the_list_is_read_on_past_a_host_that_takes_no_more(tmp_path: Path) -> None:
    slow = Slow()
    urls = [f"http://slow.example/{n}" for n in range(3_000)] + [f"http://h{n % 7}.example/{n}" for n in range(500)]
    stats, turns = Stats(), 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with asyncio.timeout(DEADLINE), Fetcher(Config.of(robots=False, lookahead=100), transport=slow) as fetcher:
        async with fetcher.stream(urls, stats=stats, spill_folder=str(tmp_path)) as outcomes:
            counting = asyncio.ensure_future(count_turns())
            await asyncio.sleep(0)
            others = [(await anext(outcomes)).request.id for _ in range(500)]
            assert min(others) == 3_001
            assert turns < 3_000  # it is read on by many rows at a time
            counting.cancel()
            slow.held.set()
            rest = [outcome.request.id async for outcome in outcomes]
    assert sorted(others + rest) == list(range(1, 3_501))
    assert (stats.ok, stats.pending) == (3_500, 0)


async def test_the_list_is_not_read_on_while_rows_may_start() -> None:
    slow, read = Slow(), 0

    def urls() -> Iterator[str]:
        nonlocal read
        for read in range(1, 50_001):
            yield f"http://slow{read % 9}.example/{read}"

    config = Config.of(robots=False, lookahead=100, concurrency=5, per_host=50)
    async with asyncio.timeout(DEADLINE), Fetcher(config, transport=slow) as fetcher:
        async with fetcher.stream(urls()) as outcomes:
            reading = asyncio.ensure_future(anext(outcomes))
            while len(fetcher.in_flight()) < 5:
                await asyncio.sleep(0)
            for _ in range(1_000):
                await asyncio.sleep(0)
            assert read <= 105
            reading.cancel()


async def test_the_list_is_not_read_on_while_first_answers_may_take_the_slots() -> None:
    held, read = asyncio.Event(), 0

    async def transport(request: Request) -> Response:
        await held.wait()
        return Response(request, request.url, 200)

    def urls() -> Iterator[str]:
        nonlocal read
        for read in range(1, 5_001):
            yield f"http://h{read % 3}.example/{read}"

    config = Config.of(robots=False, lookahead=100, concurrency=12)
    async with asyncio.timeout(DEADLINE), Fetcher(config, transport=transport) as fetcher:
        async with fetcher.stream(urls()) as outcomes:
            reading = asyncio.ensure_future(anext(outcomes))
            while len(fetcher.in_flight()) < 3:
                await asyncio.sleep(0)
            for _ in range(1_000):
                await asyncio.sleep(0)
            assert 100 <= read <= 100 + 3  # the look-ahead, and what has left it
            held.set()
            assert (await reading).ok
            assert len([outcome async for outcome in outcomes]) == 4_999


async def test_the_list_is_not_read_on_while_nobody_takes_outcomes() -> None:
    read = 0

    async def transport(request: Request) -> Response:
        await asyncio.sleep(0)
        return Response(request, request.url, 200)

    def urls() -> Iterator[str]:
        nonlocal read
        for read in range(1, 50_001):
            yield f"http://h{read % 3}.example/{read}"

    config = Config.of(robots=False, lookahead=100)  # three hosts leave 82 slots idle
    async with asyncio.timeout(DEADLINE), Fetcher(config, transport=transport) as fetcher:
        async with fetcher.stream(urls()) as outcomes:
            for _ in range(100):
                assert (await anext(outcomes)).ok
            before = 0
            while before < read:  # the window fills up
                before = read
                for _ in range(1_000):
                    await asyncio.sleep(0)
            for _ in range(2_000):
                assert (await anext(outcomes)).ok
                for _ in range(10):
                    await asyncio.sleep(0)
            assert read <= before + 2_000 + 128


@pytest.mark.parametrize(("unread", "reads_on"), [(850, True), (882, True), (950, False)])
async def test_slots_that_are_idle_for_want_of_a_reader_are_no_reason_to_read_on(unread: int, reads_on: bool) -> None:
    """Three hosts leave 82 of the 100 slots idle. Where the window has few places left, no further host would help.

    Few are fewer than there are slots. The rows that run take 18 places, and each outcome that is unread takes one.
    """
    held, answered, read = asyncio.Event(), 0, 0

    async def transport(request: Request) -> Response:
        nonlocal answered
        if request.id > unread:
            await held.wait()
        answered += 1
        return Response(request, request.url, 200)

    def urls() -> Iterator[str]:
        nonlocal read
        for read in range(1, 5_001):
            # Three hosts answer once and later hold six slots each; between are hosts of a row each.
            yield f"http://h{read % 3 if read <= 3 or read > unread else read}.example/{read}"

    config = Config.of(robots=False, lookahead=100)
    assert (config.limits.window, config.limits.concurrency) == (1_000, 100)
    async with asyncio.timeout(DEADLINE), Fetcher(config, transport=transport) as fetcher:
        async with fetcher.stream(urls()) as outcomes:
            before = -1
            while before < read < 5_000:
                before = read
                for _ in range(1_000):
                    await asyncio.sleep(0)
            assert (answered, len(fetcher.in_flight())) == (unread, 18)
            assert read == (5_000 if reads_on else 100 + unread + 18)
            held.set()
            assert len([outcome async for outcome in outcomes]) == 5_000


async def test_the_window_is_bounded_and_in_order() -> None:
    window = Window(2)
    await window.acquire()
    window.take()
    assert not window.open
    with pytest.raises(RuntimeError, match="not open"):
        window.take()
    first, second, third = (asyncio.ensure_future(window.acquire()) for _ in range(3))
    await asyncio.sleep(0)
    window.release()
    first.cancel()  # in the instant in which it is given a place
    await asyncio.gather(first, return_exceptions=True)
    await second
    assert first.cancelled()
    assert (second.done(), third.done(), window.open) == (True, False, False)
    third.cancel()
    await asyncio.gather(third, return_exceptions=True)
    window.release()
    window.release()
    assert (window.free, window.open) == (2, True)
    with pytest.raises(ValueError, match="more places"):
        window.release()


async def test_more_at_once_have_a_wider_window() -> None:
    answered = 0

    async def transport(request: Request) -> Response:
        nonlocal answered
        answered += 1
        return Response(request, request.url, 200)

    async def all_are_answered() -> int:
        before = -1
        while before < answered:
            before = answered
            for _ in range(200):
                await asyncio.sleep(0)
        return answered

    urls = [f"http://h{n % 200}.example/{n}" for n in range(4_000)]
    async with asyncio.timeout(DEADLINE), Fetcher(Config.of(robots=False), transport=transport) as fetcher:
        async with fetcher.stream(urls) as outcomes:
            assert await all_are_answered() == fetcher.config.limits.window == 1_000
            fetcher.set_limits(concurrency=150)
            assert (await anext(outcomes)).ok  # nobody looks for rows to start while nobody takes outcomes
            assert await all_are_answered() == fetcher.config.limits.window + 1 == 1_501


async def test_rows_of_the_callers_own_stay_in_memory_and_are_bounded() -> None:
    slow, read = Slow(), 0

    def rows() -> Iterator[Request]:
        nonlocal read
        for read in range(1, 5_001):
            yield Request(read, f"http://slow.example/{read}", tag=object())

    async with asyncio.timeout(DEADLINE), Fetcher(Config.of(robots=False, lookahead=100), transport=slow) as fetcher:
        async with fetcher.stream(rows()) as outcomes:
            reading = asyncio.ensure_future(anext(outcomes))
            for _ in range(1_000):
                await asyncio.sleep(0)
            assert read <= 120
            slow.held.set()
            assert (await reading).ok
            assert len([outcome async for outcome in outcomes]) == 4_999


@pytest.mark.parametrize("grouped", [False, True])
async def test_a_disk_that_fails_ends_the_run_and_is_named(tmp_path: Path, grouped: bool) -> None:
    gone = str(tmp_path / "gone")
    hosts = 2 if grouped else 300
    urls = [f"http://slow{n % hosts}.example/{n}" for n in range(3_000)]
    config = Config.of(robots=False, lookahead=100, concurrency=1_000, per_host=1)
    async with asyncio.timeout(DEADLINE), Fetcher(config, transport=Slow()) as fetcher:
        with pytest.raises(SinkError, match="gone: cannot keep the rows that wait"):
            async with fetcher.stream(urls, spill_folder=gone) as outcomes:
                await anext(outcomes)
        assert not fetcher.in_flight()


async def test_in_order_means_in_order_whatever_waits() -> None:
    slow = Slow()
    urls = [f"http://{'slow' if n % 3 else 'h'}.example/{n}" for n in range(3_000)]
    async with asyncio.timeout(DEADLINE), Fetcher(Config.of(robots=False, lookahead=50), transport=slow) as fetcher:
        async with fetcher.stream(urls, ordered=True) as outcomes:
            assert (await anext(outcomes)).request.id == 1
            slow.held.set()
            assert [outcome.request.id async for outcome in outcomes] == list(range(2, 3_001))
