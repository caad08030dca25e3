"""The JSON-LD of a page, read as it is meant: the column ``jsonld``.

A third of the web's is no JSON: a comma too many, a comment, a line end within a text, two objects one behind the
other. So what is no JSON is repaired, and what cannot be repaired is kept as its text and counted. Law 3: memory and
time are bounded: what is longer than ``MAX_CHARACTERS``, on one page together, is not looked into.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from fetcher.record import to_json

__all__ = ["MAX_DEPTH", "fits", "read_jsonld"]

MAX_CHARACTERS = 10 * 1024 * 1024
MAX_DEPTH = 64
MAX_VALUES = 100_000  # of one block that is repaired
MAX_DIGITS = 18  # of a whole number that fits every format

_decode = msgspec.json.Decoder().decode
_WRAPPING = re.compile(
    r"\s*+(?:(?://|/\*)?\s*+<!\[CDATA\[\s*+(?:\*/)?|<!--|//\s*+<!--)(?P<inner>.*?)"
    r"(?:(?://|/\*)?\s*+\]\]>\s*+(?:\*/)?|(?://\s*+)?-->)?[\s;]*+",
    re.DOTALL,
)
# A text, which stays; a comment, or a comma with nothing behind it, which go. Each finds its end at the latest with the
# document's: whatever is written there, it is looked at once.
_REPAIRED = re.compile(
    r'(?P<text>"(?:[^"\\]|\\.)*+(?:"|\\?\Z))|/\*.*?(?:\*/|\Z)|<!--.*?(?:-->|\Z)|//[^\n]*+|,(?=\s*+[}\]])', re.DOTALL
)
_BETWEEN = re.compile(r"[\s,;]*+")


def read_jsonld(blocks: Iterable[str]) -> tuple[list[Any], bool]:
    """Return what the ``blocks`` of a page say, one value behind the other, and whether one was kept as its text.

    A block that is a list gives its items. ``@graph`` stays as it is.
    """
    found: list[Any] = []
    strange = False
    left = MAX_CHARACTERS
    for block in blocks:
        text = block.strip("\ufeff \t\r\n\f;")
        if not text:
            continue
        left -= len(text)
        if left < 0:
            strange = True
            break
        values = _values_of(text)
        if values is None:
            strange = True
            found.append(text)
        else:
            found.extend(values)
    return found, strange


def _values_of(text: str) -> list[Any] | None:
    try:
        value = _decode(text)
    except (ValueError, RecursionError):
        return _repaired(text)
    if not fits(value, MAX_DEPTH):
        return _repaired(text)
    return value if isinstance(value, list) else [value] if isinstance(value, dict) else None


def _repaired(text: str) -> list[Any] | None:
    """Return the values of what was meant for JSON; ``None`` where that cannot be told."""
    wrapped = _WRAPPING.fullmatch(text)
    tries = [text] if wrapped is None else [wrapped["inner"], text]  # a comment may also end before what is said
    text = tries[0]
    if "&quot;" in text and not text.count('"'):
        tries.append(html.unescape(text))
    for tried in tries:
        values = _all_values(_repair(_repair(tried)))  # a comma may stand before a comment that has nothing behind it
        if values:
            return values
    return None


def _repair(text: str) -> str:
    return _REPAIRED.sub(lambda match: match["text"] or "", text)


_reader = json.JSONDecoder(
    strict=False,  # control characters in a text
    parse_int=lambda digits: int(digits) if len(digits) <= MAX_DIGITS else float(digits),
)


def _all_values(text: str) -> list[Any] | None:
    """Return the values that stand one behind the other in a text; ``None`` where something else stands there too."""
    values: list[Any] = []
    place = _BETWEEN.match(text).end()  # type: ignore[union-attr]  # it matches nothing too
    while place < len(text):
        try:
            value, place = _reader.raw_decode(text, place)
        except (ValueError, RecursionError):
            return None
        if not isinstance(value, dict | list) or not fits(value, MAX_DEPTH):
            return None
        values.extend(value if isinstance(value, list) else [value])
        if len(values) > MAX_VALUES:
            return None
        place = _BETWEEN.match(text, place).end()  # type: ignore[union-attr]  # as above
    plain: list[Any] = _decode(to_json(values))  # without lone surrogates, infinities and what is not a number
    return plain


def fits(value: Any, depth: int) -> bool:
    """Tell whether every format and every message can hold a value: not nested deeper than ``depth``, no huge numbers."""
    if isinstance(value, dict):
        return depth > 0 and all(type(item) is str or fits(item, depth - 1) for item in value.values())
    if isinstance(value, list):
        return depth > 0 and all(type(item) is str or fits(item, depth - 1) for item in value)
    return type(value) is not int or -(1 << 63) <= value < 1 << 64
