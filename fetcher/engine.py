"""What both pipelines run on, so that a comparison of the two is fair by construction."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec

from fetcher.config import Config
from fetcher.errors import FetchError
from fetcher.middleware.gate import Gate
from fetcher.model import Exchange, Outcome, Page, Response
from fetcher.page.reader import Reader
from fetcher.request_state import RequestState

__all__ = ["Apart", "Engine", "read", "read_isolated"]


class Engine(msgspec.Struct, frozen=True):
    """The handlers, the reader of bodies, and the gate they share."""

    config: Config
    exchange: Exchange
    reader: Reader
    gate: Gate


def read(engine: Engine, state: RequestState, response: Response) -> Outcome:
    """Make the outcome of a response: its page, or the failure to read one out of it."""
    try:
        return _own(engine.reader.read(response, waited=state.waited, fetched_at=time.time()), state)
    except FetchError as error:
        return _failure(state, error)


async def read_isolated(engine: Engine, state: RequestState, response: Response) -> Outcome:
    """Do the same in a process of its own, where a page can do no harm."""
    try:
        page = await engine.reader.read_isolated(response, waited=state.waited, fetched_at=time.time())
    except FetchError as error:
        return _failure(state, error)
    return _own(page, state)


class Apart:
    """The rows of one stream whose bodies are being read apart. The window bounds how many there are.

    ``deliver`` is given each outcome, ``ended`` is told of the end of each, with the bug that ended it.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        deliver: Callable[[RequestState, Outcome], None],
        ended: Callable[[BaseException | None], None],
    ) -> None:
        self.states: dict[asyncio.Task[None], RequestState] = {}
        self._engine = engine
        self._deliver = deliver
        self._task_ended = ended

    def start(self, state: RequestState, response: Response) -> None:
        """Have the body of ``response`` read."""
        state.enter("parsing")
        task = asyncio.get_running_loop().create_task(self._read(state, response))
        self.states[task] = state
        task.add_done_callback(self._ended)

    def cancel(self) -> None:
        """Give up what is being read."""
        for task in self.states:
            task.cancel()

    async def _read(self, state: RequestState, response: Response) -> None:
        self._deliver(state, await read_isolated(self._engine, state, response))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.states.pop(task).free()
        self._task_ended(None if task.cancelled() else task.exception())


def _own(page: Page, state: RequestState) -> Page:
    # A middleware may have asked for something else, or answered out of its store: the row is the row.
    return page if page.request is state.request else msgspec.structs.replace(page, request=state.request)


def _failure(state: RequestState, error: FetchError) -> Outcome:
    state.attempts += 1
    return state.fail(error)
