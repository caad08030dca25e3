"""Records of the columns that are asked for; what a record is, is said in ``fetcher/record.py``."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

import msgspec

from fetcher.charset import text_of
from fetcher.model import CONTENT_COLUMNS, Outcome, Page
from fetcher.record import COLUMNS, Record, timestamp, to_json, to_record, well_formed

__all__ = ["COLUMNS", "ItemPage", "Record", "RecordMaker", "to_json", "to_record", "well_formed"]


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
