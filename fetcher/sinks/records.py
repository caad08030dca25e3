"""Records as plain values, for a program that makes a table of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from fetcher.model import Outcome
from fetcher.sinks.record import to_json, to_record

__all__ = ["record_of", "records"]


def record_of(outcome: Outcome) -> dict[str, Any]:
    """Return the record of an outcome as a dict: the names, their order and the values of its line of JSON.

    The values are plain: ``str``, ``int``, ``float``, ``bool``, ``None``, and lists and dicts of these. One that is no
    JSON, or nested too deep to be read, is its text.
    """
    record = to_record(outcome)
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


def records(outcomes: Iterable[Outcome]) -> Iterator[dict[str, Any]]:
    """Return the record of each outcome as a dict, one after the other, whatever became of the row.

    Made for data frames. polars looks at a hundred rows to tell what a column is, and ``error`` may be null in all of
    them: have it look at each.

    >>> pandas.DataFrame(records(fetch_all(urls)))  # doctest: +SKIP
    >>> polars.DataFrame(records(fetch_all(urls)), infer_schema_length=None)  # doctest: +SKIP
    """
    return map(record_of, outcomes)
