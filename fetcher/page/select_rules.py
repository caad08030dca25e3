"""The grammar of ``--select NAME[[]]=SELECTOR[@ATTR|@@ATTR][:TYPE]``: one rule read, checked and made plain data.

Whatever has a meaning here has it outside of quotes, brackets, braces and escapes alone: an ``@``, a ``:`` or a ``;``
within an attribute selector is the selector's. All that is wrong with a rule is a ``ConfigError`` with the reason.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias, get_args

import msgspec
from selectolax.lexbor import LexborHTMLParser, SelectolaxError

from fetcher.errors import ConfigError, missing_extra

__all__ = ["FieldRule", "Pick", "ValueType", "read_rule", "table_rule"]

ValueType: TypeAlias = Literal["int", "float", "date", "price", "bool"]
"""What a text is converted to."""

Pick: TypeAlias = Literal["text", "attribute", "own_text", "all_text", "json", "records", "table"]
"""What is taken of an element: its text as a person sees it, an attribute, its text nodes, JSON within, records, or rows."""

_TYPES: frozenset[str] = frozenset(get_args(ValueType))
_NAME = re.compile(r"\s*([A-Za-z_][\w.-]*)(\[\])?\s*=")
_ATTRIBUTE = re.compile(r"[^\W\d][\w:.-]*")
_PSEUDO = re.compile(r"(\s*)::\s*(text|attr|json)\b\s*")
_PAIRS = {"[": "]", "(": ")", "{": "}"}
_LANGUAGES = ("xpath", "json")


class FieldRule(msgspec.Struct, frozen=True):
    """One field: where it is looked for, what is taken of it, and what that is converted to.

    ``expression`` is CSS, XPath or, for ``json``, JMESPath on a body of JSON. ``pick`` says what is taken of an element
    and ``argument`` names the attribute or the path; ``as_written`` leaves a URL as it stands in the page. ``many``
    takes all matches. ``rules`` are those of a record.
    """

    name: str
    expression: str
    language: Literal["css", "xpath", "json"] = "css"
    pick: Pick = "text"
    argument: str = ""
    as_written: bool = False
    type: ValueType | None = None
    many: bool = False
    rules: tuple[FieldRule, ...] = ()


def read_rule(text: str, *, within: bool = False) -> FieldRule:
    """Read one rule and check its expressions; ``within`` a record there are no further records.

    >>> read_rule("price=.price:price").type
    'price'
    """
    head = _NAME.match(text)
    if not head:
        reason = "there is no '='" if "=" not in text else "the name is not a letter or _ and then letters, digits, _.-"
        raise ConfigError(reason)
    name, many = head[1], bool(head[2])
    rest = text[head.end() :].strip()
    language = next((each for each in _LANGUAGES if rest.startswith(f"{each}:")), None)
    if language is not None:
        if within:
            raise ConfigError(f"{language}: stands for the whole page, not within a record")
        return _read_expression(name, rest.removeprefix(f"{language}:"), language, many=many)
    for _ in _walk(rest):  # finds what is not closed
        pass
    brace = _first_outside(rest, "{")
    if brace >= 0:
        if within:
            raise ConfigError("a record within a record: they go one level deep")
        return _read_record(name, rest, brace, many=many)
    return _read_css(name, rest, many=many, within=within)


def table_rule(css: str) -> FieldRule:
    """Return the rule for the rows of the first table that a selector finds, or that is within what it finds."""
    try:
        for _ in _walk(css):
            pass
        _try_css(css)
    except ConfigError as error:
        raise ConfigError(f"table {css!r}: {error} (give a selector, such as 'table#prices')") from None
    return FieldRule("table", css.strip(), pick="table", many=True)


def _read_record(name: str, text: str, brace: int, *, many: bool) -> FieldRule:
    css = text[:brace].strip()
    if not text.endswith("}") or _closing(text, brace) != len(text) - 1:
        raise ConfigError("something follows the } of the record")
    if not css:
        raise ConfigError("there is no selector before the {")
    _try_css(css)
    rules: dict[str, FieldRule] = {}
    for part in _parts(text[brace + 1 : -1]):
        rule = read_rule(part, within=True)
        if rule.name in rules:
            raise ConfigError(f"the name {rule.name!r} stands twice in the record")
        rules[rule.name] = rule
    if not rules:
        raise ConfigError("there is no rule between { and }")
    return FieldRule(name, css, pick="records", many=many, rules=tuple(rules.values()))


def _read_css(name: str, text: str, *, many: bool, within: bool) -> FieldRule:
    text, kind = _split_type(text)
    css, attribute = _split_attribute(text)
    pseudo = _read_pseudo(css)
    if pseudo is not None and attribute is not None:
        raise ConfigError(f"::{pseudo[1]} and @{attribute} ask for two things")
    pick: Pick = "text"
    argument, as_written = "", False
    if pseudo is not None:
        css, called, argument = pseudo
        as_written = called == "attr"
        pick = "attribute" if called == "attr" else "json" if called == "json" else _text_nodes(css, pseudo)
    elif attribute is not None:
        as_written = attribute.startswith("@")
        pick, argument = "attribute", attribute.removeprefix("@").strip().replace("\\:", ":")
    css = css.strip()
    if not css and not within:
        raise ConfigError("there is no selector")
    if pick == "attribute" and not _ATTRIBUTE.fullmatch(argument):
        raise ConfigError(f"{argument!r} is no attribute's name" if argument else "there is no attribute's name")
    if pick == "json":
        _try_path(argument)
    if css:
        _try_css(css)
    return FieldRule(name, css, "css", pick, argument, as_written, kind, many)


def _text_nodes(css: str, pseudo: tuple[str, str, str]) -> Pick:
    """Tell ``p::text``, the text nodes of the element itself, from ``p ::text``, those of all below it, as Scrapy does."""
    if pseudo[2]:
        raise ConfigError("::text takes nothing in brackets")
    return "all_text" if css[-1:].isspace() else "own_text"


def _read_pseudo(css: str) -> tuple[str, str, str] | None:
    """Return what stands before a pseudo-element at the end of ``css``, its name and what is in its brackets."""
    every = list(_PSEUDO.finditer(css))
    if not every:
        return None
    found = every[-1]
    called, inner = found[2], css[found.end() :].strip()
    if inner:
        if not inner.startswith("(") or not inner.endswith(")"):
            return None  # lexbor refuses it, and says so
        inner = inner[1:-1].strip()
    if called != "text" and not inner:
        raise ConfigError(f"::{called} needs {'an attribute' if called == 'attr' else 'a path'} in brackets")
    return css[: found.start()] + found[1], called, inner


def _read_expression(name: str, text: str, language: Any, *, many: bool) -> FieldRule:
    text, kind = _split_type(text.strip())
    if not text:
        raise ConfigError(f"nothing follows {language}:")
    if language == "xpath":
        _try_xpath(text)
    else:
        _try_path(text)
    return FieldRule(name, text, language, type=kind, many=many)


def _split_type(text: str) -> tuple[str, ValueType | None]:
    """Split ``:TYPE`` off the end: a word of ours behind the last ``:`` that is neither escaped nor one of two."""
    at = max(_outside(text, ":"), default=-1)
    word: Any = text[at + 1 :].strip()
    if at < 0 or word not in _TYPES or text[max(0, at - 1) : at] == ":":
        return text, None
    return text[:at].rstrip(), word


def _split_attribute(text: str) -> tuple[str, str | None]:
    """Split ``CSS@ATTR``; the second of two ``@`` stays with the attribute."""
    at = _first_outside(text, "@")
    return (text, None) if at < 0 else (text[:at], text[at + 1 :].strip())


def _parts(text: str) -> Iterator[str]:
    """Yield what stands between the semicolons of a record."""
    start = 0
    for at in [*_outside(text, ";"), len(text)]:
        if part := text[start:at].strip():
            yield part
        start = at + 1


def _first_outside(text: str, char: str) -> int:
    return next(_outside(text, char), -1)


def _outside(text: str, wanted: str) -> Iterator[int]:
    """Yield where ``wanted`` stands outside of quotes, brackets, braces and escapes. Raises where one is not closed."""
    for at, char, depth in _walk(text):
        if char == wanted and depth == (1 if char in _PAIRS else 0):
            yield at


def _closing(text: str, opening: int) -> int:
    """Return where the bracket at ``opening`` is closed."""
    return next((at for at, char, depth in _walk(text) if at > opening and char in "])}" and depth == 0), -1)


def _walk(text: str) -> Iterator[tuple[int, str, int]]:
    """Yield each character that is neither quoted nor escaped, and how many brackets are open behind it."""
    open_until: list[str] = []
    position = 0
    while position < len(text):
        char = text[position]
        quoted = bool(open_until) and open_until[-1] in "\"'`"
        if char == "\\":
            position += 2
            continue
        if open_until and char == open_until[-1]:
            open_until.pop()
        elif quoted:
            pass
        elif char in "\"'`":
            open_until.append(char)
        elif char in _PAIRS:
            open_until.append(_PAIRS[char])
        elif char in "])}":
            raise ConfigError(f"a {char} closes nothing")
        if not quoted:
            yield position, char, len(open_until)
        position += 1
    if open_until:
        # CSS closes what is open at its end, which is seldom what was meant.
        raise ConfigError(f"a closing {open_until[-1]} is missing")


def _try_css(css: str) -> None:
    """Let lexbor parse the selector, or raise ``ConfigError``."""
    try:
        LexborHTMLParser("<p>").css(css)
    except SelectolaxError:
        hint = ""
        word = css.rpartition(":")[2]
        if "::" in css:
            hint = ": of the pseudo-elements only ::text, ::attr(NAME) and ::json(PATH) are known, at the very end"
        elif ":" in css and word.isalpha():
            hint = f": {word!r} is no type either; there are {', '.join(get_args(ValueType))}"
        raise ConfigError(f"{css!r} is no CSS selector that can be used{hint}") from None
    except UnicodeEncodeError:
        raise ConfigError("it is not valid Unicode") from None


def _try_path(path: str) -> None:
    import jmespath  # few rules have a path

    try:
        expression = jmespath.compile(path)
        with contextlib.suppress(jmespath.exceptions.JMESPathTypeError):  # there is nothing yet
            expression.search(None)
    except (jmespath.exceptions.JMESPathError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"{path!r} is no JMESPath expression ({reason})") from None


def _try_xpath(path: str) -> None:
    try:
        from lxml import etree
    except ImportError:
        raise ConfigError(missing_extra("lxml", "xpath")) from None
    try:
        etree.XPath(path)
    except (etree.XPathError, ValueError) as error:
        raise ConfigError(f"{path!r} is no XPath expression ({error})") from None
