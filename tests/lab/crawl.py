"""Owns how tests run a fetcher over the lab, and how they see what it leaves behind."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterable, Sequence
from typing import Any

from fetcher.client import Fetcher
from fetcher.config import Config
from fetcher.model import Exchange, Middleware, Outcome, Page, Request
from fetcher.transport.connector import StagedResolver
from fetcher.transport.session import Transport

DEADLINE = 60.0
QUICK: dict[str, Any] = {"retries": 0, "default_scheme": "http", "robots": False}


async def crawl(
    urls: Iterable[str | Request],
    *,
    transport: Exchange | None = None,
    middleware: Sequence[Middleware] = (),
    deadline: float = DEADLINE,
    **options: Any,
) -> list[Outcome]:
    """Fetch all and return the outcomes in the order of the list, without retries and robots.txt unless told."""
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
    return outcome.status if isinstance(outcome, Page) else outcome.error.code


def names(table: dict[str, Any]) -> StagedResolver:
    """Return a resolver that knows a few names: an address each, addresses in turn, an error, or a function."""

    def lookup(host: str, port: int, family: int) -> list[tuple[Any, ...]]:
        answer = table[host]
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if callable(answer):
            answer = answer()
        if isinstance(answer, BaseException):
            raise answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in answer.split()]

    return StagedResolver(lookup, ttl=0, failure_ttl=0)


async def with_names(table: dict[str, Any], urls: list[str], **options: Any) -> list[Outcome]:
    """Fetch in turn by a transport whose resolver is ours."""
    options = {"retries": 0, "robots": False, **options}
    transport = Transport(Config.of(**options), resolver=names(table))
    try:
        return [await one(url, transport=transport, **options) for url in urls]
    finally:
        await transport.close()


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
