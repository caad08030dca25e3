"""Fifteen values of Retry-After and how long each asks to wait, at one moment."""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime

from fetcher.middleware.accept import retry_after
from tests.lab.suites import suite


def test_every_retry_after_is_read_as_expected() -> None:
    listed = json.loads((suite("retry-after") / "cases.json").read_text("utf-8"))
    now = parsedate_to_datetime(listed["now"]).timestamp()
    expected = {case["value"]: None if case["expect"] == "invalid" else case["expect"] for case in listed["cases"]}
    assert len(expected) == 15
    assert {value: retry_after(value, now) for value in expected} == expected
