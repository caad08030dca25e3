"""``fetcher report``: how a job stands, or the shards of a list, read from ledgers alone, also while runs work on them.

Law 7: text out of a ledger is escaped before it gets here; the names typed are escaped by whoever prints the error.
"""

from __future__ import annotations

import glob
import io
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

import click

from fetcher.cli.commands import GroupedCommand, complete_files
from fetcher.cli.exits import PIPE_CLOSED, discard_stdout
from fetcher.errors import ConfigError, SinkError
from fetcher.job.paths import LEDGER, folder_for, is_job
from fetcher.report.summary import describe_trouble, human_bytes, human_seconds
from fetcher.sinks.opening import display_name, write_error
from fetcher.stats import counted

if TYPE_CHECKING:
    from fetcher.job.changes import ChangeReport
    from fetcher.job.report import HostFigures, JobReport, RunReport
    from fetcher.job.shards import ShardsReport

__all__ = ["check_page", "command", "find_job", "find_jobs", "lay_out", "lay_out_changes", "lay_out_shards"]

FEW_LINES, MANY_LINES = 10, 50
"""Of a table by default, and of one that was asked for."""


@click.command("report", cls=GroupedCommand, short_help="Tell how a job went, or how far it is.")
@click.argument("jobs", metavar="JOB|OUTPUT...", nargs=-1, required=True, shell_complete=complete_files)
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
@click.option(
    "--html",
    metavar="FILE",
    help="Write one page with plots that needs no network; several jobs that are no shards are compared in it.",
)
@click.option("-v", "--verbose", count=True, help="Twice: show where an error of ours struck.")
@click.pass_context
def command(
    context: click.Context,
    /,
    jobs: tuple[str, ...],
    *,
    as_json: bool,
    hosts: bool,
    errors: bool,
    changes: bool,
    html: str | None,
    **_: object,
) -> None:
    """Tell how far a job is, or how it went: what is done and left, what failed, and which hosts gave trouble.

    JOB is the folder of a job, OUTPUT a file that it writes (then the job is OUTPUT.job). Nothing is changed, and a
    run that works on the job just now is not disturbed. Several, or a pattern in quotes, are the shards of one list
    (crawl --shard): they are added up. With --html any jobs are put side by side: yesterday's and today's.

    \b
      fetcher report pages.jsonl
      fetcher report pages.jsonl --json | jq .left
      fetcher report pages.jsonl --changes
      fetcher report 'shard-*/pages.jsonl'
      fetcher report pages.jsonl --html report.html
      fetcher report monday.jsonl tuesday.jsonl --html both.html
    """  # noqa: D301  (click keeps the lines below this very control character as they are)
    # A look changes nothing: Ctrl-C may end it at any instruction, those of the database too.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    folders = find_jobs(jobs)
    together = len(jobs) > 1 or _is_pattern(jobs[0])
    if changes:
        if html is not None:
            raise ConfigError("--html and --changes: the page has no list of changes; give one of them")
        text = _changes(folders, as_json=as_json)
    elif html is not None:
        text = _page(
            folders,
            html,
            together=together,
            as_json=as_json,
            lines=(MANY_LINES if hosts else FEW_LINES, MANY_LINES if errors else FEW_LINES),
        )
    else:
        text = _report(folders, together=together, as_json=as_json, hosts=hosts, errors=errors)
    try:
        _print(text)
    except BrokenPipeError:
        context.exit(PIPE_CLOSED)  # click would make it a 1


def _changes(folders: Sequence[str], *, as_json: bool) -> str:
    """Return what has changed."""
    from fetcher.job.changes import changes_of
    from fetcher.job.report import MAX_HOSTS

    most = MAX_HOSTS if as_json else MANY_LINES
    if len(folders) == 1:
        figures = changes_of(folders[0], most=most)
    else:
        from fetcher.job.shards import changes_of_shards

        figures = changes_of_shards(folders, most=most)
    return _as_json(figures) if as_json else lay_out_changes(figures)


def _report(folders: Sequence[str], *, together: bool, as_json: bool, hosts: bool, errors: bool) -> str:
    """Return how a job stands, or shards of a list ``together``, be it only one that has begun."""
    from fetcher.job.report import MAX_HOSTS, report

    most = MAX_HOSTS if as_json else MANY_LINES if hosts else FEW_LINES
    lines = MANY_LINES if errors else FEW_LINES
    if len(folders) == 1:
        figures = report(folders[0], hosts=most)
        if figures.shard is None or not together:
            return _as_json(figures) if as_json else lay_out(figures, errors=lines)
    from fetcher.job.shards import report_shards

    sums = report_shards(folders, hosts=most)
    return _as_json(sums) if as_json else lay_out_shards(sums, errors=lines)


def _page(folders: Sequence[str], path: str, *, together: bool, as_json: bool, lines: tuple[int, int]) -> str:
    """Write the page of a job, of shards added up, or of several jobs side by side; return what is printed as well."""
    from fetcher.cli.outputs import write_text
    from fetcher.job.report import report
    from fetcher.report.html_report import render_comparison, render_job, render_shards
    from fetcher.report.job_page import read_job, read_shards

    check_page(path)
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # what pyarrow would allocate by keeps 35 MB more
    most, codes = lines
    shards = together and all(report(folder, hosts=0).shard is not None for folder in folders)
    if shards:
        sums, pages = read_shards(folders)
        html = render_shards(sums, pages)
        text = _as_json(sums) if as_json else lay_out_shards(_shortened(sums, most), errors=codes)
    elif len(folders) == 1:
        page = read_job(folders[0])
        html = render_job(page)
        text = _as_json(page.figures) if as_json else lay_out(_shortened(page.figures, most), errors=codes)
    else:
        if as_json:
            raise ConfigError(
                "--json: these jobs are not the shards of one list, and are not added up: ask for each alone"
            )
        html, text = render_comparison([read_job(folder) for folder in folders]), ""
    write_text(path, html, what="the page")
    return "" if path == "-" else text


def check_page(path: str) -> None:
    """Raise ``ConfigError`` where ``path`` is a file that is no page: it may be somebody's data."""
    try:
        with open(path, "rb") as file:
            start = file.read(15)
    except (OSError, ValueError):  # there is none yet, or it cannot be written either
        return
    if start and start.lower() != b"<!doctype html>":
        raise ConfigError(f"{path}: is there, and is no HTML page: name another file for --html, or take it away")


_Figures = TypeVar("_Figures", "JobReport", "ShardsReport")


def _shortened(figures: _Figures, hosts: int) -> _Figures:
    import msgspec

    return msgspec.structs.replace(
        figures,
        slowest=figures.slowest[:hosts],
        failing=figures.failing[:hosts],
        troubled=figures.troubled[:hosts],
    )


def _as_json(figures: JobReport | ShardsReport | ChangeReport) -> str:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(figures), indent=2).decode() + "\n"


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


def find_jobs(names: Sequence[str]) -> list[str]:
    """Return the folders of the jobs that ``names`` mean, each once; a name that is no file's may be a pattern.

    Raises ``ConfigError`` as ``find_job`` does, for a pattern that nothing fits too.
    """
    folders: dict[str, str] = {}
    for name in names:
        fitting = [name]
        if _is_pattern(name):
            fitting = sorted(glob.glob(name)) or [name]
        for each in fitting:
            folder = find_job(each)
            folders.setdefault(os.path.realpath(folder), folder)
    return list(folders.values())


def _is_pattern(name: str) -> bool:
    return "\0" not in name and glob.has_magic(name) and not os.path.lexists(name)


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


def lay_out_shards(figures: ShardsReport, *, errors: int = FEW_LINES) -> str:
    """Return the report of the shards of a list, for people."""
    missing = len(figures.missing)
    lines = [f"{counted(len(figures.shards), 'shard')} of {figures.of:,}: {figures.state}"]
    if missing:
        more = f" and {missing - MANY_LINES:,} more" if missing > MANY_LINES else ""
        lines.append(f"  not given: shard {', '.join(figures.missing[:MANY_LINES])}{more}")
    rest = f" + {figures.pending:,} pending" if figures.pending else ""
    lines.append(
        f"  {counted(figures.input, 'row')}{' and more' if figures.more else ''} = {figures.ok:,} ok"
        f" + {figures.failed:,} failed + {figures.skipped:,} skipped{rest}, {human_bytes(figures.bytes)}"
    )
    if figures.left:
        lines.append(f"  left: {'about ' if figures.more else ''}{counted(figures.left, 'row')}")
    if figures.seconds:
        lines.append(
            f"  {figures.pages_per_second:,.0f} pages/s together; {counted(figures.hosts, 'host')},"
            f" {human_seconds(figures.seconds)} at most"
        )
    lines += [f"  {note}" for note in figures.notes]
    shards = [
        [each.shard, each.state, *(f"{many:,}" for many in (each.input, each.ok, each.failed, each.skipped)), each.job]
        for each in figures.shards
    ]
    tables = [
        ("shards", [["", "", "rows", "ok", "failed", "skipped", ""], *shards]),
        ("failed or skipped", _codes(figures, errors)),
        ("slowest hosts", _with_heads(_hosts(figures.slowest))),
        ("hosts with failures", _with_heads(_hosts(figures.failing))),
        ("hosts that gave trouble", [[describe_trouble(host)] for host in figures.troubled]),
    ]
    for title, rows in tables:
        if rows:
            lines += ["", title, *_aligned(rows)]
    return "\n".join([*lines, ""])


def _with_heads(rows: list[list[str]]) -> list[list[str]]:
    return [HEADS["slowest hosts"], *rows] if rows else []


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
    shard = f" (shard {figures.shard})" if figures.shard is not None else ""
    return f"{figures.job}{shard}: {state}{retry}"


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


def _codes(figures: JobReport | ShardsReport, most: int) -> list[list[str]]:
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
