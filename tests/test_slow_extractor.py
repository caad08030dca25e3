"""An extractor on the loop: one that is slow is told of once, after ten pages; and the loop turns between batches of pages."""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import Any

import pytest

from fetcher import Fetcher, pipeline
from fetcher.model import Request, Response
from fetcher.page.reader import SLOW_PAGES, WatchedExtractor


@pytest.mark.parametrize(("seconds", "pages", "told"), [(0.07, SLOW_PAGES - 1, 0), (0.07, 100, 1), (0.01, 100, 0)])
def test_it_is_told_after_ten_slow_pages(
    seconds: float, pages: int, told: int, caplog: pytest.LogCaptureFixture
) -> None:
    clock = itertools.count()
    watched = WatchedExtractor(lambda _: "data", lambda: next(clock) * seconds)
    response: Any = None
    with caplog.at_level(logging.WARNING, "fetcher.extract"):
        assert [watched(response) for _ in range(pages)] == ["data"] * pages
    assert len(caplog.records) == told
    assert all("--isolate" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(("slice_seconds", "least", "most"), [(0.0, 10, 10), (60.0, 1, 3)])
async def test_the_loop_turns_after_a_batch_of_pages(
    slice_seconds: float, least: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "SLICE_SECONDS", slice_seconds)
    turns, seen = 0, list[int]()

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def answer(request: Request) -> Response:
        return Response(request, request.url, 200, (("content-type", "text/html"),), b"<title>t</title>")

    def extract(response: Response) -> int:
        seen.append(turns)
        return response.status

    counting = asyncio.create_task(count_turns())
    async with (
        Fetcher(transport=answer, extract=extract, robots=False, concurrency=10, per_host=10) as fetcher,
        fetcher.stream(f"http://host/{number}" for number in range(10)) as outcomes,
    ):
        assert [outcome.ok async for outcome in outcomes] == [True] * 10
    counting.cancel()
    assert least <= len(set(seen)) <= most
