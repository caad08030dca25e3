"""Pages out of web archives: our own, with all that the crawl knew of a row, and those of others.

In an archive of ours a row is what its last metadata record says (``fetcher/sinks/warc.py``), and its page the response
before that. Where several were put together (``cat``), the rows of each have numbers behind those of the one before. A
row that failed may have been tried again further behind, so failures are handed out at the end. In other archives each
response is a row, numbered in the order of the file.

fastwarc reads the records. A record is handed out once the next one has begun: only then has its member's checksum been
looked at. Behind damage the next record is looked for.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import importlib.util
import os
import sqlite3
from collections.abc import Generator, Iterable, Iterator
from functools import cached_property
from typing import Any, BinaryIO, TypeAlias

import msgspec

from fetcher.compression import packing_of_data
from fetcher.config import Accept
from fetcher.errors import FetchError, ParseError, SourceError, StatusError, missing_extra
from fetcher.model import Failure, Pairs, Request, Response
from fetcher.stored.http_message import decoded, parse_message
from fetcher.stored.members import end_of_member, end_of_record, find_record, is_empty
from fetcher.stored.page import (
    MAX_ID,
    IsFinished,
    PassedOverCounts,
    RowsBeingRead,
    SeenIds,
    StoredPage,
    failure_from,
    moment_of,
    page_from,
    whole_number,
)

__all__ = ["BegunArchive", "FailedRow", "Found", "StoredWARC"]

MAX_HEAD_BYTES = 1024 * 1024  # of a record, beside its body
FIRST_RECORDS = 50  # in which it shows whose archive it is
SAMPLE_BYTES = 256 * 1024  # of the file, by which its rows are estimated
_OURS = b"software: fetcher/"
_WANTED = ("warcinfo", "response", "metadata", "revisit")


class ArchiveRecord(msgspec.Struct, frozen=True):
    """One record with its block; ``start`` is where it stands in the file."""

    kind: str
    name: str
    url: str
    date: str
    content_type: str
    concurrent: tuple[str, ...]
    truncated: bool
    start: int
    block: bytes


class FailedRow(msgspec.Struct, frozen=True):
    """A row that failed, perhaps to be tried again further behind: where its record is, and where its response.

    ``stored_at`` is -1 where that is not to be read again.
    """

    number: int
    start: int
    stored_at: int


class BegunArchive(msgspec.Struct, frozen=True):
    """The beginning of an archive of ours."""


Found: TypeAlias = StoredPage | FailedRow | BegunArchive
"""What a scan finds."""


class RowNumbers:
    """The numbers of rows where several archives of ours stand in one file: those of each go on behind the one before."""

    def __init__(self) -> None:
        self.offset = self.highest = 0

    def begin(self) -> None:
        """Another archive begins."""
        self.offset = self.highest

    def of(self, number: int, path: str) -> int:
        """Return the number of a row in the file. Raises ``SourceError`` where there is none so high."""
        number += self.offset
        if number > MAX_ID:
            raise SourceError(
                f"{path}: the rows of its archives have numbers that are too high together: give each by itself"
            )
        self.highest = max(self.highest, number)
        return number

    def copy(self) -> RowNumbers:
        """Return another that goes on from here."""
        copy = RowNumbers()
        copy.offset, copy.highest = self.offset, self.highest
        return copy


class _DamagedError(OSError):
    """The record at hand is not whole."""


class StoredWARC:
    """The archive at ``path``. ``max_size`` is in bytes of a decoded body; ``accept`` says which statuses are pages.

    Raises ``SourceError`` for what is no WARC, and where fastwarc is missing.
    """

    def __init__(self, path: str, *, max_size: int, accept: Accept) -> None:
        if importlib.util.find_spec("fastwarc") is None:
            raise SourceError(f"{path}: {missing_extra('fastwarc', 'warc')}")
        self.path = path
        self.broken = PassedOverCounts()
        self._max_size = max_size
        self._accept = accept
        with self._open() as file:
            head = file.read(6)
        self._packed = packing_of_data(head) == "gzip"
        self.ours = self.free_fields = self._is_ours()
        self.fields: tuple[str, ...] | None = None if self.ours else ()
        self.numbers = RowNumbers()

    @cached_property
    def total(self) -> int | None:
        """About how many rows there are, by those that begin in the first ``SAMPLE_BYTES``; ``None`` where none does."""
        try:
            size = looked_at = os.path.getsize(self.path)
        except OSError:  # whoever reads it will say so
            return None
        rows = 0
        kind = "metadata" if self.ours else "response"
        with contextlib.closing(self._records(PassedOverCounts(), 0, every=self.ours)) as records:
            for record in records:
                if record.start >= SAMPLE_BYTES:
                    looked_at = record.start
                    break
                rows += record.kind == kind
        return round(rows * size / looked_at) if rows else None

    def pages(self, finished: IsFinished | None = None) -> Iterator[StoredPage | RowsBeingRead]:  # noqa: ARG002  (all are read to be passed over)
        """Yield the rows. Raises ``SourceError``."""
        self.broken = PassedOverCounts()
        return self.numbered(self.scan())

    def numbered(self, items: Iterable[Found | RowsBeingRead]) -> Iterator[StoredPage | RowsBeingRead]:
        """Yield the rows that ``scan`` has found: none twice, and what failed at the end. Raises ``SourceError``."""
        return self._numbered_ours(items) if self.ours else self._numbered_others(items)

    def _numbered_others(self, items: Iterable[Found | RowsBeingRead]) -> Iterator[StoredPage | RowsBeingRead]:
        number = 0
        for item in items:
            if isinstance(item, StoredPage):
                number += 1
                yield item if item.request.id == number else item.renumbered(number)
            elif isinstance(item, RowsBeingRead):
                yield item

    def _numbered_ours(self, items: Iterable[Found | RowsBeingRead]) -> Iterator[StoredPage | RowsBeingRead]:
        seen = SeenIds(self.path)
        self.numbers = numbers = RowNumbers()
        with _Failures(self.path) as failures:
            for item in items:
                if isinstance(item, StoredPage):
                    number = numbers.of(item.request.id, self.path)
                    seen.add(number)
                    yield item if item.request.id == number else item.renumbered(number)
                elif isinstance(item, FailedRow):
                    number = numbers.of(item.number, self.path)
                    if number in seen:
                        seen.add(number)  # raises
                    failures.put(msgspec.structs.replace(item, number=number))
                elif isinstance(item, RowsBeingRead):
                    yield item
                else:
                    numbers.begin()
            yield from self._failed(failures, seen)

    def scan(self, start: int = 0, end: int | None = None) -> Iterator[Found]:
        """Yield what begins from the byte ``start`` up to ``end``, in its order; pages of others are numbered from 1.

        A row of ours is where its first record is, so that each is in one of the ranges that a file is divided into.
        """
        return self._scan_ours(start, end) if self.ours else self._scan_others(start, end)

    # Archives of ours

    def _scan_ours(self, start: int, end: int | None) -> Iterator[Found]:
        messages: set[str] = set()  # of the row at hand
        within: set[str] = set()  # those of them that are in the range
        response: ArchiveRecord | None = None
        first = start > 0
        for record in self._records(self.broken, start, every=True):
            if end is not None and record.start >= end and not messages:
                return
            if record.kind in ("request", "response"):
                messages.add(record.name)
                if end is None or record.start < end:
                    within.add(record.name)
                response = record if record.kind == "response" else response
            elif record.kind == "warcinfo":
                if end is not None and record.start >= end:
                    return
                messages.clear()
                within.clear()
                response, first = None, False
                yield BegunArchive()
            elif record.kind == "metadata":
                # The row of the range before, or of the one behind.
                other = first and not messages.issuperset(record.concurrent)
                if end is not None and record.start >= end:
                    other = other or within.isdisjoint(record.concurrent)
                first = False
                stored = response if response is not None and response.name in record.concurrent else None
                messages.clear()
                within.clear()
                response = None
                if not other and (item := self._row(record, stored)) is not None:
                    yield item
                if end is not None and record.start >= end:
                    return

    def _row(self, record: ArchiveRecord, stored: ArchiveRecord | None) -> StoredPage | FailedRow | None:
        told = self._told(record)
        if told is None:
            return None
        number, known = told
        if known.get("error") is None:
            return self._own_page(number, record, known, stored)
        again = stored is not None and known["error"] in ParseError.codes
        return FailedRow(number, record.start, stored.start if stored is not None and again else -1)

    def _failed(self, failures: _Failures, seen: SeenIds) -> Iterator[StoredPage]:
        """Yield what failed to the end; where only its reading did, the page."""
        for number, start, stored_at in failures.all():
            if number in seen:
                continue
            record, stored = self._record_at(start), self._record_at(stored_at) if stored_at >= 0 else None
            told = self._told(record) if record is not None else None
            if record is None or told is None:
                continue  # the file has changed meanwhile
            if stored is not None:
                page = self._own_page(number, record, told[1], stored)
                if page is not None:
                    yield page
            else:
                request = _request(number, told[1], record.url)
                yield StoredPage(request, outcome=failure_from(request, told[1]))

    def _told(self, record: ArchiveRecord) -> tuple[int, dict[str, Any]] | None:
        """Return a row's number and its record, ``None`` for other metadata and for what is none."""
        if not record.content_type.startswith("application/json"):
            return None
        try:
            known = msgspec.json.decode(record.block)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            known = None
        number = whole_number(known.get("id")) if isinstance(known, dict) else None
        if not isinstance(known, dict) or number is None or not 0 < number <= MAX_ID:
            self.broken.strange += 1
            return None
        return number, known

    def _own_page(
        self, number: int, record: ArchiveRecord, known: dict[str, Any], stored: ArchiveRecord | None
    ) -> StoredPage | None:
        request = _request(number, known, record.url)
        message = parse_message(stored.block) if stored is not None else None
        if stored is None or message is None:
            self.broken.bodiless += stored is not None or not record.concurrent  # else it was broken, and is counted
            return None
        status, headers, body = message
        url = known.get("final_url")
        url = url if isinstance(url, str) else stored.url
        cut = bool(known.get("truncated"))
        size = whole_number(known.get("bytes")) if cut else None
        try:
            body = decoded(
                headers, body, max_size=self._max_size if size is None else min(size, self._max_size), cut=cut
            )
        except FetchError as error:
            return _failed(request, error, url, status, known.get("fetched_at"))
        moment = moment_of(known.get("fetched_at")) or moment_of(stored.date)
        return page_from(request, known, url=url, status=status, headers=headers, body=body, fetched_at=moment)

    # Those of others

    def _scan_others(self, start: int, end: int | None) -> Iterator[StoredPage]:
        number = 0
        for record in self._records(self.broken, start):
            if end is not None and record.start >= end:
                return
            if record.kind == "revisit":
                self.broken.bodiless += 1
            elif record.kind == "response":
                message = parse_message(record.block) if record.url.startswith(("http://", "https://")) else None
                if message is None:
                    self.broken.strange += 1
                    continue
                number += 1
                yield self._foreign_page(Request(number, record.url), record, *message)

    def _foreign_page(
        self, request: Request, record: ArchiveRecord, status: int, headers: Pairs, body: bytes
    ) -> StoredPage:
        url, cut = record.url, record.truncated
        try:
            if status not in self._accept:
                raise StatusError(status, f"the server answered {status}")
            body = decoded(headers, body, max_size=self._max_size, cut=cut)
        except FetchError as error:
            return _failed(request, error, url, status, record.date)
        response = Response(request, url, status, headers, body, len(record.block), truncated=cut)
        return StoredPage(request, response, fetched_at=moment_of(record.date))

    # Records

    def _is_ours(self) -> bool:
        """Tell whose archive it is by its first records. Raises ``SourceError`` where there are none."""
        broken = PassedOverCounts()
        found = False
        for count, record in enumerate(self._records(broken, 0, every=True)):
            found = True
            if record.kind == "warcinfo":
                return _OURS in record.block
            if record.kind == "metadata" and record.content_type.startswith("application/json"):
                return record.block.startswith(b'{"id":')
            if count >= FIRST_RECORDS:
                break
        if not found:
            raise SourceError(f"{self.path}: is no WARC: there is no whole record in it")
        return False

    def _records(
        self, broken: PassedOverCounts, begin: int, *, every: bool = False
    ) -> Generator[ArchiveRecord, None, None]:
        """Yield the records that are whole; ``every`` has others than those that matter too."""
        from fastwarc.warc import ArchiveIterator, WarcRecordType

        with self._open() as file:
            start = find_record(file, begin, packed=self._packed) if begin else 0
            while start is not None:
                file.seek(start)
                at, size, held, found = start, 0, None, False
                try:
                    records = ArchiveIterator(
                        file,
                        record_types=WarcRecordType.any_type,
                        parse_http=False,
                        max_header_len=MAX_HEAD_BYTES,
                    )
                    for record in records:
                        if held is not None:
                            yield held
                            held = None
                        at, size, found = record.stream_pos, record.content_length, True
                        held = self._taken(record, broken, every=every)
                except (OSError, ValueError, KeyError) as error:
                    if isinstance(error, OSError) and error.errno is not None:
                        raise SourceError(f"{self.path}: cannot be read: {error.strerror or error}") from None
                    whole = found and not isinstance(error, _DamagedError)
                    end = self._end_of(file, at, size) if whole else None
                    if held is not None and end is not None:
                        yield held
                    # Behind a record that is whole there is a broken one: it is counted when we begin with it.
                    broken.damaged += end is None
                    start = find_record(file, at + 1, packed=self._packed) if end is None else end
                    continue
                if held is not None:
                    yield held
                end = self._end_of(file, at, size) if found else None
                broken.damaged += end is not None and not is_empty(file, end)  # fastwarc keeps quiet about it
                return

    def _end_of(self, file: BinaryIO, at: int, size: int) -> int | None:
        """Return where the record at ``at`` ends, with ``size`` bytes in its block, ``None`` where it is not whole."""
        return end_of_member(file, at) if self._packed else end_of_record(file, at, size)

    def _taken(self, record: Any, broken: PassedOverCounts, *, every: bool) -> ArchiveRecord | None:
        """Return a record with its block, ``None`` for one that is passed over. Raises ``OSError`` where it is damaged."""
        headers = record.headers
        kind = (headers.get("WARC-Type") or "").lower()
        length = headers.get("Content-Length")
        if length is None:
            raise _DamagedError("no length")
        if kind not in _WANTED:
            return _other(kind, headers.get("WARC-Record-ID") or "", record.stream_pos) if every else None
        if record.content_length > self._max_size + MAX_HEAD_BYTES:
            broken.large += kind == "response"
            return None
        block = record.reader.read(record.content_length)
        if len(block) < record.content_length:
            raise _DamagedError("cut short")
        said, digested = headers.get("WARC-Block-Digest"), block
        if said is None and kind == "response" and (payload := _payload_of(block)) is not None:
            said, digested = headers.get("WARC-Payload-Digest"), payload
        if not _digest_holds(said, digested):
            broken.digest += 1
            return None
        return ArchiveRecord(
            kind,
            headers.get("WARC-Record-ID") or "",
            (headers.get("WARC-Target-URI") or "").strip("<>"),
            headers.get("WARC-Date") or "",
            headers.get("Content-Type") or "",
            tuple(headers.get_multiple("WARC-Concurrent-To")),
            headers.get("WARC-Truncated") is not None,
            record.stream_pos,
            block,
        )

    def _record_at(self, start: int) -> ArchiveRecord | None:
        from fastwarc.warc import ArchiveIterator, WarcRecordType

        with self._open() as file, contextlib.suppress(OSError):
            file.seek(start)
            for record in ArchiveIterator(file, record_types=WarcRecordType.any_type, parse_http=False):
                return self._taken(record, PassedOverCounts(), every=False)
        return None

    def _open(self) -> BinaryIO:
        try:
            return open(self.path, "rb")
        except OSError as error:
            raise SourceError(f"{self.path}: {error.strerror or error}") from None


def _other(kind: str, name: str, start: int) -> ArchiveRecord:
    """Return a record whose block nobody needs."""
    return ArchiveRecord(kind, name, "", "", "", (), False, start, b"")


class _Failures:
    """The failures of an archive by their rows, of each the last: where their records are. They lie on the disk."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._table = sqlite3.connect("", isolation_level=None)  # "": a file of its own, deleted by itself
        self._table.execute("PRAGMA journal_mode = OFF")
        self._table.execute("CREATE TABLE failures (id INTEGER PRIMARY KEY, start INTEGER, stored INTEGER)")
        self._table.execute("BEGIN")

    def __enter__(self) -> _Failures:
        return self

    def __exit__(self, *_: object) -> None:
        self._table.close()

    def put(self, row: FailedRow) -> None:
        """Note one."""
        try:
            self._table.execute(
                "INSERT OR REPLACE INTO failures VALUES (?, ?, ?)", (row.number, row.start, row.stored_at)
            )
        except sqlite3.Error as error:
            raise SourceError(f"{self._path}: its failures cannot be sorted in {_temporary()}: {error}") from None

    def all(self) -> Iterator[tuple[int, int, int]]:
        """Yield them by their numbers."""
        yield from self._table.execute("SELECT id, start, stored FROM failures ORDER BY id")


def _temporary() -> str:
    return os.environ.get("SQLITE_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"  # noqa: S108  (only named)


def _request(number: int, known: dict[str, Any], url: str) -> Request:
    fields, listed = known.get("fields"), known.get("url")
    return Request(
        number, listed if isinstance(listed, str) else url, fields=fields if isinstance(fields, dict) else None
    )


def _failed(request: Request, error: FetchError, url: str, status: int, moment: Any) -> StoredPage:
    failure = Failure(request, error.about(url), url=url, status=status, attempts=1, fetched_at=moment_of(moment))
    return StoredPage(request, outcome=failure)


def _payload_of(block: bytes) -> bytes | None:
    """Return the body of an answer, ``None`` where it is in pieces: then a digest of it may be of either form."""
    head, end, body = block.partition(b"\r\n\r\n")
    return body if end and b"\ntransfer-encoding:" not in head.lower() else None


def _digest_holds(said: str | None, block: bytes) -> bool:
    """Tell whether a block is the one of a digest such as ``sha1:BASE32``; of an unknown kind each is."""
    label, colon, value = (said or "").partition(":")
    label = label.lower().replace("-", "")
    if not colon or label not in ("sha1", "md5", "sha256", "sha512"):
        return True
    made = hashlib.new(label, block, usedforsecurity=False)
    value = value.strip()
    if len(value) == 2 * made.digest_size:
        return value.lower() == made.hexdigest()
    try:
        padded = value.upper() + "=" * (-len(value) % 8)
        return base64.b32decode(padded) == made.digest()
    except (binascii.Error, ValueError):
        return False
