"""An async iterator and an async context manager of your own, and the stream between them.

The idea: ``async for`` asks for one thing at a time and may wait for it, so a list can be endless: of ``Catalogue`` no
more is read than is needed. ``async with`` takes away what it has brought, however the block is left: ``Pulse``
is a task that never outlives its block. A stream is the two in one, so you may ``break`` out of it and all is clean.
"""

from __future__ import annotations

import asyncio
from typing import Self

from fetcher import Config, Fetcher, Page
from fetcher.demo import Site, SiteProcess


class Catalogue:
    """An async iterator: the pages of a shop, round and round, each when it is asked for."""

    def __init__(self, urls: list[str]) -> None:
        self.urls, self.read = urls, 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        await asyncio.sleep(0)  # a database or another server would be waited for here
        self.read += 1
        return self.urls[self.read % len(self.urls)]


class Pulse:
    """An async context manager: a beat on the screen now and then, for as long as the block runs."""

    async def __aenter__(self) -> None:
        self.task = asyncio.create_task(self._beat())

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])  # it is gone before the block is left

    async def _beat(self) -> None:
        while not await asyncio.sleep(0.02, result=False):
            print("♥")


async def main(pages: Catalogue) -> None:
    """Read an endless catalogue until ten pages are there."""
    async with Pulse(), Fetcher(Config.of(concurrency=5, lookahead=9)) as fetcher, fetcher.stream(pages) as outcomes:
        async for outcome in outcomes:
            print(f"{outcomes.stats.done:2}. {outcome.title if isinstance(outcome, Page) else outcome.error}")
            if outcomes.stats.done == 10:
                break
    print(f"\n{pages.read} of endlessly many URLs read; tasks left, with this one: {len(asyncio.all_tasks())}")


if __name__ == "__main__":
    with SiteProcess(Site(pages=30)) as shop:
        asyncio.run(main(Catalogue(shop.urls())))
