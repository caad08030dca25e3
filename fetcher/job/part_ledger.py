"""The side of a ledger that outputs in a store ask: notes about parts, the rows of one, and those that are lost with it.

Law 6: what is taken out here is on the disk before anything is fetched again. Law 7: what is read is checked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fetcher.job.ledger import Ledger
from fetcher.job.schema import SHIFT, damaged, explained, whole

if TYPE_CHECKING:
    from fetcher.sinks.store_parts import PartRow

__all__ = ["PartsLedger"]


class PartsLedger(Ledger):
    """A ledger whose outputs may lie in a store. Every method raises ``LedgerError``."""

    def notes_like(self, prefix: str) -> dict[str, bytes]:
        """Return the notes whose names begin so, in their order."""
        with explained(self.path, "read"):
            found = self._db.execute(
                "SELECT key, value FROM meta WHERE key >= ? AND key < ? ORDER BY key",
                (f"note {prefix}", f"note {prefix}\uffff"),
            ).fetchall()
        for key, value in found:
            if not isinstance(key, str) or not isinstance(value, bytes):
                raise damaged(self.path, "a note that is none")
        return {key.removeprefix("note "): value for key, value in found}

    def part_rows(self, first: int, last: int) -> Iterator[PartRow]:
        """Yield the rows whose records have the numbers from ``first`` to ``last``, in their order.

        May be used in any thread. All rows are looked through for them.
        """
        from fetcher.sinks.store_parts import PartRow  # most outputs are on this disk

        with explained(self.path, "read"), contextlib.closing(self._attach()) as db:
            for row, digest, code, status, size, elapsed, host, attempts in db.execute(_PART_ROWS, (first, last)):
                if not isinstance(code, str) or not isinstance(host, str):
                    raise damaged(self.path, "a row without a code or a host")
                shifted = whole(self.path, digest, -SHIFT, SHIFT - 1)
                yield PartRow(
                    whole(self.path, row),
                    shifted + SHIFT,
                    code,
                    status,
                    size,
                    whole(self.path, elapsed),
                    host,
                    attempts,
                )

    def keep_note(self, name: str, note: bytes) -> None:
        """Keep a note at once: it is on the disk when this returns."""
        with self._transaction():
            self._set_meta(f"note {name}", note)
        self._checkpoint("FULL")

    def forget_rows(self, first: int, last: int, note: str) -> int:
        """Take out the rows whose records have the numbers ``first`` to ``last``, and a note; return how many rows."""
        with self._transaction():
            forgotten = self._db.execute("DELETE FROM rows WHERE seq BETWEEN ? AND ?", (first, last)).rowcount
            if note:
                self._db.execute("DELETE FROM meta WHERE key = ?", (f"note {note}",))
        self._checkpoint("FULL")
        self.last = self._last()
        self.done -= forgotten
        return forgotten


_PART_ROWS = """
    SELECT rows.id, digest, codes.name, status, bytes, elapsed, hosts.name, attempts FROM rows
    JOIN codes ON codes.id = code JOIN hosts ON hosts.id = host WHERE seq BETWEEN ? AND ? ORDER BY seq"""
