"""How text from the web is shown to a terminal: every character that would steer it is spelled out.

Law 7: the web's bytes are never trusted, not as a terminal string either. A title may hold escape sequences that
rename the window or hide what follows, and bidirectional controls that make one host look like another.
"""

from __future__ import annotations

import re

__all__ = ["printable"]

_STEERING = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0, DEL and C1: a terminal obeys them
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional marks, embeddings, overrides and isolates
    "\u2028\u2029"  # line and paragraph separator: a second line where one was meant
    "\ud800-\udfff]"  # lone surrogates: no encoding has them
)


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
