"""A line or two at the foot of a terminal that are written over, while whole lines go by above them.

The cursor rests at the beginning of the first of them. A terminal that is made narrower breaks long lines anew and
takes its cursor along, so that all of them, however many they have become, lie behind it: erasing from there to the end
leaves no ghost.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import IO, Any, TypeAlias

from fetcher.terminal import columns_of

__all__ = ["Layout", "LiveLine"]

Layout: TypeAlias = Callable[[int], Sequence[str]]
"""Returns the lines for a terminal of so many columns, each at most as wide, colours not counted."""

_ERASE = "\r\x1b[J"
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


class LiveLine:
    """The lines that ``layout`` makes, on stderr. What else is written there meanwhile stands above them."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._stream: IO[str] | None = None
        self._above: _Above | None = None
        self._at_margin = True  # what was written above ended its line

    def start(self) -> None:
        """Take the foot of the terminal."""
        self._stream = sys.stderr
        self._above = _Above(self, self._stream)
        sys.stderr = self._above  # it is one in all that is asked of it
        self._write(_HIDE_CURSOR)

    def draw(self) -> None:
        """Write the lines anew, for the terminal as wide as it is now."""
        if self._stream is not None and self._at_margin:
            self._write(_ERASE + self._lines())

    def stop(self) -> None:
        """Erase the lines and give the cursor back. Harmless twice."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        if sys.stderr is self._above:
            sys.stderr = stream
        with contextlib.suppress(OSError, ValueError):  # the terminal is gone, and the cursor with it
            stream.write((_ERASE if self._at_margin else "\n") + _SHOW_CURSOR)
            stream.flush()

    def write_above(self, text: str) -> None:
        """Write a text where the lines stand, and these below it once it has ended its own line."""
        if self._stream is None or not text:
            return
        erase = _ERASE if self._at_margin else ""
        self._at_margin = text.endswith("\n")
        self._stream.write(erase + text + (self._lines() if self._at_margin else ""))
        self._stream.flush()

    def _lines(self) -> str:
        assert self._stream is not None
        # One column stays free: a terminal would go to the next line by itself, or would not, as it likes.
        lines = self._layout(max(1, columns_of(self._stream) - 1))
        up = f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else ""
        return "\n".join(lines) + "\r" + up

    def _write(self, text: str) -> None:
        assert self._stream is not None
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # the terminal is gone: there is nobody to draw for
            self.stop()


class _Above:
    """What stands for stderr while there is a live line: whatever is written goes above it."""

    def __init__(self, line: LiveLine, stream: IO[str]) -> None:
        self._line = line
        self._stream = stream

    def write(self, text: str) -> int:
        if self._line._stream is None:  # noqa: SLF001  (its other half) - whoever kept us writes on
            return self._stream.write(text)
        self._line.write_above(text)
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        self.write("".join(lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
