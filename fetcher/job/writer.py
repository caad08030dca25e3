"""Writes records and their ledger rows, together and in batches, in a thread of its own.

Law 6: a batch is durable in every output before the ledger records it, in one transaction; what a kill leaves behind
the last commit is cut off by the next start. The bodies of its pages are on the disk before the outputs name them.
Law 3: two batches at most are held, the one being written and the one that grows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from fetcher.job.ledger import Discovered, Ledger, LedgerRow, RunProgress
from fetcher.sinks import JobOutput, Mark
from fetcher.sinks.job_output import LedgerOutput

if TYPE_CHECKING:
    from fetcher.found.store import NamedLinks
    from fetcher.job.found_rows import LedgerRows
    from fetcher.sinks.body_folder import BodyFile, BodyFolder

__all__ = ["Writer"]

COMMIT_SECONDS = 1.0  # from a batch's first outcome to its commit
FIRST_COMMIT_SECONDS = 0.1  # the same for the first batch; from then on it doubles
MAX_BATCH_ROWS = 1_000
MAX_BATCH_BYTES = 8 * 1024 * 1024  # of all outputs together, and of bodies that are stored apart


class PendingBatch(NamedTuple):
    """What is committed together: rows, their chunks for each output, bodies, news of the hosts, and what was found."""

    rows: list[LedgerRow]
    chunks: list[list[bytes]]
    bodies: Collection[BodyFile]
    news: dict[str, bytes]
    discovered: Discovered | None = None


class Writer:
    """Collects records, and commits them at most a second after the first, or when a thousand have come.

    With each commit ``progress`` is asked how far the run is, and ``notes`` what to keep of the hosts; the latter also
    every second without a commit, for a host may ask for a pause while no row is finished. A failure, ``SinkError`` or
    ``LedgerError``, is raised by the next ``write`` and by ``close``; nothing is written after it.
    """

    def __init__(
        self,
        ledger: Ledger,
        outputs: Sequence[JobOutput],
        *,
        thread: ThreadPoolExecutor,
        progress: Callable[[], RunProgress],
        notes: Callable[[], dict[str, bytes]],
        folder: BodyFolder | None = None,
        found: LedgerRows | None = None,
    ) -> None:
        self._ledger = ledger
        self._found = found
        self._named: list[NamedLinks] = []
        self._outputs = outputs
        self._asking = [output for output in outputs if isinstance(output, LedgerOutput)]
        self._folder = folder
        self._thread = thread
        self._progress = progress
        self._notes = notes
        self._noted: dict[str, bytes] = {}
        self._before = notes()  # a run in which nothing happens leaves what the last one noted
        self._loop = asyncio.get_running_loop()
        self._rows: list[LedgerRow] = []
        self._chunks: list[list[bytes]] = [[] for _ in outputs]
        self._bodies: dict[str, BodyFile] = {}
        self._size = 0
        self._period = FIRST_COMMIT_SECONDS
        self._timer: asyncio.TimerHandle | None = None
        self._storing: asyncio.Future[tuple[int, int]] | None = None
        self._error: BaseException | None = None
        self._watch = self._loop.call_later(COMMIT_SECONDS, self._watch_notes)

    async def write(
        self,
        row: LedgerRow,
        chunks: Sequence[bytes],
        body: BodyFile | None = None,
        named: NamedLinks | None = None,
    ) -> None:
        """Take one record, encoded for each output, a body and links that it names; wait while two batches are full."""
        if self._error is not None:
            raise self._error
        self._rows.append(row)
        if named is not None:
            self._named.append(named)
            self._size += len(named.links.lines)
        for collected, chunk in zip(self._chunks, chunks, strict=True):
            collected.append(chunk)
            self._size += len(chunk)
        if body is not None and body.path not in self._bodies:
            self._bodies[body.path] = body
            self._size += len(body.data)
        if self._timer is None:
            self._timer = self._loop.call_later(self._period, self._commit_is_due)
            self._period = min(COMMIT_SECONDS, 2 * self._period)
        if len(self._rows) >= MAX_BATCH_ROWS or self._size >= MAX_BATCH_BYTES:
            await self._settle()
            self._store()
        elif self._found is not None and self._found.is_short:
            self._store()

    def commit_soon(self) -> None:
        """Commit what there is as soon as nothing else is being written: somebody waits for what was found."""
        self._store()

    async def close(self) -> None:
        """Commit what is left; raise what went wrong."""
        self._watch.cancel()
        if self._timer is not None:
            self._timer.cancel()
        await self._settle()
        self._store()
        self._note()
        await self._settle()
        if self._error is not None:
            raise self._error

    def _commit_is_due(self) -> None:
        self._timer = None
        self._store()

    def _watch_notes(self) -> None:
        self._watch = self._loop.call_later(COMMIT_SECONDS, self._watch_notes)
        if not self._rows:
            self._note()

    def _store(self) -> None:
        """Hand the batch to the thread."""
        if self._storing is not None or self._error is not None or not self._rows:
            return
        rows, self._rows = self._rows, []
        batches, self._chunks = self._chunks, [[] for _ in self._outputs]
        bodies, self._bodies = self._bodies, {}
        named, self._named = self._named, []
        self._size = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        discovered = None if self._found is None else self._found.discovered(named)
        self._hand_over(PendingBatch(rows, batches, bodies.values(), self._news(self._noted), discovered))

    def _note(self) -> None:
        """Hand over what is to be kept of the hosts, without a row."""
        if self._storing is None and self._error is None:
            news = self._news(self._before | self._noted)
            if news:
                self._hand_over(PendingBatch([], [], (), news))

    def _news(self, known: Mapping[str, bytes]) -> dict[str, bytes]:
        return {name: note for name, note in self._notes().items() if known.get(name) != note}

    def _hand_over(self, batch: PendingBatch) -> None:
        self._noted.update(batch.news)
        self._storing = self._loop.run_in_executor(self._thread, self._commit, batch, self._progress())
        self._storing.add_done_callback(self._stored)

    def _commit(self, batch: PendingBatch, progress: RunProgress) -> tuple[int, int]:
        """Bring a batch to the disk; return how many rows it has, and how many were found on their pages."""
        marks: list[Mark] = []
        if batch.bodies and self._folder is not None:
            self._folder.store(batch.bodies)
        news = batch.news
        if batch.rows:
            for asking in self._asking:
                asking.begin_batch(self._ledger.next_number, batch.rows)
            marks = [output.append(chunks) for output, chunks in zip(self._outputs, batch.chunks, strict=True)]
            for asking in self._asking:
                news = {**news, **asking.take_news()}
        added = 0
        if batch.discovered is None:
            self._ledger.commit(batch.rows, marks, progress, news)
        else:
            added = self._ledger.commit(batch.rows, marks, progress, news, discovered=batch.discovered)
        if batch.rows:
            for output in self._outputs:
                output.settle()
        return len(batch.rows), added

    def _stored(self, storing: asyncio.Future[tuple[int, int]]) -> None:
        self._storing = None
        self._error = self._error or storing.exception()
        if self._found is not None:
            if self._error is not None:
                self._found.failed(self._error)
            else:
                self._found.settled(*storing.result())
        if self._rows and self._error is None and (self._timer is None or (self._found and self._found.is_short)):
            self._store()  # its time came while the last one was being written

    async def _settle(self) -> None:
        """Wait until nothing is being written. A cancellation leaves the batch under way alone: it will be whole."""
        while self._storing is not None:
            await asyncio.wait([self._storing])
        if self._error is not None:
            raise self._error
