"""Undoes the content codings of a body (RFC 9110, 8.4), bounded, and checks that each came to its end.

Law 3: memory is bounded by ``max_size``, never by what the bytes expand to. A coding below another produces a
block at a time, when the one above asks for it, and none takes in more than a body of ``max_size`` can have
needed: a stack whose middle is endless and whose top decodes to nothing ends too.
Law 7: the web's bytes are never trusted. A stream that was cut is ``truncated``, one whose checksum or structure
is wrong is ``bad_encoding``; neither is ever a success.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fetcher.errors import ProtocolError
from fetcher.transport.codings import BLOCK, LAYERS, Layer, accept_encoding

__all__ = ["Decoder", "accept_encoding"]

MAX_CODINGS: Final = 5
REGISTERED: Final = frozenset({
    "aes128gcm", "br", "compress", "dcb", "dcz", "deflate", "exi", "gzip", "pack200-gzip", "x-compress", "x-gzip", "zstd",
})  # fmt: skip
"""IANA's registry, without ``identity``. Any other name is none: the bytes are as they are (WHATWG Fetch)."""


def _stack(codings: str) -> list[Layer]:
    """Return the layers in the order they are undone: the last coding listed was put on last."""
    names = [name for item in codings.split(",") if (name := _name_of(item)) in REGISTERED]
    if len(names) > MAX_CODINGS:
        raise ProtocolError("bad_encoding", f"{len(names)} content codings, at most {MAX_CODINGS} are undone")
    for name in names:
        if name not in LAYERS:
            raise ProtocolError("bad_encoding", f"the content coding {name!r} is not undone here")
    return [LAYERS[name]() for name in reversed(names)]


def _name_of(item: str) -> str:
    """Return the name of a coding. One between blanks that are none of HTTP's is told: its bytes would pass as text."""
    name = item.strip(" \t").lower()
    if name not in REGISTERED and name.strip() in REGISTERED:
        raise ProtocolError("bad_encoding", f"the content coding {name[:40]!r} is not written as one")
    return name


class Decoder:
    """Undo the content codings of one body as it comes.

    ``codings`` is the value of Content-Encoding, several joined by commas; ``max_size`` is in decoded bytes.
    Returned are ``max_size + 1`` at most: then ``overflow`` is set, nothing more comes and the end is not
    checked. Raises ``ProtocolError`` with ``bad_encoding`` for a coding that is unknown or whose library is
    missing, and for more than five. A name that is no coding's is passed over.
    """

    __slots__ = ("_bound", "_layers", "_left", "overflow")

    def __init__(self, codings: str, max_size: int) -> None:
        self._layers = _stack(codings) if codings else []
        self._left = max_size + 1
        self._bound = 2 * max_size + BLOCK  # no encoder makes a body twice as large
        self.overflow = False

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Take the next bytes of the body and yield what they decode to, about ``BLOCK`` bytes at a time.

        Whoever reads may pause between two pieces. Raises ``ProtocolError`` with ``bad_encoding`` for a wrong checksum
        or structure.
        """
        if self.overflow or not data:
            return
        if not self._layers:
            yield self._admit(data)
            return
        self._layers[0].write(data)
        while not self.overflow and (piece := self._pull(len(self._layers) - 1, min(BLOCK, self._left))):
            yield self._admit(piece)

    def finish(self) -> None:
        """Check that every coding came to its end.

        Raises ``ProtocolError`` with ``truncated`` when the body stops in the middle of a stream.
        """
        for layer in () if self.overflow else self._layers:
            if layer.cut:
                raise ProtocolError("truncated", f"the body stops in the middle of its {layer.name} stream")

    @property
    def has_window(self) -> bool:
        """Whether a coding may have megabytes of its own while it is undone: br up to 17, zstd up to 8."""
        return any(layer.name in ("br", "zstd") for layer in self._layers)

    @property
    def ends_by_itself(self) -> bool:
        """Whether what came is whole by the trailer of its gzip, however long it was said to be."""
        return bool(self._layers) and all(layer.name == "gzip" and layer.ended for layer in self._layers)

    def _pull(self, index: int, limit: int) -> bytes:
        """Return the next bytes out of one layer, from as few as it needs of the layer below."""
        layer = self._layers[index]
        while not (out := layer.read(limit)):
            if layer.taken > self._bound:
                raise ProtocolError("bad_encoding", f"{layer.name}: {layer.taken} encoded bytes hold almost nothing")
            if not index or not (data := self._pull(index - 1, BLOCK)):
                break
            layer.write(data)
        return out

    def _admit(self, piece: bytes) -> bytes:
        piece = piece[: self._left]  # a library may go past its limit by a block
        self._left -= len(piece)
        self.overflow = not self._left
        return piece
