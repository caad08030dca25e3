"""Bodies that unpack to far more than they are: a sample of the sweep, which says what they may cost."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MOST_MB = 200
"""Half of what is allowed: a body that is too large is let go of at once, and one decoder at a time has a window."""


def test_bombs_cost_no_memory() -> None:
    pytest.importorskip("brotli")
    # In a process of its own: a child's peak begins with that of its parent.
    done = subprocess.run(
        [sys.executable, "-m", "tests.sweeps.packed_bombs", "160"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"without bombs, (\d+) MB with them", done.stdout)
    assert found is not None
    assert int(found[1]) < MOST_MB
