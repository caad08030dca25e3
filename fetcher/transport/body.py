"""Reads one body: bounded by ``max_size``, by the memory all bodies share, and by the exchange's deadline.

Law 3: a body grows freely to 64 KB; beyond that it needs one of ``memory // max_size`` permits. While it
waits for one it reads nothing and its clocks stand still; none waits for a second permit.
Law 7: what the server says of the size is a hint and never believed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import aiohttp

from fetcher.config import Limits
from fetcher.errors import TooLarge
from fetcher.flight import Flight
from fetcher.transport.decoding import Decoder

__all__ = ["Bodies", "Body"]

FREE = 65_536  # bytes of a body that need no permit
REDIRECT_BODY = 65_536  # of a redirect nobody reads more


class Body:
    """What was read: the decoded bytes, their size on the wire, and whether they were cut."""

    __slots__ = ("data", "truncated", "wire_bytes")

    def __init__(self, data: bytes, wire_bytes: int, *, truncated: bool) -> None:
        self.data = data
        self.wire_bytes = wire_bytes
        self.truncated = truncated


class Bodies:
    """All bodies of one transport, and the memory they share."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._permits = asyncio.BoundedSemaphore(max(1, limits.memory // limits.max_size))

    async def read(
        self, response: aiohttp.ClientResponse, flight: Flight | None, deadline: asyncio.Timeout, *, skim: bool = False
    ) -> Body:
        """Read the body to its end. A redirect's is skimmed: cut short, for nobody reads it.

        Raises ``TooLarge`` (unless ``truncate`` is set) and ``ProtocolError`` for a coding that does not hold.
        """
        limit = REDIRECT_BODY if skim else self._limits.max_size
        cut = skim or self._limits.truncate
        codings = response.headers.getall("Content-Encoding", ())
        decoder = Decoder(", ".join(codings), limit) if codings else None
        if not cut and decoder is None and (response.content_length or 0) > limit:
            raise TooLarge(message=f"Content-Length is {response.content_length} bytes, max-size is {limit}")
        chunks: list[bytes] = []
        size = wire = 0
        content = response.content
        while True:
            chunk = await content.readany()
            if not chunk:
                break
            wire += len(chunk)
            for piece in self._pieces(chunk, decoder):
                size += len(piece)
                chunks.append(piece)
                if size > FREE and flight is not None and flight.release is None:
                    await self._permit(response, flight, deadline)
            if flight is not None:
                flight.length = min(size, limit)
            if size > limit or wire > limit + FREE:
                return self._over(response, chunks, wire, limit, cut=cut)
        if decoder is not None and wire:
            chunks.append(decoder.finish())
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        if len(data) > limit:
            return self._over(response, [data], wire, limit, cut=cut)
        if flight is not None:
            flight.length = len(data)
        return Body(data, wire, truncated=False)

    @staticmethod
    def _pieces(chunk: bytes, decoder: Decoder | None) -> Iterable[bytes]:
        return (chunk,) if decoder is None else (decoder.feed(chunk),)

    @staticmethod
    def _over(response: aiohttp.ClientResponse, chunks: list[bytes], wire: int, limit: int, *, cut: bool) -> Body:
        response.close()
        if not cut:
            raise TooLarge(message=f"the body is over {limit} bytes (max-size)")
        return Body(b"".join(chunks)[:limit], wire, truncated=True)

    async def _permit(self, response: aiohttp.ClientResponse, flight: Flight, deadline: asyncio.Timeout) -> None:
        """Wait for the right to hold more than 64 KB, with the transport and all clocks stopped."""
        if self._permits.locked():
            loop = asyncio.get_running_loop()
            connection = response.connection
            protocol = connection.protocol if connection is not None else None
            if protocol is not None:
                protocol.pause_reading()
            began, until = loop.time(), deadline.when()
            deadline.reschedule(None)
            flight.enter("waiting for memory")
            try:
                await self._permits.acquire()
            finally:
                if until is not None:
                    deadline.reschedule(until + loop.time() - began)
                flight.enter("reading")
                if protocol is not None and response.connection is connection:
                    protocol.resume_reading()
        else:
            await self._permits.acquire()
        flight.release = self._permits.release
