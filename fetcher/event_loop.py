"""How a process of ours runs its event loop: on the fastest one that is installed, with a collector that looks rarely.

A library does not decide this for its host: only commands, and the processes that they measure with, call ``run``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["fastest_loop", "run"]

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end and return its result."""
    gc.freeze()  # what is loaded stays: no collection needs to look at it again
    gc.set_threshold(50_000, 20, 50)  # rows come and go by reference count; cycles are rare
    try:
        with asyncio.Runner(loop_factory=fastest_loop()) as runner:
            return runner.run(main)
    finally:
        main.close()  # a Ctrl-C may come before it began: it would be told as never awaited


def fastest_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Find the fastest loop that is installed (the extra ``speed``); ``None`` is asyncio's own."""
    with contextlib.suppress(ImportError):
        if sys.platform == "win32":
            from winloop import new_event_loop
        else:
            from uvloop import new_event_loop
        factory: Callable[[], asyncio.AbstractEventLoop] = new_event_loop
        return factory
    return None
