"""The frontier's queues: what goes in comes out once and in order, whatever is on disk meanwhile."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.frontier.queues import DelayQueue, HostQueue
from fetcher.frontier.spill import MAX_BATCH_ROWS, Spill
from fetcher.model import Request
from fetcher.request_state import RequestState
from fetcher.urls import Target

NUMBERS = itertools.count(1)


def row(*, tag: object = None) -> RequestState:
    number = next(NUMBERS)
    url = f"http://a.example/{number}"
    return RequestState(Request(number, url, tag=tag), Target(url, "http", "a.example", 80), number)


@pytest.fixture
def spill() -> Iterator[Spill]:
    spill = Spill()
    yield spill
    spill.close()


def pop(queue: HostQueue, spill: Spill, rows: int = 1) -> RequestState:
    if not queue.returned and not queue.rows:
        queue.refill(spill, rows)
    return queue.pop()


def drained(queue: HostQueue, spill: Spill) -> list[int]:
    return [pop(queue, spill).order for _ in range(queue.count)]


STEPS = st.lists(
    st.sampled_from(["push", "push", "push many", "again", "pop", "pop", "cut 0", "cut 2", "cut 300", "flush"]),
    max_size=60,
)


@settings(max_examples=100, deadline=None)
@given(STEPS, st.booleans())
def test_every_row_comes_out_once_and_those_that_never_started_in_order(steps: list[str], tagged: bool) -> None:
    spill, queue, memory = Spill(), HostQueue("a.example"), 0
    given_, out, new = set[int](), list[int](), list[int]()
    try:
        for number, step in enumerate(steps):
            if step.startswith("push"):
                for _ in range(MAX_BATCH_ROWS + 3 if step == "push many" else 1):
                    state = row(tag="mine" if tagged and number % 3 == 0 else None)
                    given_.add(state.order)
                    new.append(state.order)
                    memory += 1
                    if queue.push(state):
                        memory -= queue.flush(spill)
            elif step == "again":
                queue.push_again(state := row())
                given_.add(state.order)
                memory += 1
            elif step == "pop" and queue.count:
                before = queue.held
                if not queue.returned and not queue.rows:
                    memory += queue.refill(spill, 5)
                assert queue.held >= before
                out.append(queue.pop().order)
                memory -= 1
            elif step.startswith("cut"):
                memory -= queue.cut(spill, int(step[4:]))
            elif step == "flush":
                memory -= queue.flush(spill)
            assert queue.held == memory
        out += drained(queue, spill)
    finally:
        spill.close()
    assert sorted(out) == sorted(given_)
    assert queue.count == 0
    if not tagged:
        assert [number for number in out if number in set(new)] == new


def test_rows_that_came_back_go_first(spill: Spill) -> None:
    queue = HostQueue("a.example")
    new, back = [row() for _ in range(3)], [row() for _ in range(3)]
    for state in new:
        queue.push(state)
    for state in back:
        queue.push_again(state)
    expected = [state.order for state in back + new]
    assert queue.cut(spill, 2) == 4
    assert queue.held == 2
    assert drained(queue, spill) == expected


def test_a_line_on_disk_is_small(spill: Spill) -> None:
    queue = HostQueue("a.example")
    for _ in range(5):
        queue.push(row())
    assert queue.cut(spill, 0) == 5
    assert (queue.held, queue.rows, queue.returned, queue.tail) == (0, None, None, None)


def test_as_many_new_rows_as_one_write_takes_are_written(spill: Spill) -> None:
    queue = HostQueue("a.example")
    queue.push(row())
    queue.cut(spill, 0)
    assert [queue.push(row()) for _ in range(MAX_BATCH_ROWS)] == [False] * (MAX_BATCH_ROWS - 1) + [True]


def test_what_cannot_leave_stays_and_counts(spill: Spill) -> None:
    queue = HostQueue("a.example")
    for number in range(6):
        queue.push(row(tag=number or None))
    assert queue.cut(spill, 0) == 1
    assert queue.held == 5
    assert queue.cut(spill, 0) == 0
    queue.push(row(tag="late"))
    assert (queue.held, queue.count) == (6, 7)
    assert len(drained(queue, spill)) == 7


def test_of_the_newest_rows_those_that_cannot_leave_come_first(spill: Spill) -> None:
    queue = HostQueue("a.example")
    queue.push(row())
    queue.cut(spill, 0)
    late = row(tag="late")
    queue.push(late)
    queue.push(row())
    assert queue.flush(spill) == 1
    assert (queue.held, queue.count) == (1, 3)
    assert drained(queue, spill)[0] == late.order


def test_there_is_nothing_to_pop_but_in_memory(spill: Spill) -> None:
    queue = HostQueue("a.example")
    queue.push(row())
    queue.cut(spill, 0)
    with pytest.raises(IndexError, match=r"a\.example"):
        queue.pop()


def test_the_weight_is_the_time_a_host_needs_alone() -> None:
    slow, fast = HostQueue("slow"), HostQueue("fast")
    for _ in range(10):
        fast.push(row())
    slow.push(row())
    slow.gap = 0.5
    assert slow.weight == 0.5 > fast.weight > 0.0


# The shelf


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 50), st.sampled_from([0, 0, 0, 1, 5, 10_000]), st.booleans()), max_size=60),
    st.lists(st.integers(1, 20), max_size=20),
)
def test_every_row_comes_when_it_is_due(pushed: list[tuple[int, int, bool]], times: list[int]) -> None:
    spill = Spill()
    shelf = DelayQueue(spill)
    dues: dict[int, float] = {}
    try:
        for due, unload, tagged in pushed:
            state = row(tag=1 if tagged else None)
            dues[state.order] = float(due)
            shelf.push(state, float(due))
            left = shelf.held - shelf.unload(unload)
            assert shelf.held == left
            assert shelf.first == min(dues.values())
        now = 0.0
        for step in [*times, 60]:
            now += step
            came = list[int]()
            while shelf.first <= now:
                came += [state.order for state in shelf.pop(now, 3)]
            assert {dues.pop(number) <= now for number in came} <= {True}
            assert all(due > now for due in dues.values())
            assert shelf.next(now) == shelf.first == min(dues.values(), default=math.inf)
        assert not dues
    finally:
        spill.close()


def test_those_due_at_the_same_time_come_in_the_order_they_came_back(spill: Spill) -> None:
    shelf = DelayQueue(spill)
    rows = [row() for _ in range(9)]
    for state in rows:
        shelf.push(state, 5.0)
    assert shelf.pop(5.0, 99) == rows


def test_those_due_last_leave_memory_first(spill: Spill) -> None:
    shelf = DelayQueue(spill)
    rows = [row() for _ in range(1_000)]
    for due, state in enumerate(rows):
        shelf.push(state, float(due))
    assert shelf.unload(600) == 600
    assert shelf.held == 400
    assert [state.order for state in shelf.pop(399.5, 10)] == [state.order for state in rows[:400]]
    assert spill.written == 600


def test_what_is_due_on_disk_comes_in_parts(spill: Spill) -> None:
    shelf = DelayQueue(spill)
    for _ in range(5 * MAX_BATCH_ROWS):
        shelf.push(row(), 7.0)
    shelf.unload(5 * MAX_BATCH_ROWS)
    assert len(shelf.pop(8.0, MAX_BATCH_ROWS)) == MAX_BATCH_ROWS
    assert 8.0 < shelf.next(8.0) < 8.1
    assert len(shelf.pop(8.0, MAX_BATCH_ROWS + 1)) == 2 * MAX_BATCH_ROWS
    assert len(shelf.pop(8.0, 10**6)) == 2 * MAX_BATCH_ROWS
    assert shelf.next(8.0) == math.inf


def test_a_cleared_shelf_is_empty(spill: Spill) -> None:
    shelf = DelayQueue(spill)
    shelf.push(row(), 7.0)
    shelf.push(row(), 9.0)
    shelf.unload(1)
    shelf.clear()
    assert (shelf.first, shelf.held, shelf.pop(99.0, 9)) == (math.inf, 0, [])
