from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from fetcher.errors import SourceError
from fetcher.sources import read
from fetcher.sources.threaded_iterator import ThreadedIterator

DEADLINE = 10.0  # seconds; what it guards takes milliseconds


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
    async with aclosing(ThreadedIterator(read(["-"], format=kind))) as rows:
        for number in range(1, 6):
            pipe.send(line.format(f"{number}.example"))
            row: Any = await asyncio.wait_for(anext(rows), DEADLINE)
            assert (row.id, row.url) == (number, f"{number}.example")
    pipe.send(line.format("last.example"))  # wakes the thread, which is closed by now


async def test_closing_does_not_wait_for_a_blocked_read(pipe: Pipe) -> None:
    rows = ThreadedIterator(read(["-"]))
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
from fetcher.sources.threaded_iterator import ThreadedIterator
async def main():
    async for row in ThreadedIterator(read(["-"])):
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


@pytest.mark.parametrize("size", [1, 2, 256])
async def test_every_row_comes_through_in_order(size: int) -> None:
    rows = ThreadedIterator(iter(range(5000)), size=size)
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

    async for _ in ThreadedIterator(rows(), size=16):
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
    threaded = ThreadedIterator(rows())
    with pytest.raises(SourceError, match="list:4: broken"):
        async for row in threaded:
            found.append(row)
    assert found == [0, 1, 2]
    with pytest.raises(StopAsyncIteration):
        await anext(threaded)


async def test_the_rows_are_closed_by_the_thread_or_before_it_began() -> None:
    closed = threading.Event()

    def rows() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            closed.set()

    threaded = ThreadedIterator(rows(), size=4)
    assert await anext(threaded) == 0
    await threaded.aclose()
    assert await asyncio.to_thread(closed.wait, DEADLINE)

    unused = rows()
    await ThreadedIterator(unused).aclose()
    assert list(unused) == []


async def test_a_reader_that_is_cancelled_loses_no_row() -> None:
    gate = threading.Semaphore(0)

    def rows() -> Iterator[int]:
        for number in range(20):
            gate.acquire()
            yield number

    threaded: ThreadedIterator[int] = ThreadedIterator(rows())
    found: list[int] = []
    for number in range(20):
        waiting = asyncio.ensure_future(anext(threaded))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task"):
            await anext(threaded)
        if number % 2:
            gate.release()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        if not number % 2:
            gate.release()
        found.append(await asyncio.wait_for(anext(threaded), DEADLINE))
    assert found == list(range(20))
    await threaded.aclose()


async def test_iterating_is_asynchronous_and_the_loop_turns_meanwhile(pipe: Pipe) -> None:
    rows: AsyncIterator[Any] = ThreadedIterator(read(["-"]))
    turned = asyncio.Event()
    waiting = asyncio.ensure_future(anext(rows))
    asyncio.get_running_loop().call_soon(turned.set)
    await asyncio.wait_for(turned.wait(), DEADLINE)
    assert not waiting.done()
    pipe.send("a.example\n")
    assert (await asyncio.wait_for(waiting, DEADLINE)).url == "a.example"
    with pytest.raises(ValueError, match="size"):
        ThreadedIterator(iter([1]), size=0)
