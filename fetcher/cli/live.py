"""The live page of a crawl: where it is served, what its buttons do to the run, and what is said of both on stderr."""

from __future__ import annotations

import asyncio
import contextlib
import webbrowser
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from fetcher.cli.settings import concurrency_within_limits
from fetcher.client import Fetcher
from fetcher.config import LimitOptions
from fetcher.errors import ConfigError
from fetcher.live.place import LivePlace
from fetcher.live.run import RunSource
from fetcher.live.server import Command, LiveServer
from fetcher.report.summary import Summary
from fetcher.stats import Stats
from fetcher.stored import StoredFile
from fetcher.terminal import Notices

__all__ = ["LiveRun", "announce"]

EXPOSED = (
    "whoever has its address can see the run, and the network between can read it: "
    "'ssh -L PORT:127.0.0.1:PORT HOST' needs no open port"
)


class LiveRun:
    """The page of one run, for an ``async with`` block that ends when all is written and told.

    ``get`` returns a setting of the run; ``stop`` ends it as the first Ctrl-C does; ``stored`` is the file that is read
    in the place of the network. Entering raises ``ConfigError`` where the page cannot be served there.
    """

    def __init__(
        self,
        get: Callable[[str], Any],
        notices: Notices,
        *,
        name: str,
        total: int | None,
        stop: Callable[[], None],
        redact: Callable[[str], str],
        stored: StoredFile | None = None,
    ) -> None:
        place = LivePlace() if get("live_at") is None else LivePlace.of(get("live_at"))
        self._open = bool(get("open"))
        self._quiet = bool(get("quiet"))
        self._may_change = bool(get("live_control"))
        self._notices = notices
        self._stop = stop
        self._fetcher: Fetcher | None = None
        self._reads = stored is not None
        self._source = RunSource(
            name, total=total, redact=redact, reads=self._reads, pids=getattr(stored, "pids", None) or list
        )
        self._server = LiveServer(self._source, place, names=get("live_host"), control=self)
        self.saw = self._source.saw

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        if not (self._server.is_private or self._may_change):
            self._server.control = None
            self._source.control = False
        await announce(self._server, self._notices, opens=self._open, quiet=self._quiet)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._source.end(None)
        await self._server.__aexit__(kind, error, trace)

    def begin(self, fetcher: Fetcher, stats: Stats) -> None:
        """Note that the run has begun."""
        self._fetcher = fetcher
        self._source.begin(fetcher, stats)

    def leave(self) -> None:
        """Note that nothing is fetched any more."""
        self._fetcher = None
        self._source.leave()

    def end(self, summary: Summary) -> None:
        """Note how the run ended: what the page shows last are the figures of its summary."""
        self._source.end(summary)

    def obey(self, command: Command) -> str:
        """Do what a button says. Raises ``ConfigError`` for what cannot be done."""
        fetcher = self._fetcher
        if fetcher is None:
            raise ConfigError("the run has not begun, or has ended")
        flying = "the pages that are being read" if self._reads else "what is in flight"
        match command.do:
            case "stop":
                self._source.stopping = True
                self._stop()
                said = f"stopping: {flying} {'are finished' if self._reads else 'has 5 s to finish'}"
            case "pause" | "resume":
                fetcher.pause(paused=command.do == "pause")
                finish = f"paused: {flying} {'are finished' if self._reads else 'finishes'}"
                said = finish if command.do == "pause" else "going on"
            case "limits":
                said = self._limit(fetcher, command)
        self._notices.say(f"by the live page: {said}", level="info", live=command.do)
        return said[0].upper() + said[1:] + "."

    def _limit(self, fetcher: Fetcher, command: Command) -> str:
        if self._reads:
            raise ConfigError("pages are read out of a file: there are no requests to limit")
        options: LimitOptions = {}
        told: list[str] = []
        if command.concurrency is not None:
            options["concurrency"] = command.concurrency  # type: ignore[typeddict-item]  # it is read as a flag is
            told.append(f"-c {command.concurrency}")
            if command.concurrency.isascii() and command.concurrency.isdecimal() and len(command.concurrency) < 10:
                concurrency_within_limits(int(command.concurrency))
        if command.rate is not None:
            options["rate"] = command.rate
            told.append(f"--rate {command.rate}")
        if command.host is not None:
            terms = {"per-host": command.per_host, "delay": command.delay}
            terms = {name: value for name, value in terms.items() if value is not None}
            if not terms:
                raise ConfigError(f"{command.host}: say how many at once, or how many seconds between two")
            options["hosts"] = {command.host: terms}
            told.append(f"{command.host}: " + ", ".join(f"{name} {value}" for name, value in terms.items()))
        if not told:
            raise ConfigError("no limit is named: concurrency, rate or a host's")
        fetcher.set_limits(**options)
        return f"{' '.join(told)} from now on"


async def announce(server: LiveServer, notices: Notices, *, opens: bool, quiet: bool) -> None:
    """Say where the page is, and warn where others may reach it; open it in a browser where that is asked for."""
    if not server.is_private:
        notices.say(f"warning: the live page is open to the network: {EXPOSED}", level="warning")
    if not quiet:
        notices.say(f"live: {server.url()}", live=server.url())
    if opens:
        address = server.url(once=True)  # others on this machine may read the browser's command line
        opened = False
        with contextlib.suppress(webbrowser.Error, OSError):
            opened = await asyncio.to_thread(webbrowser.open, address)
        if not opened:
            notices.say(f"warning: no browser could be opened: open {server.url()}", level="warning")
