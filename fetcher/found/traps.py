"""Traps: the patterns that most of the links found are of, and what would leave them out.

Law 3: bounded memory: of more patterns than ``MAX_PATTERNS`` the rare ones are forgotten, and whatever is a larger
share than one in so many is kept (Misra and Gries, "Finding repeated elements", 1982). Law 9: synchronous.
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

import msgspec

__all__ = ["PatternCount", "PatternCounts", "pattern_of"]

MAX_PATTERNS = 64
MAX_CHARACTERS = 300  # of a pattern and of an example that are kept
MIN_LINKS = 10
SHARE = 5  # told of where at least one link in so many is of it
REPEATS = 3  # of one segment in a path

_SESSION = re.compile(
    r"[?&;](sid|s?ession_?id|session|sess|phpsessid|jsessionid|aspsessionid\w*|cftoken|cfid|zenid|oscsid)=",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[0-9]+")
_HEX = re.compile(r"(?=[^/]*[0-9])[0-9a-fA-F-]{16,}")
_GLOB = re.compile(r"[*?\[]")

Kind: TypeAlias = Literal["repeats", "session", "query", "numbers"]

_WORDS: dict[Kind, str] = {
    "repeats": "a part of the path repeats",
    "session": "a session id",
    "query": "parameters",
    "numbers": "numbers in the path",
}


class PatternCount(msgspec.Struct):
    """How many of the links are of a pattern, about; an ``example``, and the ``exclude`` that would leave them out."""

    kind: Kind
    example: str
    exclude: str
    count: int = 0


def pattern_of(url: str) -> PatternCount | None:
    """Return the pattern that a URL may be a trap by, ``None`` for one that is like no other.

    >>> pattern_of("https://a.example/day/2031/05").exclude
    'https://a.example/day/*'
    """
    kind: Kind
    path, mark, _ = url.partition("?")
    session = _SESSION.search(url)
    if session is not None:
        kind, exclude = "session", f"re:(?i:[?&;]{re.escape(session[1])}=)"
    elif (segment := _repeated(path)) is not None:
        kind, exclude = (
            "repeats",
            f"re:(?:/{re.escape(segment)}(?=/).*){{{REPEATS - 1}}}/{re.escape(segment)}(?:[/?]|$)",
        )
    elif mark:
        start = _before_number(path)
        kind, exclude = "query", _escaped(start) + ("[?]*" if start == path else "*[?]*")
    elif (number := _before_number(path)) != path:
        kind, exclude = "numbers", _escaped(number) + "*"
    else:
        return None
    return PatternCount(kind, url[:MAX_CHARACTERS], exclude[:MAX_CHARACTERS])


def _path_alone(url: str) -> str:
    return url.partition("://")[2].partition("/")[2]


def _before_number(url: str) -> str:
    """Return a URL as far as the first segment with a number, or a long hexadecimal word, in its path."""
    start = url.find("/", url.find("://") + 3) + 1
    place = start
    for segment in url[start:].split("/"):
        if _NUMBER.search(segment) or _HEX.fullmatch(segment):
            return url[:place]
        place += len(segment) + 1
    return url


def _repeated(url: str) -> str | None:
    segments = _path_alone(url).split("/")
    if len(segments) < REPEATS:
        return None
    return next((each for each in segments if each and segments.count(each) >= REPEATS), None)


def _escaped(text: str) -> str:
    return _GLOB.sub(lambda match: f"[{match[0]}]", text)


class PatternCounts(msgspec.Struct):
    """The counts of the most frequent patterns, by what leaves them out."""

    counts: dict[str, PatternCount] = {}

    def add(self, url: str) -> None:
        """Count a link."""
        pattern = pattern_of(url)
        if pattern is None:
            return
        known = self.counts.get(pattern.exclude)
        if known is not None:
            known.count += 1
        elif len(self.counts) < MAX_PATTERNS:
            pattern.count = 1
            self.counts[pattern.exclude] = pattern
        else:
            for exclude, each in list(self.counts.items()):
                each.count -= 1
                if not each.count:
                    del self.counts[exclude]

    def traps(self, found: int, *, cut: bool) -> list[str]:
        """Return a sentence for each pattern that many of the ``found`` links are of.

        What is nothing else than a trap is told of in any case, all else where the limits ``cut`` the links short.
        """
        told = []
        for each in sorted(self.counts.values(), key=lambda each: -each.count):
            plainly = each.kind in ("repeats", "session")
            if each.count < max(MIN_LINKS, found / SHARE) or not (plainly or cut):
                continue
            told.append(
                f"{each.count:,} of the links are like {each.example} ({_WORDS[each.kind]}): "
                f"if that is a trap, --exclude '{each.exclude}'"
            )
        return told
