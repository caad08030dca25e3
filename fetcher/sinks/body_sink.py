"""Where there is no job: outcomes whose bodies go into a folder first, and then to the sinks.

Law 6: no record names a file that is not on the disk whole. Law 3: two batches at most are held, the one being stored
and the one that grows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from fetcher.model import Outcome, Sink
from fetcher.sinks.body_folder import BodyFile, BodyFolder

__all__ = ["BodySink"]

BATCH_ROWS = 1_000
BATCH_BYTES = 8 * 1024 * 1024
BATCH_SECONDS = 0.5  # from a batch's first outcome to its storing


class BodySink:
    """Store the bodies of outcomes in ``folder``, a batch at a time, and hand the outcomes on to open ``sinks``.

    An error, of the folder or of a sink, is raised by the next ``write`` or when it is left; nothing is handed on after
    it.
    """

    def __init__(self, folder: BodyFolder, sinks: Sequence[Sink]) -> None:
        self._folder = folder
        self._sinks = sinks
        self._outcomes: list[Outcome] = []
        self._bodies: dict[str, BodyFile] = {}
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._storing: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self._error_raised = False

    async def __aenter__(self) -> Self:
        await _to_its_end(self._folder.open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for _ in range(2):  # the batch under way, and the one that grew meanwhile
                await self._settle()
                self._store()
            await self._settle()
        finally:
            self._stop_timer()
            await _to_its_end(self._folder.close)
        if self._error is not None and (kind is None or not self._error_raised):
            raise self._error

    async def write(self, outcome: Outcome) -> None:
        """Take one outcome; wait while two batches are full."""
        if self._error is not None:
            self._error_raised = True
            raise self._error
        outcome, body = await self._folder.place(outcome)
        self._outcomes.append(outcome)
        if body is not None and body.path not in self._bodies:
            self._bodies[body.path] = body
            self._size += len(body.data)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(BATCH_SECONDS, self._storing_is_due)
        if len(self._outcomes) >= BATCH_ROWS or self._size >= BATCH_BYTES:
            await self._settle()
            self._store()

    def _storing_is_due(self) -> None:
        self._timer = None
        self._store()

    def _store(self) -> None:
        if self._storing is not None or self._error is not None or not self._outcomes:
            return
        self._stop_timer()
        outcomes, self._outcomes = self._outcomes, []
        bodies, self._bodies = self._bodies, {}
        self._size = 0
        self._storing = asyncio.create_task(self._hand_on(outcomes, list(bodies.values())))
        self._storing.add_done_callback(self._stored)

    async def _hand_on(self, outcomes: list[Outcome], bodies: list[BodyFile]) -> None:
        if bodies:
            await _to_its_end(lambda: self._folder.store(bodies))
        for outcome in outcomes:
            for sink in self._sinks:
                await sink.write(outcome)

    def _stored(self, storing: asyncio.Task[None]) -> None:
        self._storing = None
        self._error = self._error or (None if storing.cancelled() else storing.exception())
        if self._timer is None:
            self._store()  # its time came while the last one was being stored

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _settle(self) -> None:
        while self._storing is not None:
            await asyncio.wait([self._storing])


async def _to_its_end(act: Callable[[], None]) -> None:
    """Run ``act`` in another thread, to its end even when we are cancelled meanwhile: a folder is used by one at a time."""
    running = asyncio.ensure_future(asyncio.to_thread(act))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
