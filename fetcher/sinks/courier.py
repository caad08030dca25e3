"""Carries blocks to a descriptor that may block, in a thread of its own, so that the event loop never waits for it.

Law 3: whoever sends learns of each block that has arrived, and can stop in time. The thread owns the descriptor: it
alone closes it, for a descriptor closed under a blocked write may be another file's by the time the write goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import threading
from collections.abc import Callable
from queue import SimpleQueue

__all__ = ["Courier", "write_all"]

Arrival = Callable[[int, Exception | None], None]


class Courier:
    """A thread that writes what it is sent, in order, until it is dismissed or a write fails.

    ``arrived(size, error)`` is called in the event loop for each block; ``gone`` is set once the descriptor is closed,
    after a ``sync`` to the disk where that was asked for. A reader that never reads holds the thread, not the process.
    """

    def __init__(self, descriptor: int, arrived: Arrival, *, sync: bool = False) -> None:
        self.gone = asyncio.Event()
        self._descriptor = descriptor
        self._arrived = arrived
        self._sync = sync
        self._loop = asyncio.get_running_loop()
        self._blocks: SimpleQueue[bytes | None] = SimpleQueue()
        threading.Thread(target=self._run, name="fetcher-output", daemon=True).start()

    def send(self, block: bytes) -> None:
        """Take a block to be written after those sent before."""
        self._blocks.put(block)

    def dismiss(self) -> None:
        """Close the descriptor when all that was sent is written."""
        self._blocks.put(None)

    def _run(self) -> None:
        try:
            while (block := self._blocks.get()) is not None:
                write_all(self._descriptor, block)
                self._tell(self._arrived, len(block), None)
            if self._sync:
                os.fsync(self._descriptor)
        except Exception as error:  # noqa: BLE001  # whatever it is, the loop must hear of it, or wait for ever
            self._tell(self._arrived, 0, error)
        try:
            os.close(self._descriptor)
        except OSError as error:
            self._tell(self._arrived, 0, error)
        self._tell(self.gone.set)

    def _tell(self, callback: Callable[..., object], *values: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(callback, *values)


def write_all(descriptor: int, data: bytes) -> None:
    """Write the whole of ``data``, waiting as long as it takes. Raises ``OSError``; some of it may be written then."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            _wait_for_room(descriptor)


def _wait_for_room(descriptor: int) -> None:
    # Another program that shares the pipe or terminal may have made it non-blocking, for itself and for us.
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_WRITE)
        selector.select()
