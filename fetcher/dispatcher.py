"""Which rows run: starts them as the window, slots, hosts and time allow, and takes them back when they must wait.

Law 3: the window is a bounded semaphore and the look-ahead a bounded frontier; there is no task for a row that
was not started. Law 4: a row that waits longer than a second has no task and no place in the window. Law 5: with
slots and places free and no row that may start, the list is read on, however many rows wait: another host may come.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from fetcher.config import Limits
from fetcher.errors import FetcherError
from fetcher.frontier.frontier import Frontier
from fetcher.middleware.gate import Gate
from fetcher.model import Stage
from fetcher.request_state import InFlight, RequestState, snapshot_of

if TYPE_CHECKING:
    from fetcher.hosts.standing import HostStanding

__all__ = ["Dispatcher", "Window"]

OFF_WIRE = frozenset({Stage.ADMITTED, Stage.ROBOTS, Stage.PACING, Stage.BACKOFF})


class Window:
    """A bounded semaphore that can be taken without a coroutine: ``open`` says that there is a place.

    asyncio's own has no way to take a place but a coroutine, and walks through its waiters at each look.
    """

    __slots__ = ("_places", "_waiters", "free", "open")

    def __init__(self, places: int) -> None:
        self._places = places
        self._waiters: deque[asyncio.Future[None]] = deque()
        self.free = places
        self.open = True

    def widen(self, places: int) -> None:
        """Have at least so many places in all."""
        for _ in range(places - self._places):
            self._places += 1
            self.release()

    def take(self) -> None:
        """Take a place; the window must be ``open``."""
        if not self.open:
            raise RuntimeError("the window is not open")
        self.free -= 1
        self.open = self.free > 0

    async def acquire(self) -> None:
        """Take a place, in the order of those who ask."""
        if self.open:
            self.take()
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.release()  # it was given a place in the same instant
            raise

    def release(self) -> None:
        """Give a place back: to whoever has waited longest."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        if self.free == self._places:
            raise ValueError("more places were given back than taken")
        self.free += 1
        self.open = True


class Dispatcher:
    """The running rows of one stream. ``run_row`` is a row's task.

    ``ended`` is told of each task that a bug ended, and once the stream is closed of each. What changes is noted, and
    the rows that may start then are started in the next turn of the loop, by one call.

    ``ordered``: whoever feeds rows has taken their places in the window, and deferring keeps them. ``spill_folder`` is
    where rows wait that memory has no place for.
    """

    def __init__(
        self,
        gate: Gate,
        limits: Limits,
        run_row: Callable[[RequestState], Coroutine[Any, Any, None]],
        ended: Callable[[BaseException | None], None],
        *,
        ordered: bool,
        spill_folder: str | None = None,
    ) -> None:
        self.window = Window(limits.window)
        self.running: dict[asyncio.Task[None], RequestState] = {}
        self._gate = gate
        self._frontier = Frontier(gate.scheduler, limits, folder=spill_folder)
        self._run_row = run_row
        self._ended = ended
        self._ordered = ordered
        self._lookahead = limits.lookahead
        self._low_water = limits.lookahead - max(1, limits.lookahead // 16)
        self._beyond = max(1, limits.lookahead // 8)  # rows read at a time when none of the look-ahead may start
        self._granted = 0
        self._reader_waits = False
        self._idle = False  # nothing may start, and nothing that this depends on has changed
        self._spare = min(limits.concurrency, limits.window // 2)  # places free where nobody is behind with reading
        self._space = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._wake_at = 0.0
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._ready: dict[str, None] = {}  # hosts that may take a row again, in the order they were told of
        self._scheduled = False  # rows are started in the next turn of the loop
        gate.scheduler.listeners.append(self.host_ready)

    @property
    def full(self) -> bool:
        """Whether the look-ahead has no place for a further row, and none is needed."""
        return self._granted <= 0 and self._frontier.size >= self._lookahead

    def push(self, state: RequestState) -> None:
        """Take a row of the list into the look-ahead."""
        self._frontier.push(state)
        self._granted -= 1
        self._idle = False

    async def space(self) -> None:
        """Start what may start, then wait until a further row has place, or is needed."""
        self._reader_waits = self.full
        self._changed()
        while self.full:
            self._reader_waits = True  # also where what was granted has gone while rows were started
            self._space.clear()
            await self._space.wait()
        self._reader_waits = False

    def defer(self, state: RequestState, due: float) -> None:
        """Take back a row that must wait until ``due``; its task is about to end."""
        state.enter(Stage.DEFERRED)
        state.rewind()
        if self._closed:
            return
        self._frontier.defer(state, due)
        if not self._ordered:
            self.window.release()
        self._changed()  # it may be the only row left: the timer must know of it

    def host_ready(self, key: str) -> None:
        """Note that a host may take a row again."""
        self._ready[key] = None
        self._idle = False
        if not self._scheduled:  # as _start_soon does: this is called for each row
            self._scheduled = True
            self._loop.call_soon(self._start_rows)

    def outcome_taken(self) -> None:
        """Give the place in the window back of a row whose outcome was taken."""
        self.window.release()
        if not self._idle:
            self._start_soon()

    def source_ended(self) -> None:
        """Note that no further row is pushed."""
        self._start_soon()

    def snapshot(self) -> list[InFlight]:
        """Return what is running."""
        return [snapshot_of(state) for state in self.running.values()]

    def standings(self, most: int) -> list[HostStanding]:
        """Return how the hosts stand whose rows wait or run, at most ``most``."""
        from fetcher.hosts.standing import standings_of  # nobody may look

        scheduler = self._gate.scheduler
        running = Counter(state.target.host for state in self.running.values())
        waiting = self._frontier.waiting(most)
        return standings_of(
            scheduler.table, scheduler.shared, waiting=waiting, running=running, now=self._gate.clock(), most=most
        )

    def stop(self, *, now: bool) -> None:
        """Start nothing more; cancel what is not on the wire, and ``now`` what is. What came in is kept."""
        self.close()
        for task, state in self.running.items():
            if state.stage in OFF_WIRE or (now and state.stage is not Stage.QUEUED):
                task.cancel()

    def close(self) -> None:
        """Give up the look-ahead."""
        if not self._closed:
            self._closed = True
            self._frontier.clear()
            self._gate.scheduler.listeners.remove(self.host_ready)
            if self._timer is not None:
                self._timer.cancel()

    # Starting: once in a turn of the loop, never from inside another row

    def _changed(self) -> None:
        """Note that a row may start which could not before."""
        self._idle = False
        self._start_soon()

    def _start_soon(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._start_rows)

    def _start_rows(self) -> None:
        """Start every row that the window, the slots and the hosts allow now."""
        self._scheduled = False
        if self._closed:
            return
        frontier = self._frontier
        if self._ready:
            ready, self._ready = self._ready, {}
            for key in ready:
                frontier.host_free(key)
        if self._idle or not (self.window.open or self._ordered):
            return  # a window that is full is asked again when it opens
        now = self._gate.clock()
        window, ordered = self.window, self._ordered
        try:
            while window.open or ordered:
                state = frontier.pop(now)
                if state is None:
                    self._idle = True
                    if self._reader_waits and self._granted <= 0:
                        self._read_on(now)
                    break
                if not ordered:
                    window.take()
                task = self._loop.create_task(self._run_row(state))
                self.running[task] = state
                task.add_done_callback(self._task_ended)
        except FetcherError as error:  # of the disk that rows wait on: they are lost
            self.close()
            self._ended(error)
            return
        if self._granted > 0 or frontier.size <= self._low_water:
            self._space.set()
        if self._gate.scheduler.shared.freed:
            self._gate.scheduler.tell_blocked()
        due = frontier.due(now)
        if due is not None and (self._timer is None or due < self._wake_at):
            if self._timer is not None:
                self._timer.cancel()
            self._wake_at = due
            self._timer = self._loop.call_later(max(0.0, due - now), self._time_has_come)

    def _read_on(self, now: float) -> None:
        """Have more rows read than the look-ahead takes, where slots are idle that they could use."""
        if self.window.free < self._spare:  # whoever reads outcomes is behind: slots are idle for want of places
            self._idle = False
        elif self._gate.scheduler.shared.has_room(now):
            self._granted = self._frontier.make_room(self._beyond, now)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        state = self.running.pop(task)
        if state.reservation is not None:  # a middleware answered by itself, or the row never began
            host = self._gate.withdraw(state)
            if host is not None:
                self._gate.scheduler.tell(host.key)
        if not task.cancelled():
            bug = task.exception()
            if bug is not None or self._closed:  # as a rule nobody waits for the end of a task
                self._ended(bug)
            return
        state.free()
        self._ended(None if self._closed else RuntimeError(f"row {state.request.id} was cancelled from within"))

    def _time_has_come(self) -> None:
        self._timer = None
        self._idle = False
        self._start_rows()
