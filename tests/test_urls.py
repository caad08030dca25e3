"""URLs: what reaches the wire byte for byte, what is normalised, what is refused and in which words."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fetcher.errors import InvalidURL
from fetcher.urls import (
    MAX_PAGES,
    MAX_URL,
    BaseURL,
    Target,
    host_key,
    identity,
    join,
    parse,
    registrable_domain,
    resolve,
    with_scheme,
)

NO_HOST = "not a URL: its host or port is none"
SCHEME_FOR_HOST = " stands where its host belongs (a scheme twice, or misspelt?)"


@pytest.mark.parametrize(
    "tail",
    [
        "/", "/%7e|'x", "//", "///x//", "/?", "/x?", "/?a=b?c=d&e", "/;p=1/@:x", "/%zz%", "/[x]|", "/%2f%5C", "/.x/..y/...",
        "/?q=|^`{}[]\\", "/~user/(a)*!$,+", "/a?b=/../c", "/a?%2e%2e/x", "/?%00", "/-_.~", "/://x", "/a:80/", "/%2e%2ex",
    ],
)  # fmt: skip
def test_the_wire_gets_what_was_listed_byte_for_byte(tail: str) -> None:
    for authority in ("http://a.example", "https://127.0.0.1:8443", "http://[::1]:9", "http://A.EXAMPLE"):
        for fragment in ("", "#", "#f/../?x", "#a#b"):
            assert parse(authority + tail + fragment).wire == authority.lower() + tail


@pytest.mark.parametrize(
    ("tail", "wire"),
    [
        # dot segments (WHATWG URL, path state), as robots.txt and the address rule see them too
        ("/a/../b/./c", "/b/c"),
        ("/x/../private/p", "/private/p"),
        ("/./private", "/private"),
        ("/%2e%2e/x", "/x"),
        ("/a/.%2E/b", "/b"),
        ("/a/%2e./b/%2E", "/b/"),
        ("/a/..", "/"),
        ("/a/.", "/a/"),
        ("/a//../b", "/a/b"),
        ("/../../x", "/x"),
        ("/a\\..\\b", "/b"),
        ("/%7e/../%zz/%2fx", "/%zz/%2fx"),
        # the path percent-encode set
        ("/[x]{y}^`", "/[x]%7By%7D%5E%60"),
        ('/"<>"', "/%22%3C%3E%22"),
        # the special-query percent-encode set
        ("/?q='\"<>|^`{}", "/?q=%27%22%3C%3E|^`{}"),
        ("/'?'", "/'?%27"),
    ],
)
def test_the_wire_gets_the_standards_serialisation(tail: str, wire: str) -> None:
    for fragment in ("", "#", "#f/../?x"):
        assert parse(f"http://a.example{tail}{fragment}").wire == f"http://a.example{wire}"
        assert identity(f"http://a.example{tail}{fragment}") == f"http://a.example{wire}"


@pytest.mark.parametrize(
    ("listed", "wire"),
    [
        ("http://a.example", "http://a.example/"),
        ("http://a.example?q", "http://a.example/?q"),
        ("http://a.example?", "http://a.example/?"),
        ("http://a.example#f", "http://a.example/"),
        ("HTTP://A.Example/Path", "http://a.example/Path"),
        ("http:a.example/x", "http://a.example/x"),
        ("http:/a.example/x", "http://a.example/x"),
        ("http:////a.example/x", "http://a.example/x"),
        ("http:\\\\a.example\\x\\y?z\\", "http://a.example/x/y?z\\"),
        ("http://a.example\\@b.example/", "http://a.example/@b.example/"),
        ("http://a.example:80/x", "http://a.example/x"),
        ("https://a.example:443/x", "https://a.example/x"),
        ("https://a.example:80/x", "https://a.example:80/x"),
        ("http://a.example:/x", "http://a.example/x"),
        ("http://a.example:00081/x", "http://a.example:81/x"),
        ("http://a.example/a b", "http://a.example/a%20b"),
        ("http://a.example/a b/../c|d'", "http://a.example/c|d'"),
        ("http://a.example/ö?ü#ä", "http://a.example/%C3%B6?%C3%BC"),
        ("http://a.example/ö?", "http://a.example/%C3%B6?"),
        ("http://a.example/\x01\x7f", "http://a.example/%01%7F"),
        ("http://müller.example/", "http://xn--mller-kva.example/"),
        ("http://faß.example/", "http://xn--fa-hia.example/"),
        ("http://ex%61mple.com/%61", "http://example.com/%61"),
        ("http://a.example。/x", "http://a.example./x"),
        ("http://a.example./x", "http://a.example./x"),
        ("http://0x7f.1/x", "http://127.0.0.1/x"),
        ("http://2130706433/", "http://127.0.0.1/"),
        ("http://017700000001/", "http://127.0.0.1/"),
        ("http://127.1/", "http://127.0.0.1/"),
        ("http://1.2.3.4./", "http://1.2.3.4/"),
        ("http://１２７.0.0.1/", "http://127.0.0.1/"),
        ("http://[0:0:0:0:0:0:0:1]/", "http://[::1]/"),
        ("http://[::FFFF:127.0.0.1]:81/", "http://[::ffff:7f00:1]:81/"),
        ("  \t\n\x00http://a.example/x\r\n\x1f ", "http://a.example/x"),
        ("ht\ntp://a.exa\tmple/p\rath?q", "http://a.example/path?q"),
        ("http:/\t/a.example/x", "http://a.example/x"),
        ("http://a.example/x?\n", "http://a.example/x?"),
    ],
)
def test_what_is_not_wire_safe_gets_the_standards_serialisation(listed: str, wire: str) -> None:
    assert parse(listed).wire == wire


@pytest.mark.parametrize(
    ("listed", "wire"),
    [
        ("a.example", "https://a.example/"),
        ("a.example/x?y", "https://a.example/x?y"),
        ("//a.example/x", "https://a.example/x"),
        ("\\\\a.example\\x", "https://a.example/x"),
        ("localhost:8000/x", "https://localhost:8000/x"),
        ("localhost:8000", "https://localhost:8000/"),
        ("localhost:8000?x", "https://localhost:8000/?x"),
        ("localhost:8000#x", "https://localhost:8000/"),
        ("127.0.0.1:8000", "https://127.0.0.1:8000/"),
        ("[::1]:8000/x", "https://[::1]:8000/x"),
        ("münchen.example", "https://xn--mnchen-3ya.example/"),
        ("user@a.example/x", "https://a.example/x"),
        (" a.example ", "https://a.example/"),
        ("9gag.example/a:1/b", "https://9gag.example/a:1/b"),
    ],
)
def test_a_row_without_a_scheme_gets_the_default(listed: str, wire: str) -> None:
    assert parse(listed).wire == wire
    assert parse(listed, "http").wire == wire.replace("https:", "http:")
    assert parse(with_scheme(listed.strip(), "http")).scheme == "http"


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ("", "empty"),
        (" \t\r\n\x00", "empty"),
        ("javascript:alert(1)", "the scheme 'javascript' is not http or https"),
        ("javascript:0", "the scheme 'javascript' is not http or https"),
        ("ftp://a.example/x", "the scheme 'ftp' is not http or https"),
        ("FTP://a.example/x", "the scheme 'FTP' is not http or https"),
        ("mailto:me@a.example", "the scheme 'mailto' is not http or https"),
        ("tel:0123", "the scheme 'tel' is not http or https"),
        ("file:///etc/passwd", "the scheme 'file' is not http or https"),
        ("data:,x", "the scheme 'data' is not http or https"),
        ("ws://a.example/", "the scheme 'ws' is not http or https"),
        ("about:blank", "the scheme 'about' is not http or https"),
        ("user:pw@a.example", "a user name and no scheme before it: write https:// in front"),
        ("blob:https://a.example/x", "the scheme 'blob' is not http or https"),
        ("/a/path", "no host: a relative reference"),
        ("?q=1", "no host: a relative reference"),
        ("#top", "no host: a relative reference"),
        ("\\x", "no host: a relative reference"),
        ("http://", NO_HOST),
        ("http:", NO_HOST),
        ("https://#x", NO_HOST),
        ("http://user@/x", NO_HOST),
        ("http://./", "no host"),
        ("http://a.example:99999/", NO_HOST),
        ("http://a.example:8o/", NO_HOST),
        ("http://two words/", NO_HOST),
        ("two words", NO_HOST),
        ("http://a<b/", NO_HOST),
        ("http://[::1/", NO_HOST),
        ("http://[::g]/", NO_HOST),
        ("http://1.2.3.256/", NO_HOST),
        ("http://%00/", NO_HOST),
        ("http://a.example/\ud800", "not a URL: not all of it is text in UTF-8"),
        ("http://a.example/" + "x" * MAX_URL, f"{MAX_URL + 17} characters long, over {MAX_URL}"),
        ("http://http://a.example/", f"not a URL: 'http'{SCHEME_FOR_HOST}"),
        ("http//a.example/", f"not a URL: 'http'{SCHEME_FOR_HOST}"),
        ("HTTPS//a.example/", f"not a URL: 'https'{SCHEME_FOR_HOST}"),
        ("https://https//a.example/", f"not a URL: 'https'{SCHEME_FOR_HOST}"),
        ("http:https://a.example/", f"not a URL: 'https'{SCHEME_FOR_HOST}"),
        ("https://ftp://a.example/", f"not a URL: 'ftp'{SCHEME_FOR_HOST}"),
        ("http;//a.example/", f"not a URL: 'http;'{SCHEME_FOR_HOST}"),
        ('"http://a.example/', f"not a URL: '\"http'{SCHEME_FOR_HOST}"),
        ("\ufeffhttp://a.example/", f"not a URL: 'http'{SCHEME_FOR_HOST}"),
        ("z" * 100 + "://x", f"the scheme '{'z' * 40}' is not http or https"),
    ],
)
def test_what_is_no_url_is_refused_in_words(listed: str, message: str) -> None:
    with pytest.raises(InvalidURL) as caught:
        parse(listed)
    assert (caught.value.code, caught.value.message) == ("invalid_url", message)
    with pytest.raises(InvalidURL) as caught:
        identity(listed)
        parse(listed)  # another scheme has an identity, and a host of dots


def test_a_host_may_have_the_name_of_a_scheme() -> None:
    for listed in (
        "http://http/",
        "https://http/x//y",
        "http://ftp.example//x",
        "http://httpbin//x",
        "http://[::1]//x",
    ):
        assert parse(listed).wire == listed


def test_the_longest_url_passes() -> None:
    url = "http://a.example/" + "x" * (MAX_URL - 17)
    assert parse(url).wire == url
    assert parse(f"{url[:-1]}ö").wire.endswith("x%C3%B6")


@pytest.mark.parametrize(
    ("listed", "target"),
    [
        ("http://a.example/", Target("http://a.example/", "http", "a.example", 80)),
        ("https://a.example:8443", Target("https://a.example:8443/", "https", "a.example", 8443)),
        ("http://a.example.:81/", Target("http://a.example.:81/", "http", "a.example", 81)),
        ("http://A.Example./", Target("http://a.example./", "http", "a.example", 80)),
        ("http://[::1]:81/", Target("http://[::1]:81/", "http", "[::1]", 81)),
        ("http://0x7f.1/", Target("http://127.0.0.1/", "http", "127.0.0.1", 80)),
        ("http://u:p@a.example/x", Target("http://a.example/x", "http", "a.example", 80, "u", "p")),
        ("http://u@a.example/x", Target("http://a.example/x", "http", "a.example", 80, "u")),
        ("http://:p@a.example/x", Target("http://a.example/x", "http", "a.example", 80, None, "p")),
        ("http://:@a.example/x", Target("http://a.example/x", "http", "a.example", 80)),
        ("http://@a.example/x", Target("http://a.example/x", "http", "a.example", 80)),
        ("http://u%40x:p%3A@a.example", Target("http://a.example/", "http", "a.example", 80, "u%40x", "p%3A")),
        ("http://u@x:p:q@a.example/@", Target("http://a.example/@", "http", "a.example", 80, "u%40x", "p%3Aq")),
        ("http://ü:p w@[::1]:9?x", Target("http://[::1]:9/?x", "http", "[::1]", 9, "%C3%BC", "p%20w")),
    ],
)
def test_a_target_has_its_host_key_port_and_credentials(listed: str, target: Target) -> None:
    assert parse(listed) == target
    assert parse(listed).origin == (target.scheme, target.host, target.port)


def test_the_same_authority_is_parsed_once_for_all_its_paths() -> None:
    assert parse("http://once.example/a").host is parse("http://once.example/b").host


# Any text at all

WIRE = re.compile(r"https?://(\[[0-9a-f:.]+\]|[!-\"$-.0-9;=>@-\[\]-~]+)(:[0-9]{1,5})?/[!-\"$-~]*")
PIECES = st.sampled_from(
    ["http", "https", ":", "//", "/", "\\", "?", "#", "@", "[", "]", "::1", "a.example", "127.1", "%", "%2e", "..", ".",
     "ä", "\u3002", "\ud800", "\t", "\n", "\x00", " ", "xn--", "80", "99999", "|", "'", '"', "<", "\u202e", "💥", "ftp"]
)  # fmt: skip
ANYTHING = st.text() | st.lists(PIECES, max_size=12).map("".join) | st.text().map("http://a.example/".__add__)


@given(ANYTHING, st.sampled_from(["http", "https"]))
@example("http://a.example/\\", "http")
@example("http:/\t/\t\\x", "http")
def test_nothing_but_invalid_url_is_ever_raised(text: str, scheme: str) -> None:
    try:
        target = parse(text, scheme)
    except InvalidURL as error:
        assert error.message
        return
    assert WIRE.fullmatch(target.wire), target.wire
    assert target.host == target.host.lower()
    assert not target.host.endswith(".")
    assert 0 <= target.port <= 65_535
    again = parse(target.wire)
    assert (again.wire, again.origin, again.user) == (target.wire, target.origin, None)
    assert identity(text, scheme).startswith(f"{target.scheme}://")


@given(ANYTHING, ANYTHING)
def test_joining_raises_nothing_else_either(base: str, location: str) -> None:
    for start in ("http://a.example/b/c?d", base):
        try:
            url = join(start, location)
        except InvalidURL:
            continue
        assert url.startswith(("http://", "https://"))
        assert "#" not in url


# Join, identity, hosts


@pytest.mark.parametrize(
    ("location", "joined"),
    [
        ("x", "http://a.example/b/x"),
        ("/x", "http://a.example/x"),
        ("?x", "http://a.example/b/c?x"),
        ("", "http://a.example/b/c?d"),
        ("#x", "http://a.example/b/c?d"),
        ("//b.example", "http://b.example/"),
        ("../../x", "http://a.example/x"),
        ("https://b.example/ü#f", "https://b.example/%C3%BC"),
        ("http://u:p@b.example/", "http://u:p@b.example/"),
        ("\\\\b.example\\x", "http://b.example/x"),
        ("x|y'z", "http://a.example/b/x|y'z"),
    ],
)
def test_a_location_is_joined_as_browsers_do(location: str, joined: str) -> None:
    assert join("http://a.example/b/c?d", location) == joined


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("http://[", "not a URL"),
        ("javascript:0", "the scheme 'javascript' is not http or https"),
        ("localhost:8000/x", "the scheme 'localhost' is not http or https"),
        ("data:text/html,x", "the scheme 'data' is not http or https"),
    ],
)
def test_a_location_that_leads_nowhere_is_refused(location: str, message: str) -> None:
    with pytest.raises(InvalidURL) as caught:
        join("http://a.example/", location)
    assert caught.value.message == message


@pytest.mark.parametrize(
    "same",
    [
        (
            "http://a.example",
            "http://a.example/",
            "HTTP://A.EXAMPLE:80/#x",
            " http://a.example/./ ",
            "http:\\\\a.example",
        ),
        ("a.example/x", "https://a.example/x", "//a.example/y/../x", "https://a.example:443/%78".replace("%78", "x")),
        ("http://127.0.0.1/", "http://0x7f.1", "http://2130706433/"),
        ("http://ä.example/ö", "http://xn--4ca.example/%C3%B6"),
    ],
)
def test_equal_urls_have_one_identity(same: tuple[str, ...]) -> None:
    assert len({identity(url) for url in same}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://a.example/", "https://a.example/"),
        ("http://a.example/x", "http://a.example/x/"),
        ("http://a.example/x", "http://a.example/x?"),
        ("http://a.example/~", "http://a.example/%7E"),
        ("http://u@a.example/", "http://a.example/"),
        ("http://a.example/", "http://a.example:81/"),
    ],
)
def test_different_urls_have_two(one: str, other: str) -> None:
    assert identity(one) != identity(other)


@pytest.mark.parametrize(
    ("host", "key"),
    [("Example.COM", "example.com"), ("a.example.", "a.example"), ("müller.example", "xn--mller-kva.example"),
     ("[0:0::1]", "[::1]"), ("127.1", "127.0.0.1"), ("localhost", "localhost")],
)  # fmt: skip
def test_a_host_as_people_write_it_has_a_key(host: str, key: str) -> None:
    assert host_key(host) == key


@pytest.mark.parametrize("text", ["", "a b", "a/b", "a:80", "u@a", "a?b", "::1", "[::1]:80", "a#b", ".", "a\\b", "[x]"])
def test_what_is_no_host_has_none(text: str) -> None:
    with pytest.raises(InvalidURL):
        host_key(text)


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("www.a.example", "a.example"),
        ("a.example", "a.example"),
        ("www.bbc.co.uk", "bbc.co.uk"),
        ("co.uk", "co.uk"),
        ("me.github.io", "me.github.io"),
        ("x.me.github.io", "me.github.io"),
        ("localhost", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]", "[::1]"),
        ("www.xn--mller-kva.de", "xn--mller-kva.de"),
    ],
)
def test_a_host_has_its_registrable_domain(host: str, domain: str) -> None:
    assert registrable_domain(host) == domain


# Many references against one base


BASES = [
    "https://a.example/b/c.html", "http://a.example", "http://a.example:80/x/y/?q=/z#f", "https://A.example/b/",
    "https://a.example/b//c/d", "http://1.2.3/a/b", "https://a.example/%7ea/./b", "https://müller.de/a", "ftp://x/y",
    "data:x", "https://u:p@a.example/b/c", "http://a.example?x/y", "https://a.example/a/..", "https://xn--a/b",
    "http://http//x", "https://a.example./b/c?x#y", "https://a.example/b/c d", "",
]  # fmt: skip
PARTS = [
    "..", ".", "/", "a", "b.html", "?", "#", "%2e", "%2E", "%", "x y", "é", '"', "'", "<", "^", "{", "`", "|", "~", ":",
    "http:", "https:", "//", "https://b.example", "http://B.example", "mailto:x", "javascript:", "\\", "\t", "@", "0x7f.1",
    ".hid", "a.", "..a", " ", "&", "=", "[", "]", "_", "-", "+", ":80", "\n", "\0", "\ud800",
]  # fmt: skip


@given(st.sampled_from(BASES), st.lists(st.sampled_from(PARTS), max_size=6))
@settings(max_examples=2_000, deadline=None)
def test_a_base_resolves_as_the_standard_does(base: str, parts: list[str]) -> None:
    reference = "".join(parts)
    assert BaseURL(base).resolve(reference) == resolve(base, reference)


@given(
    st.sampled_from(BASES),
    st.lists(
        st.tuples(st.sampled_from(["b", "../c?d", "a ", "%2e", "", "mailto:x", "é", "/e"]), st.sampled_from(PARTS))
    ),
)
@settings(max_examples=500, deadline=None)
def test_places_of_one_page_are_resolved_as_the_standard_does(base: str, references: list[tuple[str, str]]) -> None:
    resolver = BaseURL(base)
    for page, place in references:
        for reference in (f"{page}#x", f"{page}#{place}", f"{page}{place}#x"):
            assert resolver.resolve(reference) == resolve(base, reference)


def test_a_base_with_very_many_pages_stays_small() -> None:
    base = BaseURL("https://a.example/b")
    for number in range(MAX_PAGES + 10):
        for place in "xy":
            assert base.resolve(f"{number}#{place}") == f"https://a.example/{number}#{place}"
    assert base.resolve("c" * 600 + "#x") == f"https://a.example/{'c' * 600}#x"
    assert len(base._pages) == MAX_PAGES


def test_a_base_with_very_many_folders_above_stays_small() -> None:
    base = BaseURL("https://a.example/" + "d/" * 300)
    for up in range(200):
        assert base.resolve("../" * up + "x") == resolve(base.url, "../" * up + "x")
    assert len(base._folders) < 100


def test_a_url_that_is_sent_as_it_is_listed_is_held_once() -> None:
    class Text(str):
        """As NumPy's texts are."""

        __slots__ = ()

    listed = "http://example.com/a?b"
    assert parse(listed).wire is listed
    assert parse("http://example.com").wire == "http://example.com/"
    wire = parse(Text(listed)).wire
    assert (wire, type(wire)) == (listed, str)
