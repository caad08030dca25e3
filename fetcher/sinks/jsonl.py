"""JSON Lines: a record a line, in UTF-8 (jsonlines.org)."""

from __future__ import annotations

from collections.abc import Iterator

from fetcher.model import Outcome
from fetcher.sinks.record import to_json, to_record
from fetcher.sinks.stream import StreamSink

__all__ = ["JSONLSink"]


class JSONLSink(StreamSink):
    """Write each outcome as one line of JSON."""

    def encode(self, outcome: Outcome) -> bytes:
        """Return one line, its newline included."""
        return to_json(to_record(outcome)) + b"\n"

    def split(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        """Return the lines: each is a record."""
        return lines
