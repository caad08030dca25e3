"""The picture of a bench: a report as one HTML page that asks nobody for anything.

Laws: no script, no request, no font or image from anywhere, and a policy in the page that forbids them, so that it can
be opened from a mail as well as from a disk. Law 7: every text of the report is escaped (``wording.escaped``).

The charts are drawn by a few hundred lines of our own (``drawing``, ``charts``, ``timeline``) rather than by a plotting
library, since that makes the better page: plotly puts 4.5 MB of script into each one, matplotlib draws pictures of
fixed width and one theme whose text shrinks on a phone, and both would be a dependency of every installation. This page
is some 50 KB for three modes of 200 rows, follows the reader's theme, and is read out by a screen reader.
"""

from __future__ import annotations

import base64
import hashlib
import shlex

from fetcher.bench.charts import draw_latency, draw_speed_up, draw_throughput
from fetcher.bench.drawing import details, table
from fetcher.bench.findings import Findings, find
from fetcher.bench.results import Mode, Report, Round, Spread
from fetcher.bench.stylesheet import style
from fetcher.bench.timeline import draw
from fetcher.bench.wording import (
    UNKNOWN,
    counted,
    duration,
    escaped,
    labelled,
    moment,
    multiple,
    percent,
    significant,
    size,
    spread,
)

__all__ = ["render"]

MOST_MISMATCHES = 100
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Cpath d='M1 4h14M1 8h6M1 12h3' stroke='%231b61b8' stroke-width='3'/%3E%3C/svg%3E"
)


def render(report: Report) -> str:
    """Return the report as a self-contained HTML page (UTF-8)."""
    findings = find(report)
    compared = findings.baseline is not None and findings.baseline is not findings.best
    sections = [
        _figure(
            "when",
            "When each request ran",
            "A bar is a request's time on the wire, all its tries as one; a line of bars is a slot. Where it is blank, "
            "the slot stood empty: nothing was left, or what was left had to wait (a backoff, a limit for each host)."
            + (" Both modes are shown over the same stretch of time." if compared else ""),
            draw(report, findings),
        ),
        '<div class="halves">',
        _figure(
            "how-many",
            "What concurrency buys",
            "Ideal is as many times as requests at once. Possible is what these answer times and the limit for each "
            "host allow, by greedy scheduling and without a wait. The filled point is the recommended concurrency.",
            draw_speed_up(report, findings),
        ),
        _figure(
            "how-long",
            "How long a request takes",
            "Time on the wire over all rounds. The lines mark p50, p95 and p99. If answers slow down as more are asked "
            "for at once, it shows here.",
            draw_latency(report),
        ),
        "</div>",
        _figure(
            "how-steady",
            "How steadily pages come",
            "Pages done per second, from the start of a run to its end; each strip has axes of its own, the line is its "
            "mean. A tail on the right is waiting for the last pages.",
            draw_throughput(report),
        ),
        _modes(report, findings),
        _conditions(report),
    ]
    return _page(findings, _header(report, findings), "".join(sections))


def _page(findings: Findings, header: str, main: str) -> str:
    sheet = style()
    known = base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{known}'; img-src data:; base-uri 'none'; form-action 'none'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f'<title>{escaped(findings.title)} – fetcher bench</title>\n<link rel="icon" href="{_ICON}">\n'
        f"<style>{sheet}</style>\n</head>\n<body>\n<header>{header}</header>\n<main>{main}</main>\n"
        "<footer><p>Made by <code>fetcher bench --html</code>. Every raw time is in the file of <code>--json</code>. "
        "This page runs no script and asks no server for anything.</p></footer>\n</body>\n</html>\n"
    )


def _header(report: Report, findings: Findings) -> str:
    themes = "".join(
        f'<label><input type="radio" name="theme" id="{name.lower()}"{" checked" if name == "System" else ""}>{name}</label>'
        for name in ("System", "Light", "Dark")
    )
    return (
        f'<div class="top"><p><strong>fetcher bench</strong> · {moment(report.machine.date)}</p>'
        f'<div class="theme" role="radiogroup" aria-label="Theme">{themes}</div></div>'
        f'<h1>{escaped(findings.title)}</h1><p class="lede">{escaped(findings.sentence)}</p>'
        f"{_alerts(report)}{_tiles(report, findings)}"
    )


def _tiles(report: Report, findings: Findings) -> str:
    """Return the headline figures, each with the report's own number in ``data``'s value."""
    best = findings.best
    if best is None:
        return ""
    speed, before = best.speed_up.median if best.speed_up else None, findings.baseline
    ends = spread(best.speed_up, "times")[1]
    rounds = f"{ends} over {counted(best.rounds, 'round')}, {labelled(best)}".strip() if ends or speed else ""
    chosen = report.recommended
    why = "needs two concurrencies" if chosen is None else "requests at once: the least within 5\xa0% of the best time"
    pages = best.pages_per_second
    row = (
        f"{significant(before.pages_per_second)} one after another" if before and before is not best else labelled(best)
    )
    tiles: list[tuple[str, str, float | None, str, str]] = [
        ("Speed-up", "speed-up", speed, multiple(speed), rounds or "no baseline was run"),
        ("Efficiency", "efficiency", best.efficiency, percent(best.efficiency), "least possible time over time taken"),
        ("Recommended", "recommended", chosen, UNKNOWN if chosen is None else f"{chosen:,}", why),
        ("Pages a second", "pages-per-second", pages, significant(pages), row),
    ]
    cells = "".join(
        f'<div><dt>{name}</dt><dd><data id="{key}" value="{"" if value is None else repr(value)}">{shown}</data></dd>'
        f"<dd>{note}</dd></div>"
        for name, key, value, shown, note in tiles
    )
    return f'<dl class="tiles">{cells}</dl>'


def _alerts(report: Report) -> str:
    """Return what the reader must know before any figure: differing pages, a run cut short, warnings."""
    alerts = ""
    if report.mismatches:
        shown = report.mismatches[:MOST_MISMATCHES]
        rest = len(report.mismatches) - len(shown)
        rows = [
            [
                f"row {m.id:,}",
                f"<bdi>{escaped(m.url, 300)}</bdi>",
                escaped(m.expected, 100),
                escaped(m.got, 100),
                _who(m.mode, m.concurrency),
            ]
            for m in shown
        ]
        listed = table("What each saw", ["Row", "URL", "Expected", "Got", "In"], rows, "mismatches")
        more = f"<p>{counted(rest, 'more')[: -1 if rest > 1 else None]} in the JSON.</p>" if rest else ""
        alerts += (
            '<section class="alert bad" aria-labelledby="differ"><h2 id="differ">The modes got different pages</h2>'
            f"<p>{counted(len(report.mismatches), 'difference')}: the times below do not compare the same work.</p>"
            f"{listed}{more}</section>"
        )
    if not report.complete:
        alerts += (
            '<section class="alert warn" aria-labelledby="cut"><h2 id="cut">The bench was cut short</h2>'
            "<p>What is shown is of the rounds that were complete.</p></section>"
        )
    if report.warnings:
        items = "".join(f"<li>{escaped(warning)}</li>" for warning in report.warnings)
        alerts += f'<section class="alert warn" aria-labelledby="warned"><h2 id="warned">To keep in mind</h2><ul>{items}</ul></section>'
    return alerts


def _figure(key: str, title: str, caption: str, drawn: str) -> str:
    if not drawn:
        return ""
    return (
        f'<section aria-labelledby="{key}"><h2 id="{key}">{title}</h2>'
        f"<figure><figcaption>{caption}</figcaption>{drawn}</figure></section>"
    )


def _modes(report: Report, findings: Findings) -> str:
    if not report.modes:
        return ""
    heads = [
        "Mode", "Time", "Pages/s", "Speed-up", "Efficiency", "p50", "p95", "p99",
        "CPU/page", "Bytes", "Peak<br>memory", "In<br>flight", "Failures",
    ]  # fmt: skip
    rows = [_row(mode, badge=mode.concurrency == report.recommended and mode is findings.best) for mode in report.modes]
    listed = table("Medians over the counted rounds, with the range below", heads, rows, "modes-table")
    note = (
        '<p class="note">Bytes are those of a round, in flight is the most that the server saw; – was not measured.</p>'
    )
    every = [_every(round_) for round_ in report.rounds]
    heads = ["Round", "Mode", "Time", "CPU", "Peak memory", "In flight", "Rows", "Failures"]
    rounds = (
        details("Every round", table("In the order they ran, warm-ups included", heads, every, "rounds-table"))
        if every
        else ""
    )
    parts = f"{note}{listed}{_failures(report)}{rounds}"
    return f'<section aria-labelledby="modes"><h2 id="modes">All modes</h2>{parts}</section>'


def _failures(report: Report) -> str:
    """Return how often each failure struck, over the counted rounds; empty without one."""
    codes = sorted({code for mode in report.modes for code in mode.failures})
    if not codes:
        return ""
    rows = [[escaped(code, 60), *(f"{mode.failures.get(code, 0):,}" for mode in report.modes)] for code in codes]
    return table(
        "Failures by code, over the counted rounds", ["Code", *map(labelled, report.modes)], rows, "failures-table"
    )


def _row(mode: Mode, *, badge: bool) -> list[str]:
    flag = mode.mode if mode.mode == "sequential" else f"-c\xa0{mode.concurrency}"
    return [
        f"{labelled(mode)}<small>{flag}, {counted(mode.rounds, 'round')}</small>"
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


def _ranged(value: Spread | None, words: str) -> str:
    median, ends = spread(value, words)
    return f"{median}<small>{ends}</small>" if ends else median


def _every(round_: Round) -> list[str]:
    failed = sum(sample.code is not None for sample in round_.samples)
    return [
        "warm-up" if round_.warm_up else f"{round_.index:,}",
        _who(round_.mode, round_.concurrency),
        duration(round_.wall),
        duration(round_.cpu),
        size(round_.peak_memory),
        UNKNOWN if round_.most_in_flight is None else f"{round_.most_in_flight:,}",
        f"{len(round_.samples):,}",
        f"{failed:,}",
    ]


def _who(mode: str, concurrency: int) -> str:
    return "one after another" if mode == "sequential" else f"{concurrency:,} at once"


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
        ("Date", moment(machine.date)),
    ]
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    command = escaped(shlex.join(report.command))
    return (
        '<section aria-labelledby="how"><h2 id="how">How it was measured</h2>'
        f'<pre aria-label="Command" tabindex="0"><code>{command}</code></pre><dl class="facts">{listed}</dl></section>'
    )
