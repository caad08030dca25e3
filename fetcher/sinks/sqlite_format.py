"""SQLite: a database with the table ``pages``, one for each list of a page's, and one that knows the batches.

Laws: a batch and its number in ``fetcher_batches`` are one transaction, on the disk before its mark is given out; the
one that the ledger does not know is deleted by the next ``resume`` (6). A database that is not as its mark and the
checksums of its batches say is refused and left as it is (2). Rows are read back one at a time, however many there are
(3).

A mark's ``position`` is the number of the last batch: the bytes of all chunks up to its end, so that what is looked at
of the end of an output is as much as in the other formats. A batch without a record counts as one byte.
"""

from __future__ import annotations

import contextlib
import json  # its escapes keep lone surrogates, which the names of columns may have
import os
import sqlite3
import zlib
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from typing import Any

import msgspec

from fetcher.errors import SinkError
from fetcher.files import PLAIN_FLAGS, PRIVATE, create_like, open_regular, sync, sync_folder_of, write_all
from fetcher.model import Outcome
from fetcher.sinks.job_output import Batch, JobOutput, KeptRow, Mark, Rewrite
from fetcher.sinks.layout import Layout
from fetcher.sinks.opening import RESTORE_ADVICE, already_exists, check_same_file, open_for_job, write_error
from fetcher.sinks.sqlite_schema import (
    APPLICATION,
    FORMAT,
    RowMaker,
    TableSchema,
    as_chunk,
)
from fetcher.sqlite_files import BUSY_SECONDS, JOURNALS, address, advice_about, guard, is_busy
from fetcher.terminal import printable

__all__ = ["SQLiteOutput"]

CHECKPOINT_BYTES = 16 * 1024 * 1024
CHECKPOINT_BATCHES = 64
"""Between two copies of the write-ahead log into the file."""

CACHE_KILOBYTES = 8_000

_decode = msgspec.msgpack.Decoder().decode
_encode_ids = msgspec.msgpack.Encoder().encode
_decode_ids = msgspec.msgpack.Decoder(list[int]).decode


class DroppedRows(msgspec.Struct, frozen=True):
    """A line of a rewrite: what becomes of the batch at ``old``, which is at ``new`` then, or gone where none are kept."""

    old: int
    new: int
    kept: list[int]
    dropped: list[int]
    records: int | None = None
    """How many rows those have that are kept, where it is not one each."""


class RewriteEnd(msgspec.Struct, frozen=True):
    """The last line of a rewrite: from which position to which, and the CRC-32 of the lines above."""

    old: int
    new: int
    checksum: int


class SQLiteOutput(JobOutput):
    """A database that ``append`` adds a batch to in one transaction, and ``resume`` takes the last one off again.

    It keeps a write-ahead log while it is written, so that others may read it meanwhile; ``complete`` leaves one file,
    unless somebody else has it open.
    """

    def __init__(self, path: str, layout: Layout) -> None:
        super().__init__(path)
        self._layout = layout
        self._fields = layout.fields
        self._rows: RowMaker | None = None
        self._schema: TableSchema | None = None
        self._descriptor = -1  # closing any of a file's descriptors drops SQLite's locks: this is closed behind it
        self._db: sqlite3.Connection | None = None
        self._logged = False
        self._mark = Mark()
        self._failed = False
        self._open_bytes = self._open_batches = 0  # since the last checkpoint

    def create(self, *, fresh: bool = False) -> None:
        """Make an empty file, or take one that is there: the tables come with the first batch."""
        descriptor = open_for_job(self.path, create=True)
        journals = [self.path + journal for journal in JOURNALS if os.path.lexists(self.path + journal)]
        try:
            found = os.fstat(descriptor)
            if not fresh and (found.st_size or journals):
                raise already_exists(self.path if found.st_size else journals[0])
            self._unlink(journals)
            if found.st_size:  # whoever has the old one open keeps it: cut under them it would be torn
                os.close(descriptor)
                descriptor = -1
                descriptor = create_like(os.path.realpath(self.path), found)
            sync_folder_of(self.path)
        except BaseException as error:
            if descriptor >= 0:
                os.close(descriptor)
            if isinstance(error, OSError):
                raise write_error(self.path, "cannot write", error) from error
            raise
        os.close(descriptor)
        self._take(Mark())

    def resume(self, mark: Mark, *, clean: bool, batches: Iterable[Batch] | None = None) -> None:
        """Open the database, check it against ``mark`` and ``batches`` and delete the batch that was not committed.

        How many records there are is looked at always. Raises ``SinkError``, with the database as it was.
        """
        self.discard()
        try:
            self._restore(mark.state)
            if mark.position and self._fields is None:
                raise ValueError("it knows no columns")
        except ValueError as error:
            raise SinkError(f"{self.path}: the job does not say how it goes on ({error}): {RESTORE_ADVICE}") from error
        if not mark.position:
            self._empty(clean=clean)
            self._take(mark)
            return
        self._take(mark)
        try:
            db = self._connect()
            with self._explained("go on with it"):
                last = self._check(db, batches)
                if db.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                    # A complete one: who reads it is in the way of whatever is added. Better to know it now.
                    db.execute("BEGIN EXCLUSIVE")
                    db.execute("ROLLBACK")
                if last != mark.position:
                    if clean:
                        raise SinkError(f"{self.path}: was added to since: {RESTORE_ADVICE}")
                    self._take_off(db)
        except BaseException:
            self._failed = True
            self.discard()
            raise

    def encode(self, outcome: Outcome) -> bytes:
        """Return the row of ``outcome``; the first decides about the list's own columns where none were named."""
        if self._rows is None:
            if self._fields is None:
                self._fields = tuple(outcome.request.fields or ())
            self._rows = RowMaker(self._layout, self._tables())
        return self._rows.chunk(outcome)

    def append(self, chunks: list[bytes]) -> Mark:
        """Add a batch of rows in one transaction; return the new mark. Without any the mark is the one before."""
        return self._commit(chunks) if chunks else self._mark

    def complete(self) -> Mark:
        """Make the tables, also where there is no row, and leave one file, if nobody else has it open."""
        if not self._mark.position:
            if self._fields is None:
                self._fields = ()
            self._commit([])
        self._end_log(self._connect())
        return self._mark

    def discard(self) -> None:
        """Close the database as it is. Whoever closes it last brings the log into the file, and removes that."""
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):  # all that was promised is on the disk
                db.close()
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def rewrite(self, copy: str, rows: Iterator[KeptRow], batches: Iterable[Batch] | None = None) -> Rewrite:
        """Write to ``copy`` which rows are to be deleted, batch by batch; return what the database will be.

        All of it is held against the checksums of ``batches``. Raises ``SinkError`` where it is otherwise, or ``copy``
        cannot be written.
        """
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(copy)
            descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | PLAIN_FLAGS, PRIVATE)
            try:
                with self._explained("rewrite it"):
                    rewrite = self._write_rewrite(descriptor, rows, batches)
                sync(descriptor)
            finally:
                os.close(descriptor)
            sync_folder_of(copy)
        except BaseException as error:
            with contextlib.suppress(OSError):  # one that is left is made anew by the next rewrite
                os.unlink(copy)
            if isinstance(error, OSError):
                raise write_error(self.path, f"cannot be rewritten as {copy}", error) from error
            raise
        return rewrite

    def adopt(self, copy: str, mark: Mark, batches: Collection[Batch] | None = None) -> None:  # noqa: ARG002  # the lines have a checksum of their own
        """Delete what ``copy`` says, in one transaction, remove that, and go on at ``mark``.

        One that was followed before, whose removal was not, is removed.
        """
        if os.path.lexists(copy):
            self._restore(mark.state)
            try:
                end = _end_of(copy)
                if end is None or end.new != mark.position:
                    raise SinkError(f"{copy}: was changed since: {RESTORE_ADVICE}")
                db = self._connect()
                with self._explained("rewrite it"), _transaction(db):
                    self._check_tables(db)
                    last = _last_position(db)
                    if last == end.old:
                        self._drop(db, copy, end.new)
                    elif last != end.new:
                        raise _changed(self.path, "it ends otherwise")
                os.unlink(copy)
                sync_folder_of(copy)
            except BaseException as error:
                self._failed = True
                self.discard()
                if isinstance(error, OSError):
                    raise write_error(self.path, f"cannot be rewritten by {copy}", error) from error
                raise
        self.resume(mark, clean=True)

    def check_place(self) -> None:
        """Raise ``SinkError`` unless the file at the path is the one that we write: whoever looks there shall find it."""
        check_same_file(self.path, self._descriptor)

    # Batches

    def _commit(self, chunks: list[bytes]) -> Mark:
        if self._descriptor < 0:
            raise RuntimeError(f"{self.path}: not open: create or resume first")
        if self._failed:
            raise SinkError(f"{self.path}: cannot write: an earlier write failed")
        self._failed = True
        if not self._mark.position and self._db is None:
            self._make()
        db = self._connect()
        self.check_place()
        size = sum(map(len, chunks)) or 1
        checksum = 0
        for chunk in chunks:
            checksum = zlib.crc32(chunk, checksum)
        position = self._mark.position + size
        with self._explained("write"):
            self._begin_log(db)
            with _transaction(db):
                self._insert(db, chunks, position)
            self._open_bytes += size
            self._open_batches += 1
            if self._open_bytes >= CHECKPOINT_BYTES or self._open_batches >= CHECKPOINT_BATCHES:
                db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                self._open_bytes = self._open_batches = 0
        self._mark = Mark(position, size, checksum, self._state())
        self._failed = False
        return self._mark

    def _insert(self, db: sqlite3.Connection, chunks: list[bytes], position: int) -> None:
        tables = self._tables()
        found = list(map(_decode, chunks))
        lists = [each.pop() for each in found] if tables.list_tables else []
        rows = list(chain.from_iterable(found)) if tables.explodes else found
        db.executemany(tables.insert, rows)
        ids = [each[0][0] if tables.explodes else each[0] for each in found]
        for place, table in enumerate(tables.list_tables):
            of_pages = (table.rows(id_, each[place]) for id_, each in zip(ids, lists, strict=True))
            db.executemany(table.insert, chain.from_iterable(of_pages))
        db.execute("INSERT INTO fetcher_batches VALUES (?, ?, ?)", (position, len(rows), _encode_ids(ids)))

    def _take_off(self, db: sqlite3.Connection) -> None:
        """Delete the batches behind the mark: one, unless the ledger is older than the database."""
        with _transaction(db):
            found = db.execute("SELECT ids FROM fetcher_batches WHERE position > ?", (self._mark.position,)).fetchall()
            for (ids,) in found:
                self._delete(db, _decode_ids(ids))
            db.execute("DELETE FROM fetcher_batches WHERE position > ?", (self._mark.position,))

    def _delete(self, db: sqlite3.Connection, ids: list[int]) -> None:
        for table in self._tables().list_tables:
            db.executemany(table.delete, ((id_,) for id_ in ids))
        db.executemany(self._tables().delete, ((id_,) for id_ in ids))

    # Checks

    def _check(self, db: sqlite3.Connection, batches: Iterable[Batch] | None) -> int:
        """Hold the database against the mark and ``batches``, by default the last; return where it ends."""
        mark = self._mark
        self._check_tables(db)
        counted = db.execute("SELECT count(*) FROM pages").fetchone()[0]
        written = db.execute("SELECT total(records) FROM fetcher_batches").fetchone()[0]
        if counted != written:
            raise _changed(self.path, f"{counted} rows, not {written:.0f}")
        for batch in [Batch(mark.position - mark.tail, mark.position, mark.checksum)] if batches is None else batches:
            checksum = 0
            for chunk in self._chunks_of(db, self._ids_at(db, batch.end)):
                checksum = zlib.crc32(chunk, checksum)
            if checksum != batch.checksum:
                raise _changed(self.path, f"its rows {batch.start} to {batch.end} are not those that were written")
        return _last_position(db)

    def _check_tables(self, db: sqlite3.Connection) -> None:
        if db.execute("PRAGMA application_id").fetchone() != (APPLICATION,):
            raise _changed(self.path, "it is another program's database")
        if db.execute("PRAGMA user_version").fetchone() != (FORMAT,):
            raise SinkError(f"{self.path}: was written by another version: finish it with that one, or use --fresh")
        found = dict(db.execute("SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'index')"))
        for name, statement in self._tables().statements.items():
            if found.get(name) != statement:
                raise _changed(self.path, f"the table or index {printable(name, 100)} is not ours")
        if db.execute("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'").fetchone() != (0,):
            raise _changed(self.path, "it has triggers")

    def _ids_at(self, db: sqlite3.Connection, position: int) -> list[int]:
        found = db.execute("SELECT ids FROM fetcher_batches WHERE position = ?", (position,)).fetchone()
        if found is None:
            raise _changed(self.path, "a batch of rows is missing")
        return _decode_ids(found[0])

    def _chunks_of(self, db: sqlite3.Connection, ids: Iterable[int]) -> Iterator[bytes]:
        """Yield the chunks of rows as they are read back."""
        tables = self._tables()
        for id_ in ids:
            rows = db.execute(tables.select, (id_,)).fetchall()
            if not rows:
                raise _changed(self.path, f"row {id_} is missing")
            yield as_chunk(
                rows if tables.explodes else rows[0],
                [table.items(db, id_) for table in tables.list_tables],
            )

    # Rewriting

    def _write_rewrite(self, descriptor: int, rows: Iterator[KeptRow], batches: Iterable[Batch] | None) -> Rewrite:
        db = self._connect()
        written: list[Batch] = []
        checksum = 0
        for line, batch in self._rewritten(db, rows, batches):
            if line.kept:
                written.append(batch)
            data = msgspec.json.encode(line) + b"\n"
            checksum = zlib.crc32(data, checksum)
            write_all(descriptor, data)
        if next(rows, None) is not None:
            raise _changed(self.path, "fewer rows than were written")
        if not written:
            written.append(Batch(0, 1, 0))
        last = written[-1]
        write_all(descriptor, msgspec.json.encode(RewriteEnd(self._mark.position, last.end, checksum)) + b"\n")
        return Rewrite(Mark(last.end, last.end - last.start, last.checksum, self._mark.state), written)

    def _rewritten(
        self, db: sqlite3.Connection, rows: Iterator[KeptRow], batches: Iterable[Batch] | None
    ) -> Iterator[tuple[DroppedRows, Batch]]:
        """Yield what becomes of each batch. Raises ``SinkError`` where one is not as it was written."""
        position = 0
        tables = self._tables()
        known = None if batches is None else iter(batches)
        for old, listed in db.execute("SELECT position, ids FROM fetcher_batches ORDER BY position"):
            ids = _decode_ids(listed)
            kept: list[int] = []
            was = found = size = records = 0
            for id_, chunk in zip(ids, self._chunks_of(db, ids), strict=True):
                row = next(rows, None)
                if row is None or row.id != id_:
                    raise _changed(self.path, f"row {id_} is not where it was written")
                was = zlib.crc32(chunk, was)
                if row.kept:
                    kept.append(id_)
                    found = zlib.crc32(chunk, found)
                    size += len(chunk)
                    records += len(_rows_in(chunk, tables)) if tables.explodes else 1
            if known is not None and next(known, Batch(0, 0, 0))[1:] != (old, was):
                raise _changed(self.path, f"its rows up to {old} are not those that were written")
            dropped = sorted({*ids}.difference(kept))
            yield DroppedRows(old, position + size, kept, dropped, records), Batch(position, position + size, found)
            position += size

    def _drop(self, db: sqlite3.Connection, copy: str, new: int) -> None:
        for line in _lines_of(copy):
            self._delete(db, line.dropped)
            db.execute("DELETE FROM fetcher_batches WHERE position = ?", (line.old,))
            if line.kept:
                records = len(line.kept) if line.records is None else line.records
                values = line.new, records, _encode_ids(line.kept)
                db.execute("INSERT INTO fetcher_batches VALUES (?, ?, ?)", values)
        if _last_position(db) != new:  # nothing is kept
            db.execute("INSERT INTO fetcher_batches VALUES (?, 0, ?)", (new, _encode_ids([])))

    # The file

    def _tables(self) -> TableSchema:
        if self._schema is None:
            self._schema = TableSchema(self._layout, self._fields or ())
        return self._schema

    def _state(self) -> str:
        return json.dumps(self._fields)

    def _restore(self, state: str) -> None:
        """Take the list's own columns, in place of those known so far. Raises ``ValueError``."""
        if state:
            try:
                self._fields = msgspec.convert(json.loads(state), tuple[str, ...])
            except RecursionError:
                raise ValueError("nested too deep") from None
            self._rows = self._schema = None

    def _take(self, mark: Mark) -> None:
        self.discard()
        self._descriptor = open_for_job(self.path, create=False)
        self._mark = mark
        self._failed = self._logged = False
        self._open_bytes = self._open_batches = 0

    def _empty(self, *, clean: bool) -> None:
        """Empty a file whose first batch the ledger does not know, or make it."""
        descriptor = open_for_job(self.path, create=True)
        try:
            size = os.fstat(descriptor).st_size
            if size:
                if clean:
                    raise SinkError(f"{self.path}: was added to since ({size} bytes, not 0): {RESTORE_ADVICE}")
                if not _may_be_ours(os.read(descriptor, 100)):
                    raise _changed(self.path, "it is another program's file")
                os.ftruncate(descriptor, 0)
                sync(descriptor)
            self._unlink(self.path + journal for journal in JOURNALS)
            sync_folder_of(self.path)
        except OSError as error:
            raise write_error(self.path, "cannot go on with it", error) from error
        finally:
            os.close(descriptor)

    def _make(self) -> None:
        """Write the tables into the empty file."""
        self.check_place()
        try:
            if os.fstat(self._descriptor).st_size:
                raise SinkError(f"{self.path}: another program has written to it")
            write_all(self._descriptor, self._tables().image())
            sync(self._descriptor)
        except OSError as error:
            raise write_error(self.path, "cannot write", error) from error

    def _connect(self) -> sqlite3.Connection:
        if self._db is None:
            with self._explained("open"):
                db = sqlite3.connect(
                    address(self.path, "rw"),
                    uri=True,
                    timeout=BUSY_SECONDS,
                    isolation_level=None,
                    check_same_thread=False,
                )
                try:
                    guard(db)
                    db.execute(f"PRAGMA cache_size=-{CACHE_KILOBYTES}")
                    db.execute("PRAGMA synchronous=FULL")
                except BaseException:
                    db.close()
                    raise
            self._db = db
        return self._db

    def _begin_log(self, db: sqlite3.Connection) -> None:
        """Keep a write-ahead log from now on, so that readers are in nobody's way; some file systems know none."""
        if not self._logged:
            self._logged = True
            db.execute("PRAGMA journal_mode=WAL").fetchone()
            sync_folder_of(self.path)  # its name; SQLite ignores it when this fails

    def _end_log(self, db: sqlite3.Connection) -> None:
        """Bring everything into the one file, unless somebody else has it open: the log stays then."""
        with self._explained("complete"):
            if db.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                return
            db.execute("PRAGMA busy_timeout=0")
            try:
                db.execute("PRAGMA journal_mode=DELETE").fetchone()
                self._logged = False
            except sqlite3.Error as error:
                if not is_busy(error):
                    raise
                db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            finally:
                db.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000:.0f}")

    def _unlink(self, paths: Iterable[str]) -> None:
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    @contextlib.contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        """Turn every error of SQLite and of the system into a ``SinkError`` that says what to do."""
        try:
            yield
        except sqlite3.Error as error:
            what = printable(str(error), 200)
            advice = advice_about(error)
            if advice is None:  # whatever a sound database of ours never gives
                raise _changed(self.path, what) from error
            raise SinkError(f"{self.path}: cannot {doing}: {what}: {advice}") from error
        except OSError as error:
            raise write_error(self.path, f"cannot {doing}", error) from error
        except (msgspec.DecodeError, UnicodeDecodeError, OverflowError) as error:
            raise _changed(self.path, printable(str(error), 200)) from error


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    try:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # the first error is raised
            if db.in_transaction:
                db.execute("ROLLBACK")
        raise


def _rows_in(chunk: bytes, tables: TableSchema) -> list[Any]:
    """Return the rows of a page that has several."""
    found: list[Any] = _decode(chunk)
    return found[:-1] if tables.list_tables else found


def _last_position(db: sqlite3.Connection) -> int:
    found: int | None = db.execute("SELECT max(position) FROM fetcher_batches").fetchone()[0]
    return found or 0


def _may_be_ours(head: bytes) -> bool:
    """Whether a file begins as ours does, or is so short that its making was interrupted."""
    ours = APPLICATION.to_bytes(4, "big")
    return len(head) < 72 or not any(head) or (head.startswith(b"SQLite format 3\0") and head[68:72] == ours)


def _lines_of(copy: str) -> Iterator[DroppedRows]:
    """Yield the lines of a rewrite that ``_end_of`` has found whole."""
    with os.fdopen(open_regular(copy, os.O_RDONLY), "rb") as file:
        before = file.readline()
        for line in file:
            yield msgspec.json.decode(before, type=DroppedRows)
            before = line


def _end_of(copy: str) -> RewriteEnd | None:
    """Return the last line of a rewrite, ``None`` where it is not whole."""
    checksum, before = 0, b""
    with os.fdopen(open_regular(copy, os.O_RDONLY), "rb") as file:
        for line in file:
            checksum = zlib.crc32(before, checksum)
            before = line
    try:
        end = msgspec.json.decode(before, type=RewriteEnd)
    except msgspec.DecodeError:
        return None
    return end if end.checksum == checksum else None


def _changed(path: str, how: str) -> SinkError:
    return SinkError(f"{path}: was changed since ({how}): {RESTORE_ADVICE}")
