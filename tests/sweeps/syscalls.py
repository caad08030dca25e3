"""Owns the sweep of the calls: a job of 200 rows, or of ``--rows N``, is struck at each call to the kernel that writes its files.

Run it with
``python -m tests.sweeps.syscalls [--fault KILL …] [--scenario fresh …] [--format jsonl …] [--only FILES] [--each K]
[--sample K] [--at-once N] [--rows N [--hurried]] [--bodies]``;
it needs strace, and exits with 1 where a job was not taken up again, or not as it must be.

For every file, call and N until an N that no thread comes to; with ``--each K`` the first call of each kind on each
file, the last, and each K-th between them, which takes hours less. ``KILL``: the same command completes the job.
``EIO`` and ``ENOSPC``: it ends with an error that names the path, and the same command then completes the job. What
SQLite itself lets fail (``BORNE``) may go unnoticed, and the job must be whole then too.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from tests.lab.command import argv
from tests.sweeps.judge import FORMATS, judge, output_words
from tests.sweeps.processes import Ran, run, scars, started
from tests.sweeps.site import Site, serving
from tests.sweeps.strace import FAULTS, Point, calls_of, counting, injecting, missing, was_injected

__all__ = ["FURTHER", "SCENARIOS", "Aim", "Trial", "may_be_borne", "report", "sweep"]

SCENARIOS = ("fresh", "resume", "retry")
FURTHER = ("since", "network")
"""Fresh runs that keep one file more in their job: the pages of an earlier run, and a list that is read over the network."""

ROWS = 200
CONCURRENCY = 10
LATENCY = (20, 60)
DEADLINE = 60.0
ENDLESS = 2_000  # calls of one kind on one file

BORNE = {"openat": ("-wal", ".job"), "fdatasync": (".job",), "unlink": ("/lock",)}
"""Calls, and the ends of the files' names, where a failure may go unnoticed: SQLite opens what it cannot open for
writing for reading, and passes over a folder in which it cannot bring the name of a new file to the disk. A run that is
done with a folder of bodies may leave its lock there: the next one removes it."""

BORNE_BY_FORMAT = {
    "sqlite": {"fdatasync": "", "openat": "", "unlink": r"pages\.sqlite-(wal|shm)"},
    "warc.gz": {"openat": r"pages\.warc\.gz\.job/output\.0", "unlinkat": r"pages\.warc\.gz\.job/output\.0"},
}
"""The same by the format of the output, and the whole names. The folder of a database is opened and synced by SQLite,
and by us behind it (``fsync``); a log whose content is in the database is left where it cannot be removed, as is the
folder in which the index of an archive was sorted."""


class Aim(NamedTuple):
    """What a run is, and what befalls it where."""

    scenario: str
    suffix: str
    fault: str
    point: Point


@dataclass(frozen=True)
class Trial:
    """One fault and its outcome: ``killed``, ``refused`` (an error that names the path) or ``borne`` (unnoticed)."""

    aim: Aim
    fate: str
    troubles: tuple[str, ...]


def may_be_borne(aim: Aim, trace: str) -> bool:
    """Tell whether a failure may go unnoticed, by the trace of the run that had it."""
    file, call, _ = aim.point
    if file.endswith(BORNE.get(call, ())):
        return True
    name = BORNE_BY_FORMAT.get(aim.suffix, {}).get(call)
    if name is None or re.fullmatch(name, file) is None:
        return False
    # SQLite opens its folder without saying that it is one, and we do not.
    return bool(file) or all("O_DIRECTORY" not in line for line in trace.splitlines() if "(INJECTED)" in line)


class Bench:
    """A place where one run after the other is struck, each from the same beginnings."""

    def __init__(
        self,
        site: Site,
        ground: Path,
        scenario: str,
        suffix: str,
        *,
        bodies: bool = False,
        rows: int = ROWS,
        hurried: bool = False,
    ) -> None:
        ground.mkdir(parents=True)
        self.scenario = scenario
        self.suffix = suffix
        self._home = ground / "home"
        self._home.mkdir()
        self._folder = ground / "swept"
        self._template = ground / "template"
        self._trace = ground / "trace.txt"
        self._output = self._folder / f"pages.{suffix}"
        self._bodies = self._folder / "bodies" if bodies else None
        slower = 1 if hurried else ROWS // rows  # as many commits, however few the rows
        latency = (LATENCY[0] * slower, LATENCY[1] * slower)
        self._rows = site.rows(ground.name, rows, seed=1, latency=latency, page="few" if bodies else "page")
        listed = ground / "urls.txt"
        listed.write_text("".join(f"{row.url}\n" for row in self._rows))
        source = [site.list_url(ground.name), "--from", "txt"] if scenario == "network" else [str(listed)]
        self._words = argv("crawl", *source, *output_words(self._output, suffix), "-q", "-c", str(CONCURRENCY))
        self._words += ["--per-host", str(CONCURRENCY), "--retries", "0"]
        if self._bodies is not None:
            self._words += ["--body", str(self._bodies)]
        if scenario == "since":
            earlier = ground / "earlier.jsonl"
            words = argv("crawl", str(listed), "-o", str(earlier), "-q", "--retries", "0")
            ran = run(words, self._home, DEADLINE, anew=False)
            assert ran.code == 0, ran.said
            self._words += ["--since", str(earlier)]
        self._prepare()
        if scenario == "retry":
            self._words.append("--retry-failed")

    def count(self) -> dict[tuple[str, str], int]:
        """Return which calls the run makes on which files, by a run that is not struck."""
        self._restore()
        ran = run([*counting(self._trace), *self._words], self._home, DEADLINE)
        assert ran.code == 0, ran.said
        return calls_of(self._trace.read_text(errors="replace"), self._folder)

    def strike(self, aim: Aim) -> Trial | None:
        """Let the fault strike and take the job up again; ``None`` where the run never came to the point."""
        self._restore()
        self._trace.unlink(missing_ok=True)
        try:
            struck = run(
                [*injecting(aim.point, self._folder, aim.fault, self._trace), *self._words], self._home, DEADLINE
            )
        except subprocess.TimeoutExpired:
            return Trial(aim, "hung", (f"it did not end within {DEADLINE:g} s",))
        trace = self._trace.read_text(errors="replace")
        if not was_injected(trace, aim.point, aim.fault):
            return None
        fate, troubles = self._fate(aim, struck, trace)
        return Trial(aim, fate, (*troubles, *self._complete()))

    def _fate(self, aim: Aim, struck: Ran, trace: str) -> tuple[str, list[str]]:
        troubles = scars(struck.said)
        if aim.fault == "KILL":
            return "killed", troubles if struck.code < 0 else [*troubles, f"it outlived SIGKILL with {struck.code}"]
        if struck.code == 0:
            if not may_be_borne(aim, trace):
                troubles.append("it ended with 0")
            return "borne", troubles + self._judged()
        # Any file of the job is named by its whole path, which begins with the folder's or is the output's.
        if not any(str(path) in struck.said for path in (self._output, self._folder)):
            troubles.append(f"it ended with {struck.code} and named no path: {struck.said[-500:]!r}")
        return "refused", troubles

    def _complete(self) -> list[str]:
        try:
            ran = run(self._words, self._home, DEADLINE, anew=False)
        except subprocess.TimeoutExpired:
            return [f"taken up again, it did not end within {DEADLINE:g} s"]
        troubles = scars(ran.said)
        if ran.code != 0:
            troubles.append(f"taken up again, it ended with {ran.code}: {ran.said[-500:]!r}")
        return troubles + self._judged()

    def _judged(self) -> list[str]:
        verdict = judge(self._output, self._rows, bodies=self._bodies, tables=True)
        return [] if verdict.clean else [str(verdict)]

    def _prepare(self) -> None:
        """Make what each run begins with: nothing, a job that was killed, or one that is complete."""
        self._folder.mkdir()
        if self.scenario == "resume":
            self._kill_halfway()
        elif self.scenario == "retry":
            ran = run(self._words, self._home, DEADLINE, anew=False)
            assert ran.code == 0, ran.said
        self._folder.rename(self._template)

    def _kill_halfway(self) -> None:
        with started(self._words, self._home) as (process, said):
            deadline = time.monotonic() + DEADLINE
            while not self._has_rows():
                assert process.poll() is None, said.read_text(errors="replace")
                assert time.monotonic() < deadline, "nothing is written"
                time.sleep(0.01)
            time.sleep(0.2)  # into the rows behind the first commit
            process.kill()

    def _has_rows(self) -> bool:
        """Whether rows are on the disk: in the output, or where its format keeps them until they are a file."""
        held = [self._output, *self._folder.glob("*.job/output.*/*")]
        return any(path.is_file() and path.stat().st_size for path in held)

    def _restore(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.copytree(self._template, self._folder)


class Benches:
    """The benches for each scenario and format, as many as work at once; one is lent to one striker at a time."""

    def __init__(self, site: Site, ground: Path, kinds: Sequence[tuple[str, str]], at_once: int, **how: Any) -> None:
        self._free: dict[tuple[str, str], SimpleQueue[Bench]] = {kind: SimpleQueue() for kind in kinds}
        makings = [(kind, f"{kind[0]}-{kind[1].replace('/', '-parts')}-{n}") for kind in kinds for n in range(at_once)]
        with ThreadPoolExecutor(at_once) as pool:
            for kind, bench in pool.map(
                lambda made: (made[0], Bench(site, ground / made[1], *made[0], **how)), makings
            ):
                self._free[kind].put(bench)

    def count(self, kind: tuple[str, str]) -> dict[tuple[str, str], int]:
        """Return the calls of one kind of run."""
        bench = self._free[kind].get()
        try:
            return bench.count()
        finally:
            self._free[kind].put(bench)

    def strike(self, aim: Aim) -> Trial | None:
        """Strike on a bench that is free."""
        kind = aim.scenario, aim.suffix
        bench = self._free[kind].get()
        try:
            return bench.strike(aim)
        finally:
            self._free[kind].put(bench)

    def strike_all(self, series: Series) -> list[Trial]:
        """Strike at N = 1, 2, … until no thread comes to N."""
        trials = []
        for number in range(1, ENDLESS):
            trial = self.strike(
                Aim(series.scenario, series.suffix, series.fault, Point(series.file, series.call, number))
            )
            if trial is None:
                break
            trials.append(trial)
        return trials


class Series(NamedTuple):
    """All the points of one call on one file, and how many of them the counting run made."""

    scenario: str
    suffix: str
    fault: str
    file: str
    call: str
    total: int

    def aims(self, each: int = 1) -> Iterator[Aim]:
        """Yield an aim for the first and the last point that was counted, and for each so many of those between."""
        for number in sorted({*range(1, self.total + 1, each), self.total}):
            yield Aim(self.scenario, self.suffix, self.fault, Point(self.file, self.call, number))


def sweep(
    ground: Path,
    *,
    scenarios: Sequence[str] = SCENARIOS,
    suffixes: Sequence[str] = ("jsonl",),
    faults: Sequence[str] = tuple(FAULTS),
    only: str = "",
    each: int | None = None,
    sample: int | None = None,
    at_once: int = 6,
    bodies: bool = False,
    rows: int = ROWS,
    hurried: bool = False,
) -> list[Trial]:
    """Strike at every point, at ``each`` so many, or at a ``sample`` that is spread over all; return what became of each.

    ``only`` is a regular expression for the files that are struck. With ``bodies`` those of the pages are kept in a
    folder; there are few of them, for each file is struck by itself. ``hurried`` rows come as fast however few they are.
    """
    kinds = [(scenario, suffix) for scenario in scenarios for suffix in suffixes]
    with serving(ground / "site.log") as site, ThreadPoolExecutor(at_once) as pool:
        benches = Benches(site, ground, kinds, at_once, bodies=bodies, rows=rows, hurried=hurried)
        counts = zip(kinds, pool.map(benches.count, kinds), strict=True)
        series = [
            Series(*kind, fault, file, call, count)
            for kind, counted in counts
            for (file, call), count in sorted(counted.items())
            if re.search(only, file)
            for fault in faults
        ]
        if each is None and sample is None:
            return [trial for trials in pool.map(benches.strike_all, series) for trial in trials]
        aims = [aim for one in series for aim in one.aims(each or 1)]
        if sample is not None:
            aims = aims[:: max(1, len(aims) // sample)][:sample]
        return [trial for trial in pool.map(benches.strike, aims) if trial is not None]


def report(trials: Sequence[Trial]) -> str:
    """Return a table of the trials, each of the troubles, and the totals in the last line."""
    lines = [
        f"{'scenario':<9} {'format':<10} {'fault':<7} {'points':>6} {'killed':>7} {'refused':>8} {'borne':>6} {'troubled':>9}"
    ]
    for kind in sorted({trial.aim[:3] for trial in trials}):
        mine = [trial for trial in trials if trial.aim[:3] == kind]
        fates = [sum(trial.fate == fate for trial in mine) for fate in ("killed", "refused", "borne")]
        bad = sum(bool(trial.troubles) for trial in mine)
        lines.append(
            f"{kind[0]:<9} {kind[1]:<10} {kind[2]:<7} {len(mine):>6} {fates[0]:>7} {fates[1]:>8} {fates[2]:>6} {bad:>9}"
        )
    lines += _borne(trials)
    for trial in trials:
        if trial.troubles:
            lines.append(f"{' '.join(trial.aim[:3])}: {trial.aim.point}: {'; '.join(trial.troubles)}")
    calls = sorted({trial.aim.point.call for trial in trials})
    bad = sum(bool(trial.troubles) for trial in trials)
    lines.append(f"{len(trials)} faults at {', '.join(calls)}: {bad} with troubles")
    return "\n".join(lines)


def _borne(trials: Iterable[Trial]) -> list[str]:
    points = sorted({f"{trial.aim.point.call} of {trial.aim.point.file}" for trial in trials if trial.fate == "borne"})
    return [f"borne without an error: {', '.join(points)}"] if points else []


def main() -> int:
    """Sweep, print what was found, and say by the exit code whether all was well."""
    parser = argparse.ArgumentParser(prog="python -m tests.sweeps.syscalls", description="A fault at every call.")
    parser.add_argument("--fault", nargs="+", default=list(FAULTS), choices=list(FAULTS))
    parser.add_argument("--scenario", nargs="+", default=SCENARIOS, choices=(*SCENARIOS, *FURTHER))
    parser.add_argument("--format", nargs="+", default=["jsonl"], choices=[suffix[1:] for suffix in FORMATS])
    parser.add_argument(
        "--only", default="", metavar="FILES", help="a regular expression for the files that are struck"
    )
    parser.add_argument(
        "--each", type=int, metavar="K", help="each K-th call of a kind on a file, the first and the last"
    )
    parser.add_argument("--sample", type=int, help="so many points, spread over all")
    parser.add_argument("--at-once", type=int, default=6, help="jobs that run at the same time")
    parser.add_argument(
        "--rows", type=int, default=ROWS, help="of a job; fewer are slower, so that it commits as often"
    )
    parser.add_argument("--hurried", action="store_true", help="few rows come as fast as many, and commit less often")
    parser.add_argument("--bodies", action="store_true", help="keep the bodies of pages in a folder")
    wanted = parser.parse_args()
    if why := missing():
        print(f"skipped: {why}")
        return 2
    ground = Path(tempfile.mkdtemp(prefix="fetcher-syscalls-"))
    began = time.monotonic()
    trials = sweep(
        ground,
        scenarios=wanted.scenario,
        suffixes=wanted.format,
        faults=wanted.fault,
        only=wanted.only,
        each=wanted.each,
        sample=wanted.sample,
        at_once=wanted.at_once,
        bodies=wanted.bodies,
        rows=wanted.rows,
        hurried=wanted.hurried,
    )
    shutil.rmtree(ground)
    print(f"jobs of {wanted.rows} rows, in {time.monotonic() - began:.0f} s")
    print(report(trials))
    return 1 if not trials or any(trial.troubles for trial in trials) else 0


if __name__ == "__main__":
    sys.exit(main())
