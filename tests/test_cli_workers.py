"""``--workers`` as a real process: what it writes, how it ends, and that the number may change from run to run.

The server's log is the judge of what was fetched.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.lab.command import Running, run
from tests.lab.desk import Desk
from tests.lab.server import LabServer
from tests.sweeps.processes import alive, workers_of

TIMES = ("elapsed", "waited", "fetched_at")


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread(hosts=8) as server:
        yield server


@pytest.fixture
def desk(lab: LabServer, tmp_path: Path) -> Desk:
    return Desk(lab, tmp_path)


def mixed(lab: LabServer) -> list[str]:
    urls = [lab.url(f"/ok?n={n}&title=t{n}", 1 + n % 8) for n in range(24)]
    urls += [lab.url(f"/hops/3?hosts=8&n={n}", 1 + n % 8) for n in range(8)]
    return [*urls, lab.url("/status/404", 2), "http://[::1", lab.url("/control", 3)]


def without_times(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name not in TIMES} for record in records]


def test_the_records_are_those_of_one_process(desk: Desk) -> None:
    desk.write(mixed(desk.lab))
    outputs = [word for name in ("b.csv", "c.sqlite", "d.txt") for word in ("-o", name)]
    found = {}
    for workers in ("1", "3"):
        ended = desk.crawl("--workers", workers, *outputs, "--fresh", "--body", "bodies", "--with", "meta")
        assert ended.code == 0, ended.said
        with closing(sqlite3.connect(desk.folder / "c.sqlite")) as database:
            rows = sorted(database.execute("select id, url, status, title, error from pages"))
        texts = sorted((desk.folder / "d.txt").read_text().splitlines())
        lines = sorted(line.split(",")[:5] for line in (desk.folder / "b.csv").read_text().splitlines())
        bodies = sorted(path.name for path in (desk.folder / "bodies").rglob("*.*"))
        found[workers] = without_times(desk.records()), rows, texts, lines, bodies
    for one, three in zip(found["1"], found["3"], strict=True):
        assert one == three


def test_an_archive_has_the_messages_of_all_hops(desk: Desk) -> None:
    pytest.importorskip("fastwarc")
    desk.write([desk.lab.url(f"/hops/3?hosts=8&n={n}", 1 + n % 8) for n in range(8)])
    assert run("crawl", "l.txt", "-o", "p.warc.gz", "--workers", "2", folder=desk.folder).code == 0
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    with open(desk.folder / "p.warc.gz", "rb") as file:
        answers = sum(1 for _ in ArchiveIterator(file, record_types=WarcRecordType.response))
    assert answers == 8 * 4


@pytest.mark.parametrize(("first", "then"), [("3", "1"), ("1", "2"), ("2", "4")])
def test_the_number_may_change_from_run_to_run(first: str, then: str, desk: Desk) -> None:
    desk.write([desk.lab.url(f"/delay/20/ok?n={n}", 1 + n % 8) for n in range(200)])
    with Running(*desk.words("--workers", first), folder=desk.folder) as running:
        assert desk.lab.site.stats.wait(lambda: len(desk.lab.log) >= 80, 60)
        workers = workers_of(running.process.pid)
        assert len(workers) == (0 if first == "1" else int(first))
        os.kill(running.process.pid, signal.SIGKILL)
        running.end()
        assert alive(workers, 25.0) == [], "a worker without its parent stops"
    ended = desk.crawl("--workers", then)
    assert ended.code == 0, ended.said
    assert sorted(record["id"] for record in desk.records()) == list(range(1, 201))


def test_a_retry_and_a_run_that_compares_have_workers(desk: Desk) -> None:
    urls = [desk.lab.url(f"/flaky/{n}?fail=1&status=500", 1 + n % 8) for n in range(16)]
    desk.write([*urls, *(desk.lab.url(f"/ok?n={n}", 1 + n % 8) for n in range(8))])
    assert desk.crawl("--workers", "2").code == 0
    assert desk.stats()["failed"] == 16
    ended = desk.crawl("--workers", "3", "--retry-failed")
    assert ended.code == 0
    assert (desk.stats()["ok"], desk.stats()["failed"]) == (24, 0)
    ended = desk.crawl("--workers", "2", "--since", "pages.jsonl", to="again.jsonl")
    assert ended.code == 0, ended.said
    assert {record["change"] for record in desk.records("again.jsonl")} == {"unchanged"}


@pytest.mark.parametrize(("signals", "code"), [((signal.SIGINT,), 130), ((signal.SIGTERM,), 143)])
def test_a_run_that_is_interrupted_is_whole(signals: tuple[int, ...], code: int, desk: Desk) -> None:
    desk.write([desk.lab.url(f"/delay/30/ok?n={n}", 1 + n % 8) for n in range(400)])
    with Running(*desk.words("--workers", "2"), folder=desk.folder) as running:
        assert desk.lab.site.stats.wait(lambda: len(desk.lab.log) >= 60, 60)
        workers = workers_of(running.process.pid)
        for number in signals:
            os.kill(running.process.pid, number)
        ended = running.end()
    assert ended.code == code, ended.said
    assert alive(workers, 25.0) == []
    desk.balance(code)
    assert "to continue: " in ended.said
    assert desk.crawl("--workers", "2").code == 0
    assert sorted(record["id"] for record in desk.records()) == list(range(1, 401))


def test_a_time_limit_holds(desk: Desk) -> None:
    desk.write([desk.lab.url(f"/delay/{10 if n < 60 else 60000}/ok?n={n}", 1 + n % 8) for n in range(200)])
    began = time.monotonic()
    ended = desk.crawl("--workers", "2", "--time-limit", "4")
    assert ended.code == 4, ended.said
    assert time.monotonic() - began < 50
    desk.balance(4)


def test_what_is_in_flight_is_shown(desk: Desk) -> None:
    urls = [desk.lab.url("/delay/60000/ok", n) for n in range(1, 5)]
    desk.write(urls)
    with Running(*desk.words("--workers", "2"), folder=desk.folder) as running:
        assert desk.lab.site.stats.wait(lambda: len(desk.lab.log) >= 4, 60)
        time.sleep(2.5)  # a worker tells once a second
        os.kill(running.process.pid, signal.SIGUSR1)
        running.until_said("in flight: 4")
        os.kill(running.process.pid, signal.SIGINT)
        os.kill(running.process.pid, signal.SIGINT)
        running.end()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--workers", "0"], "workers 0: must be at least 1"),
        (["--workers", "-1"], "workers -1: must be at least 1"),
        (["--workers", "many"], "workers many: must be a whole number"),
        (["--workers", "2", "--ordered", "--body", "inline"], "workers: in the order of the list"),
        (["--workers", "2", "--per-address", "1"], "workers: per-address would be counted in each"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], said: str, desk: Desk) -> None:
    desk.pages(1)
    ended = run("crawl", "l.txt", "-o", "p.jsonl", *words, folder=desk.folder)
    assert (ended.code, desk.lab.log) == (2, [])
    assert said in ended.said
    assert not (desk.folder / "p.jsonl").exists()


def test_more_than_there_are_rows_or_cores(desk: Desk) -> None:
    desk.write([desk.lab.url(f"/ok?n={n}", 1 + n) for n in range(3)])
    ended = desk.crawl("--workers", "400")
    assert ended.code == 0
    assert "warning: --workers 400: that is more than 4 for each core" in ended.said
    assert [record["id"] for record in desk.records()] == [1, 2, 3]
