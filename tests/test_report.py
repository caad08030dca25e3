"""A job looked at from outside: at rest, while it is written, killed, damaged, and made by a stranger."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest

from fetcher.config import Config
from fetcher.errors import ConfigError, LedgerError
from fetcher.hosts.state import HostReport
from fetcher.job import report as job_report
from fetcher.job.host_memory import TROUBLED
from fetcher.job.identity import JobIdentity
from fetcher.job.ledger import Ledger, LedgerRow, RunProgress
from fetcher.job.opening import Lock
from fetcher.job.report import JobReport, JobSnapshot, report
from fetcher.job.shards import report_shards
from fetcher.sinks.durable import Mark
from fetcher.sources import ListOptions
from fetcher.spawn import environment
from tests.lab.open_files import open_files

BEGAN = 1_700_000_000.0


def entry(
    row: int, code: str = "ok", *, host: str = "a.example", elapsed: float = 0.25, attempts: int = 1
) -> LedgerRow:
    return LedgerRow(row, 0, code, 200 if code == "ok" else None, 10, elapsed, attempts, host)


def so_far(
    taken: int, *, more: bool = False, seconds: float = 2.0, ok: int = 0, estimate: int | None = None
) -> RunProgress:
    return RunProgress(taken, more=more, estimate=estimate, seconds=seconds, ok=ok, bytes=0)


def begin(folder: Path, outputs: Sequence[str] = ("pages.jsonl",)) -> Ledger:
    """Make a job whose first run goes on."""
    folder.mkdir(exist_ok=True)
    made = Ledger.create(str(folder / "ledger.sqlite"), identity=b"{}", outputs=outputs)
    made.begin_run(BEGAN)
    return made


def write(ledger: Ledger, entries: Sequence[LedgerRow], progress: RunProgress, position: int = 0) -> None:
    ledger.commit(entries, [Mark(position, min(position, 10), 1)] * len(ledger.marks()), progress)


def end(ledger: Ledger, progress: RunProgress, code: int | None = 0) -> None:
    ledger.end_run(progress, exit=code)
    ledger.close()


def make_job(folder: Path, entries: Sequence[LedgerRow], progress: RunProgress | None = None) -> None:
    """Make a job of one run that has ended in good order."""
    ledger = begin(folder)
    done = progress or so_far(len(entries), ok=sum(entry.code == "ok" for entry in entries))
    write(ledger, entries, done, position=500)
    end(ledger, done)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "pages.jsonl.job"


def told(folder: Path, **options: Any) -> JobReport:
    return report(str(folder), **options)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# How a job stands


def test_a_complete_job(folder: Path) -> None:
    codes = ["ok"] * 6 + ["http_404", "http_404", "dns_not_found", "robots_denied"]
    make_job(folder, [entry(row, code) for row, code in enumerate(codes, 1)])
    seen = told(folder)
    assert (seen.state, seen.pid, seen.left) == ("complete", None, 0)
    assert (seen.input, seen.done, seen.ok, seen.failed, seen.skipped, seen.pending) == (10, 10, 6, 3, 1, 0)
    assert seen.codes == {"http_404": 2, "dns_not_found": 1, "robots_denied": 1}
    assert next(iter(seen.codes)) == "http_404"
    assert (seen.bytes, seen.seconds, seen.pages_per_second, seen.last_pages_per_second) == (100, 2.0, 3.0, 3.0)
    assert [(output.path, output.position) for output in seen.outputs] == [("pages.jsonl", 500)]
    (run,) = seen.runs
    assert (run.number, run.began, run.ok, run.clean, run.exit) == (1, "2023-11-14T22:13:20Z", 6, True, 0)


def test_an_empty_list_is_complete(folder: Path) -> None:
    make_job(folder, [])
    seen = told(folder)
    assert (seen.state, seen.done, seen.left, seen.hosts, seen.slowest, seen.failing) == ("complete", 0, 0, 0, [], [])


def test_a_job_that_is_worked_on(folder: Path) -> None:
    ledger = begin(folder)
    lock = Lock(str(folder))
    lock.acquire()
    before = told(folder)
    assert (before.state, before.pid, before.done, before.more, before.left) == ("running", os.getpid(), 0, True, None)
    assert (before.input, before.pending) == (0, 0)
    write(ledger, [entry(row) for row in range(1, 11)], so_far(25, more=True, ok=10, estimate=1_000))
    meanwhile = told(folder)
    assert (meanwhile.state, meanwhile.pid) == ("running", os.getpid())
    assert (meanwhile.input, meanwhile.done, meanwhile.pending, meanwhile.left) == (25, 10, 15, 990)
    assert meanwhile.last_pages_per_second == 5.0
    end(ledger, so_far(10, ok=10))
    lock.release()
    assert (told(folder).state, told(folder).pid) == ("complete", None)


def test_what_cannot_be_looked_at_is_not_left_open(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_job(folder, [entry(1)])

    def broken(path: str, doing: str) -> NoReturn:
        assert open_files(folder) != []
        raise LedgerError(f"{path}: cannot be {doing}")

    monkeypatch.setattr(job_report, "explained", broken)
    with pytest.raises(LedgerError, match="cannot be read"):
        JobSnapshot(str(folder)).__enter__()
    assert open_files(folder) == []


def test_looking_leaves_the_lock_to_the_next_run(folder: Path) -> None:
    make_job(folder, [entry(1)])
    lock = Lock(str(folder))
    lock.acquire()
    lock.release()
    with JobSnapshot(str(folder)):
        lock.acquire()
        lock.release()


def test_a_lock_without_a_number_is_held_all_the_same(folder: Path) -> None:
    make_job(folder, [entry(1)])
    lock = Lock(str(folder))
    lock.acquire()
    (folder / "lock").write_text("\x1b[31m\n")
    assert (told(folder).state, told(folder).pid) == ("running", None)
    lock.release()


def test_a_lock_that_cannot_be_read_is_held_all_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_job(folder, [entry(1)])
    lock = Lock(str(folder))
    lock.acquire()

    def broken(*_: int) -> NoReturn:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "read", broken)
    assert (told(folder).state, told(folder).pid) == ("running", None)
    lock.release()


@pytest.mark.skipif(os.name != "posix", reason="FIFOs are POSIX's")
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path), os.mkdir])
def test_what_stands_in_the_place_of_a_lock_is_left_alone(make: Callable[[Path], None], folder: Path) -> None:
    make_job(folder, [entry(1)])
    make(folder / "lock")
    assert told(folder).state == "complete"


@pytest.mark.parametrize(
    ("progress", "left"),
    [
        (so_far(20), 12),
        (so_far(20, more=True), None),
        (so_far(20, more=True, estimate=100), 92),
        (so_far(20, more=True, estimate=9), 12),  # it was estimated too low
        (so_far(20, estimate=100), 12),  # the list was read to its end
    ],
)
def test_what_is_left(progress: RunProgress, left: int | None, folder: Path) -> None:
    make_job(folder, [entry(row) for row in range(1, 9)], progress)
    seen = told(folder)
    assert (seen.state, seen.left, seen.pending) == ("stopped", left, 12)


def test_a_run_that_has_not_committed_says_what_the_one_before_said(folder: Path) -> None:
    ledger = begin(folder)
    write(ledger, [entry(1), entry(2)], so_far(10, ok=2))
    ledger.begin_run(BEGAN + 60)
    ledger.abandon()
    seen = told(folder)
    assert (seen.state, seen.input, seen.pending, seen.more) == ("interrupted", 10, 8, False)
    assert [(run.ok, run.clean) for run in seen.runs] == [(2, False), (0, False)]


@pytest.mark.parametrize(("taken", "told_of"), [(2, (10, 8, False)), (3, (3, 1, True))])
def test_a_run_that_read_nothing_of_the_list_says_what_the_one_before_said(
    taken: int, told_of: tuple[int, int, bool], folder: Path
) -> None:
    """Two rows have their outcome: who has taken no more has read nothing, and one row more is the list's."""
    ledger = begin(folder)
    write(ledger, [entry(1), entry(2)], so_far(10, ok=2))
    ledger.begin_run(BEGAN + 60)
    end(ledger, so_far(taken, more=True), code=2)
    seen = told(folder)
    assert (seen.input, seen.pending, seen.more) == told_of


def test_all_runs_and_the_last(folder: Path) -> None:
    ledger = begin(folder)
    write(ledger, [entry(1), entry(2)], so_far(4, seconds=1.0, ok=2))
    ledger.begin_run(BEGAN + 60)
    write(ledger, [entry(3), entry(4)], so_far(4, seconds=4.0, ok=2))
    end(ledger, so_far(4, seconds=4.0, ok=2), code=None)
    seen = told(folder)
    assert (seen.run_count, seen.seconds, seen.pages_per_second, seen.last_pages_per_second) == (2, 5.0, 0.8, 0.5)
    assert [run.exit for run in seen.runs] == [None, None]


def test_a_retry_is_told(folder: Path) -> None:
    ledger = begin(folder)
    write(ledger, [entry(1), entry(2, "http_503"), entry(3, "http_503")], so_far(3, ok=1))
    assert ledger.begin_rewrite(["http_503"], [Mark(10, 10, 1)], ["copy"]) == 2
    ledger.end_rewrite()
    ledger.abandon()
    seen = told(folder)
    assert (seen.state, seen.retrying, seen.done, seen.left, seen.codes) == ("interrupted", ["http_503"], 1, 2, {})


# Hosts


def test_hosts_by_their_mean_and_by_their_failures(folder: Path) -> None:
    rows = {
        "fast.example": [("ok", 0.1, 1)] * 5,
        "slow.example": [("ok", 4.0, 1)] * 4 + [("read_timeout", 9.0, 3)],
        "few.example": [("http_500", 60.0, 1)] * 4,  # too few for a mean
        "shut.example": [("robots_denied", 0.0, 0)] * 9,  # nothing was tried, nothing failed
        "half.example": [("ok", 2.0, 1)] * 5 + [("robots_denied", 0.0, 0)] * 5,
        "": [("invalid_url", 0.0, 0)] * 2,
    }
    flat = [(host, *row) for host, table in rows.items() for row in table]
    make_job(
        folder,
        [
            entry(number, code, host=host, elapsed=elapsed, attempts=attempts)
            for number, (host, code, elapsed, attempts) in enumerate(flat, 1)
        ],
    )
    seen = told(folder)
    assert seen.hosts == 6
    assert [(host.host, host.elapsed, host.rows) for host in seen.slowest] == [
        ("slow.example", 5.0, 5),
        ("half.example", 2.0, 10),
        ("fast.example", 0.1, 5),
    ]
    assert [(host.host, host.failed) for host in seen.failing] == [("few.example", 4), ("", 2), ("slow.example", 1)]
    few = told(folder, hosts=1)
    assert ([host.host for host in few.slowest], [host.host for host in few.failing]) == (
        ["slow.example"],
        ["few.example"],
    )


# Beside a writer


def make_shard(
    folder: Path,
    number: int,
    entries: Sequence[LedgerRow],
    *,
    listed: str = "l.txt",
    troubled: Sequence[HostReport] = (),
    taken: int | None = None,
) -> str:
    """Make the job of one of two shards of a list, which has ended."""
    identity = JobIdentity.of(
        Config.of(shard=f"{number}/2"), inputs=[listed], list_options=ListOptions(), outputs=["jsonl"], extract=None
    )
    folder.mkdir()
    made = Ledger.create(str(folder / "ledger.sqlite"), identity=identity.to_json(), outputs=["pages.jsonl"])
    made.begin_run(BEGAN)
    made.commit(entries, [Mark()], so_far(len(entries)), {TROUBLED: msgspec.json.encode(troubled)})
    end(made, so_far(len(entries) if taken is None else taken))
    return str(folder)


def test_what_is_left_of_all_shards_is_a_sum(tmp_path: Path) -> None:
    folders = [make_shard(tmp_path / str(n), n, [entry(n)], taken=taken) for n, taken in ((1, 4), (2, 6))]
    assert report_shards(folders, hosts=1).left == 8
    assert report_shards(folders[:1], hosts=1).left is None  # who knows what the others have


def test_the_shards_run_as_long_as_one_of_them_does(tmp_path: Path) -> None:
    folders = [make_shard(tmp_path / str(n), n, [entry(n)]) for n in (1, 2)]
    assert report_shards(folders[:1], hosts=1).state == "stopped"  # who knows how the other one ended
    lock = Lock(folders[1])
    lock.acquire()
    assert report_shards(folders, hosts=1).state == "running"
    lock.release()
    assert report_shards(folders, hosts=1).state == "complete"


def test_the_hosts_of_all_shards_come_in_one_order(tmp_path: Path) -> None:
    first = [entry(row, "http_500" if row < 3 else "ok", host="a.example", elapsed=1.0) for row in range(1, 21)]
    second = [entry(row, host="b.example", elapsed=3.0) for row in range(21, 41)]
    second += [entry(row, "http_500", host="c.example", elapsed=2.0) for row in range(41, 61)]
    folders = [make_shard(tmp_path / "2", 2, second), make_shard(tmp_path / "1", 1, first)]
    sums = report_shards(folders, hosts=9)
    assert [host.host for host in sums.slowest] == ["b.example", "c.example", "a.example"]
    assert [host.host for host in sums.failing] == ["c.example", "a.example"]
    assert [host.host for host in report_shards(folders, hosts=1).slowest] == ["b.example"]
    assert [shard.shard for shard in sums.shards] == ["1/2", "2/2"]


def test_the_troubles_of_all_shards_come_in_one_order(tmp_path: Path) -> None:
    first = [HostReport("slow", slow=3), HostReport("refused", refused=1)]
    second = [HostReport("all", 9, 2, 1, 1, 1), HostReport("denied", denied=4), HostReport("failed", failed=2)]
    folders = [make_shard(tmp_path / str(n), n, [], troubled=told) for n, told in ((1, first), (2, second))]
    found = [host.host for host in report_shards(folders, hosts=9).troubled]
    assert found == ["all", "denied", "slow", "failed", "refused"]
    assert [host.host for host in report_shards(folders, hosts=2).troubled] == ["all", "denied"]


def test_two_shards_of_two_lists_are_not_added_up(tmp_path: Path) -> None:
    folders = [make_shard(tmp_path / "1", 1, []), make_shard(tmp_path / "2", 2, [], listed="m.txt")]
    with pytest.raises(ConfigError, match=r"\(shard 2/2\) is of another list than .*\(shard 1/2\): INPUT 1 is m\.txt"):
        report_shards(folders, hosts=1)
    assert report_shards(folders[:1], hosts=1).missing == ["2/2"]


@pytest.mark.parametrize("share", [b"1/x", b"x/2", b"1/"])
def test_a_damaged_share_is_no_shard(share: bytes, tmp_path: Path) -> None:
    folder = make_shard(tmp_path / "1", 1, [])
    with closing(sqlite3.connect(tmp_path / "1" / "ledger.sqlite", isolation_level=None)) as db:
        (identity,) = db.execute("SELECT value FROM meta WHERE key = 'identity'").fetchone()
        db.execute("UPDATE meta SET value = ? WHERE key = 'identity'", (identity.replace(b"1/2", share),))
    with pytest.raises(ConfigError, match="1 is no shard of a list"):
        report_shards([folder], hosts=1)


def test_of_very_many_outputs_the_first_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fetcher.job.report.MAX_OUTPUTS", 2)
    ledger = begin(folder, ["a.jsonl", "b.jsonl", "c.jsonl"])
    write(ledger, [entry(1)], so_far(1, ok=1), position=500)
    end(ledger, so_far(1, ok=1))
    assert [(output.path, output.position) for output in told(folder).outputs] == [("a.jsonl", 500), ("b.jsonl", 500)]


def test_a_view_is_of_one_moment(folder: Path) -> None:
    ledger = begin(folder)
    write(ledger, [entry(1)], so_far(1, ok=1))
    with JobSnapshot(str(folder)) as seen:
        write(ledger, [entry(2, host="b.example")], so_far(2, ok=2))
        assert (seen.tally().ok, seen.hosts(10).count, seen.all_runs().ok) == (1, 1, 1)
    assert told(folder).ok == 2
    ledger.abandon()


def test_a_run_may_end_while_somebody_looks(folder: Path) -> None:
    ledger = begin(folder)
    write(ledger, [entry(1)], so_far(1, ok=1))
    with JobSnapshot(str(folder)) as seen:
        assert seen.tally().ok == 1
        # A checkpoint waits for whoever reads; one that waited as long as it does would only make the test slow.
        ledger._db.execute("PRAGMA busy_timeout=0")
        end(ledger, so_far(1, ok=1))
        assert seen.tally().ok == 1
    assert told(folder).state == "complete"


def test_looking_at_a_job_at_rest_changes_nothing(folder: Path) -> None:
    make_job(folder, [entry(row) for row in range(1, 2_000)])
    path = folder / "ledger.sqlite"
    before = (path.read_bytes(), path.stat().st_mtime_ns, names(folder))
    assert told(folder).ok == 1_999
    assert (path.read_bytes(), path.stat().st_mtime_ns, names(folder)) == before


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.test_report import begin, entry, so_far, write
ledger = begin(Path(sys.argv[1]))
write(ledger, [entry(row) for row in range(1, 101)], so_far(300, more=True, ok=100))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
@pytest.mark.parametrize("index", ["kept", "lost"])
def test_a_job_that_was_killed_is_read_out_of_its_journal(index: str, folder: Path) -> None:
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", KILLED, folder], cwd=root, env=environment(), timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    journal = folder / "ledger.sqlite-wal"
    held = journal.read_bytes()
    assert held
    if index == "lost":
        (folder / "ledger.sqlite-shm").unlink()
    seen = told(folder)
    assert (seen.state, seen.ok, seen.pending, seen.left) == ("interrupted", 100, 200, None)
    assert journal.read_bytes() == held, "what was committed is still where it was"
    ledger = Ledger.open(str(folder / "ledger.sqlite"))
    assert (ledger.tally().ok, ledger.begin_run(BEGAN)) == (100, False)
    ledger.close()
    assert "ledger.sqlite-wal" not in names(folder)


def test_a_folder_that_may_not_be_written_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_job(folder, [entry(1)])
    monkeypatch.setattr(job_report.os, "access", lambda *_: False)  # type: ignore[attr-defined]  # os, as that module has it
    with pytest.raises(LedgerError, match=r"ledger\.sqlite: cannot be read in a folder you may not write: look at a"):
        told(folder)


# Damage and strangers


@contextlib.contextmanager
def tampered(folder: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(folder / "ledger.sqlite", isolation_level=None)) as db:
        yield db


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE rows SET elapsed = -5000",
        "UPDATE rows SET elapsed = 9223372036854775807",
        "UPDATE rows SET bytes = 9223372036854775807",
        "UPDATE rows SET bytes = -9223372036854775808",
        "UPDATE rows SET code = 77",
        "UPDATE rows SET host = 77",
        "UPDATE hosts SET name = x'ff00'",
        "UPDATE hosts SET name = CAST(x'ff61' AS TEXT)",
        "UPDATE codes SET name = CAST(x'ff61' AS TEXT) WHERE id = 1",
        "UPDATE runs SET began = 9e999",
        "UPDATE runs SET began = -1",
        "UPDATE runs SET seconds = 'long'",
        "UPDATE runs SET seconds = 9e999",
        "UPDATE runs SET ok = -1",
        "UPDATE runs SET ok = 'many'",
        "UPDATE runs SET taken = x'00'",
        "UPDATE runs SET more = 7",
        "UPDATE runs SET clean = 'perhaps'",
        "UPDATE runs SET exit = -3",
        "UPDATE runs SET estimate = 1.5",
        "UPDATE outputs SET name = 'text'",
        "UPDATE outputs SET position = -1",
        "UPDATE outputs SET state = x'00'",
        "INSERT INTO meta VALUES ('retrying', 7)",
        "INSERT INTO meta VALUES ('retrying', x'7b')",
        "INSERT INTO meta VALUES ('retrying', '[[[[')",
        "PRAGMA application_id=7",
        "CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM rows; END",
    ],
)
def test_values_that_no_run_writes_are_refused(statement: str, folder: Path) -> None:
    make_job(folder, [entry(row, "ok" if row % 2 else "http_404") for row in range(1, 21)])
    with tampered(folder) as db:
        db.execute(statement)
    with pytest.raises(LedgerError, match=r"ledger\.sqlite: the ledger is damaged or not ours \(.*with --fresh"):
        told(folder)


def test_names_are_harmless(folder: Path) -> None:
    ledger = begin(folder, ["\x1b]0;pages.jsonl"])
    write(ledger, [entry(row, "http_\u202e4", host="\x1b[31m" + "x" * 1_000) for row in range(1, 10)], so_far(9))
    end(ledger, so_far(9))
    seen = told(folder)
    assert seen.slowest[0].host == r"\x1b[31m" + "x" * 246 + "…"
    assert list(seen.codes) == [r"http_\u202e4"]
    assert seen.outputs[0].path == r"\x1b]0;pages.jsonl"


def test_a_ledger_of_another_version_is_refused(folder: Path) -> None:
    make_job(folder, [entry(1)])
    with tampered(folder) as db:
        db.execute("PRAGMA user_version=9")
    with pytest.raises(LedgerError, match="another version"):
        told(folder)


def test_what_is_no_ledger_is_refused(folder: Path) -> None:
    folder.mkdir()
    for content in (b"", b"no ledger", os.urandom(40_000)):
        (folder / "ledger.sqlite").write_bytes(content)
        with pytest.raises(LedgerError, match=r"ledger\.sqlite: the ledger is damaged"):
            told(folder)


def test_a_ledger_cut_short_or_overwritten_is_refused_or_read(folder: Path) -> None:
    """Whatever stands in its pages: figures or a LedgerError, nothing else."""
    make_job(folder, [entry(row, host=f"host{row % 90}.example") for row in range(1, 3_000)])
    path = folder / "ledger.sqlite"
    whole = path.read_bytes()
    page = 4_096
    refused = 0
    for number in range(1, len(whole) // page):
        for damaged in (
            whole[: number * page],
            whole[: number * page] + b"\xff" * page + whole[(number + 1) * page :],
            whole[: number * page] + whole[page : 2 * page] + whole[(number + 1) * page :],
        ):
            path.write_bytes(damaged)
            try:
                told(folder)
            except LedgerError as error:
                refused += 1
                assert str(path) in str(error)
    assert refused
