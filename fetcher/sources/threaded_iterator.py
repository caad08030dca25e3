"""An iterator that may block, read in a thread and iterated over in the event loop.

Laws: an item is there a millisecond after the thread has it, at the latest; the thread is at most ``size`` items ahead
(law 3); closing never waits for a thread that is blocked in a read; what the iterator raises is raised to whoever
reads.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from threading import Event, Thread
from typing import Generic, TypeVar

__all__ = ["ThreadedIterator"]

T = TypeVar("T")

_WAKE_DELAY_SECONDS = 0.001
"""For which a reader that waits leaves the thread to fill up: woken for each row, the two would spend 8 µs a row on
passing the interpreter to and fro."""


class ThreadedIterator(AsyncIterator[T], Generic[T]):
    """Iterate over ``rows`` in one daemon thread, at most ``size`` of them ahead of the reader.

    For one reader at a time; the thread begins with the first row asked for. A reader that stops early calls
    ``aclose`` (``contextlib.aclosing`` does), after which the thread ends by itself and closes ``rows``: at
    once when it waits for the reader, else when the read it is blocked in returns.
    """

    def __init__(self, rows: Iterator[T], *, size: int = 256) -> None:
        if size < 1:
            raise ValueError("size must be at least 1")
        self._rows = rows
        self._size = size
        self._ready: deque[T] = deque()
        self._room = Event()
        self._full = False  # the thread waits for room
        self._ended = False  # nothing will be added any more
        self._closed = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __aiter__(self) -> ThreadedIterator[T]:
        return self

    async def __anext__(self) -> T:
        """Return the next row; what the rows raised comes after the last one, once."""
        if self._loop is None and not self._closed:
            self._loop = asyncio.get_running_loop()
            Thread(target=self._run, name="fetcher-rows", daemon=True).start()
        while not self._closed:
            if self._ready:
                row = self._ready.popleft()
                if self._full and len(self._ready) <= self._size // 2:  # half, so that it adds many in a turn
                    self._full = False
                    self._room.set()
                return row
            if self._ended:
                if self._ready:  # added between the two looks
                    continue
                self._closed = True
                error, self._error = self._error, None
                if error is not None:
                    raise error
                break
            await self._wait()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Let go of the rows; returns at once."""
        self._closed = True
        self._ready.clear()
        self._room.set()
        if self._waiter is not None:
            _wake(self._waiter)
        if self._loop is None:
            self._close_rows()

    async def _wait(self) -> None:
        """Sleep until the thread has a row, or has ended."""
        if self._waiter is not None:
            raise RuntimeError("the rows are being read by another task")
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        try:
            # The thread adds and then looks for a waiter; we set it and then look for rows: one of us sees the other.
            if not (self._ready or self._ended or self._closed):
                await waiter
        finally:
            self._waiter = None

    def _run(self) -> None:
        """Fill up, in the thread."""
        ready = self._ready
        woken: asyncio.Future[None] | None = None
        try:
            for row in self._rows:
                if self._closed:
                    break
                ready.append(row)
                if self._waiter is not woken:
                    woken = self._waiter
                    self._notify(_wake_soon, woken)
                while len(ready) >= self._size and not self._closed:
                    self._notify(_wake, self._waiter)
                    self._wait_for_room()
        except BaseException as error:  # noqa: BLE001 - it is the reader's, and raised there
            self._error = error
        finally:
            self._ended = True
            self._notify(_wake, self._waiter)
        if self._closed:
            self._close_rows()

    def _wait_for_room(self) -> None:
        self._room.clear()
        self._full = True
        # Whoever takes rows from here on sees the flag; what was taken before is seen by this look.
        if len(self._ready) >= self._size and not self._closed:
            self._room.wait()
        self._full = False

    def _notify(self, wake: Callable[[asyncio.Future[None]], None], waiter: asyncio.Future[None] | None) -> None:
        """Wake the reader, if it waits; from the thread."""
        if waiter is None or self._loop is None:
            return
        try:
            self._loop.call_soon_threadsafe(wake, waiter)
        except RuntimeError:  # the loop is closed: nobody reads any more
            self._closed = True

    def _close_rows(self) -> None:
        close = getattr(self._rows, "close", None)
        if close is not None:
            close()


def _wake_soon(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.get_loop().call_later(_WAKE_DELAY_SECONDS, _wake, waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
