"""The rules of ``--select``: what they read, and what is said about those that cannot be read."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from fetcher.errors import ConfigError
from fetcher.page.select import FieldRule, Fields, Selection

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
        ("x=h1 ::text", "A good lamp"),
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
    assert selection.rules == (FieldRule("a", "p > b", "href", many=True),)
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
        ("a=h1::attr()", "no attribute's name"),
        ("a=h1@a@b", "'a@b' is no attribute's name"),
        ("a=h1@a b", "'a b' is no attribute's name"),
        ("a=h1::text@href", "two things"),
        ("a=h1[x", "closing ] is missing"),
        ("a=h1[x='y]", "closing ' is missing"),
        ("a=h1:not(b", "closing ) is missing"),
        ("a=h1]", "] closes nothing"),
        ("a=//h1", "'//h1' is no CSS selector"),
        ("a=h1 >", "no CSS selector"),
        ("a=h1::before", "::text and ::attr(NAME)"),
        ("a=h1::text, h2", "::text and ::attr(NAME)"),
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
