"""A job as others may look at it: its ledger opened read-only, also while a run writes it, and whether one does.

Law 3: the sums are the database's; of a million rows or hosts no more than is asked for is held. Law 6: looking changes
nothing, and a run waits for nobody who looks. Law 7: every value is checked as it comes, every name made harmless.
"""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from fetcher.errors import LedgerError, Skipped
from fetcher.job.account import MOST_CODES, OK, Account, Tally
from fetcher.job.place import LEDGER, LOCK
from fetcher.job.schema import JOURNALS, LARGEST, connect, damaged, explained, whole
from fetcher.job.schema import _check as check_tables  # the one that knows them
from fetcher.sinks.escape import printable

__all__ = ["HostFigures", "Hosts", "LedgerView", "Output", "Run", "consult"]

ENOUGH = 5  # rows that were tried make a mean worth showing
LONGEST_HOST = 255  # characters: a DNS name has 253
LONGEST_PATH = 4_096
MOST_OUTPUTS = 1_000
LATEST = 253_402_300_799.0  # seconds since the epoch: the last of the year 9999
CACHE = 32 * 1024  # KiB of pages: with SQLite's own 2 MB, sorting a million rows takes half as long again

T = TypeVar("T")


class HostFigures(msgspec.Struct, frozen=True):
    """What became of the ``rows`` of one host; ``elapsed`` is the mean of those that were tried, in seconds.

    ``host`` is empty for rows that were no URL.
    """

    host: str
    rows: int
    failed: int
    elapsed: float
    bytes: int


class Hosts(msgspec.Struct, frozen=True):
    """How many hosts there are, the slowest by their mean, and those with the most failures."""

    count: int
    slowest: list[HostFigures]
    failing: list[HostFigures]


class Run(msgspec.Struct, frozen=True):
    """One run, as of its last commit. ``began`` in seconds since the epoch; ``ok`` pages in ``seconds``.

    ``clean`` says that it ended in good order, ``exit`` with which code, where that was noted. ``taken`` rows of the
    list had been seen over the whole job by then; ``more`` that the list goes on, ``estimate`` how long it is.
    """

    number: int
    began: float
    seconds: float
    ok: int
    bytes: int
    clean: bool
    exit: int | None
    taken: int
    more: bool
    estimate: int | None

    @property
    def told(self) -> bool:
        """Whether it came as far as to say how far it is."""
        return self.clean or self.seconds > 0


class Output(msgspec.Struct, frozen=True):
    """An output and its committed size in bytes."""

    path: str
    position: int


class LedgerView:
    """The ledger of the job in ``folder`` at one moment, for a ``with`` block; ``pid`` is the process that works on it.

    ``pid`` is 0 where that did not say its number, ``None`` where nobody works on the job. With ``live`` the ledger is
    taken for one that is being written. Entering and every method raise ``LedgerError``.
    """

    def __init__(self, folder: str, *, live: bool = False) -> None:
        self.folder = folder
        self.path = os.path.join(folder, LEDGER)
        self.pid = _holder(os.path.join(folder, LOCK))
        self._live = live or self.pid is not None or _journals(self.path)
        self._seen: tuple[int, ...] = ()

    def __enter__(self) -> Self:
        self._seen = self._state()
        self._db = connect(self.path, write=False) if self._live else _connect_still(self.path)
        try:
            with explained(self.path, "read"):
                self._db.execute(f"PRAGMA cache_size=-{CACHE}")
                self._db.execute("BEGIN")  # all that follows is of one moment
        except BaseException:
            self._db.close()
            raise
        self._account = Account(self.path, self._db)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    @property
    def steady(self) -> bool:
        """Whether nobody wrote the ledger behind our back: what was read of one at rest is void otherwise."""
        return self._live or (self._state() == self._seen and not _journals(self.path))

    def tally(self) -> Tally:
        """Count the finished rows by what became of them."""
        return self._account.tally()

    def outputs(self) -> list[Output]:
        """Return the outputs in the order they were given."""
        with explained(self.path, "read"):
            names = self._db.execute(f"SELECT name FROM outputs ORDER BY id LIMIT {MOST_OUTPUTS + 1}").fetchall()
        if len(names) > MOST_OUTPUTS or any(type(name) is not bytes for (name,) in names):
            raise damaged(self.path, "no outputs that could be")
        return [
            Output(printable(os.fsdecode(name), LONGEST_PATH), mark.position)
            for (name,), mark in zip(names, self._account.marks(), strict=True)
        ]

    def runs(self, most: int) -> list[Run]:
        """Return the last ``most`` runs, the oldest first."""
        with explained(self.path, "read"):
            found = self._db.execute(
                "SELECT id, began, seconds, ok, bytes, clean, exit, taken, more, estimate FROM runs"
                " ORDER BY id DESC LIMIT ?",
                (most,),
            ).fetchall()
        return [self._run(*values) for values in reversed(found)]

    def all_runs(self) -> tuple[int, float, int]:
        """Return the number of all runs, their seconds and their pages."""
        with explained(self.path, "read"):
            count, seconds, ok = self._db.execute("SELECT count(*), total(seconds), sum(ok) FROM runs").fetchone()
        return whole(self.path, count), self._seconds(seconds), whole(self.path, ok or 0)

    def retrying(self) -> list[str]:
        """Return the codes that a retry has taken up which is not complete."""
        with explained(self.path, "read"):
            found = self._db.execute("SELECT value FROM meta WHERE key = 'retrying'").fetchone()
        try:
            codes = msgspec.json.decode(found[0] if found else b"[]", type=list[str])
        except (ValueError, TypeError) as error:
            raise damaged(self.path, str(error)) from error
        return [printable(code, LONGEST_HOST) for code in codes[:MOST_CODES]]

    def hosts(self, most: int) -> Hosts:
        """Return the ``most`` slowest and the ``most`` failing hosts, from one pass over the rows."""
        with explained(self.path, "read"):
            known = self._db.execute(f"SELECT id, name FROM codes LIMIT {MOST_CODES + 1}").fetchall()
            spared = [whole(self.path, number) for number, name in known if name == OK or name in Skipped.codes]
            found = self._db.execute(_HOSTS.format(spared=", ".join(map(str, spared))), {"most": most}).fetchall()
        tables: list[list[HostFigures]] = [[], []]
        for table, *values in found[1:]:
            tables[table].append(self._host(*values))
        return Hosts(whole(self.path, found[0][1]), *tables)

    def _host(self, name: object, rows: object, failed: object, tried: object, elapsed: object, size: object) -> HostFigures:  # fmt: skip
        if not isinstance(name, str):
            raise damaged(self.path, "a host without a name")
        mean = whole(self.path, elapsed) / 1000 / max(1, whole(self.path, tried))
        return HostFigures(
            printable(name, LONGEST_HOST), whole(self.path, rows), whole(self.path, failed), round(mean, 3),
            whole(self.path, size),
        )  # fmt: skip

    def _run(
        self, number: object, began: object, seconds: object, ok: object, size: object, clean: object, code: object,
        taken: object, more: object, estimate: object,
    ) -> Run:  # fmt: skip
        path = self.path
        return Run(
            number=whole(path, number),
            began=self._seconds(began),
            seconds=round(self._seconds(seconds), 3),
            ok=whole(path, ok),
            bytes=whole(path, size),
            clean=bool(whole(path, clean, 0, 1)),
            exit=None if code is None else whole(path, code, 0, 255),
            taken=whole(path, taken),
            more=bool(whole(path, more, 0, 1)),
            estimate=None if estimate is None else whole(path, estimate),
        )

    def _seconds(self, value: object) -> float:
        if not isinstance(value, float) or not math.isfinite(value) or not 0 <= value <= LATEST:
            raise damaged(self.path, f"{str(value)[:50]!r} where a time belongs")
        return value

    def _state(self) -> tuple[int, ...]:
        try:
            found = os.lstat(self.path)
        except OSError:
            return ()
        return found.st_ino, found.st_size, found.st_mtime_ns


def consult(folder: str, read: Callable[[LedgerView], T]) -> T:
    """Return what ``read`` makes of the ledger of the job in ``folder``. Raises ``LedgerError``.

    A ledger at rest is read without a trace; one that was woken meanwhile is read once more, beside its writer.
    """
    view = LedgerView(folder)
    with contextlib.ExitStack() as stack:
        try:
            answer = read(stack.enter_context(view))
        except LedgerError:
            if view.steady:
                raise
        else:
            if view.steady:
                return answer
    with LedgerView(folder, live=True) as view:
        return read(view)


def _connect_still(path: str) -> sqlite3.Connection:
    """Open a ledger that nobody writes.

    A plain reader of a write-ahead log makes journals beside it, leaves them there, and fails in a folder that is
    not its to write.
    """
    with explained(path, "open"), contextlib.ExitStack() as stack:
        if not stat.S_ISREG(_mode(path)):
            raise LedgerError(f"{path}: is no regular file, as a ledger is: take it away, or begin again with --fresh")
        address = f"{Path(path).absolute().as_uri()}?mode=ro&immutable=1"
        db = sqlite3.connect(address, uri=True, isolation_level=None)
        stack.callback(db.close)
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST)
        for setting in ("trusted_schema=OFF", "cell_size_check=ON", "mmap_size=0", "temp_store=FILE"):
            db.execute(f"PRAGMA {setting}")
        check_tables(path, db)
        stack.pop_all()
    return db


def _mode(path: str) -> int:
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        raise LedgerError(f"{path}: the ledger is missing: put it back, or begin again with --fresh") from None


def _journals(path: str) -> bool:
    return any(os.path.lexists(path + journal) for journal in JOURNALS)


def _holder(path: str) -> int | None:
    """Return the process that holds the lock at ``path`` (0 where its number is not there), or ``None``."""
    with _opened(path) as descriptor:
        if descriptor is None or not _is_held(descriptor):
            return None
        with contextlib.suppress(OSError, ValueError):  # that it is held is what matters
            return int(os.read(descriptor, 16).split(b"\n", 1)[0])
        return 0


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int | None]:
    # O_NONBLOCK: a FIFO in the lock's place must not hold us.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError:
        yield None  # nobody has worked on the job, or its lock is not ours to see
        return
    try:
        yield descriptor if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    finally:
        os.close(descriptor)


def _is_held(descriptor: int) -> bool:
    """Try for a share in the lock, which goes again with the descriptor: others who look do not see each other."""
    try:
        if sys.platform == "win32":
            import msvcrt

            from fetcher.job.lock import _BYTE

            os.lseek(descriptor, _BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.lseek(descriptor, 0, os.SEEK_SET)
    return False


_HOSTS = f"""
WITH sums AS MATERIALIZED (
    SELECT host, count(*) AS many, sum(code NOT IN ({{spared}})) AS failed, sum(attempts > 0) AS tried,
        sum(elapsed) AS elapsed, sum(coalesce(bytes, 0)) AS size
    FROM rows GROUP BY host)
SELECT 2, count(*), 0, 0, 0, 0, 0 FROM sums
UNION ALL SELECT * FROM (
    SELECT 0, name, many, failed, tried, elapsed, size FROM sums LEFT JOIN hosts ON id = host
    WHERE tried >= {ENOUGH} ORDER BY 1.0 * elapsed / tried DESC, many DESC, host LIMIT :most)
UNION ALL SELECT * FROM (
    SELECT 1, name, many, failed, tried, elapsed, size FROM sums LEFT JOIN hosts ON id = host
    WHERE failed > 0 ORDER BY failed DESC, many, host LIMIT :most)
"""  # the first row is the number of hosts
