"""One output as a stream of bytes, and the sinks that write one record after another to it.

Laws: a slow reader stops the source and never the event loop (3); what was taken reaches the reader promptly and the
disk at the end, or an error says that it did not (6); a full disk leaves whole records behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from fetcher.model import Outcome
from fetcher.sinks.compress import codec_for
from fetcher.sinks.courier import Courier, write_all
from fetcher.sinks.place import descriptor_of, open_place, trouble

__all__ = ["Output", "StreamSink"]

BLOCK = 64 * 1024
HIGH_WATER = 4 * BLOCK
PROMPT = 0.1
PATIENT = 1.0


class Output:
    """Bytes for one path, ``-`` being standard output; a suffix ``.gz`` or ``.zst`` compresses them.

    A regular file is written in blocks of at least 64 KiB, at the latest a second after a ``write``. Pipes, terminals
    and devices are written by a thread, at the latest a tenth of a second after; with 256 KiB on the way ``write``
    waits. Leaving writes what is left, waits for it to arrive, syncs a regular file to the disk and closes it.

    Entering raises ``SinkError`` or ``ConfigError`` as ``place.open_place`` does. Every failure to write is raised by
    the next ``write`` or at the exit: ``SinkError``, or ``BrokenPipeError`` where the reader is gone.
    """

    def __init__(self, path: str | os.PathLike[str], *, fresh: bool = False) -> None:
        self.path = os.fspath(path)
        self._fresh = fresh
        self._codec = codec_for(self.path)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._descriptor = -1
        self._regular = False
        self._courier: Courier | None = None
        self._carried = 0
        self._room = asyncio.Event()
        self._chunks: list[bytes] = []
        self._size = 0
        self._written = 0
        self._timer: asyncio.TimerHandle | None = None
        self._error: Exception | None = None
        self._told = False

    async def __aenter__(self) -> Self:
        self._descriptor = await open_place(self.path, fresh=self._fresh)
        self._regular = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
        if not self._regular:
            self._courier = Courier(self._descriptor, self._arrived)
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()
        self._flush(end=True)
        courier = self._courier or Courier(self._descriptor, self._arrived, sync=True)
        courier.dismiss()
        await courier.gone.wait()
        if self._error is not None and (kind is None or not self._told):
            raise self._refusal()

    async def write(self, data: bytes) -> None:
        """Take one whole record; wait while the reader is too far behind."""
        if self._error is not None or self._loop is None:
            raise self._refusal()
        self._chunks.append(data)
        self._size += len(data)
        if self._timer is None:
            self._timer = self._loop.call_later(PATIENT if self._regular else PROMPT, self._tick)
        if self._size >= BLOCK:
            self._flush()
        while self._carried > HIGH_WATER and self._error is None:
            self._room.clear()
            await self._room.wait()
        if self._error is not None:
            raise self._refusal()

    def _tick(self) -> None:
        self._timer = None
        self._flush(sync=True)

    def _flush(self, *, sync: bool = False, end: bool = False) -> None:
        """Send what is buffered on its way: ``sync`` makes it readable, ``end`` makes the stream whole."""
        if self._error is None:
            block = b"".join(self._chunks)
            if self._codec is not None:
                block = self._codec.update(block)
                block += self._codec.end() if end else self._codec.sync() if sync else b""
            if self._courier is None:
                self._store(block)
            elif block:
                self._carried += len(block)
                self._courier.send(block)
        self._chunks.clear()
        self._size = 0

    def _store(self, block: bytes) -> None:
        try:
            write_all(self._descriptor, block)
            self._written += len(block)
        except OSError as error:
            self._error = error
            if self._codec is None and descriptor_of(self.path) is None:
                self._cut_to_records()

    def _cut_to_records(self) -> None:
        """Cut off the record that a full disk tore. A file that was redirected to us is not ours to cut."""
        with contextlib.suppress(OSError):  # the first error is what is told; the torn record stays then
            whole, torn = self._written, os.lseek(self._descriptor, 0, os.SEEK_CUR)
            for chunk in self._chunks:
                if whole + len(chunk) > torn:
                    break
                whole += len(chunk)
            os.ftruncate(self._descriptor, whole)

    def _arrived(self, size: int, error: Exception | None) -> None:
        self._carried -= size
        self._error = self._error or error
        if self._carried <= HIGH_WATER // 2 or error is not None:
            self._room.set()

    def _refusal(self) -> Exception:
        self._told = True
        if self._error is None:
            return RuntimeError(f"{self.path}: not open: write inside 'async with'")
        if isinstance(self._error, OSError):
            return trouble(self.path, "cannot write", self._error)
        return self._error


class StreamSink(ABC):
    """A sink that makes bytes of each outcome and writes them to one ``Output``.

    Raises what ``Output`` raises. Where its output is a job's, a ``DurableFile`` writes in its place and asks it for
    what makes the format: ``encode``, ``preamble``, ``state``, ``restore`` and ``split``.
    """

    def __init__(self, path: str | os.PathLike[str], *, fresh: bool = False) -> None:
        self.output = Output(path, fresh=fresh)
        self._begun = False

    async def __aenter__(self) -> Self:
        await self.output.__aenter__()
        await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.output.__aexit__(kind, error, trace)

    async def write(self, outcome: Outcome) -> None:
        """Take one outcome; wait while the reader is too far behind."""
        record = self.encode(outcome)
        if not self._begun:
            await self._begin()
            self._begun = True
        await self.output.write(record)

    @abstractmethod
    def encode(self, outcome: Outcome) -> bytes:
        """Return the whole record of ``outcome`` as it stands in the output."""

    def preamble(self, *, empty: bool = False) -> bytes:  # noqa: ARG002  # for formats that have one
        """Return what stands once, before the first record: known when that is encoded, or ``empty``, never to come."""
        return b""

    def state(self) -> str:
        """Return as JSON what the next run must know to go on as this one; empty for nothing."""
        return ""

    def restore(self, state: str) -> None:
        """Take what an earlier run's ``state`` returned. Raises ``ValueError`` for anything else."""
        if state:
            raise ValueError("a state where this format has none")

    @abstractmethod
    def split(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the records, byte for byte, of an output that is given as ``lines``; first the preamble, if any."""

    async def _begin(self) -> None:
        if not self._begun and (preamble := self.preamble()):
            self._begun = True
            await self.output.write(preamble)
