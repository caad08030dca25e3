"""What each answer and each failure means for its host: heard once, where the exchange ended.

Law 5: a host's trouble stays its own, and what many hosts have at one moment is our own network's. Law 9: nothing
here waits or opens a socket; every method that needs the time takes it.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from enum import Enum
from typing import Literal, TypeAlias

from fetcher.errors import (
    RETRYABLE,
    ConnectError,
    DNSError,
    FetchError,
    FetchTimeout,
    ProtocolError,
    TLSError,
    TooLarge,
)
from fetcher.hosts.limits import SharedLimits
from fetcher.hosts.network import Network
from fetcher.hosts.state import HostState
from fetcher.hosts.table import HostTable
from fetcher.model import Stage

__all__ = ["NO_ROUTE_ERRNOS", "REFUSALS", "SILENT_SECONDS", "Blame", "FailureKind", "HealthTracker", "failure_kind"]

log = logging.getLogger("fetcher.hosts")

SILENT_SECONDS = 2.0  # without a word, after which a host may be dead
SLOW_SHARE_WEIGHT = 1 / 32  # of the latest first answer, in the share of those that took long
MAX_SLOW_SHARE = 0.1  # of first answers: above it silence is usual, and tells nothing
FIRST_PROBE_PAUSE_SECONDS = 0.25  # until our own network is tried again, doubled with each

REFUSALS = frozenset({429, 503})
UNWELL = frozenset(int(code[5:]) for code in RETRYABLE if code.startswith("http_"))

NO_ROUTE_ERRNOS = frozenset({errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL})

UNCONNECTED = frozenset({Stage.RESOLVING, Stage.CONNECTING, Stage.HANDSHAKING})
READING = frozenset({Stage.READING, Stage.WAITING_FOR_MEMORY})  # there is a head

Blame: TypeAlias = Literal["host", "row", "network"]
"""Who pays for a failure. ``network`` is our own, for which neither host nor row does."""


class FailureKind(Enum):
    """What a failure is to its host."""

    NO_NAME = "no such name"
    NO_ROUTE = "no route"  # or none to a name server: nobody was asked
    UNREACHED = "unreached"  # there was no connection
    UNHEARD = "unheard"  # there was one, and nothing came on it until the time was over
    BROKE_OFF = "broke off"  # the connection broke over the request
    SPOKE = "spoke"  # it failed at something the host said

    @property
    def unconnected(self) -> bool:
        """Whether there was no connection."""
        return self in _NO_CONNECTION


_NO_CONNECTION = frozenset({FailureKind.NO_NAME, FailureKind.NO_ROUTE, FailureKind.UNREACHED})


def failure_kind(error: FetchError, stage: Stage) -> FailureKind:
    """Say what an error in that stage is to its host; by ``WAITING`` there had been a connection."""
    if isinstance(error, ConnectError | DNSError):
        if stage is Stage.WAITING:
            return FailureKind.BROKE_OFF
        if error.code == "dns_not_found":
            return FailureKind.NO_NAME
        if error.code == "dns_timeout" or getattr(error.__cause__, "errno", None) in NO_ROUTE_ERRNOS:
            return FailureKind.NO_ROUTE
        return FailureKind.UNREACHED
    if isinstance(error, TLSError):
        return FailureKind.UNHEARD if error.code == "tls_timeout" else FailureKind.SPOKE
    if isinstance(error, FetchTimeout):
        return FailureKind.SPOKE if stage in READING else FailureKind.UNHEARD
    if isinstance(error, ProtocolError | TooLarge) and error.code != "empty_reply":
        return FailureKind.SPOKE
    return FailureKind.BROKE_OFF


class HealthTracker:
    """Hears how each exchange ended, and notes in hosts, limits and network what follows from it.

    ``has_route`` says whether the system has a route to the world at large.
    """

    def __init__(self, table: HostTable, shared: SharedLimits, network: Network, has_route: Callable[[], bool]) -> None:
        self._table = table
        self._shared = shared
        self._network = network
        self._has_route = has_route
        self._routed: bool | None = None  # there was a route when a host answered first: else its want says nothing
        self.slow_share = 0.0  # of the hosts, those whose first answer took long

    # What was answered

    def answered(self, host: HostState, port: int, status: int, began: float, now: float) -> None:
        """Hear an answer: the host is alive, and all it had to wait for is over."""
        if not host.ports:
            self.slow_share += SLOW_SHARE_WEIGHT * ((now - began > SILENT_SECONDS) - self.slow_share)
            if self._routed is None:
                self._routed = self._has_route()
        well = status not in UNWELL
        breaker = host.breaker
        if breaker.charges or port not in host.ports:
            host.answered(port, well=well)
        host.heard_at = now
        if breaker.failures or host.suspect or breaker.half_open:
            self._alive(host, now)
        if now - began > SILENT_SECONDS:
            self._table.counts(host).slow += 1
        if self._network.answered(began):
            log.info("the network is back")
        shared = self._shared
        if shared.concurrency < shared.limits.concurrency:
            shared.recover()
        adaptive = host.adaptive
        if adaptive is not None and well and adaptive.succeeded(host.settings.per_host):
            host.adjust()

    def refused(self, host: HostState, status: int, wish: float | None, began: float, now: float) -> None:
        """Hear a 429 or 503, with the seconds the host wishes us to wait.

        A wish parks it. Without one it gets less at once, and where there is one at once already, a pause.
        """
        self._table.counts(host).refused += 1
        stale = began < host.breaker.last_failure_at  # the answer to what was sent before that parking
        if wish:
            self.park(host, now, wish)
            if not stale and host.on_wire > 1:  # at one at once it has said itself how long to wait
                self._slow_down(host, now, sure=False)
            return
        alone = host.on_wire <= 1 or host.limit <= 1
        sure = status == 429
        self._slow_down(host, now, sure=sure)
        if alone and (sure or wish is not None):
            self.park(host, now, wish)

    def asked_to_wait(self, host: HostState, now: float, seconds: float) -> None:
        """Hear an answer to one row that asks us to leave its host alone for a while; it is charged with nothing."""
        self._table.counts(host).refused += 1
        host.breaker.wait_until(now + seconds)
        self._table.park(host, now, seconds, dead=False)

    def park(self, host: HostState, now: float, retry_after: float | None) -> None:
        """Charge a host that will not serve us now, and leave it alone or give it up."""
        if host.breaker.given_up is not None:
            return
        pause = host.breaker.charge(now, retry_after)
        if pause is not None:
            self._table.park(host, now, pause, dead=False)

    def _slow_down(self, host: HostState, now: float, *, sure: bool) -> None:
        if host.refused(now, sure=sure):
            log.info("slower: %s bears %d at once", host.key, host.limit)

    def _alive(self, host: HostState, now: float) -> None:
        host.heard_at = now
        host.breaker.recovered()
        self._shared.set_suspect(host, suspect=False)
        host.close_breaker()

    # What failed

    def failed(self, host: HostState, port: int, kind: FailureKind, began: float, now: float) -> None:
        """Hear that an exchange failed. The first failed connect of a host is the row's; from the second on it rests."""
        if kind is FailureKind.SPOKE:
            self._alive(host, now)
        if kind in (FailureKind.SPOKE, FailureKind.BROKE_OFF):
            return
        shared, network, breaker = self._shared, self._network, host.breaker
        known, unconnected = port in host.ports, kind.unconnected
        if unconnected:
            self._hear_of_network(host.key, kind, now, known=known)
        if network.away(now):
            pause = network.probe_pause(began, now, FIRST_PROBE_PAUSE_SECONDS)
            if pause is not None:
                shared.rest_until(now + pause)
            return
        shared.set_suspect(host, suspect=True)
        self._table.counts(host).failed += 1
        if began < breaker.last_failure_at or (kind is FailureKind.NO_NAME and not known):
            return
        breaker.failed(now)
        if not unconnected and host.on_wire > 1 and breaker.failures < 2:
            self._slow_down(host, now, sure=False)
        elif unconnected and known:
            breaker.trip()  # one at a time until it answers
            self.park(host, now, None)
        elif breaker.failures >= 2:
            breaker.trip()
            self._rest(host, now, now - began)
        host.adjust()

    def _rest(self, host: HostState, now: float, lasted: float) -> None:
        """Charge a host that seems dead, after an exchange that ``lasted`` so many seconds."""
        if host.breaker.given_up is not None:
            return
        pause = host.breaker.charge_dead(now, lasted, robots_known=host.robots_known)
        self._table.park(host, now, pause, dead=True)

    def _hear_of_network(self, key: str, kind: FailureKind, now: float, *, known: bool) -> None:
        """Learn of a host that could not be reached whether anybody can be.

        Of one that never answered only the want of any route tells: it may be dead, and its name served by nobody.
        """
        network = self._network
        if network.routeless and self._has_route() and network.found_route():
            log.info("the network is back")
        if known:
            if network.failed(key, now):
                log.warning("hosts that had answered cannot be reached: our own network may be away")
        elif self._routed and kind is FailureKind.NO_ROUTE and not self._has_route() and network.lost_route(now):
            log.warning("there is no route to anywhere: our own network is away")

    def blame(self, host: HostState, port: int, kind: FailureKind, now: float) -> Blame:
        """Say who pays for a failure that was heard just now."""
        if kind in (FailureKind.SPOKE, FailureKind.BROKE_OFF):
            return "row"
        network = self._network
        if network.away(now):
            return "network"
        if kind is FailureKind.UNHEARD:
            return "row"
        if port in host.ports:
            return "host"
        return "network" if network.doubtful(now) else "row"

    # What is silent

    def silent(self, host: HostState, stage: Stage, began: float, now: float) -> bool:
        """Whether an exchange has gone on for two seconds without a word of its host, which is then suspect."""
        if stage in READING:
            if host.breaker.half_open:
                self._alive(host, now)  # a head is an answer, however long its body takes
            return False
        if max(began, host.heard_at) > now - SILENT_SECONDS:
            return False
        self._shared.set_suspect(host, suspect=True)
        return True

    def may_break_off(self, host: HostState, stage: Stage) -> bool:
        """Whether a silent exchange may be broken off: nothing was sent yet, or such silence is no host's habit."""
        if stage in UNCONNECTED:
            return True
        return stage is Stage.WAITING and not host.ports and self.slow_share < MAX_SLOW_SHARE
