"""What of a record is written, and how, by the command line: --columns, --keep-headers, --ordered, --csv-bom."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selectolax.lexbor import LexborHTMLParser

from fetcher.cli.plan import make_plan
from fetcher.model import Page
from fetcher.page import parse
from tests.lab.command import Running, run
from tests.lab.crawl import crawl
from tests.lab.desk import Desk
from tests.lab.exchange import Exchange
from tests.lab.server import LabServer

BOM = b"\xef\xbb\xbf"


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread() as server:
        yield server


@pytest.fixture
def desk(lab: LabServer, tmp_path: Path) -> Desk:
    return Desk(lab, tmp_path)


def table(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


# --columns


def test_columns_are_written_in_their_order_by_every_format(desk: Desk) -> None:
    desk.write([*desk.urls("a"), desk.lab.url("/status/404")])
    ended = desk.crawl("-o", "p.csv", "-o", "p.sqlite", "--columns", "status,url,error,id", "--ordered")
    assert ended.code == 0, ended.said
    names = ["status", "url", "error", "id"]
    assert [list(record) for record in desk.records()] == [names] * 2
    assert [list(record) for record in table((desk.folder / "p.csv").read_bytes())] == [names] * 2
    assert [record["error"] for record in desk.records()] == [None, "http_404"]
    (url,) = desk.urls("a")
    ended = run("crawl", url, "-f", "jsonl", folder=desk.folder, env={"FETCHER_COLUMNS": "url"})
    assert ended.text == f'{{"url":"{url}"}}\n'


def test_a_column_there_is_none_of_or_that_nothing_fills_is_refused(desk: Desk) -> None:
    desk.pages("a")
    ended = run("crawl", "l.txt", "-f", "jsonl", "--columns", "url,staus", folder=desk.folder)
    assert ended.code == 2
    assert ended.said.startswith("fetcher: --columns staus: there is no such column (did you mean status?)")
    ended = run("crawl", "l.txt", "-f", "jsonl", "--columns", "url,headers", folder=desk.folder)
    desk.refused(ended, "columns: 'headers' is empty without --keep-headers", 2)


def test_a_job_goes_on_with_its_columns_and_with_no_others(desk: Desk) -> None:
    desk.pages(*"ab")
    flags = ["--columns", "url,id,error", "--keep-headers", "content-type"]
    assert desk.crawl("--limit", "1", *flags).code == 0
    desk.asked()
    for other, said in (
        (
            ["--columns", "url,id,title", *flags[2:]],
            "--columns was url, id, error when this job began, and is url, id, title",
        ),
        (
            ["--columns", "id,url,error", *flags[2:]],
            "--columns was url, id, error when this job began, and is id, url, error",
        ),
        (flags[2:], "--columns was url, id, error when this job began, and is not given"),
        (flags[:2], "--keep-headers was content-type when this job began, and is not given"),
        ([*flags[:3], "all"], "--keep-headers was content-type when this job began, and is all"),
    ):
        advice = ": give it as before, write to another -o, or begin again with --fresh"
        desk.refused(desk.crawl(*other), said + advice, 2)
    assert desk.crawl(*flags).code == 0
    assert [list(record) for record in desk.records()] == [["url", "id", "error", "headers"]] * 2
    assert desk.records()[1]["headers"] == {"content-type": "text/html; charset=utf-8"}


@pytest.mark.parametrize(
    ("columns", "parsed"),
    [
        ("url,length,status,refresh", False),
        ("url,title", True),
        ("url,links", True),
        ("url,robots", True),
        ("", True),
    ],
)
async def test_a_page_is_parsed_only_for_what_is_wanted_of_it(
    columns: str, parsed: bool, lab: LabServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees: list[Any] = []

    def parsed_tree(source: Any) -> LexborHTMLParser:
        trees.append(source)
        return LexborHTMLParser(source)

    monkeypatch.setattr(parse, "LexborHTMLParser", parsed_tree)
    (page,) = await crawl([lab.url("/ok?links=2")], columns=columns)
    assert isinstance(page, Page)
    assert bool(trees) == parsed
    assert page.length
    assert (page.title, page.links) == (
        "ok" if columns in ("", "url,title") else None,
        2 if columns in ("", "url,links") else None,
    )


@pytest.mark.parametrize(
    ("options", "parsed"),
    [
        ({}, False),
        ({"preview": 5}, False),
        ({"select": "t=title"}, True),
        ({"with_": "lang"}, True),
        ({"skip_when": "noai"}, True),
        ({"columns": "url,title"}, False),
    ],
)
async def test_without_parse_a_page_is_parsed_only_for_what_is_taken_out_of_it(
    options: dict[str, Any], parsed: bool, lab: LabServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees: list[Any] = []

    def parsed_tree(source: Any) -> LexborHTMLParser:
        trees.append(source)
        return LexborHTMLParser(source)

    monkeypatch.setattr(parse, "LexborHTMLParser", parsed_tree)
    (page,) = await crawl([lab.url("/ok?links=2")], parse=False, **options)
    assert isinstance(page, Page)
    assert bool(trees) == parsed
    assert page.length
    assert (page.title, page.links) == (None, None)


@pytest.mark.parametrize(
    ("settings", "parses"),
    [
        ({}, False),  # text on stdout
        ({"output": ["a.txt", "b.text.gz"]}, False),
        ({"output": ["a.dat"], "format": "text"}, False),
        ({"output": ["a.txt", "b.jsonl"]}, True),
        ({"format": "jsonl"}, True),
    ],
)
def test_text_alone_needs_no_tree(settings: dict[str, Any], parses: bool) -> None:
    assert make_plan(["http://a.localhost/"], settings, lasting=False).config.parse == parses


# --keep-headers


async def headed(exchange: Exchange) -> None:
    """``?status=N``: an answer with headers that repeat, and cookies."""
    headers = [("X-One", "1"), ("Set-Cookie", "a=1"), ("x-two", "a"), ("X-Two", "b"), ("Set-Cookie", "b=2; Secure")]
    await exchange.reply("<title>x</title>", int(exchange.number("status", 200)), headers=headers)


COOKIES = {"set-cookie": "a=1\nb=2; Secure"}
ONE, TWO = {"x-one": "1"}, {"x-two": "a, b"}
FRAMING = {"content-type": "text/html; charset=utf-8", "content-length": "16"}
KEPT: dict[str, dict[str, str] | None] = {
    "x-one": ONE,
    "X-TWO,x-one": {**ONE, **TWO},
    "nothing": None,
    "set-cookie": COOKIES,
    "all": {**FRAMING, **ONE, **TWO},
    "all,Set-Cookie": {**FRAMING, **ONE, **COOKIES, **TWO},
}


@pytest.mark.parametrize("names", KEPT)
def test_headers_are_kept_of_pages_and_of_failures(names: str, desk: Desk) -> None:
    desk.lab.add("/headed", headed)
    desk.write([desk.lab.url("/headed"), desk.lab.url("/headed?status=404"), desk.lab.url("/empty")])
    ended = desk.crawl("--keep-headers", names)
    assert ended.code == 0, ended.said
    records = desk.records()
    assert [record["error"] for record in records] == [None, "http_404", "empty_reply"]
    assert [record["headers"] for record in records] == [KEPT[names], KEPT[names], None]
    assert list(records[0])[-1] == "headers"


def test_headers_are_kept_where_a_page_cannot_be_read(desk: Desk) -> None:
    (desk.folder / "mine.py").write_text("def fails(response):\n    return 1 / 0\n")
    desk.lab.add("/headed", headed)
    desk.write([desk.lab.url("/headed")])
    for more in ([], ["--isolate"]):
        flags = ["--extract", "mine:fails", "--keep-headers", "x-one,x-two", "--fresh", *more]
        ended = desk.crawl(
            *flags, env={"PYTHONPATH": f"{Path(__file__).resolve().parents[1]}{os.pathsep}{desk.folder}"}
        )
        assert ended.code == 3, ended.said
        (record,) = desk.records()
        assert record["error"] == "extract_failed"
        assert record["headers"] == {**ONE, **TWO}


def test_without_the_flag_there_is_no_such_column(desk: Desk) -> None:
    desk.pages("a")
    desk.crawl()
    assert "headers" not in desk.records()[0]


# --ordered


def test_records_come_in_the_order_of_the_list(desk: Desk) -> None:
    """The first host is slow: without the flag its rows would be last."""
    slow = [desk.lab.url(f"/delay/300/ok?n={name}", host=2) for name in "ab"]
    quick = desk.urls(*range(20))
    desk.write([slow[0], *quick[:10], slow[1], *quick[10:]])
    for flags, ordered in (([], False), (["--ordered"], True)):
        desk.crawl(*flags, "--fresh", "-o", "p.csv")
        lines = (desk.folder / "pages.jsonl").read_bytes().splitlines()
        ids = [int(line.partition(b",")[0].partition(b":")[2]) for line in lines]
        assert (ids == sorted(ids)) == ordered
        assert sorted(ids) == [*range(1, 23)]
        assert ([row["id"] for row in table((desk.folder / "p.csv").read_bytes())] == [*map(str, ids)]) or not ordered


def test_a_job_goes_on_in_order(desk: Desk) -> None:
    gate = desk.hold()
    desk.write([*desk.urls(*"ab"), desk.lab.url("/held?n=c"), *desk.urls(*"de")])
    with Running(*desk.words("--ordered"), folder=desk.folder) as running:
        desk.until_asked("/held")
        desk.until_written(2)
        running.process.kill()
        running.end()
    gate.open()
    assert desk.crawl("--ordered").code == 0
    lines = (desk.folder / "pages.jsonl").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == [f'{{"id":{row}' for row in range(1, 6)]


# --csv-bom


@pytest.mark.parametrize("to", ["p.csv", "p.csv.gz"])
def test_a_csv_begins_with_one_byte_order_mark(to: str, desk: Desk) -> None:
    from tests.lab.desk import plain

    (desk.folder / "l.csv").write_text(
        "".join(f"{line}\n" for line in ["url,näme", *(f"{url},ö" for url in desk.urls(*"abc"))])
    )
    flags = ["--csv-bom", "--columns", "id,error,fields"]
    assert desk.crawl(*flags, "--limit", "2", listed="l.csv", to=to).code == 0
    assert plain(desk.folder / to).startswith(BOM + b"id,error,n\xc3\xa4me\r\n")
    assert desk.crawl(*flags, listed="l.csv", to=to).code == 0, "a job goes on behind it"
    assert plain(desk.folder / to).count(BOM) == 1
    assert [row["näme"] for row in table(plain(desk.folder / to)[3:])] == ["ö"] * 3


def test_the_mark_is_for_a_csv_alone(desk: Desk) -> None:
    desk.pages("a")
    desk.crawl("--csv-bom", "-o", "p.txt", "-o", "p.csv")
    begins = {name: (desk.folder / name).read_bytes().startswith(BOM) for name in ("pages.jsonl", "p.txt", "p.csv")}
    assert begins == {"pages.jsonl": False, "p.txt": False, "p.csv": True}
    ended = run("crawl", "l.txt", "-f", "csv", "--csv-bom", folder=desk.folder)
    assert ended.out.startswith(BOM + b"id,url,")


def test_a_job_that_began_without_the_mark_is_not_gone_on_with_it(desk: Desk) -> None:
    desk.pages(*"ab")
    desk.crawl("--limit", "1", to="p.csv")
    ended = desk.crawl("--csv-bom", to="p.csv")
    assert ended.code == 2
    assert "--csv-bom was off when this job began, and is on" in ended.said
