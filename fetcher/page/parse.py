"""What a response has in it: its kind, its text and its tree, each made when asked for and once, and what is read there.

Law 1: one outcome per request. What a user's extractor raises costs its own URL, as a ``ParseError``, and what is known
of a response that cannot be read stands in its failure.
Law 3: memory is bounded. A document is shared while somebody holds it; in a library the two last small ones stay a
while.
"""

from __future__ import annotations

import re
import weakref
from collections import deque
from collections.abc import Collection, Sequence
from functools import lru_cache
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import msgspec
from selectolax.lexbor import LexborHTMLParser, LexborNode, SelectolaxError
from xxhash import xxh3_128_hexdigest

from fetcher import event_loop
from fetcher.charset import count_characters, decode_as, detect, read_media_type, replace_surrogates
from fetcher.errors import ParseError
from fetcher.model import Extractor, Failure, FoundLinks, Pairs, Response, first_values
from fetcher.refresh import refresh_of

if TYPE_CHECKING:
    from fetcher.config.policies import Content
    from fetcher.page.found_links import LinkSearch
    from fetcher.page.select import Fields, Selection

__all__ = [
    "TREE_COLUMNS",
    "Document",
    "Kind",
    "Reading",
    "add_reading",
    "body_digest",
    "content_type_of",
    "extract_from",
    "kind_of",
    "parse",
    "read_body",
    "read_head",
    "read_headers",
    "validators_of",
]

Kind: TypeAlias = Literal["html", "xml", "text", "binary"]

_TEXT_TYPES = frozenset({
    "application/ecmascript", "application/graphql", "application/javascript", "application/json",
    "application/jsonl", "application/ndjson", "application/rtf", "application/sql", "application/toml",
    "application/x-javascript", "application/x-ndjson", "application/x-sh", "application/x-www-form-urlencoded",
    "application/x-yaml", "application/xml-dtd", "application/yaml",
})  # fmt: skip
_XML_TYPES = frozenset({"application/xml", "text/xml"})
_UNKNOWN_TYPES = frozenset({"", "application/unknown", "unknown/unknown"})

# WHATWG MIME Sniffing: the resource header is 1445 bytes; these are its "binary data bytes" and its HTML tags.
SNIFFED_BYTES = 1445
_BINARY_BYTE = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_BINARY_START = (b"%PDF-", b"%!PS-Adobe-")
_MARKS = (b"\xef\xbb\xbf", b"\xfe\xff", b"\xff\xfe")
_HTML_START = re.compile(
    rb"(?:\xef\xbb\xbf)?[\t\n\f\r ]*+<(?:!doctype html|html|head|script|iframe|h1|div|font|table|a|style|title|body"
    rb"|br|b|p|!--)[ >]",
    re.IGNORECASE,
)

_XHTML = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*+(?:<\?xml[^>]*>\s*+)?(?:<!--.*?-->\s*+)*(?:<!doctype\s+html[^>]*>\s*+)?<html[\s>]",
    re.IGNORECASE | re.DOTALL,
)

# A single space is left alone: most titles have no more.
_SPACES = re.compile(r" [\t\n\f\r ]+|[\t\n\f\r][\t\n\f\r ]*")
# Where HTML begins again inside SVG and MathML (HTML Standard, "HTML integration point").
_INTEGRATION_POINTS = frozenset({
    "foreignObject", "desc", "title", "annotation-xml", "mi", "mo", "mn", "ms", "mtext",
})  # fmt: skip
# Bounds for pages made to be slow: this many titles are looked at, each this far up.
MAX_TITLES = 256
MAX_ANCESTORS = 64
MAX_ROBOTS_METAS = 16
MAX_ROBOTS_CHARACTERS = 1_000

TREE_COLUMNS = frozenset({"title", "links", "robots"})
"""The columns of a record that need a page's tree."""

TDM_RESERVATION = "tdm-reservation"
"""What a page says that reserves its rights against text and data mining (TDMRep, W3C community report of 2024)."""

MAX_MESSAGE_CHARACTERS = 500  # of what an extractor raised
SMALL_BYTES = 1_536  # the largest page whose links are counted without a search
MAX_KEPT_BYTES = 262_144  # the largest body whose tree outlives its page
_TITLE, _META, _BASE = (LexborHTMLParser("").create_node(name).tag_id for name in ("title", "meta", "base"))
_TITLE_OR_META = frozenset({_TITLE, _META})
_TO_ROBOTS = frozenset({"robots", TDM_RESERVATION})
_UNSET: Any = object()

MAX_VALIDATOR_CHARACTERS = 1_000


class Head(NamedTuple):
    """What is read in the head of a page: its first ``title``, and the meta elements that speak ``to_robots``, in order."""

    title: LexborNode | None = None
    to_robots: Sequence[LexborNode] = ()


class Document:
    """The text and the tree of a response's body, made lazily; that of XML has its elements below the body.

    ``charset`` is the name ``detect`` gives, ``content_type`` what the headers say. Of ``tree`` only those who do not
    change it may share it.
    """

    __slots__ = (
        "__weakref__",
        "_base",
        "_bytes",
        "_head",
        "_links",
        "_text",
        "_title",
        "_tree",
        "charset",
        "content_type",
        "is_xml",
        "response",
    )

    def __init__(self, response: Response) -> None:
        self.response = response
        self.content_type = content_type = content_type_of(response)
        self.charset, start, self._text = detect(response.body, content_type)
        self._bytes = response.body[start:] if start else response.body
        self._tree: LexborHTMLParser | None = None
        self._head: Head | None = None
        self._title: str | None = _UNSET
        self._links: int = _UNSET
        self._base: LexborNode | None = _UNSET
        self.is_xml = content_type is not None and "xml" in content_type.lower() and kind_of(response) == "xml"

    @property
    def text(self) -> str:
        """The body decoded, errors replaced, without its byte order mark."""
        if self._text is None:
            self._text = decode_as(self._bytes, self.charset)
        return self._text

    @property
    def length(self) -> int:
        """The number of characters of ``text``."""
        return count_characters(self._bytes, self.charset) if self._text is None else len(self._text)

    @property
    def tree(self) -> LexborHTMLParser:
        """The body as lexbor's tree. Raises ``ParseError`` (``parse_crash``) where lexbor gives up."""
        if self._tree is None:
            if self.is_xml:
                from fetcher.page.xml_tree import xml_tree  # most pages are HTML

                self._tree = xml_tree(self.text)
                if self._tree is not None:
                    return self._tree
            # Lexbor reads UTF-8 and replaces errors itself, where text is taken out.
            source = self._bytes if self.charset == "utf-8" else self.text
            try:
                self._tree = LexborHTMLParser(source)
            except (SelectolaxError, ValueError, RuntimeError) as error:
                raise ParseError("parse_crash", str(error)) from error
        return self._tree

    @property
    def head(self) -> Head:
        """What the head says: the title, and what is for robots."""
        if self._head is None:
            title: LexborNode | None = None
            to_robots: list[LexborNode] = []
            head = self.tree.head
            # To begin a search takes longer than to go through most heads.
            for node in head.traverse() if head is not None else ():
                tag = node.tag_id
                if tag not in _TITLE_OR_META:
                    continue
                if tag == _TITLE:
                    title = node if title is None else title
                elif (node.attributes.get("name") or "").lower() in _TO_ROBOTS:
                    to_robots.append(node)
            self._head = Head(title, to_robots)
        return self._head

    @property
    def title(self) -> str | None:
        """What ``document.title`` says: ASCII whitespace stripped and collapsed; ``None`` without a title."""
        if self._title is _UNSET:
            node = self.tree.css_first("title") if self.is_xml else self.head.title
            if node is None and not self.is_xml:
                node = _find_title(self.tree)
            self._title = None if node is None else _SPACES.sub(" ", node.text(deep=False)).strip(" ")
        return self._title

    @property
    def base(self) -> LexborNode | None:
        """The first ``base[href]``: what references are relative to."""
        if self._base is _UNSET:
            self._base = self.tree.css_first("base[href]")
        return self._base

    def count_links(self, *, with_base: bool = False) -> int:
        """Return the number of ``a[href]``, in XML of ``link`` elements too; ``with_base`` looks for the base as well."""
        if self._links is _UNSET:
            if with_base and not self.is_xml:
                found = self.tree.css("a[href],base[href]")
                bases = [node for node in found if node.tag_id == _BASE]
                self._links = len(found) - len(bases)
                self._base = bases[0] if bases else None
            elif self.is_xml:
                self._links = len(self.tree.css("a[href],link"))
            else:
                tree = self.tree
                if len(self._bytes) > SMALL_BYTES or tree.tags("svg") or tree.tags("math"):
                    self._links = len(tree.css("a[href]"))
                else:  # to begin a search takes as long as to look at 15 links; in images it finds xlink:href, too
                    self._links = sum("href" in link.attrs for link in tree.tags("a"))
        return self._links

    def note_links(self, number: int) -> None:
        """Take the number of links from who has looked for them already."""
        self._links = number


def _find_title(tree: LexborHTMLParser) -> LexborNode | None:
    """Return the first HTML title element of a page with none in its head: those of SVG images have the same name."""
    first = tree.css_first("title")
    if first is None or _is_html(first):
        return first
    return next((other for other in tree.css("title")[1:MAX_TITLES] if _is_html(other)), None)


def _is_html(title: LexborNode) -> bool:
    ancestor = title.parent
    for _ in range(MAX_ANCESTORS):
        tag = ancestor.tag if ancestor is not None else None
        if ancestor is None or tag in {"head", "body"} or tag in _INTEGRATION_POINTS:
            return True
        if tag in {"svg", "math"}:
            return False
        ancestor = ancestor.parent
    return False


_last: weakref.ref[Document] | None = None
_kept: deque[Document] = deque(maxlen=2)


def parse(response: Response) -> Document:
    """Return the document of ``response``; while somebody holds it, the same one for the same response.

    So an extractor that parses the response at hand shares the tree that title and links came from.
    """
    global _last  # noqa: PLW0603 - one weak reference: a lost race costs a second parse
    document = _last() if _last is not None else None
    if document is None or document.response is not response:
        document = Document(response)
        _last = weakref.ref(document)
        # A tree that is freed before the next is made may be memory given back to the system and asked for again,
        # page fault by page fault: a tenth of the time. So two small ones are kept until others take their place.
        # Where what is freed stays, the next tree is rather made where the last one was, which the cache still has.
        if event_loop.freed_memory_stays:
            _kept.clear()
        elif len(response.body) <= MAX_KEPT_BYTES:
            _kept.append(document)
    return document


def content_type_of(response: Response) -> str | None:
    """Return all Content-Type headers of a response, joined by commas; ``None`` where there is none.

    Which of them counts is for ``read_media_type`` to say: servers, and the programs behind them, each add one.
    """
    headers = response.headers
    said = first_values(headers)  # a loop over them takes three times as long
    if len(said) == len(headers):
        return said.get("content-type")
    values = [value for name, value in headers if name == "content-type"]
    return ", ".join(values) if values else None


def kind_of(response: Response) -> Kind:
    """Tell what the body is by its Content-Type, and where that says nothing by its first bytes.

    The look at the bytes is the WHATWG MIME Sniffing Standard's in small. An empty body of no known type is text.
    """
    declared, unknown = _declared_kind(content_type_of(response))
    if declared == "xml":
        return "html" if _XHTML.match(response.body[:SNIFFED_BYTES]) else "xml"
    if declared is not None:
        return declared
    if unknown and _HTML_START.match(response.body):
        return "html"
    head = response.body[:SNIFFED_BYTES]
    if head.startswith(_MARKS):
        return "text"
    return "binary" if head.startswith(_BINARY_START) or _BINARY_BYTE.search(head) else "text"


@lru_cache(maxsize=256)
def _declared_kind(content_type: str | None) -> tuple[Kind | None, bool]:
    """Return what the headers say that a body is, ``None`` where that is for its bytes; and whether they say nothing."""
    essence = read_media_type(content_type).essence
    if essence in {"text/html", "application/xhtml+xml"}:
        return "html", False
    if essence in _XML_TYPES or essence.endswith("+xml"):
        return "xml", False
    if essence.startswith("text/") or essence.endswith("+json") or essence in _TEXT_TYPES:
        return "text", False
    unknown = essence in _UNKNOWN_TYPES
    return None if unknown or essence == "application/octet-stream" else "binary", unknown


class Reading(msgspec.Struct, frozen=True, array_like=True, tag="reading"):
    """What was read out of a body, here or in another process; the rest of a ``Page`` was known before."""

    length: int | None
    content_type: str | None
    charset: str | None
    title: str | None
    links: int | None
    preview: str | None
    robots: str | None = None
    data: Any = None
    unconverted: tuple[str, ...] = ()
    content: dict[str, Any] = {}
    found: FoundLinks | None = None
    unread: tuple[str, ...] = ()


def read_body(
    response: Response,
    *,
    select: Selection | None,
    extract: Extractor | None,
    preview: int = 0,
    columns: Collection[str] = TREE_COLUMNS,
    content: Content | None = None,
    search: LinkSearch | None = None,
) -> Reading:
    """Read what a record shows out of a body, and what ``extract`` or else ``select`` finds in it.

    ``preview`` is in characters, ``content`` says what is read into columns of its own, ``search`` which links are to
    be followed. A page whose tree no ``columns`` need is not parsed. Raises ``ParseError`` with what was read before.
    """
    document = parse(response) if (kind := kind_of(response)) != "binary" else None
    page = document if kind in ("html", "xml") else None
    title = links = robots = data = found = None
    unconverted: set[str] = set()
    unread: set[str] = set()
    try:
        title = page.title if page and "title" in columns else None
        counts = "links" in columns
        more = {} if content is None else _read_content(document, kind, content, unconverted, count_links=counts)
        if page and counts:
            links = page.count_links(with_base=select is not None and select.needs_base)
        robots = _robots_of(response, page.head.to_robots if page and "robots" in columns else ())
        found = None if search is None else _links_of(page, response, search)
        # The extractor last: it may do as it likes with the tree.
        if extract is not None:
            data = extract_from(response, extract)
        elif select is not None:
            data = _select_from(document, select, unconverted, unread, response=response, is_page=page is not None)
    except ParseError as error:
        error.reading = _known(response, title=title, links=links, robots=robots)
        raise
    return Reading(
        length=document.length if document else None,
        content_type=read_media_type(document.content_type if document else content_type_of(response)).essence or None,
        charset=document.charset if document else None,
        title=title,
        links=links,
        preview=document.text[:preview] if document and preview else None,
        robots=robots,
        data=data,
        unconverted=tuple(sorted(unconverted)) if unconverted else (),
        content=more,
        found=found,
        unread=tuple(sorted(unread)) if unread else (),
    )


def _known(response: Response, *, robots: str | None, **read: Any) -> Reading:
    """Return what is known of a page whose reading came to nothing."""
    known = read_head(response)
    return msgspec.structs.replace(known, robots=robots or known.robots, **read)


def _links_of(page: Document | None, response: Response, search: LinkSearch) -> FoundLinks | None:
    """Return the links of a page of HTML that are to be followed."""
    if page is None or kind_of(response) != "html":
        return None
    from fetcher.page.found_links import find_links  # most runs follow none

    said = _robots_of(response, page.head.to_robots)
    return find_links(page.tree, response.url, len(response.body), said, search)


def _select_from(
    document: Document | None,
    select: Selection,
    unconverted: set[str],
    unread: set[str],
    *,
    response: Response,
    is_page: bool,
) -> Fields:
    tree = document.tree if document is not None and is_page else None

    def base() -> LexborNode | None:
        return document.base if document is not None else None

    text = (lambda: document.text) if document is not None else None
    return select.select(tree, url=response.url, text=text, base=base, unconverted=unconverted, unread=unread)


def _read_content(
    document: Document | None, kind: Kind, content: Content, unconverted: set[str], *, count_links: bool
) -> dict[str, Any]:
    from fetcher.page.content import PageContent  # most runs ask for nothing of it

    reader = PageContent(content, document)
    values = reader.read(kind, count_links=count_links)
    if document is not None and reader.links is not None:
        document.note_links(reader.links)
    unconverted.update(reader.unconverted)
    return values


def read_head(response: Response) -> Reading:
    """Read of a body what takes no tree, and so can neither take long nor kill: its type, charset and length."""
    document = Document(response) if kind_of(response) != "binary" else None
    return Reading(
        length=document.length if document else None,
        content_type=read_media_type(content_type_of(response)).essence or None,
        charset=document.charset if document else None,
        title=None,
        links=None,
        preview=None,
        robots=_robots_of(response, ()),
    )


def read_headers(response: Response) -> Reading:
    """Read what the headers alone say of a page, where it has no body: its type, its charset, and what it tells robots."""
    media = read_media_type(content_type_of(response))
    return Reading(
        length=None,
        content_type=media.essence or None,
        charset=media.charset,
        title=None,
        links=None,
        preview=None,
        robots=_robots_of(response, ()),
    )


def _robots_of(response: Response, metas: Sequence[LexborNode]) -> str | None:
    """Return what a page says to robots of itself, joined by commas (``noindex, nofollow``), or ``None`` for nothing.

    It is said in ``X-Robots-Tag`` headers and in the ``metas`` of its head. A header may name the robot it is for
    (``otherbot: noindex``); that stands as it is. A reservation against text and data mining is one more word.
    """
    said: list[str] = []
    reservation = None
    names = first_values(response.headers)
    if "x-robots-tag" in names or TDM_RESERVATION in names:
        for name, value in response.headers:
            if name == "x-robots-tag":
                said.append(value)
            elif name == TDM_RESERVATION and reservation is None:
                reservation = value
    for node in metas[:MAX_ROBOTS_METAS]:
        content = node.attributes.get("content") or ""
        if (node.attributes.get("name") or "").lower() == "robots":
            said.append(content)
        elif content.strip() == "1":
            said.append(TDM_RESERVATION)
    if reservation == "1":
        said.append(TDM_RESERVATION)
    if not said:
        return None
    text = ", ".join(filter(None, (" ".join(text.split()) for text in said)))[:MAX_ROBOTS_CHARACTERS]
    # Bytes of a header that are no UTF-8 are lone surrogates, which no message between processes can hold.
    return replace_surrogates(text) or None


def extract_from(response: Response, extract: Extractor) -> Any:
    """Return what ``extract`` makes of a response. Raises ``ParseError`` (``extract_failed``) with what it raised.

    A ``MemoryError`` is passed on: the memory that is short is ours, not the page's.
    """
    try:
        data = extract(response)
    except (ParseError, MemoryError):
        raise
    except Exception as error:
        raise ParseError("extract_failed", _describe(error)) from error
    if isinstance(data, CoroutineType):
        data.close()
        raise ParseError("extract_failed", "it returned a coroutine: what reads a page is a plain function")
    return data


def _describe(error: Exception) -> str:
    try:
        message = str(error)
    except Exception as broken:  # noqa: BLE001 - an error of the user's that cannot be shown must not end the run
        message = f"(its message cannot be shown: {type(broken).__name__})"
    return f"{type(error).__name__}: {message}"[:MAX_MESSAGE_CHARACTERS]


def add_reading(failure: Failure, response: Response, reading: Reading, *, headers: Pairs = ()) -> Failure:
    """Return a failure to read a response with what is known of that: its record lacks nothing but the data."""
    return msgspec.structs.replace(
        failure,
        url=response.url,
        status=response.status,
        bytes=len(response.body),
        redirects=response.redirects,
        length=reading.length,
        content_type=reading.content_type,
        charset=reading.charset,
        title=reading.title,
        links=reading.links,
        truncated=response.truncated,
        robots=reading.robots,
        refresh=refresh_of(response),
        headers=headers,
    )


def validators_of(response: Response) -> tuple[str | None, str | None]:
    """Return the ``ETag`` and the ``Last-Modified`` of a response as sent (RFC 9110, 8.8), not all of a very long one."""
    said = first_values(response.headers)
    etag, last_modified = said.get("etag"), said.get("last-modified")
    return etag and _shown(etag), last_modified and _shown(last_modified)


def body_digest(body: bytes) -> str:
    """Return what tells a body from another: XXH3 of 128 bits, made for speed and not against who means to deceive."""
    return f"xxh3:{xxh3_128_hexdigest(body)}"


def _shown(value: str) -> str:
    return replace_surrogates(value[:MAX_VALIDATOR_CHARACTERS])
