"""The values that flow through the package, and the shapes of its seams.

Law 1: one outcome per request. A ``Request`` goes in and exactly one ``Page`` or ``Failure`` comes out.

The values are ``msgspec`` structs: frozen, slotted, cheap to make (0.2 µs) and picklable, so that they can
cross a process boundary or wait in a queue without surprises.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from functools import partial
from types import CoroutineType, TracebackType
from typing import Any, ClassVar, Literal, Protocol, Self, TypeAlias

import msgspec

from fetcher.charset import text_of
from fetcher.errors import CallableError, ConfigError, FetchError
from fetcher.record import to_dict, to_record

__all__ = [
    "CONDITIONS",
    "CONTENT_COLUMNS",
    "ON_REQUEST",
    "RECORD_COLUMNS",
    "Change",
    "Discovery",
    "EarlierRun",
    "Exchange",
    "Extractor",
    "Failure",
    "FoundLinks",
    "Message",
    "Middleware",
    "Outcome",
    "Page",
    "Pairs",
    "Request",
    "Response",
    "RetryDetails",
    "RetryHook",
    "Sink",
    "Stage",
    "answering",
    "check_callable",
    "compose",
    "first_values",
    "kept_headers",
    "records",
]

Pairs: TypeAlias = tuple[tuple[str, str], ...]
KeptBody: TypeAlias = bytes | None  # within Page, bytes is the name of a field

REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
"""The statuses whose ``Location`` is followed (RFC 9110, 15.4)."""

CONDITIONS = frozenset({"if-none-match", "if-modified-since"})
"""The headers that a 304 is the answer to (RFC 9110, 15.4.5)."""

Change: TypeAlias = Literal["new", "changed", "unchanged", "gone"]
"""What has become of a row's page since an earlier run."""

RECORD_COLUMNS = (
    "id", "url", "final_url", "status", "length", "bytes", "content_type", "charset", "title", "links", "redirects",
    "attempts", "elapsed", "waited", "fetched_at", "error", "message", "truncated", "robots", "refresh", "etag",
    "last_modified", "digest", "fields", "data", "meta", "jsonld", "microdata", "rdfa", "link_list", "image_list", "text", "lang",
    "headers", "body", "body_path", "item", "change", "checked_at", "referrer", "depth",
)  # fmt: skip
"""The columns that a record can have, in their order."""

CONTENT_COLUMNS = {
    "meta": "meta", "jsonld": "jsonld", "microdata": "microdata", "rdfa": "rdfa", "links": "link_list", "images": "image_list",
    "text": "text", "lang": "lang",
}  # fmt: skip
"""What is read out of a page where it is asked for (``with``), and the column of a record that it fills."""

ON_REQUEST = (
    *CONTENT_COLUMNS.values(),
    "headers",
    "body",
    "body_path",
    "item",
    "change",
    "checked_at",
    "referrer",
    "depth",
)
"""Those that it has where they are asked for."""


class Discovery(msgspec.Struct, frozen=True, array_like=True):
    """How a row came to be, where links are followed: ``depth`` links away from row ``start`` of the list.

    ``base`` is the URL of that row, which ``within`` is relative to. ``referrer`` is the URL of the page that named the
    row first, ``None`` for a row of the list. ``leads`` says that its own links are to be followed.
    """

    depth: int
    start: int
    base: str
    referrer: str | None = None
    leads: bool = True


class FoundLinks(msgspec.Struct, frozen=True, array_like=True):
    """The links of one page that may be followed: absolute URLs without fragment, each once, in their order.

    ``lines`` has them with line ends between them: one text takes less than half of the memory of many. ``dropped``
    counts the links that were too long, or that there was no room for. ``outside`` says that the page was redirected to
    where no links are followed, ``guarded`` that it came from a public address.
    """

    lines: str = ""
    dropped: int = 0
    outside: bool = False
    guarded: bool = False

    @property
    def urls(self) -> list[str]:
        """The URLs."""
        return self.lines.split("\n") if self.lines else []


class Request(msgspec.Struct, frozen=True):
    """One row of the list: what is to be fetched, and what must come back with it.

    Attributes:
        id: the ordinal of the row over all inputs, from 1; it is the row's identity.
        url: the URL as listed, trimmed.
        headers: pairs that are sent with this request alone.
        fields: the row's other columns; they go to the output.
        tag: the caller's own, of any type; it is never looked into.
        guarded: whether a public host has listed it, and not the caller: where private addresses are for listed hosts
            alone, they are closed to it.
        method: what one exchange asks by. Our handlers set it; a row's own is always ``GET``.
        discovery: how the row was found, where links are followed.
    """

    id: int
    url: str
    headers: Pairs = ()
    fields: Mapping[str, Any] | None = None
    tag: Any = None
    guarded: bool = False
    method: Literal["GET", "HEAD"] = "GET"
    discovery: Discovery | None = None


class Response(msgspec.Struct, frozen=True):
    """A whole answer: the head as pairs, the body decoded and bounded.

    Attributes:
        request: what was asked for.
        url: the final URL, after redirects.
        status: the status code, from 100 to 999.
        headers: pairs with names in lower case; repeated ones stand apart.
        body: the bytes, their content codings undone; at most ``max_size``.
        wire_bytes: the size of the body before its content codings were undone.
        redirects: the URLs that redirected, in order.
        elapsed: seconds on the wire, over all attempts and hops.
        attempts: how often the row was tried.
        truncated: whether ``body`` was cut at ``max_size``.
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
        return first_values(self.headers).get(name.lower())


_looked_up: tuple[Pairs, dict[str, str]] = (), {}


def first_values(headers: Pairs) -> dict[str, str]:
    """Return the first value of each of a response's ``headers``; the dict is shared, and not to be changed.

    It is made once for the same headers asked about in a row, as they are while a page is read.
    """
    global _looked_up  # noqa: PLW0603 - the last answer: a lost race costs making it again
    known, values = _looked_up
    if known is not headers:
        values = dict(reversed(headers))
        if type(headers) is tuple:  # what can change would have an old answer
            _looked_up = headers, values
    return values


class Message(msgspec.Struct, frozen=True):
    """One request and its answer as they were on the wire, for a web archive.

    ``url`` is what was asked for, ``sent_at`` seconds since the epoch. ``request`` is the head of the request, but for
    the headers that may hold a secret; ``response`` the head of the answer as it came, empty where none came. ``body``
    is what followed it, after the transfer coding and with its content codings; ``truncated`` says why some of it is
    missing (ISO 28500:2017, 5.13). ``address`` is the IP address that was reached, ``None`` behind a proxy.
    """

    url: str
    sent_at: float
    request: bytes
    response: bytes = b""
    body: bytes = b""
    address: str | None = None
    truncated: Literal["length", "time", "disconnect", "unspecified"] | None = None


class Page(msgspec.Struct, frozen=True):
    """The good outcome of a request.

    Attributes:
        request: the row.
        url: the final URL, after redirects.
        status: the status code of the answer.
        length: characters of the text; ``None`` for a body that is no text.
        bytes: size of the decoded body.
        content_type: the MIME type that the server gave.
        charset: the encoding of the text, by its WHATWG name.
        title: the document's title, white space folded.
        links: number of ``a[href]`` elements.
        data: what was selected, or what the extractor returned.
        redirects: the URLs that redirected, in order.
        elapsed: seconds on the wire, over all attempts and hops.
        waited: seconds of backoff, pacing and queues.
        attempts: how often the row was tried; 0 where an earlier run's page stands.
        fetched_at: when the answer came, in seconds since the epoch.
        truncated: whether the body was cut at ``max_size``.
        robots: what the page says to robots of itself (``noindex``), in headers and ``<meta>``.
        refresh: the URL that the page leads its reader to by itself.
        preview: the first characters of the text, on request (``preview``).
        content: the columns that ``with`` and ``text`` ask for, by their names (``meta``, ``link_list``).
        unconverted: names of the selected fields whose text was not of their type.
        unread: names of the selected fields whose rule does not read such a body (CSS reads no JSON).
        headers: the answer's headers, on request (``keep_headers``).
        body: the decoded body, on request (``keep_body``).
        body_path: the file that has the body, named by its ``digest``, which is ``sha256:…`` then.
        etag: that header as sent, at most 1,000 characters.
        last_modified: the same.
        digest: tells whether a body is another: ``xxh3:`` and 128 bits of the decoded one in hexadecimal.
        change: what has changed since an earlier run, where one is compared with.
        checked_at: when the page was last confirmed, in seconds since the epoch. A page that still stands is carried over
            with the ``fetched_at`` that it had.
        messages: on request, those of the row's last try: one for each redirect, and the last.
        found: the links that are to be followed, until they are rows.
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
    refresh: str | None = None
    preview: str | None = None
    content: Mapping[str, Any] = {}
    unconverted: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    headers: Pairs = ()
    body: KeptBody = None
    body_path: str | None = None
    etag: str | None = None
    last_modified: str | None = None
    digest: str | None = None
    change: Change | None = None
    checked_at: float = 0.0
    messages: tuple[Message, ...] = ()
    found: FoundLinks | None = None

    ok: ClassVar[Literal[True]] = True
    """A page is a success."""

    @property
    def carried(self) -> bool:
        """Whether it was not read in this run, but in an earlier one, and still stands."""
        return self.change == "unchanged" and (self.attempts == 0 or self.fetched_at != self.checked_at)

    @property
    def text(self) -> str | None:
        """The body as text, decoded as a browser would: ``length`` characters. ``None`` for a body that is no text.

        Decoded anew each time. Raises ``ConfigError`` where the body was not kept.
        """
        if self.body is None:
            raise ConfigError("a page's text needs its body, which is kept on request: give keep_body=True")
        return None if self.charset is None else text_of(self.body, self.charset)

    def record(self) -> dict[str, Any]:
        """Return the record as a dict: the names, their order and the plain values of its line of JSON.

        Behind them stand the columns of ``content``.
        """
        return {**to_dict(to_record(self)), **self.content}


class Failure(msgspec.Struct, frozen=True):
    """The bad outcome of a request: the error, and what was known when it struck.

    The attributes are those of a ``Page``, but for ``error``, which says what is wrong: ``error.code`` for programs,
    and a message for people. What was never known is ``None``. ``length``, ``content_type``, ``charset``, ``title``,
    ``links``, ``robots`` and ``refresh`` are there where a page came, and what was to be read out of it could not be
    (``ParseError``).
    """

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
    length: int | None = None
    content_type: str | None = None
    charset: str | None = None
    title: str | None = None
    links: int | None = None
    truncated: bool = False
    robots: str | None = None
    refresh: str | None = None
    headers: Pairs = ()
    change: Change | None = None
    messages: tuple[Message, ...] = ()

    ok: ClassVar[Literal[False]] = False
    """A failure is no success."""

    def record(self) -> dict[str, Any]:
        """Return the record as a dict, with the names of a page's."""
        return to_dict(to_record(self))


def kept_headers(headers: Pairs, names: Collection[str]) -> Pairs:
    """Return those of an answer's headers that are kept: ``all`` are all but Set-Cookie, unless that is named."""
    every = "all" in names
    return tuple(pair for pair in headers if pair[0] in names or (every and pair[0] != "set-cookie"))


class Stage(Enum):
    """Where a row is between its list and its outcome. ``after`` are the stages that may follow, as bits."""

    LISTED = "listed"
    ADMITTED = "admitted"  # it has a task
    ROBOTS = "robots"  # waits for a robots.txt
    PACING = "pacing"  # waits at the gate
    BACKOFF = "backoff"  # waits to be tried again, within its task
    DEFERRED = "deferred"  # waits in the frontier, without a task
    RESOLVING = "resolving"
    CONNECTING = "connecting"
    HANDSHAKING = "handshaking"
    WAITING = "waiting"  # the request is sent
    READING = "reading"  # there is a head
    WAITING_FOR_MEMORY = "waiting for memory"
    QUEUED = "queued"  # for the consumer
    PARSING = "parsing"  # in a process of its own

    def __init__(self, _: str) -> None:
        self.bit = 1 << len(type(self).__members__)
        self.after = 0

    def __repr__(self) -> str:
        return self.value


def _allow(stages: str, following: str) -> None:
    for stage in stages.split():
        for name in following.split():
            Stage[stage].after |= Stage[name].bit


# A middleware may have several requests of one row under way, so the stages between a row's start and its end follow
# each other freely.
_UNDER_WAY = "ROBOTS PACING BACKOFF RESOLVING CONNECTING HANDSHAKING WAITING READING WAITING_FOR_MEMORY"
_allow(f"LISTED ADMITTED {_UNDER_WAY}", f"{_UNDER_WAY} DEFERRED QUEUED")
_allow("LISTED DEFERRED", "ADMITTED")
_allow("QUEUED", "PARSING")
UNDER_WAY = sum(Stage[name].bit for name in _UNDER_WAY.split())
"""The bits of the stages between a row's start and its end."""


Outcome: TypeAlias = Page | Failure
"""What comes out of every request, exactly once: told apart by its class, or by ``ok`` (``is True`` for pyright)."""


def records(outcomes: Iterable[Outcome]) -> Iterator[dict[str, Any]]:
    """Return the record of each outcome as a dict, one after the other, whatever became of the row.

    They are made for data frames. polars looks at a hundred rows to tell what a column is, and ``error`` may be null in
    all of them: have it look at each. The option ``explode`` is of outputs: here a row has one record, with all items
    in its ``data``.

    >>> pandas.DataFrame(records(fetch_all(urls)))  # doctest: +SKIP
    >>> polars.DataFrame(records(fetch_all(urls)), infer_schema_length=None)  # doctest: +SKIP
    """
    return (outcome.record() for outcome in outcomes)


class EarlierRun(Protocol):
    """The pages of an earlier run, by URL. ``max_age``: those confirmed less seconds ago are not asked for again."""

    max_age: float | None

    def find(self, url: str) -> Page | None:
        """Return the page of a row whose URL, as the standard serialises it, is this."""
        ...

    def confirmed(self, url: str) -> float | None:
        """Return when that page was last confirmed, in seconds since the epoch."""
        ...

    def stands_for(self, page: Page) -> bool:
        """Say whether the earlier page has all that this run would read out of it."""
        ...


Exchange: TypeAlias = Callable[[Request], Awaitable[Response]]
"""One request, one whole response, or a ``FetchError``: the shape of a transport and of every ``next``."""

Middleware: TypeAlias = Callable[[Request, Exchange], Awaitable[Response]]
"""``async (request, next) -> Response``: whatever stands around the exchange."""


def compose(handlers: Iterable[Middleware], exchange: Exchange, *, foreign: bool = False) -> Exchange:
    """Put handlers around an exchange, the outermost first.

    ``foreign`` ones may call their second parameter anything, and what they return is looked at. Ours are called
    without a coroutine or a frame of its own: either is felt with each row.
    """
    for handler in reversed(list(handlers)):
        exchange = _around(handler, exchange) if foreign else partial(handler, proceed=exchange)  # type: ignore[call-arg]  # it is called so in all of ours
    return exchange


def _around(handler: Middleware, proceed: Exchange) -> Exchange:
    return answering("middleware", handler, lambda request: handler(request, proceed))


def answering(what: str, function: Any, exchange: Exchange) -> Exchange:
    """Return ``exchange``, which calls ``function``, with a look at what that returns: no response is its author's error.

    Raises ``CallableError``, which ends the run, as any bug does.
    """

    async def answer(request: Request) -> Response:
        awaitable: Any = exchange(request)
        if not isinstance(awaitable, CoroutineType) and not hasattr(awaitable, "__await__"):
            kind = type(awaitable).__name__
            raise CallableError(f"{what}: {_name_of(function)} is not async (it returned {kind}): write 'async def'")
        response = await awaitable
        if not isinstance(response, Response):
            kind = type(response).__name__
            raise CallableError(f"{what}: {_name_of(function)} returned {kind}, and must return a Response")
        return response

    return answer


def check_callable(what: str, function: Any, parameters: Sequence[str], *, asynchronous: bool) -> None:
    """Raise ``CallableError`` where a function of the caller's cannot be called with ``parameters``.

    ``what`` is its role and its name, for the message. That a plain function is to be ``asynchronous`` shows only when
    it is called, for it may return what another has made.
    """
    import inspect  # dear to import, and asyncio has it already where it matters

    called = f"{what} is called as {'await ' if asynchronous else ''}function({', '.join(parameters)})"
    if not callable(function):
        raise CallableError(f"{called}, and {function!r:.200} cannot be called")
    call = getattr(function, "__call__", function)  # noqa: B004 - an object's method, to see whether it is async
    for kind, is_kind in (
        ("an async generator", inspect.isasyncgenfunction),
        ("a generator", inspect.isgeneratorfunction),
        ("async", inspect.iscoroutinefunction),
    ):
        if (is_kind(function) or is_kind(call)) and not (asynchronous and kind == "async"):
            raise CallableError(f"{called}, and {_name_of(function)} is {kind}")
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # some of C's functions do not tell theirs
        return
    try:
        signature.bind(*parameters)
    except TypeError as error:
        raise CallableError(f"{called}, and {_name_of(function)}{signature} does not take that: {error}") from None


def _name_of(function: Any) -> str:
    name = getattr(function, "__qualname__", None)
    return f"{getattr(function, '__module__', None)}:{name}" if name else f"{function!r:.200}"


class RetryDetails(msgspec.Struct, frozen=True):
    """What a hook is told before a row is tried again.

    ``url`` is what was asked for (a redirect's hop, perhaps), ``attempt`` how many tries the row has paid for so far: a
    host's refusal costs the host, not the row. ``wait`` is in seconds; ``requeued`` says that the row waits without a
    task, behind those of its host that are due earlier.
    """

    request: Request
    url: str
    error: FetchError
    attempt: int
    wait: float
    requeued: bool


RetryHook: TypeAlias = Callable[[RetryDetails], None]
"""Is told of each retry before it is waited for. What it raises ends the run: it is a bug."""

Extractor: TypeAlias = Callable[[Response], Any]
"""A pure function from a response to the value that becomes ``Page.data``."""


class Sink(Protocol):
    """Where outcomes go: an async context manager with one method."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None: ...

    async def write(self, outcome: Outcome) -> None:
        """Take one outcome; returning means it is the sink's now."""
        ...
