"""Objects of a store, read: told of, listed, streamed, and by ranges for whoever seeks in them.

Law 3: some megabytes of an object are held, whatever its size. Law 2: an object that is changed while it is read is
found out, block by block. Nothing is decided by the store's clock.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, NamedTuple

from fetcher.store.calls import StoreCalls

__all__ = ["StoreFile", "StoreReader", "StoredObject"]

RANGE_BYTES = 4 * 1024 * 1024  # that are asked for at once
RANGES = 16  # that are held of a file that is not read in order
MAX_SMALL_BYTES = 16 * 1024 * 1024  # of an object that is read at once


class StoredObject(NamedTuple):
    """An object as its store tells of it: ``tag`` changes with its bytes, and is empty where the store tells nothing."""

    size: int
    tag: str


class StoreReader(StoreCalls):
    """A prefix, or an object, that is read."""

    def info(self, name: str = "") -> StoredObject | None:
        """Return what is told of an object, ``None`` where there is none."""
        try:
            found = self._tried(name, lambda files, path: files.info(path, refresh=True))
        except FileNotFoundError:
            return None
        return None if found.get("type") == "directory" else _object(found)

    def names(self, folder: str = "") -> dict[str, StoredObject]:
        """Return the objects right in a folder of the prefix."""
        try:
            found = self._tried(folder, lambda files, path: files.ls(path, detail=True, refresh=True))
        except FileNotFoundError:
            return {}
        return {
            entry["name"].rpartition("/")[2]: _object(entry)
            for entry in found
            if entry.get("type") != "directory" and not entry["name"].endswith("/")
        }

    def read(self, name: str, *, patient: bool = True) -> bytes | None:
        """Return a small object whole, ``None`` where there is none."""
        try:
            data: bytes = self._tried(
                name, lambda files, path: files.cat_file(path, start=0, end=MAX_SMALL_BYTES), patient=patient
            )
        except FileNotFoundError:
            return None
        return data

    def blocks(self, name: str = "") -> Iterator[bytes]:
        """Yield the bytes of an object, some megabytes at a time. Raises ``FileNotFoundError`` where there is none."""
        found = self.info(name)
        if found is None:
            raise FileNotFoundError(f"{self._shown(name)}: no such object")
        for start in range(0, found.size, RANGE_BYTES):
            end = min(found.size, start + RANGE_BYTES)

            def read(files: Any, path: str, start: int = start, end: int = end) -> bytes:
                data: bytes = files.cat_file(path, start=start, end=end)
                return data

            block = self._tried(name, read)
            self.check_unchanged(name, found, len(block) == end - start)
            yield block

    def check_unchanged(self, name: str, found: StoredObject, whole: bool) -> None:
        """Raise unless an object is what was ``found``, and what was read of it is ``whole``."""
        if not whole or self.info(name) != found:
            raise self._error(f"{self._shown(name)}: was changed while it was read: run the same command again")

    def open(self, name: str = "") -> StoreFile:
        """Return an object as a file that is read by ranges. Raises where there is none."""
        found = self.info(name)
        if found is None:
            raise self._error(f"{self._shown(name)}: no such object")
        return StoreFile(self, name, found)

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Return a range of an object."""
        data: bytes = self._tried(name, lambda files, path: files.cat_file(path, start=start, end=end))
        return data


class StoreFile:
    """An object as a file for whoever seeks in it: the last ranges that were read are kept."""

    def __init__(self, store: StoreReader, name: str, found: StoredObject) -> None:
        self.size = found.size
        self.closed = False
        self.mode = "rb"
        self._store = store
        self._name = name
        self._found = found
        self._position = 0
        self._ranges: dict[int, bytes] = {}

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, all where none are named."""
        end = self.size if size is None or size < 0 else min(self.size, self._position + size)
        pieces: list[bytes] = []
        while self._position < end:
            number, within = divmod(self._position, RANGE_BYTES)
            piece = self._range(number)[within : within + end - self._position]
            pieces.append(piece)
            self._position += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        self._position = max(0, offset + (0, self._position, self.size)[whence])
        return self._position

    def tell(self) -> int:
        """Return the place."""
        return self._position

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def writable(self) -> bool:
        """Say no."""
        return False

    def flush(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Let go of what is kept."""
        self.closed = True
        self._ranges.clear()

    def _range(self, number: int) -> bytes:
        found = self._ranges.pop(number, None)
        if found is None:
            start = number * RANGE_BYTES
            end = min(self.size, start + RANGE_BYTES)
            found = self._store.read_range(self._name, start, end)
            self._store.check_unchanged(self._name, self._found, len(found) == end - start)
            if len(self._ranges) >= RANGES:
                del self._ranges[next(iter(self._ranges))]
        self._ranges[number] = found  # the last that was used
        return found


def _object(found: dict[str, Any]) -> StoredObject:
    size = int(found.get("size") or 0)
    if digest := found.get("md5Hash"):  # Google's
        return StoredObject(size, base64.b64decode(digest).hex())
    tag = found.get("ETag") or found.get("etag") or ""
    return StoredObject(size, str(tag).strip('"'))
