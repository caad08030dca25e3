"""When it is our own network that is away: five hosts at once, or no route to anywhere."""

from __future__ import annotations

import pytest

from fetcher.hosts.network import (
    FAILURE_WINDOW_SECONDS,
    MAX_ANSWERS_MEANWHILE,
    MAX_PROBE_PAUSE_SECONDS,
    MIN_FAILED_HOSTS,
    Network,
)

NOW = 1_000.0


def test_five_hosts_at_once_are_our_own_network() -> None:
    network = Network(60.0)
    begins = [network.failed(f"h{n}", NOW + n / 10) for n in range(MIN_FAILED_HOSTS + 2)]
    assert begins == [False] * (MIN_FAILED_HOSTS - 1) + [True, False, False]
    assert network.away(NOW + 1)
    assert not network.away(NOW + 61)  # or it will never be back


@pytest.mark.parametrize(("seconds", "begins"), [(2.0, True), (2.1, False)])
def test_at_once_is_within_two_seconds(seconds: float, begins: bool) -> None:
    network = Network(60.0)
    for n in range(4):
        assert not network.failed(f"h{n}", NOW)
    assert network.failed("last", NOW + seconds) is begins


def test_one_host_that_fails_often_is_not() -> None:
    network = Network(60.0)
    assert not any(network.failed("h", NOW + n / 100) for n in range(100))
    assert not network.away(NOW + 1)


def test_hosts_that_fail_one_after_the_other_are_not() -> None:
    network = Network(60.0)
    assert not any(network.failed(f"h{n}", NOW + n) for n in range(100))


@pytest.mark.parametrize(
    ("answers", "begins"), [(0, True), (MAX_ANSWERS_MEANWHILE, True), (MAX_ANSWERS_MEANWHILE + 1, False), (50, False)]
)
def test_hosts_that_fail_while_others_answer_are_not(answers: int, begins: bool) -> None:
    network = Network(60.0)
    for n in range(MIN_FAILED_HOSTS - 1):
        network.failed(f"h{n}", NOW)
    for _ in range(answers):
        network.answered(NOW)
    assert network.failed("last", NOW) is begins


def test_an_answer_to_what_was_sent_meanwhile_is_the_end_of_it() -> None:
    network = Network(60.0)
    for n in range(MIN_FAILED_HOSTS):
        network.failed(f"h{n}", NOW)
    assert not network.answered(NOW - 0.1)  # it was on its way
    assert network.away(NOW)
    assert network.answered(NOW + 0.1)
    assert not network.away(NOW + 0.2)
    assert not network.failed("h0", NOW + 0.2)  # all is counted anew


def test_what_was_sent_when_it_began_was_sent_meanwhile() -> None:
    network = Network(60.0)
    for n in range(MIN_FAILED_HOSTS):
        network.failed(f"h{n}", NOW)
    assert network.answered(NOW)
    assert not network.away(NOW)


def test_the_pauses_between_two_probes_grow_and_a_wave_counts_once() -> None:
    network = Network(60.0)
    for n in range(MIN_FAILED_HOSTS):
        network.failed(f"h{n}", NOW)
    assert network.probe_pause(NOW - 1, NOW, 0.25) == 0.25
    assert network.probe_pause(NOW - 1, NOW, 0.25) is None  # sent before that
    pauses = [network.probe_pause(NOW + n, NOW + n, 0.25) for n in range(1, 6)]
    assert pauses == [0.5, 1.0, MAX_PROBE_PAUSE_SECONDS, MAX_PROBE_PAUSE_SECONDS, MAX_PROBE_PAUSE_SECONDS]


def test_it_is_doubtful_while_the_last_news_is_bad() -> None:
    network = Network(60.0)
    assert not network.doubtful(NOW)
    network.failed("h", NOW)
    assert network.doubtful(NOW + FAILURE_WINDOW_SECONDS)
    assert not network.doubtful(NOW + FAILURE_WINDOW_SECONDS + 0.1)
    network.answered(NOW)
    assert not network.doubtful(NOW)


def test_without_a_route_it_is_away_until_there_is_one() -> None:
    network = Network(60.0)
    assert [network.lost_route(NOW + n) for n in range(3)] == [True, False, False]
    assert network.away(NOW + 3)
    assert not network.away(NOW + 60.0)  # its patience is over
    assert network.probe_pause(NOW + 3, NOW + 3, 0.25) == 0.25
    assert network.found_route()
    assert not network.away(NOW + 3)
    assert not network.found_route()


def test_an_answer_shows_a_route_as_well() -> None:
    network = Network(60.0)
    network.lost_route(NOW)
    assert network.answered(NOW + 1)
    assert not network.away(NOW + 1)


def test_a_route_says_nothing_of_hosts_that_had_answered() -> None:
    network = Network(60.0)
    for n in range(MIN_FAILED_HOSTS):
        network.failed(f"h{n}", NOW)
    assert not network.lost_route(NOW)
    assert not network.found_route()
    assert network.away(NOW)
