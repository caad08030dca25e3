"""The gate to the wire: the host's slot and delay, taken together with the global slot, innermost of all.

Law 4: waiting holds nothing: what waits here holds a place in the window, and what would wait longer than a
second gives up even that. Law 5: only ``on_wire`` blocks. The decisions are in ``hosts.py``; here is the
``await``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from fetcher.errors import Skipped
from fetcher.flight import Flight, Later, current
from fetcher.hosts import Host, Hosts
from fetcher.model import Exchange, Request, Response

__all__ = ["PATIENCE", "Gate", "Waiter"]

log = logging.getLogger("fetcher.hosts")

PATIENCE = 1.0  # seconds a row waits inside its task


class Waiter:
    """One exchange that waits at the gate for its host."""

    __slots__ = ("flight", "future", "host")

    def __init__(self, host: Host[Waiter], flight: Flight) -> None:
        self.host = host
        self.flight = flight
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Gate:
    """The slots, and everyone waiting for one: a handler, shared by all runs of a ``Fetcher``."""

    def __init__(self, hosts: Hosts[Waiter], clock: Callable[[], float] = time.monotonic) -> None:
        self.hosts = hosts
        self.clock = clock
        self.listeners: list[Callable[[str], None]] = []
        # Never waited for: hosts.on_wire decides. It stands guard that no exchange is above the limit.
        self._slots = asyncio.BoundedSemaphore(hosts.limits.concurrency)
        self._timer: asyncio.TimerHandle | None = None
        self._wake_at = 0.0

    async def __call__(self, request: Request, proceed: Exchange) -> Response:
        """Hold the two slots for as long as ``proceed`` runs."""
        flight = current.get()
        now = self.clock()
        host = self.hosts.get(flight.target.host, now)
        promised = flight.promised
        self.fulfil(flight)
        if host.given_up is None and not host.waiters and self.hosts.may_start(host, now):
            self.hosts.start(host, now)
            if promised is not None and promised is not host:  # a middleware asks elsewhere
                self._tell(promised.key)
        else:
            await self._wait(host, flight, now, promised)
        await self._slots.acquire()
        began = self.clock()
        try:
            return await proceed(request)
        finally:
            flight.elapsed += self.clock() - began
            self._slots.release()
            self._finish(host)

    def fulfil(self, flight: Flight) -> None:
        """End the row's promise: it has come to the gate, or never will."""
        if flight.promised is not None:
            self.hosts.withdraw(flight.promised)
            flight.promised = None

    def charge(self, key: str, retry_after: float | None) -> Host[Waiter]:
        """Park a host, or give it up; those who wait for it and may leave go back to the frontier."""
        now = self.clock()
        host = self.hosts.get(key, now)
        self.hosts.charge(host, now, retry_after)
        if host.not_before - now > PATIENCE and host.given_up is None:
            staying = [waiter for waiter in host.waiters if not waiter.flight.deferrable]
            for waiter in host.waiters:
                if waiter.flight.deferrable and not waiter.future.done():
                    waiter.future.set_exception(Later(host.not_before))
            host.waiters.clear()
            host.waiters.extend(staying)
        elif host.given_up is not None:
            for waiter in host.waiters:
                if not waiter.future.done():
                    waiter.future.set_exception(Skipped("host_budget", host.given_up))
            host.waiters.clear()
        if host.given_up is not None:
            log.info("given up: %s", host.given_up)
        elif host.not_before > now:
            log.info("parked: %s for %.1f s", key, host.not_before - now)
        self._tell(key)
        return host

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _wait(self, host: Host[Waiter], flight: Flight, now: float, promised: Host[Waiter] | None) -> None:
        flight.enter("pacing")
        waiter: Waiter | None = None
        if host.given_up is None and not (flight.deferrable and host.not_before - now > PATIENCE):
            waiter = Waiter(host, flight)
            self.hosts.wait(host, waiter)
            self._let_through()
        if promised is not None:
            self._tell(promised.key)  # what waits holds no promise: another row may have it
        if host.given_up is not None:
            raise Skipped("host_budget", host.given_up)
        if waiter is None:
            raise Later(host.not_before)
        try:
            await waiter.future
        except asyncio.CancelledError:
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                self._finish(host)  # let through in the same instant: the slots were ours
            else:
                host.leave(waiter)
            raise

    def _finish(self, host: Host[Waiter]) -> None:
        self.hosts.finish(host)
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
