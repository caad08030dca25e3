"""The handlers of a fetcher, put together: yours ▶ retry ▶ accept ▶ redirects ▶ robots ▶ pacing ▶ transport."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from fetcher.config import Config
from fetcher.hosts.hosts import Hosts
from fetcher.middleware.accept import accept
from fetcher.middleware.gate import Gate, Waiter
from fetcher.middleware.redirects import Redirects
from fetcher.middleware.retry import Retry
from fetcher.middleware.robots.fetch import robots_exchange, robots_token
from fetcher.middleware.robots.handler import Robots, Verdict
from fetcher.model import Exchange, Middleware
from fetcher.urls import Target

__all__ = ["Handlers", "judging"]


class Handlers:
    """``exchange`` is the outermost of them, ``gate`` the innermost; both live until ``close``."""

    def __init__(self, config: Config, middleware: Sequence[Middleware], transport: Exchange | None) -> None:
        self._transport: Any = None
        self.robots: Robots | None = None
        locate = None
        if transport is None:
            from fetcher.transport.session import Transport

            self._transport = transport = Transport(config)
            locate = self._transport.address_of
        hosts = Hosts[Waiter](config.limits, config.retry, config.hosts, robots=config.robots)
        self.gate = Gate(hosts, locate=locate)
        handlers: list[Middleware] = [
            *middleware,
            Retry(config.retry, self.gate),
            accept(config.accept),
            Redirects(config),
        ]
        if config.robots:
            self.robots = Robots(
                robots_exchange(config, self.gate, transport),
                token=robots_token(config.identity),
                max_crawl_delay=math.inf,  # the gate knows how much is obeyed, of each host
                gate=self.gate,
            )
            handlers.append(self.robots)
        handlers.append(self.gate)
        exchange: Exchange = transport
        for handler in reversed(handlers):
            exchange = _stand(handler, exchange)
        self.exchange = exchange

    async def close(self) -> None:
        """Let go of the connections."""
        if self.robots is not None:
            await self.robots.close()
        self.gate.close()
        if self._transport is not None:
            await self._transport.close()


@asynccontextmanager
async def judging(config: Config) -> AsyncIterator[Callable[[Target], Awaitable[Verdict]]]:
    """Open what asks the robots.txt of a URL's origin, at the pace of a crawl, whatever ``config`` says of robots."""
    handlers = Handlers(msgspec.structs.replace(config, robots=True), (), None)
    try:
        assert handlers.robots is not None
        yield handlers.robots.judge
    finally:
        await handlers.close()


def _stand(handler: Middleware, proceed: Exchange) -> Exchange:
    """Put a handler around an exchange; a plain function, for a coroutine more is a microsecond more."""
    return lambda request: handler(request, proceed)
