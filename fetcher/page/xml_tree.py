"""XML (RSS, Atom, sitemaps, SVG) as a tree that the same selectors read.

An HTML parser takes ``<link>https://…</link>`` for a void element, and CDATA for a comment. So expat reads the
document, and its elements are put below the ``body`` of an empty page, names in lower case, ``media:content`` with its
prefix. Law 7: a document that declares entities is not read, nothing is fetched, and what is nested deeper than
``MAX_DEPTH`` is left out.
"""

from __future__ import annotations

from typing import Any
from xml.parsers import expat

from selectolax.lexbor import LexborHTMLParser, LexborNode, SelectolaxError

__all__ = ["xml_tree"]

MAX_DEPTH = 256


class _EntityDeclaredError(Exception):
    """A document type that defines entities: what they expand to is no page's business."""


class _Builder:
    """Puts elements and text where expat says that they stand."""

    def __init__(self) -> None:
        self.tree = LexborHTMLParser("<body>")
        assert self.tree.body is not None
        self._open: list[LexborNode] = [self.tree.body]
        self._passed = 0  # elements that are open and too deep
        self._text: list[str] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._flush()
        if self._passed or len(self._open) > MAX_DEPTH:
            self._passed += 1
            return
        parent = self._open[-1]
        try:
            parent.insert_child(self.tree.create_node(name.lower()))
        except SelectolaxError:  # a name that lexbor has no element for
            self._passed += 1
            return
        # What was inserted is a copy.
        node = parent.last_child
        assert node is not None
        for key, value in attributes.items():
            node.attrs[key.lower()] = value
        self._open.append(node)

    def end(self, _: str) -> None:
        self._flush()
        if self._passed:
            self._passed -= 1
        else:
            self._open.pop()

    def text(self, data: str) -> None:
        if not self._passed:
            self._text.append(data)

    def _flush(self) -> None:
        if self._text:
            self._open[-1].insert_child("".join(self._text))
            self._text.clear()


def xml_tree(text: str) -> LexborHTMLParser | None:
    """Return the tree of a document, ``None`` where it is not well-formed or declares entities."""
    builder = _Builder()
    parser = expat.ParserCreate(encoding="utf-8")  # whatever the document says: the text is decoded
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.text
    parser.EntityDeclHandler = _refuse
    try:
        parser.Parse(text.lstrip().encode("utf-8", "replace"), True)
    except (expat.ExpatError, _EntityDeclaredError):
        return None
    return builder.tree


def _refuse(*_: Any) -> None:
    raise _EntityDeclaredError
