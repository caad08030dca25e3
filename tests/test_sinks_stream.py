from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import pytest
from backports import zstd

from fetcher.errors import SinkError
from fetcher.sinks import JSONLSink, OutputStream, check_output, open_sink
from fetcher.sinks import stream as stream_module
from tests.test_sinks import DEADLINE, failure, fill, page, rows, unpack


def read_all(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:
        return file.read()


@pytest.mark.parametrize("blocking", [True, False])
async def test_a_slow_reader_stops_the_writer_and_not_the_loop(blocking: bool) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, blocking)
    lines = [b"%06d" % i + b"x" * 4090 + b"\n" for i in range(1000)]
    taken = 0

    async def write() -> None:
        nonlocal taken
        async with OutputStream(f"/dev/fd/{writer}") as output:
            for line in lines:
                await output.write(line)
                taken += 1

    task = asyncio.create_task(write())
    before = -1
    while taken != before:
        before = taken
        for _ in range(1000):
            await asyncio.sleep(0)
    assert 0 < taken < len(lines)
    assert not task.done()
    os.close(writer)
    received = asyncio.create_task(asyncio.to_thread(read_all, reader))
    async with asyncio.timeout(DEADLINE):
        await task
        assert await received == b"".join(lines)


async def test_a_lone_line_reaches_a_pipe_without_a_second_one() -> None:
    reader, writer = os.pipe()
    async with asyncio.timeout(DEADLINE), OutputStream(f"/dev/fd/{writer}") as output:
        await output.write(b"one\n")
        assert await asyncio.to_thread(os.read, reader, 100) == b"one\n"
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
async def test_a_lone_line_reaches_the_file(tmp_path: Path, packing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "FILE_FLUSH_SECONDS", 0.01)
    path = tmp_path / f"a.txt{packing}"
    unpacker: Any = {".gz": lambda: zlib.decompressobj(31), ".zst": zstd.ZstdDecompressor}.get(packing)
    async with asyncio.timeout(DEADLINE), OutputStream(path) as output:
        await output.write(b"one\n")
        while (unpacker().decompress(path.read_bytes()) if packing else path.read_bytes()) != b"one\n":
            await asyncio.sleep(0.001)
        await output.write(b"two\n")
    assert unpack(path) == b"one\ntwo\n"


async def test_a_fifo_waits_for_its_reader_and_can_be_left(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    os.mkfifo(path)
    task = asyncio.create_task(fill(path, page()))
    for _ in range(100):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    check_output(path)
    async with asyncio.timeout(DEADLINE):
        received = asyncio.create_task(asyncio.to_thread(path.read_bytes))
        await fill(path, page(), failure())
        assert [json.loads(line)["id"] for line in (await received).splitlines()] == [1, 2]


async def test_a_reader_that_left_is_a_broken_pipe() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    before = len(os.listdir("/proc/self/fd"))
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(BrokenPipeError, match=f"/dev/fd/{writer}"):
            await fill(f"/dev/fd/{writer}", page())
        with pytest.raises(BrokenPipeError):
            async with OutputStream(f"/dev/fd/{writer}") as output:
                while True:
                    await output.write(b"x" * 10_000)
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(writer)


@pytest.mark.parametrize("many", [1, 5000])
async def test_a_full_device_ends_the_run(many: int) -> None:
    with pytest.raises(SinkError, match=r"^/dev/full: cannot write: No space left on device$"):
        await fill("/dev/full", *[page(data="x" * 100)] * many, format="jsonl")
    await fill("/dev/null", *[page()] * many)


async def test_a_failure_at_the_exit_is_told_when_cancelled_too() -> None:
    async def hang() -> None:
        async with JSONLSink("/dev/full") as sink:
            await sink.write(page())
            entered.set()
            await asyncio.Event().wait()

    entered = asyncio.Event()
    task = asyncio.create_task(hang())
    await entered.wait()
    task.cancel()
    with pytest.raises(SinkError):
        await task


async def test_a_cancelled_run_keeps_what_was_taken(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0), JSONLSink(tmp_path / "a.jsonl") as sink:
            await sink.write(page(7))
            await asyncio.Event().wait()
    assert json.loads(unpack(tmp_path / "a.jsonl"))["id"] == 7


async def test_a_failed_sync_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SinkError, match=r"a\.txt: cannot write: Input/output error"):
        await fill(tmp_path / "a.txt", page())


async def overfill(path: Path, reason: str) -> None:
    with pytest.raises(SinkError, match=f"^{path}: cannot write: {reason}$"):
        async with open_sink(path) as sink:
            for i in range(1, 10_000):
                await sink.write(page(i, title="two\nlines"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
async def test_a_full_disk_leaves_whole_records(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_001, limits[1]))
    try:
        await overfill(path, "File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    check_whole(path)


async def test_a_full_file_system_leaves_whole_records(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        await overfill(tmp_path / "a.jsonl", "No space left on device")
        check_whole(tmp_path / "a.jsonl")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def check_whole(path: Path) -> None:
    data = path.read_bytes()
    found = rows(data) if path.suffix == ".csv" else [json.loads(line) for line in data.splitlines()]
    assert [int(row["id"]) for row in found] == list(range(1, len(found) + 1))
    assert len(found) > 200
    assert data.endswith(b"\n")


async def test_standard_output_is_written_behind_what_stands_there(capfd: pytest.CaptureFixture[str]) -> None:
    for path in ("-", "/dev/stdout", "/dev/fd/1"):
        check_output(path)
        print("before")
        await fill(path, page(), fresh=True)
        os.write(1, b"after\n")
        assert capfd.readouterr().out == "before\nhttps://a.example/ -> 5\nafter\n"


def test_standard_output_that_is_closed_is_said_so() -> None:
    code = "from fetcher.sinks import check_output; check_output('-')"
    command = ["sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable, code]
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=DEADLINE, check=False)
    assert "SinkError: standard output: is closed" in ended.stderr


def test_a_stuck_reader_does_not_keep_the_process_alive() -> None:
    code = (
        "import asyncio\nfrom fetcher.sinks import OutputStream\nasync def main():\n async with OutputStream('-') as o:\n"
        "  while True: await o.write(b'x' * 9999)\ntry: asyncio.run(asyncio.wait_for(asyncio.wait_for(main(), .2), .4))"
        "\nexcept TimeoutError: raise SystemExit(7)"
    )
    reader, writer = os.pipe()
    try:
        assert subprocess.run([sys.executable, "-c", code], stdout=writer, timeout=DEADLINE).returncode == 7
    finally:
        os.close(reader)
        os.close(writer)


async def test_two_tasks_may_write_and_nobody_before_or_after(tmp_path: Path) -> None:
    sink = JSONLSink(tmp_path / "a.jsonl")
    with pytest.raises(RuntimeError, match="not open"):
        await sink.write(page())
    async with sink, asyncio.TaskGroup() as group:
        for i in range(100):
            group.create_task(sink.write(page(i)))
    with pytest.raises(RuntimeError, match="not open"):
        await sink.write(page())
    assert len(unpack(tmp_path / "a.jsonl").splitlines()) == 100
    assert threading.active_count() < 50
