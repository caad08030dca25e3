"""Owns one request and the raw socket its answer goes to, and the table of cases.

A case is an async function ``(exchange) -> None`` registered for a path and all below it by ``@case("/path")``.
Law 1: whatever a case sends is sent byte for byte: text is latin-1, and so are the parameters of the query.
Law 2: a wait ends when the client leaves (a half-closed client has left).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from tests.lab.log import Log, LogEntry

HTML = "text/html; charset=utf-8"
PLAIN = "text/plain; charset=utf-8"
HEAD_LIMIT = 1 << 20

Headers: TypeAlias = Iterable[tuple[str, str]]


@dataclass(slots=True)
class LabSite:
    """What the cases of one server share.

    ``state`` is what they count by key, ``own`` the pages a test has added, by host (or ``""``) and path,
    ``patience`` the longest an exchange may last in seconds, ``bugs`` what a case raised against the rules.
    """

    url: Callable[[str, int], str]
    patience: float
    stats: Log = field(default_factory=Log)
    state: dict[str, float] = field(default_factory=dict)
    own: dict[tuple[str, str], Case] = field(default_factory=dict)
    bugs: list[Exception] = field(default_factory=list)

    def find(self, path: str, host: str) -> tuple[Case, str] | None:
        """Return the case for ``path`` and what of it is left: one that was added, else one registered."""
        own = self.own.get((host, path)) or self.own.get(("", path))
        return (own, "") if own else find_case(path)


class WireReader(asyncio.StreamReader):
    """A reader that tells at once when the client has left, even if nobody is reading."""

    def __init__(self, left: Callable[[], None]) -> None:
        super().__init__(limit=HEAD_LIMIT)
        self.ended = asyncio.Event()
        self._left = left

    def feed_eof(self) -> None:
        super().feed_eof()
        self._end()

    def set_exception(self, exc: Any) -> None:
        super().set_exception(exc)
        self._end()

    def _end(self) -> None:
        self.ended.set()
        self._left()


class Exchange:
    """One request that has come, and the means to answer it well or badly.

    ``rest`` is the path below the case's own, ``query`` the rest of the target, ``params`` what it says, ``body`` the
    request's. The connection goes on after the case unless it called ``close`` or ``reset``, or the client asked for
    its end.
    """

    def __init__(
        self, site: LabSite, entry: LogEntry, reader: WireReader, writer: asyncio.StreamWriter, sock: socket.socket
    ) -> None:
        self.site = site
        self.entry = entry
        self.reader = reader
        self.writer = writer
        self.body = b""
        self.rest = ""
        self.query = ""
        self.params: dict[str, str] = {}
        self._sock = sock
        wish = (entry.header("connection") or "").lower()
        self.keep = "close" not in wish and (entry.version != "HTTP/1.0" or "keep-alive" in wish)

    def text(self, name: str, default: str = "") -> str:
        """Return a parameter of the query, each byte a character."""
        return self.params.get(name, default)

    def number(self, name: str, default: float) -> float:
        """Return a parameter of the query as a number."""
        return float(self.params.get(name, default))

    async def send(self, data: bytes | str) -> None:
        """Write bytes, or latin-1 text, and wait until the socket has room again.

        Raises ConnectionError when the client is gone.
        """
        if self.writer.transport.is_closing():
            raise ConnectionResetError("the client is gone")  # uvloop calls it a RuntimeError
        self.writer.write(data.encode("latin-1") if isinstance(data, str) else data)
        await self.writer.drain()

    def head(self, status: int = 200, headers: Headers = (), version: str = "HTTP/1.1") -> str:
        """Return a whole head, its empty line included; an end of the connection is announced in it."""
        self.entry.status = status
        lines = [f"{version} {status} {_reason(status)}", *(f"{name}: {value}" for name, value in headers)]
        if not self.keep:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""])

    async def reply(
        self, body: bytes | str = b"", status: int = 200, *, kind: str = HTML, headers: Headers = ()
    ) -> None:
        """Send a whole answer with its length; to HEAD, and with 1xx, 204 and 304, the head alone."""
        data = body.encode() if isinstance(body, str) else body
        bare = status < 200 or status in {204, 304}
        framing = [] if bare else [("Content-Type", kind), ("Content-Length", str(len(data)))]
        head = self.head(status, [*framing, *headers]).encode("latin-1")
        await self.send(head if bare or self.entry.method == "HEAD" else head + data)

    async def pause(self, seconds: float) -> None:
        """Wait; raises ConnectionResetError if the client leaves meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                await self.reader.ended.wait()
        except TimeoutError:
            return
        raise ConnectionResetError("the client has left")

    async def gone(self) -> None:
        """Wait until the client leaves."""
        await self.reader.ended.wait()

    def close(self) -> None:
        """End the connection after this exchange, in order (FIN)."""
        self.keep = False

    def reset(self) -> None:
        """End the connection now, with RST; what the kernel has taken already is still delivered."""
        self.keep = False
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def become(self, target: str) -> None:
        """Answer as if ``target`` (a path and query) had been asked for; 404 where no case stands."""
        path, _, self.query = target.partition("?")
        self.params = dict(parse_qsl(self.query, keep_blank_values=True, encoding="latin-1"))
        found = self.site.find(path, self.entry.host)
        if found is None:
            await self.reply(f"no case {path}\n", 404, kind=PLAIN)
            return
        run, self.rest = found
        await run(self)


Case: TypeAlias = Callable[[Exchange], Awaitable[None]]

CASES: dict[str, Case] = {}


def case(path: str) -> Callable[[Case], Case]:
    """Register a function for ``path`` and every path below it; the longest registered path wins."""

    def register(run: Case) -> Case:
        if CASES.setdefault(path, run) is not run:
            raise ValueError(f"two cases for {path}")
        return run

    return register


def find_case(path: str) -> tuple[Case, str] | None:
    """Return the case for ``path`` and what is left below it, such as ``/3`` of ``/hops/3``."""
    probe = path
    while probe:
        if probe in CASES:
            return CASES[probe], path[len(probe) :]
        probe = probe.rpartition("/")[0]
    return None


def parse_head(head: bytes) -> tuple[str, str, str, list[tuple[str, str]]]:
    """Return method, target, version and headers as sent; raises ValueError when it is no request head."""
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, version = first.split(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError(f"not HTTP/1: {version}")
    headers = []
    for line in filter(None, lines):
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError(f"a header without a colon: {line}")
        headers.append((name, value.strip(" \t")))
    return method, target, version, headers


async def read_body(reader: asyncio.StreamReader, entry: LogEntry) -> bytes:
    """Read the request's body by its Content-Length or its chunks, at most ``HEAD_LIMIT`` bytes.

    Raises ValueError for a body over the limit or a length that is no number.
    """
    if "chunked" not in (entry.header("transfer-encoding") or "").lower():
        size = int(entry.header("content-length") or 0)
        if size > HEAD_LIMIT:
            raise ValueError(f"a body of {size} bytes")
        return await reader.readexactly(size)
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        if len(body) + size > HEAD_LIMIT:
            raise ValueError("a body over the limit")
        body += (await reader.readexactly(size + 2))[:-2]
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass
    return body


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unnamed"
