"""The gate to the wire: the host's slot and delay, taken together with the global slot, innermost of all.

Law 4: waiting holds nothing: what waits here holds a place in the window, and what would wait longer than a
second gives up even that. Law 5: only ``on_wire`` blocks. The decisions are in ``hosts.py`` and ``verdict.py``;
here is the ``await``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from fetcher.errors import FetchError, Skipped, StatusError
from fetcher.hosts.health import HostReport
from fetcher.hosts.hosts import Host, Hosts
from fetcher.middleware.accept import wished_wait
from fetcher.middleware.departure import departure
from fetcher.middleware.silence import Listener, Passage
from fetcher.middleware.verdict import REFUSALS, Judge
from fetcher.model import Exchange, Request, Response
from fetcher.request_state import RequestState, Requeue, current
from fetcher.semaphore import Semaphore

__all__ = ["PATIENCE", "Gate", "Locate", "Waiter"]

log = logging.getLogger("fetcher.hosts.hosts")

PATIENCE = 1.0  # seconds a row waits inside its task

Locate = Callable[[str], Awaitable[str | None]]
"""The address a host key stands for, or ``None`` where it cannot be known."""


class Waiter:
    """One exchange that waits at the gate for its host."""

    __slots__ = ("future", "host", "state")

    def __init__(self, host: Host[Waiter], state: RequestState) -> None:
        self.host = host
        self.state = state
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Gate:
    """The slots, and everyone waiting for one: a handler, shared by all runs of a ``Fetcher``.

    ``locate`` is asked for a host's address before its first exchange, where ``per_address`` limits it.
    """

    def __init__(
        self, hosts: Hosts[Waiter], clock: Callable[[], float] = time.monotonic, *, locate: Locate | None = None
    ) -> None:
        self.hosts = hosts
        self.clock = clock
        self.judge = Judge(hosts)
        self.listeners: list[Callable[[str], None]] = []
        self._locate = locate if hosts.limits.per_address is not None else None
        # Never waited for: hosts.on_wire decides. It stands guard that no exchange is above the limit.
        self._slots = Semaphore(hosts.limits.concurrency)
        self._listener = Listener(self.judge, self.clock, self._make_use_of)
        self._timer: asyncio.TimerHandle | None = None
        self._wake_at = 0.0

    async def __call__(self, request: Request, proceed: Exchange) -> Response:
        """Hold the two slots for as long as ``proceed`` runs."""
        state, hosts, slots = current.get(), self.hosts, self._slots
        now = self.clock()
        host = hosts.get(state.target.host, now)
        if self._locate is not None and not host.located:
            host, now = await self._find(host, state, self._locate)
        promised = state.promised
        if promised is not None:
            hosts.withdraw(promised)
            state.promised = None
        rests = host.rests_until > now and state.deferrable
        if host.given_up is None and not host.waiters and not rests and hosts.may_start(host, now):
            hosts.start(host, now)
            if promised is not host and promised is not None:  # a middleware asks elsewhere
                self._tell(promised.key)
        else:
            await self._wait(host, state, now, promised)
            now = self.clock()
        if slots.open:
            slots.take()
        else:
            await slots.acquire()
        state.depart = departure(host, state, self.clock)
        task, listener = asyncio.current_task(), self._listener
        listener.passages[task] = passage = (began := now, host, state, host.suspect)
        if listener.listening is None:
            listener.listen()
        try:
            response = await proceed(request)
            now = self.clock()
            self.judge.answered(host, state.target.port, response.status, began, now)
            if response.status in REFUSALS:
                self._hear_refusal(host, response.status, wished_wait(response, time.time()), began, now)
            return response
        except FetchError as error:
            now = self.clock()
            self._hear_failure(passage, error, now)
            raise
        except asyncio.CancelledError:
            now = self.clock()
            if listener.was_sent_back(task):
                raise Requeue(now) from None
            raise
        finally:
            state.elapsed += now - began
            del listener.passages[task]
            listener.was_sent_back(task)  # it ended by itself in the same instant
            slots.release()
            self._finish(host)

    def fulfil(self, state: RequestState) -> None:
        """End the row's promise: it has come to the gate, or never will."""
        if state.promised is not None:
            self.hosts.withdraw(state.promised)
            state.promised = None

    def charge(self, key: str, retry_after: float | None) -> Host[Waiter]:
        """Park a host, or give it up; those who wait for it and may leave go back to the frontier."""
        now = self.clock()
        host = self.hosts.get(key, now)
        self.hosts.charge(host, now, retry_after)
        self._send_away(host, now)
        self._tell(key)
        return host

    def close(self) -> None:
        """Stop the timers."""
        self._listener.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # What others know of hosts

    def know_robots(self, key: str, delay: float) -> None:
        """Note that the rules of a host are known (until then it is promised one row), with the Crawl-delay in them."""
        host = self.hosts.find(key)
        if host is not None and host.robots_known and delay == host.asked_delay:
            return  # as with almost every exchange
        host = self.hosts.get(key, self.clock())
        if delay != host.asked_delay:
            host.asked_delay = delay
            self.hosts.set_delay(host, delay)
        if not host.robots_known:
            self.hosts.know_robots(host)
            self._tell(key)

    def denied(self, key: str) -> None:
        """Count a row that robots.txt denied."""
        self.hosts.record(self.hosts.get(key, self.clock())).denied += 1

    def parked(self) -> dict[str, float]:
        """Return the seconds each parked host must still be left alone, and those with a delay by robots.txt."""
        return self.hosts.parked(self.clock())

    def delays(self) -> dict[str, float]:
        """Return the delays by robots.txt, in seconds by host."""
        return self.hosts.delays()

    def restore(self, parked: Mapping[str, float], delays: Mapping[str, float] | None = None) -> None:
        """Take over what ``parked`` returned, less the seconds since, and ``delays``. Each is waited anew."""
        self.hosts.restore(parked, self.clock(), delays)

    def troubled(self) -> list[HostReport]:
        """Return the hosts that were slow, throttled, parked or denied, the worst first, at most 1,000."""
        return self.hosts.troubled()

    # How it ended

    def _hear_refusal(self, host: Host[Waiter], status: int, wish: float | None, began: float, now: float) -> None:
        self.judge.refused(host, status, wish, began, now)
        self._send_away(host, now)

    def _hear_failure(self, passage: Passage, error: FetchError, now: float) -> None:
        began, host, state, _ = passage
        if isinstance(error, StatusError):  # a transport of the caller's own
            self.judge.answered(host, state.target.port, error.status, began, now)
            if error.status in REFUSALS:
                self._hear_refusal(host, error.status, error.retry_after, began, now)
        elif not isinstance(error, Skipped):
            self.judge.failed(host, state, error, began, now)
            self._send_away(host, now)

    def _send_away(self, host: Host[Waiter], now: float) -> None:
        """Let those go who wait for a host that is parked for long, or given up."""
        if host.given_up is not None:
            log.info("given up: %s", host.given_up)
        elif host.parked_until > now:
            log.info("parked: %s for %.1f s", host.key, host.parked_until - now)
        until = max(host.not_before, host.rests_until)
        if host.given_up is None and until - now <= PATIENCE and host.rests_until <= now:
            return
        for waiter in list(host.waiters):
            if host.given_up is not None:
                end: BaseException = Skipped("host_budget", host.given_up)
            elif waiter.state.deferrable:
                end = Requeue(until)
            else:
                continue
            host.leave(waiter)
            if not waiter.future.done():
                waiter.future.set_exception(end)

    # Waiting

    async def _find(self, host: Host[Waiter], state: RequestState, locate: Locate) -> tuple[Host[Waiter], float]:
        """Learn the address first: who shares it with a host at work must not start beside it."""
        address = await locate(host.key)
        now = self.clock()
        host = self.hosts.get(host.key, now)  # it may have been forgotten meanwhile
        if not host.located:
            self.hosts.locate(host, address)
        if state.deferrable and host.groups and not self.hosts.may_start(host, now):
            promised = state.promised
            self.fulfil(state)
            if promised is not None:
                self._tell(promised.key)
            raise Requeue(now)
        return host, now

    async def _wait(self, host: Host[Waiter], state: RequestState, now: float, promised: Host[Waiter] | None) -> None:
        state.enter("pacing")
        waiter: Waiter | None = None
        until = max(host.not_before, host.rests_until)
        leaves = state.deferrable and (host.rests_until > now or until - now > PATIENCE)
        if host.given_up is None and not leaves:
            waiter = Waiter(host, state)
            self.hosts.wait(host, waiter)
            self._let_through()
        if promised is not None:
            self._tell(promised.key)  # what waits holds no promise: another row may have it
        if host.given_up is not None:
            raise Skipped("host_budget", host.given_up)
        if waiter is None:
            raise Requeue(until)
        try:
            await waiter.future
        except asyncio.CancelledError:
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                self._finish(host)  # let through in the same instant: the slots were ours
            else:
                host.leave(waiter)
            raise

    def _finish(self, host: Host[Waiter]) -> None:
        if self.hosts.finish(host):
            self._let_through()
        self._tell(host.key)
        if self.hosts.freed:
            freed, self.hosts.freed = self.hosts.freed, []
            for key in freed:
                self._tell(key)
        for group in host.groups:  # whoever was told may have had no use for it
            while group.blocked and group.on_wire + group.ahead < group.limit:
                key = next(iter(group.blocked))
                del group.blocked[key]
                self._tell(key)

    def _make_use_of(self, host: Host[Waiter]) -> None:
        """Let through whom a host has slots for that it had not before."""
        self.hosts.welcome(host)
        self._let_through()
        self._tell(host.key)

    def _tell(self, key: str) -> None:
        for listener in self.listeners:
            listener(key)

    def _let_through(self) -> None:
        now = self.clock()
        through, again = self.hosts.next_through(now)
        while through:
            unclaimed = [waiter.host for waiter in through if waiter.future.done()]  # cancelled in this instant
            for waiter in through:
                if not waiter.future.done():
                    waiter.future.set_result(None)
            for host in unclaimed:
                self.hosts.finish(host)
            through, again = self.hosts.next_through(now) if unclaimed else ([], again)
        if again is not None and (self._timer is None or again < self._wake_at):
            if self._timer is not None:
                self._timer.cancel()
            self._wake_at = again
            self._timer = asyncio.get_running_loop().call_later(max(0.0, again - now), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._let_through()
