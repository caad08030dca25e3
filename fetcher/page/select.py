"""The fields that ``--select`` reads out of every page, by rules of a small grammar (``select_rules.py``).

Every rule is checked before the first request: one that cannot be read, or is no selector, is a ``ConfigError`` that
quotes it. What is kept is plain data, so that a selection can go to another process. Law 7: what a page says is never
run, and what does not convert is ``None`` and counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Self, TypeAlias

import msgspec
from selectolax.lexbor import LexborHTMLParser, LexborNode

from fetcher.errors import ConfigError
from fetcher.page.convert import convert, currency_of
from fetcher.page.inner_text import inner_text
from fetcher.page.select_rules import FieldRule, ValueType, read_rule, table_rule
from fetcher.page.table import table_rows
from fetcher.page.url_attributes import PageURLs, holds_urls

__all__ = ["Explosion", "FieldRule", "Fields", "RuleGroup", "SelectedColumn", "Selection"]

Fields: TypeAlias = dict[str, Any]

_ADVICE = (
    "write NAME=CSS, NAME=CSS@ATTRIBUTE or NAME=CSS:TYPE, such as 'img=img.hero@src'; NAME[]=CSS takes all matches"
)
_TEXT = 2  # LXB_TAG__TEXT


class SelectedColumn(msgspec.Struct, frozen=True):
    """One name that a page's data has: ``type`` is what its values are, ``None`` for text; ``plain`` are not JSON."""

    name: str
    type: ValueType | None = None
    many: bool = False
    plain: bool = True


class Explosion(msgspec.Struct, frozen=True):
    """What becomes of one name where its items are lines of their own.

    ``columns`` are those of all data then, ``fields`` the fields of a record with the names of their columns,
    ``beside`` the lists that have a value for each item too: the currencies of prices.
    """

    name: str
    columns: tuple[SelectedColumn, ...]
    fields: tuple[tuple[str, str], ...] = ()
    beside: tuple[str, ...] = ()


class RuleGroup(msgspec.Struct, frozen=True):
    """Rules for the pages whose URL one of the ``patterns`` fits: regular expressions for the whole of it."""

    patterns: tuple[str, ...]
    rules: tuple[FieldRule, ...]

    def fits(self, url: str) -> bool:
        """Whether the rules are for a page at ``url``."""
        return any(_pattern(pattern).fullmatch(url) for pattern in self.patterns)


class Selection(msgspec.Struct, frozen=True):
    """The fields to read out of every page, in the order given; then those of the first of ``groups`` that fits its URL."""

    rules: tuple[FieldRule, ...] = ()
    groups: tuple[RuleGroup, ...] = ()

    @classmethod
    def of(
        cls,
        rules: Sequence[str],
        *,
        table: str | None = None,
        groups: Sequence[tuple[tuple[str, ...], tuple[str, ...]]] = (),
    ) -> Self:
        """Read and check rules such as ``price=.price:price``, ``img=img.hero@src``, ``item[]=.card{title=h2}``.

        ``table`` selects an HTML table, whose rows become the field ``table``. ``groups`` are patterns of URLs and the
        rules for them. Raises ``ConfigError`` with the rule, the reason and an example.
        """
        taken: set[str] = set()
        every = _read_all(rules, taken)
        if table is not None:
            if "table" in taken:
                raise ConfigError("table: a rule of select has the name 'table' too")
            every = (*every, table_rule(table))
            taken.add("table")
        selection = cls(every, tuple(RuleGroup(patterns, _read_all(own, set(taken))) for patterns, own in groups))
        kinds: dict[str, SelectedColumn] = {}
        for column in selection._all_columns():
            if kinds.setdefault(column.name, column) != column:
                raise ConfigError(f"select-from: {column.name!r} has two types; a column has one: give it another name")
        return selection

    @property
    def columns(self) -> tuple[SelectedColumn, ...]:
        """What a page's data may have, in its order."""
        return tuple(dict.fromkeys(self._all_columns()))

    @property
    def needs_base(self) -> bool:
        """Whether every page is asked for a URL that may be relative."""
        return any(
            each.pick == "attribute" and not each.as_written and holds_urls(each.argument)
            for rule in self.rules
            for each in (rule, *rule.rules)
        )

    def exploded(self, name: str) -> Explosion:
        """Return what the columns are where each item of ``name`` has a line: its fields have columns of their own.

        A field whose name is taken gets that of the list in front. Raises ``ConfigError`` where ``name`` is no list and
        no record.
        """
        rules = list(self._all_rules())
        listed = dict.fromkeys(rule.name for rule in rules if rule.many or rule.rules)
        if name not in listed:
            known = f"; there {'is' if len(listed) == 1 else 'are'} {', '.join(listed)}" if listed else ""
            raise ConfigError(
                f"explode: {name!r} is no list and no record of --select{known} (such as 'item[]=.card{{…}}')"
            )
        taken = {each for rule in rules if rule.name != name or not rule.rules for each in _names_of(rule)}
        fields: dict[str, str] = {}
        columns: dict[str, SelectedColumn] = {}
        beside: dict[str, None] = {}
        for rule in rules:
            found = list(_columns_of(rule))
            if rule.name == name and rule.rules:
                found = []
                for column in (column for each in rule.rules for column in _columns_of(each)):
                    if column.name not in fields:
                        fields[column.name] = _free(column.name, taken, f"{name}_")
                    found.append(msgspec.structs.replace(column, name=fields[column.name]))
            elif rule.name == name:
                found = [msgspec.structs.replace(column, many=False) for column in found]
                beside.update(dict.fromkeys(column.name for column in found[1:]))
            for column in found:
                if columns.setdefault(column.name, column) != column:
                    raise ConfigError(f"explode: {column.name!r} has two types; a column has one: give it another name")
        return Explosion(name, tuple(columns.values()), tuple(fields.items()), tuple(beside))

    def _all_rules(self) -> Iterator[FieldRule]:
        yield from self.rules
        for group in self.groups:
            yield from group.rules

    def _all_columns(self) -> Iterator[SelectedColumn]:
        for rule in self._all_rules():
            yield from _columns_of(rule)

    def _rules_for(self, url: str) -> tuple[FieldRule, ...]:
        group = next((group for group in self.groups if group.fits(url)), None)
        return self.rules if group is None else (*self.rules, *group.rules)

    def select(
        self,
        tree: LexborHTMLParser | None,
        *,
        url: str = "",
        text: Callable[[], str] | None = None,
        base: Callable[[], LexborNode | None] | None = None,
        unconverted: set[str] | None = None,
        unread: set[str] | None = None,
    ) -> Fields:
        """Return each field: a value, a list for ``NAME[]``, or ``None`` where nothing matched.

        Without a ``tree`` the body is no page: ``json:`` reads it. ``url`` is the page's final one, which its links are
        resolved against; ``text`` gives its text, ``None`` where it is none, ``base`` its ``base[href]``. Text is that
        of the element as a person sees it (see ``inner_text``). A list leaves out the matches that do not have what is
        asked for. The names of fields that did not convert are added to ``unconverted``, and to ``unread`` those whose
        rule does not read such a body: ``json:`` reads no page, and the others nothing else.
        """
        if base is None:

            def base() -> LexborNode | None:
                return tree.css_first("base[href]") if tree is not None else None

        noted = set() if unconverted is None else unconverted
        page = _PageReader(tree, PageURLs(url, base), text, noted, set() if unread is None else unread)
        fields: Fields = {}
        for rule in self._rules_for(url) if self.groups else self.rules:
            page.read(rule, fields)
        return fields

    def blank(self, url: str = "") -> Fields:
        """Return what ``select`` finds in an empty page, for a body that is no page."""
        return {name: [] if rule.many else None for rule in self._rules_for(url) for name in _names_of(rule)}


def _read_all(texts: Sequence[str], taken: set[str]) -> tuple[FieldRule, ...]:
    """Read rules, none of which has a name that is ``taken``; theirs are from now on."""
    rules: list[FieldRule] = []
    for text in texts:
        try:
            rule = read_rule(text)
            names = _names_of(rule)
            if clash := next((name for name in names if name in taken), None):
                raise ConfigError(f"the name {clash!r} is taken by an earlier rule")
        except ConfigError as error:
            raise ConfigError(f"select {text!r}: {error} ({_ADVICE})") from None
        rules.append(rule)
        taken.update(names)
    return tuple(rules)


def _columns_of(rule: FieldRule) -> Iterator[SelectedColumn]:
    plain = rule.pick not in ("records", "json", "table") and rule.language != "json"
    for name in _names_of(rule):
        own_type = rule.type if name == rule.name else None
        yield SelectedColumn(name, own_type, rule.many, plain=plain or rule.type is not None)


def _free(name: str, taken: set[str], prefix: str) -> str:
    """Return ``name``, with ``prefix`` in front where it is taken, and take it."""
    while name in taken:
        name = prefix + name
    taken.add(name)
    return name


@lru_cache(maxsize=1_024)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.DOTALL)


def _names_of(rule: FieldRule) -> list[str]:
    return [rule.name, f"{rule.name}_currency"] if rule.type == "price" else [rule.name]


class _PageReader:
    """One page while its fields are read: what several rules need is made once."""

    def __init__(
        self,
        tree: LexborHTMLParser | None,
        urls: PageURLs,
        text: Callable[[], str] | None,
        unconverted: set[str],
        unread: set[str],
    ) -> None:
        self._tree = tree
        self._text = text or str
        self._is_text = text is not None
        self._unconverted = unconverted
        self._urls = urls
        self._unread = unread
        self._xml: Any = None
        self._json: Any = None
        self._has_json = False
        self._prefix = ""  # of the record that is being read

    def read(self, rule: FieldRule, fields: Fields) -> None:
        """Add what a rule finds to ``fields``."""
        if rule.language == "json":
            found = self._json_values(rule)
        elif self._tree is None:
            self._unread.update(_names_of(rule))
            found = iter(())
        elif rule.language == "xpath":
            found = self._xpath_values(rule)
        elif rule.many:
            found = self._values(self._tree.css(rule.expression), rule)
        else:
            first = self._tree.css_first(rule.expression)
            found = self._values([first] if first is not None else [], rule)
        self._add(rule, found, fields)

    def _record(self, node: LexborNode, of: FieldRule) -> Fields:
        record: Fields = {}
        self._prefix = f"{of.name}."
        for rule in of.rules:
            if not rule.expression:
                nodes = [node]
            elif rule.many:
                nodes = node.css(rule.expression)
            else:
                first = node.css_first(rule.expression)
                nodes = [first] if first is not None else []
            self._add(rule, self._values(nodes, rule), record)
        self._prefix = ""
        return record

    def _add(self, rule: FieldRule, found: Iterator[Any], fields: Fields) -> None:
        values = list(found) if rule.many else [next(found, None)]
        if rule.type is not None:
            texts = values
            values = [None if value is None else self._converted(value, rule) for value in texts]
            if rule.type == "price":
                signs = [currency_of(text) if isinstance(text, str) else None for text in texts]
                fields[rule.name] = values if rule.many else values[0]
                fields[f"{rule.name}_currency"] = signs if rule.many else signs[0]
                return
        fields[rule.name] = values if rule.many else values[0]

    def _converted(self, value: Any, rule: FieldRule) -> Any:
        assert rule.type is not None
        if isinstance(value, bool):
            text = "true" if value else "false"
        else:
            text = value if isinstance(value, str) else str(value)
        converted = convert(text, rule.type)
        if converted is None:
            self._unconverted.add(self._prefix + rule.name)
        return converted

    def _values(self, nodes: Sequence[LexborNode], rule: FieldRule) -> Iterator[Any]:
        if rule.pick in ("own_text", "all_text"):
            yield from _texts(nodes, all_below=rule.pick == "all_text")
            return
        for node in nodes:
            match rule.pick:
                case "text":
                    yield inner_text(node)
                case "attribute":
                    attributes = node.attrs
                    if rule.argument in attributes:
                        value = attributes[rule.argument] or ""
                        yield value if rule.as_written else self._urls.absolute(rule.argument, value)
                case "json":
                    yield from self._path_values(_parsed(node.text()), rule, rule.argument)
                case "records":
                    yield self._record(node, rule)
                case "table":
                    table = node if node.tag == "table" else node.css_first("table")
                    yield from table_rows(table) if table is not None else ()
                    return

    def _json_values(self, rule: FieldRule) -> Iterator[Any]:
        if self._tree is not None or not self._is_text:
            self._unread.update(_names_of(rule))
            return
        if not self._has_json:
            self._json, self._has_json = _parsed(self._text()), True
        for value in self._path_values(self._json, rule, rule.expression):
            if rule.many and isinstance(value, list):
                yield from value
            else:
                yield value

    def _path_values(self, value: Any, rule: FieldRule, path: str) -> Iterator[Any]:
        try:
            found = None if value is None else _compiled(path).search(value)
        except (ValueError, TypeError, RecursionError):  # a function of the path's on what it does not take
            self._unconverted.add(self._prefix + rule.name)
            return
        if found is not None:
            yield found

    def _xpath_values(self, rule: FieldRule) -> Iterator[Any]:
        from lxml import etree

        if self._xml is None:
            parser = etree.HTMLParser(encoding="utf-8", no_network=True)
            source = self._text().encode("utf-8", "replace") or b"<html></html>"
            self._xml = etree.fromstring(source, parser)
        if self._xml is None:  # a comment alone
            return
        found = self._xml.xpath(rule.expression)
        for value in found if isinstance(found, list) else [found]:
            if isinstance(value, str):
                yield str(value)
            elif isinstance(value, etree._Element):  # noqa: SLF001  (lxml names no other)
                yield " ".join("".join(map(str, value.itertext())).split())
            else:
                yield value


def _texts(nodes: Sequence[LexborNode], *, all_below: bool) -> Iterator[str]:
    """Yield the text nodes of elements, or all below them, that have more than white space, that folded.

    They come in the order of the document, and once where one element is within another.
    """
    matched = {node.mem_id for node in nodes}
    passed: set[int] = set()
    for node in nodes:
        if node.mem_id in passed:
            continue
        for each in node.traverse(include_text=True):
            if each.tag_id != _TEXT:
                passed.add(each.mem_id)
                continue
            parent = each.parent
            wanted = all_below or (parent is not None and parent.mem_id in matched)
            if wanted and (text := " ".join((each.text_content or "").split())):
                yield text


def _parsed(text: str) -> Any:
    """Return what a text says as JSON, ``None`` where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


@lru_cache(maxsize=256)
def _compiled(path: str) -> Any:
    import jmespath

    return jmespath.compile(path)
