"""Owns the sweep of links that are followed: a job is struck by kills at random times, and by faults at calls on its ledger.

Run it with ``python -m tests.sweeps.following [KILLS] [--pages N | --folder DIR] [--seed N] [--faults KILL EIO ENOSPC]
[--sample K]``; it exits with 1 when a row that was found is lost or there twice. Faults need strace.

The site is a graph of pages without an end to walk to, in which most links are named many times, or the HTML files of a
folder, such as Debian's python3-doc. The judges are the ledger (each row that was found has its one outcome, and the
ids leave no gap), the output (each page once, as by a walk over the graph) and the server's log (nothing else was asked
for).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

from fetcher.found.store import LISTED_IDS
from tests.lab.command import argv
from tests.lab.linked import LinkedPage, LinkedSite, breadth_first, folder, page
from tests.sweeps.processes import DEADLINE, run, scars, started
from tests.sweeps.strace import FAULTS, Point, calls_of, counting, injecting, missing, was_injected

__all__ = ["Files", "Graph", "Struck", "kills", "points_struck"]

LATENCY = 0.01
LINKS = 12


class Pages(Protocol):
    """What the site has."""

    start: str

    def answer(self, path: str) -> LinkedPage | None:
        """Return the page of a path."""
        ...

    def walk(self) -> set[str]:
        """Return the paths that can be reached from the first."""
        ...


class Graph:
    """Pages by their numbers, each of which names some of the next and some of those before; a few are not there."""

    start = "/"

    def __init__(self, pages: int, seed: int) -> None:
        chance = random.Random(seed)
        self.links: list[list[int]] = []
        for number in range(pages):
            ahead = [min(pages - 1, number * 3 + each) for each in (1, 2, 3)]
            self.links.append([*ahead, *(chance.randrange(pages) for _ in range(LINKS))])
        self.ill = {number for number in range(1, pages) if chance.random() < 0.05}

    def answer(self, path: str) -> LinkedPage | None:
        """Return the page of a path."""
        number = int(path.strip("/") or 0)
        return None if number in self.ill else page(*(f"/{each}#part" for each in self.links[number] if each))

    def walk(self) -> set[str]:
        """Return the paths that can be reached, by a breadth-first walk."""
        seen, todo = {0}, deque([0])
        while todo:
            number = todo.popleft()
            for each in [] if number in self.ill else self.links[number]:
                if each and each not in seen:
                    seen.add(each)
                    todo.append(each)
        return {f"/{number or ''}" for number in seen}


class Files:
    """The files of a folder, from its index.html on."""

    start = "/index.html"

    def __init__(self, root: Path) -> None:
        self._root = root
        self._answer = folder(root)
        self._reached: set[str] | None = None

    def answer(self, path: str) -> LinkedPage | None:
        """Return the file of a path."""
        return self._answer(path)

    def walk(self) -> set[str]:
        """Return the paths that can be reached, by a breadth-first walk."""
        if self._reached is None:
            self._reached = breadth_first(self._root)
        return self._reached


class Struck:
    """A job in a folder of its own, that follows the links of a site and is struck."""

    def __init__(self, site: LinkedSite, pages: Pages, home: Path) -> None:
        self.folder = home / "job"
        self.home = home
        self._site, self._pages = site, pages
        self.words = argv("crawl", "--follow", site.url(pages.start), "-o", str(self.folder / "pages.jsonl"), "-q")
        self.words += ["--no-robots", "--retries", "0", "-c", "20", "--per-host", "20"]
        self.troubles: list[str] = []

    def begin(self) -> None:
        """Begin with nothing."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self._site.asked()

    def run_for(self, seconds: float | None) -> bool:
        """Run, for so long at most; say whether it was killed then."""
        with started(self.words, self.home) as (process, said):
            try:
                code = process.wait(DEADLINE if seconds is None else seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
            heard = said.read_text(errors="replace")
        self.troubles += scars(heard)
        struck = code == -signal.SIGKILL
        if (struck and seconds is None) or (not struck and code):
            self.troubles.append(f"it ended with {code}: {heard[-800:]}")
        return struck

    def judge(self) -> list[str]:
        """Return what is wrong with a job that is complete, and with what was asked for."""
        wanted, troubles = self._pages.walk(), []
        with closing(sqlite3.connect(self.folder / "pages.jsonl.job" / "ledger.sqlite")) as db:
            done = {row for (row,) in db.execute("SELECT id FROM rows")}
            found = {row for (row,) in db.execute("SELECT id FROM found")}
            (seen,) = db.execute("SELECT count(*) FROM seen").fetchone()
        if found != set(range(LISTED_IDS + 1, LISTED_IDS + 1 + len(found))) or done != {1, *found}:
            troubles.append(f"{len(done)} rows have an outcome, {len(found)} were found")
        if seen != len(found) + 1:
            troubles.append(f"{seen} URLs are known, {len(found)} rows were found")
        paths = [
            "/" + json.loads(line)["url"].split("/", 3)[3]
            for line in (self.folder / "pages.jsonl").read_text().splitlines()
        ]
        if len(paths) != len(set(paths)) or set(paths) != wanted:
            lost, strange = len(wanted - set(paths)), len(set(paths) - wanted)
            troubles.append(f"{lost} lost, {len(paths) - len(set(paths))} twice, {strange} that nothing names")
        asked = self._site.asked()
        if set(asked) != wanted:
            troubles.append(f"asked for {len(asked)} pages of {len(wanted)}")
        return troubles


def kills(count: int, *, ground: Path, pages: Pages, seed: int = 1, a_job: int = 4) -> tuple[int, list[str]]:
    """Strike so many times, some a job; return how many struck, and what was wrong."""
    chance = random.Random(seed)
    hits, troubles, tries = 0, list[str](), 0
    with LinkedSite(pages.answer, latency=LATENCY) as site:
        job = Struck(site, pages, ground)
        job.begin()
        began = time.monotonic()
        job.run_for(None)
        whole = time.monotonic() - began
        troubles += job.judge()
        while hits < count and tries < count + 10:
            tries += 1
            job.begin()
            for _ in range(min(a_job, count - hits)):
                if not job.run_for(chance.uniform(0.1 * whole, whole)):
                    break
                hits += 1
            job.run_for(None)
            troubles += job.judge()
        troubles += job.troubles
    return hits, troubles


def points_struck(
    faults: Sequence[str], *, ground: Path, pages: Pages, sample: int | None = None
) -> tuple[int, list[str]]:
    """Let each fault strike at each call on a file of the job, or at a sample; return how many did, and what was wrong."""
    trace, troubles, struck = ground / "trace.txt", list[str](), 0
    with LinkedSite(pages.answer, latency=LATENCY) as site:
        job = Struck(site, pages, ground)
        job.begin()
        counted = run([*counting(trace), *job.words], ground)
        assert counted.code == 0, counted.said
        calls = calls_of(trace.read_text(errors="replace"), job.folder)
        points = [
            Point(file, call, number)
            for (file, call), most in sorted(calls.items())
            if "ledger" in file
            for number in range(1, most + 1)
        ]
        aims = [(fault, point) for fault in faults for point in points]
        for fault, point in aims if sample is None else aims[:: max(1, len(aims) // sample)][:sample]:
            job.begin()
            trace.unlink(missing_ok=True)
            hit = run([*injecting(point, job.folder, fault, trace), *job.words], ground)
            if not was_injected(trace.read_text(errors="replace"), point, fault):
                continue
            struck += 1
            found = scars(hit.said)
            if fault != "KILL" and hit.code != 0 and str(job.folder) not in hit.said:
                found.append(f"it ended with {hit.code} and named no path: {hit.said[-300:]!r}")
            again = run(job.words, ground)
            found += scars(again.said) + ([f"taken up again: {again.code}: {again.said[-300:]}"] if again.code else [])
            found += job.judge()
            troubles += [f"{fault} at {point}: {each}" for each in found]
    return struck, troubles


def main() -> int:
    """Sweep, print what was found, and say by the exit code whether all was well."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.sweeps.following", description="Strike jobs that follow links."
    )
    parser.add_argument("kills", type=int, nargs="?", default=30)
    parser.add_argument("--pages", type=int, default=600, help="of a graph that is made")
    parser.add_argument("--folder", type=Path, help="whose files are the site, from index.html on")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", nargs="*", default=[], choices=list(FAULTS))
    parser.add_argument("--sample", type=int, help="so many points of the faults, spread over all")
    wanted = parser.parse_args()
    ground = Path(tempfile.mkdtemp(prefix="fetcher-following-"))
    pages: Pages = Files(wanted.folder.resolve()) if wanted.folder else Graph(wanted.pages, wanted.seed)
    struck, troubles = kills(wanted.kills, ground=ground, pages=pages, seed=wanted.seed) if wanted.kills else (0, [])
    print(f"{struck} kills: {len(troubles)} troubles")
    if wanted.faults:
        if why := missing():
            print(f"no faults: {why}")
            return 2
        hit, more = points_struck(wanted.faults, ground=ground, pages=Graph(60, wanted.seed), sample=wanted.sample)
        print(f"{hit} faults at calls on the ledger: {len(more)} troubles")
        troubles += more
    for trouble in troubles:
        print(trouble)
    with contextlib.suppress(OSError):
        shutil.rmtree(ground)
    return 1 if troubles or struck < wanted.kills else 0


if __name__ == "__main__":
    sys.exit(main())
