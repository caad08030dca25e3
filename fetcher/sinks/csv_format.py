"""CSV: a table with its columns fixed at the start, by RFC 4180, in UTF-8.

Law 7: no cell runs. What a spreadsheet would take for a formula gets an apostrophe in front (OWASP, "CSV Injection");
plain numbers stay. Nothing is lost by it: where a cell is apostrophes and then one of those characters, the first
apostrophe is always ours, and a reader may take it off.
"""

from __future__ import annotations

import csv
import json  # its escapes keep lone surrogates, which the names of columns may have
import math
import os
import re
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import msgspec

from fetcher.model import Outcome
from fetcher.sinks.explode import exploder_for
from fetcher.sinks.layout import DEFAULT_LAYOUT, Layout, RecordMaker, to_json, well_formed
from fetcher.sinks.stream import StreamSink

__all__ = ["CSVSink", "defuse", "original"]

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

MAX_PLAIN_INT = 1 << 64
"""An integer beyond it, either way, is written as JSON writes it, so that Python does not refuse its digits."""

_FORMULA_STARTS = "=+\\-@\t\r\n\0＝＋－＠"  # the wide ones run where the keyboard types them
_FORMULA = re.compile(f"'*[{_FORMULA_STARTS}]")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


class CSVSink(StreamSink):
    """Write each outcome as a row: the columns of a record, then the list's own, then one for each selected name.

    ``layout.fields`` names the list's own columns; without it the first outcome's are taken, and ``()`` means none. A
    name that is taken already gets ``row_`` in front, a selected one ``data_``. Where a row may have more than these
    columns, that is written as JSON in ``fields`` and ``data``: no value is dropped.
    """

    def __init__(self, path: str | os.PathLike[str], layout: Layout = DEFAULT_LAYOUT, *, fresh: bool = False) -> None:
        super().__init__(path, layout, fresh=fresh)
        self._fields = layout.fields
        self._select = layout.select
        wanted = layout.columns
        self._columns = [name for name in wanted if name not in ("fields", "data")]
        self._values = RecordMaker([*self._columns, "fields", "data"]).values
        self._wants_fields, self._wants_data = "fields" in wanted, "data" in wanted
        # A column of JSON for what has no column of its own, where there may be such.
        self._rest_of_fields = self._wants_fields and layout.free_fields
        self._rest_of_data = self._wants_data and layout.free_data
        self._line = csv.writer(_RowEncoder()).writerow
        self._exploder = exploder_for(layout, flat=True)
        self.explodes = self._exploder is not None
        before = self._columns.index("id") if self.explodes else 0
        self._id = re.compile(rb'(?:(?:"(?:[^"]++|"")*+"|[^",]*+),){%d}([0-9]+)' % before)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fields is None:
            await self.output.write(self.preamble(empty=True))
        await super().__aexit__(kind, error, trace)

    def encode(self, outcome: Outcome) -> bytes:
        """Return one row, or one for each item; the first decides about the columns where none were named."""
        if self._fields is None:
            self._fields = tuple(outcome.request.fields or ())
        if self._exploder is not None:
            return b"".join(map(self._row_of, self._exploder.lines(outcome)))
        return self._row_of(outcome)

    def _row_of(self, outcome: Outcome) -> bytes:
        *values, listed, data = self._values(outcome)
        cells = [_cell(value) for value in values]
        own: list[Any] = []
        selected: list[Any] = []
        if self._wants_fields:
            fields = dict(listed or ())
            own = [_cell(fields.pop(name, None)) for name in self._fields or ()]
            if self._rest_of_fields:
                cells.append(_json(fields or None))
        if self._wants_data:
            selected = [""] * len(self._select)
            if self._select and isinstance(data, Mapping):
                data = dict(data)
                selected = [_cell(data.pop(name, None)) for name in self._select]
                data = data or None
            if self._rest_of_data:
                cells.append(_json(data))
        return self._encode(cells + own + selected)

    def preamble(self, *, empty: bool = False) -> bytes:
        """Return the header, or nothing while the columns are unknown; an ``empty`` table has none of the list's own."""
        if self._fields is None:
            if not empty:
                return b""
            self._fields = ()
        names = [
            *self._columns,
            *["fields"] * self._rest_of_fields,
            *["data"] * self._rest_of_data,
        ]
        own = self._fields if self._wants_fields else ()
        for prefix, more in (("row_", own), ("data_", self._select if self._wants_data else ())):
            for name in more:
                column = name
                while column in names:
                    column = prefix + column
                names.append(column)
        header = self._encode([defuse(name) for name in names])
        return BYTE_ORDER_MARK + header if self.layout.byte_order_mark else header

    def state(self) -> str:
        """Return the names of the list's own columns."""
        return "" if self._fields is None else json.dumps(self._fields)

    def restore(self, state: str) -> None:
        """Take the names of the list's own columns, in place of those known so far."""
        if state:
            try:
                self._fields = msgspec.convert(json.loads(state), tuple[str, ...])
            except RecursionError:
                raise ValueError("nested too deep") from None

    def split(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the header and the rows; a line that ends inside quotes goes on in the next."""
        row: list[bytes] = []
        quoted = False
        for line in lines:
            quoted ^= bool(line.count(b'"') & 1)
            row.append(line)
            if not quoted:
                yield row[0] if len(row) == 1 else b"".join(row)
                row = []
        if row:
            yield b"".join(row)

    def id_of(self, record: bytes) -> int:
        """Return the id of a row. Raises ``ValueError``."""
        found = self._id.match(record)
        if found is None:
            raise ValueError("a row without an id")
        return int(found[1])

    def _encode(self, cells: list[Any]) -> bytes:
        line: str = self._line(cells)
        try:
            return line.encode()
        except UnicodeEncodeError:
            return well_formed(line).encode()


def defuse(text: str) -> str:
    """Return ``text`` with an apostrophe in front where a spreadsheet would run it, or take one of its own for ours.

    >>> defuse("=1+1"), defuse("-5"), defuse("plain")
    ("'=1+1", '-5', 'plain')
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def original(text: str) -> str:
    """Return a cell as it was before ``defuse``.

    >>> original("'=1+1"), original("'quoted'")
    ('=1+1', "'quoted'")
    """
    return text[1:] if text[:1] == "'" and _FORMULA.match(text) else text


def _cell(value: Any) -> Any:
    kind = type(value)
    if kind is str:
        return defuse(value)
    if value is None or (kind is int and -MAX_PLAIN_INT < value < MAX_PLAIN_INT):
        return value
    if kind is float:
        return value if math.isfinite(value) else None
    if kind is bool:
        return "true" if value else "false"
    text = to_json(value)
    return defuse(msgspec.json.decode(text, type=str)) if text.startswith(b'"') else text.decode()


def _json(value: Any) -> str:
    return "" if value is None else to_json(value).decode()


class _RowEncoder:
    """A file for ``csv.writer`` whose ``write`` returns the row: ``writerow`` returns it on."""

    def write(self, row: str) -> str:
        return row
