"""The files of an output's parts on the disk of its job: the part under way, and those that are not in the store yet.

Law 6: a file is what a ledger's note says of it, or it is let go of. Law 3: rows are written and read some at a time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from itertools import islice

from fetcher.sinks.job_output import JobOutput
from fetcher.sinks.store_parts import (
    PartFormat,
    PartLedger,
    PartMark,
    PartRow,
    pack_rows,
    part_name,
    read_sidecar,
    write_sidecar,
)
from fetcher.store.store import tag_of

__all__ = ["PartsOnDisk", "packed", "see_sidecar"]

_ROWS_A_BLOCK = 1_000
_BLOCK_BYTES = 256 * 1024


class PartsOnDisk:
    """What lies in ``folder`` of the parts of a format, by their numbers. ``scheme`` is that of their store."""

    def __init__(self, folder: str, form: PartFormat, scheme: str) -> None:
        self.folder = folder
        self.form = form
        self._scheme = scheme

    def path_of(self, number: int) -> str:
        """Return where a part is."""
        return os.path.join(self.folder, part_name(number, self.form.suffix))

    def beside(self, number: int) -> str:
        """Return where its sidecar is."""
        return f"{self.path_of(number)}.rows"

    def open(self, number: int) -> JobOutput:
        """Return the output that a part is, until it is whole."""
        return self.form.open(self.path_of(number), self._work_of(number))

    def has(self, number: int) -> bool:
        """Say whether a part is here."""
        return os.path.exists(self.path_of(number))

    def is_written(self, part: PartMark) -> bool:
        """Say whether a part is here as it was written."""
        return self.has(part.number) and tag_of(self.path_of(part.number), self._scheme)[:2] == (
            part.size,
            part.checksum,
        )

    def facts_of(self, inner: JobOutput) -> tuple[int, int, str]:
        """Return size, checksum and tag of a part that was completed just now."""
        return tag_of(self.form.lies_at(inner), self._scheme)

    # Rows

    def add_rows(self, number: int, rows: Iterable[PartRow], *, anew: bool) -> None:
        """Write rows of the part under way behind those that it has, or ``anew``."""
        with open(self._rows_of(number), "wb" if anew else "ab") as file:
            file.writelines(packed(rows))

    def seal_rows(self, part: PartMark) -> None:
        """Make the sidecar of a part of the rows that were added to it."""
        write_sidecar(self.beside(part.number), part, _blocks_of(self._rows_of(part.number)) if part.rows else ())
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._rows_of(part.number))

    # After the end of a part, or of a run

    def clear_work(self, number: int) -> None:
        """Remove what a part was made of."""
        shutil.rmtree(self._work_of(number), ignore_errors=True)

    def let_go(self, number: int) -> None:
        """Remove a part, and what stands beside it."""
        path = self.path_of(number)
        for each in (path, self.beside(number), self._rows_of(number), *self.form.companions(path)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(each)

    def clear(self, number: int) -> None:
        """Remove what a run that was killed has left of a part that the ledger does not know."""
        self.let_go(number)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._joining(number))
        self.clear_work(number)

    def finish(self, parts: Iterable[PartMark]) -> None:
        """Put in order parts that were closed when a run was killed: each is whole, under its name or another."""
        for part in parts:
            joining = self._joining(part.number)
            if os.path.exists(joining):
                if tag_of(joining, self._scheme)[:2] == (part.size, part.checksum):
                    os.replace(joining, self.path_of(part.number))
                else:
                    os.unlink(joining)
            self.clear_work(part.number)
            if self.has(part.number) and not self.is_written(part):
                self.let_go(part.number)

    def _joining(self, number: int) -> str:
        folder, name = os.path.split(self.path_of(number))
        return os.path.join(folder, f".{name}.joining")

    def _rows_of(self, number: int) -> str:
        """Return where the rows of the part under way are: not synced, for the ledger has them."""
        return f"{self.path_of(number)}.under-way"

    def _work_of(self, number: int) -> str:
        return os.path.join(self.folder, f"part-{number:05}.work")


def see_sidecar(disk: PartsOnDisk, part: PartMark, ledger: PartLedger) -> None:
    """See that the sidecar of a part is here: one that is not whole is made of the ledger."""
    path = disk.beside(part.number)
    try:
        told, rows = read_sidecar(_blocks_of(path), part.number)
        if told == part and sum(1 for _ in rows) == part.rows:
            return
    except (FileNotFoundError, ValueError):
        pass
    write_sidecar(path, part, packed(ledger.part_rows(part.first, part.last)))


def packed(rows: Iterable[PartRow]) -> Iterator[bytes]:
    """Yield rows as they stand in a sidecar, some at a time."""
    left = iter(rows)
    while block := pack_rows(islice(left, _ROWS_A_BLOCK)):
        yield block


def _blocks_of(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block
