"""The slots: how many exchanges may be on the wire at once, in all, of each host, and of hosts that share something.

Law 5: a host's trouble stays its own. Law 9: nothing here waits; every method that needs the time takes it.

A *slot* is one exchange on the wire, counted for all hosts and for each. A *reservation* is a row that was started for
a host and has not reached the wire yet: reservations keep the dispatcher honest and block nobody; only ``on_wire``
does. Those hosts that are suspect, for they may be dead, hold together at most a twelfth of the slots.
"""

from __future__ import annotations

from collections import deque

import msgspec

from fetcher.config import Limits
from fetcher.hosts.state import HostGroup, HostState

__all__ = [
    "MAX_CATCH_UP_SECONDS",
    "RECHECK_RESERVED_SECONDS",
    "SharedLimits",
    "block",
    "count_repeat",
    "join",
    "set_share",
    "suspects_share_of",
]

MAX_CATCH_UP_SECONDS = 0.05  # of --rate that may be made up for a late wake-up
RECHECK_RESERVED_SECONDS = (
    0.05  # what is held by reservations and waiters alone is asked again: they may come to nothing
)


def suspects_share_of(slots: int) -> int:
    """Return how many of the slots suspect hosts may hold together, beside others.

    A twelfth: with what dead hosts hold until they are suspect it is a tenth in all.
    """
    return max(1, slots // 12)


class SharedLimits:
    """The slots and the rate of one ``Fetcher``, which all hosts share."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.rate = limits.rate
        self.concurrency = limits.concurrency  # less while our own network is away
        self.paused = False  # nothing new goes on the wire
        self.on_wire = 0
        self.reserved = 0
        self.suspected = 0  # of both, those of suspect hosts
        self.rate_next = 0.0
        self.at_gate: deque[HostState] = deque()  # hosts that somebody waits for at the gate; they go before new rows
        self.freed: dict[HostGroup, None] = {}  # groups that have a slot again, with hosts that asked for one

    # For all hosts together

    def has_room(self, now: float) -> bool:
        """Whether a further row of any host would find a slot at once, and its share of the rate."""
        if self.on_wire + self.reserved >= self.concurrency or self.at_gate or self.paused:
            return False
        rate = self.rate
        return (self._rate_allows(rate, now) if rate else self.rate_next) <= now

    def room_at(self, now: float) -> float | None:
        """Say when time alone will make room for a further row, or ``None`` if there is, or an exchange must end."""
        rate = self.rate
        if self.paused:
            return None  # whoever ends the pause tells
        if self.on_wire + self.reserved >= self.concurrency:
            # A reservation may come to nothing, and nobody is told.
            return now + RECHECK_RESERVED_SECONDS if self.reserved else None
        if not rate:
            return self.rate_next if self.rate_next > now else None
        if self.at_gate:  # they go first, at a time the gate keeps
            return max(self.rate_next, now + MAX_CATCH_UP_SECONDS)
        allowed = self._rate_allows(rate, now)
        if allowed <= now:
            return None
        return min(allowed, max(self.rate_next, now + RECHECK_RESERVED_SECONDS)) if self.reserved else allowed

    def has_slot(self, now: float) -> bool:
        """Whether an exchange of any host would find a slot at once, and the rate allows it."""
        return self.on_wire < self.concurrency and now >= self.rate_next and not self.paused

    def _rate_allows(self, rate: float, now: float) -> float:
        """Say when the rate has place for one more start behind all that are reserved."""
        return max(self.rate_next, now - MAX_CATCH_UP_SECONDS) + self.reserved / rate

    def rest_until(self, when: float) -> None:
        """Start nothing of any host before then: our own network is away."""
        self.concurrency = max(1, self.concurrency // 2)
        self.rate_next = max(self.rate_next, when)

    def recover(self) -> None:
        """Take one slot more into use again: there was an answer."""
        self.concurrency += 1

    # For some of them

    @property
    def suspects_share(self) -> int:
        """The slots that suspect hosts may hold together: half while nobody else is at work."""
        most = self.concurrency
        return suspects_share_of(most) if self.on_wire + self.reserved > self.suspected else max(1, most // 2)

    @property
    def excess_of_suspects(self) -> int:
        """How many exchanges of suspect hosts must make room for the others."""
        if self.on_wire + self.reserved < self.concurrency or self.paused:
            return 0
        return max(0, self.suspected - suspects_share_of(self.concurrency))

    def set_suspect(self, host: HostState, *, suspect: bool) -> None:
        """Take a host for one that may be dead, or no longer."""
        if host.suspect is not suspect:
            host.suspect = suspect
            held = host.on_wire + host.reserved
            self.suspected += held if suspect else -held

    # Reservations and slots

    def reserve(self, host: HostState) -> None:
        """Reserve a slot for one row of the host."""
        host.reserved += 1
        self.reserved += 1
        if host.suspect or host.groups:
            self._reserve_shares(host, 1)

    def unreserve(self, host: HostState) -> None:
        """Give a reservation back: the row is at the gate, or never will be."""
        host.reserved -= 1
        self.reserved -= 1
        if host.suspect or host.groups:
            self._reserve_shares(host, -1)

    def take(self, host: HostState, now: float) -> None:
        """Take a slot of all and one of the host's together."""
        self.on_wire += 1
        host.on_wire += 1
        host.requests += 1
        host.started_at = now
        if host.suspect or host.groups:
            self._take_shares(host)
        if host.delay:
            host.wait_until(now + host.delay)
        if self.rate:
            self.rate_next = max(self.rate_next, now - MAX_CATCH_UP_SECONDS) + 1 / self.rate

    def release(self, host: HostState) -> None:
        """Give both slots back."""
        self.on_wire -= 1
        host.on_wire -= 1
        if host.suspect or host.groups:
            self._release_shares(host)

    def _reserve_shares(self, host: HostState, number: int) -> None:
        if host.suspect:
            self.suspected += number
        for group in host.groups:
            group.ahead += number
            if number > 0:
                group.blocked.pop(host.key, None)

    def _take_shares(self, host: HostState) -> None:
        if host.suspect:
            self.suspected += 1
        for group in host.groups:
            group.on_wire += 1

    def _release_shares(self, host: HostState) -> None:
        if host.suspect:
            self.suspected -= 1
        for group in host.groups:
            group.on_wire -= 1
            if group.blocked:
                self.freed[group] = None


def set_share(shared: SharedLimits, concurrency: int, rate: float | None) -> None:
    """Take another part of the slots and the rate that several processes share. What is on the wire stays there."""
    less = shared.concurrency < shared.limits.concurrency  # our own network is away, or was
    shared.limits = msgspec.structs.replace(shared.limits, concurrency=concurrency, rate=rate)
    shared.concurrency = min(shared.concurrency, concurrency) if less else concurrency
    shared.rate = rate


def join(host: HostState, group: HostGroup) -> None:
    """Count what a host has under way for a group that it joins."""
    group.on_wire += host.on_wire
    group.ahead += host.reserved + len(host.waiters)


def count_repeat(host: HostState) -> None:
    """Count a request that is sent once more, for its kept connection was gone."""
    host.requests += 1


def block(host: HostState) -> None:
    """Have a host told, which had a row for a group that is full, when that has a slot again."""
    for group in host.groups:
        if group.full:
            group.blocked[host.key] = None
            return
