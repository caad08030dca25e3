"""Owns how a process sends itself a signal before or after one of its own calls: a kill at that very place."""

from __future__ import annotations

import os
import signal
from importlib import import_module
from itertools import count
from typing import Any

__all__ = ["VARIABLE", "arm", "striking"]

VARIABLE = "STRIKE"


def striking(point: str, *signals: int) -> dict[str, str]:
    """Return the environment of a forked ``fetcher`` that is struck at ``point``, by SIGKILL unless told.

    A point is ``before MODULE NAME TURN`` or ``after …``: a function of a module, or ``CLASS.METHOD``, and at which of
    its calls.
    """
    numbers = " ".join(str(int(number)) for number in signals or (signal.SIGKILL,))
    return {VARIABLE: f"{point} {numbers}"}


def arm(order: str) -> None:
    """Put the blow in its place: what a forked process does before it is a ``fetcher``."""
    when, module, name, turn, *numbers = order.split()
    owner: Any = import_module(module)
    *path, name = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    real, turns = getattr(owner, name), count(1)

    def strike(now: str, at: int) -> None:
        if now == when and at == int(turn):
            for number in numbers:
                os.kill(os.getpid(), int(number))

    def struck(*args: Any, **options: Any) -> Any:
        at = next(turns)
        strike("before", at)
        result = real(*args, **options)
        strike("after", at)
        return result

    setattr(owner, name, struck)
