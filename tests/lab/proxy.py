"""Owns a small HTTP proxy: it forwards what is in absolute form, tunnels what asks for CONNECT, and keeps the heads.

Law 1: nothing is left: on exit every socket is closed and every task has ended.
Law 2: it goes to loopback alone; what asks for another host is refused.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class LabProxy:
    """A proxy on 127.0.0.1.

    ``status`` other than 200 refuses every request with it; ``context`` makes the proxy itself speak TLS;
    ``names`` says at which loopback address a name is, as the proxy resolves it.
    """

    def __init__(
        self, *, status: int = 200, context: ssl.SSLContext | None = None, names: dict[str, str] | None = None
    ) -> None:
        self.heads: list[str] = []
        self._status = status
        self._context = context
        self._names = names or {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where the proxy listens."""
        scheme = "http" if self._context is None else "https"
        return f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    @property
    def lines(self) -> list[str]:
        """The first line of the first request of each connection."""
        return [head.partition("\r\n")[0] for head in self.heads]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._answer(reader, writer)
        except (OSError, EOFError):
            return
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.heads.append(head)
        method, target, _ = head.split(" ", 2)
        parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
        host = self._names.get(parts.hostname or "", parts.hostname or "")
        if self._status != 200 or not host.startswith("127."):
            status = 502 if self._status == 200 else self._status
            writer.write(b"HTTP/1.1 %d Refused\r\nContent-Length: 0\r\n\r\n" % status)
            await writer.drain()
            return
        beyond, onward = await asyncio.open_connection(host, parts.port or 80)
        try:
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                onward.write(head.encode("latin-1"))
            await asyncio.gather(_pump(reader, onward), _pump(beyond, writer))
        finally:
            onward.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    with suppress(OSError):
        writer.close()
