"""The adaptive limit: what hosts bear, learnt from what they refuse."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.hosts.adaptive import FIRST_PROBE_SUCCESSES, MAX_SPACING_SECONDS, AdaptiveLimit


def succeed(adaptive: AdaptiveLimit, times: int, most: int = 6) -> list[int]:
    """Let that many succeed; return the limits that were tried."""
    return [adaptive.limit for _ in range(times) if adaptive.succeeded(most)]


def test_the_limit_is_one_below_what_was_refused() -> None:
    adaptive = AdaptiveLimit(6)
    for on_wire in (6, 5, 4):  # a host that bears three: all that was too much comes back at once
        assert adaptive.refused(on_wire, 0.0, sure=True)
    assert adaptive.limit == 3
    assert not adaptive.spacing


def test_one_more_is_tried_after_a_hundred_then_two_hundred_then_four() -> None:
    adaptive = AdaptiveLimit(6)
    adaptive.refused(4, 0.0, sure=True)
    for successes in (FIRST_PROBE_SUCCESSES, 2 * FIRST_PROBE_SUCCESSES, 4 * FIRST_PROBE_SUCCESSES):
        assert succeed(adaptive, successes - 1) == []
        assert succeed(adaptive, 1) == [4]
        assert adaptive.refused(4, 0.0, sure=True)
        assert adaptive.limit == 3


def test_what_is_refused_again_and_again_is_tried_after_6_400_at_last() -> None:
    adaptive = AdaptiveLimit(6)
    adaptive.refused(4, 0.0, sure=True)
    waits = []
    for _ in range(9):
        waits.append(adaptive.probe_after)
        assert succeed(adaptive, adaptive.probe_after) == [4]
        assert adaptive.refused(4, 0.0, sure=True)
    assert waits == [100, 200, 400, 800, 1_600, 3_200, 6_400, 6_400, 6_400]


def test_a_refusal_of_what_was_sent_before_the_limit_fell_moves_no_starts_apart() -> None:
    adaptive = AdaptiveLimit(6)
    for on_wire in (3, 2, 2):
        adaptive.refused(on_wire, 0.1, sure=True)
    assert (adaptive.limit, adaptive.spacing) == (1, 0.0)


def test_what_holds_is_kept_and_the_next_comes_after_a_hundred_again() -> None:
    adaptive = AdaptiveLimit(6)
    adaptive.refused(4, 0.0, sure=True)
    succeed(adaptive, FIRST_PROBE_SUCCESSES)
    adaptive.refused(4, 0.0, sure=True)
    assert succeed(adaptive, 2 * FIRST_PROBE_SUCCESSES) == [4]
    assert succeed(adaptive, 2 * FIRST_PROBE_SUCCESSES) == [5]  # the step to 4 held as long as it was waited for
    assert succeed(adaptive, FIRST_PROBE_SUCCESSES) == [6]
    assert succeed(adaptive, 10 * FIRST_PROBE_SUCCESSES) == []


def test_what_may_be_the_pages_fault_counts_when_it_comes_twice() -> None:
    adaptive = AdaptiveLimit(6)
    assert not adaptive.refused(6, 0.0, sure=False)
    succeed(adaptive, 10)
    assert not adaptive.refused(6, 0.0, sure=False)  # one page in ten is broken
    succeed(adaptive, 3)
    assert adaptive.refused(6, 0.0, sure=False)
    assert adaptive.limit == 5


@pytest.mark.parametrize(
    ("on_wire", "answers", "meant"),
    [(6, 9, True), (6, 10, False), (2, 9, True), (2, 10, False), (1, 99, True), (1, 100, False)],
)
def test_twice_is_within_ten_answers_and_one_by_one_within_a_hundred(on_wire: int, answers: int, meant: bool) -> None:
    adaptive = AdaptiveLimit(6)
    adaptive.refused(on_wire, 0.0, sure=False)
    succeed(adaptive, answers)
    assert adaptive.refused(on_wire, 0.0, sure=False) is meant


@pytest.mark.parametrize(("successes", "meant"), [(19, True), (20, False)])
@pytest.mark.parametrize("on_wire", [2, 4])
def test_a_first_refusal_of_several_at_once_is_meant_until_they_have_settled(
    on_wire: int, successes: int, meant: bool
) -> None:
    adaptive = AdaptiveLimit(6)
    succeed(adaptive, successes)
    assert adaptive.refused(on_wire, 0.0, sure=True) is meant
    assert adaptive.limit == (on_wire - 1 if meant else 6)


def test_starts_move_together_by_a_fifth_until_they_are_20_ms_apart() -> None:
    adaptive, gap = AdaptiveLimit(6), 0.02 / 0.8**4 / 2
    for _ in range(3):
        adaptive.refused(1, gap, sure=True)
    for steps in range(5):
        assert adaptive.spacing == pytest.approx(2 * gap * 0.8**steps)
        succeed(adaptive, FIRST_PROBE_SUCCESSES)
    assert adaptive.spacing == 0.0
    assert succeed(adaptive, FIRST_PROBE_SUCCESSES - 1) == []
    assert succeed(adaptive, 1) == [2]


def test_a_host_that_refuses_the_only_one_of_two_is_asked_one_by_one_first() -> None:
    adaptive = AdaptiveLimit(2)
    found = []
    for _ in range(3):
        adaptive.refused(1, 0.1, sure=True)
        found.append((adaptive.limit, adaptive.spacing))
    assert found == [(2, 0.0), (1, 0.0), (1, 0.2)]


def test_a_single_refusal_of_what_was_borne_for_long_is_a_race() -> None:
    adaptive = AdaptiveLimit(6)
    adaptive.refused(4, 0.0, sure=True)
    succeed(adaptive, 50)
    assert not adaptive.refused(3, 0.0, sure=True)
    assert adaptive.refused(3, 0.0, sure=True)
    assert adaptive.limit == 2


def test_below_one_at_once_the_starts_move_apart_and_together_again() -> None:
    adaptive = AdaptiveLimit(6)
    assert not adaptive.refused(1, 0.1, sure=True)  # the pause is the host's own
    assert adaptive.refused(1, 0.1, sure=True)
    assert (adaptive.limit, adaptive.spacing) == (1, 0.0)
    assert adaptive.refused(1, 0.1, sure=True)
    assert adaptive.spacing == pytest.approx(0.2)
    for _ in range(9):
        adaptive.refused(1, 0.1, sure=True)
    assert adaptive.spacing == MAX_SPACING_SECONDS == 1.0
    succeed(adaptive, 100 * FIRST_PROBE_SUCCESSES)
    assert (adaptive.limit, adaptive.spacing) == (6, 0.0)


def test_a_host_that_never_bears_more_wastes_little_for_ever() -> None:
    """Three at once, asked by a client that knows nothing of it: simulated in rounds."""
    adaptive, rng = AdaptiveLimit(20), random.Random(1)
    refused = served = 0
    while served < 20_000:
        at_once = min(adaptive.limit, 20)
        for on_wire in range(at_once, 3, -1):
            refused += 1
            adaptive.refused(on_wire, 0.0, sure=True)
        for _ in range(min(at_once, 3) - rng.randrange(2)):
            served += 1
            adaptive.succeeded(20)
    assert adaptive.limit in (3, 4)
    assert refused < 40


@given(st.lists(st.tuples(st.sampled_from(["refused", "doubtful", "well"]), st.integers(1, 30)), max_size=300))
def test_a_limit_stays_within_its_bounds(events: list[tuple[str, int]]) -> None:
    adaptive = AdaptiveLimit(20)
    for kind, number in events:
        if kind == "well":
            succeed(adaptive, number * 20, most=20)
        else:
            adaptive.refused(min(number, 20), 0.01 * number, sure=kind == "refused")
        assert 1 <= adaptive.limit <= 20
        assert 0.0 <= adaptive.spacing <= MAX_SPACING_SECONDS
        assert not adaptive.spacing or adaptive.limit == 1


def test_a_limit_shows_itself_at_a_glance() -> None:
    adaptive = AdaptiveLimit(6)
    assert repr(adaptive) == "<AdaptiveLimit 6 at once, 0/100 successes>"
    for _ in range(3):
        adaptive.refused(1, 0.1, sure=True)
    succeed(adaptive, 7)
    assert repr(adaptive) == "<AdaptiveLimit 1 at once, 0.2 s apart, 7/100 successes>"
