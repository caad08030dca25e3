"""Owns one accepted socket from its first byte to its last: requests in turn, an answer each.

Law 1: whatever ends it, the transport is closed before it returns. Law 2: what a client does wrong ends the connection;
what a case does wrong is kept among the site's bugs.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from tests.lab.exchange import PLAIN, Exchange, LabSite, WireReader, parse_head, read_body
from tests.lab.log import LogEntry

TLS_RECORD = b"\x16"


@dataclass(slots=True)
class Line:
    """One accepted socket, its streams, and the exchange that is being served on it."""

    site: LabSite
    sock: socket.socket
    number: int
    tls: bool
    serving: LogEntry | None = None

    def end(self) -> None:
        """Note that the exchange is over, by the case or by the client."""
        if self.serving is not None:
            self.site.stats.end(self.serving)
            self.serving = None


async def converse(site: LabSite, sock: socket.socket, context: ssl.SSLContext | None, number: int) -> None:
    """Answer the requests of one accepted socket until either side has had enough."""
    line = Line(site, sock, number, context is not None)
    try:
        async with _streams(line, context) as (reader, writer):
            while await _answer(line, reader, writer):
                pass
    except (OSError, EOFError):
        return
    finally:
        line.end()


@asynccontextmanager
async def _streams(
    line: Line, context: ssl.SSLContext | None
) -> AsyncIterator[tuple[WireReader, asyncio.StreamWriter]]:
    loop = asyncio.get_running_loop()
    reader = WireReader(line.end)
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, line.sock, ssl=context)
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    try:
        yield reader, writer
        async with asyncio.timeout(line.site.patience):
            writer.close()
            await writer.wait_closed()
    finally:
        transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


async def _answer(line: Line, reader: WireReader, writer: asyncio.StreamWriter) -> bool:
    """Serve one request; tell whether another may follow."""
    try:
        entry = await _read_request(line, reader)
    except (ValueError, asyncio.LimitOverrunError) as fault:
        return await _refuse(writer, str(fault))
    if entry is None:
        return False
    line.serving = entry
    line.site.stats.arrive(entry)
    exchange = Exchange(line.site, entry, reader, writer, line.sock)
    async with asyncio.timeout(line.site.patience):
        try:
            exchange.body = await read_body(reader, entry)
        except (ValueError, asyncio.LimitOverrunError) as fault:
            return await _refuse(writer, str(fault))
        try:
            await exchange.become(entry.local)
        except (OSError, EOFError):
            raise
        except Exception as bug:  # raised again when the lab closes
            line.site.bugs.append(bug)
            return False
    line.end()
    return exchange.keep


async def _read_request(line: Line, reader: WireReader) -> LogEntry | None:
    first = b"\n"
    while first in (b"\r", b"\n"):
        first = await reader.read(1)
    if not first:
        return None
    if first == TLS_RECORD:
        raise ValueError("TLS spoken to a plain port")
    head = first + await reader.readuntil(b"\r\n\r\n")
    method, target, version, headers = parse_head(head)
    host, port = line.sock.getsockname()[:2]
    return LogEntry(host, port, method, target, headers, line.number, line.tls, head.decode("latin-1"), version)


async def _refuse(writer: asyncio.StreamWriter, why: str) -> bool:
    body = f"{why}\n".encode()
    head = f"HTTP/1.1 400 Bad Request\r\nContent-Type: {PLAIN}\r\nContent-Length: {len(body)}\r\n"
    writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
    await writer.drain()
    return False
