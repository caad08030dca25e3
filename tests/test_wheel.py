"""The wheel: what is in it, that it runs from nothing else, and that it asks for what it imports and no more."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from fetcher import __version__

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
IMPORT_NAMES = {"faust-cchardet": "cchardet", "python-dateutil": "dateutil"}
"""Libraries whose import name is not their own with an underscore."""

RUNTIME_EXTRAS = sorted(set(PROJECT["optional-dependencies"]) - {"test", "dev", "all", "integration", "test-store"})


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def metadata(unpacked: Path) -> Message:
    return Parser().parsestr(
        (unpacked / f"fetcher_crawl-{__version__}.dist-info" / "METADATA").read_text(encoding="utf-8")
    )


def in_folder(folder: Path, pattern: str = "*") -> set[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob(pattern) if path.is_file())
    return {name for name in found if "__pycache__" not in name}


def test_the_package_is_in_it_and_nothing_else(unpacked: Path) -> None:
    data = f"fetcher_crawl-{__version__}.data"
    assert {path.name for path in unpacked.iterdir()} == {"fetcher", f"fetcher_crawl-{__version__}.dist-info", data}
    assert in_folder(unpacked / data) == {"data/share/man/man1/fetcher.1"}
    assert in_folder(unpacked / "fetcher") == in_folder(ROOT / "fetcher")
    assert "py.typed" in in_folder(unpacked / "fetcher")
    assert [name for name in in_folder(unpacked) if "test" in name.lower()] == []


def test_the_metadata_is_the_projects(metadata: Message, unpacked: Path) -> None:
    assert metadata["Name"] == "fetcher-crawl"
    assert metadata["Version"] == __version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    assert metadata.get_all("Provides-Extra") == sorted(PROJECT["optional-dependencies"])
    info = unpacked / f"fetcher_crawl-{__version__}.dist-info"
    assert "MIT License" in (info / "licenses" / "LICENSE").read_text(encoding="utf-8")
    assert "fetcher = fetcher.cli.main:main" in (info / "entry_points.txt").read_text(encoding="utf-8")


def run(unpacked: Path, folder: Path, *words: str) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(unpacked)}
    done = subprocess.run(
        [sys.executable, "-P", *words],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_runs_from_nothing_else(unpacked: Path, tmp_path: Path) -> None:
    where = run(unpacked, tmp_path, "-c", "import fetcher; print(fetcher.__file__)").strip()
    assert Path(where).is_relative_to(unpacked)
    assert run(unpacked, tmp_path, "-m", "fetcher", "--version") == f"fetcher, version {__version__}\n"
    lines = run(unpacked, tmp_path, "-m", "fetcher", "crawl", "--demo", "--limit", "20", "-q").splitlines()
    assert len(lines) == 20


def imported(folder: Path) -> set[str]:
    """The top-level names of all that the modules below ``folder`` import."""
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names


def declared(requirements: list[str]) -> set[str]:
    names = {re.split(r"[^\w.-]", requirement)[0].lower() for requirement in requirements}
    return {IMPORT_NAMES.get(name, name.replace("-", "_").partition(".")[0]) for name in names}


def test_the_dependencies_are_the_imports() -> None:
    extras = PROJECT["optional-dependencies"]
    optional = declared([each for extra in RUNTIME_EXTRAS for each in extras[extra]])
    taken = imported(ROOT / "fetcher") - set(sys.stdlib_module_names) - {"fetcher", "compression"} - optional
    assert taken == declared(PROJECT["dependencies"])


def test_every_optional_library_is_asked_for_somewhere() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "fetcher").rglob("*.py"))
    assert [
        name
        for extra in RUNTIME_EXTRAS
        for name in declared(PROJECT["optional-dependencies"][extra])
        if not re.search(rf"\b{name}\b", text)
    ] == []


def test_the_tests_ask_for_what_they_import() -> None:
    known = imported(ROOT / "fetcher") | declared(PROJECT["optional-dependencies"]["test"])
    known |= declared(PROJECT["optional-dependencies"]["integration"]) | {"jupyter_core", "nbformat"}  # theirs
    known |= declared(PROJECT["optional-dependencies"]["test-store"]) | {"boto3", "botocore", "werkzeug"}  # theirs
    known |= declared(PROJECT["optional-dependencies"]["speed"]) | set(sys.stdlib_module_names)
    assert imported(ROOT / "tests") | imported(ROOT / "examples") <= known | {"fetcher", "tests", "examples"}
