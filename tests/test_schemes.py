"""Rows that name no scheme, against hosts whose ports for https and http fare differently (``tests/lab/doors.py``)."""

from __future__ import annotations

import asyncio
import errno
import gc
import weakref
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fetcher.client import Fetcher
from fetcher.config import Config, Limits, RetryPolicy
from fetcher.errors import (
    ConnectError,
    ConnectTimeout,
    DNSError,
    FetchError,
    FetchTimeout,
    ProtocolError,
    Skipped,
    TLSError,
    TLSTimeout,
)
from fetcher.hosts.scheduler import Scheduler
from fetcher.middleware import schemes
from fetcher.middleware.gate import Gate
from fetcher.middleware.redirects import RedirectChain, Secrets
from fetcher.model import Exchange, Failure, Outcome, Page, Request, Response, Stage
from fetcher.report.summary import summarize
from fetcher.request_state import RequestState, SchemeTrial, Transfer, current
from fetcher.stats import Stats
from fetcher.urls import parse
from tests.lab.crawl import code_of
from tests.lab.doors import Doors

DEADLINE = 60.0

SECURE = parse("example.com")
PLAIN_TARGET = parse("example.com", "http")

PLAIN = ("refusing", "speaking", "closing", "resetting", "alerting", "silent")


@pytest.fixture
async def doors() -> AsyncIterator[Doors]:
    async with Doors() as doors:
        yield doors


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have patience with a silent port for a third of a second."""
    monkeypatch.setattr(schemes, "TRIAL_SECONDS", 0.3)


async def crawled(
    doors: Doors,
    rows: Sequence[str | Request],
    *,
    sequentially: bool = False,
    stats: Stats | None = None,
    **options: Any,
) -> list[Outcome]:
    config = Config.of(**{"retries": 0, "ca_bundle": doors.ca, "backoff": 0.01, **options})
    transport = doors.transport(config)
    try:
        async with (
            asyncio.timeout(DEADLINE),
            Fetcher(config, transport=transport) as fetcher,
            fetcher.stream(rows, ordered=True, sequentially=sequentially, stats=stats) as outcomes,
        ):
            return [outcome async for outcome in outcomes]
    finally:
        await transport.close()


def fate(outcome: Outcome) -> tuple[str | None, str | int]:
    """Return by which scheme a row was asked last, and its status or code."""
    url = outcome.url or (outcome.error.url if isinstance(outcome, Failure) else None)
    return url.partition(":")[0] if url else None, code_of(outcome)


EXPECTED: dict[str, tuple[str | None, str | int]] = {
    "both": ("https", 200),
    "secure": ("https", 200),
    "untrusted": ("https", "tls_verify"),
    **dict.fromkeys(PLAIN, ("http", 200)),
    "dead": ("https", "connect_refused"),
    "mute": ("https", "tls_timeout"),
    "nameless": ("https", "dns_not_found"),
}


@pytest.mark.parametrize("robots", [True, False])
@pytest.mark.parametrize("sequentially", [True, False])
async def test_each_host_is_asked_by_the_scheme_it_speaks(doors: Doors, robots: bool, sequentially: bool) -> None:
    stats = Stats()
    options = {"robots": robots, "connect_timeout": 1, "read_timeout": 2}
    rows = [f"{kind}-1.door.test/0/1" for kind in EXPECTED]
    outcomes = await crawled(doors, rows, sequentially=sequentially, stats=stats, **options)
    assert {kind: fate(outcome) for kind, outcome in zip(EXPECTED, outcomes, strict=True)} == EXPECTED
    assert [outcome.request.url for outcome in outcomes] == rows
    assert {outcome.attempts for outcome in outcomes if isinstance(outcome, Page)} == {1}
    assert stats.by_http == len(PLAIN)
    assert not any(scheme == "http" and name == "untrusted-1.door.test" for scheme, name, _ in doors.asked)


@pytest.mark.parametrize("robots", [True, False])
async def test_a_silent_port_is_tried_once_by_many_rows(doors: Doors, robots: bool) -> None:
    rows = [f"silent-1.door.test/10/{n}" for n in range(30)]
    outcomes = await crawled(doors, rows, robots=robots)
    assert {fate(outcome) for outcome in outcomes} == {("http", 200)}
    assert doors.connections["silent", "silent-1.door.test"] == 1


@pytest.mark.parametrize("robots", [True, False])
async def test_so_it_is_by_calls_at_once(doors: Doors, robots: bool) -> None:
    config = Config.of(ca_bundle=doors.ca, robots=robots)
    transport = doors.transport(config)
    try:
        async with asyncio.timeout(DEADLINE), Fetcher(config, transport=transport) as fetcher:
            pages = await asyncio.gather(*(fetcher.fetch(f"silent-1.door.test/10/{n}") for n in range(6)))
    finally:
        await transport.close()
    assert {page.url for page in pages} == {f"http://silent-1.door.test/10/{n}" for n in range(6)}
    assert doors.connections["silent", "silent-1.door.test"] == 1


async def test_a_silent_port_has_its_seconds_whatever_the_connect_timeout(doors: Doors) -> None:
    limits: dict[str, Any] = {"connect_timeout": 5 * DEADLINE, "timeout": 5 * DEADLINE, "read_timeout": 5 * DEADLINE}
    outcomes = await crawled(doors, [f"silent-{n}.door.test/0/1" for n in range(3)], **limits)
    assert {fate(outcome) for outcome in outcomes} == {("http", 200)}


async def test_to_look_a_name_up_takes_what_it_takes(doors: Doors) -> None:
    doors.look_up_seconds = 1.5  # five times what a silent port has here
    outcomes = await crawled(doors, ["both-1.door.test/0/1", "refusing-1.door.test/0/1"], robots=False)
    assert [fate(outcome) for outcome in outcomes] == [("https", 200), ("http", 200)]


async def test_the_first_answer_decides_not_the_whole_row(doors: Doors) -> None:
    config = Config.of(ca_bundle=doors.ca)
    transport = doors.transport(config)
    try:
        async with asyncio.timeout(DEADLINE), Fetcher(config, transport=transport) as fetcher:
            for kind, scheme in (("both", "https"), ("refusing", "http")):
                first, waiting = (
                    asyncio.create_task(fetcher.fetch(f"{kind}-1.door.test/{path}")) for path in ("10000/1", "0/2")
                )
                second = await waiting
                assert (second.url, first.done()) == (f"{scheme}://{kind}-1.door.test/0/2", False)
                first.cancel()
    finally:
        await transport.close()


async def test_a_caller_that_gives_up_while_it_tries_leaves_the_others_their_answer(doors: Doors) -> None:
    config = Config.of(ca_bundle=doors.ca, robots=False)
    transport = doors.transport(config)
    try:
        async with asyncio.timeout(DEADLINE), Fetcher(config, transport=transport) as fetcher:
            first = asyncio.create_task(fetcher.fetch("silent-1.door.test/0/1"))
            others = [asyncio.create_task(fetcher.fetch(f"silent-1.door.test/0/{n}")) for n in (2, 3)]
            while not doors.connections["silent", "silent-1.door.test"]:
                await asyncio.sleep(0.01)
            first.cancel()
            others[0].cancel()
            assert (await others[1]).url == "http://silent-1.door.test/0/3"
    finally:
        await transport.close()


async def test_neither_try_is_charged_to_the_host(doors: Doors) -> None:
    config = Config.of(ca_bundle=doors.ca, retries=0)
    transport = doors.transport(config)
    try:
        async with asyncio.timeout(DEADLINE), Fetcher(config, transport=transport) as fetcher:
            for kind in ("refusing", "silent"):
                await fetcher.fetch(f"{kind}-1.door.test/0/1")
                host = fetcher.gate.scheduler.table.find(f"{kind}-1.door.test")
                assert host is not None
                assert (host.breaker.failures, host.breaker.charges, host.suspect) == (0, 0, False)
            assert fetcher.gate.troubled() == []
    finally:
        await transport.close()


async def test_a_dead_host_has_all_its_attempts_by_https(doors: Doors) -> None:
    (outcome,) = await crawled(doors, ["dead-1.door.test/0/1"], retries=2, robots=False)
    assert isinstance(outcome, Failure)
    assert (fate(outcome), outcome.attempts) == (("https", "connect_refused"), 3)
    assert "https" in str(outcome.error.url)


async def test_http_is_not_given_up_for_being_slow_where_https_was_refused(doors: Doors) -> None:
    (outcome,) = await crawled(doors, ["hung-1.door.test/0/1"], robots=False, read_timeout=0.2)
    assert fate(outcome) == ("http", "read_timeout")


async def test_a_row_that_names_https_stays_with_it_beside_one_that_does_not(doors: Doors) -> None:
    rows = [
        "refusing-1.door.test/0/1",
        "https://refusing-1.door.test/0/2",
        "refusing-1.door.test/0/3",
        "http://refusing-1.door.test/0/4",
    ]
    for order in (rows, rows[::-1]):
        outcomes = await crawled(doors, order, retries=1)
        assert {outcome.request.url: fate(outcome) for outcome in outcomes} == {
            rows[0]: ("http", 200), rows[1]: ("https", "connect_refused"), rows[2]: ("http", 200), rows[3]: ("http", 200),
        }  # fmt: skip


@pytest.mark.parametrize("robots", [True, False])
async def test_what_a_try_found_is_no_answer_to_a_row_that_names_https(doors: Doors, robots: bool) -> None:
    bare, named = "closing-1.door.test/0/1", "https://closing-1.door.test/0/2"
    for number, order in enumerate(([bare, named], [named, bare])):
        rows = [row.replace("closing-1", f"closing-{number}") for row in order]
        outcomes = await crawled(doors, rows, robots=robots, sequentially=True)
        fates = [("http", 200), ("https", "tls_protocol")]
        assert [fate(outcome) for outcome in outcomes] == (fates if order[0] == bare else fates[::-1])
        known = robots and order[0] == named  # by its robots.txt
        assert doors.connections["closing", f"closing-{number}.door.test"] == (1 if known else 2)


async def test_a_try_is_not_shared_with_a_row_that_names_https(doors: Doors) -> None:
    config = Config.of(ca_bundle=doors.ca, retries=0, connect_timeout=1)
    transport = doors.transport(config)
    try:
        async with asyncio.timeout(DEADLINE), Fetcher(config, transport=transport) as fetcher:
            bare = asyncio.create_task(fetcher.fetch("silent-1.door.test/0/1"))
            while not doors.connections["silent", "silent-1.door.test"]:
                await asyncio.sleep(0.01)
            with pytest.raises(TLSTimeout):
                await fetcher.fetch("https://silent-1.door.test/0/2")
            assert (await bare).url == "http://silent-1.door.test/0/1"
    finally:
        await transport.close()
    assert doors.connections["silent", "silent-1.door.test"] == 2


async def test_a_host_is_no_more_suspect_for_a_silent_port() -> None:
    config = Config()
    gate = Gate(Scheduler(config.limits, config.retry))
    state = RequestState(Request(1, "example.com"), SECURE)
    state.trial = SchemeTrial(SECURE.origin, lambda: None, patience=3.0)
    host = gate.scheduler.get(SECURE.host, gate.clock())

    async def silent(request: Request) -> Response:
        gate.scheduler.shared.set_suspect(host, suspect=True)  # as it is after two seconds
        raise ConnectTimeout

    token = current.set(state)
    try:
        with pytest.raises(ConnectTimeout):
            await gate(state.request, silent)
    finally:
        current.reset(token)
        gate.close()
    assert (host.suspect, gate.scheduler.shared.suspected, host.breaker.failures) == (False, 0, 0)


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ("refusing-1.door.test/0/1", {"header": ["@refusing-1.door.test X-Key: secret"]}),
        ("refusing-1.door.test/0/1", {"header": ["@refusing-1.door.test:443 X-Key: secret"]}),
        ("refusing-1.door.test/0/1", {"user": "@refusing-1.door.test name:password"}),
        ("refusing-1.door.test/0/1", {"cookie": ["@refusing-1.door.test a=b"]}),
        ("name@refusing-1.door.test/0/1", {}),
        (Request(1, "refusing-1.door.test/0/1", headers=(("Authorization", "secret"),)), {}),
    ],
)
async def test_a_secret_is_not_sent_by_http(doors: Doors, row: str | Request, options: dict[str, Any]) -> None:
    (outcome,) = await crawled(doors, [row], **options)
    assert fate(outcome) == ("https", "connect_refused")
    assert not doors.asked


async def test_a_cookie_of_a_file_is_a_secret_too(doors: Doors, tmp_path: Path) -> None:
    file = tmp_path / "cookies.txt"
    file.write_text(".door.test\tTRUE\t/deep\tTRUE\t0\ta\tb\nelsewhere.example\tFALSE\t/\tFALSE\t0\tc\td\n")
    (outcome,) = await crawled(doors, ["refusing-1.door.test/0/1"], cookie_file=[str(file)])
    assert fate(outcome) == ("https", "connect_refused")
    file.write_text("elsewhere.example\tFALSE\t/\tFALSE\t0\tc\td\n")
    (outcome,) = await crawled(doors, ["refusing-1.door.test/0/1"], cookie_file=[str(file)])
    assert fate(outcome) == ("http", 200)


async def test_what_is_meant_for_others_keeps_no_row_from_http(doors: Doors) -> None:
    options: dict[str, Any] = {"header": ["@elsewhere.test X-Key: secret", "Accept-Language: de"]}
    row = Request(1, "refusing-1.door.test/0/1", headers=(("Accept", "text/html"),))
    (outcome,) = await crawled(doors, [row], **options)
    assert fate(outcome) == ("http", 200)


async def test_a_port_of_its_own_is_a_case_of_its_own(doors: Doors) -> None:
    plain, secure = doors.ports["http"], doors.ports["https"]
    rows = [
        f"both-1.door.test:{plain}/0/1",
        "both-1.door.test/0/2",
        f"both-1.door.test:{secure}/0/3",
        "speaking-1.door.test:443/0/4",
    ]
    outcomes = await crawled(doors, rows)
    assert [outcome.url for outcome in outcomes] == [
        f"http://both-1.door.test:{plain}/0/1", "https://both-1.door.test/0/2", f"https://both-1.door.test:{secure}/0/3",
        "http://speaking-1.door.test:443/0/4",
    ]  # fmt: skip


async def test_only_the_rows_own_host_is_tried_by_http_not_where_it_leads(doors: Doors) -> None:
    rows = [
        "both-1.door.test/to/https://refusing-1.door.test/0/1",
        "refusing-2.door.test/to/https://both-2.door.test/0/2",
    ]
    first, second = await crawled(doors, rows, robots=False)
    assert fate(first) == ("https", "connect_refused")
    assert isinstance(second, Page)
    assert (second.url, second.redirects) == ("https://both-2.door.test/0/2", ("https://both-2.door.test/0/2",))


async def test_a_status_is_an_answer(doors: Doors) -> None:
    stats = Stats()
    (outcome,) = await crawled(doors, ["both-1.door.test/missing"], stats=stats)
    assert (fate(outcome), stats.by_http) == (("https", "http_404"), 0)
    assert not any(scheme == "http" for scheme, _, _ in doors.asked)


async def test_a_row_that_has_to_wait_between_its_tries_does_not_repeat_the_first(doors: Doors) -> None:
    (outcome,) = await crawled(doors, ["silent-1.door.test/0/1"], delay=4, robots=False)
    assert fate(outcome) == ("http", 200)
    assert doors.connections["silent", "silent-1.door.test"] == 1


@pytest.mark.parametrize("robots", [True, False])
async def test_a_silent_port_makes_room_for_others_and_that_is_its_answer(
    doors: Doors, robots: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schemes, "TRIAL_SECONDS", 5.0)  # the share of those that are silent may have it
    ended: list[FetchError | None] = []
    broken_off = SchemeTrial.broken_off

    def noted(trial: SchemeTrial, state: RequestState) -> FetchError | None:
        ended.append(broken_off(trial, state))
        return ended[-1]

    monkeypatch.setattr(SchemeTrial, "broken_off", noted)
    rows = [f"silent-{n}.door.test/0/{n}" for n in range(6)] + [f"both-{n}.door.test/0/{n}" for n in range(6)]
    outcomes = await crawled(doors, rows, robots=robots, concurrency=4)
    assert [fate(outcome) for outcome in outcomes] == [("http", 200)] * 6 + [("https", 200)] * 6
    assert {type(error) for error in ended} <= {ConnectTimeout}
    assert {number for (kind, _), number in doors.connections.items() if kind == "silent"} <= {1, 2}
    assert doors.connections.total() > 6 + len(rows), "some are broken off, and tried once more"


async def test_a_host_that_speaks_neither_is_tried_again_after_a_while(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schemes, "DEAD_SECONDS", -1.0)
    rows = [f"dead-1.door.test/0/{n}" for n in range(3)]
    outcomes = await crawled(doors, rows, robots=False)
    assert {fate(outcome) for outcome in outcomes} == {("https", "connect_refused")}


async def test_what_is_remembered_is_bounded(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemes, "REMEMBERED", 4)
    made: list[schemes.Schemes] = []
    init = schemes.Schemes.__init__

    def noted(self: schemes.Schemes, *args: Any) -> None:
        init(self, *args)
        made.append(self)

    monkeypatch.setattr(schemes.Schemes, "__init__", noted)
    rows = [f"refusing-{n}.door.test/0/1" for n in range(10)]
    assert {fate(outcome) for outcome in await crawled(doors, rows, robots=False)} == {("http", 200)}
    assert len(made[0]) == 4


def test_what_was_found_first_is_forgotten_unless_it_was_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemes, "REMEMBERED", 2)
    known = schemes.Schemes(Gate(Scheduler(Limits(), RetryPolicy())), Secrets(Config().identity))
    for host in ("a.test", "b.test", "a.test", "c.test"):
        known._keep((host, 443, 80), schemes.Finding("https", 1.0))
    assert [host for host, *_ in known._findings] == ["a.test", "c.test"]


async def test_scheme_https_and_http_ask_nobody_else(doors: Doors) -> None:
    (outcome,) = await crawled(doors, ["refusing-1.door.test/0/1"], default_scheme="https")
    assert fate(outcome) == ("https", "connect_refused")
    (outcome,) = await crawled(doors, ["both-1.door.test/0/1"], default_scheme="http")
    assert fate(outcome) == ("http", 200)
    assert not any(scheme == "https" for scheme, _, _ in doors.asked)


async def test_a_row_without_a_scheme_is_the_duplicate_of_its_https(doors: Doors) -> None:
    rows = ["both-1.door.test", "https://both-1.door.test/", "http://both-1.door.test/"]
    outcomes = await crawled(doors, rows, dedupe=True)
    assert [code_of(outcome) for outcome in outcomes] == ["http_404", "duplicate", "http_404"]


async def test_a_middleware_sees_the_listed_url_and_may_ask_for_another_without_a_scheme(doors: Doors) -> None:
    seen: list[str] = []

    async def other(request: Request, proceed: Exchange) -> Response:
        response = await proceed(Request(request.id, "refusing-2.door.test/0/2"))
        seen.extend((request.url, response.request.url, response.url))
        return response

    config = Config.of(ca_bundle=doors.ca, retries=0)
    transport = doors.transport(config)
    try:
        async with Fetcher(config, transport=transport, middleware=[other]) as fetcher:
            page = await fetcher.fetch("both-1.door.test/0/1")
    finally:
        await transport.close()
    assert seen == ["both-1.door.test/0/1", "refusing-2.door.test/0/2", "http://refusing-2.door.test/0/2"]
    assert page.request.url == "both-1.door.test/0/1"


async def test_a_row_that_waits_for_anothers_answer_holds_no_reservation() -> None:
    config = Config.of()
    scheduler = Scheduler(config.limits, config.retry)
    handler = schemes.Schemes(Gate(scheduler), Secrets(config.identity))
    host, answered = scheduler.get("example.com", 0.0), asyncio.Event()

    async def proceed(request: Request) -> Response:
        await answered.wait()
        return Response(request, request.url, 200)

    async def go(number: int) -> Response:
        state = RequestState(Request(number, f"example.com/{number}"), parse(f"example.com/{number}"))
        scheduler.shared.reserve(host)
        state.admit(host, 0.0)
        current.set(state)
        return await handler(state.request, proceed)

    rows = [asyncio.create_task(go(number)) for number in (1, 2, 3)]
    for _ in range(3):
        await asyncio.sleep(0)
    assert (scheduler.shared.reserved, host.reserved) == (1, 1)  # of the one that asks
    answered.set()
    assert {response.status for response in await asyncio.gather(*rows)} == {200}


async def test_what_the_first_row_found_the_next_go_by() -> None:
    config = Config.of()
    handler = schemes.Schemes(Gate(Scheduler(config.limits, config.retry)), Secrets(config.identity))
    tried: list[bool] = []

    async def proceed(request: Request) -> Response:
        state = current.get()
        tried.append(state.trial is not None)
        if state.trial is not None:  # as the gate does
            state.trial.answered(state.target)
        return Response(request, request.url, 200)

    for number in (1, 2, 3):
        state = RequestState(Request(number, f"example.com/{number}"), parse(f"example.com/{number}"))
        current.set(state)
        assert (await handler(state.request, proceed)).status == 200
    assert tried == [True, False, False]


async def test_a_transport_of_the_callers_own_is_asked_by_both(doors: Doors) -> None:
    asked: list[str] = []

    async def transport(request: Request) -> Response:
        asked.append(request.url)
        if request.url.startswith("https:"):
            raise ConnectError("connect_refused", "no")
        return Response(request, request.url, 200, body=b"x")

    async with Fetcher(Config.of(robots=False), transport=transport) as fetcher:
        page = await fetcher.fetch("example.com")
    assert (page.url, asked) == ("http://example.com/", ["https://example.com/", "http://example.com/"])


# What an error says of a scheme


@pytest.mark.parametrize(
    ("final", "spoken", "redirects", "unspoken"),
    [
        (True, False, (), True),
        (False, False, (), False),
        (True, True, (), False),
        (True, False, ("http://a.test/",), False),
    ],
)
def test_what_is_known_of_a_robots_txt_tells_of_a_first_request_alone(
    final: bool, spoken: bool, redirects: tuple[str, ...], unspoken: bool
) -> None:
    target = parse("https://example.com/")
    state = RequestState(Request(1, "example.com"), target)
    state.redirects = redirects
    trial = SchemeTrial(target.origin, lambda: None)
    trial.spoken = spoken
    error = TLSError("tls_protocol")
    error.final = final
    assert schemes._is_unspoken(trial, state, error) is unspoken


def told(target: Any, error: FetchError, stage: Stage, *, slow: bool = False, status: int | None = None) -> str:
    """Return what a trial takes an error for."""
    state = RequestState(Request(1, "example.com"), target)
    state.enter(stage)
    state.transfer = Transfer(status=status)
    trial = SchemeTrial(target.origin, lambda: None, slow=slow)
    unspoken = trial.failed(state, error)
    assert unspoken is (trial.error is error)
    assert not (unspoken and trial.spoken)
    return "unspoken" if unspoken else "spoken" if trial.spoken else "nothing"


@pytest.mark.parametrize(
    ("error", "stage", "expected"),
    [
        (ConnectError("connect_refused"), Stage.CONNECTING, "unspoken"),
        (ConnectError("connect_reset"), Stage.CONNECTING, "unspoken"),
        (ConnectTimeout(), Stage.CONNECTING, "unspoken"),
        (TLSError("tls_protocol"), Stage.HANDSHAKING, "unspoken"),
        (TLSTimeout(), Stage.HANDSHAKING, "unspoken"),
        (TLSError("tls_verify"), Stage.HANDSHAKING, "spoken"),
        (TLSError("tls_protocol", "it asks for a client certificate"), Stage.WAITING, "spoken"),
        (ConnectError("connect_reset"), Stage.WAITING, "spoken"),
        (ProtocolError("empty_reply"), Stage.WAITING, "spoken"),
        (FetchTimeout("read_timeout"), Stage.WAITING, "spoken"),
        (DNSError("dns_not_found"), Stage.RESOLVING, "nothing"),
        (Skipped("address_blocked"), Stage.CONNECTING, "nothing"),
    ],
)
def test_what_an_error_says_of_https(error: FetchError, stage: Stage, expected: str) -> None:
    assert told(SECURE, error, stage) == expected


@pytest.mark.parametrize(
    ("error", "stage", "slow", "status", "expected"),
    [
        (ConnectError("connect_refused"), Stage.CONNECTING, False, None, "unspoken"),
        (ConnectError("connect_reset"), Stage.WAITING, False, None, "unspoken"),
        (ConnectTimeout(), Stage.CONNECTING, False, None, "unspoken"),
        (ProtocolError("malformed_response"), Stage.WAITING, False, None, "unspoken"),
        (ProtocolError("empty_reply"), Stage.WAITING, False, None, "unspoken"),
        (ProtocolError("truncated"), Stage.READING, False, 200, "spoken"),
        (FetchTimeout("read_timeout"), Stage.WAITING, False, None, "spoken"),
        (FetchTimeout("read_timeout"), Stage.WAITING, True, None, "unspoken"),
        (FetchTimeout("read_timeout"), Stage.READING, True, 200, "spoken"),
        (DNSError("dns_not_found"), Stage.RESOLVING, True, None, "nothing"),
    ],
)
def test_what_an_error_says_of_http(
    error: FetchError, stage: Stage, slow: bool, status: int | None, expected: str
) -> None:
    assert told(PLAIN_TARGET, error, stage, slow=slow, status=status) == expected


@pytest.mark.parametrize(
    ("error", "may"),
    [
        (ConnectError("connect_refused"), True),
        (ConnectTimeout(), True),
        (TLSError("tls_protocol"), True),
        (TLSTimeout(), True),
        (TLSError("tls_verify"), False),
        (FetchTimeout("read_timeout"), False),
        (DNSError("dns_not_found"), False),
        (ProtocolError("empty_reply"), False),
    ],
)
def test_only_what_may_mean_that_a_host_speaks_http_alone_has_it_asked_by_that(error: FetchError, may: bool) -> None:
    assert schemes.may_do_without_tls(error) is may


async def test_what_was_tried_leaves_nothing_behind() -> None:
    tried: list[weakref.ref[FetchError]] = []

    async def transport(request: Request) -> Response:
        error = ConnectError("connect_refused", "no")
        tried.append(weakref.ref(error))
        raise error

    gc.disable()
    try:
        async with Fetcher(Config.of(robots=False, retries=0), transport=transport) as fetcher:
            async with fetcher.stream(["example.com"]) as outcomes:
                (outcome,) = [outcome async for outcome in outcomes]
            assert isinstance(outcome, Failure)
            assert [ref() is outcome.error for ref in tried] == [False, False, True]
            assert [ref() for ref in tried[:2]] == [None, None]
    finally:
        gc.enable()


def test_an_error_of_another_origin_says_nothing() -> None:
    state = RequestState(Request(1, "example.com"), SECURE)
    trial = SchemeTrial(SECURE.origin, lambda: None)
    state.follow(parse("https://elsewhere.example"))
    assert not trial.failed(state, ConnectError("connect_refused", str(errno.ECONNREFUSED)))
    assert (trial.spoken, trial.error) == (False, None)


def test_the_summary_says_how_many_went_by_http() -> None:
    stats = Stats()
    assert "by http" not in summarize(stats, 1.0).as_text()
    stats.by_http = 2
    summary = summarize(stats, 1.0)
    assert "2 rows without a scheme went by http" in summary.as_text()
    assert '"by_http": 2' in summary.as_json()


@pytest.mark.parametrize(("by_http", "asked"), [(True, "http://example.com/"), (False, "example.com")])
async def test_a_row_that_goes_on_with_a_chain_is_not_tried_anew(by_http: bool, asked: str) -> None:
    """Perhaps it was another process that found out what its host speaks."""
    handler = schemes.Schemes(Gate(Scheduler(Limits(), RetryPolicy())), Secrets(Config.of().identity))
    state = RequestState(Request(1, "example.com"), SECURE)
    state.chain, state.by_http = RedirectChain(SECURE, "example.com"), by_http
    seen: list[str] = []

    async def proceed(request: Request) -> Response:
        seen.append(request.url)
        return Response(request, request.url, 200)

    current.set(state)
    await handler(state.request, proceed)
    assert (seen, state.by_http, len(handler)) == ([asked], by_http, 0)
