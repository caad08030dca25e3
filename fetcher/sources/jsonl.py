"""Reads JSON Lines: an object with the URL under one key, or a string that is the URL, on each line.

The object's other keys are the row's fields. U+FEFF at the start of a line is no part of it (RFC 8259, 8.1), and half a
surrogate pair is allowed within (7): in a field it becomes U+FFFD. A line that is neither an object nor a string is a
bad row; only when the first one is not JSON at all, the list is taken for another format.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from fetcher.errors import SourceError
from fetcher.model import Request
from fetcher.sources.columns import DEFAULT_COLUMN, ColumnError, find_url, is_record, shown_columns
from fetcher.sources.inputs import ListOptions
from fetcher.sources.lines import TOO_LONG, ListEncoding, OverlongLine, replaced, whole_lines
from fetcher.sources.rows import BYTE_ORDER_MARK, BadRow, Row, RowNumbers, bad_row, read_url

__all__ = ["read_jsonl"]

_MARK = BYTE_ORDER_MARK.encode()
_TYPES = {list: "an array", bool: "a boolean", int: "a number", float: "a number", type(None): "null"}
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")  # half a pair, or half of a whole one
_NOWHERE: Any = object()


def read_jsonl(
    blocks: Iterator[bytes], *, name: str, numbers: RowNumbers, options: ListOptions, encoding: ListEncoding
) -> Iterator[Row]:
    """Yield the rows of a JSON Lines list (RFC 8259 values, UTF-8); ``name`` is what messages call it."""
    decode = msgspec.json.Decoder().decode
    objects = _Objects(options)
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
                if first:
                    objects.look_at(value)
                row = objects.row(next(numbers), value, raw, f"{name}:{line}")
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                if _is_json_in_no_utf8(text):
                    row = objects.odd_row(next(numbers), raw, f"{name}:{line}", encoding.undecodable(line))
                elif _SURROGATE.search(text):
                    row = objects.odd_row(next(numbers), raw, f"{name}:{line}", "has half a surrogate pair")
                elif first:
                    raise SourceError(
                        f"{name}:{line}: is not JSON, so this is no jsonl list (one JSON value a line): {error}"
                    ) from None
                else:
                    row = bad_row(next(numbers), _text(raw), f"{name}:{line}: is not JSON: {error}")
            yield row
            first = False


def _is_json_in_no_utf8(text: bytes) -> bool:
    """Tell whether bytes of its strings that are no UTF-8 are all that is wrong with a line.

    Up to 0.22 msgspec raises ``UnicodeDecodeError`` for them, from 0.23 on the same as for any other fault.
    """
    replaced_text = text.decode("utf-8", "replace").encode()
    if replaced_text == text:
        return False
    try:
        msgspec.json.decode(replaced_text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


class _Objects:
    """Makes rows of decoded lines."""

    def __init__(self, options: ListOptions) -> None:
        self._asked = options.url_column
        self._key = (options.url_column or DEFAULT_COLUMN).strip()
        self._carry = options.carry
        self._records = False  # the list is an output of ours
        self._plain = self._carry is None

    def look_at(self, first: Any) -> None:
        """See by the first line what the list is."""
        self._records = isinstance(first, dict) and is_record(first)
        self._plain = self._carry is None and not self._records

    def row(self, number: int, value: Any, raw: bytes, where: str) -> Row:
        """Return the row that a decoded line stands for."""
        fields: dict[str, Any] | None = None
        if isinstance(value, dict):
            if self._plain and self._key in value:
                url = value.pop(self._key)
                fields = value or None
            else:
                url, fields = self._parts(value)
                if url is _NOWHERE:
                    keys = shown_columns(list(value)) or "none"
                    return bad_row(number, _text(raw), f"{where}: has no key {self._key!r} (its keys: {keys})")
        elif isinstance(value, str):
            url = value
        else:
            return bad_row(number, _text(raw), f"{where}: is {_TYPES[type(value)]}, neither an object nor a URL")
        if not isinstance(url, str):
            kind = _TYPES.get(type(url), "an object")
            return bad_row(number, _text(raw), f"{where}: {self._key!r} is {kind}, not a string", fields)
        url, flaw = read_url(url)
        if not url:
            return bad_row(number, "", f"{where}: the URL is empty", fields)
        if flaw:
            return bad_row(number, url, f"{where}: the URL {flaw}", fields)
        return Request(number, url, (), fields)

    def _parts(self, value: dict[str, Any]) -> tuple[Any, dict[str, Any] | None]:
        """Return the URL and the fields of an object that is no plain one."""
        if self._records and is_record(value):
            from fetcher.sources.records import carried_of, fields_of

            fields = carried_of(fields_of(value.get("fields")), value, self._carry)
            return value.get(self._key, _NOWHERE), fields or None
        url, fields = self._found(value)
        if self._carry is not None:
            fields = {name: fields[name] for name in self._carry if name in fields}
        return url, fields or None

    def _found(self, value: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Return the URL and the other keys. What holds a URL within stays whole."""
        if self._key in value:
            return value.pop(self._key), value
        if "." in self._key and (url := _at_path(value, self._key)) is not _NOWHERE:
            return url, value
        # An object called "address" is no URL.
        names = [name for name in value if self._asked is not None or isinstance(value[name], str)]
        try:
            at, _ = find_url(names, self._asked)
        except ColumnError:
            return _NOWHERE, value
        return value.pop(names[at]), value

    def odd_row(self, number: int, raw: bytes, where: str, flaw: str) -> Row:
        """Return the row of a line with text that is none, which costs the row only where it is its URL."""
        try:
            text = raw.removeprefix(_MARK).decode("utf-8", "surrogateescape")
            row = self.row(number, json.loads(text, parse_constant=_refuse), raw, where)
            request = row.request if isinstance(row, BadRow) else row
            fields, url = _well_formed(request.fields), replaced(request.url)
        except (ValueError, RecursionError) as error:
            return bad_row(number, _text(raw), f"{where}: is not JSON: {error}")
        if isinstance(row, BadRow):
            return bad_row(number, url, row.error.message, fields)
        if url != request.url:
            return bad_row(number, url, f"{where}: the URL {flaw}", fields)
        return Request(number, url, (), fields)


def _at_path(value: dict[str, Any], path: str) -> Any:
    """Return what stands at a path of keys, which may have dots themselves; the longest key wins."""
    if path in value:
        return value[path]
    dot = path.rfind(".")
    while dot > 0:
        inner = value.get(path[:dot])
        if isinstance(inner, dict) and (found := _at_path(inner, path[dot + 1 :])) is not _NOWHERE:
            return found
        dot = path.rfind(".", 0, dot)
    return _NOWHERE


def _well_formed(value: Any) -> Any:
    """Return a copy of a decoded value with U+FFFD for text that is none."""
    if isinstance(value, str):
        return replaced(value)
    if isinstance(value, list):
        return list(map(_well_formed, value))
    if isinstance(value, dict):
        return {replaced(key): _well_formed(item) for key, item in value.items()}
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no value of JSON")


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
