"""Which bodies may stop or end the process that parses them: a look at the bytes, far cheaper than a parse.

Law 5: a host's trouble stays its own. lexbor's time grows with the square of how deep tags are nested and of how
many attributes one tag has: 500 KB of ``<div>`` take over 20 s, a tag of 50,000 attributes 8 s.
"""

from __future__ import annotations

__all__ = ["LARGE", "SMALL", "STRETCH", "TAGS", "looks_dangerous"]

SMALL = 32 * 1024  # bytes in which no tags can be made that take a tenth of a second
LARGE = 1024 * 1024
TAGS = 10_000
STRETCH = 16 * 1024  # bytes without a ">": a tag as long as that may have thousands of attributes


def looks_dangerous(body: bytes) -> bool:
    """Tell whether a page should be parsed in a process of its own."""
    size = len(body)
    if size <= SMALL:
        return False
    return size > LARGE or body.count(b"<") >= TAGS or _has_stretch(body)


def _has_stretch(body: bytes) -> bool:
    """Tell whether ``STRETCH`` bytes in a row have no ``>``. Looks at few of the others: from the end of each."""
    begin, last = 0, len(body) - STRETCH
    while begin <= last:
        end = body.rfind(b">", begin, begin + STRETCH)
        if end < 0:
            return True
        begin = end + 1
    return False
