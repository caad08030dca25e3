"""The library's contract, against a real server: what ``fetch``, ``stream`` and ``run`` promise, and what they leave.

Law 1: after every test no task, socket, file or row of the library is left.
Law 2: nothing waits for time to pass: the server holds an answer back until the test lets it go.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest

from fetcher import (
    Config,
    ConfigError,
    Exchange,
    Failure,
    Fetcher,
    FetchError,
    Outcome,
    Page,
    Request,
    Response,
    SinkError,
    Skipped,
    SourceError,
    StatusError,
    fetch,
    fetch_all,
    parse,
)
from fetcher.config import Limits
from fetcher.model import Stage
from fetcher.pipeline import Outcomes, concurrent
from fetcher.request_state import Handover, RequestState, Requeue, current
from tests.lab.command import environment
from tests.lab.held_case import HeldCase
from tests.lab.server import LabServer, refused_port

DEADLINE = 30.0
WINDOW = Limits().window

both = pytest.mark.parametrize("sequentially", [False, True], ids=["concurrent", "sequential"])


def own_tasks() -> list[asyncio.Task[Any]]:
    """The tasks that the library has made."""
    return [task for task in asyncio.all_tasks() if "/fetcher/" in getattr(task.get_coro(), "cr_code").co_filename]


def open_files() -> list[str]:
    return sorted(os.listdir("/dev/fd"))


def alive() -> dict[int, object]:
    """Every row and stream that somebody holds: other tests of the session may hold some of their own."""
    gc.collect()
    return {id(thing): thing for thing in gc.get_objects() if isinstance(thing, RequestState | Outcomes)}


@pytest.fixture
async def lab() -> AsyncIterator[LabServer]:
    async with LabServer() as lab:
        before, files = alive(), open_files()  # in this order: what other tests left is collected first
        yield lab
        assert own_tasks() == []
        await lab.until(lambda: lab.connections.open == 0)
        assert open_files() == files
        assert [thing for key, thing in alive().items() if key not in before] == []


@asynccontextmanager
async def opened(seams: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[Fetcher]:
    """Open a fetcher for as long as no test should take; what hangs fails."""
    async with (
        asyncio.timeout(DEADLINE),
        Fetcher(Config.of(**{"robots": False, **options}), **(seams or {})) as fetcher,
    ):
        yield fetcher


async def meet(fetcher: Fetcher, lab: LabServer) -> None:
    """Let every host answer once: until then it has one connection."""
    for host in range(1, lab.hosts + 1):
        await fetcher.fetch(lab.url("/ok", host))
    lab.clear()


def listed(lab: LabServer, rows: int, path: str = "/ok") -> list[str]:
    """URLs that are all different, on the lab's hosts in turn."""
    return [lab.url(f"{path}?title={row}", host=row % lab.hosts + 1) for row in range(rows)]


def titles(outcomes: list[Outcome]) -> list[str | None]:
    return [outcome.title if isinstance(outcome, Page) else outcome.error.code for outcome in outcomes]


def in_list(rows: int) -> list[str]:
    return [str(row) for row in range(rows)]


def counted(urls: list[str], given: list[str]) -> Iterator[str]:
    """A generator that notes what it has given, and at its end that it was closed."""
    try:
        for url in urls:
            given.append(url)
            yield url
    finally:
        given.append("closed")


class Keeper:
    """A sink that keeps what it is given; ``at_write`` is called before."""

    def __init__(self, at_write: Callable[[Keeper], Any] | None = None) -> None:
        self.outcomes: list[Outcome] = []
        self.state = "new"
        self.at_write = at_write

    async def __aenter__(self) -> Self:
        self.state = "open"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.state = kind.__name__ if kind else "closed"

    async def write(self, outcome: Outcome) -> None:
        if self.at_write is not None:
            await self.at_write(self)
        self.outcomes.append(outcome)


# One URL


async def test_fetch_returns_the_page(lab: LabServer) -> None:
    async with opened() as fetcher:
        page = await fetcher.fetch(f"  {lab.url('/hops/1')}\n")
    assert (page.status, page.title, page.links, page.attempts) == (200, "ok", 0, 1)
    assert page.url == lab.url("/ok")
    assert page.redirects == (lab.url("/ok"),)
    assert page.length == page.bytes == len((await body_of(lab, "/ok")).decode())
    assert page.request == Request(1, lab.url("/hops/1"))
    assert page.elapsed > 0


async def body_of(lab: LabServer, path: str) -> bytes:
    async with opened({"extract": lambda response: response.body}) as fetcher:
        return bytes((await fetcher.fetch(lab.url(path))).data)


@pytest.mark.parametrize(
    ("path", "code"),
    [("/status/404", "http_404"), ("/loop", "redirect_loop"), ("/cut-body", "truncated"), ("/gzip-cut", "truncated")],
)
async def test_fetch_raises_what_went_wrong(lab: LabServer, path: str, code: str) -> None:
    async with opened(retries=0) as fetcher:
        with pytest.raises(FetchError) as caught:
            await fetcher.fetch(lab.url(path))
    assert caught.value.code == code


async def test_fetch_raises_without_asking_anybody(lab: LabServer) -> None:
    async with opened(retries=0) as fetcher:
        with refused_port() as closed, pytest.raises(FetchError, match="connect_refused"):
            await fetcher.fetch(f"http://127.0.0.1:{closed}/")
        with pytest.raises(FetchError, match="invalid_url"):
            await fetcher.fetch("ftp://127.0.0.1/")
    assert lab.log == []


async def test_an_error_knows_the_url_that_failed(lab: LabServer) -> None:
    missing = lab.url("/status/404")
    async with opened(retries=0) as fetcher:
        with pytest.raises(StatusError) as caught:
            await fetcher.fetch(missing.replace("http://", "http://user:secret@"))
        assert caught.value.url == missing
        with pytest.raises(StatusError) as caught:
            await fetcher.fetch(lab.url(f"/redirect?to={missing}"))
        assert caught.value.url == missing, "the hop, not the first"
        with pytest.raises(FetchError) as refused:
            await fetcher.fetch("ftp://127.0.0.1/")
        assert refused.value.url is None, "there is none"


@both
async def test_the_error_of_a_row_knows_its_url_and_nothing_else(lab: LabServer, sequentially: bool) -> None:
    missing, cut = lab.url("/status/404"), lab.url("/cut-body")
    urls = [lab.url(f"/redirect?to={missing}"), cut, "ftp://127.0.0.1/", lab.url("/ok")]
    async with opened({"extract": price}, retries=0) as fetcher:
        rows = await drained(fetcher, urls, ordered=True, sequentially=sequentially)
    errors = [row.error for row in rows if isinstance(row, Failure)]
    assert [(error.code, error.url) for error in errors] == [
        ("http_404", missing),
        ("truncated", cut),
        ("invalid_url", None),
        ("extract_failed", urls[3]),
    ]
    for error in errors:
        assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)


async def test_an_error_that_is_raised_keeps_its_cause(lab: LabServer) -> None:
    async with opened({"extract": price}, retries=0) as fetcher:
        with pytest.raises(FetchError) as caught:
            await fetcher.fetch(lab.url("/ok"))
        assert isinstance(caught.value.__cause__, ValueError)
        with refused_port() as closed, pytest.raises(FetchError) as caught:
            await fetcher.fetch(f"http://127.0.0.1:{closed}/")
        assert isinstance(caught.value.__cause__, OSError)


async def test_the_error_of_a_request_within_a_middleware_is_about_that_request(lab: LabServer) -> None:
    async def log_in(request: Request, proceed: Exchange) -> Response:
        async with opened(retries=0) as other:
            await other.fetch(lab.url("/status/403"))
        return await proceed(request)

    async with opened({"middleware": [log_in]}, retries=0) as fetcher:
        [row] = await drained(fetcher, [lab.url("/ok")])
    assert isinstance(row, Failure)
    assert row.error.url == lab.url("/status/403")


async def test_fetch_tries_again(lab: LabServer) -> None:
    async with opened(retries=2, backoff=0.001) as fetcher:
        page = await fetcher.fetch(lab.url("/flaky/a?fail=2&status=500"))
        assert page.attempts == 3
        assert page.waited > 0.001  # twice half of the backoff at least
        with pytest.raises(StatusError) as caught:
            await fetcher.fetch(lab.url("/flaky/b?fail=3&status=500"))
    assert caught.value.status == 500


def test_the_blocking_calls_need_no_loop() -> None:
    with LabServer.in_thread() as lab:
        assert fetch(lab.url("/ok?title=one")).title == "one"
        with pytest.raises(StatusError):
            fetch(lab.url("/status/410"))
        urls = [*listed(lab, 5), lab.url("/status/404"), "ftp://no.example/", "", lab.url("/ok?title=0")]
        outcomes = fetch_all(iter(urls), Config.of(concurrency=2))
        assert titles(outcomes) == [*in_list(5), "http_404", "invalid_url", "invalid_url", "0"]
        assert [outcome.request for outcome in outcomes] == [Request(row, url) for row, url in enumerate(urls, 1)]
        assert fetch_all([]) == []


def test_the_blocking_calls_take_options_as_keywords() -> None:
    with LabServer.in_thread() as lab:
        urls = [*listed(lab, 6), lab.url("/status/404")]
        outcomes = fetch_all(urls, concurrency=1, robots=False, select={"said": "title"}, keep_body=True)
        assert lab.peak() == 1
        pages = [outcome for outcome in outcomes if isinstance(outcome, Page)]
        assert [page.data for page in pages] == [{"said": row} for row in in_list(6)]
        assert all(page.body and page.text and len(page.text) == page.length for page in pages)
        assert fetch_all(urls[:1], Config(robots=False))[0].ok
        page = fetch(Request(7, urls[0]), robots=False, extract=lambda response: response.status)
        assert (page.data, page.body, page.request.id) == (200, None, 7)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"per_hots": 2}, r"unknown option 'per_hots' \(did you mean 'per_host'\?\)"),
        ({"exract": len}, r"unknown option 'exract' \(did you mean 'extract'\?\)"),
        ({"config": {"per_host": 2}}, r"a dict is no Config: write Config.of\(\*\*options\)"),
        ({"config": Config(), "delay": 1}, "a config is given, and delay beside it"),
        ({"timeout": "soon"}, "timeout soon: must be a time"),
    ],
)
def test_a_wrong_option_is_named_wherever_it_is_given(given: dict[str, Any], message: str) -> None:
    calls: list[Callable[..., Any]] = [Fetcher, partial(fetch, "http://127.0.0.1/"), partial(fetch_all, [])]
    for call in calls:
        with pytest.raises(ConfigError, match=message):
            call(**given)


# Blocking, where a loop is running


CARRIED: contextvars.ContextVar[str] = contextvars.ContextVar("carried", default="nothing")


async def test_the_blocking_calls_work_where_a_loop_is_running() -> None:
    threads = set(threading.enumerate())
    with LabServer.in_thread() as lab:
        urls = [*listed(lab, 5), lab.url("/status/404")]
        assert titles(fetch_all(urls, robots=False)) == [*in_list(5), "http_404"]
        assert fetch(urls[0], robots=False).title == "0"
        with pytest.raises(StatusError) as caught:
            fetch(urls[-1], robots=False)
        assert caught.value.url == urls[-1]
        with pytest.raises(ConfigError, match="per_hots"):
            fetch_all(urls, per_hots=1)  # type: ignore[call-arg]  # that there is none is the point
    assert not set(threading.enumerate()) - threads
    assert own_tasks() == []


async def test_there_the_list_is_read_and_functions_are_called_with_the_callers_context() -> None:
    seen: list[tuple[str, bool]] = []

    def note() -> None:
        seen.append((CARRIED.get(), threading.current_thread() is threading.main_thread()))

    def rows(url: str) -> Iterator[str]:
        note()
        yield url

    token = CARRIED.set("carried")
    try:
        with LabServer.in_thread() as lab:
            fetch_all(rows(lab.url("/ok")), robots=False, extract=lambda _: note())
    finally:
        CARRIED.reset(token)
    assert seen == [("carried", False), ("carried", False)]


async def test_there_a_bug_comes_out_as_it_is_and_leaves_nothing() -> None:
    bug = KeyError("mine")

    def rows() -> Iterator[str]:
        yield "http://127.0.0.1:1/"
        raise bug

    before = alive()
    for _ in range(2):
        with pytest.raises(KeyError) as caught:
            fetch_all(rows(), robots=False)
        assert caught.value is bug
    del caught
    bug.__traceback__ = None
    assert [thing for key, thing in alive().items() if key not in before] == []


async def test_there_a_page_may_be_parsed_in_a_process_of_its_own() -> None:
    with LabServer.in_thread() as lab:
        lab.add("/large", "<p>" * 20_000)
        page = fetch(lab.url("/large"), robots=False, isolate=True, parsers=1)
    assert page.length == 60_000


NESTED = """
import asyncio, signal, sys, threading, time
from fetcher import fetch_all

def rows():
    if sys.argv[3:]:
        print("stuck", flush=True)
        time.sleep(500)
    try:
        yield sys.argv[2]
    finally:
        print("closed", flush=True)

async def main():
    fetch_all(rows(), robots=False, timeout=500, read_timeout=500)

def plain():
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()

def fast():
    import uvloop
    uvloop.run(main())

try:
    {"asyncio": lambda: asyncio.run(main()), "plain": plain, "uvloop": fast}[sys.argv[1]]()
except KeyboardInterrupt:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("interrupted", threading.active_count(), flush=True)
"""


@pytest.mark.parametrize("kind", ["asyncio", "plain", "uvloop"])
def test_ctrl_c_ends_a_blocking_call_within_a_loop(kind: str, tmp_path: Path) -> None:
    if kind == "uvloop":
        pytest.importorskip("uvloop")
    with LabServer.in_thread() as lab:
        lab.add("/held", HeldCase())
        process = subprocess.Popen(
            [sys.executable, "-c", NESTED, kind, lab.url("/held")],
            env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        with process:
            try:
                lab.site.stats.wait(lambda: lab.requests("/held") != [], DEADLINE)
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=DEADLINE)
            finally:
                process.kill()
    assert (out, err, process.returncode) == ("closed\ninterrupted 1\n", "", 0)


@pytest.mark.parametrize("kind", ["asyncio", "plain"])
def test_a_second_ctrl_c_does_not_wait(kind: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", NESTED, kind, "http://127.0.0.1/", "stuck"],
        env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            assert process.stdout and process.stdout.readline() == "stuck\n"
            ended = threading.Event()
            striker = threading.Thread(target=strike, args=(process, ended))
            striker.start()
            out, err = process.communicate(timeout=DEADLINE)
        finally:
            ended.set()
            process.kill()
        striker.join()
    assert (out, err, process.returncode) == ("interrupted 2\n", "", 0)


def strike(process: subprocess.Popen[str], ended: threading.Event) -> None:
    """Press Ctrl-C until the process has ended: two that come at once may be one."""
    while not ended.wait(0.3):
        process.send_signal(signal.SIGINT)


async def test_a_fetcher_that_is_not_open_says_so(lab: LabServer) -> None:
    fetcher = Fetcher()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="async with Fetcher"):
            await fetcher.fetch(lab.url("/ok"))
        with pytest.raises(RuntimeError, match="async with Fetcher"):
            async with fetcher.stream([lab.url("/ok")]):
                pass
        with pytest.raises(RuntimeError, match="async with Fetcher"):
            await fetcher.run([lab.url("/ok")], Keeper())
        async with fetcher:
            assert (await fetcher.fetch(lab.url("/ok"))).ok


# Many: what comes, and in which order


@both
async def test_every_row_comes_out_once(lab: LabServer, sequentially: bool) -> None:
    urls = [*listed(lab, 40), lab.url("/status/404"), "no url at all:", lab.url("/loop"), *listed(lab, 3)]
    async with opened(concurrency=7) as fetcher, fetcher.stream(urls, sequentially=sequentially) as outcomes:
        seen = [outcome async for outcome in outcomes]
        assert [outcome async for outcome in outcomes] == []
    assert sorted(outcome.request.id for outcome in seen) == list(range(1, 47))
    assert {outcome.request.id: outcome.request.url for outcome in seen} == dict(enumerate(urls, 1))
    stats = outcomes.stats
    assert (stats.input, stats.ok, stats.failed, stats.pending, stats.more) == (46, 43, 3, 0, False)
    assert dict(stats.codes) == {"http_404": 1, "invalid_url": 1, "redirect_loop": 1}


async def test_outcomes_come_as_they_complete(lab: LabServer) -> None:
    gate = HeldCase()
    lab.add("/slow", gate)
    urls = [lab.url("/slow?title=slow"), *listed(lab, 9)]
    async with opened() as fetcher:
        await meet(fetcher, lab)
        async with fetcher.stream(urls) as outcomes:
            first = [await anext(outcomes) for _ in range(9)]
            gate.open()
            assert titles([outcome async for outcome in outcomes]) == ["slow"]
    assert sorted(titles(first), key=str) == in_list(9)


async def test_ordered_waits_for_the_first_and_goes_no_further_than_the_window(lab: LabServer) -> None:
    gate = HeldCase()
    lab.add("/slow", gate)
    given: list[str] = []
    urls = [lab.url("/slow?title=0"), *listed(lab, WINDOW + 50)[1:]]
    async with opened(concurrency=2) as fetcher:
        await meet(fetcher, lab)
        async with fetcher.stream(counted(urls, given), ordered=True) as outcomes:
            reading = asyncio.create_task(anext(outcomes))
            await lab.until(lambda: len(lab.log) == WINDOW)
            assert len(given) in (WINDOW, WINDOW + 1)
            assert not reading.done()
            gate.open()
            seen = [await reading, *[outcome async for outcome in outcomes]]
    assert titles(seen) == in_list(WINDOW + 50)
    assert lab.peak() == 2


async def test_ordered_keeps_failures_in_their_place(lab: LabServer) -> None:
    urls = [
        "nothing:", lab.url("/ok?title=a"), lab.url("/flaky/k?fail=1&status=500&title=b"), lab.url("/status/404"),
        lab.url("/ok?title=c"), lab.url("/ok?title=a"),
    ]  # fmt: skip
    async with opened(dedupe=True, backoff=0.001) as fetcher, fetcher.stream(urls, ordered=True) as outcomes:
        seen = [outcome async for outcome in outcomes]
    assert titles(seen) == ["invalid_url", "a", "ok", "http_404", "c", "duplicate"]


@both
async def test_requests_carry_what_is_the_callers(lab: LabServer, sequentially: bool) -> None:
    tag = object()
    row = Request(77, lab.url("/echo"), (("X-Row", "seventy-seven"),), {"sku": 5}, tag)
    async with opened() as fetcher, fetcher.stream([row], sequentially=sequentially) as outcomes:
        (outcome,) = [outcome async for outcome in outcomes]
    assert outcome.request is row
    assert lab.log[0].header("x-row") == "seventy-seven"


@both
async def test_a_source_is_a_list_of_urls(lab: LabServer, sequentially: bool) -> None:
    async with opened() as fetcher:
        with pytest.raises(TypeError, match="list"):
            async with fetcher.stream(lab.url("/ok"), sequentially=sequentially):
                pass
        with pytest.raises(TypeError, match="row 2"):
            async with fetcher.stream([lab.url("/ok"), 7], sequentially=sequentially) as outcomes:  # type: ignore[list-item]  # what is tested
                _ = [outcome async for outcome in outcomes]
        async with fetcher.stream([], sequentially=sequentially) as outcomes:
            assert [outcome async for outcome in outcomes] == []
        assert outcomes.stats.input == 0


@both
async def test_limit_is_the_number_of_rows_taken(lab: LabServer, sequentially: bool) -> None:
    given: list[str] = []
    source = counted(listed(lab, 50), given)
    async with opened(limit=5) as fetcher, fetcher.stream(source, sequentially=sequentially) as outcomes:
        assert len([outcome async for outcome in outcomes]) == 5
    assert len(given) == 6
    assert given[-1] == "closed"
    assert (outcomes.stats.input, outcomes.stats.pending) == (5, 0)


@both
async def test_duplicates_are_fetched_unless_told_otherwise(lab: LabServer, sequentially: bool) -> None:
    urls = [lab.url("/ok"), lab.url("/ok#top"), lab.url("/ok").replace("http:", "HTTP:"), lab.url("/ok?")]
    for dedupe, asked in ((False, 4), (True, 2)):
        lab.clear()
        async with opened(dedupe=dedupe) as fetcher, fetcher.stream(urls, sequentially=sequentially) as outcomes:
            seen = {outcome.request.id: outcome async for outcome in outcomes}
        assert len(lab.log) == asked
        assert [row for row, outcome in sorted(seen.items()) if not outcome.ok] == ([2, 3] if dedupe else [])
        assert (outcomes.stats.ok, outcomes.stats.skipped) == (asked, 4 - asked)
    duplicate = seen[2]
    assert isinstance(duplicate, Failure)
    assert isinstance(duplicate.error, Skipped)
    assert duplicate.attempts == 0


# Backpressure


async def test_a_slow_sink_stops_the_source(lab: LabServer) -> None:
    go, given = asyncio.Event(), list[str]()
    rows, sink = WINDOW + 200, Keeper(lambda _: go.wait())
    async with opened(concurrency=3, lookahead=20) as fetcher:  # a host each: all slots are in use
        running = asyncio.create_task(fetcher.run(counted(listed(lab, rows), given), sink))
        await lab.until(lambda: len(lab.log) == 1 + WINDOW and not fetcher.in_flight())
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(lab.log) == 1 + WINDOW
        assert len(given) <= 1 + WINDOW + 20 + 4
        go.set()
        stats = await running
    assert len(sink.outcomes) == stats.ok == rows
    assert given[-1] == "closed"


async def test_a_row_is_fetched_while_the_source_thinks_about_the_next(lab: LabServer) -> None:
    go_on = asyncio.Event()

    async def thinking() -> AsyncIterator[str]:
        for url in listed(lab, 3):
            yield url
            await go_on.wait()
            go_on.clear()

    async with opened() as fetcher, fetcher.stream(thinking()) as outcomes:
        async for outcome in outcomes:
            assert titles([outcome]) == [str(outcomes.stats.done - 1)]
            assert outcomes.stats.input == outcomes.stats.done
            go_on.set()
    assert outcomes.stats.ok == 3


async def test_a_source_that_never_waits_leaves_the_loop_its_turns(lab: LabServer) -> None:
    class Eager:
        read = 0

        def __aiter__(self) -> Self:
            return self

        async def __anext__(self) -> str:
            self.read += 1
            return lab.url(f"/ok?title={self.read}")

    source, most, before = Eager(), 0, 0

    async def watch() -> None:
        nonlocal most, before
        while True:
            most, before = max(most, source.read - before), source.read
            await asyncio.sleep(0)

    async with opened() as fetcher, fetcher.stream(source) as outcomes:
        watching = asyncio.create_task(watch())
        assert (await anext(outcomes)).ok
        watching.cancel()
    assert 0 < most < 1_000


# Leaving early


@both
async def test_breaking_out_of_an_endless_source_leaves_nothing(lab: LabServer, sequentially: bool) -> None:
    given: list[str] = []

    def endless() -> Iterator[str]:
        try:
            for row in itertools.count():
                yield lab.url(f"/ok?title={row}", host=row % 3 + 1)
        finally:
            given.append("closed")

    async with opened(lookahead=50) as fetcher:
        async with fetcher.stream(endless(), sequentially=sequentially) as outcomes:
            async for _ in outcomes:
                if outcomes.stats.done == 20:
                    break
        assert given == ["closed"]
        assert own_tasks() == []
        assert fetcher.in_flight() == []
        assert outcomes.stats.more
        assert (await fetcher.fetch(lab.url("/ok"))).ok


def waiting_source(urls: list[str], state: list[str]) -> AsyncIterator[str]:
    """A source that gives these and then waits for ever; it notes its end."""

    async def rows() -> AsyncIterator[str]:
        try:
            for url in urls:
                yield url
            await asyncio.Event().wait()
        finally:
            state.append("closed")

    return rows()


@pytest.mark.parametrize("end", ["break", "error", "stop"])
async def test_leaving_a_stream_ends_its_source_and_its_requests(lab: LabServer, end: str) -> None:
    state: list[str] = []
    lab.add("/held", HeldCase())
    async with opened() as fetcher:
        try:
            async with fetcher.stream(waiting_source([lab.url("/ok"), lab.url("/held")], state)) as outcomes:
                async for _ in outcomes:
                    await lab.until(lambda: len(lab.requests("/held")) == 1)
                    if end == "break":
                        break
                    if end == "error":
                        raise LookupError
                    fetcher.stop(grace=0)
        except LookupError:
            assert end == "error"
        assert state == ["closed"]
        assert own_tasks() == []
        assert (outcomes.stats.input, outcomes.stats.ok, outcomes.stats.pending) == (2, 1, 1)
        await lab.until(lambda: all(entry.t_end for entry in lab.log))


@both
async def test_cancelling_the_reader_cancels_everything(lab: LabServer, sequentially: bool) -> None:
    state: list[str] = []
    lab.add("/held", HeldCase())
    async with opened() as fetcher:
        await meet(fetcher, lab)

        async def read() -> None:
            source = waiting_source(listed(lab, 5, "/held"), state)
            async with fetcher.stream(source, sequentially=sequentially) as outcomes:
                async for _ in outcomes:
                    pytest.fail("nothing was let go")

        task = asyncio.create_task(read())
        await lab.until(lambda: len(lab.log) == (1 if sequentially else 5))
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert state == ["closed"]
        assert own_tasks() == []
        assert fetcher.in_flight() == []
        await lab.until(lambda: all(entry.t_end for entry in lab.log))
        assert (await fetcher.fetch(lab.url("/ok"))).ok


async def test_a_robots_txt_that_is_being_asked_for_is_given_up_with_the_fetcher(lab: LabServer) -> None:
    lab.add("/robots.txt", HeldCase())
    async with opened(robots=True) as fetcher:
        async with fetcher.stream([lab.url("/ok")]):
            await lab.until(lambda: len(lab.requests("/robots.txt")) == 1)
        assert len(own_tasks()) == 1  # others may wait for it
    assert own_tasks() == []


def test_with_one_process_all_is_imported_before_the_first_row(tmp_path: Path) -> None:
    """Its time, a fifth of a second, would be the row's, and that of the first round of a bench."""
    program = (
        "import asyncio, sys\nfrom fetcher import Fetcher\n"
        "async def main():\n    async with Fetcher():\n        return 'aiohttp' in sys.modules\n"
        "print(asyncio.run(main()))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, env=environment(tmp_path), capture_output=True, text=True, check=True, timeout=DEADLINE
    )
    assert done.stdout == "True\n"


def test_an_interrupt_ends_it_all() -> None:
    gate, before = HeldCase(), alive()
    with LabServer.in_thread() as lab:
        lab.add("/held", gate)
        stats = lab.site.stats

        async def main() -> None:
            async with opened() as fetcher:
                await meet(fetcher, lab)
                async with fetcher.stream(listed(lab, 9, "/held")) as outcomes:
                    nine = asyncio.to_thread(stats.wait, lambda: len(stats.active()) == 9, DEADLINE)
                    flying = asyncio.create_task(nine)
                    flying.add_done_callback(lambda _: signal.raise_signal(signal.SIGINT))
                    async for _ in outcomes:
                        pytest.fail("nothing was let go")

        with pytest.raises(KeyboardInterrupt):
            asyncio.run(main())
        assert stats.wait(lambda: stats.connections().open == 0, DEADLINE)
        assert len(lab.log) == 9
    assert [thing for key, thing in alive().items() if key not in before] == []


async def test_stop_lets_what_is_on_the_wire_finish(lab: LabServer) -> None:
    gate = HeldCase()
    lab.add("/held", gate)
    async with opened(concurrency=4, per_host=2) as fetcher:
        await meet(fetcher, lab)
        async with fetcher.stream(listed(lab, 30, "/held")) as outcomes:
            reading = asyncio.create_task(anext(outcomes))
            await lab.until(lambda: len(lab.log) == 4)
            fetcher.stop()
            fetcher.stop()
            gate.open()
            seen = [await reading, *[outcome async for outcome in outcomes]]
        assert len(seen) == len(lab.log) == 4
        assert (outcomes.stats.input, outcomes.stats.ok, outcomes.stats.pending) == (30, 4, 26)
        assert len(await drained(fetcher, listed(lab, 9))) == 9


async def test_any_grace_lets_what_is_on_the_wire_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once: list[bool] = []
    async with opened() as fetcher, fetcher.stream([]) as outcomes:
        assert isinstance(outcomes, Outcomes)
        monkeypatch.setattr(outcomes._dispatcher, "stop", lambda *, now: at_once.append(now))
        outcomes.stop(0.5)
        outcomes.stop(0)
    assert at_once == [False, True]


async def test_what_was_delivered_in_order_is_let_go(lab: LabServer) -> None:
    async with opened(keep_body=True) as fetcher, fetcher.stream(listed(lab, 5), ordered=True) as outcomes:
        assert isinstance(outcomes, Outcomes)
        assert [outcome.request.id async for outcome in outcomes] == [1, 2, 3, 4, 5]
        assert (outcomes._rows, outcomes._held) == ({}, {})


async def test_after_its_grace_a_run_ends_whatever_is_on_the_wire(lab: LabServer) -> None:
    lab.add("/held", HeldCase())
    async with opened(concurrency=2) as fetcher:
        await meet(fetcher, lab)
        async with fetcher.stream(listed(lab, 3, "/held")) as outcomes:
            reading = asyncio.create_task(anext(outcomes, None))
            await lab.until(lambda: len(lab.log) == 2)
            outcomes.stop(0.05)
            assert await asyncio.wait_for(reading, DEADLINE / 2) is None
        assert (outcomes.stats.input, outcomes.stats.pending) == (3, 3)


async def test_stop_wakes_who_waits_for_a_row_that_never_comes() -> None:
    state: list[str] = []
    async with opened() as fetcher, fetcher.stream(waiting_source([], state)) as outcomes:
        reading = asyncio.create_task(anext(outcomes, None))
        await asyncio.sleep(0)
        fetcher.stop()
        assert await asyncio.wait_for(reading, DEADLINE) is None
    assert state in (["closed"], [])  # it may not have been asked for a row yet


async def drained(fetcher: Fetcher, urls: list[str], **how: Any) -> list[Outcome]:
    async with fetcher.stream(urls, **how) as outcomes:
        return [outcome async for outcome in outcomes]


@both
async def test_a_time_limit_ends_an_endless_run(lab: LabServer, sequentially: bool) -> None:
    endless = (lab.url(f"/ok?title={row}") for row in itertools.count())
    async with opened(time_limit=0.1, lookahead=9) as fetcher:
        stats = await fetcher.run(endless, Keeper(), sequentially=sequentially)
    assert stats.more
    assert stats.input == stats.ok + stats.pending


async def test_a_reader_may_give_up_waiting_and_read_on(lab: LabServer) -> None:
    gate = HeldCase()
    lab.add("/held", gate)
    async with opened() as fetcher, fetcher.stream(listed(lab, 3, "/held")) as outcomes:
        for _ in range(3):
            impatient = asyncio.create_task(anext(outcomes))
            await asyncio.sleep(0)
            impatient.cancel()
            await asyncio.wait([impatient])
        gate.open()
        assert sorted([outcome.request.id async for outcome in outcomes]) == [1, 2, 3]


async def test_readers_may_share_a_stream(lab: LabServer) -> None:
    gate = HeldCase()
    lab.add("/held", gate)
    seen: list[int] = []

    async def read(outcomes: AsyncIterator[Outcome]) -> None:
        async for outcome in outcomes:
            seen.append(outcome.request.id)
            await asyncio.sleep(0)

    async with opened() as fetcher:
        await meet(fetcher, lab)
        async with fetcher.stream(listed(lab, 20, "/held")) as outcomes:
            readers = [asyncio.create_task(read(outcomes)) for _ in range(3)]
            await lab.until(lambda: len(lab.log) > 3)
            gate.open()
            await asyncio.gather(*readers)
    assert sorted(seen) == list(range(1, 21))


# The seams


async def test_in_flight_tells_url_stage_and_age(lab: LabServer) -> None:
    gate = HeldCase()
    lab.add("/held", gate)
    urls = [lab.url("/held"), lab.url("/held", host=2), lab.url("/held?second")]
    async with opened(per_host=1, lookahead=9) as fetcher:
        assert fetcher.in_flight() == []
        async with fetcher.stream(urls) as outcomes:
            reading = asyncio.create_task(anext(outcomes))
            await lab.until(lambda: len(lab.log) == 2)
            rows = sorted(fetcher.in_flight(), key=lambda row: row.id)
            assert [(row.id, row.url, row.stage, row.attempts) for row in rows] == [
                (1, urls[0], "waiting", 0),
                (2, urls[1], "waiting", 0),
            ]
            assert all(row.age >= row.in_stage >= 0 for row in rows)
            gate.open()
            assert len([await reading, *[outcome async for outcome in outcomes]]) == 3
            assert fetcher.in_flight() == []


@both
async def test_a_snapshot_tells_what_runs_and_that_there_are_no_workers(lab: LabServer, sequentially: bool) -> None:
    gate = HeldCase()
    lab.add("/held", gate)
    urls = [lab.url("/held"), lab.url("/ok")]
    async with opened() as fetcher, fetcher.stream(urls, sequentially=sequentially) as outcomes:
        reading = asyncio.create_task(anext(outcomes))
        await lab.until(lambda: len(lab.log) == 1)
        snapshot = fetcher.snapshot()
        assert snapshot.workers == []
        assert [(host.running, host.on_wire) for host in snapshot.hosts] == ([] if sequentially else [(1, 1)])
        fetcher.set_limits(concurrency=1)  # as many as there are processes
        assert fetcher.snapshot().limits.concurrency == 1
        gate.open()
        assert [outcome.ok for outcome in [await reading, *[outcome async for outcome in outcomes]]] == [True, True]


async def test_a_page_that_was_parsed_in_a_process_of_its_own_is_in_flight_no_more() -> None:
    async def large(request: Request) -> Response:
        body = b"<title>large</title>" + b"<p>x" * 400_000
        return Response(request, request.url, 200, (("content-type", "text/html"),), body)

    stages: set[str] = set()
    async with opened({"transport": large}) as fetcher, fetcher.stream(["http://a.example/"]) as outcomes:
        reading = asyncio.create_task(anext(outcomes))
        while not reading.done():
            stages.update(row.stage for row in fetcher.in_flight())
            await asyncio.sleep(0.001)
        page = await reading
        assert isinstance(page, Page)
        assert page.title == "large"
        assert "parsing" in stages
        for _ in range(3):
            await asyncio.sleep(0)
        assert fetcher.in_flight() == []


def price(response: Response) -> float:
    return float(str(parse(response).title))


@both
async def test_an_extractor_makes_the_data_and_its_error_costs_one_row(lab: LabServer, sequentially: bool) -> None:
    urls = [lab.url("/ok?title=1.5"), lab.url("/ok?title=free"), lab.url("/ok?title=2")]
    async with opened({"extract": price}) as fetcher:
        good, bad, other = await drained(fetcher, urls, ordered=True, sequentially=sequentially)
        with pytest.raises(FetchError, match="could not convert string to float: 'free'"):
            await fetcher.fetch(urls[1])
    assert isinstance(good, Page)
    assert isinstance(other, Page)
    assert (good.data, other.data) == (1.5, 2.0)
    assert isinstance(bad, Failure)
    assert (bad.error.code, bad.url, bad.status, bad.attempts) == ("extract_failed", urls[1], 200, 1)


def where(_: Response) -> int:
    return os.getpid()


@both
async def test_a_small_page_is_read_in_this_process(lab: LabServer, sequentially: bool) -> None:
    async with opened({"extract": where}) as fetcher:
        pages = await drained(fetcher, listed(lab, 3), sequentially=sequentially)
    assert [page.data for page in pages if isinstance(page, Page)] == [os.getpid()] * 3


@both
@pytest.mark.parametrize("follow", [False, True])
async def test_a_page_whose_links_may_do_harm_is_read_in_a_process_of_its_own(sequentially: bool, follow: bool) -> None:
    def children() -> set[str]:
        return {pid for told in Path("/proc/self/task").glob("*/children") for pid in told.read_text().split()}

    async def nested(request: Request) -> Response:
        return Response(request, request.url, 200, (("content-type", "text/html"),), b"<b>" * 400_000)

    async with opened({"transport": nested}, follow=follow, parse=False) as fetcher:
        before = children()
        (page,) = await drained(fetcher, ["http://a.example/"], sequentially=sequentially)
        assert page.ok
        assert bool(children() - before) is follow


@both
async def test_middleware_stands_around_each_row_the_first_outermost(lab: LabServer, sequentially: bool) -> None:
    trail: list[str] = []

    def named(name: str) -> Callable[[Request, Exchange], Any]:
        async def stand(request: Request, proceed: Exchange) -> Response:
            trail.append(f"{name} in")
            response = await proceed(request)
            trail.append(f"{name} out")
            return response

        return stand

    async with opened({"middleware": [named("outer"), named("inner")]}, backoff=0.001) as fetcher:
        seen = await drained(fetcher, [lab.url("/flaky/x?fail=1&status=500")], sequentially=sequentially)
        assert seen[0].attempts == 2
        await fetcher.fetch(lab.url("/ok"))
    assert trail == ["outer in", "inner in", "inner out", "outer out"] * 2


@both
async def test_middleware_may_change_the_request_and_the_answer(lab: LabServer, sequentially: bool) -> None:
    async def sign(request: Request, proceed: Exchange) -> Response:
        response = await proceed(msgspec.structs.replace(request, headers=(("X-Token", "t0"),), url=request.url + "?a"))
        return msgspec.structs.replace(response, body=response.body.replace(b"GET", b"<title>changed</title>"))

    row = Request(5, lab.url("/echo"), fields={"sku": 1})
    async with opened({"middleware": [sign]}) as fetcher, fetcher.stream([row], sequentially=sequentially) as outcomes:
        (page,) = [outcome async for outcome in outcomes]
    assert isinstance(page, Page)
    assert page.length == len(lab.log[0].head) - len("GET") + len("<title>changed</title>")
    assert page.url == lab.url("/echo?a")
    assert lab.log[0].header("x-token") == "t0"
    assert page.request is row  # the outcome is that of the row, whatever was sent for it


@both
async def test_middleware_may_answer_without_asking(lab: LabServer, sequentially: bool) -> None:
    kept: dict[str, Response] = {}

    async def cache(request: Request, proceed: Exchange) -> Response:
        if request.url not in kept:
            kept[request.url] = await proceed(request)
        return kept[request.url]

    async with opened({"middleware": [cache]}, per_host=1) as fetcher:
        await fetcher.fetch(lab.url("/ok?title=kept"))
        seen = await drained(fetcher, [lab.url("/ok?title=kept")] * 20, sequentially=sequentially)
    assert sorted(outcome.request.id for outcome in seen) == list(range(1, 21))
    assert titles(seen) == ["kept"] * 20
    assert len(lab.log) == 1


@both
async def test_middleware_may_turn_an_error_into_a_page_and_a_page_into_an_error(
    lab: LabServer, sequentially: bool
) -> None:
    async def swap(request: Request, proceed: Exchange) -> Response:
        try:
            response = await proceed(request)
        except StatusError as error:
            return Response(
                request, request.url, error.status, (("content-type", "text/html"),), b"<title>sorry</title>"
            )
        raise FetchError("soft_404", f"{len(response.body)} bytes say nothing")

    async with opened({"middleware": [swap]}) as fetcher:
        urls = [lab.url("/status/404"), lab.url("/ok")]
        seen = await drained(fetcher, urls, ordered=True, sequentially=sequentially)
    assert titles(seen) == ["sorry", "soft_404"]


@both
async def test_middleware_may_ask_twice_and_ask_for_something_else(lab: LabServer, sequentially: bool) -> None:
    async def with_token(request: Request, proceed: Exchange) -> Response:
        if "token" in request.url:
            return await proceed(request)
        token = await fetcher.fetch(lab.url("/ok?title=token"))
        await proceed(request)
        return await proceed(msgspec.structs.replace(request, headers=(("X-Token", str(token.title)),)))

    async with opened({"middleware": [with_token]}, concurrency=1, per_host=1) as fetcher:
        assert titles(await drained(fetcher, listed(lab, 3), ordered=True, sequentially=sequentially)) == in_list(3)
    assert [entry.header("x-token") for entry in lab.log].count("token") == 3
    assert len(lab.log) == 9
    assert lab.peak() == 1


async def test_who_fetches_one_page_is_told_of_a_middleware_that_sends_it_back() -> None:
    async def sends_back(request: Request, proceed: Exchange) -> Response:
        raise Requeue(0.0)

    async with opened({"middleware": [sends_back]}) as fetcher:
        with pytest.raises(RuntimeError, match="row 1 was sent back, and there is nobody to take it"):
            await fetcher.fetch("http://a.example/")


async def test_who_fetches_one_page_is_left_without_its_row(lab: LabServer) -> None:
    async with opened() as fetcher:
        assert (await fetcher.fetch(lab.url("/ok"))).ok
        with pytest.raises(StatusError):
            await fetcher.fetch(lab.url("/status/404"))
    assert current.get(None) is None  # it would stay in memory, and be taken for the row of whatever is asked next


async def test_a_row_that_goes_back_to_wait_holds_no_memory(lab: LabServer) -> None:
    held: list[bool] = []

    async def asks_on(request: Request, proceed: Exchange) -> Response:
        held.append(current.get().holds_memory)
        response = await proceed(request)  # the first time it has a body in memory, and there is more to ask
        if len(held) == 1:
            assert current.get().holds_memory
            raise Requeue(0.0)
        return response

    async with opened({"middleware": [asks_on]}) as fetcher:
        (outcome,) = await drained(fetcher, [lab.url("/bytes?n=200000")])
        assert outcome.ok
    assert held == [False, False]


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("keep_body", [False, True])
async def test_outcomes_that_nobody_takes_hold_memory_for_bodies_alone_and_until_the_stream_is_left(
    lab: LabServer, keep_body: bool, ordered: bool
) -> None:
    states: list[RequestState] = []
    lab.add("/held", held := HeldCase())

    async def noting(request: Request, proceed: Exchange) -> Response:
        states.append(current.get())
        response = await proceed(request)
        assert current.get().holds_memory  # a large body does, until it is read
        return response

    urls = [lab.url(f"/bytes?n=300000&row={row}") for row in range(6)]
    urls.insert(0 if ordered else len(urls), lab.url("/held?size=300000"))
    async with opened({"middleware": [noting]}, keep_body=keep_body) as fetcher:
        async with fetcher.stream(urls, ordered=ordered) as outcomes:
            assert isinstance(outcomes, Outcomes)
            while len([state for state in states if state.stage is Stage.QUEUED]) < 6 or outcomes._queue.qsize():
                await asyncio.sleep(0.01)
            assert len([state for state in states if state.holds_memory]) == (6 if keep_body else 0)
        assert [state for state in states if state.holds_memory] == []
    held.open()


async def test_a_stream_whose_last_row_goes_on_elsewhere_ends() -> None:
    left: list[RequestState] = []

    async def goes_on_elsewhere(request: Request) -> Response:
        await asyncio.sleep(0.05)  # the source has ended
        raise Handover

    async with opened() as fetcher:
        engine = msgspec.structs.replace(fetcher._running(), handle=goes_on_elsewhere, leave=left.append)
        async with concurrent(engine, ["http://a.example/", "http://b.example/"]) as outcomes:
            assert [outcome async for outcome in outcomes] == []
    assert sorted(state.request.id for state in left) == [1, 2]


@both
async def test_middleware_may_send_every_row_to_another_host(lab: LabServer, sequentially: bool) -> None:
    async def mirror(request: Request, proceed: Exchange) -> Response:
        return await proceed(msgspec.structs.replace(request, url=request.url.replace("127.0.0.1", "127.0.0.2")))

    async with opened({"middleware": [mirror]}, per_host=2) as fetcher:
        urls = [lab.url(f"/ok?title={row}") for row in range(12)]
        assert titles(await drained(fetcher, urls, ordered=True, sequentially=sequentially)) == in_list(12)
    assert {entry.host for entry in lab.log} == {"127.0.0.2"}
    assert lab.peak(2) <= 2


# Trouble that ends the run


@both
async def test_a_source_that_breaks_delivers_first_what_was_read(lab: LabServer, sequentially: bool) -> None:
    def breaking() -> Iterator[str]:
        yield from [*listed(lab, 9), lab.url("/delay/20/ok?title=9")]
        raise SourceError("list.txt:11: the disk is gone")

    sink = Keeper()
    async with opened() as fetcher:
        with pytest.raises(SourceError, match=r"list\.txt:11"):
            await fetcher.run(breaking(), sink, sequentially=sequentially)
        assert own_tasks() == []
        assert sorted(titles(sink.outcomes), key=str) == in_list(10)
        assert sink.state == "SourceError"


@both
async def test_a_sink_that_breaks_ends_the_run(lab: LabServer, sequentially: bool) -> None:
    async def full(sink: Keeper) -> None:
        if len(sink.outcomes) == 3:
            raise SinkError("pages.jsonl: no space left on device")

    sink, given = Keeper(full), list[str]()
    async with opened(concurrency=3, lookahead=5) as fetcher:
        with pytest.raises(SinkError, match="no space left"):
            await fetcher.run(counted(listed(lab, WINDOW + 500), given), sink, sequentially=sequentially)
        assert own_tasks() == []
        assert (len(sink.outcomes), sink.state) == (3, "SinkError")
        assert len(given) < WINDOW + 500
        assert given[-1] == "closed"


async def test_a_sink_that_does_not_open_starts_nothing(lab: LabServer) -> None:
    class Closed(Keeper):
        async def __aenter__(self) -> Self:
            raise SinkError("pages.jsonl: no such folder")

    async with opened() as fetcher:
        with pytest.raises(SinkError, match="no such folder"):
            await fetcher.run(listed(lab, 5), Closed())
        assert own_tasks() == []
    assert lab.log == []


async def broken(*_: Any) -> Any:
    raise TypeError("a bug")


async def empty(*_: Any) -> Any:
    return None


def hasty(*_: Any) -> Any:
    return Response(Request(1, "http://a/"), "http://a/", 200)


@both
@pytest.mark.parametrize(
    "seams",
    [{"middleware": [broken]}, {"transport": broken}],
    ids=["middleware", "transport"],
)
async def test_a_bug_in_a_seam_comes_through(lab: LabServer, seams: dict[str, Any], sequentially: bool) -> None:
    sink = Keeper()
    async with opened(seams) as fetcher:
        for _ in range(2):
            with pytest.raises(TypeError, match="a bug"):
                await fetcher.run(listed(lab, 20), sink, sequentially=sequentially)
            assert own_tasks() == []
            assert (sink.outcomes, sink.state) == ([], "TypeError")
        with pytest.raises(TypeError, match="a bug"):
            await fetcher.fetch(lab.url("/ok"))


@both
@pytest.mark.parametrize("seam", ["middleware", "transport"])
@pytest.mark.parametrize(
    ("function", "said"),
    [
        (empty, "empty returned NoneType, and must return a Response"),
        (hasty, r"hasty is not async \(it returned Response\)"),
    ],
)
async def test_a_seam_that_returns_no_response_is_named(
    lab: LabServer, function: Any, said: str, seam: str, sequentially: bool
) -> None:
    async with opened({seam: [function] if seam == "middleware" else function}) as fetcher:
        with pytest.raises(TypeError, match=rf"^{seam}: tests\.test_library:{said}"):
            await fetcher.run(listed(lab, 20), Keeper(), sequentially=sequentially)
        assert own_tasks() == []
        with pytest.raises(ConfigError, match=said):
            await fetcher.fetch(lab.url("/ok"))


@pytest.mark.parametrize(
    ("seams", "said"),
    [
        ({"middleware": [7]}, r"middleware is called as await function\(request, next\), and 7 cannot be called"),
        (
            {"middleware": [lambda request: None]},
            r"<lambda>\(request\) does not take that: too many positional arguments",
        ),
        ({"middleware": [lambda: (yield)]}, "is a generator"),
        ({"middleware": "abc"}, "'a' cannot be called"),
        ({"transport": lambda: None}, r"transport is called as await function\(request\), and .* too many positional"),
        ({"on_retry": 7}, r"on_retry is called as function\(details\), and 7 cannot be called"),
        ({"on_retry": broken}, "broken is async"),
        ({"extract": broken}, r"extract is called as function\(response\), and .*broken is async"),
    ],
)
def test_a_seam_of_the_wrong_shape_is_refused(seams: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        Fetcher(**seams)


def test_seams_of_every_right_shape_are_taken() -> None:
    class Keyed:
        async def __call__(self, request: Request, proceed: Exchange, *, extra: int = 1) -> Response:
            return await proceed(request)

        async def method(self, *arguments: Any, **more: Any) -> Response:
            return await self(*arguments, **more)

    seams: list[Any] = [
        Keyed(),
        Keyed().method,
        functools.partial(Keyed.method, Keyed()),
        broken,
        lambda a, b, c=1: b(a),
    ]
    Fetcher(middleware=seams, extract=len, transport=Keyed().method, on_retry=print)  # type: ignore[arg-type]  # len counts


async def test_a_failed_extractor_costs_the_data_alone(lab: LabServer) -> None:
    def extract(response: Response) -> Any:
        raise KeyError("price")

    url = lab.url("/redirect?to=/ok%3Ftitle%3Dhello")
    async with opened({"extract": extract}) as fetcher, fetcher.stream([url]) as outcomes:
        (failure,) = [outcome async for outcome in outcomes]
    async with opened() as fetcher:
        page = await fetcher.fetch(url)
    assert isinstance(failure, Failure)
    assert failure.error.code == "extract_failed"
    assert vars(failure.error).get("reading") is None
    names = ["url", "status", "bytes", "redirects", "attempts", "length", "content_type", "charset", "title", "links"]
    for name in [*names, "truncated", "robots"]:
        assert getattr(failure, name) == getattr(page, name)
    assert (failure.title, failure.links) == ("hello", page.links)


@both
async def test_a_bug_in_a_source_or_a_sink_comes_through(lab: LabServer, sequentially: bool) -> None:
    def source() -> Iterator[str]:
        yield from listed(lab, 2)
        raise TypeError("a bug")

    async with opened() as fetcher:
        for rows, sink in ((source(), Keeper()), (iter(listed(lab, 9)), Keeper(broken))):
            with pytest.raises(TypeError, match="a bug"):
                await fetcher.run(rows, sink, sequentially=sequentially)
            assert own_tasks() == []
            assert sink.state == "TypeError"


async def test_a_bug_ends_the_rows_that_wait(lab: LabServer) -> None:
    lab.add("/held", HeldCase())

    async def trap(request: Request, proceed: Exchange) -> Response:
        if request.url.endswith("/bug"):
            await lab.until(lambda: len(lab.requests("/held")) == 5)
            raise TypeError("a bug")
        return await proceed(request)

    async with opened({"middleware": [trap]}) as fetcher:
        await meet(fetcher, lab)
        with pytest.raises(TypeError, match="a bug"):
            await drained(fetcher, [*listed(lab, 5, "/held"), lab.url("/bug")])
        assert own_tasks() == []
        await lab.until(lambda: all(entry.t_end for entry in lab.log))


async def test_a_seam_that_lets_its_own_cancellation_out_is_a_bug(lab: LabServer) -> None:
    async def cancelled(*_: Any) -> Any:
        gone = asyncio.get_running_loop().create_future()
        gone.cancel()
        return await gone

    async def source() -> AsyncIterator[str]:
        yield lab.url("/ok")
        await cancelled()

    for seams in ({"middleware": [cancelled]}, {"transport": cancelled}):
        async with opened(seams) as fetcher:
            with pytest.raises(RuntimeError, match="row 1 was cancelled from within"):
                await drained(fetcher, listed(lab, 1))
    async with opened() as fetcher:
        with pytest.raises(RuntimeError, match="source was cancelled from within"):
            async with fetcher.stream(source()) as outcomes:
                _ = [outcome async for outcome in outcomes]
        assert own_tasks() == []


# One fetcher, several streams


async def test_streams_at_once_share_the_slots(lab: LabServer) -> None:
    async with opened(concurrency=4, per_host=2) as fetcher:
        urls = listed(lab, 40, "/delay/2/ok")
        seen = await asyncio.gather(
            *(drained(fetcher, urls, ordered=ordered) for ordered in (False, True, False)),
            drained(fetcher, urls[:10], sequentially=True),
            *(fetcher.fetch(url) for url in urls[:10]),
        )
    assert [len(outcomes) for outcomes in seen[:4]] == [40, 40, 40, 10]  # type: ignore[arg-type]  # the first are lists
    assert lab.peak() <= 4
    assert max(lab.peak(host) for host in (1, 2, 3)) <= 2
    assert len(lab.log) == 140


async def test_streams_follow_each_other(lab: LabServer) -> None:
    async with opened(per_host=1, lookahead=20) as fetcher:
        for row in range(30):
            async with fetcher.stream(lab.url("/ok", host=row % 3 + 1) for row in itertools.count()) as outcomes:
                for _ in range(row % 4):
                    assert (await anext(outcomes)).ok
        assert len(await drained(fetcher, listed(lab, 9))) == 9
        assert (await fetcher.fetch(lab.url("/ok"))).ok
    assert lab.peak(1) == 1


async def test_a_row_that_never_began_gives_its_place_back(lab: LabServer) -> None:
    async def at_once(request: Request) -> Response:
        await asyncio.sleep(0)
        return Response(request, request.url, 200)

    async with opened({"transport": at_once}, concurrency=5, per_host=1) as fetcher:
        for _ in range(20):  # the first outcome is taken when further rows have been admitted and not begun
            async with fetcher.stream(f"http://h{row % 3}.example/" for row in itertools.count()) as outcomes:
                assert (await anext(outcomes)).ok
        assert len(await drained(fetcher, [f"http://h{row}.example/" for row in range(3)])) == 3
    assert lab.log == []


async def test_a_stream_that_ends_early_holds_no_place_that_another_waits_for(lab: LabServer) -> None:
    reached, never = asyncio.Event(), asyncio.Event()

    async def stand(request: Request, proceed: Exchange) -> Response:
        if request.tag == "stays":
            reached.set()
            await never.wait()
        return await proceed(request)

    async with opened({"middleware": [stand]}, per_host=1) as fetcher:
        async with fetcher.stream([Request(1, lab.url("/ok?title=other"))]) as second:
            async with fetcher.stream([Request(1, lab.url("/ok"), tag="stays")]) as first:
                reading = [asyncio.create_task(anext(first))]
                await reached.wait()
                reading += [asyncio.create_task(anext(second))]
                reading[0].cancel()
            assert (await reading[1]).ok
