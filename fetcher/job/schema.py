"""The file of a ledger: its tables, how a connection to it is made safe, and the words for what goes wrong with it.

Laws: the tables found are exactly ours, without a trigger, a view or a column more, before anything is read or written;
no link is followed, no value of the file may ask for more memory than a ledger needs: lengths are looked at before
values are; nobody but its owner may read it; every error names the path, what happened and what to do (6, 7). A ledger
comes into being whole, by a rename, or not at all.

``rows`` has one row for each finished row of the list: ``seq`` orders the records in the outputs, ``digest`` is shifted
by 2**31 so that it fits four bytes, ``elapsed`` is in milliseconds. ``runs`` has one row for each run, ``codes`` and
``hosts`` the names. ``outputs`` says how far each output is committed; its ``name`` and ``copy`` are file names as
bytes. ``batches`` has one row for each batch of an output: the position it ends at, and the CRC-32 of its bytes.
``pace`` says how far each run was at some of its commits (``pace.py``). Where links are followed there are the tables
of ``found/store.py`` as well, and the format is the next one. A ledger of before ``pace`` is read as it is, and gets
that table, and the format that has it, with its next run: an older version would take the table for damage, and so
tells that it is older.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator
from functools import cache

from fetcher.errors import LedgerError
from fetcher.files import PRIVATE, move, sync_file
from fetcher.job import pace
from fetcher.sqlite_files import BUSY_SECONDS, JOURNALS, REPAIR, address, advice_about, guard, is_busy
from fetcher.terminal import printable

__all__ = [
    "APPLICATION",
    "FOLLOWING_FORMATS",
    "FOLLOW_FORMAT",
    "FORMAT",
    "JOURNALS",
    "SEEN_KEY",
    "SHIFT",
    "attach",
    "connect",
    "damaged",
    "explained",
    "in_use",
    "make",
    "upgrade",
    "whole",
]

APPLICATION = 0x66657463  # "fetc", at byte 68 of the file
FORMAT = 5
FOLLOW_FORMAT = 6  # with the tables of rows that are found
WITHOUT_PACE = {3: FORMAT, 4: FOLLOW_FORMAT}  # older formats, and what the next run makes of each
FOLLOWING_FORMATS = (4, FOLLOW_FORMAT)
SHIFT = 2**31
SEEN_KEY = "seen key"  # where the key of the hash of URLs is kept
MAX_OUTPUTS = 1_000
MAX_VALUE_BYTES = 16 * 1024 * 1024  # the identity by the longest command line has room
MAX_NAME_BYTES = 8_000  # a code, a host, a key or a file's name: the longest has 4,096 bytes
MAX_SCHEMA_STEPS = 20_000  # of SQLite's machine: a hundred times what reading our own tables takes

TABLES = (
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE codes(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    "CREATE TABLE hosts(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    """CREATE TABLE rows(
        id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, digest INTEGER NOT NULL, code INTEGER NOT NULL, status INTEGER,
        bytes INTEGER, elapsed INTEGER NOT NULL, host INTEGER NOT NULL, attempts INTEGER NOT NULL)""",
    """CREATE TABLE outputs(
        id INTEGER PRIMARY KEY, name BLOB NOT NULL, position INTEGER NOT NULL, tail INTEGER NOT NULL,
        checksum INTEGER NOT NULL, state TEXT NOT NULL, copy BLOB)""",
    """CREATE TABLE batches(
        output INTEGER, position INTEGER, checksum INTEGER NOT NULL, PRIMARY KEY(output, position)) WITHOUT ROWID""",
    """CREATE TABLE runs(
        id INTEGER PRIMARY KEY, began REAL NOT NULL, clean INTEGER NOT NULL, exit INTEGER, taken INTEGER NOT NULL,
        more INTEGER NOT NULL, estimate INTEGER, seconds REAL NOT NULL, ok INTEGER NOT NULL, bytes INTEGER NOT NULL)""",
)

_DAMAGED = "put back the file as it was, or begin again with --fresh"


def damaged(path: str, what: str) -> LedgerError:
    """Return the error for a file that is no ledger of ours, or no longer."""
    return LedgerError(f"{path}: the ledger is damaged or not ours ({printable(what, 200)}): {_DAMAGED}")


@contextlib.contextmanager
def explained(path: str, doing: str) -> Iterator[None]:
    """Turn every error of SQLite and of the system into a ``LedgerError`` that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        advice = advice_about(error)
        if advice is None:  # whatever a sound file of ours never gives
            raise damaged(path, str(error)) from error
        raise LedgerError(f"{path}: cannot {doing} the ledger: {printable(str(error), 200)}: {advice}") from error
    except (UnicodeDecodeError, OverflowError) as error:  # even the text of SQLite's error may quote the file
        raise damaged(path, str(error)) from error
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else path
        raise LedgerError(f"{where}: cannot {doing} the ledger: {error.strerror or error}: {REPAIR}") from error


def connect(path: str, *, write: bool) -> sqlite3.Connection:
    """Open the ledger at ``path`` in autocommit mode and check that it is one.

    Without ``write`` the connection is read-only and may be open while a run writes. Raises ``LedgerError``.
    """
    with explained(path, "open"):
        db = attach(path, write=write)
        try:
            _check(path, db)
        except BaseException:
            db.close()
            raise
    return db


def attach(path: str, *, write: bool, longest: int = MAX_VALUE_BYTES) -> sqlite3.Connection:
    """Open ``path`` without a look at its tables: for a ledger that ``connect`` has checked, or a new one.

    No value that is read has more than ``longest`` bytes.
    """
    _check_files(path)
    uri = address(path, "rw" if write else "ro")
    db = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        _guard(db)
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, longest)
    except BaseException:
        db.close()
        raise
    return db


def _guard(db: sqlite3.Connection) -> None:
    """Take from a connection what a hostile file could use."""
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
    guard(db)
    db.set_progress_handler(lambda: 1, MAX_SCHEMA_STEPS)  # a million tables are refused, not read
    db.execute("PRAGMA synchronous=NORMAL")  # the first to read the tables' names
    db.set_progress_handler(None, 0)


def in_use(path: str) -> bool:
    """Say whether a connection to the ledger is open just now, in this process or another."""
    try:
        with contextlib.closing(sqlite3.connect(address(path, "rw"), uri=True, timeout=0)) as db:
            db.execute("PRAGMA locking_mode=EXCLUSIVE")  # before anything is read, for only then it asks for all
            db.execute("SELECT count(*) FROM meta").fetchone()
    except sqlite3.Error as error:
        return is_busy(error)
    return False


def make(path: str, identity: bytes, outputs: list[bytes], *, follow: bool = False) -> None:
    """Create the ledger at ``path``: whole, or not at all. Raises ``LedgerError``, also where there is one.

    ``follow`` makes it one with tables for rows that are found.
    """
    if os.path.lexists(path):
        raise LedgerError(f"{path}: there is a ledger: continue it, or begin again with --fresh")
    fresh = f"{path}.new"
    with explained(path, "create"):
        # The journal of a ledger that is gone would be played back into the new one.
        for stray in (fresh, *(name + journal for name in (fresh, path) for journal in JOURNALS)):
            _unlink(stray)
        os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_RDWR, PRIVATE))  # the journals take its mode
        db = attach(fresh, write=True)
        try:
            db.execute("PRAGMA journal_mode=OFF")  # nobody sees the file before it is renamed
            db.execute("BEGIN")
            for table in _tables(follow=follow, paced=True):
                db.execute(table)
            if follow:
                from fetcher.found.store import KEY_BYTES  # most jobs follow no links

                db.execute(f"INSERT INTO meta VALUES ('{SEEN_KEY}', ?)", (os.urandom(KEY_BYTES),))  # noqa: S608  (a name of ours)
            db.execute("INSERT INTO meta VALUES ('identity', ?)", (identity,))
            db.executemany("INSERT INTO outputs VALUES (?, ?, 0, 0, 0, '', NULL)", enumerate(outputs))
            db.execute(f"PRAGMA application_id={APPLICATION}")
            db.execute(f"PRAGMA user_version={FOLLOW_FORMAT if follow else FORMAT}")
            db.execute("COMMIT")
            if db.execute("PRAGMA journal_mode=WAL").fetchone() != ("wal",):  # an error in writing it is not reported
                raise LedgerError(f"{path}: cannot create the ledger: it takes no write-ahead log: {REPAIR}")
        finally:
            db.close()
        sync_file(fresh)
        move(fresh, path)


def upgrade(db: sqlite3.Connection) -> None:
    """Bring a ledger of an older format to ours, within a transaction; one of ours stays as it is."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version in WITHOUT_PACE:
        db.execute(pace.TABLE)
        db.execute(f"PRAGMA user_version={WITHOUT_PACE[version]}")


def whole(path: str, value: object, low: int = 0, high: int = 2**53) -> int:
    """Return ``value`` if it is an integer from ``low`` to ``high``. Raises ``LedgerError``."""
    if type(value) is not int or not low <= value <= high:
        raise damaged(path, f"{str(value)[:50]!r} where a number from {low} to {high} belongs")
    return value


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _check_files(path: str) -> None:
    for name in (path, *(path + journal for journal in JOURNALS)):
        try:
            mode = os.lstat(name).st_mode
        except FileNotFoundError:
            if name == path:
                raise LedgerError(f"{path}: the ledger is missing: put it back, or begin again with --fresh") from None
            continue
        if not stat.S_ISREG(mode):
            raise LedgerError(f"{name}: is no regular file, as a ledger is: take it away, or begin again with --fresh")
        if name.endswith("-journal"):  # we write none, and playing it back may delete whatever file it names
            raise LedgerError(f"{name}: another program left this: take it away, or begin again with --fresh")


def _check(path: str, db: sqlite3.Connection) -> None:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION:
        raise damaged(path, "another program's file")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version not in (FORMAT, FOLLOW_FORMAT, *WITHOUT_PACE):
        raise LedgerError(
            f"{path}: was written by another version (format {version}; this is {FORMAT}): finish it with that one, "
            "or begin again with --fresh"
        )
    found = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master LIMIT 100").fetchall()
    follow, paced = version in FOLLOWING_FORMATS, version not in WITHOUT_PACE
    if sorted(found, key=repr) != _expected(follow=follow, paced=paced):
        raise damaged(path, "other tables than ours")
    if db.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        raise damaged(path, "no write-ahead log")
    for query in _lengths(follow=follow, paced=paced):
        (longest,) = db.execute(query).fetchone()
        if type(longest) is not int or longest > 0:
            raise damaged(path, "a value longer than any of ours")


_LENGTHS = (
    f"SELECT count(*) FROM meta WHERE length(key) > {MAX_NAME_BYTES} OR length(value) > {MAX_VALUE_BYTES}",  # noqa: S608  (numbers of ours)
    *(
        f"SELECT count(*) FROM {table} WHERE length(name) > {MAX_NAME_BYTES}"  # noqa: S608  (as above)
        for table in (
            "codes NOT INDEXED",
            "codes INDEXED BY sqlite_autoindex_codes_1",
            "hosts INDEXED BY sqlite_autoindex_hosts_1",  # those of the table itself are read by few, and cut
        )
    ),
    """SELECT count(*) FROM runs WHERE max(
        length(began), length(clean), length(coalesce(exit, 0)), length(taken), length(more),
        length(coalesce(estimate, 0)), length(seconds), length(ok), length(bytes)) > 40""",
    "SELECT count(*) FROM batches WHERE max(length(output), length(position), length(checksum)) > 20",
    f"""SELECT count(*) FROM (SELECT total(length(name)) AS names, total(length(state)) AS states,
        total(length(copy)) AS copies, count(*) AS many FROM outputs)
        WHERE many > {MAX_OUTPUTS} OR names + states + copies > {MAX_VALUE_BYTES}""",  # noqa: S608  (as above)
)
"""What is looked at before any value is read, by going through a table from its beginning to its end.

SQLite tells the length of a blob without reading it, and refuses a text beyond ``MAX_VALUE_BYTES``. To look a key up
it would read those it comes by, however long they are.
"""


def _tables(*, follow: bool, paced: bool) -> tuple[str, ...]:
    tables = (*TABLES, pace.TABLE) if paced else TABLES
    if not follow:
        return tables
    from fetcher.found import store  # as above

    return (*tables, *store.TABLES)


def _lengths(*, follow: bool, paced: bool) -> tuple[str, ...]:
    lengths = (*_LENGTHS, pace.LENGTHS) if paced else _LENGTHS
    if not follow:
        return lengths
    from fetcher.found import store  # as above

    return (*lengths, *store.LENGTHS)


@cache
def _expected(*, follow: bool, paced: bool) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        for table in _tables(follow=follow, paced=paced):
            db.execute(table)
        return sorted(db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall(), key=repr)
