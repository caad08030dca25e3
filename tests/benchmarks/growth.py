"""Owns how the time of each parser of outside bytes grows: ``python -m tests.benchmarks.growth [NAME]...``.

Each gets a hostile text of half the size that it is let in with, and of all of it; the ratio of the two times, best of
five, is at most ``MOST``, where the whole takes longer than a millisecond. Twice is linear.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import NamedTuple

from fetcher.charset import detect, read_media_type
from fetcher.middleware.accept import retry_after, wished_wait
from fetcher.middleware.cookies import ChainJar, cookie_date
from fetcher.middleware.robots_rules import parse_robots
from fetcher.model import Request, Response
from fetcher.page.convert import convert
from fetcher.page.denial import denied_by
from fetcher.page.select import Selection
from fetcher.page.url_attributes import PageURLs
from fetcher.page.xml_tree import xml_tree
from fetcher.refresh import refresh_of
from fetcher.sources.rows import read_url
from fetcher.urls import hide_userinfo, parse, resolve
from tests.benchmarks.figures import Figure, at_most

__all__ = ["CASES", "Case", "growths"]

MOST = 2.5
ROUNDS = 5
SHORT_SECONDS = 0.001
HEADER = 64 * 1024  # all headers of an answer together
LINE = 64 * 1024  # of a list


class Case(NamedTuple):
    """A parser, what makes a hostile text of about so many bytes, and how many it is let in with."""

    read: Callable[[str], object]
    make: Callable[[int], str]
    limit: int


def _response(name: str, value: str, status: int = 200) -> Response:
    return Response(Request(1, "http://h.example/"), "http://h.example/", status, ((name, value),))


def _cookie(text: str) -> object:
    return ChainJar().take(parse("http://h.example/a/b"), (("set-cookie", text),))


def _csv(text: str) -> object:
    from fetcher.sources.csv_format import read_csv
    from fetcher.sources.inputs import DEFAULT_OPTIONS
    from fetcher.sources.lines import ListEncoding

    encoding = ListEncoding("x", None)
    blocks: Iterator[bytes] = iter([text.encode()])
    return list(read_csv(blocks, name="x", numbers=count(1), options=DEFAULT_OPTIONS, encoding=encoding, kind="csv"))


def _repeated(unit: str, before: str = "", after: str = "") -> Callable[[int], str]:
    return lambda size: before + unit * max(1, size // len(unit)) + after


CASES: dict[str, Case] = {
    "robots.txt, rules": Case(
        lambda text: parse_robots(text.encode(), "us"), _repeated("Disallow: /*a*a*a$\n", "User-agent: *\n"), 500_000
    ),
    "robots.txt, groups": Case(
        lambda text: parse_robots(text.encode(), "us"), _repeated("User-agent: b\nDisallow: /\n"), 500_000
    ),
    "robots.txt, one line": Case(
        lambda text: parse_robots(text.encode(), "us"), _repeated("*", "Disallow: /"), 500_000
    ),
    "Set-Cookie": Case(_cookie, _repeated("; a=b", "n=v"), HEADER),
    "cookie date": Case(cookie_date, _repeated("1:2 "), HEADER),
    "Content-Type, parameters": Case(read_media_type, _repeated('; a="\\"b"', "text/html"), HEADER),
    "Content-Type, values": Case(read_media_type, _repeated("text/html, ", ""), HEADER),
    "Retry-After": Case(lambda text: retry_after(text, 0.0), _repeated("1 "), HEADER),
    "RateLimit": Case(
        lambda text: wished_wait(_response("ratelimit", text, 429), 0.0), _repeated('"a";r=0;t=1,'), HEADER
    ),
    "Refresh": Case(lambda text: refresh_of(_response("refresh", text)), _repeated(" ", "0; url='", "x"), HEADER),
    "words to robots": Case(lambda text: denied_by(text, {"noai"}, "us"), _repeated("a: b, "), HEADER),
    "Location": Case(lambda text: resolve("http://h.example/", text), _repeated("../%2e/"), HEADER),
    "a listed URL": Case(lambda text: read_url(text), _repeated("' <\"", "http://h.example/"), LINE),
    "userinfo in a text": Case(lambda text: hide_userinfo(text, ""), _repeated("http://a:b@"), LINE),
    "charset of bytes": Case(
        lambda text: detect(text.encode("latin-1"), None), _repeated("<meta charset=é "), 10_000_000
    ),
    "srcset": Case(
        lambda text: PageURLs("http://h.example/", lambda: None).absolute("srcset", text),
        _repeated("a, ,b 1x "),
        1_000_000,
    ),
    "number": Case(lambda text: convert(text, "float"), _repeated("1,"), 1_000),
    "date": Case(lambda text: convert(text, "date"), _repeated("1 "), 100),
    "price": Case(lambda text: convert(text, "price"), _repeated("1 "), 200),
    "a rule": Case(lambda text: Selection.of([text]).rules, _repeated(":not(b)", "a=b"), 4_000),
    "CSV, one record": Case(_csv, _repeated('"a""b",', "url\n"), LINE),
    "CSV, blanks": Case(_csv, _repeated(" ", "url\n", '"a"'), LINE),
    "XML, elements": Case(xml_tree, _repeated("<a b='c'>x</a>", "<r>", "</r>"), 200_000),
    "XML, deep": Case(xml_tree, lambda size: "<a>" * (size // 7) + "</a>" * (size // 7), 200_000),
}


def _seconds(case: Case, text: str) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.thread_time()
        try:
            case.read(text)
        except Exception as error:
            assert not isinstance(error, (AttributeError, NameError)), error
        best = min(best, time.thread_time() - began)
    return best


def growths(names: list[str]) -> Iterator[Figure]:
    """Measure the cases of these names, or all."""
    for name, case in CASES.items():
        if names and name not in names:
            continue
        half, whole = (_seconds(case, case.make(size)) for size in (case.limit // 2, case.limit))
        asked = at_most(MOST) if whole > SHORT_SECONDS else None
        yield Figure(f"{name} ({whole * 1000:.2f} ms)", whole / half, " x", asked)


def main() -> int:
    """Print the ratios, and say by the exit code whether they hold."""
    figures = []
    for figure in growths(sys.argv[1:]):
        print(figure, flush=True)
        figures.append(figure)
    return not all(figure.holds for figure in figures)


if __name__ == "__main__":
    sys.exit(main())
