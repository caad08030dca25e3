"""A sink for the formats that are written in batches, where there is no job: its output, and nothing to go on from.

Law 6: what was taken is on the disk when the sink is left without an error.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable
from types import TracebackType
from typing import Self

from fetcher.model import Outcome
from fetcher.sinks.job_output import JobOutput

__all__ = ["BatchSink"]

BATCH_ROWS = 1_000
BATCH_BYTES = 8 * 1024 * 1024


class BatchSink:
    """Write outcomes to what ``make`` returns, a batch of a thousand at a time, in another thread.

    ``make`` is given a folder for what is not in the output yet; it lies beside that, and is removed in the end. Raises
    what a ``JobOutput`` raises.
    """

    def __init__(self, path: str, make: Callable[[str], JobOutput], *, fresh: bool = False) -> None:
        self._path = path
        self._make = make
        self._fresh = fresh
        self._work = ""
        self._output: JobOutput | None = None
        self._chunks: list[bytes] = []
        self._size = 0

    async def __aenter__(self) -> Self:
        self._work = _folder_beside(self._path.rstrip("/"))
        self._output = self._make(self._work)
        try:
            await asyncio.to_thread(self._output.create, fresh=self._fresh)
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._output is not None
        try:
            await asyncio.to_thread(self._finish, self._output)
        finally:
            self._close()

    async def write(self, outcome: Outcome) -> None:
        """Take one outcome; wait while a batch is being written."""
        if self._output is None:
            raise RuntimeError(f"{self._path}: not open: write inside 'async with'")
        chunk = self._output.encode(outcome)
        self._chunks.append(chunk)
        self._size += len(chunk)
        if len(self._chunks) >= BATCH_ROWS or self._size >= BATCH_BYTES:
            chunks, self._chunks, self._size = self._chunks, [], 0
            await asyncio.to_thread(self._output.append, chunks)

    def _finish(self, output: JobOutput) -> None:
        if self._chunks:
            output.append(self._chunks)
            self._chunks = []
        output.complete()
        output.check_place()

    def _close(self) -> None:
        output, self._output = self._output, None
        if output is not None:
            output.discard()
        shutil.rmtree(self._work, ignore_errors=True)


def _folder_beside(path: str) -> str:
    return tempfile.mkdtemp(prefix=f".{os.path.basename(path)}.", dir=os.path.dirname(os.path.realpath(path)))
