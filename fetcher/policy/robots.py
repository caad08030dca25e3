"""robots.txt (RFC 9309): fetched once for each origin, and every exchange judged by it.

Law 8: polite by default. A file that is not there (4xx but 429, or more than five redirects) allows everything; one
that cannot be had (429, 5xx, no answer) forbids everything for now, and is asked for again after growing times.
Law 4: who waits for a robots.txt waits for a future and holds no slot; from a second on, where its own exchange has
to wait, not even a task. Law 3: what is remembered is bounded by origins and by bytes.

The file goes through retry, redirects, pacing and transport, never through this handler or the caller's middleware.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import msgspec

from fetcher.errors import FetchError, RedirectError, Skipped
from fetcher.flight import Later, current
from fetcher.model import Exchange, Pairs, Request, Response
from fetcher.policy.pacing import Gate
from fetcher.policy.robots_exchange import PATH, Inquiry, is_guarded
from fetcher.policy.robots_file import parse_robots
from fetcher.policy.robots_rules import EVERYTHING, Rule, Rules
from fetcher.urls import Target

__all__ = ["Robots", "Verdict", "robots_tags"]

GOOD_FOR = 86_400.0  # seconds an answer is believed (2.4)
PAUSE, LONGEST_PAUSE = 60.0, 3_600.0  # seconds until one that could not be had is asked for again
KEPT, KEPT_BYTES = 10_000, 48 * 1024 * 1024  # origins, and what their rules may take
LARGE = 32_768  # bytes of a file that is read in a thread: the loop turns meanwhile
TAGS = 1_000  # characters of X-Robots-Tag that are told

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


class _Known(msgspec.Struct):
    """What is known of one origin's file until ``until`` (monotonic seconds).

    ``rules`` or the ``error`` that its rows end with; with a ``flight`` neither is known yet: it goes on then.
    ``of_hop``: the error holds for rows that came by a redirect, and says nothing of others.
    """

    source: str
    until: float
    rules: Rules | None = None
    error: Skipped | None = None
    failures: int = 0
    delay: float = 0.0
    flight: Inquiry | None = None
    of_hop: bool = False

    @property
    def size(self) -> int:
        """About the bytes it takes."""
        return 700 + (self.rules.size if self.rules is not None and self.rules is not EVERYTHING else 0)


class Robots:
    """The handler, shared by all runs of a ``Fetcher``; ``exchange`` is ``robots_exchange``'s, ``token`` our name.

    ``gate`` is told the seconds a host's file asks for, at most ``max_crawl_delay``, when an answer has come (0.0 where
    it asks for none, or could not be had) and again with each exchange, for what is known of hosts may be forgotten.
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
        self._token = token
        self._most = max_crawl_delay
        self._gate = gate
        self._clock = clock
        self._known: OrderedDict[Origin, _Known] = OrderedDict()
        self._bytes = 0
        self._asking: dict[Origin, asyncio.Task[_Known]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def __call__(self, request: Request, proceed: Exchange) -> Awaitable[Response]:
        """Let the exchange through, or raise ``Skipped``: ``robots_denied``, ``robots_unreachable``."""
        target = current.get().target
        known = self._at_hand(target)
        if known is None:
            return self._pass(request, proceed, target)
        self._admit(target, known)
        return proceed(request)  # without a coroutine of its own

    async def _pass(self, request: Request, proceed: Exchange, target: Target) -> Response:
        if _path_of(target) != PATH:
            self._admit(target, await self._learn(target))
        return await proceed(request)

    def _admit(self, target: Target, known: _Known) -> None:
        """Raise ``Skipped`` where the rules deny the URL, or there are none."""
        if self._gate is not None:
            self._gate.know_robots(target.host, known.delay)
        if known.rules is EVERYTHING:
            return
        path = _path_of(target)
        if path == PATH:  # allowed by itself (2.2.2)
            return
        rule = _rules_of(known).denial(path)
        if rule is not None:
            if self._gate is not None:
                self._gate.denied(target.host)
            raise Skipped("robots_denied", f"'{rule}' in line {rule.line} of {known.source}")

    async def judge(self, target: Target) -> Verdict:
        """Return what the robots.txt of the URL's origin says of it. Raises ``Skipped`` where it cannot be had."""
        known = self._at_hand(target) or await self._learn(target)
        rules = _rules_of(known)
        path = _path_of(target)
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

    def _at_hand(self, target: Target) -> _Known | None:
        origin = target.origin
        known = self._known.get(origin)
        if known is None or known.flight is not None or known.until <= self._clock():
            return None
        if len(self._known) > KEPT // 2 or self._bytes > KEPT_BYTES // 2:  # else who was asked for last says nothing
            self._known.move_to_end(origin)
        return known

    async def _learn(self, target: Target) -> _Known:
        """Wait for the one exchange that all rows of an origin wait for, and for its own waits."""
        flight = current.get(None)
        while True:
            known = self._known.get(target.origin)
            pause = known.until - self._clock() if known is not None and known.flight is not None else 0.0
            if flight is not None:
                if pause > 0 and known is not None and flight.deferrable:
                    raise Later(known.until)
                flight.enter("robots")
                if self._gate is not None:
                    self._gate.fulfil(flight)  # its place is the file's now
            if pause > 0:
                await asyncio.sleep(pause)
                continue
            task = self._asking.get(target.origin)
            if task is None:
                task = asyncio.get_running_loop().create_task(self._ask(target, known))
                self._asking[target.origin] = task
            await asyncio.wait([task])  # a row that is cancelled takes nobody's answer away
            found = task.result()
            if found.flight is None and (is_guarded(flight) or not found.of_hop):
                return found

    def _keep(self, origin: Origin, known: _Known) -> None:
        """Law 3: remember it, and forget what was asked for longest ago."""
        old = self._known.pop(origin, None)
        self._bytes += known.size - (old.size if old is not None else 0)
        self._known[origin] = known
        while len(self._known) > KEPT or (self._bytes > KEPT_BYTES and len(self._known) > 1):
            self._bytes -= self._known.popitem(last=False)[1].size

    # The exchange

    async def _ask(self, target: Target, before: _Known | None) -> _Known:
        """Fetch the file, or go on with it where a wait was over; a task of its own."""
        asker = current.get(None)
        flight = before.flight if before is not None else None
        if flight is None or (flight.guarded and not is_guarded(asker)):
            tries = flight.attempts if flight is not None else 0
            flight = Inquiry(target, asker)
            flight.attempts = tries
        current.set(flight)
        try:
            known = await self._fetch(flight, before)
        finally:
            flight.free()
            self._asking.pop(target.origin, None)
        if not known.of_hop:
            self._keep(target.origin, known)
        if known.flight is None and self._gate is not None:
            self._gate.know_robots(target.host, known.delay)
        return known

    async def _fetch(self, flight: Inquiry, before: _Known | None) -> _Known:
        url = flight.request.url
        try:
            response = await self._exchange(flight.request)
        except Later as later:
            if flight.chain is None:
                flight.target = flight.first
            known = before or _Known(url, 0.0)
            return msgspec.structs.replace(known, until=later.due, flight=flight)
        except RedirectError:
            return _Known(url, self._clock() + GOOD_FOR, EVERYTHING)
        except FetchError as error:
            return self._refused(flight, error, before)
        rules = await self._read(response) if response.status < 300 else EVERYTHING
        return _Known(response.url, self._clock() + GOOD_FOR, rules, delay=min(rules.delay, self._most))

    async def _read(self, response: Response) -> Rules:
        body, cut = response.body, response.truncated
        if len(body) > LARGE:
            return await asyncio.to_thread(parse_robots, body, self._token, truncated=cut)
        return parse_robots(body, self._token, truncated=cut)

    def _refused(self, flight: Inquiry, error: FetchError, before: _Known | None) -> _Known:
        """Nothing is allowed for now; an answer that was good once stays so until there is another (2.4)."""
        failures = before.failures + 1 if before is not None else 1
        until = self._clock() + min(PAUSE * 2 ** min(failures - 1, 20), LONGEST_PAUSE)
        if before is not None and before.rules is not None:
            return msgspec.structs.replace(before, until=until, failures=failures, flight=None)
        if isinstance(error, Skipped) and not flight.redirects:
            skipped = error  # what keeps us from the file keeps us from the host
        else:
            skipped = Skipped("robots_unreachable", f"no answer from {flight.target.wire} ({error})")
        of_hop = flight.guarded and error.code == "address_blocked"
        return _Known(flight.request.url, until, error=skipped, failures=failures, of_hop=of_hop)


def _rules_of(known: _Known) -> Rules:
    if known.rules is None:
        raise Skipped(*known.error.args) if known.error is not None else RuntimeError("nothing is known yet")
    return known.rules


def _path_of(target: Target) -> str:
    return target.wire[target.wire.index("/", 8) :]


def robots_tags(headers: Pairs) -> str | None:
    """Return what the ``X-Robots-Tag`` headers say, joined as one, or ``None``. Nothing is read into it."""
    values = [value.strip() for name, value in headers if name == "x-robots-tag"]
    return ", ".join(filter(None, values))[:TAGS] or None
