"""One crawl into all formats at once: read back by the libraries people have, they are the same table."""

from __future__ import annotations

import csv
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fetcher.sinks import COLUMNS
from tests.lab.command import run
from tests.lab.server import LabServer

NAMES = ["pages.jsonl", "pages.csv", "pages.parquet", "pages.sqlite", "pages.warc.gz"]
COMPARED = [name for name in COLUMNS if name not in ("fields", "data")]
"""The columns of a record that every table has; the others are columns of their own in some."""

Table = list[dict[str, Any]]


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread() as server:
        yield server


def plain(value: Any) -> Any:
    """Return a value as JSON has it: a moment as a text, a list for an array, ``None`` for what is not there."""
    if value is None or str(value) in ("nan", "NaT"):  # what pandas has for nothing
        return None
    if hasattr(value, "isoformat"):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return list(value) if hasattr(value, "__len__") and not isinstance(value, str) else value


def from_json(path: Path) -> Table:
    return [json.loads(line) for line in path.read_text().splitlines()]


def from_csv(path: Path) -> Table:
    whole, real = {"id", "status", "length", "bytes", "links", "attempts"}, {"elapsed", "waited"}
    with path.open(newline="", encoding="utf-8") as file:
        rows: Table = list(csv.DictReader(file))
    for row in rows:
        for name, text in row.items():
            if not text:
                row[name] = None
            elif name in whole or name in real:
                row[name] = int(text) if name in whole else float(text)
        row["redirects"] = json.loads(row["redirects"])
        row["truncated"] = row["truncated"] == "true"
    return rows


def from_sqlite(path: Path) -> Table:
    with closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        rows = [dict(row) for row in db.execute("SELECT * FROM pages")]
    return [{**row, "redirects": json.loads(row["redirects"]), "truncated": bool(row["truncated"])} for row in rows]


def from_pyarrow(path: Path) -> Table:
    rows: Table = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    return rows


def from_pandas(path: Path) -> Table:
    frame = pytest.importorskip("pandas").read_parquet(path)
    rows: Table = frame.astype(object).to_dict("records")
    return rows


def from_duckdb(path: Path) -> Table:
    duckdb = pytest.importorskip("duckdb")
    answer = duckdb.sql(f"SELECT * FROM read_parquet('{path}')")
    names = [name for name, *_ in answer.description]
    return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]


def from_archive(path: Path) -> Table:
    warc = pytest.importorskip("fastwarc.warc")
    with path.open("rb") as file:
        records = warc.ArchiveIterator(file, record_types=warc.WarcRecordType.metadata)
        return [json.loads(record.reader.read()) for record in records]


READERS = {
    "pages.csv": [from_csv],
    "pages.parquet": [from_pyarrow, from_pandas, from_duckdb],
    "pages.sqlite": [from_sqlite],
    "pages.warc.gz": [from_archive],
}


@pytest.fixture(scope="module")
def crawled(lab: LabServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    paths = [
        *(f"/ok?n={n}&links={n % 7}&title=T%20{n}" for n in range(120)), "/hops/2", "/gzip", "/status/404", "/status/500",
        "/reset", "/ok?type=image/png", "/ok?charset=utf-16", "/loop", "/ok?title=%3D1%2B1", "/ok?size=70000", "/empty",
    ]  # fmt: skip
    lines = [f"{lab.url(path)},{number},name é {number}" for number, path in enumerate(paths)]
    (folder / "l.csv").write_text("\n".join(["url,nr,name", *lines, "ftp://no.such/,,bad"]) + "\n")
    words = [word for name in NAMES for word in ("-o", name)]
    done = run(
        "crawl", "l.csv", *words, "--select", "head=title", "--select", "n[]=a@href", "--retries", "0", folder=folder
    )
    assert done.code == 0, done.said
    return folder


@pytest.mark.parametrize(
    ("name", "reader"),
    [(name, reader) for name, readers in READERS.items() for reader in readers],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_each_format_has_the_same_table(name: str, reader: Any, crawled: Path) -> None:
    expected = {row["id"]: row for row in from_json(crawled / "pages.jsonl")}
    found = {row["id"]: row for row in reader(crawled / name)}
    assert sorted(found) == sorted(expected)
    assert len(expected) == 132
    for number, row in expected.items():
        for column in COMPARED:
            value = plain(found[number][column])
            if column == "title" and name == "pages.csv" and value is not None:
                value = value.removeprefix("'")  # a spreadsheet would run it
            assert value == row[column], (number, column)


def test_the_lists_columns_and_what_is_selected_come_along(crawled: Path) -> None:
    row = next(row for row in from_json(crawled / "pages.jsonl") if row["fields"]["nr"] == "5")
    expected = ("5", "name é 5", row["data"]["head"])
    for found in (
        from_csv(crawled / "pages.csv"),
        from_pyarrow(crawled / "pages.parquet"),
        from_sqlite(crawled / "pages.sqlite"),
    ):
        (same,) = [each for each in found if each["id"] == row["id"]]
        assert (same["nr"], same["name"], same["head"]) == expected
    with closing(sqlite3.connect(crawled / "pages.sqlite")) as db:
        listed = [value for (value,) in db.execute("SELECT value FROM n WHERE id = ? ORDER BY position", (row["id"],))]
    (same,) = [each for each in from_pyarrow(crawled / "pages.parquet") if each["id"] == row["id"]]
    assert same["n"] == listed == row["data"]["n"]


def test_a_page_of_the_archive_is_the_servers(crawled: Path, lab: LabServer) -> None:
    warc = pytest.importorskip("fastwarc.warc")
    url = lab.url("/ok?n=3&links=3&title=T%203")
    with (crawled / "pages.warc.gz").open("rb") as file:
        for record in warc.ArchiveIterator(file, record_types=warc.WarcRecordType.response):
            if record.headers["WARC-Target-URI"] == url:
                body = record.reader.read()
    assert body.startswith(b"<!doctype html><html><head><title>T 3</title>")
    done = subprocess.run(
        [sys.executable, "-m", "warcio.cli", "check", str(crawled / "pages.warc.gz")], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")
