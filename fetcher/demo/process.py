"""The built-in site in a process of its own.

Laws: that process ends with its owner, however the owner ends. Only the process that was started here is ended here,
by its own id.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import tempfile
import threading
import weakref
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import msgspec

from fetcher.demo.site import Site, urls
from fetcher.errors import FetcherError
from fetcher.spawn import command, environment

__all__ = ["SiteProcess"]

START_TIMEOUT_SECONDS = 30.0
STOP_TIMEOUT_SECONDS = 5.0
MAX_QUOTED_BYTES = 100_000


class SiteProcess:
    """The site in a process of its own, for a ``with`` or ``async with`` block.

    Without ``site.log`` the log is a temporary file that is removed with this object. Entering raises
    ``FetcherError``, which quotes the process, when the process is not ready within 30 s. Leaving raises it when the
    process had ended by itself.

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
        self._stderr: IO[bytes] | None = None

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._running().pid

    def urls(self, n: int | None = None) -> list[str]:
        """List the first ``n`` URLs in seeded order (see ``site.urls``), all pages and failures by default."""
        return urls(self.site, self.port, n)

    def log(self) -> list[dict[str, Any]]:
        """Read the log so far, also after the block: each request as a dict with the fields of ``server.AccessLogEntry``."""
        try:
            data = Path(str(self.site.log)).read_bytes()
        except FileNotFoundError:
            return []
        # A last line without its newline is still being written.
        lines = data[: data.rfind(b"\n") + 1].splitlines()
        return [msgspec.json.decode(line, type=dict[str, Any]) for line in lines]

    def __enter__(self) -> Self:
        words = [msgspec.json.encode(self.site).decode(), *([self._folder] if self._folder else [])]
        self._stderr = tempfile.TemporaryFile()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                command("fetcher.demo.server", *words),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
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
        # Not every system can read a pipe with a deadline. Killing its writer ends the read.
        timer = threading.Timer(START_TIMEOUT_SECONDS, process.kill)
        timer.start()
        try:
            words = process.stdout.readline().split()
        finally:
            timer.cancel()
        if len(words) != 2 or words[0] != b"ready":
            raise FetcherError(
                f"the built-in site did not start (exit {process.wait(STOP_TIMEOUT_SECONDS)}){self._quote()}"
            )
        return int(words[1])

    def _quote(self) -> str:
        if self._stderr is None:
            return ""
        self._stderr.seek(0)
        said = self._stderr.read(MAX_QUOTED_BYTES).decode(errors="replace").strip()
        return f": {said}" if said else ""

    def _close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None
