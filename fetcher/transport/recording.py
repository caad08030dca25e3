"""Keeps one exchange as it is on the wire, for a web archive: the heads byte for byte, the body before it is decoded.

Law 7: no credential is kept. Of the request's headers those stay that a redirect to another origin may carry, and what
HTTP itself asks for; none that the user has bound to a host. Law 3: a head that is over 64 KB is not kept.
"""

from __future__ import annotations

import time
from typing import Any, Literal, TypeAlias

from fetcher.config import Identity
from fetcher.errors import FetchError, FetchTimeout, ProtocolError, TooLarge
from fetcher.model import Message

__all__ = ["Cut", "HeaderFilter", "Recording", "cut_by"]

MAX_HEAD_BYTES = 65_536

PLAIN_HEADERS = frozenset({
    "cache-control", "connection", "host", "pragma", "range", "te", "upgrade-insecure-requests", "user-agent",
})  # fmt: skip
"""What a request may say of itself without telling a secret; ``Accept…`` and ``If-…`` as well."""

Cut: TypeAlias = Literal["length", "time", "disconnect", "unspecified"]


class HeaderFilter:
    """Which headers of a request are kept: by a list of those that may be, for a secret can have any name."""

    def __init__(self, identity: Identity) -> None:
        self._bound = frozenset(header.name.lower() for header in identity.headers if header.host is not None)

    def keeps(self, name: str) -> bool:
        """Whether the header ``name`` may stand in an archive."""
        name = name.lower()
        return (name in PLAIN_HEADERS or name.startswith(("accept", "if-"))) and name not in self._bound


class Recording:
    """One exchange under way. ``cut`` says why its body is not whole; ``parser`` has the head of its answer."""

    __slots__ = ("_filter", "address", "chunks", "cut", "head", "parser", "request", "sent_at", "url")

    def __init__(self, url: str, header_filter: HeaderFilter) -> None:
        self.url = url
        self._filter = header_filter
        self.sent_at = 0.0
        self.request = b""
        self.address: str | None = None
        self.parser: Any = None
        self.head = b""
        self.chunks: list[bytes] = []
        self.cut: Cut | None = None

    def send(self, request: Any, connection: Any) -> None:
        """Note that aiohttp's ``request`` goes out on its ``connection`` now; forget what came of one before."""
        self.sent_at = time.time()
        proxied = request.proxy is not None
        path = str(request.url) if proxied and not request.is_ssl() else request.url.raw_path_qs
        lines = [f"{request.method} {path} HTTP/{request.version.major}.{request.version.minor}"]
        lines += [f"{name}: {value}" for name, value in request.headers.items() if self._filter.keeps(name)]
        self.request = "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")
        peer = None if proxied else connection.transport.get_extra_info("peername")
        self.address = str(peer[0]).partition("%")[0] if isinstance(peer, tuple) and peer else None
        self.parser = connection.protocol.parser
        self.parser.keep_head = True
        self.head = b""
        self.chunks.clear()
        self.cut = None

    def answered(self) -> None:
        """Note that there is an answer: its head is taken before its connection serves another request."""
        self.head = self.parser.head if self.parser is not None else b""
        self.parser = None

    def message(self, cut: Cut | None) -> Message:
        """Return what was kept; ``cut`` says why its body is not whole, where nothing else did."""
        if not self.head or len(self.head) > MAX_HEAD_BYTES:
            return Message(self.url, self.sent_at, self.request, address=self.address)
        chunks = self.chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        return Message(self.url, self.sent_at, self.request, self.head, body, self.address, self.cut or cut)


def cut_by(error: FetchError) -> Cut:
    """Say why a body is not whole that ``error`` has ended."""
    if isinstance(error, TooLarge):
        return "length"
    if isinstance(error, FetchTimeout):
        return "time"
    broken = not isinstance(error, ProtocolError) or error.code == "truncated"
    return "disconnect" if broken else "unspecified"
