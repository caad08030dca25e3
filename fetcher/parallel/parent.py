"""``parallel``: the contract of ``concurrent``, by several processes. The parent's side.

::

    source ─ intake ─▶ dealing: who asks which site ─▶ worker 1: concurrent ─▶ outcomes ─▶ joined with their rows ─▶ …
                            ▲   (waiting rows, on disk)  worker 2: concurrent         │
                            └────── rows whose next hop is another worker's site ◀────┘

The parent reads the list, numbers, parses and deduplicates its rows, and keeps what the caller put on them: a row crosses
as a value, and its outcome is joined with it again. It alone writes, so that law 6 needs nothing new. Each worker runs
``concurrent`` for its sites; a hop to a site of another comes back as a value and goes on there.

Law 1: a row is in the list, waiting, given to a worker, or ended; an outcome of a row that the worker does not have is
dropped, so that what is fetched twice is told once. Law 2: what ends a worker's run ends this one; a worker that dies is
replaced and its rows are given again. Law 3: rows and bytes are bounded both ways: what a worker has, what waits, and
what was received and not yet taken. Law 8: the slots and the rate are shared out, never more than there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import struct
import sys
import tempfile
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
from fetcher.hosts.remote import RemoteHosts
from fetcher.hosts.standing import HostStanding, longest
from fetcher.intake import Rejected
from fetcher.model import Failure, Outcome
from fetcher.parallel.carried import carried_files
from fetcher.parallel.dealing import Dealing
from fetcher.parallel.messages import (
    ChangeHosts,
    CrawlSettings,
    FromParent,
    FromWorker,
    HostNews,
    HostStandings,
    KnownPage,
    LastWord,
    LogLine,
    NoMoreRows,
    OutcomeBatch,
    PauseWorker,
    RowBatch,
    RowValue,
    ShareOut,
    StopWorker,
    TellHosts,
    WorkerStatus,
    WorkerTrouble,
    row_of,
    value_of,
)
from fetcher.parallel.process import END_SECONDS, Launcher, LocalLauncher, WorkerProcess
from fetcher.parallel.shares import Part, move
from fetcher.pipeline import GRACE_SECONDS, Engine, Policies, Source, Wakeup, fresh, intake_of
from fetcher.request_state import Glance, InFlight, RequestState, WorkerStanding, failure_of, glance_over, known_page
from fetcher.stats import Stats

if TYPE_CHECKING:
    from fetcher.found.rows import FoundRows

__all__ = ["ParallelOutcomes", "parallel"]

log = logging.getLogger("fetcher.workers")

SHARE_SECONDS = 0.1  # between two looks at the shares
FIRST_ROWS_SECONDS = 0.3  # that the list is read before the first row is given, where it is slow
MAX_ROWS_A_BATCH = 512
MAX_BATCH_BYTES = 1024 * 1024  # of rows
MAX_READY_ROWS = 1_000  # received and not taken
MAX_READY_BYTES = 16 * 1024 * 1024
MAX_MESSAGE_BYTES = 64 * 1024 * 1024  # beside what bodies take
DEATHS = 3  # of workers without an outcome in between, within …
DEATHS_SECONDS = 60.0  # … this, end the run
MAX_EARLIER_WORKERS = 64  # whose hosts are remembered
LOOK_SECONDS = 3.0  # after the last question that workers go on to tell of their hosts
STOP_SECONDS = 2.0  # that a worker which was stopped has to say so


class Crew:
    """The places of the workers: the process in each, its share, and what was last heard of it."""

    def __init__(self, number: int, concurrency: int) -> None:
        self.processes: list[WorkerProcess | None] = [None] * number
        self.told = [concurrency // number + (place < concurrency % number) for place in range(number)]
        self.share_numbers = [0] * number
        self.before = list(self.told)  # what it was told before that
        self.statuses: list[WorkerStatus | None] = [None] * number
        self.running: list[tuple[float, list[InFlight]]] = [(0.0, [])] * number
        self.standings: list[list[HostStanding]] = [[]] * number
        self.epoch = 0

    def part(self, place: int) -> Part:
        """Return the share of a place, with what its process may hold of an earlier one."""
        status = self.statuses[place]
        if self.processes[place] is None:
            return Part(self.told[place], self.told[place], 1)  # there is nobody to hold any
        if status is None:
            return Part(self.told[place], max(self.told[place], self.before[place]), self.told[place])
        if status.share != self.share_numbers[place]:
            return Part(self.told[place], max(self.told[place], self.before[place], status.held), status.wanted)
        return Part(self.told[place], max(self.told[place], status.held), status.wanted)


class ParallelOutcomes:
    """An async iterator of outcomes with the contract of ``pipeline.Outcomes``; made by ``parallel``."""

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
        self._dealing = Dealing(workers, limits, folder=spill_folder)
        self._crew = Crew(workers, limits.concurrency)
        self._remote = [RemoteHosts() for _ in range(workers)]
        # What the workers of streams before knew is not forgotten.
        engine.gate.remote[:] = [*engine.gate.remote[-MAX_EARLIER_WORKERS:], *self._remote]
        self._suspects = set(engine.reader.suspects)
        self._slots = engine.reader.slots
        self._own_slots: str | None = None
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
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._looked_for = 0  # hosts of each worker
        self._dealing_soon = False
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
        now, found = time.monotonic(), []
        for said, rows in self._crew.running:
            since = max(0.0, now - said)
            found += [msgspec.structs.replace(row, age=row.age + since, in_stage=row.in_stage + since) for row in rows]
        return found

    def glance(self, most: int) -> Glance:
        """Return what the workers have running at a glance."""
        return glance_over(self.in_flight(), most)

    def standings(self, most: int) -> list[HostStanding]:
        """Return how the hosts stand, by what the workers said a second ago; the first call has them begin to tell."""
        self._look(most)
        known = {standing.host: standing for said in self._crew.standings for standing in said}
        found: dict[str, HostStanding] = dict(known)
        for host, rows in self._dealing.waiting(most).items():
            standing = known.get(host)
            if standing is None:
                found[host] = HostStanding(host, rows, why="its worker has said nothing of it yet")
            else:
                found[host] = msgspec.structs.replace(standing, waiting=max(0, rows - standing.running))
        return longest(found.values(), most)

    def crew(self) -> list[WorkerStanding]:
        """Return how the workers stand."""
        return [
            WorkerStanding(
                place + 1,
                process.pid if process is not None and process.alive else None,
                self._crew.told[place],
                status.held if (status := self._crew.statuses[place]) is not None else self._crew.told[place],
                len(self._dealing.hands[place].given),
            )
            for place, process in enumerate(self._crew.processes)
        ]

    def change(self, config: Config, hosts: Policies) -> None:
        """Take over other limits: the shares of the slots and of the rate move, and each worker is told of the hosts."""
        self._engine = msgspec.structs.replace(self._engine, config=config)
        if hosts:
            self._tell_all(ChangeHosts(hosts))
        self._move_shares(all_of_them=True)

    def pause(self, *, paused: bool) -> None:
        """Have the workers send nothing new while ``paused``."""
        self._tell_all(PauseWorker(paused))

    def _tell_all(self, message: FromParent) -> None:
        for process in self._crew.processes:
            if process is not None and process.alive:
                process.tell(message)

    def _look(self, hosts: int) -> None:
        """Have the workers tell of their hosts, as long as somebody asks: of as many as whoever asks for most wants."""
        self._looked_for = max(hosts, self._looked_for)
        self._tell_all(TellHosts(self._looked_for))
        if self._looking is not None:
            self._looking.cancel()
        self._looking = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look_away)

    def _look_away(self) -> None:
        self._looking = None
        self._looked_for = 0
        self._tell_all(TellHosts(0))

    def stop(self, grace: float = GRACE_SECONDS) -> None:
        """Start nothing new, give what is on the wire ``grace`` seconds, then end. Rows left are pending."""
        if not self._stopping:
            self._stopping = True
            self._tasks[0].cancel()
        for process in self._crew.processes:
            if process is not None and process.alive:
                process.tell(StopWorker(max(0.0, grace)))
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
                    self._dealing.push(row)
                    self._start_worker()
                    if self._intake.pause:
                        self._deal_soon()
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
            elif (self._ordered and self._taken - self._handed >= self._window) or self._dealing.is_full(
                time.monotonic()
            ):
                self._begin()
                self._deal_soon()
                self._space = asyncio.get_running_loop().create_future()
                await asyncio.wait([self._space], timeout=SHARE_SECONDS)
            else:
                return

    def _begin(self) -> None:
        self._dealing.begin()
        self._deal_soon()

    # Rows out, outcomes in

    def _deal_soon(self) -> None:
        if not self._dealing_soon:
            self._dealing_soon = True
            asyncio.get_running_loop().call_soon(self._deal)

    def _deal(self) -> None:
        """Give each worker what it may have, and have the list read on where that was not enough."""
        self._dealing_soon = False
        if self._stopping or self._closing:
            return
        try:
            for place, process in enumerate(self._crew.processes):
                if process is None or not process.alive:
                    if process is None and self._dealing.hands[place].round:
                        self._start(place)
                        self._deal_soon()
                    continue
                while rows := self._dealing.take(place, MAX_ROWS_A_BATCH):
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
        place = process.number
        if self._crew.processes[place] is not process:
            return None  # another one has its place
        match message:
            case OutcomeBatch():
                self._take_outcomes(place, message, size)
                if self._is_behind():
                    if self._room is None:
                        self._room = asyncio.get_running_loop().create_future()
                    return self._room
            case WorkerStatus():
                self._crew.statuses[place] = message
                self._remote[place].on_wire = message.on_wire
                self._dealing.hands[place].idle = message.wanted <= self._crew.told[place]
                if message.running is not None:
                    self._crew.running[place] = time.monotonic(), message.running
            case HostStandings():
                self._crew.standings[place] = message.hosts
            case HostNews():
                self._remote[place].heard(message.parked, message.delays, message.troubled, time.monotonic())
            case LogLine():
                logging.getLogger(message.name).log(message.level, "%s", message.text)
            case WorkerTrouble():
                self._fail(_error_of(message, place))
            case LastWord():
                process.finished = True
                self._wakeup.wake()
        return None

    def _take_outcomes(self, place: int, message: OutcomeBatch, size: int) -> None:
        self.stats.by_http += message.by_http
        each = size // max(1, len(message.pages) + len(message.failures))
        ended = self._dealing.ended
        outcomes: list[Outcome] = [*message.pages, *message.failures]
        for outcome in outcomes:
            state = ended(place, outcome.request.tag)
            if state is not None:  # else it was given to another meanwhile
                self._deliver(state, msgspec.structs.replace(outcome, request=state.request), each)
        for value in message.handed_over:
            state = ended(place, value.key)
            if state is not None:
                self._dealing.push_again(row_of(value, state.request))
        if message.pages or message.failures:
            self._deaths.clear()
        self._deal_soon()

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
        processes = self._crew.processes
        place = next((place for place, process in enumerate(processes) if process is None), None)
        if place is not None and self._dealing.buckets > place:
            self._start(place)

    def _start(self, place: int, suspects: frozenset[int] = frozenset()) -> None:
        """Start a process in a place."""
        crew, engine = self._crew, self._engine
        crew.epoch += 1
        self._dealing.hands[place].idle = False
        crew.statuses[place] = None
        self._remote[place].on_wire = 0
        crew.running[place] = 0.0, []
        crew.standings[place] = []
        crew.share_numbers[place] = 0
        remote = self._launcher.remote
        beside = -(-len(crew.processes) // self._launcher.machines)  # workers of one machine
        settings = CrawlSettings(
            config=_config_of_worker(engine, beside),
            number=place,
            epoch=crew.epoch,
            concurrency=crew.told[place],
            rate=self._rate(place),
            extract=engine.reader.extractor_name,
            middleware=self._middleware,
            parsers=max(1, (engine.config.parsing.parsers or 1) // beside),
            path=[
                os.fsencode(entry) for entry in sys.path if isinstance(entry, str) and not (remote and _is_ours(entry))
            ],
            folder=_working_folder(),
            slots=None if remote else self._slots,
            suspects=frozenset(self._suspects | suspects),
            compares=engine.earlier is not None,
            parked=engine.gate.parked(),
            delays=engine.gate.delays(),
            level=logging.getLogger("fetcher").getEffectiveLevel(),
            remote=remote,
            files=carried_files(engine.config) if remote else {},
            paused=engine.gate.scheduler.shared.paused,
        )
        process = WorkerProcess(
            settings,
            most=MAX_MESSAGE_BYTES + 8 * engine.config.limits.max_size,
            launcher=self._launcher,
            heard=self._heard,
            ended=self._worker_ended,
        )
        crew.processes[place] = process
        try:
            process.start()
        except FetcherError as error:
            self._fail(error)

    def _worker_ended(self, process: WorkerProcess, trouble: str | None) -> None:
        """Replace a worker that is gone, and give its rows again."""
        place = process.number
        if self._closing or self._crew.processes[place] is not process or self._bug is not None:
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
        suspect = process.suspect or self._marked_by(place)
        if suspect:
            self._suspects.add(suspect)
        rows = self._dealing.lost(place)
        about = f"; row {suspect} was being parsed, and is parsed apart now" if suspect else ""
        log.warning("worker %d is replaced: %s; %d rows are given again%s", place + 1, reason, rows, about)
        self._start(place)
        self._deal_soon()

    def _marked_by(self, place: int) -> int:
        """Return the row that a process was parsing when it ended, or 0."""
        if self._slots is None:
            return 0
        with contextlib.suppress(OSError):
            with open(self._slots, "rb") as file:
                file.seek(8 * (place + 1))
                word = file.read(8)
            if len(word) == 8:
                return int(struct.unpack("<Q", word)[0])
        return 0

    def _end_workers(self) -> None:
        """End those that have not ended in the time they had."""
        for process in self._crew.processes:
            if process is not None and not process.finished:
                process.kill()
                process.finished = True
        self._wakeup.wake()

    # Shares

    def _share(self) -> None:
        """Give slots to those who can use them, and take them from those who cannot."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(SHARE_SECONDS, self._share)
        self._move_shares()

    def _move_shares(self, *, all_of_them: bool = False) -> None:
        """Tell each worker its share where that is another; ``all_of_them`` where the rate is another."""
        crew = self._crew
        parts = [crew.part(place) for place in range(len(crew.processes))]
        for place, slots in enumerate(move(self._engine.config.limits.concurrency, parts)):
            process = crew.processes[place]
            if slots == crew.told[place] and not all_of_them:
                continue
            crew.before[place] = parts[place].held
            crew.told[place] = slots
            if process is not None and process.alive:
                crew.share_numbers[place] += 1
                process.tell(ShareOut(crew.share_numbers[place], slots, self._rate(place)))

    def _rate(self, place: int) -> float | None:
        limits = self._engine.config.limits
        return None if limits.rate is None else limits.rate * self._crew.told[place] / limits.concurrency

    # The end

    def _over(self) -> bool:
        if self._stopping:
            return all(process is None or process.finished for process in self._crew.processes)
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
        if self._slots is None:  # there is no job that has a file for them
            descriptor, self._own_slots = tempfile.mkstemp(prefix="fetcher-", suffix=".parsing")
            os.close(descriptor)
            self._slots = self._own_slots
        self._tasks = [loop.create_task(self._take_in())]
        self._tasks[0].add_done_callback(self._task_ended)
        self._timer = loop.call_later(SHARE_SECONDS, self._share)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._closing = True
        for timer in (self._timer, self._grace, self._looking):
            if timer is not None:
                timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        processes = [process for process in self._crew.processes if process is not None]
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
        for remote in self._remote:
            remote.on_wire = 0
        if self._own_slots is None:
            self._clear_slots(len(self._crew.processes))
        else:
            with contextlib.suppress(OSError):
                os.unlink(self._own_slots)
        self._dealing.close()
        await self._intake.close()

    def _clear_slots(self, workers: int) -> None:
        if self._slots is not None and self._bug is None:
            with contextlib.suppress(OSError), open(self._slots, "r+b") as file:
                if file.seek(0, os.SEEK_END) > 8:
                    file.seek(8)
                    file.write(bytes(8 * workers))


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
