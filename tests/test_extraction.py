"""``fetcher extract``: what a crawl wrote is read again, and comes out the same; nothing is asked of anybody.

The server is real, and gone before anything is extracted. Archives of others are made by warcio and by wget.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import random
import shutil
import sqlite3
import subprocess
import time
from base64 import b32encode
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from fetcher.config import Accept
from fetcher.extraction_workers import RANGE_BYTES
from fetcher.stored import StoredPage
from fetcher.stored.opening import SAMPLE_BYTES as LINES_SAMPLE_BYTES
from fetcher.stored.opening import open_stored
from fetcher.stored.warc import SAMPLE_BYTES, Found, StoredWARC
from tests.lab.command import Ended, Running, run
from tests.lab.server import Exchange, LabServer
from tests.sweeps import extracting

RULES = ("--select", "name=h1", "--select", "price=.price:price", "--select", "links[]=a@href", "--keep-headers", "all")
WGET = shutil.which("wget")
CP1252 = "<meta charset=windows-1252><title>Caf\xe9</title><h1>Caf\xe9 €</h1><p class=price>1.234,50 €</p>"


def answer(body: bytes, kind: str | None = "text/html; charset=utf-8", *more: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *more]
    lines += [f"Content-Type: {kind}"] if kind else []
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def product(number: int) -> bytes:
    return f"<title>P{number}</title><h1>Product {number}</h1><p class=price>${number}.50</p><a href=/p/{number}>x</a>".encode()


ODD = {
    "/gzip": answer(gzip.compress(product(1)), "text/html", "Content-Encoding: gzip", "X-Robots-Tag: noarchive"),
    "/chunked": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"%x\r\n%b\r\n0\r\n\r\n" % (len(product(2)), product(2)),
    "/cp1252": answer(CP1252.encode("cp1252", "replace"), "text/html"),
    "/mark": answer(b"\xef\xbb\xbf" + product(3), "text/html; charset=iso-8859-1"),
    "/untyped": answer(product(4), None),
    "/image": answer(b"\x89PNG\r\n\x1a\n\0\0\0", "image/png"),
    "/text": answer("häh?".encode(), "text/plain; charset=utf-8"),
    "/json": answer(b'{"price": 5}', "application/json"),
    "/empty": answer(b""),
    "/refresh": answer(product(5), "text/html", "Refresh: 5; url=/text"),
    "/noindex": answer(b"<meta name=robots content=noindex>" + product(6)),
    "/moved": b"HTTP/1.1 301 Moved Permanently\r\nLocation: /gzip\r\nContent-Length: 0\r\n\r\n",
    "/gone": b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone",
    "/large": answer(product(7) + b"<p>" + b"x" * 300_000),
}


@pytest.fixture(scope="module")
def crawled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one list, crawled into every kind of file."""
    folder = tmp_path_factory.mktemp("crawled")
    with LabServer.in_thread() as lab:
        for path, data in ODD.items():

            async def send(exchange: Exchange, data: bytes = data) -> None:
                await exchange.send(data)

            lab.add(path, send)
        rows = [f"{lab.url(path)},sku-{place},1" for place, path in enumerate(ODD)]
        rows += [f"{lab.url('/ok')}?n={number},,2" for number in range(40)]
        rows += ["http://127.0.0.1:1/refused,x,3", "no url at all,y,4"]
        (folder / "list.csv").write_text("url,sku,title\n" + "\n".join(rows) + "\n")
        outputs = [
            word
            for name in ("pages.warc.gz", "pages.jsonl", "pages.jsonl.gz", "pages.parquet", "pages.sqlite")
            for word in ("-o", name)
        ]
        ended = run("crawl", "list.csv", *outputs, "--body", "inline", *RULES, "--retries", "0", folder=folder)
        assert ended.code == 0, ended.said
        ended = run(
            "crawl", "list.csv", "-o", "beside.jsonl", "--body", "bodies", *RULES, "--retries", "0", folder=folder
        )
        assert ended.code == 0, ended.said
    return folder


def records(path: Path) -> dict[int, dict[str, Any]]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    rows = {row["id"]: row for row in found}
    assert len(rows) == len(found), "a row stands there twice"
    return rows


def without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


def extract(folder: Path, *words: str) -> Ended:
    return run("extract", *words, folder=folder)


# What a crawl wrote


@pytest.mark.parametrize(
    "source", ["pages.warc.gz", "pages.jsonl", "pages.jsonl.gz", "pages.parquet", "pages.sqlite", "beside.jsonl"]
)
def test_the_same_rules_give_the_same_records(crawled: Path, tmp_path: Path, source: str) -> None:
    output = tmp_path / "again.jsonl"
    ended = extract(crawled, source, "-o", str(output), "--bodies", "bodies", *RULES)
    assert ended.code == 0, ended.said
    assert "passed over" not in ended.said
    first = records(crawled / ("beside.jsonl" if source == "beside.jsonl" else "pages.jsonl"))
    again = records(output)
    bodies = ("body", "body_path", "digest")
    # The headers of a failure stand in no output but the first.
    for number, row in first.items():
        dropped = (*bodies, "headers") if row["error"] else bodies
        assert without(again[number], *dropped) == without(row, *dropped)
    assert first.keys() == again.keys()


@pytest.mark.parametrize("body", ["inline", "again"])
def test_the_bodies_can_come_along(crawled: Path, tmp_path: Path, body: str) -> None:
    place = body if body == "inline" else str(tmp_path / body)
    ended = extract(crawled, "pages.warc.gz", "-o", str(tmp_path / "a.jsonl"), "--body", place)
    assert ended.code == 0, ended.said
    first, again = (
        records(path)
        for path in (crawled / ("pages.jsonl" if body == "inline" else "beside.jsonl"), tmp_path / "a.jsonl")
    )
    name = "body" if body == "inline" else "body_path"
    assert {number: row[name] for number, row in first.items()} == {number: row[name] for number, row in again.items()}


def test_tables_have_the_columns_of_the_list(crawled: Path, tmp_path: Path) -> None:
    for source in ("pages.parquet", "pages.warc.gz", "pages.jsonl"):
        ended = extract(
            crawled, source, "-o", str(tmp_path / f"{source}.csv"), "-o", str(tmp_path / f"{source}.sqlite"), *RULES
        )
        assert ended.code == 0, ended.said
        rows = list(csv.DictReader(io.StringIO((tmp_path / f"{source}.csv").read_bytes().decode())))
        assert {row["sku"] for row in rows} >= {"sku-0", "x", "y", ""}
        with closing(sqlite3.connect(tmp_path / f"{source}.sqlite")) as database:
            found = database.execute("select name, price, typeof(price) from pages where sku = 'sku-0'").fetchall()
        assert found == [("Product 1", 1.5, "real")]


def test_other_rules_and_denials(crawled: Path, tmp_path: Path) -> None:
    for source in ("pages.warc.gz", "pages.sqlite"):
        output = tmp_path / f"{source}.jsonl"
        ended = extract(crawled, source, "-o", str(output), "--select", "t=title", "--skip-when", "noindex")
        assert ended.code == 0, ended.said
        rows = {row["url"].rpartition("/")[2]: row for row in records(output).values()}
        assert rows["noindex"]["error"] == "page_denied"
        assert rows["gzip"]["data"] == {"t": "P1"}
        assert (rows["gone"]["error"], rows["gone"]["status"]) == ("http_404", 404)
        assert rows["refused"]["error"] == "connect_refused"


def test_a_row_that_was_tried_again_is_its_last(tmp_path: Path) -> None:
    with LabServer.in_thread() as lab:
        lab.add("/a", "not yet")

        async def gone(exchange: Exchange) -> None:
            await exchange.send(ODD["/gone"])

        lab.add("/b", gone)
        (tmp_path / "l.txt").write_text(f"{lab.url('/a')}\n{lab.url('/b')}\n{lab.url('/c')}\n")
        lab.add("/c", gone)
        assert run("crawl", "l.txt", "-o", "p.warc.gz", "--retries", "0", folder=tmp_path).code == 0
        lab.add("/b", "here")
        assert run("crawl", "l.txt", "-o", "p.warc.gz", "--retries", "0", "--retry-failed", folder=tmp_path).code == 0
    ended = extract(tmp_path, "p.warc.gz", "-o", "again.jsonl", "--body", "inline")
    assert ended.code == 0, ended.said
    assert {number: (row["error"], row["body"]) for number, row in records(tmp_path / "again.jsonl").items()} == {
        1: (None, "not yet"),
        2: (None, "here"),
        3: ("http_404", None),
    }


def test_what_an_extractor_failed_at_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def bad(response):\n    raise ValueError('no')\ndef good(response):\n    return len(response.body)\n"
    )
    with LabServer.in_thread() as lab:
        lab.add("/a", "twelve bytes")
        ended = run("crawl", lab.url("/a"), "-o", "p.warc.gz", "--extract", "mine:bad", folder=tmp_path)
    assert ended.code == 3
    ended = extract(tmp_path, "p.warc.gz", "-f", "jsonl", "--extract", "mine:good", "--columns", "data,error")
    assert json.loads(ended.text) == {"data": 12, "error": None}


@pytest.mark.parametrize("parsers", [(), ("--parsers", "2"), ("--isolate",)])
def test_pages_are_read_in_processes_of_their_own(crawled: Path, tmp_path: Path, parsers: tuple[str, ...]) -> None:
    ended = extract(crawled, "pages.warc.gz", "-o", str(tmp_path / "a.jsonl"), *RULES, *parsers)
    assert ended.code == 0, ended.said
    first, again = records(crawled / "pages.jsonl"), records(tmp_path / "a.jsonl")
    assert {number: row["data"] for number, row in first.items()} == {
        number: row["data"] for number, row in again.items()
    }


# Archives of others


class Writer(WARCWriter):  # type: ignore[misc]  # it is not typed
    """One that leaves no temporary files open."""

    def _create_temp_file(self) -> io.BytesIO:
        return io.BytesIO()


def foreign(path: Path, count: int = 5, *, packed: bool = True) -> bytes:
    """Write an archive by warcio, with records that are no pages between."""
    buffer = io.BytesIO()
    writer = Writer(buffer, gzip=packed)
    writer.write_record(writer.create_warcinfo_record(path.name, {"software": "somebody's"}))
    for number in range(count):
        head = StatusAndHeaders("200 OK", [("Content-Type", "text/html; charset=utf-8")], protocol="HTTP/1.1")
        url = f"http://example.com/{number}"
        writer.write_record(
            writer.create_warc_record(url, "response", payload=io.BytesIO(product(number)), http_headers=head)
        )
        writer.write_record(
            writer.create_warc_record(
                f"urn:text:{url}", "resource", payload=io.BytesIO(b"text"), warc_content_type="text/plain"
            )
        )
    path.write_bytes(buffer.getvalue())
    return buffer.getvalue()


@pytest.mark.parametrize("packed", [True, False])
def test_an_archive_by_warcio(tmp_path: Path, packed: bool) -> None:
    name = "theirs.warc.gz" if packed else "theirs.warc"
    foreign(tmp_path / name, packed=packed)
    ended = extract(tmp_path, name, "-o", "a.jsonl", *RULES)
    assert ended.code == 0, ended.said
    rows = records(tmp_path / "a.jsonl")
    assert [rows[number + 1]["data"]["price"] for number in range(5)] == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert {row["url"] for row in rows.values()} == {f"http://example.com/{number}" for number in range(5)}
    assert all(row["fetched_at"] for row in rows.values())
    assert rows[1]["data"]["links"] == ["http://example.com/p/0"]


@pytest.mark.skipif(WGET is None, reason="there is no wget")
@pytest.mark.parametrize("options", [(), ("--no-warc-compression",)])
def test_an_archive_by_wget(tmp_path: Path, options: tuple[str, ...]) -> None:
    assert WGET is not None
    with LabServer.in_thread() as lab:
        for path in ("/gzip", "/chunked", "/moved", "/gone", "/cp1252"):

            async def send(exchange: Exchange, data: bytes = ODD[path]) -> None:
                await exchange.send(data)

            lab.add(path, send)
        urls = [lab.url(path) for path in ("/chunked", "/moved", "/gone", "/cp1252")]
        command = [WGET, "-q", "--no-config", "--warc-file=w", *options, "-O", "out", *urls]
        subprocess.run(command, cwd=tmp_path, timeout=60, check=False)
    ended = extract(tmp_path, "w.warc" if options else "w.warc.gz", "-o", "a.jsonl", "--select", "name=h1")
    assert ended.code == 0, ended.said
    rows = {row["url"].rpartition("/")[2]: row for row in records(tmp_path / "a.jsonl").values()}
    assert rows["chunked"]["data"] == {"name": "Product 2"}
    assert rows["gzip"]["data"] == {"name": "Product 1"}
    assert rows["cp1252"]["data"] == {"name": "Café €"}
    assert (rows["moved"]["error"], rows["gone"]["error"]) == ("http_301", "http_404")


# What is broken


def test_broken_records_are_passed_over_and_counted(tmp_path: Path) -> None:
    data = foreign(tmp_path / "whole.warc.gz", 20)
    starts = [at for at in range(len(data)) if data.startswith(b"\x1f\x8b\x08", at)]
    hurt = bytearray(data)
    hurt[starts[3] + 60] ^= 0xFF  # within the second page
    hurt[starts[8] - 6] ^= 0xFF  # the checksum of one record
    hurt[starts[21]] ^= 0xFF  # the first byte of a page
    (tmp_path / "hurt.warc.gz").write_bytes(hurt[: starts[39] + 50])  # the last page is cut
    ended = extract(tmp_path, "hurt.warc.gz", "-o", "a.jsonl", "--summary", "s.json")
    assert ended.code == 0, ended.said
    found = {int(row["url"].rpartition("/")[2]) for row in records(tmp_path / "a.jsonl").values()}
    assert found == set(range(20)) - {1, 10, 19} - ({3} if 3 not in found else set())
    assert "4 records passed over: 4 damaged or cut short" in ended.said
    assert "4 records passed over: 4 damaged or cut short" in json.loads((tmp_path / "s.json").read_text())["notes"]


def member(url: str, block: bytes, *more: str, length: int | None = None) -> bytes:
    lines = ["WARC/1.1", "WARC-Type: response", f"WARC-Target-URI: {url}", "WARC-Date: 2026-01-02T03:04:05Z", *more]
    lines += [
        "Content-Type: application/http;msgtype=response",
        f"Content-Length: {len(block) if length is None else length}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + block + b"\r\n\r\n"


def test_an_answer_is_held_against_its_payloads_digest_where_it_has_no_other(tmp_path: Path) -> None:
    good, other = answer(product(1)), answer(product(2))
    payload = good.partition(b"\r\n\r\n")[2]
    digest = b32encode(hashlib.sha1(payload, usedforsecurity=False).digest()).decode()
    parts = [
        member(f"http://a.test/{n}", block, f"WARC-Payload-Digest: sha1:{digest}")
        for n, block in ((1, good), (2, other))
    ]
    (tmp_path / "a.warc.gz").write_bytes(b"".join(map(gzip.compress, parts)))
    ended = extract(tmp_path, "a.warc.gz", "-o", "a.jsonl", "--select", "name=h1")
    assert ended.code == 0, ended.said
    assert [row["url"][-1] for row in records(tmp_path / "a.jsonl").values()] == ["1"]
    assert "1 with a wrong digest" in ended.said


def test_digests_sizes_and_strange_records(tmp_path: Path) -> None:
    good, other = answer(product(1)), answer(product(2))
    digest = b32encode(hashlib.sha1(good, usedforsecurity=False).digest()).decode()
    huge = answer(b"x" * 30_000_000)
    parts = [
        member("http://a.test/1", good, f"WARC-Block-Digest: sha1:{digest}"),
        member("http://a.test/2", other, f"WARC-Block-Digest: sha1:{digest}"),
        member("http://a.test/3", huge),
        member("http://a.test/4", b"no answer"),
        member("dns:a.test", b"20260102 a.test. A 127.0.0.1"),
        member(
            "<http://a.test/5>",
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\n\r\n" + product(5),
        ),
        member("http://a.test/6", answer(gzip.compress(b"y" * 20_000_000), "text/html", "Content-Encoding: gzip")),
        member("http://a.test/7", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + product(7)),
        member("http://a.test/8", good).replace(b"response\r\nWARC-T", b"revisit\r\nWARC-T"),
    ]
    (tmp_path / "odd.warc.gz").write_bytes(b"".join(map(gzip.compress, parts)))
    ended = extract(tmp_path, "odd.warc.gz", "-o", "a.jsonl", "--select", "name=h1")
    assert ended.code == 0, ended.said
    rows = {row["url"][-1]: row for row in records(tmp_path / "a.jsonl").values()}
    assert {name: row["error"] for name, row in rows.items()} == {"1": None, "5": None, "6": "too_large", "7": None}
    assert rows["5"]["data"] == {"name": "Product 5"}
    assert rows["7"]["data"] == {"name": "Product 7"}
    assert rows["1"]["fetched_at"] == "2026-01-02T03:04:05.000Z"
    for part in (
        "1 with a wrong digest",
        "1 larger than --max-size",
        "1 without a body",
        "2 that are no page of the web",
    ):
        assert part in ended.said


def test_a_broken_folder_of_bodies(crawled: Path, tmp_path: Path) -> None:
    shutil.copytree(crawled / "bodies", tmp_path / "bodies")
    rows = {row["url"].rpartition("/")[2]: row for row in records(crawled / "beside.jsonl").values()}
    files = [tmp_path / "bodies" / rows[name]["body_path"] for name in ("gzip", "chunked", "cp1252", "mark")]
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-3])
    shutil.copy(files[3], files[2])
    lines = (crawled / "beside.jsonl").read_text().splitlines()
    evil = json.loads(lines[0]) | {"id": 900, "error": None, "body_path": "../../etc/passwd"}
    (tmp_path / "p.jsonl").write_text("\n".join([*lines, json.dumps(evil), "no json", "[1]"]) + "\n")
    ended = extract(tmp_path, "p.jsonl", "-o", "a.jsonl", "--bodies", "bodies")
    assert ended.code == 0, ended.said
    for part in ("2 damaged", "1 with a wrong digest", "2 without a body", "2 that are no page"):
        assert part in ended.said
    assert 900 not in records(tmp_path / "a.jsonl")


# Bad input


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.warc.gz", "-o", "x.jsonl"], "none.warc.gz: no such file"),
        (["list.csv", "-o", "x.jsonl"], "list.csv: holds no pages: give a .warc"),
        (["beside.jsonl", "-o", "x.jsonl"], "say in which folder with --bodies DIR"),
        (["beside.jsonl", "-o", "x.jsonl", "--bodies", "none"], "none: is no folder of bodies"),
        (["bare.jsonl", "-o", "x.jsonl"], "bare.jsonl: has no bodies: crawl with --body"),
        (["pages.jsonl", "-o", "pages.jsonl"], "pages.jsonl is the file of pages that is to be read"),
        (["pages.warc.gz", "-o", "x.warc.gz"], "an archive is made of what a server sends"),
        (["bodies", "-o", "x.jsonl"], "bodies: is a folder without part-*.parquet"),
        (["noise.warc.gz", "-o", "x.jsonl"], "noise.warc.gz: is no WARC"),
        (["empty.warc", "-o", "x.jsonl"], "empty.warc: is empty"),
        (["twice.jsonl", "-o", "x.jsonl", "--no-job"], "stands in it twice"),
        (["pages.jsonl", "-o", "x.jsonl", "--select", "a=::"], "select"),
    ],
)
def test_bad_input_is_one_line(crawled: Path, words: list[str], said: str) -> None:
    (crawled / "bare.jsonl").write_text('{"id":1,"url":"http://a.test/","final_url":null,"status":null}\n')
    (crawled / "noise.warc.gz").write_bytes(gzip.compress(b"hello\n" * 100))
    (crawled / "empty.warc").touch()
    (crawled / "twice.jsonl").write_text(2 * (crawled / "pages.jsonl").read_text())
    ended = extract(crawled, *words)
    assert ended.code == 2
    assert said in ended.said
    if "--no-job" not in words:
        assert ended.said.count("\n") == 1
        assert not (crawled / "x.jsonl").exists()
    (crawled / "x.jsonl").unlink(missing_ok=True)


def test_an_archive_without_a_page(tmp_path: Path) -> None:
    foreign(tmp_path / "none.warc.gz", 0)
    ended = extract(tmp_path, "none.warc.gz", "-o", "a.jsonl")
    assert ended.code == 3
    assert "there is no page in none.warc.gz" in ended.said


@pytest.mark.parametrize("workers", ["1", "2"])
def test_archives_of_ours_that_were_put_together_are_read_one_behind_the_other(
    crawled: Path, tmp_path: Path, workers: str
) -> None:
    data = (crawled / "pages.warc.gz").read_bytes()
    (tmp_path / "all.warc.gz").write_bytes(3 * data)
    for name in ("one", "all"):
        source = str(crawled / "pages.warc.gz") if name == "one" else "all.warc.gz"
        assert extract(tmp_path, source, "-o", f"{name}.jsonl", *RULES, "--workers", workers).code == 0
    one, found = records(tmp_path / "one.jsonl"), records(tmp_path / "all.jsonl")
    assert set(found) == {id_ + turn * max(one) for id_ in one for turn in range(3)}
    for id_, record in found.items():
        assert without(record, "id") == without(one[(id_ - 1) % max(one) + 1], "id")
    again = extract(tmp_path, "all.warc.gz", "-o", "all.jsonl", *RULES, "--workers", workers)
    assert (again.code, "nothing was read" in again.said) == (0, True), again.said


def test_put_together_archives_go_on_after_a_limit(crawled: Path, tmp_path: Path) -> None:
    data = (crawled / "pages.warc.gz").read_bytes()
    (tmp_path / "all.warc.gz").write_bytes(40 * data)
    words = ["all.warc.gz", "-o", "all.jsonl", *RULES, "--workers", "2"]
    with Running("extract", *words, "--progress", folder=tmp_path) as running:
        running.until(lambda _: _size(tmp_path / "all.jsonl") > 100_000)
        running.process.kill()
        running.end()
    assert extract(tmp_path, *words).code == 0
    assert sorted(records(tmp_path / "all.jsonl")) == list(range(1, 40 * len(records(crawled / "beside.jsonl")) + 1))


def test_what_an_extractor_failed_on_is_taken_up_again(crawled: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("def name(response):\n    return 1 / (len(response.body) > 300_000)\n")
    words = [str(crawled / "pages.warc.gz"), "-o", "a.jsonl", "-o", "a.sqlite", "--extract", "mine:name"]
    assert extract(tmp_path, *words).code == 0
    before = records(tmp_path / "a.jsonl")
    assert sum(record["error"] == "extract_failed" for record in before.values()) > 40
    mine.write_text("def name(response):\n    return len(response.body)\n")
    ended = extract(tmp_path, *words, "--retry-failed")
    assert ended.code == 0, ended.said
    after = records(tmp_path / "a.jsonl")
    assert (set(after), {record["error"] for record in after.values()} & {"extract_failed"}) == (set(before), set())
    refused = next(record for record in after.values() if record["url"].endswith("/refused"))
    assert refused["error"] == "connect_refused", "what failed when it was fetched stays failed"


# A job


def test_killed_and_continued_each_page_is_there_once(tmp_path: Path) -> None:
    foreign(tmp_path / "big.warc.gz", 3_000)
    words = ["extract", "big.warc.gz", "-o", "a.jsonl", "-o", "a.sqlite", *RULES, "--progress"]
    for turn in range(6):
        with Running(*words, folder=tmp_path) as running:
            if turn:
                running.until_said("continuing")
            running.until(lambda _: _size(tmp_path / "a.jsonl") > turn * 150_000)
            running.process.kill()
            running.process.wait()
    ended = run(*words, folder=tmp_path)
    assert ended.code == 0, ended.said
    assert "continuing" in ended.said
    rows = records(tmp_path / "a.jsonl")
    assert sorted(rows) == list(range(1, 3_001))
    assert all(row["data"]["name"] == f"Product {number - 1}" for number, row in rows.items())
    with closing(sqlite3.connect(tmp_path / "a.sqlite")) as database:
        assert database.execute("select count(*), sum(id) from pages").fetchone() == (3_000, 3_000 * 3_001 // 2)
    again = run(*words, folder=tmp_path)
    assert (again.code, "nothing was read" in again.said) == (0, True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def test_ids_of_an_archive_in_any_order_continue(crawled: Path, tmp_path: Path) -> None:
    words = ["extract", "pages.warc.gz", "-o", str(tmp_path / "a.jsonl"), *RULES]
    assert run(*words, "--limit", "20", folder=crawled).code == 0
    ended = run(*words, folder=crawled)
    assert ended.code == 0, ended.said
    assert records(tmp_path / "a.jsonl").keys() == records(crawled / "pages.jsonl").keys()


def test_a_file_that_has_changed_is_refused(crawled: Path, tmp_path: Path) -> None:
    lines = (crawled / "pages.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "p.jsonl").write_text("".join(lines))
    words = ["extract", "p.jsonl", "-o", "a.jsonl"]
    assert run(*words, folder=tmp_path).code == 0
    (tmp_path / "p.jsonl").write_text("".join(lines[1:]))
    ended = run(*words, folder=tmp_path)
    assert (ended.code, "1 row that this job has read is not in the file any more" in ended.said) == (2, True)
    (tmp_path / "p.jsonl").write_text(
        "".join([json.dumps(json.loads(lines[0]) | {"url": "http://b.test/"}) + "\n", *lines[1:]])
    )
    ended = run(*words, folder=tmp_path)
    assert (ended.code, "is another than the one this job has read" in ended.said) == (2, True)
    ended = run(*words, "--select", "a=h1", folder=tmp_path)
    assert (ended.code, "--select was not given" in ended.said) == (2, True)


# Several processes


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an archive of several ranges: its pages cannot be packed."""
    folder = tmp_path_factory.mktemp("big")
    noise = random.Random(1)
    with (folder / "big.warc.gz").open("wb") as file:
        for number in range(2_000):
            body = product(number) + b"<!--" + noise.randbytes(1_500).hex().encode() + b"-->"
            file.write(gzip.compress(member(f"http://example.com/{number}", answer(body)), 1))
    assert (folder / "big.warc.gz").stat().st_size > 3 * RANGE_BYTES
    return folder


def test_processes_find_what_one_does(big: Path, tmp_path: Path) -> None:
    for workers in ("1", "2"):
        ended = extract(big, "big.warc.gz", "-o", str(tmp_path / f"{workers}.jsonl"), *RULES, "--workers", workers)
        assert ended.code == 0, ended.said
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()
    assert len(records(tmp_path / "1.jsonl")) == 2_000


@pytest.mark.parametrize("size", [700, 5_000, 40_000])
def test_ranges_of_any_size_are_the_file(crawled: Path, big: Path, size: int) -> None:
    for path in (crawled / "pages.warc.gz", big / "big.warc.gz"):
        if path.stat().st_size // size > 1_000:
            continue
        warc = StoredWARC(str(path), max_size=10**7, accept=Accept())
        whole = [_place(item) for item in warc.scan()]
        ranges = range(0, path.stat().st_size, size)
        assert whole == [_place(item) for start in ranges for item in warc.scan(start, start + size)]


def _place(item: Found) -> object:
    return item.request.url if isinstance(item, StoredPage) else item


def test_killed_processes_go_on(big: Path, tmp_path: Path) -> None:
    shutil.copy(big / "big.warc.gz", tmp_path)
    words = ["extract", "big.warc.gz", "-o", "a.jsonl", *RULES, "--workers", "2"]
    for turn in range(3):
        with Running(*words, folder=tmp_path, anew=True) as running:
            while _size(tmp_path / "a.jsonl") <= turn * 150_000:
                assert running.process.poll() is None, running.err.decode()
                time.sleep(0.005)
            running.process.kill()
            running.process.wait()
            running.until_printed()  # nobody who reads for it has its stdout any more
    ended = run(*words, folder=tmp_path, anew=True)
    assert ended.code == 0, ended.said
    assert sorted(records(tmp_path / "a.jsonl")) == list(range(1, 2_001))


def test_a_page_that_kills_its_process_costs_itself(big: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import os\ndef name(response):\n    if response.url.endswith('/700'):\n        os.abort()\n    return response.url[-4:]\n"
    )
    words = ["extract", str(big / "big.warc.gz"), "-o", "a.jsonl", "--extract", "mine:name", "--workers", "2"]
    ended = run(*words, folder=tmp_path, anew=True)
    assert ended.code == 0, ended.said
    failed = {number: row["error"] for number, row in records(tmp_path / "a.jsonl").items() if row["error"]}
    assert failed == {701: "parse_crash"}


def test_how_many_rows_an_archive_has_is_told_by_its_beginning(crawled: Path, big: Path, tmp_path: Path) -> None:
    def total(path: Path) -> int | None:
        return StoredWARC(str(path), max_size=10**7, accept=Accept()).total

    assert (crawled / "pages.warc.gz").stat().st_size < SAMPLE_BYTES
    assert total(crawled / "pages.warc.gz") == len(records(crawled / "pages.jsonl"))
    assert (big / "big.warc.gz").stat().st_size > 4 * SAMPLE_BYTES
    assert total(big / "big.warc.gz") == pytest.approx(2_000, rel=0.02)
    large = tmp_path / "large.warc"  # one page that has no room in what is looked at, and another
    large.write_bytes(member("http://a/1", answer(b"x" * SAMPLE_BYTES)) + member("http://a/2", answer(b"")))
    assert total(large) == 1
    none = tmp_path / "none.warc"
    none.write_bytes(b"WARC/1.0\r\nWARC-Type: warcinfo\r\nContent-Length: 0\r\n\r\n\r\n\r\n")
    assert total(none) is None


def test_how_many_rows_lines_have_is_told_by_the_first_of_them(tmp_path: Path) -> None:
    def total(name: str, content: bytes) -> int | None:
        (tmp_path / name).write_bytes(content)
        return open_stored(str(tmp_path / name)).total

    line = b'{"id":1,"url":"http://a/","body":"%s"}\n'
    assert total("few.jsonl", line % b"x" * 7) == 7
    assert total("cut.jsonl", line % b"x" * 7 + (line % b"x")[:20]) == pytest.approx(7.5, abs=0.5)
    many = b"".join(line % (b"x" * (1_000 + 10 * (number % 50))) for number in range(4_000))
    assert len(many) > 4 * LINES_SAMPLE_BYTES
    assert total("many.jsonl", many) == pytest.approx(4_000, rel=0.02)
    assert total("large.jsonl", line % (b"x" * LINES_SAMPLE_BYTES)) is None
    assert total("packed.jsonl.gz", gzip.compress(many)) is None


def test_what_several_processes_do_not_read(crawled: Path) -> None:
    ended = extract(crawled, "pages.jsonl", "-o", "x.jsonl", "--workers", "2")
    assert (ended.code, "pages.jsonl is no WARC" in ended.said) == (2, True)
    ended = extract(crawled, "pages.warc.gz", "-o", "x.jsonl", "--workers", "2", "--body", "inline")
    assert (ended.code, "with --body the pages" in ended.said) == (2, True)


def test_a_sample_of_the_sweep_of_kills(tmp_path: Path) -> None:
    for number in range(40):
        text = f"<title>{number}</title>" + f'<a href="{number}">{number}</a>' * number
        (tmp_path / f"{number}.html").write_text(text)
    (tmp_path / "ground").mkdir()
    struck, troubles = extracting.kills(3, ground=tmp_path / "ground", root=tmp_path, pages=120, a_job=3)
    assert not troubles
    assert struck
