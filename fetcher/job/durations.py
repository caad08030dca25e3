"""How long the rows of a job took on the wire, by its ledger: in milliseconds, each with the number of its rows.

Law 3: the database counts, and at most a bounded number of durations is read out of it. Law 7: each value is checked.
"""

from __future__ import annotations

import contextlib

from fetcher.job.report import JobSnapshot
from fetcher.job.schema import attach, explained, whole

__all__ = ["durations_of"]

MAX_DURATIONS = 200_000  # distinct ones: three minutes by the millisecond
MAX_NUMBER_BYTES = 1_000


def durations_of(view: JobSnapshot) -> list[tuple[int, int]]:
    """Return the milliseconds of the rows that were on the wire, and how many took each. Raises ``LedgerError``."""
    path = view.path
    with explained(path, "read"), contextlib.closing(attach(path, write=False, longest=MAX_NUMBER_BYTES)) as db:
        found = db.execute(_DURATIONS, (MAX_DURATIONS,)).fetchall()
        return [(whole(path, elapsed), whole(path, many)) for elapsed, many in found]


_DURATIONS = "SELECT elapsed, count(*) FROM rows WHERE attempts > 0 GROUP BY elapsed LIMIT ?"
