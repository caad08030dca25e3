"""Measures what rows that are found cost: memory and disk, with a page that names as many pages, which name as many again.

Run it with ``python -m tests.benchmarks.following [--pages 1000] [--links 1000]``: a million links by default. It exits
with 1 where more than 250 MB of memory or 60 bytes on the disk for a known URL were needed.
"""

from __future__ import annotations

import argparse
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from tests.lab.command import argv, environment
from tests.lab.linked import LinkedPage, LinkedSite, page

__all__ = ["Figures", "measure"]

MAX_MEMORY = 250e6
MAX_BYTES_A_URL = 60.0


class Figures(NamedTuple):
    """What a run needed: links that became rows, seconds until then, the peak of its memory, bytes on disk for a known URL."""

    found: int
    seconds: float
    memory: int
    bytes_a_url: float


def measure(folder: Path, pages: int, links: int) -> Figures:
    """Follow ``pages`` times ``links`` links, until all of them are rows, and a little further."""

    def answer(path: str) -> LinkedPage:
        match path.strip("/").split("/"):
            case [""]:
                return page(*(f"/{number}" for number in range(pages)))
            case [number]:
                return page(*(f"/{number}/a-page-of-the-site-{each}.html" for each in range(links)))
            case _:
                return page()

    words = ["crawl", "--follow", "-o", "pages.jsonl", "-q", "--retries", "0", "--max-pages", "100000000"]
    words += ["-c", "100", "--per-host", "100"]
    with LinkedSite(answer) as site:
        began = time.monotonic()
        process = subprocess.Popen(argv(*words, site.url()), cwd=folder, env=environment(folder))
        while len(site.log) < 1 + pages + 2_000 and process.poll() is None:
            time.sleep(0.05)
        seconds = time.monotonic() - began
        process.send_signal(signal.SIGINT)
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0
    with closing(sqlite3.connect(folder / "pages.jsonl.job" / "ledger.sqlite")) as db:
        (found,) = db.execute("SELECT count(*) FROM found").fetchone()
        size = _size_of_seen(db, folder / "seen.sqlite")
    return Figures(found, seconds, used.ru_maxrss * 1024, size / (found + 1))


def _size_of_seen(db: sqlite3.Connection, copy: Path) -> int:
    """Return the bytes of the table: of its pages, where SQLite can tell, else of a file with its rows in their first order."""
    try:
        (size,) = db.execute("SELECT sum(pgsize) FROM dbstat WHERE name = 'seen'").fetchone()
        return int(size)
    except sqlite3.OperationalError:
        with closing(sqlite3.connect(copy)) as other:
            other.execute("CREATE TABLE seen(key BLOB PRIMARY KEY, found INTEGER NOT NULL) WITHOUT ROWID")
            rows = db.execute("SELECT key, found FROM seen").fetchall()
            rows.sort(key=lambda row: hash(row[0]))  # keys come in no order
            other.executemany("INSERT INTO seen VALUES (?, ?)", rows)
            other.commit()
        return copy.stat().st_size


def main() -> int:
    """Measure, print the figures, and say by the exit code whether they are within the bounds."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.following", description="What found rows cost.")
    parser.add_argument("--pages", type=int, default=1_000)
    parser.add_argument("--links", type=int, default=1_000)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fetcher-following-") as folder:
        figures = measure(Path(folder), wanted.pages, wanted.links)
        size = sum(path.stat().st_size for path in Path(folder, "pages.jsonl.job").iterdir())
    print(
        f"{figures.found:,} rows found in {figures.seconds:.0f} s: {figures.memory / 1e6:.0f} MB of memory at the peak, "
        f"{figures.bytes_a_url:.1f} bytes on disk for a known URL, {size / figures.found:.0f} for all of a row's job"
    )
    within = figures.memory < MAX_MEMORY and figures.bytes_a_url < MAX_BYTES_A_URL
    return 0 if within and figures.found >= wanted.pages * wanted.links else 1


if __name__ == "__main__":
    sys.exit(main())
