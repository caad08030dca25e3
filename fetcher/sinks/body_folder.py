"""A folder of bodies: each in a file that is named by what is in it, so that equal ones are stored once.

Laws: a body is whole and on the disk under its name before a record names it: it is written under another name, synced,
renamed, and its folder is synced (6). No name is made of what the web says: it is the body's own SHA-256, and an
extension from a table of ours (7). What a killed run was writing is removed by the next one (6), and by nobody while
that run lives: two jobs may share a folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import msgspec

from fetcher.compression import SUFFIXES, ZSTD_MODULES, Packing, first_installed, quick_compressor
from fetcher.errors import ConfigError, SinkError
from fetcher.files import PLAIN_FLAGS, open_regular, sync, sync_folder, sync_folder_of, try_lock, write_all
from fetcher.model import Outcome, Page
from fetcher.sinks.opening import write_error

__all__ = ["BodyFile", "BodyFolder", "check_body_folder", "extension_of"]

T = TypeVar("T")

THREADS = 8
"""That write and sync at the same time: a disk brings several files to its medium in little more time than one."""

FILES_AT_ONCE = 64
"""That are written before they are synced, and are open until then: a journal is committed for many at once, not for each."""

HASHED_HERE_BYTES = 1024 * 1024
"""A larger body is hashed in another thread: the event loop would stand still for over a millisecond."""

INCOMING_PREFIX = ".incoming-"
LOCK = "lock"
_INCOMING = re.compile(rf"{re.escape(INCOMING_PREFIX)}[0-9a-f]{{16}}")
_PART = re.compile(r"[0-9a-f]{2}")
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | PLAIN_FLAGS
_ADVISE: Callable[[int, int, int, int], None] | None = getattr(os, "posix_fadvise", None)
_HTML_START = re.compile(rb"(?:\xef\xbb\xbf)?\s*+<(?:!doctype html|html)[ >]", re.IGNORECASE)

EXTENSIONS = {
    "text/html": "html", "application/xhtml+xml": "xhtml", "text/plain": "txt", "text/markdown": "md",
    "text/css": "css", "text/csv": "csv", "text/tab-separated-values": "tsv", "text/calendar": "ics",
    "text/javascript": "js", "application/javascript": "js", "application/x-javascript": "js",
    "application/ecmascript": "js", "application/json": "json", "text/json": "json", "application/jsonl": "jsonl",
    "application/ndjson": "jsonl", "application/x-ndjson": "jsonl", "application/xml": "xml", "text/xml": "xml",
    "application/rtf": "rtf", "application/yaml": "yaml", "application/x-yaml": "yaml", "image/svg+xml": "svg",
    "image/png": "png", "image/jpeg": "jpg", "image/jpg": "jpg", "image/pjpeg": "jpg", "image/gif": "gif",
    "image/webp": "webp", "image/avif": "avif", "image/bmp": "bmp", "image/tiff": "tiff", "image/x-icon": "ico",
    "image/vnd.microsoft.icon": "ico", "application/pdf": "pdf", "application/zip": "zip", "application/gzip": "gz",
    "application/x-gzip": "gz", "application/epub+zip": "epub", "application/msword": "doc",
    "application/vnd.ms-excel": "xls", "application/vnd.ms-powerpoint": "ppt",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
    "application/vnd.oasis.opendocument.text": "odt", "application/vnd.oasis.opendocument.spreadsheet": "ods",
    "audio/mpeg": "mp3", "audio/ogg": "ogg", "audio/wav": "wav", "video/mp4": "mp4", "video/webm": "webm",
    "video/mpeg": "mpg", "font/woff": "woff", "font/woff2": "woff2", "font/ttf": "ttf", "font/otf": "otf",
    "application/wasm": "wasm",
}  # fmt: skip
"""Content type -> extension. A type that is not here is ``json``, ``xml``, ``txt`` or ``bin``."""


class BodyFile(NamedTuple):
    """A body on its way to the folder: its path there, parted by ``/``, and its bytes, which are to be ``packed``."""

    path: str
    data: bytes
    packed: bool


class IncomingFile:
    """A file that is being written, and gets its name when it is on the disk. Raises ``OSError``."""

    def __init__(self, incoming: str, path: str, descriptor: int) -> None:
        self.path = path
        self._incoming = incoming
        self._descriptor = descriptor
        self._finished = False

    def write(self, data: bytes) -> None:
        """Write it whole, and have the disk begin with it, where the system can be asked to."""
        write_all(self._descriptor, data)
        if _ADVISE is not None:
            with contextlib.suppress(OSError):  # an advice
                _ADVISE(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def sync(self) -> None:
        """Wait for the disk."""
        sync(self._descriptor)

    def finish(self) -> None:
        """Give it its name."""
        self._close()
        os.replace(self._incoming, self.path)
        self._finished = True

    def discard(self) -> None:
        """Remove it, unless it is finished: a full disk is to have its place back."""
        if not self._finished:
            with contextlib.suppress(OSError):
                self._close()
            with contextlib.suppress(OSError):
                os.unlink(self._incoming)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class BodyFolder:
    """Stores bodies at ``ab/HASH.EXT`` below ``path``: HASH their SHA-256 in hexadecimal, ``ab`` its first two digits.

    Text is compressed: by Zstandard (``.html.zst``), or by gzip where that is not installed. A file that is there
    already is not written again, whoever wrote it. ``owner`` names the job that stores: its next run finds by it what
    this one leaves behind. ``place`` belongs to the event loop, all else to one other thread at a time.

    Everything raises ``SinkError`` that names the path.
    """

    def __init__(self, path: str | os.PathLike[str], *, owner: str | None = None) -> None:
        self.path = os.fspath(path)
        name = secrets.token_hex(8) if owner is None else hashlib.sha256(os.fsencode(owner)).hexdigest()[:16]
        self._incoming = os.path.join(self.path, INCOMING_PREFIX + name)
        self._packing: Packing = "gzip" if first_installed(*ZSTD_MODULES) is None else "zstd"
        self._suffix = next(suffix for suffix, packing in SUFFIXES.items() if packing == self._packing)
        self._lock = -1
        self._parts: set[str] = set()  # folders that are there for good
        self._pool: ThreadPoolExecutor | None = None
        self._own = threading.local()  # a compressor for each thread

    def open(self, *, create: bool = True) -> None:
        """Make the folder where there is none, unless ``create`` is off, and remove what killed runs were writing.

        Raises ``ConfigError`` as ``check_body_folder`` does.
        """
        check_body_folder(self.path)
        try:
            if not os.path.isdir(self.path):
                if not create:
                    raise SinkError(
                        f"{self.path}: the folder of the bodies is missing: put it back, or begin again with --fresh"
                    )
                os.mkdir(self.path)
                sync_folder_of(os.path.abspath(self.path))
            self._remove_dead()
            self._lock = self._claim()
        except OSError as error:
            raise write_error(error.filename or self.path, "cannot write", error) from error
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="fetcher-bodies")

    async def place(self, outcome: Outcome) -> tuple[Outcome, BodyFile | None]:
        """Return the outcome with ``body_path`` and ``digest``, and what is to be stored; a failure has no body."""
        if not isinstance(outcome, Page) or outcome.body is None:
            return outcome, None
        body: bytes = outcome.body
        digest = _hash(body) if len(body) <= HASHED_HERE_BYTES else await asyncio.to_thread(_hash, body)
        text = outcome.charset is not None
        path = f"{digest[:2]}/{digest}.{extension_of(outcome)}{self._suffix if text else ''}"
        return msgspec.structs.replace(outcome, body_path=path, digest=f"sha256:{digest}"), BodyFile(path, body, text)

    def store(self, bodies: Collection[BodyFile]) -> None:
        """Bring bodies to the disk: when this returns they are there, whole and for good."""
        parts = {body.path[:2] for body in bodies}
        new = sorted(parts - self._parts)
        for part in new:
            self._make_part(os.path.join(self.path, part))
        listed = list(bodies)
        for start in range(0, len(listed), FILES_AT_ONCE):
            self._store(listed[start : start + FILES_AT_ONCE])
        # Also of what was there already: whoever renamed it may not have come to this.
        self._in_threads(self._sync_part, sorted(parts))
        if new:
            self._sync_part("")
            self._parts.update(new)

    def close(self) -> None:
        """Let go of the folder. All that was stored is on the disk; harmless twice."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        descriptor, self._lock = self._lock, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):  # what is left here is removed by the next run
                os.unlink(os.path.join(self._incoming, LOCK))
                os.rmdir(self._incoming)
            os.close(descriptor)

    # Files

    def _store(self, bodies: list[BodyFile]) -> None:
        """Write them all and only then wait for the disk: that has much less to do than with one after the other."""
        written: list[IncomingFile] = []
        try:
            for body in bodies:
                self._write(body, written)
            self._in_threads(_sync, written)
            for file in written:
                _finish(file)
        finally:
            for file in written:
                file.discard()

    def _write(self, body: BodyFile, written: list[IncomingFile]) -> None:
        path = os.path.join(self.path, body.path)
        try:
            if not _is_there(path, empty=not body.data):
                data = self._compress(body.data) if body.packed else body.data
                incoming = os.path.join(self._incoming, os.path.basename(path))
                file = IncomingFile(incoming, path, os.open(incoming, _NEW, 0o666))
                written.append(file)
                file.write(data)
        except OSError as error:
            raise write_error(path, "cannot write", error) from error

    def _compress(self, data: bytes) -> bytes:
        compress: Callable[[bytes], bytes] | None = getattr(self._own, "compress", None)
        if compress is None:
            compress = self._own.compress = quick_compressor(self._packing)
        return compress(data)

    def _make_part(self, folder: str) -> None:
        try:
            try:
                os.mkdir(folder)
            except FileExistsError:
                if not stat.S_ISDIR(os.lstat(folder).st_mode):
                    raise SinkError(f"{folder}: {_NO_PART}") from None
        except OSError as error:
            raise write_error(folder, "cannot make the folder", error) from error

    def _sync_part(self, part: str) -> None:
        folder = os.path.join(self.path, part)
        try:
            sync_folder(folder)
        except OSError as error:
            raise write_error(folder, "cannot write", error) from error

    def _in_threads(self, act: Callable[[T], None], items: Collection[T]) -> None:
        """Call ``act`` with each item, several at once. After an error no more are begun, and the first is raised."""
        if self._pool is None:
            raise RuntimeError(f"{self.path}: not open")
        left = iter(list(items))
        failed = threading.Event()

        def work() -> None:
            for item in _shared(left, failed):
                try:
                    act(item)
                except BaseException:
                    failed.set()
                    raise

        running = [self._pool.submit(work) for _ in range(min(THREADS, len(items)))]
        errors = [error for future in running if (error := future.exception()) is not None]
        if errors:
            raise errors[0]

    # Files of runs

    def _claim(self) -> int:
        """Make the place for what is being written, and return the descriptor whose lock says that we live."""
        path = os.path.join(self._incoming, LOCK)
        for pause in (0.0, 0.02, 0.1, 0.5):  # a run that looks for what was left holds it for an instant
            time.sleep(pause)
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._incoming)
            try:
                descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
            except FileNotFoundError:
                continue
            if _try_lock(descriptor, path):
                return descriptor
        raise SinkError(f"{self._incoming}: another run is writing there: wait for it or stop it")

    def _remove_dead(self) -> None:
        """Remove what runs were writing that are gone, whether of this job or of another."""
        for name in sorted(os.listdir(self.path)):
            if _INCOMING.fullmatch(name):
                folder = os.path.join(self.path, name)
                # What cannot be removed of another run's does not concern us.
                with contextlib.suppress(OSError) if folder != self._incoming else contextlib.nullcontext():
                    _remove_incoming(folder)


def check_body_folder(path: str | os.PathLike[str]) -> None:
    """Check, changing nothing, that bodies can be stored in the folder at ``path``. Raises ``ConfigError``.

    A link to a folder is followed, one in it is not.
    """
    path = os.fspath(path)
    try:
        if os.path.isdir(path):
            foreign = next(
                (name for name in sorted(os.listdir(path)) if _PART.fullmatch(name) and _is_no_folder(path, name)), None
            )
            if foreign is not None:
                raise ConfigError(f"body: {os.path.join(path, foreign)}: {_NO_PART}")
            place = path
        elif os.path.lexists(path):
            what = "is a link to nothing" if os.path.islink(path) and not os.path.exists(path) else "is no folder"
            raise ConfigError(f"body: {path} {what}: name a folder, or one that is to be made")
        else:
            place = os.path.dirname(os.path.abspath(path))
            if not os.path.isdir(place):
                raise ConfigError(f"body: {path}: the folder {place} does not exist")
        if not os.access(place, os.W_OK | os.X_OK):
            raise ConfigError(f"body: {path}: no permission to write in {place}")
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"body: {path!r} is no file name") from None
    except OSError as error:
        raise ConfigError(f"body: {error.filename or path}: {error.strerror or error}") from None


def extension_of(page: Page) -> str:
    """Return the extension of a page's body: by its content type, and by its first bytes where that says nothing."""
    kind = page.content_type or ""
    known = EXTENSIONS.get(kind)
    if known is not None:
        return known
    if page.charset is None:
        return "bin"
    if kind.endswith("+json"):
        return "json"
    if kind.endswith("+xml"):
        return "xml"
    return "html" if not kind and _HTML_START.match(page.body or b"") else "txt"


def _sync(file: IncomingFile) -> None:
    try:
        file.sync()
    except OSError as error:
        raise write_error(file.path, "cannot write", error) from error


def _finish(file: IncomingFile) -> None:
    try:
        file.finish()
    except OSError as error:
        raise write_error(file.path, "cannot write", error) from error


def _hash(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _is_there(path: str, *, empty: bool) -> bool:
    """Say whether the file is there. One that a broken file system has emptied is written again."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(found.st_mode):
        raise SinkError(f"{path}: is no regular file: take it away and run the same command again")
    return empty or found.st_size > 0


def _is_no_folder(path: str, name: str) -> bool:
    return not stat.S_ISDIR(os.lstat(os.path.join(path, name)).st_mode)


def _shared(items: Iterator[T], failed: threading.Event) -> Iterator[T]:
    """Yield those of ``items`` that no other thread has taken, until something has ``failed``."""
    while not failed.is_set():
        try:
            item = next(items)  # in one step of the interpreter
        except StopIteration:
            return
        yield item


def _remove_incoming(folder: str) -> None:
    path = os.path.join(folder, LOCK)
    try:
        descriptor = open_regular(path, os.O_RDWR)
    except FileNotFoundError:
        with contextlib.suppress(OSError):  # a run is about to begin there, or was killed when it was
            os.rmdir(folder)
        return
    if not _try_lock(descriptor, path):
        return
    try:
        for name in sorted(os.listdir(folder)):
            if name != LOCK:
                os.unlink(os.path.join(folder, name))
        os.unlink(path)
        os.rmdir(folder)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, path: str) -> bool:
    """Lock the file, if it is still the one at ``path``; else close it and return ``False``."""
    mine = False
    try:
        mine = try_lock(descriptor) and os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        pass
    finally:
        if not mine:
            os.close(descriptor)
    return mine


_NO_PART = "is no folder, and bodies go into one of that name: take it away, or name another folder"
