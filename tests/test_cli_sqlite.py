"""Jobs into SQLite by the command line: the values of jsonl, resume, retry, fresh, edits and readers."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.lab.command import Running, run
from tests.lab.desk import Desk
from tests.lab.server import LabServer
from tests.lab.striker import striking
from tests.test_cli_retry import Moody

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
OUT = "pages.sqlite"


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread() as server:
        yield server


@pytest.fixture
def desk(lab: LabServer, tmp_path: Path) -> Desk:
    return Desk(lab, tmp_path)


@pytest.fixture
def moody(lab: LabServer) -> Moody:
    case = Moody()
    lab.add("/moody", case)
    return case


def opened(desk: Desk) -> sqlite3.Connection:
    db = sqlite3.connect(f"file:{desk.folder / OUT}?mode=ro", uri=True)
    db.row_factory = sqlite3.Row
    return db


def records(desk: Desk) -> list[dict[str, Any]]:
    with closing(opened(desk)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        return [dict(row) for row in db.execute("SELECT * FROM pages ORDER BY id")]


def names(desk: Desk) -> list[str]:
    return [record["url"].rpartition("=")[2] for record in records(desk)]


def files(desk: Desk) -> set[str]:
    return {path.name for path in desk.folder.iterdir() if path.name.startswith(OUT)}


def test_the_values_are_those_of_jsonl(desk: Desk) -> None:
    urls = [
        *desk.urls(*"ab"), desk.lab.url("/hops/2"), desk.lab.url("/status/404"), desk.lab.url("/ok?type=image/png&charset="),
        "http://[", desk.lab.url("/ok?title=%F0%9F%99%82&links=3", host=2), desk.lab.url("/reset"),
    ]  # fmt: skip
    (desk.folder / "l.csv").write_text(
        "url,sku,URL\n" + "".join(f'{url},"s,{row}",u\n' for row, url in enumerate(urls))
    )
    flags = ["-o", "b.jsonl", "--select", "t=title", "--select", "links[]=a@href", "--select", "n=a:int"]
    assert desk.crawl(*flags, "--keep-headers", "content-type", listed="l.csv", to=OUT).code == 0
    assert files(desk) == {OUT, f"{OUT}.job"}
    lines = desk.records("b.jsonl")
    rows = records(desk)
    with closing(opened(desk)) as db:
        links: dict[int, list[str]] = {line["id"]: [] for line in lines}
        for id_, _, value in db.execute("SELECT * FROM links ORDER BY id, position"):
            links[id_].append(value)
    assert len(rows) == len(lines) == len(urls)
    for row, line in zip(rows, lines, strict=True):
        assert json.loads(row.pop("redirects")) == line.pop("redirects")
        assert json.loads(row.pop("headers") or "null") == line.pop("headers")
        assert bool(row.pop("truncated")) == line.pop("truncated")
        assert {"sku": row.pop("sku"), "URL": row.pop("row_URL")} == line.pop("fields")
        data = line.pop("data") or {"t": None, "links": [], "n": None}
        assert {"t": row.pop("t"), "links": links[row["id"]], "n": row.pop("n")} == data
        host = row.pop("host")
        assert row == line
        assert host == (
            None if line["error"] == "invalid_url" else "127.0.0.2" if "title=" in line["url"] else "127.0.0.1"
        )


STRIKES = [
    "before fetcher.sinks.sqlite_format SQLiteOutput.create 1",
    "after fetcher.sinks.sqlite_format SQLiteOutput.create 1",
    "after fetcher.sinks.sqlite_format SQLiteOutput._make 1",
    "after fetcher.sinks.sqlite_format SQLiteOutput._begin_log 1",
    "after fetcher.sinks.sqlite_format SQLiteOutput._insert 1",
    "after fetcher.sinks.sqlite_format SQLiteOutput.append 1",
    "after fetcher.sinks.sqlite_format SQLiteOutput.append 2",
    "before fetcher.sinks.sqlite_format SQLiteOutput.complete 1",
    "after fetcher.sinks.sqlite_format SQLiteOutput.complete 1",
    "before fetcher.sinks.sqlite_format SQLiteOutput.discard 2",
]


@pytest.mark.parametrize("point", STRIKES)
def test_a_kill_loses_nothing_and_writes_nothing_twice(point: str, desk: Desk) -> None:
    desk.pages(*range(30))
    struck = desk.crawl("--delay", "0.01", "--per-host", "1", to=OUT, env=striking(point))
    assert struck.code == -signal.SIGKILL
    ended = desk.crawl(to=OUT)
    assert ended.code == 0, ended.said
    assert names(desk) == [*map(str, range(30))]
    assert files(desk) == {OUT, f"{OUT}.job"}
    before = (desk.folder / OUT).read_bytes()
    desk.asked()
    assert "all rows were done already" in desk.crawl(to=OUT).said
    assert desk.asked() == []
    assert (desk.folder / OUT).read_bytes() == before


def moody_list(desk: Desk) -> None:
    ill = [desk.lab.url(f"/moody?as=/status/{status}&n={name}") for name, status in (("x", 404), ("y", 503))]
    desk.write([*desk.urls("a"), ill[0], *desk.urls("b"), ill[1]])


@pytest.mark.parametrize(
    "point",
    [
        None,
        "after fetcher.sinks.sqlite_format SQLiteOutput.rewrite 1",
        "before fetcher.sinks.sqlite_format SQLiteOutput.adopt 1",
        "after fetcher.sinks.sqlite_format SQLiteOutput._drop 1",
        "before fetcher.sinks.sqlite_format sync_folder_of 2",
        "after fetcher.sinks.sqlite_format SQLiteOutput.adopt 1",
    ],
)
def test_failures_are_taken_up_again(point: str | None, desk: Desk, moody: Moody) -> None:
    moody_list(desk)
    assert desk.crawl("--select", "links[]=a@href", to=OUT).code == 0
    assert [record["error"] for record in records(desk)] == [None, "http_404", None, "http_503"]
    desk.asked()
    moody.well = True
    flags = ["--select", "links[]=a@href", "--retry-failed"]
    if point is not None:
        assert desk.crawl(*flags, to=OUT, env=striking(point)).code == -signal.SIGKILL
    assert desk.crawl(*flags, to=OUT).code == 0
    assert desk.asked() == ["x", "y"]
    assert [record["error"] for record in records(desk)] == [None] * 4
    assert names(desk) == ["a", "x", "b", "y"]
    assert {path.name for path in (desk.folder / f"{OUT}.job").iterdir()} == {"ledger.sqlite", "lock", "parsing"}
    assert desk.crawl(*flags[:2], "--verify", to=OUT).code == 0


def test_fresh_begins_again_and_another_list_is_refused(desk: Desk) -> None:
    desk.pages(*"abc")
    desk.crawl(to=OUT)
    desk.pages(*"xy")
    assert desk.crawl(to=OUT).code == 2
    assert names(desk) == [*"abc"]
    assert desk.crawl("--fresh", to=OUT).code == 0
    assert names(desk) == [*"xy"]


def test_a_database_of_somebody_elses_is_kept(desk: Desk) -> None:
    desk.pages(*"ab")
    with closing(sqlite3.connect(desk.folder / OUT)) as db, db:
        db.execute("CREATE TABLE pages(mine)")
    before = (desk.folder / OUT).read_bytes()
    desk.refused(desk.crawl(to=OUT), f"{OUT} exists; use --fresh to overwrite it", 2)
    assert (desk.folder / OUT).read_bytes() == before


@pytest.mark.parametrize("edit", ["DELETE FROM pages WHERE id = 1", "UPDATE pages SET title = 'x'"])
def test_an_output_that_was_edited_is_refused(edit: str, desk: Desk) -> None:
    desk.pages(*"abc")
    desk.crawl("--limit", "2", to=OUT)
    with closing(sqlite3.connect(desk.folder / OUT)) as db, db:
        db.execute(edit)
    desk.asked()
    ended = desk.crawl(to=OUT)
    assert ended.code == 1
    assert ended.said.startswith(f"fetcher: {OUT}: was changed since (")
    assert ended.said.endswith("): put it back as it was, or begin again with --fresh\n")
    assert desk.asked() == []
    assert desk.crawl("--fresh", to=OUT).code == 0
    assert names(desk) == [*"abc"]


def test_a_reader_holds_nothing_up(desk: Desk) -> None:
    gate = desk.hold()
    desk.write([*desk.urls(*"ab"), desk.lab.url("/held?n=c")])
    with Running(*desk.words(to=OUT), folder=desk.folder) as crawl:
        desk.until_asked("/held")
        desk.until_written(2, to=OUT)
        crawl.process.kill()
        crawl.end()
    gate.open()
    with closing(sqlite3.connect(desk.folder / OUT, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM pages").fetchone() == (2,)
        ended = desk.crawl(to=OUT)
        assert ended.code == 0, ended.said
        assert reader.execute("SELECT count(*) FROM pages").fetchone() == (2,)
        reader.execute("COMMIT")
        assert reader.execute("SELECT count(*) FROM pages").fetchone() == (3,)
    assert names(desk) == [*"abc"]


def test_without_a_job(desk: Desk) -> None:
    desk.pages(*"abc")
    assert desk.crawl("--no-job", to=OUT).code == 0
    assert sorted(names(desk)) == [*"abc"]
    assert {path.name for path in desk.folder.iterdir()} == {"l.txt", "s.json", OUT}
    assert desk.crawl("--no-job", to=OUT).code == 2
    assert desk.crawl("--no-job", "-f", "sqlite", to="other").code == 0
    assert (desk.folder / "other").read_bytes().startswith(b"SQLite format 3\0")


def test_the_format_and_what_is_read_of_it_belong_to_the_job(desk: Desk) -> None:
    desk.pages(*"ab")
    desk.crawl("--limit", "1", to=OUT)
    ended = desk.crawl("--columns", "id,url", to=OUT)
    assert (ended.code, "--columns was not given when this job began" in ended.said) == (2, True)
    ended = run("crawl", "l.txt", "-o", "x.jsonl", "--job", f"{OUT}.job", folder=desk.folder)
    assert (ended.code, "the format of -o was sqlite" in ended.said) == (2, True)
