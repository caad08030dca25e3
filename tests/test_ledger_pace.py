"""``pace``: how far each run of a job was at its commits, a bounded number of rows however long the job lasts."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from fetcher.errors import LedgerError
from fetcher.job.ledger import Ledger, RunProgress
from fetcher.job.pace import MAX_PACE_ROWS, TABLE, PaceLog, PaceRow, too_many
from fetcher.job.report import JobSnapshot, report
from fetcher.job.schema import FOLLOW_FORMAT, FORMAT
from fetcher.sinks.job_output import Mark
from tests.lab.command import Running
from tests.lab.desk import Desk
from tests.lab.ledger_rows import entry, so_far
from tests.lab.server import LabServer

BEGAN = 1_700_000_000.0


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread(hosts=4) as server:
        yield server


@pytest.fixture
def desk(lab: LabServer, tmp_path: Path) -> Desk:
    return Desk(lab, tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pages.jsonl.job"
    made.mkdir()
    return made


def begun(folder: Path, *, follow: bool = False) -> Ledger:
    made = Ledger.create(str(folder / "ledger.sqlite"), identity=b"{}", outputs=["pages.jsonl"], follow=follow)
    made.begin_run(BEGAN)
    return made


def moment(seconds: float, *, at: float = BEGAN, on_wire: int = 0) -> RunProgress:
    return msgspec.structs.replace(so_far(), seconds=seconds, at=at, on_wire=on_wire)


def pace_of(folder: Path) -> list[PaceRow] | None:
    with JobSnapshot(str(folder)) as view:
        return view.pace()


def known(folder: Path) -> list[PaceRow]:
    rows = pace_of(folder)
    assert rows is not None
    return rows


def test_each_commit_says_how_far_its_run_is(folder: Path) -> None:
    ledger = begun(folder)
    rows = [entry(1, bytes=7), entry(2, "timeout", bytes=None), entry(3, "duplicate", bytes=None), entry(4, bytes=5)]
    ledger.commit(rows, [Mark(1)], moment(1.5, at=BEGAN + 1.5, on_wire=3))
    ledger.commit([entry(5, "http_404", bytes=2)], [Mark(2)], moment(2.5, at=BEGAN + 2.5))
    ledger.end_run(so_far(5), exit=0)
    ledger.close()
    assert known(folder) == [
        PaceRow(1, BEGAN + 1.5, 1.5, 2, 1, 1, 12, 3),
        PaceRow(1, BEGAN + 2.5, 2.5, 2, 2, 1, 14, 0),
    ]


def test_a_run_counts_for_itself_and_a_clock_set_back_moves_no_second(folder: Path) -> None:
    path = str(folder / "ledger.sqlite")
    begun(folder).abandon()  # killed before its first commit
    with closing(Ledger.open(path)) as ledger:
        ledger.begin_run(BEGAN + 9)
        ledger.commit([entry(1)], [Mark(1)], moment(1.0, at=BEGAN + 10))
        ledger.commit([entry(2)], [Mark(2)], moment(2.0, at=BEGAN - 86_400))
        ledger.abandon()
    with closing(Ledger.open(path)) as ledger:
        ledger.begin_run(BEGAN - 86_000)
        ledger.commit([entry(3)], [Mark(3)], moment(0.5, at=-5.0))
    assert [(row.run, row.at, row.seconds, row.ok) for row in known(folder)] == [
        (2, BEGAN + 10, 1.0, 1),
        (2, BEGAN - 86_400, 2.0, 2),
        (3, 0.0, 0.5, 1),  # a clock before 1970 is no time
    ]


def days_of_commits(days: int, every: int) -> list[tuple[int, float]]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.execute(TABLE)
        db.execute("CREATE TABLE runs(seconds REAL NOT NULL)")
        log = PaceLog(db, 1)
        most = 0
        for second in range(0, days * 86_400, every):
            log.note(BEGAN, float(second), (1, 0, 0, 10), 0)
            if second % 8_640 == 0:
                most = max(most, db.execute("SELECT count(*) FROM pace").fetchone()[0])
        assert most <= MAX_PACE_ROWS
        return list(db.execute("SELECT ok, seconds FROM pace ORDER BY id"))


def test_days_take_no_more_rows_than_an_hour_and_are_told_evenly() -> None:
    rows = days_of_commits(3, 3)
    assert MAX_PACE_ROWS // 3 < len(rows) <= MAX_PACE_ROWS
    assert rows[-1] == (86_400, 86_400 * 3.0 - 3)  # the sum is whole
    gaps = [later[1] - earlier[1] for earlier, later in pairwise(rows)]
    mean = sum(gaps) / len(gaps)
    assert max(gaps) < 3 * mean  # no hour is without


def test_runs_without_number_are_bounded_too() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.execute(TABLE)
        db.execute("CREATE TABLE runs(seconds REAL NOT NULL)")
        for run in range(1, 2 * MAX_PACE_ROWS):
            PaceLog(db, run).note(BEGAN + run, 0.5, (1, 0, 0, 1), 1)
        (many, last) = db.execute("SELECT count(*), max(run) FROM pace").fetchone()
    assert many <= MAX_PACE_ROWS
    assert last == 2 * MAX_PACE_ROWS - 1


def test_a_table_is_filled_before_any_row_goes() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.execute(TABLE)
        db.execute("CREATE TABLE runs(seconds REAL NOT NULL)")
        log = PaceLog(db, 1)
        for second in range(MAX_PACE_ROWS):
            log.note(BEGAN, float(second), (1, 0, 0, 1), 1)
        assert db.execute("SELECT count(*) FROM pace").fetchone() == (MAX_PACE_ROWS,)


def test_of_as_many_runs_as_half_a_table_takes_all_are_told() -> None:
    runs = [(number, number, 0.5) for number in range(1, MAX_PACE_ROWS // 2 + 2)]
    assert too_many(runs, 10.0) == []
    assert len(too_many([*runs, (0, 0, 0.5)], 10.0)) > 1


def test_which_rows_go() -> None:
    rows = [(1, 1, 0.1), (2, 1, 1.0), (3, 1, 2.0), (4, 1, 3.0), (5, 1, 3.1), (6, 2, 0.2), (7, 2, 5.0)]
    assert too_many(rows, 2.0) == [1, 2, 4, 6]
    assert too_many(rows, 0.0) == []
    assert too_many([], 1.0) == []


@pytest.mark.parametrize("runs", [MAX_PACE_ROWS // 2 + extra for extra in (1, 2, 3, 2_000, 2_501, 2_502, 2_505)])
def test_of_more_runs_some_are_told_the_last_among_them(runs: int) -> None:
    rows = [(number, number, 0.5) for number in range(1, runs + 1)]
    gone = too_many(rows, 10.0)
    stays = [row for row, *_ in rows if row not in set(gone)]
    assert len(gone) + len(stays) == runs
    assert MAX_PACE_ROWS // 5 < len(stays) <= MAX_PACE_ROWS // 2 + 1
    assert stays[-1] == runs
    assert max(after - before for before, after in pairwise(stays)) <= 8


# A ledger of an older version


def made_old(folder: Path, version: int) -> None:
    with closing(sqlite3.connect(folder / "ledger.sqlite", isolation_level=None)) as db:
        db.execute("DROP TABLE pace")
        db.execute(f"PRAGMA user_version={version}")


@pytest.mark.parametrize(("version", "ours"), [(3, FORMAT), (4, FOLLOW_FORMAT)])
def test_an_older_ledger_says_that_it_is_not_known_and_its_next_run_notes_it(
    folder: Path, version: int, ours: int
) -> None:
    ledger = begun(folder, follow=version == 4)
    ledger.commit([entry(1)], [Mark(1)], moment(1.0))
    ledger.end_run(so_far(1), exit=0)
    ledger.close()
    before = report(str(folder))
    made_old(folder, version)
    assert pace_of(folder) is None
    assert report(str(folder)) == before
    path = str(folder / "ledger.sqlite")
    Ledger.open(path).close()  # a command that is refused begins no run, and changes nothing
    assert pace_of(folder) is None
    with closing(Ledger.open(path)) as again:
        again.begin_run(BEGAN)
        again.commit([entry(2)], [Mark(2)], moment(1.0))
    assert [(row.run, row.ok) for row in known(folder)] == [(2, 1)]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (ours,)


def test_a_table_that_is_not_of_the_ledgers_version_is_damage(folder: Path) -> None:
    begun(folder).close()
    with closing(sqlite3.connect(folder / "ledger.sqlite", isolation_level=None)) as db:
        db.execute("DROP TABLE pace")
    with pytest.raises(LedgerError, match="damaged or not ours"):
        pace_of(folder)


@pytest.mark.parametrize(
    "value", ["-1", "'x'", "NULL + 1", "zeroblob(100000000)", "1e300"], ids=["less", "text", "null", "long", "far"]
)
def test_absurd_figures_are_damage(folder: Path, value: str) -> None:
    ledger = begun(folder)
    ledger.commit([entry(1)], [Mark(1)], moment(1.0))
    ledger.close()
    with closing(sqlite3.connect(folder / "ledger.sqlite", isolation_level=None)) as db:
        try:
            db.execute(f"UPDATE pace SET seconds = {value}")
        except sqlite3.IntegrityError:
            return
    with pytest.raises(LedgerError, match="damaged or not ours"):
        pace_of(folder)


# Real runs


def sums(rows: list[PaceRow]) -> tuple[int, int, int]:
    last = {row.run: row for row in rows}.values()
    return sum(row.ok for row in last), sum(row.failed for row in last), sum(row.bytes for row in last)


def test_a_job_that_was_killed_and_gone_on_with_adds_up(desk: Desk) -> None:
    gate = desk.hold()
    desk.write([*desk.urls(*range(20)), desk.lab.url("/status/404?n=x"), *desk.urls(*"abc", path="/held")])
    with Running("crawl", "l.txt", "-o", "pages.jsonl", "--retries", "0", folder=desk.folder) as crawl:
        desk.until_asked(times=3)
        desk.until_written(21)
        crawl.send(signal.SIGKILL)
        crawl.end()
    gate.open()
    killed = known(desk.folder / "pages.jsonl.job")
    assert sums(killed)[:2] == (20, 1)
    assert max(row.on_wire for row in killed) >= 3
    assert desk.crawl().code == 0
    rows = known(desk.folder / "pages.jsonl.job")
    assert rows[: len(killed)] == killed
    assert {row.run for row in rows} == {1, 2}
    told = report(str(desk.folder / "pages.jsonl.job"))
    assert sums(rows) == (told.ok, told.failed, told.bytes)
    assert rows[-1].on_wire == 0


def test_workers_have_their_requests_on_the_wire_counted(desk: Desk) -> None:
    gate = desk.hold()
    held = [desk.lab.url(f"/held?n={n}", 1 + n % 4) for n in range(8)]
    ok = [desk.lab.url(f"/ok?n={n}", 1 + n % 4) for n in range(200)]
    desk.write([*ok, *held])  # a host that has answered is asked by several connections
    folder = desk.folder / "pages.jsonl.job"
    with Running(*desk.words("--workers", "2", "--per-host", "4"), folder=desk.folder) as crawl:
        desk.until_asked(times=8)
        desk.until_written(200)
        gate.open()
        assert crawl.end().code == 0
    rows = known(folder)
    assert sums(rows)[:2] == (208, 0)
    assert max(row.on_wire for row in rows) >= 4
    assert rows[-1].on_wire == 0


def test_each_shard_notes_its_own(desk: Desk) -> None:
    desk.write([desk.lab.url(f"/ok?n={n}", 1 + n % 4) for n in range(40)])
    done = 0
    for shard in ("1/2", "2/2"):
        to = f"{shard[0]}.jsonl"
        assert desk.crawl("--shard", shard, to=to).code == 0
        done += sums(known(desk.folder / f"{to}.job"))[0]
    assert done == 40
