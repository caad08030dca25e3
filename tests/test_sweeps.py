"""A sample of the sweeps, and proof that they see what they look for."""

from __future__ import annotations

import gzip
import hashlib
import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Literal

import pytest

from tests.sweeps import kill, syscalls
from tests.sweeps.judge import Row, judge, reader_of
from tests.sweeps.refetched import costs_of
from tests.sweeps.site import Entry
from tests.sweeps.strace import Point, calls_of, missing, was_injected

ROWS = [Row(f"http://host/{number}", {None}) for number in range(1, 5)]


def line(number: int, url: str | None = None, error: str | None = None) -> bytes:
    return json.dumps({"id": number, "url": url or f"http://host/{number}", "error": error}).encode() + b"\n"


def packed(*members: Iterable[int]) -> bytes:
    return b"".join(gzip.compress(b"".join(map(line, member))) for member in members)


WHOLE = b"".join(map(line, range(1, 5)))
TABLE = b"id,url,title,error\r\n" + b"".join(b'%d,http://host/%d,"a\r\nb",\r\n' % (n, n) for n in range(1, 5))


@pytest.mark.parametrize(
    ("name", "data", "found"),
    [
        ("a.jsonl", WHOLE, (0, 0, 0, 0)),
        ("a.jsonl", b"", (4, 0, 0, 0)),
        ("a.jsonl", WHOLE[:-1], (1, 0, 1, 0)),
        ("a.jsonl", WHOLE + line(2) + line(2), (0, 2, 0, 0)),
        ("a.jsonl", WHOLE.replace(b"\n", b"", 1), (2, 0, 1, 0)),
        ("a.jsonl", WHOLE + b"\n", (0, 0, 1, 0)),
        ("a.jsonl", WHOLE + b"\0" * 512, (0, 0, 1, 0)),
        ("a.jsonl", WHOLE + line(5), (0, 0, 0, 1)),
        ("a.jsonl", line(1) + line(2, url="http://host/3") + line(3, error="dns_timeout"), (1, 0, 0, 2)),
        ("a.jsonl.gz", packed([1, 2], [3, 4]), (0, 0, 0, 0)),
        ("a.jsonl.gz", packed([1, 2], [3, 4])[:-1], (0, 0, 1, 0)),
        ("a.jsonl.gz", packed([1, 2], [3, 4]) + b"\0", (0, 0, 1, 0)),
        ("a.jsonl.gz", gzip.compress(WHOLE[:-9]) + gzip.compress(WHOLE[-9:]), (0, 0, 1, 0)),
        ("a.csv", TABLE, (0, 0, 0, 0)),
        ("a.csv", TABLE[:-2], (0, 0, 1, 0)),
        ("a.csv", TABLE + TABLE[:20], (0, 0, 1, 0)),
        ("a.csv", TABLE + b'4,"http', (0, 0, 2, 0)),
    ],
)
def test_the_judge_sees(name: str, data: bytes, found: tuple[int, ...], tmp_path: Path) -> None:
    """Found are what is lost, twice, torn and wrong."""
    path = tmp_path / name
    path.write_bytes(data)
    verdict = judge(path, ROWS)
    assert (verdict.lost, verdict.twice, verdict.torn, verdict.wrong) == found
    assert verdict.clean == (not any(found))


def test_zstandard_frames_are_read_to_their_end(tmp_path: Path) -> None:
    zstd = pytest.importorskip("backports.zstd")
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zstd.compress(line(1) + line(2)) + zstd.compress(line(3) + line(4)))
    assert judge(path, ROWS).clean
    path.write_bytes(path.read_bytes()[:-3])
    assert judge(path, ROWS).torn == 1


def test_the_judge_sees_what_is_wrong_with_bodies(tmp_path: Path) -> None:
    bodies, path = tmp_path / "bodies", tmp_path / "a.jsonl"
    (bodies / "ab").mkdir(parents=True)
    digest = "sha256:" + hashlib.sha256(b"one").hexdigest()
    record = {"id": 1, "url": ROWS[0].url, "error": None, "body_path": "ab/one.html.gz", "digest": digest}
    path.write_text(json.dumps(record) + "\n")
    assert judge(path, ROWS[:1], bodies=bodies).torn == 1
    body = bodies / "ab" / "one.html.gz"
    for data, torn in (
        (gzip.compress(b"one"), 0),
        (gzip.compress(b"one")[:-1], 1),
        (gzip.compress(b"two"), 1),
        (b"", 1),
    ):
        body.write_bytes(data)
        assert judge(path, ROWS[:1], bodies=bodies).torn == torn
    body.write_bytes(gzip.compress(b"one"))
    (bodies / ".incoming-0").mkdir()
    assert judge(path, ROWS[:1], bodies=bodies).torn == 1


def test_a_database_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE pages(id, url, error)")
        db.executemany("INSERT INTO pages VALUES (?, ?, NULL)", [(n, f"http://host/{n}") for n in (1, 2, 3, 4)])
    assert judge(path, ROWS).clean
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE pages SET id = 3 WHERE id = 4")
    verdict = judge(path, ROWS)
    assert (verdict.lost, verdict.twice, verdict.wrong) == (1, 1, 1)
    path.write_bytes(path.read_bytes()[:-4096])
    assert judge(path, ROWS).torn


def test_an_output_that_is_not_there_has_lost_all(tmp_path: Path) -> None:
    assert judge(tmp_path / "a.csv", ROWS).lost == 4


def test_a_format_without_a_reader_is_named() -> None:
    with pytest.raises(KeyError, match="no reader"):
        reader_of(Path("a.docx"))


def test_a_kill_is_charged_with_what_is_asked_again() -> None:
    first = [Entry(t, came, row) for row in range(1, 6) for t, came in ((0.1 * row, True), (0.1 * row + 0.05, False))]
    later = [Entry(4.0, True, 6), Entry(4.1, False, 6), Entry(4.9, True, 7)]
    resumed = [Entry(6.0, True, 7), Entry(6.1, False, 7), Entry(6.2, True, 6), Entry(6.3, True, 6)]
    again = [Entry(8.0, True, 1), Entry(8.1, True, 6), Entry(8.2, True, 8)]
    costs = costs_of([*first, *later, *resumed, *again], [(0.0, 5.0), (5.5, 7.0), (7.5, 9.0)], 2)
    # Row 1 was asked for by the first run and again by the third; its answer was too early to be allowed for.
    assert [cost.refetched for cost in costs] == [3, 1, 0]
    assert [cost.allowed for cost in costs] == [3, 3, 2]


TRACE = """\
12  openat(AT_FDCWD</home>, "/x/swept/a.job/ledger", O_RDWR|O_CREAT, 0644) = 3</x/swept/a.job/ledger>
12  openat(AT_FDCWD</home>, "/x/swept/a.job", O_RDONLY|O_CLOEXEC) = 4</x/swept/a.job>
13  pwrite64(3</x/swept/a.job/ledger>, ""..., 24, 0) = 24
13  pwrite64(3</x/swept/a.job/ledger>, ""..., 24, 0 <unfinished ...>
12  write(2</x/home/err>, ""..., 4) = 4
13  <... pwrite64 resumed>) = 24
12  pwrite64(3</x/swept/a.job/ledger>, ""..., 24, 0) = 24
12  rename("/x/swept/a.job/copy", "/x/swept/a") = 0
12  fsync(5</x/swept>) = 0
"""


def test_the_calls_of_a_run_are_counted_by_file_and_thread() -> None:
    assert calls_of(TRACE, Path("/x/swept")) == {
        ("a.job/ledger", "openat"): 1,
        ("a.job", "openat"): 1,
        ("a.job/ledger", "pwrite64"): 2,
        ("a.job/copy", "rename"): 1,
        ("a", "rename"): 1,
        ("", "fsync"): 1,
    }


def test_a_run_that_ends_before_its_point_is_seen() -> None:
    assert was_injected(TRACE, Point("a.job/ledger", "pwrite64", 2), "KILL")
    assert not was_injected(TRACE, Point("a.job/ledger", "pwrite64", 3), "KILL")
    assert not was_injected(TRACE, Point("a.job/ledger", "pwrite64", 2), "EIO")


def test_a_sample_of_the_kills(tmp_path: Path) -> None:
    jobs = kill.sweep(6, ground=tmp_path, rows=500)
    assert [trouble for job in jobs for trouble in job.troubles] == [], kill.report(jobs)
    assert sum(len(job.kills) for job in jobs) == 6


def test_a_sample_of_the_kills_with_bodies(tmp_path: Path) -> None:
    jobs = kill.sweep(4, ground=tmp_path, rows=500, suffixes=["jsonl", "csv"], bodies=True)
    assert [trouble for job in jobs for trouble in job.troubles] == [], kill.report(jobs)
    assert sum(len(job.kills) for job in jobs) == 4


@pytest.mark.parametrize("victim", ["worker", "both"])
def test_a_sample_of_the_kills_with_workers(victim: Literal["worker", "both"], tmp_path: Path) -> None:
    jobs = kill.sweep(4, ground=tmp_path, rows=500, suffixes=["jsonl", "parquet"], workers=2, victim=victim)
    assert [trouble for job in jobs for trouble in job.troubles] == [], kill.report(jobs)
    assert sum(len(job.kills) + job.workers for job in jobs) == 4


def test_a_sample_of_the_calls_with_bodies(tmp_path: Path) -> None:
    if why := missing():
        pytest.skip(why)
    trials = syscalls.sweep(tmp_path, sample=7, at_once=2, bodies=True)
    assert [trial for trial in trials if trial.troubles] == [], syscalls.report(trials)
    assert len(trials) >= 4


def test_a_sample_of_the_calls(tmp_path: Path) -> None:
    if why := missing():
        pytest.skip(why)
    trials = syscalls.sweep(tmp_path, sample=7, at_once=2)
    assert [trial for trial in trials if trial.troubles] == [], syscalls.report(trials)
    assert len(trials) >= 4


def test_a_sample_of_the_calls_on_what_else_a_job_keeps(tmp_path: Path) -> None:
    if why := missing():
        pytest.skip(why)
    trials = syscalls.sweep(tmp_path, scenarios=syscalls.FURTHER, only=r"since|list\.jsonl", sample=5, at_once=2)
    assert [trial for trial in trials if trial.troubles] == [], syscalls.report(trials)
    assert len(trials) >= 4


def test_a_failure_is_borne_where_it_is_sqlites_own() -> None:
    aim = syscalls.Aim("fresh", "sqlite", "EIO", Point("", "openat", 1))
    line = '7  openat(AT_FDCWD, "/x", O_RDONLY|{}O_CLOEXEC) = -1 EIO (Input/output error) (INJECTED)\n'
    assert syscalls.may_be_borne(aim, line.format(""))
    assert not syscalls.may_be_borne(aim, line.format("O_DIRECTORY|"))
    assert not syscalls.may_be_borne(aim._replace(suffix="jsonl"), line.format(""))
    for point, borne in (
        (Point("", "fdatasync", 1), True),
        (Point("", "fsync", 1), False),
        (Point("pages.sqlite", "fdatasync", 1), False),
        (Point("pages.sqlite-wal", "unlink", 1), True),
        (Point("pages.sqlite-wal", "fdatasync", 1), False),
        (Point("pages.sqlite.job/ledger.sqlite-wal", "unlink", 1), False),
    ):
        assert syscalls.may_be_borne(aim._replace(point=point), "") is borne, point
