"""How the hosts of the built-in site behave beyond their latency: slow ones, errors that recover, throttling.

Laws: whoever asks the same in the same order is answered the same, for everything is drawn from the seed and
counted; each round of a bench begins afresh, so that no mode finds what another left. Law 9: the clock is a
parameter.

- ``latency``: every page takes its time.
- ``fast``: no page takes any, so that the client's own speed shows.
- ``mixed``: one host of ten takes ten times as long.
- ``errors``: one page of ten answers 500, 502, 503 or 504 when it is first asked for, one of twenty is reset.
- ``throttled``: one host of five answers 429 with ``Retry-After: 1`` to its first request and after each five pages,
  and to all that comes within that second.
"""

from __future__ import annotations

import hashlib
from typing import Literal, TypeAlias, get_args

__all__ = ["RETRY_AFTER", "ROUND", "SCENARIOS", "Scenario", "Temper", "pace"]

Scenario: TypeAlias = Literal["latency", "fast", "mixed", "errors", "throttled"]
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)

ROUND = "bench-round"
"""The request header that names a round."""
RETRY_AFTER = 1
"""Seconds a throttling host asks for: the least that the header can say."""

_SLOWNESS = 10.0
_SLOW = (10, 4)  # of ten hosts in turn, the fifth
_THROTTLING = (5, 1)
_SERVED = 5  # pages between two pauses
_ERRORS = (500, 502, 503, 504)
_RESET = 0


def pace(scenario: Scenario, host: int) -> float:
    """Return how many times as long as its page's own latency the host takes."""
    if scenario == "fast":
        return 0.0
    return _SLOWNESS if scenario == "mixed" and _is(host, _SLOW) else 1.0


class Temper:
    """What a host refuses in one round after another."""

    def __init__(self, scenario: Scenario, seed: int, host: int) -> None:
        self._errs = scenario == "errors"
        self._throttles = scenario == "throttled" and _is(host, _THROTTLING)
        self._salt = f"{seed} {host}"
        self._begin("")

    def meet(self, path: str, round_: str, now: float) -> int | None:
        """Return the status a request is refused with, 0 for a reset, or ``None``: it is served.

        ``now`` is when it came, in the seconds of any one clock.
        """
        if not (self._errs or self._throttles):
            return None
        if round_ != self._round:
            self._begin(round_)
        return self._err(path) if self._errs else self._throttle(now)

    def _begin(self, round_: str) -> None:
        self._round = round_
        self._asked: set[str] = set()
        self._served = _SERVED
        self._open_from = float("-inf")

    def _err(self, path: str) -> int | None:
        if path in self._asked:
            return None
        self._asked.add(path)
        draw = hashlib.blake2b(f"{self._salt} {path}".encode(), digest_size=2).digest()
        share = draw[0] / 256
        if share < 0.1:
            return _ERRORS[draw[1] % len(_ERRORS)]
        return _RESET if share < 0.15 else None

    def _throttle(self, now: float) -> int | None:
        if now < self._open_from:
            return 429
        if self._served >= _SERVED:
            self._served = 0
            self._open_from = now + RETRY_AFTER
            return 429
        self._served += 1
        return None


def _is(host: int, turn: tuple[int, int]) -> bool:
    every, first = turn
    return host % every == first
