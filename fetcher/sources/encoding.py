"""In which encoding a list is, and its text as UTF-8, which is what the readers of the formats read.

Laws: a byte that means nothing in the encoding is told once a list, and costs a row only where it stands in its URL
(1); text is decoded block by block (3). A byte order mark is stronger than the option, as in the decoding of browsers
(WHATWG Encoding, 6).
"""

from __future__ import annotations

import base64
import codecs
import logging
from collections.abc import Iterator
from itertools import chain

from fetcher.errors import SourceError
from fetcher.sources.list_options import UTF_8

__all__ = ["ListEncoding", "replaced", "text_of_bytes"]

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
