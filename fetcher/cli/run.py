"""One crawl from the command line: checks everything first, then runs, and closes the books at every exit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from fetcher.books import Books
from fetcher.cli.exits import ALL_FAILED, COMPLETE, INTERRUPTED, TERMINATED, TIME_LIMIT
from fetcher.cli.settings import RUN_KEYS, at_most_failed, descriptors_for, make_config
from fetcher.client import Fetcher
from fetcher.config import Config
from fetcher.errors import ConfigError, SinkError
from fetcher.model import Sink
from fetcher.observe.inflight import describe
from fetcher.observe.report import summarize
from fetcher.sinks import check_output, open_sink
from fetcher.sources import Row, check, estimate_rows, is_url_argument, read
from fetcher.sources.handover import in_thread

__all__ = ["crawl"]


class Plan(msgspec.Struct, frozen=True):
    """A crawl that has been checked: nothing in it is known to be wrong."""

    config: Config
    inputs: list[str]
    outputs: list[str]
    settings: dict[str, Any]

    def __getitem__(self, key: str) -> Any:
        return self.settings.get(key, RUN_KEYS[key])


def crawl(inputs: list[str], settings: dict[str, Any], *, demo: bool) -> int:
    """Run ``fetcher crawl`` and return its exit code."""
    if demo:
        if inputs:
            raise ConfigError("--demo brings its own list: leave out the INPUT, or leave out --demo")
        from fetcher.bench.site import Site, SiteProcess

        with SiteProcess(Site()) as site:
            return _run(_plan(site.urls(), settings))
    if not inputs:
        if sys.stdin is None or sys.stdin.isatty():
            raise ConfigError("no INPUT: give a file, '-' for stdin, or URLs (or --demo for the built-in site)")
        inputs = ["-"]
    return _run(_plan(inputs, settings))


def _plan(inputs: list[str], settings: dict[str, Any]) -> Plan:
    """Find everything that is wrong with the settings, the lists and the outputs before the first request."""
    urls = inputs if all(is_url_argument(text) for text in inputs) else []
    config = make_config(settings, urls)
    plan = Plan(config, inputs, _texts(settings.get("output")) or ["-"], settings)
    _set_up_log(int(plan["verbose"]), plan["log_format"])
    descriptors_for(config.limits.concurrency)
    check(inputs, format=plan["from"], url_column=plan["url_column"])
    if len({os.path.realpath(path) for path in plan.outputs}) < len(plan.outputs):
        raise ConfigError("output: the same file is given twice")
    for path in plan.outputs:
        check_output(path, format=plan["format"], fresh=plan["fresh"])
    if plan["summary"] not in (None, "-") and not Path(plan["summary"]).absolute().parent.is_dir():
        raise SinkError(f"{plan['summary']}: the folder {Path(plan['summary']).parent} does not exist")
    if not config.tls.verify:
        _say("warning: certificates are not verified (--insecure)")
    return plan


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _run(plan: Plan) -> int:
    fetcher = Fetcher(plan.config)  # a selector that does not parse is found here
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(Crawl(plan, fetcher).run())


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
    """A run in the loop: signals, sinks, progress, and the exit code that follows from the books."""

    def __init__(self, plan: Plan, fetcher: Fetcher) -> None:
        self._plan = plan
        self._fetcher = fetcher
        self._books = Books()
        self._signal: int | None = None
        self._interrupts = 0

    async def run(self) -> int:
        """Fetch everything and return the exit code."""
        began = time.monotonic()
        code: int | None = None
        quiet_end = False
        try:
            with self._handling_signals():
                await self._drain()
            code = self._exit_code()
            return code
        except BrokenPipeError:
            quiet_end = True  # the reader has what it wanted
            raise
        finally:
            if not quiet_end:
                self._close(time.monotonic() - began, code)

    async def _drain(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            sinks = [await stack.enter_async_context(sink) for sink in self._sinks()]
            await stack.enter_async_context(self._fetcher)
            outcomes = await stack.enter_async_context(self._fetcher.stream(self._rows()))
            self._books = outcomes.books
            if self._shows_progress():
                from fetcher.observe.progress import Progress

                await stack.enter_async_context(
                    Progress(lambda: self._books, lambda: len(self._fetcher.in_flight()), self._total())
                )
            async for outcome in outcomes:
                for sink in sinks:
                    await sink.write(outcome)

    def _rows(self) -> Iterable[Row] | AsyncIterable[Row]:
        rows = read(self._plan.inputs, format=self._plan["from"], url_column=self._plan["url_column"])
        # A pipe may keep its reader waiting for as long as it likes: not this thread.
        if any(_may_block(path) for path in self._plan.inputs):
            return in_thread(rows)
        return rows

    def _sinks(self) -> list[Sink]:
        plan = self._plan
        names = [rule.partition("=")[0].strip().removesuffix("[]") for rule in plan.config.select]
        free_fields = plan["from"] == "jsonl" or any(".jsonl" in path or ".ndjson" in path for path in plan.inputs)
        return [
            open_sink(
                path,
                format=plan["format"],
                fresh=plan["fresh"],
                fields=() if free_fields else None,
                select=names,
            )
            for path in plan.outputs
        ]

    def _total(self) -> int | None:
        total = estimate_rows(self._plan.inputs, format=self._plan["from"])
        rows = self._plan.config.limits.rows
        return total if rows is None else min(rows, total or rows)

    def _shows_progress(self) -> bool:
        wanted = self._plan["progress"]
        if wanted is None:
            to_terminal = "-" in self._plan.outputs and sys.stdout.isatty()  # the lines themselves are the progress
            return sys.stderr.isatty() and not self._plan["quiet"] and not to_terminal
        return bool(wanted)

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
        installed = []
        try:
            for number, handler in handlers.items():
                with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C stays KeyboardInterrupt
                    loop.add_signal_handler(number, handler)
                    installed.append(number)
            yield
        finally:
            for number in installed:
                loop.remove_signal_handler(number)

    def _interrupt(self, number: int) -> None:
        """First: finish what is in flight, at most 5 s. Second: end now, with all that is done written. Third: die."""
        self._signal = self._signal or number
        self._interrupts += 1
        if self._interrupts == 1:
            _say("stopping: what is in flight has 5 s to finish (once more ends it now)")
            self._fetcher.stop()
        elif self._interrupts == 2:
            self._fetcher.stop(0)
        else:
            os._exit(128 + number)

    def _show_in_flight(self) -> None:
        print(describe(self._fetcher.in_flight()), file=sys.stderr, flush=True)

    # The end

    def _exit_code(self) -> int:
        books = self._books
        if books.pending or books.more:
            if self._signal is not None:
                return INTERRUPTED if self._signal == signal.SIGINT else TERMINATED
            return TIME_LIMIT
        bad = books.failed + books.skipped
        if (books.input and not books.ok) or not at_most_failed(self._plan.config.max_failed, bad, books.input):
            return ALL_FAILED
        return COMPLETE

    def _close(self, seconds: float, code: int | None) -> None:
        summary = summarize(self._books, seconds, exit=code)
        path = self._plan["summary"]
        if path is not None:
            try:
                if path == "-":
                    sys.stdout.write(summary.as_json())
                else:
                    Path(path).write_text(summary.as_json(), encoding="utf-8")
            except OSError as error:
                raise SinkError(f"{path}: cannot write the summary: {error.strerror or error}") from None
        if not self._plan["quiet"]:
            print(summary.as_text(), file=sys.stderr)
        if code in (INTERRUPTED, TERMINATED, TIME_LIMIT):
            again = [] if self._plan.outputs == ["-"] or self._plan["fresh"] else ["--fresh"]
            _say(f"not all was fetched; to begin again: {shlex.join(['fetcher', *sys.argv[1:], *again])}")


def _may_block(path: str) -> bool:
    return path == "-" or (not is_url_argument(path) and os.path.exists(path) and not os.path.isfile(path))


def _say(text: str) -> None:
    print(f"fetcher: {text}", file=sys.stderr, flush=True)


# The log


class _JSONLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        return msgspec.json.encode(entry).decode()


class _PlainLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        from fetcher.sinks.escape import printable

        return printable(f"fetcher: {record.getMessage()}")


def _set_up_log(verbose: int, kind: str) -> None:
    if not verbose:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JSONLines() if kind == "json" else _PlainLines())
    logger = logging.getLogger("fetcher")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if verbose == 1 else logging.DEBUG)
