"""What an output of a job tells of its rows that the ledger does not know: URLs, messages, titles and selected fields.

Law 3: the file is read in a stream; what is kept of it is bounded in number and in length. Law 7: every value is the
web's, and is escaped by whoever shows it. What cannot be read is told, and ends no report.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import msgspec

from fetcher.errors import ConfigError, SourceError
from fetcher.model import CONTENT_COLUMNS
from fetcher.report.distributions import Sampled
from fetcher.sources.earlier import (
    SelectedName,
    archived_records,
    earlier_format,
    from_json,
    record_pieces,
    typed,
)
from fetcher.sources.lines import open_list
from fetcher.sources.stored_parts import stored_parts
from fetcher.sources.tables import OutputTable, TableColumns

__all__ = ["READABLE", "ColumnSums", "Example", "RecordLine", "RecordSums", "read_records", "shown"]

READABLE = ("jsonl", "parquet", "sqlite", "csv", "warc", "parts")
"""The formats that are read again, the fastest first."""
MAX_EXAMPLES = 3
MAX_CODES = 200
MAX_COLUMNS = 100
MAX_TYPES = 500
EXAMPLE_ROWS = 5
MAX_CHARACTERS = 300
MOST = 1e300  # of a number, either way: there is room for the span between two
_CONTENT = tuple(CONTENT_COLUMNS.values())


class Example(msgspec.Struct, frozen=True):
    """One row that failed."""

    url: str
    message: str


_NULL = msgspec.Raw(b"null")


class RecordLine(msgspec.Struct):
    """The columns of a record that are looked at; others are passed over. What is only counted is not decoded."""

    url: str = ""
    final_url: str | None = None
    status: int | None = None
    title: str | None = None
    content_type: str | None = None
    error: str | None = None
    message: str | None = None
    data: Any = None
    meta: msgspec.Raw = _NULL
    jsonld: msgspec.Raw = _NULL
    microdata: msgspec.Raw = _NULL
    rdfa: msgspec.Raw = _NULL
    link_list: msgspec.Raw = _NULL
    image_list: msgspec.Raw = _NULL
    text: msgspec.Raw = _NULL
    lang: str | None = None


class ColumnSums:
    """One column over the pages: on how many it is ``filled``, its ``kinds`` of values, and a sample of its numbers."""

    def __init__(self) -> None:
        self.filled = 0
        self.kinds: Counter[str] = Counter()
        self.numbers = Sampled()
        self.low, self.high = math.inf, -math.inf
        self.example = ""

    def add(self, value: Any) -> None:
        """Count one value that is there."""
        self.filled += 1
        kind = type(value)
        if kind is str:
            self.kinds["text"] += 1
            if not self.example:
                self.example = value[:MAX_CHARACTERS]
        elif kind is int or kind is float:
            self.kinds["number"] += 1
            number = float(value) if -MOST < value < MOST else MOST if value > 0 else -MOST
            self.low = min(self.low, number)
            self.high = max(self.high, number)
            self.numbers.add(number)
        else:
            self.kinds[_KINDS.get(kind, "object")] += 1
            if not self.example:
                self.example = shown(value)


_KINDS = {bool: "yes or no", list: "list", dict: "object"}


class RecordSums:
    """What the records of an output come to. ``pages`` are those of them without an error.

    ``trouble`` says in words why not all of it was read. ``columns`` are those that were selected, ``whole`` those of
    which only the number is told: title, and what was asked for with ``--with``.
    """

    def __init__(self) -> None:
        self.rows = self.pages = self.unread = self.left_out = 0
        self.trouble: list[str] = []
        self.columns: dict[str, ColumnSums] = {}
        self.whole: dict[str, int] = {"title": 0}
        self.types: Counter[str] = Counter()
        self.examples: dict[str, list[Example]] = {}
        self.rows_shown = Sampled(EXAMPLE_ROWS)

    def add(self, line: RecordLine) -> None:
        """Count one record."""
        self.rows += 1
        if line.error is not None:
            self._add_failure(line)
            return
        self.pages += 1
        if line.title:
            self.whole["title"] += 1
        types = self.types
        kind = line.content_type or ""
        if kind in types or len(types) < MAX_TYPES:
            types[kind] += 1
        self.rows_shown.add(line)
        if type(line.data) is dict:
            self._add_data(line.data)

    def _add_failure(self, line: RecordLine) -> None:
        code = line.error or ""
        found = self.examples.get(code)
        if found is None:
            if len(self.examples) >= MAX_CODES:
                return
            found = self.examples[code] = []
        if len(found) < MAX_EXAMPLES:
            found.append(Example(line.url[:MAX_CHARACTERS], (line.message or "")[:MAX_CHARACTERS]))

    def _add_data(self, data: dict[str, Any]) -> None:
        columns = self.columns
        for name, value in data.items():
            column = columns.get(name)
            if column is None:
                if len(columns) >= MAX_COLUMNS:
                    self.left_out += 1
                    continue
                column = columns[name] = ColumnSums()
            if value is not None and value not in ([], ""):
                column.add(value)

    def add_content(self, line: RecordLine, names: Sequence[str]) -> None:
        """Count which of the columns of ``names`` a page has."""
        for name in names:
            value = getattr(line, name)
            if value is not None and _is_there(value):
                self.whole[name] = self.whole.get(name, 0) + 1


_NOTHING = (b"null", b"[]", b"{}", b'""', b"")


def _is_there(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value)
    view = memoryview(value)
    return view.nbytes > 4 or bytes(view) not in _NOTHING


def read_records(
    path: str, *, content: Sequence[str] = (), selected: Sequence[SelectedName] = (), into: RecordSums | None = None
) -> RecordSums:
    """Read the output at ``path``; ``content`` are the columns that were asked for with ``--with``.

    What is wrong with the file stands in ``trouble``: nothing is raised for it.
    """
    sums = into or RecordSums()
    names = [name for name in _CONTENT if name in content]
    sums.whole.update({name: 0 for name in names if name not in sums.whole})
    try:
        for line in _lines(path, sums, names, selected):
            sums.add(line)
            if names and line.error is None:
                sums.add_content(line, names)
    except (SourceError, ConfigError, OSError) as error:
        sums.trouble.append(str(error))
    return sums


def _lines(
    path: str, sums: RecordSums, content: Sequence[str], selected: Sequence[SelectedName]
) -> Iterator[RecordLine]:
    kind = earlier_format(path)
    if kind == "parts":
        return chain.from_iterable(_lines(part, sums, content, selected) for part in stored_parts(path))
    if kind == "jsonl":
        return _lines_of_json(path, sums)
    return _lines_of_archive(path, sums) if kind == "warc" else _lines_of_table(path, sums, content, selected)


def _lines_of_json(path: str, sums: RecordSums) -> Iterator[RecordLine]:
    decoder = msgspec.json.Decoder(RecordLine)
    with open_list(path, encoding=None, nul_allowed=True) as blocks:
        for piece in record_pieces(blocks):
            if piece is None:
                sums.unread += 1
                continue
            try:
                found = decoder.decode_lines(piece)
            except (ValueError, RecursionError):
                yield from _one_by_one(piece.split(b"\n"), decoder, sums)
                continue
            yield from found


def _one_by_one(
    lines: Iterable[bytes], decoder: msgspec.json.Decoder[RecordLine], sums: RecordSums
) -> Iterator[RecordLine]:
    """Yield those of the lines that are records: the end of a file that is being written is none, and damage."""
    for line in lines:
        if line.strip():
            try:
                yield decoder.decode(line)
            except (ValueError, RecursionError):
                sums.unread += 1


def _lines_of_archive(path: str, sums: RecordSums) -> Iterator[RecordLine]:
    return _one_by_one(archived_records(path), msgspec.json.Decoder(RecordLine), sums)


def _lines_of_table(
    path: str, sums: RecordSums, content: Sequence[str], selected: Sequence[SelectedName]
) -> Iterator[RecordLine]:
    """Yield the rows of a table as lines of JSON would be."""
    table = OutputTable(path)
    columns = TableColumns(_VALUES, table.known(selected), tuple(content))
    names = [
        (each.name, each if each.many or each.type is not None or not each.plain else None) for each in columns.selected
    ]
    last = len(_VALUES) + len(names)
    for row in table.rows(columns):
        url, status, title, content_type, error, message, data = row[: len(_VALUES)]
        line = RecordLine(_text(url) or "", None, _whole(status), _text(title), _text(content_type), _text(error))
        if line.error is not None:
            line.message = _text(message)
        else:
            found = {
                name: value if each is None else typed(value, each)
                for (name, each), value in zip(names, row[len(_VALUES) : last], strict=True)
            }
            rest = None if data is None else from_json(data)
            line.data = rest if not found else {**found, **rest} if isinstance(rest, dict) else found
            for name, holds in zip(content, row[last:], strict=True):
                if holds:
                    setattr(line, name, _SOMETHING)
        yield line
    sums.unread += table.unread


_VALUES = ("url", "status", "title", "content_type", "error", "message", "data")
_SOMETHING = b"true "
"""Stands for a value of which only it is known that there is one."""


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _whole(value: Any) -> int | None:
    try:
        return None if value is None else int(value)
    except (ValueError, TypeError, OverflowError):
        return None


def shown(value: Any) -> str:
    """Return any value as short text."""
    if isinstance(value, str):
        return value[:MAX_CHARACTERS]
    try:
        return msgspec.json.encode(value).decode("utf-8", "replace")[:MAX_CHARACTERS]
    except (TypeError, ValueError, RecursionError):
        return str(type(value).__name__)
