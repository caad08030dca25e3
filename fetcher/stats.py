"""The stats of a run, and how a count is said. Law 1: at every exit ``input = ok + failed + skipped + pending``."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fetcher.errors import Skipped
from fetcher.model import Outcome, Page

__all__ = ["FieldCount", "Stats", "counted"]

MAX_FIELDS = 1_000
"""Names of fields that are counted."""
MAX_TYPES = 5
UNKNOWN_TYPE = "of no type"


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return ``number`` of ``noun`` in words: ``1 row``, ``1,000 rows``; ``plural`` where that is not with an s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


class FieldCount:
    """On how many pages of a run a field of their data was looked for, found, and of another type than was asked for.

    ``unread`` had bodies that its rule does not read, some of whose ``types`` are kept.
    """

    __slots__ = ("found", "pages", "types", "unconverted", "unread")

    def __init__(self) -> None:
        self.pages = self.found = self.unconverted = self.unread = 0
        self.types: set[str] = set()


class Stats:
    """Counts of rows. ``input`` are those taken from the source; ``more`` says that it was not read to its end.

    ``elsewhere`` counts the rows read by this run that are of other shards: they are no ``input``.
    ``by_http`` are rows of this run that name no scheme and were asked by http (``default_scheme``).
    ``fields`` are those of the pages' data, of this run, and ``content`` the columns that are read out of them.
    ``following`` is how far the following of links is, where any are followed.
    ``changes`` counts what became of the pages of an earlier run, by this one.
    """

    def __init__(self) -> None:
        self.input = 0
        self.ok = 0
        self.failed = 0
        self.skipped = 0
        self.bytes = 0
        self.more = True
        self.elsewhere = 0
        self.by_http = 0
        self.codes: Counter[str] = Counter()
        self.changes: Counter[str] = Counter()
        self.fields: dict[str, FieldCount] = {}
        self.content: dict[str, FieldCount] = {}
        self.following: Any = None

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
        if outcome.change is not None:
            self.changes[outcome.change] += 1
        if isinstance(outcome, Page):
            self.ok += 1
            if outcome.change is None or not outcome.carried:
                self.bytes += outcome.bytes
            if outcome.content:
                self._count_content(outcome)
            if type(outcome.data) is dict:
                self._count_fields(outcome.data, outcome)
            return
        self.codes[outcome.error.code] += 1
        self.bytes += outcome.bytes or 0
        if isinstance(outcome.error, Skipped):
            self.skipped += 1
        else:
            self.failed += 1

    def _count_fields(self, data: dict[str, Any], page: Page) -> None:
        fields = self.fields
        for name, value in data.items():
            count = fields.get(name)
            if count is None:
                if len(fields) >= MAX_FIELDS:  # an extractor may make names of what it reads
                    continue
                count = fields[name] = FieldCount()
            count.pages += 1
            if value is not None and value != []:
                count.found += 1
        for name in page.unconverted:
            if name not in page.content:
                fields.setdefault(name, FieldCount()).unconverted += 1
        for name in page.unread:
            count = fields.get(name)
            if count is not None:
                count.unread += 1
                if len(count.types) < MAX_TYPES:
                    count.types.add(page.content_type or UNKNOWN_TYPE)

    def _count_content(self, page: Page) -> None:
        for name, value in page.content.items():
            count = self.content.get(name)
            if count is None:
                count = self.content[name] = FieldCount()
            count.pages += 1
            if value is not None:
                count.found += 1
            if name in page.unconverted:
                count.unconverted += 1
