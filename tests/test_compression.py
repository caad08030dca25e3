from __future__ import annotations

import gzip
import os
import sys

import pytest
from backports import zstd

from fetcher.compression import (
    SUFFIXES,
    Compressor,
    DamagedDataError,
    Packing,
    compress,
    decompress,
    packing_of_data,
    packing_of_path,
)

BLOCK = 64 * 1024
FOREIGN = {"gzip": gzip.decompress, "zstd": zstd.decompress}
each_packing = pytest.mark.parametrize("packing", SUFFIXES.values())


@pytest.fixture(params=["isal", "zlib"])
def _library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "zlib":
        monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)


@pytest.mark.parametrize(
    ("path", "packing"),
    [("a.jsonl.gz", "gzip"), ("A.CSV.ZST", "zstd"), ("a.gz.txt", None), ("a.gz/b", None), ("a", None), ("", None)],
)
def test_a_suffix_names_a_compression(path: str, packing: Packing | None) -> None:
    assert packing_of_path(path) == packing


@pytest.mark.parametrize("head", [b"", b"\x1f", b"http", b"\x28\xb5\x2f", b"\x60\x2a\x4d\x18", b"PK\x03\x04"])
def test_what_is_not_compressed_is_seen(head: bytes) -> None:
    assert packing_of_data(head) is None


@pytest.mark.usefixtures("_library")
@each_packing
def test_others_read_what_we_write(packing: Packing) -> None:
    data = os.urandom(1000) + bytes(100_000)
    packed = compress(data, packing) + compress(b"", packing) + compress(b"end", packing)
    assert FOREIGN[packing](packed) == data + b"end"
    assert packed == compress(data, packing) + compress(b"", packing) + compress(b"end", packing)
    assert packing_of_data(packed) == packing


@pytest.mark.usefixtures("_library")
@each_packing
def test_a_stream_can_be_read_up_to_each_sync(packing: Packing) -> None:
    stream, packed, written = Compressor(packing), b"", b""
    for turn in range(5):
        piece = os.urandom(3000) + b"%d" % turn
        packed += stream.update(piece) + stream.sync()
        written += piece
        found = b""
        with pytest.raises(DamagedDataError, match=f"^the {packing} data is cut short$"):
            for block in decompress(iter([packed]), packing, max_block=BLOCK):
                found += block
        assert found == written
    packed += stream.end()
    assert b"".join(decompress(iter([packed]), packing, max_block=BLOCK)) == written


SKIPPABLE = b"\x53\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"about"
MEMBERS = {
    "gzip": lambda data: gzip.compress(data),
    "zstd": lambda data: zstd.compress(data),
    "zstd after a skippable frame": lambda data: SKIPPABLE + zstd.compress(data) + SKIPPABLE,
    "gzip with padding": lambda data: gzip.compress(data) + bytes(700),
}


@pytest.mark.parametrize("step", [1, 100, BLOCK])
@pytest.mark.parametrize("member", MEMBERS)
def test_members_that_follow_each_other_are_one_list(member: str, step: int) -> None:
    texts = [b"a" * 10, b"", os.urandom(3000), b"z" * (BLOCK * 3 + 5), b"end"]
    packed = b"".join(MEMBERS[member](text) for text in texts)
    packing = packing_of_data(packed)
    assert packing == member.split(maxsplit=1)[0]
    blocks = (packed[at : at + step] for at in range(0, len(packed), step))
    found = list(decompress(blocks, packing, max_block=BLOCK, zero_padding=True))
    assert b"".join(found) == b"".join(texts)
    assert max(map(len, found)) <= BLOCK


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_no_cut_is_a_shorter_list(packing: Packing) -> None:
    whole = MEMBERS[packing](b"a.example\nb.example\n")
    for end in range(1, len(whole)):
        with pytest.raises(DamagedDataError, match=f"the {packing} data is cut short"):
            list(decompress(iter([whole, whole[:end]]), packing, max_block=BLOCK))


@each_packing
def test_a_member_that_grows_a_thousandfold_comes_in_blocks(packing: Packing) -> None:
    packed = compress(bytes(30 * BLOCK), packing) + compress(b"end", packing)
    for step in (1, 7, len(packed)):
        pieces = (packed[at : at + step] for at in range(0, len(packed), step))
        blocks = list(decompress(pieces, packing, max_block=BLOCK))
        assert max(map(len, blocks)) <= BLOCK
        assert b"".join(blocks) == bytes(30 * BLOCK) + b"end"


@each_packing
def test_no_byte_can_be_changed_unseen(packing: Packing) -> None:
    text = b"https://a.example/\nhttps://b.example/\n"
    packed = compress(text, packing)
    free = {4, 5, 6, 7, 8, 9} if packing == "gzip" else set()  # the time and system of a gzip header mean nothing
    for at in set(range(len(packed))) - free:
        damaged = bytearray(packed)
        damaged[at] ^= 0xFF
        with pytest.raises(DamagedDataError, match=f"^the {packing} data is (damaged|cut short)$"):
            list(decompress(iter([bytes(damaged)]), packing, max_block=BLOCK))


@each_packing
@pytest.mark.parametrize("tail", [b"\0", b"and more"])
def test_nothing_else_may_follow(packing: Packing, tail: bytes) -> None:
    with pytest.raises(DamagedDataError):
        list(decompress(iter([compress(b"a", packing), tail]), packing, max_block=BLOCK))
    padded = decompress(iter([compress(b"a", packing), tail]), packing, max_block=BLOCK, zero_padding=True)
    if packing == "gzip" and tail == b"\0":
        assert list(padded) == [b"a"]
    else:
        with pytest.raises(DamagedDataError):
            list(padded)


@each_packing
def test_no_data_at_all_is_no_member(packing: Packing) -> None:
    assert list(decompress(iter([]), packing, max_block=BLOCK)) == []
    assert list(decompress(iter([b""]), packing, max_block=BLOCK)) == []


def test_zstandard_that_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    for use in (lambda: compress(b"", "zstd"), lambda: list(decompress(iter([]), "zstd", max_block=BLOCK))):
        with pytest.raises(ImportError, match=r"^zstandard is not installed: pip install 'fetcher-crawl\[speed\]'$"):
            use()
