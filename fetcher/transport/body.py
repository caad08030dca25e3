"""Reads one body: bounded by ``max_size``, by the memory all bodies share, and by the exchange's deadline.

Law 3: a body grows freely to 64 KB; beyond that it needs one of ``memory // max_size`` permits. While it waits for one
it reads nothing and its clocks stand still; none waits for a second permit, nor does a row whose outcome is waited for
by those who hold them all. Law 7: what the server says of the size is a hint and never believed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
from aiohttp.http_exceptions import ContentLengthError, HttpProcessingError

from fetcher.config import Limits
from fetcher.errors import TooLarge
from fetcher.model import Stage
from fetcher.request_state import RequestState, Transfer
from fetcher.transport.codings import Decoder
from fetcher.transport.watchdog import Watch

if TYPE_CHECKING:
    from fetcher.transport.recording import Cut, Recording

__all__ = ["Bodies", "Body", "TransferDecoder", "note_cut", "skim"]

FREE_BYTES = 65_536  # of a body, which need no permit
SMALL_SHARE = 4  # of the memory, the part that bodies may have together which need no permit, where they are kept
MAX_EXTENSION = 20.0  # times the usual time, for a body that may be larger than others
SKIM_SECONDS = 1.0  # that an unwanted body is waited for
MAX_SKIMMED_BYTES = 65_536  # of an unwanted body: to read on would cost more than a new connection


class Body(msgspec.Struct, frozen=True):
    """What was read: the decoded bytes, their size on the wire, and whether they were cut."""

    data: bytes
    wire_bytes: int
    truncated: bool


class TransferDecoder:
    """The body of an answer whose transfer ``codings`` are undone as it is read; else it is as aiohttp's own.

    Such a body lasts until the end of its connection (RFC 9112, 6.3); whether it is whole is told by its codings alone.
    """

    def __init__(self, content: aiohttp.StreamReader, codings: str, max_size: int) -> None:
        self._content = content
        self._decoder = Decoder(codings, max_size)
        self._pieces: Iterator[bytes] = iter(())

    async def readany(self) -> bytes:
        """Return the next bytes; none at the end. Raises ``ProtocolError`` for a coding that does not hold."""
        while (piece := next(self._pieces, None)) is None:
            if self._decoder.overflow:
                raise TooLarge(message="undone, the transfer coding gives more than max-size")
            chunk = await self._content.readany()
            if not chunk:
                if self._content.exception() is None:
                    self._decoder.finish()
                return b""
            self._pieces = self._decoder.pieces(chunk)
        return piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)


class Permits:
    """The rights to hold more of the memory than what is free; whoever waited longest is given the next."""

    def __init__(self, number: int) -> None:
        self.free = number
        self._waiting: dict[asyncio.Future[bool], None] = {}

    def locked(self) -> bool:
        """Whether whoever asks must wait."""
        return not self.free

    def take(self) -> bool:
        """Take one, if there is one."""
        if not self.free:
            return False
        self.free -= 1
        return True

    def give_back(self) -> None:
        """Give one to whoever waits, or lay it by."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(True)
                return
        self.free += 1

    async def wait(self, state: RequestState) -> bool:
        """Wait for one; ``False`` where the row is told to go on without."""
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        state.memory_wait = waiter
        self._waiting[waiter] = None
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.result():
                self.give_back()
            raise
        finally:
            state.memory_wait = None
            del self._waiting[waiter]


class Bodies:
    """All bodies of one transport, and the memory they share.

    Where outcomes keep them (``keeps``) the small ones count as well: once those hold a quarter of the memory, every
    body needs a permit before it is read. Where messages are kept, a body may be there twice.
    """

    def __init__(self, limits: Limits, *, keep_body: bool = False, keep_messages: bool = False) -> None:
        self._limits = limits
        self.keeps = keep_body or keep_messages
        self._small_bytes = 0
        self._permits = Permits(max(1, limits.memory // (limits.max_size * (2 if keep_messages else 1))))

    async def admit(self, response: aiohttp.ClientResponse, state: RequestState, watch: Watch) -> None:
        """Wait until the small bodies that are kept have room for one more."""
        if self._small_bytes > self._limits.memory // SMALL_SHARE and not state.holds_memory:
            await self._permit(response, state, watch)

    def count(self, state: RequestState, size: int) -> None:
        """Count what is kept of a row that has no permit, until it is freed."""
        if not state.holds_memory:
            self._small_bytes += size
            state.hold_memory(partial(self._forget, size))

    def _forget(self, size: int) -> None:
        self._small_bytes -= size

    async def read(self, response: aiohttp.ClientResponse, state: RequestState | None, watch: Watch) -> Body:
        """Read the body to its end.

        Raises ``TooLarge`` (unless ``truncate`` is set) and ``ProtocolError`` for a coding that does not hold.
        """
        transfer = state.transfer if state is not None else None
        limit, cut = self._bounds(transfer, watch)
        codings = ", ".join(response.headers.getall("Content-Encoding", ()))
        decoder = Decoder(codings, limit) if codings else None
        if not cut and decoder is None and (response.content_length or 0) > limit:
            raise TooLarge(message=f"Content-Length is {response.content_length} bytes, max-size is {limit}")
        recording = transfer.recording if transfer is not None else None
        chunks: list[bytes] = []
        size, wire, readany = 0, 0, response.content.readany
        if decoder is not None and decoder.has_window:
            decoder, chunks, wire = await self._read_packed(response, (codings, limit), state, watch)
            size = sum(map(len, chunks))
        try:
            while size <= limit and wire <= limit + FREE_BYTES and (chunk := await readany()):
                wire += len(chunk)
                if recording is not None:
                    recording.chunks.append(chunk)
                    if state is not None and wire > FREE_BYTES and not state.holds_memory:
                        await self._permit(response, state, watch)
                for piece in (chunk,) if decoder is None else decoder.pieces(chunk):
                    chunks.append(piece)
                    size += len(piece)
                    if transfer is not None:
                        transfer.received = min(size, limit)
                    if state is not None and FREE_BYTES < size <= limit and not state.holds_memory:
                        await self._permit(response, state, watch)
        except aiohttp.ClientPayloadError as error:
            if decoder is None or not isinstance(error.__cause__, ContentLengthError) or not decoder.ends_by_itself:
                raise
            response.close()
            note_cut(recording, "disconnect")
            return Body(b"".join(chunks), wire, truncated=False)
        if (broken := response.content.exception()) is not None and size <= limit:
            raise broken  # the body was broken off: its end is none
        if truncated := size > limit or wire > limit + FREE_BYTES:
            response.close()
            if not cut:
                chunks.clear()  # the error's traceback knows this frame until the failure is delivered
                raise TooLarge(message=f"the body is over {limit} bytes (max-size)")
        elif decoder is not None and wire:
            decoder.finish()
        data = b"".join(chunks)[:limit]  # of one chunk that is whole this is the chunk itself
        if recording is not None and decoder is None:
            recording.chunks = [data]  # not twice in memory
        return Body(data, wire, truncated=truncated)

    def _bounds(self, transfer: Transfer | None, watch: Watch) -> tuple[int, bool]:
        """Return how many bytes are wanted, and whether a body is cut there; where that is many, it gets more time."""
        if transfer is None or transfer.max_bytes is None:
            return self._limits.max_size, self._limits.truncate
        watch.extend(min(transfer.max_bytes / self._limits.max_size, MAX_EXTENSION))
        return transfer.max_bytes, True

    async def _read_packed(
        self, response: aiohttp.ClientResponse, how: tuple[str, int], state: RequestState | None, watch: Watch
    ) -> tuple[Decoder, list[bytes], int]:
        """Read a body as it is on the wire, to its end or until it is too large, and decode it then.

        Beyond 64 KB it needs a permit. ``how`` are its codings and the limit. Returned are the decoder, what it gave,
        and the bytes on the wire.
        """
        recording = state.transfer.recording if state is not None and state.transfer is not None else None
        chunks: list[bytes] = []
        wire = 0
        while wire <= how[1] + FREE_BYTES and (chunk := await response.content.readany()):
            chunks.append(chunk)
            wire += len(chunk)
            if state is not None and wire > FREE_BYTES and not state.holds_memory:
                await self._permit(response, state, watch)
        if recording is not None:
            recording.chunks += chunks
        data = b"".join(chunks)
        chunks.clear()
        return *await self._decode_at_once(data, how, response, state, watch), wire

    async def _decode_at_once(
        self,
        data: bytes,
        how: tuple[str, int],
        response: aiohttp.ClientResponse,
        state: RequestState | None,
        watch: Watch,
    ) -> tuple[Decoder, list[bytes]]:
        """Decode a body that has come, without a pause: there is one such decoder at a time, with its window."""
        while True:
            decoder = Decoder(*how)
            chunks: list[bytes] = []
            size = 0
            for piece in decoder.pieces(data):
                chunks.append(piece)
                size += len(piece)
                if state is not None and size > FREE_BYTES and not (state.holds_memory or state.urgent):
                    if not self._permits.take():
                        break
                    state.hold_memory(self._permits.give_back)
            else:
                if state is not None and state.transfer is not None:
                    state.transfer.received = min(size, how[1])
                return decoder, chunks
            assert state is not None
            del decoder, chunks, piece
            await self._permit(response, state, watch)

    async def _permit(self, response: aiohttp.ClientResponse, state: RequestState, watch: Watch) -> None:
        """Wait for the right to hold more than 64 KB, with the transport and all clocks stopped."""
        if self._permits.take():
            state.hold_memory(self._permits.give_back)
            return
        if state.urgent:
            return
        connection = response.connection
        protocol = connection.protocol if connection is not None else None
        if protocol is not None and protocol.connected:
            protocol.pause_reading()
        watch.pause()
        state.enter(Stage.WAITING_FOR_MEMORY)
        try:
            if await self._permits.wait(state):
                if state.holds_memory:  # by another request that a middleware makes of the row
                    self._permits.give_back()
                else:
                    state.hold_memory(self._permits.give_back)
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
    transfer = state.transfer if state is not None else None
    recording = transfer.recording if transfer is not None else None
    try:
        if content.is_eof():
            chunk = await content.readany()
            wire = len(chunk)
            if recording is not None:
                recording.chunks.append(chunk)
        else:
            async with asyncio.timeout(SKIM_SECONDS):
                while wire <= MAX_SKIMMED_BYTES and (chunk := await content.readany()):
                    wire += len(chunk)
                    if recording is not None:
                        recording.chunks.append(chunk)
        if content.exception() is not None:
            response.close()
            note_cut(recording, "disconnect")
    except (aiohttp.ClientError, HttpProcessingError):
        response.close()
        note_cut(recording, "disconnect")
    except TimeoutError:
        response.close()
        note_cut(recording, "time")
    if wire > MAX_SKIMMED_BYTES:
        response.close()
        note_cut(recording, "length")
    if transfer is not None and "Content-Encoding" not in response.headers:
        transfer.received = wire
    return Body(b"", wire, truncated=wire > MAX_SKIMMED_BYTES)


def note_cut(recording: Recording | None, why: Cut) -> None:
    """Note in what is kept of an exchange why its body is not whole."""
    if recording is not None:
        recording.cut = why
