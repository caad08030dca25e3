"""Another try: tenacity's strategies decide whether and when; the waiting is done here or in the frontier.

Whose fault a failure is decides who pays. 429, 503 with ``Retry-After`` and a failed connect to a port that
has answered before are charged to the *host*, which slows or is parked; the row keeps its attempts, as it does
where our own network is away. Anything else, a connection that broke over the request included, costs the row an
attempt: one URL that kills its connection does not park its host. Law 4: a backoff over a second leaves the task; a shorter one holds no slot.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

from tenacity import RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

from fetcher.config import RetryPolicy
from fetcher.errors import FetchError, Skipped
from fetcher.hosts.host import DEAD
from fetcher.middleware.gate import PATIENCE, Gate
from fetcher.model import Exchange, Request, Response
from fetcher.request_state import RequestState, Requeue, current

__all__ = ["Backoff", "Retry"]

log = logging.getLogger("fetcher.retry")

LAST_CALL = 5.0  # seconds at most until the last try at a host that never answered: it may be about to start
OURS = 0.25  # seconds until a row is tried again for which our own network was away


class Backoff:
    """The policy as tenacity's three strategies: is it retryable, is it enough, how long to wait."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._retry = retry_if_exception(lambda error: isinstance(error, FetchError) and error.retryable)
        self._stop = stop_after_attempt(policy.retries + 1)
        self._wait = wait_random_exponential(
            multiplier=policy.backoff, max=policy.max_backoff, min=min(policy.backoff / 2, policy.max_backoff)
        )

    def after(self, error: FetchError, attempts: int) -> float | None:
        """Return the seconds to wait after ``attempts`` failed ones, or ``None``: it was the last."""
        state = cast(RetryCallState, _Tried(error, attempts))
        if not self._retry(state) or self._stop(state):
            return None
        return float(self._wait(state))


class _Tried:
    """What the strategies read of a ``RetryCallState``, whose future costs more than all of them."""

    __slots__ = ("_error", "attempt_number")
    failed = True

    def __init__(self, error: FetchError, attempts: int) -> None:
        self._error = error
        self.attempt_number = attempts

    @property
    def outcome(self) -> _Tried:
        return self

    def exception(self) -> FetchError:
        return self._error


class Retry:
    """The handler: in place for short waits, by way of the frontier for long ones."""

    def __init__(self, policy: RetryPolicy, gate: Gate, sleep: Callable[[float], Any] = asyncio.sleep) -> None:
        self._backoff = Backoff(policy)
        self._retries = policy.retries
        self._pause = policy.backoff
        self._gate = gate
        self._sleep = sleep

    async def __call__(self, request: Request, proceed: Exchange) -> Response:
        """Try until it holds, or the policy ends it."""
        while True:
            state = current.get()
            try:
                response = await proceed(request)
            except FetchError as error:
                state.chain = None  # whoever asks again, a middleware too, starts from the first URL
                state.free()
                wait = self._judge(state, error)
            else:
                return response
            log.debug("row %d: %s; again in %.1f s", state.request.id, state.target.wire, wait)
            if wait > PATIENCE and state.deferrable:
                raise Requeue(self._gate.clock() + wait)
            if wait > 0:
                state.enter("backoff")
                await self._sleep(wait)

    def _judge(self, state: RequestState, error: FetchError) -> float:
        """Return the seconds until the next try, or raise what ends the row."""
        if isinstance(error, Skipped):
            raise error
        gate = self._gate
        now = gate.clock()
        host = gate.hosts.get(state.target.host, now)
        fault = gate.judge.fault(host, state, error, now)
        if fault == "ours":
            return max(OURS, gate.hosts.rate_next - now)
        if fault == "host":
            if host.given_up is not None:
                raise Skipped("host_budget", f"{host.given_up} ({error})") from error
            return max(0.0, host.not_before - now) if state.deferrable else 0.0
        state.attempts += 1
        wait = self._backoff.after(error, state.attempts)
        if wait is None:
            raise error
        if host.suspect and state.deferrable:  # its rows that never started go first: each probe is another's attempt
            if not host.answered and state.attempts == self._retries:
                wait = max(wait, min(DEAD * self._pause, LAST_CALL))
            raise Requeue(now + wait)
        return wait
