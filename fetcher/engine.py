"""What both pipelines run on, so that a comparison of the two is fair by construction."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec

from fetcher.config import Config
from fetcher.errors import FetchError
from fetcher.flight import Flight
from fetcher.model import Exchange, Outcome, Page, Response
from fetcher.page.reader import Reader
from fetcher.policy.pacing import Gate

__all__ = ["Apart", "Engine", "read", "read_apart"]


class Engine(msgspec.Struct, frozen=True):
    """The handlers, the reader of bodies, and the gate they share."""

    config: Config
    exchange: Exchange
    reader: Reader
    gate: Gate


def read(engine: Engine, flight: Flight, response: Response) -> Outcome:
    """Make the outcome of a response: its page, or the failure to read one out of it."""
    try:
        return _own(engine.reader.read(response, waited=flight.waited, fetched_at=time.time()), flight)
    except FetchError as error:
        return _failure(flight, error)


async def read_apart(engine: Engine, flight: Flight, response: Response) -> Outcome:
    """Do the same in a process of its own, where a page can do no harm."""
    try:
        page = await engine.reader.read_apart(response, waited=flight.waited, fetched_at=time.time())
    except FetchError as error:
        return _failure(flight, error)
    return _own(page, flight)


class Apart:
    """The rows of one stream whose bodies are being read apart. The window bounds how many there are.

    ``deliver`` is given each outcome, ``landed`` is told of the end of each, with the bug that ended it.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        deliver: Callable[[Flight, Outcome], None],
        landed: Callable[[BaseException | None], None],
    ) -> None:
        self.flights: dict[asyncio.Task[None], Flight] = {}
        self._engine = engine
        self._deliver = deliver
        self._landed = landed

    def start(self, flight: Flight, response: Response) -> None:
        """Have the body of ``response`` read."""
        flight.enter("parsing")
        task = asyncio.get_running_loop().create_task(self._read(flight, response))
        self.flights[task] = flight
        task.add_done_callback(self._ended)

    def cancel(self) -> None:
        """Give up what is being read."""
        for task in self.flights:
            task.cancel()

    async def _read(self, flight: Flight, response: Response) -> None:
        self._deliver(flight, await read_apart(self._engine, flight, response))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.flights.pop(task).free()
        self._landed(None if task.cancelled() else task.exception())


def _own(page: Page, flight: Flight) -> Page:
    # A middleware may have asked for something else, or answered out of its store: the row is the row.
    return page if page.request is flight.request else msgspec.structs.replace(page, request=flight.request)


def _failure(flight: Flight, error: FetchError) -> Outcome:
    flight.attempts += 1
    return flight.fail(error)
