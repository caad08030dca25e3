"""How a file of SQLite is opened, and what to do about its errors: one way for the ledger and for outputs.

Law 7: nothing of the file is trusted: no function in its schema runs, and nothing is mapped, for a file that is cut
short under a mapping ends the process. Law 6: macOS is asked for what brings bytes to the medium (see ``files.sync``).
"""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path
from typing import Final

__all__ = ["BUSY_SECONDS", "JOURNALS", "REPAIR", "address", "advice_about", "guard", "is_busy"]

JOURNALS: Final = ("-wal", "-shm", "-journal")
"""What SQLite writes beside a file, by the end of its name."""

BUSY_SECONDS = 10.0
"""To wait for another program's transaction, or for another connection's recovery."""

REPAIR: Final = "repair that and run the same command again"
_CLOSE: Final = "another program is using it: close that and run the same command again"
_ADVICE: Final = {
    sqlite3.SQLITE_FULL: "make room there and run the same command again",
    sqlite3.SQLITE_BUSY: _CLOSE,
    sqlite3.SQLITE_LOCKED: _CLOSE,
    sqlite3.SQLITE_CONSTRAINT: "a row came twice, and each needs an id of its own",
    **dict.fromkeys(
        (
            sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM,
            sqlite3.SQLITE_AUTH, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_NOLFS, sqlite3.SQLITE_PROTOCOL,
        ),
        REPAIR,
    ),
}  # fmt: skip


def address(path: str, mode: str) -> str:
    """Return the URI that opens ``path``: ``mode`` is ``ro`` or ``rw``, neither of which makes a file."""
    return f"{Path(path).absolute().as_uri()}?mode={mode}"


def guard(db: sqlite3.Connection) -> None:
    """Take from a connection what a hostile file could use, and have checkpoints made when they are asked for alone.

    The file is not yet read. Checkpoints that SQLite makes by itself swallow their errors.
    """
    db.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    if sys.version_info >= (3, 12):
        db.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
    for setting in (
        "trusted_schema=OFF",
        "cell_size_check=ON",
        "mmap_size=0",
        "temp_store=FILE",  # sorting a million rows stays out of memory
        "fullfsync=ON",
        "checkpoint_fullfsync=ON",
        "wal_autocheckpoint=0",
    ):
        db.execute(f"PRAGMA {setting}")


def advice_about(error: sqlite3.Error) -> str | None:
    """Return what to do about an error, ``None`` for one that a sound file of ours never gives."""
    return _ADVICE.get(_code(error))


def is_busy(error: sqlite3.Error) -> bool:
    """Say whether an error means that another connection is in the way."""
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _code(error: sqlite3.Error) -> int:
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    return code & 0xFF
