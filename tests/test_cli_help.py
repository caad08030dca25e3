"""``fetcher help``, the groups of flags, and the man page: none of what there is, is missing, and README says the same."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from fetcher import errors, topics
from fetcher.cli import exits
from fetcher.cli.commands import COMMANDS, GROUPS, cli, group_of
from fetcher.cli.manual import manual
from fetcher.errors import RETRYABLE, FetchError
from fetcher.model import Failure, Page
from fetcher.sinks import COLUMNS, FORMATS
from fetcher.sources.inputs import FORMATS as LISTS
from tests import documents
from tests.lab.command import run
from tests.lab.server import LabServer

FOLDER = "fetcher/topics"
OPTIONS = {
    param: name
    for name in COMMANDS
    for param in getattr(cli.get_command(click.Context(cli), name), "params", ())
    if isinstance(param, click.Option) and not param.hidden
}


def explained(name: str) -> str:
    ended = run("help", name, folder=Path.cwd())
    assert (ended.code, ended.said) == (0, ""), ended.said
    return ended.text


def test_each_flag_has_a_paragraph_and_a_group() -> None:
    missing = {
        f"{long} (of fetcher {name})"
        for option, name in OPTIONS.items()
        if name != "help"
        for long in option.opts
        if long.startswith("--") and long not in topics.topics("flag")
    }
    assert not missing, (
        f"write '## FLAG' and a paragraph below a heading of {FOLDER}/flags.md, then run python -m tests.documents"
    )
    assert {group_of(option) for option, name in OPTIONS.items() if name != "help"} <= set(GROUPS) - {"Other"}


def test_no_paragraph_is_about_a_flag_that_is_gone() -> None:
    known = {name for option in OPTIONS for name in option.opts} | {"--help", "--version"}
    assert set(topics.topics("flag")) <= known


def test_each_code_has_a_paragraph_and_what_to_do() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FetchError)]
    codes = {code for kind in kinds for code in kind.codes} | {"http_NNN"}
    assert codes <= set(topics.topics("code")), f"write it in {FOLDER}/codes.md"
    assert {code for code in topics.topics("code") if not code.startswith("http_")} <= codes
    assert [topic.name for topic in topics.topics("code").values() if not topic.part("Next")] == []
    assert {topics.general_name(code) for code in RETRYABLE} <= set(topics.topics("code"))


def test_each_format_column_exit_code_and_field_has_one() -> None:
    assert {*FORMATS, *LISTS} <= set(topics.topics("format")), f"write it in {FOLDER}/formats.md"
    assert {name for name in LISTS if not topics.topics("format")[name].part("List")} == set()
    assert {name for name in FORMATS if not topics.topics("format")[name].part("Output")} == set()
    assert tuple(topics.topics("column")) == COLUMNS, f"write it in {FOLDER}/columns.md"
    codes = {value for name, value in vars(exits).items() if name.isupper()}
    assert {int(name) for name in topics.topics("exit")} == codes, f"write it in {FOLDER}/exits.md"
    fields = {*documents.fields_of(Page), *documents.fields_of(Failure)}
    assert set(topics.topics("field")) == fields, f"write it in {FOLDER}/fields.md"


@pytest.mark.parametrize("name", [name for kind in topics.FILES for name in topics.topics(kind)])
def test_each_of_them_is_printed(name: str) -> None:
    found = topics.find(name)
    assert found
    assert all(topic.text for topic in found)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("host_budget", "--retry-failed"),
        ("--per-host", "FETCHER_PER_HOST"),
        ("per-host", "FETCHER_PER_HOST"),
        ("-c", "--concurrency N"),
        ("404", "http_404  Not Found (error code)"),
        ("http_418", "http_418  I'm a Teapot (error code)"),
        ("csv", "--csv-bom"),
        ("summary", "skipped"),
        ("digest", "column of a record"),
        ("130", "SIGINT"),
        ("curl", "--max-time"),
        ("--tries", "wget: --retries N"),
        ("crawl", "Usage: fetcher crawl"),
        ("page", "Page"),
    ],
)
def test_what_is_asked_about_is_explained(name: str, said: str) -> None:
    assert said.lower() in explained(name).lower()


def test_what_is_unknown_is_told_with_what_is_near() -> None:
    ended = run("help", "host_buget", folder=Path.cwd())
    assert (ended.code, ended.out) == (2, b"")
    assert "did you mean host_budget" in ended.said


def test_the_help_of_a_crawl_is_in_groups() -> None:
    text = run("crawl", "--help", folder=Path.cwd()).text
    assert re.findall(r"^(\w+):$", text, re.MULTILINE) == list(GROUPS[:-1])
    assert "--max-time" not in text


def test_readme_and_the_man_page_say_the_same() -> None:
    text = documents.README.read_text(encoding="utf-8")
    assert set(re.findall(r"<!-- ([a-z ]+) -->", text)) == set(documents.TABLES)
    assert documents.readme(text) == text, "run python -m tests.documents"
    assert documents.MAN_PAGE.read_text(encoding="utf-8") == manual(), "run python -m tests.documents"


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="there is no mandoc")
def test_mandoc_finds_nothing_in_the_man_page() -> None:
    done = subprocess.run(["mandoc", "-Tlint", str(documents.MAN_PAGE)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_command_that_was_copied_as_curl_runs(tmp_path: Path) -> None:
    with LabServer.in_thread() as lab:
        url = lab.url("/ok")
        ended = run(
            "crawl", url, "-H", "accept: text/html", "-H", "Accept-Encoding: gzip, deflate, br, zstd", "-H", "sec-ch-ua-mobile: ?0",
            "-b", "c=d; e=f", "-H", "user-agent: Mozilla/5.0 (X11)", "--compressed", "-X", "GET", "-L", "-s", "--max-time", "20",
            "--retry", "1", "--referer", "https://example.com/", folder=tmp_path,
        )  # fmt: skip
        assert (ended.code, ended.said) == (0, "")
        assert ended.text.startswith(f"{url} -> ")
        again = run("crawl", "--url", url, "-I", folder=tmp_path)
        assert again.text.startswith(f"{url} -> 200")
        (first, second) = lab.log
    headers = {name.lower(): value for name, value in first.headers}
    assert (headers["cookie"], headers["referer"], headers["user-agent"]) == (
        "c=d; e=f",
        "https://example.com/",
        "Mozilla/5.0 (X11)",
    )
    assert second.method == "HEAD"


def test_files_are_completed_where_files_are_meant() -> None:
    for words in ("fetcher crawl sh", "fetcher crawl -o sh", "fetcher report sh", "fetcher crawl --config sh"):
        done = run(
            folder=Path.cwd(),
            env={"_FETCHER_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)},
        )
        assert done.text.strip() == "file,sh", words
