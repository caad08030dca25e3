"""Whether it is our own network that is away: then nothing is charged to hosts or rows.

Law 5: trouble of many hosts at one moment is nobody's but ours. Law 9: every method that needs the time takes it;
whether the system has a route to anywhere is asked by whoever calls.
"""

from __future__ import annotations

from collections import deque

__all__ = ["Network"]

MIN_FAILED_HOSTS = 5  # different ones that had answered before
FAILURE_WINDOW_SECONDS = 2.0
MAX_ANSWERS_MEANWHILE = 2  # that were on their way
MAX_PROBE_PAUSE_SECONDS = 2.0
KEPT_FAILURES = 16 * MIN_FAILED_HOSTS


class Network:
    """Tells an outage of our own from hosts that fail.

    It is an outage when five hosts that had answered fail at once, and hardly one answers; or when there is no route
    to anywhere any more. It holds for at most ``patience`` seconds without an answer.
    """

    __slots__ = ("_failures", "_last_probe_at", "_probes", "answers", "away_since", "patience", "routeless")

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.answers = 0
        self.away_since: float | None = None
        self.routeless = False  # which is why it is away
        self._failures: deque[tuple[float, str, int]] = deque(maxlen=KEPT_FAILURES)
        self._probes = 0
        self._last_probe_at = 0.0

    def failed(self, key: str, now: float) -> bool:
        """Note that a host that had answered before cannot be reached; say if an outage begins with it."""
        self._failures.append((now, key, self.answers))
        if self.away_since is not None:
            return False
        different: set[str] = set()
        for when, host, answers in reversed(self._failures):
            if now - when > FAILURE_WINDOW_SECONDS or self.answers - answers > MAX_ANSWERS_MEANWHILE:
                return False
            different.add(host)
            if len(different) == MIN_FAILED_HOSTS:
                self._begin(now)
                return True
        return False

    def lost_route(self, now: float) -> bool:
        """Note that there is no route to anywhere; say if an outage begins with it."""
        if self.away_since is not None:
            return False
        self._begin(now)
        self.routeless = True
        return True

    def found_route(self) -> bool:
        """Note that there is a route; say if an outage ends with it."""
        return self.routeless and self._end()

    def answered(self, began: float) -> bool:
        """Note the answer to an exchange that began then; say if an outage ends with it."""
        self.answers += 1
        if self.away_since is None or began < self.away_since:
            return False
        return self._end()

    def away(self, now: float) -> bool:
        """Whether what cannot be reached now is nobody's fault but ours."""
        return self.away_since is not None and now - self.away_since < self.patience

    def doubtful(self, now: float) -> bool:
        """Whether the last that was heard is that a host which had answered cannot be reached, a moment ago."""
        if not self._failures:
            return False
        when, _, answers = self._failures[-1]
        return answers == self.answers and now - when <= FAILURE_WINDOW_SECONDS

    def probe_pause(self, began: float, now: float, first: float) -> float | None:
        """Return the seconds until the next probe, from ``first`` on doubled with each.

        ``None`` for what was sent before the last probe failed.
        """
        if self._probes and began <= self._last_probe_at:
            return None
        self._last_probe_at = now
        self._probes += 1
        return min(MAX_PROBE_PAUSE_SECONDS, first * 2.0 ** min(self._probes - 1, 10))

    def _begin(self, now: float) -> None:
        self.away_since = now
        self._probes = 0
        self._last_probe_at = now

    def _end(self) -> bool:
        self.away_since = None
        self.routeless = False
        self._failures.clear()
        return True
