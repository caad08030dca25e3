"""Which columns the records of a run have, what each format must know beyond that, and the records of those columns.

What a record is, is said in ``fetcher/record.py``.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, Self, TypeAlias
from urllib.parse import quote

import msgspec

from fetcher.charset import text_of
from fetcher.config import Config
from fetcher.errors import ConfigError
from fetcher.model import CONTENT_COLUMNS, ON_REQUEST, RECORD_COLUMNS, Outcome, Page
from fetcher.record import COLUMNS, Record, timestamp, to_json, to_record, well_formed

__all__ = [
    "COLUMNS",
    "DEFAULT_COLUMNS",
    "DEFAULT_LAYOUT",
    "BodyPlace",
    "ItemColumns",
    "ItemPage",
    "Layout",
    "Record",
    "RecordMaker",
    "body_place",
    "to_json",
    "to_record",
    "well_formed",
]

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


class ItemPage(Page, frozen=True):
    """A page as one of the lines that ``explode`` makes of it: ``item`` counts from 1, ``None`` where it has none."""

    item: int | None = None


class RecordMaker:
    """Makes records of the ``columns`` that are asked for: ``values`` in their order, ``record`` as a struct.

    A body is text where it is one, and else a ``data:`` URI (RFC 2397); for a format that is ``binary`` it is its
    bytes, and what is nested in ``content`` is JSON.
    """

    def __init__(self, columns: Sequence[str], *, binary: bool = False) -> None:
        self.columns = tuple(columns)
        self._on_request = {**_ON_REQUEST, **_FOR_BINARY} if binary else _ON_REQUEST
        self._places = [COLUMNS.index(name) if name in COLUMNS else -1 for name in self.columns]
        fields = [(name, Any) for name in self.columns]
        self._type: Callable[..., Any] = msgspec.defstruct("ChosenRecord", fields, frozen=True)
        self.record: Callable[[Outcome], Any] = to_record if self.columns == COLUMNS else self._chosen

    def values(self, outcome: Outcome) -> tuple[Any, ...]:
        """Return the values of the columns."""
        record = msgspec.structs.astuple(to_record(outcome))
        if self.columns == COLUMNS:
            return record
        return tuple(
            record[place] if place >= 0 else self._on_request[name](outcome)
            for place, name in zip(self._places, self.columns, strict=True)
        )

    def _chosen(self, outcome: Outcome) -> Any:
        return self._type(*self.values(outcome))


def _headers_of(outcome: Outcome) -> dict[str, str] | None:
    """Return the headers that were kept by name, repeated ones as one (RFC 9110, 5.2), cookies a line each."""
    found: dict[str, str] = {}
    for name, value in outcome.headers:
        between = "\n" if name == "set-cookie" else ", "
        found[name] = f"{found[name]}{between}{value}" if name in found else value
    return found or None


def _body_of(outcome: Outcome) -> bytes | None:
    return outcome.body if isinstance(outcome, Page) else None


def _body_as_text(outcome: Outcome) -> str | None:
    """Return the body as ``length`` counts it, or as a URI that names its type where it is no text."""
    body = _body_of(outcome)
    if body is None:
        return None
    if outcome.charset is not None:
        return text_of(body, outcome.charset)
    # A token may hold what ends a URI's path, such as '#'.
    kind = quote(outcome.content_type or "application/octet-stream", safe="/+!$&^_.-")
    return f"data:{kind};base64,{base64.b64encode(body).decode()}"


def _content_of(name: str, outcome: Outcome) -> Any:
    return outcome.content.get(name) if isinstance(outcome, Page) else None


def _content_as_json(name: str, outcome: Outcome) -> str | None:
    value = _content_of(name, outcome)
    return None if value is None else to_json(value).decode()


_ON_REQUEST: dict[str, Callable[[Outcome], Any]] = {
    **{name: partial(_content_of, name) for name in CONTENT_COLUMNS.values()},
    "headers": _headers_of,
    "body": _body_as_text,
    "body_path": lambda outcome: outcome.body_path if isinstance(outcome, Page) else None,
    "change": lambda outcome: outcome.change,
    "checked_at": lambda outcome: timestamp(outcome.checked_at) if isinstance(outcome, Page) else None,
    "referrer": lambda outcome: None if outcome.request.discovery is None else outcome.request.discovery.referrer,
    "depth": lambda outcome: None if outcome.request.discovery is None else outcome.request.discovery.depth,
    "item": lambda outcome: outcome.item if isinstance(outcome, ItemPage) else None,
}

_FOR_BINARY: dict[str, Callable[[Outcome], Any]] = {
    **{name: partial(_content_as_json, name) for name in CONTENT_COLUMNS.values() if name not in ("text", "lang")},
    "body": _body_of,
}
