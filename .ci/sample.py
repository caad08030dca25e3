"""A plugin for pytest that runs one test in so many: ``FETCHER_SAMPLE=2/40`` takes the second of each forty."""

from __future__ import annotations

import os

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the chosen ones."""
    which, _, step = os.environ["FETCHER_SAMPLE"].partition("/")
    kept = items[int(which) % int(step) :: int(step)]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept
