"""Owns a town of many hosts for the benchmarks of patience: those that live, those that are dead, and some of each.

Every address of 127.0.0.0/8, or of the server's own network namespace, is a host; the port says how it fares. A path
is ``/MILLISECONDS/ROW``: after how long it is answered; any other is a 404 at once, robots.txt too.
Law 1: what is said to it on standard input is done in its order, and the town ends with that input.
"""

from __future__ import annotations

import asyncio
import json
import select
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from fetcher.event_loop import fastest_loop
from tests.lab.connection import ServerConnection, whole_answer

__all__ = ["Town", "living_in"]

ROOT = Path(__file__).resolve().parents[2]
EVERYWHERE = "0.0.0.0"
KINDS = ("living", "silent", "refused", "hole")


class Town:
    """The running town, by its ports: one for each of ``KINDS``, and one where hosts come and go."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._says = process.stdin
        self._answers = process.stdout
        self.ports: dict[str, int] = json.loads(self._answers.readline())
        self._mortal: dict[str, int] = {}

    def url(self, kind: str, address: str, row: int, milliseconds: int) -> str:
        """Return the URL of a row of a host of that kind; for one that was settled the kind does not matter."""
        port = self._mortal.get(address) or self.ports[kind]
        return f"http://{address}:{port}/{milliseconds}/{row}"

    def settle(self, address: str) -> None:
        """Give a mortal host its port: whoever asks is refused until it rises."""
        self._mortal[address] = int(self._say("settle", address))

    def rise(self, address: str) -> None:
        """Let a mortal host listen and answer."""
        self._say("rise", address)

    def fall(self, address: str) -> None:
        """Let a mortal host go: its listener and all its connections are closed."""
        self._say("fall", address)

    def _say(self, verb: str, address: str) -> str:
        self._says.write(f"{verb} {address}\n")
        self._says.flush()
        return self._answers.readline()


@contextmanager
def living_in(before: Sequence[str] = ()) -> Iterator[Town]:
    """Run a town until the block is left; ``before`` are words in front of its command."""
    words = [*before, sys.executable, "-m", "tests.lab.town"]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Town(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


class TownConnection(ServerConnection):
    """One connection to a living host; ``callers`` are all that are open."""

    def __init__(self, callers: set[asyncio.Transport] | None = None) -> None:
        super().__init__()
        self._callers = callers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._callers is not None:
            self._callers.add(self.transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._callers is not None:
            self._callers.discard(self.transport)

    def asked(self, path: str, head: bytes) -> None:
        milliseconds = path.split("/")[1]
        if milliseconds.isdigit():
            self.loop.call_later(int(milliseconds) / 1000, self.send, PAGE)
        else:
            self.send(MISSING)


class Silence(asyncio.Protocol):
    """A connection on which nobody ever says a word."""


PAGE = whole_answer("200 OK", b'<!doctype html><title>town</title><a href="/next">next</a><p>' + b"lorem ipsum " * 150)
MISSING = whole_answer("404 Not Found", b"")


class Mortal:
    """A host that comes and goes, always at the same port."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._callers: set[asyncio.Transport] = set()
        self._server: asyncio.Server | None = None
        self._socket = _bound(address, 0)
        self.port = int(self._socket.getsockname()[1])

    async def rise(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: TownConnection(self._callers), sock=self._socket, backlog=1024)

    async def fall(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for caller in list(self._callers):
            caller.abort()
        while True:
            try:
                self._socket = _bound(self._address, self.port)
            except OSError:  # the loop closes in a turn of its own
                await asyncio.sleep(0.01)
            else:
                return


def _bound(address: str, port: int) -> socket.socket:
    """Bind and do not listen: connecting is refused."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((address, port))
    except OSError:
        sock.close()
        raise
    return sock


def _hole(stack: ExitStack) -> int:
    """Open a port at which every SYN is dropped: nobody accepts, and the queue of the listener is full."""
    sock = stack.enter_context(_bound(EVERYWHERE, 0))
    sock.listen(0)
    port = int(sock.getsockname()[1])
    for _ in range(16):
        filler = stack.enter_context(socket.socket())
        filler.setblocking(False)
        filler.connect_ex(("127.0.0.1", port))
        if not select.select([], [filler], [], 0.2)[1]:  # on loopback it would be there by now
            return port
    raise OSError("the queue of the listener does not fill up")


async def serve() -> None:
    """Serve at all ports, print them, and do what is said until standard input ends."""
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        ports: dict[str, int] = {}
        factories: dict[str, Any] = {"living": TownConnection, "silent": Silence}
        for kind, factory in factories.items():
            server = await loop.create_server(factory, EVERYWHERE, 0, backlog=1024)
            ports[kind] = server.sockets[0].getsockname()[1]
        ports["refused"] = stack.enter_context(_bound(EVERYWHERE, 0)).getsockname()[1]
        ports["hole"] = _hole(stack)
        print(json.dumps(ports), flush=True)
        said = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(said), sys.stdin)
        mortals: dict[str, Mortal] = {}
        while line := (await said.readline()).decode():
            verb, address = line.split()
            mortal = mortals.get(address) or mortals.setdefault(address, Mortal(address))
            if verb == "rise":
                await mortal.rise()
            elif verb == "fall":
                await mortal.fall()
            print(mortal.port, flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=fastest_loop()) as runner:
        runner.run(serve())
