"""The one-liners for programs without a loop: each makes one, runs, and takes it down."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from fetcher.client import Fetcher
from fetcher.config import Config
from fetcher.intake import Row
from fetcher.model import Outcome, Page

__all__ = ["fetch", "fetch_all"]

T = TypeVar("T")


def fetch(url: str, config: Config | None = None) -> Page:
    """Fetch one URL, blocking. Raises ``FetchError``.

    >>> page = fetch("https://example.com")  # doctest: +SKIP
    """

    async def main() -> Page:
        async with Fetcher(config) as fetcher:
            return await fetcher.fetch(url)

    return _blocking(main())


def fetch_all(urls: Iterable[Row], config: Config | None = None) -> list[Outcome]:
    """Fetch all URLs, blocking, and return their outcomes in the order of the list: a ``Page`` or a ``Failure`` each.

    >>> pages = fetch_all(["https://example.com", "https://example.org"])  # doctest: +SKIP
    """

    async def main() -> list[Outcome]:
        async with Fetcher(config) as fetcher, fetcher.stream(urls, ordered=True) as outcomes:
            return [outcome async for outcome in outcomes]

    return _blocking(main())


def _blocking(main: Coroutine[Any, Any, T]) -> T:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(main)
    main.close()
    raise RuntimeError("a loop is running here: use 'async with Fetcher()' instead of the blocking call")
