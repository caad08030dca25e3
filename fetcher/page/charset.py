"""Which charset a body is in, and its text.

Law 7: the web's bytes are never trusted. Whatever the header and the body say, there is an answer and no
exception, errors are replaced, and the cost is linear in the size of the body.

The order is a browser's: byte order mark, header, declaration in the first 1024 bytes; then what the bytes show:
valid UTF-8 is UTF-8, a late declaration is heeded (a browser's parser meets it too), and the rest is guessed.
"""

from __future__ import annotations

import codecs
import re
from functools import lru_cache
from typing import NamedTuple

from fetcher.page.labels import REPLACEMENT, WHITESPACE, resolve_label
from fetcher.page.prescan import prescan

__all__ = ["MediaType", "Verdict", "count_characters", "decode_as", "detect", "read_media_type"]

PRESCAN = 1024
LATE = 16 * 1024
SAMPLE = 16 * 1024
PIECE = 4 * 1024
FALLBACK = "windows-1252"

_MULTIBYTE = frozenset({
    "utf-8", "utf-16le", "utf-16be", "gb18030", "big5-hkscs", "euc-jp", "iso-2022-jp", "cp932", "cp949",
    REPLACEMENT,
})  # fmt: skip
# A quoted value is taken whole, so that a "charset=" inside one is no parameter; an unquoted one ends at a comma
# too, where a repeated header was folded into one.
_PARAMETER = re.compile(
    r"""(?:^|;)[\t\n\r ]*+([^\t\n\r ;,=/]++)=(?:"((?:[^"\\]|\\.)*)"?|([^\t\n\r ;,]*+))""", re.DOTALL
)
_CONTINUATION = bytes(range(0x80, 0xC0))


class MediaType(NamedTuple):
    """A Content-Type as far as it matters: ``type/subtype`` in lower case (or empty) and its known charset.

    ``markup`` says that a body of this type may declare its own charset: HTML, XML and the unknown.
    """

    essence: str
    charset: str | None
    markup: bool


class Verdict(NamedTuple):
    """The charset of a body, the length of its byte order mark, and its text where the proof had to decode it."""

    charset: str
    start: int
    text: str | None


@lru_cache(maxsize=256)
def read_media_type(content_type: str | None) -> MediaType:
    """Read a Content-Type header (WHATWG MIME Sniffing, "parse a MIME type", and Fetch's charset of it)."""
    if not content_type:
        return MediaType("", None, markup=True)
    essence = re.split("[;,]", content_type, maxsplit=1)[0].strip(WHITESPACE).lower()
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9a-z-]+/[!#$%&'*+.^_`|~0-9a-z-]+", essence):
        essence = ""
    charset = None
    for name, quoted, bare in _PARAMETER.findall(content_type):
        if name.lower() == "charset":
            charset = resolve_label(re.sub(r"\\(.)", r"\1", quoted) or bare)
            break
    plain = essence.startswith("text/") or essence.endswith(("json", "javascript"))
    return MediaType(essence, charset, markup=not plain or essence.endswith(("html", "xml")))


def detect(body: bytes, content_type: str | None) -> Verdict:
    """Find the charset of ``body``, and keep what was learned on the way.

    The charset is a codec of Python's, or ``replacement``. Its name is the WHATWG Encoding Standard's where Python has
    a codec of that name and meaning; else the codec's: cp932 for shift_jis, cp949 for euc-kr, big5-hkscs for big5,
    gb18030 for gbk.
    """
    mark = body[:3]
    if mark == codecs.BOM_UTF8:
        return Verdict("utf-8", 3, None)
    if mark[:2] == codecs.BOM_UTF16_LE:
        return Verdict("utf-16le", 2, None)
    if mark[:2] == codecs.BOM_UTF16_BE:
        return Verdict("utf-16be", 2, None)
    _, charset, markup = read_media_type(content_type)
    if charset is None and markup:
        charset = prescan(body[:PRESCAN])
    return Verdict(charset, 0, None) if charset else _weigh(body, markup)


def decode_as(body: bytes, charset: str) -> str:
    """Return the text of ``body`` in a charset that ``detect`` named, errors replaced, a mark not removed."""
    if charset == "utf-8":
        return body.decode("utf-8", "replace")
    if charset == REPLACEMENT:
        return "\ufffd" if body else ""
    table = _single_byte_table(charset)
    return body.decode(charset, "replace") if table is None else codecs.charmap_decode(body, "replace", table)[0]


def count_characters(body: bytes, charset: str) -> int:
    """Return ``len(decode_as(body, charset))`` without the text, where that is possible."""
    if charset != "utf-8":
        return len(decode_as(body, charset)) if charset in _MULTIBYTE else len(body)
    if body.isascii():
        return len(body)
    # By the piece, for a text as large as the page costs more in fresh memory than in decoding.
    count = position = 0
    view = memoryview(body)
    while position < len(body):
        end = position + PIECE
        text, taken = codecs.utf_8_decode(view[position:end], "replace", end >= len(body))
        count += len(text)
        position += taken
    return count


@lru_cache(maxsize=64)
def _single_byte_table(charset: str) -> str | None:
    """Return the 256 characters of a single-byte charset; ``None`` for the others."""
    if charset in _MULTIBYTE:
        return None
    table = [bytes([byte]).decode(charset, "replace") for byte in range(256)]
    # The standard's indexes have the C1 controls where Python's codecs of the windows charsets have holes.
    return "".join(chr(byte) if char == "\ufffd" and 0x80 <= byte < 0xA0 else char for byte, char in enumerate(table))


def _weigh(body: bytes, markup: bool) -> Verdict:
    """Judge a body that declares nothing by its bytes."""
    if body.isascii():
        # Escapes of iso-2022-jp are ASCII too: a declaration is all that tells them.
        return Verdict((prescan(body[:LATE]) if markup else None) or "utf-8", 0, None)
    try:
        return Verdict("utf-8", 0, body.decode("utf-8"))
    except UnicodeDecodeError as error:
        flaw = error.start
        cut = error.reason == "unexpected end of data"
    if markup and (late := prescan(body[:LATE])):
        return Verdict(late, 0, None)
    if cut and not body[:flaw].isascii():
        # A body that was cut off in the middle of its last character.
        return Verdict("utf-8", 0, None)
    sample = body[max(0, flaw - SAMPLE // 4) : flaw + SAMPLE]
    return Verdict("utf-8" if _is_mostly_utf8(sample) else _guess(sample), 0, None)


def _is_mostly_utf8(sample: bytes) -> bool:
    """Tell whether most of the bytes beyond ASCII form UTF-8: other charsets do so by rare chance."""
    text = sample.lstrip(_CONTINUATION).decode("utf-8", "replace")
    broken = text.count("\ufffd")
    beyond_ascii = len(text) - len(text.encode("ascii", "ignore"))
    return beyond_ascii - broken > 2 * broken


def _guess(sample: bytes) -> str:
    import cchardet

    found = cchardet.detect(sample)["encoding"]
    # The detector calls Korean by Microsoft's name for it. Bytes that are not UTF-8 were shown not to be it, and
    # 16-bit text has a mark.
    charset = resolve_label("euc-kr" if found == "UHC" else found) if found else None
    return FALLBACK if charset in {None, "utf-8", "utf-16le", "utf-16be", REPLACEMENT} else str(charset)
