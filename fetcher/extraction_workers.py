"""The ranges of a web archive, each read in a process: its bodies stay there, and its outcomes come back.

Law 1: the rows are those that one process finds, with the same numbers, and in the same order: ranges are taken up in
theirs. Law 3: the ranges under way are few, and each has a bounded number of bytes. A page that kills its process costs
nothing but itself: the ranges under way are read again, each page in a process of its own.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import msgspec

from fetcher.config import Config
from fetcher.errors import ResourceError
from fetcher.extraction import ReadPages
from fetcher.model import Extractor
from fetcher.page.reader import Reader
from fetcher.stored.page import IsFinished, PassedOverCounts, RowsBeingRead, StoredPage
from fetcher.stored.warc import BegunArchive, FailedRow, Found, StoredWARC

__all__ = ["DividedWARC"]

RANGE_BYTES = 1024 * 1024
RANGES_A_WORKER = 2  # under way: one is read, and one waits to be taken up


class ReadRange(msgspec.Struct, frozen=True):
    """What a process found in a range. Of pages that were only to be counted there is the request alone."""

    items: list[Found]
    broken: PassedOverCounts


class DividedWARC:
    """A ``StoredWARC`` whose pages are read by ``workers`` processes; what ``pages`` yields has its outcome."""

    def __init__(self, warc: StoredWARC, workers: int, config: Config, extract: Extractor | None) -> None:
        self.path = warc.path
        self.broken = PassedOverCounts()
        self.fields, self.free_fields = warc.fields, warc.free_fields
        self._warc = warc
        self._workers = workers
        limits = msgspec.structs.replace(config.limits, rows=None, time=None)
        self._config = msgspec.structs.replace(config, limits=limits)
        self._extract = extract
        self._ranges: Ranges | None = None

    @property
    def total(self) -> int | None:
        """About how many rows there are."""
        return self._warc.total

    def pids(self) -> list[int]:
        """Return the processes that read."""
        return self._ranges.pids() if self._ranges is not None else []

    def pages(self, finished: IsFinished | None = None) -> Iterator[StoredPage | RowsBeingRead]:
        """Yield the rows. Raises ``SourceError`` and ``ResourceError``."""
        self.broken = PassedOverCounts()
        self._ranges = ranges = Ranges(
            self._warc, self._workers, self._config, self._extract, finished=finished, broken=self.broken
        )
        try:
            yield from self._warc.numbered(ranges.items())
        finally:
            self._ranges = None
            ranges.close()


class Ranges:
    """One pass over the archive. While ``finished`` rows are passed over, pages are counted and not read."""

    def __init__(
        self,
        warc: StoredWARC,
        workers: int,
        config: Config,
        extract: Extractor | None,
        *,
        finished: IsFinished | None,
        broken: PassedOverCounts,
    ) -> None:
        self._warc = warc
        self._workers = workers
        self._settings = (warc.path, config, extract)
        self._finished = finished
        self._broken = broken
        self._numbered = 0
        self._starts = iter(range(0, os.path.getsize(warc.path), RANGE_BYTES))
        self._under_way: deque[tuple[int, bool, Future[ReadRange]]] = deque()
        self._counting = finished is not None
        self._isolate = False
        self._pool = self._open_pool()

    def items(self) -> Iterator[Found | RowsBeingRead]:
        """Yield what is found, range by range; while one is being read, that it must be waited for."""
        self._fill()
        while self._under_way:
            start, counted, future = self._under_way[0]
            if not future.done():
                yield RowsBeingRead(future)
                continue
            try:
                found = future.result()
            except BrokenProcessPool:
                self._begin_again()
                continue
            if counted and not self._are_finished(found):
                self._counting = False
                self._under_way[0] = (start, False, self._submit(start, count=False))
                continue
            self._under_way.popleft()
            self._fill()
            self._broken.add(found.broken)
            self._numbered += sum(isinstance(item, StoredPage) for item in found.items)
            yield from found.items

    def pids(self) -> list[int]:
        """Return the processes."""
        return list(self._pool._processes or ())  # noqa: SLF001  (as below)

    def close(self) -> None:
        """End the processes."""
        for process in list((self._pool._processes or {}).values()):  # noqa: SLF001  (there is no other way to end them at once)
            process.kill()
        self._pool.shutdown(cancel_futures=True)

    def _are_finished(self, found: ReadRange) -> bool:
        """Tell whether nothing of a range that was counted is to be read."""
        assert self._finished is not None
        requests = []
        numbers = self._warc.numbers.copy()  # which has been through all ranges before
        for item in found.items:
            if isinstance(item, BegunArchive):
                numbers.begin()
            elif isinstance(item, FailedRow):
                numbers.of(item.number, self._warc.path)
            elif self._warc.ours:
                number = numbers.of(item.request.id, self._warc.path)
                requests.append(msgspec.structs.replace(item.request, id=number))
            else:
                requests.append(msgspec.structs.replace(item.request, id=self._numbered + len(requests) + 1))
        return all(map(self._finished, requests))

    def _fill(self) -> None:
        while len(self._under_way) < RANGES_A_WORKER * self._workers:
            start = next(self._starts, None)
            if start is None:
                return
            self._under_way.append((start, self._counting, self._submit(start, count=self._counting)))

    def _submit(self, start: int, *, count: bool) -> Future[ReadRange]:
        try:
            return self._pool.submit(_read_range, start, start + RANGE_BYTES, count=count, isolate=self._isolate)
        except BrokenProcessPool as error:  # found when its result is asked for
            broken: Future[ReadRange] = Future()
            broken.set_exception(error)
            return broken

    def _begin_again(self) -> None:
        """Read what was under way once more, where a page can end no process that has others to read."""
        if self._isolate:
            raise ResourceError(
                "a process that reads pages was ended from outside, perhaps for want of memory: with fewer --workers it "
                "may do; a job goes on with the same command"
            )
        self._isolate = True
        self.close()
        self._pool = self._open_pool()
        starts = [(start, counted) for start, counted, _ in self._under_way]
        self._under_way.clear()
        for start, counted in starts:
            self._under_way.append((start, counted, self._submit(start, count=counted)))

    def _open_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self._workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=self._settings,
        )


# In a worker

_worker: RangeReader | None = None


class RangeReader:
    """What a process reads ranges with."""

    def __init__(self, path: str, config: Config, extract: Extractor | None) -> None:
        self._warc = StoredWARC(path, max_size=config.limits.max_size, accept=config.accept)
        self._config = config
        self._reader = Reader(config, extract)
        self._runner = asyncio.Runner()

    def read(self, start: int, end: int, *, count: bool, isolate: bool) -> ReadRange:
        """Read a range, or only ``count`` the pages in it."""
        self._warc.broken = broken = PassedOverCounts()
        scanned = self._warc.scan(start, end)
        if count:
            items: list[Found] = [
                StoredPage(item.request) if isinstance(item, StoredPage) else item for item in scanned
            ]
            return ReadRange(items, broken)
        return ReadRange(self._runner.run(self._read(scanned, isolate=isolate)), broken)

    async def _read(self, scanned: Iterator[Found], *, isolate: bool) -> list[Found]:
        items: list[Found] = []
        places: list[int] = []

        def pages() -> Iterator[StoredPage]:
            for item in scanned:
                if isinstance(item, StoredPage):
                    places.append(len(items))
                    items.append(StoredPage(item.request))
                    yield item
                else:
                    items.append(item)

        at = 0
        async for outcome in ReadPages(self._reader, self._config, pages(), isolate=isolate):
            items[places[at]] = StoredPage(outcome.request, outcome=outcome)
            at += 1
        return items


def _begin(path: str, config: Config, extract: Extractor | None) -> None:
    global _worker  # noqa: PLW0603  (a process has one)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who writes what was read
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = RangeReader(path, config, extract)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _read_range(start: int, end: int, *, count: bool, isolate: bool) -> ReadRange:
    assert _worker is not None
    return _worker.read(start, end, count=count, isolate=isolate)
