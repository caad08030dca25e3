"""The rules of ``--select``: what they read, and what is said about those that cannot be read."""

from __future__ import annotations

import os
import pickle
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from fetcher.config import Config
from fetcher.demo.shop import shop_pages
from fetcher.errors import ConfigError
from fetcher.page.select import FieldRule, Fields, Selection

ROOT = Path(__file__).resolve().parents[1]
PAGE = LexborHTMLParser(
    """<!doctype html><title>Shop</title>
    <h1>  A \n <b>good</b>\tlamp&nbsp; </h1>
    <p class=price>12 €</p><p class=price>13 €</p>
    <img class=hero src="/a b.png?x=1&amp;y=2"><img class=bare>
    <a class=tag href="one">One</a><a class=tag>Two</a><a class=tag href>Three</a>
    <a href="mailto:a@b.c" data-x="a=b">Mail</a>
    <svg viewBox="0 0 1 1"></svg>"""
)


def select(*rules: str) -> Fields:
    return Selection.of(rules).select(PAGE)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("x=.price", "12 €"),
        ("x=h1", "A good lamp"),
        ("x=.none", None),
        ("x[]=.price", ["12 €", "13 €"]),
        ("x[]=.none", []),
        ("x=img.hero@src", "/a b.png?x=1&y=2"),
        ("x = img.hero @ src ", "/a b.png?x=1&y=2"),
        ("x=img.hero@SRC", "/a b.png?x=1&y=2"),
        ("x=svg@viewBox", "0 0 1 1"),
        ("x=img.bare@src", None),
        ("x=a.tag:nth-of-type(3)@href", ""),
        ("x[]=.tag@href", ["one", ""]),
        ("x[]=.tag", ["One", "Two", "Three"]),
        ("x=.price::text", "12 €"),
        ("x=h1::text", "A"),
        ("x=h1 ::text", "A"),
        ("x[]=h1 ::text", ["A", "good", "lamp"]),
        ("x[]=.price ::text ", ["12 €", "13 €"]),
        ("x=img.hero::attr(src)", "/a b.png?x=1&y=2"),
        ("x[]=.tag::attr( href )", ["one", ""]),
        ('x=a[href*="@"]@href', "mailto:a@b.c"),
        ('x=a[href*="@"]', "Mail"),
        ("x=a[href*='@b']@data-x", "a=b"),
        ('x=a[data-x="a=b"]', "Mail"),
        ("x=a[data-x='a=b']@href", "mailto:a@b.c"),
        ('x=a[data-x="]@\\""]@href', None),
        ("x=a:not([href])", "Two"),
        ("x=.none, h1", "A good lamp"),
        (r"x=.\@odd@href", None),
    ],
)
def test_a_rule_reads(rule: str, expected: str | list[str] | None) -> None:
    assert select(rule) == {"x": expected}


def test_fields_come_in_the_order_of_the_rules() -> None:
    assert list(select("z.1-b=h1", "_a=.none", "B[]=p").items()) == [
        ("z.1-b", "A good lamp"),
        ("_a", None),
        ("B", ["12 €", "13 €"]),
    ]


def test_an_empty_page_has_blank_fields() -> None:
    selection = Selection.of(["a=h1", "b[]=a@href"])
    assert selection.select(LexborHTMLParser("")) == selection.blank() == {"a": None, "b": []}


def test_a_selection_is_plain_data() -> None:
    selection = Selection.of(["a[]=p > b@href"])
    assert selection.rules == (FieldRule("a", "p > b", pick="attribute", argument="href", many=True),)
    assert pickle.loads(pickle.dumps(selection)) == selection


def test_no_rules_select_nothing() -> None:
    assert Selection.of([]).select(PAGE) == {}


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("", "no '='"),
        ("h1", "no '='"),
        ("=h1", "the name"),
        ("1x=h1", "the name"),
        ("a b=h1", "the name"),
        ("a[=h1", "the name"),
        ("a=", "no selector"),
        ("a= @href", "no selector"),
        ("a=::text", "no selector"),
        ("a=h1@", "no attribute's name"),
        ("a=h1::attr()", "::attr needs an attribute in brackets"),
        ("a=h1@a@b", "'a@b' is no attribute's name"),
        ("a=h1@a b", "'a b' is no attribute's name"),
        ("a=h1::text@href", "two things"),
        ("a=h1[x", "closing ] is missing"),
        ("a=h1[x='y]", "closing ' is missing"),
        ("a=h1:not(b", "closing ) is missing"),
        ("a=h1]", "] closes nothing"),
        ("a=//h1", "'//h1' is no CSS selector"),
        ("a=h1 >", "no CSS selector"),
        ("a=h1::before", "only ::text, ::attr(NAME) and ::json(PATH)"),
        ("a=h1::text, h2", "only ::text, ::attr(NAME) and ::json(PATH)"),
        ("a=:first", "no CSS selector"),
        ("a=h1\udcff", "not valid Unicode"),
    ],
)
def test_a_bad_rule_is_refused_with_its_reason_and_an_example(rule: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Selection.of(["ok=h1", rule])
    message = str(caught.value)
    assert repr(rule) in message
    assert reason in message
    assert "img=img.hero@src" in message


def test_a_name_is_used_once() -> None:
    with pytest.raises(ConfigError, match="'a' is taken"):
        Selection.of(["a=h1", "a[]=h2"])


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab.#>[]()\"'\\@=:,* \n+~|-é", max_size=20))
def test_any_rule_is_read_or_refused(css: str) -> None:
    try:
        selection = Selection.of([f"x={css}"])
    except ConfigError:
        return
    assert list(selection.select(PAGE)) == ["x"]


# The grammar: what each rule is read as, or why it is refused


def rule_of(name: str, expression: str, **more: Any) -> FieldRule:
    return FieldRule(name, expression, **more)


CARD = (rule_of("title", "h2"), rule_of("price", ".price", type="price"))

GRAMMAR: list[tuple[str, FieldRule | str]] = [
    ("a=h1", rule_of("a", "h1")),
    ("a[]=h1", rule_of("a", "h1", many=True)),
    ("a=h1:int", rule_of("a", "h1", type="int")),
    ("a = h1 : int ", rule_of("a", "h1", type="int")),
    ("a=h1:not(.x):float", rule_of("a", "h1:not(.x)", type="float")),
    ("a=li:first-child", rule_of("a", "li:first-child")),
    ("a=li:first-child:date", rule_of("a", "li:first-child", type="date")),
    ("a=input@checked:bool", rule_of("a", "input", pick="attribute", argument="checked", type="bool")),
    ("a=img@src", rule_of("a", "img", pick="attribute", argument="src")),
    ("a=img@@src", rule_of("a", "img", pick="attribute", argument="src", as_written=True)),
    ("a=img@@src:int", rule_of("a", "img", pick="attribute", argument="src", as_written=True, type="int")),
    ("a=img::attr(src)", rule_of("a", "img", pick="attribute", argument="src", as_written=True)),
    ("a=p::text", rule_of("a", "p", pick="own_text")),
    ("a=p ::text", rule_of("a", "p", pick="all_text")),
    ("a=p::text:int", rule_of("a", "p", pick="own_text", type="int")),
    (r"a=x@v\:price", rule_of("a", "x", pick="attribute", argument="v:price")),
    ("a=x@xlink:href", rule_of("a", "x", pick="attribute", argument="xlink:href")),
    ("a=x@v:price", rule_of("a", "x", pick="attribute", argument="v", type="price")),
    ("a=[data-x='a:int']", rule_of("a", "[data-x='a:int']")),
    ('a=[href*="@"]@href', rule_of("a", '[href*="@"]', pick="attribute", argument="href")),
    ("a=[data-x=';{}']", rule_of("a", "[data-x=';{}']")),
    ("a[]=.card{title=h2; price=.price:price}", rule_of("a", ".card", pick="records", many=True, rules=CARD)),
    ("a=.card{ title=h2 ;; price=.price:price; }", rule_of("a", ".card", pick="records", rules=CARD)),
    (
        "a[]=a{link=@href}",
        rule_of("a", "a", pick="records", many=True, rules=(rule_of("link", "", pick="attribute", argument="href"),)),
    ),
    (
        "a[]=.c{x='[title=\"};\"]'}",
        "no CSS selector",
    ),
    (
        'a[]=.c{x=[title="};"]}',
        rule_of("a", ".c", pick="records", many=True, rules=(rule_of("x", '[title="};"]'),)),
    ),
    ("a=json:props.price", rule_of("a", "props.price", language="json")),
    (
        "a[]=json:items[?n > `5`].{id: n, t: t}",
        rule_of("a", "items[?n > `5`].{id: n, t: t}", language="json", many=True),
    ),
    ("a=json:x:float", rule_of("a", "x", language="json", type="float")),
    ("a=s#d::json(props.x)", rule_of("a", "s#d", pick="json", argument="props.x")),
    ("a=s#d::json(f(x)[0])", "Unknown function: f()"),
    ("a=s#d::json(length(x))", rule_of("a", "s#d", pick="json", argument="length(x)")),
    ("a=xpath://h1/text()", rule_of("a", "//h1/text()", language="xpath")),
    ("a=xpath://b/ancestor::div", rule_of("a", "//b/ancestor::div", language="xpath")),
    ("a=xpath://b[@x='y:int']:int", rule_of("a", "//b[@x='y:int']", language="xpath", type="int")),
    ("a=h1:number", "'number' is no type either; there are int, float, date, price, bool"),
    ("a=h1:int:price", "no CSS selector"),
    ("a=.card{title=h2", "a closing } is missing"),
    ("a=.card{title=h2}@href", "something follows the }"),
    ("a={title=h2}", "no selector before the {"),
    ("a=.card{}", "no rule between"),
    ("a=.card{title=h2{x=b}}", "one level deep"),
    ("a=.card{t=h2; t=h3}", "'t' stands twice"),
    ("a=.card{t=json:x}", "stands for the whole page"),
    ("a=.card{t=xpath://x}", "stands for the whole page"),
    ("a=json:", "nothing follows json:"),
    ("a=json:x..y", "JMESPath"),
    ("a=xpath://[", "a closing ] is missing"),
    ("a=xpath://h1[", "a closing ] is missing"),
    ("a=xpath:h1 h2", "XPath"),
    ("a=p::text(1)", "takes nothing"),
    ("a=p::json()", "needs a path"),
]


@pytest.mark.parametrize(("rule", "meaning"), GRAMMAR, ids=[rule for rule, _ in GRAMMAR])
def test_the_grammar(rule: str, meaning: FieldRule | str) -> None:
    if isinstance(meaning, FieldRule):
        assert Selection.of([rule]).rules == (meaning,)
        return
    with pytest.raises(ConfigError) as caught:
        Selection.of([rule])
    assert meaning in str(caught.value)


def test_a_missing_lxml_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lxml", None)
    with pytest.raises(ConfigError, match=r"pip install 'fetcher-crawl\[xpath\]'"):
        Selection.of(["a=xpath://h1"])


SHOP = """<base href="/shop/">
<div class=card id=1><h2>Lamp <i>new</i></h2><p class=price>$1,299.00</p><a href="lamp?x=1#f">see</a>
<img src=l.png srcset="l.png 1x, /big.png 2x,data:image/png;base64,AA== 3x"></div>
<div class=card id=2><h2>Chair</h2><p class=price>on request</p><time datetime="2026-11-28T10:00:00Z"></time></div>
<script id=data type="application/json">{"props": {"prices": [1, 2.5]}}</script><script id=bad>{"a": 1,}</script>
<form action=><button formaction="javascript:go()"></button></form><a id=mail href="mailto:a@b.c">m</a>
<a id=odd href="http://[bad/">o</a>"""


def shop(*rules: str, unconverted: set[str] | None = None) -> Fields:
    tree = LexborHTMLParser(SHOP)
    return Selection.of(rules).select(tree, url="http://h.example/a/b?q", text=lambda: SHOP, unconverted=unconverted)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("x=a@href", "http://h.example/shop/lamp?x=1#f"),
        ("x=a@@href", "lamp?x=1#f"),
        ("x=img@src", "http://h.example/shop/l.png"),
        (
            "x=img@srcset",
            "http://h.example/shop/l.png 1x, http://h.example/big.png 2x, data:image/png;base64,AA== 3x",
        ),
        ("x=form@action", "http://h.example/shop/"),
        ("x=button@formaction", "javascript:go()"),
        ("x=#mail@href", "mailto:a@b.c"),
        ("x=#odd@href", "http://[bad/"),
        ("x[]=.card@id:int", [1, 2]),
        ("x=.card@id", "1"),
        ("x=time@datetime:date", "2026-11-28T10:00:00+00:00"),
        ("x=#data::json(props.prices)", [1, 2.5]),
        ("x[]=#data::json(props.prices[1])", [2.5]),
        ("x=#bad::json(a)", None),
        ("x=#data::json(none.such)", None),
        ("x=json:props", None),
        ("x=xpath://h2/i/text()", "new"),
        ("x=xpath:string(//h2)", "Lamp new"),
        ("x=xpath:count(//h2):int", 2),
        ("x[]=xpath://h2", ["Lamp new", "Chair"]),
        ("x=xpath://none", None),
        ("x=h2{own=::text; all=::attr(id)}", {"own": "Lamp", "all": None}),
        ("x=.none{a=b}", None),
        ("x[]=.none{a=b}", []),
    ],
)
def test_a_rule_reads_of_a_shop(rule: str, expected: object) -> None:
    assert shop(rule) == {"x": expected}


def test_a_price_brings_its_currency_and_what_does_not_convert_is_named() -> None:
    unconverted: set[str] = set()
    fields = shop("p[]=.price:price", "n=h2:int", "c[]=.card{t=h2; p=.price:price}", unconverted=unconverted)
    assert fields == {
        "p": [1299.0, None],
        "p_currency": ["$", None],
        "n": None,
        "c": [
            {"t": "Lamp new", "p": 1299.0, "p_currency": "$"},
            {"t": "Chair", "p": None, "p_currency": None},
        ],
    }
    assert unconverted == {"p", "n", "c.p"}
    assert Selection.of(["p[]=.price:price", "n=h2:int"]).blank() == {"p": [], "p_currency": [], "n": None}
    with pytest.raises(ConfigError, match="'p_currency' is taken"):
        Selection.of(["p=b:price", "p_currency=i"])


def test_json_rules_read_a_body_of_json() -> None:
    body = '{"a": {"b": "5", "c": [{"d": 1.5}, {"d": "x"}]}}'
    selection = Selection.of(["n=json:a.b:int", "all[]=json:a.c", "d[]=json:a.c[].d:float", "h=h1", "l[]=a@href"])
    unconverted: set[str] = set()
    found = selection.select(None, text=lambda: body, unconverted=unconverted)
    assert found == {"n": 5, "all": [{"d": 1.5}, {"d": "x"}], "d": [1.5, None], "h": None, "l": []}
    assert unconverted == {"d"}
    for broken in ("", "{", "[" * 100_000, "nul"):
        assert selection.select(None, text=lambda broken=broken: broken)["n"] is None  # type: ignore[misc]  # a default


def test_a_base_that_is_no_url_is_passed_over() -> None:
    for base, expected in (
        ("http://[/", "http://h.example/a/x"),
        ("javascript:1", "http://h.example/a/x"),
        ("data:,x", "http://h.example/a/x"),
        ("//other.example/y/", "http://other.example/y/x"),
        ("", "http://h.example/a/x"),
    ):
        tree = LexborHTMLParser(f'<base target=_top><base href="{base}"><base href="/no/"><a href=x>')
        assert Selection.of(["l=a@href"]).select(tree, url="http://h.example/a/b")["l"] == expected, base


# Beside parsel, which Scrapy selects with

PARSEL_RULES = [
    ("h1", "h1::text"), ("title", "title::text"), ("first", "p::text"), ("links", "a::attr(href)"),
    ("codes", "code::text"), ("all", "li ::text"), ("ids", "[id]::attr(id)"), ("nested", "div p a::attr(href)"),
    ("child", "ul > li > a::attr(title)"), ("sibling", "h2 + p::text"), ("general", "h2 ~ p::text"),
    ("nth", "li:nth-child(2)::text"), ("last", "li:last-child a::attr(href)"), ("not", "a:not([href^='#'])::attr(href)"),
    ("starts", "a[href^='http']::attr(href)"), ("ends", "a[href$='.html']::attr(href)"),
    ("contains", "a[href*='lib']::attr(href)"), ("word", "[class~='reference']::attr(class)"),
    ("group", "h1::attr(id)"), ("table", "table td::text"), ("meta", "meta[name]::attr(content)"),
    ("rel", "link[rel]::attr(href)"), ("scripts", "script[src]::attr(src)"), ("images", "img::attr(src)"),
    ("alts", "img::attr(alt)"), ("first-of-type", "p:first-of-type::text"), ("only", "b:only-child::text"),
    ("empty", "td:empty::attr(class)"), ("deep", "body div div::attr(class)"), ("em", "em::text"),
    ("strong", "strong::text"), ("pre", "pre::text"), ("dt", "dt::text"), ("dd", "dd p::text"), ("h2", "h2::text"),
    ("h3", "h3::text"), ("span", "span::text"), ("inputs", "input::attr(name)"), ("forms", "form::attr(action)"),
    ("lang", "html::attr(lang)"),
]  # fmt: skip


def pages_to_compare() -> list[str]:
    step = int(os.environ.get("FETCHER_PARSEL_STEP", "20"))  # 1 is all of them: half a minute
    manual = Path("/usr/share/doc/python3/html")  # where Debian's python3-doc is installed
    found = [path.read_text(errors="replace") for path in sorted(manual.glob("**/*.html"))[::step][:400]]
    return [
        SHOP,
        *(page.text for page in shop_pages(40, 1).values() if page.content_type.startswith("text/html")),
        *found,
    ]


def test_selectors_find_what_parsel_finds() -> None:
    parsel = pytest.importorskip("parsel")
    selection = Selection.of([f"{name}[]={rule}" for name, rule in PARSEL_RULES])
    assert len(PARSEL_RULES) == 40
    for page in pages_to_compare():
        ours = selection.select(LexborHTMLParser(page))
        theirs = parsel.Selector(page)
        for name, rule in PARSEL_RULES:
            expected = theirs.css(rule).getall()
            if "::text" in rule:
                expected = [" ".join(text.split()) for text in expected if text.split()]
            assert ours[name] == expected, (rule, page[:200])


# Rules by URL, and tables


def test_rules_by_url_are_those_of_the_first_pattern_that_fits() -> None:
    config = Config.of(select="t=title", select_from=str(ROOT / "examples" / "rules.toml"))
    selection = Selection.of(config.select, groups=config.select_from)
    names = {
        "https://shop.example/products/1": ["t", "name", "price", "price_currency", "image", "in_stock", "reviews"],
        "https://n.example/news/x?y": ["t", "headline", "author", "published", "paragraphs", "topics"],
        "https://b.example/jobs": ["t", "opening"],
        "https://b.example/": ["t"],
    }
    for url, expected in names.items():
        assert list(selection.select(PAGE, url=url)) == list(selection.blank(url)) == expected
    assert [column.name for column in selection.columns] == list(dict.fromkeys(chain.from_iterable(names.values())))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "made of [[pages]] alone"),
        ("x = 1\n[[pages]]\nurl='a'\nselect='b=c'", "made of [[pages]] alone"),
        ("[[pages]]\nurl='a'", "the 1. [[pages]]: has url and select"),
        (
            "[[pages]]\nurl='a'\nselect='b=c'\n[[pages]]\nurl=1\nselect='b=c'",
            "the 2. [[pages]]: 1: must be a text or a list of texts",
        ),
        ("[[pages]]\nurl='re:('\nselect='b=c'", "'(' is no regular expression"),
        ("[[pages]", "not valid TOML"),
    ],
)
def test_a_file_of_rules_that_cannot_be_read(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        Config.of(select_from=str(tmp_path / "rules.toml"))
    assert reason in str(caught.value)
    assert "select-from" in str(caught.value)


def test_a_name_has_one_type_in_all_rules() -> None:
    groups = [(("a",), ("x=h1:int",)), (("b",), ("x=h1",))]
    with pytest.raises(ConfigError, match="'x' has two types"):
        Selection.of([], groups=[(patterns, rules) for patterns, rules in groups])
    with pytest.raises(ConfigError, match="'x' is taken"):
        Selection.of(["x=h2"], groups=[(("a",), ("x=h1",))])


TABLES = """<table id=plain><caption>c</caption><thead><tr><th>City<th>People<th>People</thead>
<tr><td>Rome<td>2 <b>800</b><td>x<tr><td>Oslo<td>700<tr></table>
<table id=bare><tr><td>a<td>b<tr><td>c<td>d</table>
<table id=spans><tr><th>A<th colspan=2>B<tr><td rowspan=2>1<td>2<td>3<tr><td colspan=2>4<tr><td>5<td>6<td>7<td>8</table>
<div id=outer><table><tr><th>k<tr><td>v<table><tr><td>inner</table></table></div>
<table id=huge><tr><td colspan=99999999999>x<td rowspan=65534 colspan=-3>y<tr><td>z</table><p id=none></p>"""


@pytest.mark.parametrize(
    ("css", "rows"),
    [
        ("#plain", [
            {"City": "Rome", "People": "2 800", "People_2": "x"},
            {"City": "Oslo", "People": "700", "People_2": ""},
        ]),
        ("#bare", [{"column_1": "a", "column_2": "b"}, {"column_1": "c", "column_2": "d"}]),
        ("#spans", [
            {"A": "1", "B": "2", "B_2": "3", "column_4": ""},
            {"A": "1", "B": "4", "B_2": "4", "column_4": ""},
            {"A": "5", "B": "6", "B_2": "7", "column_4": "8"},
        ]),
        ("#outer", [{"k": "v inner"}]),
        ("#none", []),
        ("#no", []),
    ],
)  # fmt: skip
def test_a_table_is_rows(css: str, rows: list[dict[str, str]]) -> None:
    assert Selection.of([], table=css).select(LexborHTMLParser(TABLES)) == {"table": rows}


def test_a_table_of_hostile_spans_is_bounded() -> None:
    (first, second) = Selection.of([], table="#huge").select(LexborHTMLParser(TABLES))["table"]
    assert (len(first), first["column_1"], second["column_1"], second["column_2"]) == (2, "x", "z", "y")
    wide = "<table>" + "<tr><td colspan=1000 rowspan=1000>x" * 1000 + "</table>"
    assert sum(map(len, Selection.of([], table="table").select(LexborHTMLParser(wide))["table"])) <= 200_000


def test_a_table_needs_a_selector_and_its_name() -> None:
    with pytest.raises(ConfigError, match="table '\\[': a closing \\] is missing"):
        Selection.of([], table="[")
    with pytest.raises(ConfigError, match="has the name 'table' too"):
        Selection.of(["table=h1"], table="table")
