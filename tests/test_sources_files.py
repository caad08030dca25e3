"""Parquet and SQLite as lists, and the outputs of earlier runs in every format."""

from __future__ import annotations

import csv
import io
import os
import random
import sqlite3
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fetcher.errors import InvalidURL, SourceError
from fetcher.model import Failure, Outcome, Request
from fetcher.sinks import open_sink
from fetcher.sinks.layout import COLUMNS, to_json, to_record
from fetcher.sources import BadRow, check, estimate_rows, read
from fetcher.sources.inputs import ListOptions
from tests.test_sources import put, rows_of, shown


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def parquet(columns: dict[str, Any] | None = None, /, *metadata: dict[bytes, bytes] | None, **more: Any) -> str:
    table = pa.table({**(columns or {}), **more})
    pq.write_table(table.replace_schema_metadata(*metadata), "l.parquet")
    return "l.parquet"


def found_in(name: str, **options: Any) -> list[tuple[Any, ...]]:
    return [shown(row) for row in read([name], **options)]


# Parquet


def test_a_parquet_file_is_a_list() -> None:
    name = parquet(n=[1, 2, 3], Link=["a.example", None, " <b.example> "], x=["ä", None, "z"])
    assert found_in(name) == [
        (1, "a.example", {"n": 1, "x": "ä"}),
        (2, "", {"n": 2, "x": None}, "l.parquet:row 2: no URL in column 'Link'"),
        (3, "b.example", {"n": 3, "x": "z"}),
    ]
    assert found_in(name, carry="X")[0] == (1, "a.example", {"x": "ä"})
    assert found_in(name, carry="")[0] == (1, "a.example")
    assert found_in(name, carry="link")[0] == (1, "a.example")
    os.rename(name, "no-suffix")
    assert len(found_in("no-suffix", format="parquet")) == 3
    odd = os.fsdecode(b"caf\xe9.parquet")
    os.rename("no-suffix", odd)
    assert len(found_in(odd)) == 3


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
        pa.dictionary(pa.int8(), pa.string()),
    ],
    ids=str,
)
def test_every_kind_of_text_is_a_url(kind: pa.DataType) -> None:
    assert found_in(parquet(url=pa.array(["a.example", "b.example"], kind))) == [(1, "a.example"), (2, "b.example")]


VALUES: list[tuple[pa.DataType, Any, Any]] = [
    (pa.bool_(), True, True),
    (pa.uint64(), 2**64 - 1, 2**64 - 1),
    (pa.float16(), 1.5, 1.5),
    (pa.float64(), 0.1, 0.1),
    (pa.null(), None, None),
    (pa.decimal128(20, 5), Decimal("1.50000"), "1.50000"),
    (pa.binary(), b"text", "text"),
    (pa.binary(), b"\xff\x00", "data:application/octet-stream;base64,/wA="),
    (pa.date32(), date(2024, 2, 29), "2024-02-29"),
    (pa.time64("ns"), time(1, 2, 3, 4), "01:02:03.000004"),
    (pa.duration("ms"), timedelta(seconds=1.5), 1.5),
    (pa.timestamp("s"), datetime(2024, 1, 2, 3, 4, 5), "2024-01-02T03:04:05"),
    (pa.timestamp("ns"), 1_704_164_645_123_456_789, "2024-01-02T03:04:05.123456"),
    (pa.timestamp("us", "Europe/Berlin"), datetime(2024, 7, 1, 12, tzinfo=UTC), "2024-07-01T12:00:00Z"),
    (pa.timestamp("us", "+02:00"), datetime(2024, 7, 1, 12, tzinfo=UTC), "2024-07-01T12:00:00Z"),
    (pa.dictionary(pa.int8(), pa.string()), "x", "x"),
    (pa.list_(pa.timestamp("ns", "UTC")), [1, None], ["1970-01-01T00:00:00Z", None]),
    (pa.list_(pa.int8(), 2), [1, 2], [1, 2]),
    (pa.large_list(pa.binary()), [b"a"], ["a"]),
    (pa.struct([("a", pa.date32()), ("b", pa.struct([("c", pa.int8())]))]), {"a": date(2024, 1, 1), "b": {"c": 1}},
     {"a": "2024-01-01", "b": {"c": 1}}),
    (pa.map_(pa.string(), pa.decimal128(3, 1)), [("a", Decimal("1.5"))], [["a", "1.5"]]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "expected"), VALUES, ids=[str(kind) for kind, *_ in VALUES])
def test_a_value_becomes_one_that_json_can_hold(kind: pa.DataType, value: Any, expected: Any) -> None:
    name = parquet(url=["a.example", "b.example"], v=pa.array([value, None], kind))
    first, second = found_in(name)
    assert first == (1, "a.example", {"v": expected})
    assert second == (2, "b.example", {"v": None})
    msgspec.json.encode(first)


def test_columns_that_are_called_the_same_or_have_dots() -> None:
    table = pa.Table.from_arrays([pa.array(["1"]), pa.array(["2"]), pa.array(["a.example"])], ["a.b", "a.b", "url"])
    pq.write_table(table, "l.parquet")
    assert found_in("l.parquet") == [(1, "a.example", {"a.b": "1", "a.b_2": "2"})]
    name = parquet({"a": [{"b": 1}], "a.b": [2], "url": ["a.example"]})
    assert found_in(name, carry="a.b,a") == [(1, "a.example", {"a": {"b": 1}, "a.b": 2})]


def test_text_that_is_none_costs_a_row_only_in_its_url() -> None:
    raw = pa.array([b"a.example", b"\xff.example"], pa.binary())
    bad = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    name = parquet(url=bad, x=bad)
    assert found_in(name) == [
        (1, "a.example", {"x": "a.example"}),
        (2, "\ufffd.example", {"x": "\ufffd.example"}, "l.parquet:row 2: the URL is not UTF-8"),
    ]


def test_a_row_or_a_url_that_is_too_large_costs_itself() -> None:
    name = parquet(url=["a.example", "b" * 70_000, "c.example"], x=["x" * 1_100_000, "y", "z"])
    found = found_in(name)
    assert found[0][:2] == (1, "a.example")
    assert found[0][2] == "l.parquet:row 1: has over 1 MiB of values (--carry NAMES leaves columns out)"
    assert found[1][3] == "l.parquet:row 2: the URL is over 64 KiB long"
    assert found[2] == (3, "c.example", {"x": "z"})
    assert found_in(name, carry="")[0] == (1, "a.example")


def test_rows_are_numbered_over_row_groups_and_estimated() -> None:
    table = pa.table({"url": [f"a.example/{n}" for n in range(2500)]})
    pq.write_table(table, "l.parquet", row_group_size=700)
    assert found_in("l.parquet") == [(n + 1, f"a.example/{n}") for n in range(2500)]
    assert estimate_rows(["l.parquet", "https://x/"]) == 2501
    check(["l.parquet"])


def test_a_large_row_group_is_never_held() -> None:
    choices = random.Random(1)
    rows = 100_000
    table = pa.table(
        {"url": [f"a.example/{n}" for n in range(rows)], "x": [choices.randbytes(300).hex() for _ in range(rows)]}
    )
    pq.write_table(table, "l.parquet", row_group_size=rows, compression="none", use_dictionary=False)
    del table
    assert os.path.getsize("l.parquet") > 60_000_000
    pool = pa.default_memory_pool()
    before, most = pool.bytes_allocated(), 0
    tracemalloc.start()
    try:
        for _ in read(["l.parquet"]):
            most = max(most, pool.bytes_allocated() - before)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    assert most < 20_000_000


def truncated(data: bytes) -> bytes:
    return data[:-200]


def scrambled(data: bytes) -> bytes:
    return data[:-60] + bytes(52) + data[-8:]


def encrypted(data: bytes) -> bytes:
    return b"PARE" + data[4:-4] + b"PARE"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (truncated, "is cut short: a Parquet file ends with its footer, and this one has none"),
        (lambda data: data[:2], "is not Parquet data"),
        (lambda _: b"", "is empty, not a Parquet file"),
        (lambda _: b"url\na.example\n", "is not Parquet data"),
        (lambda _: b"\x1f\x8b\x08\0", "is not Parquet data but gzip, which is to be unpacked first"),
        (encrypted, "is encrypted; give a copy that is not"),
        (scrambled, r"is damaged Parquet data, or of a kind that cannot be read \(.+\)"),
    ],
)
def test_a_file_that_is_no_whole_parquet_is_one_clear_line(change: Callable[[bytes], bytes], message: str) -> None:
    name = parquet(url=["a.example"] * 100)
    put(name, change(Path(name).read_bytes()))
    for use in (lambda: list(read([name])), lambda: check([name])):
        with pytest.raises(SourceError, match=rf"^l\.parquet: {message}$"):
            use()
    assert estimate_rows([name]) is None


def test_columns_that_are_encrypted_are_one_clear_line() -> None:
    encryption = pytest.importorskip("pyarrow.parquet.encryption")

    class Keys(encryption.KmsClient):  # type: ignore[misc, name-defined]  # it has no types
        def __init__(self, _: Any) -> None:
            super().__init__()

        def wrap_key(self, key: bytes, _: str) -> bytes:
            return key

        def unwrap_key(self, key: bytes, _: str) -> bytes:
            return key

    factory = encryption.CryptoFactory(Keys)
    for plain in (False, True):
        settings = encryption.EncryptionConfiguration(
            footer_key="f", column_keys={"c": ["url"]}, plaintext_footer=plain, double_wrapping=False
        )
        properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), settings)
        pq.write_table(pa.table({"url": ["a.example"]}), "l.parquet", encryption_properties=properties)
        with pytest.raises(SourceError, match=r"^l\.parquet:?(row 1)?: is encrypted; give a copy that is not"):
            list(read(["l.parquet"]))


def test_a_damaged_page_names_its_row() -> None:
    table = pa.table({"url": [f"a.example/{n}" for n in range(3000)]})
    pq.write_table(table, "l.parquet", row_group_size=1000, compression="gzip", use_dictionary=False)
    data = bytearray(Path("l.parquet").read_bytes())
    start = pq.ParquetFile("l.parquet").metadata.row_group(1).column(0).data_page_offset
    data[start + 60 : start + 160] = bytes(100)
    put("l.parquet", bytes(data))
    rows: list[Any] = []
    with pytest.raises(SourceError, match=r"^l\.parquet:row 1001: is damaged Parquet data"):
        rows.extend(read(["l.parquet"]))


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"url": [{"a": 1}]}, {}, "column 'url' is struct, not text"),
        ({"url": [1]}, {}, "column 'url' is int64, not text"),
        ({"url": [["a"]]}, {}, "column 'url' is list, not text"),
        (
            {"n": [1], "img": ["x"]},
            {},
            "there is no column 'url'; the columns are: n, img; say which has the URL with --url-column",
        ),
        ({"url": ["a"]}, {"carry": "n"}, "there is no column 'n' to carry; the columns are: url"),
        ({"url": pa.array([], pa.string())}, {}, "no URLs in it"),
        ({}, {}, "there is no column 'url'; the columns are: "),
        ({"url": ["a"], "t": pa.array([2**52], pa.timestamp("ms"))}, {}, "x"),
    ],
)
def test_a_parquet_file_that_is_no_list(columns: dict[str, Any], options: dict[str, Any], message: str) -> None:
    name = parquet(columns)
    with pytest.raises(SourceError) as caught:
        check([name], ListOptions.of(**options))
    expected = f"{name}: {message}" if message != "x" else "l.parquet:row 1: column 't' (timestamp) cannot be read: "
    assert str(caught.value)[: len(expected)] == expected
    assert message == "x" or len(str(caught.value)) == len(expected)


def test_what_is_read_from_a_file_alone() -> None:
    Path("parts.parquet").mkdir()
    with pytest.raises(
        SourceError,
        match=r"^parts\.parquet: is a folder, not a Parquet file; name the files in it \(parts\.parquet/\*\.parquet\)$",
    ):
        check(["parts.parquet"])
    os.mkfifo("pipe.parquet")
    for name, kind in (("-", "parquet"), ("-", "sqlite"), ("pipe.parquet", None)):
        with pytest.raises(
            SourceError, match="is read from a file, for it cannot be read from its beginning on; save it as one"
        ):
            check([name], ListOptions(format=kind))
        with pytest.raises(SourceError, match="is read from a file"):
            list(read([name], format=kind))
        assert estimate_rows([name], ListOptions(format=kind)) is None
    with pytest.raises(SourceError, match=r"^none\.parquet: no such file$"):
        check(["none.parquet"])


def test_without_pyarrow_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    name = parquet(url=["a.example"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        SourceError, match=r"^l\.parquet: pyarrow is not installed: pip install 'fetcher-crawl\[parquet\]'$"
    ):
        check([name])
    assert estimate_rows([name]) is None


# SQLite


def database(name: str, *statements: str, values: Any = ()) -> str:
    with closing(sqlite3.connect(name)) as connection:
        for statement in statements:
            if "?" in statement:
                connection.executemany(statement, values)
            else:
                connection.execute(statement)
        connection.commit()
    return name


def test_a_table_of_pages_is_a_list() -> None:
    values = [
        ("a.example", 1, b"text"),
        (None, 2, b"\xff"),
        ("  ", 3, None),
        (7, 4, None),
        ("b\tc", None, 5.5),
        (b"d.example", 6, "ü"),
    ]
    name = database(
        "l ü%41?.sqlite", 'create table pages (Link, "a ""b", c)', "insert into pages values (?, ?, ?)", values=values
    )
    where = f"{name}:row"
    assert found_in(name) == [
        (1, "a.example", {'a "b': 1, "c": "text"}),
        (2, "", {'a "b': 2, "c": "data:application/octet-stream;base64,/w=="}, f"{where} 2: no URL"),
        (3, "", {'a "b': 3, "c": None}, f"{where} 3: the URL is empty"),
        (4, "", {'a "b': 4, "c": None}, f"{where} 4: the URL is a number"),
        (5, "b\tc", {'a "b': None, "c": 5.5}, f"{where} 5: the URL has a tab within"),
        (6, "d.example", {'a "b': 6, "c": "ü"}),
    ]
    assert found_in(name, carry="C")[0] == (1, "a.example", {"c": "text"})
    assert estimate_rows([name]) == 6
    check([name])


def test_rows_are_read_by_their_number_and_while_a_writer_has_the_file_open() -> None:
    name = database("l.sqlite", "pragma journal_mode = wal", "create table pages (id integer, url text)")
    with closing(sqlite3.connect(name)) as writer:
        writer.execute("insert into pages values (2, 'b.example'), (1, 'a.example')")
        writer.commit()
        assert found_in(name) == [(1, "a.example", {"id": 1}), (2, "b.example", {"id": 2})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "l.sqlite: is empty, not a SQLite database"),
        (b"url\n", "l.sqlite: is not a SQLite database"),
        (b"SQLite format 3\0" + bytes(200), "l.sqlite:row 1: cannot be read: "),
        ("create table x (url)", "l.sqlite: has no table 'pages', which an output of ours has"),
        (
            "create table pages (img, n)",
            "l.sqlite: there is no column 'url'; the columns are: img, n; say which has the URL with --url-column",
        ),
        ("create table pages (url)", "l.sqlite: no URLs in it"),
        (None, "l.sqlite: no such file"),
    ],
)
def test_a_database_that_is_no_list_is_one_clear_line(content: Any, message: str) -> None:
    if isinstance(content, bytes):
        put("l.sqlite", content)
    elif content is not None:
        database("l.sqlite", content)
    with pytest.raises(SourceError) as caught:
        check(["l.sqlite"])
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_database_that_is_cut_short_names_its_row() -> None:
    values = [(f"a.example/{n}", "x" * 500) for n in range(200)]
    name = database("l.sqlite", "create table pages (url, x)", "insert into pages values (?, ?)", values=values)
    put(name, Path(name).read_bytes()[:40_000])
    with pytest.raises(SourceError, match=r"^l\.sqlite:row [0-9]+: cannot be read: "):
        list(read([name]))


# Outputs of earlier runs


FIELDS: list[dict[str, Any] | None] = [
    {"name": "=1+1", "status": "x", "row_status": "y", "n": "'quoted'"},
    {"name": "-5", "status": "", "row_status": "@z", "n": "a\nb"},
]
URLS = ["http://a.example/", "@b.example"]


def outcomes() -> list[Outcome]:
    return [
        Failure(Request(number + 1, url, fields=fields), InvalidURL(message="x"))
        for number, (url, fields) in enumerate(zip(URLS, FIELDS, strict=True))
    ]


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "csv", "csv.zst"])
async def test_an_output_of_an_earlier_run_is_a_list(suffix: str) -> None:
    async with open_sink(f"out.{suffix}") as sink:
        for outcome in outcomes():
            await sink.write(outcome)
    expected = [(number + 1, url, fields) for number, (url, fields) in enumerate(zip(URLS, FIELDS, strict=True))]
    assert found_in(f"out.{suffix}") == expected
    carried = found_in(f"out.{suffix}", carry="n,error")
    assert [row[2] for row in carried] == [
        {"n": "'quoted'", "error": "invalid_url"},
        {"n": "a\nb", "error": "invalid_url"},
    ]
    assert found_in(f"out.{suffix}", carry="")[0] == (1, URLS[0])


async def test_the_own_columns_of_a_csv_are_found_again_in_one_cell() -> None:
    async with open_sink("out.csv", fields=("name",)) as sink:
        for outcome in outcomes():
            await sink.write(outcome)
    assert [row[2] for row in found_in("out.csv")] == FIELDS


def records() -> list[dict[str, Any]]:
    return [msgspec.json.decode(to_json(to_record(outcome))) for outcome in outcomes()]


def test_a_database_of_records_is_a_list() -> None:
    values = [
        [value if not isinstance(value, dict | list) else to_json(value).decode() for value in record.values()]
        for record in records()
    ]
    marks = ", ".join("?" * len(COLUMNS))
    name = database(
        "out.sqlite", f"create table pages ({', '.join(COLUMNS)})", f"insert into pages values ({marks})", values=values
    )
    assert found_in(name) == [(1, URLS[0], FIELDS[0]), (2, URLS[1], FIELDS[1])]
    assert found_in(name, carry="name,attempts")[1] == (2, URLS[1], {"name": "-5", "attempts": 0})


@pytest.mark.parametrize("form", ["columns", "columns, not named", "JSON"])
def test_a_parquet_of_records_is_a_list(form: str) -> None:
    table: dict[str, Any] = {name: [record[name] for record in records()] for name in COLUMNS}
    table |= {"data": [None, None]}
    metadata = None
    names = ["name", "status", "row_status", "n"]
    if form == "JSON":
        table["fields"] = [to_json(fields).decode() for fields in FIELDS]
    else:
        for name, column in zip(names, ("name", "row_status", "row_row_status", "n"), strict=True):
            table[column] = [fields[name] for fields in FIELDS if fields]
        if form == "columns":
            table["data_x"] = ["selected", None]
            metadata = {
                b"fetcher": msgspec.json.encode(
                    {"fields": names, "field_columns": ["name", "row_status", "row_row_status", "n"], "select": ["x"]}
                )
            }
    name = parquet(table, metadata)
    assert found_in(name) == [(1, URLS[0], FIELDS[0]), (2, URLS[1], FIELDS[1])]
    assert found_in(name, carry="name,error,data")[0] == (
        1,
        URLS[0],
        {"name": "=1+1", "error": "invalid_url", "data": None},
    )


def test_another_column_of_a_record_may_be_the_url() -> None:
    lines = [{**record, "final_url": url} for record, url in zip(records(), ("http://c.example/", None), strict=True)]
    put("out.jsonl", b"\n".join(map(to_json, lines)))
    good, bad = found_in("out.jsonl", url_column="final_url")
    assert good == (1, "http://c.example/", FIELDS[0])
    assert bad[3] == "out.jsonl:2: 'final_url' is null, not a string"
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow([*COLUMNS[:-2], "n"])
    writer.writerow([1, "a", "http://c.example/", *[""] * (len(COLUMNS) - 5), "5"])
    assert rows_of("out.csv", table.getvalue(), url_column="final_url") == [(1, "http://c.example/", {"n": "5"})]


def test_a_row_that_is_no_record_among_records_is_read_as_it_is() -> None:
    lines = [*records(), {"url": "c.example", "fields": 1}]
    put("out.jsonl", b"\n".join(map(to_json, lines)))
    assert found_in("out.jsonl")[2] == (3, "c.example", {"fields": 1})
    assert isinstance(next(iter(read([put("x.jsonl", '{"id": 1, "url": 2, "final_url": 3, "status": 4}')]))), BadRow)
