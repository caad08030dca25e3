"""Reads one body: bounded by ``max_size``, by the memory all bodies share, and by the exchange's deadline.

Law 3: a body grows freely to 64 KB; beyond that it needs one of ``memory // max_size`` permits. While it
waits for one it reads nothing and its clocks stand still; none waits for a second permit.
Law 7: what the server says of the size is a hint and never believed.
"""

from __future__ import annotations

import asyncio

import aiohttp
import msgspec
from aiohttp.http_exceptions import ContentLengthError, HttpProcessingError

from fetcher.config import Limits
from fetcher.errors import TooLarge
from fetcher.model import Stage
from fetcher.request_state import RequestState
from fetcher.transport.decoding import Decoder
from fetcher.transport.watchdog import Watch

__all__ = ["Bodies", "Body", "skim"]

FREE_BYTES = 65_536  # of a body, which need no permit
MAX_EXTENSION = 20.0  # times the usual time, for a body that may be larger than others
SKIM_SECONDS = 1.0  # that an unwanted body is waited for
MAX_SKIMMED_BYTES = 65_536  # of an unwanted body: to read on would cost more than a new connection


class Body(msgspec.Struct, frozen=True):
    """What was read: the decoded bytes, their size on the wire, and whether they were cut."""

    data: bytes
    wire_bytes: int
    truncated: bool


class Bodies:
    """All bodies of one transport, and the memory they share."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._permits = asyncio.BoundedSemaphore(max(1, limits.memory // limits.max_size))

    async def read(self, response: aiohttp.ClientResponse, state: RequestState | None, watch: Watch) -> Body:
        """Read the body to its end.

        Raises ``TooLarge`` (unless ``truncate`` is set) and ``ProtocolError`` for a coding that does not hold.
        """
        limit, cut = self._limits.max_size, self._limits.truncate
        transfer = state.transfer if state is not None else None
        if transfer is not None and transfer.max_bytes is not None:
            limit, cut = transfer.max_bytes, True
            watch.extend(min(limit / self._limits.max_size, MAX_EXTENSION))
        codings = response.headers.getall("Content-Encoding", ())
        decoder = Decoder(", ".join(codings), limit) if codings else None
        if not cut and decoder is None and (response.content_length or 0) > limit:
            raise TooLarge(message=f"Content-Length is {response.content_length} bytes, max-size is {limit}")
        chunks: list[bytes] = []
        size = wire = 0
        readany = response.content.readany
        try:
            while size <= limit and wire <= limit + FREE_BYTES and (chunk := await readany()):
                wire += len(chunk)
                for piece in (chunk,) if decoder is None else decoder.pieces(chunk):
                    chunks.append(piece)
                    size += len(piece)
                    if transfer is not None:
                        transfer.received = min(size, limit)
                    if state is not None and FREE_BYTES < size <= limit and not state.holds_memory:
                        await self._permit(response, state, watch)
        except aiohttp.ClientPayloadError as error:
            # Browsers and curl show a gzip whose length was said to be larger than it is.
            if decoder is None or not isinstance(error.__cause__, ContentLengthError) or not decoder.ends_by_itself:
                raise
            response.close()
            return Body(b"".join(chunks), wire, truncated=False)
        if (broken := response.content.exception()) is not None and size <= limit:
            raise broken  # the body was broken off: its end is none
        if size > limit or wire > limit + FREE_BYTES:
            response.close()
            if not cut:
                raise TooLarge(message=f"the body is over {limit} bytes (max-size)")
            return Body(b"".join(chunks)[:limit], wire, truncated=True)
        if decoder is not None and wire:
            decoder.finish()
        return Body(chunks[0] if len(chunks) == 1 else b"".join(chunks), wire, truncated=False)

    async def _permit(self, response: aiohttp.ClientResponse, state: RequestState, watch: Watch) -> None:
        """Wait for the right to hold more than 64 KB, with the transport and all clocks stopped."""
        if not self._permits.locked():
            await self._permits.acquire()
            state.hold_memory(self._permits.release)
            return
        connection = response.connection
        protocol = connection.protocol if connection is not None else None
        if protocol is not None and protocol.connected:
            protocol.pause_reading()
        watch.pause()
        state.enter(Stage.WAITING_FOR_MEMORY)
        try:
            await self._permits.acquire()
            state.hold_memory(self._permits.release)
        finally:
            watch.resume()
            state.enter(Stage.READING)
            if protocol is not None and protocol.connected and response.connection is connection:
                protocol.resume_reading()


async def skim(response: aiohttp.ClientResponse, state: RequestState | None) -> Body:
    """Read past a body that nobody wants, so that its connection serves again; let go of one that is long or broken.

    What it is coded in does not matter then: the status is the news, and where to go on. It is waited for a second at
    most.
    """
    content = response.content
    wire = 0
    try:
        if content.is_eof():
            wire = len(await content.readany())
        else:
            async with asyncio.timeout(SKIM_SECONDS):
                while wire <= MAX_SKIMMED_BYTES and (chunk := await content.readany()):
                    wire += len(chunk)
        if content.exception() is not None:
            response.close()
    except (aiohttp.ClientError, HttpProcessingError, TimeoutError):
        response.close()
    if wire > MAX_SKIMMED_BYTES:
        response.close()
    if state is not None and state.transfer is not None and "Content-Encoding" not in response.headers:
        state.transfer.received = wire
    return Body(b"", wire, truncated=wire > MAX_SKIMMED_BYTES)
