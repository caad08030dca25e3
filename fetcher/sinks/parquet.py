"""Parquet: what a table of records is there, its schema, its batches and its files, all by pyarrow.

Law 3: a file is written and read one row group at a time, in this thread. Law 7: a value that does not fit its column
costs itself, never the record.
"""

from __future__ import annotations

import io
import json  # its escapes keep lone surrogates, which the names of columns may have
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fetcher.errors import ConfigError, missing_extra
from fetcher.files import write_all
from fetcher.sinks.journal import GROUP_BYTES, GROUP_ROWS, Frame
from fetcher.sinks.layout import Layout
from fetcher.sinks.record import well_formed

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise ConfigError(missing_extra("pyarrow", "parquet")) from error

__all__ = ["METADATA_KEY", "Column", "ParquetTable", "TableFile", "columns_of", "has_rest", "row_count", "tables_in"]

METADATA_KEY = b"fetcher"
"""Of a file's metadata: JSON with the ``version`` that made its schema, and which columns are ``fields`` and ``select``."""

METADATA_VERSION = 1
MAX_TEXT_CHARACTERS = 2**29  # a column of text has at most 2 GB in one batch
CODEC = "zstd"

_TEXT = pa.string()
_WHOLE = pa.int64()
_TYPES = {
    "id": _WHOLE,
    "status": _WHOLE,
    "length": _WHOLE,
    "bytes": _WHOLE,
    "links": _WHOLE,
    "redirects": pa.list_(_TEXT),
    "attempts": _WHOLE,
    "elapsed": pa.float64(),
    "waited": pa.float64(),
    "fetched_at": pa.timestamp("us", "UTC"),
    "truncated": pa.bool_(),
    "headers": pa.map_(_TEXT, _TEXT),
    "body": pa.large_binary(),
}
"""The columns of a record that are no text."""


class Column(NamedTuple):
    """A column: its name in the file, and its type."""

    name: str
    type: pa.DataType


def columns_of(layout: Layout, fields: Sequence[str]) -> tuple[list[Column], dict[str, Any]]:
    """Return the columns of a table, and its metadata: a record's own, what has no column of its own, then the rest.

    A name that is taken already, in capitals or small, gets ``row_`` in front, a selected one ``data_``: DuckDB and
    others tell no capitals.
    """
    wanted = layout.columns
    columns = [Column(name, _TYPES.get(name, _TEXT)) for name in wanted if name not in ("fields", "data")]
    columns += [Column(name, _TEXT) for name in ("fields", "data") if name in wanted and has_rest(layout, name)]
    taken = {column.name.lower() for column in columns}
    own = fields if "fields" in wanted else ()
    selected = layout.select if "data" in wanted else ()
    added: dict[str, list[str]] = {"row_": [], "data_": []}
    for prefix, names in (("row_", own), ("data_", selected)):
        for name in names:
            shown = well_formed(name)
            while shown.lower() in taken:
                shown = prefix + shown
            taken.add(shown.lower())
            added[prefix].append(shown)
            many = prefix == "data_" and name in layout.select_lists
            columns.append(Column(shown, pa.list_(_TEXT) if many else _TEXT))
    metadata = {
        "version": METADATA_VERSION,
        "fields": list(own),
        "select": list(selected),
        "field_columns": added["row_"],
        "select_columns": added["data_"],
    }
    return columns, metadata


def has_rest(layout: Layout, name: str) -> bool:
    """Say whether there is a column of JSON for what has no column of its own: ``name`` is ``fields`` or ``data``."""
    return layout.free_fields if name == "fields" else layout.free_data


class ParquetTable:
    """The table that records of a ``layout`` make, with the list's own columns ``fields``."""

    def __init__(self, layout: Layout, fields: Sequence[str]) -> None:
        columns, metadata = columns_of(layout, fields)
        self.schema = pa.schema(columns, metadata={METADATA_KEY: json.dumps(metadata)})
        self._types = [column.type for column in columns]

    def pack(self, rows: Sequence[Sequence[Any]]) -> Frame:
        """Make a frame of rows, each with a value for every column."""
        arrays = [_array(values, kind) for values, kind in zip(zip(*rows, strict=True), self._types, strict=True)]
        return self.frame(pa.RecordBatch.from_arrays(arrays, schema=self.schema))

    def frame(self, batch: pa.RecordBatch) -> Frame:
        """Make a frame of a batch."""
        data = batch.serialize()
        return Frame(batch.num_rows, data.size, pa.compress(data, CODEC, asbytes=True))

    def unpack(self, frame: Frame) -> pa.RecordBatch:
        """Return the batch of a frame. Raises ``ValueError`` where it is none of this table."""
        try:
            data = pa.decompress(frame.payload, frame.size, CODEC)
            batch = pa.ipc.read_record_batch(data, self.schema)
            batch.validate()
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"a batch cannot be read: {error}") from error
        return batch

    def together(self, frames: Iterable[Frame]) -> pa.Table:
        """Return the rows of some frames as one table."""
        return pa.Table.from_batches([self.unpack(frame) for frame in frames], self.schema)

    def chosen(self, table: pa.Table | pa.RecordBatch, mask: Sequence[bool]) -> Any:
        """Return the rows of a table, or a batch, that ``mask`` says."""
        return table if all(mask) else table.filter(pa.array(mask, pa.bool_()))


class TableFile:
    """A Parquet file being written to an open ``descriptor``: tables are put together until they are a row group.

    ``size`` and ``checksum`` (CRC-32, begun at the one given) are those of all bytes, once it is closed; ``rows`` counts.
    """

    def __init__(self, descriptor: int, table: ParquetTable, checksum: int = 0) -> None:
        self.rows = 0
        self._target = CountingWriter(descriptor, checksum)
        self._writer = pq.ParquetWriter(self._target, table.schema, compression=CODEC)
        self._pending: list[pa.Table] = []
        self._rows = self._bytes = 0

    @property
    def size(self) -> int:
        """Bytes written."""
        return self._target.size

    @property
    def checksum(self) -> int:
        """CRC-32 of the bytes written."""
        return self._target.checksum

    def add(self, table: Any) -> None:
        """Take the rows of a table, which is not larger than a row group."""
        if self._rows + table.num_rows > GROUP_ROWS or self._bytes + table.nbytes > GROUP_BYTES:
            self._flush()
        if table.num_rows:
            self._pending.append(table)
            self.rows += table.num_rows
            self._rows += table.num_rows
            self._bytes += table.nbytes

    def close(self) -> None:
        """Write what is left, and the footer; the descriptor stays open."""
        self._flush()
        self._writer.close()
        pa.default_memory_pool().release_unused()

    def abandon(self) -> None:
        """Leave the file as it is after an error."""
        self._target.deaf = True
        self._pending.clear()
        self._writer.close()  # else it is closed when it is collected, whenever that is
        pa.default_memory_pool().release_unused()

    def _flush(self) -> None:
        if self._pending:
            group = pa.concat_tables(self._pending)
            self._pending.clear()
            self._rows = self._bytes = 0
            self._writer.write_table(group, row_group_size=group.num_rows)


class CountingWriter(io.RawIOBase):
    """A file for pyarrow to write to: the descriptor gets all, and its size and CRC-32 are known in the end."""

    def __init__(self, descriptor: int, checksum: int) -> None:
        self.size, self.checksum = 0, checksum
        self.deaf = False
        self._descriptor = descriptor

    def writable(self) -> bool:
        """Say that it can be written."""
        return True

    def tell(self) -> int:
        """Return how much was written."""
        return self.size

    def write(self, data: Any, /) -> int:
        """Write all of it. Raises ``OSError``."""
        view = memoryview(data).cast("B")
        if not self.deaf:
            write_all(self._descriptor, view)
            self.checksum = zlib.crc32(view, self.checksum)
            self.size += len(view)
        return len(view)


def row_count(path: str) -> int:
    """Return how many rows a file has. Raises ``ValueError`` where it is no Parquet file."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except pa.ArrowException as error:
        raise ValueError(f"{path} is no Parquet file: {error}") from error


def tables_in(path: str, table: ParquetTable) -> Iterator[pa.Table]:
    """Yield the row groups of a file of ours. Raises ``ValueError`` where its columns are others."""
    try:
        with pq.ParquetFile(path, memory_map=False, pre_buffer=False) as file:
            if not file.schema_arrow.equals(table.schema):
                raise ValueError(f"{path} has other columns")
            for number in range(file.num_row_groups):
                yield file.read_row_group(number, use_threads=False).replace_schema_metadata(table.schema.metadata)
    except pa.ArrowException as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if kind == _TYPES["headers"]:
        values = [None if value is None else list(value.items()) for value in values]
    try:
        array = pa.array(values, kind)
        if isinstance(array, pa.Array):
            return array
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        pass  # a program that uses the library made a page of its own values
    return pa.array([_fitting(value, kind) for value in values], kind)


def _fitting(value: Any, kind: pa.DataType) -> Any:
    """Return a value that a column can hold: a text for a text, or ``None``."""
    if kind == _TEXT and value is not None:
        value = value if isinstance(value, str) else str(value)
        return well_formed(value) if len(value) <= MAX_TEXT_CHARACTERS else None
    if isinstance(value, Mapping):
        value = list(value.items())
    try:
        pa.scalar(value, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return None
    return value
