"""A journal of batches that are committed and not yet where they belong: frames in files of a folder, cut back at a mark.

Law 6: a frame is on the disk when ``sync`` returns its mark, and is known by a checksum of its own; what a kill leaves
behind the mark is cut off by the next ``open``. Law 3: a file is as large as what is to be held in memory of it at
once.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

from fetcher.files import PRIVATE, open_regular, read_range, sync, sync_folder_of, write_all

__all__ = ["GROUP_BYTES", "GROUP_ROWS", "Frame", "Journal", "JournalMark"]

GROUP_ROWS = 100_000
"""Rows of one file at most."""

GROUP_BYTES = 16 * 1024 * 1024
"""Bytes that the frames of one file unpack to, or one frame where that is larger."""

_HEADER = struct.Struct("<IIQQ")
"""CRC-32 of all that follows, rows, bytes unpacked, bytes of the payload."""

_NAME = re.compile(r"([0-9]{6,12})\.frames", re.ASCII)


class Frame(NamedTuple):
    """A batch: how many rows, how many bytes it unpacks to, and what is written of it."""

    rows: int
    size: int
    payload: bytes


class JournalMark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is committed of a journal: the files from number ``first`` on, the ``current`` one up to a position."""

    first: int = 1
    current: int = 1
    before: int = 0
    """Bytes of all files but the current one."""
    position: int = 0
    """Bytes of the current file."""
    checksum: int = 0
    """CRC-32 of these."""
    rows: int = 0
    """Rows in all files."""


class Journal:
    """Frames in the files of ``folder``, which is made for the first and removed when there is none left.

    ``mark`` is where it stands. Raises ``ValueError`` where a file is not as it was written, and the system's
    ``OSError``.
    """

    def __init__(self, folder: str, mark: JournalMark = JournalMark()) -> None:  # noqa: B008  (it is frozen)
        self.folder = folder
        self.mark = mark
        self._descriptor = -1
        self._rows = self._size = 0  # of the current file
        self._restarted = False

    @property
    def numbers(self) -> range:
        """The numbers of the files that have frames in them."""
        return range(self.mark.first, self.mark.current + (self.mark.position > 0))

    def check(self, mark: JournalMark, *, clean: bool, thorough: bool = False) -> None:
        """Hold the files against ``mark``, changing nothing; ``clean`` says that there is nothing behind it.

        The current file is looked at whole, with ``thorough`` all are.
        """
        if not 1 <= mark.first <= mark.current or min(mark.before, mark.position, mark.rows) < 0:
            raise ValueError("its mark makes no sense")
        sizes = [_size_of(self.path_of(number)) for number in range(mark.first, mark.current)]
        if sum(sizes) != mark.before:
            raise ValueError(f"{sum(sizes)} bytes in {self.folder}, not {mark.before}")
        self._rows = self._size = 0
        if mark.position:
            path, checksum = self.path_of(mark.current), 0
            size = _size_of(path)
            if size < mark.position or (clean and size > mark.position):
                raise ValueError(f"{path} has {size} bytes, not {mark.position}")
            for frame, data in _frames(path, mark.position):
                self._rows += frame.rows
                self._size += frame.size
                checksum = zlib.crc32(data, checksum)
            if checksum != mark.checksum:
                raise ValueError(f"the bytes of {path} are not those that were written")
        for number in range(mark.first, mark.current) if thorough else ():
            for _ in _frames(self.path_of(number)):
                pass

    def open(self, mark: JournalMark) -> None:
        """Go on at a ``mark`` that was checked, and remove what is not in it."""
        self.close()
        self.mark = mark
        self._remove(lambda number: number not in self.numbers)
        if not mark.position:
            return
        self._descriptor = open_regular(self.path_of(mark.current), os.O_RDWR)
        if os.fstat(self._descriptor).st_size > mark.position:
            os.ftruncate(self._descriptor, mark.position)
            sync(self._descriptor)

    def append(self, frame: Frame) -> None:
        """Write a frame behind the others; it is not committed before ``sync``."""
        full = self._rows + frame.rows > GROUP_ROWS or self._size + frame.size > GROUP_BYTES
        if self.mark.position and full:
            self.sync()
            self.close()
            mark = self.mark
            self.mark = msgspec.structs.replace(
                mark, current=mark.current + 1, before=mark.before + mark.position, position=0, checksum=0
            )
        if not self.mark.position:
            self._begin()
        elif os.fstat(self._descriptor).st_size != self.mark.position:
            raise ValueError(f"another program has written to {self.path_of(self.mark.current)}")
        rest = _HEADER.pack(0, frame.rows, frame.size, len(frame.payload))[4:] + frame.payload
        data = zlib.crc32(rest).to_bytes(4, "little") + rest
        os.lseek(self._descriptor, self.mark.position, os.SEEK_SET)
        write_all(self._descriptor, data)
        self._rows += frame.rows
        self._size += frame.size
        mark = self.mark
        self.mark = msgspec.structs.replace(
            mark,
            position=mark.position + len(data),
            checksum=zlib.crc32(data, mark.checksum),
            rows=mark.rows + frame.rows,
        )

    def sync(self) -> None:
        """Bring the frames to the disk."""
        if self._descriptor >= 0:
            sync(self._descriptor)

    def frames(self, number: int) -> Iterator[Frame]:
        """Yield the frames of file number ``number``, in their order."""
        path = self.path_of(number)
        end = self.mark.position if number == self.mark.current else None
        for frame, _ in _frames(path, end):
            yield frame

    def restart(self) -> None:
        """Begin anew behind all files: what they hold has its place elsewhere. They stay until ``tidy``."""
        self.close()
        after = self.mark.current + 1
        self.mark = JournalMark(after, after)
        self._restarted = True

    def tidy(self) -> None:
        """Remove the files before the first, and the folder when nothing is left, after a ``restart``."""
        if self._restarted:
            self._remove(lambda number: number < self.mark.first)
            self._restarted = False

    def close(self) -> None:
        """Close the current file as it is."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):  # all that was promised is on the disk
                os.close(descriptor)

    def path_of(self, number: int) -> str:
        """Return where a file is."""
        return os.path.join(self.folder, f"{number:06}.frames")

    def _begin(self) -> None:
        try:
            os.mkdir(self.folder, 0o700)
            sync_folder_of(self.folder)
        except FileExistsError:
            pass
        path = self.path_of(self.mark.current)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self._descriptor = open_regular(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode=PRIVATE)
        sync_folder_of(path)
        self._rows = self._size = 0

    def _remove(self, chosen: Callable[[int], bool]) -> None:
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return
        for name in names:
            found = _NAME.fullmatch(name)
            if found and chosen(int(found[1])):
                os.unlink(os.path.join(self.folder, name))
        if not self.mark.rows:
            with contextlib.suppress(OSError):  # somebody has put something there
                os.rmdir(self.folder)


def _size_of(path: str) -> int:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path} is no regular file")
    return found.st_size


def _frames(path: str, end: int | None = None) -> Iterator[tuple[Frame, bytes]]:
    """Yield the frames of the file at ``path`` up to the byte ``end``, and each as it is written.

    Raises ``ValueError`` at one that is not whole.
    """
    descriptor = open_regular(path, os.O_RDONLY)
    try:
        position, end = 0, os.fstat(descriptor).st_size if end is None else end
        while position < end:
            header = b"".join(read_range(descriptor, position, min(end, position + _HEADER.size)))
            if len(header) < _HEADER.size:
                raise ValueError(f"{path} ends within a frame")
            checksum, rows, size, length = _HEADER.unpack(header)
            start, position = position + _HEADER.size, position + _HEADER.size + length
            payload = b"".join(read_range(descriptor, start, position)) if position <= end else b""
            if zlib.crc32(payload, zlib.crc32(header[4:])) != checksum:
                raise ValueError(f"the bytes of {path} are not those that were written")
            yield Frame(rows, size, payload), header + payload
    finally:
        os.close(descriptor)
