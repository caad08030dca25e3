"""The page of a job in a real browser: silent, self-contained, readable at every width and in both themes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from fetcher.report.html_report import render_comparison, render_job
from fetcher.report.job_page import read_job
from tests.lab.browser import CONTRAST, OVERFLOW, SMALLEST, Browser, Chromium, find
from tests.lab.command import run
from tests.lab.desk import Desk
from tests.lab.report_scene import HOSTS, make_scene
from tests.lab.server import LabServer
from tests.test_report_page import hostile

pytestmark = pytest.mark.skipif(find() is None, reason="no chromium in PATH (Debian: apt-get install chromium)")

OPEN_ALL = "document.querySelectorAll('details').forEach(d => d.open = true)"
WIDTHS = (360, 1280)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A job killed twice, its page, one of which every text is hostile, and a comparison."""
    folder = tmp_path_factory.mktemp("scene")
    with LabServer.in_thread(hosts=HOSTS) as lab:
        make_scene(Desk(lab, folder))
    ended = run("report", "pages.jsonl", "--html", "usual.html", "--json", folder=folder)
    assert ended.code == 0, ended.said
    (folder / "report.json").write_text(ended.text)
    page = read_job(str(folder / "pages.jsonl.job"))
    (folder / "hostile.html").write_text(render_job(hostile(page)), encoding="utf-8")
    (folder / "both.html").write_text(render_comparison([page, hostile(page)]), encoding="utf-8")
    yield folder


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


@pytest.mark.parametrize("name", ["usual", "hostile", "both"])
async def test_it_asks_for_nothing_and_complains_of_nothing(browser: Browser, scene: Path, name: str) -> None:
    page = scene / f"{name}.html"
    await browser.open(page)
    await browser.ask(OPEN_ALL)
    await browser.photograph(scene / f"{name}.png")
    assert browser.requests == [page.as_uri()]
    assert browser.troubles == []
    assert await browser.ask("document.scripts.length + document.images.length + document.links.length") == 0
    assert "owned" not in await browser.ask("document.title.toLowerCase().replace(/<[^>]*>.*/, '')")
    assert await browser.ask(
        "[...document.querySelectorAll('*')].every(e => [...e.attributes].every(a => !/^on/i.test(a.name)))"
    )


async def test_its_figures_are_those_of_the_json(browser: Browser, scene: Path) -> None:
    await browser.open(scene / "usual.html")
    shown = await browser.ask(
        "Object.fromEntries([...document.querySelectorAll('data')].map(e => [e.id, e.innerText]))"
    )
    figures = json.loads((scene / "report.json").read_text())
    for name in ("input", "ok", "failed", "skipped", "hosts"):
        assert shown[name] == f"{figures[name]:,}"
    for code, many in figures["codes"].items():
        assert shown[f"code-{code}"] == f"{many:,}"
    assert len(figures["codes"]) >= 10


@pytest.mark.parametrize("name", ["usual", "hostile", "both"])
@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_it_fits_and_stands_out_at_every_width(browser: Browser, scene: Path, name: str, theme: str) -> None:
    for width in WIDTHS:
        await browser.look(width, theme)
        await browser.open(scene / f"{name}.html")
        assert await browser.ask(OVERFLOW) == {"wide": width, "scrolls": width, "past": []}
        assert await browser.ask(SMALLEST) >= 12
        said = await browser.ask(CONTRAST)
        assert said["seen"] > 100
        assert said["poor"] == []


async def test_it_can_be_walked_by_keyboard_and_heard(browser: Browser, scene: Path) -> None:
    await browser.look(360)
    await browser.open(scene / "usual.html")
    tops = []
    for _ in range(60):
        await browser.press("Tab", 9)
        top = await browser.ask(
            "(e => e === document.body ? null : e.getBoundingClientRect().top + scrollY)(document.activeElement)"
        )
        if top is None:
            break
        tops.append(top)
    assert len(tops) > 8
    assert tops == sorted(tops)
    nodes = (await browser.call("Accessibility.getFullAXTree"))["nodes"]
    named = [
        (node["role"]["value"].lower(), node.get("name", {}).get("value", ""))
        for node in nodes
        if not node.get("ignored")
    ]
    images = [name for role, name in named if role == "image"]
    assert len(images) >= 4
    assert all(images)
    assert all(name for role, name in named if role in ("table", "region"))
