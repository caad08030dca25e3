"""robots.txt (RFC 9309): fetched once for each origin, and every exchange judged by it.

Law 8: polite by default. A file that is not there (4xx but 429, or more than five redirects) allows everything; one
that cannot be had (429, 5xx, silence) forbids everything for now, and is asked for again after growing times. Where not
even a connection could be had the host is to blame and not its file: its rows fail with that error's own code.
Law 4: who waits for a robots.txt waits for a future and holds no slot; from a second on, where its own exchange has
to wait, not even a task. Law 3: what is remembered is bounded by origins and by bytes, and of too many those are
forgotten that were asked for longest ago. A platform gives all its sites the same file: such rules are read once, and
kept once, however many origins have them.

The file goes through retry ▶ accept ▶ redirects ▶ pacing ▶ transport, as any URL does, never through this handler or
the caller's middleware. Law 7: what fetches it is bound as the row is that asked for it. A row that came by a redirect
from a public host must not make us ask a private address for its robots.txt, which the row itself could not reach; and
since a hop may lead to any origin, no secret goes along, not even one that is meant for that host.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeAlias
from weakref import WeakValueDictionary

import msgspec

from fetcher.config import Accept, Config, Identity
from fetcher.errors import ConnectError, DNSError, FetchError, RedirectError, Skipped, TLSError
from fetcher.middleware.accept import accept
from fetcher.middleware.gate import Gate
from fetcher.middleware.redirects import Redirects, may_follow
from fetcher.middleware.retry import Retry
from fetcher.middleware.robots_rules import EVERYTHING, MAX_ROBOTS_BYTES, Rule, Rules, parse_robots
from fetcher.model import Exchange, Middleware, Request, Response, Stage, compose
from fetcher.request_state import RequestState, Requeue, SchemeTrial, current, is_guarded
from fetcher.urls import Target, parse

__all__ = ["PATH", "Known", "Robots", "RobotsCache", "RobotsFetch", "Verdict", "robots_exchange", "trial_of"]

GOOD_FOR = 86_400.0  # seconds an answer is believed (2.4)
UNCONNECTED = DNSError | ConnectError | TLSError  # without a connection there is no host, and no rule of its
PAUSE, LONGEST_PAUSE = 60.0, 3_600.0  # seconds until one that could not be had is asked for again

PATH = "/robots.txt"
MAX_ROBOTS_REDIRECTS = 5  # RFC 9309, 2.3.1.2
FINAL_STATUSES = Accept(((200, 428), (430, 499)))  # neither a reason to ask again nor to stay away

MAX_ORIGINS = 10_000
MAX_RULES_BYTES = 48 * 1024 * 1024  # for all that is remembered
ORIGIN_BYTES = 700  # that an origin takes besides its rules, about
MIN_THREAD_BYTES = 32_768  # a larger file is read in a thread, so that the loop turns meanwhile

Origin: TypeAlias = tuple[str, str, int]


class Verdict(msgspec.Struct, frozen=True):
    """Whether a URL may be asked for, by which rule of the file at ``source``, and the host's ``delay`` in seconds.

    ``rule`` is ``None`` where none applies, ``rules`` how many the file has for us.
    """

    allowed: bool
    rule: Rule | None
    source: str
    delay: float
    rules: int


class Robots:
    """The handler, shared by all runs of a ``Fetcher``; ``exchange`` is ``robots_exchange``'s, ``token`` our name.

    ``gate`` is told the seconds a host's file asks for, at most ``max_crawl_delay`` (0.0 where it asks for none, or
    could not be had), with each exchange, for what is known of hosts may be forgotten.
    """

    def __init__(
        self,
        exchange: Exchange,
        *,
        token: str,
        max_crawl_delay: float = 30.0,
        gate: Gate | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._exchange = exchange
        self._most = max_crawl_delay
        self._gate = gate
        self._clock = clock
        self._cache = RobotsCache(token)
        self._asking: dict[tuple[str, str, int], asyncio.Task[Known]] = {}

    def __len__(self) -> int:
        return len(self._cache)

    def __call__(self, request: Request, proceed: Exchange) -> Awaitable[Response]:
        """Let the exchange through, or raise ``Skipped``: ``robots_denied``, ``robots_unreachable``.

        Of an origin that cannot be connected to, its error is raised.
        """
        target = current.get().target
        known = self._at_hand(target)
        if known is None:
            return self._pass(request, proceed, target)
        self._admit(target, known)
        return proceed(request)  # without a coroutine of its own

    async def _pass(self, request: Request, proceed: Exchange, target: Target) -> Response:
        if _path_of(target) != PATH:
            known = await self._learn(target)
            if known.trial is not None:
                raise _unknown(known)
            self._admit(target, known)
        return await proceed(request)

    def _admit(self, target: Target, known: Known) -> None:
        """Raise ``Skipped`` where the rules deny the URL, or there are none."""
        if self._gate is not None:
            self._gate.know_robots(target.host, known.delay)
        rules = known.rules
        if rules is EVERYTHING:
            return
        path = _path_of(target)
        rule = rules.denial(path) if rules is not None else None
        if (rule is None and rules is not None) or path == PATH:  # that is allowed by itself (2.2.2)
            return
        if rule is None:
            raise _unknown(known)
        if self._gate is not None:
            self._gate.denied(target.host)
        raise Skipped("robots_denied", f"'{rule}' in line {rule.line} of {known.source}")

    async def judge(self, target: Target) -> Verdict:
        """Return what the robots.txt of the URL's origin says of it. Raises ``Skipped`` where it cannot be had."""
        known = self._at_hand(target) or await self._learn(target)
        rules, path = known.rules, _path_of(target)
        if rules is None:
            raise _unknown(known)
        rule = rules.find(path) if path != PATH else None
        return Verdict(rule is None or rule.allow, rule, known.source, known.delay, len(rules))

    async def close(self) -> None:
        """Give up what is being asked for."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._asking.clear()

    # What is known

    def _at_hand(self, target: Target) -> Known | None:
        cache, origin = self._cache, (target.scheme, target.host, target.port)
        known = cache.get(origin)
        if known is None or known.state is not None or known.until <= self._clock():
            return None
        if cache.crowded:
            cache.touch(origin)
        return known

    async def _learn(self, target: Target) -> Known:
        """Wait for the one exchange that all rows of an origin wait for, and for its own waits."""
        state = current.get(None)
        while True:
            known = self._cache.get(target.origin)
            pause = known.until - self._clock() if known is not None and known.state is not None else 0.0
            if state is not None:
                if pause > 0 and known is not None and state.can_requeue:
                    raise Requeue(known.until)
                state.enter(Stage.ROBOTS)
                if self._gate is not None:
                    self._gate.withdraw(state)  # its place is the file's now
            if pause > 0:
                await asyncio.sleep(pause)
                continue
            task = self._asking.get(target.origin)
            if task is None:
                task = asyncio.get_running_loop().create_task(self._ask(target, known))
                self._asking[target.origin] = task
            await asyncio.wait([task])  # a row that is cancelled takes nobody's answer away
            found = task.result()
            ours = found.trial is None or (state is not None and state.trial is found.trial)
            if found.state is None and ours and (is_guarded(state) or not found.of_hop):
                return found

    # The exchange

    async def _ask(self, target: Target, before: Known | None) -> Known:
        """Fetch the file, or go on with it where a wait was over; a task of its own."""
        asker = current.get(None)
        state = before.state if before is not None else None
        if state is None or (state.guarded and not is_guarded(asker)):
            state = RobotsFetch(target, asker, attempts=state.attempts if state is not None else 0)
        state.trial = trial_of(asker, target)
        current.set(state)
        try:
            known = await self._fetch(state, before)
        finally:
            state.free()
            self._asking.pop(target.origin, None)
        if known.trial is not None:
            return known
        if not known.of_hop:
            self._cache.keep(target.origin, known)
        return known

    async def _fetch(self, state: RobotsFetch, before: Known | None) -> Known:
        url = state.request.url
        try:
            response = await self._exchange(state.request)
        except Requeue as requeue:
            state.rewind()
            known = before or Known(url, 0.0)
            return msgspec.structs.replace(known, until=requeue.due, state=state)
        except RedirectError:
            return Known(url, self._clock() + GOOD_FOR, EVERYTHING)
        except FetchError as error:
            return self._refused(state, error.about(state.target.wire).detach(), before)
        if response.status >= 300:
            return Known(response.url, self._clock() + GOOD_FOR, EVERYTHING)
        rules = await self._cache.read(response.body, truncated=response.truncated)
        return Known(response.url, self._clock() + GOOD_FOR, rules, delay=min(rules.delay, self._most))

    def _refused(self, state: RobotsFetch, error: FetchError, before: Known | None) -> Known:
        """Nothing is allowed for now; an answer that was good once stays so until there is another (2.4)."""
        if state.trial is not None and state.trial.error is not None:
            return Known(state.request.url, 0.0, error=error, trial=state.trial)
        failures = before.failures + 1 if before is not None else 1
        until = self._clock() + min(PAUSE * 2 ** min(failures - 1, 20), LONGEST_PAUSE)
        if before is not None and before.rules is not None:
            return msgspec.structs.replace(before, until=until, failures=failures, state=None)
        if isinstance(error, UNCONNECTED | Skipped) and not state.redirects:
            error.final = True  # what keeps us from the file keeps us from the host
        else:
            error = Skipped("robots_unreachable", f"no answer from {state.target.wire} ({error})")
        of_hop = state.guarded and error.code == "address_blocked"
        return Known(state.request.url, until, error=error, failures=failures, of_hop=of_hop)


def _unknown(known: Known) -> Exception:
    return known.error.copy() if known.error is not None else RuntimeError("nothing is known yet")


def _path_of(target: Target) -> str:
    wire = target.wire
    return wire[wire.index("/", 8) :]


def trial_of(asker: RequestState | None, target: Target) -> SchemeTrial | None:
    """Return the trial of the row's scheme that a robots.txt of ``target`` is the first exchange of."""
    trial = asker.trial if asker is not None else None
    return trial if trial is not None and not trial.spoken and trial.origin == target.origin else None


class RobotsFetch(RequestState):
    """The state of one robots.txt, for the row ``asker``; a wait of its own ends it, and it goes on afterwards."""

    __slots__ = ("hops_before", "reached_before")

    def __init__(self, target: Target, asker: RequestState | None, *, attempts: int = 0) -> None:
        url = f"{target.wire[: target.wire.index('/', 8)]}{PATH}"
        super().__init__(Request(0, url, guarded=is_guarded(asker)), parse(url), attempts=attempts)
        self.can_requeue = True
        self.hops_before = asker.redirects if asker is not None else ()
        self.reached_before = asker.reached if asker is not None else None

    @property
    def guarded(self) -> bool:
        """Whether it asks for a row that is."""
        return self.request.guarded


async def _as_the_row(request: Request, proceed: Exchange) -> Response:
    """Let the first exchange count as the hop of the row that it is; those behind it are hops by themselves."""
    state = current.get()
    if state.redirects or not isinstance(state, RobotsFetch) or not state.hops_before:
        return await proceed(request)
    state.follow(state.target, redirects=state.hops_before)
    state.reach(state.reached_before)
    try:
        return await proceed(request)
    finally:
        state.follow(state.target, redirects=())


def _first_bytes(request: Request, proceed: Exchange) -> Awaitable[Response]:
    """Want no more of the file than counts."""
    transfer = current.get().transfer
    if transfer is not None:
        transfer.max_bytes = MAX_ROBOTS_BYTES
    return proceed(request)


def _config_of(config: Config) -> Config:
    """Return what redirects of a robots.txt go by: five hops, and no secret."""
    limits = msgspec.structs.replace(config.limits, max_redirects=MAX_ROBOTS_REDIRECTS)
    told = tuple(header for header in config.identity.headers if may_follow(header.name))
    identity = Identity(config.identity.user_agent, told)
    return msgspec.structs.replace(config, limits=limits, accept=Accept(), identity=identity)


def robots_exchange(config: Config, gate: Gate, transport: Exchange) -> Exchange:
    """Build what fetches robots.txt; ``config`` is the run's own.

    The current state must be an ``RobotsFetch``, and whoever calls must be ready for ``Requeue``.
    """
    handlers: list[Middleware] = [
        Retry(config.retry, gate),
        accept(FINAL_STATUSES),
        Redirects(_config_of(config)),
        _as_the_row,
        gate,
        _first_bytes,
    ]
    return compose(handlers, transport)


class Known(msgspec.Struct):
    """What is known of one origin's file until ``until`` (monotonic seconds).

    ``rules`` or the ``error`` that its rows end with; with a ``state`` neither is known yet: it goes on then.
    ``of_hop``: the error holds for rows that came by a redirect, and says nothing of others. With a ``trial`` it says
    that the host does not speak the scheme that the trial is of, and holds for that alone.
    """

    source: str
    until: float
    rules: Rules | None = None
    error: FetchError | None = None
    failures: int = 0
    delay: float = 0.0
    state: RobotsFetch | None = None
    of_hop: bool = False
    trial: SchemeTrial | None = None


class RobotsCache:
    """What is known by origin; ``size`` is about the bytes that it takes. ``token`` is our name in the files.

    Where it is not ``crowded`` nothing will soon be forgotten, and who was asked for last says nothing.
    """

    def __init__(self, token: str) -> None:
        self.size = 0
        self.crowded = False
        self._token = token
        self._known: OrderedDict[Origin, Known] = OrderedDict()
        self.get = self._known.get  # what is known of an origin, and be it that its time is over
        self._alike: WeakValueDictionary[bytes, Rules] = WeakValueDictionary()
        self._origins: dict[Rules, int] = {}  # how many have them

    def __len__(self) -> int:
        return len(self._known)

    def touch(self, origin: Origin) -> None:
        """Note that an origin was asked for."""
        self._known.move_to_end(origin)

    def keep(self, origin: Origin, known: Known) -> None:
        """Remember it in the place of what was known, and forget what was asked for longest ago."""
        old = self._known.pop(origin, None)
        self._known[origin] = known
        self._count(known)
        if old is not None:
            self._discount(old)
        while len(self._known) > MAX_ORIGINS or (self.size > MAX_RULES_BYTES and len(self._known) > 1):
            self._discount(self._known.popitem(last=False)[1])
        self.crowded = len(self._known) > MAX_ORIGINS // 2 or self.size > MAX_RULES_BYTES // 2

    async def read(self, body: bytes, *, truncated: bool) -> Rules:
        """Return the rules for us in a robots.txt, those of another origin where its file is the same."""
        digest = hashlib.blake2b(body, digest_size=16, person=b"cut" if truncated else b"").digest()
        rules = self._alike.get(digest)
        if rules is None:
            if len(body) > MIN_THREAD_BYTES:
                rules = await asyncio.to_thread(parse_robots, body, self._token, truncated=truncated)
            else:
                rules = parse_robots(body, self._token, truncated=truncated)
            rules = self._alike.setdefault(digest, rules)
        return rules

    def _count(self, known: Known) -> None:
        self.size += ORIGIN_BYTES
        if (rules := known.rules) is not None and rules is not EVERYTHING:
            others = self._origins.get(rules, 0)
            self._origins[rules] = others + 1
            if not others:
                self.size += rules.size

    def _discount(self, known: Known) -> None:
        self.size -= ORIGIN_BYTES
        if (rules := known.rules) is not None and rules is not EVERYTHING:
            others = self._origins.pop(rules) - 1
            if others:
                self._origins[rules] = others
            else:
                self.size -= rules.size
