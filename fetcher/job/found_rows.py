"""The rows found by a job: rows of its ledger, written in the transaction of the page that named them.

Law 6: a row is handed out once it is in the ledger, and a run that goes on reads from there what has no outcome.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

from fetcher.config import Follow
from fetcher.found.rows import FoundRows
from fetcher.found.store import NamedLinks, look_up
from fetcher.job.ledger import Discovered, Ledger
from fetcher.job.ledger_reader import MAX_NUMBER_BYTES
from fetcher.job.schema import attach, explained
from fetcher.model import Request
from fetcher.stats import Stats

__all__ = ["LedgerRows"]


class LedgerRows(FoundRows):
    """Those of the job whose ``ledger`` is open. ``in_thread`` runs what touches it in the thread that writes.

    ``commit_soon`` is called when rows are short.
    """

    def __init__(
        self,
        rules: Follow,
        stats: Stats,
        *,
        ledger: Ledger,
        concurrency: int,
        in_thread: Callable[[Callable[[], Any]], Awaitable[Any]],
    ) -> None:
        super().__init__(rules, stats, concurrency=concurrency, unread=ledger.unfinished())
        assert ledger.found is not None
        stats.following = ledger.found.state
        self.commit_soon: Callable[[], None] = lambda: None
        self._ledger = ledger
        self._key = ledger.found.key
        self._in_thread = in_thread
        self._committing: frozenset[str] = frozenset()  # what the commit under way makes rows of, perhaps
        self._found_any = ledger.found.state.found > 0
        self._db: sqlite3.Connection | None = None

    def discovered(self, pages: list[NamedLinks]) -> Discovered:
        """Return what is to be noted with a commit that begins now, and that names these ``pages``."""
        if self.listing:
            self._committing = frozenset(url for page in pages for url in page.links.urls)
        return Discovered(self.take_listed(), pages)

    def settled(self, rows: int, added: int) -> None:
        """Note that a commit has ended."""
        self._committing = frozenset()
        self._found_any = self._found_any or added > 0
        super().settled(rows, added)

    def close(self) -> None:
        """Close the connection that URLs are looked up by: an open one would keep the journal."""
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def _hurry(self) -> None:
        if self.is_short:
            self.commit_soon()

    async def _steady(self, url: str) -> None:
        while url in self._committing and self._error is None:
            await self.change()

    def _is_found(self, url: str) -> bool:
        if not self._found_any:
            return False
        with explained(self._ledger.path, "read"):
            if self._db is None:
                self._db = attach(self._ledger.path, write=False, longest=MAX_NUMBER_BYTES)
            return look_up(self._db, self._key, url)

    async def _pending(self, after: int, most: int) -> list[Request]:
        rows: list[Request] = await self._in_thread(lambda: self._ledger.found_rows(after, most))
        return rows
