"""Parquet by the command line: a file or a folder of parts, gone on with after a kill, retried, and what is refused."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.lab.command import Running, as_said, run
from tests.lab.desk import Desk
from tests.lab.server import LabServer
from tests.test_cli_retry import Moody

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")

PLACES = {"pages.parquet": (), "pages/": ("-f", "parquet", "--part-rows", "3")}
each_place = pytest.mark.parametrize("to", PLACES)


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread() as server:
        yield server


@pytest.fixture
def desk(lab: LabServer, tmp_path: Path) -> Desk:
    return Desk(lab, tmp_path)


def read(path: Path) -> list[dict[str, Any]]:
    """The records in the order of their rows, each of which has one."""
    files = sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]
    found = [record for file in files for record in pq.read_table(file).to_pylist()]
    found.sort(key=lambda record: int(record["id"]))
    ids = [record["id"] for record in found]
    assert len(ids) == len(set(ids)), f"rows with two records: {ids}"
    return found


def test_it_holds_what_json_lines_hold(desk: Desk) -> None:
    rows = [*desk.urls("1", "2"), *desk.urls("3", path="/status/404")]
    (desk.folder / "l.csv").write_text("url,sku\n" + "".join(f"{url},0{n}\n" for n, url in enumerate(rows)))
    words = ["-o", "pages.parquet", "--select", "t=title", "--select", "all[]=p", "--keep-headers", "content-type"]
    assert desk.crawl(*words, listed="l.csv").code == 0
    records, found = desk.records(), read(desk.folder / "pages.parquet")
    assert len(found) == 3
    for row, record in zip(found, records, strict=True):
        same = [*{*record} - {"fields", "data", "fetched_at", "headers"}]
        assert {name: row[name] for name in same} == {name: record[name] for name in same}
        assert row["sku"] == record["fields"]["sku"]
        assert (row["t"], row["all"]) == (
            (record["data"]["t"], record["data"]["all"]) if record["data"] else (None, None)
        )
        assert dict(row["headers"]) == record["headers"]
        assert row["fetched_at"].isoformat(timespec="milliseconds").replace("+00:00", "Z") == record["fetched_at"]
    assert "fields" not in found[0] and "data" not in found[0], "all have columns of their own"


@each_place
def test_a_job_that_is_killed_goes_on(to: str, desk: Desk) -> None:
    gate = desk.hold()
    desk.write([*desk.urls(*"12345"), desk.lab.url("/held?n=h")])
    words = desk.words(*PLACES[to], to=to)
    with Running(*words, folder=desk.folder) as running:
        desk.until_asked()
        desk.until_written(5, to.rstrip("/"))
        running.send(signal.SIGKILL)
        running.end()
    gate.open()
    place = desk.folder / to
    assert not place.is_file() and len(read(place) if place.is_dir() else []) <= 3, "what is seen is whole"
    ended = desk.crawl(*PLACES[to], to=to)
    assert ended.code == 0
    assert ended.said.startswith(f"fetcher: continuing {to.rstrip('/')}.job: 5 rows are done")
    assert [record["id"] for record in read(place)] == [1, 2, 3, 4, 5, 6]
    job = desk.folder / f"{to.rstrip('/')}.job"
    assert {path.name for path in job.iterdir()} == {"ledger.sqlite", "lock", "parsing"}
    before = desk.files()
    assert desk.crawl(*PLACES[to], to=to).code == 0
    assert {name: data for name, data in desk.files().items() if ".parquet" in name and ".job" not in name} == {
        name: data for name, data in before.items() if ".parquet" in name and ".job" not in name
    }


@each_place
def test_failures_are_retried_and_lists_grow(to: str, desk: Desk) -> None:
    moody = Moody()
    desk.lab.add("/moody", moody)
    ill = [desk.lab.url(f"/moody?as=/status/404&n={name}") for name in "xy"]
    desk.write([*desk.urls(*"1234"), *ill])
    assert desk.crawl(*PLACES[to], to=to).code == 0
    assert [record["error"] for record in read(desk.folder / to)] == [None] * 4 + ["http_404"] * 2
    moody.well = True
    desk.asked()
    assert desk.crawl("--retry-failed", *PLACES[to], to=to).code == 0
    assert desk.asked() == ["x", "y"]
    assert [record["error"] for record in read(desk.folder / to)] == [None] * 6
    desk.write([*desk.urls(*"1234"), *ill, *desk.urls("7")])
    assert desk.crawl(*PLACES[to], to=to).code == 0
    assert len(read(desk.folder / to)) == 7
    desk.pages("new")
    assert desk.crawl("--fresh", *PLACES[to], to=to).code == 0
    assert [record["id"] for record in read(desk.folder / to)] == [1]


@each_place
def test_an_edited_output_is_refused(to: str, desk: Desk) -> None:
    desk.pages(*"12")
    assert desk.crawl(*PLACES[to], to=to).code == 0
    place = desk.folder / to
    file = place / "part-00001.parquet" if place.is_dir() else place
    file.write_bytes(file.read_bytes() + b"more")
    desk.asked()
    desk.pages(*"123")
    ended = desk.crawl(*PLACES[to], to=to)
    assert ended.code == 1
    assert "was changed since" in ended.said
    assert ended.said.splitlines()[-1].endswith("put it back as it was, or begin again with --fresh")
    assert desk.asked() == []


def test_without_a_job(desk: Desk) -> None:
    desk.pages(*"123")
    assert desk.crawl("--no-job", to="pages.parquet").code == 0
    assert [record["id"] for record in read(desk.folder / "pages.parquet")] == [1, 2, 3]
    ended = desk.crawl("--no-job", to="pages.parquet")
    assert (ended.code, ended.said) == (2, "fetcher: pages.parquet exists; use --fresh to overwrite it\n")
    assert {path.name for path in desk.folder.iterdir()} == {"l.txt", "s.json", "pages.parquet"}


@each_place
def test_report_finds_the_job(to: str, desk: Desk) -> None:
    desk.pages(*"12")
    assert desk.crawl(*PLACES[to], to=to).code == 0
    ended = run("report", to, "--json", folder=desk.folder)
    assert ended.code == 0
    found = json.loads(ended.text)
    assert found["ok"] == 2
    files = desk.folder.glob(f"{to}*" if to.endswith("/") else to)
    assert [output["position"] for output in found["outputs"]] == [sum(path.stat().st_size for path in files)]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["-o", "-", "-f", "parquet"], 2, "standard output: parquet is no stream: name a file with -o, such as pages.parquet"),
        (["-f", "parquet"], 2, "standard output: parquet is no stream: name a file with -o, such as pages.parquet"),
        (["-o", "a.parquet.gz"], 2, "a.parquet.gz: parquet is not packed while it is written: leave out .gz"),
        (["-o", "d.parquet"], 1, "d.parquet: is a folder; name a file in it, or write d.parquet/ for a folder of parts"),
        (["-o", "d"], 1, "d: is a folder; name a file in it, such as d/pages.jsonl, or give -f parquet for a folder of parts"),
        (["-o", "d", "-f", "jsonl"], 1, "d: is a folder; name a file in it, such as d/pages.jsonl, or give -f parquet for a folder of parts"),
        (["-o", "d", "-f", "parquet"], 2, "d: holds 'theirs', which is no part of ours: name a new or an empty folder"),
        (["-o", "e/", "-o", "e", "-f", "parquet"], 2, "output: e is given twice (as e/)"),
        (["-o", "no/a.parquet"], 1, "no/a.parquet: the folder no does not exist"),
        (["-o", "l.txt/", "-f", "parquet"], 1, "l.txt/: is no folder: leave out the / at its end to write one file"),
    ],
)  # fmt: skip
def test_bad_places_are_refused_before_the_first_request(words: list[str], code: int, message: str, desk: Desk) -> None:
    desk.pages("1")
    for name in ("d", "d.parquet", "e"):
        (desk.folder / name).mkdir()
    (desk.folder / "d" / "theirs").write_text("")
    ended = run("crawl", "l.txt", *words, folder=desk.folder)
    assert (ended.code, ended.said) == (code, f"fetcher: {as_said(message)}\n")
    assert desk.asked() == []
