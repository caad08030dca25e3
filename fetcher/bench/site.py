"""The built-in site, a shop on many loopback hosts: served here, or by a process of its own.

Laws: the process of its own ends with its owner, however that ends; nothing is printed but its one line
``ready PORT``; only what was started here is ended here, by its own id.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import msgspec

from fetcher.bench.blueprint import BUSY, GONE, MOVED, PARTNER, Expected, Site, brewing, expected, urls
from fetcher.errors import FetcherError
from fetcher.spawn import command, environment, when_owner_ends

__all__ = [
    "BUSY",
    "GONE",
    "MOVED",
    "PARTNER",
    "Expected",
    "Site",
    "SiteProcess",
    "brewing",
    "expected",
    "serve",
    "urls",
]

_START = 30.0
_STOP = 5.0


async def serve(site: Site, ready: Callable[[int], None]) -> None:
    """Serve the site until cancelled or, in the main thread, until SIGTERM; ``ready`` is told the port.

    On a machine with one loopback address the hosts are the ports from that one on. Raises ``OSError`` when
    a port is taken or the log cannot be written.
    """
    from fetcher.bench.site_server import serve_site  # a client of the site needs no server

    await serve_site(site, ready)


class SiteProcess:
    """The site in a process of its own, for a ``with`` or ``async with`` block.

    Without ``site.log`` the log is a temporary file that goes with this object. Entering raises
    ``FetcherError``, which quotes the process, when it does not get ready (in 30 s); leaving raises it when
    the process had ended by itself.

    >>> with SiteProcess(Site(pages=20, latency=(0, 0))) as shop:  # doctest: +SKIP
    ...     fetch_all(shop.urls())
    """

    def __init__(self, site: Site | None = None) -> None:
        site = site or Site()
        self._folder: str | None = None
        if site.log is None:
            self._folder = tempfile.mkdtemp(prefix="fetcher-site-")
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            site = msgspec.structs.replace(site, log=str(Path(self._folder, "site.log")))
        self.site = site
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._complaints: IO[bytes] | None = None

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._running().pid

    def urls(self, n: int | None = None) -> list[str]:
        """List the first ``n`` URLs in seeded order (see ``blueprint.urls``), all pages and failures by default."""
        return urls(self.site, self.port, n)

    def log(self) -> list[dict[str, Any]]:
        """Read the log so far, also after the block: a ``site_server.Visit`` as a dict for each request."""
        try:
            data = Path(str(self.site.log)).read_bytes()
        except FileNotFoundError:
            return []
        # A line just being written is the next reader's.
        lines = data[: data.rfind(b"\n") + 1].splitlines()
        return [msgspec.json.decode(line, type=dict[str, Any]) for line in lines]

    def __enter__(self) -> Self:
        words = [msgspec.json.encode(self.site).decode(), *([self._folder] if self._folder else [])]
        self._complaints = tempfile.TemporaryFile()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                command("fetcher.bench.site", *words),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                env=environment(),
            )
            self.port = self._wait_until_ready(self._process)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended = self._running().poll()
        said = self._quote()
        self._close()
        if ended is not None and error is None:
            raise FetcherError(f"the built-in site ended by itself (exit {ended}){said}")

    async def __aenter__(self) -> Self:
        starting = asyncio.ensure_future(asyncio.to_thread(self.__enter__))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            with contextlib.suppress(FetcherError):
                await starting
                await asyncio.to_thread(self._close)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.shield(asyncio.to_thread(self.__exit__, kind, error, trace))

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the site is not open: use `with SiteProcess(…)`")
        return self._process

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> int:
        assert process.stdout is not None
        # A pipe cannot be read with a deadline everywhere; ending its writer ends the read.
        deadline = threading.Timer(_START, process.kill)
        deadline.start()
        try:
            words = process.stdout.readline().split()
        finally:
            deadline.cancel()
        if len(words) != 2 or words[0] != b"ready":
            raise FetcherError(f"the built-in site did not start (exit {process.wait(_STOP)}){self._quote()}")
        return int(words[1])

    def _quote(self) -> str:
        if self._complaints is None:
            return ""
        self._complaints.seek(0)
        said = self._complaints.read(100_000).decode(errors="replace").strip()
        return f": {said}" if said else ""

    def _close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(_STOP)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        if self._complaints is not None:
            self._complaints.close()
            self._complaints = None


def _leave(folders: list[str]) -> None:
    """Remove our owner's folders, who is gone, and end as if by a SIGTERM of theirs."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)


def _raise_open_files() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # not on Windows

        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _main() -> None:
    # A terminal's Ctrl-C reaches us too; how to end on it is for the owner to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _raise_open_files()
    when_owner_ends(lambda: _leave(sys.argv[2:]))
    site = msgspec.json.decode(sys.argv[1], type=Site)
    asyncio.run(serve(site, lambda port: print(f"ready {port}", flush=True)))  # noqa: T201 - what the owner waits for


if __name__ == "__main__":
    _main()
