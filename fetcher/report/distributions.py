"""How values are distributed, in bounded memory: shares of a count by three digits of its size, and samples of a stream.

Law 3: a distribution has at most some thousand steps, and a sample a fixed number of values, however many there are.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from typing import Any

from fetcher.drawing.svg import Scale, fitting

__all__ = ["Distribution", "Sampled", "histogram"]

SAMPLE = 5_000
"""Values of a column that a histogram is made of: the error of a share is under 1.5 %."""


class Distribution:
    """How often each value occurs: ``steps`` are pairs of a value and its count, ascending."""

    def __init__(self, steps: Iterable[tuple[float, int]] = ()) -> None:
        self.steps = sorted(steps)
        self.count = sum(many for _, many in self.steps)

    def __add__(self, other: Distribution) -> Distribution:
        """Return both together."""
        counts: dict[float, int] = dict(self.steps)
        for value, many in other.steps:
            counts[value] = counts.get(value, 0) + many
        return Distribution(counts.items())

    def quantile(self, share: float) -> float | None:
        """Return the value that this share of all does not exceed; ``None`` where there is none."""
        rank, seen = share * self.count, 0
        for value, many in self.steps:
            seen += many
            if seen >= rank:
                return value
        return None

    @property
    def scale(self) -> Scale:
        """A scale on which all of it can be seen."""
        if not self.steps:
            return Scale(0.0, 1.0)
        middle = self.quantile(0.5) or 0.0
        return fitting([self.steps[0][0], middle, self.steps[-1][0]])

    def bins(self, scale: Scale, number: int) -> list[int]:
        """Return how many fall into each of so many even parts of a scale."""
        counts = [0] * number
        for value, many in self.steps:
            counts[min(number - 1, int(scale.at(value) * number))] += many
        return counts


class Sampled:
    """The first ``most`` values of a stream, and from then on each with the same chance (Vitter's algorithm L).

    ``count`` is how many there were. The choice is the same for the same stream.
    """

    def __init__(self, most: int = SAMPLE) -> None:
        self.values: list[Any] = []
        self.count = 0
        self._most = most
        self._chance = random.Random(1)  # noqa: S311 - a sample, no secret
        self._weight = 1.0
        self._next = 0

    def add(self, value: Any) -> None:
        """Take the next value, or pass it over."""
        self.count += 1
        if len(self.values) < self._most:
            self.values.append(value)
            if len(self.values) == self._most:
                self._jump()
        elif self.count >= self._next:
            self.values[self._chance.randrange(self._most)] = value
            self._jump()

    def _jump(self) -> None:
        draw = self._chance.random
        self._weight *= math.exp(math.log(1.0 - draw()) / self._most)
        gap = math.log(1.0 - draw()) / math.log1p(-self._weight) if self._weight < 1.0 else 0.0
        self._next = self.count + 1 + int(min(gap, 1e15))


def histogram(values: Sequence[float], number: int) -> tuple[list[int], float, float]:
    """Return the counts of ``values`` in even parts between the least and the greatest, and these."""
    low, high = min(values), max(values)
    counts = [0] * number
    span = high - low
    for value in values:
        counts[min(number - 1, int((value - low) / span * number)) if 0 < span < math.inf else 0] += 1
    return counts, low, high
