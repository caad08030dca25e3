"""The circuit breaker of one host: whether it is asked at all, and with how many connections.

Law 5: a host's trouble stays its own. Law 9: nothing here waits; every method that needs the time takes it.

::

    HALF_OPEN ── an answer ──▶ CLOSED                 one connection ▶ as many as it bears
    any ── charged ──▶ OPEN ── its time comes ──▶ HALF_OPEN or CLOSED, as it was
    any ── twenty charges, or host_patience, without a success ──▶ GIVEN_UP

A new host is half-open. What a charge is, ``HealthTracker`` decides.
"""

from __future__ import annotations

import math
from enum import Enum

from fetcher.config import RetryPolicy

__all__ = ["MAX_CHARGES", "ROBOTS_BACKOFFS", "Breaker", "BreakerState"]

MAX_CHARGES = 20  # without one success in between
ROBOTS_BACKOFFS = 10  # backoffs are the first pause of a dead host whose robots.txt is needed first
STEADY_CHARGES = 15  # of a host that seems dead, until its pauses grow


class BreakerState(Enum):
    """What a breaker lets through."""

    CLOSED = "closed"
    HALF_OPEN = "half-open"
    OPEN = "open"
    GIVEN_UP = "given up"


class Breaker:
    """The failures of one host and what follows from them. All times are monotonic seconds.

    ``half_open``: it has not answered yet, or failed since. ``given_up`` is the reason. ``charges`` are parkings
    without a success in between, ``failures`` failed connects and silences in a row. It is open ``parked_until``;
    ``retry_after_until`` is what it asked for itself. ``open_until`` is a rest that concerns only rows that can wait
    elsewhere.
    """

    __slots__ = (
        "_key",
        "charges",
        "failures",
        "first_charge_at",
        "given_up",
        "half_open",
        "last_failure_at",
        "open_until",
        "parked_until",
        "retry",
        "retry_after_until",
    )

    def __init__(self, key: str, retry: RetryPolicy) -> None:
        self._key = key
        self.retry = retry
        self.half_open = True
        self.given_up: str | None = None
        self.charges = 0
        self.first_charge_at = 0.0
        self.failures = 0
        self.last_failure_at = 0.0
        self.parked_until = 0.0
        self.open_until = 0.0
        self.retry_after_until = 0.0

    def state(self, now: float) -> BreakerState:
        """Return the state it is in."""
        if self.given_up is not None:
            return BreakerState.GIVEN_UP
        if max(self.open_until, self.parked_until) > now:
            return BreakerState.OPEN
        return BreakerState.HALF_OPEN if self.half_open else BreakerState.CLOSED

    # What happened

    def recovered(self) -> None:
        """Note a sign of life of a host that was in doubt."""
        self.failures = 0

    def close(self) -> None:
        """Let through as many as the host bears."""
        self.half_open = False

    def trip(self) -> None:
        """Let through one at a time, until there is an answer."""
        self.half_open = True

    def forgive(self) -> None:
        """Note that the host served us."""
        self.charges = 0

    def failed(self, now: float) -> None:
        """Note a failed connect or a silence."""
        self.last_failure_at = now
        self.failures += 1

    # What follows

    def charge(self, now: float, retry_after: float | None) -> float | None:
        """Count a refusal against the host; return the seconds it is parked, or ``None`` where it asks for too long.

        Without ``Retry-After``, or with one of 0, the pause doubles from ``backoff``.
        """
        retry = self.retry
        if retry_after:  # it has said itself when: answers to what was sent before that tell nothing new
            self.last_failure_at = now
        if retry_after is not None and retry_after > retry.max_retry_after:
            wish = f"{self._key} asks to wait {math.ceil(retry_after)} s"
            self.given_up = f"{wish}, max-retry-after is {retry.max_retry_after:g} s"
            return None
        self._count(now, "refused")
        if retry_after:
            self.wait_until(now + retry_after)
        return retry_after or min(retry.backoff * 2.0 ** (self.charges - 1), retry.max_backoff)

    def charge_dead(self, now: float, lasted: float, *, robots_known: bool) -> float:
        """Count an exchange that ``lasted`` so many seconds without a sign of life; return the seconds the host rests.

        It rests only from rows that can wait elsewhere.
        """
        self._count(now, "did not answer")
        rest = self._rest(now, lasted, robots_known=robots_known)
        self.open_until = max(self.open_until, now + rest)
        return rest

    def _count(self, now: float, verb: str) -> None:
        """Count one more, and give the host up that had twenty, or ``host_patience`` seconds, without one success.

        Answers to what was sent before the parking count for nothing new.
        """
        if now < self.parked_until:
            return
        self.charges += 1
        if self.charges == 1:
            self.first_charge_at = now
        seconds, patience = now - self.first_charge_at, self.retry.host_patience
        if self.charges >= MAX_CHARGES:
            self.given_up = f"{self._key} {verb} {self.charges} times without one success"
        elif seconds >= patience:
            self.given_up = f"{self._key} {verb} for {seconds:.0f} s, host-patience is {patience:g} s"

    def _rest(self, now: float, lasted: float, *, robots_known: bool) -> float:
        """Return the seconds a host rests that seems dead.

        Few rows use up their attempts in a few seconds, one probe after the other, and at once where each has only
        one. Of many, other rows probe each time, and the last probes are far apart. Where all depends on one
        robots.txt, the host has some seconds to come back.
        """
        retry = self.retry
        if not retry.retries:
            return 0.0
        if not robots_known:
            pause = ROBOTS_BACKOFFS * retry.backoff * 2.0 ** (self.charges - 1)
        elif self.charges <= STEADY_CHARGES:
            pause = retry.backoff / 2
        else:
            pause = 2 * retry.backoff * 3.0 ** (self.charges - STEADY_CHARGES - 1)
        left = max(retry.backoff, self.first_charge_at + retry.host_patience - now)
        return min(max(min(pause, retry.max_backoff), lasted), left)

    def wait_until(self, until: float) -> None:
        """Note that the host asked to be left alone until then."""
        self.retry_after_until = max(self.retry_after_until, until)

    def park(self, until: float) -> None:
        """Keep the host alone until then."""
        self.parked_until = max(self.parked_until, until)

    def end_rest(self) -> None:
        """Let rows go on that waited elsewhere."""
        self.open_until = 0.0

    def restore(self, until: float, age: float, charges: int, failures: int, *, answered: bool) -> None:
        """Take over what was kept of a host that rested: until when, and how long before it was charged first."""
        self.charges, self.failures = charges, failures
        self.parked_until = max(self.parked_until, until)
        self.first_charge_at = until - age
        self.half_open = not answered or bool(charges) or bool(failures)
