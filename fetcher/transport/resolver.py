"""Owns how a name becomes addresses: the system's own look-up, in threads of its own, remembered for a while.

Law 3: the memory of names, the addresses kept of each and the threads are bounded, whatever the list or a name server
says. Law 5: names are looked up 64 at a time, those nobody waits for any more are not begun, and a name being looked up
is never looked up twice at once. A look-up that takes long, for a name server that never answers holds its thread for
half a minute, is not counted among the 64. Law 9: the clock and the look-up are parameters.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import errno
import functools
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import Any, Final, NamedTuple, TypeAlias

from aiohttp.abc import AbstractResolver, ResolveResult

__all__ = ["Lookup", "Resolver"]

Lookup: TypeAlias = Callable[[str, int, int], list[tuple[Any, ...]]]
"""Host, port and family in, the list of ``socket.getaddrinfo`` out; blocks, and runs in a thread."""

_MAX_ADDRESSES_PER_FAMILY: Final = 8
"""A name server may list thousands; aiohttp tries n addresses up to n²/2 times before it gives up."""

_PASSING_FAILURE_SECONDS: Final = 0.2
"""Seconds a failure is remembered that may be gone the next time: or a row's other tries would ask nobody."""

_SLOW_SECONDS: Final = 1.0
"""A look-up that has taken longer makes room for others: up to ``_MAX_THREADS`` in all."""
_MAX_THREADS: Final = 512
_CHECK_SECONDS: Final = 0.25
"""Between two looks at the threads, while names wait for one."""

_NUMERIC: Final = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
# Windows knows the flag and refuses it; what its getaddrinfo takes is in AI_MASK.
_FLAGS: Final = socket.AI_ADDRCONFIG & int(getattr(socket, "AI_MASK", -1))

_Key: TypeAlias = tuple[str, int]


class _Address(NamedTuple):
    address: str
    family: int
    protocol: int


_Answer: TypeAlias = tuple[_Address, ...] | BaseException
"""An error is an answer too: as a value it is shared by all who wait, and each raises a copy of its own."""


class _PendingLookup:
    """One name on its way through a thread, and how many wait for it."""

    __slots__ = ("answer", "claim", "key", "loop", "waiters")

    def __init__(self, key: _Key) -> None:
        self.key = key
        self.loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[_Answer] = self.loop.create_future()
        self.waiters = 0
        self.claim = threading.Lock()  # whoever takes it first, a thread to begin or the last waiter to give up


def system_lookup(host: str, port: int, family: int) -> list[tuple[Any, ...]]:
    """Ask the system for the stream addresses of ``host``; blocks. Raises ``socket.gaierror``."""
    return list(socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=_FLAGS))


class Resolver(AbstractResolver):
    """Looks names up for an ``aiohttp.TCPConnector(resolver=…, use_dns_cache=False)``.

    ``names`` answers are remembered, ``ttl`` seconds for addresses and ``failure_ttl`` for errors. ``localhost``
    and the names below it are the machine itself and never looked up (RFC 6761, 6.3). Belongs to one event loop.
    """

    def __init__(
        self,
        lookup: Lookup = system_lookup,
        *,
        clock: Callable[[], float] = time.monotonic,
        names: int = 65_536,
        ttl: float = 300.0,
        failure_ttl: float = 5.0,
        threads: int = 64,
    ) -> None:
        self._lookup = lookup
        self._clock = clock
        self._names = names
        self._ttl = ttl
        self._failure_ttl = failure_ttl
        self._most_threads = threads
        self._answers: OrderedDict[_Key, tuple[float, _Answer]] = OrderedDict()
        self._pending: dict[_Key, _PendingLookup] = {}
        self._queue: SimpleQueue[_PendingLookup | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._at_work: dict[threading.Thread, float] = {}  # since when
        self._check: asyncio.TimerHandle | None = None
        self._closed = False

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of ``host`` in the system's order, at most eight of each family.

        Raises ``socket.gaierror`` as the system does, also for a text that can be no name, and ``OSError``
        (ECANCELED) once closed.
        """
        key = (host, int(family))
        known = self._answers.get(key)
        if known is not None and self._clock() < known[0]:
            self._answers.move_to_end(key)
            answer = known[1]
        else:
            answer = await self._find(key)
        if isinstance(answer, BaseException):
            # A raised error keeps its traceback: raising the remembered one would make it grow with each use.
            raise copy.copy(answer) if isinstance(answer, OSError) else answer
        return [
            {"hostname": host, "host": address, "port": port, "family": kind, "proto": protocol, "flags": _NUMERIC}
            for address, kind, protocol in answer
        ]

    async def close(self) -> None:
        """End the idle threads and answer all who wait with an ``OSError``; waits for no look-up.

        One that the system is in the middle of cannot be stopped: its thread ends with it, and does not keep
        the process from ending.
        """
        self._closed = True
        if self._check is not None:
            self._check.cancel()
        for pending in self._pending.values():
            if not pending.answer.done():
                pending.answer.set_result(_closed_error())
        self._pending.clear()
        self._answers.clear()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            if thread not in self._at_work:
                thread.join()
        self._threads.clear()

    async def _find(self, key: _Key) -> _Answer:
        if self._closed:
            return _closed_error()
        pending = self._pending.get(key)
        if pending is None:
            if _is_localhost(key[0]):
                answer = _bounded(_loopback(), key)
                self._remember(key, answer)
                return answer
            pending = self._begin(key)
        pending.waiters += 1
        try:
            return await asyncio.shield(pending.answer)
        finally:
            pending.waiters -= 1
            if not pending.waiters and not pending.answer.done() and pending.claim.acquire(blocking=False):
                del self._pending[key]

    def _begin(self, key: _Key) -> _PendingLookup:
        if len(self._threads) < min(len(self._pending) + 1, self._most_threads):
            self._start_thread()
        pending = self._pending[key] = _PendingLookup(key)
        self._queue.put(pending)
        if self._check is None and len(self._pending) > self._most_threads:
            self._check = pending.loop.call_later(_CHECK_SECONDS, self._make_room)
        return pending

    def _start_thread(self) -> None:
        # Not an executor: the interpreter waits for an executor's threads before it ends, and with a
        # dead name server that is half a minute after the last Ctrl-C.
        thread = threading.Thread(target=self._work, name=f"resolver-{len(self._threads)}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system gives no more threads: those there are will do
            if not self._threads:
                raise socket.gaierror(socket.EAI_AGAIN, f"no thread to look names up in: {error}") from None
        else:
            self._threads.append(thread)

    def _make_room(self) -> None:
        """Start two threads for each that is held by a slow look-up, as long as names wait: there may be more such names."""
        self._check = None
        waiting = self._queue.qsize()
        if not waiting or self._closed:
            return
        slow_since = self._clock() - _SLOW_SECONDS
        slow = sum(began <= slow_since for began in list(self._at_work.values()))
        wanted = min(self._most_threads + 2 * slow, _MAX_THREADS, len(self._threads) + waiting)
        for _ in range(wanted - len(self._threads)):
            self._start_thread()
        self._check = asyncio.get_running_loop().call_later(_CHECK_SECONDS, self._make_room)

    def _work(self) -> None:
        """Look names up until told to stop; the body of each thread."""
        me = threading.current_thread()
        while (pending := self._queue.get()) is not None:
            # At work first, then a look at ``_closed``; ``close`` does it the other way round. So a thread it
            # waits for is not in a look-up.
            self._at_work[me] = self._clock()
            if not self._closed and pending.claim.acquire(blocking=False):
                answer = self._ask(pending.key)
                with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
                    pending.loop.call_soon_threadsafe(self._settle, pending, answer)
            self._at_work.pop(me, None)
            if len(self._threads) > self._most_threads:
                with contextlib.suppress(ValueError):  # closed meanwhile
                    self._threads.remove(me)
                return

    def _ask(self, key: _Key) -> _Answer:
        host, family = key
        try:
            return _bounded(_addresses_of(self._lookup(host, 0, family)), key)
        except UnicodeError as error:  # an empty label, or one over 63 octets
            return socket.gaierror(socket.EAI_NONAME, f"{host[:255]!r} can be no host name: {error}")
        except BaseException as error:  # noqa: BLE001 - handed to those who wait, and raised there
            return error.with_traceback(None)

    def _settle(self, pending: _PendingLookup, answer: _Answer) -> None:
        if pending.answer.done():
            return
        del self._pending[pending.key]
        pending.answer.set_result(answer)
        # Any other OSError is trouble of our own, such as no file descriptor left: it says nothing of the name.
        if isinstance(answer, tuple | socket.gaierror):
            self._remember(pending.key, answer)

    def _remember(self, key: _Key, answer: _Answer) -> None:
        ttl = self._ttl if isinstance(answer, tuple) else self._failure_ttl
        if isinstance(answer, socket.gaierror) and answer.errno == socket.EAI_AGAIN:
            ttl = min(ttl, _PASSING_FAILURE_SECONDS)
        self._answers[key] = (self._clock() + ttl, answer)
        self._answers.move_to_end(key)
        while len(self._answers) > self._names:
            self._answers.popitem(last=False)


def _closed_error() -> OSError:
    return OSError(errno.ECANCELED, "the resolver is closed")


def _bounded(addresses: Iterable[_Address], key: _Key) -> _Answer:
    """Return the addresses of the family asked for, bounded; none is an error, for aiohttp takes no empty list."""
    host, family = key
    kept: dict[_Address, None] = {}
    counts: dict[int, int] = {}
    for found in addresses:
        count = counts.get(found.family, 0)
        if family in (0, found.family) and found not in kept and count < _MAX_ADDRESSES_PER_FAMILY:
            counts[found.family] = count + 1
            kept[found] = None
    return tuple(kept) or socket.gaierror(socket.EAI_NONAME, f"{host!r} has no address")


def _addresses_of(infos: Iterable[tuple[Any, ...]]) -> Iterable[_Address]:
    for family, _, protocol, _, target in infos:
        if family == socket.AF_INET:
            yield _Address(target[0], int(family), protocol)
        elif family == socket.AF_INET6 and len(target) == 4:  # shorter where Python was built without IPv6
            scope = f"%{target[3]}" if target[3] and "%" not in target[0] else ""
            yield _Address(target[0] + scope, int(family), protocol)


def _is_localhost(host: str) -> bool:
    name = host.removesuffix(".").lower()
    return name == "localhost" or name.endswith(".localhost")


@functools.cache
def _loopback() -> tuple[_Address, ...]:
    """Return the machine's loopback addresses. ``::1`` is among them only where it exists.

    Without the check a refused connection would come back as two different errors made one.
    """
    addresses = [_Address("127.0.0.1", int(socket.AF_INET), socket.IPPROTO_TCP)]
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return tuple(addresses)
    return (*addresses, _Address("::1", int(socket.AF_INET6), socket.IPPROTO_TCP))
