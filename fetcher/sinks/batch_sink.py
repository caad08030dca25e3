"""A sink for the formats that are written in batches, where there is no job: its output, and nothing to go on from.

Law 6: what was taken is on the disk when the sink is left without an error, and as long as more comes, a second later.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from fetcher.errors import SinkError
from fetcher.model import Outcome
from fetcher.sinks.job_output import JobOutput

__all__ = ["BatchSink"]

BATCH_ROWS = 1_000
BATCH_BYTES = 8 * 1024 * 1024
BATCH_SECONDS = 1.0


class BatchSink:
    """Write outcomes to all that ``make`` returns, a batch of a thousand or of a second at a time, in a thread of its own.

    ``make`` is given a folder for what is not in the output yet; it lies beside that, and is removed in the end. Raises
    what a ``JobOutput`` raises; after an error nothing more is written, and nothing of it is in the output.
    """

    def __init__(self, path: str, make: Callable[[str], Sequence[JobOutput]], *, fresh: bool = False) -> None:
        self._path = path
        self._make = make
        self._fresh = fresh
        self._work = ""
        self._outputs: Sequence[JobOutput] = ()
        self._thread: ThreadPoolExecutor | None = None
        self._error: BaseException | None = None
        self._chunks: list[list[bytes]] = []  # of each outcome, one for each output
        self._size = 0
        self._due = 0.0

    async def __aenter__(self) -> Self:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fetcher-output")
        try:
            await self._in_thread(self._open)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._error is None:
                await self._in_thread(self._finish)
            elif error is None:
                raise self._error
        finally:
            await self._close()

    async def write(self, outcome: Outcome) -> None:
        """Take one outcome; wait while a batch is being written."""
        if self._error is not None:
            raise self._error
        if not self._outputs:
            raise RuntimeError(f"{self._path}: not open: write inside 'async with'")
        chunks = [output.encode(outcome) for output in self._outputs]
        now = time.monotonic()
        if not self._chunks:
            self._due = now + BATCH_SECONDS
        self._chunks.append(chunks)
        self._size += sum(map(len, chunks))
        if len(self._chunks) >= BATCH_ROWS or self._size >= BATCH_BYTES or now >= self._due:
            await self._in_thread(self._store)

    def _open(self) -> None:
        self._work = _folder_beside(self._path)
        outputs = self._make(self._work)
        for output in outputs:
            output.create(fresh=self._fresh)
        self._outputs = outputs

    def _store(self) -> None:
        batch, self._chunks, self._size = self._chunks, [], 0
        if batch:
            for output, *chunks in zip(self._outputs, *batch, strict=True):
                output.append(chunks)
                output.settle()

    def _finish(self) -> None:
        for output in self._outputs:
            output.check_place()
        self._store()
        for output in self._outputs:
            output.complete()
            output.settle()

    def _discard(self) -> None:
        outputs, self._outputs = self._outputs, ()
        for output in outputs:
            output.discard()
        if self._work:
            shutil.rmtree(self._work, ignore_errors=True)

    async def _close(self) -> None:
        assert self._thread is not None
        try:
            await self._in_thread(self._discard)
        finally:
            self._thread.shutdown(wait=False)

    async def _in_thread(self, act: Callable[[], None]) -> None:
        """Run ``act`` in the thread, to its end even when we are cancelled meanwhile."""
        running = asyncio.get_running_loop().run_in_executor(self._thread, act)
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):  # the cancellation is what is raised
                await running
            raise
        finally:
            if running.done() and not running.cancelled():
                self._error = self._error or running.exception()


def _folder_beside(path: str) -> str:
    """Make a folder for what waits, beside the output and hidden. Raises ``SinkError``."""
    place = os.path.realpath(path)
    folder, name = os.path.split(place)
    try:
        return tempfile.mkdtemp(prefix=f".{name}.", dir=folder)
    except FileNotFoundError:
        raise SinkError(f"{path}: the folder {folder} does not exist") from None
    except OSError as error:
        raise SinkError(f"{path}: cannot open: {error.strerror or error}") from error
