"""What was read over the network, kept in the job: given again as it was, whatever ended the process at whichever byte."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from fetcher.errors import LedgerError, SourceError
from fetcher.job import kept_list
from fetcher.job.kept_list import KeptList
from fetcher.model import Request
from fetcher.sources.network import BrokenEntry, DelayedEntry, Entry
from fetcher.sources.rows import bad_row
from fetcher.sources.sitemap import Sitemap
from tests.lab.desk import plain
from tests.lab.open_files import open_files

FIRST: list[Entry] = [
    Request(0, "http://a/1", (), {"lastmod": "2024"}),
    Request(0, "http://a/\ud83d", (), {"half": "\ud83d", "line": "a\nb\u2028c"}),
    bad_row(0, "no url", "http://a/s.xml:3: is none", {"priority": "0.5"}),
    bad_row(0, "x" * 3_000, "http://a/s.xml:4: is long"),
    Sitemap("http://a/2.xml", robots=False),
    Sitemap("http://a/3.xml", guessed=True),
    BrokenEntry("http://a/s.xml:9: ends in the middle"),
]
SECOND: list[Entry] = [DelayedEntry("http://a/2.xml: http_503")]


@pytest.fixture(params=["zst", "gz"])
def suffix(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "gz":
        monkeypatch.setattr(kept_list, "ZSTD_MODULES", ("no_such_module",))
    else:
        pytest.importorskip("backports.zstd")
    return str(request.param)


def given(kept: KeptList, url: str, entries: Iterable[Entry]) -> list[Entry]:
    return list(kept.document(url, lambda: iter(entries)))


def never() -> Iterator[Entry]:
    pytest.fail("it was asked for again")


def again(kept: KeptList, url: str) -> list[Entry]:
    return list(kept.document(url, never))


def shown(entries: Iterable[Entry]) -> list[str]:
    return [repr(entry) for entry in entries]


def test_what_was_kept_is_given_again(tmp_path: Path, suffix: str) -> None:
    kept = KeptList(str(tmp_path))
    assert shown(given(kept, "http://a/s.xml", FIRST)) == shown(FIRST)
    assert shown(given(kept, "http://a/2.xml", SECOND)) == shown(SECOND)
    kept.close()
    path = tmp_path / f"list.jsonl.{suffix}"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert plain(path).count(b"\n") == len(FIRST) + len(SECOND) + 2
    kept = KeptList(str(tmp_path))
    assert shown(again(kept, "http://a/s.xml")) == shown(FIRST)
    assert shown(again(kept, "http://a/2.xml")) == shown(SECOND)
    assert given(kept, "http://a/3.xml", [Request(0, "http://a/3")]) == [Request(0, "http://a/3")]
    kept.close()


def test_one_file_is_open_until_it_is_closed(tmp_path: Path, suffix: str) -> None:
    kept = KeptList(str(tmp_path))
    for url in ("http://a/1.xml", "http://a/2.xml"):
        given(kept, url, SECOND)
        assert len(open_files(tmp_path)) == 1
    kept.close()
    kept.close()
    assert open_files(tmp_path) == []


def test_a_document_of_many_frames(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_list, "FRAME_BYTES", 100)
    monkeypatch.setattr(kept_list, "MAX_FRAME_BYTES", 150)  # law 3: a frame and the line that filled it, not the list
    many: list[Entry] = [Request(0, f"http://a/{number}") for number in range(1_000)]
    kept = KeptList(str(tmp_path))
    assert given(kept, "http://a/s.xml", many) == many
    kept.close()
    assert again(KeptList(str(tmp_path)), "http://a/s.xml") == many


@pytest.mark.parametrize("too_large", [False, True])
def test_a_frame_that_is_larger_than_any_of_ours_is_damaged(
    tmp_path: Path, suffix: str, too_large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = KeptList(str(tmp_path))
    large: list[Entry] = [Request(0, "http://a/" + "x" * 1_000)]
    given(kept, "http://a/s.xml", large)
    kept.close()
    line, _ = plain(tmp_path / f"list.jsonl.{suffix}").splitlines(keepends=True)
    monkeypatch.setattr(kept_list, "MAX_FRAME_BYTES", len(line) - too_large)
    kept = KeptList(str(tmp_path))
    if too_large:
        assert given(kept, "http://a/s.xml", FIRST[:1]) == FIRST[:1]  # asked for again
    else:
        assert again(kept, "http://a/s.xml") == large
    kept.close()


def test_a_kill_at_any_byte_loses_no_document_that_was_handed_out(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_list, "FRAME_BYTES", 60)
    path = tmp_path / f"list.jsonl.{suffix}"
    kept = KeptList(str(tmp_path))
    given(kept, "http://a/s.xml", FIRST)
    whole = path.stat().st_size
    given(kept, "http://a/2.xml", FIRST[:3])
    kept.close()
    data = path.read_bytes()
    new: list[Entry] = [Request(0, "http://a/new")]
    for cut in range(whole, len(data)):
        for tail in (b"", b"\0" * 50):  # a power cut may leave zeros
            if tail and not data[cut:].strip(b"\0"):
                continue  # what is missing is zeros
            path.write_bytes(data[:cut] + tail)
            kept = KeptList(str(tmp_path))
            assert shown(again(kept, "http://a/s.xml")) == shown(FIRST)
            assert given(kept, "http://a/2.xml", new) == new
            kept.close()
            kept = KeptList(str(tmp_path))
            again(kept, "http://a/s.xml")
            assert again(kept, "http://a/2.xml") == new
            kept.close()


def test_a_document_that_is_cut_while_it_is_read_is_told_of(tmp_path: Path, suffix: str) -> None:
    kept = KeptList(str(tmp_path))
    entries = kept.document("http://a/s.xml", lambda: iter(FIRST))
    os.truncate(kept.path, os.path.getsize(kept.path) - 1)
    with pytest.raises(LedgerError, match=r": was changed while it was read: "):
        list(entries)
    kept.close()


def test_nothing_is_handed_out_before_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    monkeypatch.setattr(kept_list, "sync", lambda _: steps.append("synced"))
    kept = KeptList(str(tmp_path))

    def produce() -> Iterator[Entry]:
        steps.append("read")
        yield FIRST[0]

    for _ in kept.document("http://a/s.xml", produce):
        steps.append("handed out")
    kept.close()
    assert steps == ["read", "synced", "handed out"]


def test_of_a_document_that_fails_nothing_is_kept(tmp_path: Path) -> None:
    def produce() -> Iterator[Entry]:
        yield FIRST[0]
        raise SourceError("http://a/s.xml: is not had")

    kept = KeptList(str(tmp_path))
    for _ in range(2):
        with pytest.raises(SourceError, match="is not had"):
            kept.document("http://a/s.xml", produce)
    assert given(kept, "http://a/s.xml", FIRST[:1]) == FIRST[:1]
    kept.close()


def test_another_document_at_its_place_is_refused(tmp_path: Path) -> None:
    kept = KeptList(str(tmp_path))
    given(kept, "http://a/s.xml", FIRST)
    kept.close()
    message = (
        r"^http://b/s.xml: is to be read, and this job has read http://a/s.xml at this place: begin again with --fresh"
    )
    with pytest.raises(SourceError, match=message):
        again(KeptList(str(tmp_path)), "http://b/s.xml")


def test_what_cannot_be_written_is_named_and_cut_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int, __: bytes) -> None:
        raise OSError(28, "No space left on device")

    kept = KeptList(str(tmp_path))
    given(kept, "http://a/s.xml", FIRST)
    (path,) = tmp_path.iterdir()
    before = path.read_bytes()
    with (
        monkeypatch.context() as patched,
        pytest.raises(LedgerError, match=r"cannot keep the list: No space left on device$"),
    ):
        patched.setattr(kept_list, "write_all", full)
        given(kept, "http://a/2.xml", FIRST)
    assert path.read_bytes() == before
    kept.close()


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    for suffix in ("zst", "gz"):
        os.mkdir(tmp_path / f"list.jsonl.{suffix}")
    with pytest.raises(LedgerError, match=r"list\.jsonl\.zst: cannot keep the list: "):
        given(KeptList(str(tmp_path)), "http://a/s.xml", FIRST)


def test_zstandard_that_is_not_installed_any_more_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("backports.zstd")
    kept = KeptList(str(tmp_path))
    given(kept, "http://a/s.xml", FIRST)
    kept.close()
    monkeypatch.setattr(kept_list, "ZSTD_MODULES", ("no_such_module",))
    with pytest.raises(LedgerError, match=r"pip install 'fetcher-crawl\[speed\]'"):
        again(KeptList(str(tmp_path)), "http://a/s.xml")


def test_once_closed_nothing_is_written(tmp_path: Path) -> None:
    kept = KeptList(str(tmp_path))
    given(kept, "http://a/s.xml", FIRST)
    (path,) = tmp_path.iterdir()
    before = path.read_bytes()

    def produce() -> Iterator[Entry]:
        yield FIRST[0]
        kept.close()
        yield FIRST[0]

    with pytest.raises(SourceError, match="the run has ended"):
        kept.document("http://a/2.xml", produce)
    assert path.read_bytes() == before
