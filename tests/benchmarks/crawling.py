"""Owns how a benchmark runs ``fetcher crawl``: as a process, in a folder of its own, to its end."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from tests.lab.command import argv, environment

__all__ = ["Crawled", "crawl", "plan", "together"]

DEADLINE = 300.0


@dataclass(frozen=True)
class Crawled:
    """What a crawl took, in seconds (``cpu`` is that of all its processes), and its records."""

    wall: float
    cpu: float
    records: list[dict[str, Any]]

    def errors(self) -> list[str]:
        """Return the codes of the rows that failed."""
        return [record["error"] for record in self.records if record["error"] is not None]


class _Run:
    """A crawl as it runs, in a folder of its own."""

    def __init__(self, folder: Path, urls: Sequence[str], words: Sequence[str], core: int | None) -> None:
        self.folder = folder
        self._rows = len(urls)
        (folder / "urls.txt").write_text("".join(f"{url}\n" for url in urls))
        self._began = time.monotonic()
        with open(folder / "said.txt", "wb") as said:
            self._process = subprocess.Popen(
                argv("crawl", "urls.txt", "--no-progress", *words),
                cwd=folder,
                env=environment(folder, FETCHER_ROBOTS="1"),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                preexec_fn=None if core is None else partial(os.sched_setaffinity, 0, {core}),
            )

    def end(self) -> tuple[float, float]:
        """Wait for the end; return the wall time and the CPU seconds of all its processes."""
        guard = threading.Timer(DEADLINE, self._process.kill)
        guard.start()
        _, status, usage = os.wait4(self._process.pid, 0)
        wall = time.monotonic() - self._began
        guard.cancel()
        self._process.returncode = os.waitstatus_to_exitcode(status)
        said = (self.folder / "said.txt").read_text(errors="replace")
        assert self._process.returncode in (0, 3), said[-2000:]
        return wall, usage.ru_utime + usage.ru_stime

    def crawled(self) -> Crawled:
        """Wait for the end and return what it left. Raises AssertionError where a row has no record."""
        wall, cpu = self.end()
        records = [msgspec.json.decode(line) for line in (self.folder / "pages.jsonl").read_bytes().splitlines()]
        assert len(records) == self._rows, f"{len(records)} records of {self._rows} rows"
        return Crawled(wall, cpu, records)


def crawl(urls: Sequence[str], *words: str) -> Crawled:
    """Crawl a list with these options. Raises AssertionError where it fails, or a row has no record."""
    return together((urls, words))[0]


def together(*lists: tuple[Sequence[str], Sequence[str]], core: int | None = None) -> list[Crawled]:
    """Crawl several lists, each with its options, at the same time, all on one ``core`` where that is wanted.

    On one core they take turns of milliseconds: what disturbs one then disturbs them all, and their CPU can be
    compared.
    """
    with ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in lists]
        runs = [
            _Run(folder, urls, [*words, "-o", "pages.jsonl"], core) for folder, (urls, words) in zip(folders, lists)
        ]
        return [run.crawled() for run in runs]


def plan(urls: Sequence[str], *words: str) -> dict[str, Any]:
    """Return what ``--dry-run`` says of a list."""
    with tempfile.TemporaryDirectory() as name:
        run = _Run(Path(name), urls, [*words, "--dry-run", "--summary", "plan.json"], None)
        run.end()
        found: dict[str, Any] = msgspec.json.decode((run.folder / "plan.json").read_bytes())
    return found
