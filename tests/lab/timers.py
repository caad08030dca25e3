"""Which timers a test's loop is given, to see that what is closed leaves none."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

__all__ = ["note_timers"]


def note_timers(monkeypatch: pytest.MonkeyPatch) -> list[asyncio.TimerHandle]:
    """Return the list of all timers that are set from now on in the running loop."""
    loop = asyncio.get_running_loop()
    call_later = loop.call_later
    timers: list[asyncio.TimerHandle] = []

    def noted(*words: Any, **named: Any) -> asyncio.TimerHandle:
        timers.append(call_later(*words, **named))
        return timers[-1]

    monkeypatch.setattr(loop, "call_later", noted)
    return timers
