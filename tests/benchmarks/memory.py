"""Owns what a long list costs in memory: the peak of ``fetcher crawl`` over a short list and over one eight times as long.

Run it with ``python -m tests.benchmarks.memory [ROWS]``; the long list has ROWS (160,000), the short one an eighth.
Tiny pages of 200 hosts, one process, robots.txt on, the server in a process of its own. Then the same where a third of
the rows are 404s and a third belong to hosts that refuse connections. It exits with 1 where the long list takes more
than ``MAX_RATIO`` of the short one, or more than ``MAX_MB``.

Both are measured with default settings as well, which give these lists two workers on a machine with two cores. The
figure is the parent's then. It makes no requests and begins lower, and takes some 40,000 rows until it has all that it
will have: only ``MAX_MB`` is asked of it.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.lab.command import argv, environment
from tests.lab.town import Town, living_in

HOSTS = 200
ROWS = 160_000
MAX_RATIO = 1.1
MAX_MB = 90.0


def page(town: Town, row: int) -> str:
    """Return the URL of a row that is a page."""
    return town.url("living", f"127.6.0.{row % HOSTS + 1}", row, 0)


def third_each(town: Town, row: int) -> str:
    """Return the URL of a row: a page, a 404, or at a host that refuses connections."""
    address = f"127.6.{row % 3}.{row // 3 % (HOSTS // 3) + 1}"
    if row % 3 == 0:
        return town.url("living", address, row, 0)
    if row % 3 == 1:
        return f"http://{address}:{town.ports['living']}/missing/{row}"
    return town.url("refused", address, row, 0)


def peak_of(town: Town, url: Callable[[Town, int], str], rows: int, workers: str) -> tuple[float, float]:
    """Crawl a list with so many ``--workers``; return the peak of the process in MB (10^6 bytes), and the seconds it took."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with open(folder / "urls.txt", "w") as urls:
            urls.writelines(f"{url(town, row)}\n" for row in range(rows))
        began = time.monotonic()
        with open(folder / "said.txt", "wb") as said:
            process = subprocess.Popen(
                argv("crawl", "urls.txt", "-o", "pages.jsonl", "--no-progress", "--workers", workers),
                cwd=folder,
                env=environment(folder, FETCHER_ROBOTS="1"),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
            _, status, usage = os.wait4(process.pid, 0)  # of this process alone: those it started are not in it
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode in (0, 3), (folder / "said.txt").read_text(errors="replace")[-2000:]
        with open(folder / "pages.jsonl", "rb") as pages:
            records = sum(1 for _ in pages)
        assert records == rows, f"{records} records of {rows} rows"
        unit = 1 if sys.platform == "darwin" else 1024
        return usage.ru_maxrss * unit / 1e6, time.monotonic() - began


def main() -> int:
    """Crawl each list and print its peak; return the exit code."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    good = True
    with living_in() as town:
        for workers, most in (("1", MAX_RATIO), ("auto", math.inf)):
            for name, url in (("pages", page), ("a third each of pages, 404s and refused", third_each)):
                short, short_wall = peak_of(town, url, rows // 8, workers)
                long, long_wall = peak_of(town, url, rows, workers)
                holds = long <= most * short and long < MAX_MB
                good = good and holds
                asked = f"at most {most}, under {MAX_MB:g} MB" if most < math.inf else f"under {MAX_MB:g} MB"
                print(
                    f"--workers {workers}, {name}: {rows // 8} rows {short:.1f} MB ({short_wall:.0f} s), {rows} rows "
                    f"{long:.1f} MB ({long_wall:.0f} s), ratio {long / short:.2f} ({asked}): {'ok' if holds else 'too much'}",
                    flush=True,
                )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
