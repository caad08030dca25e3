"""Owns raw replies as odd servers send them: what is odd comes in kinds, and two kinds can be put together.

Law 1: each whole body carries the path that it is for, so that a page that was answered to another row is seen. Law 2:
a reply is bytes and nothing else; who sends it, in which segments and up to where, is somebody else's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from typing import TypeAlias

__all__ = ["KINDS", "Reply", "odd_replies", "plain_reply"]


@dataclass
class Reply:
    """The parts of one reply; ``body`` is sent as it is, ``after`` follows it."""

    path: str
    before: bytes = b""
    status: bytes = b"HTTP/1.1 200 OK"
    headers: list[bytes] = field(default_factory=lambda: [b"Content-Type: text/html; charset=utf-8"])
    framing: str = "length"
    lengths: list[bytes] | None = None
    chunk_size: bytes | None = None
    codings: list[bytes] = field(default_factory=lambda: [b"Transfer-Encoding: chunked"])
    end: bytes = b"\r\n"
    after: bytes = b""

    @property
    def page(self) -> bytes:
        """The body as it is meant: its title is the path."""
        return f"<title>{self.path}</title><p>odd, isn't it?".encode()

    def render(self) -> bytes:
        """Return the bytes."""
        body, headers = self.page, list(self.headers)
        if self.framing == "length":
            headers += self.lengths if self.lengths is not None else [b"Content-Length: %d" % len(body)]
        elif self.framing == "chunked":
            headers += self.codings
            size = self.chunk_size if self.chunk_size is not None else b"%x" % len(body)
            body = size + self.end + body + self.end + b"0" + self.end + self.end
        elif self.framing == "close":
            headers.append(b"Connection: close")
        head = self.end.join([self.status, *headers, b"", b""])
        return self.before + head + body + self.after

    def length(self, *values: bytes) -> None:
        """Say the length in these words, ``%d`` for the number."""
        self.lengths = [value.replace(b"%d", b"%d" % len(self.page)) for value in values]


Kind: TypeAlias = Callable[[Reply], None]


def _header(line: bytes) -> Kind:
    return lambda reply: reply.headers.insert(1, line)


def _lengths(*values: bytes) -> Kind:
    return lambda reply: reply.length(*values)


def _chunked(reply: Reply) -> None:
    reply.framing = "chunked"


def _chunked_beside_length(reply: Reply) -> None:
    reply.framing = "chunked"
    reply.headers.append(b"Content-Length: 5")


def _malformed_chunk(reply: Reply) -> None:
    reply.framing, reply.chunk_size = "chunked", b"5z"


def _coded_twice(reply: Reply) -> None:
    reply.framing, reply.codings = "chunked", [b"Transfer-Encoding: gzip, chunked"]


def _coding_after_a_blank(reply: Reply) -> None:
    reply.framing, reply.codings = "chunked", [b"Transfer-Encoding : chunked"]


def _identity(reply: Reply) -> None:
    reply.framing = "close"
    reply.headers.append(b"Transfer-Encoding: identity")


def _old_version(reply: Reply) -> None:
    reply.status = reply.status.replace(b"1.1", b"1.0")


def _no_content(reply: Reply) -> None:
    reply.status = b"HTTP/1.1 204 No Content"


def _not_modified(reply: Reply) -> None:
    reply.status = b"HTTP/1.1 304 Not Modified"


def _status(line: bytes) -> Kind:
    def change(reply: Reply) -> None:
        reply.status = line

    return change


def _hint_before(reply: Reply) -> None:
    reply.before += b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"


def _bytes_after(reply: Reply) -> None:
    reply.after += b"<!-- made in 0.1 s -->"


def _line_after(reply: Reply) -> None:
    reply.after += b"HTTP/1.1 2"


def _answer_after(reply: Reply) -> None:
    reply.after += b"HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\n<title>not yours</title>.."


def _bare_lines(reply: Reply) -> None:
    reply.end = b"\n"


KINDS: dict[str, Kind] = {
    "two spaces in the status line": _status(b"HTTP/1.1  200 OK"),
    "a lower-case version": _status(b"http/1.1 200 OK"),
    "no reason": _status(b"HTTP/1.1 200"),
    "a NUL in the reason": _status(b"HTTP/1.1 200 O\0K"),
    "a line without a colon": _header(b"Garbage"),
    "a line that goes on": _header(b"Garbage\r\n ; charset=utf-16"),
    "a blank in a name": _header(b"X Powered By: PHP"),
    "a blank before the colon": _header(b"X-Foo : 1"),
    "a name that is no ASCII": _header(b"\xe2\x80\x98a\xe2\x80\x99: *"),
    "a NUL in a value": _header(b"X-Foo: a\0b"),
    "an unknown coding": _header(b"Content-Encoding: none"),
    "a folded line": _header(b"X-Foo: a\r\n b"),
    "a time to keep the connection": _header(b"Keep-Alive: timeout=1, max=9"),
    "a length after a blank": _lengths(b"Content-Length : %d"),
    "equal lengths": _lengths(b"Content-Length: %d", b"Content-Length: %d"),
    "a list of equal lengths": _lengths(b"Content-Length: %d, %d"),
    "an empty length": _lengths(b"Content-Length:", b"Content-Length: %d"),
    "lengths that differ": _lengths(b"Content-Length: %d", b"Content-Length: 3"),
    "a signed length": _lengths(b"Content-Length: +%d"),
    "chunked": _chunked,
    "chunked beside a length": _chunked_beside_length,
    "a malformed chunk": _malformed_chunk,
    "coded, then chunked": _coded_twice,
    "chunked after a blank": _coding_after_a_blank,
    "the coding identity": _identity,
    "an old version": _old_version,
    "no content": _no_content,
    "not modified": _not_modified,
    "a hint before": _hint_before,
    "bytes after": _bytes_after,
    "half an answer after": _line_after,
    "an answer after": _answer_after,
    "bare line feeds": _bare_lines,
}


def odd_replies() -> dict[str, Callable[[str], bytes]]:
    """Return replies of each kind and of each two together, by name: from the path that is asked for to its bytes."""
    listed: dict[str, Callable[[str], bytes]] = {name: _maker(kind) for name, kind in KINDS.items()}
    for (one, kind), (other, second) in combinations(KINDS.items(), 2):
        listed[f"{one} + {other}"] = _maker(kind, second)
    return listed


def plain_reply(path: str) -> bytes:
    """Return what nothing is odd with."""
    return Reply(path).render()


def _maker(*kinds: Kind) -> Callable[[str], bytes]:
    def make(path: str) -> bytes:
        reply = Reply(path)
        for kind in kinds:
            kind(reply)
        return reply.render()

    return make
