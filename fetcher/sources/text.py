"""Reads the plain list: one URL a line.

Blank lines, and lines that begin with ``#`` after trimming, are no rows. Lines end in LF or CRLF. U+FEFF at the start
of a line, and quotes or ``<>`` around the whole of it, are no part of the URL. A tab, a carriage return or a second URL
within a line makes the row a bad one, for a URL parser would make one URL of two. A list whose first line is the header
of a table (``url,name``) is refused: each of its lines would be asked for as if it were a URL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from fetcher.errors import SourceError
from fetcher.model import Request
from fetcher.sources.lines import TOO_LONG, ListEncoding, OverlongLine, whole_lines
from fetcher.sources.rows import BYTE_ORDER_MARK, Row, RowNumbers, bad_row, flaw_within, listed_url

__all__ = ["read_text"]

# What may make a line other than it looks. All are rare in lists, and the search for each is far cheaper than a look at
# every line.
_SUSPECT = ("\t", BYTE_ORDER_MARK, '"', "'", "<", "\u201c", "\u2018", " http", " HTTP")
_HINTS = {"has a tab within": " (is it a .tsv?)", "has a second URL behind a blank": " (one URL a line)"}

# Names of columns: words, with nothing that a URL of more than one word has. What is passed is not looked at again, so
# that a line of blanks takes no longer than another.
_NAME = r"""["']?[^\W\d][\w -]*+["']? *+"""
_HEADER = re.compile(rf"{_NAME}(?:([,;\t|]) *+{_NAME})+")


def read_text(blocks: Iterator[bytes], *, name: str, numbers: RowNumbers, encoding: ListEncoding) -> Iterator[Row]:
    """Yield the rows of a text list; ``name`` is what messages call it. Raises ``SourceError`` for a table."""
    line = 1
    begun = False  # a line that is no comment was there
    for piece in whole_lines(blocks):
        if not begun and isinstance(piece, bytes):
            begun = _refuse_table(piece, name)
        if isinstance(piece, OverlongLine):
            yield from _judged([piece.start], name, line, numbers, encoding, flaw=TOO_LONG)
            line += 1
            continue
        urls = _plain_urls(piece)
        if urls is None:
            yield from _judged(piece.split(b"\n"), name, line, numbers, encoding)
        else:
            yield from map(Request, islice(numbers, len(urls)), urls)
        line += piece.count(b"\n") + 1


def _refuse_table(piece: bytes, name: str) -> bool:
    """Raise ``SourceError`` where the first line names columns, one of them that of a URL.

    Return whether there was a line that is neither blank nor a comment.
    """
    lines = (line.strip() for line in piece.decode(errors="replace").split("\n"))
    header = next((line for line in lines if line and not line.startswith("#")), "").lstrip(BYTE_ORDER_MARK)
    match = _HEADER.fullmatch(header)
    if match is None:
        return bool(header)
    from fetcher.sources.columns import ColumnError, SeveralColumnsError, find_url  # most lists have no columns

    names = [cell.strip().strip("\"'") for cell in header.split(match[1])]
    try:
        at, _ = find_url(names, None)
    except SeveralColumnsError:
        at = None
    except ColumnError:
        return True
    kind = "tsv" if match[1] == "\t" else "csv"
    column = " --url-column NAME" if at is None else ""
    raise SourceError(
        f"{name}: the first line ({header[:80]}) is the header of a table: read it with --from {kind}{column}"
    )


def _plain_urls(piece: bytes) -> list[str] | None:
    """Return the URLs of whole lines, or ``None`` when a line must be judged by itself."""
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        return None
    if "\r" in text:
        text = text.replace("\r\n", "\n").removesuffix("\r")
        if "\r" in text:
            return None
    if any(map(text.__contains__, _SUSPECT)):
        return None
    return [url for line in text.split("\n") if (url := line.strip()) and url[0] != "#"]


def _judged(
    lines: list[bytes], name: str, line: int, numbers: RowNumbers, encoding: ListEncoding, *, flaw: str = ""
) -> Iterator[Row]:
    """Yield the rows of ``lines``, the first being number ``line``, each looked at for what is wrong with it."""
    for at, raw in enumerate(lines, line):
        url = listed_url(raw.decode(errors="replace"))
        if url.startswith("#") or not (url or flaw):
            continue
        what = flaw
        if not what and "\r" in url:
            what = "has a carriage return within (lines end in LF or CRLF)"
        if not what and (what := flaw_within(url)):
            what += _HINTS.get(what, "")
        if not what and "\ufffd" in url and not _is_utf8(raw):
            what = encoding.undecodable(at)
        number = next(numbers)
        yield bad_row(number, url, f"{name}:{at}: the line {what}") if what else Request(number, url)


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
