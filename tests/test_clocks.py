"""A clock that is set back: no figure is below zero, whoever shows it."""

from __future__ import annotations

import asyncio
import json
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from fetcher.errors import FetchError
from fetcher.job.ledger import Ledger
from fetcher.job.report import report
from fetcher.model import Failure, Page, Request
from fetcher.report import progress
from fetcher.report.progress import Progress, describe_in_flight
from fetcher.report.summary import human_seconds, summarize
from fetcher.request_state import RequestState, snapshot_of
from fetcher.sinks import Mark, to_json, to_record
from fetcher.stats import Stats
from fetcher.urls import parse
from tests.lab.ledger_rows import entry, so_far


def set_back(monkeypatch: pytest.MonkeyPatch, where: Any) -> None:
    """Let each look at the clock be an hour earlier than the one before."""
    hours = count(1)
    monkeypatch.setattr(where, "monotonic", lambda: 1e6 - 3_600 * next(hours))


def test_the_summary_and_its_words() -> None:
    stats = Stats()
    stats.input = stats.ok = 3
    summary = summarize(stats, -5.0)
    assert (summary.seconds, summary.pages_per_second) == (0.0, 0.0)
    assert "in 0.0 s" in summary.as_text()
    assert [human_seconds(seconds) for seconds in (-0.1, -61.0, -7_200.0)] == ["0.0 s"] * 3


def test_a_record() -> None:
    request = Request(1, "http://a.example/")
    page = Page(request, request.url, 200, elapsed=-1.5, waited=-2.0)
    failure = Failure(request, FetchError("http_404"), elapsed=-1.5, waited=-0.0004)
    for outcome in (page, failure):
        record = json.loads(to_json(to_record(outcome)))
        assert (record["elapsed"], record["waited"]) == (0.0, 0.0)


def test_what_is_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    state = RequestState(Request(1, "http://a.example/"), parse("http://a.example/"))
    state.begin(2e6)
    state.stage_since = 2e6
    set_back(monkeypatch, time)
    row = snapshot_of(state)
    assert (row.age, row.in_stage) == (0.0, 0.0)
    assert "-" not in describe_in_flight([row])


async def test_the_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, float]] = []
    enough = asyncio.Event()
    stats = Stats()

    def tell(line: str, **facts: Any) -> None:
        told.append((line, facts["pages_per_second"]))
        stats.ok += 10
        if len(told) == 4:
            enough.set()

    monkeypatch.setattr(progress, "FIRST_LINE_SECONDS", 0.001)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.001)
    stats.input = 100
    clock = SimpleNamespace(monotonic=None)
    set_back(monkeypatch, clock)
    monkeypatch.setattr(progress, "time", clock)
    async with Progress(lambda: stats, lambda: 1, 100, tell=tell):
        async with asyncio.timeout(30):
            await enough.wait()
    assert {rate for _, rate in told} == {0.0}, "nothing is known of a rate"
    assert all("-" not in line and " left" not in line for line, _ in told)


def test_the_ledger_and_its_report(tmp_path: Path) -> None:
    made = Ledger.create(str(tmp_path / "ledger.sqlite"), identity=b"{}", outputs=["a"])
    made.begin_run(1.0)
    rows = [msgspec.structs.replace(entry(number), elapsed=-3.0) for number in range(1, 9)]
    made.commit(rows, [Mark(8, 8, 1)], so_far(8))
    made.end_run(so_far(8), exit=0)
    made.close()
    assert [host.elapsed for host in report(str(tmp_path)).slowest] == [0.0]
