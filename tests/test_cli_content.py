"""--with and --text by the command line: into every format, in jobs, and what the summary says of them."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.lab.command import run
from tests.lab.desk import Desk
from tests.lab.exchange import Exchange
from tests.lab.server import LabServer
from tests.test_content import ARTICLE, SHOP

COLUMNS = ["meta", "jsonld", "link_list", "image_list", "text", "lang"]
COLUMNS_OF_TABLES = ["meta", "jsonld", "text", "lang"]
"""Where links and images have tables of their own: ``test_child_tables.py``."""


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
    with closing(sqlite3.connect(desk.folder / "p.sqlite")) as db:
        found = db.execute(f"SELECT {', '.join(COLUMNS_OF_TABLES)} FROM pages ORDER BY id").fetchall()
        (title,) = db.execute("SELECT json_extract(meta, '$.og.title') FROM pages WHERE id = 1").fetchone()
    assert title == "Kettle"
    read = pytest.importorskip("pyarrow.parquet").read_table(desk.folder / "p.parquet")
    parquet = read.select(COLUMNS_OF_TABLES).to_pylist()
    expected = [{name: record[name] for name in COLUMNS_OF_TABLES} for record in (shop, missing, image)]
    for tables in ([dict(zip(COLUMNS_OF_TABLES, row, strict=True)) for row in found], parquet):
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
        (["--with", "link"], "--with link: there is no such part of a page (did you mean links?)"),
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


UNREADABLE = {
    "css": (
        ["--select", "price=.p:price", "--select", "t=h1"],
        "price, price_currency, t: 2 pages, and none that their rules",
    ),
    "table": (["--table", "#prices"], "table: 2 pages, and none that its rule"),
    "xpath": (["--select", "t=xpath://h1"], "t: 2 pages, and none that its rule"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_rules_that_saw_only_bodies_they_cannot_read_are_named(kind: str, desk: Desk) -> None:
    words, said = UNREADABLE[kind]
    desk.write([serve(desk, "/a", '{"a": 1}', "application/json"), serve(desk, "/b", b"%PDF-1.4\0", "application/pdf")])
    ended = desk.crawl(*words)
    line = f"{said} can read (application/json, application/pdf): CSS and XPath read HTML and XML, json: reads JSON"
    assert (ended.code, ended.said.count(line), "empty on" in ended.said) == (0, 1, False), ended.said
    names = said.partition(":")[0].split(", ")
    assert desk.stats()["unread"] == {name: ["application/json", "application/pdf"] for name in names}
    desk.write([desk.lab.url("/a"), desk.lab.url("/b"), serve(desk, "/c", SHOP)])
    ended = desk.crawl(*words, "--fresh")
    assert ("none that" in ended.said, desk.stats()["unread"]) == (False, {}), "one page it can read is enough"


def test_a_rule_for_json_that_saw_only_pages_is_named(desk: Desk) -> None:
    desk.write([serve(desk, "/shop", SHOP), serve(desk, "/i.png", b"\x89PNG\0", "image/png")])
    ended = desk.crawl("--select", "n=json:name", "--select", "h=h1", "--isolate")
    assert "n: 2 pages, and none that its rule can read (image/png, text/html)" in ended.said
    assert list(desk.stats()["unread"]) == ["n"]


def test_extract_names_them_too(desk: Desk) -> None:
    desk.write([serve(desk, "/a", '{"a": 1}', "application/json")])
    assert desk.crawl("--body", "inline", to="stored.jsonl").code == 0
    ended = run("extract", "stored.jsonl", "-o", "o.jsonl", "--select", "t=h1", folder=desk.folder)
    assert "t: 1 page, and none that its rule can read (application/json)" in ended.said
    ended = run("extract", "stored.jsonl", "-o", "p.jsonl", "--with", "links", folder=desk.folder)
    assert "link_list: null on all of 1 page: none is of a type that it is read from" in ended.said
