"""Owns a record of what the engine starts when: seeded worlds played in virtual time, a line for each exchange.

Run it with ``python -m tests.benchmarks.starts --out FILE`` before a change of what decides, and with
``--against FILE`` after it: it says which worlds differ and where each first does, and exits with 1 if any does.
``--show WORLD`` tells one world's story, and ``--crowd`` plays the one in which hosts are forgotten. ``--lab`` runs the
engine on real sockets in real time instead, for figures that are compared with a tolerance, on a machine that is not
busy.

A world is a ``Fetcher`` with a scripted transport, and all that happens in it is drawn from its number and ``--seed``.
A line of the record is ``WORLD TIME HOST ROW PATH TRY``: the transport was called, for the so-maniest time with this
URL; row 0 is a robots.txt. ``held`` and ``turned away`` say that with a connection in hand a request had to wait, or
had to go back. Each world ends with what is told of its hosts and with its outcomes by code.

Law 1: two plays of one world are equal, in any process. Law 2: nothing private is touched, and what is not public
goes through the few functions under "Adapter", so that the same file runs before a change and after it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import hashlib
import importlib
import json
import logging
import math
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import partial
from itertools import chain, islice, pairwise, zip_longest
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any, NamedTuple

# isort: split
# Before fetcher: it has the clock.
from tests.lab.scripted import (
    ANY,
    CONNECTING,
    DYING,
    READING,
    ROBOTS,
    THROTTLING,
    WAITING,
    WELL,
    Rng,
    ScriptedHost,
    ScriptedStep,
    StandStill,
    asker,
    elapsed,
    played,
    share_of,
)

# isort: split

from fetcher import Config, Fetcher, FetchError, Request, SourceError, StatusError, errors
from fetcher.model import Exchange, Middleware, Outcome, Page, Response
from fetcher.transport.session import Transport
from tests.benchmarks.hosts import Refusing, Scene, street
from tests.lab.town import living_in

WORLDS = 500
CROWD = 1_000_000  # the number of the world with more hosts than are remembered
LONGEST = 7_200.0  # seconds that a world lasts
MOST = 4_000  # exchanges in one
SHOWN = 20  # worlds that differ, told one by one

# Adapter: all that is not public. When names change they change here, and nowhere else.


def _first_of(*names: str) -> ModuleType:
    """Return the first of these modules that there is."""
    for name in names:
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(name)
    raise ModuleNotFoundError(f"none of {', '.join(names)}")


CURRENT: Any = _first_of("fetcher.request_state", "fetcher.flight").current
STAGE: Any = getattr(importlib.import_module("fetcher.model"), "Stage", str)


def enter(stage: str) -> None:
    """Do as the real transport does: tell the row's state which stage its exchange is in now."""
    CURRENT.get().enter(STAGE(stage))


def send_gate() -> Callable[[], float] | None:
    """Return what the real transport asks once there is a connection: the seconds to wait still, until that is 0.0."""
    state = CURRENT.get()
    transfer = getattr(state, "transfer", None)
    if transfer is not None:
        return None if transfer.send_gate is None else partial(transfer.send_gate, state)
    gate: Callable[[], float] | None = state.depart
    return gate


def stand_in(transport: Exchange) -> None:
    """Have each ``Fetcher`` without a transport take this one, which has addresses too: ``per_address`` asks for them."""
    session: Any = importlib.import_module("fetcher.transport.session")
    session.Transport = lambda _: transport


def remember(before: Fetcher, after: Fetcher) -> None:
    """Tell a fetcher what another knows of hosts, as a job does from run to run."""
    delays = before.gate.delays()
    after.gate.restore({**before.gate.parked(), **delays}, delays)


def told(fetcher: Fetcher) -> list[str]:
    """Return what a summary says of the hosts that gave trouble, one line each."""
    names = ("host", "requests", "refused", "failed", "slow", "denied", "parked", "ceiling", "spacing", "given_up")
    reports = ({name: getattr(report, name) for name in names} for report in fetcher.gate.troubled())
    return [" ".join(f"{name}={_short(value)}" for name, value in report.items() if value) for report in reports]


def _short(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value).replace(" ", "_")


# One world


@dataclass
class World:
    """All that is drawn of one world: the settings, the hosts, the list, and who reads how.

    ``source`` is how the list comes, ``leave`` how it ends early, after ``patience`` outcomes. ``singles`` are rows
    that are fetched by themselves meanwhile. ``addressed`` hosts share addresses, ``again`` a second fetcher goes on.
    On an ``island`` the system never knows a route to the world at large.
    """

    number: int
    family: str
    seed: str
    options: dict[str, Any]
    kinds: tuple[str, ...] = ANY
    robots: tuple[str, ...] = tuple(ROBOTS)
    crowd: int = 5
    rows: int = 50
    hops: float = 0.1
    bad: float = 0.02
    order: str = "mixed"
    source: str = "list"
    outages: list[tuple[float, float, str]] = field(default_factory=list)
    streams: int = 1
    ordered: bool = False
    sequential: bool = False
    pause: float = 0.0
    leave: str | None = None
    patience: int = 20
    singles: int = 0
    middleware: tuple[str, ...] = ()
    sites: int = 0
    addressed: bool = False
    most: int = MOST
    again: bool = False
    island: bool = False
    hosts: dict[str, ScriptedHost] = field(default_factory=dict)
    listed: list[Request] = field(default_factory=list)

    def outage(self) -> str | None:
        """Return the fate of whoever goes out while our own network is away."""
        now = elapsed()
        return next((fate for begin, end, fate in self.outages if begin <= now < end), None)


def drawn(number: int, seed: int) -> World:
    """Draw a world."""
    rng = Rng(f"{seed} {number}")
    family = "crowd" if number == CROWD else list(FAMILIES)[number % len(FAMILIES)]
    world = World(number, family, f"{seed} {number}", _settings(rng))
    world.crowd = rng.choice((1, 2, 3, 5, 8, 12, 20, 40))
    world.rows = rng.choice((5, 20, 40, 80, 150, 300))
    world.order = rng.choice(("mixed", "mixed", "by host", "in turn"))
    world.source = rng.choice(("list", "list", "list", "generator", "slow"))
    FAMILIES.get(family, _crowd)(rng, world)
    _settle(rng, world)
    return world


def _settings(rng: Rng) -> dict[str, Any]:
    """Draw a config; a family changes what it is about."""
    options: dict[str, Any] = {
        "concurrency": rng.choice((1, 2, 3, 7, 30, 100)),
        "per_host": rng.choice((1, 2, 6)),
        "delay": rng.choice((0, 0, 0, 0, 0.05, 0.5, 3)),
        "rate": rng.choice((None, None, None, None, None, 0.5, 3, 40, 2_000)),
        "robots": rng.random() < 0.4,
        "retries": rng.choice((0, 2, 2, 5)),
        "backoff": rng.choice((0.05, 0.5, 0.5, 2)),
        "max_backoff": rng.choice((30, 30, 5)),
        "host_patience": rng.choice((5, 60)),
        "max_retry_after": rng.choice((1, 60, 300, 2_000)),
        "lookahead": rng.choice((1, 10, 100, 10_000, 10_000)),
        "max_redirects": rng.choice((10, 10, 2)),
        "max_crawl_delay": rng.choice((30, 30, 1)),
        "connect_timeout": rng.choice((10, 3)),
        "read_timeout": rng.choice((15, 4)),
        "timeout": 30,
    }
    if rng.random() < 0.1:
        options["per_site"] = rng.choice((1, 2, 4))
    if rng.random() < 0.15:
        options["hosts"] = {
            "*.example": {"per_host": rng.choice((1, 3)), "max_crawl_delay": 2},
            "h1.example": {"delay": rng.choice((0, 0.2)), "host_patience": 8, "max_retry_after": 5},
        }
    return {name: value for name, value in options.items() if value is not None}


def _settle(rng: Rng, world: World) -> None:
    """Give the world its hosts and its list."""
    for number in range(world.crowd):
        name = f"h{number}.s{number % world.sites}.example" if world.sites else f"h{number}.example"
        world.hosts[name] = ScriptedHost(name, rng.choice(world.kinds), rng.choice(world.robots), rng, world.seed)
    names = list(world.hosts)
    weights = rng.choice(([1.0] * len(names), [1 / (place + 1) for place in range(len(names))]))
    asked = rng.choices(names, weights, k=world.rows)
    if world.order == "by host":
        asked.sort()
    elif world.order == "in turn":
        asked = [names[number % len(names)] for number in range(world.rows)]
    for number, name in enumerate(asked, 1):
        world.listed.append(Request(number, _url(rng, world, name, number)))


def _url(rng: Rng, world: World, name: str, number: int) -> str:
    """Draw where a row leads; its path says what is there."""
    if rng.random() < world.bad:
        return rng.choice(("http://[bad", "ftp://h0.example/", "", f"http://{next(iter(world.hosts))}/1"))
    port = ":8080" if rng.random() < 0.1 else ""
    path = f"{number}"
    if rng.random() < world.hops:
        path += rng.choice(("/hop/1", "/hop/1", "/hop/2", "/hop/3", "/hop/15", "/loop", "/bad"))
    return f"http://{name}{port}/{path}"


# The families: what each is about. What it does not say is as it was drawn for all.


def _mixed(rng: Rng, world: World) -> None:
    world.ordered = rng.random() < 0.1
    world.pause = rng.choice((0.0, 0.0, 0.0, 0.05))


def _well(rng: Rng, world: World) -> None:
    world.kinds = WELL
    world.robots = ("none", "all", "half a second")


def _throttled(rng: Rng, world: World) -> None:
    world.kinds = (*THROTTLING, "quick")
    world.crowd = rng.choice((1, 2, 4, 8))
    world.options |= {"per_host": rng.choice((2, 6, 6)), "concurrency": rng.choice((7, 30, 100)), "delay": 0}
    world.options.pop("rate", None)


def _learning(rng: Rng, world: World) -> None:
    """Few hosts with many rows: what they bear is found out, and tried again."""
    _throttled(rng, world)
    world.kinds = rng.choice((("crowded", "spaced"), ("crowded", "spaced", "counting")))
    world.crowd = rng.choice((1, 2, 3))
    world.rows = rng.choice((300, 800, 1_500))
    world.options |= {"per_host": rng.choice((1, 2, 6, 6)), "robots": False, "lookahead": 10_000}
    world.options |= {"host_patience": 60, "max_retry_after": 300}
    world.options.pop("hosts", None)


def _dying(rng: Rng, world: World) -> None:
    world.kinds = (*DYING, *WELL[: rng.choice((1, 3))])
    world.options["concurrency"] = rng.choice((3, 7, 30, 100))


def _away(rng: Rng, world: World) -> None:
    """Our own network goes, and comes back."""
    world.kinds = rng.choice((("steady", "quick"), ("steady", "quick"), (*WELL, "dead", "late", "uneven")))
    world.crowd = rng.choice((6, 8, 12, 20))
    world.rows = rng.choice((80, 150, 300))
    world.island = rng.random() < 0.2
    begin = rng.choice((0.0, 1.0, 1.0, 4.0))
    for _ in range(rng.choice((1, 1, 2, 3))):
        end = begin + rng.choice((0.5, 3.0, 10.0, 40.0, 90.0))
        world.outages.append((begin, end, rng.choice(("refused", "hole", "unroutable", "unnamed", "unroutable"))))
        begin = end + rng.choice((0.5, 5.0, 20.0))
    world.options |= {
        "delay": rng.choice((0, 0, 0.5)),
        "robots": rng.random() < 0.2,
        "concurrency": rng.choice((7, 30, 100)),
    }
    world.options.pop("rate", None)


def _robots(rng: Rng, world: World) -> None:
    world.options["robots"] = True
    world.kinds = rng.choice((("steady", "quick", "uneven"), ("quick",), ANY))
    world.hops = rng.choice((0.0, 0.3))


def _delayed(rng: Rng, world: World) -> None:
    """Delays, and connections that take long: the last look before a request goes has something to say."""
    world.options |= {
        "delay": rng.choice((0, 0.05, 0.5, 3)),
        "robots": rng.random() < 0.6,
        "per_host": rng.choice((2, 6)),
    }
    world.robots = ("half a second", "three seconds", "a minute", "none", "broken at first")
    world.kinds = ("far", "far", "far", "steady", "slow", "uneven", "counting", "crowded", "reluctant", "leaving")
    world.crowd = rng.choice((1, 2, 5, 12))
    world.singles = rng.choice((0, 4))


def _rated(rng: Rng, world: World) -> None:
    world.options["rate"] = rng.choice((0.5, 3, 3, 40, 40, 2_000))
    world.kinds = rng.choice((WELL, ANY))


def _hopping(rng: Rng, world: World) -> None:
    world.hops = rng.choice((0.5, 0.9))
    world.options["robots"] = rng.random() < 0.5


def _sharing(rng: Rng, world: World) -> None:
    """Hosts of one site share a limit."""
    world.options["per_site"] = rng.choice((1, 1, 2, 4))
    world.sites = rng.choice((1, 2, 4))
    world.crowd = rng.choice((4, 8, 20, 40))


def _addressed(rng: Rng, world: World) -> None:
    """Hosts behind one address share a limit, and some a site as well."""
    world.options["per_address"] = rng.choice((1, 1, 2, 4))
    world.sites = rng.choice((0, 0, 2))
    world.addressed = True
    world.crowd = rng.choice((3, 8, 20))
    world.singles = rng.choice((0, 0, 4))


def _in_order(rng: Rng, world: World) -> None:
    world.ordered, world.sequential = rng.choice(((True, False), (True, False), (True, False), (False, True)))
    world.pause = rng.choice((0.0, 0.02, 0.3))
    if world.sequential:
        world.rows = min(world.rows, 40)


def _slowly_read(rng: Rng, world: World) -> None:
    world.pause = rng.choice((0.005, 0.05, 0.5, 2.0))
    world.options["concurrency"] = rng.choice((1, 3, 100))


def _left(rng: Rng, world: World) -> None:
    """Runs that end early."""
    world.leave = rng.choice(("break", "stop", "stop", "stop now", "time", "bug", "source"))
    world.patience = rng.choice((0, 3, 20, 60))
    world.rows = rng.choice((40, 150, 300))
    if world.leave == "time":
        world.options["time_limit"] = rng.choice((0.5, 3, 20))
    if world.leave == "bug":
        world.middleware = ("bug",)


def _several(rng: Rng, world: World) -> None:
    """Several lists of one fetcher at the same time, and single URLs beside them."""
    world.streams = rng.choice((2, 3, 4))
    world.singles = rng.choice((0, 3, 10))
    world.rows = rng.choice((40, 150, 300))


def _spilled(rng: Rng, world: World) -> None:
    """A list that is much longer than the look-ahead, of hosts that make it wait."""
    world.options |= {
        "robots": rng.random() < 0.2,
        "concurrency": rng.choice((30, 100)),
        "delay": rng.choice((0, 0, 0.05)),
    }
    world.options["retries"] = 2
    world.options.pop("rate", None)
    world.options["lookahead"], world.rows, crowds = rng.choice(
        (
            (1, 300, (3, 12)),
            (5, 800, (2, 5, 40)),
            (40, 800, (2, 5, 40)),
            (40, 1_500, (3, 12, 40)),
            (2_100, 3_000, (2, 3)),
        )
    )
    world.crowd = rng.choice(crowds)
    world.kinds = rng.choice((("quick",), ("quick", "counting", "reluctant"), (*THROTTLING, *DYING, "quick")))
    world.pause = rng.choice((0.0, 0.0, 0.05)) if world.rows < 3_000 else 0.0
    if rng.random() < 0.15:  # all places are taken by rows that nobody reads
        world.options |= {"lookahead": 40, "delay": 0.05, "concurrency": 100}
        world.rows, world.crowd, world.kinds, world.pause = 1_500, 12, ("quick",), 4.0


def _wrapped(rng: Rng, world: World) -> None:
    """Middleware of the caller's own."""
    world.middleware = tuple(
        rng.sample(("aside", "elsewhere", "twice", "dawdling", "impatient"), rng.choice((1, 2, 3)))
    )
    world.singles = rng.choice((0, 4))


def _taken_up(rng: Rng, world: World) -> None:
    """What one fetcher knows of hosts is told to the next."""
    world.again = True
    world.rows = rng.choice((80, 150, 300))
    world.patience = rng.choice((20, 60))
    world.leave = "break"
    world.options["robots"] = rng.random() < 0.7
    world.robots = ("none", "half a second", "three seconds", "a minute", "all")
    world.kinds = (*WELL, *THROTTLING)


def _crowd(_: Rng, world: World) -> None:
    """More hosts than are remembered, of which many rest while the others are asked."""
    world.options = {"robots": False, "backoff": 2, "lookahead": 20_000, "host_patience": 300}
    world.kinds = (*["quick"] * 20, "parked", "gone")
    world.crowd, world.rows, world.most = 67_000, 68_000, 200_000
    world.hops = world.bad = 0.0
    world.order, world.source = "in turn", "list"


FAMILIES: dict[str, Callable[[Rng, World], None]] = {
    "mixed": _mixed, "well": _well, "throttled": _throttled, "learning": _learning, "dying": _dying, "away": _away,
    "robots": _robots, "delayed": _delayed, "rated": _rated, "hopping": _hopping, "sharing": _sharing,
    "addressed": _addressed, "in order": _in_order, "slowly read": _slowly_read, "left": _left, "several": _several,
    "spilled": _spilled, "wrapped": _wrapped, "taken up": _taken_up,
}  # fmt: skip


# Playing it


class ScriptedTransport:
    """The wire of one world: ``async (request) -> Response``, by the scripts of its hosts. Notes each exchange.

    ``story`` is the same and more, for people.
    """

    def __init__(self, world: World, config: Config) -> None:
        self.lines: list[str] = []
        self.story: list[str] = []
        self.starts = 0
        self._world = world
        self._seconds = {"none": 0.0, **{name: getattr(config.timeouts, name) for name in ("connect", "read", "total")}}
        self._limit: asyncio.Timeout | None = None
        self._asked: Counter[str] = Counter()

    def limited(self) -> asyncio.Timeout:
        """Return the limit of the world, for an ``async with``: raises ``TimeoutError`` where it takes too much."""
        self._limit = asyncio.timeout(LONGEST)
        return self._limit

    async def __call__(self, request: Request) -> Response:
        """Make one exchange. Raises ``FetchError``."""
        if self.starts >= self._world.most and self._limit is not None:
            self._limit.reschedule(asyncio.get_running_loop().time())
            await asyncio.get_running_loop().create_future()
        self.starts += 1
        self._asked[request.url] += 1
        asker.set(f"{request.id} {request.url}")
        place, attempt = request.url.removeprefix("http://"), self._asked[request.url]
        where, _, path = place.partition("/")
        name, _, port = where.partition(":")
        self._note(f"{where} {request.id} /{path} {attempt}")
        host = self._world.hosts[name]
        try:
            response = await self._exchange(request, host, host.step(port, f"/{path}", attempt))
        except BaseException as error:
            self._tell(f"{place} {request.id}: {error!r}"[:200])
            raise
        self._tell(f"{place} {request.id}: {response.status} {dict(response.headers)}")
        return response

    async def address_of(self, host: str) -> str | None:
        """Say where a host lives: three share each address, and some are nowhere."""
        number = sum(map(ord, host))
        await _sleep(0.01 * (number % 3))
        return None if number % 7 == 0 else f"192.0.2.{number // 3 % 5}"

    async def close(self) -> None:
        """Do nothing: there are no connections."""

    async def _exchange(self, request: Request, host: ScriptedHost, step: ScriptedStep) -> Response:
        fate = self._world.outage() or (host.behaviour.away if host.is_away(elapsed()) else step.fate)
        await self._connect(fate, step.connect)
        await self._send(request, host)
        enter("waiting")
        host.at_once += 1
        try:
            refusal = host.refusal(elapsed(), step.latency % 1.0)
            await _sleep(min(step.latency, 0.02) if refusal else step.latency)
            if (self._world.outage() is not None and not step.spared) or (
                fate not in WAITING and host.is_away(elapsed())
            ):
                fate = "silent"
            elif refusal is not None:
                fate = refusal
            await self._strike(WAITING, fate)
            if fate[0] == "!":
                status, _, wish = fate[1:].partition(":")
                raise StatusError(int(status), "", float(wish) if wish else None)
            enter("reading")
            await _sleep(step.body / 2)
            if step.body > 1:
                enter("waiting for memory")
                await _sleep(step.body / 2)
                enter("reading")
            await self._strike(READING, fate)
        finally:
            host.at_once -= 1
        return self._answer(request, fate)

    async def _connect(self, fate: str, seconds: float) -> None:
        enter("connecting")
        if seconds:
            enter("resolving")
            await _sleep(seconds / 3)
            enter("connecting")
            await _sleep(seconds * 2 / 3)
        if fate in CONNECTING:
            stage, timeout, code = CONNECTING[fate]
            enter(stage)
            await _sleep(self._seconds[timeout])
            raise _failure(code) from (OSError(errno.ENETUNREACH, "unreachable") if fate == "unroutable" else None)

    async def _send(self, request: Request, host: ScriptedHost) -> None:
        """Ask whether the request may still go, as the real transport does with its connection in hand."""
        gate = send_gate()
        if gate is None:
            return
        try:
            while (wait := gate()) > 0:
                self._note(f"{host.name} {request.id} held {wait:.6f}")
                await asyncio.sleep(wait)
        except BaseException as error:
            self._note(f"{host.name} {request.id} turned away: {type(error) is not asyncio.CancelledError}")
            raise

    async def _strike(self, table: dict[str, tuple[str, str]], fate: str) -> None:
        if fate in table:
            timeout, code = table[fate]
            await _sleep(self._seconds[timeout])
            raise _failure(code)

    def _answer(self, request: Request, fate: str) -> Response:
        number, _, more = fate.partition(":")
        status, headers, body = int(number), (("content-type", "application/octet-stream"),), b""
        path = request.url.removeprefix("http://").partition("/")[2]
        if path == "robots.txt":
            body = _robots_txt(more) if status == 200 else b""
        hop = path.split("/")
        location = None
        if status == 301:
            location = f"http://{self._another(request.url)}/robots.txt"
        elif status == 200 and len(hop) > 1:
            location = self._location(request.url, hop)
        if location is not None:
            return Response(request, request.url, 301, (*headers, ("location", location)))
        return Response(request, request.url, status, (*headers, *_wish(status, more)), body, len(body))

    def _location(self, url: str, hop: list[str]) -> str | None:
        row, kind, *left = hop
        if kind == "loop":
            return url
        if kind == "bad":
            return "ftp://nowhere.example/"
        if int(left[0]) <= 1:
            return f"http://{self._another(url)}/{row}"
        return f"http://{self._another(url)}/{row}/hop/{int(left[0]) - 1}"

    def _another(self, url: str) -> str:
        names = list(self._world.hosts)
        return names[int(share_of(self._world.seed, url) * len(names))]

    def _note(self, words: str) -> None:
        """Write a line of the record."""
        self.lines.append(f"{self._world.number} {elapsed():.6f} {words}")
        self._tell(words)

    def _tell(self, words: str) -> None:
        self.story.append(f"{elapsed():12.6f} {words}")


async def _sleep(seconds: float) -> None:
    if seconds > 0:  # what takes no time does not even let the loop turn
        await asyncio.sleep(seconds)


def _failure(code: str) -> FetchError:
    """Make the error with a code, of the most particular class that has it."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FetchError)]
    kind = max((kind for kind in kinds if code in kind.codes), key=lambda kind: len(kind.__mro__))
    return kind(code, "as the script has it")


def _wish(status: int, more: str) -> Iterator[tuple[str, str]]:
    """Write when a host wishes to be asked again, in the way it was given."""
    kind, _, value = more.rpartition("=")
    if status == 200 or not more:
        return
    if kind == "date":
        yield "retry-after", formatdate(math.ceil(time.time() + float(value)), usegmt=True)
    elif kind == "reset":
        yield "ratelimit", f"remaining=0, reset={value}"
    else:
        yield "retry-after", value


def _robots_txt(more: str) -> bytes:
    kind, _, value = more.partition("=")
    line = {"deny": f"Disallow: {value}", "delay": f"Crawl-delay: {value}"}.get(kind, "Allow: /")
    return f"User-agent: *\n{line}\n".encode()


class Player:
    """Plays one world and counts what comes of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.config = Config.of(**world.options)
        self.codes: Counter[str] = Counter()
        self.attempts = 0
        self.seconds = [0.0, 0.0]  # on the wire and waited, of all outcomes
        self.wire = ScriptedTransport(world, self.config)
        self._done: set[int] = set()
        self.hosts: list[str] = []
        self.end = "done"

    async def play(self) -> None:
        """Play the world, until all is done or it has taken too long."""
        world = self.world
        try:
            async with self.wire.limited(), self._fetcher() as fetcher:
                await self._read_all(fetcher)
                if world.again:
                    world.leave = None
                    async with self._fetcher() as another:
                        remember(fetcher, another)
                        await self._read_all(another)
                        self.hosts = told(another)
                self.hosts += told(fetcher)
        except TimeoutError:
            self.end = "cut off"

    def lines(self) -> Iterator[str]:
        """Return the record: the starts, what is told of hosts, and how it ended."""
        yield from self.wire.lines
        for line in self.hosts:
            yield f"{self.world.number} host {line}"
        codes = " ".join(f"{code}={number}" for code, number in sorted(self.codes.items()))
        wire, waited = self.seconds
        yield (
            f"{self.world.number} end {self.end} after {self.wire.starts} starts: {codes}; "
            f"attempts={self.attempts} wire={wire:.3f} waited={waited:.3f}"
        )

    def _fetcher(self) -> Fetcher:
        middleware = [MIDDLEWARE[name](self.world) for name in self.world.middleware]
        if not self.world.addressed:
            return Fetcher(self.config, middleware=middleware, transport=self.wire)
        stand_in(self.wire)
        return Fetcher(self.config, middleware=middleware)

    async def _read_all(self, fetcher: Fetcher) -> None:
        """Read the list as one or several streams, with single rows beside them."""
        world = self.world
        rows = [row for row in world.listed if row.id not in self._done]
        singles = rows[: world.singles]
        streams = [rows[world.singles + number :: world.streams] for number in range(world.streams)]
        await asyncio.gather(
            *(self._read(fetcher, number, rows) for number, rows in enumerate(streams)),
            *(self._fetch(fetcher, number, row) for number, row in enumerate(singles)),
        )

    async def _read(self, fetcher: Fetcher, number: int, rows: list[Request]) -> None:
        world, taken = self.world, 0
        await asyncio.sleep(0.7 * number)
        how: dict[str, Any] = {"ordered": world.ordered, "sequentially": world.sequential}
        try:
            async with fetcher.stream(self._source(rows), **how) as outcomes:
                async for outcome in outcomes:
                    self._count(outcome)
                    taken += 1
                    if world.pause:
                        await asyncio.sleep(world.pause)
                    if taken == world.patience and world.leave == "break":
                        break
                    if taken == world.patience and world.leave in ("stop", "stop now"):
                        fetcher.stop(0.0 if world.leave == "stop now" else 2.0)
        except (SourceError, RuntimeError) as error:
            self.end = f"ended by {type(error).__name__}"

    async def _fetch(self, fetcher: Fetcher, number: int, row: Request) -> None:
        """Fetch one row by itself; some lose their patience, and those perhaps in the instant in which they may go."""
        await asyncio.sleep(0.3 * (number // 3))
        try:
            self._count(await asyncio.wait_for(fetcher.fetch(row), (None, 0.5, 5.0)[number % 3]))
        except FetchError as error:
            self.codes[error.code] += 1
        except TimeoutError:
            self.codes["impatient"] += 1

    def _count(self, outcome: Outcome) -> None:
        self.codes["ok" if isinstance(outcome, Page) else outcome.error.code] += 1
        self.attempts += outcome.attempts
        self.seconds[0] += outcome.elapsed
        self.seconds[1] += outcome.waited
        self._done.add(outcome.request.id)

    def _source(self, rows: list[Request]) -> Any:
        """Return the list in the form in which it comes."""
        if self.world.leave == "source":
            return self._failing(rows)
        if self.world.source == "generator":
            return (row for row in rows)
        return self._slow(rows) if self.world.source == "slow" else rows

    def _failing(self, rows: list[Request]) -> Iterator[Request]:
        yield from islice(rows, self.world.patience)
        raise SourceError("the list ends here")

    async def _slow(self, rows: list[Request]) -> AsyncIterator[Request]:
        for number, row in enumerate(rows):
            await asyncio.sleep(1.5 if number % 25 == 24 else 0.004)
            yield row


def _aside(_: World) -> Middleware:
    """Answer every seventh row by itself."""

    async def handle(request: Request, proceed: Exchange) -> Response:
        return Response(request, request.url, 200) if request.id % 7 == 0 else await proceed(request)

    return handle


def _elsewhere(world: World) -> Middleware:
    """Ask another host for every fifth row."""
    names = list(world.hosts)

    async def handle(request: Request, proceed: Exchange) -> Response:
        if request.id % 5:
            return await proceed(request)
        return await proceed(Request(request.id, f"http://{names[request.id % len(names)]}/{request.id}"))

    return handle


def _twice(_: World) -> Middleware:
    """Ask twice for every third row, as for a token."""

    async def handle(request: Request, proceed: Exchange) -> Response:
        response = await proceed(request)
        return await proceed(request) if request.id % 3 == 0 else response

    return handle


def _dawdling(_: World) -> Middleware:
    """Take a while before every fourth row is asked for."""

    async def handle(request: Request, proceed: Exchange) -> Response:
        await _sleep(0.0 if request.id % 4 else 0.4)
        return await proceed(request)

    return handle


def _impatient(_: World) -> Middleware:
    """Give up every second row after a moment, wherever it is."""

    async def handle(request: Request, proceed: Exchange) -> Response:
        try:
            async with asyncio.timeout(None if request.id % 2 else 0.35):
                return await proceed(request)
        except TimeoutError:
            raise _failure("total_timeout") from None

    return handle


def _bug(world: World) -> Middleware:
    """Break down at one row."""

    async def handle(request: Request, proceed: Exchange) -> Response:
        if request.id == world.patience + 1:
            raise RuntimeError("a bug")
        return await proceed(request)

    return handle


MIDDLEWARE: dict[str, Callable[[World], Middleware]] = {
    "aside": _aside, "elsewhere": _elsewhere, "twice": _twice, "dawdling": _dawdling, "impatient": _impatient, "bug": _bug,
}  # fmt: skip


def play(number: int, seed: int) -> Player:
    """Play one world; one that stands still says so at its end."""
    world = drawn(number, seed)
    player = Player(world)

    def has_route() -> bool:
        return not world.island and world.outage() != "unroutable"

    try:
        played(player.play(), seed=world.seed, has_route=has_route)
    except StandStill as error:
        player.end = f"stands still: {error}"
    return player


# The record


class Record(NamedTuple):
    """The lines of each world by its number, and each world's family."""

    lines: dict[int, list[str]]
    families: dict[int, str]

    def digest(self, family: str | None = None) -> str:
        """Return the digest of all worlds, or of those of one family."""
        found = hashlib.sha256()
        for number, lines in self.lines.items():
            if family in (None, self.families[number]):
                found.update("\n".join(lines).encode())
        return found.hexdigest()

    def text(self) -> str:
        """Return the record as it is written."""
        heads = ((f"# {number} {self.families[number]}", *lines) for number, lines in self.lines.items())
        return "\n".join(chain.from_iterable(heads)) + "\n"


def record_of(worlds: Iterable[int], seed: int) -> Record:
    """Play so many worlds."""
    record = Record({}, {})
    for number in worlds:
        player = play(number, seed)
        record.lines[number] = list(player.lines())
        record.families[number] = player.world.family
    return record


def read_record(path: Path) -> Record:
    """Read a record that was written."""
    record = Record({}, {})
    for line in path.read_text().splitlines():
        if line.startswith("# "):
            number, family = line[2:].split(" ", 1)
            lines = record.lines.setdefault(int(number), [])
            record.families[int(number)] = family
        else:
            lines.append(line)
    return record


class Difference(NamedTuple):
    """How two records of one world differ, and the first lines of each that the other has not."""

    kind: str
    pairs: tuple[tuple[str, str], ...]


def difference(before: Sequence[str], after: Sequence[str]) -> Difference | None:
    """Compare two records of one world; ``None`` where they are equal.

    The kinds, from the least: what is told of hosts and the end · who starts first of those that start in one instant ·
    which row of a host starts when one of them may · when a host is asked.
    """
    if before == after:
        return None
    starts = [[line for line in lines if _is_start(line)] for lines in (before, after)]
    if starts[0] == starts[1]:
        return Difference("other figures", (_first_apart(before, after),))
    moments = [sorted(lines, key=_moment) for lines in starts]
    if moments[0] == moments[1]:
        return Difference("other order within an instant", (_first_apart(*starts),))
    times = [[" ".join(line.split(" ", 3)[:3]) for line in lines] for lines in moments]
    if times[0] == times[1]:
        return Difference("other rows of the same hosts at the same times", (_first_apart(*moments),))
    return Difference("other times", (_first_apart(*moments), _first_apart(*times)))


def _is_start(line: str) -> bool:
    return line.split(" ", 2)[1] not in ("host", "end")


def _moment(line: str) -> tuple[float, str]:
    _, now, rest = line.split(" ", 2)
    return float(now), rest


def _first_apart(before: Sequence[str], after: Sequence[str]) -> tuple[str, str]:
    pairs = zip_longest(before, after, fillvalue="nothing")
    return next((one, other) for one, other in pairs if one != other)


def compared(before: Record, after: Record) -> list[str]:
    """Return what there is to say of the worlds that differ: nothing where none does."""
    numbers = [number for number in after.lines if number in before.lines]
    found = {number: difference(before.lines[number], after.lines[number]) for number in numbers}
    differing = {number: what for number, what in found.items() if what is not None}
    words = [] if numbers else ["no world is in both records"]
    for number, what in islice(differing.items(), SHOWN):
        words.append(f"world {number} ({after.families[number]}): {what.kind}")
        ends = before.lines[number][-1], after.lines[number][-1]
        for one, other in dict.fromkeys((*what.pairs, *([ends] if ends[0] != ends[1] else []))):
            words += [f"    before: {one}", f"    after:  {other}"]
    for kind, worlds in Counter(what.kind for what in differing.values()).items():
        words.append(f"{kind} in {worlds} of {len(numbers)} worlds")
    families = Counter(after.families[number] for number in differing)
    words += [f"    {family}: {worlds} worlds" for family, worlds in families.most_common()]
    return words


def summary(record: Record) -> str:
    """Tell how much is in a record, and its digests."""
    lines = [line for lines in record.lines.values() for line in lines]
    starts = sum(int(lines[-1].split(" starts:")[0].rsplit(" ", 1)[1]) for lines in record.lines.values())
    words = [f"{len(record.lines)} worlds, {starts} starts, {len(lines)} lines, sha256 {record.digest()}"]
    for family in dict.fromkeys(record.families.values()):
        number = sum(one == family for one in record.families.values())
        words.append(f"    {family:<12} {number:3} worlds, sha256 {record.digest(family)[:16]}")
    return "\n".join(words)


def story(number: int, seed: int) -> str:
    """Tell one world: its settings, its hosts, and all that happened in it."""
    player = play(number, seed)
    world = player.world
    kept = {name: value for name, value in vars(world).items() if name not in ("hosts", "listed", "kinds", "robots")}
    hosts = [f"{host.name}: robots.txt {host.robots!r}, {host.behaviour}" for host in world.hosts.values()]
    return "\n".join([str(kept), *hosts, *player.wire.story, *(line for line in player.lines() if " end " in line)])


# Real time


class Clocked:
    """The real transport, noting when each exchange began and ended, of which host and row."""

    def __init__(self, config: Config) -> None:
        self.passages: list[tuple[float, float, str, int]] = []
        self._real = Transport(config)

    async def __call__(self, request: Request) -> Response:
        """Make one exchange. Raises ``FetchError``."""
        began = time.monotonic()
        try:
            return await self._real(request)
        finally:
            host = request.url.split("/", 3)[2].partition(":")[0]
            self.passages.append((began, time.monotonic(), host, request.id))

    async def close(self) -> None:
        """Close every connection."""
        await self._real.close()


async def crawl(rows: list[Request], **options: Any) -> tuple[Clocked, Counter[str]]:
    """Fetch a list in real time; return what was noted, and how many outcomes there were of each code."""
    config = Config.of(robots=False, **options)
    wire = Clocked(config)
    codes: Counter[str] = Counter()
    async with Fetcher(config, transport=wire) as fetcher, fetcher.stream(rows) as outcomes:
        async for outcome in outcomes:
            codes["ok" if isinstance(outcome, Page) else outcome.error.code] += 1
    await wire.close()
    return wire, codes


def figures_of(wire: Clocked, codes: Counter[str]) -> dict[str, float]:
    """Return what there is to compare: starts in a second, at once in all and of a host, the gaps of one host."""
    passages = sorted(wire.passages)
    hosts: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for began, ended, host, _ in passages:
        hosts[host].append((began, ended))
    gaps = [after - before for one in hosts.values() for (before, _), (after, _) in pairwise(one)]
    seconds = max(ended for _, ended, _, _ in passages) - passages[0][0]
    return {
        "starts": len(passages),
        "starts a second": len(passages) / seconds,
        "at once": _at_once([(began, ended) for began, ended, _, _ in passages]),
        "at once of a host": max(map(_at_once, hosts.values())),
        "least gap": min(gaps),
        "median gap": median(gaps),
        **{f"outcomes {code}": number for code, number in codes.items()},
    }


def _at_once(spans: list[tuple[float, float]]) -> int:
    """Say how many of these spans there are at one moment at most."""
    edges = sorted([(began, 1) for began, _ in spans] + [(ended, -1) for _, ended in spans])
    most = now = 0
    for _, step in edges:
        now += step
        most = max(most, now)
    return most


def lab() -> Iterator[tuple[str, Clocked, dict[str, float]]]:
    """Run the three lists in real time, one after the other: many hosts, few hosts with a delay, dead ones among them."""
    with street() as hosts, living_in() as town:

        def rows(names: Iterable[str], number: int) -> list[Request]:
            pairs = ((name, row) for row in range(number) for name in names)
            return [Request(n, f"http://{name}/{row}") for n, (name, row) in enumerate(pairs, 1)]

        living = [f"127.20.{number // 200}.{number % 200 + 1}:{hosts.port}" for number in range(300)]
        hosts.play(Scene((0.02, 0.08)))
        yield "many hosts", *_measured(crawl(rows(living, 10), concurrency=100))
        hosts.play(Scene((0.02, 0.2)))
        yield "few hosts", *_measured(crawl(rows(living[:5], 50), per_host=2, delay=0.08))
        dead = [f"127.21.0.{number}:{town.ports['silent' if number % 2 else 'refused']}" for number in range(1, 6)]
        throttling = living[0].partition(":")[0]
        hosts.play(Scene((0.05, 0.15), refusing=Refusing(throttling, 429, ceiling=2)))
        listed = rows([*living[:45], *dead], 20)
        yield "a tenth dead", *_measured(crawl(listed, concurrency=50, retries=1, read_timeout=2, host_patience=8))


def _measured(run: Any) -> tuple[Clocked, dict[str, float]]:
    wire, codes = asyncio.run(run)
    return wire, figures_of(wire, codes)


def in_real_time(out: Path | None, against: Path | None) -> int:
    """Run the lab; write its starts and figures, or compare the figures with earlier ones."""
    figures: dict[str, dict[str, float]] = {}
    lines: list[str] = []
    for name, wire, found in lab():
        figures[name] = found
        begin = min(wire.passages)[0]
        lines += [f"{name} {began - begin:.6f} {host} {row}" for began, _, host, row in sorted(wire.passages)]
        print(name, *(f"    {key:<28} {value:.4g}" for key, value in found.items()), sep="\n")
    if out is not None:
        out.write_text("\n".join([json.dumps(figures), *lines]) + "\n")
    before = json.loads(against.read_text().splitlines()[0]) if against is not None else figures
    words = [
        f"{name}, {key}: {before.get(name, {}).get(key, 0.0):.4g} before, {value:.4g} now"
        for name, found in figures.items()
        for key, value in found.items()
        if not _alike(key, before.get(name, {}).get(key, 0.0), value)
    ]
    print(*words, sep="\n", end="\n" if words else "")
    return bool(words)


def _alike(key: str, before: float, after: float) -> bool:
    """Whether two figures may be of the same engine: what is a limit has no tolerance, the rest a quarter, and a few."""
    if key == "at once of a host":
        return before == after
    return math.isclose(before, after, rel_tol=0.25, abs_tol=0.01 if "gap" in key else 8)


def main() -> int:
    """Make a record and say what is in it, or compare it with an earlier one."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.starts")
    parser.add_argument("--worlds", type=int, default=WORLDS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the whole record there")
    parser.add_argument("--against", type=Path, help="compare with the record there")
    parser.add_argument("--crowd", action="store_true", help="play the one world of 68,000 hosts instead")
    parser.add_argument("--show", type=int, metavar="WORLD", help="tell what happens in one world, and no more")
    parser.add_argument("--lab", action="store_true", help="in real time, with real sockets")
    words = parser.parse_args()
    if words.lab:
        return in_real_time(words.out, words.against)
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of a set may decide who is first
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        os.execve(sys.executable, [sys.executable, "-m", "tests.benchmarks.starts", *sys.argv[1:]], environment)
    logging.disable()  # of networks that are away, in worlds where they are
    if words.show is not None:
        print(story(words.show, words.seed))
        return 0
    record = record_of([CROWD] if words.crowd else range(words.worlds), words.seed)
    print(summary(record))
    if words.out is not None:
        words.out.write_text(record.text())
    differing = compared(read_record(words.against), record) if words.against is not None else []
    print(*differing, sep="\n", end="\n" if differing else "")
    return bool(differing)


if __name__ == "__main__":
    sys.exit(main())
