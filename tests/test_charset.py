"""Which charset a body is in: precedence, labels, the prescan against the standard's own steps, aiohttp's lengths."""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TypeAlias

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fetcher import charset as module
from fetcher.charset import (
    _CHARSETS,
    _LABELS,
    REPLACEMENT,
    count_characters,
    decode_as,
    detect,
    prescan,
    read_media_type,
    resolve_label,
)
from fetcher.model import Request, Response
from fetcher.page.parse import Document, content_type_of

HTML = "text/html"
RUSSIAN = "Съешь ещё этих мягких французских булок, да выпей же чаю. " * 20
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。" * 20


def decode(body: bytes, content_type: str | None) -> tuple[str, str]:
    """The text and the charset of a response, as an extractor sees them."""
    headers = () if content_type is None else (("content-type", content_type),)
    document = Document(Response(Request(1, "http://a.example/"), "http://a.example/", 200, headers, body))
    return document.text, document.charset


def sniff(body: bytes, content_type: str | None) -> str:
    return detect(body, content_type).charset


# What comes before what


def test_a_byte_order_mark_wins_over_the_header_and_is_not_text() -> None:
    assert decode(b"\xef\xbb\xbf\xc3\xa9", "text/html; charset=latin1") == ("é", "utf-8")
    assert decode("\ufeffhé".encode("utf-16le"), "text/html; charset=utf-8") == ("hé", "utf-16le")
    assert decode("\ufeffhé".encode("utf-16be"), None) == ("hé", "utf-16be")


def test_the_header_wins_over_the_page() -> None:
    assert decode(b'<meta charset="utf-8">\xe9', "text/html; charset=ISO-8859-1") == (
        '<meta charset="utf-8">é',
        "windows-1252",
    )


def test_an_unknown_label_is_passed_over_for_the_next_witness() -> None:
    body = b'<meta charset="klingon"><meta charset=koi8-r>'
    assert sniff(body, "text/html; charset=utf-7") == "koi8-r"
    assert sniff(body, "text/html; charset=utf-32") == "koi8-r"


def test_the_page_wins_over_what_its_bytes_look_like() -> None:
    assert sniff("<meta charset=windows-1251>é".encode(), HTML) == "windows-1251"


def test_undeclared_utf8_is_utf8() -> None:
    text, charset = decode("<p>naïve".encode(), HTML)
    assert (text, charset) == ("<p>naïve", "utf-8")


def test_a_declaration_after_1024_bytes_counts_where_the_bytes_are_no_utf8() -> None:
    late = b"<!--" + b"x" * 2000 + b"--><meta charset=iso-8859-5>"
    assert sniff(late + b"\xb0", HTML) == "iso-8859-5"
    assert sniff(late + "é".encode(), HTML) == "utf-8"


@pytest.mark.parametrize(
    ("codec", "text"),
    [("cp1251", RUSSIAN), ("euc-jp", JAPANESE), ("cp932", JAPANESE), ("cp949", "한국어 문장입니다. " * 40)],
)
def test_the_undeclared_rest_is_guessed(codec: str, text: str) -> None:
    assert decode(text.encode(codec), HTML)[0] == text


@pytest.mark.parametrize("content_type", [None, HTML, "text/plain"])
def test_undeclared_iso_2022_jp_shows_itself_by_its_escapes(content_type: str | None) -> None:
    text = "<title>日本語</title>\n" + "x" * 20_000 + JAPANESE
    assert decode(text.encode("iso-2022-jp"), content_type) == (text, "iso-2022-jp")
    assert sniff(b"\x1b$@$3\x1b(J", content_type) == "iso-2022-jp"
    assert sniff("日本".encode("iso-2022-jp")[:5], content_type) == "iso-2022-jp"  # cut off within


@pytest.mark.parametrize(
    "body",
    [
        b"\x1b[31mred\x1b[0m $ ls",
        b"price \x1b$",
        b"\x1b$B",
        b"\x1b$)C\x0eabc\x0f",  # iso-2022-kr, which browsers do not read
        b"\x1b$B$3\x1b[0m",
        b"\x1b$B$ 3\x1b(B",
        b"\x1b$B$3x\x1b(B",
    ],
)
def test_other_escapes_are_none_of_iso_2022_jp(body: bytes) -> None:
    assert sniff(body, HTML) == "utf-8"


def test_a_declaration_wins_over_escapes_and_zeros() -> None:
    assert sniff("<meta charset=utf-8>日本".encode("iso-2022-jp"), HTML) == "utf-8"
    assert sniff("日本".encode("iso-2022-jp"), "text/html; charset=koi8-r") == "koi8-r"
    assert sniff("<p>hi</p>".encode("utf-16le"), "text/html; charset=koi8-r") == "koi8-r"


@pytest.mark.parametrize("charset", ["utf-16le", "utf-16be"])
def test_text_in_sixteen_bits_shows_itself_by_its_zeros(charset: str) -> None:
    for text in ("<html><p>hi</p>", "<p>Съешь ещё этих</p>\n" * 99, "<p>😀</p>" * 300, "ab\u3000cdefghijk"):
        assert decode(text.encode(charset), HTML) == (text, charset)
    assert sniff(b"\0" * 100, HTML) == "utf-8"
    assert sniff(b"a\0b\0c\0\0d\0e\0f", HTML) == "utf-8"
    assert sniff(b"<p>plain text with one zero\0", HTML) == "utf-8"
    assert sniff(("<p>\ud800</p>" * 9).encode(charset, "surrogatepass"), HTML) != charset


def test_a_few_words_of_kana_are_japanese() -> None:
    for text in ("ログイン", "<p>お買い物かごに入れる</p>"):
        assert decode(text.encode("euc-jp"), HTML) == (text, "euc-jp")
    for text, codec in (
        ("登录账号与密码。", "gb18030"),
        ("登入帳號與密碼。", "big5-hkscs"),
        ("로그인 비밀번호 찾기", "cp949"),
    ):
        assert sniff(text.encode(codec), HTML) != "euc-jp"


def test_romanian_is_in_the_charset_of_windows() -> None:
    text = (
        "Şi totuşi, „această ţară” îşi păstrează învăţătura în cărţi şi în biserici, fără să ştie nimeni de ce. " * 20
    )
    assert decode(text.encode("windows-1250"), HTML) == (text, "windows-1250")


def test_what_cannot_be_guessed_is_windows_1252(monkeypatch: pytest.MonkeyPatch) -> None:
    import cchardet

    for found in (None, "UTF-8", "UTF-16", "ISO-2022-KR", "VISCII"):
        monkeypatch.setattr(cchardet, "detect", lambda _sample, found=found: {"encoding": found})
        assert sniff(b"caf\xe9", HTML) == "windows-1252"


def test_utf8_with_a_flaw_is_still_utf8() -> None:
    body = ("<p>" + "Ä Ö Ü ß é " * 200).encode()
    assert sniff(body[:-2], HTML) == "utf-8"  # cut within its last character
    assert sniff(body + b"\xff" + body, HTML) == "utf-8"
    assert decode(body + b"\xff", HTML)[0].count("\ufffd") == 1
    assert sniff(b"x" * 50_000 + body + b"\xff" + body, HTML) == "utf-8"


def test_a_letter_of_latin1_at_the_end_is_no_cut_utf8() -> None:
    assert decode(b"caf\xe9", HTML)[0] != "caf\ufffd"


def test_no_declaration_is_looked_for_in_what_is_no_markup() -> None:
    body = "<meta charset=koi8-r>é".encode()
    for content_type in ("text/plain", "application/json", "application/ld+json", "text/javascript"):
        assert sniff(body, content_type) == "utf-8"
    for other in (None, "", "text/xml", "application/xhtml+xml", "application/octet-stream"):
        assert sniff(body, other) == "koi8-r"


# Labels


def test_every_label_leads_to_a_codec_that_reads_text() -> None:
    assert len(_CHARSETS) == sum(len(labels.split()) for labels in _LABELS.values())
    for label, charset in _CHARSETS.items():
        assert resolve_label(f"\t{label.upper()}\n ") == charset
        if charset != REPLACEMENT:
            assert b"abcd".decode(charset)


@pytest.mark.parametrize(
    ("label", "charset"),
    [
        ("iso-8859-1", "windows-1252"),
        ("US-ASCII", "windows-1252"),
        ("latin5", "windows-1254"),
        ("gb2312", "gb18030"),
        ("gbk", "gb18030"),
        ("shift_jis", "cp932"),
        ("euc-kr", "cp949"),
        ("big5", "big5-hkscs"),
        ("utf-16", "utf-16le"),
        ("x-user-defined", "windows-1252"),
        ("iso-2022-kr", REPLACEMENT),
        ("utf-7", None),
        ("utf-32", None),
        ("rot13", None),
        ("unicode_escape", None),
        ("idna", None),
        ("\u212aoi8-r", None),
        ("", None),
    ],
)
def test_labels_are_the_standards(label: str, charset: str | None) -> None:
    assert resolve_label(label) == charset


def test_extensions_of_windows_and_hong_kong_are_read() -> None:
    assert decode("①～".encode("cp932"), "text/html; charset=Shift_JIS")[0] == "①～"
    assert decode("똠".encode("cp949"), "text/html; charset=euc-kr")[0] == "똠"
    assert decode("嘅".encode("big5-hkscs"), "text/html; charset=big5")[0] == "嘅"
    assert decode("€镕".encode("gb18030"), "text/html; charset=gb2312")[0] == "€镕"


def test_holes_of_the_windows_charsets_are_control_characters() -> None:
    assert decode(b"\x80\x81\x9d", "text/html; charset=latin1")[0] == "€\x81\x9d"
    assert decode(b"\xff\xd2", "text/html; charset=windows-1253")[0] == "\ufffd\ufffd"


def test_a_charset_that_hides_markup_is_one_replacement_character() -> None:
    assert decode(b"~{<script>", "text/html; charset=hz-gb-2312") == ("\ufffd", REPLACEMENT)
    assert decode(b"", "text/html; charset=hz-gb-2312") == ("", REPLACEMENT)
    assert count_characters(b"abc", REPLACEMENT) == 1


# The header


@pytest.mark.parametrize(
    ("content_type", "essence", "charset"),
    [
        (None, "", None),
        ("", "", None),
        ("text/html", "text/html", None),
        (" Text/HTML ;Charset=UTF-8", "text/html", "utf-8"),
        ('text/html; x="; charset=koi8-r"; charset="utf-8"', "text/html", "utf-8"),
        (r'text/html; charset="ut\f-8"', "text/html", "utf-8"),
        ('text/html; charset="utf-8', "text/html", "utf-8"),
        ("text/html; charset=utf-8; charset=koi8-r", "text/html", "utf-8"),
        ("text/html;charset=utf-8, text/html", "text/html", "utf-8"),
        ("text/html, text/html", "text/html", None),
        ("text/html; charset='utf-8'", "text/html", None),
        ("text/html; charset", "text/html", None),
        ("text/html; charset=", "text/html", None),
        ("text/html; xcharset=utf-8", "text/html", None),
        ("charset=utf-8", "", None),
        ("html", "", None),
        ("text/html charset=utf-8", "", None),
        ("text/ht\x00ml; charset=\udcff", "", None),
    ],
)
def test_content_types_are_read_as_browsers_read_them(
    content_type: str | None, essence: str, charset: str | None
) -> None:
    found = read_media_type(content_type)
    assert (found.essence, found.charset) == (essence, charset)


@pytest.mark.parametrize(
    ("content_types", "essence", "charset"),
    [
        (["text/html; charset=utf-8", "text/html; charset=koi8-r"], "text/html", "koi8-r"),
        (["text/html; charset=koi8-r", "text/html"], "text/html", "koi8-r"),
        (["text/html; charset=koi8-r, text/html"], "text/html", "koi8-r"),
        (["text/html; charset=koi8-r", "text/plain"], "text/plain", None),
        (["text/html; charset=koi8-r", "text/plain", "text/html"], "text/html", None),
        (["text/html; charset=koi8-r", "text/html; charset=gbk", "TEXT/HTML; x=y"], "text/html", "koi8-r"),
        (["text/html; charset=klingon", "text/html"], "text/html", None),
        (["text/html; charset=koi8-r", "*/*; charset=gbk"], "text/html", "koi8-r"),
        (["text/html; charset=koi8-r", "text", "", "text/"], "text/html", "koi8-r"),
        (["*/*", "text/plain"], "text/plain", None),
        (["*/*; charset=gbk"], "", None),
        (['text/html; x=",text/plain"; charset=koi8-r'], "text/html", "koi8-r"),
        (['text/html; x="', "text/plain; charset=koi8-r"], "text/html", None),
        (["text/html; charset=\x01koi8-r; charset=gbk"], "text/html", "gb18030"),
        (['text/html; charset=""; charset=gbk'], "text/html", None),
        (["text/html; charset=; charset=gbk"], "text/html", "gb18030"),
        (["text/html; charset =gbk"], "text/html", None),
        (['text/html; charset="koi8-r\\'], "text/html", None),
    ],
)
def test_of_several_content_types_the_last_valid_one_counts(
    content_types: list[str], essence: str, charset: str | None
) -> None:
    headers = (("content-type", content_types[0]), ("x", "y"), *(("content-type", more) for more in content_types[1:]))
    joined = content_type_of(Response(Request(1, "http://a.example/"), "http://a.example/", 200, headers))
    found = read_media_type(joined)
    assert (found.essence, found.charset) == (essence, charset)


class HeaderSteps:
    """ "Extract a MIME type" and what it stands on, step by step as Fetch and MIME Sniffing list them."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def collect(self, until: str) -> str:
        begin = self.at
        while self.at < len(self.text) and self.text[self.at] not in until:
            self.at += 1
        return self.text[begin : self.at]

    def quoted(self, *, extract: bool) -> str:
        begin, value = self.at, ""
        self.at += 1
        while True:
            value += self.collect('"\\')
            if self.at >= len(self.text):
                break
            mark = self.text[self.at]
            self.at += 1
            if mark != "\\":
                break
            if self.at >= len(self.text):
                value += "\\"
                break
            value += self.text[self.at]
            self.at += 1
        return value if extract else self.text[begin : self.at]

    def values(self) -> Iterator[str]:
        value = ""
        while self.at < len(self.text):
            value += self.collect('",')
            if self.at < len(self.text):
                if self.text[self.at] == '"':
                    value += self.quoted(extract=False)
                    if self.at < len(self.text):
                        continue
                else:
                    self.at += 1
            yield value.strip("\t ")
            value = ""

    def mime_type(self) -> tuple[str, dict[str, str]] | None:
        self.text = self.text.strip("\n\r\t ")
        kind = self.collect("/")
        if not is_token(kind) or self.at >= len(self.text):
            return None
        self.at += 1
        subtype = self.collect(";").rstrip("\n\r\t ")
        if not is_token(subtype):
            return None
        parameters: dict[str, str] = {}
        while self.at < len(self.text):
            self.at += 1
            while self.at < len(self.text) and self.text[self.at] in "\n\r\t ":
                self.at += 1
            name = self.collect(";=").lower()
            if self.at < len(self.text):
                if self.text[self.at] == ";":
                    continue
                self.at += 1
            if self.at >= len(self.text):
                break
            if self.text[self.at] == '"':
                value = self.quoted(extract=True)
                self.collect(";")
            else:
                value = self.collect(";").rstrip("\n\r\t ")
                if not value:
                    continue
            if is_token(name) and all(c == "\t" or " " <= c <= "~" or "\x80" <= c for c in value):
                parameters.setdefault(name, value)
        return f"{kind}/{subtype}".lower(), parameters


def is_token(text: str) -> bool:
    return bool(text) and all(c.isascii() and (c.isalnum() or c in "!#$%&'*+-.^_`|~") for c in text)


def extract_mime_type(header: str) -> tuple[str, str | None]:
    """Return essence and charset parameter by the standard's steps; no essence for a failure."""
    charset = essence = mime_type = None
    for value in HeaderSteps(header).values():
        temporary = HeaderSteps(value).mime_type()
        if temporary is None or temporary[0] == "*/*":
            continue
        mime_type = temporary
        if mime_type[0] != essence:
            charset = mime_type[1].get("charset")
            essence = mime_type[0]
        elif "charset" not in mime_type[1] and charset is not None:
            mime_type[1]["charset"] = charset
    return (mime_type[0], mime_type[1].get("charset")) if mime_type is not None else ("", None)


HEADER_PIECES = [
    "text/html", "TEXT/plain", "*/*", "a/b", "charset=", "Charset=", "utf-8", "koi8-r", "gbk", '"', '"', "\\", ";", ";", ",",
    ",", " ", "\t", "=", "/", "x=", "é", "\x01", "\n",
]  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.sampled_from(HEADER_PIECES), max_size=14).map("".join))
@example('text/html;charset="utf-8,')
@example("text/html,")
def test_the_headers_are_read_by_the_standards_steps(header: str) -> None:
    essence, label = extract_mime_type(header)
    found = read_media_type(header)
    assert (found.essence, found.charset) == (essence, resolve_label(label) if label else None)


# The prescan: the standard's steps, a byte at a time, are the judge

SPACE = b"\t\n\f\r "


class OutOfBytes(Exception):
    """The end of what is looked at."""


class Steps:
    """ "Prescan a byte stream to determine its encoding", step by step as the HTML Standard lists them."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def byte(self) -> bytes:
        if self.at >= len(self.data):
            raise OutOfBytes
        return self.data[self.at : self.at + 1]

    def run(self) -> str | None:
        if self.data[:6] == b"<\0?\0x\0":
            return "utf-16le"
        if self.data[:6] == b"\0<\0?\0x":
            return "utf-16be"
        try:
            while True:
                self.byte()
                if found := self.step():
                    return found
                self.at += 1
        except OutOfBytes:
            return self.xml()

    def step(self) -> str | None:
        here = self.data[self.at : self.at + 6].lower()
        if here.startswith(b"<!--"):
            self.at += 4
            while not (self.byte() == b">" and self.data[self.at - 2 : self.at] == b"--"):
                self.at += 1
        elif here.startswith(b"<meta") and here[5:6] and here[5:6] in SPACE + b"/":
            self.at += 5
            return self.meta()
        elif (here[1:2].isalpha() and here[:1] == b"<") or (here[:2] == b"</" and here[2:3].isalpha()):
            while self.byte() not in SPACE + b">":
                self.at += 1
            while self.attribute():
                pass
        elif here[:2] in (b"<!", b"</", b"<?"):
            while self.byte() != b">":
                self.at += 1
        return None

    def meta(self) -> str | None:
        seen: list[bytes] = []
        pragma = failed = False
        needed: bool | None = None
        charset: str | None = None
        while attribute := self.attribute():
            name, value = attribute
            if name in seen:
                continue
            seen.append(name)
            if name == b"http-equiv":
                pragma = pragma or value == b"content-type"
            elif name == b"content":
                found = self.extract(value)
                if found and charset is None and not failed:
                    charset, needed = found, True
            elif name == b"charset":
                charset, needed = resolve_label(value.decode("latin-1")), False
                failed = charset is None
        if needed is None or (needed and not pragma) or charset is None:
            return None
        return "utf-8" if charset.startswith("utf-16") else charset

    def attribute(self) -> tuple[bytes, bytes] | None:
        while self.byte() in SPACE + b"/":
            self.at += 1
        if self.byte() == b">":
            return None
        name = value = b""
        while True:
            byte = self.byte()
            if byte == b"=" and name:
                break
            if byte in SPACE:
                while self.byte() in SPACE:
                    self.at += 1
                if self.byte() != b"=":
                    return name, b""
                break
            if byte in b"/>":
                return name, b""
            name += byte.lower()
            self.at += 1
        self.at += 1
        while self.byte() in SPACE:
            self.at += 1
        if self.byte() in b"\"'":
            quote = self.byte()
            self.at += 1
            while self.byte() != quote:
                value += self.byte().lower()
                self.at += 1
            self.at += 1
            return name, value
        while self.byte() not in SPACE + b">":
            value += self.byte().lower()
            self.at += 1
        return name, value

    @staticmethod
    def extract(text: bytes) -> str | None:
        at = 0
        while True:
            at = text.find(b"charset", at)
            if at < 0:
                return None
            at += 7
            rest = text[at:].lstrip(SPACE)
            if rest.startswith(b"="):
                break
        rest = rest[1:].lstrip(SPACE)
        if rest[:1] in (b'"', b"'"):
            end = rest.find(rest[:1], 1)
            return resolve_label(rest[1:end].decode("latin-1")) if end > 0 else None
        for number, byte in enumerate(rest):
            if byte in SPACE + b";":
                rest = rest[:number]
                break
        return resolve_label(rest.decode("latin-1"))

    def xml(self) -> str | None:
        data = self.data
        end = data.find(b">")
        if not data.startswith(b"<?xml") or end < 0:
            return None
        at = data.find(b"encoding", 0, end)
        if at < 0:
            return None
        rest = data[at + 8 : end].lstrip(bytes(range(33)))
        if not rest.startswith(b"="):
            return None
        rest = rest[1:].lstrip(bytes(range(33)))
        quote = rest[:1]
        if quote not in (b'"', b"'") or (close := rest.find(quote, 1)) < 0:
            return None
        label = rest[1:close]
        if any(byte <= 32 for byte in label):
            return None
        charset = resolve_label(label.decode("latin-1"))
        return "utf-8" if charset in ("utf-16le", "utf-16be") else charset


PIECES = [
    b"<", b">", b"=", b'"', b"'", b"/", b" ", b"\n", b"\f", b"-", b"!", b"?", b";", b"\0", b"\xe9", b"a", b"x=y", b"a='>'",
    b"<meta", b"<META ", b"<meta/", b"<meta charset", b"<metax ", b"charset", b"charset=", b"CharSet = ", b"content=", b"content",
    b"http-equiv=", b"content-type", b'"Content-Type"', b'"text/html; charset=', b"utf-8", b"koi8-r", b"'latin2'", b'"utf-16"',
    b"bogus", b"<!--", b"-->", b"--", b"<!doctype html>", b"<html lang='en'>", b'<p title="', b"</p>", b"</", b"<?", b"<?xml ",
    b"<?xml version='1.0' encoding='koi8-r'?>", b"encoding", b"encoding=", b"<\0?\0x\0", b"\0<\0?\0x", b"<script>", b"<br/>",
]  # fmt: skip
heads = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join),
    st.tuples(st.just(b"<?xml "), st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join)).map(b"".join),
    st.binary(max_size=200),
)


@settings(max_examples=500, deadline=None)
@given(heads)
@example(b'<meta charset="utf-8>')
@example(b"<!--><meta charset=koi8-r>")
@example(b"<!---><meta charset=koi8-r>")
@example(b"<meta charset=bogus content='charset=utf-8' http-equiv=content-type>")
@example(b"<meta content='charset=koi8-r' charset=bogus http-equiv=content-type>")
@example(b"<meta ==charset charset=koi8-r>")
@example(b"<a b= ><meta charset=koi8-r>")
@example(b'<a b="c"d=\'"\'><meta\fcharset=\n"koi8-r"/>')
@example(b"<meta http-equiv=content-type content='charset charset=koi8-r;'>")
@example(b"<?xml encoding='koi8-r' encoding='utf-8'?>")
@example(b"<?xml version='encoding' encoding='utf-8'?>")
@example(b"\0<\0?\0x<meta charset=koi8-r>")
@example(b"<meta name=a><meta charset=koi8-r")
def test_the_prescan_takes_the_standards_steps(head: bytes) -> None:
    assert prescan(head) == Steps(head).run()


def test_a_head_of_one_piece_over_and_over_ends_and_is_read_as_the_steps_read_it() -> None:
    """What would keep a backtracking expression for ever, behind the beginnings of all that has an end."""
    size = module.LATE_PRESCAN_BYTES // 8
    heads = {
        (start + piece * size)[:size]
        for piece in PIECES
        for start in (b"", b"<a ", b"<!--", b"<meta charset=", b'<meta content="charset')
    }
    assert [head[:60] for head in sorted(heads) if prescan(head) != Steps(head).run()] == []


# Law 7: an answer and no exception, whatever comes


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=300), heads, st.text(max_size=100).map(lambda text: text.encode("utf-16le", "replace"))
    ),
    st.one_of(
        st.none(),
        st.text(max_size=60),
        st.sampled_from(sorted(_CHARSETS)).map("text/html; charset={}".format),
    ),
)
def test_every_body_has_a_text_and_its_length(body: bytes, content_type: str | None) -> None:
    text, charset = decode(body, content_type)
    assert charset == sniff(body, content_type)
    assert charset in _LABELS
    found = detect(body, content_type)
    assert count_characters(body[found.start :], charset) == len(text)
    text.encode()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([b"a", "é".encode(), "漢".encode(), "😀".encode(), b"\xff", b"\xe6\xbc", b"\xf0\x9f"])),
    st.integers(1, 9),
)
def test_counting_by_the_piece_counts_the_same(parts: list[bytes], piece: int) -> None:
    body = b"".join(parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE_BYTES", piece + 3)  # a piece holds at least one character
        assert count_characters(body, "utf-8") == len(body.decode("utf-8", "replace"))


def test_counting_crosses_the_edges_of_pieces() -> None:
    for shift in range(5):
        body = b"x" * (module.PIECE_BYTES - shift) + "😀".encode() * 3000
        assert count_characters(body, "utf-8") == len(body.decode())


# aiohttp

Ask: TypeAlias = Callable[[bytes, str], Awaitable[str]]


@pytest.fixture
async def texts() -> AsyncIterator[Ask]:
    """Ask aiohttp for the text of a body under a Content-Type."""
    replies: list[tuple[bytes, str]] = []

    async def reply(_request: web.Request) -> web.Response:
        body, content_type = replies.pop()
        return web.Response(body=body, headers={"Content-Type": content_type})

    app = web.Application()
    app.router.add_get("/", reply)
    async with TestServer(app, host="127.0.0.1") as server, aiohttp.ClientSession() as session:

        async def text(body: bytes, content_type: str) -> str:
            replies.append((body, content_type))
            async with session.get(server.make_url("/")) as response:
                return await response.text()

        yield text


@pytest.mark.parametrize(
    ("label", "codec", "text"),
    [
        ("utf-8", "utf-8", RUSSIAN + JAPANESE + "😀"),
        ("UTF8", "utf-8", RUSSIAN),
        ("iso-8859-1", "latin-1", "façade"),
        ("windows-1252", "cp1252", "“façade” €"),
        ("iso-8859-15", "iso-8859-15", "€ žŽ"),
        ("koi8-r", "koi8-r", RUSSIAN),
        ("windows-1251", "cp1251", RUSSIAN),
        ("gb2312", "gb2312", "汉字"),
        ("gb18030", "gb18030", "汉字😀"),
        ("shift_jis", "shift_jis", JAPANESE),
        ("euc-jp", "euc-jp", JAPANESE),
        ("iso-2022-jp", "iso-2022-jp", JAPANESE),
        ("euc-kr", "euc-kr", "한국어"),
        ("big5", "big5", "漢字"),
        ("utf-16le", "utf-16le", JAPANESE + "😀"),
        ("utf-16", "utf-16", "\N{SNOWMAN}😀"),
        (None, "utf-8", RUSSIAN),
        (None, "ascii", "plain"),
    ],
)
async def test_the_length_is_aiohttps(texts: Ask, label: str | None, codec: str, text: str) -> None:
    content_type = f"text/html; charset={label}" if label else HTML
    body = text.encode(codec)
    theirs = await texts(body, content_type)
    ours, charset = decode(body, content_type)
    assert ours == theirs == text
    start = detect(body, content_type).start
    assert count_characters(body[start:], charset) == len(theirs)


async def test_of_aiohttps_text_only_the_byte_order_mark_of_utf8_is_not_counted(texts: Ask) -> None:
    body = codecs.BOM_UTF8 + b"abc"
    assert decode(body, "text/html; charset=utf-8")[0] == (await texts(body, "text/html; charset=utf-8"))[1:]


def test_decoding_by_a_charset_keeps_every_byte_of_a_single_byte_charset() -> None:
    for charset in _LABELS:
        if module._single_byte_table(charset):
            assert len(decode_as(bytes(range(256)), charset)) == 256
