"""The crash marker outlives its process: it says which row was being parsed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fetcher.errors import LedgerError
from fetcher.job.crash_marker import MARKER_BYTES, CrashMarker
from tests.lab.command import ROOT


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "parsing")


def test_a_new_marker_suspects_nobody(path: str) -> None:
    marker = CrashMarker(path)
    assert marker.suspect == 0
    marker.close()
    assert Path(path).read_bytes() == bytes(MARKER_BYTES)


def test_what_is_marked_is_in_the_file_at_once(path: str) -> None:
    marker = CrashMarker(path)
    for row in (1, 2**40, 2**64 - 1, 0, 7):
        marker.mark(row)
        assert int.from_bytes(Path(path).read_bytes(), "little") == row
    marker.close()
    marker.close()
    assert CrashMarker(path).suspect == 0, "it was closed in good order"


def test_a_file_that_another_program_cuts_ends_nobody(path: str) -> None:
    """A mapped file would: SIGBUS. What is marked next is in it again."""
    marker = CrashMarker(path)
    for size in (0, 3):
        os.truncate(path, size)
        marker.mark(9)
        assert int.from_bytes(Path(path).read_bytes(), "little") == 9
    os.unlink(path)
    marker.mark(10)
    marker.close()


def test_a_system_without_pwrite_marks_as_well(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has neither ``pread`` nor ``pwrite``."""
    for name in ("pread", "pwrite"):
        monkeypatch.delattr(os, name)
    marker = CrashMarker(path)
    for row in (5, 2**63, 0, 6):
        marker.mark(row)
        assert int.from_bytes(Path(path).read_bytes(), "little") == row
    marker.abandon()
    again = CrashMarker(path)
    assert again.suspect == 6
    again.close()


def test_a_marker_that_cannot_be_written_is_named(path: str) -> None:
    marker = CrashMarker(path)
    marker.abandon()
    with pytest.raises(LedgerError, match=f"^{path}: cannot write: Bad file descriptor$"):
        marker.mark(1)


def test_what_was_not_looked_into_stays(path: str) -> None:
    marker = CrashMarker(path)
    marker.mark(7)
    marker.abandon()
    marker.abandon()
    again = CrashMarker(path)
    assert again.suspect == 7
    again.abandon()
    assert CrashMarker(path).suspect == 7


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_it_outlives_its_process(path: str) -> None:
    script = (
        "import os, sys; from fetcher.job.crash_marker import CrashMarker; "
        "marker = CrashMarker(sys.argv[1]); marker.mark(42); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script, path], cwd=ROOT, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert CrashMarker(path).suspect == 42


@pytest.mark.parametrize("content", [b"", b"\x05", b"\x05\0\0\0\0\0\0\0", b"\x05" + bytes(7) + b"and more"])
def test_a_file_of_another_length_is_taken_as_it_is(content: bytes, path: str) -> None:
    Path(path).write_bytes(content)
    marker = CrashMarker(path)
    assert marker.suspect == (5 if content else 0)
    marker.close()
    assert Path(path).read_bytes() == bytes(MARKER_BYTES) + content[MARKER_BYTES:]


def link(path: Path) -> None:
    (path.parent / "victim").write_bytes(b"precious")
    path.symlink_to(path.parent / "victim")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (link, "cannot open"),
        (lambda path: path.symlink_to(path.parent / "nowhere"), "cannot open"),
        (os.mkfifo, "is no file of a job: remove it"),
        (os.mkdir, "cannot open: Is a directory"),
    ],
    ids=["link", "dangling link", "FIFO", "folder"],
)
@pytest.mark.skipif(os.name != "posix", reason="these are POSIX's")
def test_only_a_regular_file_is_opened(spoil: Callable[[Path], object], said: str, path: str) -> None:
    spoil(Path(path))
    with pytest.raises(LedgerError) as caught:
        CrashMarker(path)
    assert str(caught.value).startswith(f"{path}: {said}")
    victim = Path(path).parent / "victim"
    assert not victim.exists() or victim.read_bytes() == b"precious"
    assert not (Path(path).parent / "nowhere").exists()


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "no" / "parsing")
    with pytest.raises(LedgerError, match=f"^{path}: cannot open: No such file or directory$"):
        CrashMarker(path)


@pytest.mark.parametrize(
    ("rows", "suspects", "suspect"),
    [([0], set(), 0), ([1], {1}, 1), ([0, 1, 0, 9], {1, 9}, 1), ([0] * 8, set(), 0)],
)
def test_the_rows_in_it_are_suspects(tmp_path: Path, rows: list[int], suspects: set[int], suspect: int) -> None:
    path = tmp_path / "parsing"
    path.write_bytes(b"".join(row.to_bytes(8, "little") for row in rows))
    marker = CrashMarker(str(path))
    assert (set(marker.suspects), marker.suspect) == (suspects, suspect)
    marker.close()
