from __future__ import annotations

from fetcher.stats import counted


def test_one_is_no_plural() -> None:
    assert [counted(number, "row") for number in (0, 1, 2, 1000)] == ["0 rows", "1 row", "2 rows", "1,000 rows"]
    assert counted(2, "retry", "retries") == "2 retries"
