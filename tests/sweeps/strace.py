"""Owns what is asked of strace: which calls a command makes on which of our files, and a fault at one of them.

A point is a file, a call and a number N: the fault strikes when a thread makes that call on that file for the Nth
time. strace counts for each thread by itself: with an error, each thread that comes to its Nth meets it; with a
signal, the first that comes there ends the process, before the call is done.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["CALLS", "FAULTS", "Point", "calls_of", "counting", "injecting", "missing", "was_injected"]

CALLS = (
    "write", "writev", "pwrite64", "fsync", "fdatasync", "rename", "renameat", "renameat2", "ftruncate", "unlink",
    "unlinkat", "openat",
)  # fmt: skip

FAULTS = {"KILL": "signal=KILL", "EIO": "error=EIO", "ENOSPC": "error=ENOSPC"}
"""The faults, in strace's words."""

TRACER = ["strace", "-f", "-qq", "-s", "0", "-e", "signal=none"]
QUICK = "--seccomp-bpf"
"""Has the kernel stop at the calls that are asked for alone: a fifth of the time in the kernel. A signal is not injected so."""

# A call is counted where it begins: "resumed" is the end of one that was interrupted by another thread's.
_LINE = re.compile(r"(\d+)\s+(\w+)\((.*)")
_PATH = re.compile(r'(?<=[<"])(/[^<>"]*)(?=[>"])')


class Point(NamedTuple):
    """The Nth of one thread's calls on one file (its path below the folder that is watched)."""

    file: str
    call: str
    number: int

    def __str__(self) -> str:
        return f"{self.call} {self.number} of {self.file or 'the folder'}"


def missing() -> str:
    """Return why there can be no sweep of the calls here; empty where there can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run([*TRACER, "true"], capture_output=True, text=True)
    return f"strace does not work here: {tried.stderr.strip()}" if tried.returncode else ""


def counting(trace: Path) -> list[str]:
    """Return the words before a command that have its calls written to ``trace``."""
    return [*TRACER, QUICK, "-y", "-e", f"trace={_known(CALLS)}", "-o", str(trace)]


def injecting(point: Point, folder: Path, fault: str, trace: Path) -> list[str]:
    """Return the words before a command that has the fault strike at the point; the calls until then go to ``trace``."""
    call = _known([point.call])
    inject = f"inject={call}:{FAULTS[fault]}:when={point.number}"
    quick = [] if fault == "KILL" else [QUICK]
    return [*TRACER, *quick, "-P", str(folder / point.file), "-e", f"trace={call}", "-e", inject, "-o", str(trace)]


def calls_of(trace: str, folder: Path) -> dict[tuple[str, str], int]:
    """Return, for each file at or below ``folder`` and each call, how often the thread that makes it most makes it."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for line in trace.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        thread, call, words = found.groups()
        for path in set(_PATH.findall(words.rpartition(" = ")[0] or words)):
            whole = Path(path.removesuffix(" (deleted)"))
            if whole == folder or folder in whole.parents:
                file = str(whole.relative_to(folder))
                counts["" if file == "." else file, call, thread] += 1
    most: dict[tuple[str, str], int] = {}
    for (file, call, _), count in sorted(counts.items()):
        most[file, call] = max(count, most.get((file, call), 0))
    return most


def was_injected(trace: str, point: Point, fault: str) -> bool:
    """Tell from its trace whether a run came to the point."""
    if fault != "KILL":
        return "(INJECTED)" in trace
    threads = Counter(
        found[1] for line in trace.splitlines() if (found := _LINE.match(line)) and found[2] == point.call
    )
    return max(threads.values(), default=0) >= point.number


def _known(calls: Sequence[str]) -> str:
    return ",".join(f"?{call}" for call in calls)  # a machine need not have them all
