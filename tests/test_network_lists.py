"""Lists on the network, without one: what is asked for in which order, what bounds it, and what becomes of what fails."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fetcher.errors import ConnectError, FetchError, Skipped, SourceError, StatusError
from fetcher.model import Request
from fetcher.sources import FORMATS, BadRow, ListOptions, Row, check, estimate_rows, has_free_fields, network, read
from fetcher.sources.inputs import FILES
from fetcher.sources.network import MAX_DEPTH, Entry, ListBody, NetworkLists
from tests.lab.sitemaps import index, urlset

Answer = str | bytes | FetchError | tuple[str, str]
MISSING = StatusError(404, "the server answered 404 Not Found")
BUSY = StatusError(503, "the server answered 503 Service Unavailable")
MISSING_TEXT, BUSY_TEXT = f"{MISSING}", f"{BUSY}"


class Web:
    """A network of lists by URL; ``asked`` says what was fetched, and whether robots.txt had to allow it."""

    def __init__(self, **answers: Answer) -> None:
        self.answers: dict[str, Answer | list[Answer]] = dict(answers)
        self.asked: list[tuple[str, bool]] = []

    def __call__(self, url: str, /, *, robots: bool = True, guarded: bool = False) -> ListBody:
        self.asked.append((url, robots))
        found = self.answers.get(url, MISSING)
        if isinstance(found, list):
            found = found.pop(0)
        if isinstance(found, FetchError):
            error = found.copy()
            error.url = url if "://" in url else f"https://{url}"
            raise error
        final, body = found if isinstance(found, tuple) else (url if "://" in url else f"https://{url}", found)
        return ListBody(final, body.encode() if isinstance(body, str) else body)

    @property
    def urls(self) -> list[str]:
        return [url for url, _ in self.asked]

    def rows(self, *inputs: str, format: str = "sitemap", store: Store | None = None, **options: Any) -> list[Row]:  # noqa: A002  # as read's
        return list(read(inputs, format=format, network=NetworkLists(self, store), **options))


class Store:
    """A ``ListStore`` in memory, which is rewound to be resumed."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, list[Entry]]] = []
        self.at = 0

    def document(self, url: str, produce: Callable[[], Iterator[Entry]]) -> Iterator[Entry]:
        if self.at == len(self.kept):
            self.kept.append((url, list(produce())))
        assert self.kept[self.at][0] == url
        self.at += 1
        return iter(self.kept[self.at - 1][1])


def urls_of(rows: list[Row]) -> list[str]:
    """Return the URLs of rows that are none of them bad, and are numbered."""
    assert [row.id for row in rows if isinstance(row, Request)] == list(range(1, len(rows) + 1))
    return [row.url for row in rows if isinstance(row, Request)]


def bad_of(rows: list[Row]) -> list[str]:
    return [row.error.message for row in rows if isinstance(row, BadRow)]


def web_of(answers: dict[str, Answer | list[Answer]]) -> Web:
    web = Web()
    web.answers = answers
    return web


# Lists


@pytest.mark.parametrize(
    ("format", "body"),
    [
        ("txt", "http://a/1\n# no\nhttp://a/2\n"),
        ("csv", "url,n\nhttp://a/1,x\nhttp://a/2,y\n"),
        ("tsv", "url\tn\nhttp://a/1\tx\nhttp://a/2\ty\n"),
        ("jsonl", '{"url": "http://a/1"}\n"http://a/2"\n'),
        ("sitemap", urlset(["http://a/1", "http://a/2"])),
    ],
)  # fmt: skip
def test_a_url_is_a_list_where_a_format_is_given(format: str, body: str) -> None:  # noqa: A002  # as read's
    for data in (body.encode(), gzip.compress(body.encode())):
        web = web_of({"http://l/list.gz": data})
        assert urls_of(web.rows("http://l/list.gz", format=format)) == ["http://a/1", "http://a/2"]
        assert web.asked == [("http://l/list.gz", True)]


def test_without_a_format_it_is_a_page() -> None:
    web = Web()
    (row,) = read(["http://l/sitemap.xml"], network=NetworkLists(web))
    assert row == Request(1, "http://l/sitemap.xml")
    assert web.asked == []


def test_rows_are_numbered_over_files_and_lists(tmp_path: Path) -> None:
    path = tmp_path / "l.txt"
    path.write_text("http://f/1\n")
    web = web_of({"http://l/x": "http://a/1\n"})
    assert urls_of(web.rows(str(path), "http://l/x", str(path), format="txt")) == [
        "http://f/1",
        "http://a/1",
        "http://f/1",
    ]


def test_a_list_that_cannot_be_had_is_named_with_its_code() -> None:
    web = web_of({"http://u:secret@l/x": ConnectError("connect_refused", "nobody listens")})
    with pytest.raises(SourceError, match=r"^http://l/x: connect_refused: nobody listens$"):
        web.rows("http://u:secret@l/x", format="txt")


@pytest.mark.parametrize(
    ("format", "body", "message"),
    [
        ("txt", "<!doctype html>", "http://l/x: is an HTML page, and no list (without --from it is fetched as a page)"),
        (
            "csv",
            "path\nhttp://a/\n",
            "http://l/x:1: there is no column 'url'; the columns are: path; say which has the URL with --url-column",
        ),
        ("jsonl", "no", "http://l/x:1: is not JSON"),
        ("txt", b"PK\x03\x04 \0", "http://l/x: looks like a binary file (zip or xlsx), not a list of URLs"),
        ("txt", b"\x1f\x8b\x08\0\0", "http://l/x: the gzip data is cut short"),
        ("txt", b"", "http://l/x: no URLs in it"),
    ],
)
def test_what_is_no_list_is_named(format: str, body: str | bytes, message: str) -> None:  # noqa: A002  # as read's
    with pytest.raises(SourceError) as raised:
        web_of({"http://l/x": body}).rows("http://l/x", format=format)
    assert str(raised.value).startswith(message)


def test_a_list_that_breaks_gives_what_came_before() -> None:
    body = gzip.compress(b"".join(b"http://a/%d\n" % number for number in range(30_000)))[:-9]
    rows: list[Row] = []
    with pytest.raises(SourceError, match=r"^http://l/x: the gzip data is cut short$"):
        rows.extend(read(["http://l/x"], format="txt", network=NetworkLists(web_of({"http://l/x": body}))))
    assert len(rows) > 10_000


def test_a_list_that_unpacks_to_too_much_is_refused() -> None:
    body = gzip.compress((b"#" * 1023 + b"\n") * (101 * 1024), 1)
    with pytest.raises(SourceError, match=r"^http://l/x: is over 100 MiB unpacked \(download it, and give the file\)$"):
        web_of({"http://l/x": body}).rows("http://l/x", format="txt")


def test_a_list_on_the_network_needs_one() -> None:
    with pytest.raises(SourceError, match=r"^http://l/x: is a list on the network: 'fetcher crawl' and Fetcher\.read"):
        list(read(["http://l/x"], format="txt"))


def test_what_can_be_told_beforehand() -> None:
    check(["http://l/x", "example.com"], ListOptions(format="sitemap"))
    assert estimate_rows(["http://l/x"], ListOptions(format="sitemap")) is None
    assert estimate_rows(["http://l/x"]) == 1
    with pytest.raises(SourceError, match="is no format of a list"):
        check(["http://l/x"], ListOptions(format="xml"))


# Their options


@pytest.mark.parametrize(
    ("format", "text", "encoding", "options", "expected"),
    [
        ("csv", "Nom;Lien;n\r\nCafé;http://a/é;1\r\n", "cp1252", {"delimiter": ";", "encoding": "cp1252", "url_column": "Lien"}, {"Nom": "Café", "n": "1"}),
        ("csv", "nom;link\nCafé;http://a/é\n", "utf-8", {}, {"nom": "Café"}),
        ("csv", "nom;link\nCafé;http://a/é\n", "utf-16", {}, {"nom": "Café"}),
        ("csv", "a,b,url\n1,2,http://a/é\n", "utf-8", {"carry": "B"}, {"b": "2"}),
        ("csv", 'id,url,final_url,status,fields\n1,http://a/é,http://b/,200,"{""n"": 7}"\n', "utf-8", {}, {"n": 7}),
        ("tsv", "n\tURL\n'\thttp://a/é\n", "cp1252", {"encoding": "cp1252"}, {"n": "'"}),
        ("txt", "http://a/é\n", "latin-1", {"encoding": "latin1"}, None),
        ("jsonl", '{"page": {"url": "http://a/é"}, "n": 1, "m": 2}\n', "utf-8", {"url_column": "page.url", "carry": ["n"]}, {"n": 1}),
    ],
)  # fmt: skip
def test_the_options_of_lists_are_for_those_on_the_network_too(
    format: str,  # noqa: A002  # as read's
    text: str,
    encoding: str,
    options: dict[str, Any],
    expected: dict[str, Any] | None,
) -> None:
    for data in (text.encode(encoding), gzip.compress(text.encode(encoding))):
        web, store = web_of({"http://l/x": data}), Store()
        assert web.rows("http://l/x", format=format, store=store, **options) == [Request(1, "http://a/é", (), expected)]
        store.at = 0
        assert web.rows("http://l/x", format=format, store=store, **options) == [Request(1, "http://a/é", (), expected)]
        assert len(web.asked) == 1


def test_a_list_in_another_encoding_is_told_once_and_costs_the_rows_where_it_is_the_url(
    caplog: pytest.LogCaptureFixture,
) -> None:
    text = "n,url\né,http://a/1\né,http://a/é\n"
    first, bad = web_of({"http://u:secret@l/x": text.encode("cp1252")}).rows("http://u:secret@l/x", format="csv")
    assert first == Request(1, "http://a/1", (), {"n": "\ufffd"})
    assert bad_of([bad]) == ["http://l/x:3: the URL is not UTF-8"]
    (told,) = caplog.messages
    assert told.startswith("http://l/x:2: is not UTF-8: bytes that cannot be read become U+FFFD; --encoding NAME")


@pytest.mark.parametrize("kind", ["parquet", "sqlite"])
def test_a_list_that_must_be_a_file_is_not_read_over_the_network(kind: str) -> None:
    web, options = Web(), ListOptions(format=kind)
    message = rf"^http://l/x: a {kind} list is not read over the network: download it, and give the file$"
    for use in (lambda: check(["http://u:p@l/x"], options), lambda: web.rows("http://u:p@l/x", format=kind)):
        with pytest.raises(SourceError, match=message):
            use()
    assert estimate_rows(["http://l/x"], options) is None
    assert not has_free_fields(["http://l/x"], options)
    assert web.asked == []
    assert list(read(["http://l/x.parquet"])) == [Request(1, "http://l/x.parquet")]


def test_what_a_list_on_the_network_may_have_is_told_by_its_format() -> None:
    kinds = [
        kind for kind in FORMATS if kind not in FILES and has_free_fields(["http://l/x"], ListOptions(format=kind))
    ]
    assert kinds == ["jsonl"]


# Sitemaps


def test_the_fields_of_a_sitemap_are_those_that_are_carried(tmp_path: Path) -> None:
    more = {"lastmod": "2024", "priority": "1", "changefreq": "daily"}
    text = urlset(["http://a/1", "http://a/x http://b/"], **more)
    path = tmp_path / "s.xml"
    path.write_text(text)
    for source in ("http://a/s.xml", str(path)):
        for carry, expected in ((None, more), ("priority, LastMod", {"lastmod": "2024", "priority": "1"}), ("", None)):
            web = web_of({"http://a/s.xml": text})
            row, bad = web.rows(source, carry=carry)
            assert row == Request(1, "http://a/1", (), expected)
            assert isinstance(bad, BadRow)
            assert (bad.request.id, bad.request.fields) == (2, expected)
        for use in (
            lambda source=source: check([source], ListOptions(format="sitemap", carry=("name",))),
            lambda source=source: Web().rows(source, carry="name"),
        ):
            with pytest.raises(
                SourceError,
                match=r"^sitemap: there is no column 'name' to carry; the columns are: lastmod, changefreq, priority$",
            ):
                use()


def test_the_encoding_of_a_sitemap_is_its_own() -> None:
    latin = '<?xml version="1.0" encoding="latin-1"?><urlset><url><loc>http://a/é</loc></url></urlset>'.encode(
        "latin-1"
    )
    for body in (latin, "http://a/é\n".encode(), "http://a/é\n".encode("utf-16")):
        assert urls_of(web_of({"http://a/s": body}).rows("http://a/s", encoding="utf-16-be")) == ["http://a/é"]


def test_an_index_is_read_depth_first() -> None:
    web = web_of({
        "http://a/i.xml": index(["http://a/1.xml", "http://b/n.xml", "http://a/3.xml"]),
        "http://a/1.xml": urlset(["http://a/1", "http://a/2"]),
        "http://b/n.xml": index(["http://b/4.xml"]),
        "http://b/4.xml": urlset(["http://c/3"]),
        "http://a/3.xml": urlset(["/4"]),
    })  # fmt: skip
    assert urls_of(web.rows("http://a/i.xml")) == ["http://a/1", "http://a/2", "http://c/3", "http://a/4"]


def test_locations_are_resolved_against_where_the_sitemap_came_from() -> None:
    web = web_of({"http://a/s.xml": ("https://www.a/x/s.xml", urlset(["y"]))})
    assert urls_of(web.rows("http://a/s.xml")) == ["https://www.a/x/y"]


def test_an_index_in_a_file_leads_to_the_network(tmp_path: Path) -> None:
    path = tmp_path / "i.xml"
    path.write_text(index(["http://a/1.xml", "http://a/2.xml"]))
    web = web_of({"http://a/1.xml": urlset(["http://a/1"])})
    first, bad = web.rows(str(path))
    assert first == Request(1, "http://a/1")
    assert isinstance(bad, BadRow)
    assert bad.error.message == f"http://a/2.xml: {MISSING_TEXT}"


def test_an_index_that_lists_itself_is_noticed() -> None:
    web = web_of({
        "http://a/i.xml": index(["http://a/i.xml", "http://a/j.xml"]),
        "http://a/j.xml": index(["http://A:80/i.xml#x", "http://a/1.xml", "http://a/1.xml"]),
        "http://a/1.xml": urlset(["http://a/1"]),
    })  # fmt: skip
    rows = web.rows("http://a/i.xml")
    assert bad_of(rows) == [
        "http://a/i.xml: lists itself, by http://a/i.xml",
        "http://A:80/i.xml#x: lists itself, by http://a/j.xml",
    ]
    assert web.urls == ["http://a/i.xml", "http://a/j.xml", "http://a/1.xml"]


def test_50_levels_are_not_followed() -> None:
    web = web_of({f"http://a/{n}.xml": index([f"http://a/{n + 1}.xml"]) for n in range(1, 51)})
    (bad,) = bad_of(web.rows("http://a/1.xml"))
    assert bad == "http://a/6.xml: is nested over 5 sitemaps deep, and not read"
    assert len(web.asked) == MAX_DEPTH


def test_the_number_of_sitemaps_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "MAX_SITEMAPS", 10)
    web = web_of({"http://a/i.xml": index(f"http://a/{n}.xml" for n in range(15))})
    rows = web.rows("http://a/i.xml")
    assert bad_of(rows)[0] == "http://a/10.xml: this and 4 more of its index are left out: over 10 sitemaps"
    assert len(web.asked) == 11


def test_the_number_of_rows_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "MAX_ROWS", 3)
    web = web_of({"http://a/s.xml": urlset(f"http://a/{n}" for n in range(4))})
    with pytest.raises(SourceError, match=r"^http://a/s.xml: with it there are over 3 URLs$"):
        web.rows("http://a/s.xml")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (MISSING, f"http://a/1.xml: {MISSING_TEXT}"),
        (Skipped("robots_denied", "'/1'"), "http://a/1.xml: robots_denied: '/1'"),
        ("<html>", "http://a/1.xml: is an HTML page, and no sitemap"),
        (
            "<!DOCTYPE a [<!ENTITY b 'c'>]><urlset/>",
            "http://a/1.xml:1: has a DTD of its own (entities), which is refused",
        ),
        (b"\x1f\x8b\x08\0\0", "http://a/1.xml: the gzip data is cut short"),
    ],
)
def test_a_sitemap_of_an_index_that_is_none_costs_one_bad_row(answer: Answer, message: str) -> None:
    web = web_of({
        "http://a/i.xml": index(["http://a/1.xml", "http://a/2.xml"]),
        "http://a/1.xml": answer,
        "http://a/2.xml": urlset(["http://a/2"]),
    })  # fmt: skip
    bad, good = web.rows("http://a/i.xml")
    assert bad_of([bad]) == [message]
    assert isinstance(bad, BadRow)
    assert bad.request.url == "http://a/1.xml"
    assert good == Request(2, "http://a/2")
    with pytest.raises(SourceError) as raised:
        web.rows("http://a/1.xml")
    assert str(raised.value) == message


def test_what_may_pass_is_asked_once_more_in_the_end_and_then_ends_the_run() -> None:
    answers: dict[str, Answer | list[Answer]] = {
        "http://a/i.xml": index(["http://a/1.xml", "http://a/2.xml", "http://a/3.xml"]),
        "http://a/1.xml": [BUSY, BUSY, urlset(["http://a/1"])],
        "http://a/2.xml": [BUSY, urlset(["http://a/2"])],
        "http://a/3.xml": urlset(["http://a/3"]),
    }
    web, store = web_of(answers), Store()
    rows: list[Row] = []
    with pytest.raises(SourceError, match=rf"^http://a/1.xml: {BUSY_TEXT}$"):
        rows.extend(read(["http://a/i.xml"], format="sitemap", network=NetworkLists(web, store)))
    assert urls_of(rows) == ["http://a/3", "http://a/2"]
    web.asked.clear()
    store.at = 0
    assert urls_of(web.rows("http://a/i.xml", store=store)) == ["http://a/3", "http://a/2", "http://a/1"]
    assert web.urls == ["http://a/1.xml"]
    web.asked.clear()
    store.at = 0
    assert urls_of(web.rows("http://a/i.xml", store=store)) == ["http://a/3", "http://a/2", "http://a/1"]
    assert web.urls == []


# A site


@pytest.mark.parametrize("site", ["a.example", "https://a.example", "https://a.example/"])
def test_a_site_says_in_robots_txt_where_its_sitemaps_are(site: str) -> None:
    robots = site.removesuffix("/") + "/robots.txt"
    web = web_of({
        robots: "\ufeffUser-agent: *\r\nDisallow: /\r\nsitemap : /x.xml\r\n# Sitemap: /no.xml\r\nSITEMAP:https://b.example/y.xml # y\n",
        "https://a.example/x.xml": index(["https://a.example/1.xml", "https://c.example/2.xml"]),
        "https://a.example/1.xml": urlset(["https://a.example/1"]),
        "https://c.example/2.xml": urlset(["https://a.example/2"]),
        "https://b.example/y.xml": urlset(["https://a.example/3"]),
    })  # fmt: skip
    assert urls_of(web.rows(site)) == ["https://a.example/1", "https://a.example/2", "https://a.example/3"]
    assert web.asked == [
        (robots, True),
        ("https://a.example/x.xml", False),  # the robots.txt that names it is its own
        ("https://a.example/1.xml", False),
        ("https://c.example/2.xml", True),
        ("https://b.example/y.xml", True),
    ]


@pytest.mark.parametrize("robots", ["User-agent: *\n", MISSING])
def test_a_site_that_names_none_is_asked_for_the_usual_one(robots: Answer) -> None:
    web = web_of({"a.example/robots.txt": robots, "https://a.example/sitemap.xml": urlset(["https://a.example/1"])})
    assert urls_of(web.rows("a.example")) == ["https://a.example/1"]
    web.answers["https://a.example/sitemap.xml"] = MISSING
    message = rf"^https://a.example/sitemap.xml: {MISSING_TEXT} \(the site's robots.txt names no sitemap either\)$"
    with pytest.raises(SourceError, match=message):
        web.rows("a.example")


def test_a_site_that_moved_is_asked_where_it_is_now() -> None:
    web = web_of({
        "a.example/robots.txt": ("https://www.a.example/robots.txt", "x"),
        "https://www.a.example/sitemap.xml": urlset(["/1"]),
    })  # fmt: skip
    assert urls_of(web.rows("a.example")) == ["https://www.a.example/1"]


def test_a_site_whose_robots_txt_cannot_be_had_is_not_guessed_at() -> None:
    with pytest.raises(SourceError, match=r"^a.example/robots.txt: http_503"):
        web_of({"a.example/robots.txt": BUSY}).rows("a.example")


def test_a_path_or_a_query_is_a_sitemap_itself() -> None:
    for url in ("https://a.example/s", "https://a.example/?s", "a.example/s"):
        web = web_of({url: urlset(["https://a.example/1"])})
        assert urls_of(web.rows(url)) == ["https://a.example/1"]
