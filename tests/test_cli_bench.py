"""``fetcher bench`` as a process: what it prints where, what it refuses, and how it ends."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from fetcher.bench.results import Report
from fetcher.bench.text_report import render_text
from tests.lab.command import Running, argv, as_said, environment, run
from tests.lab.ports import refused_port
from tests.lab.terminal import Terminal
from tests.test_bench_runner import answering

QUICK = ("-n", "20", "--rounds", "1", "-c", "2,10", "--latency", "5-10")
URL = "http://127.0.0.1:9/"  # nothing is asked of it: the bench ends before
GOOD = {"l.txt": f"{URL}\n".encode()}


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """A server of pages that never change."""
    with answering(lambda path, _: f"<title>{path}</title>") as (origin, _):
        yield origin


def listed(folder: Path, *urls: str) -> str:
    (folder / "l.txt").write_text("".join(f"{url}\n" for url in urls), encoding="utf-8")
    return "l.txt"


# What it prints, and where


def test_the_built_in_site(tmp_path: Path) -> None:
    done = run("bench", *QUICK, "--json", "b.json", folder=tmp_path)
    assert done.code == 0
    report = msgspec.json.decode((tmp_path / "b.json").read_bytes(), type=Report)
    assert done.text == render_text(report), "the table is the report's"
    for line in ("sequential", "-c 2", "-c 10", r"recommended: -c (2|10)\b"):
        assert re.search(f"^{line} ?", done.text, re.MULTILINE)
    assert "the built-in site (latency, 5-10 ms, seed 1): 20 rows" in done.text
    assert report.complete
    assert report.command[-len(QUICK) - 2 :] == [*QUICK, "--json", "b.json"]
    rounds = [line for line in done.said.splitlines() if re.match(r"fetcher: \d of 6: ", line)]
    assert len(rounds) == 6
    assert all(
        re.fullmatch(r"fetcher: \d of 6: (warm-up|round 1), (-c \d+|sequential): \d+\.\d s, [\d,.]+ pages/s", line)
        for line in rounds
    )


def test_json_on_stdout_leaves_the_table_to_stderr(tmp_path: Path, site: str) -> None:
    done = run("bench", f"{site}/1", "--rounds", "1", "-c", "1", "--json", "-", "--no-sequential", folder=tmp_path)
    assert done.code == 0
    report = msgspec.json.decode(done.out, type=Report)
    assert [mode.mode for mode in report.modes] == ["concurrent"]
    assert render_text(report).rstrip() in done.said


def test_quiet_is_the_result_alone(tmp_path: Path, site: str) -> None:
    done = run("bench", f"{site}/1", "--rounds", "1", "-c", "1", "--no-sequential", "-q", folder=tmp_path)
    assert (done.code, done.said) == (0, "")
    assert done.text.startswith(f"{site}/1: 1 row, 1 host")


def test_the_picture_is_a_page(tmp_path: Path, site: str) -> None:
    done = run("bench", f"{site}/1", "--rounds", "1", "-c", "1", "--no-sequential", "--html", "b.html", folder=tmp_path)
    assert done.code == 0
    assert (tmp_path / "b.html").read_text(encoding="utf-8").lower().startswith("<!doctype html>")


def test_a_list_of_ones_own_is_told_first_what_each_host_gets(tmp_path: Path, site: str) -> None:
    port = site.rpartition(":")[2]
    urls = [*(f"{site}/{number}" for number in range(3)), f"http://localhost:{port}/4", "no url at all:"]
    done = run("bench", listed(tmp_path, *urls), "-n", "4", "-c", "2", "--rounds", "2", folder=tmp_path)
    assert done.code == 0
    said = done.said.splitlines()
    # A warm-up and two rounds of both modes, four rows each.
    assert said[:4] == [
        "fetcher: the first 4 rows of l.txt are used (-n)",
        "fetcher: 24 requests in 6 rounds, redirects and further tries not counted:",
        "         18  127.0.0.1",
        "          6  localhost",
    ]
    assert "l.txt: 4 rows, 2 hosts" in done.text


def test_of_many_hosts_the_ten_busiest_are_named(tmp_path: Path) -> None:
    urls = [f"http://127.0.0.{host}:9/{page}" for host in range(1, 15) for page in range(15 - host)]
    done = run(
        "bench",
        listed(tmp_path, *urls),
        "-c",
        "50",
        "--rounds",
        "1",
        "--retries",
        "0",
        "--host-patience",
        "1",
        folder=tmp_path,
    )
    said = done.said.splitlines()
    assert said[0] == "fetcher: l.txt has 105 rows, not 200: all are used"
    assert [line.split()[-1] for line in said[2:12]] == [f"127.0.0.{host}" for host in range(1, 11)]
    assert re.fullmatch(r" +\d+  to 4 more hosts, at most \d+ each", said[12])


def test_a_list_smaller_than_asked_is_used_and_said(tmp_path: Path, site: str) -> None:
    words = ("-n", "50", "-c", "2", "--rounds", "1", "--no-sequential")
    done = run("bench", f"{site}/1", f"{site}/2", *words, folder=tmp_path)
    assert done.code == 0
    assert f"fetcher: {site}/1, {site}/2 has 2 rows, not 50: all are used" in done.said


def test_rows_that_are_no_urls_are_left_out_and_said(tmp_path: Path, site: str) -> None:
    words = ("-c", "1", "--rounds", "1", "--no-sequential")
    done = run("bench", listed(tmp_path, f"{site}/1", "ftp://x/"), *words, folder=tmp_path)
    assert done.code == 0
    assert "fetcher: warning: 1 row is no URL and was left out: row 2: " in done.said


def test_stdin_and_its_format(tmp_path: Path, site: str) -> None:
    rows = f"link\n{site}/1\n".encode()
    words = ("-", "--from", "csv", "--url-column", "link", "-c", "1", "--rounds", "1", "--no-sequential")
    done = run("bench", *words, folder=tmp_path, stdin=rows)
    assert done.code == 0
    assert done.text.startswith("stdin: 1 row, 1 host")


def test_no_secret_of_the_command_line_is_in_the_report(tmp_path: Path, site: str) -> None:
    secrets = ("-u", "me:s3cret", "-H", "Authorization: Bearer s3cret", "-b", "session=s3cret")
    words = ("--rounds", "1", "-c", "1", "--no-sequential", "--json", "b.json", "--html", "b.html")
    done = run("bench", f"{site}/1", *secrets, *words, folder=tmp_path)
    assert done.code == 0
    for text in (
        done.text,
        done.said,
        *((tmp_path / name).read_text(encoding="utf-8") for name in ("b.json", "b.html")),
    ):
        assert "s3cret" not in text
    assert msgspec.json.decode((tmp_path / "b.json").read_bytes(), type=Report).command[-2:] == ["--html", "b.html"]


def test_settings_come_from_the_environment_too(tmp_path: Path, site: str) -> None:
    env = {"FETCHER_CONCURRENCY": "1,2", "FETCHER_ROUNDS": "1", "FETCHER_PER_HOST": "3", "FETCHER_JSON": "b.json"}
    done = run("bench", f"{site}/1", folder=tmp_path, env=env)
    assert done.code == 0
    report = msgspec.json.decode((tmp_path / "b.json").read_bytes(), type=Report)
    assert (report.per_host, [mode.concurrency for mode in report.modes]) == (3, [1, 1, 2])


def test_a_proxy_of_the_environment_is_not_asked_for_the_built_in_site(tmp_path: Path) -> None:
    with refused_port() as port:
        env = {"HTTP_PROXY": f"http://127.0.0.1:{port}"}
        words = ("-n", "3", "-c", "1", "--rounds", "1", "--no-sequential", "--latency", "0")
        done = run("bench", *words, folder=tmp_path, env=env)
    assert done.code == 0


@pytest.mark.parametrize("width", [100, 40])
def test_a_terminal_has_a_bar_and_keeps_nothing_of_it(width: int, tmp_path: Path, site: str) -> None:
    words = ("bench", f"{site}/1", "-c", "1", "--rounds", "1", "--no-sequential")
    with Terminal(width) as terminal:
        with Running(*words, folder=tmp_path, stderr=terminal.line, env={"TERM": "xterm"}) as running:
            ended = running.end()
        terminal.hang_up()
        assert ended.code == 0
        assert "1 of 2" in terminal.written
        assert not [line for line in terminal.screen.lines if " of 2" in line]
        assert terminal.screen.cursor


# How it ends


def test_modes_that_got_different_pages_are_exit_1_and_named(tmp_path: Path) -> None:
    # Asked for in both warm-ups and by the baseline; the fourth to come is the other mode.
    with answering(lambda path, before: "<p>long" * (5 if (path, before) == ("/2", 3) else 1)) as (origin, _):
        done = run("bench", f"{origin}/1", f"{origin}/2", "-c", "2", "--rounds", "1", "-q", folder=tmp_path)
    assert done.code == 1
    assert done.said.splitlines() == [
        "fetcher: the modes got different pages, 1 of 2 rows:",
        f"  row 2 {origin}/2: 7 characters, and with -c 2 35 characters",
    ]
    assert "sequential" in done.text


def test_a_list_that_fails_wholly_is_exit_1(tmp_path: Path) -> None:
    with refused_port() as port:
        urls = [f"http://127.0.0.1:{port}/{number}" for number in range(3)]
        words = ("bench", *urls, "--retries", "0", "--json", "b.json")
        done = run(*words, folder=tmp_path, env={"FETCHER_ROBOTS": "1"})
    assert done.code == 1
    assert (
        done.said.splitlines()[-1]
        == "fetcher: not one of 3 rows is a page (connect_refused): there is nothing to compare"
    )
    assert done.text.splitlines()[-1] == "no counted round is complete"
    assert not msgspec.json.decode((tmp_path / "b.json").read_bytes(), type=Report).complete


@pytest.mark.parametrize(("number", "code"), [(2, 130), (15, 143)])
def test_ctrl_c_prints_what_is_complete(number: int, code: int, tmp_path: Path) -> None:
    words = ("-n", "5", "-c", "2", "--rounds", "1000", "--no-sequential", "--latency", "0")
    with Running("bench", *words, "--json", "b.json", "--html", "b.html", folder=tmp_path) as running:
        running.until_said("round 2, -c 2")
        running.send(number)
        ended = running.end()
    assert ended.code == code
    report = msgspec.json.decode((tmp_path / "b.json").read_bytes(), type=Report)
    assert not report.complete
    assert report.modes[0].rounds >= 2
    assert ended.text == render_text(report)
    assert f"fetcher: stopped: {len(report.rounds)} rounds are complete" in ended.said
    assert (tmp_path / "b.html").exists()


def test_a_reader_that_leaves_is_exit_141(tmp_path: Path, site: str) -> None:
    import subprocess

    with subprocess.Popen(
        argv("bench", f"{site}/1", "-c", "1", "--rounds", "1", "--no-sequential"),
        cwd=tmp_path,
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 141
    assert b"Traceback" not in said


# What it refuses


@dataclass(frozen=True)
class Bad:
    """A command line, and what it must say: the text, or a pattern of it."""

    arguments: str
    said: str
    code: int = 2
    files: dict[str, bytes] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)


REFUSED = [
    Bad("-c 0", "concurrency 0: must be at least 1"),
    Bad("-c ten", "concurrency ten: must be a whole number"),
    Bad("-c 10,", "concurrency '': must be a whole number"),
    Bad("-c 10,0", "concurrency 0: must be at least 1"),
    Bad("-c 1.5", "concurrency 1.5: must be a whole number"),
    Bad("-c 100000000", r"concurrency: -c 100000000 is more than the limit of file descriptors allows: use -c \d+ at most, "
        r"or raise the limit \(ulimit -n\)"),
    Bad("--rounds 0", "rounds 0: must be at least 1"),
    Bad("--rounds many", "rounds many: must be a whole number"),
    Bad("-n 0", "rows 0: must be at least 1"),
    Bad("-n all", "rows all: must be a whole number"),
    Bad("--seed x", "seed x: must be a whole number"),
    Bad("--latency soon", "latency soon: must be a range of milliseconds, such as 20-60"),
    Bad("--latency 20-", "latency 20-: must be a range of milliseconds, such as 20-60"),
    Bad("--latency 60-20", "latency 60-20: must have the lower number first"),
    Bad("--latency 0-9000000", r"latency: 0 to 9000 s is no range from 0 to 3600 s"),
    Bad("--scenario nice", "scenario nice: must be one of latency, fast, mixed, errors, throttled"),
    Bad("--scenario fast --latency 1-2", "latency: the scenario 'fast' has none: leave one of them out"),
    Bad("l.txt --latency 1-2", "latency: is of the built-in site: leave it out, or leave out the INPUT", files=GOOD),
    Bad("l.txt --scenario mixed", "scenario: is of the built-in site: leave it out, or leave out the INPUT", files=GOOD),
    Bad("nowhere.txt", "nowhere.txt: no such file"),
    Bad("l.txt", "l.txt: no URLs in it", files={"l.txt": b"\n"}),
    Bad("l.txt", r"l\.txt: there is no URL to fetch: row 1: .*ftp.*", code=1, files={"l.txt": b"ftp://a.example/\n"}),
    Bad("l.txt -o x.jsonl", "-o: there is no such flag here: --output is one of 'fetcher crawl', 'fetcher extract' (see 'fetcher help --output')", files=GOOD),
    Bad("l.txt --retries x", "retries x: must be a whole number", files=GOOD),
    Bad("l.txt --html no/b.html", "no/b.html: the folder no does not exist", code=1, files=GOOD),
    Bad("l.txt --html .", ".: is a folder", code=1, files=GOOD),
    Bad("l.txt --json no/b.json", "no/b.json: the folder no does not exist", code=1, files=GOOD),
    Bad("l.txt --json l.txt", "json: l.txt is a list that is to be read; write to another file", files=GOOD),
    Bad("l.txt --json x --html x", "html: x is given twice (as json)", files=GOOD),
    Bad("l.txt", "rounds x: must be a whole number", files=GOOD, env={"FETCHER_ROUNDS": "x"}),
]  # fmt: skip


@pytest.mark.parametrize("bad", REFUSED, ids=lambda bad: bad.arguments)
def test_what_is_wrong_is_found_before_the_first_request(bad: Bad, tmp_path: Path) -> None:
    for name, data in bad.files.items():
        (tmp_path / name).write_bytes(data)
    done = run("bench", *bad.arguments.split(), folder=tmp_path, env=bad.env)
    assert (done.code, done.out) == (bad.code, b"")
    (said,) = done.said.splitlines()
    text = said.removeprefix("fetcher: ")
    meant = as_said(bad.said)
    step = meant.removeprefix(f"--{bad.said}") if meant != bad.said else ""
    assert text == meant or re.fullmatch(f"(--)?{bad.said}{re.escape(step)}", text), said
    assert {path.name for path in tmp_path.iterdir()} <= set(bad.files), "nothing was written"
