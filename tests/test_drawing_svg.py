"""The scales of the charts: round ticks, logarithms where they are needed, labels that do not touch."""

from __future__ import annotations

import math

import pytest

from fetcher.drawing.svg import Scale, fitting, spaced


@pytest.mark.parametrize(
    ("scale", "ticks"),
    [
        (Scale(0, 8.2), [0, 2, 4, 6, 8]),
        (Scale(0, 0.142), [0, 0.05, 0.1]),
        (Scale(0, 100), [0, 20, 40, 60, 80, 100]),
        (Scale(0.018, 1.1, log=True), [0.02, 0.05, 0.1, 0.2, 0.5, 1]),
        (Scale(1.0, 1.0), [1.0]),
    ],
)
def test_ticks_are_round(scale: Scale, ticks: list[float]) -> None:
    assert scale.ticks(5) == pytest.approx(ticks)
    assert all(0 <= scale.at(value) <= 1 for value in ticks)


def test_a_scale_is_logarithmic_where_a_few_dwarf_the_others() -> None:
    assert not fitting([0.02, 0.04, 0.06]).log
    assert fitting([0.02] * 50 + [3.0]).log
    assert fitting([0.0, math.nan]) == Scale(0.0, 1.0)


def test_labels_keep_their_distance() -> None:
    assert spaced([0.0, 0.1, 0.3, 0.31, 0.6], 0.2) == [True, False, True, False, True]
