"""How a host stands, as seen from outside: what waits for it, what it may have, and why it is not asked just now.

Law 9: plain functions of what is known; the clock is a parameter, and nothing is changed.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

import msgspec

from fetcher.hosts.limits import SharedLimits
from fetcher.hosts.state import HostState
from fetcher.hosts.table import HostTable

__all__ = ["HostStanding", "longest", "standing_of", "standings_of"]


class HostStanding(msgspec.Struct, frozen=True):
    """One host: ``waiting`` of its rows are known and not started, ``running`` have a task.

    ``on_wire`` of them hold one of its ``limit`` slots, ``delay`` seconds lie between two requests, and it is asked
    again in ``parked`` seconds; ``why`` says what it waits for, empty where it is being asked. What is not known is
    ``None``.
    """

    host: str
    waiting: int
    running: int = 0
    on_wire: int | None = None
    limit: int | None = None
    delay: float | None = None
    parked: float = 0.0
    requests: int | None = None
    why: str = ""

    @property
    def left(self) -> int:
        """Rows without an outcome, so far as they are known."""
        return self.waiting + self.running

    @property
    def seconds(self) -> float:
        """The least time that its rows take, as far as its pauses say."""
        return self.parked + (self.delay or 0.0) * max(0, self.left - 1)

    @property
    def rows_per_slot(self) -> float:
        """Rows that are left for each of its slots."""
        return self.left / max(1, self.limit or 1)


def standings_of(
    table: HostTable,
    shared: SharedLimits,
    *,
    waiting: Mapping[str, int],
    running: Mapping[str, int],
    now: float,
    most: int,
) -> list[HostStanding]:
    """Return the hosts with rows that wait or run, those first that will be needed for longest, at most ``most``."""
    names = dict.fromkeys(running) | dict.fromkeys(waiting)
    found = (
        standing_of(table.find(name), name, shared, waiting=waiting.get(name, 0), running=running.get(name, 0), now=now)
        for name in names
    )
    return longest(found, most)


def longest(standings: Iterable[HostStanding], most: int) -> list[HostStanding]:
    """Return those that will be needed for longest, at most ``most``; where no pauses tell, by rows for each slot."""
    return heapq.nlargest(most, standings, key=lambda standing: (standing.seconds, standing.rows_per_slot))


def standing_of(
    host: HostState | None, name: str, shared: SharedLimits, *, waiting: int, running: int, now: float
) -> HostStanding:
    """Return how one stands; ``host`` is ``None`` where nothing is known of it yet."""
    if host is None:
        return HostStanding(name, waiting, running, why="not asked yet")
    breaker = host.breaker
    until = max(breaker.parked_until, breaker.open_until, breaker.retry_after_until)
    return HostStanding(
        name,
        waiting,
        running,
        on_wire=host.on_wire,
        limit=host.limit,
        delay=host.delay,
        parked=max(0.0, until - now),
        requests=host.requests,
        why=_why(host, shared, now),
    )


def _why(host: HostState, shared: SharedLimits, now: float) -> str:
    """Say why the host gets no further row just now."""
    breaker = host.breaker
    if breaker.given_up is not None:
        return f"given up: {breaker.given_up}"
    if shared.paused:
        return "the run is paused"
    if breaker.retry_after_until > now:
        return "it asked to be left alone (Retry-After)"
    if breaker.open_until > now or (breaker.failures and breaker.parked_until > now):
        return "it does not answer"
    if breaker.parked_until > now:
        return f"it refused {breaker.charges} times" if breaker.charges > 1 else "it refused a request"
    if not host.robots_known:
        return "its robots.txt is not read yet"
    if host.delay and host.not_before > now:
        return _why_slow(host)
    if host.on_wire >= host.limit:
        return _why_full(host)
    return _why_all(shared, now)


def _why_all(shared: SharedLimits, now: float) -> str:
    """Say why no host at all gets a row just now."""
    if shared.on_wire >= shared.concurrency:
        return "there is no free slot"
    if now < shared.rate_next:
        return f"--rate: {shared.rate:g} a second" if shared.rate else "our own network rests"
    return ""


def _why_slow(host: HostState) -> str:
    if host.crawl_delay and host.delay == host.own_delay > host.settings.delay:
        return f"its robots.txt asks for {host.delay:g} s between two"
    if host.delay > host.own_delay:
        return f"it bears one in {host.delay:.2g} s"
    return f"--delay: {host.delay:g} s between two"


def _why_full(host: HostState) -> str:
    if host.breaker.half_open:
        return "one at once until it answers"
    if host.limit < host.settings.per_host:
        return f"it bears {host.limit} at once"
    return f"its limit: {host.limit} at once"
