"""What people are told on a terminal: what a stream can show, how text from the web is shown there, and whole notices.

NO_COLOR (no-color.org), FORCE_COLOR and TERM=dumb are respected here, for all that is written. A notice never fails a
run: where stderr is closed, or its reader has left, it falls silent and the data goes on.

Law 7: the web's bytes are never trusted, not as a terminal string either: every character that would steer a terminal
is spelled out. A title may hold escape sequences that rename the window or hide what follows, and bidirectional
controls that make one host look like another.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import IO, Any, Literal, TypeAlias

__all__ = ["Colour", "Notices", "can_draw", "columns_of", "has_colour", "is_terminal", "paint", "printable"]

Colour: TypeAlias = Literal["", "red", "green", "yellow", "cyan", "bold"]

_CODES = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "bold": "1"}
_NO_TERMINALS = ("dumb", "unknown")
DEFAULT_COLUMNS = 80

_STEERING = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0, DEL and C1: a terminal obeys them
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional marks, embeddings, overrides and isolates
    "\u2028\u2029"  # line and paragraph separator: a second line where one was meant
    "\ud800-\udfff]"  # lone surrogates: no encoding has them
)

_traceback = logging.Formatter()


def printable(text: str, limit: int | None = None) -> str:
    r"""Return ``text`` with control, bidirectional and unencodable characters spelled as ``\x1b`` or ``\u202e``.

    With ``limit`` the result is at most that many characters long, and ends in ``…`` where something was cut off;
    an escape is never cut in two. A backslash stays as it is: the result is for reading, not for reading back.

    >>> printable("\x1b[31mred")
    '\\x1b[31mred'
    """
    if limit is not None and len(text) > limit:
        return _cut(text, limit)
    if text.isprintable():
        return text
    shown = _STEERING.sub(_spell, text)
    return shown if limit is None or len(shown) <= limit else _cut(text, limit)


def _spell(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _cut(text: str, limit: int) -> str:
    if limit < 1:
        return ""
    room = limit - 1
    shown = []
    for char in text[:limit]:
        piece = _STEERING.sub(_spell, char)
        room -= len(piece)
        if room < 0:
            break
        shown.append(piece)
    return "".join(shown) + "…"


class Notices:
    """The notices of one run. ``as_json`` makes each notice an object on a line of its own (all of it ASCII).

    ``redact`` takes the secrets out of a text, whatever is said.
    """

    def __init__(self, *, as_json: bool = False, redact: Callable[[str], str] | None = None) -> None:
        self.as_json = as_json
        self._redact = redact or (lambda text: text)

    @property
    def on_terminal(self) -> bool:
        """Whether stderr is a terminal."""
        return is_terminal(sys.stderr)

    @property
    def can_draw(self) -> bool:
        """Whether a line can be drawn there and written over."""
        return can_draw(sys.stderr) and not self.as_json

    def say(self, text: str, *, level: str = "info", **facts: Any) -> None:
        """Write a line that begins with our name."""
        self._tell(f"fetcher: {text}", text, level=level, facts=facts)

    def show(self, text: str, **facts: Any) -> None:
        """Write lines as they are laid out; ``facts`` are the same for machines."""
        self._tell(text, text.partition("\n")[0], level="info", facts=facts)

    def listen(self, verbose: int, *, quiet: bool = False) -> None:
        """Tell what the package logs: with ``verbose`` 1 of parked hosts and retries, from 2 on of everything.

        What is to be said of a list, of a store or of an extractor is told in any case, unless the run is ``quiet``.
        """
        for name in ("fetcher.sources", "fetcher.store", "fetcher.extract"):
            told = logging.getLogger(name)
            told.propagate = False  # it is told once
            told.addHandler(logging.NullHandler() if quiet else _Handler(self, "warning: "))
        if not verbose:
            return
        logger = logging.getLogger("fetcher")
        logger.addHandler(_Handler(self))
        logger.setLevel(logging.INFO if verbose == 1 else logging.DEBUG)
        logging.getLogger("fetcher.retry").setLevel(logging.DEBUG)

    def hear(self, record: logging.LogRecord, prefix: str = "") -> None:
        """Write what was logged."""
        message = f"{prefix}{record.getMessage()}"
        if record.exc_info:
            message = f"{message}\n{_traceback.formatException(record.exc_info)}"
        self._tell(f"fetcher: {message}", message, level=record.levelname.lower(), logger=record.name, facts={})

    def _tell(self, text: str, message: str, *, level: str, facts: dict[str, Any], logger: str = "fetcher") -> None:
        if self.as_json:
            when = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            message = self._redact(message)
            entry = {"time": when, "level": level, "logger": logger, "message": message, **facts}
            _write(json.dumps(entry).replace("\x7f", "\\u007f"))
        else:
            _write("\n".join(map(printable, self._redact(text).split("\n"))))


class _Handler(logging.Handler):
    def __init__(self, notices: Notices, prefix: str = "") -> None:
        super().__init__()
        self._notices = notices
        self._prefix = prefix

    def emit(self, record: logging.LogRecord) -> None:
        self._notices.hear(record, self._prefix)


def _write(text: str) -> None:
    # Looked up each time: a live line replaces it, and puts what is said above itself.
    stream = sys.stderr
    if stream is None:
        return
    try:
        stream.write(f"{text}\n")
        stream.flush()
    except OSError:
        # What stays in the buffer would fail again when the interpreter ends, and change the exit code.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)


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
