"""Bodies are bounded: each by max-size, and all together by the memory they share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fetcher.client import Fetcher
from fetcher.config import Config
from fetcher.model import Page, Request, Stage
from fetcher.pipeline import Outcomes
from fetcher.request_state import RequestState, current
from fetcher.transport.session import Transport
from tests.lab.crawl import code_of, crawl, one
from tests.lab.held_case import HeldCase
from tests.lab.server import Exchange, LabServer

MB = 1 << 20


@pytest.fixture
async def lab() -> AsyncIterator[LabServer]:
    async with LabServer(hosts=3) as lab:
        yield lab


# Sizes


@pytest.mark.parametrize(
    ("target", "size"),
    [
        ("/big?mb=1", MB),
        ("/big?mb=2", MB),
        ("/big?mb=2&chunked=1", MB),
        ("/gzip-bomb?mb=2", MB),
        ("/bytes?n=70000", 70_000),
    ],
)
async def test_truncate_keeps_what_came_and_says_so(lab: LabServer, target: str, size: int) -> None:
    page = await one(lab.url(target), max_size="1M", truncate=True)
    assert isinstance(page, Page)
    assert (page.bytes, page.truncated) == (size, "mb=2" in target)


async def test_a_body_of_just_the_limit_is_not_too_large(lab: LabServer) -> None:
    targets = ["/bytes?n=5000", "/bytes?n=5001", "/gzip?size=5000", "/gzip?size=5001"]
    outcomes = await crawl([lab.url(target) for target in targets], max_size=5000)
    assert [code_of(outcome) for outcome in outcomes] == [200, "too_large", 200, "too_large"]


# Memory


async def test_large_bodies_take_turns_and_those_that_wait_do_not_age(lab: LabServer) -> None:
    """With memory for one body, one grows beyond 64 KB at a time; the others read nothing and lose no time."""
    turns: list[asyncio.Event] = [asyncio.Event() for _ in range(3)]
    bodies = 3

    async def large(exchange: Exchange) -> None:
        turn = turns[int(exchange.text("n"))]
        await exchange.send(exchange.head(200, [("Content-Length", str(2 * MB))]) + "x" * 100_000)
        while not turn.is_set():  # whoever reads hears of us; whoever waits has no need to
            await exchange.send("x")
            exchange.entry.status += 1
            await exchange.pause(0.05)
        await exchange.send("x" * (2 * MB - 100_000 - (exchange.entry.status - 200)))

    lab.add("/large", large)
    config = Config.of(robots=False, retries=0, max_size="3M", memory="3M", read_timeout=0.6, timeout=60)
    urls = [lab.url(f"/large?n={n}", n + 1) for n in range(bodies)]
    async with asyncio.timeout(60), Fetcher(config) as fetcher, fetcher.stream(urls) as outcomes:
        first = asyncio.ensure_future(anext(outcomes))
        for left in range(bodies, 0, -1):
            await lab.until(lambda left=left: stages(fetcher).count("waiting for memory") == left - 1)  # type: ignore[misc]  # bound at once
            (reading,) = (row for row in fetcher.in_flight() if row.stage == "reading")
            if left == bodies:
                deadline = time.monotonic() + 3 * config.timeouts.read
                await lab.until(lambda: time.monotonic() > deadline)
                assert stages(fetcher).count("waiting for memory") == left - 1
            turns[int(reading.url[-1])].set()
            page = await first
            assert (code_of(page), page.bytes) == (200, 2 * MB), page
            if left > 1:
                first = asyncio.ensure_future(anext(outcomes))


def transport_of(fetcher: Fetcher) -> Any:
    assert fetcher._transport is not None
    return fetcher._transport.make()


def stages(fetcher: Fetcher) -> list[str]:
    return [row.stage for row in fetcher.in_flight()]


async def test_at_most_as_many_bodies_grow_as_memory_allows(lab: LabServer) -> None:
    config = Config.of(robots=False, retries=0, max_size="4M", memory="8M", per_host=20)
    transport = Transport(config)
    states: set[RequestState] = set()
    grown: list[int] = []

    async def watched(request: Request) -> Any:
        states.add(current.get())
        return await transport(request)

    async def look() -> None:
        while True:
            large = [
                state for state in states if state.transfer and (state.transfer.received or 0) > 65_536 + 2 * 262_144
            ]
            growing = [state for state in large if state.stage in (Stage.READING, Stage.WAITING_FOR_MEMORY)]
            assert all(state.holds_memory for state in growing)
            grown.append(len(growing))
            await asyncio.sleep(0.001)

    urls = [lab.url(f"/big?mb=3&chunked={n % 2}&{n}", n % 3 + 1) for n in range(30)]
    looking = asyncio.create_task(look())
    try:
        async with asyncio.timeout(60), Fetcher(config, transport=watched) as fetcher, fetcher.stream(urls) as outcomes:
            assert {code_of(outcome) async for outcome in outcomes} == {200}
    finally:
        await transport.close()
        looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
    assert 1 <= max(grown) <= 2


async def test_in_order_a_row_whose_turn_comes_waits_for_no_memory_that_those_behind_it_hold(lab: LabServer) -> None:
    first, second = HeldCase(), HeldCase()
    lab.add("/first", first)
    lab.add("/second", second)
    urls = [lab.url("/first", 1), lab.url("/second?size=300000", 2), lab.url("/bytes?n=300000", 3)]
    config = Config.of(robots=False, keep_body=True, memory="1M", max_size="1M")
    async with asyncio.timeout(30), Fetcher(config) as fetcher, fetcher.stream(urls, ordered=True) as outcomes:
        assert isinstance(outcomes, Outcomes)
        reading = asyncio.create_task(anext(outcomes))
        await lab.until(lambda: 3 in outcomes._held)  # it holds all of the memory
        second.open()
        await lab.until(lambda: "waiting for memory" in stages(fetcher))
        first.open()
        seen = [await reading, *[outcome async for outcome in outcomes]]
    assert [outcome.request.id for outcome in seen] == [1, 2, 3]


async def test_a_connection_that_breaks_while_its_body_waits_for_memory_is_a_failure(lab: LabServer) -> None:
    release = asyncio.Event()

    async def holder(exchange: Exchange) -> None:
        await exchange.send(exchange.head(200, [("Content-Length", "200000")]) + "x" * 100_000)
        await release.wait()
        await exchange.send("x" * 100_000)

    async def broken(exchange: Exchange) -> None:
        await exchange.send(exchange.head(200, [("Content-Length", "200000")]) + "x" * 100_000)
        exchange.close()

    lab.add("/holder", holder)
    lab.add("/broken", broken)
    config = Config.of(robots=False, retries=0, max_size="1M", memory="1M")
    async with asyncio.timeout(60), Fetcher(config) as fetcher:
        held = asyncio.create_task(fetcher.fetch(lab.url("/holder")))
        await lab.until(lambda: transport_of(fetcher)._bodies._permits.locked())
        urls = [lab.url("/broken", n + 1) for n in range(3)]
        async with fetcher.stream(urls) as outcomes:
            await lab.until(lambda: stages(fetcher) == ["waiting for memory"] * 3)
            release.set()
            assert {code_of(outcome) async for outcome in outcomes} == {"truncated"}
        assert (await held).bytes == 200_000
