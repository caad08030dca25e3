"""How what all workers share is divided: the slots (``-c``), and with them the rate.

Law 3, law 8: at no moment do the workers hold more than there is. What a worker is to have less of is taken back first,
and given to another only when it says that it holds no more than that. Law 9: decided here, without waiting.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Part", "divide", "move"]


class Part(NamedTuple):
    """A worker's slots: what it was ``told``, what it ``holds`` by its last word, and what it could use."""

    told: int
    held: int
    wanted: int


def divide(total: int, wanted: Sequence[int]) -> list[int]:
    """Divide ``total`` by demand: each has at least one, none more than it wants while another wants more.

    What nobody wants is divided evenly, so that who wants more finds some at once. ``total`` is at least their number.
    """
    shares = [1] * len(wanted)
    left = total - len(wanted)
    open_ = [place for place, want in enumerate(wanted) if want > 1]
    while left > 0 and open_:
        each = max(1, left // len(open_))
        for place in list(open_):
            more = min(each, wanted[place] - shares[place], left)
            shares[place] += more
            left -= more
            if shares[place] >= wanted[place]:
                open_.remove(place)
    for place in range(len(shares)):
        shares[place] += left // len(shares) + (place < left % len(shares))
    return shares


def move(total: int, parts: Sequence[Part]) -> list[int]:
    """Return what each worker is to be told now.

    Small differences are left alone, unless one lacks what another has and cannot use: that slot would be idle for good.
    """
    goals = divide(total, [part.wanted for part in parts])
    slack = max(1, total // (10 * len(parts)))
    whole = sum(part.told for part in parts) == total  # else there are more of them now, or fewer
    idle = any(part.wanted <= part.told for part in parts) and any(part.wanted > part.told for part in parts)
    if whole and not idle and all(abs(goal - part.told) <= slack for goal, part in zip(goals, parts, strict=True)):
        goals = [part.told for part in parts]
    told = [min(goal, part.told) for goal, part in zip(goals, parts, strict=True)]
    free = total - sum(max(now, part.held) for now, part in zip(told, parts, strict=True))
    for place in sorted(range(len(parts)), key=lambda place: told[place] - goals[place]):
        if free <= 0:
            break
        # What it still holds of an earlier share is its own.
        more = min(goals[place] - told[place], free + max(0, parts[place].held - told[place]))
        if more > 0:
            free -= max(0, told[place] + more - max(told[place], parts[place].held))
            told[place] += more
    return told
