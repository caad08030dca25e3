"""Parquet as an output: its values, its files, and what a kill or an error at any call leaves of them."""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fetcher.config import Config
from fetcher.errors import ConfigError, FetcherError, SinkError
from fetcher.job.identity import JobIdentity
from fetcher.job.ledger import LedgerRow, RunProgress
from fetcher.job.opening import OpenJob, open_job
from fetcher.job.paths import folder_for, work_folder
from fetcher.model import Failure, Outcome, Page, Request
from fetcher.sinks import JSONLSink, Layout, Mark, check_output, open_job_output, open_sink, sink_for
from fetcher.sinks import journal as journal_module
from fetcher.sinks.job_output import JobOutput
from fetcher.sinks.journal import Frame, Journal
from fetcher.sinks.layout import DEFAULT_COLUMNS
from fetcher.sources.inputs import DEFAULT_OPTIONS
from tests.test_sinks import failure, page

ADVICE = "put it back as it was, or begin again with --fresh"
FIXED = Layout(fields=(), free_fields=False, free_data=False)


async def fill(path: Path | str, *outcomes: Outcome, layout: Layout = Layout(), **options: Any) -> pa.Table:
    async with sink_for(path, layout, **options) as sink:
        for outcome in outcomes:
            await sink.write(outcome)
    return pq.read_table(path, use_threads=False)


def queried(question: str) -> list[Any]:
    answer = duckdb.sql(question)
    assert answer is not None
    return answer.fetchall()


# Values

WIDE = (*DEFAULT_COLUMNS, "headers", "body", "body_path")
DATA = {"h": "x", "tags": ["a", "b"]}


def various() -> list[Outcome]:
    headers = (("server", "nginx"), ("via", "a"), ("via", "b"), ("set-cookie", "a=1"), ("set-cookie", "b=2"))
    return [
        page(
            1, "https://a.example/ü", {"sku": "007", "ok": "ja"}, title="Grüße 🎉", links=3, elapsed=0.1234,
            waited=2.5, fetched_at=1764339466.123, charset="utf-8", content_type="text/html", bytes=17,
            redirects=("http://a.example/", "https://a.example/"), headers=headers, body=b"\xff\x00<p>",
            body_path="ab/cd.html", digest="sha256:00", data=DATA,
        ),
        failure(fetched_at=1.5, status=503, attempts=3),
        page(3, fields={"sku": 5, "more": [1, {"a": None}]}, length=None, data={"h": None, "tags": [], "x": 1}),
        page(4, fields=None, data=["no", "mapping"], truncated=True, robots="noindex"),
    ]  # fmt: skip


async def test_values_are_those_of_json_lines(tmp_path: Path) -> None:
    layout = Layout(columns=WIDE, fields=("sku", "ok"), select=("h", "tags"), select_lists=("tags",))
    outcomes = various()
    table = await fill(tmp_path / "a.parquet", *outcomes, layout=layout)
    lines = JSONLSink("a.jsonl", layout)
    records = [json.loads(lines.encode(outcome)) for outcome in outcomes]
    assert table.num_rows == len(records)
    plain = [name for name in WIDE if name not in ("fetched_at", "headers", "body", "fields", "data")]
    for row, record in zip(table.to_pylist(), records, strict=True):
        assert {name: row[name] for name in plain} == {name: record[name] for name in plain}
        moment = row["fetched_at"]
        assert (moment and moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")) == record["fetched_at"]
        assert dict(row["headers"] or ()) == (record["headers"] or {})
        fields = {name: row[name] for name in ("sku", "ok")} | json.loads(row["fields"] or "{}")
        for name, value in (record["fields"] or {}).items():
            assert fields[name] == (value if isinstance(value, str) or name == "more" else json.dumps(value))
        assert (row["h"], row["tags"]) == (
            (record["data"]["h"], record["data"]["tags"]) if row["id"] in (1, 3) else (None, None)
        )
    assert table["body"].to_pylist() == [b"\xff\x00<p>", None, None, None]
    assert [json.loads(text) if text else None for text in table["data"].to_pylist()] == [
        None, None, {"x": 1}, ["no", "mapping"],
    ]  # fmt: skip


async def test_every_column_has_its_type(tmp_path: Path) -> None:
    table = await fill(tmp_path / "a.parquet", page(), layout=Layout(columns=WIDE))
    kinds = {
        "int64": ["id", "status", "length", "bytes", "links", "attempts"],
        "double": ["elapsed", "waited"],
        "bool": ["truncated"],
        "timestamp[us, tz=UTC]": ["fetched_at"],
        "list<element: string>": ["redirects"],
        "map<string, string>": ["headers"],
        "large_binary": ["body"],
    }
    wanted = dict.fromkeys(WIDE, "string") | {name: kind for kind, names in kinds.items() for name in names}
    assert {field.name: str(field.type).replace(" ('headers')", "") for field in table.schema} == wanted


async def test_pandas_and_duckdb_read_it(tmp_path: Path) -> None:
    layout = Layout(columns=WIDE, fields=("sku",), select=("tags",), select_lists=("tags",))
    path = tmp_path / "a.parquet"
    table = await fill(path, *various(), layout=layout)
    frame = pd.read_parquet(path)
    assert list(frame.columns) == table.column_names
    assert frame["fetched_at"].dtype == "datetime64[us, UTC]"
    assert frame["title"][0] == "Grüße 🎉"
    assert list(frame["redirects"][0]) == ["http://a.example/", "https://a.example/"]
    wanted = "url, headers['via'], redirects[1], octet_length(body), tags[2]"
    assert queried(f"SELECT {wanted} FROM '{path}' WHERE id = 1") == [
        ("https://a.example/ü", "a, b", "http://a.example/", 5, "b")
    ]
    assert queried(f"SELECT count(*) FROM '{path}' WHERE error IS NULL") == [(3,)]


async def test_names_that_are_taken_get_a_prefix_as_in_csv(tmp_path: Path) -> None:
    layout = Layout(fields=("url", "row_url", "x", ""), select=("url", "x"), free_fields=False, free_data=False)
    first = page(fields={"url": "a", "row_url": "b", "x": "c", "": "d"}, data={"url": "e", "x": "f"})
    table = await fill(tmp_path / "a.parquet", first, layout=layout)
    names = ["row_url", "row_row_url", "x", "", "data_url", "data_x"]
    assert table.column_names[-6:] == names
    assert [table[name][0].as_py() for name in names] == [*"abcdef"]
    metadata = json.loads(table.schema.metadata[b"fetcher"])
    assert metadata == {
        "version": 1,
        "fields": ["url", "row_url", "x", ""],
        "select": ["url", "x"],
        "field_columns": names[:4],
        "select_columns": names[4:],
    }


async def test_only_the_columns_that_are_asked_for(tmp_path: Path) -> None:
    table = await fill(tmp_path / "a.parquet", page(fields={"a": "b"}), layout=Layout(columns=("url", "status")))
    assert table.to_pylist() == [{"url": "https://a.example/", "status": 200}]


async def test_the_first_row_decides_about_the_columns_and_no_value_is_dropped(tmp_path: Path) -> None:
    rows = [page(fields={"a": "1"}), page(2, fields={"b": "2"}), page(3)]
    table = await fill(tmp_path / "a.parquet", *rows)
    assert table["a"].to_pylist() == ["1", None, None]
    assert table["fields"].to_pylist() == [None, '{"b":"2"}', None]


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("title", "a\ud800b", "a\ufffdb"),
        ("title", "\ud83c\udf89", "🎉"),
        ("title", 7, "7"),
        ("title", "a\0b", "a\0b"),
        ("length", 2**70, None),
        ("length", 2**63, None),
        ("length", -(2**63), -(2**63)),
        ("length", "five", None),
        ("redirects", ("\ud800", "b"), ["\ufffd", "b"]),
        ("redirects", 5, None),
        ("headers", (("a", "\udc80"),), [("a", "\ufffd")]),
        ("elapsed", 1e300, 1e300),
        ("body", "text", None),
    ],
)
async def test_a_strange_value_costs_itself(name: str, value: Any, found: Any, tmp_path: Path) -> None:
    strange = page(2, **{name: value})
    table = await fill(tmp_path / "a.parquet", page(), strange, page(3), layout=Layout(columns=("id", name)))
    assert table["id"].to_pylist() == [1, 2, 3]
    assert table[name][1].as_py() == found


class Loop(dict[str, Any]):
    def __str__(self) -> str:
        return "loop"


async def test_strange_values_of_the_list_and_of_extractors_stay_json(tmp_path: Path) -> None:
    loop = Loop()
    loop["me"] = loop
    values = {
        "nan": math.nan,
        "big": 2**70,
        "huge": 10**5000,
        "set": {1},
        "half": "\ud800",
        "loop": loop,
        "raw": b"\xff",
    }
    table = await fill(tmp_path / "a.parquet", page(fields=values, data=values), layout=Layout(fields=tuple(values)))
    row = table.to_pylist()[0]
    assert (row["nan"], row["big"], row["set"], row["half"]) == ("null", str(2**70), "[1]", "\ufffd")
    assert row["huge"].startswith("0x")
    assert json.loads(row["data"])["big"] == 2**70
    assert row["fields"] is None


async def test_names_that_no_encoding_has(tmp_path: Path) -> None:
    table = await fill(tmp_path / "a.parquet", page(fields={"\ud800": "1"} | {"\ufffd": "2"}))
    assert table.column_names[-2:] == ["\ufffd", "row_\ufffd"]
    assert [table[name][0].as_py() for name in table.column_names[-2:]] == ["1", "2"]
    path = tmp_path / "b.parquet"
    output, mark = begun(path, page(fields={"\ud800": "1"}))
    output.discard()
    output = opened(path, mark)
    mark = output.append([output.encode(page(2, fields={"\ud800": "2"}))])
    output.complete()
    output.settle()
    assert pq.read_table(path)["\ufffd"].to_pylist() == ["1", "2"]


# Without a job


async def test_an_empty_output_has_its_schema(tmp_path: Path) -> None:
    table = await fill(tmp_path / "a.parquet", layout=FIXED)
    assert (table.num_rows, table.column_names) == (
        0,
        [name for name in DEFAULT_COLUMNS if name not in ("fields", "data")],
    )
    assert [*os.listdir(tmp_path)] == ["a.parquet"]
    parts = await fill(f"{tmp_path}/parts/", layout=FIXED, format="parquet")
    assert parts.num_rows == 0
    assert os.listdir(tmp_path / "parts") == ["part-00001.parquet"]


async def test_more_rows_than_a_batch(tmp_path: Path) -> None:
    table = await fill(tmp_path / "a.parquet", *(page(row) for row in range(1, 2_501)))
    assert table["id"].to_pylist() == [*range(1, 2_501)]
    assert pq.read_metadata(tmp_path / "a.parquet").num_row_groups == 1
    assert [*os.listdir(tmp_path)] == ["a.parquet"]


async def test_a_folder_of_parts(tmp_path: Path) -> None:
    layout = Layout(part_rows=1_100)
    table = await fill(f"{tmp_path}/parts/", *(page(row) for row in range(1, 2_501)), layout=layout, format="parquet")
    assert sorted(table["id"].to_pylist()) == [*range(1, 2_501)]
    files = sorted((tmp_path / "parts").iterdir())
    assert [pq.read_metadata(file).num_rows for file in files] == [1_100, 1_100, 300]
    assert queried(f"SELECT count(*) FROM '{tmp_path}/parts/*.parquet'") == [(2_500,)]
    assert len(pd.read_parquet(tmp_path / "parts")) == 2_500


async def test_an_output_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    await fill(path, page())
    with pytest.raises(ConfigError, match=r"a\.parquet exists; use --fresh to overwrite it"):
        await fill(path, page())
    assert (await fill(path, page(2), fresh=True))["id"].to_pylist() == [2]
    await fill(f"{tmp_path}/parts/", page(), format="parquet")
    with pytest.raises(ConfigError, match=r"part-00001\.parquet exists; use --fresh"):
        await fill(f"{tmp_path}/parts", page(), format="parquet")
    (tmp_path / "parts" / "mine.txt").write_text("mine")
    with pytest.raises(
        ConfigError, match=r"holds 'mine\.txt', which is no part of ours: name a new or an empty folder"
    ):
        await fill(f"{tmp_path}/parts", page(), format="parquet", fresh=True)
    (tmp_path / "parts" / "mine.txt").unlink()
    assert (await fill(f"{tmp_path}/parts", page(7), format="parquet", fresh=True))["id"].to_pylist() == [7]


async def test_a_full_disk_ends_the_run_and_leaves_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write

    def full(descriptor: int, data: Any) -> int:
        if os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(tmp_path)):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(SinkError, match=r"a\.parquet: cannot write: No space left on device"):
        await fill(tmp_path / "a.parquet", page())
    assert os.listdir(tmp_path) == []


async def test_a_sink_that_is_not_open_says_so(tmp_path: Path) -> None:
    sink = open_sink(tmp_path / "a.parquet")
    with pytest.raises(RuntimeError, match="not open"):
        await sink.write(page())


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("-", "standard output: parquet is no stream: name a file with -o, such as pages.parquet"),
        ("/dev/null", "/dev/null: parquet is no stream: name a file with -o, such as pages.parquet"),
        ("{}/a.parquet.gz", "{}/a.parquet.gz: parquet is not packed while it is written: leave out .gz"),
        (
            "{}/a.parquet",
            "{0}/a.parquet: is a folder; name a file in it, or write {0}/a.parquet/ for a folder of parts",
        ),
        ("{}/file/", "{}/file/: is no folder: leave out the / at its end to write one file"),
        ("{}/no/a.parquet", "{0}/no/a.parquet: the folder {0}/no does not exist"),
        ("{}/no/parts/", "{0}/no/parts: the folder {0}/no does not exist"),
    ],
)
def test_a_place_that_is_no_good(path: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.parquet").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(FetcherError) as caught:
        check_output(path.format(tmp_path), format="parquet", fresh=True)
    assert str(caught.value) == message.format(tmp_path)


def test_without_pyarrow_the_pip_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*sys.modules]:
        if name.startswith("fetcher.sinks.parquet"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError) as caught:
        check_output(tmp_path / "a.parquet")
    assert str(caught.value) == "pyarrow is not installed: pip install 'fetcher-crawl[parquet]'"


# Jobs

IDENTITY = JobIdentity.of(Config(), inputs=["l.txt"], list_options=DEFAULT_OPTIONS, outputs=["parquet"], extract=None)
PROGRESS = RunProgress(0, more=False, estimate=None, seconds=0.0, ok=0, bytes=0)
LAYOUT = Layout(part_rows=8)
BATCH = 5
ILL = 3
"""Every third row fails the first time."""


def opened(path: Path | str, mark: Mark | None = None, *, clean: bool = False, **options: Any) -> JobOutput:
    output = open_job_output(path, options.pop("layout", LAYOUT), work=f"{path}.work", format="parquet")
    if mark is None:
        output.create(**options)
    else:
        output.resume(mark, clean=clean)
    return output


def begun(path: Path, *outcomes: Outcome) -> tuple[JobOutput, Mark]:
    output = opened(path)
    mark = output.append([output.encode(outcome) for outcome in outcomes])
    output.settle()
    return output, mark


def outcome_of(row: int, *, well: bool) -> Outcome:
    if row % ILL or well:
        return page(row, f"https://a.example/{row}", {"sku": f"s{row}"}, title="x" * row)
    return Failure(Request(row, f"https://a.example/{row}", fields={"sku": f"s{row}"}), failure().error)


def run(path: str, rows: int, *, retry: bool = False, well: bool = False, complete: bool = True) -> None:
    """One run of a job, as ``Job`` and its ``Writer`` do it."""
    folder = folder_for([path])
    output = open_job_output(path, LAYOUT, work=work_folder(folder, 0), format="parquet")
    choose: Callable[[str], bool] | None = (lambda code: True) if retry else None
    job = open_job(folder, [output], identity=IDENTITY, fresh=False, choose=choose, retry_names=["failed"] * retry)
    try:
        finished = {row for row, _ in job.ledger.finished()}
        missing = [row for row in range(1, rows + 1) if row not in finished]
        for start in range(0, len(missing), BATCH):
            commit(job, output, [outcome_of(row, well=well) for row in missing[start : start + BATCH]])
        job.end(PROGRESS, complete=complete)
    except BaseException:
        job.abandon()
        raise


def commit(job: OpenJob, output: JobOutput, outcomes: Iterable[Outcome]) -> None:
    outcomes = list(outcomes)
    rows = [
        LedgerRow(each.request.id, 0, "ok" if isinstance(each, Page) else each.error.code, None, 0, 0.0, 1, "h")
        for each in outcomes
    ]
    marks = [output.append([output.encode(outcome) for outcome in outcomes])]
    job.ledger.commit(rows, marks, PROGRESS)
    output.settle()


def found(path: str) -> dict[int, str | None]:
    """The rows of an output and their errors; each has one record at most, and there is nothing half."""
    place = Path(path)
    files = sorted(place.glob("part-*")) if place.is_dir() else [place]
    records = [record for file in files for record in pq.read_table(file).to_pylist()]
    ids = [record["id"] for record in records]
    assert len(ids) == len(set(ids)), ids
    assert all(record["sku"] == f"s{record['id']}" for record in records)
    return {record["id"]: record["error"] for record in records}


def expected(rows: int, *, well: bool = False) -> dict[int, str | None]:
    return {row: None if row % ILL or well else "connect_refused" for row in range(1, rows + 1)}


def left(folder: Path) -> set[str]:
    """What lies in a folder, but for what shall."""
    files = {str(file.relative_to(folder)) for file in folder.rglob("*")}
    return (
        {file for file in files if not file.startswith("pages/part-")}
        - {"pages", "pages.job", "pages.parquet"}
        - {
            f"pages{suffix}.job{name}"
            for suffix in ("", ".parquet")
            for name in ("", "/ledger.sqlite", "/lock", "/parsing")
        }
    )


PLACES = ["pages.parquet", "pages/"]
each_place = pytest.mark.parametrize("place", PLACES)


@each_place
def test_a_job_grows_and_its_failures_are_retried(place: str, tmp_path: Path) -> None:
    path = f"{tmp_path}/{place}"
    run(path, 23)
    assert found(path) == expected(23)
    before = {file.name: file.read_bytes() for file in tmp_path.rglob("*.parquet") if file.is_file()}
    run(path, 23)
    assert {file.name: file.read_bytes() for file in tmp_path.rglob("*.parquet") if file.is_file()} == before
    run(path, 41)
    assert found(path) == expected(41)
    run(path, 41, retry=True)
    assert found(path) == expected(41), "they failed again"
    run(path, 41, retry=True, well=True)
    assert found(path) == expected(41, well=True)
    assert left(tmp_path) == set()


def test_only_the_parts_concerned_are_rewritten(tmp_path: Path) -> None:
    path = f"{tmp_path}/pages/"
    run(path, 16, well=True)
    run(path, 20)
    inodes = {file.name: file.stat().st_ino for file in (tmp_path / "pages").iterdir()}
    run(path, 20, retry=True, well=True)
    after = {file.name: file.stat().st_ino for file in (tmp_path / "pages").iterdir()}
    assert {name for name in inodes if inodes[name] == after[name]} == {"part-00001.parquet", "part-00002.parquet"}
    assert found(path) == expected(20, well=True)


@each_place
def test_until_it_is_whole_nothing_is_seen(place: str, tmp_path: Path) -> None:
    path = f"{tmp_path}/{place}"
    run(path, 7, complete=False)
    assert not os.path.exists(path) or os.listdir(path) == []
    run(path, 10, complete=False)
    run(path, 12)
    assert found(path) == expected(12)


def test_an_empty_job_has_a_file_and_can_grow(tmp_path: Path) -> None:
    path = f"{tmp_path}/pages.parquet"
    run(path, 0)
    assert pq.read_table(path).num_rows == 0
    run(path, 3)
    assert found(path) == expected(3)


def edit(file: Path, change: str) -> None:
    data = bytearray(file.read_bytes())
    if change == "deleted":
        file.unlink()
        return
    if change == "one byte":
        data[len(data) // 2] ^= 1
    elif change == "longer":
        data += b"more"
    else:
        del data[-3:]
    file.write_bytes(data)


def files_of(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*.parquet") if file.is_file()}


CHANGES = ["one byte", "longer", "shorter", "deleted"]


@each_place
@pytest.mark.parametrize("change", CHANGES)
def test_an_edited_output_is_refused_and_left_as_it_is(change: str, place: str, tmp_path: Path) -> None:
    path = f"{tmp_path}/{place}"
    run(path, 13)
    edit(Path(path) / "part-00001.parquet" if place.endswith("/") else Path(path), change)
    before = files_of(tmp_path)
    attempts: list[dict[str, Any]] = [{"rows": 13}, {"rows": 13, "retry": True}, {"rows": 20}]
    for words in attempts:
        with pytest.raises(SinkError, match=ADVICE):
            run(path, **words)
    assert files_of(tmp_path) == before


@each_place
@pytest.mark.parametrize("change", CHANGES)
def test_an_edited_journal_is_refused(change: str, place: str, tmp_path: Path) -> None:
    path = f"{tmp_path}/{place}"
    run(path, 7, complete=False)
    (file,) = tmp_path.glob("*.job/output.0/*.frames")
    edit(file, change)
    with pytest.raises(SinkError, match=ADVICE):
        run(path, 13)


@each_place
def test_what_somebody_else_puts_there_is_never_overwritten(place: str, tmp_path: Path) -> None:
    path = Path(f"{tmp_path}/{place}")
    run(f"{tmp_path}/{place}", 7, complete=False)
    file = path / "part-00001.parquet" if path.is_dir() else path
    file.write_bytes(b"theirs")
    with pytest.raises(SinkError, match=ADVICE if path.is_dir() else "another program has put a file there"):
        run(f"{tmp_path}/{place}", 13)
    assert file.read_bytes() == b"theirs"


def test_a_file_that_appears_while_rows_are_written_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    output, _ = begun(path, page())
    path.write_bytes(b"theirs")
    with pytest.raises(SinkError, match="another program has put a file there"):
        output.complete()
    assert path.read_bytes() == b"theirs"


def test_a_file_is_not_a_folder_later(tmp_path: Path) -> None:
    output, mark = begun(tmp_path / "a", page())
    output.discard()
    (tmp_path / "a").mkdir()
    with pytest.raises(SinkError, match=r"does not say how it goes on \(it began as a single file\)"):
        opened(tmp_path / "a", mark)


@pytest.mark.parametrize("state", ["x", "[]", "{}", '{"parts": -1}', '{"journal": {"first": 0}}', "[" * 10_000])
def test_a_state_that_is_none_is_refused(state: str, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    with pytest.raises(SinkError, match=ADVICE):
        opened(f"{tmp_path}/parts/" if state == "{}" or "parts" in state else tmp_path / "a", Mark(state=state))


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "pages.parquet").symlink_to(tmp_path / "there" / "real.parquet")
    run(f"{tmp_path}/pages.parquet", 5)
    run(f"{tmp_path}/pages.parquet", 9, retry=True, well=True)
    assert (tmp_path / "pages.parquet").is_symlink()
    assert set(found(f"{tmp_path}/there/real.parquet")) == {*range(1, 10)}


def test_row_groups_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "GROUP_ROWS", 300)
    monkeypatch.setattr("fetcher.sinks.parquet.GROUP_ROWS", 300)
    path = tmp_path / "a.parquet"
    output = opened(path)
    for start in range(1, 1_001, 100):
        output.append([output.encode(page(row)) for row in range(start, start + 100)])
        output.settle()
    assert len(os.listdir(f"{path}.work")) == 4
    output.complete()
    output.settle()
    metadata = pq.read_metadata(path)
    assert [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)] == [300, 300, 300, 100]
    assert not os.path.exists(f"{path}.work")


def test_a_journal_keeps_its_frames(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "work"))
    for size in range(5):
        journal.append(Frame(size, size, b"x" * size))
    journal.sync()
    assert [frame.payload for frame in journal.frames(1)] == [b"x" * size for size in range(5)]
    mark = journal.mark
    journal.append(Frame(9, 9, b"torn"))
    journal.close()
    again = Journal(str(tmp_path / "work"))
    with pytest.raises(ValueError, match=r"has .* bytes, not"):
        again.check(mark, clean=True)
    again.check(mark, clean=False)
    again.open(mark)
    assert os.path.getsize(again.path_of(1)) == mark.position
    again.restart()
    again.tidy()
    assert not (tmp_path / "work").exists()


def test_pandas_is_not_loaded_to_write(tmp_path: Path) -> None:
    """It takes a second, and 50 MB."""
    code = f"""
import asyncio, sys
from fetcher.sinks import open_sink
from tests.test_sinks import page

async def main():
    async with open_sink({str(tmp_path / "a.parquet")!r}) as sink:
        await sink.write(page(fields={{"a": "b"}}, redirects=("c",), headers=(("d", "e"),), body=b"f", fetched_at=1.0))

asyncio.run(main())
assert "pyarrow" in sys.modules and "pandas" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=Path(__file__).parents[1])
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 1


class Killed(BaseException):
    """The process is dead: nothing that it would do comes to pass."""


CALLS = (
    "write", "fsync", "fdatasync", "replace", "rename", "unlink", "mkdir", "rmdir", "ftruncate", "open", "fchmod",
)  # fmt: skip


class Striker:
    """Counts the calls that change files, and lets the Nth fail: with an error, or, from then on, as in a dead process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.folder = folder
        self.at = self.count = 0
        self.error: OSError | None = None
        for name in CALLS:
            monkeypatch.setattr(os, name, self._guarded(getattr(os, name), skip=name in ("fsync", "fdatasync")))

    def aim(self, at: int, error: OSError | None = None) -> None:
        self.at, self.count, self.error = at, 0, error

    def _guarded(self, call: Callable[..., Any], *, skip: bool) -> Callable[..., Any]:
        def guarded(*values: Any, **more: Any) -> Any:
            if self.at:
                self.count += 1
                if self.count == self.at and self.error is not None:
                    raise self.error
                if self.count >= self.at and self.error is None:
                    raise Killed
            return None if skip else call(*values, **more)

        return guarded


EVERY = "FETCHER_SAMPLE" in os.environ and not os.environ["FETCHER_SAMPLE"]
FIRST_AND_STEP = (
    {"kill": (1, 1), "EIO": (1, 1), "ENOSPC": (1, 1)} if EVERY else {"kill": (3, 13), "EIO": (6, 31), "ENOSPC": (9, 47)}
)
"""Which calls are struck: every one with ``FETCHER_SAMPLE=``, which takes minutes, else some."""

SCENES: list[tuple[str, list[dict[str, Any]], dict[str, Any], dict[int, str | None]]] = [
    ("fresh", [], {"rows": 21}, expected(21)),
    ("resumed", [{"rows": 11, "complete": False}], {"rows": 21}, expected(21)),
    ("grown", [{"rows": 13}], {"rows": 29}, expected(29)),
    ("retried", [{"rows": 13}], {"rows": 13, "retry": True, "well": True}, expected(13, well=True)),
    (
        "retried within",
        [{"rows": 9}, {"rows": 19, "complete": False}],
        {"rows": 19, "retry": True, "well": True},
        expected(19, well=True),
    ),
]


@each_place
@pytest.mark.parametrize("fault", ["kill", "EIO", "ENOSPC"])
@pytest.mark.parametrize(
    ("before", "words", "end"), [scene[1:] for scene in SCENES], ids=[scene[0] for scene in SCENES]
)
def test_a_fault_at_any_call_costs_nothing(  # noqa: PLR0917  (pytest passes by name)
    before: list[dict[str, Any]],
    words: dict[str, Any],
    end: dict[int, str | None],
    fault: str,
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    striker = Striker(monkeypatch, tmp_path)
    template, scene = tmp_path / "template", tmp_path / "scene"
    template.mkdir()
    for one in before:
        run(f"{template}/{place}", **one)
    for number in itertools.count(*FIRST_AND_STEP[fault]):
        shutil.rmtree(scene, ignore_errors=True)
        shutil.copytree(template, scene)
        path = f"{scene}/{place}"
        striker.aim(number, None if fault == "kill" else OSError(getattr(errno, fault), fault))
        try:
            run(path, **words)
        except Killed:
            pass
        except FetcherError as error:
            assert fault in str(error) and str(scene) in str(error), error
        struck = striker.count >= number
        striker.aim(0)
        if os.path.isfile(path) or (os.path.isdir(path) and os.listdir(path)):
            found(path)  # what is seen is whole at every moment
        run(path, **words)
        assert found(path) == end, number
        assert left(scene) == set(), (number, left(scene))
        if not struck:
            assert number > 20, "few calls are seen"
            return
