"""Owns one proof: bodies that unpack to far more than they are cost no memory: ``python -m tests.sweeps.packed_bombs [N]``.

N rows (1,000), a quarter each: pages, 404s, redirects, and pages behind a robots.txt, all of them and the list itself
bombs in gzip, deflate, br and zstd that unpack to ``UNPACKED`` bytes. The peak of the crawl is compared with that of
the same rows without bombs; it exits with 1 where it is more than ``SLACK`` plus ``Limits.memory`` above, or a row is
missing.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from fetcher.compression import Compressor
from fetcher.config import Limits
from tests.lab.command import argv, environment
from tests.lab.connection import ServerConnection, whole_answer

UNPACKED = 200 * 1024 * 1024
SLACK = 64 * 1024 * 1024
CODINGS = ("gzip", "deflate", "br", "zstd")
KINDS = ("page", "missing", "moved", "robots")


def packed(coding: str) -> bytes:
    """Return the bomb of a coding. It is made in pieces: the peak of this process is that of those it starts, at first."""
    piece = bytes(1024 * 1024)
    if coding in ("gzip", "deflate"):
        stream = zlib.compressobj(6, zlib.DEFLATED, 31 if coding == "gzip" else 15)
        pieces = [stream.compress(piece) for _ in range(UNPACKED // len(piece))]
        return b"".join([*pieces, stream.flush()])
    if coding == "zstd":
        frames = Compressor("zstd")
        return b"".join([*(frames.update(piece) for _ in range(UNPACKED // len(piece))), frames.end()])
    import brotli

    brotli_stream = brotli.Compressor(quality=5)
    pieces = [brotli_stream.process(piece) for _ in range(UNPACKED // len(piece))]
    return b"".join([*pieces, brotli_stream.finish()])


class BombServer(ServerConnection):
    """Answers ``/KIND/CODING/N`` and robots.txt; some hosts have a bomb for the latter."""

    bodies: ClassVar[dict[str, bytes]] = {}
    armed = False

    def asked(self, path: str, head: bytes) -> None:
        """Answer at once."""
        _, kind, *rest = path.split("/")
        coding = rest[0] if rest else CODINGS[hash(head) % len(CODINGS)]
        host = head.lower().partition(b"\r\nhost: ")[2].split(b"\r\n", 1)[0].partition(b":")[0]
        status, more = "200 OK", ""
        bomb = self.armed
        if kind == "robots.txt":
            bomb = bomb and host.startswith(b"127.9.1.")
        elif kind == "missing":
            status = "404 Not Found"
        elif kind == "moved":
            status, more = "302 Found", "Location: /plain\r\n"
        elif kind in ("robots", "plain"):
            bomb = False
        body = self.bodies[coding] if bomb else b""
        more += f"Content-Encoding: {coding}\r\n" if bomb else ""
        self.send(whole_answer(status, body, kind="text/html", more=more))


@contextmanager
def serving() -> Iterator[int]:
    """Serve on every loopback address, in a thread; give the port."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(BombServer, "0.0.0.0", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def urls(rows: int, port: int) -> Iterator[str]:
    """Yield the rows: those behind a robots.txt on hosts of their own."""
    for row in range(rows):
        kind, coding = KINDS[row % len(KINDS)], CODINGS[row // len(KINDS) % len(CODINGS)]
        block = 1 if kind == "robots" else 0
        yield f"http://127.9.{block}.{row // 16 % 200 + 1}:{port}/{kind}/{coding}/{row}"


def peak_of(rows: int, port: int, *, list_is_a_bomb: bool) -> int:
    """Crawl the rows, and return the peak of the process in bytes; the list is packed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with gzip.open(folder / "urls.txt.gz", "wb", 6) as listed:
            listed.write("".join(f"{url}\n" for url in urls(rows, port)).encode() + b"#")
            for _ in range(UNPACKED // 2**20 if list_is_a_bomb else 0):
                listed.write(b" " * 2**20)
        with open(folder / "said.txt", "wb") as said:
            process = subprocess.Popen(
                argv("crawl", "urls.txt.gz", "-o", "pages.jsonl", "--no-progress", "--retries", "0"),
                cwd=folder, env=environment(folder, FETCHER_ROBOTS="1"), stdin=subprocess.DEVNULL, stdout=said, stderr=said,
            )  # fmt: skip
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode in (0, 3), (folder / "said.txt").read_text(errors="replace")[-2000:]
        ids = [json.loads(line)["id"] for line in (folder / "pages.jsonl").read_text().splitlines()]
        assert sorted(ids) == list(range(1, rows + 1)), f"{len(ids)} records of {rows} rows"
        return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> int:
    """Crawl both, print the peaks, and say by the exit code whether they hold."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    BombServer.bodies = {coding: packed(coding) for coding in CODINGS}
    with serving() as port:
        plain = peak_of(rows, port, list_is_a_bomb=False)
        BombServer.armed = True
        bombs = peak_of(rows, port, list_is_a_bomb=True)
    allowed = plain + SLACK + Limits().memory
    holds = bombs <= allowed
    print(
        f"{rows} rows: {plain / 1e6:.0f} MB without bombs, {bombs / 1e6:.0f} MB with them "
        f"(at most {allowed / 1e6:.0f}): {'ok' if holds else 'too much'}"
    )
    return not holds


if __name__ == "__main__":
    sys.exit(main())
