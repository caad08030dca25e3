"""Reads JSON Lines: an object with the URL under one key, or a string that is the URL, on each line.

The object's other keys are the row's fields. U+FEFF at the start of a line is no part of it (RFC 8259, 8.1). A line that is neither is a bad row; only when the first one is
not JSON at all, the list is taken for another format.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from fetcher.errors import SourceError
from fetcher.model import Request
from fetcher.sources.lines import NOT_UTF8, TOO_LONG, OverlongLine, whole_lines
from fetcher.sources.list_options import ListOptions
from fetcher.sources.rows import BYTE_ORDER_MARK, Row, RowNumbers, bad_row, read_url

__all__ = ["read_jsonl"]

_MARK = BYTE_ORDER_MARK.encode()
_TYPES = {list: "an array", bool: "a boolean", int: "a number", float: "a number", type(None): "null"}


def read_jsonl(blocks: Iterator[bytes], *, name: str, numbers: RowNumbers, options: ListOptions) -> Iterator[Row]:
    """Yield the rows of a JSON Lines list (RFC 8259 values, UTF-8); ``name`` is what messages call it."""
    url_column = options.url_column or "url"
    decode = msgspec.json.Decoder().decode
    line = 0
    first = True
    for piece in whole_lines(blocks):
        if isinstance(piece, OverlongLine):
            line, first = line + 1, False
            yield bad_row(next(numbers), _text(piece.start), f"{name}:{line}: the line {TOO_LONG}")
            continue
        for raw in piece.split(b"\n"):
            line += 1
            text = raw.removeprefix(_MARK)
            if not text or text.isspace():
                continue
            try:
                value = decode(text)
            except UnicodeDecodeError:
                yield bad_row(next(numbers), _text(raw), f"{name}:{line}: the line {NOT_UTF8}")
            except (msgspec.DecodeError, RecursionError) as error:
                if first:
                    raise SourceError(
                        f"{name}:{line}: is not JSON, so this is no jsonl list (one JSON value a line): {error}"
                    ) from None
                yield bad_row(next(numbers), _text(raw), f"{name}:{line}: is not JSON: {error}")
            else:
                yield _row(next(numbers), value, raw, f"{name}:{line}", url_column)
            first = False


def _row(number: int, value: Any, raw: bytes, where: str, url_column: str) -> Row:
    """Return the row that a decoded line stands for."""
    if isinstance(value, str):
        url: Any = value
        fields = None
    elif isinstance(value, dict):
        if url_column not in value:
            keys = ", ".join(list(value)[:20]) or "none"
            return bad_row(number, _text(raw), f"{where}: has no key {url_column!r} (its keys: {keys})")
        url = value.pop(url_column)
        fields = value or None
    else:
        return bad_row(number, _text(raw), f"{where}: is {_TYPES[type(value)]}, neither an object nor a URL")
    if not isinstance(url, str):
        kind = _TYPES.get(type(url), "an object")
        return bad_row(number, _text(raw), f"{where}: {url_column!r} is {kind}, not a string", fields)
    url, flaw = read_url(url)
    if not url:
        return bad_row(number, "", f"{where}: the URL is empty", fields)
    if flaw:
        return bad_row(number, url, f"{where}: the URL {flaw}", fields)
    return Request(number, url, (), fields)


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
