"""The rules of a robots.txt: lines, groups, patterns, escapes, delays, and bounds."""

from __future__ import annotations

import asyncio
import gc
import re
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.config.policies import product_token
from fetcher.middleware import robots_rules
from fetcher.middleware.robots_rules import EVERYTHING, MAX_ROBOTS_BYTES, Rule, Rules, parse_robots


def rules(text: str, token: str = "fetcher") -> Rules:
    return parse_robots(text.encode(), token)


def of_all(*lines: str) -> Rules:
    return rules("\n".join(["User-agent: *", *lines]))


def allows(rules: Rules, path: str) -> bool:
    return rules.denial(path) is None


# Patterns


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("/", "/", True),
        ("/a", "/ab?c", True),
        ("/a", "/A", False),
        ("/a$", "/a", True),
        ("/a$", "/a?", False),
        ("/a$b", "/a$bc", True),
        ("/$", "/", True),
        ("/$", "/a", False),
        ("*", "/", True),
        ("*$", "/a", True),
        ("/*", "/", True),
        ("/*$", "/a", True),
        ("/*.php$", "/a/b.php", True),
        ("/*.php$", "/a.php.php", True),
        ("/*.php$", "/a.php?x=1", False),
        ("/a*b*c", "/a-c-b-c", True),
        ("/a*b*c", "/a-c-b", False),
        ("/a**c", "/abc", True),
        ("/a*a$", "/a", False),
        ("/a*a$", "/aa", True),
        ("*.gif", "/x/y.gif?z", True),
        ("a", "/a", False),
        ("/?q=", "/?q=1", True),
        ("/%2a", "/%2A", True),
        ("/%2A", "/*", False),
        ("/é", "/%C3%A9", True),
        ("/%c3%a9", "/%c3%A9", True),
        ("/%61b", "/ab", True),
        ("/ab", "/%61b", True),
        ("/a%2Fb", "/a/b", False),
        ("/100%", "/100%", True),
        ("/a\x00b", "/a", False),
    ],
)
def test_a_pattern_fits_what_it_should(pattern: str, path: str, fits: bool) -> None:
    assert allows(of_all(f"Disallow: {pattern}"), path) is not fits


@given(st.text("ab*$", max_size=8), st.text("ab$", max_size=8))
def test_patterns_are_what_the_same_regular_expressions_are(pattern: str, path: str) -> None:
    """By the plain reading: ``*`` is anything, a final ``$`` the end, all else itself."""
    anchored = pattern.endswith("$")
    text = ".*".join(map(re.escape, (pattern[:-1] if anchored else pattern).split("*")))
    expected = bool(pattern) and re.match(text + (r"\Z" if anchored else ""), path, re.DOTALL) is not None
    assert (not allows(of_all(f"Disallow: {pattern}"), path)) == expected


@given(
    st.lists(st.tuples(st.booleans(), st.text("ab/*", min_size=1, max_size=7)), max_size=12),
    st.text("ab/", max_size=8),
)
def test_the_longest_rule_decides_and_allow_wins_ties(listed: list[tuple[bool, str]], tail: str) -> None:
    """By trying each rule alone."""
    path = f"/{tail}"
    fitting = [
        (len(pattern), allow) for allow, pattern in listed if Rules([Rule(allow, pattern, 1)]).find(path) is not None
    ]
    expected = max(fitting)[1] if fitting else True
    lines = [f"{'Allow' if allow else 'Disallow'}: {pattern}" for allow, pattern in listed]
    assert allows(of_all(*lines), path) is expected


def test_the_rule_that_decided_is_told_with_its_line() -> None:
    found = rules("# hello\r\nUser-agent: *\r\n\r\nDisallow: /a\rAllow: /a/*.html$ # but\nDisallow: /a\n")
    assert found.find("/a/b") == Rule(allow=False, pattern="/a", line=4)
    rule = found.find("/a/b.html")
    assert rule is not None
    assert (str(rule), rule.line) == ("Allow: /a/*.html$", 5)
    assert found.find("/b") is None
    assert len(found) == 2


@pytest.mark.parametrize(("escapes", "denied"), [(1_000, False), (1_001, True)])
def test_a_path_of_very_many_escapes_is_refused_where_anything_may_be_meant(escapes: int, denied: bool) -> None:
    rules = parse_robots(b"User-agent: *\nDisallow: /*secret\n", "fetcher")
    assert (rules.denial("/" + "%41" * escapes) is not None) is denied


def test_where_rfc_and_reference_differ_over_escapes_less_is_asked_for() -> None:
    assert not allows(of_all("Disallow: /%7Eann"), "/~ann")
    assert not allows(of_all("Disallow: /", "Allow: /%7Eann"), "/~ann")
    assert allows(of_all("Disallow: /", "Allow: /~ann"), "/%7Eann")
    assert allows(of_all("Disallow: /", "Allow: /%7Eann"), "/%7Eann")


# Groups


@pytest.mark.parametrize(
    ("text", "token", "path", "allowed"),
    [
        ("User-agent: a\nUser-agent: fetcher\nDisallow: /x", "fetcher", "/x", False),
        ("User-agent: fetcher\nDisallow: /x\n\nUser-agent: FETCHER/2\nDisallow: /y", "Fetcher", "/x", False),
        ("User-agent: fetcher\nDisallow: /x\n\nUser-agent: FETCHER/2\nDisallow: /y", "Fetcher", "/y", False),
        ("User-agent: *\nDisallow: /\nUser-agent: fetcher\nDisallow:", "fetcher", "/x", True),
        ("User-agent: *\nDisallow: /\nUser-agent: fetcher", "fetcher", "/x", True),
        ("User-agent: fetch\nDisallow: /", "fetcher", "/x", True),
        ("User-agent: fetcherbot\nDisallow: /", "fetcher", "/x", True),
        ("Disallow: /", "fetcher", "/x", True),
        ("User-agent: a\nSitemap: x\nUser-agent: fetcher\nDisallow: /", "a", "/x", False),
        ("User-agent: a\nCrawl-delay: 9\nUser-agent: fetcher\nDisallow: /", "a", "/x", False),
        ("User-agent:*\nDisallow:/x", "fetcher", "/x", False),
        ("User-agent : *\nDisallow : /x", "fetcher", "/x", False),
        ("user-agent *\ndisallow /x", "fetcher", "/x", False),
        ("User-agent: *\nDisalow: /x", "fetcher", "/x", False),
        ("User-agents: *\nDisallowed: /x", "fetcher", "/x", False),  # a longer name is taken for its start
        ("User-agent: *\nXDisallow: /x", "fetcher", "/x", True),
        ("User-agent: * bots\nDisallow: /x", "fetcher", "/x", False),
        ("User-agent: *bots\nDisallow: /x", "fetcher", "/x", True),
        ("User-agent: *\nDisallow: /x", "", "/x", False),
        ("<html><body>User-agent: *\nDisallow: /</body></html>", "fetcher", "/x", True),
    ],
)
def test_the_lines_for_us_are_found(text: str, token: str, path: str, allowed: bool) -> None:
    assert allows(rules(text, token), path) is allowed


def test_a_file_without_a_word_for_us_is_the_one_that_allows_everything() -> None:
    assert rules("") is EVERYTHING
    assert rules("User-agent: other\nDisallow: /") is EVERYTHING
    assert rules("User-agent: *\nDisallow:\n") is EVERYTHING


@given(st.binary(max_size=200))
def test_nothing_is_an_error(body: bytes) -> None:
    assert allows(parse_robots(body, "fetcher"), "/x") in (True, False)


# Bytes


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\r"])
def test_every_kind_of_line_end(end: str) -> None:
    assert not allows(rules(end.join(["User-agent: *", "Disallow: /x", "Allow: /y"])), "/x")


def test_a_line_separator_of_unicode_ends_no_line() -> None:
    assert rules("User-agent: other\u2028User-agent: *\nDisallow: /") is EVERYTHING
    assert rules("User-agent: other\x0bUser-agent: *\nDisallow: /") is EVERYTHING
    assert parse_robots(b"User-agent: other\x85User-agent: *\nDisallow: /", "fetcher") is EVERYTHING


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_marks_of_byte_order(codec: str) -> None:
    mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(codec, b"")
    body = mark + "User-agent: *\nDisallow: /żółć\n".encode(codec)
    assert not allows(parse_robots(body, "fetcher"), "/%C5%BC%C3%B3%C5%82%C4%87")


def test_a_line_counts_up_to_16_664_bytes() -> None:
    """As the reference parser has it."""
    (rule,) = [of_all("Disallow: /" + "a" * 20_000).find("/" + "a" * 20_000)]
    assert rule is not None
    assert len("Disallow: ") + len(rule.pattern) == 16_664


def test_one_mark_is_taken_away_and_not_two() -> None:
    body = b"User-agent: *\nDisallow: /\n"
    for mark in (b"\xef\xbb\xbf", b"\xef\xbb", b"\xef"):
        assert not allows(parse_robots(mark + body, "fetcher"), "/x")
    for mark in (b"\xef\xbb\xbf\xef\xbb", b"\xef\xbb\xbf\xef", b"\xef\xbb\xef"):
        assert allows(parse_robots(mark + body, "fetcher"), "/x")  # it is no User-agent line, and so none is ours


def test_bytes_that_are_no_utf_8_stand_for_themselves() -> None:
    assert not allows(parse_robots(b"User-agent: *\nDisallow: /caf\xe9\n", "fetcher"), "/caf%E9")


def test_500_kib_count_and_a_torn_line_does_not() -> None:
    head = b"User-agent: *\nDisallow: /first\n"
    last = b"Disallow: /last\n"
    filler = b"#" * (MAX_ROBOTS_BYTES - len(head) - len(last) - 1) + b"\n"
    whole = head + filler + last
    assert len(whole) == MAX_ROBOTS_BYTES == 512_000  # RFC 9309, 2.5
    assert not allows(parse_robots(whole, "fetcher"), "/last")
    assert not allows(parse_robots(whole + b"Disallow: /beyond\n", "fetcher"), "/last")
    assert allows(parse_robots(whole + b"Disallow: /beyond\n", "fetcher"), "/beyond")
    unended = head + b"\n" + filler + last[:-1]
    assert len(unended) == MAX_ROBOTS_BYTES
    assert not allows(parse_robots(unended, "fetcher"), "/last")
    assert allows(parse_robots(unended + b"/more\n", "fetcher"), "/last")  # which is cut, and so no rule
    cut = parse_robots(head + b"Allow: /first/not\nAllow: /fi", "fetcher", truncated=True)
    assert not allows(cut, "/first/no") and allows(cut, "/first/not")  # the line before it is whole
    torn = parse_robots(b"#" + whole, "fetcher")
    assert allows(torn, "/last") and allows(torn, "/las") and allows(torn, "/")
    assert allows(parse_robots(head + b"Disallow: /", "fetcher", truncated=True), "/x")
    assert not allows(parse_robots(head + b"Disallow: /", "fetcher"), "/x")


# Delays


@pytest.mark.parametrize(
    ("lines", "delay"),
    [
        ("Crawl-delay: 10", 10.0),
        ("crawl-delay:0.5", 0.5),
        ("Crawl-delay: .25 # s", 0.25),
        ("Crawl-delay: 3s", 3.0),
        ("Crawl-delay: soon", 0.0),
        ("Crawl-delay: -1", 0.0),
        ("Crawl-delay: nan", 0.0),
        ("Request-rate: 1/5", 5.0),
        ("Request-rate: 1/5s", 5.0),
        ("Request-rate: 10/1m", 6.0),
        ("Request-rate: 1/1h 0600-0845", 3600.0),
        ("Request-rate: 24/1D", 3600.0),
        ("Request-rate: 2 / 1", 0.5),
        ("Request-rate: 0/5", 0.0),
        ("Request-rate: fast", 0.0),
        ("Crawl-delay: 2\nRequest-rate: 1/5", 5.0),
        ("Crawl-delay: 2\n\nUser-agent: other\nCrawl-delay: 50", 2.0),
        ("Crawl-delay: 2\n\nUser-agent: fetcher\nCrawl-delay: 1", 1.0),
        ("Crawl-delay: 2\n\nUser-agent: fetcher\nDisallow: /x", 0.0),
    ],
)
def test_delays(lines: str, delay: float) -> None:
    assert of_all(*lines.split("\n")).delay == delay


def test_without_rules_there_is_no_delay() -> None:
    assert Rules([]).delay == 0.0


# Our name


@pytest.mark.parametrize(
    ("agent", "token"),
    [
        ("fetcher/1.0 (+https://example.org/)", "fetcher"),
        ("Some-Bot_x/2", "Some-Bot_x"),
        ("Mozilla/5.0 (compatible; SomeBot/2.1; +http://example.org)", "SomeBot"),
        ("Mozilla/5.0 (X11; Linux)", "Mozilla"),
        ("bot42", "bot"),
        ("42", ""),
    ],
)
def test_the_product_token(agent: str, token: str) -> None:
    assert product_token(agent) == token


# Bounds


async def test_hostile_patterns_end() -> None:
    """A regular expression would try for years."""
    async with asyncio.timeout(60):
        found = of_all(f"Disallow: /{'a*' * 2_000}b", "Disallow: /x")
        assert allows(found, "/" + "a" * 60_000)
        assert not allows(found, "/" + "a" * 60_000 + "b")


def test_what_costs_too_much_to_search_is_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    found = of_all("Disallow: /*x", "Allow: /*yy", "Allow: /fine", "Disallow: /fine/not")
    assert allows(found, "/aaaa") and allows(found, "/fine")
    monkeypatch.setattr(robots_rules, "MAX_COMPARED_CHARACTERS", 10)
    rule = found.find("/aaaa")
    assert rule == Rule(allow=False, pattern="/*x", line=2)
    assert not allows(found, "/fine/not")


AS = "a" * 50  # of which none stands in a pattern


@pytest.mark.parametrize(
    ("rules", "path", "cost", "decides"),
    [
        # 40 for the pattern, and where its last character stands: the path, and the needle wherever that stands
        (["Disallow: /*needle-x"], f"/{AS}{AS}", 40, None),
        (["Disallow: /*needle-x"], f"/{AS}x{AS}x", 40 + 104 + 2 * 8, None),
        (["Disallow: /*needle-x", "Disallow: /*n-y"], f"/{AS}x{AS}y", 2 * (40 + 104) + 8 + 3, None),
        # and where it is there, each part of its pattern
        (["Allow: /q*needle-x", "Disallow: /*zz"], f"/{AS}needle-x", 40 + 60 + 8 + 40 + 40 + 8 + 40, None),
        (["Allow: /*needle-x", "Disallow: /*zz"], f"/{AS}needle-x", 40 + 60 + 8 + 40 + 1 + 40 + 8, 1),
        (["Disallow: /*zz", "Allow: /*needle-x*more"], f"/{AS}needle-x-more", 40 + 65 + 8 + 40 + 1 + 40 + 8 + 40 + 4 * 4, 2),
        # but only what is more specific than what is known already
        (["Disallow: /*zz", f"Allow: /{AS}", f"Allow: /*{AS}b"], f"/{AS}", 40, 2),
    ],
)  # fmt: skip
def test_a_search_that_can_be_afforded_decides_as_any_and_one_step_less_forbids(
    rules: list[str], path: str, cost: int, decides: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = of_all(*rules)
    expected = found.find(path)
    assert (expected.line - 1 if expected is not None else None) == decides
    assert expected is None or expected.allow
    monkeypatch.setattr(robots_rules, "MAX_COMPARED_CHARACTERS", cost)
    assert found.find(path) == expected
    monkeypatch.setattr(robots_rules, "MAX_COMPARED_CHARACTERS", cost - 1)
    assert not allows(found, path)


@pytest.mark.parametrize(
    "line",
    ["Disallow: /same{:06}", "Disallow: /{:03x}/page", "Disallow: /*{}.html$", "Disallow: /{}*and*so*on", "Disallow: /*{:0500}"],
    ids=["literals", "beginnings", "wildcards", "parts", "texts"],
)  # fmt: skip
def test_what_rules_are_said_to_take_is_about_what_they_take(line: str) -> None:
    body = "\n".join(["User-agent: *", *(line.format(n) for n in range(800))]).encode()
    parse_robots(body, "fetcher")
    gc.collect()
    tracemalloc.start()
    try:
        found = parse_robots(body, "fetcher")
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken / 2.5 < found.size < taken * 2.5


def test_many_rules_take_few_bytes() -> None:
    lines = [f"Disallow: /section-{n}/*.html$" if n % 5 == 0 else f"Disallow: /section-{n}/" for n in range(100)]
    assert of_all(*lines).size < 16_000
    assert len(of_all(*(["Disallow: /x"] * 1_000))) == 1
