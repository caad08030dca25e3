"""Owns what must hold of an output whatever befell its job: each row's record once, and nothing torn.

Law 1: a record is read as strictly as its format allows, to the last byte of the file. Law 2: the reading is done
here, by the standard library and the codec alone, and by nothing of what is being judged.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import importlib
import io
import json
import sqlite3
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

__all__ = ["FORMATS", "PART_ROWS", "Found", "Row", "Verdict", "digest_of", "judge", "output_words", "reader_of"]


class Row(NamedTuple):
    """A row of the list: its URL, and the codes its record may have (``None``: a page). ``()`` means any."""

    url: str
    codes: Collection[str | None] = ()


class Found(NamedTuple):
    """What a record says of itself."""

    id: int
    url: str
    error: str | None
    body_path: str | None = None
    digest: str | None = None
    links: int | None = None


CHILD_TABLES = ("links", "images")
"""Tables beside that of the pages, in which a page of the sweeps' site has as many rows as it says to have links."""

PART_ROWS = 70
"""Rows of a part of a folder, in the sweeps."""

Reader = Callable[[Path], Iterator[Found | None]]
"""Gives the records of a file in their order, and ``None`` for each that is torn."""


@dataclass
class Verdict:
    """What became of the rows: how many have no record, more than one, a torn one, or somebody else's."""

    rows: int
    records: int = 0
    lost: int = 0
    twice: int = 0
    torn: int = 0
    wrong: int = 0
    remarks: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether each row has its one whole record."""
        return not (self.lost or self.twice or self.torn or self.wrong)

    def __str__(self) -> str:
        counts = f"{self.records} records of {self.rows} rows: {self.lost} lost, {self.twice} twice, {self.torn} torn"
        return "; ".join([f"{counts}, {self.wrong} wrong", *self.remarks[:3]])


def judge(path: Path, rows: Sequence[Row], *, bodies: Path | None = None, tables: bool = False) -> Verdict:
    """Hold the output against its list. A missing output has lost all; its format is named by its suffix.

    With a folder of ``bodies`` each page's must be there, whole; a record that names another is torn. With ``tables``
    those beside the pages must have the rows of each page and no others, where the format has such.
    """
    verdict = Verdict(len(rows))
    seen: Counter[int] = Counter()
    expected: Counter[int] = Counter()
    for found in reader_of(path)(path) if path.exists() else ():
        if found is None:
            verdict.torn += 1
            continue
        verdict.records += 1
        if not 1 <= found.id <= len(rows):
            verdict.wrong += 1
            verdict.remarks.append(f"there is no row {found.id}")
            continue
        seen[found.id] += 1
        expected[found.id] += found.links or 0
        row = rows[found.id - 1]
        if found.url != row.url or (row.codes and found.error not in row.codes):
            verdict.wrong += 1
            verdict.remarks.append(f"row {found.id} is {row.url}, not {found.url} with {found.error}")
        if bodies is not None and (trouble := _trouble_with_body(bodies, found)):
            verdict.torn += 1
            verdict.remarks.append(f"row {found.id}: {trouble}")
    if bodies is not None and (left := [each.name for each in bodies.glob(".incoming-*")]):
        verdict.torn += 1
        verdict.remarks.append(f"{left[0]} is left")
    if tables and path.exists() and (reader := _child_reader(path)) is not None:
        for table in CHILD_TABLES:
            _judge_table(verdict, table, reader(table), expected)
    verdict.lost = len(rows) - len(seen)
    verdict.twice = sum(count - 1 for count in seen.values())
    return verdict


def output_words(path: Path, suffix: str) -> list[str]:
    """Return the words of a command that writes to ``path``; a ``suffix`` that ends in a slash is a folder of parts.

    Where the format has tables beside the pages, they are asked for.
    """
    words = ["-o", f"{path}/", "--part-rows", str(PART_ROWS)] if suffix.endswith("/") else ["-o", str(path)]
    return words if _child_reader(path) is None else [*words, "--with", ",".join(CHILD_TABLES)]


def digest_of(path: Path) -> bytes:
    """Return a digest of a file, or of all files in a folder, and of what stands beside it."""
    places = [path, *(place for table in CHILD_TABLES if (place := _beside(path, table)).exists())]
    files = [file for place in places for file in (sorted(place.iterdir()) if place.is_dir() else [place])]
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).digest()


def reader_of(path: Path) -> Reader:
    """Return the reader for the longest suffix of ``path`` that has one; raises ``KeyError`` without one."""
    known = [suffix for suffix in FORMATS if path.name.endswith(suffix)]
    if not known:
        raise KeyError(f"{path.name}: no reader; there are {', '.join(FORMATS)}")
    return FORMATS[max(known, key=len)]


def _judge_table(verdict: Verdict, table: str, found: Iterator[tuple[int, int] | None], expected: Counter[int]) -> None:
    """See that each page has its rows in a table once: the positions from 0 up to how many it says to have."""
    places: Counter[tuple[int, int]] = Counter()
    for place in found:
        if place is None:
            verdict.torn += 1
            verdict.remarks.append(f"{table} cannot be read")
        else:
            places[place] += 1
    wanted = {(id_, position) for id_, count in expected.items() for position in range(count)}
    for place, count in places.items():
        if count > 1 or place not in wanted:
            verdict.wrong += 1
            verdict.remarks.append(f"{table} has row {place} {count} times")
    if missing := wanted - places.keys():
        verdict.torn += len(missing)
        verdict.remarks.append(f"{table} has no row {min(missing)}")


def _child_reader(path: Path) -> Callable[[str], Iterator[tuple[int, int] | None]] | None:
    """Return what gives id and position of each row of a table beside the pages; ``None`` where the format has none."""
    if path.name.endswith(".sqlite"):
        return lambda table: _sqlite_children(path, table)
    return (lambda table: _parquet_children(path, table)) if path.name.endswith(".parquet") else None


def _sqlite_children(path: Path, table: str) -> Iterator[tuple[int, int] | None]:
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        try:
            yield from db.execute(f"SELECT id, position FROM {table}")
        except sqlite3.Error:
            yield None


def _parquet_children(path: Path, table: str) -> Iterator[tuple[int, int] | None]:
    place = _beside(path, table)
    if not place.exists():
        yield None
        return
    for part in sorted(place.iterdir()) if place.is_dir() else [place]:
        try:
            found = importlib.import_module("pyarrow.parquet").read_table(part, partitioning=None)
            found.validate(full=True)
            for record in found.select(["id", "position"]).to_pylist():
                yield record["id"], record["position"]
        except (ValueError, KeyError, TypeError, OSError):
            yield None


def _beside(path: Path, table: str) -> Path:
    return path.with_name(f"{path.name.removesuffix('.parquet')}.{table}.parquet")


def _trouble_with_body(bodies: Path, found: Found) -> str:
    """Return what is wrong with the body that a record names; empty for nothing."""
    if found.error is not None:
        return f"a failure with {found.body_path}" if found.body_path else ""
    if not found.body_path or not (bodies / found.body_path).is_file():
        return f"{found.body_path} is not there"
    data = (bodies / found.body_path).read_bytes()
    opening = {".gz": _gzip_member, ".zst": _zstd_frame}.get(Path(found.body_path).suffix)
    pieces = [(data, True)] if opening is None else list(_pieces(data, opening))
    whole = all(complete for _, complete in pieces)
    digest = "sha256:" + hashlib.sha256(b"".join(piece for piece, _ in pieces)).hexdigest()
    return "" if whole and digest == found.digest else f"{found.body_path} is not {found.digest}"


# Records


def _json_lines(data: bytes) -> Iterator[Found | None]:
    lines = data.split(b"\n")
    for line in lines[:-1]:
        try:
            record = json.loads(line)
            id_ = _whole(record["id"])
            yield Found(id_, record["url"], record["error"], record.get("body_path"), record.get("digest"))
        except (ValueError, KeyError, TypeError):
            yield None
    if lines[-1]:
        yield None


def _csv_rows(data: bytes) -> Iterator[Found | None]:
    if not data:
        return
    if not data.endswith(b"\r\n"):
        yield None  # the last row has no end, whatever is in it
    try:
        table = csv.reader(io.StringIO(data.decode(), newline=""), strict=True)
        header = next(table)
        id_, url, error = (header.index(name) for name in ("id", "url", "error"))
        more = [header.index(name) for name in ("body_path", "digest") if name in header]
        for cells in table:
            try:
                named = [cells[place] or None for place in more] + [None, None]
                found = Found(int(cells[id_]), cells[url], cells[error] or None, named[0], named[1])
                yield found if len(cells) == len(header) else None
            except ValueError:
                yield None  # a header in the midst of the rows is one
    except (ValueError, csv.Error):
        yield None


def _sqlite_rows(path: Path) -> Iterator[Found | None]:
    if not path.stat().st_size:
        return
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        try:
            if db.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
                yield None
            known = {name for _, name, *_ in db.execute("pragma table_info(pages)")}
            more = ", ".join(name if name in known else "NULL" for name in ("body_path", "digest", "links"))
            for id_, url, error, *rest in db.execute(f"SELECT id, url, error, {more} FROM pages"):
                yield Found(_whole(id_), url, error, *rest)
        except sqlite3.Error:
            yield None


def _parquet_rows(path: Path) -> Iterator[Found | None]:
    """Read a file, or the parts of a folder; anything else in that is torn."""
    for part in sorted(path.iterdir()) if path.is_dir() else [path]:
        try:
            table = importlib.import_module("pyarrow.parquet").read_table(part, partitioning=None)
            table.validate(full=True)
            more = ("body_path", "digest", "links")
            wanted = ["id", "url", "error", *more]
            for record in table.select([name for name in wanted if name in table.column_names]).to_pylist():
                yield Found(_whole(record["id"]), record["url"], record["error"], *map(record.get, more))
        except (ValueError, KeyError, TypeError, OSError):
            yield None


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"no id: {value!r}")
    return value


# Compression


class Stream(Protocol):
    """A decompressor of one member or frame."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def _gzip_member() -> Stream:
    return zlib.decompressobj(31)


def _zstd_frame() -> Stream:
    try:
        zstd = importlib.import_module("compression.zstd")
    except ImportError:
        zstd = importlib.import_module("backports.zstd")
    stream: Stream = zstd.ZstdDecompressor()
    return stream


def _pieces(data: bytes, opening: Callable[[], Stream]) -> Iterator[tuple[bytes, bool]]:
    """Undo one member or frame after the other, and tell whether it is whole; behind one that is not, all is lost."""
    while data:
        stream = opening()
        try:
            text = stream.decompress(data)
        except Exception:  # zlib's and zstd's own errors have no class in common
            yield b"", False
            return
        yield text, stream.eof
        data = stream.unused_data


def _packed(opening: Callable[[], Stream], records: Callable[[bytes], Iterator[Found | None]]) -> Reader:
    def read(path: Path) -> Iterator[Found | None]:
        whole = bytearray()
        for text, complete in _pieces(path.read_bytes(), opening):
            if not complete or not text.endswith(b"\n"):
                yield None  # a member that ends within a record is no safe place to cut
            whole += text
        yield from records(bytes(whole))

    return read


def _plain(records: Callable[[bytes], Iterator[Found | None]]) -> Reader:
    return lambda path: records(path.read_bytes())


def _archive(path: Path) -> Iterator[Found | None]:
    """Give what a web archive says of each row last, and of a page what it said before as well: that is once too often.

    A member that is not one whole record is torn, and so is an index that does not name each response's place.
    """
    places: list[tuple[int, int]] = []
    last: dict[int, Found] = {}
    data = path.read_bytes()
    at = 0
    while at < len(data):
        stream = zlib.decompressobj(31)
        try:
            record = stream.decompress(data[at:])
        except zlib.error:
            yield None
            return
        end = len(data) - len(stream.unused_data)
        headers, block = _warc_record(record) if stream.eof else ({}, b"")
        if not headers:
            yield None
        elif headers["warc-type"] == "response":
            places.append((at, end - at))
        elif headers["warc-type"] == "metadata":
            (found,) = _json_lines(block + b"\n")
            if found is not None and (before := last.get(found.id)) is not None and before.error is None:
                yield before
            if found is None:
                yield None
            else:
                last[found.id] = found
        at = end
    yield from last.values()
    lines = [
        line.split(" ", 2)[2]
        for line in path.with_name(path.name.replace(".warc.gz", ".cdxj")).read_text().splitlines()
    ]
    if sorted((int(said["offset"]), int(said["length"])) for said in map(json.loads, lines)) != places:
        yield None


def _warc_record(record: bytes) -> tuple[dict[str, str], bytes]:
    """Return the headers, by lower-case name, and the block of a record; no headers for one that is not whole."""
    head, _, rest = record.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    block = rest[:-4]
    said = headers.get("warc-block-digest") or headers.get("warc-payload-digest")
    digested = block if "warc-block-digest" in headers else block.partition(b"\r\n\r\n")[2]
    digest = base64.b32encode(hashlib.sha1(digested).digest()).decode()
    whole = first == "WARC/1.1" and rest.endswith(b"\r\n\r\n") and headers.get("content-length") == str(len(block))
    return (headers, block) if whole and said == f"sha1:{digest}" else ({}, b"")


FORMATS: dict[str, Reader] = {
    ".jsonl": _plain(_json_lines),
    ".jsonl.gz": _packed(_gzip_member, _json_lines),
    ".jsonl.zst": _packed(_zstd_frame, _json_lines),
    ".csv": _plain(_csv_rows),
    ".csv.gz": _packed(_gzip_member, _csv_rows),
    ".csv.zst": _packed(_zstd_frame, _csv_rows),
    ".sqlite": _sqlite_rows,
    ".warc.gz": _archive,
    ".parquet": _parquet_rows,
    ".parquet/": _parquet_rows,
}
"""Suffix -> reader: a format joins the sweeps by its line here."""
