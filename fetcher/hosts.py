"""What is known of every host: the one truth that admission, pacing and patience are decided from.

Law 5: a host's trouble stays its own. Law 9: nothing here waits; every method that needs the time takes it.

A *slot* is one exchange on the wire, counted for all hosts and for each. A *promise* is a row admitted for
a host that has not reached the wire yet: promises keep admission honest and block nobody; only ``on_wire``
does.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from typing import Generic, TypeVar

from fetcher.config import Limits, RetryPolicy

__all__ = ["Host", "Hosts"]

CHARGES = 20  # without one success in between
PORTS = 16  # of one host that are known to have answered
KEPT = 65_536  # hosts remembered beyond those at work
CATCH_UP = 0.05  # seconds of --rate that may be made up for a late wake-up
SHORTLY = 0.05  # seconds until what is held by promises and waiters alone is asked again

W = TypeVar("W")


class Host(Generic[W]):
    """One host: what is on its wire, what is promised, from when on it may be asked, and its health."""

    __slots__ = (
        "answered",
        "charges",
        "contending",
        "given_up",
        "key",
        "not_before",
        "on_wire",
        "parked_until",
        "promised",
        "struck_at",
        "waiters",
    )

    def __init__(self, key: str) -> None:
        self.key = key
        self.on_wire = 0
        self.promised = 0
        self.not_before = 0.0
        self.parked_until = 0.0
        self.answered: tuple[int, ...] = ()  # ports
        self.charges = 0
        self.struck_at = 0.0
        self.given_up: str | None = None
        self.waiters: list[W] = []  # a deque would hold 600 bytes for each host that nobody waits for
        self.contending = False

    def idle(self, now: float) -> bool:
        """Whether forgetting the host would change nothing but its reputation."""
        return not (self.on_wire or self.promised or self.waiters or self.not_before > now)

    def answer(self, port: int, *, well: bool = True) -> None:
        """Note an answer from a port; one that served us, ``well``, ends the count of refusals."""
        if port not in self.answered:
            self.answered = (*self.answered, port)[-PORTS:]
        if well:
            self.charges = 0

    def leave(self, waiter: W) -> None:
        """Stop waiting at the gate (the task was cancelled)."""
        if waiter in self.waiters:
            self.waiters.remove(waiter)


class Hosts(Generic[W]):
    """All hosts of one ``Fetcher``, its slots, and the queue at the gate.

    ``W`` is whatever waits at the gate (a future, in the pipeline): the gate hands it back and knows no more.
    """

    def __init__(self, limits: Limits, retry: RetryPolicy) -> None:
        self.limits = limits
        self.retry = retry
        self.on_wire = 0
        self.promised = 0
        self.rate_next = 0.0
        self._hosts: dict[str, Host[W]] = {}
        self._contenders: deque[Host[W]] = deque()
        self._sleepers: list[tuple[float, int, Host[W]]] = []
        self._tick = 0
        self._sweep_at = KEPT

    def __len__(self) -> int:
        return len(self._hosts)

    def get(self, key: str, now: float) -> Host[W]:
        """Return what is known of the host ``key``, a blank sheet at first."""
        host = self._hosts.get(key)
        if host is None:
            if len(self._hosts) >= self._sweep_at:
                self._forget(now)
            host = self._hosts[key] = Host(key)
        return host

    def _forget(self, now: float) -> None:
        """Law 3: drop the hosts nothing depends on; of those that refused us the newest are kept."""
        refused = [key for key, host in self._hosts.items() if (host.charges or host.given_up) and host.idle(now)]
        remembered = set(refused[-KEPT // 2 :])
        self._hosts = {key: host for key, host in self._hosts.items() if key in remembered or not host.idle(now)}
        self._sweep_at = max(KEPT, 2 * len(self._hosts))

    # Admission: may a new row start?

    def room(self, now: float) -> bool:
        """Whether a further row of any host would find a slot at once, and its share of the rate."""
        if self.on_wire + self.promised >= self.limits.concurrency or self._contenders:
            return False
        return not self.limits.rate or self._rate_allows(self.limits.rate, now) <= now

    def room_from(self, now: float) -> float | None:
        """Say when time alone will make room for a further row, or ``None`` if there is, or an exchange must end."""
        rate = self.limits.rate
        if self.on_wire + self.promised >= self.limits.concurrency:
            return now + SHORTLY if self.promised else None  # a promise may come to nothing, and nobody is told
        if not rate:
            return None
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
        if host.on_wire + ahead >= self.limits.per_host:
            # Promises may come to nothing and waiters be cancelled, and nobody is told: only time is sure then.
            return None if host.on_wire else max(host.not_before, now + SHORTLY)
        if ahead and self.limits.delay:
            return max(host.not_before, now) + ahead * self.limits.delay
        return host.not_before

    def promise(self, host: Host[W]) -> None:
        """Admit one row of the host."""
        host.promised += 1
        self.promised += 1

    def withdraw(self, host: Host[W]) -> None:
        """Take back a promise that will not be used."""
        host.promised -= 1
        self.promised -= 1

    # The gate: may this exchange start?

    def may_start(self, host: Host[W], now: float) -> bool:
        """Whether an exchange with the host may start now."""
        return (
            self.on_wire < self.limits.concurrency
            and host.on_wire < self.limits.per_host
            and now >= host.not_before
            and now >= self.rate_next
        )

    def start(self, host: Host[W], now: float) -> None:
        """Take the global slot and the host's together."""
        self.on_wire += 1
        host.on_wire += 1
        if self.limits.delay:
            host.not_before = max(host.not_before, now + self.limits.delay)
        if self.limits.rate:
            self.rate_next = max(self.rate_next, now - CATCH_UP) + 1 / self.limits.rate

    def finish(self, host: Host[W]) -> None:
        """Give both slots back."""
        self.on_wire -= 1
        host.on_wire -= 1
        self._contend(host)

    def wait(self, host: Host[W], waiter: W) -> None:
        """Queue at the gate."""
        host.waiters.append(waiter)
        self._contend(host)

    def _contend(self, host: Host[W]) -> None:
        if host.waiters and not host.contending and host.on_wire < self.limits.per_host:
            host.contending = True
            self._contenders.append(host)

    def next_through(self, now: float) -> tuple[list[W], float | None]:
        """Let through whom the slots and the time allow, in the order of arrival, one host after the other.

        Returns the waiters whose slots are taken now, and when to ask again if only time holds others back.
        """
        while self._sleepers and self._sleepers[0][0] <= now:
            self._contenders.append(heapq.heappop(self._sleepers)[2])
        through: list[W] = []
        while self._contenders and self.on_wire < self.limits.concurrency and now >= self.rate_next:
            host = self._contenders.popleft()
            if host.waiters and now < host.not_before:
                self._tick += 1
                heapq.heappush(self._sleepers, (host.not_before, self._tick, host))
                continue
            host.contending = False
            if not host.waiters or host.on_wire >= self.limits.per_host:
                continue  # the host's own finish() brings it back
            self.start(host, now)
            through.append(host.waiters.pop(0))
            self._contend(host)
        again = self._sleepers[0][0] if self._sleepers else None
        if self._contenders and now < self.rate_next:
            again = self.rate_next if again is None else min(again, self.rate_next)
        return through, again

    # Health: whose fault was it?

    def charge(self, host: Host[W], now: float, retry_after: float | None) -> None:
        """Park a host that will not serve us now, or give it up.

        Without ``Retry-After``, or with one of 0, the pause doubles from ``backoff``. A host without one success
        in twenty charges or in ``host_patience`` seconds, or that asks for more than ``max_retry_after``, is
        given up. Answers to what was sent before the parking count for nothing new.
        """
        if host.given_up is not None:
            return
        retry = self.retry
        if retry_after is not None and retry_after > retry.max_retry_after:
            wish = f"{host.key} asks to wait {math.ceil(retry_after)} s"
            host.given_up = f"{wish}, max-retry-after is {retry.max_retry_after:g} s"
            return
        if now >= host.parked_until:
            host.charges += 1
            if host.charges == 1:
                host.struck_at = now
            refused = now - host.struck_at
            if host.charges >= CHARGES:
                host.given_up = f"{host.key} refused {host.charges} times without one success"
            elif refused >= retry.host_patience:
                host.given_up = f"{host.key} refused for {refused:.0f} s, host-patience is {retry.host_patience:g} s"
        pause = retry_after or min(retry.backoff * 2 ** (host.charges - 1), retry.max_backoff)
        host.parked_until = max(host.parked_until, now + pause)
        host.not_before = max(host.not_before, host.parked_until)
