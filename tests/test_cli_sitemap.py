"""``--from sitemap`` and lists on the network by the command line: real processes, killed too, and the server's log.

The list is what was read first, whatever the site says later on.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.lab.command import Ended, Running, run
from tests.lab.desk import Desk, plain
from tests.lab.server import LabServer
from tests.lab.sitemaps import BILLION_LAUGHS, SitemapSite, index, urlset

OBEYING = {"FETCHER_ROBOTS": "1"}


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread() as server:
        yield server


@pytest.fixture
def desk(lab: LabServer, tmp_path: Path) -> Desk:
    lab.site.own.clear()
    return Desk(lab, tmp_path)


@pytest.fixture
def site(desk: Desk) -> SitemapSite:
    return SitemapSite(desk.lab)


def crawl(desk: Desk, *words: str, env: dict[str, str] | None = None, stdin: bytes = b"") -> Ended:
    return desk.crawl("--from", "sitemap", *words, listed="", env=env, stdin=stdin)


def refused(ended: Ended, message: str) -> None:
    assert (ended.code, ended.said.splitlines()[-1]) == (2, f"fetcher: {message}")


def test_a_sitemap_is_crawled_with_its_fields(desk: Desk, site: SitemapSite) -> None:
    site.put("/s.xml", urlset(site.pages("a", "b"), lastmod="2024-05-01", priority="0.3"), "text/plain")
    ended = crawl(desk, site.url("/s.xml"))
    assert ended.code == 0
    assert desk.fetched() == ["a", "b"]
    assert [record["fields"] for record in desk.records()] == [{"lastmod": "2024-05-01", "priority": "0.3"}] * 2


def test_in_csv_the_fields_are_columns_whatever_the_first_row_has(desk: Desk, site: SitemapSite) -> None:
    rows = urlset(site.pages("a")).replace("</urlset>", "") + urlset(site.pages("b"), priority="1").partition('">\n')[2]
    site.put("/s.xml", rows)
    assert crawl(desk, site.url("/s.xml"), "-c", "1", "-o", "p.csv").code == 0
    table = list(csv.DictReader(io.StringIO((desk.folder / "p.csv").read_text())))
    assert [(row["lastmod"], row["changefreq"], row["priority"]) for row in table] == [("", "", ""), ("", "", "1")]


def test_without_from_a_url_is_a_page(desk: Desk, site: SitemapSite) -> None:
    site.put("/s.xml", urlset(site.pages("a")))
    assert desk.crawl(site.url("/s.xml"), listed="").code == 0
    (record,) = desk.records()
    assert record["url"] == site.url("/s.xml")


@pytest.mark.parametrize("scheme", ["http", "auto"])
def test_a_site_says_where_its_sitemaps_are(scheme: str, desk: Desk, site: SitemapSite) -> None:
    site.put("/robots.txt", f"User-agent: *\nDisallow: /maps/\nSitemap: {site.url('/maps/i.xml')}\n", "text/plain")
    site.put("/maps/i.xml", index([site.url("/maps/1.xml.gz")]))
    site.put("/maps/1.xml.gz", gzip.compress(urlset(site.pages("a", "b")).encode()), "application/octet-stream")
    bare = site.url("").removeprefix("http://")
    assert crawl(desk, bare, "--default-scheme", scheme, env=OBEYING).code == 0
    assert desk.fetched() == ["a", "b"]


def test_a_sitemap_that_the_user_names_is_held_against_robots_txt(desk: Desk, site: SitemapSite) -> None:
    site.put("/robots.txt", "User-agent: *\nDisallow: /maps/\n", "text/plain")
    site.put("/maps/s.xml", urlset(site.pages("a")))
    ended = crawl(desk, site.url("/maps/s.xml"), env=OBEYING)
    rule = f"'Disallow: /maps/' in line 2 of {site.url('/robots.txt')}"
    refused(ended, f"{site.url('/maps/s.xml')}: robots_denied: {rule}")
    assert site.asked("/maps/s.xml") == 0
    assert crawl(desk, site.url("/maps/s.xml"), "--no-robots").code == 0


def test_sitemaps_elsewhere_are_held_against_their_own_robots_txt(desk: Desk, site: SitemapSite) -> None:
    other = SitemapSite(desk.lab, 2)
    site.put("/robots.txt", f"Sitemap: {other.url('/maps/s.xml')}\nSitemap: {site.url('/s.xml')}\n", "text/plain")
    site.put("/s.xml", urlset(site.pages("a")))
    other.put("/robots.txt", "User-agent: *\nDisallow: /maps/\n", "text/plain")
    other.put("/maps/s.xml", urlset(site.pages("b")))
    assert crawl(desk, site.url("/"), env=OBEYING).code == 0
    bad, good = desk.records()
    assert bad["message"].startswith(f"{other.url('/maps/s.xml')}: robots_denied: ")
    assert good["url"] == site.pages("a")[0]
    assert other.asked("/maps/s.xml") == 0


@pytest.mark.parametrize("way", ["file", "stdin"])
def test_a_sitemap_at_hand_leads_to_those_on_the_network(way: str, desk: Desk, site: SitemapSite) -> None:
    site.put("/1.xml", urlset(site.pages("a")))
    text = index([site.url("/1.xml")]).encode()
    if way == "file":
        (desk.folder / "i.xml").write_bytes(text)
    assert crawl(desk, "i.xml" if way == "file" else "-", stdin=text if way == "stdin" else b"").code == 0
    assert desk.fetched() == ["a"]


@pytest.mark.parametrize(
    ("kind", "text"), [("txt", "{0}\n{1}\n"), ("csv", "n,url\nx,{0}\ny,{1}\n"), ("jsonl", '"{0}"\n"{1}"\n')]
)
def test_other_lists_on_the_network(kind: str, text: str, desk: Desk, site: SitemapSite) -> None:
    site.put("/list", text.format(*site.pages("a", "b")))
    ended = desk.crawl("--from", kind, site.url("/list"), listed="")
    assert ended.code == 0
    assert desk.fetched() == ["a", "b"]


def test_a_csv_on_the_network_is_read_as_one_in_a_file(desk: Desk, site: SitemapSite) -> None:
    rows = "".join(f"Müller {n};{site.pages(n)[0]};{n}\r\n" for n in "abc")
    site.put("/l.csv", f"Name;URL;n\r\n{rows}".encode("cp1252"), "text/csv")
    words = ["--from", "csv", "--delimiter", ";", "--encoding", "cp1252", "--carry", "name", site.url("/l.csv")]
    assert desk.crawl(*words, "--limit", "1", listed="").code == 0
    site.put("/l.csv", 404)
    refused(
        desk.crawl(*(word for word in words if word not in ("--delimiter", ";")), listed=""),
        "--delimiter was ; when this job began, and is not given: give it as before, write to another -o, or begin "
        "again with --fresh",
    )
    assert desk.crawl(*words, listed="").code == 0
    found = sorted((record["url"], record["fields"]) for record in desk.records())
    assert found == [(site.pages(n)[0], {"Name": f"Müller {n}"}) for n in "abc"]
    assert site.asked("/l.csv") == 1


def test_in_csv_a_list_on_the_network_loses_nothing(desk: Desk, site: SitemapSite) -> None:
    lists = {
        "csv": "url,n\n{},é\n{},2\n",
        "jsonl": '{{"url": "{}", "n": "é"}}\n{{"url": "{}", "n": "2", "m": 3}}\n',
    }
    for kind, text in lists.items():
        site.put("/l", text.format(*site.pages("a", "b")))
        assert (
            desk.crawl("--from", kind, site.url("/l"), "-c", "1", "-o", f"{kind}.csv", "--fresh", listed="").code == 0
        )
        table = {row["url"]: row for row in csv.DictReader(io.StringIO((desk.folder / f"{kind}.csv").read_text()))}
        first, second = (table[page] for page in site.pages("a", "b"))
        if kind == "csv":
            assert (first["n"], second["n"]) == ("é", "2")
        else:
            assert [json.loads(row["fields"]) for row in (first, second)] == [{"n": "é"}, {"n": "2", "m": 3}]


@pytest.mark.parametrize("kind", ["parquet", "sqlite"])
def test_a_list_that_must_be_a_file_is_refused_before_a_request(kind: str, desk: Desk, site: SitemapSite) -> None:
    ended = desk.crawl("--from", kind, site.url("/l"), listed="")
    refused(ended, f"{site.url('/l')}: a {kind} list is not read over the network: download it, and give the file")
    assert desk.lab.log == []


def test_what_is_carried_of_a_sitemap_are_the_columns(desk: Desk, site: SitemapSite) -> None:
    site.put("/s.xml", urlset(site.pages("a"), lastmod="2024-05-01", priority="0.3"))
    for carry, expected in (("Priority", ["priority"]), ("", [])):
        words = (site.url("/s.xml"), "--carry", carry, "-o", f"p{carry}.csv", "--fresh")
        ended = crawl(desk, *words)
        assert ended.code == 0
        table = csv.DictReader(io.StringIO((desk.folder / f"p{carry}.csv").read_text()))
        named = {"lastmod", "changefreq", "priority", "fields"}
        assert [name for name in table.fieldnames or [] if name in named] == expected
        assert [row[name] for row in table for name in expected] == ["0.3"] * len(expected)
    refused(
        crawl(desk, site.url("/s.xml"), "--carry", "name", "--fresh"),
        "sitemap: there is no column 'name' to carry; the columns are: lastmod, changefreq, priority",
    )
    ended = crawl(desk, site.url("/s.xml"), "--encoding", "cp1252", "--fresh")
    assert (
        f"fetcher: warning: encoding is of no use here: {site.url('/s.xml')} is read as sitemap, which says its own"
        in ended.said
    )


def test_a_list_may_be_larger_than_a_page(desk: Desk, site: SitemapSite) -> None:
    site.put("/list", f"# {'x' * 50_000}\n" * 4 + site.pages("a")[0])
    assert desk.crawl("--from", "txt", site.url("/list"), "--max-size", "10K", listed="").code == 0
    assert desk.fetched() == ["a"]


def test_a_list_is_tried_again_and_redirects_are_followed(desk: Desk, site: SitemapSite) -> None:
    answers = iter([503, 301, 200])
    real = urlset(site.pages("a")).encode()

    async def answer(exchange: object) -> None:
        from tests.lab.exchange import Exchange

        assert isinstance(exchange, Exchange)
        status = next(answers)
        where = [("Location", "/s.xml")] if status == 301 else []
        await exchange.reply(real if status == 200 else b"", status, headers=where)

    desk.lab.add("/s.xml", answer)
    assert crawl(desk, site.url("/s.xml"), "--retries", "1").code == 0
    assert desk.fetched() == ["a"]


# What is wrong


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("<!doctype html><title>x</title>", ": is an HTML page, and no sitemap"),
        (404, ": http_404: the server answered 404 Not Found"),
        (BILLION_LAUGHS, ":2: has a DTD of its own (entities), which is refused"),
        ("<urlset>", ":2: ends in the middle: it was cut short"),
    ],
)
def test_what_is_no_sitemap_is_one_line_and_exit_2(
    body: str | int, message: str, desk: Desk, site: SitemapSite
) -> None:
    site.put("/s.xml", body + "\n" if body == "<urlset>" else body)
    ended = crawl(desk, site.url("/s.xml"))
    refused(ended, f"{site.url('/s.xml')}{message}")
    assert ended.said.count("\n") <= 2
    site.put("/s.xml", urlset(site.pages("a")))
    assert crawl(desk, site.url("/s.xml")).code == 0  # the same command goes on
    assert desk.fetched() == ["a"]


def test_a_host_that_is_not_there_is_named(desk: Desk) -> None:
    from tests.lab.ports import refused_port

    with refused_port() as port:
        ended = crawl(desk, f"http://127.0.0.1:{port}/s.xml")
    assert ended.code == 2
    assert ended.said.splitlines()[-1].startswith(f"fetcher: http://127.0.0.1:{port}/s.xml: connect_refused")


def test_what_was_done_before_an_error_stays_done(desk: Desk, site: SitemapSite) -> None:
    site.put("/i.xml", index([site.url("/1.xml"), site.url("/2.xml"), site.url("/3.xml")]))
    site.put("/1.xml", urlset(site.pages("a")))
    site.put("/2.xml", 503)
    site.put("/3.xml", urlset(site.pages("c")))
    ended = crawl(desk, site.url("/i.xml"))
    refused(ended, f"{site.url('/2.xml')}: http_503: the server answered 503 Service Unavailable")
    assert desk.fetched() == ["a", "c"]
    site.put("/2.xml", urlset(site.pages("b")))
    site.put("/1.xml", 404)
    assert crawl(desk, site.url("/i.xml")).code == 0
    assert desk.fetched() == ["a", "c", "b"]


def test_a_sitemap_that_is_gone_is_a_row_of_its_own(desk: Desk, site: SitemapSite) -> None:
    site.put("/i.xml", index([site.url("/gone.xml"), site.url("/i.xml"), site.url("/1.xml")]))
    site.put("/1.xml", urlset(site.pages("a")))
    assert crawl(desk, site.url("/i.xml")).code == 0
    found = [(record["url"], record["error"], record["message"]) for record in desk.records()]
    assert sorted(found, key=lambda each: each[0]) == [
        (site.url("/gone.xml"), "invalid_url", f"{site.url('/gone.xml')}: http_404: the server answered 404 Not Found"),
        (site.url("/i.xml"), "invalid_url", f"{site.url('/i.xml')}: lists itself, by {site.url('/i.xml')}"),
        (site.pages("a")[0], None, None),
    ]


def test_bench_says_that_it_reads_no_such_list(desk: Desk, site: SitemapSite) -> None:
    (desk.folder / "i.xml").write_text(index([site.url("/1.xml")]))
    ended = run("bench", "--from", "sitemap", "i.xml", folder=desk.folder)
    assert ended.code == 2
    assert (
        "i.xml: lists sitemaps that are on the network: 'fetcher crawl'" in ended.said or "No such option" in ended.said
    )


def test_secrets_go_to_the_origin_of_the_list_alone(desk: Desk, site: SitemapSite) -> None:
    other = SitemapSite(desk.lab, 2)
    site.put("/s.xml", urlset([*site.pages("a"), *other.pages("b")]))
    assert crawl(desk, site.url("/s.xml"), "-H", "Authorization: Bearer x").code == 0
    sent = {entry.local.rpartition("=")[2]: entry.header("authorization") for entry in desk.lab.log}
    assert sent == {"/s.xml": "Bearer x", "a": "Bearer x", "b": None}


def test_a_dry_run_fetches_the_list_and_no_row(desk: Desk, site: SitemapSite) -> None:
    site.put("/s.xml", urlset(site.pages("a", "b")))
    ended = run("crawl", "--from", "sitemap", site.url("/s.xml"), "--dry-run", folder=desk.folder)
    assert ended.code == 0
    assert "lists and sitemaps on the network are fetched now" in ended.said
    assert "2 to fetch" in ended.text
    assert [entry.path for entry in desk.lab.log] == ["/s.xml"]


# A job


def kept(desk: Desk) -> bytes:
    (path,) = (desk.folder / "pages.jsonl.job").glob("list.jsonl.*")
    return plain(path)


def test_a_sitemap_that_changed_after_a_kill_gives_the_rows_of_the_first_reading(desk: Desk, site: SitemapSite) -> None:
    site.put("/i.xml", index([site.url("/1.xml"), site.url("/2.xml")]))
    site.put("/1.xml", urlset([*site.pages(*range(5)), site.url("/held?n=x")]))
    pages, sitemaps = desk.hold(), desk.hold("/2.xml")
    with Running(*desk.words("--from", "sitemap", site.url("/i.xml"), listed=""), folder=desk.folder) as running:
        desk.until_asked()
        desk.until_asked("/2.xml")
        desk.until_written(5)
        running.send(signal.SIGKILL)
        running.end()
    pages.open()
    sitemaps.open()
    site.put("/i.xml", index([site.url("/9.xml")]))
    site.put("/1.xml", urlset(site.pages("new")))
    site.put("/2.xml", urlset(site.pages("y", "z")))
    desk.lab.clear()
    ended = crawl(desk, site.url("/i.xml"))
    assert ended.code == 0
    assert desk.fetched() == ["0", "1", "2", "3", "4", "x", "y", "z"]
    assert [site.asked(path) for path in ("/i.xml", "/1.xml", "/2.xml", "/9.xml")] == [0, 0, 1, 0]
    assert desk.asked() == sorted(["/2.xml", "x", "y", "z"])
    site.put("/i.xml", 500)
    assert "all rows were done already" in crawl(desk, site.url("/i.xml")).said
    assert desk.asked() == []
    site.put("/i.xml", index([site.url("/1.xml")]))
    assert crawl(desk, site.url("/i.xml"), "--fresh").code == 0
    assert desk.fetched() == ["new"]
    assert b"/2.xml" not in kept(desk)


def test_what_failed_is_taken_up_again_by_the_list_that_was_kept(desk: Desk, site: SitemapSite) -> None:
    site.put("/page", 500)
    site.put("/s.xml", urlset([*site.pages("a"), site.url("/page")]))
    assert crawl(desk, site.url("/s.xml")).code == 0
    site.put("/page", "now")
    site.put("/s.xml", urlset(site.pages("other")))
    assert crawl(desk, site.url("/s.xml"), "--retry-failed").code == 0
    assert [record["error"] for record in desk.records()] == [None, None]
    assert site.asked("/s.xml") == 1


def until_requests(desk: Desk, times: int) -> None:
    assert desk.lab.site.stats.wait(lambda: len(desk.lab.log) >= times, 60)


def test_kills_while_the_list_is_kept_lose_and_double_nothing(desk: Desk, site: SitemapSite) -> None:
    """Killed again and again while sitemaps are read, each answer of which is another than the one before."""
    sitemaps, rows = 12, 40
    served = dict.fromkeys(range(sitemaps), 0)

    def body(number: int) -> bytes:
        served[number] += 1
        names = (
            [f"{number}.{row}" for row in range(rows)]
            if served[number] == 1
            else [f"{number}.{row}v" for row in range(rows)]
        )
        return urlset(site.pages(*names)).encode()

    site.put("/i.xml", index(site.url(f"/{number}.xml") for number in range(sitemaps)))
    for number in range(sitemaps):
        site.put(f"/{number}.xml", partial(body, number))
    words = desk.words("--from", "sitemap", site.url("/i.xml"), "--per-host", "2", "--delay", "0.004", listed="")
    for times in range(1, 9):
        desk.lab.clear()
        with Running(*words, folder=desk.folder) as running:
            until_requests(desk, 3 * times)
            running.send(signal.SIGKILL)
            running.end()
    assert crawl(desk, site.url("/i.xml")).code == 0
    found = [name.rstrip("v") for name in desk.fetched()]
    assert found == [f"{number}.{row}" for number in range(sitemaps) for row in range(rows)]
    for number in range(sitemaps):  # one reading alone
        names = [name for name in desk.fetched() if name.startswith(f"{number}.")]
        assert len({name.endswith("v") for name in names}) == 1


def test_ctrl_c_while_a_list_is_fetched_ends_the_run(desk: Desk, site: SitemapSite) -> None:
    desk.hold("/s.xml")
    with Running(*desk.words("--from", "sitemap", site.url("/s.xml"), listed=""), folder=desk.folder) as running:
        desk.until_asked("/s.xml")
        running.send(signal.SIGINT)
        assert running.end().code == 130
    site.put("/s.xml", urlset(site.pages("a")))
    assert crawl(desk, site.url("/s.xml")).code == 0
    assert desk.fetched() == ["a"]
