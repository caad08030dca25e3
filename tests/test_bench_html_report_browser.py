"""The page in a real browser: silent, self-contained, readable at every width, in both themes, by keyboard."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from fetcher.bench.html_report import render_html
from fetcher.bench.results import Mismatch, Report
from fetcher.drawing.formatting import multiple, percent, significant
from tests.lab.browser import CONTRAST, OVERFLOW, SMALLEST, Browser, Chromium, find
from tests.lab.reports import HOSTILE, made

pytestmark = pytest.mark.skipif(find() is None, reason="no chromium in PATH (Debian: apt-get install chromium)")

USUAL = made(failing=0.02, slow=0.02)
HOSTILE_REPORT = msgspec.structs.replace(
    made(40, (1, 5, 40), 2, failing=0.1, source=HOSTILE * 4, warnings=(HOSTILE * 4, "The client is the limit.")),
    command=["fetcher", "bench", HOSTILE * 9, "x" * 900],
    complete=False,
    mismatches=[
        Mismatch(n, f"http://{'a' * 300}.test/{HOSTILE}", "5,000 characters", "nothing", "concurrent", 5)
        for n in range(40)
    ],
)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    program = find()
    assert program is not None
    with Chromium(program, tmp_path_factory.mktemp("chromium") / "profile") as running:
        yield running


@pytest_asyncio.fixture
async def browser(chromium: Chromium) -> AsyncIterator[Browser]:
    async with Browser(chromium) as opened:
        yield opened


def saved(report: Report, folder: Path) -> Path:
    path = folder / "bench.html"
    path.write_text(render_html(report), encoding="utf-8")
    return path


@pytest.mark.parametrize("report", [USUAL, HOSTILE_REPORT], ids=["usual", "hostile"])
async def test_it_asks_for_nothing_and_complains_of_nothing(browser: Browser, tmp_path: Path, report: Report) -> None:
    page = saved(report, tmp_path)
    await browser.open(page)
    await browser.ask("document.querySelectorAll('details').forEach(d => d.open = true)")
    await browser.photograph(tmp_path / "page.png")
    assert browser.requests == [page.as_uri()]
    assert browser.troubles == []
    assert await browser.ask("document.scripts.length + document.images.length") == 0
    assert await browser.ask("performance.getEntriesByType('resource').map(e => e.name)") == []


async def test_its_policy_stops_what_would_be_smuggled_in(browser: Browser, tmp_path: Path) -> None:
    """Were a text not escaped, the policy would still hold: and the test above would see it."""
    page = tmp_path / "bench.html"
    smuggled = "<script>document.title = 'owned'</script><img src='http://127.0.0.1:9/x.png'></body>"
    page.write_text(render_html(USUAL).replace("</body>", smuggled), encoding="utf-8")
    await browser.open(page)
    assert await browser.ask("document.title") != "owned"
    assert len([trouble for trouble in browser.troubles if "Content Security Policy" in trouble]) >= 2


async def test_the_headline_is_what_the_json_says(browser: Browser, tmp_path: Path) -> None:
    await browser.open(saved(USUAL, tmp_path))
    figures = await browser.ask(
        "Object.fromEntries([...document.querySelectorAll('data')].map(e => [e.id, [e.innerText, e.value]]))"
    )
    written: dict[str, Any] = json.loads(msgspec.json.encode(USUAL))
    best = next(
        mode
        for mode in written["modes"]
        if mode["mode"] == "concurrent" and mode["concurrency"] == written["recommended"]
    )
    assert figures == {
        "speed-up": [multiple(best["speed_up"]["median"]), str(best["speed_up"]["median"])],
        "efficiency": [percent(best["efficiency"]), str(best["efficiency"])],
        "recommended": [str(written["recommended"]), str(written["recommended"])],
        "pages-per-second": [significant(best["pages_per_second"]), str(best["pages_per_second"])],
    }
    title = await browser.ask("document.querySelector('h1').innerText")
    assert title.startswith(f"{significant(best['speed_up']['median'])} times as fast")


@pytest.mark.parametrize("report", [USUAL, HOSTILE_REPORT], ids=["usual", "hostile"])
async def test_it_fits_every_width_and_its_letters_stay_readable(
    browser: Browser, tmp_path: Path, report: Report
) -> None:
    for width in (320, 390, 768, 1280):
        await browser.look(width)
        await browser.open(saved(report, tmp_path))
        assert await browser.ask(OVERFLOW) == {"wide": width, "scrolls": width, "past": []}
        assert await browser.ask(SMALLEST) >= 12


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_text_stands_out_in_both_themes(browser: Browser, tmp_path: Path, theme: str) -> None:
    for width in (390, 1280):
        await browser.look(width, theme)
        await browser.open(saved(HOSTILE_REPORT, tmp_path))
        said = await browser.ask(CONTRAST)
        assert said["seen"] > 300
        assert said["poor"] == []


async def test_the_theme_follows_the_system_and_then_the_keyboard(browser: Browser, tmp_path: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    page = saved(USUAL, tmp_path)
    await browser.look(1280, "light")
    await browser.open(page)
    light = await browser.ask(ground)
    await browser.look(1280, "dark")
    dark = await browser.ask(ground)
    assert light != dark
    await browser.press("Tab", 9)
    assert await browser.ask("document.activeElement.id") == "system"
    outline = await browser.ask("getComputedStyle(document.activeElement.closest('label')).outlineStyle")
    assert outline == "solid"
    await browser.press("ArrowRight", 39)
    assert await browser.ask(ground) == light
    await browser.press("ArrowRight", 39)
    await browser.look(1280, "light")
    assert await browser.ask(ground) == dark


async def test_the_whole_page_can_be_walked_by_keyboard(browser: Browser, tmp_path: Path) -> None:
    """Every table that scrolls and every summary is a stop, in the order they are seen, each with an outline."""
    await browser.look(390)
    await browser.open(saved(USUAL, tmp_path))
    stops = []
    for _ in range(40):
        await browser.press("Tab", 9)
        stop = await browser.ask(
            "(e => e === document.body ? null : [e.tagName, e.getBoundingClientRect().top + scrollY,"
            " getComputedStyle(e.closest('label') || e).outlineStyle])(document.activeElement)"
        )
        if stop is None:
            break
        stops.append(stop)
    tags = [tag for tag, _, _ in stops]
    assert tags.count("SUMMARY") == await browser.ask("document.querySelectorAll('summary').length")
    assert {"INPUT", "DIV", "PRE"} < set(tags)
    assert [top for _, top, _ in stops] == sorted(top for _, top, _ in stops)
    assert {outline for *_, outline in stops} == {"solid"}


async def test_a_screen_reader_is_told_every_chart_and_table(browser: Browser, tmp_path: Path) -> None:
    await browser.open(saved(USUAL, tmp_path))
    await browser.ask("document.querySelectorAll('details').forEach(d => d.open = true)")
    nodes = (await browser.call("Accessibility.getFullAXTree"))["nodes"]
    named: dict[str, list[str]] = {}
    for node in nodes:
        if not node.get("ignored"):
            role = node.get("role", {}).get("value", "")
            named.setdefault(role.lower(), []).append(node.get("name", {}).get("value", ""))
    assert len(named["image"]) == 6
    assert all(named["image"])
    assert len(named["table"]) >= 7
    assert all(named["table"])
    assert named["radio"] == ["System", "Light", "Dark"]
    assert {"banner", "main", "contentinfo", "figure", "radiogroup"} <= named.keys()
    assert all(named["region"])


async def test_the_two_themes_and_a_phone_are_photographed(browser: Browser, tmp_path: Path) -> None:
    photographs = set()
    for width, theme in ((1280, "light"), (1280, "dark"), (390, "light")):
        await browser.look(width, theme)
        await browser.open(saved(USUAL, tmp_path))
        await browser.photograph(tmp_path / "page.png")
        photographs.add((tmp_path / "page.png").read_bytes())
    assert len(photographs) == 3
    assert all(picture.startswith(b"\x89PNG") and len(picture) > 20_000 for picture in photographs)
