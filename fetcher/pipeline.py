"""The flow from requests to outcomes, twice with one contract: ``concurrent``, and ``sequential`` to compare it with.

Law 1: every row taken from the source ends as one outcome. Law 2: a ``FetchError`` is a value, anything else
ends the run and is raised to whoever reads. Law 3: the look-ahead, the window and the queue are bounded, so a
slow reader stops the source. An outcome with a body or messages has its part of the memory until it is handed out.

::

    source ─ intake ─▶ dispatcher (frontier, window) ─▶ a task a row: exchange ─▶ queue ─▶ consumer: read ─▶ outcomes

A row's way is ``exchange`` and then ``read``. ``fetch_one`` is the two one after the other; ``concurrent`` puts an
``asyncio.Queue`` and its consumer between them. ``OutcomeStream`` is the contract.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol, Self, TypeAlias

import msgspec

from fetcher.config import Config, Follow, HostPolicy
from fetcher.dispatcher import Dispatcher
from fetcher.errors import FetchError, ParseError, ResourceError, Skipped, SourceError
from fetcher.intake import Intake, Rejected, Row
from fetcher.middleware.gate import Gate
from fetcher.model import EarlierRun, Exchange, Failure, Outcome, Page, Request, Response, Stage, kept_headers
from fetcher.page.parse import add_reading
from fetcher.page.reader import Reader
from fetcher.request_state import (
    Glance,
    Handover,
    InFlight,
    RequestState,
    Requeue,
    WorkerStanding,
    current,
    failure_of,
    glance_at,
    glance_over,
    hurry,
    known_page,
    leads_on,
    snapshot_of,
    take_messages,
    waited,
)
from fetcher.stats import Stats

if TYPE_CHECKING:
    from fetcher.found.rows import FoundRows
    from fetcher.hosts.standing import HostStanding
    from fetcher.page.found_links import LinkSearch

__all__ = [
    "Engine",
    "OneByOne",
    "OutcomeStream",
    "Outcomes",
    "Policies",
    "Wakeup",
    "concurrent",
    "exchange",
    "fetch_one",
    "fresh",
    "intake_of",
    "read",
    "sequential",
]

Source: TypeAlias = Iterable[Row] | AsyncIterable[Row]

Policies: TypeAlias = tuple[tuple[str, HostPolicy], ...]
"""What holds for single hosts and domains."""

# How long the consumer parses before the loop may turn. A batch of pages, for each turn begins with an empty cache: a
# page at a time takes a quarter more CPU. Timeouts are far longer, and asyncio's debug mode warns from 0.1 s on.
SLICE_SECONDS = 0.025
GRACE_SECONDS = 5.0  # that exchanges on the wire are given to finish when a run is stopped


class OutcomeStream(Protocol):
    """What a stream is, whatever it runs on: an async iterator of outcomes, and what may be asked of the run behind it."""

    stats: Stats

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> Outcome:
        """Return the next outcome. Raises ``SourceError`` once all that could be read has its outcome."""

    def in_flight(self) -> list[InFlight]:
        """Return every running row: its URL, its stage and how long it has been at it."""

    def glance(self, most: int) -> Glance:
        """Return what is running at a glance, with the ``most`` oldest rows."""

    def standings(self, most: int) -> list[HostStanding]:
        """Return how the hosts stand whose rows wait or run, at most ``most``."""

    def worker_standings(self) -> list[WorkerStanding]:
        """Return how the processes stand that it runs, where it runs any."""

    def change(self, config: Config, hosts: Policies) -> None:
        """Take over other limits, of which the gate knows already; ``hosts`` are those of single hosts that changed."""

    def pause(self, *, paused: bool) -> None:
        """Send nothing new while ``paused``, where the gate does not see to it."""

    def stop(self, grace: float = ...) -> None:
        """Start nothing new, give what is on the wire ``grace`` seconds, then end. Rows left are pending."""


# One row


class Engine(msgspec.Struct, frozen=True):
    """What both pipelines run on, so that a comparison of the two is fair by construction.

    ``handle`` are the handlers, the outermost first; ``reader`` makes pages of bodies.
    ``earlier`` are the pages of an earlier run, where one is compared with: ``handle`` asks for what has changed then.
    ``leave`` is given each row that goes on in another process, where the handlers say so (``Handover``).
    ``follow`` says which links are followed, where any are.
    """

    config: Config
    handle: Exchange
    reader: Reader
    gate: Gate
    earlier: EarlierRun | None = None
    leave: Callable[[RequestState], None] | None = None
    follow: Follow | None = None

    @property
    def keeps(self) -> bool:
        """Whether outcomes have bodies, messages or links, which count for the memory until they are handed out."""
        return self.config.keep_body or self.config.keep_messages or self.follow is not None

    def search_for(self, request: Request) -> LinkSearch | None:
        """Return which links are looked for in the page of a row, where any are followed."""
        assert self.follow is not None
        from fetcher.page.found_links import LinkSearch

        return LinkSearch.of(self.follow, request.discovery, self.reader.token)


async def exchange(engine: Engine, state: RequestState) -> Response | FetchError | Requeue:
    """Send a row through the handlers; return its answer, its error, or that it must go back to the frontier.

    Parses nothing. What is no ``FetchError`` is a bug, and raised.
    """
    token = current.set(state)
    try:
        result: Response | FetchError = await engine.handle(state.request)
    except FetchError as error:
        result = error
    except Requeue as requeue:
        state.free()
        state.earlier = "unknown"  # it may be large, and is looked for again
        # From now on it is a value: its traceback refers to the frames that hold it.
        requeue.__traceback__ = requeue.__context__ = requeue.__cause__ = None
        return requeue
    finally:
        current.reset(token)
    state.ended = engine.gate.clock()
    return result


async def read(engine: Engine, state: RequestState, response: Response, *, isolated: bool) -> Outcome:
    """Make the outcome of an answer: its page, or the failure to read one out of it, or that it is not to be kept.

    ``isolated`` has it read in a process of its own, where a page can do no harm; else nothing here waits, unless
    memory is short. Raises ``ResourceError`` where that is so for any page.
    """
    earlier = None if engine.earlier is None else known_page(state, engine.earlier)
    if earlier is not None and state.not_modified and response.status == 304:
        return _carried(state, earlier, response)
    search = None if engine.follow is None else engine.search_for(state.request)
    reader, seconds = engine.reader, waited(state)
    try:
        if not isolated:
            try:
                page = reader.read(response, waited=seconds, fetched_at=time.time(), search=search)
            except MemoryError:
                isolated = True  # it has memory of its own; asked below, for the error keeps what it passed through
        if isolated:
            page = await reader.read_isolated(response, waited=seconds, fetched_at=time.time(), search=search)
    except (ParseError, Skipped) as error:
        reading, error.reading = error.reading, None
        if isinstance(error, Skipped):
            take_messages(state)  # what is not to be kept is in no archive
        names = engine.config.keep_headers
        headers = kept_headers(response.headers, names) if names else ()
        return add_reading(failure_of(state, error, tries=1), response, reading, headers=headers)
    except MemoryError:  # ours, and not the page's
        raise ResourceError("no memory is left to parse in; with less at once (-c) it may do: a job goes on") from None
    if state.messages is not None:
        page = msgspec.structs.replace(page, messages=take_messages(state))
    if page.found is not None:
        guarded = msgspec.structs.replace(page.found, guarded=state.reached != "private")
        page = msgspec.structs.replace(page, found=guarded)
    # A middleware may have asked for something else, or answered out of its store: the row is the row.
    if page.request is not state.request:
        page = msgspec.structs.replace(page, request=state.request)
    if engine.earlier is None:
        return page
    from fetcher.page import changes  # most runs have no earlier one

    return changes.compared(page, earlier, response.body, by_data=engine.reader.makes_data)


def _carried(state: RequestState, earlier: Page, response: Response | None) -> Page:
    """Return the page of an earlier run that still stands, by a 304 or, without one, because it is not old."""
    from fetcher.page import changes  # as above

    known = Page(state.request, earlier.url, earlier.status, attempts=0)
    if response is not None:
        known = msgspec.structs.replace(
            known,
            redirects=response.redirects,
            elapsed=response.elapsed,
            waited=waited(state),
            attempts=response.attempts,
            messages=take_messages(state) if state.messages is not None else (),
            checked_at=time.time(),
        )
    return changes.carried(earlier, known, response)


def fresh(engine: Engine, state: RequestState) -> Page | None:
    """Return a row's page of an earlier run where that was confirmed so lately that nothing is to be asked."""
    earlier = engine.earlier
    if earlier is None or earlier.max_age is None:
        return None
    confirmed = earlier.confirmed(state.first.wire)
    if confirmed is None or not 0 <= time.time() - confirmed < earlier.max_age:
        return None
    page = earlier.find(state.first.wire)
    stands = page is not None and earlier.stands_for(page) and not leads_on(state.request, page)
    return _carried(state, page, None) if page is not None and stands else None


def _failed(engine: Engine, state: RequestState, error: FetchError) -> Failure:
    """Return the failure of a row that was asked for."""
    failure = failure_of(state, error)
    if engine.earlier is None:
        return failure
    from fetcher.page import changes  # as above

    return changes.failed(failure, known_page(state, engine.earlier))


async def fetch_one(engine: Engine, state: RequestState) -> Outcome:
    """Fetch one row in place: it waits where it is, and nobody takes it back."""
    state.begin(engine.gate.clock())
    if (page := fresh(engine, state)) is not None:
        return page
    if engine.keeps:
        hurry(state)  # all of the memory may be held by outcomes that wait for the same caller
    try:
        result = await exchange(engine, state)
        if isinstance(result, Requeue):
            raise RuntimeError(f"row {state.request.id} was sent back, and there is nobody to take it")
        if isinstance(result, FetchError):
            return _failed(engine, state, result)
        return await read(
            engine, state, result, isolated=engine.reader.needs_isolation(result, links=engine.follow is not None)
        )
    finally:
        state.free()


# Many rows at once


class IsolatedReads:
    """The rows of one stream whose bodies are being read in other processes. The window bounds how many there are.

    ``deliver`` is given each outcome, ``ended`` is told of the end of each, with the bug that ended it.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        deliver: Callable[[RequestState, Outcome], None],
        ended: Callable[[BaseException | None], None],
    ) -> None:
        self.running: dict[asyncio.Task[None], RequestState] = {}
        self._engine = engine
        self._deliver = deliver
        self._ended = ended

    def start(self, state: RequestState, response: Response) -> None:
        """Have the body of ``response`` read."""
        state.enter(Stage.PARSING)
        task = asyncio.get_running_loop().create_task(self._read(state, response))
        self.running[task] = state
        task.add_done_callback(self._task_ended)

    def cancel(self) -> None:
        """Give up what is being read."""
        for task in self.running:
            task.cancel()

    async def _read(self, state: RequestState, response: Response) -> None:
        self._deliver(state, await read(self._engine, state, response, isolated=True))

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        state = self.running.pop(task)
        bug = None if task.cancelled() else task.exception()
        if bug is not None or task.cancelled():  # else it was delivered
            state.free()
        self._ended(bug)


class Wakeup:
    """What the readers of outcomes sleep on. They share one future: that one of them is cancelled is not the others' end."""

    __slots__ = ("_future",)

    def __init__(self) -> None:
        self._future: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        """Sleep until somebody calls ``wake``: there may be an outcome then."""
        if self._future is None or self._future.done():
            self._future = asyncio.get_running_loop().create_future()
        try:
            await self._future
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise

    def wake(self) -> None:
        """Wake all that sleep."""
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


Delivered: TypeAlias = tuple[Outcome, RequestState | None]
"""An outcome, and the row that holds memory for it."""


def intake_of(source: Source, config: Config, stats: Stats, found: FoundRows | None) -> Intake:
    """Return what takes rows in, with those that are ``found``, where links are followed."""
    if found is None:
        return Intake(source, config, stats)
    from fetcher.found.intake import FollowIntake  # most runs follow no links

    return FollowIntake(source, config, stats, found)


class Outcomes:
    """The ``OutcomeStream`` of ``concurrent``.

    Leave its ``async with`` early and everything is cancelled; ``stop`` lets what is on the wire finish.
    """

    def __init__(
        self,
        engine: Engine,
        source: Source,
        *,
        ordered: bool = False,
        stats: Stats | None = None,
        spill_folder: str | None = None,
        found: FoundRows | None = None,
    ) -> None:
        self.stats = stats or Stats()
        self._engine = engine
        self._ordered = ordered
        self._found = found
        self._intake = intake_of(source, engine.config, self.stats, found)
        gate, limits = engine.gate, engine.config.limits
        self._dispatcher = Dispatcher(
            gate, limits, self._run_row, self._task_ended, ordered=ordered, spill_folder=spill_folder
        )
        self._queue: asyncio.Queue[tuple[RequestState, Response | FetchError | Page]] = asyncio.Queue(
            limits.concurrency
        )
        self._workers: list[asyncio.Task[None]] = []
        self._isolated = IsolatedReads(engine, deliver=self._deliver, ended=self._task_ended)
        self._ready: deque[Delivered] = deque()
        self._held: dict[int, Delivered] = {}  # ordered: done before their turn
        self._turn = 1
        self._keeps = engine.keeps
        self._rows: dict[int, RequestState] = {}  # ordered, where outcomes are kept: those under way
        self._wakeup = Wakeup()
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
            if self._stopping:
                over = not self._dispatcher.running and not self._isolated.running and self._queue.empty()
            else:
                over = self._source_ended and self._handed == self._taken
            if over:
                if self._source_error is not None:
                    raise self._source_error
                raise StopAsyncIteration
            await self._wakeup.wait()
        outcome, state = self._ready.popleft()
        if state is not None:
            state.free()
        self._handed += 1
        self.stats.enter(outcome)
        self._dispatcher.outcome_taken()
        return outcome if self._found is None else self._found.take(outcome)

    def in_flight(self) -> list[InFlight]:
        """Return every running row: its URL, its stage and how long it has been at it."""
        return self._dispatcher.snapshot() + [snapshot_of(state) for state in self._isolated.running.values()]

    def glance(self, most: int) -> Glance:
        """Return what is running at a glance, with the ``most`` oldest rows."""
        return glance_at([*self._dispatcher.running.values(), *self._isolated.running.values()], most)

    def standings(self, most: int) -> list[HostStanding]:
        """Return how the hosts stand whose rows wait or run, at most ``most``."""
        return self._dispatcher.standings(most)

    def worker_standings(self) -> list[WorkerStanding]:
        """Return how the processes stand that it runs: none, for it is in this one."""
        return []

    def change(self, config: Config, hosts: Policies) -> None:  # noqa: ARG002  (the gate goes by these)
        """Take over other limits: the gate has them already, and this makes the window wide enough."""
        self._dispatcher.window.widen(config.limits.window)

    def pause(self, *, paused: bool) -> None:
        """Pause or go on: the gate does it."""

    def stop(self, grace: float = GRACE_SECONDS) -> None:
        """Start nothing new, give what is on the wire ``grace`` seconds, then end. Rows left are pending."""
        if not self._stopping:
            self._stopping = True
            self._workers[0].cancel()
        self._dispatcher.stop(now=grace <= 0)
        if grace <= 0:
            self._isolated.cancel()
        if grace > 0 and self._grace is None:
            self._grace = asyncio.get_running_loop().call_later(grace, self.stop, 0)
        self._wakeup.wake()

    async def _run_row(self, state: RequestState) -> None:
        """Run one row: its task ends with one entry in the queue, or with the row back in the frontier."""
        result = await exchange(self._engine, state)
        if isinstance(result, Requeue):
            if isinstance(result, Handover):
                self._hand_over(state)
            else:
                self._dispatcher.defer(state, result.due)
            return
        state.enter(Stage.QUEUED, state.ended)
        queue = self._queue
        if queue.full():
            await queue.put((state, result))
        else:
            queue.put_nowait((state, result))

    def _hand_over(self, state: RequestState) -> None:
        """Give a row back to where it came from: it is another's to end."""
        assert self._engine.leave is not None
        state.enter(Stage.DEFERRED)
        state.rewind()
        self._taken -= 1
        self._engine.leave(state)
        self._dispatcher.outcome_taken()
        self._wakeup.wake()

    async def _take_in(self) -> None:
        """Fill the look-ahead from the source, as far as there is space."""
        dispatcher, compares = self._dispatcher, self._engine.earlier is not None
        try:
            async for row in self._intake:
                self._taken += 1
                if isinstance(row, Rejected):
                    await dispatcher.window.acquire()
                    await self._queue.put((row.state, row.error))
                    continue
                if compares and (page := fresh(self._engine, row)) is not None:
                    await dispatcher.window.acquire()
                    await self._queue.put((row, page))
                    continue
                if self._ordered:
                    await dispatcher.window.acquire()
                    if self._keeps:
                        self._rows[row.order] = row
                        self._hurry_next()
                dispatcher.push(row)
                if self._intake.pause or dispatcher.full:
                    await dispatcher.space()
        except SourceError as error:
            self._source_error = error  # told once all that was read has its outcome
        self._source_ended = True
        dispatcher.source_ended()
        self._wakeup.wake()

    async def _consume(self) -> None:
        """Read what came: the only place where bodies are parsed, and let go."""
        clock, engine = self._engine.gate.clock, self._engine
        turn = clock() + SLICE_SECONDS
        while True:
            state, result = await self._queue.get()
            if isinstance(result, FetchError):
                self._deliver(state, _failed(engine, state, result))
            elif isinstance(result, Page):  # of an earlier run: nothing was asked
                self._deliver(state, result)
            elif engine.reader.needs_isolation(result, links=engine.follow is not None):
                self._isolated.start(state, result)
            else:
                self._deliver(state, await read(engine, state, result, isolated=False))
            del result
            if clock() > turn:
                await asyncio.sleep(0)
                turn = clock() + SLICE_SECONDS

    def _deliver(self, state: RequestState, outcome: Outcome) -> None:
        if state.by_http:
            self.stats.by_http += 1
        if self._keeps and state.holds_memory:
            delivered: Delivered = outcome, state
        else:
            state.free()
            delivered = outcome, None
        if isinstance(outcome, Failure):
            outcome.error.detach()
        if self._ordered:
            self._held[state.order] = delivered
            self._rows.pop(state.order, None)
            while self._turn in self._held:
                self._ready.append(self._held.pop(self._turn))
                self._turn += 1
            self._hurry_next()
        else:
            self._ready.append(delivered)
        self._wakeup.wake()

    def _hurry_next(self) -> None:
        """See that the row whose turn it is does not wait for memory that those behind it hold."""
        state = self._rows.get(self._turn)
        if state is not None:
            hurry(state)

    def _task_ended(self, bug: BaseException | None) -> None:
        """Note that a task ended. Law 2: a bug in it ends the run."""
        if bug is not None and self._bug is None:
            self._bug = bug
        if bug is not None or self._stopping:
            self._wakeup.wake()

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
        tasks = [*self._workers, *self._dispatcher.running, *self._isolated.running]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while not self._queue.empty():
            self._queue.get_nowait()[0].free()
        for waiting in [*self._ready, *self._held.values()]:
            if waiting[1] is not None:
                waiting[1].free()
        await self._intake.close()


@asynccontextmanager
async def concurrent(
    engine: Engine,
    source: Source,
    *,
    ordered: bool = False,
    stats: Stats | None = None,
    spill_folder: str | None = None,
    found: FoundRows | None = None,
) -> AsyncIterator[Outcomes]:
    """Fan the source out: outcomes as they complete, or in the order of the source.

    ``ordered`` trades law 5 away: the window counts from the oldest row not yet handed over. ``stats`` may count the
    rows of earlier runs. ``spill_folder`` is where rows wait that memory has no place for, ``found`` are those that
    pages name, where links are followed.
    """
    async with Outcomes(
        engine, source, ordered=ordered, stats=stats, spill_folder=spill_folder, found=found
    ) as outcomes:
        yield outcomes


# One row after the other


class OneByOne:
    """The ``OutcomeStream`` of ``sequential``."""

    def __init__(
        self, engine: Engine, source: Source, stats: Stats | None = None, found: FoundRows | None = None
    ) -> None:
        self.stats = stats or Stats()
        self._engine = engine
        self._found = found
        self._intake = intake_of(source, engine.config, self.stats, found)
        self._state: RequestState | None = None
        self._stopping = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        """Fetch the next row and return its outcome."""
        if self._stopping:
            raise StopAsyncIteration
        row = await anext(self._intake)
        if isinstance(row, Rejected):
            outcome: Outcome = failure_of(row.state, row.error)
        else:
            self._state = row
            try:
                outcome = await fetch_one(self._engine, row)
            finally:
                self._state = None
            if row.by_http:
                self.stats.by_http += 1
        if isinstance(outcome, Failure):
            outcome.error.detach()
        self.stats.enter(outcome)
        return outcome if self._found is None else self._found.take(outcome)

    def in_flight(self) -> list[InFlight]:
        """Return the running row, if there is one."""
        return [] if self._state is None else [snapshot_of(self._state)]

    def glance(self, most: int) -> Glance:
        """Return what is running at a glance."""
        return glance_over(self.in_flight(), most)

    def standings(self, most: int) -> list[HostStanding]:  # noqa: ARG002  (the contract's)
        """Return how the hosts stand: there is one row at a time, and none is waited for."""
        return []

    def worker_standings(self) -> list[WorkerStanding]:
        """Return how the processes stand that it runs: none."""
        return []

    def change(self, config: Config, hosts: Policies) -> None:
        """Take over other limits: the gate has them already."""

    def pause(self, *, paused: bool) -> None:
        """Pause or go on: the gate does it."""

    def stop(self, grace: float = 0) -> None:  # noqa: ARG002  (the contract's)
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
    stats: Stats | None = None,
    spill_folder: str | None = None,  # noqa: ARG001  (the contract's: no row waits)
    found: FoundRows | None = None,
) -> AsyncIterator[OneByOne]:
    """Fetch one row after the other: what ``concurrent`` is compared with. Always in order."""
    outcomes = OneByOne(engine, source, stats, found)
    try:
        yield outcomes
    finally:
        await outcomes.close()
