"""Blocking work beside fetching: on the loop, in a thread, in a process, and what each does to the loop.

The idea: while a plain function computes, the loop stands still: no page is read, no timeout is kept. A thread
(``asyncio.to_thread``) keeps the loop alive, yet shares Python's lock with it: right for what waits or releases the
lock (files, databases, zlib). A process has a lock of its own: right for computing in Python, when what goes there
and back is small. A clock that ticks beside the work tells by how much the loop was late.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor

from fetcher import Fetcher, Page, Response
from fetcher.demo import Site, SiteProcess


def body_of(response: Response) -> bytes:
    """Keep the body: what an extractor returns becomes ``Page.data``."""
    return response.body


def score(body: bytes) -> int:
    """Compute for some hundredths of a second, as a model or a parser in Python would."""
    return max(sum(byte * factor for byte in body) % 9973 for factor in range(10 + 200_000 // len(body)))


async def tick(waits: list[float]) -> None:
    """Be a clock: note how long each tick took, in seconds."""
    while began := time.perf_counter():
        await asyncio.sleep(0.001)
        waits.append(time.perf_counter() - began)


async def measure(urls: list[str], name: str, work: Callable[[bytes], Awaitable[int]]) -> None:
    """Work on each page while the next are on their way."""
    waits: list[float] = []
    clock = asyncio.create_task(tick(waits))
    async with Fetcher(extract=body_of) as fetcher, fetcher.stream(urls) as outcomes:
        scores = [await work(outcome.data) async for outcome in outcomes if isinstance(outcome, Page)]
    clock.cancel()
    print(f"{name:8}{len(scores)} pages, the longest tick: {max(waits):.3f} s {'█' * round(200 * max(waits))}")


async def here(body: bytes) -> int:
    """Do it on the loop: the word ``async`` alone does not make it any lighter."""
    return score(body)


if __name__ == "__main__":  # a new process imports this file: nothing else may happen then
    spawn = multiprocessing.get_context("spawn")
    with SiteProcess(Site(pages=12, failures=False)) as shop, ProcessPoolExecutor(1, spawn) as pool:
        pool.submit(score, b"wake up").result()
        asyncio.run(measure(shop.urls(), "loop", here))
        asyncio.run(measure(shop.urls(), "thread", lambda body: asyncio.to_thread(score, body)))
        asyncio.run(measure(shop.urls(), "process", lambda body: asyncio.wrap_future(pool.submit(score, body))))
