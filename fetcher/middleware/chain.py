"""The handlers of a fetcher, put together: yours ▶ retry ▶ accept ▶ schemes ▶ redirects ▶ robots ▶ gate ▶ transport.

``schemes`` is there where rows may name none and it is found out by which they are answered (``default_scheme``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fetcher.config import Config
from fetcher.hosts.scheduler import Scheduler
from fetcher.middleware.accept import accept
from fetcher.middleware.gate import Gate, Locate, has_any_route
from fetcher.middleware.redirects import Redirects
from fetcher.middleware.retry import Retry
from fetcher.middleware.robots.fetch import robots_exchange
from fetcher.middleware.robots.handler import Robots
from fetcher.middleware.schemes import Schemes
from fetcher.model import Exchange, Middleware, RetryHook, compose

__all__ = ["Handlers"]


class Handlers:
    """``exchange`` is the outermost of them, ``gate`` the innermost; both live until ``close``.

    ``locate`` says which address a host has, where that is known.
    """

    def __init__(
        self,
        config: Config,
        middleware: Sequence[Middleware],
        transport: Exchange,
        *,
        locate: Locate | None = None,
        on_retry: RetryHook | None = None,
    ) -> None:
        scheduler = Scheduler(config.limits, config.retry, config.hosts, robots=config.robots, has_route=has_any_route)
        self.gate = Gate(scheduler, locate=locate)
        self.robots: Robots | None = None
        handlers: list[Middleware] = [
            Retry(config.retry, self.gate, on_retry=on_retry),
            accept(config.accept, keep_headers=config.keep_headers),
        ]
        redirects = Redirects(config)
        if config.default_scheme == "auto":
            handlers.append(Schemes(self.gate, redirects.secrets))
        handlers.append(redirects)
        if config.robots:
            self.robots = Robots(
                robots_exchange(config, self.gate, transport),
                token=config.identity.product_token,
                max_crawl_delay=math.inf,  # the gate knows how much is obeyed, of each host
                gate=self.gate,
            )
            handlers.append(self.robots)
        handlers.append(self.gate)
        self.exchange = compose(middleware, compose(handlers, transport), foreign=True)

    async def close(self) -> None:
        """Give up what is being asked for, and stop the timers."""
        if self.robots is not None:
            await self.robots.close()
        self.gate.close()
