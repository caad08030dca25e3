"""Finds exchanges that have gone on for too long without a word, where others need the slots.

Law 5: a thousand black holes leave the others nine tenths of the slots. What is broken off for that had no answer
yet; its row goes back and loses nothing but time. Who is silent is decided in ``hosts/health.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fetcher.hosts.scheduler import Scheduler
from fetcher.hosts.state import HostState
from fetcher.request_state import RequestState

__all__ = ["StallMonitor"]

SWEEP_SECONDS = 0.5  # between two looks


class StallMonitor:
    """All rows on the wire by their tasks, the oldest first, looked through as long as there are any.

    ``recovered`` is told of a host whose first answer has begun.
    """

    def __init__(
        self, scheduler: Scheduler, clock: Callable[[], float], recovered: Callable[[HostState], None]
    ) -> None:
        self.on_wire: dict[asyncio.Task[Any] | None, RequestState] = {}
        self._scheduler = scheduler
        self._clock = clock
        self._recovered = recovered
        self._timer: asyncio.TimerHandle | None = None
        self._broken_off: set[asyncio.Task[Any]] = set()

    def watch(self, task: asyncio.Task[Any] | None, state: RequestState) -> None:
        """Look at a row, whose ``transfer`` has just begun, until ``forget``."""
        self.on_wire[task] = state
        if self._timer is None:
            self._arm()

    def forget(self, task: asyncio.Task[Any] | None) -> None:
        """Look at a row no longer."""
        del self.on_wire[task]
        if self._broken_off:
            self.was_broken_off(task)  # it ended by itself in the same instant

    def was_broken_off(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether a cancellation is the one made here, and no other; it is over then."""
        if task is None or task not in self._broken_off:
            return False
        self._broken_off.discard(task)
        return task.uncancel() == 0

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def sweep(self) -> None:
        """Find who is silent, and break off what may be where the others need the slots."""
        self._timer = None
        now = self._clock()
        health = self._scheduler.health
        silent: list[tuple[asyncio.Task[Any] | None, RequestState, HostState]] = []
        for task, state in list(self.on_wire.items()):
            transfer = state.transfer
            if transfer is None or transfer.host is None:
                continue
            host = transfer.host
            in_doubt = host.breaker.half_open
            if health.silent(host, state.stage, transfer.began, now):
                silent.append((task, state, host))
            elif in_doubt and not host.breaker.half_open:
                self._recovered(host)
        excess = self._scheduler.shared.excess_of_suspects if silent else 0
        for task, state, host in silent:
            started_as_suspect = state.transfer is not None and state.transfer.suspect
            may_go = state.can_requeue and health.may_break_off(host, state.stage)
            if excess > 0 and not started_as_suspect and may_go:
                excess -= 1
                self._break_off(task)
        if self.on_wire:
            self._arm()

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self.sweep)

    def _break_off(self, task: asyncio.Task[Any] | None) -> None:
        if task is not None and not task.cancelling():  # by somebody else, who means it
            self._broken_off.add(task)
            task.cancel()
