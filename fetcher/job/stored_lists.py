"""Lists that lie in a store, and what they were when a job began: one that is another by now is told.

Law 6: whether a row is another is judged row by row, for a list may grow; this says in time that somebody has touched
it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

from fetcher.errors import SourceError
from fetcher.job.ledger import PartsLedger
from fetcher.store import is_store_url

__all__ = ["note_lists"]

log = logging.getLogger("fetcher.store")


def note_lists(ledger: PartsLedger, inputs: Sequence[str]) -> None:
    """Note what the lists are that lie in a store; tell of those that are not what was noted before.

    Raises ``SourceError``, ``LedgerError``.
    """
    for place, url in enumerate(inputs, 1):
        if not is_store_url(url):
            continue
        from fetcher.store.reading import StoredObject, StoreReader

        found = StoreReader(url, SourceError).info()
        if found is None:
            raise SourceError(f"{url}: no such object")
        name, note = f"list {place}", msgspec.json.encode(found)
        before = ledger.note(name)
        if before is not None and before != note:
            was = msgspec.json.decode(before, type=StoredObject)
            log.warning(
                "%s: is not what it was when this job began (%d bytes, now %d): each row that was fetched is held against it",
                url, was.size, found.size,
            )  # fmt: skip
        if before != note:
            ledger.keep_note(name, note)
