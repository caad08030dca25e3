"""Reads Parquet: a table with typed columns, of which only those that are needed are read.

Laws: no more than a few megabytes of a row group are in memory, however large it is written (3); a row has no more than
a mebibyte of values (3); what becomes of a type that JSON has not is said in ``_simple``, and nothing is dropped:
moments are ISO 8601, in UTC where they have a time zone, decimals are text, durations are seconds, and bytes are the
text that they are in UTF-8, or else a ``data:`` URL (RFC 2397).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import date, datetime, time, timedelta
from typing import Any

import msgspec

from fetcher.compression import packing_of_data
from fetcher.errors import SourceError, missing_extra
from fetcher.model import Request
from fetcher.sources.columns import HOLDS_NOTHING, ColumnError, distinct, find_carried, find_url, is_record
from fetcher.sources.inputs import ListOptions
from fetcher.sources.lines import reason_of, replaced, text_of_bytes
from fetcher.sources.rows import MAX_ROW_BYTES, TOO_LARGE_ROW, Row, RowNumbers, bad_row, flaw_of_url, read_url
from fetcher.store import is_store_url

__all__ = [
    "count_parquet",
    "parquet_fields",
    "parquet_names",
    "parquet_records",
    "parquet_rows",
    "parquet_table",
    "parquet_values",
    "read_parquet",
]

_BATCH_BYTES = 4 * 1024 * 1024  # decoded at once, about
_BATCH_ROWS = 512  # at most: few, for one long text that many rows share is small in the file
_READ_BYTES = 64 * 1024  # of each column at once: its chunk in a row group is never held whole
_MAGIC, _MAGIC_ENCRYPTED = b"PAR1", b"PARE"
_METADATA_KEY = b"fetcher"


def read_parquet(path: str, *, numbers: RowNumbers, options: ListOptions) -> Iterator[Row]:
    """Yield the rows of a Parquet file. Raises ``SourceError`` that names the file, and the row where there is one."""
    with _open(path) as file:
        columns = _Columns(path, file, options)
        row = 0
        for group in range(file.metadata.num_row_groups):
            batches = file.iter_batches(
                _batch_size(file.metadata.row_group(group)),
                row_groups=[group],
                columns=columns.names,
                use_threads=False,
            )
            with closing(batches):
                while (batch := _next(batches, path, row)) is not None:
                    for listed, fields in columns.rows(batch, row):
                        row += 1
                        yield _row(next(numbers), listed, fields, f"{path}:row {row}", columns)


def parquet_rows(path: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of an output of ours, by the names of its columns. Raises ``SourceError``."""
    with _open(path) as file:
        columns = _Columns(path, file, ListOptions(url_column="url"), whole=True)
        row = 0
        for group in range(file.metadata.num_row_groups):
            size = _batch_size(file.metadata.row_group(group))
            batches = file.iter_batches(size, row_groups=[group], columns=columns.names, use_threads=False)
            with closing(batches):
                while (batch := _next(batches, path, row)) is not None:
                    for url, values in columns.rows(batch, row):
                        row += 1
                        yield {**values, columns.url_name: url}


def parquet_values(path: str, columns: Sequence[str], held: Sequence[str] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield of each row the values of ``columns``, and whether those of ``held`` hold something.

    No other column is read. What there is not is ``None``, or holds nothing. Raises ``SourceError``.
    """
    row = 0
    with _open(path) as file:
        listed = set(file.schema_arrow.names)
        names = [name for name in dict.fromkeys((*columns, *held)) if name in listed]
        for group in range(file.metadata.num_row_groups):
            size = _batch_size(file.metadata.row_group(group))
            with closing(file.iter_batches(size, row_groups=[group], columns=names, use_threads=False)) as batches:
                while (batch := _next(batches, path, row)) is not None:
                    there = {name: batch.column(name) for name in names}
                    nothing = [None] * batch.num_rows
                    values = [
                        _values_of(there[name], f"{path}:row {row + 1}: column {name!r}")[0]
                        if name in there
                        else nothing
                        for name in columns
                    ]
                    values += [_holds(there[name]) if name in there else nothing for name in held]
                    row += batch.num_rows
                    yield from zip(*values, strict=True)


def count_parquet(path: str) -> int:
    """Return the number of rows that the footer tells. Raises ``SourceError``."""
    with _open(path) as file:
        return int(file.metadata.num_rows)


def parquet_names(path: str) -> list[str]:
    """Return the names of the columns. Raises ``SourceError``."""
    with _open(path) as file:
        return list(file.schema_arrow.names)


def parquet_fields(path: str) -> dict[str, str] | None:
    """Return what an output of ours says of its columns: column -> the name that was carried. Raises ``SourceError``."""
    with _open(path) as file:
        try:
            told = msgspec.json.decode((file.schema_arrow.metadata or {})[_METADATA_KEY], type=_Metadata)
            return dict(zip(told.field_columns, told.fields, strict=True))
        except (KeyError, ValueError):
            return None


def parquet_table(path: str) -> str | None:
    """Return which child table of an output of ours a file is; ``None`` where it is none. Raises ``SourceError``."""
    with _open(path) as file:
        try:
            return msgspec.json.decode((file.schema_arrow.metadata or {})[_METADATA_KEY], type=_ChildMetadata).table
        except (KeyError, ValueError):
            return None


def parquet_records(path: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file with all of their columns, in the values of Python; a body is bytes. Raises ``SourceError``."""
    row = 0
    with _open(path) as file:
        for group in range(file.metadata.num_row_groups):
            size = _batch_size(file.metadata.row_group(group))
            with closing(file.iter_batches(size, row_groups=[group], use_threads=False)) as batches:
                while (batch := _next(batches, path, row)) is not None:
                    try:
                        records = batch.to_pylist()
                    except (ArithmeticError, ValueError, TypeError) as error:
                        raise SourceError(f"{path}:row {row + 1}: cannot be read: {_first_line(error)}") from None
                    row += len(records)
                    yield from records


def _row(number: int, listed: Any, fields: dict[str, Any], where: str, columns: _Columns) -> Row:
    """Return a row of the file."""
    if columns.large and len(msgspec.json.encode(fields, enc_hook=str)) > MAX_ROW_BYTES:
        return bad_row(number, replaced(listed or ""), f"{where}: {TOO_LARGE_ROW}")
    if columns.undecodable:
        fields = {name: _well_formed(value) for name, value in fields.items()}
    if listed is None or not listed.strip():
        return bad_row(number, "", f"{where}: no URL in column {columns.url_name!r}", fields or None)
    url, flaw = read_url(listed)
    if len(url) > 2_000 or columns.undecodable or flaw or not url:
        flaw = flaw_of_url(url, flaw)
    if flaw:
        return bad_row(number, replaced(url), f"{where}: the URL {flaw}", fields or None)
    return Request(number, url, (), fields or None)


class _Metadata(msgspec.Struct):
    """What an output of ours says of its columns: the names that were carried, and the columns that they have."""

    fields: list[str]
    field_columns: list[str]


class _ChildMetadata(msgspec.Struct):
    """What a file beside an output of ours says of itself."""

    table: str


class _Columns:
    """Which columns of a file are read, and what becomes of them."""

    def __init__(self, path: str, file: Any, options: ListOptions, *, whole: bool = False) -> None:
        self.large = False  # the batch under way may have a row that is too large
        self.undecodable = False  # the batch under way has text that is not UTF-8
        self._path = path
        schema = file.schema_arrow
        listed: list[str] = list(schema.names)
        self._carry = options.carry
        self._table: Any = None
        try:
            at, _ = find_url(listed, options.url_column)
            if is_record(listed) and not whole:
                chosen = self._chosen_of_record(listed, schema.metadata or {})
            elif options.carry is None:
                chosen = list(range(len(listed)))
            else:
                chosen = find_carried(listed, options.carry)
        except ColumnError as error:
            raise SourceError(f"{path}: {error}") from None
        unique = distinct(listed)
        self.url_name = unique[at]
        if not _is_text(schema.field(at).type):
            raise SourceError(f"{path}: column {self.url_name!r} is {_shown(schema.field(at).type)}, not text")
        self.names = list(dict.fromkeys(listed[index] for index in (*chosen, at)))
        self._url_at = self._place(listed, at)
        self._fields = [(unique[index], *self._place(listed, index)) for index in chosen if index != at]

    def _chosen_of_record(self, listed: Sequence[str], metadata: dict[bytes, bytes]) -> list[int]:
        """Return the columns of an output of ours that hold what it carried; with names to carry, all of them."""
        from fetcher.sources.records import RecordTable

        own: dict[str, str] | None = None
        try:
            told = msgspec.json.decode(metadata[_METADATA_KEY], type=_Metadata)
            own = dict(zip(told.field_columns, told.fields, strict=True))
        except (KeyError, ValueError):  # then they are told by their names
            pass
        self._table = RecordTable(listed, own=own)
        wanted = {*self._table.fields, "fields", *(self._carry or ())}
        return [index for index, name in enumerate(listed) if name in wanted]

    @staticmethod
    def _place(listed: Sequence[str], index: int) -> tuple[str, int]:
        """Return the name of a column, and how many of that name stand before it."""
        return listed[index], listed[:index].count(listed[index])

    def rows(self, batch: Any, row: int) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Yield the URL and the fields of each row; ``row`` are those before the batch."""
        self.large = batch.nbytes > MAX_ROW_BYTES
        self.undecodable = False
        urls = self._values(batch, *self._url_at, row)
        names = [name for name, *_ in self._fields]
        columns = [self._values(batch, name, nth, row) for _, name, nth in self._fields]
        table, carry = self._table, self._carry
        for at, url in enumerate(urls):
            fields = dict(zip(names, (column[at] for column in columns), strict=True))
            yield url, fields if table is None else table.fields_of({**fields, self.url_name: url}, carry)

    def _values(self, batch: Any, name: str, nth: int, row: int) -> list[Any]:
        """Return the values of a column in what JSON can hold."""
        array = batch.column([at for at, each in enumerate(batch.schema.names) if each == name][nth])
        values, decodable = _values_of(
            array, f"{self._path}:row {row + 1}: column {name!r}", " (--carry NAMES leaves columns out)"
        )
        self.undecodable |= not decodable
        return values


def _values_of(array: Any, where: str, advice: str = "") -> tuple[list[Any], bool]:
    """Return the values of a column in what JSON can hold, and whether all of its text is UTF-8. Raises ``SourceError``."""
    from pyarrow.compute import CastOptions

    simple = _simple(array.type)
    try:
        if simple != array.type:
            array = array.cast(options=CastOptions(simple, allow_time_truncate=True))
        values: list[Any] = array.to_pylist()
    except UnicodeDecodeError:
        return _undecoded(array), False
    except (ArithmeticError, ValueError, TypeError, NotImplementedError) as error:  # ArrowInvalid is a ValueError
        raise SourceError(f"{where} ({_shown(array.type)}) cannot be read: {_first_line(error)}{advice}") from None
    return values if _is_plain(simple) else list(map(_plain, values)), True


def _holds(array: Any) -> list[bool]:
    """Return of each value whether it holds something."""
    import pyarrow as pa
    from pyarrow import compute

    valid = array.is_valid()
    if _is_text(array.type):
        nothing = pa.array([value.encode() for value in HOLDS_NOTHING], pa.binary())
        filled = compute.invert(compute.is_in(array.cast(pa.binary()), nothing))
        valid = compute.and_(valid, filled)
    elif pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        valid = compute.and_(valid, compute.greater(compute.list_value_length(array).fill_null(0), 0))
    found: list[bool] = valid.to_pylist()
    return found


def _batch_size(group: Any) -> int:
    """Return how many rows of a row group are decoded at once.

    By the size of all of its columns: asking for that of one aborts the process where the column is encrypted.
    """
    return int(max(1, min(_BATCH_ROWS, _BATCH_BYTES * group.num_rows // max(1, group.total_byte_size))))


def _simple(kind: Any) -> Any:
    """Return the type of pyarrow as which a column is read: its values are Python's own, without a loss but beyond a µs."""
    import pyarrow as pa

    is_ = pa.types
    if is_.is_dictionary(kind):
        return _simple(kind.value_type)
    if is_.is_timestamp(kind):
        return pa.timestamp("us", "UTC" if kind.tz else None)
    if is_.is_time64(kind):
        return pa.time64("us")
    if is_.is_duration(kind):
        return pa.duration("us")
    if is_.is_float16(kind):
        return pa.float32()
    if is_.is_struct(kind):
        return pa.struct([field.with_type(_simple(field.type)) for field in kind])
    if is_.is_map(kind):
        return pa.map_(_simple(kind.key_type), _simple(kind.item_type))
    if is_.is_large_list(kind):
        return pa.large_list(_simple(kind.value_type))
    if is_.is_list(kind) or is_.is_fixed_size_list(kind):
        return pa.list_(_simple(kind.value_type))
    return kind


def _plain(value: Any) -> Any:
    """Return a value of Python's as one that JSON can hold."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, bytes):
        return text_of_bytes(value)
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):  # a map is a list of pairs
        return list(map(_plain, value))
    return str(value)  # a decimal, a UUID


def _undecoded(array: Any) -> list[Any]:
    """Return the texts of a column that are not all UTF-8, a lone surrogate for each byte that is none."""
    import pyarrow as pa

    if not _is_text(array.type):
        return [f"{item}" for item in array]
    values = array.cast(pa.large_binary()).to_pylist()
    return [None if value is None else value.decode("utf-8", "surrogateescape") for value in values]


def _well_formed(value: Any) -> Any:
    return replaced(value) if isinstance(value, str) else value


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return kind in (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view())


def _is_plain(kind: Any) -> bool:
    """Tell whether JSON can hold each value of a type as it is."""
    import pyarrow as pa

    is_ = pa.types
    plain = is_.is_integer(kind) or is_.is_floating(kind) or is_.is_boolean(kind) or is_.is_null(kind)
    return plain or kind in (pa.string(), pa.large_string(), pa.string_view())


def _shown(kind: Any) -> str:
    """Return the name of a type, without what is within it."""
    return str(kind).partition("<")[0].partition("[")[0]


def _next(batches: Iterator[Any], path: str, row: int) -> Any:
    """Return the next batch, ``None`` at the end. Raises ``SourceError`` where it cannot be read."""
    try:
        return next(batches, None)
    except (OSError, ValueError, NotImplementedError, MemoryError) as error:
        raise SourceError(f"{path}:row {row + 1}: {_reason(error)}") from None


@contextmanager
def _open(path: str) -> Iterator[Any]:
    """Open a Parquet file and read its footer; one in a store by ranges. Raises ``SourceError``."""
    stored: Any = None
    if is_store_url(path):
        from fetcher.store.reading import StoreReader

        stored = StoreReader(path, SourceError).open()
        _check_ends(path, stored, stored.size)
    else:
        _check_file(path)
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise SourceError(f"{path}: {missing_extra('pyarrow', 'parquet')}") from None
    try:
        source = pa.OSFile(os.fsencode(path)) if stored is None else pa.PythonFile(stored, mode="r")
        file = parquet.ParquetFile(source, buffer_size=_READ_BYTES, pre_buffer=False)
    except (OSError, ValueError, NotImplementedError, MemoryError) as error:
        raise SourceError(f"{path}: {_reason(error)}") from None
    with source, file:
        yield file


def _check_file(path: str) -> None:
    """Raise ``SourceError`` for what shows without a library that it is no whole Parquet file."""
    try:
        with open(path, "rb") as file:
            _check_ends(path, file, os.fstat(file.fileno()).st_size)
    except IsADirectoryError:
        raise SourceError(
            f"{path}: is a folder, not a Parquet file; name the files in it ({os.path.join(path, '*.parquet')})"
        ) from None
    except OSError as error:
        raise SourceError(f"{path}: {reason_of(error)}") from None
    except ValueError:  # a NUL in the name
        raise SourceError(f"{path!r}: no such file") from None


def _check_ends(path: str, file: Any, size: int) -> None:
    head = file.read(4)
    file.seek(max(0, size - 4))
    tail = file.read(4)
    file.seek(0)
    if not head:
        raise SourceError(f"{path}: is empty, not a Parquet file")
    if _MAGIC_ENCRYPTED in (head, tail):
        raise SourceError(f"{path}: is encrypted; give a copy that is not")
    if head != _MAGIC:
        packing = packing_of_data(head)
        hint = f" but {packing}, which is to be unpacked first" if packing else ""
        raise SourceError(f"{path}: is not Parquet data{hint}")
    if tail != _MAGIC:
        raise SourceError(f"{path}: is cut short: a Parquet file ends with its footer, and this one has none")


def _reason(error: BaseException) -> str:
    """Return in one line why the library cannot read a file."""
    text = _first_line(error)
    if "crypt" in text.lower():
        return f"is encrypted; give a copy that is not ({text})"
    return f"is damaged Parquet data, or of a kind that cannot be read ({text})"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
