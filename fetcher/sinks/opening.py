"""What an output's path means (standard output, a descriptor, a file, a FIFO or a device), and how it is opened.

Laws: a file that exists is never overwritten unless that is asked for (``fresh``), and only opening it cuts it (6).
What is wrong with a path ends the run, with an error that names it (2).
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fetcher.errors import ConfigError, FetcherError, SinkError
from fetcher.files import PLAIN_FLAGS, NotRegularFileError, open_regular

__all__ = [
    "RESTORE_ADVICE",
    "already_exists",
    "check_path",
    "check_same_file",
    "descriptor_of",
    "display_name",
    "explained",
    "is_at",
    "is_special",
    "moved_error",
    "open_for_job",
    "open_output",
    "write_error",
]

RESTORE_ADVICE = "put it back as it was, or begin again with --fresh"
"""What to do about an output that is not as a job has left it."""

FIFO_POLL_SECONDS = 0.05
"""Between two looks whether a FIFO has a reader by now."""

_DESCRIPTOR = re.compile(r"/dev/(stdout|stderr|fd/(\d+))")
_FLAGS = os.O_WRONLY | PLAIN_FLAGS


def display_name(path: str) -> str:
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


def check_path(path: str, *, fresh: bool) -> None:
    """Check, changing nothing, that an output can be opened at ``path``.

    Raises ``ConfigError`` for a file that exists and is not to be overwritten, ``SinkError`` for a folder that is
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
            raise _no_folder(path)
        writable = os.access(folder, os.W_OK | os.X_OK)
    elif stat.S_ISDIR(mode):
        raise SinkError(f"{path}: is a folder")
    elif stat.S_ISREG(mode) and not fresh:
        raise already_exists(path)
    else:
        writable = os.access(path, os.W_OK)
    if not writable:
        raise SinkError(f"{path}: cannot open: no permission to write there")


async def open_output(path: str, *, fresh: bool, mode: int = 0o666) -> int:
    """Open ``path`` for writing and return a descriptor of its own; a FIFO waits until it has a reader.

    Raises as ``check_path`` does.
    """
    try:
        descriptor = descriptor_of(path)
        if descriptor is not None:
            _check_descriptor(path, descriptor)
            if descriptor == 1 and sys.stdout is not None and not sys.stdout.closed:
                sys.stdout.flush()  # what was printed before comes first
            return os.dup(descriptor)
        there = _mode(path)
        if there is None or stat.S_ISREG(there):
            return os.open(path, _FLAGS | os.O_CREAT | (os.O_TRUNC if fresh else os.O_EXCL), mode)
        if stat.S_ISFIFO(there):
            return await _open_fifo(path)
        return os.open(path, _FLAGS)
    except FileExistsError:
        raise already_exists(path) from None
    except FileNotFoundError:
        raise _no_folder(path) from None
    except IsADirectoryError:
        raise SinkError(f"{path}: is a folder") from None
    except OSError as error:
        raise write_error(path, "cannot open", error) from error


def open_for_job(path: str, *, create: bool, mode: int = 0o666) -> int:
    """Open the regular file at ``path`` to read, write and cut it; ``create`` makes one that is missing, with ``mode``.

    A link is followed. Raises ``SinkError`` for what is missing, no regular file or not to be opened.
    """
    try:
        there = _mode(path)
        if there is not None and not stat.S_ISREG(there):
            raise _not_regular(path)
        flags = os.O_RDWR | (os.O_CREAT if create and there is None else 0)
        return open_regular(path, flags, follow_links=True, mode=mode)
    except NotRegularFileError:
        raise _not_regular(path) from None
    except FileNotFoundError:
        raise (_no_folder(path) if create else SinkError(f"{path}: is missing: {RESTORE_ADVICE}")) from None
    except OSError as error:
        raise write_error(path, "cannot open", error) from error


def already_exists(path: str) -> ConfigError:
    """Return the error for a file that would be overwritten."""
    return ConfigError(f"{path} exists; use --fresh to overwrite it")


def write_error(path: str, what: str, error: OSError) -> SinkError | BrokenPipeError:
    """Return the error to raise: a ``SinkError`` that names the path, or ``BrokenPipeError`` for a reader that left."""
    if isinstance(error, BrokenPipeError):
        return BrokenPipeError(error.errno, error.strerror, display_name(path))
    return SinkError(f"{display_name(path)}: {what}: {error.strerror or error}")


@contextmanager
def explained(path: str, what: str, changed: Callable[[ValueError], SinkError]) -> Iterator[None]:
    """Raise what goes wrong within as a ``SinkError`` of the output at ``path`` that says ``what``, and which file of it.

    ``changed`` makes the error of what is not as a job has left it, a ``ValueError``.
    """
    try:
        yield
    except FetcherError:
        raise
    except OSError as error:
        if error.filename in (None, path):
            raise write_error(path, what, error) from error
        raise SinkError(f"{path}: {what}: {error.filename}: {error.strerror or error}") from error
    except ValueError as error:
        raise changed(error) from error


def is_at(path: str, file: os.stat_result) -> bool:
    """Say whether ``path``, links followed, is still ``file``: by then it may have been moved, deleted or replaced."""
    try:
        return os.path.samestat(os.stat(path), file)
    except FileNotFoundError:
        return False


def moved_error(path: str, file: os.stat_result) -> SinkError:
    """Return the error for an open output that is no longer the ``file`` at its path."""
    if not file.st_nlink:
        return SinkError(f"{path}: another program has deleted it: {RESTORE_ADVICE}")
    return SinkError(f"{path}: another program has moved it, or put another in its place: {RESTORE_ADVICE}")


def check_same_file(path: str, descriptor: int) -> None:
    """Raise ``SinkError`` unless the open file is still the one at ``path``."""
    try:
        if not is_at(path, os.fstat(descriptor)):
            raise moved_error(path, os.fstat(descriptor))  # as it is now: it may just have been deleted
    except OSError as error:
        raise write_error(path, "cannot be found again", error) from error


async def _open_fifo(path: str) -> int:
    # A plain open would hold its thread until somebody reads, and no cancellation would reach it.
    while True:
        try:
            descriptor = os.open(path, _FLAGS | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            await asyncio.sleep(FIFO_POLL_SECONDS)
        else:
            os.set_blocking(descriptor, True)
            return descriptor


def _check_descriptor(path: str, descriptor: int) -> None:
    if descriptor == 1 and sys.__stdout__ is None:
        # Started with stdout closed: number 1 is by now whatever was opened first.
        raise SinkError(f"{display_name(path)}: is closed")
    try:
        os.fstat(descriptor)
    except OSError as error:
        raise write_error(path, "cannot open", error) from error


def _mode(path: str) -> int | None:
    try:
        return Path(path).stat().st_mode
    except FileNotFoundError:
        return None
    except ValueError:
        raise ConfigError(f"{path!r} is no file name") from None
    except OSError as error:
        raise write_error(path, "cannot open", error) from error


def _no_folder(path: str) -> SinkError:
    return SinkError(f"{path}: the folder {Path(path).parent} does not exist")


def _not_regular(path: str) -> SinkError:
    return SinkError(f"{path}: is no regular file: nothing that is written there could be cut back")
