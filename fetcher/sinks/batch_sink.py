"""A sink for the formats that are written in batches, where there is no job: its output, and nothing to go on from.

Law 6: what was taken is on the disk when the sink is left without an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from fetcher.errors import SinkError
from fetcher.model import Outcome
from fetcher.sinks.job_output import JobOutput

__all__ = ["BatchSink"]

BATCH_ROWS = 1_000
BATCH_BYTES = 8 * 1024 * 1024


class BatchSink:
    """Write outcomes to what ``make`` returns, a batch of a thousand at a time, in a thread of its own.

    ``make`` is given a folder for what is not in the output yet; it lies beside that, and is removed in the end. Raises
    what a ``JobOutput`` raises; after an error nothing more is written, and nothing of it is in the output.
    """

    def __init__(self, path: str, make: Callable[[str], JobOutput], *, fresh: bool = False) -> None:
        self._path = path
        self._make = make
        self._fresh = fresh
        self._work = ""
        self._output: JobOutput | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._error: BaseException | None = None
        self._chunks: list[bytes] = []
        self._size = 0

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
        if self._output is None:
            raise RuntimeError(f"{self._path}: not open: write inside 'async with'")
        chunk = self._output.encode(outcome)
        self._chunks.append(chunk)
        self._size += len(chunk)
        if len(self._chunks) >= BATCH_ROWS or self._size >= BATCH_BYTES:
            await self._in_thread(self._store)

    def _open(self) -> None:
        self._work = _folder_beside(self._path)
        output = self._make(self._work)
        output.create(fresh=self._fresh)
        self._output = output

    def _store(self) -> None:
        assert self._output is not None
        chunks, self._chunks, self._size = self._chunks, [], 0
        if chunks:
            self._output.append(chunks)
            self._output.settle()

    def _finish(self) -> None:
        assert self._output is not None
        self._output.check_place()
        self._store()
        self._output.complete()
        self._output.settle()

    def _discard(self) -> None:
        output, self._output = self._output, None
        if output is not None:
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
