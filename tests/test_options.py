"""What a user may type for each kind of setting, and in which words the rest is refused."""

from __future__ import annotations

import base64
import datetime as dt
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.config.options import (
    Header,
    bypasses,
    flag,
    number_from,
    one_of,
    optional_seconds,
    optional_text,
    parse_bypass,
    parse_cookies,
    parse_headers,
    parse_max_failed,
    parse_proxy,
    parse_rate,
    parse_seconds,
    parse_shard,
    parse_size,
    parse_statuses,
    parse_user_agent,
    parse_users,
    positive_seconds,
    split_proxy,
    texts,
)
from fetcher.errors import ConfigError

Reader = Callable[[Any], Any]

WHOLE = number_from(1, whole=True)
LIMIT = number_from(0, whole=True, optional=True)
NUMBER = number_from(0.5)


def refusal(reader: Reader, value: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        reader(value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("reader", "value", "expected"),
    [
        (WHOLE, 1, 1), (WHOLE, "7", 7), (WHOLE, " 7 ", 7), (WHOLE, "1_000", 1000), (WHOLE, 3.0, 3),
        (WHOLE, 10**15, 10**15),
        (LIMIT, None, None), (LIMIT, "none", None), (LIMIT, "", None), (LIMIT, 0, 0), (LIMIT, "5", 5),
        (NUMBER, 0.5, 0.5), (NUMBER, "1e3", 1000.0), (NUMBER, 2, 2.0),
        (parse_seconds, 0, 0.0), (parse_seconds, 1.5, 1.5), (parse_seconds, "90", 90.0), (parse_seconds, "500ms", 0.5),
        (parse_seconds, "2m", 120.0), (parse_seconds, "1h", 3600.0), (parse_seconds, "7d", 604_800.0), (parse_seconds, "1.5 h", 5400.0),
        (parse_seconds, " .5s ", 0.5), (parse_seconds, "1.", 1.0), (parse_seconds, "1e2", 100.0),
        (positive_seconds, "1ms", 0.001), (positive_seconds, 3, 3.0),
        (optional_seconds, None, None), (optional_seconds, "", None), (optional_seconds, "none", None),
        (optional_seconds, "2m", 120.0),
        (parse_size, 1000, 1000), (parse_size, "1000", 1000), (parse_size, "64K", 65536), (parse_size, "10M", 10485760),
        (parse_size, "1GiB", 2**30), (parse_size, "1 gb", 2**30), (parse_size, "1.5k", 1536), (parse_size, "7b", 7),
        (parse_size, 2048.0, 2048),
        (parse_rate, None, None), (parse_rate, "none", None), (parse_rate, "", None), (parse_rate, 5, 5.0),
        (parse_rate, "5/s", 5.0), (parse_rate, "30/m", 0.5), (parse_rate, "30 / min", 0.5), (parse_rate, "36/h", 0.01),
        (parse_rate, "0.5", 0.5), (parse_rate, "5/S", 5.0),
        (parse_statuses, "200", ((200, 200),)), (parse_statuses, 404, ((404, 404),)), (parse_statuses, "2xx", ((200, 299),)),
        (parse_statuses, "200-299, 304", ((200, 299), (304, 304))), (parse_statuses, [200, "4XX"], ((200, 200), (400, 499))),
        (parse_statuses, ("100-599",), ((100, 599),)),
        (texts, "one", ["one"]), (texts, ["a", "b"], ["a", "b"]), (texts, (), []),
        (flag, True, True), (flag, False, False),
        (one_of("a", "b"), "b", "b"),
        (optional_text, "x", "x"), (optional_text, "", None), (optional_text, None, None),
        (optional_text, Path("a", "b"), os.path.join("a", "b")),
        (parse_user_agent, " shop/1.0 (+https://a.example) ", "shop/1.0 (+https://a.example)"),
        (parse_proxy, None, None), (parse_proxy, "", None), (parse_proxy, "p.example:3128", "http://p.example:3128"),
        (parse_proxy, "http://u:p@p.example:3128/", "http://u:p@p.example:3128"),
        (parse_proxy, "HTTPS://[::1]:1", "HTTPS://[::1]:1"), (parse_proxy, "http://p.example", "http://p.example"),
        (parse_proxy, "http://u:p@ss@p.example:1", "http://u:p@ss@p.example:1"),
        (parse_bypass, "a.example, b.example  c", ("a.example", "b.example", "c")), (parse_bypass, ["a,b", "c"], ("a", "b", "c")),
        (parse_max_failed, None, None), (parse_max_failed, "", None), (parse_max_failed, 10, "10"),
        (parse_max_failed, 0, "0"), (parse_max_failed, "5%", "5%"), (parse_max_failed, "0.5%", "0.5%"),
    ],
)  # fmt: skip
def test_what_is_taken(reader: Reader, value: Any, expected: Any) -> None:
    assert reader(value) == expected
    assert type(reader(value)) is type(expected)


SIZE = "must be a size, such as 500K or 10M"
TIME = "must be a time, such as 30, 500ms or 2m"
RATE = "must be a rate, such as 5/s or 100/m"
CODES = "must be a status code, range or class, such as 200-299,304 or 2xx"
PROXY = "must be an http:// or https:// proxy URL"
SHARE = "must be a number or a percentage, such as 10 or 5%"
LIST = "must be a text or a list of texts"


@pytest.mark.parametrize(
    ("reader", "value", "message"),
    [
        (WHOLE, 0, "0: must be at least 1"), (WHOLE, "-3", "-3: must be at least 1"), (WHOLE, "many", "many: must be a whole number"),
        (WHOLE, "1e3", "1e3: must be a whole number"), (WHOLE, 2.5, "2.5: must be a whole number"),
        (WHOLE, "", "'': must be a whole number"), (WHOLE, None, "None: must be a whole number"),
        (WHOLE, True, "true: must be a whole number"), (WHOLE, [1], "[1]: must be a whole number"),
        (WHOLE, math.inf, "inf: must be a number that is finite"), (WHOLE, math.nan, "nan: must be a number that is finite"),
        (WHOLE, 10**400, f"1{'0' * 79}…: must be at most 1e+15"), (WHOLE, 10**15 + 1, "1000000000000001: must be at most 1e+15"),
        (NUMBER, "nan", "nan: must be a number that is finite"), (NUMBER, "inf", "inf: must be a number that is finite"), (NUMBER, 0.4, "0.4: must be at least 0.5"),
        (NUMBER, 10**400, f"1{'0' * 79}…: must be a number"), (NUMBER, "x", "x: must be a number"),
        (LIMIT, -1, "-1: must be at least 0"), (LIMIT, "None", "None: must be a whole number"),
        (parse_seconds, "soon", f"soon: {TIME}"), (parse_seconds, "", f"'': {TIME}"), (parse_seconds, "1w", f"1w: {TIME}"),
        (parse_seconds, "5M", f"5M: {TIME}"), (parse_seconds, "nan", f"nan: {TIME}"), (parse_seconds, ".s", f".s: {TIME}"),
        (parse_seconds, "1.2.3", "1.2.3: must be a number"), (parse_seconds, "-1", "-1: must be at least 0"),
        (parse_seconds, None, "None: must be a number"), (parse_seconds, True, "true: must be a number"),
        (parse_seconds, dt.time(1), "datetime.time(1, 0): must be a number"),
        (positive_seconds, 0, "0: must be more than 0 seconds"), (positive_seconds, "0ms", "0ms: must be more than 0 seconds"),
        (optional_seconds, 0, "0: must be more than 0 seconds"), (optional_seconds, [1], "[1]: must be a number"),
        (parse_size, "big", f"big: {SIZE}"), (parse_size, "", f"'': {SIZE}"), (parse_size, "-1", f"-1: {SIZE}"),
        (parse_size, "1T", f"1T: {SIZE}"), (parse_size, "M", f"M: {SIZE}"), (parse_size, 0, "0: must be at least 1"),
        (parse_size, "0", "0: must be at least 1"), (parse_size, 1.5, "1.5: must be a whole number"), (parse_size, None, "None: must be a whole number"),
        (parse_size, True, "true: must be a whole number"), (parse_size, "9" * 400 + "G", "inf: must be a number that is finite"),
        (parse_rate, 0, "0: must be more than 0, for that would fetch nothing"), (parse_rate, "0/m", "0/m: must be more than 0, for that would fetch nothing"),
        (parse_rate, "5/d", f"5/d: {RATE}"), (parse_rate, "5/s/s", f"5/s/s: {RATE}"), (parse_rate, "fast", "fast: must be a number"),
        (parse_rate, "/s", "'': must be a number"), (parse_rate, "-1/s", "-1: must be at least 0"), (parse_rate, True, "true: must be a number"),
        (parse_rate, math.inf, "inf: must be a number that is finite"),
        (parse_statuses, "", f"'': {CODES}"), (parse_statuses, "200,", f"'': {CODES}"), (parse_statuses, "all", f"all: {CODES}"),
        (parse_statuses, "20", f"20: {CODES}"), (parse_statuses, "0xx", f"0xx: {CODES}"), (parse_statuses, "10xx", f"10xx: {CODES}"), (parse_statuses, "1000", f"1000: {CODES}"), (parse_statuses, True, f"True: {CODES}"),
        (parse_statuses, "299-200", "299-200: must be a range of status codes, from 100 to 999, the lower one first"), (parse_statuses, "099", "099: must be a range of status codes, from 100 to 999, the lower one first"),
        (parse_statuses, "000-200", "000-200: must be a range of status codes, from 100 to 999, the lower one first"),
        (parse_statuses, [], "[]: must be a status code at least, such as 200-299"), (parse_statuses, [[]], "[]: must be a status code at least, such as 200-299"),
        (parse_statuses, None, f"None: {CODES}"), (parse_statuses, "٢٠٠", f"٢٠٠: {CODES}"),
        (texts, 5, f"5: {LIST}"), (texts, [1], f"[1]: {LIST}"), (texts, None, f"None: {LIST}"), (texts, {"a": 1}, f"{{…}}: {LIST}"),
        (texts, b"x", f"'…': {LIST}"),
        (flag, "yes", "yes: must be true or false"), (flag, 1, "1: must be true or false"), (flag, None, "None: must be true or false"),
        (one_of("a", "b"), "c", "c: must be one of a, b"), (one_of("a", "b"), [], "[]: must be one of a, b"),
        (optional_text, 5, "5: must be a text"), (optional_text, True, "true: must be a text"), (optional_text, ["x"], "['x']: must be a text"),
        (parse_user_agent, "", "an empty User-Agent says nothing: leave the option out for the default"),
        (parse_user_agent, " ", "an empty User-Agent says nothing: leave the option out for the default"),
        (parse_user_agent, "a\r\nX: b", "the value of User-Agent has a control character"),
        (parse_user_agent, "a\udcff", "the value of User-Agent is not text in UTF-8"), (parse_user_agent, ["a"], "['a']: must be a text"),
        (parse_proxy, "ftp://p.example", f"ftp://p.example: {PROXY}"), (parse_proxy, "http://", f"http://: {PROXY}"),
        (parse_proxy, "http://p.example/x", f"http://p.example/x: {PROXY}"), (parse_proxy, "p q", f"'http://p q': {PROXY}"),
        (parse_proxy, "http://p.example:99999", f"http://p.example:99999: {PROXY}"), (parse_proxy, "p:0", f"http://p:0: {PROXY}"),
        (parse_proxy, "p:x", f"http://p:x: {PROXY}"), (parse_proxy, 3128, "3128: must be a text"),
        (parse_proxy, "socks5://p.example:1", f"socks5://p.example:1: {PROXY}: socks needs an HTTP proxy in front of it"),
        (parse_proxy, "http://me:secret@p.example/x", f"http://…@p.example/x: {PROXY}"),
        (parse_proxy, "http://me:sec/ret@p.example", f"http://…@p.example: {PROXY}"),
        (parse_bypass, 5, f"5: {LIST}"), (parse_bypass, [1], f"[1]: {LIST}"),
        (parse_max_failed, "some", f"some: {SHARE}"), (parse_max_failed, -1, f"-1: {SHARE}"), (parse_max_failed, "1.5", f"1.5: {SHARE}"),
        (parse_max_failed, 1.5, "1.5: must be a text"), (parse_max_failed, True, "true: must be a text"), (parse_max_failed, "٣", f"٣: {SHARE}"),
    ],
)  # fmt: skip
def test_what_is_refused_and_in_which_words(reader: Reader, value: Any, message: str) -> None:
    assert refusal(reader, value) == message


# Headers and secrets


def test_headers_are_for_all_or_for_one_host() -> None:
    assert parse_headers("X-Team: crawl") == (Header("X-Team", "crawl"),)
    assert parse_headers(["X-A:1", "@Api.Example Authorization: Bearer t", "@[::1]:8080 X-B:  a:b "]) == (
        Header("X-A", "1"),
        Header("Authorization", "Bearer t", "api.example"),
        Header("X-B", "a:b", "[::1]", 8080),
    )
    assert parse_headers("X-Empty:") == (Header("X-Empty", ""),)
    assert parse_headers("X-Tab: a\tb ö") == (Header("X-Tab", "a\tb ö"),)
    given = Header("X", "v", "a.example", 81)
    assert parse_headers((given,)) == parse_headers(given) == (given,)


def test_credentials_become_basic() -> None:
    token = base64.b64encode("me:pä:ss".encode()).decode()
    assert parse_users("@a.example me:pä:ss") == (Header("Authorization", f"Basic {token}", "a.example"),)
    assert parse_users(["@a.example:81 :"])[0].value == "Basic Og=="


def test_cookies_name_their_host() -> None:
    assert parse_cookies(["@a.example:81 s=1; t=2"]) == (Header("Cookie", "s=1; t=2", "a.example", 81),)


VALUED = "must be followed by a value, such as '@example.com Name: value'"


@pytest.mark.parametrize(
    ("reader", "value", "message"),
    [
        (parse_headers, "X-Team", "X-Team: must be 'Name: value'"),
        (parse_headers, ": v", "': v': must be 'Name: value'"),
        (parse_headers, "X Team: v", "'X Team: v': must be 'Name: value'"),
        (parse_headers, "Xö: v", "'Xö: v': must be 'Name: value'"),
        (parse_headers, 5, "5: must be 'Name: value'"),
        (parse_headers, [None], "None: must be 'Name: value'"),
        (parse_headers, {"X": "v"}, "{…}: must be 'Name: value'"),
        (parse_headers, [["X: secret"], 1], "['…']: must be 'Name: value'"),
        (parse_headers, "@a.example X secret", "'…': must be 'Name: value', which is for a.example"),
        (parse_headers, "@a.example X Y: secret", "'…': must be 'Name: value', which is for a.example"),
        (parse_headers, "Authorization Bearer secret", "'Authorization…': must be 'Name: value'"),
        (parse_headers, "@a.example:me:secret", f"'@…': {VALUED}"),
        (parse_headers, "@a.example:81", f"@a.example:81: {VALUED}"),
        (parse_users, "@me:secret", f"'@…': {VALUED}"),
        (parse_users, ["@a.example me:secret", 5], f"['…', 5]: {LIST}"),
        (parse_cookies, {"a.example": "s=secret"}, f"{{…}}: {LIST}"),
        (parse_headers, "X: a\nb", "the value of X has a control character"),
        (parse_headers, "X: a\x00b", "the value of X has a control character"),
        (parse_headers, "X: \x7f", "the value of X has a control character"),
        (parse_headers, "X: \udcff", "the value of X is not text in UTF-8"),
        (parse_headers, Header("X\r\nY", "v"), "'X\\r\\nY: v': must be 'Name: value'"),
        (parse_headers, Header("X", "v\r\nY: w"), "the value of X has a control character"),
        (
            parse_headers,
            "authorization: Bearer t",
            "authorization is a secret and must name its host: '@HOST authorization: …'",
        ),
        (parse_headers, Header("Cookie", "s=1"), "Cookie is a secret and must name its host: '@HOST Cookie: …'"),
        (parse_headers, "@a.example", f"@a.example: {VALUED}"),
        (parse_headers, "@a.example/x X: v", f"'@…': {VALUED}"),
        (parse_headers, "@a.example:99999 X: v", "99999 is no port"),
        (parse_headers, "@a.example:0 X: v", "0 is no port"),
        (parse_headers, "@ X: v", f"@: {VALUED}"),
        (parse_users, "me:secret", "a password must name its host: '@HOST USER:PASSWORD'"),
        (parse_users, "@a.example me", "the credentials for a.example are not USER:PASSWORD"),
        (parse_users, 5, f"5: {LIST}"),
        (parse_cookies, "s=1", "a cookie must name its host: '@HOST name=value' (or give a cookies.txt)"),
        (parse_cookies, "@a.example s", "the cookie for a.example is not 'name=value'"),
        (parse_cookies, "@a.example s=\x01", "the value of Cookie has a control character"),
        (parse_cookies, [1], f"[1]: {LIST}"),
    ],
)
def test_headers_that_are_none(reader: Reader, value: Any, message: str) -> None:
    assert refusal(reader, value) == message


# Hosts without a proxy


@pytest.mark.parametrize(
    ("rule", "host", "port", "expected"),
    [
        ("*", "a.example", 80, True),
        ("a.example", "a.example", 80, True),
        ("A.Example", "a.example", 80, True),
        ("a.example", "www.a.example", 80, True),
        (".a.example", "www.a.example", 80, True),
        ("*.a.example", "www.a.example", 80, True),
        (".a.example", "a.example", 80, True),
        ("a.example", "ba.example", 80, False),
        ("a.example", "a.example.b", 80, False),
        ("a.example:81", "a.example", 81, True),
        ("a.example:81", "a.example", 80, False),
        ("10.0.0.0/8", "10.1.2.3", 80, True),
        ("10.0.0.0/8", "11.1.2.3", 80, False),
        ("10.0.0.0/8", "a.example", 80, False),
        ("127.0.0.1", "127.0.0.1", 80, True),
        ("127.0.0.1:81", "127.0.0.1", 81, True),
        ("127.0.0.1:81", "127.0.0.1", 82, False),
        ("::1", "[::1]", 80, True),
        ("[::1]", "[::1]", 80, True),
        ("[::1]:81", "[::1]", 81, True),
        ("fd00::/8", "[fd00::5]", 80, True),
        ("fd00::/8", "10.0.0.1", 80, False),
        ("", "a.example", 80, False),
        (".", "a.example", 80, False),
    ],
)
def test_a_host_that_needs_no_proxy(rule: str, host: str, port: int, expected: bool) -> None:
    assert bypasses(rule, host, port) is expected


READERS: list[Reader] = [
    WHOLE, LIMIT, NUMBER, parse_seconds, positive_seconds, optional_seconds, parse_size, parse_rate, parse_statuses, texts,
    flag, one_of("a"), optional_text, parse_user_agent, parse_proxy, parse_bypass, parse_max_failed, parse_shard, parse_headers,
    parse_users, parse_cookies,
]  # fmt: skip
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=4) | st.datetimes()
    | st.from_regex(r"@?[a-z.]{0,3}[0-9]{0,400}[kmgs%/: =.-]{0,3}[a-z0-9:=]{0,3}", fullmatch=True)
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2)
)


@given(st.sampled_from(READERS), VALUES)
def test_nothing_but_config_error_is_ever_raised(reader: Reader, value: Any) -> None:
    try:
        reader(value)
    except ConfigError as error:
        assert str(error)


def test_the_secret_of_a_proxy_is_bytes() -> None:
    """aiohttp would encode it as Latin-1, and end the run where it cannot."""
    assert split_proxy("http://p.example:3128") == ("http://p.example:3128", None)
    bare, secret = split_proxy("http://m%C3%BCller:geheim%E2%82%AC@p.example:3128")
    assert bare == "http://p.example:3128"
    assert secret is not None
    assert base64.b64decode(secret.removeprefix("Basic ")).decode() == "müller:geheim€"
    assert split_proxy("http://u:p@x@p.example") == ("http://p.example", "Basic " + base64.b64encode(b"u:p@x").decode())
