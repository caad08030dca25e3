"""The live page of a real run: its address, its figures, what its buttons do to the server, and how it ends."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.command import Running, environment, run
from tests.lab.desk import Desk
from tests.lab.held_case import HeldCase
from tests.lab.looker import Looker, address_of
from tests.lab.server import LabServer

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the lab's hosts are Linux's, and signals POSIX's")

FIGURES = ("input", "ok", "failed", "skipped", "pending", "bytes", "more")


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread() as server:
        yield server


@pytest.fixture
def desk(lab: LabServer, tmp_path: Path) -> Desk:
    return Desk(lab, tmp_path)


@pytest.fixture
def held(desk: Desk) -> Iterator[HeldCase]:
    gate = HeldCase()
    desk.lab.add("/held", gate)
    yield gate
    gate.open()


def active(desk: Desk) -> int:
    return len(desk.lab.site.stats.active())


def until_active(desk: Desk, many: int) -> None:
    assert desk.lab.site.stats.wait(lambda: active(desk) == many, 60), active(desk)


def rows_of(desk: Desk) -> None:
    desk.write(
        [
            *desk.urls(*range(30)),
            desk.lab.url("/status/404"),
            desk.lab.url("/status/500"),
            "no url",
            *desk.urls(1, 2, path="/held"),
        ]
    )


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_last_state_is_the_summary(desk: Desk, held: HeldCase, workers: str) -> None:
    rows_of(desk)
    with Running(*desk.words("--live", "--workers", workers), folder=desk.folder) as running:
        looker = Looker(address_of(running))
        state = looker.until(lambda state: state["counts"]["ok"] == 30 and state["flight"]["count"] == 2)
        assert state["state"] == "running"
        assert {row["url"] for row in state["flight"]["rows"]} == set(desk.urls(1, 2, path="/held"))
        assert dict(map(tuple, state["codes"])) == {"http_404": 1, "http_500": 1, "invalid_url": 1}
        assert {failure["code"] for failure in state["failures"]} == {"http_404", "http_500", "invalid_url"}
        assert all(failure["code"] in failure["message"] for failure in state["failures"])
        assert sum(state["latency"]["counts"]) == 32
        assert state["machine"]["memory"] > 1_000_000 or not os.path.isdir("/proc/self")
        assert len(state["workers"]) == (2 if workers == "2" else 0)
        assert state["power"] == {"allowed": True, "concurrency": 100, "rate": None, "per_host": 6}
        states = looker.states()
        next(states)
        held.open()
        last = list(states)[-1]
        assert running.end().code == 0
    stats = desk.stats()
    assert last["state"] == "ended"
    assert {name: last["counts"][name] for name in FIGURES} == {name: stats[name] for name in FIGURES}
    assert last["final"] == stats
    assert dict(map(tuple, last["codes"])) == stats["codes"]
    assert last["pages_per_second"] == stats["pages_per_second"]
    assert f"{stats['input']} rows = {stats['ok']} ok" in last["final_text"]


def test_the_page_is_gone_with_the_run(desk: Desk) -> None:
    desk.pages(*range(5))
    ended = desk.crawl("--live")
    assert ended.code == 0
    url = next(line for line in ended.said.splitlines() if "live: " in line).partition("live: ")[2]
    with pytest.raises(OSError, match="refused"):
        Looker(url)


def test_it_limits_pauses_and_stops_the_run(desk: Desk, held: HeldCase) -> None:
    desk.write([desk.lab.url(f"/held?n={n}", n % 3 + 1) for n in range(60)])
    words = desk.words("--live", "-c", "2", "--per-host", "1", "--workers", "1")
    with Running(*words, folder=desk.folder) as running:
        looker = Looker(address_of(running))
        until_active(desk, 2)
        assert looker.do(do="limits", concurrency="3") == (200, "-c 3 from now on.")
        until_active(desk, 3)
        assert looker.do(do="limits", rate="100/s")[0] == 200
        host = desk.lab.url("", 1).partition("//")[2].partition(":")[0]
        assert looker.do(do="limits", host=host, per_host="1", delay="0.01")[0] == 200
        assert looker.until(lambda state: state["power"]["concurrency"] == 3)["power"]["rate"] == 100
        assert looker.do(do="pause")[0] == 200
        assert looker.until(lambda state: state["state"] == "paused")["eta"]["how"] == "it is paused"
        held.open()
        looker.until(lambda state: state["counts"]["ok"] == 3)
        assert len(desk.lab.requests("/held")) == 3, "nothing new in a pause"
        assert looker.do(do="resume")[0] == 200
        ended = running.end()
    assert ended.code == 0
    assert desk.stats()["ok"] == 60
    assert "by the live page: -c 3 from now on" in ended.said
    assert "by the live page: paused" in ended.said


def test_stop_is_the_first_ctrl_c(desk: Desk, held: HeldCase) -> None:
    desk.write([desk.lab.url(f"/held?n={n}", n % 3 + 1) for n in range(60)])
    with Running(*desk.words("--live", "-c", "3", "--workers", "1"), folder=desk.folder) as running:
        looker = Looker(address_of(running))
        until_active(desk, 3)
        states = looker.states()
        next(states)
        assert looker.do(do="stop") == (200, "Stopping: what is in flight has 5 s to finish.")
        assert looker.do(do="stop")[0] == 200, "a second press is no second Ctrl-C"
        held.open()
        last = list(states)[-1]
        ended = running.end()
    assert ended.code == 130
    assert "to continue: " in ended.said
    stats = desk.balance(130)
    assert stats["ok"] == 3
    assert (last["final"]["ok"], last["final"]["exit"]) == (3, 130)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ({"concurrency": "0"}, "concurrency 0: must be at least 1"),
        ({"concurrency": "99999999"}, "more than the limit of file descriptors allows"),
        ({"rate": "fast"}, "rate fast: must be a number"),
        ({"host": "no host", "per_host": "1"}, "no host"),
        ({"host": "a.example"}, "say how many at once"),
        ({}, "no limit is named"),
    ],
)
def test_a_limit_that_is_none_is_refused_in_words(
    desk: Desk, held: HeldCase, command: dict[str, str], words: str
) -> None:
    desk.write([desk.lab.url("/held")])
    with Running(*desk.words("--live"), folder=desk.folder) as running:
        looker = Looker(address_of(running))
        looker.until(lambda state: state["state"] == "running")
        status, said = looker.do(do="limits", **command)
        assert status == 400
        assert words in said
        held.open()
        assert running.end().code == 0


def test_a_port_in_use_ends_it_before_anything_is_written(desk: Desk) -> None:
    desk.pages(1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run(*desk.words("--live-at", str(port)), folder=desk.folder)
    assert ended.code == 2
    assert f"live-at: cannot listen on 127.0.0.1:{port}" in ended.said
    assert not (desk.folder / "pages.jsonl").exists()
    assert desk.lab.log == []


def test_a_place_that_is_none_is_said(desk: Desk) -> None:
    desk.pages(1)
    for given in ("x", "70000", "a b:1"):
        ended = run(*desk.words("--live-at", given), folder=desk.folder)
        assert (ended.code, "live-at: " in ended.said) == (2, True)


@pytest.mark.parametrize("control", [False, True])
def test_beyond_this_machine_it_warns_and_shows_alone(desk: Desk, held: HeldCase, control: bool) -> None:
    desk.write([desk.lab.url("/held")])
    words = ["--live-at", "0.0.0.0:0", "--live-host", "crawler.example", *(["--live-control"] if control else [])]
    with Running(*desk.words(*words), folder=desk.folder) as running:
        url = address_of(running).replace("0.0.0.0", "127.0.0.1")
        assert "warning: the live page is open to the network" in running.err.decode()
        assert Looker(url, host="evil.example").status == 403
        looker = Looker(url, host="crawler.example")
        assert looker.until(lambda state: state["state"] == "running")["power"]["allowed"] is control
        assert looker.do(do="limits", concurrency="7")[0] == (200 if control else 403)
        held.open()
        assert running.end().code == 0


def test_a_browser_is_opened_with_an_address_that_is_good_once(desk: Desk, held: HeldCase) -> None:
    desk.write([desk.lab.url("/held")])
    browser = desk.folder / "browser"
    browser.write_text(
        f'#!/bin/sh\necho "$1" > "{desk.folder}/opened.new" && mv "{desk.folder}/opened.new" "{desk.folder}/opened"\n'
    )
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
    env = {"BROWSER": f"{browser} %s"}
    with Running(*desk.words("--open"), folder=desk.folder, env=env, anew=True) as running:
        url = address_of(running)
        until_active(desk, 1)
        opened = (desk.folder / "opened").read_text().strip()
        assert opened != url
        assert Looker(opened).status == 200
        assert Looker(opened).status == 403, "others may have read it where the browser was started"
        assert Looker(url).status == 200
        held.open()
        assert running.end().code == 0


def test_where_no_browser_can_be_opened_the_run_goes_on(desk: Desk) -> None:
    desk.pages(1)
    env = {"BROWSER": "/nowhere/browser %s", "PATH": "/nowhere"}
    ended = run(*desk.words("--open"), folder=desk.folder, env=env, anew=True)
    assert ended.code == 0
    assert "warning: no browser could be opened: open http://127.0.0.1:" in ended.said


def test_machines_are_told_the_address_too(desk: Desk) -> None:
    desk.pages(1)
    ended = desk.crawl("--live", "--log-format", "json")
    notices = [json.loads(line) for line in ended.said.splitlines()]
    assert any(str(notice.get("live", "")).startswith("http://127.0.0.1:") for notice in notices)


def test_secrets_are_not_on_the_page(desk: Desk, held: HeldCase) -> None:
    target = desk.lab.url("/status/404?key=1").replace("http://", "http://me:geheim@")
    desk.write([target, desk.lab.url("/held")])
    with Running(
        *desk.words("--live", "-H", f"@{_host(desk)} Authorization: Bearer geheim"), folder=desk.folder
    ) as running:
        looker = Looker(address_of(running))
        state = looker.until(lambda state: state["counts"]["failed"] == 1)
        assert "geheim" not in json.dumps(state)
        held.open()
        assert running.end().code == 0


def test_a_signal_ends_it_with_the_page_open(desk: Desk, held: HeldCase) -> None:
    desk.write([desk.lab.url(f"/held?n={n}") for n in range(5)])
    with Running(*desk.words("--live"), folder=desk.folder) as running:
        looker = Looker(address_of(running))
        states = looker.states()
        next(states)
        until_active(desk, 1)
        running.send(signal.SIGINT)
        running.send(signal.SIGINT)
        last: dict[str, Any] = list(states)[-1]
        assert running.end().code == 130
    assert (last["state"], last["final"]["pending"]) == ("ended", 5)


def test_a_run_that_ends_with_an_error_says_so(desk: Desk, held: HeldCase) -> None:
    """The list breaks off: what was done is counted, the page says that it has ended."""
    urls = "".join(f"{desk.lab.url(f'/held?n={n}')}\n" for n in range(3))
    (desk.folder / "l.txt.gz").write_bytes(gzip.compress(urls.encode())[:-6])
    with Running(*desk.words("--live", listed="l.txt.gz"), folder=desk.folder) as running:
        looker = Looker(address_of(running))
        states = looker.states()
        next(states)
        held.open()
        last = list(states)[-1]
        ended = running.end()
    assert ended.code == 2
    assert last["state"] == "ended"
    assert last["counts"]["ok"] == 3


def test_what_is_not_asked_for_is_not_loaded(desk: Desk) -> None:
    desk.pages(1)
    script = (
        "import sys\nfrom fetcher.cli.run import crawl\n"
        "crawl(['l.txt'], {'output': ['o.jsonl'], 'robots': False, 'quiet': True}, demo=False)\n"
        "print([name for name in sys.modules if name.startswith('fetcher.live') or name == 'aiohttp.web'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=desk.folder, env=environment(desk.folder), capture_output=True, check=True
    )
    assert done.stdout.strip() == b"[]"


def _host(desk: Desk) -> str:
    return desk.lab.url("", 1).partition("//")[2].partition(":")[0]
