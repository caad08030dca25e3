"""robots.txt (RFC 9309): fetched once for each origin, and every exchange judged by it.

Law 8: polite by default. A file that is not there (4xx but 429, or more than five redirects) allows everything; one
that cannot be had (429, 5xx, silence) forbids everything for now, and is asked for again after growing times. Where not
even a connection could be had the host is to blame and not its file: its rows fail with that error's own code.
Law 4: who waits for a robots.txt waits for a future and holds no slot; from a second on, where its own exchange has
to wait, not even a task. Law 3: what is remembered is bounded by origins and by bytes.

The file goes through retry, redirects, pacing and transport, never through this handler or the caller's middleware.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import msgspec

from fetcher.errors import ConnectError, DNSError, FetchError, RedirectError, Skipped, TLSError
from fetcher.middleware.gate import Gate
from fetcher.middleware.robots.cache import Known, RobotsCache
from fetcher.middleware.robots.fetch import PATH, RobotsFetch, trial_of
from fetcher.middleware.robots.rules import EVERYTHING, Rule
from fetcher.model import Exchange, Request, Response, Stage
from fetcher.request_state import Requeue, current, is_guarded
from fetcher.urls import Target

__all__ = ["Robots", "Verdict"]

GOOD_FOR = 86_400.0  # seconds an answer is believed (2.4)
UNCONNECTED = DNSError | ConnectError | TLSError  # without a connection there is no host, and no rule of its
PAUSE, LONGEST_PAUSE = 60.0, 3_600.0  # seconds until one that could not be had is asked for again


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
