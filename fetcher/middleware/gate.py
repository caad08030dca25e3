"""The gate to the wire, innermost of all: the ``await`` around ``hosts/``, which decides.

Law 4: waiting holds nothing: what waits here holds a place in the window, and what would wait longer than a
second gives up even that. Law 5: only what is on the wire blocks. What has gone on for too long without a word, where
others need the slots, is broken off: so a thousand black holes leave the others nine tenths of them. Such a row had no
answer yet; it goes back and loses nothing but time. Who is silent is decided in ``hosts/health.py``. Law 8: a delay
lies between two requests as the server sees them, so it counts from when the one before was sent, not from when its
slot was taken.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fetcher.config import HostPolicy
from fetcher.errors import FetchError, Skipped, StatusError
from fetcher.hosts.health import NO_ROUTE_ERRNOS, REFUSALS, failure_kind
from fetcher.hosts.limits import count_repeat, set_share
from fetcher.hosts.scheduler import CONNECT, CONNECT_IN_PLACE, GIVEN_UP, SEND, Scheduler, must_go_back
from fetcher.hosts.state import HostReport, HostState
from fetcher.middleware.accept import wished_wait
from fetcher.model import Exchange, Request, Response, Stage
from fetcher.request_state import MAX_RETURNS, RequestState, Requeue, Transfer, current

if TYPE_CHECKING:
    from fetcher.hosts.remote import RemoteHosts

__all__ = ["Gate", "Locate", "StallMonitor", "has_any_route"]

log = logging.getLogger("fetcher.hosts")

MAX_WAIT_CONNECTED_SECONDS = 0.1  # with a slot and a connection

DOCUMENTATION_ADDRESSES = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))  # RFC 5737, RFC 3849

Locate = Callable[[str], Awaitable[str | None]]
"""The address a host key stands for, or ``None`` where it cannot be known."""

SWEEP_SECONDS = 0.5  # between two looks


class StallMonitor:
    """All rows on the wire by their tasks, the oldest first, looked through as long as there are any.

    The gate puts each row into ``on_wire`` with its transfer, and takes it out: a middleware may have several of one
    row under way. ``recovered`` is told of a host whose first answer has begun.
    """

    def __init__(
        self, scheduler: Scheduler, clock: Callable[[], float], recovered: Callable[[HostState], None]
    ) -> None:
        self.on_wire: dict[asyncio.Task[Any] | None, tuple[RequestState, Transfer]] = {}
        self._scheduler = scheduler
        self._clock = clock
        self._recovered = recovered
        self.timer: asyncio.TimerHandle | None = None
        self.broken_off: set[asyncio.Task[Any]] = set()

    def start(self) -> None:
        """Look around in a while, and as long as there is anything on the wire."""
        self.timer = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self.sweep)

    def was_broken_off(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether a cancellation is the one made here, and no other; it is over then."""
        if task is None or task not in self.broken_off:
            return False
        self.broken_off.discard(task)
        return task.uncancel() == 0

    def close(self) -> None:
        """Look no more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def sweep(self) -> None:
        """Find who is silent, and break off what may be where the others need the slots."""
        self.timer = None
        now = self._clock()
        health = self._scheduler.health
        silent: list[tuple[asyncio.Task[Any] | None, RequestState, Transfer, HostState]] = []
        for task, (state, transfer) in list(self.on_wire.items()):
            host = transfer.host
            assert host is not None
            in_doubt = host.breaker.half_open
            if health.silent(host, state.stage, transfer.began, now):
                silent.append((task, state, transfer, host))
            elif in_doubt and not host.breaker.half_open:
                self._recovered(host)
        excess = self._scheduler.shared.excess_of_suspects if silent else 0
        for task, state, transfer, host in silent:
            may_go = state.can_requeue and state.returns < MAX_RETURNS and health.may_break_off(host, state.stage)
            if excess > 0 and not transfer.suspect and may_go:
                excess -= 1
                self._break_off(task)
        if self.on_wire:
            self.start()

    def _break_off(self, task: asyncio.Task[Any] | None) -> None:
        if task is not None and not task.cancelling():  # by somebody else, who means it
            self.broken_off.add(task)
            task.cancel()


class Waiter:
    """One exchange that waits at the gate for its host."""

    __slots__ = ("future", "host", "state")

    def __init__(self, host: HostState, state: RequestState) -> None:
        self.host = host
        self.state = state
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Gate:
    """The slots, and everyone waiting for one: a handler, shared by all runs of a ``Fetcher``.

    ``locate`` is asked for a host's address before its first exchange, where ``per_address`` limits it.
    """

    def __init__(
        self, scheduler: Scheduler, clock: Callable[[], float] = time.monotonic, *, locate: Locate | None = None
    ) -> None:
        self.scheduler = scheduler
        self.clock = clock
        self.monitor = StallMonitor(scheduler, clock, self._recovered)
        self._locate = locate if scheduler.shared.limits.per_address is not None else None
        self._send_gate = self.before_sending
        self.remote: list[RemoteHosts] = []
        """What other processes of ours know of the hosts that are theirs to ask."""
        self._timer: asyncio.TimerHandle | None = None
        self._wake_at = 0.0
        self._paused_at = 0.0

    def __repr__(self) -> str:
        shared = self.scheduler.shared
        return (
            f"<Gate {shared.on_wire}/{shared.concurrency} on wire, {shared.reserved} reserved, "
            f"{len(shared.at_gate)} hosts waited for, {len(self.scheduler.table)} known>"
        )

    async def __call__(self, request: Request, proceed: Exchange) -> Response:
        """Hold a slot of all and one of the host's for as long as ``proceed`` runs."""
        state, scheduler = current.get(), self.scheduler
        now = self.clock()
        host = scheduler.get(state.target.host, now)
        if self._locate is not None and not host.located:
            host, now = await self._find(host, state, self._locate)
        reserved = state.take_reservation()
        if reserved is not None:
            scheduler.shared.unreserve(reserved)
        opens = scheduler.decide(host, CONNECT if state.can_requeue else CONNECT_IN_PLACE, now)
        if GIVEN_UP < opens <= now and not host.waiters:
            scheduler.shared.take(host, now)
            if reserved is not host and reserved is not None:  # a middleware asks elsewhere
                scheduler.tell(reserved.key)
        else:
            await self._wait(host, state, opens, now, reserved)
            now = self.clock()
        began = now
        before = state.transfer
        state.transfer = transfer = Transfer(host, began, self._send_gate, host.suspect)
        if before is not None:  # until there is an answer, what is known is of the one before
            transfer.status, transfer.received = before.status, before.received
        task, monitor = asyncio.current_task(), self.monitor
        monitor.on_wire[task] = state, transfer
        if monitor.timer is None:
            monitor.start()
        try:
            response = await proceed(request)
            now = self.clock()
            if (trial := state.trial) is not None:
                trial.answered(state.target)
            scheduler.health.answered(host, state.target.port, response.status, began, now)
            if response.status in REFUSALS:
                self._refused(host, response.status, wished_wait(response, time.time()), began, now)
            return response
        except FetchError as error:
            self._failed(host, state, error, began, now := self.clock())
            raise
        except asyncio.CancelledError:
            now = self.clock()
            if monitor.was_broken_off(task):
                raise self._broken_off(host, state, began, now) from None
            raise
        finally:
            state.elapsed += now - began
            del monitor.on_wire[task]
            if monitor.broken_off:
                monitor.was_broken_off(task)  # it ended by itself in the same instant
            self._finish(host)

    def before_sending(self, state: RequestState) -> float:
        """Return the seconds a row must wait still with its connection, or 0.0: its request is taken for sent then.

        To connect takes a while, and the host may have asked us to wait meanwhile. Raises ``Requeue`` for a longer
        wait, and ``Skipped`` where the host was given up.
        """
        transfer = state.transfer
        assert transfer is not None
        host = transfer.host
        assert host is not None
        now = self.clock()
        due = self.scheduler.decide(host, SEND, now)
        if due == GIVEN_UP:
            raise Skipped("host_budget", host.breaker.given_up or "")
        if due > now:
            if due - now > MAX_WAIT_CONNECTED_SECONDS and state.can_requeue:
                raise Requeue(due)
            return due - now
        host.sent(now)
        if transfer.repeated:
            count_repeat(host)
        if host.delay or not host.robots_known:
            # A loop may write at the end of its turn what it was given, and the system may let us wait before.
            asyncio.get_running_loop().call_soon(self._sent, host)
        return 0.0

    def withdraw(self, state: RequestState) -> HostState | None:
        """End a row's reservation that will not be used; return its host, if there was one."""
        host = state.take_reservation()
        if host is not None:
            self.scheduler.shared.unreserve(host)
        return host

    def close(self) -> None:
        """Stop the timers."""
        self.monitor.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # What its robots.txt says of a host

    def know_robots(self, key: str, delay: float) -> None:
        """Note that the rules of a host are known (until then it has one row), with the Crawl-delay in them."""
        scheduler = self.scheduler
        host = scheduler.get(key, self.clock())
        if delay != host.crawl_delay:
            scheduler.table.set_crawl_delay(host, delay)
        if not host.robots_known:
            host.know_robots()
            scheduler.tell(key)

    def denied(self, key: str) -> None:
        """Count a row that robots.txt denied."""
        table = self.scheduler.table
        table.counts(table.get(key, self.clock())).denied += 1

    @property
    def on_wire(self) -> int:
        """The number of requests under way, those of other processes of ours as they last said."""
        return self.scheduler.shared.on_wire + sum(remote.on_wire for remote in self.remote)

    # What a job remembers of hosts from run to run

    def parked(self) -> dict[str, float]:
        """Return the seconds each parked host must still be left alone, and those with a delay by robots.txt."""
        now = self.clock()
        found = self.scheduler.table.parked(now)
        for remote in self.remote:
            for host, seconds in remote.parked(now).items():
                found[host] = max(found.get(host, 0.0), seconds)
        return found

    def delays(self) -> dict[str, float]:
        """Return the delays by robots.txt, in seconds by host."""
        found = self.scheduler.table.delays()
        for remote in self.remote:
            found |= remote.delays
        return found

    def restore(self, parked: Mapping[str, float], delays: Mapping[str, float] | None = None) -> None:
        """Take over what ``parked`` returned, less the seconds since, and ``delays``. Each is waited anew."""
        self.scheduler.table.restore(parked, self.clock(), delays)

    def troubled(self) -> list[HostReport]:
        """Return the hosts that were slow, throttled, parked or denied, the worst first, at most 1,000."""
        found = self.scheduler.table.troubled()
        if not self.remote:
            return found
        from fetcher.hosts.remote import worst  # most runs are in one process

        return worst([*found, *(report for each in self.remote for report in each.troubled)])

    # Shares, where several processes have one limit

    def set_share(self, concurrency: int, rate: float | None, policies: Iterable[tuple[str, HostPolicy]] = ()) -> None:
        """Take another part of the slots and the rate, and other ``policies``: who waits looks again."""
        scheduler = self.scheduler
        set_share(scheduler.shared, concurrency, rate)
        for name, policy in policies:
            for host in scheduler.table.set_policy(name, policy):
                scheduler.recheck(host)
                scheduler.tell(host.key)
        self._let_through()
        scheduler.tell("")  # no host's name: the dispatchers look at all that may start

    def pause(self, *, paused: bool) -> None:
        """Send nothing new while ``paused``; what is on the wire finishes. A host is not blamed for that time."""
        shared, now = self.scheduler.shared, self.clock()
        if shared.paused is paused:
            return
        shared.paused = paused
        if paused:
            self._paused_at = now
        else:
            self.scheduler.table.excuse(now - self._paused_at)
            self._let_through()
            self.scheduler.tell("")

    # How it ended

    def _refused(self, host: HostState, status: int, wish: float | None, began: float, now: float) -> None:
        self.scheduler.health.refused(host, status, wish, began, now)
        self._send_away(host, now)

    def _failed(self, host: HostState, state: RequestState, error: FetchError, began: float, now: float) -> None:
        health, port, trial = self.scheduler.health, state.target.port, state.trial
        if trial is not None and trial.failed(state, error):
            # A port that does not speak https says nothing of the host: it is as suspect as it was before.
            self.scheduler.shared.set_suspect(host, suspect=state.transfer is not None and state.transfer.suspect)
            return
        if isinstance(error, StatusError):  # a transport of the caller's own
            status = error.status
            health.answered(host, port, status, began, now)
            if status in REFUSALS:
                self._refused(host, status, error.retry_after, began, now)
        elif not isinstance(error, Skipped):
            health.failed(host, port, failure_kind(error, state.stage), began, now)
            self._send_away(host, now)

    def _broken_off(self, host: HostState, state: RequestState, began: float, now: float) -> BaseException:
        """Return what ends a silent exchange that made room for others: its row goes back.

        One that is to find its scheme has learnt it the second time: where slots are short a slow host gets two
        chances.
        """
        unspoken = state.trial.broken_off(state) if state.trial is not None and state.returns else None
        if unspoken is not None:
            self._failed(host, state, unspoken, began, now)
            return unspoken
        state.count_return()
        return Requeue(now)

    def _send_away(self, host: HostState, now: float) -> None:
        """Let those go who wait for a host that is parked for long, or given up."""
        breaker = host.breaker
        if breaker.given_up is not None:
            log.info("given up: %s", breaker.given_up)
        elif breaker.parked_until > now:
            log.info("parked: %s for %.1f s", host.key, breaker.parked_until - now)
        opens = self.scheduler.decide(host, CONNECT, now)
        if opens != GIVEN_UP and not must_go_back(host, opens, now):
            return
        for waiter in list(host.waiters):
            if breaker.given_up is not None:
                end: BaseException = Skipped("host_budget", breaker.given_up)
            elif waiter.state.can_requeue:
                end = Requeue(opens)
            else:
                continue
            self.scheduler.leave(host, waiter)
            if not waiter.future.done():
                waiter.future.set_exception(end)

    # Waiting

    async def _find(self, host: HostState, state: RequestState, locate: Locate) -> tuple[HostState, float]:
        """Learn the address first: who shares it with a host at work must not start beside it."""
        address = await locate(host.key)
        now = self.clock()
        scheduler = self.scheduler
        host = scheduler.get(host.key, now)  # it may have been forgotten meanwhile
        if not host.located:
            scheduler.table.locate(host, address)
        if state.can_requeue and host.groups and scheduler.decide(host, CONNECT_IN_PLACE, now) > now:
            reserved = self.withdraw(state)
            if reserved is not None:
                scheduler.tell(reserved.key)
            raise Requeue(now)
        return host, now

    async def _wait(
        self, host: HostState, state: RequestState, opens: float, now: float, reserved: HostState | None
    ) -> None:
        """Wait for the slots, or send the row back where that takes long."""
        state.enter(Stage.PACING)
        waiter: Waiter | None = None
        if opens != GIVEN_UP and not (state.can_requeue and must_go_back(host, opens, now)):
            waiter = Waiter(host, state)
            self.scheduler.wait(host, waiter)
            self._let_through()
        if reserved is not None:
            self.scheduler.tell(reserved.key)  # what waits holds no reservation: another row may have it
        if opens == GIVEN_UP:
            raise Skipped("host_budget", host.breaker.given_up or "")
        if waiter is None:
            raise Requeue(opens)
        try:
            await waiter.future
        except asyncio.CancelledError:
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                self._finish(host)  # let through in the same instant: the slots were ours
            else:
                self.scheduler.leave(host, waiter)
            raise

    def _finish(self, host: HostState) -> None:
        scheduler = self.scheduler
        if scheduler.finish(host):
            self._let_through()
        scheduler.tell(host.key)
        if scheduler.shared.freed:
            scheduler.tell_blocked()

    def _recovered(self, host: HostState) -> None:
        """Let through whom a host has slots for that it had not before."""
        self.scheduler.recheck(host)
        self._let_through()
        self.scheduler.tell(host.key)

    def _sent(self, host: HostState) -> None:
        host.sent(self.clock())

    def _let_through(self) -> None:
        now = self.clock()
        scheduler = self.scheduler
        through, again = scheduler.next_through(now)
        while through:
            unclaimed = [waiter.host for waiter in through if waiter.future.done()]  # cancelled in this instant
            for waiter in through:
                if not waiter.future.done():
                    waiter.future.set_result(None)
            for host in unclaimed:
                scheduler.finish(host)
            through, again = scheduler.next_through(now) if unclaimed else ([], again)
        if again is not None and (self._timer is None or again < self._wake_at):
            if self._timer is not None:
                self._timer.cancel()
            self._wake_at = again
            self._timer = asyncio.get_running_loop().call_later(max(0.0, again - now), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._let_through()


def has_any_route() -> bool:
    """Say whether the system has a route to the world at large; asks the kernel alone, and sends nothing."""
    for family, address in DOCUMENTATION_ADDRESSES:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((address, 9))
        except OSError as error:
            if error.errno not in {*NO_ROUTE_ERRNOS, errno.EAFNOSUPPORT, errno.EHOSTUNREACH}:
                return True  # it is something else that is missing
        else:
            return True
    return False
