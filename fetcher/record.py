"""What is told of one outcome: the ``Record``, the same in every format and for a program, and its JSON.

Law 1: one record per outcome, a failure's too. Law 7: a lone surrogate or a strange value of the caller's costs its
own place in the record, never the record; and no user name or password in a URL of the list is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from fetcher.urls import hide_userinfo

__all__ = ["COLUMNS", "Record", "timestamp", "to_dict", "to_json", "to_record", "well_formed"]

MAX_DEPTH = 100
MAX_CONTAINERS = 10_000  # of one row's columns that are looked into; a line of a list has few
MAX_INT_BITS = 10_000  # Python refuses to write 4,300 digits and more


class Record(msgspec.Struct, frozen=True):
    """One line of output. The names and their order are public.

    ``length`` is in characters, ``bytes`` decoded, ``elapsed`` and ``waited`` in seconds to the millisecond,
    ``fetched_at`` UTC in ISO 8601 with milliseconds, or ``None`` where nothing was asked of the network. ``digest`` is
    the name of a hash, a colon, and the hash of the decoded body in hexadecimal; a failure has none.
    """

    id: int
    url: str
    final_url: str | None
    status: int | None
    length: int | None
    bytes: int | None
    content_type: str | None
    charset: str | None
    title: str | None
    links: int | None
    redirects: tuple[str, ...]
    attempts: int
    elapsed: float
    waited: float
    fetched_at: str | None
    error: str | None
    message: str | None
    truncated: bool
    robots: str | None
    refresh: str | None
    etag: str | None
    last_modified: str | None
    digest: str | None
    fields: Mapping[str, Any] | None
    data: Any


COLUMNS: tuple[str, ...] = Record.__struct_fields__
"""The names of a record's columns, in their order."""


def to_record(outcome: Any) -> Record:
    """Return the record of a ``Page`` or a ``Failure``: those of ``model``, which stands on this module.

    Text is taken as it is: ``to_json`` makes it well-formed.
    """
    request = outcome.request
    if not outcome.ok:
        return _record_of_failure(request, outcome)
    return Record(
        request.id,
        request.url,
        outcome.url,
        outcome.status,
        outcome.length,
        outcome.bytes,
        outcome.content_type,
        outcome.charset,
        outcome.title,
        outcome.links,
        outcome.redirects,
        outcome.attempts,
        max(0.0, round(outcome.elapsed, 3)),  # a clock may be set back
        max(0.0, round(outcome.waited, 3)),
        timestamp(outcome.fetched_at),
        None,
        None,
        outcome.truncated,
        outcome.robots,
        outcome.refresh,
        outcome.etag,
        outcome.last_modified,
        outcome.digest,
        request.fields and without_secrets(request.fields),
        outcome.data,
    )


def _record_of_failure(request: Any, outcome: Any) -> Record:
    return Record(
        id=request.id,
        url=request.url,
        final_url=outcome.url,
        status=outcome.status,
        length=outcome.length,
        bytes=outcome.bytes,
        content_type=outcome.content_type,
        charset=outcome.charset,
        title=outcome.title,
        links=outcome.links,
        redirects=outcome.redirects,
        attempts=outcome.attempts,
        elapsed=max(0.0, round(outcome.elapsed, 3)),
        waited=max(0.0, round(outcome.waited, 3)),
        fetched_at=timestamp(outcome.fetched_at),
        error=outcome.error.code,
        message=outcome.error.message or None,
        truncated=outcome.truncated,
        robots=outcome.robots,
        refresh=outcome.refresh,
        etag=None,
        last_modified=None,
        digest=None,
        fields=without_secrets(request.fields),
        data=None,
    )


def without_secrets(fields: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the list's own columns without user names and passwords in URLs: the very value where there are none."""
    if type(fields) is not dict or not any(type(value) is not str or "@" in value for value in fields.values()):
        return fields
    cleaned: Mapping[str, Any] = _cleaned(fields, {})
    return cleaned


def _cleaned(value: Any, seen: dict[int, Any], depth: int = 0) -> Any:
    """Return a copy without them, or the value; ``seen`` holds what was found of those above and before."""
    kind = type(value)
    if kind is str:
        return hide_userinfo(value, "")
    if kind not in (dict, list) or id(value) in seen or len(seen) >= MAX_CONTAINERS or depth > MAX_DEPTH:
        return seen.get(id(value), value)
    seen[id(value)] = value  # one that contains itself stays as it is there
    old = list(value.values() if kind is dict else value)
    new = [_cleaned(item, seen, depth + 1) for item in old]
    if any(one is not other for one, other in zip(old, new, strict=True)):
        seen[id(value)] = dict(zip(value, new, strict=True)) if kind is dict else new
    return seen[id(value)]


def to_json(value: Any) -> bytes:
    """Encode any value as one line of JSON (RFC 8259).

    Not-a-number and the infinities become ``null``, types that JSON lacks their ``str()``, lone surrogates U+FFFD.
    A value that contains itself, or is nested over a hundred deep, has ``"…"`` there.
    """
    try:
        line = _ENCODER.encode(value)
    except _ENCODING_ERRORS:
        line = _ENCODER.encode(_encodable(msgspec.structs.asdict(value) if isinstance(value, Record) else value, ()))
    # A msgspec.Raw of the caller's comes through untouched; between JSON's tokens a newline is a space.
    return line.replace(b"\n", b" ") if b"\n" in line else line


def to_dict(record: Record) -> dict[str, Any]:
    """Return a record as a dict: the names, their order and the values of its line of JSON.

    The values are plain: ``str``, ``int``, ``float``, ``bool``, ``None``, and lists and dicts of these. One that is no
    JSON, or nested too deep to be read, is its text.
    """
    try:
        plain: dict[str, Any] = msgspec.json.decode(to_json(record))
    except _DECODING_ERRORS:
        return {name: _plain(value) for name, value in msgspec.structs.asdict(record).items()}
    return plain


_DECODING_ERRORS = (ValueError, RecursionError)  # what a msgspec.Raw of the caller's holds, nested too deep


def _plain(value: Any) -> Any:
    line = to_json(value)
    try:
        return msgspec.json.decode(line)
    except _DECODING_ERRORS:
        return line.decode("utf-8", "replace")


def well_formed(text: str) -> str:
    """Return ``text`` with surrogate pairs joined and lone surrogates replaced by U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _fallback(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)


_ENCODING_ERRORS = (TypeError, ValueError, RecursionError)  # a key, a surrogate or huge number, a loop
_ENCODER = msgspec.json.Encoder(enc_hook=_fallback)


def _encodable(value: Any, above: tuple[int, ...]) -> Any:
    """Return a copy of ``value`` that JSON can hold; ``above`` are the ids of the values that contain it."""
    if isinstance(value, str):
        return well_formed(value)
    if value is None or isinstance(value, bool | float | msgspec.Raw):
        return value
    if isinstance(value, int):
        return value if value.bit_length() < MAX_INT_BITS else hex(value)
    if id(value) in above or len(above) >= MAX_DEPTH:
        return "…"
    above = (*above, id(value))
    if isinstance(value, Mapping):
        return {well_formed(str(key)): _encodable(item, above) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_encodable(item, above) for item in value]
    try:
        return _encodable(msgspec.to_builtins(value, enc_hook=_fallback, str_keys=True), above)
    except _ENCODING_ERRORS:
        return well_formed(str(value))


def timestamp(moment: float) -> str | None:
    """Return a moment, in seconds since the epoch, as a record has it; ``None`` for none."""
    if not moment:
        return None
    second, milliseconds = divmod(round(moment * 1000), 1000)
    return f"{_second(second)}.{milliseconds:03d}Z"


@lru_cache(maxsize=64)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
