"""Politeness and patience as the servers saw them: their logs are the judges."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest

from fetcher import Config, Fetcher, Outcome, Request, Response
from fetcher.errors import ConnectError
from fetcher.middleware.gate import Gate
from fetcher.transport.session import Transport
from tests.lab.crawl import code_of
from tests.lab.ports import host_address
from tests.lab.server import Exchange, LabServer, black_hole, refused_port, silent_port

DEADLINE = 60.0


@pytest.fixture
async def lab() -> AsyncIterator[LabServer]:
    async with LabServer() as lab:
        yield lab


@asynccontextmanager
async def opened(transport: Any = None, **options: Any) -> AsyncIterator[tuple[Fetcher, Gate]]:
    config = Config.of(**{"robots": False, **options})  # each request of the log is a row's
    async with asyncio.timeout(DEADLINE), Fetcher(config, transport=transport) as fetcher:
        assert fetcher._engine is not None
        yield fetcher, fetcher._engine.gate


async def drained(fetcher: Fetcher, urls: list[str]) -> list[Outcome]:
    async with fetcher.stream(urls) as outcomes:
        return [outcome async for outcome in outcomes]


def codes(outcomes: list[Outcome]) -> Counter[str | int]:
    return Counter(code_of(outcome) for outcome in outcomes)


def at_most(limit: int, *, seconds: float = 0.01, status: int = 429, **headers: str) -> Callable[[Exchange], Any]:
    """A case that refuses what is above the limit on its host."""

    async def answer(exchange: Exchange) -> None:
        active = exchange.site.stats.active()
        if sum(entry.host == exchange.entry.host for entry in active) > limit:
            await exchange.reply("too many", status, headers=list(headers.items()))
        else:
            await exchange.pause(seconds)
            await exchange.become("/ok")

    return answer


# Throttled


@pytest.mark.parametrize("per_host", [6, 20])
@pytest.mark.parametrize("status", [429, 503])
async def test_a_host_that_bears_three_gets_three(lab: LabServer, per_host: int, status: int) -> None:
    lab.add("/t", at_most(3, status=status))
    async with opened(per_host=per_host, backoff=0.01, retries=9) as (fetcher, gate):
        outcomes = await drained(fetcher, [lab.url(f"/t?{n}") for n in range(600)])
        (report,) = gate.troubled()
    assert codes(outcomes) == {200: 600}
    settled = lab.log[100:]
    refused = [entry for entry in settled if entry.status == status]
    assert len(refused) <= 0.02 * len(settled)
    assert sum(entry.in_flight == 3 for entry in settled) > len(settled) / 4  # the first two of a wave are less
    assert (report.ceiling in (3, 4), report.requests) == (True, len(lab.log))


async def test_a_host_that_wishes_a_pause_gets_it_and_the_others_go_on(lab: LabServer) -> None:
    urls = [lab.url(f"/retry-after/k/{n}?after=1", 1) for n in range(30)]
    urls += [lab.url(f"/ok?{n}", 2 + n % 2) for n in range(100)]
    async with opened(retries=0) as (fetcher, _):
        outcomes = await drained(fetcher, urls)
    assert codes(outcomes) == {200: 130}
    assert [entry.note for entry in lab.log if entry.note] == []
    assert [outcome.request.id for outcome in outcomes[:100]] == [
        outcome.request.id for outcome in outcomes if "/ok" in outcome.request.url
    ]


@pytest.mark.parametrize("header", ["x-ratelimit-reset", "ratelimit"])
async def test_a_rate_limit_that_is_told_is_obeyed(lab: LabServer, header: str) -> None:
    told: list[float] = []

    async def answer(exchange: Exchange) -> None:
        if not told:
            told.append(exchange.entry.t)
            value = "1" if header.startswith("x") else '"default";r=0;t=1'
            await exchange.reply("later", 429, headers=[(header, value)])
        else:
            await exchange.become("/ok")

    lab.add("/t", answer)
    async with opened(retries=0) as (fetcher, _):
        outcomes = await drained(fetcher, [lab.url(f"/t?{n}") for n in range(5)])
    assert codes(outcomes) == {200: 5}
    assert min(entry.t for entry in lab.log[1:]) >= told[0] + 1.0


async def test_a_policy_for_one_host_holds_for_it_alone(lab: LabServer) -> None:
    lab.add("/held", at_most(1_000, seconds=0.02))
    urls = [lab.url(f"/held?{n}", 1 + n % 2) for n in range(60)]
    async with opened(hosts={host_address(1): {"per-host": 1}}) as (fetcher, _):
        await drained(fetcher, urls)
    assert (lab.peak(1), lab.peak(2)) == (1, 6)


@pytest.mark.parametrize(
    ("options", "peak"), [({"per_site": 3}, 6), ({"per_address": 4}, 4), ({"per_site": 3, "per_address": 5}, 5)]
)
async def test_many_names_share_what_is_theirs(lab: LabServer, options: dict[str, int], peak: int) -> None:
    lab.add("/held", at_most(1_000, seconds=0.02))
    names = [f"{name}.{site}.localhost" for name in "abcdef" for site in ("one", "two")]
    urls = [f"http://{name}:{lab.port}/held?{n}" for n in range(10) for name in names]
    async with opened(concurrency=50, **options) as (fetcher, _):
        outcomes = await drained(fetcher, urls)
    assert codes(outcomes) == {200: 120}
    assert lab.peak() == peak
    for site in ("one", "two"):
        ours = [entry for entry in lab.log if f"{site}.localhost" in (entry.header("host") or "")]
        assert most_at_once([(entry.t, entry.t_end or 0.0) for entry in ours]) <= options.get("per_site", 99)


def most_at_once(spans: list[tuple[float, float]]) -> int:
    events = sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans])
    at_once = most = 0
    for _, step in events:
        at_once += step
        most = max(most, at_once)
    return most


# Dead


async def test_black_holes_leave_the_others_their_slots() -> None:
    """Fourteen of them before eight slots, each good for a minute."""
    with ExitStack() as stack:
        holes = [f"http://{host_address(n)}:{stack.enter_context(black_hole(n))}/" for n in range(10, 24)]
        async with LabServer(hosts=3) as lab, opened(concurrency=8, connect_timeout=60, timeout=60) as (fetcher, gate):
            good = [lab.url(f"/ok?{n}", 1 + n % 3) for n in range(60)]
            async with fetcher.stream([*holes, *good]) as outcomes:
                seen = [await anext(outcomes) for _ in good]
                assert 1 <= gate.scheduler.shared.suspected
                assert gate.scheduler.shared.on_wire <= 8
    assert codes(seen) == {200: 60}


async def test_a_host_that_comes_back_loses_no_row(lab: LabServer) -> None:
    """From its port nobody answers until it was asked four times."""
    asked = ["ok"]
    with socket.socket() as sock:
        sock.bind(("127.0.0.9", 0))
        port = sock.getsockname()[1]
        urls = [f"http://127.0.0.9:{port}/{n}" for n in range(40)]

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            asked.append(head.decode().split()[1])
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            writer.close()

        async with opened(retries=2, backoff=0.02) as (fetcher, gate):
            running = asyncio.create_task(drained(fetcher, [*urls, lab.url("/ok")]))
            while not any(report.failed >= 2 for report in gate.troubled()):
                await asyncio.sleep(0.005)
            async with await asyncio.start_server(answer, sock=sock):
                outcomes = await running
    assert codes(outcomes) == {200: 41}
    assert len(asked) == 41


async def test_a_dead_host_costs_a_few_connects_and_its_rows_say_so() -> None:
    with refused_port(9) as closed, silent_port(10) as silent:
        urls = [f"http://127.0.0.9:{closed}/{n}" for n in range(200)]
        urls += [f"http://127.0.0.10:{silent}/{n}" for n in range(200)]
        options = {"retries": 1, "backoff": 0.01, "host_patience": 1, "read_timeout": 0.1}
        async with opened(**options) as (fetcher, gate):
            found = codes(await drained(fetcher, urls))
            reports = {report.host: report for report in gate.troubled()}
    assert found["host_budget"] > 350
    assert set(found) <= {"host_budget", "connect_refused", "read_timeout"}
    for host in ("127.0.0.9", "127.0.0.10"):
        assert reports[host].requests <= 25
        assert reports[host].parked > 0
        assert reports[host].given_up


class Cable:
    """A transport with a plug that can be pulled: then no connection comes about."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self.pulled = False
        self.missed = 0

    async def __call__(self, request: Request) -> Response:
        if self.pulled:
            await asyncio.sleep(0)
            self.missed += 1
            raise ConnectError("connect_refused", "Network is unreachable")
        return await self.inner(request)


async def test_with_our_own_network_away_no_row_fails() -> None:
    async with LabServer(hosts=20) as lab:
        transport = Transport(Config())
        cable = Cable(transport)
        urls = [lab.url(f"/ok?{n}", 1 + n % 20) for n in range(2_000)]
        async with opened(cable, retries=0, concurrency=40, host_patience=30) as (fetcher, gate):
            outcomes: list[Outcome] = []
            async with fetcher.stream(urls) as stream:
                async for outcome in stream:
                    outcomes.append(outcome)
                    if len(outcomes) == 200:
                        cable.pulled = True
                        mend = asyncio.get_running_loop().call_later(1.0, setattr, cable, "pulled", False)
            assert mend.when() < asyncio.get_running_loop().time()
            assert gate.scheduler.shared.concurrency == 40
            assert not gate.scheduler.network.away_since
        await transport.close()
    assert codes(outcomes) == {200: 2_000}
    assert 5 <= cable.missed < 150  # it was not asked again and again
