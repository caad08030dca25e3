"""The handlers of a fetcher, put together: yours ▶ retry ▶ accept ▶ schemes ▶ redirects ▶ robots ▶ gate ▶ transport.

``schemes`` is there where rows may name none and it is found out by which they are answered (``default_scheme``), and
``head`` between ``redirects`` and ``robots`` where rows are asked by HEAD.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import msgspec

from fetcher.config import Accept, Config
from fetcher.hosts.scheduler import Scheduler
from fetcher.middleware.accept import accept
from fetcher.middleware.gate import Gate, Locate, has_any_route
from fetcher.middleware.redirects import Redirects
from fetcher.middleware.retry import Retry
from fetcher.middleware.robots import Robots, robots_exchange
from fetcher.middleware.schemes import Schemes
from fetcher.model import EarlierRun, Exchange, Middleware, Request, Response, RetryHook, compose
from fetcher.request_state import current

__all__ = ["Handlers"]

Origin: TypeAlias = tuple[str, str, int]


class Handlers:
    """``gate`` is the innermost of them; all live until ``close``. ``transport`` is what they are put around.

    ``locate`` says which address a host has, where that is known, ``home`` which hosts are ours to ask.
    """

    def __init__(
        self,
        config: Config,
        middleware: Sequence[Middleware],
        transport: Exchange,
        *,
        locate: Locate | None = None,
        on_retry: RetryHook | None = None,
        home: Callable[[str], bool] | None = None,
    ) -> None:
        scheduler = Scheduler(config.limits, config.retry, config.hosts, robots=config.robots, has_route=has_any_route)
        self.gate = Gate(scheduler, locate=locate)
        self.robots: Robots | None = None
        handlers: list[Middleware] = [
            Retry(config.retry, self.gate, on_retry=on_retry),
            accept(config.accept, keep_headers=config.keep_headers),
        ]
        redirects = Redirects(config, home=home)
        self._schemes = [Schemes(self.gate, redirects.secrets)] if config.default_scheme == "auto" else []
        handlers += [*self._schemes, redirects]
        if config.head:
            from fetcher.middleware.head import ask_by_head  # most runs want bodies

            handlers.append(ask_by_head)
        if config.robots:
            self.robots = Robots(
                robots_exchange(config, self.gate, transport),
                token=config.identity.product_token,
                max_crawl_delay=math.inf,  # the gate knows how much is obeyed, of each host
                gate=self.gate,
            )
            handlers.append(self.robots)
        handlers.append(self.gate)
        self.transport = transport
        self._handlers = handlers, handlers.index(redirects) + 1
        self._config = config
        self._middleware = middleware
        self._on_retry = on_retry

    def exchange(self, earlier: EarlierRun | None = None) -> Exchange:
        """Return the outermost handler; with ``earlier`` they ask only for what has changed since that run."""
        handlers, place = self._handlers
        if earlier is not None:
            from fetcher.middleware.conditional import Conditional  # most runs have no earlier one

            handlers = [*handlers[:place], Conditional(earlier), *handlers[place:]]
        return compose(self._middleware, compose(handlers, self.transport), foreign=True)

    def list_exchange(self, *, most: int, named_by: Origin | None = None) -> Exchange:
        """Return the handlers for a list of URLs: ``most`` bytes of it are wanted, and any 2xx is one.

        The robots.txt of the origin ``named_by``, which names the list, is not asked whether it may be fetched.
        """

        def robots(request: Request, proceed: Exchange) -> Awaitable[Response]:
            if self.robots is None or current.get().target.origin == named_by:
                return proceed(request)
            return self.robots(request, proceed)

        def enough(request: Request, proceed: Exchange) -> Awaitable[Response]:
            transfer = current.get().transfer
            if transfer is not None:
                transfer.max_bytes = most
            return proceed(request)

        config = msgspec.structs.replace(self._config, accept=Accept(), follow_refresh=False)
        handlers: list[Middleware] = [
            Retry(config.retry, self.gate, on_retry=self._on_retry),
            accept(config.accept),
            *self._schemes,
            Redirects(config),
            robots,
            self.gate,
            enough,
        ]
        return compose(self._middleware, compose(handlers, self.transport), foreign=True)

    async def close(self) -> None:
        """Give up what is being asked for, and stop the timers."""
        if self.robots is not None:
            await self.robots.close()
        self.gate.close()
