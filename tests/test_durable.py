from __future__ import annotations

import contextlib
import csv
import errno
import gzip
import io
import os
import resource
import stat
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fetcher.compression import Packing, compress
from fetcher.errors import ConfigError, FetcherError, SinkError
from fetcher.model import Outcome
from fetcher.sinks import COLUMNS, DurableFile, Layout, Mark, open_job_output
from fetcher.sinks import durable as durable_module
from fetcher.sinks.durable import Batch, lines_of
from fetcher.sinks.job_output import KeptRow
from fetcher.sinks.text import TextSink
from tests.test_sinks import failure, page

SUFFIXES = [kind + packing for kind in (".jsonl", ".csv", ".txt") for packing in ("", ".gz", ".zst")]
ADVICE = "put it back as it was, or begin again with --fresh"
each_format = pytest.mark.parametrize("suffix", SUFFIXES)


@pytest.fixture(autouse=True)
def _what_the_killed_leave_open(tmp_path: Path) -> Iterator[None]:
    yield
    for entry in Path("/proc/self/fd").glob("*"):
        with contextlib.suppress(OSError):
            if os.readlink(entry).startswith(str(tmp_path)):
                os.close(int(entry.name))


def unpacked(path: Path) -> bytes:
    """What a reader that is not ours makes of it."""
    return undone(path.suffix, path.read_bytes())


def undone(suffix: str, data: bytes) -> bytes:
    return {".gz": gzip.decompress, ".zst": zstd.decompress}.get(suffix, bytes)(data) if data else b""


def outcomes() -> Iterator[Outcome]:
    """Records that are hard to tell from each other's lines."""
    texts = ['a\r\n"b",\nc', "    x !! dns_not_found", "", "\r", '"', "=1+1\n", "ö\u2028\n\n    "]
    for row in count(1):
        text = texts[row % len(texts)]
        if row % 5 == 0:
            yield failure()
        else:
            fields = {"sku\n": text, "other": row}
            yield page(
                row, f"https://a.example/{row}", fields, title=text, preview=text * (row % 3), data={"h": [text]}
            )


def open_durable(
    path: Path | str,
    *,
    format: str | None = None,  # noqa: A002  # the option
    fields: Sequence[str] | None = None,
    select: Sequence[str] = (),
) -> DurableFile:
    layout = Layout(fields=None if fields is None else tuple(fields), select=tuple(select))
    output = open_job_output(path, layout, work=f"{path}.work", format=format)
    assert isinstance(output, DurableFile)
    return output


def kept(turns: Sequence[bool]) -> Iterator[KeptRow]:
    return iter([KeptRow(number, turn) for number, turn in enumerate(turns, 1)])


def opened(path: Path, mark: Mark | None = None, *, clean: bool = False, **options: Any) -> DurableFile:
    output = open_durable(path, **options)
    if mark is None:
        output.create()
    else:
        output.resume(mark, clean=clean)
    return output


def filled(path: Path, *sizes: int) -> tuple[DurableFile, Mark, list[bytes]]:
    """An output with batches of so many records, its mark, and the header and records that are in it."""
    output, mark, source = opened(path), Mark(), outcomes()
    records: list[bytes] = []
    for size in sizes:
        batch = [output.encode(outcome) for outcome in islice(source, size)]
        mark = output.append(batch)
        records += batch
    return output, mark, [header_of(path), *records]


def header_of(path: Path) -> bytes:
    if ".csv" not in path.name:
        return b""
    line = io.StringIO(newline="")
    csv.writer(line).writerow([*COLUMNS, "sku\n", "other"])
    return line.getvalue().encode()


@each_format
def test_every_batch_can_be_read_as_soon_as_it_is_appended(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    output, source, whole = opened(path), outcomes(), header_of(path)
    for size in (1, 3, 0, 40):
        batch = [output.encode(outcome) for outcome in islice(source, size)]
        mark = output.append(batch)
        whole += b"".join(batch)
        assert unpacked(path) == whole
        assert mark.position == path.stat().st_size
    output.discard()
    output.discard()


def test_a_table_reads_back_with_one_header(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    output, mark, _ = filled(path, 2, 2)
    output.discard()
    output = opened(path, mark, fields=["not", "these"])
    late = page(9, fields={"sku\n": "s", "new": 1})
    mark = output.append([output.encode(late)])
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["1", "2", "3", "4", "9"]
    assert (rows[-1]["sku\n"], rows[-1]["other"], rows[-1]["fields"]) == ("s", "", '{"new":1}')
    assert path.read_text().count(",final_url,") == 1
    assert mark.state == '["sku\\n", "other"]'


def test_a_table_with_known_columns_has_its_header_before_any_row(tmp_path: Path) -> None:
    output = opened(tmp_path / "a.csv", fields=["\udcff", "b"], select=["h"])
    mark = output.append([])
    assert (tmp_path / "a.csv").read_bytes().decode() == ",".join([*COLUMNS, "\ufffd", "b", "h"]) + "\r\n"
    output.discard()
    again = opened(tmp_path / "a.csv", mark, clean=True, select=["h"])
    row = again.encode(page(fields={"\udcff": "kept", "b": 2}))
    assert row.endswith(b",kept,2,\r\n")
    assert again.append([]) == mark


@each_format
def test_nothing_to_write_writes_nothing(tmp_path: Path, suffix: str) -> None:
    output = opened(tmp_path / f"a{suffix}")
    assert output.append([]) == Mark()
    assert (tmp_path / f"a{suffix}").stat().st_size == 0


@each_format
def test_an_output_that_stays_empty_is_one_that_can_be_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    output = opened(path)
    mark = output.complete()
    assert output.complete() == mark
    output.discard()
    header = ",".join(COLUMNS).encode() + b"\r\n" if ".csv" in suffix else b""
    assert unpacked(path) == header
    assert bool(path.stat().st_size) == (suffix not in {".jsonl", ".txt"})
    grown = opened(path, mark, clean=True)
    record = grown.encode(page(fields={"late": 1}))
    last = grown.append([record])
    assert grown.complete() == last
    assert unpacked(path) == header + record


def test_equal_records_make_equal_files(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        one, other = tmp_path / f"1{suffix}", tmp_path / f"2{suffix}"
        assert filled(one, 5, 5)[1] == filled(other, 5, 5)[1]
        assert one.read_bytes() == other.read_bytes()


# Cut anywhere


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    suffix=st.sampled_from(SUFFIXES),
    sizes=st.lists(st.integers(0, 4), min_size=1, max_size=5),
    cut=st.floats(0, 1),
    torn=st.binary(max_size=50),
)
def test_wherever_a_batch_is_torn_what_was_committed_is_there(
    tmp_path: Path, suffix: str, sizes: list[int], cut: float, torn: bytes
) -> None:
    path = tmp_path / f"a{suffix}"
    path.unlink(missing_ok=True)
    output, mark, records = filled(path, *sizes)
    more = [output.encode(outcome) for outcome in islice(outcomes(), 3)]
    output.append(more)
    output.discard()
    data = path.read_bytes()
    path.write_bytes(data[: mark.position + round(cut * (len(data) - mark.position))] + torn)
    again = opened(path, mark)
    committed = b"".join(records) if mark.position else b""
    assert unpacked(path) == committed
    assert path.stat().st_size == mark.position
    again.append([again.encode(outcome) for outcome in islice(outcomes(), 3)])
    again.discard()
    assert unpacked(path) == (committed or header_of(path)) + b"".join(more)


def test_every_byte_of_a_torn_batch_is_a_place_to_die(tmp_path: Path) -> None:
    for suffix in (".jsonl", ".jsonl.gz", ".jsonl.zst"):
        path = tmp_path / f"a{suffix}"
        output, mark, records = filled(path, 3)
        output.append([b"{}\n"])
        output.discard()
        data = path.read_bytes()
        for size in range(mark.position, len(data) + 1):
            path.write_bytes(data[:size])
            opened(path, mark).discard()
            assert unpacked(path) == b"".join(records)


# Changed by somebody else


def edited(data: bytes) -> bytes:
    return data[:-2] + bytes([data[-2] ^ 1]) + data[-1:]


CHANGES: dict[str, tuple[Callable[[bytes], bytes], bool, str]] = {
    "edited": (edited, False, r"was changed since \(its bytes \d+ to \d+ are not those that were written\)"),
    "shorter": (lambda data: data[:-1], False, r"was changed since \(\d+ bytes, not \d+\)"),
    "emptied": (lambda _: b"", False, r"was changed since \(0 bytes, not \d+\)"),
    "rows taken out": (lambda data: data[7:], False, r"was changed since \(\d+ bytes, not \d+\)"),
    "rows put in": (
        lambda data: b"{}\n" + data,
        False,
        r"was changed since \(its bytes \d+ to \d+ are not those that were written\)",
    ),
    "added to": (lambda data: data + b"{}\n", True, r"was added to since \(\d+ bytes, not \d+\)"),
}


@each_format
@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_is_refused_and_stays(tmp_path: Path, suffix: str, change: str) -> None:
    path = tmp_path / f"a{suffix}"
    output, mark, _ = filled(path, 2, 2)
    output.discard()
    make, clean, message = CHANGES[change]
    path.write_bytes(make(path.read_bytes()))
    before = path.read_bytes()
    with pytest.raises(SinkError, match=message) as caught:
        open_durable(path).resume(mark, clean=clean)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).endswith(ADVICE)
    assert path.read_bytes() == before


def batches_of(path: Path, *sizes: int) -> tuple[DurableFile, Mark, list[Batch]]:
    """An output with batches of so many records, and all of them."""
    output, source, batches = opened(path), outcomes(), list[Batch]()
    for size in sizes:
        mark = output.append([output.encode(outcome) for outcome in islice(source, size)])
        batches.append(Batch(mark.position - mark.tail, mark.position, mark.checksum))
    return output, mark, batches


@each_format
def test_an_edit_in_the_middle_is_found_in_whichever_batch_it_is(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    output, mark, batches = batches_of(path, 3, 1, 2)
    output.discard()
    whole = path.read_bytes()
    for batch in batches:
        data = bytearray(whole)
        data[(batch.start + batch.end) // 2] ^= 1
        path.write_bytes(data)
        said = rf"was changed since \(its bytes {batch.start} to {batch.end} are not those that were written\)"
        with pytest.raises(SinkError, match=said):
            open_durable(path).resume(mark, clean=True, batches=iter(batches))
        assert path.read_bytes() == data
    path.write_bytes(whole)
    output = open_durable(path)
    output.resume(mark, clean=True, batches=iter(batches))


@each_format
def test_what_was_edited_is_not_rewritten(tmp_path: Path, suffix: str) -> None:
    """The same records in the same number: nothing but a checksum tells."""
    path, copy = tmp_path / f"a{suffix}", tmp_path / "copy"
    output, mark, batches = batches_of(path, 2, 1, 2)
    middle = opened(tmp_path / f"other{suffix}")
    middle.append([middle.encode(page(1))])
    output.discard()
    data = path.read_bytes()
    other = bytearray(data)
    other[batches[1].end - 9] ^= 1
    path.write_bytes(other)
    output = opened(path, mark, clean=True)
    with pytest.raises(SinkError, match="was changed since"):
        output.rewrite(str(copy), kept([True] * 5), batches)
    assert not copy.exists()
    assert path.read_bytes() == other
    path.write_bytes(data)
    assert output.rewrite(str(copy), kept([True] * 5), batches).mark.position == copy.stat().st_size


@each_format
def test_a_copy_is_made_of_batches_of_its_own(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable_module, "REWRITE_PART_BYTES", 100)
    monkeypatch.setattr(durable_module, "REWRITE_BATCH_BYTES", 150)
    path, copy = tmp_path / f"a{suffix}", tmp_path / "copy"
    output, _, _ = filled(path, 30)
    mark, batches = output.rewrite(str(copy), kept([True, False] * 15))
    data = copy.read_bytes()
    assert len(batches) > 2
    assert [batch.start for batch in batches] == [0, *(batch.end for batch in batches[:-1])]
    assert [batch.checksum for batch in batches] == [zlib.crc32(data[start:end]) for start, end, _ in batches]
    assert (mark.position, mark.tail, mark.checksum) == (
        len(data), batches[-1].end - batches[-1].start, batches[-1].checksum
    )  # fmt: skip
    copy.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(SinkError, match="copy: was changed since"):
        output.adopt(str(copy), mark, batches)
    copy.write_bytes(data)
    output.adopt(str(copy), mark, batches)


@pytest.mark.parametrize("how", ["moved", "replaced", "folder moved"])
def test_an_output_that_is_no_longer_in_its_place_is_seen(tmp_path: Path, how: str) -> None:
    path = tmp_path / "out" / "a.jsonl"
    path.parent.mkdir()
    output, mark, records = filled(path, 2)
    output.check_place()
    if how == "folder moved":
        path.parent.rename(tmp_path / "away")
    else:
        path.rename(tmp_path / "away.jsonl")
    if how == "replaced":
        path.write_bytes(b"".join(records))
    said = rf"^{path}: another program has moved it, or put another in its place: {ADVICE}"
    with pytest.raises(SinkError, match=said):
        output.check_place()
    with pytest.raises(SinkError, match=said):
        output.append([b"{}\n"])
    output.discard()
    if how == "folder moved":
        (tmp_path / "away").rename(path.parent)
    else:
        (tmp_path / "away.jsonl").replace(path)
    opened(path, mark, clean=True).append([b"{}\n"])
    assert path.read_bytes() == b"".join(records) + b"{}\n"


def test_what_was_deleted_is_refused_unless_nothing_was_in_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    output, mark, _ = filled(path, 2)
    output.discard()
    path.unlink()
    with pytest.raises(SinkError, match=r"a\.jsonl: is missing: put it back as it was, or begin again"):
        open_durable(path).resume(mark, clean=False)
    assert not path.exists()
    opened(path, Mark()).discard()
    assert path.exists()


@pytest.mark.parametrize("state", ["{", "[1]", "3", '"ab"', "[" * 100_000, "9" * 5000])
def test_a_state_that_is_none_is_refused(tmp_path: Path, state: str) -> None:
    for name in ("a.csv", "a.jsonl"):
        with pytest.raises(SinkError, match=r"a\.\w+: the job does not say how it goes on"):
            opened(tmp_path / name, Mark(state=state))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mark", [Mark(4, -1), Mark(4, 9, 1), Mark(-5), Mark(1 << 62, 1 << 61)])
def test_a_mark_that_cannot_be_is_refused(tmp_path: Path, mark: Mark) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"{}\n{}\n")
    with pytest.raises(SinkError, match="was changed since"):
        opened(path, mark)
    assert path.read_bytes() == b"{}\n{}\n"


def test_another_program_that_writes_or_deletes_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    output, mark, records = filled(path, 2)
    with path.open("ab") as other:
        other.write(b"{}\n")
    for message in ("a.jsonl: another program has written to it", "a.jsonl: cannot write: an earlier write failed"):
        with pytest.raises(SinkError, match=message):
            output.append([b"{}\n"])
    again = opened(path, mark)
    assert path.read_bytes() == b"".join(records)
    path.unlink()
    with pytest.raises(SinkError, match="another program has deleted it"):
        again.append([b"{}\n"])


# Where it lies


def test_a_file_that_stands_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"a\.jsonl exists; use --fresh"):
        opened(path)
    assert path.read_bytes() == b"mine"
    output = open_durable(path)
    output.create(fresh=True)
    assert path.read_bytes() == b""
    opened(path).append([b"{}\n"])
    assert path.read_bytes() == b"{}\n"


def test_only_a_regular_file_is_taken(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.jsonl")
    for place in ("-", "/dev/stdout", "/dev/null", tmp_path / "fifo.jsonl"):
        with pytest.raises(ConfigError, match="a job writes to regular files alone"):
            open_durable(place, format="jsonl")
    late = open_durable(tmp_path / "late.jsonl")
    os.mkfifo(tmp_path / "late.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    for output in (late, open_durable(tmp_path / "folder.jsonl")):
        for action in (output.create, lambda output=output: output.resume(Mark(1), clean=False)):
            with pytest.raises(SinkError, match=r"\w+\.jsonl: is no regular file"):
                action()
    with pytest.raises(SinkError, match=r"the folder .*/none does not exist"):
        opened(tmp_path / "none" / "a.jsonl")


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    link, target = tmp_path / "a.jsonl", tmp_path / "disk" / "real.jsonl"
    target.parent.mkdir()
    link.symlink_to(target)
    output, mark, records = filled(link, 4)
    target.chmod(0o640)
    copy = tmp_path / "copy"
    mark = output.rewrite(str(copy), kept([True, False, False, True])).mark
    output.adopt(str(copy), mark)
    assert link.is_symlink()
    assert target.read_bytes() == records[1] + records[4]
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_it_is_written_to_only_when_it_is_open(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="not open"):
        open_durable(tmp_path / "a.jsonl").append([b"{}\n"])


# Rewritten


@each_format
@pytest.mark.parametrize("part", [1, 200, 1 << 20])
def test_a_rewrite_keeps_the_very_bytes_of_what_it_keeps(
    tmp_path: Path, suffix: str, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable_module, "REWRITE_PART_BYTES", part)
    path, copy = tmp_path / f"a{suffix}", tmp_path / "copy"
    output, before, records = filled(path, 7, 1, 30)
    with path.open("ab") as file:
        file.write(b"torn")
    for choose in (lambda n: n % 3 == 0, lambda _: True, lambda _: False, lambda n: n == 38):
        keep = [choose(n) for n in range(1, len(records))]
        mark = output.rewrite(str(copy), kept(keep)).mark
        left = records[0] + b"".join(record for record, stays in zip(records[1:], keep, strict=True) if stays)
        assert undone(path.suffix, copy.read_bytes()) == left
        assert (mark.position, mark.state) == (copy.stat().st_size, before.state)
    output.adopt(str(copy), mark)
    output.append([records[1]])
    assert unpacked(path) == left + records[1]
    assert not copy.exists()


@each_format
@pytest.mark.parametrize("wrong", [-1, 1])
def test_a_rewrite_with_more_or_fewer_turns_is_refused(tmp_path: Path, suffix: str, wrong: int) -> None:
    path, copy = tmp_path / f"a{suffix}", tmp_path / "copy"
    output, _, records = filled(path, 9)
    before = path.read_bytes()
    with pytest.raises(SinkError, match=r"was changed since \((more|fewer) records than were written\)"):
        output.rewrite(str(copy), kept([True] * (len(records) - 1 + wrong)))
    assert path.read_bytes() == before
    assert not copy.exists()
    output.append([records[1]])
    assert unpacked(path) == b"".join(records) + records[1]


def test_a_rewrite_of_what_was_damaged_is_refused(tmp_path: Path) -> None:
    for suffix in (".csv", ".csv.gz", ".csv.zst"):
        path = tmp_path / f"a{suffix}"
        output, mark, _ = filled(path, 3, 1)
        output.discard()
        data = bytearray(path.read_bytes())
        data[5 if suffix == ".csv" else len(data) // 3] ^= 0xFF
        path.write_bytes(data)
        output = opened(path, mark, clean=True)
        with pytest.raises(SinkError, match="was changed since"):
            output.rewrite(str(tmp_path / "copy"), kept([True] * 4))


def test_a_copy_replaces_no_file_but_its_own_name(tmp_path: Path) -> None:
    path, victim, copy = tmp_path / "a.jsonl", tmp_path / "victim", tmp_path / "copy"
    victim.write_bytes(b"mine")
    output, _, records = filled(path, 2)
    for place in (copy.symlink_to, copy.hardlink_to):
        place(victim)
        mark = output.rewrite(str(copy), kept([True, False])).mark
        assert victim.read_bytes() == b"mine"
        assert copy.read_bytes() == records[1]
        copy.unlink()
    victim.write_bytes(records[1])
    copy.symlink_to(victim)
    with pytest.raises(SinkError, match=r"copy: was changed since \(a link\)"):
        output.adopt(str(copy), mark)
    assert path.read_bytes() == b"".join(records)


def test_a_copy_is_adopted_once_and_only_as_it_was_written(tmp_path: Path) -> None:
    path, copy = tmp_path / "a.jsonl.gz", tmp_path / "copy"
    output, _, records = filled(path, 4)
    before = path.read_bytes()
    mark = output.rewrite(str(copy), kept([False, True, True, True])).mark
    good = copy.read_bytes()
    for bad in (good[:-1], good + b"\0", edited(good)):
        copy.write_bytes(bad)
        with pytest.raises(SinkError, match=r"/copy: was (changed|added to) since"):
            output.adopt(str(copy), mark)
        assert path.read_bytes() == before
    copy.write_bytes(good)
    output.adopt(str(copy), mark)
    for _ in range(2):
        open_durable(path).adopt(str(copy), mark)
    assert unpacked(path) == b"".join(records[2:])
    path.write_bytes(before)
    with pytest.raises(SinkError, match="was changed since"):
        open_durable(path).adopt(str(copy), mark)
    assert path.read_bytes() == before


def test_a_copy_crosses_to_another_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, copy = tmp_path / "out" / "a.csv", tmp_path / "job" / "copy"
    path.parent.mkdir()
    copy.parent.mkdir()
    output, _, records = filled(path, 3)
    path.chmod(0o604)
    replace = os.replace

    def between_disks(source: str, target: str) -> None:
        if Path(source).parent != Path(target).parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        replace(source, target)

    monkeypatch.setattr(os, "replace", between_disks)
    mark = output.rewrite(str(copy), kept([True, False, True])).mark
    output.adopt(str(copy), mark)
    assert path.read_bytes() == records[0] + records[1] + records[3]
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    assert [*path.parent.iterdir(), *copy.parent.iterdir()] == [path]


def test_a_folder_that_takes_no_copy_is_told_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, _, _ = filled(tmp_path / "a.jsonl", 2)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(SinkError, match=r"a\.jsonl: cannot be replaced: no permission to write in "):
        output.rewrite(str(tmp_path / "copy"), kept([True, True]))
    assert [file.name for file in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_rewrite_holds_a_part_of_the_output_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl.gz"
    output = opened(path)
    line = b'"' + b"x" * 998 + b'"\n'
    for _ in range(20):
        output.append([line] * 1000)
    largest = 0

    def measured(data: bytes, packing: Packing) -> bytes:
        nonlocal largest
        largest = max(largest, len(data))
        return compress(data, packing)

    monkeypatch.setattr(durable_module, "compress", measured)
    mark = output.rewrite(str(tmp_path / "copy"), kept([True] * 20_000)).mark
    assert largest <= durable_module.REWRITE_PART_BYTES + len(line)
    output.adopt(str(tmp_path / "copy"), mark)
    assert unpacked(path) == line * 20_000


@given(st.lists(st.binary(max_size=6).map(lambda data: data.replace(b"a", b"\n"))))
def test_lines_are_the_bytes_cut_at_newlines(blocks: list[bytes]) -> None:
    whole = b"".join(blocks)
    assert list(lines_of(blocks)) == [*io.BytesIO(whole)]


def test_no_address_looks_like_the_line_of_another() -> None:
    assert TextSink("-").encode(page(url="    https://a.example/")) == b"https://a.example/ -> 5\n"


# The system fails


class Killed(BaseException):
    """The process is gone: nothing it would have done is done."""


class Faults:
    """Lets the ``turn``-th call into the system fail, with what came before and half a write done."""

    CALLS = ("open", "write", "fsync", "ftruncate", "replace", "unlink", "fchmod", "lseek", "read")

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self.turn, self.code, self.dead = 0, 0, False
        for name in (*self.CALLS, "close"):
            patch.setattr(os, name, self._guarded(name, getattr(os, name)))
        self._folder = str(folder)

    def plan(self, turn: int, code: int) -> None:
        self.turn, self.code, self.dead = turn, code, False

    def _guarded(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **options: Any) -> Any:
            if not self._ours(args[0]):
                return call(*args, **options)
            if self.dead:
                raise Killed
            if name != "close":
                self.turn -= 1
            if self.turn != 0 or name == "close":
                return call(*args, **options)
            if name == "write":
                call(args[0], args[1][: len(args[1]) // 2])
            if self.code:
                raise OSError(self.code, os.strerror(self.code))
            self.dead = True
            raise Killed

        return guarded

    def _ours(self, place: Any) -> bool:
        try:
            path = os.readlink(f"/proc/self/fd/{place}") if isinstance(place, int) else os.fspath(place)
        except OSError:
            return False
        return str(path).startswith(self._folder)


class Ledger:
    """What the job remembers: a commit is one stroke."""

    def __init__(self) -> None:
        self.mark: Mark | None = None
        self.taken = 0
        self.copy: str | None = None
        self.rewritten = False


def crawl(path: Path, ledger: Ledger) -> None:
    """Write 6 batches of 2, and in their midst take the odd records out; go on wherever it was left."""
    output = open_durable(path)
    if ledger.mark is None:
        output.create()
        ledger.mark = Mark()
    elif ledger.copy:
        output.adopt(ledger.copy, ledger.mark)
        ledger.copy = None
    else:
        output.resume(ledger.mark, clean=False)
    while ledger.taken < 6:
        if ledger.taken == 3 and not ledger.rewritten:
            copy = str(path.with_suffix(".job") / "copy")
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            mark = output.rewrite(copy, kept([True, False] * 3)).mark
            ledger.mark, ledger.copy, ledger.rewritten = mark, copy, True
            output.adopt(copy, mark)
            ledger.copy = None
        start = ledger.taken * 2
        ledger.mark = output.append([output.encode(outcome) for outcome in islice(outcomes(), start, start + 2)])
        ledger.taken += 1
    output.discard()


def expected(path: Path) -> bytes:
    output = open_durable(path)
    records = [output.encode(outcome) for outcome in islice(outcomes(), 12)]
    return header_of(path) + b"".join(records[0:6:2] + records[6:])


@pytest.mark.skipif(sys.platform != "linux", reason="finds out by /proc which file a call is for")
@pytest.mark.parametrize("codes", [[0], [errno.EIO, errno.ENOSPC]], ids=["kill", "error"])
@each_format
def test_whichever_call_fails_the_next_start_makes_it_good(
    tmp_path: Path, suffix: str, codes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill at every call; an error at every call, of one kind and the other in turn."""
    want = expected(tmp_path / f"none{suffix}")
    failed = 0
    with monkeypatch.context() as patch:
        faults = Faults(patch, tmp_path)
        for turn in count(1):
            path = tmp_path / f"{turn}" / f"a{suffix}"
            path.parent.mkdir()
            ledger = Ledger()
            code = codes[turn % len(codes)]
            faults.plan(turn, code)
            try:
                crawl(path, ledger)
            except Killed:
                assert code == 0
            except FetcherError as error:
                assert isinstance(error, SinkError)
                assert str(path.parent) in str(error)
                assert os.strerror(code) in str(error)
            if faults.turn > 0:
                break
            failed += 1
            faults.plan(-1, 0)
            crawl(path, ledger)
            assert unpacked(path) == want, f"call {turn}"
            assert [file.name for file in path.parent.rglob("*") if file.is_file()] == [path.name]
    assert failed > 40


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_nothing_follows_what_was_torn(tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    output, mark, records = filled(path, 2)

    def broken(*_: Any) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, broken)
        with pytest.raises(SinkError, match=r"a\.jsonl: cannot write: Input/output error"):
            output.append([b"{}\n"])
    with pytest.raises(SinkError, match=r"a\.jsonl: cannot write: an earlier write failed"):
        output.append([b"{}\n"])
    output.discard()
    opened(path, mark).append([b"{}\n"])
    assert path.read_bytes() == b"".join(records) + b"{}\n"


@each_format
def test_a_full_disk_is_told_and_room_lets_it_go_on(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    output, mark, records = filled(path, 3)
    noise = [output.encode(page(row, data={"h": os.urandom(3000).hex()})) for row in range(4)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (mark.position + 4000, limits[1]))
    try:
        with pytest.raises(SinkError, match=rf"a{suffix}: cannot write: File too large"):
            output.append(noise)
        assert path.stat().st_size == mark.position + 4000
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    output.discard()
    again = opened(path, mark)
    assert unpacked(path) == b"".join(records)
    again.append(noise)
    assert unpacked(path) == b"".join([*records, *noise])
