"""The values that flow through the package, and the shapes of its seams.

Law 1: one outcome per request. A ``Request`` goes in and exactly one ``Page`` or ``Failure`` comes out.

The values are ``msgspec`` structs: frozen, slotted, cheap to make (0.2 µs) and picklable, so that they can
cross a process boundary or wait in a queue without surprises.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias

import msgspec

from fetcher.errors import FetchError

__all__ = [
    "Exchange",
    "Extractor",
    "Failure",
    "Middleware",
    "Outcome",
    "Page",
    "Request",
    "Response",
    "Sink",
]

Pairs: TypeAlias = tuple[tuple[str, str], ...]

REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
"""The statuses whose ``Location`` is followed (RFC 9110, 15.4)."""


class Request(msgspec.Struct, frozen=True):
    """One row of the list: what is to be fetched, and what must come back with it.

    ``id`` is the ordinal of the row over all inputs, from 1; it is the row's identity. ``url`` is as
    listed, trimmed. ``headers`` are sent with this request alone. ``fields`` are the row's other columns
    and go to the output; ``tag`` is the caller's own and never looked into.
    """

    id: int
    url: str
    headers: Pairs = ()
    fields: Mapping[str, Any] | None = None
    tag: Any = None


class Response(msgspec.Struct, frozen=True):
    """A whole answer: the head as pairs, the body decoded and bounded.

    ``url`` is the final one, ``headers`` have lower-case names and keep repeats, ``wire_bytes`` is the size
    of the body before its content codings were undone. ``elapsed`` is seconds on the wire over all attempts
    and hops. ``truncated`` says that ``body`` was cut at ``max_size``.
    """

    request: Request
    url: str
    status: int
    headers: Pairs = ()
    body: bytes = b""
    wire_bytes: int = 0
    redirects: tuple[str, ...] = ()
    elapsed: float = 0.0
    attempts: int = 1
    truncated: bool = False

    def header(self, name: str) -> str | None:
        """Return the first value of the header ``name`` (any case), or ``None``."""
        name = name.lower()
        for key, value in self.headers:
            if key == name:
                return value
        return None


class Page(msgspec.Struct, frozen=True):
    """The good outcome of a request.

    ``length`` is in characters and ``None`` for a body that is no text; ``bytes`` is the decoded body's
    size; ``links`` counts ``a[href]``; ``robots`` is what the page says to robots of itself (``noindex``), in headers and
    ``<meta>``; ``data`` is what the extractor returned. ``elapsed`` is seconds on
    the wire over all attempts and hops, ``waited`` seconds of backoff, pacing and queues, ``fetched_at``
    seconds since the epoch. ``body`` is kept on request only.
    """

    request: Request
    url: str
    status: int
    length: int | None = None
    bytes: int = 0
    content_type: str | None = None
    charset: str | None = None
    title: str | None = None
    links: int | None = None
    data: Any = None
    redirects: tuple[str, ...] = ()
    elapsed: float = 0.0
    waited: float = 0.0
    attempts: int = 1
    fetched_at: float = 0.0
    truncated: bool = False
    robots: str | None = None
    preview: str | None = None
    body: Any = None

    @property
    def ok(self) -> bool:
        """``True``: a page is a success."""
        return True


class Failure(msgspec.Struct, frozen=True):
    """The bad outcome of a request: the error, and what was known when it struck."""

    request: Request
    error: FetchError
    url: str | None = None
    status: int | None = None
    bytes: int | None = None
    redirects: tuple[str, ...] = ()
    elapsed: float = 0.0
    waited: float = 0.0
    attempts: int = 0
    fetched_at: float = 0.0

    @property
    def ok(self) -> bool:
        """``False``: a failure is no success."""
        return False


Outcome: TypeAlias = Page | Failure
"""What comes out of every request, exactly once: told apart by ``ok`` or by its class."""

Exchange: TypeAlias = Callable[[Request], Awaitable[Response]]
"""One request, one whole response, or a ``FetchError``: the shape of a transport and of every ``next``."""

Middleware: TypeAlias = Callable[[Request, Exchange], Awaitable[Response]]
"""``async (request, next) -> Response``: whatever stands around the exchange."""

Extractor: TypeAlias = Callable[[Response], Any]
"""A pure function from a response to the value that becomes ``Page.data``."""


class Sink(Protocol):
    """Where outcomes go: an async context manager with one method."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None: ...

    async def write(self, outcome: Outcome) -> None:
        """Take one outcome; returning means it is the sink's now."""
        ...
