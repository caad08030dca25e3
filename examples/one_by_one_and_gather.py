"""One by one and gather, side by side: the same pages in the same order, and what waiting in line costs.

The idea: ``await`` in a loop asks for a page only when the one before has come, so the times add up. ``gather``
has them all on their way at once, so the time is that of the slowest. An ordered ``stream`` gives what gather
gives, but holds only a window of the list, is polite to each host, and keeps a failure as a value in its place.

    python examples/one_by_one_and_gather.py [URL ...]
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Sequence

from fetcher import Fetcher, Outcome, Page
from fetcher.demo import Site, SiteProcess


async def by_stream(urls: list[str], *, sequentially: bool) -> list[Outcome]:
    """Take the outcomes in the order of the list, fetched one after the other or all together."""
    async with Fetcher() as fetcher, fetcher.stream(urls, ordered=True, sequentially=sequentially) as outcomes:
        return [outcome async for outcome in outcomes]


async def by_gather(urls: list[str]) -> list[Page | BaseException]:
    """Do the same by hand: a task for each URL, and an exception where a page is not to be had."""
    async with Fetcher() as fetcher:
        return await asyncio.gather(*map(fetcher.fetch, urls), return_exceptions=True)


async def main(urls: list[str]) -> None:
    """Fetch the list in three ways and compare."""
    ways: dict[str, Awaitable[Sequence[object]]] = {
        "one by one": by_stream(urls, sequentially=True),
        "gather": by_gather(urls),
        "stream, ordered": by_stream(urls, sequentially=False),
    }
    titles, first = [], 0.0
    for name, way in ways.items():
        began = time.perf_counter()
        pages = await way
        took = time.perf_counter() - began
        first = first or took
        titles.append([getattr(page, "title", None) for page in pages])
        print(f"{name:16}{took:6.2f} s {first / took:5.1f} × {'█' * max(1, round(50 * took / first))}")
    same = "the same pages in the same order" if titles[0] == titles[1] == titles[2] else "pages that have changed"
    print(f"\n{len(urls)} URLs, three times {same}; the first are:")
    print(*(f"  {place}. {title}" for place, title in enumerate(titles[0][:5], 1)), sep="\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(sys.argv[1:]))
    else:
        with SiteProcess(Site(pages=30, failures=False)) as shop:
            asyncio.run(main(shop.urls()))
