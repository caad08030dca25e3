"""Owns a terminal for a process under test: a pty, all that was written to it, and what would be seen on it.

The screen knows what a progress bar needs, and raises on a sequence it does not know.
"""

from __future__ import annotations

import os
import re
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

DEADLINE = 60.0
_SEQUENCE = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])")


class Screen:
    """The lines that a terminal without an edge shows, and whether its cursor does."""

    def __init__(self, written: str) -> None:
        self.lines = [""]
        self.cursor = True
        self.colours = False
        self._row = self._column = 0
        at = 0
        while at < len(written):
            sequence = _SEQUENCE.match(written, at)
            if sequence:
                self._obey(sequence[1], sequence[2])
                at = sequence.end()
            else:
                self._put(written[at])
                at += 1

    def _obey(self, value: str, letter: str) -> None:
        if letter == "m":
            self.colours |= bool(re.search(r"(^|;)[349][0-8](;|$)", value))
        elif letter in "lh" and value == "?25":
            self.cursor = letter == "h"
        elif letter == "A":
            self._row = max(0, self._row - int(value or 1))
        elif letter == "J" and not value:
            self.lines[self._row :] = [self.lines[self._row][: self._column]]
        elif letter == "K":
            start = "" if value == "2" else self.lines[self._row][: self._column]
            self.lines[self._row] = start
        else:
            raise ValueError(f"an unknown sequence: ESC [ {value} {letter}")

    def _put(self, char: str) -> None:
        if char == "\r":
            self._column = 0
        elif char == "\n":
            self._row += 1
            if self._row == len(self.lines):
                self.lines.append("")
        elif char.isprintable():
            line = self.lines[self._row].ljust(self._column)
            self.lines[self._row] = line[: self._column] + char + line[self._column + 1 :]
            self._column += 1
        else:
            raise ValueError(f"an unknown character: {char!r}")


class Terminal:
    """A pty for a ``with`` block: ``line`` is the descriptor to give away, ``written`` what came through it."""

    def __init__(self, columns: int = 100) -> None:
        import fcntl
        import termios

        self._keyboard, self.line = os.openpty()
        fcntl.ioctl(self.line, termios.TIOCSWINSZ, struct.pack("HHHH", 25, columns, 0, 0))
        self._written = bytearray()
        self._changed = threading.Condition()
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    @property
    def written(self) -> str:
        """All that was written so far."""
        with self._changed:
            return self._written.decode(errors="replace")

    @property
    def screen(self) -> Screen:
        """What is to be seen."""
        return Screen(self.written)

    def press(self, keys: bytes) -> None:
        """Type."""
        os.write(self._keyboard, keys)

    def until(self, holds: Callable[[str], bool]) -> None:
        """Wait until ``holds`` of what was written."""
        with self._changed:
            met = self._changed.wait_for(lambda: holds(self.written), DEADLINE)
        assert met, f"there is {self.written[-2000:]!r}"

    def hang_up(self) -> None:
        """Give our end of the line away, and wait until all who have it are gone."""
        if self.line >= 0:
            os.close(self.line)
            self.line = -1
        self._listener.join(DEADLINE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hang_up()
        os.close(self._keyboard)

    def _listen(self) -> None:
        while True:
            try:
                data = os.read(self._keyboard, 65_536)
            except OSError:  # EIO is how Linux says that the last one has closed the line
                return
            if not data:
                return
            with self._changed:
                self._written += data
                self._changed.notify_all()
