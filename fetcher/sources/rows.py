"""What a list is made of: rows that can be tried, and rows that cannot.

Law 1: a bad row is a row. It has its number, ends as one ``Failure`` and never stops the run; what is wrong
with the whole list is a ``SourceError``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import msgspec

from fetcher.errors import InvalidURL
from fetcher.model import Request
from fetcher.sources.lines import replaced

__all__ = [
    "BYTE_ORDER_MARK",
    "MAX_ROW_BYTES",
    "TOO_LARGE_ROW",
    "BadRow",
    "FinishedRow",
    "Row",
    "RowNumbers",
    "bad_row",
    "flaw_of_url",
    "flaw_within",
    "listed_url",
    "read_url",
]

MAX_ROW_BYTES = 1024 * 1024
"""Bytes that the values of a row may have, about, where it is no line of a text."""

MAX_URL_CHARS = 64 * 1024

TOO_LARGE_ROW = "has over 1 MiB of values (--carry NAMES leaves columns out)"

EXCERPT_CHARS = 2_000
"""Characters of a bad row that are shown in place of its URL."""

BYTE_ORDER_MARK = "\ufeff"
"""Stands at the beginning of a file, and so within a list that several files were put together to."""

_WRAPPINGS = {'"': '"', "'": "'", "<": ">", "\u201c": "\u201d", "\u2018": "\u2019"}
_PLAIN_URL = re.compile(r"[!#-&(-;=?-~]+")  # ASCII without blanks, quotes and angle brackets
_SECOND_URL = re.compile(r"\s[\"'<(]*https?://", re.IGNORECASE)


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


def read_url(text: str) -> tuple[str, str]:
    """Return the URL of a cell or a value (see ``listed_url``), and why it is more than one URL, or ``""``."""
    if _PLAIN_URL.fullmatch(text):
        return text, ""
    url = listed_url(text)
    return url, flaw_within(url)


def listed_url(text: str) -> str:
    """Return ``text`` without what is no part of the URL: blanks, U+FEFF before it, quotes or ``<>`` around it.

    What stands in quotes by parts (``"a","b"``) is no quoted URL, and stays as it is.
    """
    url = text.strip()
    if url[:1] == BYTE_ORDER_MARK:
        url = url.lstrip(BYTE_ORDER_MARK).lstrip()
    while closing := _WRAPPINGS.get(url[:1]):
        inner = url[1:-1]
        if len(url) < 3 or url[-1] != closing or closing in inner or url[0] in inner:
            break
        url = inner.strip()
    return url


def flaw_within(url: str) -> str:
    """Return why a listed text is more than one URL, or ``""``.

    A URL parser drops tabs and line ends wherever they stand, and so would make one URL of two (WHATWG URL, 4.4).
    """
    if len(url.split(None, 1)) < 2:
        return ""
    if "\t" in url:
        return "has a tab within"
    if "\n" in url or "\r" in url:
        return "has a line end within"
    return "has a second URL behind a blank" if _SECOND_URL.search(url) else ""


def flaw_of_url(url: str, flaw: str = "") -> str:
    """Return what is wrong with a URL that does not come from a line: ``flaw``, or that it is none, too long, no text."""
    if not url:
        return "is empty"
    if len(url) > MAX_URL_CHARS:
        return "is over 64 KiB long"
    return flaw or ("" if url.isascii() or url == replaced(url) else "is not UTF-8")


def _excerpt(text: str) -> str:
    """Return ``text`` trimmed and short enough to be quoted."""
    text = text.strip()
    return text if len(text) <= EXCERPT_CHARS else f"{text[:EXCERPT_CHARS]}…"


def bad_row(number: int, text: str, flaw: str, fields: Mapping[str, Any] | None = None) -> BadRow:
    """Return row ``number`` as one that cannot be tried; ``flaw`` begins with FILE:LINE."""
    return BadRow(Request(number, _excerpt(text), fields=fields), InvalidURL(message=flaw))
