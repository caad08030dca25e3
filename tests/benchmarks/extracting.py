"""Owns what processes are worth to ``fetcher extract``: ``python -m tests.benchmarks.extracting [--pages N] [--rounds N]``.

A web archive of so many pages is read by one process and by two, and two archives with a half of them each are read by
two commands at the same time, which is the bound. The rounds are interleaved; of each the best is taken.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.figures import Figure, at_least
from tests.lab.command import argv, environment
from tests.sweeps.extracting import MANUAL, archive

__all__ = ["timed"]

DEADLINE = 600.0


def timed(commands: Sequence[Sequence[str]], ground: Path) -> float:
    """Run commands at the same time; return the seconds until the last has ended."""
    out = ground / "read"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    began = time.perf_counter()
    running = [subprocess.Popen(words, cwd=out, env=environment(out)) for words in commands]
    codes = [process.wait(DEADLINE) for process in running]
    assert not any(codes), codes
    return time.perf_counter() - began


def main() -> int:
    """Measure, print, and say by the exit code whether two processes are worth what is asked."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.extracting", description=__doc__)
    parser.add_argument("--pages", type=int, default=5_000)
    parser.add_argument("--folder", type=Path, default=MANUAL)
    parser.add_argument("--rounds", type=int, default=3)
    wanted = parser.parse_args()

    def reading(source: Path, *more: str) -> list[str]:
        return argv("extract", str(source), "-o", f"{source.name}.jsonl", "-q", *more)

    with tempfile.TemporaryDirectory(prefix="fetcher-extracting-") as name:
        ground = Path(name)
        (ground / "whole").mkdir()
        (ground / "halves").mkdir()
        (whole,) = archive(ground / "whole", wanted.folder, wanted.pages)
        halves = archive(ground / "halves", wanted.folder, wanted.pages, parts=2)
        kinds = {
            "by one process": [reading(whole)],
            "by --workers 2": [reading(whole, "--workers", "2")],
            "two commands over the halves": [reading(half) for half in halves],
        }
        best = dict.fromkeys(kinds, float("inf"))
        for _ in range(wanted.rounds):
            for kind, commands in kinds.items():
                best[kind] = min(best[kind], timed(commands, ground))
    one, two, bound = best.values()
    figures = [Figure(kind, wanted.pages / seconds, " pages/s") for kind, seconds in best.items()]
    figures.append(Figure("--workers 2, of the bound", bound / two, "", at_least(0.95)))
    figures.append(Figure("--workers 2, of one process", one / two, " x"))
    for figure in figures:
        print(figure)
    return 0 if all(figure.holds for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
