from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from fetcher.files import (
    READ_BYTES,
    NotRegularFileError,
    create_like,
    is_locked,
    move,
    open_regular,
    read_range,
    sync,
    sync_file,
    sync_folder_of,
    try_lock,
    write_all,
)

DEADLINE = 30.0


def fails(code: int) -> Any:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    return fail


# Opened


def test_a_regular_file_is_opened_and_made(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with open(open_regular(str(path), os.O_RDWR | os.O_CREAT), "wb") as file:
        file.write(b"one")
    with open(open_regular(str(path), os.O_RDONLY), "rb") as file:
        assert file.read() == b"one"
    assert stat.S_IMODE(path.stat().st_mode) & 0o111 == 0
    with pytest.raises(FileNotFoundError):
        open_regular(str(tmp_path / "b"), os.O_RDWR)


@pytest.mark.parametrize("place", [lambda path: os.mkfifo(path), lambda path: os.mkdir(path)], ids=["fifo", "folder"])
def test_what_is_no_regular_file_is_refused_and_holds_nobody(tmp_path: Path, place: Any) -> None:
    path = str(tmp_path / "a")
    place(path)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(NotRegularFileError, match="Not a regular file"):
        open_regular(path, os.O_RDONLY)
    assert os.listdir("/proc/self/fd") == before


def test_a_link_is_followed_only_where_that_is_asked_for(tmp_path: Path) -> None:
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        open_regular(str(link), os.O_RDWR | os.O_CREAT)
    assert not target.exists()
    os.close(open_regular(str(link), os.O_RDWR | os.O_CREAT, follow_links=True))
    assert target.exists()
    link.unlink()
    link.symlink_to("/dev/null")
    with pytest.raises(NotRegularFileError):
        open_regular(str(link), os.O_RDONLY, follow_links=True)


def test_a_file_is_made_like_another_in_place_of_what_is_there(tmp_path: Path) -> None:
    path, victim = tmp_path / "a", tmp_path / "victim"
    victim.write_bytes(b"mine")
    victim.chmod(0o604)
    path.symlink_to(victim)
    os.close(create_like(str(path), victim.stat()))
    assert victim.read_bytes() == b"mine"
    assert not path.is_symlink()
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"", 0o604)


# Locked


def test_a_lock_is_one_opener_s_until_it_closes(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    first, second, third = (open_regular(path, os.O_RDWR | os.O_CREAT) for _ in range(3))
    assert not is_locked(second)
    assert try_lock(first), "looking has left no lock behind"
    assert is_locked(second)
    assert not try_lock(second)
    assert not try_lock(second, shared=True)
    os.close(first)
    assert try_lock(second, shared=True)
    assert try_lock(third, shared=True)
    assert not is_locked(second)
    os.close(second)
    os.close(third)


def test_a_lock_goes_with_its_process(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    code = (
        "import os, sys\nfrom fetcher.files import open_regular, try_lock\n"
        "assert try_lock(open_regular(sys.argv[1], os.O_RDWR | os.O_CREAT))\nprint(flush=True)\ninput()"
    )
    command = [sys.executable, "-c", code, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        descriptor = open_regular(path, os.O_RDWR)
        assert is_locked(descriptor)
        process.kill()
        process.wait(DEADLINE)
    assert try_lock(descriptor)
    os.close(descriptor)


def test_a_lock_that_cannot_be_tried_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptor = open_regular(str(tmp_path / "lock"), os.O_RDWR | os.O_CREAT)
    monkeypatch.setattr("fcntl.flock", fails(errno.ENOLCK))
    for attempt in (try_lock, is_locked):
        with pytest.raises(OSError, match="No locks available"):
            attempt(descriptor)
    os.close(descriptor)


# Read and written


@pytest.mark.parametrize("size", [0, 1, READ_BYTES, 2 * READ_BYTES + 5])
def test_a_range_is_read_in_blocks(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)
    descriptor = open_regular(str(tmp_path / "a"), os.O_RDONLY)
    for start, end in ((0, size), (size // 2, size), (0, size + 100), (size, size), (3, 2)):
        blocks = list(read_range(descriptor, start, end))
        assert b"".join(blocks) == data[start:end]
        assert all(0 < len(block) <= READ_BYTES for block in blocks)
    os.close(descriptor)


@pytest.mark.parametrize("blocking", [True, False])
def test_all_is_written_however_little_a_pipe_takes(blocking: bool) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, blocking)
    data = os.urandom(1_000_000)

    def write() -> None:
        write_all(writer, data)
        os.close(writer)

    thread = threading.Thread(target=write)
    thread.start()
    with open(reader, "rb") as file:
        assert file.read() == data
    thread.join(DEADLINE)


# Synced and moved


def test_a_sync_that_fails_names_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.touch()
    sync_file(str(path))
    sync_folder_of(str(path))
    monkeypatch.setattr(os, "fsync", fails(errno.EIO))
    for act, name in ((sync_file, path), (sync_folder_of, tmp_path)):
        with pytest.raises(OSError, match="Input/output error") as caught:
            act(str(path))
        assert caught.value.filename == str(name)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_without_a_sync_of_folders_will_do(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", fails(code))
    sync_folder_of(str(tmp_path / "a"))


def test_a_folder_that_may_not_be_read_is_synced_with_all_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    monkeypatch.setattr(os, "open", fails(errno.EACCES))  # the superuser may read any
    monkeypatch.setattr(os, "sync", lambda: synced.append(True))
    sync_folder_of(str(tmp_path / "a"))
    assert synced == [True]


def test_the_folder_that_is_synced_is_the_real_file_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far" / "a")
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    sync_folder_of(str(tmp_path / "link"))
    assert synced == [str(tmp_path / "far")]


@pytest.mark.parametrize("border", [False, True])
def test_a_file_is_moved_at_one_stroke_and_for_good(
    tmp_path: Path, border: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "from" / "a", tmp_path / "to" / "b"
    for path in (source, target):
        path.parent.mkdir()
        path.write_bytes(path.name.encode())
    source.chmod(0o604)
    calls: list[str] = []
    replace = os.replace

    def replaced(one: str, other: str) -> None:
        if border and Path(one).parent != Path(other).parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        assert target.read_bytes() == b"b"
        replace(one, other)
        calls.append("replace")

    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(os, "fsync", lambda at: calls.append(Path(os.readlink(f"/proc/self/fd/{at}")).name))
    move(str(source), str(target))
    assert calls == [*([".b.rewrite"] if border else []), "replace", "to", "from"]
    assert (target.read_bytes(), stat.S_IMODE(target.stat().st_mode)) == (b"a", 0o604)
    assert [*source.parent.iterdir(), *target.parent.iterdir()] == [target]


def test_a_folder_is_synced_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").touch()
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    move(str(tmp_path / "a"), str(tmp_path / "b"))
    assert len(synced) == 1


# To the disk


class Fcntl:
    """A system call that is asked for what macOS alone has."""

    F_FULLFSYNC = 51

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.asked: list[tuple[int, int]] = []

    def fcntl(self, descriptor: int, command: int) -> int:
        self.asked.append((descriptor, command))
        if self.code:
            raise OSError(self.code, os.strerror(self.code))
        return 0


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fcntl")
@pytest.mark.parametrize("code", [0, errno.ENOTSUP, errno.EINVAL, errno.ENOTTY])
def test_macos_is_asked_to_wait_for_the_medium(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    system, plain = Fcntl(code), list[int]()
    monkeypatch.setattr("fetcher.files.fcntl", system)
    monkeypatch.setattr(os, "fsync", plain.append)
    sync(7)
    assert system.asked == [(7, 51)]
    assert plain == ([7] if code else []), "a file system that does not know it is synced as elsewhere"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fcntl")
def test_a_medium_that_fails_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fetcher.files.fcntl", Fcntl(errno.EIO))
    monkeypatch.setattr(os, "fsync", lambda _: pytest.fail("it would say that all is well"))
    with pytest.raises(OSError, match="Input/output error"):
        sync(7)


def test_all_that_is_synced_is_synced_that_way() -> None:
    """``os.fsync`` stands in one place."""
    root = Path(__file__).resolve().parents[1] / "fetcher"
    calls = [path.name for path in root.rglob("*.py") for line in path.read_text().splitlines() if "os.fsync(" in line]
    assert calls == ["files.py"]
