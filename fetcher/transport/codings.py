"""The content codings of a body (RFC 9110, 8.4), undone: gzip, deflate, br and zstd, one by one and in a stack.

What may follow a finished stream differs by coding. After ``gzip`` another member is decoded, and what does not
begin like one (zero padding, stray bytes) is ignored, as gzip(1) and browsers do; so is all that follows
``deflate``. After ``br`` nothing may follow, after ``zstd`` only frames, as their reference decoders have it.

Law 3: memory is bounded by ``max_size``, never by what the bytes expand to. A coding below another produces a
block at a time, when the one above asks for it, and none takes in more than a body of ``max_size`` can have
needed: a stack whose middle is endless and whose top decodes to nothing ends too.
Law 7: the web's bytes are never trusted. A stream that was cut is ``truncated``, one whose checksum or structure
is wrong is ``bad_encoding``; neither is ever a success.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cache
from typing import Any, ClassVar, Final

from fetcher.compression import INFLATE_MODULES, ZSTD_MODULES, Inflater, first_installed
from fetcher.errors import ProtocolError, missing_extra

__all__ = ["BLOCK", "LAYERS", "Decoder", "Layer", "accept_encoding", "load"]

BLOCK: Final = 64 * 1024  # bytes given to a coding, or asked of one below another, at a time
ZSTD_WINDOW_LOG: Final = 23  # 8 MiB, the most that RFC 9659 lets a server use
FREE_MEMBERS: Final = 10_000  # that a body may have however small; with more they must average 1 KiB
FIRST_SLICE: Final = 512  # of a later member: else each of a million empty ones would copy the rest of a block

MAX_CODINGS: Final = 5
REGISTERED: Final = frozenset({
    "aes128gcm", "br", "compress", "dcb", "dcz", "deflate", "exi", "gzip", "pack200-gzip", "x-compress", "x-gzip", "zstd",
})  # fmt: skip
"""IANA's registry, without ``identity``. Any other name is none: the bytes are as they are (WHATWG Fetch)."""


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


def _stack(codings: str) -> list[Layer]:
    """Return the layers in the order they are undone: the last coding listed was put on last."""
    names = [name for item in codings.split(",") if (name := _name_of(item)) in REGISTERED]
    if len(names) > MAX_CODINGS:
        raise ProtocolError("bad_encoding", f"{len(names)} content codings, at most {MAX_CODINGS} are undone")
    for name in names:
        if name not in LAYERS:
            raise ProtocolError("bad_encoding", f"the content coding {name!r} is not undone here")
    return [LAYERS[name]() for name in reversed(names)]


def _name_of(item: str) -> str:
    """Return the name of a coding. One between blanks that are none of HTTP's is told: its bytes would pass as text."""
    name = item.strip(" \t").lower()
    if name not in REGISTERED and name.strip() in REGISTERED:
        raise ProtocolError("bad_encoding", f"the content coding {name[:40]!r} is not written as one")
    return name


class Decoder:
    """Undo the content codings of one body as it comes.

    ``codings`` is the value of Content-Encoding, several joined by commas; ``max_size`` is in decoded bytes.
    Returned are ``max_size + 1`` at most: then ``overflow`` is set, nothing more comes and the end is not
    checked. Raises ``ProtocolError`` with ``bad_encoding`` for a coding that is unknown or whose library is
    missing, and for more than five. A name that is no coding's is passed over.
    """

    __slots__ = ("_bound", "_layers", "_left", "overflow")

    def __init__(self, codings: str, max_size: int) -> None:
        self._layers = _stack(codings) if codings else []
        self._left = max_size + 1
        self._bound = 2 * max_size + BLOCK  # no encoder makes a body twice as large
        self.overflow = False

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Take the next bytes of the body and yield what they decode to, about ``BLOCK`` bytes at a time.

        Whoever reads may pause between two pieces. Raises ``ProtocolError`` with ``bad_encoding`` for a wrong checksum
        or structure.
        """
        if self.overflow or not data:
            return
        if not self._layers:
            yield self._admit(data)
            return
        self._layers[0].write(data)
        while not self.overflow and (piece := self._pull(len(self._layers) - 1, min(BLOCK, self._left))):
            yield self._admit(piece)

    def finish(self) -> None:
        """Check that every coding came to its end.

        Raises ``ProtocolError`` with ``truncated`` when the body stops in the middle of a stream.
        """
        for layer in () if self.overflow else self._layers:
            if layer.cut:
                raise ProtocolError("truncated", f"the body stops in the middle of its {layer.name} stream")

    @property
    def has_window(self) -> bool:
        """Whether a coding may have megabytes of its own while it is undone: br up to 17, zstd up to 8."""
        return any(layer.name in ("br", "zstd") for layer in self._layers)

    @property
    def ends_by_itself(self) -> bool:
        """Whether what came is whole by the trailer of its gzip, however long it was said to be.

        Browsers and curl show such a body whose length was said to be larger than it is.
        """
        return bool(self._layers) and all(layer.name == "gzip" and layer.ended for layer in self._layers)

    def _pull(self, index: int, limit: int) -> bytes:
        """Return the next bytes out of one layer, from as few as it needs of the layer below."""
        layer = self._layers[index]
        while not (out := layer.read(limit)):
            if layer.taken > self._bound:
                raise ProtocolError("bad_encoding", f"{layer.name}: {layer.taken} encoded bytes hold almost nothing")
            if not index or not (data := self._pull(index - 1, BLOCK)):
                break
            layer.write(data)
        return out

    def _admit(self, piece: bytes) -> bytes:
        piece = piece[: self._left]  # a library may go past its limit by a block
        self._left -= len(piece)
        self.overflow = not self._left
        return piece
