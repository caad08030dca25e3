"""The rules of one robots.txt that are for us (RFC 9309, 2.2): compiled to a few tuples, asked in microseconds.

They are our own and no layer over Protego, the usual library. Of the reference cases it misses those about lines
and groups (a byte order mark cut short, junk between the lines of a group, tokens with a digit or a ``*`` in them,
rules about /robots.txt itself) and about escapes (it undoes what must stay): that is all there is to a parser, and
nothing to lay over. It keeps every group of a file, too, and cannot say which line decided.

Law 3: what a URL may cost is bounded. Literals are looked up by their lengths; a wildcard is searched for from left
to right and never back, and where even that is too much the answer is no.

Percent-encoding: the RFC compares with unreserved characters unescaped, the reference parser byte by byte. Where
they differ the answer is the one that asks for less: a ``Disallow`` is compared as the RFC says, an ``Allow`` as
the reference does (to the URL as it is, and unescaped).
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from typing import TypeAlias

import msgspec

__all__ = ["EVERYTHING", "Rule", "Rules"]

MAX_COMPARED_CHARACTERS = 400_000  # in searches for wildcards, for one URL: at most 0.8 ms
MAX_ESCAPES = 1_000  # of a path that are put in order
PATTERN_COST = 40  # characters that could be compared in the time that a pattern takes besides
NO_RULE = 1 << 30  # a rank beyond that of any rule
HEAD_CHARACTERS = 4  # of a path, which tell what lengths of literals can match

Lengths: TypeAlias = tuple[tuple[int, int], ...]
"""Lengths of literals, each behind the least rank that one of that length has."""

_ESCAPED = re.compile(r"%[0-9A-Fa-f]{2}")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
END = "\n"  # stands behind a path, and for the ``$`` of a pattern: neither can have one of its own


class Rule(msgspec.Struct, frozen=True):
    """One ``Allow`` or ``Disallow``: its pattern with the escapes put in order, and its line (from 1)."""

    allow: bool
    pattern: str
    line: int

    def __str__(self) -> str:
        return f"{'Allow' if self.allow else 'Disallow'}: {self.pattern}"


class Rules:
    """The rules for us of one file, the most specific first; ``delay`` is in seconds, ``size`` about their bytes.

    ``delay`` is the longer of ``Crawl-delay`` and what ``Request-rate`` comes to, 0.0 where there is neither.
    """

    __slots__ = (
        "__weakref__",
        "_glob_ranks",
        "_globs",
        "_lengths",
        "_lines",
        "_literals",
        "_needles",
        "_searched",
        "_short",
        "delay",
        "size",
    )

    def __init__(self, rules: Iterable[Rule] = (), delay: float = 0.0) -> None:
        # The longest wins, of two that are as long the one that allows (2.2.2), and of two alike the first.
        listed = list(rules)
        specificity = [2 * len(rule.pattern) + rule.allow for rule in listed]
        ranked = [listed[at] for at in sorted(range(len(listed)), key=specificity.__getitem__, reverse=True)]
        literals: dict[str, int] = {}
        globs: list[tuple[str, ...]] = []
        self._glob_ranks = array("i")
        for rank, rule in enumerate(ranked):
            text = rule.pattern
            if "*" in text or "$" in text or "%" in text:
                text, *others = _compile(rule)
                if others:
                    globs.append((text, *others))
                    self._glob_ranks.append(rank)
                    continue
            literals.setdefault(text, rank)
        self._lines = array("i", [2 * rule.line + rule.allow for rule in ranked])  # by rank
        self._literals, self._globs = literals, tuple(globs)
        # Copied side by side: they are all looked for in each path, and pages thrust them out of the processor's cache.
        self._needles = tuple("\r".join([max(parts, key=len) for parts in globs]).split("\r")) if globs else ()
        self._searched = sum(map(len, self._needles))
        self._lengths, self._short = _by_heads(literals)
        self.delay = delay
        texts = sum(map(len, literals)) + sum(sum(map(len, parts)) for parts in globs)
        self.size = (
            400 + texts + 110 * len(literals) + 200 * len(self._lengths) + sum(60 + 60 * len(parts) for parts in globs)
        )

    def __len__(self) -> int:
        return len(self._lines)

    def find(self, path: str) -> Rule | None:
        """Return the rule that decides over ``path`` (with its query), or ``None``: then it is allowed."""
        rank = self._rank(path)
        return self._rule(rank) if rank != NO_RULE else None

    def denial(self, path: str) -> Rule | None:
        """Return the rule that forbids ``path`` (with its query), or ``None``: it is allowed."""
        rank = self._rank(path)
        return None if rank == NO_RULE or self._lines[rank] & 1 else self._rule(rank)

    def _rank(self, path: str) -> int:
        if not self._lines:
            return NO_RULE
        rank = self._search(path + END)
        if "%" in path:
            if path.count("%") > MAX_ESCAPES:
                return self._last_refusal(rank)
            plain = _ESCAPED.sub(_unescape, path)
            if plain != path:
                rank = min(rank, self._search(plain + END))
        return rank

    def _search(self, path: str) -> int:
        best, literals = NO_RULE, self._literals
        for least, length in self._lengths.get(path[:HEAD_CHARACTERS], self._short):
            if least > best:
                break  # what is as long as this, and all behind it, is less specific
            rank = literals.get(path[:length])
            if rank is not None and rank < best:
                best = rank
        needles = self._needles
        if len(path) * self._searched > MAX_COMPARED_CHARACTERS:
            return self._search_within_bounds(path, best)
        if best != NO_RULE:  # what is less specific does not matter
            needles = needles[: bisect_left(self._glob_ranks, best)]
        place = -1
        for needle in needles:  # most are not there, and nothing else of their patterns is looked at
            place += 1
            if needle in path:
                parts = self._globs[place]
                if path.startswith(parts[0]) and _fits(parts, path):
                    return self._glob_ranks[place]
        return best

    def _search_within_bounds(self, path: str, best: int) -> int:
        """Search as long as that can be afforded.

        To look for text takes as long as to compare it wherever its last character stands: at most n + k * m for k of
        those in n characters. Where none stands the text is not looked for.
        """
        stands: dict[str, int] = {}  # how often a character does
        left = MAX_COMPARED_CHARACTERS
        for place, needle in enumerate(self._needles):
            if self._glob_ranks[place] >= best:
                return best
            last = needle[-1:]
            often = stands.get(last)
            if often is None:
                often = stands[last] = path.count(last)
            left -= PATTERN_COST + (len(path) + often * len(needle) if often else 0)
            if left < 0:
                return self._last_refusal(best)
            if often and needle in path:
                parts = self._globs[place]
                left -= sum(PATTERN_COST + path.count(part[-1:]) * len(part) for part in parts)
                if left < 0:
                    return self._last_refusal(best)
                if path.startswith(parts[0]) and _fits(parts, path):
                    return self._glob_ranks[place]
        return best

    def _last_refusal(self, best: int) -> int:
        """Decide without the search where nobody can afford it: whoever forbids so much may mean this too."""
        if best < NO_RULE and not self._lines[best] & 1:
            return best
        return next((rank for rank in self._glob_ranks if not self._lines[rank] & 1), best)

    def _rule(self, rank: int) -> Rule:
        line, allow = divmod(self._lines[rank], 2)
        return Rule(bool(allow), self._pattern(rank), line)

    def _pattern(self, rank: int) -> str:
        text = next((text for text, found in self._literals.items() if found == rank), None)
        if text is None:
            text = "*".join(self._globs[self._glob_ranks.index(rank)])
        return text.replace(END, "$")


def _compile(rule: Rule) -> tuple[str, ...]:
    """Cut a pattern at its ``*``: the first part begins the path, the others follow in their order."""
    text = rule.pattern
    if not rule.allow and "%" in text:
        text = _ESCAPED.sub(_unescape, text)
    if text.endswith("$"):
        text = text[:-1] + END
    head, *others = text.split("*")
    return (head, *filter(None, others))


def _by_heads(literals: dict[str, int]) -> tuple[dict[str, Lengths], Lengths]:
    """Return which lengths a literal can have by how a path begins, and those that no beginning rules out."""
    short: dict[int, int] = {}
    heads: dict[str, dict[int, int]] = {}
    for text, rank in literals.items():  # the least ranks first
        lengths = short if len(text) < HEAD_CHARACTERS else heads.setdefault(text[:HEAD_CHARACTERS], {})
        lengths.setdefault(len(text), rank)
    return {head: _by_rank({**short, **lengths}) for head, lengths in heads.items()}, _by_rank(short)


def _by_rank(lengths: dict[int, int]) -> Lengths:
    return tuple(sorted((rank, length) for length, rank in lengths.items()))


def _fits(parts: tuple[str, ...], path: str) -> bool:
    """Whether the parts follow one another: each is taken where it first stands, so nothing is tried twice."""
    at = 0
    for part in parts:
        at = path.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True


def _unescape(match: re.Match[str]) -> str:
    """Undo the escape of an unreserved character (RFC 3986, 6.2.2), and write the others in upper case."""
    text = match[0]
    character = chr(int(text[1:], 16))
    return character if character in _UNRESERVED else text.upper()


EVERYTHING = Rules()
"""No rule at all: what a file that is not there says (2.3.1.3)."""
