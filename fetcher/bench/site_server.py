"""Serves the built-in site with ``aiohttp.web``: the sockets, the queue for a barista, the brewing, the log.

Laws: it listens on loopback addresses and nowhere else; a line is in the log before its answer is on the
wire, so whoever has read an answer finds it there; a request its client has left is no longer in flight. A
``bench-round`` header names the round a request belongs to: each round meets the site as it was at first.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator

import msgspec
from aiohttp import web

from fetcher.bench.blueprint import Site, addresses
from fetcher.bench.scenarios import ROUND
from fetcher.bench.site_answers import Answers

__all__ = ["Visit", "listen", "open_site", "serve_site"]

_ATTEMPTS = 50
_BACKLOG = 4096


class Visit(msgspec.Struct):
    """A line of the log: a request as the site saw it.

    ``start`` and ``end`` are the monotonic clock's seconds at its arrival and its answer; ``queued`` of them
    went by before a barista was free, ``service`` after; ``brewing`` is what was drawn for the page.
    ``in_flight`` counts the requests at arrival with this one, on all hosts, ``host_in_flight`` on this host.
    ``path`` has the query, ``headers`` have lower-case names. ``status`` is ``None`` when the client left, or
    was cut off.
    """

    start: float
    end: float
    host: str
    port: int
    method: str
    path: str
    status: int | None
    in_flight: int
    host_in_flight: int
    queued: float
    service: float
    brewing: float
    headers: dict[str, str]


class House:
    """What the hosts share: how many requests are being served, and the log."""

    def __init__(self, log: str | None) -> None:
        self.in_flight = 0
        # The lines hold credentials: nobody else's eyes.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        self._log = None if log is None else os.open(log, flags, 0o600)

    def note(self, visit: Visit) -> None:
        """Write a line of the log at once, while it is open."""
        if self._log is not None:
            os.write(self._log, msgspec.json.encode(visit) + b"\n")

    def close(self) -> None:
        """Close the log; requests still being cancelled then go unnoted."""
        log, self._log = self._log, None
        if log is not None:
            os.close(log)


class Bar:
    """One host: its address and port, its answers and its baristas."""

    def __init__(self, house: House, at: tuple[str, int], answers: Answers, baristas: int | None) -> None:
        self._house = house
        self._host, self._port = at
        self._answers = answers
        self._in_flight = 0
        self._baristas = contextlib.nullcontext() if baristas is None else asyncio.Semaphore(baristas)

    async def serve(self, request: web.BaseRequest) -> web.Response:
        """Serve one request: queue for a barista, brew, answer, and log what happened."""
        start, begun, brewing = time.monotonic(), None, 0.0
        status: int | None = None
        self._in_flight += 1
        self._house.in_flight += 1
        in_flight, host_in_flight = self._house.in_flight, self._in_flight
        try:
            async with self._baristas:
                begun = time.monotonic()
                answer = self._answers.choose(request.raw_path, request.headers.get(ROUND, ""), begun)
                brewing = answer.seconds
                if brewing:
                    await asyncio.sleep(brewing)
                if answer.reset:
                    await _cut(request)
            headers, body = answer.for_client(request.headers.get("Accept-Encoding", ""))
            status = answer.status
            return web.Response(status=status, headers=headers, body=body)
        finally:
            self._in_flight -= 1
            self._house.in_flight -= 1
            end = time.monotonic()
            begun = end if begun is None else begun
            visit = Visit(
                start=start,
                end=end,
                host=self._host,
                port=self._port,
                method=request.method,
                path=request.raw_path,
                status=status,
                in_flight=in_flight,
                host_in_flight=host_in_flight,
                queued=begun - start,
                service=end - begun,
                brewing=brewing,
                headers={name.lower(): value for name, value in request.headers.items()},
            )
            self._house.note(visit)


async def serve_site(site: Site, ready: Callable[[int], None]) -> None:
    """Serve the site until cancelled or, in the main thread, until SIGTERM; ``ready`` is told the port."""
    stop = asyncio.Event()
    with _on_sigterm(stop.set):
        async with open_site(site) as port:
            ready(port)
            await stop.wait()


@contextlib.asynccontextmanager
async def open_site(site: Site) -> AsyncIterator[int]:
    """Serve the site in the running loop while the block lasts; gives the (first) port. Raises ``OSError``."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as opened:
        house = opened.enter_context(contextlib.closing(House(site.log)))
        sockets = [opened.enter_context(listener) for listener in listen(site.hosts, site.port)]
        where: list[tuple[str, int]] = [listener.getsockname() for listener in sockets]
        neighbours = [*where[1:], where[0]]
        bars = [
            Bar(house, at, Answers(site, neighbour, number), site.baristas)
            for number, (at, neighbour) in enumerate(zip(where, neighbours, strict=True))
        ]
        servers = [web.Server(bar.serve, access_log=None, handler_cancellation=True) for bar in bars]
        doors: list[asyncio.Server] = []
        try:
            for server, listener in zip(servers, sockets, strict=True):
                doors.append(await loop.create_server(server, sock=listener, backlog=_BACKLOG))
            yield where[0][1]
        finally:
            for door in doors:
                door.close()
            await asyncio.gather(*(server.shutdown(timeout=0.05) for server in servers))


async def _cut(request: web.BaseRequest) -> None:
    """Reset the connection, and wait until our own handler is told so by its cancellation."""
    if request.transport is not None:
        # Closing with a linger of no time is what makes a reset of it (Linux and POSIX: socket(7)).
        request.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
        )
        request.transport.abort()
    await asyncio.Event().wait()


def listen(hosts: int, port: int, *, many: bool | None = None) -> list[socket.socket]:
    """Bind a socket for each host (see ``addresses``); with ``port`` 0, look for one that is free on all.

    Raises ``OSError`` where a port is taken.
    """
    for left in reversed(range(1 if port else _ATTEMPTS)):
        with contextlib.ExitStack() as opened:
            try:
                first = opened.enter_context(_bind("127.0.0.1", port))
                chosen = first.getsockname()[1]
                rest = [opened.enter_context(_bind(*at)) for at in addresses(hosts, chosen, many=many)[1:]]
            except OSError:
                if not left:
                    raise
                continue
            opened.pop_all()
            return [first, *rest]
    raise AssertionError("the last attempt returns or raises")


def _bind(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere it would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OverflowError:
        listener.close()
        raise OSError(f"there is no port {port}") from None
    except BaseException:
        listener.close()
        raise
    return listener


@contextlib.contextmanager
def _on_sigterm(act: Callable[[], None]) -> Iterator[None]:
    """Call ``act`` on SIGTERM where a loop can be told so: in the main thread, on POSIX."""
    if threading.current_thread() is not threading.main_thread() or os.name != "posix":
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, act)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
