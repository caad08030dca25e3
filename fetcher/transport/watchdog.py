"""The clocks of all exchanges, kept by one timer: an exchange that stands still, or takes too long, is ended.

Two timers an exchange, rearmed with every read, cost as much as the parsing of its head; a sweep costs
nothing that counts. An exchange is late by at most a sweep: a twentieth of the shorter timeout, at most 0.25 s.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any, Protocol, Self

from fetcher.config import Timeouts
from fetcher.errors import FetchError, FetchTimeout
from fetcher.model import Stage
from fetcher.request_state import RequestState
from fetcher.transport.translate import out_of_time

__all__ = ["Watch", "Watchdog", "WatchedConnection"]


class WatchedConnection(Protocol):
    """A connection: when bytes came last (monotonic seconds), and how many of the head; whether it served before."""

    heard: float
    head: float
    reused: bool


class Watch:
    """The clock of one exchange, for a ``with`` block around it. Raises ``FetchError`` when time ran out.

    ``listen`` starts the time between two reads on ``connection``; between ``pause`` and ``resume`` no time passes.
    """

    __slots__ = ("_cancelling", "_dog", "_expired", "_paused_at", "_since", "_state", "_task", "_until", "connection")

    def __init__(self, dog: Watchdog, state: RequestState | None) -> None:
        self._dog = dog
        self._state = state
        self._expired: FetchError | None = None
        self._paused_at: float | None = None
        self.connection: WatchedConnection | None = None  # connecting has a limit of its own
        self._since = 0.0

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task: asyncio.Task[Any] = task
        self._cancelling = task.cancelling()
        dog = self._dog
        self._until = monotonic() + dog.timeouts.total
        dog.watched.add(self)
        if dog.timer is None:
            dog.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._dog.watched.discard(self)
        if self._expired is None or self._task.uncancel() > self._cancelling:
            return
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            raise self._expired from None

    def listen(self, connection: WatchedConnection | None) -> None:
        """Note that the request goes out on this connection, or that there is none yet."""
        self.connection = connection
        self._since = monotonic()

    @property
    def reused(self) -> bool:
        """Whether the connection had given an answer before."""
        return self.connection is not None and self.connection.reused

    @property
    def unheard(self) -> bool:
        """Whether not one byte of an answer came."""
        return self.connection is not None and self.connection.head == 0

    def pause(self) -> None:
        """Stop the clocks."""
        self._paused_at = monotonic()

    def resume(self) -> None:
        """Let the clocks go on from where they stood."""
        if self._paused_at is not None:
            pause = monotonic() - self._paused_at
            self._until += pause
            self._since = self._last() + pause
            self._paused_at = None

    def extend(self, times: float) -> None:
        """Give the exchange so many ``times`` the usual time in all, where that is more."""
        self._until += self._dog.timeouts.total * max(0.0, times - 1)

    def check(self, now: float) -> None:
        """End the exchange if its time ran out."""
        if self._paused_at is not None or self._expired is not None:
            return
        stage = self._state.stage if self._state is not None else Stage.WAITING
        timeouts = self._dog.timeouts
        if now >= self._until:
            self._expired = out_of_time(stage.value, f"timeout ({timeouts.total:g} s)")
        elif self.connection is not None and now >= self._last() + timeouts.read:
            self._expired = FetchTimeout(
                "read_timeout", f"nothing came for {timeouts.read:g} s (read-timeout) while {stage.value}"
            )
        elif self.connection is None and self._is_tried_in_vain(stage, now):
            self._expired = out_of_time(stage.value, "the first try by https")
        else:
            return
        self._task.cancel()

    def _is_tried_in_vain(self, stage: Stage, now: float) -> bool:
        """Whether a host whose scheme is not known has not connected in time; to look its name up takes what it takes."""
        trial = self._state.trial if self._state is not None else None
        if trial is None or trial.patience is None or not self._since:
            return False
        if stage is Stage.RESOLVING:
            self._since = now
        return now >= self._since + trial.patience

    def _last(self) -> float:
        """Say when the connection was last heard of."""
        return self._since if self.connection is None else max(self._since, self.connection.heard)


class Watchdog:
    """Sweeps over the running exchanges as long as there are any."""

    def __init__(self, timeouts: Timeouts) -> None:
        self.timeouts = timeouts
        self.watched: set[Watch] = set()
        self._interval = max(0.005, min(0.25, timeouts.total / 20, timeouts.read / 20))
        self.timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Stop sweeping."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _sweep(self) -> None:
        now = monotonic()
        for exchange in list(self.watched):
            exchange.check(now)
        self.timer = None
        if self.watched:
            self.start()

    def start(self) -> None:
        """Look at the clocks after the next interval."""
        self.timer = asyncio.get_running_loop().call_later(self._interval, self._sweep)
