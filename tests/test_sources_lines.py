from __future__ import annotations

import io
import random
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from backports import zstd

from fetcher.errors import SourceError
from fetcher.sources import read
from fetcher.sources.lines import MAX_LINE_BYTES, READ_BYTES, OverlongLine, whole_lines


def lines_of(blocks: list[bytes]) -> list[bytes | OverlongLine]:
    found: list[bytes | OverlongLine] = []
    for piece in whole_lines(iter(blocks)):
        found.extend([piece] if isinstance(piece, OverlongLine) else piece.split(b"\n"))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_lines_do_not_depend_on_where_blocks_end(seed: int) -> None:
    choice = random.Random(seed)
    sizes = [0, 1, 10, 1000, MAX_LINE_BYTES - 1, MAX_LINE_BYTES, MAX_LINE_BYTES + 1, 3 * MAX_LINE_BYTES]
    lines = [choice.choice([b"x", b'"']) * choice.choice(sizes) for _ in range(30)]
    data = b"\n".join([*lines, b"end"]) + choice.choice([b"", b"\n"])
    blocks = []
    at = 0
    while at < len(data):
        size = choice.choice([1, 7, 5000, READ_BYTES, READ_BYTES])
        blocks.append(data[at : at + size])
        at += size
    expected = [
        OverlongLine(line[:MAX_LINE_BYTES], line.count(b'"')) if len(line) > MAX_LINE_BYTES else line
        for line in [*lines, b"end"]
    ]
    assert lines_of(blocks) == expected


def test_lines_of_nothing_and_of_line_ends() -> None:
    assert lines_of([]) == []
    assert lines_of([b""]) == []
    assert lines_of([b"\n"]) == [b""]
    assert lines_of([b"a", b"\n", b"\n", b"b"]) == [b"a", b"", b"b"]
    assert lines_of([b"x" * MAX_LINE_BYTES, b"x", b"\n", b"b\n"]) == [OverlongLine(b"x" * MAX_LINE_BYTES, 0), b"b"]


def test_what_is_flushed_is_a_row_before_the_end() -> None:
    pack = zlib.compressobj(wbits=31)
    flushed = pack.compress(b"a.example\n") + pack.flush(zlib.Z_SYNC_FLUSH)

    class Stream(io.RawIOBase):
        blocks: Iterator[bytes] = iter([flushed])

        def read(self, size: int = -1) -> bytes:
            return next(self.blocks)  # a second read would block

    assert next(read(["-"], stdin=Stream())).url == "a.example"  # type: ignore[union-attr,arg-type]  # a Request; a raw stream


def test_zstd_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    path = tmp_path / "urls.zst"
    path.write_bytes(zstd.compress(b"a.example\n"))
    with pytest.raises(SourceError) as caught:
        list(read([str(path)]))
    assert str(caught.value) == f"{path}: zstandard is not installed: pip install 'fetcher-crawl[speed]'"


def test_a_stdin_that_is_closed_or_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a.example\n")))
    assert [row.url for row in read(["-"])] == ["a.example"]  # type: ignore[union-attr]  # a Request
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SourceError, match=r"^stdin: is closed$"):
        list(read(["-"]))
