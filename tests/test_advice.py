"""Each code has its advice: what it means, and what to do."""

from __future__ import annotations

import pytest

from fetcher import errors
from fetcher.errors import FetchError
from fetcher.topics import advice_for, topics

CODES = sorted(
    {
        code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, FetchError)
        for code in kind.codes
    }
)


@pytest.mark.parametrize("code", [*CODES, "http_404", "http_418"])
def test_each_code_is_told_in_whole_sentences(code: str) -> None:
    advice = advice_for(code)
    assert advice.meaning[:1].isupper() or advice.meaning[:3] == "`--"
    assert advice.do[:1].isupper() or advice.do[:1] == "`"
    assert advice.meaning.endswith(".")
    assert advice.do.endswith(".")
    assert not (advice.meaning.count("`") % 2 or advice.do.count("`") % 2)


def test_no_text_is_for_a_code_that_is_none() -> None:
    assert {code for code in topics("code") if not code.startswith("http_")} == set(CODES)


def test_a_status_without_a_text_of_its_own_has_that_of_all_with_its_number() -> None:
    assert "--retry-codes 418" in advice_for("http_418").do
    assert "NNN" not in advice_for("http_599").do
    assert advice_for("http_404") != advice_for("http_418")


def test_a_code_that_is_not_ours_has_some_too() -> None:
    assert "middleware" in advice_for("shop_closed").meaning
    assert advice_for("") == advice_for("shop_closed")
