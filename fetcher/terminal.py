"""What a stream can show: whether a person looks at it, how wide it is, and colours.

NO_COLOR (no-color.org), FORCE_COLOR and TERM=dumb are respected here, for all that is written.
"""

from __future__ import annotations

import os
from typing import IO, Any, Literal, TypeAlias

__all__ = ["Colour", "can_draw", "columns_of", "has_colour", "is_terminal", "paint"]

Colour: TypeAlias = Literal["", "red", "green", "yellow", "cyan", "bold"]

_CODES = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "bold": "1"}
_NO_TERMINALS = ("dumb", "unknown")
DEFAULT_COLUMNS = 80


def is_terminal(stream: IO[Any] | None) -> bool:
    """Whether a person may look at the stream."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # it is closed
        return False


def can_draw(stream: IO[Any] | None) -> bool:
    """Whether what was written to the stream can be written over."""
    return is_terminal(stream) and os.environ.get("TERM", "").lower() not in _NO_TERMINALS


def has_colour(stream: IO[Any] | None) -> bool:
    """Whether colours are wanted on the stream: on a terminal that has them, unless a variable says otherwise."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return can_draw(stream)


def columns_of(stream: IO[Any]) -> int:
    """Return how many characters a line of the terminal has."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or DEFAULT_COLUMNS
    except (OSError, ValueError):
        return DEFAULT_COLUMNS


def paint(text: str, colour: Colour) -> str:
    """Return ``text`` in a colour; ``""`` is none."""
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if colour else text
