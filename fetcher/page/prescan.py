"""What the first bytes of a page declare its charset to be: the prescan of the HTML Standard.

The algorithm is "prescan a byte stream to determine its encoding" with "get an attribute", "extract a character
encoding from a meta element" and "get an XML encoding". Each regular expression stands for a loop of it and
has one way to match at most, so that a hostile head costs time linear in its length. (w3lib's
``html_body_declared_encoding`` is right in 62 of the 82 cases of html5lib's suite, and takes Python's labels.)
"""

from __future__ import annotations

import re

from fetcher.page.labels import resolve_label

__all__ = ["prescan"]

# Only runs of a single class are possessive: those of groups went wrong before Python 3.11.5 (its issue 106052).
# A name may begin with "=", and only begin with it. A value is in quotes, or bare, or the tag ends before it.
_GAP = rb"[\t\n\f\r /]*+"
_NAME = rb"[^\t\n\f\r />][^\t\n\f\r />=]*+"
_SPACE = rb"[\t\n\f\r ]*+"
_EQUALS = _SPACE + rb"=" + _SPACE
_VALUES = (rb'[^"]*+', rb"[^']*+", rb"""[^\t\n\f\r >"'][^\t\n\f\r >]*+""")
_VALUE = rb"""(?:"%b"|'%b'|%b)""" % _VALUES
_CAUGHT_VALUE = rb"""(?:"(%b)"|'(%b)'|(%b))""" % _VALUES
_TAG_REST = rb"(?:%b%b(?:%b(?:%b|(?=>))|(?!%b=)))*%b>" % (_GAP, _NAME, _EQUALS, _VALUE, _SPACE, _GAP)
_META = rb"<meta(?=[\t\n\f\r /])"

_TOKEN = re.compile(rb"<(?:(!--)|(meta)(?=[\t\n\f\r /])|(/?[a-z][^\t\n\f\r >]*+)|[!/?])", re.IGNORECASE)
_REST_OF_TAG = re.compile(_TAG_REST)
# The last group notes a value that the data ends in.
_ATTRIBUTE = re.compile(rb"%b(?:(>)|(%b)(?:%b(?:%b|(?=>)|())|))" % (_GAP, _NAME, _EQUALS, _CAUGHT_VALUE))
_CONTENT_CHARSET = re.compile(rb"""charset%b(?:"([^"]*+)"|'([^']*+)'|([^\t\n\f\r ;"'][^\t\n\f\r ;]*+)|)""" % _EQUALS)
_XML_ENCODING = re.compile(rb"""encoding[\x00-\x20]*+=[\x00-\x20]*+(?:"([^"\x00-\x20]*+)"|'([^'\x00-\x20]*+)')""")
# Most pages in one go: text, comments and tags, then a meta element whose first attribute is charset.
_USUAL = re.compile(
    rb"(?:[^<]++|<(?![!/?a-z])|<(?:!(?!--)|/(?![a-z])|\?)[^>]*+>|<!(?=--)[^-]*+(?:-(?!->)[^-]*+)*-->"
    rb"|(?!%b)</?[a-z][^\t\n\f\r >]*+%b)*%b[\t\n\f\r /]++charset%b%b%b"
    % (_META, _TAG_REST, _META, _EQUALS, _CAUGHT_VALUE, _TAG_REST),
    re.IGNORECASE,
)


def prescan(head: bytes) -> str | None:
    """Return the charset that ``head`` declares, or ``None``.

    ``head`` is the first 1024 bytes of a body, or as many as are to be looked at: a declaration that its end
    cuts off does not count. A meta element that says utf-16 is taken at its bytes and means utf-8.
    """
    if head.startswith(b"<\0?\0x\0"):
        return "utf-16le"
    if head.startswith(b"\0<\0?\0x"):
        return "utf-16be"
    if (usual := _USUAL.match(head)) and (charset := _resolve(usual[1] or usual[2] or usual[3])):
        return charset
    # Without the word no meta element declares anything.
    charset = _scan_tags(head) if b"charset" in head.lower() else None
    return charset or (_xml_encoding(head) if head.startswith(b"<?xml") else None)


def _resolve(label: bytes | None) -> str | None:
    charset = resolve_label(label.decode("latin-1")) if label else None
    # The declaration was read as ASCII, so the body cannot be in 16-bit units.
    return "utf-8" if charset in {"utf-16le", "utf-16be"} else charset


def _scan_tags(head: bytes) -> str | None:
    position = 0
    while token := _TOKEN.search(head, position):
        comment, meta, tag = token.groups()
        if meta:
            position, charset = _read_meta(head, token.end())
            if charset:
                return charset
        elif tag:
            rest = _REST_OF_TAG.match(head, token.end())
            position = rest.end() if rest else 0
        elif comment:
            # The dashes that close a comment may be those that open it.
            dashes = head.find(b"-->", token.start() + 2)
            position = dashes + 3 if dashes > 0 else 0
        else:
            position = head.find(b">", token.start()) + 1
        if not position:
            return None
    return None


def _read_meta(head: bytes, position: int) -> tuple[int, str | None]:
    """Return where the meta element ends (0 where the data ends first) and the charset it declares."""
    seen = set()
    pragma = False
    by_content = by_attribute = None
    while attribute := _ATTRIBUTE.match(head, position):
        position = attribute.end()
        end, name, double, single, bare, cut = attribute.groups()
        if end:
            break
        if cut is not None or position == len(head):
            return 0, None
        name = name.lower()
        value = (double or single or bare or b"").lower()
        if name in seen:
            continue
        seen.add(name)
        if name == b"http-equiv":
            pragma = value == b"content-type"
        elif name == b"content":
            by_content = _content_charset(value)
        elif name == b"charset":
            by_attribute = _resolve(value)
    else:
        return 0, None
    # A charset attribute is the last word, even where its label is unknown.
    return position, by_attribute if b"charset" in seen else by_content if pragma else None


def _content_charset(value: bytes) -> str | None:
    found = _CONTENT_CHARSET.search(value)
    return _resolve(found[1] or found[2] or found[3]) if found else None


def _xml_encoding(head: bytes) -> str | None:
    declaration = head[: head.find(b">") + 1]
    found = _XML_ENCODING.search(declaration)
    if not found or b"encoding" in declaration[: found.start()]:
        return None
    return _resolve(found[1] or found[2])
