"""What an output of a job tells of its rows that the ledger does not know: URLs, messages, titles and selected fields.

Law 3: the file is read in a stream; what is kept of it is bounded in number and in length. Law 7: every value is the
web's, and is escaped by whoever shows it. What cannot be read is told, and ends no report.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from fetcher.errors import ConfigError, SourceError
from fetcher.model import CONTENT_COLUMNS
from fetcher.report.distributions import Sampled
from fetcher.sources.earlier import RecordFile, SelectedName, earlier_format
from fetcher.sources.lines import OverlongLine, open_list, whole_lines

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
            number = min(MOST, max(-MOST, value))
            self.low, self.high = min(self.low, number), max(self.high, number)
            self.numbers.add(float(number))
        else:
            self.kinds[_KINDS.get(kind, "object")] += 1
            if not self.example:
                self.example = shown(value)


_KINDS = {bool: "yes or no", list: "list", dict: "object"}


class RecordSums:
    """What the records of an output come to. ``pages`` are those of them without an error.

    ``trouble`` says in words why not all of it was read. ``columns`` are those that were selected, ``whole`` those of which
    only the number is told: title, and what was asked for with ``--with``.
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
        for line in _lines(path, sums, selected):
            sums.add(line)
            if names and line.error is None:
                sums.add_content(line, names)
    except (SourceError, ConfigError, OSError) as error:
        sums.trouble.append(str(error))
    return sums


def _lines(path: str, sums: RecordSums, selected: Sequence[SelectedName]) -> Iterator[RecordLine]:
    if earlier_format(path) == "jsonl":
        yield from _lines_of_json(path, sums)
        return
    file = RecordFile(path, selected, wanted=RecordLine.__struct_fields__)
    for record in file.records():
        yield _line_of(record)
    sums.unread += file.unread


def _lines_of_json(path: str, sums: RecordSums) -> Iterator[RecordLine]:
    decoder = msgspec.json.Decoder(RecordLine)
    with open_list(path, encoding=None, nul_allowed=True) as blocks:
        for piece in whole_lines(blocks):
            if isinstance(piece, OverlongLine):
                sums.unread += 1
                continue
            try:
                found = decoder.decode_lines(piece)
            except (ValueError, RecursionError):
                yield from _one_by_one(piece, decoder, sums)
                continue
            yield from found


def _one_by_one(piece: bytes, decoder: msgspec.json.Decoder[RecordLine], sums: RecordSums) -> Iterator[RecordLine]:
    """Yield the lines of a piece that has one which is no record: the end of a file that is being written, or damage."""
    for line in piece.split(b"\n"):
        if line.strip():
            try:
                yield decoder.decode(line)
            except (ValueError, RecursionError):
                sums.unread += 1


def _line_of(record: dict[str, Any]) -> RecordLine:
    """Return a record of a table as a line of JSON would be."""
    line = RecordLine(
        url=_text(record.get("url")) or "",
        final_url=_text(record.get("final_url")),
        status=record.get("status"),
        title=_text(record.get("title")),
        content_type=_text(record.get("content_type")),
        error=_text(record.get("error")),
        message=_text(record.get("message")),
        data=record.get("data"),
        lang=_text(record.get("lang")),
    )
    for name in _CONTENT:
        if name in record and name != "lang" and record[name] and record[name] not in _EMPTY:
            setattr(line, name, b"1")
    return line


_EMPTY = ("null", "[]", "{}")


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def shown(value: Any) -> str:
    """Return any value as short text."""
    if isinstance(value, str):
        return value[:MAX_CHARACTERS]
    try:
        return msgspec.json.encode(value).decode("utf-8", "replace")[:MAX_CHARACTERS]
    except (TypeError, ValueError, RecursionError):
        return str(type(value).__name__)
