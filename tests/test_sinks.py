from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import os
import re
import stat
import sys
import types
from pathlib import Path
from typing import Any

import msgspec
import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.errors import ConfigError, ConnectError, FetcherError, SinkError, StatusError
from fetcher.model import Failure, Outcome, Page, Request, records
from fetcher.sinks import COLUMNS, Layout, check_output, open_sink, to_json, to_record
from fetcher.sinks.csv_format import CSVSink, defuse
from fetcher.sinks.layout import RecordMaker
from fetcher.sinks.text import TextSink
from tests.lab.suites import suite
from tests.test_escape import steers

CONTRACT = (
    "id url final_url status length bytes content_type charset title links redirects attempts elapsed waited "
    "fetched_at error message truncated robots refresh etag last_modified digest fields data"
)
DEADLINE = 30
SPECIAL_MARKS = ("'", "=", "+", "-", "@", "\t", "\r", "\n", "\0", "＝")


def page(row: int = 1, url: str = "https://a.example/", fields: Any = None, **known: Any) -> Page:
    return Page(Request(row, url, fields=fields), url, known.pop("status", 200), **({"length": 5} | known))


def failure(error: Any = None, **known: Any) -> Failure:
    return Failure(Request(2, "https://b.example/"), error or ConnectError("connect_refused", "no"), **known)


def unpack(path: Path) -> bytes:
    data = path.read_bytes()
    return {".gz": gzip.decompress, ".zst": zstd.decompress}.get(path.suffix, bytes)(data)


def restore(cell: str) -> str:
    """Take off the apostrophe that a reader may take for ours."""
    return cell[1:] if re.match("''*[=+\\-@\t\r\n\0＝＋－＠]", cell) else cell


def rows(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


def naughty() -> list[str]:
    return [*json.loads((suite("naughty-strings") / "blns.json").read_text()), "'=1", "''", "-5", "a\r", "\0", "\t=1"]


async def fill(path: Path | str, *outcomes: Outcome, **options: Any) -> None:
    async with open_sink(path, **options) as sink:
        for outcome in outcomes:
            await sink.write(outcome)


# A record


def test_a_record_has_the_fields_of_the_contract() -> None:
    assert list(COLUMNS) == CONTRACT.split()


def test_a_page_and_a_failure_become_records() -> None:
    good = to_record(
        page(3, fields={"x": "1"}, elapsed=0.12345, waited=2.0006, fetched_at=1.9996, data=[1], truncated=True)
    )
    assert (good.id, good.elapsed, good.waited, good.fields, good.data) == (3, 0.123, 2.001, {"x": "1"}, [1])
    assert (good.error, good.message, good.truncated) == (None, None, True)
    assert good.fetched_at == "1970-01-01T00:00:02.000Z"
    bad = to_record(failure(StatusError(503), status=503, bytes=7, attempts=3))
    assert (bad.error, bad.message, bad.status, bad.bytes, bad.length) == ("http_503", None, 503, 7, None)
    assert bad.fetched_at is None
    assert to_record(failure()).message == "no"


class Opaque:
    def __str__(self) -> str:
        return "opaque \udcff"


def looped() -> list[Any]:
    loop: list[Any] = []
    loop += [loop, loop]
    return loop


def nested(depth: int) -> list[Any]:
    return [nested(depth - 1)] if depth > 1 else []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), None),
        ([float("inf"), 1.5], [None, 1.5]),
        (2**70, 2**70),
        pytest.param(10**5000, hex(10**5000), id="huge"),
        ("a\ud800b", "a\ufffdb"),
        ("\ud83d\ude42", "🙂"),
        ({"\udc80": ["\udc80"]}, {"\ufffd": ["\ufffd"]}),
        (Opaque(), "opaque \ufffd"),
        ({("a", 1): {2}}, {"('a', 1)": [2]}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (looped(), ["…", "…"]),
        (
            page().request,
            {
                "id": 1,
                "url": "https://a.example/",
                "headers": [],
                "fields": None,
                "tag": None,
                "guarded": False,
                "discovery": None,
                "method": "GET",
            },
        ),
        (msgspec.Raw(b'{"a":\n1}'), {"a": 1}),
    ],
)
def test_any_value_fits_into_one_line_of_json(value: Any, expected: Any) -> None:
    line = to_json(to_record(page(data=value, title="t\udcff", fields={"v": value})))
    record = json.loads(line)
    assert b"\n" not in line
    assert record["data"] == record["fields"]["v"] == expected
    assert (record["title"], record["length"]) == ("t\ufffd", 5)
    assert json.loads(to_json(value)) == expected


def test_what_is_nested_too_deep_is_cut_there() -> None:
    assert to_json(nested(900)).count(b"[") == 900
    assert b"\xe2\x80\xa6" in to_json(["\udc80", nested(900)])


# For programs


@pytest.mark.parametrize(
    "value", [None, "é", 2**70, 1.5, float("nan"), [1, ("a",)], {"a": {2}}, Opaque(), "a\ud800b", looped(), b"raw"]
)
def test_a_record_for_a_program_is_what_a_line_of_json_says(value: Any) -> None:
    outcomes: list[Outcome] = [page(data=value, fields={"v": value}, redirects=("u",)), failure()]
    lines = [to_json(to_record(outcome)) for outcome in outcomes]
    found = list(records(iter(outcomes)))
    assert found == [json.loads(line) for line in lines] == [outcome.record() for outcome in outcomes]
    assert [tuple(record) for record in found] == [COLUMNS, COLUMNS]
    assert found[0]["redirects"] == ["u"]


def test_what_cannot_be_read_costs_its_own_place() -> None:
    deep = b"[" * 200_000 + b"]" * 200_000
    [record] = records([page(data=msgspec.Raw(b"{'a'}"), fields={"v": msgspec.Raw(deep)}, title="t")])
    assert (record["data"], record["title"], tuple(record)) == ("{'a'}", "t", COLUMNS)
    assert record["fields"] == f'{{"v":{deep.decode()}}}'


def test_records_are_made_one_by_one() -> None:
    endless = (page(number) for number in itertools.count(1))
    assert [record["id"] for record in itertools.islice(records(endless), 3)] == [1, 2, 3]


# The formats


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
async def test_naughty_strings_come_back_whole(tmp_path: Path, packing: str) -> None:
    strings = naughty()
    pages = [page(i, url=s, title=s, data={"s": s}, fields={"f": s}) for i, s in enumerate(strings)]
    await fill(tmp_path / f"p.jsonl{packing}", *pages)
    records = [json.loads(line) for line in unpack(tmp_path / f"p.jsonl{packing}").splitlines()]
    assert [(r["url"], r["title"], r["data"]["s"], r["fields"]["f"]) for r in records] == [(s,) * 4 for s in strings]
    await fill(tmp_path / f"p.csv{packing}", *pages, select=["s"])
    cells = [[row[k] for k in ("url", "title", "s", "f")] for row in rows(unpack(tmp_path / f"p.csv{packing}"))]
    assert [[*map(restore, row)] for row in cells] == [[s] * 4 for s in strings]


async def test_text_output_holds_no_raw_control_character(tmp_path: Path) -> None:
    strings = [*naughty(), "\x1b[2J\x9b\u202e\u2028\udcff\r"]
    path = tmp_path / "p.txt"
    for text in strings:
        error = StatusError(500, text)
        path.unlink(missing_ok=True)
        given = page(url=text, preview=text, content_type=text, length=None, data={text: text, "l": [text]})
        await fill(path, given, Failure(Request(1, text), error))
        shown = path.read_bytes().decode()
        assert not any(map(steers, shown.replace("\n", "")))
        assert shown.count("\n") == 4 + bool(text.split())


@pytest.mark.parametrize(
    ("outcome", "lines"),
    [
        (page(), "https://a.example/ -> 5"),
        (page(length=None, bytes=70, content_type="image/png"), "https://a.example/ -> 70 bytes (image/png)"),
        (page(length=None, bytes=70), "https://a.example/ -> 70 bytes"),
        (failure(), "https://b.example/ !! connect_refused: no"),
        (failure(StatusError(404)), "https://b.example/ !! http_404"),
        (page(preview=" A\n\n b\t"), "https://a.example/ -> 5\n    A b"),
        (page(preview=" \n"), "https://a.example/ -> 5"),
        (page(data={"h1": "Hi\nyou", "n": [1, None]}), "https://a.example/ -> 5\n    h1: Hi you\n    n: [1,null]"),
        (page(data="x"), "https://a.example/ -> 5\n    data: x"),
    ],
)
def test_text_is_a_line_an_outcome(outcome: Outcome, lines: str) -> None:
    assert TextSink("-").encode(outcome).decode() == lines + "\n"


async def test_csv_columns_are_a_records_then_the_lists_then_the_selected(tmp_path: Path) -> None:
    sink = CSVSink(tmp_path / "a.csv", Layout(fields=("url", "row_url", "=x"), select=("title", "price")))
    async with sink:
        await sink.write(page(fields={"url": "u", "=x": "y", "late": 1}, data={"price": 2, "more": [3]}))
        await sink.write(failure())
    first, second = rows(unpack(tmp_path / "a.csv"))
    assert list(first) == [*COLUMNS, "row_url", "row_row_url", "'=x", "data_title", "price"]
    assert [first[k] for k in ("row_url", "row_row_url", "'=x", "data_title", "price")] == ["u", "", "y", "", "2"]
    assert (first["fields"], first["data"]) == ('{"late":1}', '{"more":[3]}')
    assert (second["error"], second["status"], second["fields"], second["data"]) == ("connect_refused", "", "", "")


async def test_csv_takes_the_first_outcomes_fields_or_none(tmp_path: Path) -> None:
    known = {"a": True, "b": float("nan"), "c": [None], "d": Opaque(), "e": 10**5000, "f": -0.5}
    await fill(tmp_path / "a.csv", page(fields=known, redirects=("x", "y"), data="=d"), page(fields={"z": 1}))
    first, second = rows(unpack(tmp_path / "a.csv"))
    assert [first[k] for k in known] == ["true", "", "[null]", "opaque \ufffd", hex(10**5000), "-0.5"]
    assert (first["redirects"], first["data"], second["fields"]) == ('["x","y"]', '"=d"', '{"z":1}')
    await fill(tmp_path / "b.csv", page(fields={"a": "-1+1"}), fields=())
    assert rows(unpack(tmp_path / "b.csv"))[0]["fields"] == '{"a":"-1+1"}'


@pytest.mark.parametrize(
    ("text", "cell"),
    [("-5", "-5"), ("+1.5e-3", "+1.5e-3"), ("-.5", "-.5"), ("a=b", "a=b"), ("'tis", "'tis"), ("'-5", "''-5")]
    + [(text, f"'{text}") for text in ("=1", "+1+1", "-1-1", "@A1", "\t=1", "\r=1", "\n", "\0=", "-5\n", "＝1", "'=1")],
)
def test_formulas_are_defused_and_numbers_stay(text: str, cell: str) -> None:
    assert (defuse(text), restore(cell)) == (cell, text)


@settings(deadline=None)
@given(st.lists(st.builds(str.__add__, st.sampled_from(["", *SPECIAL_MARKS]), st.text(st.characters(codec="utf-8")))))
def test_csv_comes_back_whole_and_no_cell_runs(texts: list[str]) -> None:
    sink = CSVSink("-", Layout(fields=(), select=tuple(f"c{i}" for i in range(len(texts)))))
    line = sink.encode(page(title="".join(texts), data={f"c{i}": text for i, text in enumerate(texts)}))
    (row,) = csv.reader(io.StringIO(line.decode(), newline=""))
    assert [restore(cell) for cell in row[len(COLUMNS) :]] == texts
    assert restore(row[8]) == "".join(texts)
    for cell in row:
        if cell.startswith(SPECIAL_MARKS[1:]):
            float(cell)


@pytest.mark.parametrize("name", ["e.jsonl", "e.txt", "e.csv", "e.jsonl.gz", "e.csv.gz", "e.jsonl.zst", "E.CSV.ZST"])
async def test_an_output_without_outcomes_is_whole(tmp_path: Path, name: str) -> None:
    await fill(tmp_path / name)
    path = (tmp_path / name).rename(tmp_path / name.lower())
    assert unpack(path) == (",".join(COLUMNS).encode() + b"\r\n" if "csv" in name.lower() else b"")


# The place and the format


@pytest.mark.parametrize(
    ("name", "options", "kind", "message"),
    [
        ("old.jsonl", {}, ConfigError, r"old\.jsonl exists; use --fresh to overwrite it$"),
        ("no/a.jsonl", {}, SinkError, r"no/a\.jsonl: the folder \S+/no does not exist$"),
        ("dir.csv", {"fresh": True}, SinkError, r"dir\.csv: is a folder$"),
        ("old.jsonl/a.csv", {}, SinkError, r"a\.csv: cannot open: Not a directory$"),
        ("a.pdf", {}, ConfigError, r"a\.pdf: unknown suffix '\.pdf': there are \.jsonl.*\.csv.*\.gz or \.zst"),
        ("a.gz", {}, ConfigError, "unknown suffix ''"),
        (
            "a.csv",
            {"format": "xml"},
            ConfigError,
            "unknown format 'xml': there are text, jsonl, csv, parquet, sqlite, warc",
        ),
        ("a\0.csv", {}, ConfigError, "no file name"),
        ("/dev/fd/999", {}, SinkError, "/dev/fd/999: cannot open: Bad file descriptor"),
    ],
)
async def test_a_wrong_output_is_refused_before_and_at_the_opening(
    tmp_path: Path, name: str, options: Any, kind: type[FetcherError], message: str
) -> None:
    (tmp_path / "old.jsonl").write_text("kept")
    (tmp_path / "dir.csv").mkdir()
    path = str(tmp_path / name)
    with pytest.raises(kind, match=message):
        check_output(path, **options)
    with pytest.raises(kind, match=message):
        await fill(path, page(), **options)
    assert (tmp_path / "old.jsonl").read_text() == "kept"
    assert sorted(os.listdir(tmp_path)) == ["dir.csv", "old.jsonl"]


async def test_fresh_overwrites_and_checking_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "old.txt"
    path.write_text("old" * 1000)
    check_output(path, fresh=True)
    assert path.stat().st_size == 3000
    await fill(path, page(), fresh=True)
    assert path.read_text() == "https://a.example/ -> 5\n"
    monkeypatch.chdir(tmp_path)
    check_output("new.ndjson.zst")
    await fill("other", page(), format="csv")
    assert sorted(os.listdir()) == ["old.txt", "other"]
    assert stat.S_IMODE((tmp_path / "other").stat().st_mode) & 0o111 == 0


def test_zstandard_that_is_missing_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    for action in (open_sink, check_output):
        with pytest.raises(ConfigError, match=r"pip install 'fetcher-crawl\[speed\]'"):
            action(tmp_path / "a.csv.zst")


async def test_gzip_needs_no_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    await fill(tmp_path / "a.txt.gz", page())
    assert unpack(tmp_path / "a.txt.gz") == b"https://a.example/ -> 5\n"


@pytest.mark.parametrize(
    ("body", "kind", "charset", "text"),
    [
        (b"\xef\xbb\xbfa\xffb", "text/html", "utf-8", "a\ufffdb"),
        ("Żółć".encode("utf-16"), "text/plain", "utf-16le", "Żółć"),
        (b"", "text/html", "utf-8", ""),
        (b"\x89PNG", "image/png", None, "data:image/png;base64,iVBORw=="),
        (b"", None, None, "data:application/octet-stream;base64,"),
        (b"a", "image/a#b%20", None, "data:image/a%23b%2520;base64,YQ=="),
    ],
)
def test_a_body_in_a_column_is_text_or_a_uri_and_bytes_where_the_format_has_them(
    body: bytes, kind: str | None, charset: str | None, text: str
) -> None:
    outcome = page(body=body, content_type=kind, charset=charset)
    assert RecordMaker(["id", "body"]).values(outcome) == (1, text)
    assert RecordMaker(["id", "body"], binary=True).values(outcome) == (1, body)


def test_what_has_no_body_has_none_in_its_column() -> None:
    for outcome in (page(), Failure(Request(1, "https://a.example/"), ConnectError("connect_reset"))):
        assert RecordMaker(["body"]).values(outcome) == (None,)
        assert RecordMaker(["body"], binary=True).values(outcome) == (None,)
