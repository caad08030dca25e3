"""The crash marker: which row is being parsed in this process, in mapped memory, so that it outlives the process.

Law 6: a page that kills the whole process is known when the job is resumed, and is then parsed in a process of its own.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable

from fetcher.errors import LedgerError
from fetcher.files import NotRegularFileError, open_regular

__all__ = ["CrashMarker"]

MARKER_BYTES = 8  # bytes: a row's id, little-endian; 0 for none


class CrashMarker:
    """Eight bytes of a file: ``suspect`` is the row in it when the last process ended, or 0."""

    def __init__(self, path: str) -> None:
        try:
            descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
            try:
                # Written first: mapped memory that the disk has no room for is a bus error.
                os.pwrite(descriptor, os.pread(descriptor, MARKER_BYTES, 0).ljust(MARKER_BYTES, b"\0"), 0)
                self._memory = mmap.mmap(descriptor, MARKER_BYTES)
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
        """Clear the marker and unmap it: nothing is being parsed any more. Harmless twice."""
        if not self._memory.closed:
            self.mark(0)
        self.abandon()

    def abandon(self) -> None:
        """Unmap the marker as it is: a suspect that was not looked into stays one. Harmless twice."""
        self._memory.close()
