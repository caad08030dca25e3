"""Going on with a job: how far it came, which rows are left, and which failures are tried again.

Law 6: what was acknowledged is not redone. The finished rows are recognised, one by one, as the list is read: a list
that grew is continued, one that changed is refused at the first row that differs. Law 3: list and ledger are both read
as streams in the order of the rows, so that nothing is held.
"""

from __future__ import annotations

import re
import zlib
from array import array
from bisect import bisect_left
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from fetcher.errors import (
    ConfigError,
    ConnectError,
    DNSError,
    FetchError,
    FetchTimeout,
    InvalidURL,
    ParseError,
    ProtocolError,
    RedirectError,
    Skipped,
    SourceError,
    TLSError,
    TooLarge,
)
from fetcher.model import Request
from fetcher.sources.rows import BadRow, FinishedRow
from fetcher.stats import counted
from fetcher.urls import erase_userinfo

if TYPE_CHECKING:
    from fetcher.stored.page import StoredFile

__all__ = ["CLASSES", "FinishedPages", "ResumeFilter", "ResumeState", "choose_codes", "digest_of"]

ROWS_A_TURN = 1024  # finished rows passed over before the event loop gets a turn
NO_ROW = 1 << 63  # greater than every id
_TURN = FinishedRow()  # nothing to fetch: it gives the event loop a turn
_ADVICE = (
    "a list may grow at its end, not change; give it as it was, write to another output, or begin again with --fresh"
)


class ResumeState(msgspec.Struct, frozen=True):
    """How far a job was when it was opened: ``done`` rows, ``ok`` of them pages, and ``retried`` no longer done.

    ``suspect`` is the row whose page was being parsed when the last process died, 0 for none; ``left`` is about how
    many rows are left, where that is known.
    """

    resumed: bool = False
    done: int = 0
    ok: int = 0
    retried: int = 0
    suspect: int = 0
    left: int | None = None

    def as_text(self) -> str:
        """Return half a sentence for people."""
        retried = f", {self.retried:,} that failed are tried again" if self.retried else ""
        left = f", about {self.left:,} are left" if self.left else ""
        return f"{self.done:,} rows are done{retried}{left}"


def digest_of(request: Request) -> int:
    """Return the four bytes by which a finished row is recognised again: its URL, other columns and headers.

    The user name and password of a URL are not in them.
    """
    shown = erase_userinfo(request.url) if "@" in request.url else request.url
    url = shown.encode("utf-8", "surrogatepass")
    if request.fields is None and not request.headers:
        return zlib.crc32(url)
    return zlib.crc32(_encode((request.fields, request.headers)), zlib.crc32(url))


def _encode(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value, enc_hook=lambda strange: type(strange).__name__)
    except (TypeError, ValueError, RecursionError):  # a lone surrogate, a key that is no text, a loop
        return ascii(value).encode()


class ResumeFilter:
    """Yields the rows of a list that are not ``finished``, which is an iterator of (id, digest) in the order of the ids.

    Rows are numbered from 1; a ``Request`` has its own number, larger than the one before. ``limit`` is the last row
    of the input. ``passing`` yields finished rows too, as ``FinishedRow``, so that their duplicates are found.
    ``rows`` counts what was read.
    """

    def __init__(self, finished: Iterator[tuple[int, int]], *, limit: int | None = None, passing: bool = False) -> None:
        self.rows = 0
        self._finished = finished
        self._limit = limit
        self._passing = passing
        self._last = 0
        self._id, self._digest = next(finished, (NO_ROW, 0))

    def left(self, rows: Iterable[Any]) -> Iterator[Any]:
        """Yield what is left. Raises ``SourceError`` at the first row that is another than the finished one."""
        if self._limit == 0:
            return
        for row in rows:
            kept = self._unless_finished(row)
            if kept is not None:
                yield kept
            if self.rows == self._limit:
                return
        self._check_end()

    async def left_async(self, rows: AsyncIterable[Any]) -> AsyncIterator[Any]:
        """Yield what is left of an asynchronous source."""
        if self._limit == 0:
            return
        async for row in rows:
            kept = self._unless_finished(row)
            if kept is not None:
                yield kept
            if self.rows == self._limit:
                return
        self._check_end()

    def _unless_finished(self, row: Any) -> Any:
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
        self._id, self._digest = next(self._finished, (NO_ROW, 0))
        if self._passing:
            return FinishedRow(request)
        return _TURN if self.rows % ROWS_A_TURN == 0 else None

    def _check_end(self) -> None:
        if self._id != NO_ROW:
            raise SourceError(
                f"the list ends at row {self._last}, and this job has fetched row {self._id} of it: {_ADVICE}"
            )


class FinishedPages:
    """Yields the pages of a file that are not ``finished``, which is as above, in whatever order they stand in the file.

    ``limit`` is the number of rows that are the input. A finished row takes eight bytes. What it yields for many that
    are passed over is a ``FinishedRow``; what is no page, such as the news that some must be waited for, comes along.
    """

    def __init__(self, finished: Iterator[tuple[int, int]], *, limit: int | None = None) -> None:
        self._finished = array("Q", (row << 32 | digest for row, digest in finished))
        self._limit = limit

    def is_finished(self, request: Request) -> bool:
        """Tell whether a row is finished. Raises ``SourceError`` where it is another than the finished one."""
        at = bisect_left(self._finished, request.id << 32)
        if at == len(self._finished) or self._finished[at] >> 32 != request.id:
            return False
        if self._finished[at] & 0xFFFFFFFF != digest_of(request):
            raise SourceError(f"row {request.id} of the file is another than the one this job has read: {_ADVICE}")
        return True

    def left(self, file: StoredFile) -> Iterator[Any]:
        """Yield what is left. Raises ``SourceError`` at the first row that is another, and where one is gone."""
        from fetcher.stored.page import StoredPage  # a crawl reads none

        finished, passed, count = self._finished, 0, 0
        for page in file.pages(self.is_finished if finished else None):
            if not isinstance(page, StoredPage):
                yield page
                continue
            if count == self._limit:
                return
            count += 1
            if not self.is_finished(page.request):
                yield page
                continue
            passed += 1
            if passed % ROWS_A_TURN == 0:
                yield _TURN
        if passed < len(finished):
            gone = len(finished) - passed
            raise SourceError(
                f"{counted(gone, 'row')} that this job has read {'is' if gone == 1 else 'are'} not in the file any more: {_ADVICE}"
            )


# Which failures are tried again

CLASSES: dict[str, type[FetchError]] = {
    "dns": DNSError,
    "connect": ConnectError,
    "tls": TLSError,
    "timeout": FetchTimeout,
    "protocol": ProtocolError,
    "redirect": RedirectError,
    "parse": ParseError,
}
"""The classes of codes that have a name, besides ``http`` (all statuses), ``4xx`` and the like, and ``failed``."""

_RETRIED_SKIPS = frozenset({"robots_unreachable", "host_budget"})  # skipped for a reason that may have passed
_STATUSES = re.compile(r"[1-9]xx")
_STATUS = re.compile(r"(?:http_)?([1-9][0-9]{2})")
_FAMILIES: tuple[type[FetchError], ...] = (*CLASSES.values(), InvalidURL, Skipped, TooLarge)
_CODES = frozenset(code for kind in _FAMILIES for code in kind.codes)


def choose_codes(names: Collection[str]) -> Callable[[str], bool] | None:
    """Return a function that tells whether a code is among ``names``; ``None`` where there are no names.

    Raises ``ConfigError`` for a name that is neither a code nor a class.
    """
    chosen: set[str] = set()
    prefixes: set[str] = set()
    everything = False
    for name in (name.strip().lower() for name in names):
        if name in CLASSES:
            chosen |= CLASSES[name].codes
        elif name == "http":
            prefixes.add("http_")
        elif _STATUSES.fullmatch(name):
            prefixes.add(f"http_{name[0]}")
        elif status := _STATUS.fullmatch(name):
            chosen.add(f"http_{status[1]}")
        elif name == "failed":
            everything = True
        elif name in _CODES:
            chosen.add(name)
        else:
            raise ConfigError(
                f"{name!r} is neither a code nor a class: there are failed, http, 4xx, 5xx, {', '.join(CLASSES)}, "
                "a status such as 503, and the codes in the README"
            )
    if not chosen and not prefixes and not everything:
        return None

    def choose(code: str) -> bool:
        if code in chosen or (prefixes and code.startswith(tuple(prefixes))):
            return True
        return everything and code != "ok" and (code not in Skipped.codes or code in _RETRIED_SKIPS)

    return choose
