"""Takes in the rows of a list and those that are found on pages, as one source.

Law 1: it ends when the list has, and no row under way can name another. The list goes first; one that keeps its reader
waiting does not hold up what was found.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, Iterable

import msgspec

from fetcher.config import Config
from fetcher.errors import Skipped
from fetcher.found.rows import FoundRows
from fetcher.found.store import ListedURL, check_listed
from fetcher.intake import Intake, Rejected, Row
from fetcher.model import Discovery, Request
from fetcher.request_state import RequestState
from fetcher.stats import Stats

__all__ = ["FollowIntake"]


class FollowIntake(Intake):
    """An ``Intake`` with ``found`` rows. A row of the list that was found before is ``Rejected`` as a duplicate."""

    def __init__(
        self, source: Iterable[Row] | AsyncIterable[Row], config: Config, stats: Stats, found: FoundRows
    ) -> None:
        super().__init__(source, config, stats)
        self._found = found
        self._plain = self._now is not None
        self._coming: asyncio.Task[RequestState | Rejected] | None = None  # the next row of the list

    async def __anext__(self) -> RequestState | Rejected:
        row = await self._next_row()
        self.pause = True  # the next may be named by a page of this one
        self._found.gave()
        return row

    async def _next_row(self) -> RequestState | Rejected:
        found = self._found
        while True:
            if found.listing:
                try:
                    row = await self._listed_row()
                except StopAsyncIteration:
                    found.listing = False
                    continue
                if row is not None:
                    return await self._noted(row)
            request = await found.next(wait=not found.listing)
            if request is not None:
                return self._found_row(request)
            if not found.listing:
                raise StopAsyncIteration

    async def _listed_row(self) -> RequestState | Rejected | None:
        """Return the next row of the list, or ``None`` where that is not there yet and one that was found is."""
        if self._plain:
            return await super().__anext__()
        if self._coming is None:
            self._coming = asyncio.get_running_loop().create_task(super().__anext__())
            await asyncio.sleep(0)
        while not self._coming.done():
            if self._found.available:
                return None
            changed = asyncio.ensure_future(self._found.change())
            try:
                await asyncio.wait([self._coming, changed], return_when=asyncio.FIRST_COMPLETED)
            finally:
                changed.cancel()
        coming, self._coming = self._coming, None
        return coming.result()

    async def _noted(self, row: RequestState | Rejected) -> RequestState | Rejected:
        """Return a row of the list as the first of its own links, or as a duplicate."""
        if isinstance(row, Rejected):
            return row
        request, target = row.request, row.first
        check_listed(request.id)
        leads = self._found.rules.depth != 0
        row.request = msgspec.structs.replace(request, discovery=Discovery(0, request.id, target.wire, leads=leads))
        if await self._found.duplicates(ListedURL(target.wire, target.host)):
            return Rejected(row, Skipped("duplicate", "a page named the same URL before it was listed"))
        return row

    def _found_row(self, request: Request) -> RequestState | Rejected:
        """Return a row that was found. It is counted already."""
        taken = self._take(request)
        if isinstance(taken, RequestState):
            taken.order = request.id
        return taken

    async def close(self) -> None:
        """End the source."""
        coming, self._coming = self._coming, None
        if coming is not None:
            coming.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await coming
        await super().close()
        self._found.close()
