"""Where outcomes go: one file a format, each an ``async with`` that takes one outcome after another.

Law 2: an output that cannot be written ends the run (``SinkError``), for data would be lost.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PurePath

from fetcher.compression import SUFFIXES as COMPRESSED
from fetcher.errors import ConfigError
from fetcher.model import Sink
from fetcher.sinks.body_folder import BodyFile, BodyFolder
from fetcher.sinks.durable import DurableFile
from fetcher.sinks.escape import printable
from fetcher.sinks.job_output import JobOutput, Mark, Rewrite
from fetcher.sinks.jsonl import JSONLSink
from fetcher.sinks.layout import Layout
from fetcher.sinks.opening import check_path, display_name, is_special
from fetcher.sinks.record import COLUMNS, Record, to_json, to_record
from fetcher.sinks.stream import OutputStream, StreamSink, compressor_for

__all__ = [
    "COLUMNS",
    "FORMATS",
    "SUFFIXES",
    "BodyFile",
    "BodyFolder",
    "DurableFile",
    "JSONLSink",
    "JobOutput",
    "Layout",
    "Mark",
    "OutputStream",
    "Record",
    "Rewrite",
    "StreamSink",
    "check_output",
    "format_of",
    "may_be_folder",
    "open_job_output",
    "open_sink",
    "printable",
    "sink_for",
    "to_json",
    "to_record",
]

FORMATS = ("text", "jsonl", "csv", "parquet")
SUFFIXES = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".txt": "text", ".text": "text", ".parquet": "parquet",
}  # fmt: skip
"""Suffix -> format. Each but Parquet's may be followed by ``.gz`` or ``.zst``."""

BATCHED = frozenset({"parquet"})
"""Formats that are no stream of bytes: written a batch at a time, to files alone."""


def open_sink(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002  # the option's own name
    fresh: bool = False,
    fields: Sequence[str] | None = None,
    select: Sequence[str] | None = None,
) -> Sink:
    """Return the sink for ``path``, in ``format`` or in the one its suffix names; it opens when it is entered.

    ``fresh`` overwrites a file that exists. ``fields`` and ``select`` are the columns of a table (see ``CSVSink``).
    Raises ``ConfigError`` for a format that is unknown or not installed.
    """
    return sink_for(path, Layout(fields=as_names(fields), select=as_names(select) or ()), format=format, fresh=fresh)


def sink_for(
    path: str | os.PathLike[str],
    layout: Layout,
    *,
    format: str | None = None,  # noqa: A002  # the option's own name
    fresh: bool = False,
) -> Sink:
    """Return the sink for records of a ``layout``; see ``open_sink``."""
    kind = format_of(path, format)
    if kind in BATCHED:
        from fetcher.sinks.batch_sink import BatchSink

        text = os.fspath(path)
        _check_batched(text)
        return BatchSink(text, lambda work: _batched_output(text, layout, work=work), fresh=fresh)
    return _stream_sink(path, layout, kind, fresh=fresh)


def open_job_output(
    path: str | os.PathLike[str],
    layout: Layout,
    *,
    work: str,
    format: str | None = None,  # noqa: A002  # the option's own name
) -> JobOutput:
    """Return a job's output at ``path``, in the format that ``open_sink`` would take; nothing is opened yet.

    ``work`` is where a format keeps what is committed and not yet in the output: a folder that it makes and removes.
    Raises ``ConfigError`` as ``open_sink`` does, and for standard output, a FIFO or a device: none can be cut back.
    """
    text = os.fspath(path)
    if is_special(text):
        raise ConfigError(f"{display_name(text)}: a job writes to regular files alone: name one, or run without a job")
    kind = format_of(text, format)
    if kind in BATCHED:
        _check_batched(text)
        return _batched_output(text, layout, work=work)
    return DurableFile(text, _stream_sink(text, layout, kind, fresh=False))


def may_be_folder(path: str, format: str | None = None) -> bool:  # noqa: A002  # as above
    """Say whether an output at ``path`` may be a folder of files: where it is Parquet."""
    if format is None and not path.rstrip(os.sep).lower().endswith(".parquet"):
        return False
    return format_of(path, format) == "parquet"


def as_names(names: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return names, each once, in their order; ``None`` stays what it is."""
    return None if names is None else tuple(dict.fromkeys(names))


def _batched_output(path: str, layout: Layout, *, work: str) -> JobOutput:
    from fetcher.sinks.parquet_output import ParquetOutput

    return ParquetOutput(path, layout, work=work)


def _check_batched(path: str) -> None:
    """Refuse a path that no format of ``BATCHED`` can be written to, whatever is there. Raises ``ConfigError``."""
    if is_special(path):
        raise ConfigError(f"{display_name(path)}: Parquet is written to regular files alone: name one with -o")
    if path.lower().endswith(tuple(COMPRESSED)):
        raise ConfigError(f"{path}: Parquet is compressed in itself: leave out {path[path.rfind('.') :]}")


def _stream_sink(path: str | os.PathLike[str], layout: Layout, kind: str, *, fresh: bool) -> StreamSink:
    match kind:
        case "csv":
            from fetcher.sinks.csv_format import CSVSink

            return CSVSink(path, layout, fresh=fresh)
        case "jsonl":
            return JSONLSink(path, layout, fresh=fresh)
        case _:
            from fetcher.sinks.text import TextSink

            return TextSink(path, layout, fresh=fresh)


def check_output(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002  # the option's own name
    fresh: bool = False,
) -> None:
    """Check before a run, changing nothing, that ``open_sink`` and entering its sink would succeed.

    Raises ``ConfigError`` for an unknown format or a file that would be overwritten, ``SinkError`` for a path that
    cannot be written.
    """
    text = os.fspath(path)
    if format_of(path, format) in BATCHED:
        _check_batched(text)
        from fetcher.sinks.parquet_output import check_place

        check_place(text, fresh=fresh)
        return
    compressor_for(text)
    check_path(text, fresh=fresh)


def format_of(path: str | os.PathLike[str], format: str | None = None) -> str:  # noqa: A002  # as above
    """Return one of ``FORMATS``: what is asked for, else by the suffix, else text for stdout and devices.

    Raises ``ConfigError`` naming what is known.
    """
    if format is not None:
        if format not in FORMATS:
            raise ConfigError(f"unknown format {format!r}: there are {', '.join(FORMATS)}")
        return format
    text = os.fspath(path)
    name = PurePath(text.lower())
    suffix = PurePath(name.stem).suffix if name.suffix in COMPRESSED else name.suffix
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    if is_special(text):
        return "text"
    raise ConfigError(
        f"{text}: unknown suffix {suffix!r}: there are {', '.join(SUFFIXES)}, each also with "
        f"{' or '.join(COMPRESSED)}; or name the format ({', '.join(FORMATS)})"
    )
