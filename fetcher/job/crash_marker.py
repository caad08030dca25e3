"""The crash marker: which row is being parsed in this process, in a file that outlives the process.

Law 6: a page that kills the whole process is known when the job is resumed, and is then parsed in a process of its own.
The file is written, not mapped: another program that cuts a mapped file would end us by SIGBUS.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

from fetcher.errors import LedgerError
from fetcher.files import PRIVATE, NotRegularFileError, open_regular

__all__ = ["CrashMarker"]

MARKER_BYTES = 8  # bytes: a row's id, little-endian; 0 for none
MAX_SLOTS = 1024  # processes of one run: the first eight bytes are ours, and each worker has the next eight


class CrashMarker:
    """Eight bytes of a file for each process: ``suspects`` are the rows in it when the last run ended.

    ``suspect`` is one of them, or 0.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1
        try:
            self._descriptor = open_regular(path, os.O_RDWR | os.O_CREAT, mode=PRIVATE)
            words = os.read(self._descriptor, MARKER_BYTES * MAX_SLOTS).ljust(MARKER_BYTES, b"\0")
        except NotRegularFileError as error:
            raise LedgerError(f"{path}: is no file of a job: remove it") from error
        except OSError as error:
            self.abandon()
            raise LedgerError(f"{path}: cannot open: {error.strerror or error}") from error
        slots = len(words) // MARKER_BYTES
        found = struct.unpack(f"<{slots}Q", words[: slots * MARKER_BYTES])
        self.suspects = frozenset(found) - {0}
        self.suspect = next((row for row in found if row), 0)
        self.mark = self._mark()
        self.mark(self.suspect)  # whole, and on a disk that has the room

    def _mark(self) -> Callable[[int], None]:
        """Return what notes a row: it is called for each page that is parsed here."""
        path, pack = self._path, struct.Struct("<Q").pack
        write = getattr(os, "pwrite", None) or _write_at  # Windows has none

        def mark(row: int) -> None:
            try:
                write(self._descriptor, pack(row), 0)
            except OSError as error:
                raise LedgerError(f"{path}: cannot write: {error.strerror or error}") from error

        return mark

    def clear(self) -> None:
        """Suspect no row: the last run ended in good order."""
        self.suspect, self.suspects = 0, frozenset()

    def close(self) -> None:
        """Clear the marker and close it: nothing is being parsed any more. Harmless twice."""
        if self._descriptor >= 0:
            self.mark(0)
        self.abandon()

    def abandon(self) -> None:
        """Close the marker as it is: a suspect that was not looked into stays one. Harmless twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _write_at(descriptor: int, data: bytes, offset: int) -> int:
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.write(descriptor, data)
