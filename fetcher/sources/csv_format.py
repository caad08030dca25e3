"""Reads CSV and TSV (RFC 4180, tabs for commas): a header, then a row of cells a record.

Laws: the URL is in the column of that name, the others are the row's fields, as text. Nothing is shifted
silently: a record with more cells than the header has is a bad row, for a comma that should have been quoted
may have cut its URL; missing cells are empty. A header cell that is empty or repeated gets a name of its own
(``column_3``, ``name_2``). A record is bounded, for a quote that is never closed would swallow the list.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator

from fetcher.errors import SourceError
from fetcher.model import Request
from fetcher.sources.lines import NOT_UTF8, TOO_LONG, OverlongLine, whole_lines
from fetcher.sources.rows import Row, RowNumbers, bad_row

__all__ = ["MAX_RECORD_BYTES", "read_csv"]

MAX_RECORD_BYTES = 1024 * 1024
"""Bytes that a record may have over all its lines."""


def read_csv(
    blocks: Iterator[bytes], *, name: str, numbers: RowNumbers, url_column: str, delimiter: str
) -> Iterator[Row]:
    """Yield the rows of a table; ``name`` is what messages call it.

    Raises ``SourceError`` with FILE:LINE for a NUL byte, for what ``csv`` cannot read and for a header
    without ``url_column`` (as written, or else in any case when that is unique).
    """
    reader = _RecordReader(blocks, name)
    records = reader.records(delimiter)
    header = next(records, None)
    if header is None:
        return
    where = f"{name}:{reader.first_line}"
    if reader.flaw:
        raise SourceError(f"{where}: the header {reader.flaw}")
    at = _find(url_column, header, where)
    columns = _distinct(header)
    url_key, width = columns[at], len(columns)
    for cells in records:
        extra = len(cells) - width
        if extra:
            if extra > 0 and not any(cells[width:]):
                extra = 0
            cells.extend([""] * -extra)
        fields = dict(zip(columns, cells, strict=False))
        url = fields.pop(url_key).strip()
        if extra <= 0 and url and not reader.flaw:
            yield Request(next(numbers), url, (), fields or None)
            continue
        where = f"{name}:{reader.first_line}"
        if reader.flaw:
            flaw = f"{where}: the line {reader.flaw}"
        elif extra > 0:
            flaw = f"{where}: has {len(cells)} cells under {width} columns (a cell with {delimiter!r} in it is quoted)"
        else:
            flaw = f"{where}: no URL in column {url_key!r}"
        yield bad_row(next(numbers), reader.overlong or url, flaw, None if reader.overlong else fields or None)


class _RecordReader:
    """Read records with ``csv.reader``, knowing where the record under way began and what is wrong with its text."""

    def __init__(self, blocks: Iterator[bytes], name: str) -> None:
        self.first_line = 0  # of the record
        self.flaw = ""  # of its text; empty for none
        self.overlong = ""  # the start of a line that is too long: all that is known of its record
        self._name = name
        self._line = 0
        self._record_bytes = 0
        self._ended = False
        self._lines = self._read(blocks)

    def records(self, delimiter: str) -> Iterator[list[str]]:
        """Yield the cells of each record; lines that are blank outside of a cell are none."""
        reader = csv.reader(self._lines, delimiter=delimiter)
        while True:
            self.first_line = self._line + 1
            self._record_bytes = 0
            self.flaw = self.overlong = ""
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise SourceError(f"{self._name}:{self.first_line}: {_reason(error)}") from None
            if cells is None:
                return
            if self._ended:  # csv gives what it has when its lines end within a quoted cell
                raise SourceError(f"{self._name}:{self.first_line}: a quote is opened and never closed")
            if self.flaw or len(cells) > 1 or (cells and cells[0].strip()):
                yield cells

    def _read(self, blocks: Iterator[bytes]) -> Iterator[str]:
        for piece in whole_lines(blocks):
            if isinstance(piece, OverlongLine):
                self._line += 1
                self.flaw, self.overlong = TOO_LONG, piece.start.decode(errors="replace")
                # opens or closes a cell just as the line would have done
                yield '"\n' if piece.quotes % 2 else "\n"
                continue
            if (nul := piece.find(b"\0")) >= 0:
                line = self._line + piece.count(b"\n", 0, nul) + 1
                raise SourceError(f"{self._name}:{line}: has a NUL byte; this is no text")
            for raw in piece.split(b"\n"):
                self._line += 1
                self._record_bytes += len(raw)
                if self._record_bytes > MAX_RECORD_BYTES:
                    raise SourceError(f"{self._name}:{self.first_line}: a record of over 1 MiB; is a quote left open?")
                try:
                    line_text = raw.decode()
                except UnicodeDecodeError:
                    self.flaw = NOT_UTF8
                    line_text = raw.decode(errors="replace")
                yield line_text + "\n"
        self._ended = True


def _reason(error: csv.Error) -> str:
    """Return in our words what ``csv`` says."""
    text = str(error)
    if text.startswith("new-line character"):
        return "has a carriage return within (lines end in LF or CRLF)"
    if text.startswith("field larger"):
        return "a cell is too large; is a quote left open?"
    return text


def _find(url_column: str, header: list[str], where: str) -> int:
    """Return the index of the URL's column."""
    names = [cell.strip() for cell in header]
    if url_column in names:
        return names.index(url_column)
    alike = [at for at, cell in enumerate(names) if cell.lower() == url_column.lower()]
    if len(alike) == 1:
        return alike[0]
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    problem = f"several columns are called {url_column!r}" if alike else f"there is no column {url_column!r}"
    raise SourceError(f"{where}: {problem}; the columns are: {shown}")


def _distinct(header: list[str]) -> list[str]:
    """Return a name for each column, none of them twice."""
    listed = {cell.strip() for cell in header}
    used: set[str] = set()
    suffixes: dict[str, int] = {}
    columns: list[str] = []
    for at, cell in enumerate(header, 1):
        column = base = cell.strip() or f"column_{at}"
        while column in used or (column in listed and column != cell.strip()):
            suffixes[base] = suffixes.get(base, 1) + 1
            column = f"{base}_{suffixes[base]}"
        used.add(column)
        columns.append(column)
    return columns
