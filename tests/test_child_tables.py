"""Links and images as tables of their own: in SQLite in the same file, in Parquet beside it, as durable as their pages."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fetcher.model import Page, Request
from fetcher.sinks import Layout, companions, open_job_outputs
from fetcher.sinks.child_tables import companion_path
from fetcher.sinks.job_output import KeptRecords, KeptRow
from tests.lab.command import Running, run
from tests.lab.desk import Desk
from tests.lab.exchange import Exchange
from tests.lab.server import LabServer
from tests.lab.versioned import VersionedSite

LINKS = ["url", "text", "rel", "internal"]
IMAGES = ["url", "alt", "srcset", "width", "height"]
PLACES = {
    "pages.parquet": (),
    "pages/": ("-f", "parquet", "--part-rows", "3"),
    "pages.sqlite": (),
}
WITH = ("--with", "links,images")
each_place = pytest.mark.parametrize("to", PLACES)


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread() as server:
        yield server


@pytest.fixture
def desk(lab: LabServer, tmp_path: Path) -> Desk:
    return Desk(lab, tmp_path)


def serve(desk: Desk) -> list[str]:
    """Serve pages with as many links and images as their names say, and return the URLs of five, and of what has none."""

    async def reply(exchange: Exchange) -> None:
        count = int(exchange.number("n", 0))
        body = "".join(
            f'<a href="/to?{n}" rel="{"nofollow" if n else ""}">t{n}</a><img src="i{n}.png" alt="a" width={n} '
            f'srcset="s.png 2x, b.png 3x">'
            for n in range(count)
        )
        await exchange.reply(f"<title>{count}</title>{body}", headers=[("Content-Type", "text/html")])

    desk.lab.add("/many", reply)
    return [*(desk.lab.url(f"/many?n={n}") for n in (3, 0, 5, 1, 2)), desk.lab.url("/status/404")]


def table(folder: Path, to: str, name: str) -> list[dict[str, Any]]:
    """The rows of a child table, in the order of pages and positions; each is there once."""
    if to.endswith(".sqlite"):
        with closing(sqlite3.connect(folder / to)) as db:
            db.row_factory = sqlite3.Row
            found = [dict(row) for row in db.execute(f"SELECT * FROM {name}")]
        for row in found:
            if "srcset" in row:
                row["srcset"] = json.loads(row["srcset"])
            else:
                row["internal"] = bool(row["internal"])
    else:
        place = folder / companion_path(to, name)
        files = sorted(place.glob("part-*.parquet")) if place.is_dir() else [place]
        found = [row for file in files for row in pq.read_table(file).to_pylist()]
    found.sort(key=lambda row: (row["id"], row["position"]))
    keys = [(row["id"], row["position"]) for row in found]
    assert len(keys) == len(set(keys)), f"twice: {keys}"
    return found


def counts(folder: Path, to: str, name: str) -> dict[int, int]:
    found: dict[int, int] = {}
    for row in table(folder, to, name):
        assert row["position"] == found.get(row["id"], 0), "positions count from 0"
        found[row["id"]] = row["position"] + 1
    return found


@each_place
def test_each_link_and_image_is_a_row(to: str, desk: Desk) -> None:
    desk.write(serve(desk))
    assert desk.crawl(*WITH, *PLACES[to], to=to).code == 0
    assert desk.crawl(*WITH, to="same.jsonl").code == 0
    for name, column, keys in (("links", "link_list", LINKS), ("images", "image_list", IMAGES)):
        rows = table(desk.folder, to, name)
        assert list(rows[0]) == ["id", "position", *keys]
        expected = [
            {"id": record["id"], "position": position, **item}
            for record in sorted(desk.records("same.jsonl"), key=lambda record: int(record["id"]))
            for position, item in enumerate(record[column] or ())
        ]
        assert rows == expected
        assert len(rows) == 11
    report = json.loads(run("report", f"{to.rstrip('/')}.job", "--json", folder=desk.folder).out)
    beside = [] if to.endswith(".sqlite") else [companion_path(to, name) for name in ("links", "images")]
    assert [output["path"] for output in report["outputs"]] == [to, *beside]


def test_types_are_those_of_the_values_and_the_column_is_not_there_twice(desk: Desk) -> None:
    desk.write(serve(desk))
    assert desk.crawl(*WITH, "-o", "p.sqlite", to="p.parquet").code == 0
    assert pq.read_schema(desk.folder / "p.links.parquet").remove_metadata() == pa.schema([
        ("id", pa.int64()), ("position", pa.int64()), ("url", pa.string()), ("text", pa.string()),
        ("rel", pa.string()), ("internal", pa.bool_()),
    ])  # fmt: skip
    images = pq.read_schema(desk.folder / "p.images.parquet")
    assert (images.field("srcset").type, images.field("width").type) == (pa.list_(pa.string()), pa.int64())
    assert "link_list" not in pq.read_schema(desk.folder / "p.parquet").names
    with closing(sqlite3.connect(desk.folder / "p.sqlite")) as db:
        columns = [name for _, name, *_ in db.execute("pragma table_info(pages)")]
        joined = db.execute("SELECT count(*) FROM pages JOIN links USING (id) WHERE pages.links = 5").fetchone()
    assert ("link_list" in columns, "image_list" in columns, joined) == (False, False, (5,))


def test_a_list_of_a_page_that_is_called_so_gives_way(desk: Desk) -> None:
    desk.write(serve(desk))
    assert desk.crawl("--with", "links", "--select", "links[]=a", to="p.sqlite").code == 0
    with closing(sqlite3.connect(desk.folder / "p.sqlite")) as db:
        assert db.execute("SELECT count(*), max(value) FROM data_links").fetchone() == (11, "t4")
        assert db.execute("SELECT count(*) FROM links").fetchone() == (11,)
    site_free = desk.crawl("--with", "links", "--select", "links[]=a", "--since", "p.sqlite", to="n.jsonl")
    assert "without" not in site_free.said
    assert [len(record["link_list"]) for record in desk.records("n.jsonl") if record["error"] is None] == [
        3,
        0,
        5,
        1,
        2,
    ]


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@each_place
def test_a_kill_loses_none_and_doubles_none(to: str, desk: Desk) -> None:
    gate = desk.hold()
    desk.write([*serve(desk), desk.lab.url("/held?n=h")])
    with Running(*desk.words(*WITH, *PLACES[to], to=to), folder=desk.folder) as running:
        desk.until_asked()
        desk.until_written(6, to.rstrip("/"))
        running.send(signal.SIGKILL)
        running.end()
    gate.open()
    assert desk.crawl(*WITH, *PLACES[to], to=to).code == 0
    for name in ("links", "images"):
        assert counts(desk.folder, to, name) == {1: 3, 3: 5, 4: 1, 5: 2}
    job = desk.folder / f"{to.rstrip('/')}.job"
    assert {path.name for path in job.iterdir()} == {"ledger.sqlite", "lock", "parsing"}


@each_place
def test_a_retry_has_the_rows_of_its_page(to: str, desk: Desk) -> None:
    well = False

    async def moody(exchange: Exchange) -> None:
        await exchange.become("/many?n=2" if well else "/status/404")

    desk.lab.add("/moody", moody)
    desk.write([desk.lab.url("/moody"), *serve(desk)[:5]])
    assert desk.crawl(*WITH, *PLACES[to], to=to).code == 0
    assert counts(desk.folder, to, "links") == {2: 3, 4: 5, 5: 1, 6: 2}
    well = True
    assert desk.crawl(*WITH, "--retry-failed", *PLACES[to], to=to).code == 0
    assert counts(desk.folder, to, "links") == {1: 2, 2: 3, 4: 5, 5: 1, 6: 2}
    assert counts(desk.folder, to, "images") == {1: 2, 2: 3, 4: 5, 5: 1, 6: 2}


@each_place
def test_a_fresh_run_has_none_of_the_old(to: str, desk: Desk) -> None:
    urls = serve(desk)
    desk.write(urls)
    assert desk.crawl(*WITH, *PLACES[to], to=to).code == 0
    desk.write(urls[3:])
    assert desk.crawl("--with", "links", "--fresh", *PLACES[to], to=to).code == 0
    assert counts(desk.folder, to, "links") == {1: 1, 2: 2}
    if not to.endswith(".sqlite"):
        assert not (desk.folder / companion_path(to, "images")).exists(), "it would be taken for this run's"


def test_what_is_not_ours_is_left_alone(desk: Desk) -> None:
    desk.write(serve(desk))
    theirs = desk.folder / "p.links.parquet"
    pq.write_table(pa.table({"a": [1]}), theirs)
    before = theirs.read_bytes()
    ended = desk.crawl(*WITH, to="p.parquet")
    assert (ended.code, "p.links.parquet exists; use --fresh to overwrite it" in ended.said) == (2, True)
    assert desk.crawl(to="p.parquet").code == 0
    assert desk.crawl("--fresh", to="p.parquet").code == 0
    assert theirs.read_bytes() == before
    ended = run(*desk.words(*WITH, "-o", "p.links.parquet", "--fresh", to="p.parquet"), folder=desk.folder)
    assert (ended.code, "output: p.links.parquet is given twice" in ended.said) == (2, True)


def test_a_companion_that_was_changed_is_refused_with_what_to_do(desk: Desk) -> None:
    urls = serve(desk)
    desk.write(urls)
    assert desk.crawl(*WITH, to="p.parquet").code == 0
    desk.write([*urls, desk.lab.url("/many?n=9")])
    (desk.folder / "p.links.parquet").unlink()
    ended = desk.crawl(*WITH, to="p.parquet")
    assert (ended.code, "p.links.parquet: is missing: put it back as it was" in ended.said) == (1, True), ended.said


@pytest.mark.parametrize("to", ["p.parquet", "p.sqlite"])
def test_without_a_job_they_are_there_as_well(to: str, desk: Desk) -> None:
    desk.write(serve(desk))
    assert desk.crawl(*WITH, "--no-job", to=to).code == 0
    assert counts(desk.folder, to, "images") == {1: 3, 3: 5, 4: 1, 5: 2}


@each_place
def test_pages_that_have_not_changed_keep_their_rows(to: str, desk: Desk) -> None:
    site = VersionedSite("a", "b", "c", by="etag")
    desk.lab.site.own["", "/versioned"] = site
    desk.write(desk.urls("a", "b", "c", path="/versioned"))
    assert desk.crawl(*WITH, to="plain.jsonl").code == 0
    assert desk.crawl(*WITH, *PLACES[to], to=to).code == 0
    site.told.clear()
    assert desk.crawl(*WITH, "--since", to.rstrip("/"), "-o", "new.sqlite", to="new.jsonl").code == 0
    assert site.told == {304: 3}
    was, now = desk.records("plain.jsonl"), desk.records("new.jsonl")
    assert all(record["link_list"] and record["image_list"] for record in was)
    for column in ("link_list", "image_list"):
        assert [record[column] for record in now] == [record[column] for record in was]
    assert counts(desk.folder, "new.sqlite", "links") == {1: 1, 2: 1, 3: 1}


def test_a_companion_of_another_run_is_seen(desk: Desk) -> None:
    desk.write(serve(desk))
    assert desk.crawl(*WITH, to="p.parquet").code == 0
    other = pq.read_table(desk.folder / "p.links.parquet")
    ids = pa.array([id_ + 100 for id_ in other["id"].to_pylist()])
    pq.write_table(other.set_column(0, "id", ids), desk.folder / "p.links.parquet")
    ended = desk.crawl(*WITH, "--since", "p.parquet", to="n.jsonl")
    assert (ended.code, "p.links.parquet: is not of the same run as p.parquet" in ended.said) == (2, True), ended.said


def test_a_pattern_does_not_mean_a_companion(desk: Desk) -> None:
    desk.write(serve(desk))
    assert desk.crawl(*WITH, to="pages-1.parquet").code == 0
    os.utime(desk.folder / "pages-1.links.parquet", (2e9, 2e9))
    ended = desk.crawl(*WITH, "--since", "pages-*.parquet", to="pages-2.parquet")
    assert (ended.code, "--since pages-1.parquet: 5 pages" in ended.said) == (0, True), ended.said


def test_what_is_in_a_file_is_extracted_into_them(desk: Desk) -> None:
    desk.write(serve(desk))
    assert desk.crawl("--body", "inline", to="stored.jsonl").code == 0
    assert run("extract", "stored.jsonl", "-o", "p.parquet", "-o", "p.sqlite", *WITH, folder=desk.folder).code == 0
    for to in ("p.parquet", "p.sqlite"):
        assert counts(desk.folder, to, "links") == {1: 3, 3: 5, 4: 1, 5: 2}


def test_an_exploded_page_has_its_links_once(desk: Desk) -> None:
    desk.write(serve(desk))
    words = ("--select", "t[]=a", "--explode", "t", "-o", "p.sqlite")
    assert desk.crawl(*WITH, *words, to="p.parquet").code == 0
    for to in ("p.parquet", "p.sqlite"):
        assert counts(desk.folder, to, "links") == {1: 3, 3: 5, 4: 1, 5: 2}


@pytest.mark.parametrize("path", ["a.sqlite", "a.parquet"])
def test_values_of_a_program_cost_themselves_alone(path: str, tmp_path: Path) -> None:
    layout = Layout(columns=("id", "url", "link_list", "image_list"))
    outputs = open_job_outputs([tmp_path / path], layout, work=lambda number: f"{tmp_path}/w{number}")
    items = [
        {"url": "http://h/\ud800", "text": 5, "rel": ["a"], "internal": None},
        "no record",
        {"url": None, "text": "t", "internal": True, "more": 1},
    ]
    images = [{"url": "u", "alt": "\ud800", "srcset": "no list", "width": 2**70, "height": "x"}]
    page = Page(Request(1, "http://h/"), "http://h/", 200, content={"link_list": items, "image_list": images})
    odd = Page(Request(2, "http://h/"), "http://h/", 200, content={"link_list": "none", "image_list": None})
    for output in outputs:
        output.create()
        output.append([output.encode(page), output.encode(odd)])
        output.complete()
        output.settle()
        output.discard()
    if path.endswith(".sqlite"):
        with closing(sqlite3.connect(tmp_path / path)) as db:
            rows = db.execute("SELECT id, position, url, text, rel, internal FROM links ORDER BY 1, 2").fetchall()
    else:
        rows = [tuple(row.values()) for row in pq.read_table(tmp_path / "a.links.parquet").to_pylist()]
    assert rows == [(1, 0, "http://h/\ufffd", "5", '["a"]', None), (1, 1, None, "t", None, True)]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a.parquet", "a.links.parquet"),
        ("A.PARQUET", "A.links.PARQUET"),
        ("a.b/c.parquet/", "a.b/c.links.parquet/"),
        ("d/pages/", "d/pages.links/"),
        ("data", "data.links"),
    ],
)
def test_where_a_companion_lies(path: str, found: str) -> None:
    assert companion_path(path, "links") == found


def test_only_parquet_has_companions() -> None:
    columns = ("link_list",)
    assert [companions(path, columns) for path in ("a.jsonl", "a.sqlite", "a.csv")] == [[], [], []]
    assert [place for _, place in companions("a.parquet", columns)] == ["a.links.parquet"]
    assert companions("a.parquet", ("text",)) == []


def test_rows_without_records_are_passed_over() -> None:
    rows = [KeptRow(1, kept=True), KeptRow(2, kept=False), KeptRow(3, kept=True)]
    kept = KeptRecords(iter(rows), "some")
    assert kept.of([1, 1, 3]) == [True, True, True]
    kept.end()
    assert KeptRecords(iter(rows), "some").of([2, 2]) == [False, False]
    with pytest.raises(ValueError, match="more records"):
        KeptRecords(iter(rows), "some").of([3, 1])
