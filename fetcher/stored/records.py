"""Pages out of outputs of ours: JSON Lines, Parquet and SQLite with bodies in them, or beside them in a folder.

A record has what was found when the page was fetched. What its body alone does not show any more, such as the headers,
is made of that again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from fetcher.compression import SUFFIXES, DamagedDataError, decompress
from fetcher.errors import SourceError
from fetcher.files import PLAIN_FLAGS
from fetcher.model import Pairs, Request, Response
from fetcher.page.parse import kind_of
from fetcher.sources.records import RecordTable, fields_of
from fetcher.stored.page import (
    MAX_ID,
    IsFinished,
    PassedOverCounts,
    SeenIds,
    StoredPage,
    failure_from,
    moment_of,
    page_from,
    whole_number,
)

__all__ = ["StoredRecords", "json_records"]

BLOCK = 256 * 1024
_BODY_PATH = re.compile(r"[0-9a-f]{2}/([0-9a-f]{64})\.[a-z0-9]{1,10}(\.gz|\.zst)?")
_DATA_URI = re.compile(r"data:[^,;]*;base64,", re.ASCII)


class BodyFiles:
    """The bodies in the folder at ``path``, as ``fetcher.sinks.body_folder`` has put them there."""

    def __init__(self, path: str, max_size: int) -> None:
        self._path = path
        self._max_size = max_size

    def read(self, name: str, broken: PassedOverCounts) -> bytes | None:
        """Return a body; ``None``, and counted, where it is not there, too large or not what its name says."""
        match = _BODY_PATH.fullmatch(name)
        if match is None:
            broken.strange += 1
            return None
        body = bytearray()
        try:
            with open(os.path.join(self._path, name), "rb", opener=_opened) as file:
                blocks = iter(lambda: file.read(BLOCK), b"")
                for block in decompress(blocks, SUFFIXES[match[2]], max_block=BLOCK) if match[2] else blocks:
                    body += block
                    if len(body) > self._max_size:
                        broken.large += 1
                        return None
        except OSError:
            broken.bodiless += 1
            return None
        except ImportError as error:
            raise SourceError(f"{os.path.join(self._path, name)}: {error}") from None
        except DamagedDataError:
            broken.damaged += 1
            return None
        if hashlib.sha256(body).hexdigest() != match[1]:
            broken.digest += 1
            return None
        return bytes(body)


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags | PLAIN_FLAGS)


class StoredRecords:
    """The output at ``path``: ``records`` opens it and yields them, with the columns ``names``.

    ``bodies`` is the folder of their bodies, ``own`` says which columns hold what was carried. Raises ``SourceError``
    where there are no bodies.
    """

    def __init__(
        self,
        path: str,
        records: Callable[[PassedOverCounts], Iterator[Mapping[str, Any]]],
        names: Collection[str],
        *,
        max_size: int,
        bodies: str | None = None,
        own: Mapping[str, str] | None = None,
        total: int | None = None,
    ) -> None:
        self.path = path
        self.broken = PassedOverCounts()
        self.total = total
        self._records = records
        self._max_size = max_size
        self._bodies = None if bodies is None else BodyFiles(bodies, max_size)
        self._table = RecordTable(list(names), own=own)
        self.free_fields = "fields" in names
        self.fields: tuple[str, ...] | None = tuple(self._table.fields.values()) or (None if self.free_fields else ())
        if "url" not in names:
            raise SourceError(f"{path}: its records have no url, so it is no output of a crawl")
        if "body" in names:
            return
        if "body_path" not in names:
            raise SourceError(f"{path}: has no bodies: crawl with --body inline or --body DIR, or into a .warc.gz")
        if bodies is None:
            raise SourceError(f"{path}: its bodies are in files: say in which folder with --bodies DIR")
        if not os.path.isdir(bodies):
            raise SourceError(f"{bodies}: is no folder of bodies")

    def pages(self, finished: IsFinished | None = None) -> Iterator[StoredPage]:  # noqa: ARG002  (all are read to be passed over)
        """Yield the rows. Raises ``SourceError``."""
        self.broken = broken = PassedOverCounts()
        seen = SeenIds(self.path)
        for ordinal, record in enumerate(self._records(broken), 1):
            number = whole_number(record["id"]) if "id" in record else ordinal
            url = record.get("url")
            if number is None or not 0 < number <= MAX_ID or not isinstance(url, str):
                broken.strange += 1
                continue
            request = Request(number, url, fields=self._fields(record))
            if record.get("error") is not None:
                seen.add(number)
                yield StoredPage(request, outcome=failure_from(request, record))
                continue
            page = self._page(request, record)
            if page is not None:
                seen.add(number)
                yield page

    def _fields(self, record: Mapping[str, Any]) -> dict[str, Any] | None:
        columns = self._table.fields
        fields = {field: record.get(column) for column, field in columns.items()}
        if "fields" in record:
            fields.update(fields_of(record["fields"]))
        return fields or None

    def _page(self, request: Request, record: Mapping[str, Any]) -> StoredPage | None:
        body, path = record.get("body"), record.get("body_path")
        if body is None and isinstance(path, str) and self._bodies is not None:
            body = self._bodies.read(path, self.broken)
            if body is None:
                return None  # counted
        if isinstance(body, int):  # of one that is too large, its size
            self.broken.large += 1
            return None
        if not isinstance(body, bytes | str):
            self.broken.bodiless += 1
            return None
        known: dict[str, Any] = {}
        headers = kept = _headers_of(record)
        if isinstance(body, str):
            body, headers = self._bytes_of(body, request, record, headers, known)
        if len(body) > self._max_size:
            self.broken.large += 1
            return None
        known |= {name: record[name] for name in ("robots", "refresh") if name in record}
        known["headers"] = kept
        if isinstance(robots := record.get("robots"), str):
            headers = (*headers, ("x-robots-tag", robots))  # for who asks what the page says to robots
        url, status = record.get("final_url"), whole_number(record.get("status"))
        return page_from(
            request,
            record,
            url=url if isinstance(url, str) else request.url,
            status=status or 200,
            headers=headers,
            body=body,
            fetched_at=moment_of(record.get("fetched_at")),
            known=known,
        )

    @staticmethod
    def _bytes_of(
        text: str, request: Request, record: Mapping[str, Any], headers: Pairs, known: dict[str, Any]
    ) -> tuple[bytes, Pairs]:
        """Return the bytes of a body that was written as text, and headers that say what they are."""
        uri = _DATA_URI.match(text) if record.get("charset") is None else None
        if uri is not None:
            try:
                return base64.b64decode(unquote_to_bytes(text[uri.end() :]), validate=True), headers
            except (binascii.Error, ValueError):
                pass
        body = text.encode("utf-8", "replace")
        kind = record.get("content_type")
        if not isinstance(kind, str):
            html = kind_of(Response(request, request.url, 200, body=body)) in ("html", "xml")
            kind = "text/html" if html else "text/plain"
        known |= {name: record[name] for name in ("charset", "bytes", "length", "content_type") if name in record}
        others = tuple(pair for pair in headers if pair[0] != "content-type")
        return body, (("content-type", f"{kind}; charset=utf-8"), *others)


def _headers_of(record: Mapping[str, Any]) -> Pairs:
    """Return the headers of an answer: those that were kept, and what the record's columns say of the others."""
    kept = record.get("headers")
    if isinstance(kept, str):
        try:
            kept = msgspec.json.decode(kept)
        except (msgspec.DecodeError, RecursionError):
            kept = None
    pairs = [*kept.items()] if isinstance(kept, Mapping) else kept if isinstance(kept, list) else []
    headers = [(str(name), str(value)) for name, value in pairs if value is not None]
    names = {name for name, _ in headers}
    kind, charset = record.get("content_type"), record.get("charset")
    if "content-type" not in names and isinstance(kind, str):
        headers.append(("content-type", f"{kind}; charset={charset}" if isinstance(charset, str) else kind))
    return tuple(headers)


def json_records(path: str, *, max_line: int, broken: PassedOverCounts) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file of JSON Lines, packed or not; what is none is counted. Raises ``SourceError``."""
    decode = msgspec.json.Decoder().decode
    for line in _lines(path, max_line, broken):
        if not line or line.isspace():
            continue
        try:
            record = decode(line)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            broken.damaged += 1
            continue
        if isinstance(record, dict):
            yield record
        else:
            broken.strange += 1


def _lines(path: str, max_line: int, broken: PassedOverCounts) -> Iterator[bytes]:
    """Yield the lines; of one that is too long nothing is kept."""
    parts: list[bytes] = []
    size = 0
    try:
        for block in _blocks(path):
            begin = 0
            while (end := block.find(b"\n", begin)) >= 0:
                size += end - begin
                if size > max_line:
                    broken.large += 1
                else:
                    yield b"".join((*parts, block[begin:end]))
                parts.clear()
                size, begin = 0, end + 1
            size += len(block) - begin
            if size <= max_line:
                parts.append(block[begin:])
            else:
                parts.clear()
    except DamagedDataError:
        broken.damaged += 1  # with all that is behind it
        return
    except ImportError as error:
        raise SourceError(f"{path}: {error}") from None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from None
    if size > max_line:
        broken.large += 1
    elif size:
        yield b"".join(parts)


def _blocks(path: str) -> Iterator[bytes]:
    packing = SUFFIXES.get(os.path.splitext(path)[1].lower())
    with open(path, "rb") as file:
        blocks = iter(lambda: file.read(BLOCK), b"")
        yield from decompress(blocks, packing, max_block=BLOCK) if packing else blocks
