"""Owns the lab: an HTTP/1.1 server on raw sockets, a case a path, that keeps a log of all it sees.

It listens on several loopback hosts at the same port (127.0.0.1, 127.0.0.2, …: Linux has them all), on request
on a second port and on TLS ports too. In the test's own loop: ``async with LabServer() as lab``; for a client in
another process: ``with LabServer.in_thread() as lab``.

Law 1: nothing is left: on exit every socket is closed and every task has ended.
Law 2: no exchange lasts longer than ``patience`` seconds: it is then aborted.
Law 3: a bug in a case is raised when the lab closes, never hidden behind a closed connection.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for_either
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import tests.lab.cases  # noqa: F401 - importing them registers them
from tests.lab.certificates import CERTIFICATES, server_contexts
from tests.lab.conversation import converse
from tests.lab.exchange import PLAIN, Case, Exchange, LabSite, case
from tests.lab.log import Connections, LogEntry
from tests.lab.ports import bind_hosts, black_hole, host_address, refused_port, silent_port

__all__ = ["Connections", "Exchange", "LabServer", "LogEntry", "black_hole", "case", "refused_port", "silent_port"]


class LabServer:
    """The lab's server.

    ``hosts`` is how many loopback hosts it has, numbered from 1. ``second_port`` opens ``other_port`` on each,
    ``tls`` a port for each of ``CERTIFICATES`` on each, and ``ca`` is the path of the PEM file that vouches
    for all but the last.
    """

    def __init__(self, *, hosts: int = 3, second_port: bool = False, tls: bool = False, patience: float = 60.0) -> None:
        self.hosts = hosts
        self.site = LabSite(self.url, patience)
        self.port = 0
        self.other_port = 0
        self.tls_ports: dict[str, int] = {}
        self._wants = (second_port, tls)
        self._ca: Path | None = None
        self._listeners: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    @contextmanager
    def in_thread(cls, **options: Any) -> Iterator[LabServer]:
        """Run a lab in a loop and a thread of its own, for a client in another process or a blocking one."""
        lab = cls(**options)
        ready: Future[Callable[[], object]] = Future()

        async def live() -> None:
            over = asyncio.Event()
            loop = asyncio.get_running_loop()
            async with lab:
                ready.set_result(partial(loop.call_soon_threadsafe, over.set))
                await over.wait()

        with ThreadPoolExecutor(1, "lab") as pool:
            done = pool.submit(lambda: asyncio.run(live()))
            either: list[Future[Any]] = [ready, done]
            wait_for_either(either, return_when=FIRST_COMPLETED)
            if not ready.done():
                done.result()
            try:
                yield lab
            finally:
                ready.result()()
                done.result(timeout=30)

    async def __aenter__(self) -> Self:
        try:
            self._start(*self._wants)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener)
            listener.close()
        self._listeners.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._ca is not None:
            self._ca.unlink(missing_ok=True)
        if self.site.bugs:
            raise ExceptionGroup("cases of the lab have bugs", self.site.bugs) from error

    def url(self, path: str, host: int = 1, port: int | None = None) -> str:
        """Return the http URL of ``path`` on the host with that number."""
        return f"http://{host_address(host)}:{port or self.port}{path}"

    def https(self, path: str, host: int = 1, certificate: str = "valid") -> str:
        """Return the https URL of ``path`` at the port that shows one of ``CERTIFICATES``."""
        return f"https://{host_address(host)}:{self.tls_ports[certificate]}{path}"

    @property
    def ca(self) -> Path:
        """The PEM file of the authority to trust; there while the lab runs with ``tls=True``."""
        if self._ca is None:
            raise RuntimeError("the lab runs without tls=True")
        return self._ca

    @property
    def log(self) -> list[LogEntry]:
        """The requests so far, in order of arrival."""
        return self.site.stats.entries()

    @property
    def connections(self) -> Connections:
        """The sockets accepted, requests or not; ``.per_host["127.0.0.1"]`` has a host's."""
        return self.site.stats.connections()

    def requests(self, path: str) -> list[LogEntry]:
        """Return the requests for ``path`` and below, whatever their query."""
        below = path.rstrip("/") + "/"
        return [entry for entry in self.log if entry.path == path or entry.path.startswith(below)]

    def peak(self, host: int | None = None) -> int:
        """Return the most exchanges that were in flight at once, on one host or on all together."""
        if host is None:
            return max((entry.in_flight_total for entry in self.log), default=0)
        return max((entry.in_flight for entry in self.log if entry.host == host_address(host)), default=0)

    def clear(self) -> None:
        """Forget the log, the counts and what the cases have counted; pages that were added stay."""
        self.site.stats.clear()
        self.site.state.clear()

    def add(self, path: str, answer: Case | str, host: int | None = None) -> None:
        """Answer ``path``, and nothing below it, by a case or with plain text, on one host or on all."""

        async def reply(exchange: Exchange) -> None:
            await exchange.reply(str(answer), kind=PLAIN)

        self.site.own[host_address(host) if host else "", path] = reply if isinstance(answer, str) else answer

    async def until(self, predicate: Callable[[], bool], timeout: float = 60.0) -> None:
        """Wait in the loop until ``predicate`` holds; raises AssertionError when it does not in time.

        From another thread than the lab's, ``lab.site.stats.wait(predicate, timeout)`` does the same.
        """
        deadline = time.monotonic() + timeout
        while not predicate():
            assert time.monotonic() < deadline, f"not within {timeout} s"
            await asyncio.sleep(0.002)

    def _start(self, second_port: bool, tls: bool) -> None:
        self.port = self._listen(None)
        if second_port:
            self.other_port = self._listen(None)
        if tls:
            self._ca, contexts = server_contexts([host_address(n) for n in range(1, self.hosts + 1)])
            self.tls_ports = {name: self._listen(contexts[name]) for name in CERTIFICATES}

    def _listen(self, context: ssl.SSLContext | None) -> int:
        loop = asyncio.get_running_loop()
        listeners = bind_hosts(self.hosts)
        self._listeners += listeners
        for listener in listeners:
            loop.add_reader(listener, self._welcome, listener, context)
        return int(listeners[0].getsockname()[1])

    def _welcome(self, listener: socket.socket, context: ssl.SSLContext | None) -> None:
        # Accepted by hand: a server of asyncio's counts a TLS connection only after its handshake, and
        # leaves one behind that is still in it when the server closes.
        for _ in range(256):
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.setblocking(False)
            number = self.site.stats.open(sock.getsockname()[0])
            task = asyncio.get_running_loop().create_task(converse(self.site, sock, context, number))
            self._tasks.add(task)
            task.add_done_callback(partial(self._part, sock, number))

    def _part(self, sock: socket.socket, number: int, task: asyncio.Task[None]) -> None:
        sock.close()
        self.site.stats.close(number)
        self._tasks.discard(task)
        fault = None if task.cancelled() else task.exception()
        if isinstance(fault, Exception):
            self.site.bugs.append(fault)
