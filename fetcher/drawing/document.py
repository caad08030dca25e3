"""A report as one HTML page that loads nothing: its frame, its style, and the parts that all reports have.

Laws: the page has no script, no request, no font or image from elsewhere, and a policy that forbids them, so that it
can be opened from a mail as well as from a disk. Law 7: every text of a report is escaped (``formatting.escaped``).
Text has a contrast of at least 4.5 to its background, a mark of at least 3, in both themes (a test computes it). Kinds
of a thing differ in lightness and in dashes, never by colour alone. The theme follows the system until the reader
chooses one, by radio buttons and ``:has()``.

The charts are drawn by a few hundred lines of our own (``svg``) rather than by a plotting library, since that makes the
better page: plotly puts 4.5 MB of script into each one, matplotlib draws images of a fixed width and one theme whose
text shrinks on a phone, and both would be a dependency of every installation. A bench of three modes and 200 rows is a
page of some 50 KB, which follows the reader's theme and can be read by a screen reader.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from fetcher.drawing.formatting import escaped

__all__ = [
    "DARK",
    "LIGHT",
    "Tile",
    "alert",
    "document",
    "facts_of",
    "figure",
    "page_header",
    "palette_rules",
    "section",
    "tiles_of",
]

Tile: TypeAlias = tuple[str, str, float | None, str, str]
"""A main figure: its name, its key, its unrounded value, how it is shown, and a note below (both HTML)."""

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
.lede{font-size:clamp(1.05rem,1rem + .4vw,1.25rem);color:var(--quiet);max-width:46rem;margin:0;text-wrap:pretty;overflow-wrap:anywhere}
h2{font-size:1.35rem;line-height:1.25;letter-spacing:-.01em;margin:0 0 .35rem}
h3{font-size:.95rem;margin:0;overflow-wrap:anywhere}
section{margin-top:3.25rem}
figure{margin:0}
figcaption,.note{color:var(--quiet);max-width:46rem;margin:0 0 1.1rem;font-size:.95rem}
.tiles{display:grid;grid-template-columns:repeat(4,1fr);gap:1px;background:var(--rule);border-block:1px solid var(--rule);
margin:2rem 0 0}
.tiles div{background:var(--paper);padding:1rem 1rem 1rem 1.25rem;display:flex;flex-direction:column}
.tiles div:nth-child(4n+1){padding-left:0}
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
.area.failed{fill:none;stroke:var(--http-error);stroke-dasharray:7 3}
.kill{stroke:var(--bad);stroke-width:2;stroke-dasharray:4 3}
.stop{stroke:var(--ink);stroke-width:1.25}
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
.scroll+.scroll,.pair+.scroll{margin-top:2rem}
.scroll+.note{margin-top:1.6rem}
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
.failure p code{white-space:nowrap}
.failures{display:grid;grid-template-columns:1fr 1fr;gap:0 3.5rem;margin-top:.8rem}
.failures>*{min-width:0}
.failure{border-top:1px solid var(--rule);padding:.8rem 0}
.failure h3{font-size:1.05rem}
.failure h3 small{color:var(--quiet);font-weight:400}
.failure p{margin:.25rem 0;max-width:46rem}
.failure b,.failure b code{font-weight:600}
.failure ul{margin:.4rem 0 0;padding-left:1.1rem;font-size:.875rem;overflow-wrap:anywhere}
.failure li small{display:block;color:var(--quiet);font-size:.8125rem}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(9rem,1fr));gap:1rem 2rem;margin:0}
.facts div{min-width:0}
.facts dt{font-size:.8125rem;color:var(--quiet);overflow-wrap:anywhere}
.facts dd{margin:0;overflow-wrap:anywhere}
footer{margin-top:3.5rem;padding-bottom:3rem;color:var(--quiet);font-size:.875rem}
footer p{border-top:1px solid var(--rule);padding-top:1rem;margin:0}
@media (max-width:52rem){.halves,.failures{grid-template-columns:1fr}
.tiles{grid-template-columns:1fr 1fr}.tiles div:nth-child(odd){padding-left:0}}
@media (max-width:38rem){.pair{grid-template-columns:1fr}header,main,footer{padding-left:1rem;padding-right:1rem}
.tiles dd:first-of-type{font-size:1.7rem}.lone>svg{height:7rem}section{margin-top:2.5rem}text{font-size:.75rem}
.roomy{display:none}.tight{display:inline}}
@media (forced-colors:active){path,line,circle{forced-color-adjust:none}}
@media print{.theme,details:not([open]){display:none}section{break-inside:avoid}}
"""


def document(title: str, header: str, main: str, footer: str) -> str:
    """Return the page around its parts; ``title`` is plain text, the others are HTML."""
    sheet = _style_sheet()
    digest = base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f'<title>{escaped(title)}</title>\n<link rel="icon" href="{_ICON}">\n'
        f"<style>{sheet}</style>\n</head>\n<body>\n<header>{header}</header>\n<main>{main}</main>\n"
        f"<footer><p>{footer} This page runs no script and asks no server for anything.</p></footer>\n</body>\n</html>\n"
    )


def page_header(name: str, date: str, title: str, lede: str, rest: str) -> str:
    """Return the head of a page: who made it and when, the choice of a theme, its ``title`` (plain text), and the ``rest``."""
    themes = "".join(
        f'<label><input type="radio" name="theme" id="{theme.lower()}"{" checked" if theme == "System" else ""}>{theme}</label>'
        for theme in ("System", "Light", "Dark")
    )
    return (
        f'<div class="top"><p><strong>{name}</strong> · {date}</p>'
        f'<div class="theme" role="radiogroup" aria-label="Theme">{themes}</div></div>'
        f'<h1>{escaped(title)}</h1><p class="lede">{lede}</p>{rest}'
    )


def tiles_of(tiles: Iterable[Tile]) -> str:
    """Return the main figures, each with its unrounded number in the value of a ``data`` element."""
    cells = "".join(
        f'<div><dt>{name}</dt><dd><data id="{key}" value="{"" if value is None else repr(value)}">{shown}</data></dd>'
        f"<dd>{note}</dd></div>"
        for name, key, value, shown, note in tiles
    )
    return f'<dl class="tiles">{cells}</dl>'


def alert(kind: str, key: str, title: str, content: str) -> str:
    """Return what the reader must know before the figures; ``kind`` is ``bad`` or ``warn``."""
    return f'<section class="alert {kind}" aria-labelledby="{key}"><h2 id="{key}">{title}</h2>{content}</section>'


def section(key: str, title: str, content: str) -> str:
    """Return a part of the page with its heading."""
    return f'<section aria-labelledby="{key}"><h2 id="{key}">{title}</h2>{content}</section>'


def figure(key: str, title: str, caption: str, drawn: str) -> str:
    """Return a chart with its heading and caption; empty where nothing is drawn."""
    if not drawn:
        return ""
    return section(key, title, f"<figure><figcaption>{caption}</figcaption>{drawn}</figure>")


def facts_of(facts: Iterable[tuple[str, str]]) -> str:
    """Return names and what is true of them (HTML)."""
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{listed}</dl>'


def _style_sheet() -> str:
    """Return the style sheet: the light palette, the dark one by the system's or the reader's choice, and the rules."""
    return (
        f":root{{color-scheme:light;{_variables(LIGHT)}}}"
        f"@media (prefers-color-scheme:dark){{:root:not(:has(#light:checked)){{color-scheme:dark;{_variables(DARK)}}}}}"
        f":root:has(#dark:checked){{color-scheme:dark;{_variables(DARK)}}}{_RULES}"
    )


def palette_rules() -> str:
    """Return the palettes as rules of a style sheet, for a page whose theme is the system's: ``--paper`` and so on."""
    return f":root{{{_variables(LIGHT)}}}@media (prefers-color-scheme:dark){{:root{{{_variables(DARK)}}}}}"


def _variables(palette: Mapping[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in palette.items())
