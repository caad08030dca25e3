"""Owns names whose ports for http and https fare differently, without binding port 80 or 443: the resolver maps them.

Each name has a loopback address of its own, by which the log tells who was asked. A path is ``/MILLISECONDS/ROW``, and
is answered after so long; ``/to/URL`` redirects there; any other path, robots.txt too, is a 404 at once.
Law 1: on exit every listener is closed and every connection has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from fetcher.config import Config
from fetcher.event_loop import fastest_loop
from fetcher.transport.connector import StagedResolver
from fetcher.transport.session import Transport
from tests.lab.certificates import server_contexts

__all__ = ["KINDS", "Doors"]

ROOT = Path(__file__).resolve().parents[2]

EVERYWHERE = "0.0.0.0"
PAGE = b"<!doctype html><title>door</title><a href='/next'>next</a><p>" + b"lorem ipsum " * 150

KINDS: dict[str, tuple[str, str]] = {
    "both": ("https", "http"),
    "secure": ("https", "refused"),
    "untrusted": ("untrusted", "http"),
    "refusing": ("refused", "http"),
    "speaking": ("http", "http"),
    "closing": ("closing", "http"),
    "resetting": ("resetting", "http"),
    "alerting": ("alerting", "http"),
    "silent": ("silent", "http"),
    "dead": ("refused", "refused"),
    "mute": ("silent", "silent"),
    "hung": ("refused", "silent"),
}
"""A kind of host, and what stands at its ports 443 and 80. ``nameless`` is another: no name server knows it."""


class Doors:
    """The running hosts: ``names`` are kinds by name, ``asked`` counts requests by (scheme, name, path).

    ``connections`` are counted by (what stands there, name). A name is found after ``look_up_seconds``. A name is
    ``KIND-ANYTHING.door.test``.
    """

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, str, str]] = Counter()
        self.connections: Counter[tuple[str, str]] = Counter()
        self.ports: dict[str, int] = {}
        self.look_up_seconds = 0.0
        self._addresses: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._servers: list[asyncio.Server] = []
        self._held: socket.socket | None = None
        self._ca: Path | None = None

    @property
    def ca(self) -> str:
        """The PEM file of the authority to trust."""
        assert self._ca is not None
        return str(self._ca)

    def transport(self, config: Config) -> Transport:
        """Return a transport that finds these names."""
        return Transport(config, resolver=_Resolver(self))

    def address_of(self, name: str) -> str:
        """Return the address of a name. Raises ``gaierror`` for one that is none."""
        kind = name.partition("-")[0]
        if kind not in KINDS:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if name not in self._addresses:
            number = len(self._addresses) + 1
            self._addresses[name] = address = f"127.88.{number // 250}.{number % 250 + 1}"
            self._names[address] = name
        return self._addresses[name]

    def port_of(self, name: str, port: int) -> int:
        """Return where a port of a name really is; one that is neither 80 nor 443 is itself."""
        secure, plain = KINDS[name.partition("-")[0]]
        return self.ports[secure] if port == 443 else self.ports[plain] if port == 80 else port

    @classmethod
    @contextmanager
    def in_process(cls) -> Iterator[Doors]:
        """Run them in a process of their own; what was asked is not known then."""
        words = [sys.executable, "-m", "tests.lab.doors"]
        with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            doors = cls()
            said = json.loads(process.stdout.readline())
            doors.ports, doors._ca = said["ports"], Path(said["ca"])
            try:
                yield doors
            finally:
                process.stdin.close()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()

    async def __aenter__(self) -> Self:
        self._ca, contexts = server_contexts(["*.door.test"])
        refusing = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # no certificate at all: an alert in the handshake
        for kind, context in (
            ("http", None),
            ("https", contexts["valid"]),
            ("untrusted", contexts["wrong_host"]),
            ("alerting", refusing),
            ("closing", None),
            ("resetting", None),
            ("silent", None),
        ):
            await self._listen(kind, context)
        self._held = socket.socket()
        self._held.bind((EVERYWHERE, 0))
        self.ports["refused"] = self._held.getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        if self._held is not None:
            self._held.close()
        tasks = [task for task in asyncio.all_tasks() if task.get_name().startswith("door")]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._ca is not None:
            self._ca.unlink(missing_ok=True)

    async def _listen(self, kind: str, context: ssl.SSLContext | None) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.set_name(f"door {kind}")
            name = self._names.get(writer.get_extra_info("sockname")[0], "?")
            self.connections[kind, name] += 1
            try:
                await self._converse(kind, name, reader, writer)
            except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, EVERYWHERE, 0, ssl=context, backlog=1024)
        self._servers.append(server)
        self.ports[kind] = server.sockets[0].getsockname()[1]

    async def _converse(self, kind: str, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if kind == "closing":
            return
        if kind == "resetting":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            await reader.read(1)
            writer.transport.abort()
            return
        if kind == "silent":
            with contextlib.suppress(ConnectionError):
                await reader.read()
            return
        while True:
            first = await reader.readexactly(1)
            if first == b"\x16":  # a ClientHello
                writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                await writer.drain()
                return
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode()
            self.asked["https" if kind in ("https", "untrusted") else "http", name, path] += 1
            writer.write(await _answer(path))
            await writer.drain()


async def _answer(path: str) -> bytes:
    first, _, rest = path[1:].partition("/")
    if first == "to":
        return f"HTTP/1.1 302 Found\r\nLocation: {rest}\r\nContent-Length: 0\r\n\r\n".encode()
    if not first.isdigit():
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    if int(first):
        await asyncio.sleep(int(first) / 1000)
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(PAGE) + PAGE


class _Resolver(StagedResolver):
    """Knows the names, and where their ports really are."""

    def __init__(self, doors: Doors) -> None:
        super().__init__(self._look_up)
        self._doors = doors

    def _look_up(self, host: str, port: int, family: int) -> list[tuple[Any, ...]]:
        time.sleep(self._doors.look_up_seconds)  # in a thread of the resolver's
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (self._doors.address_of(host), port))]

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[Any]:
        """Return the address of a name, and in place of its port the one that stands for it."""
        places = await super().resolve(host, port, family)
        return [{**place, "port": self._doors.port_of(host, port)} for place in places]


async def _main() -> None:
    """Serve until standard input ends."""
    async with Doors() as doors:
        print(json.dumps({"ports": doors.ports, "ca": doors.ca}), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=fastest_loop()) as runner:
        runner.run(_main())
