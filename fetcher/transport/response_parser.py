"""Reads answers as browsers do: aiohttp's parser first, and what it refuses once more, mended.

Law 7: lenient in reading, never in what the next row gets. A connection whose answer needed mending, or brought more
bytes than its message has, is not used again. What a message is does not depend on how TCP cut its bytes.

A head that holds is parsed as it comes, and its bytes are only kept. One that the parser refuses is looked at line by
line: blanks between a name and its colon go (RFC 9112, 5.1, asks a proxy for as much), and a line without a colon, or
whose name is then no token, is passed over with its continuation lines. How long the body is (RFC 9112, 6.3) is then
decided from all lines that say so. A NUL is never mended, nor the answer to a CONNECT.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias

from aiohttp.http_exceptions import BadHttpMessage, HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from fetcher.model import REDIRECT_STATUSES

__all__ = ["ResponseParser", "mended", "transfer_codings"]

Parsed: TypeAlias = tuple[Any, bool, bytes]  # (message, payload) pairs, whether the protocol changes, what is left

NOTHING: Parsed = ((), False, b"")
BODILESS_STATUSES = frozenset({204, 304})

_STATUS_LINE = re.compile(rb"(?i:http)/([0-9]\.[0-9])[ \t]+([0-9]{3})(?:[ \t]+(.*))?")
_HEAD_END = re.compile(rb"\n\r?\n")
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_LEADING_ZEROS = re.compile(rb"^0+(?=.)")


def transfer_codings(values: list[str]) -> list[str]:
    """Return what the values of Transfer-Encoding say, but for ``identity`` and empty items, in lower case."""
    codings = [item.strip(" \t").lower() for value in values for item in value.split(",")]
    return [coding for coding in codings if coding not in ("", "identity")]


def mended(head: bytes, *, bodiless: bool = False) -> bytes:
    """Return a head as it was meant: each line that can be read, and one way to tell how long the body is.

    ``bodiless`` says that no body follows. Raises ``BadHttpMessage`` for what nobody can mean: no status line, a NUL,
    lengths that differ or are no numbers, a Transfer-Encoding in HTTP/1.0.
    """
    if b"\0" in head:
        raise BadHttpMessage("a NUL in the head")
    first, *lines = [line.removesuffix(b"\r") for line in head.split(b"\n")]
    status = _STATUS_LINE.fullmatch(first)
    if status is None:
        raise BadHttpMessage("the answer has no status line")
    fields = _fields(lines)
    codings = transfer_codings([value.decode("latin-1") for name, value in fields if _is(name, b"transfer-encoding")])
    lengths = {
        _LEADING_ZEROS.sub(b"", item.strip(b" \t"))  # the same number may be written in two ways (RFC 9110, 8.6)
        for name, value in fields
        if _is(name, b"content-length")
        for item in value.split(b",")
    }
    lengths.discard(b"")
    kept = [field for field in fields if not _is(field[0], b"transfer-encoding", b"content-length")]
    if bodiless:
        kept.append((b"Content-Length", b"0"))
    elif codings:
        if status[1] == b"1.0":
            raise BadHttpMessage("a Transfer-Encoding in HTTP/1.0")
        kept.append((b"Transfer-Encoding", ", ".join(codings).encode("latin-1")))
    elif lengths:
        if len(lengths) > 1:
            raise BadHttpMessage("Content-Lengths that differ")
        (length,) = lengths
        if not length.isdigit():
            raise BadHttpMessage("a Content-Length that is no number")
        kept.append((b"Content-Length", length))
    line = b"HTTP/%b %b %b" % (status[1], status[2], status[3] or b"")
    return b"\r\n".join([line, *(name + b": " + value for name, value in kept), b"", b""])


def _fields(lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    """Return names and values of the lines that can be read; a line that begins with a blank goes on with the last."""
    fields: list[tuple[bytes, bytes]] = []
    passed_over = True
    for line in lines:
        if line[:1] in (b" ", b"\t"):
            if not passed_over:
                name, value = fields[-1]
                fields[-1] = name, value + b" " + line.strip(b" \t")
            continue
        name, colon, value = line.partition(b":")
        name = name.rstrip(b" \t")
        passed_over = not colon or _TOKEN.fullmatch(name) is None
        if not passed_over:
            fields.append((name, value.strip(b" \t")))
    return fields


def _is(name: bytes, *others: bytes) -> bool:
    return name.lower() in others


def _end_of_heads(raw: bytes, number: int) -> int:
    """Return where so many heads end, one behind the other."""
    at = 0
    for _ in range(number):
        end = _HEAD_END.search(raw, at)
        at = end.end() if end is not None else len(raw)
    return at


class ResponseParser:
    """The answer to one request, byte by byte, with the methods of aiohttp's parser that its connection calls.

    ``make`` makes one of aiohttp's; ``spoil`` is told that the connection must not be used again. ``begin`` makes it
    ready for the answer to a request. Only where it is ``lenient`` heads are mended; it is not with the answer
    to a CONNECT. ``final`` is the message of the final answer, ``head`` its head as it came, where ``keep_head`` asks
    for it.
    """

    __slots__ = (
        "_buffer",
        "_chunked",
        "_end",
        "_error",
        "_left",
        "_looked",
        "_make",
        "_parser",
        "_payload",
        "_seen",
        "_spoil",
        "final",
        "head",
        "keep_head",
        "lenient",
    )

    def __init__(self, make: Callable[[], Any], spoil: Callable[[], None]) -> None:
        self._make = make
        self._spoil = spoil

    def begin(self, parser: Any) -> None:
        """Forget the answer before; ``parser`` is aiohttp's for the next."""
        self.lenient = self.keep_head = False
        self.final: Any = None
        self.head = b""
        self._parser = parser
        self._seen: list[bytes] = []  # the bytes of heads, as long as the final one is not there
        self._buffer: bytearray | None = None  # the same, once there is something to mend
        self._looked = 0  # bytes of the buffer that hold no end of a head
        self._error: HttpProcessingError | None = None  # what there is to mend
        self._payload: StreamReader | None = None  # of the final answer
        self._left: int | None = None  # bytes of its body that are to come, where its head says so
        self._chunked = False
        self._end = b""  # the last bytes that came of a chunked body

    def feed_data(self, data: bytes) -> Parsed:
        """Take what came; return the messages that it completes. Raises ``HttpProcessingError``."""
        if self._payload is not None:
            return self._feed_body(self._payload, data)
        if self._buffer is not None:
            self._buffer += data
            return self._mend(self._buffer)
        self._seen.append(data)
        try:
            result = self._parser.feed_data(data)
        except LineTooLong:
            raise
        except HttpProcessingError as error:
            if not self.lenient:
                raise
            return self._begin_to_mend(error)
        return self._heads(result) if result[0] else result

    def feed_eof(self) -> Any:
        """Take that no more comes; return what is there of an answer that has no whole head."""
        return self._parser.feed_eof() if self._buffer is None else self._buffer

    def pause_reading(self) -> None:
        """Keep what comes of the body until ``feed_data`` is called without any."""
        self._parser.pause_reading()

    def cut_redirect(self) -> Any:
        """Return the message of a redirect whose head is cut behind its whole Location, or ``None``.

        For a connection that ended in order: browsers and curl follow it.
        """
        if self._payload is not None or not self.lenient:
            return None
        head = bytes(self._buffer) if self._buffer is not None else b"".join(self._seen)
        while (end := _HEAD_END.search(head)) is not None:  # interim answers
            head = head[end.end() :]
        head = head.lstrip(b"\r\n")
        whole = head[: head.rfind(b"\n") + 1]
        if _STATUS_LINE.match(whole) is None or not any(
            _is(name, b"location") and value for name, value in _fields(whole.splitlines()[1:])
        ):
            return None
        if self.keep_head:
            self.head = whole
        try:
            ((message, _),) = self._make().feed_data(mended(whole, bodiless=True))[0]
        except HttpProcessingError:
            return None
        return message if message.code in REDIRECT_STATUSES else None

    # The heads

    def _heads(self, result: Parsed) -> Parsed:
        """Look at the heads that are there: the final one begins the body, and ends the answer's other messages."""
        messages = result[0]
        message, payload = messages[0]
        interim = 0
        while message.code < 200 and message.code != 101:
            interim += 1
            if interim == len(messages):
                raw = b"".join(self._seen)
                self._seen = [raw[_end_of_heads(raw, interim) :]]
                return result
            message, payload = messages[interim]
        if "Transfer-Encoding" in message.headers:
            codings = transfer_codings(message.headers.getall("Transfer-Encoding"))
            if (codings == ["chunked"]) != message.chunked and self.lenient:
                return self._begin_to_mend(BadHttpMessage("a Transfer-Encoding that cannot be read"))
        self._begin_body(message, payload)
        raw = self._seen[0] if len(self._seen) == 1 else b"".join(self._seen)
        self._seen = []
        end = _HEAD_END.search(raw) if not interim else None
        at = end.end() if end is not None else _end_of_heads(raw, interim + 1)
        if self.keep_head:
            self.head = raw[_end_of_heads(raw, interim) : at]
        came = len(raw) - at  # of the body, with its head
        if self._left is not None:
            if came > self._left:
                self._spoil()
            self._left = max(0, self._left - came)
        elif self._chunked:
            self._end = raw[at:][-4:]
            self._check_end(payload)
        if came and not self.lenient and message.code < 300:
            raise BadHttpMessage("bytes behind the answer to CONNECT")
        if len(messages) > interim + 1:
            self._spoil()
            return messages[: interim + 1], result[1], result[2]
        return result

    def _begin_body(self, message: Any, payload: StreamReader) -> None:
        """Note how long the body of the final answer is."""
        if "\0" in (message.reason or ""):
            raise BadHttpMessage("a NUL in the reason phrase")
        self._payload, self.final = payload, message
        headers = message.headers
        if payload is EMPTY_PAYLOAD or message.code in BODILESS_STATUSES:
            self._left = 0
            if message.code in BODILESS_STATUSES and (
                "Transfer-Encoding" in headers
                or (message.code == 204 and headers.get("Content-Length", "0").strip("0"))
            ):
                self._spoil()  # its head says that more may come
        elif message.chunked:
            self._chunked = True
        elif (length := headers.get("Content-Length")) is not None:
            self._left = int(length)

    def _begin_to_mend(self, error: HttpProcessingError) -> Parsed:
        self._error = error
        self._buffer = bytearray(b"".join(self._seen))
        self._seen = []
        return self._mend(self._buffer)

    def _mend(self, buffer: bytearray) -> Parsed:
        """Parse the heads that are whole by a new parser each, mended; what follows the final one is body."""
        messages: list[Any] = []
        while True:
            if not self._looked:
                del buffer[: len(buffer) - len(buffer.lstrip(b"\r\n"))]
            self._check_status_line(buffer)
            end = _HEAD_END.search(buffer, max(0, self._looked - 2))
            if end is None:
                self._looked = len(buffer)
                return messages, False, b""
            head = bytes(buffer[: end.end()])
            del buffer[: end.end()]
            self._looked = 0
            if self.keep_head:
                self.head = head
            self._parser = self._make()
            found, upgraded, tail = self._parser.feed_data(mended(head))
            messages += found
            message, payload = found[0]
            if message.code >= 200 or message.code == 101:
                break
        self._buffer = None
        self._begin_body(message, payload)
        self._spoil()
        if buffer:
            try:
                self._feed_body(payload, bytes(buffer))
            except HttpProcessingError as error:  # the head is there all the same
                payload.set_exception(error)
                payload.feed_eof()
        return messages, upgraded, tail

    def _check_status_line(self, buffer: bytearray) -> None:
        """Raise the error at once where what came is the beginning of no answer."""
        line, newline, _ = buffer[:1024].partition(b"\n")
        if newline:
            if _STATUS_LINE.fullmatch(line.removesuffix(b"\r")):
                return
        elif line[:5].lower() == b"http/"[: len(line)]:
            return
        assert self._error is not None
        raise self._error

    # The body

    def _feed_body(self, payload: StreamReader, data: bytes) -> Parsed:
        """Take bytes of the body; those behind its end are dropped."""
        if data and self._left is not None:
            if len(data) > self._left:
                data = data[: self._left]
                self._spoil()
                if not data:
                    return NOTHING
            self._left -= len(data)
        elif data and self._chunked:
            if payload.is_eof():
                self._spoil()
                return NOTHING
            self._end = (self._end + data)[-4:]
        try:
            result = self._parser.feed_data(data)
        except HttpProcessingError:
            if not payload.is_eof():
                raise
            result = NOTHING  # it is in what follows
            self._spoil()
        if result[0]:
            self._spoil()
            return NOTHING
        if self._chunked:
            self._check_end(payload)
        return result  # type: ignore[no-any-return]  # it is untyped

    def _check_end(self, payload: StreamReader) -> None:
        """Find what follows the last chunk in its segment and is no whole message: nothing else tells of it."""
        if payload.is_eof() and not self._end.endswith((b"\n\r\n", b"\n\n")):
            self._spoil()
