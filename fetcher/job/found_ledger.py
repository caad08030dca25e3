"""The side of a ledger that has the rows found on pages, where links are followed.

Law 6: they are written in the transaction of the records of those pages. Law 7: what is read is checked.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import msgspec

from fetcher.config import Follow
from fetcher.job.ledger_reader import MAX_NOTE_BYTES, LedgerReader
from fetcher.job.schema import FOLLOWING_FORMATS, SEEN_KEY, damaged, explained, whole
from fetcher.model import Request

if TYPE_CHECKING:
    from fetcher.found.store import FoundStore, ListedURL, NamedLinks

__all__ = ["Discovered", "FoundLedger"]

FOLLOWING = "note following"  # where it is kept how far that is


class Discovered(msgspec.Struct, frozen=True):
    """What is noted with a batch where links are followed: rows of the list that were taken, and pages that name links."""

    listed: list[ListedURL]
    pages: list[NamedLinks]


class FoundLedger(LedgerReader):
    """A ledger with the rows that were ``found``, once it is told by which rules. Every method raises ``LedgerError``."""

    def __init__(self, path: str, db: sqlite3.Connection) -> None:
        super().__init__(path, db)
        self.found: FoundStore | None = None
        with explained(path, "open"):
            (version,) = db.execute("PRAGMA user_version").fetchone()
            self._follows = version in FOLLOWING_FORMATS
        if self._follows:
            from fetcher.found.store import LISTED_IDS  # most jobs follow no links

            self._last_listed = LISTED_IDS

    def follow(self, rules: Follow) -> FoundStore:
        """Return the rows that are found, by ``rules``: from now on a commit takes what is discovered."""
        from fetcher.found.store import KEY_BYTES, LISTED_IDS, FollowState, FoundStore  # as above

        key = self.blob(SEEN_KEY, KEY_BYTES)
        if not self._follows or key is None or len(key) != KEY_BYTES:
            raise damaged(self.path, "no place for rows that are found")
        noted = self.blob(FOLLOWING, MAX_NOTE_BYTES)
        try:
            state = FollowState() if noted is None else msgspec.json.decode(noted, type=FollowState)
        except (ValueError, RecursionError) as error:
            raise damaged(self.path, str(error)) from error
        with explained(self.path, "open"):
            (last,) = self._db.execute("SELECT coalesce(max(id), ?) FROM found", (LISTED_IDS,)).fetchone()
            if whole(self.path, last) != LISTED_IDS + state.found:
                raise damaged(self.path, f"{state.found} rows were found, and the last is {last}")
            self.found = FoundStore(self._db, rules, key=key, state=state, in_job=True)
        return self.found

    def unfinished(self) -> int:
        """Count the rows that were found and have no outcome yet."""
        if self.found is None:
            return 0
        from fetcher.found.store import LISTED_IDS  # as above

        with explained(self.path, "read"):
            (done,) = self._db.execute("SELECT count(*) FROM rows WHERE id > ?", (LISTED_IDS,)).fetchone()
        return self.found.state.found - whole(self.path, done, 0, self.found.state.found)

    def found_rows(self, after: int, most: int) -> list[Request]:
        """Return the next rows that were found and have no outcome, in the order of their ids."""
        assert self.found is not None
        with explained(self.path, "read"):
            try:
                return self.found.pending(after, most)
            except msgspec.ValidationError as error:
                raise damaged(self.path, str(error)) from error

    def discover(self, discovered: Discovered) -> int:
        """Make rows of what was discovered, within a transaction; return how many. Raises ``sqlite3.Error`` too."""
        assert self.found is not None
        added = self.found.add(discovered.listed, discovered.pages)
        if discovered.listed or discovered.pages:
            state = msgspec.json.encode(self.found.state)
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (FOLLOWING, state))
        return added
