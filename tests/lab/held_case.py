"""Owns a case that holds its answers back until a test lets them go."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future

from tests.lab.exchange import Exchange


class HeldCase:
    """A case for ``lab.add``: every exchange waits until ``open`` is called, from any thread, and then is ``/ok``."""

    def __init__(self) -> None:
        self._opened: Future[None] = Future()

    def open(self) -> None:
        """Let all go that wait, and whoever comes later."""
        if not self._opened.done():
            self._opened.set_result(None)

    async def __call__(self, exchange: Exchange) -> None:
        opened = asyncio.ensure_future(asyncio.shield(asyncio.wrap_future(self._opened)))
        gone = asyncio.ensure_future(exchange.gone())
        try:
            await asyncio.wait({opened, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            opened.cancel()
        if self._opened.done():
            await exchange.become(f"/ok?{exchange.entry.local.partition('?')[2]}")
        else:
            exchange.close()
