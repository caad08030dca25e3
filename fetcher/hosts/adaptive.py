"""How much a host bears, learnt from its answers: an adaptive concurrency limit, and below one at once a spacing.

Law 9: nothing here waits or looks at a clock. The rule is additive increase after many successes, and a step back
to one below what was refused: halving and creeping back would waste a fifth of the requests.
"""

from __future__ import annotations

__all__ = ["FIRST_PROBE_SUCCESSES", "AdaptiveLimit"]

FIRST_PROBE_SUCCESSES = 100  # until one more at once is tried
MAX_PROBE_SUCCESSES = 6_400  # the count is doubled up to here
SECOND_TROUBLE_ANSWERS = 10  # within which a second trouble means load, where the first may have been the page's
SETTLED_SUCCESSES = 20  # after which one refusal may be a race between two ends of one connection
SPACING_FACTOR = 0.8  # of the spacing is tried after so many successes
MIN_SPACING_SECONDS, MAX_SPACING_SECONDS = 0.02, 1.0


class AdaptiveLimit:
    """What one host bears: how many at once, and below one at once, how far apart.

    ``limit`` is one below what was refused last; after 100 successes one more is tried. A refusal of that puts the
    limit back and doubles the count. ``spacing`` is in seconds, from start to start, and 0 as long as the host bears
    one after the other.
    """

    __slots__ = ("limit", "probe_after", "probing", "since_trouble", "spacing", "successes", "warned")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.spacing = 0.0
        self.probe_after = FIRST_PROBE_SUCCESSES
        self.successes = 0  # since the limit was changed
        self.since_trouble = 0  # answers since the last trouble
        self.probing = False
        self.warned = False

    def __repr__(self) -> str:
        spacing = f", {self.spacing:g} s apart" if self.spacing else ""
        return f"<AdaptiveLimit {self.limit} at once{spacing}, {self.successes}/{self.probe_after} successes>"

    def refused(self, on_wire: int, gap: float, *, sure: bool) -> bool:
        """Note a refusal among ``on_wire`` at once, ``gap`` seconds after the start before it; say if the limit fell.

        What is not ``sure`` to mean load (a 503 or a timeout may be the page's alone, and what obeyed for long is
        a race at most) counts when it comes twice in ten answers.
        """
        meant = self.warned and self.since_trouble < (SECOND_TROUBLE_ANSWERS if on_wire > 1 else FIRST_PROBE_SUCCESSES)
        if sure and on_wire > 1 and (self.probing or self.successes < SETTLED_SUCCESSES):
            meant = True
        self.warned = True
        self.since_trouble = 0
        if not meant:
            return False
        self.probe_after = min(2 * self.probe_after, MAX_PROBE_SUCCESSES) if self.probing else FIRST_PROBE_SUCCESSES
        self.probing = False
        self.successes = 0
        if on_wire > 1:
            self.limit = min(self.limit, on_wire - 1)
        elif self.limit > 1:
            self.limit = 1
        elif sure:
            self.spacing = min(MAX_SPACING_SECONDS, 2 * max(self.spacing, gap, MIN_SPACING_SECONDS))
        return True

    def succeeded(self, most: int) -> bool:
        """Note a success of a host that may have ``most`` at once in the end; say if the limit rose."""
        self.since_trouble += 1
        self.successes += 1
        if self.successes < self.probe_after or (self.limit >= most and not self.spacing):
            return False
        if self.probing:
            self.probe_after = FIRST_PROBE_SUCCESSES  # the last step held
        self.probing = True
        self.successes = 0
        if not self.spacing:
            self.limit += 1
        else:
            self.spacing *= SPACING_FACTOR
            if self.spacing < MIN_SPACING_SECONDS:
                self.spacing = 0.0
        return True
