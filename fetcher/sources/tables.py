"""The outputs of earlier runs that are tables, read by column: of each row nothing but the values that are asked for.

Laws: a row at a time is in memory, or a few megabytes of a row group (3); what cannot be read of a file of lines is
passed over and counted, and everything else that is wrong with a file is a ``SourceError`` (2). A column of which only
it is asked whether it holds something is not made values of Python, where the format allows it.
"""

from __future__ import annotations

import csv
import io
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from operator import itemgetter
from typing import Any

import msgspec

from fetcher.errors import SourceError
from fetcher.model import RECORD_COLUMNS
from fetcher.sources.children import companions_of, parts_of
from fetcher.sources.columns import HOLDS_NOTHING
from fetcher.sources.earlier import MAX_RECORD_BYTES, SelectedName, column_of, earlier_format, record_pieces
from fetcher.sources.lines import open_list, reason_of
from fetcher.sources.records import original_cells

__all__ = ["OutputTable", "TableColumns"]


class TableColumns(msgspec.Struct, frozen=True):
    """What is asked of each row: the ``values`` of columns, what was ``selected``, and of ``held`` whether it holds something."""

    values: tuple[str, ...]
    selected: tuple[SelectedName, ...] = ()
    held: tuple[str, ...] = ()


class OutputTable:
    """An output of ours that is a table. ``unread`` counts the lines that are no rows.

    Raises ``SourceError`` for what cannot be read, when it is made and while it is read, and ``ConfigError`` where a
    library is missing.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.unread = 0
        self._kind = earlier_format(path)
        self._files = parts_of(path) if os.path.isdir(path) else [path]
        if not self._files:
            raise SourceError(f"{path}: is a folder without .parquet files")
        self._lists: frozenset[str] = frozenset()
        with self._told():
            self._names = self._read_names()
        if not set(RECORD_COLUMNS) & set(self._names):
            raise SourceError(f"{path}: is no output of fetcher: it has none of the columns of one")

    def known(self, selected: Sequence[SelectedName]) -> tuple[SelectedName, ...]:
        """Return those of the selected names that the table has."""
        return tuple(each for each in selected if self._place_of(each) is not None)

    def rows(self, columns: TableColumns) -> Iterator[tuple[Any, ...]]:
        """Yield of each row the values, then what was selected, then ``True`` or ``False`` for what is to be held.

        What the table has no column for is ``None``. A list is JSON, where it is none in the table, and may end early.
        """
        read = {"csv": self._cells, "parquet": self._batches, "sqlite": self._selected}[self._kind]
        with self._told():
            yield from read(columns)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SourceError(f"{self.path}: {reason_of(error)}") from error
        except csv.Error as error:
            raise SourceError(f"{self.path}: cannot be read as csv: {error}") from None
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise SourceError(f"{self.path}: cannot be read: {error}") from None

    def _read_names(self) -> list[str]:
        if self._kind == "parquet":
            from fetcher.sources.parquet import parquet_names

            return parquet_names(self._files[0])
        if self._kind == "sqlite":
            from fetcher.sources.sqlite import sqlite_lists, sqlite_names

            self._lists = sqlite_lists(self.path)
            return sqlite_names(self.path)
        with self._open_csv() as records:
            return original_cells(next(records, []))

    def _place_of(self, selected: SelectedName) -> str | None:
        """Return the column of a selected name, or the table of one that is a list in SQLite."""
        if selected.many and self._kind == "sqlite":
            return next((name for name in (f"data_{selected.name}", selected.name) if name in self._lists), None)
        return column_of(selected.name, self._names)

    def _places(self, columns: TableColumns) -> list[str]:
        """Return the columns of what was selected, each once it is known that there is one."""
        return [self._place_of(each) or "" for each in columns.selected]

    # Formats

    @contextmanager
    def _open_csv(self) -> Iterator[Iterator[list[str]]]:
        before = csv.field_size_limit(MAX_RECORD_BYTES)
        try:
            with open_list(self.path, encoding=None, nul_allowed=True) as blocks:
                yield csv.reader(chain.from_iterable(map(self._texts, record_pieces(blocks))))
        finally:
            csv.field_size_limit(before)

    def _texts(self, piece: bytes | None) -> io.StringIO | tuple[()]:
        """Return whole lines as something that yields each of them."""
        if piece is None:  # one that is too long
            self.unread += 1
            return ()
        return io.StringIO(piece.removeprefix(b"\xef\xbb\xbf").decode(errors="replace"), newline="")

    def _cells(self, columns: TableColumns) -> Iterator[tuple[Any, ...]]:
        places = {name: at for at, name in enumerate(self._names)}
        width = len(self._names)
        wanted = (*columns.values, *self._places(columns), *columns.held)
        # What there is no column for is taken from behind the row, where an empty cell is put.
        chosen = _chooser([places.get(name, width) for name in wanted])
        first = len(columns.values) + len(columns.selected)
        held = range(first, first + len(columns.held))
        with self._open_csv() as records:
            next(records, None)
            for cells in records:
                if len(cells) != width:
                    self.unread += 1
                    continue
                cells.append("")
                values: list[Any] = [
                    cell or None if cell[:1] != "'" else original_cells([cell])[0] for cell in chosen(cells)
                ]
                for at in held:
                    values[at] = values[at] is not None and values[at] not in HOLDS_NOTHING
                yield tuple(values)

    def _batches(self, columns: TableColumns) -> Iterator[tuple[Any, ...]]:
        from fetcher.sources.parquet import parquet_values

        values = (*columns.values, *self._places(columns))
        beside = companions_of(self.path, ids=True) if "id" in self._names else []
        beside = [each for each in beside if each.child.column in columns.held]
        places = [(1 + len(values) + columns.held.index(each.child.column), each) for each in beside]
        for file in self._files:
            for row in parquet_values(file, ("id", *values), columns.held):
                for at, each in places:
                    row = (*row[:at], each.holds(row[0]), *row[at + 1 :])  # noqa: PLW2901 - the same with what is beside it
                yield row[1:]
        for each in beside:
            each.end(self.path)

    def _selected(self, columns: TableColumns) -> Iterator[tuple[Any, ...]]:
        from fetcher.sources.sqlite import sqlite_values

        places = dict(zip(columns.selected, self._places(columns), strict=True))
        lists = [place for each, place in places.items() if each.many]
        yield from sqlite_values(self.path, (*columns.values, *places.values()), columns.held, lists)


def _chooser(places: Sequence[int]) -> Callable[[list[str]], Sequence[str]]:
    """Return what takes the cells at these places."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda cells: [cells[at] for at in places]
