"""Which rows run: a row that must wait leaves its task, and comes back though nothing else goes on."""

from __future__ import annotations

import asyncio

from fetcher import Config, Fetcher, Request, Response
from fetcher.errors import FetchTimeout

DEADLINE = 30.0


async def test_the_only_row_comes_back_after_a_wait_that_left_its_task() -> None:
    asked = 0
    stages: set[str] = set()

    async def transport(request: Request) -> Response:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise FetchTimeout("read_timeout", "nothing came")
        return Response(request, request.url, 200)

    # Backoff is between half of this and the whole: over a second in any case, so the row goes to the frontier.
    config = Config.of(backoff=2.2, retries=1)
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


async def test_a_row_that_waits_keeps_no_place_in_the_window() -> None:
    waiting = asyncio.Event()

    async def transport(request: Request) -> Response:
        if request.url.endswith("/0"):
            waiting.set()
            raise FetchTimeout("read_timeout", "nothing came")
        return Response(request, request.url, 200)

    config = Config.of(backoff=60, max_backoff=60, retries=1)
    async with asyncio.timeout(DEADLINE), Fetcher(config, transport=transport) as fetcher:
        urls = [f"http://127.0.0.1/{n}" for n in range(3 * config.limits.window)]
        async with fetcher.stream(urls) as outcomes:
            got = [(await anext(outcomes)).request.id for _ in range(len(urls) - 1)]
    assert waiting.is_set()
    assert sorted(got) == list(range(2, len(urls) + 1))
