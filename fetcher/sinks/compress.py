"""How an output is compressed, gzip or Zstandard: one stream that can be brought up to date at any moment, or members.

Law 6: what is packed by itself is a whole member, so that an output may be cut between any two.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Iterator
from typing import Any, Protocol

from fetcher.errors import ConfigError

__all__ = ["SUFFIXES", "Codec", "codec_for", "pack", "unpack"]

SUFFIXES = (".gz", ".zst")
GZIP_WINDOW = 31  # zlib's word for 32 KiB with a gzip header and trailer
BLOCK = 256 * 1024


class Codec(Protocol):
    """A stream of compression: what it gives back, in order, is the compressed output."""

    def update(self, data: bytes) -> bytes:
        """Take more; some of it may stay inside."""
        ...

    def sync(self) -> bytes:
        """Give out what is inside, so that a reader has all that was taken."""
        ...

    def end(self) -> bytes:
        """Give out what is inside and the trailer; nothing may follow."""
        ...


def codec_for(path: str) -> Codec | None:
    """Return the compression that the suffix of ``path`` asks for, or ``None`` for none.

    Raises ``ConfigError`` where Zstandard is asked for and not installed.
    """
    suffix = path[path.rfind(".") :].lower()
    if suffix == ".gz":
        return _Gzip()
    if suffix == ".zst":
        return _Zstandard(_zstd(path))
    return None


def pack(path: str, data: bytes) -> bytes:
    """Return ``data`` as it stands in ``path``: one whole gzip member or Zstandard frame, or as it is.

    Raises as ``codec_for`` does.
    """
    codec = codec_for(path)
    return data if codec is None else codec.update(data) + codec.end()


def unpack(path: str, blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what ``pack`` made ``blocks`` of, member after member, in blocks of at most 256 KiB where it is compressed.

    Raises ``ValueError`` for data that is damaged or cut short, ``ConfigError`` as ``codec_for`` does.
    """
    suffix = path[path.rfind(".") :].lower()
    if suffix not in SUFFIXES:
        yield from blocks
        return
    zstd = _zstd(path) if suffix == ".zst" else None
    begin, damaged = (_GzipMember, zlib.error) if zstd is None else (zstd.ZstdDecompressor, zstd.ZstdError)
    member: Any = None
    for packed in blocks:
        block = packed
        while block or (member is not None and not member.needs_input):
            member = member or begin()
            try:
                data = member.decompress(block, BLOCK)
            except damaged as error:
                raise ValueError(str(error)) from error
            block = b""
            if member.eof:
                block, member = member.unused_data, None
            if data:
                yield data
    if member is not None:
        raise ValueError("cut short")


class _GzipMember:
    """A gzip member under way, with the manners of a Zstandard frame: input not used yet is kept in it."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(GZIP_WINDOW)
        self.eof = False
        self.needs_input = True
        self.unused_data = b""

    def decompress(self, packed: bytes, most: int) -> bytes:
        data = self._stream.decompress(self._stream.unconsumed_tail + packed, most)
        self.eof, self.unused_data = self._stream.eof, self._stream.unused_data
        self.needs_input = not self._stream.unconsumed_tail and len(data) < most
        return data


class _Gzip:
    """One gzip member (RFC 1952), without a name or a time: equal records make equal files."""

    def __init__(self) -> None:
        try:
            isal: Any = importlib.import_module("isal.isal_zlib")
            self._stream = isal.compressobj(isal.ISAL_DEFAULT_COMPRESSION, zlib.DEFLATED, GZIP_WINDOW)
        except ImportError:
            self._stream = zlib.compressobj(6, zlib.DEFLATED, GZIP_WINDOW)

    def update(self, data: bytes) -> bytes:
        return bytes(self._stream.compress(data))

    def sync(self) -> bytes:
        return bytes(self._stream.flush(zlib.Z_SYNC_FLUSH))

    def end(self) -> bytes:
        return bytes(self._stream.flush())


class _Zstandard:
    """One Zstandard frame (RFC 8878), with the checksum that tells when it was damaged."""

    def __init__(self, zstd: Any) -> None:
        self._stream = zstd.ZstdCompressor(options={zstd.CompressionParameter.checksum_flag: 1})
        self._block = zstd.ZstdCompressor.FLUSH_BLOCK

    def update(self, data: bytes) -> bytes:
        return bytes(self._stream.compress(data))

    def sync(self) -> bytes:
        return bytes(self._stream.flush(self._block))

    def end(self) -> bytes:
        return bytes(self._stream.flush())


def _zstd(path: str) -> Any:
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ConfigError(f"{path}: Zstandard is not installed: pip install 'fetcher[speed]', or write .gz")
