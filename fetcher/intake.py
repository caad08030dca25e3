"""What becomes of a row before it is a request: numbered, assigned to its shard, parsed, told from its duplicates, counted.

Law 1: a row that is no URL, or the second of its kind, is an outcome too; one of another shard is none of this run's.
Law 3: rows are taken one by one, and what has been seen is remembered on disk beyond a few megabytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Iterator
from typing import Any, Self, TypeAlias

import msgspec

from fetcher.buckets import Shard
from fetcher.config import Config, Follow
from fetcher.errors import FetchError, InvalidURL, Skipped
from fetcher.model import Request
from fetcher.request_state import RequestState
from fetcher.sources.rows import BadRow, FinishedRow
from fetcher.stats import Stats
from fetcher.urls import Target, erase_userinfo, hide_userinfo, identity, parse

__all__ = ["Followed", "Intake", "Rejected", "Row", "without_secrets"]

Row: TypeAlias = str | Request | BadRow | FinishedRow | RequestState

ELSEWHERE_A_TURN = 1024  # rows of other shards, before the loop may turn
SLICE = 128  # rows taken from a plain iterable before the loop may turn
CACHE = 8 * 1024 * 1024  # bytes of what has been seen that stay in memory

_TURN = FinishedRow()  # nothing to fetch: it gives the event loop a turn
_NOWHERE = Target("", "http", "", 0)


class Followed(msgspec.Struct, frozen=True):
    """Rows, and by which ``rules`` the links of their pages become rows too; made by ``fetcher.follow``."""

    rows: Iterable[Row] | AsyncIterable[Row]
    rules: Follow


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


class ShardRows:
    """The rows of a list that are of one shard. A text becomes the ``Request`` of its place in the whole list.

    A row that is no URL is of one shard too, by its text. ``config.limits.rows`` counts rows of the whole list.
    ``stats.elsewhere`` counts the rows of other shards; every so many of them a ``FinishedRow`` gives the loop a turn.
    """

    def __init__(self, shard: Shard, config: Config, stats: Stats) -> None:
        self._shard = shard
        self._scheme = config.default_scheme
        self._limit = config.limits.rows
        self._stats = stats
        self._read = 0

    def of(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Yield those of a plain iterator."""
        for row in rows:
            kept = self._unless_elsewhere(row)
            if kept is not None:
                yield kept
            if self._read == self._limit:
                return

    async def of_async(self, rows: AsyncIterator[Row]) -> AsyncIterator[Row]:
        """Yield those of an asynchronous one."""
        async for row in rows:
            kept = self._unless_elsewhere(row)
            if kept is not None:
                yield kept
            if self._read == self._limit:
                return

    def _unless_elsewhere(self, row: Row) -> Row | None:
        if isinstance(row, FinishedRow):
            return row
        self._read += 1
        if isinstance(row, str):
            row = Request(self._read, row.strip())
        if self._has(row):
            return row
        self._stats.elsewhere += 1
        return _TURN if self._stats.elsewhere % ELSEWHERE_A_TURN == 0 else None

    def _has(self, row: Request | BadRow | RequestState) -> bool:
        if isinstance(row, BadRow):
            return self._shard.has_text(row.request.url)
        if not isinstance(row, Request):
            raise _no_row(self._read, row)
        try:
            return self._shard.has(parse(row.url, self._scheme).host)
        except InvalidURL:
            return self._shard.has_text(row.url)


def _no_row(order: int, row: object) -> TypeError:
    return TypeError(f"row {order} is neither a str nor a Request: {row!r:.200}")


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
        self._whole = self._later, self._now  # what a shard is taken of
        if config.shard is not None:
            rows = ShardRows(config.shard, config, stats)
            if self._now is not None:
                self._now = rows.of(self._now)
            elif self._later is not None:
                self._later = rows.of_async(self._later)
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
            if isinstance(request, RequestState):  # another process has taken it in, and gave it to us
                return request
            raise _no_row(order, row)
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
        for later, now in ((self._later, self._now), self._whole):  # closing is harmless twice
            if isinstance(later, AsyncGenerator):
                await later.aclose()
            elif later is not None and (close := getattr(later, "aclose", None)):
                await close()
            if isinstance(now, Generator):
                now.close()
