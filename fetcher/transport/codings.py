"""The content codings one by one: gzip, deflate, br and zstd, each undone a bounded step at a time.

Law 3: a step takes in and gives out about a block, whatever the bytes expand to. Law 7: a checksum or structure
that is wrong is ``bad_encoding``, never a success.

What may follow a finished stream differs by coding. After ``gzip`` another member is decoded, and what does not
begin like one (zero padding, stray bytes) is ignored, as gzip(1) and browsers do; so is all that follows
``deflate``. After ``br`` nothing may follow, after ``zstd`` only frames, as their reference decoders have it.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from functools import cache
from typing import Any, ClassVar, Final

from fetcher.compression import INFLATE_MODULES, ZSTD_MODULES, Inflater, first_installed
from fetcher.errors import ProtocolError, missing_extra

__all__ = ["BLOCK", "LAYERS", "Layer", "accept_encoding", "load"]

BLOCK: Final = 64 * 1024  # bytes given to a coding, or asked of one below another, at a time
ZSTD_WINDOW_LOG: Final = 23  # 8 MiB, the most that RFC 9659 lets a server use
FREE_MEMBERS: Final = 10_000  # that a body may have however small; with more they must average 1 KiB
FIRST_SLICE: Final = 512  # of a later member: else each of a million empty ones would copy the rest of a block


@cache
def load(*names: str) -> Any:
    """Import the first of the modules that is installed; ``None`` when none is, or it cannot bound its output."""
    module = first_installed(*names)
    if names == _Brotli.libraries and module and not hasattr(module.Decompressor, "can_accept_more_data"):  # before 1.2
        return None
    return module


@cache
def accept_encoding() -> str:
    """Return the value of Accept-Encoding that says what this installation decodes."""
    return ", ".join(["gzip, deflate", *(layer.name for layer in (_Brotli, _Zstd) if load(*layer.libraries))])


class Layer(ABC):
    """One coding being undone, written to when there is nothing left to read; ``taken`` counts what was written."""

    __slots__ = ("_at", "_done", "_errors", "_input", "_library", "_members", "_more", "_slice", "_stream", "taken")  # fmt: skip
    name: ClassVar[str]
    libraries: ClassVar[tuple[str, ...]]
    error: ClassVar[str] = "error"

    def __init__(self) -> None:
        self._library = load(*self.libraries)
        if self._library is None:
            raise self._bad(missing_extra(f"a library for {self.name}", "speed"))
        self._errors = (zlib.error, getattr(self._library, self.error))
        self.taken = self._members = self._at = 0
        self._input = b""
        self._slice = BLOCK
        self._stream: Any = None
        self._more = False  # the stream holds output, or input, that it had no room for
        self._done = False  # whatever else comes is ignored

    def write(self, data: bytes) -> None:
        """Give the next encoded bytes; all that the earlier ones decode to has been read."""
        self.taken += len(data)
        self._input, self._at = b"" if self._done else self._input[self._at :] + data, 0

    def read(self, limit: int) -> bytes:
        """Return about ``limit`` decoded bytes at most; none means that more must be written first."""
        while not self._done and (self._stream is not None or (self._rest and self._open())):
            chunk = b""
            if not self._more:
                chunk = self._input[self._at : self._at + self._slice]
                if not chunk:
                    break
                self._at += len(chunk)
                self._slice = min(2 * self._slice, BLOCK)
            try:
                out = self._decode(chunk, limit)
            except self._errors as error:
                raise self._bad(error) from None
            if out:
                return out
        return b""

    @property
    def cut(self) -> bool:
        """Whether the bytes stopped in the middle. None at all are an empty body."""
        return not self._done and bool(self._stream is not None or self._rest or (self.taken and not self._members))

    @property
    def ended(self) -> bool:
        """Whether at least one stream came, and none is open."""
        return self._members > 0 and not self.cut

    @property
    def _rest(self) -> int:
        return len(self._input) - self._at

    @abstractmethod
    def _open(self) -> bool:
        """Start the next stream, unless too little has come to tell which, or none follows."""

    def _decode(self, chunk: bytes, limit: int) -> bytes:
        """Take one step of the stream, and either ``_end`` it or tell whether there is ``_more``."""
        stream = self._stream
        out: bytes = stream.decompress(chunk, limit)
        if stream.eof:
            self._end(stream.unused_data)
        else:
            self._more = not stream.needs_input
        return out

    def _end(self, unused: bytes = b"") -> None:
        self._at -= len(unused)
        self._stream, self._more, self._slice = None, False, FIRST_SLICE
        self._members += 1
        if self._members > FREE_MEMBERS + self.taken // 1024:
            raise self._bad("far too many members for its size")

    def _bad(self, reason: object) -> ProtocolError:
        return ProtocolError("bad_encoding", f"{self.name}: {reason}")


class _Deflate(Layer):
    """One zlib stream (RFC 1950), or the bare deflate (RFC 1951) that some servers send and browsers accept."""

    __slots__ = ()
    name = "deflate"
    libraries = INFLATE_MODULES

    def _open(self) -> bool:
        self._done = self._members > 0
        if self._done or self._rest < 2:
            return False
        first, second = self._input[self._at : self._at + 2]
        # Bare deflate begins like this only with a stored block whose padding is not zero, which nobody writes.
        wrapped = first & 0x8F == 8 and (first << 8 | second) % 31 == 0
        self._stream = Inflater(self._library, 15 if wrapped else -15)
        return True


class _Gzip(_Deflate):
    """Any number of gzip members (RFC 1952), each with its checksum and length."""

    __slots__ = ()
    name = "gzip"

    def _open(self) -> bool:
        head = self._input[self._at : self._at + 4]
        if not b"\x1f\x8b\x08".startswith(head[:3]):
            if not self._members:
                raise self._bad("no gzip header")
            self._done = True
        if self._done or len(head) < 4:
            return False
        # isal 1.9 fails on optional header fields that come in pieces, and lets reserved flags pass.
        self._stream = Inflater(zlib if head[3] else self._library)
        return True


class _Zstd(Layer):
    """Any number of zstd frames (RFC 8878), none with a window over 8 MiB (RFC 9659)."""

    __slots__ = ()
    name = "zstd"
    libraries = ZSTD_MODULES
    error = "ZstdError"

    def _open(self) -> bool:
        options = {self._library.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
        self._stream = self._library.ZstdDecompressor(options=options)
        return True


class _Brotli(Layer):
    """One brotli stream (RFC 7932)."""

    __slots__ = ()
    name = "br"
    libraries = ("brotli",)

    def _open(self) -> bool:
        if self._members:
            raise self._bad("bytes after the end of the stream")
        self._stream = self._library.Decompressor()
        return True

    def _decode(self, chunk: bytes, limit: int) -> bytes:
        # Its buffer grows in ever larger steps and stops after the one that passed the limit.
        out: bytes = self._stream.process(chunk, output_buffer_limit=min(limit, BLOCK))
        if self._stream.is_finished():
            self._end()
        else:
            # It takes more input while it still holds output.
            self._more = bool(out) or not self._stream.can_accept_more_data()
        return out


LAYERS: Final[dict[str, type[Layer]]] = {layer.name: layer for layer in (_Gzip, _Deflate, _Brotli, _Zstd)}
LAYERS["x-gzip"] = _Gzip
