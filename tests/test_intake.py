"""What becomes of rows before they are requests: numbered, parsed, told from their duplicates, counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import pytest

from fetcher.config import Config
from fetcher.errors import InvalidURL, Skipped, SourceError, StatusError
from fetcher.intake import SLICE, Intake, Rejected, Seen
from fetcher.model import Failure, Page, Request
from fetcher.request_state import RequestState, failure_of
from fetcher.sources.rows import bad_row
from fetcher.stats import Stats


def intake_of(source: Any, **options: Any) -> tuple[Intake, Stats]:
    stats = Stats()
    return Intake(source, Config.of(**options), stats), stats


async def taken(source: Any, **options: Any) -> tuple[list[RequestState | Rejected], Stats]:
    intake, stats = intake_of(source, **options)
    rows = [row async for row in intake]
    await intake.close()
    return rows, stats


async def later(rows: Iterable[Any]) -> AsyncIterator[Any]:
    for row in rows:
        await asyncio.sleep(0)
        yield row


def shown(row: RequestState | Rejected) -> Any:
    if isinstance(row, Rejected):
        return (row.state.request.id, row.state.order, row.error.code)
    return (row.request.id, row.order, row.first.wire)


ROWS: list[Any] = [
    " a.example/ö \n",
    Request(71, "http://b.example/x", fields={"sku": "1"}),
    "mailto:me@a.example",
    bad_row(9, "  broken  ", "l.txt:4: no URL"),
    "",
    "c.example:81",
]
SHOWN = [
    (1, 1, "https://a.example/%C3%B6"),
    (71, 2, "http://b.example/x"),
    (3, 3, "invalid_url"),
    (9, 4, "invalid_url"),
    (5, 5, "invalid_url"),
    (6, 6, "https://c.example:81/"),
]


@pytest.mark.parametrize("made", [list, tuple, iter, later, lambda rows: (row for row in rows)])
async def test_every_row_comes_once_and_in_order(made: Any) -> None:
    rows, stats = await taken(made(ROWS))
    assert [shown(row) for row in rows] == SHOWN
    assert (stats.input, stats.more, stats.pending) == (6, False, 6)


async def test_a_row_is_as_listed_and_trimmed() -> None:
    rows, _ = await taken(ROWS, default_scheme="http")
    first, second = rows[:2]
    assert isinstance(first, RequestState)
    assert first.request == Request(1, "a.example/ö")
    assert first.target.wire == "http://a.example/%C3%B6"
    assert isinstance(second, RequestState)
    assert second.request is ROWS[1]
    bad = rows[3]
    assert isinstance(bad, Rejected)
    assert (bad.state.request.url, bad.error.message) == ("broken", "l.txt:4: no URL")
    assert failure_of(bad.state, bad.error).url is None


@pytest.mark.parametrize("made", [list, later])
async def test_an_empty_source_is_at_its_end(made: Any) -> None:
    rows, stats = await taken(made([]))
    assert (rows, stats.input, stats.more) == ([], 0, False)


# Limit


def endless() -> Iterator[str]:
    n = 0
    while True:
        n += 1
        yield f"http://a.example/{n}"


@pytest.mark.parametrize("made", [endless, lambda: later(endless())])
@pytest.mark.parametrize("limit", [0, 1, 300])
async def test_the_first_rows_are_the_input(made: Any, limit: int) -> None:
    rows, stats = await taken(made(), limit=limit)
    assert [row.order for row in rows if isinstance(row, RequestState)] == list(range(1, limit + 1))
    assert (stats.input, stats.more) == (limit, False)


async def test_a_limit_takes_no_row_too_many() -> None:
    source = endless()
    await taken(source, limit=3)
    intake, _ = intake_of(read := iter([1, 2, 3]), limit=0)
    with pytest.raises(StopAsyncIteration):
        await anext(intake)
    assert list(read) == [1, 2, 3]


async def test_a_source_that_was_left_has_more() -> None:
    intake, stats = intake_of(["a.example", "b.example"])
    await anext(intake)
    await intake.close()
    assert (stats.input, stats.more) == (1, True)


async def test_rows_that_end_at_once_count_towards_the_limit() -> None:
    rows, stats = await taken(["x:", "a.example", "b.example"], limit=2)
    assert [shown(row)[2] for row in rows] == ["invalid_url", "https://a.example/"]
    assert stats.input == 2


# Dedupe


async def test_each_distinct_url_comes_once_and_the_first_row_wins() -> None:
    rows, _ = await taken(
        [
            "http://a.example/x",
            "HTTP://A.EXAMPLE:80/y/../x#part",
            Request(9, " http://a.example/x".strip()),
            "http://a.example/x?",
            "https://a.example/x",
            "a.example/x",
            "not a url",
            "not a url",
        ],
        dedupe=True,
    )
    assert [shown(row)[2] for row in rows] == [
        "http://a.example/x",
        "duplicate",
        "duplicate",
        "http://a.example/x?",
        "https://a.example/x",
        "duplicate",
        "invalid_url",
        "invalid_url",
    ]
    again = rows[1]
    assert isinstance(again, Rejected)
    assert isinstance(again.error, Skipped)
    assert again.error.message == "an earlier row has the same URL"


async def test_without_dedupe_every_row_comes() -> None:
    rows, _ = await taken(["a.example"] * 3)
    assert all(isinstance(row, RequestState) for row in rows)


def test_what_has_been_seen_is_remembered_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fetcher.intake.CACHE", 1024 * 1024)
    seen = Seen()
    try:
        assert all(seen.add(f"http://a.example/{n}") for n in range(100_000))
        assert not any(seen.add(f"http://a.example/{n}") for n in range(0, 100_000, 97))
        assert seen.add("http://a.example/\udcff")
        (pages,) = seen._database.execute("pragma page_count").fetchone()
        (size,) = seen._database.execute("pragma page_size").fetchone()
        (cache,) = seen._database.execute("pragma cache_size").fetchone()
        (name,) = seen._database.execute("select file from pragma_database_list where name = 'main'").fetchone()
    finally:
        seen.close()
    assert -cache * 1024 == 1024 * 1024 < pages * size < 100_000 * 64
    assert not name  # nobody else's file, and nothing is left of it


# Who else runs meanwhile


async def test_a_long_list_lets_others_run() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    rows, _ = await taken(["a.example"] * (10 * SLICE))
    task.cancel()
    assert len(rows) == 10 * SLICE
    assert 10 <= turns <= 12


async def test_a_pause_is_asked_for_now_and_then_and_after_each_row_that_may_take_long() -> None:
    plain, _ = intake_of(["a.example"] * (2 * SLICE))
    assert sum([plain.pause async for _ in plain]) == 2
    slow, _ = intake_of(later(["a.example"] * 5))
    assert sum([slow.pause async for _ in slow]) == 5


# The end


class Left:
    """A generator that notes how it ended."""

    def __init__(self) -> None:
        self.closed = 0

    def now(self) -> Iterator[str]:
        try:
            yield from endless()
        finally:
            self.closed += 1

    async def later(self) -> AsyncIterator[str]:
        try:
            for url in endless():
                yield url
        finally:
            self.closed += 1


@pytest.mark.parametrize("kind", ["now", "later"])
async def test_a_generator_is_closed_with_the_run(kind: str) -> None:
    left = Left()
    intake, _ = intake_of(getattr(left, kind)(), dedupe=True)
    await anext(intake)
    assert left.closed == 0
    await intake.close()
    await intake.close()
    assert left.closed == 1


async def test_a_source_of_ones_own_is_closed_if_it_can_be() -> None:
    class Own:
        closed = False

        def __aiter__(self) -> Own:
            return self

        async def __anext__(self) -> str:
            return "a.example"

        async def aclose(self) -> None:
            self.closed = True

    own = Own()
    intake, _ = intake_of(own)
    assert isinstance(await anext(intake), RequestState)
    await intake.close()
    assert own.closed


async def test_a_list_is_not_closed() -> None:
    file = iter(["a.example"])
    intake, _ = intake_of(file)
    await intake.close()
    assert list(file) == ["a.example"]


async def test_what_goes_wrong_in_a_source_goes_through() -> None:
    def broken() -> Iterator[str]:
        yield "a.example"
        raise SourceError("l.txt:2: gone")

    for source in (broken(), later(broken())):
        intake, stats = intake_of(source)
        await anext(intake)
        with pytest.raises(SourceError, match="gone"):
            await anext(intake)
        assert (stats.input, stats.more) == (1, True)


@pytest.mark.parametrize("source", ["http://a.example/", b"http://a.example/", Request(1, "http://a.example/")])
def test_one_url_is_no_source(source: Any) -> None:
    with pytest.raises(TypeError, match="the source is one URL"):
        intake_of(source)


@pytest.mark.parametrize("row", [b"a.example", None, 5, ("a.example",)])
async def test_a_row_of_another_kind_is_a_bug_that_is_named(row: Any) -> None:
    with pytest.raises(TypeError, match="row 2 is neither a str nor a Request: "):
        await taken(["a.example", row])


# The stats


def test_the_books_balance() -> None:
    stats = Stats()
    request = Request(1, "http://a.example/")
    stats.input = 5
    assert (stats.done, stats.pending, stats.more) == (0, 5, True)
    stats.enter(Page(request, request.url, 200, bytes=7))
    stats.enter(Failure(request, StatusError(404), bytes=3))
    stats.enter(Failure(request, StatusError(404)))
    stats.enter(Failure(request, Skipped("duplicate")))
    assert (stats.ok, stats.failed, stats.skipped, stats.done, stats.pending) == (1, 2, 1, 4, 1)
    assert stats.bytes == 10
    assert stats.codes == {"http_404": 2, "duplicate": 1}
    stats.enter(Failure(request, InvalidURL()))
    assert stats.input == stats.ok + stats.failed + stats.skipped
