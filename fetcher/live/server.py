"""The server of the page, on ``aiohttp.web`` and the loop of the run: the page, a stream of events, and the buttons.

One state is built a second, as long as somebody looks, and the same bytes go to all who do; a state that is dear to
build, of a core or beside what the run itself needs, is built less often. Law 3: there are at most 20 streams, each
waits for the latest state alone, and a browser that does not read is dropped. Law 7: see ``access.py``; nothing is
stored by the browser, and the page may ask nobody but us.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Literal, Protocol, Self

import msgspec
from aiohttp import web

from fetcher.errors import ConfigError, FetcherError
from fetcher.live.access import Access, is_loopback
from fetcher.live.page import POLICY, render
from fetcher.live.place import LivePlace
from fetcher.live.state import LiveState, Point
from fetcher.live.timing import TimedAwaitable

__all__ = ["Command", "Control", "LiveServer", "Source"]

MAX_STREAMS = 20
STATE_SECONDS = 1.0
MAX_STATE_SECONDS = 15.0
LEAST_SHARE = 200  # a state is built at most so many times its own cost apart
WRITE_SECONDS = 10.0  # that a browser has to read what was sent
SEND_BUFFER_BYTES = 128 * 1024
MAX_COMMAND_BYTES = 4096
DELIVER_SECONDS = 2.0  # that the last state has to arrive

HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Source(Protocol):
    """What is looked at."""

    marks: list[float]
    """When the runs of a job began, in seconds of its life."""

    async def state(self) -> LiveState:
        """Return what is to be seen now."""
        ...

    def points(self) -> Sequence[Point]:
        """Return how far it was over time."""
        ...

    def tick(self) -> None:
        """Note how far it is: called once a second, also where nobody looks."""
        ...


class Command(msgspec.Struct, forbid_unknown_fields=True):
    """What a button says. Of the limits those are changed that are named."""

    do: Literal["stop", "pause", "resume", "limits"]
    concurrency: str | None = None
    rate: str | None = None
    host: str | None = None
    per_host: str | None = None
    delay: str | None = None


class Control(Protocol):
    """What does what a button says."""

    def obey(self, command: Command) -> str:
        """Do it, and return what was done, in words. Raises ``ConfigError`` for what cannot be done."""
        ...


class _Viewer:
    """One browser that looks: it gets the latest state, and none twice."""

    def __init__(self) -> None:
        self._latest = b"", False
        self._news = asyncio.Event()

    def offer(self, data: bytes, *, last: bool = False) -> None:
        self._latest = data, last
        self._news.set()

    async def next(self) -> tuple[bytes, bool]:
        await self._news.wait()
        self._news.clear()
        return self._latest


class LiveServer:
    """Serves the page of a ``source`` at a ``place``, for an ``async with`` block.

    ``names`` are hosts it may be asked as, ``control`` does what the buttons say (without one there are none). Entering
    raises ``ConfigError`` where the place cannot be had. When the block ends, those who look get the last state first.
    """

    def __init__(
        self,
        source: Source,
        place: LivePlace | None = None,
        *,
        names: Collection[str] = (),
        control: Control | None = None,
    ) -> None:
        self.place = place or LivePlace()
        self.cpu_seconds = 0.0
        """The CPU of all that is done here for those who look."""
        self.control = control
        """What does what the buttons say; ``None`` where they do nothing."""
        self.is_private = True
        """Whether nobody but this machine reaches it."""
        self._source = source
        self._access = Access({*names, self.place.host})
        self._cookie = ""
        self._viewers: dict[_Viewer, asyncio.Task[None] | None] = {}
        self._building: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._runner: web.ServerRunner | None = None
        self._socket: socket.socket | None = None
        self._encoder = msgspec.json.Encoder()

    async def __aenter__(self) -> Self:
        self._socket = self.place.listen()
        address, port = self._socket.getsockname()[:2]
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)  # inherited by connections
        self.place = LivePlace(self.place.host, port)
        self._cookie = f"fetcher-live-{port}"  # a browser keeps cookies by host, whatever the port
        self.is_private = is_loopback(address)
        self._runner = web.ServerRunner(web.Server(self._timed, access_log=None), shutdown_timeout=0.2)
        await self._runner.setup()
        await web.SockSite(self._runner, self._socket).start()
        self._tick()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._building is not None:
            self._building.cancel()
            await asyncio.gather(self._building, return_exceptions=True)
        tasks = [task for task in self._viewers.values() if task is not None]
        if tasks:
            with contextlib.suppress(FetcherError):
                self._offer(await self._source.state(), last=True)
            await asyncio.wait(tasks, timeout=DELIVER_SECONDS)
        assert self._runner is not None
        await self._runner.cleanup()

    def url(self, *, once: bool = False) -> str:
        """Return where the page is; ``once`` for an address that is good for one visit."""
        host = f"[{self.place.host}]" if ":" in self.place.host else self.place.host
        word = self._access.open_door() if once else self._access.token
        return f"http://{host}:{self.place.port}/{word}/"

    # What is asked

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path.strip("/")
        host = request.headers.get("Host", "")
        if not self._access.is_meant(host, _address_of(request)):
            return _refused(
                f"this page is not served as {host[:200]!r}: open it by its address, or name the host with --live-host"
            )
        known = self._access.knows(request.headers.get("Cookie", ""), self._cookie)
        if path == "do":
            return await self._change(request, host, known=known)
        if request.method not in ("GET", "HEAD"):
            return _answer(405, "GET alone", {"Allow": "GET"})
        if path == "events":
            foreign = request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin"
            return await self._stream(request) if known and not foreign else _refused()
        if self._access.enters(path):
            return self._page(fresh=True)
        if path == "" and known:
            return self._page(fresh=False)
        return _refused() if not known else _answer(404, "there is nothing here")

    def _page(self, *, fresh: bool) -> web.Response:
        page = _answer(200, render(self._access.token), kind="text/html")
        if fresh:
            page.set_cookie(self._cookie, self._access.cookie, path="/", httponly=True, samesite="Strict")
        return page

    async def _change(self, request: web.BaseRequest, host: str, *, known: bool) -> web.Response:
        if request.method != "POST":
            return _answer(405, "POST alone", {"Allow": "POST"})
        headers = request.headers
        if not known or not self._access.may_change(host, headers.get("Origin"), headers.get("Fetcher-Token")):
            return _refused()
        if self.control is None:
            return _refused("this page shows, and changes nothing (--live-control lets it, beyond this machine)")
        if (request.content_length or 0) > MAX_COMMAND_BYTES or request.content_type != "application/json":
            return _answer(400, "a small JSON object is wanted")
        try:
            body = await request.content.readexactly(request.content_length or 0)
            command = msgspec.json.decode(body, type=Command)
            said = self.control.obey(command)
        except ConfigError as error:
            return _answer(400, str(error))
        except (ValueError, RecursionError, asyncio.IncompleteReadError) as error:
            return _answer(400, f"that is no command: {error}")
        return _answer(200, said)

    # What is told

    async def _stream(self, request: web.BaseRequest) -> web.StreamResponse:
        if len(self._viewers) >= MAX_STREAMS:
            return _answer(503, f"{MAX_STREAMS} pages look at this already: close one of them", {"Retry-After": "10"})
        viewer = _Viewer()
        self._viewers[viewer] = asyncio.current_task()
        if self._building is None or self._building.done():
            self._building = asyncio.get_running_loop().create_task(self._build())
        response = web.StreamResponse(
            headers={**HEADERS, "Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}
        )
        try:
            await response.prepare(request)
            await self._send(request, response, self._history())
            last = False
            while not last:
                data, last = await viewer.next()
                await self._send(request, response, data)
            with contextlib.suppress(ConnectionError):
                await response.write_eof()
        except (ConnectionError, TimeoutError):
            pass  # it has left, or it does not read
        finally:
            del self._viewers[viewer]
            if not self._viewers and self._building is not None:
                self._building.cancel()
        return response

    async def _send(self, request: web.BaseRequest, response: web.StreamResponse, data: bytes) -> None:
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                await response.write(data)
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
            raise

    def _history(self) -> bytes:
        return self._event("history", {"points": list(self._source.points()), "marks": self._source.marks})

    async def _build(self) -> None:
        """Build a state once a second, as long as somebody looks; a run that has little CPU is asked half as often."""
        used = time.process_time()
        while True:
            began, before = time.monotonic(), self.cpu_seconds
            await TimedAwaitable(self._build_one(), self._count)
            spent, since, used = self.cpu_seconds - before, used, time.process_time()
            dear = spent * LEAST_SHARE > used - since
            pause = max(2 * STATE_SECONDS if dear else STATE_SECONDS, min(LEAST_SHARE * spent, MAX_STATE_SECONDS))
            await asyncio.sleep(max(0.0, pause - (time.monotonic() - began)))

    async def _build_one(self) -> None:
        self._offer(await self._source.state())

    def _count(self, seconds: float) -> None:
        self.cpu_seconds += seconds

    async def _timed(self, request: web.BaseRequest) -> web.StreamResponse:
        return await TimedAwaitable(self._handle(request), self._count)

    def _offer(self, state: LiveState, *, last: bool = False) -> None:
        data = self._event("state", state)
        for viewer in self._viewers:
            viewer.offer(data, last=last)

    def _event(self, name: str, value: object) -> bytes:
        return b"event: %s\ndata: %s\n\n" % (name.encode(), self._encoder.encode(value))

    def _tick(self) -> None:
        self._source.tick()
        self._timer = asyncio.get_running_loop().call_later(STATE_SECONDS, self._tick)


def _address_of(request: web.BaseRequest) -> str | None:
    """Return the address of ours that a request came to."""
    name = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return name[0] if isinstance(name, tuple) else None


def _answer(status: int, text: str, headers: dict[str, str] | None = None, *, kind: str = "text/plain") -> web.Response:
    return web.Response(
        status=status, text=text, content_type=kind, charset="utf-8", headers={**HEADERS, **(headers or {})}
    )


def _refused(
    why: str = "open the address that fetcher has printed: this one is not allowed to see the run",
) -> web.Response:
    return _answer(403, why)
