"""Crawls into files as jobs: the same command continues, and what may not change is refused in words.

Each command is a real process, and the server's log is the judge of what it has fetched.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fetcher.job.schema import FOLLOW_FORMAT, FORMAT
from tests.lab.command import Running, run
from tests.lab.desk import Desk, plain, zstd
from tests.lab.server import LabServer

ADVICE = "give it as before, write to another -o, or begin again with --fresh"
LIST_ADVICE = (
    "a list may grow at its end, not change; give it as it was, write to another output, or begin again with --fresh"
)
ALL_DONE = "fetcher: all rows were done already: nothing was fetched (--fresh begins again)"


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread() as server:
        yield server


@pytest.fixture
def desk(lab: LabServer, tmp_path: Path) -> Desk:
    return Desk(lab, tmp_path)


# The same command again


def test_the_same_command_goes_on_with_what_is_missing(desk: Desk) -> None:
    desk.pages(*"abcde")
    assert desk.crawl("--limit", "2").code == 0
    assert desk.asked() == ["a", "b"]
    ended = desk.crawl()
    assert ended.code == 0
    assert ended.said.splitlines()[0].partition(", about ")[0] == "fetcher: continuing pages.jsonl.job: 2 rows are done"
    assert ended.said.splitlines()[1].startswith("5 rows = 5 ok + 0 failed + 0 skipped, in ")
    assert ended.said.splitlines()[1].endswith(", 2 of the pages by earlier runs")
    assert desk.asked() == ["c", "d", "e"]
    assert desk.fetched() == [*"abcde"]
    stats = desk.stats()
    assert (stats["ok"], stats["earlier"]) == (5, 2)


def test_when_all_rows_are_done_nothing_is_fetched(desk: Desk) -> None:
    desk.pages(*"abc")
    desk.crawl()
    desk.asked()
    before = (desk.folder / "pages.jsonl").read_bytes()
    ended = desk.crawl()
    assert ended.code == 0
    assert ended.said.splitlines()[-1] == ALL_DONE
    assert desk.asked() == []
    assert (desk.folder / "pages.jsonl").read_bytes() == before
    assert desk.stats()["earlier"] == 3
    assert desk.crawl("-q").err == b""


def test_when_all_rows_are_done_and_some_failed_a_retry_is_offered(desk: Desk) -> None:
    desk.write([*desk.urls("a"), desk.lab.url("/status/404?n=b")])
    desk.crawl()
    assert desk.crawl().said.splitlines()[-1] == (
        "fetcher: all rows were done already: nothing was fetched "
        "(--retry-failed takes up what failed, --fresh begins again)"
    )


def test_a_job_whose_rows_all_failed_says_so_by_its_exit_code_each_time(desk: Desk) -> None:
    desk.write([desk.lab.url("/status/404?n=a")])
    assert desk.crawl().code == 3
    desk.asked()
    assert desk.crawl().code == 3
    assert desk.asked() == []


@pytest.mark.parametrize("to", ["pages.jsonl", "pages.jsonl.gz", "pages.csv", "pages.csv.gz", "pages.txt"])
def test_a_job_that_was_killed_goes_on(to: str, desk: Desk) -> None:
    gate = desk.hold()
    urls = [*desk.urls(*range(20)), *desk.urls(*"xyz", path="/held")]
    desk.write(urls)
    with Running("crawl", "l.txt", "-o", to, folder=desk.folder) as crawl:
        desk.until_asked(times=3)
        desk.until_written(20, to)
        crawl.send(signal.SIGKILL)
        assert crawl.end().code == -signal.SIGKILL
    gate.open()
    assert len(desk.asked()) == 23
    ended = desk.crawl(to=to)
    assert ended.code == 0
    assert ended.said.splitlines()[0].partition(", about ")[0] == f"fetcher: continuing {to}.job: 20 rows are done"
    assert desk.asked() == [*"xyz"]
    text = plain(desk.folder / to).decode()
    if ".csv" in to:
        table = list(csv.reader(io.StringIO(text, newline="")))
        found = [row[1] for row in table[1:]]
        assert table[0][:2] == ["id", "url"]
    elif ".jsonl" in to:
        found = [record["url"] for record in desk.records(to)]
    else:
        found = [line.split(" -> ")[0] for line in text.splitlines()]
    assert sorted(found) == sorted(urls)


def test_what_was_killed_before_its_ledger_was_made_begins(desk: Desk) -> None:
    """An output that was made and is empty, a folder with a lock and nothing more."""
    desk.pages("a")
    (desk.folder / "pages.jsonl").touch()
    (desk.folder / "pages.jsonl.job").mkdir()
    (desk.folder / "pages.jsonl.job" / "lock").write_text("1\n")
    assert desk.crawl().code == 0
    assert desk.fetched() == ["a"]


@pytest.mark.parametrize("second", ["b.csv", "b.jsonl.gz", "b.csv.zst"])
def test_several_outputs_go_on_together(second: str, desk: Desk) -> None:
    if second.endswith(".zst") and zstd() is None:
        pytest.skip("Zstandard is not installed")
    gate = desk.hold()
    desk.write([*desk.urls(*range(9)), *desk.urls("x", path="/held")])
    command = ["crawl", "l.txt", "-o", "a.jsonl", "-o", second, "--summary", "s.json"]
    with Running(*command, folder=desk.folder) as crawl:
        desk.until_asked()
        desk.until_written(9, "a.jsonl")
        crawl.send(signal.SIGKILL)
        crawl.end()
    gate.open()
    # What a kill leaves of a batch that was not committed: more in one than in the other.
    for name in ("a.jsonl", second):
        with open(desk.folder / name, "ab") as file:
            file.write(b'{"id": 77, "url": "torn')
    ended = run(*command, folder=desk.folder)
    assert ended.code == 0, ended.said
    assert not (desk.folder / f"{second}.job").exists()
    assert desk.fetched("a.jsonl") == [*map(str, range(9)), "x"]
    text = plain(desk.folder / second).decode()
    if ".csv" in second:
        table = list(csv.DictReader(io.StringIO(text, newline="")))
        assert sorted(row["id"] for row in table) == sorted(map(str, range(1, 11)))
    else:
        assert sorted(text.splitlines()) == sorted((desk.folder / "a.jsonl").read_text().splitlines())


def test_a_folder_that_was_moved_goes_on_there(desk: Desk) -> None:
    desk.pages(*"abc")
    desk.crawl("--limit", "1")
    elsewhere = desk.folder / "else where"
    elsewhere.mkdir()
    for name in ("l.txt", "pages.jsonl", "pages.jsonl.job"):
        (desk.folder / name).rename(elsewhere / name)
    desk.asked()
    # By other paths, from another folder.
    ended = run("crawl", "else where/l.txt", "-o", "else where/pages.jsonl", folder=desk.folder)
    assert ended.code == 0, ended.said
    assert desk.asked() == ["b", "c"]
    assert desk.fetched("else where/pages.jsonl") == [*"abc"]
    ended = run("crawl", "l.txt", "-o", str(elsewhere / "pages.jsonl"), folder=elsewhere)
    assert ended.said.splitlines()[-1] == ALL_DONE


def test_a_link_to_the_output_goes_on(desk: Desk) -> None:
    desk.pages(*"abc")
    (desk.folder / "disk").mkdir()
    (desk.folder / "pages.jsonl").symlink_to("disk/real.jsonl")
    assert desk.crawl("--limit", "1").code == 0
    assert desk.crawl().code == 0
    assert (desk.folder / "pages.jsonl").is_symlink()
    assert desk.fetched("disk/real.jsonl") == [*"abc"]


# A second run, and a lock that was left


def told(desk: Desk) -> dict[str, Any]:
    """Return what the report says of how far the job is."""
    ended = run("report", "pages.jsonl", "--json", folder=desk.folder)
    figures = json.loads(ended.text)
    return {name: figures[name] for name in ("state", "input", "done", "more", "estimate", "left")}


@pytest.mark.parametrize("limit", [(), ("--limit", "3")], ids=["complete", "a part"])
def test_a_command_that_is_refused_leaves_what_is_known_of_the_list(limit: tuple[str, ...], desk: Desk) -> None:
    desk.pages(*"abcdef")
    assert desk.crawl(*limit).code == 0
    before = told(desk)
    assert before["estimate"] is not None
    desk.asked()
    desk.write([*desk.urls("x", *"bcdef", *range(40))])
    ended = desk.crawl(*limit)
    assert (ended.code, desk.asked()) == (2, [])
    assert "row 1 of the list is another" in ended.said
    assert told(desk) == before
    desk.pages(*"abcdefgh")
    assert desk.crawl().code == 0  # a list that has grown is read on
    assert told(desk) == {"state": "complete", "input": 8, "done": 8, "more": False, "estimate": 8, "left": 0}


def test_a_second_live_run_is_refused_with_the_pid_of_the_first(desk: Desk) -> None:
    gate = desk.hold()
    desk.write([*desk.urls("a"), *desk.urls("x", path="/held")])
    with Running("crawl", "l.txt", "-o", "pages.jsonl", folder=desk.folder) as first:
        desk.until_asked()
        desk.until_written(1)
        desk.asked()
        message = (
            f"pages.jsonl.job: another fetcher (process {first.process.pid}) is working on it; wait for it or stop it"
        )
        for flags in ([], ["--fresh"], ["--retry-failed"]):
            ended = run("crawl", "l.txt", "-o", "pages.jsonl", *flags, folder=desk.folder)
            assert ended.said == f"fetcher: {message}\n"
            desk.refused(ended, message, 1)
        other = run("crawl", "l.txt", "-o", "other.jsonl", "--job", "pages.jsonl.job", folder=desk.folder)
        desk.refused(other, message, 1)
        assert not (desk.folder / "other.jsonl").exists()
        gate.open()
        assert first.end().code == 0
    assert desk.fetched() == ["a", "x"]
    assert desk.crawl().said.splitlines()[-1] == ALL_DONE


def test_a_lock_left_by_a_crash_refuses_nobody(desk: Desk) -> None:
    gate = desk.hold()
    desk.write(desk.urls("x", path="/held"))
    with Running("crawl", "l.txt", "-o", "pages.jsonl", folder=desk.folder) as first:
        desk.until_asked()
        first.send(signal.SIGKILL)
        first.end()
    lock = desk.folder / "pages.jsonl.job" / "lock"
    assert lock.read_text() == f"{first.process.pid}\n"
    lock.write_text(f"{os.getpid()}\n")  # alive, and somebody else
    gate.open()
    assert desk.crawl().code == 0


# A list that grew, and one that changed


def test_a_list_that_grew_is_taken_on(desk: Desk) -> None:
    desk.pages(*"ab")
    desk.crawl()
    desk.asked()
    urls = desk.urls(*"abcd")
    (desk.folder / "l.txt").write_text(f"# comments do not count\n\n{urls[0]}\n  {urls[1]}\r\n#\n{urls[2]}\n{urls[3]}")
    assert desk.crawl().code == 0
    assert desk.asked() == ["c", "d"]
    assert desk.fetched() == [*"abcd"]


def test_a_list_on_stdin_may_grow(desk: Desk) -> None:
    for names in ("ab", "abcd"):
        listed = "".join(f"{url}\n" for url in desk.urls(*names)).encode()
        for given in ("", "-"):
            assert desk.crawl(listed=given, stdin=listed).code == 0
        assert desk.fetched() == [*names]
    assert desk.asked() == [*"abcd"]
    changed = "".join(f"{url}\n" for url in desk.urls(*"axcd")).encode()
    message = f"row 2 of the list is another than the one this job has fetched: {LIST_ADVICE}"
    desk.refused(desk.crawl(listed="-", stdin=changed), message, 2)


def test_a_packed_list_may_grow(desk: Desk) -> None:
    for names in ("ab", "abcd"):
        desk.pages(*names, to="l.txt.gz")
        assert desk.crawl(listed="l.txt.gz").code == 0
        assert desk.fetched() == [*names]
    assert desk.asked() == [*"abcd"]


def test_more_inputs_may_be_given(desk: Desk) -> None:
    desk.pages(*"ab", to="l.txt")
    desk.pages(*"cd", to="m.txt")
    url = desk.urls("e")[0]
    for words, names in (([], "ab"), (["m.txt"], "abcd"), (["m.txt", url], "abcde"), (["m.txt", url], "abcde")):
        assert desk.crawl(*words).code == 0
        assert desk.fetched() == [*names]
    assert desk.asked() == [*"abcde"]
    # Once they are part of it they stay.
    desk.refused(desk.crawl("m.txt"), f"INPUT 3 was {url} when this job began, and is not given: {ADVICE}", 2)


def test_the_first_of_several_inputs_may_not_grow(desk: Desk) -> None:
    desk.pages(*"ab", to="l.txt")
    desk.pages(*"cd", to="m.txt")
    desk.crawl("m.txt")
    desk.asked()
    desk.pages(*"abx", to="l.txt")
    message = f"row 3 of the list is another than the one this job has fetched: {LIST_ADVICE}"
    desk.refused(desk.crawl("m.txt"), message, 2)


CHANGES: dict[str, tuple[str, str]] = {
    "in the middle": ("abxde", "row 3 of the list is another than the one this job has fetched"),
    "at the start": ("xbcde", "row 1 of the list is another than the one this job has fetched"),
    "at the end": ("abcdx", "row 5 of the list is another than the one this job has fetched"),
    "a row more at the start": ("xabcde", "row 1 of the list is another than the one this job has fetched"),
    "a row less": ("abde", "row 3 of the list is another than the one this job has fetched"),
    "in its order": ("acbde", "row 2 of the list is another than the one this job has fetched"),
    "in its length": ("abc", "the list ends at row 3, and this job has fetched row 4 of it"),
}


@pytest.mark.parametrize("how", CHANGES)
def test_a_list_that_changed_is_refused_at_the_first_row_that_differs(how: str, desk: Desk) -> None:
    names, message = CHANGES[how]
    desk.pages(*"abcde")
    desk.crawl()
    desk.asked()
    before = (desk.folder / "pages.jsonl").read_bytes()
    desk.pages(*names)
    desk.refused(desk.crawl(), f"{message}: {LIST_ADVICE}", 2)
    assert (desk.folder / "pages.jsonl").read_bytes() == before
    # As it was, it goes on.
    desk.pages(*"abcdef")
    assert desk.crawl().code == 0
    assert desk.asked() == ["f"]


def test_a_list_that_changed_where_nothing_was_fetched_is_no_other(desk: Desk) -> None:
    desk.pages(*"abcde")
    desk.crawl("--limit", "2")
    desk.pages(*"abxyz")
    assert desk.crawl().code == 0
    assert desk.fetched() == [*"abxyz"]


def test_the_other_columns_of_a_row_are_part_of_it(desk: Desk) -> None:
    urls = desk.urls(*"ab")
    (desk.folder / "l.csv").write_text(f"url,name\n{urls[0]},one\n{urls[1]},two\n")
    desk.crawl(listed="l.csv")
    desk.asked()
    (desk.folder / "l.csv").write_text(f"url,name\n{urls[0]},one\n{urls[1]},zwei\n")
    message = f"row 2 of the list is another than the one this job has fetched: {LIST_ADVICE}"
    desk.refused(desk.crawl(listed="l.csv"), message, 2)
    (desk.folder / "l.csv").write_text(f"url,title\n{urls[0]},one\n{urls[1]},two\n")
    message = f"row 1 of the list is another than the one this job has fetched: {LIST_ADVICE}"
    desk.refused(desk.crawl(listed="l.csv"), message, 2)


def test_a_csv_keeps_the_columns_it_began_with(desk: Desk) -> None:
    urls = desk.urls(*"abc")
    (desk.folder / "l.csv").write_text(f"url,name\n{urls[0]},one\n{urls[1]},two\n")
    (desk.folder / "m.csv").write_text(f"url,other\n{urls[2]},three\n")
    desk.crawl("m.csv", "--limit", "1", listed="l.csv", to="pages.csv")
    assert desk.crawl("m.csv", listed="l.csv", to="pages.csv").code == 0
    with open(desk.folder / "pages.csv", newline="", encoding="utf-8") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert [rows[row]["name"] for row in "123"] == ["one", "two", ""]
    assert json.loads(rows["3"]["fields"]) == {"other": "three"}
    assert (desk.folder / "pages.csv").read_text().count("fetched_at") == 1


def test_a_table_of_one_list_takes_no_second_one(desk: Desk) -> None:
    urls = desk.urls(*"ab")
    (desk.folder / "l.csv").write_text(f"url,name\n{urls[0]},one\n")
    (desk.folder / "m.csv").write_text(f"url,other\n{urls[1]},two\n")
    assert desk.crawl(listed="l.csv", to="pages.csv").code == 0
    message = (
        "this job began with one list, and its table has no column for what other lists have: give that one alone, "
        "write to another -o, or begin again with --fresh"
    )
    desk.asked()
    desk.refused(desk.crawl("m.csv", listed="l.csv", to="pages.csv"), message, 2)
    assert desk.crawl(listed="l.csv", to="pages.jsonl").code == 0
    assert desk.crawl("m.csv", listed="l.csv", to="pages.jsonl").code == 0


def test_rows_that_are_no_urls_are_recognised_too(desk: Desk) -> None:
    url = desk.urls("a")[0]
    (desk.folder / "l.txt").write_bytes(b"javascript:x\n\xff\xfe\n" + f"{url}\nhttp://\n".encode())
    assert desk.crawl().code == 0
    assert desk.asked() == ["a"]
    assert desk.crawl().said.splitlines()[-1].startswith("fetcher: all rows were done already")
    (desk.folder / "l.txt").write_bytes(b"javascript:y\n\xff\xfe\n" + f"{url}\nhttp://\n".encode())
    message = f"row 1 of the list is another than the one this job has fetched: {LIST_ADVICE}"
    desk.refused(desk.crawl(), message, 2)


# An option that changed


TERMS: dict[str, tuple[list[str], list[str], str]] = {
    "another list": (["l.txt"], ["m.txt"], "INPUT 1 was l.txt when this job began, and is m.txt"),
    "a list less": (["l.txt", "m.txt"], ["l.txt"], "INPUT 2 was m.txt when this job began, and is not given"),
    "another order": (["l.txt", "m.txt"], ["m.txt", "l.txt"], "INPUT 1 was l.txt when this job began, and is m.txt"),
    "stdin": (["l.txt"], ["-"], "INPUT 1 was l.txt when this job began, and is -"),
    "from": (["l.txt"], ["l.txt", "--from", "txt"], "--from was not given when this job began, and is txt"),
    "url-column": (
        ["l.txt"], ["l.txt", "--url-column", "link"], "--url-column was url when this job began, and is link",
    ),
    "encoding": (
        ["l.txt"], ["l.txt", "--encoding", "latin1"], "--encoding was not given when this job began, and is iso8859-1",
    ),
    "default-scheme": (
        ["l.txt"], ["l.txt", "--default-scheme", "http"],
        "--default-scheme was auto when this job began, and is http",
    ),
    "format": (["l.txt"], ["l.txt", "-f", "csv"], "the format of -o was jsonl when this job began, and is csv"),
    "another output": (
        ["l.txt"], ["l.txt", "-o", "b.csv.gz"],
        "the format of -o was jsonl when this job began, and is jsonl, csv.gz",
    ),
    "an output less": (
        ["l.txt", "-o", "b.txt"], ["l.txt"], "the format of -o was jsonl, text when this job began, and is jsonl",
    ),
    "select": (
        ["l.txt"], ["l.txt", "--select", "t=title"], "--select was not given when this job began, and is t=title",
    ),
    "select less": (
        ["l.txt", "--select", "t=title", "--select", "h=h1"], ["l.txt", "--select", "t=title"],
        "--select was t=title, h=h1 when this job began, and is t=title",
    ),
    "extract": (
        ["l.txt"], ["l.txt", "--extract", "mine:size"],
        "--extract was not given when this job began, and is mine:size",
    ),
    "another extract": (
        ["l.txt", "--extract", "mine:size"], ["l.txt", "--extract", "mine:kind"],
        "--extract was mine:size when this job began, and is mine:kind",
    ),
    "accept": (
        ["l.txt"], ["l.txt", "--accept", "2xx,404"], "--accept was 200-299 when this job began, and is 200-299,404",
    ),
    "dedupe": (["l.txt"], ["l.txt", "--dedupe"], "--dedupe was off when this job began, and is on"),
    "no dedupe": (["l.txt", "--dedupe"], ["l.txt"], "--dedupe was on when this job began, and is off"),
    "max-size": (
        ["l.txt"], ["l.txt", "--max-size", "1M"], "--max-size was 10485760 when this job began, and is 1048576",
    ),
    "truncate": (["l.txt"], ["l.txt", "--truncate"], "--truncate was off when this job began, and is on"),
    "preview": (["l.txt"], ["l.txt", "--preview", "9"], "--preview was 0 when this job began, and is 9"),
}  # fmt: skip
"""What a job began with, what it is to go on with, and what is said of it."""


@pytest.mark.parametrize("term", TERMS)
def test_an_option_that_matters_must_stay(term: str, desk: Desk) -> None:
    before, after, message = TERMS[term]
    desk.pages(*"ab", to="l.txt")
    desk.pages("c", to="m.txt")
    (desk.folder / "mine.py").write_text(
        "def size(response):\n    return len(response.body)\n\ndef kind(response):\n    return 1\n"
    )
    assert desk.crawl(*before, listed="").code == 0
    desk.asked()
    files = desk.files(but=("s.json", "ledger.sqlite", "parsing"))
    ended = desk.crawl(*after, listed="", stdin=b"http://127.0.0.1:9/\n")
    told = [line for line in ended.said.splitlines() if "warning: url-column is of no use here" not in line]
    assert told == [f"fetcher: {message}: {ADVICE}"]
    desk.refused(ended, f"{message}: {ADVICE}", 2)
    left = {name: data for name, data in desk.files().items() if name in files}
    assert left == files, "something was changed"
    assert desk.crawl(*before, listed="").code == 0
    assert desk.asked() == []


def test_all_else_may_change(desk: Desk) -> None:
    desk.pages(*"abcdef")
    desk.crawl("--limit", "1")
    changes = [
        "-c 3", "--per-host 2 --delay 0.01", "--rate 1000/s --timeout 9 --connect-timeout 8 --read-timeout 7",
        "--max-redirects 3 --max-failed 5% --user-agent x/1 --no-progress -v --log-format json",
        "--isolate --parse-timeout 9 --private-network allow --time-limit 1h -k",
    ]  # fmt: skip
    for limit, flags in enumerate(changes, 2):
        ended = desk.crawl("--limit", str(limit), *flags.split())
        assert ended.code == 0, ended.said
        assert desk.stats()["earlier"] == limit - 1
    assert desk.asked() == [*"abcdef"]


# To begin again, or without a job


def test_fresh_begins_again(desk: Desk) -> None:
    desk.pages(*"abc")
    desk.crawl()
    desk.asked()
    desk.pages(*"xy")
    assert desk.crawl("--fresh", "--select", "t=title").code == 0
    assert desk.asked() == ["x", "y"]
    assert desk.fetched() == ["x", "y"]
    assert desk.stats()["earlier"] == 0
    ended = desk.crawl("--select", "t=title")
    assert ended.said.splitlines()[-1] == ALL_DONE


def test_fresh_takes_a_file_that_no_job_wrote_and_nothing_else_does(desk: Desk) -> None:
    desk.pages("a")
    (desk.folder / "pages.jsonl").write_bytes(b"mine\n")
    desk.refused(desk.crawl(), "pages.jsonl exists; use --fresh to overwrite it", 2)
    assert (desk.folder / "pages.jsonl").read_bytes() == b"mine\n"
    assert not (desk.folder / "pages.jsonl.job").exists()
    assert desk.crawl("--fresh").code == 0
    assert desk.fetched() == ["a"]


def test_without_a_job_nothing_is_left_beside_the_output(desk: Desk) -> None:
    desk.pages("a")
    assert desk.crawl("--no-job").code == 0
    assert sorted(desk.files()) == ["l.txt", "pages.jsonl"]
    desk.asked()
    for flags in (["--no-job"], []):
        desk.refused(desk.crawl(*flags), "pages.jsonl exists; use --fresh to overwrite it", 2)
    ended = desk.crawl("--no-job", "--job", "x")
    desk.refused(ended, "job: contradicts --no-job: leave one of them out", 2)
    ended = desk.crawl("--no-job", "--retry-failed")
    message = "retry-failed: needs a job, as --retry-codes does: an output that is a file (-o), without --no-job"
    desk.refused(ended, message, 2)


def test_a_job_may_lie_elsewhere(desk: Desk) -> None:
    desk.pages(*"abc")
    for limit in "13":
        assert desk.crawl("--job", "state", "--limit", limit).code == 0
    assert desk.asked() == [*"abc"]
    assert (desk.folder / "state" / "ledger.sqlite").is_file()
    assert not (desk.folder / "pages.jsonl.job").exists()
    desk.refused(desk.crawl(), "pages.jsonl exists; use --fresh to overwrite it", 2)


@pytest.mark.parametrize(
    ("output", "name"),
    [("-", "standard output"), ("/dev/stdout", "/dev/stdout"), ("fifo", "fifo"), ("/dev/null", "/dev/null")],
)
def test_there_is_no_job_with_what_cannot_be_cut_back(output: str, name: str, desk: Desk) -> None:
    desk.pages("a")
    os.mkfifo(desk.folder / "fifo")
    message = (
        f"job: {name} cannot be cut back after a crash, so there is no job with it; "
        "write to a file with -o, or leave out --job"
    )
    for flags in (["-o", output], ["-o", "a.jsonl", "-o", output]):
        ended = run("crawl", "l.txt", *flags, "--job", "state", folder=desk.folder)
        assert len(ended.said.splitlines()) == 1
        desk.refused(ended, message, 2)
    assert not (desk.folder / "state").exists()
    assert not (desk.folder / "a.jsonl").exists()


def test_stdout_beside_a_file_makes_it_a_plain_run(desk: Desk) -> None:
    desk.pages("a")
    ended = run("crawl", "l.txt", "-o", "a.jsonl", "-o", "-", folder=desk.folder)
    assert (ended.code, len(ended.lines)) == (0, 1)
    assert not (desk.folder / "a.jsonl.job").exists()


def test_the_demo_makes_no_job(desk: Desk) -> None:
    words = ["crawl", "--demo", "--limit", "5", "-o", "demo.jsonl"]
    assert run(*words, folder=desk.folder).code in (0, 3)
    assert len(desk.records("demo.jsonl")) == 5
    assert [path.name for path in desk.folder.iterdir()] == ["demo.jsonl"]
    ended = run(*words, folder=desk.folder)
    desk.refused(ended, "demo.jsonl exists; use --fresh to overwrite it", 2)
    ended = run("crawl", "--demo", "-o", "x.jsonl", "--job", "x.job", folder=desk.folder)
    desk.refused(ended, "job: the demo's list is another each time; leave out --job", 2)


# Limits and duplicates


def test_a_limit_may_be_raised_and_lowered(desk: Desk) -> None:
    desk.pages(*"abcdef")
    for limit, asked, rows in (("2", "ab", 2), ("4", "cd", 4), ("3", "", 4), ("0", "", 4), ("4", "", 4)):
        ended = desk.crawl("--limit", limit)
        assert ended.code == 0, ended.said
        assert desk.asked() == [*asked]
        assert len(desk.records()) == rows
    assert desk.crawl().code == 0
    assert desk.asked() == ["e", "f"]


def test_a_limit_of_nothing_makes_an_empty_job(desk: Desk) -> None:
    desk.pages(*"ab")
    assert desk.crawl("--limit", "0", to="pages.csv").code == 0
    assert (desk.folder / "pages.csv").read_text().startswith("id,url,")
    assert desk.crawl(to="pages.csv").code == 0
    with open(desk.folder / "pages.csv", newline="", encoding="utf-8") as file:
        assert sorted(row["id"] for row in csv.DictReader(file)) == ["1", "2"]


def test_duplicates_are_known_across_runs(desk: Desk) -> None:
    a, b, c = desk.urls(*"abc")
    desk.write([a, b, f"{a}#part", b, c, a, c])
    for limit, asked in (("1", "a"), ("3", "b"), ("6", "c"), ("7", "")):
        assert desk.crawl("--dedupe", "--limit", limit).code == 0
        assert desk.asked() == [*asked], "the first row wins, in whatever run it was fetched"
    errors = [record["error"] for record in desk.records()]
    assert errors == [None, None, "duplicate", "duplicate", None, "duplicate", "duplicate"]
    assert desk.stats()["codes"] == {"duplicate": 4}


def test_the_first_of_its_kind_is_fetched_though_the_others_are_done(desk: Desk) -> None:
    gate = desk.hold()
    held = desk.urls("x", path="/held")[0]
    desk.write([held, held, *desk.urls("a"), held])
    with Running("crawl", "l.txt", "-o", "pages.jsonl", "--dedupe", folder=desk.folder) as crawl:
        desk.until_asked()
        desk.until_written(3)
        crawl.send(signal.SIGKILL)
        crawl.end()
    gate.open()
    desk.asked()
    assert desk.crawl("--dedupe").code == 0
    assert desk.asked() == ["x"]
    assert [record["error"] for record in desk.records()] == [None, "duplicate", None, "duplicate"]


def test_the_rows_of_all_runs_count_for_max_failed(desk: Desk) -> None:
    desk.write([*desk.urls(*"abc"), *desk.urls(*"xy", path="/status/404"), *desk.urls("d")])
    assert desk.crawl("--limit", "4", "--max-failed", "1").code == 0
    assert desk.crawl("--limit", "4", "--max-failed", "1").code == 0
    assert desk.crawl("--max-failed", "1").code == 3
    assert desk.crawl("--max-failed", "2").code == 0
    assert desk.crawl("--max-failed", "33%").code == 3
    assert desk.asked() == [*"abcdxy"]


# An output that is not as it was left


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "deleted": (Path.unlink, "is missing: {again}"),
    "shorter": (lambda path: os.truncate(path, 100), "was changed since (100 bytes, not {size}): {again}"),
    "emptied": (lambda path: os.truncate(path, 0), "was changed since (0 bytes, not {size}): {again}"),
    "edited": (
        lambda path: path.write_bytes(path.read_bytes().replace(b'"status":200', b'"status":418')),
        "was changed since (its bytes 0 to {size} are not those that were written): {again}",
    ),
    "longer": (
        lambda path: path.write_bytes(path.read_bytes() + b"{}\n"),
        "was added to since ({longer} bytes, not {size}): {again}",
    ),
    "a folder": (
        lambda path: path.rename(path.with_suffix(".old")).with_suffix(".jsonl").mkdir(),
        "is a folder; name a file in it, such as pages.jsonl/pages.jsonl",
    ),
}
AGAIN = "put it back as it was, or begin again with --fresh"


@pytest.mark.parametrize("how", SPOILT)
def test_an_output_that_was_changed_is_refused_and_never_cut(how: str, desk: Desk) -> None:
    spoil, message = SPOILT[how]
    path = desk.folder / "pages.jsonl"
    desk.pages(*"abc")
    desk.crawl()
    desk.pages(*"abcd")
    whole = path.read_bytes()
    spoil(path)
    desk.asked()
    spoilt = path.read_bytes() if path.is_file() else None
    message = message.format(size=len(whole), longer=len(whole) + 3, again=AGAIN)
    for flags in ([], ["--retry-failed"]):
        desk.refused(desk.crawl(*flags), f"pages.jsonl: {message}", 1)
        assert (path.read_bytes() if path.is_file() else None) == spoilt
    if path.is_dir():
        path.rmdir()
    path.write_bytes(whole)
    assert desk.crawl().code == 0, "it was put back"
    assert desk.fetched() == [*"abcd"]


def test_an_edit_in_the_middle_is_refused(desk: Desk) -> None:
    """To the same size, in a batch that is not the last: without a checksum one row would be lost and one there twice."""
    path = desk.folder / "pages.jsonl"
    for names in ("ab", "abcd"):
        desk.pages(*names)
        assert desk.crawl().code == 0
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"?n=a", b"?n=b").replace(b'"id":1,', b'"id":2,'))
    edited = path.read_bytes()
    assert (len(edited), edited == whole) == (len(whole), False)
    desk.pages(*"abcde")
    desk.asked()
    first = len(whole.splitlines(keepends=True)[0]) + len(whole.splitlines(keepends=True)[1])
    for flags in ([], ["--verify"], ["--retry-failed"]):
        desk.refused(
            desk.crawl(*flags),
            f"pages.jsonl: was changed since (its bytes 0 to {first} are not those that were written): {AGAIN}",
            1,
        )
        assert path.read_bytes() == edited
    path.write_bytes(whole)
    assert desk.crawl("--verify").code == 0
    assert desk.fetched() == [*"abcde"]


@pytest.mark.parametrize("flag", [["--verify"], []], ids=["flag", "variable"])
def test_verify_needs_a_job(flag: list[str], desk: Desk) -> None:
    desk.pages("a")
    desk.asked()
    ended = run("crawl", "l.txt", *flag, folder=desk.folder, env={} if flag else {"FETCHER_VERIFY": "1"})
    desk.refused(ended, "verify: needs a job: an output that is a file (-o), without --no-job", 2)


@pytest.mark.parametrize("how", ["deleted", "moved"])
@pytest.mark.parametrize("words", [[], ["--no-job"]], ids=["job", "no job"])
def test_an_output_that_is_taken_away_is_no_success(words: list[str], how: str, desk: Desk) -> None:
    path, gate = desk.folder / "pages.jsonl", desk.hold()
    desk.write([*desk.urls(*"ab"), *desk.urls("x", path="/held")])
    with Running(*desk.words(*words), folder=desk.folder) as crawl:
        desk.until_asked()
        end = time.monotonic() + 60
        while not (path.exists() and path.stat().st_size):
            assert time.monotonic() < end
            time.sleep(0.01)
        path.unlink() if how == "deleted" else path.rename(desk.folder / "away.jsonl")
        gate.open()
        ended = crawl.end()
    what = "deleted it" if how == "deleted" else "moved it, or put another in its place"
    assert ended.code == 1
    assert ended.said.splitlines()[-1] == f"fetcher: pages.jsonl: another program has {what}: {AGAIN}"
    assert not path.exists()


def test_what_a_crash_left_behind_the_last_batch_is_cut_off(desk: Desk) -> None:
    """As opposed to what somebody adds to an output that was closed in good order."""
    gate = desk.hold()
    desk.write([*desk.urls(*"ab"), *desk.urls("x", path="/held")])
    with Running("crawl", "l.txt", "-o", "pages.jsonl", folder=desk.folder) as crawl:
        desk.until_asked()
        desk.until_written(2)
        crawl.send(signal.SIGKILL)
        crawl.end()
    with open(desk.folder / "pages.jsonl", "ab") as file:
        file.write(b'{"id":3,"url":"http')
    gate.open()
    assert desk.crawl().code == 0
    assert desk.fetched() == [*"abx"]


def test_a_deleted_output_of_a_killed_job_is_refused_too(desk: Desk) -> None:
    desk.hold()
    desk.write([*desk.urls(*"ab"), *desk.urls("x", path="/held")])
    with Running("crawl", "l.txt", "-o", "pages.jsonl", folder=desk.folder) as crawl:
        desk.until_asked()
        desk.until_written(2)
        crawl.send(signal.SIGKILL)
        crawl.end()
    (desk.folder / "pages.jsonl").unlink()
    desk.asked()
    desk.refused(desk.crawl(), f"pages.jsonl: is missing: {AGAIN}", 1)


# A folder that is not as it was left


def ledger_of(desk: Desk) -> Path:
    return desk.folder / "pages.jsonl.job" / "ledger.sqlite"


def test_a_ledger_of_another_version_is_named(desk: Desk) -> None:
    desk.pages("a")
    desk.crawl()
    desk.asked()
    with closing(sqlite3.connect(ledger_of(desk))) as db:
        db.execute(f"PRAGMA user_version={FOLLOW_FORMAT + 1}")
    message = (
        f"pages.jsonl.job/ledger.sqlite: was written by another version (format {FOLLOW_FORMAT + 1}; this is {FORMAT}): "
        "finish it with that one, or begin again with --fresh"
    )
    desk.refused(desk.crawl(), message, 1)
    assert desk.crawl("--fresh").code == 0


DAMAGE: dict[str, Callable[[Path], object]] = {
    "is text": lambda path: path.write_bytes(b"this was a ledger\n" * 1000),
    "is empty": lambda path: os.truncate(path, 0),
    "is cut": lambda path: os.truncate(path, 6000),
    "has a page of noise": lambda path: path.write_bytes(noisy(path.read_bytes())),
    "is another program's": lambda path: another(path),
}


def another(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE t(x)")


def noisy(data: bytes) -> bytes:
    return data[:4096] + bytes(range(256)) * 16 + data[8192:]


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_ledger_is_an_error_that_says_what_to_do(how: str, desk: Desk) -> None:
    desk.pages(*"abc")
    desk.crawl()
    desk.asked()
    before = (desk.folder / "pages.jsonl").read_bytes()
    DAMAGE[how](ledger_of(desk))
    ended = desk.crawl()
    assert ended.code == 1
    (line,) = ended.said.splitlines()
    assert line.startswith("fetcher: pages.jsonl.job/ledger.sqlite: the ledger is damaged or not ours (")
    assert line.endswith("): put back the file as it was, or begin again with --fresh")
    assert (desk.folder / "pages.jsonl").read_bytes() == before
    assert desk.asked() == []
    assert desk.crawl("--fresh").code == 0
    assert desk.fetched() == [*"abc"]


@pytest.mark.parametrize("name", ["ledger.sqlite", "lock", "parsing"])
@pytest.mark.parametrize("kind", ["link", "dangling link", "FIFO", "folder"])
def test_nothing_in_a_hostile_folder_is_followed_or_waited_for(name: str, kind: str, desk: Desk) -> None:
    desk.pages("a")
    desk.crawl()
    desk.asked()
    victim = desk.folder / "victim"
    victim.write_bytes(b"precious\n")
    path = desk.folder / "pages.jsonl.job" / name
    path.unlink()
    match kind:
        case "link":
            path.symlink_to(victim)
        case "dangling link":
            path.symlink_to(desk.folder / "made")
        case "FIFO":
            os.mkfifo(path)
        case _:
            path.mkdir()
    for flags in ([], ["--fresh"]):
        ended = desk.crawl(*flags)
        if flags and ended.code == 0:
            assert name != "lock"
            assert kind != "folder"
            continue
        assert ended.code == 1, ended.said
        assert ended.said.startswith(f"fetcher: pages.jsonl.job/{name}: ")
        assert ended.said.count("\n") == 1
        assert desk.asked() == []
    assert victim.read_bytes() == b"precious\n"
    assert not (desk.folder / "made").exists()


def test_a_folder_with_something_else_in_it_is_no_job(desk: Desk) -> None:
    desk.pages("a")
    (desk.folder / "state").mkdir()
    for name in ("parsing-notes.txt", "lockers", "rewrite.py", "ledger.sqlite.bak", "holiday.png"):
        (desk.folder / "state" / name).write_bytes(b"mine")
        before = desk.files()
        for flags in ([], ["--fresh"]):
            ended = desk.crawl("--job", "state", *flags)
            message = f"state is no job of ours: it holds '{name}'; name another folder with --job"
            assert ended.said == f"fetcher: {message}\n"
            desk.refused(ended, message, 2)
            assert desk.files() == before
        (desk.folder / "state" / name).unlink()


def test_what_others_keep_in_a_jobs_folder_stays(desk: Desk) -> None:
    desk.pages("a")
    desk.crawl()
    notes = desk.folder / "pages.jsonl.job" / "rewrite.notes"
    notes.write_bytes(b"mine")
    assert desk.crawl("--fresh").code == 0
    assert notes.read_bytes() == b"mine"


def test_a_file_in_the_place_of_the_folder_is_named(desk: Desk) -> None:
    desk.pages("a")
    (desk.folder / "pages.jsonl.job").write_bytes(b"mine")
    message = "pages.jsonl.job: cannot make the folder of the job: Not a directory"
    desk.refused(desk.crawl(), message, 1)
    desk.refused(desk.crawl("--fresh"), message, 1)
    assert (desk.folder / "pages.jsonl.job").read_bytes() == b"mine"
    assert not (desk.folder / "pages.jsonl").exists()


def test_a_job_whose_parent_is_missing_is_named(desk: Desk) -> None:
    desk.pages("a")
    ended = desk.crawl("--job", "no/such")
    desk.refused(ended, "no/such: cannot make the folder of the job: No such file or directory", 1)
    ended = desk.crawl(to="no/pages.jsonl")
    desk.refused(ended, "no/pages.jsonl: the folder no does not exist", 1)
    ended = desk.crawl("--job", "pages.jsonl")
    desk.refused(ended, "job: pages.jsonl is an output; name a folder of its own", 2)
    assert sorted(desk.files()) == ["l.txt"]


def test_nothing_of_a_folder_is_unpickled_or_run(desk: Desk) -> None:
    """Whatever lies there under whatever name: a pickle that would write a file when it is loaded."""
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (exec, (f"open({str(desk.folder / 'owned')!r}, 'w')",))

    evil = pickle.dumps(Evil())
    desk.pages(*"ab")
    desk.crawl("--limit", "1")
    for name in ("state.pickle", "queue", "rewrite.0", "sitecustomize.py"):
        (desk.folder / "pages.jsonl.job" / name).write_bytes(evil)
    with closing(sqlite3.connect(ledger_of(desk))) as db:
        db.execute("UPDATE meta SET value = ?", (evil,))
        db.commit()
    ended = desk.crawl()
    assert ended.code == 1
    assert ended.said.startswith("fetcher: pages.jsonl.job/ledger.sqlite: the identity of the job cannot be read (")
    assert not (desk.folder / "owned").exists()


def test_what_a_ledger_says_never_steers_the_terminal(desk: Desk) -> None:
    desk.pages("a")
    desk.crawl()
    evil = "\x1b]0;owned\x07\u202e"
    with closing(sqlite3.connect(ledger_of(desk))) as db:
        identity = json.loads(db.execute("SELECT value FROM meta WHERE key = 'identity'").fetchone()[0])
        identity["select"] = [evil]
        db.execute("UPDATE meta SET value = ? WHERE key = 'identity'", (json.dumps(identity).encode(),))
        db.commit()
    ended = desk.crawl()
    assert ended.code == 2
    assert "\\x1b]0;owned\\x07\\u202e" in ended.said
    assert not set(evil) & {"\x1b", "\x07", "\u202e"} & set(ended.said)


# A place that cannot be written


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A folder that is a file system of its own, which can be made read-only."""
    if shutil.which("mount") is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root can mount a folder")
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip(f"no folder can be mounted: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


def test_a_read_only_folder_is_named_and_no_job_begins(mounted: Path, desk: Desk) -> None:
    desk.pages(*"ab")
    remount(mounted, "ro")
    ended = desk.crawl(to="disk/pages.jsonl")
    desk.refused(ended, "disk/pages.jsonl: cannot open: no permission to write there", 1)
    ended = desk.crawl("--job", "disk/state")
    desk.refused(ended, "disk/state: cannot make the folder of the job: Read-only file system", 1)
    remount(mounted, "rw")
    assert sorted(desk.files()) == ["l.txt"]
    assert desk.crawl(to="disk/pages.jsonl").code == 0


def test_a_folder_that_became_read_only_is_named_and_can_be_repaired(mounted: Path, desk: Desk) -> None:
    desk.pages(*"ab")
    desk.crawl("--limit", "1", to="disk/pages.jsonl")
    desk.asked()
    remount(mounted, "ro")
    ended = desk.crawl(to="disk/pages.jsonl")
    assert ended.code == 1
    assert ended.said.startswith("fetcher: disk/pages.jsonl")
    assert ended.said.count("\n") == 1
    assert desk.asked() == []
    remount(mounted, "rw")
    assert desk.crawl(to="disk/pages.jsonl").code == 0
    assert desk.fetched("disk/pages.jsonl") == ["a", "b"]


def test_a_job_on_another_file_system_than_its_output_retries(mounted: Path, desk: Desk) -> None:
    desk.write([*desk.urls("a"), desk.lab.url("/flaky/k?fail=1&status=404&n=b")])
    for flags in ([], ["--retry-failed"]):
        assert desk.crawl("--job", "disk/state", *flags).code == 0
    assert [record["error"] for record in desk.records()] == [None, None]
    assert sorted(path.name for path in desk.folder.iterdir() if "rewrite" in path.name) == []
