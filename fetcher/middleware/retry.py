"""Another try: tenacity's strategies decide whether and when; the waiting is done here or in the frontier.

Whose fault a failure is decides who pays. 429, 503 with ``Retry-After`` and a failed connect to a port that has
answered before are charged to the *host*, which slows or is parked; the row keeps its attempts, as it does where our
own network is away. A 403 or 529 with a ``Retry-After`` makes its host wait, once for each row. Law 1: each time a row
begins again at the host's cost is counted, and the twentieth is its last. Anything else, a connection that broke over
the request included, costs the row an attempt: one URL that kills its connection does not park its host. Law 4: a
backoff over a second leaves the task; a shorter one holds no slot.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from fetcher.config import RetryPolicy
from fetcher.errors import FetchError, Skipped, StatusError
from fetcher.hosts.breaker import ROBOTS_BACKOFFS
from fetcher.hosts.health import Blame, failure_kind
from fetcher.hosts.scheduler import MAX_WAIT_IN_TASK_SECONDS
from fetcher.hosts.state import HostState
from fetcher.middleware.gate import Gate
from fetcher.model import Exchange, Request, Response, RetryDetails, RetryHook, Stage
from fetcher.request_state import RequestState, Requeue, current

__all__ = ["Backoff", "Retry"]

log = logging.getLogger("fetcher.retry")

MAX_LAST_WAIT_SECONDS = 5.0  # until the last try at a host that never answered: it may be about to start
ASKING_STATUSES = frozenset({403, 529})  # that mean a limit of the host's where they say how long to wait
NETWORK_PAUSE_SECONDS = 0.25  # until a row is tried again for which our own network was away


class Backoff:
    """The policy as tenacity's three strategies: is it retryable, is it enough, how long to wait."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._retry_on = policy.retry_on
        self._retryable = retry_if_exception(self._may_pass)
        self._retrying = Retrying(
            retry=self._retryable,
            stop=stop_after_attempt(policy.retries + 1),
            wait=wait_random_exponential(
                multiplier=policy.backoff, max=policy.max_backoff, min=min(policy.backoff / 2, policy.max_backoff)
            ),
            reraise=True,
        )
        # Of whichever row is asked about: the strategies read the number of its attempts, and nothing else.
        self._state = RetryCallState(self._retrying, None, (), {})

    def _may_pass(self, error: BaseException) -> bool:
        """Whether the same request may succeed later."""
        if self._retry_on is not None and isinstance(error, StatusError):
            return error.status in self._retry_on
        return isinstance(error, FetchError) and error.retryable

    def after(self, error: FetchError, attempts: int) -> float | None:
        """Return the seconds to wait after ``attempts`` failed ones, or ``None``: it was the last."""
        # Not by way of the state's outcome: that is a future, and costs more than all strategies.
        if not self._retryable.predicate(error):
            return None
        state = self._state
        state.attempt_number = attempts
        if self._retrying.stop(state):
            return None
        return float(self._retrying.wait(state))


class Retry:
    """The handler: in place for short waits, by way of the frontier for long ones. ``on_retry`` is told of each."""

    def __init__(
        self,
        policy: RetryPolicy,
        gate: Gate,
        sleep: Callable[[float], Any] = asyncio.sleep,
        *,
        on_retry: RetryHook | None = None,
    ) -> None:
        self._backoff = Backoff(policy)
        self._retries = policy.retries
        self._pause = policy.backoff
        self._gate = gate
        self._sleep = sleep
        self._on_retry = on_retry

    async def __call__(self, request: Request, proceed: Exchange) -> Response:
        """Try until it holds, or the policy ends it."""
        while True:
            state = current.get()
            try:
                return await proceed(request)
            except FetchError as error:
                if state.messages is None:
                    state.free()
                wait, in_place = self._after(state, error)
                state.free()  # not before it is sure that those messages are not the row's last
                log.debug("row %d: %s; again in %.1f s", state.request.id, state.target.wire, wait)
                error.about(state.target.wire)
                if self._on_retry is not None:
                    self._on_retry(_details(state, error, wait, requeued=not in_place))
                error.detach()
            if not in_place:
                raise Requeue(self._gate.clock() + wait)
            if wait > 0:
                state.enter(Stage.BACKOFF)
                await self._sleep(wait)

    def _after(self, state: RequestState, error: FetchError) -> tuple[float, bool]:
        """Return the seconds until the next try, and whether they are waited for in place; or raise what ends the row."""
        if error.final or isinstance(error, Skipped):
            if state.stage is Stage.CONNECTING and not isinstance(
                error, Skipped
            ):  # by the row itself, not its robots.txt
                state.attempts += 1
            raise error
        gate = self._gate
        now = gate.clock()
        scheduler = gate.scheduler
        host = scheduler.get(state.target.host, now)
        blame = self._blame(host, state, error, now)
        if blame == "network":
            return self._place(state, max(NETWORK_PAUSE_SECONDS, scheduler.shared.rate_next - now))
        if blame == "host":
            if host.breaker.given_up is not None:
                raise Skipped("host_budget", f"{host.breaker.given_up} ({error})") from error
            if not state.count_return():
                raise error
            return self._place(state, max(0.0, host.not_before - now) if state.can_requeue else 0.0)
        state.attempts += 1
        wait = self._backoff.after(error, state.attempts)
        if wait is None:
            raise error
        if host.suspect and state.can_requeue:  # its rows that never started go first: each probe is another's attempt
            if not host.ports and state.attempts == self._retries:
                wait = max(wait, min(ROBOTS_BACKOFFS * self._pause, MAX_LAST_WAIT_SECONDS))
            return wait, False
        return self._place(state, wait)

    @staticmethod
    def _place(state: RequestState, wait: float) -> tuple[float, bool]:
        return wait, wait <= MAX_WAIT_IN_TASK_SECONDS or not state.can_requeue

    def _blame(self, host: HostState, state: RequestState, error: FetchError, now: float) -> Blame:
        """Say who pays for an error."""
        if isinstance(error, StatusError):
            status, wish = error.status, error.retry_after
            if status in ASKING_STATUSES and wish is not None and not state.asked_to_wait:
                state.asked_to_wait = True  # once: some answer a 403 with it for ever
                if wish <= host.settings.retry.max_retry_after:
                    self._gate.scheduler.health.asked_to_wait(host, now, wish)
                    return "host"
            asked = status == 429 or (status == 503 and wish is not None)
            return "host" if asked else "row"
        return self._gate.scheduler.health.blame(host, state.target.port, failure_kind(error, state.stage), now)


def _details(state: RequestState, error: FetchError, wait: float, *, requeued: bool) -> RetryDetails:
    return RetryDetails(state.request, state.target.wire, error, state.attempts, wait, requeued)
