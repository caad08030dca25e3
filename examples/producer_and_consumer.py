"""Producer and consumer: a queue on each side of the stream, so that nobody waits for a list to be complete.

The idea: a producer puts URLs into a bounded ``asyncio.Queue`` as it learns of them; consumers take pages out of
another. A bounded queue is a brake: whoever is ahead waits in ``put``. The stream stands between the two: it takes
any async iterator of URLs, and reads on only as fast as its outcomes are taken. ``None`` says that was the last.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fetcher import Fetcher, Outcome, Page
from fetcher.demo import Site, SiteProcess


async def produce(urls: list[str], listed: asyncio.Queue[str | None]) -> None:
    """Learn of a URL now and then."""
    for place, url in enumerate(urls, 1):
        await asyncio.sleep(0.01)
        await listed.put(url)
        if place % 10 == 0:
            print(f"producer ▸ {place} listed")
    await listed.put(None)


async def each(listed: asyncio.Queue[str | None]) -> AsyncIterator[str]:
    """Turn the queue into an async iterator: the shape of a stream's source."""
    while (url := await listed.get()) is not None:
        yield url


async def consume(name: str, fetched: asyncio.Queue[Outcome | None]) -> int:
    """Pack what has come, one page after the other, and return how many."""
    packed = 0
    while (outcome := await fetched.get()) is not None:
        await asyncio.sleep(0.02)  # packing takes its time, and there are two who pack
        packed += 1
        print(f"{name} ◂ {outcome.title if isinstance(outcome, Page) else outcome.error}, {fetched.qsize()} waiting")
    return packed


async def main(urls: list[str]) -> None:
    """Run them all at once, and end them one after the other."""
    listed, fetched = asyncio.Queue[str | None](5), asyncio.Queue[Outcome | None](5)
    async with asyncio.TaskGroup() as group, Fetcher() as fetcher, fetcher.stream(each(listed)) as outcomes:
        group.create_task(produce(urls, listed))
        consumers = [group.create_task(consume(name, fetched)) for name in ("packer A", "packer B")]
        async for outcome in outcomes:
            await fetched.put(outcome)
        for _ in consumers:
            await fetched.put(None)
    print(f"\npacked: {' + '.join(str(task.result()) for task in consumers)} of {len(urls)} pages listed")


if __name__ == "__main__":
    with SiteProcess(Site(pages=30, failures=False)) as shop:
        asyncio.run(main(shop.urls()))
