"""Which kind of file it is, by its first bytes."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import Any

from fetcher.compression import packing_of_data, packing_of_path
from fetcher.config import Accept
from fetcher.errors import SourceError
from fetcher.store import is_store_url
from fetcher.stored.page import PassedOverCounts, StoredFile
from fetcher.stored.records import StoredRecords, json_records
from fetcher.stored.warc import StoredWARC

__all__ = ["open_stored"]

KINDS = "a .warc or .warc.gz, or a .jsonl, .parquet or .sqlite of ours with bodies"
SAMPLE_BYTES = 1024 * 1024  # of a file of lines, by which its rows are estimated: a line has a whole page
LOOKED_AT = 100  # records of JSON Lines: the columns of a failure are those of a page
_ROW_BYTES = 16  # of a line, for each byte of its body: "\u0000" takes six, and there is more in it than the body


def open_stored(
    path: str,
    *,
    max_size: int = 10 * 1024 * 1024,
    accept: Accept = Accept(),  # noqa: B008  (it is frozen)
    bodies: str | None = None,
    selected: Collection[str] = (),
) -> StoredFile:
    """Open a file with pages: an archive, or an output with bodies or with their folder ``bodies``.

    ``max_size`` is in bytes of a decoded body. ``accept`` says which statuses of other's archives are pages.
    ``selected`` are names of columns of a SQLite output that are of pages, not of the list. Raises ``SourceError``.
    """
    if is_store_url(path):
        raise SourceError(f"{path}: pages are read from a file on this machine: download it, and give the file")
    if os.path.isdir(path):
        return _folder(path, max_size, bodies)
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError as error:
        raise SourceError(
            f"{path}: {'no such file' if isinstance(error, FileNotFoundError) else error.strerror}"
        ) from None
    except ValueError:  # a NUL in the name
        raise SourceError(f"{path!r}: no such file") from None
    if head.startswith(b"PAR1"):
        return _parquet(path, [path], max_size, bodies)
    if head.startswith(b"SQLite format 3\0"):
        return _sqlite(path, max_size, bodies, selected)
    name = path.lower()
    if head.startswith(b"WARC/") or ".warc" in os.path.basename(name):
        if not head:
            raise SourceError(f"{path}: is empty, no WARC")
        return StoredWARC(path, max_size=max_size, accept=accept)
    if head.lstrip(b"\xef\xbb\xbf").startswith(b"{") or packing_of_data(head[:4]) == packing_of_path(path) is not None:
        return _jsonl(path, max_size, bodies)
    raise SourceError(f"{path}: {'is empty' if not head else 'holds no pages'}: give {KINDS}")


def _jsonl(path: str, max_size: int, bodies: str | None) -> StoredFile:
    def records(broken: PassedOverCounts) -> Iterator[Mapping[str, Any]]:
        return json_records(path, max_line=_ROW_BYTES * max_size, broken=broken)

    names: dict[str, None] = {}
    for record in islice(records(PassedOverCounts()), LOOKED_AT):
        names |= dict.fromkeys(record)
    if not names:
        raise SourceError(f"{path}: holds no pages: give {KINDS}")
    total = _estimated_lines(path)
    return StoredRecords(path, records, names, own={}, max_size=max_size, bodies=bodies, total=total)


def _estimated_lines(path: str) -> int | None:
    """Return about how many lines a file has, by its first ``SAMPLE_BYTES``.

    ``None`` where none ends there, and for a file that is packed.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(SAMPLE_BYTES)
            size = os.fstat(file.fileno()).st_size
    except OSError:  # whoever reads it will say so
        return None
    end = start.rfind(b"\n") + 1
    return round(start.count(b"\n") * size / end) if end and packing_of_data(start[:4]) is None else None


def _parquet(path: str, files: list[str], max_size: int, bodies: str | None) -> StoredFile:
    from fetcher.sources.parquet import count_parquet, parquet_fields, parquet_names, parquet_records

    def records(broken: PassedOverCounts) -> Iterator[Mapping[str, Any]]:  # noqa: ARG001  (such a file is whole, or none)
        for file in files:
            yield from parquet_records(file)

    return StoredRecords(
        path,
        records,
        parquet_names(files[0]),
        own=parquet_fields(files[0]),
        max_size=max_size,
        bodies=bodies,
        total=sum(map(count_parquet, files)),
    )


def _folder(path: str, max_size: int, bodies: str | None) -> StoredFile:
    files = sorted(glob.glob(os.path.join(glob.escape(path), "part-*.parquet")))
    if not files:
        raise SourceError(f"{path}: is a folder without part-*.parquet; give a file: {KINDS}")
    return _parquet(path, files, max_size, bodies)


def _sqlite(path: str, max_size: int, bodies: str | None, selected: Collection[str]) -> StoredFile:
    import sqlite3

    from fetcher.sources.sqlite import count_sqlite, sqlite_names, sqlite_records

    def records(broken: PassedOverCounts) -> Iterator[Mapping[str, Any]]:  # noqa: ARG001  (such a file is whole, or none)
        return sqlite_records(path, max_body=max_size)

    try:
        names, total = sqlite_names(path), count_sqlite(path)
    except sqlite3.Error as error:
        raise SourceError(f"{path}: cannot be read: {error}") from None
    behind = names[names.index("host") + 1 :] if "host" in names else []
    of_pages = {*selected, *(f"data_{name}" for name in selected)}
    own = {name: name[4:] if name.startswith("row_") and name[4:] in names else name for name in behind}
    own = {name: field for name, field in own.items() if name not in of_pages}
    return StoredRecords(path, records, names, own=own, max_size=max_size, bodies=bodies, total=total)
