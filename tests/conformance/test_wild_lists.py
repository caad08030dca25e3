"""Lists as people have them, each crawled by the command line: its rows, those that are none, and their other columns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.command import run
from tests.lab.server import LabServer
from tests.lab.suites import suite

NAMES = [
    "tsv-quotes-are-data",
    "csv-text-after-quote",
    "txt-second-column",
    "txt-bom-within",
    "txt-quoted",
    "txt-double-scheme",
    "csv-semicolon",
    "csv-tabs",
    "csv-cp1252-note",
    "jsonl-half-surrogate",
]


@pytest.fixture(scope="module")
def cases() -> dict[str, dict[str, Any]]:
    listed = json.loads((suite("wild") / "lists.json").read_text(encoding="utf-8"))
    return {case["name"]: case for case in listed}


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread(hosts=1) as server:
        yield server


def test_every_list_is_tried(cases: dict[str, dict[str, Any]]) -> None:
    assert set(NAMES) == set(cases)


@pytest.mark.parametrize("name", NAMES)
def test_a_list_is_read_as_it_is_meant(
    name: str, cases: dict[str, dict[str, Any]], lab: LabServer, tmp_path: Path
) -> None:
    case = cases[name]
    want, path = case["want"], tmp_path / case["file"]
    legacy = case["text"] is None
    text, encoding = (case["latin1"], "latin-1") if legacy else (case["text"], "utf-8")
    path.write_bytes(text.replace("<B>", lab.url("/ok")).encode(encoding))
    ended = run("crawl", case["file"], "-o", "out.jsonl", "--no-job", folder=tmp_path)
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    bad = [record for record in records if record["error"] is not None]
    assert len(records) == want["rows"]
    assert [record["error"] for record in bad] == ["invalid_url"] * want.get("bad_rows", 0)
    assert ended.code == (3 if len(bad) == len(records) else 0)
    records.sort(key=lambda record: record["id"])
    urls = [record["final_url"] for record in records if record["error"] is None]
    assert urls == [lab.url(f"/ok/{record['id']}") for record in records if record["error"] is None]
    for record in bad:
        assert record["attempts"] == 0
        assert record["message"].startswith(
            (f"{case['file']}:{record['id'] + (path.suffix != '.txt')}: ", "not a URL: ")
        )
    if "fields" in want:
        assert [record["fields"] for record in records] == [want["fields"]]
    assert ended.said.count("--encoding") == legacy
    if "caption" in want:
        assert [record["fields"]["caption"] for record in records] == want["caption"]
