"""Parts in a store that are written again without some of their rows, one after the other.

Law 6: which rows leave which parts is written down before the first is touched; a part that is done with is told by
what stands beside it, so a kill in between goes on where it was. Law 3: the ids of one part are read at a time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import msgspec

from fetcher.files import sync, sync_folder_of
from fetcher.sinks.job_output import KeptRow
from fetcher.sinks.parts_on_disk import PartsOnDisk, packed
from fetcher.sinks.store_parts import PartLedger, PartMark, PartRow, part_name, write_sidecar
from fetcher.sinks.stored_parts import StoredParts
from fetcher.store.store import StoredObject, fetch

__all__ = ["PartActs", "PartRewriter", "planned_rewrites", "write_plan"]


def write_plan(copy: str, parts: Iterable[PartMark], rows: Iterator[KeptRow]) -> None:
    """Write down in the folder ``copy`` which ``rows`` of which ``parts``, in their order, are not kept. Raises ``ValueError``."""
    shutil.rmtree(copy, ignore_errors=True)
    os.mkdir(copy, 0o700)
    for part in parts:
        ids = array("q", (row.id if row.kept else -row.id for row in islice(rows, part.rows)))
        if len(ids) != part.rows:
            raise ValueError("fewer rows than its parts have")
        if any(id_ < 0 for id_ in ids):
            with open(os.path.join(copy, f"{part.number:09}.kept"), "wb") as file:
                file.write(ids.tobytes())
                file.flush()
                sync(file.fileno())
    if next(rows, None) is not None:
        raise ValueError("more rows than its parts have")
    sync_folder_of(os.path.join(copy, "file"))
    sync_folder_of(copy)


def planned_rewrites(copy: str) -> Iterator[tuple[int, array[int]]]:
    """Yield the number of each part that is to be rewritten, and its ids, those below nothing leave it; forget it then."""
    for name in sorted(os.listdir(copy)) if os.path.isdir(copy) else []:
        path = os.path.join(copy, name)
        ids = array("q")
        with open(path, "rb") as file:
            ids.frombytes(file.read())
        yield int(name.partition(".")[0]), ids
        os.unlink(path)
    shutil.rmtree(copy, ignore_errors=True)
    sync_folder_of(copy)


class PartActs(NamedTuple):
    """What an output does with a part: keeps its mark in the ledger, puts it, puts what stands beside it, or loses its rows."""

    keep: Callable[[PartMark], None]
    put: Callable[[PartMark], None]
    put_beside: Callable[[PartMark], None]
    lose: Callable[[PartMark], None]


class PartRewriter:
    """Rewrites parts: those here, and those that are fetched from the store for that."""

    def __init__(self, stored: StoredParts, disk: PartsOnDisk, ledger: PartLedger, acts: PartActs) -> None:
        self._stored = stored
        self._disk = disk
        self._ledger = ledger
        self._acts = acts

    def rewrite(self, part: PartMark, ids: array[int]) -> None:
        """Write a part without the rows whose ids are below nothing, and put it."""
        number = part.number
        kept = sum(id_ > 0 for id_ in ids)
        if part.rows == kept:
            return  # it was rewritten, and is put if it is here
        told = self._stored.sidecar(number)
        if told is not None and told[0].rows == kept and self._stored.matches(told[0]):
            self._acts.keep(told[0])
            self._disk.let_go(number)
            return
        rows = list(self._rows_that_stay(part, told, ids))
        if not self._disk.form.rewrites:
            self._rewrite_beside(msgspec.structs.replace(part, rows=kept), rows)
            return
        if not self._fetched(part):
            self._acts.lose(part)
            return
        made = self._without(part, ids, kept)
        write_sidecar(self._disk.beside(number), made, packed(rows))
        self._acts.keep(made)
        self._stored.there.setdefault(number, StoredObject(0, ""))
        self._acts.put(made)

    def _rewrite_beside(self, part: PartMark, rows: Iterable[PartRow]) -> None:
        """Write what stands beside a part that keeps its records."""
        self._acts.keep(part)
        write_sidecar(self._disk.beside(part.number), part, packed(rows))
        if not self._disk.has(part.number):  # else it is put with the part
            self._acts.put_beside(part)

    def _rows_that_stay(
        self, part: PartMark, told: tuple[PartMark, Iterator[PartRow]] | None, ids: array[int]
    ) -> Iterator[PartRow]:
        """Yield what is known of the rows that a part keeps: as beside it, or as in the ledger."""
        if told is not None and told[0].rows == part.rows:
            with contextlib.suppress(ValueError):
                rows = list(told[1])
                if [row.id for row in rows] == [abs(id_) for id_ in ids]:
                    yield from (row for row, id_ in zip(rows, ids, strict=True) if id_ > 0)
                    return
        yield from self._ledger.part_rows(part.first, part.last)

    def _fetched(self, part: PartMark) -> bool:
        """Have a part on this disk; say whether it is as it was written."""
        path = self._disk.path_of(part.number)
        if not self._disk.has(part.number):
            with contextlib.suppress(FileNotFoundError):
                fetch(self._stored.store, part_name(part.number, self._disk.form.suffix), f"{path}.new")
                os.replace(f"{path}.new", path)
        return self._disk.is_written(part)

    def _without(self, part: PartMark, ids: array[int], kept: int) -> PartMark:
        """Rewrite the file of a part on this disk; return what it is."""
        inner = self._disk.open(part.number)
        try:
            inner.resume(part.mark, clean=True)
            copy = f"{self._disk.path_of(part.number)}.copy"
            rewrite = inner.rewrite(copy, (KeptRow(abs(id_), id_ > 0) for id_ in ids), None)
            inner.adopt(copy, rewrite.mark, rewrite.batches)
            mark = inner.complete()
            size, checksum, tag = self._disk.facts_of(inner)
            inner.settle()
        finally:
            inner.discard()
            self._disk.clear_work(part.number)
        return PartMark(part.number, part.first, part.last, kept, size, checksum, tag, mark)
