"""Owns an extractor whose module can be imported where pytest is, and nowhere else."""

from __future__ import annotations

import sys

from fetcher.model import Response

if "pytest" not in sys.modules:
    raise RuntimeError("not here")


def extract(response: Response) -> int:
    """Return the size."""
    return len(response.body)
