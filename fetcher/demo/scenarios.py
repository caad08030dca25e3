"""How the hosts of the built-in site behave beyond their latency: slow hosts, errors that recover, throttling.

Laws: the same requests in the same order get the same answers, because everything is drawn from the seed and counted.
Each round of a bench starts from the beginning, so that no mode is affected by the one before. Law 9: the clock is a
parameter.

- ``latency``: every page takes its own latency.
- ``fast``: no page has any latency, so that the client's own speed shows.
- ``mixed``: one host in ten takes ten times as long.
- ``errors``: one page in ten answers its first request with 500, 502, 503 or 504, and one in twenty with a reset.
- ``throttled``: one host in five answers 429 with ``Retry-After: 1`` to its first request and after every five pages,
  and to everything that comes within that second.
"""

from __future__ import annotations

import hashlib
from typing import Literal, TypeAlias, get_args

__all__ = ["RETRY_AFTER_SECONDS", "ROUND_HEADER", "SCENARIOS", "HostFaults", "Scenario", "latency_factor"]

Scenario: TypeAlias = Literal["latency", "fast", "mixed", "errors", "throttled"]
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)

ROUND_HEADER = "bench-round"
"""The request header that names a round."""
RETRY_AFTER_SECONDS = 1
"""How long a throttling host asks to wait: the least that the header can say."""

_SLOW_HOST_FACTOR = 10.0
_SLOW_HOSTS = (10, 4)
"""Of every ten hosts, the one numbered 4."""
_THROTTLING_HOSTS = (5, 1)
_PAGES_PER_PAUSE = 5
_ERROR_SHARE = 0.1
_RESET_SHARE = 0.05
_ERROR_STATUSES = (500, 502, 503, 504)
_RESET = 0


def latency_factor(scenario: Scenario, host: int) -> float:
    """Return by how much the host of that number multiplies the latency of its pages."""
    if scenario == "fast":
        return 0.0
    return _SLOW_HOST_FACTOR if scenario == "mixed" and _is_one_of(host, _SLOW_HOSTS) else 1.0


class HostFaults:
    """Which requests one host refuses, round by round."""

    def __init__(self, scenario: Scenario, seed: int, host: int) -> None:
        self._has_errors = scenario == "errors"
        self._throttles = scenario == "throttled" and _is_one_of(host, _THROTTLING_HOSTS)
        self._salt = f"{seed} {host}"
        self._begin("")

    def status_for(self, path: str, round_: str, now: float) -> int | None:
        """Return the status that refuses a request, 0 for a reset, or ``None`` when the page is served.

        ``now`` is the time of arrival in seconds, by any one clock.
        """
        if not (self._has_errors or self._throttles):
            return None
        if round_ != self._round:
            self._begin(round_)
        return self._draw_error(path) if self._has_errors else self._throttle(now)

    def _begin(self, round_: str) -> None:
        self._round = round_
        self._requested: set[str] = set()
        self._served_since_pause = _PAGES_PER_PAUSE
        self._paused_until = float("-inf")

    def _draw_error(self, path: str) -> int | None:
        if path in self._requested:
            return None
        self._requested.add(path)
        draw = hashlib.blake2b(f"{self._salt} {path}".encode(), digest_size=2).digest()
        share = draw[0] / 256
        if share < _ERROR_SHARE:
            return _ERROR_STATUSES[draw[1] % len(_ERROR_STATUSES)]
        return _RESET if share < _ERROR_SHARE + _RESET_SHARE else None

    def _throttle(self, now: float) -> int | None:
        if now < self._paused_until:
            return 429
        if self._served_since_pause >= _PAGES_PER_PAUSE:
            self._served_since_pause = 0
            self._paused_until = now + RETRY_AFTER_SECONDS
            return 429
        self._served_since_pause += 1
        return None


def _is_one_of(host: int, period_and_first: tuple[int, int]) -> bool:
    period, first = period_and_first
    return host % period == first
