"""The small language of ``--select NAME=CSS[@ATTR]``: rules that read fields out of a page.

Every rule is checked before the first request: what cannot be read, or is no selector to lexbor, is a
``ConfigError`` that quotes the rule. What is kept is plain data, so that a selection can go to another process.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Self, TypeAlias

import msgspec
from selectolax.lexbor import LexborHTMLParser, LexborNode, SelectolaxError

from fetcher.errors import ConfigError
from fetcher.page.inner_text import inner_text

__all__ = ["FieldRule", "Fields", "Selection"]

Fields: TypeAlias = dict[str, str | list[str] | None]

_NAME = re.compile(r"\s*([A-Za-z_][\w.-]*)(\[\])?\s*=")
_ATTRIBUTE = re.compile(r"[^\W\d][\w:.-]*")
_SCRAPY = re.compile(r"\s*::(?:(text)|attr\(\s*([^()]*?)\s*\))\s*$")
_PAIRS = {"[": "]", "(": ")"}


class FieldRule(msgspec.Struct, frozen=True):
    """One field: the text of what ``css`` matches, or its ``attribute``; of the first match or of ``many``."""

    name: str
    css: str
    attribute: str | None = None
    many: bool = False


class Selection(msgspec.Struct, frozen=True):
    """The fields to read out of every page, in the order given."""

    rules: tuple[FieldRule, ...] = ()

    @classmethod
    def of(cls, rules: Sequence[str]) -> Self:
        """Read and check rules such as ``price=.price``, ``img=img.hero@src``, ``tags[]=.tag``.

        ``NAME[]`` takes all matches. ``::text`` and ``::attr(x)`` at the end mean what ``@`` does. Raises
        ``ConfigError`` with the rule, the reason and an example.
        """
        found: dict[str, FieldRule] = {}
        for text in rules:
            try:
                rule = _read(text)
                if rule.name in found:
                    raise ConfigError(f"the name {rule.name!r} is taken by an earlier rule")
                _try(rule.css)
            except ConfigError as error:
                raise ConfigError(
                    f"select {text!r}: {error} (write NAME=CSS or NAME=CSS@ATTRIBUTE, such as 'img=img.hero@src'; "
                    "NAME[]=CSS takes all matches)"
                ) from None
            found[rule.name] = rule
        return cls(tuple(found.values()))

    def select(self, tree: LexborHTMLParser) -> Fields:
        """Return each field: a text, a list for ``NAME[]``, or ``None`` where nothing matched.

        Text is that of the element as a person sees it (see ``inner_text``). An attribute stands as written, ``""``
        where it has no value; a list leaves out the matches that do not have it.
        """
        return {rule.name: _read_all(tree, rule) if rule.many else _read_first(tree, rule) for rule in self.rules}

    def blank(self) -> Fields:
        """Return what ``select`` finds in an empty page, for a body that is no page."""
        return {rule.name: [] if rule.many else None for rule in self.rules}


def _read_first(tree: LexborHTMLParser, rule: FieldRule) -> str | None:
    node = tree.css_first(rule.css)
    return None if node is None else _value(node, rule.attribute)


def _read_all(tree: LexborHTMLParser, rule: FieldRule) -> list[str]:
    values = (_value(node, rule.attribute) for node in tree.css(rule.css))
    return [value for value in values if value is not None]


def _value(node: LexborNode, attribute: str | None) -> str | None:
    if attribute is None:
        return inner_text(node)
    attributes = node.attrs
    return (attributes[attribute] or "") if attribute in attributes else None


def _read(text: str) -> FieldRule:
    head = _NAME.match(text)
    if not head:
        reason = "there is no '='" if "=" not in text else "the name is not a letter or _ and then letters, digits, _.-"
        raise ConfigError(reason)
    css, attribute = _split_attribute(text[head.end() :])
    if scrapy := _SCRAPY.search(css):
        if attribute is not None:
            raise ConfigError(f"{scrapy[0].strip()} and @{attribute} ask for two things")
        css = css[: scrapy.start()]
        attribute = scrapy[2]
    css = css.strip()
    if not css:
        raise ConfigError("there is no selector")
    if attribute is not None and not _ATTRIBUTE.fullmatch(attribute):
        raise ConfigError(f"{attribute!r} is no attribute's name" if attribute else "there is no attribute's name")
    return FieldRule(head[1], css, attribute, many=bool(head[2]))


def _split_attribute(text: str) -> tuple[str, str | None]:
    """Split ``CSS@ATTR`` at the ``@`` that stands outside all brackets, quotes and escapes."""
    open_until: list[str] = []
    position = 0
    while position < len(text):
        char = text[position]
        quoted = bool(open_until) and open_until[-1] in "\"'"
        if char == "\\":
            position += 1
        elif open_until and char == open_until[-1]:
            open_until.pop()
        elif quoted:
            pass
        elif char in "\"'":
            open_until.append(char)
        elif char in _PAIRS:
            open_until.append(_PAIRS[char])
        elif char in "])":
            raise ConfigError(f"a {char} closes nothing")
        elif char == "@" and not open_until:
            return text[:position], text[position + 1 :].strip()
        position += 1
    if open_until:
        # CSS closes what is open at its end, which is seldom what was meant.
        raise ConfigError(f"a closing {open_until[-1]} is missing")
    return text, None


def _try(css: str) -> None:
    """Let lexbor parse the selector, or raise ``ConfigError``."""
    try:
        LexborHTMLParser("<p>").css(css)
    except SelectolaxError:
        hint = ""
        if "::" in css:
            hint = ": of the pseudo-elements only ::text and ::attr(NAME) are known, at the very end"
        raise ConfigError(f"{css!r} is no CSS selector that can be used{hint}") from None
    except UnicodeEncodeError:
        raise ConfigError("it is not valid Unicode") from None
