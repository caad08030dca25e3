"""Each code has its advice: what it means, and what to do."""

from __future__ import annotations

import pytest

from fetcher import errors
from fetcher.advice import ADVICE, advice_for
from fetcher.errors import RETRYABLE, FetchError

CODES = sorted(
    {
        code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, FetchError)
        for code in kind.codes
    }
)


@pytest.mark.parametrize("code", CODES)
def test_each_code_has_a_text_of_its_own(code: str) -> None:
    advice = ADVICE[code]
    assert advice.meaning.endswith(".")
    assert advice.do.endswith(".")
    assert advice.meaning != advice.do


def test_no_text_is_for_a_code_that_is_none() -> None:
    assert {code for code in ADVICE if not code.startswith("http_")} == set(CODES)


def test_each_status_has_that_of_its_class() -> None:
    for status in range(100, 600):
        advice = advice_for(f"http_{status}")
        assert advice.meaning
        assert advice.do
        if f"http_{status}" in RETRYABLE and f"http_{status}" not in ADVICE:
            assert "--retry-failed" in advice.do
    assert advice_for("http_599") == advice_for("http_598")
    assert advice_for("http_200") != advice_for("http_404")


def test_a_code_that_is_not_ours_has_some_too() -> None:
    assert "middleware" in advice_for("shop_closed").meaning
    assert advice_for("http_") == advice_for("http_9") == advice_for("")
