"""Stored pages read again: the way from a file of pages to outcomes, with the contract of a crawl's and no network.

Law 1: each row of the file that is no failure already is read once and ends as one outcome; the order is the file's.
Law 3: what waits for a parsing process is bounded in pages and bytes. There are no hosts here, no waits and no retries,
so a page goes straight from the file to the ``Reader``.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any, NoReturn, Self

import msgspec

from fetcher.client import Fetcher
from fetcher.config import Config
from fetcher.errors import ConnectError, ParseError, ResourceError, Skipped
from fetcher.hosts.standing import HostStanding
from fetcher.model import Extractor, Failure, Outcome, Page, Request, Response, kept_headers
from fetcher.page.parse import add_reading
from fetcher.page.reader import Reader
from fetcher.pipeline import Policies
from fetcher.request_state import Glance, InFlight, WorkerStanding
from fetcher.sources.rows import FinishedRow
from fetcher.stats import Stats
from fetcher.stored import RowsBeingRead, StoredPage

__all__ = ["Extraction", "ReadPages"]

SLICE_SECONDS = 0.005  # before the loop may turn
MAX_WAITING = 64  # pages that are with parsing processes, or behind one that is


class Extraction(Fetcher):
    """A ``Fetcher`` whose pages lie in a file: what it streams are those of a ``StoredFile``, and it asks nobody.

    >>> async def titles(path):
    ...     async with Extraction() as extraction, extraction.stream(open_stored(path).pages()) as outcomes:
    ...         return [outcome.title async for outcome in outcomes if outcome.ok]
    """

    def __init__(self, config: Config | None = None, *, extract: Extractor | None = None) -> None:
        super().__init__(config, extract=extract, transport=_refuse)

    @asynccontextmanager
    async def stream(  # type: ignore[override]  # its rows are pages
        self,
        pages: Iterable[StoredPage | FinishedRow | RowsBeingRead],
        *,
        ordered: bool = True,  # noqa: ARG002  (it always is)
        stats: Stats | None = None,
        spill_folder: str | None = None,  # noqa: ARG002  (no row waits)
        **_: Any,
    ) -> AsyncIterator[ReadPages]:
        """Open an async iterator of outcomes, in the order of the pages. ``stats`` go on where earlier runs left them."""
        outcomes = ReadPages(self.reader, self.config, pages, stats=stats)
        self._streams.append(outcomes)
        limit = self.config.limits.time
        timer = asyncio.get_running_loop().call_later(limit, outcomes.stop) if limit is not None else None
        try:
            yield outcomes
        finally:
            if timer is not None:
                timer.cancel()
            self._streams.remove(outcomes)
            await outcomes.close()


async def _refuse(request: Request) -> NoReturn:
    raise ConnectError("connect_refused", f"{request.url} is not asked for: pages are read out of a file")


class ReadPages:
    """The ``OutcomeStream`` of stored pages; ``isolate`` has all of them read in processes of their own."""

    def __init__(
        self,
        reader: Reader,
        config: Config,
        pages: Iterable[StoredPage | FinishedRow | RowsBeingRead],
        *,
        stats: Stats | None = None,
        isolate: bool = False,
    ) -> None:
        if isinstance(pages, AsyncIterable):
            raise TypeError("stored pages are read from a plain iterable")
        self.stats = stats or Stats()
        self._reader = reader
        self._config = config
        self._pages: Iterator[StoredPage | FinishedRow | RowsBeingRead] = iter(pages)
        self._left = config.limits.rows
        self._isolate = isolate
        self._waiting: deque[tuple[StoredPage, Outcome | asyncio.Task[Outcome]]] = deque()
        self._bytes = 0  # of the bodies that wait
        self._running = 0
        self._turn = 0.0
        self._stopping = False
        self._going = asyncio.Event()
        self._going.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        """Return the next outcome. Raises ``SourceError``, and what is a bug."""
        if time.monotonic() > self._turn:
            await asyncio.sleep(0)
            self._turn = time.monotonic() + SLICE_SECONDS
        while not self._stopping and (not self._waiting or (self._running and self._has_room())):
            if not self._going.is_set():
                if self._waiting:
                    break  # what has been read is handed out
                await self._going.wait()
                continue
            page = await self._next()
            if page is None:
                break
            self._start(page)
        if not self._waiting:
            raise StopAsyncIteration
        page, result = self._waiting[0]
        if isinstance(result, asyncio.Task):
            await asyncio.wait([result])
            self._running -= 1
            result = result.result()
        self._waiting.popleft()
        self._bytes -= _size_of(page)
        self.stats.enter(result)
        return result

    def _has_room(self) -> bool:
        return len(self._waiting) < MAX_WAITING and self._bytes < self._config.limits.memory

    async def _next(self) -> StoredPage | None:
        """Return the next row that is to be read, ``None`` at the end."""
        if self._left == 0:
            self.stats.more = False  # the first rows are the input
            return None
        for row in self._pages:
            if isinstance(row, FinishedRow):
                await asyncio.sleep(0)
                if self._stopping:
                    return None
                continue
            if isinstance(row, RowsBeingRead):
                waited = asyncio.wrap_future(row.future)
                await asyncio.wait([waited])
                if not waited.cancelled():
                    waited.exception()  # who yielded it looks at it
                if self._stopping:
                    return None
                continue
            if self._left is not None:
                self._left -= 1
            self.stats.input += 1
            return row
        self.stats.more = False
        return None

    def _start(self, page: StoredPage) -> None:
        """Read a page here and now, or have it read in a process of its own."""
        self._bytes += _size_of(page)
        if page.response is None or not (self._isolate or self._reader.needs_isolation(page.response)):
            try:
                self._waiting.append((page, self._read(page)))
                return
            except MemoryError:
                assert page.response is not None  # another process may have enough
        self._running += 1
        self._waiting.append((page, asyncio.create_task(self._read_isolated(page, page.response))))

    def _with_known(self, found: Page, page: StoredPage) -> Page:
        """Return a page with what was known of it before."""
        if not page.known:
            return found
        known = dict(page.known)
        known["headers"] = kept_headers(known.get("headers", ()), self._config.keep_headers)
        return msgspec.structs.replace(found, **known)

    def _read(self, page: StoredPage) -> Outcome:
        if page.response is None:
            assert page.outcome is not None
            return page.outcome
        try:
            found = self._reader.read(page.response, waited=page.waited, fetched_at=page.fetched_at)
        except (ParseError, Skipped) as error:
            return self._failure(page, page.response, error)
        return self._with_known(found, page)

    async def _read_isolated(self, page: StoredPage, response: Response) -> Outcome:
        try:
            found = await self._reader.read_isolated(response, waited=page.waited, fetched_at=page.fetched_at)
        except (ParseError, Skipped) as error:
            return self._failure(page, response, error)
        except MemoryError:
            raise ResourceError("no memory is left to parse in; a job goes on with the same command") from None
        return self._with_known(found, page)

    def _failure(self, page: StoredPage, response: Response, error: ParseError | Skipped) -> Failure:
        reading, error.reading = error.reading, None
        names = self._config.keep_headers
        failure = Failure(
            page.request,
            error.about(response.url).detach(),
            elapsed=response.elapsed,
            waited=page.waited,
            attempts=response.attempts,
            fetched_at=page.fetched_at,
        )
        return add_reading(failure, response, reading, headers=kept_headers(response.headers, names) if names else ())

    def in_flight(self) -> list[InFlight]:
        """Return nothing: no request is on its way."""
        return []

    def glance(self, most: int) -> Glance:  # noqa: ARG002  (the contract's)
        """Return nothing: see ``in_flight``."""
        return Glance({}, [])

    def standings(self, most: int) -> list[HostStanding]:  # noqa: ARG002  (the contract's)
        """Return nothing: no host is asked."""
        return []

    def worker_standings(self) -> list[WorkerStanding]:
        """Return nothing: see ``standings``."""
        return []

    def change(self, config: Config, hosts: Policies) -> None:
        """Take over other limits, of which none is for pages of a file."""

    def pause(self, *, paused: bool) -> None:
        """Begin with no further page until ``pause(paused=False)``."""
        if paused:
            self._going.clear()
        else:
            self._going.set()

    def stop(self, grace: float = 5.0) -> None:  # noqa: ARG002  (a page takes no longer than its own limit)
        """Begin with no further page."""
        self._stopping = True
        self._going.set()

    async def close(self) -> None:
        """End what is still being read, and the source."""
        tasks = [result for _, result in self._waiting if isinstance(result, asyncio.Task)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        close = getattr(self._pages, "close", None)
        if close is not None:
            close()


def _size_of(page: StoredPage) -> int:
    return len(page.response.body) if page.response is not None else 0
