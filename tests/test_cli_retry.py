"""Failures taken up once more: by code, by class or all, with one record a row at every moment."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.command import Running, run
from tests.lab.desk import Desk, plain
from tests.lab.exchange import Exchange
from tests.lab.ports import refused_port
from tests.lab.server import LabServer
from tests.lab.striker import striking

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")


class Moody:
    """A case for ``/moody?as=/PATH&n=NAME``: is that other case until it is well again, and then ``/ok``."""

    def __init__(self) -> None:
        self.well = False

    async def __call__(self, exchange: Exchange) -> None:
        await exchange.become("/ok" if self.well else exchange.text("as"))


ILLS = {
    "a": "/status/404", "b": "/status/410", "c": "/status/503", "d": "/silent", "e": "/reset", "f": "/malformed",
    "g": "/loop",
}  # fmt: skip
"""Rows by what is wrong with them."""
REFUSED = "z"


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread() as server:
        yield server


@pytest.fixture
def moody(lab: LabServer) -> Moody:
    case = Moody()
    lab.add("/moody", case)
    return case


@pytest.fixture
def desk(lab: LabServer, tmp_path: Path) -> Desk:
    return Desk(lab, tmp_path)


def ill(desk: Desk, *names: str) -> list[str]:
    return [desk.lab.url(f"/moody?as={ILLS[name]}&n={name}") for name in names]


@pytest.fixture(scope="module")
def failed(lab: LabServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A job that is complete, with a row of every kind of failure: to be copied."""
    lab.add("/moody", Moody())
    desk = Desk(lab, tmp_path_factory.mktemp("failed"))
    with refused_port() as port:
        desk.write([*desk.urls("1"), *ill(desk, *ILLS), f"http://127.0.0.1:{port}/?n={REFUSED}", *desk.urls("2")])
        assert desk.crawl("--read-timeout", "0.3").code == 0
        assert desk.stats()["failed"] == len(ILLS) + 1
        yield desk.folder


def test_an_output_that_is_a_link_to_another_disk_is_made_anew_there(desk: Desk, moody: Moody) -> None:
    if not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == os.stat(desk.folder).st_dev:
        pytest.skip("there is one disk")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        output = desk.folder / "pages.jsonl"
        output.symlink_to(f"{other}/there.jsonl")
        desk.write([*desk.urls("1"), *ill(desk, "a"), *desk.urls("2")])
        assert desk.crawl().code == 0
        moody.well = True
        ended = desk.crawl("--retry-failed")
        assert (ended.code, desk.stats()["ok"]) == (0, 3), ended.said
        assert sorted(record["id"] for record in desk.records()) == [1, 2, 3]
        assert output.is_symlink()
        assert os.listdir(other) == ["there.jsonl"]


CHOICES = {
    "--retry-failed": "abcdefgz",
    "--retry-codes failed": "abcdefgz",
    "--retry-codes http": "abc",
    "--retry-codes 4xx": "ab",
    "--retry-codes 5xx": "c",
    "--retry-codes 404": "a",
    "--retry-codes http_410": "b",
    "--retry-codes timeout": "d",
    "--retry-codes read_timeout": "d",
    "--retry-codes connect,empty_reply": "ez",
    "--retry-codes connect_refused": "z",
    "--retry-codes malformed_response": "f",
    "--retry-codes redirect": "g",
    "--retry-codes 404,timeout --retry-codes redirect": "adg",
    "--retry-codes dns --retry-codes tls --retry-codes parse": "",
    "--retry-codes 2xx": "",
}


@pytest.mark.parametrize("flags", CHOICES)
def test_what_is_chosen_is_tried_again_and_nothing_else(
    flags: str, failed: Path, moody: Moody, lab: LabServer, tmp_path: Path
) -> None:
    desk = Desk(lab, tmp_path / "job")
    shutil.copytree(failed, desk.folder)
    before = {record["id"]: record for record in desk.records()}
    names = desk.fetched()
    chosen = CHOICES[flags]
    moody.well = True
    ended = desk.crawl(*flags.split())
    assert ended.code == 0, ended.said
    tried = f", {len(chosen)} that failed are tried again" if chosen else ""
    done = len(names) - len(chosen)
    assert (
        ended.said.splitlines()[0].partition(", about ")[0]
        == f"fetcher: continuing pages.jsonl.job: {done} rows are done{tried}"
    )
    assert desk.asked() == sorted(set(chosen) - {REFUSED})
    for record, name in zip(desk.records(), names, strict=True):
        if name in chosen and name != REFUSED:
            assert record["error"] is None
        elif name not in chosen:
            assert record == before[record["id"]], "a record that was not chosen is another"
    assert {path.name for path in (desk.folder / "pages.jsonl.job").iterdir()} == {"ledger.sqlite", "lock", "parsing"}


@pytest.mark.parametrize("to", ["pages.jsonl", "pages.jsonl.gz", "pages.csv", "pages.csv.gz", "pages.txt"])
def test_every_format_is_rewritten(to: str, desk: Desk, moody: Moody) -> None:
    (desk.folder / "l.csv").write_text(
        "url,name\n" + "".join(f'{url},"two\nlines, ""quoted"""\n' for url in [*desk.urls(*"12"), *ill(desk, *"ac")])
    )
    flags = ["--select", "t=title", "--preview", "20"]
    assert desk.crawl(*flags, listed="l.csv", to=to).code == 0
    desk.asked()
    first = plain(desk.folder / to)
    assert desk.crawl("--retry-failed", *flags, listed="l.csv", to=to).code == 0, "they fail again"
    assert desk.asked() == ["a", "c"]
    assert desk.stats()["failed"] == 2
    again = plain(desk.folder / to)
    assert len(again.splitlines()) == len(first.splitlines())
    moody.well = True
    assert desk.crawl("--retry-failed", *flags, listed="l.csv", to=to).code == 0
    text = plain(desk.folder / to).decode()
    if ".csv" in to:
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        assert sorted(row["id"] for row in rows) == [*"1234"]
        assert {row["name"] for row in rows} == {'two\nlines, "quoted"'}
        assert {row["error"] for row in rows} == {""}
    elif ".jsonl" in to:
        assert [record["error"] for record in desk.records(to)] == [None] * 4
    else:
        lines = [line for line in text.splitlines() if not line.startswith(" ")]
        assert len({line.split(" -> ")[0] for line in lines}) == len(lines) == 4
        assert text.count("    t: ok") == 4


def test_what_was_skipped_for_its_host_is_tried_again_and_duplicates_are_not(desk: Desk, moody: Moody) -> None:
    busy = [desk.lab.url(f"/moody?as=/status/429%3Fretry-after=9999&n={name}", host=2) for name in "ab"]
    desk.write([*busy, *desk.urls("1"), busy[0]])
    assert desk.crawl("--dedupe").code == 0
    assert [record["error"] for record in desk.records()] == ["host_budget", "host_budget", None, "duplicate"]
    moody.well = True
    desk.asked()
    ended = desk.crawl("--dedupe", "--retry-failed")
    assert ended.code == 0
    assert desk.asked() == ["a", "b"]
    assert [record["error"] for record in desk.records()] == [None, None, None, "duplicate"]


def test_a_retry_takes_up_what_is_missing_as_well(desk: Desk, moody: Moody) -> None:
    desk.write([*ill(desk, "a"), *desk.urls(*"12")])
    desk.crawl("--limit", "2")
    moody.well = True
    desk.asked()
    assert desk.crawl("--retry-failed").code == 0
    assert desk.asked() == ["2", "a"]


def test_a_retry_of_nothing_leaves_the_output_alone(desk: Desk) -> None:
    desk.pages(*"ab")
    desk.crawl()
    before = (desk.folder / "pages.jsonl").stat()
    ended = desk.crawl("--retry-failed")
    assert ended.code == 0
    assert (
        ended.said.splitlines()[-1] == "fetcher: all rows were done already: nothing was fetched (--fresh begins again)"
    )
    after = (desk.folder / "pages.jsonl").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_retry_of_a_job_that_never_began_fetches_it(desk: Desk) -> None:
    desk.pages(*"ab")
    assert desk.crawl("--retry-failed").code == 0
    assert desk.asked() == ["a", "b"]


@pytest.mark.parametrize("name", ["nope", "6x", "4x", "99", "http_", "ok", "404;500", "\x1b[31m"])
def test_what_is_no_code_is_refused(name: str, desk: Desk) -> None:
    desk.pages("a")
    ended = desk.crawl("--retry-codes", f"404,{name}")
    assert ended.code == 2
    shown = name.replace("\x1b", "\\x1b")
    assert ended.said == (
        f"fetcher: '{shown}' is neither a code nor a class: there are failed, http, 4xx, 5xx, dns, connect, tls, "
        "timeout, protocol, redirect, parse, a status such as 503, and the codes in the README\n"
    )
    assert desk.files().keys() == {"l.txt"}


@pytest.mark.parametrize("flags", ["--retry-failed", "--retry-codes 404", "-o - --retry-failed"])
def test_without_a_job_there_is_nothing_to_retry(flags: str, desk: Desk) -> None:
    desk.pages("a")
    ended = run("crawl", "l.txt", *flags.split(), folder=desk.folder)
    message = "retry-failed: needs a job, as --retry-codes does: an output that is a file (-o), without --no-job"
    desk.refused(ended, message, 2)


# A retry that is interrupted


def test_the_same_command_goes_on_with_an_interrupted_retry(desk: Desk) -> None:
    """What has failed again before the interrupt has had its turn."""
    desk.lab.add("/late", Moody())
    desk.write([*desk.urls("1"), desk.lab.url("/status/404?n=a"), desk.lab.url("/late?as=/status/404&n=x")])
    desk.crawl()
    gate = desk.hold("/late")
    desk.asked()
    with Running(*desk.words("--retry-failed"), folder=desk.folder) as crawl:
        desk.until_asked("/late")
        desk.until_written(2)
        crawl.send(signal.SIGINT)
        crawl.until_said("stopping")
        crawl.send(signal.SIGINT)
        ended = crawl.end()
    assert ended.code == 130
    assert ended.said.splitlines()[-1].endswith(
        "crawl l.txt -o pages.jsonl --retries 0 --summary s.json --retry-failed"
    )
    desk.balance(130)
    assert desk.asked() == ["a", "x"]
    gate.open()
    ended = desk.crawl("--retry-failed")
    assert ended.said.splitlines()[0].partition(", about ")[0] == "fetcher: continuing pages.jsonl.job: 2 rows are done"
    assert desk.asked() == ["x"], "the retry began again"
    assert [record["error"] for record in desk.records()] == [None, "http_404", None]
    # It is complete: from now on it is a new one.
    desk.crawl("--retry-failed")
    assert desk.asked() == ["a"]


def test_a_killed_retry_goes_on_too_and_without_the_flag_as_well(desk: Desk) -> None:
    for flags in ([], ["--retry-failed"]):
        folder = desk.folder / f"with{len(flags)}"
        folder.mkdir()
        job = Desk(desk.lab, folder)
        job.lab.add("/late", Moody())
        job.write([job.lab.url("/status/404?n=a"), job.lab.url("/late?as=/status/404&n=x")])
        job.crawl()
        gate = job.hold("/late")
        job.asked()
        with Running(*job.words("--retry-failed"), folder=job.folder) as crawl:
            job.until_asked("/late")
            job.until_written(1)
            crawl.send(signal.SIGKILL)
            crawl.end()
        gate.open()
        job.asked()
        assert job.crawl(*flags).code == 0
        assert job.asked() == ["x"]


def test_another_retry_is_not_taken_for_the_interrupted_one(desk: Desk) -> None:
    desk.lab.add("/late", Moody())
    desk.write([
        desk.lab.url("/status/404?n=a"), desk.lab.url("/status/500?n=b"), desk.lab.url("/late?as=/status/404&n=x"),
    ])  # fmt: skip
    desk.crawl()
    gate = desk.hold("/late")
    desk.asked()
    with Running(*desk.words("--retry-codes", "404"), folder=desk.folder) as crawl:
        desk.until_asked("/late")
        crawl.send(signal.SIGKILL)
        crawl.end()
    gate.open()
    desk.asked()
    assert desk.crawl("--retry-failed").code == 0
    assert "b" in desk.asked()


# A retry that is killed while it rewrites

POINTS = [
    f"{when} {point}"
    for point in (
        "fetcher.sinks.durable DurableFile.rewrite 1",
        "fetcher.sinks.durable DurableFile.rewrite 2",
        "fetcher.job.ledger Ledger.begin_rewrite 1",
        "fetcher.sinks.durable DurableFile.adopt 1",
        "fetcher.sinks.durable DurableFile.adopt 2",
        "os replace 1",
        "os replace 2",
        "fetcher.job.ledger Ledger.end_rewrite 1",
        "fetcher.job.ledger Ledger.commit 1",
        "fetcher.job.ledger Ledger.retry_done 1",
        "fetcher.job.ledger Ledger.end_run 1",
    )
    for when in ("before", "after")
]


@pytest.fixture(scope="module")
def two(lab: LabServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete job with two outputs and three failures: to be copied."""
    lab.add("/moody", Moody())
    desk = Desk(lab, tmp_path_factory.mktemp("two"))
    desk.write([*desk.urls("1"), *ill(desk, *"acg"), *desk.urls(*"23")])
    assert desk.crawl("-o", "b.csv.gz").code == 0
    return desk.folder


def rows_of(folder: Path) -> tuple[dict[int, str | None], dict[int, str | None]]:
    """Return the rows of both outputs with their errors, and see that none is there twice."""
    lines = (folder / "pages.jsonl").read_bytes()
    assert not lines or lines.endswith(b"\n")
    records = [json.loads(line) for line in lines.splitlines()]
    table = list(csv.DictReader(io.StringIO(plain(folder / "b.csv.gz").decode(), newline="")))
    found = [(record["id"], record["error"]) for record in records]
    other = [(int(row["id"]), row["error"] or None) for row in table]
    for rows in (found, other):
        assert len({row for row, _ in rows}) == len(rows), "a row has two records"
    return dict(found), dict(other)


@pytest.mark.parametrize("point", POINTS)
def test_a_retry_killed_at_any_point_loses_nothing_and_has_nothing_twice(
    point: str, two: Path, moody: Moody, lab: LabServer, tmp_path: Path
) -> None:
    desk = Desk(lab, tmp_path / "job")
    shutil.copytree(two, desk.folder)
    moody.well = True
    words = desk.words("-o", "b.csv.gz", "--retry-failed")
    killed = run(*words, folder=desk.folder, env=striking(point))
    assert killed.code == -signal.SIGKILL, "the point was not reached"
    for rows in rows_of(desk.folder):
        assert {1, 5, 6} <= rows.keys(), "what was good is gone"
        assert all(rows[row] is None for row in (1, 5, 6))
    ended = desk.crawl("-o", "b.csv.gz", "--retry-failed")
    assert ended.code == 0, ended.said
    assert rows_of(desk.folder) == (dict.fromkeys(range(1, 7)), dict.fromkeys(range(1, 7)))
    asked = desk.asked()
    assert set(asked) <= {*"acg"}
    assert len(asked) <= 6, "a row was fetched more than once a run"
    names = {path.name for path in desk.folder.iterdir()}
    assert names == {"l.txt", "s.json", "pages.jsonl", "b.csv.gz", "pages.jsonl.job"}
