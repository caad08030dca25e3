"""Owns what a hard limit of file descriptors costs: ``python -m tests.benchmarks.descriptors [--rows N] [--limit N]``.

A list of as many hosts as rows, each answering after 100 ms, is crawled under the limit, at several concurrencies; and
without the limit at the concurrency that it was lowered to. It exits with 1 where a row is missing or the limit costs
more than half as much again.
"""

from __future__ import annotations

import argparse
import re
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.figures import Figure, at_most
from tests.lab.command import argv, environment
from tests.lab.town import Town, living_in

CONCURRENCIES = (100, 200, 500)
LATENCY_MS = 100
MAX_RATIO = 1.5
LOWERED = re.compile(r"-c \d+ is lowered to (\d+)")


class Ran(NamedTuple):
    """How long a crawl took, how many records it wrote, and what it was lowered to."""

    seconds: float
    pages: int
    concurrency: int


def crawl(town: Town, rows: int, concurrency: int, limit: int | None) -> Ran:
    """Crawl a host for each row."""
    urls = [
        town.url("living", f"127.{1 + n // 62_500}.{n // 250 % 250}.{1 + n % 250}", n, LATENCY_MS) for n in range(rows)
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "urls.txt").write_text("".join(f"{url}\n" for url in urls))
        words = argv("crawl", "urls.txt", "-o", "pages.jsonl", "-c", str(concurrency), "--no-progress")
        limited = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (limit, limit)) if limit is not None else None
        began = time.monotonic()
        done = subprocess.run(
            words, cwd=folder, env=environment(folder), stderr=subprocess.PIPE, check=True, preexec_fn=limited
        )
        seconds = time.monotonic() - began
        lowered = LOWERED.search(done.stderr.decode())
        pages = (folder / "pages.jsonl").read_bytes().count(b'"status":200')
        return Ran(seconds, pages, int(lowered[1]) if lowered else concurrency)


def main() -> int:
    """Crawl, print the figures, and say by the exit code whether they hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.descriptors")
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--limit", type=int, default=256)
    words = parser.parse_args()
    held = True
    with living_in() as town:
        for concurrency in CONCURRENCIES:
            under = crawl(town, words.rows, concurrency, words.limit)
            without = crawl(town, words.rows, under.concurrency, None)
            figures = [
                Figure(f"-c {concurrency} (lowered to {under.concurrency}): rows missing", words.rows - under.pages, asked=at_most(0)),
                Figure(f"-c {concurrency}: its time, {under.seconds:.1f} s, over that without the limit", under.seconds / without.seconds, asked=at_most(MAX_RATIO)),
            ]  # fmt: skip
            print("\n".join(map(str, figures)), flush=True)
            held &= all(figure.holds for figure in figures)
    return not held


if __name__ == "__main__":
    sys.exit(main())
