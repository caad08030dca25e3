"""What hosts bear, learnt from what they refuse; and when it is our own network that is away."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.hosts.health import BURST, FIRST_PROBE, HARDLY, LONGEST_REST, MOST_SPACING, WITHIN, Network, Pace

NOW = 1_000.0


def serve(pace: Pace, times: int, most: int = 6) -> list[int]:
    """Let that many succeed; return the limits that were tried."""
    return [pace.limit for _ in range(times) if pace.served_well(most)]


# The pace


def test_the_limit_is_one_below_what_was_refused() -> None:
    pace = Pace(6)
    for on_wire in (6, 5, 4):  # a host that bears three: all that was too much comes back at once
        assert pace.refused(on_wire, 0.0, sure=True)
    assert pace.limit == 3
    assert not pace.spacing


def test_one_more_is_tried_after_a_hundred_then_two_hundred_then_four() -> None:
    pace = Pace(6)
    pace.refused(4, 0.0, sure=True)
    for successes in (FIRST_PROBE, 2 * FIRST_PROBE, 4 * FIRST_PROBE):
        assert serve(pace, successes - 1) == []
        assert serve(pace, 1) == [4]
        assert pace.refused(4, 0.0, sure=True)
        assert pace.limit == 3


def test_what_holds_is_kept_and_the_next_comes_after_a_hundred_again() -> None:
    pace = Pace(6)
    pace.refused(4, 0.0, sure=True)
    serve(pace, FIRST_PROBE)
    pace.refused(4, 0.0, sure=True)
    assert serve(pace, 2 * FIRST_PROBE) == [4]
    assert serve(pace, 2 * FIRST_PROBE) == [5]  # the step to 4 held as long as it was waited for
    assert serve(pace, FIRST_PROBE) == [6]
    assert serve(pace, 10 * FIRST_PROBE) == []


def test_what_may_be_the_pages_fault_counts_when_it_comes_twice() -> None:
    pace = Pace(6)
    assert not pace.refused(6, 0.0, sure=False)
    serve(pace, 10)
    assert not pace.refused(6, 0.0, sure=False)  # one page in ten is broken
    serve(pace, 3)
    assert pace.refused(6, 0.0, sure=False)
    assert pace.limit == 5


def test_a_single_refusal_of_what_was_borne_for_long_is_a_race() -> None:
    pace = Pace(6)
    pace.refused(4, 0.0, sure=True)
    serve(pace, 50)
    assert not pace.refused(3, 0.0, sure=True)
    assert pace.refused(3, 0.0, sure=True)
    assert pace.limit == 2


def test_below_one_at_once_the_starts_move_apart_and_together_again() -> None:
    pace = Pace(6)
    assert not pace.refused(1, 0.1, sure=True)  # the pause is the host's own
    assert pace.refused(1, 0.1, sure=True)
    assert (pace.limit, pace.spacing) == (1, 0.0)
    assert pace.refused(1, 0.1, sure=True)
    assert pace.spacing == pytest.approx(0.2)
    for _ in range(9):
        pace.refused(1, 0.1, sure=True)
    assert pace.spacing == MOST_SPACING
    serve(pace, 100 * FIRST_PROBE)
    assert (pace.limit, pace.spacing) == (6, 0.0)


def test_a_host_that_never_bears_more_wastes_little_for_ever() -> None:
    """Three at once, asked by a client that knows nothing of it: simulated in rounds."""
    pace, rng = Pace(20), random.Random(1)
    refused = served = 0
    while served < 20_000:
        at_once = min(pace.limit, 20)
        for on_wire in range(at_once, 3, -1):
            refused += 1
            pace.refused(on_wire, 0.0, sure=True)
        for _ in range(min(at_once, 3) - rng.randrange(2)):
            served += 1
            pace.served_well(20)
    assert pace.limit in (3, 4)
    assert refused < 40


@given(st.lists(st.tuples(st.sampled_from(["refused", "doubtful", "well"]), st.integers(1, 30)), max_size=300))
def test_a_pace_stays_within_its_bounds(events: list[tuple[str, int]]) -> None:
    pace = Pace(20)
    for kind, number in events:
        if kind == "well":
            serve(pace, number * 20, most=20)
        else:
            pace.refused(min(number, 20), 0.01 * number, sure=kind == "refused")
        assert 1 <= pace.limit <= 20
        assert 0.0 <= pace.spacing <= MOST_SPACING
        assert not pace.spacing or pace.limit == 1


# Our own network


def test_five_hosts_at_once_are_our_own_network() -> None:
    network = Network(60.0)
    verdicts = [network.failed(f"h{n}", NOW + n / 10) for n in range(BURST + 2)]
    assert verdicts == [False] * (BURST - 1) + [True, False, False]
    assert network.away(NOW + 1)
    assert not network.away(NOW + 61)  # or it will never be back


def test_one_host_that_fails_often_is_not() -> None:
    network = Network(60.0)
    assert not any(network.failed("h", NOW + n / 100) for n in range(100))
    assert not network.away(NOW + 1)


def test_hosts_that_fail_one_after_the_other_are_not() -> None:
    network = Network(60.0)
    assert not any(network.failed(f"h{n}", NOW + n) for n in range(100))


@pytest.mark.parametrize(("answers", "verdict"), [(0, True), (HARDLY, True), (HARDLY + 1, False), (50, False)])
def test_hosts_that_fail_while_others_answer_are_not(answers: int, verdict: bool) -> None:
    network = Network(60.0)
    for n in range(BURST - 1):
        network.failed(f"h{n}", NOW)
    network.answers += answers
    assert network.failed("last", NOW) is verdict


def test_an_answer_to_what_was_sent_meanwhile_is_the_end_of_it() -> None:
    network = Network(60.0)
    for n in range(BURST):
        network.failed(f"h{n}", NOW)
    assert not network.returned(NOW - 0.1)  # it was on its way
    assert network.away(NOW)
    assert network.returned(NOW + 0.1)
    assert not network.away(NOW + 0.2)
    assert not network.failed("h0", NOW + 0.2)  # all is counted anew


def test_the_rests_between_two_probes_grow_and_a_wave_counts_once() -> None:
    network = Network(60.0)
    for n in range(BURST):
        network.failed(f"h{n}", NOW)
    assert network.rest(NOW - 1, NOW, 0.25) == 0.25
    assert network.rest(NOW - 1, NOW, 0.25) is None  # sent before that
    rests = [network.rest(NOW + n, NOW + n, 0.25) for n in range(1, 6)]
    assert rests == [0.5, 1.0, LONGEST_REST, LONGEST_REST, LONGEST_REST]


def test_it_is_doubtful_while_the_last_news_is_bad() -> None:
    network = Network(60.0)
    assert not network.doubtful(NOW)
    network.failed("h", NOW)
    assert network.doubtful(NOW + WITHIN)
    assert not network.doubtful(NOW + WITHIN + 0.1)
    network.answers += 1
    assert not network.doubtful(NOW)


def test_without_a_route_it_is_away_until_there_is_one() -> None:
    network = Network(60.0)
    assert [network.lost_route(NOW + n) for n in range(3)] == [True, False, False]
    assert network.away(NOW + 3)
    assert network.rest(NOW + 3, NOW + 3, 0.25) == 0.25
    assert network.found_route()
    assert not network.away(NOW + 3)
    assert not network.found_route()


def test_an_answer_shows_a_route_as_well() -> None:
    network = Network(60.0)
    network.lost_route(NOW)
    assert network.returned(NOW + 1)
    assert not network.away(NOW + 1)


def test_a_route_says_nothing_of_hosts_that_had_answered() -> None:
    network = Network(60.0)
    for n in range(BURST):
        network.failed(f"h{n}", NOW)
    assert not network.lost_route(NOW)
    assert not network.found_route()
    assert network.away(NOW)
