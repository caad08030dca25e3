"""What one row of such a file is, and the errors that its failures were."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any, Protocol, TypeAlias

import msgspec

from fetcher import errors
from fetcher.errors import FetchError, SourceError, StatusError
from fetcher.model import Failure, Outcome, Pairs, Request, Response
from fetcher.stats import counted

__all__ = [
    "IsFinished",
    "PassedOverCounts",
    "RowsBeingRead",
    "SeenIds",
    "StoredFile",
    "StoredPage",
    "error_of",
    "failure_from",
    "moment_of",
    "whole_number",
]

MAX_ID = 2**32 - 1
"""The largest number of a row; those of a list are its rows from 1."""

MAX_REDIRECTS = 1_000  # of a row that are believed
MAX_TEXT = 65_536  # characters of a URL or a message that are believed
_STATUS_CODE = re.compile(r"http_([1-9][0-9]{2})")
_BLOCK_BITS = 16


class StoredPage(msgspec.Struct, frozen=True):
    """One row: the ``response`` that was stored, or the ``outcome`` that it has already, such as the failure that it was.

    ``fetched_at`` is in seconds since the epoch, ``waited`` in seconds. ``known`` are fields of its ``Page`` that were
    seen when it was fetched and that what was stored does not show any more.
    """

    request: Request
    response: Response | None = None
    outcome: Outcome | None = None
    fetched_at: float = 0.0
    waited: float = 0.0
    known: Mapping[str, Any] = {}

    def renumbered(self, number: int) -> StoredPage:
        """Return the same with another number."""
        request = msgspec.structs.replace(self.request, id=number)
        response, outcome = self.response, self.outcome
        return msgspec.structs.replace(
            self,
            request=request,
            response=None if response is None else msgspec.structs.replace(response, request=request),
            outcome=None if outcome is None else msgspec.structs.replace(outcome, request=request),
        )


class RowsBeingRead(msgspec.Struct, frozen=True):
    """Stands among the rows where the next ones are being read elsewhere: ``future`` is done when they are there."""

    future: Future[Any]


IsFinished: TypeAlias = Callable[[Request], bool]
"""Tells of a row whether an earlier run has finished it."""


class PassedOverCounts:
    """Counts what was passed over, by reason."""

    def __init__(self) -> None:
        self.damaged = 0
        self.digest = 0
        self.large = 0
        self.bodiless = 0
        self.strange = 0

    def add(self, other: PassedOverCounts) -> None:
        """Count what another has counted too."""
        for name, number in vars(other).items():
            setattr(self, name, getattr(self, name) + number)

    @property
    def total(self) -> int:
        """All of it."""
        return self.damaged + self.digest + self.large + self.bodiless + self.strange

    def as_text(self) -> str:
        """Return a sentence for people, empty where nothing was passed over."""
        parts = [
            f"{number:,} {what}"
            for number, what in (
                (self.damaged, "damaged or cut short"),
                (self.digest, "with a wrong digest"),
                (self.large, "larger than --max-size"),
                (self.bodiless, "without a body"),
                (self.strange, "that are no page of the web"),
            )
            if number
        ]
        return f"{counted(self.total, 'record')} passed over: {', '.join(parts)}" if parts else ""


class StoredFile(Protocol):
    """A file with pages, opened by ``open_stored``. ``broken`` counts as ``pages`` are read."""

    path: str
    broken: PassedOverCounts
    fields: tuple[str, ...] | None
    """The columns of the list that all rows have, ``None`` where they are those of the first row."""
    free_fields: bool
    """Whether a row may have other ones."""

    @property
    def total(self) -> int | None:
        """About how many rows there are, ``None`` where that cannot be told without reading them."""
        ...

    def pages(self, finished: IsFinished | None = None) -> Iterator[StoredPage | RowsBeingRead]:
        """Yield the rows in the order of the file, no ``request.id`` twice. Raises ``SourceError``.

        Those that are ``finished`` are needed by their request alone.
        """
        ...


class SeenIds:
    """Which row numbers have been seen: a bit for each, in blocks."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._blocks: dict[int, bytearray] = {}

    def add(self, number: int) -> None:
        """Note one. Raises ``SourceError`` where it was there already."""
        block = self._blocks.setdefault(number >> _BLOCK_BITS, bytearray(1 << (_BLOCK_BITS - 3)))
        at, bit = (number >> 3) & (len(block) - 1), 1 << (number & 7)
        if block[at] & bit:
            raise SourceError(
                f"{self._path}: row {number} stands in it twice, so several crawls were put together in it; "
                "give the output of each by itself"
            )
        block[at] |= bit

    def __contains__(self, number: int) -> bool:
        block = self._blocks.get(number >> _BLOCK_BITS)
        return block is not None and bool(block[(number >> 3) & (len(block) - 1)] & 1 << (number & 7))


_ERRORS: dict[str, type[FetchError]] = {
    code: kind
    for kind in (
        errors.InvalidURL, errors.Skipped, errors.FetchTimeout, errors.DNSError, errors.DNSTimeout, errors.ConnectError,
        errors.ConnectTimeout, errors.TLSError, errors.TLSTimeout, errors.ProtocolError, errors.RedirectError,
        errors.TooLarge, errors.ParseError,
    )
    for code in kind.codes
}  # fmt: skip
"""Code -> its class, the narrower ones last."""


def error_of(code: str, message: str, url: str | None = None) -> FetchError:
    """Return the error whose ``code`` and ``message`` stand in a record."""
    status = _STATUS_CODE.fullmatch(code)
    error = StatusError(int(status[1]), message) if status else _ERRORS.get(code, FetchError)(code, message)
    return error.about(url)


def failure_from(request: Request, record: Mapping[str, Any]) -> Failure:
    """Return the failure whose record this is."""
    url = _text(record.get("final_url"))
    return Failure(
        request,
        error_of(str(record["error"])[:100], (_text(record.get("message")) or "")[:MAX_TEXT], url),
        url=url,
        status=whole_number(record.get("status")),
        bytes=whole_number(record.get("bytes")),
        redirects=redirects_of(record),
        elapsed=_seconds(record.get("elapsed")),
        waited=_seconds(record.get("waited")),
        attempts=whole_number(record.get("attempts")) or 0,
        fetched_at=moment_of(record.get("fetched_at")),
        length=whole_number(record.get("length")),
        content_type=_text(record.get("content_type")),
        charset=_text(record.get("charset")),
        title=_text(record.get("title")),
        links=whole_number(record.get("links")),
        truncated=bool(record.get("truncated")),
        robots=_text(record.get("robots")),
        refresh=_text(record.get("refresh")),
    )


def page_from(
    request: Request, record: Mapping[str, Any], *, url: str, status: int, headers: Pairs, body: bytes, **more: Any
) -> StoredPage:
    """Return the page that ``record`` tells of, with the body that was stored; ``more`` are other fields of it."""
    return StoredPage(
        request,
        Response(
            request,
            url,
            status,
            headers,
            body,
            len(body),
            redirects_of(record),
            _seconds(record.get("elapsed")),
            whole_number(record.get("attempts")) or 1,
            bool(record.get("truncated")),
        ),
        waited=_seconds(record.get("waited")),
        **more,
    )


def redirects_of(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the URLs in a record's ``redirects``, as a list or as its JSON."""
    value = record.get("redirects")
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return ()
    return tuple(map(str, value[:MAX_REDIRECTS])) if isinstance(value, list | tuple) else ()


def moment_of(value: Any) -> float:
    """Return what a record or a WARC says of a time as seconds since the epoch, 0.0 where it says none."""
    if isinstance(value, datetime):
        return (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).timestamp()
    try:
        return max(0.0, moment_of(datetime.fromisoformat(value)))
    except (TypeError, ValueError, OverflowError):
        return 0.0


def whole_number(value: Any) -> int | None:
    """Return a number that is whole and not below zero, ``None`` for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63 else None


def _seconds(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value < float("inf") else 0.0


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
