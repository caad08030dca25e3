"""One crawl from the command line: runs what was planned, and tells the counts at every exit (law 1)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from fetcher import event_loop
from fetcher.cli.exits import (
    ALL_FAILED,
    COMPLETE,
    INTERRUPTED,
    PIPE_CLOSED,
    TERMINATED,
    TIME_LIMIT,
    CrawlSignals,
    discard_stdout,
    exit_by,
    exit_of,
)
from fetcher.cli.outputs import estimate_total, open_output, open_source, write_summary
from fetcher.cli.plan import Plan, make_extraction_plan, make_plan
from fetcher.cli.redaction import redact
from fetcher.cli.settings import at_most_failed, warn_of_unused
from fetcher.client import Fetcher
from fetcher.errors import ConfigError, FetcherError
from fetcher.job.resume import ResumeState
from fetcher.middleware.gate import Gate
from fetcher.report.summary import summarize
from fetcher.sinks.opening import is_special
from fetcher.stats import Stats
from fetcher.terminal import Notices

if TYPE_CHECKING:
    from fetcher.cli.live import LiveRun
    from fetcher.report.metrics import Metrics
    from fetcher.report.progress import Progress

__all__ = ["crawl", "extract"]


def crawl(inputs: list[str], settings: dict[str, Any], *, demo: bool) -> int:
    """Run ``fetcher crawl`` and return its exit code."""
    return _told(settings, lambda notices: _crawl(inputs, settings, notices, demo=demo))


def extract(path: str, settings: dict[str, Any], *, bodies: str | None, workers: int) -> int:
    """Run ``fetcher extract`` and return its exit code."""

    def act(notices: Notices) -> int:
        return _run(make_extraction_plan(path, settings, bodies=bodies, workers=workers), notices)

    return _told(settings, act)


def _told(settings: dict[str, Any], act: Callable[[Notices], int]) -> int:
    """Return what a run returns; its errors become a line, and a reader of stdout that has left a code."""
    _occupy_streams()
    # What pyarrow would allocate by keeps more of what it gave back: 214 MB at the peak where this takes 180.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    notices = Notices(as_json=settings.get("log_format") == "json", redact=redact)
    notices.listen(settings.get("verbose", 0), quiet=settings.get("quiet", False))
    try:
        return act(notices)
    except BrokenPipeError:
        discard_stdout()
        return PIPE_CLOSED  # returned, for click would make the error a 1
    except FetcherError as error:
        if not notices.as_json:
            raise
        from fetcher.cli.commands import flags_of_command  # it runs us
        from fetcher.cli.refusals import with_next_step  # it reads the topics

        said = with_next_step(str(error), flags_of_command()) if isinstance(error, ConfigError) else str(error)
        notices.say(said, level="error")
        return exit_of(error)


def _occupy_streams() -> None:
    """Put /dev/null where a stream was closed before we began: a socket must not get the number of our stderr."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    # For whatever prints. ``sys.__stdout__`` stays None, which tells an output that it is closed.
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  (for as long as we run)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115  (as above)


def _crawl(inputs: list[str], settings: dict[str, Any], notices: Notices, *, demo: bool) -> int:
    if demo:
        if inputs:
            raise ConfigError("demo: brings its own list: leave out the INPUT, or leave out --demo")
        from fetcher.demo import Site, SiteProcess

        with SiteProcess(Site()) as site:
            return _run(make_plan(site.urls(), settings, lasting=False), notices)
    if not inputs:
        if sys.stdin is None or sys.stdin.isatty():
            raise ConfigError("no INPUT: give a file, '-' for stdin, or URLs (or --demo for the built-in site)")
        inputs = ["-"]
    return _run(make_plan(inputs, settings), notices)


def _run(plan: Plan, notices: Notices) -> int:
    if not plan["quiet"]:
        warn_of_unused(notices, plan.inputs if plan.stored is None else (), plan.settings)
    if plan.settings.get("dry_run"):
        from fetcher.cli.dry_run import dry_run
        from fetcher.client import robots_judge

        return dry_run(plan, notices, judge=robots_judge if plan.config.robots else None)
    # A selector that does not parse is found here.
    fetcher = _fetcher_of(plan)
    if not plan.config.tls.verify and not plan["quiet"]:
        notices.say("warning: certificates are not verified (--insecure)", level="warning")
    if not plan["quiet"]:
        for note in plan.notes:
            notices.say(f"warning: {note}", level="warning")
    crawl = Crawl(plan, fetcher, notices)
    code = event_loop.run(crawl.run)
    crawl.signals.ignore()
    return code


def _fetcher_of(plan: Plan) -> Fetcher:
    if plan.stored is None:
        return Fetcher(
            plan.config,
            middleware=plan.middleware,
            extract=plan.extract,
            workers=plan["workers"],
            ray_address=plan["ray_address"],
        )
    from fetcher.extraction import Extraction  # a crawl does not need it

    return Extraction(plan.config, extract=plan.extract)


class Crawl:
    """A run in the loop: its outputs, its progress, and the exit code that follows from the counts."""

    def __init__(self, plan: Plan, fetcher: Fetcher, notices: Notices) -> None:
        self._plan = plan
        self._fetcher = fetcher
        self._notices = notices
        self._stats: Stats | None = None  # opened with the stream
        self._gate: Gate | None = None
        self._resume_state = ResumeState()
        self._progress: Progress | None = None
        self._live: LiveRun | None = None
        self._opening: asyncio.Task[Any] | None = None
        self.signals = CrawlSignals(interrupt=self._interrupt, show=self._show_in_flight, clear=self._clear_progress)

    async def run(self) -> int:
        """Fetch everything and return the exit code."""
        async with self._open_live() if self._plan.wants_live else contextlib.nullcontext():
            began = time.monotonic()
            try:
                with self.signals.handled():
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

    def _open_live(self) -> LiveRun:
        """Return the page on which the run is looked at."""
        from fetcher.cli.live import LiveRun  # most runs have none

        plan = self._plan
        self._live = LiveRun(
            plan.__getitem__,
            self._notices,
            name=plan.outputs[0]
            if plan.outputs != ["-"]
            else "fetcher crawl"
            if plan.stored is None
            else "fetcher extract",
            total=estimate_total(plan),
            stop=self.signals.interrupt,
            redact=redact,
            stored=plan.stored,
        )
        return self._live

    async def _drain(self) -> None:
        self._opening = opening = asyncio.current_task()
        try:
            async with contextlib.AsyncExitStack() as stack:
                metrics = self._open_metrics()
                if metrics is not None:
                    stack.enter_context(metrics)
                    if metrics.url is not None and not self._plan["quiet"]:
                        self._notices.say(f"metrics: {metrics.url}", metrics=metrics.url)
                # An error in a cookie file or a bundle is found before an output is opened, and cut.
                await stack.enter_async_context(self._fetcher)
                output = await stack.enter_async_context(open_output(self._plan, self._fetcher))
                self._gate = self._fetcher.gate
                self._resume_state = output.resume_state
                self._announce(output.resume_state)
                if output.since and not self._plan["quiet"]:
                    self._notices.say(output.since)
                stored = self._plan.stored
                source = (
                    output.left(open_source(self._plan, self._fetcher, output))
                    if stored is None
                    else output.left_pages(stored)
                )
                stream = self._fetcher.stream(
                    source,
                    ordered=self._plan["ordered"],
                    stats=output.stats,
                    spill_folder=output.spill_folder,
                    found=output.found,
                )
                outcomes = await stack.enter_async_context(stream)
                self._stats = outcomes.stats
                live = self._live
                if live is not None:
                    live.begin(self._fetcher, outcomes.stats)
                    stack.callback(live.leave)
                await self._show_progress(stack)
                self._announce_time_limit(stack)
                async for outcome in outcomes if metrics is None else metrics.observed(outcomes):
                    await output.write(outcome)
                    if live is not None:
                        live.saw(outcome)
        except asyncio.CancelledError:
            if self.signals.first is None or self._stats is not None or opening is None:
                raise
            opening.uncancel()  # we cancelled it, before anything had begun

    # Notices

    def _announce(self, state: ResumeState) -> None:
        if not state.resumed or self._plan["quiet"]:
            return
        text = f"continuing {self._plan.job}: {state.as_text()}"
        self._notices.say(text, **msgspec.to_builtins(state))
        if state.suspect:
            self._notices.say(f"row {state.suspect} was being parsed when the last run died: it is parsed apart now")

    async def _show_progress(self, stack: contextlib.AsyncExitStack) -> None:
        # With the lines themselves on the terminal, they are the progress, and a bar would be in between.
        beside = "-" in self._plan.outputs and sys.stdout is not None and sys.stdout.isatty()
        drawn = self._notices.can_draw and not beside
        wanted = self._plan["progress"]
        if wanted is None:
            wanted = self._notices.on_terminal and not self._plan["quiet"] and not beside
        if not wanted:
            return
        from fetcher.report.progress import Progress  # nobody may look

        stats = self._stats or Stats()
        self._progress = Progress(
            lambda: stats,
            lambda: len(self._fetcher.in_flight()),
            estimate_total(self._plan),
            tell=None if drawn else self._notices.say,
            standings=self._fetcher.standings,
        )
        await stack.enter_async_context(self._progress)

    def _open_metrics(self) -> Metrics | None:
        """Return what tells how it goes, where that is asked for; a port that is taken is found before all else."""
        place = self._plan["metrics"]
        if place is None:
            return None
        from fetcher.report.metrics import Metrics, MetricsPlace

        nothing = Stats()
        return Metrics(
            MetricsPlace.of(place),
            lambda: self._stats or nothing,
            lambda: len(self._fetcher.in_flight()),
            total=estimate_total(self._plan),
        )

    def _announce_time_limit(self, stack: contextlib.AsyncExitStack) -> None:
        limit = self._plan.config.limits.time
        if limit is not None:
            text = "the time limit is reached: what is in flight has 5 s to finish"
            stack.callback(asyncio.get_running_loop().call_later(limit, self._notices.say, text).cancel)

    # Signals

    def _interrupt(self, count: int) -> None:
        """Stop: let what is in flight finish for at most 5 s, the second time end at once. What is done is written."""
        if self._stats is None:
            if self._opening is not None:
                self._opening.cancel()  # perhaps it waits for the reader of a FIFO
        elif count == 1:
            self._notices.say("stopping: what is in flight has 5 s to finish (once more ends it now)")
            self._fetcher.stop()
        else:
            self._notices.say("ending now: what is done is being written (once more kills)")
            self._fetcher.stop(0)

    def _show_in_flight(self) -> None:
        from fetcher.report.progress import describe_in_flight  # as above

        rows = self._fetcher.in_flight()
        self._notices.show(describe_in_flight(rows), in_flight=msgspec.to_builtins(rows))

    def _clear_progress(self) -> None:
        if self._progress is not None:
            self._progress.clear()

    # The end

    def _exit_code(self) -> int:
        stats = self._stats
        if stats is None or stats.pending or stats.more:
            return TIME_LIMIT if self.signals.first is None else exit_by(self.signals.first)
        bad = stats.failed + stats.skipped - stats.codes["duplicate"]  # duplicates were left out on request
        if (
            (stats.input and not stats.ok)
            or (self._plan.stored is not None and not stats.input)
            or not at_most_failed(self._plan.config.max_failed, bad, stats.input)
        ):
            return ALL_FAILED
        return COMPLETE

    def _close(self, seconds: float, code: int | None, error: BaseException | None = None) -> None:
        """Report how it went, unless it never began or the reader of stdout has left."""
        if self._stats is not None and not isinstance(error, BrokenPipeError):
            hosts = self._gate.troubled() if self._gate is not None else []
            summary = summarize(
                self._stats,
                seconds,
                earlier=self._resume_state.ok,
                shard=self._plan.config.shard,
                hosts=hosts,
                exit=code,
                notes=[*self._plan.notes, *self._notes_of_file(), *self._notes_of_links()],
            )
            if not self._plan["quiet"] and (error is None or self._stats.input):
                self._notices.show(summary.as_text(), summary=msgspec.to_builtins(summary))
            write_summary(self._plan["summary"], summary.as_json())
            if self._live is not None:
                self._live.end(summary)
        if error is None:
            self._tell_what_is_next(code)

    def _notes_of_file(self) -> list[str]:
        """Return what there is to say of a file of pages, once it was read."""
        stored = self._plan.stored
        if stored is None:
            return []
        notes = [text] if (text := stored.broken.as_text()) else []
        if self._stats is not None and not self._stats.input and not self._stats.more:
            notes.append(f"there is no page in {stored.path}")
        return notes

    def _notes_of_links(self) -> list[str]:
        """Return what there is to say of the links that were followed."""
        if self._stats is None or self._stats.following is None:
            return []
        from fetcher.found.store import notes_of

        return notes_of(self._stats.following, self._plan.config.follow)

    def _tell_what_is_next(self, code: int | None) -> None:
        stats, state = self._stats, self._resume_state
        done = "fetched" if self._plan.stored is None else "read"
        if code in (INTERRUPTED, TERMINATED, TIME_LIMIT):
            from fetcher.cli.resume_command import resume_command

            plan = self._plan
            if plan.job is not None:
                fresh = (
                    False if plan["fresh"] and stats is not None else None
                )  # the job that was begun again is continued
                command = resume_command(sys.argv, plan.settings, fresh=fresh)
                self._notices.say(f"not all was {done}; to continue: {command}", command=command)
                return
            fresh = True if not plan["fresh"] and not all(map(is_special, plan.outputs)) else None
            command = resume_command(sys.argv, plan.settings, fresh=fresh)
            self._notices.say(f"not all was {done}; to begin again: {command}", command=command)
        elif state.resumed and stats is not None and stats.done == state.done and not self._plan["quiet"]:
            again = "--retry-failed takes up what failed, " if stats.failed else ""
            self._notices.say(f"all rows were done already: nothing was {done} ({again}--fresh begins again)")
