"""Looking into what is in flight: every running request with its URL, its stage and its age, while it runs.

The idea: when a crawl seems to hang, the question is *what* it is waiting for, and where. ``fetcher.in_flight()``
answers at any time, from any task: the rows that run now, each with its stage (connecting, reading, in backoff, at
the gate for its host), how long it has been at that, and how long it has been running in all. It is a look, not a
lock: nothing stops for it. The ``fetcher crawl`` of the command line prints the same on SIGUSR1.

    python examples/in_flight.py [URL ...]
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter

from fetcher import Config, Fetcher
from fetcher.demo import Site, SiteProcess


async def look(fetcher: Fetcher) -> None:
    """Print a table of the longest-running requests now and then."""
    while True:
        await asyncio.sleep(0.3)
        rows = sorted(fetcher.in_flight(), key=lambda row: row.age, reverse=True)
        stages = ", ".join(f"{count} {stage}" for stage, count in Counter(row.stage for row in rows).most_common())
        print(f"\n{len(rows)} in flight: {stages or 'nothing'}")
        for row in rows[:5]:
            bar = "█" * round(20 * row.age)
            print(f"  row {row.id:<3} {row.stage:11} {row.in_stage:5.2f} of {row.age:5.2f} s  {row.url:48} {bar}")


async def main(urls: list[str]) -> None:
    """Fetch the list with somebody looking on."""
    async with Fetcher(Config.of(concurrency=12, per_host=3)) as fetcher:
        watcher = asyncio.create_task(look(fetcher))
        async with fetcher.stream(urls) as outcomes:
            async for _ in outcomes:
                pass
        watcher.cancel()
        stats = outcomes.stats
    print(
        f"\nall landed: {stats.ok} pages, {stats.failed} failed {dict(stats.codes)}, in flight: {fetcher.in_flight()}"
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(sys.argv[1:]))
    else:
        with SiteProcess(Site(hosts=4, pages=24, latency=(0.1, 0.4))) as shop:
            asyncio.run(main(shop.urls()))
