"""Microdata and RDFa: columns by an extra's library, in processes of their own, and pages that it cannot read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fetcher.config import Config
from fetcher.errors import ConfigError, ParseError
from fetcher.model import Page
from fetcher.page import structured
from fetcher.page.reader import Reader
from fetcher.page.structured import read_microdata, read_rdfa
from tests.lab.command import ROOT, run
from tests.lab.desk import Desk
from tests.lab.server import LabServer
from tests.test_cli_content import serve
from tests.test_content import respond
from tests.test_reader import isolated

pytest.importorskip("extruct", reason="the extra 'structured' is not installed")

# pyRdfa's own, from Python 3.12 on.
pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")

BASE = "http://h.example/p/"
SHOP = """<!doctype html><html><head><title>T</title><base href="/b/"><meta property="og:title" content="Kettle"></head><body>
<div itemscope itemtype="https://schema.org/Product"><h1 itemprop=name>Kettle <b>3</b></h1><img itemprop=image src=i.png>
<div itemprop=offers itemscope itemtype="https://schema.org/Offer"><span itemprop=price content="1299.50">1.299,50 €</span>
<link itemprop=availability href="https://schema.org/InStock"></div><i itemprop=tag>hot</i><i itemprop=tag>steel</i></div>
<div vocab="https://schema.org/" typeof=Person resource="#me"><span property=name>Ann</span>
<div property=address typeof=PostalAddress><span property=addressLocality>Oslo</span></div>
<a rel="foaf:knows" href="/bob">Bob</a></div></body></html>"""
PRODUCT = {
    "type": "https://schema.org/Product",
    "properties": {
        "name": "Kettle 3",
        "image": "http://h.example/b/i.png",
        "offers": {
            "type": "https://schema.org/Offer",
            "properties": {"price": "1299.50", "availability": "https://schema.org/InStock"},
        },
        "tag": ["hot", "steel"],
    },
}
PERSON = {
    "@id": "http://h.example/b/#me",
    "@type": ["https://schema.org/Person"],
    "https://schema.org/name": [{"@value": "Ann"}],
    "https://schema.org/address": [
        {"@type": ["https://schema.org/PostalAddress"], "https://schema.org/addressLocality": [{"@value": "Oslo"}]}
    ],
    "http://xmlns.com/foaf/0.1/knows": [{"@id": "http://h.example/bob"}],
}


def read(body: str | bytes, content_type: str = "text/html; charset=utf-8", with_: str = "microdata,rdfa") -> Page:
    page = isolated(Reader(Config.of(with_=with_)), respond(body, content_type))
    assert isinstance(page, Page), page
    return page


def test_what_a_page_says_by_its_attributes() -> None:
    page = read(SHOP)
    assert list(page.content) == ["microdata", "rdfa"]
    assert page.content["microdata"] == [PRODUCT]
    assert PERSON in page.content["rdfa"]
    assert page.unconverted == ()
    assert page.title == "T"


def test_pages_are_read_in_processes_of_their_own() -> None:
    for part in ("microdata", "rdfa"):
        assert Reader(Config.of(with_=part)).needs_isolation(respond("<p>small"))
    assert not Reader(Config.of(with_="jsonld")).needs_isolation(respond("<p>small"))


@pytest.mark.parametrize(
    ("body", "content_type", "found"),
    [
        ("<p>nothing", "text/html", []),
        ("", "text/html", []),
        ("{}", "application/json", None),
        ("<rss><title>itemscope typeof</title></rss>", "application/rss+xml", None),
        (b"\x89PNG\0", "image/png", None),
    ],
)
def test_a_body_that_says_nothing_and_one_that_cannot(body: Any, content_type: str, found: Any) -> None:
    page = read(body, content_type)
    assert page.content == {"microdata": found, "rdfa": found}
    assert page.unconverted == ()


@pytest.mark.parametrize(
    "html",
    [
        "<div itemscope itemprop=a property=q typeof=T>" * 200,  # deeper than a record may be
        "<div itemscope itemprop=a property=q typeof=T>" * 700,  # than Python's stack
    ],
)
def test_what_nests_too_deep_costs_the_column_alone(html: str) -> None:
    page = read(html, with_="microdata,jsonld")
    assert page.content == {"microdata": None, "jsonld": []}
    assert page.unconverted == ("microdata",)


def test_what_is_read_out_of_one_page_is_bounded() -> None:
    # Each of these items has the text of all within it.
    nested = "".join(f"<div itemscope><p itemprop=a>{'x' * 4_000}" for _ in range(60))
    assert read_microdata(nested, BASE) is not None
    large = f"<div itemscope itemprop=a>{'<div itemprop=a>' * 60}{'x' * 400_000}"
    assert read_microdata(large, BASE) is None


def test_strange_pages_are_read() -> None:
    xml = '<?xml version="1.0" encoding="iso-8859-1"?><!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml">'
    for html in (
        f"{xml}<body><p itemscope><b itemprop=a>é&#xD800;\0</b></p>",
        "<div itemscope id=a itemref=a itemprop=x><b itemprop=y>é\ufffd</b></div>",
        "<DIV ITEMSCOPE><b itemprop='a b'>é\ufffd",
    ):
        json.dumps(read_microdata(html, BASE))
        assert read_microdata(html, BASE) not in (None, [], [{}])
    assert read_rdfa(f"{xml}<body><p property='dc:title'>é</p>", BASE) == [
        {"@id": BASE, "http://purl.org/dc/terms/title": [{"@value": "é"}]}
    ]
    assert read_rdfa("<p prefix=: typeof=':::'>", BASE) is not None
    assert read_rdfa("<p property='http://[bad'>x", BASE) is None  # the library gives up the page: counted


@pytest.mark.parametrize("html", ["<a rel=license href=/l>", "<a href=/l rel='x license'>", "<link rel=a:b href=/l>"])
def test_a_link_alone_may_say_something(html: str) -> None:
    (node,) = read_rdfa(html, BASE) or []
    assert [{"@id": "http://h.example/l"}] in node.values()


def test_most_pages_are_not_given_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "extruct.rdfa", None)
    monkeypatch.setitem(sys.modules, "extruct.w3cmicrodata", None)
    page = "<link rel='stylesheet' href='a:b'><a rel=nofollow href='http://x'>license: role</a>"
    assert (read_rdfa(page, BASE), read_microdata(page, BASE)) == ([], [])
    for read_it, html in ((read_rdfa, "<p property=a>"), (read_microdata, "<p itemscope>")):
        with pytest.raises(ParseError, match="extruct"):
            read_it(html, BASE)


def test_blank_nodes_stand_where_they_are_referred_to() -> None:
    def blank(name: str, **properties: Any) -> dict[str, Any]:
        return {"@id": f"_:{name}", **properties}

    to = blank
    nodes = [
        blank("n9", b=[to("n2")]),
        {"@id": "http://h.example/", "a": [to("n1")], "c": [{"@list": [to("n9")]}], "s": [to("s"), to("s")]},
        blank("n2", v=[{"@value": 1}]),
        blank("n1"),
        blank("s", t=[{"@value": 2}]),
        blank("c1", x=[to("c2")]),
        blank("c2", x=[to("c1")]),
        blank("alone", y=[{"@value": 3}]),
    ]
    shared = {"@id": "_:b0", "t": [{"@value": 2}]}
    circle = {"@id": "_:b1", "x": [{"x": [{"@id": "_:b1"}]}]}
    page = {
        "@id": "http://h.example/",
        "a": [{}],
        "c": [{"@list": [{"b": [{"v": [{"@value": 1}]}]}]}],
        "s": [{"@id": "_:b0"}, {"@id": "_:b0"}],
    }
    found = structured._nested(nodes)
    assert sorted(found, key=str) == sorted([shared, circle, page, {"y": [{"@value": 3}]}], key=str)


def test_two_readings_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "p.html").write_text(SHOP * 3)
    code = f"from fetcher.page.structured import read_rdfa; print(read_rdfa(open('p.html').read(), {BASE!r}))"
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1
    assert b"Oslo" in said.pop()


@pytest.mark.parametrize("module", ["extruct", "rdflib", "pyRdfa"])
@pytest.mark.parametrize("part", ["microdata", "rdfa"])
def test_a_missing_library_is_named_with_its_command(part: Any, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"with {part}: .*{module}.*fetcher-crawl\[structured\]"):
        Reader(Config.of(with_=part))
    Reader(Config.of(with_="jsonld"))


def test_by_the_command_line(tmp_path: Path) -> None:
    with LabServer.in_thread() as lab:
        desk = Desk(lab, tmp_path)
        deep = "<div itemscope itemprop=a>" * 200
        desk.write([serve(desk, "/shop", SHOP), serve(desk, "/deep", deep), lab.url("/status/404")])
        ended = desk.crawl("--with", "rdfa,jsonld,microdata", "--ordered")
        assert ended.code == 0, ended.said
        assert "microdata: on 1 page some of it could not be read" in ended.said
        shop, bad, missing = desk.records()
        assert [name for name in shop if name in {"jsonld", "microdata", "rdfa"}] == ["jsonld", "microdata", "rdfa"]
        assert [item["type"] for item in shop["microdata"]] == [PRODUCT["type"]]
        assert (bad["microdata"], bad["rdfa"], missing["microdata"], missing["error"]) == (None, [], None, "http_404")
        ended = run("crawl", "l.txt", "-f", "jsonl", "--with", "micro", folder=tmp_path)
        assert (ended.code, "--with micro: " in ended.said) == (2, True)
