"""aiohttp's session as we use it: our resolver, guard and stages around it, and an idle pool that is bounded.

Law 3: 2,500 idle TLS connections would hold 600 MB. Law 7: which addresses a pool may reach is judged where
its sockets are made.
"""

from __future__ import annotations

import asyncio
import functools
import math
import re
import ssl
from collections.abc import Coroutine
from time import monotonic
from typing import Any, Literal, TypeAlias

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD

from fetcher.config import Config
from fetcher.model import Stage
from fetcher.request_state import current, enter
from fetcher.transport.address import AddressClass, socket_guard
from fetcher.transport.codings import accept_encoding
from fetcher.transport.resolver import Resolver
from fetcher.transport.response_parser import ResponseParser

__all__ = ["ConnectionBudget", "Pool", "StagedResolver", "open_session"]

ACCEPT = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
HEAD_LIMIT = 65_536  # bytes of one header line
HEADS_LIMIT = 262_144  # bytes of a whole head, and of the interim ones before it
UNREAD = 65_536  # bytes of a body that may wait to be read, twice over
KEEP_ALIVE = 15.0  # seconds an idle connection is kept, or less where its server says so

_TIMEOUT = re.compile(r"(?i)\btimeout\s*=\s*\"?([0-9]{1,9})")

Pool: TypeAlias = Literal["public", "private", "any"]
REACHES: dict[Pool, frozenset[AddressClass]] = {"public": frozenset({"public"}), "private": frozenset({"private"})}


class StagedResolver(Resolver):
    """The resolver, telling the state that it is at work."""

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[Any]:
        """Look a name up."""
        enter(Stage.RESOLVING)
        places = await super().resolve(host, port, family)
        enter(Stage.CONNECTING)  # not where it failed: then time ran out, or the name is none
        return places


class StagedRequest(aiohttp.ClientRequest):
    """aiohttp's request, telling the state when there is a connection and the waiting begins."""

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        """Send the head of the request, unless the connection says something before it was asked."""
        protocol = conn.protocol
        state = current.get(None)
        transfer = state.transfer if state is not None else None
        protocol.head = 0.0
        protocol.reused = protocol.answers > 0
        if (
            protocol.should_close or protocol.parser is None
        ):  # aiohttp would take that for the answer, and then each row's for the next's
            if transfer is not None and transfer.clock is not None:
                transfer.clock.listen(protocol)
            raise aiohttp.ServerDisconnectedError("bytes came on an idle connection")
        protocol.parser.lenient = True
        if state is not None:
            if transfer is not None and transfer.send_gate is not None:
                while (wait := transfer.send_gate(state)) > 0:  # noqa: ASYNC110 – its host says for how long
                    await asyncio.sleep(wait)
            state.enter(Stage.WAITING)
            if transfer is not None and transfer.clock is not None:
                transfer.clock.listen(protocol)
            if transfer is not None and transfer.recording is not None:
                transfer.recording.send(self, conn)
        return await super().send(conn)


class StampedProtocol(ResponseHandler):
    """aiohttp's connection, noting when bytes came: a head that comes drop by drop is no silence.

    ``answers`` counts the final answers it has given; by ``reused`` there was one before the present request. It is
    ``busy`` from the request to the end of its answer.
    """

    heard = 0.0  # monotonic seconds
    head = 0.0  # bytes of it so far; less than any number once it is there
    answers = 0
    reused = False
    busy = False
    idle = KEEP_ALIVE  # seconds it is kept without a request
    parser: ResponseParser | None = None
    _options: dict[str, Any]

    def set_response_params(self, **options: Any) -> None:
        """Make ready for the next answer."""
        self._options = options
        super().set_response_params(**options)
        if self.parser is None:
            self.parser = ResponseParser(self._new_parser, self.force_close)
        self.parser.begin(self._parser)
        self._parser = self.parser  # type: ignore[assignment]  # it has the methods that count
        self.busy = True

    def _new_parser(self) -> Any:
        """Return one more parser of aiohttp's: of an answer that has to be mended."""
        super().set_response_params(**self._options)
        made, self._parser = self._parser, self.parser  # type: ignore[assignment]  # as above
        return made

    def data_received(self, data: bytes) -> None:
        """Take what came. Law 3: aiohttp bounds the lines of a head and their number, not what they make together."""
        if data:
            if not self.busy and self._parser is not None:  # a farewell, or an answer to nobody
                self.abort()
                return
            self.heard = monotonic()
            self.head += len(data)
        super().data_received(data)
        if self.head <= 0:
            return
        if self.parser is not None and (message := self.parser.final) is not None:  # its head is whole
            self.head = -math.inf
            self.answers += 1
            said = message.headers.get("Keep-Alive")
            if said is not None:
                timeout = _TIMEOUT.search(said)
                if timeout is not None:  # the server counts from when it sent its answer
                    self.idle = min(KEEP_ALIVE, int(timeout[1]) - 1)
        elif self.head > HEADS_LIMIT and self.transport is not None:
            self.set_exception(LineTooLong(b"the head", HEADS_LIMIT))
            self.transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Learn that there is no more: a body that lasts until the end is whole only if that came in order."""
        if exc is not None:  # RFC 9112, 8
            self._break_body(aiohttp.ClientPayloadError(f"the connection broke: {exc}"))
        elif self.head > 0 and self.parser is not None and self._ended_in_order():
            message = self.parser.cut_redirect()
            if message is not None:
                self.force_close()
                self.feed_data((message, EMPTY_PAYLOAD), 0)
        super().connection_lost(exc)
        self.parser = None  # it refers to us

    def _ended_in_order(self) -> bool:
        """Whether the other side has said that there is no more: over TLS anybody can send a FIN."""
        tls = self.transport.get_extra_info("ssl_object") if self.transport is not None else None
        if tls is None:
            return True
        try:
            tls.read(1)
        except ssl.SSLZeroReturnError:  # there was a close_notify
            return True
        except (OSError, ValueError):
            return False
        return False

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Learn what is wrong. aiohttp would leave whoever reads the body to wait until the time is over."""
        self._break_body(exc)
        super().set_exception(exc, *cause)

    def _break_body(self, error: BaseException) -> None:
        body = self._payload
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(error)
            body.feed_eof()  # whoever was woken by the chunk before would wait once more

    def close(self) -> None:
        """Let go of the socket now: over TLS a transport would wait half a minute for the other side's farewell.

        One that has nothing to wait for is closed: an aborted one refers to itself from Python 3.12 on.
        """
        transport = self.transport
        if transport is not None and (transport.get_extra_info("ssl_object") or transport.get_write_buffer_size()):
            self.abort()
        else:
            super().close()


class ConnectionBudget:
    """What all pools of a transport may have open together: ``most`` at work and idle, ``max_idle`` of them idle."""

    def __init__(self, concurrency: int, descriptors: int | None) -> None:
        self._connectors: list[BoundedConnector] = []
        self.changes = 0  # connections that are new, or idle now, since they were counted
        self.allow(concurrency, descriptors)

    def allow(self, concurrency: int, descriptors: int | None) -> None:
        """Have place for so many exchanges at once, and their idle connections."""
        self.max_idle = max(100, 2 * concurrency)
        self.most = descriptors if descriptors is not None else concurrency + 2 * self.max_idle
        self.every = max(1, min(self.max_idle // 8, self.most // 16))

    def join(self, connector: BoundedConnector) -> None:
        """Count the connections of one more pool."""
        self._connectors.append(connector)

    def check(self) -> None:
        """Count, and close the idle connections that are too many.

        To count them costs what a request costs: it is not done with each change, but with ``every`` so many.
        """
        self.changes = 0
        idle = sum(connector.idle for connector in self._connectors)
        at_work = sum(connector.at_work for connector in self._connectors)
        over = max(idle - (self.max_idle - self.every), idle + at_work - (self.most - 2 * self.every))
        if over > 0:
            self.drop_oldest(max(over, idle // 4))

    def drop_oldest(self, number: int) -> None:
        """Close so many idle connections, those first that were used longest ago, or all."""
        idle = [place for connector in self._connectors for place in connector.idle_places()]
        idle.sort(key=lambda place: place[0])
        for _, connector, key, kept in idle[:number]:
            connector.drop(key, kept)


class BoundedConnector(aiohttp.TCPConnector):
    """A connector whose connections count for a ``budget``."""

    def __init__(self, *, budget: ConnectionBudget, **options: Any) -> None:
        super().__init__(**options)
        kind: type[ResponseHandler] = StampedProtocol
        self._factory = functools.partial(kind, loop=self._loop)
        self._budget = budget
        budget.join(self)

    @property
    def idle(self) -> int:
        """How many connections wait for a request."""
        return sum(map(len, self._conns.values()))

    @property
    def at_work(self) -> int:
        """How many are open, or being opened, for one."""
        return len(self._acquired)

    def idle_places(self) -> list[tuple[float, BoundedConnector, Any, Any]]:
        """Return since when each idle connection waits, this connector, and its place in the pool."""
        return [(kept[1], self, key, kept) for key, pool in self._conns.items() for kept in pool]

    def drop(self, key: Any, kept: Any) -> None:
        """Close an idle connection."""
        pool = self._conns[key]
        pool.remove(kept)
        if not pool:
            del self._conns[key]
        kept[0].close()

    def _create_connection(self, *args: Any) -> Coroutine[Any, Any, ResponseHandler]:
        budget = self._budget
        budget.changes += 1
        if budget.changes >= budget.every:
            budget.check()
        # Also where aiohttp asks once more, because a connection it had kept was gone.
        state = current.get(None)
        if state is not None:
            state.enter(Stage.CONNECTING)
            transfer = state.transfer
            if transfer is not None and transfer.clock is not None:
                transfer.clock.listen(None)
        return super()._create_connection(*args)

    def _get(self, key: Any, traces: Any) -> Any:
        """Find a connection that is kept; none for a request that asks for a new one."""
        state = current.get(None)
        if state is not None and state.transfer is not None and state.transfer.repeated:
            return _none()
        return super()._get(key, traces)

    def _release(self, key: Any, protocol: Any, *, should_close: bool = False) -> None:
        protocol.busy = False
        idle = protocol.idle
        super()._release(key, protocol, should_close=should_close or idle <= 0)
        if idle < KEEP_ALIVE and (pool := self._conns.get(key)) and pool[-1][0] is protocol:
            pool[-1] = protocol, pool[-1][1] - (KEEP_ALIVE - idle)  # as though it had been idle for so long already
        budget = self._budget
        budget.changes += 1
        if budget.changes >= budget.every:
            budget.check()


async def _none() -> None:
    return None


def open_session(config: Config, pool: Pool, resolver: Resolver, budget: ConnectionBudget) -> aiohttp.ClientSession:
    """Open the session of one pool. Bounds are ours: aiohttp queues, decodes, follows and remembers nothing."""
    connector = BoundedConnector(
        budget=budget,
        limit=0,
        use_dns_cache=False,
        resolver=resolver,
        keepalive_timeout=KEEP_ALIVE,
        socket_factory=socket_guard(REACHES[pool], lambda _: enter(Stage.CONNECTING)) if pool in REACHES else None,
    )
    session = aiohttp.ClientSession(
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
    session._retry_connection = False  # noqa: SLF001  (a test holds it) on another kept connection, which may be as dead
    return session
