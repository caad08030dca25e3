"""A worker as its parent has it: started, told things, listened to, and ended, whatever state it is in.

Where it runs is its ``Launcher``'s business, which gives a socket and what stands for the process at its other end. On
this machine that is a new interpreter, never a fork: the parent has threads and a loop. Law 6: a worker that is gone is
told by the end of its channel, and that end comes only when it has stopped. Signals of the terminal are for the parent
alone: a worker has a session of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from typing import Protocol

from fetcher.errors import ResourceError
from fetcher.parallel.channel import Channel, open_channel
from fetcher.parallel.messages import CrawlSettings, FromParent, FromWorker, WorkerGone, decode_from_worker, encode
from fetcher.spawn import command, environment

__all__ = ["Launched", "Launcher", "LocalLauncher", "WorkerProcess", "how_it_ended", "wait_for_end"]

END_SECONDS = 3.0  # that a worker has to end by itself
LAST_SECONDS = 1.0  # between the end of its connection and its own
LOOK_SECONDS = 0.01


class Launched(Protocol):
    """What stands for a worker's process here."""

    @property
    def pid(self) -> int | None:
        """The process's number, where it is one of this machine."""
        ...

    def poll(self) -> int | None:
        """Return its exit code, or ``None`` while it runs."""
        ...

    def kill(self) -> None:
        """End it at once. Harmless twice."""
        ...

    def wait(self) -> object:
        """Take its end in, which is near."""
        ...


class Launcher(Protocol):
    """Who starts workers. ``remote`` says that they may be on ``machines`` that have other files than this one."""

    remote: bool
    machines: int

    def launch(self, settings: CrawlSettings, most: int) -> tuple[socket.socket, Launched]:
        """Start one and return our end of its channel, whose batches have at most ``most`` bytes. Raises ``ResourceError``."""
        ...


class LocalLauncher:
    """Starts processes of this machine."""

    remote = False
    machines = 1

    def launch(self, settings: CrawlSettings, most: int) -> tuple[socket.socket, Launched]:
        """See ``Launcher.launch``. The process is told its settings by the channel, and what comes is bounded where it comes."""
        del settings, most
        ours, theirs = socket.socketpair()
        try:
            process = subprocess.Popen(  # noqa: S603  (the words are ours)
                command("fetcher.parallel.worker"),
                stdin=theirs.fileno(),
                stdout=_stderr(),
                env=environment(),
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise ResourceError(
                f"no further process can be started ({error.strerror or error}): with fewer --workers it may do"
            ) from None
        finally:
            theirs.close()
        return ours, process


class WorkerProcess:
    """One worker, from its start to its end; another one that takes its place is another object.

    ``heard`` is called with each message and its size in bytes, and waits while the parent is behind; ``ended`` once,
    with the message that could not be understood where that is why, however it ended.
    """

    def __init__(
        self,
        settings: CrawlSettings,
        *,
        most: int,
        launcher: Launcher,
        heard: Callable[[WorkerProcess, FromWorker, int], asyncio.Future[None] | None],
        ended: Callable[[WorkerProcess, str | None], None],
    ) -> None:
        self.number, self.epoch = settings.number, settings.epoch
        self.alive = True
        self.finished = False
        """Whether it has said its last word."""
        self._settings = settings
        self._most = most
        self._launcher = launcher
        self._heard = heard
        self._ended = ended
        self._process: Launched | None = None
        self._gone: WorkerGone | None = None
        self._outgoing: asyncio.Queue[bytes | bytearray] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def pid(self) -> int | None:
        """The process's number, once it is started."""
        return None if self._process is None else self._process.pid

    @property
    def suspect(self) -> int:
        """The row that it was parsing when it ended, where who stood next to it has said so; else 0."""
        return 0 if self._gone is None else self._gone.row

    def start(self) -> None:
        """Start it. Raises ``ResourceError`` where there is no place for a further worker."""
        ours, self._process = self._launcher.launch(self._settings, self._most)
        self._outgoing.put_nowait(encode(self._settings))
        self._tasks = [asyncio.get_running_loop().create_task(self._talk(ours))]

    def tell(self, message: FromParent) -> None:
        """Tell it something. What is told is bounded by what the parent gives: nobody waits here."""
        self._outgoing.put_nowait(encode(message))

    def kill(self) -> None:
        """End the process at once. Harmless twice."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def close(self, *, grace: float = END_SECONDS) -> None:
        """Wait for its end, at most ``grace`` seconds, and then make one; close all that is open."""
        process = self._process
        try:
            if process is not None:
                await wait_for_end(process, grace)
        finally:
            self.alive = False
            self.kill()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if process is not None:
                process.wait()  # it was killed: this takes no time

    def why_it_ended(self) -> str:
        """Return how the process ended, in words."""
        if self._gone is not None:
            return self._gone.reason
        return how_it_ended(None if self._process is None else self._process.poll())

    async def _talk(self, end: socket.socket) -> None:
        """Listen until the end of it."""
        trouble: str | None = None
        channel = await open_channel(end, most=self._most)
        telling = asyncio.get_running_loop().create_task(self._tell(channel))
        self._tasks.append(telling)
        try:
            while (batch := await channel.receive()) is not None:
                message = decode_from_worker(batch)
                if isinstance(message, WorkerGone):
                    self._gone = message
                    continue
                waiting = self._heard(self, message, len(batch))
                if waiting is not None:
                    await waiting
        except (ValueError, TypeError, AttributeError, IndexError, RecursionError) as error:
            trouble = f"it said what makes no sense ({error})"
            self.kill()
        finally:
            telling.cancel()
            self.alive = False
            channel.close()
        process = self._process
        if process is not None:  # its end follows that of its connection
            await wait_for_end(process, LAST_SECONDS)
            self.kill()
            process.wait()
        self._ended(self, trouble)

    async def _tell(self, channel: Channel) -> None:
        with contextlib.suppress(ConnectionError):  # its end is noted by who listens
            while True:
                await channel.send(await self._outgoing.get())


def how_it_ended(code: int | None) -> str:
    """Return in words how a process ended whose exit code that is."""
    if code is None:
        return "it closed its connection"
    if code >= 0:
        return f"it ended by itself (exit {code})"
    try:
        return f"it died of {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal
        return f"it died of signal {-code}"


async def wait_for_end(process: Launched, seconds: float) -> None:
    """Wait for the end of a process. No watcher of children is needed for it, which not every loop and thread has."""
    clock = asyncio.get_running_loop().time
    until = clock() + seconds
    while process.poll() is None and clock() < until:  # noqa: ASYNC110  (nobody sets an event then)
        await asyncio.sleep(LOOK_SECONDS)


def _stderr() -> int:
    """Return what a worker has for standard output: what is printed there is no data of ours."""
    try:
        os.fstat(2)
    except OSError:
        return subprocess.DEVNULL
    return 2
