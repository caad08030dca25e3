"""How values are distributed, whatever their number: shares, bins, and samples that are fair and bounded."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from fetcher.drawing.svg import Scale
from fetcher.report.distributions import Distribution, Sampled, histogram


def test_quantiles_are_those_of_the_values() -> None:
    values = [random.Random(1).randrange(1_000) for _ in range(5_000)]
    spread = Distribution(Counter(map(float, values)).items())
    ordered = sorted(values)
    assert spread.count == 5_000
    for share in (0.01, 0.5, 0.95, 0.99, 1.0):
        assert spread.quantile(share) == ordered[max(0, round(share * 5_000) - 1)]
    assert Distribution().quantile(0.5) is None


def test_bins_hold_all_and_both_ends() -> None:
    spread = Distribution([(0.0, 3), (5.0, 1), (10.0, 2)])
    assert spread.bins(Scale(0.0, 10.0), 5) == [3, 0, 1, 0, 2]
    assert sum(spread.bins(spread.scale, 7)) == 6
    assert (spread + Distribution([(5.0, 4)])).steps == [(0.0, 3), (5.0, 5), (10.0, 2)]
    assert Distribution([(0.0, 9)]).bins(Distribution([(0.0, 9)]).scale, 3) == [9, 0, 0]


def test_a_sample_is_bounded_whole_while_it_has_room_and_the_same_each_time() -> None:
    few = Sampled(10)
    for value in range(10):
        few.add(value)
    assert few.values == list(range(10))
    twice = []
    for _ in range(2):
        many = Sampled(100)
        for value in range(20_000):
            many.add(value)
        assert len(many.values) == 100
        assert many.count == 20_000
        assert len(set(many.values)) == 100
        twice.append(many.values)
    assert twice[0] == twice[1]


def test_each_value_has_the_same_chance() -> None:
    """The mean of 1,000 values of 0 to 99,999 lies within five standard errors of the middle."""
    sample = Sampled(1_000)
    for value in range(100_000):
        sample.add(value)
    assert abs(sum(sample.values) / 1_000 - 50_000) < 5 * 28_868 / 1_000**0.5
    quarters = Counter(value // 25_000 for value in sample.values)
    assert min(quarters.values()) > 180


@pytest.mark.parametrize(
    ("values", "counts"),
    [([1.0], [1, 0]), ([2.0, 2.0], [2, 0]), ([0.0, 1.0], [1, 1]), ([-1e300, 1e300], [1, 1]), ([0.0, 5e-324], [1, 1])],
)
def test_a_histogram_of_anything(values: list[float], counts: list[int]) -> None:
    assert sum(histogram(values, 2)[0]) == len(values)
    assert histogram(values, 2)[0] == counts
