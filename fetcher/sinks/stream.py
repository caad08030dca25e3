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
from typing import TYPE_CHECKING, Self

from fetcher.compression import Compressor, packing_of_path
from fetcher.errors import ConfigError
from fetcher.files import write_all
from fetcher.model import Outcome
from fetcher.sinks.layout import DEFAULT_LAYOUT, Layout
from fetcher.sinks.opening import descriptor_of, is_at, moved_error, open_output, write_error

if TYPE_CHECKING:
    from fetcher.sinks.writer_thread import WriterThread

__all__ = ["OutputStream", "StreamSink", "compressor_for"]

BLOCK_BYTES = 64 * 1024
"""Bytes that are collected before they are written, as long as they come fast enough."""

MAX_QUEUED_BYTES = 4 * BLOCK_BYTES
"""Bytes on the way to a slow reader at which ``write`` waits."""

FILE_FLUSH_SECONDS = 1.0
"""After a ``write`` to a regular file, at which the record is in the file at the latest."""

PIPE_FLUSH_SECONDS = 0.1
"""The same for pipes, terminals and devices: somebody may be looking."""


def compressor_for(path: str) -> Compressor | None:
    """Return what compresses an output at ``path``, or ``None`` where its suffix asks for nothing.

    Raises ``ConfigError`` where Zstandard is asked for and not installed.
    """
    packing = packing_of_path(path)
    try:
        return None if packing is None else Compressor(packing)
    except ImportError as error:
        raise ConfigError(f"{path}: {error}, or write .gz") from None


class OutputStream:
    """Bytes for one path, ``-`` being standard output; a suffix ``.gz`` or ``.zst`` compresses them.

    A regular file is written in blocks of at least 64 KiB, at the latest a second after a ``write``. Pipes, terminals
    and devices are written by a thread, at the latest a tenth of a second after; with 256 KiB on the way ``write``
    waits. Leaving writes what is left, waits for it to arrive, syncs a regular file to the disk and closes it. One that
    is no longer the file at ``path`` is an error.

    What is ``packed`` is compressed already. A file that is made has ``mode``, less the umask.

    Entering raises ``SinkError`` or ``ConfigError`` as ``opening.open_output`` does. Every failure to write is raised
    by the next ``write`` or at the exit: ``SinkError``, or ``BrokenPipeError`` where the reader is gone.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, fresh: bool = False, packed: bool = False, mode: int = 0o666
    ) -> None:
        self.path = os.fspath(path)
        self._fresh = fresh
        self._mode = mode
        self._compressor = None if packed else compressor_for(self.path)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._descriptor = -1
        self._regular = False
        self._thread: WriterThread | None = None
        self._queued_bytes = 0
        self._drained = asyncio.Event()
        self._chunks: list[bytes] = []
        self._buffered_bytes = 0
        self._file_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._error: Exception | None = None
        self._error_raised = False

    async def __aenter__(self) -> Self:
        self._descriptor = await open_output(self.path, fresh=self._fresh, mode=self._mode)
        self._regular = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
        if not self._regular:
            self._thread = self._open_thread()
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()
        self._flush(end=True)
        self._check_place()
        thread = self._thread or self._open_thread(sync=True)
        thread.close()
        await thread.closed.wait()
        if self._error is not None and (kind is None or not self._error_raised):
            raise self._failure()

    def _open_thread(self, *, sync: bool = False) -> WriterThread:
        from fetcher.sinks.writer_thread import WriterThread  # the output of a job is written by its own

        return WriterThread(self._descriptor, self._on_written, sync=sync)

    async def write(self, data: bytes) -> None:
        """Take one whole record; wait while the reader is too far behind."""
        if self._error is not None or self._loop is None:
            raise self._failure()
        self._chunks.append(data)
        self._buffered_bytes += len(data)
        if self._timer is None:
            self._timer = self._loop.call_later(
                FILE_FLUSH_SECONDS if self._regular else PIPE_FLUSH_SECONDS, self._flush_on_timer
            )
        if self._buffered_bytes >= BLOCK_BYTES:
            self._flush()
        while self._queued_bytes > MAX_QUEUED_BYTES and self._error is None:
            self._drained.clear()
            await self._drained.wait()
        if self._error is not None:
            raise self._failure()

    def _flush_on_timer(self) -> None:
        self._timer = None
        self._flush(sync=True)
        self._check_place()

    def _flush(self, *, sync: bool = False, end: bool = False) -> None:
        """Send what is buffered on its way: ``sync`` makes it readable, ``end`` makes the stream whole."""
        if self._error is None:
            block = b"".join(self._chunks)
            if self._compressor is not None:
                block = self._compressor.update(block)
                block += self._compressor.end() if end else self._compressor.sync() if sync else b""
            if self._thread is None:
                self._write_file(block)
            elif block:
                self._queued_bytes += len(block)
                self._thread.write(block)
        self._chunks.clear()
        self._buffered_bytes = 0

    def _write_file(self, block: bytes) -> None:
        try:
            write_all(self._descriptor, block)
            self._file_bytes += len(block)
        except OSError as error:
            self._error = error
            if self._compressor is None and descriptor_of(self.path) is None:
                self._cut_to_records()

    def _check_place(self) -> None:
        """See that what we write is still the file at the path: what was moved or deleted is not where it was asked for."""
        if not self._regular or self._error is not None or descriptor_of(self.path) is not None:
            return
        try:
            if not is_at(self.path, os.fstat(self._descriptor)):
                # As it is now: it may just have been deleted.
                self._error = moved_error(self.path, os.fstat(self._descriptor))
        except OSError as error:
            self._error = error

    def _cut_to_records(self) -> None:
        """Cut off the record that a full disk tore. A file that was redirected to us is not ours to cut."""
        with contextlib.suppress(OSError):  # only the first error is raised; the torn record stays then
            whole, torn = self._file_bytes, os.lseek(self._descriptor, 0, os.SEEK_CUR)
            for chunk in self._chunks:
                if whole + len(chunk) > torn:
                    break
                whole += len(chunk)
            os.ftruncate(self._descriptor, whole)

    def _on_written(self, size: int, error: Exception | None) -> None:
        self._queued_bytes -= size
        self._error = self._error or error
        if self._queued_bytes <= MAX_QUEUED_BYTES // 2 or error is not None:
            self._drained.set()

    def _failure(self) -> Exception:
        self._error_raised = True
        if self._error is None:
            return RuntimeError(f"{self.path}: not open: write inside 'async with'")
        if isinstance(self._error, OSError):
            return write_error(self.path, "cannot write", self._error)
        return self._error


class StreamSink(ABC):
    """A sink that makes bytes of each outcome and writes them to one ``OutputStream``.

    Raises what ``OutputStream`` raises. Where its output is a job's, a ``DurableFile`` writes in its place and asks it
    for what makes the format: ``encode``, ``preamble``, ``state``, ``restore`` and ``split``. One that ``packs_itself``
    returns records that are compressed, whole members each; its files have ``mode``. One that ``explodes`` writes
    several records of an outcome, which have its id (``id_of``).
    """

    packs_itself = False
    explodes = False
    mode = 0o666

    def __init__(self, path: str | os.PathLike[str], layout: Layout = DEFAULT_LAYOUT, *, fresh: bool = False) -> None:
        self.output = OutputStream(path, fresh=fresh, packed=self.packs_itself, mode=self.mode)
        self.layout = layout
        self._preamble_written = False

    async def __aenter__(self) -> Self:
        await self.output.__aenter__()
        await self._write_preamble()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.output.__aexit__(kind, error, trace)

    async def write(self, outcome: Outcome) -> None:
        """Take one outcome; wait while the reader is too far behind."""
        record = self.encode(outcome)
        if not self._preamble_written:
            await self._write_preamble()
            self._preamble_written = True
        await self.output.write(record)

    @abstractmethod
    def encode(self, outcome: Outcome) -> bytes:
        """Return the whole record of ``outcome``, as it is written."""

    def preamble(self, *, empty: bool = False) -> bytes:  # noqa: ARG002  # for formats that have one
        """Return what precedes the first record: asked for once that is encoded, or ``empty`` where none will come."""
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

    def id_of(self, record: bytes) -> int:  # noqa: ARG002  # for formats that explode
        """Return the id of a record that ``split`` has found. Raises ``ValueError`` where it has none."""
        raise RuntimeError(f"the records of {type(self).__name__} are told apart by their number")

    async def _write_preamble(self) -> None:
        if not self._preamble_written and (preamble := self.preamble()):
            self._preamble_written = True
            await self.output.write(preamble)
