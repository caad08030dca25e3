"""Owns the kill test beside Scrapy: the same list, killed at the same row and resumed by the same command, on both.

Run it with ``python -m tests.sweeps.scrapy PYTHON [--rows N] [--kill-at N] [--rounds N]``, where PYTHON is an
interpreter that has Scrapy. Scrapy runs with ``JOBDIR``, a feed in JSON Lines that is appended to, a request a row, and
a record for what failed as well. Each tool is killed by SIGKILL when the server has been asked for so many rows.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.command import argv
from tests.sweeps.judge import Row, Verdict, judge
from tests.sweeps.processes import DEADLINE, started
from tests.sweeps.site import Site, serving

__all__ = ["Outcome", "compare", "table"]

CONCURRENCY = 50
LATENCY = (20, 80)

WAYS = {
    "start_urls": "the default start(): each request with dont_filter",
    "start": "requests of the spider's own start()",
    "callback": "requests of a callback, all of them in the queue at once",
}
"""The ways in which a spider of Scrapy's may come by its list; it does not do the same in all."""

SPIDER = f"""
import scrapy


class Rows(scrapy.Spider):
    name = "rows"
    custom_settings = {{
        "CONCURRENT_REQUESTS": {CONCURRENCY},
        "CONCURRENT_REQUESTS_PER_DOMAIN": {CONCURRENCY},
        "DOWNLOAD_DELAY": 0,
        "HTTPERROR_ALLOW_ALL": True,
        "LOG_LEVEL": "ERROR",
        "RETRY_TIMES": 1,
        "ROBOTSTXT_OBEY": False,
        "TELNETCONSOLE_ENABLED": False,
    }}

    async def start(self):
        if self.way == "callback":
            yield scrapy.Request("data:,", callback=self.listed)
        else:
            for request in self.requests(dont_filter=self.way == "start_urls"):
                yield request

    def listed(self, response):
        yield from self.requests(dont_filter=False)

    def requests(self, dont_filter):
        with open(self.rows) as rows:
            for number, url in enumerate(rows, 1):
                url = url.strip()
                yield scrapy.Request(
                    url,
                    callback=self.parse,
                    errback=self.fail,
                    dont_filter=dont_filter,
                    meta={{"row": number, "listed": url}},
                )

    def parse(self, response):
        failed = None if response.status == 200 else f"http_{{response.status}}"
        yield {{"id": response.meta["row"], "url": response.meta["listed"], "error": failed}}

    def fail(self, failure):
        meta = failure.request.meta
        yield {{"id": meta["row"], "url": meta["listed"], "error": failure.type.__name__}}
"""


@dataclass(frozen=True)
class Outcome:
    """What a tool had when it was killed, and what it says is the whole when it has been resumed."""

    tool: str
    before: int
    exit: int
    again: int
    verdict: Verdict


def compare(python: str, ground: Path, *, rows: int, kill_at: int, rounds: int) -> list[Outcome]:
    """Run the test on fetcher and on Scrapy in each of its ways, in turn, and return what became of each run."""
    outcomes = []
    with serving(ground / "site.log") as site:
        for number in range(rounds):
            for tool in ("fetcher", *WAYS):
                folder = ground / f"{tool}-{number}"
                folder.mkdir()
                # How a tool names a failure is its own affair.
                listed = [Row(row.url) for row in site.rows(folder.name, rows, seed=number, latency=LATENCY)]
                outcomes.append(_try(site, tool, python, folder=folder, rows=listed, kill_at=kill_at))
    return outcomes


def _try(site: Site, tool: str, python: str, *, folder: Path, rows: Sequence[Row], kill_at: int) -> Outcome:
    listed = folder / "urls.txt"
    listed.write_text("".join(f"{row.url}\n" for row in rows))
    output = folder / "pages.jsonl"
    if tool in WAYS:
        spider = folder / "rows.py"
        spider.write_text(SPIDER)
        words = [python, "-m", "scrapy", "runspider", str(spider), "-a", f"rows={listed}", "-a", f"way={tool}"]
        words += ["-s", f"JOBDIR={folder / 'job'}", "-o", f"{output}:jsonlines"]
    else:
        words = argv("crawl", str(listed), "-o", str(output), "-q", "--retries", "1")
        words += ["-c", str(CONCURRENCY), "--per-host", str(CONCURRENCY)]
    _run_until(words, folder, lambda: len({entry.row for entry in site.entries(folder.name)}) >= kill_at)
    before, since = judge(output, rows).records, site.end()
    seen = {entry.row for entry in site.entries(folder.name)}
    with started(words, folder) as (process, said):
        code = process.wait(DEADLINE)
        if code:
            print(f"{tool} ended with {code}: {said.read_text(errors='replace')[-1500:]}", file=sys.stderr)
    again = len(seen & {entry.row for entry in site.entries(folder.name, since)})
    return Outcome(tool, before, code, again, judge(output, rows))


def _run_until(words: Sequence[str], folder: Path, holds: Callable[[], bool]) -> None:
    with started(words, folder) as (process, said):
        deadline = time.monotonic() + DEADLINE
        while not holds():
            assert process.poll() is None, said.read_text(errors="replace")
            assert time.monotonic() < deadline, "it did not come so far"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the outcomes side by side, in Markdown."""
    lines = ["| | recorded when killed | rows with a record at the end | lost | twice | torn | exit | fetched again |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|---:|")
    order = ["fetcher", *WAYS]
    for outcome in sorted(outcomes, key=lambda outcome: order.index(outcome.tool)):
        verdict = outcome.verdict
        name = f"Scrapy, {WAYS[outcome.tool]}" if outcome.tool in WAYS else outcome.tool
        lines.append(
            f"| {name} | {outcome.before:,} | {verdict.rows - verdict.lost:,} of {verdict.rows:,} "
            f"| {verdict.lost:,} | {verdict.twice:,} | {verdict.torn} | {outcome.exit} | {outcome.again:,} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Run the test and print the table; 1 where our own side of it is not clean."""
    parser = argparse.ArgumentParser(prog="python -m tests.sweeps.scrapy", description="The kill test beside Scrapy.")
    parser.add_argument("python", help="an interpreter that has Scrapy")
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--kill-at", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=1)
    wanted = parser.parse_args()
    asked = [wanted.python, "-c", "import scrapy; print(scrapy.__version__)"]
    version = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    with tempfile.TemporaryDirectory(prefix="fetcher-scrapy-") as ground:
        outcomes = compare(wanted.python, Path(ground), rows=wanted.rows, kill_at=wanted.kill_at, rounds=wanted.rounds)
    print(f"{wanted.rows:,} rows, killed when {wanted.kill_at:,} had been asked for, and resumed; Scrapy {version}\n")
    print(table(outcomes))
    return any(outcome.tool == "fetcher" and not outcome.verdict.clean for outcome in outcomes)


if __name__ == "__main__":
    sys.exit(main())
