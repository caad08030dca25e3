"""Where the files of a job lie: its folder is found, made, and cleared here.

Law 7: a folder that holds anything else is never taken for a job, and nothing else in it is removed.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence

from fetcher.errors import ConfigError, LedgerError
from fetcher.files import sync_folder_of
from fetcher.store import is_store_url

__all__ = [
    "BEGIN_AGAIN",
    "CRASH_MARKER",
    "KEPT_LIST",
    "LEDGER",
    "LOCK",
    "OWNER",
    "RESTORED",
    "SINCE",
    "clear_job",
    "copy_of",
    "folder_for",
    "has_earlier",
    "is_job",
    "make_folder",
    "work_folder",
]

LEDGER = "ledger.sqlite"
LOCK = "lock"
OWNER = "owner"  # who we were for an output in a store
RESTORED = "restored.sqlite"  # a ledger that is made of what stands in a store, until it is whole
CRASH_MARKER = "parsing"
SINCE = "since.sqlite"  # the pages of an earlier run
KEPT_LIST = "list.jsonl"  # and the suffix of its compression
COPY_PREFIX = "rewrite."
WORK_PREFIX = "output."
BEGIN_AGAIN = "begin again with --fresh"
_WRITTEN = re.compile(
    rf"{re.escape(LEDGER)}(\.new)?(-wal|-shm|-journal)?|{re.escape(CRASH_MARKER)}|"
    rf"({re.escape(COPY_PREFIX)}|{re.escape(WORK_PREFIX)})[0-9]+|{re.escape(KEPT_LIST)}\.(zst|gz)|"
    rf"{re.escape(SINCE)}(\.new)?(-wal|-shm|-journal)?|{re.escape(RESTORED)}(\.new)?(-wal|-shm|-journal)?",
    re.ASCII,
)
"""What a job writes in its folder, but for the lock."""


def folder_for(outputs: Sequence[str]) -> str:
    """Return where the job of these outputs lies: beside the first, or in this folder where that is in a store."""
    first = outputs[0]
    if is_store_url(first):  # here, by its last name
        return f"{first.rstrip('/').rpartition('/')[2]}.job"
    return f"{first.rstrip(os.sep)}.job"


def is_job(folder: str) -> bool:
    """Say whether a job was begun in ``folder``."""
    return os.path.lexists(os.path.join(folder, LEDGER))


def has_earlier(folder: str) -> bool:
    """Say whether the job in ``folder`` has read what it compares with."""
    return is_job(folder) and os.path.exists(os.path.join(folder, SINCE))


def copy_of(folder: str, output: str, ordinal: int) -> str:
    """Return where the rewritten copy of an output is made: in the job, or beside the output on another disk."""
    if is_store_url(output):
        return os.path.join(folder, f"{COPY_PREFIX}{ordinal}")
    beside = os.path.dirname(os.path.realpath(output))
    if os.stat(folder).st_dev == os.stat(beside).st_dev:
        return os.path.join(folder, f"{COPY_PREFIX}{ordinal}")
    return os.path.join(beside, f".{os.path.basename(output.rstrip(os.sep))}.{COPY_PREFIX}{ordinal}")


def work_folder(folder: str, ordinal: int) -> str:
    """Return where an output keeps what is committed and not yet in it."""
    return os.path.join(folder, f"{WORK_PREFIX}{ordinal}")


def make_folder(folder: str) -> None:
    """Make the folder of a job where there is none.

    Raises ``ConfigError`` for a folder that holds something else, ``LedgerError`` where none can be made.
    """
    try:
        try:
            os.mkdir(folder)
        except FileExistsError:
            foreign = [
                name
                for name in os.listdir(folder)
                if name not in (LOCK, OWNER, f"{OWNER}.new") and not _WRITTEN.fullmatch(name)
            ]
            if foreign and not is_job(folder):
                raise ConfigError(
                    f"{folder} is no job of ours: it holds {foreign[0]!r}; name another folder with --job"
                ) from None
            return
        sync_folder_of(folder)
    except OSError as error:
        raise LedgerError(f"{folder}: cannot make the folder of the job: {error.strerror or error}") from error


def clear_job(folder: str) -> None:
    """Remove what a job has written in its folder, the ledger first, but for the lock. Raises ``LedgerError``."""
    path = folder
    try:
        names = sorted(name for name in os.listdir(folder) if _WRITTEN.fullmatch(name))
        for name in names:
            path = os.path.join(folder, name)
            if name.startswith((COPY_PREFIX, WORK_PREFIX)) and os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
        if names:
            path = folder
            sync_folder_of(os.path.join(folder, LEDGER))
    except OSError as error:
        raise LedgerError(f"{path}: cannot remove: {error.strerror or error}") from error
