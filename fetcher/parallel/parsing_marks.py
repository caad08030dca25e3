"""Which row each worker was parsing when it ended: the file in which they mark it, as the parent reads it.

Law 6: a page that kills a worker is parsed in a process of its own when its row is given again. The file is the crash
marker of a job, or a temporary one where there is no job. Its first eight bytes are the parent's own.
"""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile

__all__ = ["MARK", "ParsingMarks"]

MARK = struct.Struct("<Q")
"""A row's id in the file, or 0, as ``job/crash_marker.py`` has it."""


class ParsingMarks:
    """Eight bytes for each worker, in the order of their numbers: the row that it is parsing, or 0."""

    def __init__(self, path: str | None) -> None:
        self._given = path
        self.path = path
        """Where they are; ``None`` until ``open``, where no job has a file for them."""

    def open(self) -> None:
        """See that there is a file. Raises ``OSError``."""
        if self.path is None:
            descriptor, self.path = tempfile.mkstemp(prefix="fetcher-", suffix=".parsing")
            os.close(descriptor)

    def of(self, worker: int) -> int:
        """Return the row that a worker was parsing when it ended, or 0."""
        if self.path is None:
            return 0
        with contextlib.suppress(OSError):
            with open(self.path, "rb") as file:
                file.seek(MARK.size * (worker + 1))
                word = file.read(MARK.size)
            if len(word) == MARK.size:
                return int(MARK.unpack(word)[0])
        return 0

    def close(self, workers: int, *, clear: bool) -> None:
        """Remove a file that was for this run alone; of a job's, ``clear`` what ``workers`` have marked."""
        if self.path is None:
            return
        with contextlib.suppress(OSError):
            if self._given is None:
                os.unlink(self.path)
            elif clear:
                self._clear(self.path, workers)

    def _clear(self, path: str, workers: int) -> None:
        with open(path, "r+b") as file:
            if file.seek(0, os.SEEK_END) > MARK.size:
                file.seek(MARK.size)
                file.write(bytes(MARK.size * workers))
