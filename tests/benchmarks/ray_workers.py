"""Owns what a cluster costs: ``python -m tests.benchmarks.ray_workers [--rows N] [--hosts N] [--rounds N] [--bytes N]``.

One list is crawled on this machine by ``--workers 2`` and by ``--workers ray:2`` in turn, the latter on a cluster that
runs already: of one node here, with a core for each worker. What is asked for is that Ray has 0.85 of the other's pages
per second at least, by the median of the rounds' ratios, from the first record to the last; the whole run, with the
start of interpreters and actors, stands beside it. The server shares the cores, so only ratios say something.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.workers import serving
from tests.lab.command import argv, environment
from tests.lab.ray_cluster import HAS_RAY, cluster

__all__ = ["Ran", "crawl"]

ASKED = 0.85
DEADLINE = 900.0
LOOK_SECONDS = 0.02


class Ran(NamedTuple):
    """Seconds of a run: all of it, and from the first records to the last."""

    whole: float
    steady: float


def crawl(urls: list[str], *words: str) -> Ran:
    """Crawl a list into a job, and look at its output meanwhile."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "urls.txt").write_text("".join(f"{url}\n" for url in urls))
        output = folder / "pages.jsonl"
        began = time.monotonic()
        with open(folder / "said.txt", "wb") as said:
            process = subprocess.Popen(
                argv("crawl", "urls.txt", "-o", "pages.jsonl", "--no-progress", "--per-host", "50", *words),
                cwd=folder,
                env=environment(folder, FETCHER_ROBOTS="1"),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        first: tuple[float, int] | None = None
        last = began
        size = 0
        while process.poll() is None:
            assert time.monotonic() - began < DEADLINE
            now = output.stat().st_size if output.exists() else 0
            if now > size:
                size, last = now, time.monotonic()
                first = first or (last, now)
            time.sleep(LOOK_SECONDS)
        ended = time.monotonic()
        data = output.read_bytes()
        records = data.count(b"\n")
        assert (process.returncode, records) == (0, len(urls)), (folder / "said.txt").read_text()
        assert first is not None
        # What was written with the first records took its time before them.
        share = 1 - first[1] / len(data)
        return Ran(ended - began, (last - first[0]) / share)


def main() -> int:
    """Measure, print, and say by the exit code whether it is as asked."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.ray_workers")
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--hosts", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bytes", type=int, default=30_000, help="of a page")
    wanted = parser.parse_args()
    if not HAS_RAY:
        parser.error("Ray is not installed: pip install -e '.[test,ray]'")
    with serving(wanted.bytes) as port, cluster(nodes=1) as made:
        urls = [f"http://127.0.1.{1 + n % wanted.hosts}:{port}/{n}" for n in range(wanted.rows)]
        pairs = []
        for number in range(wanted.rounds):
            local = crawl(urls, "--workers", "2")
            on_ray = crawl(urls, "--workers", "ray:2", "--ray-address", made.address)
            pairs.append((local, on_ray))
            print(
                f"round {number + 1}: --workers 2 {wanted.rows / local.steady:.0f} pages/s, --workers ray:2 "
                f"{wanted.rows / on_ray.steady:.0f} ({local.steady / on_ray.steady:.2f}); whole runs "
                f"{local.whole:.1f} s and {on_ray.whole:.1f} s",
                flush=True,
            )
    steady = statistics.median(local.steady / on_ray.steady for local, on_ray in pairs)
    whole = statistics.median(local.whole / on_ray.whole for local, on_ray in pairs)
    print(
        f"--workers ray:2 has {steady:.2f} of the pages/s of --workers 2 ({ASKED} at least); of whole runs {whole:.2f}"
    )
    return 0 if steady >= ASKED else 1


if __name__ == "__main__":
    sys.exit(main())
