"""The parts of an output that lies in a store: their names, what is known of each, and the rows that stand beside it.

``PREFIX/part-00017.parquet`` is a part, ``PREFIX/_job/part-00017.rows`` its sidecar: gzip, a first line that says what
the part is (``PartMark``), and a line for each of its rows with what a ledger knows of it. Readers of tables pass over
names that begin with an underscore. Law 6: the sidecar is there first, and the part is the commit: a part counts where
it is as its sidecar says. Law 7: what is read is checked and bounded.
"""

from __future__ import annotations

import json
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import msgspec

from fetcher.compression import DamagedDataError, compress, decompress
from fetcher.files import PRIVATE, sync, write_all
from fetcher.model import Outcome
from fetcher.sinks.durable import DurableFile, lines_of
from fetcher.sinks.job_output import JobOutput, Mark
from fetcher.sinks.layout import Layout
from fetcher.sinks.stream import StreamSink

__all__ = [
    "FORMATS",
    "JOB",
    "NOTE",
    "PART_ROWS",
    "JobNote",
    "PartFormat",
    "PartLedger",
    "PartMark",
    "PartRow",
    "decode_part",
    "encode_part",
    "pack_rows",
    "part_name",
    "part_number",
    "read_sidecar",
    "sidecar_name",
    "sidecar_number",
    "write_sidecar",
]

JOB = "_job"
"""The folder of a prefix with what is ours and no part."""

NOTE = "part "
"""What the names of the ledger's notes about parts begin with."""

PART_ROWS = 100_000
"""Rows of one part, where nothing else is asked for: what may have to be fetched again where a disk is lost."""

FORMATS = {"jsonl": ".jsonl.zst", "csv": ".csv.gz", "parquet": ".parquet", "warc": ".warc.gz"}
"""Format -> the suffix of its parts."""

_READ_BYTES = 64 * 1024
_MAX_LINE_BYTES = 64 * 1024
_encode_row = msgspec.json.Encoder().encode
_PART = re.compile(r"part-([0-9]{5,9})(\.[a-z.]+)", re.ASCII)
_SIDECAR = re.compile(r"part-([0-9]{5,9})\.rows", re.ASCII)


class PartMark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A finished part: its rows are those of the numbers ``first`` to ``last`` in the ledger that wrote it.

    ``checksum`` is the CRC-32 of its bytes, ``tag`` what the store should call them, ``mark`` that of the output that
    it was.
    """

    number: int
    first: int
    last: int
    rows: int
    size: int
    checksum: int
    tag: str
    mark: Mark


class PartRow(NamedTuple):
    """A row of a part, as the ledger knows it; ``elapsed`` in milliseconds."""

    id: int
    digest: int
    code: str
    status: int | None
    bytes: int | None
    elapsed: int
    host: str
    attempts: int


class PartLedger(Protocol):
    """What an output in a store asks of the ledger of its job."""

    identity: bytes

    def part_rows(self, first: int, last: int) -> Iterator[PartRow]:
        """Yield the rows whose records have these numbers."""
        ...

    def notes_like(self, prefix: str) -> dict[str, bytes]:
        """Return the notes whose names begin so."""
        ...

    def keep_note(self, name: str, note: bytes) -> None:
        """Keep a note, on the disk when this returns."""
        ...

    def forget_rows(self, first: int, last: int, note: str) -> int:
        """Take rows out, so that they are missing, and a note with them; return how many."""
        ...


class JobNote(msgspec.Struct, frozen=True):
    """The object that says whose the parts are: the job's name, the suffix of its parts, and what must not change."""

    job: str
    suffix: str
    identity: str


def part_name(number: int, suffix: str) -> str:
    """Return the name of a part."""
    return f"part-{number:05}{suffix}"


def part_number(name: str, suffix: str) -> int | None:
    """Return which part a name is of, ``None`` for none."""
    match = _PART.fullmatch(name)
    return int(match[1]) if match and match[2] == suffix and int(match[1]) > 0 else None


def sidecar_name(number: int) -> str:
    """Return the name of a sidecar, within the prefix."""
    return f"{JOB}/part-{number:05}.rows"


def sidecar_number(name: str) -> int | None:
    """Return which part a sidecar is of, by its name in its folder."""
    match = _SIDECAR.fullmatch(name)
    return int(match[1]) if match else None


def pack_rows(rows: Iterable[PartRow]) -> bytes:
    """Return rows as they stand in a sidecar: a member of gzip, nothing for none."""
    data = b"".join(_encode_row(row) + b"\n" for row in rows)
    return compress(data, "gzip") if data else b""


def write_sidecar(path: str, part: PartMark, packed: Iterable[bytes]) -> None:
    """Write a sidecar to a file: its first line, and rows that were ``packed``."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE)
    try:
        write_all(descriptor, compress(encode_part(part) + b"\n", "gzip"))
        for block in packed:
            write_all(descriptor, block)
        sync(descriptor)
    finally:
        os.close(descriptor)


def encode_part(part: PartMark) -> bytes:
    """Return what a part is, as JSON."""
    return json.dumps(msgspec.to_builtins(part)).encode()


def decode_part(data: bytes) -> PartMark:
    """Read it again. Raises ``ValueError``."""
    try:
        return msgspec.convert(json.loads(data), PartMark)
    except RecursionError:
        raise ValueError("nested too deep") from None


def read_sidecar(blocks: Iterable[bytes], number: int) -> tuple[PartMark, Iterator[PartRow]]:
    """Return what a sidecar says of its part, and its rows. Raises ``ValueError``, the rows too, for what is none."""
    try:
        lines = lines_of(_bounded(decompress(iter(blocks), "gzip", max_block=_READ_BYTES)))
        part = decode_part(next(lines, b""))
    except DamagedDataError as error:
        raise ValueError(str(error)) from None
    if part.number != number or min(part.rows, part.size) < 0:
        raise ValueError("it is of another part")
    return part, _rows(lines, part)


def _rows(lines: Iterator[bytes], part: PartMark) -> Iterator[PartRow]:
    decode = msgspec.json.Decoder(PartRow).decode
    many = 0
    try:
        for line in lines:
            row = decode(line)
            many += 1
            if not (0 < row.id < 2**53 and 0 <= row.digest < 2**32 and row.code and row.elapsed >= 0):
                raise ValueError("a row that makes no sense")
            yield row
    except DamagedDataError as error:
        raise ValueError(str(error)) from None
    if many != part.rows:
        raise ValueError(f"{many} rows, not {part.rows}")


def _bounded(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Pass blocks on, as long as no line is longer than one of ours."""
    size = 0
    for block in blocks:
        at = block.rfind(b"\n")
        size = size + len(block) if at < 0 else len(block) - at - 1
        if size > _MAX_LINE_BYTES + _READ_BYTES:
            raise ValueError("a line that is too long")
        yield block


class PartFormat:
    """One of ``FORMATS`` as it is written to parts: what encodes is shared by all, for a record may go into the next.

    ``sink`` is what makes a format that is a stream of bytes.
    """

    def __init__(self, kind: str, layout: Layout, sink: StreamSink | None) -> None:
        self.kind = kind
        self.suffix = FORMATS[kind]
        self.rewrites = kind != "warc"  # an archive keeps what it has
        self._layout = layout
        self._answers: deque[Any] = deque()
        self.encode: Callable[[Outcome], bytes]
        """Returns the record of an outcome, a chunk."""
        if kind == "parquet":
            from fetcher.sinks.parquet_output import RowEncoder

            self._rows = RowEncoder(layout)
            self._rows.table()  # names what is not installed
            self.encode = self._rows.encode
            return
        assert sink is not None
        self._sink = sink
        self.encode = self._sink.encode

    def open(self, path: str, work: str) -> JobOutput:
        """Return the output that a part is, until it is whole."""
        if self.kind == "parquet":
            from fetcher.sinks.parquet_output import ParquetOutput

            return ParquetOutput(path, self._layout, work=work, encoder=self._rows)
        if self.kind == "warc":
            from fetcher.sinks.warc import WARCOutput, WARCSink

            assert isinstance(self._sink, WARCSink)
            self._sink.output.path, self._sink.indexed = path, 0
            return WARCOutput(path, self._sink, work=work, answers=self._answers)
        return DurableFile(path, self._sink)

    def companions(self, path: str) -> list[str]:
        """Return what stands beside a part that is whole, and goes with it."""
        if self.kind != "warc":
            return []
        from fetcher.sinks.warc import index_of

        return [index_of(path)]

    def fresh_state(self, state: str | None = None) -> str:
        """Return the state of a new part after one whose state that was: the columns of the list; ``None`` for now's."""
        if self.kind == "csv":
            return self._sink.state() if state is None else state
        if self.kind == "parquet":
            from fetcher.sinks.parquet_output import ParquetState

            fields = self._rows.fields if state is None else ParquetState.from_json(state, folder=False).fields
            return ParquetState(fields).to_json()
        return ""

    def lies_at(self, output: JobOutput) -> str:
        """Return where the bytes of a part are that was completed just now."""
        from fetcher.sinks.parquet_output import ParquetOutput

        return output.lies_at if isinstance(output, ParquetOutput) else output.path
