"""How figures, times and dates are written, and that no text is anything but text in a page."""

from __future__ import annotations

import math

import pytest

from fetcher.bench.formatting import spread
from fetcher.bench.results import Spread
from fetcher.drawing.formatting import counted, duration, escaped, html_date, multiple, percent, significant, size, tick


@pytest.mark.parametrize(
    ("write", "value", "written"),
    [
        (significant, 0, "0"), (significant, 0.98439, "0.984"), (significant, 46.24, "46.2"), (significant, 99.96, "100"),
        (significant, 642.4, "642"), (significant, 1234.5, "1,234"), (significant, 1.0, "1.00"),
        (significant, None, "–"), (significant, math.nan, "–"), (significant, math.inf, "–"),
        (significant, 0.00001234, "0.000012"), (significant, -3.14159, "-3.14"),
        (multiple, 46.24, "46.2×"), (multiple, None, "–"),
        (percent, 0.9461, "94.6\xa0%"), (percent, math.nan, "–"),
        (duration, 0.0, "0\xa0ms"), (duration, 0.00032, "0.320\xa0ms"), (duration, 0.3124, "312\xa0ms"),
        (duration, 0.9996, "1.00\xa0s"), (duration, 14.31, "14.3\xa0s"), (duration, 99.96, "1\xa0min\xa040\xa0s"),
        (duration, 200.2, "3\xa0min\xa020\xa0s"), (duration, 7_530.0, "2\xa0h\xa005\xa0min"), (duration, math.inf, "–"),
        (size, 0, "0\xa0bytes"), (size, 58_123_456, "58.1\xa0MB"), (size, 999.6, "1.00\xa0kB"), (size, None, "–"),
        (tick, 0.0, "0"), (tick, 0.04, "40\xa0ms"), (tick, 1.5, "1.5\xa0s"),
        (spread, Spread(8.204, 8.2, 8.214), ("8.20\xa0s", "8.20–8.21\xa0s")),
        (spread, Spread(1.0, 0.95, 1.05), ("1.00\xa0s", "950\xa0ms–1.05\xa0s")),
        (spread, Spread(1.0, 1.0, 1.0), ("1.00\xa0s", "")), (spread, None, ("–", "")),
    ],
)  # fmt: skip
def test_figures_in_words(write: object, value: object, written: object) -> None:
    assert callable(write)
    assert write(value) == written


@pytest.mark.parametrize(
    ("date", "shown"),
    [
        ("2026-11-21T09:33:50Z", "2026-11-21 09:33:50 UTC"),
        ("2026-11-21T09:33:50.123+00:00", "2026-11-21 09:33:50 UTC"),
        ("2026-11-21T09:33:50+01:00", "2026-11-21T09:33:50+01:00"),
        ("<b>", "&lt;b&gt;"),
    ],
)
def test_a_date_is_written_as_people_do(date: str, shown: str) -> None:
    assert html_date(date) == shown


def test_counted() -> None:
    assert [counted(n, "page") for n in (0, 1, 1200)] == ["0\xa0pages", "1\xa0page", "1,200\xa0pages"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("<b a=\"1\" c='2'>&amp;", "&lt;b a=&quot;1&quot; c=&#x27;2&#x27;&gt;&amp;amp;"),
        ("\x00\x1b\u2066\ud800", "\\x00\\x1b\\u2066\\ud800"),
        ("\ufffe\uffff\ufdd0", "\ufffd\ufffd\ufffd"),
        ("x" * 5_000, "x" * 1_999 + "…"),
        ("&" * 3_000, "&amp;" * 1_999 + "…"),
    ],
)
def test_text_is_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown
