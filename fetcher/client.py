"""The ``Fetcher``: builds the handlers from a config and owns the session's life.

The handlers, outermost first: yours ▶ retry ▶ accept ▶ redirects ▶ robots ▶ pacing ▶ transport.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Self

from fetcher.baseline import OneByOne
from fetcher.config import Config
from fetcher.engine import Engine, read, read_isolated
from fetcher.errors import FetchError
from fetcher.intake import Row
from fetcher.middleware.chain import Handlers
from fetcher.middleware.gate import Gate
from fetcher.model import Exchange, Extractor, Failure, Middleware, Page, Request, Sink
from fetcher.page.reader import Reader
from fetcher.pipeline import Outcomes, concurrent, sequential
from fetcher.request_state import InFlight, RequestState, current
from fetcher.stats import Stats
from fetcher.urls import parse

__all__ = ["Fetcher"]


class Fetcher:
    """A polite, concurrent client for lists of URLs: ``fetch`` one, ``stream`` many, ``run`` into a sink.

    Open it with ``async with``; nothing touches the network before the first request. ``middleware`` stands
    around every row, outermost first; ``extract`` makes ``Page.data``; ``transport`` replaces aiohttp.

    >>> async def titles(urls):
    ...     async with Fetcher(Config.of(concurrency=20)) as fetcher, fetcher.stream(urls) as outcomes:
    ...         return [outcome.title async for outcome in outcomes if outcome.ok]
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        middleware: Sequence[Middleware] = (),
        extract: Extractor | None = None,
        transport: Exchange | None = None,
    ) -> None:
        self.config = config or Config()
        self._middleware = tuple(middleware)
        self.reader = Reader(self.config, extract)
        self._given_transport = transport
        self._engine: Engine | None = None
        self._handlers: Handlers | None = None
        self._streams: list[Outcomes | OneByOne] = []

    async def __aenter__(self) -> Self:
        self._handlers = Handlers(self.config, self._middleware, self._given_transport)
        self._engine = Engine(self.config, self._handlers.exchange, self.reader, self._handlers.gate)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._engine = None
        handlers, self._handlers = self._handlers, None
        if handlers is not None:
            await handlers.close()
        await self.reader.close()

    async def fetch(self, url: str | Request) -> Page:
        """Fetch one URL and return its page. Raises ``FetchError``."""
        engine = self._running()
        request = Request(1, url.strip()) if isinstance(url, str) else url
        state = RequestState(request, parse(request.url, self.config.default_scheme))
        state.began = engine.gate.clock()
        token = current.set(state)
        try:
            response = await engine.exchange(request)
            state.ended = engine.gate.clock()
            if self.reader.needs_isolation(response):
                outcome = await read_isolated(engine, state, response)
            else:
                outcome = read(engine, state, response)
            if isinstance(outcome, Failure):
                raise outcome.error
            return outcome
        except FetchError as error:
            error.about(state.target.wire)
            raise
        finally:
            state.free()
            current.reset(token)

    @asynccontextmanager
    async def stream(
        self,
        urls: Iterable[Row] | AsyncIterable[Row],
        *,
        ordered: bool = False,
        sequentially: bool = False,
        stats: Stats | None = None,
    ) -> AsyncIterator[Outcomes | OneByOne]:
        """Open an async iterator of outcomes: as they complete, or ``ordered`` as the URLs are.

        ``urls`` may be any iterable, endless too: it is read as fast as outcomes are taken. ``sequentially``
        fetches one after the other, for comparison. ``stats`` go on where earlier runs of the same list left them.
        Leaving the block cancels what is still under way.
        """
        flow = sequential if sequentially else concurrent
        async with flow(self._running(), urls, ordered=ordered, stats=stats) as outcomes:
            self._streams.append(outcomes)
            limit = self.config.limits.time
            timer = asyncio.get_running_loop().call_later(limit, outcomes.stop) if limit is not None else None
            try:
                yield outcomes
            finally:
                if timer is not None:
                    timer.cancel()
                self._streams.remove(outcomes)

    async def run(self, urls: Iterable[Row] | AsyncIterable[Row], sink: Sink, *, sequentially: bool = False) -> Stats:
        """Drain all outcomes into a sink and return the stats. Raises ``SinkError`` and ``SourceError``."""
        async with sink, self.stream(urls, sequentially=sequentially) as outcomes:
            async for outcome in outcomes:
                await sink.write(outcome)
            return outcomes.stats

    @property
    def gate(self) -> Gate:
        """The gate to the wire, and what is known of the hosts behind it."""
        return self._running().gate

    def in_flight(self) -> list[InFlight]:
        """Return every running request of this fetcher's streams with its URL, stage and age."""
        return [row for stream in self._streams for row in stream.in_flight()]

    def stop(self, grace: float = 5.0) -> None:
        """End all streams early: nothing new starts, what is on the wire has ``grace`` seconds to finish."""
        for stream in self._streams:
            stream.stop(grace)

    def _running(self) -> Engine:
        if self._engine is None:
            raise RuntimeError("the Fetcher is not open: use it as 'async with Fetcher() as fetcher'")
        return self._engine
