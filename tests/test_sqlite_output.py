"""The SQLite output of a job and without one: batches, kills, edits, readers, and names and values of any kind."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fetcher import sqlite_files
from fetcher.errors import ConfigError, ConnectError, SinkError
from fetcher.model import Failure, Outcome, Request
from fetcher.sinks import COLUMNS, JobOutput, Layout, Mark, check_output, open_job_output, open_sink
from fetcher.sinks import batch_sink as batch_sink_module
from fetcher.sinks import sqlite_format as sqlite_module
from fetcher.sinks.job_output import Batch, KeptRow
from fetcher.sinks.layout import to_json, to_record
from fetcher.sinks.sqlite_schema import TableSchema
from tests.test_sinks import failure, naughty, page

ADVICE = "put it back as it was, or begin again with --fresh"
SHOP = Layout(fields=("sku",), select=("price", "tags"), select_lists=("tags",), free_fields=False, free_data=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pages.sqlite"


def query(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)) as db:  # one that may not write leaves a log
        return db.execute(sql).fetchall()


def records(path: Path, order: str = "rowid") -> list[dict[str, Any]]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(f"SELECT * FROM pages ORDER BY {order}")]


def change(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(sql)


def shop(row: int) -> Outcome:
    data = {"price": str(row), "tags": ["new", f"n{row}"][: row % 3]}
    if row % 4 == 0:
        return Failure(Request(row, f"https://a.example/{row}", fields={"sku": "s"}), ConnectError("connect_refused"))
    return page(row, f"https://a.example/{row}", {"sku": f"s{row}"}, data=data)


def opened(path: Path, mark: Mark | None = None, layout: Layout = SHOP, *, clean: bool = False) -> JobOutput:
    output = open_job_output(path, layout, work=f"{path}.work")
    if mark is None:
        output.create()
    else:
        output.resume(mark, clean=clean)
    return output


def filled(path: Path, *batches: Sequence[int]) -> tuple[JobOutput, Mark, list[Batch]]:
    output, known, mark = opened(path), list[Batch](), Mark()
    for ids in batches:
        mark = output.append([output.encode(shop(row)) for row in ids])
        known.append(Batch(mark.position - mark.tail, mark.position, mark.checksum))
    return output, mark, known


def killed(output: JobOutput, path: Path) -> None:
    """Leave the files as a kill would: they are copied while they are open, and put back."""
    kept = {name: Path(name).read_bytes() for name in left(path) if not name.endswith("-shm")}
    output.discard()
    for name in left(path):
        os.unlink(name)
    for name, data in kept.items():
        Path(name).write_bytes(data)


def left(path: Path) -> list[str]:
    return sorted(str(found) for found in path.parent.glob(f"{path.name}*") if found.is_file())


def kept(rows: Sequence[int], drop: set[int]) -> Iterator[KeptRow]:
    return iter([KeptRow(row, row not in drop) for row in rows])


def ids(path: Path) -> list[int]:
    return [row for (row,) in query(path, "SELECT id FROM pages ORDER BY id")]


# What is in it


def test_a_record_is_the_one_that_jsonl_has(path: Path) -> None:
    given: list[Outcome] = [
        page(
            3, redirects=("u", "v"), elapsed=1.0, waited=0.25, fetched_at=1.5, truncated=True, links=2, title="ü\0\n'"
        ),
        failure(),
    ]
    output = opened(path, layout=Layout())
    output.append([output.encode(outcome) for outcome in given])
    output.complete()
    output.discard()
    for row, outcome in zip(records(path, "rowid DESC"), given, strict=True):
        line = json.loads(to_json(to_record(outcome)))
        assert list(row) == [*COLUMNS, "host"]
        assert (json.loads(row["redirects"]), bool(row["truncated"])) == (line["redirects"], line["truncated"])
        for name in set(COLUMNS) - {"redirects", "truncated"}:
            assert row[name] == line[name], name
            assert type(row[name]) is type(line[name]), name
    assert [row["host"] for row in records(path)] == ["b.example", "a.example"]


def test_columns_types_and_indexes(path: Path) -> None:
    output, _, _ = filled(path, [1, 2])
    output.complete()
    output.discard()
    kinds = {name: kind for _, name, kind, *_ in query(path, "PRAGMA table_info(pages)")}
    assert list(kinds) == [*(name for name in COLUMNS if name not in ("fields", "data")), "host", "sku", "price"]
    assert (kinds["id"], kinds["elapsed"], kinds["title"], kinds["truncated"]) == ("INTEGER", "REAL", "TEXT", "INTEGER")
    assert query(path, "SELECT name FROM pragma_table_info('pages') WHERE pk") == [("id",)]
    indexes = {name for (name,) in query(path, "SELECT name FROM sqlite_master WHERE type = 'index' AND sql NOT NULL")}
    assert indexes == {"pages_host", "pages_error", "pages_status"}
    assert query(path, "SELECT sku, price FROM pages") == [("s1", "1"), ("s2", "2")]
    assert query(path, "SELECT * FROM tags") == [(1, 0, "new"), (2, 0, "new"), (2, 1, "n2")]
    assert query(path, "PRAGMA application_id") == [(0x66657470,)]


def test_naughty_strings_come_back_whole(path: Path) -> None:
    strings = naughty()
    layout = Layout(fields=("f",), select=("s", "l"), select_lists=("l",))
    output = opened(path, layout=layout)
    output.append(
        [
            output.encode(page(row, url=text, title=text, data={"s": text, "l": [text]}, fields={"f": text}))
            for row, text in enumerate(strings, 1)
        ]
    )
    mark = output.complete()
    output.discard()
    assert query(path, "SELECT url, title, s, f FROM pages ORDER BY id") == [(text,) * 4 for text in strings]
    assert query(path, "SELECT value FROM l ORDER BY id") == [(text,) for text in strings]
    opened(path, mark, layout, clean=True).discard()


class Odd:
    def __str__(self) -> str:
        return "odd \udcff"


ODD = {"int": 7, "huge": 2**70, "nan": float("nan"), "half": "a\ud800", "list": ["\udcff", 1], "odd": Odd(), "no": None}


def test_no_value_costs_the_record(path: Path) -> None:
    layout = Layout(fields=tuple(ODD), select=("v", "w"), select_lists=("w",))
    output = opened(path, layout=layout)
    batch = [
        output.encode(page(1, fields={**ODD, "late": 2**70}, title="\udcff", length=2**64, data=ODD)),
        output.encode(
            page(2, fields=types.MappingProxyType(ODD), data={"v": {"a": 1}, "w": ["\ud800", 2, None], "x": 3})
        ),
        output.encode(page(3, data={"v": True, "w": "one"}, elapsed=float("inf"))),
        output.encode(page(4, data=["no", "mapping"])),
    ]
    mark = output.append(batch)
    output.discard()
    first, second, third, fourth = records(path)
    assert [first[name] for name in ODD] == ["7", str(2**70), None, "a\ufffd", '["\ufffd",1]', "odd \ufffd", None]
    assert (first["title"], first["length"], json.loads(first["fields"])) == ("\ufffd", 2.0**64, {"late": 2**70})
    assert (second["v"], second["data"], third["v"], third["elapsed"]) == ('{"a":1}', '{"x":3}', "true", None)
    assert fourth["data"] == '["no","mapping"]'
    assert query(path, "SELECT * FROM w") == [(2, 0, "\ufffd"), (2, 1, "2"), (2, 2, None), (3, 0, "one")]
    opened(path, mark, layout, clean=True).discard()


NAMES = [
    "url",
    "URL",
    "rowid",
    "oid",
    "_ROWID_",
    "",
    " ",
    'a"b',
    "a\0b",
    "\udcff",
    "pages",
    "select",
    "x'; DROP TABLE pages",
]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(fields=st.lists(st.sampled_from([*NAMES, "row_url", "ID", "Fields", "HOST", "é", "É"]) | st.text(), unique=True))
def test_no_name_of_a_column_costs_the_table(path: Path, fields: list[str]) -> None:
    layout = Layout(fields=tuple(fields), select=("h", "H", "title"))
    for name in left(path):
        os.unlink(name)
    output = opened(path, layout=layout)
    values = {name: str(place) for place, name in enumerate(fields)}
    mark = output.append([output.encode(page(1, fields=values, data={"h": "a", "H": "b", "title": "c"}))])
    output.discard()
    (row,) = query(path, "SELECT * FROM pages")
    assert list(row[-len(fields) - 3 :]) == [*values.values(), "a", "b", "c"]
    opened(path, mark, layout, clean=True).discard()


@pytest.mark.parametrize("columns", [("url", "title"), ("title", "id"), ("error", "fields"), ("id", "data")])
def test_the_columns_that_are_asked_for_in_their_order(path: Path, columns: tuple[str, ...]) -> None:
    layout = Layout(columns=columns, fields=("id", "sku"), free_data=False, select=("tags",), select_lists=("tags",))
    output = opened(path, layout=layout)
    mark = output.append(
        [output.encode(page(row, fields={"id": "x", "sku": "y"}, data={"tags": ["t"]})) for row in (2, 1)]
    )
    output.discard()
    names = [name for _, name, *_ in query(path, "PRAGMA table_info(pages)")]
    own = ["row_id", "sku"] if "fields" in columns else []
    json_columns = ["fields"] if "fields" in columns else []
    assert names == [*(name for name in columns if name not in ("fields", "data")), *json_columns, "host", *own]
    assert query(path, "SELECT rowid FROM pages ORDER BY rowid") == [(1,), (2,)]
    tables = {name for (name,) in query(path, "SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert ("tags" in tables) == ("data" in columns)
    opened(path, mark, layout, clean=True).discard()


def test_more_columns_than_sqlite_has_are_json(path: Path) -> None:
    fields = {f"c{place}": str(place) for place in range(3_000)}
    layout = Layout(fields=tuple(fields), free_fields=False)
    output = opened(path, layout=layout)
    mark = output.append([output.encode(page(1, fields=fields))])
    output.discard()
    (row,) = records(path)
    rest = json.loads(row["fields"])
    assert {**{name: row[name] for name in fields if name in row}, **rest} == fields
    assert 900 < len(rest) < 1_100
    opened(path, mark, layout, clean=True).discard()


def test_lists_whose_names_clash_have_tables_of_their_own() -> None:
    names = ("tags", "Tags", "pages", "PAGES_host", "sqlite_x", "fetcher_batches")
    schema = TableSchema(Layout(select=names, select_lists=names), ())
    assert [table.name for table in schema.list_tables] == [
        "tags",
        "data_Tags",
        "data_pages",
        "data_PAGES_host",
        "data_sqlite_x",
        "data_fetcher_batches",
    ]
    schema.image()


def test_a_body_is_a_blob(path: Path) -> None:
    layout = Layout(columns=("id", "body", "headers"))
    output = opened(path, layout=layout)
    mark = output.append(
        [output.encode(page(1, body=b"\0\xff", headers=(("a", "1"), ("a", "2")))), output.encode(failure())]
    )
    output.complete()
    output.discard()
    assert query(path, "SELECT body, headers FROM pages") == [(b"\0\xff", '{"a":"1, 2"}'), (None, None)]
    opened(path, mark, layout, clean=True).discard()


# Batches


def test_a_batch_can_be_read_as_soon_as_it_is_appended_and_one_file_is_left(path: Path) -> None:
    output, mark, _ = filled(path, [1, 2])
    assert output.append([]) == mark
    assert ids(path) == [1, 2]
    assert len(left(path)) == 3
    last = output.append([output.encode(shop(row)) for row in (9, 4)])
    assert (last.position, last.position - last.tail) == (mark.position + last.tail, mark.position)
    assert output.complete() == last == output.complete()
    assert left(path) == [str(path)]
    output.discard()
    output.discard()
    assert query(path, "PRAGMA journal_mode") == [("delete",)]
    assert ids(path) == [1, 2, 4, 9]


def test_an_output_that_stays_empty_is_one_that_can_be_read(path: Path) -> None:
    output = opened(path, layout=Layout())
    assert path.stat().st_size == 0
    mark = output.complete()
    output.discard()
    assert ids(path) == []
    assert mark.position
    grown = opened(path, mark, Layout(), clean=True)
    last = grown.append([grown.encode(page(1, fields={"late": 1}))])
    grown.discard()
    assert query(path, "SELECT id, fields FROM pages") == [(1, '{"late":1}')]
    opened(path, last, Layout(), clean=True).discard()


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4), cut=st.integers(0, 4), keep=st.booleans())
def test_what_the_ledger_does_not_know_is_taken_off(path: Path, sizes: list[int], cut: int, keep: bool) -> None:
    for name in left(path):
        os.unlink(name)
    output, marks, row = opened(path), [Mark()], 1
    ends = [0]
    for size in sizes:
        marks.append(output.append([output.encode(shop(each)) for each in range(row, row + size)]))
        row += size
        ends.append(row - 1)
    known = min(cut, len(sizes))
    if keep:
        output.discard()
    else:
        killed(output, path)
    again = opened(path, marks[known])
    again.append([again.encode(shop(each)) for each in range(ends[known] + 1, row)] or [again.encode(shop(row))])
    again.complete()
    again.discard()
    assert ids(path) == list(range(1, max(row, ends[known] + 2)))
    expected = [(id_,) for id_ in ids(path) for _ in range(0 if id_ % 4 == 0 else min(2, id_ % 3))]
    assert query(path, "SELECT id FROM tags ORDER BY id") == expected


@pytest.mark.parametrize("size", [0, 1, 50, 4_096, 20_000, None])
def test_the_making_of_the_tables_may_be_interrupted(path: Path, size: int | None) -> None:
    image = TableSchema(SHOP, ("sku",)).image()
    path.write_bytes(image[:size])
    Path(f"{path}-wal").write_bytes(b"left")
    output = opened(path, Mark())
    output.append([output.encode(shop(1))])
    output.discard()
    assert ids(path) == [1]


def test_a_row_that_came_twice_is_an_error_and_the_batch_before_stays(path: Path) -> None:
    output, mark, _ = filled(path, [1, 2])
    with pytest.raises(SinkError, match="a row came twice, and each needs an id of its own"):
        output.append([output.encode(shop(row)) for row in (3, 1)])
    with pytest.raises(SinkError, match="an earlier write failed"):
        output.append([output.encode(shop(4))])
    output.discard()
    assert ids(path) == [1, 2]
    opened(path, mark, clean=True).discard()


def test_the_log_is_copied_into_the_file_now_and_then(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_module, "CHECKPOINT_BYTES", 1)
    output, _, _ = filled(path, [1], [2], [3])
    size = Path(f"{path}-wal").stat().st_size
    for row in range(5, 40):
        output.append([output.encode(shop(row))])
    assert Path(f"{path}-wal").stat().st_size < 3 * size
    output.discard()


# Changed by somebody else

EDITS = {
    "a cell of the last batch": "UPDATE pages SET title = 'x' WHERE id = 5",
    "a number of it": "UPDATE pages SET length = 6 WHERE id = 5",
    "its type": "UPDATE pages SET title = x'00' WHERE id = 5",
    "an item of a list of it": "UPDATE tags SET value = 'x' WHERE id = 5",
    "an item more": "INSERT INTO tags VALUES (3, 9, 'x')",
    "a row out": "DELETE FROM pages WHERE id = 1",
    "a row in": "INSERT INTO pages(id) VALUES (77)",
    "a row for another": "UPDATE pages SET id = 99 WHERE id = 5",
    "a batch out": "DELETE FROM fetcher_batches",
    "a column in": "ALTER TABLE pages ADD COLUMN x",
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON pages BEGIN DELETE FROM pages; END",
    "the table out": "DROP TABLE pages",
    "an index out": "DROP INDEX pages_host",
    "no number of ours": "PRAGMA application_id=1",
    "text that is none": "UPDATE pages SET title = CAST(x'ff' AS TEXT) WHERE id = 5",
    "batches that are none": "UPDATE fetcher_batches SET ids = x'c1'",
}


@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize("edit", EDITS)
def test_what_was_changed_is_refused_and_stays(path: Path, edit: str, clean: bool) -> None:
    output, mark, _ = filled(path, [1, 2, 4], [5, 3])
    output.complete()
    output.discard()
    change(path, EDITS[edit])
    before = path.read_bytes()
    with pytest.raises(SinkError, match="was changed since") as caught:
        opened(path, mark, clean=clean)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).endswith(ADVICE)
    assert path.read_bytes() == before
    assert left(path) == [str(path)]


def test_what_is_added_after_a_clean_end_is_refused(path: Path) -> None:
    output, mark, _ = filled(path, [1, 2])
    output.append([output.encode(shop(3))])
    output.discard()
    with pytest.raises(SinkError, match=r"was added to since: put it back"):
        opened(path, mark, clean=True)
    assert ids(path) == [1, 2, 3]


def test_an_edit_of_an_earlier_batch_is_found_where_it_is_looked_for(path: Path) -> None:
    output, mark, batches = filled(path, [1, 2], [5, 3])
    output.discard()
    change(path, "UPDATE pages SET title = 'x' WHERE id = 1")
    opened(path, mark, clean=True).discard()
    output = open_job_output(path, SHOP, work="")
    with pytest.raises(SinkError, match=r"its rows 0 to .* are not those that were written"):
        output.resume(mark, clean=True, batches=iter(batches))
    output = opened(path, mark, clean=True)
    with pytest.raises(SinkError, match="are not those that were written"):
        output.rewrite(str(path) + ".copy", kept([1, 2, 5, 3], {1}), batches)
    output.discard()
    assert left(path) == [str(path)]


def test_what_others_add_beside_our_tables_is_theirs(path: Path) -> None:
    output, mark, _ = filled(path, [1, 2])
    output.discard()
    change(path, "CREATE TABLE notes(id, note)")
    change(path, "CREATE VIEW slow AS SELECT url FROM pages WHERE elapsed > 1")
    change(path, "CREATE INDEX by_title ON pages(title)")
    change(path, "VACUUM")
    output = opened(path, mark, clean=True)
    output.append([output.encode(shop(3))])
    output.discard()
    assert ids(path) == [1, 2, 3]


@pytest.mark.parametrize("data", [b"", b"no database" * 1000, None])
def test_another_file_in_its_place_is_refused(path: Path, data: bytes | None) -> None:
    output, mark, _ = filled(path, [1])
    output.discard()
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
    with pytest.raises(SinkError, match=r"is missing|was changed since"):
        opened(path, mark)
    if data:
        with pytest.raises(SinkError, match="another program's file"):
            opened(path, Mark())
        assert path.read_bytes() == data


def test_a_file_that_is_not_ours_is_never_overwritten_without_fresh(path: Path) -> None:
    change(path, "CREATE TABLE pages(url)")
    before = path.read_bytes()
    for act in (lambda: check_output(path), lambda: opened(path)):
        with pytest.raises(ConfigError, match="exists; use --fresh to overwrite it"):
            act()
    assert path.read_bytes() == before
    path.write_bytes(b"")
    Path(f"{path}-journal").write_bytes(b"of another")
    with pytest.raises(ConfigError, match=r"-journal exists; use --fresh"):
        opened(path)


def test_fresh_leaves_the_old_file_to_whoever_has_it_open(path: Path) -> None:
    output, _, _ = filled(path, [1, 2])
    output.discard()
    path.chmod(0o640)
    with closing(sqlite3.connect(path)) as reader:
        found = reader.execute("SELECT id FROM pages")
        assert found.fetchone() == (1,)
        output = open_job_output(path, SHOP, work="")
        output.create(fresh=True)
        output.append([output.encode(shop(7))])
        assert found.fetchone() == (2,)
    output.complete()
    output.discard()
    assert ids(path) == [7]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("how", ["moved", "deleted", "replaced"])
def test_an_output_that_is_no_longer_at_its_path_is_an_error(path: Path, how: str) -> None:
    output, _, _ = filled(path, [1])
    if how == "deleted":
        path.unlink()
    else:
        path.rename(path.with_name("moved"))
        if how == "replaced":
            path.write_bytes(b"")
    for act in (output.check_place, lambda: output.append([output.encode(shop(2))])):
        with pytest.raises(SinkError, match="another program has"):
            act()
    output.discard()


# Somebody else has it open


def test_a_reader_with_a_transaction_is_in_nobodys_way(path: Path) -> None:
    output, mark, _ = filled(path, [1, 2])
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM pages").fetchone() == (2,)
        output.append([output.encode(shop(3))])
        mark = output.complete()
        output.discard()
        assert reader.execute("SELECT count(*) FROM pages").fetchone() == (2,)
        assert f"{path}-wal" in left(path), "it is left, for the reader needs it"
        reader.execute("COMMIT")
        assert reader.execute("SELECT count(*) FROM pages").fetchone() == (3,)
    assert left(path) == [str(path)]
    output = opened(path, mark, clean=True)
    output.complete()
    output.discard()
    assert query(path, "PRAGMA journal_mode") == [("delete",)]


def test_a_complete_one_that_somebody_reads_is_not_gone_on_with(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_module, "BUSY_SECONDS", 0.05)
    output, mark, _ = filled(path, [1, 2])
    output.complete()
    output.discard()
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM pages").fetchone()
        with pytest.raises(SinkError, match=r"cannot go on with it: .*another program is using it: close that"):
            opened(path, mark, clean=True)
        reader.execute("COMMIT")
        opened(path, mark, clean=True).discard()


@pytest.mark.parametrize("when", ["append", "resume"])
def test_a_writer_is_waited_for_and_then_named(path: Path, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_module, "BUSY_SECONDS", 0.05)
    output, mark, _ = filled(path, [1, 2])
    if when == "resume":
        output.append([output.encode(shop(3))])
        killed(output, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(SinkError, match=r"pages\.sqlite: cannot .*another program is using it: close that"):
            opened(path, mark) if when == "resume" else output.append([output.encode(shop(3))])
    output.discard()
    again = opened(path, mark)
    again.append([again.encode(shop(3))])
    again.discard()
    assert ids(path) == [1, 2, 3]
    assert sqlite_files.BUSY_SECONDS >= 5


def test_a_file_system_that_is_full_loses_nothing(path: Path) -> None:
    """The limit of a file's size stands for the disk's: SQLite meets both in the same way."""
    script = f"""
import resource, signal
from fetcher.errors import SinkError
from tests.test_sqlite_output import *
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path({str(path)!r})
output, mark, _ = filled(path, [1, 2])
resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, 70_000))
try:
    while True:
        rows = range(mark.position * 1000, mark.position * 1000 + 100)
        mark = output.append([output.encode(shop(row)) for row in rows])
except SinkError as error:
    output.discard()
    print(error)
    print(mark.position, mark.tail, mark.checksum)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    said, numbers = ended.stdout.splitlines()
    assert said.startswith(f"{path}: cannot write: ")
    position, tail, checksum = map(int, numbers.split())
    mark = Mark(position, tail, checksum, '["sku"]')
    output = opened(path, mark)
    output.append([output.encode(shop(3))])
    output.complete()
    output.discard()
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    assert ids(path)[:3] == [1, 2, 3]


# Rewriting

ROWS = [1, 2, 4, 8, 5, 3, 12]
CUT = ([1, 2, 4], [8], [5, 3, 12])


def rewritten(path: Path, drop: set[int]) -> tuple[JobOutput, Mark, list[Batch], str]:
    output, _, batches = filled(path, *CUT)
    copy = f"{path}.copy"
    made = output.rewrite(copy, kept(ROWS, drop), batches)
    return output, made.mark, made.batches, copy


@pytest.mark.parametrize("drop", [{4, 8, 12}, {1}, {8}, {5, 3, 12}, set(ROWS), set()])
def test_rows_are_dropped_when_the_copy_is_adopted(path: Path, drop: set[int]) -> None:
    output, mark, batches, copy = rewritten(path, drop)
    assert ids(path) == sorted(ROWS), "until then all is as it was"
    output.adopt(copy, mark)
    assert not os.path.exists(copy)
    assert ids(path) == sorted(set(ROWS) - drop)
    assert {row for (row,) in query(path, "SELECT id FROM tags")} <= set(ROWS) - drop
    output.append([output.encode(shop(row)) for row in sorted(drop)] or [output.encode(shop(100))])
    output.discard()
    assert set(ids(path)) >= set(ROWS)
    again = open_job_output(path, SHOP, work="")
    again.resume(mark, clean=False, batches=iter(batches))
    assert ids(path) == sorted(set(ROWS) - drop)
    assert batches[-1].end == mark.position
    again.discard()


@pytest.mark.parametrize("after", ["the copy", "the deletion", "the removal"])
def test_a_kill_within_a_rewrite_is_made_good(path: Path, after: str, monkeypatch: pytest.MonkeyPatch) -> None:
    output, mark, batches, copy = rewritten(path, {4, 5})
    if after == "the copy":
        output.discard()
    else:
        kept_copy = Path(copy).read_bytes()
        output.adopt(copy, mark)
        output.discard()
        if after == "the deletion":
            Path(copy).write_bytes(kept_copy)
    for _ in range(2):
        again = open_job_output(path, SHOP, work="")
        again.adopt(copy, mark, batches)
        again.discard()
        assert left(path) == [str(path)]
        assert ids(path) == sorted({*ROWS} - {4, 5})


@pytest.mark.parametrize("edit", [lambda data: data[:-20], lambda data: data.replace(b"4", b"2"), lambda _: b""])
def test_a_copy_that_was_changed_is_not_followed(path: Path, edit: Any) -> None:
    output, mark, _, copy = rewritten(path, {4})
    output.discard()
    Path(copy).write_bytes(edit(Path(copy).read_bytes()))
    with pytest.raises(SinkError, match=r"copy: was changed since"):
        output.adopt(copy, mark)
    assert ids(path) == sorted(ROWS)


@pytest.mark.parametrize("rows", [[*ROWS, 9], ROWS[:-1], [2, 1, *ROWS[2:]]])
def test_a_rewrite_for_other_rows_is_refused(path: Path, rows: list[int]) -> None:
    output, _, batches = filled(path, *CUT)
    with pytest.raises(SinkError, match="was changed since"):
        output.rewrite(f"{path}.copy", kept(rows, {1}), batches)
    output.discard()
    assert left(path) == [str(path)]


# Without a job


async def fill(path: Path | str, *outcomes: Outcome, **options: Any) -> None:
    async with open_sink(path, **options) as sink:
        for outcome in outcomes:
            await sink.write(outcome)


async def test_without_a_job_it_is_the_same_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_sink_module, "BATCH_ROWS", 2)
    await fill(path, *(shop(row) for row in range(1, 8)), select=["price"])
    assert ids(path) == list(range(1, 8))
    assert left(path) == [str(path)]
    assert os.listdir(path.parent) == [path.name]
    with pytest.raises(ConfigError, match="exists; use --fresh"):
        await fill(path, shop(1))
    await fill(path, shop(9), fresh=True)
    assert ids(path) == [9]
    path.unlink()
    await fill(path)
    assert ids(path) == []


async def test_without_a_job_a_batch_is_in_the_file_after_a_second(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_sink_module, "BATCH_SECONDS", 0.0)
    async with open_sink(path) as sink:
        await sink.write(shop(1))
        assert ids(path) == [1]
        monkeypatch.setattr(batch_sink_module, "BATCH_SECONDS", 1_000.0)
        await sink.write(shop(2))
        assert ids(path) == [1]


async def test_without_a_job_an_error_is_raised_once_and_ends_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_sink_module, "BATCH_ROWS", 1)
    with pytest.raises(SinkError, match="a row came twice"):
        await fill(path, shop(1), shop(1), shop(2), shop(3))
    assert os.listdir(path.parent) == [path.name]
    assert ids(path) == [1]


@pytest.mark.parametrize(
    ("name", "format", "message"),
    [
        ("-", "sqlite", "standard output: sqlite is no stream: name a file with -o, such as pages.sqlite"),
        ("/dev/null", "sqlite", "/dev/null: sqlite is no stream"),
        ("fifo", "sqlite", "fifo: sqlite is no stream"),
        ("a.sqlite.gz", None, "sqlite is not packed while it is written: leave out .gz"),
        ("a.zst", "sqlite", "sqlite is not packed while it is written: leave out .zst"),
        ("a.db", None, r"unknown suffix '.db' \(did you mean sqlite\?\): there are .*\.sqlite"),
        ("a.sqlite3", None, r"\(did you mean sqlite\?\)"),
        ("a.json", None, r"\(did you mean jsonl, one JSON record a line\?\)"),
        ("a.json.gz", None, r"unknown suffix '\.json' \(did you mean jsonl"),
        ("a.jsonl", "json", r"unknown format 'json' \(did you mean jsonl, one JSON record a line\?\)"),
    ],
)
async def test_where_it_cannot_be_written_is_said_before(
    tmp_path: Path,
    name: str,
    format: str | None,  # noqa: A002  # the option
    message: str,
) -> None:
    os.mkfifo(tmp_path / "fifo")
    path = name if name in ("-", "/dev/null") else str(tmp_path / name)
    with pytest.raises(ConfigError, match=message):
        check_output(path, format=format)
    with pytest.raises(ConfigError, match=message):
        await fill(path, format=format)
    assert os.listdir(tmp_path) == ["fifo"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("no/a.sqlite", "the folder .* does not exist"), ("dir.sqlite", "is no regular file|is a folder")],
)
async def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "dir.sqlite").mkdir()
    with pytest.raises(SinkError, match=message):
        await fill(tmp_path / name, shop(1))
    assert os.listdir(tmp_path) == ["dir.sqlite"]


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the shell of SQLite is not installed")
def test_the_shell_of_sqlite_reads_it_while_it_is_written(path: Path) -> None:
    output, _, _ = filled(path, [1, 2, 4])
    words = ["sqlite3", "-readonly", str(path), "SELECT error, count(*) FROM pages GROUP BY 1 ORDER BY 1"]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "|2\nconnect_refused|1\n"
    output.discard()
