"""The rows that were found, as whoever takes rows in sees them: one more source, which ends when nothing can add to it.

Laws: a link counts as ``input`` from the moment that it is a row on (1); what is wrong with where they are kept ends
the run, and nobody waits for it (2); few of them are in memory (3).
"""

from __future__ import annotations

import asyncio
import sqlite3
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import TypeVar

import msgspec

from fetcher.config.policies import Follow
from fetcher.errors import SinkError
from fetcher.found.store import LISTED_IDS, FoundStore, ListedURL, NamedLinks
from fetcher.model import Outcome, Page, Request
from fetcher.stats import Stats
from fetcher.urls import lacks_scheme

__all__ = ["FoundRows", "TemporaryRows", "links_of", "without_links"]

T = TypeVar("T")
READ_ROWS = 1_000  # at once


def links_of(outcome: Outcome) -> NamedLinks | None:
    """Return what is to be noted of an outcome: the links of a page, and where a row without a scheme led to."""
    if not isinstance(outcome, Page) or outcome.request.discovery is None:
        return None
    request, links, discovery = outcome.request, outcome.found, outcome.request.discovery
    if links is None:
        return None
    known = outcome.url if not discovery.depth and lacks_scheme(request.url) else None
    return NamedLinks(request.id, outcome.url, discovery, links, known)


def without_links(outcome: Outcome) -> Outcome:
    """Return an outcome without its links, once they are rows."""
    if not isinstance(outcome, Page) or outcome.found is None:
        return outcome
    return msgspec.structs.replace(outcome, found=None)


class FoundRows(ABC):
    """The rows found by one stream. ``stats`` counts them as they come.

    Whoever takes rows in calls ``gave`` for each that it hands out, of the list too; each outcome is to be ``wrote``
    and its row ``settled``, in whatever order. A row of the list is a ``duplicate`` where it was found before.
    """

    def __init__(self, rules: Follow, stats: Stats, *, concurrency: int, unread: int = 0) -> None:
        self.rules = rules
        self.listing = True
        """Whether there may be more rows of the list."""
        self._stats = stats
        self._enough = max(1, 3 * concurrency // 4)  # rows under way with which nobody is short of rows
        self._under_way = self._unsettled = 0
        self._unread = unread
        self._last = LISTED_IDS  # the last row that was read
        self._ready: deque[Request] = deque()
        self._listed: list[ListedURL] = []
        self._waiting: asyncio.Future[None] | None = None
        self._short = False
        self._error: BaseException | None = None

    @property
    def available(self) -> bool:
        """Whether there is a row to be had at once, or an error."""
        return bool(self._ready) or self._unread > 0 or self._error is not None

    @property
    def is_short(self) -> bool:
        """Whether the slots run out of rows, so that what was found is needed now."""
        return self._short and self._under_way < self._enough

    async def next(self, *, wait: bool) -> Request | None:
        """Return the next row; ``None`` where there can be none any more, or without ``wait`` where there is none now."""
        while True:
            if self._error is not None:
                raise self._error
            if self._ready:
                return self._ready.popleft()
            if self._unread:
                await self._read()
                continue
            if not wait or not self._unsettled:
                return None
            await self.change()

    async def change(self) -> None:
        """Wait until rows were settled. Several may wait."""
        self._short = True
        self._hurry()
        if self._waiting is None or self._waiting.done():
            self._waiting = asyncio.get_running_loop().create_future()
        try:
            await asyncio.shield(self._waiting)
        finally:
            self._short = False

    def gave(self) -> None:
        """Note that a row was handed out."""
        self._under_way += 1
        self._unsettled += 1

    async def duplicates(self, listed: ListedURL) -> bool:
        """Say whether a row of the list was found before; else it is not found from now on."""
        await self._steady(listed.url)
        if self._error is None and self._is_found(listed.url):
            return True
        self._listed.append(listed)
        return False

    def take(self, outcome: Outcome) -> Outcome:
        """Note the links of an outcome that is handed to the caller, and return it without them."""
        return outcome

    def close(self) -> None:  # noqa: B027  (not all have something to close)
        """Let go of what is open. Harmless twice."""

    # For whoever keeps them

    def wrote(self) -> None:
        """Note that an outcome was taken."""
        self._under_way -= 1

    def take_listed(self) -> list[ListedURL]:
        """Return the rows of the list that were taken since the last time."""
        listed, self._listed = self._listed, []
        return listed

    def settled(self, rows: int, added: int) -> None:
        """Note that so many rows have their outcome kept, and that so many were found on their pages."""
        self._unsettled -= rows
        self._unread += added
        self._stats.input += added
        self._wake()

    def failed(self, error: BaseException) -> None:
        """Note that no further row can be kept: whoever waits for one is told."""
        self._error = self._error or error
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def _read(self) -> None:
        rows = await self._pending(self._last, READ_ROWS)
        self._unread = max(0, self._unread - len(rows)) if rows else 0
        if rows:
            self._last = rows[-1].id
            self._ready.extend(rows)

    def _hurry(self) -> None:  # noqa: B027  (not all can)
        """Bring about that what was found so far are rows soon."""

    async def _steady(self, url: str) -> None:  # noqa: B027  (as above)
        """Wait until it is known whether there is a row of a URL."""

    @abstractmethod
    def _is_found(self, url: str) -> bool: ...

    @abstractmethod
    async def _pending(self, after: int, most: int) -> list[Request]: ...


class TemporaryRows(FoundRows):
    """Those of a run without a job: in a file without a name, which is gone with the run."""

    def __init__(self, rules: Follow, stats: Stats, *, concurrency: int) -> None:
        super().__init__(rules, stats, concurrency=concurrency)
        self._store = _guarded(lambda: FoundStore.temporary(rules))
        stats.following = self._store.state

    def take(self, outcome: Outcome) -> Outcome:
        """Make rows of its links at once."""
        self.wrote()
        links = links_of(outcome)
        added = 0
        if links is not None or len(self._listed) >= READ_ROWS:
            added = _guarded(lambda: self._store.add(self.take_listed(), [] if links is None else [links]))
        self.settled(1, added)
        return without_links(outcome)

    def close(self) -> None:
        """Drop it all."""
        self._store.close()

    def _is_found(self, url: str) -> bool:
        return self._store.state.found > 0 and _guarded(lambda: self._store.is_found(url))

    async def _pending(self, after: int, most: int) -> list[Request]:
        if after > LISTED_IDS:
            _guarded(lambda: self._store.forget(after))
        return _guarded(lambda: self._store.pending(after, most))


def _guarded(act: Callable[[], T]) -> T:
    try:
        return act()
    except sqlite3.Error as error:
        raise SinkError(f"cannot keep the links that were found: {error}") from error
