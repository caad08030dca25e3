"""One crawl from the command line: runs what was planned, heeds signals, and closes the stats at every exit."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from fetcher.cli.again import command_again
from fetcher.cli.deposit import open_deposit, open_source, write_summary
from fetcher.cli.exits import ALL_FAILED, COMPLETE, INTERRUPTED, PIPE_CLOSED, TERMINATED, TIME_LIMIT, exit_by, exit_of
from fetcher.cli.plan import Plan, make_plan
from fetcher.cli.settings import at_most_failed
from fetcher.client import Fetcher
from fetcher.errors import ConfigError, FetcherError
from fetcher.middleware.gate import Gate
from fetcher.report.inflight import describe
from fetcher.report.notices import Notices
from fetcher.report.progress import Progress
from fetcher.report.summary import summarize
from fetcher.sinks.place import is_special
from fetcher.sources import estimate_rows
from fetcher.stats import ResumeState, Stats

__all__ = ["crawl"]


def crawl(inputs: list[str], settings: dict[str, Any], *, demo: bool) -> int:
    """Run ``fetcher crawl`` and return its exit code."""
    _occupy_streams()
    notices = Notices(as_json=settings.get("log_format") == "json")
    notices.listen(settings.get("verbose", 0))
    try:
        return _crawl(inputs, settings, notices, demo=demo)
    except BrokenPipeError:
        # Said here, for click would make it a 1. What the interpreter still flushes must go nowhere.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
        return PIPE_CLOSED
    except FetcherError as error:
        if not notices.as_json:
            raise
        notices.say(str(error), level="error")
        return exit_of(error)


def _occupy_streams() -> None:
    """Put /dev/null where a stream was closed before we began: a socket must not get the number of our stderr."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    # For whatever prints; that ``sys.__stdout__`` stays None tells an output that it is closed.
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  (for as long as we run)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115  (as above)


def _crawl(inputs: list[str], settings: dict[str, Any], notices: Notices, *, demo: bool) -> int:
    if demo:
        if inputs:
            raise ConfigError("--demo brings its own list: leave out the INPUT, or leave out --demo")
        from fetcher.bench.site import Site, SiteProcess

        with SiteProcess(Site()) as site:
            return _run(make_plan(site.urls(), settings, lasting=False), notices)
    if not inputs:
        if sys.stdin is None or sys.stdin.isatty():
            raise ConfigError("no INPUT: give a file, '-' for stdin, or URLs (or --demo for the built-in site)")
        inputs = ["-"]
    return _run(make_plan(inputs, settings), notices)


def _run(plan: Plan, notices: Notices) -> int:
    if plan.settings.get("dry_run"):
        from fetcher.cli.dry_run import dry_run
        from fetcher.client import robots_judge

        return dry_run(plan, notices, judge=robots_judge if plan.config.robots else None)
    # A selector that does not parse is found here.
    fetcher = Fetcher(plan.config, middleware=plan.middleware, extract=plan.extract)
    if not plan.config.tls.verify and not plan["quiet"]:
        notices.say("warning: certificates are not verified (--insecure)", level="warning")
    gc.freeze()  # what is loaded stays: no collection needs to look at it again
    gc.set_threshold(50_000, 20, 50)  # rows come and go by reference count; cycles are rare
    crawl = Crawl(plan, fetcher, notices)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        code = runner.run(crawl.run())
    crawl.heed_no_more()
    return code


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Find the fastest loop that is installed (the extra ``speed``)."""
    with contextlib.suppress(ImportError):
        if sys.platform == "win32":
            from winloop import new_event_loop
        else:
            from uvloop import new_event_loop
        factory: Callable[[], asyncio.AbstractEventLoop] = new_event_loop
        return factory
    return None


class Crawl:
    """A run in the loop: signals, sinks, progress, and the exit code that follows from the stats."""

    def __init__(self, plan: Plan, fetcher: Fetcher, notices: Notices) -> None:
        self._plan = plan
        self._fetcher = fetcher
        self._notices = notices
        self._stats: Stats | None = None  # opened with the stream
        self._gate: Gate | None = None
        self._standing = ResumeState()
        self._progress: Progress | None = None
        self._signal: int | None = None
        self._interrupts = 0
        self._heeded: list[int] = []
        self._opening: asyncio.Task[Any] | None = None

    async def run(self) -> int:
        """Fetch everything and return the exit code."""
        began = time.monotonic()
        code: int | None = None
        try:
            with self._handling_signals():
                await self._drain()
            code = self._exit_code()
        except (FetcherError, BrokenPipeError) as error:
            self._close(time.monotonic() - began, exit_of(error), error)
            raise
        except BaseException as error:
            self._close(time.monotonic() - began, None, error)
            raise
        self._close(time.monotonic() - began, code)
        return code

    def heed_no_more(self) -> None:
        """All is written and told: a signal that comes while the interpreter ends must not change the exit code."""
        for number in self._heeded:
            signal.signal(number, signal.SIG_IGN)

    async def _drain(self) -> None:
        self._opening = opening = asyncio.current_task()
        try:
            async with contextlib.AsyncExitStack() as stack:
                # What a cookie file or a bundle has wrong is found before an output is opened, and cut.
                await stack.enter_async_context(self._fetcher)
                deposit = await stack.enter_async_context(open_deposit(self._plan, self._fetcher))
                self._gate = self._fetcher.gate
                self._standing = deposit.standing
                self._announce(deposit.standing)
                source = deposit.left(open_source(self._plan))
                outcomes = await stack.enter_async_context(
                    self._fetcher.stream(source, stats=deposit.stats, spill_folder=self._plan.job)
                )
                self._stats = outcomes.stats
                await self._show_progress(stack)
                self._announce_time_limit(stack)
                async for outcome in outcomes:
                    await deposit.write(outcome)
        except asyncio.CancelledError:
            if self._signal is None or self._stats is not None or opening is None:
                raise
            opening.uncancel()  # by ourselves, before anything had begun

    # What is told meanwhile

    def _announce(self, standing: ResumeState) -> None:
        if not standing.resumed or self._plan["quiet"]:
            return
        text = f"continuing {self._plan.job}: {standing.as_text()}"
        self._notices.say(text, **msgspec.to_builtins(standing))
        if standing.suspect:
            self._notices.say(f"row {standing.suspect} was being parsed when the last run died: it is parsed apart now")

    async def _show_progress(self, stack: contextlib.AsyncExitStack) -> None:
        # With the lines themselves on the terminal, they are the progress, and a bar would be among them.
        beside = "-" in self._plan.outputs and sys.stdout is not None and sys.stdout.isatty()
        drawn = self._notices.can_draw and not beside
        wanted = self._plan["progress"]
        if wanted is None:
            wanted = self._notices.on_terminal and not self._plan["quiet"] and not beside
        if not wanted:
            return
        stats = self._stats or Stats()
        total = estimate_rows(self._plan.inputs, format=self._plan["from"])
        rows = self._plan.config.limits.rows
        self._progress = Progress(
            lambda: stats,
            lambda: len(self._fetcher.in_flight()),
            total if rows is None else min(rows, total or rows),
            tell=None if drawn else self._notices.say,
        )
        await stack.enter_async_context(self._progress)

    def _announce_time_limit(self, stack: contextlib.AsyncExitStack) -> None:
        limit = self._plan.config.limits.time
        if limit is not None:
            text = "the time limit is reached: what is in flight has 5 s to finish"
            stack.callback(asyncio.get_running_loop().call_later(limit, self._notices.say, text).cancel)

    # Signals

    @contextlib.contextmanager
    def _handling_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handlers: dict[int, Callable[[], None]] = {
            signal.SIGINT: lambda: self._interrupt(signal.SIGINT),
            signal.SIGTERM: lambda: self._interrupt(signal.SIGTERM),
        }
        if hasattr(signal, "SIGUSR1"):
            handlers[signal.SIGUSR1] = self._show_in_flight
        try:
            for number, handler in handlers.items():
                if signal.getsignal(number) is signal.SIG_IGN:
                    continue  # by nohup, or by a shell for its background jobs: it is their word
                with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C stays KeyboardInterrupt
                    loop.add_signal_handler(number, handler)
                    self._heeded.append(number)
            yield
        finally:
            for number in self._heeded:
                loop.remove_signal_handler(number)
                signal.signal(number, self._come_late)

    def _interrupt(self, number: int) -> None:
        """First: finish what is in flight, at most 5 s. Second: end now, with all that is done written. Third: die."""
        self._signal = self._signal or number
        self._interrupts += 1
        if self._interrupts > 2:
            if self._progress is not None:
                self._progress.clear()
            os._exit(128 + number)
        if self._stats is None:
            if self._opening is not None:
                self._opening.cancel()  # perhaps it waits for the reader of a FIFO
        elif self._interrupts == 1:
            self._notices.say("stopping: what is in flight has 5 s to finish (once more ends it now)")
            self._fetcher.stop()
        else:
            self._notices.say("ending now: what is done is being written (once more kills)")
            self._fetcher.stop(0)

    def _come_late(self, number: int, _: object) -> None:
        """Count a signal that comes while the stats are closed: all that is done is written, and only the third kills."""
        self._interrupts += number in (signal.SIGINT, signal.SIGTERM)
        if self._interrupts > 2:
            os._exit(128 + number)

    def _show_in_flight(self) -> None:
        rows = self._fetcher.in_flight()
        self._notices.show(describe(rows), in_flight=msgspec.to_builtins(rows))

    # The end

    def _exit_code(self) -> int:
        stats = self._stats
        if stats is None or stats.pending or stats.more:
            return TIME_LIMIT if self._signal is None else exit_by(self._signal)
        bad = stats.failed + stats.skipped - stats.codes["duplicate"]  # those were asked to be left out
        if (stats.input and not stats.ok) or not at_most_failed(self._plan.config.max_failed, bad, stats.input):
            return ALL_FAILED
        return COMPLETE

    def _close(self, seconds: float, code: int | None, error: BaseException | None = None) -> None:
        """Tell how it went, unless it never began, or whoever read it has what they wanted."""
        if self._stats is not None and not isinstance(error, BrokenPipeError):
            hosts = self._gate.troubled() if self._gate is not None else []
            summary = summarize(self._stats, seconds, earlier=self._standing.ok, hosts=hosts, exit=code)
            if not self._plan["quiet"] and (error is None or self._stats.input):
                self._notices.show(summary.as_text(), summary=msgspec.to_builtins(summary))
            write_summary(self._plan["summary"], summary.as_json())
        if error is None:
            self._tell_what_is_next(code)

    def _tell_what_is_next(self, code: int | None) -> None:
        stats, standing = self._stats, self._standing
        if code in (INTERRUPTED, TERMINATED, TIME_LIMIT):
            plan = self._plan
            if plan.job is not None:
                fresh = False if plan["fresh"] and stats is not None else None  # what was begun anew goes on
                command = command_again(sys.argv, plan.settings, fresh=fresh)
                self._notices.say(f"not all was fetched; to continue: {command}", command=command)
                return
            fresh = True if not plan["fresh"] and not all(map(is_special, plan.outputs)) else None
            command = command_again(sys.argv, plan.settings, fresh=fresh)
            self._notices.say(f"not all was fetched; to begin again: {command}", command=command)
        elif standing.resumed and stats is not None and stats.done == standing.done and not self._plan["quiet"]:
            again = "--retry-failed takes up what failed, " if stats.failed else ""
            self._notices.say(f"all rows were done already: nothing was fetched ({again}--fresh begins again)")
