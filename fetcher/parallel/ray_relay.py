"""The actor that stands beside a worker on a machine of a Ray cluster, and passes on what it and the parent say.

The worker is the same process as on the parent's machine, a child of the actor's, so that a page that kills it does not
kill what can tell of it. Law 7: all that crosses is bytes; the actor's constructor takes nothing, so that nothing of a
crawl lies in Ray's books, and what it passes on it does not look into. Law 3: what waits here is bounded, and a worker
whose outcomes nobody takes stands still. Law 8: it ends when nobody has called for ``LEASE_SECONDS``, and so does the
worker.

Ray itself is not imported here: ``ray_gateway.py`` makes an actor of the class.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections import deque
from pathlib import Path

from fetcher import __version__
from fetcher.parallel.channel import LENGTH, SocketChannel, open_channel
from fetcher.parallel.parsing_marks import MARK
from fetcher.parallel.process import how_it_ended, wait_for_end
from fetcher.spawn import command, environment

__all__ = ["LEASE_SECONDS", "MORE", "OVER", "Relay", "versions"]

LEASE_SECONDS = 5.0  # without a word of the parent, after which a worker must have stopped
MAX_WAITING_BYTES = 8 * 1024 * 1024
ENOUGH_BYTES = 256 * 1024  # for which nobody waits for more
LAST_SECONDS = 1.0  # between the end of a worker's connection and its own
MORE, OVER = b"+", b"."
"""How an answer begins: with batches behind it, or with how the worker has ended."""


def versions() -> dict[str, str]:
    """Return what must be the same at both ends."""
    return {"fetcher": __version__, "python": ".".join(platform.python_version_tuple()[:2])}


class Relay:
    """One worker, and the way to it. Each method is called from the parent's machine."""

    def __init__(self) -> None:
        self._folder = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: SocketChannel | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._frames: deque[bytes] = deque()
        self._size = 0
        self._over: bytes | None = None
        self._enough = asyncio.Event()  # to be said at once, or there will be no more
        self._room = asyncio.Event()
        self._heard = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    async def hello(self) -> bytes:
        """Tell who is here."""
        return json.dumps({**versions(), "machine": socket.gethostname(), "pid": os.getpid()}).encode()

    async def begin(self, most: int) -> None:
        """Start the worker, whose batches have at most ``most`` bytes."""
        loop = asyncio.get_running_loop()
        self._heard = loop.time()
        self._folder = tempfile.mkdtemp(prefix="fetcher-")
        marker = os.path.join(self._folder, "parsing")
        Path(marker).write_bytes(bytes(MARK.size))  # noqa: ASYNC240  (a moment)
        ours, theirs = socket.socketpair()
        variables = environment()
        variables["PYTHONPATH"] = os.pathsep.join(entry for entry in sys.path if entry)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603, ASYNC220  (the words are ours)
                command("fetcher.parallel.worker", "--marker", marker, "--lease", str(LEASE_SECONDS)),
                stdin=theirs.fileno(),
                env=variables,
                start_new_session=True,
            )
        self._channel = await open_channel(ours, most=most)
        self._tasks = [loop.create_task(self._listen(self._channel)), loop.create_task(self._watch())]

    async def deliver(self, data: bytes) -> None:
        """Pass on what the parent says: whole batches, or parts of one in their order. Nobody waits here."""
        self._heard = asyncio.get_running_loop().time()
        if self._channel is not None and self._over is None:
            self._channel.pass_on(data)

    async def exchange(self, data: bytes, pause: float, most: int) -> bytes:
        """Pass on what the parent says; a little later return what the worker has said, or how it has ended.

        At most ``most`` bytes and one batch are returned: nothing where the parent is behind.
        """
        if data:
            await self.deliver(data)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await (self._enough.wait() if most or self._over is not None else asyncio.sleep(pause))
        if not self._frames and self._over is not None:
            return OVER + self._over
        taken: list[bytes] = [MORE]
        size = 0
        while self._frames and size < most:
            frame = self._frames.popleft()
            size += len(frame)
            taken += (LENGTH.pack(len(frame)), frame)
        self._size -= size
        if self._size <= ENOUGH_BYTES and self._over is None:
            self._enough.clear()
        self._room.set()
        return b"".join(taken)

    async def _listen(self, channel: SocketChannel) -> None:
        """Take in what the worker says, until its end, and see how that came."""
        reason = ""
        try:
            while (frame := await channel.receive()) is not None:
                while self._size >= MAX_WAITING_BYTES:
                    self._room.clear()
                    await self._room.wait()
                self._frames.append(frame)
                self._size += len(frame)
                if self._size > ENOUGH_BYTES:
                    self._enough.set()
        except ValueError as error:
            reason = f"it said what makes no sense ({error})"
        assert self._process is not None
        await wait_for_end(self._process, LAST_SECONDS)
        code = self._process.poll()
        self._process.kill()
        self._process.wait()
        row = self._marked()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._over = json.dumps({"reason": reason or how_it_ended(code), "row": row}).encode()
        self._enough.set()

    def _marked(self) -> int:
        """Return the row that the worker was parsing."""
        with contextlib.suppress(OSError, struct.error), open(os.path.join(self._folder, "parsing"), "rb") as file:
            return int(MARK.unpack(file.read(MARK.size))[0])
        return 0

    async def _watch(self) -> None:
        """End with the parent: it may be on a machine that is cut off from this one."""
        loop = asyncio.get_running_loop()
        while loop.time() - self._heard < LEASE_SECONDS:  # noqa: ASYNC110  (nobody sets an event then)
            await asyncio.sleep(LEASE_SECONDS / 20)
        if self._process is not None:
            self._process.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(1)
