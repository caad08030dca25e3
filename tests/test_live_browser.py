"""The live page in a real browser: silent, readable at every width and in both themes, its figures the summary's, its
buttons felt by the server, and nothing of what the web says ever more than text.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from fetcher.hosts.standing import HostStanding
from fetcher.live.server import LiveServer
from fetcher.live.state import (
    Eta,
    FailureSeen,
    Latency,
    LiveState,
    Point,
    Power,
    ResourceUse,
    RowCounts,
    RunningRows,
    WorkerSeen,
)
from fetcher.request_state import InFlight
from tests.lab.browser import CONTRAST, OVERFLOW, SMALLEST, Browser, Chromium, find
from tests.lab.command import Running
from tests.lab.desk import Desk
from tests.lab.held_case import HeldCase
from tests.lab.looker import address_of
from tests.lab.reports import HOSTILE
from tests.lab.server import LabServer
from tests.lab.suites import suite

pytestmark = pytest.mark.skipif(find() is None, reason="no chromium in PATH (Debian: apt-get install chromium)")

FIGURES = "Object.fromEntries([...document.querySelectorAll('data')].map(e => [e.id, e.value]))"
ENDED = "document.querySelector('#state').textContent === 'ended'"
ROWS = 260  # of a table at once: a state is told once in two seconds
HOSTILE_TEXT = HOSTILE.replace("\x00", "").replace("\ud800", "")


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


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with LabServer.in_thread() as lab:
        yield Desk(lab, tmp_path)


@pytest.fixture
def held(desk: Desk) -> Iterator[HeldCase]:
    gate = HeldCase()
    desk.lab.add("/held", gate)
    yield gate
    gate.open()


class Made:
    """A source with a state that a test has made."""

    def __init__(self, state: LiveState) -> None:
        self.marks = [0.0, 40.0]
        self.shown = state

    async def state(self) -> LiveState:
        return self.shown

    def points(self) -> Sequence[Point]:
        return [Point(float(n), n * 20 + n % 7, n // 9, 0, n * 90_000, 20) for n in range(100)]

    def tick(self) -> None:
        pass


def made(texts: Sequence[str] = ("plain",), **changes: Any) -> LiveState:
    """A state with one of the texts in every place where the web, a list or a user speaks."""
    text = texts[0]
    state = LiveState(
        name=text,
        kind="run",
        state="running",
        seconds=100.0,
        counts=RowCounts(4000, 1986, 11, 2, 2001, True, 9_000_000, 5000),
        pages_per_second=20.4,
        bytes_per_second=90_000.0,
        codes=[(each, 9 - at % 8) for at, each in enumerate(dict.fromkeys(texts))],
        other_codes=3,
        point=Point(100.0, 1986, 11, 2, 9_000_000, 20),
        eta=Eta(130.0, f"{text}: 212 rows, one every 5 s"),
        flight=RunningRows(
            len(texts), [(text, 1)], [InFlight(n, each, each, 1.5, 0.5, 0) for n, each in enumerate(texts)]
        ),
        hosts=[
            HostStanding(each, 212, 1, on_wire=1, limit=6, delay=5.0, parked=9.0, requests=7, why=each)
            for each in texts
        ],
        known_hosts=len(texts),
        latency=Latency([0.1, 0.126, 0.158, 0.2], [5, 9, 2], 0.12, 0.16, 0.19),
        workers=[WorkerSeen(1, 4711, 50, 50, 300, 54_000_000, 43)],
        failures=[FailureSeen(n, each, each, each, 1, 3.0) for n, each in enumerate(texts)],
        machine=ResourceUse(65_000_000, 79, 20_000, 0.07),
        power=Power(True, 100, None, 6),
    )
    return msgspec.structs.replace(state, **changes)


async def shown(browser: Browser, server: LiveServer) -> None:
    await browser.visit(server.url())
    await browser.until("document.querySelector('#state').textContent !== 'connecting'")


def said(running: Running) -> str:
    return running.err.decode()


async def test_a_run_is_seen_and_its_last_figures_are_the_summarys(
    browser: Browser, desk: Desk, held: HeldCase, tmp_path: Path
) -> None:
    urls = [*desk.urls(*range(40)), *(desk.lab.url(f"/status/{code}") for code in (404, 410, 500)), "no url"]
    desk.write([*urls, *desk.urls(1, 2, 3, path="/held")])
    with Running(*desk.words("--live"), folder=desk.folder) as running:
        url = await asyncio.to_thread(address_of, running)
        await browser.look(1280)
        await browser.visit(url)
        await browser.until(
            "document.querySelector('#ok').value === '40' && document.querySelector('#flying').value === '3'"
        )
        origin = url.rsplit("/", 2)[0]
        assert await browser.ask("location.href") == f"{origin}/", "the token has left the address bar"
        flying = await browser.ask("[...document.querySelectorAll('#flight td:last-child')].map(e => e.textContent)")
        assert sorted(flying) == sorted(desk.urls(1, 2, 3, path="/held"))
        codes = await browser.ask("[...document.querySelectorAll('#codes tbody tr')].map(e => e.cells[0].textContent)")
        assert sorted(codes) == ["http_404", "http_410", "http_500", "invalid_url"]
        for width in (360, 1280):
            for theme in ("light", "dark"):
                await browser.look(width, theme)
                await browser.until(f"document.documentElement.clientWidth === {width}")
                await browser.photograph(tmp_path / f"{width}-{theme}.png")
                assert await browser.ask(OVERFLOW) == {"wide": width, "scrolls": width, "past": []}
                told = await browser.ask(CONTRAST)
                assert told["seen"] > 60
                assert told["poor"] == []
                assert await browser.ask(SMALLEST) >= 12
        held.open()
        await browser.until(ENDED)
        figures = await browser.ask(FIGURES)
        summary = await browser.ask("document.querySelector('#summary').textContent")
        ended = await asyncio.to_thread(running.end)
        assert browser.requests == [url, f"{origin}/events"]
        assert browser.troubles == []
    stats = desk.stats()
    assert ended.code == 0
    names = ("input", "ok", "failed", "skipped", "pending")
    assert {name: figures[name] for name in names} == {name: str(stats[name]) for name in names}
    assert float(figures["pages-per-second"]) == stats["pages_per_second"]
    assert summary in ended.said
    assert (
        len({(tmp_path / f"{width}-{theme}.png").read_bytes() for width in (360, 1280) for theme in ("light", "dark")})
        == 4
    )


async def press(browser: Browser, selector: str) -> None:
    await browser.ask(f"document.querySelector({json.dumps(selector)}).click()")


async def test_its_buttons_are_felt_by_the_server(browser: Browser, desk: Desk, held: HeldCase) -> None:
    desk.write([desk.lab.url(f"/held?n={n}", n % 3 + 1) for n in range(300)])
    stats = desk.lab.site.stats

    def active(many: int) -> bool:
        return stats.wait(lambda: len(stats.active()) == many, 60)

    words = desk.words("--live", "-c", "1", "--per-host", "1", "--workers", "1")
    with Running(*words, folder=desk.folder) as running:
        url = await asyncio.to_thread(address_of, running)
        await browser.visit(url)
        await browser.until("!document.querySelector('#controls').hidden")
        assert await asyncio.to_thread(active, 1)
        await browser.ask("document.querySelector('#concurrency').value = '3'")
        await press(browser, "#set-concurrency button")
        assert await asyncio.to_thread(active, 3), "-c is 3"
        assert "by the live page: -c 3 from now on" in said(running)
        await browser.ask("document.querySelector('#concurrency').value = '0'")
        await press(browser, "#set-concurrency button")
        assert "must be at least 1" in await browser.until("document.querySelector('#answer.bad')?.textContent")
        (refused,) = browser.troubles
        assert "400 (Bad Request)" in refused
        browser.troubles.clear()
        await press(browser, "#pause")
        await browser.until("document.querySelector('#state').textContent === 'paused'")
        assert await browser.ask("document.querySelector('#pause').textContent") == "Go on"
        held.open()
        await browser.until("document.querySelector('#ok').value === '3'")
        assert len(desk.lab.requests("/held")) == 3, "the server has seen nothing new in the pause"
        await browser.ask("document.querySelector('#rate').value = '5/s'")
        await press(browser, "#set-rate button")
        await browser.until("document.querySelector('#answer').textContent.includes('--rate 5/s')")
        await press(browser, "#pause")
        await browser.until("+document.querySelector('#ok').value > 3")
        await press(browser, "#stop")
        assert "by the live page: stopping" not in said(running), "it asks once more"
        await press(browser, "#stop")
        await browser.until(ENDED)
        ended = await asyncio.to_thread(running.end)
        assert browser.troubles == []
    assert ended.code == 130
    left = desk.balance(130)
    assert 3 < left["ok"] < 300
    assert len(desk.lab.requests("/held")) == left["ok"]


async def test_a_page_that_is_reloaded_goes_by_its_cookie(browser: Browser) -> None:
    async with LiveServer(Made(made())) as server:
        await shown(browser, server)
        await browser.visit(server.url().rsplit("/", 2)[0] + "/")
        await browser.until("document.querySelector('#state').textContent === 'running'")
        cookies = (await browser.call("Network.getCookies"))["cookies"]
        assert [(each["httpOnly"], each["sameSite"], each["session"]) for each in cookies] == [(True, "Strict", True)]
        assert await browser.ask("document.cookie") == ""


async def test_whatever_the_web_says_is_text(browser: Browser) -> None:
    """The naughty strings in every table: the page shows them as they are, and none of them runs."""
    strings = [
        text for text in json.loads((suite("naughty-strings") / "blns.json").read_text(encoding="utf-8")) if text
    ]
    source = Made(made([HOSTILE_TEXT]))
    async with LiveServer(source) as server:
        await shown(browser, server)
        for first in range(0, len(strings), ROWS):
            part = [HOSTILE_TEXT, *strings[first : first + ROWS]]
            source.shown = made(part)
            count = len(part)
            last = json.dumps(part[-1])
            await browser.until(
                f"document.querySelectorAll('#hosts tbody tr').length === {count}"
                f" && document.querySelector('#failures tbody tr:last-child td:last-child').textContent === {last}"
            )
            for table, column in (
                ("hosts", 0),
                ("hosts", 6),
                ("flight", 2),
                ("flight", 5),
                ("failures", 3),
                ("failures", 4),
            ):
                texts = await browser.ask(
                    f"[...document.querySelectorAll('#{table} tbody tr')].map(row => row.cells[{column}].textContent)"
                )
                assert texts == part, (table, column)
        assert await browser.ask("document.scripts.length") == 1
        assert await browser.ask("document.querySelectorAll('img, iframe, a[href]:not(.skip)').length") == 0
        assert browser.troubles == []
        assert len(browser.requests) == 2


async def test_its_policy_stops_what_would_be_smuggled_in(browser: Browser) -> None:
    async with LiveServer(Made(made())) as server:
        await shown(browser, server)
        await browser.ask(
            "(() => { try { const s = document.createElement('script'); s.append('window.owned = 1');"
            " document.body.append(s) } catch {} })()"
        )
        assert await browser.ask("window.owned") is None
        with pytest.raises(RuntimeError, match="TrustedHTML"):
            await browser.ask("document.body.innerHTML = '<b>x</b>'")
        assert await browser.ask("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'stopped')") == "stopped"


async def test_long_words_do_not_break_it(browser: Browser) -> None:
    long = ["http://" + "a" * 240 + ".example/" + "b" * 50, "x" * 300]
    async with LiveServer(Made(made(long, trouble="y" * 300, final_text="z" * 900))) as server:
        await shown(browser, server)
        for width in (360, 768, 1280):
            await browser.look(width)
            await browser.until(f"document.documentElement.clientWidth === {width}")
            assert await browser.ask(OVERFLOW) == {"wide": width, "scrolls": width, "past": []}


async def test_it_can_be_walked_by_keyboard(browser: Browser) -> None:
    """Each stop is seen, has an outline, and comes after the one before it, down the page."""
    async with LiveServer(Made(made([f"h{n}.example" for n in range(30)]))) as server:
        for width in (360, 1280):
            await browser.look(width)
            await shown(browser, server)
            stops = []
            for _ in range(40):
                await browser.press("Tab", 9)
                stop = await browser.ask(
                    "(e => e === document.body ? null : [e.id || e.className || e.textContent,"
                    " e.getBoundingClientRect().top + scrollY, getComputedStyle(e).outlineStyle])(document.activeElement)"
                )
                if stop is None:
                    break
                stops.append(stop)
            names = [name for name, _, _ in stops]
            assert names[:4] == ["skip", "pause", "stop", "concurrency"]
            assert {"rate", "host", "per-host", "delay", "scroll"} < set(names)
            tops = [top for _, top, _ in stops[1:]]
            assert all(after >= before - 40 for before, after in pairwise(tops)), stops
            assert {style for *_, style in stops} == {"solid"}


async def test_a_screen_reader_is_told_every_chart_table_and_button(browser: Browser) -> None:
    async with LiveServer(Made(made())) as server:
        await shown(browser, server)
        nodes = (await browser.call("Accessibility.getFullAXTree"))["nodes"]
        named: dict[str, list[str]] = {}
        for node in nodes:
            if not node.get("ignored"):
                role = node.get("role", {}).get("value", "")
                named.setdefault(role.lower(), []).append(node.get("name", {}).get("value", ""))
        assert len(named["image"]) == 3
        assert len(named["table"]) == 5
        for role in ("image", "table", "button", "textbox", "region", "figure", "combobox"):
            assert all(named.get(role, [""])), role
        assert {"banner", "main", "contentinfo", "progressbar", "status"} <= named.keys()
        live = await browser.ask("[...document.querySelectorAll('[aria-live]')].map(e => e.id)")
        assert live == ["spoken"], "the summary alone is spoken"
        assert "4,000" not in await browser.ask("document.querySelector('#spoken').textContent.slice(0, 8)")


async def test_what_is_not_known_is_grey(browser: Browser) -> None:
    state = made(kind="job", flight=None, hosts=None, failures=None, machine=None, power=None, workers=None)
    async with LiveServer(Made(state)) as server:
        await shown(browser, server)
        grey = await browser.ask("[...document.querySelectorAll('.unknown')].map(e => e.id)")
        assert grey == ["hosts", "flight", "failures", "machine"]
        notes = await browser.ask("[...document.querySelectorAll('.unknown .note')].map(e => e.textContent)")
        assert all("ledger does not know" in note for note in notes)
        assert await browser.ask("document.querySelector('#controls').hidden")


async def test_a_server_that_is_gone_is_told(browser: Browser) -> None:
    async with LiveServer(Made(made())) as server:
        await shown(browser, server)
    await browser.until("document.querySelector('#state').textContent === 'no connection'")
    assert await browser.ask("document.querySelector('#controls').hidden")
    assert await browser.ask("document.querySelector('#ok').value") == "1986", "the last figures stay"
