"""--with and --text by the command line: into every format, in jobs, and what the summary says of them."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.command import run
from tests.lab.desk import Desk
from tests.lab.exchange import Exchange
from tests.lab.server import LabServer
from tests.test_content import ARTICLE, SHOP

COLUMNS = ["meta", "jsonld", "link_list", "image_list", "text", "lang"]


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread() as server:
        yield server


@pytest.fixture
def desk(lab: LabServer, tmp_path: Path) -> Desk:
    return Desk(lab, tmp_path)


def serve(desk: Desk, path: str, body: str | bytes, content_type: str = "text/html; charset=utf-8") -> str:
    async def reply(exchange: Exchange) -> None:
        await exchange.reply(body, headers=[("Content-Type", content_type)])

    desk.lab.add(path, reply)
    return desk.lab.url(path)


def test_every_format_has_the_same_columns(desk: Desk) -> None:
    desk.write(
        [serve(desk, "/shop", SHOP), desk.lab.url("/status/404"), serve(desk, "/i.png", b"\x89PNG\0", "image/png")]
    )
    ended = desk.crawl("-o", "p.csv", "-o", "p.sqlite", "-o", "p.parquet", "--ordered", "--text", "body",
                       "--with", "meta,jsonld,links,images,lang")  # fmt: skip
    assert ended.code == 0, ended.said
    assert "jsonld: on 1 page some of it is no JSON, and kept as it is written" in ended.said
    shop, missing, image = desk.records()
    assert [name for name in shop if name in COLUMNS] == COLUMNS == list(shop)[-6:]
    assert {missing[name] for name in COLUMNS} == {image[name] for name in COLUMNS} == {None}
    assert (shop["lang"], shop["meta"]["h1"], len(shop["link_list"]), shop["links"]) == (
        "en-GB",
        ["One line", "Two"],
        6,
        9,
    )
    assert shop["text"].splitlines()[:3] == ["One line", "Two", "L ijs"]
    expected = [{name: record[name] for name in COLUMNS} for record in (shop, missing, image)]
    rows = list(csv.DictReader(io.StringIO((desk.folder / "p.csv").read_text(), newline="")))
    plain = ("text", "lang")
    assert [
        {name: (row[name] or None) if name in plain else json.loads(row[name] or "null") for name in COLUMNS}
        for row in rows
    ] == expected
    with sqlite3.connect(desk.folder / "p.sqlite") as db:
        found = db.execute(f"SELECT {', '.join(COLUMNS)} FROM pages ORDER BY id").fetchall()
        (title,) = db.execute("SELECT json_extract(meta, '$.og.title') FROM pages WHERE id = 1").fetchone()
    assert title == "Kettle"
    parquet = pytest.importorskip("pyarrow.parquet").read_table(desk.folder / "p.parquet").select(COLUMNS).to_pylist()
    for tables in ([dict(zip(COLUMNS, row, strict=True)) for row in found], parquet):
        assert [
            {name: value if name in plain else json.loads(value or "null") for name, value in row.items()}
            for row in tables
        ] == expected


def test_a_column_of_content_is_chosen_and_refused_like_others(desk: Desk) -> None:
    desk.write([serve(desk, "/shop", SHOP)])
    ended = run("crawl", "l.txt", "-f", "jsonl", "--with", "lang,links", "--columns", "lang,url", folder=desk.folder)
    assert list(json.loads(ended.text)) == ["lang", "url", "link_list"]
    for words, message in (
        (["--columns", "url,meta"], "columns: 'meta' is empty without --with meta"),
        (["--with", "link"], "with: there is no 'link' to be had (did you mean 'links'?)"),
        (["--text-format", "markdown"], "text-format: markdown is made by --text best alone"),
        (["--text", "fast", "--text-format", "markdown"], "text-format: markdown is made by --text best alone"),
    ):
        ended = run("crawl", "l.txt", "-f", "jsonl", *words, folder=desk.folder)
        assert (ended.code, ended.text) == (2, "")
        assert message in ended.said
    (desk.folder / "c.toml").write_text('with = ["lang"]\ntext = "body"\n')
    ended = run("crawl", "l.txt", "-f", "jsonl", "--config", "c.toml", folder=desk.folder)
    assert (json.loads(ended.text)["lang"], json.loads(ended.text)["text"][:8]) == ("en-GB", "One line")


@pytest.mark.parametrize("method", ["fast", "best"])
def test_the_main_content_by_the_command_line(desk: Desk, method: str) -> None:
    desk.write([serve(desk, f"/{number}", ARTICLE) for number in range(20)])
    ended = desk.crawl("--text", method)
    assert ended.code == 0, ended.said
    texts = {record["text"] for record in desk.records()}
    assert len(texts) == 1
    assert "A sentence of the story." in texts.pop()


def test_the_summary_says_where_nothing_could_be_read(desk: Desk) -> None:
    desk.write([serve(desk, "/a.json", "{}", "application/json"), serve(desk, "/b.json", "{}", "application/json")])
    ended = desk.crawl("--with", "meta,lang", "--summary", "s.json")
    assert "meta: null on all of 2 pages: none is of a type that it is read from" in ended.said
    assert "lang:" not in ended.said
    counts = json.loads((desk.folder / "s.json").read_text())["content"]
    assert counts["meta"] == {"pages": 2, "found": 0, "unconverted": 0}


def test_a_job_does_not_go_on_with_other_columns(desk: Desk) -> None:
    desk.write([serve(desk, "/shop", SHOP)])
    assert desk.crawl("--with", "meta").code == 0
    ended = desk.crawl("--with", "meta,links")
    assert ended.code == 2
    assert "--with was meta when this job began, and is meta, links" in ended.said


def test_a_page_that_is_denied_keeps_none_of_it(desk: Desk) -> None:
    desk.write([serve(desk, "/shop", SHOP)])
    ended = run("crawl", "l.txt", "-f", "jsonl", "--with", "meta,links", "--skip-when", "noai", folder=desk.folder)
    record = json.loads(ended.text)
    assert (record["error"], record["meta"], record["link_list"]) == ("page_denied", None, None)
