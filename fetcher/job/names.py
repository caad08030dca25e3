"""The numbers that stand for names in a ledger: a host or a code takes a byte or three in each row.

Law 3: the latest names are remembered, the others looked up, so that a million hosts do not stay in memory.
"""

from __future__ import annotations

import sqlite3

__all__ = ["Names", "codes_of", "hosts_of"]

KNOWN = 20_000


class Names:
    """One table of names: ``look`` finds the number of a name, ``add`` gives it one."""

    def __init__(self, db: sqlite3.Connection, look: str, add: str) -> None:
        self._db = db
        self._look = look
        self._add = add
        self._known: dict[str, int] = {}

    def number(self, name: str) -> int:
        """Return the number of ``name``, a new one for a new name: inside a transaction. Raises ``sqlite3.Error``."""
        number = self._known.get(name)
        if number is None:
            found = self._db.execute(self._look, (name,)).fetchone()
            number = found[0] if found else self._db.execute(self._add, (name,)).lastrowid
            assert isinstance(number, int)  # the primary key of a table of ours
            if len(self._known) >= KNOWN:
                del self._known[next(iter(self._known))]
            self._known[name] = number
        return number

    def forget(self) -> None:
        """Forget what is remembered: the transaction that gave the numbers is undone."""
        self._known.clear()


def codes_of(db: sqlite3.Connection) -> Names:
    """Return the codes of a ledger."""
    return Names(db, "SELECT id FROM codes WHERE name = ?", "INSERT INTO codes VALUES (NULL, ?)")


def hosts_of(db: sqlite3.Connection) -> Names:
    """Return the hosts of a ledger."""
    return Names(db, "SELECT id FROM hosts WHERE name = ?", "INSERT INTO hosts VALUES (NULL, ?)")
