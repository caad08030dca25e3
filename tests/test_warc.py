"""Web archives: what the server sent is in them, byte for byte, and readers that are not ours take them."""

from __future__ import annotations

import asyncio
import gzip
import importlib.util
import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import brotli
import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from warcio.archiveiterator import ArchiveIterator as OtherIterator

from fetcher import Config, Fetcher, Job
from fetcher.errors import ConfigError
from fetcher.model import Failure, Message, Request, RetryDetails
from fetcher.pipeline import Outcomes
from fetcher.request_state import EARLIER_BYTES, current
from fetcher.sinks import check_output, format_of, open_sink
from fetcher.sinks.warc import surt_of
from tests.lab.command import run
from tests.lab.server import Exchange, LabServer, refused_port
from tests.test_secrets import COOKIE, HEADER, LISTED, TOKEN, USER, found_in
from tests.test_sinks import failure, page

DEADLINE = 30
WARCIO = "import sys; sys.modules['brotli'] = None; from warcio.cli import main; main(['check', sys.argv[1]])"
"""``warcio check``: it means to set an attribute of a brotli decompressor, and that of Google's library has no place for it."""


class Kept(NamedTuple):
    """A record: its type, its headers, and its block."""

    kind: str
    headers: dict[str, str]
    block: bytes

    @property
    def head(self) -> bytes:
        """The head of an HTTP message, with its empty line."""
        return self.block[: self.block.index(b"\r\n\r\n") + 4]

    @property
    def payload(self) -> bytes:
        return self.block[len(self.head) :]


def kept(data: bytes) -> list[Kept]:
    """Read an archive by fastwarc, its digests verified."""
    found = []
    for record in ArchiveIterator(io.BytesIO(data), parse_http=False):
        whole = "WARC-Block-Digest" in record.headers
        assert whole or record.headers["WARC-Payload-Digest"]
        assert record.verify_block_digest() or not whole
        links = [value for name, value in record.headers.items() if name == "WARC-Concurrent-To"]
        headers = dict(record.headers.items()) | {"links": " ".join(links)}
        found.append(Kept(headers["WARC-Type"], headers, record.reader.read()))
    return found


def checked(path: Path) -> list[Kept]:
    """Read an archive after ``warcio check`` has found no fault in it."""
    ended = subprocess.run([sys.executable, "-c", WARCIO, str(path)], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    with path.open("rb") as file:
        mine = [(record.rec_type, record.rec_headers["WARC-Record-ID"]) for record in OtherIterator(file)]
    found = kept(path.read_bytes())
    assert mine == [(record.kind, record.headers["WARC-Record-ID"]) for record in found]
    return found


def of_kind(kind: str, records: list[Kept]) -> list[Kept]:
    return [record for record in records if record.kind == kind]


def rows_of(records: list[Kept]) -> dict[int, dict[str, Any]]:
    """The rows: of each the last record counts."""
    return {row["id"]: row for row in (json.loads(record.block) for record in of_kind("metadata", records))}


@pytest.fixture
async def lab() -> AsyncIterator[LabServer]:
    async with LabServer() as server:
        yield server


@pytest.fixture(scope="module")
def served() -> Iterator[LabServer]:
    with LabServer.in_thread() as server:
        yield server


def serve(lab: LabServer, path: str, answer: bytes, *, close: bool = False) -> str:
    """Have ``answer`` sent as it is; return its URL."""

    async def send(exchange: Exchange) -> None:
        await exchange.send(answer)
        if close:
            exchange.close()

    lab.add(path, send)
    return lab.url(path)


async def archive(path: Path, *urls: str | Request, **options: Any) -> list[Kept]:
    """Fetch URLs into an archive and read that."""
    config = Config.of(robots=False, keep_messages=True, **{"retries": 0, **options})
    async with asyncio.timeout(DEADLINE), Fetcher(config) as fetcher:
        await fetcher.run(urls, open_sink(path))
    return checked(path)


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x;note=1\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b"")) + b""


HTML = b"<title>x</title>" + bytes(range(128, 256)) * 50
GZIP = gzip.compress(HTML)
BR = brotli.compress(HTML)

ANSWERS = {
    "plain": (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(HTML), HTML, HTML),
    "gzip": (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(GZIP), GZIP, GZIP,
    ),
    "br-chunked": (
        b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\nTRANSFER-Encoding: chunked\r\n\r\n", chunked(BR[:9], BR[9:]), BR,
    ),
    "8-bit": (
        "HTTP/1.1 200 Schön\r\nX-Ä: ü\r\nx-TITLE: \xff\xfe\r\nContent-Length: 1\r\n\r\n".encode("latin-1"), b"a", b"a",
    ),
    "repeated": (b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nB: 1\r\nSet-Cookie: b=2\r\nContent-Length: 1\r\n\r\n", b"a", b"a"),
    "empty": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", b""),
    "304": (b'HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: "x"\r\n\r\n', b"", b""),
    "404": (b"HTTP/1.1 404 Gone Away\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(GZIP), GZIP, GZIP),
    "interim": (b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n", b"a", b"a"),
    "mended": (b"HTTP/1.1  200 OK\r\nnonsense\r\nContent-Length : 1\r\n\r\n", b"a", b"a"),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_is_there_as_the_server_sent_it(name: str, lab: LabServer, tmp_path: Path) -> None:
    head, wire, payload = ANSWERS[name]
    url = serve(lab, "/page", head + wire)
    records = await archive(tmp_path / "a.warc.gz", url)
    assert [record.kind for record in records] == ["warcinfo", "request", "response", "metadata"]
    _, request, response, metadata = records
    assert response.payload == payload
    head = head.rpartition(b"\r\n\r\nHTTP")[2]
    sent = (b"HTTP" if not head.startswith(b"HTTP") else b"") + head
    for line in sent.split(b"\r\n"):
        name_, _, _ = line.lower().partition(b":")
        if name_.strip() not in (b"transfer-encoding", b"content-length"):
            assert line in response.head.split(b"\r\n")
    if name in ("plain", "gzip", "8-bit", "repeated", "empty", "404", "interim"):
        assert response.head == sent
    assert request.block.startswith(b"GET /page HTTP/1.1\r\nHost: ")
    assert request.block.endswith(b"\r\n\r\n")
    assert {record.headers["WARC-Target-URI"] for record in records[1:]} == {url}
    assert len({record.headers["WARC-Date"] for record in records[1:]}) == 1
    assert response.headers["WARC-IP-Address"] == "127.0.0.1"
    assert metadata.headers["links"] == response.headers["WARC-Record-ID"] == request.headers["links"]
    assert response.headers["links"] == request.headers["WARC-Record-ID"]
    assert "WARC-Truncated" not in response.headers
    assert rows_of(records)[1]["url"] == url


async def test_what_told_another_length_is_called_otherwise(lab: LabServer, tmp_path: Path) -> None:
    head, wire, _ = ANSWERS["br-chunked"]
    records = await archive(tmp_path / "a.warc.gz", serve(lab, "/page", head + wire))
    assert of_kind("response", records)[0].head == (
        b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\nX-Archive-Orig-TRANSFER-Encoding: chunked\r\n"
        b"Content-Length: %d\r\n\r\n" % len(BR)
    )
    head, wire, _ = ANSWERS["304"]
    records = await archive(tmp_path / "b.warc.gz", serve(lab, "/page", head + wire))
    assert b"X-Archive-Orig-Content-Length: 99\r\n" in of_kind("response", records)[0].head


async def test_a_body_until_the_end_needs_no_length(lab: LabServer, tmp_path: Path) -> None:
    answer = b"HTTP/1.0 200 OK\r\nServer: x\r\n\r\n"
    records = await archive(tmp_path / "a.warc.gz", serve(lab, "/page", answer + HTML, close=True))
    (response,) = of_kind("response", records)
    assert response.block == answer + HTML


async def test_each_hop_has_its_records(lab: LabServer, tmp_path: Path) -> None:
    records = await archive(tmp_path / "a.warc.gz", lab.url("/redirect?to=/redirect?to=/ok"))
    assert [record.kind for record in records] == ["warcinfo", *["request", "response"] * 3, "metadata"]
    responses = of_kind("response", records)
    assert [response.block[9:12] for response in responses] == [b"302", b"302", b"200"]
    assert records[-1].headers["links"].split() == [response.headers["WARC-Record-ID"] for response in responses]
    assert rows_of(records)[1]["redirects"] == [response.headers["WARC-Target-URI"] for response in responses[1:]]


# What is not whole


@pytest.mark.parametrize(("truncate", "error"), [(True, None), (False, "too_large")])
@pytest.mark.parametrize("packed", [True, False])
async def test_what_is_over_the_limit_is_marked(
    packed: bool, truncate: bool, error: str | None, lab: LabServer, tmp_path: Path
) -> None:
    body = os.urandom(400_000)
    coding = b"Content-Encoding: gzip\r\n" if packed else b""
    wire = gzip.compress(body) if packed else body
    url = serve(lab, "/page", b"HTTP/1.1 200 OK\r\n%bTransfer-Encoding: chunked\r\n\r\n%b" % (coding, chunked(wire)))
    records = await archive(tmp_path / "a.warc.gz", url, max_size=100_000, truncate=truncate)
    (response,) = of_kind("response", records)
    assert response.headers["WARC-Truncated"] == "length"
    assert wire.startswith(response.payload)
    assert 90_000 < len(response.payload) < 400_000
    assert b"\r\nContent-Length: %d\r\n" % len(response.payload) in response.head
    assert rows_of(records)[1]["error"] == error


async def test_what_was_broken_off_is_marked(lab: LabServer, tmp_path: Path) -> None:
    broken = serve(lab, "/broken", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", close=True)
    headless = serve(lab, "/headless", b"HTTP/1.1 200 OK\r\nContent-Le", close=True)

    async def silent(exchange: Exchange) -> None:
        await exchange.send(exchange.head(200, [("Content-Length", "9")]) + "ab")
        await exchange.gone()

    lab.add("/silent", silent)
    with refused_port() as port:
        urls = broken, headless, lab.url("/silent"), f"http://127.0.0.1:{port}/", "http://[/"
        records = await archive(tmp_path / "a.warc.gz", *urls, read_timeout=0.3)
    cut = {record.headers["WARC-Target-URI"]: record for record in of_kind("response", records)}
    assert {url: record.headers["WARC-Truncated"] for url, record in cut.items()} == {
        broken: "disconnect", lab.url("/silent"): "time",
    }  # fmt: skip
    assert cut[broken].payload == b"half"
    assert b"X-Archive-Orig-Content-Length: 100\r\n" in cut[broken].head
    assert {record.headers["WARC-Target-URI"] for record in of_kind("request", records)} == {*urls[:3]}
    assert len(rows_of(records)) == 5


async def test_a_coding_that_does_not_hold_leaves_what_came(lab: LabServer, tmp_path: Path) -> None:
    wrong = GZIP[:-8] + bytes(8)
    url = serve(
        lab, "/page", b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(wrong), wrong)
    )
    records = await archive(tmp_path / "a.warc.gz", url)
    assert of_kind("response", records)[0].payload == wrong
    assert rows_of(records)[1]["error"] == "bad_encoding"


# Secrets


def test_no_secret_is_in_an_archive(served: LabServer, tmp_path: Path) -> None:
    host = served.url("").removeprefix("http://")
    paths = ("/ok", "/status/404", "/redirect?to=/ok", "/reset")
    listed = [served.url(path).replace("//", f"//{LISTED}@") for path in paths] + [f"ftp://{LISTED}@h/"]
    (tmp_path / "list.txt").write_text("\n".join(listed))
    flags = [
        "-u", f"@{host} {USER}", "-b", f"@{host} {COOKIE}", "-H", f"@{host} X-Thing: {HEADER}",
        "-H", f"@{host} Accept-Token: {TOKEN}", "-H", f"X-Api-Token: {TOKEN}", "--retries", "0",
    ]  # fmt: skip
    ended = run("crawl", "list.txt", "-o", "a.warc.gz", *flags, folder=tmp_path)
    assert ended.code == 0, ended.said
    assert HEADER in str(served.requests("/ok")[0].headers)
    whole = gzip.decompress((tmp_path / "a.warc.gz").read_bytes())
    assert b"GET /ok HTTP/1.1" in whole
    assert found_in(whole) == []
    assert found_in((tmp_path / "a.cdxj").read_bytes()) == []
    for name in ("a.warc.gz", "a.cdxj"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


# As the output of a job


def crawl(folder: Path, *words: str) -> Any:
    return run("crawl", "list.txt", "-o", "a.warc.gz", "--retries", "0", *words, folder=folder)


def check_index(path: Path) -> list[str]:
    """Hold the index against the archive; return its keys."""
    data = path.read_bytes()
    lines = path.with_name("a.cdxj").read_text().splitlines()
    assert lines == sorted(lines)
    places = []
    for line in lines:
        _, timestamp, said = line.split(" ", 2)
        said = json.loads(said)
        member = data[int(said["offset"]) :][: int(said["length"])]
        (record,) = kept(member)
        assert (record.kind, record.headers["WARC-Target-URI"]) == ("response", said["url"])
        assert record.headers["WARC-Payload-Digest"] == said["digest"]
        assert (record.block[9:12].decode(), said["filename"], len(timestamp)) == (said["status"], path.name, 14)
        places.append(int(said["offset"]))
    responses = ArchiveIterator(io.BytesIO(data), record_types=WarcRecordType.response)
    assert sorted(places) == [record.stream_pos for record in responses]
    return [line.partition(" ")[0] for line in lines]


def test_a_job_goes_on_retries_and_begins_again(served: LabServer, tmp_path: Path) -> None:
    served.clear()
    path = tmp_path / "a.warc.gz"
    urls = [served.url(name) for name in ("/ok?1", "/flaky/again?fail=1", "/ok?3")]
    (tmp_path / "list.txt").write_text("\n".join(urls))
    assert crawl(tmp_path, "--limit", "1").code == 0
    first = path.read_bytes()
    assert crawl(tmp_path).code == 0
    second = path.read_bytes()
    assert second.startswith(first)
    rows = rows_of(checked(path))
    assert [(row, rows[row]["error"]) for row in sorted(rows)] == [(1, None), (2, "http_503"), (3, None)]
    assert len(check_index(path)) == 3
    again = crawl(tmp_path)
    assert "all rows were done already" in again.said
    assert path.read_bytes() == second
    ended = crawl(tmp_path, "--retry-failed")
    assert ended.code == 0, ended.said
    third = path.read_bytes()
    assert third.startswith(second)
    records = checked(path)
    assert [json.loads(record.block)["error"] for record in of_kind("metadata", records)].count("http_503") == 1
    assert {row: said["error"] for row, said in rows_of(records).items()} == {1: None, 2: None, 3: None}
    assert len(check_index(path)) == 4
    path.write_bytes(third[:-9] + b"otherwise")
    edited = crawl(tmp_path, "--retry-failed")
    assert edited.code == 1
    assert "a.warc.gz: was changed since" in edited.said
    assert crawl(tmp_path, "--fresh").code == 0
    assert len(rows_of(checked(path))) == len(check_index(path)) == 3


def test_an_index_that_is_another_is_not_overwritten(served: LabServer, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(served.url("/ok"))
    (tmp_path / "a.cdxj").write_text("mine")
    for words in ([], ["--no-job"]):
        ended = crawl(tmp_path, *words)
        assert ended.code == 2
        assert "a.cdxj exists; use --fresh to overwrite it" in ended.said
        assert (tmp_path / "a.cdxj").read_text() == "mine"
    assert crawl(tmp_path, "--fresh").code == 0
    check_index(tmp_path / "a.warc.gz")


def test_a_disk_that_is_full_leaves_whole_records(served: LabServer, tmp_path: Path) -> None:
    rows = [served.url(f"/random-bytes?{n}") for n in range(40)]

    async def send(exchange: Exchange) -> None:
        await exchange.reply(os.urandom(10_000))

    served.add("/random-bytes", send)
    (tmp_path / "list.txt").write_text("\n".join(rows))
    words = [sys.executable, "-m", "fetcher", "crawl", "list.txt", "-o", "a.warc.gz", "--no-robots"]
    limited = subprocess.run(
        ["bash", "-c", 'ulimit -f 200; exec "$@"', "bash", *words, "--rate", "40/s"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert limited.returncode == 1, limited.stderr
    assert "a.warc.gz: cannot write: File too large" in limited.stderr
    assert crawl(tmp_path).code == 0
    assert sorted(rows_of(checked(tmp_path / "a.warc.gz"))) == list(range(1, 41))


def test_to_a_pipe_it_is_the_same(served: LabServer, tmp_path: Path) -> None:
    ended = run("crawl", served.url("/ok"), "-f", "warc", folder=tmp_path)
    assert ended.code == 0
    (tmp_path / "a.warc.gz").write_bytes(ended.out)
    assert [record.kind for record in checked(tmp_path / "a.warc.gz")] == [
        "warcinfo",
        "request",
        "response",
        "metadata",
    ]
    assert not list(tmp_path.glob("*.cdxj"))


async def test_without_a_job_there_is_an_index_too(lab: LabServer, tmp_path: Path) -> None:
    await archive(tmp_path / "a.warc.gz", lab.url("/ok"), lab.url("/status/404"))
    assert len(check_index(tmp_path / "a.warc.gz")) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.cdxj", "a.warc.gz"]


async def test_an_archive_without_a_row_has_a_beginning(tmp_path: Path) -> None:
    async with Fetcher(Config.of(keep_messages=True)) as fetcher:
        async with Job(fetcher, tmp_path / "a.warc.gz") as job:
            await job.run([])
    assert [record.kind for record in checked(tmp_path / "a.warc.gz")] == ["warcinfo"]
    assert check_index(tmp_path / "a.warc.gz") == []


async def test_a_job_says_what_an_archive_needs(tmp_path: Path) -> None:
    async with Fetcher() as fetcher:
        with pytest.raises(ConfigError, match=r"Config\.of\(keep_messages=True\)"):
            Job(fetcher, tmp_path / "a.warc.gz")


def test_without_the_library_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for ask in (check_output, open_sink):
        with pytest.raises(ConfigError, match=r"fastwarc is not installed: pip install 'fetcher-crawl\[warc\]'"):
            ask(tmp_path / "a.warc.gz")


@pytest.mark.parametrize("name", ["a.warc", "a.warc.zst"])
def test_there_is_one_suffix(name: str) -> None:
    with pytest.raises(
        ConfigError, match=r"unknown suffix '\.warc' \(did you mean warc\.gz\?\): there are .*, and \.warc\.gz"
    ):
        format_of(name)


def test_an_archive_is_no_zst(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a WARC is compressed by gzip: name it \.warc\.gz"):
        check_output(tmp_path / "a.zst", format="warc")


async def test_a_row_without_messages_has_its_metadata(tmp_path: Path) -> None:
    async with open_sink(tmp_path / "a.warc.gz") as sink:
        await sink.write(page(1, "https://a.example/é ü"))
        await sink.write(failure())
    records = checked(tmp_path / "a.warc.gz")
    assert [record.kind for record in records] == ["warcinfo", "metadata", "metadata"]
    assert records[1].headers["WARC-Target-URI"] == "https://a.example/%C3%A9%20%C3%BC"


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://www.Example.com/A/b/?b=2&A=1", "com,example)/a/b?a=1&b=2"),
        ("http://192.168.1.254:8080/info/", "254,1,168,192:8080)/info"),
        ("http://example.com", "com,example)/"),
        ("http://[::1]:80/x", "::1)/x"),
        ("https://ex.com:443/?", "com,ex)/"),
        ("http://ex.com:8080/a%20b", "com,ex:8080)/a%20b"),
        ("http://www2.ex.com/", "com,ex)/"),
        ("http://ex.com/a?b=C&a", "com,ex)/a?a&b=c"),
        ("http://ex.com//a", "com,ex)/a"),
    ],
)
def test_keys_are_those_of_the_internet_archive(url: str, key: str) -> None:
    assert surt_of(url) == key  # what its own library says


# What is kept in memory


@asynccontextmanager
async def keeping(**options: Any) -> AsyncIterator[Fetcher]:
    config = Config.of(robots=False, keep_messages=True, **{"retries": 0, **options})
    async with asyncio.timeout(DEADLINE), Fetcher(config) as fetcher:
        yield fetcher


def inside(outcomes: object) -> Outcomes:
    assert isinstance(outcomes, Outcomes)
    return outcomes


def permits_of(fetcher: Fetcher) -> int:
    assert fetcher._transport is not None
    return fetcher._transport.make()._bodies._permits.free


async def test_nothing_is_kept_that_nobody_asks_for(lab: LabServer) -> None:
    async with Fetcher(Config.of(robots=False)) as fetcher:
        assert (await fetcher.fetch(lab.url("/redirect?to=/ok"))).messages == ()


async def test_a_failure_has_its_messages_too(lab: LabServer) -> None:
    async with keeping() as fetcher, fetcher.stream([lab.url("/status/404")]) as outcomes:
        (outcome,) = [outcome async for outcome in outcomes]
    assert isinstance(outcome, Failure)
    (message,) = outcome.messages
    assert isinstance(message, Message)
    assert message.response.startswith(b"HTTP/1.1 404 ")


async def test_a_row_that_waits_for_its_next_try_keeps_little_of_the_last(lab: LabServer) -> None:
    kept: list[tuple[bool, int]] = []

    def note(details: RetryDetails) -> None:
        messages = current.get().messages or []
        kept.append((current.get().holds_memory, sum(len(message.body) for message in messages)))

    config = Config.of(robots=False, keep_messages=True, accept="404", retry_on="200", retries=1, backoff=0)
    async with asyncio.timeout(DEADLINE), Fetcher(config, on_retry=note) as fetcher:
        async with fetcher.stream([lab.url("/ok?size=200000")]) as outcomes:
            (outcome,) = [outcome async for outcome in outcomes]
    assert isinstance(outcome, Failure)
    assert outcome.attempts == 2
    assert len(outcome.messages[-1].body) >= 200_000
    ((holds, size),) = kept
    assert not holds
    assert 0 < size <= EARLIER_BYTES


async def test_an_outcome_holds_its_memory_until_it_is_handed_out(lab: LabServer) -> None:
    urls = [lab.url(f"/big?mb=1&{n}") for n in range(9)]
    async with keeping(max_size="1M", memory="8M") as fetcher:
        assert permits_of(fetcher) == 4
        async with fetcher.stream(urls) as outcomes:
            await lab.until(lambda: permits_of(fetcher) == 0 and len(inside(outcomes)._ready) == 4)
            await asyncio.sleep(0.1)
            assert len(inside(outcomes)._ready) == 4
            assert len([outcome async for outcome in outcomes]) == 9
        assert permits_of(fetcher) == 4
        async with fetcher.stream(urls) as outcomes:
            await lab.until(lambda: permits_of(fetcher) == 0)
        assert permits_of(fetcher) == 4, "what was left is given back"


async def test_small_bodies_wait_for_the_reader_as_well(lab: LabServer) -> None:
    body = os.urandom(60_000)

    async def send(exchange: Exchange) -> None:
        await exchange.reply(body, kind="image/png")

    lab.add("/small", send)
    urls = [lab.url(f"/small?{n}", n % 3 + 1) for n in range(200)]
    async with keeping(max_size="1M", memory="4M", concurrency=10) as fetcher, fetcher.stream(urls) as outcomes:
        await lab.until(lambda: len(lab.requests("/small")) >= 25)
        await asyncio.sleep(0.3)
        # A quarter of the memory for small ones, a permit or two, and what is under way.
        assert len(inside(outcomes)._ready) <= 1_000_000 // 60_000 + 4
        assert len(lab.requests("/small")) <= 1_000_000 // 60_000 + 4 + 2 * 10
        assert len([outcome async for outcome in outcomes]) == 200


async def test_in_order_the_next_row_waits_for_nobody(lab: LabServer) -> None:
    first = asyncio.Event()

    async def late(exchange: Exchange) -> None:
        await first.wait()
        await exchange.reply(b"x" * 900_000)

    lab.add("/late", late)
    urls = [lab.url("/late"), *(lab.url(f"/big?mb=1&{n}", 2) for n in range(6))]
    async with keeping(max_size="1M", memory="4M", concurrency=10) as fetcher:
        async with fetcher.stream(urls, ordered=True) as outcomes:
            await lab.until(lambda: permits_of(fetcher) == 0)
            await lab.until(lambda: len(inside(outcomes)._held) == 2)
            first.set()
            assert [outcome.request.id async for outcome in outcomes] == list(range(1, 8))
        assert permits_of(fetcher) == 2


async def test_a_row_that_waits_already_is_let_on_when_its_turn_comes(lab: LabServer) -> None:
    async def late(exchange: Exchange) -> None:
        await lab_waits.wait()
        await exchange.reply(b"x")

    lab_waits = asyncio.Event()
    lab.add("/late", late)
    urls = [lab.url("/late"), *(lab.url(f"/big?mb=1&{n}", 2) for n in range(5))]
    async with keeping(max_size="1M", memory="2M", concurrency=10) as fetcher:
        async with fetcher.stream(urls, ordered=True) as outcomes:
            await lab.until(lambda: [row.stage for row in fetcher.in_flight()].count("waiting for memory") == 4)
            lab_waits.set()
            assert [outcome.request.id async for outcome in outcomes] == list(range(1, 7))
        assert permits_of(fetcher) == 1


async def test_who_reads_may_fetch_in_between(lab: LabServer) -> None:
    urls = [lab.url(f"/big?mb=1&{n}") for n in range(5)]
    async with keeping(max_size="1M", memory="2M") as fetcher, fetcher.stream(urls) as outcomes:
        async for outcome in outcomes:
            await lab.until(lambda: permits_of(fetcher) == 0 or outcomes.stats.done == 5)
            page_ = await fetcher.fetch(lab.url("/big?mb=1&more", 2))
            assert len(page_.messages[0].body) == 1_048_576
            assert outcome.ok


async def test_of_earlier_tries_nothing_is_kept_and_of_redirects_little(lab: LabServer) -> None:
    async def far(exchange: Exchange) -> None:
        await exchange.reply(b"x" * 30_000, 302, headers=[("Location", "/flaky/far?fail=1")])

    lab.add("/far", far)
    async with keeping(retries=2, backoff=0) as fetcher:
        page_ = await fetcher.fetch(lab.url("/far"))
    assert page_.attempts == 2
    assert [message.response[9:12] for message in page_.messages] == [b"302", b"200"]
    assert page_.messages[0].truncated == "length"
    assert sum(
        len(part) for part in (page_.messages[0].request, page_.messages[0].response, page_.messages[0].body)
    ) == (EARLIER_BYTES)


async def test_robots_txt_is_no_rows_message(lab: LabServer) -> None:
    config = Config.of(keep_messages=True, retries=0)
    async with Fetcher(config) as fetcher:
        page_ = await fetcher.fetch(lab.url("/ok"))
    assert [message.url for message in page_.messages] == [lab.url("/ok")]
    assert lab.requests("/robots.txt")
