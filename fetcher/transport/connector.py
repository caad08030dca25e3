"""aiohttp's session as we use it: our resolver, guard and stages around it, and an idle pool that is bounded.

Law 3: 2,500 idle TLS connections would hold 600 MB. Law 7: which addresses a pool may reach is judged where
its sockets are made.
"""

from __future__ import annotations

import asyncio
import functools
import math
import ssl
from collections.abc import Coroutine
from time import monotonic
from typing import Any, Literal, TypeAlias

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import LineTooLong

from fetcher.config import Config, TLSPolicy
from fetcher.errors import ConfigError
from fetcher.model import Stage
from fetcher.request_state import current
from fetcher.transport.address import AddressClass, socket_guard
from fetcher.transport.decoding import accept_encoding
from fetcher.transport.resolver import Resolver

__all__ = ["Pool", "StagedResolver", "open_session", "tls_context"]

ACCEPT = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
HEAD_LIMIT = 65_536  # bytes of one header line
HEADS_LIMIT = 262_144  # bytes of a whole head, and of the interim ones before it
UNREAD = 65_536  # bytes of a body that may wait to be read, twice over
KEEP_ALIVE = 15.0  # seconds an idle connection is kept

Pool: TypeAlias = Literal["public", "private", "any"]
REACHES: dict[Pool, frozenset[AddressClass]] = {"public": frozenset({"public"}), "private": frozenset({"private"})}


def _enter(stage: Stage) -> None:
    state = current.get(None)
    if state is not None:
        state.enter(stage)


class StagedResolver(Resolver):
    """The resolver, telling the state that it is at work."""

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[Any]:
        """Look a name up."""
        _enter(Stage.RESOLVING)
        places = await super().resolve(host, port, family)
        _enter(Stage.CONNECTING)  # not where it failed: then time ran out, or the name is none
        return places


class StagedRequest(aiohttp.ClientRequest):
    """aiohttp's request, telling the state when there is a connection and the waiting begins."""

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        """Send the head of the request, unless the connection says something before it was asked."""
        if conn.protocol.should_close:  # aiohttp would take that for the answer, and then each row's for the next's
            raise aiohttp.ServerDisconnectedError("bytes came on an idle connection")
        conn.protocol.head = 0.0
        state = current.get(None)
        if state is not None:
            transfer = state.transfer
            if transfer is not None and transfer.send_gate is not None:
                while (wait := transfer.send_gate(state)) > 0:  # noqa: ASYNC110 – its host says for how long
                    await asyncio.sleep(wait)
            state.enter(Stage.WAITING)
            if transfer is not None and transfer.clock is not None:
                transfer.clock.listen(conn.protocol)
        return await super().send(conn)


class StampedProtocol(ResponseHandler):
    """aiohttp's connection, noting when bytes came: a head that comes drop by drop is no silence."""

    heard = 0.0  # monotonic seconds
    head = 0.0  # bytes of it so far; less than any number once it is there

    def data_received(self, data: bytes) -> None:
        """Take what came. Law 3: aiohttp bounds the lines of a head and their number, not what they make together."""
        if data:
            self.heard = monotonic()
            self.head += len(data)
        super().data_received(data)
        if self.head > HEADS_LIMIT and self.transport is not None:
            self.set_exception(LineTooLong(b"the head", HEADS_LIMIT))
            self.transport.close()

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Take a head that is whole."""
        if data[0].code >= 200:
            self.head = -math.inf
        super().feed_data(data, size)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Learn that there is no more: a body that lasts until the end is whole only if that came in order."""
        if exc is not None:  # RFC 9112, 8
            self._break_body(aiohttp.ClientPayloadError(f"the connection broke: {exc}"))
        super().connection_lost(exc)

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Learn what is wrong. aiohttp would leave whoever reads the body to wait until the time is over."""
        self._break_body(exc)
        super().set_exception(exc, *cause)

    def _break_body(self, error: BaseException) -> None:
        body = self._payload
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(error)

    def close(self) -> None:
        """Let go of the socket now: over TLS a transport would wait half a minute for the other side's farewell."""
        self.abort()


class StagedTLS(ssl.SSLContext):
    """A TLS context that tells the state when the handshake begins."""

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Begin a handshake."""
        _enter(Stage.HANDSHAKING)
        return super().wrap_bio(*args, **kwargs)


class BoundedConnector(aiohttp.TCPConnector):
    """A connector that keeps at most ``max_idle`` idle connections, the latest used."""

    def __init__(self, *, max_idle: int, **options: Any) -> None:
        super().__init__(**options)
        kind: type[ResponseHandler] = StampedProtocol
        self._factory = functools.partial(kind, loop=self._loop)
        self._keep = max_idle * 3 // 4
        self._every = max(1, max_idle // 8)
        self._most = max_idle - self._every
        self._released = 0

    def _create_connection(self, *args: Any) -> Coroutine[Any, Any, ResponseHandler]:
        # Also where aiohttp asks once more, because a connection it had kept was gone.
        state = current.get(None)
        if state is not None:
            state.enter(Stage.CONNECTING)
            transfer = state.transfer
            if transfer is not None and transfer.clock is not None:
                transfer.clock.listen(None)
        return super()._create_connection(*args)

    def _release(self, key: Any, protocol: Any, *, should_close: bool = False) -> None:
        super()._release(key, protocol, should_close=should_close)
        self._released += 1
        if self._released >= self._every:  # counting costs what a request costs: not each time
            self._released = 0
            if sum(map(len, self._conns.values())) > self._most:
                self._drop_oldest()

    def _drop_oldest(self) -> None:
        idle = sorted((since, id(one), one, key) for key, pool in self._conns.items() for one, since in pool)
        for since, _, protocol, key in idle[: -self._keep]:
            pool = self._conns[key]
            pool.remove((protocol, since))
            if not pool:
                del self._conns[key]
            protocol.close()


def open_session(config: Config, pool: Pool, resolver: Resolver) -> aiohttp.ClientSession:
    """Open the session of one pool. Bounds are ours: aiohttp queues, decodes, follows and remembers nothing."""
    connector = BoundedConnector(
        max_idle=max(100, 2 * config.limits.concurrency),
        limit=0,
        use_dns_cache=False,
        resolver=resolver,
        keepalive_timeout=KEEP_ALIVE,
        socket_factory=socket_guard(REACHES[pool], lambda _: _enter(Stage.CONNECTING)) if pool in REACHES else None,
    )
    return aiohttp.ClientSession(
        connector=connector,
        headers={"User-Agent": config.identity.user_agent, "Accept": ACCEPT, "Accept-Encoding": accept_encoding()},
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None, connect=config.timeouts.connect, ceil_threshold=60),
        request_class=StagedRequest,
        max_line_size=HEAD_LIMIT,
        max_field_size=HEAD_LIMIT,
        read_bufsize=UNREAD,
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
