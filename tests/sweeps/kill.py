"""Owns the kill sweep: jobs struck by SIGKILL at uniform times of their clock, each resumed until it is complete.

Run it with
``python -m tests.sweeps.kill [KILLS] [--rows N] [--format jsonl …] [--seed N] [--at-once N] [--bodies]
[--workers N --victim worker]``;
it exits with 1 when a row is lost, is there twice or is torn, or when a kill cost more than it may.

A job's clock is the time its runs have run, from the start of the interpreter on. The times of its kills are drawn
from the whole of it, so that the last commit and the cleaning up are struck as well as the start.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.sweeps.judge import FORMATS
from tests.sweeps.site import Site, serving
from tests.sweeps.striking import Job, Striking, Victim

__all__ = ["SUFFIXES", "Sweep", "report", "sweep"]

SUFFIXES = ("jsonl", "jsonl.gz", "jsonl.zst", "csv", "parquet", "parquet/", "sqlite", "warc.gz")
LATENCY = (20, 80)
DENSE = 0.01
KILLS_A_JOB = 4


class Sweep:
    """Hands out the kills that are still to be struck, and learns how long a job's clock runs."""

    def __init__(
        self,
        site: Site,
        ground: Path,
        kills: int,
        *,
        rows: int,
        suffixes: Sequence[str],
        seed: int,
        bodies: bool = False,
        workers: int = 1,
        victim: Victim = "parent",
    ) -> None:
        self.jobs: list[Job] = []
        self._site = site
        self._ground = ground
        self._rows = rows
        self._suffixes = suffixes
        self._seed = seed
        self._bodies = bodies
        self._workers, self._victim = workers, victim
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._open = kills
        self._most = kills + 10  # jobs: enough, even where most are over before their kills
        self._begun = 0

    def strike(self, at_once: int) -> None:
        """Strike until no kill is left. The first job is left alone: it tells how long one takes."""
        self.jobs.append(self._conduct(0, ()))
        with ThreadPoolExecutor(at_once) as pool:
            for done in [pool.submit(self._work) for _ in range(at_once)]:
                done.result()

    def _work(self) -> None:
        while True:
            with self._lock:
                kills = min(KILLS_A_JOB, self._open)
                if kills == 0 or self._begun == self._most:
                    return
                self._open -= kills
                self._begun += 1
                number = self._begun
                end = self.jobs[0].clock + kills * self._cost_of_a_kill()
                moments = [self._chance.uniform(0.0, end) for _ in range(kills)]
            job = self._conduct(number, moments)
            with self._lock:
                self.jobs.append(job)
                self._open += kills - len(job.kills) - job.workers

    def _conduct(self, number: int, moments: Sequence[float]) -> Job:
        name = f"job-{number}"
        rows = self._site.rows(name, self._rows, seed=self._seed, latency=LATENCY, dense=DENSE)
        suffix = self._suffixes[number % len(self._suffixes)]
        striking = Striking(
            self._site,
            self._ground / name,
            suffix,
            rows,
            bodies=self._bodies,
            workers=self._workers,
            victim=self._victim,
        )
        job = striking.strike(moments)
        if not job.troubles:
            shutil.rmtree(job.folder)
        return job

    def _cost_of_a_kill(self) -> float:
        """Return what a kill adds to a job's clock: the start of another run, and what it fetches again."""
        kills = sum(len(job.kills) for job in self.jobs)
        return sum(job.clock - self.jobs[0].clock for job in self.jobs) / kills if kills else 1.0


def sweep(
    kills: int,
    *,
    ground: Path,
    rows: int = 2_000,
    suffixes: Sequence[str] = SUFFIXES,
    seed: int = 1,
    at_once: int = 2,
    bodies: bool = False,
    workers: int = 1,
    victim: Victim = "parent",
) -> list[Job]:
    """Strike that many times and return the jobs; the folders of those with troubles are left in ``ground``.

    With ``bodies`` those of the pages are kept in a folder, and looked at. Of a job with several ``workers`` the
    ``victim`` may be one of them.
    """
    with serving(ground / "site.log") as site:
        swept = Sweep(
            site,
            ground,
            kills,
            rows=rows,
            suffixes=suffixes,
            seed=seed,
            bodies=bodies,
            workers=workers,
            victim=victim,
        )
        swept.strike(at_once)
    return swept.jobs


def report(jobs: Sequence[Job]) -> str:
    """Return a table with a line a format, when the kills struck, and the totals in the last line."""
    lines = [
        f"{'format':<10} {'jobs':>5} {'kills':>6} {'at start':>9} {'lost':>5} {'twice':>6} {'torn':>5} {'wrong':>6}"
    ]
    lines[0] += f" {'refetched, most':>16} {'on average':>11} {'parsers':>8} {'troubles':>9}"
    suffixes = sorted({job.suffix for job in jobs})
    lines += [_line(suffix, [job for job in jobs if job.suffix == suffix]) for suffix in suffixes]
    tenths = [0] * 10
    for job in jobs:
        for kill in job.kills:
            tenths[min(9, int(10 * kill.clock / job.clock))] += 1
    lines.append(f"kills by the tenth of the job's clock (each adds a run behind it): {' '.join(map(str, tenths))}")
    lines += [f"{job.folder} ({job.suffix}): {trouble}" for job in jobs for trouble in job.troubles]
    lines.append(_total(jobs))
    return "\n".join(lines)


def _line(name: str, jobs: Sequence[Job]) -> str:
    kills = [kill for job in jobs for kill in job.kills]
    worst = max((kill.cost for kill in kills), key=lambda cost: cost.refetched / cost.allowed, default=None)
    most = f"{worst.refetched} of {worst.allowed}" if worst else "-"
    mean = sum(kill.cost.refetched for kill in kills) / max(1, len(kills))
    bad = [sum(getattr(job.verdict, what) for job in jobs) for what in ("lost", "twice", "torn", "wrong")]
    return (
        f"{name:<10} {len(jobs):>5} {len(kills):>6} {sum(kill.early for kill in kills):>9} {bad[0]:>5} {bad[1]:>6} "
        f"{bad[2]:>5} {bad[3]:>6} {most:>16} {mean:>11.0f} {sum(kill.parsers for kill in kills):>8} "
        f"{sum(len(job.troubles) for job in jobs):>9}"
    )


def _total(jobs: Sequence[Job]) -> str:
    kills = [kill for job in jobs for kill in job.kills]
    lost, twice, torn = (sum(getattr(job.verdict, what) for job in jobs) for what in ("lost", "twice", "torn"))
    nearest = max((kill.cost.refetched / kill.cost.allowed for kill in kills), default=0.0)
    most = max((kill.cost.refetched for kill in kills), default=0)
    return (
        f"{len(kills)} kills of {len(jobs)} jobs, {sum(job.workers for job in jobs)} of workers: {lost} lost, {twice} twice, {torn} torn; fetched again per kill: "
        f"{most} at most, {nearest:.0%} of what is allowed; {sum(len(job.troubles) for job in jobs)} troubles"
    )


def main() -> int:
    """Sweep, print what was found, and say by the exit code whether all was well."""
    parser = argparse.ArgumentParser(prog="python -m tests.sweeps.kill", description="SIGKILL jobs at all times.")
    parser.add_argument("kills", type=int, nargs="?", default=300)
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--format", nargs="+", default=SUFFIXES, choices=[suffix[1:] for suffix in FORMATS])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=2, help="jobs that run at the same time")
    parser.add_argument("--bodies", action="store_true", help="keep the bodies of pages in a folder")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--victim", choices=["parent", "worker", "both"], default="parent", help="who is struck")
    wanted = parser.parse_args()
    ground = Path(tempfile.mkdtemp(prefix="fetcher-kill-"))
    began = time.monotonic()
    jobs = sweep(
        wanted.kills,
        ground=ground,
        rows=wanted.rows,
        suffixes=wanted.format,
        seed=wanted.seed,
        at_once=wanted.at_once,
        bodies=wanted.bodies,
        workers=wanted.workers,
        victim=wanted.victim,
    )
    print(f"jobs of {wanted.rows} rows, in {time.monotonic() - began:.0f} s")
    print(report(jobs))
    if any(job.troubles for job in jobs) or sum(len(job.kills) + job.workers for job in jobs) < wanted.kills:
        return 1
    shutil.rmtree(ground)
    return 0


if __name__ == "__main__":
    sys.exit(main())
