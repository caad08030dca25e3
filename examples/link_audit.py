"""A link audit: which links of a site are broken, and on which pages they stand.

The idea: one crawl reads the links of the pages, a second one asks where each distinct link leads, by HEAD, so that no
body is sent. What fails is a value like any other, so the report is two loops.

    python examples/link_audit.py
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from fetcher import Failure, Fetcher, Page
from fetcher.demo import Site, SiteProcess


async def links_of(urls: list[str]) -> dict[str, set[str]]:
    """Return each link of the list and of its pages, and where it stands."""
    found: dict[str, set[str]] = defaultdict(set, {url: {"the list"} for url in urls})
    async with Fetcher(select={"links[]": "a@href"}) as fetcher, fetcher.stream(urls) as outcomes:
        async for outcome in outcomes:
            for link in outcome.data["links"] if isinstance(outcome, Page) and outcome.data else ():
                if link.startswith("http"):  # and not mailto:
                    found[link.partition("#")[0]].add(outcome.request.url)
    return found


async def audit(urls: list[str]) -> None:
    """Print what is broken."""
    found = await links_of(urls)
    async with Fetcher(head=True) as fetcher, fetcher.stream(found) as outcomes:
        broken = [outcome async for outcome in outcomes if isinstance(outcome, Failure)]
    print(f"{len(urls)} pages have {len(found)} distinct links, {len(broken)} of them broken")
    for failure in broken:
        pages = found[failure.request.url]
        print(f"  {failure.error.code} …/{failure.request.url.rpartition('/')[2]} on {', '.join(sorted(pages))}")


if __name__ == "__main__":
    with SiteProcess(Site(hosts=1, pages=60, latency=(0.0, 0.0))) as shop:
        asyncio.run(audit(shop.urls()))
