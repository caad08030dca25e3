"""The channel between the parent and a worker: a batch is sent, a batch is received, and there is an end. No more than that.

Whoever implements ``Channel`` may stand where the socket stands: an actor on another machine too. Law 3: a batch that is
larger than it may be is an error, and ``send`` waits while the other end is behind. Law 7: what crosses is bytes, and
whoever receives them decodes them by a schema: nothing is pickled.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Protocol

__all__ = ["LENGTH", "Channel", "SocketChannel", "open_channel"]

LENGTH = struct.Struct("!Q")
"""What stands before each batch on its way."""

MAX_BUFFERED_BYTES = 1024 * 1024  # that are on their way before ``send`` waits


class Channel(Protocol):
    """One end of it."""

    async def send(self, batch: bytes | bytearray) -> None:
        """Send a batch; wait while the other end is behind. Raises ``ConnectionError`` where there is none any more."""
        ...

    async def receive(self) -> bytes | None:
        """Return the next batch, or ``None`` at the end. Raises ``ValueError`` for one that is too large."""
        ...

    def close(self) -> None:
        """End it. Harmless twice."""
        ...


class SocketChannel:
    """A stream socket, with the length of each batch before it. A batch has at most ``most`` bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int) -> None:
        self._reader = reader
        self._writer = writer
        self._most = most
        writer.transport.set_write_buffer_limits(high=MAX_BUFFERED_BYTES)

    async def send(self, batch: bytes | bytearray) -> None:
        """See ``Channel.send``."""
        if self._writer.is_closing():
            raise ConnectionResetError("the channel is closed")
        # Not ``writelines``: up to Python 3.12.8 and 3.13.1 asyncio's never told whoever waits in ``drain`` that the
        # buffer was full (CVE-2024-12254), so that a batch after another was taken until the memory was used up.
        self._writer.write(LENGTH.pack(len(batch)) + batch)
        await self._writer.drain()

    @property
    def is_behind(self) -> bool:
        """Whether the other end has yet to take in as much as may be on its way."""
        return self._writer.transport.get_write_buffer_size() > MAX_BUFFERED_BYTES

    def pass_on(self, data: bytes) -> None:
        """Send what was batches with their lengths when it came here, or parts of them. Nobody waits."""
        if not self._writer.is_closing():
            self._writer.write(data)

    async def receive(self) -> bytes | None:
        """See ``Channel.receive``."""
        try:
            (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
            if length > self._most:
                raise ValueError(f"a batch of {length} bytes")
            return await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    def close(self) -> None:
        """See ``Channel.close``."""
        self._writer.close()


async def open_channel(end: socket.socket, *, most: int) -> SocketChannel:
    """Make a channel of one end of a pair of sockets. The socket is the channel's from now on."""
    end.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=end, limit=MAX_BUFFERED_BYTES)
    return SocketChannel(reader, writer, most)
