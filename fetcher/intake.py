"""What becomes of a row before it is a request: numbered, parsed, told from its duplicates, counted.

Law 1: a row that is no URL, or the second of its kind, is an outcome too. Law 3: rows are taken one by one,
and what has been seen is remembered on disk beyond a few megabytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Iterator
from typing import Any, Self, TypeAlias

import msgspec

from fetcher.config import Config
from fetcher.errors import FetchError, InvalidURL, Skipped
from fetcher.model import Request
from fetcher.request_state import RequestState
from fetcher.sources.rows import BadRow, FinishedRow
from fetcher.stats import Stats
from fetcher.urls import Target, erase_userinfo, hide_userinfo, identity, parse

__all__ = ["Intake", "Rejected", "Row", "without_secrets"]

Row: TypeAlias = str | Request | BadRow | FinishedRow

SLICE = 128  # rows taken from a plain iterable before the loop may turn
CACHE = 8 * 1024 * 1024  # bytes of what has been seen that stay in memory

_NOWHERE = Target("", "http", "", 0)


class Rejected(msgspec.Struct, frozen=True):
    """A row that ends without a request."""

    state: RequestState
    error: FetchError


def without_secrets(request: Request) -> Request:
    """Return a row without the user name and password of its URL: those are the ``Target``'s, and nobody else sees them."""
    if "@" not in request.url:
        return request
    return msgspec.structs.replace(request, url=erase_userinfo(request.url))


def _shown(error: InvalidURL) -> InvalidURL:
    """Return what is wrong with a bad row, which may quote the list."""
    message = hide_userinfo(error.message, "***")
    return error if message == error.message else InvalidURL(message=message)


class Seen:
    """The set of URLs so far, as 16-byte digests in a temporary database that spills to disk."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)  # "": a file of its own, deleted by itself
        self._database.execute(f"pragma cache_size = -{CACHE // 1024}")
        self._database.execute("pragma journal_mode = off")
        self._database.execute("create table seen (digest blob primary key) without rowid")
        self._database.execute("begin")  # never ended: each commit would go through all pages in memory

    def add(self, url: str) -> bool:
        """Note a URL; say whether it is new."""
        digest = hashlib.blake2b(url.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        return self._database.execute("insert or ignore into seen values (?)", (digest,)).rowcount == 1

    def close(self) -> None:
        """Drop it all."""
        self._database.close()


class Intake:
    """An async iterator over a source: ``RequestState`` for what may start, ``Rejected`` for what ends here.

    ``pause`` says that whoever reads should let others run now: after every row of an async source, whose next
    may take long, and after every few of a plain one.
    """

    def __init__(self, source: Iterable[Row] | AsyncIterable[Row], config: Config, stats: Stats) -> None:
        self._later: AsyncIterator[Row] | None = None
        self._now: Iterator[Row] | None = None
        if isinstance(source, str | bytes | Request):
            raise TypeError("the source is one URL: give a list of them, or fetch() it")
        if isinstance(source, AsyncIterable):
            self._later = aiter(source)
        else:
            self._now = iter(source)
        self._config = config
        self._stats = stats
        self._passed = 0
        self._count = 0  # the stats may be a job's, with the rows of earlier runs in them
        self._seen = Seen() if config.dedupe else None
        self.pause = self._later is not None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RequestState | Rejected:
        if self._count == self._config.limits.rows:
            self._stats.more = False  # the first rows are the input
            raise StopAsyncIteration
        if self._count % SLICE == 0:
            await asyncio.sleep(0)  # a source that never waits would leave nobody else a turn
        row = await self._next()
        while isinstance(row, FinishedRow):
            self._pass(row)
            self._passed += 1
            if row.request is None or self._passed % SLICE == 0:
                await asyncio.sleep(0)
            row = await self._next()
        self.pause = self._now is None or self._count % SLICE == SLICE - 1
        self._stats.input += 1
        self._count += 1
        return self._take(row)

    async def _next(self) -> Any:
        try:
            if self._now is None:
                assert self._later is not None
                return await anext(self._later)
            for row in self._now:
                return row
        except StopAsyncIteration:
            pass
        self._stats.more = False
        raise StopAsyncIteration

    def _pass(self, row: FinishedRow) -> None:
        if self._seen is not None and row.request is not None:
            with contextlib.suppress(InvalidURL):  # it is no URL's duplicate
                self._seen.add(identity(row.request.url, self._config.default_scheme))

    def _take(self, row: Row) -> RequestState | Rejected:
        order = self._count
        if isinstance(row, BadRow):
            return Rejected(RequestState(without_secrets(row.request), _NOWHERE, order), _shown(row.error))
        request = Request(order, row.strip()) if isinstance(row, str) else row
        if not isinstance(request, Request):
            raise TypeError(f"row {order} is neither a str nor a Request: {row!r:.200}")
        shown = without_secrets(request)
        try:
            state = RequestState(shown, parse(request.url, self._config.default_scheme), order)
            if self._seen is not None and not self._seen.add(identity(request.url, self._config.default_scheme)):
                return Rejected(state, Skipped("duplicate", "an earlier row has the same URL"))
        except InvalidURL as error:
            return Rejected(RequestState(shown, _NOWHERE, order), error)
        return state

    async def close(self) -> None:
        """End the source."""
        if self._seen is not None:
            self._seen.close()
        if isinstance(self._later, AsyncGenerator):
            await self._later.aclose()
        elif self._later is not None and (close := getattr(self._later, "aclose", None)):
            await close()
        if isinstance(self._now, Generator):
            self._now.close()
