"""A worker process as its parent has it: started, told things, listened to, and ended, whatever state it is in.

It is a new interpreter, never a fork: the parent has threads and a loop. Law 6: a worker that is gone is told by the end
of its seam. Signals of the terminal are for the parent alone: a worker has a session of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable

from fetcher.errors import ResourceError
from fetcher.parallel.messages import CrawlSettings, FromParent, FromWorker, decode_from_worker, encode
from fetcher.parallel.seam import Seam, open_seam
from fetcher.spawn import command, environment

__all__ = ["WorkerProcess"]

END_SECONDS = 3.0  # that a worker has to end by itself
LAST_SECONDS = 1.0  # between the end of its connection and its own
LOOK_SECONDS = 0.01


class WorkerProcess:
    """One process, from its start to its end; another one that takes its place is another object.

    ``heard`` is called with each message and its size in bytes, and waits while the parent is behind; ``ended`` once,
    with the message that could not be understood where that is why, however it ended.
    """

    def __init__(
        self,
        settings: CrawlSettings,
        *,
        most: int,
        heard: Callable[[WorkerProcess, FromWorker, int], asyncio.Future[None] | None],
        ended: Callable[[WorkerProcess, str | None], None],
    ) -> None:
        self.number, self.epoch = settings.number, settings.epoch
        self.alive = True
        self.finished = False
        """Whether it has said its last word."""
        self._settings = settings
        self._most = most
        self._heard = heard
        self._ended = ended
        self._process: subprocess.Popen[bytes] | None = None
        self._outgoing: asyncio.Queue[bytes | bytearray] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def pid(self) -> int | None:
        """The process's number, once it is started."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it. Raises ``ResourceError`` where the system has no place for a further process."""
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(  # noqa: S603  (the words are ours)
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
                await _wait_for(process, grace)
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
        code = None if self._process is None else self._process.poll()
        if code is None:
            return "it closed its connection"
        if code >= 0:
            return f"it ended by itself (exit {code})"
        try:
            return f"it died of {signal.Signals(-code).name}"
        except ValueError:  # a real-time signal
            return f"it died of signal {-code}"

    async def _talk(self, end: socket.socket) -> None:
        """Listen until the end of it."""
        trouble: str | None = None
        seam = await open_seam(end, most=self._most)
        telling = asyncio.get_running_loop().create_task(self._tell(seam))
        self._tasks.append(telling)
        try:
            while (batch := await seam.receive()) is not None:
                waiting = self._heard(self, decode_from_worker(batch), len(batch))
                if waiting is not None:
                    await waiting
        except (ValueError, TypeError, AttributeError, IndexError, RecursionError) as error:
            trouble = f"it said what makes no sense ({error})"
            self.kill()
        finally:
            telling.cancel()
            self.alive = False
            seam.close()
        process = self._process
        if process is not None:  # its end follows that of its connection
            await _wait_for(process, LAST_SECONDS)
            self.kill()
            process.wait()
        self._ended(self, trouble)

    async def _tell(self, seam: Seam) -> None:
        with contextlib.suppress(ConnectionError):  # its end is noted by who listens
            while True:
                await seam.send(await self._outgoing.get())


async def _wait_for(process: subprocess.Popen[bytes], seconds: float) -> None:
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
