"""Whose fault a failure is, and what each answer means for its host: judged once, where the exchange ended.

Law 5: a host's trouble stays its own, and what many hosts have at one moment is our own network's. Law 9: nothing
here waits; every method that needs the time takes it.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from fetcher.errors import (
    RETRYABLE,
    ConnectError,
    DNSError,
    FetchError,
    FetchTimeout,
    ProtocolError,
    StatusError,
    TLSError,
    TooLarge,
)
from fetcher.hosts.health import Pace
from fetcher.hosts.hosts import Host, Hosts
from fetcher.hosts.slots import share_of
from fetcher.request_state import RequestState

__all__ = ["SILENT", "Fault", "Judge", "has_any_route"]

log = logging.getLogger("fetcher.hosts.hosts")

SILENT = 2.0  # seconds without a word after which a host may be dead
HABIT = 1 / 32  # the weight of the last first answer, for how usual it is to be slow
RARE = 0.1
REST = 0.25  # seconds until our own network is tried again, doubled with each

SPOKEN = (ProtocolError, TLSError, TooLarge, FetchTimeout)
"""What fails at something the host said, once it is not silence."""

READING = frozenset({"reading", "waiting for memory"})
"""The stages in which there is a head."""

REFUSALS = frozenset({429, 503})
UNWELL = frozenset(int(code[5:]) for code in RETRYABLE if code.startswith("http_"))

NO_WAY = frozenset({errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL})
ANYWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))  # for documentation (RFC 5737, 3849)

Fault: TypeAlias = Literal["host", "row", "ours"]
"""Who pays for a failure. ``ours`` is our own network, for which neither host nor row does."""


def has_any_route() -> bool:
    """Say whether the system has a route to the world at large; asks the kernel alone, and sends nothing."""
    for family, address in ANYWHERE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((address, 9))
        except OSError as error:
            if error.errno not in {*NO_WAY, errno.EAFNOSUPPORT, errno.EHOSTUNREACH}:
                return True  # it is something else that is missing
        else:
            return True
    return False


class Judge:
    """Hears how each exchange ended, and tells the hosts what follows from it."""

    def __init__(self, hosts: Hosts[Any], has_route: Callable[[], bool] | None = None) -> None:
        self.hosts = hosts
        self._has_route = has_route or has_any_route
        self._routed: bool | None = None  # there was a route when a host answered first: else its want says nothing
        self.sluggishness = 0.0  # the share of hosts whose first answer took long

    # What was answered

    def answered(self, host: Host[Any], port: int, status: int, began: float, now: float) -> None:
        """Hear an answer: the host is alive, and all it had to wait for is over."""
        if not host.answered:
            self.sluggishness += HABIT * ((now - began > SILENT) - self.sluggishness)
            if self._routed is None:
                self._routed = self._has_route()
        well = status not in UNWELL
        if host.charges or port not in host.answered:
            host.answer(port, well=well)
        host.heard = now
        if host.strikes or host.suspect or not host.proven:
            self._alive(host, now)
        hosts = self.hosts
        if now - began > SILENT:
            hosts.record(host).slow += 1
        network = hosts.network
        network.answers += 1
        if network.away_since is not None and network.returned(began):
            log.info("the network is back")
        if hosts.concurrency < hosts.limits.concurrency:
            hosts.concurrency += 1
        pace = host.pace
        if pace is not None and well and pace.served_well(host.most):
            host.adjust()

    def refused(self, host: Host[Any], status: int, wish: float | None, began: float, now: float) -> None:
        """Hear a 429 or 503, with the seconds the host wishes us to wait.

        A wish parks it. Without one it gets less at once, and where there is one at once already, a pause.
        """
        hosts = self.hosts
        hosts.record(host).refused += 1
        stale = began < host.struck_last  # the answer to what was sent before that parking
        if wish:
            host.struck_last = now
            hosts.charge(host, now, wish)
            if not stale and host.on_wire > 1:  # at one at once it has said itself how long to wait
                self._slow_down(host, now, sure=False)
            return
        alone = host.on_wire <= 1 or host.limit <= 1
        sure = status == 429
        self._slow_down(host, now, sure=sure)
        if alone and (sure or wish is not None):
            hosts.charge(host, now, wish)

    def _slow_down(self, host: Host[Any], now: float, *, sure: bool) -> None:
        if host.pace is None:
            host.pace = Pace(host.most)
        if host.pace.refused(host.on_wire, now - host.started, sure=sure):
            host.adjust()
            log.info("slower: %s bears %d at once", host.key, host.limit)

    def _alive(self, host: Host[Any], now: float) -> None:
        host.heard = now
        host.strikes = 0
        if host.suspect:
            self.hosts.suspect(host, suspect=False)
        if not host.proven:
            host.proven = True
            host.adjust()

    # What failed

    def failed(self, host: Host[Any], state: RequestState, error: FetchError, began: float, now: float) -> None:
        """Hear that an exchange failed. The first failed connect of a host is the row's; from the second on it rests."""
        hosts = self.hosts
        port, stage = state.target.port, state.stage
        if not _unheard(error, stage):
            if isinstance(error, SPOKEN) and error.code != "empty_reply":
                self._alive(host, now)
            return
        known = port in host.answered
        missed = _missed(error, stage)
        if missed:
            self._hear_of_network(host.key, error, now, known=known)
        if hosts.network.away(now):
            rest = hosts.network.rest(began, now, REST)
            if rest is not None:
                hosts.concurrency = max(1, hosts.concurrency // 2)
                hosts.rate_next = max(hosts.rate_next, now + rest)
            return
        hosts.suspect(host, suspect=True)
        hosts.record(host).failed += 1
        if began < host.struck_last or (error.code == "dns_not_found" and not known):
            return
        host.struck_last = now
        host.strikes += 1
        if not missed and host.on_wire > 1 and host.strikes < 2:
            self._slow_down(host, now, sure=False)
            return
        if missed and known:
            host.proven = False  # one at a time until it answers
            hosts.charge(host, now, None)
        elif host.strikes >= 2:
            host.proven = False
            hosts.charge(host, now, None, dead=True, lasted=now - began)
        host.adjust()

    def _hear_of_network(self, key: str, error: FetchError, now: float, *, known: bool) -> None:
        """Learn of a host that could not be reached whether anybody can be.

        Of one that never answered only the want of any route tells: it may be dead, and its name served by nobody.
        """
        network = self.hosts.network
        if network.routeless and self._has_route() and network.found_route():
            log.info("the network is back")
        if known:
            if network.failed(key, now):
                log.warning("hosts that had answered cannot be reached: our own network may be away")
        elif self._routed and _is_pathless(error) and not self._has_route() and network.lost_route(now):
            log.warning("there is no route to anywhere: our own network is away")

    def fault(self, host: Host[Any], state: RequestState, error: FetchError, now: float) -> Fault:
        """Say who pays for a failure that was heard just now."""
        stage = state.stage
        if isinstance(error, StatusError):
            asked = error.status == 429 or (error.status == 503 and error.retry_after is not None)
            return "host" if asked else "row"
        if not _unheard(error, stage):
            return "row"
        network = self.hosts.network
        if network.away(now):
            return "ours"
        if not _missed(error, stage):
            return "row"
        if state.target.port in host.answered:
            return "host"
        return "ours" if network.doubtful(now) else "row"

    # What is silent

    def silent(self, host: Host[Any], stage: str, began: float, now: float) -> bool:
        """Whether an exchange has gone on for two seconds without a word of its host, which is then suspect."""
        if stage in READING:
            if not host.proven:
                self._alive(host, now)  # a head is an answer, however long its body takes
            return False
        if max(began, host.heard) > now - SILENT:
            return False
        self.hosts.suspect(host, suspect=True)
        return True

    def excess(self) -> int:
        """Say how many exchanges of suspect hosts must make room for the others."""
        hosts = self.hosts
        if hosts.on_wire + hosts.promised < hosts.concurrency:
            return 0
        return max(0, hosts.suspected - share_of(hosts.concurrency))

    def may_be_sent_back(self, host: Host[Any], stage: str) -> bool:
        """Whether a silent exchange may be broken off: nothing was sent yet, or such silence is no host's habit."""
        if stage in ("resolving", "connecting", "handshaking"):
            return True
        return stage == "waiting" and not host.answered and self.sluggishness < RARE


def _missed(error: FetchError, stage: str) -> bool:
    """Whether there was no connection; by ``waiting`` there had been one."""
    return isinstance(error, ConnectError | DNSError) and stage != "waiting"


def _is_pathless(error: FetchError) -> bool:
    """Whether nobody was asked: there was no way, or none to a name server."""
    return error.code == "dns_timeout" or getattr(error.__cause__, "errno", None) in NO_WAY


def _unheard(error: FetchError, stage: str) -> bool:
    """Whether the host said nothing: no connection, or nothing on it until the time was over."""
    if _missed(error, stage):
        return True
    if isinstance(error, TLSError):
        return error.code == "tls_timeout"
    return isinstance(error, FetchTimeout) and stage not in READING
