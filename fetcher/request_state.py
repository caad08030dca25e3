"""One row on its way: ``RequestState``, what of it is on the wire (``Transfer``), and ``Requeue``, which sends it back.

``Handover`` sends it back to where it came from, for another process to go on with.
``SchemeTrial`` is how it is found out whether the row's host speaks the scheme that it is asked by.

These are the only mutable values, owned by the row's task; each field has one module that writes it. The current
state is a context variable, for it must cross code that passes no parameters of ours (the resolver, the socket
factory and the TLS context inside aiohttp). Nothing looks up *policy* through it.
"""

from __future__ import annotations

import heapq
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextvars import ContextVar
from typing import Any, Literal

import msgspec

from fetcher.errors import (
    ConnectError,
    ConnectTimeout,
    DNSError,
    FetchError,
    FetchTimeout,
    ProtocolError,
    Skipped,
    StatusError,
    TLSError,
)
from fetcher.hosts.state import HostState
from fetcher.model import UNDER_WAY, EarlierRun, Failure, Message, Page, Request, Stage
from fetcher.urls import Target

__all__ = [
    "MAX_RETURNS",
    "Glance",
    "Handover",
    "InFlight",
    "RequestState",
    "Requeue",
    "SchemeTrial",
    "Transfer",
    "WorkerStanding",
    "current",
    "enter",
    "failure_of",
    "glance_at",
    "glance_over",
    "hurry",
    "is_guarded",
    "known_page",
    "leads_on",
    "snapshot_of",
    "take_messages",
    "together",
    "waited",
]


MAX_RETURNS = 20  # of a row: its requests are bounded, whoever is at fault
EARLIER_BYTES = 16_384  # of a row's messages that are kept while it waits for the next: its redirects, together


class Transfer(msgspec.Struct):
    """One request on the wire: where it goes, since when, its clock, and what has come of its answer.

    ``send_gate`` is asked once there is a connection: it returns the seconds to wait still. ``max_bytes`` is how much
    of the body is wanted, whatever the limit. ``suspect`` says that it was started as one of the suspect hosts' few,
    ``repeated`` that it goes out once more, on a new connection, for the kept one was gone.
    """

    # Written by middleware/gate.py:
    host: HostState | None = None
    began: float = 0.0
    send_gate: Callable[[RequestState], float] | None = None
    suspect: bool = False
    # By transport/session.py:
    status: int | None = None
    clock: Any = None
    repeated: bool = False
    recording: Any = None
    # By transport/body.py: bytes of the decoded body.
    received: int | None = None
    # By middleware/robots.py:
    max_bytes: int | None = None

    def begin(self, clock: Any) -> None:
        """Note that the exchange begins, under ``clock``: what is known of an answer is of the one before."""
        self.clock = clock
        self.status = self.received = None


class SchemeTrial:
    """Whether a host speaks a scheme, found out by the first exchange of a row whose URL names none.

    Such an exchange is nobody's attempt, and where the host does not speak the scheme it is charged to nobody.
    ``origin`` is what is asked, ``patience`` the seconds there may be without a connection (``None``: as for any row).
    In the end the scheme is ``spoken``, which ``answered`` is told at once, or there is the ``error`` that says why it
    seems not to be; or neither, where nobody was asked. ``slow`` is of a trial by http: that by https timed out.
    """

    __slots__ = ("_tell", "error", "origin", "patience", "slow", "spoken")

    def __init__(
        self,
        origin: tuple[str, str, int],
        tell: Callable[[], None],
        *,
        patience: float | None = None,
        slow: bool = False,
    ) -> None:
        self.origin = origin
        self.patience = patience
        self.slow = slow
        self.spoken = False
        self.error: FetchError | None = None
        self._tell = tell

    def answered(self, target: Target) -> None:
        """Hear that there was an answer from ``target``."""
        if not self.spoken and target.origin == self.origin:
            self.spoken = True
            self._tell()

    def failed(self, state: RequestState, error: FetchError) -> bool:
        """Hear how an exchange failed; say whether it says no more than that the scheme is not spoken."""
        if self.spoken or state.target.origin != self.origin or isinstance(error, DNSError | Skipped):
            return False
        if not (_is_no_https(error, state.stage) if self.origin[0] == "https" else self._is_no_http(state, error)):
            self.answered(state.target)
            return False
        error.final = True  # whoever asks for robots.txt does not ask again
        self.error = error
        return True

    def broken_off(self, state: RequestState) -> FetchError | None:
        """Return the error of a silent exchange that made room for others, if that is an answer to the trial."""
        if self.patience is None or self.spoken or state.stage in _CONNECTED:
            return None
        return ConnectTimeout(message=f"silent while {state.stage.value}, and others need the slot")

    def _is_no_http(self, state: RequestState, error: FetchError) -> bool:
        """Whether there was no answer. Mere silence on an open port tells only where https was as silent."""
        heard = state.transfer is not None and state.transfer.status is not None
        if isinstance(error, ConnectError):
            return not heard
        if isinstance(error, ProtocolError):
            return not heard and error.code in ("empty_reply", "malformed_response")
        return isinstance(error, FetchTimeout) and not heard and self.slow


_CONNECTED = frozenset({Stage.WAITING, Stage.READING, Stage.WAITING_FOR_MEMORY})


def _is_no_https(error: FetchError, stage: Stage) -> bool:
    """Whether no TLS connection came about: refused, timed out, or ended in the handshake by whatever was said there.

    A certificate that does not hold is an answer. A reset, an end or an alert within the handshake is none: a host
    without https for a name answers so, and browsers that try https first go on by http then.
    """
    if stage in _CONNECTED or error.code == "tls_verify":
        return False
    return isinstance(error, ConnectError | TLSError)


class RequestState:
    """One row between its list and its outcome.

    ``attempts`` counts the tries charged to the row, ``returns`` those that somebody else paid for; ``asked_to_wait``
    says that a 403 or 529 of its own made its host wait. ``elapsed`` are the seconds on the wire so far, ``began`` the
    first admission. ``target`` is where the next or present exchange goes; ``chain`` is what the redirect handler must
    know to go on from there; ``reached`` says whether the last exchange reached a public or a private address.
    ``can_requeue`` says that somebody will take the row back. ``trial`` is there while it is found out whether its host
    speaks the scheme that it is asked by, ``by_http`` says that it was asked by http though its URL names no scheme.
    ``by_get`` is the URL that has refused HEAD, where rows are asked by that. ``messages`` are those of its present
    try, where they are kept. A row that is ``urgent`` waits for no memory; ``memory_wait`` is what it waits by.
    ``earlier`` is the page of an earlier run, where one is compared with, and ``not_modified`` says that the last
    answer was that it still stands.
    """

    __slots__ = (
        "_release_memory",
        "asked_to_wait",
        "attempts",
        "began",
        "by_get",
        "by_http",
        "can_requeue",
        "chain",
        "earlier",
        "elapsed",
        "ended",
        "first",
        "memory_wait",
        "messages",
        "not_modified",
        "order",
        "reached",
        "redirects",
        "request",
        "reservation",
        "returns",
        "stage",
        "stage_since",
        "target",
        "transfer",
        "trial",
        "urgent",
    )

    def __init__(
        self,
        request: Request,
        target: Target,
        order: int = 0,
        *,
        attempts: int = 0,
        returns: int = 0,
        asked_to_wait: bool = False,
        elapsed: float = 0.0,
        began: float = 0.0,
        ended: float = 0.0,
        redirects: tuple[str, ...] = (),
        reached: str | None = None,
        transfer: Transfer | None = None,
    ) -> None:
        self.request = request
        self.first = target
        self.order = order
        # Written elsewhere, each by one module:
        self.attempts = attempts  # middleware/retry.py
        self.asked_to_wait = asked_to_wait  # middleware/retry.py
        self.elapsed = elapsed  # middleware/gate.py
        self.transfer = transfer  # middleware/gate.py
        self.chain: Any = None  # middleware/redirects.py
        self.trial: SchemeTrial | None = None  # middleware/schemes.py
        self.by_http = False  # middleware/schemes.py
        self.by_get: str | None = None  # middleware/head.py
        self.ended = ended  # pipeline.py
        self.messages: list[Message] | None = None  # transport/session.py
        self.memory_wait: Any = None  # transport/body.py
        self.not_modified = False  # middleware/conditional.py
        # Written here:
        self.target = target
        self.returns = returns
        self.redirects = redirects
        self.reached = reached
        self.began = began
        self.earlier: Page | Literal["unknown"] | None = "unknown"
        self.stage = Stage.LISTED
        self.stage_since = 0.0
        self.can_requeue = False
        self.urgent = False
        self.reservation: HostState | None = None  # the host that holds a slot for this row
        self._release_memory: Callable[[], None] | None = None

    def __repr__(self) -> str:
        tries = f"{self.attempts} attempts, {len(self.redirects)} redirects, {self.elapsed:.3f} s on the wire"
        held = f", a slot of {self.reservation.key} reserved" if self.reservation is not None else ""
        return f"<RequestState {self.request.id} {self.target.wire} {self.stage.value}: {tries}{held}>"

    # Where it is

    def enter(self, stage: Stage, now: float | None = None) -> None:
        """Note that the row is now in ``stage``. Raises ``RuntimeError`` where that cannot follow.

        What a middleware asks for once its row has ended, or has gone back, is no stage of the row.
        """
        if not stage.bit & self.stage.after:
            if stage.bit & UNDER_WAY:
                return
            raise RuntimeError(f"row {self.request.id} cannot go from {self.stage.value} to {stage.value}")
        self.stage = stage
        self.stage_since = time.monotonic() if now is None else now

    def admit(self, host: HostState, now: float) -> None:
        """Note that the row gets its task: ``host`` holds a slot for it, and the frontier takes it back to wait."""
        self.enter(Stage.ADMITTED, now)
        self.reservation = host
        self.can_requeue = True
        if not self.began:
            self.began = now

    def begin(self, now: float) -> None:
        """Note that the row is fetched in place: it waits where it is."""
        self.began = now

    # Where it goes

    def start_over(self, first: Target) -> None:
        """Go to the first URL of a chain of redirects."""
        self.target, self.redirects, self.reached = first, (), None
        self.messages = None

    def follow(self, target: Target, *, redirects: tuple[str, ...] | None = None) -> None:
        """Go to the next hop of a chain; or go on, after ``redirects``, from where it stood."""
        self.target = target
        self.redirects = (*self.redirects, target.wire) if redirects is None else redirects

    def count_return(self) -> bool:
        """Note that it begins again though its last try was not charged to it; say whether it may."""
        self.returns += 1
        return self.returns < MAX_RETURNS

    def rewind(self) -> None:
        """Go back to the listed URL, unless it stands in the middle of a chain."""
        if self.chain is None:
            self.target = self.first

    def reach(self, network: str | None) -> None:
        """Note that an exchange reached a ``public`` or a ``private`` address."""
        self.reached = network

    # What it holds

    def take_reservation(self) -> HostState | None:
        """Return the host that held a slot for it, if one did; it holds none from now on."""
        host, self.reservation = self.reservation, None
        return host

    def hold_memory(self, release: Callable[[], None]) -> None:
        """Note that the body holds a part of the memory that all share."""
        self._release_memory = release

    def free(self) -> None:
        """Give back what the body holds of the memory; of its messages little is kept. Harmless twice."""
        release, self._release_memory = self._release_memory, None
        if release is not None:
            release()
        if self.messages is not None:
            self.messages = _shortened(self.messages)

    @property
    def holds_memory(self) -> bool:
        """Whether the body holds a part of the memory that all share."""
        return self._release_memory is not None


def is_guarded(state: RequestState | None) -> bool:
    """Whether a redirect or a list of a public host led the row to where it goes: a private address is closed to it then."""
    if state is None:
        return False
    return state.reached != "private" if state.redirects else state.request.guarded


def known_page(state: RequestState, earlier: EarlierRun) -> Page | None:
    """Return the page that an earlier run had of a row, which is looked for once."""
    if state.earlier == "unknown":
        state.earlier = earlier.find(state.first.wire)
    return state.earlier


def leads_on(request: Request, page: Page) -> bool:
    """Say whether the links of a row's earlier page are wanted: they are in its body alone, so it is asked for whole."""
    discovery, kind = request.discovery, page.content_type
    return discovery is not None and discovery.leads and (kind is None or "html" in kind or "xml" in kind)


def waited(state: RequestState) -> float:
    """Return the seconds since a row's first admission that were not spent on the wire."""
    return max(0.0, (state.ended or time.monotonic()) - state.began - state.elapsed) if state.began else 0.0


def hurry(state: RequestState) -> None:
    """Let a row wait for no memory: those that hold it wait for its outcome."""
    state.urgent = True
    if state.memory_wait is not None and not state.memory_wait.done():
        state.memory_wait.set_result(False)


def take_messages(state: RequestState) -> tuple[Message, ...]:
    """Return the messages that were kept, in their order; they are the caller's now."""
    messages, state.messages = state.messages, None
    return tuple(messages) if messages is not None else ()


def _shortened(messages: list[Message]) -> list[Message]:
    """Return as much of ``messages`` as may be kept without counting, the first of them whole where they fit."""
    kept, left = [], EARLIER_BYTES
    for message in messages:
        left -= len(message.request) + len(message.response)
        if left < 0:
            break
        if len(message.body) > left:
            message = msgspec.structs.replace(message, body=message.body[:left], truncated="length")  # noqa: PLW2901  (it is the shorter one)
        left -= len(message.body)
        kept.append(message)
    return kept


def failure_of(state: RequestState, error: FetchError, *, tries: int = 0) -> Failure:
    """Turn an error into a row's outcome, with all that is known, after ``tries`` more than are charged to it."""
    attempts = state.attempts + tries
    asked = attempts > 0 or state.elapsed > 0
    transfer = state.transfer
    return Failure(
        state.request,
        error.about(state.target.wire),
        url=state.target.wire if asked else None,
        status=transfer.status if asked and transfer is not None else None,
        bytes=transfer.received if transfer is not None else None,
        redirects=state.redirects,
        elapsed=state.elapsed,
        waited=waited(state),
        attempts=attempts,
        fetched_at=time.time(),
        headers=error.headers if isinstance(error, StatusError) else (),
        messages=take_messages(state) if state.messages is not None else (),
    )


class InFlight(msgspec.Struct, frozen=True):
    """A running row as seen from outside: ``age`` in all and seconds ``in_stage``."""

    id: int
    url: str
    stage: str
    age: float
    in_stage: float
    attempts: int


def snapshot_of(state: RequestState) -> InFlight:
    """Return what somebody looking in from outside may see."""
    now = time.monotonic()
    return InFlight(
        state.request.id,
        state.target.wire,
        state.stage.value,
        max(0.0, now - (state.began or now)),  # a clock may be set back
        max(0.0, now - (state.stage_since or state.began or now)),
        state.attempts,
    )


class Glance(msgspec.Struct, frozen=True):
    """What is running at a glance: how many rows by their stage, and the ``oldest``, the oldest first."""

    stages: dict[str, int]
    oldest: list[InFlight]


def glance_at(states: Collection[RequestState], most: int) -> Glance:
    """Return the running rows at a glance, and the ``most`` oldest of them."""
    oldest = heapq.nsmallest(most, states, key=lambda state: state.began or math.inf)
    stages = Counter(state.stage for state in states)
    return Glance({stage.value: many for stage, many in stages.items()}, [snapshot_of(state) for state in oldest])


def glance_over(rows: Collection[InFlight], most: int) -> Glance:
    """Return the same of rows that were looked at already."""
    return Glance(dict(Counter(row.stage for row in rows)), heapq.nlargest(most, rows, key=lambda row: row.age))


def together(glances: Sequence[Glance], most: int) -> Glance:
    """Return several as one."""
    stages: Counter[str] = Counter()
    for each in glances:
        stages.update(each.stages)
    rows = [row for each in glances for row in each.oldest]
    return Glance(dict(stages), heapq.nlargest(most, rows, key=lambda row: row.age))


class WorkerStanding(msgspec.Struct, frozen=True):
    """A worker as seen from outside: ``slots`` are its share of them, ``held`` those it may have in use.

    ``rows`` were given to it and have no outcome yet. ``pid`` is ``None`` where there is no process in its place.
    """

    number: int
    pid: int | None
    slots: int
    held: int
    rows: int


class Requeue(BaseException):
    """The row must wait until ``due`` (monotonic seconds): its task ends and the frontier takes it back.

    A ``BaseException``, as ``CancelledError`` is, so that no middleware takes it for a failed request.
    """

    def __init__(self, due: float) -> None:
        super().__init__(due)
        self.due = due


class Handover(Requeue):
    """The row's next hop is to a site that is not ours to ask: its task ends, and whoever gave us the row takes it back."""

    def __init__(self) -> None:
        super().__init__(0.0)


current: ContextVar[RequestState] = ContextVar("current")


def enter(stage: Stage) -> None:
    """Note that the current row, if there is one, is now in ``stage``."""
    state = current.get(None)
    if state is not None:
        state.enter(stage)
