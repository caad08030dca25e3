"""An HTTP answer as an archive has it: its head, and its body without transfer and content codings.

Law 7: archives are made by many programs, and some undo a coding and leave its header: what is not so coded is taken as
it is.
"""

from __future__ import annotations

import re

from fetcher.errors import TooLarge
from fetcher.model import Pairs
from fetcher.transport.codings import Decoder

__all__ = ["decoded", "parse_message"]

MAX_HEADERS = 1_000
_STATUS = re.compile(rb"(?i)HTTP/[0-9.]+[ \t]+([0-9]{3})")
_END = re.compile(rb"\r?\n\r?\n")
_CHUNK = re.compile(rb"[ \t]*([0-9a-fA-F]{1,16})[ \t]*(?:;[^\r\n]*)?\r?\n")
_ORIGINAL = {"x-archive-orig-transfer-encoding": "transfer-encoding", "x-archive-orig-content-length": "content-length"}
"""What our own archives call what a head said of a coding that was undone when its body was stored."""


def parse_message(block: bytes) -> tuple[int, Pairs, bytes] | None:
    """Return the status, the headers (lower-case names) and the body as stored; ``None`` for what is no answer."""
    block = block.lstrip(b"\r\n") if block[:1] in b"\r\n" else block
    status = _STATUS.match(block)
    end = _END.search(block)
    if status is None:
        return None
    head, body = (block, b"") if end is None else (block[: end.start()], block[end.end() :])
    headers: list[tuple[str, str]] = []
    for line in head.splitlines()[1 : MAX_HEADERS + 1]:
        name, colon, value = line.decode("utf-8", "surrogateescape").partition(":")
        if colon and name:
            headers.append((name.strip().lower(), value.strip(" \t")))
    if any(name in _ORIGINAL for name, _ in headers):
        headers = [(_ORIGINAL.get(name, name), value) for name, value in headers if name != "content-length"]
        return int(status[1]), tuple(headers), body
    if any(name == "transfer-encoding" and "chunked" in value.lower() for name, value in headers):
        body = _without_chunks(body)
    return int(status[1]), tuple(headers), body


def decoded(headers: Pairs, body: bytes, *, max_size: int, cut: bool = False) -> bytes:
    """Undo the content codings of a stored body.

    ``cut`` says that some of it is missing: then what there is is returned, at most ``max_size`` bytes. Raises
    ``TooLarge`` and ``ProtocolError``.
    """
    codings = ", ".join(value for name, value in headers if name == "content-encoding")
    if codings and "gzip" in codings.lower() and not body.startswith(b"\x1f\x8b"):
        codings = ""
    if not codings:
        if len(body) > max_size and not cut:
            raise _too_large(max_size)
        return body[:max_size]
    decoder = Decoder(codings, max_size)
    pieces = list(decoder.pieces(body))
    if decoder.overflow and not cut:
        raise _too_large(max_size)
    if not cut:
        decoder.finish()
    return b"".join(pieces)[:max_size]


def _too_large(max_size: int) -> TooLarge:
    return TooLarge(message=f"the body is over {max_size:,} bytes")


def _without_chunks(body: bytes) -> bytes:
    """Return a body without its chunks (RFC 9112, 7.1), or as it is where it is not made of them."""
    chunks: list[bytes] = []
    at = 0
    while (size := _CHUNK.match(body, at)) is not None:
        length = int(size[1], 16)
        if not length:
            return b"".join(chunks)
        chunks.append(body[size.end() : size.end() + length])
        at = size.end() + length
        if body.startswith(b"\r\n", at):
            at += 2
        elif body.startswith(b"\n", at):
            at += 1
        elif at < len(body):
            break
    return b"".join(chunks) if chunks and at >= len(body) else body
