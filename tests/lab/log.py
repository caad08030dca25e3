"""Keeps what the lab's server saw: its connections and its requests, in the order they came.

Law 1: an exchange is in flight from the moment its head is complete until its case has returned or its client has left,
whichever is first; both are noted inside the loop step that learns of them, so that a client which sends its next
request after an answer is never counted twice. Law 2: written by the server's loop alone, read from any thread.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

Pairs = list[tuple[str, str]]


@dataclass(slots=True, eq=False)
class LogEntry:
    """One request as it came, and what became of it.

    ``t`` is ``time.monotonic()`` when the head was complete, ``t_end`` when the exchange was over (``None``
    before). ``method``, ``target``, ``headers`` and ``head`` are the bytes that came, as latin-1. ``connection``
    numbers the accepted socket, from 1. ``in_flight`` and ``in_flight_total`` are what was being served on
    this host and on all of them at arrival, this request included. ``status`` is the final status that was
    sent by rule (0: none, or raw bytes), ``note`` what a case found wrong with the client.
    """

    host: str
    port: int
    method: str
    target: str
    headers: Pairs
    connection: int
    tls: bool
    head: str
    version: str = "HTTP/1.1"
    t: float = 0.0
    t_end: float | None = None
    in_flight: int = 0
    in_flight_total: int = 0
    status: int = 0
    note: str = ""

    @property
    def path(self) -> str:
        """The target without its query and, if it came in absolute form, without its origin."""
        return self.local.partition("?")[0]

    @property
    def local(self) -> str:
        """The target in origin form: an absolute one (RFC 9112, 3.2.2) loses its origin."""
        if self.target.startswith("/") or "://" not in self.target:
            return self.target
        rest = self.target.partition("://")[2]
        slash = rest.find("/")
        return rest[slash:] if slash >= 0 else "/"

    def header(self, name: str) -> str | None:
        """Return the first value of the header ``name`` (any case), or ``None``."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass(frozen=True, slots=True)
class Connections:
    """How many sockets are open now, were accepted in total, and were open at once at most."""

    open: int = 0
    total: int = 0
    peak: int = 0
    per_host: dict[str, Connections] = field(default_factory=dict)


class Log:
    """The stats of one server."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._entries: list[LogEntry] = []
        self._active: set[LogEntry] = set()
        self._flying: Counter[str] = Counter()
        self._sockets: dict[int, str] = {}
        self._open: Counter[str] = Counter()
        self._opened: dict[str, int] = {}
        self._peaks: dict[str, int] = {}
        self._last = 0

    def open(self, host: str) -> int:
        """Note an accepted socket and return its number."""
        with self._changed:
            self._last += 1
            self._sockets[self._last] = host
            for key in (host, ""):
                self._open[key] += 1
                self._opened[key] = self._opened.get(key, 0) + 1
                self._peaks[key] = max(self._peaks.get(key, 0), self._open[key])
            self._changed.notify_all()
            return self._last

    def close(self, connection: int) -> None:
        """Note that a socket is closed."""
        with self._changed:
            host = self._sockets.pop(connection, None)
            if host is not None:
                self._open.subtract((host, ""))
            self._changed.notify_all()

    def arrive(self, entry: LogEntry) -> None:
        """Note a request whose head is complete."""
        with self._changed:
            self._active.add(entry)
            entry.t = time.monotonic()
            self._flying[entry.host] += 1
            entry.in_flight = self._flying[entry.host]
            entry.in_flight_total = len(self._active)
            self._entries.append(entry)
            self._changed.notify_all()

    def end(self, entry: LogEntry) -> None:
        """Note that an exchange is over; only the first time counts."""
        with self._changed:
            if entry in self._active:
                self._active.discard(entry)
                self._flying[entry.host] -= 1
                entry.t_end = time.monotonic()
                self._changed.notify_all()

    def entries(self) -> list[LogEntry]:
        """Return the requests so far, in order of arrival."""
        with self._changed:
            return list(self._entries)

    def active(self) -> list[LogEntry]:
        """Return the requests that are being served now, in no order."""
        with self._changed:
            return list(self._active)

    def connections(self) -> Connections:
        """Return the counts of sockets, overall and per host."""
        with self._changed:
            hosts = {host: self._count(host) for host in self._opened if host}
            total = self._count("")
            return Connections(total.open, total.total, total.peak, hosts)

    def clear(self) -> None:
        """Forget all that is over; what is open or in flight stays so and is counted on."""
        with self._changed:
            self._entries.clear()
            self._opened = dict.fromkeys([*self._sockets.values(), ""], 0)
            self._peaks = {host: self._count(host).open for host in self._opened}

    def wait(self, predicate: Callable[[], bool], timeout: float) -> bool:
        """Block this thread until ``predicate`` holds, at most ``timeout`` seconds; tell whether it does."""
        with self._changed:
            return self._changed.wait_for(predicate, timeout)

    def _count(self, host: str) -> Connections:
        return Connections(self._open[host], self._opened.get(host, 0), self._peaks.get(host, 0))
