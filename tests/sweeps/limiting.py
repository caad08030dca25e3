"""Owns the server of the politeness sweep: hosts with limits on one port, in a process of its own, and their log.

Law 1: a request came when the kernel took the packet that ends its head, was answered before its answer is handed to
the kernel, and left when the kernel took the end of its connection, all in seconds of the monotonic clock: what this
process is late for is charged to nobody. Law 2: the server ends with whoever started it, and its log is whole then.
"""

from __future__ import annotations

import heapq
import json
import math
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any

from tests.lab.ports import bind_hosts, host_address
from tests.sweeps.limits import DENIED, MOVED, Host
from tests.sweeps.politeness import RECORD, Seen, Sort

__all__ = ["Limiting", "limiting", "monotonic_of"]

ROOT = Path(__file__).resolve().parents[2]
STAMPED = getattr(socket, "SO_TIMESTAMPNS", 35)  # Linux's number; Python does not name it everywhere
STAMP = struct.Struct("qq")  # seconds and nanoseconds
APART_SECONDS = 0.0002  # what may lie between two readings of clocks that are compared
LAST_ACK = struct.Struct("56xI")
"""``tcpi_last_ack_recv`` of the kernel's ``struct tcp_info``: the milliseconds since the last packet, the end included."""

EVERY = 0.1  # seconds until the log is written out
WISHES = (1, 3)  # whole seconds


@dataclass(frozen=True)
class Limiting:
    """The running server, by its port, its log and its process."""

    port: int
    log: Path
    pid: int

    @property
    def answers(self) -> int:
        """How many requests are in the log by now."""
        return self.log.stat().st_size // RECORD.size

    def seen(self) -> list[Seen]:
        """Return what is in the log, in the order it came."""
        return sorted(map(Seen._make, RECORD.iter_unpack(self.log.read_bytes())), key=lambda one: one.came)


@contextmanager
def limiting(hosts: Sequence[Host], log: Path, seed: int) -> Iterator[Limiting]:
    """Serve these hosts, with a new log at that path, until the block is left; the log is whole then."""
    told = [[host.robots, *host.kind.latency, host.refusing, host.kind.refuses, host.kind.dated, host.kind.bears]
            for host in hosts]  # fmt: skip
    command = [sys.executable, "-m", "tests.sweeps.limiting", str(log), str(seed)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    with process, process.stdin, process.stdout:
        process.stdin.write(json.dumps(told).encode() + b"\n")
        process.stdin.flush()
        yield Limiting(int(process.stdout.readline()), log, process.pid)


def _page(status: str, body: bytes, more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


PAGE = _page("200 OK", b"<!doctype html><title>limited</title><a href=/>home</a><p>lorem ipsum dolor sit amet")
ABSENT = _page("404 Not Found", b"")
TOO_MANY = _page("429 Too Many Requests", b"")


@dataclass(eq=False)
class Place:
    """One host as it is served."""

    number: int
    robots: bytes
    quickest: float
    slowest: float
    refusing: float
    refuses: int
    dated: bool
    bears: int | None
    at_once: int = 0
    until: float = 0.0


@dataclass(eq=False)
class Visit:
    """One connection, and the request on it; ``came`` is 0.0 while there is none. ``goal`` is the host it is sent to."""

    sock: socket.socket
    number: int
    place: Place
    head: bytes = b""
    came: float = 0.0
    sort: Sort = Sort.PAGE
    row: int = 0
    goal: int = 0


@dataclass(eq=False)
class Server:
    """The loop: readable sockets, answers that are due, and the log."""

    log: int
    seed: int
    visits: dict[int, Visit] = field(default_factory=dict)
    listeners: dict[int, tuple[socket.socket, Place]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._poll = select.epoll()
        self._chance = random.Random(self.seed)
        self._due: list[tuple[float, int, Visit]] = []
        self._visitors = 0
        self._kept = bytearray()
        self._written = 0.0

    def serve(self, told: Sequence[Sequence[Any]]) -> None:
        """Serve until standard input ends, and write what is left of the log."""
        for sock, (number, (robots, *terms)) in zip(bind_hosts(len(told)), enumerate(told, 1), strict=True):
            sock.setsockopt(socket.SOL_SOCKET, STAMPED, 1)  # its connections inherit it
            answer = ABSENT if robots is None else _page("200 OK", robots.encode()).replace(b"html", b"plain")
            self.listeners[sock.fileno()] = sock, Place(number, answer, *terms)
            self._poll.register(sock.fileno(), select.EPOLLIN)
        self._poll.register(0, select.EPOLLIN)
        print(next(iter(self.listeners.values()))[0].getsockname()[1], flush=True)
        while self._turn():
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                self._answer(heapq.heappop(self._due)[2])
            if now - self._written > EVERY:
                self._write_out(now)
        self._write_out(time.monotonic())

    def _turn(self) -> bool:
        """Wait for what comes or is due; tell whether standard input is still open."""
        wait = EVERY
        if self._due:
            wait = min(wait, max(0.0, self._due[0][0] - time.monotonic()))
        for number, _ in self._poll.poll(wait):
            if number == 0:
                return False
            if (visit := self.visits.get(number)) is not None:
                self._read(visit)
            else:
                self._welcome(*self.listeners[number])
        return True

    def _welcome(self, listener: socket.socket, place: Place) -> None:
        with suppress(BlockingIOError):
            while True:
                sock, _ = listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._visitors += 1
                self.visits[sock.fileno()] = Visit(sock, self._visitors, place)
                self._poll.register(sock.fileno(), select.EPOLLIN)

    def _read(self, visit: Visit) -> None:
        try:
            data, stamps, _, _ = visit.sock.recvmsg(65_536, 64)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._leave(visit)
            return
        visit.head += data
        if visit.came or not visit.head.endswith(b"\r\n\r\n"):
            return
        visit.came = _taken_at(stamps)
        place = visit.place
        place.at_once += 1
        path = visit.head.split(b" ", 2)[1].decode("latin-1")
        visit.head = b""
        row = path.rpartition("/")[2]
        visit.row = int(row) if row.isdecimal() else 0
        visit.goal = int(path.split("/")[2]) if path.startswith(MOVED) else 0
        visit.sort = Sort.ROBOTS if path == "/robots.txt" else Sort.DENIED if path.startswith(DENIED) else Sort.PAGE
        hasty = place.until > visit.came
        if hasty or not place.slowest or (place.bears is not None and place.at_once > place.bears):
            self._answer(visit, hasty=hasty)
        else:
            due = time.monotonic() + self._chance.uniform(place.quickest, place.slowest)
            heapq.heappush(self._due, (due, visit.number, visit))

    def _answer(self, visit: Visit, *, hasty: bool = False) -> None:
        """Answer now. A host that has asked to wait refuses whatever comes before that is over."""
        place = visit.place
        if visit.sock.fileno() < 0:
            return
        status, wish, data = 200, 0.0, PAGE
        if hasty:
            status = place.refuses
            wish, data = self._refuse(place, place.until - time.monotonic())
        elif visit.sort is Sort.ROBOTS:
            data = place.robots
            status = 404 if data is ABSENT else 200
        elif place.bears is not None and place.at_once > place.bears:
            status, data = 429, TOO_MANY
        elif place.refusing and self._chance.random() < place.refusing:
            status = place.refuses
            wish, data = self._refuse(place, self._chance.randint(*WISHES))
        elif visit.goal:
            port = visit.sock.getsockname()[1]
            status = 302
            data = _page("302 Found", b"", f"Location: http://{host_address(visit.goal)}:{port}/{visit.row}\r\n")
        place.at_once -= 1
        now = time.monotonic()
        self._note(visit, status, now, now + wish if wish else 0.0)
        visit.came = 0.0
        try:
            sent = visit.sock.send(data)
            assert sent == len(data)
        except OSError:
            self._leave(visit)

    def _refuse(self, place: Place, wish: float) -> tuple[float, bytes]:
        """Return the seconds until the host may be asked again, at least ``wish``, and the answer that says so."""
        if place.dated:
            now = time.time()
            date = math.ceil(now + wish)
            wish, value = date - now, formatdate(date, usegmt=True)
        else:
            wish = math.ceil(max(0.0, wish))
            value = str(wish)
        place.until = max(place.until, time.monotonic() + wish)
        return wish, _page(f"{place.refuses} Not Now", b"", f"Retry-After: {value}\r\n")

    def _leave(self, visit: Visit) -> None:
        """Let go of a connection; a request that was on it had no answer (status 0)."""
        if visit.came:
            visit.place.at_once -= 1
            self._note(visit, 0, max(visit.came, _left_at(visit.sock)), 0.0)
        self._poll.unregister(visit.sock.fileno())
        del self.visits[visit.sock.fileno()]
        visit.sock.close()

    def _note(self, visit: Visit, status: int, now: float, until: float) -> None:
        self._kept += RECORD.pack(
            visit.place.number, visit.number, visit.sort, visit.row, status, visit.came, now, until
        )

    def _write_out(self, now: float) -> None:
        self._written = now
        if self._kept:
            os.write(self.log, self._kept)
            self._kept = bytearray()


def _taken_at(stamps: Sequence[tuple[int, int, bytes]]) -> float:
    """Return when the kernel took the last packet: now, where it does not say."""
    for level, kind, stamp in stamps:
        if level == socket.SOL_SOCKET and kind == STAMPED and len(stamp) == STAMP.size:
            seconds, nanoseconds = STAMP.unpack(stamp)
            return monotonic_of(seconds * 10**9 + nanoseconds)
    return time.monotonic()


def monotonic_of(
    nanoseconds: int, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], int] = time.time_ns
) -> float:
    """Turn a time of the wall clock that is past into seconds of the monotonic one, at most ``APART_SECONDS`` late.

    Between the readings of two clocks a process may lose the processor, for a tenth of a second where there is much
    to do: they are read until they belong together.
    """
    while True:
        before, now, after = monotonic(), wall(), monotonic()
        if after - before < APART_SECONDS:
            return after - max(0, now - nanoseconds) / 1e9


def _left_at(sock: socket.socket) -> float:
    """Return when the kernel took the end of a connection, or now, where it does not say."""
    now = time.monotonic()
    try:
        (milliseconds,) = LAST_ACK.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, LAST_ACK.size))
    except (OSError, AttributeError):
        return now
    return now - float(milliseconds) / 1000


if __name__ == "__main__":
    Server(os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_TRUNC, 0o644), int(sys.argv[2])).serve(
        json.loads(sys.stdin.buffer.readline())
    )
