"""Bodies in files of their own: their names, what is written of them when, and what a run leaves to the next one."""

from __future__ import annotations

import asyncio
import fcntl
import gzip
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from fetcher.errors import ConfigError, DNSError, SinkError
from fetcher.model import Failure, Outcome, Page, Request
from fetcher.sinks import body_folder
from fetcher.sinks.body_folder import EXTENSIONS, BodyFile, BodyFolder, check_body_folder, extension_of
from fetcher.sinks.body_sink import BodySink

HTML = b"<!doctype html><title>one</title>"
URL = "https://a.example/"


def page(body: bytes = HTML, kind: str | None = "text/html", charset: str | None = "utf-8", row: int = 1) -> Page:
    return Page(Request(row, URL), URL, 200, content_type=kind, charset=charset, body=body, bytes=len(body))


def placed(folder: BodyFolder, outcome: Outcome) -> tuple[Any, BodyFile]:
    outcome, file = asyncio.run(folder.place(outcome))
    assert file is not None
    return outcome, file


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[BodyFolder]:
    made = BodyFolder(tmp_path / "bodies", owner="a job")
    with closing(made):
        made.open()
        yield made


def stored(folder: BodyFolder, *pages: Page) -> list[Path]:
    """Store bodies and return their files."""
    placings = [placed(folder, each) for each in pages]
    folder.store([file for _, file in placings])
    return [Path(folder.path, outcome.body_path) for outcome, _ in placings]


# Names


def test_a_body_is_named_by_what_is_in_it(folder: BodyFolder) -> None:
    outcome, file = placed(folder, page())
    digest = hashlib.sha256(HTML).hexdigest()
    assert outcome.digest == f"sha256:{digest}"
    assert outcome.body_path == file.path == f"{digest[:2]}/{digest}.html.zst"
    assert outcome.body == HTML


@pytest.mark.parametrize(
    ("kind", "charset", "body", "extension"),
    [
        ("text/html", "utf-8", HTML, "html"),
        ("application/json", "utf-8", b"{}", "json"),
        ("application/ld+json", "utf-8", b"{}", "json"),
        ("application/rss+xml", "utf-8", b"<rss/>", "xml"),
        ("image/svg+xml", "utf-8", b"<svg/>", "svg"),
        ("text/x-anything", "utf-8", b"x", "txt"),
        (None, "utf-8", b"\n<!DOCTYPE HTML><p>", "html"),
        (None, "utf-8", b"x <html>", "txt"),
        ("image/png", None, b"\x89PNG", "png"),
        ("image/jpeg", None, b"\xff", "jpg"),
        ("application/pdf", None, b"%PDF-", "pdf"),
        ("application/octet-stream", None, b"\0", "bin"),
        ("application/x-anything+json", None, b"\0", "bin"),
        (None, None, b"\0", "bin"),
    ],
)
def test_the_extension_is_of_our_own_table(kind: str | None, charset: str | None, body: bytes, extension: str) -> None:
    assert extension_of(page(body, kind, charset)) == extension


@given(st.text(), st.sampled_from([None, "utf-8"]))
def test_no_type_that_a_server_names_is_part_of_a_path(kind: str, charset: str | None) -> None:
    for hostile in (kind, f"text/../../{kind}", f"image/png/../{kind}", f"../{kind}+json", f"x/y.{kind}\0"):
        assert extension_of(page(HTML, hostile, charset)) in {*EXTENSIONS.values(), "json", "xml", "txt", "bin"}


def test_every_extension_is_plain() -> None:
    assert all(extension.isalnum() and extension.islower() for extension in EXTENSIONS.values())


def test_a_failure_and_a_page_without_its_body_are_as_they_were(folder: BodyFolder) -> None:
    for outcome in (Failure(Request(1, URL), DNSError("dns_not_found")), Page(Request(1, URL), URL, 200)):
        assert asyncio.run(folder.place(outcome)) == (outcome, None)


def test_a_large_body_has_the_same_digest(folder: BodyFolder) -> None:
    body = bytes(body_folder.HASHED_HERE_BYTES + 1)
    assert placed(folder, page(body))[0].digest == f"sha256:{hashlib.sha256(body).hexdigest()}"


# Files


def test_text_is_compressed_and_nothing_else(folder: BodyFolder) -> None:
    picture = b"\x89PNG" + bytes(1000)
    html, png, archive = stored(
        folder, page(), page(picture, "image/png", None), page(b"\x1f\x8b", "application/gzip", None)
    )
    assert zstd.decompress(html.read_bytes()) == HTML
    assert png.read_bytes() == picture
    assert (archive.suffixes, archive.read_bytes()) == ([".gz"], b"\x1f\x8b")


def test_without_zstandard_text_is_gzip_and_a_gzip_file_is_left_alone(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(body_folder, "ZSTD_MODULES", ("there.is.none",))
    with closing(BodyFolder(tmp_path / "b")) as folder:
        folder.open()
        html, archive = stored(folder, page(), page(b"\x1f\x8b", "application/gzip", None))
    assert html.name.endswith(".html.gz")
    assert gzip.decompress(html.read_bytes()) == HTML
    assert archive.read_bytes() == b"\x1f\x8b"


def test_equal_bodies_are_one_file_that_is_written_once(folder: BodyFolder) -> None:
    (path,) = set(stored(folder, page(row=1)))
    before = path.stat()
    assert set(stored(folder, page(row=2), page(row=3))) == {path}
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_an_empty_body_is_a_file(folder: BodyFolder) -> None:
    html, binary = stored(folder, page(b""), page(b"", "image/png", None))
    assert zstd.decompress(html.read_bytes()) == b""
    assert binary.read_bytes() == b""


def test_a_file_that_was_emptied_is_written_again(folder: BodyFolder) -> None:
    (path,) = stored(folder, page())
    path.write_bytes(b"")
    stored(folder, page())
    assert zstd.decompress(path.read_bytes()) == HTML


def test_many_bodies_at_once_are_all_there_and_nothing_else(folder: BodyFolder) -> None:
    paths = stored(folder, *(page(b"%d" % n) for n in range(300)))
    assert [zstd.decompress(path.read_bytes()) for path in paths] == [b"%d" % n for n in range(300)]
    folder.close()
    assert len(files(Path(folder.path))) == 300
    assert not list(Path(folder.path).glob(".incoming-*"))


def test_the_mode_is_the_umasks(folder: BodyFolder) -> None:
    before = os.umask(0o027)
    try:
        (path,) = stored(folder, page())
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_body_is_synced_then_renamed_and_then_its_folder_is_synced(folder: BodyFolder, monkeypatch: Any) -> None:
    done: list[str] = []
    real = os.replace
    monkeypatch.setattr(body_folder, "sync", lambda descriptor: done.append("sync"))
    monkeypatch.setattr(body_folder, "sync_folder", lambda path: done.append(f"folder {Path(path).name}"))

    def replace(source: str, target: str) -> None:
        done.append("rename")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    (path,) = stored(folder, page())
    assert done == ["sync", "rename", f"folder {path.parent.name}", "folder bodies"]
    # One that is there may have been renamed by a run that was killed then.
    done.clear()
    stored(folder, page())
    assert done == [f"folder {path.parent.name}"]


def test_an_error_is_one_line_and_leaves_nothing_half_written(folder: BodyFolder, monkeypatch: Any) -> None:
    def full(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(body_folder, "write_all", full)
    with pytest.raises(SinkError, match=r"bodies/../\S+\.html\.zst: cannot write: No space left on device"):
        stored(folder, *(page(b"%d" % n) for n in range(50)))
    assert [name for name in files(Path(folder.path)) if not name.endswith("/lock")] == []


@pytest.mark.parametrize("what", ["file", "link"])
def test_what_is_no_folder_of_ours_is_named(what: str, folder: BodyFolder, tmp_path: Path) -> None:
    part = Path(folder.path, hashlib.sha256(HTML).hexdigest()[:2])
    if what == "file":
        part.write_text("mine")
    else:
        (tmp_path / "elsewhere").mkdir()
        part.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SinkError, match=rf"{part.name}: is no folder, and bodies go into one of that name"):
        stored(folder, page())
    with pytest.raises(ConfigError, match=rf"body: .*{part.name}: is no folder"):
        check_body_folder(folder.path)
    assert not (tmp_path / "elsewhere").exists() or not os.listdir(tmp_path / "elsewhere")


def test_a_folder_in_a_bodys_place_is_named(folder: BodyFolder) -> None:
    outcome, _ = placed(folder, page())
    Path(folder.path, outcome.body_path).mkdir(parents=True)
    with pytest.raises(SinkError, match="is no regular file"):
        stored(folder, page())


# Runs


def left_by_a_killed_run(folder: Path, name: str) -> Path:
    incoming = folder / f".incoming-{name}"
    incoming.mkdir(parents=True)
    (incoming / "lock").touch()
    (incoming / "torn.html.zst").write_bytes(b"to")
    return incoming


def test_what_killed_runs_were_writing_is_removed_and_what_live_ones_are_is_not(tmp_path: Path) -> None:
    place = tmp_path / "bodies"
    dead, alive = left_by_a_killed_run(place, "0" * 16), left_by_a_killed_run(place, "1" * 16)
    other = place / ".incoming-notes"
    other.mkdir()
    with open(alive / "lock") as lock, closing(BodyFolder(place, owner="a job")) as folder:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder.open()
        assert not dead.exists()
        assert sorted(path.name for path in alive.iterdir()) == ["lock", "torn.html.zst"]
        assert other.exists()


def test_a_job_finds_what_its_own_killed_run_left(tmp_path: Path) -> None:
    place = tmp_path / "bodies"
    with closing(BodyFolder(place, owner="a job")) as folder:
        folder.open()
        (incoming,) = place.glob(".incoming-*")
    left_by_a_killed_run(place, incoming.name.removeprefix(".incoming-"))
    with closing(BodyFolder(place, owner="a job")) as folder:
        folder.open()
        assert [path.name for path in incoming.iterdir()] == ["lock"]
        (path,) = stored(folder, page())
        assert path.exists()


def test_two_runs_share_a_folder(tmp_path: Path) -> None:
    with (
        closing(BodyFolder(tmp_path / "b", owner="one")) as one,
        closing(BodyFolder(tmp_path / "b", owner="two")) as two,
    ):
        one.open()
        two.open()
        bodies = [page(b"%d" % n) for n in range(100)]
        threads = [threading.Thread(target=stored, args=(each, *bodies)) for each in (one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(files(tmp_path)) == 100


def test_a_second_run_of_one_job_is_refused(folder: BodyFolder) -> None:
    with (
        closing(BodyFolder(folder.path, owner="a job")) as second,
        pytest.raises(SinkError, match="another run is writing"),
    ):
        second.open()


def test_one_that_is_missing_is_not_made_where_bodies_should_be(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="the folder of the bodies is missing"):
        BodyFolder(tmp_path / "bodies").open(create=False)
    assert not (tmp_path / "bodies").exists()


def test_a_link_to_a_folder_is_followed_and_one_to_nothing_is_not(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    with closing(BodyFolder(tmp_path / "link")) as folder:
        folder.open()
        stored(folder, page())
    assert len(files(tmp_path / "disk")) == 1
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(ConfigError, match="is a link to nothing"):
        check_body_folder(tmp_path / "link")


# Without a job


class Seen:
    """A sink that holds what it is given against the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[int] = []
        self.error: Exception | None = None

    async def __aenter__(self) -> Seen:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def write(self, outcome: Outcome) -> None:
        if self.error is not None:
            raise self.error
        if isinstance(outcome, Page):
            assert outcome.body_path is not None
            assert zstd.decompress((self.folder / outcome.body_path).read_bytes()) == outcome.body
        self.rows.append(outcome.request.id)


async def test_outcomes_are_handed_on_in_their_order_behind_their_bodies(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("fetcher.sinks.body_sink.BATCH_BYTES", 500)
    seen = Seen(tmp_path / "b")
    async with BodySink(BodyFolder(tmp_path / "b"), [seen]) as sink:
        for row in range(1, 200):
            await sink.write(page(b"%d" % (row // 2) * 10, row=row))
        await sink.write(Failure(Request(200, URL), DNSError("dns_not_found")))
    assert seen.rows == list(range(1, 201))


async def test_an_outcome_is_handed_on_though_no_other_comes(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("fetcher.sinks.body_sink.BATCH_SECONDS", 0.01)
    seen = Seen(tmp_path / "b")
    async with asyncio.timeout(30), BodySink(BodyFolder(tmp_path / "b"), [seen]) as sink:
        await sink.write(page())
        while not seen.rows:
            await asyncio.sleep(0.01)


async def test_what_a_sink_raises_is_raised_by_the_next_write(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("fetcher.sinks.body_sink.BATCH_ROWS", 1)
    seen = Seen(tmp_path / "b")
    seen.error = BrokenPipeError()
    with pytest.raises(BrokenPipeError):
        async with asyncio.timeout(30), BodySink(BodyFolder(tmp_path / "b"), [seen]) as sink:
            while True:
                await sink.write(page())


async def test_what_the_last_batch_raises_is_raised_at_the_end(tmp_path: Path) -> None:
    seen = Seen(tmp_path / "b")
    seen.error = SinkError("full")
    with pytest.raises(SinkError, match="full"):
        async with BodySink(BodyFolder(tmp_path / "b"), [seen]) as sink:
            await sink.write(page())
    assert not list((tmp_path / "b").glob(".incoming-*"))
