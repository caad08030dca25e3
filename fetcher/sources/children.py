"""The links and images of an output of ours, brought back to the records of their pages.

Law 3: what is brought back to one record is bounded. Law 2: rows beside a Parquet output that are of another run are a
``SourceError``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fetcher.errors import SourceError
from fetcher.sinks.child_tables import CHILD_TABLES, ChildTable, companion_path

__all__ = ["Companion", "companions_of", "items_of", "parts_of"]

MAX_ITEM_BYTES = 16 * 1024 * 1024
_ITEM_BYTES = 64  # that an item counts beside its texts


def items_of(child: ChildTable, rows: Iterable[Mapping[str, Any]], record: Mapping[str, Any]) -> list[Any] | None:
    """Return the rows of one page as the list that it had; ``None`` where it had none.

    That is told by the number of its links: a page without that has none either.
    """
    items: list[Any] = []
    left = MAX_ITEM_BYTES
    for row in rows:
        left -= _ITEM_BYTES + sum(len(value) for value in row.values() if isinstance(value, str))
        if left >= 0:
            items.append(child.item(row))
    return items if items or record.get("links") is not None else None


def parts_of(folder: str) -> list[str]:
    """Return the Parquet files of a folder, in the order in which they were written."""
    parts = [name for name in os.listdir(folder) if name.endswith(".parquet") and not name.startswith(".")]
    return [os.path.join(folder, name) for name in sorted(parts, key=lambda name: (len(name), name))]


class Companion:
    """The rows of a ``child`` table in Parquet ``files``, asked for page by page, in the order of the pages.

    With ``ids`` nothing is read but which pages have any.
    """

    def __init__(self, child: ChildTable, files: Sequence[str], *, ids: bool = False) -> None:
        self.child = child
        self._files = files
        self._rows = self._read_ids() if ids else self._read()
        self._next = next(self._rows, None)

    def items(self, record: Mapping[str, Any]) -> list[Any] | None:
        """Return what a page has, whose turn it is."""
        return items_of(self.child, self._take(record.get("id")), record)

    def holds(self, id_: Any) -> bool:
        """Return whether a page has any, whose turn it is."""
        return len(list(self._take(id_))) > 0

    def end(self, path: str) -> None:
        """See that nothing is left when the output at ``path`` has been read. Raises ``SourceError``."""
        if self._next is not None:
            raise SourceError(f"{self._files[0]}: is not of the same run as {path}: move it away")

    def _take(self, id_: Any) -> Iterator[dict[str, Any]]:
        while self._next is not None and self._next["id"] == id_:
            yield self._next
            self._next = next(self._rows, None)

    def _read(self) -> Iterator[dict[str, Any]]:
        from fetcher.sources.parquet import parquet_records

        for file in self._files:
            yield from parquet_records(file)

    def _read_ids(self) -> Iterator[dict[str, Any]]:
        from fetcher.sources.parquet import parquet_values

        for file in self._files:
            for (id_,) in parquet_values(file, ("id",)):
                yield {"id": id_}


def companions_of(path: str, *, ids: bool = False) -> list[Companion]:
    """Return what stands beside a Parquet output of ours, a file or a folder. Raises ``SourceError``."""
    from fetcher.sources.parquet import parquet_table

    found = []
    for child in CHILD_TABLES:
        place = companion_path(path, child.name)
        files = parts_of(place) if os.path.isdir(place) else [place] * os.path.isfile(place)
        if files and parquet_table(files[0]) == child.name:
            found.append(Companion(child, files, ids=ids))
    return found
