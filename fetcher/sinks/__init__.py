"""Where outcomes go: one file a format, each an ``async with`` that takes one outcome after another.

Law 2: an output that cannot be written ends the run (``SinkError``), for data would be lost.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from fetcher.compression import SUFFIXES as COMPRESSED
from fetcher.errors import ConfigError
from fetcher.model import Sink
from fetcher.sinks.durable import DurableFile
from fetcher.sinks.job_output import JobOutput, Mark, Rewrite
from fetcher.sinks.jsonl import JSONLSink
from fetcher.sinks.layout import COLUMNS, Layout, Record, to_json, to_record
from fetcher.sinks.opening import check_path, display_name, is_special
from fetcher.sinks.stream import OutputStream, StreamSink, compressor_for
from fetcher.store import is_store_url
from fetcher.terminal import printable

if TYPE_CHECKING:
    from fetcher.sinks.child_tables import ChildTable

__all__ = [
    "COLUMNS",
    "FORMATS",
    "SUFFIXES",
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
    "check_store",
    "companions",
    "format_of",
    "may_be_folder",
    "needs_messages",
    "open_job_output",
    "open_job_outputs",
    "open_sink",
    "printable",
    "sink_for",
    "stream_sink",
    "to_json",
    "to_record",
]

FORMATS = ("text", "jsonl", "csv", "parquet", "sqlite", "warc")
SUFFIXES = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".txt": "text", ".text": "text", ".parquet": "parquet",
    ".sqlite": "sqlite",
}  # fmt: skip
"""Suffix -> format. Each but those of ``BATCHED`` may be followed by ``.gz`` or ``.zst``."""
PACKED_SUFFIXES = {".warc.gz": "warc"}
"""The same for formats that are compressed in one way alone."""

BATCHED = frozenset({"parquet", "sqlite"})
"""Formats that are no stream of bytes: written a batch at a time, to files alone."""

_MEANT = {
    "json": "jsonl, one JSON record a line",
    **dict.fromkeys(("sqlite3", "db", "db3", "sql"), "sqlite"),
    **dict.fromkeys(("tsv", "tab", "xlsx", "xls"), "csv"),
    **dict.fromkeys(("log", "md"), "text"),
    **dict.fromkeys(("pq", "arrow", "feather"), "parquet"),
    "warc": "warc.gz",
}
"""What may be asked for -> what may be meant."""


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
    if is_store_url(os.fspath(path)):
        raise ConfigError(f"{os.fspath(path)}: is written by a job alone, which knows what is there: Job(fetcher, …)")
    kind = format_of(path, format)
    if kind in BATCHED:
        text = os.fspath(path)
        from fetcher.sinks.batch_sink import BatchSink  # a job does without

        return BatchSink(text, lambda work: _batched_outputs(text, layout, kind, work), fresh=fresh)
    return stream_sink(path, layout, kind, fresh=fresh)


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
    if is_store_url(text):
        return _store_output(text, layout, work, format_of(text, format))
    if is_special(text):
        raise ConfigError(f"{display_name(text)}: a job writes to regular files alone: name one, or run without a job")
    kind = format_of(text, format)
    if kind in BATCHED:
        return _batched_output(text, layout, kind, work=work)
    if kind == "warc":
        from fetcher.sinks.warc import WARCOutput, WARCSink

        return WARCOutput(text, WARCSink(text, layout), work=work)
    return DurableFile(text, stream_sink(text, layout, kind, fresh=False))


def open_job_outputs(
    paths: Iterable[str | os.PathLike[str]],
    layout: Layout,
    *,
    work: Callable[[int], str],
    format: str | None = None,  # noqa: A002  # the option's own name
) -> list[JobOutput]:
    """Return a job's outputs at ``paths``, each with its companions behind it; ``work`` says where the Nth one may work.

    See ``open_job_output``.
    """
    outputs: list[JobOutput] = []
    for path in [os.fspath(each) for each in paths]:
        outputs.append(open_job_output(path, layout, work=work(len(outputs)), format=format))
        if format_of(path, format) != "parquet":  # no other has tables that are files of their own
            continue
        for child, place in companions(path, layout.columns, format=format):
            outputs.append(_companion(place, layout, child, work=work(len(outputs))))
    return outputs


def companions(
    path: str,
    columns: Iterable[str],
    *,
    format: str | None = None,  # noqa: A002  # the option's own name
) -> list[tuple[ChildTable, str]]:
    """Return what stands beside an output at ``path`` for records with these columns, and where: tables of Parquet."""
    columns = tuple(columns)
    if not columns:
        return []
    from fetcher.sinks.child_tables import child_tables, companion_path  # most runs have no such columns

    children = child_tables(columns)
    if not children or is_store_url(path) or format_of(path, format) != "parquet":
        return []
    from fetcher.sinks.parquet_output import is_folder

    place = f"{path.rstrip(os.sep)}{os.sep}" if is_folder(path) else path
    return [(child, companion_path(place, child.name)) for child in children]


def may_be_folder(path: str, format: str | None = None) -> bool:  # noqa: A002  # as above
    """Say whether an output at ``path`` may be a folder of files: where it is Parquet."""
    if is_store_url(path):
        return True
    if format is None and not path.rstrip(os.sep).lower().endswith(".parquet"):
        return False
    return format_of(path, format) == "parquet"


def as_names(names: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return names, each once, in their order; ``None`` stays what it is."""
    return None if names is None else tuple(dict.fromkeys(names))


def _batched_outputs(path: str, layout: Layout, kind: str, work: str) -> list[JobOutput]:
    outputs = [_batched_output(path, layout, kind, work=os.path.join(work, "pages"))]
    for child, place in companions(path, layout.columns, format=kind):
        outputs.append(_companion(place, layout, child, work=os.path.join(work, child.name)))
    return outputs


def _companion(path: str, layout: Layout, child: ChildTable, *, work: str) -> JobOutput:
    from fetcher.sinks.parquet_output import ParquetOutput

    return ParquetOutput(path, layout, work=work, child=child)


def _batched_output(path: str, layout: Layout, kind: str, *, work: str) -> JobOutput:
    if kind == "parquet":
        from fetcher.sinks.parquet_output import ParquetOutput

        return ParquetOutput(path, layout, work=work)
    from fetcher.sinks.sqlite_format import SQLiteOutput

    return SQLiteOutput(path, layout)


def needs_messages(path: str | os.PathLike[str], format: str | None = None) -> bool:  # noqa: A002  # as above
    """Say whether an output needs what ``Config.keep_messages`` keeps, whatever else is wrong with it."""
    return format == "warc" or (format is None and os.fspath(path).lower().endswith(".warc.gz"))


def stream_sink(path: str | os.PathLike[str], layout: Layout, kind: str, *, fresh: bool = False) -> StreamSink:
    """Return the sink of a format that is a stream of bytes."""
    match kind:
        case "csv":
            from fetcher.sinks.csv_format import CSVSink

            return CSVSink(path, layout, fresh=fresh)
        case "jsonl":
            return JSONLSink(path, layout, fresh=fresh)
        case "warc":
            from fetcher.sinks.warc import WARCSink

            return WARCSink(path, layout, fresh=fresh)
        case _:
            from fetcher.sinks.text import TextSink

            return TextSink(path, layout, fresh=fresh)


def check_output(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002  # the option's own name
    fresh: bool = False,
    columns: Iterable[str] = (),
) -> None:
    """Check before a run, changing nothing, that ``open_sink`` and entering its sink would succeed.

    ``columns`` are those that records have beyond the usual ones. Raises ``ConfigError`` for an unknown format or a
    file that would be overwritten, ``SinkError`` for a path that cannot be written.
    """
    text = os.fspath(path)
    kind = format_of(text, format)
    if is_store_url(text):
        check_store(text, kind, columns)
        return
    if kind == "warc":
        from fetcher.sinks.warc import check_archive

        check_archive(text, fresh=fresh)
    elif kind == "parquet":
        from fetcher.sinks.parquet_output import check_place

        check_place(text, fresh=fresh)
        for _, place in companions(text, columns, format=kind):
            check_place(place, fresh=fresh)
        return
    else:
        compressor_for(text)
    check_path(text, fresh=fresh)


def format_of(path: str | os.PathLike[str], format: str | None = None) -> str:  # noqa: A002  # as above
    """Return one of ``FORMATS``: what is asked for, else by the suffix, else text for stdout and devices.

    Raises ``ConfigError`` naming what is known, and for a format that cannot be written there.
    """
    text = os.fspath(path)
    if is_store_url(text):
        return _format_in_store(text, format)
    own = next((kind for suffix, kind in PACKED_SUFFIXES.items() if text.lower().endswith(suffix)), None)
    if own is not None and format is None:
        return own
    name = PurePath(text.lower())
    packed = name.suffix in COMPRESSED
    suffix = PurePath(name.stem).suffix if packed else name.suffix
    kind = format if format is not None else SUFFIXES.get(suffix, "text" if is_special(text) else "")
    if kind in BATCHED:
        if is_special(text):
            raise ConfigError(f"{display_name(text)}: {kind} is no stream: name a file with -o, such as pages.{kind}")
        if packed:
            raise ConfigError(f"{text}: {kind} is not packed while it is written: leave out {name.suffix}")
    if kind in FORMATS:
        return kind
    asked = kind or suffix.removeprefix(".")
    hint = f" (did you mean {_MEANT[asked]}?)" if asked in _MEANT else ""
    if format is not None:
        raise ConfigError(f"unknown format {format!r}{hint}: there are {', '.join(FORMATS)}")
    raise ConfigError(
        f"{text}: unknown suffix {suffix!r}{hint}: there are {', '.join(SUFFIXES)}, the text formats also with "
        f"{' or '.join(COMPRESSED)}, and {', '.join(PACKED_SUFFIXES)}; or name the format ({', '.join(FORMATS)})"
    )


_STORE_FORMATS = ("jsonl", "csv", "parquet", "warc")


def _format_in_store(url: str, format: str | None) -> str:  # noqa: A002  # as above
    """Return the format of the parts of an output in a store, which has no suffix that would tell it."""
    name = url.rstrip("/").rpartition("/")[2].lower()
    known = [*SUFFIXES, *PACKED_SUFFIXES, *COMPRESSED]
    if not url.endswith("/") and any(name.endswith(suffix) for suffix in known):
        raise ConfigError(
            f"{url}: in a store an output is a folder of parts: name a prefix, such as {url.rpartition('/')[0]}/pages/, "
            "and its format with -f"
        )
    if format is None:
        raise ConfigError(f"{url}: name the format of the parts with -f: {', '.join(_STORE_FORMATS)}")
    if format not in _STORE_FORMATS:
        raise ConfigError(f"{url}: {format} is not written to a store: there are {', '.join(_STORE_FORMATS)}")
    return format


def _store_output(url: str, layout: Layout, work: str, kind: str) -> JobOutput:
    from fetcher.sinks.store_output import StoreOutput
    from fetcher.sinks.store_parts import FORMATS as PART_SUFFIXES

    try:
        sink = None if kind == "parquet" else stream_sink(f"part{PART_SUFFIXES[kind]}", layout, kind)
        return StoreOutput(url, layout, work=work, kind=kind, sink=sink)
    except ConfigError as error:
        raise ConfigError(f"{url}: {error}") from None


def check_store(url: str, kind: str, columns: Iterable[str] = ()) -> None:
    """Check, asking no store, that parts can be put under ``url``. Raises ``ConfigError``."""
    from fetcher.store.calls import StoreCalls

    StoreCalls(url, ConfigError).check_installed()
    if kind != "parquet":
        return
    from fetcher.sinks.child_tables import child_tables  # of a format that may have some

    if children := child_tables(columns):
        raise ConfigError(
            f"{url}: the rows of {', '.join(child.name for child in children)} are a table of their own, and in a store "
            "Parquet has one alone: write jsonl, or leave them out"
        )
