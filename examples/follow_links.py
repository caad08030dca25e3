"""Follow links: from one page to all of a site, each page once, and how far each is from the first.

The idea: a list is a source of rows, and so is ``follow``: it adds what the pages link to, by rules of yours. Each row
knows who named it first, so the way back to the start is a walk over a dict. On the command line it is ``--follow``,
``--follow-css a.next`` goes from each page of a list to the next one, and with ``--from sitemap`` a sitemap is the start.

    python examples/follow_links.py [URL ...]
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter

from fetcher import Fetcher, follow
from fetcher.demo import Site, SiteProcess


async def walk(urls: list[str]) -> None:
    """Print how many pages are how many links away, and the way to the last of them."""
    named_by: dict[str, str | None] = {}
    depths: Counter[int] = Counter()
    source = follow(urls, depth=5, exclude=["*/go/*", "re:[?&]sort="], max_pages=1_000)
    async with Fetcher() as fetcher, fetcher.stream(source) as outcomes:
        async for outcome in outcomes:
            found = outcome.request.discovery
            if found is not None:
                named_by[outcome.request.url] = found.referrer
                depths[found.depth] += 1
    for depth, pages in sorted(depths.items()):
        print(f"{depth} links away: {pages:>4} pages {'█' * (pages // 4 + 1)}")
    url: str | None = list(named_by)[-1] if named_by else None
    while url is not None:
        print(f"  …/{url.split('/', 3)[-1]}")
        url = named_by.get(url)


if __name__ == "__main__":
    if given := sys.argv[1:]:
        asyncio.run(walk(given))
    else:
        with SiteProcess(Site(hosts=1, pages=120, latency=(0.0, 0.0))) as shop:
            asyncio.run(walk([f"http://127.0.0.1:{shop.port}/"]))
