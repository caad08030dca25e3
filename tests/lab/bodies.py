"""The lab's cases about what a body is made of: content codings, good and bad, charsets, and sizes."""

from __future__ import annotations

import gzip
import importlib
import struct
import zlib
from collections.abc import Callable
from functools import lru_cache

from tests.lab.exchange import HTML, PLAIN, Exchange, case

BINARY = "application/octet-stream"
MEGABYTE = 1 << 20

TEXTS = {
    "windows-1251": "Съешь ещё этих мягких французских булок",
    "koi8-r": "Съешь ещё этих мягких французских булок",
    "windows-1252": "“Café” – naïve coöperation, 20 €",
    "iso-8859-1": "Zwölf Boxkämpfer jagen Viktor quer über den großen Deich",
    "iso-8859-7": "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία",
    "shift_jis": "いろはにほへと ちりぬるを 色は匂へど",
    "euc-jp": "いろはにほへと ちりぬるを 色は匂へど",
    "euc-kr": "키스의 고유조건은 입술끼리 만나야 한다",
    "gb18030": "我能吞下玻璃而不伤身体。天地玄黄，宇宙洪荒",
    "big5": "我能吞下玻璃而不傷身體。天地玄黃，宇宙洪荒",
    "utf-8": "Żółć, 日本語, 😀",
    "utf-16": "Żółć, 日本語, 😀",
}
"""A text for each charset that ``/charset`` speaks."""


def prose(size: int) -> bytes:
    """Return a page of that many bytes that compresses as text does."""
    head = b"<!doctype html><title>coded</title><p>"
    lines = b"".join(b"line %d of the text that is coded\n" % n for n in range(size // 30 + 1))
    return (head + lines)[:size]


def deflated(data: bytes, wbits: int = zlib.MAX_WBITS) -> bytes:
    """Return ``data`` as a zlib stream (RFC 1950), or a bare one (RFC 1951) with negative ``wbits``."""
    return zlib.compress(data, wbits=wbits)


def coder(name: str) -> Callable[[bytes], bytes] | None:
    """Return the function that applies a content coding, or ``None`` where its library is missing."""
    known: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": deflated}
    modules = {"br": ["brotli"], "zstd": ["compression.zstd", "backports.zstd"]}
    for module in modules.get(name, []):
        try:
            compress: Callable[[bytes], bytes] = importlib.import_module(module).compress
        except ImportError:
            continue
        return compress
    return known.get(name)


async def coded(exchange: Exchange, body: bytes, codings: str) -> None:
    """Send a body under a Content-Encoding, with a length that is true on the wire."""
    await exchange.reply(body, headers=[("Content-Encoding", codings)])


@case("/stacked")
async def stacked(exchange: Exchange) -> None:
    """``?codings=gzip,deflate&size=10000``: the codings, one upon the other in that order."""
    names = exchange.text("codings", "gzip,deflate").split(",")
    body = prose(int(exchange.number("size", 10_000)))
    for name in names:
        apply = coder(name)
        if apply is None:
            await exchange.reply(f"no library for {name}\n", 501, kind=PLAIN)
            return
        body = apply(body)
    await coded(exchange, body, ", ".join(names))


async def once(exchange: Exchange, name: str) -> None:
    """Send the body of ``/stacked`` under one coding."""
    exchange.params["codings"] = name
    await stacked(exchange)


@case("/gzip")
async def gzipped(exchange: Exchange) -> None:
    """``?size=10000``: a body in gzip."""
    await once(exchange, "gzip")


@case("/br")
async def brotlied(exchange: Exchange) -> None:
    """``?size=10000``: a body in brotli; 501 without the library."""
    await once(exchange, "br")


@case("/zstd")
async def zstandard(exchange: Exchange) -> None:
    """``?size=10000``: a body in zstd; 501 without the library."""
    await once(exchange, "zstd")


@case("/deflate")
async def deflate(exchange: Exchange) -> None:
    """``?size=10000&raw=0``: a body in zlib's format, or as some servers send it, without."""
    body = prose(int(exchange.number("size", 10_000)))
    wbits = -zlib.MAX_WBITS if exchange.number("raw", 0) else zlib.MAX_WBITS
    await coded(exchange, deflated(body, wbits), "deflate")


@case("/gzip-cut")
async def gzip_cut(exchange: Exchange) -> None:
    """A gzip stream without its second half; the length is that of what is sent."""
    body = gzip.compress(prose(10_000))
    await coded(exchange, body[: len(body) // 2], "gzip")


@case("/gzip-bad-crc")
async def gzip_bad_crc(exchange: Exchange) -> None:
    """A whole gzip stream with a wrong checksum."""
    body = bytearray(gzip.compress(prose(10_000)))
    body[-8] ^= 0xFF
    await coded(exchange, bytes(body), "gzip")


@case("/gzip-bomb")
async def gzip_bomb(exchange: Exchange) -> None:
    """``?mb=200``: so many megabytes of zeros, in a thousandth of it."""
    block, trailer = bomb_parts(int(exchange.number("mb", 200)))
    megabytes = int(exchange.number("mb", 200))
    start, end = b"\x1f\x8b\x08\0\0\0\0\0\0\xff", b"\x03\x00" + trailer
    size = len(start) + megabytes * len(block) + len(end)
    head = exchange.head(200, [("Content-Type", HTML), ("Content-Encoding", "gzip"), ("Content-Length", str(size))])
    await exchange.send(head.encode() + start)
    for _ in range(megabytes):
        await exchange.send(block)
    await exchange.send(end)


@lru_cache(maxsize=8)
def bomb_parts(megabytes: int) -> tuple[bytes, bytes]:
    """Return a megabyte of zeros as a deflate block that may be repeated, and the trailer of so many."""
    zeros = bytes(MEGABYTE)
    flate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    block = flate.compress(zeros) + flate.flush(zlib.Z_FULL_FLUSH)
    checksum = 0
    for _ in range(megabytes):
        checksum = zlib.crc32(zeros, checksum)
    return block, struct.pack("<II", checksum, megabytes * MEGABYTE & 0xFFFFFFFF)


@case("/unknown-encoding")
async def unknown_encoding(exchange: Exchange) -> None:
    """``?coding=x-lab``: a coding nobody knows."""
    await coded(exchange, prose(1000), exchange.text("coding", "x-lab"))


@case("/bytes")
async def octets(exchange: Exchange) -> None:
    """``?n=1000&type=application/octet-stream``: so many bytes that are no text."""
    size = int(exchange.number("n", 1000))
    body = (bytes(range(256)) * (size // 256 + 1))[:size]
    await exchange.reply(body, kind=exchange.text("type", BINARY))


@case("/big")
async def big(exchange: Exchange) -> None:
    """``?mb=10&chunked=0``: so many megabytes of text, as fast as the client reads."""
    megabytes = int(exchange.number("mb", 10))
    block = b"x" * 1023 + b"\n"
    piece = block * 64
    chunked = bool(exchange.number("chunked", 0))
    framing = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(megabytes * MEGABYTE))
    await exchange.send(exchange.head(200, [("Content-Type", HTML), framing]))
    if chunked:
        piece = b"%x\r\n%b\r\n" % (len(piece), piece)
    for _ in range(megabytes * 16):
        await exchange.send(piece)
    if chunked:
        await exchange.send(b"0\r\n\r\n")


@case("/charset")
async def charset(exchange: Exchange) -> None:
    """``/NAME?by=header``: the text of ``TEXTS`` in a charset said by ``header``, ``meta`` or nothing (``none``).

    ``utf-16`` has its byte order mark; ``?bom=1`` gives ``utf-8`` one.
    """
    name, by = exchange.rest.strip("/"), exchange.text("by", "header")
    if name not in TEXTS:
        await exchange.reply(f"no text in {name}\n", 404, kind=PLAIN)
        return
    meta = f'<meta charset="{name}">' if by == "meta" else ""
    codec = "utf-8-sig" if name == "utf-8" and exchange.number("bom", 0) else name
    page = f"<!doctype html><html><head>{meta}<title>{TEXTS[name]}</title></head><body>{TEXTS[name]}</body></html>"
    await exchange.reply(page.encode(codec), kind=f"text/html; charset={name}" if by == "header" else "text/html")
