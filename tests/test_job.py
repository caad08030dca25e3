"""Jobs in the library: a list into files, interrupted in every way a program can, and gone on with."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import json
import os
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import fetcher.job.opening
import fetcher.job.writer
from fetcher import Config, ConfigError, Fetcher, FetchError, Request, Response, SinkError, SourceError
from fetcher.errors import (
    ConnectError,
    DNSError,
    FetchTimeout,
    JobLocked,
    LedgerError,
    ParseError,
    ProtocolError,
    RedirectError,
    StatusError,
    TLSError,
    TooLarge,
)
from fetcher.job.job import Job
from fetcher.job.ledger import Ledger
from fetcher.job.paths import clear_job
from fetcher.job.report import report
from fetcher.job.resume import ResumeState
from fetcher.model import Page
from fetcher.sinks import DurableFile
from tests.lab.desk import plain
from tests.lab.open_files import open_files

DEADLINE = 60.0


class Web:
    """A transport without a network: ``trouble`` says what a URL raises, ``asked`` what was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.trouble: dict[str, Exception] = {}
        self.holding: dict[str, asyncio.Event] = {}

    async def __call__(self, request: Request) -> Response:
        name = request.url.rpartition("/")[2]
        self.asked.append(name)
        if name in self.holding:
            await self.holding[name].wait()
        if name in self.trouble:
            raise self.trouble[name]
        body = f"<title>{name}</title>".encode()
        return Response(request, request.url, 200, (("content-type", "text/html"),), body)

    def taken(self) -> list[str]:
        """Return what was asked for since the last time, sorted."""
        asked, self.asked = sorted(self.asked), []
        return asked


@pytest.fixture
def web() -> Web:
    return Web()


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "pages.jsonl"


def urls(names: str) -> list[str]:
    return [f"http://127.0.0.1/{name}" for name in names]


@asynccontextmanager
async def opened(web: Web, **options: Any) -> AsyncIterator[Fetcher]:
    options = {"retries": 0, "per_host": 50, "robots": False, **options}  # each request is a row's
    config = Config.of(**options)
    async with asyncio.timeout(DEADLINE), Fetcher(config, transport=web) as fetcher:
        yield fetcher


async def run(web: Web, output: Path, names: str, job: dict[str, Any] | None = None, **options: Any) -> Job:
    """Run a job to its end and return it."""
    async with opened(web, **options) as fetcher, Job(fetcher, output, **(job or {})) as running:
        await running.run(urls(names))
    return running


def records(output: Path) -> dict[str, str | None]:
    """Return the pages of an output by name, with their errors; no row may be there twice."""
    found = [json.loads(line) for line in plain(output).splitlines()]
    assert len({record["id"] for record in found}) == len(found)
    return {record["url"].rpartition("/")[2]: record["error"] for record in found}


def pages(names: str) -> dict[str, None]:
    return dict.fromkeys(names)


async def test_a_job_goes_on_where_the_last_one_ended(web: Web, output: Path) -> None:
    first = await run(web, output, "abcde", limit=2)
    assert not first.resume_state.resumed
    assert (first.stats.input, first.stats.ok, first.stats.more) == (2, 2, False)
    second = await run(web, output, "abcde")
    assert (second.resume_state.resumed, second.resume_state.done, second.resume_state.ok) == (True, 2, 2)
    assert (second.stats.input, second.stats.ok, second.stats.pending) == (5, 5, 0)
    assert web.taken() == [*"abcde"]
    assert records(output) == pages("abcde")
    third = await run(web, output, "abcde")
    assert (third.stats.done, third.resume_state.done) == (5, 5)
    assert web.taken() == []


async def test_the_folder_is_beside_the_first_output_or_where_it_is_told(web: Web, output: Path) -> None:
    async with opened(web) as fetcher:
        assert Job(fetcher, output).directory == f"{output}.job"
        assert Job(fetcher, str(output), "b.csv").directory == f"{output}.job"
        job = Job(fetcher, output, directory=output.parent / "state")
        async with job:
            await job.run(urls("a"))
    assert sorted(path.name for path in (output.parent / "state").iterdir()) == ["ledger.sqlite", "lock", "parsing"]
    assert not Path(f"{output}.job").exists()


async def test_the_list_may_be_asynchronous_and_of_requests(web: Web, output: Path) -> None:
    async def listed(names: str) -> AsyncIterator[Request]:
        for number, name in enumerate(names, 1):
            yield Request(10 * number, f"http://127.0.0.1/{name}", fields={"name": name}, tag=object())

    for names in ("ab", "abcd"):
        async with opened(web) as fetcher, Job(fetcher, output) as job:
            await job.run(listed(names))
        assert records(output) == pages(names)
    assert web.taken() == [*"abcd"]


async def test_one_fetcher_may_have_one_job_after_another(web: Web, tmp_path: Path) -> None:
    async with opened(web) as fetcher:
        for name in ("one.jsonl", "two.jsonl", "one.jsonl"):
            async with Job(fetcher, tmp_path / name) as job:
                await job.run(urls("ab"))
            assert (await fetcher.fetch("http://127.0.0.1/c")).ok, "its crash marker is gone: nothing may be marked"
    assert web.taken() == [*"aabbccc"]


async def test_several_outputs_with_columns_of_their_own(web: Web, tmp_path: Path) -> None:
    def listed(names: str) -> Iterator[Request]:
        for number, name in enumerate(names, 1):
            yield Request(number, f"http://127.0.0.1/{name}", fields={"name": name, "n": number})

    outputs = [tmp_path / "a.jsonl.gz", tmp_path / "b.csv", tmp_path / "c.txt"]
    for names in ("ab", "abc"):
        async with opened(web, select=["t=title"]) as fetcher, Job(fetcher, *outputs, fields=["name"]) as job:
            await job.run(listed(names))
    assert records(outputs[0]) == pages("abc")
    with open(outputs[1], newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], row["fields"], row["t"]) for row in rows] == [
        (name, json.dumps({"n": number}).replace(" ", ""), name) for number, name in enumerate("abc", 1)
    ]
    assert outputs[2].read_text().count("->") == 3


# How it may end


async def test_leaving_early_keeps_what_was_handed_over(web: Web, output: Path) -> None:
    async with opened(web) as fetcher, Job(fetcher, output) as job:
        async with fetcher.stream(job.left(urls("abcdef")), stats=job.stats) as outcomes:
            async for outcome in outcomes:
                await job.write(outcome)
                if job.stats.done == 3:
                    break
    kept = records(output)
    assert len(kept) == 3
    web.taken()
    again = await run(web, output, "abcdef")
    assert again.resume_state.done == 3
    assert records(output) == pages("abcdef")
    assert set(web.taken()) == {*"abcdef"} - kept.keys()


class Trouble(Exception):
    """Somebody's own."""


async def test_a_bug_in_the_block_keeps_what_was_handed_over(web: Web, output: Path) -> None:
    def broken() -> Iterator[str]:
        yield from urls("ab")
        raise Trouble

    with pytest.raises(Trouble):
        async with opened(web) as fetcher, Job(fetcher, output) as job:
            await job.run(broken())
    done = records(output)
    assert done.keys() <= {*"ab"}
    web.taken()
    await run(web, output, "abc")
    assert records(output) == pages("abc")
    assert set(web.taken()) == {*"abc"} - done.keys()


async def test_a_list_that_breaks_keeps_what_was_read(web: Web, output: Path) -> None:
    def broken() -> Iterator[str]:
        yield from urls("ab")
        raise SourceError("l.txt:3: torn")

    with pytest.raises(SourceError, match="torn"):
        async with opened(web) as fetcher, Job(fetcher, output) as job:
            await job.run(broken())
    assert records(output) == pages("ab")
    assert job.stats.more
    web.taken()
    await run(web, output, "abc")
    assert web.taken() == ["c"]


async def test_a_changed_list_is_a_source_error(web: Web, output: Path) -> None:
    await run(web, output, "abc")
    web.taken()
    with pytest.raises(SourceError, match=r"^row 2 of the list is another than the one this job has fetched: "):
        await run(web, output, "axc")
    with pytest.raises(SourceError, match=r"^the list ends at row 2, and this job has fetched row 3 of it: "):
        await run(web, output, "ab")
    assert web.taken() == []
    assert records(output) == pages("abc")


async def test_a_cancelled_job_can_be_gone_on_with(web: Web, output: Path) -> None:
    web.holding["x"] = asyncio.Event()
    async with opened(web) as fetcher:

        async def work() -> None:
            async with Job(fetcher, output) as job:
                await job.run(urls("abx"))

        task = asyncio.create_task(work())
        while len(web.asked) < 3:
            await asyncio.sleep(0)
        for _ in range(50):  # the other two are handed over
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert records(output) == pages("ab")
        web.holding.clear()
        web.taken()
        async with Job(fetcher, output) as job:
            await job.run(urls("abx"))
    assert web.taken() == ["x"]


@pytest.mark.parametrize("turns", range(1, 9))
async def test_a_job_that_is_cancelled_while_it_opens_holds_nothing(web: Web, output: Path, turns: int) -> None:
    async with opened(web) as fetcher:

        async def work() -> None:
            async with Job(fetcher, output) as job:
                await job.run(urls("ab"))

        task = asyncio.create_task(work())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # The lock is free, and what was begun goes on.
        async with Job(fetcher, output) as job:
            await job.run(urls("ab"))
    assert records(output) == pages("ab")


async def test_stopping_leaves_the_rest_for_the_next(web: Web, output: Path) -> None:
    web.holding["x"] = asyncio.Event()
    async with opened(web) as fetcher, Job(fetcher, output) as job:
        running = asyncio.create_task(job.run(urls("abxy")))
        while len(web.asked) < 4:
            await asyncio.sleep(0)
        fetcher.stop(0)
        stats = await running
    assert stats.input == stats.done + stats.pending
    assert stats.pending
    web.holding.clear()
    await run(web, output, "abxy")
    assert records(output) == pages("abxy")


async def test_no_thread_outlives_its_job(web: Web, output: Path) -> None:
    await run(web, output, "a")
    with pytest.raises(ConfigError):
        await run(web, output, "a", dedupe=True)
    for thread in threading.enumerate():
        if thread.name.startswith("fetcher-job"):
            await asyncio.to_thread(thread.join, DEADLINE)
            assert not thread.is_alive()


# Only one, and only on its own terms


async def test_a_second_job_in_one_process_is_refused(web: Web, output: Path) -> None:
    async with opened(web) as fetcher:
        async with Job(fetcher, output) as first:
            with pytest.raises(JobLocked, match=rf"^{output}\.job: another fetcher \(process \d+\) is working on it"):
                async with Job(fetcher, output):
                    pass
            await first.run(urls("a"))
        async with Job(fetcher, output):
            pass


@pytest.mark.parametrize(
    ("options", "job", "said"),
    [
        ({"dedupe": True}, {}, "--dedupe was off when this job began, and is on: "),
        ({"accept": "2xx,404"}, {}, "--accept was 200-299 when this job began, and is 200-299,404: "),
        ({}, {"inputs": ["m.txt"]}, "INPUT 1 was l.txt when this job began, and is m.txt: "),
        ({}, {"inputs": []}, "INPUT 1 was l.txt when this job began, and is not given: "),
        ({}, {"inputs": ["l.txt"], "format": "csv"}, "the format of -o was jsonl when this job began, and is csv: "),
    ],
)
async def test_terms_that_changed_are_refused(
    web: Web, output: Path, options: dict[str, Any], job: dict[str, Any], said: str
) -> None:
    await run(web, output, "a", {"inputs": ["l.txt"]})
    before = output.read_bytes()
    with pytest.raises(ConfigError) as caught:
        await run(web, output, "a", {"inputs": ["l.txt"], **job}, **options)
    assert str(caught.value).startswith(said)
    assert output.read_bytes() == before
    await run(web, output, "a", {"inputs": ["l.txt"]})
    await run(web, output, "a", {"inputs": ["m.txt"], "fresh": True}, dedupe=True)


@pytest.mark.parametrize(
    ("outputs", "options", "said"),
    [
        ([], {}, "a job needs an output"),
        (["-"], {}, "standard output: a job writes to regular files alone"),
        (["/dev/null"], {}, "/dev/null: a job writes to regular files alone"),
        (["a.xml"], {}, "a.xml: unknown suffix"),
        (["a.jsonl"], {"format": "xml"}, "unknown format 'xml'"),
        (["a.jsonl"], {"retry": ["nope"]}, "'nope' is neither a code nor a class"),
    ],
)
async def test_a_job_that_cannot_be_is_told_before_anything_is_made(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, outputs: list[str], options: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    async with opened(web) as fetcher:
        with pytest.raises(ConfigError) as caught:
            Job(fetcher, *outputs, **options)
    assert str(caught.value).startswith(said)
    assert list(tmp_path.iterdir()) == []


async def test_a_file_of_somebody_else_is_not_taken(web: Web, output: Path) -> None:
    output.write_bytes(b"mine\n")
    with pytest.raises(ConfigError, match=r"exists; use --fresh to overwrite it$"):
        await run(web, output, "a")
    assert output.read_bytes() == b"mine\n"
    await run(web, output, "a", {"fresh": True})
    assert records(output) == pages("a")


# Failures


KINDS: dict[str, FetchError] = {
    "dns": DNSError("dns_not_found"),
    "connect": ConnectError("connect_refused"),
    "tls": TLSError("tls_verify"),
    "timeout": FetchTimeout("too_slow"),
    "protocol": ProtocolError("bad_encoding"),
    "redirect": RedirectError("redirect_limit"),
    "parse": ParseError("parse_crash"),
    "4xx": StatusError(404),
    "5xx": StatusError(503),
    "too_large": TooLarge(),
}


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
@pytest.mark.parametrize("kind", KINDS)
async def test_failures_are_taken_up_by_their_class(kind: str, suffix: str, web: Web, tmp_path: Path) -> None:
    output = tmp_path / f"pages.{suffix}"
    # A host each: what befalls one is not charged to another row.
    listed = [f"http://127.0.0.{number}/{name}" for number, name in enumerate(("good", *KINDS), 1)]
    web.trouble = {**KINDS}
    async with opened(web) as fetcher, Job(fetcher, output) as job:
        await job.run(listed)
    assert job.stats.failed == len(KINDS)
    before = records(output)
    web.trouble = {}
    web.taken()
    async with opened(web) as fetcher, Job(fetcher, output, retry=[kind]) as job:
        assert (job.resume_state.retried, job.resume_state.done) == (1, len(KINDS))
        assert records(output).keys() == before.keys() - {kind}, "its old record is gone, and no other"
        await job.run(listed)
    assert web.taken() == [kind]
    assert records(output) == {**before, kind: None}
    assert job.stats.failed == len(KINDS) - 1
    async with opened(web) as fetcher, Job(fetcher, output, retry=["failed"]) as job:
        await job.run(listed)
    assert records(output) == dict.fromkeys(before)
    assert len(web.taken()) == len(KINDS) - 1


async def test_duplicates_are_known_of_earlier_runs(web: Web, output: Path) -> None:
    await run(web, output, "aab", dedupe=True)
    job = await run(web, output, "aabbac", dedupe=True)
    assert web.taken() == [*"abc"]
    assert (job.stats.ok, job.stats.skipped, job.stats.codes) == (3, 3, {"duplicate": 3})


# Trouble with what is written


async def test_an_output_that_cannot_be_written_ends_the_run_and_can_be_repaired(
    web: Web, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = DurableFile.append

    def full(self: DurableFile, chunks: list[bytes]) -> Any:
        raise SinkError(f"{self.path}: cannot write: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(DurableFile, "append", full)
        with pytest.raises(SinkError, match="No space left"):
            await run(web, output, "abc")
    assert output.read_bytes() == b""
    assert DurableFile.append is real
    job = await run(web, output, "abc")
    assert job.resume_state.resumed
    assert records(output) == pages("abc")


async def test_a_ledger_that_cannot_be_written_leaves_what_the_next_run_cuts_off(
    web: Web, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run(web, output, "abc", limit=1)

    def full(self: Ledger, *args: object) -> None:
        raise LedgerError(f"{self.path}: cannot write the ledger: disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "commit", full)
        with pytest.raises(LedgerError, match="disk I/O error"):
            await run(web, output, "abc")
    assert records(output) == pages("abc"), "the output has them, and the ledger does not know"
    web.taken()
    await run(web, output, "abc")
    assert records(output) == pages("abc")
    assert web.taken() == ["b", "c"]


async def test_after_an_error_nothing_is_written_any_more(
    web: Web, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def broken(self: DurableFile, chunks: list[bytes]) -> Any:
        tries.append(len(chunks))
        raise SinkError("broken")

    monkeypatch.setattr(DurableFile, "append", broken)
    monkeypatch.setattr(fetcher.job.writer, "MAX_BATCH_ROWS", 2)
    with pytest.raises(SinkError, match="broken"):
        async with opened(web) as client, Job(client, output) as job:
            for number in range(1, 20):
                page = Page(Request(number, "http://127.0.0.1/"), "http://127.0.0.1/", 200)
                with contextlib.suppress(SinkError):
                    await job.write(page)
                    refused = False
                    continue
                refused = True
            assert refused
    assert len(tries) == 1


async def test_a_row_that_comes_twice_is_an_error(web: Web, output: Path) -> None:
    page = Page(Request(1, "http://127.0.0.1/"), "http://127.0.0.1/", 200)
    with pytest.raises(LedgerError, match="a row came twice"):
        async with opened(web) as fetcher, Job(fetcher, output) as job:
            await job.write(page)
            await job.write(page)
    await run(web, output, "a")
    assert records(output) == pages("a")


async def test_no_more_than_two_batches_are_held(web: Web, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 3: while a batch cannot be written, another may fill up, and then the writer waits."""
    monkeypatch.setattr(fetcher.job.writer, "MAX_BATCH_ROWS", 5)
    gate = threading.Event()
    sizes: list[int] = []
    real = Ledger.commit

    def slow(self: Ledger, entries: Any, *args: Any) -> None:
        gate.wait(DEADLINE)
        sizes.append(len(entries))
        real(self, entries, *args)

    monkeypatch.setattr(Ledger, "commit", slow)
    written: list[int] = []
    async with opened(web) as client, Job(client, output) as job:

        async def write() -> None:
            for number in range(1, 31):
                await job.write(Page(Request(number, f"http://127.0.0.1/{number}"), "http://127.0.0.1/", 200))
                written.append(number)

        task = asyncio.create_task(write())
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(written) == 9, "five are being written, four wait, and the one that fills the batch waits for room"
        gate.set()
        await task
    assert max(sizes) <= 5
    assert sum(sizes) == 30


async def test_a_record_is_written_within_about_a_second_though_few_come(
    web: Web, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the clock, not by the thousand: the first batch soon, the next ones at most a period after their first."""
    assert 0 < fetcher.job.writer.FIRST_COMMIT_SECONDS <= fetcher.job.writer.COMMIT_SECONDS <= 1.0
    monkeypatch.setattr(fetcher.job.writer, "COMMIT_SECONDS", 0.02)
    monkeypatch.setattr(fetcher.job.writer, "FIRST_COMMIT_SECONDS", 0.01)
    async with opened(web) as client, Job(client, output) as job:
        for number in range(1, 4):
            await job.write(Page(Request(number, f"http://127.0.0.1/{number}"), "http://127.0.0.1/", 200))
            async with asyncio.timeout(DEADLINE):
                while len(output.read_bytes().splitlines()) < number:
                    await asyncio.sleep(0.005)


def test_what_a_job_wrote_is_cleared_away_and_nothing_else(tmp_path: Path) -> None:
    ours = ["ledger.sqlite", "ledger.sqlite-wal", "parsing", "rewrite.0", "since.sqlite.new", "list.jsonl.gz"]
    others = ["lock", "notes.txt", "rewrite.x", "ledger.sqlite.bak"]
    for name in [*ours, *others]:
        (tmp_path / name).write_text("x")
    (tmp_path / "output.1").mkdir()
    (tmp_path / "output.1" / "part").write_text("x")
    clear_job(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


async def test_large_batches_are_written_before_they_are_a_thousand(
    web: Web, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetcher.job.writer, "MAX_BATCH_BYTES", 1000)
    monkeypatch.setattr(fetcher.job.writer, "FIRST_COMMIT_SECONDS", DEADLINE)
    async with opened(web) as client, Job(client, output) as job:
        for number in range(1, 20):
            await job.write(Page(Request(number, f"http://127.0.0.1/{number}"), "http://127.0.0.1/", 200))
        async with asyncio.timeout(DEADLINE):
            while not output.read_bytes():
                await asyncio.sleep(0.005)


Spoil = Callable[[Path], object]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "was added to since"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "was changed since"),
        (Path.unlink, "is missing"),
    ],
    ids=["longer", "shorter", "deleted"],
)
async def test_an_output_that_was_changed_is_a_sink_error(web: Web, output: Path, spoil: Spoil, said: str) -> None:
    await run(web, output, "ab")
    whole = output.read_bytes()
    spoil(output)
    with pytest.raises(SinkError, match=rf"^{output}: {said}"):
        await run(web, output, "abc")
    output.write_bytes(whole)
    await run(web, output, "abc")
    assert records(output) == pages("abc")


# Edited, moved, deleted


def edited_at(output: Path, name: str) -> bytes:
    """Change one letter of a record, and return what was there."""
    whole = output.read_bytes()
    assert whole.count(b"<title>" + name.encode()) == 0
    output.write_bytes(whole.replace(b"/" + name.encode() + b'",', b'/X",'))
    assert output.stat().st_size == len(whole)
    assert output.read_bytes() != whole
    return whole


async def test_an_edit_in_the_middle_is_refused(web: Web, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the bytes that are looked at; before them with ``verify``, and before a rewrite."""
    web.trouble["c"] = FetchError("http_404", "gone")
    for names in ("ab", "abc", "abcd"):
        await run(web, output, names)
    whole = edited_at(output, "a")
    edited = output.read_bytes()
    said = rf"^{output}: was changed since \(its bytes 0 to \d+ are not those that were written\): put it back"
    with pytest.raises(SinkError, match=said):
        await run(web, output, "abcd")
    monkeypatch.setattr(fetcher.job.opening, "CHECKED_BYTES", 100)
    await run(web, output, "abcd")
    for job in ({"verify": True}, {"retry": ["failed"]}, {"retry": ["4xx"], "verify": True}):
        with pytest.raises(SinkError, match=said):
            await run(web, output, "abcd", job)
        assert output.read_bytes() == edited
    output.write_bytes(whole)
    web.trouble.clear()
    web.taken()
    await run(web, output, "abcd", {"retry": ["failed"], "verify": True})
    assert web.taken() == ["c"]
    assert records(output) == pages("abcd")
    await run(web, output, "abcde", {"verify": True})
    assert records(output) == pages("abcde")


async def test_an_output_that_was_rewritten_is_looked_at_as_any(web: Web, output: Path) -> None:
    web.trouble["b"] = FetchError("http_404", "gone")
    await run(web, output, "abc")
    await run(web, output, "abc", {"retry": ["failed"]})
    edited_at(output, "a")
    with pytest.raises(SinkError, match=f"^{output}: was changed since"):
        await run(web, output, "abc")


@pytest.mark.parametrize("more", [False, True], ids=["at the end", "at a commit"])
@pytest.mark.parametrize("how", ["moved", "deleted"])
async def test_an_output_that_is_taken_away_is_no_success(
    web: Web, output: Path, more: bool, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetcher.job.writer, "MAX_BATCH_ROWS", 1)
    away = output.with_suffix(".away")
    with pytest.raises(SinkError, match=f"^{output}: another program has {how}"):
        async with (
            opened(web) as client,
            Job(client, output) as job,
            client.stream(job.left(urls("abc" if more else "a")), stats=job.stats) as outcomes,
        ):
            async for outcome in outcomes:
                await job.write(outcome)
                while output.exists() and not output.read_bytes():
                    await asyncio.sleep(0.001)
                if output.exists():
                    os.rename(output, away) if how == "moved" else os.unlink(output)
    with pytest.raises(SinkError, match=f"^{output}: is missing: put it back as it was, or begin again with --fresh"):
        await run(web, output, "abc")
    if how == "moved":
        away.rename(output)
        await run(web, output, "abc")
    else:
        await run(web, output, "abc", {"fresh": True})
    assert records(output) == pages("abc")


async def test_a_ledger_that_is_deleted_under_a_run_says_what_is_true_next(web: Web, output: Path) -> None:
    ledger = Path(f"{output}.job") / "ledger.sqlite"
    said = (
        rf"^{ledger}: another program has moved, replaced or deleted the ledger: what it knew is lost with it: put it "
    )
    with pytest.raises(LedgerError, match=said + "back as it was, or begin again with --fresh"):
        async with (
            opened(web) as client,
            Job(client, output) as job,
            client.stream(job.left(urls("ab")), stats=job.stats) as outcomes,
        ):
            async for outcome in outcomes:
                await job.write(outcome)
                while not output.read_bytes():
                    await asyncio.sleep(0.001)
                ledger.unlink(missing_ok=True)
    with pytest.raises(ConfigError, match="use --fresh to overwrite it"):
        await run(web, output, "ab")
    await run(web, output, "ab", {"fresh": True})
    assert records(output) == pages("ab")


@pytest.mark.parametrize("note", ["parked", "delays"])
async def test_a_note_that_cannot_be_read_leaves_nothing_held(web: Web, output: Path, note: str) -> None:
    await run(web, output, "a")
    with contextlib.closing(sqlite3.connect(f"{output}.job/ledger.sqlite", isolation_level=None)) as db:
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"note {note}", b"["))
    for _ in range(2):
        async with opened(web) as client:
            with pytest.raises(LedgerError, match="is damaged") as caught:
                await Job(client, output).__aenter__()
        assert not isinstance(caught.value, JobLocked), "it was let go of"
    await run(web, output, "a", {"fresh": True})


async def test_the_files_of_a_job_are_for_their_owner_alone(web: Web, output: Path) -> None:
    seen: set[str] = set()
    async with opened(web) as client, Job(client, output) as job:
        await job.run(urls("ab"))
        for path in Path(job.directory).iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
            seen.add(path.name)
    assert {"ledger.sqlite", "ledger.sqlite-wal", "lock", "parsing"} <= seen


async def test_a_job_that_ends_by_an_error_leaves_nothing_open(web: Web, output: Path) -> None:
    bodies = output.parent / "bodies"
    async with opened(web, keep_body=True) as fetcher:
        with pytest.raises(SinkError, match="moved"):
            async with Job(fetcher, output, body=bodies) as job:
                await job.run(urls("ab"))
                assert open_files(output.parent) != []
                output.rename(output.parent / "elsewhere")
        assert open_files(output.parent) == []
        output.parent.joinpath("elsewhere").rename(output)
        async with Job(fetcher, output, body=bodies) as job:
            await job.run(urls("abc"))
    assert open_files(output.parent) == []
    assert records(output) == pages("abc")


async def test_a_job_that_cannot_begin_leaves_nothing_open_and_no_thread(
    web: Web, output: Path, tmp_path: Path
) -> None:
    def threads() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name.startswith("fetcher-job")}

    old = tmp_path / "old.jsonl"
    await run(web, old, "ab")
    await run(web, output, "ab", {"since": old})
    with contextlib.closing(sqlite3.connect(f"{output}.job/ledger.sqlite", isolation_level=None)) as db:
        db.execute("INSERT OR REPLACE INTO meta VALUES ('note parked', x'7b')")
    before = threads()
    async with opened(web) as fetcher:
        with pytest.raises(LedgerError, match=r"is damaged \(Input data was truncated\): put it back"):
            async with Job(fetcher, output, since=old) as job:
                await job.run(urls("abc"))
        assert open_files(tmp_path) == []
    assert web.taken() == list("aabb")
    for thread in threads() - before:  # it was told to end, and nobody waited for it
        thread.join(30)
    assert threads() <= before
    await run(web, output, "abc", {"since": old, "fresh": True})
    assert records(output) == pages("abc")


async def test_how_far_a_job_was_is_told_when_it_is_opened(web: Web, output: Path) -> None:
    web.trouble["b"] = StatusError(404)
    told = []
    for names, options in (
        ("abc", {"total": 5}), ("abcd", {"total": 5}), ("abcd", {"total": 2}), ("abcd", {}), ("abcd", {"retry": ["404"]}),
    ):  # fmt: skip
        job = await run(web, output, names, options)
        told.append(job.resume_state)
    assert told == [
        ResumeState(left=5),
        ResumeState(resumed=True, done=3, ok=2, left=2),
        ResumeState(resumed=True, done=4, ok=3, left=0),
        ResumeState(resumed=True, done=4, ok=3),
        ResumeState(resumed=True, done=3, ok=3, retried=1),
    ]


async def test_a_clock_that_is_set_back_gives_no_negative_seconds(
    web: Web, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(web) as client, Job(client, output) as job:
        page = Page(Request(1, "http://127.0.0.1/a"), "http://127.0.0.1/a", 200, elapsed=-5.0, waited=-7.0)
        job.stats.input = 1
        job.stats.enter(page)
        job.stats.more = False
        await job.write(page)
        job._began += 3_600
    (line,) = output.read_text().splitlines()
    assert (json.loads(line)["elapsed"], json.loads(line)["waited"]) == (0.0, 0.0)
    figures = report(f"{output}.job")
    assert figures.seconds == figures.runs[0].seconds == 0.0


async def test_a_job_that_compares_leaves_nothing_open(web: Web, output: Path) -> None:
    later = output.with_name("later.jsonl")
    async with opened(web) as fetcher:
        async with Job(fetcher, output) as job:
            await job.run(urls("ab"))
        async with Job(fetcher, later, since=output) as comparing:
            await comparing.run(urls("ab"))
            assert any("later" in name for name in open_files(output.parent))
        assert open_files(output.parent) == []
