"""Who is on the wire, and who has been silent there for so long that the others may need the slot.

Law 5: a thousand black holes leave the others nine tenths of the slots. What is broken off for that had no answer
yet; its row goes back and loses nothing but time. Law 9: who is silent is decided in ``verdict.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

from fetcher.hosts.hosts import Host
from fetcher.middleware.verdict import Judge
from fetcher.request_state import RequestState

__all__ = ["Listener", "Passage"]

EVERY = 0.5  # seconds between two looks


Passage: TypeAlias = tuple[float, Host[Any], RequestState, bool]
"""One exchange on the wire: when it began, its host and row, and whether it holds a slot of the suspects' own."""


class Listener:
    """All exchanges on the wire by their tasks, the oldest first, looked through as long as there are any.

    ``proven`` is told of a host whose first answer has begun.
    """

    def __init__(self, judge: Judge, clock: Callable[[], float], proven: Callable[[Host[Any]], None]) -> None:
        self.passages: dict[asyncio.Task[Any] | None, Passage] = {}
        self.listening: asyncio.TimerHandle | None = None
        self.sent_back: set[asyncio.Task[Any]] = set()
        self._judge = judge
        self._clock = clock
        self._proven = proven

    def listen(self) -> None:
        """Look around in a while."""
        self.listening = asyncio.get_running_loop().call_later(EVERY, self.look_around)

    def close(self) -> None:
        """Stop listening."""
        if self.listening is not None:
            self.listening.cancel()
            self.listening = None

    def look_around(self) -> None:
        """Find who is silent, and send rows of dead hosts back where the others need their slots."""
        self.listening = None
        now = self._clock()
        judge = self._judge
        silent: list[tuple[asyncio.Task[Any] | None, Passage]] = []
        for task, passage in list(self.passages.items()):
            began, host, state, _ = passage
            unproven = not host.proven
            if judge.silent(host, state.stage, began, now):
                silent.append((task, passage))
            elif unproven and host.proven:
                self._proven(host)
        excess = judge.excess() if silent else 0
        for task, (_, host, state, probe) in silent:
            if excess > 0 and not probe and state.deferrable and judge.may_be_sent_back(host, state.stage):
                excess -= 1
                self._send_back(task)
        if self.passages:
            self.listen()

    def was_sent_back(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether a cancellation is the one made here, and no other; it is over then."""
        if task is None or task not in self.sent_back:
            return False
        self.sent_back.discard(task)
        return task.uncancel() == 0

    def _send_back(self, task: asyncio.Task[Any] | None) -> None:
        if task is not None and not task.cancelling():  # by somebody else, who means it
            self.sent_back.add(task)
            task.cancel()
