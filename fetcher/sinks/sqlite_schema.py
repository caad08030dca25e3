"""The tables of an SQLite output: which columns they have, and how an outcome becomes a row of each.

Laws: whatever a list's header or a page says, no name and no value of it costs the record: names are quoted, and where
they clash or are SQLite's own they get a prefix (7); a value is stored as it is read back, so that a checksum tells
whether it was changed (6).

``pages`` has the record's columns, then ``host``, then the list's own and one for each selected name. ``NAME[]`` has a
table of its own: ``id`` of the page, ``position`` from 0, and ``value``.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from fetcher.errors import InvalidURL
from fetcher.model import Outcome
from fetcher.sinks.explode import exploder_for
from fetcher.sinks.layout import Layout
from fetcher.sinks.record import RecordMaker, to_json, well_formed
from fetcher.urls import parse

__all__ = ["APPLICATION", "BATCHES", "FORMAT", "PAGES", "RowMaker", "TableSchema", "as_chunk", "quoted"]

APPLICATION = 0x66657470
"""``fetp``, at byte 68 of the file."""

FORMAT = 1
PAGES = "pages"
BATCHES = "fetcher_batches"
MAX_COLUMNS = 1_990
"""SQLite has 2,000 (sqlite.org/limits.html); what a list has beyond that goes into the column ``fields``, as JSON."""

Converter: TypeAlias = Callable[[Any], Any]
MAX_INT = 2**63 - 1
MAX_FLOAT = sys.float_info.max
INDEXED = ("host", "error", "status")

_TYPES = {
    **dict.fromkeys(("id", "item", "status", "length", "bytes", "links", "attempts", "truncated", "depth"), "INTEGER"),
    **dict.fromkeys(("elapsed", "waited"), "REAL"),
    "body": "BLOB",
}
"""Those of the record's columns that are no TEXT."""

_SELECTED_TYPES = {"int": "INTEGER", "bool": "INTEGER", "float": "REAL", "price": "REAL"}

_JSON = ("redirects", "headers")
_ROWID_NAMES = frozenset({"rowid", "oid", "_rowid_"})
_FOLD = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}  # SQLite folds ASCII alone
_encode = msgspec.msgpack.Encoder().encode


class TableSchema:
    """The tables for records of a ``layout`` from a list with these ``fields``."""

    def __init__(self, layout: Layout, fields: Sequence[str]) -> None:
        wanted = layout.columns
        names = [name for name in wanted if name not in ("fields", "data")]
        self.lists = [name for name in layout.select_lists if "data" in wanted]
        self.selected = [name for name in layout.select if "data" in wanted and name not in self.lists]
        room = MAX_COLUMNS - len(names) - len(self.selected) - 3
        self.fields = list(fields[:room]) if "fields" in wanted else []
        """The list's own columns that are columns here."""
        self.rest_of_fields = "fields" in wanted and (layout.free_fields or len(fields) > room)
        self.rest_of_data = "data" in wanted and layout.free_data
        names += ["fields"] * self.rest_of_fields + ["data"] * self.rest_of_data + ["host"]
        taken = {*map(_folded, names), "id", *_ROWID_NAMES}
        own = _free_names(self.fields, taken, "row_") + _free_names(self.selected, taken, "data_")
        self.columns = [*names, *own]
        self.explodes = layout.explode is not None
        """Whether a page has several rows: ``id`` and ``item`` are the key then."""
        self._kinds = {name: _SELECTED_TYPES.get(kind, "TEXT") for name, kind in layout.select_types}
        types = [_TYPES.get(name, "TEXT") for name in names] + ["TEXT"] * len(self.fields)
        types += [self._kinds.get(name, "TEXT") for name in self.selected]
        tables = {PAGES, BATCHES, *(f"{PAGES}_{name}" for name in INDEXED)}
        self.list_tables = _free_names(self.lists, tables, "data_", reserved="sqlite_")
        self.statements = self._statements(types)
        """Name -> the statement that makes the table or the index, as it stands in the file."""
        values = [name for name in self.columns if name != "id"]
        key, order = ("id", " ORDER BY item") if self.explodes else ("rowid", "")
        self.insert = f"INSERT INTO {PAGES} ({key}, {', '.join(map(quoted, values))}) VALUES (?{', ?' * len(values)})"  # noqa: S608  (names are quoted)
        self.select = f"SELECT {key}, {', '.join(map(quoted, values))} FROM {PAGES} WHERE {key} = ?{order}"  # noqa: S608  (as above)
        self.delete = f"DELETE FROM {PAGES} WHERE {key} = ?"  # noqa: S608  (as above)

    def converters(self, names: Iterable[str]) -> list[Converter]:
        """Return what makes a value of each of these selected names one that its column keeps as it is."""
        return [_CONVERTERS[self._kinds.get(name, "TEXT")] for name in names]

    def image(self) -> bytes:
        """Return the file of an empty output, which keeps a write-ahead log."""
        with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
            for statement in self.statements.values():
                db.execute(statement)
            db.execute(f"PRAGMA application_id={APPLICATION}")
            db.execute(f"PRAGMA user_version={FORMAT}")
            image = bytearray(db.serialize())
        image[18:20] = b"\2\2"  # sqlite.org/fileformat2.html, 1.3.3: no journal is played for this, or left by it
        return bytes(image)

    def _statements(self, types: Sequence[str]) -> dict[str, str]:
        columns = [
            f"{quoted(name)} {kind}{' PRIMARY KEY' if name == 'id' and not self.explodes else ''}"
            for name, kind in zip(self.columns, types, strict=True)
        ]
        if self.explodes:
            columns.append("PRIMARY KEY(id, item)")
        made = {PAGES: f"CREATE TABLE {PAGES}({', '.join(columns)})"}
        for name, table in zip(self.lists, self.list_tables, strict=True):
            kind = self._kinds.get(name, "TEXT")
            made[table] = (
                f"CREATE TABLE {quoted(table)}(id INTEGER, position INTEGER, value {kind}, "
                "PRIMARY KEY(id, position)) WITHOUT ROWID"
            )
        made[BATCHES] = (
            f"CREATE TABLE {BATCHES}(position INTEGER PRIMARY KEY, records INTEGER NOT NULL, ids BLOB NOT NULL)"
        )
        for name in INDEXED:
            if name in self.columns:
                made[f"{PAGES}_{name}"] = f"CREATE INDEX {PAGES}_{name} ON {PAGES}({name})"
        return made


class RowMaker:
    """Makes chunks of outcomes: a row of ``pages``, the id first, and behind it the items of each list.

    Where a page has several rows, the chunk is a list of rows and then those items.
    """

    def __init__(self, layout: Layout, schema: TableSchema) -> None:
        columns = [name for name in layout.columns if name not in ("id", "fields", "data")]
        self._values: Callable[[Outcome], tuple[Any, ...]] = RecordMaker(
            ["id", *columns, "fields", "data"], binary=True
        ).values
        self._schema = schema
        places = {name: place for place, name in enumerate(columns, 1)}
        self._json = [places[name] for name in _JSON if name in places]
        self._whole = [place for name, place in places.items() if _TYPES.get(name) == "INTEGER"]
        self._real = [place for name, place in places.items() if _TYPES.get(name) == "REAL"]
        self._selected = list(zip(schema.selected, schema.converters(schema.selected), strict=True))
        self._lists = list(zip(schema.lists, schema.converters(schema.lists), strict=True))
        self._exploder = exploder_for(layout, flat=True)

    def chunk(self, outcome: Outcome) -> bytes:
        """Return the rows of ``outcome`` and its items in MessagePack, with nothing in it that SQLite would change."""
        if self._exploder is None:
            return as_chunk(*self._row(outcome))
        rows, lists = zip(*map(self._row, self._exploder.lines(outcome)), strict=True)
        return as_chunk(list(rows), lists[0])

    def _row(self, outcome: Outcome) -> tuple[list[Any], list[list[Any]]]:
        *values, fields, data = self._values(outcome)
        for place in self._json:
            value = values[place]
            values[place] = None if value is None else to_json(value).decode() if value else "[]"
        for place in self._whole:
            value = values[place]
            if value is not None:
                values[place] = _whole(value)
        for place in self._real:
            values[place] = _real(values[place])
        schema = self._schema
        own = dict(fields or ()) if schema.fields or schema.rest_of_fields else {}
        columns: list[Any] = [_text(own.pop(name, None)) for name in schema.fields]
        if schema.rest_of_fields:
            values.append(_json(own or None))
        lists: list[list[Any]] = [[] for _ in schema.lists]
        if (schema.selected or schema.lists) and isinstance(data, Mapping):
            data = dict(data)
            columns += [convert(data.pop(name, None)) for name, convert in self._selected]
            lists = [_items(data.pop(name, None), convert) for name, convert in self._lists]
            data = data or None
        else:
            columns += [None] * len(schema.selected)
        if schema.rest_of_data:
            values.append(_json(data))
        values.append(_host_of(outcome))
        return [*values, *columns], lists


def as_chunk(values: Sequence[Any], lists: Sequence[Sequence[Any]]) -> bytes:
    """Return a row and its lists as bytes; the same of a row that is read back as of the one that was written."""
    row = [*values, lists] if lists else values
    try:
        return _encode(row)
    except UnicodeEncodeError:
        return _encode(_repaired(row))


def quoted(name: str) -> str:
    """Return a name as SQL has it (sqlite.org/lang_keywords.html).

    >>> quoted('a "b" c')
    '"a ""b"" c"'
    """
    return '"' + name.replace('"', '""') + '"'


def _free_names(names: Iterable[str], taken: set[str], prefix: str, *, reserved: str = "\0") -> list[str]:
    """Return a name for each of ``names`` that is not taken, whatever the case of its letters, and take it.

    None begins with what is ``reserved``.
    """
    found = []
    for name in names:
        free = well_formed(name).replace("\0", "\ufffd")
        while _folded(free) in taken or _folded(free).startswith(reserved):
            free = prefix + free
        taken.add(_folded(free))
        found.append(free)
    return found


def _folded(name: str) -> str:
    return name.translate(_FOLD)


def _host_of(outcome: Outcome) -> str | None:
    try:
        return parse(outcome.url or outcome.request.url).host or None
    except InvalidURL:
        return None


def _real(value: Any) -> Any:
    """Return a value that a REAL column keeps as it is."""
    kind = type(value)
    if kind is float or kind is int or kind is bool:
        return float(value) if -MAX_FLOAT <= value <= MAX_FLOAT else None
    return _json(value)


def _whole(value: Any) -> Any:
    """Return a value that an INTEGER column keeps as it is: beyond 64 bits the nearest that a float can be."""
    kind = type(value)
    if kind is bool or (kind is int and -MAX_INT <= value <= MAX_INT):
        return int(value)
    if kind is float and value.is_integer() and -MAX_INT <= value <= MAX_INT:
        return int(value)
    return _real(value)


def _text(value: Any) -> str | None:
    """Return a value as text: what is none as JSON writes it."""
    if value is None or type(value) is str:
        return value
    text = to_json(value)
    decoded: str = msgspec.json.decode(text, type=str) if text.startswith(b'"') else text.decode()
    return None if decoded == "null" and text == b"null" else decoded


def _json(value: Any) -> str | None:
    return None if value is None else to_json(value).decode()


def _items(value: Any, convert: Converter) -> list[Any]:
    if value is None:
        return []
    return list(map(convert, value)) if isinstance(value, list | tuple) else [convert(value)]


def _repaired(value: Any) -> Any:
    if isinstance(value, str):
        return well_formed(value)
    return list(map(_repaired, value)) if isinstance(value, list | tuple) else value


_CONVERTERS: dict[str, Converter] = {"INTEGER": _whole, "REAL": _real, "TEXT": _text}
