"""Only what changed: ``--since`` against a server that keeps versions of its pages, whose log is the judge."""

from __future__ import annotations

import csv
import json
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from warcio.archiveiterator import ArchiveIterator

from fetcher import ConfigError, Fetcher, Job, LedgerError, Page, Request, Response, StatusError
from fetcher.job import since
from fetcher.middleware.conditional import conditions_of
from tests.lab.command import environment, run
from tests.lab.desk import Desk, plain
from tests.lab.open_files import open_files
from tests.lab.server import LabServer
from tests.lab.versioned import VersionedSite
from tests.sweeps.since import play
from tests.test_readme import README

SELECT = ["--select", "price=b.p:float", "--select", "marks[]=i", "--select", "head=h1"]
FORMATS = ["jsonl", "jsonl.gz", "csv", "parquet", "sqlite", "warc.gz"]


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread() as server:
        yield server


@pytest.fixture
def desk(lab: LabServer, tmp_path: Path) -> Desk:
    return Desk(lab, tmp_path)


def site_of(desk: Desk, *names: str, by: str = "etag") -> VersionedSite:
    site = VersionedSite(*names, by=by)
    desk.lab.site.own["", "/versioned"] = site
    desk.write(desk.urls(*names, path="/versioned"))
    return site


def name_of(record: dict[str, Any]) -> str:
    return str(record["url"]).rpartition("=")[2]


def changes(desk: Desk, to: str) -> dict[str, str | None]:
    return {name_of(record): record["change"] for record in desk.records(to)}


def reset(site: VersionedSite) -> None:
    site.sent = 0
    site.told.clear()
    site.conditions.clear()


@pytest.mark.parametrize("kind", FORMATS)
def test_a_site_that_changed_a_little_costs_little(desk: Desk, kind: str) -> None:
    names = [f"p{number}" for number in range(100)]
    site = site_of(desk, *names)
    assert desk.crawl(to=f"old.{kind}").code == 0
    first = site.sent
    reset(site)
    for name in names[:4]:
        site.versions[name] = 2
    site.versions["p9"] = None
    site.versions |= {"new1": 1, "new2": 1}
    listed = [*names[:95], "new1", "new2"]
    random.Random(7).shuffle(listed)
    desk.write(desk.urls(*listed, path="/versioned"))
    ended = desk.crawl("--since", f"old.{kind}", to="new.jsonl")
    assert ended.code == 0, ended.said
    assert site.told == {304: 90, 200: 6, 404: 1}
    assert site.sent < first / 10
    found = changes(desk, "new.jsonl")
    assert {name for name, change in found.items() if change == "changed"} == set(names[:4])
    assert {name for name, change in found.items() if change == "new"} == {"new1", "new2"}
    assert [name for name, change in found.items() if change == "gone"] == ["p9"]
    assert sum(change == "unchanged" for change in found.values()) == 90
    assert "\n  2 new, 4 changed, 90 unchanged, 1 gone\n" in ended.said
    assert desk.stats()["changes"] == {"new": 2, "changed": 4, "unchanged": 90, "gone": 1}


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_carried_over_is_the_old_record(desk: Desk, kind: str) -> None:
    site = site_of(desk, "a", "b", by="both")
    options = [*SELECT, "--keep-headers", "etag"]
    desk.crawl(*options, to="plain.jsonl")
    assert desk.crawl(*options, to=f"old.{kind}").code == 0
    reset(site)
    ended = desk.crawl(*options, "--since", f"old.{kind}", to="new.jsonl")
    assert ended.code == 0, ended.said
    assert site.told == {304: 2}
    assert site.conditions[:2] == [
        ("if-none-match", site.conditions[0][1]),
        ("if-modified-since", "Sun, 01 Nov 2026 08:00:00 GMT"),
    ]
    own = ("id", "elapsed", "waited", "fetched_at", "change", "checked_at")
    for was, now in zip(desk.records("plain.jsonl"), desk.records("new.jsonl"), strict=True):
        assert {key: now[key] for key in now if key not in own} == {key: was[key] for key in was if key not in own}
        assert now["data"] == {"price": 1.5, "marks": ["x", name_of(now)], "head": name_of(now)}
        assert (now["change"], now["fetched_at"] < now["checked_at"]) == ("unchanged", True)


@pytest.mark.parametrize("to", FORMATS)
def test_a_chain_of_runs_goes_from_format_to_format(desk: Desk, to: str) -> None:
    site = site_of(desk, "a", "b")
    desk.crawl(*SELECT, to="old.jsonl")
    assert desk.crawl(*SELECT, "--since", "old.jsonl", to=f"mid.{to}").code == 0
    reset(site)
    site.versions["b"] = 2
    ended = desk.crawl(*SELECT, "--since", f"mid.{to}", to="new.jsonl")
    assert ended.code == 0, ended.said
    assert site.told == {304: 1, 200: 1}
    assert changes(desk, "new.jsonl") == {"a": "unchanged", "b": "changed"}
    first, last = desk.records("old.jsonl")[0], desk.records("new.jsonl")[0]
    assert (last["fetched_at"], last["data"]) == (first["fetched_at"], first["data"])


def test_in_an_archive_a_304_is_a_revisit(desk: Desk) -> None:
    site_of(desk, "a")
    desk.crawl(to="old.warc.gz")
    assert desk.crawl("--since", "old.warc.gz", to="new.warc.gz").code == 0
    with (desk.folder / "new.warc.gz").open("rb") as file:
        found = [
            (record.rec_type, dict(record.rec_headers.headers), record.content_stream().read())
            for record in ArchiveIterator(file)
        ]
    assert [kind for kind, *_ in found] == ["warcinfo", "request", "revisit", "metadata"]
    _, revisit, body = found[2]
    assert revisit["WARC-Profile"] == "http://netpreserve.org/warc/1.1/revisit/server-not-modified"
    assert revisit["WARC-Refers-To-Target-URI"] == desk.urls("a", path="/versioned")[0]
    assert (revisit["WARC-Refers-To-Date"] < revisit["WARC-Date"], body) == (True, b"")
    record = json.loads(found[3][2])
    assert (record["change"], record["status"], record["bytes"] > 0) == ("unchanged", 200, True)


def test_a_date_alone_will_do_to_ask_with(desk: Desk) -> None:
    site = site_of(desk, "a", "b", by="date")
    desk.crawl(to="old.jsonl")
    reset(site)
    site.versions["b"] = 2
    assert desk.crawl("--since", "old.jsonl", to="new.jsonl").code == 0
    assert site.told == {304: 1, 200: 1}
    assert {name for name, _ in site.conditions} == {"if-modified-since"}
    assert changes(desk, "new.jsonl") == {"a": "unchanged", "b": "changed"}


def test_a_row_that_failed_before_was_no_page(desk: Desk) -> None:
    site = site_of(desk, "a", "b")
    site.versions["b"] = None
    desk.crawl(to="old.jsonl")
    site.versions["b"] = 1
    reset(site)
    ended = desk.crawl("--since", "old.jsonl", to="new.jsonl")
    assert "--since old.jsonl: 1 pages" in ended.said
    assert site.told == {304: 1, 200: 1}
    assert changes(desk, "new.jsonl") == {"a": "unchanged", "b": "new"}


def test_without_validators_the_body_is_compared_and_with_rules_the_data(desk: Desk) -> None:
    site = site_of(desk, "a", "b", by="none")
    for options, expected in (([], "changed"), (["--select", "head=h1"], "unchanged")):
        desk.crawl("--fresh", *options, to="old.csv")
        site.versions["b"] = 2 if site.versions["b"] == 1 else 1
        ended = desk.crawl("--fresh", *options, "--since", "old.csv", to="new.jsonl")
        assert ended.code == 0, ended.said
        assert changes(desk, "new.jsonl") == {"a": "unchanged", "b": expected}
    assert site.told == {200: 8}
    (a, _) = desk.records("new.jsonl")
    assert a["checked_at"] == a["fetched_at"]


def test_without_an_earlier_digest_a_page_counts_as_changed(desk: Desk) -> None:
    site_of(desk, "a", by="none")
    desk.crawl("--columns", "id,url,final_url,status,error", to="old.jsonl")
    desk.crawl("--since", "old.jsonl", to="new.jsonl")
    assert changes(desk, "new.jsonl") == {"a": "changed"}


def test_bodies_in_files_are_compared_by_the_digest_that_names_them(desk: Desk) -> None:
    site = site_of(desk, "a", "b", by="none")
    desk.crawl("--body", "bodies", to="old.jsonl")
    site.versions["b"] = 2
    desk.crawl("--since", "old.jsonl", to="new.jsonl")
    assert changes(desk, "new.jsonl") == {"a": "unchanged", "b": "changed"}


def test_a_body_that_is_not_in_this_folder_is_fetched(desk: Desk) -> None:
    site = site_of(desk, "a", "b")
    desk.crawl("--body", "bodies", to="old.jsonl")
    (lost, _) = desk.records("old.jsonl")
    (desk.folder / "bodies" / lost["body_path"]).unlink()
    reset(site)
    assert desk.crawl("--body", "bodies", "--since", "old.jsonl", to="new.jsonl").code == 0
    assert site.told == {200: 1, 304: 1}
    for record in desk.records("new.jsonl"):
        assert record["change"] == "unchanged"
        assert record["digest"].startswith("sha256:")
        assert (desk.folder / "bodies" / record["body_path"]).exists()


def test_rules_that_the_earlier_run_did_not_have_are_filled_by_fetching(desk: Desk) -> None:
    site = site_of(desk, "a")
    desk.crawl("--select", "head=h1", to="old.jsonl")
    reset(site)
    ended = desk.crawl(*SELECT, "--since", "old.jsonl", to="new.jsonl")
    assert site.told == {200: 1}
    assert "--since old.jsonl: 1 pages, without marks, price: each page is fetched whole this time" in ended.said
    assert desk.records("new.jsonl")[0]["data"]["price"] == 1.5


def test_conditions_go_to_the_final_url_alone(desk: Desk) -> None:
    site_of(desk, "a")
    target = desk.lab.url("/versioned?n=a")
    desk.write([desk.lab.url(f"/redirect?to={target}")])
    desk.crawl(to="old.jsonl")
    desk.lab.clear()
    assert desk.crawl("--since", "old.jsonl", to="new.jsonl").code == 0
    asked = [(entry.path, [k for k, _ in entry.headers if k.lower().startswith("if-")]) for entry in desk.lab.log]
    assert asked == [("/redirect", []), ("/versioned", ["If-None-Match"])]
    (record,) = desk.records("new.jsonl")
    assert (record["change"], record["status"], record["redirects"]) == ("unchanged", 200, [target])


def test_a_304_that_nobody_asked_for_is_a_failure(desk: Desk) -> None:
    site_of(desk, "a", by="none")
    desk.crawl(to="old.jsonl")
    desk.write([*desk.urls("a", path="/versioned"), desk.lab.url("/status/304")])
    desk.crawl("--since", "old.jsonl", to="new.jsonl")
    assert [(record["error"], record["change"]) for record in desk.records("new.jsonl")] == [
        (None, "unchanged"),
        ("http_304", None),
    ]


@pytest.mark.parametrize("etag", ['"', "*", "a b", 'W/"a', "\x7f", "x" * 1_000, "x" * 60_000, '"ü"', '"a", *'])
def test_what_is_no_validator_is_not_sent(desk: Desk, etag: str) -> None:
    record = {"id": 1, "url": desk.lab.url("/echo"), "final_url": desk.lab.url("/echo"), "status": 200, "error": None}
    record |= {"etag": etag, "last_modified": "yesterday\r\nX: y"}  # of 1,000 it is what a longer one was cut to
    (desk.folder / "old.jsonl").write_text(json.dumps(record) + "\n")
    desk.write([desk.lab.url("/echo")])
    assert desk.crawl("--since", "old.jsonl", to="new.jsonl").code == 0
    assert [key for entry in desk.lab.log for key, _ in entry.headers if key.lower().startswith("if-")] == []


DATE = "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.mark.parametrize(
    ("etag", "date", "asked"),
    [
        (None, None, ()),
        ('"a"', None, (("If-None-Match", '"a"'),)),
        (None, DATE, (("If-Modified-Since", DATE),)),
        ('W/"a"', DATE, (("If-None-Match", 'W/"a"'), ("If-Modified-Since", DATE))),
        ("unquoted-1", DATE + " ", (("If-None-Match", "unquoted-1"), ("If-Modified-Since", DATE + " "))),
        ("*", "yesterday", ()),
        ("x" * 999, DATE.ljust(65), (("If-None-Match", "x" * 999),)),
        (None, DATE.ljust(64), (("If-Modified-Since", DATE.ljust(64)),)),
    ],
)
def test_a_page_is_asked_for_by_what_its_server_gave(etag: str | None, date: str | None, asked: Any) -> None:
    page = Page(Request(1, "http://a.example/"), "http://a.example/", 200, etag=etag, last_modified=date)
    assert conditions_of(page) == asked


async def test_in_the_library_a_304_answers_whoever_asked(lab: LabServer) -> None:
    site = VersionedSite("a")
    lab.site.own["", "/versioned"] = site
    url = lab.url("/versioned?n=a")
    asks = (("If-None-Match", '"a-1"'),)
    async with Fetcher(robots=False, retries=0) as fetcher:
        page = await fetcher.fetch(Request(1, url, headers=asks))
        assert (page.status, page.bytes, page.change, page.etag) == (304, 0, None, '"a-1"')
        moved = await fetcher.fetch(Request(1, lab.url(f"/redirect?to={url}"), headers=asks))
        assert moved.status == 200, "a condition is about the URL that it was given for"
        with pytest.raises(StatusError, match="304"):
            await fetcher.fetch(lab.url("/status/304"))


async def test_a_job_of_the_library_compares_too(lab: LabServer, tmp_path: Path) -> None:
    lab.site.own["", "/versioned"] = VersionedSite("a")
    url = lab.url("/versioned?n=a")
    async with Fetcher(robots=False) as fetcher:
        async with Job(fetcher, tmp_path / "old.jsonl") as job:
            await job.run([url])
        async with Job(fetcher, tmp_path / "new.jsonl", since=tmp_path / "old.jsonl") as job:
            stats = await job.run([url])
        assert (job.since, dict(stats.changes)) == (f"--since {tmp_path / 'old.jsonl'}: 1 pages", {"unchanged": 1})
        assert (await fetcher.fetch(url)).change is None, "the comparison was the job's"
        with pytest.raises(ConfigError, match="max_age"):
            Job(fetcher, tmp_path / "new.jsonl", max_age=5)


async def test_a_shard_keeps_the_earlier_pages_of_its_own_hosts_alone(lab: LabServer, tmp_path: Path) -> None:
    old, urls = tmp_path / "old.jsonl", [lab.url("/ok", host) for host in range(1, lab.hosts + 1)]
    async with Fetcher(robots=False) as fetcher, Job(fetcher, old) as job:
        await job.run(urls)
    shares = []
    for number in (1, 2):
        new = tmp_path / f"new-{number}.jsonl"
        async with Fetcher(robots=False, shard=f"{number}/2") as fetcher, Job(fetcher, new, since=old) as job:
            stats = await job.run(urls)
            assert job.since == f"--since {old}: {stats.ok} pages"
            shares.append(stats.ok)
    assert sum(shares) == lab.hosts and 0 not in shares


@pytest.mark.parametrize("rows_a_transaction", [1, 2, 5, 6])
async def test_an_output_of_any_length_is_read_whole(
    rows_a_transaction: int, lab: LabServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(since, "ROWS_A_TRANSACTION", rows_a_transaction)
    names = "abcde"
    lab.site.own["", "/versioned"] = site = VersionedSite(*names)
    urls = [lab.url(f"/versioned?n={name}") for name in names]
    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    async with Fetcher(robots=False) as fetcher:
        async with Job(fetcher, old) as job:
            await job.run(urls)
        reset(site)
        async with Job(fetcher, new, since=old) as job:
            stats = await job.run(urls)
            assert (job.since, dict(stats.changes)) == (f"--since {old}: 5 pages", {"unchanged": 5})
        assert site.told == {304: 5}


async def test_a_table_of_another_format_is_refused_in_words(lab: LabServer, tmp_path: Path) -> None:
    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    async with Fetcher(robots=False) as fetcher:
        async with Job(fetcher, old) as job:
            await job.run([lab.url("/ok")])
        async with Job(fetcher, new, since=old) as job:
            await job.run([lab.url("/ok")])
        with closing(sqlite3.connect(f"{new}.job/since.sqlite")) as table, table:
            (told,) = table.execute("SELECT value FROM meta").fetchone()
            table.execute("UPDATE meta SET value = ?", (json.dumps({**json.loads(told), "format": 99}).encode(),))
        with pytest.raises(LedgerError, match=r"since\.sqlite: cannot be made or read: format 99: "):
            await Job(fetcher, new, since=old).__aenter__()
        assert open_files(tmp_path) == []


async def test_a_job_that_cannot_be_opened_leaves_its_fetcher_as_it_was(lab: LabServer, tmp_path: Path) -> None:
    lab.site.own["", "/versioned"] = site = VersionedSite("a")
    url = lab.url("/versioned?n=a")
    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    async with Fetcher(robots=False) as fetcher:
        async with Job(fetcher, old) as job:
            await job.run([url])
        async with Job(fetcher, new, since=old) as job:
            await job.run([url])
        with closing(sqlite3.connect(f"{new}.job/ledger.sqlite")) as ledger, ledger:
            ledger.execute("INSERT OR REPLACE INTO meta VALUES ('note parked', x'7b')")
        job = Job(fetcher, new, since=old)
        with pytest.raises(LedgerError):  # once the fetcher compares with the earlier pages
            await job.__aenter__()
        assert open_files(tmp_path) == []
        reset(site)
        assert (await fetcher.fetch(url)).change is None
        assert site.told == {200: 1}


async def test_the_last_record_of_a_url_counts_and_a_value_of_another_kind_is_none(
    lab: LabServer, tmp_path: Path
) -> None:
    lab.site.own["", "/versioned"] = site = VersionedSite("a", "b", "c")
    url = lab.url("/versioned?n={}").format
    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    async with Fetcher(robots=False) as fetcher:
        async with Job(fetcher, old) as job:
            await job.run(map(url, "abc"))
        a, b, c = sorted(map(json.loads, old.read_text().splitlines()), key=lambda record: str(record["url"]))
        old.write_text("".join(f"{json.dumps(record)}\n" for record in (
            {**a, "id": 1, "etag": '"other"'},
            {**a, "id": 2, "title": ["no text"], "charset": 8},
            {**c, "id": 4, "error": "http_404"},
            {**c, "id": 5, "url": 5},
            {**c, "id": 6, "url": "http://["},
            {**b, "id": 7, "length": 2**70},
        )))  # fmt: skip
        reset(site)
        async with Job(fetcher, new, since=old) as job:
            stats = await job.run(map(url, "abc"))
            assert (job.since, stats.ok) == (f"--since {old}: 2 pages, and 1 lines that cannot be read", 3)
        with closing(sqlite3.connect(f"{new}.job/since.sqlite")) as table:
            (*_, plan), *_ = table.execute("EXPLAIN QUERY PLAN SELECT page FROM pages WHERE key = ?", (b"",))
        assert "INDEX" in plan, "a page is not looked for in all of them"
    assert site.told == {304: 1, 200: 2}
    told = {record["url"]: record for record in map(json.loads, new.read_text().splitlines())}
    assert [told[url(name)]["change"] for name in "abc"] == ["unchanged", "new", "new"]
    assert (told[url("a")]["title"], told[url("a")]["charset"], told[url("a")]["etag"]) == (None, None, a["etag"])
    assert told[url("b")]["title"] == b["title"]


# Age


def test_what_was_confirmed_lately_is_carried_over_unasked(desk: Desk) -> None:
    site = site_of(desk, "a", "b")
    desk.crawl(to="old.jsonl")
    records = desk.records("old.jsonl")
    records[1]["fetched_at"] = "2020-01-01T00:00:00.000Z"
    (desk.folder / "old.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    reset(site)
    ended = desk.crawl("--since", "old.jsonl", "--max-age", "7d", "--ordered", to="new.jsonl")
    assert ended.code == 0, ended.said
    assert site.told == {304: 1}
    a, b = desk.records("new.jsonl")
    assert (a["attempts"], a["checked_at"], a["fetched_at"]) == (0, records[0]["fetched_at"], records[0]["fetched_at"])
    assert (b["attempts"], b["fetched_at"]) == (1, "2020-01-01T00:00:00.000Z")
    assert b["checked_at"] > "2026"
    reset(site)
    assert desk.crawl("--since", "new.jsonl", "--max-age", "1h", to="newer.jsonl").code == 0
    assert site.told == {}, "b was confirmed, though not fetched, within the hour"
    assert desk.stats()["bytes"] == 0


class Known:
    """An earlier page of every URL, confirmed at one time."""

    max_age: float | None = 60.0

    def __init__(self, confirmed_at: float) -> None:
        self._confirmed_at = confirmed_at

    def find(self, url: str) -> Page:
        return Page(Request(0, url), url, 200, etag='"1"')

    def confirmed(self, url: str) -> float:
        return self._confirmed_at

    def stands_for(self, page: Page) -> bool:
        return page.ok


@pytest.mark.parametrize(("age", "attempts"), [(-0.5, 1), (0.0, 0), (59.5, 0), (60.0, 1)])
async def test_lately_is_less_than_so_long_ago_and_not_in_the_future(
    age: float, attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def transport(request: Request) -> Response:
        return Response(request, request.url, 304)

    monkeypatch.setattr("time.time", lambda: 1_700_000_000.0)
    async with Fetcher(robots=False, transport=transport) as fetcher:
        with fetcher.comparing(Known(1_700_000_000.0 - age)):
            found = await fetcher.fetch("http://a.example/")
    assert (found.attempts, found.change) == (attempts, "unchanged")


async def test_a_304_to_a_condition_of_the_row_s_own_is_no_word_on_the_earlier_page() -> None:
    async def transport(request: Request) -> Response:
        return Response(request, request.url, 304)

    async with Fetcher(robots=False, transport=transport) as fetcher:
        with fetcher.comparing(Known(0.0)):
            found = await fetcher.fetch(Request(1, "http://a.example/", headers=(("If-None-Match", '"2"'),)))
    assert (found.status, found.change) == (304, "changed")


# Which output


def as_of_the_night_before(path: Path) -> None:
    """Make an output as old as it is when cron calls the next time."""
    table = parquet.read_table(path)
    for name in ("fetched_at", "checked_at"):
        place = table.schema.get_field_index(name)
        times = [time - timedelta(days=1) for time in table.column(place).to_pylist()]
        field = table.schema.field(place)
        table = table.set_column(place, field, [pa.array(times, field.type)])
    parquet.write_table(table, path)


def write_tool(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def test_the_line_of_the_readme_for_cron_does_so_each_night(desk: Desk) -> None:
    site = site_of(desk, "a", "b", "c")
    (desk.folder / "l.txt").rename(desk.folder / "urls.txt")
    (line,) = (line for line in README.splitlines() if line.startswith("0 3 * * *"))
    command = line.removeprefix("0 3 * * *").strip().replace("/srv/shop", str(desk.folder))
    command = command.replace("\\%", "%")  # as cron does
    tools = desk.folder / "tools"
    tools.mkdir()
    write_tool(tools / "fetcher", f'exec "{sys.executable}" -m fetcher "$@"')
    write_tool(tools / "date", f'test "$1" = +%F && cat "{desk.folder / "today"}"')
    environ = environment(desk.folder)
    environ["PATH"] = f"{tools}{os.pathsep}{environ['PATH']}"
    told: list[tuple[dict[int, int], dict[str, str]]] = []
    for night in range(1, 5):
        (desk.folder / "today").write_text(f"2026-12-0{night}\n")
        reset(site)
        done = subprocess.run(
            ["sh", "-c", command], env=environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout, done.stderr.count("Traceback")) == (0, "", 0), done.stderr
        output = desk.folder / f"pages-2026-12-0{night}.parquet"
        told.append((dict(site.told), {name_of(row): row["change"] for row in parquet.read_table(output).to_pylist()}))
        if night != 3:
            as_of_the_night_before(output)
        site.versions["b"] = night + 1
    new, same = dict.fromkeys("abc", "new"), dict.fromkeys("abc", "unchanged")
    asked = ({304: 2, 200: 1}, same | {"b": "changed"})
    # What was confirmed within twenty hours is carried over unasked.
    assert told == [({200: 3}, new), asked, asked, ({}, same)]


def test_of_a_pattern_the_newest_complete_output_counts(desk: Desk) -> None:
    site = site_of(desk, "a", "b")
    ended = desk.crawl("--since", "pages-*.jsonl", to="pages-1.jsonl")
    assert "--since pages-*.jsonl: there is no such output that is complete, so all pages are new" in ended.said
    assert changes(desk, "pages-1.jsonl") == {"a": "new", "b": "new"}
    site.versions["b"] = 2
    assert desk.crawl("--since", "pages-*.jsonl", to="pages-2.jsonl").code == 0
    assert changes(desk, "pages-2.jsonl") == {"a": "unchanged", "b": "changed"}
    desk.crawl("--since", "pages-*.jsonl", "--time-limit", "0.01", "--delay", "5", to="pages-3.jsonl")
    reset(site)
    ended = desk.crawl("--since", "pages-*.jsonl", to="pages-4.jsonl")
    assert "--since pages-2.jsonl: 2 pages\n" in ended.said
    assert site.told == {304: 2}


def test_an_output_whose_job_cannot_be_read_is_no_complete_one(desk: Desk) -> None:
    site_of(desk, "a")
    for number in (1, 2):
        assert desk.crawl(to=f"pages-{number}.jsonl").code == 0
    (desk.folder / "pages-2.jsonl.job" / "ledger.sqlite").write_bytes(b"no ledger" * 1_000)
    ended = desk.crawl("--since", "pages-*.jsonl", to="new.jsonl")
    assert "--since pages-1.jsonl: 1 pages\n" in ended.said, ended.said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--since", "none.jsonl"], "none.jsonl: no such file (--since)"),
        (["--since", "new.jsonl"], "since: new.jsonl is an output of this run; name that of an earlier one"),
        (["--since", "./new.jsonl"], "since: ./new.jsonl is an output of this run"),
        (["--max-age", "7d"], "max-age: says how old what is known of a page may be: name the output that knows it"),
        (["--since", "old.jsonl", "--max-age", "soon"], "soon: must be a time"),
        (["--since", "l.txt"], "l.txt: is no output that can be read again"),
        (["--since", "list.csv"], "list.csv: is no output of fetcher"),
        (["--since", "cut.parquet"], "cut.parquet: is cut short"),
        (["--since", "bad.sqlite"], "bad.sqlite: is not a SQLite database"),
        (["--since", "cut.jsonl.gz"], "cut.jsonl.gz: "),
    ],
)
def test_what_cannot_be_compared_with_is_refused(desk: Desk, words: list[str], message: str) -> None:
    site = site_of(desk, "a")
    for kind in ("old.jsonl", "old.parquet", "old.jsonl.gz"):
        desk.crawl(to=kind)
    (desk.folder / "new.jsonl").write_bytes(b"")
    (desk.folder / "list.csv").write_text("url,name\nhttp://a.example/,x\n")
    (desk.folder / "cut.parquet").write_bytes((desk.folder / "old.parquet").read_bytes()[:-9])
    (desk.folder / "cut.jsonl.gz").write_bytes((desk.folder / "old.jsonl.gz").read_bytes()[:-30])
    (desk.folder / "bad.sqlite").write_bytes(b"x" * 100)
    reset(site)
    ended = run(*desk.words(*words, to="new.jsonl"), folder=desk.folder)
    assert ended.code == 2
    assert message in ended.said
    assert site.told == {}
    assert desk.crawl(to="new.jsonl").code == 0, "the way is free for the right command"


def test_a_half_written_output_counts_as_far_as_it_goes(desk: Desk) -> None:
    site = site_of(desk, "a", "b")
    desk.crawl(to="old.jsonl")
    data = (desk.folder / "old.jsonl").read_bytes()
    (desk.folder / "half.jsonl").write_bytes(data[:-40])
    reset(site)
    ended = desk.crawl("--since", "half.jsonl", to="new.jsonl")
    assert "--since half.jsonl: 1 pages, and 1 lines that cannot be read" in ended.said
    assert site.told == {304: 1, 200: 1}


# A job


def test_a_job_goes_on_with_its_table_and_refuses_another(desk: Desk) -> None:
    site = site_of(desk, "a", "b", "c")
    desk.crawl(to="old.jsonl")
    desk.crawl("--since", "old.jsonl", "--limit", "1", to="new.jsonl")
    (desk.folder / "old.jsonl").unlink()
    ended = desk.crawl(to="new.jsonl")
    assert (ended.code, "--since was old.jsonl when this job began, and is not given" in ended.said) == (2, True)
    reset(site)
    assert desk.crawl("--since", "old.jsonl", to="new.jsonl").code == 0
    assert site.told == {304: 2}
    assert set(changes(desk, "new.jsonl").values()) == {"unchanged"}


@pytest.mark.parametrize("kind", ["jsonl", "sqlite"])
def test_a_killed_run_goes_on_and_no_row_is_told_otherwise(lab: LabServer, tmp_path: Path, kind: str) -> None:
    """A sample of ``tests.sweeps.since``."""
    played = play(lab, tmp_path, 4, pages=200, kind=kind)
    assert (played.troubles, played.kills) == ([], 4)
    assert played.changes == {"unchanged": 194, "changed": 4, "new": 2}
    assert played.answers[200] >= 6


def test_failed_rows_are_retried_against_the_same_table(desk: Desk) -> None:
    site = site_of(desk, "a", "b")
    desk.crawl(to="old.jsonl")
    site.versions["b"] = None
    desk.crawl("--since", "old.jsonl", to="new.jsonl")
    assert changes(desk, "new.jsonl") == {"a": "unchanged", "b": "gone"}
    site.versions["b"] = 1
    reset(site)
    assert desk.crawl("--since", "old.jsonl", "--retry-failed", to="new.jsonl").code == 0
    assert site.told == {304: 1}
    assert changes(desk, "new.jsonl") == {"a": "unchanged", "b": "unchanged"}


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "sqlite"])
def test_what_is_read_out_of_a_page_is_carried_and_its_text_compared(desk: Desk, kind: str) -> None:
    site = site_of(desk, "a", "b")
    words = ["--with", "meta,links,lang", "--text", "body"]
    desk.crawl(*words, to="plain.jsonl")
    desk.crawl(*words, to=f"old.{kind}")
    reset(site)
    assert desk.crawl(*words, "--since", f"old.{kind}", to="new.jsonl").code == 0
    assert site.told == {304: 2}
    for was, now in zip(desk.records("plain.jsonl"), desk.records("new.jsonl"), strict=True):
        assert {name: now[name] for name in ("meta", "link_list", "lang", "text")} == {
            name: was[name] for name in ("meta", "link_list", "lang", "text")
        }
    site.by = "none"
    site.versions["b"] = 2
    assert desk.crawl(*words, "--since", f"old.{kind}", to="newer.jsonl").code == 0
    assert changes(desk, "newer.jsonl") == {"a": "unchanged", "b": "changed"}


@pytest.mark.parametrize("words", [["--select", "x[]=i", "--explode", "x"], ["--head"]])
def test_what_has_no_whole_pages_is_refused(desk: Desk, words: list[str]) -> None:
    site = site_of(desk, "a")
    desk.crawl(to="old.jsonl")
    reset(site)
    ended = run(*desk.words(*words, "--since", "old.jsonl", to="new.jsonl"), folder=desk.folder)
    assert (ended.code, "since: compares" in ended.said, site.told) == (2, True, {})


def test_in_a_store_no_pattern_is_looked_for() -> None:
    with pytest.raises(ConfigError, match="a pattern is of files here: in a store name one prefix"):
        since.find_earlier("s3://bucket/pages-*/", [])


def test_a_pattern_finds_an_output_without_a_job_too(desk: Desk) -> None:
    site_of(desk, "a")
    assert desk.crawl("--no-job", to="pages-1.jsonl").code == 0
    ended = desk.crawl("--since", "pages-*", to="new.jsonl")
    assert "--since pages-1.jsonl: 1 pages\n" in ended.said, ended.said


def test_a_report_tells_what_has_changed(desk: Desk) -> None:
    site = site_of(desk, "a", "b", "c", "d")
    desk.crawl(to="old.csv")
    site.versions |= {"b": 2, "c": None, "e": 1}
    desk.write([*desk.urls("e", "c", "b", "a", "a", path="/versioned"), "ftp://of-no-page.example/"])
    desk.crawl("--since", "old.csv", "--limit", "2", to="new.jsonl")
    desk.crawl("--since", "old.csv", to="new.jsonl")
    told = run("report", "new.jsonl", "--changes", folder=desk.folder)
    e, c, b = desk.urls("e", "c", "b", path="/versioned")
    assert told.code == 0, told.said
    assert told.text == (
        f"{desk.folder}/new.jsonl, compared with old.csv: 1 new, 1 changed, 2 unchanged, 1 gone, 1 no longer listed\n"
        f"\nnew\n  {e}\n\nchanged\n  {b}\n\ngone\n  {c}\n"
    ).replace(f"{desk.folder}/", told.text.partition("new.jsonl")[0])
    figures = json.loads(run("report", "new.jsonl", "--changes", "--json", folder=desk.folder).text)
    assert (figures["unlisted"], figures["urls"]["gone"]) == (1, [c])
    ended = run("report", "old.csv", "--changes", folder=desk.folder)
    assert (ended.code, "was run without --since" in ended.said) == (2, True)


def test_a_list_that_grew_and_a_fresh_start_compare_too(desk: Desk) -> None:
    site = site_of(desk, "a", "b", "c")
    desk.crawl(to="old.jsonl")
    desk.write(desk.urls("a", "b", path="/versioned"))
    desk.crawl("--since", "old.jsonl", to="new.jsonl")
    desk.write(desk.urls("a", "b", "c", "d", path="/versioned"))
    reset(site)
    site.versions["d"] = 1
    assert desk.crawl("--since", "old.jsonl", to="new.jsonl").code == 0
    assert (site.told, changes(desk, "new.jsonl")["d"]) == ({304: 1, 200: 1}, "new")
    desk.crawl(to="later.jsonl")
    reset(site)
    assert desk.crawl("--since", "later.jsonl", "--fresh", to="new.jsonl").code == 0
    assert site.told == {304: 4}, "another output is another table"


def test_a_folder_of_parts_is_an_earlier_output(desk: Desk) -> None:
    site = site_of(desk, "a", "b", "c")
    desk.crawl(*SELECT, "-f", "parquet", "--part-rows", "2", to="parts/")
    reset(site)
    assert desk.crawl(*SELECT, "--since", "parts", "-o", "new.csv", to="new.jsonl").code == 0
    assert site.told == {304: 3}
    assert [record["data"]["price"] for record in desk.records("new.jsonl")] == [1.5] * 3
    rows = list(csv.DictReader(plain(desk.folder / "new.csv").decode().splitlines()))
    assert [(row["change"], row["price"], row["marks"]) for row in rows][:1] == [("unchanged", "1.5", '["x","a"]')]


def test_without_a_job_there_is_a_comparison_too(desk: Desk) -> None:
    site = site_of(desk, "a")
    desk.crawl(to="old.jsonl")
    reset(site)
    ended = run("crawl", "l.txt", "--since", "old.jsonl", "-f", "jsonl", folder=desk.folder)
    (record,) = map(json.loads, ended.lines)
    assert (record["change"], site.told) == ("unchanged", {304: 1})


def test_tables_have_the_columns(desk: Desk) -> None:
    site_of(desk, "a")
    desk.crawl(to="old.jsonl")
    desk.crawl("--since", "old.jsonl", to="new.csv")
    desk.crawl("--since", "old.jsonl", to="new.sqlite")
    (row,) = csv.DictReader(plain(desk.folder / "new.csv").decode().splitlines())
    assert row["change"] == "unchanged"
    with closing(sqlite3.connect(desk.folder / "new.sqlite")) as db:
        assert db.execute("select change, checked_at > fetched_at from pages").fetchall() == [("unchanged", 1)]
    assert "change" not in desk.records("old.jsonl")[0]
