"""Owns one proof: pages made to stop or kill a parser cost their own rows, and no other anything.

Run it with ``python -m tests.sweeps.bombs [ORDINARY] [EACH]``; it exits with 1 where a line does not hold. The list
is crawled without the hostile pages and with them, as it comes and with an extractor that is isolated.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fetcher.model import Response
from fetcher.page.parse import parse
from tests.lab.command import argv, environment

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 2  # seconds for one page
SLACK = 1.3
MEMORY = 64 * 1024 * 1024  # bytes more at the end than without the bombs
TIMES = ("elapsed", "waited", "fetched_at")

ORDINARY = b"<!doctype html><title>a page</title>" + b'<p>lorem ipsum <a href="/x">dolor</a></p>' * 400
BODIES = {
    "page": ORDINARY,
    "nested": b"<div>" * 100_000,
    "attributes": b"<p " + b" ".join(b"a%d=b" % number for number in range(50_000)) + b">",
    "abort": ORDINARY + b"<!-- abort -->",
}
CODES = {"page": None, "nested": "parse_timeout", "attributes": "parse_timeout", "abort": "parse_crash"}


def measure(response: Response) -> dict[str, Any]:
    """Be a user's extractor with a fault: one kind of page brings the process down."""
    if response.body.endswith(b"<!-- abort -->"):
        os.abort()
    return {"paragraphs": len(parse(response).tree.css("p"))}


@dataclass(frozen=True)
class Run:
    """What a crawl came to: seconds, records by URL, and bytes its process held at the end."""

    wall: float
    records: dict[str, dict[str, Any]]
    memory: int
    code: int


def prove(ordinary: int = 1_000, each: int = 10, *, say: Any = print) -> list[str]:
    """Crawl all four lists and return what does not hold."""
    faults: list[str] = []
    workers = min(4, os.cpu_count() or 1)
    with serving() as port, tempfile.TemporaryDirectory() as folder:
        for isolated in (False, True):
            kinds = ("nested", "attributes", "abort") if isolated else ("nested", "attributes")
            plain = crawl(Path(folder), urls(port, ordinary, (), 0), isolated=isolated)
            bombed = crawl(Path(folder), urls(port, ordinary, kinds, each), isolated=isolated)
            limits = math.ceil(2 * each / workers) * (LIMIT + 0.5)
            name = "isolated extractor" if isolated else "as it comes"
            say(
                f"{name}: {ordinary} pages {plain.wall:.1f} s, with {len(kinds) * each} bombs {bombed.wall:.1f} s "
                f"(limits {limits:.1f} s), memory at the end {plain.memory >> 20} and {bombed.memory >> 20} MiB"
            )
            faults += [f"{name}: {fault}" for fault in judge(plain, bombed, limits)]
    return faults


def judge(plain: Run, bombed: Run, limits: float) -> list[str]:
    """Return what a bombed run has wrong."""
    faults = []
    if (plain.code, bombed.code) != (0, 0):
        faults.append(f"exit codes {plain.code} and {bombed.code}")
    if bombed.wall > SLACK * plain.wall + limits:
        faults.append(f"it took {bombed.wall:.1f} s, more than {SLACK} x {plain.wall:.1f} s and {limits:.1f} s")
    if bombed.memory > plain.memory + MEMORY:
        faults.append(f"it held {bombed.memory} bytes at the end, {plain.memory} without the bombs")
    for url, record in bombed.records.items():
        kind = url.split("/")[3]
        if record["error"] != CODES[kind]:
            faults.append(f"{url}: {record['error']}: {record['message']}")
        elif kind == "page" and record != plain.records[url]:
            faults.append(f"{url}: another record than without the bombs")
        elif kind != "page" and (record["status"], record["bytes"]) != (200, len(BODIES[kind])):
            faults.append(f"{url}: status and size are lost")
    return faults


def urls(port: int, ordinary: int, kinds: tuple[str, ...], each: int) -> list[str]:
    """Return the list, its bombs spread over the first half."""
    listed = [f"http://127.0.0.{number % 20 + 1}:{port}/page/{number}" for number in range(ordinary)]
    bombs = [f"http://127.0.0.1:{port}/{kind}/{number}" for number in range(each) for kind in kinds]
    step = max(1, ordinary // 2 // max(1, len(bombs)))
    for place, bomb in enumerate(bombs):
        listed.insert(place * (step + 1), bomb)
    return listed


def crawl(folder: Path, listed: list[str], *, isolated: bool) -> Run:
    """Run ``fetcher crawl`` over the list."""
    (folder / "urls.txt").write_text("\n".join(listed))
    options = ["--isolate", "--extract", "tests.sweeps.bombs:measure"] if isolated else []
    command = argv("crawl", "urls.txt", "-o", "out.jsonl", "--fresh", "-q", "--parse-timeout", str(LIMIT), *options)
    environ = environment(folder, FETCHER_PER_HOST="50", FETCHER_ROBOTS="0")
    began = time.monotonic()
    memory = 0
    with subprocess.Popen(command, cwd=folder, env=environ) as process:
        while process.poll() is None:
            memory = held_by(process.pid) or memory
            time.sleep(0.1)
    wall = time.monotonic() - began
    records: dict[str, dict[str, Any]] = {}
    for line in (folder / "out.jsonl").read_bytes().splitlines():
        record = json.loads(line)
        records[record["url"]] = {key: value for key, value in record.items() if key not in ("id", *TIMES)}
    assert sorted(records) == sorted(listed)
    return Run(wall, records, memory, process.returncode)


def held_by(pid: int) -> int:
    """Return the resident bytes of a process, without those that parse for it and end with it; 0 once it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


@contextmanager
def serving() -> Iterator[int]:
    """Serve the bodies on all loopback addresses, in a thread."""
    started: list[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = []
    ready = threading.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                body = BODIES.get(head.split(b"/", 2)[1].decode(), b"")
                kind = b"text/html" if body else b"text/plain"
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (kind, len(body)))
                writer.write(body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def serve() -> None:
        over = asyncio.Event()
        async with await asyncio.start_server(answer, "0.0.0.0", 0, backlog=512) as server:
            started.append((asyncio.get_running_loop(), over, server.sockets[0].getsockname()[1]))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    ready.wait(30)
    loop, over, port = started[0]
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(30)


if __name__ == "__main__":
    broken = prove(*map(int, sys.argv[1:]))
    print("\n".join(broken) or "all holds")
    sys.exit(bool(broken))
