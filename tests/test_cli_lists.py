"""Lists as people have them, read by the command line: encodings, columns, Parquet, and the output of an earlier run."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.lab.command import Ended, as_said, run
from tests.lab.server import LabServer


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread() as server:
        yield server


def records(ended: Ended) -> list[dict[str, Any]]:
    assert ended.code == 0, ended.said
    return sorted(map(json.loads, ended.lines), key=lambda record: record["id"])


HINT = (
    "fetcher: warning: l.csv:2: is not UTF-8: bytes that cannot be read become U+FFFD; "
    "--encoding NAME reads it as it is meant (cp1252 is what Windows and Excel write)"
)


def test_one_line_tells_of_the_encoding_and_the_flag_reads_it(lab: LabServer, tmp_path: Path) -> None:
    rows = "".join(f"Müller;{lab.url(f'/ok?{n}')}\r\n" for n in range(300))
    (tmp_path / "l.csv").write_bytes(f"Name;URL\r\n{rows}".encode("cp1252"))
    for words in ([], ["-v"], ["-vv"]):
        ended = run("crawl", "l.csv", "-f", "jsonl", *words, folder=tmp_path)
        assert [record["fields"] for record in records(ended)] == [{"Name": "M\ufffdller"}] * 300
        assert [line for line in ended.said.splitlines() if "UTF-8" in line] == [HINT]
    assert "UTF-8" not in run("crawl", "l.csv", "-q", folder=tmp_path).said
    ended = run("crawl", "l.csv", "--log-format", "json", folder=tmp_path)
    (told,) = [told for told in map(json.loads, ended.said.splitlines()) if "UTF-8" in told["message"]]
    assert (told["level"], told["logger"]) == ("warning", "fetcher.sources")
    ended = run("crawl", "l.csv", "-f", "jsonl", "--encoding", "windows-1252", folder=tmp_path)
    assert [record["fields"] for record in records(ended)] == [{"Name": "Müller"}] * 300
    assert "encoding" not in ended.said
    assert HINT in run("crawl", "l.csv", "--dry-run", "--no-robots", folder=tmp_path).said
    assert HINT in run("bench", "l.csv", "-n", "1", "-c", "1", "--rounds", "1", folder=tmp_path).said


def test_columns_are_chosen_by_flags_and_by_the_file(lab: LabServer, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(f'a~b~img\n1~2~"{lab.url("/ok")}"\n', encoding="utf-8")
    words = ["m.csv", "--delimiter", "~", "--url-column", "IMG", "--carry", "B", "-f", "jsonl"]
    assert [record["fields"] for record in records(run("crawl", *words, folder=tmp_path))] == [{"b": "2"}]
    (tmp_path / "f.toml").write_text('delimiter = "~"\nurl-column = "img"\ncarry = []\nformat = "jsonl"\n')
    assert [record["fields"] for record in records(run("crawl", "m.csv", "--config", "f.toml", folder=tmp_path))] == [
        None
    ]
    # The columns that are carried are a CSV's own, though a list of free keys has none.
    (tmp_path / "l.jsonl").write_text(json.dumps({"url": lab.url("/ok"), "n": 1, "m": [2]}))
    table = list(
        csv.DictReader(run("crawl", "l.jsonl", "--carry", "m,x", "-f", "csv", folder=tmp_path).text.splitlines())
    )
    assert (table[0]["m"], table[0]["x"], "fields" in table[0]) == ("[2]", "", False)


def test_what_a_row_carries_beyond_the_columns_of_the_first_is_kept(lab: LabServer, tmp_path: Path) -> None:
    rows = [{"url": lab.url("/ok?1"), "a": "1"}, {"url": lab.url("/ok?2"), "b": "2"}]
    (tmp_path / "l.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for before, after in pairwise(["l.jsonl", "a.csv", "b.csv", "c.jsonl"]):
        assert run("crawl", before, "-o", after, folder=tmp_path).code == 0
    found = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().splitlines()]
    fields = {record["url"]: {name: value for name, value in record["fields"].items() if value} for record in found}
    assert fields == {rows[0]["url"]: {"a": "1"}, rows[1]["url"]: {"b": "2"}}


def test_a_job_over_a_parquet_file_goes_on(lab: LabServer, tmp_path: Path) -> None:
    columns = {
        "link": [lab.url(f"/ok?{n}") for n in range(200)],
        "when": pa.array(range(200), pa.timestamp("s", "UTC")),
    }
    pq.write_table(pa.table(columns), tmp_path / "l.parquet", row_group_size=50)
    words = ["l.parquet", "-o", "out.jsonl", "--summary", "-"]
    first = run("crawl", *words, "--limit", "120", folder=tmp_path)
    assert json.loads(first.text)["ok"] == 120
    second = run("crawl", *words, folder=tmp_path)
    assert "120 rows are done, about 80 are left" in second.said
    assert json.loads(second.text)["ok"] == 200
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert sorted(record["id"] for record in found) == list(range(1, 201))
    assert {record["id"]: record["fields"]["when"] for record in found}[61] == "1970-01-01T00:01:00Z"
    refused = run("crawl", *words, "--carry", "", folder=tmp_path)
    assert refused.code == 2
    assert "--carry was not given when this job began, and is nothing" in refused.said


def test_the_output_of_a_run_is_the_list_of_the_next(lab: LabServer, tmp_path: Path) -> None:
    fields = {"name": "=1+1", "status": "mine", "n": "'x'"}
    rows = [{"url": lab.url(path), **fields} for path in ("/ok?1", "/status/404", "/ok?2")]
    (tmp_path / "l.jsonl").write_text("\n".join(map(json.dumps, rows)))
    chain = ["l.jsonl", "a.jsonl", "b.csv", "c.csv.gz", "d.jsonl"]
    for before, after in pairwise(chain):
        assert (
            run("crawl", before, "-o", after, "--select", "t=title", "--carry", "name,status,n", folder=tmp_path).code
            == 0
        )
    found = sorted(map(json.loads, (tmp_path / "d.jsonl").read_text().splitlines()), key=lambda record: record["url"])
    assert [record["url"] for record in found] == sorted(row["url"] for row in rows)
    assert [record["fields"] for record in found] == [fields] * 3


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_an_output_that_is_also_a_list_is_kept_under_any_name(link: Any, lab: LabServer, tmp_path: Path) -> None:
    assert run("crawl", lab.url("/ok"), "-o", "out.jsonl", folder=tmp_path).code == 0
    link(tmp_path / "out.jsonl", tmp_path / "again.jsonl")
    kept = (tmp_path / "out.jsonl").read_bytes()
    for words in (["out.jsonl", "-o", "again.jsonl"], ["again.jsonl", "-o", "out.jsonl"]):
        for fresh in ([], ["--fresh"]):
            ended = run("crawl", *words, *fresh, folder=tmp_path)
            assert (ended.code, ended.said) == (
                2, f"fetcher: {as_said(f'output: {words[2]} is a list that is to be read; write to another file')}\n",
            )  # fmt: skip
    assert (tmp_path / "out.jsonl").read_bytes() == kept
