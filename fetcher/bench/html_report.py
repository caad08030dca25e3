"""The report of a bench as one HTML page that loads nothing (``drawing/``): what is on it, and in which order."""

from __future__ import annotations

import shlex

from fetcher.bench.charts import draw_latency, draw_speed_up, draw_throughput, draw_timeline
from fetcher.bench.conclusions import Headline, headline_of
from fetcher.bench.formatting import mode_flag, mode_label, spread
from fetcher.bench.results import Mode, Report, Round, Spread
from fetcher.drawing.document import Tile, alert, document, facts_of, figure, page_header, tiles_of
from fetcher.drawing.formatting import (
    UNKNOWN,
    counted,
    duration,
    escaped,
    html_date,
    multiple,
    percent,
    significant,
    size,
)
from fetcher.drawing.svg import details, table

__all__ = ["render_html"]

MAX_MISMATCHES_SHOWN = 100


def render_html(report: Report) -> str:
    """Return the report as a self-contained HTML page (UTF-8)."""
    headline = headline_of(report)
    compared = headline.baseline is not None and headline.baseline is not headline.best
    sections = [
        figure(
            "when",
            "When each request ran",
            "A bar is a request's time on the wire, all its tries as one; a line of bars is a slot. Where it is blank, "
            "the slot stood empty: nothing was left, or what was left had to wait (a backoff, a limit for each host)."
            + (" Both modes are shown over the same stretch of time." if compared else ""),
            draw_timeline(report, headline),
        ),
        '<div class="halves">',
        figure(
            "how-many",
            "What concurrency buys",
            "Ideal is as many times as requests at once. Possible is what these answer times and the limit for each "
            "host allow, by greedy scheduling and without a wait. The filled point is the recommended concurrency.",
            draw_speed_up(report, headline),
        ),
        figure(
            "how-long",
            "How long a request takes",
            "Time on the wire over all rounds. The lines mark p50, p95 and p99. If answers slow down as more are asked "
            "for at once, it shows here.",
            draw_latency(report),
        ),
        "</div>",
        figure(
            "how-steady",
            "How steadily pages come",
            "Pages done per second, from the start of a run to its end; each strip has axes of its own, the line is its "
            "mean. A tail on the right is waiting for the last pages.",
            draw_throughput(report),
        ),
        _modes(report, headline),
        _conditions(report),
    ]
    return document(
        f"{headline.title} – fetcher bench",
        _header(report, headline),
        "".join(sections),
        "Made by <code>fetcher bench --html</code>. Every raw time is in the file of <code>--json</code>.",
    )


def _header(report: Report, headline: Headline) -> str:
    return page_header(
        "fetcher bench",
        html_date(report.machine.date),
        headline.title,
        escaped(headline.sentence),
        f"{_alerts(report)}{_tiles(report, headline)}",
    )


def _tiles(report: Report, headline: Headline) -> str:
    """Return the main figures, each with its unrounded number in the value of a ``data`` element."""
    best = headline.best
    if best is None:
        return ""
    speed, before = best.speed_up.median if best.speed_up else None, headline.baseline
    ends = spread(best.speed_up, "times")[1]
    rounds = (
        f"{ends} over {counted(best.rounds, 'round')}, {mode_label(best.mode, best.concurrency)}".strip()
        if ends or speed
        else ""
    )
    chosen = report.recommended
    why = "needs two concurrencies" if chosen is None else "requests at once: the least within 5\xa0% of the best time"
    pages = best.pages_per_second
    row = (
        f"{significant(before.pages_per_second)} one after another"
        if before and before is not best
        else mode_label(best.mode, best.concurrency)
    )
    tiles: list[Tile] = [
        ("Speed-up", "speed-up", speed, multiple(speed), rounds or "no baseline was run"),
        ("Efficiency", "efficiency", best.efficiency, percent(best.efficiency), "least possible time over time taken"),
        ("Recommended", "recommended", chosen, UNKNOWN if chosen is None else f"{chosen:,}", why),
        ("Pages a second", "pages-per-second", pages, significant(pages), row),
    ]
    return tiles_of(tiles)


def _alerts(report: Report) -> str:
    """Return what the reader must know before the figures: pages that differ, a run cut short, warnings."""
    alerts = ""
    if report.mismatches:
        shown = report.mismatches[:MAX_MISMATCHES_SHOWN]
        rest = len(report.mismatches) - len(shown)
        rows = [
            [
                f"row {m.id:,}",
                f"<bdi>{escaped(m.url, 300)}</bdi>",
                escaped(m.expected, 100),
                escaped(m.got, 100),
                mode_label(m.mode, m.concurrency),
            ]
            for m in shown
        ]
        listed = table("What each saw", ["Row", "URL", "Expected", "Got", "In"], rows, "mismatches")
        more = f"<p>{counted(rest, 'more')[: -1 if rest > 1 else None]} in the JSON.</p>" if rest else ""
        alerts += alert(
            "bad",
            "differ",
            "The modes got different pages",
            f"<p>{counted(len(report.mismatches), 'difference')}: the times below do not compare the same work.</p>"
            f"{listed}{more}",
        )
    if not report.complete:
        alerts += alert(
            "warn", "cut", "The bench was cut short", "<p>What is shown is of the rounds that were complete.</p>"
        )
    if report.warnings:
        items = "".join(f"<li>{escaped(warning)}</li>" for warning in report.warnings)
        alerts += alert("warn", "warned", "To keep in mind", f"<ul>{items}</ul>")
    return alerts


def _modes(report: Report, headline: Headline) -> str:
    if not report.modes:
        return ""
    heads = [
        "Mode", "Time", "Pages/s", "Speed-up", "Efficiency", "p50", "p95", "p99",
        "CPU/page", "Bytes", "Peak<br>memory", "In<br>flight", "Failures",
    ]  # fmt: skip
    rows = [
        _mode_cells(mode, badge=mode.concurrency == report.recommended and mode is headline.best)
        for mode in report.modes
    ]
    listed = table("Medians over the counted rounds, with the range below", heads, rows, "modes-table")
    note = (
        '<p class="note">Bytes are those of a round, in flight is the most that the server saw; – was not measured.</p>'
    )
    cells = [_round_cells(round_) for round_ in report.rounds]
    heads = ["Round", "Mode", "Time", "CPU", "Peak memory", "In flight", "Rows", "Failures"]
    rounds = (
        details("Every round", table("In the order they ran, warm-ups included", heads, cells, "rounds-table"))
        if cells
        else ""
    )
    parts = f"{note}{listed}{_failures(report)}{rounds}"
    return f'<section aria-labelledby="modes"><h2 id="modes">All modes</h2>{parts}</section>'


def _failures(report: Report) -> str:
    """Return a table of failures by code, over the counted rounds; empty without one."""
    codes = sorted({code for mode in report.modes for code in mode.failures})
    if not codes:
        return ""
    rows = [[escaped(code, 60), *(f"{mode.failures.get(code, 0):,}" for mode in report.modes)] for code in codes]
    return table(
        "Failures by code, over the counted rounds",
        ["Code", *(mode_label(mode.mode, mode.concurrency) for mode in report.modes)],
        rows,
        "failures-table",
    )


def _mode_cells(mode: Mode, *, badge: bool) -> list[str]:
    flag = mode_flag(mode.mode, mode.concurrency).replace(" ", "\xa0")
    return [
        f"{mode_label(mode.mode, mode.concurrency)}<small>{flag}, {counted(mode.rounds, 'round')}</small>"
        + ('<span class="badge">recommended</span>' if badge else ""),
        _ranged(mode.wall, "seconds"),
        significant(mode.pages_per_second),
        _ranged(mode.speed_up, "times"),
        percent(mode.efficiency),
        *(duration(mode.latency.get(name)) for name in ("p50", "p95", "p99")),
        duration(mode.cpu_ms_per_page / 1000),
        size(mode.bytes / max(1, mode.rounds)),
        size(mode.peak_memory),
        UNKNOWN if mode.most_in_flight is None else f"{mode.most_in_flight:,}",
        f"{sum(mode.failures.values()):,}",
    ]


def _ranged(value: Spread | None, unit: str) -> str:
    median, ends = spread(value, unit)
    return f"{median}<small>{ends}</small>" if ends else median


def _round_cells(round_: Round) -> list[str]:
    failed = sum(sample.code is not None for sample in round_.samples)
    return [
        "warm-up" if round_.warm_up else f"{round_.index:,}",
        mode_label(round_.mode, round_.concurrency),
        duration(round_.wall),
        duration(round_.cpu),
        size(round_.peak_memory),
        UNKNOWN if round_.most_in_flight is None else f"{round_.most_in_flight:,}",
        f"{len(round_.samples):,}",
        f"{failed:,}",
    ]


def _conditions(report: Report) -> str:
    machine = report.machine
    facts = [
        ("List", escaped(report.source, 500)),
        ("Rows", f"{report.rows:,} from {counted(report.hosts, 'host')}"),
        ("For each host", f"at most {report.per_host:,} at once"),
        ("fetcher", escaped(machine.fetcher, 60)),
        ("aiohttp", escaped(machine.aiohttp, 60)),
        ("Python", f"{escaped(machine.python, 60)}, {escaped(machine.loop, 60)}"),
        ("Machine", f"{escaped(machine.platform, 200)}, {counted(machine.cpus, 'CPU')}"),
        ("Date", html_date(machine.date)),
    ]
    command = escaped(shlex.join(report.command))
    return (
        '<section aria-labelledby="how"><h2 id="how">How it was measured</h2>'
        f'<pre aria-label="Command" tabindex="0"><code>{command}</code></pre>{facts_of(facts)}</section>'
    )
