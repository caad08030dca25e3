"""Owns what Parquet costs in memory: the peak of ``fetcher crawl`` from a file into a file, of a list and of one five times as long.

Run it with ``python -m tests.benchmarks.parquet [ROWS] [--alone]``; the long list has ROWS (1,000,000), the short one a
fifth. Tiny pages of 200 hosts, default settings, the server in a process of its own. ``--alone`` writes made-up rows to
the output without a crawl: a minute, not half an hour. It exits with 1 where the long list takes more than
``MAX_RATIO`` of the short one, or more than ``MAX_MB``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from tests.benchmarks.memory import page
from tests.lab.command import argv, environment
from tests.lab.town import living_in

ROWS = 1_000_000
MAX_RATIO = 1.15  # the peak is a row group being written, and what the allocator keeps of the one before
MAX_MB = 250.0
GROUP_ROWS = 100_000

ALONE = """
import sys
from pathlib import Path
from fetcher.model import Page, Request
from fetcher.sinks import Layout, open_job_output

folder, rows = sys.argv[1], int(sys.argv[2])
output = open_job_output(f"{folder}/pages.parquet", Layout(free_data=False), work=f"{folder}/work")
output.create()
for start in range(1, rows + 1, 1000):
    chunks = []
    for row in range(start, min(rows, start + 999) + 1):
        url = f"https://www{row % 200}.example/shelf/{row % 77}/{row}"
        request = Request(row, url, fields={"sku": f"{row:08}"})
        more = {"length": row % 9999, "bytes": row % 9999, "title": f"Page {row} of the shop", "elapsed": 0.1, "fetched_at": 1e9 + row}
        chunks.append(output.encode(Page(request, url, 200, **more)))
    output.append(chunks)
    output.settle()
output.complete()
output.settle()
"""


def peak_alone(rows: int) -> float:
    """Write so many rows to an output and nothing else; return the peak of the process in MB (10^6 bytes)."""
    return _peak(lambda folder: [sys.executable, "-c", ALONE, str(folder), str(rows)], rows)


def peak_of_crawl(rows: int) -> float:
    """Crawl so many rows; return the peak of the process in MB."""
    with living_in() as town:
        urls = (page(town, row) for row in range(rows))
        return _peak(lambda _: argv("crawl", "urls.parquet", "-o", "pages.parquet", "--no-progress"), rows, urls)


def _write_list(path: Path, urls: Iterable[str]) -> None:
    """Write a list of URLs and numbers, in row groups of the size that other programs make."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([("url", pa.string()), ("sku", pa.int64())])
    with parquet.ParquetWriter(path, schema) as writer:
        for start, batch in enumerate(batched(urls, GROUP_ROWS)):
            numbers = range(start * GROUP_ROWS, start * GROUP_ROWS + len(batch))
            writer.write_table(pa.table({"url": batch, "sku": numbers}, schema))


def batched(items: Iterable[str], size: int) -> Iterator[list[str]]:
    """Yield lists of ``size`` items, the last perhaps shorter (``itertools`` has it from Python 3.12 on)."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def _peak(words: Callable[[Path], list[str]], rows: int, urls: Iterable[str] = ()) -> float:
    from pyarrow import parquet

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_list(folder / "urls.parquet", urls)
        with open(folder / "said.txt", "wb") as said:
            process = subprocess.Popen(
                words(folder),
                cwd=folder,
                env=environment(folder, FETCHER_ROBOTS="1") | {"PYTHONPATH": str(Path(__file__).parents[2])},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
            _, status, usage = os.wait4(process.pid, 0)  # of this process alone: those it started are not in it
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, (folder / "said.txt").read_text(errors="replace")[-2000:]
        assert parquet.read_metadata(folder / "pages.parquet").num_rows == rows
        return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def main() -> int:
    """Measure both lists and print their peaks; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.parquet", description="The memory of Parquet.")
    parser.add_argument("rows", type=int, nargs="?", default=ROWS)
    parser.add_argument("--alone", action="store_true", help="the output without a crawl")
    wanted = parser.parse_args()
    measure = peak_alone if wanted.alone else peak_of_crawl
    peaks = []
    for rows in (wanted.rows // 5, wanted.rows):
        began = time.monotonic()
        peaks.append(measure(rows))
        print(f"{rows} rows: {peaks[-1]:.1f} MB ({time.monotonic() - began:.0f} s)", flush=True)
    ratio = peaks[1] / peaks[0]
    holds = ratio <= MAX_RATIO and peaks[1] < MAX_MB
    print(f"ratio {ratio:.2f} (at most {MAX_RATIO}, under {MAX_MB:g} MB): {'ok' if holds else 'too much'}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
