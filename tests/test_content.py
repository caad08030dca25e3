"""What is read out of a page into columns of its own: each column, in this process and in another, of hostile pages too."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.config import Config
from fetcher.errors import ConfigError
from fetcher.model import Page, Request, Response
from fetcher.page import main_text
from fetcher.page.meta import language_of
from fetcher.page.page_urls import MAX_CHARACTERS
from fetcher.page.reader import Reader
from fetcher.urls import MAX_URL
from tests.test_reader import isolated

ALL = "meta,jsonld,links,images,text,lang"
SHOP = """<!doctype html><html lang="en_GB"><head><title>T</title><base href="/b/">
<meta name=Description content=" A
 kettle "><meta property="og:image" content="i.png"><meta property=og:image content=j.png>
<meta property=og:title content=Kettle><meta name="twitter:card" content="summary">
<meta property="article:published_time" content="Nov 28, 2026"><meta name=last-modified content="last week">
<meta name=date content=2001-01-01><link rel=canonical href="c"><link rel=canonical href="no">
<link rel=alternate type="application/rss+xml; charset=utf-8" href=feed.xml><link rel=alternate hreflang=de href=/de>
<link rel=alternate hreflang="no language" href=/x><link rel=stylesheet href=s.css>
<link rel="shortcut icon" href="data:image/png;base64,AAAAAAAA"><meta name=author content="A. B.">
<meta name=robots content=noai><meta name=robots content=nofollow><meta name=keywords content="a, b,"></head><body>
<h1>One <b>line</b></h1><h1> </h1><h1>Two</h1>
<a href=x rel="nofollow ugc">L <i>i</i></a><a href="javascript:x()">j</a><a href="https://www.h.example:8080/z#q">s</a>
<a href="http://other.example"><h3>o</h3><p>p</p></a><a href="mailto:a@b.c">m</a><a href="http://[bad">b</a><a>n</a>
<a href="data:text/html,x">d</a><a href="#f"><code><span>code</span></code></a><a href="/y"><b><script>no</script></b> <i hidden>no</i></a>
<img src="data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP" data-src=real.jpg alt="A" width=10 height="20px">
<img src="DATA:image/gif;base64,R0lGOD" alt><img alt=nowhere><img src=k.png width=50% srcset="a.jpg 1x, b.jpg 2x">
<script type="application/LD+json">{"@type":"Product",}</script><script type="application/ld+json">no json</script>
<script>var x = 1</script><p>one<p>two"""
URL = "http://h.example/p/q"


def respond(body: str | bytes, content_type: str = "text/html; charset=utf-8", **headers: str) -> Response:
    body = body.encode() if isinstance(body, str) else body
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return Response(Request(7, URL), URL, 200, (("content-type", content_type), *named), body)


def read(body: str | bytes, with_: str = ALL, content_type: str = "text/html; charset=utf-8", **headers: str) -> Page:
    return Reader(Config.of(with_=with_)).read(respond(body, content_type, **headers), waited=0.5, fetched_at=9.0)


def column(body: str, part: str, name: str | None = None) -> Any:
    return read(body, part).content[name or part]


def test_meta_is_what_a_page_says_of_itself() -> None:
    assert column(SHOP, "meta") == {
        "language": "en-GB",
        "description": "A kettle",
        "og": {"image": ["http://h.example/b/i.png", "http://h.example/b/j.png"], "title": "Kettle"},
        "twitter": {"card": "summary"},
        "article": {"published_time": "Nov 28, 2026"},
        "published": "2026-11-28",
        "modified": "last week",
        "canonical": "http://h.example/b/c",
        "feeds": ["http://h.example/b/feed.xml"],
        "hreflang": {"de": "http://h.example/de"},
        "icons": ["data:image/png;base64,…"],
        "author": "A. B.",
        "robots": "noai, nofollow",
        "keywords": ["a", "b"],
        "h1": ["One line", "Two"],
    }
    assert column("<p>nothing", "meta") == {}


def test_what_stands_in_the_body_by_mistake_is_found() -> None:
    broken = (
        "<head><div>ends the head</div><meta property=og:title content=O><base href=/deep/><link rel=canonical href=c>"
    )
    assert column(broken, "meta") == {"og": {"title": "O"}, "canonical": "http://h.example/deep/c"}


def test_links_lead_somewhere() -> None:
    page = read(SHOP, "links")
    assert page.links == 9  # a[href], as ever
    assert [tuple(link.values()) for link in page.content["link_list"]] == [
        ("http://h.example/b/x", "L i", "nofollow ugc", True),
        ("https://www.h.example:8080/z#q", "s", None, True),
        ("http://other.example/", "o p", None, False),
        ("mailto:a@b.c", "m", None, False),
        ("http://h.example/b/#f", "code", None, True),
        ("http://h.example/y", "", None, True),
    ]
    assert list(page.content["link_list"][0]) == ["url", "text", "rel", "internal"]


@pytest.mark.parametrize(
    ("href", "internal"),
    [
        ("http://shop.co.uk/", False),
        ("//h.example", True),
        ("https://a.b.h.example./x", True),
        ("http://h.example.org/", False),
        ("http://u:p@h.example:81/", True),
        ("http://xh.example/", False),
        ("ftp://h.example/", False),
        ("http://[::1]/", False),
        ("tel:1", False),
    ],
)
def test_what_is_of_the_same_site(href: str, internal: bool) -> None:
    (link,) = column(f"<a href='{href}'>", "links", "link_list")
    assert link["internal"] is internal


def test_images_have_their_true_addresses() -> None:
    assert column(SHOP, "images", "image_list") == [
        {"url": "http://h.example/b/real.jpg", "alt": "A", "srcset": [], "width": 10, "height": 20},
        {"url": "DATA:image/gif;base64,…", "alt": None, "srcset": [], "width": None, "height": None},
        {
            "url": "http://h.example/b/k.png", "alt": None,
            "srcset": ["http://h.example/b/a.jpg 1x", "http://h.example/b/b.jpg 2x"], "width": None, "height": None,
        },
    ]  # fmt: skip


def test_json_ld_is_repaired_or_kept_as_text_and_counted() -> None:
    page = read(SHOP, "jsonld")
    assert page.content["jsonld"] == [{"@type": "Product"}, "no json"]
    assert page.unconverted == ("jsonld",)
    assert read("<p>", "jsonld").content == {"jsonld": []}


@pytest.mark.parametrize(
    ("said", "language"),
    [
        (("de",), "de"),
        ((None, "", " pt_BR "), "pt-BR"),
        (("{{ lang }}", "zh-Hant-TW"), "zh-Hant-TW"),
        (("en, de",), "en"),
        (("x" * 70, "123", "-"), None),
        ((), None),
    ],
)
def test_a_language_is_the_first_that_is_one(said: tuple[str | None, ...], language: str | None) -> None:
    assert language_of(*said) == language


@pytest.mark.parametrize(
    ("html", "headers", "language"),
    [
        ("<html lang=fr><meta http-equiv=content-language content=de>", {"content_language": "es"}, "fr"),
        ("<html xml:lang=fr>", {}, "fr"),
        ("<html lang='?'><meta http-equiv=Content-Language content='de, en'>", {"content_language": "es"}, "de"),
        ("<p>", {"content_language": "es, en"}, "es"),
        ("<p>", {}, None),
    ],
)
def test_where_a_page_says_its_language(html: str, headers: dict[str, str], language: str | None) -> None:
    assert read(html, "lang", **headers).content == {"lang": language}


FEED = (
    "<?xml version='1.0'?><rss><channel><title>F</title><language>nl</language><link>http://h.example/1</link>"
    "<item><title>I</title><link>/2</link></item></channel></rss>"
)


def test_xml_has_links_text_and_language_and_nothing_of_html() -> None:
    page = read(FEED, content_type="application/rss+xml")
    found = page.content
    assert [link["url"] for link in found["link_list"]] == ["http://h.example/1", "http://h.example/2"]
    assert (found["lang"], found["meta"], found["jsonld"], found["image_list"]) == ("nl", None, None, None)
    assert found["text"] is not None
    assert page.links == 2
    atom = read("<feed xml:lang='sv'><link href='/a'/></feed>", "links,lang", "application/atom+xml").content
    assert (atom["link_list"][0]["url"], atom["lang"]) == ("http://h.example/a", "sv")


@pytest.mark.parametrize(
    ("body", "content_type", "text"),
    [
        (b"a\n b", "text/plain", "a\n b"),
        (b"# a", "text/markdown; charset=utf-8", "# a"),
        (b"{}", "application/json", None),
        (b"\x89PNG\0", "image/png", None),
        (b"", "text/html", ""),
    ],
)
def test_the_text_of_what_is_no_page(body: bytes, content_type: str, text: str | None) -> None:
    assert read(body, "text", content_type).content == {"text": text}
    if content_type != "text/html":
        assert set(read(body, "meta,jsonld,links,images", content_type).content.values()) == {None}


def test_nothing_is_there_unless_asked_for() -> None:
    page = Reader(Config()).read(respond(SHOP), waited=0, fetched_at=0)
    assert page.content == {}
    assert list(read(SHOP, "lang,meta").content) == ["meta", "lang"]
    assert list(page.record()) == [*list(page.record())]
    assert read(SHOP, "lang").record()["lang"] == "en-GB"


# The main content


ARTICLE = (
    f"<html><body><nav><a href=/a>Menu</a></nav><main><article><h1>Head</h1>{'<p>A sentence of the story. ' * 20}"
    "</article></main><footer>Imprint</footer>"
)


@pytest.mark.parametrize("method", ["fast", "best"])
def test_the_main_content_is_found_in_another_process(method: str) -> None:
    reader = Reader(Config.of(text=method))  # type: ignore[arg-type]  # one of the three
    assert reader.needs_isolation(respond(ARTICLE))
    assert not reader.needs_isolation(respond("x", "text/plain"))
    page = isolated(reader, respond(ARTICLE))
    assert isinstance(page, Page)
    text = page.content["text"]
    assert "A sentence of the story." in text
    assert "Imprint" not in text
    assert page == Reader(Config.of(text=method)).read(respond(ARTICLE), waited=0.5, fetched_at=9.0)  # type: ignore[arg-type]  # as above


def test_markdown_is_made_by_the_best() -> None:
    page = Reader(Config.of(text="best", text_format="markdown")).read(respond(ARTICLE), waited=0, fetched_at=0)
    assert "# Head" in page.content["text"]
    for text in (None, "body", "fast"):
        with pytest.raises(ConfigError, match="text-format: markdown is made by --text best alone"):
            Reader(Config.of(text=text, text_format="markdown"))


@pytest.mark.parametrize(
    ("method", "module", "extra"), [("fast", "resiliparse", "text"), ("best", "trafilatura", "article")]
)
def test_a_missing_library_is_named_with_its_command(
    method: Any, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError) as caught:
        Reader(Config.of(text=method))
    assert str(caught.value) == f"text {method}: {module} is not installed: pip install 'fetcher-crawl[{extra}]'"


def test_a_library_that_gives_up_costs_the_text_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(html: str) -> str:
        raise RuntimeError(html)

    monkeypatch.setattr(main_text, "_by_resiliparse", fail)
    page = Reader(Config.of(text="fast", with_="links")).read(respond(SHOP), waited=0, fetched_at=0)
    assert (page.content["text"], page.unconverted, len(page.content["link_list"])) == (None, ("text",), 6)


# The same in another process


@pytest.mark.parametrize(
    "response",
    [
        respond(SHOP, content_language="de"),
        respond(FEED, "application/rss+xml"),
        respond(b"\x89PNG\0", "image/png"),
        respond(
            '<script type="application/ld+json">{"a":"\\ud800", "n": 99999999999999999999999, "f": 1e999}</script>'
        ),
        respond('<script type="application/ld+json">' + '{"a":' * 300 + "1" + "}" * 300 + "</script>"),
        respond('<script type="application/ld+json">' + "[" * 3000 + "</script>"),
        respond("<a href='http://h.example/\ud800'>x".encode("utf-8", "surrogatepass")),
    ],
)
def test_a_page_is_the_same_in_another_process(response: Response) -> None:
    config = Config.of(with_=ALL)
    assert isolated(Reader(config), response) == Reader(config).read(response, waited=0.5, fetched_at=9.0)


@given(st.text(st.sampled_from("<a href=x>&;\"'/ \n!-[]{}:,b#?imgscript"), max_size=60))
def test_no_page_is_a_bug(html: str) -> None:
    read(html + f"<a href='{html}'><img srcset='{html}'><script type='application/ld+json'>{html}")


# Pages made to harm


def test_a_long_base_and_many_links_are_bounded_together() -> None:
    base = "http://h.example/" + "d/" * 30_000
    page = read(f"<base href='{base}'>" + "<a href=x>y</a>" * 9_000, "links")
    made = sum(len(link["url"]) for link in page.content["link_list"])
    assert MAX_CHARACTERS * 0.9 < made <= MAX_CHARACTERS + MAX_URL
    assert page.links == 9_000


def test_a_url_that_is_too_long_is_no_link() -> None:
    assert column(f"<a href='/{'x' * MAX_URL}'>a</a><a href=b>b</a>", "links", "link_list")[0]["url"].endswith("/b")


@pytest.mark.parametrize(
    "html",
    [
        "<a href=x><object>" * 2_000 + "<b>text</b>" * 2_000,
        "<h1><div>" * 2_000 + "<b>text</b>" * 2_000,
        "<img srcset='" + "a," * 100_000 + "'>",
        "<img srcset='" + "a" * 1_000_000 + "'>",
        "<img srcset='" + " " * 1_000_000 + "x'>",
        "<img src='data:" + "A" * 5_000_000 + "'>",
        "<meta name=robots content=" + "x" * 9_000 + ">" * 1 + "<meta name=robots content=y>" * 50_000,
        "<meta property=og:a content=x>" * 50_000,
        "<td>x" * 50_000,
        "<pre>" * 300 + "\n" * 100_000 + "x",
        "<p hidden>x" * 20_000,
        "<meta name=date content='" + "1" * 1_000 + "'>",
    ],
)
def test_a_hostile_page_takes_no_long_time(html: str) -> None:
    began = time.process_time()
    read(html)
    assert time.process_time() - began < 20


def test_a_million_links_are_bounded_by_the_size_of_their_page() -> None:
    page = read("<a href=x>" * 1_000_000, "links")
    assert page.links == 1_000_000
    assert len(page.content["link_list"]) < MAX_CHARACTERS / len("http://h.example/x")
