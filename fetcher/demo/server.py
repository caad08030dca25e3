"""The server of the built-in site, on ``aiohttp.web``: ready-made responses, the sockets, the access log.

Laws: it listens on loopback addresses and nowhere else. A line is in the log before its response is on the wire, so
whoever has read a response finds it there. A request whose client has left is no longer in flight. The header
``bench-round`` names the round a request belongs to: each round finds the site in its first state.

As a program (``python -m fetcher.demo.server SETTINGS``) it prints one line, ``ready PORT``, and ends with its standard
input, and so with the process that started it, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gzip
import os
import shutil
import signal
import socket
import struct
import sys
import threading
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from types import MappingProxyType

import msgspec
from aiohttp import web

from fetcher.demo.scenarios import RETRY_AFTER_SECONDS, ROUND_HEADER, HostFaults, latency_factor
from fetcher.demo.shop import notice_page, shop_pages
from fetcher.demo.site import BUSY, GONE, MOVED, PARTNER, Site, addresses, latency_of, page_at, redirect_of
from fetcher.spawn import when_owner_ends

__all__ = [
    "AccessLogEntry",
    "HostResponses",
    "PreparedResponse",
    "accepted_codings",
    "listen",
    "open_site",
    "serve",
]

BIND_ATTEMPTS = 50
BACKLOG_CONNECTIONS = 4_096
SHUTDOWN_TIMEOUT_SECONDS = 0.05

_ERROR_PAGE = notice_page("Spilled", "Somebody is fetching a cloth. Please ask again.")


# The responses: rendered, encoded and compressed before the first request


class PreparedResponse(msgspec.Struct, frozen=True):
    """A response made in advance: the body as it is and, where there is one, in a content coding.

    ``latency`` is in seconds. Of a ``reset`` nothing is sent: the connection is reset after that time.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    latency: float
    coding: str | None = None
    encoded: bytes = b""
    reset: bool = False

    def for_client(self, accept_encoding: str) -> tuple[Mapping[str, str], bytes]:
        """Return headers and body for a client with this Accept-Encoding."""
        if self.coding is None or self.coding not in accepted_codings(accept_encoding):
            return self.headers, self.body
        return {**self.headers, "Content-Encoding": self.coding}, self.encoded


class HostResponses:
    """Every response of the host ``number``; ``next_host`` is the address and port its ``PARTNER`` redirects to."""

    def __init__(self, site: Site, next_host: tuple[str, int], number: int = 0) -> None:
        self._site = site
        self._latency_factor = latency_factor(site.scenario, number)
        self._faults = HostFaults(site.scenario, site.seed, number)
        self._shared = _shared_responses(site)
        redirects = {path: _redirect(site, path, next_host) for path in (MOVED, PARTNER)}
        self._redirects = {path: response for path, response in redirects.items() if response}
        self._busy = False

    def choose(self, path: str, round_: str = "", now: float = 0.0) -> PreparedResponse:
        """Return the response to a request for ``path`` that came at ``now`` (monotonic seconds).

        Asking changes what comes next, of ``BUSY`` and where the scenario says so; a new ``round_`` starts again.
        """
        response = self._page(path)
        refused = self._faults.status_for(path, round_, now)
        if refused is not None:
            return _refusal(refused, response.latency * self._latency_factor)
        if self._latency_factor != 1:
            return msgspec.structs.replace(response, latency=response.latency * self._latency_factor)
        return response

    def _page(self, path: str) -> PreparedResponse:
        path = path.partition("?")[0]
        if path == BUSY and self._site.failures:
            self._busy = not self._busy
            return self._shared["busy"] if self._busy else self._shared[BUSY]
        response = self._shared.get(path) or self._redirects.get(path)
        if response is not None:
            return response
        latency = latency_of(self._site, path)
        if path.startswith("/img/") and path.endswith(".png"):
            return PreparedResponse(200, {"Content-Type": "image/png"}, _one_pixel_png(), latency)
        return msgspec.structs.replace(self._shared[GONE], latency=latency)


@functools.lru_cache(maxsize=1024)
def accepted_codings(accept_encoding: str) -> frozenset[str]:
    """Read an Accept-Encoding: the codings of a weight above zero (RFC 9110, 12.5.3; ``*`` is ignored)."""
    found = set()
    for part in accept_encoding.split(","):
        coding, _, weight = part.partition(";")
        if weight.replace(" ", "").removeprefix("q=").rstrip("0.") or not weight:
            found.add(coding.strip().lower())
    return frozenset(found)


@functools.lru_cache(maxsize=1)
def _shared_responses(site: Site) -> Mapping[str, PreparedResponse]:
    """Make what is the same on every host, once for all of them."""
    responses = {path: _response(site, path) for path in (*shop_pages(site.pages, site.seed), GONE, BUSY)}
    responses["busy"] = _response(site, BUSY, busy=True)
    if site.robots is not None:
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        latency = latency_of(site, "/robots.txt")
        responses["/robots.txt"] = PreparedResponse(200, headers, site.robots.encode(), latency)
    return MappingProxyType(responses)


def _response(site: Site, path: str, *, busy: bool = False) -> PreparedResponse:
    status, page = page_at(site, path, busy=busy)
    headers = {"Content-Type": page.content_type}
    if status == 503:
        headers["Retry-After"] = "1"
    body, latency = page.body, latency_of(site, path)
    encode = _encoders().get(page.coding) if site.compress and page.coding else None
    if encode is None:
        return PreparedResponse(status, headers, body, latency)
    return PreparedResponse(status, {**headers, "Vary": "Accept-Encoding"}, body, latency, page.coding, encode(body))


def _refusal(status: int, latency: float) -> PreparedResponse:
    """Make the response of a failing host: 429 comes at once, an error as late as the page would; 0 is a reset."""
    headers = {"Content-Type": _ERROR_PAGE.content_type}
    if status == 429:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
        return PreparedResponse(status, headers, _ERROR_PAGE.body, 0.0)
    return PreparedResponse(status, headers, _ERROR_PAGE.body, latency, reset=not status)


def _redirect(site: Site, path: str, next_host: tuple[str, int]) -> PreparedResponse | None:
    redirect = redirect_of(site, path)
    if redirect is None:
        return None
    origin = f"http://{next_host[0]}:{next_host[1]}" if redirect.to_next_host else ""
    headers = {"Content-Type": "text/plain; charset=utf-8", "Location": origin + redirect.path}
    return PreparedResponse(redirect.status, headers, b"We have moved.\n", latency_of(site, path))


@functools.cache
def _encoders() -> dict[str, Callable[[bytes], bytes]]:
    encoders: dict[str, Callable[[bytes], bytes]] = {"gzip": lambda body: gzip.compress(body, 6, mtime=0)}
    try:
        import brotli  # optional: without it those pages are sent as they are
    except ImportError:
        return encoders
    encoders["br"] = lambda body: bytes(brotli.compress(body, quality=5))
    return encoders


@functools.cache
def _one_pixel_png() -> bytes:
    """Make a PNG of one brown pixel (RFC 2083)."""
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0\x4b\x36\x21")), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


# The hosts


class AccessLogEntry(msgspec.Struct):
    """A line of the log: a request as the site saw it.

    ``start`` and ``end`` are the monotonic clock's seconds at its arrival and its response. Of these, ``queued`` is
    the wait for a worker and ``service`` the rest; ``latency`` is what was drawn for the page. ``in_flight`` counts
    the requests at arrival, this one included, on all hosts, ``host_in_flight`` on this host. ``path`` has the query,
    ``headers`` have lower-case names. ``status`` is ``None`` when the client left, or its connection was reset.
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
    latency: float
    headers: dict[str, str]


class AccessLog:
    """What the hosts share: the log, and how many requests are in flight on all of them together."""

    def __init__(self, path: str | None) -> None:
        self.in_flight = 0
        # The lines hold credentials: only the owner may read them.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        self._descriptor = None if path is None else os.open(path, flags, 0o600)

    def write(self, entry: AccessLogEntry) -> None:
        """Write a line at once, while the log is open."""
        if self._descriptor is not None:
            os.write(self._descriptor, msgspec.json.encode(entry) + b"\n")

    def close(self) -> None:
        """Close the log; requests that are cancelled after that are not logged."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


class HostServer:
    """One host: its address and port, its responses and its workers."""

    def __init__(self, log: AccessLog, at: tuple[str, int], responses: HostResponses, workers: int | None) -> None:
        self._log = log
        self._host, self._port = at
        self._responses = responses
        self._in_flight = 0
        self._workers = contextlib.nullcontext() if workers is None else asyncio.Semaphore(workers)

    async def serve(self, request: web.BaseRequest) -> web.Response:
        """Serve one request: queue for a worker, wait for the page's latency, answer, and log what happened."""
        start, began, latency = time.monotonic(), None, 0.0
        status: int | None = None
        self._in_flight += 1
        self._log.in_flight += 1
        in_flight, host_in_flight = self._log.in_flight, self._in_flight
        try:
            async with self._workers:
                began = time.monotonic()
                response = self._responses.choose(request.raw_path, request.headers.get(ROUND_HEADER, ""), began)
                latency = response.latency
                if latency:
                    await asyncio.sleep(latency)
                if response.reset:
                    await _reset(request)
            headers, body = response.for_client(request.headers.get("Accept-Encoding", ""))
            status = response.status
            return web.Response(status=status, headers=headers, body=body)
        finally:
            self._in_flight -= 1
            self._log.in_flight -= 1
            end = time.monotonic()
            began = end if began is None else began
            entry = AccessLogEntry(
                start=start,
                end=end,
                host=self._host,
                port=self._port,
                method=request.method,
                path=request.raw_path,
                status=status,
                in_flight=in_flight,
                host_in_flight=host_in_flight,
                queued=began - start,
                service=end - began,
                latency=latency,
                headers={name.lower(): value for name, value in request.headers.items()},
            )
            self._log.write(entry)


async def _reset(request: web.BaseRequest) -> None:
    """Reset the connection, and wait until our own handler is cancelled because of it."""
    if request.transport is not None:
        # Closing with a linger time of zero makes it a reset (Linux and POSIX: socket(7)).
        request.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
        )
        request.transport.abort()
    await asyncio.Event().wait()


# The site


async def serve(site: Site, ready: Callable[[int], None]) -> None:
    """Serve the site until cancelled or, in the main thread, until SIGTERM; ``ready`` gets the port.

    On a machine with one loopback address the hosts are the ports from that one on. Raises ``OSError`` when a port is
    taken or the log cannot be written.
    """
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
        log = opened.enter_context(contextlib.closing(AccessLog(site.log)))
        sockets = [opened.enter_context(listener) for listener in listen(site.hosts, site.port)]
        bound: list[tuple[str, int]] = [listener.getsockname() for listener in sockets]
        next_hosts = [*bound[1:], bound[0]]
        hosts = [
            HostServer(log, at, HostResponses(site, next_host, number), site.workers)
            for number, (at, next_host) in enumerate(zip(bound, next_hosts, strict=True))
        ]
        web_servers = [web.Server(host.serve, access_log=None, handler_cancellation=True) for host in hosts]
        listeners: list[asyncio.Server] = []
        try:
            for server, listener in zip(web_servers, sockets, strict=True):
                listeners.append(await loop.create_server(server, sock=listener, backlog=BACKLOG_CONNECTIONS))
            yield bound[0][1]
        finally:
            for listening in listeners:
                listening.close()
            await asyncio.gather(*(server.shutdown(timeout=SHUTDOWN_TIMEOUT_SECONDS) for server in web_servers))


def listen(hosts: int, port: int, *, many: bool | None = None) -> list[socket.socket]:
    """Bind a socket for each host (see ``addresses``); with ``port`` 0, look for one that is free on all.

    Raises ``OSError`` where a port is taken.
    """
    for left in reversed(range(1 if port else BIND_ATTEMPTS)):
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
    """Call ``act`` on SIGTERM where a loop can handle it: in the main thread, on POSIX."""
    if threading.current_thread() is not threading.main_thread() or os.name != "posix":
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, act)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


# The program


def _end_after_owner(folders: list[str]) -> None:
    """Remove the folders of the owner, which has ended, and end as if it had sent SIGTERM."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)


def _raise_open_files() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # not on Windows

        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _main() -> None:
    # Ctrl-C in a terminal reaches this process too; its owner decides how to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _raise_open_files()
    when_owner_ends(lambda: _end_after_owner(sys.argv[2:]))
    site = msgspec.json.decode(sys.argv[1], type=Site)
    asyncio.run(serve(site, lambda port: print(f"ready {port}", flush=True)))  # noqa: T201 - what the owner waits for


if __name__ == "__main__":
    _main()
