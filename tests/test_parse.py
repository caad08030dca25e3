"""From a response to a page: kinds, titles, links, lengths, extractors, and what is shared and let go."""

from __future__ import annotations

import codecs
import gc
import time
import weakref
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser, SelectolaxError

from fetcher.config import Config
from fetcher.errors import ConfigError, ParseError
from fetcher.model import Extractor, Page, Request, Response, first_values
from fetcher.page import parse as module
from fetcher.page.parse import MAX_KEPT_BYTES, SMALL_BYTES, Document, kind_of, parse, read_body, validators_of
from fetcher.page.reader import Reader
from fetcher.page.select import Selection
from fetcher.sinks.layout import to_record

REQUEST = Request(7, "http://example.com/")
HTML = "text/html; charset=utf-8"
FRAGMENTS = [
    "<a href=1>", "<a>", "<A HREF='x'>", "</a>", "<svg>", "</svg>", "<math>", "</math>", "<a xlink:href=z>", "<A XLINK:HREF=z>",
    "<template>", "</template>", "<svg:a href=1>", "<table><tr><td>", "<select>", "<textarea>", "</textarea>", "<title>",
    "</title>", "<foreignObject>", "<noscript>", "<!--", "-->", "<![CDATA[", "]]>", "text",
]  # fmt: skip


def respond(body: bytes | str, content_type: str | None = HTML, **known: Any) -> Response:
    headers = (("server", "x"),) if content_type is None else (("content-type", content_type),)
    return Response(REQUEST, REQUEST.url, 200, headers, body.encode() if isinstance(body, str) else body, **known)


def read(
    response: Response,
    extract: Extractor | None = None,
    select: Selection | None = None,
    *,
    preview: int = 0,
    keep_body: bool = False,
) -> Page:
    reading = read_body(response, select=select, extract=extract, preview=preview)
    return Reader(Config.of(keep_body=keep_body))._page_of(response, reading, waited=0.5, fetched_at=9.0)


# Headers


def test_headers_are_looked_up_by_the_first_of_a_name() -> None:
    pairs = (("etag", '"a"'), ("x-seen", "1"), ("etag", '"b"'))
    first = Response(REQUEST, REQUEST.url, 200, pairs)
    assert [first.header(name) for name in ("ETag", "x-seen", "age")] == ['"a"', "1", None]
    assert validators_of(first) == ('"a"', None)
    other = Response(REQUEST, REQUEST.url, 200, (("age", "3"),))
    assert (other.header("age"), other.header("etag")) == ("3", None)
    assert (first.header("age"), first.header("etag")) == (None, '"a"')


def test_headers_are_looked_up_once_for_all_that_ask() -> None:
    pairs = (("etag", '"a"'),)
    assert first_values(pairs) is first_values(pairs)


def test_headers_that_can_change_are_looked_up_each_time() -> None:
    pairs: Any = [("age", "1")]  # of a transport that is not ours
    response = Response(REQUEST, REQUEST.url, 200, pairs)
    assert response.header("age") == "1"
    pairs[0] = ("age", "2")
    assert response.header("age") == "2"


# Titles


@pytest.mark.parametrize(
    ("html", "title"),
    [
        ("<title>Plain</title>", "Plain"),
        ("<title>\n  A \t B\f\rC   D \n</title>", "A B C D"),
        ("<title>A&nbsp; B&#x3000;</title>", "A\xa0 B\u3000"),
        ("<title>a &amp; <b>c</b></title>", "a & <b>c</b>"),
        ("<title></title>", ""),
        ("<title> \n </title>", ""),
        ("<p>none", None),
        ("", None),
        ("<title>One</title><title>Two</title>", "One"),
        ("<body><p>late</p><title>Body</title>", "Body"),
        ("<svg><title>Icon</title></svg>", None),
        ("<svg><g><g><title>Icon</title></g></g></svg><title>Page</title>", "Page"),
        ("<svg><title>Icon</title><foreignObject><title>Inside</title></foreignObject></svg>", "Inside"),
        ("<svg><desc><title>Described</title></desc></svg>", "Described"),
        ("<math><title>No</title></math><title>Page</title>", "Page"),
        ("<template><title>Hidden</title></template><title>Seen</title>", "Seen"),
        ("<title>caf\u00e9 \U0001f600</title>", "café 😀"),
    ],
)
def test_the_title_is_the_documents(html: str, title: str | None) -> None:
    assert parse(respond(html)).title == title


def test_images_without_end_cost_no_more_than_a_look() -> None:
    deep = "<svg>" + "<g>" * 200 + "<title>x</title>" * 2000
    started = time.monotonic()
    assert parse(respond(deep)).title is None
    assert time.monotonic() - started < 30


# Links, lengths, text


def test_links_are_anchors_with_a_target() -> None:
    html = "<a href=x>1</a><a name=y>2</a><a href>3</a><link href=z><template><a href=t></a></template><area href=q>"
    assert parse(respond(html)).count_links() == 2


@pytest.mark.parametrize(
    ("html", "number"),
    [
        ("<p>none", 0),
        ("<A HREF=x>1</A><a href>2</a><a>3</a><a name=href>4</a><area href=q><b href=x></b>", 2),
        ("<svg><a href=x></a><a xlink:href=y></a><A XLINK:HREF=z></a></svg><a xlink:href=w></a>", 3),
        ("<math><a href=x></a><a xlink:href=y></a></math>", 2),
        ("<template><a href=t></a></template><!-- <a href=c> --><textarea><a href=u></textarea>", 0),
        ("<a href=1></a>" * 100, 100),
    ],
)
def test_links_are_as_many_in_a_small_page_as_in_a_large_one(html: str, number: int) -> None:
    large = html + f"<!--{'-' * SMALL_BYTES}-->"
    assert len(html) <= SMALL_BYTES < len(large)
    assert (parse(respond(html)).count_links(), parse(respond(large)).count_links()) == (number, number)


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join))
def test_links_of_a_small_page_are_those_that_a_search_finds(html: str) -> None:
    assert parse(respond(html)).count_links() == len(LexborHTMLParser(html).css("a[href]"))


def test_a_page_is_searched_for_links_only_where_it_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[int] = []

    class Tree(LexborHTMLParser):
        def css(self, query: str) -> Any:
            searched.append(len(self.html or ""))
            return super().css(query)

    monkeypatch.setattr(module, "LexborHTMLParser", Tree)
    for size in (SMALL_BYTES, SMALL_BYTES + 1):
        assert parse(respond("<a href=x></a>".ljust(size))).count_links() == 1
    assert len(searched) == 1


@pytest.mark.parametrize(
    ("body", "content_type", "length", "charset"),
    [
        (b"", HTML, 0, "utf-8"),
        (b"abc", HTML, 3, "utf-8"),
        (b"\xef\xbb\xbfabc", HTML, 3, "utf-8"),
        ("é漢😀".encode(), HTML, 3, "utf-8"),
        ("é漢😀".encode(), "text/html", 3, "utf-8"),
        (b"a\xff\xffb\xe6\xbc", HTML, 5, "utf-8"),
        (b"a\xe9\x81", "text/html; charset=latin1", 3, "windows-1252"),
        ("猫である".encode("euc-jp"), "text/html; charset=euc-jp", 4, "euc-jp"),
        ("\ufeff漢😀".encode("utf-16le"), "text/html", 2, "utf-16le"),
        (b"~{<a href=x>", "text/html; charset=hz-gb-2312", 1, "replacement"),
    ],
)
def test_length_counts_characters(body: bytes, content_type: str, length: int, charset: str) -> None:
    document = parse(respond(body, content_type))
    assert (document.length, document.charset) == (length, charset)
    assert len(document.text) == length
    assert document.length == length


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode)),
    st.sampled_from([HTML, "text/html", None]),
)
def test_any_body_becomes_a_page(body: bytes, content_type: str | None) -> None:
    response = respond(body, content_type)
    page = read(response)
    if page.length is not None:
        assert page.length == len(Document(response).text)


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "cp1251", "koi8-r", "iso-8859-5"])
def test_the_tree_is_of_the_decoded_text(codec: str) -> None:
    html = "<!doctype html><title>Привет</title><p id=мир>да"
    label = {"utf-8-sig": "utf-8", "cp1251": "windows-1251"}.get(codec, codec)
    document = parse(respond(html.encode(codec), f"text/html; charset={label}"))
    assert document.title == "Привет"
    node = document.tree.css_first("p")
    assert node is not None
    assert (node.text(), node.attributes["id"]) == ("да", "мир")
    assert document.text == html


def test_a_byte_order_mark_does_not_push_the_head_into_the_body() -> None:
    document = parse(respond(b"\xef\xbb\xbf<title>x</title><meta name=y>"))
    assert document.tree.css_matches("head > meta")


def test_a_tree_that_lexbor_refuses_is_a_parse_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_source: bytes | str) -> LexborHTMLParser:
        raise SelectolaxError("Can't parse HTML.")

    monkeypatch.setattr(module, "LexborHTMLParser", refuse)
    with pytest.raises(ParseError) as caught:
        read(respond("<p>"))
    assert (caught.value.code, caught.value.message) == ("parse_crash", "Can't parse HTML.")
    with pytest.raises(ParseError) as caught:
        read(respond("x", "text/plain"), extract=lambda response: parse(response).tree)
    assert caught.value.code == "parse_crash"


# One document for one response


def test_a_response_at_hand_is_parsed_once() -> None:
    response, twin = respond("<p>"), respond("<p>")
    document = parse(response)
    assert parse(response) is document
    assert parse(twin) is not document


def test_a_large_document_is_not_kept_alive_and_of_small_ones_the_last_two() -> None:
    def alive(size: int) -> weakref.ref[Document]:
        return weakref.ref(parse(respond("<p>" + "x" * size)))

    large = alive(MAX_KEPT_BYTES)
    gc.collect()
    assert large() is None
    small = [alive(1000) for _ in range(10)]
    gc.collect()
    assert [document() is None for document in small] == [True] * 8 + [False] * 2


def test_an_extractor_shares_the_tree() -> None:
    trees: list[LexborHTMLParser] = []
    documents: list[Document] = []

    def extract(response: Response) -> int:
        documents.append(parse(response))
        trees.extend(parse(response).tree for _ in range(2))
        return parse(response).count_links()

    page = read(respond("<a href=x>"), extract)
    assert page.data == 1
    assert trees[0] is trees[1]
    # Title and links were read before the extractor ran, from the same document.
    assert documents[0]._links == 1


# Kinds


@pytest.mark.parametrize(
    ("content_type", "body", "kind"),
    [
        ("text/html", b"\0", "html"),
        ("TEXT/HTML; charset=x", b"", "html"),
        ("application/xhtml+xml", b"", "html"),
        ("text/plain", b"\0", "text"),
        ("text/css", b"", "text"),
        ("application/json; charset=utf-8", b"{}", "text"),
        ("application/problem+json", b"{}", "text"),
        ("application/rss+xml", b"", "xml"),
        ("application/xml", b"", "xml"),
        ("image/svg+xml", b"", "xml"),
        ("application/javascript", b"", "text"),
        ("image/png", b"text", "binary"),
        ("application/pdf", b"", "binary"),
        ("application/zip", b"abc", "binary"),
        (None, b"", "text"),
        ("application/octet-stream", b"", "text"),
        (None, b"just words", "text"),
        (None, b"esc \x1b[0m tab\t", "text"),
        (None, b"caf\xe9", "text"),
        (None, b"a\x00b", "binary"),
        (None, b"x" * 1445 + b"\0", "text"),
        (None, b"%PDF-1.7\n", "binary"),
        (None, b"\x89PNG\r\n\x1a\n\0", "binary"),
        (None, b"\xff\xfea\0b\0", "text"),
        (None, b" \n<!DOCTYPE html>", "html"),
        (None, b"\xef\xbb\xbf<html >", "html"),
        (None, b"<P >hi", "html"),
        (None, b"<!-- x", "html"),
        (None, b"<pre>", "text"),
        (None, b"<?xml version='1.0'?>", "text"),
        ("text/xml; charset=utf-8", b"<rss>", "xml"),
        ("application/xml", b"<?xml version='1.0'?>\n<!-- x --><!DOCTYPE html PUBLIC 'x'>\n<html xmlns='y'>", "html"),
        ("text/xml", b"<html>", "html"),
        ("text/xml", b"<htmlish>", "xml"),
        ("nonsense", b"<html>", "html"),
        ("unknown/unknown", b"<html>", "html"),
        ("*/*", b"\0", "binary"),
        ("application/octet-stream", b"<html>", "text"),
        ("application/octet-stream", b"\x01", "binary"),
    ],
)
def test_the_kind_is_the_headers_word_or_the_bytes(content_type: str | None, body: bytes, kind: str) -> None:
    assert kind_of(respond(body, content_type)) == kind


# Pages


def test_a_page_carries_what_the_response_knew() -> None:
    response = respond(
        "<title>T</title><a href=x>é",
        "Text/HTML;Charset=UTF-8",
        redirects=("http://a/",),
        elapsed=1.5,
        attempts=3,
        truncated=True,
    )
    assert read(response) == Page(
        REQUEST,
        REQUEST.url,
        200,
        length=27,
        bytes=28,
        content_type="text/html",
        charset="utf-8",
        title="T",
        links=1,
        redirects=("http://a/",),
        elapsed=1.5,
        waited=0.5,
        attempts=3,
        fetched_at=9.0,
        truncated=True,
        digest="xxh3:d0a344668ff6f075ddfdcf6f4d103e71",  # of these 28 bytes
    )


def test_a_text_has_no_title_and_a_binary_no_length() -> None:
    text = read(respond("<title>T</title>é", "text/plain"), preview=9)
    assert (text.length, text.charset, text.title, text.links, text.preview) == (17, "utf-8", None, None, "<title>T<")
    image = read(respond(b"\x89PNG", "image/png"), preview=9)
    assert (image.length, image.charset, image.title, image.links, image.preview) == (None, None, None, None, None)
    assert (image.bytes, image.content_type) == (4, "image/png")
    assert read(respond(b"", None)).content_type is None


def test_preview_and_body_are_kept_on_request() -> None:
    response = respond("é" * 50)
    assert read(response).preview is None
    assert read(response).body is None
    page = read(response, preview=10, keep_body=True)
    assert page.preview == "é" * 10
    assert page.body is response.body


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("Grüße".encode(), HTML),
        ("Grüße".encode("latin-1"), "text/html; charset=latin1"),
        (codecs.BOM_UTF8 + b"marked", "text/html; charset=koi8-r"),
        (codecs.BOM_UTF16_LE + "marked".encode("utf-16le"), HTML),
        (codecs.BOM_UTF16_BE + "marked".encode("utf-16be"), HTML),
        (b"\xfe\xff", "text/plain; charset=windows-1251"),
        (b"cut \xe2\x82", "text/plain; charset=utf-8"),
        (b"~{", "text/plain; charset=hz-gb-2312"),
        (b"", HTML),
    ],
)
def test_a_pages_text_is_the_documents(body: bytes, content_type: str) -> None:
    response = respond(body, content_type)
    page = read(response, keep_body=True)
    assert page.text == Document(response).text
    assert page.length == len(page.text or "")


@given(st.binary(max_size=200), st.sampled_from([HTML, "text/plain; charset=utf-16", "text/plain; charset=sjis", None]))
def test_the_text_of_any_body_has_its_length(body: bytes, content_type: str | None) -> None:
    page = read(respond(body, content_type), keep_body=True)
    assert (None if page.text is None else len(page.text)) == page.length


def test_what_is_no_text_has_none_and_a_body_that_was_not_kept_is_asked_for() -> None:
    assert read(respond(b"\0\x01", "image/png"), keep_body=True).text is None
    with pytest.raises(ConfigError, match="keep_body=True"):
        _ = read(respond(b"a")).text


def test_selected_fields_are_the_data_of_html_and_blank_elsewhere() -> None:
    selection = Selection.of(["h=h1", "all[]=a@href"])
    html = "<h1>H</h1><a href=x>"
    assert read(respond(html), select=selection).data == {"h": "H", "all": ["http://example.com/x"]}
    assert read(respond(html, "image/png"), select=selection).data == {"h": None, "all": []}
    assert read(respond(html, "text/plain"), select=selection).data == {"h": None, "all": []}
    assert read(respond(html)).data is None


def test_an_extractor_goes_before_a_selection_and_sees_every_kind() -> None:
    selection = Selection.of(["h=h1"])
    for content_type in (HTML, "text/plain", "image/png"):
        assert read(respond("<h1>H", content_type), lambda response: len(response.body), selection).data == 5


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyError("price"), "KeyError: 'price'"),
        (ValueError("x" * 10_000), "ValueError: " + "x" * 488),
        (Unspeakable(), "Unspeakable: (its message cannot be shown: RuntimeError)"),
    ],
)
def test_a_failing_extractor_costs_its_own_page(error: Exception, reason: str) -> None:
    def extract(_response: Response) -> None:
        raise error

    with pytest.raises(ParseError) as caught:
        read(respond("<p>"), extract)
    assert (caught.value.code, caught.value.message) == ("extract_failed", reason)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_is_no_exception_passes(error: type[BaseException]) -> None:
    def extract(_response: Response) -> None:
        raise error

    with pytest.raises(error):
        read(respond("<p>"), extract)


# What a page says to robots of itself: told in the record, judged by nobody


def robots_said(body: str, *headers: tuple[str, str], content_type: str = "text/html") -> str | None:
    response = Response(REQUEST, REQUEST.url, 200, (("content-type", content_type), *headers), body.encode())
    page = read(response)
    assert to_record(page).robots == page.robots
    return page.robots


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        ("<title>x</title>", (), None),
        ("<meta name=robots content='noindex, nofollow'>", (), "noindex, nofollow"),
        ("<META NAME=ROBOTS CONTENT=NoArchive>", (), "NoArchive"),
        ("<meta name=robots>", (), None),
        ("<body><p>text<meta name=robots content=none>", (), None),
        ("<title>x</title>", (("x-robots-tag", "noindex"),), "noindex"),
        ("<title>x</title>", (("x-robots-tag", " "),), None),
        ("", (("x-robots-tag", "noindex"), ("x-robots-tag", "bot: nofollow ")), "noindex, bot: nofollow"),
        ("", (("x-robots-tag", "noindex"), ("x-robots-tag", "otherbot: nofollow")), "noindex, otherbot: nofollow"),
        ("<meta name=robots content=noindex>", (("x-robots-tag", "nosnippet"),), "nosnippet, noindex"),
        ("<meta name=robots content='a\n\t b'>", (), "a b"),
    ],
)
def test_what_is_said_to_robots_is_told(body: str, headers: tuple[tuple[str, str], ...], said: str | None) -> None:
    assert robots_said(body, *headers) == said


def test_a_robots_header_counts_for_what_is_no_page_too() -> None:
    assert robots_said("\0\0", ("x-robots-tag", "noindex"), content_type="application/pdf") == "noindex"


def test_what_is_said_to_robots_is_bounded() -> None:
    said = robots_said("<meta name=robots content=noindex>" * 1_000, ("x-robots-tag", "x" * 100_000))
    assert said is not None
    assert len(said) == 1_000


FEED = """<?xml version="1.0" encoding="iso-8859-1"?><rss version="2.0" xmlns:media="x"><channel><title> The
feed</title><link>http://f.example/</link><item><title>One &amp; é</title><link>http://f.example/1</link>
<guid isPermaLink="true">g</guid><pubDate>Sat, 28 Nov 2026 10:00:00 GMT</pubDate><media:content url="m.jpg"/>
<description><![CDATA[<p>Hi</p>]]></description></item><item><title>Two</title></item></channel></rss>"""


def test_xml_has_a_title_links_and_selected_fields() -> None:
    rules = ["item[]=item{t=title; l=link; d=pubDate:date; g=guid[isPermaLink]; m=media\\:content@@url; x=description}"]
    response = respond(FEED.encode("latin-1"), "application/rss+xml")
    page = read(response, select=Selection.of(rules))
    assert (page.title, page.links, page.charset) == ("The feed", 2, "windows-1252")
    assert page.data["item"] == [
        {
            "t": "One & é", "l": "http://f.example/1", "d": "2026-11-28T10:00:00+00:00", "g": "g", "m": "m.jpg",
            "x": "<p>Hi</p>",
        },
        {"t": "Two", "l": None, "d": None, "g": None, "m": None, "x": None},
    ]  # fmt: skip


def test_xml_that_is_broken_declares_entities_or_is_too_deep_is_read_as_far_as_that_is_safe() -> None:
    entities = '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><a><title>x &c;</title></a>'
    external = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]><a><title>&b;</title></a>'
    for text, title in (
        ("<a><title>cut", "cut"),
        (entities, "x &c;"),
        (external, "&b;"),
        ("<a>" * 2000 + "<title>deep</title>" + "</a>" * 2000, None),
        ("<a><title>é</title></a>", "é"),
        ("<a\u00b7b><title>odd</title></a\u00b7b>", "odd"),
        ("", None),
    ):
        assert read(respond(text.encode(), "text/xml; charset=utf-8")).title == title, text[:60]
