"""One bench from the command line: its settings are checked before the first request, its report is printed.

Laws: the result goes to stdout and everything else to stderr; Ctrl-C prints what is complete; no secret of the command
line is repeated in a report.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import msgspec

from fetcher.bench.formatting import mode_flag
from fetcher.bench.plan import Bench, Listing, listing_of, planned_rounds, requests_by_host
from fetcher.bench.results import Report, Round, all_failed
from fetcher.bench.runner import ProgressUpdate, handle_signals, measure
from fetcher.bench.text_report import mismatch_lines, render_text
from fetcher.cli.exits import COMPLETE, FAILED, PIPE_CLOSED, discard_stdout, exit_by
from fetcher.cli.outputs import print_text, write_text
from fetcher.cli.redaction import redact
from fetcher.cli.resume_command import resume_command
from fetcher.cli.settings import concurrency_within_limits, list_options, make_config, read_latency, warn_of_unused
from fetcher.config.options import named, number_from
from fetcher.errors import ConfigError, FetcherError
from fetcher.report.live_line import LiveLine
from fetcher.report.progress import DRAW_SECONDS, Piece, clock, fit
from fetcher.report.summary import human_seconds
from fetcher.sinks.opening import check_path
from fetcher.sources import is_url_argument, read_lists
from fetcher.stats import counted
from fetcher.terminal import Notices, has_colour, printable
from fetcher.urls import without_userinfo

__all__ = ["bench"]

HOSTS_NAMED = 10  # before a run


class Outputs(msgspec.Struct, frozen=True):
    """Where the report goes beside the table, and what makes the picture."""

    json: str | None
    html: str | None
    render: Callable[[Report], str] | None


def bench(inputs: list[str], settings: dict[str, Any]) -> int:
    """Run ``fetcher bench`` and return its exit code."""
    notices = Notices(redact=redact)
    quiet = settings.get("quiet", False)
    notices.listen(0, quiet=quiet)
    try:
        plan, outputs = _plan(inputs, settings), _outputs(inputs, settings)
        listing = _listing(inputs, settings, plan) if inputs else None
        if not plan.config.tls.verify and not quiet:
            notices.say("warning: certificates are not verified (--insecure)", level="warning")
        if not quiet:
            warn_of_unused(notices, inputs, settings)
        if listing is not None and not quiet:
            _announce(listing, plan, notices)
        report, number = asyncio.run(_measure(plan, listing, settings, notices))
        if report is None:
            return exit_by(number or signal.SIGINT)
        return _tell(report, number, outputs, notices, quiet=quiet)
    except BrokenPipeError:
        discard_stdout()
        return PIPE_CLOSED  # returned, for click would make the error a 1


# The settings

_NOT_MEASURED = frozenset({"concurrency", "follow", "follow_css"})  # as a configuration file may have them for crawls


def _plan(inputs: Sequence[str], settings: Mapping[str, Any]) -> Bench:
    """Read the settings. Raises ``ConfigError`` that names the setting."""
    for name in ("latency", "seed", "scenario"):
        if inputs and settings.get(name) is not None:
            raise ConfigError(f"{name}: is of the built-in site: leave it out, or leave out the INPUT")
    if settings.get("scenario") == "fast" and settings.get("latency") is not None:
        raise ConfigError("latency: the scenario 'fast' has none: leave one of them out")
    urls = inputs if all(map(is_url_argument, inputs)) else []
    given: dict[str, Any] = {
        "concurrency": _numbers("concurrency", settings.get("sweep", settings.get("concurrency"))),
        "n": _number("rows", settings.get("rows"), 1),
        "rounds": _number("rounds", settings.get("rounds"), 1),
        "seed": _number("seed", settings.get("seed"), 0),
        "latency": None if settings.get("latency") is None else read_latency(settings["latency"]),
        "scenario": settings.get("scenario"),
        "sequential": settings.get("sequential"),
        "config": make_config({key: value for key, value in settings.items() if key not in _NOT_MEASURED}, urls),
    }
    plan = Bench(**{name: value for name, value in given.items() if value is not None})
    most = max(plan.concurrency)
    if (allowed := concurrency_within_limits(most)) < most:  # another would be measured than is said
        raise ConfigError(
            f"concurrency: -c {most} is more than the limit of file descriptors allows: use -c {allowed} at most, "
            "or raise the limit (ulimit -n)"
        )
    return plan


def _number(name: str, value: Any, low: int) -> int | None:
    try:
        return None if value is None else int(number_from(low, whole=True)(value))
    except ConfigError as error:
        raise named(name, error) from None


def _numbers(name: str, value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    return tuple(int(_number(name, part.strip(), 1) or 0) for part in str(value).split(","))


def _outputs(inputs: Sequence[str], settings: Mapping[str, Any]) -> Outputs:
    """Check where the report goes, and load what makes the picture, before anything is measured."""
    paths = {name: settings.get(name) or None for name in ("json", "html")}
    for name, path in paths.items():
        if path is None:
            continue
        check_path(path, fresh=True)
        if any(_same_file(path, text) for text in inputs if not is_url_argument(text)):
            raise ConfigError(f"{name}: {path} is a list that is to be read; write to another file")
    if paths["json"] is not None and paths["json"] == paths["html"]:
        raise ConfigError(f"html: {paths['html']} is given twice (as json)")
    if paths["html"] is None:
        return Outputs(paths["json"], None, None)
    from fetcher.bench.html_report import render_html

    return Outputs(paths["json"], paths["html"], render_html)


def _same_file(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False


def _listing(inputs: list[str], settings: Mapping[str, Any], plan: Bench) -> Listing:
    source = ", ".join("stdin" if text == "-" else without_userinfo(text) for text in inputs[:3]) + (
        ", …" if len(inputs) > 3 else ""
    )
    return listing_of(read_lists(inputs, list_options(settings)), plan, source)


# The report


def _announce(listing: Listing, plan: Bench, notices: Notices) -> None:
    """Say how many requests each host will get, before it gets them."""
    rows = len(listing.rows)
    if rows < plan.n and not listing.left_out:
        notices.say(f"{listing.source} has {counted(rows, 'row')}, not {plan.n:,}: all are used")
    elif listing.more:
        notices.say(
            f"the first {counted(plan.n, 'row')} of {listing.source} {'is' if plan.n == 1 else 'are'} used (-n)"
        )
    planned = planned_rounds(plan, rows)
    by_host = requests_by_host(planned, listing.hosts)
    lines = [
        f"fetcher: {counted(by_host.total(), 'request')} in {counted(len(planned), 'round')}, redirects and further tries not counted:"
    ]
    lines += [f"  {times:>9,}  {host}" for host, times in by_host.most_common(HOSTS_NAMED)]
    if len(by_host) > HOSTS_NAMED:
        rest = by_host.most_common()[HOSTS_NAMED:]
        lines.append(
            f"  {sum(times for _, times in rest):>9,}  to {counted(len(rest), 'more host')}, at most {rest[0][1]:,} each"
        )
    notices.show("\n".join(lines))


async def _measure(
    plan: Bench, listing: Listing | None, settings: Mapping[str, Any], notices: Notices
) -> tuple[Report | None, int | None]:
    """Run it, with progress; return the number of the signal that stopped it as well, if one did.

    There is no report where the signal came before the built-in site was up, and struck it too.
    """
    stop = asyncio.Event()
    signals: list[int] = []

    def interrupt(number: int) -> None:
        signals.append(number)
        stop.set()

    quiet = settings.get("quiet", False)
    wanted = settings.get("progress")
    with (
        handle_signals(interrupt, signal.SIGINT, signal.SIGTERM),
        BenchProgress(notices, shown=not quiet if wanted is None else wanted) as progress,
    ):
        words = _words(settings)
        try:
            report = await measure(plan, listing, progress=progress.tell, say=notices.say, stop=stop, words=words)
        except FetcherError:
            if not signals:
                raise
            report = None
    return report, signals[0] if signals else None


def _words(settings: Mapping[str, Any]) -> list[str]:
    """Return our command line without its secrets."""
    shown = resume_command(sys.argv, settings, fresh=None)
    try:
        return shlex.split(shown)
    except ValueError:  # quotes of bash's that spell characters out
        return shown.split()


def _tell(report: Report, number: int | None, outputs: Outputs, notices: Notices, *, quiet: bool) -> int:
    """Print and write the report, and return the exit code it means."""
    table = "\n".join(map(printable, render_text(report).split("\n")))
    if "-" in (outputs.json, outputs.html):
        notices.show(table.rstrip())
    else:
        print_text(table)
    if not quiet:
        for text in report.warnings:
            notices.say(f"warning: {text}", level="warning")
    if outputs.json is not None:
        write_text(outputs.json, msgspec.json.encode(report).decode() + "\n", what="the report")
    if outputs.html is not None and outputs.render is not None:
        write_text(outputs.html, outputs.render(report), what="the report")
    if report.mismatches:
        pages = len({found.id for found in report.mismatches})
        notices.say(f"the modes got different pages, {pages:,} of {counted(report.rows, 'row')}:", level="error")
        notices.show("\n".join(f"  {line}" for line in mismatch_lines(report.mismatches)))
    if number is not None:
        complete = len(report.rounds)
        notices.say(f"stopped: {complete} round{' is' if complete == 1 else 's are'} complete")
        return exit_by(number)
    if all_failed(report.rounds):
        codes = sorted({str(sample.code) for sample in report.rounds[0].samples})
        rows = len(report.rounds[0].samples)
        notices.say(
            f"not one of {counted(rows, 'row')} is a page ({', '.join(codes)}): there is nothing to compare",
            level="error",
        )
    return FAILED if report.mismatches or not report.complete else COMPLETE


# How far it is


class BenchProgress:
    """Progress of a bench: a bar for each round on a terminal, which leaves nothing there; a line a round elsewhere.

    A ``with`` block; ``tell`` is called with every ``ProgressUpdate``.
    """

    def __init__(self, notices: Notices, *, shown: bool) -> None:
        self._notices = notices
        self._shown = shown
        self._live: LiveLine | None = None
        self._began = time.monotonic()
        self._drawn = 0.0
        self._pieces: list[Piece] = [Piece("starting", 9)]
        self._share: float | None = None

    def __enter__(self) -> Self:
        if self._shown and self._notices.can_draw:
            self._live = LiveLine(self._lines)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def _lines(self, columns: int) -> list[str]:
        return [fit(self._pieces, columns, share=self._share, coloured=has_colour(sys.stderr))]

    def tell(self, update: ProgressUpdate) -> None:
        """Show how far it is."""
        name = mode_flag(update.planned.mode, update.planned.concurrency)
        when = "warm-up" if update.planned.warm_up else f"round {update.planned.index}"
        if self._live is not None:
            self._pieces = [
                Piece(f"{update.number} of {update.of}: {when}, {name}", 8),
                Piece(f"{update.done:,}/{update.planned.rows:,}", 9),
                Piece(f"{clock(time.monotonic() - self._began)} elapsed", 1),
            ]
            self._share = update.done / update.planned.rows if update.planned.rows else None
            if (now := time.monotonic()) - self._drawn >= DRAW_SECONDS or update.round is not None:
                self._drawn = now
                self._live.draw()
        elif self._shown and update.round is not None:
            self._notices.say(f"{update.number} of {update.of}: {when}, {name}: {_line(update.round)}")


def _line(round_: Round) -> str:
    pages = sum(sample.code is None for sample in round_.samples)
    failed = len(round_.samples) - pages
    rate = pages / round_.wall if round_.wall else 0.0
    return f"{human_seconds(round_.wall)}, {rate:,.1f} pages/s" + (f", {failed:,} failed" if failed else "")
