"""What is read out of a page into columns of its own (``with``, ``text``), off the one tree that title and links come from.

What the columns need of the whole page is looked for in one search. A column of a body that cannot have it is null; a
page that could and does not gives an empty mapping or list.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from selectolax.lexbor import LexborHTMLParser, LexborNode

from fetcher.config.policies import Content
from fetcher.model import CONTENT_COLUMNS, Response
from fetcher.page.inner_text import inner_lines, inner_text, tag_ids
from fetcher.page.jsonld import read_jsonld
from fetcher.page.links import read_images, read_links
from fetcher.page.main_text import main_text
from fetcher.page.meta import language_of, read_meta
from fetcher.page.page_urls import BoundedURLs
from fetcher.page.url_attributes import PageURLs

__all__ = ["PageContent"]

_SEARCHED = {
    "meta": ("h1", "meta"),
    "jsonld": ("script",),
    "link_list": ("a[href]", "base[href]"),
    "image_list": ("img", "base[href]"),
    "microdata": ("base[href]",),
    "rdfa": ("base[href]",),
}
"""What is looked for in the whole page."""

_OF_XML = frozenset({"link_list", "text", "lang"})
_JSONLD_TYPE = "application/ld+json"
_PLAIN_TYPES = frozenset({"text/plain", "text/markdown", "text/x-markdown"})
_ANCHOR = LexborHTMLParser("").create_node("a").tag_id
_SAYING = tag_ids("meta link base")
_META, _BASE = (LexborHTMLParser("").create_node(name).tag_id for name in ("meta", "base"))


class ParsedBody(Protocol):
    """A body that is text, with its tree: ``parse.Document``, which stands on this module."""

    response: Response
    charset: str
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

    ``document`` is ``None`` for a body that is no text. After ``read``, ``links`` is the number of ``a[href]`` where
    they were looked for, and ``unconverted`` names the columns of which something could not be read.
    """

    def __init__(self, content: Content, document: ParsedBody | None) -> None:
        self.links: int | None = None
        self.unconverted: tuple[str, ...] = ()
        self._content = content
        self._document = document
        self._found: dict[str, list[LexborNode]] = {}

    def read(self, kind: str, *, count_links: bool = False) -> dict[str, Any]:
        """Return the value of each column, of a body that is ``html``, ``xml``, ``text`` or ``binary``.

        ``count_links`` says that the number of links is wanted too, which is cheap where anything else is looked for.
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
        urls = self._search(document, columns, count_links=count_links)
        for column in columns:
            values[column] = _READERS[column](self, document, urls)
        return values

    def _search(self, document: ParsedBody, columns: list[str], *, count_links: bool) -> BoundedURLs:
        """Look for all elements that are needed; return what resolves their URLs."""
        wanted = dict.fromkeys(selector for column in columns for selector in _SEARCHED.get(column, ()))
        if wanted and count_links:
            wanted["a[href]"] = None
        if document.is_xml and "a[href]" in wanted:
            wanted["link"] = None
        nodes = document.tree.css(",".join(wanted)) if wanted else []
        if "a[href]" in wanted and not document.is_xml:
            others = [node for node in nodes if node.tag_id != _ANCHOR]
            self.links = len(nodes) - len(others)
            if "link_list" in columns:
                self._found["a"] = [node for node in nodes if node.tag_id == _ANCHOR] if others else nodes
            nodes = others
        for node in nodes:
            self._found.setdefault(node.tag or "", []).append(node)
        if document.is_xml and wanted:
            self.links = len(self._nodes("a")) + len(self._nodes("link"))
        if "meta" in columns:
            self._find_said(document)
        base = self._nodes("base")
        url = document.response.url
        return BoundedURLs(PageURLs(url, lambda: base[0] if base else None), url)

    def _find_said(self, document: ParsedBody) -> None:
        """Look for what a page says of itself: in its head, or where some of it stands behind that, everywhere.

        A head ends where something does not belong into it, and what follows is in the body.
        """
        head = document.tree.head
        said = [node for node in head.traverse() if node.tag_id in _SAYING] if head is not None else []
        if sum(node.tag_id == _META for node in said) < len(self._nodes("meta")):
            said = document.tree.css("meta,link,base")
        bases = [node for node in said if node.tag_id == _BASE and "href" in node.attributes]
        self._found["base"] = bases or self._nodes("base")
        self._found["meta"] = [node for node in said if node.tag_id != _BASE]

    def _nodes(self, tag: str) -> list[LexborNode]:
        return self._found.get(tag, [])

    def _meta(self, document: ParsedBody, urls: BoundedURLs) -> dict[str, Any]:
        found = read_meta(self._nodes("meta"), self._nodes("h1"), urls)
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

    def _microdata(self, document: ParsedBody, urls: BoundedURLs) -> list[Any] | None:
        from fetcher.page.structured import read_microdata

        return self._said_by_attributes("microdata", read_microdata(document.text, urls.base.url))

    def _rdfa(self, document: ParsedBody, urls: BoundedURLs) -> list[Any] | None:
        from fetcher.page.structured import read_rdfa

        return self._said_by_attributes("rdfa", read_rdfa(document.text, urls.base.url))

    def _said_by_attributes(self, column: str, found: list[Any] | None) -> list[Any] | None:
        if found is None:
            self.unconverted = (*self.unconverted, column)
        return found

    def _link_list(self, document: ParsedBody, urls: BoundedURLs) -> list[dict[str, Any]]:
        anchors = self._nodes("a") + (self._nodes("link") if document.is_xml else [])
        return read_links(anchors, urls)

    def _image_list(self, document: ParsedBody, urls: BoundedURLs) -> list[dict[str, Any]]:  # noqa: ARG002 - a reader's
        return read_images(self._nodes("img"), urls)

    def _text(self, document: ParsedBody, urls: BoundedURLs) -> str | None:  # noqa: ARG002 - a reader's
        if self._content.text in (None, "body") or document.is_xml:
            body = document.tree.body
            return inner_lines(body) if body is not None else ""
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
    name: getattr(PageContent, f"_{name}") for name in CONTENT_COLUMNS.values()
}
