"""A row on its way: which stage may follow which, what it holds, and what is told of it."""

from __future__ import annotations

import asyncio
import itertools
import pickle

import pytest

from fetcher import Config, Fetcher
from fetcher.config import Limits, RetryPolicy
from fetcher.errors import ConnectError, Skipped, StatusError
from fetcher.hosts.scheduler import Scheduler
from fetcher.model import Exchange, Request, Response, Stage
from fetcher.request_state import RequestState, Requeue, Transfer, current, failure_of, snapshot_of, waited
from fetcher.urls import parse

UNDER_WAY = {
    Stage.ROBOTS, Stage.PACING, Stage.BACKOFF, Stage.RESOLVING, Stage.CONNECTING, Stage.HANDSHAKING, Stage.WAITING,
    Stage.READING, Stage.WAITING_FOR_MEMORY,
}  # fmt: skip
"""These follow each other freely: a middleware may have several requests of one row under way."""

FOLLOWING: dict[Stage, set[Stage]] = {
    Stage.LISTED: {Stage.ADMITTED, Stage.DEFERRED, Stage.QUEUED} | UNDER_WAY,  # fetched in place, it is never admitted
    Stage.ADMITTED: {Stage.DEFERRED, Stage.QUEUED} | UNDER_WAY,
    **{stage: {Stage.DEFERRED, Stage.QUEUED} | UNDER_WAY for stage in UNDER_WAY},
    Stage.DEFERRED: {Stage.ADMITTED},
    Stage.QUEUED: {Stage.PARSING},
    Stage.PARSING: set(),
}


def row(number: int = 1, url: str = "http://a.example/1") -> RequestState:
    return RequestState(Request(number, url), parse(url))


def at(stage: Stage) -> RequestState:
    """Return a row in a stage, by the shortest way that leads there with a real session."""
    ways = [[Stage.LISTED]]
    for way in ways:
        if way[-1] is stage:
            state = row()
            for step in way[1:]:
                state.enter(step)
            return state
        following = FOLLOWING[way[-1]].difference(way)
        ways += [[*way, step] for step in Stage if step in following]
    raise AssertionError(stage)


# Stages


@pytest.mark.parametrize(("stage", "following"), list(itertools.product(Stage, Stage)), ids=repr)
def test_a_stage_is_entered_from_where_it_may_follow_and_refused_elsewhere(stage: Stage, following: Stage) -> None:
    state = at(stage)
    assert state.stage is stage
    if following in FOLLOWING[stage]:
        state.enter(following, 7.0)
        assert (state.stage, state.stage_since) == (following, 7.0)
    elif following in UNDER_WAY:  # what a middleware asks for once its row has ended is no stage of the row
        state.enter(following, 7.0)
        assert state.stage is stage
    else:
        since = state.stage_since
        with pytest.raises(RuntimeError, match=f"^row 1 cannot go from {stage.value} to {following.value}$"):
            state.enter(following, 7.0)
        assert (state.stage, state.stage_since) == (stage, since)


def test_every_stage_has_its_own_bit_and_says_its_name() -> None:
    assert len({stage.bit for stage in Stage}) == len(Stage)
    assert all(stage.bit.bit_count() == 1 for stage in Stage)
    assert [repr(stage) for stage in Stage] == [stage.value for stage in Stage]
    assert all(pickle.loads(pickle.dumps(stage)) is stage for stage in Stage)


def test_a_row_is_admitted_each_time_and_begins_once() -> None:
    state, host = row(), Scheduler(Limits(), RetryPolicy()).get("a.example", 0.0)
    state.admit(host, 5.0)
    assert (state.stage, state.stage_since, state.began, state.can_requeue) == (Stage.ADMITTED, 5.0, 5.0, True)
    state.enter(Stage.DEFERRED, 6.0)
    assert state.take_reservation() is host
    state.admit(host, 9.0)
    assert state.reservation is host
    assert (state.stage, state.stage_since, state.began) == (Stage.ADMITTED, 9.0, 5.0)


def test_a_row_that_is_fetched_in_place_waits_where_it_is() -> None:
    state = row()
    state.begin(5.0)
    assert (state.stage, state.began, state.can_requeue) == (Stage.LISTED, 5.0, False)


# Where it goes


def test_a_chain_of_redirects_is_followed_and_begun_again() -> None:
    state = row()
    hop, last = parse("http://b.example/"), parse("http://c.example/")
    state.follow(hop)
    state.reach("public")
    state.follow(last)
    assert (state.target, state.redirects, state.reached) == (last, (hop.wire, last.wire), "public")
    state.follow(hop, redirects=(hop.wire,))
    assert (state.target, state.redirects) == (hop, (hop.wire,))
    state.start_over(state.first)
    assert (state.target, state.redirects, state.reached) == (state.first, (), None)


@pytest.mark.parametrize("in_a_chain", [False, True])
def test_a_row_that_goes_back_begins_with_the_listed_url_unless_it_stands_in_a_chain(in_a_chain: bool) -> None:
    state, hop = row(), parse("http://b.example/")
    state.follow(hop)
    state.chain = object() if in_a_chain else None
    state.rewind()
    assert state.target is (hop if in_a_chain else state.first)


# What it holds


def test_a_reservation_is_taken_once() -> None:
    state, host = row(), Scheduler(Limits(), RetryPolicy()).get("a.example", 0.0)
    assert state.take_reservation() is None
    state.admit(host, 5.0)
    assert state.reservation is host
    assert [state.take_reservation(), state.take_reservation()] == [host, None]


def test_memory_is_given_back_once() -> None:
    state = row()
    given_back: list[int] = []
    assert not state.holds_memory
    state.hold_memory(lambda: given_back.append(1))
    assert state.holds_memory
    state.free()
    state.free()
    assert (given_back, state.holds_memory) == ([1], False)


# What is told of it


def test_a_row_shows_its_state() -> None:
    state = RequestState(Request(7, "http://a.example/x"), parse("http://a.example/x"), attempts=2, elapsed=1.25)
    assert repr(state) == ("<RequestState 7 http://a.example/x listed: 2 attempts, 0 redirects, 1.250 s on the wire>")
    state.follow(parse("http://b.example/"))
    state.reservation = Scheduler(Limits(), RetryPolicy()).get("a.example", 0.0)
    state.enter(Stage.PACING)
    assert repr(state) == (
        "<RequestState 7 http://b.example/ pacing: 2 attempts, 1 redirects, 1.250 s on the wire, "
        "a slot of a.example reserved>"
    )


def test_what_was_not_on_the_wire_was_waited() -> None:
    assert waited(row()) == 0.0
    request, target = Request(1, "http://a.example/"), parse("http://a.example/")
    assert waited(RequestState(request, target, began=100.0, ended=104.0, elapsed=1.5)) == 2.5
    assert waited(RequestState(request, target, began=100.0, ended=101.0, elapsed=1.5)) == 0.0


def test_a_running_row_is_seen_from_outside() -> None:
    state = row(3)
    state.began = 1.0
    state.enter(Stage.CONNECTING, 2.0)
    seen = snapshot_of(state)
    assert (seen.id, seen.url, seen.stage, seen.attempts) == (3, "http://a.example/1", "connecting", 0)
    assert seen.age - seen.in_stage == pytest.approx(1.0)


def test_a_failure_knows_what_its_last_request_had() -> None:
    transfer = Transfer(status=503, received=17)
    state = RequestState(
        Request(1, "http://a.example/"), parse("http://a.example/"), attempts=1, elapsed=0.5, transfer=transfer
    )
    error = StatusError(503)
    failure = failure_of(state, error)
    assert (failure.error, failure.status, failure.bytes, failure.attempts) == (error, 503, 17, 1)
    assert failure_of(state, error, tries=1).attempts == 2


def test_what_was_never_asked_for_has_no_url() -> None:
    failure = failure_of(row(), Skipped("duplicate"))
    assert (failure.url, failure.status, failure.bytes, failure.attempts) == (None, None, None, 0)
    assert failure_of(row(), ConnectError("connect_refused"), tries=1).url == "http://a.example/1"


# One request on the wire


def test_a_transfer_begins_with_nothing_received() -> None:
    host = Scheduler(Limits(), RetryPolicy()).get("a.example", 0.0)
    transfer = Transfer(host, 5.0, lambda _: 0.0, suspect=True)
    assert (transfer.host, transfer.began, transfer.suspect) == (host, 5.0, True)
    assert (transfer.clock, transfer.status, transfer.received, transfer.max_bytes) == (None, None, None, None)
    assert transfer.send_gate is not None
    assert transfer.send_gate(row()) == 0.0


def test_a_transfer_of_no_host_is_what_is_left_of_one() -> None:
    transfer = Transfer(status=200, received=9)
    assert (transfer.host, transfer.send_gate, transfer.status, transfer.received) == (None, None, 200, 9)


def test_a_row_that_must_wait_is_no_failed_request() -> None:
    requeue = Requeue(9.0)
    assert requeue.due == 9.0
    assert not isinstance(requeue, Exception)


@pytest.mark.parametrize("way", ["both at once", "the second after the answer"])
async def test_a_middleware_may_have_two_requests_of_a_row_under_way(way: str) -> None:
    async def transport(request: Request) -> Response:
        await asyncio.sleep(0)
        state = current.get()
        for stage in (Stage.CONNECTING, Stage.WAITING, Stage.READING):
            state.enter(stage)
            await asyncio.sleep(0)
        return Response(request, request.url, 200)

    behind: list[asyncio.Task[Response]] = []

    async def hedge(request: Request, proceed: Exchange) -> Response:
        if way == "both at once":
            return (await asyncio.gather(proceed(request), proceed(request)))[1]
        answer = await proceed(request)
        behind.append(asyncio.ensure_future(proceed(request)))
        return answer

    config = Config.of(robots=False, per_host=2)
    async with Fetcher(config, transport=transport, middleware=[hedge]) as fetcher:
        async with fetcher.stream([f"http://a.example/{n}" for n in range(20)]) as outcomes:
            assert [outcome.ok async for outcome in outcomes] == [True] * 20
        await asyncio.gather(*behind)
