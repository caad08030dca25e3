"""A call that is tried again: tenacity decides whether and when."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

__all__ = ["call"]

T = TypeVar("T")
FIRST_WAIT_SECONDS = 0.5


def call(
    act: Callable[[], T],
    may_pass: Callable[[BaseException], bool],
    *,
    patience: float,
    longest: float,
    closed: Event,
    told: Callable[[BaseException], None],
) -> T:
    """Return what ``act`` returns; after an error that may pass call it again, for ``patience`` seconds.

    ``told`` hears of the first such error. Once it is ``closed``, the error is raised.
    """

    def before_sleep(state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None and (error := state.outcome.exception()) is not None:
            told(error)

    def wait(seconds: float) -> None:
        closed.wait(seconds)

    over = stop_after_delay(patience)
    retrying = Retrying(
        retry=retry_if_exception(may_pass),
        stop=lambda state: closed.is_set() or over(state),
        wait=wait_random_exponential(multiplier=FIRST_WAIT_SECONDS, max=longest, min=FIRST_WAIT_SECONDS / 2),
        sleep=wait,
        before_sleep=before_sleep,
        reraise=True,
    )
    return retrying(act)
