"""The outputs of earlier runs, read whole: each record as the columns that it has, in the types that a run gives them.

Laws: a record at a time is in memory, of at most 16 MB (3); what cannot be read of a file of lines, such as the end of
one that is half written, is passed over and counted, and everything else that is wrong with a file is a ``SourceError``
(2).
"""

from __future__ import annotations

import codecs
import csv
import os
import sqlite3
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from datetime import datetime
from typing import Any

import msgspec

from fetcher.compression import packing_of_data
from fetcher.errors import ConfigError, SourceError, missing_extra
from fetcher.files import open_regular
from fetcher.model import CONTENT_COLUMNS, RECORD_COLUMNS
from fetcher.sources.children import companions_of, parts_of
from fetcher.sources.inputs import format_of
from fetcher.sources.lines import open_list, reason_of
from fetcher.sources.records import original_cells
from fetcher.sources.stored_parts import is_prefix, stored_parts
from fetcher.store import is_store_url

__all__ = [
    "MAX_RECORD_BYTES",
    "RecordFile",
    "SelectedName",
    "archived_records",
    "column_of",
    "earlier_format",
    "from_json",
    "record_pieces",
    "typed",
]

MAX_RECORD_BYTES = 16 * 1024 * 1024
MAX_MAGIC_BYTES = 512
_MAGIC = {b"PAR1": "parquet", b"SQLite format 3\0": "sqlite", b"WARC/": "warc", b'{"id":': "jsonl", b"id,": "csv"}
_NESTED = tuple(name for name in CONTENT_COLUMNS.values() if name not in ("text", "lang"))
_OWN_COLUMNS = frozenset(RECORD_COLUMNS)
_WHOLE = ("status", "length", "bytes", "links")
_MOMENTS = ("fetched_at", "checked_at")
_TEXT_TRUE = frozenset({"true", "1", 1})
_decode = msgspec.json.Decoder().decode


class SelectedName(msgspec.Struct, frozen=True):
    """A name that a page's data has: the ``type`` of its values where they are no text, whether it is a list of them.

    Values that are not ``plain`` are objects or lists themselves.
    """

    name: str
    type: str | None = None
    many: bool = False
    plain: bool = True


def earlier_format(path: str) -> str:
    """Return the format of an output of ours at ``path``; ``parts`` for those in a store. Raises ``SourceError`` where it is none."""
    if is_prefix(path):
        return "parts"
    if path.lower().endswith(".warc.gz"):
        return "warc"
    if os.path.isdir(path):
        return "parquet"
    kind = format_of(path, None)
    if kind == "txt" and not is_store_url(path) and (found := _format_by_bytes(path)) is not None:
        return found
    if kind not in ("jsonl", "csv", "parquet", "sqlite"):
        raise SourceError(
            f"{path}: is no output that can be read again: there are .jsonl, .csv (each also .gz and .zst), .parquet, "
            ".sqlite and .warc.gz"
        )
    if kind == "sqlite" and is_store_url(path):
        raise SourceError(f"{path}: sqlite is read from a file on this machine: download it, and give the file")
    return kind


def _format_by_bytes(path: str) -> str | None:
    """Return the format that a file of ours begins as, where its name says nothing; ``None`` for a file of another kind."""
    try:
        descriptor = open_regular(path, os.O_RDONLY, follow_links=True)
    except (OSError, ValueError):  # a NUL in the name; whoever reads it says so
        return None
    with open(descriptor, "rb") as file:
        start = file.read(MAX_MAGIC_BYTES)
    if packing_of_data(start[:4]) == "gzip":  # of ours, an archive alone is compressed whatever its name
        with suppress(zlib.error):
            inside = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(start, MAX_MAGIC_BYTES)
            return "warc" if inside.startswith(b"WARC/") else None
    start = start.removeprefix(codecs.BOM_UTF8)  # --csv-bom
    return next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)


def archived_records(path: str) -> Iterator[bytes]:
    """Yield the records of an archive of ours, each as the JSON that it is in there. Raises ``ConfigError`` and ``OSError``."""
    try:
        from fastwarc.warc import ArchiveIterator, WarcRecordType
    except ImportError:
        raise ConfigError(f"{path}: {missing_extra('fastwarc', 'warc')}") from None
    with closing(_opened(path)) as file:
        for found in ArchiveIterator(file, record_types=WarcRecordType.metadata, parse_http=False):
            yield found.reader.read(MAX_RECORD_BYTES)


def record_pieces(blocks: Iterator[bytes]) -> Iterator[bytes | None]:
    """Yield whole lines, many at once and with their ends; ``None`` for one that is too long."""
    rest: list[bytes] = []
    size = 0
    for block in blocks:
        end = block.find(b"\n") + 1
        if not end:
            size += len(block)
            rest = [*rest, block] if size <= MAX_RECORD_BYTES else []
            continue
        last = block.rfind(b"\n") + 1
        if size + end > MAX_RECORD_BYTES:
            yield None
            piece = block[end:last]
        else:
            piece = b"".join([*rest, block[:last]])
        if piece:
            yield piece
        rest = [block[last:]]
        size = len(rest[0])
    if size > MAX_RECORD_BYTES:
        yield None
    elif size:
        yield b"".join(rest)


class RecordFile:
    """The records of an output of ours. ``columns`` are those that it has, ``names`` those of its data, once it is read.

    ``unread`` counts the lines that are no records. ``selected`` are the names of the data in tables, where each has a
    column of its own. Raises ``SourceError`` for what is no output of ours, and ``ConfigError`` where a library is
    missing.
    """

    def __init__(self, path: str, selected: Sequence[SelectedName] = ()) -> None:
        self.path = path
        self.columns: set[str] = set()
        self.names: set[str] = set()
        self.unread = 0
        self._selected = selected
        self._kind = earlier_format(path)

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield each record."""
        if self._kind == "parts":
            yield from self._of_parts()
            return
        rows: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
            "jsonl": self._lines,
            "csv": self._cells,
            "parquet": self._parquet,
            "sqlite": self._sqlite,
            "warc": self._warc,
        }
        is_table = self._kind in ("csv", "parquet", "sqlite")
        try:
            for row in rows[self._kind]():
                if not self.columns:
                    self._check(row)
                self.columns.update(row)
                record = self._of_table(row) if is_table else row
                if isinstance(record.get("data"), Mapping):
                    self.names.update(record["data"])
                _convert(record)
                yield record
        except OSError as error:
            raise SourceError(f"{self.path}: {reason_of(error)}") from error

    def _of_parts(self) -> Iterator[dict[str, Any]]:
        for part in stored_parts(self.path):
            file = RecordFile(part, self._selected)
            yield from file.records()
            self.columns |= file.columns
            self.names |= file.names
            self.unread += file.unread

    def _check(self, row: Mapping[str, Any]) -> None:
        if "item" in row:
            raise SourceError(f"{self.path}: has a line for each item (--explode), and a page is compared as a whole")
        if "url" not in row or not ("status" in row or "error" in row):
            raise SourceError(
                f"{self.path}: is no output of fetcher, or one without the columns that are needed to go by: "
                "url, final_url, status, error, etag, last_modified and digest"
            )

    # Formats

    def _lines(self) -> Iterator[dict[str, Any]]:
        decode = msgspec.json.Decoder().decode
        with open_list(self.path, encoding=None, nul_allowed=True) as blocks:
            for line in _lines_of(blocks):
                if line is None:
                    self.unread += 1
                    continue
                if not line.strip():
                    continue
                try:
                    record = decode(line)
                except (msgspec.DecodeError, UnicodeError, RecursionError):
                    record = None
                if isinstance(record, dict):
                    yield record
                else:
                    self.unread += 1

    def _cells(self) -> Iterator[dict[str, Any]]:
        before = csv.field_size_limit(MAX_RECORD_BYTES)
        try:
            with open_list(self.path, encoding=None, nul_allowed=True) as blocks:
                texts = (
                    "" if line is None else line.removeprefix(b"\xef\xbb\xbf").decode(errors="replace")
                    for line in _lines_of(blocks)
                )
                reader = csv.reader(texts)
                header = original_cells(next(reader, []))
                for cells in reader:
                    if len(cells) == len(header):
                        yield {name: cell or None for name, cell in zip(header, original_cells(cells), strict=True)}
                    else:
                        self.unread += 1
        except csv.Error as error:
            raise SourceError(f"{self.path}: cannot be read as csv: {error}") from None
        finally:
            csv.field_size_limit(before)

    def _parquet(self) -> Iterator[dict[str, Any]]:
        from fetcher.sources.parquet import parquet_rows

        parts = parts_of(self.path) if os.path.isdir(self.path) else [self.path]
        if not parts:
            raise SourceError(f"{self.path}: is a folder without .parquet files")
        companions = companions_of(self.path)
        for part in parts:
            for row in parquet_rows(part):
                if "id" in row and companions:
                    row |= {each.child.column: each.items(row) for each in companions}
                yield row
        for each in companions:
            each.end(self.path)

    def _sqlite(self) -> Iterator[dict[str, Any]]:
        from fetcher.sources.sqlite import sqlite_rows

        lists = [each.name for each in self._selected if each.many]
        try:
            yield from sqlite_rows(self.path, lists)
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise SourceError(f"{self.path}: cannot be read: {error}") from None

    def _warc(self) -> Iterator[dict[str, Any]]:
        for block in archived_records(self.path):
            record = None
            with suppress(msgspec.DecodeError, UnicodeError, RecursionError):
                record = msgspec.json.decode(block)
            if isinstance(record, dict):
                yield record
            else:
                self.unread += 1

    # A record of a table

    def _of_table(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return a row of a table as a record: what has columns of its own is put together again."""
        record = {name: row[name] for name in row if name in _OWN_COLUMNS}
        for name in ("headers", "redirects", *_NESTED):
            if isinstance(record.get(name), str):
                record[name] = from_json(record[name])
        if isinstance(record.get("headers"), list):  # a map of Parquet's
            record["headers"] = dict(record["headers"])
        data = from_json(record.get("data"))
        found = {
            each.name: typed(row[column], each)
            for each in self._selected
            if (column := column_of(each.name, row)) is not None
        }
        if found and (data is None or isinstance(data, Mapping)):
            data = {**found, **(data or {})}
        record["data"] = data
        return record


def _opened(path: str) -> Any:
    """Return what reads the bytes of a file here or in a store."""
    if not is_store_url(path):
        return open(path, "rb")
    from fetcher.store.reading import StoreReader

    return StoreReader(path, SourceError).open()


def column_of(name: str, row: Collection[str]) -> str | None:
    """Return the column of a selected name, of those of a row: with ``data_`` in front where its own was taken."""
    prefixed = f"data_{name}"
    if prefixed in row:
        return prefixed
    return name if name in row and name not in RECORD_COLUMNS else None


def typed(value: Any, selected: SelectedName) -> Any:
    """Return a value of a table's column as the run that selected it had it."""
    if selected.many:
        items = from_json(value) if isinstance(value, str) else value
        one = msgspec.structs.replace(selected, many=False)
        return [typed(item, one) for item in items] if isinstance(items, list) else []
    if value is None:
        return None
    try:
        if selected.type == "int":
            return int(value)
        if selected.type in ("float", "price"):
            return float(value)
    except (ValueError, TypeError, OverflowError):
        return value
    if selected.type == "bool":
        return value in _TEXT_TRUE
    return value if selected.plain else from_json(value)


def from_json(value: Any) -> Any:
    """Return what a text of JSON says; what is none is returned as it is."""
    if isinstance(value, str):
        try:
            return _decode(value)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            pass
    return value


def _convert(record: dict[str, Any]) -> None:
    """Give the record's own columns their types: numbers, and moments as seconds since the epoch."""
    for name in _WHOLE:
        value = record.get(name)
        if value is not None and type(value) is not int:
            try:
                record[name] = int(value)
            except (ValueError, TypeError, OverflowError):
                record[name] = None
    for name in _MOMENTS:
        record[name] = _moment(record.get(name))
    record["truncated"] = record.get("truncated") in _TEXT_TRUE


def _moment(value: Any) -> float:
    try:
        return datetime.fromisoformat(value).timestamp()
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _lines_of(blocks: Iterator[bytes]) -> Iterator[bytes | None]:
    """Yield each line with its end, ``None`` for one that is too long."""
    rest: list[bytes] = []
    size = 0
    for block in blocks:
        *lines, last = block.split(b"\n")
        for line in lines:
            yield None if size + len(line) > MAX_RECORD_BYTES else b"".join([*rest, line, b"\n"])
            rest.clear()
            size = 0
        size += len(last)
        if size <= MAX_RECORD_BYTES:
            rest.append(last)
        else:
            rest.clear()
    if size:
        yield None if size > MAX_RECORD_BYTES else b"".join(rest)
