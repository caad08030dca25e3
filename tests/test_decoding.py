"""Content codings are undone exactly, within bounds, and a body that is not whole is never a success."""

from __future__ import annotations

import gzip
import random
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.errors import ProtocolError
from fetcher.transport import codings as backends
from fetcher.transport.codings import Decoder, accept_encoding
from tests.lab.suites import suite

MIB = 1024 * 1024
TEXT = b"".join(b"<p>line %d of a page &amp; some more of it</p>\n" % n for n in range(40))
NOISE = random.Random(7).randbytes(300_000)


def clear_caches() -> None:
    backends.load.cache_clear()
    accept_encoding.cache_clear()


@pytest.fixture(params=["isal", "zlib"], autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run every test once with isal and once without."""
    if request.param == "isal":
        pytest.importorskip("isal.isal_zlib")
    else:
        monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    clear_caches()
    assert (backends.load("isal.isal_zlib", "zlib") is zlib) == (request.param == "zlib")
    yield request.param
    monkeypatch.undo()
    clear_caches()


def zstd() -> Any:
    return backends.load("compression.zstd", "backports.zstd") or pytest.skip("no zstd is installed")


def raw_deflate(data: bytes, level: int = 6) -> bytes:
    packer = zlib.compressobj(level, wbits=-15)
    return packer.compress(data) + packer.flush()


def encode(coding: str, data: bytes) -> bytes:
    if coding in ("gzip", "x-gzip"):
        return gzip.compress(data, mtime=0)
    if coding == "deflate":
        return zlib.compress(data)
    if coding == "br":
        packed: bytes = pytest.importorskip("brotli").compress(data, quality=5)
        return packed
    module = zstd()
    frame: bytes = module.compress(data, options={module.CompressionParameter.checksum_flag: 1})
    return frame


def encode_all(codings: str, data: bytes) -> bytes:
    for coding in codings.split(", "):
        data = encode(coding, data)
    return data


def feed(decoder: Decoder, data: bytes) -> bytes:
    return b"".join(decoder.pieces(data))


def decode_in(codings: str, body: bytes, sizes: list[int], max_size: int = MIB) -> tuple[bytes, bool]:
    """Decode a body that comes in chunks of the given sizes, over and over; say too whether there was more."""
    decoder = Decoder(codings, max_size)
    out, at, turn = b"", 0, 0
    while at < len(body):
        out += feed(decoder, body[at : at + sizes[turn % len(sizes)]])
        at += sizes[turn % len(sizes)]
        turn += 1
    decoder.finish()
    assert len(out) <= max_size + 1
    assert decoder.overflow == (len(out) == max_size + 1)
    return out[:max_size], decoder.overflow


def decode_whole(codings: str, body: bytes, max_size: int) -> tuple[bytes, bool]:
    """Decode a body that comes in one chunk."""
    return decode_in(codings, body, [max(1, len(body))], max_size)


def verdict(codings: str, body: bytes, sizes: list[int] | None = None, max_size: int = MIB) -> tuple[bytes, bool] | str:
    """Return what a body decodes to, or the code of its error."""
    try:
        return decode_in(codings, body, sizes, max_size) if sizes else decode_whole(codings, body, max_size)
    except ProtocolError as error:
        return error.code


CODINGS = ["gzip", "deflate", "br", "zstd"]
STACKS = [*CODINGS, "gzip, deflate", "deflate, gzip", "gzip, gzip, gzip", "br, gzip", "zstd, br", "gzip, zstd, deflate"]


# --- what is decoded


@pytest.mark.parametrize("codings", STACKS)
@pytest.mark.parametrize("data", [b"", b"x", TEXT, NOISE, bytes(500_000)], ids=["none", "one", "text", "noise", "zero"])
def test_what_was_encoded_comes_back(codings: str, data: bytes) -> None:
    assert decode_whole(codings, encode_all(codings, data), MIB) == (data, False)


@pytest.mark.parametrize("header", ["", "identity", "Identity, identity", " , ,", "identity,,identity"])
def test_a_body_without_a_coding_passes_unchanged(header: str) -> None:
    assert decode_whole(header, TEXT, MIB) == (TEXT, False)
    assert decode_whole(header, TEXT, len(TEXT)) == (TEXT, False)
    assert decode_whole(header, TEXT, 10) == (TEXT[:10], True)


@pytest.mark.parametrize("header", ["GZip", "x-gzip", "X-GZIP", " gzip ,", "identity, gzip", "gzip,identity"])
def test_the_names_of_codings_are_read_as_the_rfc_has_them(header: str) -> None:
    assert decode_whole(header, encode("gzip", TEXT), MIB) == (TEXT, False)


@pytest.mark.parametrize("level", [0, 1, 6, 9])
@pytest.mark.parametrize("data", [b"", b"x", TEXT, NOISE], ids=["none", "one", "text", "noise"])
def test_deflate_may_come_bare(level: int, data: bytes) -> None:
    body = raw_deflate(data, level)
    assert decode_whole("deflate", body, MIB) == (data, False)
    assert decode_in("deflate", body, [1] if len(body) < 10_000 else [4096, 1]) == (data, False)


@pytest.mark.parametrize("window", range(9, 16))
@pytest.mark.parametrize("level", [1, 6, 9])
def test_deflate_takes_every_header_of_zlib(window: int, level: int) -> None:
    packer = zlib.compressobj(level, wbits=window)
    body = packer.compress(TEXT) + packer.flush()
    assert decode_whole("deflate", body, MIB) == (TEXT, False)
    assert decode_in("deflate", body, [1]) == (TEXT, False)


def test_every_field_of_a_gzip_header_may_come_in_pieces() -> None:
    member = gzip.compress(TEXT, mtime=0)[10:]
    for flags in range(32):
        head = b"\x1f\x8b\x08" + bytes([flags]) + bytes(6)
        head += struct.pack("<H", 4) + b"abcd" if flags & 4 else b""
        head += b"a name\0" if flags & 8 else b""
        head += b"a comment\0" if flags & 16 else b""
        head += struct.pack("<H", zlib.crc32(head) & 0xFFFF) if flags & 2 else b""
        for sizes in ([1], [3], [7, 1], [len(head)], [MIB]):
            assert decode_in("gzip", head + member, sizes) == (TEXT, False), (flags, sizes)


@pytest.mark.parametrize("codings", STACKS)
@pytest.mark.parametrize("sizes", [[1], [2, 3], [1000]])
def test_chunks_make_no_difference(codings: str, sizes: list[int]) -> None:
    assert decode_in(codings, encode_all(codings, TEXT), sizes) == (TEXT, False)


@settings(max_examples=150, deadline=None)
@given(
    data=st.one_of(st.binary(max_size=3000), st.integers(0, 200_000).map(bytes), st.just(NOISE[:100_000])),
    stack=st.lists(st.sampled_from(CODINGS), max_size=5),
    sizes=st.lists(st.integers(1, 9000), min_size=1, max_size=8),
    slack=st.integers(-3, 3),
)
def test_whole_and_in_chunks_is_the_same(data: bytes, stack: list[str], sizes: list[int], slack: int) -> None:
    codings = ", ".join(stack)
    body = encode_all(codings, data) if stack else data
    limit = max(0, len(data) + slack)
    expected = (data[:limit], len(data) > limit)
    assert decode_whole(codings, body, limit) == expected
    least = len(body) // 1000  # a large body comes in a thousand chunks at most, a small one in single bytes
    assert decode_in(codings, body, [max(size, least) for size in sizes], limit) == expected


@settings(max_examples=300, deadline=None)
@given(
    coding=st.sampled_from(CODINGS),
    flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4),
    sizes=st.lists(st.integers(1, 300), min_size=1, max_size=5),
)
def test_damage_ends_the_same_way_however_it_comes(coding: str, flips: list[tuple[int, int]], sizes: list[int]) -> None:
    body = bytearray(encode(coding, TEXT))
    for at, value in flips:
        body[at % len(body)] = value
    whole, chunked = verdict(coding, bytes(body)), verdict(coding, bytes(body), sizes)
    assert whole == chunked
    if coding == "gzip" and isinstance(whole, tuple):
        assert whole == (TEXT, False)


# --- the third-party bodies


@pytest.mark.parametrize(
    ("name", "codings"),
    [
        ("html-gzip.bin", "gzip"),
        ("html-br.bin", "br"),
        ("html-zstd-static-content-size.bin", "zstd"),
        ("html-zstd-static-no-content-size.bin", "zstd"),
        ("html-zstd-streaming-no-content-size.bin", "zstd"),
        ("html-zlibdeflate.bin", "deflate"),
        ("html-rawdeflate.bin", "deflate"),
        ("html-gzip-deflate.bin", "gzip, deflate"),
        ("html-gzip-deflate-gzip.bin", "gzip, deflate, gzip"),
    ],
)
def test_suite_pages_decode_to_the_same_html(name: str, codings: str) -> None:
    folder = suite("compressed")
    if "br" in codings:
        pytest.importorskip("brotli")
    if "zstd" in codings:
        zstd()
    html = gzip.decompress((folder / "html-gzip.bin").read_bytes())
    if codings == "deflate":  # the page names the coding it was sent with
        html = html.replace(b"content encoding `gzip'", b"content encoding `deflate'")
    body = (folder / name).read_bytes()
    assert decode_whole(codings, body, MIB) == (html, False)
    assert decode_in(codings, body, [1, 700]) == (html, False)


def test_suite_feed_decodes_and_other_formats_do_not() -> None:
    folder = suite("compressed")
    feed = (folder / "feed-sample1.xml").read_bytes()
    assert decode_whole("gzip", (folder / "feed-sample1.xml.gz").read_bytes(), MIB) == (feed, False)
    for name in ("feed-sample1.xml", "feed-sample1.xml.bz2", "feed-sample1.zip", "feed-sample1.tar"):
        for coding in ("gzip", "zstd"):
            assert verdict(coding, (folder / name).read_bytes()) == "bad_encoding", (name, coding)


@pytest.mark.parametrize("name", ["truncated-crc-error.gz", "truncated-crc-error-short.gz", "unexpected-eof.gz"])
def test_suite_cut_bodies_are_truncated(name: str) -> None:
    body = (suite("compressed") / name).read_bytes()
    assert verdict("gzip", body) == "truncated"
    assert verdict("gzip", body, [1]) == "truncated"


@pytest.mark.parametrize("coding", CODINGS)
def test_suite_bombs_are_bounded_in_output_and_memory(coding: str) -> None:
    body = (suite("compressed") / f"bomb-{coding}.bin").read_bytes()
    encode(coding, b"")  # skips where the library is missing
    for sizes in ([len(body)], [5]):
        tracemalloc.start()
        out, overflow = decode_in(coding, body, sizes, 100_000)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (len(out), overflow) == (100_000, True)
        # Of brotli's and zstd's own windows tracemalloc sees nothing; they are bounded by their formats.
        assert peak < MIB


# --- bounds


@pytest.mark.parametrize("codings", STACKS)
@pytest.mark.parametrize("slack", [-1, 0, 1])
def test_overflow_is_exact(codings: str, slack: int) -> None:
    data = NOISE[:100_000] + bytes(100_000)
    limit = len(data) + slack
    body = encode_all(codings, data)
    assert decode_whole(codings, body, limit) == (data[:limit], slack < 0)
    assert decode_in(codings, body, [777], limit) == (data[:limit], slack < 0)


def test_after_an_overflow_nothing_more_is_decoded_and_no_end_is_asked_for() -> None:
    body = encode("gzip", TEXT)
    decoder = Decoder("gzip", 100)
    assert len(feed(decoder, body[:-20])) == 101
    assert decoder.overflow
    assert feed(decoder, b"anything") == b""
    decoder.finish()


def test_a_body_far_over_the_limit_overflows_and_is_not_called_damaged() -> None:
    body = encode("gzip", NOISE)
    assert decode_whole("gzip", body, 1000) == (NOISE[:1000], True)


@pytest.mark.parametrize("size", [0, 1])
def test_the_smallest_limits_hold(size: int) -> None:
    for coding in ("", *CODINGS):
        body = encode(coding, b"ab") if coding else b"ab"
        assert decode_whole(coding, body, size) == (b"ab"[:size], True)


@pytest.mark.parametrize(
    "codings", ["gzip, gzip", "deflate, gzip", "gzip, gzip, gzip", "br, gzip", "gzip, br", "zstd, zstd"]
)
def test_stacked_bombs_are_bounded_in_every_layer(codings: str) -> None:
    body = encode_all(codings, bytes(64 * MIB))
    tracemalloc.start()
    out, overflow = decode_whole(codings, body, MIB)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(out), overflow) == (MIB, True)
    assert peak < 4 * MIB


def test_a_bomb_in_the_middle_of_a_stack_that_decodes_to_nothing_ends() -> None:
    nothing = b"\x00\x00\x00\xff\xff" * (8 * MIB)  # 40 MiB of empty stored blocks
    body = encode("gzip", nothing)
    assert len(body) < 100_000
    tracemalloc.start()
    assert verdict("deflate, gzip", body) == "bad_encoding"
    assert verdict("deflate, gzip", body, [1000]) == "bad_encoding"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * MIB


def test_endless_padding_on_the_wire_ends() -> None:
    decoder = Decoder("gzip", 1000)
    assert feed(decoder, encode("gzip", b"whole")) == b"whole"
    with pytest.raises(ProtocolError, match="bad_encoding"):
        for _ in range(100):
            feed(decoder, bytes(1000))


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_flood_of_empty_members_ends(coding: str) -> None:
    member = encode(coding, b"")
    assert verdict(coding, member * 1000) == (b"", False)
    assert verdict(coding, member * 40_000, max_size=10 * MIB) == "bad_encoding"


def test_memory_of_the_process_stays_small_under_bombs(backend: str) -> None:
    pytest.importorskip("resource")
    program = (
        "import gzip, resource, sys, zlib\n"
        f"sys.modules.update({ {} if backend == 'isal' else {'isal.isal_zlib': None} })\n"
        "from fetcher.transport.codings import Decoder\n"
        "def overflows(codings, body):\n"
        "    decoder = Decoder(codings, 1 << 20)\n"
        "    for piece in decoder.pieces(body): pass\n"
        "    return decoder.overflow\n"
        "packer = zlib.compressobj(wbits=31)\n"
        "parts = [packer.compress(bytes(1 << 20)) for _ in range(300)] + [packer.flush()]\n"
        "single = b''.join(parts)\n"
        "double = gzip.compress(single)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert overflows('gzip', single)\n"
        "assert overflows('gzip, gzip', double)\n"
        "grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before\n"
        "print(grown * (1 if sys.platform == 'darwin' else 1024))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert int(result.stdout) < 32 * MIB


# --- cut, damaged, followed by something


@pytest.mark.parametrize("codings", STACKS)
def test_a_body_cut_anywhere_is_truncated(codings: str) -> None:
    body = encode_all(codings, TEXT)
    assert verdict(codings, body) == (TEXT, False)
    for end in range(1, len(body)):
        assert verdict(codings, body[:end]) == "truncated", end
        assert verdict(codings, body[:end], [1]) == "truncated", end


def test_bare_deflate_cut_anywhere_is_truncated() -> None:
    body = raw_deflate(TEXT)
    for end in range(1, len(body)):
        assert verdict("deflate", body[:end]) == "truncated", end


def test_an_inner_stream_cut_inside_a_whole_outer_one_is_truncated() -> None:
    inner = encode("gzip", TEXT)
    for end in range(1, len(inner)):
        assert verdict("gzip, deflate", encode("deflate", inner[:end])) == "truncated", end


def test_an_outer_stream_is_checked_to_its_end_when_the_inner_one_is_whole() -> None:
    outer = encode("gzip", encode("gzip", TEXT) + bytes(50))
    assert verdict("gzip, gzip", outer) == (TEXT, False)
    assert verdict("gzip, gzip", outer[:-1]) == "truncated"
    assert verdict("gzip, gzip", outer[:-5] + bytes([outer[-5] ^ 1]) + outer[-4:]) == "bad_encoding"


def test_a_wrong_checksum_or_length_is_bad_encoding() -> None:
    for codings, trailer in (("gzip", 8), ("deflate", 4), ("zstd", 4), ("gzip, deflate", 4), ("deflate, gzip", 8)):
        body = encode_all(codings, TEXT)
        for back in range(1, trailer + 1):
            for bit in range(8):
                damaged = bytearray(body)
                damaged[-back] ^= 1 << bit
                assert verdict(codings, bytes(damaged)) == "bad_encoding", (codings, back, bit)
                assert verdict(codings, bytes(damaged), [1]) == "bad_encoding", (codings, back, bit)


@pytest.mark.parametrize("coding", CODINGS)
def test_what_was_never_encoded_is_no_success(coding: str) -> None:
    encode(coding, b"")
    for body in (b"<!doctype html><title>not encoded</title>", TEXT, b"\xff" * 100):
        assert verdict(coding, body) in ("bad_encoding", "truncated")


def test_a_gzip_header_that_is_none_is_bad_encoding_from_its_first_byte() -> None:
    for body in (b"<", b"\x1f<", b"\x1f\x8b\x07\x00", b"\x1f\x8b\x08\xe0" + bytes(20), bytes(100)):
        assert verdict("gzip", body) == "bad_encoding"
        assert verdict("gzip", body, [1]) == "bad_encoding"
    for body in (b"\x1f", b"\x1f\x8b", b"\x1f\x8b\x08", b"\x1f\x8b\x08\x00"):
        assert verdict("gzip", body) == "truncated"


@pytest.mark.parametrize("codings", STACKS)
def test_an_empty_body_is_empty(codings: str) -> None:
    encode_all(codings, b"")
    assert decode_whole(codings, b"", MIB) == (b"", False)
    decoder = Decoder(codings, MIB)
    assert feed(decoder, b"") == b""
    decoder.finish()
    assert not decoder.overflow


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize(
    "rest", [b"\0", bytes(1000), b"garbage", b"\x1f\x8c", b"\x1f\x8b\x09" + bytes(9), b"<!-- x -->"]
)
def test_what_follows_a_whole_stream_is_ignored(coding: str, rest: bytes) -> None:
    body = encode(coding, TEXT) + rest
    assert verdict(coding, body) == (TEXT, False)
    for sizes in ([1], [len(body) - len(rest)], [len(body) - 1]):
        assert verdict(coding, body, sizes) == (TEXT, False)


@pytest.mark.parametrize("coding", ["br", "zstd"])
@pytest.mark.parametrize("rest", [b"\0\0\0\0", b"garbage", bytes(1000)])
def test_nothing_may_follow_brotli_and_zstd(coding: str, rest: bytes) -> None:
    body = encode(coding, TEXT) + rest
    assert verdict(coding, body) == "bad_encoding"
    for sizes in ([1], [len(body) - len(rest)], [len(body) - 1]):
        assert verdict(coding, body, sizes) == "bad_encoding"


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_members_are_joined(coding: str) -> None:
    parts = [TEXT, b"", b"x", NOISE[:5000], b""]
    body = b"".join(encode(coding, part) for part in parts)
    for sizes in ([MIB], [1], [511, 513]):
        assert verdict(coding, body, sizes) == (b"".join(parts), False)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_later_member_must_be_whole(coding: str) -> None:
    first, second = encode(coding, TEXT), encode(coding, b"the second one")
    for end in range(1, len(second)):
        assert verdict(coding, first + second[:end]) == "truncated", end
        assert verdict(coding, first + second[:end], [1]) == "truncated", end
    damaged = bytearray(first + second)
    damaged[-1] ^= 1
    assert verdict(coding, bytes(damaged)) == "bad_encoding"


def test_skippable_zstd_frames_are_skipped() -> None:
    skippable = bytes.fromhex("502a4d18") + struct.pack("<I", 3) + b"abc"
    body = skippable + encode("zstd", TEXT) + skippable
    assert verdict("zstd", body) == (TEXT, False)
    assert verdict("zstd", body, [1]) == (TEXT, False)


def test_a_zstd_window_is_at_most_8_mib() -> None:
    module = zstd()
    for log, expected in ((23, (bytes(MIB), False)), (24, "bad_encoding"), (27, "bad_encoding")):
        packer = module.ZstdCompressor(options={module.CompressionParameter.window_log: log})
        body = packer.compress(bytes(MIB), packer.FLUSH_BLOCK) + packer.flush()  # a frame of unknown size
        assert verdict("zstd", body, [1000]) == expected, log


# --- what is not decoded


def test_at_most_five_codings_are_undone() -> None:
    five = ", ".join(["gzip"] * 5)
    assert decode_whole(five, encode_all(five, TEXT), MIB) == (TEXT, False)
    assert decode_whole(five + ", identity", encode_all(five, TEXT), MIB) == (TEXT, False)
    with pytest.raises(ProtocolError, match="6 content codings") as caught:
        Decoder(five + ", gzip", MIB)
    assert caught.value.code == "bad_encoding"


@pytest.mark.parametrize("name", ["compress", "x-compress", "dcb", "dcz", "exi", "aes128gcm", "pack200-gzip"])
@pytest.mark.parametrize("others", ["{}", "{}, gzip", "gzip, {}", "none, {}", " \t{}\t "])
def test_a_registered_coding_that_cannot_be_undone_is_named(name: str, others: str) -> None:
    """Its bytes are no text: what we cannot undo must not be stored as some."""
    for written in (name, name.upper()):
        with pytest.raises(ProtocolError, match=f"the content coding '{name}' is not undone here") as caught:
            Decoder(others.format(written), MIB)
        assert caught.value.code == "bad_encoding"


@pytest.mark.parametrize(
    ("header", "undone"),
    [
        ("none", ""), ("utf-8", ""), ("UTF-8, none", ""), ("sdch", ""), ("gzip;q=1", ""), ("\x1b[31m" + "x" * 10_000, ""),
        ("gzip, sdch", "gzip"), ("aws-chunked,gzip", "gzip"), ("gzip, aws-chunked", "gzip"), (",, gzip ,", "gzip"),
        ("none, deflate, utf-8, gzip, binary", "deflate, gzip"), (", ".join(["none"] * 50), ""),
    ],
)  # fmt: skip
def test_what_is_no_registered_coding_is_passed_over(header: str, undone: str) -> None:
    """The bytes are as they are (WHATWG Fetch, "handle content codings"; so do browsers)."""
    assert decode_whole(header, encode_all(undone, TEXT) if undone else TEXT, MIB) == (TEXT, False)


@pytest.mark.parametrize("header", ["\u00a0gzip", "gzip\x0b", "br\x85", "none, \x1cgzip", "\x0ccompress"])
def test_a_coding_between_odd_blanks_is_not_taken_for_none(header: str) -> None:
    """Only spaces and tabs are blanks of HTTP (RFC 9110, 5.6.3): the compressed bytes would be stored as text."""
    with pytest.raises(ProtocolError, match="is not written as one") as caught:
        Decoder(header, MIB)
    assert caught.value.code == "bad_encoding"
    assert len(caught.value.message) < 100


@pytest.mark.parametrize(("coding", "modules"), [("br", ["brotli"]), ("zstd", ["compression.zstd", "backports.zstd"])])
def test_a_missing_library_is_said_and_not_offered(
    coding: str, modules: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in modules:
        monkeypatch.setitem(sys.modules, name, None)
    clear_caches()
    assert coding not in accept_encoding().split(", ")
    assert accept_encoding().startswith("gzip, deflate")
    with pytest.raises(ProtocolError, match=r"pip install 'fetcher-crawl\[speed\]'") as caught:
        decode_whole(coding, b"anything", MIB)
    assert caught.value.code == "bad_encoding"


def test_a_brotli_that_cannot_bound_its_output_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        class Decompressor:
            def process(self, data: bytes) -> bytes:
                raise AssertionError(data)

    monkeypatch.setitem(sys.modules, "brotli", Old)
    clear_caches()
    assert "br" not in accept_encoding().split(", ")
    assert verdict("br", b"anything") == "bad_encoding"


def test_everything_offered_is_decoded() -> None:
    for coding in accept_encoding().split(", "):
        assert decode_whole(coding, encode(coding, TEXT), MIB) == (TEXT, False)
    assert accept_encoding() is accept_encoding()


def test_a_library_that_overshoots_is_cut_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        eof, unused_data, unconsumed_tail = False, b"", b""

        def decompress(self, data: bytes, limit: int) -> bytes:
            return bytes(limit + 5000)

    class Overshooting:
        error = zlib.error

        @staticmethod
        def decompressobj(wbits: int) -> Stream:
            return Stream()

    monkeypatch.setattr(backends, "load", lambda *names: Overshooting)
    decoder = Decoder("gzip", 1000)
    assert len(feed(decoder, b"\x1f\x8b\x08\x00")) == 1001
    assert decoder.overflow
