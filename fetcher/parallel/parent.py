"""``parallel``: the contract of ``concurrent``, by several processes. The parent's side.

::

    source ─ intake ─▶ assigner: who asks which site ─▶ worker 1: concurrent ─▶ outcomes ─▶ joined with their rows ─▶ …
                            ▲   (waiting rows, on disk)  worker 2: concurrent         │
                            └────── rows whose next hop is another worker's site ◀────┘

The parent reads the list, numbers, parses and deduplicates its rows, and keeps what the caller put on them: a row
crosses as a value, and its outcome is joined with it again. It alone writes, so that law 6 needs nothing new. Each
worker runs ``concurrent`` for its sites; a hop to a site of another comes back as a value and goes on there.

Law 1: a row is in the list, waiting, given to a worker, or ended; an outcome of a row that the worker does not have is
dropped, so that what is fetched twice is told once. Law 2: what ends a worker's run ends this one; a worker that dies
is replaced and its rows are given again. Law 3: rows and bytes are bounded both ways: what a worker has, what waits,
and what was received and not yet taken. Law 8: the slots and the rate are shared out, never more than there are.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from fetcher import errors
from fetcher.config import Config, Follow
from fetcher.errors import FetcherError, ResourceError, SourceError
from fetcher.hosts.standing import HostStanding
from fetcher.intake import Rejected
from fetcher.model import Failure, Outcome
from fetcher.parallel.assignment import RowAssigner
from fetcher.parallel.carried import carried_files
from fetcher.parallel.messages import (
    ChangeHosts,
    CrawlSettings,
    FromWorker,
    HostNews,
    HostStandings,
    KnownPage,
    LogLine,
    NoMoreRows,
    OutcomeBatch,
    PauseWorker,
    RowBatch,
    RowValue,
    StopWorker,
    WorkerFinished,
    WorkerStatus,
    WorkerTrouble,
    row_of,
    value_of,
)
from fetcher.parallel.parsing_marks import ParsingMarks
from fetcher.parallel.process import END_SECONDS, Launcher, LocalLauncher, WorkerProcess
from fetcher.parallel.worker_pool import SHARE_SECONDS, WorkerPool
from fetcher.pipeline import GRACE_SECONDS, Engine, Policies, Source, Wakeup, fresh, intake_of
from fetcher.request_state import Glance, InFlight, RequestState, WorkerStanding, failure_of, glance_over, known_page
from fetcher.stats import Stats

if TYPE_CHECKING:
    from fetcher.found.rows import FoundRows

__all__ = ["ParallelOutcomes", "parallel"]

log = logging.getLogger("fetcher.workers")

FIRST_ROWS_SECONDS = 0.3  # that the list is read before the first row is given, where it is slow
MAX_ROWS_A_BATCH = 512
MAX_BATCH_BYTES = 1024 * 1024  # of rows
MAX_READY_ROWS = 1_000  # received and not taken
MAX_READY_BYTES = 16 * 1024 * 1024
MAX_MESSAGE_BYTES = 64 * 1024 * 1024  # beside what bodies take
DEATHS = 3  # of workers without an outcome in between, within …
DEATHS_SECONDS = 60.0  # … this, end the run
MAX_EARLIER_WORKERS = 64  # whose hosts are remembered
STOP_SECONDS = 2.0  # that a worker which was stopped has to say so


class ParallelOutcomes:
    """The ``OutcomeStream`` of ``parallel``."""

    def __init__(
        self,
        engine: Engine,
        source: Source,
        *,
        workers: int,
        launcher: Launcher | None = None,
        middleware: Sequence[str] = (),
        ordered: bool = False,
        stats: Stats | None = None,
        spill_folder: str | None = None,
        found: FoundRows | None = None,
    ) -> None:
        self.stats = stats or Stats()
        self._found = found
        limits = engine.config.limits
        self._engine = engine
        self._launcher = launcher or LocalLauncher()
        self._middleware = tuple(middleware)
        self._ordered = ordered
        self._intake = intake_of(source, engine.config, self.stats, found)
        self._assigner = RowAssigner(workers, limits, folder=spill_folder)
        self._pool = WorkerPool(workers, limits)
        self._epoch = 0
        # What the workers of streams before knew is not forgotten.
        engine.gate.remote[:] = [
            *engine.gate.remote[-MAX_EARLIER_WORKERS:],
            *(place.remote for place in self._pool.places),
        ]
        self._suspects = set(engine.reader.suspects)
        self._marks = ParsingMarks(engine.reader.slots)
        self._fields = bool(middleware) or engine.reader.extractor_name is not None
        self._ready: deque[tuple[Outcome, int]] = deque()
        self._ready_bytes = 0
        self._held: dict[int, tuple[Outcome, int]] = {}  # ordered: done before their turn
        self._turn = 1
        self._window = limits.window
        self._room: asyncio.Future[None] | None = None  # what was received has been taken, but for a part
        self._space: asyncio.Future[None] | None = None  # a further row of the list may be needed
        self._wakeup = Wakeup()
        self._tasks: list[asyncio.Task[None]] = []
        self._grace: asyncio.TimerHandle | None = None
        self._assigning_soon = False
        self._deaths: list[tuple[float, int]] = []
        self._source_error: SourceError | None = None
        self._bug: BaseException | None = None
        self._taken = self._handed = 0
        self._source_ended = self._stopping = self._closing = False

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
            await self._wakeup.wait()
        outcome, size = self._ready.popleft()
        self._ready_bytes -= size
        self._handed += 1
        self.stats.enter(outcome)
        if self._room is not None and not self._is_behind():
            _release(self._room)
            self._room = None
        if self._space is not None and self._ordered:
            self._look_again()
        return outcome if self._found is None else self._found.take(outcome)

    def in_flight(self) -> list[InFlight]:
        """Return every row that the workers had running when they last said so, a second ago at most."""
        return self._pool.in_flight(time.monotonic())

    def glance(self, most: int) -> Glance:
        """Return what the workers have running at a glance."""
        return glance_over(self.in_flight(), most)

    def standings(self, most: int) -> list[HostStanding]:
        """Return how the hosts stand, by what the workers said a second ago; the first call has them begin to tell."""
        self._pool.ask_for_standings(most)
        return self._pool.standings(most, self._assigner.waiting(most))

    def worker_standings(self) -> list[WorkerStanding]:
        """Return how the workers stand."""
        return self._pool.workers([len(load.given) for load in self._assigner.loads])

    def change(self, config: Config, hosts: Policies) -> None:
        """Take over other limits: the shares of the slots and of the rate move, and each worker is told of the hosts."""
        self._engine = msgspec.structs.replace(self._engine, config=config)
        if hosts:
            self._pool.tell(ChangeHosts(hosts))
        self._pool.change(config.limits)

    def pause(self, *, paused: bool) -> None:
        """Have the workers send nothing new while ``paused``."""
        self._pool.tell(PauseWorker(paused))

    def stop(self, grace: float = GRACE_SECONDS) -> None:
        """Start nothing new, give what is on the wire ``grace`` seconds, then end. Rows left are pending."""
        if not self._stopping:
            self._stopping = True
            self._tasks[0].cancel()
        self._pool.tell(StopWorker(max(0.0, grace)))
        if self._grace is not None:
            self._grace.cancel()
        self._grace = asyncio.get_running_loop().call_later(max(0.0, grace) + STOP_SECONDS, self._end_workers)
        self._wakeup.wake()

    # The list

    async def _take_in(self) -> None:
        """Read the list as far as rows are needed, and see that each is given to somebody."""
        loop = asyncio.get_running_loop()
        first = loop.call_later(FIRST_ROWS_SECONDS, self._begin)
        compares = self._engine.earlier is not None
        try:
            async for row in self._intake:
                self._taken += 1
                if isinstance(row, Rejected):
                    self._deliver(row.state, failure_of(row.state, row.error), 0)
                elif compares and (page := fresh(self._engine, row)) is not None:
                    self._deliver(row, page, 0)
                else:
                    self._assigner.push(row)
                    self._start_worker()
                    if self._intake.pause:
                        self._assign_soon()
                if self._intake.pause:
                    await self._needed()
        except SourceError as error:
            self._source_error = error  # told once all that was read has its outcome
        finally:
            first.cancel()
        self._source_ended = True
        self._begin()
        self._wakeup.wake()

    async def _needed(self) -> None:
        """Wait until a further row of the list is needed."""
        while True:
            if self._is_behind():
                await self._taken_some()
            elif (self._ordered and self._taken - self._handed >= self._window) or self._assigner.is_full(
                time.monotonic()
            ):
                self._begin()
                self._assign_soon()
                self._space = asyncio.get_running_loop().create_future()
                await asyncio.wait([self._space], timeout=SHARE_SECONDS)
            else:
                return

    def _begin(self) -> None:
        self._assigner.begin()
        self._assign_soon()

    # Rows out, outcomes in

    def _assign_soon(self) -> None:
        if not self._assigning_soon:
            self._assigning_soon = True
            asyncio.get_running_loop().call_soon(self._assign)

    def _assign(self) -> None:
        """Give each worker what it may have, and have the list read on where that was not enough."""
        self._assigning_soon = False
        if self._stopping or self._closing:
            return
        try:
            for number, place in enumerate(self._pool.places):
                process = place.process
                if process is None or not process.alive:
                    if process is None and self._assigner.loads[number].round:
                        self._start(number)
                        self._assign_soon()
                    continue
                while rows := self._assigner.take(number, MAX_ROWS_A_BATCH):
                    self._give(process, rows)
        except FetcherError as error:  # of the disk that rows wait on, or of a process that cannot be started
            self._fail(error)
        self._look_again()

    def _give(self, process: WorkerProcess, states: list[RequestState]) -> None:
        values: list[RowValue] = []
        size = 0
        for state in states:
            known = None
            if self._engine.earlier is not None and (page := known_page(state, self._engine.earlier)) is not None:
                known = KnownPage(page, self._engine.earlier.stands_for(page))
                state.earlier = "unknown"  # it may be large, and is looked for again
                size += 1024 + len(page.body or b"")
            values.append(value_of(state, state.order, fields=self._fields, known=known))
            size += len(state.request.url)
            if size > MAX_BATCH_BYTES:
                process.tell(RowBatch(values))
                values, size = [], 0
        if values:
            process.tell(RowBatch(values))

    def _heard(self, process: WorkerProcess, message: FromWorker, size: int) -> asyncio.Future[None] | None:
        """Take in what a worker says; return what it is to wait for before it is listened to again."""
        if not self._pool.has(process):
            return None  # another one has its place
        place = self._pool.places[process.number]
        match message:
            case OutcomeBatch():
                self._take_outcomes(process.number, message, size)
                if self._is_behind():
                    if self._room is None:
                        self._room = asyncio.get_running_loop().create_future()
                    return self._room
            case WorkerStatus():
                place.heard(message, time.monotonic())
                self._assigner.loads[process.number].idle = message.wanted <= place.told
            case HostStandings() | HostNews():
                place.heard(message, time.monotonic())
            case LogLine():
                logging.getLogger(message.name).log(message.level, "%s", message.text)
            case WorkerTrouble():
                self._fail(_error_of(message, process.number))
            case WorkerFinished():
                process.finished = True
                self._wakeup.wake()
        return None

    def _take_outcomes(self, place: int, message: OutcomeBatch, size: int) -> None:
        self.stats.by_http += message.by_http
        each = size // max(1, len(message.pages) + len(message.failures))
        ended = self._assigner.ended
        outcomes: list[Outcome] = [*message.pages, *message.failures]
        for outcome in outcomes:
            state = ended(place, outcome.request.tag)
            if state is not None:  # else it was given to another meanwhile
                self._deliver(state, msgspec.structs.replace(outcome, request=state.request), each)
        for value in message.handed_over:
            state = ended(place, value.key)
            if state is not None:
                self._assigner.push_again(row_of(value, state.request))
        if message.pages or message.failures:
            self._deaths.clear()
        self._assign_soon()

    def _deliver(self, state: RequestState, outcome: Outcome, size: int) -> None:
        if isinstance(outcome, Failure):
            outcome.error.detach()
        self._ready_bytes += size
        if self._ordered:
            self._held[state.order] = outcome, size
            while self._turn in self._held:
                self._ready.append(self._held.pop(self._turn))
                self._turn += 1
        else:
            self._ready.append((outcome, size))
        self._wakeup.wake()

    def _is_behind(self) -> bool:
        """Whether whoever takes outcomes is behind with it. What waits for its turn waits for others to come in."""
        return len(self._ready) > MAX_READY_ROWS or (
            self._ready_bytes > MAX_READY_BYTES and (not self._ordered or bool(self._ready))
        )

    async def _taken_some(self) -> None:
        if self._room is None:
            self._room = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._room])

    def _look_again(self) -> None:
        if self._space is not None and not self._space.done():
            self._space.set_result(None)

    # The processes

    def _start_worker(self) -> None:
        """Start one more process where there is one more site for it."""
        free = next((number for number, place in enumerate(self._pool.places) if place.process is None), None)
        if free is not None and self._assigner.buckets > free:
            self._start(free)

    def _start(self, number: int, suspects: frozenset[int] = frozenset()) -> None:
        """Start a process in a place."""
        pool, engine = self._pool, self._engine
        place = pool.places[number]
        place.begin_anew()
        self._epoch += 1
        self._assigner.loads[number].idle = False
        remote = self._launcher.remote
        beside = -(-len(pool) // self._launcher.machines)  # workers of one machine
        settings = CrawlSettings(
            config=_config_of_worker(engine, beside),
            number=number,
            epoch=self._epoch,
            concurrency=place.told,
            rate=pool.rate(place),
            extract=engine.reader.extractor_name,
            middleware=self._middleware,
            parsers=max(1, (engine.config.parsing.parsers or 1) // beside),
            path=[
                os.fsencode(entry) for entry in sys.path if isinstance(entry, str) and not (remote and _is_ours(entry))
            ],
            folder=_working_folder(),
            slots=None if remote else self._marks.path,
            suspects=frozenset(self._suspects | suspects),
            compares=engine.earlier is not None,
            parked=engine.gate.parked(),
            delays=engine.gate.delays(),
            level=logging.getLogger("fetcher").getEffectiveLevel(),
            remote=remote,
            files=carried_files(engine.config) if remote else {},
            paused=engine.gate.scheduler.shared.paused,
        )
        place.process = WorkerProcess(
            settings,
            most=MAX_MESSAGE_BYTES + 8 * engine.config.limits.max_size,
            launcher=self._launcher,
            heard=self._heard,
            ended=self._worker_ended,
        )
        try:
            place.process.start()
        except FetcherError as error:
            self._fail(error)

    def _worker_ended(self, process: WorkerProcess, trouble: str | None) -> None:
        """Replace a worker that is gone, and give its rows again."""
        place = process.number
        if self._closing or not self._pool.has(process) or self._bug is not None:
            return
        if process.finished or self._stopping:
            process.finished = True
            self._wakeup.wake()
            return
        now = time.monotonic()
        reason = trouble or process.why_it_ended()
        self._deaths = [death for death in self._deaths if now - death[0] < DEATHS_SECONDS] + [(now, place)]
        # A machine takes all of its workers with it: that is no reason to end.
        if sum(where == place for _, where in self._deaths) >= DEATHS:
            self._fail(
                ResourceError(
                    f"{DEATHS} workers have ended within a minute, and no row has ({reason}); with fewer --workers it "
                    "may do: a job goes on where it stands"
                )
            )
            return
        suspect = process.suspect or self._marks.of(place)
        if suspect:
            self._suspects.add(suspect)
        rows = self._assigner.lost(place)
        about = f"; row {suspect} was being parsed, and is parsed apart now" if suspect else ""
        log.warning("worker %d is replaced: %s; %d rows are given again%s", place + 1, reason, rows, about)
        self._start(place)
        self._assign_soon()

    def _end_workers(self) -> None:
        """End those that have not ended in the time they had."""
        for place in self._pool.places:
            place.kill()
        self._wakeup.wake()

    # The end

    def _over(self) -> bool:
        if self._stopping:
            return self._pool.finished
        return self._source_ended and self._handed == self._taken

    def _fail(self, error: BaseException) -> None:
        """End the run. Law 2."""
        if self._bug is None:
            self._bug = error
        self._wakeup.wake()

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            error = task.exception()
            if error is not None:
                self._fail(error)
        elif not self._stopping and not self._closing:
            self._fail(RuntimeError("the source was cancelled from within"))

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._marks.open()
        self._tasks = [loop.create_task(self._take_in())]
        self._tasks[0].add_done_callback(self._task_ended)
        self._pool.begin()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._closing = True
        self._pool.close()
        if self._grace is not None:
            self._grace.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        processes = self._pool.processes
        # Where all has gone well each tells what it knows of its hosts; else there is nothing worth waiting for.
        well = error[0] is None and self._bug is None and (self._over() or self._stopping)
        for process in processes:
            if well:
                process.tell(NoMoreRows())
            else:
                process.kill()
        if well:
            await asyncio.gather(*(process.close(grace=END_SECONDS) for process in processes))
        else:
            await asyncio.gather(*(process.close(grace=0.0) for process in processes), return_exceptions=True)
        for place in self._pool.places:
            place.remote.on_wire = 0
        self._marks.close(len(self._pool), clear=self._bug is None)
        self._assigner.close()
        await self._intake.close()


@asynccontextmanager
async def parallel(
    engine: Engine,
    source: Source,
    *,
    workers: int,
    launcher: Launcher | None = None,
    middleware: Sequence[str] = (),
    ordered: bool = False,
    stats: Stats | None = None,
    spill_folder: str | None = None,
    found: FoundRows | None = None,
) -> AsyncIterator[ParallelOutcomes]:
    """Fan the source out over processes: outcomes as they complete, or in the order of the source.

    ``found`` are the rows that pages name, where links are followed.

    ``middleware`` are the names of the caller's, for the workers to import; the extractor has one as well. ``launcher``
    starts the workers: ``None`` for processes of this machine.
    """
    async with ParallelOutcomes(
        engine,
        source,
        workers=workers,
        launcher=launcher,
        middleware=middleware,
        ordered=ordered,
        stats=stats,
        spill_folder=spill_folder,
        found=found,
    ) as outcomes:
        yield outcomes


def _config_of_worker(engine: Engine, workers: int) -> Config:
    """Return the config with what is the worker's part, and without what the parent does."""
    config = engine.config
    limits = msgspec.structs.replace(
        config.limits,
        rows=None,
        time=None,
        memory=max(config.limits.max_size, config.limits.memory // workers),
    )
    follow = engine.follow or Follow()
    return msgspec.structs.replace(config, limits=limits, dedupe=False, shard=None, follow=follow)


def _error_of(trouble: WorkerTrouble, place: int) -> BaseException:
    kind = getattr(errors, trouble.kind, None)
    if isinstance(kind, type) and issubclass(kind, FetcherError) and not issubclass(kind, errors.FetchError):
        return kind(trouble.text)
    return RuntimeError(f"worker {place + 1}: {trouble.text}")


def _release(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _is_ours(entry: str) -> bool:
    """Whether a place of modules belongs to this interpreter: one of another machine has its own."""
    return any(Path(entry).is_relative_to(root) for root in {sys.prefix, sys.base_prefix} if entry)


def _working_folder() -> bytes:
    try:
        return os.getcwdb()
    except OSError:  # it was removed
        return b"."
