"""The output of an earlier run as a list: its ``url`` is the URL, and what it carried is carried on.

A record's own columns (``status``, ``title`` …) are what the earlier run found, and no fields, unless asked for by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from fetcher.sinks.csv_format import original
from fetcher.sinks.record import COLUMNS

__all__ = ["RecordTable", "carried_of", "fields_of"]


class RecordTable:
    """The columns of a table of records, as a CSV or a Parquet has them: what was carried stands behind the fixed ones.

    ``own`` are the names of the carried columns where they are known; else all that are not fixed are taken for such.
    """

    def __init__(self, names: Sequence[str], *, own: Sequence[str] | None = None) -> None:
        fixed = [name for name in names if name in COLUMNS]
        behind = [name for name in names if name not in COLUMNS]
        columns = _field_names(fixed, behind) if own is None else _columns_of(fixed, own)
        self.fields = {column: field for column, field in columns.items() if column in behind}
        """Column -> the name that it had as a field."""

    def fields_of(self, record: Mapping[str, Any], carry: Sequence[str] | None) -> dict[str, Any]:
        """Return the fields of a record, by the names of its columns."""
        fields = {field: record[column] for column, field in self.fields.items()}
        fields.update(fields_of(record.get("fields")))
        return carried_of(fields, record, carry)


def fields_of(value: Any) -> dict[str, Any]:
    """Return the fields that a column ``fields`` holds, as an object or as JSON; what is neither is a field itself."""
    if isinstance(value, str) and value:
        with suppress(msgspec.DecodeError, UnicodeError, RecursionError):
            decoded = msgspec.json.decode(value)
            value = decoded if isinstance(decoded, dict) else value
    if isinstance(value, Mapping):
        return dict(value)
    return {"fields": value} if value else {}


def carried_of(fields: dict[str, Any], record: Mapping[str, Any], carry: Sequence[str] | None) -> dict[str, Any]:
    """Return the fields, or of them and the record's own columns those that ``carry`` names."""
    if carry is None:
        return fields
    return {
        name: fields[name] if name in fields else record[name] for name in carry if name in fields or name in record
    }


def original_cells(cells: Iterable[str]) -> list[str]:
    """Return the cells of a CSV of ours as they were before they were made safe for a spreadsheet."""
    return [original(cell) for cell in cells]


def _field_names(fixed: Sequence[str], behind: Sequence[str]) -> dict[str, str]:
    """Return the field of each column: one whose name was taken got ``row_`` in front, as often as it needed."""
    taken = {*fixed, *COLUMNS}
    fields: dict[str, str] = {}
    for column in behind:
        field = column
        while field.startswith("row_") and field[4:] in taken:
            field = field[4:]
        while field in fields.values():
            field = f"row_{field}"
        fields[column] = field
        taken.add(column)
    return fields


def _columns_of(fixed: Sequence[str], own: Sequence[str]) -> dict[str, str]:
    """Return the column of each field, by the rule by which they are written."""
    taken = {*fixed, *COLUMNS}
    columns: dict[str, str] = {}
    for field in own:
        column = field
        while column in taken:
            column = f"row_{column}"
        taken.add(column)
        columns[column] = field
    return columns
