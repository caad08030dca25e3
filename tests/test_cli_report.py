"""``fetcher report`` as a process, and how a report is laid out."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import msgspec
import pytest

from fetcher.cli.report import lay_out
from fetcher.hosts.state import HostReport
from fetcher.job.opening import Lock
from fetcher.job.report import HostFigures, JobReport, OutputFigures, RunReport, report
from tests.lab.command import argv, environment, run
from tests.test_report import begin, end, entry, make_job, so_far, write

KEYS = {
    "job", "state", "pid", "input", "done", "ok", "failed", "skipped", "pending", "more", "estimate", "left", "bytes",
    "seconds", "pages_per_second", "last_pages_per_second", "codes", "retrying", "outputs", "run_count", "runs", "hosts",
    "slowest", "failing", "troubled", "shard",
}  # fmt: skip

FIGURES = JobReport(
    job="pages.jsonl.job", state="complete", pid=None, input=10, done=10, ok=7, failed=2, skipped=1, pending=0,
    more=False, estimate=None, left=0, bytes=3_100_000, seconds=200.0, pages_per_second=0.0, last_pages_per_second=0.0,
    codes={"http_404": 2, "robots_denied": 1}, retrying=[], outputs=[OutputFigures("pages.jsonl", 12_345)], run_count=1,
    runs=[RunReport(1, "2026-11-21T09:33:50Z", 200.0, 7, 0.0, clean=True, exit=0)], hosts=2,
    slowest=[HostFigures("a.example", 5, 2, 1.25, 1_000)], failing=[HostFigures("", 1, 1, 0.0, 0)],
    troubled=[],
)  # fmt: skip


def varied(**changes: object) -> str:
    return lay_out(msgspec.structs.replace(FIGURES, **changes))


# As a process


@pytest.mark.parametrize("name", ["pages.jsonl", "pages.jsonl.job", "pages.jsonl.job/"])
def test_a_job_is_named_by_its_folder_or_its_output(name: str, tmp_path: Path) -> None:
    make_job(tmp_path / "pages.jsonl.job", [entry(1), entry(2, "http_404")])
    ended = run("report", name, folder=tmp_path)
    assert (ended.code, ended.said) == (0, "")
    assert ended.lines[0].startswith("pages.jsonl.job")
    assert ended.lines[0].endswith(": complete")
    assert ended.lines[1] == "  2 rows = 1 ok + 1 failed + 0 skipped, 20 bytes"


def test_an_output_that_is_gone_or_a_folder_has_its_report_too(tmp_path: Path) -> None:
    (tmp_path / "pages.jsonl").mkdir()
    make_job(tmp_path / "pages.jsonl.job", [entry(1)])
    assert run("report", "pages.jsonl", folder=tmp_path).code == 0


def test_a_running_job(tmp_path: Path) -> None:
    folder = tmp_path / "pages.jsonl.job"
    ledger = begin(folder)
    write(ledger, [entry(1), entry(2)], so_far(3, more=True, ok=2, estimate=1_002))
    lock = Lock(str(folder))
    lock.acquire()
    ended = run("report", "pages.jsonl", folder=tmp_path)
    lock.release()
    ledger.abandon()
    assert ended.lines[:4] == [
        f"pages.jsonl.job: running (process {os.getpid()})",
        "  3 rows and more = 2 ok + 0 failed + 0 skipped + 1 pending, 20 bytes",
        "  left: about 1,000 rows, 16 min 40 s at this pace",
        "  1 pages/s in this run; 1 host, 2.0 s",
    ]


def test_json_is_one_object_with_everything(tmp_path: Path) -> None:
    codes = [f"http_{400 + number}" for number in range(60)]
    make_job(tmp_path / "job", [entry(row, code, host=f"{code}.example") for row, code in enumerate(codes, 1)])
    ended = run("report", "job", "--json", folder=tmp_path)
    figures = json.loads(ended.out)
    assert (ended.code, ended.said, set(figures)) == (0, "", KEYS)
    assert (len(figures["codes"]), len(figures["failing"]), figures["hosts"]) == (60, 60, 60)
    assert figures["failing"][0] == {"host": "http_400.example", "rows": 1, "failed": 1, "elapsed": 0.25, "bytes": 10}
    assert figures["outputs"] == [{"path": "pages.jsonl", "position": 500}]


def test_tables_are_longer_where_they_are_asked_for(tmp_path: Path) -> None:
    codes = [f"http_{400 + number}" for number in range(60)]
    make_job(tmp_path / "job", [entry(row, code, host=f"{code}.example") for row, code in enumerate(codes, 1)])

    def shown(*flags: str) -> tuple[int, int, str]:
        text = run("report", "job", *flags, folder=tmp_path).text
        codes, _, hosts = text.partition("hosts with failures")
        title = next(line for line in text.split("\n") if line.startswith("failed or skipped"))
        return codes.count("  http_"), hosts.count(".example"), title

    assert shown() == (10, 10, "failed or skipped (10 of 60)")
    assert shown("--errors") == (50, 10, "failed or skipped (50 of 60)")
    assert shown("--hosts") == (10, 50, "failed or skipped (10 of 60)")
    assert shown("--hosts", "--errors")[:2] == (50, 50)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere", "nowhere: there is no job or output of that name: give the folder of a job, or its -o"),
        ("folder", "folder is no job: it holds no ledger.sqlite; give the folder of a job, or its -o"),
        ("out.csv", "out.csv: there is no job beside it (out.csv.job): give the folder that --job named"),
        ("\x1b[31m", r"\x1b[31m: there is no job or output of that name: give the folder of a job, or its -o"),
    ],
)
def test_what_is_no_job_is_said_with_what_to_do(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "out.csv").write_text("id,url\n")
    ended = run("report", name, folder=tmp_path)
    assert (ended.code, ended.out, ended.said) == (2, b"", f"fetcher: {said}\n")


def test_a_job_must_be_named(tmp_path: Path) -> None:
    ended = run("report", folder=tmp_path)
    assert ended.code == 2
    assert "JOB|OUTPUT" in ended.said


def test_a_damaged_ledger_is_exit_1_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "pages.jsonl.job"
    make_job(folder, [entry(1)])
    (folder / "ledger.sqlite").write_bytes(b"no ledger at all")
    ended = run("report", "pages.jsonl", folder=tmp_path)
    assert (ended.code, ended.out) == (1, b"")
    assert ended.said.startswith("fetcher: pages.jsonl.job/ledger.sqlite: the ledger is damaged or not ours (")


@pytest.mark.skipif(os.name != "posix", reason="a shell of POSIX's")
def test_a_reader_that_leaves_ends_it_silently(tmp_path: Path) -> None:
    hosts = [entry(row, "http_404", host=f"{'x' * 200}{row}") for row in range(1, 1_001)]
    make_job(tmp_path / "job", hosts)
    script = "$REPORT job --json | head -1; echo ${PIPESTATUS[0]}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment(tmp_path, REPORT=" ".join(argv("report"))),
        capture_output=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == (b"{\n141\n", b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_an_output_that_takes_nothing_is_exit_1(tmp_path: Path) -> None:
    make_job(tmp_path / "job", [entry(1)])
    for where, said in (
        (">/dev/full", "standard output: cannot write: No space left on device"),
        (">&-", "standard output: is closed"),
    ):
        done = subprocess.run(
            ["bash", "-c", f"$REPORT job {where}"],
            cwd=tmp_path,
            env=environment(tmp_path, REPORT=" ".join(argv("report"))),
            capture_output=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr.decode()) == (1, f"fetcher: {said}\n")


def test_a_terminal_that_cannot_show_a_name_gets_the_rest(tmp_path: Path) -> None:
    make_job(tmp_path / "job", [entry(row, host="例.example") for row in range(1, 6)])
    ended = run("report", "job", folder=tmp_path, env={"PYTHONIOENCODING": "latin-1:strict"})
    assert ended.code == 0
    assert r"  \u4f8b.example  0.25 s" in ended.text


def test_the_help_names_the_command(tmp_path: Path) -> None:
    assert "Tell how a job went, or how far it is." in run("--help", folder=tmp_path).text
    assert "--errors" in run("report", "-h", folder=tmp_path).text


# Laid out


def test_a_report_is_laid_out() -> None:
    assert lay_out(FIGURES) == (
        "pages.jsonl.job: complete\n"
        "  10 rows = 7 ok + 2 failed + 1 skipped, 3.1 MB\n"
        "  0 pages/s in the last run; 2 hosts, 3 min 20 s\n"
        "\n"
        "outputs\n"
        "  pages.jsonl  12.3 kB\n"
        "\n"
        "runs\n"
        "  1  2026-11-21 09:33:50 UTC  3 min 20 s  7 ok  0 pages/s  exit 0\n"
        "\n"
        "failed or skipped\n"
        "  http_404       2  20.0 %\n"
        "  robots_denied  1  10.0 %\n"
        "\n"
        "slowest hosts\n"
        "               mean  rows  failed   bytes\n"
        "  a.example  1.25 s     5       2  1.0 kB\n"
        "\n"
        "hosts with failures\n"
        "               mean  rows  failed    bytes\n"
        "  (no host)  0.00 s     1       1  0 bytes\n"
    )


def test_hosts_that_gave_trouble_are_told_in_a_line_each() -> None:
    troubled = [
        HostReport("a.example", requests=1_200, refused=3, parked=90.0, ceiling=2, spacing=0.05),
        HostReport("b.example", requests=4, failed=2, slow=1, denied=5, given_up="b.example refused 20 times"),
    ]
    assert varied(troubled=troubled).partition("\nhosts that gave trouble\n")[2] == (
        "  a.example: 1,200 requests; 3 refused, parked for 1 min 30 s, bears 2 at once, bears one in 0.05 s\n"
        "  b.example: 4 requests; 2 without an answer, 1 slow, 5 denied by robots.txt, given up\n"
    )


def test_what_is_left_is_said() -> None:
    assert "left" not in varied()
    assert "\n  left: 4 rows\n" in varied(state="stopped", left=4)
    assert "\n  left: about 1 row\n" in varied(state="interrupted", more=True, left=1)
    unknown = varied(state="interrupted", more=True, left=None, pending=3)
    assert "\n  left: 3 rows, and those of the list that were not read yet\n" in unknown


def test_how_it_stands_is_said() -> None:
    assert varied(state="running").startswith("pages.jsonl.job: running\n")
    assert varied(state="running", pid=7).startswith("pages.jsonl.job: running (process 7)\n")
    assert varied(state="stopped").startswith("pages.jsonl.job: stopped; the same command continues\n")
    assert "interrupted, its last run was killed; the same" in varied(state="interrupted")
    assert varied(state="stopped", retrying=["http_503"]).partition("\n")[0].endswith("continues, retrying http_503")


def test_how_runs_ended_is_said() -> None:
    def ran(**changes: object) -> str:
        one, two = (msgspec.structs.replace(FIGURES.runs[0], number=number, **changes) for number in (1, 2))
        text = varied(runs=[one, two], run_count=2, state="running")
        return text.partition("\nruns\n")[2].partition("\n\n")[0]

    assert ran(clean=False).split("\n")[0].endswith("  killed")
    assert ran(clean=False).split("\n")[1].endswith("  running")
    assert ran(exit=None).split("\n")[1].endswith("  ended")
    assert ran(exit=130).split("\n")[0].endswith("  exit 130")
    assert "\nruns (the last 10 of 25)\n" in varied(runs=FIGURES.runs * 12, run_count=25)


def test_a_job_without_a_row_is_laid_out(tmp_path: Path) -> None:
    ledger = begin(tmp_path / "job", [])
    end(ledger, so_far(0, seconds=0.0))
    text = lay_out(report(str(tmp_path / "job")))
    assert text.startswith(f"{tmp_path}/job: complete\n  0 rows = 0 ok + 0 failed + 0 skipped, 0 bytes\n\nruns\n")
