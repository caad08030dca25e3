"""When a batch of rows is handed to the thread that writes, and what goes with it. What a kill leaves: ``test_durable``."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fetcher.errors import SinkError
from fetcher.found.store import NamedLinks
from fetcher.job import writer as writer_module
from fetcher.job.ledger import LedgerRow, RunProgress
from fetcher.job.writer import Writer
from fetcher.model import Discovery, FoundLinks
from fetcher.sinks.body_folder import BodyFile
from tests.lab.timers import note_timers

DEADLINE = 30.0
HOUR = 3600.0
ROW = LedgerRow(1, 0, "ok", 200, 5, 0.1, 1, "a.example")


class Committed:
    """A ledger that remembers what it was given: how many rows, and the news of the hosts."""

    next_number = 1

    def __init__(self) -> None:
        self.batches: list[tuple[int, Mapping[str, bytes]]] = []

    def commit(self, rows: Any, marks: Any, progress: Any, news: Mapping[str, bytes], **_: Any) -> int:
        self.batches.append((len(rows), news))
        return 0

    async def until(self, batches: int) -> None:
        async with asyncio.timeout(DEADLINE):
            while len(self.batches) < batches:
                await asyncio.sleep(0.002)


@pytest.fixture(autouse=True)
def no_commit_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "FIRST_COMMIT_SECONDS", HOUR)
    monkeypatch.setattr(writer_module, "COMMIT_SECONDS", HOUR)


@pytest.fixture
async def thread() -> AsyncIterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as thread:
        yield thread


def writer_of(ledger: Any, thread: ThreadPoolExecutor, notes: dict[str, bytes] | None = None) -> Writer:
    known = {} if notes is None else notes
    return Writer(
        ledger,
        [],
        thread=thread,
        progress=lambda: RunProgress(0, True, None, 0.0, 0, 0),
        notes=lambda: dict(known),
    )


async def test_a_row_waits_for_others_and_is_committed_in_the_end(thread: ThreadPoolExecutor) -> None:
    ledger = Committed()
    writer = writer_of(ledger, thread)
    await writer.write(ROW, [])
    assert ledger.batches == []
    await writer.close()
    assert ledger.batches == [(1, {})]


@pytest.mark.parametrize("fails", [False, True])
async def test_a_closed_writer_leaves_no_timer(
    fails: bool, thread: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third row waits for its time while the first two are being written."""
    written = threading.Event()

    class Slow(Committed):
        def commit(self, *_: Any, **__: Any) -> int:
            written.wait(DEADLINE)
            if fails:
                raise SinkError("no space left")
            return 0

    timers = note_timers(monkeypatch)
    monkeypatch.setattr(writer_module, "MAX_BATCH_ROWS", 2)
    writer = writer_of(Slow(), thread)
    for _ in range(3):
        await writer.write(ROW, [])
    assert len(timers) == 3
    written.set()
    with pytest.raises(SinkError) if fails else contextlib.nullcontext():
        await writer.close()
    assert [timer.cancelled() for timer in timers] == [True] * 3


async def test_so_many_rows_are_a_batch(thread: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "MAX_BATCH_ROWS", 3)
    ledger = Committed()
    writer = writer_of(ledger, thread)
    for _ in range(7):
        await writer.write(ROW, [])
    await ledger.until(2)
    await writer.close()
    assert [rows for rows, _ in ledger.batches] == [3, 3, 1]


async def test_who_waits_for_a_batch_hears_what_became_of_it(
    thread: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(Committed):
        def commit(self, rows: Any, marks: Any, progress: Any, news: Mapping[str, bytes], **_: Any) -> int:
            raise SinkError("no space left")

    monkeypatch.setattr(writer_module, "MAX_BATCH_ROWS", 1)
    writer = writer_of(Full(), thread)
    await writer.write(ROW, [])
    with pytest.raises(SinkError, match="no space left"):
        await writer.write(ROW, [])
    with pytest.raises(SinkError, match="no space left"):
        await writer.close()


async def test_the_links_that_pages_name_fill_a_batch_too(
    thread: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MAX_BATCH_BYTES", 1_000)
    ledger = Committed()
    writer = writer_of(ledger, thread)
    for _ in range(2):
        named = NamedLinks(
            1, "http://a.example/", Discovery(0, 1, "http://a.example/"), FoundLinks("http://a.example/a" * 30)
        )
        await writer.write(ROW, [], named=named)
    await ledger.until(1)
    await writer.close()
    assert [rows for rows, _ in ledger.batches] == [2]


async def test_bodies_fill_a_batch_too_each_of_them_once(
    thread: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MAX_BATCH_BYTES", 1_000)
    ledger = Committed()
    writer = writer_of(ledger, thread)
    for name in ("a", "a", "b"):
        await writer.write(ROW, [], body=BodyFile(name, b"x" * 600, packed=False))
    await ledger.until(1)
    await writer.close()
    assert [rows for rows, _ in ledger.batches] == [3]


async def test_news_of_hosts_are_kept_without_a_row(thread: ThreadPoolExecutor) -> None:
    ledger, notes = Committed(), {"parked": b"1", "delays": b"1"}
    writer = writer_of(ledger, thread, notes)
    notes["parked"] = b"2"
    await writer.close()
    assert ledger.batches == [(0, {"parked": b"2"})]


async def test_news_of_hosts_are_kept_though_no_row_is_finished(
    thread: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "COMMIT_SECONDS", 0.01)
    ledger, notes = Committed(), {"parked": b"1"}
    writer = writer_of(ledger, thread, notes)
    for word in (b"2", b"3"):
        notes["parked"] = word
        await ledger.until(len(ledger.batches) + 1)
        assert ledger.batches[-1] == (0, {"parked": word})
    await writer.close()


async def test_what_the_last_run_noted_of_hosts_is_not_noted_again(thread: ThreadPoolExecutor) -> None:
    ledger = Committed()
    await writer_of(ledger, thread, {"parked": b"1"}).close()
    assert ledger.batches == []
