"""Reads a robots.txt by RFC 9309: its lines, its groups, and which of them are ours.

Law 3: at most ``MAX_ROBOTS_BYTES`` count, a line is cut at ``MAX_LINE_BYTES``, and only the rules meant for us are
kept. Law 7: nothing in the file is an error; what makes no sense is passed over, as leniently as by the reference
parser.
"""

from __future__ import annotations

import re

from fetcher.middleware.robots.rules import EVERYTHING, Rule, Rules

__all__ = ["MAX_ROBOTS_BYTES", "parse_robots"]

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
