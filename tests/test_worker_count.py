"""How many workers a list is worth, and that looking at its first rows takes none of them away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import pytest

from fetcher import worker_count
from fetcher.buckets import Shard
from fetcher.config import Config, Limits
from fetcher.intake import Row
from fetcher.model import Request
from fetcher.sources.rows import FinishedRow
from fetcher.worker_count import MIN_ROWS, WORKER_BYTES, choose, how_many, within_limits


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_count, "cores", lambda: 4)
    monkeypatch.setattr(worker_count, "memory", lambda: 100 * WORKER_BYTES)


def urls(rows: int, sites: int = 20) -> list[Row]:
    return [f"http://site{n % sites}.example/{n}" for n in range(rows)]


@pytest.mark.parametrize(
    ("rows", "sites", "cores", "memory", "workers"),
    [
        (MIN_ROWS, 8, 4, None, 4),
        (MIN_ROWS - 1, 8, 4, None, 1),
        (MIN_ROWS, 7, 4, None, 1),
        (MIN_ROWS, 8, 64, None, 8),
        (MIN_ROWS, 8, 64, 3 * WORKER_BYTES, 3),
        (MIN_ROWS, 8, 64, 10, 1),
        (MIN_ROWS, 8, 1, None, 1),
    ],
)
def test_the_rule(rows: int, sites: int, cores: int, memory: int | None, workers: int) -> None:
    assert how_many(rows, sites, cores, memory) == workers


@pytest.mark.parametrize(("rows", "sites", "workers"), [(6_000, 20, 4), (4_000, 20, 1), (6_000, 5, 1)])
async def test_a_list_is_looked_at_and_stays_whole(rows: int, sites: int, workers: int) -> None:
    chosen, whole = await choose(iter(urls(rows, sites)), Config(), ordered=False)
    assert chosen == workers
    assert isinstance(whole, Iterable)
    assert list(whole) == urls(rows, sites)


async def test_rows_that_are_done_are_not_counted() -> None:
    rows: list[Row] = [FinishedRow(Request(1, "http://a.example/"))] * 6_000 + urls(100)
    chosen, whole = await choose(rows, Config(), ordered=False)
    assert chosen == 1
    assert isinstance(whole, Iterable)
    assert list(whole) == rows


async def test_rows_of_other_shards_are_not_counted() -> None:
    assert (await choose(urls(6_000, 50), Config(shard=Shard(1, 4)), ordered=False))[0] == 1
    assert (await choose(urls(40_000, 500), Config(shard=Shard(1, 4)), ordered=False))[0] == 4


async def test_the_limit_of_rows_counts() -> None:
    assert (await choose(urls(6_000), Config.of(limit=4_999), ordered=False))[0] == 1
    assert (await choose(urls(6_000), Config.of(limit=5_000), ordered=False))[0] == 4


async def test_what_may_keep_its_reader_waiting_is_not_looked_at() -> None:
    async def endless() -> AsyncIterator[Row]:
        raise AssertionError("it was read")
        yield ""

    rows = endless()
    assert await choose(rows, Config(), ordered=False) == (1, rows)


async def test_in_the_order_of_the_list_there_is_one() -> None:
    rows = urls(6_000)
    assert await choose(rows, Config(), ordered=True) == (1, rows)


async def test_a_source_that_is_closed_is_closed() -> None:
    closed = []

    def source() -> Iterator[Row]:
        try:
            yield from urls(6_000)
        finally:
            closed.append(True)

    _, whole = await choose(source(), Config(), ordered=False)
    assert isinstance(whole, Iterator)
    next(whole)
    whole.close()  # type: ignore[attr-defined]  # a generator
    assert closed == [True]


def test_each_worker_has_a_slot_and_the_memory_for_a_page() -> None:
    assert within_limits(8, Limits(concurrency=3)) == 3
    assert within_limits(8, Limits(memory=20, max_size=10)) == 2
    assert within_limits(2, Limits()) == 2


@pytest.mark.parametrize(
    ("files", "cores"),
    [({"cpu.max": "150000 100000\n"}, 1), ({"cpu.max": "max 100000\n"}, None), ({}, None), ({"cpu.max": "?"}, None)],
)
def test_a_quota_counts(
    files: dict[str, str], cores: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    unlimited = worker_count.cores()
    monkeypatch.setattr(worker_count, "_SYSTEM", tmp_path)
    assert worker_count.cores() == cores or (cores is None and worker_count.cores() >= unlimited)


def test_memory_is_the_least_of_what_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("400\n")
    monkeypatch.setattr(worker_count, "_SYSTEM", tmp_path)
    assert worker_count.memory() == 600
    monkeypatch.setattr(worker_count, "_PROC", tmp_path / "none")
    (tmp_path / "memory.max").write_text("max\n")
    assert worker_count.memory() is None
