"""The page as text: its figures are the report's, nothing in it is active, and every report has one."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from html.parser import HTMLParser
from itertools import pairwise

import msgspec
import pytest

from fetcher.bench.conclusions import headline_of
from fetcher.bench.formatting import mode_flag, mode_label
from fetcher.bench.html_report import MAX_MISMATCHES_SHOWN, render_html
from fetcher.bench.results import Mismatch, Report, Sample, Spread
from fetcher.drawing.document import DARK, LIGHT
from fetcher.drawing.formatting import counted, duration, multiple, percent, significant
from tests.lab.reports import HOSTILE, made

EMPTY = msgspec.structs.replace(made(0, ()), modes=[], rounds=[], complete=False)
WARM_UP_ONLY = msgspec.structs.replace(made(), modes=[], rounds=[r for r in made().rounds if r.warm_up], complete=False)
UNTRUE = msgspec.structs.replace(made(20, (2,), 1), source=HOSTILE, command=["fetcher", HOSTILE], warnings=[HOSTILE])
UNTRUE = msgspec.structs.replace(
    UNTRUE,
    machine=msgspec.structs.replace(UNTRUE.machine, platform=HOSTILE, python=HOSTILE, fetcher=HOSTILE, date=HOSTILE),
    modes=[msgspec.structs.replace(mode, failures={HOSTILE: 1}) for mode in UNTRUE.modes],
    mismatches=[Mismatch(1, "http://a.test/" + HOSTILE, HOSTILE, HOSTILE, "concurrent", 2)],
)
NO_TIME = msgspec.structs.replace(made(3, (2,), 1))
NO_TIME = msgspec.structs.replace(
    NO_TIME,
    rounds=[
        msgspec.structs.replace(round_, wall=0.0, samples=[Sample(1, "a.test", 0.0, 0.0, 0.0, code="invalid_url")])
        for round_ in NO_TIME.rounds
    ],
    modes=[
        msgspec.structs.replace(
            mode, wall=Spread(0.0, 0.0, 0.0), speed_up=None, least=0.0, efficiency=0.0, pages_per_second=0.0, latency={}
        )
        for mode in NO_TIME.modes
    ],
)
REPORTS = {
    "usual": made(),
    "one round": made(50, (5,), 1),
    "one row": made(1, (1, 10), 1),
    "one mode": made(sequential=False, sweep=(20,)),
    "the baseline alone": made(sweep=()),
    "no baseline": made(sequential=False),
    "many modes": made(100, (1, 2, 4, 8, 16, 32, 64, 128, 256, 512), 2),
    "failures": made(failing=0.2, slow=0.05, warnings=("Spread over 10 %.",)),
    "all failed": made(failing=1.1),
    "cut short": msgspec.structs.replace(made(), complete=False),
    "nothing": EMPTY,
    "a warm-up": WARM_UP_ONLY,
    "no time": NO_TIME,
    "hostile": UNTRUE,
    "not a number": msgspec.structs.replace(
        made(), modes=[msgspec.structs.replace(m, efficiency=math.nan, least=math.inf) for m in made().modes]
    ),
}
VOID = {"meta", "link", "input", "br"}


class Reader(HTMLParser):
    """What is in a page: its tags with their attributes, its text, and whether every tag is closed where it must be."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.cells: list[list[str]] = []
        self.sheet = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            self.sheet += data
            return
        self.text += data
        if {"td", "th"} & set(self.open):
            self.cells[-1][-1] += data

    def attributes(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.tags if name in attributes]


@pytest.fixture(params=REPORTS)
def report(request: pytest.FixtureRequest) -> Report:
    return REPORTS[request.param]


# Nothing active, nothing from elsewhere


def test_a_page_asks_for_nothing_and_runs_nothing(report: Report) -> None:
    page = Reader(render_html(report))
    assert {tag for tag, _ in page.tags} <= {
        "html", "head", "meta", "title", "link", "style", "body", "header", "main", "footer", "section", "div", "p",
        "h1", "h2", "h3", "strong", "b", "small", "span", "bdi", "br", "code", "pre", "data", "ul", "li", "dl", "dt",
        "dd", "label", "input", "figure", "figcaption", "details", "summary", "table", "caption", "thead", "tbody",
        "tr", "th", "td", "svg", "desc", "path", "line", "circle", "text",
    }  # fmt: skip
    names = {name for _, attributes in page.tags for name in attributes}
    assert not [name for name in names if name.startswith("on") or name in ("style", "src", "srcset", "action")]
    assert [a["href"].partition(":")[0] for _, a in page.tags if "href" in a] == ["data"]
    assert "url(" not in page.sheet
    assert "@import" not in page.sheet


def test_the_policy_allows_this_style_sheet_alone() -> None:
    page = Reader(render_html(made()))
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(page.sheet.encode()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'", f"style-src 'sha256-{digest}'", "img-src data:", "base-uri 'none'", "form-action 'none'",
    ]  # fmt: skip


def test_hostile_text_stays_text() -> None:
    html = render_html(UNTRUE)
    shown = "</script></style><img src=x onerror=alert(1)>\"'&\\x00\\u202egro.live\\ud800"
    assert html.encode()
    assert not re.search("[\x00\u202e\ud800]|<img|</script", html)
    page = Reader(html)
    assert page.text.count(shown) >= 6
    assert page.text.count("onerror") == html.count("onerror")


# What it says


def test_the_headline_figures_are_the_reports() -> None:
    report = made()
    best = headline_of(report).best
    assert best is not None
    assert best.speed_up is not None
    assert best.concurrency == report.recommended
    html = render_html(report)
    said = dict(re.findall(r'<data id="([\w-]+)" value="[^"]*">([^<]*)</data>', html))
    exact = dict(re.findall(r'<data id="([\w-]+)" value="([^"]*)">', html))
    assert said == {
        "speed-up": multiple(best.speed_up.median),
        "efficiency": percent(best.efficiency),
        "recommended": str(report.recommended),
        "pages-per-second": significant(best.pages_per_second),
    }
    assert {key: float(value) for key, value in exact.items()} == {
        "speed-up": best.speed_up.median,
        "efficiency": best.efficiency,
        "recommended": report.recommended,
        "pages-per-second": best.pages_per_second,
    }
    for key, share in (("speed-up", 1.0), ("efficiency", 100.0), ("pages-per-second", 1.0)):
        printed = re.sub("[^0-9.]", "", said[key])
        digits = len(printed.partition(".")[2])
        assert abs(float(printed) - share * float(exact[key])) <= 0.5000001 * 10**-digits
    assert f"<h1>{significant(best.speed_up.median)} times as fast" in html


@pytest.mark.parametrize("name", [name for name in REPORTS if REPORTS[name].modes])
def test_every_mode_is_in_the_table(name: str) -> None:
    report = REPORTS[name]
    cells = Reader(render_html(report)).cells
    for mode in report.modes:
        flag = mode_flag(mode.mode, mode.concurrency).replace(" ", "\xa0")
        first = f"{mode_label(mode.mode, mode.concurrency)}{flag}, {counted(mode.rounds, 'round')}"
        row = next(row for row in cells if row[0].startswith(first))
        assert row[1].startswith(duration(mode.wall.median))
        assert row[2] == significant(mode.pages_per_second)
        assert row[4] == percent(mode.efficiency)
        assert row[5:8] == [duration(mode.latency.get(key)) for key in ("p50", "p95", "p99")]
        assert row[-1] == f"{sum(mode.failures.values()):,}"


def test_what_was_run_and_where_is_said() -> None:
    report = made(warnings=("The first round took twice as long.", "The client is the limit."))
    text = Reader(render_html(report)).text
    machine = report.machine
    for said in (
        "fetcher bench --sequential -n 200 -c 10,50,100 --html bench.html", report.source, machine.platform, machine.date,
        machine.fetcher, machine.aiohttp, machine.python, machine.loop, *report.warnings,
    ):  # fmt: skip
        assert said in text


def test_every_round_is_listed_and_a_warm_up_named() -> None:
    report = made()
    rounds = [row for row in Reader(render_html(report)).cells if len(row) == 8 and row[-2] == "200"]
    assert [row[0] for row in rounds] == ["warm-up"] + [str(index) for index in (1, 2, 3) for _ in range(4)]


def test_pages_that_differ_come_first_and_the_rest_is_counted() -> None:
    different = [
        Mismatch(n, f"http://a.test/{n}", "5,000 characters", "nothing", "concurrent", 10) for n in range(1, 251)
    ]
    html = render_html(msgspec.structs.replace(made(), mismatches=different))
    assert html.index("http://a.test/1<") < html.index("speed-up")
    assert html.count("http://a.test/") == MAX_MISMATCHES_SHOWN
    assert "150\xa0more in the JSON" in html


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("nothing", "Nothing was measured"),
        ("a warm-up", "Nothing was measured"),
        ("all failed", "No page came"),
        ("the baseline alone", "pages a second, one after another"),
        ("no baseline", "pages a second with 100\xa0requests at once"),
    ],
)
def test_a_report_without_a_comparison_claims_none(name: str, title: str) -> None:
    page = render_html(REPORTS[name])
    assert title in page
    assert ("times as fast" in page) is False


def test_a_bench_without_gain_says_so() -> None:
    report = made(20, (1,), 1)
    slower = [msgspec.structs.replace(mode, speed_up=Spread(0.91, 0.9, 0.92)) for mode in report.modes]
    assert "<h1>Side by side is no faster here: 0.910 times</h1>" in render_html(
        msgspec.structs.replace(report, modes=slower)
    )


def test_a_bench_cut_short_says_so() -> None:
    assert "cut short" in render_html(REPORTS["cut short"])
    assert "cut short" not in render_html(REPORTS["usual"])


# For everyone


def test_every_chart_has_a_name_a_description_and_a_table(report: Report) -> None:
    page = Reader(render_html(report))
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    for named in page.attributes("aria-labelledby"):
        assert set(named.split()) <= set(ids)
    images = [attributes for tag, attributes in page.tags if tag == "svg" and attributes.get("role") == "img"]
    assert all("aria-labelledby" in attributes for attributes in images)
    figures = sum(tag == "figure" for tag, _ in page.tags)
    assert sum(tag == "figcaption" for tag, _ in page.tags) == figures
    assert sum(tag == "details" for tag, _ in page.tags) >= figures
    assert "nan" not in re.sub("[a-z]*nan[a-z]+", "", page.text.lower())
    geometry = [value for _, a in page.tags for name, value in a.items() if name in ("d", "x", "y", "x1", "y2", "cy")]
    assert not [value for value in geometry if re.search("nan|inf|e[+-]", value)]


def test_headings_skip_no_level(report: Report) -> None:
    levels = [int(tag[1]) for tag, _ in Reader(render_html(report)).tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_marks_stand_out_in_both_themes(palette: dict[str, str]) -> None:
    for ground in ("paper", "well"):
        for text in ("ink", "quiet", "accent"):
            assert contrast(palette[text], palette[ground]) >= 4.5, (text, ground)
    for tone in ("warn", "bad"):
        for text in (tone, "ink", "quiet"):
            assert contrast(palette[text], palette[f"{tone}-paper"]) >= 4.5, (text, tone)
    for drawn in ("axis", "accent", "plain", "ok", "http-error", "incomplete", "not-sent"):
        assert contrast(palette[drawn], palette["paper"]) >= 3, drawn
    assert set(LIGHT) == set(DARK)


# Sizes


def test_a_usual_page_is_small() -> None:
    assert len(render_html(made(200, (10, 50), 3)).encode()) < 200_000
    assert len(render_html(made(200, (10, 50), 3, failing=0.3, slow=0.1)).encode()) < 200_000


@pytest.mark.parametrize("failing", [0.0, 0.3])
def test_a_large_page_is_under_a_megabyte(failing: float) -> None:
    assert len(render_html(made(2_000, (10, 100, 1_000), 3, failing=failing, slow=0.02)).encode()) < 1_000_000


def test_every_report_has_a_page(report: Report) -> None:
    html = render_html(report)
    assert html.startswith("<!DOCTYPE html>")
    assert html.encode().decode() == html
    assert len(html) < 200_000
