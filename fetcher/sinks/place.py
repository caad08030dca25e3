"""Where an output lies: standard output, a descriptor, a file, a FIFO or a device; and opening what lies there.

Law: a file that stands is never overwritten unless that is asked for (``fresh``), and only its opening cuts it.
What is made here is in its folder for good once ``sync_folder`` has returned (law 6).
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import stat
import sys
from pathlib import Path

from fetcher.errors import ConfigError, SinkError

__all__ = [
    "AGAIN",
    "check_place",
    "descriptor_of",
    "is_special",
    "name_of",
    "open_place",
    "open_regular",
    "standing",
    "sync_folder",
    "trouble",
]

AGAIN = "put it back as it was, or begin again with --fresh"
"""What to do about an output that is not as a job has left it."""

READER_POLL = 0.05
_DESCRIPTOR = re.compile(r"/dev/(stdout|stderr|fd/(\d+))")
_PLAIN = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOCTTY", 0)
_FLAGS = os.O_WRONLY | _PLAIN
_BOTH = os.O_RDWR | _PLAIN | getattr(os, "O_NONBLOCK", 0)  # what became a FIFO meanwhile would hold the opener


def name_of(path: str) -> str:
    """Return what messages call the output at ``path``."""
    return "standard output" if path == "-" else path


def descriptor_of(path: str) -> int | None:
    """Return the open descriptor that ``path`` means (``-``, ``/dev/stdout``, ``/dev/fd/63``), or ``None``.

    Opening ``/dev/stdout`` anew would start at the beginning of the file that stdout is redirected to.
    """
    if path == "-":
        return 1
    match = _DESCRIPTOR.fullmatch(path)
    if not match:
        return None
    return int(match[2]) if match[2] else {"stdout": 1, "stderr": 2}[match[1]]


def is_special(path: str) -> bool:
    """Say whether ``path`` is standard output, a FIFO or a device: something with no content to protect."""
    if descriptor_of(path) is not None:
        return True
    mode = _mode(path)
    return mode is not None and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def check_place(path: str, *, fresh: bool) -> None:
    """Check, changing nothing, that an output can be opened at ``path``.

    Raises ``ConfigError`` for a file that stands and is not to be overwritten, ``SinkError`` for a folder that is
    missing or not writable, or for a ``path`` that is a folder.
    """
    descriptor = descriptor_of(path)
    if descriptor is not None:
        _check_descriptor(path, descriptor)
        return
    mode = _mode(path)
    if mode is None:
        folder = Path(path).parent
        if not folder.is_dir():
            raise _missing(path)
        writable = os.access(folder, os.W_OK | os.X_OK)
    elif stat.S_ISDIR(mode):
        raise SinkError(f"{path}: is a folder")
    elif stat.S_ISREG(mode) and not fresh:
        raise standing(path)
    else:
        writable = os.access(path, os.W_OK)
    if not writable:
        raise SinkError(f"{path}: cannot open: no permission to write there")


async def open_place(path: str, *, fresh: bool) -> int:
    """Open ``path`` for writing and return a descriptor of its own; a FIFO waits until it has a reader.

    Raises as ``check_place`` does.
    """
    try:
        descriptor = descriptor_of(path)
        if descriptor is not None:
            _check_descriptor(path, descriptor)
            if descriptor == 1 and sys.stdout is not None and not sys.stdout.closed:
                sys.stdout.flush()  # what was printed before stands before
            return os.dup(descriptor)
        mode = _mode(path)
        if mode is None or stat.S_ISREG(mode):
            return os.open(path, _FLAGS | os.O_CREAT | (os.O_TRUNC if fresh else os.O_EXCL), 0o666)
        if stat.S_ISFIFO(mode):
            return await _open_fifo(path)
        return os.open(path, _FLAGS)
    except FileExistsError:
        raise standing(path) from None
    except FileNotFoundError:
        raise _missing(path) from None
    except IsADirectoryError:
        raise SinkError(f"{path}: is a folder") from None
    except OSError as error:
        raise trouble(path, "cannot open", error) from error


def open_regular(path: str, *, make: bool) -> int:
    """Open the regular file at ``path`` to read, write and cut it; ``make`` makes the one that is missing.

    A link is followed. Raises ``SinkError`` for what is missing, no regular file or not to be opened.
    """
    try:
        mode = _mode(path)
        if mode is not None and not stat.S_ISREG(mode):
            raise _irregular(path)
        flags = _BOTH | (os.O_CREAT if make and mode is None else 0)
        descriptor = os.open(path, flags, 0o666)
    except FileNotFoundError:
        raise (_missing(path) if make else SinkError(f"{path}: is missing: {AGAIN}")) from None
    except OSError as error:
        raise trouble(path, "cannot open", error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _irregular(path)
    return descriptor


def sync_folder(path: str) -> None:
    """Bring the entry of the file ``path`` in its folder to the disk, where the system can. Raises ``OSError``."""
    if os.name == "nt":
        return
    try:
        descriptor = os.open(os.path.dirname(os.path.realpath(path)), os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        return  # a folder that may be written and not be read
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # a file system that knows no sync of folders
            raise
    finally:
        os.close(descriptor)


def standing(path: str) -> ConfigError:
    """Return the error for a file that would be overwritten."""
    return ConfigError(f"{path} exists; use --fresh to overwrite it")


def trouble(path: str, what: str, error: OSError) -> SinkError | BrokenPipeError:
    """Return the error to raise: a ``SinkError`` that names the path, or ``BrokenPipeError`` for a reader that left."""
    if isinstance(error, BrokenPipeError):
        return BrokenPipeError(error.errno, error.strerror, name_of(path))
    return SinkError(f"{name_of(path)}: {what}: {error.strerror or error}")


async def _open_fifo(path: str) -> int:
    # A plain open would hold its thread until somebody reads, and no cancellation would reach it.
    while True:
        try:
            descriptor = os.open(path, _FLAGS | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            await asyncio.sleep(READER_POLL)
        else:
            os.set_blocking(descriptor, True)
            return descriptor


def _check_descriptor(path: str, descriptor: int) -> None:
    if descriptor == 1 and sys.__stdout__ is None:
        # Started with stdout closed: number 1 is by now whatever was opened first.
        raise SinkError(f"{name_of(path)}: is closed")
    try:
        os.fstat(descriptor)
    except OSError as error:
        raise trouble(path, "cannot open", error) from error


def _mode(path: str) -> int | None:
    try:
        return Path(path).stat().st_mode
    except FileNotFoundError:
        return None
    except ValueError:
        raise ConfigError(f"{path!r} is no file name") from None
    except OSError as error:
        raise trouble(path, "cannot open", error) from error


def _missing(path: str) -> SinkError:
    return SinkError(f"{path}: the folder {Path(path).parent} does not exist")


def _irregular(path: str) -> SinkError:
    return SinkError(f"{path}: is no regular file: nothing that is written there could be cut back")
