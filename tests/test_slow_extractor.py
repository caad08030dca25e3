"""An extractor on the loop that is slow is told of once, after ten pages; one that is not, never."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import pytest

from fetcher.page.reader import SLOW_PAGES, WatchedExtractor


@pytest.mark.parametrize(("seconds", "pages", "told"), [(0.07, SLOW_PAGES - 1, 0), (0.07, 100, 1), (0.01, 100, 0)])
def test_it_is_told_after_ten_slow_pages(
    seconds: float, pages: int, told: int, caplog: pytest.LogCaptureFixture
) -> None:
    clock = itertools.count()
    watched = WatchedExtractor(lambda _: "data", lambda: next(clock) * seconds)
    response: Any = None
    with caplog.at_level(logging.WARNING, "fetcher.extract"):
        assert [watched(response) for _ in range(pages)] == ["data"] * pages
    assert len(caplog.records) == told
    assert all("--isolate" in record.getMessage() for record in caplog.records)
