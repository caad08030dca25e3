"""One decision about hosts: may it start now, and if not, when? ``Scheduler.decide`` answers it for everybody.

Law 5: a host's trouble stays its own. Law 9: nothing here waits; the clock is a parameter.

============================  ===================  ==================  ==========
rule                          DISPATCH             CONNECT             SEND
============================  ===================  ==================  ==========
the host is given up          given up             given up            given up
slots and rate of all         ``has_room``, once   ``has_slot``        no
slots of the host             on the wire,         on the wire alone   no
                              reserved, waiting
robots.txt is unknown         one row              no                  no
the breaker is open           yes                  unless IN_PLACE     no
the suspects' share           yes                  yes                 no
a limit shared in a group     yes                  yes                 no
delay, parked                 yes, for each row    yes                 no
                              ahead
it asked to be left alone     in "parked"          in "parked"         yes
delay since the last sending  no                   no                  yes
============================  ===================  ==================  ==========

DISPATCH is the frontier's question before a row gets its task, CONNECT the gate's before an exchange takes its slots
(CONNECT_IN_PLACE for what waits at the gate, and for rows that nobody takes back), SEND the transport's just before the
request is written. The slots and the rate of all hosts are asked for once before all hosts: ``SharedLimits.has_room``.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

from fetcher.config import HostPolicy, Limits, RetryPolicy
from fetcher.hosts.health import HealthTracker
from fetcher.hosts.limits import RECHECK_RESERVED_SECONDS, SharedLimits
from fetcher.hosts.network import Network
from fetcher.hosts.state import HostState
from fetcher.hosts.table import HostTable

__all__ = [
    "CONNECT",
    "CONNECT_IN_PLACE",
    "DISPATCH",
    "GIVEN_UP",
    "MAX_WAIT_IN_TASK_SECONDS",
    "SEND",
    "WHEN_ONE_ENDS",
    "Scheduler",
    "Step",
    "must_go_back",
]

MAX_WAIT_IN_TASK_SECONDS = 1.0  # a row that must wait longer leaves its task
RECHECK_SHARED_SECONDS = 0.5  # what is held by others' slots is asked again

WHEN_ONE_ENDS = math.inf
"""The answer where only the end of an exchange makes room."""
GIVEN_UP = -math.inf
"""The answer for a host that is given up: at once, to be told so."""


class Step(Enum):
    """Where a row is that asks whether it may go on."""

    DISPATCH = "dispatch"
    CONNECT = "connect"
    CONNECT_IN_PLACE = "connect in place"
    SEND = "send"


DISPATCH, CONNECT, CONNECT_IN_PLACE, SEND = Step


class Scheduler:
    """Everything known of the hosts of one ``Fetcher``, and who waits at the gate.

    What waits is the gate's own; it is handed back and not looked into. ``listeners`` are told the name of each host
    that may take a row again.
    """

    def __init__(
        self,
        limits: Limits,
        retry: RetryPolicy,
        policies: Iterable[tuple[str, HostPolicy]] = (),
        *,
        robots: bool = False,
        has_route: Callable[[], bool] = lambda: True,
    ) -> None:
        self.table = HostTable(limits, retry, policies, robots=robots)
        self.shared = SharedLimits(limits)
        self.network = Network(retry.host_patience)
        self.health = HealthTracker(self.table, self.shared, self.network, has_route)
        self.listeners: list[Callable[[str], None]] = []
        self.get = self.table.get
        self._sleepers: list[tuple[float, int, HostState]] = []  # hosts somebody waits for, whose time has not come
        self._tick = 0

    def decide(self, host: HostState, step: Step, now: float) -> float:
        """Say from when on a row may go on with ``host``: a time (``<= now``: at once), or one of two constants.

        Changes nothing.
        """
        breaker, shared = host.breaker, self.shared
        if breaker.given_up is not None:
            return GIVEN_UP
        if step is SEND:
            return max(breaker.retry_after_until, host.sent_at + host.delay if host.delay and host.sent_at else 0.0)
        not_before = host.not_before
        if step is DISPATCH:
            ahead = host.reserved + len(host.waiters)
            if host.on_wire + ahead >= (host.limit if host.robots_known else 1):
                # Reservations may come to nothing and waiters be cancelled, and nobody is told: only time is sure then.
                return WHEN_ONE_ENDS if host.on_wire else max(not_before, now + RECHECK_RESERVED_SECONDS)
            if breaker.open_until > now:
                return max(not_before, breaker.open_until)
            if (host.suspect or host.groups) and self._shares_are_taken(host, waiting=True):
                return max(not_before, now + RECHECK_SHARED_SECONDS)
            return max(not_before, now) + ahead * host.delay if ahead and host.delay else not_before
        if breaker.open_until > now and step is CONNECT:
            return max(not_before, breaker.open_until)
        if not_before > now:
            return not_before
        if (host.suspect or host.groups) and self._shares_are_taken(host, waiting=False):
            return now + RECHECK_RESERVED_SECONDS
        if host.on_wire >= host.limit or not shared.has_slot(now):
            return WHEN_ONE_ENDS
        return not_before

    def _shares_are_taken(self, host: HostState, *, waiting: bool) -> bool:
        """Whether what the host shares with others is used up; at DISPATCH who is ``waiting`` counts too."""
        shared = self.shared
        if host.suspect and shared.suspected >= shared.suspects_share:
            return True
        return any(group.on_wire + (group.ahead if waiting else 0) >= group.limit for group in host.groups)

    # The slots

    def finish(self, host: HostState) -> bool:
        """Give the slots of an exchange back; say if somebody waits at the gate, for them or for others."""
        self.shared.release(host)
        if host.waiters:
            self.recheck(host)
        return bool(self.shared.at_gate or self._sleepers)

    def tell(self, key: str) -> None:
        """Tell the listeners that a host may take a row again."""
        for listener in self.listeners:
            listener(key)

    def tell_blocked(self) -> None:
        """Tell one of the hosts that had a row for a group which has a slot again.

        Whoever is told may have no use for it, so this is called again once the rows that may start have started.
        """
        freed = self.shared.freed
        for group in list(freed):
            if group.blocked and not group.full:
                key = next(iter(group.blocked))
                del group.blocked[key]
                self.tell(key)
            else:
                freed.pop(group, None)

    # The queue of the gate

    def wait(self, host: HostState, waiter: object) -> None:
        """Queue for the host."""
        host.waiters.append(waiter)
        for group in host.groups:
            group.ahead += 1
        self.recheck(host)

    def leave(self, host: HostState, waiter: object) -> None:
        """Stop waiting for the host."""
        if waiter in host.waiters:
            host.waiters.remove(waiter)
            for group in host.groups:
                group.ahead -= 1

    def recheck(self, host: HostState) -> None:
        """Have those who wait for the host look again: it may have more slots than before."""
        if host.waiters and not host.at_gate and host.on_wire < host.limit:
            host.at_gate = True
            self.shared.at_gate.append(host)

    def next_through(self, now: float) -> tuple[list[Any], float | None]:
        """Let through whom the slots and the time allow, in the order of arrival, one host after the other.

        Returns the waiters whose slots are taken now, and when to ask again if only time holds others back.
        """
        shared, sleepers = self.shared, self._sleepers
        queue = shared.at_gate
        while sleepers and sleepers[0][0] <= now:
            queue.append(heapq.heappop(sleepers)[2])
        through: list[Any] = []
        while queue and shared.has_slot(now):
            host = queue.popleft()
            opens = self.decide(host, CONNECT_IN_PLACE, now) if host.waiters else WHEN_ONE_ENDS
            if now < opens < WHEN_ONE_ENDS:
                self._tick += 1
                heapq.heappush(sleepers, (opens, self._tick, host))
                continue
            host.at_gate = False
            if opens > now:
                continue  # the host's own finish() brings it back
            shared.take(host, now)
            through.append(host.waiters.pop(0))
            for group in host.groups:
                group.ahead -= 1
            self.recheck(host)
        again = sleepers[0][0] if sleepers else None
        if queue and now < shared.rate_next:
            again = shared.rate_next if again is None else min(again, shared.rate_next)
        return through, again


def must_go_back(host: HostState, opens: float, now: float) -> bool:
    """Whether a row that somebody takes back must not wait in its task for a host that opens then."""
    return opens != WHEN_ONE_ENDS and (host.breaker.open_until > now or opens - now > MAX_WAIT_IN_TASK_SECONDS)
