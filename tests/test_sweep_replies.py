"""A sample of the sweep over odd replies: 1,000 cases in three kinds of segments, and a plain page behind each."""

from __future__ import annotations

import random

from tests.lab.odd_replies import KINDS, odd_replies
from tests.sweeps.replies import cases, judge

CASES = 1_000


def test_there_are_enough_of_them() -> None:
    assert len(odd_replies()) == len(KINDS) * (len(KINDS) + 1) // 2 > 300


async def test_a_verdict_does_not_depend_on_the_segments() -> None:
    verdicts = await judge(random.Random(11).sample(list(cases()), CASES))
    assert (verdicts.split(), verdicts.wrong, list(verdicts.slow)) == ([], [], [])
    assert len(verdicts.by_case) == CASES
    assert {"200", "malformed_response", "truncated", "bad_encoding"} <= set(verdicts.codes)
