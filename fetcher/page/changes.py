"""What has changed: a page beside the one that an earlier run recorded under the same URL.

A page is ``new`` where the earlier run had none, ``changed`` or ``unchanged`` by its data where something is selected,
else by its text where that is asked for, else by its body; a row is ``gone`` that had a page and answers 404 or 410.
Where nothing can be compared it counts as changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from fetcher.model import Failure, Page, Response
from fetcher.page.parse import body_digest, validators_of
from fetcher.record import to_json

__all__ = ["carried", "compared", "failed"]

GONE = frozenset({404, 410})


def compared(page: Page, earlier: Page | None, body: bytes, *, by_data: bool) -> Page:
    """Return ``page`` with what has become of the ``earlier`` one; ``by_data`` compares what was taken out of it."""
    if earlier is None:
        change = "new"
    elif page.status in GONE and earlier.status not in GONE:
        change = "gone"
    elif by_data:
        change = "unchanged" if comparable(page.data) == comparable(earlier.data) else "changed"
    elif "text" in page.content and "text" in earlier.content:
        change = "unchanged" if comparable(page.content["text"]) == comparable(earlier.content["text"]) else "changed"
    else:
        change = "unchanged" if _is_same_body(page, earlier, body) else "changed"
    return msgspec.structs.replace(page, change=change, checked_at=page.fetched_at)


def carried(earlier: Page, page: Page, response: Response | None = None) -> Page:
    """Return the record of an ``earlier`` run for the row of ``page``, of which only what is this run's own is taken.

    ``response`` is the 304 that confirmed it, whose validators are the newer ones; without one nothing was asked.
    """
    etag, last_modified = validators_of(response) if response is not None else (None, None)
    return msgspec.structs.replace(
        earlier,
        request=page.request,
        redirects=page.redirects,
        elapsed=page.elapsed,
        waited=page.waited,
        attempts=page.attempts,
        messages=page.messages,
        etag=etag or earlier.etag,
        last_modified=last_modified or earlier.last_modified,
        checked_at=page.checked_at or earlier.checked_at,
        change="unchanged",
    )


def failed(failure: Failure, earlier: Page | None) -> Failure:
    """Return a failure that says that its page is gone, where that is so."""
    if earlier is None or failure.error.code not in ("http_404", "http_410") or earlier.status in GONE:
        return failure
    return msgspec.structs.replace(failure, change="gone")


def comparable(value: Any) -> Any:
    """Return what two equal values have in common, whichever format one of them was read from.

    A table has no nothing beside an empty text, and no whole number in a column of others.

    >>> comparable({"a": 1, "b": None}) == comparable({"b": "", "a": 1.0})
    True
    """
    if value is None or value in ("", []):
        return None
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return float(value) if abs(value) < 2**53 else value
    if isinstance(value, Mapping):
        return {str(key): comparable(item) for key, item in value.items() if comparable(item) is not None}
    if isinstance(value, list | tuple):
        return [comparable(item) for item in value]
    return value if isinstance(value, str) else msgspec.json.decode(to_json(value))


def _is_same_body(page: Page, earlier: Page, body: bytes) -> bool:
    kind, _, hashed = (earlier.digest or "").partition(":")
    if kind == "xxh3":
        return (page.digest or body_digest(body)) == earlier.digest
    return kind == "sha256" and hashlib.sha256(body).hexdigest() == hashed
