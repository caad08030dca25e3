"""An output in a store: parts that are finished on the disk of the job, put there whole, and then let go of here.

Law 6: a row is in the ledger when its record is on this disk, in the part under way or in one that waits to be put; a
part leaves the disk when it is in the store. So after a kill each row is in one of them, and what waits is put by the
next run. What the ledger knows of a row stands in the store too, beside its part: a machine with an empty disk goes on
from there. A part that is missing or was changed is told, and its rows are missing then: they are fetched again, and
the part is written anew. Law 3: as many parts as ``MAX_WAITING`` wait on the disk, then whoever writes waits.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import count
from typing import Any

import msgspec

from fetcher.errors import ConfigError, SinkError
from fetcher.model import Outcome
from fetcher.sinks.job_output import Batch, JobOutput, KeptRow, Mark, Rewrite
from fetcher.sinks.layout import Layout
from fetcher.sinks.opening import explained
from fetcher.sinks.parts_on_disk import PartsOnDisk, see_sidecar
from fetcher.sinks.store_parts import (
    NOTE,
    PART_ROWS,
    PartFormat,
    PartLedger,
    PartMark,
    PartRow,
    decode_part,
    encode_part,
)
from fetcher.sinks.store_rewrite import PartActs, PartRewriter, planned_rewrites, write_plan
from fetcher.sinks.stored_parts import StoredParts, check_suffix
from fetcher.sinks.stream import StreamSink
from fetcher.sinks.uploads import UploadingOutput, Uploads

__all__ = ["PART_BYTES", "StoreOutput"]

log = logging.getLogger("fetcher.store")

PART_BYTES = 512 * 1024 * 1024
"""Bytes of the records of one part, as they are encoded, at which it is full whatever its rows."""


class PartsState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a mark says: whose the parts are, and the one under way: its number, its first row in the ledger, its mark."""

    job: str
    number: int
    first: int
    rows: int = 0
    bytes: int = 0
    mark: Mark = Mark()

    def to_mark(self) -> Mark:
        """Return it as the mark of the output."""
        return Mark(state=json.dumps(msgspec.to_builtins(self)))


class StoreOutput(UploadingOutput):
    """The parts under ``url`` that a job writes; ``work`` is where those lie that are not there yet."""

    def __init__(self, url: str, layout: Layout, *, work: str, kind: str, sink: StreamSink | None = None) -> None:
        super().__init__(url)
        self._format = PartFormat(kind, layout, sink)
        self.stored = StoredParts(url, self._format.suffix, work)
        self._disk = PartsOnDisk(work, self._format, self.stored.store.scheme)
        self._part_rows = layout.part_rows or PART_ROWS
        self._ledger: PartLedger | None = None
        self._parts: dict[int, PartMark] = {}
        self._numbers: Iterator[int] = count(1)
        self._state = PartsState("", 1, 1)
        self._inner: JobOutput | None = None
        self._sealed: list[tuple[PartMark, JobOutput]] = []
        self._next = 1
        self._facts: deque[PartRow] = deque()

    # An empty disk

    def restored(self, parts: Collection[PartMark], first: int) -> Mark:
        """Return the mark of a job of which these parts are known, and nothing else."""
        assert self.stored.note is not None
        last = max(parts, key=lambda part: part.number, default=None)
        state = "" if last is None else self._format.fresh_state(last.mark.state)
        number = next(number for number in count(1) if number not in {part.number for part in parts})
        return PartsState(self.stored.note.job, number, first, mark=Mark(state=state)).to_mark()

    # A job's output

    def attach(self, ledger: Any, mark: Mark) -> bool:
        """Know the ledger of the job; say whether the store knows of more: another machine went on, or this one lost its last second."""
        self._ledger = ledger
        with self._explained("cannot be made ready"):
            self.stored.connect()
            note = self.stored.note
            if note is None:
                return False
            check_suffix(self.stored)
            state = self._state_of(mark)
            if state is not None and state.job and state.job != note.job:
                raise SinkError(
                    f"{self.path}: holds the parts of another job than {os.path.dirname(self._disk.folder)}: name another folder "
                    "with --job, or another prefix"
                )
            return self._is_behind(self._known_parts())

    def _is_behind(self, parts: dict[int, PartMark]) -> bool:
        tags = self.stored.tags()
        for number, found in self.stored.there.items():
            part = parts.get(number)
            if part is not None and (found.size, found.tag) in ((part.size, part.tag), (part.size, tags.get(number))):
                continue
            told = self.stored.sidecar(number)
            if told is None or (part is not None and _facts_of(told[0]) == _facts_of(part)):
                continue
            if self.stored.matches(told[0]):
                return True
        return False

    def create(self, *, fresh: bool = False) -> None:
        """Take an empty prefix; ``fresh`` removes the parts that are there. Raises ``ConfigError`` for any others."""
        with self._explained("cannot be made ready"):
            self.stored.connect()
            if fresh:
                self.stored.clear()
            if self.stored.there:
                name = self.stored.shown(min(self.stored.there))
                raise ConfigError(
                    f"{name} exists, and no job of ours says that it is its part; use --fresh to remove it"
                )
            shutil.rmtree(self._disk.folder, ignore_errors=True)
            self._parts = {}
            self._begin_parts(PartsState(secrets.token_hex(16), 1, 1))

    def resume(self, mark: Mark, *, clean: bool, batches: Iterable[Batch] | None = None) -> None:  # noqa: ARG002  # as all
        """Hold the parts against what the ledger knows of them, and go on with the one under way.

        Parts that are missing or changed are told, and their rows taken out of the ledger.
        """
        with self._explained("cannot go on with it"):
            self.stored.connect()
            state = self._state_of(mark)
            self._parts = self._known_parts()
            self._check_parts()
            if state is None or not state.job:
                state = PartsState(secrets.token_hex(16), 1, self._first_free())
            self._begin_parts(state)
            self.uploads.start([part for part in self._in_order() if self._disk.has(part.number)])

    def encode(self, outcome: Outcome) -> bytes:
        """Return the record of an outcome, a chunk for ``append``."""
        return self._format.encode(outcome)

    def begin_batch(self, number: int, rows: Sequence[Any]) -> None:
        """Know the rows of the records to come, and which number in the ledger the first has."""
        self._next = number
        self._facts = deque(
            PartRow(
                row.id,
                row.digest,
                row.code,
                row.status,
                row.bytes,
                max(0, round(row.elapsed * 1000)),
                row.host,
                row.attempts,
            )
            for row in rows
        )

    def append(self, chunks: list[bytes]) -> Mark:
        """Bring a batch of records to the disk; close a part that is full."""
        self.uploads.check()
        with self._explained("cannot write"):
            left = deque(chunks)
            while left:
                state = self._state
                taken: list[bytes] = []
                size = state.bytes
                while left and len(taken) < self._part_rows - state.rows and (size < PART_BYTES or not taken):
                    taken.append(left.popleft())
                    size += len(taken[-1])
                assert self._inner is not None
                if not state.rows:
                    state = msgspec.structs.replace(state, first=self._next)
                mark = self._inner.append(taken)
                self._disk.add_rows(
                    state.number, (self._facts.popleft() for _ in range(len(taken))), anew=not state.rows
                )
                self._next += len(taken)
                self._state = msgspec.structs.replace(state, rows=state.rows + len(taken), bytes=size, mark=mark)
                if self._state.rows >= self._part_rows or size >= PART_BYTES:
                    self._seal()
        return self._state.to_mark()

    def complete(self) -> Mark:
        """Close the part under way, or one without a row where there is no other; return the mark."""
        self.uploads.check()
        if self._state.rows or not self._parts:
            with self._explained("cannot write"):
                self._seal()
        return self._state.to_mark()

    def settle(self) -> None:
        """Let the parts that the ledger knows of be put. Waits where too many do already. Raises ``SinkError``."""
        with self._explained("cannot write"):
            for part, inner in self._sealed:
                inner.settle()
                inner.discard()
                self._disk.clear_work(part.number)
            sealed, self._sealed = [part for part, _ in self._sealed], []
        for part in sealed:
            self.uploads.add(part)

    def discard(self) -> None:
        """Close what is under way as it is, and give up the prefix."""
        self.stored.store.close()  # what is tried again meanwhile is given up
        self.uploads.stop()
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.discard()
        for _, each in self._sealed:
            each.discard()
        self._sealed = []
        self.stored.close()
        self.uploads = Uploads(self._put)

    def rewrite(self, copy: str, rows: Iterator[KeptRow], batches: Iterable[Batch] | None = None) -> Rewrite:  # noqa: ARG002  # as all
        """Write down in the folder ``copy`` which rows of which parts are not kept; the part under way is closed.

        The parts themselves are rewritten by ``adopt``, one by one.
        """
        with self._explained(f"cannot be rewritten by {copy}"):
            if self._state.rows:
                self._seal()
            write_plan(copy, self._in_order(), rows)
        return Rewrite(self._state.to_mark(), [])

    def adopt(self, copy: str, mark: Mark, batches: Collection[Batch] | None = None) -> None:  # noqa: ARG002  # as all
        """Rewrite the parts, one by one, that ``copy`` tells of, and go on at ``mark``."""
        with self._explained("cannot be rewritten"):
            self.stored.connect()
            self._settle_before_rewrite(mark)
            assert self._ledger is not None
            acts = PartActs(self._remember, self._put, self._put_beside, self._lose)
            rewriter = PartRewriter(self.stored, self._disk, self._ledger, acts)
            for number, ids in planned_rewrites(copy):
                rewriter.rewrite(self._parts[number], ids)

    def _settle_before_rewrite(self, mark: Mark) -> None:
        """See that all parts but those on this disk are known, and no part is being put meanwhile."""
        if self._inner is None:  # a run that was killed in between goes on
            self._parts = self._known_parts()
            state = self._state_of(mark)
            assert state is not None
            self._disk.finish(self._parts.values())
            self._begin_parts(state)
            return
        self.settle()
        self.uploads.finish()

    # Parts

    def _begin_parts(self, state: PartsState) -> None:
        """Open the part under way."""
        os.makedirs(self._disk.folder, 0o700, exist_ok=True)
        self._numbers = (number for number in count(1) if number not in self._parts)
        if not state.rows:  # a number that has become free goes first
            number = next(self._numbers)
            if number != state.number:
                self._disk.clear(state.number)
                state = msgspec.structs.replace(state, number=number)
        if self.stored.note is not None:
            state = msgspec.structs.replace(state, job=self.stored.note.job)
        inner = self._disk.open(state.number)
        try:
            if state.mark.position or state.mark.state:
                inner.resume(state.mark, clean=False)
            else:
                inner.create(fresh=True)
        except SinkError as error:
            assert self._ledger is not None
            inner.discard()
            lost = self._ledger.forget_rows(state.first, 2**53, "")
            log.warning(
                "%s: the part under way cannot be gone on with (%s): its %d rows are fetched again",
                self.path,
                error,
                lost,
            )
            self._disk.clear(state.number)
            inner = self._disk.open(state.number)
            inner.create(fresh=True)
            state = PartsState(state.job, state.number, state.first, mark=Mark(state=self._format.fresh_state()))
        self._inner, self._state = inner, state
        if state.rows:
            assert self._ledger is not None
            self._disk.add_rows(state.number, self._ledger.part_rows(state.first, 2**53), anew=True)

    def _seal(self) -> None:
        """Close the part under way, and begin another."""
        assert self._inner is not None
        inner, state = self._inner, self._state
        mark = inner.complete()
        size, checksum, tag = self._disk.facts_of(inner)
        last = self._next - 1 if state.rows else state.first - 1
        part = PartMark(state.number, state.first, last, state.rows, size, checksum, tag, mark)
        self._disk.seal_rows(part)
        self._parts[part.number] = part
        self.news[_note_of(part.number)] = encode_part(part)
        self._sealed.append((part, inner))
        number = next(self._numbers)
        self._disk.clear(number)
        self._inner = self._disk.open(number)
        self._inner.create(fresh=True)
        self._state = PartsState(state.job, number, self._next, mark=Mark(state=self._format.fresh_state()))

    def _known_parts(self) -> dict[int, PartMark]:
        assert self._ledger is not None
        found = {}
        for data in self._ledger.notes_like(NOTE).values():
            part = decode_part(data)
            found[part.number] = part
        return found

    def _in_order(self) -> list[PartMark]:
        return sorted(self._parts.values(), key=lambda part: (part.first, part.number))

    def _first_free(self) -> int:
        return max((part.last for part in self._parts.values()), default=0) + 1

    def _check_parts(self) -> None:
        """See that each part is here or there; forget the rows of those that are not."""
        self._disk.finish(self._parts.values())
        for number, part in sorted(self._parts.items()):
            is_there = number in self.stored.sidecars and self.stored.matches(part, thorough=self.thorough)
            if is_there:
                self._disk.let_go(number)
            elif not self._disk.has(number):
                self._lose(part)

    def _lose(self, part: PartMark) -> None:
        """Take the rows of a part out of the ledger, and say so."""
        assert self._ledger is not None
        missing = part.number not in self.stored.there
        what = "is missing in the store" if missing else "was changed since, or what stands beside it is gone"
        lost = self._ledger.forget_rows(part.first, part.last, _note_of(part.number))
        self.stored.remove(part.number, beside=True)
        log.warning("%s: %s: its %d rows are fetched again", self.stored.shown(part.number), what, lost)
        self._disk.let_go(part.number)
        del self._parts[part.number]

    def _put(self, part: PartMark) -> None:
        """Put a part and what belongs to it, and let go of it here."""
        assert self._ledger is not None
        self.stored.prepare(self._state.job, self._ledger.identity)
        see_sidecar(self._disk, part, self._ledger)
        self.stored.put_sidecar(part, self._disk.beside(part.number))
        path = self._disk.path_of(part.number)
        self.stored.put_part(part, path, self._format.companions(path))
        self._disk.let_go(part.number)

    def _put_beside(self, part: PartMark) -> None:
        """Put what stands beside a part that is there."""
        assert self._ledger is not None
        self.stored.prepare(self._state.job, self._ledger.identity)
        self.stored.put_sidecar(part, self._disk.beside(part.number))
        self._disk.let_go(part.number)

    def _tidy(self) -> None:
        self.stored.check_written(self._parts.values())
        for number in sorted(self.stored.there.keys() - self._parts.keys()):
            log.warning("%s: is no part any more, for its rows are in others: it is removed", self.stored.shown(number))
            self.stored.remove(number)

    def _remember(self, part: PartMark) -> None:
        assert self._ledger is not None
        self._parts[part.number] = part
        self._ledger.keep_note(_note_of(part.number), encode_part(part))

    def _state_of(self, mark: Mark) -> PartsState | None:
        try:
            return msgspec.convert(json.loads(mark.state), PartsState) if mark.state else None
        except (ValueError, RecursionError) as error:
            raise self._changed(ValueError(f"how it goes on is not said: {error}")) from None

    def _explained(self, what: str) -> AbstractContextManager[None]:
        return explained(self.path, f"{what} in {self._disk.folder}", self._changed)

    def _changed(self, error: ValueError) -> SinkError:
        job = os.path.dirname(self._disk.folder)
        return SinkError(
            f"{self.path}: the job in {job} was changed since ({error}): remove {job}, and the same command goes on from "
            "what is in the store"
        )


def _facts_of(part: PartMark) -> tuple[int, int, int]:
    return part.size, part.checksum, part.rows


def _note_of(number: int) -> str:
    return f"{NOTE}{number:09}"
