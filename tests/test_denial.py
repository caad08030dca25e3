"""A page that forbids its own use: which words count, and what becomes of the row."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from fetcher.page.denial import denied_by
from tests.lab.command import run
from tests.lab.exchange import Exchange
from tests.lab.server import LabServer


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread() as server:
        yield server


@pytest.mark.parametrize(
    ("said", "words", "word"),
    [
        ("noindex, nofollow", {"noindex"}, "noindex"),
        ("NoAI", {"noai", "noimageai"}, "noai"),
        ("none", {"noindex"}, "none"),
        ("none", {"noai"}, None),
        ("all", {"noindex"}, None),
        ("max-snippet:5, noai", {"noai"}, "noai"),
        ("unavailable_after: 25 Jun 2030 15:00:00 PST, noai", {"noai"}, "noai"),
        ("otherbot: noai", {"noai"}, None),
        ("otherbot: noarchive, noai", {"noai"}, None),
        ("otherbot: noai, us: noindex", {"noindex", "noai"}, "noindex"),
        ("US: noai", {"noai"}, "noai"),
        ("*: noai", {"noai"}, "noai"),
        ("noindexing", {"noindex"}, None),
        ("tdm-reservation", {"tdm-reservation"}, "tdm-reservation"),
        ("", {"noai"}, None),
    ],
)
def test_what_is_said_to_us(said: str, words: set[str], word: str | None) -> None:
    assert denied_by(said, words, "us") == word


def serve(lab: LabServer, *metas: str, headers: Sequence[tuple[str, str]] = ()) -> str:
    """Serve one page at a path of its own, and return its URL."""
    path = f"/page{len(lab.site.state)}"
    lab.site.state[path] = 1
    text = f"<title>t</title>{''.join(metas)}<p>body"

    async def reply(exchange: Exchange) -> None:
        await exchange.reply(text, headers=list(headers))

    lab.add(path, reply)
    return lab.url(path)


def test_a_page_that_forbids_its_use_is_not_kept(lab: LabServer, tmp_path: Path) -> None:
    urls = [
        serve(lab, '<meta name=robots content="noai, follow">'),
        serve(lab, '<meta name="tdm-reservation" content="1">'),
        serve(lab, '<meta name="tdm-reservation" content="0">'),
        serve(lab, headers=[("X-Robots-Tag", "otherbot: noai")]),
        serve(lab, headers=[("TDM-Reservation", "1")]),
        serve(lab, headers=[("X-Robots-Tag", "fetcher: noai")]),
    ]
    (tmp_path / "l.txt").write_text("\n".join(urls))
    words = "noai,tdm-reservation"
    done = run("crawl", "l.txt", "-f", "jsonl", "--skip-when", words, "--columns", "url,error,message,length,title",
               "--body", "inline", folder=tmp_path)  # fmt: skip
    found = {record["url"]: record for record in map(json.loads, done.lines)}
    denied = {0: "noai", 1: "tdm-reservation", 4: "tdm-reservation", 5: "noai"}
    for number, url in enumerate(urls):
        record = found[url]
        assert record["error"] == ("page_denied" if number in denied else None)
        assert (record["body"] is None) == (number in denied)
        if number in denied:
            assert record["message"] == f"the page says {denied[number]!r} of itself (--skip-when)"
            assert record["length"] > 10
    assert "6 rows = 2 ok + 0 failed + 4 skipped" in done.said
    assert done.code == 0


def test_a_page_that_is_not_kept_is_in_no_archive(lab: LabServer, tmp_path: Path) -> None:
    pytest.importorskip("fastwarc")
    urls = [serve(lab, "<meta name=robots content=noai>"), serve(lab, "<meta name=robots content=all>")]
    (tmp_path / "l.txt").write_text("\n".join(urls))
    assert run("crawl", "l.txt", "-o", "a.warc.gz", "--skip-when", "noai", folder=tmp_path).code == 0
    archive = gzip.decompress((tmp_path / "a.warc.gz").read_bytes())
    assert (b"content=noai" in archive, b"content=all" in archive) == (False, True)
    assert archive.count(b"page_denied") == 1


def test_without_words_every_page_is_kept(lab: LabServer, tmp_path: Path) -> None:
    url = serve(lab, '<meta name=robots content="noai">', "<meta name=TDM-reservation content=1>")
    (record,) = map(json.loads, run("crawl", url, "-f", "jsonl", folder=tmp_path).lines)
    assert (record["error"], record["robots"]) == (None, "noai, tdm-reservation")
