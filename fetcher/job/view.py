"""A job as others may look at it: its ledger opened read-only, also while a run writes it, and whether one does.

Law 3: the sums are the database's; of a million rows or hosts no more than is asked for is held. Law 6: looking changes
nothing, and a run goes on committing beside it. Law 7: every value is checked as it comes, every name made harmless.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Annotated, Any, Self, TypeVar

import msgspec

from fetcher.errors import LedgerError, Skipped
from fetcher.hosts.state import HostReport
from fetcher.job.account import LONGEST_NAME, MOST_CODES, OK, Account, Tally
from fetcher.job.memory import TROUBLED, troubled_of
from fetcher.job.place import LEDGER, LOCK
from fetcher.job.schema import JOURNALS, attach, connect, damaged, explained, whole
from fetcher.sinks.escape import printable

__all__ = ["AllRuns", "HostFigures", "Hosts", "LedgerView", "Output", "Run"]

ENOUGH = 5  # rows that were tried make a mean worth showing
LONGEST_HOST = 255  # characters: a DNS name has 253
LONGEST_PATH = 4_096
MOST_OUTPUTS = 1_000
JOURNAL = JOURNALS[0]
LATEST = 253_402_300_799.0  # seconds since the epoch: the last of the year 9999

T = TypeVar("T")
Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=LATEST)]


class HostFigures(msgspec.Struct, frozen=True):
    """What became of the ``rows`` of one host; ``elapsed`` is the mean of those that were tried, in seconds.

    ``host`` is empty for rows that were no URL.
    """

    host: str
    rows: Count
    failed: Count
    elapsed: Seconds
    bytes: Count


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

    id: Count
    began: Seconds
    seconds: Seconds
    ok: Count
    clean: bool
    exit: Count | None
    taken: Count
    more: bool
    estimate: Count | None

    @property
    def told(self) -> bool:
        """Whether it came as far as to say how far it is."""
        return self.clean or self.seconds > 0


class AllRuns(msgspec.Struct, frozen=True):
    """The number of all runs, their seconds and their pages."""

    count: Count
    seconds: Seconds
    ok: Count


class Output(msgspec.Struct, frozen=True):
    """An output and its committed size in bytes."""

    path: str
    position: int


class LedgerView:
    """The ledger of the job in ``folder`` at one moment, for a ``with`` block; ``pid`` is the process that works on it.

    ``pid`` is 0 where that did not say its number, ``None`` where nobody works on the job. Entering and every method
    raise ``LedgerError``.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.path = os.path.join(folder, LEDGER)
        self.pid: int | None = None

    def __enter__(self) -> Self:
        self.pid = _holder(os.path.join(self.folder, LOCK))
        if not os.path.lexists(self.path + JOURNAL) and not os.access(self.folder, os.W_OK | os.X_OK):
            # SQLite makes the journal's index before it reads.
            raise LedgerError(
                f"{self.path}: cannot be read in a folder you may not write: look at a copy of the folder"
            )
        self._db = connect(self.path, write=False)
        self._account = Account(self.path, self._db)
        try:
            with explained(self.path, "read"):
                self._db.execute("BEGIN")
                self._db.execute("SELECT count(*) FROM meta").fetchone()  # all that follows is of this moment
        except BaseException:
            self._db.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()
        _tidy(self.path)

    def tally(self) -> Tally:
        """Count the finished rows by what became of them."""
        return self._account.tally()

    def troubled(self) -> list[HostReport]:
        """Return the hosts that gave the last run trouble, the worst first."""
        return troubled_of(self._account.note(TROUBLED), path=self.path)

    def outputs(self) -> list[Output]:
        """Return the outputs in the order they were given."""
        names = [row["name"] for row in self._ask("SELECT name FROM outputs ORDER BY id LIMIT ?", MOST_OUTPUTS)]
        if not all(isinstance(name, bytes) for name in names):
            raise damaged(self.path, "an output without a name")
        marks = self._account.marks()
        return [
            Output(printable(os.fsdecode(name), LONGEST_PATH), mark.position)
            for name, mark in zip(names, marks, strict=False)
        ]

    def runs(self, most: int) -> list[Run]:
        """Return the last ``most`` runs, the oldest first."""
        found = self._ask(
            "SELECT id, began, seconds, ok, clean, exit, taken, more, estimate FROM runs ORDER BY id DESC LIMIT ?", most
        )
        return [self._checked(run, Run) for run in reversed(found)]

    def all_runs(self) -> AllRuns:
        """Return what all runs were together."""
        (sums,) = self._ask("SELECT count(*) AS count, total(seconds) AS seconds, coalesce(sum(ok), 0) AS ok FROM runs")
        return self._checked(sums, AllRuns)

    def retrying(self) -> list[str]:
        """Return the codes that a retry has taken up which is not complete."""
        found = self._ask("SELECT value FROM meta WHERE key = 'retrying'")
        try:
            codes = msgspec.json.decode(found[0]["value"] if found else b"[]", type=list[str])
        except (ValueError, TypeError) as error:
            raise damaged(self.path, str(error)) from error
        return [printable(code, LONGEST_NAME) for code in codes[:MOST_CODES]]

    def hosts(self, most: int) -> Hosts:
        """Return the ``most`` slowest and the ``most`` failing hosts, from one pass over the rows."""
        known = self._ask("SELECT id, name FROM codes LIMIT ?", MOST_CODES)
        spared = [whole(self.path, code["id"]) for code in known if code["name"] in {OK, *Skipped.codes}]
        query = _HOSTS.replace("SPARED", ", ".join(map(str, spared)))
        count, *found = self._ask(query, ENOUGH, most, most)
        tables: dict[str, list[HostFigures]] = {"slowest": [], "failing": []}
        for host in found:
            figures = self._checked(host, HostFigures)
            name, mean = printable(figures.host, LONGEST_HOST), round(figures.elapsed, 3)
            tables[host["which"]].append(msgspec.structs.replace(figures, host=name, elapsed=mean))
        return Hosts(whole(self.path, count["rows"]), **tables)

    def _ask(self, query: str, *values: int) -> list[dict[str, Any]]:
        with explained(self.path, "read"):
            answer = self._db.execute(query, values)
            names = [column[0] for column in answer.description]
            return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]

    def _checked(self, values: dict[str, Any], kind: type[T]) -> T:
        try:
            return msgspec.convert(values, kind, strict=False)  # the database has no bool
        except msgspec.ValidationError as error:
            raise damaged(self.path, str(error)) from error


def _tidy(path: str) -> None:
    """Let SQLite take away the journals if there is nothing in them: one that only reads leaves them behind."""
    with contextlib.suppress(OSError, sqlite3.Error, LedgerError):  # the next run would do it
        if os.path.getsize(path + JOURNAL) == 0:
            with contextlib.closing(attach(path, write=True)) as db:
                db.execute("SELECT count(*) FROM meta").fetchone()


def _holder(path: str) -> int | None:
    """Return the process that holds the lock at ``path`` (0 where its number is not there), or ``None``."""
    with _opened(path) as descriptor:
        if descriptor is None or not _is_held(descriptor):
            return None
        with contextlib.suppress(OSError):  # that it is held is what matters
            word = os.read(descriptor, 16).split(b"\n", 1)[0]
            return int(word) if word.isdigit() else 0
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


_HOSTS = """
WITH sums AS (
    SELECT host AS number, count(*) AS rows, sum(code NOT IN (SPARED)) AS failed, sum(attempts > 0) AS tried,
        sum(elapsed) / 1000.0 / max(1, sum(attempts > 0)) AS elapsed, sum(coalesce(bytes, 0)) AS bytes
    FROM rows GROUP BY host)
SELECT 'all' AS which, '' AS host, count(*) AS rows, 0 AS failed, 0.0 AS elapsed, 0 AS bytes FROM sums
UNION ALL SELECT * FROM (
    SELECT 'slowest', name, rows, failed, elapsed, bytes FROM sums LEFT JOIN hosts ON id = number
    WHERE tried >= ? ORDER BY elapsed DESC, rows DESC, number LIMIT ?)
UNION ALL SELECT * FROM (
    SELECT 'failing', name, rows, failed, elapsed, bytes FROM sums LEFT JOIN hosts ON id = number
    WHERE failed > 0 ORDER BY failed DESC, rows, number LIMIT ?)
"""
