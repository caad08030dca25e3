"""The baseline: one row after the other, through the same handlers and the same reader as the pipeline's."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import Self

from fetcher.engine import Engine, read, read_isolated
from fetcher.errors import FetchError
from fetcher.intake import Intake, Rejected, Row
from fetcher.model import Failure, Outcome
from fetcher.request_state import InFlight, RequestState, current
from fetcher.stats import Stats

__all__ = ["OneByOne"]


class OneByOne:
    """An async iterator of outcomes with the contract of ``Outcomes``; made by ``sequential``."""

    def __init__(self, engine: Engine, source: Iterable[Row] | AsyncIterable[Row], stats: Stats | None = None) -> None:
        self.stats = stats or Stats()
        self._engine = engine
        self._intake = Intake(source, engine.config, self.stats)
        self._state: RequestState | None = None
        self._stopping = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        """Fetch the next row and return its outcome."""
        if self._stopping:
            raise StopAsyncIteration
        row = await anext(self._intake)
        outcome = row.state.fail(row.error) if isinstance(row, Rejected) else await self._fetch(row)
        if isinstance(outcome, Failure):
            outcome.error.detach()
        self.stats.enter(outcome)
        return outcome

    async def _fetch(self, state: RequestState) -> Outcome:
        clock = self._engine.gate.clock
        self._state = state
        token = current.set(state)
        state.began = clock()
        try:
            response = await self._engine.exchange(state.request)
            state.ended = clock()
            if self._engine.reader.needs_isolation(response):
                return await read_isolated(self._engine, state, response)
            return read(self._engine, state, response)
        except FetchError as error:
            state.ended = clock()
            return state.fail(error)
        finally:
            state.free()
            current.reset(token)
            self._state = None

    def in_flight(self) -> list[InFlight]:
        """Return the running row, if there is one."""
        return [] if self._state is None else [self._state.snapshot()]

    def stop(self, grace: float = 0) -> None:  # noqa: ARG002  (the contract's)
        """End after the present row."""
        self._stopping = True

    async def close(self) -> None:
        """End the source."""
        await self._intake.close()
