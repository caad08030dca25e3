"""Which column of a table is the URL's, what the others are called, and which of them are carried.

Where no column is asked for by name it is ``url``, else the one that people call something like it: where that may be
several, none is taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import islice

__all__ = [
    "DEFAULT_COLUMN",
    "HOLDS_NOTHING",
    "LESS_LIKELY_NAMES",
    "LIKELY_NAMES",
    "ColumnError",
    "SeveralColumnsError",
    "distinct",
    "find_carried",
    "find_url",
    "is_record",
    "looks_like_url",
    "shown_columns",
]

HOLDS_NOTHING = ("", "null", "[]", "{}")
"""What a column of JSON or text says where a page has nothing for it."""

LIKELY_NAMES = frozenset({"uri", "link", "href", "website", "websiteurl", "webpage", "pageurl", "homepage"})
"""What people call the column of URLs, without blanks, marks and capitals."""

LESS_LIKELY_NAMES = frozenset({"web", "site", "page", "domain", "host", "hostname", "address", "webaddress"})
"""The same, but these may be something else: they are looked at last."""

SHOWN_COLUMNS = 20  # in a message
DEFAULT_COLUMN = "url"
"""The column of the URL where none is asked for."""

_MARKS = re.compile(r"[\s_:*-]+")
_CLEARLY_URL = re.compile(r"\s*[\"'<]?(?:https?://|www\.[^\s.]+\.)\S", re.IGNORECASE)

_RECORD_START = ("id", "url", "final_url", "status")


class ColumnError(ValueError):
    """The column that is asked for is not there."""


class SeveralColumnsError(ColumnError):
    """The column that is asked for may be one of several."""


def find_url(names: Sequence[str], url_column: str | None) -> tuple[int, int]:
    """Return the index of the URL's column, and how sure that is: from 4, called as asked for, to 1.

    Raises ``ColumnError`` in words that name the columns.
    """
    wanted = (url_column or DEFAULT_COLUMN).strip()
    if (at := _find(names, wanted)) is not None:
        return at, 4 if names[at].strip() == wanted else 3
    if url_column is None:
        squeezed = [_MARKS.sub("", name.lower()) for name in names]
        for sure, likely in ((2, LIKELY_NAMES), (1, LESS_LIKELY_NAMES)):
            alike = [at for at, name in enumerate(squeezed) if name in likely]
            if len(alike) > 1:
                shown = ", ".join(names[at].strip() for at in alike)
                raise SeveralColumnsError(f"several columns may hold the URL: {shown}; say which with --url-column")
            if alike:
                return alike[0], sure
    step = "; say which has the URL with --url-column" if names and url_column is None else ""
    raise ColumnError(f"there is no column {wanted!r}; the columns are: {shown_columns(names)}{step}")


def find_carried(names: Sequence[str], carry: Sequence[str]) -> list[int]:
    """Return the indexes of the columns to carry. Raises ``ColumnError`` for one that there is not."""
    found = []
    for wanted in carry:
        at = _find(names, wanted)
        if at is None:
            raise ColumnError(f"there is no column {wanted!r} to carry; the columns are: {shown_columns(names)}")
        found.append(at)
    return list(dict.fromkeys(found))


def _find(names: Sequence[str], wanted: str) -> int | None:
    """Return the index of the column called so, or else so in any case where that is only one."""
    stripped = [name.strip() for name in names]
    if wanted in stripped:
        return stripped.index(wanted)
    alike = [at for at, name in enumerate(stripped) if name.lower() == wanted.lower()]
    if len(alike) > 1:
        raise SeveralColumnsError(f"several columns are called {wanted!r}; the columns are: {shown_columns(names)}")
    return alike[0] if alike else None


def shown_columns(names: Sequence[str]) -> str:
    """Return the names for a message, not all of very many."""
    more = ", …" if len(names) > SHOWN_COLUMNS else ""
    return ", ".join(name.strip() for name in names[:SHOWN_COLUMNS]) + more


def is_record(names: Iterable[str]) -> bool:
    """Tell whether a table, or an object, is a record of ours: by its first columns."""
    first = tuple(islice(names, len(_RECORD_START) + 1))
    if first[1:2] == ("item",):  # of --explode
        first = first[:1] + first[2:]
    return first[: len(_RECORD_START)] == _RECORD_START


def looks_like_url(text: str) -> bool:
    """Tell whether a cell is clearly a URL, and so no name of a column."""
    return _CLEARLY_URL.match(text) is not None


def distinct(header: Sequence[str]) -> list[str]:
    """Return a name for each column, none of them twice."""
    listed = {cell.strip() for cell in header}
    used: set[str] = set()
    suffixes: dict[str, int] = {}
    columns: list[str] = []
    for at, cell in enumerate(header, 1):
        column = base = cell.strip() or f"column_{at}"
        while column in used or (column in listed and column != cell.strip()):
            suffixes[base] = suffixes.get(base, 1) + 1
            column = f"{base}_{suffixes[base]}"
        used.add(column)
        columns.append(column)
    return columns
