"""Owns how a sweep starts a fetcher, strikes it, and sees what it leaves behind among the processes (Linux)."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.lab.command import argv, environment
from tests.lab.loaded import fork

__all__ = ["DEADLINE", "Child", "Ran", "alive", "parsers_of", "run", "scars", "started", "workers_of"]

DEADLINE = 120.0
PARSER = b"fetcher.page.worker"
WORKER = b"fetcher.parallel.worker"
SCARS = ("Traceback", "most recent call", "Exception ignored", "never awaited", "Fatal Python")


@dataclass(frozen=True)
class Ran:
    """What a process left: its exit code (negative: the signal that ended it) and what it said on stderr."""

    code: int
    said: str


class Child(NamedTuple):
    """A process by its number and its start, for numbers are given again."""

    pid: int
    born: int


@contextmanager
def started(words: Sequence[str], folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Start a command in ``folder``; gives it and the file with its stderr. It and its own do not outlive the block."""
    said = folder / "stderr.txt"
    with open(said, "wb") as stderr:
        process = subprocess.Popen(
            words,
            cwd=folder,
            env=environment(folder, FETCHER_ROBOTS="1"),
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            start_new_session=True,
        )
    with process:
        try:
            yield process, said
        finally:
            if process.poll() is None:
                # The session is our own child's: a tracer and what it traces.
                os.killpg(process.pid, signal.SIGKILL)


def run(words: Sequence[str], folder: Path, deadline: float = DEADLINE, *, anew: bool = True) -> Ran:
    """Run a command to its end; one of ours that need not start ``anew`` is forked. Raises ``subprocess.TimeoutExpired``."""
    if not anew:
        return _run_forked(words[len(argv()) :], folder, deadline)
    with started(words, folder) as (process, said):
        code = process.wait(deadline)
        return Ran(code, said.read_text(errors="replace"))


def _run_forked(words: Sequence[str], folder: Path, deadline: float) -> Ran:
    said = folder / "stderr.txt"
    with open(said, "wb") as stderr:
        forked = fork(
            words,
            cwd=folder,
            env=environment(folder, FETCHER_ROBOTS="1"),
            stdin=subprocess.DEVNULL,
            stdout=stderr.fileno(),
            stderr=stderr.fileno(),
        )
        try:
            code = forked.wait(deadline)
        finally:
            forked.kill()
    return Ran(code, said.read_text(errors="replace"))


def scars(said: str) -> list[str]:
    """Return what no user must ever see among what was said."""
    return [f"it said {scar!r}: {said[-1500:]}" for scar in SCARS if scar in said]


def parsers_of(pid: int) -> list[Child]:
    """Return the parse workers of a process, and of its workers."""
    return [child for owner in (pid, *(worker.pid for worker in workers_of(pid))) for child in _children(owner, PARSER)]


def workers_of(pid: int) -> list[Child]:
    """Return the processes that fetch for it."""
    return _children(pid, WORKER)


def _children(pid: int, what: bytes) -> list[Child]:
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if not name.isdecimal():
            continue
        child, parent = _read(int(name))
        if parent == pid and what in _command(child.pid):
            found.append(child)
    return found


def alive(children: Iterable[Child], patience: float) -> list[Child]:
    """Wait until they are gone, so many seconds at most, and return those that are not."""
    deadline = time.monotonic() + patience
    left = list(children)
    while left := [child for child in left if _read(child.pid)[0] == child]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    return left


def _read(pid: int) -> tuple[Child, int]:
    """Return a process and its parent's number; both unlike any other where there is none, or only its ashes."""
    try:
        state, parent, *more = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return Child(pid, -1), -1
    return (Child(pid, -1), -1) if state == "Z" else (Child(pid, int(more[17])), int(parent))


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
