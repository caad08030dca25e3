"""Workers on the machines of a Ray cluster, as the parent starts them: by way of a process that speaks to Ray.

Nothing of Ray is in this process. A worker's socket goes to the gateway, and there it is what a worker of this machine
has for its standard input. Law 7: of the crawl nothing stands on the gateway's command line or in its environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import socket
import subprocess
import tempfile
from typing import IO, Any, Self

from fetcher.errors import ConfigError, ResourceError, missing_extra
from fetcher.parallel.channel import LENGTH
from fetcher.parallel.messages import CrawlSettings
from fetcher.parallel.process import wait_for_end
from fetcher.spawn import command, environment

__all__ = ["RayCluster", "workers_of_ray"]

log = logging.getLogger("fetcher.workers")

ANSWER_SECONDS = 20.0  # for a cluster to answer
START_SECONDS = 90.0  # for one to start on this machine
END_SECONDS = 10.0
_WORDS = re.compile(r"ray(?::([1-9][0-9]{0,4}))?")


def workers_of_ray(value: Any) -> int | None:
    """Return how many workers ``ray`` or ``ray:N`` asks for, 0 for as many as there are cores; ``None`` for other values."""
    match = _WORDS.fullmatch(value) if isinstance(value, str) else None
    return None if match is None else int(match[1] or 0)


class _Remote:
    """A worker that is somewhere: it ends when our end of its channel is closed."""

    pid = None

    def __init__(self, end: socket.socket) -> None:
        self._end = end  # a second descriptor of the channel's socket
        self._code: int | None = None

    def poll(self) -> int | None:
        """See ``Launched.poll``."""
        if self._code is None:
            with contextlib.suppress(BlockingIOError):
                try:
                    ended = not self._end.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
                except ConnectionError:
                    ended = True
                if ended:
                    self.kill()
        return self._code

    def kill(self) -> None:
        """See ``Launched.kill``."""
        if self._code is None:
            self._code = 0
            with contextlib.suppress(OSError):
                self._end.shutdown(socket.SHUT_RDWR)
            self._end.close()

    def wait(self) -> None:
        """See ``Launched.wait``."""
        self.kill()


class RayCluster:
    """A cluster, from the connection to it to its end. ``cores`` and ``machines`` are what it had then."""

    remote = True

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket, found: dict[str, Any]) -> None:
        self._process = process
        self._control = control
        self._known: set[int] = set()
        self.cores: int = found["cores"]
        self.machines: int = found["machines"]

    @classmethod
    async def open(cls, address: str | None, workers: int) -> Self:
        """Connect to the cluster at ``address``, or start one on this machine. Raises ``ConfigError``.

        ``workers`` is how many there will be, 0 where its cores say that.
        """
        ours, theirs = socket.socketpair()
        said = tempfile.TemporaryFile()  # noqa: SIM115  (closed below)
        try:
            process = subprocess.Popen(  # noqa: S603, ASYNC220  (the words are ours)
                command("fetcher.parallel.ray_gateway", address or "", str(workers)),
                stdin=theirs.fileno(),
                stdout=said,
                stderr=said,
                env=environment(),
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise ResourceError(f"no further process can be started ({error.strerror or error})") from None
        finally:
            theirs.close()
        ours.setblocking(False)
        found: dict[str, Any] = {}
        try:
            found = await _answer_of(ours, address, said)
        finally:
            if "cores" not in found:
                ours.close()
                await _end(process, 0.0)
            said.close()
        return cls(process, ours, found)

    def launch(self, settings: CrawlSettings, most: int) -> tuple[socket.socket, _Remote]:
        """See ``Launcher.launch``."""
        ours, theirs = socket.socketpair()
        # The first batch is the gateway's own; what comes behind it is the worker's, and nobody looks into that.
        text = json.dumps({"epoch": settings.epoch, "most": most, "first": settings.number not in self._known}).encode()
        self._known.add(settings.number)
        try:
            ours.sendall(LENGTH.pack(len(text)) + text)
            socket.send_fds(self._control, [b"w"], [theirs.fileno()])
        except OSError as error:
            ours.close()
            raise ResourceError(f"Ray has ended ({error.strerror or error}): a job goes on where it stands") from None
        finally:
            theirs.close()
        return ours, _Remote(ours.dup())

    async def close(self) -> None:
        """End all that runs there, and take leave."""
        self._control.close()
        await _end(self._process, END_SECONDS)


async def _answer_of(control: socket.socket, address: str | None, said: IO[bytes]) -> dict[str, Any]:
    """Return what the gateway has found. Raises ``ConfigError`` for what is wrong with it."""
    loop = asyncio.get_running_loop()
    answer = b""
    try:
        async with asyncio.timeout(ANSWER_SECONDS if address else START_SECONDS):
            while len(answer) < LENGTH.size or len(answer) < LENGTH.size + LENGTH.unpack_from(answer)[0]:
                data = await loop.sock_recv(control, 65536)
                if not data:
                    break
                answer += data
    except TimeoutError:
        where = f"ray-address: nobody answers as Ray does at {address}" if address else "ray: it has not started"
        seconds = ANSWER_SECONDS if address else START_SECONDS
        raise ConfigError(f"{where} within {seconds:g} s: 'ray status' shows what runs") from None
    except OSError:
        answer = b""
    if not answer:
        said.seek(0)
        lines = said.read(100_000).decode(errors="replace").splitlines()
        log.debug("Ray's last words: %s", "\n".join(lines[-30:]))
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        where = f"ray-address: no cluster of Ray's at {address}" if address else "ray: it ended while it started"
        raise ConfigError(f"{where} ({last[:200]})")
    found: dict[str, Any] = json.loads(answer[LENGTH.size :])
    if "missing" in found:
        raise ConfigError(f"workers: {missing_extra('ray', 'ray')}")
    if "refused" in found:
        raise ConfigError(str(found["refused"]))
    return found


async def _end(process: subprocess.Popen[bytes], grace: float) -> None:
    """Wait for its end so long, and then make one."""
    try:
        await wait_for_end(process, grace)
    finally:
        process.kill()
        process.wait()
