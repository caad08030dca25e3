from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fetcher.errors import JobLocked, LedgerError
from fetcher.job.opening import Lock
from fetcher.spawn import environment

DEADLINE = 60

HOLDER = """
import sys
from fetcher.job.opening import Lock
lock = Lock(sys.argv[1])
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], env=environment(), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_lock_says_who_has_it_and_goes_back(tmp_path: Path) -> None:
    lock = Lock(str(tmp_path))
    lock.acquire()
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    lock.release()
    lock.release()
    again = Lock(str(tmp_path))
    again.acquire()
    again.release()


def test_a_second_live_process_is_named(tmp_path: Path) -> None:
    with hold(tmp_path) as holder:
        before = (tmp_path / "lock").read_bytes()
        for _ in range(2):
            with pytest.raises(JobLocked) as caught:
                Lock(str(tmp_path)).acquire()
            assert str(caught.value) == (
                f"{tmp_path}: another fetcher (process {holder.pid}) is working on it; wait for it or stop it"
            )
        assert (tmp_path / "lock").read_bytes() == before
        holder.communicate(timeout=DEADLINE)
    lock = Lock(str(tmp_path))
    lock.acquire()
    lock.release()


def test_who_holds_it_for_an_instant_alone_refuses_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a report does, which looks whether a run goes on."""
    other, pauses = Lock(str(tmp_path)), 0

    def sleep(seconds: float) -> None:
        nonlocal pauses
        pauses += 1
        assert 0 < seconds <= 0.1
        if pauses == 2:
            other.release()

    monkeypatch.setattr("fetcher.job.opening.time.sleep", sleep)
    other.acquire()
    lock = Lock(str(tmp_path))
    lock.acquire()
    lock.release()
    assert pauses == 2


def test_who_is_refused_hears_so_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other, pauses = Lock(str(tmp_path)), list[float]()
    monkeypatch.setattr("fetcher.job.opening.time.sleep", pauses.append)
    other.acquire()
    with pytest.raises(JobLocked):
        Lock(str(tmp_path)).acquire()
    other.release()
    assert sum(pauses) < 0.2


def test_a_lock_left_by_a_killed_process_refuses_nobody(tmp_path: Path) -> None:
    for _ in range(3):
        with hold(tmp_path) as holder:
            holder.send_signal(signal.SIGKILL)
            holder.communicate(timeout=DEADLINE)
        assert (tmp_path / "lock").read_text() == f"{holder.pid}\n"
    lock = Lock(str(tmp_path))
    lock.acquire()
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    lock.release()


def test_a_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    lock = Lock(str(tmp_path))
    lock.acquire()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False) as child:
        lock.release()
        again = Lock(str(tmp_path))
        again.acquire()
        again.release()
        child.kill()


@pytest.mark.parametrize(
    "content", [b"", b"99999999999999999999999999999999999999", b"-1\n", b"\x1b[2J\n", b"\xff" * 9_000]
)
def test_what_stands_in_it_is_not_trusted(tmp_path: Path, content: bytes) -> None:
    lock = Lock(str(tmp_path))
    lock.acquire()
    (tmp_path / "lock").write_bytes(content)
    with pytest.raises(JobLocked) as caught:
        Lock(str(tmp_path)).acquire()
    assert re.fullmatch(r".*: another fetcher( \(process \d{1,32}\))? is working on it; wait .*", str(caught.value))
    lock.release()
    lock.acquire()
    assert (tmp_path / "lock").read_bytes() == b"%d\n" % os.getpid()
    lock.release()


def test_a_lock_that_was_taken_away_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening and locking, whoever begins again may have put a new file in its place."""
    lock = Lock(str(tmp_path))
    opened: list[Any] = []
    open_file = lock._open

    def slow() -> int:
        opened.append(open_file())
        if len(opened) == 1:
            os.unlink(lock.path)
        return int(opened[-1])

    monkeypatch.setattr(lock, "_open", slow)
    lock.acquire()
    assert len(opened) == 2
    with pytest.raises(JobLocked):
        Lock(str(tmp_path)).acquire()
    lock.release()


def linked(path: Path) -> None:
    target = path.parent / "target"
    target.write_text("mine")
    path.symlink_to(target)


def test_no_link_is_followed(tmp_path: Path) -> None:
    linked(tmp_path / "lock")
    with pytest.raises(LedgerError, match=r"lock: is no regular file"):
        Lock(str(tmp_path)).acquire()
    assert (tmp_path / "target").read_text() == "mine"


def test_a_link_to_nowhere_makes_nothing(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "made")
    with pytest.raises(LedgerError, match=r"lock: is no regular file"):
        Lock(str(tmp_path)).acquire()
    assert not (tmp_path / "made").exists()


def test_a_fifo_in_its_place_holds_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(LedgerError, match=r"lock: is no regular file"):
        Lock(str(tmp_path)).acquire()


@pytest.mark.parametrize("folder", ["nowhere", "file"])
def test_a_place_where_no_file_can_be_is_named(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match=rf"{folder}/lock: cannot lock the job: .* run the same command again"):
        Lock(str(tmp_path / folder)).acquire()


def test_a_folder_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(LedgerError, match=r"lock: cannot lock the job: Is a directory"):
        Lock(str(tmp_path)).acquire()


@pytest.mark.parametrize("call", ["write", "ftruncate", "lseek", "lstat"])
def test_a_failure_is_told_and_gives_the_lock_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*words: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(f"fetcher.job.opening.os.{call}", fail)
        if call == "lstat":
            patched.setattr("fetcher.job.opening.os.path.islink", lambda path: False)
        with pytest.raises(LedgerError, match=r"lock: cannot lock the job: No space left on device"):
            Lock(str(tmp_path)).acquire()
    lock = Lock(str(tmp_path))
    lock.acquire()
    lock.release()
