"""Owns hosts that keep to a script, and time that passes only when nothing is left to do.

Law 1: this module is imported before ``fetcher``, whose modules bind ``time.monotonic`` as they are imported; outside
of ``played`` both clocks are the machine's. Law 2: in a world nothing comes from outside: the jitter of a backoff is
drawn for whoever asked last and not from one stream, so that two rows that change places do not change all that
follows, and whether there is a route to anywhere is the world's to say. Law 3: what a URL is answered depends on
nothing but the URL, how often it was asked for, the time and what is on the wire.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import math
import random
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeVar

__all__ = [
    "ANY",
    "CONNECTING",
    "DYING",
    "READING",
    "ROBOTS",
    "THROTTLING",
    "WAITING",
    "WELL",
    "Rng",
    "ScriptedHost",
    "ScriptedStep",
    "StandStill",
    "asker",
    "elapsed",
    "played",
    "share_of",
]  # fmt: skip

T = TypeVar("T")
Rng: TypeAlias = random.Random

BEGIN = 10_000.0  # seconds on the clock as a world begins: 0.0 is "never" to some
EPOCH = 1_700_000_000.0  # seconds since 1970 by then
TURNS = 2_000_000  # of the loop in one world
PATIENCE = 5.0  # real seconds that a thread is waited for when nothing else is left

_monotonic, _time = time.monotonic, time.time
_now: float | None = None  # in a world

asker: ContextVar[str] = ContextVar("asker", default="nobody")
"""Whoever made the last exchange in this task, for whom the jitter is drawn."""


class StandStill(Exception):
    """Nothing will ever happen again in a world, or it turns without end: the engine hangs."""


def monotonic() -> float:
    """Return the world's time, or the machine's outside of one."""
    return _monotonic() if _now is None else _now


def wall() -> float:
    """Return the time since 1970, by the same rule."""
    return _time() if _now is None else EPOCH + _now - BEGIN


time.monotonic, time.time = monotonic, wall


def elapsed() -> float:
    """Return the seconds since the world began."""
    return monotonic() - BEGIN


def share_of(*words: object) -> float:
    """Return a number from 0 to 1, always the same for the same words."""
    digest = hashlib.blake2b(repr(words).encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big") / 2**56


class Jump(selectors.SelectSelector):
    """A selector that does not wait: the time until the next timer is over at once."""

    def __init__(self) -> None:
        super().__init__()
        self.next_timer: Callable[[], float] | None = None
        self.turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready, and set the clock forward where the loop would sleep."""
        global _now
        self.turns += 1
        if self.turns > TURNS:
            raise StandStill("turns without end")
        if timeout is None:
            ready = super().select(PATIENCE)
            if not ready:
                raise StandStill("nothing is left to wait for")
            return ready
        if timeout > 0 and self.next_timer is not None:
            _now = max(monotonic(), self.next_timer())
        return super().select(0)


class Loop(asyncio.SelectorEventLoop):
    """asyncio's own loop, on the world's clock."""

    def __init__(self) -> None:
        selector = Jump()
        super().__init__(selector)
        selector.next_timer = self._next_timer

    def _next_timer(self) -> float:
        """Say when the next timer is due, exactly: a sum of differences would be an ulp beside it."""
        timers: list[asyncio.TimerHandle] = vars(self)["_scheduled"]  # the type stubs do not know it
        return timers[0].when()

    def time(self) -> float:
        """Return the world's time."""
        return monotonic()


def played(world: Coroutine[Any, Any, T], *, seed: str, has_route: Callable[[], bool]) -> T:
    """Play a world to its end. Raises ``StandStill``."""
    global _now
    _now = BEGIN
    try:
        with _drawn(seed), _routed(has_route), asyncio.Runner(loop_factory=Loop) as runner:
            return runner.run(world)
    finally:
        _now = None


@contextmanager
def _drawn(seed: str) -> Iterator[None]:
    """Have all jitter drawn by whom it is for, and how often that one has drawn."""
    drawn: Counter[str] = Counter()

    def uniform(low: float, high: float) -> float:
        who = asker.get()
        drawn[who] += 1
        return low + (high - low) * share_of(seed, who, drawn[who])

    before = random.uniform, random.random
    random.seed(seed)
    vars(random).update(uniform=uniform, random=lambda: uniform(0.0, 1.0))
    try:
        yield
    finally:
        vars(random).update(uniform=before[0], random=before[1])


@contextmanager
def _routed(has_route: Callable[[], bool]) -> Iterator[None]:
    """Answer in the system's place whether a datagram could be sent anywhere."""

    class Probe(socket.socket):
        def connect(self, address: Any) -> None:
            if not has_route():
                raise OSError(errno.ENETUNREACH, "Network is unreachable")

    before = socket.socket
    socket.socket = Probe  # type: ignore[misc]  # for the length of a world
    try:
        yield
    finally:
        socket.socket = before  # type: ignore[misc]  # as it was


# What a host does: a fate is one word, perhaps with what belongs to it after a colon.

CONNECTING = {
    "refused": ("connecting", "none", "connect_refused"),
    "unroutable": ("connecting", "none", "connect_refused"),
    "hole": ("connecting", "connect", "connect_timeout"),
    "nameless": ("resolving", "none", "dns_not_found"),
    "unnamed": ("resolving", "connect", "dns_timeout"),
    "untrusted": ("handshaking", "none", "tls_verify"),
    "garbled": ("handshaking", "none", "tls_protocol"),
    "mute": ("handshaking", "connect", "tls_timeout"),
    "blocked": ("connecting", "none", "address_blocked"),
}
"""Fates before there is a connection: the stage they strike in, after which timeout, and the error's code."""

WAITING = {
    "reset": ("none", "connect_reset"),
    "empty": ("none", "empty_reply"),
    "malformed": ("none", "malformed_response"),
    "silent": ("read", "read_timeout"),
}
READING = {
    "cut": ("none", "truncated"),
    "endless": ("total", "too_slow"),
    "stuck": ("read", "read_timeout"),
    "large": ("none", "too_large"),
}
"""The same for what strikes before the head has come, and after it."""


@dataclass(frozen=True)
class Behaviour:
    """What one host does. Of what is a tuple one is drawn for each exchange; times are seconds since the world began.

    It is ``away``, which is a fate, before and after the times of ``up``, and in every second ``period``. What is above
    ``ceiling`` at once, sooner than ``gap`` after the one before, the ``every``-th, or among the ``first``, is refused,
    until ``eased``. The ports that are ``shut`` refuse each connection.
    """

    name: str
    connect: tuple[float, ...] = (0.0, 0.0, 0.03)
    latency: tuple[float, ...] = (0.1,)
    body: tuple[float, ...] = (0.0,)
    fates: tuple[str, ...] = ("200",)
    away: str = "refused"
    up: tuple[float, float] = (0.0, math.inf)
    period: float = math.inf
    ceiling: float = math.inf
    gap: float = 0.0
    every: float = math.inf
    first: int = 0
    refusal: tuple[str, ...] = ("429",)
    eased: float = math.inf
    shut: tuple[str, ...] = ()


LATENCIES = ((0.0,), (0.01,), (0.01, 0.02, 0.1), (0.1,), (0.1, 0.7), (0.7,), (0.1, 2.5), (0.05, 0.05, 0.05, 5.0))
CONNECTS = ((0.0,), (0.0, 0.0, 0.05), (0.0, 0.11), (0.3,), (0.02, 0.02, 0.9), (0.02, 0.02, 1.5))
DEATHS = (
    "refused", "hole", "nameless", "unnamed", "silent", "mute", "untrusted", "reset", "empty", "garbled", "unroutable",
)  # fmt: skip
REFUSALS = (
    ("429",), ("503",), ("429:0",), ("429:2",), ("503:2",), ("429:70",), ("503:1000",), ("429:1000",), ("429:date=5",),
    ("429:reset=3",), ("!429",), ("!429:0.3",), ("!503:0.9",), ("429", "503"), ("429", "429:2"), ("503:0",),
)  # fmt: skip
"""The ways to refuse: a status, and after the colon its Retry-After; with ``!`` it is the transport that raises."""

MISHAPS = (
    "404", "500", "503", "502", "429", "429:2", "reset", "empty", "malformed", "cut", "endless", "stuck", "large",
    "silent", "refused", "hole", "unnamed", "mute", "blocked", "untrusted", "!500", "unroutable",
)  # fmt: skip


def _steady(rng: Rng) -> Behaviour:
    """Answer each request well."""
    return Behaviour("steady", rng.choice(CONNECTS), rng.choice(LATENCIES), rng.choice(((0.0,), (0.0,), (0.02, 3.0))))


def _quick(rng: Rng) -> Behaviour:
    """Answer each request well and soon."""
    return Behaviour("quick", latency=rng.choice(LATENCIES[:4]))


def _slow(rng: Rng) -> Behaviour:
    """Take long for the head, or for what follows it."""
    latency, body = rng.choice((((2.5, 5.0), (0.0,)), ((0.1, 12.0), (0.0,)), ((0.1,), (4.0, 12.0)), ((9.0,), (0.5,))))
    return Behaviour("slow", rng.choice(CONNECTS), latency, body)


def _far(rng: Rng) -> Behaviour:
    """Take long to connect, at times longer than a delay; some refuse a request now and then."""
    connect, every = (
        rng.choice(((0.02, 0.2, 0.9), (0.02, 0.02, 0.15), (0.02, 3.5))),
        rng.choice((math.inf, math.inf, 6)),
    )
    return Behaviour("far", connect, rng.choice(LATENCIES[1:5]), every=every, refusal=rng.choice(REFUSALS))


def _uneven(rng: Rng) -> Behaviour:
    """Answer most requests well."""
    fates = ("200",) * rng.choice((2, 8, 20)) + tuple(rng.sample(MISHAPS, rng.choice((1, 3, 6))))
    return Behaviour("uneven", rng.choice(CONNECTS), rng.choice(LATENCIES), fates=fates)


def _dead(rng: Rng) -> Behaviour:
    """Fail always, in one way."""
    return Behaviour("dead", fates=(rng.choice(DEATHS),))


def _late(rng: Rng) -> Behaviour:
    """Be away at first."""
    until = rng.choice((0.5, 3.0, 8.0, 20.0, 45.0))
    return Behaviour("late", latency=rng.choice(LATENCIES), up=(until, math.inf), away=rng.choice(DEATHS))


def _leaving(rng: Rng) -> Behaviour:
    """Be away from some moment on."""
    end = rng.choice((0.3, 1.0, 4.0, 12.0))
    return Behaviour("leaving", latency=rng.choice(LATENCIES), up=(0.0, end), away=rng.choice(DEATHS))


def _flapping(rng: Rng) -> Behaviour:
    """Come and go."""
    period = rng.choice((0.4, 1.5, 5.0, 15.0))
    return Behaviour("flapping", latency=rng.choice(LATENCIES), period=period, away=rng.choice(DEATHS))


def _fickle(rng: Rng) -> Behaviour:
    """Come and go, and refuse one request after every few meanwhile."""
    period, every = rng.choice((0.4, 1.5)), rng.choice((3, 5))
    latency = rng.choice(LATENCIES[2:5])
    return Behaviour("fickle", (0.0,), latency, period=period, every=every, refusal=rng.choice((("429",), ("503:0",))))


def _half(rng: Rng) -> Behaviour:
    """Answer at one port and not at the other."""
    return Behaviour("half", latency=rng.choice(LATENCIES), shut=rng.choice((("8080",), ("",))))


def _crowded(rng: Rng) -> Behaviour:
    """Bear only so many at once."""
    ceiling, eased = rng.choice((1, 1, 2, 3, 4)), rng.choice((math.inf, math.inf, 15.0, 40.0))
    connect, latency = rng.choice(CONNECTS), rng.choice(LATENCIES[1:6])
    return Behaviour("crowded", connect, latency, ceiling=ceiling, refusal=rng.choice(REFUSALS), eased=eased)


def _spaced(rng: Rng) -> Behaviour:
    """Bear requests only so far apart."""
    gap, eased = rng.choice((0.05, 0.2, 0.5, 1.5)), rng.choice((math.inf, 5.0, 10.0, 30.0))
    latency = rng.choice(LATENCIES[:4])
    return Behaviour("spaced", (0.0,), latency, gap=gap, refusal=rng.choice(REFUSALS), eased=eased)


def _counting(rng: Rng) -> Behaviour:
    """Refuse one request after every few."""
    every = rng.choice((3, 7, 11, 21, 40, 101))
    return Behaviour(
        "counting", rng.choice(CONNECTS), rng.choice(LATENCIES[:6]), every=every, refusal=rng.choice(REFUSALS)
    )


def _reluctant(rng: Rng) -> Behaviour:
    """Refuse the first requests."""
    first = rng.choice((1, 2, 5, 12, 25))
    return Behaviour(
        "reluctant", rng.choice(CONNECTS), rng.choice(LATENCIES[:6]), first=first, refusal=rng.choice(REFUSALS)
    )


def _closed(rng: Rng) -> Behaviour:
    """Never serve."""
    return Behaviour("closed", latency=rng.choice(LATENCIES), fates=rng.choice((*REFUSALS, ("500",), ("404",))))


def _parked(_: Rng) -> Behaviour:
    """Ask to be left alone for a minute, twice."""
    return Behaviour("parked", (0.0,), (0.0,), first=2, refusal=("429:70",))


def _gone(_: Rng) -> Behaviour:
    """Refuse each connection."""
    return Behaviour("gone", (0.0,), fates=("refused",))


BEHAVIOURS: dict[str, Callable[[Rng], Behaviour]] = {
    "steady": _steady, "quick": _quick, "slow": _slow, "far": _far, "uneven": _uneven, "dead": _dead, "late": _late, "leaving": _leaving,
    "flapping": _flapping, "fickle": _fickle, "half": _half, "crowded": _crowded, "spaced": _spaced, "counting": _counting,
    "reluctant": _reluctant, "closed": _closed, "parked": _parked, "gone": _gone,
}  # fmt: skip
WELL = ("steady", "steady", "quick", "slow")
THROTTLING = ("crowded", "crowded", "spaced", "counting", "reluctant", "closed")
DYING = ("dead", "dead", "late", "leaving", "flapping", "fickle", "half")
ANY = (*WELL, "far", "uneven", "uneven", *THROTTLING, *DYING)
"""Behaviours by their names; one that stands twice is drawn twice as often."""

ROBOTS = {
    "none": ("404",),
    "all": ("200",),
    "some": ("200:deny=/1",),
    "nothing": ("200:deny=/",),
    "half a second": ("200:delay=0.5",),
    "three seconds": ("200:delay=3",),
    "a minute": ("200:delay=60",),
    "broken": ("500",),
    "broken at first": ("500", "500", "500", "500", "200:delay=0.5"),
    "busy": ("429", "429:2", "503", "200"),
    "later": ("429:70", "200"),
    "refused": ("refused",),
    "a hole": ("hole", "hole", "200"),
    "silent": ("silent",),
    "unreachable at first": ("refused", "refused", "200:deny=/2"),
    "elsewhere": ("301",),
    "blocked": ("blocked",),
}
"""What a robots.txt is answered, one after the other; the last one counts from there on."""


class ScriptedStep(NamedTuple):
    """What is going to happen to one exchange, as far as that is known beforehand.

    It is ``spared`` if its answer was so far on its way that it comes even though our own network has gone meanwhile.
    """

    connect: float
    latency: float
    body: float
    fate: str
    spared: bool


class ScriptedHost:
    """A host of one world, by its behaviour and the answers to who asks for its robots.txt."""

    def __init__(self, name: str, kind: str, robots: str, rng: Rng, seed: str) -> None:
        self.name = name
        self.behaviour = BEHAVIOURS[kind](rng)
        self.robots = robots
        self.at_once = 0
        self._seed = seed
        self._served = 0
        self._last = -math.inf

    def step(self, port: str, path: str, attempt: int) -> ScriptedStep:
        """Draw what becomes of an exchange. No two take equally long, so that few things happen in one instant."""
        does = self.behaviour
        draws = [share_of(self._seed, self.name, port, path, attempt, number) for number in range(6)]
        connect, latency, body = (
            seconds[int(draw * len(seconds))] * (1 + draws[4] / 50)
            for seconds, draw in zip((does.connect, does.latency, does.body), draws, strict=False)
        )
        fate = does.fates[int(draws[3] * len(does.fates))]
        if path == "/robots.txt" and fate == "200":
            script = ROBOTS[self.robots]
            fate = script[min(attempt, len(script)) - 1]
        if port in does.shut:
            fate = "refused"
        return ScriptedStep(connect, latency, body, fate, draws[5] < 0.3)

    def is_away(self, now: float) -> bool:
        """Whether nothing is to be had of it now."""
        begin, end = self.behaviour.up
        return not begin <= now < end or now // self.behaviour.period % 2 == 1

    def refusal(self, now: float, draw: float) -> str | None:
        """Return the fate of a request that came just now and is too much, or ``None``."""
        does = self.behaviour
        self._served += 1
        early, self._last = now - self._last < does.gap, now
        counted = self._served <= does.first or self._served % does.every == 0
        if now >= does.eased or not (counted or early or self.at_once > does.ceiling):
            return None
        return does.refusal[int(draw * len(does.refusal))]
