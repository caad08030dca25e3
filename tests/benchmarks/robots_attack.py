"""Owns what one host's hostile robots.txt costs the others: ``python -m tests.benchmarks.robots_attack [--rounds N]``.

One host has a robots.txt of 490 KB, patterns that are slow to look for in one path of 2,430 characters; 50 rows of the
list have that path, and 50 of other hosts are redirected to it. The others' speed is compared with the same list where
that host's file is empty, in interleaved rounds, best against best. It exits with 1 where they keep less than 0.95 of
it.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import msgspec

from fetcher.event_loop import fastest_loop
from tests.benchmarks.figures import Figure, at_least
from tests.lab.command import argv, environment
from tests.lab.connection import ServerConnection, whole_answer

ROOT = Path(__file__).resolve().parents[2]
HOSTS = 200
ROWS = 6_000
ATTACKS = 50
ROBOTS_BYTES = 490_000
PATH = "/" + "a" * 2_429
MIN_SHARE = 0.95


def robots() -> bytes:
    """Return rules of which each nearly fits the path, all over."""
    rules = [b"User-agent: *"]
    size = 0
    while size < ROBOTS_BYTES:
        rules.append(b"Disallow: /*" + b"a" * (100 + len(rules) % 140) + b"b")
        size += len(rules[-1]) + 1
    return b"\n".join(rules)


class AttackServer(ServerConnection):
    """Answers on every host; the last one has the file, where it is ``hostile``."""

    hostile = False
    file = robots()

    def asked(self, path: str, head: bytes) -> None:
        """Answer at once."""
        if path == "/robots.txt":
            file = self.file if self.hostile and b"Host: 127.5.9.9" in head else b""
            self.send(whole_answer("200 OK", file, kind="text/plain"))
        elif path.startswith("/there"):
            port = self.transport.get_extra_info("sockname")[1]
            location = f"Location: http://127.5.9.9:{port}{PATH}?{path[6:]}\r\n"
            self.send(whole_answer("302 Found", b"", more=location))
        else:
            self.send(whole_answer("200 OK", b"<title>x</title>", kind="text/html"))


async def serve(hostile: bool) -> None:
    """Serve until the input ends."""
    AttackServer.hostile = hostile
    loop = asyncio.get_running_loop()
    server = await loop.create_server(AttackServer, "0.0.0.0", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def crawl(*, hostile: bool) -> float:
    """Return the seconds until the last of the others had its record."""
    words = [sys.executable, "-m", "tests.benchmarks.robots_attack", "--serve", str(int(hostile))]
    with (
        subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server,
        tempfile.TemporaryDirectory() as name,
    ):
        assert server.stdout is not None
        assert server.stdin is not None
        port = int(server.stdout.readline())
        folder = Path(name)
        urls = [f"http://127.5.{n % HOSTS // 100}.{1 + n % 100}:{port}/{n}" for n in range(ROWS)]
        attacks = [f"http://127.5.9.9:{port}{PATH}?{n}" for n in range(ATTACKS)]
        attacks += [f"http://127.5.{n % 2}.{1 + n}:{port}/there{n}" for n in range(ATTACKS)]
        for n, url in enumerate(attacks):
            urls.insert(n * 50, url)
        (folder / "urls.txt").write_text("".join(f"{url}\n" for url in urls))
        began = time.time()
        ran = argv("crawl", "urls.txt", "-o", "pages.jsonl", "--robots", "-q")
        subprocess.run(ran, cwd=folder, env=environment(folder), check=True)
        others = [
            record["fetched_at"]
            for line in (folder / "pages.jsonl").read_bytes().splitlines()
            if "aaaa" not in (record := msgspec.json.decode(line))["url"] and "/there" not in record["url"]
        ]
        assert len(others) == ROWS
        server.stdin.close()
        last = datetime.fromisoformat(max(others))
        return last.timestamp() - began


def main() -> int:
    """Crawl in turn, print the figure, and say by the exit code whether it holds."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.robots_attack")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", type=int)
    words = parser.parse_args()
    if words.serve is not None:
        with asyncio.Runner(loop_factory=fastest_loop()) as runner:
            runner.run(serve(bool(words.serve)))
        return 0
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(words.rounds):
        for hostile, found in times.items():
            found.append(crawl(hostile=hostile))
    share = min(times[False]) / min(times[True])
    figure = Figure("speed of the others beside a hostile robots.txt", share, asked=at_least(MIN_SHARE))
    print(f"{figure}  ({min(times[True]):.2f} s and {min(times[False]):.2f} s without)")
    return not figure.holds


if __name__ == "__main__":
    sys.exit(main())
