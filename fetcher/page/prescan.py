"""What the first bytes of a page declare its charset to be: the prescan of the HTML Standard.

The algorithm is "prescan a byte stream to determine its encoding" with "get an attribute", "extract a character
encoding from a meta element" and "get an XML encoding". Each regular expression stands for one loop of it; all
are possessive, so that a hostile head costs time linear in its length.
"""

from __future__ import annotations

import re

from fetcher.page.labels import resolve_label

__all__ = ["prescan"]

_TOKEN = re.compile(rb"<(?:(!--)|(meta)(?=[\t\n\f\r /])|(/?[a-z])|[!/?])", re.IGNORECASE)
_TAG_NAME_END = re.compile(rb"[\t\n\f\r >]")
# A value is quoted, or not quoted, or missing before the tag's end; the last group of _ATTRIBUTE notes one that
# the data ends in. A name may begin with "=", and only begin with it.
_ATTRIBUTE = re.compile(
    rb"""[\t\n\f\r /]*+(?:(>)|([^\t\n\f\r />][^\t\n\f\r />=]*+)"""
    rb"""(?:[\t\n\f\r ]*+=[\t\n\f\r ]*+(?:"([^"]*+)"|'([^']*+)'|([^\t\n\f\r >"'][^\t\n\f\r >]*+)|(?=>)|())|))"""
)
_REST_OF_TAG = re.compile(
    rb"""(?:[\t\n\f\r /]*+[^\t\n\f\r />][^\t\n\f\r />=]*+"""
    rb"""(?:[\t\n\f\r ]*+=[\t\n\f\r ]*+(?:"[^"]*+"|'[^']*+'|[^\t\n\f\r >"'][^\t\n\f\r >]*+|(?=>))"""
    rb"""|(?![\t\n\f\r ]*+=)))*+[\t\n\f\r /]*+>"""
)
_CONTENT_CHARSET = re.compile(
    rb"""charset[\t\n\f\r ]*+=[\t\n\f\r ]*+(?:"([^"]*+)"|'([^']*+)'|([^\t\n\f\r ;"'][^\t\n\f\r ;]*+)|)"""
)
_XML_ENCODING = re.compile(rb"""encoding[\x00-\x20]*+=[\x00-\x20]*+(?:"([^"\x00-\x20]*+)"|'([^'\x00-\x20]*+)')""")


def prescan(head: bytes) -> str | None:
    """Return the charset that ``head`` declares, or ``None``.

    ``head`` is the first 1024 bytes of a body, or as many as are to be looked at: a declaration that its end
    cuts off does not count. A meta element that says utf-16 is taken at its bytes and means utf-8.
    """
    if head.startswith(b"<\0?\0x\0"):
        return "utf-16le"
    if head.startswith(b"\0<\0?\0x"):
        return "utf-16be"
    # Nothing but a charset attribute, or a charset in a content attribute, can be found by the loop.
    charset = _scan_tags(head) if b"charset" in head.lower() else None
    return charset or (_xml_encoding(head) if head.startswith(b"<?xml") else None)


def _scan_tags(head: bytes) -> str | None:
    position = 0
    while token := _TOKEN.search(head, position):
        comment, meta, tag = token.groups()
        if meta:
            position, charset = _read_meta(head, token.end())
            if charset:
                return charset
        elif comment:
            # The dashes that close a comment may be those that open it.
            position = head.find(b"-->", token.start() + 2) + 3
            if position < 3:
                return None
        elif tag:
            name_end = _TAG_NAME_END.search(head, token.end())
            rest = name_end and _REST_OF_TAG.match(head, name_end.start())
            if not rest:
                return None
            position = rest.end()
        else:
            position = head.find(b">", token.start()) + 1
            if not position:
                return None
        if position < 0:
            return None
    return None


def _read_meta(head: bytes, position: int) -> tuple[int, str | None]:
    """Return where the meta element ends (below 0 where the data ends first) and the charset it declares."""
    seen = set()
    pragma = False
    pragma_needed: bool | None = None
    charset = None
    while attribute := _ATTRIBUTE.match(head, position):
        position = attribute.end()
        end, name, double, single, bare, cut = attribute.groups()
        if end:
            break
        if cut is not None or position == len(head):
            return -1, None
        name = name.lower()
        if name in seen:
            continue
        seen.add(name)
        value = (double or single or bare or b"").lower()
        if name == b"http-equiv":
            pragma = pragma or value == b"content-type"
        elif name == b"content":
            if charset is None and pragma_needed is not False and (found := _content_charset(value)):
                charset, pragma_needed = found, True
        elif name == b"charset":
            charset, pragma_needed = resolve_label(value.decode("latin-1")), False
    else:
        return -1, None
    if pragma_needed is None or (pragma_needed and not pragma) or charset is None:
        return position, None
    return position, _as_read(charset)


def _content_charset(value: bytes) -> str | None:
    found = _CONTENT_CHARSET.search(value)
    label = found and (found[1] or found[2] or found[3])
    return resolve_label(label.decode("latin-1")) if label else None


def _xml_encoding(head: bytes) -> str | None:
    declaration = head[: head.find(b">") + 1]
    found = _XML_ENCODING.search(declaration)
    if not found or b"encoding" in declaration[: found.start()]:
        return None
    charset = resolve_label((found[1] or found[2] or b"").decode("latin-1"))
    return charset and _as_read(charset)


def _as_read(charset: str) -> str:
    # The declaration was read as ASCII, so the body cannot be in 16-bit units.
    return "utf-8" if charset in {"utf-16le", "utf-16be"} else charset
