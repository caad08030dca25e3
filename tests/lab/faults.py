"""The lab's cases that break the protocol, each in one way: silence, slowness, cuts, resets and bad syntax."""

from __future__ import annotations

from tests.lab.exchange import HTML, Exchange, case

TYPE = ("Content-Type", HTML)
CHUNKED = ("Transfer-Encoding", "chunked")
PAGE = "<!doctype html><title>lab</title>"


def length(size: int) -> tuple[str, str]:
    """Return the header that promises that many bytes."""
    return ("Content-Length", str(size))


@case("/slow-headers")
async def slow_headers(exchange: Exchange) -> None:
    """``?n=10&gap=0.05``: a head that comes line by line."""
    headers = [(f"X-Slow-{n}", "1") for n in range(int(exchange.number("n", 10)))]
    for line in exchange.head(200, [TYPE, length(len(PAGE)), *headers]).splitlines(keepends=True):
        await exchange.send(line)
        await exchange.pause(exchange.number("gap", 0.05))
    await exchange.send(PAGE)


@case("/slow-body")
async def slow_body(exchange: Exchange) -> None:
    """``?chunks=10&gap=0.05&size=100``: chunks of that size, with a wait before each."""
    chunk = "x" * int(exchange.number("size", 100))
    await exchange.send(exchange.head(200, [TYPE, CHUNKED]))
    for _ in range(int(exchange.number("chunks", 10))):
        await exchange.pause(exchange.number("gap", 0.05))
        await exchange.send(f"{len(chunk):x}\r\n{chunk}\r\n")
    await exchange.send("0\r\n\r\n")


@case("/drip")
async def drip(exchange: Exchange) -> None:
    """``?n=1000&gap=0.05``: a byte at a time."""
    size = int(exchange.number("n", 1000))
    await exchange.send(exchange.head(200, [TYPE, length(size)]))
    for _ in range(size):
        await exchange.send("x")
        await exchange.pause(exchange.number("gap", 0.05))


@case("/silent")
async def silent(exchange: Exchange) -> None:
    """Never answers; with ``?after=head`` or ``?after=body`` it falls silent there."""
    after = exchange.text("after")
    if after:
        await exchange.send(exchange.head(200, [TYPE, length(1000)]) + ("x" * 500 if after == "body" else ""))
    await exchange.gone()
    exchange.close()


@case("/cut-body")
async def cut_body(exchange: Exchange) -> None:
    """``?size=1000&sent=500``: promises more than it sends, and closes."""
    head = exchange.head(200, [TYPE, length(int(exchange.number("size", 1000)))])
    await exchange.send(head + "x" * int(exchange.number("sent", 500)))
    exchange.close()


@case("/cut-chunked")
async def cut_chunked(exchange: Exchange) -> None:
    """A chunk, and the end without the last one; with ``?inside=1`` the end in the midst of a chunk."""
    inside = exchange.number("inside", 0)
    await exchange.send(exchange.head(200, [TYPE, CHUNKED]) + ("64\r\nxxxx" if inside else "4\r\nxxxx\r\n"))
    exchange.close()


@case("/cut-headers")
async def cut_headers(exchange: Exchange) -> None:
    """The end in the midst of a header."""
    await exchange.send("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Le")
    exchange.close()


@case("/empty")
async def empty(exchange: Exchange) -> None:
    """Closes without a byte."""
    exchange.close()


@case("/reset")
async def reset(exchange: Exchange) -> None:
    """RST without a byte."""
    exchange.reset()


@case("/reset-body")
async def reset_body(exchange: Exchange) -> None:
    """RST in the midst of the body."""
    await exchange.send(exchange.head(200, [TYPE, length(1000)]) + "x" * 500)
    exchange.reset()


async def blurt(exchange: Exchange, data: str) -> None:
    """Send text as it is and close."""
    await exchange.send(data)
    exchange.close()


@case("/malformed")
async def malformed(exchange: Exchange) -> None:
    """What is no HTTP at all."""
    await blurt(exchange, "\x00\x01SSH-2.0-garbage\r\n\xff\xfe\r\n\r\n")


@case("/bad-status-line")
async def bad_status_line(exchange: Exchange) -> None:
    """``?v=HTTP/1.1 abc Nope``: that status line, and a good rest."""
    line = exchange.text("v", "HTTP/1.1 abc Nope")
    await blurt(exchange, f"{line}\r\nContent-Length: {len(PAGE)}\r\n\r\n{PAGE}")


@case("/bad-header")
async def bad_header(exchange: Exchange) -> None:
    """``?v=this header has no colon``: that line among the headers."""
    line = exchange.text("v", "this header has no colon")
    await blurt(exchange, f"HTTP/1.1 200 OK\r\n{line}\r\nContent-Length: {len(PAGE)}\r\n\r\n{PAGE}")


@case("/bad-length")
async def bad_length(exchange: Exchange) -> None:
    """``?kind=text``: a length that is no number, or ``negative``, or ``two`` that differ."""
    values = {"text": ["many"], "negative": ["-5"], "two": [str(len(PAGE)), "7"]}[exchange.text("kind", "text")]
    lines = "".join(f"Content-Length: {value}\r\n" for value in values)
    await blurt(exchange, f"HTTP/1.1 200 OK\r\nContent-Type: {HTML}\r\n{lines}\r\n{PAGE}")


@case("/bad-chunk")
async def bad_chunk(exchange: Exchange) -> None:
    """A chunk whose size is no number."""
    await blurt(exchange, exchange.head(200, [TYPE, CHUNKED]) + "4\r\nxxxx\r\nzz\r\nyyyy\r\n0\r\n\r\n")


@case("/huge-header")
async def huge_header(exchange: Exchange) -> None:
    """``?size=100000``: one header with a value of that many bytes."""
    await exchange.reply(PAGE, headers=[("X-Huge", "h" * int(exchange.number("size", 100_000)))])


@case("/many-headers")
async def many_headers(exchange: Exchange) -> None:
    """``?n=1000``: that many headers."""
    await exchange.reply(PAGE, headers=[(f"X-Many-{n}", "m") for n in range(int(exchange.number("n", 1000)))])


@case("/101")
async def switching(exchange: Exchange) -> None:
    """Changes to a protocol nobody asked for, and speaks it."""
    await exchange.send(exchange.head(101, [("Upgrade", "lab"), ("Connection", "Upgrade")]))
    await blurt(exchange, "lab lab lab")


@case("/informational")
async def informational(exchange: Exchange) -> None:
    """Two informational answers before the final one."""
    await exchange.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")
    await exchange.reply(PAGE)


@case("/no-length")
async def no_length(exchange: Exchange) -> None:
    """A body that lasts until the connection closes, without announcement."""
    await blurt(exchange, f"HTTP/1.1 200 OK\r\nContent-Type: {HTML}\r\n\r\n{PAGE}")


@case("/keep-alive-close")
async def keep_alive_close(exchange: Exchange) -> None:
    """A whole answer that lets the connection live, and then its end."""
    await blurt(exchange, exchange.head(200, [TYPE, length(len(PAGE)), ("Connection", "keep-alive")]) + PAGE)


@case("/http10")
async def http10(exchange: Exchange) -> None:
    """HTTP/1.0, with no length."""
    await blurt(exchange, f"HTTP/1.0 200 OK\r\nContent-Type: {HTML}\r\n\r\n{PAGE}")


@case("/lf-only")
async def lf_only(exchange: Exchange) -> None:
    """Lines that end in a bare LF."""
    await exchange.send(exchange.head(200, [TYPE, length(len(PAGE))]).replace("\r\n", "\n") + PAGE)
