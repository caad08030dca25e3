"""How files are opened, locked, read, written, synced and moved: one way for the whole package.

Laws: where a regular file is expected, anything else is refused, and opening a FIFO does not block (7). A file that was
created or moved survives a power cut under its name once ``sync_folder_of`` has returned, and a move replaces its
target whole (6). A lock belongs to the system: it ends with the process that holds it, however that ends.

Everything here raises the ``OSError`` of the system: the caller knows what the file is for and what to do about it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import stat
import sys
from collections.abc import Iterator
from typing import Final

__all__ = [
    "PLAIN_FLAGS",
    "PRIVATE",
    "READ_BYTES",
    "NotRegularFileError",
    "create_like",
    "is_locked",
    "move",
    "open_regular",
    "read_range",
    "sync",
    "sync_file",
    "sync_folder",
    "sync_folder_of",
    "try_lock",
    "write_all",
]

READ_BYTES: Final = 256 * 1024
"""Bytes of a block that ``read_range`` yields, at most."""

PLAIN_FLAGS: Final = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOCTTY", 0)
"""What every ``os.open`` of ours asks for: bytes as they are, and no controlling terminal."""

_NONBLOCK: Final = PLAIN_FLAGS | getattr(os, "O_NONBLOCK", 0)
_NO_LINK: Final = getattr(os, "O_NOFOLLOW", 0)
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | PLAIN_FLAGS
_LOCKED_BY_OTHERS: Final = frozenset({errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK})
_NO_FOLDER_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP})
_NO_FULL_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOTTY})
_WINDOWS_LOCK_OFFSET: Final = 1 << 30  # a locked byte cannot be read there: it is far behind the content


class NotRegularFileError(OSError):
    """A path that should be a regular file is a folder, a FIFO, a socket or a device."""


PRIVATE: Final = 0o600
"""The mode of a file that may hold secrets, or what tells of them: for its owner alone."""


def open_regular(path: str, flags: int, *, follow_links: bool = False, mode: int = 0o666) -> int:
    """Open the regular file at ``path`` with the ``flags`` of ``os.open``, and return its descriptor.

    One that is made has ``mode``, less the umask. Raises ``NotRegularFileError`` for anything else, and ``OSError``
    (``ELOOP``) for a link, where the system can tell, unless ``follow_links``.
    """
    # O_NONBLOCK: opening a FIFO would block until somebody opens its other end.
    descriptor = os.open(path, flags | _NONBLOCK | (0 if follow_links else _NO_LINK), mode)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegularFileError(errno.EINVAL, "Not a regular file", path)
    return descriptor


def create_like(path: str, like: os.stat_result) -> int:
    """Create an empty file with the owner and mode of ``like`` in place of what is at ``path``; return its descriptor.

    A link there is removed, not followed.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    descriptor = os.open(path, _NEW, 0o600)
    if hasattr(os, "fchown"):
        own = os.fstat(descriptor)
        if (own.st_uid, own.st_gid) != (like.st_uid, like.st_gid):
            with contextlib.suppress(PermissionError):  # who may not give files away keeps this one
                os.fchown(descriptor, like.st_uid, like.st_gid)
        os.fchmod(descriptor, like.st_mode & 0o7777)
    return descriptor


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int, *, shared: bool) -> None:  # noqa: ARG001  # there is no shared lock
        _lock_byte(descriptor, msvcrt.LK_NBLCK)

    def _unlock(descriptor: int) -> None:
        _lock_byte(descriptor, msvcrt.LK_UNLCK)

    def _lock_byte(descriptor: int, mode: int) -> None:
        os.lseek(descriptor, _WINDOWS_LOCK_OFFSET, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, mode, 1)
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)

    def _full_sync(descriptor: int) -> bool:  # noqa: ARG001  # there fsync is one
        return False
else:
    import fcntl

    def _lock(descriptor: int, *, shared: bool) -> None:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _full_sync(descriptor: int) -> bool:
        full = getattr(fcntl, "F_FULLFSYNC", None)
        if full is None:
            return False
        try:
            fcntl.fcntl(descriptor, full)
        except OSError as error:
            if error.errno not in _NO_FULL_SYNC:
                raise
            return False
        return True


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock an open file for this process alone, without waiting; return ``False`` where another has it locked.

    The lock goes with the descriptor, and with the process.
    """
    try:
        _lock(descriptor, shared=shared)
    except OSError as error:
        if error.errno in _LOCKED_BY_OTHERS:
            return False
        raise
    return True


def is_locked(descriptor: int) -> bool:
    """Return whether another process has the file locked. For an instant it is locked by us, shared."""
    if not try_lock(descriptor, shared=True):
        return True
    _unlock(descriptor)
    return False


def read_range(descriptor: int, start: int, end: int) -> Iterator[bytes]:
    """Yield the bytes from ``start`` to ``end``, or to the file's end, in blocks; the descriptor's offset moves."""
    os.lseek(descriptor, start, os.SEEK_SET)
    while start < end and (block := os.read(descriptor, min(READ_BYTES, end - start))):
        start += len(block)
        yield block


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write the whole of ``data``, waiting as long as it takes. After an ``OSError`` some of it may be written."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            _wait_until_writable(descriptor)


def _wait_until_writable(descriptor: int) -> None:
    # Another program that shares the pipe or terminal may have made it non-blocking, for itself and for us.
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_WRITE)
        selector.select()


def sync(descriptor: int) -> None:
    """Bring what was written to an open file to the disk.

    On macOS ``fsync`` ends when the drive has the data in its cache, which a power cut empties: ``F_FULLFSYNC`` waits
    for the medium (fsync(2) there). File systems over a network may not know it.
    """
    if not _full_sync(descriptor):
        os.fsync(descriptor)


def sync_file(path: str) -> None:
    """Sync the content of the file at ``path`` to the disk."""
    descriptor = os.open(path, os.O_RDWR | PLAIN_FLAGS)
    try:
        sync(descriptor)
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(descriptor)


def sync_folder_of(path: str) -> None:
    """Sync the folder that the file ``path`` is in (links followed), where the system and the file system can."""
    sync_folder(os.path.dirname(os.path.realpath(path)))


def sync_folder(folder: str) -> None:
    """Sync a folder: the names in it."""
    if os.name == "nt":  # there a folder cannot be opened, and needs no sync
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        os.sync()  # a folder that may be written and not be read: with all that there is, its names are on the disk too
        return
    try:
        sync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            error.filename = folder
            raise
    finally:
        os.close(descriptor)


def move(source: str, target: str) -> None:
    """Rename ``source`` to ``target``, atomically and durably; to another file system by a copy that is renamed there.

    After an ``OSError`` either both are as before, or the move is done.
    """
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        folder, name = os.path.split(target)
        beside = os.path.join(folder, f".{name}.rewrite")
        _copy(source, beside)
        os.replace(beside, target)
        sync_folder_of(target)
        os.unlink(source)
    else:
        sync_folder_of(target)
    if os.path.dirname(source) != os.path.dirname(target):
        sync_folder_of(source)


def _copy(source: str, copy: str) -> None:
    with open(source, "rb") as file:
        like = os.fstat(file.fileno())
        descriptor = create_like(copy, like)
        try:
            for block in read_range(file.fileno(), 0, like.st_size):
                write_all(descriptor, block)
            sync(descriptor)
        finally:
            os.close(descriptor)
