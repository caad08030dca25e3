"""Bodies that unpack to far more than they are: a sample of the sweep, which says what they may cost."""

from __future__ import annotations

import sys

import pytest

from tests.sweeps import packed_bombs


def test_bombs_cost_no_memory(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("brotli")
    monkeypatch.setattr(sys, "argv", ["packed_bombs", "160"])
    # Less than half of what is allowed: a body that is too large is let go of at once, and one decoder at a time has a window.
    monkeypatch.setattr(packed_bombs, "SLACK", -128 * 1024 * 1024)
    assert packed_bombs.main() == 0, capsys.readouterr().out
