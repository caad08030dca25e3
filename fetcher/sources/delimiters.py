"""Which character parts the cells of a CSV: what its first line says, or else its header line shows.

Not ``csv.Sniffer``: it raises on a lone column, and takes the comma of ``Firma, Ort;URL``.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from itertools import chain

from fetcher.sources.columns import ColumnError, SeveralColumnsError, find_url
from fetcher.sources.lines import READ_BYTES

__all__ = ["CANDIDATES", "find_delimiter"]

CANDIDATES = ",;\t|"
"""What may be a delimiter without being asked for; the first wins where they are even."""

_SEP_LINE = re.compile(r'\s*"?sep=(.)"?\s*', re.IGNORECASE)  # Excel's, which no other program takes for one


def find_delimiter(
    blocks: Iterator[bytes], asked: str | None, url_column: str | None
) -> tuple[str, int, Iterator[bytes]]:
    """Return the delimiter, the number of lines that said it and are no part of the table, and the table's ``blocks``.

    ``asked`` is one that was asked for, and wins.
    """
    head, complete = _first_lines(blocks)
    match = _SEP_LINE.fullmatch(head.partition(b"\n")[0].decode(errors="replace"))
    if match:
        table = head.partition(b"\n")[2]
        return asked or match[1], 1, chain([table], blocks)
    if asked is None:
        header = (head if not complete else head[:complete]).decode(errors="replace").strip("\r\n")
        asked = _by_column(header, url_column) or _by_count(header)
    return asked, 0, chain([head], blocks)


def _first_lines(blocks: Iterator[bytes]) -> tuple[bytes, int]:
    """Take from ``blocks`` the first line that is not blank, and whatever came with it; return where it ends, or 0.

    A line that ends within quotes goes on in the next. No more is taken than a line may have.
    """
    head = b""
    for block in blocks:
        head += block
        end = head.find(b"\n")
        while end >= 0:
            line = head[:end]
            if line.strip() and line.count(b'"') % 2 == 0:
                return head, end
            end = head.find(b"\n", end + 1)
        if len(head) > READ_BYTES:
            break
    return head, 0


def _by_column(header: str, url_column: str | None) -> str | None:
    """Return the candidate by which the header has the URL's column, the surest, and of those the one with most cells."""
    found: list[tuple[int, int, str]] = []
    for candidate in CANDIDATES:
        try:
            cells = next(csv.reader([header], delimiter=candidate), [])
            sure = find_url(cells, url_column)[1]
        except SeveralColumnsError:
            sure = 0
        except (csv.Error, ColumnError):
            continue
        found.append((sure, len(cells), candidate))
    return max(found, key=lambda each: each[:2])[2] if found else None


def _by_count(header: str) -> str:
    """Return the candidate that stands most often outside of quotes."""
    outside = "".join(header.split('"')[::2])
    return max(CANDIDATES, key=outside.count)
