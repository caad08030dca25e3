"""Owns what a store costs: ``python -m tests.benchmarks.store [--rows N] [--rounds N] [--part-rows N] [--format parquet|jsonl]``.

One list is crawled into a folder of parts on this disk (Parquet), or a file (jsonl), and into parts in an S3 server on
loopback, in pairs that take turns. Said is the CPU of our process alone, of each the median, and the median of the
ratios.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.workers import serving
from tests.lab.bucket import Bucket, missing, serving_bucket
from tests.lab.command import argv, environment

__all__ = ["measure"]

HOSTS = 50
PAGE_BYTES = 2_000


def measure(bucket: Bucket, port: int, *, rows: int, part_rows: int, form: str, name: str | None) -> float:
    """Return the CPU seconds of a crawl to a folder, or to the prefix ``name``."""
    with tempfile.TemporaryDirectory(prefix="fetcher-store-") as place:
        folder = Path(place)
        urls = (f"http://127.0.0.{number % HOSTS + 1}:{port}/{number}\n" for number in range(rows))
        (folder / "urls.txt").write_text("".join(urls))
        here = "pages/" if form == "parquet" else f"pages.{form}.zst"
        words = ["crawl", "urls.txt", "-f", form, "--no-progress", "--no-robots", "--per-host", "20", "--workers", "1"]
        words += ["-o", here if name is None else f"s3://{bucket.name}/{name}/"]
        words += ["--part-rows", str(part_rows)] if form == "parquet" or name is not None else []
        env = environment(folder, **bucket.environment(direct=True))
        with open(folder / "said.txt", "wb") as said:
            process = subprocess.Popen(
                argv(*words), cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, (folder / "said.txt").read_text()[-2_000:]
        return usage.ru_utime + usage.ru_stime


def main() -> int:
    """Measure, and say what it costs."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.store", description="What a store costs.")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--part-rows", type=int, default=10_000)
    parser.add_argument("--format", choices=["parquet", "jsonl"], default="parquet")
    wanted = parser.parse_args()
    if (what := missing()) is not None:
        print(what)
        return 1
    here: list[float] = []
    there: list[float] = []
    with serving_bucket() as bucket, serving(PAGE_BYTES) as port:
        for turn in range(wanted.rounds):
            for name in (None, f"round-{turn}") if turn % 2 else (f"round-{turn}", None):
                seconds = measure(
                    bucket, port, rows=wanted.rows, part_rows=wanted.part_rows, form=wanted.format, name=name
                )
                (here if name is None else there).append(seconds)
            print(f"round {turn + 1}: on disk {here[-1]:.2f} s, in a store {there[-1]:.2f} s", flush=True)
    ratio = statistics.median(two / one for one, two in zip(here, there, strict=True))
    print(
        f"{wanted.rows} rows, {wanted.format}: CPU of ours {statistics.median(here):.2f} s on disk, "
        f"{statistics.median(there):.2f} s in a store: {ratio:.2f} times"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
