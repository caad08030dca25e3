"""Where the records of a web archive begin, found again behind one that is damaged.

A record is a gzip member of its own, or begins with a line ``WARC/1.1`` (ISO 28500:2017, 4 and Annex D).
"""

from __future__ import annotations

import re
import zlib
from typing import BinaryIO

from fetcher.compression import GZIP_WBITS

__all__ = ["end_of_member", "end_of_record", "find_record", "is_empty"]

BLOCK = 256 * 1024
LONGEST_MARK = 16
_MEMBER = b"\x1f\x8b\x08"
_LINE = re.compile(rb"(?:\A|\n)(?=WARC/[01]\.)")
_START = b"WARC/"
_END = b"\r\n\r\n"


def end_of_member(file: BinaryIO, start: int) -> int | None:
    """Return where the gzip member at ``start`` ends, ``None`` where it is damaged, cut short or none."""
    file.seek(start)
    stream = zlib.decompressobj(GZIP_WBITS)
    at, data = start, b""
    try:
        while not stream.eof:
            if not data:
                data = file.read(BLOCK)
                if not data:
                    return None
                at += len(data)
            stream.decompress(data, BLOCK)
            data = stream.unconsumed_tail
    except zlib.error:
        return None
    return at - len(stream.unused_data)


def end_of_record(file: BinaryIO, start: int, size: int) -> int | None:
    """Return where the record at ``start``, not packed and with ``size`` bytes in its block, ends; ``None`` where it does not.

    Two empty lines stand there (ISO 28500:2017, 4). Where they do not, bytes are missing, or are too many.
    """
    file.seek(start)
    head = file.read(BLOCK).find(_END)
    if head < 0:
        return None
    end = start + head + len(_END) + size
    file.seek(end)
    return end + len(_END) if file.read(len(_END)) == _END else None


def find_record(file: BinaryIO, start: int, *, packed: bool) -> int | None:
    """Return where the next record at or behind ``start`` begins, ``None`` where there is none."""
    file.seek(start)
    at, data = start, b""
    while block := file.read(BLOCK):
        data += block
        for place in _places(data, packed=packed):
            if not packed or _begins_record(file, at + place):
                return at + place
        kept = min(len(data), LONGEST_MARK)
        at, data = at + len(data) - kept, data[-kept:]
        file.seek(at + kept)
    return None


def is_empty(file: BinaryIO, start: int) -> bool:
    """Tell whether there is nothing from ``start`` on, or only padding."""
    file.seek(start)
    return not file.read(BLOCK).strip(b"\0\r\n")


def _places(data: bytes, *, packed: bool) -> list[int]:
    if not packed:
        return [match.end() for match in _LINE.finditer(data)]
    places, place = [], data.find(_MEMBER)
    while place >= 0:
        places.append(place)
        place = data.find(_MEMBER, place + 1)
    return places


def _begins_record(file: BinaryIO, start: int) -> bool:
    file.seek(start)
    try:
        return zlib.decompressobj(GZIP_WBITS).decompress(file.read(4096), len(_START)) == _START
    except zlib.error:
        return False
