"""What was read over the network as a list, kept in the job: a resume goes by what was read, not by what is there now.

``JOB/list.jsonl.zst``, or ``.gz`` where Zstandard is not installed, is JSON Lines in whole frames. A document (a
sitemap, a robots.txt, a list) is its entries in their order, and a last frame that names it. Law 6: a document is on
the disk, whole, before the first of its rows is handed out; one whose last frame is missing was never handed out, and
is cut off and asked for again. Law 3: one frame is held at a time.

The rows may have secrets in their URLs: the file is its owner's alone.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec

from fetcher.compression import ZSTD_MODULES, Packing, compress, decompressor, first_installed
from fetcher.errors import LedgerError, SourceError, missing_extra
from fetcher.files import PRIVATE, READ_BYTES, open_regular, sync, sync_folder_of, write_all
from fetcher.job.paths import BEGIN_AGAIN, KEPT_LIST
from fetcher.model import Request
from fetcher.sources.network import BrokenEntry, DelayedEntry, Entry
from fetcher.sources.rows import BadRow, bad_row
from fetcher.sources.sitemap import NO_NUMBER, Sitemap

__all__ = ["KeptList"]

FRAME_BYTES: Final = 1024 * 1024
"""Bytes of a frame, unpacked, or one entry where that is larger."""

MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
"""No frame of ours is larger: what is, is damaged."""

_PACKINGS: Final[dict[str, Packing]] = {"zst": "zstd", "gz": "gzip"}
_LAST = b'{"end":'


class KeptList:
    """The lists of a job, in the order they were read: a ``ListStore`` whose file is opened when it is first asked.

    One thread asks; ``close`` is called by another, and from then on nothing is written. Raises ``LedgerError`` where
    the file cannot be read or written.
    """

    def __init__(self, folder: str) -> None:
        self.path = ""
        self._folder = folder
        self._packing: Packing = "gzip"
        self._descriptor = -1
        self._position = 0  # of the next document, in bytes
        self._lock = threading.Lock()  # held while the file is touched: its owner may be gone at any time
        self._closed = False

    def document(self, url: str, produce: Callable[[], Iterator[Entry]]) -> Iterator[Entry]:
        """Return the entries of the next document, which is the one at ``url``: kept before, or now.

        Raises ``SourceError`` where another was read at this place, and what ``produce`` raises.
        """
        try:
            self._open()
            start = self._position
            found, end = self._find(start)
            if found is None:
                end = self._record(start, url, produce())
            elif found != url:
                raise SourceError(
                    f"{url}: is to be read, and this job has read {found} at this place: {BEGIN_AGAIN}, "
                    "or give the lists as they were"
                )
        except OSError as error:
            raise LedgerError(f"{self.path}: cannot keep the list: {error.strerror or error}") from error
        self._position = end
        return self._entries(start, end)

    def close(self) -> None:
        """Let go of the file. Harmless twice."""
        with self._lock:
            self._closed = True
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)

    def _open(self) -> None:
        if self._descriptor >= 0:
            return
        installed = first_installed(*ZSTD_MODULES) is not None
        there = [suffix for suffix in _PACKINGS if os.path.lexists(os.path.join(self._folder, f"{KEPT_LIST}.{suffix}"))]
        suffix = there[0] if there else "zst" if installed else "gz"
        self.path, self._packing = os.path.join(self._folder, f"{KEPT_LIST}.{suffix}"), _PACKINGS[suffix]
        if suffix == "zst" and not installed:
            raise LedgerError(f"{self.path}: {missing_extra('zstandard', 'speed')}")
        with self._lock:
            self._check_open()
            self._descriptor = open_regular(self.path, os.O_RDWR | os.O_CREAT, mode=PRIVATE)
            sync_folder_of(self.path)

    def _check_open(self) -> None:
        if self._closed:
            raise SourceError(f"{self._folder}: the run has ended, and reads no more of its list")

    # Reading

    def _find(self, start: int) -> tuple[str | None, int]:
        """Return the name of the document at ``start`` and where it ends; cut off one that is not whole."""
        for data, end in self._frames(start):
            if data.startswith(_LAST):
                return str(_decode(data)["end"]), end
        with self._lock:
            self._check_open()
            if os.fstat(self._descriptor).st_size > start:
                os.ftruncate(self._descriptor, start)
                sync(self._descriptor)
        return None, start

    def _frames(self, position: int, end: int | None = None) -> Iterator[tuple[bytes, int]]:
        """Yield each frame's data, and where it ends, up to ``end`` or to the first that is torn."""
        begin, damaged = decompressor(self._packing)
        while end is None or position < end:
            frame, parts, size = begin(), list[bytes](), 0
            while not frame.eof:
                block = self._read(position) if frame.needs_input else b""
                if frame.needs_input and not block:
                    return
                position += len(block)
                try:
                    parts.append(frame.decompress(block, READ_BYTES))
                except damaged:
                    return
                size += len(parts[-1])
                if size > MAX_FRAME_BYTES:
                    return
            position -= len(frame.unused_data)
            yield b"".join(parts), position

    def _read(self, position: int) -> bytes:
        with self._lock:
            self._check_open()
            os.lseek(self._descriptor, position, os.SEEK_SET)
            return os.read(self._descriptor, READ_BYTES)

    def _entries(self, start: int, end: int) -> Iterator[Entry]:
        reached = start
        try:
            for data, ends in self._frames(start, end):
                reached = ends
                if not data.startswith(_LAST):
                    for line in data.splitlines():
                        yield _entry_of(_decode(line))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LedgerError(f"{self.path}: is damaged ({error}): {BEGIN_AGAIN}") from error
        if reached != end:
            raise LedgerError(f"{self.path}: was changed while it was read: {BEGIN_AGAIN}")

    # Writing

    def _record(self, start: int, url: str, entries: Iterable[Entry]) -> int:
        """Write a document; return where it ends, once it is on the disk. After any error nothing of it is there."""
        try:
            position, lines, size = start, list[bytes](), 0
            for entry in entries:
                lines.append(_line_of(entry))
                size += len(lines[-1])
                if size >= FRAME_BYTES:
                    position, lines, size = self._append(position, lines), [], 0
            if lines:
                position = self._append(position, lines)
            position = self._append(position, [_encode({"end": url})])
            with self._lock:
                self._check_open()
                sync(self._descriptor)
        except BaseException:
            with self._lock:
                if not self._closed:
                    os.ftruncate(self._descriptor, start)
            raise
        return position

    def _append(self, position: int, lines: list[bytes]) -> int:
        packed = compress(b"".join(lines), self._packing)
        with self._lock:
            self._check_open()
            os.lseek(self._descriptor, position, os.SEEK_SET)
            write_all(self._descriptor, packed)
        return position + len(packed)


# Entries as lines


def _line_of(entry: Entry) -> bytes:
    if isinstance(entry, Request):
        line: dict[str, Any] = {"url": entry.url}
        if entry.fields is not None:
            line["fields"] = entry.fields
        if entry.guarded:
            line["guarded"] = True
        return _encode(line)
    if isinstance(entry, BadRow):
        row = {"url": entry.request.url, "flaw": entry.error.message}
        return _encode(row if entry.request.fields is None else {**row, "fields": entry.request.fields})
    if isinstance(entry, Sitemap):
        return _encode({
            "sitemap": entry.url, "robots": entry.robots, "guessed": entry.guessed, "guarded": entry.guarded,
        })  # fmt: skip
    return _encode({"broken" if isinstance(entry, BrokenEntry) else "late": entry.message})


def _entry_of(row: dict[str, Any]) -> Entry:
    if "flaw" in row:
        return bad_row(NO_NUMBER, row["url"], row["flaw"], row.get("fields"))
    if "url" in row:
        return Request(NO_NUMBER, row["url"], (), row.get("fields"), guarded=row.get("guarded", False))
    if "sitemap" in row:
        return Sitemap(row["sitemap"], row["robots"], row["guessed"], row["guarded"])
    return BrokenEntry(row["broken"]) if "broken" in row else DelayedEntry(row["late"])


def _encode(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value) + b"\n"
    except (UnicodeEncodeError, ValueError):  # half of a surrogate pair
        return json.dumps(value).encode() + b"\n"


def _decode(line: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(line)
    except ValueError:
        found = json.loads(line)
    if not isinstance(found, dict):
        raise TypeError("a line that is no object")
    return found
