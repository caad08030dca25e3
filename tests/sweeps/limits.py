"""Owns the hosts of the politeness sweep: which limits each has, how many rows, and how a crawler is told of them.

Law 1: all is drawn from the seed. Law 2: slow hosts have few rows, so that a list takes about as long as its requests.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tests.lab.ports import host_address
from tests.sweeps.judge import Row

__all__ = ["DELAY", "DENIED", "MOVED", "PER_HOST", "Host", "Kind", "hosts_of", "list_of", "settings_of"]

PER_HOST = 6
DELAY = 0.02
"""``--per-host``, and ``--delay`` in seconds: what holds for a host that says nothing else."""

SPEED = 2_000  # requests a second: what slow hosts must not hold back
FEWEST = 4  # rows of a host
DENIED = "/no/"
MOVED = "/to/"


@dataclass(frozen=True)
class Kind:
    """What hosts have in common: how many of them there are, how they answer, and what the crawler was told of them.

    ``delay`` and ``per_host`` are of the configuration (``None``: no line of their own), ``crawl_delay`` of
    robots.txt: a list is dealt out to the hosts in turn. ``wishes`` are answered with ``refuses`` and a Retry-After,
    ``dated`` as a date. Above ``bears`` at once a host answers 429 without one. Times in seconds.
    """

    name: str
    share: float
    latency: tuple[float, float] = (0.0, 0.0)
    delay: Sequence[float] | None = None
    per_host: Sequence[int] | None = None
    crawl_delay: Sequence[float] = (0.0,)
    denies: float = 0.0
    refuses: int = 0
    dated: bool = False
    bears: int | None = None


FREE = (0.0,)

KINDS = (
    Kind("--delay", 0.30),
    Kind("no delay", 0.17, (0.0, 0.01), delay=FREE),
    Kind("latency", 0.10, (0.02, 0.1), delay=FREE),
    Kind("[hosts] per-host", 0.06, (0.01, 0.04), delay=FREE, per_host=(1, 2, 3)),
    Kind("[hosts] delay", 0.06, delay=(0.05, 0.1, 0.5, 2.0)),
    Kind("Crawl-delay", 0.10, (0.0, 0.01), crawl_delay=(0.05, 0.1, 0.2, 0.3, 0.5, 2.0)),
    Kind("robots.txt denies", 0.06, (0.0, 0.01), delay=FREE, denies=0.3),
    Kind("429 Retry-After", 0.04, (0.005, 0.02), delay=FREE, per_host=(1, 6), refuses=429),
    Kind("429 with a date", 0.04, (0.005, 0.02), delay=FREE, per_host=(6, 1), refuses=429, dated=True),
    Kind("503 Retry-After", 0.03, (0.005, 0.02), delay=FREE, per_host=(6, 2), refuses=503),
    Kind("429 above three", 0.04, (0.01, 0.03), delay=FREE, bears=3),
)


@dataclass(frozen=True)
class Host:
    """One host: its number (1 is 127.0.0.1), its kind, and what of its kind is its own.

    ``own_delay`` is what the configuration says, ``crawl_delay`` what robots.txt does, 0.0 where nothing. ``asked`` are
    the rows that make a request, ``denied`` those that must not. Of the answers ``refusing`` is the share that is no
    page.
    """

    number: int
    kind: Kind
    per_host: int
    own_delay: float
    crawl_delay: float
    asked: int
    denied: int
    refusing: float

    @property
    def delay(self) -> float:
        """The seconds that must lie between two starts."""
        return max(self.own_delay, self.crawl_delay)

    @property
    def address(self) -> str:
        """The loopback address it is served at."""
        return host_address(self.number)

    @property
    def robots(self) -> str | None:
        """Its robots.txt, or ``None`` where there is none."""
        lines = ["User-agent: *"]
        if self.crawl_delay:
            lines.append(f"Crawl-delay: {self.crawl_delay:g}")
        if self.kind.denies:
            lines.append(f"Disallow: {DENIED}")
        return "\n".join([*lines, ""]) if len(lines) > 1 else None


def hosts_of(count: int, requests: int) -> list[Host]:
    """Share that many hosts out to the kinds, each kind at least one, and that many requests to the hosts."""
    kinds = [kind for kind in KINDS for _ in range(max(1, round(kind.share * count)))]
    kinds = [*kinds, *[KINDS[0]] * (count - len(kinds))][: max(count, len(KINDS))]
    seconds = requests / SPEED
    bare = [_bare(number, kind, kinds[: number - 1].count(kind)) for number, kind in enumerate(kinds, 1)]
    most = [_most(host, seconds) for host in bare]
    level = _level(most, requests)
    return [
        _filled(host, max(FEWEST, round(min(bears, level))), seconds) for host, bears in zip(bare, most, strict=True)
    ]


def _level(most: Sequence[float], requests: int) -> float:
    """Return how many rows a host has that bears them, so that all hosts have that many requests together."""
    left, others = float(requests), len(most)
    for bears in sorted(most):
        if bears >= left / others:
            return left / others
        left, others = left - max(FEWEST, bears), others - 1
    return max(most)


def _bare(number: int, kind: Kind, turn: int) -> Host:
    own = kind.delay[turn % len(kind.delay)] if kind.delay else DELAY
    crawl = kind.crawl_delay[turn % len(kind.crawl_delay)]
    per_host = kind.per_host[turn % len(kind.per_host)] if kind.per_host else PER_HOST
    return Host(number, kind, per_host, own, crawl, 0, 0, 0.0)


def _most(host: Host, seconds: float) -> float:
    """Return how many rows a host answers in a time, with half of it in hand."""
    if host.delay:
        return seconds / host.delay / 2
    spent = max(sum(host.kind.latency) / 2, 0.005)
    at_once = min(host.per_host, host.kind.bears or host.per_host) / 2
    return seconds / spent * at_once / (4 if host.kind.refuses else 2)


def _filled(host: Host, rows: int, seconds: float) -> Host:
    """Give a host its rows; one that refuses does so every few seconds, and once at least."""
    denied = round(rows * host.kind.denies / (1 - host.kind.denies))
    refusing = min(0.2, max(1.5, seconds / 5) / rows) if host.kind.refuses else 0.0
    return replace(host, asked=rows, denied=denied, refusing=refusing)


def list_of(hosts: Sequence[Host], port: int, seed: int, *, moved: float = 0.0) -> list[Row]:
    """Return all rows in an order of their own: the path says which, and whether it is denied.

    Of those that may be asked for the share ``moved`` redirects to another host, half of them to one and the same; to
    those alone that have no delay, for a list is to take about as long as its requests.
    """
    chance = random.Random(seed)
    paths = [(host, DENIED) for host in hosts for _ in range(host.denied)]
    asked = [host for host in hosts for _ in range(host.asked)]
    goals = [host for host in hosts if not host.delay]
    one = next((host for host in goals if host.kind.name == "latency"), None)
    for host in asked:
        goal = None
        if moved and one is not None and chance.random() < moved:
            goal = one if chance.random() < 0.5 else chance.choice(goals)
        paths.append((host, "/" if goal is None else f"{MOVED}{goal.number}/"))
    chance.shuffle(paths)
    return [
        Row(f"http://{host.address}:{port}{path}{number}", {"robots_denied"} if path == DENIED else {None})
        for number, (host, path) in enumerate(paths, 1)
    ]


def settings_of(hosts: Sequence[Host]) -> str:
    """Return the configuration: what holds for all, and the table of each host that differs."""
    lines = [f"per-host = {PER_HOST}", f"delay = {DELAY}"]
    for host in hosts:
        own = {"per-host": host.per_host} if host.kind.per_host else {}
        told = {**own, "delay": host.own_delay} if host.kind.delay else own
        if told:
            lines += ["", f'[hosts."{host.address}"]', *(f"{name} = {value}" for name, value in told.items())]
    return "\n".join([*lines, ""])
