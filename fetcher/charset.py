"""Which charset a body is in, and its text.

Law 7: the web's bytes are never trusted. Whatever the header and the body say, there is an answer and no
exception, errors are replaced, and the cost is linear in the size of the body.

The order is a browser's: byte order mark, header, declaration in the first 1024 bytes; then what the bytes show:
16-bit units and the escapes of iso-2022-jp show themselves, valid UTF-8 is UTF-8, a late declaration is heeded (a
browser's parser meets it too), and the rest is guessed.

The labels are the WHATWG Encoding Standard's and no others: a label it does not know (``utf-7``, ``utf-32``, ``rot13``,
``unicode_escape``) names no charset here, whatever Python's own registry would make of it.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

__all__ = [
    "REPLACEMENT",
    "DetectedCharset",
    "MediaType",
    "count_characters",
    "decode_as",
    "detect",
    "prescan",
    "read_media_type",
    "replace_surrogates",
    "resolve_label",
    "text_of",
]

PRESCAN_BYTES = 1024
LATE_PRESCAN_BYTES = 16 * 1024
SAMPLE_BYTES = 16 * 1024  # about the first flaw, by which a charset is guessed
PIECE_BYTES = 4 * 1024
FALLBACK_CHARSET = "windows-1252"

REPLACEMENT = "replacement"
"""The one charset without a codec: browsers read such a body as a single U+FFFD, for its labels hide markup."""

WHITESPACE = "\t\n\f\r "
"""ASCII whitespace as the WHATWG Infra Standard has it: without the vertical tab."""

# A mark is stronger than all else that names a charset, so a body that begins with one is in it.
_MARKS = {"utf-8": codecs.BOM_UTF8, "utf-16le": codecs.BOM_UTF16_LE, "utf-16be": codecs.BOM_UTF16_BE}
_MULTIBYTE = frozenset({
    "utf-8", "utf-16le", "utf-16be", "gb18030", "big5-hkscs", "euc-jp", "iso-2022-jp", "cp932", "cp949",
    REPLACEMENT,
})  # fmt: skip
# A quoted value is taken whole, so that a comma in one parts no values, and a "charset=" in one is no parameter.
_QUOTED = r'"((?:[^"\\]++|\\.|\\\Z)*)"?'
_HEADER_VALUE = re.compile(rf'(?:[^",]++|{_QUOTED})*', re.DOTALL)
_PARAMETER = re.compile(rf"[\t\n\r ]*+([^;=]*+)(?:=(?:{_QUOTED}[^;]*+|([^;]*+)))?(?:;|\Z)", re.DOTALL)
_TOKEN_TEXT = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NO_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # is in no parameter's value
_HTTP_SPACE = "\t\n\r "
_CONTINUATION = bytes(range(0x80, 0xC0))
_BEYOND_ASCII = bytes(range(0x80, 0x100))
# The detector calls Korean by Microsoft's name for it, and Romanian by a charset that nobody wrote pages in.
_OTHER_NAMES = {"UHC": "euc-kr", "ISO-8859-16": "windows-1250"}
_TAKEN_FOR_JAPANESE = frozenset({None, "big5-hkscs", "gb18030", "cp949"})
# The escapes of iso-2022-jp as the Encoding Standard has them; any other makes it something else, as a terminal's log.
_OTHER_ESCAPE = re.compile(rb"\x1b(?!\$[@B]|\([BIJ]|[$(]?\Z)")
_JAPANESE_RUN = re.compile(rb"\x1b\$[@B](?:[!-~]{2})+(?=[\x1b\r\n]|\Z)")
_SURROGATE = re.compile("[\ud800-\udfff]")
_KANA = re.compile(rb"[\xa4\xa5][\xa1-\xf6]")  # of EUC-JP; where GB2312 has kana too, and Big5 and EUC-KR rare signs


class MediaType(NamedTuple):
    """A Content-Type as far as it matters: ``type/subtype`` in lower case (or empty) and its known charset.

    ``markup`` says that a body of this type may declare its own charset: HTML, XML and the unknown.
    """

    essence: str
    charset: str | None
    markup: bool


class DetectedCharset(NamedTuple):
    """The charset of a body, the length of its byte order mark, and its text where the proof had to decode it."""

    charset: str
    start: int
    text: str | None


@lru_cache(maxsize=256)
def read_media_type(content_type: str | None) -> MediaType:
    """Read the Content-Type headers of an answer, joined by commas (WHATWG Fetch, "extract a MIME type").

    The last valid one counts, ``*/*`` is passed over, and a charset is kept for as long as the essence stays the same.
    """
    essence = ""
    kept = label = None
    for value in _split_values(content_type or ""):
        found = _parse_mime_type(value)
        if found is None or found[0] == "*/*":
            continue
        if found[0] != essence:
            essence, kept = found
            label = kept
        else:
            label = kept if found[1] is None else found[1]
    plain = essence.startswith("text/") or essence.endswith(("json", "javascript"))
    charset = resolve_label(label) if label else None
    return MediaType(essence, charset, markup=not plain or essence.endswith(("html", "xml")))


def _split_values(header: str) -> Iterator[str]:
    """Part a header at the commas outside of quotes (WHATWG Fetch, "get, decode, and split")."""
    position = 0
    while position < len(header):
        match = _HEADER_VALUE.match(header, position)
        assert match is not None  # it matches nothing as well
        yield match[0]
        position = match.end() + 1


def _parse_mime_type(text: str) -> tuple[str, str | None] | None:
    """Return essence and charset parameter (WHATWG MIME Sniffing, "parse a MIME type"); ``None`` for a failure."""
    kind, _, rest = text.strip(_HTTP_SPACE).partition("/")
    subtype, _, parameters = rest.partition(";")
    subtype = subtype.rstrip(_HTTP_SPACE)
    if not _TOKEN_TEXT.fullmatch(kind) or not _TOKEN_TEXT.fullmatch(subtype):
        return None
    charset = None
    for match in _PARAMETER.finditer(parameters):
        name, quoted, bare = match.groups()
        if name.lower() != "charset":
            continue
        value = (
            re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL) if quoted is not None else (bare or "").rstrip(_HTTP_SPACE)
        )
        if (value or quoted is not None) and not _NO_VALUE.search(value):
            charset = value
            break
    return f"{kind}/{subtype}".lower(), charset


def detect(body: bytes, content_type: str | None) -> DetectedCharset:
    """Find the charset of ``body``, and keep what was learned on the way.

    The charset is a codec of Python's, or ``replacement``. Its name is the WHATWG Encoding Standard's where Python has
    a codec of that name and meaning; else the codec's: cp932 for shift_jis, cp949 for euc-kr, big5-hkscs for big5,
    gb18030 for gbk.
    """
    mark = body[:3]
    if mark == codecs.BOM_UTF8:
        return DetectedCharset("utf-8", 3, None)
    if mark[:2] == codecs.BOM_UTF16_LE:
        return DetectedCharset("utf-16le", 2, None)
    if mark[:2] == codecs.BOM_UTF16_BE:
        return DetectedCharset("utf-16be", 2, None)
    _, charset, markup = read_media_type(content_type)
    if charset is None and markup:
        charset = prescan(body[:PRESCAN_BYTES])
    return DetectedCharset(charset, 0, None) if charset else _weigh(body, markup)


def text_of(body: bytes, charset: str) -> str:
    """Return the text of ``body`` in the charset that ``detect`` named for it, errors replaced, without its mark."""
    mark = _MARKS.get(charset, b"")
    return decode_as(body[len(mark) :] if mark and body.startswith(mark) else body, charset)


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
        end = position + PIECE_BYTES
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


def _weigh(body: bytes, markup: bool) -> DetectedCharset:
    """Judge a body that declares nothing by its bytes."""
    if b"\0" in body[:PRESCAN_BYTES] and (wide := _sixteen_bit(body[:PRESCAN_BYTES])):
        return DetectedCharset(wide, 0, None)
    if body.isascii():
        declared = prescan(body[:LATE_PRESCAN_BYTES]) if markup else None
        return DetectedCharset(declared or ("iso-2022-jp" if _is_iso_2022_jp(body) else "utf-8"), 0, None)
    try:
        return DetectedCharset("utf-8", 0, body.decode("utf-8"))
    except UnicodeDecodeError as error:
        flaw = error.start
        cut = error.reason == "unexpected end of data"
    if markup and (late := prescan(body[:LATE_PRESCAN_BYTES])):
        return DetectedCharset(late, 0, None)
    if cut and not body[:flaw].isascii():
        # A body that was cut off in the middle of its last character.
        return DetectedCharset("utf-8", 0, None)
    sample = body[max(0, flaw - SAMPLE_BYTES // 4) : flaw + SAMPLE_BYTES]
    return DetectedCharset("utf-8" if _is_mostly_utf8(sample) else _guess(sample), 0, None)


def _sixteen_bit(head: bytes) -> str | None:
    """Tell UTF-16 without a mark by its markup and spaces, every other byte of which is zero."""
    low, high = head[::2].count(0), head[1::2].count(0)
    if 8 * max(low, high) < len(head) or 4 * min(low, high) > max(low, high):
        return None
    charset = "utf-16le" if high > low else "utf-16be"
    try:
        codecs.getincrementaldecoder(charset)().decode(head)
    except UnicodeDecodeError:
        return None
    return charset


def _is_iso_2022_jp(body: bytes) -> bool:
    start = body.find(b"\x1b$")
    if start < 0:
        return False
    sample = body[start : start + SAMPLE_BYTES]
    return _JAPANESE_RUN.search(sample) is not None and _OTHER_ESCAPE.search(sample) is None


def _is_mostly_utf8(sample: bytes) -> bool:
    """Tell whether most of the bytes beyond ASCII form UTF-8: other charsets do so by rare chance."""
    text = sample.lstrip(_CONTINUATION).decode("utf-8", "replace")
    broken = text.count("\ufffd")
    beyond_ascii = len(text) - len(text.encode("ascii", "ignore"))
    return beyond_ascii - broken > 2 * broken


def _guess(sample: bytes) -> str:
    import cchardet

    found = cchardet.detect(sample)["encoding"]
    charset = resolve_label(_OTHER_NAMES.get(found, found)) if found else None
    if charset in _TAKEN_FOR_JAPANESE and _is_kana(sample):
        return "euc-jp"
    # Bytes that are not UTF-8, and not in 16-bit units, were shown not to be.
    return FALLBACK_CHARSET if charset in {None, "utf-8", "utf-16le", "utf-16be", REPLACEMENT} else str(charset)


def _is_kana(sample: bytes) -> bool:
    """Tell whether text can be EUC-JP and half of it is kana: of a few words the detector makes Chinese."""
    beyond_ascii = len(sample) - len(sample.translate(None, _BEYOND_ASCII))
    if 4 * len(_KANA.findall(sample)) < beyond_ascii:
        return False
    try:
        codecs.getincrementaldecoder("euc-jp")().decode(sample)
    except UnicodeDecodeError:
        return False
    return True


# Labels

# Where a codec of Python's has the standard's name and its meaning, the name is the standard's; else it is
# that of the codec which does what the standard's encoding does (shift_jis with its Windows extensions: cp932).
_LABELS = {
    "utf-8": "unicode-1-1-utf-8 unicode11utf8 unicode20utf8 utf-8 utf8 x-unicode20utf8",
    "ibm866": "866 cp866 csibm866 ibm866",
    "iso-8859-2": "csisolatin2 iso-8859-2 iso-ir-101 iso8859-2 iso88592 iso_8859-2 iso_8859-2:1987 l2 latin2",
    "iso-8859-3": "csisolatin3 iso-8859-3 iso-ir-109 iso8859-3 iso88593 iso_8859-3 iso_8859-3:1988 l3 latin3",
    "iso-8859-4": "csisolatin4 iso-8859-4 iso-ir-110 iso8859-4 iso88594 iso_8859-4 iso_8859-4:1988 l4 latin4",
    "iso-8859-5": "csisolatincyrillic cyrillic iso-8859-5 iso-ir-144 iso8859-5 iso88595 iso_8859-5 iso_8859-5:1988",
    "iso-8859-6": "arabic asmo-708 csiso88596e csiso88596i csisolatinarabic ecma-114 iso-8859-6 iso-8859-6-e "
    "iso-8859-6-i iso-ir-127 iso8859-6 iso88596 iso_8859-6 iso_8859-6:1987",
    "iso-8859-7": "csisolatingreek ecma-118 elot_928 greek greek8 iso-8859-7 iso-ir-126 iso8859-7 iso88597 "
    "iso_8859-7 iso_8859-7:1987 sun_eu_greek",
    "iso-8859-8": "csiso88598e csisolatinhebrew hebrew iso-8859-8 iso-8859-8-e iso-ir-138 iso8859-8 iso88598 "
    "iso_8859-8 iso_8859-8:1988 visual csiso88598i iso-8859-8-i logical",
    "iso-8859-10": "csisolatin6 iso-8859-10 iso-ir-157 iso8859-10 iso885910 l6 latin6",
    "iso-8859-13": "iso-8859-13 iso8859-13 iso885913",
    "iso-8859-14": "iso-8859-14 iso8859-14 iso885914",
    "iso-8859-15": "csisolatin9 iso-8859-15 iso8859-15 iso885915 iso_8859-15 l9",
    "iso-8859-16": "iso-8859-16",
    "koi8-r": "cskoi8r koi koi8 koi8-r koi8_r",
    "koi8-u": "koi8-ru koi8-u",
    "macintosh": "csmacintosh mac macintosh x-mac-roman",
    "cp874": "dos-874 iso-8859-11 iso8859-11 iso885911 tis-620 windows-874",
    "windows-1250": "cp1250 windows-1250 x-cp1250",
    "windows-1251": "cp1251 windows-1251 x-cp1251",
    "windows-1252": "ansi_x3.4-1968 ascii cp1252 cp819 csisolatin1 ibm819 iso-8859-1 iso-ir-100 iso8859-1 iso88591 "
    "iso_8859-1 iso_8859-1:1987 l1 latin1 us-ascii windows-1252 x-cp1252 x-user-defined",
    "windows-1253": "cp1253 windows-1253 x-cp1253",
    "windows-1254": "cp1254 csisolatin5 iso-8859-9 iso-ir-148 iso8859-9 iso88599 iso_8859-9 iso_8859-9:1989 l5 latin5 "
    "windows-1254 x-cp1254",
    "windows-1255": "cp1255 windows-1255 x-cp1255",
    "windows-1256": "cp1256 windows-1256 x-cp1256",
    "windows-1257": "cp1257 windows-1257 x-cp1257",
    "windows-1258": "cp1258 windows-1258 x-cp1258",
    "mac-cyrillic": "x-mac-cyrillic x-mac-ukrainian",
    "gb18030": "chinese csgb2312 csiso58gb231280 gb18030 gb2312 gb_2312 gb_2312-80 gbk iso-ir-58 x-gbk",
    "big5-hkscs": "big5 big5-hkscs cn-big5 csbig5 x-x-big5",
    "euc-jp": "cseucpkdfmtjapanese euc-jp x-euc-jp",
    "iso-2022-jp": "csiso2022jp iso-2022-jp",
    "cp932": "csshiftjis ms932 ms_kanji shift-jis shift_jis sjis windows-31j x-sjis",
    "cp949": "cseuckr csksc56011987 euc-kr iso-ir-149 korean ks_c_5601-1987 ks_c_5601-1989 ksc5601 ksc_5601 "
    "windows-949",
    REPLACEMENT: "csiso2022kr hz-gb-2312 iso-2022-cn iso-2022-cn-ext iso-2022-kr replacement",
    "utf-16be": "unicodefffe utf-16be",
    "utf-16le": "csunicode iso-10646-ucs-2 ucs-2 unicode unicodefeff utf-16 utf-16le",
}
_CHARSETS = {label: charset for charset, labels in _LABELS.items() for label in labels.split()}


def resolve_label(label: str) -> str | None:
    """Return the charset a label stands for, or ``None`` (WHATWG Encoding, "get an encoding").

    Case and surrounding ASCII whitespace do not count. The answer is a codec of Python's, or ``replacement``.
    """
    # str.lower folds letters beyond ASCII too: the Kelvin sign would become a k.
    return _CHARSETS.get(label.strip(WHITESPACE).lower()) if label.isascii() else None


# What the first bytes declare

# The prescan of the HTML Standard: "prescan a byte stream to determine its encoding" with "get an attribute", "extract a
# character encoding from a meta element" and "get an XML encoding". Each regular expression stands for a loop of it and
# has one way to match at most, so that a hostile head costs time linear in its length. (w3lib's
# html_body_declared_encoding is right in 62 of the 82 cases of html5lib's suite, and takes Python's labels.)

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


def replace_surrogates(text: str) -> str:
    """Return text that can be encoded: lone surrogates, as which bytes of a header that are no UTF-8 are kept, are U+FFFD."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)
