"""The flow from requests to outcomes, twice with one contract: ``concurrent``, and ``sequential`` to compare it with.

Law 1: every row taken from the source ends as one outcome. Law 2: a ``FetchError`` is a value, anything else
ends the run and is raised to whoever reads. Law 3: the look-ahead, the window and the queue are bounded, so a
slow reader stops the source.

::

    source ─ intake ─▶ dispatcher (frontier, window) ─▶ a task a row: handlers ─▶ queue ─▶ consumer ─▶ outcomes
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Self, TypeAlias

from fetcher.baseline import OneByOne
from fetcher.dispatcher import Dispatcher
from fetcher.engine import Apart, Engine, read
from fetcher.errors import FetchError, SourceError
from fetcher.intake import Intake, Rejected, Row
from fetcher.model import Failure, Outcome, Response
from fetcher.request_state import InFlight, RequestState, Requeue, current
from fetcher.stats import Stats

__all__ = ["Outcomes", "concurrent", "sequential"]

Source: TypeAlias = Iterable[Row] | AsyncIterable[Row]

SLICE = 0.005  # seconds the consumer parses before the loop may turn
GRACE = 5.0  # seconds that exchanges on the wire are given to finish when a run is stopped


class Outcomes:
    """An async iterator of outcomes, and the run behind it; made by ``concurrent``.

    Leave its ``async with`` early and everything is cancelled; ``stop`` lets what is on the wire finish.
    """

    def __init__(self, engine: Engine, source: Source, *, ordered: bool = False, stats: Stats | None = None) -> None:
        self.stats = stats or Stats()
        self._engine = engine
        self._ordered = ordered
        self._intake = Intake(source, engine.config, self.stats)
        gate, limits = engine.gate, engine.config.limits
        self._dispatcher = Dispatcher(
            gate, limits, self._run_row, self._task_ended, ordered=ordered, folder=self.stats.folder
        )
        self._queue: asyncio.Queue[tuple[RequestState, Response | FetchError]] = asyncio.Queue(limits.concurrency)
        self._workers: list[asyncio.Task[None]] = []
        self._apart = Apart(engine, deliver=self._deliver, ended=self._task_ended)
        self._ready: deque[Outcome] = deque()
        self._held: dict[int, Outcome] = {}  # ordered: done before their turn
        self._turn = 1
        self._reader: asyncio.Future[None] | None = None
        self._grace: asyncio.TimerHandle | None = None
        self._source_error: SourceError | None = None
        self._bug: BaseException | None = None
        self._taken = self._handed = 0
        self._source_ended = self._stopping = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        """Return the next outcome. Raises ``SourceError`` once all that could be read has its outcome."""
        while not self._ready:
            if self._bug is not None:
                raise self._bug
            if self._over():
                if self._source_error is not None:
                    raise self._source_error
                raise StopAsyncIteration
            await self._something()
        outcome = self._ready.popleft()
        self._handed += 1
        self.stats.enter(outcome)
        self._dispatcher.window.release()
        self._dispatcher.admit()
        return outcome

    def in_flight(self) -> list[InFlight]:
        """Return every running row: its URL, its stage and how long it has been at it."""
        return self._dispatcher.snapshot() + [state.snapshot() for state in self._apart.states.values()]

    def stop(self, grace: float = GRACE) -> None:
        """Start nothing new, give what is on the wire ``grace`` seconds, then end. Rows left are pending."""
        if not self._stopping:
            self._stopping = True
            self._workers[0].cancel()
        self._dispatcher.stop(now=grace <= 0)
        if grace <= 0:
            self._apart.cancel()
        if grace > 0 and self._grace is None:
            self._grace = asyncio.get_running_loop().call_later(grace, self.stop, 0)
        self._wake()

    async def _run_row(self, state: RequestState) -> None:
        """Run one row: its task ends with one entry in the queue, or with the row back in the frontier."""
        current.set(state)
        try:
            result: Response | FetchError = await self._engine.exchange(state.request)
        except FetchError as error:
            result = error
        except Requeue as requeue:
            state.free()
            self._dispatcher.defer(state, requeue.due)
            return
        now = state.ended = self._engine.gate.clock()
        state.enter("queued", now)
        queue = self._queue
        if queue.full():
            await queue.put((state, result))
        else:
            queue.put_nowait((state, result))

    async def _take_in(self) -> None:
        """Fill the look-ahead from the source, as far as there is space."""
        dispatcher = self._dispatcher
        try:
            async for row in self._intake:
                self._taken += 1
                if isinstance(row, Rejected):
                    await dispatcher.window.acquire()
                    await self._queue.put((row.state, row.error))
                    continue
                if self._ordered:
                    await dispatcher.window.acquire()
                dispatcher.push(row)
                if self._intake.pause or dispatcher.full:
                    await dispatcher.space()
        except SourceError as error:
            self._source_error = error  # told once all that was read has its outcome
        self._source_ended = True
        dispatcher.admit()
        self._wake()

    async def _consume(self) -> None:
        """Read what came: the only place where bodies are parsed, and let go."""
        clock = self._engine.gate.clock
        turn = clock() + SLICE
        while True:
            state, result = await self._queue.get()
            if isinstance(result, FetchError):
                self._deliver(state, state.fail(result))
            elif self._engine.reader.needs_isolation(result):
                self._apart.start(state, result)
            else:
                self._deliver(state, read(self._engine, state, result))
            del result
            if clock() > turn:
                await asyncio.sleep(0)
                turn = clock() + SLICE

    def _deliver(self, state: RequestState, outcome: Outcome) -> None:
        state.free()
        if isinstance(outcome, Failure):
            outcome.error.detach()
        if self._ordered:
            self._held[state.order] = outcome
            while self._turn in self._held:
                self._ready.append(self._held.pop(self._turn))
                self._turn += 1
        else:
            self._ready.append(outcome)
        self._wake()

    def _over(self) -> bool:
        if self._stopping:
            return not self._dispatcher.states and not self._apart.states and self._queue.empty()
        return self._source_ended and self._handed == self._taken

    async def _something(self) -> None:
        """Sleep until there may be an outcome. Several readers share one future: one's cancellation is not the others'."""
        if self._reader is None or self._reader.done():
            self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _task_ended(self, bug: BaseException | None) -> None:
        """Note that a task ended. Law 2: a bug in it ends the run."""
        if bug is not None and self._bug is None:
            self._bug = bug
        if bug is not None or self._stopping:
            self._wake()

    def _worker_ended(self, worker: asyncio.Task[None]) -> None:
        if not worker.cancelled():
            self._task_ended(worker.exception())
        elif not self._stopping:
            self._task_ended(RuntimeError("the source was cancelled from within"))

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._workers = [loop.create_task(self._take_in()), loop.create_task(self._consume())]
        for worker in self._workers:
            worker.add_done_callback(self._worker_ended)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        self._dispatcher.close()
        if self._grace is not None:
            self._grace.cancel()
        tasks = [*self._workers, *self._dispatcher.states, *self._apart.states]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while not self._queue.empty():
            self._queue.get_nowait()[0].free()
        await self._intake.close()


@asynccontextmanager
async def concurrent(
    engine: Engine, source: Source, *, ordered: bool = False, stats: Stats | None = None
) -> AsyncIterator[Outcomes]:
    """Fan the source out: outcomes as they complete, or in the order of the source.

    ``ordered`` trades law 5 away: the window counts from the oldest row not yet handed over. ``stats`` may have
    entries of earlier runs.
    """
    async with Outcomes(engine, source, ordered=ordered, stats=stats) as outcomes:
        yield outcomes


@asynccontextmanager
async def sequential(
    engine: Engine,
    source: Source,
    *,
    ordered: bool = False,  # noqa: ARG001  (the contract's: it always is)
    stats: Stats | None = None,
) -> AsyncIterator[OneByOne]:
    """Fetch one row after the other: what ``concurrent`` is compared with. Always in order."""
    outcomes = OneByOne(engine, source, stats)
    try:
        yield outcomes
    finally:
        await outcomes.close()
