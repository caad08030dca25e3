"""Parquet: what a table of records is there, its schema, its batches and its files, all by pyarrow.

Law 3: a file is written and read one row group at a time, in this thread. Law 7: a value that does not fit its column
costs itself, never the record.
"""

from __future__ import annotations

import io
import json  # its escapes keep lone surrogates, which the names of columns may have
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from fetcher.errors import ConfigError, missing_extra
from fetcher.files import write_all
from fetcher.sinks.child_tables import CHILD_COLUMNS, ChildTable
from fetcher.sinks.journal import GROUP_BYTES, GROUP_ROWS, Frame
from fetcher.sinks.layout import Layout, well_formed

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise ConfigError(missing_extra("pyarrow", "parquet")) from error

__all__ = [
    "METADATA_KEY",
    "Column",
    "ParquetTable",
    "TableFile",
    "child_table",
    "columns_of",
    "has_rest",
    "ids_in",
    "page_table",
    "table_in",
    "tables_in",
]

METADATA_KEY = b"fetcher"
"""Of a file's metadata: JSON with the ``version`` that made its schema, and which columns are ``fields`` and ``select``.

Of a child table its name, as ``table``.
"""

METADATA_VERSION = 1
MAX_TEXT_CHARACTERS = 2**29  # a column of text has at most 2 GB in one batch
CODEC = "zstd"

_TEXT = pa.string()
_WHOLE = pa.int64()
_TYPES = {
    "id": _WHOLE,
    "item": _WHOLE,
    "status": _WHOLE,
    "length": _WHOLE,
    "bytes": _WHOLE,
    "links": _WHOLE,
    "depth": _WHOLE,
    "redirects": pa.list_(_TEXT),
    "attempts": _WHOLE,
    "elapsed": pa.float64(),
    "waited": pa.float64(),
    "fetched_at": pa.timestamp("us", "UTC"),
    "checked_at": pa.timestamp("us", "UTC"),
    "truncated": pa.bool_(),
    "headers": pa.map_(_TEXT, _TEXT),
    "body": pa.large_binary(),
}
"""The columns of a record that are no text."""

_SELECTED_TYPES = {"int": _WHOLE, "float": pa.float64(), "price": pa.float64(), "bool": pa.bool_()}
"""The types of ``--select`` that are no text here; a date may be with a time or without, and stays ISO 8601."""

_CHILD_TYPES = {"text": _TEXT, "texts": pa.list_(_TEXT), "whole": _WHOLE, "flag": pa.bool_()}


class Column(NamedTuple):
    """A column: its name in the file, and its type."""

    name: str
    type: pa.DataType


def columns_of(layout: Layout, fields: Sequence[str]) -> tuple[list[Column], dict[str, Any]]:
    """Return the columns of a table, and its metadata: a record's own, what has no column of its own, then the rest.

    A name that is taken already gets ``row_`` in front, a selected one ``data_``, as in a CSV.
    """
    wanted = layout.columns
    columns = [
        Column(name, _TYPES.get(name, _TEXT))
        for name in wanted
        if name not in ("fields", "data") and name not in CHILD_COLUMNS
    ]
    columns += [Column(name, _TEXT) for name in ("fields", "data") if name in wanted and has_rest(layout, name)]
    taken = {column.name for column in columns}
    own = fields if "fields" in wanted else ()
    selected = layout.select if "data" in wanted else ()
    added: dict[str, list[str]] = {"row_": [], "data_": []}
    kinds = dict(layout.select_types)
    for prefix, names in (("row_", own), ("data_", selected)):
        for name in names:
            shown = well_formed(name)
            while shown in taken:
                shown = prefix + shown
            taken.add(shown)
            added[prefix].append(shown)
            many = prefix == "data_" and name in layout.select_lists
            kind = _SELECTED_TYPES.get(kinds.get(name, ""), _TEXT) if prefix == "data_" else _TEXT
            columns.append(Column(shown, pa.list_(kind) if many else kind))
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


def page_table(layout: Layout, fields: Sequence[str]) -> ParquetTable:
    """Return the table that records of a ``layout`` make, with the list's own columns ``fields``."""
    return ParquetTable(*columns_of(layout, fields))


def child_table(child: ChildTable) -> ParquetTable:
    """Return the table of the links or the images of all pages."""
    columns = [Column("id", _WHOLE), Column("position", _WHOLE)]
    columns += [Column(name, _CHILD_TYPES[kind]) for name, kind in child.columns]
    return ParquetTable(columns, {"version": METADATA_VERSION, "table": child.name})


class ParquetTable:
    """A table of these ``columns``; ``metadata`` is told in its files."""

    def __init__(self, columns: Sequence[Column], metadata: Mapping[str, Any]) -> None:
        self.schema = pa.schema(columns, metadata={METADATA_KEY: json.dumps(dict(metadata))})
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

    def ids(self, table: pa.Table | pa.RecordBatch) -> list[int]:
        """Return the ids of the rows, 0 for each where the table has none."""
        return _ids(table)

    def chosen(self, table: pa.Table | pa.RecordBatch, mask: Sequence[bool]) -> Any:
        """Return the rows of a table, or a batch, that ``mask`` says."""
        flags = pa.Array.from_buffers(pa.bool_(), len(mask), [None, _bits(mask)])
        return table if all(mask) else table.filter(flags)


class TableFile:
    """A Parquet file being written to an open ``descriptor``: tables are put together until they are a row group.

    ``size`` and ``checksum`` (CRC-32, begun at the one given) are those of all bytes, once it is closed; ``rows``
    counts.
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


def table_in(path: str) -> str | None:
    """Return which child table of ours a file is; ``None`` for any other, or no Parquet file at all."""
    try:
        told = json.loads((pq.read_schema(path).metadata or {})[METADATA_KEY])["table"]
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError, RecursionError):
        return None
    return told if isinstance(told, str) else None


def ids_in(path: str) -> list[int]:
    """Return the ids of a file's rows, 0 for each where it has none. Raises ``ValueError`` where it is no Parquet file."""
    try:
        with pq.ParquetFile(path, memory_map=False, pre_buffer=False) as file:
            if "id" not in file.schema_arrow.names:
                return [0] * file.metadata.num_rows
            return [
                id_
                for number in range(file.num_row_groups)
                for id_ in _ids(file.read_row_group(number, columns=["id"], use_threads=False))
            ]
    except pa.ArrowException as error:
        raise ValueError(f"{path} is no Parquet file: {error}") from error


def _ids(table: pa.Table | pa.RecordBatch) -> list[int]:
    if "id" not in table.schema.names:
        return [0] * table.num_rows
    found: list[int] = table.column("id").to_pylist()
    return found


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


# Arrays are made of their buffers (Arrow's columnar format): ``pyarrow.array`` imports pandas where it is installed, which
# takes a second and 50 MB.


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if values.count(None) == len(values):
        return pa.nulls(len(values), kind)
    try:
        return _made(values, kind)
    except (AttributeError, TypeError, ValueError, OverflowError):  # a program made a page of its own values
        return _made([_fitting(value, kind) for value in values], kind)


def _made(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Make an array of values that fit. Raises one of four errors where one does not."""
    count = len(values)
    missing = values.count(None)
    valid = _bits([value is not None for value in values]) if missing else None
    children: list[pa.Array] = []
    if kind in (_WHOLE, _TYPES["fetched_at"], _TYPES["elapsed"]):
        code = "d" if kind == _TYPES["elapsed"] else "q"
        buffers = [pa.py_buffer(array(code, [0 if value is None else value for value in values]))]
    elif kind == _TYPES["truncated"]:
        buffers = [_bits([bool(value) for value in values])]
    elif kind in (_TEXT, _TYPES["body"]):
        data = [b"" if value is None else value.encode() if kind == _TEXT else bytes(value) for value in values]
        buffers = [_offsets(data, "i" if kind == _TEXT else "q"), pa.py_buffer(b"".join(data))]
    else:
        buffers = [_offsets([value or () for value in values], "i")]
        if kind == _TYPES["headers"]:
            pairs = [pair for value in values if value for pair in value.items()]
            texts = [_made([pair[side] for pair in pairs], _TEXT) for side in (0, 1)]
            entries = pa.struct([kind.key_field, kind.item_field])
            children = [pa.Array.from_buffers(entries, len(pairs), [None], children=texts)]
        else:
            children = [_array([item for value in values if value for item in value], kind.value_type)]
    return pa.Array.from_buffers(kind, count, [valid, *buffers], missing, children=children or None)


def _bits(flags: Sequence[bool]) -> pa.Buffer:
    text = "".join(["1" if flag else "0" for flag in reversed(flags)])
    return pa.py_buffer(int(text or "0", 2).to_bytes((len(flags) + 7) // 8, "little"))


def _offsets(items: Sequence[Any], code: str) -> pa.Buffer:
    return pa.py_buffer(array(code, accumulate(map(len, items), initial=0)))


def _fitting(value: Any, kind: pa.DataType) -> Any:
    """Return a value that a column can hold: a text for a text, else ``None`` for what is something else."""
    if kind == _TEXT and value is not None:
        value = value if isinstance(value, str) else str(value)
        return well_formed(value) if len(value) <= MAX_TEXT_CHARACTERS else None
    if pa.types.is_list(kind):
        return [_fitting(item, kind.value_type) for item in value] if isinstance(value, list | tuple) else None
    if kind == _TYPES["headers"] and isinstance(value, Mapping):
        return {_fitting(str(name), _TEXT): _fitting(item, _TEXT) for name, item in value.items()}
    try:
        _made([value], kind)
    except (AttributeError, TypeError, ValueError, OverflowError):
        return None
    return value
