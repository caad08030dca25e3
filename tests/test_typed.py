"""What type checkers make of a program that uses the public names: mypy, and basedpyright for those who use pyright.

``typed/public_api.py`` is right, and both say so (basedpyright of the examples too); in ``MISTAKES`` each line that
says ``wrong`` is, and both see that. Skipped, by name, where a checker is not installed: the tests' own environment has
none, ``.ci/run`` has both.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RIGHT = ROOT / "tests" / "typed" / "public_api.py"
DEADLINE = 300.0  # the first run of mypy has no cache

MISTAKES = """
import fetcher
from fetcher import Config, Failure, Fetcher, Outcome, Page, fetch, fetch_all

URLS = ["https://example.com/"]

def options() -> None:
    fetch_all(URLS, per_hots=2)  # wrong
    fetch_all(URLS, concurrency="many")  # wrong
    fetch_all(URLS, {"concurrency": 3})  # wrong
    fetch("https://example.com/", body=True)  # wrong
    Fetcher(select={"price": 5})  # wrong
    Config.of(private_network="never")  # wrong
    fetch_all(3)  # wrong
    fetcher.fecth("https://example.com/")  # wrong

def outcomes(outcome: Outcome) -> None:
    print(outcome.data)  # wrong
    if isinstance(outcome, Page):
        print(outcome.error)  # wrong
    if outcome.ok is True:
        print(outcome.error)  # wrong
    if isinstance(outcome, Failure):
        print(outcome.body)  # wrong
    print(outcome.title)
"""


def tool(name: str) -> str:
    """The path of a checker: beside the interpreter, where .ci/run puts it, or on the PATH."""
    places = [Path(sys.executable).parent / name, ROOT / ".venv-ci" / "tools" / "bin" / name]
    found = next((str(place) for place in places if place.exists()), None) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def output(*words: str) -> tuple[int, str]:
    done = subprocess.run(
        words, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    return done.returncode, done.stdout + done.stderr


def mypy(path: Path) -> set[int]:
    """The lines that mypy finds wrong."""
    cache = ("--cache-dir", str(path.parent / ".mypy_cache")) if path != RIGHT else ()
    code, said = output(tool("mypy"), "--strict", "--python-executable", sys.executable, *cache, str(path))
    found = {int(line) for line in re.findall(rf"{re.escape(path.name)}:(\d+): error", said)}
    assert (code == 0) == (not found), said
    return found


def basedpyright(path: Path) -> set[int]:
    """The lines that basedpyright finds wrong in pyright's standard mode."""
    settings = path.with_suffix(".json")
    settings = settings if path != RIGHT else ROOT / "pyproject.toml"
    if path != RIGHT:
        settings.write_text(
            json.dumps({"include": [path.name], "extraPaths": [str(ROOT)], "typeCheckingMode": "standard"})
        )
    code, said = output(
        tool("basedpyright"), "--outputjson", "--pythonpath", sys.executable, "--project", str(settings)
    )
    report = json.loads(said)
    assert report["summary"]["filesAnalyzed"] >= 1, said
    found = {item["range"]["start"]["line"] + 1 for item in report["generalDiagnostics"] if item["severity"] == "error"}
    assert (code == 0) == (not found), said
    return found


checkers = pytest.mark.parametrize("check", [mypy, basedpyright])


@checkers
def test_the_public_names_are_typed(check: Callable[[Path], set[int]]) -> None:
    assert check(RIGHT) == set()


@checkers
def test_mistakes_are_seen(check: Callable[[Path], set[int]], tmp_path: Path) -> None:
    program = tmp_path / "mistakes.py"
    program.write_text(MISTAKES, encoding="utf-8")
    lines = {number for number, line in enumerate(MISTAKES.split("\n"), 1) if line.endswith("# wrong")}
    assert check(program) == lines
