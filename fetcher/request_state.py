"""What is known of one row while it is on its way: the only mutable value, owned by the row's task.

The current state is a context variable, for it must cross code that passes no parameters of ours (the
resolver, the socket factory and the TLS context inside aiohttp). Nothing looks up *policy* through it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import msgspec

from fetcher.errors import FetchError
from fetcher.model import Failure, Request
from fetcher.urls import Target

__all__ = ["InFlight", "RequestState", "Requeue", "current"]


class RequestState:
    """One row between its admission and its outcome.

    ``attempts`` counts the tries charged to the row, ``elapsed`` the seconds on the wire so far, ``began``
    the first admission. ``target`` is where the next or present exchange goes; ``chain`` is what the
    redirect handler must know to go on from there. ``deferrable`` says that somebody will take the row back.
    """

    __slots__ = (
        "attempts",
        "began",
        "chain",
        "connection",
        "cut_at",
        "deferrable",
        "depart",
        "elapsed",
        "ended",
        "first",
        "length",
        "order",
        "promised",
        "redirects",
        "release",
        "request",
        "since",
        "stage",
        "status",
        "target",
        "watch",
    )

    def __init__(self, request: Request, target: Target, order: int = 0) -> None:
        self.request = request
        self.first = target
        self.target = target
        self.order = order
        self.attempts = 0
        self.elapsed = 0.0
        self.began = 0.0
        self.ended = 0.0
        self.since = 0.0
        self.stage = "listed"
        self.status: int | None = None
        self.length: int | None = None
        self.redirects: tuple[str, ...] = ()
        self.chain: Any = None
        self.connection: str | None = None
        self.cut_at: int | None = None  # bytes of the body that are wanted, whatever the limit
        self.promised: Any = None  # the Host that holds a place for this row
        self.deferrable = False
        self.depart: Callable[[], float] | None = None  # asked once there is a connection: the seconds to wait still
        self.watch: Any = None  # the clock of the exchange on the wire
        self.release: Callable[[], None] | None = None

    def enter(self, stage: str, now: float | None = None) -> None:
        """Note that the row is now in ``stage``, for whoever looks into what is running."""
        self.stage = stage
        self.since = time.monotonic() if now is None else now

    @property
    def waited(self) -> float:
        """Seconds since the first admission that were not spent on the wire."""
        return max(0.0, (self.ended or time.monotonic()) - self.began - self.elapsed) if self.began else 0.0

    def snapshot(self) -> InFlight:
        """Return what somebody looking in from outside may see."""
        now = time.monotonic()
        return InFlight(
            self.request.id,
            self.target.wire,
            self.stage,
            now - (self.began or now),
            now - (self.since or self.began or now),
            self.attempts,
        )

    def free(self) -> None:
        """Give back what the body holds of the memory bound. Harmless twice."""
        release, self.release = self.release, None
        if release is not None:
            release()

    def fail(self, error: FetchError) -> Failure:
        """Turn an error into the row's outcome, with all that is known."""
        asked = self.attempts > 0 or self.elapsed > 0
        return Failure(
            self.request,
            error.about(self.target.wire),
            url=self.target.wire if asked else None,
            status=self.status if asked else None,
            bytes=self.length,
            redirects=self.redirects,
            elapsed=self.elapsed,
            waited=self.waited,
            attempts=self.attempts,
            fetched_at=time.time(),
        )


class InFlight(msgspec.Struct, frozen=True):
    """A running row as seen from outside: ``age`` in all and seconds ``in_stage``."""

    id: int
    url: str
    stage: str
    age: float
    in_stage: float
    attempts: int


class Requeue(BaseException):
    """The row must wait until ``due`` (monotonic seconds): its task ends and the frontier takes it back.

    A ``BaseException``, as ``CancelledError`` is, so that no middleware takes it for a failed request.
    """

    def __init__(self, due: float) -> None:
        super().__init__(due)
        self.due = due


current: ContextVar[RequestState] = ContextVar("current")
