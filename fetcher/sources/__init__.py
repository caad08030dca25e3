"""Lists of URLs: files, stdin and URL arguments become numbered rows, one at a time.

Laws: every row of a list is yielded once, as a ``Request`` or, when there is no URL to try, as a ``BadRow``
(law 1); what is wrong with a list as a whole is a ``SourceError`` (law 2); a list is streamed, whatever its
size (law 3). Rows are numbered from 1 over all inputs; blank and comment lines are not counted.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import BinaryIO

from fetcher.compression import MAGIC_BYTES, packing_of_data
from fetcher.errors import SourceError
from fetcher.model import Request
from fetcher.sources.columns import is_record
from fetcher.sources.encoding import ListEncoding
from fetcher.sources.inputs import FILES, FORMATS, format_of, is_url_argument
from fetcher.sources.lines import list_name, open_list, reason_of
from fetcher.sources.list_options import DEFAULT_OPTIONS, ListOptions
from fetcher.sources.rows import BadRow, Row, RowNumbers
from fetcher.sources.text import read_text

__all__ = [
    "FORMATS",
    "BadRow",
    "ListOptions",
    "Row",
    "check",
    "estimate_rows",
    "has_free_fields",
    "is_url_argument",
    "read",
    "read_lists",
]

_MAX_COUNTED_BYTES = 200 * 1024 * 1024
_COUNT_READ_BYTES = 1024 * 1024


def read(
    inputs: Sequence[str],
    *,
    format: str | None = None,  # noqa: A002 - the name of the option
    url_column: str | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    carry: str | Sequence[str] | None = None,
    stdin: BinaryIO | None = None,
) -> Iterator[Row]:
    """Yield the rows of all ``inputs``, in order, opening each when it is reached.

    An input is a path, ``-`` for ``stdin`` (else the process's own), or a URL argument, which is one row.
    The options are those of ``ListOptions``; ``format`` (one of ``FORMATS``) wins over the suffixes, and gzip and zstd
    are undone wherever their first bytes show. Raises ``ConfigError`` for an option of no use, ``SourceError`` for a
    list that cannot be read, and at the end when no input had a row.

    >>> [row.id for row in read(["https://example.com/", "example.org"])]
    [1, 2]
    """
    options = ListOptions.of(format=format, url_column=url_column, delimiter=delimiter, encoding=encoding, carry=carry)
    return read_lists(inputs, options, stdin=stdin)


def read_lists(
    inputs: Sequence[str], options: ListOptions, *, stdin: BinaryIO | None = None
) -> Generator[Row, None, None]:
    """Yield the rows of all ``inputs``, as ``read`` does."""
    numbers = count(1)
    for source in inputs:
        yield from _rows(source, options, stdin, numbers)
    if next(numbers) == 1:
        raise SourceError(_nothing_in(inputs))


def check(inputs: Sequence[str], options: ListOptions = DEFAULT_OPTIONS) -> None:
    """Look into every input that can be looked into without using it up, and raise what ``read`` would.

    Regular files are read as far as their first row; of stdin, a pipe or a device no byte is taken. Raises
    ``SourceError``, also when there is not one row in all of the files and there is no other input.
    """
    found = False
    for source in inputs:
        if not is_url_argument(source):
            kind = format_of(source, options.format)
            if kind not in FILES and _is_stream(source):
                found = True
                continue
        with closing(_rows(source, options, None, count(1), silent=True)) as rows:
            found |= next(rows, None) is not None
    if not found:
        raise SourceError(_nothing_in(inputs))


def estimate_rows(inputs: Sequence[str], options: ListOptions = DEFAULT_OPTIONS) -> int | None:
    """Return about how many rows there are, from above, or ``None`` where that would cost a reading.

    Counts the lines, blank and comment lines too, of plain files in a format of lines, up to 200 MiB in all
    (some 0.1 s); ``None`` as soon as there is another input. For a progress bar: never raises.
    """
    rows = 0
    left = _MAX_COUNTED_BYTES
    for source in inputs:
        if is_url_argument(source):
            rows += 1
            continue
        try:
            kind = format_of(source, options.format)
            if kind in _TABLES or _is_stream(source):
                return None
            if kind in FILES:
                lines = _count_in_file(source, kind)
            else:
                left -= Path(source).stat().st_size
                lines = _count_lines(source) if left >= 0 else None
        except (OSError, ValueError, sqlite3.Error, SourceError):
            return None
        if lines is None:
            return None
        rows += lines
    return rows


_TABLES = frozenset({"csv", "tsv"})


def has_free_fields(inputs: Sequence[str], options: ListOptions = DEFAULT_OPTIONS) -> bool:
    """Tell whether a row may have other fields than the first one: JSON, and outputs of ours that hold them as JSON.

    Streams are not looked into. Never raises: what is wrong with a list is what ``check`` finds.
    """
    for source in inputs:
        try:
            kind = "txt" if is_url_argument(source) else format_of(source, options.format)
            if kind == "jsonl":
                return True
            if (
                kind != "txt"
                and not _is_stream(source)
                and is_record(names := header_of(source, kind, options))
                and "fields" in names
            ):
                return True
        except (OSError, ValueError, sqlite3.Error, SourceError):
            continue
    return False


def header_of(source: str, kind: str, options: ListOptions) -> list[str]:
    """Return the names of the columns of a table in a file."""
    if kind == "parquet":
        from fetcher.sources.parquet import parquet_names

        return parquet_names(source)
    if kind == "sqlite":
        from fetcher.sources.sqlite import sqlite_names

        return sqlite_names(source)
    from fetcher.sources.csv_format import csv_names

    encoding = ListEncoding(source, options.encoding, silent=True)
    with open_list(source, encoding=encoding, nul_allowed=True) as blocks:
        return csv_names(blocks, name=source, options=options, encoding=encoding, kind=kind)


def _rows(
    source: str, options: ListOptions, stdin: BinaryIO | None, numbers: RowNumbers, *, silent: bool = False
) -> Generator[Row, None, None]:
    """Yield the rows of one input."""
    if is_url_argument(source):
        yield Request(next(numbers), source.strip())
        return
    kind = format_of(source, options.format)
    name = list_name(source)
    if kind in FILES:
        yield from _rows_of_file(source, kind, options, numbers)
        return
    encoding = ListEncoding(name, options.encoding, silent=silent)
    with open_list(source, stdin=stdin, encoding=encoding, nul_allowed=kind in _TABLES) as blocks:
        try:
            if kind == "txt":
                yield from read_text(blocks, name=name, numbers=numbers, encoding=encoding)
            elif kind == "jsonl":
                from fetcher.sources.jsonl import read_jsonl

                yield from read_jsonl(blocks, name=name, numbers=numbers, options=options, encoding=encoding)
            else:
                from fetcher.sources.csv_format import read_csv

                yield from read_csv(blocks, name=name, numbers=numbers, options=options, encoding=encoding, kind=kind)
        except OSError as error:
            raise SourceError(f"{name}: at row {next(numbers)}: {reason_of(error)}") from error


def _rows_of_file(source: str, kind: str, options: ListOptions, numbers: RowNumbers) -> Iterator[Row]:
    """Yield the rows of a list that must be a file."""
    if _is_stream(source):
        raise SourceError(
            f"{list_name(source)}: {kind} is read from a file, for it cannot be read from its beginning on; save it as one"
        )
    if kind == "parquet":
        from fetcher.sources.parquet import read_parquet

        return read_parquet(source, numbers=numbers, options=options)
    from fetcher.sources.sqlite import read_sqlite

    return read_sqlite(source, numbers=numbers, options=options)


def _count_in_file(source: str, kind: str) -> int | None:
    """Return how many rows such a list says that it has."""
    if kind == "parquet":
        from fetcher.sources.parquet import count_parquet

        return count_parquet(source)
    from fetcher.sources.sqlite import count_sqlite

    return count_sqlite(source)


def _is_stream(source: str) -> bool:
    """Tell whether looking into an input would use it up: stdin, a pipe, a device."""
    if source == "-":
        return True
    try:
        mode = Path(source).stat().st_mode
    except (OSError, ValueError):
        return False
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return False
    if not os.access(source, os.R_OK):
        raise SourceError(f"{source}: permission denied")
    return True


def _count_lines(path: str) -> int | None:
    """Return the number of lines in a plain file, ``None`` for a compressed one."""
    lines = 0
    last = b"\n"
    with Path(path).open("rb", buffering=0) as file:
        while block := file.read(_COUNT_READ_BYTES):
            if not lines and packing_of_data(block[:MAGIC_BYTES]):
                return None
            lines += block.count(b"\n")
            last = block[-1:]
    return lines + (last != b"\n")


def _nothing_in(inputs: Sequence[str]) -> str:
    """Return what to say when there was not one row."""
    if not inputs:
        return "no list of URLs is given"
    more = f" and {len(inputs) - 1} more" if len(inputs) > 1 else ""
    return f"{list_name(inputs[0])}{more}: no URLs in {'them' if more else 'it'}"
