"""Reads SQLite: the table ``pages`` of an output of ours, or of any database that has one with a column of URLs.

The file is only read, a row at a time, in the order of ``id`` where there is one, else as the rows lie. Text is
whatever its column says it is; bytes are the text that they are in UTF-8, or else a ``data:`` URL (RFC 2397).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any
from urllib.parse import quote_from_bytes

from fetcher.errors import SourceError
from fetcher.model import Request
from fetcher.sinks.child_tables import CHILD_TABLES, ChildTable
from fetcher.sources.children import items_of
from fetcher.sources.columns import HOLDS_NOTHING, ColumnError, distinct, find_carried, find_url, is_record
from fetcher.sources.inputs import ListOptions
from fetcher.sources.lines import reason_of, replaced, text_of_bytes
from fetcher.sources.rows import MAX_ROW_BYTES, TOO_LARGE_ROW, Row, RowNumbers, bad_row, flaw_of_url, read_url

__all__ = [
    "TABLE",
    "count_sqlite",
    "read_sqlite",
    "sqlite_lists",
    "sqlite_names",
    "sqlite_records",
    "sqlite_rows",
    "sqlite_values",
]

TABLE = "pages"
"""The table with the rows."""

MAX_ITEMS = 100
"""Items of a list that are told of a row where it is only looked at: more are never shown."""

_MAGIC = b"SQLite format 3\0"
_Fields = Callable[[Mapping[str, Any]], dict[str, Any]]


def read_sqlite(path: str, *, numbers: RowNumbers, options: ListOptions) -> Iterator[Row]:
    """Yield the rows of a database. Raises ``SourceError`` that names the file, and the row where there is one."""
    row = 0
    try:
        with closing(_open(path)) as database:
            names = [str(column[1]) for column in database.execute(f"pragma table_info({TABLE})")]
            if not names:
                raise SourceError(f"{path}: has no table {TABLE!r}, which an output of ours has")
            try:
                url_column, chosen, fields_of = _plan(names, options)
            except ColumnError as error:
                raise SourceError(f"{path}: {error}") from None
            order = "id" if "id" in names else "rowid"
            columns = ", ".join(map(_quoted, (url_column, *chosen)))
            for listed, *values in database.execute(f"select {columns} from {TABLE} order by {order}"):  # noqa: S608 - all quoted
                row += 1
                yield _row(
                    next(numbers), listed, fields_of(dict(zip(chosen, values, strict=True))), f"{path}:row {row}"
                )
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise SourceError(f"{path}:row {row + 1}: cannot be read: {error}") from None


def sqlite_records(path: str, *, max_body: int) -> Iterator[dict[str, Any]]:
    """Yield the rows with all of their columns. A ``body`` of over ``max_body`` bytes is its size. Raises ``SourceError``."""
    row = 0
    try:
        with closing(_open(path)) as database:
            names = [str(column[1]) for column in database.execute(f"pragma table_info({TABLE})")]
            wanted = ", ".join(
                f"case when length(body) <= {max_body:d} then body else length(body) end"
                if name == "body"
                else _quoted(name)
                for name in names
            )
            order = "id" if "id" in names else "rowid"
            for values in database.execute(f"select {wanted} from {TABLE} order by {order}"):  # noqa: S608 - all quoted
                row += 1
                yield dict(zip(names, values, strict=True))
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise SourceError(f"{path}:row {row + 1}: cannot be read: {error}") from None


def sqlite_rows(path: str, lists: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Yield the rows of an output of ours, by the names of its columns; ``lists`` have tables of their own.

    Raises ``SourceError`` and ``sqlite3.Error``.
    """
    with closing(_open(path)) as database:
        names = _names_of(database, TABLE)
        if "id" not in names:
            raise SourceError(f"{path}: has no table {TABLE!r} with an 'id', which an output of ours has")
        children = _children_of(database)
        tables = _lists_of(database)
        found = {name: table for name in lists for table in (f"data_{name}", name) if table in tables}
        columns = ", ".join(map(_quoted, names))
        for values in database.execute(f"select {columns} from {TABLE} order by id"):  # noqa: S608 - all quoted
            record = dict(zip(names, values, strict=True))
            for name, table in found.items():
                query = f"select value from {_quoted(table)} where id = ? order by position"  # noqa: S608 - as above
                record[f"data_{name}"] = [value for (value,) in database.execute(query, (record["id"],))]
            for child in children:
                record[child.column] = _items_of(database, child, record)
            yield record


def sqlite_values(
    path: str, columns: Sequence[str], held: Sequence[str] = (), lists: Collection[str] = ()
) -> Iterator[tuple[Any, ...]]:
    """Yield of each row the values of ``columns``, and of those of ``held`` 1 or 0: whether they hold something.

    ``lists`` are tables of such columns: their first items are told, as JSON. What there is not is ``None``. Raises
    ``SourceError`` and ``sqlite3.Error``.
    """
    with closing(_open(path)) as database:
        names = _names_of(database, TABLE)
        if "id" not in names:
            raise SourceError(f"{path}: has no table {TABLE!r} with an 'id', which an output of ours has")
        children = {child.column: child.name for child in _children_of(database)}

        def value_of(name: str) -> str:
            if name in lists:
                items = f"select value from {_quoted(name)} where id = {TABLE}.id order by position limit {MAX_ITEMS}"  # noqa: S608 - all quoted
                return f"(select json_group_array(value) from ({items}))"  # noqa: S608 - as above
            return _quoted(name) if name in names else "null"

        def holds(name: str) -> str:
            if name in children:
                return f"exists(select 1 from {children[name]} where id = {TABLE}.id)"  # noqa: S608 - a name of ours
            nothing = ", ".join(f"'{value}'" for value in HOLDS_NOTHING)
            return f"{_quoted(name)} is not null and {_quoted(name)} not in ({nothing})" if name in names else "0"

        wanted = ", ".join([*map(value_of, columns), *map(holds, held)])
        database.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
        yield from database.execute(f"select {wanted} from {TABLE}")  # noqa: S608 - all quoted


def sqlite_lists(path: str) -> frozenset[str]:
    """Return the tables of an output of ours that are lists of values. Raises ``SourceError`` and ``sqlite3.Error``."""
    with closing(_open(path)) as database:
        return _lists_of(database)


def _lists_of(database: sqlite3.Connection) -> frozenset[str]:
    tables = [str(name) for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
    return frozenset(name for name in tables if _names_of(database, name) == ["id", "position", "value"])


def _children_of(database: sqlite3.Connection) -> list[ChildTable]:
    return [
        child
        for child in CHILD_TABLES
        if _names_of(database, child.name) == ["id", "position", *(column.name for column in child.columns)]
    ]


def _items_of(database: sqlite3.Connection, child: ChildTable, record: Mapping[str, Any]) -> list[Any] | None:
    """Return the links or images of a page; ``None`` where it is none, or its body could have none."""
    columns = ["id", "position", *(column.name for column in child.columns)]
    query = f"select {', '.join(columns)} from {child.name} where id = ? order by position"  # noqa: S608 - names of ours
    rows = (dict(zip(columns, row, strict=True)) for row in database.execute(query, (record["id"],)))
    return items_of(child, rows, record)


def _names_of(database: sqlite3.Connection, table: str) -> list[str]:
    return [str(column[1]) for column in database.execute(f"pragma table_info({_quoted(table)})")]


def count_sqlite(path: str) -> int:
    """Return about how many rows there are, from above. Raises ``SourceError`` or ``sqlite3.Error``."""
    with closing(_open(path)) as database:
        return int(database.execute(f"select max(rowid) from {TABLE}").fetchone()[0] or 0)  # noqa: S608 - a name of ours


def sqlite_names(path: str) -> list[str]:
    """Return the names of the columns of the table. Raises ``SourceError`` or ``sqlite3.Error``."""
    with closing(_open(path)) as database:
        return [str(column[1]) for column in database.execute(f"pragma table_info({TABLE})")]


def _row(number: int, listed: Any, fields: dict[str, Any], where: str) -> Row:
    """Return a row of the table."""
    if isinstance(listed, bytes):
        listed = listed.decode(errors="surrogateescape")
    if not isinstance(listed, str):
        return bad_row(number, "", f"{where}: {'no URL' if listed is None else 'the URL is a number'}", fields or None)
    if sum(len(value) for value in fields.values() if isinstance(value, str)) > MAX_ROW_BYTES:
        return bad_row(number, replaced(listed), f"{where}: {TOO_LARGE_ROW}")
    url, flaw = read_url(listed)
    flaw = flaw_of_url(url, flaw)
    if flaw:
        return bad_row(number, replaced(url), f"{where}: the URL {flaw}", fields or None)
    return Request(number, url, (), fields or None)


def _plan(names: Sequence[str], options: ListOptions) -> tuple[str, list[str], _Fields]:
    """Return the column of the URL, those to be read beside it, and what makes fields of them. Raises ``ColumnError``."""
    at, _ = find_url(names, options.url_column)
    if is_record(names):
        from fetcher.sources.records import carried_of, fields_of

        carry = options.carry
        wanted = [name for name in names if name == "fields" or name in (carry or ())]
        return names[at], wanted, lambda record: carried_of(fields_of(record.get("fields")), record, carry)
    chosen = range(len(names)) if options.carry is None else find_carried(names, options.carry)
    unique = distinct(names)
    keys = {names[index]: unique[index] for index in chosen if index != at}
    return names[at], list(keys), lambda record: {keys[name]: _plain(value) for name, value in record.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return text_of_bytes(value)
    return replaced(value) if isinstance(value, str) and not value.isascii() else value


def _quoted(name: str) -> str:
    """Return a name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def _open(path: str) -> sqlite3.Connection:
    """Open a database to read it. Raises ``SourceError`` and ``sqlite3.Error``."""
    try:
        with open(path, "rb") as file:
            head = file.read(len(_MAGIC))
    except OSError as error:
        raise SourceError(f"{path}: {reason_of(error)}") from None
    except ValueError:  # a NUL in the name
        raise SourceError(f"{path!r}: no such file") from None
    if head != _MAGIC:
        raise SourceError(f"{path}: {'is not a SQLite database' if head else 'is empty, not a SQLite database'}")
    address = f"file:{quote_from_bytes(os.fsencode(os.path.abspath(path)))}?mode=ro"
    # A database in WAL mode wants to write beside itself. Where it may not, and nothing was left there, it is read as it is.
    if not os.access(os.path.dirname(os.path.abspath(path)), os.W_OK) and not os.path.exists(f"{path}-wal"):
        address += "&immutable=1"
    database = sqlite3.connect(address, uri=True, check_same_thread=False)
    database.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
    return database
