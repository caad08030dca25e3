"""The rules of a robots.txt that are for us (RFC 9309): read out of the file, compiled, and asked in microseconds.

They are our own and no layer over Protego, the usual library. Of the reference cases it misses those about lines
and groups (a byte order mark cut short, junk between the lines of a group, tokens with a digit or a ``*`` in them,
rules about /robots.txt itself) and about escapes (it undoes what must stay): that is all there is to a parser, and
nothing to lay over. It keeps every group of a file, too, and cannot say which line decided.

Law 3: of a file at most ``MAX_ROBOTS_BYTES`` count, a line is cut at ``MAX_LINE_BYTES``, and only the rules meant for
us are kept. What a URL may cost is bounded: literals are looked up by their lengths; a wildcard is searched for from
left to right and never back, and where even that is too much the answer is no. Law 7: nothing in the file is an error;
what makes no sense is passed over, as leniently as by the reference parser.

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

__all__ = ["EVERYTHING", "MAX_ROBOTS_BYTES", "Rule", "Rules", "parse_robots"]

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

MAX_ROBOTS_BYTES = 500 * 1024  # of a robots.txt count (2.5)
MAX_LINE_BYTES = 16_664  # as the reference parser has it

_KINDS = {
    b"user-agent": "agent", b"useragent": "agent", b"user agent": "agent",
    b"allow": "allow",
    b"disallow": "disallow", b"dissallow": "disallow", b"dissalow": "disallow", b"disalow": "disallow",
    b"diasllow": "disallow", b"disallaw": "disallow",
    b"crawl-delay": "delay", b"crawldelay": "delay",
    b"request-rate": "rate",
}  # fmt: skip
"""What a line is about. The misspellings are the reference parser's, which takes a longer name for its start too."""

_USUAL = {name: kind for usual, kind in _KINDS.items() for name in (usual.capitalize(), usual.title(), usual)}

_TOKEN = re.compile(r"[A-Za-z_-]+")
_NUMBER = re.compile(rb"[0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9}")
_RATE = re.compile(rb"([0-9]{1,9})\s*/\s*([0-9]{1,9})\s*([smhd]?)", re.IGNORECASE)
_SECONDS = {b"": 1, b"s": 1, b"m": 60, b"h": 3_600, b"d": 86_400}
_OCTET = re.compile(rb"%[0-9A-Fa-f]{2}|[\x80-\xff]")


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


def parse_robots(body: bytes, token: str, *, truncated: bool = False) -> Rules:
    """Read a robots.txt for the product token ``token`` (RFC 9309, 2.2), case aside.

    The groups that name the token are one; where none does, those of ``*`` are. ``truncated`` says that there was
    more: then a last line without its end is none. UTF-16 is read where it begins with its mark.
    """
    reader = _Reader(token)
    for number, line in enumerate(_lines(body, truncated=truncated), 1):
        reader.read(line, number)
    return reader.rules()


def _lines(body: bytes, *, truncated: bool) -> list[bytes]:
    """Return the lines by every kind of end (CR, LF or both), without a byte order mark or a part of one."""
    if len(body) > MAX_ROBOTS_BYTES:
        body, truncated = body[:MAX_ROBOTS_BYTES], True
    if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        body = body.decode("utf-16", "replace").encode("utf-8", "replace")
    for mark in (b"\xef\xbb\xbf", b"\xef\xbb", b"\xef"):
        if body.startswith(mark):
            body = body[len(mark) :]
            break
    if truncated:
        body = body[: max(body.rfind(b"\n"), body.rfind(b"\r")) + 1]
    return body.splitlines()


class _Group:
    """Which lines are for us by a token: open from its ``User-agent`` to the first such line behind a rule."""

    __slots__ = ("delay", "named", "open_to_delays", "open_to_rules", "rules")

    def __init__(self) -> None:
        self.named = self.open_to_rules = self.open_to_delays = False
        self.rules: dict[tuple[bool, str], int] = {}
        self.delay = 0.0


class _Reader:
    """Takes the lines of one file in their order.

    Lines of no kind the RFC knows do not end the list of a group's tokens (2.2.4), and so Crawl-delay does not
    either, for rules; for the delays themselves it does, or those of two groups would be both groups'.
    """

    def __init__(self, token: str) -> None:
        self._token = token.lower()
        self._ours, self._anyones = _Group(), _Group()
        self._open: list[dict[tuple[bool, str], int]] = []  # the rules of the groups that a rule is for
        self._ruled = self._delayed = False  # since the last User-agent line

    def read(self, line: bytes, number: int) -> None:
        """Take a line; whatever it is, it is no error."""
        if len(line) > MAX_LINE_BYTES:
            line = line[:MAX_LINE_BYTES]
        if b"#" in line:
            line = line.partition(b"#")[0]
        name, colon, value = line.partition(b":")
        if not colon:
            words = line.split()
            if len(words) != 2:
                return
            name, value = words  # a forgotten colon
        kind = _USUAL.get(name) or _kind(name.strip().lower())
        value = value.strip()
        if kind == "allow" or kind == "disallow":  # noqa: PLR1714  (as almost all lines are, of which there may be many)
            self._rule(value, number, allow=kind == "allow")
        elif kind == "agent":
            self._agent(value)
        elif kind == "delay":
            self._delay(value)
        elif kind == "rate":
            self._rate(value)

    def rules(self) -> Rules:
        """Return what holds for us."""
        group = self._ours if self._ours.named else self._anyones
        if not group.rules and not group.delay:
            return EVERYTHING
        return Rules((Rule(allow, pattern, line) for (allow, pattern), line in group.rules.items()), group.delay)

    def _agent(self, value: bytes) -> None:
        for group in (self._ours, self._anyones):
            group.open_to_rules = group.open_to_rules and not self._ruled
            group.open_to_delays = group.open_to_delays and not self._ruled and not self._delayed
        self._ruled = self._delayed = False
        self._name(value.decode("latin-1"))
        self._open = [group.rules for group in (self._ours, self._anyones) if group.open_to_rules]

    def _name(self, text: str) -> None:
        token = _TOKEN.match(text)
        if text[:1] == "*" and (len(text) == 1 or text[1].isspace()):
            group = self._anyones
        elif token is not None and token[0].lower() == self._token:
            group = self._ours
        else:
            return
        group.named = group.open_to_rules = group.open_to_delays = True

    def _rule(self, value: bytes, number: int, *, allow: bool) -> None:
        self._ruled = True
        if not value or not self._open:
            return
        if b" " in value or b"\t" in value:
            # A path as it was typed, or two things in one line: what asks for less is obeyed.
            value = value.replace(b" ", b"%20").replace(b"\t", b"%09") if allow else value.split(None, 1)[0]
        if b"%" in value or not value.isascii():
            value = _OCTET.sub(_escape, value)
        rule = (allow, value.decode("ascii"))
        for rules in self._open:
            rules.setdefault(rule, number)

    def _delay(self, value: bytes) -> None:
        self._delayed = True
        match = _NUMBER.match(value)
        if match is not None:
            self._wait(float(match[0]))

    def _rate(self, value: bytes) -> None:
        self._delayed = True
        match = _RATE.match(value)
        if match is not None and int(match[1]):
            self._wait(int(match[2]) * _SECONDS[match[3].lower()] / int(match[1]))

    def _wait(self, seconds: float) -> None:
        for group in (self._ours, self._anyones):
            if group.open_to_delays:
                group.delay = max(group.delay, seconds)


def _kind(name: bytes) -> str | None:
    kind = _KINDS.get(name)
    if kind is None and name[:1] in (b"u", b"a", b"d", b"c", b"r"):
        kind = next((found for start, found in _KINDS.items() if name.startswith(start)), None)
    return kind


def _escape(match: re.Match[bytes]) -> bytes:
    text = match[0]
    return text.upper() if len(text) == 3 else b"%%%02X" % text[0]
