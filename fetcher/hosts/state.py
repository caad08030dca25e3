"""What is known of one host: ``HostState``, and the ``HostReport`` that is told of it.

Law 3: a host takes a few hundred bytes, however many rows it has. Law 9: nothing here waits or looks at a clock.
Its fields are written here, but for its slots (``limits.py``), its place at the gate (``scheduler.py``), its counts
(``table.py``) and its last sign of life (``health.py``); its breaker and its adaptive limit write their own.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import msgspec

from fetcher.config import HostPolicy, RetryPolicy
from fetcher.hosts.adaptive import AdaptiveLimit
from fetcher.hosts.breaker import Breaker

__all__ = [
    "HostGroup",
    "HostReport",
    "HostSettings",
    "HostState",
    "TroubleCounts",
    "configure",
    "fold",
    "report_of",
    "rest_of",
    "trouble_of",
    "unfold",
]

MAX_PORTS = 16  # of one host that are known to have answered

_FOLDED = struct.Struct("<ddfBB")  # until when it rests, its delay, the age of its first charge by then; two counts


class HostSettings(NamedTuple):
    """What holds for a host, as configured. ``per_host`` is how many at once, the rest is in seconds."""

    per_host: int
    delay: float
    max_crawl_delay: float
    retry: RetryPolicy

    def but(self, policy: HostPolicy) -> HostSettings:
        """Return these settings with what a policy says otherwise."""
        said = {
            name: value for name in ("max_retry_after", "host_patience") if (value := getattr(policy, name)) is not None
        }
        return HostSettings(
            self.per_host if policy.per_host is None else policy.per_host,
            self.delay if policy.delay is None else policy.delay,
            self.max_crawl_delay if policy.max_crawl_delay is None else policy.max_crawl_delay,
            msgspec.structs.replace(self.retry, **said),
        )


class HostGroup:
    """Hosts that share a limit: one site's, or those behind one address. Written by ``limits.py``."""

    __slots__ = ("ahead", "blocked", "limit", "on_wire")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.on_wire = 0
        self.ahead = 0  # reservations, and who waits at the gate
        self.blocked: dict[str, None] = {}  # hosts that had a row for it, in the order they asked

    @property
    def full(self) -> bool:
        """Whether a new row finds no place."""
        return self.on_wire + self.ahead >= self.limit


class TroubleCounts:
    """What is counted of a host in trouble."""

    __slots__ = ("denied", "failed", "parked", "refused", "slow")

    def __init__(self) -> None:
        self.refused = 0
        self.failed = 0
        self.slow = 0
        self.denied = 0
        self.parked = 0.0  # seconds

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


class HostState:
    """One host: what is on its wire, what is reserved, from when on it may be asked, and its breaker.

    ``limit`` is how many it may have at once as things stand, ``delay`` the seconds between two requests likewise.
    ``not_before`` is the earliest next start (monotonic seconds), for whatever reason.
    """

    __slots__ = (
        "adaptive",
        "at_gate",
        "breaker",
        "counts",
        "crawl_delay",
        "delay",
        "groups",
        "heard_at",
        "key",
        "limit",
        "located",
        "not_before",
        "on_wire",
        "own_delay",
        "ports",
        "requests",
        "reserved",
        "robots_known",
        "sent_at",
        "settings",
        "started_at",
        "suspect",
        "waiters",
    )

    def __init__(
        self, key: str, settings: HostSettings, *, robots_known: bool, groups: tuple[HostGroup, ...] = ()
    ) -> None:
        self.key = key
        self.settings = settings
        self.breaker = Breaker(key, settings.retry)
        self.adaptive: AdaptiveLimit | None = None
        self.limit = 1
        self.own_delay = settings.delay  # as configured, or by its robots.txt
        self.delay = settings.delay
        self.crawl_delay = 0.0  # as its robots.txt has it
        self.robots_known = robots_known
        self.ports: tuple[int, ...] = ()  # that have answered
        self.sent_at = 0.0
        self.not_before = 0.0
        self.located = False
        self.groups = groups
        self.counts: TroubleCounts | None = None  # written by table.py
        self.heard_at = 0.0  # the last sign of life: written by health.py
        # Its slots, written by limits.py:
        self.on_wire = 0
        self.reserved = 0
        self.requests = 0
        self.started_at = 0.0
        self.suspect = False  # it may be dead: it has a share of the suspects' slots
        # Its place at the gate, written by scheduler.py:
        self.waiters: list[Any] = []  # a deque would hold 600 bytes for each host that nobody waits for
        self.at_gate = False  # it stands in the queue of the gate

    def __repr__(self) -> str:
        breaker = (
            "given up" if self.breaker.given_up is not None else "half-open" if self.breaker.half_open else "closed"
        )
        told = [
            f"{self.on_wire}/{self.limit} on wire",
            f"{self.reserved} reserved",
            f"{len(self.waiters)} waiting",
            breaker,
        ]
        told += ["suspect"] if self.suspect else []
        told += [f"delay {self.delay:g} s"] if self.delay else []
        return f"<HostState {self.key}: {', '.join(told)}, not before {self.not_before:.3f}>"

    def idle(self, now: float) -> bool:
        """Whether forgetting the host would change nothing but its reputation."""
        at_work = self.on_wire or self.reserved or self.waiters
        return not (at_work or max(self.not_before, self.breaker.open_until) > now)

    @property
    def awaited(self) -> bool:
        """Whether its first answer may come at any moment, or its robots.txt, and let it have more at once."""
        at_work = self.on_wire or self.reserved or self.waiters
        return bool(at_work) and not (self.suspect or (not self.breaker.half_open and self.robots_known))

    # What was learnt

    def answered(self, port: int, *, well: bool = True) -> None:
        """Note an answer from a port; one that served us, ``well``, ends the count of refusals."""
        if port not in self.ports:
            self.ports = (*self.ports, port)[-MAX_PORTS:]
        if well:
            self.breaker.forgive()
        self.close_breaker()

    def close_breaker(self) -> None:
        """Let it have as many at once as it bears."""
        if self.breaker.half_open:
            self.breaker.close()
            self.adjust()

    def refused(self, now: float, *, sure: bool) -> bool:
        """Learn from a refusal that it bears less; say whether the limit fell."""
        if self.adaptive is None:
            self.adaptive = AdaptiveLimit(self.settings.per_host)
        fell = self.adaptive.refused(self.on_wire, now - self.started_at, sure=sure)
        if fell:
            self.adjust()
        return fell

    def adjust(self) -> None:
        """Take over what was learnt of what it bears."""
        adaptive, most = self.adaptive, self.settings.per_host
        self.limit = 1 if self.breaker.half_open else most if adaptive is None else min(most, adaptive.limit)
        self.delay = self.own_delay if adaptive is None else max(self.own_delay, adaptive.spacing)

    def know_robots(self, *, known: bool = True) -> None:
        """Note whether its rules are known: until then it has one row."""
        self.robots_known = known
        if known:
            self.breaker.end_rest()  # what they say of a host that is dead ends its rows at once

    def set_crawl_delay(self, seconds: float) -> None:
        """Take over what its robots.txt asks for, up to ``max_crawl_delay``; a larger ``delay`` wins.

        Counts from the last start.
        """
        self.crawl_delay = seconds
        self.own_delay = max(self.settings.delay, min(seconds, self.settings.max_crawl_delay))
        self.adjust()
        if self.started_at:
            self.wait_until(max(self.started_at, self.sent_at) + self.delay)

    def locate(self, group: HostGroup | None) -> None:
        """Note that its address is known, and who shares it."""
        self.located = True
        if group is not None:
            self.groups = (*self.groups, group)

    # Times

    def wait_until(self, when: float) -> None:
        """Start nothing before then."""
        self.not_before = max(self.not_before, when)

    def sent(self, now: float) -> None:
        """Note that a request was sent, which may be long after its start."""
        self.sent_at = now
        if self.delay:
            self.not_before = max(self.not_before, now + self.delay)


def configure(host: HostState, settings: HostSettings) -> None:
    """Take over other settings, while it is at work. What it bears, and what its robots.txt asks for, still hold."""
    host.settings = settings
    host.own_delay = max(settings.delay, min(host.crawl_delay, settings.max_crawl_delay))
    host.breaker.retry = settings.retry
    host.adjust()
    if host.started_at:  # what it asked for itself is still waited for, but no longer a delay of ours
        breaker, last = host.breaker, max(host.started_at, host.sent_at)
        host.not_before = max(breaker.parked_until, breaker.retry_after_until, last + host.delay)


# What is kept of one that rests


def fold(host: HostState) -> bytes:
    """Return what must be known of a host again, in some forty bytes; only of one with nothing under way."""
    breaker = host.breaker
    until = max(host.not_before, breaker.parked_until, breaker.open_until)
    age = until - breaker.first_charge_at
    head = _FOLDED.pack(until, host.own_delay, age, breaker.charges, min(breaker.failures, 255))
    return head + struct.pack(f"<{len(host.ports)}H", *host.ports)


def unfold(host: HostState, folded: bytes) -> None:
    """Have a new state take over what ``fold`` returned. What it bears at once is not in it, and found out anew."""
    until, delay, age, charges, failures = _FOLDED.unpack_from(folded)
    host.wait_until(until)
    host.own_delay = max(host.own_delay, delay)
    host.ports = struct.unpack_from(f"<{(len(folded) - _FOLDED.size) // 2}H", folded, _FOLDED.size)
    host.breaker.restore(until, age, charges, failures, answered=bool(host.ports))
    host.adjust()


def rest_of(folded: bytes) -> tuple[float, float]:
    """Return until when the host of a folded state rests, and its delay."""
    until, delay, *_ = _FOLDED.unpack_from(folded)
    return until, delay


# What is told of one


def trouble_of(host: HostState) -> float:
    """Return how much trouble there is to tell of."""
    return host.counts.weight if host.counts is not None else 0.0


def report_of(host: HostState) -> HostReport:
    """Return what there is to tell of a host."""
    counts = host.counts or TroubleCounts()
    adaptive = host.adaptive
    return HostReport(
        host.key,
        requests=host.requests,
        refused=counts.refused,
        failed=counts.failed,
        slow=counts.slow,
        denied=counts.denied,
        parked=counts.parked,
        ceiling=adaptive.limit if adaptive is not None and adaptive.limit < host.settings.per_host else None,
        spacing=adaptive.spacing if adaptive is not None else 0.0,
        given_up=host.breaker.given_up,
    )
