"""Reads one sitemap: XML of sitemaps.org (a list of pages, or an index of sitemaps), plain text, RSS 2.0 or Atom.

Laws: one entry is held at a time, and no part of a document is held longer than ``MAX_TOKEN_BYTES``, whatever it
expands to (3). The document is the web's (7): a DTD of its own is refused, so no entity is ever expanded and no file or
address is ever opened; its nesting, its size and the length of each text are bounded. What is wrong with the whole
document is a ``SourceError``, what is wrong with one entry a ``BadRow`` (2).

Namespaces are not looked up, for many sitemaps have them wrong or do not declare them: an element counts by its name,
its place, and the prefix it shares with the element around it. So ``image:loc`` in a ``url`` is no ``loc`` of it. An
``&`` that begins no reference of XML is text: many write URLs as they are, and XML would end the document there.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from itertools import chain, repeat
from typing import Final, TypeAlias
from xml.parsers import expat

import msgspec

from fetcher.errors import InvalidURL, SourceError
from fetcher.model import Request
from fetcher.sources.columns import ColumnError, find_carried
from fetcher.sources.lines import MAX_LINE_BYTES, ListEncoding, text_blocks
from fetcher.sources.rows import BadRow, bad_row, read_url
from fetcher.sources.text import read_text
from fetcher.urls import join

__all__ = [
    "MAX_BYTES",
    "NO_NUMBER",
    "SITEMAP_FIELDS",
    "Location",
    "Sitemap",
    "bounded",
    "carried_fields",
    "is_html",
    "read_sitemap",
]

MAX_BYTES: Final = 100 * 1024 * 1024
"""Bytes of a sitemap, unpacked. The protocol allows 50 MB."""

MAX_TOKEN_BYTES: Final = 2 * 1024 * 1024
"""Bytes of one tag or comment: expat looks at an unfinished one again from its start with each block."""

MAX_NESTING: Final = 100
"""Elements around an element. A sitemap has five, a feed with XHTML in it a few more."""

SITEMAP_FIELDS: Final = ("lastmod", "changefreq", "priority")
"""The fields a row may have; those that its entry lacks are not there."""

MAX_ENTRIES: Final = 1_000_000
"""Entries of one sitemap. The protocol allows 50,000."""

NO_NUMBER: Final = 0
"""The number of a row that will get its own when it is handed out."""


class Sitemap(msgspec.Struct, frozen=True):
    """A sitemap that another one, or a robots.txt, names; or one that is looked for where sitemaps are: ``guessed``.

    ``robots`` says that the robots.txt of its host must allow it, for it is not that which names it. ``guarded`` is as
    a ``Request``'s.
    """

    url: str
    robots: bool = True
    guessed: bool = False
    guarded: bool = False


Location: TypeAlias = Request | BadRow | Sitemap
"""What a sitemap lists. Rows have no number yet."""

_BLANKS = b" \t\r\n\f\v"
_BOM = b"\xef\xbb\xbf"
_WIDE = {b"\xff\xfe<\0": "utf-16", b"\xfe\xff\0<": "utf-16", b"<\0": "utf-16-le", b"\0<": "utf-16-be"}  # XML in UTF-16
_HEAD_BYTES = 1024  # that tell what a document is
_SHOWN_HEAD = 8 * 1024
_HTML = re.compile(rb"<(?:!doctype\s+html|html|head|body|script|title|meta)\b", re.IGNORECASE)
_SKIPPED = ((b"<!--", b"-->"), (b"<?", b"?>"))  # before the root
_FIRST_URL = re.compile(rb"(?:[ \t]*(?:#[^\n]*)?\r?\n)*[ \t\"'<]*https?://", re.IGNORECASE)
_DECLARED = re.compile(rb"<\?xml[^>]{0,200}?\sencoding\s*=\s*[\"']([A-Za-z0-9._:-]{1,40})[\"']")
_NO_CHARSETS = frozenset({"idna", "punycode", "unicode-escape", "raw-unicode-escape", "utf-7", "undefined"})
_CUT_SHORT = frozenset({
    expat.errors.codes[expat.errors.XML_ERROR_NO_ELEMENTS],
    expat.errors.codes[expat.errors.XML_ERROR_UNCLOSED_TOKEN],
    expat.errors.codes[expat.errors.XML_ERROR_UNCLOSED_CDATA_SECTION],
    expat.errors.codes[expat.errors.XML_ERROR_PARTIAL_CHAR],
})  # fmt: skip
_CDATA, _CDATA_END = b"<![CDATA[", b"]]>"
_BARE_AMPERSAND = re.compile(rb"&(?!(?:amp|lt|gt|quot|apos|#[0-9]+|#x[0-9a-fA-F]+);)")
_REFERENCE_BYTES = 64  # of the longest reference: one that is cut by the end of a block is kept for the next
_UNDECIDED = re.compile(rb"(?:&[#0-9A-Za-z]*|<[!\[CDAT]*)\Z")
_ABSOLUTE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)

_ITEMS: Final[dict[str, dict[tuple[int, str], str]]] = {
    "urlset": {(2, "url"): "url", (2, "sitemap"): "sitemap"},
    "sitemapindex": {(2, "sitemap"): "sitemap", (2, "url"): "url"},
    "rss": {(3, "item"): "item"},
    "rdf": {(2, "item"): "item"},
    "feed": {(2, "entry"): "entry"},
}
"""The root of a document -> how deep which elements stand that are entries, and which kind each is."""

_TEXTS: Final[dict[str, frozenset[str]]] = {
    "url": frozenset({"loc", *SITEMAP_FIELDS}),
    "sitemap": frozenset({"loc"}),
    "item": frozenset({"link", "guid", "pubdate"}),
    "entry": frozenset({"link", "updated", "published"}),
}
"""The kind of an entry -> the elements in it whose text is wanted."""


def read_sitemap(blocks: Iterator[bytes], *, name: str, base: str | None) -> Iterator[Location]:
    """Yield what a sitemap lists; ``blocks`` are unpacked bytes, ``name`` is what messages call it.

    Relative locations are resolved against ``base``, where there is one. Raises ``SourceError``, perhaps after some
    locations, for what is no sitemap, is broken, or is beyond a bound.
    """
    blocks = bounded(blocks, name, "sitemaps.org allows 50 MB")
    head = b""
    for block in blocks:
        head = (
            (head + block).lstrip(_BLANKS).removeprefix(_BOM).lstrip(_BLANKS)
        )  # blanks before <?xml are common, and an error to expat
        if len(head) >= _HEAD_BYTES:
            break
    if not head:
        raise SourceError(f"{name}: is empty, and no sitemap")
    blocks = chain([head], blocks)
    if is_html(head):
        raise _html_page(name)
    found = _read_xml(blocks, name, base) if head.startswith((b"<", *_WIDE)) else _read_plain(blocks, name)
    for count, location in enumerate(found):
        if count >= MAX_ENTRIES:
            raise SourceError(f"{name}: has over {MAX_ENTRIES:,} entries (sitemaps.org allows 50,000)")
        yield location


def carried_fields(carry: Sequence[str] | None) -> tuple[str, ...]:
    """Return the fields that rows have where ``carry`` names them, else all. Raises ``SourceError`` for any other."""
    if carry is None:
        return SITEMAP_FIELDS
    try:
        return tuple(SITEMAP_FIELDS[at] for at in find_carried(SITEMAP_FIELDS, carry))
    except ColumnError as error:
        raise SourceError(f"sitemap: {error}") from None


def is_html(head: bytes) -> bool:
    """Tell whether what begins with ``head`` is an HTML page."""
    head = head[:_SHOWN_HEAD].lstrip(_BLANKS)
    while end := next((end for start, end in _SKIPPED if head.startswith(start)), None):
        head = head.partition(end)[2].lstrip(_BLANKS)
    return _HTML.match(head) is not None


def bounded(blocks: Iterator[bytes], name: str, advice: str) -> Iterator[bytes]:
    """Pass on ``MAX_BYTES``. Raises ``SourceError``, with ``advice``, where there are more."""
    size = 0
    for block in blocks:
        size += len(block)
        if size > MAX_BYTES:
            raise SourceError(f"{name}: is over {MAX_BYTES // (1024 * 1024)} MiB unpacked ({advice})")
        yield block


def _read_plain(blocks: Iterator[bytes], name: str) -> Iterator[Location]:
    """Yield the rows of a text sitemap, one URL a line. Raises ``SourceError`` unless it begins with one."""
    encoding = ListEncoding(name, silent=True)  # UTF-8, says the protocol: no option is of use
    head = b""
    for block in (text := text_blocks(blocks, name, encoding)):
        head += block
        if len(head) >= _SHOWN_HEAD or _FIRST_URL.match(head):
            break
    if not _FIRST_URL.match(head):
        raise SourceError(f"{name}: is no sitemap: neither XML nor a list of URLs, one a line")
    yield from read_text(chain([head], text), name=name, numbers=repeat(NO_NUMBER), encoding=encoding)


def _read_xml(blocks: Iterator[bytes], name: str, base: str | None) -> Iterator[Location]:
    document = _Document(name, base)
    parser = document.parser
    fed = 0
    try:
        for block in _with_ampersands(_as_utf8(blocks, name)):
            fed += len(block)
            parser.Parse(block, False)
            if fed - max(parser.CurrentByteIndex, document.seen) > MAX_TOKEN_BYTES:
                raise SourceError(f"{name}:{parser.CurrentLineNumber}: a tag or comment of over 2 MiB")
            yield from document.take()
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        yield from document.take()
        if error.code in _CUT_SHORT:
            raise SourceError(f"{name}:{error.lineno}: ends in the middle: it was cut short") from None
        raise SourceError(f"{name}:{error.lineno}: is not well-formed XML ({expat.ErrorString(error.code)})") from None
    yield from document.take()


def _as_utf8(blocks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Recode what is in another encoding, by its mark or its declaration; a byte that is wrong costs no document.

    Expat knows few encodings, and ends at a wrong byte. Raises ``SourceError`` for an encoding that nobody knows.
    """
    head = next(blocks, b"")
    declared = _DECLARED.match(head)
    label = declared[1].decode() if declared is not None else "utf-8"
    if label.lower().startswith("utf-16"):
        label = "utf-8"  # what was read so far was no UTF-16
    label = next((wide for start, wide in _WIDE.items() if head.startswith(start)), label)
    try:
        codec = codecs.lookup(label)
        if codec.name in _NO_CHARSETS or not getattr(codec, "_is_text_encoding", True) or not codec.incrementaldecoder:
            raise LookupError
    except LookupError:
        raise SourceError(f"{name}: has the encoding {label!r}, which is not known") from None
    decoder = codec.incrementaldecoder("replace")
    for block in chain([head], blocks):
        yield decoder.decode(block).encode("utf-8", "replace")


def _with_ampersands(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Write ``&amp;`` for each ``&`` that begins no reference, outside of CDATA sections, where it is text already.

    So are names that XML does not know (``&nbsp;``), for no DTD is read that could declare them. Well-formed documents
    come as they are, but for their comments: what looks there like the start of a CDATA section only hides some from
    us.
    """
    rest = b""
    inside = False  # a CDATA section
    for block in blocks:
        data, done, start = rest + block, [], 0
        while (end := data.find(_CDATA_END if inside else _CDATA, start)) >= 0:
            done.append(_written(data[start:end], inside=inside))
            start, inside = end, not inside  # the mark itself is no matter to what is behind it
        end = _undecided_from(data, start, inside=inside)
        done.append(_written(data[start:end], inside=inside))
        rest = data[end:]
        yield b"".join(done)
    yield _written(rest, inside=inside)


def _written(data: bytes, *, inside: bool) -> bytes:
    return data if inside else _BARE_AMPERSAND.sub(b"&amp;", data)


def _undecided_from(data: bytes, start: int, *, inside: bool) -> int:
    """Return where ``data`` ends in what only the next block can tell: a part of a reference, or of a CDATA mark."""
    if inside:
        return max(start, len(data) - (2 if data.endswith(b"]]") else 1 if data.endswith(b"]") else 0))
    found = _UNDECIDED.search(data, max(start, len(data) - _REFERENCE_BYTES))
    return len(data) if found is None else found.start()


def _html_page(name: str) -> SourceError:
    return SourceError(f"{name}: is an HTML page, and no sitemap")


class _Document:
    """Makes locations of the events of ``parser``; ``seen`` is the byte up to which it got."""

    def __init__(self, name: str, base: str | None) -> None:
        self.seen = 0
        self.parser = parser = expat.ParserCreate("utf-8")
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        self._name = name
        self._base = base
        self._found: list[Location] = []
        self._depth = 0
        self._items: Mapping[tuple[int, str], str] = {}
        # Of the entry under way:
        self._kind = ""
        self._level = 0
        self._prefix = ""
        self._line = 0
        self._texts: dict[str, str] = {}
        self._link = ""  # Atom: an attribute
        # Of the element in it whose text is collected; the entry itself is "":
        self._into: str | None = None
        self._size = 0
        self._parts: list[str] = []

    def take(self) -> list[Location]:
        """Return what was found since the last time."""
        found, self._found = self._found, []
        return found

    def _doctype(self, root: str, system: str | None, public: str | None, has_subset: int) -> None:  # noqa: ARG002  (expat gives it)
        if root.lower() == "html":
            raise _html_page(self._name)
        if has_subset:  # where entities are declared; a DTD elsewhere is never fetched
            raise SourceError(
                f"{self._name}:{self.parser.CurrentLineNumber}: has a DTD of its own (entities), which is refused"
            )

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self.seen = self.parser.CurrentByteIndex
        prefix, _, local = tag.rpartition(":")
        local = local.lower()
        if self._depth > MAX_NESTING:
            raise SourceError(
                f"{self._name}:{self.parser.CurrentLineNumber}: elements are nested over {MAX_NESTING} deep"
            )
        if self._depth == 1:
            self._open_root(local)
        elif not self._kind:
            kind = self._items.get((self._depth, local))
            if kind is not None:
                self._kind, self._level, self._prefix = kind, self._depth, prefix
                self._line = self.parser.CurrentLineNumber
                self._texts, self._link = {}, ""
                self._collect("")
        else:
            self._keep()
            if self._depth == self._level + 1 and prefix == self._prefix and local in _TEXTS[self._kind]:
                self._open_text(local, attributes)

    def _open_root(self, local: str) -> None:
        if local == "html":
            raise _html_page(self._name)
        if local not in _ITEMS:
            raise SourceError(f"{self._name}: is XML and no sitemap, RSS or Atom (its root is <{local[:40]}>)")
        self._items = _ITEMS[local]

    def _open_text(self, local: str, attributes: dict[str, str]) -> None:
        if local == "link" and self._kind == "entry":
            if attributes.get("rel", "alternate") == "alternate" and not self._link:
                self._link = attributes.get("href", "")[: MAX_LINE_BYTES + 1]
        elif local != "guid" or attributes.get("isPermaLink", "true") != "false":
            self._collect(local)

    def _end(self, tag: str) -> None:  # noqa: ARG002  (expat gives it)
        self.seen = self.parser.CurrentByteIndex
        self._depth -= 1
        if not self._kind:
            return
        self._keep()
        if self._depth < self._level:
            self._found.append(self._location())
            self._kind = ""
        elif self._depth == self._level:
            self._collect("")

    def _text(self, text: str) -> None:
        self.seen = self.parser.CurrentByteIndex
        if self._into is not None and self._size <= MAX_LINE_BYTES:
            self._parts.append(text)
            self._size += len(text)

    def _collect(self, into: str) -> None:
        self._into, self._size = into, 0

    def _keep(self) -> None:
        """End the text under way; the first of each name that is not blank counts."""
        if self._into is not None and self._parts:
            text = "".join(self._parts).strip()
            if text:
                self._texts.setdefault(self._into, text)
        self._parts.clear()
        self._into = None

    def _location(self) -> Location:
        """Return the entry that has ended."""
        texts = self._texts
        cell = self._link or texts.get("loc") or texts.get("link") or texts.get("guid") or texts.get("", "")
        where = f"{self._name}:{self._line}"
        fields = self._fields()
        if len(cell) > MAX_LINE_BYTES:
            return bad_row(NO_NUMBER, cell, f"{where}: the URL is over 64 KiB long", fields)
        url, flaw = read_url(cell)
        if not url:
            return bad_row(NO_NUMBER, "", f"{where}: an entry without a URL", fields)
        if not flaw and "\ufffd" in url:
            flaw = "has bytes that are not in its encoding"
        if flaw:
            return bad_row(NO_NUMBER, url, f"{where}: the URL {flaw}", fields)
        if not _ABSOLUTE.match(url) and (self._base is not None or self._kind == "sitemap"):
            try:
                url = join(self._base or "", url)
            except InvalidURL as error:
                reason = error.message if self._base is not None else "the location of a sitemap is relative"
                return bad_row(NO_NUMBER, url, f"{where}: {reason}", fields)
        return Sitemap(url) if self._kind == "sitemap" else Request(NO_NUMBER, url, (), fields)

    def _fields(self) -> dict[str, str] | None:
        texts = self._texts
        fields: dict[str, str] = {name: texts[name][:MAX_LINE_BYTES] for name in SITEMAP_FIELDS if name in texts}
        if "pubdate" in texts:
            fields["lastmod"] = _iso_date(texts["pubdate"][:MAX_LINE_BYTES])
        elif self._kind == "entry" and ("updated" in texts or "published" in texts):
            fields["lastmod"] = (texts.get("updated") or texts["published"])[:MAX_LINE_BYTES]
        return fields or None


def _iso_date(text: str) -> str:
    """Return a date of RSS (RFC 822) as sitemaps and Atom write them (RFC 3339), or as it is where it is none."""
    try:
        return parsedate_to_datetime(text).isoformat()
    except (ValueError, TypeError, IndexError, OverflowError):
        return text
