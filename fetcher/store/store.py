"""A prefix in a store that is written to: objects are put whole, and removed.

Laws: what is put is there whole or not at all, for the file is finished before: a stream into the store would commit
half of it where it is interrupted (6). A file is sent in pieces, so that memory does not hold it (3).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from fetcher.files import sync
from fetcher.store.calls import ObjectExistsError
from fetcher.store.reading import StoredObject, StoreReader
from fetcher.store.trouble import is_unknown

__all__ = ["ObjectExistsError", "Store", "StoredObject", "checksum_of", "fetch", "tag_of"]

PIECE_BYTES = 16 * 1024 * 1024
"""Of a file: what is larger than two such is sent in pieces."""

PIECES_AT_ONCE = 2


class UnknownConditionError(Exception):
    """The store refuses a ``PUT`` on a condition, for it knows none."""


class Store(StoreReader):
    """The prefix at ``url``.

    ``conditional`` says whether the store makes an object on the condition that there is none, ``None`` where that is
    not known yet. One that does not is asked before: two that do so in the same moment may not see each other.
    """

    conditional: bool | None = None

    def put(self, name: str, data: bytes, *, create: bool = False, patient: bool = True) -> None:
        """Put an object. Raises ``ObjectExistsError`` where ``create`` finds one."""
        self._put(
            name,
            lambda files, path, mode: files.pipe_file(path, data, mode=mode),
            create=create,
            patient=patient,
        )

    def put_file(self, name: str, source: str, *, create: bool = False) -> None:
        """Put a file, whole. Raises ``ObjectExistsError`` as ``put`` does."""
        more: dict[str, Any] = {}
        if self.scheme == "s3":
            more = {"chunksize": PIECE_BYTES, "max_concurrency": PIECES_AT_ONCE}
        os.stat(source)  # what is missing here is not to be taken for what is missing there
        self._put(name, lambda files, path, mode: files.put_file(source, path, mode=mode, **more), create=create)

    def remove(self, name: str, *, patient: bool = True) -> None:
        """Remove an object; one that is not there is no error."""
        with contextlib.suppress(FileNotFoundError):
            self._tried(name, lambda files, path: files.rm_file(path), patient=patient)

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

    def _put(
        self, name: str, act: Callable[[Any, str, str], object], *, create: bool = False, patient: bool = True
    ) -> None:
        if create and self.conditional is not False:
            try:
                self._put_once(name, lambda files, path: _on_condition(act, files, path), patient=patient)
            except UnknownConditionError:
                self.conditional = False
            else:
                return
        if create and self.info(name) is not None:
            raise ObjectExistsError(self._shown(name))
        self._put_once(name, lambda files, path: act(files, path, "overwrite"), patient=patient)

    def _put_once(self, name: str, act: Callable[[Any, str], object], *, patient: bool) -> None:
        try:
            self._tried(name, act, patient=patient)
        except FileNotFoundError as error:  # of a bucket that is not there
            raise self._error(self._explained(name, error)) from None


def _on_condition(act: Callable[[Any, str, str], object], files: Any, path: str) -> None:
    try:
        act(files, path, "create")
    except Exception as error:
        if is_unknown(error):
            raise UnknownConditionError from None
        raise


def checksum_of(store: StoreReader, name: str) -> int:
    """Return the CRC-32 of an object. Raises ``FileNotFoundError`` where there is none."""
    found = 0
    for block in store.blocks(name):
        found = zlib.crc32(block, found)
    return found


def fetch(store: StoreReader, name: str, target: str) -> None:
    """Write an object into a new file. Raises ``FileNotFoundError`` where there is none."""
    with open(target, "wb") as file:
        file.writelines(store.blocks(name))
        file.flush()
        sync(file.fileno())


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
