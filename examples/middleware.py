"""Middleware: what stands around every request and needs to know nothing of the rest.

The idea: a middleware is ``async (request, proceed) -> Response``. What it does before ``await proceed(…)`` is about
the request, what it does after is about the response. It may send on a changed request, or answer without asking.
The first of the list is outermost. All stand around the retries and robots.txt, and see nothing of them, but a row
that must wait for over a second leaves and comes again. One that remembers something is an object with ``__call__``.
"""

from __future__ import annotations

import asyncio
import time

import msgspec

from fetcher import Exchange, Fetcher, Request, Response
from fetcher.demo import Site, SiteProcess


async def measured(request: Request, proceed: Exchange) -> Response:
    """Print how long each row took that became a page; an error goes on its way."""
    began = time.perf_counter()
    response = await proceed(request)
    took = 1000 * (time.perf_counter() - began)
    print(f"{took:8.1f} ms {len(response.body):8,} bytes   {request.url}")
    return response


class Cache:
    """Answer from memory what has been answered before."""

    def __init__(self) -> None:
        self.kept: dict[str, Response] = {}

    async def __call__(self, request: Request, proceed: Exchange) -> Response:
        """Ask once for each URL."""
        if request.url not in self.kept:
            self.kept[request.url] = await proceed(request)
        return self.kept[request.url]


async def signed(request: Request, proceed: Exchange) -> Response:
    """Add a token: to a changed copy, for a request itself never changes."""
    return await proceed(msgspec.structs.replace(request, headers=(("Authorization", "Bearer bean"),)))


async def main(urls: list[str]) -> None:
    """Fetch the list, and then once more."""
    async with Fetcher(middleware=[measured, Cache(), signed]) as fetcher:
        for turn in ("first", "second"):
            async with fetcher.stream(urls) as outcomes:
                print(f"{sum([outcome.ok async for outcome in outcomes])} pages the {turn} time\n")


if __name__ == "__main__":
    with SiteProcess(Site(pages=30)) as shop:
        asyncio.run(main(shop.urls(8)))
        tokens = [visit["headers"].get("authorization") for visit in shop.log() if visit["path"] != "/robots.txt"]
        print(f"the shop saw {len(tokens)} requests for pages, {tokens.count('Bearer bean')} of them signed")
