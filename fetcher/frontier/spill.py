"""Rows that wait on disk because memory has no place for them: in order, in chunks, by host.

Law 2: a disk that fails ends the run, for the rows on it would be lost. Law 3: nothing of a row stays in memory;
of a spilled queue of millions, three numbers. The file has no name from its first second on, so that it is gone with
its process, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from itertools import count
from typing import Any

import msgspec

from fetcher.errors import SinkError
from fetcher.model import Discovery, Request
from fetcher.request_state import RequestState, Transfer
from fetcher.urls import Target

__all__ = ["MAX_BATCH_ROWS", "Spill", "SpilledQueue", "StoredRow", "from_stored", "to_stored"]

MAX_BATCH_ROWS = 256  # rows of a record at most
CACHE_BYTES = 1024 * 1024  # of the file that stay in memory; with more it is no faster
MIN_FREE_BYTES = 256 * 1024 * 1024  # bytes of the disk that are left to others: a twentieth of it where that is less

_MIDDLE = 1 << 31  # a spilled queue grows to both sides of it
_INTEGERS = range(-(2**63), 2**64)  # those of msgpack


class StoredProgress(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What few rows have."""

    user: str | None
    password: str | None
    headers: tuple[tuple[str, str], ...]
    fields: dict[str, Any] | None
    attempts: int
    returns: int
    asked_to_wait: bool
    elapsed: float
    began: float
    ended: float
    status: int | None
    received: int | None
    redirects: tuple[str, ...]
    reached: str | None
    guarded: bool
    by_get: str | None
    discovery: Discovery | None = None


class StoredRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A row that waits, as it stands on disk. ``wire`` is ``None`` where it is the URL itself."""

    id: int
    order: int
    url: str
    wire: str | None
    scheme: str
    host: str
    port: int
    rest: StoredProgress | None


class StoredBatch(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Rows that are written and read together, and when each is due where that is not the same for all."""

    rows: list[StoredRow]
    dues: list[float]


def to_stored(state: RequestState) -> StoredRow | None:
    """Return all that must be kept of a row that waits, or ``None`` for one that only memory can hold.

    That is a row with an object of the caller's own, or in the middle of a chain of redirects.
    """
    request, target = state.request, state.first
    if request.tag is not None or state.chain is not None or state.target is not target:
        return None
    rest = None
    if (
        request.fields is not None
        or request.headers
        or request.guarded
        or request.discovery is not None
        or state.began
        or state.attempts
        or state.returns
        or target.user is not None
    ):
        if not (_plain_headers(request.headers) and (request.fields is None or _plain(request.fields))):
            return None
        rest = StoredProgress(
            target.user,
            target.password,
            request.headers,
            request.fields,  # type: ignore[arg-type]  # it has been looked into: a dict
            state.attempts,
            state.returns,
            state.asked_to_wait,
            state.elapsed,
            state.began,
            state.ended,
            state.transfer.status if state.transfer is not None else None,
            state.transfer.received if state.transfer is not None else None,
            state.redirects,
            state.reached,
            request.guarded,
            state.by_get,
            request.discovery,
        )
    url, wire = request.url, target.wire
    return StoredRow(
        request.id, state.order, url, None if wire == url else wire, target.scheme, target.host, target.port, rest
    )


def from_stored(row: StoredRow) -> RequestState:
    """Return the row as it was."""
    wire, rest = row.wire or row.url, row.rest
    if rest is None:
        return RequestState(Request(row.id, row.url), Target(wire, row.scheme, row.host, row.port), row.order)
    target = Target(wire, row.scheme, row.host, row.port, rest.user, rest.password)
    answered = rest.status is not None or rest.received is not None
    state = RequestState(
        Request(row.id, row.url, rest.headers, rest.fields, guarded=rest.guarded, discovery=rest.discovery),
        target,
        row.order,
        attempts=rest.attempts,
        returns=rest.returns,
        asked_to_wait=rest.asked_to_wait,
        elapsed=rest.elapsed,
        began=rest.began,
        ended=rest.ended,
        redirects=rest.redirects,
        reached=rest.reached,
        transfer=Transfer(status=rest.status, received=rest.received) if answered else None,
    )
    state.by_get = rest.by_get
    return state


class SpilledQueue:
    """A queue of rows on disk: the places of its records, from ``first`` up to ``end``, and how many rows are in them."""

    __slots__ = ("count", "end", "first")

    def __init__(self, number: int) -> None:
        self.first = self.end = (number << 32) + _MIDDLE
        self.count = 0


class Spill:
    """The file. ``folder`` is where it lies (else where the system keeps temporary files); opened by the first row.

    All that touches the disk raises ``SinkError``.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder or _temporary_folder()
        self.written = 0  # rows, over the whole run
        self._database: sqlite3.Connection | None = None
        self._numbers = count(1)
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(StoredBatch)
        self._left_behind: str | None = None

    def spilled(self) -> SpilledQueue:
        """Return a new queue without rows."""
        return SpilledQueue(next(self._numbers))

    def append(self, spilled: SpilledQueue, rows: Sequence[StoredRow]) -> None:
        """Put rows behind those of the queue."""
        for start in range(0, len(rows), MAX_BATCH_ROWS):
            self._put(spilled.end, rows[start : start + MAX_BATCH_ROWS])
            spilled.end += 1
        spilled.count += len(rows)
        self.written += len(rows)

    def prepend(self, spilled: SpilledQueue, rows: Sequence[StoredRow]) -> None:
        """Put rows before those of the queue."""
        for end in range(len(rows), 0, -MAX_BATCH_ROWS):
            spilled.first -= 1
            self._put(spilled.first, rows[max(0, end - MAX_BATCH_ROWS) : end])
        spilled.count += len(rows)
        self.written += len(rows)

    def take(self, spilled: SpilledQueue, most: int) -> list[RequestState]:
        """Take the next rows off the queue: some, and about ``most``."""
        taken: list[RequestState] = []
        while len(taken) < most and spilled.first < spilled.end:
            rows = self._get(spilled.first).rows
            wanted = most - len(taken)
            if len(rows) > 2 * wanted:
                self._put(spilled.first, rows[wanted:])
                rows = rows[:wanted]
            else:
                spilled.first += 1
            taken += map(from_stored, rows)
        spilled.count -= len(taken)
        return taken

    def put_delayed(self, rows: Sequence[StoredRow], dues: Sequence[float]) -> int:
        """Put at most ``MAX_BATCH_ROWS`` rows away with their times; return the place to ask them back from."""
        place = self.spilled().first
        self._put(place, rows, dues)
        self.written += len(rows)
        return place

    def get_delayed(self, place: int) -> list[tuple[float, RequestState]]:
        """Return what was put away there, with its times."""
        record = self._get(place)
        return list(zip(record.dues, map(from_stored, record.rows), strict=True))

    def has_room(self) -> bool:
        """Whether the disk has place for more without being filled up. Reading ahead is no need."""
        try:
            total, _, free = shutil.disk_usage(self.folder)
        except OSError as error:
            raise self._trouble(error.strerror or str(error)) from None
        return free > min(MIN_FREE_BYTES, total // 20)

    def close(self) -> None:
        """Drop it all."""
        if self._database is not None:
            self._database.close()
            self._database = None
        if self._left_behind is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._left_behind)

    def _put(self, place: int, rows: Sequence[StoredRow], dues: Sequence[float] = ()) -> None:
        data = self._encoder.encode((rows, dues))
        try:
            self._open().execute("insert or replace into record values (?, ?)", (place, data))
        except sqlite3.Error as error:
            raise self._trouble(str(error)) from None

    def _get(self, place: int) -> StoredBatch:
        try:
            (data,) = self._open().execute("delete from record where place = ? returning rows", (place,)).fetchone()
        except sqlite3.Error as error:
            raise self._trouble(str(error)) from None
        return self._decoder.decode(data)

    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            try:
                descriptor, path = tempfile.mkstemp(prefix="fetcher-", suffix=".rows", dir=self.folder)
            except OSError as error:
                raise self._trouble(error.strerror or str(error)) from None
            os.close(descriptor)
            self._database = database = sqlite3.connect(path, isolation_level=None)
            try:
                for setting in ("page_size = 16384", "journal_mode = off", "synchronous = off"):
                    database.execute(f"pragma {setting}").close()
                database.execute("pragma locking_mode = exclusive").close()
                database.execute(f"pragma cache_size = -{CACHE_BYTES // 1024}").close()
                database.execute("create table record (place integer primary key, rows blob)")
                database.execute("begin")  # never ended: nobody else will read it
            finally:
                try:
                    os.unlink(path)
                except OSError:  # Windows keeps the name of an open file
                    self._left_behind = path
        return self._database

    def _trouble(self, reason: str) -> SinkError:
        return SinkError(f"{self.folder}: cannot keep the rows that wait: {reason}")


def _temporary_folder() -> str:
    folder = tempfile.gettempdir()
    # Memory, on many systems; this one is a disk.
    return "/var/tmp" if folder == "/tmp" and os.access("/var/tmp", os.W_OK | os.X_OK) else folder  # noqa: S108  (mkstemp makes the file)


def _plain_headers(headers: Any) -> bool:
    return type(headers) is tuple and all(
        type(pair) is tuple and len(pair) == 2 and all(type(text) is str and _plain(text) for text in pair)
        for pair in headers
    )


def _plain(value: Any) -> bool:
    """Whether a value comes back from disk as it was, its types too."""
    kind = type(value)
    if kind is str:
        return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
    if kind is int:
        return value in _INTEGERS
    if kind is dict:
        return all(type(key) is str and _plain(key) and _plain(item) for key, item in value.items())
    if kind is list:
        return all(map(_plain, value))
    return value is None or kind is bool or kind is float
