"""What the parent and a worker say to each other, and how rows and outcomes become values that cross.

Law 1: a row is a value with all that it has been through, so that it can go on anywhere; its ``key`` is the parent's,
and what the caller put on it (``tag``) stays there. Law 7: what a worker says is decoded by these schemas and by no
other means, for it reads hostile pages. What msgpack cannot carry (a lone surrogate, an integer of a hundred digits)
crosses as JSON.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from fetcher import errors
from fetcher.config import Config
from fetcher.errors import FetchError, StatusError
from fetcher.hosts.standing import HostStanding
from fetcher.hosts.state import HostReport
from fetcher.middleware.cookies import ChainJar, Cookie
from fetcher.middleware.redirects import RedirectChain
from fetcher.model import Discovery, Failure, Message, Page, Request
from fetcher.pipeline import Policies
from fetcher.request_state import InFlight, RequestState, Transfer
from fetcher.urls import Target

__all__ = [
    "ChangeHosts",
    "CrawlSettings",
    "FromParent",
    "FromWorker",
    "HostNews",
    "HostStandings",
    "LimitShare",
    "LogLine",
    "NoMoreRows",
    "OutcomeBatch",
    "PauseWorker",
    "RowBatch",
    "RowValue",
    "StopWorker",
    "TellHosts",
    "WorkerFinished",
    "WorkerGone",
    "WorkerStatus",
    "WorkerTrouble",
    "decode_from_parent",
    "decode_from_worker",
    "encode",
    "row_of",
    "value_of",
]  # fmt: skip


# Rows


class ChainValue(msgspec.Struct, array_like=True, frozen=True):
    """Where a row stands in a chain of redirects."""

    first: Target
    target: Target
    asked: str
    seen: list[tuple[str, str | None, int]]
    cookies: list[Cookie] | None


class KnownPage(msgspec.Struct, array_like=True, frozen=True):
    """The page of an earlier run, and whether it has all that this run would read of it."""

    page: Page
    stands: bool


class RowProgress(msgspec.Struct, array_like=True, frozen=True):
    """What few rows have. ``age`` is the seconds since the row first started, negative where it has not."""

    user: str | None
    password: str | None
    headers: tuple[tuple[str, str], ...]
    fields: Mapping[str, Any] | None
    guarded: bool
    attempts: int
    returns: int
    asked_to_wait: bool
    elapsed: float
    age: float
    status: int | None
    received: int | None
    redirects: tuple[str, ...]
    reached: str | None
    by_get: str | None
    by_http: bool
    chain: ChainValue | None
    messages: list[Message] | None
    known: KnownPage | None
    discovery: Discovery | None = None


class RowValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A row on its way. ``wire`` is ``None`` where it is the URL itself."""

    key: int
    id: int
    url: str
    wire: str | None
    scheme: str
    host: str
    port: int
    progress: RowProgress | None = None


def value_of(state: RequestState, key: int, *, fields: bool = False, known: KnownPage | None = None) -> RowValue:
    """Return a row as a value; with its ``fields`` where somebody there may look at them."""
    request, target = state.request, state.first
    progress = None
    if (
        request.headers
        or request.guarded
        or request.discovery is not None
        or state.began
        or state.attempts
        or state.returns
        or target.user is not None
        or target.password is not None
        or known is not None
        or (fields and request.fields is not None)
    ):
        progress = _progress_of(state, fields=fields, known=known)
    url, wire = request.url, target.wire
    return RowValue(
        key, request.id, url, None if wire == url else wire, target.scheme, target.host, target.port, progress
    )


def _progress_of(state: RequestState, *, fields: bool, known: KnownPage | None) -> RowProgress:
    request, target, transfer = state.request, state.first, state.transfer
    return RowProgress(
        target.user,
        target.password,
        request.headers,
        request.fields if fields else None,
        request.guarded,
        state.attempts,
        state.returns,
        state.asked_to_wait,
        state.elapsed,
        time.monotonic() - state.began if state.began else -1.0,
        transfer.status if transfer is not None else None,
        transfer.received if transfer is not None else None,
        state.redirects,
        state.reached,
        state.by_get,
        state.by_http,
        None if state.chain is None else _chain_value(state.chain),
        state.messages,
        known,
        request.discovery,
    )


def row_of(value: RowValue, request: Request | None = None) -> RequestState:
    """Return the row that a value is of. ``request`` is the row's own, where that is at hand; else the key is its tag."""
    progress = value.progress
    wire = value.wire or value.url
    if progress is None:
        made = request or Request(value.id, value.url, tag=value.key)
        return RequestState(made, Target(wire, value.scheme, value.host, value.port), value.key)
    made = request or Request(
        value.id,
        value.url,
        progress.headers,
        progress.fields,
        value.key,
        progress.guarded,
        discovery=progress.discovery,
    )
    answered = progress.status is not None or progress.received is not None
    state = RequestState(
        made,
        Target(wire, value.scheme, value.host, value.port, progress.user, progress.password),
        value.key,
        attempts=progress.attempts,
        returns=progress.returns,
        asked_to_wait=progress.asked_to_wait,
        elapsed=progress.elapsed,
        began=time.monotonic() - progress.age if progress.age >= 0 else 0.0,
        redirects=progress.redirects,
        reached=progress.reached,
        transfer=Transfer(status=progress.status, received=progress.received) if answered else None,
    )
    state.by_get, state.by_http = progress.by_get, progress.by_http
    state.messages = progress.messages
    if progress.chain is not None:
        state.chain = _chain_of(progress.chain)
        state.target = state.chain.target
    return state


def _chain_value(chain: RedirectChain) -> ChainValue:
    seen = [(url, cookie, times) for (url, cookie), times in chain.seen.items()]
    return ChainValue(chain.first, chain.target, chain.asked, seen, None if chain.jar is None else chain.jar.kept)


def _chain_of(value: ChainValue) -> RedirectChain:
    chain = RedirectChain(value.first, value.asked)
    chain.target = value.target
    chain.seen = Counter({(url, cookie): times for url, cookie, times in value.seen})
    chain.jar = None if value.cookies is None else ChainJar.of(value.cookies)
    return chain


# From the parent


class CrawlSettings(msgspec.Struct, array_like=True, frozen=True, tag="settings"):
    """What a worker begins with: the first thing it is told.

    ``parsers`` are the processes it may parse in. ``extract`` and ``middleware`` are names (``module:name``), ``path``
    and ``folder`` the parent's ``sys.path`` and working directory. ``slots`` is the file of crash markers, ``number``
    says which slot is the worker's. ``compares`` says that rows come with the pages of an earlier run. ``level`` is
    from what on it tells what it logs.

    ``remote`` says that the worker may be on another machine: it has paths of its own, ``path`` comes behind them, and
    ``files`` are the contents of those that the config names.
    """

    config: Config
    number: int
    epoch: int
    concurrency: int
    rate: float | None
    extract: str | None
    middleware: tuple[str, ...]
    parsers: int
    path: list[bytes]
    folder: bytes
    slots: str | None
    suspects: frozenset[int]
    compares: bool
    parked: dict[str, float]
    delays: dict[str, float]
    level: int
    remote: bool = False
    files: dict[str, bytes] = {}
    paused: bool = False


class RowBatch(msgspec.Struct, array_like=True, frozen=True, tag="rows"):
    """Rows to fetch. Their hosts' sites are the worker's from now on."""

    rows: list[RowValue]


class LimitShare(msgspec.Struct, array_like=True, frozen=True, tag="share"):
    """The part of the slots and of the rate that is the worker's now; ``number`` counts what it is told."""

    number: int
    concurrency: int
    rate: float | None


class ChangeHosts(msgspec.Struct, array_like=True, frozen=True, tag="policies"):
    """What holds from now on for single hosts and domains."""

    policies: Policies


class PauseWorker(msgspec.Struct, array_like=True, frozen=True, tag="pause"):
    """Send nothing new while ``paused``."""

    paused: bool


class TellHosts(msgspec.Struct, array_like=True, frozen=True, tag="tell"):
    """Tell once a second how so many ``hosts`` stand, for somebody looks; 0 for no longer."""

    hosts: int


class StopWorker(msgspec.Struct, array_like=True, frozen=True, tag="stop"):
    """Start nothing new; what is on the wire has so many seconds."""

    grace: float


class NoMoreRows(msgspec.Struct, array_like=True, frozen=True, tag="finish"):
    """There will be no more rows."""


FromParent: TypeAlias = (
    CrawlSettings | RowBatch | LimitShare | ChangeHosts | PauseWorker | TellHosts | StopWorker | NoMoreRows
)


# From a worker


class OutcomeBatch(msgspec.Struct, array_like=True, frozen=True, tag="outcomes"):
    """Rows that have ended, and rows that go on elsewhere. The key of a row is the tag of its request.

    ``by_http`` are rows since the last batch that were asked by http though they name no scheme.
    """

    epoch: int
    pages: list[Page]
    failures: list[Failure]
    handed_over: list[RowValue]
    by_http: int


class WorkerStatus(msgspec.Struct, array_like=True, frozen=True, tag="status"):
    """How a worker stands: the share it goes by, the slots it ``holds``, those it could use, and what it has running.

    ``on_wire`` of those slots have a request under way.
    """

    epoch: int
    share: int
    held: int
    wanted: int
    running: list[InFlight] | None
    on_wire: int = 0


class HostNews(msgspec.Struct, array_like=True, frozen=True, tag="hosts"):
    """What a worker knows of its hosts, for whoever keeps it from run to run."""

    epoch: int
    parked: dict[str, float]
    delays: dict[str, float]
    troubled: list[HostReport]


class HostStandings(msgspec.Struct, array_like=True, frozen=True, tag="standings"):
    """How the hosts stand that a worker will need for longest."""

    epoch: int
    hosts: list[HostStanding]


class LogLine(msgspec.Struct, array_like=True, frozen=True, tag="log"):
    """What a worker has to say."""

    name: str
    level: int
    text: str


class WorkerTrouble(msgspec.Struct, array_like=True, frozen=True, tag="trouble"):
    """What ends the run: an error of ours by its class, or a bug with its traceback."""

    epoch: int
    kind: str
    text: str


class WorkerFinished(msgspec.Struct, array_like=True, frozen=True, tag="ended"):
    """The last word: all has been said."""

    epoch: int


class WorkerGone(msgspec.Struct, array_like=True, frozen=True, tag="gone"):
    """How a worker on another machine ended, and the row it was parsing, or 0: said by who stood next to it."""

    epoch: int
    reason: str
    row: int


FromWorker: TypeAlias = (
    OutcomeBatch | WorkerStatus | HostNews | HostStandings | LogLine | WorkerTrouble | WorkerFinished | WorkerGone
)


# Bytes


_MSGPACK, _JSON = b"m"[0], b"j"[0]


def _encode_error(value: Any) -> Any:
    if isinstance(value, FetchError):
        headers = value.headers if isinstance(value, StatusError) else ()
        return [type(value).__name__, list(value.args), value.url, value.final, headers]
    raise TypeError(f"a {type(value).__qualname__} cannot cross from one process to another")


def _decode_error(kind: type, value: Any) -> Any:
    if kind is not FetchError:
        raise TypeError(f"no {kind.__qualname__} comes from another process")
    name, args, url, final, headers = value
    cls = getattr(errors, name)
    if not issubclass(cls, FetchError):
        raise ValueError(f"{name!r} is no error of a row")
    error = cls(*args)
    error.url, error.final = url, final
    if isinstance(error, StatusError):
        error.headers = tuple((key, text) for key, text in headers)
    return error


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_error)
_from_worker = msgspec.msgpack.Decoder(FromWorker, dec_hook=_decode_error)
_from_parent = msgspec.msgpack.Decoder(FromParent, dec_hook=_decode_error)


def encode(message: FromParent | FromWorker) -> bytearray:
    """Return a message as a batch. Raises ``TypeError`` for a value that is no plain data."""
    batch = bytearray(1)
    try:
        _encoder.encode_into(message, batch, 1)
        batch[0] = _MSGPACK
    except (ValueError, OverflowError):
        plain = msgspec.to_builtins(message, enc_hook=_encode_error)
        batch = bytearray([_JSON]) + json.dumps(plain).encode()
    return batch


def decode_from_worker(batch: bytes) -> FromWorker:
    """Return what a worker says. Raises ``ValueError`` for what is none of it."""
    if batch[0] == _MSGPACK:
        message: FromWorker = _from_worker.decode(memoryview(batch)[1:])
    else:
        message = msgspec.convert(json.loads(batch[1:]), FromWorker, dec_hook=_decode_error)
    return message


def decode_from_parent(batch: bytes) -> FromParent:
    """Return what the parent says."""
    if batch[0] == _MSGPACK:
        message: FromParent = _from_parent.decode(memoryview(batch)[1:])
    else:
        message = msgspec.convert(json.loads(batch[1:]), FromParent, dec_hook=_decode_error)
    return message
