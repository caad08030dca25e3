"""What is read out of a page into columns of its own (``with``, ``text``), off the one tree that title and links come from.

What the columns need of the whole page is looked for in one search. A column of a body that cannot have it is null; a page
that could and does not gives an empty mapping or list.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from selectolax.lexbor import LexborHTMLParser, LexborNode

from fetcher.config.policies import Content
from fetcher.model import Response
from fetcher.page.inner_text import inner_lines, inner_text
from fetcher.page.jsonld import read_jsonld
from fetcher.page.links import read_images, read_links
from fetcher.page.main_text import main_text
from fetcher.page.meta import HEAD_ELEMENTS, language_of, read_meta
from fetcher.page.page_urls import BoundedURLs
from fetcher.page.url_attributes import PageURLs

__all__ = ["PageContent"]

_SEARCHED = {
    "meta": (*HEAD_ELEMENTS, "h1", "base[href]"),
    "jsonld": ("script",),
    "link_list": ("a[href]", "base[href]"),
    "image_list": ("img", "base[href]"),
}
_OF_XML = frozenset({"link_list", "text", "lang"})
_JSONLD_TYPE = "application/ld+json"
_PLAIN_TYPES = frozenset({"text/plain", "text/markdown", "text/x-markdown"})
_MAY_HIDE = (b"hidden", b"HIDDEN", b"Hidden", b"display", b"<dialog", b"<DIALOG")


class ParsedBody(Protocol):
    """A body that is text, with its tree: ``parse.Document``, which stands on this module."""

    response: Response
    is_xml: bool

    @property
    def text(self) -> str:
        """The body decoded."""
        ...

    @property
    def tree(self) -> LexborHTMLParser:
        """The body as a tree."""
        ...


class PageContent:
    """Reads the columns that are asked for of one page.

    ``document`` is ``None`` for a body that is no text. After ``read``, ``links`` is the number of ``a[href]`` where they
    were looked for, and ``unconverted`` names the columns of which something could not be read.
    """

    def __init__(self, content: Content, document: ParsedBody | None) -> None:
        self.links: int | None = None
        self.unconverted: tuple[str, ...] = ()
        self._content = content
        self._document = document
        self._found: dict[str, list[LexborNode]] = {}

    def read(self, kind: str) -> dict[str, Any]:
        """Return the value of each column, of a body that is ``html``, ``xml``, ``text`` or ``binary``.

        Raises ``ParseError`` where the parser gives up.
        """
        values: dict[str, Any] = dict.fromkeys(self._content.columns)
        document = self._document
        if document is None:
            return values
        if kind == "text":
            content_type = (document.response.header("content-type") or "").partition(";")[0].strip().lower()
            if "text" in values and content_type in _PLAIN_TYPES:
                values["text"] = document.text
            if "lang" in values:
                values["lang"] = language_of(document.response.header("content-language"))
            return values
        columns = list(values) if kind == "html" else [name for name in values if name in _OF_XML]
        urls = self._search(document, columns, is_xml=kind == "xml")
        for column in columns:
            values[column] = _READERS[column](self, document, urls)
        return values

    def _search(self, document: ParsedBody, columns: list[str], *, is_xml: bool) -> BoundedURLs:
        """Look for all elements that are needed; return what resolves their URLs."""
        wanted = dict.fromkeys(selector for column in columns for selector in _SEARCHED.get(column, ()))
        if is_xml and "a[href]" in wanted:
            wanted["link"] = None
        found = self._found
        for node in document.tree.css(",".join(wanted)) if wanted else ():
            tag = node.tag or ""
            if tag in found:
                found[tag].append(node)
            else:
                found[tag] = [node]
        if "a[href]" in wanted:
            self.links = len(self._nodes("a")) + (len(self._nodes("link")) if is_xml else 0)
        base = self._nodes("base")
        return BoundedURLs(PageURLs(None, document.response.url, base=base[0] if base else None), document.response.url)

    def _nodes(self, tag: str) -> list[LexborNode]:
        return self._found.get(tag, [])

    def _meta(self, document: ParsedBody, urls: BoundedURLs) -> dict[str, Any]:
        found = read_meta(self._nodes("meta") + self._nodes("link"), self._nodes("h1"), urls)
        language = self._lang(document, urls)
        return found if language is None else {"language": language, **found}

    def _jsonld(self, document: ParsedBody, urls: BoundedURLs) -> list[Any]:  # noqa: ARG002 - a reader's
        scripts = [
            node for node in self._nodes("script") if _JSONLD_TYPE in (node.attributes.get("type") or "").lower()
        ]
        values, strange = read_jsonld(script.text() for script in scripts)
        if strange:
            self.unconverted = (*self.unconverted, "jsonld")
        return values

    def _link_list(self, document: ParsedBody, urls: BoundedURLs) -> list[dict[str, Any]]:
        return read_links(self._nodes("a") + (self._nodes("link") if document.is_xml else []), urls)

    def _image_list(self, document: ParsedBody, urls: BoundedURLs) -> list[dict[str, Any]]:  # noqa: ARG002 - a reader's
        return read_images(self._nodes("img"), urls)

    def _text(self, document: ParsedBody, urls: BoundedURLs) -> str | None:  # noqa: ARG002 - a reader's
        if self._content.text in (None, "body") or document.is_xml:
            body = document.tree.body
            may_hide = any(word in document.response.body for word in _MAY_HIDE)
            return inner_lines(body, may_hide=may_hide) if body is not None else ""
        text = main_text(document.text, self._content)
        if text is None:
            self.unconverted = (*self.unconverted, "text")
        return text

    def _lang(self, document: ParsedBody, urls: BoundedURLs) -> str | None:  # noqa: ARG002 - a reader's
        tree = document.tree
        if document.is_xml:
            root = tree.body.first_child if tree.body is not None else None
            said = root.attributes.get("xml:lang") if root is not None else None
            element = tree.css_first("language") if said is None else None  # RSS
            own = [said, inner_text(element) if element is not None else None]
        else:
            attributes = tree.root.attributes if tree.root is not None else {}
            own = [attributes.get("lang"), attributes.get("xml:lang")]
        language = language_of(*own)
        if language is None and not document.is_xml and tree.head is not None:
            metas = (
                node.attributes for node in tree.head.css("meta[http-equiv=content-language i],meta[name=language i]")
            )
            language = language_of(*(attributes.get("content") for attributes in metas))
        return language if language is not None else language_of(document.response.header("content-language"))


_READERS: dict[str, Callable[[PageContent, ParsedBody, BoundedURLs], Any]] = {
    name: getattr(PageContent, f"_{name}") for name in ("meta", "jsonld", "link_list", "image_list", "text", "lang")
}
