"""Owns the client the lab is tested with: one request on a raw socket, and every byte of the answer."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

DEADLINE = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The bytes that came until the connection ended, and whether it ended with RST."""

    raw: bytes
    reset: bool = False

    @property
    def head(self) -> str:
        """The head as latin-1, without its empty line."""
        return self.raw.partition(b"\r\n\r\n")[0].decode("latin-1")

    @property
    def body(self) -> bytes:
        """All that follows the head."""
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def status(self) -> int:
        """The status of the first line; raises ValueError where that is none."""
        return int(self.head.split(" ")[1])

    def headers(self, name: str) -> list[str]:
        """Return the values of a header."""
        lines = (line.partition(": ") for line in self.head.split("\r\n")[1:])
        return [value for key, _, value in lines if key.lower() == name.lower()]


async def connect(url: str) -> socket.socket:
    """Return a socket connected to the host and port of a URL."""
    sock = socket.socket()
    sock.setblocking(False)
    try:
        parts = urlsplit(url)
        await asyncio.get_running_loop().sock_connect(sock, (parts.hostname, parts.port))
    except BaseException:
        sock.close()
        raise
    return sock


def request(url: str, *lines: str, method: str = "GET") -> bytes:
    """Return the head of a request with those header lines."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return "\r\n".join([f"{method} {target} HTTP/1.1", f"Host: {parts.netloc}", *lines, "", ""]).encode("latin-1")


async def ask(url: str, *lines: str, method: str = "GET") -> Answer:
    """Send one request that asks for the end of the connection, and read until that end."""
    sock = await connect(url)
    with sock:
        loop = asyncio.get_running_loop()
        raw = bytearray()
        async with asyncio.timeout(DEADLINE):
            await loop.sock_sendall(sock, request(url, *lines, "Connection: close", method=method))
            try:
                while data := await loop.sock_recv(sock, 1 << 16):
                    raw += data
            except ConnectionResetError:
                return Answer(bytes(raw), reset=True)
        return Answer(bytes(raw))
