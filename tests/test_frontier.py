"""The frontier's order, and a whole world of hosts simulated around it with a clock and an event queue of its own."""

from __future__ import annotations

import heapq
import itertools
import random
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.config import Limits, RetryPolicy
from fetcher.frontier.frontier import RECHECK_SECONDS, Frontier
from fetcher.hosts.limits import MAX_CATCH_UP_SECONDS, RECHECK_RESERVED_SECONDS
from fetcher.hosts.scheduler import CONNECT, DISPATCH, GIVEN_UP, MAX_WAIT_IN_TASK_SECONDS, Scheduler, must_go_back
from fetcher.hosts.state import HostState
from fetcher.model import Request, Stage
from fetcher.request_state import RequestState
from fetcher.urls import Target

RETRY = RetryPolicy()
NUMBERS = itertools.count(1)
SLACK = 1e-6


def row(host: str) -> RequestState:
    number = next(NUMBERS)
    return RequestState(Request(number, f"http://{host}/{number}"), Target(f"http://{host}/{number}", "http", host, 80))


class Known(Scheduler):
    """Hosts that have answered before: what is new has one connection only."""

    def __init__(self, limits: Limits, retry: RetryPolicy) -> None:
        super().__init__(limits, retry)
        self.get = self._get_known

    def _get_known(self, key: str, now: float) -> HostState:
        host = self.table.get(key, now)
        if not host.ports:
            host.answered(80)
        return host


def reserved(state: RequestState) -> HostState:
    """The host that holds a slot for a row."""
    assert state.reservation is not None
    return state.reservation


def world_of(**limits: Any) -> tuple[Scheduler, Frontier]:
    hosts = Known(Limits(**limits), RETRY)
    return hosts, Frontier(hosts, Limits(**limits))


def pop_all(frontier: Frontier, now: float) -> list[RequestState]:
    return list(iter(lambda: frontier.pop(now), None))


# The order


def test_a_list_grouped_by_host_starts_host_by_host_in_turn() -> None:
    hosts, frontier = world_of(concurrency=9)
    rows = [row(host) for host in "aaabbbccc"]
    for state in rows:
        frontier.push(state)
    started = pop_all(frontier, 0.0)
    assert [state.target.host for state in started] == list("abcabcabc")
    assert [state.request.id for state in started if state.target.host == "a"] == [r.request.id for r in rows[:3]]
    assert hosts.shared.reserved == 9
    assert frontier.size == 0


def test_nothing_is_popped_from_nothing() -> None:
    _, frontier = world_of()
    assert frontier.pop(0.0) is None
    assert frontier.due(0.0) is None
    frontier.host_free("nobody")
    assert frontier.pop(0.0) is None


def test_a_row_carries_the_reservation_of_its_host() -> None:
    hosts, frontier = world_of()
    frontier.push(row("a"))
    state = frontier.pop(0.0)
    assert state is not None
    assert state.reservation is hosts.get("a", 0.0)
    assert state.reservation.reserved == 1


def test_no_more_than_the_slots_are_reserved() -> None:
    hosts, frontier = world_of(concurrency=4, per_host=3)
    for host in "aaaaabbbbb":
        frontier.push(row(host))
    started = pop_all(frontier, 0.0)
    assert Counter(state.target.host for state in started) == {"a": 2, "b": 2}
    assert frontier.due(0.0) == RECHECK_RESERVED_SECONDS  # a reservation may come to nothing
    for state in started:
        hosts.shared.unreserve(reserved(state))
        hosts.shared.take(reserved(state), 0.0)
    assert frontier.due(0.0) is None  # only an end makes room
    hosts.finish(reserved(started[0]))
    assert len(pop_all(frontier, 0.0)) == 1


def test_a_full_host_takes_rows_again_when_one_ends() -> None:
    hosts, frontier = world_of(per_host=2)
    for host in "aaa":
        frontier.push(row(host))
    one, two = pop_all(frontier, 0.0)
    for state in (one, two):
        hosts.shared.unreserve(reserved(state))
        hosts.shared.take(reserved(state), 0.0)
    frontier.host_free("a")
    assert pop_all(frontier, 9.0) == []
    hosts.finish(reserved(one))
    assert pop_all(frontier, 9.0) == []  # nobody said so
    frontier.host_free("a")
    assert len(pop_all(frontier, 9.0)) == 1


def test_a_host_whose_reservations_came_to_nothing_is_asked_again() -> None:
    hosts, frontier = world_of(per_host=2)
    for _ in range(3):
        frontier.push(row("a"))
    for state in pop_all(frontier, 0.0):
        hosts.shared.unreserve(reserved(state))  # and nobody says so
    assert frontier.due(0.0) == RECHECK_RESERVED_SECONDS
    assert len(pop_all(frontier, RECHECK_RESERVED_SECONDS)) == 1


def test_a_parked_host_is_left_out_and_comes_back_by_itself() -> None:
    hosts, frontier = world_of()
    hosts.health.park(hosts.get("a", 0.0), 0.0, 7.0)
    for host in "aab":
        frontier.push(row(host))
    assert [state.target.host for state in pop_all(frontier, 0.0)] == ["b"]
    assert frontier.due(0.0) == 7.0
    assert pop_all(frontier, 6.9) == []
    assert len(pop_all(frontier, 7.0)) == 2


def test_what_is_due_and_was_not_taken_is_not_asked_for_in_a_circle() -> None:
    hosts, frontier = world_of()
    hosts.health.park(hosts.get("a", 0.0), 0.0, 7.0)
    frontier.push(row("a"))
    frontier.defer(row("b"), 7.0)
    assert frontier.pop(0.0) is None
    assert (frontier.due(6.9), frontier.due(7.0), frontier.due(7.1)) == (7.0, None, None)


def test_a_host_whose_site_is_full_is_told_when_that_has_a_slot_again() -> None:
    hosts, frontier = world_of(per_site=1)
    told: list[str] = []
    hosts.listeners.append(told.append)
    for host in ("a.site.example", "b.site.example"):
        frontier.push(row(host))
    (first,) = pop_all(frontier, 0.0)
    assert first.target.host == "a.site.example"
    start(hosts, first, 0.0)
    hosts.tell_blocked()
    assert told == ["b.site.example"]


def test_the_rows_of_a_host_that_is_given_up_come_at_once() -> None:
    hosts, frontier = world_of(per_host=1)
    hosts.health.park(hosts.get("a", 0.0), 0.0, 1e6)
    for host in "aaa":
        frontier.push(row(host))
    assert len(pop_all(frontier, 0.0)) == 3


def test_a_deferred_row_comes_when_it_is_due_before_those_that_never_started() -> None:
    _, frontier = world_of(per_host=4)
    late, soon, sooner, new = (row("a") for _ in range(4))
    frontier.push(new)
    frontier.defer(late, 9.0)
    frontier.defer(soon, 2.0)
    frontier.defer(sooner, 1.0)
    assert frontier.size == 4
    assert frontier.due(0.0) == 1.0
    assert pop_all(frontier, 3.0) == [sooner, soon, new]
    assert frontier.due(3.0) == 9.0
    assert pop_all(frontier, 9.0) == [late]
    assert frontier.size == 0


def test_what_was_cleared_is_gone() -> None:
    hosts, frontier = world_of(concurrency=1)
    hosts.health.park(hosts.get("p", 0.0), 0.0, 60.0)
    rows = [row(host) for host in "abp"]
    for state in rows:
        frontier.push(state)
    frontier.defer(rows[0], 5.0)
    assert frontier.pop(0.0) is rows[0]
    frontier.clear()
    assert (frontier.size, frontier.pop(99.0), frontier.due(0.0)) == (0, None, None)


def test_what_was_cleared_is_gone_of_the_hosts_that_go_first_too() -> None:
    _, frontier = world_of()
    for host in ["h0", *["large"] * 40, *(f"h{n}" for n in range(1, 10))]:
        frontier.push(row(host))
    assert [state.target.host for state in (frontier.pop(0.0), frontier.pop(0.0)) if state] == ["h0", "large"]
    frontier.clear()
    assert (frontier.size, frontier.held, frontier.waiting(9)) == (0, 0, {})
    assert (frontier.pop(99.0), frontier.due(0.0)) == (None, None)


def test_asking_again_and_again_leaves_nothing_behind() -> None:
    hosts, frontier = world_of()
    host = hosts.get("a", 0.0)
    hosts.health.park(host, 0.0, 300.0)
    for n in range(2_000):
        frontier.push(row("a"))
        assert frontier.pop(n / 10_000) is None
    assert len(frontier._timed) == 1
    assert len(frontier._round) <= 1


def test_with_a_rate_no_more_is_reserved_than_the_rate_allows() -> None:
    hosts, frontier = world_of(rate=2.0)
    for _ in range(5):
        frontier.push(row("a"))
    now = 100.0
    first = frontier.pop(now)
    assert first is not None
    assert frontier.pop(now) is None
    due = frontier.due(now)
    assert due is not None
    assert now < due <= now + 0.5
    hosts.shared.unreserve(reserved(first))
    hosts.shared.take(reserved(first), now)
    assert frontier.pop(now + 0.1) is None
    assert frontier.due(now + 0.1) == hosts.shared.rate_next
    assert frontier.pop(hosts.shared.rate_next) is not None


def test_how_long_a_host_makes_us_wait_is_from_start_to_start() -> None:
    """By that it is known which host will be the last."""
    hosts, frontier = world_of()
    for key, delay, rows in (("slow", 50.0, 4), ("many", 5.0, 11)):
        hosts.table.set_crawl_delay(hosts.get(key, 0.0), delay)
        for _ in range(rows):
            frontier.push(row(key))
    assert len(pop_all(frontier, 1_000.0)) == 2
    assert frontier.waiting(1) == {"slow": 3}  # for 150 s, the other for 50


def test_of_very_many_hosts_only_some_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that came first, for it takes time; of as many as may be compared it is the one with the most rows."""
    _, frontier = world_of()
    for host in "abccc":
        frontier.push(row(host))
    monkeypatch.setattr("fetcher.frontier.frontier.MAX_COMPARED_HOSTS", 3)
    assert frontier.waiting(1) == {"c": 3}
    monkeypatch.setattr("fetcher.frontier.frontier.MAX_COMPARED_HOSTS", 2)
    assert frontier.waiting(2) == {"a": 1, "b": 1}


def test_a_host_that_has_all_its_slots_is_not_one_that_makes_us_wait() -> None:
    """Else it would seem to need for ever, and would be the first of all from then on."""
    hosts, frontier = world_of(per_host=1)
    for _ in range(2):
        frontier.push(row("a"))
    first = frontier.pop(1.0)
    assert first is not None
    hosts.shared.unreserve(reserved(first))
    hosts.shared.take(reserved(first), 1.0)
    assert frontier.pop(2.0) is None
    assert frontier._queues["a"].gap == 0.0


def test_what_came_back_unasked_for_leaves_no_more_than_the_look_ahead_in_memory() -> None:
    _, frontier = world_of(lookahead=100)
    for number in range(201):
        frontier.defer(row(f"{number % 3}"), 1e9 + number)
    assert (frontier.size, frontier.held) == (201, 100)
    frontier.clear()


def test_with_a_delay_a_host_is_asked_again_while_its_row_is_on_the_wire() -> None:
    hosts, frontier = world_of(delay=1.0, per_host=3)
    for _ in range(3):
        frontier.push(row("a"))
    first = frontier.pop(0.0)
    assert first is not None
    assert frontier.pop(0.0) is None
    assert frontier.due(0.0) == 1.0  # although nobody will say that it started
    hosts.shared.unreserve(reserved(first))
    hosts.shared.take(reserved(first), 0.0)
    assert frontier.pop(1.0) is not None


# The largest first


def start(hosts: Scheduler, state: RequestState, now: float) -> None:
    hosts.shared.unreserve(reserved(state))
    hosts.shared.take(reserved(state), now)
    hosts.finish(reserved(state))


def test_the_host_with_by_far_the_most_rows_goes_first() -> None:
    _, frontier = world_of(concurrency=8, per_host=4)
    for host in ["small0", *["large"] * 40, *(f"small{n % 9}" for n in range(1, 45))]:
        frontier.push(row(host))
    assert [state.target.host for state in pop_all(frontier, 0.0)] == ["small0", *["large"] * 4, *SMALL[:3]]


SMALL = ["small1", "small2", "small3"]


def test_over_twice_the_mean_is_by_far_the_most() -> None:
    _, frontier = world_of()
    for host in [*(f"h{n}" for n in range(10)), *["large"] * 3]:
        frontier.push(row(host))
    assert [state.target.host for state in pop_all(frontier, 0.0)][:5] == ["h0", *["large"] * 3, "h1"]


def test_no_more_hosts_go_first_than_half_of_the_slots_are_enough_for() -> None:
    _, frontier = world_of(concurrency=12, per_host=2)
    for n in range(200):
        frontier.push(row(f"small{n}"))
    for n in range(800):
        frontier.push(row(f"large{n % 8}"))
    started = [state.target.host for state in pop_all(frontier, 0.0)]
    assert started[0] == "small0"
    assert Counter(host[:5] for host in started[1:7]) == {"large": 6}
    assert Counter(host[:5] for host in started[7:]) == {"small": 5}


def test_among_equals_all_take_turns() -> None:
    _, frontier = world_of(concurrency=100, per_host=50)
    for n in range(1_000):
        frontier.push(row(f"h{n % 20}"))
    first = [frontier.pop(0.0) for _ in range(100)]
    assert Counter(state.target.host for state in first if state) == dict.fromkeys({f"h{n}" for n in range(20)}, 5)


@pytest.mark.parametrize("per_host", [1_000, 2_000])  # of 4,000: two may be favoured, or one
def test_hosts_that_would_be_the_last_stay_the_first_as_long_as_they_would(per_host: int) -> None:
    _, frontier = world_of(concurrency=4_000, per_host=per_host)
    for host in ["one", "other"] * 1_000 + [f"h{n % 20}" for n in range(100)]:
        frontier.push(row(host))
    for state in [frontier.pop(0.0) for _ in range(1_000)][1:]:  # several times they are chosen anew
        assert state is not None
        assert state.target.host in ("one", "other")
    assert frontier.size == 1_100
    assert len(pop_all(frontier, 0.0)) == 1_100


def test_a_host_that_would_be_the_last_no_more_takes_turns_with_the_others() -> None:
    _, frontier = world_of(concurrency=4_000, per_host=2_000)
    for host in [*SMALL, *["large"] * 400]:
        frontier.push(row(host))
    assert [state.target.host for state in popped(frontier, 3)] == [SMALL[0], "large", "large"]
    for n in range(1_200):
        frontier.push(row(f"h{n % 4}"))
    popped(frontier, 300)  # meanwhile they are chosen anew
    then = Counter(state.target.host for state in popped(frontier, 100))
    assert then == {"large": 20, "h0": 20, "h1": 20, "h2": 20, "h3": 20}


def popped(frontier: Frontier, rows: int) -> list[RequestState]:
    """Pop so many rows."""
    return [state for _ in range(rows) if (state := frontier.pop(0.0)) is not None]


def test_what_a_host_makes_us_wait_counts_as_much_as_its_rows() -> None:
    hosts, frontier = world_of(concurrency=2, per_host=1)
    for host in ["patient", "patient", *[f"h{n % 10}" for n in range(100)]]:
        frontier.push(row(host))
    now = 1.0
    for step in range(3 * 256):
        state = frontier.pop(now)
        assert state is not None
        start(hosts, state, now)
        if state.target.host == "patient":
            hosts.health.park(hosts.get("patient", now), now, 200.0)  # two rows, and minutes between them
        frontier.push(row(state.target.host))
        frontier.host_free(state.target.host)
        now += 0.1
        if step > 600:
            assert [queue.key for queue in frontier._favoured] == ["patient"]


# More rows than memory has place for


def rows_of(host: str, number: int) -> list[RequestState]:
    return [row(host) for _ in range(number)]


def test_of_two_long_queues_the_longer_one_makes_room() -> None:
    hosts, frontier = world_of(lookahead=1_000)
    for host, rows in (("long", 400), ("longer", 600)):
        hosts.health.park(hosts.get(host, 0.0), 0.0, 5.0)
        for state in rows_of(host, rows):
            frontier.push(state)
    assert frontier.pop(0.0) is None
    assert frontier.make_room(100, 0.0) == 100
    assert frontier._queues["long"].held == 400
    assert frontier._queues["longer"].held < 600
    frontier.clear()


def test_room_is_made_by_the_longest_queues() -> None:
    hosts, frontier = world_of(lookahead=1_000)
    hosts.health.park(hosts.get("long", 0.0), 0.0, 5.0)
    hosts.health.park(hosts.get("short", 0.0), 0.0, 5.0)
    long, short = rows_of("long", 900), rows_of("short", 100)
    for state in long + short:
        frontier.push(state)
    assert frontier.pop(0.0) is None
    assert frontier.make_room(100, 0.0) == 100
    assert (frontier.size, frontier.held) == (1_000, 356)
    assert frontier._queues["short"].held == 100
    for state in rows_of("long", 2_000):
        frontier.push(state)
    assert frontier.held < 700
    other = row("other")
    frontier.push(other)
    assert frontier.pop(0.0) is other
    started = [state.request.id for state in pop_one_by_one(frontier, hosts, 5.0)]
    assert len(started) == 3_000
    ids = [state.request.id for state in long]
    assert [number for number in started if number in set(ids)] == ids
    assert (frontier.size, frontier.held) == (0, 0)
    frontier.clear()


def pop_one_by_one(frontier: Frontier, hosts: Scheduler, now: float) -> Iterator[RequestState]:
    while (state := frontier.pop(now)) is not None:
        start(hosts, state, now)
        yield state
        frontier.host_free(state.target.host)


def test_no_room_is_made_by_what_only_memory_can_hold() -> None:
    _, frontier = world_of(lookahead=100)
    for n in range(100):
        state = row("a")
        state.request = Request(n, state.request.url, tag="mine")
        frontier.push(state)
    assert frontier.make_room(10, 0.0) == 0
    assert frontier.held == 100


def test_many_hosts_share_the_memory() -> None:
    hosts, frontier = world_of(lookahead=500, delay=10.0, concurrency=10**6)
    ids: list[int] = []
    now, given = 0.0, 0
    while given < 5_000 or frontier.size:
        while (state := frontier.pop(now)) is not None:
            ids.append(state.request.id)
            start(hosts, state, now)
            frontier.host_free(state.target.host)
        for _ in range(frontier.make_room(60, now) if given < 5_000 else 0):
            frontier.push(row(f"h{given % 1_000}"))
            given += 1
        assert frontier.held <= 1_000
        now += 0.1
    assert len(set(ids)) == len(ids) == given
    frontier.clear()


def test_rows_that_were_taken_back_do_not_fill_the_memory() -> None:
    hosts, frontier = world_of(lookahead=1_000)
    for n in range(20_000):
        frontier.defer(row("parked"), 50.0 + n % 7)
        assert frontier.held <= 2_000
    assert frontier.size == 20_000
    assert frontier.due(0.0) == 50.0
    hosts.health.park(hosts.get("parked", 0.0), 0.0, 100.0)
    now, popped = 60.0, 0
    while frontier.pop(now) is None and (due := frontier.due(now)) is not None and due < 100.0:
        now = due
        popped += 1
        assert frontier.held <= 3_100
    assert popped < 50
    assert len(list(pop_one_by_one(frontier, hosts, 100.0))) == 20_000
    frontier.clear()


def test_a_list_without_an_end_is_not_copied_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fetcher.frontier.frontier.FAST_SPILL_ROWS", 5_000)
    monkeypatch.setattr("fetcher.frontier.frontier.SPILL_ROWS_PER_SECOND", 1_000)
    hosts, frontier = world_of(lookahead=1_000)
    began = now = 50.0
    hosts.health.park(hosts.get("a", now), now, 200.0)
    read = 0
    while read < 16_000:
        for _ in range(room := frontier.make_room(100, now)):
            frontier.push(row("a"))
        assert room in (0, 100)
        read += room
        frontier.pop(now)
        if not room:
            due = frontier.due(now)
            assert due is not None
            assert now < due < now + 1
            now = due
    assert 8.0 < now - began < 13.0
    for _ in range(20):  # another host among them: the next may be as near
        frontier.push(row(f"b{read}"))
        for _ in range(40):
            assert frontier.make_room(100, now) == 100
            for _ in range(100):
                frontier.push(row("a"))
        read += 4_001
    frontier.clear()


def test_room_is_made_by_hosts_of_one_row_each() -> None:
    hosts, frontier = world_of(lookahead=100)
    for n in range(100):
        hosts.health.park(hosts.get(f"h{n}", 0.0), 0.0, 9.0 + n)
        frontier.push(row(f"h{n}"))
    assert frontier.pop(0.0) is None
    assert frontier.make_room(10, 0.0) == 10
    in_memory = [n for n in range(100) if frontier._queues[f"h{n}"].held]
    assert in_memory == list(range(50))  # those whose time comes first
    assert len(list(pop_one_by_one(frontier, hosts, 109.0))) == 100
    frontier.clear()


def world_before_first_answers() -> tuple[Scheduler, Frontier]:
    """Two hosts, of which each has its first request on the wire: the rest of their rows will need all other slots."""
    limits = Limits(lookahead=12, concurrency=10, per_host=6)
    hosts = Scheduler(limits, RETRY)
    frontier = Frontier(hosts, limits)
    for n in range(12):
        frontier.push(row("ab"[n % 2]))
    for state in pop_all(frontier, 0.0):  # one of each
        hosts.shared.unreserve(reserved(state))
        hosts.shared.take(reserved(state), 0.0)
    return hosts, frontier


def test_no_room_is_made_while_first_answers_may_take_all_slots() -> None:
    hosts, frontier = world_before_first_answers()
    assert frontier.make_room(5, 0.0) == 0
    due = frontier.due(0.0)
    assert due is not None
    assert 0 < due < 1
    hosts.shared.set_suspect(hosts.get("a", 0.0), suspect=True)  # it has been silent for long
    assert frontier.make_room(5, due) == 5
    hosts.get("b", due).answered(80)
    assert len(pop_all(frontier, due)) == 5
    frontier.clear()


def test_hosts_that_may_take_all_slots_are_looked_at_again_soon() -> None:
    _, frontier = world_before_first_answers()
    for host in "ab":
        frontier.host_free(host)
    assert pop_all(frontier, 0.0) == []
    assert frontier.make_room(5, 0.0) == 0
    assert frontier.make_room(5, RECHECK_SECONDS / 2) == 0
    assert frontier.due(RECHECK_SECONDS / 2) == RECHECK_SECONDS
    frontier.clear()


def test_hosts_beyond_count_are_not_read_on_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fetcher.frontier.frontier.MAX_WAITING_HOSTS", 50)
    _, frontier = world_of(lookahead=10)
    for n in range(50):
        assert frontier.make_room(1, 0.0) == 1
        frontier.push(row(f"h{n}"))
    assert frontier.make_room(1, 0.0) == 0
    frontier.clear()


# The world


class Step(NamedTuple):
    """One exchange of a row: with whom, how long, and what comes of it."""

    host: str
    seconds: float
    answer: str  # ok, hop, retry, cancelled (if it must wait), or refused
    wish: float | None = None  # the Retry-After of a refusal, or the backoff of a retry


class World:
    """Dispatcher and gate as the pipeline has them, with a clock that jumps from event to event.

    Every law is checked at every start, and at the end nothing may be left.
    """

    def __init__(
        self,
        limits: Limits,
        scripts: list[list[Step]],
        window: int = 1_000,
        lag: float = 0.0,
        *,
        unload: Callable[[], int] = lambda: 0,
        known: bool = False,
    ) -> None:
        self.limits = limits
        self.hosts = Known(limits, RETRY) if known else Scheduler(limits, RETRY)
        self.frontier = Frontier(self.hosts, limits)
        self.unload = unload  # how many rows memory has no place for, now and then
        self.now = 1_000.0
        self.lag = lag  # seconds by which timers are late
        self.window = window
        self.left = {state.request.id: script for state, script in ((row(s[0].host), list(s)) for s in scripts)}
        self.rows: list[RequestState] = []
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.ticks = itertools.count()
        self.starts: list[tuple[float, str]] = []
        self.on_wire: Counter[str] = Counter()
        self.fates: Counter[str] = Counter()
        self.ended_at: dict[str, float] = {}
        self.wakes: dict[str, float] = {}
        self.startable_since: float | None = None
        self.scripts = scripts

    def at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self.events, (when, next(self.ticks), act))

    def run(self) -> World:
        self.left.clear()
        for script in self.scripts:
            state = row(script[0].host)
            self.rows.append(state)
            self.left[state.request.id] = list(script)
            self.frontier.push(state)
        self.admit()
        steps = 0
        while self.events:
            steps += 1
            assert steps < 400 * len(self.scripts) + 1_000, "it goes round in circles"
            when, _, act = heapq.heappop(self.events)
            if when > self.now:
                self.look_for_lost_wakes(when)
                self.now = when
            act()
            assert sum(self.on_wire.values()) == self.hosts.shared.on_wire
            assert len(self.hosts._sleepers) <= len(self.hosts.table)
            assert len(self.frontier._timed) <= 40 * len(self.hosts.table)
        assert self.frontier.size == 0, f"{self.frontier.size} rows starve"
        assert sum(self.fates.values()) == len(self.scripts)
        assert (self.hosts.shared.on_wire, self.hosts.shared.reserved) == (0, 0)
        assert all(not (h.on_wire or h.reserved or h.waiters) for h in self.hosts.table._hosts.values())
        self.check_rate()
        return self

    def look_for_lost_wakes(self, until: float) -> None:
        """A row that may start must not wait for longer than a late timer or a turn of the gate takes."""
        startable = self.window > 0 and self.hosts.shared.has_room(self.now) and any(
            self.hosts.decide(self.hosts.get(key, self.now), DISPATCH, self.now) <= self.now
            for key in self.frontier._queues
        )  # fmt: skip
        if not startable:
            self.startable_since = None
            return
        if self.startable_since is None:
            self.startable_since = self.now
        assert until - self.startable_since <= max(MAX_CATCH_UP_SECONDS, RECHECK_RESERVED_SECONDS) + self.lag + SLACK, (
            "a wake-up was lost"
        )

    # Dispatcher

    def admit(self) -> None:
        if rows := self.unload():
            self.frontier._unload(rows)
        while self.window > 0 and (state := self.frontier.pop(self.now)) is not None:
            self.window -= 1
            self.at(self.now, lambda state=state: self.arrive(state))  # type: ignore[misc]  # bound at once
        self.wake_at("admission", self.frontier.due(self.now), self.admit)

    def wake_at(self, who: str, when: float | None, act: Callable[[], None]) -> None:
        if when is None or self.wakes.get(who, float("inf")) <= when:
            return
        self.wakes[who] = when

        def wake() -> None:
            if self.wakes.get(who) == when:
                del self.wakes[who]
                act()

        self.at(max(when, self.now) + self.lag, wake)

    def defer(self, state: RequestState, due: float) -> None:
        host = self.left[state.request.id][0].host
        state.target = Target(f"http://{host}/", "http", host, 80)
        state.enter(Stage.DEFERRED, self.now)
        self.frontier.defer(state, due)
        self.window += 1
        self.admit()

    def end(self, state: RequestState, fate: str) -> None:
        self.fates[fate] += 1
        self.ended_at[state.first.host] = self.now
        self.window += 1
        self.admit()

    def tell(self, host: HostState) -> None:
        self.frontier.host_free(host.key)
        self.admit()

    # The gate

    def arrive(self, state: RequestState) -> None:
        host = self.hosts.get(self.left[state.request.id][0].host, self.now)
        if state.reservation is not None:
            self.hosts.shared.unreserve(reserved(state))
            state.take_reservation()
        opens = self.hosts.decide(host, CONNECT, self.now)
        if opens == GIVEN_UP:
            self.end(state, "host_budget")
        elif not host.waiters and opens <= self.now:
            self.hosts.shared.take(host, self.now)
            self.begin(state, host)
        elif must_go_back(host, opens, self.now):
            self.defer(state, opens)
        else:
            self.hosts.wait(host, state)
            fickle = self.left[state.request.id][0].answer == "cancelled"
            self.let_through()
            if fickle:
                self.at(self.now + 0.01, lambda: self.cancel(state, host))

    def cancel(self, state: RequestState, host: HostState) -> None:
        if state in host.waiters:
            self.hosts.leave(host, state)  # and nobody is told
            self.end(state, "cancelled")

    def let_through(self) -> None:
        through, again = self.hosts.next_through(self.now)
        for state in through:
            self.begin(state, self.hosts.get(self.left[state.request.id][0].host, self.now))
        self.wake_at("gate", again, self.let_through)

    def begin(self, state: RequestState, host: HostState) -> None:
        last = max((when for when, key in self.starts[-200:] if key == host.key), default=None)
        assert last is None or self.now - last >= self.limits.delay - SLACK
        assert self.now >= host.breaker.parked_until
        assert host.breaker.given_up is None
        self.starts.append((self.now, host.key))
        self.on_wire[host.key] += 1
        assert self.on_wire[host.key] <= host.on_wire <= self.limits.per_host
        assert sum(self.on_wire.values()) <= self.hosts.shared.on_wire <= self.limits.concurrency
        step = self.left[state.request.id].pop(0)
        self.at(self.now + step.seconds, lambda: self.finish(state, host, step))

    def finish(self, state: RequestState, host: HostState, step: Step) -> None:
        self.on_wire[host.key] -= 1
        self.hosts.finish(host)
        self.let_through()
        self.tell(host)
        if step.answer == "refused":
            self.refused(state, host, step)
            return
        host.answered(80)
        self.tell(host)  # it may have more at once from now on
        if not self.left[state.request.id]:
            self.end(state, "ok")
        elif step.answer == "retry" and (step.wish or 0) > MAX_WAIT_IN_TASK_SECONDS:
            self.defer(state, self.now + (step.wish or 0))
        else:
            self.at(self.now + (step.wish or 0), lambda: self.arrive(state))

    def refused(self, state: RequestState, host: HostState, step: Step) -> None:
        self.left[state.request.id].insert(0, step._replace(answer="ok"))  # the next time it serves us
        self.hosts.health.park(host, self.now, step.wish)
        waiters: Iterator[RequestState] = iter(())
        opens = self.hosts.decide(host, CONNECT, self.now)
        if opens == GIVEN_UP or must_go_back(host, opens, self.now):
            waiters = iter([*host.waiters])
            host.waiters = []
        for waiter in (state, *waiters):
            if host.breaker.given_up is not None:
                self.end(waiter, "host_budget")
            elif must_go_back(host, opens, self.now):
                self.defer(waiter, opens)
            else:
                self.at(host.not_before, lambda: self.arrive(state))
        self.tell(host)

    def check_rate(self) -> None:
        if self.limits.rate:
            times = [when for when, _ in self.starts]
            for first in range(0, len(times), 7):
                for last in range(first, len(times), 5):
                    allowed = self.limits.rate * (times[last] - times[first] + MAX_CATCH_UP_SECONDS) + 1
                    assert last - first + 1 <= allowed + SLACK


def steps() -> st.SearchStrategy[Step]:
    return st.builds(
        Step,
        st.sampled_from("abcdef"),
        st.sampled_from([0.0, 0.01, 0.1, 0.7, 5.0]),
        st.sampled_from(["ok", "ok", "ok", "hop", "hop", "retry", "refused", "cancelled"]),
        st.sampled_from([None, 0.0, 0.3, 0.9, 2.0, 70.0]),
    )


SCRIPTS = st.lists(st.lists(steps(), min_size=1, max_size=4), min_size=1, max_size=40)
LIMITS = st.builds(
    Limits,
    concurrency=st.sampled_from([1, 2, 3, 7, 100]),
    per_host=st.sampled_from([1, 2, 6]),
    delay=st.sampled_from([0.0, 0.0, 0.05, 0.5, 3.0]),
    rate=st.sampled_from([None, None, 0.5, 3.0, 40.0, 2_000.0]),
)


@settings(max_examples=300, deadline=None)
@given(LIMITS, SCRIPTS, st.sampled_from([1, 3, 1_000]), st.sampled_from([0.0, 0.0, 0.004]))
def test_the_laws_hold_in_any_world(limits: Limits, scripts: list[list[Step]], window: int, lag: float) -> None:
    World(limits, scripts, window, lag).run()


@settings(max_examples=200, deadline=None)
@given(LIMITS, SCRIPTS, st.sampled_from([1, 3, 1_000]), st.integers(0, 2**32))
def test_the_laws_hold_whatever_is_on_disk(limits: Limits, scripts: list[list[Step]], window: int, seed: int) -> None:
    draw = random.Random(seed)
    world = World(limits, scripts, window, unload=lambda: draw.choice([0, 0, 1, 5, 1_000])).run()
    assert world.frontier.held == 0
    world.frontier.clear()


def plain(host: str, seconds: float, rows: int) -> list[list[Step]]:
    return [[Step(host, seconds, "ok")] for _ in range(rows)]


def length_of(world: World) -> float:
    return world.now - 1_000.0


@pytest.mark.parametrize("order", ["grouped", "mixed"])
def test_a_slow_host_does_not_hold_up_the_others(order: str) -> None:
    scripts = plain("slow", 10.0, 60)
    for n in range(20):
        scripts += plain(f"h{n}", 0.1, 30)
    if order == "mixed":
        scripts = scripts[::7] + [script for n, script in enumerate(scripts) if n % 7]
    world = World(Limits(concurrency=30, per_host=6), scripts, known=True).run()
    assert max(when for host, when in world.ended_at.items() if host != "slow") - 1_000 < 0.1 * 600 / 24 * 1.3
    assert length_of(world) < 60 / 6 * 10.0 * 1.1


def test_a_parked_host_does_not_hold_up_the_others() -> None:
    scripts = [[Step("parked", 0.1, "refused", 50.0)] for _ in range(50)]
    scripts += [script for n in range(5) for script in plain(f"h{n}", 0.1, 60)]
    world = World(Limits(concurrency=30, per_host=6), scripts).run()
    assert max(when for host, when in world.ended_at.items() if host != "parked") - 1_000 < 2.0
    assert world.fates == {"ok": 350}


def test_a_delay_counts_from_start_to_start() -> None:
    world = World(Limits(delay=0.1, per_host=6), plain("a", 0.5, 50), known=True).run()
    assert length_of(world) == pytest.approx(49 * 0.1 + 0.5, rel=0.02)
    many = [script for n in range(20) for script in plain(f"h{n}", 0.5, 10)]
    assert length_of(World(Limits(delay=0.1), many, known=True).run()) == pytest.approx(9 * 0.1 + 0.5, rel=0.05)


@pytest.mark.parametrize("lag", [0.0, 0.001, 0.02])
@pytest.mark.parametrize("rate", [1.0, 30.0, 900.0])
def test_a_rate_is_kept_and_used(rate: float, lag: float) -> None:
    rows = max(20, int(rate * 3))
    scripts = [script for n in range(10) for script in plain(f"h{n}", 0.02, rows // 10)]
    world = World(Limits(rate=rate, concurrency=100, per_host=50), scripts, lag=lag).run()
    assert length_of(world) == pytest.approx(len(scripts) / rate, rel=0.1, abs=0.2)


def test_a_rate_is_shared_with_hops_and_nothing_waits_for_an_end() -> None:
    scripts = [[Step("a", 8.0, "hop"), Step("b", 8.0, "ok")] for _ in range(20)]
    world = World(Limits(rate=2.0, concurrency=100, per_host=100), scripts, known=True).run()
    # 16 rows start in 8 s, then their hops have the rate for 8 s, then come the last 4 rows and their hops.
    assert length_of(world) == pytest.approx(8 + 8 + 2 + 8 + 8, rel=0.02)


def test_hops_go_before_new_rows() -> None:
    scripts = [[Step("a", 1.0, "hop"), Step("b", 1.0, "ok")], *plain("b", 1.0, 10)]
    world = World(Limits(per_host=1), scripts).run()
    hop = [when for when, host in world.starts if host == "b"][1]
    assert hop == 1_001.0  # the second on b's wire, before nine that were listed


def test_many_hosts_do_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = 8_192
    monkeypatch.setattr("fetcher.hosts.table.MAX_HOSTS", kept)
    limits = Limits()
    hosts = Scheduler(limits, RETRY)
    frontier = Frontier(hosts, limits)
    now, most = 0.0, 0
    tracemalloc.start()
    try:
        for n in range(3 * kept):
            frontier.push(row(f"h{n}.example"))
            state = frontier.pop(now)
            assert state is not None
            host = reserved(state)
            hosts.shared.unreserve(host)
            hosts.shared.take(host, now)
            hosts.finish(host)
            if n % 3 == 0:
                hosts.health.park(host, now, 1e6)  # given up: still not for ever
            else:
                host.answered(80)
            frontier.host_free(host.key)
            now += 0.01
            most = max(most, len(hosts.table))
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most <= kept
    assert used < 1024 * kept
    assert (len(frontier._queues), len(frontier._timed), len(frontier._round)) == (0, 0, 0)


def test_a_delay_over_many_hosts_leaves_nothing_behind() -> None:
    hosts, frontier = world_of(delay=2.0)
    now = 0.0
    for n in range(5_000):
        key = f"h{n}"
        frontier.push(row(key))
        frontier.push(row(key))
        while (state := frontier.pop(now)) is not None:
            hosts.shared.unreserve(reserved(state))
            hosts.shared.take(reserved(state), now)
            hosts.finish(reserved(state))
            frontier.host_free(state.target.host)
        now += 0.01
        assert len(frontier._timed) <= 2 * 200 + 2
    assert frontier.size <= 201
