"""A pool of threads beside a gather: the same pages, and when each is right.

The idea: the blocking ``fetch`` in a ``ThreadPoolExecutor`` suits a program that blocks anyway and has some tens of
URLs: no ``async`` anywhere. Each call is a client of its own, though: it connects anew, asks for robots.txt anew, and
nobody counts what one host has to bear. A gather in one loop, here ``fetch_all``, is right for anything longer: one
thread, connections used again, and ``per_host`` holds for all of it. The last column is the site's own count of
requests at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from fetcher import Config, FetchError, Outcome, Page, fetch, fetch_all
from fetcher.demo import Site, SiteProcess

THREADS, PER_HOST = 16, 4


def attempt(url: str) -> Page | FetchError:
    """Fetch one page in whatever thread this is; trouble with it is its own."""
    try:
        return fetch(url)
    except FetchError as error:
        return error


def by_threads(urls: list[str]) -> Sequence[Page | FetchError]:
    """Let each thread fetch one page after the other: every call opens a loop, a client and a connection."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(attempt, urls))


def by_gather(urls: list[str]) -> Sequence[Outcome]:
    """Let one thread and one client do it."""
    return fetch_all(urls, Config.of(per_host=PER_HOST))


def measure(name: str, way: Callable[[list[str]], Sequence[object]], shop: SiteProcess) -> None:
    """Fetch the whole shop, and say what that cost us and its hosts."""
    seen, began, computed = len(shop.log()), time.perf_counter(), time.process_time()
    pages = sum(isinstance(result, Page) for result in way(shop.urls()))
    wall, cpu = time.perf_counter() - began, time.process_time() - computed
    at_once = max(visit["host_in_flight"] for visit in shop.log()[seen:])
    print(f"{name:10}{pages:5}{wall:10.2f} s{1000 * cpu / pages:10.1f} ms{at_once:10}")


if __name__ == "__main__":
    with SiteProcess(Site(hosts=3, pages=60, failures=False)) as shop:
        attempt(shop.urls(1)[0])  # what is imported at the first call is nobody's merit or fault
        print(f"{'':10}pages        wall    CPU a page    at once on one host")
        measure("threads", by_threads, shop)
        measure("gather", by_gather, shop)
    print(f"\n{THREADS} threads know nothing of each other; per_host={PER_HOST} is a promise, and kept.")
