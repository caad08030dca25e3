"""The live page of ``fetcher extract``: what it shows of pages that are read again, and what its buttons do to that."""

from __future__ import annotations

import gzip
import json
import os
import random
from pathlib import Path

import pytest

from fetcher.extraction_workers import RANGE_BYTES
from tests.lab.browser import OVERFLOW, Browser, Chromium, find
from tests.lab.command import Running, run
from tests.lab.looker import Looker, address_of
from tests.test_extraction import answer, member, product

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the processes that read are told by /proc")

ROWS = 200
SLOW = """
import os, time

def read(response):
    number = int(response.url.rpartition("/")[2])
    while number > 9 and not os.path.exists("go"):
        time.sleep(0.02)
    if number == 5:
        raise ValueError("the fifth page is odd")
    return {"number": number}
"""
"""An extractor that reads ten pages, and waits with the others until it is told to go on."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "slow.py").write_text(SLOW)
    with (tmp_path / "pages.warc.gz").open("wb") as file:
        for number in range(ROWS):
            file.write(gzip.compress(member(f"http://example.com/{number}", answer(product(number)))))
    return tmp_path


def words(*more: str) -> list[str]:
    return ["extract", "pages.warc.gz", "-o", "out.jsonl", "--extract", "slow:read", "--summary", "s.json", *more]


def test_it_shows_what_applies_and_pauses_and_goes_on(folder: Path) -> None:
    with Running(*words("--live", "--isolate"), folder=folder) as running:
        looker = Looker(address_of(running))
        state = looker.until(lambda state: state["counts"]["ok"] == 9)
        assert (state["kind"], state["state"], state["name"]) == ("reading", "running", "out.jsonl")
        assert state["codes"] == [["extract_failed", 1]]
        (failure,) = state["failures"]
        assert "the fifth page is odd" in failure["message"]
        assert [state[name] for name in ("hosts", "flight", "latency")] == [None] * 3
        assert state["workers"] == []
        assert state["power"] == {"allowed": True, "concurrency": None, "rate": None, "per_host": None}
        assert state["machine"]["memory"] > 1_000_000
        assert state["counts"]["total"] == ROWS
        assert looker.do(do="limits", concurrency="3") == (
            400,
            "pages are read out of a file: there are no requests to limit",
        )
        assert looker.do(do="pause") == (200, "Paused: the pages that are being read are finished.")
        (folder / "go").touch()
        state = looker.until(lambda state: state["state"] == "paused" and state["counts"]["pending"] == 0)
        done = state["counts"]["ok"]
        assert 9 <= done < ROWS - 1
        assert state["eta"]["how"] == "it is paused"
        states = looker.states()
        assert [next(states)["counts"]["ok"] for _ in range(2)] == [done, done]
        assert looker.do(do="resume") == (200, "Going on.")
        last = list(states)[-1]
        ended = running.end()
    assert ended.code == 0, ended.said
    assert "by the live page: paused" in ended.said
    summary = json.loads((folder / "s.json").read_text())
    assert (last["state"], last["final"], last["counts"]["ok"]) == ("ended", summary, ROWS - 1)
    assert [last[name] for name in ("hosts", "flight", "latency")] == [None] * 3


@pytest.mark.parametrize("paused", [False, True])
def test_stop_is_the_first_ctrl_c(folder: Path, *, paused: bool) -> None:
    with Running(*words("--live", "--isolate"), folder=folder) as running:
        looker = Looker(address_of(running))
        looker.until(lambda state: state["counts"]["ok"] == 9)
        if paused:
            assert looker.do(do="pause")[0] == 200
        assert looker.do(do="stop") == (200, "Stopping: the pages that are being read are finished.")
        (folder / "go").touch()
        ended = running.end()
    assert ended.code == 130
    assert "not all was read; to continue: " in ended.said
    read = len((folder / "out.jsonl").read_bytes().splitlines())
    assert 10 <= read < ROWS
    again = run(*words("--isolate"), folder=folder)
    assert again.code == 0, again.said
    assert sorted(json.loads(line)["id"] for line in (folder / "out.jsonl").read_text().splitlines()) == list(
        range(1, ROWS + 1)
    )


def test_the_processes_of_workers_are_told(folder: Path) -> None:
    noise = random.Random(1)
    with (folder / "pages.warc.gz").open("ab") as file:
        for number in range(ROWS, ROWS + 1_600):
            body = product(number) + b"<!--" + noise.randbytes(1_500).hex().encode() + b"-->"
            file.write(gzip.compress(member(f"http://example.com/{number}", answer(body)), 1))
    assert (folder / "pages.warc.gz").stat().st_size > 2 * RANGE_BYTES
    with Running(*words("--live", "--workers", "2"), folder=folder) as running:
        looker = Looker(address_of(running))
        state = looker.until(lambda state: len(state["workers"] or ()) == 2)
        for worker in state["workers"]:
            os.kill(worker["pid"], 0)
            assert {worker[name] for name in ("slots", "held", "rows")} == {None}
        (folder / "go").touch()
        assert running.end().code == 0


@pytest.mark.skipif(find() is None, reason="no chromium in PATH (Debian: apt-get install chromium)")
@pytest.mark.asyncio
async def test_in_a_browser_what_does_not_apply_is_not_there(folder: Path) -> None:
    program = find()
    assert program is not None
    running = Running(*words("--live", "--isolate"), folder=folder)
    with running, Chromium(program, folder / "profile") as chromium:
        address = address_of(running)
        async with Browser(chromium) as browser:
            await browser.visit(address)
            await browser.until("document.querySelector('#ok').value === '9'")
            shown = await browser.ask(
                "['hosts', 'flight', 'latency', 'workers', 'flying-tile', 'set-concurrency', 'set-rate', 'set-host',"
                " 'controls', 'pause', 'stop', 'machine', 'failures', 'codes'].filter(id => document.getElementById(id).offsetParent)"
            )
            assert shown == ["controls", "pause", "stop", "machine", "failures", "codes"]
            await browser.look(360)
            found = await browser.ask(OVERFLOW)
            assert (found["scrolls"], found["past"]) == (found["wide"], [])
            assert browser.troubles == []
        (folder / "go").touch()
        assert running.end().code == 0
