"""``--shard I/N``: a list that several runs divide among them by its sites, each with an output and a ledger of its own.

Law 1: each row of the list is of exactly one shard, those that are no URL too. The server's log is the judge of what
was fetched.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from fetcher.buckets import Shard, shard_of
from fetcher.client import Fetcher, fetch_all
from fetcher.config import Config
from fetcher.config.policies import Within
from fetcher.errors import ConfigError, InvalidURL
from fetcher.intake import Intake, Rejected
from fetcher.job.identity import JobIdentity
from fetcher.job.job import Job
from fetcher.job.ledger import Ledger
from fetcher.job.report import JobSnapshot
from fetcher.model import Request
from fetcher.sources.rows import BadRow
from fetcher.stats import Stats
from fetcher.urls import parse, registrable_domain, suffixes_digest
from tests.lab.command import Running, run
from tests.lab.desk import Desk
from tests.lab.server import LabServer

HOSTS = 6
ADVICE = "give it as before, write to another -o, or begin again with --fresh"


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread(hosts=HOSTS) as server:
        yield server


@pytest.fixture
def desk(lab: LabServer, tmp_path: Path) -> Desk:
    return Desk(lab, tmp_path)


def listed(desk: Desk, *names: object, path: str = "/ok") -> list[str]:
    """Return pages by these names, on all hosts in turn: a host is a site, for it is an address."""
    return [desk.lab.url(f"{path}?n={name}", host=1 + place % HOSTS) for place, name in enumerate(names)]


def crawl(desk: Desk, shard: str, *words: str, **how: Any) -> Any:
    return desk.crawl("--shard", shard, *words, to=f"{shard.replace('/', '-')}.jsonl", **how)


def ids(desk: Desk, *shards: str) -> list[int]:
    return sorted(int(record["id"]) for shard in shards for record in desk.records(f"{shard.replace('/', '-')}.jsonl"))


def of_shard(desk: Desk, urls: list[str], number: int, of: int = 2) -> list[str]:
    """Return the names of the rows that fall to a shard."""
    return sorted(url.rpartition("=")[2] for url in urls if shard_of(parse(url).host, of) == number - 1)


# Which rows are of a shard


def kinds(number: int) -> Iterator[str | Request | BadRow]:
    """Yield rows of all kinds, on some thousand sites: those that are no URL among them."""
    for row in range(1, number + 1):
        site = f"site{row * 7919 % 4_000}.example"
        kind = row % 10
        if kind == 0:
            yield BadRow(Request(row, f"two urls {row}"), InvalidURL(message="l.txt:1: has a tab within"))
        elif kind == 1:
            yield Request(
                row,
                ["", f"mailto:{row}@b.example", f"http://[{row}", f"/path/{row}", f"http://a b{row}/"][row // 10 % 5],
            )
        elif kind == 2:
            yield Request(row, f"https://name:secret{row}@WWW.{site.upper()}./a")
        elif kind == 3:
            yield Request(row, f"shop{row}.{site}/a")  # no scheme
        elif kind == 4:
            yield Request(row, f"http://127.0.{row % 256}.{row // 256 % 256}:{1 + row % 65_000}/")
        elif kind == 5:
            yield Request(row, f"http://[2001:db8::{row % 65_536:x}]/")
        else:
            yield Request(row, f"https://{'www.' * (kind % 2)}{site}/{row}?q=ü#x", fields={"kind": kind})


async def taken(rows: Any, shard: str | None, **options: Any) -> tuple[list[Any], Stats]:
    stats = Stats()
    intake = Intake(rows, Config.of(shard=shard, **options), stats)
    found = [row async for row in intake]
    await intake.close()
    return found, stats


def request_of(row: Any) -> Request:
    request: Request = row.state.request if isinstance(row, Rejected) else row.request
    return request


async def test_four_shards_of_40_000_rows_are_disjoint_by_site_and_have_all_rows() -> None:
    rows = list(kinds(40_000))
    sites: dict[str, int] = {}
    seen: list[int] = []
    for number in range(1, 5):
        found, stats = await taken(rows, f"{number}/4")
        assert stats.input == len(found)
        assert (stats.input + stats.elsewhere, stats.more) == (40_000, False)
        assert 9_000 < stats.input < 11_000
        for row in found:
            seen.append(request_of(row).id)
            if not isinstance(row, Rejected):
                site = registrable_domain(row.first.host)
                assert sites.setdefault(site, number) == number
    assert sorted(seen) == list(range(1, 40_001))
    assert len(sites) > 4_000


async def test_all_sources_are_dealt_alike_and_ids_are_those_of_the_whole_list() -> None:
    urls = [f"http://site{row}.example/" for row in range(200)] + ["", "no url at all"]

    async def later() -> AsyncIterator[str]:
        for url in urls:
            yield url

    texts, _ = await taken(urls, "2/3")
    requests, _ = await taken([Request(number, url) for number, url in enumerate(urls, 1)], "2/3")
    asynchronous, stats = await taken(later(), "2/3")
    found = [request_of(row) for row in texts]
    assert found == [request_of(row) for row in requests] == [request_of(row) for row in asynchronous]
    assert all(urls[request.id - 1] == request.url for request in found)
    assert stats.elsewhere == len(urls) - len(found)


async def test_the_one_share_of_one_is_all_of_it() -> None:
    found, stats = await taken([f"http://site{row}.example/" for row in range(50)], "1/1")
    assert (len(found), stats.elsewhere) == (50, 0)


async def test_limit_counts_the_rows_of_the_whole_list() -> None:
    urls = [f"http://site{row}.example/" for row in range(100)]
    found: list[int] = []
    for number in (1, 2, 3):
        rows, stats = await taken(iter(urls), f"{number}/3", limit=40)
        assert (stats.input + stats.elsewhere, stats.more) == (40, False)
        found += [request_of(row).id for row in rows]
    assert sorted(found) == list(range(1, 41))
    read = iter(urls)
    await taken(read, "1/3", limit=7)
    assert next(read) == urls[7], "no row behind the last is read"


async def test_what_is_no_row_is_a_bug_of_the_caller_in_any_shard() -> None:
    with pytest.raises(TypeError, match="row 2 is neither a str nor a Request: 7"):
        await taken(["http://a.example/", 7], "1/2")


async def test_a_source_is_closed_with_its_shard() -> None:
    closed = []

    def rows() -> Iterator[str]:
        try:
            for row in range(1_000_000):
                yield f"http://site{row}.example/"
        finally:
            closed.append("now")

    async def later() -> AsyncIterator[str]:
        try:
            for row in rows():
                yield row
        finally:
            closed.append("later")

    for source, name in ((rows(), "now"), (later(), "later")):
        intake = Intake(source, Config.of(shard="1/2"), Stats())
        await anext(intake)
        await intake.close()
        assert closed[-1] == name


async def test_a_run_without_a_shard_has_nothing_before_its_rows() -> None:
    source = iter(["http://a.example/"])
    intake = Intake(source, Config(), Stats())
    assert intake._now is source


# The option


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("0/4", "0/4: must be from 1/4 to 4/4: the shares count from 1"),
        ("5/4", "5/4: must be from 1/4 to 4/4: the shares count from 1"),
        ("0/0", "0/0: must be of one share at least (1/1)"),
        ("1/0", "1/0: must be of one share at least (1/1)"),
        ("1", "1: must be a share of a list: I/N is share I of N, such as 1/4"),
        ("a/b", "a/b: must be a share of a list: I/N is share I of N, such as 1/4"),
        ("-1/4", "-1/4: must be a share of a list: I/N is share I of N, such as 1/4"),
        ("1/4/2", "1/4/2: must be a share of a list: I/N is share I of N, such as 1/4"),
        ("/4", "/4: must be a share of a list: I/N is share I of N, such as 1/4"),
        ("1/9999999999", "1/9999999999: must be a share of a list: I/N is share I of N, such as 1/4"),
    ],
)
def test_a_share_that_is_none_is_exit_2(desk: Desk, given: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.of(shard=given)
    assert str(caught.value) == f"shard {message}"
    if given in ("0/4", "5/4", "/4"):  # an array of Slurm from 0, one job too many, a variable that is not set
        desk.pages("a")
        desk.refused(desk.crawl("--shard", given), f"shard {message}", 2)
        assert not (desk.folder / "pages.jsonl").exists()


@pytest.mark.parametrize("given", ["2/4", " 2/4 ", "02/4", Shard(2, 4)])
def test_a_share_is_read(given: Any) -> None:
    assert Config.of(shard=given).shard == Shard(2, 4)


def test_the_variable_and_the_file_say_it_too(desk: Desk) -> None:
    urls = listed(desk, *range(12))
    desk.write(urls)
    assert desk.crawl(env={"FETCHER_SHARD": "1/2"}).code == 0
    assert desk.asked() == of_shard(desk, urls, 1)
    (desk.folder / "fetcher.toml").write_text('shard = "2/2"\n')
    assert desk.crawl(to="two.jsonl").code == 0
    assert desk.asked() == of_shard(desk, urls, 2)
    assert desk.crawl("--shard", "", to="all.jsonl").code == 0
    assert len(desk.asked()) == 12


def test_links_stay_within_a_site_and_so_within_its_shard() -> None:
    """There is no other way to follow them: with one, two shards would fetch the same page."""
    assert set(get_args(Within)) == {"host", "site", "prefix"}
    with pytest.raises(ConfigError, match="within any: must be one of"):
        Config.of(follow=True, within="any", shard="1/4")  # type: ignore[arg-type]  # that is what is refused


# Runs


def test_two_shards_have_each_row_once_and_the_summary_says_of_how_many(desk: Desk) -> None:
    urls = [*listed(desk, *range(20)), "mailto:x", "", "a\tb"]
    desk.write([url for url in urls if url])
    ended = crawl(desk, "1/2")
    assert ended.code == 0
    assert desk.asked() == of_shard(desk, listed(desk, *range(20)), 1)
    first = desk.stats()
    assert (first["shard"], first["listed"]) == ("1/2", 22)
    assert ended.said.splitlines()[1] == f"  shard 1/2: {first['input']} of 22 rows"
    ended = crawl(desk, "2/2")
    second = desk.stats()
    assert first["input"] + second["input"] == 22
    assert ids(desk, "1/2", "2/2") == list(range(1, 23))
    urls = [url for url in urls if url]
    assert all(record["url"] in urls[record["id"] - 1] for record in desk.records("1-2.jsonl"))


def test_a_shard_without_a_row_is_complete(desk: Desk) -> None:
    desk.write([desk.lab.url("/ok?n=a", host=1)])  # of 3/4
    assert crawl(desk, "1/4").code == 0
    assert (desk.asked(), desk.records("1-4.jsonl"), desk.stats()["input"]) == ([], [], 0)
    assert crawl(desk, "3/4").code == 0
    assert desk.asked() == ["a"]


def test_stdin_is_a_list_too(desk: Desk) -> None:
    urls = listed(desk, *range(12))
    for number in (1, 2):
        ended = crawl(desk, f"{number}/2", listed="-", stdin="\n".join(urls).encode())
        assert ended.code == 0, ended.said
        assert desk.asked() == of_shard(desk, urls, number)
    assert ids(desk, "1/2", "2/2") == list(range(1, 13))


def test_without_a_job_and_to_stdout(desk: Desk) -> None:
    urls = listed(desk, *range(12))
    desk.write(urls)
    printed = [run("crawl", "l.txt", "--shard", f"{number}/2", folder=desk.folder).lines for number in (1, 2)]
    assert sorted(line.split(" -> ")[0] for lines in printed for line in lines) == sorted(urls)


def test_dedupe_within_a_shard_is_complete(desk: Desk) -> None:
    urls = listed(desk, *range(12))
    desk.write([*urls, *(f"{url}#again" for url in urls)])
    duplicates = 0
    for number in (1, 2):
        crawl(desk, f"{number}/2", "--dedupe", "--limit", "18")
        crawl(desk, f"{number}/2", "--dedupe")  # goes on: the first of two may be of the earlier run
        duplicates += desk.stats()["codes"]["duplicate"]
    assert duplicates == 12
    assert desk.asked() == sorted(map(str, range(12)))


def test_a_hop_to_another_site_is_followed(desk: Desk) -> None:
    foreign = desk.lab.url("/ok?n=there", host=2)  # of the other shard
    desk.write([desk.lab.url(f"/redirect/302?to={foreign}", host=1)])
    assert crawl(desk, "1/2").code == 0
    (record,) = desk.records("1-2.jsonl")
    assert record["final_url"] == foreign


def test_ordered_keeps_the_order_of_its_rows(desk: Desk) -> None:
    desk.write(listed(desk, *range(24)))
    assert crawl(desk, "2/2", "--ordered").code == 0
    lines = (desk.folder / "2-2.jsonl").read_text().splitlines()
    found = [json.loads(line)["id"] for line in lines]
    assert found == sorted(found)
    assert len(found) == 16


def test_a_dry_run_foresees_its_shard_alone(desk: Desk) -> None:
    desk.write(listed(desk, *range(12)))
    ended = run(*desk.words("--dry-run", "--shard", "1/2", "--limit", "11"), folder=desk.folder)
    assert ended.lines[0] == "rows      4 of 11 (shard 1/2): 4 to fetch, 0 invalid, 0 duplicates"
    assert (desk.stats()["shard"], desk.stats()["listed"], desk.stats()["hosts"]) == ("1/2", 11, 2)
    assert desk.asked() == []


def test_the_library_takes_it_too(desk: Desk) -> None:
    urls = listed(desk, *range(12))
    outcomes = fetch_all(urls, shard="1/2", robots=False)
    assert [outcome.request.url for outcome in outcomes] == [urls[outcome.request.id - 1] for outcome in outcomes]
    assert sorted(outcome.request.url.rpartition("=")[2] for outcome in outcomes) == of_shard(desk, urls, 1)

    async def mirror(shard: str) -> Stats:
        async with Fetcher(shard=shard, robots=False) as fetcher:
            async with Job(fetcher, desk.folder / f"{shard[0]}.jsonl") as job:
                return await job.run(urls)

    first, second = asyncio.run(mirror("1/2")), asyncio.run(mirror("2/2"))
    assert first.input + second.input == 12
    assert first.elsewhere == second.input


# The same command again, and what is refused


def test_a_resume_goes_on_within_the_shard(desk: Desk) -> None:
    gate = desk.hold()
    urls = [*listed(desk, *range(12)), *listed(desk, *"uvwxyz", path="/held")]
    desk.write(urls)
    with Running("crawl", "l.txt", "-o", "2-2.jsonl", "--shard", "2/2", folder=desk.folder) as running:
        desk.until_asked(times=4)
        desk.until_written(8, "2-2.jsonl")
        running.send(signal.SIGKILL)
        running.end()
    gate.open()
    desk.asked()
    ended = crawl(desk, "2/2")
    assert (ended.code, desk.asked()) == (0, of_shard(desk, listed(desk, *"uvwxyz"), 2))
    assert ended.said.startswith("fetcher: continuing 2-2.jsonl.job: 8 rows are done")
    assert ids(desk, "2/2") == [row for row, url in enumerate(urls, 1) if shard_of(parse(url).host, 2) == 1]
    assert desk.stats()["listed"] == 18
    ended = crawl(desk, "2/2")
    assert ended.said.splitlines()[-1].startswith("fetcher: all rows were done already")


def test_retry_failed_takes_up_those_of_the_shard(desk: Desk) -> None:
    urls = [*listed(desk, *range(6)), *listed(desk, *"abcdef", path="/status/503")]
    desk.write(urls)
    for number in (1, 2):
        crawl(desk, f"{number}/2")
    desk.asked()
    ended = crawl(desk, "1/2", "--retry-failed")
    assert desk.asked() == of_shard(desk, listed(desk, *"abcdef"), 1)
    assert "2 that failed are tried again" in ended.said
    assert ids(desk, "1/2", "2/2") == list(range(1, 13))


def test_fresh_begins_again_as_another_shard_too(desk: Desk) -> None:
    urls = listed(desk, *range(12))
    desk.write(urls)
    desk.crawl("--shard", "1/2")
    desk.asked()
    assert desk.crawl("--shard", "2/2", "--fresh").code == 0
    assert desk.asked() == of_shard(desk, urls, 2)
    assert sorted(desk.fetched()) == of_shard(desk, urls, 2)


def test_a_list_that_grew_is_gone_on_with(desk: Desk) -> None:
    desk.write(listed(desk, *range(12)))
    for number in (1, 2):
        crawl(desk, f"{number}/2")
    desk.asked()
    urls = listed(desk, *range(30))
    desk.write(urls)
    crawl(desk, "1/2")
    assert desk.asked() == sorted(set(of_shard(desk, urls, 1)) - set(map(str, range(12))))
    crawl(desk, "2/2")
    assert ids(desk, "1/2", "2/2") == list(range(1, 31))


def test_a_list_that_changed_is_refused_where_the_shard_sees_it(desk: Desk) -> None:
    urls = listed(desk, *range(12))
    desk.write(urls)
    crawl(desk, "1/2")
    desk.asked()
    desk.write([urls[0].replace("n=0", "n=x"), *urls[1:]])  # of the first host, which is of shard 1/2
    assert crawl(desk, "1/2").code == 2
    desk.write(urls[1:])  # every row has another number
    ended = crawl(desk, "1/2")
    assert (ended.code, desk.asked()) == (2, [])


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        ("1/4", "2/4", "--shard was 1/4 when this job began, and is 2/4"),
        ("1/4", "1/8", "--shard was 1/4 when this job began, and is 1/8"),
        ("1/4", None, "--shard was 1/4 when this job began, and is not given"),
        (None, "1/4", "--shard was not given when this job began, and is 1/4"),
    ],
)
def test_a_job_stays_the_shard_it_is(desk: Desk, before: str | None, now: str | None, message: str) -> None:
    desk.write(listed(desk, *range(6)))
    desk.crawl(*(("--shard", before) if before else ()))
    desk.asked()
    kept = desk.files()
    desk.refused(desk.crawl(*(("--shard", now) if now else ())), f"{message}: {ADVICE}", 2)
    assert desk.files() == kept


def change_identity(folder: Path, **changes: Any) -> None:
    with JobSnapshot(str(folder)) as view:
        identity = JobIdentity.from_json(view.identity)
    ledger = Ledger.open(str(folder / "ledger.sqlite"))
    ledger.set_identity(msgspec.structs.replace(identity, **changes).to_json())
    ledger.abandon()


def test_another_public_suffix_list_is_refused(desk: Desk) -> None:
    desk.write(listed(desk, *range(6)))
    desk.crawl("--shard", "1/2")
    desk.asked()
    change_identity(desk.folder / "pages.jsonl.job", suffixes="0123456789abcdef")
    message = (
        f"the public suffix list was 0123456789abcdef when this job began, and is {suffixes_digest()}: by it rows are dealt "
        "to shards, and some would be fetched by two or by none; install that version of publicsuffixlist again, write to "
        "another -o, or begin all shards again with --fresh"
    )
    desk.refused(desk.crawl("--shard", "1/2"), message, 2)


def test_a_whole_list_does_not_ask_for_the_suffix_list() -> None:
    code = (
        "import sys; from fetcher.intake import Intake; from fetcher.config import Config; from fetcher.stats import Stats; "
        "import fetcher.job.identity; Intake([], Config(), Stats()); print('publicsuffixlist' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"False\n"


def test_two_shards_at_once_to_one_output_are_refused(desk: Desk) -> None:
    gate = desk.hold()
    desk.write(listed(desk, *"uvwxyz", path="/held"))
    with Running("crawl", "l.txt", "-o", "pages.jsonl", "--shard", "1/2", folder=desk.folder) as first:
        desk.until_asked(times=2)
        desk.asked()
        ended = desk.crawl("--shard", "2/2")
        desk.refused(
            ended,
            f"pages.jsonl.job: another fetcher (process {first.process.pid}) is working on it; wait for it or stop it",
            1,
        )
        gate.open()
        assert first.end().code == 0
    assert len(desk.records()) == 2


def test_two_shards_to_one_output_with_jobs_of_their_own_are_refused(desk: Desk) -> None:
    desk.write(listed(desk, *range(6)))
    desk.crawl("--shard", "1/2", "--job", "one")
    desk.asked()
    ended = desk.crawl("--shard", "2/2", "--job", "two")
    assert (ended.code, desk.asked()) == (2, [])
    assert ended.said.startswith("fetcher: pages.jsonl"), ended.said
    assert len(desk.records()) == 2


def test_since_an_output_of_the_whole_list_is_compared_within_the_shard(desk: Desk) -> None:
    urls = listed(desk, *range(12))
    desk.write(urls)
    desk.crawl(to="old.jsonl")
    desk.write(urls[:-HOSTS])  # one row of each site is gone
    total = 0
    for number in (1, 2):
        ended = crawl(desk, f"{number}/2", "--since", "old.jsonl")
        assert ended.code == 0, ended.said
        changes = json.loads(run("report", f"{number}-2.jsonl", "--changes", "--json", folder=desk.folder).out)
        assert changes["unlisted"] == (2, 4)[number - 1]
        total += sum(changes["counts"].values())
    assert total == 6
    both = json.loads(run("report", "?-2.jsonl", "--changes", "--json", folder=desk.folder).out)
    assert (sum(both["counts"].values()), both["unlisted"], both["since"]) == (6, 6, "old.jsonl")
    text = run("report", "1-2.jsonl", "2-2.jsonl", "--changes", folder=desk.folder).lines[0]
    assert text.startswith("2 shards of 2, compared with old.jsonl: ")
    assert text.endswith("6 no longer listed")


# Added up


@pytest.fixture
def two(desk: Desk) -> Desk:
    """Two shards of a list of 14 rows, of which two failed."""
    desk.write([*listed(desk, *range(12)), *listed(desk, "a", "b", path="/status/404")])
    for number in (1, 2):
        assert crawl(desk, f"{number}/2").code == 0
    return desk


def report(desk: Desk, *words: str) -> Any:
    ended = run("report", *words, "--json", folder=desk.folder)
    assert ended.code == 0, ended.said
    return json.loads(ended.out)


@pytest.mark.parametrize(
    "names", [["?-2.jsonl"], ["1-2.jsonl", "2-2.jsonl"], ["2-2.jsonl.job", "1-2.jsonl"], ["*-2.jsonl*"]]
)
def test_shards_are_added_up(two: Desk, names: list[str]) -> None:
    sums = report(two, *names)
    assert (sums["of"], sums["missing"], sums["state"], sums["notes"]) == (2, [], "complete", [])
    assert (sums["input"], sums["ok"], sums["failed"], sums["more"], sums["left"]) == (14, 12, 2, False, 0)
    assert sums["codes"] == {"http_404": 2}
    assert sums["hosts"] == HOSTS
    assert [(each["shard"], each["job"]) for each in sums["shards"]] == [
        ("1/2", "1-2.jsonl.job"),
        ("2/2", "2-2.jsonl.job"),
    ]
    singles = [report(two, f"{number}-2.jsonl") for number in (1, 2)]
    assert [each["shard"] for each in singles] == ["1/2", "2/2"]
    for key in ("input", "ok", "failed", "bytes"):
        assert sums[key] == sum(each[key] for each in singles)


def test_the_report_of_shards_for_people(two: Desk) -> None:
    ended = run("report", "?-2.jsonl", "--hosts", "--errors", folder=two.folder)
    assert ended.lines[:2] == ["2 shards of 2: complete", ended.lines[1]]
    assert ended.lines[1].startswith("  14 rows = 12 ok + 2 failed + 0 skipped, ")
    assert "shards" in ended.lines
    assert any(line.split() == ["1/2", "complete", "5", "4", "1", "0", "1-2.jsonl.job"] for line in ended.lines)
    assert any(line.split()[:2] == ["http_404", "2"] for line in ended.lines)
    assert run("report", "1-2.jsonl", folder=two.folder).lines[0] == "1-2.jsonl.job (shard 1/2): complete"


def test_a_shard_that_is_missing_is_told(two: Desk) -> None:
    assert run("report", "[2]-2.jsonl", folder=two.folder).lines[:2] == [
        "1 shard of 2: stopped",
        "  not given: shard 1/2",
    ]
    sums = report(two, "[2]-2.jsonl")
    assert (sums["missing"], sums["state"], sums["left"], sums["more"]) == (["1/2"], "stopped", None, True)


def test_one_that_has_rows_left_is_told(two: Desk) -> None:
    two.write(listed(two, *range(24)), to="m.txt")
    assert two.crawl("--shard", "1/2", "--limit", "2", listed="m.txt", to="a.jsonl").code == 0
    assert two.crawl("--shard", "2/2", listed="m.txt", to="b.jsonl").code == 0
    (note,) = report(two, "a.jsonl", "b.jsonl")["notes"]
    assert note == (
        "the shards have 17 rows, and the list goes to row 24: it was not the same for all of them; where it has grown, run "
        "each shard once more"
    )


def test_shards_that_do_not_belong_together_are_refused(two: Desk) -> None:
    two.write(listed(two, *range(6)), to="m.txt")
    two.crawl("--shard", "2/2", listed="m.txt", to="list.jsonl")
    two.crawl("--shard", "2/2", "--max-size", "1M", to="options.jsonl")
    two.crawl("--shard", "2/3", to="three.jsonl")
    two.crawl(to="whole.jsonl")
    (two.folder / "again").mkdir()
    two.crawl("--shard", "1/2", to="again/1-2.jsonl")
    one = "1-2.jsonl.job (shard 1/2)"
    for other, message in {
        "list.jsonl": f"list.jsonl.job (shard 2/2) is of another list than {one}: INPUT 1 is m.txt, and there l.txt; ",
        "options.jsonl": f"options.jsonl.job (shard 2/2) has other options than {one}: --max-size is 1048576, and there 10485760",
        "three.jsonl": f"three.jsonl.job (shard 2/3) and {one} do not belong together: a list is divided in one way, ",
        "whole.jsonl": "whole.jsonl.job is no shard of a list (--shard): several jobs are added up only where all are",
        "again/1-2.jsonl": "1-2.jsonl.job and again/1-2.jsonl.job are both shard 1/2: give one of them",
    }.items():
        ended = run("report", "1-2.jsonl", other, folder=two.folder)
        assert (ended.code, ended.out) == (2, b""), other
        assert ended.said.startswith(f"fetcher: {message}"), ended.said
    change_identity(two.folder / "2-2.jsonl.job", suffixes="0123456789abcdef")
    ended = run("report", "?-2.jsonl", folder=two.folder)
    assert (ended.code, "was dealt by another public suffix list" in ended.said) == (2, True)


def test_a_pattern_that_nothing_fits_is_exit_2(desk: Desk) -> None:
    ended = run("report", "shard-*/pages.jsonl", folder=desk.folder)
    assert (ended.code, ended.said) == (
        2,
        "fetcher: shard-*/pages.jsonl: there is no job or output of that name: give the folder of a job, or its -o\n",
    )


def test_the_rows_of_a_program_may_have_any_number(desk: Desk) -> None:
    rows = [Request(10 * number, url) for number, url in enumerate(listed(desk, *range(12)), 1)]

    async def mirror(shard: str) -> Stats:
        async with Fetcher(shard=shard, robots=False) as fetcher:
            async with Job(fetcher, desk.folder / f"{shard[0]}-2.jsonl") as job:
                return await job.run(rows)

    assert sum(asyncio.run(mirror(shard)).input for shard in ("1/2", "2/2")) == 12
    sums = report(desk, "?-2.jsonl")
    assert (sums["input"], sums["state"], sums["notes"]) == (12, "complete", [])


def test_shards_that_have_a_row_twice_are_told(two: Desk) -> None:
    """By a program that gave both the same rows: their numbers tell it."""
    two.crawl("--shard", "1/1", to="all.jsonl")
    change_identity(two.folder / "all.jsonl.job", shard="1/2")
    (note,) = report(two, "all.jsonl", "2-2.jsonl")["notes"]
    assert note.startswith("the shards have 23 rows, and the list ends at row 14: some are in two of them")
