"""The stats of a run. Law 1: at every exit ``input = ok + failed + skipped + pending``."""

from __future__ import annotations

from collections import Counter

import msgspec

from fetcher.errors import Skipped
from fetcher.model import Outcome, Page

__all__ = ["ResumeState", "Stats"]


class ResumeState(msgspec.Struct, frozen=True):
    """Where a job stands when it is opened: ``done`` rows, ``ok`` of them pages, and ``retried`` no longer done.

    ``suspect`` is the row whose page was being parsed when the last process died, 0 for none; ``left`` is about how many
    rows are left, where that is known.
    """

    resumed: bool = False
    done: int = 0
    ok: int = 0
    retried: int = 0
    suspect: int = 0
    left: int | None = None

    def as_text(self) -> str:
        """Say it in half a sentence."""
        retried = f", {self.retried:,} that failed are tried again" if self.retried else ""
        left = f", about {self.left:,} are left" if self.left else ""
        return f"{self.done:,} rows are done{retried}{left}"


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
