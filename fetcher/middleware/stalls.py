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
from fetcher.request_state import MAX_RETURNS, RequestState, Transfer

__all__ = ["StallMonitor"]

SWEEP_SECONDS = 0.5  # between two looks


class StallMonitor:
    """All rows on the wire by their tasks, the oldest first, looked through as long as there are any.

    The gate puts each row into ``on_wire`` with its transfer, and takes it out: a middleware may have several of one
    row under way. ``recovered`` is told of a host whose first answer has begun.
    """

    def __init__(
        self, scheduler: Scheduler, clock: Callable[[], float], recovered: Callable[[HostState], None]
    ) -> None:
        self.on_wire: dict[asyncio.Task[Any] | None, tuple[RequestState, Transfer]] = {}
        self._scheduler = scheduler
        self._clock = clock
        self._recovered = recovered
        self.timer: asyncio.TimerHandle | None = None
        self.broken_off: set[asyncio.Task[Any]] = set()

    def start(self) -> None:
        """Look around in a while, and as long as there is anything on the wire."""
        self.timer = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self.sweep)

    def was_broken_off(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether a cancellation is the one made here, and no other; it is over then."""
        if task is None or task not in self.broken_off:
            return False
        self.broken_off.discard(task)
        return task.uncancel() == 0

    def close(self) -> None:
        """Look no more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def sweep(self) -> None:
        """Find who is silent, and break off what may be where the others need the slots."""
        self.timer = None
        now = self._clock()
        health = self._scheduler.health
        silent: list[tuple[asyncio.Task[Any] | None, RequestState, Transfer, HostState]] = []
        for task, (state, transfer) in list(self.on_wire.items()):
            host = transfer.host
            assert host is not None
            in_doubt = host.breaker.half_open
            if health.silent(host, state.stage, transfer.began, now):
                silent.append((task, state, transfer, host))
            elif in_doubt and not host.breaker.half_open:
                self._recovered(host)
        excess = self._scheduler.shared.excess_of_suspects if silent else 0
        for task, state, transfer, host in silent:
            may_go = state.can_requeue and state.returns < MAX_RETURNS and health.may_break_off(host, state.stage)
            if excess > 0 and not transfer.suspect and may_go:
                excess -= 1
                self._break_off(task)
        if self.on_wire:
            self.start()

    def _break_off(self, task: asyncio.Task[Any] | None) -> None:
        if task is not None and not task.cancelling():  # by somebody else, who means it
            self.broken_off.add(task)
            task.cancel()
