"""Opens a list, wherever it is and whatever its encoding, as text lines of bounded length.

A byte order mark is stronger than the option ``encoding``, as in the decoding of browsers (WHATWG Encoding, 6).

Laws: a byte that means nothing in the encoding is told once a list, and costs a row only where it stands in its URL
(1). A line is handed on as soon as it is there, for a pipe may be slow (``tail -f list | …``); no more than a block and
a line of a list is held, whatever its size (3). A stream that is no text is found before its first row is used.
"""

from __future__ import annotations

import base64
import codecs
import logging
import os
import re
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path, PurePath
from typing import BinaryIO, NamedTuple

from fetcher.compression import MAGIC_BYTES, DamagedDataError, decompress, packing_of_data, packing_of_path
from fetcher.errors import SourceError
from fetcher.sources.inputs import UTF_8
from fetcher.store import is_store_url

__all__ = [
    "MAX_LINE_BYTES",
    "READ_BYTES",
    "TOO_LONG",
    "ListEncoding",
    "OverlongLine",
    "list_name",
    "open_list",
    "reason_of",
    "replaced",
    "text_blocks",
    "text_of_bytes",
    "unpacked",
    "whole_lines",
]

MAX_LINE_BYTES = 64 * 1024
"""Bytes that a line may have; a longer one is a bad row."""

READ_BYTES = MAX_LINE_BYTES
"""Bytes of a read at most. No larger than a line may be: so only the first line of a block can be overlong."""

TOO_LONG = "is over 64 KiB long"

_SNIFF_BYTES = 8 * 1024
_LIKE_UTF_16 = re.compile(rb"[\t-~]\0[\t-~]\0|\0[\t-~]\0[\t-~]").match
_BINARY_MAGIC = {
    b"%PDF-": "PDF",
    b"PK\x03\x04": "zip or xlsx",
    b"\x89PNG": "PNG",
    b"PAR1": "Parquet",
    b"\xd0\xcf\x11\xe0": "xls",
    b"SQLite format 3\0": "SQLite",
    b"BZh91AY": "bzip2",
    b"\xfd7zXZ\0": "xz",
}

log = logging.getLogger("fetcher.sources")

_BLOCK_BYTES = 16 * 1024  # decoded at once: no encoding needs more than four bytes of UTF-8 for one of its own
_UTF_8_MARK = codecs.BOM_UTF8
_MARKS = {  # the longer ones first: that of UTF-32 begins with one of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_ERRORS = "fetcher.undecodable"


def _undecodable(error: UnicodeError) -> tuple[str, int]:
    """Put in a lone surrogate, which becomes a byte that is not UTF-8: a reader finds it where it stands."""
    assert isinstance(error, UnicodeDecodeError)
    return "\udcff", error.end


codecs.register_error(_ERRORS, _undecodable)


class ListEncoding:
    """The encoding of one list, which messages call ``name``; ``label`` is what they call the encoding.

    ``encoding`` is Python's name of the one that was asked for, ``None`` for UTF-8. ``silent`` tells nothing.
    """

    def __init__(self, name: str, encoding: str | None = None, *, silent: bool = False) -> None:
        self.label = encoding or UTF_8
        self.name = name
        self._encoding = encoding
        self._told = silent

    def to_utf_8(self, head: bytes, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """Return ``head`` and the ``blocks`` behind it in UTF-8, without the byte order mark.

        A byte that means nothing in the encoding is one that is not UTF-8.
        """
        if head.startswith(_UTF_8_MARK):
            self.label, self._encoding = UTF_8, None
        for mark, encoding in _MARKS.items():
            if head.startswith(mark):
                self.label, self._encoding = encoding.upper(), encoding
                break
        else:
            if self._encoding in ("utf-16", "utf-32"):  # without a mark: Python would ask for one
                self._encoding += "-be" if head[:1] == b"\0" else "-le"
        if self._encoding is None:
            return chain([head.removeprefix(_UTF_8_MARK)], blocks)
        return self._transcoded(chain([head], blocks), self._encoding)

    def _transcoded(self, blocks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
        """Yield the text of ``blocks`` as UTF-8."""
        decoder = codecs.getincrementaldecoder(encoding)(_ERRORS)
        try:
            for block in blocks:
                for start in range(0, len(block), _BLOCK_BYTES):
                    yield _encoded(decoder.decode(block[start : start + _BLOCK_BYTES]))
            yield _encoded(decoder.decode(b"", final=True))
        except UnicodeError as error:  # some of the rarer ones know of no replacement
            raise SourceError(f"{self.name}: cannot be read as {self.label}: {error}") from None

    def undecodable(self, line: int) -> str:
        """Return what is wrong with a line that is in another encoding. The first of a list is told as a warning."""
        if not self._told:
            self._told = True
            advice = "--encoding NAME reads it as it is meant (cp1252 is what Windows and Excel write)"
            if self.label != UTF_8:
                advice = "is another --encoding meant?"
            log.warning(
                "%s:%d: is not %s: bytes that cannot be read become U+FFFD; %s", self.name, line, self.label, advice
            )
        return f"is not {self.label}"


def replaced(text: str) -> str:
    r"""Return ``text`` with U+FFFD for what could not be decoded, and for half a surrogate pair.

    >>> replaced("caf\udce9")
    'caf\ufffd'
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def text_of_bytes(value: bytes) -> str:
    """Return bytes as the text that they are in UTF-8, as older writers have it, or else as a ``data:`` URL (RFC 2397).

    >>> text_of_bytes(b"text"), text_of_bytes(bytes([255]))
    ('text', 'data:application/octet-stream;base64,/w==')
    """
    try:
        return value.decode()
    except UnicodeDecodeError:
        return f"data:application/octet-stream;base64,{base64.b64encode(value).decode()}"


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate of the text's own, as unicode_escape has them
        return text.encode("utf-8", "surrogatepass")


class OverlongLine(NamedTuple):
    """A line over ``MAX_LINE_BYTES``: its start, and how many double quotes it had in all."""

    start: bytes
    quotes: int


def list_name(path: str) -> str:
    """Return how messages call the list ``path``."""
    return "stdin" if path == "-" else path or "''"


def reason_of(error: OSError) -> str:
    """Return in plain words why the system would not give us a list."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, IsADirectoryError):
        return "is a directory, not a list of URLs"
    if isinstance(error, PermissionError):
        return "permission denied"
    return error.strerror or str(error)


@contextmanager
def open_list(
    path: str, *, encoding: ListEncoding | None, stdin: BinaryIO | None = None, nul_allowed: bool = False
) -> Iterator[Iterator[bytes]]:
    """Open ``path`` (``-`` is ``stdin``) and give its text in blocks: unpacked, UTF-8, without a BOM.

    ``encoding`` is what it is in, as far as that is known; with ``None`` the unpacked bytes are given as they are.
    With ``nul_allowed`` a NUL byte in the first 8 KiB is left for the reader to find. Raises ``SourceError``
    when it cannot be opened. The blocks raise ``SourceError`` for what is no text and ``OSError`` when
    reading fails.
    """
    name = list_name(path)
    if is_store_url(path):
        blocks = stored_blocks(path)
        yield _as_text(unpacked(blocks, path), name, encoding, nul_allowed=nul_allowed)
        return
    if path == "-":
        yield _as_text(unpacked(_stdin_blocks(stdin), path), name, encoding, nul_allowed=nul_allowed)
        return
    try:
        file = Path(path).open("rb", buffering=0)  # noqa: SIM115 - closed below; only opening is to be guarded
    except OSError as error:
        raise SourceError(f"{name}: {reason_of(error)}") from error
    except ValueError:  # a NUL in the name
        raise SourceError(f"{name!r}: no such file") from None
    with file:
        yield _as_text(unpacked(_descriptor_blocks(file.fileno()), path), name, encoding, nul_allowed=nul_allowed)


def stored_blocks(url: str) -> Iterator[bytes]:
    """Yield what a list in a store has. Raises ``SourceError``."""
    from fetcher.store.reading import StoreReader

    try:
        for block in StoreReader(url, SourceError).blocks():
            for start in range(0, len(block), READ_BYTES):
                yield block[start : start + READ_BYTES]
    except FileNotFoundError as error:
        raise SourceError(str(error)) from None


def whole_lines(blocks: Iterator[bytes]) -> Iterator[bytes | OverlongLine]:
    r"""Cut ``blocks`` behind line ends: yield bytes that ``split(b"\n")`` into whole lines, and overlong ones.

    The last line end of each piece is taken off; a last line without one counts. An overlong line is
    skipped to its end without being held.
    """
    parts: list[bytes] = []  # of the line under way
    size = 0
    long: OverlongLine | None = None
    for block in blocks:
        end = block.find(b"\n")
        size += len(block) if end < 0 else end
        if size > MAX_LINE_BYTES:
            part = block if end < 0 else block[:end]
            if long is None:
                start = b"".join(parts)
                long = OverlongLine((start + part)[:MAX_LINE_BYTES], start.count(b'"'))
                parts = []
            long = OverlongLine(long.start, long.quotes + part.count(b'"'))
            if end < 0:
                continue
            yield long
            long, size = None, 0
            block = block[end + 1 :]  # noqa: PLW2901 - the overlong line is done, the rest is as it came
        cut = block.rfind(b"\n")
        if cut < 0:
            if not parts:
                size = len(block)
            parts.append(block)
            continue
        yield b"".join((*parts, block[:cut]))
        parts = [block[cut + 1 :]]
        size = len(parts[0])
    if long is not None:
        yield long
    elif rest := b"".join(parts):
        yield rest


def _descriptor_blocks(descriptor: int) -> Iterator[bytes]:
    """Yield what a descriptor has, as it comes."""
    while True:
        try:
            block = os.read(descriptor, READ_BYTES)
        except BlockingIOError:  # another process that shares the pipe made it non-blocking
            select.select([descriptor], [], [])
            continue
        if not block:
            return
        yield block


def _stdin_blocks(stdin: BinaryIO | None) -> Iterator[bytes]:
    """Yield what stdin has, as it comes.

    The process's own stdin is read below its buffer: a daemon thread that waits inside ``sys.stdin.buffer``
    when the interpreter ends holds its lock, and Python aborts (``_enter_buffered_busy``).
    """
    own: BinaryIO | None = getattr(sys.stdin, "buffer", None)
    stream = own if stdin is None else stdin
    if stream is None:
        raise SourceError("stdin: is closed")
    if stream is own:
        try:
            descriptor = stream.fileno()
        except (OSError, ValueError):  # replaced by a buffer in memory
            pass
        else:
            return _descriptor_blocks(descriptor)
    read = getattr(stream, "read1", stream.read)
    return iter(lambda: read(READ_BYTES) or b"", b"")


def _head(blocks: Iterator[bytes]) -> bytes:
    """Take from ``blocks`` what tells what they are; a short first line is not waited beyond."""
    head = b""
    for block in blocks:
        head += block
        if len(head) >= MAGIC_BYTES or b"\n" in head:
            break
    return head


def unpacked(blocks: Iterator[bytes], path: str, *, believed: bool = True) -> Iterator[bytes]:
    """Decompress what the first bytes show to be compressed.

    Where the suffix of ``path`` is ``believed``, raises ``SourceError`` for one that says so and is wrong. A server may
    have undone the compression on the way.
    """
    head = _head(blocks)
    blocks = chain([head], blocks)
    packing = packing_of_data(head)
    if packing is None:
        if believed and (claimed := packing_of_path(path)):
            raise SourceError(f"{path}: is not {claimed} data, though its name ends in {PurePath(path).suffix.lower()}")
        yield from blocks
        return
    try:
        yield from decompress(blocks, packing, max_block=READ_BYTES, zero_padding=True)
    except ImportError as error:
        raise SourceError(f"{list_name(path)}: {error}") from None
    except DamagedDataError as error:
        raise OSError(str(error)) from error


def _as_text(
    blocks: Iterator[bytes], name: str, encoding: ListEncoding | None, *, nul_allowed: bool
) -> Iterator[bytes]:
    return blocks if encoding is None else text_blocks(blocks, name, encoding, nul_allowed=nul_allowed)


def text_blocks(
    blocks: Iterator[bytes], name: str, encoding: ListEncoding, *, nul_allowed: bool = False
) -> Iterator[bytes]:
    """Pass on UTF-8 text without its BOM; raise ``SourceError`` for what is clearly something else."""
    head = _head(blocks)
    kind = next((kind for magic, kind in _BINARY_MAGIC.items() if head.startswith(magic)), "")
    wide = "" if not _LIKE_UTF_16(head) else "utf-16-le" if head[0] else "utf-16-be"
    seen = 0
    for block in encoding.to_utf_8(head, blocks):
        nul = seen < _SNIFF_BYTES and b"\0" in block[: _SNIFF_BYTES - seen]
        # PAR1 alone may be the beginning of a name; the other magics are no beginning of any URL
        if (kind and kind != "Parquet" and not seen) or (nul and (kind or wide or not nul_allowed)):
            hint = f" ({kind})" if kind else f" (UTF-16? then say so: --encoding {wide})" if wide else ""
            raise SourceError(f"{name}: looks like a binary file{hint}, not a list of URLs")
        seen += len(block)
        yield block
