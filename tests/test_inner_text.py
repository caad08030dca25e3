"""The text of an element as a person sees it, against what browsers give as its innerText."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser, LexborNode

from fetcher.page import inner_text as module
from fetcher.page.inner_text import inner_lines, inner_text


def text_of(html: str, css: str = ".x") -> str:
    node = LexborHTMLParser(html).css_first(css)
    assert node is not None
    return inner_text(node)


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p class=x>one", "one"),
        ("<p class=x>", ""),
        ("<p class=x> \n one \t <b> two</b>&nbsp;three ", "one two three"),
        ("<p class=x>Wire<b>less</b> <i>Mouse</i><wbr>pad", "Wireless Mousepad"),
        ("<p class=x>a<br>b<br/>c", "a b c"),
        ("<div class=x>a<div>b</div>c<hr>d</div>", "a b c d"),
        ("<div class=x>a<div>b<span></span></div><img><span><i>c</i></span></div>", "a b c"),
        ("<div class=x><span><div>a</div></span><b>b</b></div>", "a b"),
        ("<div class=x><span>a<div>b</div><!-- c --></span><script>d</script><b></b>e</div>", "a b e"),
        ("<div class=x><span>a<div></div></span>b</div>", "a b"),
        ("<div class=x><b>a</b><i>b</i><u><s>c</s></u></div>", "abc"),
        ("<table class=x><caption>a</caption><tr><th>b<td>c<tr><td>d</table>", "a b c d"),
        ("<table class=x><tr><td><b>a</b></td><td><b>b</b></td></tr></table>", "a b"),
        ("<ul class=x><li>a</li><li>b<ol><li>c</ol></ul>", "a b c"),
        ("<dl class=x><dt>a<dd>b</dl>", "a b"),
        ("<select class=x><option>a<option>b<optgroup label=g><option>c</select>", "a b c"),
        ("<div class=x>a<details><summary>b</summary>c</details>d</div>", "a b c d"),
        ("<pre class=x>a\n  b</pre>", "a b"),
        ("<p class=x>漢<b>字</b>", "漢字"),
        ("<p class=x>1 &lt; 2 &amp;amp; 3", "1 < 2 &amp; 3"),
        ("<div class=x>a<!-- no -->b</div>", "ab"),
        ("<div class=x>a<script>no()</script>b<style>no</style>c<template>no<p>no</template>d</div>", "abcd"),
        ("<div class=x><script></script>a<style></style>b<noscript><p>no</p>no</noscript>c</div>", "abc"),
        ("<div class=x>a<script>no</script></div>no", "a"),
        ("<div class=x>a<noscript>no<p>no</noscript></div><p>no", "a"),
        ("<div class=x>a<iframe>no</iframe><video>no<b>no</b></video><audio>no</audio><canvas>no</canvas>b</div>", "ab"),
        ("<div class=x>a<ruby>b<rp>(</rp><rt>c</rt><rp>)</rp></ruby>d</div>", "abcd"),
        ("<div class=x><svg><title>no</title><style>no</style><text>a</text></svg>b</div>", "ab"),
        ("<div class=x>a<p hidden>no<b>no</b></p>b</div>", "a b"),
        ("<div class=x>a<b hidden=until-found>no</b>b<b style='Color:red; DISPLAY : none!important'>no</b>c</div>", "abc"),
        ("<div class=x>a<b style='display:nonesuch'>b</b><b style='x-display:none'>c</b><b data-x=hidden>d</b></div>", "abcd"),
        ("<div class=x>a<dialog>no</dialog><dialog open>b</dialog></div>", "a b"),
        ("<xmp class=x>a <b> c</xmp>", "a <b> c"),
        ("<textarea class=x>a\n<b></textarea>", "a <b>"),
    ],
)  # fmt: skip
def test_it_is_what_a_person_sees(html: str, text: str) -> None:
    assert text_of(html) == text


@pytest.mark.parametrize(
    ("html", "css", "text"),
    [
        ("<head><title>One  Two</title>", "title", "One Two"),
        ("<head><title>a</title><style>b</style>", "head", "ab"),
        ("<head><title>no</title><script>no</script></head><body>a", "html", "a"),
        ("<head><style class=x> p { } </style>", ".x", "p { }"),
        ("<div hidden><script class=x>a</script></div>", ".x", "a"),
        ("<body><noscript class=x>a<p>b</p></noscript>", ".x", "a b"),
        ("<template class=x>a<p>b</p></template>", ".x", "ab"),
        ("<p hidden class=x>a<b hidden>no</b>", ".x", "a"),
        ("<div style='display:none'><p class=x>a<br>b</div>", ".x", "a b"),
        ("<dialog class=x>a</dialog>", ".x", "a"),
        ("<video class=x>a<p>b</p></video>", ".x", "a b"),
    ],
)
def test_what_is_asked_for_itself_has_its_own_text(html: str, css: str, text: str) -> None:
    assert text_of(html, css) == text


NAMES = [
    "b",
    "div",
    "p",
    "br",
    "img",
    "script",
    "template",
    "noscript",
    "li",
    "td",
    "video",
    "p hidden",
    "#text",
    " ",
    "/",
]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(NAMES), max_size=40))
def test_it_is_what_a_plain_walk_gives(names: list[str]) -> None:
    html = "".join("ab" if name == "#text" else " " if name == " " else f"<{name}>" for name in names)
    tree = LexborHTMLParser(
        f"<div class=x>{html.replace('</>', '</b></p></div></script></template></noscript></video>')}"
    )
    node = tree.css_first(".x")
    assert node is not None
    assert inner_text(node) == " ".join("".join(plain_walk(node)).split())


def plain_walk(node: LexborNode) -> list[str]:
    """The rule itself: a break before and after each block, nothing of what is not seen."""
    parts = []
    for child in node.iter(include_text=True):
        tag = child.tag_id
        if child.is_text_node:
            parts.append(child.text_content or "")
        elif tag not in module._UNSEEN and "hidden" not in child.attributes:
            edge = [" "] if tag in module._BREAKS else []
            parts += [*edge, *plain_walk(child), *edge]
    return parts


@pytest.mark.parametrize(
    "piece",
    ["<b>", "<div>", "<b><div>", "<b>a", "<i></i>", "a<i></i>", "<b hidden>", "<p>a</p>b", "<video>", "a<video></video>",
     "<p hidden>a</p>", "<b><video></video>a", "<script></script>", "<div>a</div><i></i>"],
)  # fmt: skip
def test_its_time_is_linear(piece: str) -> None:
    node = LexborHTMLParser(f"<div class=x>{piece * 20_000}c").css_first(".x")
    assert node is not None
    began = time.monotonic()
    assert inner_text(node)[-1:] in {"", "c"}
    assert time.monotonic() - began < 20  # a few hundredths of a second; over a minute, were it quadratic


def test_of_white_space_the_blank_alone_is_printable() -> None:
    """By which links are known whose text need not be folded."""
    assert [mark for mark in map(chr, range(0x110000)) if mark.isspace() and mark.isprintable()] == [" "]


# By lines


@pytest.mark.parametrize(
    ("html", "lines"),
    [
        ("<p>one <b>two</b>\n three<p>four", ["one two three", "four"]),
        ("a<br>b<br><br>c", ["a", "b", "c"]),
        ("<div>a</div> <i>b</i>\n<i>c</i><div><div>d</div></div>e", ["a", "b c", "d", "e"]),
        ("<b><div>a</div></b>b<i><u><p>c</p></u></i><s>d</s>", ["a", "b", "c", "d"]),
        ("<ul><li>a<li>b<ul><li>c</ul></ul><span>d</span>", ["a", "b", "c", "d"]),
        ("<table><tr><th> a </th><th>b\n</th></tr><tr><td>1<td><td>3</table>d", ["a\tb", "1\t\t3", "d"]),
        (
            "<table>\n<tr>\n<td>a</td>\n<td></td> <!-- c -->\n<td>b</td>\n</tr>\n<tr> <td>c</td> <td>d</table>",
            ["a\t\tb", "c\td"],
        ),
        (
            "<div>a <b>b</b> <i hidden>no</i>\n<!-- c --><i>c</i> <span><p>d</p><b>e</b> </span>f</div>",
            ["a b c", "d", "e f"],
        ),
        ("<p>x</p><pre>\n  a\n\n   b <b>c</b>  \n</pre>d", ["x", "  a", "", "   b c", "d"]),
        ("<pre>a<br>b<script>no</script><i hidden>no</i></pre><pre> </pre><pre>c</pre>", ["a", "b", "c"]),
        ("<p hidden>no</p><pre hidden>no</pre>a<p style='display:none'>no<p>b<script>no</script>", ["a", "b"]),
        ("<p>a</p><!-- no --><p></p>b", ["a", "b"]),
        (
            "<table><tr><td>a<td><p>b</p><p>c</p><td>\n<tr><td><pre> d </pre><td>e\ff&nbsp;\u2003g",
            ["a", "b", "c", " d", "e f g"],
        ),
        ("<svg>a<wbr><tr>b", ["a", "b"]),
        ("", []),
        ("<script>no", []),
    ],
)
def test_each_paragraph_is_a_line(html: str, lines: list[str]) -> None:
    body = LexborHTMLParser(f"<body>{html}").body
    assert body is not None
    assert inner_lines(body).split("\n") == (lines or [""])


@given(
    st.lists(
        st.sampled_from("<p> </p> <b> </b> <br> <td> <table> </table> <tr> <pre> </pre> <li> <div> </div> <i hidden> </i> "
                        "<script> </script> <p\thidden> <!--x--> a b \n \x01 \0 &nbsp;".split(" ")),
        max_size=30,
    )
)  # fmt: skip
def test_lines_have_the_words_of_the_text(parts: list[str]) -> None:
    body = LexborHTMLParser("<body>" + " ".join(parts)).body
    assert body is not None
    assert inner_lines(body).split() == inner_text(body).split()


def test_the_time_of_lines_is_linear() -> None:
    """16,000 elements deep it takes 0.1 to 0.25 s of the processor; a look at all that are open for each, many times as long."""
    body = LexborHTMLParser("<div><b>" * 16_000 + "x").body
    assert body is not None
    began = time.process_time()
    assert inner_lines(body) == "x"
    assert time.process_time() - began < 2
