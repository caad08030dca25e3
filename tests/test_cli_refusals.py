"""Wrong flags and wrong values: each is named with what is allowed and the next step, on one line and with exit 2."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click
import pytest

from fetcher import topics
from fetcher.cli.commands import COMMANDS, cli
from fetcher.cli.main import main

VALUES = """
--concurrency 0 : at least 1
--concurrency ten : a whole number
--workers ray:0 : a number of processes, at least 1, or auto, ray or ray:N
--concurrency 1.5 : a whole number
--concurrency '' : a whole number
--per-host 0 : at least 1
--per-host none : a whole number
--per-site 0 : at least 1
--per-address many : a whole number
--delay soon : such as 30, 500ms or 2m
--delay -1 : at least 0
--max-crawl-delay 1week : such as 30, 500ms or 2m
--rate 5/day : such as 5/s or 100/m
--rate 0 : more than 0
--rate fast : a number
--timeout 0 : more than 0 seconds
--timeout soon : such as 30, 500ms or 2m
--connect-timeout -1 : at least 0
--read-timeout x : such as 30, 500ms or 2m
--retries -1 : at least 0
--retries twice : a whole number
--retry-on 1000 : such as 200-299,304 or 2xx
--retry-on 299-200 : from 100 to 999
--max-retry-after long : such as 30, 500ms or 2m
--host-patience -2 : at least 0
--max-redirects -1 : at least 0
--max-size big : such as 500K or 10M
--max-size 0 : at least 1
--accept ok : such as 200-299,304 or 2xx
--max-failed few : such as 10 or 5%
--limit -1 : at least 0
--limit all : a whole number
--shard 0/4 : from 1/4 to 4/4
--shard half : share I of N
--time-limit 0 : more than 0
--depth deep : a whole number
--max-pages 0 : at least 1
--max-pages-per-host 0 : at least 1
--parsers 0 : at least 1
--parse-timeout 0 : more than 0
--preview -1 : at least 0
--part-rows 0 : at least 1
--workers 0 : at least 1
--max-age later : such as 30, 500ms or 2m
--format xml : text, jsonl, csv, parquet, sqlite, warc
--format json : jsonl
--from xls : txt, csv, tsv, jsonl
--default-scheme ftp : auto, https, http
--within planet : host, site, prefix
--tls old : default, compatible
--private-network no : allow, listed, deny
--text quick : body, fast, best
--text-format html : plain, markdown
--log-format xml : text, json
--columns url,staus : did you mean status?
--with linx : did you mean links?
--encoding klingon : cp1252
--delimiter ;; : one character
--header nonsense : 'Name: value'
--proxy socks5://x:1 : http:// or https://
--extract mine : MODULE:FUNCTION
--middleware mine : MODULE:FUNCTION
--select h1 : NAME=CSS
--metrics 99999 : 65535
"""
"""A flag with a value, and what of the allowed is named."""

FLAGS = {
    "--threads 4": "-c N", "--jobs 4": "-c N", "--processes 2": "--workers N", "--sleep 1": "--delay S",
    "--tries 3": "--retries N", "--resume": "same command", "--overwrite": "--fresh", "--max-depth 3": "--depth N",
    "--user_agent x": "--user-agent", "--url_list x": "--from FORMAT", "--data-raw x": "only GETs", "-d x": "only GETs",
    "--json x": "-f jsonl", "-O": "--body DIR", "--concurency 5": "--concurrency", "--per-hots 5": "--per-host",
    "--max-parallel-requests 5": "--concurrency", "--no-robots-txt": "--no-robots", "--output-document x": "--body DIR",
    "--recursive": "--follow", "--input-file l.txt": "fetcher crawl FILE", "--http2": "HTTP/1.1", "--zzzz": "'fetcher crawl' has ",
    "--worker 2": "did you mean --workers?", "--max-rate 5": "did you mean --rate?", "--foo": "in the groups Input, Output, Pace",
    "--render": "in the groups", "--resme": "nor --resume: here the same command", "--parralel 4": "nor --parallel: it is so anyway",
    "--sqlite": "did you mean --format sqlite?", "--watch": "did you mean the command 'fetcher watch'?", "--v": "in the groups",
    "--pages 5": "--pages is one of 'fetcher serve'", "-Z 5": "it is so anyway; how many is -c N", "--tor": "in the groups",
    "-X POST": "must be GET", "-X HEAD": "--head", "--concurrency": "needs a value", "--head=5": "takes no value",
}  # fmt: skip
"""A flag that there is none of here, and what is said in its place."""


def cases() -> list[tuple[str, str, str]]:
    found = []
    for line in VALUES.strip().splitlines():
        words, _, allowed = line.partition(" : ")
        flag, _, value = words.partition(" ")
        found.append((flag, value.strip("'"), allowed))
    return found


def said_by(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command line in this process; it must refuse, on one line."""
    monkeypatch.setattr(sys, "argv", ["fetcher", *words])
    with pytest.raises(SystemExit) as exit_:
        main()
    out, err = capsys.readouterr()
    assert (exit_.value.code, out, err.count("\n")) == (2, "", 1), err
    return err.removeprefix("fetcher: ").rstrip("\n")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "l.txt").write_text("http://127.0.0.1:9/\n", encoding="utf-8")
    return tmp_path


def test_there_are_enough_of_them() -> None:
    assert len(cases()) + len(FLAGS) >= 80


@pytest.mark.parametrize(("flag", "value", "allowed"), cases(), ids=lambda part: part)
def test_a_value_that_is_wrong(
    flag: str, value: str, allowed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = said_by(
        ["crawl", "l.txt", f"{flag}={value}", *(["--since", "x"] if flag == "--max-age" else [])], monkeypatch, capsys
    )
    assert re.match(rf"{flag}[ :]", said), "the flag is the first that is said"
    assert value.rpartition(",")[2] in said
    assert allowed in said
    assert said.endswith(f"(see 'fetcher help {flag}')")


@pytest.mark.parametrize("key", ["concurrency = 0", "rate = '5/day'", "format = 'xml'", "quiet = 'yes'"])
def test_a_line_of_a_file_that_is_wrong(
    key: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "fetcher.toml").write_text(f"{key}\n", encoding="utf-8")
    name = key.partition(" ")[0]
    said = said_by(["crawl", "l.txt"], monkeypatch, capsys)
    assert re.match(rf"fetcher\.toml: {name} \S+: must be ", said)
    assert said.endswith(f"(see 'fetcher help --{name}')")


@pytest.mark.parametrize("words", FLAGS)
def test_a_flag_that_there_is_none_of(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = said_by(["crawl", "l.txt", *words.split()], monkeypatch, capsys)
    assert FLAGS[words] in said
    assert "(see 'fetcher " in said
    assert "there is no such flag (see" not in said, "what is allowed is named too"


OTHERS = {
    "report p --worker 2": "--workers is one of 'fetcher crawl', 'fetcher extract' (see 'fetcher help --workers')",
    "report p --zzzz": "'fetcher report' has --json, --hosts, --errors, --changes, --html, --verbose (see 'fetcher report --help')",
    "report p -Q": "'fetcher report' has --json",
    "watch p --opne": "did you mean --open?",
    "serve --prot 5": "did you mean --port?",
    "bench --formt csv": "--format is one of 'fetcher crawl'",
    "bench --zzzz": "in the groups Input, Pace, Retries, Network, Parsing, Run",
    "completion --zzzz": "'fetcher completion' has none",
    "completion tcsh": "SHELL tcsh: must be one of bash, zsh, fish",
    "extract x.warc.gz --concurrency 5": "--concurrency is one of 'fetcher crawl'",
    "extract": "SOURCE is missing: fetcher extract SOURCE",
    "report": "JOB|OUTPUT... is missing: fetcher report JOB|OUTPUT...",
    "--worker 2": "--workers is one of 'fetcher crawl'",
    "--zzzz": "flags stand behind the command, as in 'fetcher crawl ",
    "crwl l.txt": "did you mean 'crawl'?",
}
"""What is wrong with other commands, and what is said of it."""


@pytest.mark.parametrize("words", OTHERS)
def test_what_is_wrong_with_another_command(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = said_by(words.split(), monkeypatch, capsys)
    assert OTHERS[words] in said
    assert "(see 'fetcher " in said


@pytest.mark.parametrize(
    ("name", "meant"),
    [("shop.tx", "shop.txt"), ("shp.txt", "shop.txt"), ("hsop.txt", "shop.txt"), ("shop.cvs.gz", "shop.csv.gz")],
)
def test_a_file_beside_the_name_is_asked_about(
    name: str, meant: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / meant).touch()
    said = said_by(["crawl", name], monkeypatch, capsys)
    assert said.startswith(f"{name}: no such file: did you mean {meant}?")
    assert ("https://shop.tx" in said) == (name == "shop.tx")


def test_every_answer_names_flags_that_there_are() -> None:
    """What is answered to a flag of another program must be something that can be typed here."""
    known = {
        name for command in commands() for param in command.params for name in (*param.opts, *param.secondary_opts)
    }
    rows = [
        *topics.synonyms(),
        *(row for each in topics.topics("coming from").values() for row in topics.table_rows(each.text)),
    ]
    named = {flag for row in rows for flag in re.findall(r"`(--?[a-zA-Z][\w-]*)", row.ours)}
    taken = {"-vv", "--compressed", "--referer", "--wait", *(opt for alias in aliases().values() for opt in alias)}
    assert named - known - taken == set()


def commands() -> list[click.Command]:
    context = click.Context(cli)
    return [command for name in COMMANDS if (command := cli.get_command(context, name)) is not None]


def aliases() -> dict[str, tuple[str, ...]]:
    from fetcher.cli.crawl import ALIASES

    return ALIASES


def test_names_of_other_programs_are_not_names_of_ours() -> None:
    known = {name for command in commands() for param in command.params for name in param.opts}
    assert known.isdisjoint(opt for names in aliases().values() for opt in names)
