"""Owns what the page of a large job costs: seconds, memory, and how large it is.

Run it with ``python -m tests.benchmarks.report_page [--rows 1000000] [--format jsonl] [--folder DIR]``. It makes up a
job of so many rows (500 hosts, one in twenty failed, three runs of which two were killed, four selected fields), and
runs ``fetcher report --html`` on it. It exits with 1 where that takes over ``MAX_SECONDS`` of CPU, ``MAX_MB`` or a page
over ``MAX_PAGE_MB``; the seconds of the clock are told too, for a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from fetcher.errors import StatusError
from fetcher.job.ledger import Ledger, LedgerRow, RunProgress
from fetcher.job.paths import LEDGER
from fetcher.model import Failure, Outcome, Page, Request
from fetcher.sinks import JobOutput, Layout, open_job_output
from tests.lab.command import argv, environment

MAX_SECONDS = 20.0
MAX_MB = 200.0
MAX_PAGE_MB = 1.0
BATCH = 1_000
HOSTS = 500
CODES = (404, 500, 403, 410, 503)
IDENTITY = {
    "inputs": ["list.txt"], "input_format": None, "url_column": "url", "default_scheme": "auto", "outputs": ["jsonl"],
    "select": ["price=.price:price", "name=h1", "stock=.stock:int", "tags[]=.tag"], "extract": None, "accept": "200-299",
    "dedupe": False, "max_size": 10_485_760, "truncate": False, "preview": 0, "content": ["meta", "text"],
}  # fmt: skip


def outcome_of(number: int, chance: random.Random) -> Outcome:
    """Return a made-up outcome."""
    request = Request(number, f"https://host{number % HOSTS}.example/products/{number}?page={number % 7}")
    elapsed = chance.lognormvariate(-2.0, 0.8)
    if number % 20 == 0:
        error = StatusError(CODES[number // 20 % len(CODES)], "the server said no")
        return Failure(request, error, status=error.status, attempts=1, elapsed=elapsed)
    data = {
        "price": round(chance.lognormvariate(3, 1), 2) if number % 9 else None,
        "price_currency": "EUR",
        "name": f"Thing number {number}",
        "stock": number % 90,
        "tags": ["red", "large"][: number % 3],
    }
    return Page(
        request=request,
        url=request.url,
        status=200,
        length=5_000,
        bytes=chance.randrange(2_000, 60_000),
        content_type="text/html",
        charset="utf-8",
        title=f"Thing number {number}",
        links=40,
        attempts=1,
        elapsed=elapsed,
        fetched_at=1_764_324_000.0 + number / 100,
        data=data,
        content={"meta": {"description": f"About thing {number}"}, "text": "Some text of the page. " * 8},
    )


def batches(rows: int) -> Iterator[list[Outcome]]:
    """Yield the outcomes, a thousand at a time."""
    chance = random.Random(1)
    for first in range(1, rows + 1, BATCH):
        yield [outcome_of(number, chance) for number in range(first, min(rows, first + BATCH - 1) + 1)]


def make(folder: Path, rows: int, suffix: str) -> Path:
    """Make the job, and return its output."""
    path = folder / f"pages.{suffix}"
    job = folder / f"{path.name}.job"
    job.mkdir()
    layout = Layout(
        free_data=False,
        select=("price", "price_currency", "name", "stock", "tags"),
        select_lists=("tags",),
        columns=(*Layout().columns, "meta", "text"),
    )
    output = open_job_output(str(path), layout, work=str(job / "output.0"))
    output.create()
    ledger = Ledger.create(str(job / LEDGER), identity=msgspec.json.encode(IDENTITY), outputs=[str(path)])
    began = 1_764_324_000.0
    run_rows = [0, rows // 3, rows // 2]
    done, ok, start = 0, 0, 0
    ledger.begin_run(began)
    for outcomes in batches(rows):
        mark = output.append([output.encode(outcome) for outcome in outcomes])
        done += len(outcomes)
        ok += sum(isinstance(outcome, Page) for outcome in outcomes)
        seconds = (done - start) / 500
        progress = RunProgress(done, done < rows, rows, seconds, ok, done * 30_000, on_wire=90, at=began + seconds)
        ledger.commit([row_of(outcome) for outcome in outcomes], [mark], progress)
        output.settle()
        if len(run_rows) > 1 and done >= run_rows[1]:
            del run_rows[0]
            ledger.abandon()
            ledger = Ledger.open(str(job / LEDGER))
            began, start, ok = began + seconds + 600, done, 0
            ledger.begin_run(began)
    finish(ledger, output, rows, ok)
    return path


def finish(ledger: Ledger, output: JobOutput, rows: int, ok: int) -> None:
    """End the job in good order."""
    progress = RunProgress(rows, False, rows, rows / 1_000, ok, rows * 30_000)
    ledger.commit([], [output.complete()], progress)
    output.settle()
    ledger.end_run(progress, exit=0)
    output.discard()
    ledger.close()


def row_of(outcome: Outcome) -> LedgerRow:
    """Return what the ledger has of an outcome."""
    request = outcome.request
    return LedgerRow(
        id=request.id,
        digest=request.id,
        code="ok" if isinstance(outcome, Page) else outcome.error.code,
        status=outcome.status,
        bytes=outcome.bytes,
        elapsed=outcome.elapsed,
        attempts=1,
        host=f"host{request.id % HOSTS}.example",
    )


MEASURING = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss)
sys.exit(code)
"""


def measure(path: Path) -> tuple[float, float, float, int]:
    """Run the report; return its seconds by the clock and of CPU, its peak in MB, and the size of the page."""
    page = path.parent / "report.html"
    words = argv("report", path.name, "--html", page.name)
    began = time.monotonic()
    # By a process between: what is started by a large one is said to have been as large as that.
    done = subprocess.run(
        [sys.executable, "-c", MEASURING, *words],
        cwd=path.parent,
        env=environment(path.parent),
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    cpu, peak = map(float, done.stdout.splitlines()[-1].split())
    return time.monotonic() - began, cpu, peak / 1024, page.stat().st_size


def main() -> int:
    """Make the job, measure its report, and judge it."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument(
        "--format", default="jsonl", help="the suffix of the output: jsonl, csv, sqlite, parquet, jsonl.gz, …"
    )
    options.add_argument("--folder", type=Path, help="where the job is made, and stays; by default it is removed")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"pages.{given.format}"
        if not path.exists():
            path = make(folder, given.rows, given.format)
        wall, cpu, peak, size = measure(path)
        print(
            f"{given.rows:,} rows in {path.name} ({path.stat().st_size / 1e6:,.0f} MB): {wall:.1f} s, {cpu:.1f} s of CPU, "
            f"{peak:.0f} MB at most, a page of {size / 1e3:,.0f} kB"
        )
    return int(cpu > MAX_SECONDS or peak > MAX_MB or size > MAX_PAGE_MB * 1e6)


if __name__ == "__main__":
    sys.exit(main())
