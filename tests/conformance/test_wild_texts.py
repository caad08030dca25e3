"""Elements of pages, and the text that ``--select`` gives of each: what a browser shows of it."""

from __future__ import annotations

import json

from fetcher.model import Request, Response
from fetcher.page.parse import read_body
from fetcher.page.select import Selection
from tests.lab.suites import suite

TEXTS = 7


def test_a_text_is_what_a_person_sees() -> None:
    cases = json.loads((suite("wild") / "texts.json").read_text(encoding="utf-8"))
    found = {}
    for case in cases:
        body = case["html"].encode()
        response = Response(
            Request(1, "http://a.example/"), "http://a.example/", 200, (("content-type", "text/html"),), body
        )
        reading = read_body(response, select=Selection.of([f"x={case['css']}", f"all[]={case['css']}"]), extract=None)
        found[case["name"]] = reading.data
    assert len(found) == TEXTS
    assert found == {case["name"]: {"x": case["want"], "all": [case["want"]]} for case in cases}
