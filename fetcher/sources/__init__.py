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
from itertools import count, repeat
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from fetcher.compression import MAGIC_BYTES, packing_of_data
from fetcher.errors import SourceError
from fetcher.model import Request
from fetcher.sources.inputs import DEFAULT_OPTIONS, FILES, FORMATS, ListOptions, format_of, is_url_argument, is_url_list
from fetcher.sources.lines import ListEncoding, list_name, open_list, reason_of, text_blocks
from fetcher.sources.rows import BadRow, Row, RowNumbers
from fetcher.sources.text import read_text
from fetcher.store import is_store_url
from fetcher.urls import without_userinfo

if TYPE_CHECKING:
    from fetcher.sources.network import NetworkLists

__all__ = [
    "FORMATS",
    "BadRow",
    "ListOptions",
    "Row",
    "check",
    "estimate_rows",
    "has_free_fields",
    "is_url_argument",
    "is_url_list",
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
    network: NetworkLists | None = None,
) -> Iterator[Row]:
    """Yield the rows of all ``inputs``, in order, opening each when it is reached.

    An input is a path, ``-`` for ``stdin`` (else the process's own), or a URL argument, which is one row, or with a
    ``format`` a list that ``network`` fetches, blocking (``Fetcher.read`` does both for an event loop).
    The options are those of ``ListOptions``; ``format`` (one of ``FORMATS``) wins over the suffixes, and gzip and zstd
    are undone wherever their first bytes show. Raises ``ConfigError`` for an option of no use, ``SourceError`` for a
    list that cannot be read, and at the end when no input had a row.

    >>> [row.id for row in read(["https://example.com/", "example.org"])]
    [1, 2]
    """
    options = ListOptions.of(format=format, url_column=url_column, delimiter=delimiter, encoding=encoding, carry=carry)
    return read_lists(inputs, options, stdin=stdin, network=network)


def read_lists(
    inputs: Sequence[str],
    options: ListOptions,
    *,
    stdin: BinaryIO | None = None,
    network: NetworkLists | None = None,
) -> Generator[Row, None, None]:
    """Yield the rows of all ``inputs``, as ``read`` does."""
    numbers = count(1)
    for source in inputs:
        yield from _rows(source, options, numbers, stdin=stdin, network=network)
    if next(numbers) == 1:
        raise SourceError(_nothing_in(inputs))


def check(inputs: Sequence[str], options: ListOptions = DEFAULT_OPTIONS) -> None:
    """Look into every input that can be looked into without using it up, and raise what ``read`` would.

    Regular files are read as far as their first row; of stdin, a pipe or a device no byte is taken. Raises
    ``SourceError``, also when there is not one row in all of the files and there is no other input.
    """
    found = False
    if options.format == "sitemap":
        from fetcher.sources.sitemap import carried_fields

        carried_fields(options.carry)
    for source in inputs:
        if is_url_list(source, options.format):
            found = True
            continue
        if not is_url_argument(source):
            kind = format_of(source, options.format)
            if kind not in FILES and _is_stream(source):
                found = True
                continue
            if kind == "sitemap":
                found |= _begins_well(source)
                continue
        with closing(_rows(source, options, count(1), silent=True)) as rows:
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
        try:
            if is_url_list(source, options.format):
                return None
            if is_url_argument(source):
                rows += 1
                continue
            kind = format_of(source, options.format)
            if kind in _TABLES or kind == "sitemap" or _is_stream(source):
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

    Streams, and lists on the network, are not looked into. Never raises: what is wrong with a list is what ``check``
    finds.
    """
    for source in inputs:
        try:
            on_network = is_url_list(source, options.format)
            kind = "txt" if is_url_argument(source) and not on_network else format_of(source, options.format)
            if kind == "jsonl":
                return True
            if kind in ("txt", "sitemap") or on_network or _is_stream(source):
                continue
            from fetcher.sources.columns import is_record  # most lists have no columns

            names = header_of(source, kind, options)
            if is_record(names) and "fields" in names:
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
    source: str,
    options: ListOptions,
    numbers: RowNumbers,
    *,
    stdin: BinaryIO | None = None,
    network: NetworkLists | None = None,
    silent: bool = False,
) -> Generator[Row, None, None]:
    """Yield the rows of one input."""
    if is_url_list(source, options.format):
        yield from _network_rows(source.strip(), options, numbers, network)
        return
    if is_url_argument(source):
        yield Request(next(numbers), source.strip())
        return
    kind = format_of(source, options.format)
    name = list_name(source)
    if kind == "sitemap":
        yield from _sitemap_rows(source, options, numbers, stdin, network)
        return
    if kind in FILES:
        yield from _rows_of_file(source, kind, options, numbers)
        return
    encoding = ListEncoding(name, options.encoding, silent=silent)
    with open_list(source, stdin=stdin, encoding=encoding, nul_allowed=kind in _TABLES) as blocks:
        try:
            yield from _read_as(kind, blocks, numbers, options, encoding)
        except OSError as error:
            raise SourceError(f"{name}: at row {next(numbers)}: {reason_of(error)}") from error


def _read_as(
    kind: str, blocks: Iterator[bytes], numbers: RowNumbers, options: ListOptions, encoding: ListEncoding
) -> Iterator[Row]:
    """Return the rows of a list in one of the formats of lines, which is called as its ``encoding`` says."""
    name = encoding.name
    if kind == "txt":
        return read_text(blocks, name=name, numbers=numbers, encoding=encoding)
    if kind == "jsonl":
        from fetcher.sources.jsonl import read_jsonl

        return read_jsonl(blocks, name=name, numbers=numbers, options=options, encoding=encoding)
    from fetcher.sources.csv_format import read_csv

    return read_csv(blocks, name=name, numbers=numbers, options=options, encoding=encoding, kind=kind)


def _network_rows(url: str, options: ListOptions, numbers: RowNumbers, network: NetworkLists | None) -> Iterator[Row]:
    """Yield the rows of a list on the network."""
    from fetcher.sources.network import read_network_list, read_site
    from fetcher.sources.sitemap import NO_NUMBER, carried_fields

    name = without_userinfo(url)
    kind = format_of(url, options.format)
    if network is None:
        raise SourceError(f"{name}: is a list on the network: 'fetcher crawl' and Fetcher.read fetch such lists")
    if kind == "sitemap":
        yield from _numbered(read_site(url, network), name, numbers, fields=carried_fields(options.carry))
        return

    def parse_list(blocks: Iterator[bytes], name: str) -> Iterator[Row]:
        encoding = ListEncoding(name, options.encoding)
        text = text_blocks(blocks, name, encoding, nul_allowed=kind in _TABLES)
        return _read_as(kind, text, repeat(NO_NUMBER), options, encoding)

    yield from _numbered(read_network_list(url, network, parse_list), name, numbers)


def _sitemap_rows(
    source: str, options: ListOptions, numbers: RowNumbers, stdin: BinaryIO | None, network: NetworkLists | None
) -> Iterator[Row]:
    """Yield the rows of a sitemap at hand. Its encoding is that of XML, whatever that of lists is."""
    from fetcher.sources.network import read_sitemap_file
    from fetcher.sources.sitemap import carried_fields

    name = list_name(source)
    fields = carried_fields(options.carry)
    with open_list(source, stdin=stdin, encoding=None) as blocks:
        yield from _numbered(read_sitemap_file(blocks, name, network), name, numbers, fields=fields)


def _numbered(
    rows: Iterator[Row], name: str, numbers: RowNumbers, *, fields: Sequence[str] | None = None
) -> Iterator[Row]:
    """Give rows their numbers, and leave them of their fields those that are named, else all."""
    try:
        for row in rows:
            number = next(numbers)
            listed = row if isinstance(row, Request) else row.request
            kept = listed.fields
            if fields is not None and kept is not None:
                kept = {field: kept[field] for field in fields if field in kept} or None
            if isinstance(row, Request):
                yield Request(number, row.url, (), kept, guarded=row.guarded)
            else:
                yield BadRow(Request(number, listed.url, (), kept), row.error)
    except OSError as error:
        raise SourceError(f"{name}: at row {next(numbers)}: {reason_of(error)}") from error


def _begins_well(source: str) -> bool:
    """Tell whether a sitemap file lists anything. Raises ``SourceError`` where it is none."""
    from fetcher.sources.sitemap import read_sitemap

    name = list_name(source)
    try:
        with open_list(source, encoding=None) as blocks:
            return next(read_sitemap(blocks, name=name, base=None), None) is not None
    except OSError as error:
        raise SourceError(f"{name}: {reason_of(error)}") from error


def _rows_of_file(source: str, kind: str, options: ListOptions, numbers: RowNumbers) -> Iterator[Row]:
    """Yield the rows of a list that must be a file."""
    if _is_stream(source):
        raise SourceError(
            f"{list_name(source)}: {kind} is read from a file, for it cannot be read from its beginning on; save it as one"
        )
    if kind == "parquet":
        from fetcher.sources.parquet import read_parquet

        return read_parquet(source, numbers=numbers, options=options)
    if is_store_url(source):
        raise SourceError(f"{source}: sqlite is read from a file on this machine: download it, and give the file")
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
