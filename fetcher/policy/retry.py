"""Another try: tenacity's strategies decide whether and when; the waiting is done here or in the frontier.

Whose fault a failure is decides who pays. 429, 503 with ``Retry-After`` and a failed connect to a port that
has answered before are charged to the *host*, which is parked; the row keeps its attempts. Anything else, a
connection that broke over the request included, costs the row an attempt: one URL that kills its connection
does not park its host. Law 4: a backoff over a second leaves the task; a shorter one holds no slot.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from tenacity import RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

from fetcher.config import RetryPolicy
from fetcher.errors import ConnectError, FetchError, Skipped, StatusError
from fetcher.flight import Flight, Later, current
from fetcher.hosts import Host
from fetcher.model import Exchange, Request, Response
from fetcher.policy.pacing import PATIENCE, Gate, Waiter

__all__ = ["Backoff", "Retry"]

log = logging.getLogger("fetcher.retry")


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
        state = RetryCallState(retry_object=_STATELESS, fn=None, args=(), kwargs={})
        state.attempt_number = attempts
        state.set_exception((type(error), error, error.__traceback__))
        if not self._retry(state) or self._stop(state):
            return None
        return float(self._wait(state))


_STATELESS: Any = None  # the strategies read the call's state alone


class Retry:
    """The handler: in place for short waits, by way of the frontier for long ones."""

    def __init__(self, policy: RetryPolicy, gate: Gate, sleep: Callable[[float], Any] = asyncio.sleep) -> None:
        self._backoff = Backoff(policy)
        self._gate = gate
        self._sleep = sleep

    async def __call__(self, request: Request, proceed: Exchange) -> Response:
        """Try until it holds, or the policy ends it."""
        while True:
            flight = current.get()
            try:
                response = await proceed(request)
            except FetchError as error:
                flight.chain = None  # whoever asks again, a middleware too, starts from the first URL
                flight.free()
                wait = self._judge(flight, error)
            else:
                self._host(flight).answer(flight.target.port)
                return response
            log.debug("row %d: %s; again in %.1f s", flight.request.id, flight.target.wire, wait)
            if wait > PATIENCE and flight.deferrable:
                raise Later(self._gate.clock() + wait)
            if wait > 0:
                flight.enter("backoff")
                await self._sleep(wait)

    def _judge(self, flight: Flight, error: FetchError) -> float:
        """Return the seconds until the next try, or raise what ends the row."""
        if isinstance(error, Skipped):
            raise error
        host = self._host(flight)
        port = flight.target.port
        if isinstance(error, StatusError):
            host.answer(port, well=not error.retryable)
        if _hosts_fault(error, flight.stage, answered=port in host.answered):
            wish = error.retry_after if isinstance(error, StatusError) else None
            self._gate.charge(host.key, wish)
            if host.given_up is not None:
                raise Skipped("host_budget", f"{host.given_up} ({error})") from error
            return max(0.0, host.not_before - self._gate.clock()) if flight.deferrable else 0.0
        flight.attempts += 1
        wait = self._backoff.after(error, flight.attempts)
        if wait is None:
            raise error
        return wait

    def _host(self, flight: Flight) -> Host[Waiter]:
        return self._gate.hosts.get(flight.target.host, self._gate.clock())


def _hosts_fault(error: FetchError, stage: str, *, answered: bool) -> bool:
    if isinstance(error, StatusError):
        return error.status == 429 or (error.status == 503 and error.retry_after is not None)
    return isinstance(error, ConnectError) and answered and stage != "waiting"  # by then it had been connected
