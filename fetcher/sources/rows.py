"""What a list is made of: rows that can be tried, and rows that cannot.

Law 1: a bad row is a row. It has its number, ends as one ``Failure`` and never stops the run; what is wrong
with the whole list is a ``SourceError``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import msgspec

from fetcher.errors import InvalidURL
from fetcher.model import Request

__all__ = ["BadRow", "FinishedRow", "Row", "RowNumbers", "bad_row"]

EXCERPT_CHARS = 2_000
"""Characters of a bad row that are shown in place of its URL."""


class BadRow(msgspec.Struct, frozen=True):
    """A row without a URL to try: the text that is there instead, and why it is no URL.

    ``request.url`` is the text as listed (at most ``EXCERPT_CHARS`` characters, then ``…``), ``error.message``
    says FILE:LINE and what is wrong. It becomes a ``Failure`` without an attempt.
    """

    request: Request
    error: InvalidURL


class FinishedRow(msgspec.Struct, frozen=True):
    """A row that an earlier run has finished: passed over, but for what it means to later ones (its duplicates).

    Without its ``request`` it is one for many that mean nothing to later rows; it gives the event loop a turn.
    """

    request: Request | None = None


Row: TypeAlias = Request | BadRow

RowNumbers: TypeAlias = Iterator[int]
"""The row numbers over all inputs: a row takes the next one when it is handed out, not before."""


def _excerpt(text: str) -> str:
    """Return ``text`` trimmed and short enough to be quoted."""
    text = text.strip()
    return text if len(text) <= EXCERPT_CHARS else f"{text[:EXCERPT_CHARS]}…"


def bad_row(number: int, text: str, flaw: str, fields: Mapping[str, Any] | None = None) -> BadRow:
    """Return row ``number`` as one that cannot be tried; ``flaw`` begins with FILE:LINE."""
    return BadRow(Request(number, _excerpt(text), fields=fields), InvalidURL(message=flaw))
