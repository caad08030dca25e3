"""Reads CSV (RFC 4180) and TSV (IANA text/tab-separated-values): a header, then a row of cells a record.

Laws: the URL is in the column of that name, the others are the row's fields, as text. Nothing is shifted or changed
silently: a record with more cells than the header has is a bad row, for a comma that should have been quoted
may have cut its URL, and so is one with text after a closing quote; missing cells are empty. TSV has no quoting: a
quote is data. A header cell that is empty or repeated gets a name of its own (``column_3``, ``name_2``). A record is
bounded, for a quote that is never closed would swallow the list.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import chain

from fetcher.errors import SourceError
from fetcher.model import Request
from fetcher.sources.lines import NOT_UTF8, TOO_LONG, OverlongLine, whole_lines
from fetcher.sources.list_options import ListOptions
from fetcher.sources.rows import BYTE_ORDER_MARK, Row, RowNumbers, bad_row, read_url
from fetcher.stats import counted

__all__ = ["MAX_RECORD_BYTES", "read_csv"]

MAX_RECORD_BYTES = 1024 * 1024
"""Bytes that a record may have over all its lines."""

MISQUOTED = "has text after a closing quote (a quote within a quoted cell is doubled)"
_MARK = BYTE_ORDER_MARK.encode()
_NEVER_CLOSED = "a quote is opened and never closed"


def read_csv(
    blocks: Iterator[bytes], *, name: str, numbers: RowNumbers, options: ListOptions, kind: str = "csv"
) -> Iterator[Row]:
    """Yield the rows of a table; ``name`` is what messages call it, ``kind`` is ``csv`` or ``tsv``.

    Raises ``SourceError`` with FILE:LINE for a NUL byte, for what ``csv`` cannot read and for a header
    without ``url_column`` (as written, or else in any case when that is unique).
    """
    quoted, url_column = kind == "csv", options.url_column or "url"
    delimiter = "," if quoted else "\t"
    reader = _RecordReader(blocks, name, delimiter, quoted=quoted)
    records = reader.records()
    header = next(records, None)
    if header is None:
        return
    where = f"{name}:{reader.first_line}"
    if reader.flaw:
        raise SourceError(f"{where}: the header {reader.flaw}")
    at = _find(url_column, header, where, quoted=quoted)
    columns = _distinct(header)
    url_key, width = columns[at], len(columns)
    for cells in records:
        extra = len(cells) - width
        if extra:
            if extra > 0 and not any(cells[width:]):
                extra = 0
            cells.extend([""] * -extra)
        fields = dict(zip(columns, cells, strict=False))
        url, within = read_url(fields.pop(url_key))
        if extra <= 0 and url and not within and not reader.flaw:
            yield Request(next(numbers), url, (), fields or None)
            continue
        where = f"{name}:{reader.first_line}"
        if reader.flaw:
            flaw = f"{where}: the line {reader.flaw}"
        elif extra > 0:
            hint = f"a cell with {delimiter!r} in it is quoted" if quoted else "in TSV a tab always ends a cell"
            flaw = f"{where}: has {counted(len(cells), 'cell')} under {counted(width, 'column')} ({hint})"
        elif within:
            flaw = f"{where}: the URL {within}"
        else:
            flaw = f"{where}: no URL in column {url_key!r}"
        yield bad_row(next(numbers), reader.unread or url, flaw, None if reader.unread else fields or None)


class _RecordReader:
    """Read records with ``csv.reader``, knowing where the record under way began and what is wrong with its text."""

    def __init__(self, blocks: Iterator[bytes], name: str, delimiter: str, *, quoted: bool) -> None:
        self.first_line = 0  # of the record
        self.flaw = ""  # of its text; empty for none
        self.unread = ""  # its text, or the start of it, where nobody can tell its cells
        self._name = name
        self._delimiter = delimiter
        self._quoted = quoted
        self._line = 0
        self._record_bytes = 0
        self._record: list[str] = []  # the lines that were read of it
        self._ended = False
        self._lines = self._read(blocks)

    def records(self) -> Iterator[list[str]]:
        """Yield the cells of each record; lines that are blank outside of a cell are none."""
        reader = csv.reader(
            self._lines,
            delimiter=self._delimiter,
            quoting=csv.QUOTE_MINIMAL if self._quoted else csv.QUOTE_NONE,
            strict=True,
        )
        while True:
            self.first_line = self._line + 1
            self._record_bytes = 0
            self._record.clear()
            self.flaw = self.unread = ""
            try:
                cells = next(reader, None)
            except csv.Error as error:
                cells = self._read_misquoted(error)
            if cells is None:
                return
            if self.flaw or len(cells) > 1 or (cells and cells[0].strip()):
                yield cells

    def _read_misquoted(self, error: csv.Error) -> list[str]:
        """Go to the end of a record that has text after a closing quote: to where a lenient reader takes it to end.

        Raises ``SourceError`` for everything else that is wrong.
        """
        if "expected after" in str(error):
            self.flaw = self.flaw or MISQUOTED
            try:
                # It asks for further lines only after those that are there.
                cells = next(csv.reader(chain(tuple(self._record), self._lines), delimiter=self._delimiter))
            except csv.Error as other:
                error = other
            else:
                if not self._ended:
                    self.unread = self.unread or "".join(self._record)
                    return cells
        # At their end the one reader raises, and the other gives what it has.
        reason = _NEVER_CLOSED if self._ended else _reason(error)
        raise SourceError(f"{self._name}:{self.first_line}: {reason}") from None

    def _read(self, blocks: Iterator[bytes]) -> Iterator[str]:
        for piece in whole_lines(blocks):
            if isinstance(piece, OverlongLine):
                self._line += 1
                self.flaw, self.unread = TOO_LONG, piece.start.decode(errors="replace")
                # opens or closes a cell just as the line would have done
                self._record.append('"\n' if self._quoted and piece.quotes % 2 else "\n")
                yield self._record[-1]
                continue
            if (nul := piece.find(b"\0")) >= 0:
                line = self._line + piece.count(b"\n", 0, nul) + 1
                raise SourceError(f"{self._name}:{line}: has a NUL byte; this is no text")
            marked = _MARK in piece  # of several files put together
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
                if marked and not self._record:
                    line_text = line_text.removeprefix(BYTE_ORDER_MARK)
                line_text += "\n"
                self._record.append(line_text)
                yield line_text
        self._ended = True


def _reason(error: csv.Error) -> str:
    """Return in our words what ``csv`` says."""
    text = str(error)
    if text.startswith("new-line character"):
        return "has a carriage return within (lines end in LF or CRLF)"
    if text.startswith("field larger"):
        return "a cell is too large; is a quote left open?"
    return text


def _find(url_column: str, header: list[str], where: str, *, quoted: bool) -> int:
    """Return the index of the URL's column."""
    names = [cell.strip() for cell in header]
    if url_column in names:
        return names.index(url_column)
    alike = [at for at, cell in enumerate(names) if cell.lower() == url_column.lower()]
    if len(alike) == 1:
        return alike[0]
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    problem = f"several columns are called {url_column!r}" if alike else f"there is no column {url_column!r}"
    hint = " (TSV has no quoting)" if not quoted and f'"{url_column}"' in names else ""
    raise SourceError(f"{where}: {problem}; the columns are: {shown}{hint}")


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
