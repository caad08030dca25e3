"""The retry policy: what is worth another try, how many there are, and how long to wait before each."""

from __future__ import annotations

from collections import Counter

import pytest

from fetcher import Config, Fetcher, RetryDetails, errors
from fetcher.config import Accept, Limits, RetryPolicy
from fetcher.errors import RETRYABLE, FetchError, Skipped, StatusError
from fetcher.hosts.health import HealthTracker
from fetcher.hosts.scheduler import Scheduler
from fetcher.middleware.gate import Gate
from fetcher.middleware.retry import NETWORK_PAUSE_SECONDS, Backoff, Retry
from fetcher.model import Request, Response, Stage
from fetcher.request_state import RequestState, Requeue, current
from fetcher.urls import parse

POLICY = RetryPolicy()
TIMEOUT = errors.FetchTimeout("read_timeout")


def waits(policy: RetryPolicy, attempts: int, error: FetchError = TIMEOUT) -> list[float]:
    backoff = Backoff(policy)
    found = [backoff.after(error, attempts) for _ in range(400)]
    return [wait for wait in found if wait is not None]


def every_code() -> list[FetchError]:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FetchError)]
    made = [kind(code) for kind in kinds for code in kind.codes]
    return [*made, *(StatusError(status) for status in range(100, 1000))]


def test_what_may_pass_is_tried_again_and_nothing_else() -> None:
    backoff = Backoff(POLICY)
    tried = {error.code for error in every_code() if backoff.after(error, 1) is not None}
    assert tried == RETRYABLE
    assert {code for code in tried if code.startswith("http_")} == {
        f"http_{status}" for status in (408, 425, 429, 500, 502, 503, 504, *range(520, 525), 527, 529, 530)
    }


@pytest.mark.parametrize("retries", [0, 1, 2, 7])
def test_there_are_as_many_further_tries_as_asked_for(retries: int) -> None:
    backoff = Backoff(RetryPolicy(retries=retries))
    attempts = 1
    while backoff.after(TIMEOUT, attempts) is not None:
        attempts += 1
    assert attempts == retries + 1
    assert backoff.after(TIMEOUT, attempts + 5) is None


@pytest.mark.parametrize(
    ("attempts", "most"), [(1, 0.5), (2, 1.0), (3, 2.0), (6, 16.0), (7, 30.0), (60, 30.0), (5_000, 30.0)]
)
def test_the_wait_is_anywhere_up_to_a_bound_that_doubles(attempts: int, most: float) -> None:
    found = waits(RetryPolicy(retries=10_000), attempts)
    assert len(found) == 400
    assert 0.25 <= min(found) < 0.25 + (most - 0.25) * 0.2
    assert most * 0.8 < max(found) <= most
    assert len(set(found)) > 100  # jitter: those who failed together do not come back together


def test_no_backoff_is_no_wait() -> None:
    assert set(waits(RetryPolicy(backoff=0.0), 2)) == {0.0}
    assert set(waits(RetryPolicy(max_backoff=0.0), 2)) == {0.0}


def test_the_bound_holds_where_the_backoff_begins_above_it() -> None:
    assert max(waits(RetryPolicy(backoff=100.0, max_backoff=3.0), 1)) <= 3.0


def test_one_policy_serves_many_rows_at_once() -> None:
    backoff = Backoff(RetryPolicy(retries=1))
    assert backoff.after(TIMEOUT, 2) is None
    assert backoff.after(TIMEOUT, 1) is not None
    assert backoff.after(errors.TLSError("tls_verify"), 1) is None
    assert backoff.after(TIMEOUT, 1) is not None


def test_an_error_that_was_raised_is_not_held() -> None:
    backoff = Backoff(POLICY)
    try:
        raise errors.ConnectError("connect_reset", "by the peer")
    except FetchError as error:
        assert backoff.after(error, 1) is not None
        assert backoff.after(error, 3) is None


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("tries", range(1, 5))
async def test_the_last_try_at_a_host_that_never_answered_is_far_from_the_others(tries: int, answered: bool) -> None:
    """A host with few rows would otherwise use up all of them in a second or two, and may be about to start."""
    now = 1_000.0
    policy = RetryPolicy(retries=4)
    hosts = Scheduler(Limits(), policy)
    host = hosts.get("a.test", now)
    if answered:
        host.answered(80)
    hosts.shared.set_suspect(host, suspect=True)
    state = RequestState(Request(1, "http://a.test:81/"), parse("http://a.test:81/"), attempts=tries - 1)
    state.can_requeue = True

    async def refuse(_: Request) -> Response:
        raise errors.ConnectError("connect_refused")

    current.set(state)
    with pytest.raises(Requeue) as later:
        await Retry(policy, Gate(hosts, lambda: now))(state.request, refuse)
    far = 10 * policy.backoff
    assert (later.value.due >= now + far) == (tries == 4 and not answered)
    assert state.attempts == tries


@pytest.mark.parametrize(
    ("error", "stage", "attempts"),
    [
        (errors.ConnectError("connect_refused"), Stage.CONNECTING, 1),
        (errors.ConnectError("connect_refused"), Stage.ROBOTS, 0),  # it was asked for its robots.txt alone
        (Skipped("address_blocked"), Stage.CONNECTING, 0),
    ],
)
async def test_what_cannot_change_ends_the_row_and_was_a_try_where_it_was_the_rows_own(
    error: FetchError, stage: Stage, attempts: int
) -> None:
    state = RequestState(Request(1, "http://a.test/"), parse("http://a.test/"))
    error.final = True

    async def fail(_: Request) -> Response:
        state.stage = stage
        raise error

    current.set(state)
    with pytest.raises(type(error)):
        await Retry(POLICY, Gate(Scheduler(Limits(), POLICY), lambda: 1_000.0))(state.request, fail)
    assert state.attempts == attempts


async def test_a_row_whose_host_asks_to_wait_goes_back_until_then() -> None:
    hosts = Scheduler(Limits(), POLICY)
    state = RequestState(Request(1, "http://a.test/"), parse("http://a.test/"))
    state.can_requeue = True
    asked = 0

    async def throttled(_: Request) -> Response:
        nonlocal asked
        asked += 1
        raise StatusError(403, retry_after=20.0)

    current.set(state)
    with pytest.raises(Requeue) as later:
        await Retry(POLICY, Gate(hosts, lambda: 1_000.0))(state.request, throttled)
    assert (later.value.due, asked, state.attempts) == (1_020.0, 1, 0)


async def test_while_our_own_network_is_away_a_row_is_tried_again_after_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(HealthTracker, "blame", lambda *_: "network")
    state = RequestState(Request(1, "http://a.test/"), parse("http://a.test/"))
    slept: list[float] = []
    asked = 0

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def away(_: Request) -> Response:
        nonlocal asked
        asked += 1
        if asked > 1:
            return Response(state.request, "http://a.test/", 200)
        raise errors.ConnectError("connect_failed", "no route")

    current.set(state)
    answer = await Retry(POLICY, Gate(Scheduler(Limits(), POLICY), lambda: 1_000.0), sleep)(state.request, away)
    assert (answer.status, slept, state.attempts) == (200, [NETWORK_PAUSE_SECONDS], 0)


@pytest.mark.parametrize(
    ("seconds", "can_requeue", "in_place"), [(1.0, True, True), (5.0, True, False), (5.0, False, True)]
)
async def test_a_long_wait_is_in_place_where_nobody_takes_the_row_back(
    seconds: float, can_requeue: bool, in_place: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backoff, "after", lambda _, error, attempts: seconds if attempts == 1 else None)
    hosts = Scheduler(Limits(), POLICY)
    hosts.get("a.test", 1_000.0).answered(81)
    state = RequestState(Request(1, "http://a.test:81/"), parse("http://a.test:81/"))
    state.can_requeue = can_requeue
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def times_out(_: Request) -> Response:
        raise errors.FetchTimeout("read_timeout")

    current.set(state)
    with pytest.raises(errors.FetchTimeout if in_place else Requeue):
        await Retry(POLICY, Gate(hosts, lambda: 1_000.0), sleep)(state.request, times_out)
    assert slept == ([seconds] if in_place else [])


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("error", "blame"),
    [
        (StatusError(429), "host"),
        (StatusError(503, "", 0.0), "host"),
        (StatusError(403, "", 5.0), "host"),
        (StatusError(529, "", 300.0), "host"),
        (StatusError(503), "row"),
        (StatusError(529), "row"),
        (StatusError(529, "", 301.0), "row"),  # over --max-retry-after
        (StatusError(520, "", 5.0), "row"),
        (StatusError(500, "", 5.0), "row"),
    ],
    ids=str,
)
async def test_a_status_that_asks_us_to_wait_is_the_hosts_and_others_are_the_rows(
    error: StatusError, blame: str, known: bool
) -> None:
    now = 1_000.0
    hosts = Scheduler(Limits(), POLICY)
    if known:
        hosts.get("a.test", now).answered(80)
    state = RequestState(Request(1, "http://a.test/"), parse("http://a.test/"))
    answers: list[StatusError | None] = [error, None]
    slept: list[float] = []

    async def refuse_once(request: Request) -> Response:
        if (refusal := answers.pop(0)) is not None:
            raise refusal
        return Response(request, request.url, 200)

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    current.set(state)
    response = await Retry(POLICY, Gate(hosts, lambda: now), sleep)(state.request, refuse_once)
    assert (response.status, state.attempts, len(slept)) == ((200, 0, 0) if blame == "host" else (200, 1, 1))


@pytest.mark.parametrize("status", [403, 529])
async def test_the_second_of_these_for_a_row_and_one_that_asks_for_too_much_are_the_rows_own(status: int) -> None:
    """Some answer so for ever. The host is given up for none of them."""
    now = 1_000.0
    policy = RetryPolicy(retries=0)
    for wishes in ([5.0, 5.0], [301.0]):
        hosts = Scheduler(Limits(), policy)
        state = RequestState(Request(1, "http://a.test/"), parse("http://a.test/"))
        asked: list[float] = []

        async def refuse(_: Request, wishes: list[float] = wishes, asked: list[float] = asked) -> Response:
            asked.append(wishes[len(asked)])
            raise StatusError(status, "", asked[-1])

        current.set(state)
        with pytest.raises(StatusError) as caught:
            await Retry(policy, Gate(hosts, lambda: now))(state.request, refuse)
        assert (caught.value.code, state.attempts, asked) == (f"http_{status}", 1, wishes)
        assert hosts.get("a.test", now).breaker.given_up is None


def test_which_statuses_are_tried_again_is_for_the_user_to_say() -> None:
    """All else goes by its own table."""
    backoff = Backoff(RetryPolicy(retry_on=Accept(((404, 404), (990, 999)))))
    tried = {error.code for error in every_code() if backoff.after(error, 1) is not None}
    statuses = {f"http_{status}" for status in (404, *range(990, 1000))}
    assert tried == {code for code in RETRYABLE if not code.startswith("http_")} | statuses


# The hook


async def test_the_hook_is_told_of_each_retry_before_it_is_waited_for() -> None:
    told: list[RetryDetails] = []
    tries: Counter[str] = Counter()

    async def transport(request: Request) -> Response:
        tries[request.url] += 1
        if request.url.endswith("/often") or tries[request.url] == 1:
            assert sum(details.url == request.url for details in told) == tries[request.url] - 1
            raise StatusError(500)
        return Response(request, request.url, 200)

    config = Config.of(robots=False, retries=2, backoff=0.001)
    async with Fetcher(config, transport=transport, on_retry=told.append) as fetcher:
        async with fetcher.stream(["http://a.example/once", "http://b.example/often"]) as outcomes:
            ended = {outcome.request.url: outcome async for outcome in outcomes}
    assert [ended[url].ok for url in sorted(ended)] == [True, False]
    assert ended["http://b.example/often"].attempts == 3
    assert Counter((details.url, details.attempt) for details in told) == {
        ("http://a.example/once", 1): 1,
        ("http://b.example/often", 1): 1,
        ("http://b.example/often", 2): 1,
    }
    assert {(details.error.code, details.error.url == details.url, details.requeued) for details in told} == {
        ("http_500", True, False)
    }
    assert all(0 <= details.wait < 1 and details.request.url == details.url for details in told)


async def test_a_hook_that_fails_ends_the_run() -> None:
    async def transport(request: Request) -> Response:
        raise StatusError(500)

    def broken(details: RetryDetails) -> None:
        raise ZeroDivisionError(details.url)

    async with Fetcher(Config.of(robots=False), transport=transport, on_retry=broken) as fetcher:
        with pytest.raises(ZeroDivisionError):
            async with fetcher.stream(["http://a.example/"]) as outcomes:
                async for _ in outcomes:
                    pass
