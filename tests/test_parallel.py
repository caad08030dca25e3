"""Several processes fetch one list: the same outcomes as by one, whatever becomes of a worker, and the hosts see no more.

The lab's log is the judge of what was asked; each of its hosts is a site of its own.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from fetcher import Config, ConfigError, Failure, Fetcher, Page, Request, SourceError, fetch_all
from fetcher.errors import ResourceError
from fetcher.model import Exchange, Outcome, Response
from fetcher.parallel.parent import DEATHS, ParallelOutcomes
from tests.lab.ports import host_address
from tests.lab.server import LabServer

HOSTS = 12
TIMES = ("elapsed", "waited", "fetched_at")


@pytest.fixture
async def lab() -> AsyncIterator[LabServer]:
    async with LabServer(hosts=HOSTS) as server:
        yield server


def told(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    records = [outcome.record() for outcome in outcomes]
    for record in records:
        for name in TIMES:
            record.pop(name)
    return sorted(records, key=lambda record: record["id"])


async def outcomes_of(urls: Any, *, workers: int, **options: Any) -> list[Outcome]:
    async with asyncio.timeout(100), Fetcher(workers=workers, robots=False, **options) as fetcher:
        async with fetcher.stream(urls) as outcomes:
            found = [outcome async for outcome in outcomes]
            stats = outcomes.stats
            assert stats.input == stats.done == len(found)
            assert isinstance(outcomes, ParallelOutcomes) == (workers > 1)
            return found


def processes_of(outcomes: Any) -> list[int]:
    assert isinstance(outcomes, ParallelOutcomes)
    return [each.pid for each in outcomes._pool.processes if each is not None and each.pid is not None]


def mixed(lab: LabServer) -> list[str]:
    urls = []
    for host in range(1, HOSTS + 1):
        urls += [
            lab.url(f"/ok?n={host}&title=t{host}&links=3", host),
            lab.url(f"/status/404?n={host}", host),
            lab.url(f"/hops/4?hosts={HOSTS}&n={host}", host),
            lab.url(f"/set-cookie-then?to={lab.url('/echo', host % HOSTS + 1)}", host),
            lab.url(f"/flaky/{host}?fail=1&status=500", host),
            lab.url(f"/redirect?to={lab.url(f'/status/503?n={host}', host % HOSTS + 1)}", host),
        ]
    return [*urls, "http://[::1", urls[0], lab.url("/loop"), lab.url("/two-locations", 2)]


async def test_the_outcomes_are_those_of_one_process(lab: LabServer) -> None:
    options: dict[str, Any] = {"dedupe": True, "backoff": 0.01, "retries": 1, "keep_body": True, "keep_headers": "all"}
    one = told(await outcomes_of(mixed(lab), workers=1, **options))
    asked = Counter((entry.host, entry.path) for entry in lab.log)
    lab.clear()
    three = told(await outcomes_of(mixed(lab), workers=3, **options))
    for record, other in zip(one, three, strict=True):
        assert record == other
    assert Counter((entry.host, entry.path) for entry in lab.log) == asked


async def test_a_host_is_asked_by_one_worker_wherever_its_rows_come_from(lab: LabServer) -> None:
    """Redirects of all hosts to one: it sees no more at once than it may, though three processes follow them."""

    async def slow(exchange: Any) -> None:
        await exchange.pause(0.02)
        await exchange.reply("here")

    lab.add("/one", slow, host=1)
    urls = [lab.url(f"/redirect?to={lab.url('/one')}&n={n}", 2 + n % (HOSTS - 1)) for n in range(60)]
    found = await outcomes_of(urls, workers=3, per_host=2)
    assert all(isinstance(outcome, Page) and len(outcome.redirects) == 1 for outcome in found)
    assert len(lab.requests("/one")) == 60
    assert lab.peak(1) <= 2
    assert len({entry.connection for entry in lab.requests("/one")}) <= 4, "and not from each worker"


async def test_slots_are_shared(lab: LabServer) -> None:
    urls = [lab.url(f"/delay/30/ok?n={n}", 1 + n % HOSTS) for n in range(150)]
    await outcomes_of(urls, workers=3, concurrency=7)
    assert lab.peak() <= 7


async def test_the_rate_is_shared(lab: LabServer) -> None:
    urls = [lab.url(f"/ok?n={n}", 1 + n % HOSTS) for n in range(40)]
    await outcomes_of(urls, workers=2, rate="20/s")
    entries = sorted(entry.t for entry in lab.log)
    assert entries[-1] - entries[0] >= 39 / 20 * 0.9


async def test_secrets_stay_with_their_origin_across_workers(lab: LabServer) -> None:
    there = lab.url("/echo", 2)
    urls = [Request(1, lab.url(f"/set-cookie-then?to={there}").replace("//", "//me:word@"), (("X-Key", "mine"),))]
    urls += [Request(n, lab.url(f"/ok?n={n}", n)) for n in range(2, HOSTS)]
    found = await outcomes_of(urls, workers=2, header=[f"@{host_address(1)} X-Secret: one"], keep_body=True)
    (page,) = (outcome for outcome in found if outcome.request.id == 1)
    assert isinstance(page, Page)
    first = next(entry for entry in lab.log if entry.host == host_address(1))
    assert (first.header("x-secret"), first.header("x-key")) == ("one", "mine")
    assert (first.header("authorization") or "").startswith("Basic ")
    (second,) = lab.requests("/echo")
    for name in ("x-secret", "x-key", "authorization", "cookie"):
        assert second.header(name) is None, name


async def test_what_the_caller_put_on_a_row_comes_back_the_same(lab: LabServer) -> None:
    mark, fields = object(), {"sku": {1, 2}}
    rows = [Request(n, lab.url(f"/hops/1?hosts=5&n={n}", 1 + n % 5), fields=fields, tag=mark) for n in range(1, 20)]
    for outcome in await outcomes_of(rows, workers=2):
        assert outcome.request in rows
        assert outcome.request.tag is mark
        assert outcome.request.fields is fields


async def test_messages_of_a_chain_over_two_workers_are_all_there(lab: LabServer) -> None:
    urls = [lab.url(f"/hops/3?hosts=6&n={n}", 1 + n % 6) for n in range(12)]
    for outcome in await outcomes_of(urls, workers=3, keep_messages=True):
        assert isinstance(outcome, Page)
        assert [message.url for message in outcome.messages] == [outcome.request.url, *outcome.redirects]


async def test_in_the_order_of_the_list(lab: LabServer) -> None:
    urls = [lab.url(f"/delay/{40 if n % 7 == 0 else 1}/ok?n={n}", 1 + n % HOSTS) for n in range(100)]
    async with Fetcher(workers=2, robots=False) as fetcher, fetcher.stream(urls, ordered=True) as outcomes:
        assert [outcome.request.url async for outcome in outcomes] == urls
    with pytest.raises(ConfigError, match="workers: in the order of the list, with bodies kept"):
        async with Fetcher(workers=2, keep_body=True) as fetcher, fetcher.stream(urls, ordered=True):
            pass


def test_without_a_loop() -> None:
    with LabServer.in_thread(hosts=3) as server:
        urls = [server.url(f"/ok?n={n}", 1 + n % 3) for n in range(20)]
        pages = fetch_all(urls, workers=2, robots=False)
        assert [page.request.url for page in pages] == urls


# What crosses, and what does not


async def sign(request: Request, proceed: Exchange) -> Response:
    """A middleware that a worker finds by its name."""
    return await proceed(Request(request.id, request.url, (("X-Signed", str(request.id)),)))


def size(response: Response) -> int:
    """An extractor that a worker finds by its name."""
    return len(response.body)


def strange(response: Response) -> Any:
    """An extractor whose data is not plain."""
    return {response.url}


async def test_an_extractor_and_a_middleware_are_found_by_name(lab: LabServer) -> None:
    urls = [lab.url(f"/ok?n={n}", 1 + n % 5) for n in range(10, 30)]
    (length,) = {
        len(page.body or b"") for page in await outcomes_of(urls, workers=1, keep_body=True) if page.ok is True
    }
    lab.clear()
    found = await outcomes_of(urls, workers=2, extract=size, middleware=[sign])
    assert {outcome.data for outcome in found if isinstance(outcome, Page)} == {length}
    assert {entry.header("x-signed") for entry in lab.log} == {str(n) for n in range(1, 21)}


async def test_data_that_is_not_plain_ends_the_run(lab: LabServer) -> None:
    with pytest.raises(ConfigError, match="the extractor returned a set"):
        await outcomes_of([lab.url("/ok")], workers=2, extract=strange)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"workers": 0}, "workers 0: must be a number of processes"),
        ({"workers": True}, "workers true: must be a number"),
        ({"workers": "many"}, "workers many: must be a number"),
        ({"workers": 2, "extract": lambda _: None}, "the extractor <function .* has no name"),
        ({"workers": 2, "on_retry": print}, "on_retry cannot go to another process"),
        ({"workers": 2, "per_address": 1}, "per-address would be counted in each"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Fetcher(**options)


def test_a_middleware_that_lives_here_is_refused() -> None:
    async def live(request: Request, proceed: Exchange) -> Response:
        return await proceed(request)

    with pytest.raises(ConfigError, match=r"the middleware <function .* has no name"):
        Fetcher(workers=2, middleware=[live])
    assert Fetcher(workers="auto", middleware=[live])._workers == 1


def deadly(response: Response) -> int:
    """An extractor that a page ends the process of."""
    if "deadly" in response.url:
        os.kill(os.getpid(), signal.SIGKILL)
    return len(response.body)


async def test_a_page_that_kills_its_worker_is_parsed_apart(lab: LabServer) -> None:
    urls = [lab.url(f"/ok?n={n}", 1 + n % HOSTS) for n in range(60)]
    urls.insert(30, lab.url("/ok?n=deadly", 5))
    found = await outcomes_of(urls, workers=2, extract=deadly)
    (failed,) = (outcome for outcome in found if isinstance(outcome, Failure))
    assert (failed.request.url, failed.error.code) == (urls[30], "parse_crash")
    assert len(lab.requests("/ok")) < 61 + 40


# Ends


async def test_a_worker_that_is_killed_is_replaced(lab: LabServer) -> None:
    urls = [lab.url(f"/delay/10/ok?n={n}", 1 + n % HOSTS) for n in range(300)]
    async with asyncio.timeout(100), Fetcher(workers=2, robots=False) as fetcher, fetcher.stream(urls) as outcomes:
        seen: list[str] = []
        async for outcome in outcomes:
            assert isinstance(outcome, Page)
            seen.append(outcome.request.url)
            if len(seen) in (20, 120):
                os.kill(processes_of(outcomes)[len(seen) % 2], signal.SIGKILL)
        assert sorted(seen) == sorted(urls), "each once"
        assert outcomes.stats.pending == 0


async def test_workers_that_die_without_an_outcome_end_the_run(lab: LabServer) -> None:
    async with asyncio.timeout(100), Fetcher(workers=2, robots=False) as fetcher:
        with pytest.raises(ResourceError, match=f"{DEATHS} workers have ended within a minute"):
            async with fetcher.stream([lab.url("/delay/60000/ok", n) for n in range(1, 5)]) as outcomes:

                async def strike() -> None:
                    while True:
                        for pid in processes_of(outcomes):
                            os.kill(pid, signal.SIGKILL)
                        await asyncio.sleep(0.05)

                striking = asyncio.create_task(strike())
                try:
                    async for _ in outcomes:
                        pass
                finally:
                    striking.cancel()


async def test_a_run_that_is_stopped_counts_what_is_pending(lab: LabServer) -> None:
    urls = [lab.url(f"/delay/{20 if n < 40 else 60000}/ok?n={n}", 1 + n % HOSTS) for n in range(200)]
    async with asyncio.timeout(100), Fetcher(workers=2, robots=False) as fetcher, fetcher.stream(urls) as outcomes:
        count = 0
        async for _ in outcomes:
            count += 1
            if count == 20:
                fetcher.stop(0.1)
        stats = outcomes.stats
        assert stats.ok == count < 100
        assert stats.input == stats.ok + stats.pending


async def test_leaving_early_ends_the_processes(lab: LabServer) -> None:
    urls = [lab.url(f"/delay/{1 if n < 5 else 60000}/ok?n={n}", 1 + n % HOSTS) for n in range(50)]
    async with asyncio.timeout(100), Fetcher(workers=2, robots=False) as fetcher:
        async with fetcher.stream(urls) as outcomes:
            async for _ in outcomes:
                break
            pids = processes_of(outcomes)
            assert len(pids) == 2
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


async def test_a_list_that_breaks_off_has_all_its_outcomes_first(lab: LabServer) -> None:
    def broken() -> Iterator[str]:
        yield from (lab.url(f"/ok?n={n}", 1 + n % 4) for n in range(30))
        raise SourceError("l.txt: line 31: broken")

    count = 0
    async with asyncio.timeout(100), Fetcher(workers=2, robots=False) as fetcher:
        with pytest.raises(SourceError, match="line 31"):
            async with fetcher.stream(broken()) as outcomes:
                async for _ in outcomes:
                    count += 1
    assert count == 30


async def test_a_bug_in_the_source_ends_the_run(lab: LabServer) -> None:
    def buggy() -> Iterator[str]:
        yield lab.url("/ok")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await outcomes_of(buggy(), workers=2)


async def test_a_slow_reader_stops_the_source(lab: LabServer) -> None:
    read = 0

    def source() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield lab.url(f"/ok?n={read}", 1 + read % HOSTS)

    config = Config.of(robots=False, lookahead=500, concurrency=20)
    async with asyncio.timeout(100), Fetcher(config, workers=2) as fetcher, fetcher.stream(source()) as outcomes:
        await anext(outcomes)
        before = 0
        while before != read:  # until nobody takes what is there
            before = read
            await asyncio.sleep(2)
        assert read < 50_000


async def test_rows_in_flight_are_told(lab: LabServer) -> None:
    urls = [lab.url("/ok"), *(lab.url("/delay/60000/ok", n) for n in range(2, 6))]
    async with asyncio.timeout(100), Fetcher(workers=2, robots=False) as fetcher, fetcher.stream(urls) as outcomes:
        await anext(outcomes)
        while len(rows := fetcher.in_flight()) < 4:
            await asyncio.sleep(0.05)
        assert {row.url for row in rows} == set(urls[1:])
        assert {row.id for row in rows} == {2, 3, 4, 5}
        assert all(row.age >= 0 for row in rows)


async def test_a_failure_is_a_failure(lab: LabServer) -> None:
    (outcome, *_) = await outcomes_of([lab.url("/status/404")], workers=2)
    assert isinstance(outcome, Failure)
    assert (outcome.error.code, outcome.error.url) == ("http_404", lab.url("/status/404"))
