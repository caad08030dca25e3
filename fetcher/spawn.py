"""How one of our own modules runs in a process of its own.

Laws: nothing in the working directory may stand in for a module; what is started here is told of its owner's end,
however that ends, by the end of its standard input.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

__all__ = ["command", "environment", "when_owner_ends"]


def command(module: str, *words: str) -> list[str]:
    """Return the words that run ``module`` as a program."""
    return [sys.executable, "-P", "-m", module, *words]


def environment() -> dict[str, str]:
    """Return our environment, with a checkout's folder on the path of modules."""
    inherited = dict(os.environ)
    root = Path(__file__).resolve().parents[1]
    if root.name not in ("site-packages", "dist-packages"):
        known = inherited.get("PYTHONPATH")
        inherited["PYTHONPATH"] = os.pathsep.join([str(root), known] if known else [str(root)])
    return inherited


def when_owner_ends(act: Callable[[], None]) -> None:
    """Call ``act`` in a thread when standard input ends. Nothing else may read it from now on."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        act()

    threading.Thread(target=watch, daemon=True).start()
