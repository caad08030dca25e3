"""Finds the third-party test material, or skips the test by the name of what is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def suite(name: str) -> Path:
    """Return the folder ``name`` of the suites, or skip the test that asks for it."""
    folder = Path(os.environ.get("FETCHER_SUITES") or ROOT.parent / "shared" / "suites") / name
    if not folder.is_dir():
        pytest.skip(f"the suite {name!r} is not at {folder} (set FETCHER_SUITES)")
    return folder
