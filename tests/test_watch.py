"""``fetcher watch``: a job by its ledger alone, while a run works on it, after a crash, and of several shards together."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fetcher.job.pace import PaceRow
from fetcher.live.job import _life_of
from tests.lab.command import Running, run
from tests.lab.desk import Desk
from tests.lab.held_case import HeldCase
from tests.lab.looker import Looker, address_of
from tests.lab.server import LabServer

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the lab's hosts are Linux's, and signals POSIX's")


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread() as server:
        yield server


@pytest.fixture
def desk(lab: LabServer, tmp_path: Path) -> Desk:
    return Desk(lab, tmp_path)


def watched(desk: Desk, *words: str) -> Running:
    return Running("watch", *words, folder=desk.folder)


def report(desk: Desk, *names: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(run("report", *names, "--json", folder=desk.folder).text)
    return told


def some(desk: Desk) -> None:
    desk.write([*desk.urls(*range(20)), desk.lab.url("/status/404"), desk.lab.url("/status/500"), "no url"])


def files_of(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("name", ["pages.jsonl", "pages.jsonl.job"])
def test_a_job_that_has_ended(desk: Desk, name: str) -> None:
    some(desk)
    assert desk.crawl().code == 0
    before = files_of(desk.folder / "pages.jsonl.job")
    told = report(desk, "pages.jsonl")
    with watched(desk, name) as running:
        looker = Looker(address_of(running))
        state = next(looker.states())
        running.send(signal.SIGINT)
        ended = running.end()
    assert (ended.code, ended.said.splitlines()[-1]) == (0, "closed")
    assert (state["kind"], state["state"]) == ("job", "complete")
    counts = state["counts"]
    for figure in ("input", "ok", "failed", "skipped", "pending", "bytes", "more"):
        assert counts[figure] == told[figure], figure
    assert dict(map(tuple, state["codes"])) == told["codes"]
    assert state["pages_per_second"] == told["last_pages_per_second"]
    assert {host["host"] for host in state["hosts"]} == {host["host"] for host in told["failing"] + told["slowest"]}
    assert sum(state["latency"]["counts"]) == 22
    for unknown in ("flight", "failures", "machine", "power", "workers"):
        assert state[unknown] is None, "a ledger does not know it"
    assert files_of(desk.folder / "pages.jsonl.job") == before


def test_it_changes_nothing_and_has_no_buttons(desk: Desk) -> None:
    some(desk)
    desk.crawl()
    with watched(desk, "pages.jsonl") as running:
        looker = Looker(address_of(running))
        for command in ("stop", "pause"):
            assert looker.do(do=command)[0] == 403
        assert Looker(address_of(running), host="evil.example").status == 403


def test_a_job_that_runs_is_killed_and_goes_on(desk: Desk) -> None:
    gate = HeldCase()
    desk.lab.add("/held", gate)
    desk.write([*desk.urls(*range(20)), *desk.urls(*range(5), path="/held")])
    with Running(*desk.words(), folder=desk.folder, anew=True) as crawl:
        with watched(desk, "pages.jsonl.job") if _begun(desk, crawl) else pytest.fail("no ledger") as running:
            looker = Looker(address_of(running))
            state = looker.until(lambda state: state["counts"]["ok"] == 20)
            assert state["state"] == "running"
            assert state["eta"]["seconds"] is not None or "commit" in state["eta"]["how"]
            crawl.send(signal.SIGKILL)
            assert looker.until(lambda state: state["state"] == "interrupted")["counts"]["ok"] == 20
            gate.open()
            assert desk.crawl().code == 0
            state = looker.until(lambda state: state["state"] == "complete")
            assert state["counts"]["ok"] == 25
            assert state["point"][1] == 25, "the counts over time go on where they stood"


def _begun(desk: Desk, crawl: Running) -> bool:
    return desk.lab.site.stats.wait(lambda: len(desk.lab.requests("/held")) > 0, 60) and crawl.process.poll() is None


def test_shards_are_added_up(desk: Desk) -> None:
    desk.write([desk.lab.url(f"/ok?n={n}", n % 3 + 1) for n in range(30)])
    for number in (1, 2):
        run("crawl", "l.txt", "--shard", f"{number}/2", "-o", f"s{number}.jsonl", folder=desk.folder)
    told = report(desk, "s1.jsonl", "s2.jsonl")
    for names in (["s1.jsonl", "s2.jsonl"], ["s?.jsonl"]):
        with watched(desk, *names) as running:
            state = next(Looker(address_of(running)).states())
        assert state["counts"]["ok"] == told["ok"] == 30
        assert state["state"] == "complete"
        assert [shard["shard"] for shard in state["shards"]] == ["1/2", "2/2"]
        assert state["point"][1] == 30
    with watched(desk, "s1.jsonl") as running:
        state = next(Looker(address_of(running)).states())
    assert (state["shards"], state["counts"]["ok"]) == (None, told["shards"][0]["ok"])


def test_a_ledger_that_is_gone_is_told_and_may_come_back(desk: Desk) -> None:
    some(desk)
    desk.crawl()
    job = desk.folder / "pages.jsonl.job"
    with watched(desk, "pages.jsonl") as running:
        looker = Looker(address_of(running))
        assert looker.until(lambda state: state["trouble"] is None)["counts"]["ok"] == 20
        shutil.move(job, desk.folder / "away")
        state = looker.until(lambda state: state["trouble"] is not None)
        assert "missing" in state["trouble"]
        assert state["counts"]["ok"] == 20, "as it last was"
        shutil.move(desk.folder / "away", job)
        assert looker.until(lambda state: state["trouble"] is None)["counts"]["ok"] == 20


def test_what_is_no_job_is_said_before_anything_is_served(desk: Desk) -> None:
    ended = run("watch", "nowhere.jsonl", folder=desk.folder)
    assert (ended.code, "there is no job or output of that name" in ended.said) == (2, True)
    some(desk)
    desk.crawl()
    with closing(sqlite3.connect(desk.folder / "pages.jsonl.job" / "ledger.sqlite")) as db:
        db.execute("PRAGMA user_version = 99")
    ended = run("watch", "pages.jsonl", folder=desk.folder)
    assert (ended.code, "was written by another version (format 99" in ended.said) == (1, True)
    ended = run("watch", "pages.jsonl", "--live-at", "x", folder=desk.folder)
    assert (ended.code, "no [HOST:]PORT" in ended.said) == (2, True)


# The life of a job, without one


def row(run_: int, at: float, seconds: float, ok: int) -> PaceRow:
    return PaceRow(run_, at, seconds, ok, 0, 0, ok * 10, 1)


def test_runs_stand_one_after_another_whatever_lies_between() -> None:
    pace = [row(1, 100.0, 0.0, 0), row(1, 110.0, 10.0, 50), row(2, 9_000.0, 5.0, 20), row(2, 9_005.0, 10.0, 40)]
    points, marks = _life_of([pace])
    assert [(point.seconds, point.ok, point.bytes) for point in points[1:]] == [
        (0.0, 0, 0), (10.0, 50, 500), (15.0, 70, 700), (20.0, 90, 900)
    ]  # fmt: skip
    assert marks == [0.0, 10.0]


def test_shards_stand_beside_each_other_and_a_clock_that_is_set_back_goes_nowhere() -> None:
    one = [row(1, 100.0, 0.0, 0), row(1, 110.0, 10.0, 50), row(1, 60.0, 20.0, 60), row(1, 120.0, 30.0, 70)]
    other = [row(1, 105.0, 0.0, 0), row(1, 115.0, 10.0, 30)]
    points, _ = _life_of([one, other])
    times = [point.seconds for point in points]
    assert times == sorted(times)
    assert points[-1].ok == 100
    assert all(after.ok >= before.ok for before, after in pairwise(points))


def test_a_job_without_a_life_has_no_points() -> None:
    assert _life_of([[]]) == ([], [])
