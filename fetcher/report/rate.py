"""How fast a count grows: the mean over the last few seconds, for whoever reads it off a line.

Law 9: nothing here looks at a clock.
"""

from __future__ import annotations

from collections import deque

__all__ = ["RateMeter"]

LEAST_SECONDS = 0.5  # over less than that a rate is chance
SAMPLES = 64  # in the window: more than a person can tell apart


class RateMeter:
    """The mean growth of a count over the last ``seconds``, from the beginning where that is less long ago.

    It is a plain mean over a window that slides, and no exponential one: that begins with what the first moment showed,
    and tells of a burst for long after it.

    >>> meter = RateMeter(5.0)
    >>> for second in range(9):
    ...     meter.note(float(second), 48 * second)
    >>> meter.rate
    48.0
    """

    def __init__(self, seconds: float = 5.0) -> None:
        self._seconds = seconds
        self._samples: deque[tuple[float, int]] = deque()
        self._newest: tuple[float, int] | None = None

    def note(self, now: float, count: int) -> None:
        """Take the count at the time ``now`` (any clock's seconds; one that was set back begins anew)."""
        samples = self._samples
        if self._newest is not None and now < self._newest[0]:
            samples.clear()
        self._newest = (now, count)
        if not samples or now - samples[-1][0] >= self._seconds / SAMPLES:
            samples.append(self._newest)
        while len(samples) > 1 and samples[1][0] <= now - self._seconds:
            samples.popleft()

    @property
    def rate(self) -> float | None:
        """Growth per second, ``None`` where that cannot be told yet."""
        if self._newest is None:
            return None
        (began, earliest), (now, last) = self._samples[0], self._newest
        first = float(earliest)
        edge = now - self._seconds
        if began < edge and len(self._samples) > 1:  # the window begins between two samples
            following, then = self._samples[1]
            first += (then - earliest) * (edge - began) / (following - began)
            began = edge
        return (last - first) / (now - began) if now - began >= LEAST_SECONDS else None
