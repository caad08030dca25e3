"""The baseline: one row after the other, through the same handlers and the same reader as the pipeline's."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import Self

from fetcher.books import Books
from fetcher.engine import Engine, read, read_apart
from fetcher.errors import FetchError
from fetcher.flight import Flight, InFlight, current
from fetcher.intake import Intake, Rejected, Row
from fetcher.model import Outcome

__all__ = ["OneByOne"]


class OneByOne:
    """An async iterator of outcomes with the contract of ``Outcomes``; made by ``sequential``."""

    def __init__(self, engine: Engine, source: Iterable[Row] | AsyncIterable[Row], books: Books | None = None) -> None:
        self.books = books or Books()
        self._engine = engine
        self._intake = Intake(source, engine.config, self.books)
        self._flight: Flight | None = None
        self._stopping = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        """Fetch the next row and return its outcome."""
        if self._stopping:
            raise StopAsyncIteration
        row = await anext(self._intake)
        outcome = row.flight.fail(row.error) if isinstance(row, Rejected) else await self._fetch(row)
        self.books.enter(outcome)
        return outcome

    async def _fetch(self, flight: Flight) -> Outcome:
        clock = self._engine.gate.clock
        self._flight = flight
        token = current.set(flight)
        flight.began = clock()
        try:
            response = await self._engine.exchange(flight.request)
            flight.ended = clock()
            if self._engine.reader.apart(response):
                return await read_apart(self._engine, flight, response)
            return read(self._engine, flight, response)
        except FetchError as error:
            flight.ended = clock()
            return flight.fail(error)
        finally:
            flight.free()
            current.reset(token)
            self._flight = None

    def in_flight(self) -> list[InFlight]:
        """Return the running row, if there is one."""
        return [] if self._flight is None else [self._flight.snapshot()]

    def stop(self, grace: float = 0) -> None:  # noqa: ARG002  (the contract's)
        """End after the present row."""
        self._stopping = True

    async def close(self) -> None:
        """End the source."""
        await self._intake.close()
