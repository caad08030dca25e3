"""Items as lines of their own: in each format, over kills and retries, and what cannot be exploded."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from fetcher.config import Config
from fetcher.errors import ConfigError
from fetcher.model import Page, Request
from fetcher.page.reader import Reader
from fetcher.sinks import Layout, explode, open_job_output
from fetcher.sinks.job_output import KeptRecords, KeptRow, Mark
from fetcher.sinks.layout import ItemColumns
from tests.lab.command import Ended, Running, as_said, run
from tests.lab.desk import Desk, plain
from tests.lab.exchange import Exchange
from tests.lab.server import LabServer
from tests.lab.striker import striking

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")

SHOP = """<h1>Shop</h1>
<div class=card><h2>Tea, "green"</h2><b>5.50 &euro;</b><a href=/t>x</a></div>
<div class=card><h2>Mug
of two lines</h2><b>$ 12</b></div>
<table><tr><th>size<th>stock<tr><td>S<td>3<tr><td>M<td>0</table>"""
RULES = [
    "--select", "h=h1", "--select", "item[]=.card{name=h2; price=b:price; link=a@href; h=h2}",
    "--select", "all[]=h2", "--explode", "item",
]  # fmt: skip
FORMATS = {
    "pages.jsonl": (), "pages.jsonl.gz": (), "pages.csv": (), "pages.csv.gz": (), "pages.sqlite": (),
    "pages.parquet": (), "pages/": ("-f", "parquet", "--part-rows", "3"),
}  # fmt: skip
each_format = pytest.mark.parametrize("to", FORMATS)


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread() as server:
        yield server


class Ill:
    """A case for ``/ill``: 404, until it is a shop."""

    well = False

    async def __call__(self, exchange: Exchange) -> None:
        await exchange.reply(SHOP if self.well else "", 200 if self.well else 404)


async def shop(exchange: Exchange) -> None:
    await exchange.reply("<h1>Closed</h1>" if exchange.text("n") == "none" else SHOP)


@pytest.fixture
def ill(lab: LabServer) -> Ill:
    case = Ill()
    lab.add("/ill", case)
    lab.add("/shop", shop)
    return case


@pytest.fixture
def desk(lab: LabServer, tmp_path: Path, ill: Ill) -> Desk:
    return Desk(lab, tmp_path)


def crawl(desk: Desk, to: str, *words: str) -> Ended:
    """Run the job; a desk of its own would ask for one record a row."""
    return run(*desk.words(*RULES, *FORMATS[to], *words, to=to), folder=desk.folder)


def read(path: Path) -> list[dict[str, Any]]:
    """The lines in the order of their rows and items; of a table's columns ``data`` is made, as JSON Lines have it."""
    name = path.name
    if ".jsonl" in name:
        found = [json.loads(line) for line in plain(path).splitlines()]
    elif ".csv" in name:
        text = io.StringIO(plain(path).decode(), newline="")
        found = [{key: value or None for key, value in row.items()} for row in csv.DictReader(text)]
    elif ".sqlite" in name:
        with closing(sqlite3.connect(path)) as db:
            db.row_factory = sqlite3.Row
            found = [dict(row) for row in db.execute("SELECT * FROM pages")]
    else:
        files = sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]
        found = [row for file in files for row in pq.read_table(file).to_pylist()]
    found.sort(key=lambda row: (int(row["id"]), int(row["item"] or 0)))
    return found


def items(path: Path) -> list[tuple[int, int | None]]:
    """What is there of each row: its id and the numbers of its items."""
    found = [(int(row["id"]), int(row["item"]) if row["item"] else None) for row in read(path)]
    assert len(found) == len(set(found)), f"items that are there twice: {found}"
    return found


def cells(row: Mapping[str, Any]) -> list[Any]:
    names = ["h", "name", "price", "price_currency", "link", "item_h"]
    return [float(row[name]) if name == "price" and row[name] else row[name] for name in names]


BOTH = [(1, 1), (1, 2)]


@each_format
def test_each_item_has_a_line(to: str, desk: Desk) -> None:
    desk.write([desk.lab.url("/shop?n=1"), desk.lab.url("/shop?n=none"), desk.lab.url("/ill?n=3")])
    ended = crawl(desk, to)
    assert ended.code == 0, ended.said
    place = desk.folder / to
    assert items(place) == [*BOTH, (2, None), (3, None)]
    rows = read(place)
    link = desk.lab.url("/t")
    if ".jsonl" in to:
        tea = {"name": 'Tea, "green"', "price": 5.5, "price_currency": "€", "link": link, "h": 'Tea, "green"'}
        mug = {"name": "Mug of two lines", "price": 12.0, "price_currency": "$", "link": None, "h": "Mug of two lines"}
        both = [tea["name"], mug["name"]]
        assert [row["data"] for row in rows] == [
            {"h": "Shop", "item": tea, "all": both},
            {"h": "Shop", "item": mug, "all": both},
            {"h": "Closed", "item": None, "all": []},
            None,
        ]
        assert [*rows[0]][:3] == ["id", "item", "url"]
    else:
        assert list(map(cells, rows)) == [
            ["Shop", 'Tea, "green"', 5.5, "€", link, 'Tea, "green"'],
            ["Shop", "Mug of two lines", 12.0, "$", None, "Mug of two lines"],
            ["Closed", None, None, None, None, None],
            [None] * 6,
        ]
        assert "data_item" not in rows[0]
    assert [row["error"] for row in rows] == [None, None, None, "http_404"]
    assert rows[0]["url"] == rows[1]["url"]
    if ".sqlite" in to or "pages/" in to or to.endswith("parquet"):
        assert (type(rows[0]["price"]), type(rows[0]["item"])) == (float, int)
    if ".sqlite" in to:
        with closing(sqlite3.connect(place)) as db:
            listed = db.execute('SELECT id, position, value FROM "all" ORDER BY 1, 2').fetchall()
            with pytest.raises(sqlite3.IntegrityError):
                db.execute("INSERT INTO pages (id, item) VALUES (1, 2)")
        assert listed == [(1, 0, 'Tea, "green"'), (1, 1, "Mug of two lines")]


@each_format
def test_failures_that_are_retried_leave_the_lines_of_the_others(to: str, desk: Desk, ill: Ill) -> None:
    urls = [desk.lab.url(f"{path}?n={n}") for n, path in enumerate(["/shop", "/ill", "/shop", "/ill", "/shop"])]
    desk.write(urls)
    assert crawl(desk, to).code == 0
    place = desk.folder / to
    assert items(place) == [*BOTH, (2, None), (3, 1), (3, 2), (4, None), (5, 1), (5, 2)]
    before = read(place)
    desk.asked()
    assert crawl(desk, to, "--retry-failed").code == 0, "they fail again"
    assert len(desk.asked()) == 2
    assert [row["error"] for row in read(place)] == [row["error"] for row in before]
    ill.well = True
    ended = crawl(desk, to, "--retry-failed", "--verify")
    assert ended.code == 0, ended.said
    assert items(place) == [(row, item) for row in range(1, 6) for item in (1, 2)]
    after = {(int(row["id"]), int(row["item"])): row for row in read(place)}
    for row in before:
        if row["item"]:
            assert after[int(row["id"]), int(row["item"])] == row, "a line that was not concerned is another"


@each_format
def test_a_killed_job_goes_on_with_each_item_once(to: str, desk: Desk) -> None:
    gate = desk.hold()
    desk.write([*(desk.lab.url(f"/shop?n={n}") for n in range(5)), desk.lab.url("/held?n=h")])
    with Running(*desk.words(*RULES, *FORMATS[to], to=to), folder=desk.folder) as running:
        desk.until_asked()
        desk.until_written(5, to.rstrip("/"))
        running.send(signal.SIGKILL)
        running.end()
    gate.open()
    ended = crawl(desk, to)
    assert ended.code == 0, ended.said
    assert "continuing" in ended.said
    assert items(desk.folder / to) == [*((row, item) for row in range(1, 6) for item in (1, 2)), (6, None)]


POINTS = {
    "before fetcher.job.ledger Ledger.commit 2": ("pages.jsonl", "pages.csv.gz", "pages.sqlite", "pages.parquet"),
    "after fetcher.sinks.sqlite_format SQLiteOutput.rewrite 1": ("pages.sqlite",),
    "before fetcher.job.ledger Ledger.begin_rewrite 1": ("pages.jsonl", "pages/"),
    "after fetcher.job.ledger Ledger.begin_rewrite 1": ("pages.csv.gz", "pages.sqlite", "pages.parquet", "pages/"),
    "after fetcher.sinks.sqlite_format SQLiteOutput.adopt 1": ("pages.sqlite",),
    "before fetcher.job.ledger Ledger.end_rewrite 1": ("pages.jsonl", "pages.sqlite", "pages.parquet"),
}


@pytest.mark.parametrize(("point", "to"), [(point, to) for point, listed in POINTS.items() for to in listed])
def test_a_retry_killed_while_it_rewrites_has_each_item_once(point: str, to: str, desk: Desk, ill: Ill) -> None:
    desk.write([desk.lab.url(f"{path}?n={n}") for n, path in enumerate(["/shop", "/ill", "/shop", "/ill"])])
    assert crawl(desk, to).code == 0
    ill.well = True
    words = desk.words(*RULES, *FORMATS[to], "--retry-failed", to=to)
    killed = run(*words, folder=desk.folder, env=striking(point))
    assert killed.code == -signal.SIGKILL or "commit 2" in point, "the point was not reached"
    ended = crawl(desk, to, "--retry-failed", "--verify")
    assert ended.code == 0, ended.said
    assert items(desk.folder / to) == [(row, item) for row in range(1, 5) for item in (1, 2)]


def test_an_item_that_somebody_took_out_is_missed(desk: Desk) -> None:
    desk.write([desk.lab.url("/shop?n=1"), desk.lab.url("/ill?n=3")])
    assert crawl(desk, "pages.sqlite").code == 0
    with closing(sqlite3.connect(desk.folder / "pages.sqlite")) as db, db:
        db.execute("DELETE FROM pages WHERE id = 1 AND item = 2")
    ended = crawl(desk, "pages.sqlite", "--retry-failed")
    assert (ended.code, "pages.sqlite: was changed since (2 rows, not 3)" in ended.said) == (1, True), ended.said


def test_the_items_of_a_table_and_of_a_list(desk: Desk) -> None:
    url = desk.lab.url("/shop?n=1")
    rows = [{"size": "S", "stock": "3"}, {"size": "M", "stock": "0"}]
    words = ["crawl", url, "--table", "table", "--explode", "table"]
    ended = run(*words, "-f", "jsonl", folder=desk.folder)
    assert [json.loads(line)["data"] for line in ended.lines] == [{"table": row} for row in rows]
    ended = run(*words, "-f", "csv", "--columns", "id,status,data", folder=desk.folder)
    found = list(csv.DictReader(io.StringIO(ended.text)))
    assert [*found[0]] == ["id", "item", "status", "table"]
    assert [json.loads(row["table"]) for row in found] == rows
    ended = run("crawl", url, "--select", "p[]=b:price", "--explode", "p", "-f", "csv", "--columns", "item,id,data",
                folder=desk.folder)  # fmt: skip
    assert ended.text.splitlines() == ["item,id,p,p_currency", "1,1,5.5,€", "2,1,12.0,$"]
    ended = run("crawl", url, "--select", "one=.card{n=h2}", "--explode", "one", "-f", "jsonl", folder=desk.folder)
    (line,) = map(json.loads, ended.lines)
    assert (line["item"], line["data"]) == (1, {"one": {"n": 'Tea, "green"'}})


def test_an_archive_and_text_show_a_page_once(desk: Desk) -> None:
    pytest.importorskip("fastwarc")
    ended = run("crawl", desk.lab.url("/shop?n=1"), *RULES, folder=desk.folder)
    assert len([line for line in ended.lines if not line.startswith(" ")]) == 1
    desk.write([desk.lab.url("/shop?n=1")])
    ended = run("crawl", "l.txt", "-o", "a.warc.gz", *RULES, folder=desk.folder)
    assert ended.code == 0, ended.said
    import gzip

    archive = gzip.decompress((desk.folder / "a.warc.gz").read_bytes())
    assert archive.count(b'"error":null') == 1
    assert b'"item":1' not in archive


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--explode item", "explode: nothing is selected: give a rule for 'item', such as --select 'item[]=…'"),
        (
            "--select h=h1 --select item[]=.card --select o=.c{n=h2} --explode itm",
            "explode: 'itm' is no list and no record of --select; there are item, o (such as 'item[]=.card{…}')",
        ),
        ("--select h=h1 --explode h", "explode: 'h' is no list and no record of --select (such as 'item[]=.card{…}')"),
        (
            "--select h[]=h1 --explode h --columns url,data",
            "columns: with explode a row has several lines, and 'id' says which: name it as well",
        ),
        (
            "--select h[]=h1 --explode h --body inline",
            "body: with explode each body would be written once an item: give a folder, --body DIR",
        ),
        ("--columns id,item", "columns: 'item' is empty without --explode"),
    ],
)
def test_what_cannot_be_exploded_is_refused(words: str, said: str, desk: Desk) -> None:
    ended = run("crawl", desk.lab.url("/shop"), *words.split(" "), folder=desk.folder)
    assert (ended.code, ended.said) == (2, f"fetcher: {as_said(said)}\n")


def test_another_explode_is_another_job(desk: Desk) -> None:
    desk.write([desk.lab.url("/shop?n=1")])
    assert crawl(desk, "pages.jsonl").code == 0
    ended = run(*desk.words(*RULES[:-2], to="pages.jsonl"), folder=desk.folder)
    assert ended.code == 2
    assert "--explode was item when this job began, and is not given" in ended.said


def test_an_exploded_output_is_a_list_again(desk: Desk) -> None:
    (desk.folder / "l.csv").write_text(f"url,item,sku\n{desk.lab.url('/shop?n=1')},mine,7\n")
    words = ["crawl", "l.csv", *RULES, "--no-job"]
    assert run(*words, "-o", "a.csv", folder=desk.folder).code == 0
    ended = run("crawl", "a.csv", "-f", "jsonl", folder=desk.folder)
    fields = [json.loads(line)["fields"] for line in ended.lines]
    assert len(fields) == 2
    assert all((each["item"], each["sku"]) == ("mine", "7") for each in fields)


# The parts


def test_two_types_of_one_field_are_refused_and_a_taken_name_gets_a_prefix() -> None:
    groups: Any = ((("a",), ("x[]=p{n=b:int; h=i}",)), (("b",), ("x[]=p{n=b}", "h=h1", "x_h=h2")))
    with pytest.raises(ConfigError, match="explode: 'n' has two types"):
        Reader(Config.of(select_from=groups, explode="x"))
    groups = (groups[0], (groups[1][0], ("x[]=p{n=b:int}", *groups[1][1][1:])))
    reader = Reader(Config.of(select_from=groups, explode="x"))
    assert reader.explosion is not None
    assert dict(reader.explosion.fields) == {"n": "n", "h": "x_x_h"}
    assert reader.selected_names == ["n", "x_x_h", "h", "x_h"]


def test_what_stands_in_each_line_is_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(explode, "MAX_REPEATED_BYTES", 1_000_000)
    layout = Layout(columns=("id", "item", "title", "data"), select=("x",), explode=ItemColumns("x"))
    page = Page(Request(1, "u"), "u", 200, title="t" * 100_000, data={"x": [*range(1_000)]})
    output = open_job_output(f"{tmp_path}/a.jsonl", layout, work=f"{tmp_path}/w")
    assert len(output.encode(page)) < 1_100_000
    assert output.encode(page).count(b"\n") == 9


@pytest.mark.parametrize("columns", [("id", "item", "url", "data"), ("title", "url", "item", "id", "data")])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_lines_are_told_apart_by_their_id(name: str, columns: tuple[str, ...], tmp_path: Path) -> None:
    layout = Layout(columns=columns, fields=(), select=("x",), free_data=False, explode=ItemColumns("x"))
    output = open_job_output(f"{tmp_path}/{name}", layout, work=f"{tmp_path}/w")
    output.create()
    title = '7,"8,\n"",9'
    pages = [Page(Request(n, f"u{n},1"), "u", 200, title=title * n, data={"x": ["a\nb"] * (n - 1)}) for n in (1, 2, 3)]
    output.append([output.encode(page) for page in pages])
    rewrite = output.rewrite(f"{tmp_path}/c", iter([KeptRow(1, True), KeptRow(2, False), KeptRow(3, True)]))
    output.adopt(f"{tmp_path}/c", rewrite.mark)
    assert items(tmp_path / name) == [(1, None), (3, 1), (3, 2)]
    for rows in ([KeptRow(1, True)], [KeptRow(1, True), KeptRow(3, True), KeptRow(4, True)], [KeptRow(3, True)]):
        with pytest.raises(Exception, match="was changed since"):
            output.rewrite(f"{tmp_path}/d", iter(rows))
    output.discard()
    shutil.rmtree(f"{tmp_path}/w", ignore_errors=True)


def test_records_and_rows_that_are_not_the_same_are_found() -> None:
    rows = [KeptRow(1, True), KeptRow(2, False), KeptRow(3, True)]
    kept = KeptRecords(iter(rows), "many")
    assert kept.of([1, 1, 2, 3, 3]) == [True, True, False, True, True]
    kept.end()
    kept = KeptRecords(iter(rows))
    assert kept.of([0, 0]) == [True, False]
    with pytest.raises(ValueError, match="fewer"):
        kept.end()
    with pytest.raises(ValueError, match="more"):
        KeptRecords(iter(rows[:1])).of([0, 0])
    with pytest.raises(ValueError, match="row 2 is not where"):
        KeptRecords(iter(rows), "many").of([2])
    assert Mark().position == 0
