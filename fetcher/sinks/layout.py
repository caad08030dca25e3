"""Which columns the records of a run have, and what each format must know beyond that."""

from __future__ import annotations

from typing import Any, Literal, Self, TypeAlias

import msgspec

from fetcher.config import Config
from fetcher.errors import ConfigError
from fetcher.model import CONTENT_COLUMNS, ON_REQUEST, RECORD_COLUMNS

__all__ = ["DEFAULT_COLUMNS", "DEFAULT_LAYOUT", "BodyPlace", "ItemColumns", "Layout", "body_place"]

BodyPlace: TypeAlias = Literal["none", "inline", "folder"]
"""Where the bodies of pages go: nowhere, into the records, or into files of their own."""

DEFAULT_COLUMNS = tuple(name for name in RECORD_COLUMNS if name not in ON_REQUEST)

_FILLED_BY = {
    "headers": "keep-headers",
    "body": "body inline",
    "item": "explode",
    "change": "since",
    "checked_at": "since",
    "referrer": "follow",
    "depth": "follow",
    **{column: f"with {part}" for part, column in CONTENT_COLUMNS.items()},
}


def body_place(body: str) -> BodyPlace:
    """Return what ``none``, ``inline`` or the path of a folder means."""
    return "none" if body == "none" else "inline" if body == "inline" else "folder"


class ItemColumns(msgspec.Struct, frozen=True):
    """Of which selected ``name`` each item has a line, and which column each of the ``fields`` of its records has.

    ``beside`` are the lists that have a value for each item too.
    """

    name: str
    fields: tuple[tuple[str, str], ...] = ()
    beside: tuple[str, ...] = ()

    @classmethod
    def of(cls, explosion: Any) -> Self | None:
        """Return what a reader's ``explosion`` says of them; ``None`` without one."""
        return None if explosion is None else cls(explosion.name, explosion.fields, explosion.beside)


class Layout(msgspec.Struct, frozen=True):
    """What the records of a run look like; the same for all its outputs.

    ``columns`` are the record's own, in their order. ``fields`` are the columns of the list, ``None`` where they are
    those of the first row; ``select`` the names of what is selected. ``free_fields`` and ``free_data`` say that a row
    may have other values than those: a table then has a column of JSON for the rest. ``select_lists`` are the names of
    ``select`` whose values are lists, ``select_types`` what the values of some are (``int``, ``float``, ``price``,
    ``date``, ``bool``). ``explode`` says of what each item has a line of its own: ``select`` are the columns of a table
    then. ``head`` says that pages were asked for without their bodies. ``byte_order_mark`` is for a CSV, ``part_rows``
    how many rows one file of a folder has at most.
    """

    columns: tuple[str, ...] = DEFAULT_COLUMNS
    fields: tuple[str, ...] | None = None
    select: tuple[str, ...] = ()
    select_lists: tuple[str, ...] = ()
    select_types: tuple[tuple[str, str], ...] = ()
    free_fields: bool = True
    free_data: bool = True
    byte_order_mark: bool = False
    part_rows: int | None = None
    explode: ItemColumns | None = None
    head: bool = False

    @classmethod
    def of(cls, config: Config, body: BodyPlace = "none", *, since: bool = False, **more: Any) -> Self:
        """Return the layout that a config asks for; ``more`` are other fields of it.

        ``since``: what has become of an earlier run's pages is told.

        Raises ``ConfigError`` for a column that nothing fills.
        """
        asked = {
            **{name: name in config.content.columns for name in CONTENT_COLUMNS.values()},
            "headers": bool(config.keep_headers),
            "body": body == "inline",
            "body_path": body == "folder",
            "change": since,
            "checked_at": since,
            "referrer": config.follow.asked,
            "depth": config.follow.asked,
            "item": config.explode is not None,
        }
        for name in config.columns:
            if not asked.get(name, True):
                needed = _FILLED_BY.get(name, "body DIR")
                raise ConfigError(f"columns: {name!r} is empty without --{needed}")
        columns = list(config.columns or DEFAULT_COLUMNS)
        if config.explode is not None:
            if "id" not in columns:
                raise ConfigError("columns: with explode a row has several lines, and 'id' says which: name it as well")
            if body == "inline":
                raise ConfigError(
                    "body: with explode each body would be written once an item: give a folder, --body DIR"
                )
            if "item" not in columns:
                columns.insert(columns.index("id") + 1, "item")
        columns += [name for name in ON_REQUEST if asked[name] and name not in columns]
        return cls(columns=tuple(columns), head=config.head, **more)


DEFAULT_LAYOUT = Layout()
