"""Prices of a shop, as a table in SQLite: a shopkeeper's job, without code for the pages.

The idea: rules say what is wanted (``NAME=CSS:TYPE``), the output's suffix says into what, and SQL asks the questions.
The same on the command line:

    fetcher crawl shop.txt -o prices.sqlite --select 'name=h1.name' --select 'price=p > .price:price' \
        --select 'image=img.hero@src' --select 'tags[]=.tag'

    python examples/shop_prices.py
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from fetcher import Fetcher, Job
from fetcher.demo import Site, SiteProcess

RULES = {"name": "h1.name", "price": "p > .price:price", "image": "img.hero@src", "tags[]": ".tag"}


async def crawl(urls: list[str], table: Path) -> None:
    """Fetch the pages into a table; the same again would go on where this was killed."""
    async with Fetcher(select=RULES) as fetcher, Job(fetcher, table) as job:
        stats = await job.run(urls)
    print(f"{stats.ok} pages, {stats.failed} failed")


def show(table: Path) -> None:
    """Ask the table: the cheapest and the dearest of each currency, and the tag that most have."""
    with closing(sqlite3.connect(table)) as db:
        for row in db.execute(
            "SELECT price_currency, count(*), min(price), max(price) FROM pages WHERE price IS NOT NULL"
            " GROUP BY price_currency ORDER BY 2 DESC"
        ):
            print("{:>4} {:3} products from {:8.2f} to {:8.2f}".format(*row))
        cheapest = "SELECT name, price, image FROM pages WHERE price_currency = '£' ORDER BY price, id LIMIT 3"
        for name, price, image in db.execute(cheapest):
            print(f"{price:8.2f} {name:<28} {image.rpartition('/')[2]}")
        tag, many = db.execute("SELECT value, count(*) FROM tags GROUP BY value ORDER BY 2 DESC, 1").fetchone()
        print(f"the tag that most have: {tag} ({many})")


if __name__ == "__main__":
    with (
        SiteProcess(Site(hosts=4, latency=(0.0, 0.01), failures=False)) as shop,
        tempfile.TemporaryDirectory() as folder,
    ):
        prices = Path(folder, "prices.sqlite")
        asyncio.run(crawl(shop.urls(), prices))
        show(prices)
