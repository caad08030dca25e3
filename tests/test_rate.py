"""The rate that is shown: the mean of the last seconds, for steady runs, bursty ones, and clocks that are set back."""

from __future__ import annotations

import random
from bisect import bisect_right

import pytest

from fetcher.report.rate import SAMPLES, RateMeter

STEP = 0.1


def shown(times: list[float], until: float) -> list[tuple[float, float | None]]:
    """What a line that is drawn every tenth of a second shows, of rows that are done at these times."""
    meter = RateMeter(5.0)
    meter.note(0.0, 0)
    found = []
    for step in range(1, int(until / STEP) + 1):
        now = step * STEP
        meter.note(now, bisect_right(times, now))
        found.append((now, meter.rate))
    return found


def true_mean(times: list[float], now: float, *, late: float = 0.0) -> float:
    """The mean of the last 5 s; ``late``: of a window that begins so much later."""
    began = max(0.0, now - 5.0 + late)
    return (bisect_right(times, now) - bisect_right(times, began)) / (now - max(0.0, now - 5.0))


def bursts(seed: int, most: int, gap: float) -> list[float]:
    """Bursts of up to so many rows at odd times, with silence in between: some 20 s."""
    draw = random.Random(seed)
    times, now = [], 0.0
    while now < 20:
        times += [now + draw.random() * 0.05 for _ in range(draw.randint(1, most))]
        now += draw.uniform(0.1, gap)
    return sorted(times)


@pytest.mark.parametrize("seed", range(40))
def test_a_bursty_run_shows_the_mean_of_the_last_five_seconds(seed: int) -> None:
    times = bursts(seed, 60, 0.6)
    for now, rate in shown(times, 20.0):
        if now >= 3.0:
            assert rate is not None
            assert rate == pytest.approx(true_mean(times, now), rel=0.2), now


@pytest.mark.parametrize("seed", range(40))
def test_a_burst_at_the_edge_of_the_window_is_in_it_or_not(seed: int) -> None:
    """Few and large bursts: the true mean jumps when one leaves the window, and what is shown does so a tenth later."""
    times = bursts(seed, 200, 3.0)
    for now, rate in shown(times, 20.0):
        if now >= 3.0:
            assert rate is not None
            near = [true_mean(times, now, late=late) for late in (-STEP, 0.0, STEP)]
            assert 0.8 * min(near) - 1e-6 <= rate <= 1.2 * max(near) + 1e-6, now


def test_what_came_at_once_is_not_taken_for_the_pace() -> None:
    times = [0.05] * 100 + [1.0 + n * 0.045 for n in range(44)]
    assert shown(times, 3.0)[-1][1] == pytest.approx(48.0, rel=0.02)


def test_it_is_known_from_the_first_second_on() -> None:
    steady = [n / 50 for n in range(1000)]
    rates = shown(steady, 2.0)
    assert rates[3][1] is None
    assert all(rate == pytest.approx(50, rel=0.1) for now, rate in rates if now > 0.95)


def test_silence_is_told_within_five_seconds() -> None:
    assert shown([n / 100 for n in range(500)], 10.2)[-1][1] == 0


def test_earlier_runs_are_no_pace() -> None:
    meter = RateMeter()
    meter.note(0.0, 1_000_000)
    meter.note(2.0, 1_000_020)
    assert meter.rate == 10


def test_a_clock_that_is_set_back_begins_anew() -> None:
    meter = RateMeter()
    for now, count in ((100.0, 0), (101.0, 10), (40.0, 20), (41.0, 30)):
        meter.note(now, count)
    assert meter.rate == 10


def test_it_keeps_few_samples_however_often_it_is_told() -> None:
    meter = RateMeter(5.0)
    for n in range(100_000):
        meter.note(n / 10_000, n)
    assert len(meter._samples) <= SAMPLES + 2
    assert meter.rate == pytest.approx(10_000, rel=0.05)
