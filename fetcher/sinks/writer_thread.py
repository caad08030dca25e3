"""A thread that writes to a descriptor which may block, so that the event loop never waits for it.

Law 3: whoever writes learns of each block that is written, and can stop in time. The thread owns the descriptor: it
alone closes it, for a descriptor closed under a blocked write may be another file's by the time the write goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

from fetcher.files import sync, write_all

__all__ = ["WriterThread"]


class WriterThread:
    """A thread that writes the blocks it is given, in order, until it is closed or a write fails.

    ``on_written(size, error)`` is called in the event loop for each block; ``closed`` is set once the descriptor is
    closed, after a ``sync`` to the disk where that was asked for. A reader that never reads holds the thread, not the
    process.
    """

    def __init__(
        self, descriptor: int, on_written: Callable[[int, Exception | None], None], *, sync: bool = False
    ) -> None:
        self.closed = asyncio.Event()
        self._descriptor = descriptor
        self._on_written = on_written
        self._sync = sync
        self._loop = asyncio.get_running_loop()
        self._blocks: SimpleQueue[bytes | None] = SimpleQueue()
        threading.Thread(target=self._run, name="fetcher-output", daemon=True).start()

    def write(self, block: bytes) -> None:
        """Take a block to be written after those before."""
        self._blocks.put(block)

    def close(self) -> None:
        """Close the descriptor when all that was taken is written; return at once."""
        self._blocks.put(None)

    def _run(self) -> None:
        try:
            while (block := self._blocks.get()) is not None:
                write_all(self._descriptor, block)
                self._call(self._on_written, len(block), None)
            if self._sync:
                sync(self._descriptor)
        except Exception as error:  # noqa: BLE001  # whatever it is, the loop must hear of it, or wait for ever
            self._call(self._on_written, 0, error)
        try:
            os.close(self._descriptor)
        except OSError as error:
            self._call(self._on_written, 0, error)
        self._call(self.closed.set)

    def _call(self, callback: Callable[..., object], *values: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(callback, *values)
