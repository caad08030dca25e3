from __future__ import annotations

import asyncio
import gzip
import io
import os
import random
import subprocess
import sys
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from backports import zstd

from fetcher.errors import SourceError
from fetcher.sources import read
from fetcher.sources.handover import Handover
from fetcher.sources.packing import packing_of, unpack
from fetcher.sources.streams import BLOCK, LINE_LIMIT, Overlong, in_thread, whole_lines

DEADLINE = 10.0  # seconds; what it guards takes milliseconds


def lines_of(blocks: list[bytes]) -> list[bytes | Overlong]:
    found: list[bytes | Overlong] = []
    for piece in whole_lines(iter(blocks)):
        found.extend([piece] if isinstance(piece, Overlong) else piece.split(b"\n"))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_lines_do_not_depend_on_where_blocks_end(seed: int) -> None:
    choice = random.Random(seed)
    sizes = [0, 1, 10, 1000, LINE_LIMIT - 1, LINE_LIMIT, LINE_LIMIT + 1, 3 * LINE_LIMIT]
    lines = [choice.choice([b"x", b'"']) * choice.choice(sizes) for _ in range(30)]
    data = b"\n".join([*lines, b"end"]) + choice.choice([b"", b"\n"])
    blocks = []
    at = 0
    while at < len(data):
        size = choice.choice([1, 7, 5000, BLOCK, BLOCK])
        blocks.append(data[at : at + size])
        at += size
    expected = [
        Overlong(line[:LINE_LIMIT], line.count(b'"')) if len(line) > LINE_LIMIT else line for line in [*lines, b"end"]
    ]
    assert lines_of(blocks) == expected


def test_lines_of_nothing_and_of_line_ends() -> None:
    assert lines_of([]) == []
    assert lines_of([b""]) == []
    assert lines_of([b"\n"]) == [b""]
    assert lines_of([b"a", b"\n", b"\n", b"b"]) == [b"a", b"", b"b"]
    assert lines_of([b"x" * LINE_LIMIT, b"x", b"\n", b"b\n"]) == [Overlong(b"x" * LINE_LIMIT, 0), b"b"]


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
    blocks = (packed[at : at + step] for at in range(0, len(packed), step))
    found = list(unpack(blocks, member.split(maxsplit=1)[0], name="list", size=BLOCK))
    assert b"".join(found) == b"".join(texts)
    assert max(map(len, found)) <= BLOCK
    assert packing_of(packed) == member.split(maxsplit=1)[0]


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_no_cut_is_a_shorter_list(packing: str) -> None:
    whole = MEMBERS[packing](b"a.example\nb.example\n")
    for end in range(1, len(whole)):
        with pytest.raises(OSError, match=f"the {packing} data is cut short"):
            list(unpack(iter([whole, whole[:end]]), packing, name="list", size=BLOCK))


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
    assert str(caught.value) == f"{path}: zstandard is not installed: pip install 'fetcher[speed]'"


class Pipe:
    """A real pipe that stands for the process's own stdin."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        out, self.into = os.pipe()
        self.stdin = open(out, "rb")
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(self.stdin))

    def send(self, text: str) -> None:
        os.write(self.into, text.encode())


@pytest.fixture(params=["blocking", "non-blocking"])
def pipe(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    before = set(threading.enumerate())
    pipe = Pipe(monkeypatch)
    os.set_blocking(pipe.stdin.fileno(), request.param == "blocking")
    yield pipe
    os.close(pipe.into)
    for thread in set(threading.enumerate()) - before:  # it reads a number, which may be another pipe's from here on
        thread.join(DEADLINE)
        assert not thread.is_alive()
    sys.stdin.close()


@pytest.mark.parametrize(
    ("kind", "head", "line"),
    [("txt", "", "{}\n"), ("csv", "url,n\n", "{},1\n"), ("tsv", "n\turl\r\n", "1\t{}\r\n"), ("jsonl", "", '"{}"\n')],
)
async def test_a_row_is_there_as_soon_as_its_line_is(pipe: Pipe, kind: str, head: str, line: str) -> None:
    pipe.send(head)
    async with aclosing(in_thread(read(["-"], format=kind))) as rows:
        for number in range(1, 6):
            pipe.send(line.format(f"{number}.example"))
            row: Any = await asyncio.wait_for(anext(rows), DEADLINE)
            assert (row.id, row.url) == (number, f"{number}.example")
    pipe.send(line.format("last.example"))  # wakes the thread, which is closed by now


async def test_closing_does_not_wait_for_a_blocked_read(pipe: Pipe) -> None:
    rows = in_thread(read(["-"]))
    waiting = asyncio.ensure_future(anext(rows))
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.01)
    await asyncio.wait_for(rows.aclose(), DEADLINE)
    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(waiting, DEADLINE)
    with pytest.raises(StopAsyncIteration):
        await anext(rows)
    pipe.send("late.example\n")


def test_a_process_ends_while_its_stdin_is_being_read() -> None:
    code = """
import asyncio
from fetcher.sources import read
from fetcher.sources.streams import in_thread
async def main():
    async for row in in_thread(read(["-"])):
        print(row.url)
        return
asyncio.run(main())
"""
    root = Path(__file__).resolve().parents[1]
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(b"a.example\n")
        process.stdin.flush()
        assert process.wait(DEADLINE * 3) == 0
        assert process.stdout.read() == b"a.example\n"
        assert process.stderr.read() == b""


def test_a_stdin_that_is_closed_or_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a.example\n")))
    assert [row.url for row in read(["-"])] == ["a.example"]  # type: ignore[union-attr]  # a Request
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SourceError, match=r"^stdin: is closed$"):
        list(read(["-"]))


@pytest.mark.parametrize("size", [1, 2, 256])
async def test_every_row_comes_through_in_order(size: int) -> None:
    rows = in_thread(iter(range(5000)), size=size)
    found = []
    async for row in rows:
        found.append(row)
        if row % 97 == 0:
            await asyncio.sleep(0)
    assert found == list(range(5000))
    with pytest.raises(StopAsyncIteration):
        await anext(rows)


async def test_the_thread_is_never_further_ahead_than_size() -> None:
    made: list[int] = []
    ahead: list[int] = []
    taken = 0

    def rows() -> Iterator[int]:
        for number in range(2000):
            made.append(number)
            ahead.append(len(made) - taken)
            yield number

    async for _ in in_thread(rows(), size=16):
        taken += 1
        if taken % 50 == 0:
            await asyncio.sleep(0.001)
    assert taken == 2000
    assert max(ahead) <= 16 + 2  # the one being made, and the one being taken


async def test_what_the_rows_raise_is_raised_after_the_last_one() -> None:
    def rows() -> Iterator[int]:
        yield from range(3)
        raise SourceError("list:4: broken")

    found = []
    handover = in_thread(rows())
    with pytest.raises(SourceError, match="list:4: broken"):
        async for row in handover:
            found.append(row)
    assert found == [0, 1, 2]
    with pytest.raises(StopAsyncIteration):
        await anext(handover)


async def test_the_rows_are_closed_by_the_thread_or_before_it_began() -> None:
    closed = threading.Event()

    def rows() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            closed.set()

    handover = in_thread(rows(), size=4)
    assert await anext(handover) == 0
    await handover.aclose()
    assert await asyncio.to_thread(closed.wait, DEADLINE)

    unused = rows()
    await in_thread(unused).aclose()
    assert list(unused) == []


async def test_a_reader_that_is_cancelled_loses_no_row() -> None:
    gate = threading.Semaphore(0)

    def rows() -> Iterator[int]:
        for number in range(20):
            gate.acquire()
            yield number

    handover: Handover[int] = in_thread(rows())
    found: list[int] = []
    for number in range(20):
        waiting = asyncio.ensure_future(anext(handover))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task"):
            await anext(handover)
        if number % 2:
            gate.release()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        if not number % 2:
            gate.release()
        found.append(await asyncio.wait_for(anext(handover), DEADLINE))
    assert found == list(range(20))
    await handover.aclose()


async def test_iterating_is_asynchronous_and_the_loop_turns_meanwhile(pipe: Pipe) -> None:
    rows: AsyncIterator[Any] = in_thread(read(["-"]))
    turned = asyncio.Event()
    waiting = asyncio.ensure_future(anext(rows))
    asyncio.get_running_loop().call_soon(turned.set)
    await asyncio.wait_for(turned.wait(), DEADLINE)
    assert not waiting.done()
    pipe.send("a.example\n")
    assert (await asyncio.wait_for(waiting, DEADLINE)).url == "a.example"
    with pytest.raises(ValueError, match="size"):
        in_thread(iter([1]), size=0)
