"""A custom sink: every outcome into a SQLite database, and a question asked of it afterwards.

The idea: a sink is an async context manager with one method, ``write(outcome)``. ``fetcher.run(urls, sink)`` opens
it, gives it one outcome after the other, pages and failures alike, and closes it however the run ends. While
``write`` takes its time the run waits, so nothing piles up. An output that cannot be written is a ``SinkError``: it
ends the run, for data would be lost. Committed when all went well, rolled back when not: the table is never torn.

    python examples/custom_sink.py [URL ...]
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from typing import Self

from fetcher import Fetcher, Outcome, Page, SinkError
from fetcher.demo import Site, SiteProcess

QUESTION = "SELECT kind, count(*), avg(length) FROM pages GROUP BY kind ORDER BY 2 DESC"


class Table:
    """A sink: the table ``pages``, a row for each outcome, all of them or none."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self.database = database

    async def __aenter__(self) -> Self:
        self.database.execute("CREATE TABLE pages (url, kind, length)")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        (self.database.rollback if kind else self.database.commit)()

    async def write(self, outcome: Outcome) -> None:
        """Insert a row: its charset and its length, or the code of its error."""
        known = (outcome.charset, outcome.length) if isinstance(outcome, Page) else (outcome.error.code, None)
        try:
            self.database.execute("INSERT INTO pages VALUES (?, ?, ?)", (outcome.request.url, *known))
        except sqlite3.Error as error:
            raise SinkError(f"pages: {error}") from error


async def main(urls: list[str]) -> None:
    """Fill the table and ask which charsets the pages came in."""
    database = sqlite3.connect(":memory:")  # or the path of a file
    async with Fetcher() as fetcher:
        stats = await fetcher.run(urls, Table(database))
    for kind, count, length in database.execute(QUESTION):
        print(f"{kind:14}{count:4} {'█' * count}{f'  {length:,.0f} characters each' if length else ''}")
    print(f"\n{stats.input} URLs in, {stats.ok} pages and {stats.failed} failures in the table, {stats.pending} lost")
    database.close()


if __name__ == "__main__":
    with SiteProcess(Site(pages=100)) as shop:
        asyncio.run(main(sys.argv[1:] or shop.urls()))
