"""gzip and Zstandard, read and written: which of them a name or some bytes mean, compressors, and bounded decompression.

Laws: what comes out of compressed data comes in blocks of bounded size, whatever it expands to (3); data that is
damaged, cut short or followed by something else is an error, never merely less data (1). What ``compress`` makes is
one whole member, so that a file of them can be cut between any two (6).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, Final, Literal, Protocol, TypeAlias

from fetcher.errors import missing_extra

__all__ = [
    "GZIP_WBITS",
    "INFLATE_MODULES",
    "MAGIC_BYTES",
    "SUFFIXES",
    "ZSTD_MODULES",
    "Compressor",
    "DamagedDataError",
    "Decompressor",
    "Inflater",
    "Packing",
    "compress",
    "decompress",
    "decompressor",
    "first_installed",
    "packing_of_data",
    "packing_of_path",
    "quick_compressor",
]

Packing: TypeAlias = Literal["gzip", "zstd"]

SUFFIXES: Final[dict[str, Packing]] = {".gz": "gzip", ".zst": "zstd"}

MAGIC_BYTES: Final = 4
"""Bytes that ``packing_of_data`` needs to see."""

GZIP_WBITS: Final = 31
"""zlib's word for a window of 32 KiB with the header and trailer of gzip."""

INFLATE_MODULES: Final = ("isal.isal_zlib", "zlib")
"""Modules with zlib's interface, the fastest first."""

ZSTD_MODULES: Final = ("compression.zstd", "backports.zstd")
"""The module of Python 3.14, and the same for earlier ones."""

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"  # after a first byte from 0x50 to 0x5f


class DamagedDataError(ValueError):
    """Compressed data that is damaged or cut short."""


class Decompressor(Protocol):
    """One gzip member, zlib stream or Zstandard frame being decompressed; what it has not used yet stays inside."""

    eof: bool
    """Whether the end was reached, and its checksum was right."""
    needs_input: bool
    """Whether more compressed data is needed before more comes out."""
    unused_data: bytes
    """What followed the end."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Take ``data``, empty while no input is needed, and return at most about ``max_length`` bytes."""
        ...


class Inflater:
    """The ``Decompressor`` of a gzip member (RFC 1952), or of what else ``wbits`` means to a ``library`` like zlib."""

    __slots__ = ("_stream", "eof", "needs_input", "unused_data")

    def __init__(self, library: Any = zlib, wbits: int = GZIP_WBITS) -> None:
        self._stream = library.decompressobj(wbits)
        self.eof = False
        self.needs_input = True
        self.unused_data = b""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Do as ``Decompressor`` says."""
        stream = self._stream
        out: bytes = stream.decompress(stream.unconsumed_tail + data, max_length)
        self.eof, self.unused_data = stream.eof, stream.unused_data
        self.needs_input = not stream.unconsumed_tail and len(out) < max_length
        return out


class Compressor:
    """One gzip member (RFC 1952) or Zstandard frame (RFC 8878) being made: what it gives back, in order, is its data.

    Equal records make equal members: there is neither a name nor a time in them. Either has a checksum that tells when
    it was damaged. Raises ``ImportError`` as ``decompress`` does.
    """

    def __init__(self, packing: Packing) -> None:
        if packing == "gzip":
            library = first_installed(*INFLATE_MODULES)
            level = 6 if library is zlib else library.ISAL_DEFAULT_COMPRESSION
            self._stream = library.compressobj(level, zlib.DEFLATED, GZIP_WBITS)
            self._sync_mode: Any = zlib.Z_SYNC_FLUSH
        else:
            library = _zstd()
            self._stream = library.ZstdCompressor(options={library.CompressionParameter.checksum_flag: 1})
            self._sync_mode = library.ZstdCompressor.FLUSH_BLOCK

    def update(self, data: bytes) -> bytes:
        """Take more; some of it may stay inside."""
        return bytes(self._stream.compress(data))

    def sync(self) -> bytes:
        """Give out what is inside, so that a reader has all that was taken."""
        return bytes(self._stream.flush(self._sync_mode))

    def end(self) -> bytes:
        """Give out what is inside and the trailer; nothing may follow."""
        return bytes(self._stream.flush())


def packing_of_path(path: str) -> Packing | None:
    """Return the compression that the suffix of ``path`` names, in any case, or ``None``."""
    return SUFFIXES.get(path[path.rfind(".") :].lower())


def packing_of_data(head: bytes) -> Packing | None:
    """Return the compression of a stream that begins with ``head``, or ``None`` where it is not compressed."""
    if head.startswith(_GZIP_MAGIC):
        return "gzip"
    skippable = head[1:MAGIC_BYTES] == _ZSTD_SKIPPABLE and 0x50 <= head[0] <= 0x5F
    return "zstd" if skippable or head.startswith(_ZSTD_MAGIC) else None


def compress(data: bytes, packing: Packing) -> bytes:
    """Return ``data`` as one whole gzip member or Zstandard frame. Raises ``ImportError`` as ``decompress`` does."""
    stream = Compressor(packing)
    return stream.update(data) + stream.end()


def quick_compressor(packing: Packing) -> Callable[[bytes], bytes]:
    """Return a function that makes a whole member or frame of what it is given: in haste, for one thread at a time.

    Its working memory is kept for the next. Raises ``ImportError`` as ``decompress`` does.
    """
    if packing == "gzip":
        return lambda data: compress(data, "gzip")
    library = _zstd()
    options = {library.CompressionParameter.checksum_flag: 1, library.CompressionParameter.compression_level: 1}
    stream = library.ZstdCompressor(options=options)
    return lambda data: bytes(stream.compress(data, stream.FLUSH_FRAME))


def decompress(
    blocks: Iterator[bytes], packing: Packing, *, max_block: int, zero_padding: bool = False
) -> Iterator[bytes]:
    """Yield what compressed ``blocks`` hold, one member after the other, in blocks of at most ``max_block`` bytes.

    With ``zero_padding`` zeros may follow a gzip member, as tapes and some tools leave them. Raises
    ``DamagedDataError``, and ``ImportError`` that says how to install Zstandard where it is not.
    """
    begin, damaged = decompressor(packing)
    padded = zero_padding and packing == "gzip"
    member: Decompressor | None = None
    ended = False
    for data in blocks:
        block = data
        while block or (member is not None and not member.needs_input):
            if member is None:
                if padded and ended and not (block := block.lstrip(b"\0")):
                    break
                member = begin()
            try:
                out = member.decompress(block, max_block)
            except damaged as error:
                raise DamagedDataError(f"the {packing} data is damaged") from error
            block = b""
            if member.eof:
                block, member, ended = member.unused_data, None, True
            if out:
                yield out
    if member is not None:
        raise DamagedDataError(f"the {packing} data is cut short")


def decompressor(packing: Packing) -> tuple[Callable[[], Decompressor], type[Exception]]:
    """Return what begins the decompression of a member or frame, and what it raises where the data is damaged.

    Raises ``ImportError`` as ``decompress`` does.
    """
    if packing == "gzip":
        return Inflater, zlib.error
    library = _zstd()
    return library.ZstdDecompressor, library.ZstdError


def first_installed(*modules: str) -> Any:
    """Return the first of the ``modules`` that can be imported, or ``None``."""
    for name in modules:
        try:
            return import_module(name)
        except ImportError:
            continue
    return None


def _zstd() -> Any:
    library = first_installed(*ZSTD_MODULES)
    if library is None:
        raise ImportError(missing_extra("zstandard", "speed"))
    return library
