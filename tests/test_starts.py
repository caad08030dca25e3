"""The record of starts: the same whenever it is made, and a change in it is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def starts(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command: in a process of its own, for it turns the clock."""
    command = [sys.executable, "-m", "tests.benchmarks.starts", "--worlds", "3", *map(str, words)]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}  # else it starts itself again
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


def test_a_record_is_the_same_again_and_a_change_is_told(tmp_path: Path) -> None:
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    made = starts("--out", first)
    assert (made.returncode, made.stderr) == (0, "")
    lines = first.read_text().splitlines()
    assert len(lines) > 100
    place = next(number for number, line in enumerate(lines) if line.startswith("1 "))
    lines[place] = lines[place].replace("1 0.", "1 9.", 1)
    (tmp_path / "changed.txt").write_text("\n".join(lines))
    again = starts("--out", second, "--against", tmp_path / "changed.txt")
    assert second.read_text() == first.read_text()
    assert again.stdout.splitlines()[: len(made.stdout.splitlines())] == made.stdout.splitlines()
    assert again.returncode == 1
    assert "world 1 (well): other times\n    before: 1 0." in again.stdout
    assert "other times in 1 of 3 worlds" in again.stdout
