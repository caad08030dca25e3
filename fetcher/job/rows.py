"""Which rows of a list a job still has to fetch: the finished ones are recognised, one by one, as the list is read.

Law 6: what was acknowledged is not redone. A list that grew is taken on; one that changed is refused at the first row
that differs. Law 3: both are streams in the order of the rows, so that nothing is held.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any

import msgspec

from fetcher.errors import SourceError
from fetcher.model import Request
from fetcher.sources.rows import BadRow, FinishedRow

__all__ = ["Sieve", "digest_of"]

TURN = 1024  # finished rows passed over before the event loop gets a turn
END = 1 << 63


def digest_of(request: Request) -> int:
    """Return the four bytes by which a finished row is recognised again: its URL, other columns and headers."""
    url = request.url.encode("utf-8", "surrogatepass")
    if request.fields is None and not request.headers:
        return zlib.crc32(url)
    return zlib.crc32(_encode((request.fields, request.headers)), zlib.crc32(url))


def _encode(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value, enc_hook=lambda strange: type(strange).__name__)
    except (TypeError, ValueError, RecursionError):  # a lone surrogate, a key that is no text, a loop
        return ascii(value).encode()


class Sieve:
    """Lets through the rows that are not ``finished``, an iterator of (id, digest) in the order of the ids.

    Rows are numbered from 1; a ``Request`` has its own number, larger than the one before. ``limit`` is the last row
    of the input; ``passing`` gives finished rows too, as ``FinishedRow``, for they have duplicates. ``rows`` counts what
    was read.
    """

    def __init__(self, finished: Iterator[tuple[int, int]], *, limit: int | None = None, passing: bool = False) -> None:
        self.rows = 0
        self._finished = finished
        self._limit = limit
        self._passing = passing
        self._last = 0
        self._id, self._digest = next(finished, (END, 0))

    def left(self, rows: Iterable[Any]) -> Iterator[Any]:
        """Yield what is left. Raises ``SourceError`` at the first row that is another than the finished one."""
        if self._limit == 0:
            return
        for row in rows:
            kept = self._sift(row)
            if kept is not None:
                yield kept
            if self.rows == self._limit:
                return
        self._end()

    async def left_later(self, rows: AsyncIterable[Any]) -> AsyncIterator[Any]:
        """Yield what is left of an asynchronous source."""
        if self._limit == 0:
            return
        async for row in rows:
            kept = self._sift(row)
            if kept is not None:
                yield kept
            if self.rows == self._limit:
                return
        self._end()

    def _sift(self, row: Any) -> Any:
        """Return the row if it is not finished, as a request where it was a text."""
        self.rows += 1
        if isinstance(row, str):
            row = Request(self.rows, row.strip())
        request = row.request if isinstance(row, BadRow) else row
        if not isinstance(request, Request):
            raise TypeError(f"row {self.rows} is neither a str nor a Request: {row!r:.200}")
        if request.id <= self._last:
            raise SourceError(
                f"row {self.rows} has the number {request.id} after {self._last}: a job needs them to rise"
            )
        self._last = request.id
        if request.id < self._id:
            return row
        if request.id > self._id:
            raise SourceError(f"the list has no row {self._id} any more, and this job has fetched one: {_ADVICE}")
        if digest_of(request) != self._digest:
            raise SourceError(f"row {request.id} of the list is another than the one this job has fetched: {_ADVICE}")
        self._id, self._digest = next(self._finished, (END, 0))
        if self._passing:
            return FinishedRow(request)
        return _A_TURN if self.rows % TURN == 0 else None

    def _end(self) -> None:
        if self._id != END:
            raise SourceError(
                f"the list ends at row {self._last}, and this job has fetched row {self._id} of it: {_ADVICE}"
            )


_ADVICE = (
    "a list may grow at its end, not change; give it as it was, write to another output, or begin again with --fresh"
)
_A_TURN = FinishedRow()
