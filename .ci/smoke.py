"""Tries a built wheel as a user would have it: ``python .ci/smoke.py dist/fetcher-….whl``.

It is installed into a fresh environment, first without extras and then with ``speed``, and run from a folder that has
nothing of ours, with an empty home.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import venv
from contextlib import closing
from pathlib import Path

SPEED = ("uvloop", "isal", "brotli", "backports.zstd")
OTHERS = ("pytest", "hypothesis", "mypy", "ruff", "hatchling")

LOOK = """
import importlib.util, json, sys
from importlib.metadata import files, version

def found(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False

import fetcher
assert not {"click", "aiohttp"} & set(sys.modules), "import fetcher imports what it does not need"
for name in fetcher.__all__:
    getattr(fetcher, name)
assert version("fetcher-crawl") == fetcher.__version__
print(json.dumps({
    "version": fetcher.__version__,
    "home": fetcher.__file__,
    "files": [str(file) for file in files("fetcher-crawl")],
    "libraries": [name for name in sys.argv[1:] if found(name)],
}))
"""


class Installed:
    """An environment for the wheel, and an empty folder to run from."""

    def __init__(self, ground: Path) -> None:
        self.folder = ground / "here"
        self.bin = ground / "env" / ("Scripts" if os.name == "nt" else "bin")
        self.folder.mkdir(parents=True)
        venv.create(ground / "env", with_pip=True)

    def install(self, wheel: str) -> None:
        """Install what it names, and see that all fits together. What is never imported need not be compiled."""
        self.run("python", "-m", "pip", "install", "-q", "--no-compile", wheel)
        self.run("python", "-m", "pip", "check")

    def run(self, program: str, *arguments: str) -> str:
        """Run a program of the environment and return what it prints; what it says goes to our stderr."""
        kept = ("PATH", "SYSTEMROOT", "HTTPS_PROXY", "https_proxy")
        environment = {name: value for name, value in os.environ.items() if name in kept or name.startswith("PIP_")}
        environment["HOME"] = str(self.folder)
        done = subprocess.run(
            [str(self.bin / program), *arguments],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            check=True,
            timeout=600,
        )
        return done.stdout


def try_out(installed: Installed, *, speed: bool) -> None:
    """Look at what was installed and run the demo. Raises ``AssertionError``."""
    seen = json.loads(installed.run("python", "-P", "-c", LOOK, *SPEED, *OTHERS))
    version, files = seen["version"], set(seen["files"])
    assert Path(seen["home"]).is_relative_to(installed.bin.parent), seen["home"]
    strange = {name for name in files if not name.startswith(("fetcher/", f"fetcher_crawl-{version}.dist-info/"))}
    assert all(name.startswith("../") for name in strange), strange
    assert not [name for name in files if "test" in name.lower()], "tests are in the wheel"
    assert "fetcher/py.typed" in files
    assert f"fetcher_crawl-{version}.dist-info/licenses/LICENSE" in files
    assert not set(OTHERS) & set(seen["libraries"]), seen["libraries"]
    assert bool(set(SPEED) & set(seen["libraries"])) == speed, seen["libraries"]

    assert installed.run("fetcher", "--version") == f"fetcher, version {version}\n"
    assert "crawl" in installed.run("python", "-m", "fetcher", "--help")
    check_demo(installed)
    check_outputs(installed)


def check_outputs(installed: Installed) -> None:
    """See that SQLite needs no extra, and that what needs one says so before the first request."""
    installed.run("fetcher", "crawl", "--demo", "--limit", "3", "-q", "-o", "a.sqlite", "--fresh")
    with closing(sqlite3.connect(installed.folder / "a.sqlite")) as db:
        assert db.execute("SELECT count(*) FROM pages").fetchone() == (3,)
    for name, extra in (("a.parquet", "parquet"), ("a.warc.gz", "warc")):
        command = [str(installed.bin / "fetcher"), "crawl", "--demo", "-o", name]
        done = subprocess.run(command, cwd=installed.folder, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 2, done
        assert f"pip install 'fetcher-crawl[{extra}]'" in done.stderr, done.stderr
        assert not (installed.folder / name).exists()


def check_demo(installed: Installed) -> None:
    """Crawl the built-in site and add the records up."""
    printed = installed.run("fetcher", "crawl", "--demo", "--summary", "summary.json", "-f", "jsonl")
    records = [json.loads(line) for line in printed.splitlines()]
    stats = json.loads((installed.folder / "summary.json").read_text(encoding="utf-8"))
    assert stats["input"] == stats["ok"] + stats["failed"] + stats["skipped"], stats
    assert (stats["pending"], stats["more"], stats["exit"]) == (0, False, 0), stats
    assert sorted(record["id"] for record in records) == list(range(1, stats["input"] + 1))
    assert sum(record["error"] is None for record in records) == stats["ok"] > 0
    assert stats["codes"] == {"http_404": 1}, stats


def main(wheel: Path) -> None:
    """Try the wheel without extras, then with ``speed``."""
    with tempfile.TemporaryDirectory(prefix="fetcher-smoke-") as ground:
        installed = Installed(Path(ground))
        for extra, speed in (("", False), ("[speed]", True)):
            installed.install(f"{wheel.resolve()}{extra}")
            try_out(installed, speed=speed)
            print(f"{wheel.name}{extra}: works")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
