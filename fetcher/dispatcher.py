"""Which rows run: admits them to the window as slots, hosts and time allow, and takes them back when they must wait.

Law 3: the window is a bounded semaphore and the look-ahead a bounded frontier; there is no task for a row that
was not admitted. Law 4: a row that waits longer than a second has no task and no place in the window. Law 5: with
slots and places free and no row that may start, the list is read on, however many rows wait: another host may come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fetcher.config import Limits
from fetcher.errors import FetcherError
from fetcher.frontier.frontier import Frontier
from fetcher.middleware.gate import Gate
from fetcher.request_state import InFlight, RequestState
from fetcher.semaphore import Semaphore

__all__ = ["Dispatcher"]

WAITING = frozenset({"admitted", "robots", "pacing", "backoff"})  # stages in which nothing is on the wire


class Dispatcher:
    """The running rows of one stream. ``run_row`` is a row's task; ``ended`` is told of each one's end.

    ``ordered``: whoever feeds rows has taken their places in the window, and deferring keeps them. ``spill_folder``
    is where rows wait that memory has no place for.
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
        self.window = Semaphore(limits.window)
        self.states: dict[asyncio.Task[None], RequestState] = {}
        self._gate = gate
        self._frontier = Frontier(gate.hosts, limits, folder=spill_folder)
        self._run_row = run_row
        self._task_ended = ended
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
        gate.listeners.append(self.host_free)

    @property
    def full(self) -> bool:
        """Whether the look-ahead has no place for a further row, and none is needed."""
        return self._granted <= 0 and len(self._frontier) >= self._lookahead

    def push(self, state: RequestState) -> None:
        """Take a row of the list into the look-ahead."""
        self._frontier.push(state)
        self._granted -= 1
        self._idle = False

    async def space(self) -> None:
        """Start what may start, then wait until a further row has place, or is needed."""
        self._reader_waits = self.full
        self._idle = False
        self.admit()
        while self.full:
            self._reader_waits = True
            self._space.clear()
            await self._space.wait()
        self._reader_waits = False

    def defer(self, state: RequestState, due: float) -> None:
        """Take back a row that must wait until ``due``; its task is about to end."""
        state.enter("deferred")
        if state.chain is None:
            state.target = state.first
        if self._closed:
            return
        self._frontier.defer(state, due)
        if not self._ordered:
            self.window.release()
        self._idle = False
        self.admit()  # it may be the only row left: the timer must know of it

    def host_free(self, key: str) -> None:
        """Note that a host may take a row again."""
        self._frontier.host_free(key)
        self._idle = False
        self.admit()

    def admit(self) -> None:
        """Start every row that the window, the slots and the hosts allow now."""
        if self._closed or self._idle or not (self.window.open or self._ordered):
            return  # a window that is full is asked again when it opens
        now = self._gate.clock()
        try:
            self._start_all(now)
        except FetcherError as error:  # of the disk that rows wait on: they are lost
            self.close()
            self._task_ended(error)
            return
        due = self._frontier.due(now)
        if due is not None and (self._timer is None or due < self._wake_at):
            if self._timer is not None:
                self._timer.cancel()
            self._wake_at = due
            self._timer = asyncio.get_running_loop().call_later(max(0.0, due - now), self._time_has_come)

    def snapshot(self) -> list[InFlight]:
        """Return what is running."""
        return [state.snapshot() for state in self.states.values()]

    def stop(self, *, now: bool) -> None:
        """Start nothing more; cancel what is not on the wire, and ``now`` what is. What came in is kept."""
        self.close()
        for task, state in self.states.items():
            if state.stage in WAITING or (now and state.stage != "queued"):
                task.cancel()

    def close(self) -> None:
        """Give up the look-ahead."""
        if not self._closed:
            self._closed = True
            self._frontier.clear()
            self._gate.listeners.remove(self.host_free)
            if self._timer is not None:
                self._timer.cancel()

    def _start_all(self, now: float) -> None:
        frontier, window = self._frontier, self.window
        while window.open or self._ordered:
            state = frontier.pop(now)
            if state is None:
                self._idle = True
                if self._reader_waits and self._granted <= 0:
                    self._read_on(now)
                break
            self._start(state, now)
        if self._granted > 0 or len(self._frontier) <= self._low_water:
            self._space.set()

    def _read_on(self, now: float) -> None:
        """Have more rows read than the look-ahead takes, where slots are idle that they could use."""
        if self.window.free < self._spare:  # whoever reads outcomes is behind: slots are idle for want of places
            self._idle = False
        elif self._gate.hosts.room(now):
            self._granted = self._frontier.make_room(self._beyond, now)

    def _start(self, state: RequestState, now: float) -> None:
        if not self._ordered:
            self.window.take()
        state.deferrable = True
        if not state.began:
            state.began = now
        state.enter("admitted", now)
        task = asyncio.get_running_loop().create_task(self._run_row(state))
        self.states[task] = state
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        state = self.states.pop(task)
        if state.promised is not None:  # a middleware answered by itself, or the row never began
            key = state.promised.key
            self._gate.fulfil(state)
            self.host_free(key)
        if not task.cancelled():
            self._task_ended(task.exception())
            return
        state.free()
        self._task_ended(None if self._closed else RuntimeError(f"row {state.request.id} was cancelled from within"))

    def _time_has_come(self) -> None:
        self._timer = None
        self._idle = False
        self.admit()
