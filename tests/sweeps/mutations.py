"""Owns the sweep of mutants: small changes in the core, each run against the tests nearest to it.

Run it with ``python -m tests.sweeps.mutations [--count N] [--seed S] [--jobs J] [--own] [PART ...]``; it exits with 1
when a mutant survives that is not listed. A part is a name of ``NEAREST``, or in it (``middleware/accept``); without
one all are changed.

Law 1: the checkout is never changed, but a copy of it for each job. Law 2: a mutant is drawn by a hash of what it is
known by, so that a change elsewhere draws no other. Law 3: a mutant is judged by the tests that run its function, the
quickest of the nearest files first, for as long as ``BUDGET_SECONDS`` of them; what takes far longer than that is
killed.

mutmut turns each function into a trampoline, which tests of pickling, names and sizes see, and draws no sample;
cosmic-ray changes the checkout itself and starts an interpreter, with all of pytest, for each mutant.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from difflib import unified_diff
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from tests.sweeps.mutants import Mutant, mutants_of

__all__ = ["NEAREST", "Swept", "listed", "report", "sweep"]

ROOT = Path(__file__).resolve().parents[2]
COPIED = (
    "fetcher",
    "tests",
    "examples",
    "pyproject.toml",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "config.toml",
)
LISTED = Path(__file__).with_name("equivalent_mutants.txt")

BUDGET_SECONDS = 30.0  # of a processor, for the tests that judge one mutant, as they took before
LOOK_SECONDS = 0.02  # between two looks at what has ended
WATCHING_SECONDS = 600.0  # for the unchanged tests of one file
START_SECONDS = 30.0  # that a mutant may take beside three times its tests

NEAREST: dict[str, tuple[str, ...]] = {
    "hosts": ("test_host_health*", "test_host_table*", "test_scheduler*", "test_breaker*", "test_adaptive*",
              "test_network.py", "test_gate*", "test_send_gate*", "test_frontier*", "test_dispatcher*", "test_shares*",
              "test_set_limits*", "test_progress_line*"),
    "frontier": ("test_frontier*", "test_queues*", "test_spill*", "test_dispatcher*"),
    "pipeline": ("test_library*", "test_dispatcher*", "test_isolation*", "test_warc*", "test_since*", "test_schemes*",
                 "test_follow*", "test_cli_extract*"),
    "dispatcher": ("test_dispatcher*", "test_frontier*", "test_library*"),
    "job": ("test_job*", "test_resume*", "test_ledger*", "test_durable*", "test_report*", "test_cli_job*", "test_cli_retry*",
            "test_since*", "test_follow*", "test_kept_list*", "test_shard*", "test_cli_bodies*"),
    "middleware": ("test_gate*", "test_send_gate*", "test_retry*", "test_accept*", "test_redirects*", "test_headers*",
                   "test_refresh*", "test_robots*", "test_polite*", "test_lists*", "test_since*", "test_library*"),
}  # fmt: skip
"""What is changed, and the tests nearest to it, the nearest first; those named after a module are nearer still."""

PRELOADED = ("pytest", "pytest_asyncio.plugin", "aiohttp.web", "hypothesis", "msgspec", "multidict", "yarl", "click",
             "tenacity", "selectolax.lexbor", "publicsuffixlist", "ada_url", "sqlite3", "trustme", "aioresponses")  # fmt: skip
"""What tests import beside ours: once, before the forks."""

OPTIONS = ("-q", "--tb=line", "-o", "addopts=", "-p", "no:cacheprovider", "-p", "pytest_asyncio.plugin",
           "-W", "ignore::pytest.PytestAssertRewriteWarning")  # fmt: skip
BROKEN = 99  # the exit code of a process that could not run pytest


# Processes: each in a copy of its own, forked off one that has imported what is dear


@dataclass(frozen=True)
class Task:
    """A run of pytest over these tests, which may take so long. ``subject`` is what it is run for.

    ``prepare`` is told the copy it runs in, before; ``plugin`` makes a plugin of pytest for it.
    """

    subject: Any
    tests: Sequence[str]
    limit: float
    prepare: Callable[[Path], None] = lambda _: None
    plugin: Callable[[Path], object] | None = None


@contextmanager
def copies(number: int) -> Iterator[list[Path]]:
    """Make copies of the checkout, which last until the block is left."""
    with tempfile.TemporaryDirectory(prefix="fetcher-mutations-") as folder:
        made = [Path(folder, str(one)) for one in range(number)]
        for copy in made:
            copy.mkdir()
            for name in COPIED:
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy2(ROOT / name, copy / name)
        yield made


def run_all(tasks: Iterable[Task], places: Sequence[Path]) -> Iterator[tuple[Task, Path, int | None]]:
    """Run the tasks, one at a time in each copy; give each with its copy and exit code (``None``: out of time)."""
    for name in PRELOADED:
        with suppress(ImportError):
            importlib.import_module(name)
    waiting, free = iter(tasks), list(places)
    running: dict[int, tuple[Task, Path, float]] = {}
    while True:
        while free and (task := next(waiting, None)) is not None:
            place = free.pop()
            task.prepare(place)
            running[_fork(task, place)] = task, place, time.monotonic() + task.limit
        if not running:
            return
        time.sleep(LOOK_SECONDS)
        for pid, (task, place, deadline) in list(running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            late = not ended and time.monotonic() > deadline
            if not ended and not late:
                continue
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # it, or what it left behind
            if late:
                os.waitpid(pid, 0)
            del running[pid]
            free.append(place)
            yield task, place, None if late else os.waitstatus_to_exitcode(status)


def _fork(task: Task, place: Path) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if not pid:
        try:
            code = _run_pytest(task, place)
        except BaseException:
            traceback.print_exc()
            code = BROKEN
        sys.stderr.flush()
        os._exit(code)
    return pid


def _run_pytest(task: Task, place: Path) -> int:
    """Become a process that runs the tests of a copy, and nothing of the checkout."""
    os.setsid()
    os.chdir(place)
    said = os.open(place / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, said), (2, said)):
        os.dup2(source, number)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
    for name in list(sys.modules):
        if name.partition(".")[0] in ("fetcher", "tests"):
            del sys.modules[name]
    sys.path.insert(0, str(place))
    sys.dont_write_bytecode = task.plugin is None  # of a mutant, nothing may stay
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    import pytest
    from hypothesis import settings

    settings.register_profile("sweep", deadline=None, derandomize=True)  # the machine is busy, and a mutant stays one
    settings.load_profile("sweep")
    judges = ["-x"] if task.plugin is None else []  # one that fails is enough; but all are watched
    words = [*OPTIONS, *judges, f"--rootdir={place}", f"--basetemp={place / 'temporary'}", *task.tests]
    return int(pytest.main(words, plugins=[] if task.plugin is None else [task.plugin(place)]))


# Which tests run which function


@dataclass(frozen=True)
class NearTest:
    """One test that passes: its ``seconds`` of a processor, and the functions of ours that it runs in its own process.

    On a busy machine it ``took`` longer.
    """

    name: str
    seconds: float
    functions: frozenset[str]
    took: float = 0.0

    @property
    def file(self) -> str:
        """The test file."""
        return self.name.partition("::")[0]


class Watcher:
    """A plugin of pytest that writes down which functions each test runs."""

    def __init__(self, place: Path) -> None:
        self._inside = str(place / "fetcher")
        self._place = place
        self._codes: set[CodeType] = set()
        self._took: Counter[str] = Counter()
        self._spent: dict[str, float] = {}
        self._before = 0.0
        self._failed: set[str] = set()
        self._functions: dict[str, list[str]] = {}

    def pytest_runtest_logstart(self) -> None:
        self._codes.clear()
        self._before = _processor_seconds()
        threading.setprofile(self._note)
        sys.setprofile(self._note)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self._took[report.nodeid] += report.duration
        if report.outcome != "passed":
            self._failed.add(report.nodeid)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        sys.setprofile(None)
        threading.setprofile(None)
        self._spent[nodeid] = _processor_seconds() - self._before
        names = (
            f"{Path(code.co_filename).relative_to(self._place)} {_plain(code.co_qualname)}" for code in self._codes
        )
        self._functions[nodeid] = sorted(set(names))

    def pytest_unconfigure(self) -> None:
        found = [
            (name, self._spent[name], functions, self._took[name])
            for name, functions in self._functions.items()
            if name not in self._failed
        ]
        (self._place / "watched.json").write_text(json.dumps(found))

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(self._inside):
            self._codes.add(frame.f_code)


def _processor_seconds() -> float:
    """Return what we and the processes we have waited for have had of a processor."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _plain(name: str) -> str:
    """Return a qualified name as the source has it: what a function has within is its own."""
    return ".".join(part for part in name.split(".") if not part.startswith("<"))


def watch(files: Sequence[str], places: Sequence[Path]) -> dict[str, list[NearTest]]:
    """Run these test files as they are, and return the tests of each that pass."""
    found: dict[str, list[NearTest]] = {}
    tasks = [Task(file, [file], WATCHING_SECONDS, plugin=Watcher) for file in files]
    for task, place, code in run_all(tasks, places):
        if code not in (0, 1):
            said = (place / "said").read_text(errors="replace")
            raise RuntimeError(f"the unchanged tests of {task.subject} end with {code}: {said[-1000:]}")
        told = json.loads((place / "watched.json").read_text())
        found[task.subject] = [NearTest(name, spent, frozenset(names), took) for name, spent, names, took in told]
    return found


# What is changed, and what judges it


def sources_of(part: str) -> list[Path]:
    """Return the modules of a part of the package: a folder, or a module without its suffix."""
    home = ROOT / "fetcher" / part
    return sorted(path for path in home.rglob("*.py") if path.stat().st_size) or [home.with_suffix(".py")]


def nearest_files(source: Path, *, own: bool = False) -> list[str]:
    """Return the test files nearest to a module, the nearest first: its ``own``, the room's, its neighbours'."""
    room, *within = source.relative_to(ROOT / "fetcher").with_suffix("").parts
    folder = source.parent.name
    patterns = [
        f"test_{folder}_{source.stem}.py",
        f"test_{folder}*.py" if len(within) > 1 else f"test_{source.stem}.py",
    ]
    if not own:
        patterns += [*NEAREST[room], *(f"test_{path.stem}.py" for path in sources_of(room))]
    found = [path for pattern in patterns for path in sorted((ROOT / "tests").glob(pattern))]
    return list(dict.fromkeys(path.relative_to(ROOT).as_posix() for path in found))


def drawn(sites: Sequence[Sequence[Mutant]], count: int, seed: int) -> list[Mutant]:
    """Draw mutants out of those of each module, as many of each as it has a share of all."""
    total = sum(map(len, sites))
    shares = [len(mutants) * min(count, total) / total for mutants in sites]
    numbers = [int(share) for share in shares]
    for place in sorted(range(len(sites)), key=lambda one: numbers[one] - shares[one])[
        : min(count, total) - sum(numbers)
    ]:
        numbers[place] += 1

    def lot(mutant: Mutant) -> bytes:
        return hashlib.blake2b(f"{seed} {mutant.key}".encode()).digest()

    return [
        mutant for mutants, number in zip(sites, numbers, strict=True) for mutant in sorted(mutants, key=lot)[:number]
    ]


def judges_of(mutant: Mutant, files: Sequence[str], tests: Mapping[str, Sequence[NearTest]]) -> list[NearTest]:
    """Return the tests that judge a mutant in their order; those that run commands may run anything, and are the last.

    The files take turns, each with its quickest: what runs in every test is tested in but a few. Of those that run
    commands the file named after the module comes first, as a whole.
    """
    stem = Path(mutant.file).stem
    wanted = f"{mutant.file} {mutant.function}"
    near: list[tuple[int, NearTest]] = []
    far: list[tuple[int, NearTest]] = []
    for file in files:
        commands = "tests.lab.command" in (ROOT / file).read_text()
        runs = {
            test.name
            for test in tests[file]
            if any(name == wanted or name.startswith(f"{wanted}.") for name in test.functions)
            or (mutant.is_of_no_function and any(name.startswith(f"{mutant.file} ") for name in test.functions))
        }
        quickest = sorted(tests[file], key=lambda one: one.seconds)
        near += enumerate(test for test in quickest if test.name in runs)
        others = [test for test in quickest if commands and test.name not in runs]
        name = Path(file).stem.removeprefix("test_")
        far += ((-1 if stem in (name, f"{name}s") else turn, test) for turn, test in enumerate(others))
    within: list[NearTest] = []
    turns = [*sorted(near, key=lambda one: one[0]), *sorted(far, key=lambda one: one[0])]
    for _, test in turns:
        if not within or sum(one.seconds for one in within) + test.seconds <= BUDGET_SECONDS:
            within.append(test)
    return within


@dataclass
class Swept:
    """What became of the mutants that were drawn; of those that survived, by how many tests."""

    killed: list[Mutant] = field(default_factory=list)
    late: list[Mutant] = field(default_factory=list)
    survived: list[tuple[Mutant, int]] = field(default_factory=list)
    equivalent: list[Mutant] = field(default_factory=list)

    @property
    def judged(self) -> int:
        """How many were run."""
        return len(self.killed) + len(self.late) + len(self.survived)


def listed(text: str | None = None) -> dict[str, str]:
    """Return the mutants that change nothing, by what they are known by, with the reason of each."""
    found = {}
    for block in (LISTED.read_text() if text is None else text).split("\n\n"):
        lines = [line for line in block.splitlines() if not line.startswith("#")]
        if lines:
            spot, line, *reasons = lines
            found[f"{spot}\n{line}"] = " ".join(reason.strip() for reason in reasons)
    return found


def sweep(
    parts: Sequence[str], *, count: int, seed: int, jobs: int, tell: Callable[[str], None] = print, own: bool = False
) -> Swept:
    """Draw mutants of these parts, and run the nearest tests over each, or a module's ``own`` alone.

    ``tell`` hears how far it is, and of each that survives.
    """
    near = {source: nearest_files(source, own=own) for part in parts for source in sources_of(part)}
    names = {source.relative_to(ROOT).as_posix(): source for source in near}
    mutants = drawn([mutants_of(name, source.read_bytes()) for name, source in names.items()], count, seed)
    swept, known = Swept(), listed()
    swept.equivalent = [mutant for mutant in mutants if mutant.key in known]
    asked = [mutant for mutant in mutants if mutant.key not in known]
    files = list(dict.fromkeys(file for mutant in asked for file in near[names[mutant.file]]))
    with copies(jobs) as places:
        tests = watch(files, places)
        tell(f"{sum(map(len, tests.values()))} tests of {len(files)} files judge {len(asked)} mutants")
        tasks = []
        for mutant in asked:
            judges = judges_of(mutant, near[names[mutant.file]], tests)
            if judges:
                limit = START_SECONDS + 3 * sum(max(test.seconds, test.took) for test in judges)
                tasks.append(Task(mutant, [test.name for test in judges], limit, partial(_change, mutant)))
            else:
                swept.survived.append((mutant, 0))
        for number, (task, place, code) in enumerate(run_all(tasks, places), 1):
            _restore(task.subject, place)
            _enter(swept, task, place, code)
            if code == 0 or number % 25 == 0:
                tell(f"{number} of {len(tasks)}" + (f" survived: {task.subject.key}" if code == 0 else ""))
    return swept


def _enter(swept: Swept, task: Task, place: Path, code: int | None) -> None:
    if code is None:
        swept.late.append(task.subject)
    elif code == 0:
        swept.survived.append((task.subject, len(task.tests)))
    elif code in (1, 2, 4) or code < 0:  # a test failed, could not be imported (4: to find it), or ended the process
        swept.killed.append(task.subject)
    else:
        said = (place / "said").read_text(errors="replace")
        raise RuntimeError(f"pytest ended with {code} for {task.subject.key}: {said[-1000:]}")


def _change(mutant: Mutant, place: Path) -> None:
    """Write a mutant, as of another time than the source: compiled code is told by its time and size."""
    path = place / mutant.file
    shutil.copy2(path, place / "unchanged")
    path.write_bytes(mutant.applied(path.read_bytes()))
    os.utime(path, (time.time(), path.stat().st_mtime + 3600))


def _restore(mutant: Mutant, place: Path) -> None:
    shutil.move(place / "unchanged", place / mutant.file)


def report(swept: Swept) -> str:
    """Return what ran out of time, the survivors with what was changed, and in the last line the totals."""
    lines = [f"out of time: {mutant.key}" for mutant in swept.late]
    for mutant, tests in swept.survived:
        source = (ROOT / mutant.file).read_bytes()
        lines += [f"survived {tests} tests: {mutant.key}", *_difference(source, mutant.applied(source))]
    rate = (len(swept.killed) + len(swept.late)) / (swept.judged or 1)
    lines.append(
        f"{swept.judged + len(swept.equivalent)} mutants: {len(swept.killed)} killed, {len(swept.late)} out of time, "
        f"{len(swept.survived)} survived, {len(swept.equivalent)} equivalent: {rate:.1%} of those that are not"
    )
    return "\n".join(lines)


def _difference(before: bytes, after: bytes) -> list[str]:
    lines = list(unified_diff(before.decode().splitlines(), after.decode().splitlines(), n=1, lineterm=""))
    return [f"    {line}" for line in lines[2:]]


def main() -> int:
    """Sweep, print what survived, and say by the exit code whether anything did."""
    parser = argparse.ArgumentParser(prog="python -m tests.sweeps.mutations", description="See which tests bite.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"in {', '.join(NEAREST)}")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--own", action="store_true", help="run a module's own test file alone, which is quick")
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1))  # tests wait for most of their time
    wanted = parser.parse_args()
    for part in wanted.parts:
        if part.partition("/")[0] not in NEAREST or not all(path.exists() for path in sources_of(part)):
            parser.error(f"there is no part {part!r}")
    began = time.monotonic()
    swept = sweep(
        wanted.parts or list(NEAREST),
        count=wanted.count,
        seed=wanted.seed,
        jobs=wanted.jobs,
        own=wanted.own,
        tell=lambda text: print(f"{time.monotonic() - began:6.0f} s  {text}", file=sys.stderr, flush=True),
    )
    print(report(swept))
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{time.monotonic() - began:.0f} s, {spent.ru_utime + spent.ru_stime:.0f} s of a processor")
    return bool(swept.survived)


if __name__ == "__main__":
    sys.exit(main())
