"""Whatever a server does and whenever a caller leaves: one outcome a row, true stats, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fetcher import errors
from fetcher.client import Fetcher
from fetcher.config import Config
from fetcher.model import Failure, Outcome, Page, Request, Response
from fetcher.pipeline import Engine, Outcomes
from fetcher.request_state import current
from fetcher.stats import Stats
from fetcher.transport.session import Transport
from tests.lab.cases import FAULTS
from tests.lab.crawl import open_sockets
from tests.lab.server import LabServer, refused_port

DEADLINE = 60.0  # of one example; they take a second at most

CODES = frozenset().union(
    *(kind.codes for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.FetchError))
)
STATUS = re.compile(r"http_[1-9][0-9][0-9]")

WE_LEAVE = (
    "/silent", "/silent?after=head", "/silent?after=body", "/big?mb=2", "/big?mb=2&chunked=1", "/gzip-bomb?mb=3",
    "/huge-header", "/drip?n=1000&gap=0.02", "/slow-headers?n=1000&gap=0.02",
)  # fmt: skip
"""Cases that end by our leaving: the server may see our next request before it sees that."""

OTHERS = (
    "/status/429?retry-after=0", "/status/503", "/flaky/{n}?fail=1&status=429", "/flaky/{n}?fail=2",
    "/flaky/{n}?fail=1&as=/reset", "/flaky/{n}?fail=1&as=/empty", "/throttle/k?n=1&ms=3&retry-after=0",
    "/hops/3?hosts=3", "/hops/11", "/loop2/a", "/two-locations", "/bad-location", "/cookie-gate", "/101", "/no-length",
    "/informational", "/many-headers", "/big?mb=1", "/bytes?n=300000", "/random/{n}?seed=1", "/delay/10/ok", "/hang-up",
)  # fmt: skip

ELSEWHERE = (
    "http://127.0.0.1:{refused}/",
    "https://127.0.0.1:{port}/",
    "javascript:alert(1)",
    "",
    "http://[::1",
    "http://169.254.169.254/",
)


@dataclass
class Scenario:
    """One run: what is asked for, with how much at once, and how it ends."""

    rows: list[tuple[str, int]]
    concurrency: int
    per_host: int
    retries: int
    ordered: bool
    ending: str
    after: int
    uvloop: bool
    robots: bool = False


@dataclass
class Seen:
    """What a run gave, and how much of it was under way at once as the transport sees it."""

    outcomes: list[Outcome] = field(default_factory=list)
    stats: Stats = field(default_factory=Stats)
    under_way: Counter[str] = field(default_factory=Counter)
    peaks: Counter[str] = field(default_factory=Counter)
    complaints: list[dict[str, Any]] = field(default_factory=list)


scenarios = st.builds(
    Scenario,
    rows=st.lists(
        st.tuples(st.sampled_from((*FAULTS, *OTHERS, *OTHERS, *WE_LEAVE, *ELSEWHERE)), st.integers(1, 3)), max_size=30
    ),
    concurrency=st.integers(1, 12),
    per_host=st.integers(1, 4),
    retries=st.integers(0, 2),
    ordered=st.booleans(),
    ending=st.sampled_from(("drain", "drain", "break", "raise", "stop", "stop now", "cancel")),
    after=st.integers(0, 10),
    uvloop=st.booleans() if importlib.util.find_spec("uvloop") else st.just(False),
    robots=st.booleans(),
)


@given(scenarios)
@settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
def test_one_outcome_a_row_and_nothing_left(scenario: Scenario) -> None:
    run_in_a_loop(scenario)


@pytest.mark.parametrize("robots", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
def test_all_faults_at_once(ordered: bool, robots: bool) -> None:
    """Every case on every host, twice, with as much at once as there is."""
    rows = [(case, host) for case in (*FAULTS, *OTHERS, *WE_LEAVE, *ELSEWHERE) for host in (1, 2, 3, 1, 2, 3)]
    run_in_a_loop(Scenario(rows, 100, 40, 2, ordered, "drain", 0, uvloop=False, robots=robots))


def run_in_a_loop(scenario: Scenario) -> None:
    """Run one scenario in a loop of its own, and look at what the process holds before and after."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if scenario.uvloop:
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(examine(scenario))
    gc.collect()  # what was not closed says so now, and a warning is an error


async def examine(scenario: Scenario) -> None:
    """Run it against a lab of its own and check every law."""
    seen = Seen()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.complaints.append(context))
    before = open_sockets()
    async with asyncio.timeout(DEADLINE):
        async with LabServer(hosts=3) as lab:
            with refused_port() as refused:
                urls = addresses(lab, scenario, refused)
                await run(scenario, urls, seen)
            ours = asyncio.all_tasks() - lab._tasks - {asyncio.current_task()}
            assert not ours, ours
            await lab.until(lambda: lab.connections.open == 0)
            check_limits(scenario, lab, seen)
        await asyncio.sleep(0)
        assert open_sockets() == before
    check_books(scenario, seen)
    assert seen.complaints == []


def addresses(lab: LabServer, scenario: Scenario, refused: int) -> list[str]:
    lab.add("/hang-up", lambda exchange: exchange.become("/keep-alive-close"))
    return [
        lab.url(case.replace("{n}", str(n)), host)
        if case.startswith("/")
        else case.format(refused=refused, port=lab.port)
        for n, (case, host) in enumerate(scenario.rows)
    ]


async def run(scenario: Scenario, urls: list[str], seen: Seen) -> None:
    config = Config.of(
        concurrency=scenario.concurrency, per_host=scenario.per_host, retries=scenario.retries, default_scheme="http",
        timeout=0.3, read_timeout=0.15, connect_timeout=0.3, backoff=0.01, max_backoff=0.05, host_patience=0.2,
        max_size="1M", memory="2M", robots=scenario.robots,
    )  # fmt: skip
    transport = Transport(config)

    async def counted(request: Request) -> Response:
        assert fetcher.gate.scheduler.shared.on_wire <= scenario.concurrency
        keys = ("all", current.get().target.host)
        seen.under_way.update(keys)
        for key in keys:
            seen.peaks[key] = max(seen.peaks[key], seen.under_way[key])
        try:
            return await transport(request)
        finally:
            seen.under_way.subtract(keys)

    try:
        async with Fetcher(config, transport=counted) as fetcher:
            engine = fetcher._engine
            assert engine is not None
            await take(scenario, fetcher, urls, seen)
            check_slots(engine)
    finally:
        await transport.close()
    assert transport._bodies._permits.free == 2
    assert not transport._watchdog.watched


async def take(scenario: Scenario, fetcher: Fetcher, urls: list[str], seen: Seen) -> None:
    """Read outcomes until the scenario ends."""

    class Enough(Exception):
        """The caller has had it."""

    async def read() -> None:
        async with fetcher.stream(urls, ordered=scenario.ordered) as outcomes:
            assert isinstance(outcomes, Outcomes)
            seen.stats = outcomes.stats
            async for outcome in outcomes:
                seen.outcomes.append(outcome)
                if len(seen.outcomes) > scenario.after:
                    if scenario.ending == "break":
                        break
                    if scenario.ending == "raise":
                        raise Enough
                    if scenario.ending.startswith("stop"):
                        outcomes.stop(0 if scenario.ending == "stop now" else 0.2)
                    if scenario.ending == "cancel":
                        reading.cancel()

    reading = asyncio.create_task(read())
    done, _ = await asyncio.wait([reading])
    assert done
    ended_early = len(seen.outcomes) > scenario.after
    if scenario.ending == "cancel" and reading.cancelled():
        assert ended_early
    elif scenario.ending == "raise" and ended_early:
        assert isinstance(reading.exception(), Enough)
    else:
        reading.result()


def check_slots(engine: Engine) -> None:
    """Law 4: what is over holds nothing."""
    hosts = engine.gate.scheduler
    assert (hosts.shared.on_wire, hosts.shared.reserved, hosts.shared.suspected) == (0, 0, 0)
    assert engine.gate.monitor.on_wire == {}
    assert hosts.listeners == []
    for host in hosts.table._hosts.values():
        assert (host.on_wire, host.reserved, list(host.waiters)) == (0, 0, [])


def check_limits(scenario: Scenario, lab: LabServer, seen: Seen) -> None:
    """Never more at once than was allowed: as we see it, and as the server does."""
    assert seen.peaks["all"] <= scenario.concurrency
    assert max([0, *(peak for host, peak in seen.peaks.items() if host != "all")]) <= scenario.per_host
    assert not +seen.under_way
    if scenario.ending in ("drain", "break") and not any(case in WE_LEAVE for case, _ in scenario.rows):
        assert lab.peak() <= scenario.concurrency
        assert max(lab.peak(host) for host in (1, 2, 3)) <= scenario.per_host


def check_books(scenario: Scenario, seen: Seen) -> None:
    """Law 1: one outcome per request, and stats that say so."""
    stats, ids = seen.stats, [outcome.request.id for outcome in seen.outcomes]
    assert len(ids) == len(set(ids))
    assert set(ids) <= set(range(1, len(scenario.rows) + 1))
    if scenario.ordered:
        assert ids == sorted(ids)
    assert stats.input == stats.ok + stats.failed + stats.skipped + stats.pending
    assert stats.input <= len(scenario.rows)
    assert stats.done == len(seen.outcomes)
    if scenario.ending == "drain":
        assert sorted(ids) == list(range(1, len(scenario.rows) + 1))
        assert (stats.pending, stats.more) == (0, False)
    for outcome in seen.outcomes:
        if isinstance(outcome, Failure):
            code = outcome.error.code
            assert code in CODES or STATUS.fullmatch(code), code
            assert code in type(outcome.error).codes or isinstance(outcome.error, errors.StatusError)
            assert outcome.attempts <= scenario.retries + 1
        else:
            assert isinstance(outcome, Page)
            assert 1 <= outcome.attempts <= scenario.retries + 1
            assert outcome.bytes <= 1 << 20
        assert 0 <= outcome.elapsed < DEADLINE
        assert 0 <= outcome.waited < DEADLINE
