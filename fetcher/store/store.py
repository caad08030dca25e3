"""A prefix in a store, or one object: read, listed, put whole, removed. Every call blocks, and is tried again.

Laws: what is put is there whole or not at all, for the file is finished before: a stream into the store would commit half
of it where it is interrupted (6). An error that may pass is tried again with backoff for ``PATIENCE`` seconds, any other
ends the run with one line (2). A file is sent in pieces, so that memory does not hold it (3). Nothing is decided by the
store's clock.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib
import importlib.util
import logging
import os
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from fetcher.errors import FetcherError, missing_extra
from fetcher.store.address import EXTRAS, LIBRARIES, parse_address
from fetcher.store.trouble import code_of, is_conflict, is_missing, is_of_store, is_transient, reason_of

__all__ = ["ObjectExistsError", "Store", "StoredObject", "tag_of"]

log = logging.getLogger("fetcher.store")

T = TypeVar("T")

PATIENCE = 120.0
"""Seconds for which a call is tried again."""

MAX_WAIT_SECONDS = 10.0
PIECE_BYTES = 16 * 1024 * 1024
"""Of a file: what is larger than two such is sent in pieces."""

PIECES_AT_ONCE = 2
RANGE_BYTES = 4 * 1024 * 1024  # that are asked for at once, of a list or a part
RANGES = 16  # that are held of a file that is not read in order
MAX_SMALL_BYTES = 16 * 1024 * 1024  # of an object that is read at once


class ObjectExistsError(Exception):
    """An object that was to be made is there."""


class StoredObject(NamedTuple):
    """An object as its store tells of it: ``tag`` changes with its bytes, and is empty where the store tells nothing."""

    size: int
    tag: str


class Store:
    """The prefix, or the object, at ``url``. ``error`` makes the exception of a message, which names the URL.

    ``writing`` says for what: the messages differ. ``close`` ends what waits for a store that does not answer.
    """

    def __init__(
        self, url: str, error: Callable[[str], FetcherError], *, writing: bool = False, patience: float | None = None
    ) -> None:
        self.address = parse_address(url, error)
        self.patience = PATIENCE if patience is None else patience
        self._error = error
        self._writing = writing
        self._files: Any = None
        self._opening = threading.Lock()
        self._closed = threading.Event()

    @property
    def scheme(self) -> str:
        """Which kind of store it is."""
        return self.address.scheme

    def check_installed(self) -> None:
        """Raise where the library is missing."""
        for library in ("fsspec", LIBRARIES[self.scheme]):
            if importlib.util.find_spec(library) is None:
                raise self._error(f"{self.address}: {missing_extra(library, EXTRAS[self.scheme])}")

    def close(self) -> None:
        """Give up what is being tried again."""
        self._closed.set()

    # Objects

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

    def read(self, name: str) -> bytes | None:
        """Return a small object whole, ``None`` where there is none."""
        try:
            data: bytes = self._tried(name, lambda files, path: files.cat_file(path, start=0, end=MAX_SMALL_BYTES))
        except FileNotFoundError:
            return None
        return data

    def read_now(self, name: str) -> bytes | None:
        """Return the same, asked for once."""
        try:
            data: bytes = self._tried(name, lambda files, path: files.cat_file(path), patient=False)
        except FileNotFoundError:
            return None
        return data

    def put(self, name: str, data: bytes, *, create: bool = False, patient: bool = True) -> None:
        """Put an object. Raises ``ObjectExistsError`` where ``create`` finds one, if the store can tell."""
        mode = "create" if create else "overwrite"
        self._put(name, lambda files, path: files.pipe_file(path, data, mode=mode), patient=patient)

    def put_file(self, name: str, source: str, *, create: bool = False) -> None:
        """Put a file, whole. Raises ``ObjectExistsError`` as ``put`` does."""
        more: dict[str, Any] = {"mode": "create" if create else "overwrite"}
        if self.scheme == "s3":
            more |= {"chunksize": PIECE_BYTES, "max_concurrency": PIECES_AT_ONCE}
        os.stat(source)  # what is missing here is not to be taken for what is missing there
        self._put(name, lambda files, path: files.put_file(source, path, **more))

    def remove(self, name: str, *, patient: bool = True) -> None:
        """Remove an object; one that is not there is no error."""
        with contextlib.suppress(FileNotFoundError):
            self._tried(name, lambda files, path: files.rm_file(path), patient=patient)

    def fetch(self, name: str, target: str) -> None:
        """Write an object into a new file. Raises ``FileNotFoundError`` where there is none."""
        with open(target, "wb") as file:
            file.writelines(self.blocks(name))
            file.flush()
            os.fsync(file.fileno())

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

    def checksum(self, name: str) -> int:
        """Return the CRC-32 of an object."""
        found = 0
        for block in self.blocks(name):
            found = zlib.crc32(block, found)
        return found

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

    def abort_uploads(self, is_ours: Callable[[str], bool]) -> int:
        """Abort what was begun to be sent in pieces and not ended, of names that are ours; return how many.

        Other stores than S3 forget such by themselves.
        """
        if self.scheme != "s3":
            return 0
        prefix = f"{self.address.key}/" if self.address.key else ""

        def abort(files: Any, _: str) -> int:
            many = 0
            for found in self._uploads(files, prefix):
                if is_ours(found["Key"].removeprefix(prefix)):
                    files.call_s3(
                        "abort_multipart_upload",
                        Bucket=self.address.bucket,
                        Key=found["Key"],
                        UploadId=found["UploadId"],
                    )
                    many += 1
            return many

        return self._tried("", abort)

    def _uploads(self, files: Any, prefix: str) -> Iterator[Any]:
        more: dict[str, Any] = {}
        while True:
            page = files.call_s3("list_multipart_uploads", Bucket=self.address.bucket, Prefix=prefix, **more)
            yield from page.get("Uploads", ())
            if not page.get("IsTruncated"):
                return
            more = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def _put(self, name: str, act: Callable[[Any, str], object], *, patient: bool = True) -> None:
        try:
            self._tried(name, act, patient=patient)
        except FileNotFoundError as error:  # of a bucket that is not there
            raise self._error(self._explained(name, error)) from None

    # Calls

    def _tried(self, name: str, act: Callable[[Any, str], T], *, patient: bool = True) -> T:
        """Call, again after an error that may pass; raise what it means."""
        from fetcher.store.retrying import call

        path = self.address.under(name).path if name else self.address.path
        try:
            return call(
                lambda: act(self._opened(), path),
                is_transient,
                patience=self.patience if patient else 0.0,
                longest=MAX_WAIT_SECONDS,
                closed=self._closed,
                told=lambda error: log.warning(
                    "%s: %s: it is tried again for %.0f s",
                    self.address,
                    reason_of(error, self.address.bucket, writing=self._writing),
                    self.patience,
                ),
            )
        except FetcherError:
            raise
        except Exception as error:
            if not is_of_store(error):
                raise
            if is_conflict(error):
                raise ObjectExistsError(self._shown(name)) from None
            if is_missing(error) and code_of(error) != "NoSuchBucket":
                raise FileNotFoundError(self._shown(name)) from None
            # The library's own error is not a cause: it may hold the request, and with it what signs it.
            raise self._error(self._explained(name, error)) from None

    def _explained(self, name: str, error: Exception) -> str:
        text = f"{self._shown(name)}: {reason_of(error, self.address.bucket, writing=self._writing)}"
        return f"{text}; what is done is kept: then run the same command again" if self._writing else text

    def _shown(self, name: str) -> str:
        return str(self.address.under(name) if name else self.address)

    def _opened(self) -> Any:
        with self._opening:
            if self._files is None:
                self.check_installed()
                self._files = _filesystem(self.scheme)
            return self._files


class StoreFile:
    """An object as a file for whoever seeks in it: the last ranges that were read are kept."""

    def __init__(self, store: Store, name: str, found: StoredObject) -> None:
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


def _filesystem(scheme: str) -> Any:
    fsspec = importlib.import_module("fsspec")
    more: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if scheme == "s3":
        # We try again ourselves, and know for how long.
        more["config_kwargs"] = {
            "retries": {"mode": "standard", "max_attempts": 1},
            "connect_timeout": 5,
            "read_timeout": 30,
        }
    files = fsspec.filesystem("gcs" if scheme == "gs" else "abfs" if scheme == "az" else scheme, **more)
    if scheme == "s3":
        files.retries = 1
    return files


def _object(found: dict[str, Any]) -> StoredObject:
    size = int(found.get("size") or 0)
    if digest := found.get("md5Hash"):  # Google's
        return StoredObject(size, base64.b64decode(digest).hex())
    tag = found.get("ETag") or found.get("etag") or ""
    return StoredObject(size, str(tag).strip('"'))


def tag_of(path: str, scheme: str) -> tuple[int, int, str]:
    """Return the size of a file, its CRC-32, and the tag that a store gives to such an object, as far as that is known.

    S3 gives the MD5, of an object that came in pieces that of their MD5s. Where objects are encrypted by a key of the
    user's it gives something else.
    """
    size = os.path.getsize(path)
    in_pieces = scheme == "s3" and size >= 2 * PIECE_BYTES
    checksum = 0
    whole = hashlib.md5(usedforsecurity=False)
    digests: list[bytes] = []
    with open(path, "rb") as file:
        while piece := file.read(PIECE_BYTES):
            checksum = zlib.crc32(piece, checksum)
            if in_pieces:
                digests.append(hashlib.md5(piece, usedforsecurity=False).digest())
            else:
                whole.update(piece)
    if in_pieces:
        joined = hashlib.md5(b"".join(digests), usedforsecurity=False).hexdigest()
        return size, checksum, f"{joined}-{len(digests)}"
    return size, checksum, whole.hexdigest()
