"""A program that uses the public names as the README does; nobody runs it, type checkers read it (``tests/test_typed.py``)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal, assert_type

import fetcher
from fetcher import (
    Config,
    Exchange,
    Failure,
    Fetcher,
    FetchError,
    InFlight,
    Job,
    Outcome,
    Page,
    Request,
    Response,
    RetryDetails,
    Stats,
    StatusError,
    fetch,
    fetch_all,
    open_sink,
    parse,
    read,
    records,
)

URLS = ["https://example.com/"]


def blocking() -> None:
    assert_type(fetch("https://example.com/"), Page)
    assert_type(fetch(Request(1, "https://example.com/"), timeout="500ms", extract=status_of), Page)
    assert_type(fetch_all(URLS), list[Page | Failure])
    fetch_all(iter(URLS), Config.of(per_host=2, accept=["2xx", 404], max_size="1M"))
    fetch_all(
        URLS,
        concurrency=3,
        delay=0.5,
        rate="30/m",
        select={"price": ".price", "tags[]": ".tag"},
        keep_body=True,
        hosts={"example.com": {"per-host": 1}},
        middleware=[signed],
        on_retry=told,
    )
    fetch_all(URLS, select=["h=h1"], header="X-Team: crawl", rate=None, private_network="deny")


def by_class(outcome: Outcome) -> str | None:
    if isinstance(outcome, Page):
        assert_type(outcome, Page)
        assert_type(outcome.ok, Literal[True])
        assert_type(outcome.body, bytes | None)
        assert_type(outcome.text, str | None)
        assert_type(outcome.bytes, int)
        return outcome.title
    assert_type(outcome, Failure)
    assert_type(outcome.ok, Literal[False])
    assert_type(outcome.error, FetchError)
    return outcome.error.code


def by_match(outcome: Outcome) -> int | str:
    match outcome:
        case Page():
            return outcome.status
        case Failure():
            return outcome.error.code


def by_ok(outcome: Outcome) -> str | None:
    return outcome.title if outcome.ok is True else outcome.error.code


def rows(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    return [outcome.record() for outcome in outcomes]


def tables(outcomes: list[Outcome]) -> Iterator[dict[str, Any]]:
    return assert_type(records(outcomes), Iterator[dict[str, Any]])


async def streamed() -> AsyncIterator[str]:
    async with Fetcher(concurrency=20, middleware=[signed], on_retry=told, extract=status_of) as client:
        assert_type(client, Fetcher)
        assert_type(await client.fetch("https://example.com/"), Page)
        assert_type(client.in_flight(), list[InFlight])
        async with client.stream(read(["urls.txt"]), ordered=True) as outcomes:
            async for outcome in outcomes:
                assert_type(outcome, Page | Failure)
                yield outcome.request.url
            assert_type(outcomes.stats, Stats)
        assert_type(await client.run(URLS, open_sink("pages.jsonl")), Stats)
        async with Job(client, "pages.jsonl") as job:
            assert_type(await job.run(URLS), Stats)


async def signed(request: Request, proceed: Exchange) -> Response:
    return await proceed(request)


def told(details: RetryDetails) -> None:
    assert_type(details.error, FetchError)


def status_of(response: Response) -> tuple[int, str | None]:
    return response.status, parse(response).title


def caught() -> int | None:
    try:
        fetch("https://example.com/")
    except StatusError as error:
        return assert_type(error.status, int)
    except FetchError as error:
        assert_type(error.url, str | None)
    return len(fetcher.__version__)
