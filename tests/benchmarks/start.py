"""Owns one figure: what ``fetcher --version`` costs, as a multiple of ``python -c 'import click'``.

Run it with ``python -m tests.benchmarks.start [ROUNDS]``; it exits with 1 above ``MOST``. The rounds are
interleaved and the best of each is taken: what disturbs a start only ever adds to it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from time import perf_counter

MOST = 1.6
ROUNDS = 15

CONSOLE = Path(sys.executable).with_name("fetcher")
COMMANDS = {
    "fetcher --version": [str(CONSOLE), "--version"]
    if CONSOLE.exists()
    else [sys.executable, "-m", "fetcher", "--version"],
    "python -c 'import click'": [sys.executable, "-c", "import click"],
}


def seconds_of(command: list[str]) -> float:
    """Return the wall time of one run of a command."""
    began = perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return perf_counter() - began


def best_of(rounds: int) -> dict[str, float]:
    """Return the shortest wall time of each of ``COMMANDS``, after a round that only warms the caches."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds + 1):
        for name, command in COMMANDS.items():
            times[name].append(seconds_of(command))
    return {name: min(runs[1:]) for name, runs in times.items()}


def main() -> int:
    """Measure, print the figures, and say by the exit code whether the ratio holds."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    best = best_of(rounds)
    for name, seconds in best.items():
        print(f"{name:<26} {seconds * 1000:6.1f} ms")
    ours, click = best.values()
    verdict = "ok" if ours <= MOST * click else "too slow"
    print(f"ratio {ours / click:.2f} (at most {MOST}, best of {rounds}): {verdict}")
    return verdict != "ok"


if __name__ == "__main__":
    sys.exit(main())
