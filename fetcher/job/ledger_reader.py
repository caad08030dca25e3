"""The reading side of a ledger: how far its outputs are committed, what became of its rows, and which are finished.

Laws: a million rows are read in bounded memory (3), and reading holds no lock that the writer waits for; every value is
checked, for a ledger may have been damaged or made by a stranger (7).
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Collection, Generator, Iterator

import msgspec

from fetcher.errors import LedgerError, Skipped
from fetcher.job.schema import SHIFT, attach, damaged, explained, whole
from fetcher.sinks.job_output import Batch, KeptRow, Mark

__all__ = ["OK", "LedgerReader", "Tally"]

OK = "ok"
READ_ROWS = 5_000  # at once
MAX_ID = 2**53
MAX_CODES = 2_000  # distinct ones: there are a thousand statuses and a few dozen codes
MAX_NAME_CHARACTERS = 1_000
MAX_NUMBER_BYTES = 1_000  # of a value, where all are numbers of some digits
MAX_NOTE_BYTES = 4 * 1024 * 1024  # ten thousand hosts have room


class Tally(msgspec.Struct):
    """What became of the rows so far; ``codes`` are those of failures and skipped rows, most first."""

    ok: int = 0
    failed: int = 0
    skipped: int = 0
    bytes: int = 0
    codes: dict[str, int] = {}


class LedgerReader:
    """The readable side of the ledger at ``path``. Every method raises ``LedgerError``."""

    def __init__(self, path: str, db: sqlite3.Connection) -> None:
        self.path = path
        self._db = db
        self._last_listed = MAX_ID
        self.next_number = 1  # the number of the next record, in the order of the outputs
        self._open = True
        self._reading = threading.Lock()

    def marks(self) -> list[Mark]:
        """Return how far each output is committed, in the order they were given."""
        with explained(self.path, "read"):
            found = self._db.execute("SELECT position, tail, checksum, state FROM outputs ORDER BY id").fetchall()
        marks = []
        for position, tail, checksum, state in found:
            if not isinstance(state, str):
                raise damaged(self.path, "an output's state is no text")
            end = whole(self.path, position)
            marks.append(Mark(end, whole(self.path, tail, 0, end), whole(self.path, checksum, 0, 2**32 - 1), state))
        return marks

    def batches(self, output: int, mark: Mark, *, last: int | None = None) -> Generator[Batch, None, None]:
        """Iterate over the batches that output number ``output`` is made of, up to its ``mark``.

        With ``last`` they are those that its last so many bytes are in.
        """
        with explained(self.path, "read"), contextlib.closing(self._attach()) as db:
            start = checksum = 0
            if last is not None:
                (found,) = db.execute(_BATCH_BEFORE, (output, mark.position - last)).fetchone()
                start = whole(self.path, found or 0)
            for end, checksum in db.execute(_BATCHES, (output, start)):
                yield Batch(start, whole(self.path, end, start + 1), whole(self.path, checksum, 0, 2**32 - 1))
                start = end
        if (start, checksum) != (mark.position, mark.checksum):
            raise damaged(self.path, "the batches of an output end otherwise than it does")

    def tally(self) -> Tally:
        """Count the finished rows by what became of them, and the bytes of their bodies."""
        counted: dict[str, int] = {}
        size = 0
        with explained(self.path, "read"):
            groups = self._db.execute(_GROUPS, (MAX_CODES + 1,)).fetchall()
        if len(groups) > MAX_CODES:
            raise damaged(self.path, "too many codes")
        for name, many, some in groups:
            if not isinstance(name, str) or len(name) > MAX_NAME_CHARACTERS:
                raise damaged(self.path, "a code without a name")
            counted[name] = whole(self.path, many)
            size += whole(self.path, some or 0)
        ok = counted.pop(OK, 0)
        skipped = sum(many for name, many in counted.items() if name in Skipped.codes)
        return Tally(ok, sum(counted.values()) - skipped, skipped, size, counted)

    def note(self, name: str) -> bytes | None:
        """Return the last note of that name."""
        return self.blob(f"note {name}", MAX_NOTE_BYTES)

    def blob(self, key: str, longest: int) -> bytes | None:
        """Return what is kept under ``key``, which has at most ``longest`` bytes: its length is asked for first."""
        with explained(self.path, "read"):
            found = self._db.execute("SELECT length(value) FROM meta WHERE key = ?", (key,)).fetchone()
            if found is None:
                return None
            if whole(self.path, found[0]) > longest:
                raise damaged(self.path, f"{key} has {found[0]:,} bytes")
            (value,) = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        if not isinstance(value, bytes):
            raise damaged(self.path, f"{key} is no blob")
        return value

    def finished(self) -> Iterator[tuple[int, int]]:
        """Iterate over the rows of the list that are finished by now, as (id, digest) in the order of their ids.

        May be used in any thread. It reads some thousand rows at a time and nothing in between, so that commits go on
        undisturbed; the rows that they add are not among these.
        """
        return self._finished(self.next_number)

    def _finished(self, end: int) -> Iterator[tuple[int, int]]:
        last = 0
        while True:
            rows = self._read(_FINISHED, (last, end, self._last_listed, READ_ROWS))
            for row, shifted in rows:
                if type(row) is not int or row <= last:
                    raise damaged(self.path, "rows out of order")
                last = row
                yield row, whole(self.path, shifted, -SHIFT, SHIFT - 1) + SHIFT
            if len(rows) < READ_ROWS:
                return

    def order(self, codes: Collection[str]) -> Generator[KeptRow, None, None]:
        """Iterate over all rows in the order their records were written: each is kept unless its code is of ``codes``."""
        with explained(self.path, "read"):
            dropped = {number for name in codes for number in self._db.execute(_CODE, (name,)).fetchone() or ()}
        return self._order(dropped)

    def _order(self, dropped: Collection[int]) -> Generator[KeptRow, None, None]:
        with explained(self.path, "read"), contextlib.closing(self._attach()) as db:
            for row, code in db.execute("SELECT id, code FROM rows ORDER BY seq"):
                yield KeptRow(whole(self.path, row), code not in dropped)

    def _read(self, query: str, values: tuple[int, ...]) -> list[tuple[object, ...]]:
        """Read through a connection of its own, which is closed when this returns."""
        with self._reading, explained(self.path, "read"):
            if not self._open:
                raise LedgerError(f"{self.path}: the ledger is closed")
            with contextlib.closing(self._attach()) as db:
                return db.execute(query, values).fetchall()

    def _attach(self) -> sqlite3.Connection:
        return attach(self.path, write=False, longest=MAX_NUMBER_BYTES)


_BATCH_BEFORE = "SELECT max(position) FROM batches WHERE output = ? AND position <= ?"
_BATCHES = "SELECT position, checksum FROM batches WHERE output = ? AND position > ? ORDER BY position"
_CODE = "SELECT id FROM codes WHERE name = ?"
_FINISHED = "SELECT id, digest FROM rows WHERE id > ? AND seq < ? AND id <= ? ORDER BY id LIMIT ?"
_GROUPS = """
    SELECT name, many, size FROM (SELECT code, count(*) AS many, sum(bytes) AS size FROM rows GROUP BY code)
    LEFT JOIN codes ON id = code ORDER BY many DESC LIMIT ?"""
