"""How an output is compressed: gzip and Zstandard as streams that can be brought up to date at any moment."""

from __future__ import annotations

import importlib
import zlib
from typing import Any, Protocol

from fetcher.errors import ConfigError

__all__ = ["SUFFIXES", "Codec", "codec_for"]

SUFFIXES = (".gz", ".zst")
GZIP_WINDOW = 31  # zlib's word for 32 KiB with a gzip header and trailer


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
    """One Zstandard frame (RFC 8878)."""

    def __init__(self, zstd: Any) -> None:
        self._stream = zstd.ZstdCompressor()
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
