"""The output of an earlier run as a list: its ``url`` is the URL, and what it carried is carried on.

A record's own columns (``status``, ``title`` …) are what the earlier run found, and no fields, unless asked for by
name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from fetcher.model import RECORD_COLUMNS
from fetcher.sinks.csv_format import original

__all__ = ["RecordTable", "carried_of", "fields_of"]


class RecordTable:
    """The columns of a table of records, as a CSV or a Parquet has them: what was carried stands behind the fixed ones.

    ``own`` are the carried columns, with the names that they had, where they are known; else all that are not fixed.
    """

    def __init__(self, names: Sequence[str], *, own: Mapping[str, str] | None = None) -> None:
        fixed = _fixed(names)
        columns = _field_names(fixed, names[len(fixed) :]) if own is None else own
        self.fields = {column: field for column, field in columns.items() if column in names}
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


def _fixed(names: Sequence[str]) -> Sequence[str]:
    """Return the record's own columns: those at the beginning, up to ``fields`` and ``data`` where it has them."""
    own = (at for at, name in enumerate(names) if name not in RECORD_COLUMNS or (name == "item" and at != 1))
    end = next(own, len(names))
    last = max((at + 1 for at, name in enumerate(names[:end]) if name in ("fields", "data")), default=end)
    return names[:last]


def _field_names(fixed: Sequence[str], behind: Sequence[str]) -> dict[str, str]:
    """Return the field of each column: one whose name was taken got ``row_`` in front, as often as it needed."""
    taken = set(fixed)
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
