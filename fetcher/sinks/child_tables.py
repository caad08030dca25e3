"""The tables beside ``pages``: a row for each link (``links``) and each image (``images``) that a page has.

They are what the columns ``link_list`` and ``image_list`` say, where a format is a table with types: SQLite and
Parquet. ``id`` is that of the page, ``position`` counts from 0 in the order of the page.

Law 7: an item that is not as a reader of ours makes it costs itself or its value, never the record.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from fetcher.model import Outcome, Page

__all__ = [
    "CHILD_COLUMNS",
    "CHILD_TABLES",
    "ChildColumn",
    "ChildTable",
    "child_tables",
    "companion_path",
    "is_companion",
]

ValueKind: TypeAlias = Literal["text", "whole", "flag", "texts"]


class ChildColumn(NamedTuple):
    """A column: its name, which is the item's key as well, and what its values are."""

    name: str
    kind: ValueKind


class ChildTable(NamedTuple):
    """The table ``name``, for what a record has in ``column``."""

    name: str
    column: str
    columns: tuple[ChildColumn, ...]

    def items(self, outcome: Outcome) -> list[list[Any]]:
        """Return the values of each item of an outcome, as they are; a failure has none."""
        found = outcome.content.get(self.column) if isinstance(outcome, Page) else None
        if not isinstance(found, list | tuple):
            return []
        names = [column.name for column in self.columns]
        return [[item.get(name) for name in names] for item in found if isinstance(item, Mapping)]

    def item(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the item that a row of the table was made of."""
        return {name: _original(row.get(name), kind) for name, kind in self.columns}


CHILD_TABLES = (
    ChildTable(
        "links",
        "link_list",
        (
            ChildColumn("url", "text"),
            ChildColumn("text", "text"),
            ChildColumn("rel", "text"),
            ChildColumn("internal", "flag"),
        ),
    ),
    ChildTable(
        "images",
        "image_list",
        (
            ChildColumn("url", "text"),
            ChildColumn("alt", "text"),
            ChildColumn("srcset", "texts"),
            ChildColumn("width", "whole"),
            ChildColumn("height", "whole"),
        ),
    ),
)

CHILD_COLUMNS = frozenset(table.column for table in CHILD_TABLES)
"""The columns of a record that are tables of their own."""


def _original(value: Any, kind: ValueKind) -> Any:
    if kind == "flag":
        return None if value is None else bool(value)
    if kind == "texts" and isinstance(value, str):
        with suppress(msgspec.DecodeError, UnicodeError, RecursionError):
            return msgspec.json.decode(value)
    return value


def child_tables(columns: Iterable[str]) -> list[ChildTable]:
    """Return the tables of their own that records with these columns have."""
    wanted = set(columns)
    return [table for table in CHILD_TABLES if table.column in wanted]


def companion_path(path: str, table: str) -> str:
    """Return where the child ``table`` of a Parquet output at ``path`` lies: beside it, a folder where that is one.

    >>> companion_path("pages.parquet", "links"), companion_path("pages/", "links")
    ('pages.links.parquet', 'pages.links/')
    """
    place = path.rstrip(os.sep)
    slash = path[len(place) :] and os.sep
    stem, suffix = os.path.splitext(place)
    if suffix.lower() != ".parquet":
        stem, suffix = place, ""
    return f"{stem}.{table}{suffix}{slash}"


def is_companion(path: str) -> bool:
    """Say whether ``path`` is that of a child table beside a Parquet output which is there.

    >>> is_companion("pages.parquet")
    False
    """
    place = path.rstrip(os.sep)
    stem, suffix = os.path.splitext(place)
    if suffix.lower() != ".parquet":
        stem, suffix = place, ""
    return any(
        stem.endswith(f".{table.name}") and os.path.exists(stem.removesuffix(f".{table.name}") + suffix)
        for table in CHILD_TABLES
    )
