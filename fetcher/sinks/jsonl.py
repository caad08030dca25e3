"""JSON Lines: a record a line, in UTF-8 (jsonlines.org)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from fetcher.model import Outcome
from fetcher.sinks.layout import DEFAULT_LAYOUT, Layout, RecordMaker, to_json
from fetcher.sinks.stream import StreamSink

if TYPE_CHECKING:
    from fetcher.sinks.explode import Exploder

__all__ = ["JSONLSink"]


class JSONLSink(StreamSink):
    """Write each outcome as one line of JSON."""

    def __init__(self, path: str | os.PathLike[str], layout: Layout = DEFAULT_LAYOUT, *, fresh: bool = False) -> None:
        super().__init__(path, layout, fresh=fresh)
        self._record = RecordMaker(layout.columns).record
        self._exploder: Exploder | None = None
        self.explodes = layout.explode is not None
        if self.explodes:
            from fetcher.sinks.explode import Exploder  # most rows are one line

            self._exploder = Exploder(layout, flat=False)

    def encode(self, outcome: Outcome) -> bytes:
        """Return one line, its newline included; or one for each item."""
        if self._exploder is not None:
            return b"".join([to_json(self._record(line)) + b"\n" for line in self._exploder.lines(outcome)])
        return to_json(self._record(outcome)) + b"\n"

    def split(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        """Return the lines: each is a record."""
        return lines

    def id_of(self, record: bytes) -> int:
        """Return the id of a line. Raises ``ValueError``."""
        return _decode_id(record).id


class _HasID(msgspec.Struct):
    id: int


_decode_id = msgspec.json.Decoder(_HasID).decode
