"""Who asks which site, and which rows a worker has: nothing is lost, nobody starves, and what is given is bounded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fetcher.buckets import bucket_of
from fetcher.config import Limits
from fetcher.model import Request
from fetcher.parallel.assignment import FIRST_ALLOWANCE, MAX_ALLOWANCE, MIN_GIVEN, RowAssigner
from fetcher.request_state import RequestState
from fetcher.urls import parse


@pytest.fixture(autouse=True)
def closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what each test makes: there may be rows on disk."""
    made: list[RowAssigner] = []
    begin = RowAssigner.__init__

    def noted(self: RowAssigner, *given: Any, **more: Any) -> None:
        begin(self, *given, **more)
        made.append(self)

    monkeypatch.setattr(RowAssigner, "__init__", noted)
    yield
    for assigner in made:
        assigner.close()


def row(key: int, host: str) -> RequestState:
    url = f"http://{host}/{key}"
    return RequestState(Request(key, url), parse(url), key)


def assigned(rows: list[RequestState], workers: int = 2, lookahead: int = 10_000) -> RowAssigner:
    assigner = RowAssigner(workers, Limits(lookahead=lookahead))
    for state in rows:
        assigner.push(state)
    assigner.begin()
    return assigner


def keys(states: list[RequestState]) -> list[int]:
    return [state.order for state in states]


def test_a_site_has_one_worker_and_the_sites_are_divided_evenly() -> None:
    rows = [row(key, f"www{key % 3}.site{key % 50}.example") for key in range(1, 1501)]
    assigner = assigned(rows)
    given = [assigner.take(0, 5_000), assigner.take(1, 5_000)]
    buckets = [{bucket_of(state.target.host) for state in states} for states in given]
    assert not buckets[0] & buckets[1]
    assert abs(len(buckets[0]) - len(buckets[1])) <= 1, "the hash alone would not divide them so"


def test_the_largest_sites_are_dealt_first() -> None:
    sizes = {"big.example": 400, **{f"small{n}.example": 50 for n in range(8)}}
    rows = [row(n * 1000 + at, host) for n, (host, size) in enumerate(sizes.items()) for at in range(size)]
    assigner = assigned(rows)
    assert sorted(load.waiting for load in assigner.loads) == [400, 400]


def test_each_row_is_given_once_and_ended_once() -> None:
    assigner = assigned([row(key, f"h{key % 7}.example") for key in range(1, 200)])
    seen: list[int] = []
    while any(load.round or load.given for load in assigner.loads):
        for worker in (0, 1):
            for state in assigner.take(worker, 64):
                assert assigner.ended(1 - worker, state.order) is None, "the other one has it not"
                assert assigner.ended(worker, state.order) is state
                assert assigner.ended(worker, state.order) is None
                seen.append(state.order)
    assert sorted(seen) == list(range(1, 200))
    assert assigner.given == 0


def test_hosts_take_turns_and_a_new_one_has_few_rows_given() -> None:
    assigner = assigned([row(key, "a.example") for key in range(1, 900)] + [row(1000, "b.example")], workers=1)
    first = assigner.take(0, 10_000)
    assert [state.target.host for state in first[:2]] == ["a.example", "b.example"]
    assert len(first) == FIRST_ALLOWANCE + 1
    assert assigner.take(0, 10_000) == []
    for state in first[:5]:
        assigner.ended(0, state.order)
    # Of the five rows one was of the other host: four places are free, and four more are earned.
    assert len(assigner.take(0, 10_000)) == 8


def test_a_host_that_ends_its_rows_is_given_more_up_to_a_bound() -> None:
    assigner = assigned([row(key, "a.example") for key in range(1, 9_000)], workers=1)
    most = 0
    for _ in range(40):
        states = assigner.take(0, 10_000)
        most = max(most, assigner.given)
        for state in states:
            assigner.ended(0, state.order)
    assert most == MAX_ALLOWANCE


def test_what_is_given_is_bounded() -> None:
    assigner = assigned([row(key, f"h{key}.example") for key in range(1, 3_000)], workers=2, lookahead=10)
    assert len(assigner.take(0, 10_000)) <= MIN_GIVEN
    assert assigner.take(0, 10_000) == []


def test_the_rows_of_a_worker_that_died_are_given_again_first() -> None:
    assigner = assigned([row(key, "a.example") for key in range(1, 100)], workers=1)
    first = assigner.take(0, 5)
    assert assigner.lost(0) == 5
    assert assigner.given == 0
    assert keys(assigner.take(0, 5)) == keys(first)
    assert assigner.ended(0, 99) is None


def test_a_row_that_goes_on_at_another_site_is_given_to_its_worker() -> None:
    assigner = assigned([row(1, "a.example"), row(2, "b.example")])
    places = {worker: assigner.take(worker, 10)[0] for worker in (0, 1)}
    here, there = places[0], places[1]
    state = assigner.ended(0, here.order)
    assert state is here
    state.target = there.target
    assigner.push_again(state)
    assert assigner.take(0, 10) == []
    assert assigner.take(1, 10) == [state]


def test_a_site_that_was_never_seen_goes_to_whoever_has_less() -> None:
    assigner = assigned([row(key, "a.example") for key in range(1, 50)])
    busy = next(worker for worker in (0, 1) if assigner.take(worker, 1))
    assigner.push(row(99, "new.example"))
    assert keys(assigner.take(1 - busy, 10)) == [99]


def test_a_list_sorted_by_site_is_read_on_for_a_worker_that_lacks_rows(tmp_path: Path) -> None:
    assigner = RowAssigner(2, Limits(lookahead=1_000), folder=str(tmp_path))
    key = 0
    while not assigner.is_full(0.0):
        key += 1
        assigner.push(row(key, "first.example"))
    assert key == 1_000
    assigner.begin()
    assigner.take(0, 100)
    while not assigner.is_full(0.0) and key < 20_000:
        key += 1
        assigner.push(row(key, "first.example"))
    assert key == 20_000, "one worker has nothing to do: another site may come"
    assigner.push(row(key + 1, "second.example"))
    assert keys(assigner.take(1, 10) or assigner.take(0, 10)) == [key + 1]
    taken = keys(assigner.take(0, 10)) + keys(assigner.take(1, 10))
    assert taken == [], "the first site has its rows given"


def test_rows_come_back_from_disk_in_their_order(tmp_path: Path) -> None:
    assigner = RowAssigner(1, Limits(lookahead=100), folder=str(tmp_path))
    assigner.begin()
    for key in range(1, 5_001):
        assigner.push(row(key, "a.example"))
        assigner.is_full(0.0)
    got: list[int] = []
    while states := assigner.take(0, 50):
        got += keys(states)
        for state in states:
            assigner.ended(0, state.order)
    assert got == list(range(1, 5_001))
    assigner.close()


def test_with_all_at_work_the_list_waits() -> None:
    assigner = assigned([row(key, f"h{key}.example") for key in range(1, 4_001)], lookahead=2_000)
    for worker in (0, 1):
        assigner.take(worker, 10_000)
    assert assigner.is_full(0.0)
