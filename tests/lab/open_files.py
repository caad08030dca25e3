"""Which files this process has open, to see that what is closed, or could not be opened, leaves none."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["open_files"]


def open_files(folder: Path) -> list[str]:
    """Return what this process has open below a folder. Linux tells it."""
    found: list[str] = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # what the listing itself had open
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return sorted(name for name in found if name.startswith(f"{folder}{os.sep}"))
