"""Links that are followed: which, by whom, how often, and what is left of them whatever befalls the run."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import fetcher
from fetcher import Config, ConfigError, Fetcher, Job, Page
from fetcher.found.store import LISTED_IDS
from fetcher.model import Discovery, Request, Response
from fetcher.page.found_links import LinkSearch
from fetcher.page.parse import read_body
from tests.benchmarks.following import measure
from tests.lab.command import Ended, Running, run
from tests.lab.linked import LinkedPage, LinkedSite, breadth_first, folder, page
from tests.sweeps import following
from tests.sweeps.strace import missing

TREE = {
    "/": page("/a", "/b", "/a#part", "mailto:x@example.com"),
    "/a": page("/a/1", "/a/2", "/"),
    "/b": page("/b/1", "/a/2"),
    "/a/1": page("/deep"),
    "/a/2": page(),
    "/b/1": page("/a"),
    "/deep": page("/deeper"),
    "/deeper": page(),
}


class Crawl:
    """A folder in which links of a site are followed by the command line."""

    def __init__(self, site: LinkedSite, home: Path) -> None:
        self.site = site
        self.home = home

    def words(self, *words: str, start: str = "/", to: str = "pages.jsonl") -> list[str]:
        given = [] if "l.txt" in words else [self.site.url(start)]
        return ["crawl", *given, "-o", to, "--retries", "0", "--summary", "s.json", *words]

    def run(self, *words: str, start: str = "/", to: str = "pages.jsonl", follow: bool = True) -> Ended:
        more = ["--follow"] if follow else []
        ended = run(*self.words(*words, *more, start=start, to=to), folder=self.home)
        if ended.code in (0, 3, 4, 130, 143):
            self.balance()
        return ended

    def balance(self) -> dict[str, Any]:
        stats: dict[str, Any] = json.loads((self.home / "s.json").read_text())
        assert stats["input"] == stats["ok"] + stats["failed"] + stats["skipped"] + stats["pending"]
        return stats

    def records(self, name: str = "pages.jsonl") -> list[dict[str, Any]]:
        data = (self.home / name).read_bytes()
        assert data.endswith(b"\n")
        found = sorted((json.loads(line) for line in data.splitlines()), key=lambda record: int(record["id"]))
        assert len({record["id"] for record in found}) == len(found)
        return found

    def paths(self, name: str = "pages.jsonl") -> list[str]:
        return sorted(path_of(record["url"]) for record in self.records(name))


def path_of(url: str) -> str:
    return "/" + url.split("/", 3)[3]


@pytest.fixture
def crawl_of(tmp_path: Path) -> Iterator[Callable[..., Crawl]]:
    sites: list[LinkedSite] = []

    def make(pages: Any = TREE, **more: Any) -> Crawl:
        site = LinkedSite(pages, **more)
        site.__enter__()
        sites.append(site)
        return Crawl(site, tmp_path)

    yield make
    for site in sites:
        site.__exit__(None, None, None)


# Which links


def links_in(body: str, *, url: str = "http://h.example/d/p", base: str = "http://h.example/d/", **rules: Any) -> Any:
    config = Config.of(follow=True, **rules)
    head = rules.pop("headers", ())
    request = Request(1, url, discovery=Discovery(0, 1, base))
    response = Response(request, url, 200, (("content-type", "text/html"), *head), body.encode())
    search = LinkSearch.of(config.follow, request.discovery, "fetcher")
    return read_body(response, select=None, extract=None, search=search).found


@pytest.mark.parametrize(
    ("body", "rules", "found"),
    [
        ('<a href="x">1</a><area href="/y"><a>none</a><link href=z><a href="">', {}, ["/d/x", "/y"]),
        ('<a href="x#1">1</a><a href="x#2">2</a><a href="#3">', {}, ["/d/x"]),
        ('<base href="/o/"><a href="x">', {}, ["/o/x"]),
        ('<a href="https://h.example:8443/t"><a href="ftp://h.example/">', {}, ["https://h.example:8443/t"]),
        ('<a href="http://u:secret@h.example/k">', {}, ["/k"]),
        ('<a href="javascript:x"><a href="mailto:a@b"><a href="http://[x">', {}, []),
        ('<a rel="nofollow" href="x"><a rel="UGC NoFollow" href="y"><a rel="next" href="z">', {}, ["/d/z"]),
        ('<meta name="robots" content="noindex, nofollow"><a href="x">', {}, []),
        ('<meta name="robots" content="none"><a href="x">', {}, []),
        ('<meta name="robots" content="noindex"><a href="x">', {}, ["/d/x"]),
        ('<meta name="fetcher" content="nofollow"><a href="x">', {}, []),
        ('<meta name="otherbot" content="nofollow"><a href="x">', {}, ["/d/x"]),
        ('<a href="http://w.h.example/x"><a href="http://other.example/">', {}, []),
        ('<a href="http://w.h.example/x"><a href="http://o.example/">', {"within": "site"}, ["http://w.h.example/x"]),
        ('<a href="x"><a href="/y"><a href="../dd/z">', {"within": "prefix"}, ["/d/x"]),
        ('<a class=n href="x"><a href="y"><link class=n href="z">', {"follow_css": ".n"}, ["/d/x", "/d/z"]),
        ('<a href="x.html"><a href="x.pdf">', {"include": "*.html"}, ["/d/x.html"]),
        ('<a href="x.html"><a href="y.html">', {"include": "*.html", "exclude": ["*/x.*"]}, ["/d/y.html"]),
        ('<a href="p?page=1"><a href="p?sort=a">', {"exclude": r"re:[?&]sort="}, ["/d/p?page=1"]),
    ],
)
def test_links_that_are_followed(body: str, rules: dict[str, Any], found: list[str]) -> None:
    links = links_in(body, **rules)
    assert links.urls == [url if "://" in url else f"http://h.example{url}" for url in found]


def test_a_header_forbids_it_for_us_and_not_for_others() -> None:
    def found(value: str) -> int:
        request = Request(1, "http://h.example/", discovery=Discovery(0, 1, "http://h.example/"))
        headers = (("content-type", "text/html"), ("x-robots-tag", value))
        response = Response(request, request.url, 200, headers, b'<a href="x">')
        search = LinkSearch.of(Config.of(follow=True).follow, request.discovery, "fetcher")
        reading = read_body(response, select=None, extract=None, search=search, columns=())
        assert reading.found is not None
        return len(reading.found.urls)

    assert [found(value) for value in ("nofollow", "none", "fetcher: nofollow")] == [0, 0, 0]
    assert [found(value) for value in ("noindex", "otherbot: nofollow")] == [1, 1]


def test_a_page_that_led_out_of_the_scope_names_nothing() -> None:
    links = links_in('<a href="/x">', url="http://other.example/", base="http://h.example/")
    assert (links.urls, links.outside) == ([], True)


def test_what_one_page_names_is_bounded() -> None:
    many = links_in("".join(f"<a href={number}>" for number in range(200_000)))
    assert 0 < len(many.urls) < 200_000
    assert len(many.urls) + many.dropped == 200_000
    assert sum(map(len, many.urls)) < 8 * 2**20
    long = links_in(f'<a href="/{"x" * 100_000}"><a href="/y">')
    assert (long.urls, long.dropped) == (["http://h.example/y"], 1)
    base = f"http://h.example/{'b' * 60_000}/"
    assert sum(map(len, links_in(f'<base href="{base}">' + "".join(f"<a href={n}>" for n in range(1000))).urls)) < 2**21


def test_only_html_has_links() -> None:
    request = Request(1, "http://h.example/", discovery=Discovery(0, 1, "http://h.example/"))
    search = LinkSearch.of(Config.of(follow=True).follow, request.discovery, "fetcher")
    for kind in ("text/plain", "application/rss+xml", "image/png"):
        response = Response(request, request.url, 200, (("content-type", kind),), b'<rss><a href="x">x</a></rss>')
        assert read_body(response, select=None, extract=None, search=search).found is None


# By the command line


def test_each_url_is_a_row_and_says_where_it_comes_from(crawl_of: Callable[..., Crawl]) -> None:
    crawl = crawl_of()
    ended = crawl.run()
    assert ended.code == 0, ended.said
    assert crawl.paths() == sorted(TREE)
    assert crawl.site.asked() == dict.fromkeys(TREE, 1)
    records = {path_of(record["url"]): record for record in crawl.records()}
    start = crawl.site.url()
    assert [records["/"][key] for key in ("id", "depth", "referrer")] == [1, 0, None]
    assert [records["/a"][key] for key in ("id", "depth", "referrer")] == [LISTED_IDS + 1, 1, start]
    assert [records["/deeper"][key] for key in ("depth", "referrer")] == [4, crawl.site.url("/deep")]
    stats = crawl.balance()
    assert (stats["input"], stats["ok"], stats["found"], stats["more"]) == (8, 8, 7, False)
    again = crawl.run()
    assert (again.code, crawl.site.asked()) == (0, {})
    assert "nothing was fetched" in again.said


def test_the_columns_are_there_only_where_links_are_followed(crawl_of: Callable[..., Crawl]) -> None:
    crawl = crawl_of()
    assert crawl.run(follow=False).code == 0
    assert {"referrer", "depth"}.isdisjoint(crawl.records()[0])
    assert crawl.run("--columns", "url,depth", to="c.csv").code == 0
    rows = list(csv.DictReader(io.StringIO((crawl.home / "c.csv").read_text())))
    assert {path_of(row["url"]): row["depth"] for row in rows}["/deep"] == "3"
    refused = crawl.run("--columns", "url,depth", follow=False, to="d.csv")
    assert (refused.code, "--follow" in refused.said) == (2, True)


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        (["--depth", "0"], ["/"]),
        (["--depth", "1"], ["/", "/a", "/b"]),
        (["--depth", "2"], ["/", "/a", "/a/1", "/a/2", "/b", "/b/1"]),
        (["--exclude", "*/a*"], ["/", "/b", "/b/1"]),
        (["--include", "*/a*"], ["/", "/a", "/a/1", "/a/2"]),
        (["--follow-css", "a:first-of-type"], ["/", "/a", "/a/1", "/deep", "/deeper"]),
    ],
)
def test_how_far(words: list[str], paths: list[str], crawl_of: Callable[..., Crawl]) -> None:
    crawl = crawl_of()
    assert crawl.run(*words).code == 0
    assert crawl.paths() == paths


def test_a_limit_of_pages_is_said_and_ends_well(crawl_of: Callable[..., Crawl]) -> None:
    crawl = crawl_of()
    ended = crawl.run("--max-pages", "4")
    stats = crawl.balance()
    assert (ended.code, stats["input"], stats["more"], stats["pending"]) == (0, 4, True, 0)
    assert "--max-pages 4 is reached" in ended.said
    assert "and more = 4 ok" in ended.said
    again = crawl.run("--max-pages", "4")
    assert (again.code, crawl.balance()["more"]) == (0, True)
    changed = crawl.run("--max-pages", "5")
    assert (changed.code, "--max-pages was 4 when this job began" in changed.said) == (2, True)
    exact = crawl.run("--max-pages", "8", to="e.jsonl")
    assert (exact.code, crawl.balance()["more"], "is reached" in exact.said) == (0, False, False)


def test_a_limit_of_pages_for_each_host(crawl_of: Callable[..., Crawl]) -> None:
    crawl = crawl_of()
    (crawl.home / "l.txt").write_text(f"{crawl.site.url()}\n{crawl.site.url(host=2)}\n")
    ended = crawl.run("l.txt", "--max-pages-per-host", "3")
    assert ended.code == 0, ended.said
    hosts = sorted(record["url"].split("/")[2].split(":")[0] for record in crawl.records())
    assert hosts == ["127.0.0.1"] * 3 + ["127.0.0.2"] * 3
    assert (crawl.balance()["more"], "--max-pages-per-host 3 is reached" in ended.said) == (True, True)


def test_what_is_listed_and_named_is_one_row(crawl_of: Callable[..., Crawl]) -> None:
    crawl = crawl_of()
    (crawl.home / "l.txt").write_text("".join(f"{crawl.site.url(path)}\n" for path in ("/", "/b", "/a/2")))
    assert crawl.run("l.txt").code == 0
    assert crawl.site.asked() == dict.fromkeys(TREE, 1)
    assert crawl.paths() == sorted(TREE)
    records = {path_of(record["url"]): record for record in crawl.records()}
    assert [(records[path]["id"], records[path]["depth"]) for path in ("/", "/b", "/a/2")] == [(1, 0), (2, 0), (3, 0)]


def test_a_limit_of_rows_counts_those_of_the_list(crawl_of: Callable[..., Crawl]) -> None:
    crawl = crawl_of()
    (crawl.home / "l.txt").write_text("".join(f"{crawl.site.url(path)}\n" for path in ("/b/1", "/deep", "/b")))
    assert crawl.run("l.txt", "--limit", "1", "--depth", "1").code == 0
    assert crawl.paths() == ["/a", "/b/1"]


def test_pages_one_after_the_other(crawl_of: Callable[..., Crawl]) -> None:
    def pages(path: str) -> LinkedPage | None:
        number = int(path.partition("=")[2] or 1)
        return page("/elsewhere", more=f'<a class=next href="?page={number + 1}">' if number < 40 else "")

    crawl = crawl_of(pages)
    began = time.monotonic()
    assert crawl.run("--follow-css", "a.next", follow=False).code == 0
    assert len(crawl.paths()) == 40
    assert "/elsewhere" not in crawl.paths()
    assert time.monotonic() - began < 20  # no page waits for the second in which a batch is collected


def test_a_start_page_that_leads_elsewhere_is_told_of(crawl_of: Callable[..., Crawl]) -> None:
    away: list[str] = []
    crawl = crawl_of(
        lambda path: LinkedPage(b"", status=301, headers=(("Location", away[0]),)) if path == "/" else page("/b")
    )
    away.append(crawl.site.url("/home", host=2))
    ended = crawl.run()
    assert (ended.code, crawl.paths(), crawl.records()[0]["final_url"]) == (0, ["/"], away[0])
    assert f"1 page of the list led out of --within host, such as to {away[0]}" in ended.said


@pytest.mark.parametrize(
    "start",
    [
        LinkedPage(b"text with /a", "text/plain"),
        LinkedPage(b"no", "text/plain", 403),
        LinkedPage(b"%PDF-1", "application/pdf"),
    ],
)
def test_a_start_page_without_links(start: LinkedPage, crawl_of: Callable[..., Crawl]) -> None:
    crawl = crawl_of({**TREE, "/": start})
    assert crawl.run().code == (3 if start.status == 403 else 0)
    assert crawl.paths() == ["/"]


def test_a_start_page_that_robots_forbid(crawl_of: Callable[..., Crawl]) -> None:
    rules = LinkedPage(b"User-agent: *\nDisallow: /a\n", "text/plain")
    crawl = crawl_of({**TREE, "/robots.txt": rules})
    assert crawl.run("--robots").code == 0
    asked = crawl.site.asked()
    assert {"/a", "/a/1", "/a/2"}.isdisjoint(asked)
    denied = {path_of(record["url"]): record["error"] for record in crawl.records()}
    assert (denied["/a"], denied["/b/1"]) == ("robots_denied", None)


def test_what_is_read_in_processes_of_their_own_is_followed_too(crawl_of: Callable[..., Crawl]) -> None:
    crawl = crawl_of()
    assert crawl.run("--parsers", "1").code == 0
    assert crawl.paths() == sorted(TREE)


def test_from_a_sitemap_with_what_it_left_out(crawl_of: Callable[..., Crawl]) -> None:
    crawl = crawl_of(dict(TREE))
    urls = "".join(f"<url><loc>{crawl.site.url(path)}</loc></url>" for path in ("/", "/b"))
    listed = f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{urls}</urlset>'
    (crawl.home / "map.xml").write_text(listed)
    words = ["crawl", "--from", "sitemap", "map.xml", "-o", "pages.jsonl", "--follow", "--depth", "1"]
    assert run(*words, "--retries", "0", folder=crawl.home).code == 0
    assert crawl.paths() == ["/", "/a", "/a/2", "/b", "/b/1"]


def test_several_workers_follow_as_one_does(crawl_of: Callable[..., Crawl]) -> None:
    crawl = crawl_of()
    (crawl.home / "l.txt").write_text(f"{crawl.site.url()}\n{crawl.site.url(host=2)}\n")
    ended = crawl.run("l.txt", "--workers", "2")
    assert ended.code == 0, ended.said
    assert crawl.paths() == sorted([*TREE, *TREE])
    assert set(crawl.site.asked().values()) == {2}
    assert {record["depth"] for record in crawl.records()} == {0, 1, 2, 3, 4}
    records = {record["url"]: record for record in crawl.records()}
    assert records[crawl.site.url("/deep", host=2)]["referrer"] == crawl.site.url("/a/1", host=2)


# Traps


def test_a_calendar_is_told_of_with_what_leaves_it_out(crawl_of: Callable[..., Crawl]) -> None:
    def pages(path: str) -> LinkedPage:
        if not path.startswith("/calendar/"):
            return page("/about", "/calendar/2026/1")
        year, month = map(int, path.split("/")[2:])
        return page(f"/calendar/{year + month // 12}/{month % 12 + 1}")

    crawl = crawl_of(pages)
    ended = crawl.run("--max-pages", "40")
    assert ended.code == 0
    told = next(line for line in ended.said.splitlines() if "/calendar/" in line)
    exclude = told.partition("--exclude '")[2].rstrip("'")
    assert crawl.run("--max-pages", "40", "--exclude", exclude, to="without.jsonl").code == 0
    assert crawl.paths("without.jsonl") == ["/", "/about"]


@pytest.mark.parametrize(
    ("grown", "words"),
    [
        (lambda path: f"{path.rstrip('/')}/more/", "a part of the path repeats"),
        (lambda path: f"/?sid={len(path)}x{hash(path) & 0xFFFF}", "a session id"),
        (lambda path: f"{path}{'&' if '?' in path else '?'}x=1", "parameters"),
    ],
)
def test_other_traps(grown: Callable[[str], str], words: str, crawl_of: Callable[..., Crawl]) -> None:
    crawl = crawl_of(lambda path: page("/about", grown(path)) if path != "/about" else page())
    ended = crawl.run("--max-pages", "30")
    told = next(line for line in ended.said.splitlines() if f"({words})" in line)
    exclude = told.partition("--exclude '")[2].rstrip("'")
    assert crawl.run("--max-pages", "30", "--exclude", exclude, to="without.jsonl").code == 0
    assert len(crawl.records("without.jsonl")) < 8, exclude


# What is wrong with the command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--follow", "--ordered"], "ordered: rows that are found have no place in the order of the list"),
        (["--follow", "--head"], "follow: reads a page's body, and by HEAD there is none"),
        (["--follow", "--include", "re:(x"], "include: '(x' is no regular expression"),
        (["--follow", "--exclude", "re:*"], "exclude: '*' is no regular expression"),
        (["--follow-css", "a["], "follow-css: 'a[' is no CSS selector"),
        (["--follow", "--max-pages", "0"], "max-pages 0: must be at least 1"),
        (["--follow", "--depth", "x"], "depth x: must be a whole number"),
        (["--depth", "2"], "depth: says which links are followed: give --follow"),
        (["--exclude", "*"], "exclude: says which links are followed: give --follow"),
    ],
)
def test_what_is_refused(words: list[str], said: str, crawl_of: Callable[..., Crawl]) -> None:
    crawl = crawl_of()
    ended = crawl.run(*words, follow=False)
    assert (ended.code, said in ended.said) == (2, True), ended.said
    assert crawl.site.asked() == {}


def test_a_job_that_began_without_it_is_not_continued_with_it(crawl_of: Callable[..., Crawl]) -> None:
    crawl = crawl_of()
    assert crawl.run(follow=False).code == 0
    ended = crawl.run()
    assert (ended.code, "--follow was" in ended.said) == (2, True), ended.said
    assert crawl.run("--fresh").code == 0
    assert crawl.paths() == sorted(TREE)


# Whatever befalls it


def ledger_of(crawl: Crawl, name: str = "pages.jsonl") -> tuple[set[int], set[int]]:
    """Return the ids of the rows with an outcome, and of those that were found."""
    with closing(sqlite3.connect(crawl.home / f"{name}.job" / "ledger.sqlite")) as db:
        done = {row for (row,) in db.execute("SELECT id FROM rows")}
        return done, {row for (row,) in db.execute("SELECT id FROM found")}


def test_a_job_that_is_killed_goes_on_with_what_was_found(crawl_of: Callable[..., Crawl]) -> None:
    crawl = crawl_of(
        lambda path: page(*(f"{path.rstrip('/')}/{n}" for n in range(3)) if path.count("/") < 5 else ()), latency=0.02
    )
    for kill in range(4):
        with Running(*crawl.words("--follow"), folder=crawl.home) as running:
            crawl.site.until_asked(10 + 30 * kill)
            running.send(signal.SIGKILL)
            running.end()
    ended = crawl.run()
    assert ended.code == 0, ended.said
    done, found = ledger_of(crawl)
    assert done - {1} == found == set(range(LISTED_IDS + 1, LISTED_IDS + len(found) + 1))
    assert len(crawl.paths()) == len(set(crawl.paths())) == len(done)
    assert set(crawl.site.asked()) == set(crawl.paths())


def test_a_job_that_is_interrupted_tells_what_is_left(crawl_of: Callable[..., Crawl]) -> None:
    crawl = crawl_of(
        lambda path: page(*(f"{path.rstrip('/')}/{n}" for n in range(4)) if path.count("/") < 4 else ()), latency=0.05
    )
    with Running(*crawl.words("--follow"), folder=crawl.home) as running:
        crawl.site.until_asked(20)
        running.send(signal.SIGINT)
        ended = running.end()
    stats = crawl.balance()
    done, found = ledger_of(crawl)
    assert (ended.code, stats["input"], stats["pending"]) == (130, len(found) + 1, len(found) + 1 - len(done))
    assert stats["pending"] > 0
    told = run("report", "pages.jsonl.job", "--json", folder=crawl.home)
    assert json.loads(told.out)["input"] == stats["input"]
    assert crawl.run().code == 0
    assert len(crawl.records()) == 1 + 4 + 16 + 64 + 256


DOCS = next(
    (path for path in sorted(Path("/usr/share/doc").glob("python3*/html")) if (path / "index.html").is_file()), None
)


@pytest.mark.skipif(DOCS is None, reason="python3-doc is not installed")
def test_the_documentation_of_python_as_by_a_walk_over_its_files(crawl_of: Callable[..., Crawl]) -> None:
    assert DOCS is not None
    crawl = crawl_of(folder(DOCS.resolve()))
    ended = crawl.run(start="/index.html")
    assert ended.code == 0, ended.said
    assert set(crawl.paths()) == breadth_first(DOCS.resolve())
    assert len(crawl.paths()) > 100
    assert set(crawl.site.asked().values()) == {1}


# With everything else


def test_a_plain_run_follows_too(crawl_of: Callable[..., Crawl]) -> None:
    crawl = crawl_of()
    ended = run("crawl", "--follow", crawl.site.url(), "-f", "jsonl", "--summary", "s.json", folder=crawl.home)
    assert ended.code == 0
    found = {path_of(json.loads(line)["url"]): json.loads(line)["depth"] for line in ended.lines}
    assert (sorted(found), found["/deeper"], crawl.balance()["found"]) == (sorted(TREE), 4, 7)
    assert crawl.site.asked() == dict.fromkeys(TREE, 1)


def test_a_retry_adds_the_links_of_what_now_succeeds(crawl_of: Callable[..., Crawl]) -> None:
    ill: dict[str, LinkedPage] = {**TREE, "/a": LinkedPage(b"ill", status=500), "/b/1": LinkedPage(b"gone", status=404)}
    crawl = crawl_of(ill)
    assert crawl.run().code == 0
    assert crawl.paths() == ["/", "/a", "/a/2", "/b", "/b/1"]
    ids = {record["url"]: record["id"] for record in crawl.records()}
    ill.update(TREE)
    crawl.site.asked()
    assert crawl.run("--retry-failed").code == 0
    assert crawl.site.asked() == dict.fromkeys(["/a", "/a/1", "/deep", "/deeper", "/b/1"], 1)
    assert crawl.paths() == sorted(TREE)
    assert ids.items() <= {record["url"]: record["id"] for record in crawl.records()}.items()


def test_a_list_that_has_grown_leaves_what_was_found_its_ids(crawl_of: Callable[..., Crawl]) -> None:
    crawl = crawl_of({**TREE, "/new": page("/new/1", "/a"), "/new/1": page()})
    listed = [crawl.site.url()]
    (crawl.home / "l.txt").write_text("\n".join(listed))
    assert crawl.run("l.txt").code == 0
    before = {record["id"]: record["url"] for record in crawl.records()}
    (crawl.home / "l.txt").write_text("\n".join([*listed, crawl.site.url("/new"), crawl.site.url("/a")]))
    crawl.site.asked()
    assert crawl.run("l.txt").code == 0
    after = {record["id"]: record["url"] for record in crawl.records()}
    assert before.items() <= after.items()
    assert crawl.site.asked() == {"/new": 1, "/new/1": 1}
    assert {record["id"]: record["error"] for record in crawl.records()}[3] == "duplicate"


def test_fresh_begins_again(crawl_of: Callable[..., Crawl]) -> None:
    crawl = crawl_of()
    assert crawl.run("--depth", "1").code == 0
    crawl.site.asked()
    assert crawl.run("--fresh").code == 0
    assert crawl.site.asked() == dict.fromkeys(TREE, 1)
    assert crawl.paths() == sorted(TREE)


def test_since_compares_rows_that_are_found(crawl_of: Callable[..., Crawl]) -> None:
    pages = dict(TREE)
    crawl = crawl_of(pages)
    crawl.site.etags = True
    assert crawl.run(to="old.jsonl").code == 0
    pages["/deeper"] = page(more="other")
    pages["/b"] = page("/b/1", "/brand-new")
    pages["/brand-new"] = page()
    assert crawl.run("--since", "old.jsonl").code == 0
    change = {path_of(record["url"]): record["change"] for record in crawl.records()}
    assert change == {**dict.fromkeys(TREE, "unchanged"), "/deeper": "changed", "/b": "changed", "/brand-new": "new"}
    crawl.site.asked()
    last = crawl.run("--since", "old.jsonl", "--max-age", "1d", "--depth", "1", to="last.jsonl")
    assert (last.code, crawl.site.asked()) == (0, {"/": 1})  # of the last pages no links are wanted


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["-o", "b.csv", "-o", "c.sqlite"], "pages.jsonl"),
        (["--body", "bodies"], "pages.jsonl"),
        (["--select", "t=title"], "pages.jsonl"),
    ],
)
def test_with_other_outputs_it_is_the_same(words: list[str], name: str, crawl_of: Callable[..., Crawl]) -> None:
    crawl = crawl_of()
    assert crawl.run(*words).code == 0
    assert crawl.paths(name) == sorted(TREE)
    if "b.csv" in words:
        rows = list(csv.DictReader(io.StringIO((crawl.home / "b.csv").read_text())))
        assert sorted(path_of(row["url"]) for row in rows) == sorted(TREE)
        with closing(sqlite3.connect(crawl.home / "c.sqlite")) as db:
            assert db.execute("SELECT count(*), max(depth), min(id) FROM pages").fetchone() == (8, 4, 1)
    if "--body" in words:
        assert all((crawl.home / "bodies" / record["body_path"]).is_file() for record in crawl.records())


def test_explode_has_each_page_of_those_found(crawl_of: Callable[..., Crawl]) -> None:
    crawl = crawl_of()
    assert crawl.run("--select", "link[]=a@href", "--explode", "link").code == 0
    lines = [json.loads(line) for line in (crawl.home / "pages.jsonl").read_text().splitlines()]
    assert {path_of(line["url"]) for line in lines} == set(TREE)
    assert sorted(line["item"] for line in lines if path_of(line["url"]) == "/") == [1, 2, 3, 4]


def test_pages_that_were_found_are_read_again_out_of_an_archive(crawl_of: Callable[..., Crawl]) -> None:
    crawl = crawl_of()
    assert crawl.run("-o", "pages.warc.gz").code == 0
    assert run("extract", "pages.warc.gz", "-o", "again.jsonl", folder=crawl.home).code == 0
    shown = [(record["id"], record["url"], record["title"]) for record in crawl.records("again.jsonl")]
    assert shown == [(record["id"], record["url"], record["title"]) for record in crawl.records()]
    assert len(shown) == len(TREE)


# The library


async def test_a_source_of_rows_for_the_library() -> None:
    with LinkedSite(TREE) as site:
        async with Fetcher(robots=False) as fetched, fetched.stream(fetcher.follow(site.url(), depth=2)) as outcomes:
            pages = [outcome async for outcome in outcomes]
            assert outcomes.stats.input == len(pages) == 6
        assert all(isinstance(each, Page) and each.found is None for each in pages)
        deepest = max(pages, key=lambda each: each.request.discovery.depth if each.request.discovery else 0)
        assert deepest.request.discovery is not None
        assert (deepest.request.discovery.depth, deepest.request.discovery.start) == (2, 1)
        site.asked()
        async with Fetcher(robots=False) as fetched:
            async with fetched.stream(fetcher.follow([site.url()], depth=2), sequentially=True) as one_by_one:
                assert [path_of(each.request.url) async for each in one_by_one] == [
                    "/",
                    "/a",
                    "/b",
                    "/a/1",
                    "/a/2",
                    "/b/1",
                ]
            with pytest.raises(ConfigError, match="ordered"):
                async with fetched.stream(fetcher.follow(site.url()), ordered=True):
                    pass


async def test_what_a_public_page_names_may_not_be_private() -> None:
    async def answer(request: Request) -> Response:
        return Response(request, request.url, 200, (("content-type", "text/html"),), b'<a href="/x">')

    public = fetcher.follow("http://h.example/")
    async with Fetcher(robots=False, transport=answer) as fetched, fetched.stream(public) as outcomes:
        assert [each.request.guarded async for each in outcomes] == [False, True]
    with LinkedSite(TREE) as site:  # loopback: a private page may name private ones
        async with Fetcher(robots=False) as fetched, fetched.stream(fetcher.follow(site.url(), depth=1)) as outcomes:
            assert [each.request.guarded async for each in outcomes] == [False, False, False]


def test_all_at_once_for_who_does_not_await() -> None:
    with LinkedSite(TREE) as site:
        outcomes = fetcher.fetch_all(fetcher.follow(site.url()), robots=False)
        assert sorted(path_of(each.request.url) for each in outcomes) == sorted(TREE)
        assert [each.request.id for each in outcomes] == [1, *range(LISTED_IDS + 1, LISTED_IDS + 8)]
        assert len(fetcher.fetch_all([site.url()], robots=False, follow=True, depth=1)) == 3
    with pytest.raises(ConfigError, match="regular expression"):
        fetcher.follow("http://h.example/", exclude="re:(")
    with pytest.raises(ConfigError, match="no CSS selector"):
        fetcher.follow("http://h.example/", css="a[")


async def test_a_job_of_the_library(tmp_path: Path) -> None:
    with LinkedSite(TREE) as site:
        async with Fetcher(robots=False, follow=True) as fetched:
            async with Job(fetched, tmp_path / "pages.jsonl") as job:
                stats = await job.run([site.url()])
            assert (stats.input, stats.ok, stats.pending) == (8, 8, 0)
            with pytest.raises(ConfigError, match="a job follows by its fetcher's options"):
                async with Job(fetched, tmp_path / "other.jsonl") as job:
                    await job.run(fetcher.follow(site.url()))  # type: ignore[arg-type]  # that is what is refused
        assert sorted(site.asked()) == sorted(TREE)


@pytest.mark.parametrize("concurrency", [4, 100])
async def test_a_job_does_not_wait_for_the_next_commit_where_it_needs_rows(
    concurrency: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("COMMIT_SECONDS", "FIRST_COMMIT_SECONDS"):
        monkeypatch.setattr(f"fetcher.job.writer.{name}", 3_600.0)
    with LinkedSite(TREE) as site:
        async with asyncio.timeout(60), Fetcher(robots=False, follow=True, concurrency=concurrency) as fetched:
            async with Job(fetched, tmp_path / "pages.jsonl") as job:
                stats = await job.run([site.url()])
        assert (stats.input, stats.ok, stats.pending) == (8, 8, 0)
        assert sorted(site.asked()) == sorted(TREE)


async def test_what_a_job_has_found_alone_is_no_row_of_the_list_too(tmp_path: Path) -> None:
    asked_twice = threading.Event()

    def pages(path: str) -> LinkedPage | None:
        if path == "/a":
            asked_twice.wait(60)
        return page("/a") if path == "/" else page()

    with LinkedSite(pages) as site:
        async with Fetcher(robots=False, follow=True) as fetched, Job(fetched, tmp_path / "pages.jsonl") as job:

            async def rows() -> Any:
                yield site.url("/")
                async with asyncio.timeout(60):
                    while job.stats.following is None or not job.stats.following.found:
                        await asyncio.sleep(0.01)
                yield site.url("/a")
                asked_twice.set()

            stats = await job.run(rows())
        assert (stats.ok, dict(stats.codes)) == (2, {"duplicate": 1})
        assert site.asked() == {"/": 1, "/a": 1}


async def test_a_job_that_goes_on_knows_the_only_row_that_it_has_found(tmp_path: Path) -> None:
    with LinkedSite({"/": page("/a"), "/a": page()}) as site:
        for paths, codes in ((["/"], {}), (["/", "/a"], {"duplicate": 1})):
            async with Fetcher(robots=False, follow=True) as fetched, Job(fetched, tmp_path / "pages.jsonl") as job:
                stats = await job.run([site.url(path) for path in paths])
            assert (stats.ok, dict(stats.codes)) == (2, codes)
        assert site.asked() == {"/": 1, "/a": 1}


async def test_a_list_that_keeps_its_reader_waiting_holds_up_nothing() -> None:
    with LinkedSite(TREE) as site:
        gate = asyncio.Event()

        async def rows() -> Any:
            yield site.url("/b")
            await gate.wait()
            yield site.url("/deep")
            yield site.url("/b/1")  # was found by then

        async with Fetcher(robots=False, follow=True, exclude="*/a*") as fetched, fetched.stream(rows()) as outcomes:
            seen = []
            async for outcome in outcomes:
                seen.append((path_of(outcome.request.url), outcome.ok))
                if seen[-1][0] == "/b/1":
                    gate.set()
        assert sorted(seen) == [("/b", True), ("/b/1", False), ("/b/1", True), ("/deep", True), ("/deeper", True)]
        assert max(site.asked().values()) == 1


# Sampled from the sweep


def test_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    struck, troubles = following.kills(6, ground=tmp_path, pages=following.Graph(200, 1), a_job=3)
    assert (struck >= 3, troubles) == (True, [])


@pytest.mark.skipif(bool(missing()), reason="strace does not work here")
def test_faults_of_the_ledger_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    struck, troubles = following.points_struck(
        ["EIO", "ENOSPC", "KILL"], ground=tmp_path, pages=following.Graph(60, 1), sample=6
    )
    assert (struck >= 3, troubles) == (True, [])


def test_a_known_url_takes_few_bytes(tmp_path: Path) -> None:
    figures = measure(tmp_path, 60, 500)
    assert figures.found >= 30_000
    assert figures.bytes_a_url < 60
