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

    The values are plain: ``str``, ``int``, ``float``, ``bool``, ``None``, and lists and dicts of these.
    """
    record: dict[str, Any] = msgspec.json.decode(to_json(to_record(outcome)))
    return record


def records(outcomes: Iterable[Outcome]) -> Iterator[dict[str, Any]]:
    """Return the record of each outcome as a dict, one after the other, whatever became of the row.

    Made for data frames. polars looks at a hundred rows to tell what a column is, and ``error`` may be null in all of
    them: have it look at each.

    >>> pandas.DataFrame(records(fetch_all(urls)))  # doctest: +SKIP
    >>> polars.DataFrame(records(fetch_all(urls)), infer_schema_length=None)  # doctest: +SKIP
    """
    return map(record_of, outcomes)
