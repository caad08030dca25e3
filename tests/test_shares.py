"""How the slots are divided among workers: by demand, at least one each, and never more than there are."""

from __future__ import annotations

import random

import pytest

from fetcher.config import Limits
from fetcher.hosts.limits import SharedLimits, set_share
from fetcher.parallel.shares import Part, divide, move


@pytest.mark.parametrize(
    ("total", "wanted", "shares"),
    [
        (100, [200, 200], [50, 50]),
        (100, [1, 200], [1, 99]),
        (100, [0, 0], [50, 50]),
        (100, [10, 20], [45, 55]),
        (4, [50, 50, 50, 50], [1, 1, 1, 1]),
        (7, [50, 50, 50], [3, 2, 2]),
        (100, [30, 200, 200], [30, 35, 35]),
    ],
)
def test_slots_are_divided_by_demand(total: int, wanted: list[int], shares: list[int]) -> None:
    assert divide(total, wanted) == shares


@pytest.mark.parametrize("seed", range(50))
def test_what_is_divided_is_all_there_is_and_each_has_one(seed: int) -> None:
    chance = random.Random(seed)
    workers = chance.randint(1, 16)
    total = chance.randint(workers, 500)
    shares = divide(total, [chance.randint(0, 2 * total) for _ in range(workers)])
    assert sum(shares) == total
    assert min(shares) >= 1


def test_slots_are_taken_back_before_they_are_given() -> None:
    told = move(100, [Part(50, 50, 2), Part(50, 50, 100)])
    assert told == [2, 50], "the first one holds them still"
    told = move(100, [Part(2, 30, 2), Part(50, 50, 100)])
    assert told == [2, 70]
    assert move(100, [Part(2, 2, 2), Part(70, 70, 140)]) == [2, 98]


def test_small_differences_are_left_alone() -> None:
    assert move(100, [Part(52, 52, 100), Part(48, 48, 100)]) == [52, 48]


def test_a_slot_that_one_cannot_use_goes_to_who_lacks_it() -> None:
    """Each has four hosts, of one request at once: of eight slots all are used, however they were first shared out."""
    assert move(8, [Part(5, 5, 5), Part(3, 3, 6)]) == [4, 3], "it is taken back first"
    assert move(8, [Part(4, 4, 5), Part(3, 3, 6)]) == [4, 4]
    assert move(8, [Part(5, 5, 5), Part(3, 3, 3)]) == [5, 3], "nobody lacks it"


@pytest.mark.parametrize("seed", range(100))
def test_there_are_never_more_than_there_are(seed: int) -> None:
    """Workers that obey late, and report late, hold together at most what there is at every moment."""
    chance = random.Random(seed)
    workers = chance.randint(2, 8)
    total = chance.randint(workers, 200)
    told = divide(total, [total] * workers)
    holds = list(told)  # what each may have on the wire
    for _ in range(200):
        wanted = [chance.choice((0, chance.randint(1, total), 2 * total)) for _ in range(workers)]
        told = move(total, [Part(*part) for part in zip(told, holds, wanted, strict=True)])
        assert min(told) >= 1
        for place in range(workers):
            if told[place] > holds[place]:
                holds[place] = told[place]
            elif chance.random() < 0.5:  # some of its exchanges have ended
                holds[place] = chance.randint(told[place], holds[place])
        assert sum(holds) <= total


def test_a_share_is_taken_over_unless_the_network_is_away() -> None:
    shared = SharedLimits(Limits(concurrency=50))
    set_share(shared, 80, 4.0)
    assert (shared.concurrency, shared.rate) == (80, 4.0)
    shared.rest_until(5.0)
    assert shared.concurrency == 40
    set_share(shared, 60, 4.0)
    assert shared.concurrency == 40, "it recovers with each answer"
    set_share(shared, 10, None)
    assert (shared.concurrency, shared.rate) == (10, None)
