"""Owns how a process sends itself a signal before or after one of its own calls: a kill at that very place."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.lab.command import ROOT

__all__ = ["striking"]

NAME = "sitecustomize.py"  # what Python runs by itself when it starts
SCRIPT = """
import importlib, os
if "STRIKE" in os.environ:
    when, module, name, turn, *numbers = os.environ["STRIKE"].split()
    owner = importlib.import_module(module)
    *path, name = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    real, turns = getattr(owner, name), []

    def strike(now):
        if now == when and len(turns) == int(turn):
            for number in numbers:
                os.kill(os.getpid(), int(number))

    def struck(*args, **options):
        turns.append(1)
        strike("before")
        result = real(*args, **options)
        strike("after")
        return result

    setattr(owner, name, struck)
"""


def striking(folder: Path, point: str, *signals: int) -> dict[str, str]:
    """Return the environment of a process that is struck at ``point``, by SIGKILL unless told.

    A point is ``before MODULE NAME TURN`` or ``after …``: a function of a module, or ``CLASS.METHOD``, and at which of
    its calls. Writes a file into ``folder``.
    """
    (folder / NAME).write_text(SCRIPT)
    numbers = " ".join(str(int(number)) for number in signals or (signal.SIGKILL,))
    return {"STRIKE": f"{point} {numbers}", "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
