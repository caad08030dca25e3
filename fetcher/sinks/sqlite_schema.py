"""The tables of an SQLite output: which columns they have, and how an outcome becomes a row of each.

Laws: whatever a list's header or a page says, no name and no value of it costs the record: names are quoted, and where
they clash or are SQLite's own they get a prefix (7); a value is stored as it is read back, so that a checksum tells
whether it was changed (6).

``pages`` has the record's columns, then ``host``, then the list's own and one for each selected name. ``NAME[]`` has a
table of its own: ``id`` of the page, ``position`` from 0, and ``value``. So have links and images
(``child_tables.py``).
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from fetcher.errors import InvalidURL
from fetcher.model import Outcome
from fetcher.sinks.child_tables import CHILD_COLUMNS, ChildTable, child_tables
from fetcher.sinks.explode import exploder_for
from fetcher.sinks.layout import Layout, RecordMaker, to_json, well_formed
from fetcher.urls import parse

__all__ = ["APPLICATION", "BATCHES", "FORMAT", "PAGES", "ListTable", "RowMaker", "TableSchema", "as_chunk", "quoted"]

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

_CHILD_TYPES = {"text": "TEXT", "texts": "TEXT", "whole": "INTEGER", "flag": "INTEGER"}
_SELECTED_TYPES = {"int": "INTEGER", "bool": "INTEGER", "float": "REAL", "price": "REAL"}

_JSON = ("redirects", "headers")
_ROWID_NAMES = frozenset({"rowid", "oid", "_rowid_"})
_FOLD = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}  # SQLite folds ASCII alone
_encode = msgspec.msgpack.Encoder().encode


class ListTable:
    """A table with a row for each item of a page, of these ``columns``, each with its type; ``name`` as it stands in the file.

    The items are values where there is one column, and else lists of them.
    """

    def __init__(self, name: str, columns: Sequence[tuple[str, str]]) -> None:
        self.name = name
        table, names = quoted(name), ", ".join(column for column, _ in columns)
        made = ", ".join(f"{column} {kind}" for column, kind in columns)
        self.create = (
            f"CREATE TABLE {table}(id INTEGER, position INTEGER, {made}, PRIMARY KEY(id, position)) WITHOUT ROWID"
        )
        self.insert = f"INSERT INTO {table} VALUES (?, ?{', ?' * len(columns)})"  # noqa: S608  (names are quoted, or ours)
        self.delete = f"DELETE FROM {table} WHERE id = ?"  # noqa: S608  (as above)
        self._select = f"SELECT {names} FROM {table} WHERE id = ? ORDER BY position"  # noqa: S608  (as above)
        self._single = len(columns) == 1

    def rows(self, id_: int, items: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows for the items of a page."""
        for position, item in enumerate(items):
            yield (id_, position, item) if self._single else (id_, position, *item)

    def items(self, db: sqlite3.Connection, id_: int) -> list[Any]:
        """Return the items of a page as they are read back."""
        found = db.execute(self._select, (id_,)).fetchall()
        return [value for (value,) in found] if self._single else found


class TableSchema:
    """The tables for records of a ``layout`` from a list with these ``fields``."""

    def __init__(self, layout: Layout, fields: Sequence[str]) -> None:
        wanted = layout.columns
        names = [name for name in wanted if name not in ("fields", "data") and name not in CHILD_COLUMNS]
        self.children = child_tables(wanted)
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
        tables = {PAGES, BATCHES, *(f"{PAGES}_{name}" for name in INDEXED), *(child.name for child in self.children)}
        self.list_tables = [
            ListTable(table, [("value", self._kinds.get(name, "TEXT"))])
            for name, table in zip(
                self.lists, _free_names(self.lists, tables, "data_", reserved="sqlite_"), strict=True
            )
        ]
        self.list_tables += [
            ListTable(child.name, [(name, _CHILD_TYPES[kind]) for name, kind in child.columns])
            for child in self.children
        ]
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
        made |= {table.name: table.create for table in self.list_tables}
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
        columns = [
            name for name in layout.columns if name not in ("id", "fields", "data") and name not in CHILD_COLUMNS
        ]
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
        self._children = [
            (child, [_CONVERTERS[_CHILD_TYPES[kind]] for _, kind in child.columns]) for child in schema.children
        ]
        self._exploder = exploder_for(layout, flat=True)

    def chunk(self, outcome: Outcome) -> bytes:
        """Return the rows of ``outcome`` and its items in MessagePack, with nothing in it that SQLite would change."""
        children = [_child_items(child, converters, outcome) for child, converters in self._children]
        if self._exploder is None:
            row, lists = self._row(outcome)
            return as_chunk(row, lists + children)
        rows, own = zip(*map(self._row, self._exploder.lines(outcome)), strict=True)
        return as_chunk(list(rows), own[0] + children)

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


def _child_items(child: ChildTable, converters: Sequence[Converter], outcome: Outcome) -> list[list[Any]]:
    return [[convert(value) for convert, value in zip(converters, item, strict=True)] for item in child.items(outcome)]


def _repaired(value: Any) -> Any:
    if isinstance(value, str):
        return well_formed(value)
    return list(map(_repaired, value)) if isinstance(value, list | tuple) else value


_CONVERTERS: dict[str, Converter] = {"INTEGER": _whole, "REAL": _real, "TEXT": _text}
