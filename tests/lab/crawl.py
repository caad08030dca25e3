"""Owns how tests run a fetcher over the lab, and how they see what it leaves behind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from typing import Any

from fetcher.client import Fetcher
from fetcher.config import Config
from fetcher.model import Exchange, Middleware, Outcome, Request

DEADLINE = 60.0
QUICK: dict[str, Any] = {"retries": 0, "default_scheme": "http"}


async def crawl(
    urls: Iterable[str | Request],
    *,
    transport: Exchange | None = None,
    middleware: Sequence[Middleware] = (),
    deadline: float = DEADLINE,
    **options: Any,
) -> list[Outcome]:
    """Fetch all and return the outcomes in the order of the list, without retries unless told."""
    config = Config.of(**QUICK | options)
    async with (
        asyncio.timeout(deadline),
        Fetcher(config, transport=transport, middleware=middleware) as fetcher,
        fetcher.stream(urls, ordered=True) as outcomes,
    ):
        return [outcome async for outcome in outcomes]


async def one(url: str | Request, **options: Any) -> Outcome:
    """Fetch one URL and return its outcome."""
    (outcome,) = await crawl([url], **options)
    return outcome


def code_of(outcome: Outcome) -> str | int:
    """Return the status of a page, the code of a failure."""
    return outcome.status if outcome.ok else outcome.error.code  # type: ignore[union-attr,return-value]  # ok tells which


def open_sockets() -> set[str]:
    """Return the sockets and pipes this process holds, by the kernel's names."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            name = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if not name.startswith("/"):
            found.add(f"{number} {name}")
    return found
