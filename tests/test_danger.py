"""Which bodies are parsed apart, and that the look at them agrees with a plain one."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fetcher.page import danger
from fetcher.page.danger import LARGE, SMALL, STRETCH, TAGS, looks_dangerous


def prose(size: int) -> bytes:
    return (b"<p>some words, a page as pages are</p>\n" * (size // 39 + 1))[:size]


@pytest.mark.parametrize(
    ("body", "dangerous"),
    [
        (b"", False),
        (b"<div>" * (SMALL // 5), False),
        (b"x" * SMALL, False),
        (b"x" * (SMALL + 1), True),
        (prose(SMALL + 1), False),
        (prose(190_000), False),
        (prose(200_000), True),
        (b"<div>" * 100_000, True),
        (b"<a " + b" ".join(b"a%d=1" % n for n in range(50_000)) + b">", True),
        (b"<title>" + b"x" * 5000 + prose(60_000), False),
        (b"<p title='" + b"x" * STRETCH + b"'>" + prose(SMALL), True),
        (b"<" * (TAGS - 1) + b"x>" * SMALL, False),
        (b"<" * TAGS + b">" + b"x>" * SMALL, True),
    ],
)
def test_bombs_look_dangerous_and_pages_do_not(body: bytes, dangerous: bool) -> None:
    assert looks_dangerous(body) is dangerous


def test_above_a_megabyte_everything_is() -> None:
    page = b"<p>" + b"a few words > " * (LARGE // 14)
    assert not looks_dangerous(page[:LARGE])
    assert looks_dangerous((page + b">" * 100)[: LARGE + 1])


@pytest.mark.parametrize("before", [0, 1, STRETCH - 1, STRETCH, STRETCH + 1])
@pytest.mark.parametrize("length", [STRETCH - 1, STRETCH])
@pytest.mark.parametrize("after", [0, 1, 5, STRETCH])
def test_a_stretch_is_seen_wherever_it_is(before: int, length: int, after: int) -> None:
    body = b">" * before + b"x" * length + b">" * after
    assert danger._has_stretch(body) == (length >= STRETCH)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=30), st.integers(1, 40))
@example([], 1)
def test_the_look_by_jumps_agrees_with_a_plain_one(gaps: list[int], stretch: int) -> None:
    body = b">".join(b"x" * gap for gap in gaps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(danger, "STRETCH", stretch)
        assert danger._has_stretch(body) == (re.search(b"[^>]{%d}" % stretch, body) is not None)
