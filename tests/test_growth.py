"""The cases whose growth is measured by ``tests.benchmarks.growth``: each reads what it is given, and is measured."""

from __future__ import annotations

import pytest

from tests.benchmarks.growth import CASES, SHORT_SECONDS, Case, growths


@pytest.mark.parametrize("name", CASES)
def test_a_case_reads_a_small_text_of_its_kind(name: str) -> None:
    case = CASES[name]
    small = case.make(min(case.limit, 200))
    assert len(small) >= 100
    case.read(small)


def test_growth_that_is_no_longer_linear_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def quadratic(text: str) -> object:
        return [None for _ in text for _ in text]

    monkeypatch.setitem(CASES, "quadratic", Case(quadratic, lambda size: "x" * size, 4_000))
    (figure,) = growths(["quadratic"])
    assert figure.asked is not None, f"16 million steps take over {SHORT_SECONDS} s"
    assert not figure.holds
