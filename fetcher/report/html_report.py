"""The page of a job, of the shards of a list, or of several jobs side by side: what is on it, and in which order.

Law 1: its figures are those of ``--json``, unrounded in the value of a ``data`` element. Law 7: what comes from the
web, from a list or from a ledger is text, put into the page through ``escaped`` and in no other way. Tables are cut to
what a person reads, so that a million rows make a page of some hundred kilobytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from fetcher.drawing.document import Tile, alert, document, facts_of, figure, page_header, section, tiles_of
from fetcher.drawing.formatting import UNKNOWN, counted, duration, escaped, html_date, percent, significant, size
from fetcher.drawing.svg import details, table
from fetcher.hosts.state import HostReport
from fetcher.job.report import HostFigures, JobReport
from fetcher.job.shards import ShardsReport
from fetcher.report.charts import draw_latency, draw_life, draw_numbers, draw_sizes, ending_of, quantile_text
from fetcher.report.job_page import JobPage
from fetcher.report.records import RecordSums, shown
from fetcher.topics import advice_for

__all__ = ["render_comparison", "render_job", "render_shards"]

_BACKQUOTED = re.compile("`([^`]+)`")
SHOWN_CODES = 40
SHOWN_HOSTS = 25
SHOWN_RUNS = 50
SHOWN_COLUMNS = 60
SHOWN_HISTOGRAMS = 24
SHOWN_TYPES = 12
CELL = 120
MAX_LABEL = 16
_FOOTER = "Made by <code>fetcher report --html</code>. The figures are those of <code>--json</code>."
_STATES = {
    "complete": "complete",
    "running": "still running",
    "stopped": "stopped, and the same command continues",
    "interrupted": "interrupted: its last run was killed, and the same command continues",
}


def render_job(page: JobPage) -> str:
    """Return the page of one job (UTF-8)."""
    figures = page.figures
    title = _title(figures.ok, figures.input, more=figures.more)
    shard = f" It is shard {escaped(figures.shard)}." if figures.shard is not None else ""
    lede = f"<bdi>{escaped(figures.job, 300)}</bdi> is {_STATES[figures.state]}.{shard} {_worst(figures.codes, figures.done)}"
    jobs = [("", page)]
    main = [
        _asked(page),
        _life(jobs),
        _runs(figures),
        _failures(figures.codes, figures.done, page.records),
        _distributions(jobs),
        _hosts(figures.slowest, figures.failing, figures.troubled, figures.hosts),
        _refused(page.refused),
        _fields(page.records),
    ]
    header = page_header(
        "fetcher report", html_date(page.made), title, lede, _alerts([page]) + tiles_of(_tiles(figures))
    )
    return document(f"{title} – fetcher report", header, "".join(main), _FOOTER)


def render_shards(sums: ShardsReport, pages: Sequence[JobPage]) -> str:
    """Return the page of the shards of one list, added up; the pages share their ``records``."""
    title = _title(sums.ok, sums.input, more=sums.more)
    missing = f" Not given: shard {escaped(', '.join(sums.missing[:20]))}." if sums.missing else ""
    lede = f"{counted(len(pages), 'shard')} of {sums.of:,}: {_STATES[sums.state]}.{missing} {_worst(sums.codes, sums.done)}"
    names = [(f"shard {page.figures.shard}", page) for page in pages]
    rows = [
        [
            escaped(each.shard),
            escaped(each.state),
            *(f"{many:,}" for many in (each.input, each.ok, each.failed, each.skipped)),
            significant(each.pages_per_second),
            duration(each.seconds),
            f"<bdi>{escaped(each.job, CELL)}</bdi>",
        ]
        for each in sums.shards
    ]
    heads = ["Shard", "State", "Rows", "Pages", "Failed", "Skipped", "Pages/s", "Time", "Job"]
    notes = "".join(f"<li>{escaped(note)}</li>" for note in sums.notes)
    refused: dict[str, int] = {}
    for page in pages:
        for host, many in page.refused:
            refused[host] = refused.get(host, 0) + many
    main = [
        section("shards", "The shards", table("Each shard, as of its own ledger", heads, rows, "shards-table")),
        _asked(pages[0]),
        _life(names),
        _failures(sums.codes, sums.done, pages[0].records),
        _distributions(names),
        _hosts(sums.slowest, sums.failing, sums.troubled, sums.hosts),
        _refused(sorted(refused.items(), key=lambda pair: -pair[1])),
        _fields(pages[0].records),
    ]
    told = alert("warn", "noted", "What does not fit", f"<ul>{notes}</ul>") if notes else ""
    header = page_header(
        "fetcher report", html_date(pages[0].made), title, lede, told + _alerts(pages) + tiles_of(_tiles(sums))
    )
    return document(f"{title} – fetcher report", header, "".join(main), _FOOTER)


def render_comparison(pages: Sequence[JobPage]) -> str:
    """Return the page of several jobs side by side, in the order in which they are given: yesterday, and today."""
    first, last = pages[0].figures, pages[-1].figures
    names = [(f"{number}. {_short(page.figures.job)}", page) for number, page in enumerate(pages, 1)]
    title = f"{len(pages):,} jobs, side by side"
    lede = (
        f"From the first to the last: pages {_change(first.ok, last.ok)}, failures {_change(first.failed, last.failed)}, "
        f"pages a second {_change(first.pages_per_second, last.pages_per_second)}."
    )
    main = [
        _side_by_side(names),
        _codes_compared(names),
        _life(names),
        _distributions(names),
        _hosts_compared(names),
        _fields_compared(names),
    ]
    header = page_header("fetcher report", html_date(pages[-1].made), title, lede, _alerts(pages))
    return document(f"{title} – fetcher report", header, "".join(main), _FOOTER)


# The head


def _title(ok: int, rows: int, *, more: bool) -> str:
    return f"{ok:,} of {rows:,}{' and more' if more else ''} rows are pages" if rows else "No row has an outcome yet"


def _worst(codes: dict[str, int], done: int) -> str:
    if not codes or not done:
        return "Nothing failed." if done else "Nothing was fetched yet."
    code, many = next(iter(codes.items()))
    return f"What failed or was skipped most is <code>{escaped(code, 60)}</code>: {many:,}, {percent(many / done)}."


def _tiles(figures: JobReport | ShardsReport) -> list[Tile]:
    left = "all done" if figures.left == 0 else UNKNOWN if figures.left is None else f"about {figures.left:,} left"
    if figures.left is None:
        left = "how many are left is not known"
    done = figures.done or 1
    return [
        ("Rows", "input", figures.input, f"{figures.input:,}", f"{left}, {figures.pending:,} pending"),
        ("Pages", "ok", figures.ok, f"{figures.ok:,}", percent(figures.ok / done)),
        ("Failed", "failed", figures.failed, f"{figures.failed:,}", percent(figures.failed / done)),
        ("Skipped", "skipped", figures.skipped, f"{figures.skipped:,}", percent(figures.skipped / done)),
        (
            "Pages a second",
            "pages_per_second",
            figures.pages_per_second,
            significant(figures.pages_per_second),
            "over all runs",
        ),
        ("Time at work", "seconds", figures.seconds, duration(figures.seconds), "without the pauses between runs"),
        ("Bytes", "bytes", figures.bytes, size(figures.bytes), "of bodies, decoded"),
        ("Hosts", "hosts", figures.hosts, f"{figures.hosts:,}", "that rows were of"),
    ]


def _alerts(pages: Sequence[JobPage]) -> str:
    """Return what the reader must know before the figures."""
    notes = []
    troubles: dict[str, None] = {}
    for page in pages:
        figures = page.figures
        named = f"<bdi>{escaped(figures.job, CELL)}</bdi>"
        if figures.state == "running":
            notes.append(f"{named} is being worked on: what is told is of its last commit.")
        if figures.run_count and not figures.done:
            notes.append(f"{named} has no outcome yet.")
        if page.pace is None:
            notes.append(f"How fast {named} went over time is not known: an older version made its ledger.")
        if figures.retrying:
            notes.append(f"{named} takes up again what failed: {escaped(', '.join(figures.retrying[:10]), CELL)}.")
        if page.records.unread:
            notes.append(f"{counted(page.records.unread, 'line')} of the output could not be read.")
        troubles |= dict.fromkeys(page.records.trouble)
    notes += [f"Of its rows not all is told: {escaped(trouble, 400)}." for trouble in troubles]
    items = "".join(f"<li>{note}</li>" for note in dict.fromkeys(notes))
    return alert("warn", "told", "To keep in mind", f"<ul>{items}</ul>") if items else ""


def _asked(page: JobPage) -> str:
    listed = ", ".join(page.inputs[:10]) or "rows of a program"
    more = f" and {len(page.inputs) - 10:,} more" if len(page.inputs) > 10 else ""
    outputs = ", ".join(output.path for output in page.figures.outputs[:5])
    facts = [
        ("List", escaped(listed + more, 500)),
        ("Outputs", escaped(outputs, 500)),
        *((f"<code>{escaped(flag)}</code>", escaped(value, 300)) for flag, value in page.asked),
    ]
    return section("asked", "What was asked", facts_of(facts))


# What failed


def _failures(codes: dict[str, int], done: int, records: RecordSums) -> str:
    """Return each code with its share, what it means, what to do about it, and rows that ended with it."""
    if not codes:
        return ""
    rows = []
    for code, many in list(codes.items())[:SHOWN_CODES]:
        advice = advice_for(code)
        examples = "".join(
            f"<li><bdi>{escaped(example.url, 200)}</bdi><small>{escaped(example.message, 200)}</small></li>"
            for example in records.examples.get(code, ())
        )
        listed = f"<ul>{examples}</ul>" if examples else ""
        rows.append(
            f'<div class="failure"><h3><code>{escaped(code, 60)}</code> <data id="code-{escaped(code, 60)}" value="{many}">'
            f"{many:,}</data> <small>{percent(many / max(1, done))}</small></h3>"
            f"<p>{_with_code(advice.meaning)} <b>{_with_code(advice.do)}</b></p>{listed}</div>"
        )
    rest = len(codes) - SHOWN_CODES
    more = f'<p class="note">{counted(rest, "more code")} in <code>--json</code>.</p>' if rest > 0 else ""
    return section("failures", "What failed, and what to do", f'<div class="failures">{"".join(rows)}</div>{more}')


def _with_code(text: str) -> str:
    """Return a text of ours in HTML: what stands in backquotes is typed, and is not broken at its hyphens."""
    return _BACKQUOTED.sub(r"<code>\1</code>", escaped(text))


# How it went


def _life(jobs: Sequence[tuple[str, JobPage]]) -> str:
    caption = (
        "Pages done a second, run after run; the pauses between them are left out. A dashed line is where a run was killed, "
        "a plain one where it ended and another went on."
    )
    return figure("life-of", "How it went over time", caption, draw_life(jobs))


def _runs(figures: JobReport) -> str:
    """Return the runs of a job, with the pause before each."""
    rows = []
    before: float | None = None
    for run in figures.runs:
        began = datetime.fromisoformat(run.began).timestamp()
        pause = UNKNOWN if before is None else _pause(began - before)
        rows.append(
            [f"{run.number:,}", html_date(run.began), pause, duration(run.seconds), f"{run.ok:,}",
             significant(run.pages_per_second), escaped(ending_of(run, figures))]
        )  # fmt: skip
        before = began + run.seconds
    if not rows:
        return ""
    many = f" (the last {SHOWN_RUNS:,} of {figures.run_count:,})" if figures.run_count > SHOWN_RUNS else ""
    heads = ["Run", "Began", "Pause before", "Time", "Pages", "Pages/s", "How it ended"]
    return section("runs", "Its runs", table(f"Each run{many}", heads, rows[-SHOWN_RUNS:], "runs-table"))


def _pause(seconds: float) -> str:
    """Return the time between two runs; that a run began is known to the second."""
    if seconds < -1:
        return "the clock was set back"
    return "under 2 s" if seconds < 1 else duration(seconds)


def _distributions(jobs: Sequence[tuple[str, JobPage]]) -> str:
    halves = figure(
        "how-long",
        "How long a row takes",
        "Time on the wire, all tries and redirects of a row together. The lines mark p50, p95 and p99.",
        draw_latency(jobs),
    ) + figure("how-large", "How large a page is", "Bytes of the body, decoded.", draw_sizes(jobs))
    return f'<div class="halves">{halves}</div>' if halves else ""


# Hosts


def _hosts(
    slowest: Sequence[HostFigures], failing: Sequence[HostFigures], troubled: Sequence[HostReport], many: int
) -> str:
    heads = ["Host", "Mean", "Rows", "Failed", "Bytes"]
    parts = ""
    for key, caption, hosts in (
        ("slow", "The slowest, by their mean", slowest),
        ("failing", "The most failures", failing),
    ):
        if hosts:
            parts += table(caption, heads, [_host_cells(host) for host in hosts[:SHOWN_HOSTS]], f"{key}-hosts")
    if troubled:
        rows = [_trouble_cells(host) for host in troubled[:SHOWN_HOSTS]]
        names = ["Host", "Requests", "Throttled us", "Silent", "Slow", "Denied", "Parked", "It bears", "Given up"]
        parts += table("Slow, throttled, parked or denied, in the last run", names, rows, "troubled-hosts")
    if not parts:
        return ""
    note = f'<p class="note">{counted(many, "host")} in all.</p>'
    return section("hosts-of", "Hosts", note + parts)


def _host_cells(host: HostFigures) -> list[str]:
    name = f"<bdi>{escaped(host.host, CELL)}</bdi>" if host.host else "(no host)"
    return [name, duration(host.elapsed), f"{host.rows:,}", f"{host.failed:,}", size(host.bytes)]


def _trouble_cells(host: HostReport) -> list[str]:
    bears = [f"{host.ceiling:,} at once"] if host.ceiling is not None else []
    bears += [f"one in {duration(host.spacing)}"] if host.spacing else []
    return [
        f"<bdi>{escaped(host.host, CELL)}</bdi>",
        *(f"{many:,}" for many in (host.requests, host.refused, host.failed, host.slow, host.denied)),
        duration(host.parked) if host.parked else UNKNOWN,
        ", ".join(bears) or UNKNOWN,
        escaped(host.given_up, CELL) if host.given_up else UNKNOWN,
    ]


def _refused(refused: Sequence[tuple[str, int]]) -> str:
    if not refused:
        return ""
    rows = [[f"<bdi>{escaped(host, CELL)}</bdi>", f"{many:,}"] for host, many in refused[:SHOWN_HOSTS]]
    note = '<p class="note">URLs that the robots.txt of their host forbids us: they were not asked for.</p>'
    listed = table("Hosts with the most such URLs", ["Host", "URLs"], rows, "refused-table")
    return section("refused", "What robots.txt refused", note + listed)


# Fields


def _fields(records: RecordSums) -> str:
    """Return how full each column is, their numbers, and some rows."""
    if not records.pages:
        return ""
    rows = [
        [f"<bdi>{escaped(name, 60)}</bdi>", percent(many / records.pages), f"{many:,}", UNKNOWN, ""]
        for name, many in records.whole.items()
    ]
    columns = list(records.columns.items())
    for name, column in columns[:SHOWN_COLUMNS]:
        kinds = ", ".join(kind for kind, _ in column.kinds.most_common(3))
        example = (
            f"{significant(column.low)} to {significant(column.high)}"
            if column.numbers.count
            else escaped(column.example, 60)
        )
        rows.append(
            [f"<bdi>{escaped(name, 60)}</bdi>", percent(column.filled / records.pages), f"{column.filled:,}",
             kinds or UNKNOWN, f"<bdi>{example}</bdi>"]
        )  # fmt: skip
    rest = len(columns) - SHOWN_COLUMNS
    more = f", {rest:,} more are left out" if rest > 0 else ""
    filled = table(
        f"Of {counted(records.pages, 'page')}{more}",
        ["Column", "Full", "Pages", "Values", "For example"],
        rows,
        "fields-table",
    )
    numbers = [(name, column.numbers.values) for name, column in columns if column.numbers.count]
    plots = "".join(
        f'<div class="panel"><h3><bdi>{escaped(name, 60)}</bdi></h3>{draw_numbers(f"numbers-{at}", name[:60], values)}</div>'
        for at, (name, values) in enumerate(numbers[:SHOWN_HISTOGRAMS])
    )
    note = '<p class="note">Numbers of a sample of each column; the line is the middle.</p>'
    drawn = f'{note}<div class="pair">{plots}</div>' if plots else ""
    return section("fields", "What is on the pages", filled + drawn + _example_rows(records) + _types(records))


def _example_rows(records: RecordSums) -> str:
    names = list(records.columns)[:8]
    rows = []
    for line in sorted(records.rows_shown.values, key=lambda line: str(line.url)):
        data = line.data if isinstance(line.data, dict) else {}
        cells = (line.title, *(data.get(name) for name in names))
        rows.append([f"<bdi>{escaped(line.url, CELL)}</bdi>", f"{line.status or UNKNOWN}", *map(_cell, cells)])
    heads = ["URL", "Status", "Title", *(f"<bdi>{escaped(name, 40)}</bdi>" for name in names)]
    return table("Five pages, taken by chance" if len(rows) > 4 else "Pages", heads, rows, "rows-table") if rows else ""


def _cell(value: object) -> str:
    return UNKNOWN if value is None else f"<bdi>{escaped(shown(value), 80)}</bdi>"


def _types(records: RecordSums) -> str:
    rows = [
        [escaped(kind, 60) or "of no type", f"{many:,}", percent(many / records.pages)]
        for kind, many in records.types.most_common(SHOWN_TYPES)
    ]
    return details("Content types", table("Pages by content type", ["Type", "Pages", "Share"], rows, "types-table"))


# Several jobs


def _short(job: str) -> str:
    """Return what a job is called beside others: by its output, as short as a label on a phone must be."""
    name = job.rstrip("/").rpartition("/")[2].removesuffix(".job")
    return name if len(name) <= MAX_LABEL else f"{name[: MAX_LABEL - 1]}…"


def _change(before: float, after: float) -> str:
    """Return what became of a figure: ``120 → 150 (+25.0 %)``."""
    shown_before, shown_after = (
        f"{value:,}" if isinstance(value, int) else significant(value) for value in (before, after)
    )
    if before == after:
        return f"{shown_after}, unchanged"
    share = f" ({(after - before) / before * 100:+.1f}\xa0%)" if before else ""
    return f"{shown_before} → {shown_after}{share}"


def _side_by_side(jobs: Sequence[tuple[str, JobPage]]) -> str:
    rows = []
    for number, (name, page) in enumerate(jobs, 1):
        figures = page.figures
        counts = [
            f'<data id="job-{number}-{key}" value="{getattr(figures, key)}">{getattr(figures, key):,}</data>'
            for key in ("input", "ok", "failed", "skipped")
        ]
        rows.append(
            [f"<bdi>{escaped(name, CELL)}</bdi><small><bdi>{escaped(figures.job, 60)}</bdi></small>", escaped(figures.state), *counts, significant(figures.pages_per_second),
             duration(figures.seconds), size(figures.bytes), f"{figures.hosts:,}",
             quantile_text(page.latency, 0.5), quantile_text(page.latency, 0.95)]
        )  # fmt: skip
    heads = ["Job", "State", "Rows", "Pages", "Failed", "Skipped", "Pages/s", "Time", "Bytes", "Hosts", "p50", "p95"]
    return section("jobs", "Side by side", table("Each job, all its runs together", heads, rows, "jobs-table"))


def _codes_compared(jobs: Sequence[tuple[str, JobPage]]) -> str:
    codes: dict[str, int] = {}
    for _, page in jobs:
        for code, many in page.figures.codes.items():
            codes[code] = max(many, codes.get(code, 0))
    rows = []
    for code in sorted(codes, key=lambda code: -codes[code])[:SHOWN_CODES]:
        counts = [page.figures.codes.get(code, 0) for _, page in jobs]
        cells = [f"{many:,}" for many in counts]
        rows.append(
            [
                f"<code>{escaped(code, 60)}</code>",
                *cells,
                f"{counts[-1] - counts[0]:+,}",
                _with_code(advice_for(code).do),
            ]
        )
    heads = ["Code", *(escaped(name, 50) for name, _ in jobs), "Change", "What to do"]
    return (
        section("codes", "What failed", table("Failed or skipped, by code", heads, rows, "codes-table")) if rows else ""
    )


def _hosts_compared(jobs: Sequence[tuple[str, JobPage]]) -> str:
    """Return the hosts whose failures or mean time differ most between the first job and the last."""
    ends = [
        {host.host: host for host in (*page.figures.slowest, *page.figures.failing)} for _, page in (jobs[0], jobs[-1])
    ]
    both = [(ends[0][host], ends[1][host]) for host in ends[0] if host in ends[1]]
    both.sort(key=lambda pair: (-abs(pair[1].failed - pair[0].failed), -abs(pair[1].elapsed - pair[0].elapsed)))
    rows = [
        [f"<bdi>{escaped(one.host, CELL) or '(no host)'}</bdi>", f"{one.failed:,} → {other.failed:,}",
         f"{duration(one.elapsed)} → {duration(other.elapsed)}", f"{one.rows:,} → {other.rows:,}"]
        for one, other in both[:SHOWN_HOSTS]
        if (one.failed, one.rows) != (other.failed, other.rows) or abs(one.elapsed - other.elapsed) > 0.001
    ]  # fmt: skip
    if not rows:
        return ""
    caption = "Of the slowest and the failing of both, those that differ most"
    listed = table(caption, ["Host", "Failed", "Mean", "Rows"], rows, "hosts-table")
    return section("hosts-of", "Hosts, from the first job to the last", listed)


def _fields_compared(jobs: Sequence[tuple[str, JobPage]]) -> str:
    names = dict.fromkeys(name for _, page in jobs for name in (*page.records.whole, *page.records.columns))
    rows = []
    for name in list(names)[:SHOWN_COLUMNS]:
        shares = [_full(page.records, name) for _, page in jobs]
        first, last = shares[0], shares[-1]
        change = UNKNOWN if first is None or last is None else f"{(last - first) * 100:+.1f} points"
        rows.append(
            [f"<bdi>{escaped(name, 60)}</bdi>", *(percent(share) for share in shares),
             change]
        )  # fmt: skip
    heads = ["Column", *(escaped(name, 50) for name, _ in jobs), "Change"]
    return (
        section("fields", "How full the columns are", table("Share of the pages", heads, rows, "fields-table"))
        if rows
        else ""
    )


def _full(records: RecordSums, name: str) -> float | None:
    if not records.pages:
        return None
    column = records.columns.get(name)
    many = column.filled if column is not None else records.whole.get(name)
    return None if many is None else many / records.pages
