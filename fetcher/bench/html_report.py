"""The report of a bench as one HTML page that loads nothing.

Laws: the page has no script, no request, no font or image from elsewhere, and a policy that forbids them, so that it
can be opened from a mail as well as from a disk. Law 7: every text of the report is escaped (``formatting.escaped``).
Text has a contrast of at least 4.5 to its background, a mark of at least 3, in both themes (a test computes it). The
kinds of outcome differ in lightness and in dashes, never by colour alone. The theme follows the system until the reader
chooses one, by radio buttons and ``:has()``.

The charts are drawn by a few hundred lines of our own (``svg``, ``charts``) rather than by a plotting library, since
that makes the better page: plotly puts 4.5 MB of script into each one, matplotlib draws images of a fixed width and one
theme whose text shrinks on a phone, and both would be a dependency of every installation. This page is some 50 KB for
three modes of 200 rows, follows the reader's theme, and can be read by a screen reader.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Mapping

from fetcher.bench.charts import draw_latency, draw_speed_up, draw_throughput, draw_timeline
from fetcher.bench.conclusions import Headline, headline_of
from fetcher.bench.formatting import (
    UNKNOWN,
    counted,
    duration,
    escaped,
    html_date,
    mode_flag,
    mode_label,
    multiple,
    percent,
    significant,
    size,
    spread,
)
from fetcher.bench.results import Mode, Report, Round, Spread
from fetcher.bench.svg import details, table

__all__ = ["DARK", "LIGHT", "render_html"]

MAX_MISMATCHES_SHOWN = 100
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Cpath d='M1 4h14M1 8h6M1 12h3' stroke='%231b61b8' stroke-width='3'/%3E%3C/svg%3E"
)

LIGHT: Mapping[str, str] = {
    "paper": "#fdfdfc", "ink": "#15181e", "quiet": "#555c68", "rule": "#e2e4e8", "axis": "#8a909c", "well": "#f3f4f5",
    "accent": "#1b61b8", "soft": "#aecbee", "plain": "#5f6774", "plain-soft": "#c3c8d0",
    "ok": "#2f74c9", "http-error": "#b25400", "incomplete": "#b3125f", "not-sent": "#7b828e",
    "warn": "#7a4a00", "warn-paper": "#fff4dd", "bad": "#a31919", "bad-paper": "#fdecea",
}  # fmt: skip
DARK: Mapping[str, str] = {
    "paper": "#13151a", "ink": "#eceef1", "quiet": "#a7aeba", "rule": "#2a2e36", "axis": "#6f7784", "well": "#1c1f26",
    "accent": "#7db4ff", "soft": "#274a78", "plain": "#a3abb8", "plain-soft": "#424956",
    "ok": "#5c9df2", "http-error": "#ffae57", "incomplete": "#ff86bd", "not-sent": "#868d99",
    "warn": "#f5c56b", "warn-paper": "#2b2312", "bad": "#ff9c94", "bad-paper": "#341a1a",
}  # fmt: skip

_RULES = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue","Noto Sans","Liberation Sans",Arial,sans-serif;font-variant-numeric:tabular-nums}
header,main,footer{max-width:66rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:1.5rem}
.top{display:flex;flex-wrap:wrap;gap:.5rem 1rem;justify-content:space-between;align-items:center;font-size:.875rem;
color:var(--quiet)}
.top p{margin:0}
.top strong{color:var(--ink)}
.theme{border:0;margin:0;padding:0;display:flex;background:var(--well);border-radius:.5rem}
.theme label{position:relative;padding:.2rem .7rem;border-radius:.5rem;cursor:pointer;line-height:1.5}
.theme input{position:absolute;inset:0;opacity:0;margin:0;cursor:pointer}
.theme label:has(:checked){background:var(--paper);color:var(--ink);box-shadow:0 0 0 1px var(--axis)}
:focus-visible,.theme label:has(:focus-visible){outline:3px solid var(--accent);outline-offset:2px}
h1{font-size:clamp(1.9rem,1.2rem + 3.2vw,3.1rem);line-height:1.1;letter-spacing:-.02em;margin:2.2rem 0 .75rem;
text-wrap:balance}
.lede{font-size:clamp(1.05rem,1rem + .4vw,1.25rem);color:var(--quiet);max-width:46rem;margin:0;text-wrap:pretty}
h2{font-size:1.35rem;line-height:1.25;letter-spacing:-.01em;margin:0 0 .35rem}
h3{font-size:.95rem;margin:0}
section{margin-top:3.25rem}
figure{margin:0}
figcaption,.note{color:var(--quiet);max-width:46rem;margin:0 0 1.1rem;font-size:.95rem}
.tiles{display:grid;grid-template-columns:repeat(4,1fr);gap:1px;background:var(--rule);border-block:1px solid var(--rule);
margin:2rem 0 0}
.tiles div{background:var(--paper);padding:1rem 1rem 1rem 1.25rem;display:flex;flex-direction:column}
.tiles div:first-child{padding-left:0}
.tiles dt{font-size:.875rem;color:var(--quiet)}
.tiles dd{margin:0;font-size:.8125rem;line-height:1.4;color:var(--quiet)}
.tiles dd:first-of-type{font-size:2.1rem;line-height:1.25;font-weight:650;letter-spacing:-.02em;color:var(--ink)}
.tiles div:first-child dd:first-of-type{color:var(--accent)}
.alert{border-left:4px solid;border-radius:.25rem;padding:.75rem 1rem;margin:1.5rem 0 0;overflow-wrap:anywhere}
.alert h2{font-size:1rem}
.alert ul{margin:.25rem 0 0;padding-left:1.1rem}
.alert p{margin:.25rem 0 0}
.warn{background:var(--warn-paper);border-color:var(--warn);color:var(--ink)}
.warn h2{color:var(--warn)}
.bad{background:var(--bad-paper);border-color:var(--bad)}
.bad h2{color:var(--bad)}
.halves{display:grid;grid-template-columns:1fr 1fr;gap:0 3.5rem}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:1.5rem 2rem}
.panel p{margin:0 0 .6rem;font-size:.9rem;color:var(--quiet)}
.panel b{color:var(--ink)}
.panel+.panel b{color:var(--accent)}
figure>h3{margin:1.5rem 0 .6rem}
.plot{padding:2px 1.1rem 0 1px}
.panel .plot{padding:2px .4rem 24px 1px}
.halves>*,.pair>*{min-width:0}
.panel:only-child,.halves>:only-child{grid-column:1/-1}
.wide-right{padding:.5rem 4.6rem 0 2.9rem}
svg{display:block;overflow:visible}
text{font-size:.8125rem;fill:var(--ink)}
.tick,.quiet{fill:var(--quiet)}
.name,.value,.strong{font-weight:600}
.strong{fill:var(--accent)}
.halo{paint-order:stroke;stroke:var(--paper);stroke-width:4px;stroke-linejoin:round}
.tight{display:none}
.grid{stroke:var(--rule)}
.axis{stroke:var(--axis)}
path{fill:none;vector-effect:non-scaling-stroke}
.ok,.http-error,.incomplete,.not-sent{vector-effect:none}
.ok{stroke:var(--ok)}
.http-error{stroke:var(--http-error);stroke-dasharray:7 3}
.incomplete{stroke:var(--incomplete);stroke-dasharray:3 2}
.not-sent{stroke:var(--not-sent);stroke-dasharray:1.5 2}
.ideal{stroke:var(--axis);stroke-width:1.5;stroke-dasharray:5 4}
.allowed{stroke:var(--axis);stroke-width:1.5}
.measured{stroke:var(--accent);stroke-width:3;stroke-linejoin:round}
.whisker{stroke:var(--accent);stroke-width:1.5}
.dot{fill:var(--paper);stroke:var(--accent);stroke-width:2}
.chosen{fill:var(--accent);stroke:var(--paper);stroke-width:2}
.area{stroke-width:1.25}
.area.concurrent{fill:var(--soft);stroke:var(--accent)}
.area.sequential{fill:var(--plain-soft);stroke:var(--plain)}
.mark{stroke:var(--ink);stroke-width:1.25}
.p95,.p99{stroke-dasharray:2 3}
.p99{stroke-dasharray:1 4}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;margin:.5rem 0 0;padding:0;font-size:.875rem;
color:var(--quiet)}
.legend li{display:flex;gap:.5rem;align-items:center}
details{margin-top:.9rem;font-size:.9rem}
summary{cursor:pointer;color:var(--quiet);width:fit-content;padding:.15rem .3rem;margin-left:-.3rem;border-radius:.25rem}
summary:hover{color:var(--ink)}
.scroll{background:linear-gradient(to left,var(--paper) 1.3rem,transparent) 100% 0/2.5rem 100% no-repeat local,
linear-gradient(to left,var(--rule),transparent) 100% 0/1.25rem 100% no-repeat scroll;overflow-x:auto;margin-top:.5rem;max-width:100%;scrollbar-width:thin}
table{border-collapse:collapse;font-size:.875rem;width:100%}
caption{text-align:left;color:var(--quiet);padding:0 0 .4rem;font-size:.875rem}
th,td{padding:.5rem .8rem .5rem 0;text-align:right;white-space:nowrap;border-bottom:1px solid var(--rule);
vertical-align:top}
thead th{color:var(--quiet);font-weight:500;border-bottom-color:var(--axis);vertical-align:bottom}
tbody th{font-weight:600}
th:last-child,td:last-child{padding-right:0}
.scroll+.scroll{margin-top:2rem}
th:first-child{text-align:left;position:sticky;left:0;background:var(--paper)}
td small,th small{display:block;color:var(--quiet);font-size:.8125rem;font-weight:400}
.alert .scroll{max-height:18rem;overflow:auto;background:none}
.alert th,.alert td{border-color:var(--axis);text-align:left}
.alert th:first-child{background:none;position:static}
.alert td:nth-child(2){white-space:normal;overflow-wrap:anywhere;min-width:14rem}
.badge{display:inline-block;color:var(--accent);border:1px solid;border-radius:1rem;padding:0 .5rem;margin-top:.2rem;
font-size:.75rem;font-weight:600}
pre{background:var(--well);padding:.8rem 1rem;border-radius:.4rem;white-space:pre-wrap;overflow-wrap:anywhere;margin:0 0 1.25rem}
code,pre{font:.875rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(9rem,1fr));gap:1rem 2rem;margin:0}
.facts dt{font-size:.8125rem;color:var(--quiet)}
.facts dd{margin:0;overflow-wrap:anywhere}
footer{margin-top:3.5rem;padding-bottom:3rem;color:var(--quiet);font-size:.875rem}
footer p{border-top:1px solid var(--rule);padding-top:1rem;margin:0}
@media (max-width:52rem){.halves{grid-template-columns:1fr}
.tiles{grid-template-columns:1fr 1fr}.tiles div:nth-child(odd){padding-left:0}}
@media (max-width:38rem){.pair{grid-template-columns:1fr}header,main,footer{padding-left:1rem;padding-right:1rem}
.tiles dd:first-of-type{font-size:1.7rem}.lone>svg{height:7rem}section{margin-top:2.5rem}text{font-size:.75rem}
.roomy{display:none}.tight{display:inline}}
@media (forced-colors:active){path,line,circle{forced-color-adjust:none}}
@media print{.theme,details:not([open]){display:none}section{break-inside:avoid}}
"""


def render_html(report: Report) -> str:
    """Return the report as a self-contained HTML page (UTF-8)."""
    headline = headline_of(report)
    compared = headline.baseline is not None and headline.baseline is not headline.best
    sections = [
        _figure(
            "when",
            "When each request ran",
            "A bar is a request's time on the wire, all its tries as one; a line of bars is a slot. Where it is blank, "
            "the slot stood empty: nothing was left, or what was left had to wait (a backoff, a limit for each host)."
            + (" Both modes are shown over the same stretch of time." if compared else ""),
            draw_timeline(report, headline),
        ),
        '<div class="halves">',
        _figure(
            "how-many",
            "What concurrency buys",
            "Ideal is as many times as requests at once. Possible is what these answer times and the limit for each "
            "host allow, by greedy scheduling and without a wait. The filled point is the recommended concurrency.",
            draw_speed_up(report, headline),
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
        _modes(report, headline),
        _conditions(report),
    ]
    return _document(headline, _header(report, headline), "".join(sections))


def _document(headline: Headline, header: str, main: str) -> str:
    sheet = _style_sheet()
    digest = base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f'<title>{escaped(headline.title)} – fetcher bench</title>\n<link rel="icon" href="{_ICON}">\n'
        f"<style>{sheet}</style>\n</head>\n<body>\n<header>{header}</header>\n<main>{main}</main>\n"
        "<footer><p>Made by <code>fetcher bench --html</code>. Every raw time is in the file of <code>--json</code>. "
        "This page runs no script and asks no server for anything.</p></footer>\n</body>\n</html>\n"
    )


def _header(report: Report, headline: Headline) -> str:
    themes = "".join(
        f'<label><input type="radio" name="theme" id="{name.lower()}"{" checked" if name == "System" else ""}>{name}</label>'
        for name in ("System", "Light", "Dark")
    )
    return (
        f'<div class="top"><p><strong>fetcher bench</strong> · {html_date(report.machine.date)}</p>'
        f'<div class="theme" role="radiogroup" aria-label="Theme">{themes}</div></div>'
        f'<h1>{escaped(headline.title)}</h1><p class="lede">{escaped(headline.sentence)}</p>'
        f"{_alerts(report)}{_tiles(report, headline)}"
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
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    command = escaped(shlex.join(report.command))
    return (
        '<section aria-labelledby="how"><h2 id="how">How it was measured</h2>'
        f'<pre aria-label="Command" tabindex="0"><code>{command}</code></pre><dl class="facts">{listed}</dl></section>'
    )


# The style sheet


def _style_sheet() -> str:
    """Return the style sheet: the light palette, the dark one by the system's or the reader's choice, and the rules."""
    return (
        f":root{{color-scheme:light;{_variables(LIGHT)}}}"
        f"@media (prefers-color-scheme:dark){{:root:not(:has(#light:checked)){{color-scheme:dark;{_variables(DARK)}}}}}"
        f":root:has(#dark:checked){{color-scheme:dark;{_variables(DARK)}}}{_RULES}"
    )


def _variables(palette: Mapping[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in palette.items())
