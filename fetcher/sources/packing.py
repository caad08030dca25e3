"""Undoes gzip and zstandard, block by block.

Laws: no block that leaves here is larger than those of a plain file, whatever its ratio (law 3); data that is
cut short, damaged or followed by something else is an error, never a shorter list (law 1).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Protocol

from fetcher.errors import SourceError

__all__ = ["MAGIC_BYTES", "packing_of", "unpack"]

MAGIC_BYTES = 4
"""Bytes that ``packing_of`` needs to see."""

_ZSTD_FRAME = b"\x28\xb5\x2f\xfd"
_SKIPPABLE_FRAME = b"\x2a\x4d\x18"


class _Member(Protocol):
    """One gzip member (RFC 1952) or zstd frame (RFC 8878) under way."""

    eof: bool
    needs_input: bool
    unused_data: bytes

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _GzipMember:
    """A gzip member with the manners of a zstd frame: input not used yet is kept here."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        self.eof = False
        self.needs_input = True
        self.unused_data = b""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out = self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)
        self.eof = self._inflate.eof
        self.unused_data = self._inflate.unused_data
        self.needs_input = not self._inflate.unconsumed_tail and len(out) < max_length
        return out


def packing_of(head: bytes) -> str | None:
    """Return ``"gzip"`` or ``"zstd"`` when a stream that begins with ``head`` is one, else ``None``."""
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    skippable = head[1:MAGIC_BYTES] == _SKIPPABLE_FRAME and 0x50 <= head[0] <= 0x5F
    return "zstd" if skippable or head.startswith(_ZSTD_FRAME) else None


def unpack(blocks: Iterator[bytes], packing: str, *, name: str, size: int) -> Iterator[bytes]:
    """Yield the content of packed ``blocks`` as blocks of at most ``size`` bytes.

    Members and frames that follow each other are one list; zeros after a gzip member are padding. Raises
    ``OSError`` for data that is damaged or cut short, and ``SourceError`` with ``name`` when zstandard is
    not installed.
    """
    begin, damaged = (_GzipMember, zlib.error) if packing == "gzip" else _zstd(name)
    member: _Member | None = None
    first = True
    for packed in blocks:
        block = packed
        while block or (member is not None and not member.needs_input):
            if member is None:
                if packing == "gzip" and not first and not (block := block.lstrip(b"\0")):
                    break
                member, first = begin(), False
            try:
                out = member.decompress(block, size)
            except damaged as error:
                raise OSError(f"the {packing} data is damaged") from error
            block = b""
            if member.eof:
                block, member = member.unused_data, None
            if out:
                yield out
    if member is not None or first:
        raise OSError(f"the {packing} data is cut short")


def _zstd(name: str) -> tuple[Callable[[], _Member], type[Exception]]:
    """Return what begins a frame, and the error of a damaged one (the module is new in Python 3.14)."""
    for module in ("compression.zstd", "backports.zstd"):
        try:
            zstd = import_module(module)
        except ImportError:
            continue
        return zstd.ZstdDecompressor, zstd.ZstdError
    raise SourceError(f"{name}: zstandard is not installed: pip install 'fetcher[speed]'")
