"""Owns one job that is struck by SIGKILL and resumed by the same command until it is complete, and what it left.

Law 1: the signal goes to the fetcher's own process, or to one of its workers; whatever else it has started must notice
by itself. Law 2: everything is looked at: the output, the exit codes, stderr, the server's log, and the processes.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from tests.lab.command import argv
from tests.sweeps.judge import Row, Verdict, digest_of, judge, output_words
from tests.sweeps.processes import DEADLINE, Child, alive, parsers_of, run, scars, started, workers_of
from tests.sweeps.refetched import Cost, costs_of
from tests.sweeps.site import Site

__all__ = ["CONCURRENCY", "Job", "Kill", "Striking", "Victim"]

Victim: TypeAlias = Literal["parent", "worker", "both"]

CONCURRENCY = 50
PATIENCE = 10.0  # seconds in which a killed run's parse workers must be gone


@dataclass(frozen=True)
class Kill:
    """One kill: when by the job's clock, before any request of its run or not, what it left and what it cost."""

    clock: float
    early: bool
    parsers: int
    cost: Cost


@dataclass
class Job:
    """One job from its first run to its last, and all that was wrong with it."""

    folder: Path
    suffix: str
    clock: float = 0.0
    workers: int = 0
    """How many of its workers were killed."""
    kills: list[Kill] = field(default_factory=list)
    verdict: Verdict = field(default_factory=lambda: Verdict(0))
    troubles: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """One run: from when to when, and the parse workers it had when it was struck (``None``: it was not)."""

    began: float
    ended: float
    parsers: list[Child] | None


class Striking:
    """A job that is run, struck and judged. ``victim`` is who is struck: its ``parent``, a ``worker``, or ``both`` in turn."""

    def __init__(
        self,
        site: Site,
        folder: Path,
        suffix: str,
        rows: Sequence[Row],
        *,
        bodies: bool = False,
        workers: int = 1,
        victim: Victim = "parent",
    ) -> None:
        folder.mkdir()
        self._bodies = folder / "bodies" if bodies else None
        self.job = Job(folder, suffix)
        self._site = site
        self._rows = rows
        self._since = site.end()
        self._runs: list[Run] = []
        self._output = folder / f"pages.{suffix}"
        listed = folder / "urls.txt"
        listed.write_text("".join(f"{row.url}\n" for row in rows))
        self._words = argv("crawl", str(listed), *output_words(self._output, suffix), "-q", "--retries", "1")
        self._words += ["-c", str(CONCURRENCY), "--per-host", str(CONCURRENCY), "--workers", str(workers)]
        self._victim = victim
        self._chance = random.Random(folder.name)
        if self._bodies is not None:
            self._words += ["--body", str(self._bodies)]

    def strike(self, moments: Sequence[float]) -> Job:
        """Run until complete, struck when the job's clock shows these times; then look at all that is left."""
        left = deque(enumerate(sorted(moments)))
        while self._run(left):
            pass
        self._charge()
        self.job.verdict = judge(self._output, self._rows, bodies=self._bodies, tables=True)
        if not self.job.verdict.clean:
            self.job.troubles.append(str(self.job.verdict))
        if not self.job.troubles:
            self._run_again()
        return self.job

    def _run(self, left: deque[tuple[int, float]]) -> bool:
        """Run, struck at the next of the moments that are left; tell whether the run was killed by it."""
        parsers: list[Child] = []
        struck = False
        with started(self._words, self.job.folder) as (process, said):
            began = time.monotonic()
            while process.poll() is None and not struck:
                number, moment = left[0] if left else (0, None)
                wait = DEADLINE if moment is None else max(0.0, moment - self.job.clock - (time.monotonic() - began))
                try:
                    process.wait(wait)
                except subprocess.TimeoutExpired:
                    if left:
                        left.popleft()
                    if moment is not None and self._is_worker(number):
                        self._strike_worker(process.pid)
                        continue
                    parsers = [*parsers_of(process.pid), *workers_of(process.pid)]
                    process.kill()
                    struck = True
                    if moment is None:
                        self.job.troubles.append(f"it did not end within {DEADLINE:g} s")
            ended = time.monotonic()
            code = process.wait()
            heard = said.read_text(errors="replace")
        struck = code == -signal.SIGKILL
        self.job.clock += ended - began
        self._runs.append(Run(began, ended, parsers if struck else None))
        self.job.troubles += scars(heard)
        if not struck and code != 0:
            self.job.troubles.append(f"it ended with {code}: {heard[-1500:]}")
        return struck

    def _is_worker(self, number: int) -> bool:
        return self._victim == "worker" or (self._victim == "both" and number % 2 == 0)

    def _strike_worker(self, pid: int) -> None:
        """Kill one of its workers, where it has any by now."""
        workers = workers_of(pid)
        if workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._chance.choice(workers).pid, signal.SIGKILL)
            self.job.workers += 1

    def _charge(self) -> None:
        """Reckon what each kill cost, and see that nothing it left is alive."""
        entries = self._site.entries(self.job.folder.name, self._since)
        costs = costs_of(entries, [(run.began, run.ended) for run in self._runs], CONCURRENCY)
        clock = 0.0
        for struck, cost in zip(self._runs, costs, strict=True):
            clock += struck.ended - struck.began
            if struck.parsers is None:
                continue
            early = not any(struck.began <= entry.t <= struck.ended for entry in entries)
            self.job.kills.append(Kill(clock, early, len(struck.parsers), cost))
            if cost.refetched > cost.allowed:
                self.job.troubles.append(f"a kill cost {cost.refetched} rows, {cost.allowed} are allowed")
            if left := alive(struck.parsers, PATIENCE):
                self.job.troubles.append(f"{len(left)} parse workers outlived their run by {PATIENCE:g} s")

    def _run_again(self) -> None:
        """Give the same command once more: it is complete, and nothing is fetched or changed."""
        since, before = self._site.end(), digest_of(self._output)
        again = run(self._words, self.job.folder, anew=False)
        fetched = len(self._site.entries(self.job.folder.name, since))
        changed = digest_of(self._output) != before
        if again.code or fetched or changed:
            self.job.troubles.append(
                f"complete, the same command ended with {again.code}, asked {fetched // 2} times and "
                f"{'changed' if changed else 'kept'} the output: {again.said[-1500:]}"
            )
