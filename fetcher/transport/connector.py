"""aiohttp's session as we use it: our resolver, guard and stages around it, and an idle pool that is bounded.

Law 3: 2,500 idle TLS connections would hold 600 MB. Law 7: which addresses a pool may reach is judged where
its sockets are made.
"""

from __future__ import annotations

import ssl
from typing import Any, Literal, TypeAlias

import aiohttp

from fetcher.config import Config, TLSPolicy
from fetcher.errors import ConfigError
from fetcher.flight import current
from fetcher.transport.address import AddressClass, socket_guard
from fetcher.transport.decoding import accept_encoding
from fetcher.transport.resolver import Resolver

__all__ = ["Pool", "StagedResolver", "open_session", "tls_context"]

ACCEPT = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
HEAD_LIMIT = 65_536  # bytes of one header line
KEEP_ALIVE = 15.0  # seconds an idle connection is kept

Pool: TypeAlias = Literal["public", "private", "any"]
REACHES: dict[Pool, frozenset[AddressClass]] = {"public": frozenset({"public"}), "private": frozenset({"private"})}


def _enter(stage: str) -> None:
    flight = current.get(None)
    if flight is not None:
        flight.enter(stage)


class StagedResolver(Resolver):
    """The resolver, telling the flight that it is at work."""

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[Any]:
        """Look a name up."""
        _enter("resolving")
        try:
            return await super().resolve(host, port, family)
        finally:
            _enter("connecting")


class StagedRequest(aiohttp.ClientRequest):
    """aiohttp's request, telling the flight when there is a connection and the waiting begins."""

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        """Send the head of the request."""
        flight = current.get(None)
        if flight is not None:
            flight.enter("waiting")
            if flight.watch is not None:
                flight.watch.touch()
        return await super().send(conn)


class StagedTLS(ssl.SSLContext):
    """A TLS context that tells the flight when the handshake begins."""

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Begin a handshake."""
        _enter("handshaking")
        return super().wrap_bio(*args, **kwargs)


class BoundedConnector(aiohttp.TCPConnector):
    """A connector that keeps at most ``max_idle`` idle connections, the latest used."""

    max_idle = 200
    _idle_at_most = 0

    def _release(self, key: Any, protocol: Any, *, should_close: bool = False) -> None:
        super()._release(key, protocol, should_close=should_close)
        self._idle_at_most += 1
        if self._idle_at_most > self.max_idle:
            idle = sorted((t, id(p), p, k) for k, pool in self._conns.items() for p, t in pool)
            self._idle_at_most = len(idle)
            if len(idle) > self.max_idle:
                self._drop(idle[: len(idle) - self.max_idle * 3 // 4])

    def _drop(self, oldest: list[Any]) -> None:
        for since, _, protocol, key in oldest:
            pool = self._conns[key]
            pool.remove((protocol, since))
            if not pool:
                del self._conns[key]
            protocol.close()
        self._idle_at_most -= len(oldest)


def open_session(config: Config, pool: Pool, resolver: Resolver) -> aiohttp.ClientSession:
    """Open the session of one pool. Bounds are ours: aiohttp queues, decodes, follows and remembers nothing."""
    connector = BoundedConnector(
        limit=0,
        use_dns_cache=False,
        resolver=resolver,
        keepalive_timeout=KEEP_ALIVE,
        socket_factory=socket_guard(REACHES[pool], lambda _: _enter("connecting")) if pool in REACHES else None,
    )
    connector.max_idle = max(100, 2 * config.limits.concurrency)
    return aiohttp.ClientSession(
        connector=connector,
        headers={"User-Agent": config.identity.user_agent, "Accept": ACCEPT, "Accept-Encoding": accept_encoding()},
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None, connect=config.timeouts.connect, ceil_threshold=60),
        request_class=StagedRequest,
        max_line_size=HEAD_LIMIT,
        max_field_size=HEAD_LIMIT,
        trust_env=False,
    )


def tls_context(policy: TLSPolicy) -> ssl.SSLContext:
    """Build the TLS context. Raises ``ConfigError`` for a bundle that cannot be read."""
    context = StagedTLS(ssl.PROTOCOL_TLS_CLIENT)
    if not policy.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif policy.ca_bundle:
        try:
            context.load_verify_locations(policy.ca_bundle)
        except (OSError, ssl.SSLError) as error:
            reason = getattr(error, "strerror", None) or "not a PEM file of certificates"
            raise ConfigError(f"ca-bundle: cannot read {policy.ca_bundle}: {reason}") from None
    else:
        context.load_default_certs()
    context.set_alpn_protocols(["http/1.1"])
    return context
