"""The flow from requests to outcomes, twice with one contract: ``concurrent``, and ``sequential`` to compare it with.

Law 1: every row taken from the source ends as one outcome. Law 2: a ``FetchError`` is a value, anything else
ends the run and is raised to whoever reads. Law 3: the look-ahead, the window and the queue are bounded, so a
slow reader stops the source.

::

    source ─ intake ─▶ frontier ─ admit (window) ─▶ a task a row: handlers ─▶ responses (queue) ─▶ consumer ─▶ outcomes
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Self, TypeAlias

import msgspec

from fetcher.books import Books
from fetcher.config import Config
from fetcher.errors import FetchError, SourceError
from fetcher.flight import Flight, InFlight, Later, current
from fetcher.frontier import Frontier
from fetcher.intake import Intake, Rejected, Row
from fetcher.model import Exchange, Outcome, Page, Response
from fetcher.policy.pacing import Gate

__all__ = ["Engine", "Outcomes", "concurrent", "sequential"]

Source: TypeAlias = Iterable[Row] | AsyncIterable[Row]

SLICE = 0.005  # seconds the consumer parses before the loop may turn
GRACE = 5.0  # seconds that exchanges on the wire are given to finish when a run is stopped


class Engine(msgspec.Struct, frozen=True):
    """What both pipelines run on: the handlers, the reader of bodies, and the gate they share."""

    config: Config
    exchange: Exchange
    read: Callable[[Response, Flight], Page]
    gate: Gate


class Outcomes:
    """An async iterator of outcomes, and the run behind it.

    Leave its ``async with`` early and everything is cancelled; ``stop`` lets what is on the wire finish.
    """

    def __init__(self, engine: Engine, source: Source, *, ordered: bool = False) -> None:
        self.books = Books()
        self._engine = engine
        self._ordered = ordered
        self._clock = engine.gate.clock
        self._intake = Intake(source, engine.config, self.books)
        self._frontier = Frontier(engine.gate.hosts)
        self._window = asyncio.BoundedSemaphore(engine.config.limits.window)
        self._responses: asyncio.Queue[tuple[Flight, Response | FetchError]] = asyncio.Queue(
            engine.config.limits.concurrency
        )
        self._flights: dict[asyncio.Task[None], Flight] = {}
        self._workers: list[asyncio.Task[None]] = []
        self._ready: deque[Outcome] = deque()
        self._held: dict[int, Outcome] = {}
        self._next = 1
        self._reader: asyncio.Future[None] | None = None
        self._space = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._wake_at = 0.0
        self._bug: BaseException | None = None
        self._taken = self._handed = 0
        self._source_ended = self._stopping = False
        self._source_error: SourceError | None = None
        self._end_timer: asyncio.TimerHandle | None = None
        lookahead = engine.config.limits.lookahead
        self._low_water = lookahead - max(1, lookahead // 16)

    # Reading

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        while not self._ready:
            if self._bug is not None:
                raise self._bug
            if self._over():
                if self._source_error is not None:
                    raise self._source_error
                raise StopAsyncIteration
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        outcome = self._ready.popleft()
        self._handed += 1
        self.books.enter(outcome)
        self._window.release()
        self._admit()
        return outcome

    @property
    def idle(self) -> bool:
        """Whether the next outcome will have to be waited for."""
        return not self._ready

    def in_flight(self) -> list[InFlight]:
        """Return every running row: its URL, its stage and how long it has been at it."""
        return [flight.snapshot() for flight in self._flights.values()]

    def stop(self, grace: float = GRACE) -> None:
        """Start nothing new, give what is on the wire ``grace`` seconds, then end. Rows left are pending."""
        if not self._stopping:
            self._stopping = True
            self._workers[0].cancel()
            self._frontier.drain()
        for task, flight in self._flights.items():
            if grace <= 0 or flight.stage in ("pacing", "backoff", "admitted"):
                task.cancel()
        if grace > 0 and self._end_timer is None:
            self._end_timer = asyncio.get_running_loop().call_later(grace, self.stop, 0)
        self._wake()

    # Admission

    def _admit(self, _: str = "") -> None:
        """Start every row that the window, the slots and the hosts allow now."""
        if self._stopping:
            return
        now = self._clock()
        while self._ordered or not self._window.locked():
            flight = self._frontier.pop(now)
            if flight is None:
                break
            self._start(flight)
        if len(self._frontier) <= self._low_water:
            self._space.set()
        due = self._frontier.due(now)
        if due is not None:
            self._arm(due)

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            if self._wake_at <= when:
                return
            self._timer.cancel()
        self._wake_at = when
        self._timer = asyncio.get_running_loop().call_later(max(0.0, when - self._clock()), self._time_has_come)

    def _time_has_come(self) -> None:
        self._timer = None
        self._admit()

    def _host_free(self, key: str) -> None:
        self._frontier.host_free(key)
        self._admit()

    def _start(self, flight: Flight) -> None:
        if not self._ordered:
            _take(self._window)
        flight.deferrable = True
        if not flight.began:
            flight.began = self._clock()
        flight.enter("admitted")
        task = asyncio.get_running_loop().create_task(self._fly(flight))
        self._flights[task] = flight
        task.add_done_callback(self._landed)

    async def _fly(self, flight: Flight) -> None:
        """Law 1, a row's task: it ends with one entry in the queue, or with the row back in the frontier."""
        current.set(flight)
        try:
            result: Response | FetchError = await self._engine.exchange(flight.request)
        except FetchError as error:
            result = error
        except Later as later:
            self._defer(flight, later.due)
            return
        finally:
            if flight.promised is not None:  # a middleware answered by itself, or failed
                self._engine.gate.fulfil(flight)
                self._host_free(flight.target.host)
        flight.ended = self._clock()
        flight.enter("queued")
        await self._responses.put((flight, result))

    def _defer(self, flight: Flight, due: float) -> None:
        flight.free()
        flight.enter("deferred")
        if flight.chain is None:
            flight.target = flight.first
        if not self._stopping:
            self._frontier.defer(flight, due)
        if not self._ordered:
            self._window.release()

    def _landed(self, task: asyncio.Task[None]) -> None:
        flight = self._flights.pop(task)
        if task.cancelled():
            flight.free()
        elif (error := task.exception()) is not None:
            self._fail(error)
        if self._stopping:
            self._wake()

    # The two workers: intake and consumer

    async def _take_in(self) -> None:
        """Fill the look-ahead from the source, row by row, as far as there is space."""
        lookahead = self._engine.config.limits.lookahead
        try:
            await self._fill(lookahead)
        except SourceError as error:
            self._source_error = error  # told once all that was read has its outcome
        self._source_ended = True
        self._admit()
        self._wake()

    async def _fill(self, lookahead: int) -> None:
        async for flight in self._intake:
            self._taken += 1
            if isinstance(flight, Rejected):
                await self._window.acquire()
                await self._responses.put((flight.flight, flight.error))
                continue
            if self._ordered:
                await self._window.acquire()
            self._frontier.push(flight)
            if self._intake.pause or len(self._frontier) >= lookahead:
                self._admit()
            while len(self._frontier) >= lookahead:
                self._space.clear()
                await self._space.wait()

    async def _consume(self) -> None:
        """Read what came: the only place where bodies are parsed, and let go."""
        read, clock = self._engine.read, self._clock
        turn = clock() + SLICE
        while True:
            flight, result = await self._responses.get()
            flight.stage = "parsing"
            outcome: Outcome
            if isinstance(result, FetchError):
                outcome = flight.fail(result)
            else:
                try:
                    outcome = read(result, flight)
                except FetchError as error:
                    flight.attempts += 1
                    outcome = flight.fail(error)
            flight.free()
            del result
            self._deliver(flight, outcome)
            if clock() > turn:
                await asyncio.sleep(0)
                turn = clock() + SLICE

    def _deliver(self, flight: Flight, outcome: Outcome) -> None:
        if self._ordered:
            self._held[flight.order] = outcome
            while self._next in self._held:
                self._ready.append(self._held.pop(self._next))
                self._next += 1
        else:
            self._ready.append(outcome)
        self._wake()

    # Beginning and end

    def _over(self) -> bool:
        if self._stopping:
            return not self._flights and self._responses.empty()
        return self._source_ended and self._handed == self._taken

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _fail(self, error: BaseException) -> None:
        """Law 2: a bug ends the run."""
        if self._bug is None:
            self._bug = error
        self._wake()

    def _worker_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._engine.gate.listeners.append(self._host_free)
        self._workers = [loop.create_task(self._take_in()), loop.create_task(self._consume())]
        for worker in self._workers:
            worker.add_done_callback(self._worker_ended)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        for timer in (self._timer, self._end_timer):
            if timer is not None:
                timer.cancel()
        tasks = [*self._workers, *self._flights]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._engine.gate.listeners.remove(self._host_free)
        while not self._responses.empty():
            self._responses.get_nowait()[0].free()
        await self._intake.close()


def _take(semaphore: asyncio.BoundedSemaphore) -> None:
    """Acquire without waiting; the caller has seen that it is not locked."""
    coroutine = semaphore.acquire()
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise RuntimeError("the window was locked")


@asynccontextmanager
async def concurrent(engine: Engine, source: Source, *, ordered: bool = False) -> AsyncIterator[Outcomes]:
    """Fan the source out: outcomes as they complete, or in the order of the source.

    ``ordered`` trades law 5 away: the window counts from the oldest row not yet handed over.
    """
    async with Outcomes(engine, source, ordered=ordered) as outcomes:
        yield outcomes


class OneByOne:
    """The baseline: the same handlers, reader and books, one row after the other."""

    def __init__(self, engine: Engine, source: Source) -> None:
        self.books = Books()
        self.idle = True
        self._engine = engine
        self._intake = Intake(source, engine.config, self.books)
        self._flight: Flight | None = None
        self._stopping = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        if self._stopping:
            raise StopAsyncIteration
        row = await anext(self._intake)
        outcome: Outcome
        if isinstance(row, Rejected):
            outcome = row.flight.fail(row.error)
        else:
            self._flight = row
            current.set(row)
            row.began = self._engine.gate.clock()
            try:
                response = await self._engine.exchange(row.request)
                row.ended = self._engine.gate.clock()
                outcome = self._engine.read(response, row)
            except FetchError as error:
                outcome = row.fail(error)
            finally:
                row.free()
                self._flight = None
        self.books.enter(outcome)
        return outcome

    def in_flight(self) -> list[InFlight]:
        """Return the running row, if there is one."""
        return [] if self._flight is None else [self._flight.snapshot()]

    def stop(self, grace: float = GRACE) -> None:  # noqa: ARG002  (the contract's)
        """End after the present row."""
        self._stopping = True

    async def close(self) -> None:
        """End the source."""
        await self._intake.close()


@asynccontextmanager
async def sequential(
    engine: Engine,
    source: Source,
    *,
    ordered: bool = False,  # noqa: ARG001  (the contract's: it always is)
) -> AsyncIterator[OneByOne]:
    """Fetch one row after the other: what ``concurrent`` is compared with. Always in order."""
    outcomes = OneByOne(engine, source)
    try:
        yield outcomes
    finally:
        await outcomes.close()
