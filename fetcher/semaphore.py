"""A bounded semaphore that is looked at in passing: the window, and the guard of the slots.

asyncio's own has no way to take a place but a coroutine, and walks through its waiters at each look.
"""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["Semaphore"]


class Semaphore:
    """A number of places: ``open`` says that one may ``take`` one of them at once."""

    __slots__ = ("_places", "_waiters", "free", "open")

    def __init__(self, places: int) -> None:
        self._places = places
        self._waiters: deque[asyncio.Future[None]] = deque()
        self.free = places
        self.open = True

    def take(self) -> None:
        """Take a place; the semaphore must be ``open``."""
        if not self.open:
            raise RuntimeError("the semaphore is not open")
        self.free -= 1
        self.open = self.free > 0

    async def acquire(self) -> None:
        """Take a place, in the order of those who ask."""
        if self.open:
            self.take()
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.release()  # it was given a place in the same instant
            raise

    def release(self) -> None:
        """Give a place back: to whoever has waited longest."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        if self.free == self._places:
            raise ValueError("more places were given back than taken")
        self.free += 1
        self.open = True
