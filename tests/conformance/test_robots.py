"""The 378 standard cases of the reference parser's test suite: who may fetch what, by which robots.txt."""

from __future__ import annotations

import base64
import json
from typing import Any

from fetcher.middleware.robots_rules import parse_robots
from tests.lab.suites import suite


def path_of(url: str) -> str:
    """The path and query as they stand in a URL; the suite has some that no standard would take."""
    rest = url.partition("://")[2]
    slash = rest.find("/")
    return rest[slash:] if slash >= 0 else "/"


def misses(kind: str) -> tuple[int, list[dict[str, Any]]]:
    """How many cases there are of one type, and those that we decide otherwise."""
    listed = json.loads((suite("robotstxt-google-spec") / "cases.json").read_text("utf-8"))
    cases = [case for case in listed if case["type"] == kind]
    wrong = []
    for case in cases:
        rules = parse_robots(base64.b64decode(case["robotstxt_b64"]), case["agent"])
        if (rules.denial(path_of(case["url"])) is None) != (case["expected"] == "ALLOWED"):
            wrong.append(case)
    return len(cases), wrong


def test_every_standard_case_is_decided_as_expected() -> None:
    assert misses("STANDARD") == (378, [])


def test_what_is_googles_own_is_too_but_for_their_index_pages() -> None:
    """An ``Allow`` of ``/dir/index.html`` that allows ``/dir/`` is in no standard."""
    count, wrong = misses("GOOGLE_SPECIFIC")
    assert count == 22
    assert [(case["file"], case["url"]) for case in wrong] == [
        ("correctness/index-page.textproto", "http://foo.com/allowed-slash/")
    ]
