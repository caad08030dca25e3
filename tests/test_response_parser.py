"""Heads are mended as browsers read them, framing is decided by us, and what is too much spoils the connection."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.transport.connector import StampedProtocol
from fetcher.transport.response_parser import ResponseParser, mended, transfer_codings

PAGE = b"<title>hi</title>hello"
LENGTH = b"Content-Length: %d\r\n" % len(PAGE)


class Answered:
    """A parser of its own, what it has delivered, and whether its connection is spoilt."""

    def __init__(self, *, lenient: bool = True) -> None:
        self.protocol = ResponseHandler(asyncio.get_running_loop())
        self.spoilt = 0
        self.messages: list[tuple[Any, Any]] = []
        self.parser = ResponseParser(self._make, self._spoil)
        self.parser.begin(self._make())
        self.parser.lenient = lenient

    def _make(self) -> Any:
        self.protocol.set_response_params(read_until_eof=True, auto_decompress=False)
        return self.protocol._parser

    def _spoil(self) -> None:
        self.spoilt += 1

    def feed(self, data: bytes, size: int = 1 << 20) -> Answered:
        for at in range(0, len(data), size):
            self.messages += self.parser.feed_data(data[at : at + size])[0]
        return self

    @property
    def final(self) -> Any:
        return self.parser.final

    @property
    def body(self) -> bytes:
        payload = self.messages[-1][1]
        assert payload.exception() is None, payload.exception()
        return b"".join(payload._buffer) if hasattr(payload, "_buffer") else b""

    @property
    def whole(self) -> bool:
        return bool(self.messages) and self.messages[-1][1].is_eof()


SIZES = (1, 7, 1 << 20)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nX: 1\r\n" + LENGTH,
        b"HTTP/1.1  200 OK\r\n" + LENGTH,
        b"http/1.1 200 OK\r\n" + LENGTH,
        b"HTTP/1.1 200 OK\r\nGarbage\r\n" + LENGTH,
        b"HTTP/1.1 200 OK\r\nGarbage\r\n goes on\r\n" + LENGTH,
        b"HTTP/1.1 200 OK\r\nX Powered By: PHP\r\n" + LENGTH,
        b"HTTP/1.1 200 OK\r\nX-Foo : 1\r\n" + LENGTH,
        b"HTTP/1.1 200 OK\r\n\xe2\x80\x98a: 1\r\n" + LENGTH,
        b"HTTP/1.1 200 OK\r\n" + LENGTH + LENGTH,
        b"HTTP/1.1 200 OK\r\nContent-Length:\r\n" + LENGTH,
        b"HTTP/1.1 200 OK\r\nContent-Length: 22, 22\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length : 22\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\nGarbage\r\n" + LENGTH,
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n" + LENGTH,
    ],
)
async def test_heads_as_browsers_read_them(head: bytes, size: int) -> None:
    answered = Answered().feed(head + b"\r\n" + PAGE, size)
    assert (answered.final.code, answered.body, answered.whole) == (200, PAGE, True)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 O\0K\r\n" + LENGTH,
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\n" + LENGTH,
        b"HTTP/1.1 200 OK\r\nContent-Length: 22\r\nContent-Length: 23\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +22\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0x16\r\n",
        b"HTTP/1.0 200 OK\r\nGarbage\r\nTransfer-Encoding: chunked\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"<html>no head</html>\r\n",
        b"HTTP/1.1 2x0 OK\r\n",
    ],
)
async def test_heads_that_nobody_can_mean(head: bytes, size: int) -> None:
    answered = Answered()
    with pytest.raises(HttpProcessingError):
        answered.feed(head + b"\r\n" + PAGE, size)


@pytest.mark.parametrize("size", SIZES)
async def test_what_is_no_answer_fails_with_its_first_line(size: int) -> None:
    """Nobody waits until the time is over for the end of a head that is none."""
    with pytest.raises(HttpProcessingError):
        Answered().feed(b"220 mail.example ESMTP\r\n", size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Transfer-Encoding: chunked\r\n" + b"Content-Length: 5\r\n", b"16\r\n" + PAGE + b"\r\n0\r\n\r\n"),
        (b"Transfer-Encoding : chunked\r\n" + b"Content-Length: 5\r\n", b"16\r\n" + PAGE + b"\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", b"16\r\n" + PAGE + b"\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked, identity\r\n", b"16\r\n" + PAGE + b"\r\n0\r\n\r\n"),
    ],
)
async def test_chunked_goes_before_a_length(head: bytes, body: bytes, size: int) -> None:
    answered = Answered().feed(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body, size)
    assert (answered.body, answered.whole) == (PAGE, True)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "after", [b"<!-- 0.1 s -->", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", b"\0"]
)
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n" + LENGTH + b"\r\n" + PAGE,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n16\r\n" + PAGE + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 22\r\n\r\n",
    ],
)
async def test_bytes_after_a_whole_message_spoil_its_connection_alone(answer: bytes, after: bytes, size: int) -> None:
    answered = Answered().feed(answer, size)
    assert (answered.whole, answered.spoilt) == (True, 0)
    body = answered.body
    answered = Answered().feed(answer + after, size)
    assert answered.whole
    assert answered.body == body
    assert answered.spoilt > 0
    assert len([message for message, _ in answered.messages if message.code >= 200]) == 1


@pytest.mark.parametrize(
    ("head", "spoilt"),
    [
        (b"HTTP/1.1 204 No Content\r\n", False),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n", False),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n", True),
        (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n", True),
        (b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n", False),
    ],
)
async def test_a_head_that_says_that_more_may_come_where_nothing_may(head: bytes, spoilt: bool) -> None:
    assert bool(Answered().feed(head + b"\r\n").spoilt) is spoilt


@pytest.mark.parametrize("size", SIZES)
async def test_a_malformed_chunk_is_told_at_once(size: int) -> None:
    answered = Answered()
    try:
        answered.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\nmore", size)
        error = answered.messages[-1][1].exception()
    except HttpProcessingError as raised:  # which its connection hands on to the body
        error = raised
    assert isinstance(error, HttpProcessingError)
    assert answered.final.code == 200


async def test_the_answer_to_a_connect_is_never_mended() -> None:
    with pytest.raises(HttpProcessingError):
        Answered(lenient=False).feed(b"HTTP/1.1 200 OK\r\nGarbage\r\n\r\n")
    with pytest.raises(HttpProcessingError):
        Answered(lenient=False).feed(b"HTTP/1.1 200 Connection established\r\n\r\n\x16\x03")
    assert Answered(lenient=False).feed(b"HTTP/1.1 200 Connection established\r\n\r\n").final.code == 200


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("head", "location"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: /there\r\n", "/there"),
        (b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Le", "/there"),
        (b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 302 Found\r\nGarbage\r\nLocation: /there\r\n", "/there"),
        (b"HTTP/1.1 302 Found\r\nLocation: /the", None),
        (b"HTTP/1.1 302 Found\r\nLocation:\r\n", None),
        (b"HTTP/1.1 200 OK\r\nLocation: /there\r\n", None),
        (b"HTTP/1.1 302 Found", None),
        (b"", None),
    ],
)
async def test_a_redirect_that_is_cut_behind_its_location(head: bytes, location: str | None, size: int) -> None:
    message = Answered().feed(head, size).parser.cut_redirect()
    assert (message and message.headers["Location"]) == location


async def test_one_byte_at_a_time_is_not_quadratic() -> None:
    """It would take minutes, were each byte's head looked through from its beginning."""
    head = b"HTTP/1.1 200 OK\r\nGarbage\r\n" + b"X: 1\r\n" * 20 + b"Y: " + b"y" * 60_000
    assert Answered().feed(head * 4, 1).messages == []


@given(st.binary(max_size=200), st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_no_bytes_end_otherwise_than_by_an_answer_or_its_error(data: bytes, size: int) -> None:
    async def feed() -> None:
        for prefix in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"):
            try:
                Answered().feed(prefix + data, size)
            except HttpProcessingError:
                pass

    asyncio.run(feed())


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_what_is_mended_needs_no_mending(head: bytes) -> None:
    try:
        once = mended(b"HTTP/1.1 200 OK\r\n" + head)
    except HttpProcessingError:
        return
    assert mended(once) == once


def test_transfer_codings() -> None:
    assert transfer_codings(["identity, chunked", " ,CHUNKED"]) == ["chunked", "chunked"]
    assert transfer_codings(["gzip,\tchunked", "identity"]) == ["gzip", "chunked"]
    assert transfer_codings(["\x0bchunked"]) == ["\x0bchunked"]


def test_aiohttp_still_has_what_this_stands_on() -> None:
    """Private to aiohttp: its silent repeat on another kept connection is turned off, and its parser is replaced."""

    async def look() -> None:
        async with aiohttp.ClientSession() as session:
            assert session._retry_connection is True
            connector = session.connector
            assert isinstance(connector, aiohttp.TCPConnector)
            assert all(hasattr(connector, name) for name in ("_get", "_release", "_conns", "_acquired", "_factory"))
        protocol = StampedProtocol(asyncio.get_running_loop())
        protocol.set_response_params()
        assert isinstance(protocol._parser, ResponseParser)

    asyncio.run(look())
