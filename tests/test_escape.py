from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.terminal import printable
from tests.lab.suites import suite

STEERING = {
    *map(chr, (*range(0x20), *range(0x7F, 0xA0))),
    *map(chr, (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))),
    *map(chr, (0x2028, 0x2029, 0xD800, 0xDBFF, 0xDC00, 0xDFFF)),
}
ANYTHING = st.text(st.one_of(st.characters(), st.characters(categories=["Cs"]), st.sampled_from(sorted(STEERING))))


def steers(char: str) -> bool:
    return char in STEERING or unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("plain", "plain"),
        ("Grüße, 世界 🙂 שלום", "Grüße, 世界 🙂 שלום"),
        ("non\xa0breaking", "non\xa0breaking"),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("a\r\nb\tc", "a\\x0d\\x0ab\\x09c"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egro.live", "\\u202egro.live"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\x7f\ud800", "\\x7f\\ud800"),
        ("back\\slash", "back\\slash"),
    ],
)
def test_what_steers_a_terminal_is_spelled_and_the_rest_stays(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("char", sorted(STEERING))
def test_no_steering_character_comes_through(char: str) -> None:
    assert not any(map(steers, printable(f"a{char}b")))


@pytest.mark.parametrize(
    ("text", "limit", "shown"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdefg", 6, "abcde…"),
        ("ab\x1bcd", 6, "ab…"),
        ("ab\x1b", 6, "ab\\x1b"),
        ("abc", 1, "…"),
        ("abc", 0, ""),
        ("", 0, ""),
    ],
)
def test_a_limit_counts_what_is_shown_and_cuts_no_escape(text: str, limit: int, shown: str) -> None:
    assert printable(text, limit) == shown


@settings(deadline=None)
@given(ANYTHING, st.none() | st.integers(0, 40))
def test_the_result_is_safe_encodable_bounded_and_stable(text: str, limit: int | None) -> None:
    shown = printable(text, limit)
    assert not any(map(steers, shown))
    shown.encode()
    assert limit is None or len(shown) <= limit
    assert printable(shown) == shown
    if limit is None or shown == printable(text):
        assert len(shown) >= len(text)


def test_naughty_strings_are_safe() -> None:
    for text in json.loads((suite("naughty-strings") / "blns.json").read_text()):
        assert not any(map(steers, printable(text)))
