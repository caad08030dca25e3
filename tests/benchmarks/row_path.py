"""Owns how far a row's way is to follow: the files and functions of ours that run between two records of a crawl.

Run it with ``python -m tests.benchmarks.row_path [--show]``; it exits with 1 where a figure is above what is asked.
A job of ``ROWS`` small pages of one host is crawled into jsonl at ``-c 1``, with robots.txt, by the command line in a
process of its own, under ``sys.setprofile``. The figures are medians of ``COUNTED`` rows after ``WARM_UP`` others, on
CPython 3.11 (later ones call no function for a comprehension). ``--show`` prints the way itself, of one such row.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.benchmarks.figures import Figure, at_most
from tests.lab.call_trace import Call, changes_of_file, folded, recorded_calls, rows_of

__all__ = ["Crawled", "crawl"]

ROOT = Path(__file__).resolve().parents[2]
ROWS = 60
WARM_UP = 20
COUNTED = 20
RECORD = "Job.write"
"""The function that takes each outcome: its calls part the rows."""

RECORDED = "recorded.json"
"""Where the crawl's process leaves what it recorded, beside the list."""

MAX_FILES = 38
MAX_FUNCTIONS = 105
MAX_CHANGES = 100
MAX_MODULES = 98


class Crawled:
    """What a crawl called for each of its rows, and which modules of ours it had imported at its end."""

    def __init__(self, rows: Sequence[Sequence[Call]], modules: Sequence[str]) -> None:
        self.rows = rows[WARM_UP : WARM_UP + COUNTED]
        self.modules = modules

    def figures(self) -> list[Figure]:
        """Return the medians, and the number of modules."""
        return [
            Figure("files of a row's way", self._median(_files), asked=at_most(MAX_FILES)),
            Figure("functions of a row's way", self._median(_functions), asked=at_most(MAX_FUNCTIONS)),
            Figure("changes of file between two calls", self._median(changes_of_file), asked=at_most(MAX_CHANGES)),
            Figure("calls of a row's way", self._median(len)),
            Figure("modules imported for a crawl into jsonl", len(self.modules), asked=at_most(MAX_MODULES)),
        ]

    def ordinary_row(self) -> Sequence[Call]:
        """Return the way of a row that is as long as most."""
        return sorted(self.rows, key=len)[len(self.rows) // 2]

    def _median(self, measure: Callable[[Sequence[Call]], int]) -> float:
        return float(statistics.median(map(measure, self.rows)))


def _files(calls: Sequence[Call]) -> int:
    return len({call.file for call in calls})


def _functions(calls: Sequence[Call]) -> int:
    return len({call[:3] for call in calls})


def crawl() -> Crawled:
    """Crawl pages of a server in a process of its own."""
    from tests.lab.town import living_in  # it imports modules of ours: the process that is measured must not

    with living_in() as town, tempfile.TemporaryDirectory() as folder:
        urls = "".join(town.url("living", "127.0.0.1", row, 0) + "\n" for row in range(1, ROWS + 1))
        Path(folder, "urls.txt").write_text(urls)
        subprocess.run([sys.executable, "-m", "tests.benchmarks.row_path", "--crawl-in", folder], cwd=ROOT, check=True)
        calls, modules = json.loads(Path(folder, RECORDED).read_text())
    rows = rows_of([Call(*call) for call in calls], RECORD)
    assert len(rows) == ROWS - 1, f"{RECORD} was called {len(rows) + 1} times for {ROWS} rows"
    return Crawled(rows, modules)


def _crawl_in(folder: str) -> None:
    """Crawl the list in a folder, and write there what was called and imported."""
    os.chdir(folder)
    with recorded_calls() as calls:
        from fetcher.cli.commands import cli

        arguments = ["crawl", "urls.txt", "-o", "pages.jsonl", "-c", "1", "--robots", "-q", "--no-progress"]
        try:
            code = cli.main(arguments, standalone_mode=False)
        except SystemExit as ended:
            code = ended.code
    assert not code, f"the crawl ended with {code}"
    # Into a file: with PYTHONUNBUFFERED, ``print`` drops what a pipe did not take at once.
    modules = [name for name in sys.modules if name.partition(".")[0] == "fetcher"]
    Path(RECORDED).write_text(json.dumps([calls, modules]))


def main() -> int:
    """Crawl, print the figures, and say by the exit code whether they hold."""
    if sys.argv[1:2] == ["--crawl-in"]:
        _crawl_in(sys.argv[2])
        return 0
    crawled = crawl()
    if "--show" in sys.argv[1:]:
        print("\n".join(folded(crawled.ordinary_row())), end="\n\n")
    figures = crawled.figures()
    print("\n".join(map(str, figures)))
    return not all(figure.holds for figure in figures)


if __name__ == "__main__":
    sys.exit(main())
