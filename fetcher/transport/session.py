"""The wire: one request becomes one whole response, by aiohttp, within every bound.

Law 7: the address is judged where the socket is made, on pools kept apart by what they may reach, so that a
pooled connection carries no row past the guard. Law 4: whoever calls holds the slot; nothing here waits for
anything but the exchange itself and its share of memory.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Literal

import aiohttp
import yarl

from fetcher.config import Config
from fetcher.errors import ConfigError, ConnectError, InvalidURL, ProtocolError, Skipped
from fetcher.flight import Flight, Later, current
from fetcher.model import Pairs, Request, Response
from fetcher.transport.address import AddressClass, BlockedAddress, blocked_address, classify, literal, socket_guard
from fetcher.transport.body import Bodies
from fetcher.transport.decoding import accept_encoding
from fetcher.transport.resolver import Resolver
from fetcher.transport.translate import out_of_descriptors, translate
from fetcher.urls import parse

__all__ = ["Transport"]

ACCEPT = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
HEAD_LIMIT = 65_536  # bytes of one header line
KEEP_ALIVE = 15.0  # seconds an idle connection is kept
REDIRECTS = frozenset({301, 302, 303, 307, 308})
HINTS = 65_536  # names remembered to be private

Pool = Literal["public", "private", "any"]
REACHES: dict[Pool, frozenset[AddressClass]] = {
    "public": frozenset({"public"}),
    "private": frozenset({"private"}),
    "any": frozenset({"public", "private", "metadata"}),
}


def _enter(stage: str) -> None:
    flight = current.get(None)
    if flight is not None:
        flight.enter(stage)


class _StagedResolver(Resolver):
    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[Any]:
        _enter("resolving")
        try:
            return await super().resolve(host, port, family)
        finally:
            _enter("connecting")


class _StagedRequest(aiohttp.ClientRequest):
    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        _enter("waiting")
        return await super().send(conn)


class _StagedTLS(ssl.SSLContext):
    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        _enter("handshaking")
        return super().wrap_bio(*args, **kwargs)


class _Connector(aiohttp.TCPConnector):
    """A connector whose idle pool is bounded: 2,500 idle TLS connections would hold 600 MB."""

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


class Transport:
    """``async (request) -> Response`` over aiohttp. Opens nothing until the first request; ``close`` ends all."""

    def __init__(self, config: Config, *, resolver: Resolver | None = None) -> None:
        self._config = config
        self._resolver = resolver or _StagedResolver()
        self._bodies = Bodies(config.limits)
        self._sessions: dict[Pool, aiohttp.ClientSession] = {}
        self._private_names: dict[str, None] = {}
        self._tls: ssl.SSLContext | None = None
        self._timeout = aiohttp.ClientTimeout(
            total=None, connect=config.timeouts.connect, sock_read=config.timeouts.read, ceil_threshold=60
        )
        if config.tls.ca_bundle:
            self._tls_context()  # a bundle that cannot be read is found before the first request

    async def close(self) -> None:
        """Close every connection and stop the resolver."""
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()
        await self._resolver.close()

    async def __call__(self, request: Request) -> Response:
        """Make one exchange. Raises ``FetchError``."""
        flight = current.get(None)
        pool = self._pool(flight, request.url)
        try:
            return await self._exchange(request, flight, pool)
        except BlockedAddress as error:
            if pool != "public" or not self._may_go_private(flight):
                raise Skipped("address_blocked", str(error)) from None
            host = _host_of(request.url)
            if len(self._private_names) >= HINTS:
                self._private_names.clear()
            self._private_names[host] = None
        try:
            return await self._exchange(request, flight, "private")
        except BlockedAddress as error:
            raise Skipped("address_blocked", str(error)) from None

    # Which pool: the address rule

    def _pool(self, flight: Flight | None, url: str) -> Pool:
        policy = self._config.address.private_network
        if policy == "allow":
            return "any"
        host = _host_of(url)
        address = literal(host)
        kind = classify(address) if address is not None else None
        open_to_private = self._may_go_private(flight)
        if kind == "metadata" or (kind == "private" and not open_to_private):
            raise Skipped(
                "address_blocked",
                f"{host} is a {kind} address"
                + ("" if policy == "deny" or kind == "metadata" else " reached from a public host"),
            )
        if self._proxy(url) is not None:
            return "any"  # the socket goes to the proxy: nothing more can be judged
        if kind is not None:
            return "public" if kind == "public" else "private"
        return "private" if open_to_private and host in self._private_names else "public"

    def _proxy(self, url: str) -> str | None:
        if not self._config.proxy:
            return None
        target = parse(url)
        return self._config.proxy.before(target.scheme, target.host, target.port)

    def _may_go_private(self, flight: Flight | None) -> bool:
        """Judge the row: its own host may be private, and a hop from a private host may."""
        if self._config.address.private_network == "deny":
            return False
        return flight is None or not flight.redirects or flight.connection == "private"

    # The exchange

    async def _exchange(self, request: Request, flight: Flight | None, pool: Pool) -> Response:
        session = self._sessions.get(pool) or self._open(pool)
        url = request.url
        if flight is not None:
            flight.enter("connecting")
            flight.status = flight.length = None
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._config.timeouts.total) as deadline:
                async with session.get(
                    _wire(url),
                    headers=request.headers or None,
                    allow_redirects=False,
                    ssl=self._tls_context() if url.startswith("https:") else True,
                    proxy=self._proxy(url),
                ) as answer:
                    status = answer.status
                    if flight is not None:
                        flight.status = status
                        flight.connection = self._reached(pool, flight)
                        flight.enter("reading")
                    _check_head(answer)
                    skim = status in REDIRECTS and "Location" in answer.headers
                    body = await self._bodies.read(answer, flight, deadline, skim=skim)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            blocked = blocked_address(error)
            if blocked is not None:
                raise blocked from None
            if _no_descriptor(error):
                if flight is not None and flight.deferrable:
                    raise Later(loop.time() + 0.5) from None
                raise ConnectError(
                    "connect_refused", "no file descriptor left: lower --concurrency or raise ulimit -n"
                ) from None
            raise translate(error, flight.stage if flight is not None else "waiting") from error
        return Response(
            request,
            url,
            status,
            _pairs(answer.raw_headers),
            body.data,
            body.wire_bytes,
            elapsed=flight.elapsed if flight is not None else 0.0,
            attempts=flight.attempts + 1 if flight is not None else 1,
            truncated=body.truncated,
        )

    @staticmethod
    def _reached(pool: Pool, flight: Flight) -> str:
        """Say what the row has reached: through a proxy a name may be anything, so it counts as public."""
        if pool != "any":
            return pool
        address = literal(flight.target.host)
        return classify(address) if address is not None else "public"

    def _open(self, pool: Pool) -> aiohttp.ClientSession:
        config = self._config
        guard = None
        if pool != "any":
            guard = socket_guard(REACHES[pool], lambda _: _enter("connecting"))
        connector = _Connector(
            limit=0,
            use_dns_cache=False,
            resolver=self._resolver,
            keepalive_timeout=KEEP_ALIVE,
            socket_factory=guard,
        )
        connector.max_idle = max(100, 2 * config.limits.concurrency)
        session = aiohttp.ClientSession(
            connector=connector,
            headers={"User-Agent": config.identity.user_agent, "Accept": ACCEPT, "Accept-Encoding": accept_encoding()},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=self._timeout,
            request_class=_StagedRequest,
            max_line_size=HEAD_LIMIT,
            max_field_size=HEAD_LIMIT,
            connector_owner=True,
            trust_env=False,
        )
        self._sessions[pool] = session
        return session

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            context = _StagedTLS(ssl.PROTOCOL_TLS_CLIENT)
            policy = self._config.tls
            if not policy.verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            elif policy.ca_bundle:
                try:
                    context.load_verify_locations(policy.ca_bundle)
                except (OSError, ssl.SSLError) as error:
                    raise ConfigError(f"ca-bundle: cannot read {policy.ca_bundle}: {error}") from None
            else:
                context.load_default_certs()
            context.set_alpn_protocols(["http/1.1"])
            self._tls = context
        return self._tls


def _host_of(url: str) -> str:
    """Take the host key out of a wire URL, which always serialises as scheme, host, port, path."""
    authority = url[url.index("://") + 3 :].partition("/")[0]
    return (
        authority.rpartition(":")[0]
        if authority[-1:].isdigit() and ":" in authority and not authority.endswith("]")
        else authority
    ).rstrip(".")


def _wire(url: str) -> yarl.URL:
    """Make the URL aiohttp takes without touching a byte; yarl would drop an empty query's ``?``."""
    try:
        if url[-1] != "?":
            return yarl.URL(url, encoded=True)
        base = yarl.URL(url, encoded=True)
        return yarl.URL.build(
            scheme=base.scheme,
            host=base.raw_host or "",
            port=base.explicit_port,
            path=base.raw_path + "?",
            encoded=True,
        )
    except ValueError as error:
        raise InvalidURL(message=str(error)) from None


def _check_head(answer: aiohttp.ClientResponse) -> None:
    """Refuse what aiohttp lets pass: 101 to a plain GET, and a body whose length nobody can know."""
    if answer.status == 101:
        raise ProtocolError("malformed_response", "101 Switching Protocols to a plain GET")
    coding = answer.headers.get("Transfer-Encoding")
    if coding is not None and coding.lower().rpartition(",")[2].strip() != "chunked":
        raise ProtocolError("malformed_response", "the last Transfer-Encoding is not chunked")


def _no_descriptor(error: BaseException) -> bool:
    return out_of_descriptors(error) or (
        isinstance(error, aiohttp.ClientConnectorError) and out_of_descriptors(error.os_error)
    )


def _pairs(raw: Any) -> Pairs:
    return tuple([(name.decode("latin-1").lower(), value.decode("utf-8", "surrogateescape")) for name, value in raw])
