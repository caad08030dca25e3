"""Fetches whole lists of URLs with the handlers of a ``Fetcher``, for the thread that reads them.

Reading a list blocks, and so it has a thread; the exchange belongs to the event loop. Law 2: what goes wrong is a
``FetchError``, raised in that thread. Law 3: a list has at most ``MAX_BYTES``. Law 8: a list is asked for as any row
is, at the pace of its host and where robots.txt allows it; a sitemap that a robots.txt itself names is allowed by that.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future
from functools import partial

import msgspec

from fetcher.errors import FetchError, SourceError, TooLarge
from fetcher.intake import without_secrets
from fetcher.middleware.chain import Handlers
from fetcher.model import Request
from fetcher.pipeline import Engine, exchange
from fetcher.request_state import InFlight, RequestState, Requeue, hurry, snapshot_of
from fetcher.sources.network import MAX_BYTES, ListBody
from fetcher.urls import parse, without_userinfo

__all__ = ["ListFetcher"]


class ListFetcher:
    """A ``FetchList`` of the event loop it is made in: called in another thread, it waits there for the loop.

    ``close`` ends what is under way; whoever waits for it gets a ``SourceError``.
    """

    def __init__(self, engine: Engine, handlers: Handlers) -> None:
        self._engine = engine
        self._handlers = handlers
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._running: set[asyncio.Task[None]] = set()
        self._states: set[RequestState] = set()
        self._closed = False

    def in_flight(self) -> list[InFlight]:
        """Return what is being fetched, as rows with the number 0."""
        return [snapshot_of(state) for state in self._states]

    def __call__(self, url: str, /, *, robots: bool = True, guarded: bool = False) -> ListBody:
        """Fetch the list at ``url``. Raises ``FetchError``."""
        if threading.get_ident() == self._thread:
            raise RuntimeError("a list is fetched from another thread than the event loop's")
        waiting: Future[ListBody] = Future()
        try:
            self._loop.call_soon_threadsafe(
                self._start, partial(self._fetch, url, robots=robots, guarded=guarded), waiting
            )
            return waiting.result()
        except (CancelledError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not self._loop.is_closed():
                raise
            raise SourceError(f"{without_userinfo(url)}: was not read, for the run has ended") from None

    async def close(self) -> None:
        """Give up what is being fetched."""
        self._closed = True
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _start(self, fetch: Callable[[], Awaitable[ListBody]], waiting: Future[ListBody]) -> None:
        if self._closed:
            waiting.cancel()
            return
        task = self._loop.create_task(self._answer(fetch, waiting))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _answer(self, fetch: Callable[[], Awaitable[ListBody]], waiting: Future[ListBody]) -> None:
        try:
            body = await fetch()
        except asyncio.CancelledError:
            waiting.cancel()
            raise
        except BaseException as error:  # noqa: BLE001  (it is the reader's, and raised there)
            waiting.set_exception(error)
        else:
            waiting.set_result(body)

    async def _fetch(self, url: str, *, robots: bool, guarded: bool) -> ListBody:
        config = self._engine.config
        target = parse(url, config.default_scheme)
        handle = self._handlers.list_exchange(most=MAX_BYTES, named_by=None if robots else target.origin)
        engine = msgspec.structs.replace(self._engine, handle=handle)
        state = RequestState(without_secrets(Request(0, url, guarded=guarded)), target)
        state.begin(engine.gate.clock())
        if engine.keeps:
            hurry(state)  # all of the memory may be held by outcomes that wait for whoever reads the list
        self._states.add(state)
        try:
            answer = await exchange(engine, state)
        finally:
            self._states.discard(state)
            state.free()
        if isinstance(answer, FetchError):
            raise answer.about(state.target.wire)
        if isinstance(answer, Requeue):
            raise RuntimeError(f"the list {state.target.wire} was sent back, and there is nobody to take it")
        if answer.truncated:
            raise TooLarge(message=f"the list is over {MAX_BYTES // (1024 * 1024)} MiB: download it, and give the file")
        return ListBody(answer.url, answer.body, guarded=state.reached != "private")
