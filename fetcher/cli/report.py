"""``fetcher report``: how a job stands, read from its ledger alone, also while a run works on it.

Law 7: text out of a ledger is escaped before it gets here; the names typed are escaped by whoever prints the error.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from fetcher.cli.exits import PIPE_CLOSED, discard_stdout
from fetcher.errors import ConfigError, SinkError
from fetcher.job.paths import LEDGER, folder_for, is_job
from fetcher.report.summary import describe_trouble, human_bytes, human_seconds
from fetcher.sinks.opening import display_name, write_error
from fetcher.stats import counted

if TYPE_CHECKING:
    from fetcher.job.changes import ChangeReport
    from fetcher.job.report import HostFigures, JobReport, RunReport

__all__ = ["command", "find_job", "lay_out", "lay_out_changes"]

FEW_LINES, MANY_LINES = 10, 50
"""Of a table by default, and of one that was asked for."""


@click.command("report", short_help="Tell how a job went, or how far it is.")
@click.argument("job", metavar="JOB|OUTPUT")
@click.option("--json", "as_json", is_flag=True, help="Everything as one JSON object, up to 1,000 hosts of each kind.")
@click.option(
    "--hosts",
    is_flag=True,
    help=f"{MANY_LINES} hosts of each kind, not {FEW_LINES}: slowest, failing, and those that gave trouble.",
)
@click.option("--errors", is_flag=True, help=f"The {MANY_LINES} most frequent errors, not {FEW_LINES}.")
@click.option(
    "--changes",
    is_flag=True,
    help=f"What has changed since the output that --since named, with {MANY_LINES} URLs of each kind (1,000 with --json).",
)
@click.option("-v", "--verbose", count=True, help="Twice: show where an error of ours struck.")
@click.pass_context
def command(
    context: click.Context, /, job: str, *, as_json: bool, hosts: bool, errors: bool, changes: bool, **_: object
) -> None:
    """Tell how far a job is, or how it went: what is done and left, what failed, and which hosts gave trouble.

    JOB is the folder of a job, OUTPUT a file that it writes (then the job is OUTPUT.job). Nothing is changed, and a
    run that works on the job just now is not disturbed.

    \b
      fetcher report pages.jsonl
      fetcher report pages.jsonl --json | jq .left
      fetcher report pages.jsonl --changes
    """  # noqa: D301  (click keeps the lines below this very control character as they are)
    from fetcher.job.report import MAX_HOSTS, JobReport, report

    # A look changes nothing: Ctrl-C may end it at any instruction, those of the database too.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    figures: JobReport | ChangeReport
    if changes:
        from fetcher.job.changes import changes_of

        figures = changes_of(find_job(job), most=MAX_HOSTS if as_json else MANY_LINES)
    else:
        figures = report(find_job(job), hosts=MAX_HOSTS if as_json else MANY_LINES if hosts else FEW_LINES)
    if as_json:
        import msgspec

        text = msgspec.json.format(msgspec.json.encode(figures), indent=2).decode() + "\n"
    elif isinstance(figures, JobReport):
        text = lay_out(figures, errors=MANY_LINES if errors else FEW_LINES)
    else:
        text = lay_out_changes(figures)
    try:
        _print(text)
    except BrokenPipeError:
        context.exit(PIPE_CLOSED)  # click would make it a 1


def _print(text: str) -> None:
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (for as long as we run: our end flushes it)
        raise SinkError(f"{display_name('-')}: is closed")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that cannot show a name gets the rest
    try:
        click.echo(text, nl=False)
    except OSError as error:
        discard_stdout()  # what stays in the buffer would fail again when the interpreter ends
        raise write_error("-", "cannot write", error) from error


def find_job(name: str) -> str:
    """Return the folder of the job that ``name``, itself or an output, means.

    Raises ``ConfigError`` where there is none, and says what to do.
    """
    beside = folder_for([name.rstrip(os.sep) or name])
    for folder in (name, beside):
        if "\0" not in name and is_job(folder):
            return folder
    if "\0" in name or not os.path.lexists(name):
        raise ConfigError(f"{name}: there is no job or output of that name: give the folder of a job, or its -o")
    if os.path.isdir(name):
        raise ConfigError(f"{name} is no job: it holds no {LEDGER}; give the folder of a job, or its -o")
    raise ConfigError(f"{name}: there is no job beside it ({beside}): give the folder that --job named")


def lay_out(figures: JobReport, *, errors: int = FEW_LINES) -> str:
    """Return the report for people: lines that end in a newline, ``errors`` of them in the table of codes."""
    many = len(figures.outputs)
    tables = [
        ("outputs", [[output.path, human_bytes(output.position)] for output in figures.outputs[:MANY_LINES]], many),
        ("runs", _runs(figures), figures.run_count),
        ("failed or skipped", _codes(figures, errors), len(figures.codes)),
        ("slowest hosts", _hosts(figures.slowest), 0),
        ("hosts with failures", _hosts(figures.failing), 0),
        ("hosts that gave trouble", [[describe_trouble(host)] for host in figures.troubled], 0),
    ]
    lines = [_headline(figures), *(f"  {line}" for line in _progress(figures))]
    for title, rows, total in tables:
        if rows:
            heads = HEADS.get(title)
            shown = len(rows)
            of = f" ({'the last ' if title == 'runs' else ''}{shown:,} of {total:,})" if total > shown else ""
            lines += ["", f"{title}{of}", *_aligned([heads, *rows] if heads else rows)]
    return "\n".join([*lines, ""])


def lay_out_changes(figures: ChangeReport) -> str:
    """Return the report of what has changed, for people."""
    parts = [f"{many:,} {kind}" for kind, many in figures.counts.items()]
    parts.append("not all rows are done" if figures.unlisted is None else f"{figures.unlisted:,} no longer listed")
    since = "no earlier output" if figures.since is None else figures.since
    lines = [f"{figures.output}, compared with {since}: {', '.join(parts)}"]
    for kind, urls in figures.urls.items():
        if urls:
            total = figures.counts[kind]
            lines += ["", kind + (f" ({len(urls):,} of {total:,})" if total > len(urls) else "")]
            lines += [f"  {url}" for url in urls]
    return "\n".join([*lines, ""])


HEADS = {
    "slowest hosts": ["", "mean", "rows", "failed", "bytes"],
    "hosts with failures": ["", "mean", "rows", "failed", "bytes"],
}


def _headline(figures: JobReport) -> str:
    process = f" (process {figures.pid})" if figures.pid is not None else ""
    state = {
        "running": f"running{process}",
        "complete": "complete",
        "stopped": "stopped; the same command continues",
        "interrupted": "interrupted, its last run was killed; the same command continues",
    }[figures.state]
    retry = f", retrying {', '.join(figures.retrying[:FEW_LINES])}" if figures.retrying else ""
    return f"{figures.job}: {state}{retry}"


def _progress(figures: JobReport) -> Iterable[str]:
    rest = f" + {figures.pending:,} pending" if figures.pending else ""
    yield (
        f"{counted(figures.input, 'row')}{' and more' if figures.more else ''} = {figures.ok:,} ok"
        f" + {figures.failed:,} failed + {figures.skipped:,} skipped{rest}, {human_bytes(figures.bytes)}"
    )
    if figures.state != "complete":
        yield _left(figures)
    if figures.seconds:
        runs = f", {figures.pages_per_second:,.0f} over all {figures.run_count:,}" if figures.run_count > 1 else ""
        run = "this run" if figures.state == "running" else "the last run"
        yield (
            f"{figures.last_pages_per_second:,.0f} pages/s in {run}{runs}; {counted(figures.hosts, 'host')},"
            f" {human_seconds(figures.seconds)}"
        )


def _left(figures: JobReport) -> str:
    if figures.left is None:
        return f"left: {counted(figures.pending, 'row')}, and those of the list that were not read yet"
    text = f"left: {'about ' if figures.more else ''}{counted(figures.left, 'row')}"
    if figures.state == "running" and figures.ok and figures.last_pages_per_second:
        seconds = figures.left * figures.ok / figures.done / figures.last_pages_per_second
        text += f", {human_seconds(seconds)} at this pace"
    return text


def _runs(figures: JobReport) -> list[list[str]]:
    return [
        [
            f"{run.number}  {run.began.replace('T', ' ').replace('Z', ' UTC')}",
            human_seconds(run.seconds),
            f"{run.ok:,} ok",
            f"{run.pages_per_second:,.0f} pages/s",
            _ending(run, running=figures.state == "running" and run is figures.runs[-1]),
        ]
        for run in figures.runs[-FEW_LINES:]
    ]


def _ending(run: RunReport, *, running: bool) -> str:
    if not run.clean:
        return "running" if running else "killed"
    return "ended" if run.exit is None else f"exit {run.exit}"


def _codes(figures: JobReport, most: int) -> list[list[str]]:
    return [
        [code, f"{many:,}", f"{many / figures.done * 100:.1f} %"] for code, many in list(figures.codes.items())[:most]
    ]


def _hosts(hosts: Sequence[HostFigures]) -> list[list[str]]:
    return [
        [
            host.host or "(no host)",
            f"{host.elapsed:.2f} s",
            f"{host.rows:,}",
            f"{host.failed:,}",
            human_bytes(host.bytes),
        ]
        for host in hosts
    ]


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Align the first column to the left and the others to the right, indented."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return [
        ("  " + "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])).rstrip() for row in table
    ]
