"""The URL cases of the web platform tests: what reaches the wire is the standard's serialisation."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from fetcher.errors import InvalidURL
from fetcher.urls import Target, identity, join, parse
from tests.lab.suites import suite

SCHEME = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.\-]*:")


@pytest.fixture(scope="module")
def cases() -> list[dict[str, Any]]:
    """Every case that starts from nothing or from an http(s) URL."""
    listed = json.loads((suite("wpt-url") / "urltestdata.json").read_text("utf-8"))
    found = [case for case in listed if isinstance(case, dict)]
    return [case for case in found if case["base"] is None or case["base"].startswith("http")]


def parsed(case: dict[str, Any]) -> Target | None:
    """What becomes of a case, as of a row or of a Location; any other exception fails the test."""
    try:
        return parse(case["input"]) if case["base"] is None else parse(join(case["base"], case["input"]))
    except InvalidURL:
        return None


def is_good(case: dict[str, Any]) -> bool:
    return not case.get("failure") and case["protocol"] in ("http:", "https:")


def serialised(case: dict[str, Any]) -> str:
    """The standard's serialisation without userinfo and fragment; ``search`` hides an empty query."""
    tail = case["pathname"] + (case["search"] or ("?" if case["href"].partition("#")[0].endswith("?") else ""))
    return f"{case['protocol']}//{case['host']}{tail}"


def test_the_suite_is_there(cases: list[dict[str, Any]]) -> None:
    assert len(cases) > 700
    assert sum(map(is_good, cases)) > 200


def test_every_good_url_is_taken(cases: list[dict[str, Any]]) -> None:
    refused = [case["input"] for case in cases if is_good(case) and parsed(case) is None]
    assert refused == ["http://./", "http://../"]  # hosts of dots alone: nothing to ask for


def test_every_other_is_refused_where_it_has_a_scheme(cases: list[dict[str, Any]]) -> None:
    """Without one a row gets ours, which the suite cannot know."""
    taken = [
        case["input"]
        for case in cases
        if not is_good(case) and (case["base"] or SCHEME.match(case["input"])) and parsed(case) is not None
    ]
    assert taken == []


def test_listed_urls_reach_the_wire_as_the_standard_has_them(cases: list[dict[str, Any]]) -> None:
    seen = 0
    for case in cases:
        target = parsed(case) if is_good(case) and case["base"] is None else None
        if target is not None:
            seen += 1
            assert target.wire == serialised(case)
    assert seen > 100


def test_what_two_equal_urls_share_is_the_standards_serialisation(cases: list[dict[str, Any]]) -> None:
    for case in cases:
        if is_good(case) and case["base"] is None and parsed(case) is not None:
            assert identity(case["input"]) == case["href"].partition("#")[0]


def test_locations_reach_the_wire_as_the_standard_has_them(cases: list[dict[str, Any]]) -> None:
    for case in cases:
        target = parsed(case) if is_good(case) and case["base"] is not None else None
        if target is not None:
            assert target.wire == serialised(case)


def test_host_port_and_credentials_are_the_standards(cases: list[dict[str, Any]]) -> None:
    for case in cases:
        target = parsed(case) if is_good(case) else None
        if target is not None:
            assert target.host == case["hostname"].rstrip(".")
            assert target.port == int(case["port"] or {"http:": 80, "https:": 443}[case["protocol"]])
            assert (target.user or "", target.password or "") == (case["username"], case["password"])
