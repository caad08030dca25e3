"""How fast a job went over its life: a bounded number of its commits, noted in its ledger as they are made.

Law 3: there are at most 5,000 rows, however long a job lasts and however often it is gone on with. Two rows stand apart
by at least a 2,500th of the job's life: a commit that comes sooner moves the last row on instead, and when there are
too many, rows that stand too near to the one before go. As each counts what its run has done so far, no sum is lost
with them: a row less is a stretch that is longer. Law 9: which rows stay is decided by a plain function.

``seconds`` are those of the run's own clock, which no setting of the time moves; ``at`` is what the system's clock
said, in seconds since the epoch.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, TypeAlias

import msgspec

__all__ = ["LAST_PACE", "LENGTHS", "MAX_PACE_ROWS", "TABLE", "PaceLog", "PaceRow", "too_many"]

MAX_PACE_ROWS = 5_000

TABLE = """CREATE TABLE pace(
        id INTEGER PRIMARY KEY, run INTEGER NOT NULL, at REAL NOT NULL, seconds REAL NOT NULL, ok INTEGER NOT NULL,
        failed INTEGER NOT NULL, skipped INTEGER NOT NULL, bytes INTEGER NOT NULL, on_wire INTEGER NOT NULL)"""

LENGTHS = """SELECT count(*) FROM pace WHERE max(
        length(run), length(at), length(seconds), length(ok), length(failed), length(skipped), length(bytes),
        length(on_wire)) > 40"""
"""What no sound table of ours has, counted: looked at before a value is read."""

LAST_PACE = """SELECT run, at, seconds, ok, failed, skipped, bytes, on_wire FROM pace ORDER BY id DESC LIMIT ?"""

Count = Annotated[int, msgspec.Meta(ge=0)]
Moment = Annotated[float, msgspec.Meta(ge=0, le=253_402_300_799.0)]  # up to the year 9999
Counts: TypeAlias = tuple[int, int, int, int]
"""Pages, failures, skipped rows and the bytes of bodies."""


class PaceRow(msgspec.Struct, frozen=True):
    """What run number ``run`` had done ``seconds`` after its start: rows by their fate, and the bytes of their bodies.

    ``on_wire`` requests were under way.
    """

    run: Count
    at: Moment
    seconds: Moment
    ok: Count
    failed: Count
    skipped: Count
    bytes: Count
    on_wire: Count


class PaceLog:
    """The moments noted in a ledger, during its run number ``run``. Everything raises ``sqlite3.Error``."""

    def __init__(self, db: sqlite3.Connection, run: int) -> None:
        self._db = db
        self._run = run
        self._done: Counts = (0, 0, 0, 0)
        (self._many,) = db.execute("SELECT count(*) FROM pace").fetchone()
        (self._earlier,) = db.execute("SELECT total(seconds) FROM runs").fetchone()
        self._spacing = self._spacing_of(0.0)
        self._last: int | None = None  # the row that a commit which comes soon moves on
        self._due = 0.0

    def note(self, at: float, seconds: float, done: Counts, on_wire: int) -> None:
        """Note, in the transaction of a commit, that it has ``done`` so much more. Its error ends the run."""
        ok, failed, skipped, size = (before + new for before, new in zip(self._done, done, strict=True))
        self._done = ok, failed, skipped, size
        values = (self._run, max(0.0, at), seconds, ok, failed, skipped, size, on_wire)
        if self._last is not None and seconds < self._due:
            self._db.execute(_MOVE, (*values, self._last))
            return
        if self._many >= MAX_PACE_ROWS:
            self._thin(seconds)
        self._last = self._db.execute(_ADD, values).lastrowid
        self._many += 1
        self._due = seconds + self._spacing

    def _spacing_of(self, seconds: float) -> float:
        return 2 * (float(self._earlier) + seconds) / MAX_PACE_ROWS

    def _thin(self, seconds: float) -> None:
        self._spacing = max(2 * self._spacing, self._spacing_of(seconds))
        rows = self._db.execute("SELECT id, run, seconds FROM pace ORDER BY id").fetchall()
        gone = too_many(rows, self._spacing)
        self._db.executemany("DELETE FROM pace WHERE id = ?", [(row,) for row in gone])
        self._many = len(rows) - len(gone)


def too_many(rows: Sequence[tuple[int, int, float]], spacing: float) -> list[int]:
    """Return the ids of the rows that go, of ``(id, run, seconds)``: at most half of a full table stays.

    A row goes that stands less than ``spacing`` seconds behind the one before that stays; the last row of a run stays,
    as long as there are not too many runs.
    """
    gone: list[int] = []
    stays: list[int] = []
    run, kept = 0, 0.0
    for row, after in pairwise([*rows, (0, -1, 0.0)]):
        if row[1] != run:
            run, kept = row[1], 0.0
        if after[1] == run and row[2] - kept < spacing:
            gone.append(row[0])
        else:
            kept = row[2]
            stays.append(row[0])
    while len(stays) > MAX_PACE_ROWS // 2 + 1:  # of more runs than there is place for, some are told
        gone += stays[:-1:2]
        stays = stays[1:-1:2] + stays[-1:]
    return gone


_ADD = "INSERT INTO pace VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)"
_MOVE = """UPDATE pace SET run = ?, at = ?, seconds = ?, ok = ?, failed = ?, skipped = ?, bytes = ?, on_wire = ?
    WHERE id = ?"""
