"""Owns one connection of a small server: requests without bodies, in turn, and how an answer is written."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import cast

__all__ = ["ServerConnection", "whole_answer"]

HEAD_END = b"\r\n\r\n"


class ServerConnection(asyncio.Protocol, ABC):
    """A connection whose requests are given to ``asked``, one by one; that answers by ``send``, at once or later."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        self._received += data
        while HEAD_END in self._received:
            head, _, self._received = self._received.partition(HEAD_END)
            self.asked(head.split(b" ", 2)[1].decode("latin-1"), head)

    @abstractmethod
    def asked(self, path: str, head: bytes) -> None:
        """Take one request: its path (and query), and its head whole, without the empty line."""

    def send(self, answer: bytes) -> None:
        """Write an answer, unless the other side is gone meanwhile."""
        if not self.transport.is_closing():
            self.transport.write(answer)


def whole_answer(status: str, body: bytes, *, kind: str = "text/html; charset=utf-8", more: str = "") -> bytes:
    """Return a whole answer of HTTP/1.1, with ``more`` lines in its head."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body
