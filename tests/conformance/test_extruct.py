"""What pages say of themselves beside extruct, the field's own reader: over 400 pages nothing that it finds is missing.

The pages are those of Python's manual as Debian has it, of the built-in shop, of a suite where it is, and made ones
with what the web writes into heads; without the manual there are more of the made ones.
"""

from __future__ import annotations

import json
import random
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fetcher.config import Config
from fetcher.demo.shop import shop_pages
from fetcher.model import Request, Response
from fetcher.page.parse import read_body
from fetcher.page.structured import read_microdata, read_rdfa
from fetcher.urls import resolve
from tests.lab.suites import suite

pytest.importorskip("extruct", reason="extruct is not installed (the extra 'structured')")

# pyRdfa's own, from Python 3.12 on.
pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")

MANUAL = Path("/usr/share/doc/python3/html")
PAGES = 400
EACH = 120  # of the manual and of the shop
URL = "http://h.example/p/q"
GROUPS = ("og", "twitter", "article", "book", "fb", "music", "product", "profile", "video")


@cache
def pages() -> list[str]:
    """Return 400 pages, the same each time."""
    chosen = random.Random(13)
    manual = sorted(MANUAL.rglob("*.html")) if MANUAL.is_dir() else []
    chosen.shuffle(manual)
    found = [path.read_text("utf-8", "replace") for path in manual[: EACH * 2] if path.stat().st_size < 200_000][:EACH]
    found += [page.text for page in shop_pages(EACH, 1).values()]
    with suppress(pytest.skip.Exception):  # they are seven: the others are enough
        found += [case["html"] for case in json.loads((suite("wild") / "texts.json").read_text(encoding="utf-8"))]
    found += [made(chosen) for _ in range(PAGES - len(found))]
    return found


def made(chosen: random.Random) -> str:
    """Return a page with what the web writes into its head, in as many spellings."""
    head = [_property(chosen) for _ in range(chosen.randrange(12))]
    blocks = [_block(chosen) for _ in range(chosen.randrange(4))]
    body = [part for part in blocks if chosen.random() < 0.5]
    chosen.shuffle(head)
    prefix = chosen.choice(["", ' prefix="og: http://ogp.me/ns# product: http://ogp.me/ns/product#"'])
    attributes = "".join(chosen.sample([_ITEM, _RESOURCE, "<p>words"], 3))
    return (
        f"<!doctype html><html{prefix}><head><title>T</title>{''.join(head)}{''.join(b for b in blocks if b not in body)}"
        f"</head><body><h1>H</h1>{''.join(body)}{attributes}</body></html>"
    )


_ITEM = (
    '<div itemscope itemtype="https://schema.org/Product" itemid="/id"><b itemprop="name">N</b><a itemprop=url href=u>x</a>'
    '<div itemprop=offers itemscope><meta itemprop=price content="3"><time itemprop=t datetime=2026>then</time></div></div>'
)
_RESOURCE = (
    '<div vocab="http://schema.org/" typeof=Event><i property=name lang=de>N</i><div rel="schema:place">'
    "<b typeof=Place><i property=geo>1</i></b></div><a property=url href=/e>e</a></div>"
)


def _property(chosen: random.Random) -> str:
    group = chosen.choice(
        ["og", "og", "og", "twitter", "article", "product", "book", "profile", "video", "music", "fb"]
    )
    name = f"{group}:{chosen.choice(['title', 'image', 'image:alt', 'url', 'price:amount', 'tag', 'description', 'x'])}"
    text = chosen.choice(
        ["A &amp; B", "two\n lines", "/i.png", "https://o.example/a?b=1&c=2", "12.50", "ünï 世界", " x ", "&lt;b>"]
    )
    quote = chosen.choice(['"', "'"])
    parts = [f"{chosen.choice(['property', 'Property'])}={quote}{name}{quote}", f"content={quote}{text}{quote}"]
    chosen.shuffle(parts)
    return f"<{chosen.choice(['meta', 'META'])} {' '.join(parts)}{chosen.choice(['', ' /'])}>"


def _block(chosen: random.Random) -> str:
    item: dict[str, Any] = {
        "@context": "https://schema.org",
        "@type": chosen.choice(["Product", "NewsArticle", "BreadcrumbList"]),
        "name": chosen.choice(["Ünï", 'with "quotes"', "a // b /* c */", "tail,]"]),
        "offers": [{"price": chosen.choice([1, 2.5, "3.00", None, True])} for _ in range(chosen.randrange(3))],
        "n": chosen.choice([0, -1, 1e30, 2**53 + 1, 12345678901234567]),
    }
    value = chosen.choice([item, [item, {"@id": "#x"}], {"@graph": [item]}])
    text = json.dumps(value, indent=chosen.choice([None, 2]), ensure_ascii=chosen.random() < 0.5)
    how = chosen.randrange(6)
    if how == 1:
        text = f"<!-- a comment -->\n{text}"
    elif how == 2:
        text = f"// a comment\n{text}"
    elif how == 3:
        text = text.replace("Ünï", "a\tb\nc")
    elif how == 4:
        text = text.replace("{", "{ // a comment\n", 1)
    elif how == 5 and text.endswith("}"):
        text = f"{text[:-1]},}}"
    return f'<script type="application/ld+json">{text}</script>'


def read(page: str, with_: str) -> dict[str, Any]:
    """Return the columns of a page."""
    response = Response(Request(1, URL), URL, 200, (("content-type", "text/html; charset=utf-8"),), page.encode())
    return read_body(response, select=None, extract=None, content=Config.of(with_=with_).content).content


def test_there_are_as_many_pages_as_are_spoken_of() -> None:
    assert len(pages()) == PAGES


def test_open_graph_and_its_kin() -> None:
    from extruct.opengraph import OpenGraphExtractor

    found = 0
    for page in pages():
        meta = read(page, "meta")["meta"]
        for graph in OpenGraphExtractor().extract(page):
            for name, value in graph["properties"]:
                group, _, rest = name.lower().partition(":")
                text = " ".join(value.split())
                if group in GROUPS and rest and text:
                    ours = meta[group][rest]
                    assert {text, resolve(URL, text)}.intersection(ours if isinstance(ours, list) else [ours]), name
                    found += 1
    assert found > 500


def test_twitter_and_what_else_its_rdfa_says_of_the_page() -> None:
    from extruct.rdfa import RDFaExtractor

    cards = "https://dev.twitter.com/cards#"
    found = 0
    for page in pages()[-60:]:
        meta = read(page, "meta")["meta"]
        for node in RDFaExtractor().extract(page, base_url=URL):
            for name, values in node.items():
                if name.startswith(cards):
                    ours = meta["twitter"][name.removeprefix(cards)]
                    ours = ours if isinstance(ours, list) else [ours]
                    for text in (" ".join(value["@value"].split()) for value in values):
                        assert {text, resolve(URL, text)}.intersection(ours), name
                        found += 1
    assert found > 20


def test_json_ld() -> None:
    from extruct.jsonld import JsonLdExtractor

    found = 0
    for page in pages():
        try:
            theirs = JsonLdExtractor().extract(page)
        except ValueError:  # one block that is no JSON costs it the page
            theirs = []
        ours = read(page, "jsonld")["jsonld"]
        for item in theirs:
            assert item in ours
            found += 1
        blocks = page.count('<script type="application/ld+json">')
        assert len(ours) >= blocks
        assert not any(isinstance(item, str) for item in ours)
    assert found > 200


def test_microdata_is_extructs_own_with_or_without_a_look_before() -> None:
    from extruct.w3cmicrodata import MicrodataExtractor

    theirs = [MicrodataExtractor().extract(page, base_url=URL) for page in pages()]
    assert [read_microdata(page, URL) for page in pages()] == theirs
    assert sum(map(bool, theirs)) > 100


def test_rdfa_says_as_much_with_or_without_a_look_before() -> None:
    from extruct.rdfa import RDFaExtractor

    role = "http://www.w3.org/1999/xhtml/vocab#role"  # which says where the menu is, and is left out

    def words(found: Any) -> set[str]:
        if isinstance(found, dict):
            blank = str(found.get("@id", "")).startswith("_:")
            return {*found}.union(*(words(item) for key, item in found.items() if not (blank and key == "@id"))) - {
                "@id"
            }
        return set().union(*map(words, found)) if isinstance(found, list) else {str(found)}

    some = [*pages()[:EACH:4], *pages()[EACH : EACH * 2 : 4], *pages()[-80:]]
    said = 0
    for page in some:
        theirs = [{**node} for node in RDFaExtractor().extract(page, base_url=URL) if {*node} - {"@id", role}]
        for node in theirs:
            node.pop(role, None)
        assert words(theirs) == words(read_rdfa(page, URL))
        said += bool(theirs)
    assert said > 40
