"""Law 7: exactly who gets which header and which cookie, on every way a chain of redirects can take."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.config import Config, Header, Identity
from fetcher.errors import ConfigError
from fetcher.middleware.cookies import MAX_COOKIE_BYTES, MAX_COOKIES, ChainJar, CookieFiles, cookie_date
from fetcher.middleware.redirects import Secrets
from fetcher.model import Request
from fetcher.urls import parse

COOKIES = """# Netscape HTTP Cookie File
# https://curl.se/docs/http-cookies.html

a.example FALSE / FALSE 0 alone 1
#HttpOnly_.a.example TRUE / FALSE 0 below 2
a.example FALSE /deep FALSE 0 deep 3
a.example FALSE / TRUE 0 safe 4
b.example FALSE / FALSE 0 other 5
"""


def headers_of(secrets: Secrets, first: str, hop: str, jar: ChainJar | None = None, *row: tuple[str, str]) -> Any:
    request = Request(1, first, row)
    found = secrets.headers(request, parse(first), parse(hop), jar)
    assert len({name.lower() for name, _ in found}) == len(found)
    return dict(found)


@pytest.fixture
def secrets(tmp_path: Path) -> Secrets:
    """One of each kind."""
    path = tmp_path / "cookies.txt"
    path.write_text("\n".join(line if line[:2] == "# " else line.replace(" ", "\t") for line in COOKIES.splitlines()))
    config = Config.of(
        header=[
            "X-Api-Key: all",
            "User-Agent: us",
            "Accept-Language: de",
            "@a.example X-A: for-a",
            "@b.example X-B: for-b",
            "@a.example:8080 X-Port: for-8080",
        ],
        user=["@a.example me:secret"],
        cookie=["@a.example given=a", "@b.example:443 given=b"],
        cookie_file=[str(path)],
    )
    return Secrets(config.identity)


# What reaches a hop: K X-Api-Key (for all), R the row's X-Row, A X-A, B X-B, P X-Port, U the -u for a.example, I the
# URL's userinfo; the cookies by name.
WAYS = [
    # the listed URL itself
    ("http://a.example/", "http://a.example/", "KRAU", "given alone below"),
    ("https://a.example/", "https://a.example/", "KRAU", "given alone below safe"),
    ("https://a.example/deep/x", "https://a.example/deep/x", "KRAU", "given deep alone below safe"),
    ("http://a.example/deeper", "http://a.example/deeper", "KRAU", "given alone below"),
    ("http://a.example:8080/", "http://a.example:8080/", "KRAPU", "given alone below"),
    ("https://a.example:8080/", "https://a.example:8080/", "KRAPU", "given alone below safe"),
    ("http://www.a.example/", "http://www.a.example/", "KR", "below"),
    ("http://b.example/", "http://b.example/", "KRB", "other"),
    ("https://b.example/", "https://b.example/", "KRB", "given other"),
    ("http://c.example/", "http://c.example/", "KR", ""),
    ("http://A.EXAMPLE./", "http://a.example/", "KRAU", "given alone below"),
    ("http://x:y@c.example/", "http://c.example/", "KRI", ""),
    ("http://x:y@a.example/", "http://a.example/", "KRAI", "given alone below"),
    # another path of the same origin
    ("http://c.example/", "http://c.example/elsewhere", "KR", ""),
    ("http://x:y@c.example/", "http://c.example/elsewhere", "KRI", ""),
    # another host
    ("http://c.example/", "http://a.example/", "AU", "given alone below"),
    ("http://a.example/", "http://c.example/", "", ""),
    ("http://a.example/", "http://b.example/", "B", "other"),
    ("https://a.example/", "https://b.example/", "B", "given other"),
    ("http://x:y@a.example/", "http://b.example/", "B", "other"),
    ("http://a.example/", "http://www.a.example/", "", "below"),
    ("http://www.a.example/", "http://a.example/", "AU", "given alone below"),
    ("http://a.example/", "http://a.example.evil.example/", "", ""),
    ("http://a.example/", "http://evila.example/", "", ""),
    ("http://c.example/", "http://a.example@b.example/", "B", "other"),
    # another port
    ("http://a.example/", "http://a.example:8080/", "APU", "given alone below"),
    ("http://a.example:8080/", "http://a.example/", "AU", "given alone below"),
    ("http://x:y@c.example/", "http://c.example:81/", "", ""),
    # up and down between the schemes
    ("http://a.example/", "https://a.example/", "AU", "given alone below safe"),
    ("https://a.example/", "http://a.example/", "", "alone below"),
    ("https://c.example/", "http://a.example/", "", "alone below"),
    ("https://c.example/", "http://b.example/", "", "other"),
    ("http://c.example/", "https://a.example/", "AU", "given alone below safe"),
    ("https://x:y@c.example/", "http://c.example/", "", ""),
    ("http://x:y@c.example/", "https://c.example/", "", ""),
    ("https://a.example:8080/", "http://a.example:8080/", "", "alone below"),
]


@pytest.mark.parametrize(("first", "hop", "letters", "cookies"), WAYS)
def test_who_gets_what(secrets: Secrets, first: str, hop: str, letters: str, cookies: str) -> None:
    found = headers_of(secrets, first, hop, None, ("X-Row", "row"), ("Accept", "text/html"))
    assert found.pop("User-Agent") == "us"
    assert found.pop("Accept-Language") == "de"
    assert found.pop("Accept") == "text/html"
    expected = {"K": ("X-Api-Key", "all"), "R": ("X-Row", "row"), "A": ("X-A", "for-a"), "B": ("X-B", "for-b")}
    expected |= {"P": ("X-Port", "for-8080"), "U": ("Authorization", basic("me:secret"))}
    expected |= {"I": ("Authorization", basic("x:y"))}
    names = [pair.partition("=")[0] for pair in found.pop("Cookie", "").split("; ") if pair]
    assert found == dict(expected[letter] for letter in letters)
    assert names == cookies.split()


def basic(pair: str) -> str:
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


@pytest.mark.parametrize("first", ["http://a.example/x", "https://a.example/x", "http://u:p@c.example:81/"])
def test_the_origin_gets_its_own_again_when_the_chain_comes_back(secrets: Secrets, first: str) -> None:
    before = headers_of(secrets, first, first, None, ("X-Row", "1"))
    headers_of(secrets, first, "http://evil.example/", None, ("X-Row", "1"))
    assert headers_of(secrets, first, first, None, ("X-Row", "1")) == before


def test_nothing_configured_sends_nothing() -> None:
    target = parse("http://a.example/")
    assert Secrets(Identity()).headers(Request(1, target.wire), target, target) == ()


def test_the_narrower_header_wins() -> None:
    secrets = Secrets(Config.of(header=["X: all", "Y: all", "@a.example x: host"], user="@a.example u:p").identity)
    url = "http://a.example/"
    assert headers_of(secrets, url, url) == {"x": "host", "Y": "all", "Authorization": basic("u:p")}
    found = headers_of(secrets, "http://me:too@a.example/", url, None, ("X", "row"), ("authorization", "Bearer row"))
    assert found == {"X": "row", "Y": "all", "authorization": "Bearer row"}
    assert headers_of(secrets, "http://me:too@a.example/", url)["Authorization"] == basic("me:too")


@pytest.mark.parametrize(
    ("userinfo", "pair"),
    [("u:p", b"u:p"), ("u", b"u:"), (":p", b":p"), ("u%3Ax:p%40", b"u:x:p@"), ("%FF:ä", b"\xff:\xc3\xa4")],
)
def test_userinfo_is_sent_as_the_bytes_it_stands_for(userinfo: str, pair: bytes) -> None:
    url = f"http://{userinfo}@a.example/"
    found = headers_of(Secrets(Identity()), url, url)
    assert base64.b64decode(found["Authorization"].removeprefix("Basic ")) == pair


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("A.Example", "http://a.example/"),
        ("a.example.", "http://a.example/"),
        ("a.example", "http://A.EXAMPLE./"),
        ("müller.example", "http://xn--mller-kva.example/"),
        ("[0:0:0:0:0:0:0:1]", "http://[::1]/"),
        ("127.1", "http://127.0.0.1/"),
    ],
)
def test_a_host_may_be_written_in_any_way(host: str, url: str) -> None:
    for identity in (Config.of(header=f"@{host} X: v").identity, Identity(headers=(Header("X", "v", host),))):
        assert headers_of(Secrets(identity), url, url) == {"X": "v"}


def test_a_header_for_no_host_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"^'a%zz', which a header is for, is no host$"):
        Secrets(Config.of(header="@a%zz X: v").identity)


def test_a_port_is_part_of_whom_a_header_is_for() -> None:
    secrets = Secrets(Config.of(header=["@a.example:443 X: tls", "@a.example:80 Y: plain"]).identity)
    assert headers_of(secrets, "https://a.example/", "https://a.example/") == {"X": "tls"}
    assert headers_of(secrets, "http://a.example/", "http://a.example/") == {"Y": "plain"}
    assert headers_of(secrets, "http://a.example:443/", "http://a.example:443/") == {"X": "tls"}
    assert headers_of(secrets, "http://a.example:81/", "http://a.example:81/") == {}


# The cookies of a chain


def jar_of(url: str, *cookies: str) -> ChainJar:
    jar = ChainJar()
    assert jar.take(parse(url), tuple(("set-cookie", cookie) for cookie in cookies))
    return jar


@pytest.mark.parametrize(
    ("cookie", "origin", "hop", "sent"),
    [
        ("s=1", "http://a.example/", "http://a.example/x", "s=1"),
        ("s=1", "http://a.example/", "http://a.example:81/", "s=1"),  # cookies know no ports (RFC 6265, 8.5)
        ("s=1", "http://a.example/", "https://a.example/", "s=1"),
        ("s=1", "https://a.example/", "http://a.example/", "s=1"),
        ("s=1", "http://a.example/", "http://www.a.example/", None),
        ("s=1", "http://www.a.example/", "http://a.example/", None),
        ("s=1", "http://a.example/", "http://b.example/", None),
        ("s=1", "http://localhost/", "http://localhost/", "s=1"),
        ("s=1", "http://127.0.0.1:81/", "http://127.0.0.1:82/", "s=1"),
        ("s=1", "http://[::1]/", "http://[::1]:9/", "s=1"),
        # Domain
        ("s=1; Domain=a.example", "http://www.a.example/", "http://a.example/", "s=1"),
        ("s=1; domain=.A.Example", "http://www.a.example/", "http://x.y.a.example/", "s=1"),
        ("s=1; Domain=a.example", "http://a.example/", "http://www.a.example/", "s=1"),
        ("s=1; Domain=a.example", "http://www.a.example/", "http://ba.example/", None),
        ("s=1; Domain=b.example", "http://a.example/", "http://b.example/", None),
        ("s=1; Domain=www.a.example", "http://a.example/", "http://www.a.example/", None),
        ("s=1; Domain=xa.example", "http://a.example/", "http://xa.example/", None),
        ("s=1; Domain=example", "http://a.example/", "http://b.example/", None),
        ("s=1; Domain=co.uk", "http://a.co.uk/", "http://b.co.uk/", None),
        ("s=1; Domain=.co.uk", "http://a.co.uk/", "http://a.co.uk/", None),
        ("s=1; Domain=co.uk", "http://co.uk/", "http://co.uk/", "s=1"),
        ("s=1; Domain=co.uk", "http://co.uk/", "http://b.co.uk/", None),
        ("s=1; Domain=github.io", "http://me.github.io/", "http://you.github.io/", None),
        ("s=1; Domain=me.github.io", "http://x.me.github.io/", "http://y.me.github.io/", "s=1"),
        ("s=1; Domain=localhost", "http://localhost/", "http://localhost/", "s=1"),
        ("s=1; Domain=localhost", "http://localhost/", "http://x.localhost/", None),
        ("s=1; Domain=127.0.0.1", "http://127.0.0.1/", "http://127.0.0.1/", "s=1"),
        ("s=1; Domain=0.0.1", "http://127.0.0.1/", "http://9.0.0.1/", None),
        ("s=1; Domain=.0.1", "http://127.0.0.1/", "http://127.0.0.1/", None),
        ("s=1; Domain=müller.example", "http://www.xn--mller-kva.example/", "http://müller.example/", "s=1"),
        ("s=1; Domain=", "http://a.example/", "http://www.a.example/", None),
        ("s=1; Domain=a b", "http://a.example/", "http://a.example/", None),
        ("s=1; Domain=http://a.example", "http://a.example/", "http://a.example/", None),
        # Path
        ("s=1; Path=/x", "http://a.example/", "http://a.example/x", "s=1"),
        ("s=1; Path=/x", "http://a.example/", "http://a.example/x/y?z", "s=1"),
        ("s=1; Path=/x/", "http://a.example/", "http://a.example/x", None),
        ("s=1; Path=/x/", "http://a.example/", "http://a.example/x/y", "s=1"),
        ("s=1; Path=/x", "http://a.example/", "http://a.example/xy", None),
        ("s=1; Path=/x", "http://a.example/", "http://a.example/", None),
        ("s=1; Path=x", "http://a.example/d/e", "http://a.example/d/f", "s=1"),
        ("s=1", "http://a.example/d/e", "http://a.example/d/f", "s=1"),
        ("s=1", "http://a.example/d/e", "http://a.example/", None),
        ("s=1", "http://a.example/d?x=/e/f", "http://a.example/", "s=1"),
        # Secure
        ("s=1; Secure", "https://a.example/", "https://a.example/", "s=1"),
        ("s=1; secure; HttpOnly", "https://a.example/", "http://a.example/", None),
        ("s=1; Secure", "http://a.example/", "https://a.example/", None),
        # an end
        ("s=1; Max-Age=9", "http://a.example/", "http://a.example/", "s=1"),
        ("s=1; Max-Age=0", "http://a.example/", "http://a.example/", None),
        ("s=1; Max-Age=-1", "http://a.example/", "http://a.example/", None),
        ("s=1; Max-Age=soon", "http://a.example/", "http://a.example/", "s=1"),
        ("s=1; Expires=Wed, 21 Oct 2015 07:28:00 GMT", "http://a.example/", "http://a.example/", None),
        ("s=1; Expires=Wed, 21-Oct-2015 07:28:00 GMT", "http://a.example/", "http://a.example/", None),
        ("s=1; Expires=Wed, 21-Oct-15 07:28:00 GMT", "http://a.example/", "http://a.example/", None),
        ("s=1; Expires=Wed, 21 Oct 2015 07:28:00", "http://a.example/", "http://a.example/", None),
        (
            "s=1; Expires=21 10:00:00 2015 oct",
            "http://a.example/",
            "http://a.example/",
            None,
        ),  # parts in any order (5.1.1)
        ("s=1; Expires=Wed, 21 October 15 7:28:0 +0200", "http://a.example/", "http://a.example/", None),
        ("s=1; Expires=Wed, 21 Oct 70 07:28:00", "http://a.example/", "http://a.example/", None),  # 70 to 99 are 19..
        ("s=1; Expires=Wed, 21 Oct 69 07:28:00", "http://a.example/", "http://a.example/", "s=1"),
        ("s=1; Expires=Wed, 21 Oct 2015", "http://a.example/", "http://a.example/", "s=1"),  # no time: no date
        ("s=1; Expires=Wed, 21 Oct 1600 07:28:00", "http://a.example/", "http://a.example/", "s=1"),
        ("s=1; Expires=Wed, 31 Feb 2015 07:28:00", "http://a.example/", "http://a.example/", "s=1"),
        ("s=1; Expires=Fri, 31 Dec 9999 23:59:59 GMT", "http://a.example/", "http://a.example/", "s=1"),
        ("s=1; Expires=0", "http://a.example/", "http://a.example/", "s=1"),
        ("s=1; Expires=Wed, 21 Oct 2015 07:28:00 GMT; Max-Age=9", "http://a.example/", "http://a.example/", "s=1"),
        # what is none, and what is odd
        ("s", "http://a.example/", "http://a.example/", "s"),  # without a name (RFC 6265bis, 5.6, step 3)
        ("=1", "http://a.example/", "http://a.example/", "1"),
        (" = a=b ; Path=/", "http://a.example/", "http://a.example/", "a=b"),
        ("=", "http://a.example/", "http://a.example/", None),
        ("__Secure-s", "https://a.example/", "https://a.example/", None),  # would look like one with a prefix
        ("=__Host-s=1", "https://a.example/", "https://a.example/", None),
        ("", "http://a.example/", "http://a.example/", None),
        ("; Path=/", "http://a.example/", "http://a.example/", None),
        ("s=", "http://a.example/", "http://a.example/", "s="),
        (' s = "1, 2" ; Path=/', "http://a.example/", "http://a.example/", 's="1, 2"'),
        ("s=a=b==", "http://a.example/", "http://a.example/", "s=a=b=="),
        ("s=ö", "http://a.example/", "http://a.example/", "s=ö"),
        ("s=\udcff", "http://a.example/", "http://a.example/", None),
        ("s=\x00", "http://a.example/", "http://a.example/", None),
        ("s=a\x1bb", "http://a.example/", "http://a.example/", None),
        ("s=" + "x" * MAX_COOKIE_BYTES, "http://a.example/", "http://a.example/", None),
        (
            "s=" + "x" * (MAX_COOKIE_BYTES - 2),
            "http://a.example/",
            "http://a.example/",
            "s=" + "x" * (MAX_COOKIE_BYTES - 2),
        ),
    ],
)
def test_a_cookie_goes_back_to_whom_it_names(cookie: str, origin: str, hop: str, sent: str | None) -> None:
    assert jar_of(origin, cookie).header(parse(hop)) == sent


def test_a_cookie_has_at_most_4096_bytes() -> None:
    """RFC 6265, 6.1."""
    for size, sent in ((4_096, True), (4_097, False)):
        jar = jar_of("http://a.example/", "s=" + "x" * (size - 2))
        assert (jar.header(parse("http://a.example/")) is not None) is sent


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("Wed, 21 Oct 2015 07:28:09 GMT", (2015, 10, 21, 7, 28, 9)),
        ("1 Jan 1601 0:0:0", (1601, 1, 1)),
        ("31 dec 1600 23:59:59", None),
        *((f"2 Feb {year:02} 0:0:0", (full, 2, 2)) for year, full in ((0, 2000), (69, 2069), (70, 1970), (99, 1999))),
        *((f"2 Feb {year} 0:0:0", None) for year in (100, 138, 198)),
        ("21 2015 07:28:09", None),
        ("21 Oct 07:28:09", None),
        ("Oct 2015 07:28:09", None),
        ("21 Oct 2015", None),
        ("", None),
    ],
)
def test_dates_are_read_as_browsers_read_them(text: str, when: tuple[int, ...] | None) -> None:
    assert cookie_date(text) == (None if when is None else datetime(*when, tzinfo=UTC))  # type: ignore[misc, arg-type]  # of three or six


def test_a_jar_is_made_again_of_what_it_kept() -> None:
    jar = jar_of("http://a.example/x/y", "a=1; Path=/", "b=2; Domain=a.example", "c=3; Path=/", "d=4; Path=/x/y")
    again = ChainJar.of(jar.kept)
    assert again.kept == jar.kept
    assert [cookie.name for cookie in again.kept] == ["a", "b", "c", "d"]
    target = parse("http://a.example/x/y")
    assert again.header(target) == jar.header(target)
    assert again.take(target, (("set-cookie", "e=5; Path=/"),))
    assert [cookie.name for cookie in again.kept] == ["a", "b", "c", "d", "e"]


def test_whether_a_host_gets_any_cookie_at_all() -> None:
    jar = jar_of("https://a.example/x/y", "own=1; Path=/z; Secure")
    assert [jar.has_any(host) for host in ("a.example", "www.a.example", "b.example")] == [True, False, False]
    jar.take(parse("http://a.example/"), (("set-cookie", "s=1; Domain=a.example"),))
    assert [jar.has_any(host) for host in ("a.example", "www.a.example", "b.example")] == [True, True, False]
    assert not ChainJar().has_any("a.example")


def test_longer_paths_come_first_then_the_older() -> None:
    jar = jar_of("http://a.example/x/y", "a=1; Path=/", "b=2", "c=3; Path=/", "d=4; Path=/x/y")
    assert jar.header(parse("http://a.example/x/y")) == "d=4; b=2; a=1; c=3"


def test_one_that_is_set_anew_keeps_its_age_and_one_that_was_over_does_not() -> None:
    """RFC 6265, 5.3, step 11.3."""
    jar = jar_of("http://www.a.example/", "own=1", "s=1; Domain=a.example", "own=2")
    target = parse("http://www.a.example/")
    assert jar.header(target) == "own=2; s=1"
    jar.take(target, (("set-cookie", "own=; Max-Age=0"), ("set-cookie", "own=3")))
    assert jar.header(target) == "s=1; own=3"


def test_cookies_without_a_name_share_one_place() -> None:
    assert jar_of("http://a.example/", "s", "t=1", "=u").header(parse("http://a.example/")) == "u; t=1"


def test_a_later_cookie_takes_the_place_of_its_namesake_and_may_end_it() -> None:
    jar = jar_of("http://a.example/", "s=1", "t=1", "s=2")
    target = parse("http://a.example/")
    assert jar.header(target) == "s=2; t=1"
    jar.take(target, (("set-cookie", "s=; Max-Age=0"), ("x-other", "t=9")))
    assert jar.header(target) == "t=1"


def test_what_one_host_sets_another_does_not_take_away() -> None:
    jar = jar_of("http://www.a.example/", "s=1; Domain=a.example", "own=1")
    jar.take(parse("http://b.example/"), (("set-cookie", "s=9"), ("set-cookie", "s=; Max-Age=0; Domain=a.example")))
    assert jar.header(parse("http://www.a.example/")) == "s=1; own=1"  # by age, whoever may have them (5.4)
    assert jar.header(parse("http://b.example/")) == "s=9"


def test_an_answer_without_cookies_sets_nothing() -> None:
    jar = ChainJar()
    assert not jar.take(parse("http://a.example/"), (("cookie", "s=1"), ("content-type", "text/html")))
    assert jar.header(parse("http://a.example/")) is None


def test_a_jar_is_bounded() -> None:
    jar = jar_of("http://a.example/", *[f"c{n}=1" for n in range(MAX_COOKIES + 50)])
    assert len(jar.cookies(parse("http://a.example/"))) == MAX_COOKIES


def test_the_cookies_of_a_chain_join_those_that_were_given(secrets: Secrets) -> None:
    jar = jar_of("http://a.example/", "met=1", "alone=new", "given=new")
    found = headers_of(secrets, "http://a.example/", "http://a.example/", jar, ("cookie", "row=1; alone=x"))
    assert found["Cookie"] == "row=1; below=2; met=1; alone=new; given=new"
    assert "Cookie" not in headers_of(secrets, "http://a.example/", "http://c.example/", jar)


ATTRIBUTES = st.sampled_from(["Domain", "Path", "Secure", "Max-Age", "Expires", "HttpOnly", "SameSite", "domain"])
NOISE = st.text(max_size=20) | st.sampled_from(
    ["a.example", ".example", "/", "0", "99999999999999999999", "Wed, 99 Foo"]
)


@given(st.lists(st.tuples(st.text(max_size=20), st.lists(st.tuples(ATTRIBUTES, NOISE), max_size=4)), max_size=5))
def test_whatever_a_server_sets_a_header_can_carry_it(cookies: list[tuple[str, list[tuple[str, str]]]]) -> None:
    lines = [";".join([text, *(f"{name}={value}" for name, value in rest)]) for text, rest in cookies]
    jar, target = ChainJar(), parse("http://www.a.example/x")
    jar.take(target, tuple(("set-cookie", line) for line in lines))
    header = jar.header(target) or ""
    assert not {"\r", "\n", "\x00"} & set(header)
    header.encode()


# The cookies of a file


def write(tmp_path: Path, text: str | bytes) -> str:
    path = tmp_path / "cookies.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def test_a_file_as_curl_and_firefox_write_it(tmp_path: Path) -> None:
    later = int(time.time()) + 1_000
    path = write(
        tmp_path,
        "\ufeff# Netscape HTTP Cookie File\r\n# This file was generated by libcurl! Edit at your own risk.\r\n\r\n"
        f"#HttpOnly_a.example\tFALSE\t/\tTRUE\t{later}\thidden\t1\r\n"
        f".a.example\tTRUE\t/\tFALSE\t{later}.75\twide\t2\r\n"
        "a.example\tFALSE\t/\tFALSE\t1\toldest\t3\r\n"
        "a.example\tFALSE\t/\tFALSE\t1000\told\t3\r\n"
        "a.example\tFALSE\t/\tFALSE\t0\tempty\t\r\n"
        "a.example\tFALSE\t/\tFALSE\t0\tstripped\r\n"
        "a.example\tFALSE\t/\tFALSE\t\tsession\tö\r\n"
        "a.example\tFALSE\t/\tFALSE\t0\t\tnameless\r\n"
        "not a host\tFALSE\t/\tFALSE\t0\tx\ty\r\n"
        "  \r\n",
    )
    jar = CookieFiles((path,))
    assert jar.header(parse("https://a.example/")) == "hidden=1; wide=2; empty=; stripped=; session=ö; nameless"
    assert jar.header(parse("http://x.a.example/")) == "wide=2"


def test_several_files_add_up_and_the_later_wins(tmp_path: Path) -> None:
    line = "a.example\tFALSE\t/\tFALSE\t0\t{}\t{}\n"
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text(line.format("s", 1) + line.format("t", 1))
    two.write_text(line.format("s", 2))
    assert CookieFiles((str(one), str(two))).header(parse("http://a.example/")) == "s=2; t=1"


@pytest.mark.parametrize("text", ["", "# nothing\n", "\n\n"])
def test_a_file_without_cookies_is_one(tmp_path: Path, text: str) -> None:
    assert CookieFiles((write(tmp_path, text),)).header(parse("http://a.example/")) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("s=1", 1),
        ('[{"name": "s"}]', 1),
        ("# Netscape\n\na.example FALSE / FALSE 0 s 1", 3),
        ("a.example\tFALSE\t/\tFALSE\tsoon\ts\t1", 1),
        ("a.example\tFALSE\t/\tFALSE\t0\ts\t1\tmore", 1),
        ("a.example\tFALSE\t/\tFALSE\t0\ts\ta\x01b", 1),
    ],
)
def test_a_file_that_is_none_is_named_with_its_line(tmp_path: Path, text: str, number: int) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        Secrets(Config.of(cookie_file=path).identity)
    assert str(caught.value) == f"cookie: cannot read {path}: line {number} is not of a cookies.txt (Netscape format)"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^cookie: cannot read .*none: No such file or directory$"):
        CookieFiles((str(tmp_path / "none"),))
    with pytest.raises(ConfigError, match=r"^cookie: cannot read .*cookies.txt: not text in UTF-8$"):
        CookieFiles((write(tmp_path, b"\xff"),))


@pytest.mark.parametrize(
    ("url", "row", "options", "bound"),
    [
        ("https://a.example/", (), {}, False),
        ("https://u@a.example/", (), {}, True),
        ("https://:p@a.example/", (), {}, True),
        ("https://a.example/", (("Authorization", "x"),), {}, True),
        ("https://a.example/", (("X-Mine", "x"),), {}, True),
        ("https://a.example/", (("Accept", "x"),), {}, False),
        ("https://a.example/", (), {"header": "@a.example X: y"}, True),
        ("https://a.example/", (), {"header": "@a.example:443 X: y"}, True),
        ("https://a.example/", (), {"header": "@a.example:444 X: y"}, False),
        ("https://a.example/", (), {"header": "@b.example X: y"}, False),
        ("https://a.example/", (), {"header": "X: y"}, False),
        ("https://a.example/", (), {"user": "@a.example u:p"}, True),
    ],
)
def test_what_is_meant_for_one_host_alone(
    url: str, row: tuple[tuple[str, str], ...], options: dict[str, Any], bound: bool
) -> None:
    secrets = Secrets(Config.of(**options).identity)
    assert secrets.bound_to(Request(1, url, row), parse(url)) is bound
