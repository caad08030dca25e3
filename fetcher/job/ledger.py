"""The ledger of a job: what became of each row, and how far each output is committed, in one SQLite file.

Its reading side is ``LedgerReader``. On that stand the rows that were found on pages, where links are followed; the
batches of a run; and what outputs in a store ask: notes about parts, the rows of one, and those that are lost with it.

Law 6: a batch of rows and the outputs' positions are one transaction, made after the records are durable; after a
kill, a full disk or an I/O error in between, the ledger has either all of it or nothing. Rows that were found are
written in the transaction of the records of their pages, and what is taken out is on the disk before anything is
fetched again. No error is lost: checkpoints are made explicitly, and closing checks that the journals are gone.
Law 7: what is read is checked.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Self

import msgspec

from fetcher.config import Follow
from fetcher.errors import LedgerError, Skipped
from fetcher.files import sync_folder_of
from fetcher.job.ledger_reader import MAX_NOTE_BYTES, OK, LedgerReader, Tally
from fetcher.job.pace import PaceLog
from fetcher.job.schema import (
    FOLLOWING_FORMATS,
    JOURNALS,
    MAX_VALUE_BYTES,
    SEEN_KEY,
    SHIFT,
    connect,
    damaged,
    explained,
    in_use,
    make,
    upgrade,
    whole,
)
from fetcher.model import Request
from fetcher.sinks.job_output import Batch, Mark

if TYPE_CHECKING:
    from fetcher.found.store import FoundStore, ListedURL, NamedLinks
    from fetcher.sinks.store_parts import PartRow

__all__ = ["OK", "Discovered", "FoundLedger", "Ledger", "LedgerRow", "PartsLedger", "RunProgress", "Tally"]

NO_NOTES: Mapping[str, bytes] = MappingProxyType({})
CHECKPOINT_ROWS = 10_000  # between two copies of the journal into the ledger
CHECKPOINT_COMMITS = 64
INTERNED_NAMES = 20_000  # kept in memory, of codes and of hosts each

FOLLOWING = "note following"  # where it is kept how far that is


class Discovered(msgspec.Struct, frozen=True):
    """What is noted with a batch where links are followed: rows of the list that were taken, and pages that name links."""

    listed: list[ListedURL]
    pages: list[NamedLinks]


class FoundLedger(LedgerReader):
    """A ledger with the rows that were ``found``, once it is told by which rules. Every method raises ``LedgerError``."""

    def __init__(self, path: str, db: sqlite3.Connection) -> None:
        super().__init__(path, db)
        self.found: FoundStore | None = None
        with explained(path, "open"):
            (version,) = db.execute("PRAGMA user_version").fetchone()
            self._follows = version in FOLLOWING_FORMATS
        if self._follows:
            from fetcher.found.store import LISTED_IDS  # most jobs follow no links

            self._last_listed = LISTED_IDS

    def follow(self, rules: Follow) -> FoundStore:
        """Return the rows that are found, by ``rules``: from now on a commit takes what is discovered."""
        from fetcher.found.store import KEY_BYTES, LISTED_IDS, FollowState, FoundStore  # as above

        key = self.blob(SEEN_KEY, KEY_BYTES)
        if not self._follows or key is None or len(key) != KEY_BYTES:
            raise damaged(self.path, "no place for rows that are found")
        noted = self.blob(FOLLOWING, MAX_NOTE_BYTES)
        try:
            state = FollowState() if noted is None else msgspec.json.decode(noted, type=FollowState)
        except (ValueError, RecursionError) as error:
            raise damaged(self.path, str(error)) from error
        with explained(self.path, "open"):
            (last,) = self._db.execute("SELECT coalesce(max(id), ?) FROM found", (LISTED_IDS,)).fetchone()
            if whole(self.path, last) != LISTED_IDS + state.found:
                raise damaged(self.path, f"{state.found} rows were found, and the last is {last}")
            self.found = FoundStore(self._db, rules, key=key, state=state, in_job=True)
        return self.found

    def unfinished(self) -> int:
        """Count the rows that were found and have no outcome yet."""
        if self.found is None:
            return 0
        from fetcher.found.store import LISTED_IDS  # as above

        with explained(self.path, "read"):
            (done,) = self._db.execute("SELECT count(*) FROM rows WHERE id > ?", (LISTED_IDS,)).fetchone()
        return self.found.state.found - whole(self.path, done, 0, self.found.state.found)

    def found_rows(self, after: int, most: int) -> list[Request]:
        """Return the next rows that were found and have no outcome, in the order of their ids."""
        assert self.found is not None
        with explained(self.path, "read"):
            try:
                return self.found.pending(after, most)
            except msgspec.ValidationError as error:
                raise damaged(self.path, str(error)) from error

    def discover(self, discovered: Discovered) -> int:
        """Make rows of what was discovered, within a transaction; return how many. Raises ``sqlite3.Error`` too."""
        assert self.found is not None
        added = self.found.add(discovered.listed, discovered.pages)
        if discovered.listed or discovered.pages:
            state = msgspec.json.encode(self.found.state)
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (FOLLOWING, state))
        return added


class LedgerRow(msgspec.Struct, frozen=True):
    """One finished row: ``code`` is ``ok`` for a page, else the error's. ``elapsed`` in seconds."""

    id: int
    digest: int
    code: str
    status: int | None
    bytes: int | None
    elapsed: float
    attempts: int
    host: str


class RunProgress(msgspec.Struct, frozen=True):
    """How far a run is. ``taken`` rows of the list over the whole job; ``seconds``, ``ok``, ``bytes`` of this run.

    ``more`` says that the list was not read to its end; ``estimate`` is how many rows it has, if that is known.
    ``on_wire`` requests are under way ``at`` that moment, in seconds since the epoch.
    """

    taken: int
    more: bool
    estimate: int | None
    seconds: float
    ok: int
    bytes: int
    on_wire: int = 0
    at: float = 0.0


class Interning:
    """The names of one ``table`` and the numbers that stand for them: a host or a code takes a byte or three in a row.

    Law 3: the latest names are kept in memory, the others looked up, so that a million hosts do not fill it.
    """

    def __init__(self, db: sqlite3.Connection, table: Literal["codes", "hosts"]) -> None:
        self._db = db
        self._look_up = f"SELECT id FROM {table} WHERE name = ?"  # noqa: S608  (one of our two tables)
        self._add = f"INSERT INTO {table} VALUES (NULL, ?)"  # noqa: S608  (as above)
        self._known: dict[str, int] = {}

    def number(self, name: str) -> int:
        """Return the number of ``name``, a new one for a new name: inside a transaction. Raises ``sqlite3.Error``."""
        number = self._known.get(name)
        if number is None:
            found = self._db.execute(self._look_up, (name,)).fetchone()
            number = found[0] if found else self._db.execute(self._add, (name,)).lastrowid
            assert isinstance(number, int)  # the primary key of a table of ours
            if len(self._known) >= INTERNED_NAMES:
                del self._known[next(iter(self._known))]
            self._known[name] = number
        return number

    def forget(self) -> None:
        """Forget what is in memory: the transaction that gave the numbers was rolled back."""
        self._known.clear()


class Ledger(FoundLedger):
    """The ledger at ``path``, written by one thread; ``identity`` is what must not change while the job lasts.

    ``last`` is the greatest finished id, 0 for none; ``done`` counts the finished rows. ``ended_well`` says that the
    run before ended cleanly, ``retrying`` which codes a retry that is not complete has taken up, ``retry_names`` what
    its caller named them, ``next_number`` the number of the next record. Every method raises ``LedgerError``.
    """

    def __init__(self, path: str, db: sqlite3.Connection) -> None:
        super().__init__(path, db)
        with explained(path, "open"):
            self._file = os.stat(path)
        self._codes = Interning(db, "codes")
        self._hosts = Interning(db, "hosts")
        self._run: int | None = None
        self._pace: PaceLog | None = None
        self._before: RunProgress | None = (
            None  # how far the list was read by the runs before, while this one reads nothing
        )
        self._journal_rows = self._journal_commits = 0  # since the last checkpoint
        self.identity = self.blob("identity", MAX_VALUE_BYTES) or b""
        if not self.identity:
            raise damaged(path, "no identity")
        self.retrying = self._codes_at("retrying")
        self.retry_names = self._codes_at("retry names")
        self.last = self._last()
        self.done = whole(path, self._value("SELECT count(*) FROM rows") or 0)
        self.next_number = whole(path, self._value("SELECT max(seq) FROM rows") or 0) + 1
        self.runs = whole(path, self._value("SELECT max(id) FROM runs") or 0)
        clean = self._value("SELECT clean FROM runs ORDER BY id DESC LIMIT 1")
        self.ended_well = clean is None or whole(path, clean, 0, 1) == 1

    def __repr__(self) -> str:
        """Show the state at a glance; ``journal`` is what was committed since the last checkpoint."""
        state = "closed" if not self._open else "in a run" if self._run and not self.ended_well else "idle"
        transaction = ", in a transaction" if self._open and self._db.in_transaction else ""
        return (
            f"<Ledger {self.path!r} {state}: runs={self.runs} done={self.done} last={self.last}"
            f" journal={self._journal_rows} rows in {self._journal_commits} commits{transaction}>"
        )

    @classmethod
    def create(cls, path: str, *, identity: bytes, outputs: Sequence[str], follow: bool = False) -> Self:
        """Make a new ledger for ``outputs``, nothing of which is written yet; ``follow`` for one with rows that are found."""
        make(path, identity, [os.fsencode(output) for output in outputs], follow=follow)
        return cls.open(path)

    @classmethod
    def open(cls, path: str) -> Self:
        """Open the ledger of a job that was begun before, and check it from end to end."""
        db = connect(path, write=True)
        try:
            with explained(path, "open"):
                (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
                if verdict != "ok":
                    raise damaged(path, str(verdict).replace("*** in database main ***\n", ""))
                return cls(path, db)
        except BaseException:
            db.close()
            raise

    def begin_run(self, now: float) -> bool:
        """Note that a run begins at ``now`` (seconds since the epoch); return whether the one before ended well."""
        before = self.ended_well
        with self._transaction():
            upgrade(self._db)
            self._before = self._progress_before()
            added = self._db.execute("INSERT INTO runs VALUES (NULL, ?, 0, NULL, 0, 1, NULL, 0, 0, 0)", (now,))
        with explained(self.path, "write"):
            sync_folder_of(self.path)  # the journal's name; SQLite ignores it when this fails
        self._run = added.lastrowid
        self.runs = self._run or self.runs
        with explained(self.path, "read"):
            self._pace = PaceLog(self._db, self.runs)
        self.ended_well = False
        return before

    def commit(
        self,
        rows: Collection[LedgerRow],
        marks: Sequence[Mark],
        progress: RunProgress,
        notes: Mapping[str, bytes] = NO_NOTES,
        *,
        discovered: Discovered | None = None,
    ) -> int:
        """Add finished rows, in the order of their records, and how far each output reaches now: all or nothing.

        ``notes`` are kept by name, the last of each, for the next run. What was ``discovered`` on the pages of these
        rows becomes rows too: returns how many.
        """
        added = 0
        with self._transaction():
            for name, note in notes.items():
                self._set_meta(f"note {name}", note)
            if discovered is not None:
                added = self.discover(discovered)
                progress = msgspec.structs.replace(progress, taken=progress.taken + added)
            code, host = self._codes.number, self._hosts.number
            self._db.executemany(
                "INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        row.id, seq, row.digest - SHIFT, code(row.code), row.status, row.bytes,
                        max(0, round(row.elapsed * 1000)), host(row.host), row.attempts,
                    )
                    for seq, row in enumerate(rows, self.next_number)
                ],
            )  # fmt: skip
            self._set_marks(marks)
            self._set_progress(progress)
            self._note_pace(rows, progress)
        if rows:
            self._before = None
        self.next_number += len(rows)
        self.last = max(self.last, max((row.id for row in rows), default=0))
        self.done += len(rows)
        self._journal_rows += len(rows) + added
        self._journal_commits += 1
        if self._journal_rows >= CHECKPOINT_ROWS or self._journal_commits >= CHECKPOINT_COMMITS:
            self._checkpoint("PASSIVE")
        return added

    def end_run(self, progress: RunProgress, *, exit: int | None) -> None:  # noqa: A002 - the word for it
        """Note that the run ended cleanly: bytes behind a mark from now on were written by another program."""
        with self._transaction():
            self._set_progress(progress)
            self._db.execute("UPDATE runs SET clean = 1, exit = ? WHERE id = ?", (exit, self._run))
        self.ended_well = True

    def set_identity(self, identity: bytes) -> None:
        """Replace the identity: the list has more files."""
        with self._transaction():
            self._set_meta("identity", identity)
        self.identity = identity

    def begin_rewrite(
        self,
        codes: Collection[str],
        marks: Sequence[Mark],
        copies: Sequence[str],
        *,
        batches: Sequence[Sequence[Batch]] | None = None,
        retry_names: Collection[str] = (),
        notes: Mapping[str, bytes] = NO_NOTES,
    ) -> int:
        """Delete the rows of ``codes``: each output is now its copy, up to its mark. Returns how many rows.

        ``batches`` are what each copy is made of, by default one.

        It is on the disk when this returns; then the copies are to replace the outputs.
        """
        with explained(self.path, "write"):
            self._db.execute("PRAGMA synchronous=FULL")
        with self._transaction():
            numbers = [(self._codes.number(code),) for code in sorted(codes)]
            dropped = self._db.executemany("DELETE FROM rows WHERE code = ?", numbers).rowcount if numbers else 0
            self._db.execute("DELETE FROM batches")
            for output, made in enumerate(batches or ()):
                self._db.executemany(_ADD_BATCH, [(output, end, checksum) for _, end, checksum in made])
            self._set_marks(marks)
            named = [(os.fsencode(copy), output) for output, copy in enumerate(copies)]
            self._db.executemany("UPDATE outputs SET copy = ? WHERE id = ?", named)
            for name, note in notes.items():
                self._set_meta(f"note {name}", note)
            self._set_meta("retrying", msgspec.json.encode(sorted(codes)))
            self._set_meta("retry names", msgspec.json.encode(sorted(retry_names)))
        self._checkpoint("FULL")
        with explained(self.path, "write"):
            self._db.execute("PRAGMA synchronous=NORMAL")
        self.retrying, self.retry_names = frozenset(codes), frozenset(retry_names)
        self.last = self._last()
        self.done -= dropped
        return dropped

    def pending_rewrite(self) -> list[str]:
        """Return the copies that may still have to replace the outputs, one an output; ``[]`` for none.

        The names were read from a file: adopt only one that a rewrite of this job would make.
        """
        with explained(self.path, "read"):
            found = [name for (name,) in self._db.execute("SELECT copy FROM outputs ORDER BY id")]
        if not any(name is not None for name in found):
            return []
        names = [os.fsdecode(name) for name in found if isinstance(name, bytes) and name and b"\0" not in name]
        if len(names) != len(found):
            raise damaged(self.path, "a rewrite of some outputs")
        return names

    def end_rewrite(self) -> None:
        """Note that the copies have replaced the outputs."""
        with self._transaction():
            self._db.execute("UPDATE outputs SET copy = NULL")

    def retry_done(self) -> None:
        """Note that the retry is complete."""
        if self.retrying:
            with self._transaction():
                self._db.execute("DELETE FROM meta WHERE key IN ('retrying', 'retry names')")
            self.retrying = self.retry_names = frozenset()

    def close(self) -> None:
        """Bring everything into the one file and close it. Harmless twice."""
        if not self._open:
            return
        try:
            self._checkpoint("TRUNCATE")
        finally:
            self.abandon()
        left = [self.path + journal for journal in JOURNALS if os.path.lexists(self.path + journal)]
        if left and not in_use(self.path):
            raise LedgerError(f"{left[0]}: cannot be removed: {_LEFT}")

    def abandon(self) -> None:
        """Close the file as it is: whoever opens it next puts it in order. Harmless twice."""
        with self._reading:
            self._open = False
            with contextlib.suppress(sqlite3.Error):  # what was committed is safe whatever it says
                self._db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with explained(self.path, "write"):
            self._check_place()
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self._codes.forget()  # the numbers given in it are rolled back
                self._hosts.forget()
                with contextlib.suppress(sqlite3.Error):  # the first error is raised
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                raise

    def _checkpoint(self, mode: str) -> None:
        """Copy the journal into the ledger. A reader in the way is no error: the journal still has all rows."""
        with explained(self.path, "write"):
            self._db.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        self._journal_rows = self._journal_commits = 0

    def _set_marks(self, marks: Sequence[Mark]) -> None:
        values = [(*msgspec.structs.astuple(mark), output) for output, mark in enumerate(marks)]
        changed = self._db.executemany(
            "UPDATE outputs SET position = ?, tail = ?, checksum = ?, state = ? WHERE id = ?", values
        )
        if changed.rowcount != len(marks):
            raise damaged(self.path, "outputs without a number of theirs")
        # A mark that is the one before is that batch once more.
        ends = [(output, mark.position, mark.checksum) for output, mark in enumerate(marks) if mark.position]
        self._db.executemany(_ADD_BATCH, ends)

    def _progress_before(self) -> RunProgress | None:
        found = self._db.execute(_LAST_PROGRESS).fetchone()
        if found is None:
            return None
        taken, more, estimate = found
        return RunProgress(
            whole(self.path, taken),
            more=bool(whole(self.path, more, 0, 1)),
            estimate=None if estimate is None else whole(self.path, estimate),
            seconds=0.0,
            ok=0,
            bytes=0,
        )

    def _set_progress(self, progress: RunProgress) -> None:
        assert self._run is not None, "no run was begun"
        if self._before is not None and progress.more and progress.taken <= self.done:
            # Nothing was read of the list, for it was refused or the run ended too early: what is known of it is what was.
            before = self._before
            progress = msgspec.structs.replace(
                progress, taken=max(progress.taken, before.taken), more=before.more, estimate=before.estimate
            )
        self._db.execute(
            "UPDATE runs SET taken = ?, more = ?, estimate = ?, seconds = ?, ok = ?, bytes = ? WHERE id = ?",
            (
                progress.taken, progress.more, progress.estimate, progress.seconds, progress.ok, progress.bytes,
                self._run,
            ),
        )  # fmt: skip

    def _note_pace(self, rows: Collection[LedgerRow], progress: RunProgress) -> None:
        assert self._pace is not None, "no run was begun"
        ok = failed = size = 0
        for row in rows:
            if row.code == OK:
                ok += 1
            elif row.code not in Skipped.codes:
                failed += 1
            size += row.bytes or 0
        self._pace.note(progress.at, progress.seconds, (ok, failed, len(rows) - ok - failed, size), progress.on_wire)

    def _set_meta(self, key: str, value: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def _value(self, query: str, *values: str) -> object:
        with explained(self.path, "read"):
            found = self._db.execute(query, values).fetchone()
        return found[0] if found else None

    def _last(self) -> int:
        return whole(self.path, self._value("SELECT max(id) FROM rows") or 0)

    def _codes_at(self, key: str) -> frozenset[str]:
        try:
            return frozenset(msgspec.json.decode(self.blob(key, MAX_NOTE_BYTES) or b"[]", type=list[str]))
        except (ValueError, RecursionError) as error:
            raise damaged(self.path, str(error)) from error

    def _check_place(self) -> None:
        """Raise ``LedgerError`` unless the file at the path is the one that is written: the next run reads that one."""
        try:
            if os.path.samestat(os.stat(self.path), self._file):
                return
        except FileNotFoundError:
            pass
        raise LedgerError(f"{self.path}: another program has moved, replaced or deleted the ledger: {_GONE}")


_LAST_PROGRESS = "SELECT taken, more, estimate FROM runs WHERE clean OR seconds > 0 ORDER BY id DESC LIMIT 1"
_ADD_BATCH = "INSERT OR REPLACE INTO batches VALUES (?, ?, ?)"
_GONE = "what it knew is lost with it: put it back as it was, or begin again with --fresh"
_LEFT = "repair that and run the same command again: nothing is lost"


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
