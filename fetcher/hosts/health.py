"""What the answers of hosts mean for their pace, and when failures are our own network's: learnt, in plain numbers.

Law 5: a host's trouble stays its own; trouble of many hosts at one moment is nobody's but ours. Law 9: nothing
here waits or knows a connection; every method that needs the time takes it.
"""

from __future__ import annotations

from collections import deque

import msgspec

__all__ = ["FIRST_PROBE", "HostReport", "Network", "Pace", "Record"]

FIRST_PROBE = 100  # successes until one more at once is tried
LAST_PROBE = 6_400  # beyond it the count is not doubled
CLOSE = 10  # answers within which a second trouble means load, where the first may have been the page's
SETTLED = 20  # successes after which one refusal may be a race between two ends of one connection
EASED = 0.8  # of the spacing is tried after so many successes
LEAST_SPACING, MOST_SPACING = 0.02, 1.0  # seconds

BURST = 5  # different hosts that had answered before
WITHIN = 2.0  # seconds
HARDLY = 2  # answers that were on their way
LONGEST_REST = 2.0  # seconds between two probes of our own network


class Pace:
    """What one host bears: how many at once, and below one at once, how far apart.

    ``limit`` is one below what was refused last; after 100 successes one more is tried. A refusal of that puts the
    limit back and doubles the count: halving and creeping back would waste a fifth of the requests. ``spacing``
    is in seconds, from start to start, and 0 as long as the host bears one after the other.
    """

    __slots__ = ("after", "limit", "probing", "served", "since", "spacing", "warned")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.spacing = 0.0
        self.after = FIRST_PROBE
        self.served = 0  # since the limit was changed
        self.since = 0  # answers since the last trouble
        self.probing = False
        self.warned = False

    def refused(self, on_wire: int, gap: float, *, sure: bool) -> bool:
        """Note a refusal among ``on_wire`` at once, ``gap`` seconds after the start before it; say if the pace fell.

        What is not ``sure`` to mean load (a 503 or a timeout may be the page's alone, and what obeyed for long is
        a race at most) counts when it comes twice in ten answers.
        """
        meant = self.warned and self.since < (CLOSE if on_wire > 1 else FIRST_PROBE)
        if sure and on_wire > 1 and (self.probing or self.served < SETTLED):
            meant = True
        self.warned = True
        self.since = 0
        if not meant:
            return False
        self.after = min(2 * self.after, LAST_PROBE) if self.probing else FIRST_PROBE
        self.probing = False
        self.served = 0
        if on_wire > 1:
            self.limit = min(self.limit, on_wire - 1)
        elif self.limit > 1:
            self.limit = 1
        elif sure:
            self.spacing = min(MOST_SPACING, 2 * max(self.spacing, gap, LEAST_SPACING))
        return True

    def served_well(self, most: int) -> bool:
        """Note a success of a host that may have ``most`` at once in the end; say if the pace rose."""
        self.since += 1
        self.served += 1
        if self.served < self.after or (self.limit >= most and not self.spacing):
            return False
        if self.probing:
            self.after = FIRST_PROBE  # the last step held
        self.probing = True
        self.served = 0
        if not self.spacing:
            self.limit += 1
        else:
            self.spacing *= EASED
            if self.spacing < LEAST_SPACING:
                self.spacing = 0.0
        return True


class Network:
    """Whether it is our own network that is away: five hosts that had answered fail at once, and hardly one answers.

    Or there is no route to anywhere any more. Then nothing is charged to hosts or rows, for at most ``patience``
    seconds without an answer.
    """

    __slots__ = ("_failures", "_rests", "_struck", "answers", "away_since", "patience", "routeless")

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.answers = 0
        self.away_since: float | None = None
        self.routeless = False  # which is why it is away
        self._failures: deque[tuple[float, str, int]] = deque(maxlen=16 * BURST)
        self._rests = 0
        self._struck = 0.0

    def failed(self, key: str, now: float) -> bool:
        """Note that a host that had answered before cannot be reached; say if that is a new verdict."""
        self._failures.append((now, key, self.answers))
        if self.away_since is not None:
            return False
        different: set[str] = set()
        for when, host, answers in reversed(self._failures):
            if now - when > WITHIN or self.answers - answers > HARDLY:
                return False
            different.add(host)
            if len(different) == BURST:
                self._begin(now)
                return True
        return False

    def lost_route(self, now: float) -> bool:
        """Note that there is no route to anywhere; say if that is a new verdict."""
        if self.away_since is not None:
            return False
        self._begin(now)
        self.routeless = True
        return True

    def found_route(self) -> bool:
        """Note that there is a route; say if that ends the verdict."""
        return self.routeless and self._end()

    def _begin(self, now: float) -> None:
        self.away_since = now
        self._rests = 0
        self._struck = now

    def _end(self) -> bool:
        self.away_since = None
        self.routeless = False
        self._failures.clear()
        return True

    def away(self, now: float) -> bool:
        """Whether what cannot be reached now is nobody's fault but ours."""
        return self.away_since is not None and now - self.away_since < self.patience

    def doubtful(self, now: float) -> bool:
        """Whether the last that was heard is that a host which had answered cannot be reached, a moment ago."""
        if not self._failures:
            return False
        when, _, answers = self._failures[-1]
        return answers == self.answers and now - when <= WITHIN

    def rest(self, began: float, now: float, pause: float) -> float | None:
        """Return the seconds until the next probe, or ``None`` for what was sent before the last one failed."""
        if self._rests and began <= self._struck:
            return None
        self._struck = now
        self._rests += 1
        return min(LONGEST_REST, pause * 2.0 ** min(self._rests - 1, 10))

    def returned(self, began: float) -> bool:
        """Say if the answer to an exchange that began then ends the verdict. ``answers`` counts all of them."""
        if self.away_since is None or began < self.away_since:
            return False
        return self._end()


class Record:
    """What is counted of a host in trouble."""

    __slots__ = ("denied", "failed", "parked", "refused", "slow")

    def __init__(self) -> None:
        self.refused = 0
        self.failed = 0
        self.slow = 0
        self.denied = 0
        self.parked = 0.0

    @property
    def weight(self) -> float:
        """How much there is to tell."""
        return self.refused + self.failed + self.slow + self.denied + self.parked


class HostReport(msgspec.Struct, frozen=True):
    """A host that was slow, throttled, parked or denied, with counts.

    ``slow`` answers took over two seconds; ``failed`` are connects and silences; ``parked`` is in seconds;
    ``ceiling`` is how many at once it was found to bear, ``spacing`` how many seconds apart, where that is less
    than was allowed.
    """

    host: str
    requests: int = 0
    refused: int = 0
    failed: int = 0
    slow: int = 0
    denied: int = 0
    parked: float = 0.0
    ceiling: int | None = None
    spacing: float = 0.0
    given_up: str | None = None
