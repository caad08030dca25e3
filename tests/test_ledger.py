"""The ledger against what happens to files: kills, faults, full disks, damage and strangers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fetcher.config import Config
from fetcher.errors import LedgerError
from fetcher.job import ledger, ledger_reader, schema
from fetcher.job.found_rows import LedgerRows
from fetcher.job.ledger import Ledger, LedgerRow, PartsLedger, Tally
from fetcher.job.schema import FORMAT
from fetcher.sinks.durable import Batch, Mark
from fetcher.sinks.store_parts import PartRow
from fetcher.spawn import environment
from fetcher.stats import Stats
from tests.lab.ledger_rows import entry, so_far

DEADLINE = 60
IDENTITY = b'{"inputs":["urls.txt"]}'


def digest(row: int) -> int:
    return entry(row).digest


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "ledger.sqlite")


@contextlib.contextmanager
def begun(path: str, outputs: int = 1) -> Iterator[Ledger]:
    made = Ledger.create(path, identity=IDENTITY, outputs=[f"out{n}.jsonl" for n in range(outputs)])
    made.begin_run(1.0)
    try:
        yield made
    finally:
        made.abandon()


def fill(path: str, rows: int = 50, **known: Any) -> None:
    with begun(path) as made:
        made.commit([entry(row, **known) for row in range(1, rows + 1)], [Mark(rows, 1, 7)], so_far(rows))
        made.end_run(so_far(rows), exit=0)
        made.close()


@contextlib.contextmanager
def looked_into(path: str) -> Iterator[Ledger]:
    opened = Ledger.open(path)
    try:
        yield opened
    finally:
        opened.close()


def read_all(path: str) -> tuple[list[Mark], Tally, list[tuple[int, int]]]:
    opened = Ledger.open(path)
    try:
        opened.pending_rewrite()
        list(opened.order(["ok"]))
        return opened.marks(), opened.tally(), list(opened.finished())
    finally:
        opened.abandon()


def tamper(path: str, *statements: str, values: tuple[Any, ...] = ()) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement, values)


# What it keeps


def test_a_new_ledger_is_one_file_and_empty(path: str) -> None:
    with begun(path, outputs=2) as made:
        made.close()
    assert os.listdir(os.path.dirname(path)) == ["ledger.sqlite"]
    opened = Ledger.open(path)
    assert (opened.identity, opened.last, opened.retrying, opened.ended_well) == (IDENTITY, 0, frozenset(), False)
    assert opened.marks() == [Mark(), Mark()]
    assert opened.tally() == Tally()
    assert [*opened.finished(), *opened.order(["ok"]), *opened.pending_rewrite()] == []
    opened.close()


def test_what_was_committed_is_there_again(path: str) -> None:
    with begun(path, outputs=2) as made:
        first = [Mark(70, 70, 2**32 - 1, '["sku"]'), Mark(9, 9, 1)]
        made.commit([entry(3), entry(1, "http_404", status=404, host="b.example")], first, so_far(3))
        last = [Mark(90, 20, 5, '["sku"]'), Mark(2**40, 3, 2)]
        made.commit([entry(2, "duplicate", bytes=None, host=""), entry(4, "http_404")], last, so_far(4))
        assert made.last == 4
    marks, tally, rows = read_all(path)
    assert marks == last
    assert tally == Tally(ok=1, failed=2, skipped=1, bytes=30, codes={"http_404": 2, "duplicate": 1})
    assert list(tally.codes) == ["http_404", "duplicate"]
    assert rows == [(row, digest(row)) for row in (1, 2, 3, 4)]


def test_it_shows_its_state_at_a_glance(path: str) -> None:
    with begun(path) as made:
        made.commit([entry(1), entry(7, "http_404")], [Mark(2)], so_far(7))
        made.commit([entry(2)], [Mark(3)], so_far(7))
        assert repr(made) == f"<Ledger {path!r} in a run: runs=1 done=3 last=7 journal=3 rows in 2 commits>"
        with made._transaction():
            assert repr(made).endswith("2 commits, in a transaction>")
        assert made.begin_rewrite(["http_404"], [Mark(2)], ["copy.0"]) == 1
        assert repr(made) == f"<Ledger {path!r} in a run: runs=1 done=2 last=2 journal=0 rows in 0 commits>"
        made.end_rewrite()
        made.end_run(so_far(7), exit=0)
        made.close()
        assert " closed: " in repr(made)
    opened = Ledger.open(path)
    assert repr(opened) == f"<Ledger {path!r} idle: runs=1 done=2 last=2 journal=0 rows in 0 commits>"
    opened.close()


@pytest.mark.parametrize(("rows", "commits"), [(100, 3), (4, 100)])
def test_the_journal_is_copied_into_the_ledger_after_so_many_rows_or_commits(
    path: str, rows: int, commits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "CHECKPOINT_ROWS", rows)
    monkeypatch.setattr(ledger, "CHECKPOINT_COMMITS", commits)
    with begun(path) as made:
        told = []
        for number in range(3):
            made.commit([entry(2 * number + 1), entry(2 * number + 2)], [Mark(number + 1)], so_far(2 * number + 2))
            told.append(repr(made).partition("journal=")[2])
        first, later = "2 rows in 1 commits>", ["4 rows in 2 commits>", "0 rows in 0 commits>"]
        assert told == ([first, *later] if commits == 3 else [first, later[1], first])


def test_a_ledger_is_told_by_its_68th_byte(path: str) -> None:
    """Where SQLite has the number of an application."""
    fill(path)
    assert Path(path).read_bytes()[68:72] == b"fetc"


def test_every_digest_of_four_bytes_comes_back(path: str) -> None:
    digests = [0, 1, 2**31 - 1, 2**31, 2**32 - 1]
    with begun(path) as made:
        made.commit([LedgerRow(n, d, "ok", 200, 0, 0.0, 1, "h") for n, d in enumerate(digests, 1)], [Mark()], so_far())
        assert [d for _, d in made.finished()] == digests


def test_the_order_is_that_of_the_commits(path: str) -> None:
    codes = ["ok", "http_404", "ok", "dns_timeout", "http_404", "ok"]
    with begun(path) as made:
        for n, code in enumerate(codes):
            made.commit([entry(100 - n, code)], [Mark(n)], so_far(n))
        assert [row.kept for row in made.order(["http_404", "never_seen"])] == [code != "http_404" for code in codes]
        assert [row.kept for row in made.order([])] == [True] * 6


def test_whether_the_run_before_ended_well(path: str) -> None:
    made = Ledger.create(path, identity=IDENTITY, outputs=["a"])
    assert made.ended_well
    assert made.begin_run(1.0)
    made.commit([entry(1)], [Mark(1)], so_far(1))
    made.abandon()
    opened = Ledger.open(path)
    assert not opened.ended_well
    assert not opened.begin_run(2.0)
    opened.end_run(so_far(1), exit=130)
    opened.close()
    opened = Ledger.open(path)
    assert opened.begin_run(3.0)
    opened.abandon()
    with contextlib.closing(schema.connect(path, write=False)) as db:
        runs = db.execute("SELECT began, clean, exit, taken, more, seconds FROM runs ORDER BY id").fetchall()
    assert runs == [(1.0, 0, None, 1, 1, 1.5), (2.0, 1, 130, 1, 1, 1.5), (3.0, 0, None, 0, 1, 0.0)]


def test_a_row_that_comes_twice_ends_the_run_and_leaves_the_batch_out(path: str) -> None:
    with begun(path) as made:
        made.commit([entry(1)], [Mark(1)], so_far(1))
        with pytest.raises(LedgerError, match=r"ledger\.sqlite: .*a row came twice"):
            made.commit([entry(2, "novel", host="new.example"), entry(1)], [Mark(2)], so_far(2))
        assert made.marks() == [Mark(1)]
        made.commit([entry(2, "novel", host="new.example")], [Mark(3)], so_far(2))
        assert made.tally().codes == {"novel": 1}
    assert read_all(path)[2] == [(1, digest(1)), (2, digest(2))]


@pytest.mark.parametrize("value", [-1, 2**53 + 1, 2**62, 1.0, True, None, "1"])
def test_what_is_no_number_of_ours_is_refused(value: object) -> None:
    assert schema.whole("a.job", 2**53) == 2**53
    with pytest.raises(LedgerError, match=f"a number from 0 to {2**53} belongs"):
        schema.whole("a.job", value)


def test_rows_of_parts_that_are_gone_are_forgotten(path: str) -> None:
    made = PartsLedger.create(path, identity=IDENTITY, outputs=["s3://lab/pages/"])
    made.begin_run(1.0)
    made.commit([entry(row) for row in range(1, 6)], [Mark(5)], so_far(5))
    assert made.forget_rows(2, 4, "") == 3
    assert (made.done, made.last) == (2, 5)
    assert made.forget_rows(5, 9, "") == 1
    assert (made.done, made.last) == (1, 1)
    assert list(made.finished()) == [(1, digest(1))]
    made.abandon()


def test_the_note_of_a_part_goes_with_its_rows(path: str) -> None:
    made = PartsLedger.create(path, identity=IDENTITY, outputs=["s3://lab/pages/"])
    made.begin_run(1.0)
    made.commit([entry(1), entry(2)], [Mark(2)], so_far(2), {"part 1": b"one", "part 2": b"two"})
    assert made.forget_rows(2, 2, "part 2") == 1
    assert made.notes_like("part") == {"part 1": b"one"}
    made.abandon()


def test_the_rows_of_a_part_are_read_back_and_checked(path: str) -> None:
    made = PartsLedger.create(path, identity=IDENTITY, outputs=["s3://lab/pages/"])
    made.begin_run(1.0)
    made.commit([LedgerRow(9, 2**32 - 1, "ok", 200, 7, 1.5, 2, "a.example"), entry(4), entry(5)], [Mark(3)], so_far(3))
    assert [row.id for row in made.part_rows(1, 2)] == [9, 4]
    assert next(iter(made.part_rows(1, 1))) == PartRow(9, 2**32 - 1, "ok", 200, 7, 1_500, "a.example", 2)
    for table in ("codes", "hosts"):
        with contextlib.closing(sqlite3.connect(path)) as other, other:
            other.execute(f"UPDATE {table} SET name = cast(name AS BLOB)")
        with pytest.raises(LedgerError, match="a row without a code or a host"):
            list(made.part_rows(1, 3))
        with contextlib.closing(sqlite3.connect(path)) as other, other:
            other.execute(f"UPDATE {table} SET name = cast(name AS TEXT)")
    made.abandon()


@pytest.mark.parametrize("checksum", [0, 2**32 - 1])
def test_any_checksum_is_kept(path: str, checksum: int) -> None:
    with begun(path) as made:
        made.commit([entry(1)], [Mark(5, 5, checksum)], so_far(1))
    with looked_into(path) as opened:
        assert opened.marks() == [Mark(5, 5, checksum)]


def test_a_new_identity_stays(path: str) -> None:
    fill(path)
    opened = Ledger.open(path)
    opened.set_identity(b"{more}")
    opened.close()
    with looked_into(path) as opened:
        assert opened.identity == b"{more}"


def test_a_file_name_need_not_be_text(path: str) -> None:
    odd = os.fsdecode(b"caf\xe9 %41?#.jsonl")
    folder = os.path.join(os.path.dirname(path), odd)
    os.mkdir(folder)
    path = os.path.join(folder, "ledger.sqlite")
    made = Ledger.create(path, identity=IDENTITY, outputs=[odd])
    assert made.begin_rewrite([], [Mark()], [odd]) == 0
    assert made.pending_rewrite() == [odd]
    made.close()
    assert os.listdir(folder) == ["ledger.sqlite"]


# Rewriting


def test_a_rewrite_is_pending_until_it_is_ended(path: str) -> None:
    codes = ["ok", "http_500", "dns_timeout", "http_500", "ok"]
    with begun(path, outputs=2) as made:
        made.commit([entry(n, code) for n, code in enumerate(codes, 1)], [Mark(5), Mark(50)], so_far(5))
        assert (
            made.begin_rewrite(["http_500", "http_503"], [Mark(3), Mark(30)], ["copy.0", "copy.1"], retry_names=["5xx"])
            == 2
        )
        assert made.retrying == {"http_500", "http_503"}
    opened = Ledger.open(path)
    assert opened.pending_rewrite() == ["copy.0", "copy.1"]
    assert opened.marks() == [Mark(3), Mark(30)]
    assert opened.retrying == {"http_500", "http_503"}
    assert opened.retry_names == {"5xx"}
    assert opened.tally() == Tally(ok=2, failed=1, bytes=30, codes={"dns_timeout": 1})
    assert list(opened.finished()) == [(row, digest(row)) for row in (1, 3, 5)]
    opened.end_rewrite()
    opened.begin_run(2.0)
    opened.commit([entry(4), entry(2, "http_500")], [Mark(6), Mark(60)], so_far(5))
    assert [row.kept for row in opened.order(["http_500"])] == [True, True, True, True, False]
    opened.abandon()
    opened = Ledger.open(path)
    assert opened.pending_rewrite() == []
    assert opened.retrying
    opened.retry_done()
    opened.retry_done()
    opened.close()
    with looked_into(path) as opened:
        assert not opened.retrying | opened.retry_names


def test_the_last_row_may_be_retried(path: str) -> None:
    with begun(path) as made:
        made.commit([entry(1), entry(9, "http_500")], [Mark(2)], so_far(9))
        made.begin_rewrite(["http_500"], [Mark(1)], ["copy"])
        assert made.last == 1
        made.commit([entry(9)], [Mark(2)], so_far(9))
        assert made.last == 9


# Bounds


def test_the_finished_are_those_of_the_moment(path: str) -> None:
    rows = 3 * ledger_reader.READ_ROWS
    with begun(path) as made:
        made.commit([entry(row) for row in range(1, rows, 2)], [Mark(1)], so_far())
        finished = made.finished()
        found = [next(finished) for _ in range(10)]
        made.commit([entry(row) for row in range(2, rows, 2)], [Mark(2)], so_far())
        found += finished
        assert [row for row, _ in found] == list(range(1, rows, 2))
        assert len(list(made.finished())) == rows - 1


def test_a_large_ledger_is_read_in_little_memory_and_lies_in_little_space(path: str, tmp_path: Path) -> None:
    rows = 60_000
    order = sorted(range(1, rows + 1), key=lambda row: row + random.Random(row).random() * 2_000)
    with begun(path) as made:
        for start in range(0, rows, 1_000):
            batch = [
                LedgerRow(
                    row, digest(row), "ok", 200, row % 90_000, row % 7_000 / 1e3, 1, f"www.host{row // 40}.example"
                )
                for row in order[start : start + 1_000]
            ]
            made.commit(batch, [Mark(start)], so_far(start))
            assert os.path.getsize(f"{path}-wal") < 16_000_000  # copied into the ledger now and then
        made.close()
        assert os.listdir(tmp_path) == ["ledger.sqlite"]
        assert os.path.getsize(path) / rows < 60
    opened = Ledger.open(path)
    gc.collect()
    tracemalloc.start()
    try:
        assert all(pair == (row, digest(row)) for row, pair in enumerate(opened.finished(), 1))
        assert sum(row.kept for row in opened.order(["http_404"])) == rows
        assert opened.tally().ok == opened.last == rows
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
        opened.close()


def test_seconds_are_kept_as_thousandths_and_never_less_than_none(path: str) -> None:
    times = [0.0, -0.5, 0.0004, 1.2345, 300.0]
    with begun(path) as made:
        rows = [msgspec.structs.replace(entry(n), elapsed=seconds) for n, seconds in enumerate(times, 1)]
        made.commit(rows, [Mark()], so_far())
    with contextlib.closing(schema.connect(path, write=False)) as db:
        assert [value for (value,) in db.execute("SELECT elapsed FROM rows ORDER BY id")] == [0, 0, 0, 1_234, 300_000]


def test_few_names_are_remembered_and_all_are_found(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "INTERNED_NAMES", 10)
    with begun(path) as made:
        made.commit([entry(n, f"http_{n % 25}", host=f"h{n % 40}") for n in range(1, 401)], [Mark()], so_far())
        assert len(made._hosts._known) == len(made._codes._known) == 10
        assert len(made.tally().codes) == 25
    with contextlib.closing(schema.connect(path, write=False)) as db:
        assert db.execute("SELECT count(*) FROM hosts").fetchone() == (40,)
        assert db.execute("SELECT count(*) FROM rows JOIN hosts ON hosts.id = host AND name = 'h7'").fetchone() == (10,)


# Readers beside the writer

READER = """
import sys
from fetcher.job.schema import FORMAT, connect
db = connect(sys.argv[1], write=False)
db.execute("BEGIN")
print(db.execute("SELECT count(*) FROM rows").fetchone()[0], flush=True)
sys.stdin.read()
"""


def run(script: str, *words: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *words], env=environment(), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options,
    )  # fmt: skip


def test_somebody_who_reads_is_in_nobodys_way(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "BUSY_SECONDS", 0.0)
    with begun(path) as made:
        made.commit([entry(1)], [Mark(1)], so_far(1))
        with run(READER, path) as reader:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "1\n"
            made.commit([entry(2)], [Mark(2)], so_far(2))
            made.close()
            reader.communicate(timeout=DEADLINE)
            assert reader.returncode == 0
    assert len(read_all(path)[2]) == 2


def test_a_reader_of_the_same_process_neither(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "BUSY_SECONDS", 0.0)
    with begun(path) as made, contextlib.closing(schema.connect(path, write=False)) as db:
        made.commit([entry(1)], [Mark(1)], so_far(1))
        assert db.execute("SELECT count(*) FROM rows").fetchone() == (1,)
        made.close()
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection = schema.connect(path, write=False)
        with contextlib.closing(connection):
            connection.execute("DELETE FROM rows")


def test_after_the_end_nothing_is_read(path: str) -> None:
    with begun(path) as made:
        finished = made.finished()
        made.close()
        made.close()
        with pytest.raises(LedgerError, match="is closed"):
            next(finished)


# Kills

COMMITTER = """
import sys
from fetcher.job import ledger
from tests.lab.ledger_rows import entry, so_far
from fetcher.sinks.durable import Batch, Mark
from fetcher.sinks.store_parts import PartRow
ledger.CHECKPOINT_ROWS = 100
opened = ledger.Ledger.open(sys.argv[1])
opened.begin_run(1.0)
while True:
    batch = [entry(row, host=f"h{row}.example") for row in range(opened.last + 1, opened.last + 18)]
    opened.commit(batch, [Mark(batch[-1].id)], so_far(batch[-1].id))
    print(opened.last, flush=True)
"""


def test_a_kill_anywhere_leaves_all_of_a_commit_or_nothing(path: str) -> None:
    chance = random.Random(4)
    Ledger.create(path, identity=IDENTITY, outputs=["a.jsonl"]).close()
    known = 0
    for _ in range(12):
        with run(COMMITTER, path, cwd=Path(__file__).parents[1]) as committer:
            assert committer.stdout is not None
            for _ in range(chance.randrange(1, 60)):
                known = int(committer.stdout.readline())
            committer.kill()
            told = committer.stdout.read().splitlines()
        known = int(told[-1]) if told and told[-1].isdigit() else known
        (mark,), tally, rows = read_all(path)
        assert mark.position >= known - known % 17
        assert rows == [(row, digest(row)) for row in range(1, mark.position + 1)]
        assert tally.ok == mark.position


# Faults

LIFE = """
import os, sys
from fetcher.errors import LedgerError
from fetcher.job import ledger
from tests.lab.ledger_rows import entry, so_far
from fetcher.sinks.durable import Batch, Mark
from fetcher.sinks.store_parts import PartRow
ledger.CHECKPOINT_ROWS = 10
path = os.path.join(sys.argv[1], "ledger.sqlite")
try:
    opened = ledger.Ledger.create(path, identity=b"{}", outputs=["a.jsonl"])
    try:
        opened.begin_run(1.0)
        for row in range(1, 31, 5):
            opened.commit([entry(row + n, host=f"h{row + n}") for n in range(5)], [Mark(row + 4)], so_far(row))
        opened.begin_rewrite(["http_404"], [Mark(30)], ["copy"])
        opened.end_rewrite()
        opened.end_run(so_far(30), exit=0)
        opened.close()
    finally:
        opened.abandon()
except LedgerError as error:
    sys.exit(f"LedgerError {error}")
"""
FAULTS = [
    *((call, error, nth) for call in ("fdatasync", "unlink") for error, nth in (("EIO", 1), ("ENOSPC", 3), ("EIO", 6))),
    *((call, "ENOSPC", nth) for call in ("rename", "ftruncate", "openat", "fsync") for nth in (1, 2)),
    *(("pwrite64", "EIO", nth) for nth in (1, 11, 20, 77, 120)),
    *(("pwrite64", "ENOSPC", nth) for nth in (4, 14, 45, 100)),
]
"""Where a call fails; ``tests.sweeps.syscalls`` has every call fail with either error."""


def traced(folder: str, action: str, log: Path) -> subprocess.CompletedProcess[str]:
    if not shutil.which("strace"):
        pytest.skip("strace is missing")
    files = [f"{folder}/ledger.sqlite{end}" for end in ("", "-wal", "-shm", ".new", ".new-wal", ".new-shm")]
    watched = [word for file in (folder, *files) for word in ("-P", file)]
    call = action.partition(":")[0]
    words = ["strace", "-f", "-y", "-qq", "-o", str(log), *watched, "-e", f"trace={call}", "-e", f"inject={action}"]
    done = subprocess.run(
        [*words, sys.executable, "-c", LIFE, folder], env=environment(), cwd=Path(__file__).parents[1],
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    if "PTRACE" in done.stderr:
        pytest.skip("strace may not trace here")
    return done


REWRITE = """
import os, sys
from fetcher.job import ledger, schema
from tests.lab.ledger_rows import entry, so_far
from fetcher.sinks.durable import Mark
ledger.CHECKPOINT_COMMITS, schema.BUSY_SECONDS = 1, 0.0
opened = ledger.Ledger.create(sys.argv[1], identity=b"{}", outputs=["a.jsonl"])
opened.begin_run(1.0)
opened.commit([entry(1), entry(2, "http_404")], [Mark(2)], so_far(2))
reader = schema.connect(sys.argv[1], write=False)
reader.execute("BEGIN")
reader.execute("SELECT count(*) FROM rows").fetchone()
os.write(1, b"begin")
opened.begin_rewrite(["http_404"], [Mark(1)], ["copy"])
os.write(1, b"end")
ledger.CHECKPOINT_COMMITS = 10
opened.commit([entry(3)], [Mark(3)], so_far(3))
os.write(1, b"more")
opened.commit([entry(4)], [Mark(4)], so_far(4))
os.write(1, b"done")
"""


def test_a_rewrite_is_on_the_disk_though_somebody_reads(path: str, tmp_path: Path) -> None:
    """Copies are put in the place of outputs next: a power failure must not find a ledger that knows of none."""
    if not shutil.which("strace"):
        pytest.skip("strace is missing")
    log = tmp_path / "log"
    words = ["strace", "-f", "-y", "-qq", "-o", str(log), "-e", "trace=write,pwrite64,fsync,fdatasync"]
    done = subprocess.run(
        [*words, sys.executable, "-c", REWRITE, path], env=environment(), cwd=Path(__file__).parents[1],
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    if "PTRACE" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.stdout == "beginendmoredone", done.stderr
    rewriting, _, after = log.read_text().partition('"begin"')[2].partition('"end"')
    assert rewriting.rindex("sync(") > rewriting.rindex("pwrite64(")
    assert "sync(" not in after.partition('"more"')[2].partition('"done"')[0]  # but commits wait for no disk


def check_consistent(path: str) -> None:
    if os.path.exists(path):
        (mark,), _, rows = read_all(path)
        assert rows == [(row, digest(row)) for row in range(1, mark.position + 1)]
        Ledger.open(path).close()
    else:
        Ledger.create(path, identity=IDENTITY, outputs=["a"]).close()
    assert not os.path.exists(f"{path}-wal")


@pytest.mark.parametrize(("call", "error", "nth"), FAULTS)
def test_a_call_that_fails_is_told_and_harms_nothing(tmp_path: Path, call: str, error: str, nth: int) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    done = traced(str(folder), f"{call}:error={error}:when={nth}", tmp_path / "log")
    injected = [line for line in (tmp_path / "log").read_text().splitlines() if "INJECTED" in line]
    # SQLite does without its own sync of the folder's names (by path at openat, by descriptor at fdatasync).
    if injected and f'"{folder}"' not in injected[0] and f"<{folder}>" not in injected[0]:
        assert done.stderr.startswith(f"LedgerError {folder}"), (injected, done)
        assert done.returncode == 1
    elif not injected:
        assert done.returncode == 0, done.stderr
    check_consistent(str(folder / "ledger.sqlite"))


@pytest.mark.parametrize(
    ("call", "nth"),
    [("rename", 1), ("fsync", 1), ("unlink", 8), ("ftruncate", 2), *(("pwrite64", n) for n in (3, 30, 60, 90))],
)
def test_a_kill_at_a_call_harms_nothing(tmp_path: Path, call: str, nth: int) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    traced(str(folder), f"{call}:signal=KILL:when={nth}", tmp_path / "log")
    check_consistent(str(folder / "ledger.sqlite"))


FULL = """
import sys, resource
from fetcher.errors import LedgerError
from fetcher.job.ledger import Ledger
from tests.lab.ledger_rows import entry, so_far
from fetcher.sinks.durable import Batch, Mark
from fetcher.sinks.store_parts import PartRow
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
opened = Ledger.open(sys.argv[1])
opened.begin_run(1.0)
try:
    while True:
        rows = range(opened.last + 1, opened.last + 501)
        opened.commit([entry(row, host=f"h{row}.example") for row in rows], [Mark(rows[-1])], so_far())
except LedgerError as error:
    print(error)
try:
    opened.close()
except LedgerError as error:
    print(error)
"""


def fill_up(path: str, *words: str) -> str:
    with run(FULL, path, *words, cwd=Path(__file__).parents[1]) as filling:
        told, _ = filling.communicate(timeout=DEADLINE)
        assert filling.returncode == 0
    return told


def test_a_file_that_may_not_grow_is_told(path: str) -> None:
    Ledger.create(path, identity=IDENTITY, outputs=["a.jsonl"]).close()
    told = fill_up(path, "300000")
    assert told.startswith(f"{path}: cannot write the ledger: disk I/O error: repair that and run the same command")
    with looked_into(path) as opened:
        assert opened.last >= 500
    check_consistent(path)


def test_a_full_disk_is_told_and_what_was_committed_stays(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("no file system may be mounted here: RLIMIT_FSIZE stands for it")
    try:
        path = str(disk / "ledger.sqlite")
        Ledger.create(path, identity=IDENTITY, outputs=["a.jsonl"]).close()
        told = fill_up(path)
        assert told.startswith(f"{path}: cannot write the ledger: database or disk is full: make room there")
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        with looked_into(path) as opened:
            assert opened.last >= 500
        check_consistent(path)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


# Damage


def test_damage_anywhere_is_an_error_or_does_no_harm(path: str) -> None:
    with begun(path) as made:
        made.commit([entry(row, f"http_{row % 9}", host=f"h{row}") for row in range(1, 3_001)], [Mark(5)], so_far())
        made.begin_rewrite([], [Mark(5)], ["copy"])
        made.close()
    sound = Path(path).read_bytes()
    chance = random.Random(7)
    refused = 0
    for turn in range(250):
        torn = bytearray(sound)
        if turn % 5 == 0:
            del torn[chance.randrange(len(torn)) :]
        for _ in range(chance.choice((0, 1, 1, 20)) if turn % 5 == 0 else chance.choice((1, 20, 400))):
            if torn:
                place = chance.randrange(len(torn) if turn % 2 else min(len(torn), 4096))
                torn[place] = chance.randrange(256)
        for end in ("-wal", "-shm"):
            Path(path + end).unlink(missing_ok=True)
        Path(path).write_bytes(torn)
        try:
            marks, tally, rows = read_all(path)
        except LedgerError as error:
            refused += 1
            assert str(error).startswith(path)
            assert "--fresh" in str(error)
        else:
            assert all(type(value) is int for pair in rows for value in pair)
            assert type(marks[0].position) is type(tally.failed) is int
    assert refused > 150


def test_a_damaged_journal_loses_commits_and_nothing_else(path: str) -> None:
    with begun(path) as made:
        for row in range(1, 40):
            made.commit([entry(row)], [Mark(row)], so_far(row))
        sound = [Path(path).read_bytes(), Path(f"{path}-wal").read_bytes()]
    chance = random.Random(1)
    for _ in range(40):
        journal = bytearray(sound[1])
        journal[chance.randrange(len(journal))] ^= 1 << chance.randrange(8)
        Path(path).write_bytes(sound[0])
        Path(f"{path}-wal").write_bytes(journal)
        (mark,), _, rows = read_all(path)
        assert rows == [(row, digest(row)) for row in range(1, mark.position + 1)]


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0", b"hello\n" * 2_000, b"\0" * 8_192])
def test_what_is_no_database_is_refused(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)
    with pytest.raises(LedgerError, match=r"ledger\.sqlite: the ledger is damaged or not ours \(.*begin again with"):
        Ledger.open(path)


def test_another_programs_database_is_refused(path: str) -> None:
    tamper(path, "CREATE TABLE rows(id)")
    with pytest.raises(LedgerError, match="another program's file"):
        Ledger.open(path)


def test_another_version_is_named(path: str) -> None:
    fill(path)
    tamper(path, "PRAGMA user_version=1")
    with pytest.raises(LedgerError) as caught:
        Ledger.open(path)
    assert str(caught.value) == (
        f"{path}: was written by another version (format 1; this is {FORMAT}): finish it with that one, "
        "or begin again with --fresh"
    )


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE more(a)",
        "CREATE TRIGGER t AFTER INSERT ON rows BEGIN DELETE FROM rows; END",
        "CREATE TRIGGER t INSTEAD OF UPDATE ON v BEGIN SELECT 1; END",
        "CREATE VIEW v2 AS SELECT load_extension('evil')",
        "CREATE INDEX i ON rows(abs(code))",
        "ALTER TABLE rows ADD COLUMN evil DEFAULT (1)",
        "ALTER TABLE hosts RENAME COLUMN name TO naem",
        "DROP TABLE runs",
        "PRAGMA journal_mode=DELETE",
        "ANALYZE",
    ],
)
def test_other_tables_than_ours_are_refused(path: str, statement: str) -> None:
    fill(path)
    tamper(path, *(["CREATE VIEW v AS SELECT 1"] if "ON v " in statement else []), statement)
    before = Path(path).read_bytes()
    with pytest.raises(LedgerError, match="damaged or not ours"):
        Ledger.open(path)
    assert Path(path).read_bytes() == before


def test_a_million_tables_are_not_read(path: str) -> None:
    fill(path)
    tamper(path, "BEGIN", *(f"CREATE TABLE t{n}(a)" for n in range(4_000)), "COMMIT")
    with pytest.raises(LedgerError, match=r"damaged or not ours \(interrupted\)"):
        Ledger.open(path)


def test_a_schema_that_cannot_be_parsed_is_shown_without_its_escapes(path: str) -> None:
    fill(path)
    tamper(
        path,
        "PRAGMA writable_schema=ON",
        "UPDATE sqlite_master SET sql = 'CREATE TABLE \x1b]0;owned\x07 (' WHERE name = 'rows'",
    )
    with pytest.raises(LedgerError) as caught:
        Ledger.open(path)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE rows SET digest = 'text'",
        "UPDATE rows SET digest = 1e300",
        f"UPDATE rows SET digest = {2**31}",
        "UPDATE rows SET id = -id",
        "UPDATE rows SET code = 77",
        f"UPDATE rows SET bytes = {2**62}",
        "UPDATE rows SET bytes = 0.5",
        f"UPDATE rows SET seq = {2**63 - 1}",
        "UPDATE rows SET seq = x'00'",
        "UPDATE codes SET name = x'00'",
        f"UPDATE codes SET name = '{'x' * 5_000}'",
        "UPDATE codes SET name = CAST(x'ff' AS TEXT)",
        "UPDATE outputs SET position = -1",
        "UPDATE outputs SET position = 'here'",
        "UPDATE outputs SET tail = position + 1",
        f"UPDATE outputs SET checksum = {2**32}",
        "UPDATE outputs SET state = x'00'",
        "UPDATE outputs SET state = hex(zeroblob(9000000))",
        "UPDATE outputs SET copy = 'text'",
        "UPDATE outputs SET copy = x''",
        "UPDATE outputs SET copy = x'2f00'",
        "UPDATE outputs SET copy = 7",
        "UPDATE runs SET clean = 2",
        "UPDATE runs SET clean = 'yes'",
        "DELETE FROM meta",
        "UPDATE meta SET value = 'text'",
        "UPDATE meta SET value = zeroblob(17000000)",
        "INSERT INTO meta VALUES ('retrying', CAST('{' AS BLOB))",
        "INSERT INTO meta VALUES ('retrying', CAST('[1]' AS BLOB))",
    ],
)
def test_a_value_of_another_kind_is_refused(path: str, statement: str) -> None:
    fill(path)
    tamper(path, statement)
    with pytest.raises(LedgerError, match=r"damaged or not ours"):
        read_all(path)


HUGE = 100_000_000
LONG = {
    "value": f"UPDATE meta SET value = zeroblob({HUGE})",
    "key": f"INSERT INTO meta VALUES (CAST(zeroblob({HUGE}) AS TEXT), x'00')",
    "host": f"UPDATE hosts SET name = CAST(zeroblob({HUGE}) AS TEXT)",
    "code": f"UPDATE codes SET name = zeroblob({HUGE})",
    "state": f"UPDATE outputs SET state = CAST(zeroblob({HUGE}) AS TEXT)",
    "copy": f"UPDATE outputs SET copy = zeroblob({HUGE})",
    "run": f"UPDATE runs SET estimate = zeroblob({HUGE})",
    "batch": f"INSERT INTO batches VALUES (zeroblob({HUGE}), 1, 1)",
    "row": f"UPDATE rows SET digest = zeroblob({HUGE}) WHERE id = 3",
    "many": "WITH RECURSIVE n(i) AS (SELECT 9 UNION ALL SELECT i + 1 FROM n WHERE i < 100)"
    " INSERT INTO outputs SELECT i, x'61', 0, 0, 0, hex(zeroblob(500000)), NULL FROM n",
}
READ = """
import resource, sys
from fetcher.errors import LedgerError
from fetcher.job.report import report
from tests.test_ledger import read_all
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
try:
    read_all(sys.argv[1] + "/ledger.sqlite")
except LedgerError as error:
    print(error)
try:
    report(sys.argv[1])
except LedgerError:
    pass
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak is counted otherwise")
@pytest.mark.parametrize("what", LONG)
def test_a_value_longer_than_any_of_ours_is_refused_unread(what: str, path: str) -> None:
    fill(path)
    tamper(path, LONG[what])
    command = [sys.executable, "-c", READ, os.path.dirname(path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True, timeout=DEADLINE)
    said, grew = done.stdout.splitlines()
    assert "the ledger is damaged or not ours" in said
    assert int(grew) < 30_000, f"{grew} kB"


def test_a_note_too_long_is_refused_by_its_length(path: str) -> None:
    fill(path)
    tamper(path, f"INSERT INTO meta VALUES ('note parked', zeroblob({ledger_reader.MAX_NOTE_BYTES + 1}))")
    with looked_into(path) as opened, pytest.raises(LedgerError, match=r"note parked has 4,194,305 bytes"):
        opened.note("parked")


def test_what_reads_a_ledger_has_connections_that_cannot_write(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(path)
    asked: list[bool] = []

    def attach(path: str, *, write: bool, longest: int) -> sqlite3.Connection:
        asked.append(write)
        return schema.attach(path, write=write, longest=longest)

    with looked_into(path) as opened:
        monkeypatch.setattr(ledger_reader, "attach", attach)
        assert list(opened.order(["ok"])) != []
        connection = contextlib.closing(schema.attach(path, write=False))
        with connection as db, pytest.raises(sqlite3.OperationalError, match="readonly"):
            db.execute("DELETE FROM rows")
    assert set(asked) == {False}


def test_an_identity_that_is_no_blob_is_refused(path: str) -> None:
    fill(path)
    tamper(path, "UPDATE meta SET value = '{}' WHERE key = 'identity'")
    with pytest.raises(LedgerError, match="identity is no blob"):
        Ledger.open(path)


def test_more_codes_than_there_can_be_are_refused(path: str) -> None:
    """There are a thousand statuses and a few dozen codes of ours."""
    with begun(path) as made:
        made.commit([entry(n, f"x{n}") for n in range(1, 2_001)], [Mark()], so_far())
        assert len(made.tally().codes) == 2_000
        made.commit([entry(2_001, "x2001")], [Mark()], so_far())
        with pytest.raises(LedgerError, match="too many codes"):
            made.tally()


def test_batches_are_there_as_they_were_written(path: str) -> None:
    with begun(path, outputs=2) as made:
        ends = [(100, 5), (230, 6), (300, 7), (301, 2**32 - 1)]
        marks = [[Mark(end, 1, checksum), Mark(2 * end, 1, 9)] for end, checksum in ends]
        for number, pair in enumerate(marks, 1):
            made.commit([entry(number)], pair, so_far(number))
        made.commit([], marks[-1], so_far(4))
        whole = [Batch(0, 100, 5), Batch(100, 230, 6), Batch(230, 300, 7), Batch(300, 301, 2**32 - 1)]
        assert list(made.batches(0, marks[-1][0])) == whole
        assert [batch.end for batch in made.batches(1, marks[-1][1])] == [200, 460, 600, 602]
        for last, first in ((1, 3), (2, 2), (71, 2), (72, 1), (201, 1), (202, 0), (301, 0), (10**9, 0)):
            assert list(made.batches(0, marks[-1][0], last=last)) == whole[first:], last
        with pytest.raises(LedgerError, match="the batches of an output end otherwise than it does"):
            list(made.batches(0, Mark(300, 1, 7)))


def test_a_rewrite_has_batches_of_its_own(path: str) -> None:
    with begun(path) as made:
        for number in range(1, 4):
            made.commit([entry(number, "http_404" if number == 2 else "ok")], [Mark(9 * number, 9, number)], so_far())
        copy = [Batch(0, 10, 1), Batch(10, 18, 2)]
        made.begin_rewrite(["http_404"], [Mark(18, 8, 2)], ["copy"], batches=[copy])
        assert list(made.batches(0, made.marks()[0])) == copy
        made.commit([entry(2)], [Mark(27, 9, 3)], so_far())
        assert list(made.batches(0, made.marks()[0])) == [*copy, Batch(18, 27, 3)]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM batches",
        "DELETE FROM batches WHERE position = 2",
        "UPDATE batches SET checksum = -1",
        "UPDATE batches SET checksum = 'x' WHERE position = 1",
        "UPDATE batches SET checksum = 99 WHERE position = 2",
        "UPDATE batches SET position = 'x' WHERE position = 2",
        "UPDATE batches SET position = -position",
        "UPDATE outputs SET position = 3",
        "INSERT INTO batches VALUES (0, 3, 1)",
        "INSERT INTO batches VALUES (0, 1.5, 1)",
    ],
)
def test_batches_that_do_not_fit_are_refused(path: str, statement: str) -> None:
    with begun(path) as made:
        for number in (1, 2):
            made.commit([entry(number)], [Mark(number, 1, 7)], so_far(number))
        made.close()
    tamper(path, statement)
    with pytest.raises(LedgerError, match="damaged or not ours"), looked_into(path) as opened:
        list(opened.batches(0, opened.marks()[0]))


async def test_who_waits_for_rows_that_were_found_has_them_committed_soon(path: str) -> None:
    rules = Config.of(follow=True).follow
    Ledger.create(path, identity=IDENTITY, outputs=["a"], follow=True).close()
    told = 0

    def commit_soon() -> None:
        nonlocal told
        told += 1

    async def in_thread(act: Callable[[], Any]) -> Any:
        return act()

    with looked_into(path) as opened:
        opened.follow(rules)
        found = LedgerRows(rules, Stats(), ledger=opened, concurrency=4, in_thread=in_thread)
        found.commit_soon = commit_soon
        waiting = asyncio.ensure_future(found.change())
        await asyncio.sleep(0)
        assert told == 1
        found.settled(0, 0)
        await waiting
        found.close()


@pytest.mark.parametrize("second", [1, 2, "3"])
def test_rows_that_a_damaged_tree_gives_out_of_order_are_refused(
    path: str, second: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    with begun(path) as made:
        made.commit([entry(number) for number in (1, 2)], [Mark(2, 1, 7)], so_far(2))
        made.close()
    with looked_into(path) as opened:
        assert [row for row, _ in opened.finished()] == [1, 2]
        monkeypatch.setattr(opened, "_read", lambda *_: [(2, 0), (second, 0)])
        with pytest.raises(LedgerError, match="rows out of order"):
            list(opened.finished())


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced", "its folder deleted"])
def test_a_ledger_that_is_no_longer_in_its_place_takes_nothing(path: str, how: str) -> None:
    with begun(path) as made:
        made.commit([entry(1)], [Mark(1, 1, 7)], so_far(1))
        if how == "its folder deleted":
            shutil.rmtree(os.path.dirname(path))
        elif how == "deleted":
            os.unlink(path)
        else:
            os.rename(path, f"{path}.away")
            if how == "replaced":
                shutil.copy(f"{path}.away", path)
        acts: list[Callable[[], object]] = [
            lambda: made.commit([entry(2)], [Mark(2, 1, 7)], so_far(2)),
            lambda: made.end_run(so_far(2), exit=0),
        ]
        for act in acts:
            with pytest.raises(LedgerError) as caught:
                act()
            assert str(caught.value) == (
                f"{path}: another program has moved, replaced or deleted the ledger: what it knew is lost with it: "
                "put it back as it was, or begin again with --fresh"
            )
    if how in ("moved", "replaced"):
        os.replace(f"{path}.away", path)
        assert read_all(path)[0] == [Mark(1, 1, 7)], "put back, it goes on"


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM meta WHERE key = 'seen key'", "no place for rows that are found"),
        ("UPDATE meta SET value = x'00' WHERE key = 'seen key'", "no place for rows that are found"),
        ("INSERT INTO meta VALUES ('note following', x'7b')", "damaged or not ours"),
        (
            "INSERT INTO meta VALUES ('note following', CAST('{\"found\":1}' AS BLOB))",
            "1 rows were found, and the last is",
        ),
    ],
)
def test_what_is_known_of_rows_that_were_found_must_fit(path: str, statement: str, said: str) -> None:
    rules = Config.of(follow=True).follow
    Ledger.create(path, identity=IDENTITY, outputs=["a"], follow=True).close()
    with looked_into(path) as opened:
        assert opened.unfinished() == 0
        assert opened.follow(rules).state.found == 0
        assert opened.unfinished() == 0
        assert opened.found_rows(0, 10) == []
    tamper(path, statement)
    with looked_into(path) as opened, pytest.raises(LedgerError, match=said):
        opened.follow(rules)


def test_a_ledger_of_a_list_alone_has_no_rows_that_were_found(path: str) -> None:
    fill(path)
    with looked_into(path) as opened, pytest.raises(LedgerError, match="no place for rows that are found"):
        opened.follow(Config.of(follow=True).follow)


@pytest.mark.parametrize("checksum", [-1, 2**32, 2**40])
def test_a_batch_whose_checksum_is_none_is_refused(path: str, checksum: int) -> None:
    with begun(path) as made:
        made.commit([entry(1)], [Mark(1)], so_far(1))
        made.commit([entry(2)], [Mark(2, 1, 7)], so_far(2))
        made.close()
    tamper(path, f"UPDATE batches SET checksum = {checksum} WHERE position = 1")
    with looked_into(path) as opened, pytest.raises(LedgerError, match="where a number from 0 to 4294967295 belongs"):
        list(opened.batches(0, Mark(2, 1, 7)))


def test_one_copy_of_two_is_refused(path: str) -> None:
    with begun(path, outputs=2) as made:
        made.close()
    tamper(path, "UPDATE outputs SET copy = x'41' WHERE id = 1")
    with looked_into(path) as opened, pytest.raises(LedgerError, match="a rewrite of some outputs"):
        opened.pending_rewrite()


# Places


def test_a_missing_ledger_says_what_to_do(path: str) -> None:
    with pytest.raises(LedgerError, match=r"ledger\.sqlite: the ledger is missing: put it back, or begin again"):
        Ledger.open(path)
    assert not os.path.exists(path)


def linked(path: str) -> None:
    os.rename(path, f"{path}.elsewhere")
    os.symlink(f"{path}.elsewhere", path)


def piped(path: str) -> None:
    os.unlink(path)
    os.mkfifo(path)


def nested(path: str) -> None:
    os.unlink(path)
    os.mkdir(path)


@pytest.mark.parametrize(
    "spoil",
    [
        linked,
        lambda path: os.symlink(f"{path}.elsewhere", f"{path}-wal"),
        lambda path: os.symlink("/dev/zero", f"{path}-shm"),
        lambda path: os.mkfifo(f"{path}-wal"),
        piped,
        nested,
        lambda path: Path(f"{path}-journal").write_bytes(b"\xd9\xd5\x05\xf9 \xa1c\xd7" + b"/etc/passwd"),
    ],
)
def test_no_link_is_followed_and_nothing_but_files_opened(path: str, spoil: Callable[[str], object]) -> None:
    fill(path)
    spoil(path)
    with pytest.raises(LedgerError, match=f"{path}.*or begin again with --fresh"):
        Ledger.open(path)


def test_a_ledger_that_stands_is_not_overwritten(path: str) -> None:
    fill(path)
    with pytest.raises(LedgerError, match="there is a ledger"):
        Ledger.create(path, identity=IDENTITY, outputs=["a"])
    with looked_into(path) as opened:
        assert opened.last == 50


def test_what_an_interrupted_start_or_a_ledger_of_old_left_is_cleared(path: str) -> None:
    with begun(path) as made:
        made.commit([entry(1)], [Mark(1)], so_far(1))
        journal = Path(f"{path}-wal").read_bytes()
    os.unlink(path)
    Path(f"{path}-wal").write_bytes(journal)
    Path(f"{path}.new-journal").write_bytes(b"x")
    target = Path(path).parent / "target"
    target.write_text("mine")
    os.symlink(target, f"{path}.new")
    made = Ledger.create(path, identity=IDENTITY, outputs=["a"])
    assert made.last == 0
    made.close()
    assert target.read_text() == "mine"
    assert sorted(os.listdir(target.parent)) == ["ledger.sqlite", "target"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"nowhere/ledger\.sqlite.*No such file"):
        Ledger.create(str(tmp_path / "nowhere" / "ledger.sqlite"), identity=IDENTITY, outputs=["a"])


def test_a_journal_that_cannot_be_removed_is_told(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with begun(path) as made:
        made.commit([entry(1)], [Mark(1)], so_far(1))
        close = made.abandon

        def leave() -> None:
            close()
            Path(f"{path}-wal").touch()

        monkeypatch.setattr(made, "abandon", leave)
        with pytest.raises(LedgerError, match=r"ledger\.sqlite-wal: cannot be removed: .*nothing is lost"):
            made.close()


def test_a_ledger_is_no_larger_than_it_must_be_in_memory() -> None:
    assert ledger.CHECKPOINT_ROWS * 4_096 * 4 < 200_000_000  # a journal: four pages a row at the worst
