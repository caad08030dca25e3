"""Brings requests to the wire and whole, bounded responses back.

aiohttp takes a tenth of a second to import, which is a tenth of a second until workers are started. So what is imported
from here is a transport that is made when somebody needs it: a parent of workers makes few requests, or none.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

import msgspec

from fetcher.config import Config
from fetcher.model import Request, Response
from fetcher.transport.tls import TLSContexts

if TYPE_CHECKING:
    from fetcher.transport.session import Transport

__all__ = ["DeferredTransport"]


class DeferredTransport:
    """What a ``Transport`` is, from the first request on. Raises ``ConfigError`` at once where its TLS settings are wrong."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._tls = TLSContexts(config.tls)
        self._made: Transport | None = None

    def make(self) -> Transport:
        """Return the transport, and make it if there is none yet."""
        if self._made is None:
            from fetcher.transport.session import Transport

            self._made = Transport(self._config, tls=self._tls)
        return self._made

    def __call__(self, request: Request) -> Awaitable[Response]:
        """See ``Transport``."""
        return (self._made or self.make())(request)

    async def address_of(self, host: str) -> str | None:
        """See ``Transport.address_of``."""
        return await self.make().address_of(host)

    def allow(self, concurrency: int) -> None:
        """See ``Transport.allow``."""
        limits = msgspec.structs.replace(self._config.limits, concurrency=concurrency)
        self._config = msgspec.structs.replace(self._config, limits=limits)
        if self._made is not None:
            self._made.allow(concurrency)

    async def close(self) -> None:
        """See ``Transport.close``."""
        if self._made is not None:
            await self._made.close()
