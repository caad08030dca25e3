"""Which row is being parsed in this process: written to mapped memory, so that it outlives the process.

Law 6: a page that brings the whole process down is known on resume, and is parsed in a process of its own then.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable

from fetcher.errors import LedgerError
from fetcher.files import NotRegularFileError, open_regular

__all__ = ["Slot"]

SIZE = 8  # bytes: a row's id, little-endian; 0 for none


class Slot:
    """Eight bytes of a file: ``suspect`` is the row that stood there when the last process ended, or 0."""

    def __init__(self, path: str) -> None:
        try:
            descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
            try:
                # Storage first: a page of mapped memory that the disk has no place for is a bus error.
                os.pwrite(descriptor, os.pread(descriptor, SIZE, 0).ljust(SIZE, b"\0"), 0)
                self._memory = mmap.mmap(descriptor, SIZE)
            finally:
                os.close(descriptor)
        except NotRegularFileError as error:
            raise LedgerError(f"{path}: is no file of a job: remove it") from error
        except (OSError, ValueError) as error:
            raise LedgerError(f"{path}: cannot open: {getattr(error, 'strerror', None) or error}") from error
        (self.suspect,) = struct.unpack("<Q", self._memory[:])
        self.mark = self._mark()

    def _mark(self) -> Callable[[int], None]:
        memory, pack = self._memory, struct.Struct("<Q").pack_into

        def mark(row: int) -> None:
            pack(memory, 0, row)

        return mark

    def close(self) -> None:
        """Clear the slot and give the memory back: nothing is being parsed any more. Harmless twice."""
        if not self._memory.closed:
            self.mark(0)
        self.leave()

    def leave(self) -> None:
        """Give the memory back and leave the slot as it is: a suspect that was not looked into stays one."""
        self._memory.close()
