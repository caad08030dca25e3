"""The microdata and the RDFa of a page: the columns ``microdata`` and ``rdfa``, by extruct, which is an extra.

Microdata (WHATWG HTML, 5) is read as extruct has it, with ``content`` of any element, which schema.org's own examples
use. RDFa 1.1 (W3C) is read by pyRdfa into expanded JSON-LD (W3C), of which blank nodes are nested where they are
referred to. turbohtml, which needs no other library and takes a hundredth of the time, leaves out what has no
``typeof``, and ``rel``: most of the W3C's own examples.

Each parses the page again, so they run in processes of their own, and a page without the attributes is not given to
them. Law 3: what is read out of one page is bounded. Law 7: a page that they cannot read is no bug, and fails no row;
pyRdfa is told to ask nobody for the vocabularies that a page names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from fetcher.config.policies import Content
from fetcher.errors import ConfigError, ParseError, missing_extra
from fetcher.page.jsonld import MAX_DEPTH, fits
from fetcher.page.main_text import is_installed
from fetcher.record import to_json

__all__ = ["check_structured", "read_microdata", "read_rdfa"]

MAX_BYTES = 10 * 1024 * 1024  # of what is read out of one page: nested properties repeat the text of those within
EXTRA = "structured"
_MODULES = ("extruct", "rdflib", "pyRdfa")

_decode = msgspec.json.Decoder().decode
_BLANK = "_:"
_SAYING = re.compile("property|typeof|vocab")
# A link says something by a name with a prefix, by an IRI, or by one of the few terms that need none.
_RELATION = re.compile(
    r"\bre[lv]\s*+=\s*+(?:\"[^\">]*?|'[^'>]*?|[^\s\"'>]*?)(?::|\blicense\b|\bdescribedby\b|\brole\b)"
)
_OTHER_TERMS = "xhtml"  # in which there are more of them
_HEAD_CHARACTERS = 1024
_ROLE = "http://www.w3.org/1999/xhtml/vocab#role"


def check_structured(content: Content) -> None:
    """Raise ``ConfigError`` where ``content`` asks for microdata or RDFa, and the library is not installed."""
    asked = [part for part in ("microdata", "rdfa") if part in content.parts]
    missing = next((module for module in _MODULES if not is_installed(module)), None) if asked else None
    if missing is not None:
        raise ConfigError(f"with {asked[0]}: {missing_extra(missing, EXTRA)}")


def read_microdata(html: str, base: str) -> list[Any] | None:
    """Return the items of a page that are no property of another: ``type``, ``id`` and ``properties``, as far as it has them.

    A property is a text, a URL joined to ``base``, an item, or a list of several. ``None`` where the library gives up.
    Raises ``ParseError`` where it cannot be imported.
    """
    if "itemscope" not in html.lower():
        return []
    try:
        from extruct.w3cmicrodata import MicrodataExtractor

        return _plain(MicrodataExtractor().extract(_source(html), base_url=base))
    except ImportError as error:
        raise ParseError("extract_failed", f"with microdata: {error}") from error
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - whatever a library stumbles over
        return None


def read_rdfa(html: str, base: str) -> list[Any] | None:
    """Return the resources that a page describes, as expanded JSON-LD in an order that is the same each time.

    ``None`` where the library gives up. Raises ``ParseError`` where it cannot be imported.
    """
    if not _says_something(html.lower()):
        return []
    try:
        from extruct.rdfa import RDFaExtractor

        return _plain(_nested(_without_roles(RDFaExtractor().extract(_source(html), base_url=base))))
    except ImportError as error:
        raise ParseError("extract_failed", f"with rdfa: {error}") from error
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - as above
        return None


def _source(html: str) -> bytes:
    """Return a page for lxml, which refuses a text that says an encoding; the library says which it is."""
    return html.encode("utf-8", "replace")


def _says_something(html: str) -> bool:
    said = _SAYING.search(html) or _OTHER_TERMS in html[:_HEAD_CHARACTERS] or _RELATION.search(html)
    return bool(said)


def _plain(found: Any) -> list[Any] | None:
    """Return what was found as every format and every message can hold it; ``None`` where it is too large or too deep."""
    encoded = to_json(found)
    if len(encoded) > MAX_BYTES:
        return None
    plain: list[Any] = _decode(encoded)
    return plain if fits(plain, MAX_DEPTH) else None


def _without_roles(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what ``role`` attributes say (W3C Role Attribute): where a page has its menu is nothing it describes."""
    for node in nodes:
        node.pop(_ROLE, None)
    return [node for node in nodes if len(node) > 1]


def _nested(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a graph with its blank nodes where they are referred to once, and in an order of its own.

    Their names are random and the nodes' order is a set's: two readings of one page would differ. Those that keep a
    name, as several refer to them, are named by their place.
    """
    blank = {node["@id"]: node for node in nodes if node["@id"].startswith(_BLANK)}
    referred = Counter(name for node in nodes for name in _references(node))
    once = {name for name in blank if referred[name] == 1}
    placed: set[str] = set()

    def place(value: Any) -> Any:
        if isinstance(value, list):
            return [place(item) for item in value]
        if not isinstance(value, dict):
            return value
        name = value.get("@id", "")
        if len(value) == 1 and name in once and name not in placed:
            placed.add(name)
            value = {key: item for key, item in blank[name].items() if key != "@id"}
        return {key: place(item) for key, item in value.items()}

    roots = [place(node) for node in nodes if node["@id"] not in once]
    for name in sorted(once):  # of a circle, which none from outside refers to
        if name not in placed:
            placed.add(name)
            roots.append(place(blank[name]))
    roots = [
        {key: item for key, item in root.items() if key != "@id" or referred[item] or not item.startswith(_BLANK)}
        for root in roots
    ]
    return _named(sorted(roots, key=lambda root: to_json(_named([root], same=True))))


def _references(node: dict[str, Any]) -> Iterator[str]:
    """Give the names that a node's properties refer to, each as often as they do."""
    waiting = [item for key, item in node.items() if key != "@id"]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict):
            if isinstance(value.get("@id"), str):
                yield value["@id"]
            waiting.extend(value.values())


def _named(nodes: list[dict[str, Any]], *, same: bool = False) -> list[dict[str, Any]]:
    """Return nodes with their blank names numbered in the order they come in, or all the ``same``."""
    names: dict[str, str] = {}

    def rename(value: Any) -> Any:
        if isinstance(value, list):
            return [rename(item) for item in value]
        if not isinstance(value, dict):
            return value
        renamed = {key: rename(item) for key, item in value.items()}
        name = value.get("@id")
        if isinstance(name, str) and name.startswith(_BLANK):
            renamed["@id"] = names.setdefault(name, f"{_BLANK}b{0 if same else len(names)}")
        return renamed

    return [rename(node) for node in nodes]
