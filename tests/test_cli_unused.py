"""What is given and changes nothing: told before a run, which goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from fetcher.cli.settings import unknown_variables, unused_list_options
from tests.lab.command import environment, run
from tests.lab.ports import refused_port

WARNING = "warning: no setting is called FETCHER_PERHOST (did you mean FETCHER_PER_HOST?)"


def test_a_variable_that_no_command_reads_is_told_with_the_nearest() -> None:
    given = {
        "PATH": "/bin", "FETCHER_PER_HOST": "2", "FETCHER_ROUNDS": "1", "FETCHER_TRACEBACK": "1", "_FETCHER_COMPLETE": "x",
        "FETCHER_PERHOST": "3", "FETCHER_": "", "fetcher_delay": "1", "FETCHER_ZZZZZZ": "",
    }  # fmt: skip
    (text,) = unknown_variables(given)
    assert text == (
        "no setting is called FETCHER_, FETCHER_PERHOST (did you mean FETCHER_PER_HOST?), FETCHER_ZZZZZZ, "
        "fetcher_delay (did you mean FETCHER_DELAY?)"
    )
    assert list(unknown_variables({"PATH": "/bin", "FETCHER_ROBOTS": "0"})) == []


@pytest.mark.parametrize(
    ("inputs", "settings", "said"),
    [
        (["urls.txt"], {"url_column": "link"}, ["urls.txt is read as txt, one URL a line (--from csv reads columns)"]),
        (["-"], {"url_column": "link"}, ["stdin is read as txt, one URL a line (--from csv reads columns)"]),
        (["http://a.example/"], {"url_column": "link"}, ["no INPUT is a list"]),
        (["urls.csv"], {"url_column": "link", "from": "txt"}, ["urls.csv is read as txt, one URL a line (--from csv reads columns)"]),
        (["urls.txt", "urls.csv.gz"], {"url_column": "link"}, []),
        (["-"], {"url_column": "link", "from": "jsonl"}, []),
        (["urls.txt"], {"url_column": "url"}, []),
        (["urls.txt"], {}, []),
        ([], {"url_column": "link"}, []),
    ],
)  # fmt: skip
def test_a_column_is_told_where_no_input_has_any(
    inputs: list[str], settings: dict[str, str], said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert list(unused_list_options(inputs, settings)) == [f"url-column is of no use here: {text}" for text in said]
    settings = {"carry" if key == "url_column" else key: value for key, value in settings.items() if value != "url"}
    assert list(unused_list_options(inputs, settings)) == [f"carry is of no use here: {text}" for text in said]


def test_a_delimiter_is_told_where_no_input_is_a_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {"delimiter": ";"}
    assert list(unused_list_options(["l.tsv"], settings)) == ["delimiter is of no use here: l.tsv is read as tsv"]
    assert list(unused_list_options(["l.tsv", "l.csv"], settings)) == []


def test_the_options_of_a_sitemap_and_of_a_list_on_the_network() -> None:
    url = "http://u:p@l.example/x"
    of_sitemap = {"from": "sitemap", "url_column": "link", "carry": ["lastmod"], "delimiter": ";", "encoding": "cp1252"}
    what = "http://l.example/x is read as sitemap"
    assert list(unused_list_options([url], of_sitemap)) == [
        f"url-column is of no use here: {what}",
        f"delimiter is of no use here: {what}",
        f"encoding is of no use here: {what}, which says its own",
    ]
    assert list(unused_list_options([url], {**of_sitemap, "from": "csv"})) == []


@pytest.mark.parametrize(
    "words", ["crawl l.txt --retries 0 --url-column link", "bench l.txt -n 1 -c 1 --rounds 1 --retries 0"]
)
def test_a_run_says_it_and_goes_on(words: str, tmp_path: Path) -> None:
    env = environment(tmp_path, FETCHER_PERHOST="3")
    with refused_port() as port:
        (tmp_path / "l.txt").write_text(f"http://127.0.0.1:{port}/\n")
        ended = run(*words.split(), folder=tmp_path, env=env)
        quiet = run(*words.split(), "-q", folder=tmp_path, env=env)
    assert ended.said.splitlines()[0] == f"fetcher: {WARNING}"
    assert ("warning: url-column is of no use here: l.txt" in ended.said) == ("url-column" in words)
    assert "no setting" not in quiet.said
    assert " 1 requests" not in ended.said
    assert (" 1 request;" in ended.said) == words.startswith("crawl")


def test_robots_says_it_too(tmp_path: Path) -> None:
    with refused_port() as port:
        url = f"http://127.0.0.1:{port}/"
        ended = run("robots", url, "--retries", "0", folder=tmp_path, env=environment(tmp_path, FETCHER_PERHOST="3"))
    assert ended.said.startswith(f"fetcher: {WARNING}\n")
