"""Reads CSV (RFC 4180) and TSV (IANA text/tab-separated-values): a header, then a row of cells a record.

Laws: the URL is in the column of that name, the others are the row's fields, as text. Nothing is shifted or changed
silently: a record with more cells than the header has is a bad row, for a comma that should have been quoted
may have cut its URL, and so is one with text after a closing quote; missing cells are empty. TSV has no quoting: a
quote is data. A header cell that is empty or repeated gets a name of its own (``column_3``, ``name_2``). A record is
bounded, for a quote that is never closed would swallow the list.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

from fetcher.errors import SourceError
from fetcher.model import Request
from fetcher.sources.columns import ColumnError, distinct, find_carried, find_url, is_record, looks_like_url
from fetcher.sources.delimiters import find_delimiter
from fetcher.sources.inputs import ListOptions
from fetcher.sources.lines import TOO_LONG, ListEncoding, OverlongLine, replaced, whole_lines
from fetcher.sources.rows import BYTE_ORDER_MARK, Row, RowNumbers, bad_row, flaw_within, read_url
from fetcher.stats import counted

__all__ = ["MAX_RECORD_CHARACTERS", "csv_names", "read_csv"]

MAX_RECORD_CHARACTERS = 1024 * 1024
"""Characters that a record may have over all its lines."""

MISQUOTED = "has text after a closing quote (a quote within a quoted cell is doubled)"
_MARK = BYTE_ORDER_MARK.encode()
_NEVER_CLOSED = "a quote is opened and never closed"


def read_csv(
    blocks: Iterator[bytes],
    *,
    name: str,
    numbers: RowNumbers,
    options: ListOptions,
    encoding: ListEncoding,
    kind: str = "csv",
) -> Iterator[Row]:
    """Yield the rows of a table; ``name`` is what messages call it, ``kind`` is ``csv`` or ``tsv``.

    Raises ``SourceError`` with FILE:LINE for a NUL byte, for what ``csv`` cannot read and for a header
    without the column of the URL (see ``find_url``) or one that is to be carried.
    """
    quoted, delimiter, skipped = kind == "csv", "\t", 0
    if quoted:
        delimiter, skipped, blocks = find_delimiter(blocks, options.delimiter, options.url_column)
    reader = _RecordReader(blocks, name, delimiter, encoding, quoted=quoted, line=skipped)
    records = reader.records()
    header = next(records, None)
    if header is None:
        return
    where = f"{name}:{reader.first_line}"
    if reader.flaw and not reader.undecodable:
        raise SourceError(f"{where}: the header {reader.flaw}")
    header = list(map(replaced, header))
    table = _table(header, options, where, quoted=quoted)
    if table is None:  # the first record is a URL, and no header
        records, table = chain([header], records), _Table(["url"], 0, None)
    columns, at, pick, width = table.columns, table.url_at, table.pick, len(table.columns)
    url_key = columns[at]
    for cells in records:
        extra = len(cells) - width
        if extra:
            if extra > 0 and not any(cells[width:]):
                extra = 0
            cells.extend([""] * -extra)
        if pick is None:
            fields = dict(zip(columns, cells, strict=False))
            url, within = read_url(fields.pop(url_key))
        else:
            listed, fields = pick(cells)
            url, within = read_url(listed)
        if extra <= 0 and url and not within and not reader.flaw:
            yield Request(next(numbers), url, (), fields or None)
            continue
        yield _judged(next(numbers), cells, (url, fields or None), reader, table)


def csv_names(
    blocks: Iterator[bytes], *, name: str, options: ListOptions, encoding: ListEncoding, kind: str = "csv"
) -> list[str]:
    """Return the cells of the header, none where the table is empty. Raises ``SourceError``."""
    delimiter = "\t"
    if kind == "csv":
        delimiter, _, blocks = find_delimiter(blocks, options.delimiter, options.url_column)
    reader = _RecordReader(blocks, name, delimiter, encoding, quoted=kind == "csv", line=0)
    return next(reader.records(), [])


def _judged(
    number: int, cells: list[str], found: tuple[str, dict[str, Any] | None], reader: _RecordReader, table: _Table
) -> Row:
    """Return a row that has something wrong with it; what was found are its URL and its fields."""
    url, fields = found
    width = len(table.columns)
    flaw = f"the line {reader.flaw}" if reader.flaw else ""
    if reader.undecodable:  # which costs the row only where it is in the URL
        flaw = f"the URL {reader.flaw}" if url != replaced(url) else ""
        url, fields = replaced(url), {key: replaced(value) for key, value in (fields or {}).items()} or None
    if not flaw and len(cells) > width and any(cells[width:]):
        in_cell = (
            f"a cell with {reader.delimiter!r} in it is quoted" if reader.quoted else "in TSV a tab always ends a cell"
        )
        flaw = f"has {counted(len(cells), 'cell')} under {counted(width, 'column')} ({in_cell})"
    if not flaw and not url:
        flaw = f"no URL in column {table.columns[table.url_at]!r}"
    if not flaw and (within := flaw_within(url)):
        flaw = f"the URL {within}"
    if not flaw:
        return Request(number, url, (), fields)
    flaw = f"{reader.name}:{reader.first_line}: {flaw}"
    return bad_row(number, reader.unread or url, flaw, None if reader.unread else fields)


class _Table(NamedTuple):
    """The columns of a table; ``pick`` makes the fields of cells where they are not simply all but the URL."""

    columns: list[str]
    url_at: int
    pick: Callable[[list[str]], tuple[str, dict[str, Any]]] | None


def _table(header: list[str], options: ListOptions, where: str, *, quoted: bool) -> _Table | None:
    """Return what the header says, ``None`` where there is none. Raises ``SourceError``."""
    if is_record(header):
        return _table_of_records(header, options, where)
    columns = distinct(header)
    try:
        at, _ = find_url(header, options.url_column)
        chosen = None if options.carry is None else find_carried(header, options.carry)
    except ColumnError as error:
        if options.url_column is None and _has_no_header(header, where):
            return None
        plain = (options.url_column or "url").strip()
        hint = " (TSV has no quoting)" if not quoted and any(cell.strip() == f'"{plain}"' for cell in header) else ""
        raise SourceError(f"{where}: {error}{hint}") from None
    if chosen is None:
        return _Table(columns, at, None)
    picked = [(columns[index], index) for index in chosen if index != at]
    return _Table(columns, at, lambda cells: (cells[at], {name: cells[index] for name, index in picked}))


def _table_of_records(header: list[str], options: ListOptions, where: str) -> _Table:
    """Return the columns of an output of ours. Raises ``SourceError``."""
    from fetcher.sources.records import RecordTable, original_cells

    columns = original_cells(header)
    try:
        at, _ = find_url(columns, options.url_column)
    except ColumnError as error:
        raise SourceError(f"{where}: {error}") from None
    table, carry = RecordTable(columns), options.carry

    def pick(cells: list[str]) -> tuple[str, dict[str, Any]]:
        record = dict(zip(columns, original_cells(cells), strict=False))
        return record[columns[at]], table.fields_of(record, carry)

    return _Table(columns, at, pick)


def _has_no_header(first: list[str], where: str) -> bool:
    """Tell whether the first record is a URL and nothing else, for then there is no header, and it is a row.

    Raises ``SourceError`` where it has further cells: nobody can tell whether they are a part of the URL.
    """
    filled = [cell for cell in first if cell.strip()]
    if not any(map(looks_like_url, filled)):
        return False
    if len(first) == 1:
        return True
    raise SourceError(
        f"{where}: has a URL where the names of the columns belong; put a line such as name,url before it, "
        "or say --from txt (one URL a line)"
    )


class _RecordReader:
    """Read records with ``csv.reader``, knowing where the record under way began and what is wrong with its text."""

    def __init__(
        self,
        blocks: Iterator[bytes],
        name: str,
        delimiter: str,
        encoding: ListEncoding,
        *,
        quoted: bool,
        line: int,
    ) -> None:
        self.delimiter = delimiter
        self.quoted = quoted
        self.undecodable = False  # it has bytes of another encoding, each of them a lone surrogate now
        self.first_line = 0  # of the record
        self.flaw = ""  # of its text; empty for none
        self.unread = ""  # its text, or the start of it, where nobody can tell its cells
        self.name = name
        self._encoding = encoding
        self._mended = quoted and not delimiter.isspace()
        self._blank, self._blanks = f'{delimiter} "', f"{delimiter}  "  # what a blank before a quoted cell looks like
        self._line = line
        self._record_characters = 0
        self._record: list[str] = []  # the lines that were read of it
        self._ended = False
        self._lines = self._read(blocks)

    def records(self) -> Iterator[list[str]]:
        """Yield the cells of each record; lines that are blank outside of a cell are none."""
        reader = csv.reader(
            self._lines,
            delimiter=self.delimiter,
            quoting=csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE,
            strict=True,
        )
        while True:
            self.first_line = self._line + 1
            self._record_characters = 0
            self._record.clear()
            if self.flaw:
                self.flaw = self.unread = ""
                self.undecodable = False
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
            self.flaw = MISQUOTED if self.undecodable else self.flaw or MISQUOTED
            self.undecodable = False
            try:
                # It asks for further lines only after those that are there.
                cells = next(csv.reader(chain(tuple(self._record), self._lines), delimiter=self.delimiter))
            except csv.Error as other:
                error = other
            else:
                if not self._ended:
                    self.unread = self.unread or replaced("".join(self._record))
                    return cells
        # At their end the one reader raises, and the other gives what it has.
        reason = _NEVER_CLOSED if self._ended else _reason(error)
        raise SourceError(f"{self.name}:{self.first_line}: {reason}") from None

    def _read(self, blocks: Iterator[bytes]) -> Iterator[str]:
        for piece in whole_lines(blocks):
            if isinstance(piece, OverlongLine):
                self._line += 1
                self.undecodable = False
                self.flaw, self.unread = TOO_LONG, piece.start.decode(errors="replace")
                # opens or closes a cell just as the line would have done
                self._record.append('"\n' if self.quoted and piece.quotes % 2 else "\n")
                yield self._record[-1]
                continue
            if (nul := piece.find(b"\0")) >= 0:
                line = self._line + piece.count(b"\n", 0, nul) + 1
                raise SourceError(f"{self.name}:{line}: has a NUL byte; this is no text")
            lines: Iterable[str]
            try:
                lines = piece.decode().split("\n")
            except UnicodeDecodeError:
                lines = map(self._decoded, piece.split(b"\n"))
            marked = _MARK in piece  # of several files put together
            blanks = self._mended and b' "' in piece
            for text in lines:
                self._line += 1
                self._record_characters += len(text)
                if self._record_characters > MAX_RECORD_CHARACTERS:
                    raise SourceError(f"{self.name}:{self.first_line}: a record of over 1 MiB; is a quote left open?")
                whole = f"{text}\n"
                if marked and not self._record:
                    whole = whole.removeprefix(BYTE_ORDER_MARK)
                if blanks and (self._blank in whole or self._blanks in whole or whole[0] == " "):
                    whole = self._without_blanks(whole)
                self._record.append(whole)
                yield whole
        self._ended = True

    def _decoded(self, raw: bytes) -> str:
        """Return the text of the line behind the one under way, a lone surrogate for each byte that is in no UTF-8."""
        try:
            return raw.decode()
        except UnicodeDecodeError:
            what = self._encoding.undecodable(self._line + 1)
            if not self.flaw:
                self.flaw, self.undecodable = what, True
            return raw.decode(errors="surrogateescape")

    def _without_blanks(self, line: str) -> str:
        """Take blanks off between a delimiter and the quote that opens a cell: else it would not open any.

        RFC 4180 has no such blank, and people write it. All other blanks are data.
        """
        parts = line.split('"')
        outside = sum(earlier.count('"') for earlier in self._record) % 2
        for at in range(outside, len(parts) - 1, 2):
            bare = parts[at].rstrip(" ")
            if bare.endswith(self.delimiter) or not (bare or at or self._record):
                parts[at] = bare
        return '"'.join(parts)


def _reason(error: csv.Error) -> str:
    """Return in our words what ``csv`` says."""
    text = str(error)
    if text.startswith("new-line character"):
        return "has a carriage return within (lines end in LF or CRLF)"
    if text.startswith("field larger"):
        return "a cell is too large; is a quote left open?"
    return text
