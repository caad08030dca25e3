"""The stats of a run, and how a count is said. Law 1: at every exit ``input = ok + failed + skipped + pending``."""

from __future__ import annotations

from collections import Counter

from fetcher.errors import Skipped
from fetcher.model import Outcome, Page

__all__ = ["Stats", "counted"]


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return ``number`` of ``noun`` in words: ``1 row``, ``1,000 rows``; ``plural`` where that is not with an s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


class Stats:
    """Counts of rows. ``input`` are those taken from the source; ``more`` says that it was not read to its end."""

    def __init__(self) -> None:
        self.input = 0
        self.ok = 0
        self.failed = 0
        self.skipped = 0
        self.bytes = 0
        self.more = True
        self.codes: Counter[str] = Counter()

    @property
    def done(self) -> int:
        """Rows whose outcome has been handed over."""
        return self.ok + self.failed + self.skipped

    @property
    def pending(self) -> int:
        """Rows taken whose outcome has not been handed over."""
        return self.input - self.done

    def enter(self, outcome: Outcome) -> None:
        """Book one outcome."""
        if isinstance(outcome, Page):
            self.ok += 1
            self.bytes += outcome.bytes
            return
        self.codes[outcome.error.code] += 1
        self.bytes += outcome.bytes or 0
        if isinstance(outcome.error, Skipped):
            self.skipped += 1
        else:
            self.failed += 1
