"""What is known of one host, and what it shares with others: the values that ``slots`` and ``hosts`` decide from.

Law 3: a host takes a few hundred bytes, however many rows it has. Law 9: nothing here waits or looks at a clock.
"""

from __future__ import annotations

import struct
from typing import Generic, NamedTuple, TypeVar

import msgspec

from fetcher.config import HostPolicy, RetryPolicy
from fetcher.hosts.health import HostReport, Pace, Record

__all__ = ["Group", "Host", "Terms"]

PORTS = 16  # of one host that are known to have answered
DEAD = 10  # times the backoff: the first pause of a host whose robots.txt cannot be had
EAGER = 15  # charges of a host that seems dead until its pauses grow

_SHEET = struct.Struct("<ddfBB")  # until when it rests, its delay, the age of its first charge by then; counts

W = TypeVar("W")


class Terms(NamedTuple):
    """What holds for a host, as configured."""

    most: int
    delay: float
    max_crawl_delay: float
    retry: RetryPolicy

    def but(self, policy: HostPolicy) -> Terms:
        """Return these terms with what a policy says otherwise."""
        said = {
            name: value for name in ("max_retry_after", "host_patience") if (value := getattr(policy, name)) is not None
        }
        return Terms(
            self.most if policy.per_host is None else policy.per_host,
            self.delay if policy.delay is None else policy.delay,
            self.max_crawl_delay if policy.max_crawl_delay is None else policy.max_crawl_delay,
            msgspec.structs.replace(self.retry, **said),
        )


class Group:
    """Hosts that share a limit: one site's, or those behind one address."""

    __slots__ = ("ahead", "blocked", "limit", "on_wire")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.on_wire = 0
        self.ahead = 0
        self.blocked: dict[str, None] = {}  # hosts that had a row for it, in the order they asked


class Host(Generic[W]):
    """One host: what is on its wire, what is promised, from when on it may be asked, and its health."""

    __slots__ = (
        "answered",
        "asked_delay",
        "asked_until",
        "charges",
        "contending",
        "delay",
        "given_up",
        "groups",
        "heard",
        "key",
        "limit",
        "located",
        "most",
        "not_before",
        "on_wire",
        "own_delay",
        "pace",
        "parked_until",
        "promised",
        "proven",
        "record",
        "requests",
        "rests_until",
        "retry",
        "robots_known",
        "sent_at",
        "started",
        "strikes",
        "struck_at",
        "struck_last",
        "suspect",
        "waiters",
    )  # fmt: skip

    def __init__(self, key: str, most: int, delay: float, retry: RetryPolicy) -> None:
        self.key = key
        self.on_wire = 0
        self.promised = 0
        self.most = most  # at once, as configured
        self.limit = 1  # at once, as things stand
        self.proven = False  # it answered, and what came after did not say otherwise
        self.pace: Pace | None = None
        self.own_delay = delay  # as configured, or by its robots.txt
        self.delay = delay
        self.retry = retry
        self.started = 0.0
        self.sent_at = 0.0
        self.heard = 0.0
        self.not_before = 0.0
        self.parked_until = 0.0
        self.asked_until = 0.0  # by its Retry-After
        self.rests_until = 0.0  # the same, but for rows alone that have somewhere to go meanwhile
        self.answered: tuple[int, ...] = ()  # ports
        self.charges = 0
        self.struck_at = 0.0
        self.strikes = 0  # failed connects and silences in a row
        self.struck_last = 0.0
        self.suspect = False
        self.given_up: str | None = None
        self.robots_known = True
        self.asked_delay = 0.0  # by its robots.txt
        self.located = False
        self.groups: tuple[Group, ...] = ()
        self.requests = 0
        self.record: Record | None = None
        self.waiters: list[W] = []  # a deque would hold 600 bytes for each host that nobody waits for
        self.contending = False

    def idle(self, now: float) -> bool:
        """Whether forgetting the host would change nothing but its reputation."""
        return not (self.on_wire or self.promised or self.waiters or max(self.not_before, self.rests_until) > now)

    @property
    def awaited(self) -> bool:
        """Whether its first answer may come at any moment, or its robots.txt, and let it have more at once."""
        at_work = self.on_wire or self.promised or self.waiters
        return bool(at_work) and not (self.suspect or (self.proven and self.robots_known))

    def answer(self, port: int, *, well: bool = True) -> None:
        """Note an answer from a port; one that served us, ``well``, ends the count of refusals."""
        if port not in self.answered:
            self.answered = (*self.answered, port)[-PORTS:]
        if well:
            self.charges = 0
        if not self.proven:
            self.proven = True
            self.adjust()

    def adjust(self) -> None:
        """Take over what was learnt of its pace."""
        pace = self.pace
        self.limit = 1 if not self.proven else self.most if pace is None else min(self.most, pace.limit)
        self.delay = self.own_delay if pace is None else max(self.own_delay, pace.spacing)

    def rest(self, now: float, lasted: float) -> float:
        """Return the seconds it rests for where it seems dead, after an exchange that ``lasted`` so many.

        Few rows use up their attempts in a few seconds, one probe after the other, and at once where each has only
        one. Of many, other rows probe each time, and the last probes are far apart. Where all depends on one
        robots.txt, the host has some seconds to come back.
        """
        retry = self.retry
        if not retry.retries:
            return 0.0
        if not self.robots_known:
            pause = DEAD * retry.backoff * 2.0 ** (self.charges - 1)
        elif self.charges <= EAGER:
            pause = retry.backoff / 2
        else:
            pause = 2 * retry.backoff * 3.0 ** (self.charges - EAGER - 1)
        left = max(retry.backoff, self.struck_at + retry.host_patience - now)
        return min(max(min(pause, retry.max_backoff), lasted), left)

    def fold(self) -> bytes:
        """Return what must be known of it again, in some forty bytes; only of one with nothing under way."""
        until = max(self.not_before, self.parked_until, self.rests_until)
        sheet = _SHEET.pack(until, self.own_delay, until - self.struck_at, self.charges, min(self.strikes, 255))
        return sheet + struct.pack(f"<{len(self.answered)}H", *self.answered)

    def unfold(self, sheet: bytes) -> None:
        """Take over what ``fold`` returned. What it bears at once is not in it, and found out anew."""
        until, delay, age, self.charges, self.strikes = _SHEET.unpack_from(sheet)
        self.not_before = max(self.not_before, until)
        self.parked_until = max(self.parked_until, until)
        self.struck_at = until - age
        self.own_delay = max(self.own_delay, delay)
        self.answered = struct.unpack_from(f"<{(len(sheet) - _SHEET.size) // 2}H", sheet, _SHEET.size)
        self.proven = bool(self.answered) and not self.charges and not self.strikes
        self.adjust()

    @staticmethod
    def rests(sheet: bytes) -> tuple[float, float]:
        """Return until when the host of a sheet rests, and its delay."""
        until, delay, *_ = _SHEET.unpack_from(sheet)
        return until, delay

    def sent(self, now: float) -> None:
        """Note that a request was sent, which may be long after its start."""
        self.sent_at = now
        if self.delay:
            self.not_before = max(self.not_before, now + self.delay)

    @property
    def weight(self) -> float:
        """How much trouble there is to tell of."""
        return self.record.weight if self.record is not None else 0.0

    def report(self) -> HostReport:
        """Return what there is to tell of it."""
        record = self.record or Record()
        pace = self.pace
        return HostReport(
            self.key,
            requests=self.requests,
            refused=record.refused,
            failed=record.failed,
            slow=record.slow,
            denied=record.denied,
            parked=record.parked,
            ceiling=pace.limit if pace is not None and pace.limit < self.most else None,
            spacing=pace.spacing if pace is not None else 0.0,
            given_up=self.given_up,
        )

    def leave(self, waiter: W) -> None:
        """Stop waiting at the gate (the task was cancelled)."""
        if waiter in self.waiters:
            self.waiters.remove(waiter)
            for group in self.groups:
                group.ahead -= 1
