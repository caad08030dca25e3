"""Where rows of a Parquet output stand once they are whole: one file, or the parts of a folder.

Law 6: a footer cannot be cut back, so a file is written under another name, synced, and only renamed when the ledger
knows of it: what is seen under its own name is whole and committed. Law 2: a file that is not as it was written is
refused and left as it is, and so is one that somebody else has put there.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import zlib
from collections.abc import Iterable
from itertools import chain, islice
from typing import Any

import msgspec

from fetcher.errors import ConfigError, SinkError
from fetcher.files import PLAIN_FLAGS, create_like, move, open_regular, read_range, sync, sync_folder_of
from fetcher.sinks.job_output import Batch, KeptRecords
from fetcher.sinks.opening import RESTORE_ADVICE, already_exists, moved_error
from fetcher.sinks.parquet import ParquetTable, TableFile, ids_in, table_in, tables_in

__all__ = ["FileMark", "PartFolder", "WholeFile", "check_parts", "remove_table"]

TAIL_BYTES = 64 * 1024 * 1024
"""Of a file's end: what is looked at when a job is gone on with."""

_PART = re.compile(r"part-([0-9]{5,9})\.parquet", re.ASCII)
_JOINING = re.compile(r"\.part-([0-9]{5,9})\.parquet\.joining", re.ASCII)
WHOLE_NAME = "whole.parquet"


class FileMark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The single file as it was written."""

    size: int
    checksum: int
    tail: int
    """CRC-32 of its last ``TAIL_BYTES``."""
    rows: int


class WholeFile:
    """The single file at ``path``, which is written anew whenever rows are added.

    ``mark`` is what it is, ``None`` where there is none yet. Raises ``ValueError`` for a file that was changed.
    """

    part_rows: int | None = None

    def __init__(self, path: str) -> None:
        self.path = path
        self.mark: FileMark | None = None
        self._target = os.path.realpath(path)
        folder, name = os.path.split(self._target)
        self._joining = os.path.join(folder, f".{name}.joining")
        self._unpublished = False
        self._seen: os.stat_result | None = None

    @property
    def lies_at(self) -> str:
        """Where its bytes are: under another name until ``publish``."""
        return self._joining if self._unpublished else self._target

    def create(self, *, fresh: bool) -> None:
        """See that the file can be made; ``fresh`` removes one with something in it. Raises ``ConfigError``."""
        self.check_folder()
        if (found := _regular(self._target)) is not None and found.st_size:
            if not fresh:
                raise already_exists(self.path)
            os.unlink(self._target)
        _unlink(self._joining)
        sync_folder_of(self._target)
        self.mark, self._unpublished, self._seen = None, False, None

    def check(self, mark: FileMark | None, *, thorough: bool) -> None:
        """Hold the file against ``mark``, changing nothing: its end, or all of it."""
        self.check_folder()
        self.mark, self._unpublished, self._seen = mark, False, None
        found = _regular(self._target)
        if mark is None:
            if found is not None and found.st_size:
                raise SinkError(
                    f"{self.path}: another program has put a file there: move it away, or begin again with --fresh"
                )
            return
        waiting = _regular(self._joining)
        if waiting is not None and waiting.st_size == mark.size and _checksum(self._joining) == mark.checksum:
            self._unpublished = True  # the ledger knows of it, and its name is the old one still
            self._seen = found
            return
        if found is None:
            raise SinkError(f"{self.path}: is missing: {RESTORE_ADVICE}")
        if found.st_size != mark.size:
            raise ValueError(f"{found.st_size} bytes, not {mark.size}")
        self._seen = found
        end = _checksum(self._target) if thorough else _checksum(self._target, TAIL_BYTES)
        if end != (mark.checksum if thorough else mark.tail):
            raise ValueError("its bytes are not those that were written")

    def open(self) -> None:
        """Finish what a kill has left undone, after a ``check``."""
        if self._unpublished:
            self.publish()
        else:
            _unlink(self._joining)

    def write(self, table: ParquetTable, tables: Iterable[Any]) -> None:
        """Write what there is and then ``tables`` to a file beside it, that ``publish`` puts in its place."""
        self.check_place()
        if self.mark is not None and self.mark.rows:
            if _checksum(self._target) != self.mark.checksum:
                raise ValueError("its bytes are not those that were written")
            tables = chain(tables_in(self._target, table), tables)
        size, checksum, rows = _write(self._joining, self._seen, table, tables)
        self.mark = FileMark(size, checksum, _checksum(self._joining, TAIL_BYTES), rows)
        self._unpublished = True

    def publish(self) -> None:
        """Put what was written in its place."""
        if self._unpublished:
            self.check_place()
            os.replace(self._joining, self._target)
            sync_folder_of(self._target)
            self._seen = os.stat(self._target)
            self._unpublished = False

    def check_place(self) -> None:
        """Raise ``SinkError`` unless the file at the path is the one that we know."""
        found = _regular(self._target)
        if self._seen is None:
            if found is not None and found.st_size:
                raise SinkError(f"{self.path}: another program has put a file there: {RESTORE_ADVICE}")
        elif found is None or not os.path.samestat(found, self._seen) or found.st_size != self._seen.st_size:
            raise (
                moved_error(self.path, self._seen)
                if found
                else SinkError(f"{self.path}: another program has moved or deleted it: {RESTORE_ADVICE}")
            )

    def rewrite(self, copy: str, rows: KeptRecords, table: ParquetTable) -> FileMark | None:
        """Write into the folder ``copy`` the file without the rows that are not kept; return what it is."""
        if self.mark is None or not self.mark.rows:
            return self.mark
        if _checksum(self._target) != self.mark.checksum:
            raise ValueError("its bytes are not those that were written")
        place = os.path.join(copy, WHOLE_NAME)
        kept = (table.chosen(group, rows.of(table.ids(group))) for group in tables_in(self._target, table))
        size, checksum, many = _write(place, self._seen, table, kept)
        return FileMark(size, checksum, _checksum(place, TAIL_BYTES), many)

    def take(self, source: str, name: str) -> None:
        """Put the file that ``rewrite`` made in its place."""
        if name != WHOLE_NAME:
            raise ValueError(f"{source} is not ours")
        move(source, self._target)

    def check_folder(self) -> None:
        """Raise ``SinkError`` unless files can be made and renamed beside the file."""
        folder = os.path.dirname(self._target)
        if not os.path.isdir(folder):
            raise SinkError(f"{self.path}: the folder {folder} does not exist")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise SinkError(f"{self.path}: cannot write: no permission to write in {folder}")


class PartFolder:
    """The folder at ``path``, of files ``part-00001.parquet`` with ``part_rows`` rows each, but for some.

    ``parts`` is how many there are, ``position`` their bytes. ``checksum`` is the CRC-32 of those that were written
    since ``begin``. Raises ``ValueError`` for one that was changed.
    """

    def __init__(self, path: str, part_rows: int) -> None:
        self.path = path
        self.part_rows = part_rows
        self.parts = self.position = self.checksum = 0
        self._folder = path.rstrip(os.sep) or os.sep
        self._unpublished: list[int] = []
        self._seen: os.stat_result | None = None

    def create(self, *, fresh: bool) -> None:
        """Make the folder, or take an empty one; ``fresh`` removes the parts in it. Raises ``ConfigError``."""
        try:
            os.mkdir(self._folder)
            sync_folder_of(self._folder)
        except FileExistsError:
            check_parts(self.path, fresh=fresh)
            for name in os.listdir(self._folder):
                if _PART.fullmatch(name) or _JOINING.fullmatch(name):
                    os.unlink(os.path.join(self._folder, name))
            self._sync()
        self.parts = self.position = self.checksum = 0
        self._unpublished = []
        self._seen = os.stat(self._folder)

    def check(self, parts: int, position: int, batches: Iterable[Batch]) -> None:
        """Hold the parts against their sizes and the checksums of ``batches``, changing nothing."""
        self.parts, self.position, self.checksum = parts, position, 0
        try:
            self._seen = os.stat(self._folder)
            names = os.listdir(self._folder)
        except FileNotFoundError:
            raise SinkError(f"{self.path}: is missing: {RESTORE_ADVICE}") from None
        found = {int(match[1]) for name in names if (match := _PART.fullmatch(name))}
        waiting = {int(match[1]) for name in names if (match := _JOINING.fullmatch(name))}
        self._unpublished = [number for number in range(1, parts + 1) if number in waiting and number not in found]
        for number in range(1, parts + 1):
            if number not in found and number not in waiting:
                raise ValueError(f"{_name(number)} is missing")
        if more := [number for number in found if not 1 <= number <= parts]:
            raise ValueError(f"{_name(min(more))} was added")
        sizes = [self._size_of(number) for number in range(1, parts + 1)]
        if sum(sizes) != position:
            raise ValueError(f"its parts have {sum(sizes)} bytes, not {position}")
        self._check_bytes(sizes, batches)

    def open(self) -> None:
        """Finish what a kill has left undone, after a ``check``."""
        self.publish()
        for name in os.listdir(self._folder):
            if _JOINING.fullmatch(name):
                os.unlink(os.path.join(self._folder, name))

    def write(self, table: ParquetTable, tables: Iterable[Any]) -> None:
        """Write ``tables`` to one more part, that ``publish`` gives its name."""
        number = self.parts + 1
        size, self.checksum, _ = _write(self._joining(number), None, table, tables, self.checksum)
        self.parts, self.position = number, self.position + size
        self._unpublished.append(number)

    def begin(self) -> None:
        """Begin a new checksum: what was written has its mark."""
        self.checksum = 0

    def publish(self) -> None:
        """Give the parts that were written their names."""
        for number in self._unpublished:
            part = self._part(number)
            if os.path.lexists(part):
                raise SinkError(f"{part}: another program has put a file there: {RESTORE_ADVICE}")
            os.replace(self._joining(number), part)
        if self._unpublished:
            self._sync()
        self._unpublished = []

    def check_place(self) -> None:
        """Raise ``SinkError`` unless the folder is the one that we know, with all parts in it."""
        found = os.stat(self._folder) if os.path.isdir(self._folder) else None
        if found is None or self._seen is None or not os.path.samestat(found, self._seen):
            raise SinkError(f"{self.path}: another program has moved, deleted or replaced it: {RESTORE_ADVICE}")
        for number in range(1, self.parts + 1):
            if number not in self._unpublished and _regular(self._part(number)) is None:
                raise SinkError(f"{self._part(number)}: another program has moved or deleted it: {RESTORE_ADVICE}")

    def rewrite(
        self, copy: str, rows: KeptRecords, table: ParquetTable, batches: Iterable[Batch]
    ) -> tuple[int, list[Batch]]:
        """Write into the folder ``copy`` the parts in which there are rows that are not kept, without these.

        Return their number, and what they are all made of then.
        """
        made: list[Batch] = []
        sizes = [self._size_of(number) for number in range(1, self.parts + 1)]
        self._check_bytes(sizes, batches)
        for number, old_size in enumerate(sizes, 1):
            part = self._part(number)
            mask = rows.of(ids_in(part))
            if all(mask):
                size, checksum = old_size, _checksum(part)
            else:
                turns = iter(mask)
                kept = (table.chosen(group, list(islice(turns, group.num_rows))) for group in tables_in(part, table))
                size, checksum, _ = _write(os.path.join(copy, _name(number)), os.stat(part), table, kept)
            start = made[-1].end if made else 0
            made.append(Batch(start, start + size, checksum))
        return self.parts, made

    def take(self, source: str, name: str) -> None:
        """Put a part that ``rewrite`` made in its place."""
        if not _PART.fullmatch(name):
            raise ValueError(f"{source} is not ours")
        move(source, os.path.join(self._folder, name))

    def _check_bytes(self, sizes: list[int], batches: Iterable[Batch]) -> None:
        """Read the bytes of ``batches``, which go over parts that lie one behind the other."""
        for start, end, checksum in batches:
            found = begin = 0
            for number, size in enumerate(sizes, 1):
                low, high = max(start, begin), min(end, begin + size)
                if low < high:
                    found = _checksum_of_range(self._place(number), low - begin, high - begin, found)
                begin += size
            if found != checksum:
                raise ValueError("the bytes of its parts are not those that were written")

    def _size_of(self, number: int) -> int:
        found = _regular(self._place(number))
        if found is None:
            raise ValueError(f"{_name(number)} is missing")
        return found.st_size

    def _place(self, number: int) -> str:
        return self._joining(number) if number in self._unpublished else self._part(number)

    def _part(self, number: int) -> str:
        return os.path.join(self._folder, _name(number))

    def _joining(self, number: int) -> str:
        return os.path.join(self._folder, f".{_name(number)}.joining")

    def _sync(self) -> None:
        sync_folder_of(os.path.join(self._folder, "part"))


def check_parts(path: str, *, fresh: bool) -> None:
    """Check, changing nothing, that parts can be written to the folder that is at ``path``.

    Raises ``ConfigError`` where it holds anything else, or parts that are not to be overwritten.
    """
    folder = path.rstrip(os.sep) or os.sep
    if not os.path.isdir(folder):
        raise SinkError(f"{path}: is no folder: leave out the / at its end to write one file")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise SinkError(f"{path}: cannot write: no permission to write in {folder}")
    for name in sorted(os.listdir(folder)):
        if _PART.fullmatch(name):
            if not fresh:
                raise already_exists(os.path.join(folder, name))
        elif not name.startswith((".", "_")):  # what others leave beside a table, and its readers pass over
            raise ConfigError(f"{path}: holds {name!r}, which is no part of ours: name a new or an empty folder")


def remove_table(path: str, name: str) -> None:
    """Remove the child table ``name`` at ``path``, a file or a folder of parts, where it is ours."""
    if os.path.isdir(path):
        parts = [os.path.join(path, part) for part in os.listdir(path) if _PART.fullmatch(part)]
        parts = [part for part in parts if table_in(part) == name]
        for part in parts:
            os.unlink(part)
        if parts:
            with contextlib.suppress(OSError):  # there is something else in it
                os.rmdir(path)
    elif table_in(path) == name:
        os.unlink(path)


def _name(number: int) -> str:
    return f"part-{number:05}.parquet"


def _write(
    path: str, like: os.stat_result | None, table: ParquetTable, tables: Iterable[Any], checksum: int = 0
) -> tuple[int, int, int]:
    """Write a file and sync it; return its size, its CRC-32 (begun at ``checksum``) and how many rows it has."""
    if like is None:
        _unlink(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | PLAIN_FLAGS, 0o666)
    else:
        descriptor = create_like(path, like)
    try:
        file = TableFile(descriptor, table, checksum)
        try:
            for each in tables:
                file.add(each)
            file.close()
        except BaseException:
            file.abandon()
            raise
        sync(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):  # one that is left is made anew
            os.unlink(path)
        raise
    finally:
        os.close(descriptor)
    return file.size, file.checksum, file.rows


def _checksum(path: str, last: int | None = None) -> int:
    """Return the CRC-32 of a file, or of its ``last`` bytes."""
    size = os.stat(path).st_size
    return _checksum_of_range(path, 0 if last is None else max(0, size - last), size, 0)


def _checksum_of_range(path: str, start: int, end: int, checksum: int) -> int:
    descriptor = open_regular(path, os.O_RDONLY)
    try:
        for block in read_range(descriptor, start, end):
            checksum = zlib.crc32(block, checksum)
    finally:
        os.close(descriptor)
    return checksum


def _regular(path: str) -> os.stat_result | None:
    """Return what is at a path, ``None`` for nothing. Raises ``SinkError`` for anything but a regular file."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise SinkError(f"{path}: is no regular file: nothing that is written there could be cut back")
    return found


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
