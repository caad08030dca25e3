"""The slots: how many exchanges may be on the wire at once, in all, of each host, and of those that share something.

Law 5: a host's trouble stays its own. Law 9: nothing here waits; every method that needs the time takes it.

A *slot* is one exchange on the wire, counted for all hosts and for each. A *promise* is a row admitted for
a host that has not reached the wire yet: promises keep admission honest and block nobody; only ``on_wire``
does. A host has one slot until its first answer; those that are suspect hold together at most a twelfth.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import Generic, TypeVar

from fetcher.config import Limits
from fetcher.hosts.host import Host

__all__ = ["CATCH_UP", "SHORTLY", "Slots", "share_of"]

CATCH_UP = 0.05  # seconds of --rate that may be made up for a late wake-up
SHORTLY = 0.05  # seconds until what is held by promises and waiters alone is asked again
PRESENTLY = 0.5  # the same, for what is held by others' slots

W = TypeVar("W")


def share_of(slots: int) -> int:
    """Return how many of the slots suspect hosts may hold together, beside others.

    A twelfth: with what dead hosts hold until they are suspect it is a tenth in all.
    """
    return max(1, slots // 12)


class Slots(Generic[W]):
    """The slots of one ``Fetcher``, and the queue at the gate.

    ``W`` is whatever waits at the gate (a future, in the pipeline): the gate hands it back and knows no more.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._rate = limits.rate
        self.concurrency = limits.concurrency  # less while our own network is away
        self.on_wire = 0
        self.promised = 0
        self.suspected = 0  # of both, those of suspect hosts
        self.rate_next = 0.0
        self.freed: list[str] = []  # hosts of a group that has a slot again, to be told
        self._contenders: deque[Host[W]] = deque()
        self._sleepers: list[tuple[float, int, Host[W]]] = []
        self._tick = 0

    # Admission: may a new row start?

    def room(self, now: float) -> bool:
        """Whether a further row of any host would find a slot at once, and its share of the rate."""
        if self.on_wire + self.promised >= self.concurrency or self._contenders:
            return False
        rate = self._rate
        return (self._rate_allows(rate, now) if rate else self.rate_next) <= now

    def room_from(self, now: float) -> float | None:
        """Say when time alone will make room for a further row, or ``None`` if there is, or an exchange must end."""
        rate = self._rate
        if self.on_wire + self.promised >= self.concurrency:
            return now + SHORTLY if self.promised else None  # a promise may come to nothing, and nobody is told
        if not rate:
            return self.rate_next if self.rate_next > now else None
        if self._contenders:  # they go first, at a time the gate keeps
            return max(self.rate_next, now + CATCH_UP)
        allowed = self._rate_allows(rate, now)
        if allowed <= now:
            return None
        return min(allowed, max(self.rate_next, now + SHORTLY)) if self.promised else allowed

    def _rate_allows(self, rate: float, now: float) -> float:
        """Say when the rate has place for one more start behind all that are promised."""
        return max(self.rate_next, now - CATCH_UP) + self.promised / rate

    def opens(self, host: Host[W], now: float) -> float | None:
        """Say from when on the host takes a new row: a time (``<= now``: at once), or ``None`` for "when one ends"."""
        if host.given_up is not None:
            return now
        ahead = host.promised + len(host.waiters)
        if host.on_wire + ahead >= (host.limit if host.robots_known else 1):
            # Promises may come to nothing and waiters be cancelled, and nobody is told: only time is sure then.
            return None if host.on_wire else max(host.not_before, now + SHORTLY)
        if host.rests_until > now:
            return max(host.not_before, host.rests_until)
        if host.suspect and self.suspected >= self.share:
            return max(host.not_before, now + PRESENTLY)
        for group in host.groups:
            if group.on_wire + group.ahead >= group.limit:
                group.blocked[host.key] = None
                return max(host.not_before, now + PRESENTLY)
        if ahead and host.delay:
            return max(host.not_before, now) + ahead * host.delay
        return host.not_before

    @property
    def share(self) -> int:
        """The slots that suspect hosts may hold together: half while nobody else is at work."""
        most = self.concurrency
        return share_of(most) if self.on_wire + self.promised > self.suspected else max(1, most // 2)

    def promise(self, host: Host[W]) -> None:
        """Admit one row of the host."""
        host.promised += 1
        self.promised += 1
        if host.suspect or host.groups:
            self._promise_shares(host, 1)

    def withdraw(self, host: Host[W]) -> None:
        """Take back a promise that will not be used."""
        host.promised -= 1
        self.promised -= 1
        if host.suspect or host.groups:
            self._promise_shares(host, -1)

    def _promise_shares(self, host: Host[W], number: int) -> None:
        if host.suspect:
            self.suspected += number
        for group in host.groups:
            group.ahead += number
            if number > 0:
                group.blocked.pop(host.key, None)

    # The gate: may this exchange start?

    def may_start(self, host: Host[W], now: float) -> bool:
        """Whether an exchange with the host may start now."""
        return (
            self.on_wire < self.concurrency
            and host.on_wire < host.limit
            and now >= host.not_before
            and now >= self.rate_next
            and not ((host.suspect or host.groups) and self._held(host))
        )

    def _held(self, host: Host[W]) -> bool:
        """Whether what it shares with others is used up."""
        if host.suspect and self.suspected >= self.share:
            return True
        return any(group.on_wire >= group.limit for group in host.groups)

    def start(self, host: Host[W], now: float) -> None:
        """Take the global slot and the host's together."""
        self.on_wire += 1
        host.on_wire += 1
        host.requests += 1
        host.started = now
        if host.suspect or host.groups:
            self._share(host)
        if host.delay:
            host.not_before = max(host.not_before, now + host.delay)
        if self._rate:
            self.rate_next = max(self.rate_next, now - CATCH_UP) + 1 / self._rate

    def finish(self, host: Host[W]) -> bool:
        """Give both slots back; say if somebody waits at the gate, for them or for others."""
        self.on_wire -= 1
        host.on_wire -= 1
        if host.suspect or host.groups:
            self._share_no_more(host)
        if host.waiters:
            self.welcome(host)
        return bool(self._contenders or self._sleepers)

    def _share(self, host: Host[W]) -> None:
        if host.suspect:
            self.suspected += 1
        for group in host.groups:
            group.on_wire += 1

    def _share_no_more(self, host: Host[W]) -> None:
        if host.suspect:
            self.suspected -= 1
        for group in host.groups:
            group.on_wire -= 1
            if group.blocked:
                key = next(iter(group.blocked))
                del group.blocked[key]
                self.freed.append(key)

    def wait(self, host: Host[W], waiter: W) -> None:
        """Queue at the gate."""
        host.waiters.append(waiter)
        for group in host.groups:
            group.ahead += 1
        self.welcome(host)

    def welcome(self, host: Host[W]) -> None:
        """Have those who wait for the host look again: it may have more slots than before."""
        if host.waiters and not host.contending and host.on_wire < host.limit:
            host.contending = True
            self._contenders.append(host)

    def next_through(self, now: float) -> tuple[list[W], float | None]:
        """Let through whom the slots and the time allow, in the order of arrival, one host after the other.

        Returns the waiters whose slots are taken now, and when to ask again if only time holds others back.
        """
        while self._sleepers and self._sleepers[0][0] <= now:
            self._contenders.append(heapq.heappop(self._sleepers)[2])
        through: list[W] = []
        while self._contenders and self.on_wire < self.concurrency and now >= self.rate_next:
            host = self._contenders.popleft()
            opens = host.not_before
            if opens <= now and (host.suspect or host.groups) and self._held(host):
                opens = now + SHORTLY
            if host.waiters and now < opens:
                self._tick += 1
                heapq.heappush(self._sleepers, (opens, self._tick, host))
                continue
            host.contending = False
            if not host.waiters or host.on_wire >= host.limit:
                continue  # the host's own finish() brings it back
            self.start(host, now)
            through.append(host.waiters.pop(0))
            for group in host.groups:
                group.ahead -= 1
            self.welcome(host)
        again = self._sleepers[0][0] if self._sleepers else None
        if self._contenders and now < self.rate_next:
            again = self.rate_next if again is None else min(again, self.rate_next)
        return through, again
