"""What a job's output is made of, read back: its bytes, their lines, and a copy with some of the records left out.

Law 3: a copy is made a block and a member at a time, however large the output is.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from io import BytesIO

from fetcher.sinks.courier import write_all
from fetcher.sinks.place import sync_folder

__all__ = ["blocks_of", "chosen", "lines_of", "make_anew", "move", "parts_of"]

BLOCK = 256 * 1024
PART = 1024 * 1024
_ANEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


def blocks_of(descriptor: int, start: int, end: int) -> Iterator[bytes]:
    """Yield the bytes from ``start`` to ``end``, or to the file's end, moving the descriptor's offset."""
    os.lseek(descriptor, start, os.SEEK_SET)
    while start < end and (block := os.read(descriptor, min(BLOCK, end - start))):
        start += len(block)
        yield block


def lines_of(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of ``blocks``, each with its newline (which the last may lack)."""
    pieces: list[bytes] = []
    for block in blocks:
        for piece in BytesIO(block):
            pieces.append(piece)
            if piece.endswith(b"\n"):
                yield piece if len(pieces) == 1 else b"".join(pieces)
                pieces.clear()
    if pieces:
        yield b"".join(pieces)


def chosen(records: Iterator[bytes], keep: Iterator[bool]) -> Iterator[bytes]:
    """Yield the records whose turn in ``keep`` is true. Raises ``ValueError`` unless both are equally long."""
    for record in records:
        kept = next(keep, None)
        if kept is None:
            raise ValueError("more records than were written")
        if kept:
            yield record
    if next(keep, None) is not None:
        raise ValueError("fewer records than were written")


def parts_of(preamble: bytes, records: Iterator[bytes]) -> Iterator[bytes]:
    """Yield ``preamble`` and ``records`` in parts of a megabyte, or of one record where that is larger.

    Of nothing at all there is one part, empty.
    """
    part, size = [preamble], len(preamble)
    for record in records:
        part.append(record)
        size += len(record)
        if size >= PART:
            yield b"".join(part)
            part, size = [], 0
    if part:
        yield b"".join(part)


def make_anew(path: str, like: os.stat_result) -> int:
    """Make an empty file at ``path``, with the owner and rights of ``like``, in place of what is there.

    A link that is there is taken away, not followed. Raises ``OSError``.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    descriptor = os.open(path, _ANEW, 0o600)
    if hasattr(os, "fchown"):
        own = os.fstat(descriptor)
        if (own.st_uid, own.st_gid) != (like.st_uid, like.st_gid):
            with contextlib.suppress(PermissionError):  # who may not give files away keeps this one
                os.fchown(descriptor, like.st_uid, like.st_gid)
        os.fchmod(descriptor, like.st_mode & 0o7777)
    return descriptor


def move(copy: str, target: str) -> None:
    """Put ``copy`` in the place of ``target`` for good, at one stroke, over the border of a file system too.

    Raises ``OSError``; both are there then, or the move is done.
    """
    try:
        os.replace(copy, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        folder, name = os.path.split(target)
        beside = os.path.join(folder, f".{name}.rewrite")
        _duplicate(copy, beside)
        os.replace(beside, target)
        sync_folder(target)
        os.unlink(copy)
    else:
        sync_folder(target)
    sync_folder(copy)


def _duplicate(path: str, copy: str) -> None:
    with open(path, "rb") as source:
        like = os.fstat(source.fileno())
        descriptor = make_anew(copy, like)
        try:
            for block in blocks_of(source.fileno(), 0, like.st_size):
                write_all(descriptor, block)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
