"""A job in figures, read from its ledger alone, while a run works on it or after the last one has ended.

Law 1: the counts are the job's: ``input = ok + failed + skipped + pending``, and ``more`` where rows were never read.
Law 3: the database does the sums, and at most a bounded number of hosts is read out of it. Law 6: a report
changes nothing, and a run commits undisturbed beside it. Law 7: every value read is checked, and control characters in
names are escaped.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Annotated, Any, Self, TypeVar

import msgspec

from fetcher.errors import LedgerError, Skipped
from fetcher.files import is_locked, open_regular
from fetcher.hosts.state import HostReport
from fetcher.job.host_memory import TROUBLED, troubled_of
from fetcher.job.ledger_reader import MAX_CODES, MAX_NAME_CHARACTERS, MAX_NOTE_BYTES, OK, LedgerReader, Tally
from fetcher.job.pace import LAST_PACE, MAX_PACE_ROWS, PaceRow
from fetcher.job.paths import LEDGER, LOCK
from fetcher.job.schema import JOURNALS, MAX_VALUE_BYTES, attach, connect, damaged, explained, whole
from fetcher.sinks.store_parts import NOTE, decode_part
from fetcher.store import is_store_url
from fetcher.terminal import printable

__all__ = [
    "COMPLETE",
    "INTERRUPTED",
    "MAX_HOSTS",
    "RUNNING",
    "STOPPED",
    "HostFigures",
    "JobReport",
    "JobSnapshot",
    "OutputFigures",
    "RunReport",
    "figures_of",
    "holder_of",
    "report",
]

MAX_HOSTS = 1_000
MAX_RUNS = 1_000
MAX_OUTPUTS = 1_000
MAX_PARTS = 1_000_000
MAX_HOST_CHARACTERS = 255  # a DNS name has 253
MAX_PATH_CHARACTERS = 4_096
MIN_TRIED_ROWS = 5  # of a host, for its mean time to be worth showing
LAST_SECOND = 253_402_300_799.0  # of the year 9999, since the epoch
JOURNAL = JOURNALS[0]
COMPLETE, INTERRUPTED, RUNNING, STOPPED = "complete", "interrupted", "running", "stopped"

T = TypeVar("T")
Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=LAST_SECOND)]


class HostFigures(msgspec.Struct, frozen=True):
    """What became of the ``rows`` of one host; ``elapsed`` is the mean of those that were tried, in seconds.

    ``host`` is empty for rows that were no URL.
    """

    host: str
    rows: Count
    failed: Count
    elapsed: Seconds
    bytes: Count


class HostRanking(msgspec.Struct, frozen=True):
    """How many hosts there are, the slowest by their mean, and those with the most failures."""

    count: int
    slowest: list[HostFigures]
    failing: list[HostFigures]


class RunFigures(msgspec.Struct, frozen=True):
    """One run, as of its last commit. ``began`` in seconds since the epoch; ``ok`` pages in ``seconds``.

    ``clean`` says that it ended cleanly, ``exit`` with which code, where that was noted. ``taken`` rows of the
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
    def has_figures(self) -> bool:
        """Whether the run lasted long enough to record figures."""
        return self.clean or self.seconds > 0


class RunTotals(msgspec.Struct, frozen=True):
    """The number of all runs, their seconds and their pages."""

    count: Count
    seconds: Seconds
    ok: Count


class OutputFigures(msgspec.Struct, frozen=True):
    """An output and its committed size in bytes; of one that is put into place whole, as it is there."""

    path: str
    position: int


def _size_of(name: str) -> int:
    try:
        return os.path.getsize(name) if os.path.isfile(name) else 0
    except (OSError, ValueError):
        return 0


class _Share(msgspec.Struct, frozen=True):
    """What is asked of a job's identity for a report."""

    shard: str | None = None


class JobSnapshot:
    """The ledger of the job in ``folder`` at one moment, for a ``with`` block; ``pid`` is the process that works on it.

    ``pid`` is 0 where its number is not known, ``None`` where no process works on the job. Entering and every method
    raise ``LedgerError``.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.path = os.path.join(folder, LEDGER)
        self.pid: int | None = None

    def __enter__(self) -> Self:
        self.pid = holder_of(self.folder)
        may_write = not os.path.isdir(self.folder) or os.access(self.folder, os.W_OK | os.X_OK)
        if not os.path.lexists(self.path + JOURNAL) and not may_write:
            # SQLite makes the journal's index before it reads.
            raise LedgerError(
                f"{self.path}: cannot be read in a folder you may not write: look at a copy of the folder"
            )
        self._db = connect(self.path, write=False)
        self._reader = LedgerReader(self.path, self._db)
        try:
            with explained(self.path, "read"):
                self._db.execute("BEGIN")
                self._db.execute("SELECT count(*) FROM meta").fetchone()  # every later query sees this moment
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
        return self._reader.tally()

    def troubled(self) -> list[HostReport]:
        """Return the hosts that gave the last run trouble, the worst first."""
        return troubled_of(self._reader.note(TROUBLED), path=self.path)

    @property
    def identity(self) -> bytes:
        """What must not change of the job, as it is kept."""
        return self._reader.blob("identity", MAX_VALUE_BYTES) or b""

    def shard(self) -> str | None:
        """Return the share of a list that the job is, escaped; ``None`` where it is all of it."""
        try:
            shard = msgspec.json.decode(self.identity, type=_Share).shard
        except (ValueError, RecursionError) as error:
            raise damaged(self.path, str(error)) from error
        return None if shard is None else printable(shard, MAX_NAME_CHARACTERS)

    def output_paths(self) -> list[str]:
        """Return the paths of the outputs in the order they were given, as they are."""
        names = [row["name"] for row in self.ask("SELECT name FROM outputs ORDER BY id LIMIT ?", MAX_OUTPUTS)]
        if not all(isinstance(name, bytes) for name in names):
            raise damaged(self.path, "an output without a name")
        return [os.fsdecode(name) for name in names]

    def outputs(self) -> list[OutputFigures]:
        """Return the outputs in the order they were given."""
        return [
            OutputFigures(printable(path, MAX_PATH_CHARACTERS), mark.position or self._size_of(path))
            for path, mark in zip(self.output_paths(), self._reader.marks(), strict=False)
        ]

    def _size_of(self, path: str) -> int:
        """Return the size of what is there; of parts in a store what the ledger says of those that are whole."""
        if not is_store_url(path):
            return _size_of(path)
        try:
            prefix = f"note {NOTE}"
            notes = self.ask(
                "SELECT value FROM meta WHERE key >= ? AND key < ? LIMIT ?", prefix, f"{prefix}\uffff", MAX_PARTS
            )
            return sum(max(0, decode_part(bytes(note["value"])).size) for note in notes)
        except (ValueError, TypeError) as error:
            raise damaged(self.path, str(error)) from error

    def runs(self, most: int) -> list[RunFigures]:
        """Return the last ``most`` runs, the oldest first."""
        found = self.ask(
            "SELECT id, began, seconds, ok, clean, exit, taken, more, estimate FROM runs ORDER BY id DESC LIMIT ?", most
        )
        return [self._checked(run, RunFigures) for run in reversed(found)]

    def pace(self, most: int = MAX_PACE_ROWS) -> list[PaceRow] | None:
        """Return the last ``most`` moments that were noted, the oldest first; ``None`` where an older version noted none."""
        if not self.ask("SELECT 1 FROM sqlite_master WHERE name = 'pace' LIMIT ?", 1):
            return None
        return [self._checked(row, PaceRow) for row in reversed(self.ask(LAST_PACE, most))]

    def all_runs(self) -> RunTotals:
        """Return what all runs were together."""
        (sums,) = self.ask("SELECT count(*) AS count, total(seconds) AS seconds, coalesce(sum(ok), 0) AS ok FROM runs")
        return self._checked(sums, RunTotals)

    def retrying(self) -> list[str]:
        """Return the codes that a retry has taken up which is not complete."""
        try:
            codes = msgspec.json.decode(self._reader.blob("retrying", MAX_NOTE_BYTES) or b"[]", type=list[str])
        except (ValueError, RecursionError) as error:
            raise damaged(self.path, str(error)) from error
        return [printable(code, MAX_NAME_CHARACTERS) for code in codes[:MAX_CODES]]

    def hosts(self, most: int) -> HostRanking:
        """Return the ``most`` slowest and the ``most`` failing hosts, from one pass over the rows."""
        known = self.ask("SELECT id, name FROM codes LIMIT ?", MAX_CODES)
        spared = [whole(self.path, code["id"]) for code in known if code["name"] in {OK, *Skipped.codes}]
        query = _HOSTS.replace("SPARED", ", ".join(map(str, spared)))
        count, *found = self.ask(query, MIN_TRIED_ROWS, most, most)
        tables: dict[str, list[HostFigures]] = {"slowest": [], "failing": []}
        for host in found:
            figures = self._checked(host, HostFigures)
            name, mean = printable(figures.host, MAX_HOST_CHARACTERS), round(figures.elapsed, 3)
            tables[host["which"]].append(msgspec.structs.replace(figures, host=name, elapsed=mean))
        return HostRanking(whole(self.path, count["rows"]), **tables)

    def ask(self, query: str, *values: int | str) -> list[dict[str, Any]]:
        """Return what the ledger answers to a query of ours, each row by the names of its columns: whoever asks checks it."""
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
    """Let SQLite remove the journals if there is nothing in them: a connection that only reads leaves them behind."""
    with contextlib.suppress(OSError, sqlite3.Error, LedgerError):  # the next run would do it
        if os.path.getsize(path + JOURNAL) == 0:
            with contextlib.closing(attach(path, write=True)) as db:
                db.execute("SELECT count(*) FROM meta").fetchone()


def holder_of(folder: str) -> int | None:
    """Return the process that works on a job (0 where its number is not known), or ``None`` where none does."""
    return _holder(os.path.join(folder, LOCK))


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
    try:
        descriptor = open_regular(path, os.O_RDONLY)
    except OSError:
        yield None  # nobody has worked on the job, or its lock is not ours to see
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_held(descriptor: int) -> bool:
    try:
        return is_locked(descriptor)
    except OSError:  # where no lock can be taken, a run may be at work
        return True


class RunReport(msgspec.Struct, frozen=True):
    """One run: ``began`` in UTC by ISO 8601, ``ok`` pages in ``seconds``.

    ``clean`` says that it ended cleanly, ``exit`` with which code, where that was noted.
    """

    number: int
    began: str
    seconds: float
    ok: int
    pages_per_second: float
    clean: bool
    exit: int | None


class JobReport(msgspec.Struct, frozen=True):
    """How a job stands.

    ``state`` is ``running`` (by the process ``pid``, if that is known), ``complete`` (nothing is left), ``stopped``
    (the last run ended cleanly and left rows) or ``interrupted`` (it was killed). ``input`` counts the rows taken from
    the list, ``estimate`` those it has, if that is known, ``left`` those without an outcome: ``None`` where the list
    goes on and its length is not known. ``codes`` are failures and skipped rows, most first. ``seconds`` and
    ``pages_per_second`` are of all runs, ``last_pages_per_second`` of the last; ``runs`` the last thousand of
    ``run_count``. ``slowest`` and ``failing`` are up to a thousand hosts each, of ``hosts``; ``troubled`` are those
    that were slow, throttled, parked or denied in the last run. ``shard`` is the share of its list that the job is.
    """

    job: str
    state: str
    pid: int | None
    input: int
    done: int
    ok: int
    failed: int
    skipped: int
    pending: int
    more: bool
    estimate: int | None
    left: int | None
    bytes: int
    seconds: float
    pages_per_second: float
    last_pages_per_second: float
    codes: dict[str, int]
    retrying: list[str]
    outputs: list[OutputFigures]
    run_count: int
    runs: list[RunReport]
    hosts: int
    slowest: list[HostFigures]
    failing: list[HostFigures]
    troubled: list[HostReport]
    shard: str | None = None


def report(folder: str, *, hosts: int = MAX_HOSTS) -> JobReport:
    """Return how the job in ``folder`` stands, with up to ``hosts`` of its slowest and its failing hosts.

    Control characters in names are escaped. Raises ``LedgerError``.
    """
    with JobSnapshot(folder) as view:
        return figures_of(view, hosts)


def figures_of(view: JobSnapshot, most: int) -> JobReport:
    """Return the same of a ledger that is open. Raises ``LedgerError``."""
    tally = view.tally()
    done = tally.ok + tally.failed + tally.skipped
    runs = view.runs(MAX_RUNS)
    every = view.all_runs()
    latest = next((run for run in reversed(runs) if run.has_figures), None)
    taken = max(done, latest.taken if latest else 0)
    more = latest is None or latest.more
    estimate = latest.estimate if latest else None
    left = _left(done, taken, estimate, more=more)
    found = view.hosts(most)
    return JobReport(
        job=printable(view.folder),
        state=_state(view, runs, complete=not more and taken == done),
        pid=view.pid or None,
        input=taken,
        done=done,
        ok=tally.ok,
        failed=tally.failed,
        skipped=tally.skipped,
        pending=taken - done,
        more=more,
        estimate=estimate,
        left=left,
        bytes=tally.bytes,
        seconds=round(every.seconds, 3),
        pages_per_second=_rate(every.ok, every.seconds),
        last_pages_per_second=_rate(latest.ok, latest.seconds) if latest else 0.0,
        codes=_named(tally),
        retrying=view.retrying(),
        outputs=view.outputs(),
        run_count=every.count,
        runs=[_run(run) for run in runs],
        hosts=found.count,
        slowest=found.slowest,
        failing=found.failing,
        troubled=[_escaped(host) for host in view.troubled()[:most]],
        shard=view.shard(),
    )


def _left(done: int, taken: int, estimate: int | None, *, more: bool) -> int | None:
    if not more:
        return taken - done
    return None if estimate is None else max(estimate, taken) - done


def _state(view: JobSnapshot, runs: list[RunFigures], *, complete: bool) -> str:
    if view.pid is not None:
        return RUNNING
    if complete:
        return COMPLETE
    return STOPPED if runs and runs[-1].clean else INTERRUPTED


def _run(run: RunFigures) -> RunReport:
    began = datetime.fromtimestamp(run.began, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return RunReport(run.id, began, run.seconds, run.ok, _rate(run.ok, run.seconds), run.clean, run.exit)


def _rate(pages: int, seconds: float) -> float:
    return round(pages / seconds, 1) if seconds > 0 else 0.0


def _escaped(host: HostReport) -> HostReport:
    given_up = None if host.given_up is None else printable(host.given_up, 300)
    return msgspec.structs.replace(host, host=printable(host.host, 255), given_up=given_up)


def _named(tally: Tally) -> dict[str, int]:
    """Return the counts by code, escaped; codes that look the same afterwards are added up."""
    codes: dict[str, int] = {}
    for code, many in tally.codes.items():
        shown = printable(code, 100)
        codes[shown] = codes.get(shown, 0) + many
    return codes


_HOSTS = """
WITH sums AS (
    SELECT host AS number, count(*) AS rows, sum(code NOT IN (SPARED)) AS failed, sum(attempts > 0) AS tried,
        sum(elapsed) / 1000.0 / max(1, sum(attempts > 0)) AS elapsed, sum(coalesce(bytes, 0)) AS bytes
    FROM rows GROUP BY host)
SELECT 'all' AS which, '' AS host, count(*) AS rows, 0 AS failed, 0.0 AS elapsed, 0 AS bytes FROM sums
UNION ALL SELECT * FROM (
    SELECT 'slowest', substr(name, 1, 256), rows, failed, elapsed, bytes FROM sums LEFT JOIN hosts ON id = number
    WHERE tried >= ? ORDER BY elapsed DESC, rows DESC, number LIMIT ?)
UNION ALL SELECT * FROM (
    SELECT 'failing', substr(name, 1, 256), rows, failed, elapsed, bytes FROM sums LEFT JOIN hosts ON id = number
    WHERE failed > 0 ORDER BY failed DESC, rows, number LIMIT ?)
"""
