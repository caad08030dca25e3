"""The wire: one request becomes one whole response, by aiohttp, within every bound.

Law 7: the address is judged where the socket is made, on pools kept apart by what they may reach, so that a
pooled connection carries no row past the guard. Law 4: whoever calls holds the slot; nothing here waits for
anything but the exchange itself and its share of memory.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import yarl
from aiohttp.http_exceptions import HttpProcessingError

from fetcher.config import Config
from fetcher.config.options import split_proxy
from fetcher.errors import ConnectError, DNSError, FetchError, InvalidURL, ProtocolError, Skipped
from fetcher.model import REDIRECT_STATUSES, Pairs, Request, Response, Stage
from fetcher.request_state import RequestState, Requeue, current, is_guarded
from fetcher.transport.address import BlockedAddress, blocked_address, classify, literal
from fetcher.transport.body import Bodies, Body, TransferDecoder, note_cut, skim
from fetcher.transport.connector import ConnectionBudget, Pool, StagedResolver, open_session
from fetcher.transport.descriptors import Shortage, descriptors_for_connections, out_of_descriptors, out_of_memory
from fetcher.transport.resolver import Resolver
from fetcher.transport.response_parser import transfer_codings
from fetcher.transport.tls import TLSContexts
from fetcher.transport.translate import translate
from fetcher.transport.watchdog import Watch, Watchdog
from fetcher.urls import parse

if TYPE_CHECKING:
    from fetcher.transport.recording import Cut, HeaderFilter

__all__ = ["Transport"]

NO_OPTIONS: dict[str, Any] = {}  # of aiohttp's, for a plain request without a proxy
NO_BODY = Body(b"", 0, truncated=False)
REMEMBERED = 65_536  # hosts whose pool, and header names whose text, are known


TRANSFER_CODINGS = frozenset({"gzip", "x-gzip", "deflate"})
"""That are undone (RFC 9112, 7.2); nobody was told that they are taken, so they are rare."""


class Transport:
    """``async (request) -> Response`` over aiohttp. Opens nothing until the first request; ``close`` ends all."""

    def __init__(self, config: Config, *, resolver: Resolver | None = None, tls: TLSContexts | None = None) -> None:
        self._config = config
        self._proxied = bool(config.proxy)
        self._resolver = resolver or StagedResolver()
        self._bodies = Bodies(config.limits, keep_body=config.keep_body, keep_messages=config.keep_messages)
        self._watchdog = Watchdog(config.timeouts)
        self._budget = ConnectionBudget(config.limits.concurrency, descriptors_for_connections())
        self._shortage = Shortage()
        self._sessions: dict[Pool, aiohttp.ClientSession] = {}
        self._pools: dict[str, Pool] = {}  # of the rows' own hosts, so far as they were judged
        self._tls = tls or TLSContexts(config.tls)
        self._exchange = self._converse
        self._kept_headers: HeaderFilter | None = None
        if config.keep_messages:
            from fetcher.transport.recording import HeaderFilter  # as below

            self._kept_headers = HeaderFilter(config.identity)
            self._exchange = self._record

    def allow(self, concurrency: int) -> None:
        """Have place for the connections of so many exchanges at once."""
        self._budget.allow(concurrency, descriptors_for_connections())

    async def close(self) -> None:
        """Close every connection, and stop the clocks and the resolver."""
        self._watchdog.close()
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()
        await self._resolver.close()

    async def __call__(self, request: Request) -> Response:
        """Make one exchange. Raises ``FetchError``."""
        state = current.get(None)
        # Of two requests that a middleware makes of one row at once, the state's target is the other's.
        known = state is not None and state.target.wire == request.url
        host = state.target.host if state is not None and known else parse(request.url).host
        pool = (
            self._pools.get(host) if state is None or not (state.redirects or state.request.guarded) else None
        ) or self._judge(host, state, request.url)
        try:
            return await self._exchange(request, state, pool)
        except BlockedAddress as error:
            if pool == "any" or error.kind == "metadata" or not self._may_go_private(state):
                raise Skipped("address_blocked", str(error)) from None
        # A name of the list that is not, or no longer, where it was looked for: its own host may be private.
        pool = "private" if pool == "public" else "public"
        try:
            response = await self._exchange(request, state, pool)
        except BlockedAddress as error:
            raise Skipped("address_blocked", str(error)) from None
        self._remember(host, pool)
        return response

    async def address_of(self, host: str) -> str | None:
        """Return the address that a host key stands for: the first of its name's, ``None`` where it has none."""
        address = literal(host)
        if address is not None or self._proxied:
            return address
        try:
            return str((await self._resolver.resolve(host, 0, socket.AF_UNSPEC))[0]["host"])
        except OSError:
            return None  # the exchange itself will tell

    # Which pool: the address rule

    def _judge(self, host: str, state: RequestState | None, url: str) -> Pool:
        policy = self._config.address.private_network
        if policy == "allow":
            return "any"
        address = literal(host)
        kind = classify(address) if address is not None else None
        open_to_private = self._may_go_private(state)
        if kind == "metadata" or (kind == "private" and not open_to_private):
            why = "" if policy == "deny" or kind == "metadata" else ", and the row came there from a public host"
            raise Skipped("address_blocked", f"{host} is a {kind} address{why} (private-network={policy})")
        if self._proxy(url) is not None:
            return "any"  # the socket goes to the proxy: nothing more can be judged
        pool: Pool = "private" if kind == "private" else "public"
        if open_to_private and (state is None or not state.redirects):
            self._remember(host, pool)
        return pool

    def _remember(self, host: str, pool: Pool) -> None:
        if len(self._pools) >= REMEMBERED:
            self._pools.clear()
        if not self._proxied:
            self._pools[host] = pool

    def _proxy(self, url: str) -> str | None:
        if not self._proxied:
            return None
        target = parse(url)
        return self._config.proxy.before(target.scheme, target.host, target.port)

    def _way(self, url: str) -> dict[str, Any]:
        """Return what aiohttp must know of the way to a URL: the proxy, what that is told, and TLS."""
        proxy = self._proxy(url)
        if proxy is None:
            return {"ssl": self._tls.context_for(url)}
        bare, secret = split_proxy(proxy)
        headers = {"Authorization": secret} if secret is not None else None
        return {"ssl": self._tls.context_for(url), "proxy": bare, "proxy_headers": headers}

    def _may_go_private(self, state: RequestState | None) -> bool:
        """Judge the row: its own host may be private, and so may what a private host leads to."""
        if self._config.address.private_network == "deny":
            return False
        return not is_guarded(state)

    # The exchange

    async def _record(self, request: Request, state: RequestState | None, pool: Pool) -> Response:
        """Make an exchange, and keep its messages where it is for a row's outcome."""
        from fetcher.transport.recording import Recording, cut_by  # for web archives alone

        transfer = state.transfer if state is not None else None
        if self._kept_headers is None or state is None or transfer is None or not _is_of_a_row(state):
            return await self._converse(request, state, pool)
        transfer.recording = recording = Recording(request.url, self._kept_headers)
        cut: Cut | None = None
        try:
            response = await self._converse(request, state, pool)
            cut = "length" if response.truncated else None
        except FetchError as error:
            cut = cut_by(error)
            raise
        except BaseException:
            recording.request = b""  # it was given up, not answered
            raise
        finally:
            transfer.recording = None
            if recording.request:
                message = recording.message(cut)
                state.messages = [*(state.messages or ()), message]
                self._bodies.count(state, len(message.request) + len(message.response) + len(message.body))
        return response

    async def _converse(self, request: Request, state: RequestState | None, pool: Pool) -> Response:
        url = request.url
        stage = Stage.CONNECTING
        transfer = None
        if state is not None:
            state.enter(stage)
            transfer = state.transfer
        try:
            with Watch(self._watchdog, state) as watch:
                if transfer is not None:
                    transfer.begin(watch)
                try:
                    answer, body = await self._talk(request, state, pool, watch)
                    again = answer.status == 408 and transfer is not None and watch.reused
                except (aiohttp.ClientError, OSError):
                    again = transfer is not None and watch.reused and watch.unheard
                    if not again:
                        raise
                if again and transfer is not None:  # the fault of a kept connection, and not the row's
                    transfer.begin(watch)
                    transfer.repeated = True
                    answer, body = await self._talk(request, state, pool, watch)
        except (aiohttp.ClientError, HttpProcessingError, OSError, MemoryError) as error:
            if state is not None:
                stage = state.stage
            raise self._explain(error, stage, request.url, state) from error
        finally:
            if transfer is not None:
                transfer.clock = None
        if self._shortage.since is not None:
            self._shortage.over()
        return Response(
            request, url, answer.status, _pairs(answer), body.data, body.wire_bytes, truncated=body.truncated
        )

    async def _talk(
        self, request: Request, state: RequestState | None, pool: Pool, watch: Watch
    ) -> tuple[aiohttp.ClientResponse, Body]:
        url = request.url
        session = self._sessions.get(pool) or self._open(pool)
        answer = await session.request(
            request.method,
            _wire(url),
            headers=request.headers or None,
            allow_redirects=False,
            **(self._way(url) if self._proxied or url.startswith("https:") else NO_OPTIONS),
        )
        try:
            if state is not None:
                if state.transfer is not None:
                    state.transfer.status = answer.status
                    if state.transfer.recording is not None:
                        state.transfer.recording.answered()
                state.reach(pool if pool != "any" else self._behind_proxy(state))
                state.enter(Stage.READING)
            coded = ""
            if answer.status == 101 or "Transfer-Encoding" in answer.headers:
                coded = _check_head(answer, request.method)
            keeper = state if self._bodies.keeps and state is not None and _is_of_a_row(state) else None
            if keeper is not None:
                await self._bodies.admit(answer, keeper, watch)
            if self._config.head and (state is None or _is_of_a_row(state)):
                await skim(answer, state)
                body = NO_BODY
                if state is not None and state.transfer is not None:
                    state.transfer.received = 0
            elif answer.status >= 300 and not self._is_wanted(answer):
                body = await skim(answer, state)
                if coded and state is not None and state.transfer is not None:
                    note_cut(state.transfer.recording, "unspecified")  # an archive has what is inside that coding
            else:
                if coded:
                    answer.content = TransferDecoder(answer.content, coded, self._config.limits.max_size)  # type: ignore[assignment]  # it is read in one way
                body = await self._bodies.read(answer, state, watch)
                if keeper is not None and self._kept_headers is None:
                    self._bodies.count(keeper, len(body.data))
        except BaseException:
            answer.close()
            raise
        answer.release()
        return answer, body

    def _is_wanted(self, answer: aiohttp.ClientResponse) -> bool:
        """Whether somebody will look at the body of an answer that is no success."""
        if answer.status in REDIRECT_STATUSES and self._config.limits.max_redirects and answer.headers.get("Location"):
            return False
        return answer.status in self._config.accept

    def _explain(self, error: BaseException, stage: Stage, url: str, state: RequestState | None) -> BaseException:
        blocked = blocked_address(error)
        if blocked is not None:
            return blocked
        inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
        if out_of_descriptors(inner) or out_of_memory(inner):  # our own limit: no fault of the row's
            return self._wait_for_system(inner, state)
        self._shortage.over()
        throttled = isinstance(error, aiohttp.ClientHttpProxyError) and error.status == 429
        if throttled and state is not None and state.can_requeue and state.count_return():  # by the proxy, not the host
            return Requeue(time.monotonic() + self._proxy_pause(error))
        found = translate(error, stage.value)
        if isinstance(found, DNSError) and self._proxy(url) is not None:  # the host's name is the proxy's business
            return ConnectError("connect_refused", f"the proxy: {found.message}")
        return found

    def _wait_for_system(self, error: BaseException, state: RequestState | None) -> BaseException:
        """Make room, and have the row come back. Raises ``ResourceError`` where that has not helped for long."""
        what = "file descriptor" if out_of_descriptors(error) else "memory"
        self._budget.drop_oldest(self._config.limits.concurrency)
        now = time.monotonic()
        pause = self._shortage.pause(what, now)
        if state is not None and state.can_requeue:
            return Requeue(now + pause)
        return ConnectError("connect_refused", f"no {what} left: lower concurrency, or raise the limit (ulimit)")

    def _proxy_pause(self, error: Any) -> float:
        """Return the seconds a proxy asks us to wait that has answered 429."""
        wish = (error.headers or {}).get("Retry-After", "").strip()
        retry = self._config.retry
        return min(float(wish) if wish.isascii() and wish.isdigit() else retry.max_backoff, retry.max_retry_after)

    @staticmethod
    def _behind_proxy(state: RequestState) -> str:
        """Say what the row has reached unguarded: through a proxy a name may be anything, so it counts as public."""
        address = literal(state.target.host)
        return classify(address) if address is not None else "public"

    def _open(self, pool: Pool) -> aiohttp.ClientSession:
        session = self._sessions[pool] = open_session(self._config, pool, self._resolver, self._budget)
        return session


def _is_of_a_row(state: RequestState) -> bool:
    """Whether the exchange is for a row's outcome: a robots.txt is not, and wants only the first bytes."""
    return state.transfer is not None and state.transfer.max_bytes is None


def _wire(url: str) -> yarl.URL:
    """Make the URL aiohttp takes without touching a byte; yarl would drop an empty query's ``?``."""
    try:
        wire = yarl.URL(url, encoded=True)
        if url[-1] != "?" or wire.raw_query_string:
            return wire
        path = f"{wire.raw_path}?"
        return yarl.URL.build(
            scheme=wire.scheme, host=wire.raw_host or "", port=wire.explicit_port, path=path, encoded=True
        )
    except ValueError as error:
        raise InvalidURL(message=str(error)) from None


def _check_head(answer: aiohttp.ClientResponse, method: str) -> str:
    """Refuse what aiohttp lets pass: 101 to a plain request, and transfer codings that are no framing.

    Returned are those to be undone, where the body lasts until the end of its connection (RFC 9112, 6.3, item 4).
    """
    if answer.status == 101:
        raise ProtocolError("malformed_response", f"101 Switching Protocols to a plain {method}")
    codings = transfer_codings(answer.headers.getall("Transfer-Encoding", []))
    if not codings or answer.status in (204, 304) or method == "HEAD":  # no body follows (RFC 9112, 6.3)
        return ""
    if answer.version is not None and answer.version < aiohttp.HttpVersion11:
        raise ProtocolError("malformed_response", "a Transfer-Encoding in HTTP/1.0")
    if "chunked" not in codings and "Content-Length" not in answer.headers:
        if unknown := [coding for coding in codings if coding not in TRANSFER_CODINGS]:
            raise ProtocolError("bad_encoding", f"the transfer coding {unknown[0][:40]!r} is not undone")
        return ", ".join(codings)
    if codings[-1] != "chunked" or codings.count("chunked") > 1:
        raise ProtocolError("malformed_response", "the Transfer-Encoding does not end in one chunked")
    if codings != ["chunked"]:
        raise ProtocolError("bad_encoding", f"the transfer coding {codings[0][:40]!r} is not undone")
    return ""


class _LowerNames(dict[bytes, str]):
    """The names of headers in lower case, at most ``REMEMBERED`` of them: to make one takes longer than to find it."""

    def __missing__(self, raw: bytes) -> str:
        name = raw.decode("latin-1").lower()
        if len(self) < REMEMBERED:
            self[raw] = name
        return name


_names = _LowerNames()


def _pairs(answer: Any) -> Pairs:
    """Return the headers as they came, names in lower case."""
    pairs = []
    names = _names
    for raw, value in answer.raw_headers:
        pairs.append((names[raw], value.decode("utf-8", "surrogateescape")))
    return tuple(pairs)
