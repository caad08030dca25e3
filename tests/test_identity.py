from __future__ import annotations

import json
import os
from typing import Any

import msgspec
import pytest

from fetcher.config import Config
from fetcher.errors import ConfigError, LedgerError
from fetcher.job.identity import _FLAGS, JobIdentity
from fetcher.sources import ListOptions
from fetcher.urls import suffixes_digest

ADVICE = "give it as before, write to another -o, or begin again with --fresh"


def identity(config: Config | None = None, **changed: Any) -> JobIdentity:
    given: dict[str, Any] = {
        "inputs": ["urls.txt"], "list_options": ListOptions(), "outputs": ["jsonl.gz"], "extract": None,
    }  # fmt: skip
    return JobIdentity.of(config or Config(), **(given | changed))


def test_a_table_has_the_columns_of_one_list_where_that_is_said() -> None:
    assert not identity(outputs=["csv"]).one_table
    assert identity(outputs=["csv.gz"], one_table=True).one_table
    assert not identity(outputs=["jsonl"], one_table=True).one_table


def test_a_table_begins_with_a_mark_where_that_is_said() -> None:
    assert not identity(outputs=["csv"]).csv_bom
    assert identity(outputs=["csv.gz"], csv_bom=True).csv_bom
    assert not identity(outputs=["jsonl"], csv_bom=True).csv_bom


def test_an_identity_comes_back_as_it_was() -> None:
    config = Config.of(
        select=["h=h1", "p=.price"], accept="2xx,404", dedupe=True, max_size="1M", truncate=True, preview=9
    )
    some = identity(
        config, inputs=["a.txt", "https://a.example/ö"], list_options=ListOptions(format="csv"), extract="mod:func"
    )
    assert JobIdentity.from_json(some.to_json()) == some
    JobIdentity.from_json(some.to_json()).check(some)
    assert json.loads(some.to_json())["accept"] == "200-299,404"


def test_what_an_older_ledger_does_not_say_was_as_it_is_by_default() -> None:
    some = identity()
    said = msgspec.structs.asdict(some)
    for field in msgspec.structs.fields(JobIdentity):
        if not field.required:
            rest = msgspec.json.encode({name: value for name, value in said.items() if name != field.name})
            assert JobIdentity.from_json(rest) == some, field.name


@pytest.mark.parametrize(
    ("accept", "kept"),
    [
        ("200-204,205", "200-205"),
        ("205,200-204", "200-205"),
        ("200-204,206", "200-204,206"),
        ("200-210,201-205", "200-210"),
    ],
)
def test_statuses_are_the_same_however_they_are_given(accept: str, kept: str) -> None:
    assert identity(Config.of(accept=accept)).accept == kept


def test_that_links_are_followed_is_said_where_they_are() -> None:
    assert [identity(Config.of(follow=follow)).follow for follow in (False, True)] == [False, True]


def test_a_file_name_that_is_no_text_is_kept_and_recognised() -> None:
    odd = os.fsdecode(b"caf\xe9.txt")
    some = identity(inputs=[odd])
    JobIdentity.from_json(some.to_json()).check(identity(inputs=[odd]))
    with pytest.raises(ConfigError):
        some.check(identity(inputs=[os.fsdecode(b"caf\xe8.txt")]))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"list_options": ListOptions(format="csv")}, "--from was not given when this job began, and is csv"),
        ({"list_options": ListOptions(url_column="link")}, "--url-column was url when this job began, and is link"),
        ({"list_options": ListOptions(delimiter=";")}, "--delimiter was not given when this job began, and is ;"),
        (
            {"list_options": ListOptions(encoding="cp1252")},
            "--encoding was not given when this job began, and is cp1252",
        ),
        ({"list_options": ListOptions(carry=("a", "b"))}, "--carry was not given when this job began, and is a, b"),
        ({"list_options": ListOptions(carry=())}, "--carry was not given when this job began, and is nothing"),
        ({"outputs": ["csv"]}, "the format of -o was jsonl.gz when this job began, and is csv"),
        ({"outputs": ["jsonl.gz", "csv"]}, "the format of -o was jsonl.gz when this job began, and is jsonl.gz, csv"),
        ({"extract": "mod:f"}, "--extract was not given when this job began, and is mod:f"),
        (Config.of(default_scheme="http"), "--default-scheme was auto when this job began, and is http"),
        (Config.of(select=["a=b"]), "--select was not given when this job began, and is a=b"),
        (Config.of(accept="200,404"), "--accept was 200-299 when this job began, and is 200,404"),
        (Config.of(dedupe=True), "--dedupe was off when this job began, and is on"),
        (Config.of(max_size=5000), "--max-size was 10485760 when this job began, and is 5000"),
        (Config.of(truncate=True), "--truncate was off when this job began, and is on"),
        (Config.of(with_="links,meta"), "--with was not given when this job began, and is meta, links"),
        (Config.of(text="fast"), "--text was not given when this job began, and is fast"),
        (Config.of(shard="2/4"), "--shard was not given when this job began, and is 2/4"),
        (Config.of(preview=80), "--preview was 0 when this job began, and is 80"),
    ],
)
def test_a_term_that_changed_is_refused_with_what_to_do(changed: Any, message: str) -> None:
    now = identity(changed) if isinstance(changed, Config) else identity(**changed)
    with pytest.raises(ConfigError) as caught:
        identity().check(now)
    assert str(caught.value) == f"{message}: {ADVICE}"


def test_a_default_that_changed_is_told_by_what_to_give() -> None:
    before = identity(Config.of(default_scheme="https"))  # the default, once
    with pytest.raises(ConfigError) as caught:
        before.check(identity())
    assert str(caught.value) == (
        "--default-scheme was https when this job began, and is auto: give --default-scheme https, write to another -o, "
        "or begin again with --fresh"
    )


def test_every_term_is_compared() -> None:
    assert set(_FLAGS) | {"inputs", "one_table", "suffixes"} == set(JobIdentity.__struct_fields__)


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 7}, {"retries": 9}, {"timeout": 3}, {"per_host": 1}, {"limit": 5}, {"user_agent": "x"},
        {"header": ["X: 1"]}, {"proxy": "127.0.0.1:3128"}, {"isolate": True}, {"accept": "200-250,251-299"},
        {"accept": "2xx"},
    ],
)  # fmt: skip
def test_all_else_may_change(options: dict[str, Any]) -> None:
    identity().check(identity(Config.of(**options)))


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (["urls.txt"], ["urls.txt"]),
        (["lists/urls.txt"], ["/elsewhere/urls.txt"]),
        (["a.txt"], ["a.txt", "b.txt"]),
        (["-"], ["-"]),
        ([], []),
        ([], ["a.txt"]),
        (["https://a.example/x"], ["https://a.example/x", "https://b.example/x"]),
    ],
)
def test_a_list_that_grew_or_moved_is_taken_on(was: list[str], now: list[str]) -> None:
    identity(inputs=was).check(identity(inputs=now))


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (["a.txt"], ["lists/a.txt"], None),
        (["a.txt"], ["b.txt"], ("INPUT 1", "a.txt", "b.txt")),
        (["a.txt"], ["a.txt", "b.txt"], ("INPUT 2", "not given", "b.txt")),
        (["a.txt", "b.txt"], ["a.txt"], ("INPUT 2", "b.txt", "not given")),
        ([], ["a.txt"], ("INPUT 1", "not given", "a.txt")),
    ],
)
def test_of_two_jobs_the_first_list_that_differs_is_named(
    one: list[str], other: list[str], told: tuple[str, str, str] | None
) -> None:
    assert identity(inputs=one).other_list(identity(inputs=other)) == told


@pytest.mark.parametrize(
    ("was", "now", "message"),
    [
        (["a.txt"], ["b.txt"], "INPUT 1 was a.txt when this job began, and is b.txt"),
        (["a.txt", "b.txt"], ["b.txt", "a.txt"], "INPUT 1 was a.txt when this job began, and is b.txt"),
        (["a.txt", "b.txt"], ["a.txt"], "INPUT 2 was b.txt when this job began, and is not given"),
        (
            ["https://a.example/x"],
            ["https://b.example/x"],
            "INPUT 1 was https://a.example/x when this job began, and is ",
        ),
        (["urls.txt"], ["https://a.example/urls.txt"], "INPUT 1 was urls.txt when this job began, and is https://a.ex"),
        (["-"], ["a.txt"], "INPUT 1 was - when this job began, and is a.txt"),
    ],
)
def test_a_list_that_changed_is_refused(was: list[str], now: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        identity(inputs=was).check(identity(inputs=now))
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith(ADVICE)


def test_the_first_term_that_changed_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^INPUT 1 "):
        identity().check(
            identity(Config.of(dedupe=True), inputs=["b.txt"], list_options=ListOptions(url_column="link"))
        )
    with pytest.raises(ConfigError, match=r"^--url-column "):
        identity().check(identity(Config.of(dedupe=True), list_options=ListOptions(url_column="link")))


def test_values_are_bounded_and_harmless_in_messages() -> None:
    evil = identity(inputs=["\x1b]0;owned\x07" + "x" * 100_000])
    with pytest.raises(ConfigError) as caught:
        JobIdentity.from_json(evil.to_json()).check(identity())
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"inputs":[1]}',
        msgspec.json.encode(msgspec.structs.asdict(identity()) | {"max_size": "10M"}),
        msgspec.json.encode(msgspec.structs.asdict(identity()) | {"max_size": None}),
        msgspec.json.encode(msgspec.structs.asdict(identity()) | {"inputs": "urls.txt"}),
        msgspec.json.encode(msgspec.structs.asdict(identity()) | {"\x1b[2J": "[" * 1_000}),
    ],
)  # fmt: skip
def test_nonsense_is_refused(data: bytes) -> None:
    with pytest.raises(
        LedgerError, match=r"^job/ledger\.sqlite: the identity of the job cannot be read \(.*--fresh"
    ) as caught:
        JobIdentity.from_json(data, path="job/ledger.sqlite")
    assert "\x1b" not in str(caught.value)
    with pytest.raises(LedgerError, match=r"^the identity of the job cannot be read"):
        JobIdentity.from_json(data)


def test_by_which_suffix_list_rows_are_dealt_is_noted_where_they_are() -> None:
    assert identity().suffixes is None
    assert identity(Config.of(shard="1/2")).suffixes == suffixes_digest()


def test_whether_pages_are_parsed_must_not_change_where_a_record_has_a_title() -> None:
    unparsed = Config.of(parse=False)
    with pytest.raises(ConfigError, match="parse was off when this job began, and is on"):
        identity(unparsed).check(identity())
    identity(unparsed, outputs=["text"]).check(identity(outputs=["text"]))


def test_what_was_asked_for_is_told_without_what_goes_without_saying() -> None:
    assert list(identity().asked()) == []
    some = identity(Config.of(dedupe=True, max_size="1M"), list_options=ListOptions(format="csv"))
    assert dict(some.asked()) == {"--dedupe": "on", "--max-size": "1048576", "--from": "csv"}
