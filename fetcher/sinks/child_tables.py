"""The tables beside ``pages``: a row for each link (``links``) and each image (``images``) that a page has.

They are what the columns ``link_list`` and ``image_list`` say, where a format is a table with types: SQLite and Parquet.
``id`` is that of the page, ``position`` counts from 0 in the order of the page.

Law 7: an item that is not as a reader of ours makes it costs itself or its value, never the record.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from fetcher.model import Outcome, Page

__all__ = ["CHILD_COLUMNS", "CHILD_TABLES", "ChildColumn", "ChildTable", "child_tables", "companion_path"]

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

    def records(self, rows: Iterable[Iterable[Any]]) -> list[dict[str, Any]]:
        """Return rows of the table as the items that they were."""
        names = [column.name for column in self.columns]
        return [dict(zip(names, row, strict=True)) for row in rows]


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
