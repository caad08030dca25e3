"""The rows that were found, and which URLs are known: tables in the ledger of a job, or in a file that ends with its run.

Laws: what is inserted is part of its caller's transaction (6); neither the rows nor the known URLs are in memory, but
for a bounded cache, and a known URL takes some 30 bytes on disk (3). Whoever makes the pages cannot make two URLs the
same: their keys are by a hash with a key of the job's own (7).

``found`` has a row for each link that became one, ``naming`` one for each page that named some, ``starts`` one for each
row of the list that they began at. ``seen`` has the key of each URL: 12 bytes of BLAKE2b (RFC 7693), and whether it was
found. ``host_rows`` counts the rows of each host, where that is limited.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from fetcher.config.policies import Follow
from fetcher.errors import ConfigError
from fetcher.found.traps import PatternCounts
from fetcher.model import Discovery, FoundLinks, Request
from fetcher.stats import counted

__all__ = [
    "CACHE_BYTES",
    "KEY_BYTES",
    "LENGTHS",
    "LISTED_IDS",
    "TABLES",
    "FollowState",
    "FoundStore",
    "ListedURL",
    "NamedLinks",
    "check_listed",
    "key_of",
    "look_up",
    "notes_of",
]

LISTED_IDS = 10**9
"""The greatest id that a row of the list may have: those that are found are numbered from the next one on.

An id fits four bytes, as whoever reads pages out of files expects.
"""

KEY_BYTES = 16  # of the key of the hash
SEEN_BYTES = 12
CACHE_BYTES = 64 * 1024 * 1024  # of the database that stay in memory
MAX_TEXT_BYTES = 70_000  # of a URL: it is ASCII, as the standard serialises it
MAX_HOST_COUNTS = 10_000  # kept in memory

TABLES = (
    """CREATE TABLE found(
        id INTEGER PRIMARY KEY, page INTEGER NOT NULL, depth INTEGER NOT NULL, guarded INTEGER NOT NULL,
        url TEXT NOT NULL)""",
    "CREATE TABLE naming(id INTEGER PRIMARY KEY, start INTEGER NOT NULL, url TEXT NOT NULL)",
    "CREATE TABLE starts(id INTEGER PRIMARY KEY, url TEXT NOT NULL)",
    "CREATE TABLE seen(key BLOB PRIMARY KEY, found INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE host_rows(host TEXT PRIMARY KEY, rows INTEGER NOT NULL) WITHOUT ROWID",
)

LENGTHS = (
    f"SELECT count(*) FROM found WHERE length(url) > {MAX_TEXT_BYTES} OR length(page) + length(depth) > 40",  # noqa: S608  (numbers of ours)
    *(f"SELECT count(*) FROM {table} WHERE length(url) > {MAX_TEXT_BYTES}" for table in ("naming", "starts")),  # noqa: S608  (as above)
    f"SELECT count(*) FROM seen WHERE length(key) > {SEEN_BYTES}",  # noqa: S608  (as above)
    f"SELECT count(*) FROM host_rows WHERE length(host) > {MAX_TEXT_BYTES}",  # noqa: S608  (as above)
)
"""What no sound table of ours has, counted: looked at before a value is read."""


class ListedURL(msgspec.Struct, frozen=True, array_like=True):
    """A row of the list that was taken: it is not found again."""

    url: str
    host: str


class NamedLinks(msgspec.Struct, frozen=True, array_like=True):
    """The page of row ``id``, at ``url``, and the links that it names. ``known`` is another URL that the row has."""

    id: int
    url: str
    discovery: Discovery
    links: FoundLinks
    known: str | None = None


class FollowState(msgspec.Struct):
    """How far the following of links is: kept with the rows.

    ``listed`` URLs of the list are known, ``found`` rows are of links. ``cut`` and ``hosts_cut`` say that links were
    left for ``max_pages`` and ``max_pages_per_host``; ``dropped`` were too long, or too many of one page. ``outside``
    pages were redirected to where no links are followed, such as ``example``; ``starts_outside`` of them are of the
    list.
    """

    listed: int = 0
    found: int = 0
    cut: bool = False
    hosts_cut: bool = False
    dropped: int = 0
    outside: int = 0
    starts_outside: int = 0
    example: str = ""
    deepest: int = 0
    patterns: PatternCounts = msgspec.field(default_factory=PatternCounts)


class PendingRow(msgspec.Struct, frozen=True, array_like=True):
    """A row of ``found``, as it is read: nothing of a file is believed to be of its type."""

    id: int
    url: str
    depth: int
    guarded: int
    referrer: str
    start: int
    base: str

    def request(self, rules: Follow) -> Request:
        """Return the row."""
        leads = rules.depth is None or self.depth < rules.depth
        discovery = Discovery(self.depth, self.start, self.base, self.referrer, leads)
        return Request(self.id, self.url, guarded=bool(self.guarded), discovery=discovery)


def key_of(key: bytes, url: str) -> bytes:
    """Return what stands for a URL: the hash of it with the ``key`` of the job."""
    return blake2b(url.encode("utf-8", "surrogatepass"), digest_size=SEEN_BYTES, key=key).digest()


def look_up(db: sqlite3.Connection, key: bytes, url: str) -> bool:
    """Say whether there is a row of a link to a URL. Raises ``sqlite3.Error``."""
    found = db.execute(_LOOK_UP, (key_of(key, url),)).fetchone()
    return found is not None and bool(found[0])


def check_listed(id_: int) -> None:
    """Raise ``ConfigError`` for a row of a list whose number may be that of a row found."""
    if id_ > LISTED_IDS:
        raise ConfigError(f"row {id_:,}: with follow the rows of a list are numbered up to {LISTED_IDS:,}")


class FoundStore:
    """The tables, in a database that is open. ``add`` belongs into a transaction; after an error nothing is to go on.

    All methods raise ``sqlite3.Error``, ``pending`` also ``msgspec.ValidationError`` for what is no row of ours.
    """

    def __init__(
        self, db: sqlite3.Connection, rules: Follow, *, key: bytes, state: FollowState | None = None, in_job: bool
    ) -> None:
        self.rules = rules
        self.state = state or FollowState()
        self.key = key
        self._db = db
        self._pending = _PENDING_IN_JOB if in_job else _PENDING
        self._host_rows: dict[str, int] = {}
        db.execute(f"PRAGMA cache_size=-{CACHE_BYTES // 1024}")

    @classmethod
    def temporary(cls, rules: Follow) -> FoundStore:
        """Make one in a file without a name, which is gone with the connection."""
        db = sqlite3.connect("", isolation_level=None)
        db.execute("PRAGMA journal_mode=OFF")
        for table in TABLES:
            db.execute(table)
        db.execute("BEGIN")  # never ended: each commit would go through all pages in memory
        return cls(db, rules, key=os.urandom(KEY_BYTES), in_job=False)

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def add(self, listed: Sequence[ListedURL], pages: Sequence[NamedLinks]) -> int:
        """Note the URLs of the list, then make rows of the links that are not known; return how many."""
        state = self.state
        for each in listed:
            new = self._db.execute(_SEE_LISTED, (key_of(self.key, each.url),)).rowcount == 1
            if new:
                state.listed += 1
                if self.rules.max_pages_per_host is not None:
                    self._count(each.host)
        before = state.found
        for page in pages:
            self._add_page(page)
        return state.found - before

    def is_found(self, url: str) -> bool:
        """Say whether there is a row of a link to this URL."""
        return look_up(self._db, self.key, url)

    def pending(self, after: int, most: int) -> list[Request]:
        """Return the next rows without an outcome, in their order, behind the row ``after``."""
        found = self._db.execute(self._pending, (after, most)).fetchall()
        return [msgspec.convert(row, PendingRow).request(self.rules) for row in found]

    def forget(self, last: int) -> None:
        """Drop the rows up to ``last``: they were handed out, and nobody comes back for them."""
        self._db.execute("DELETE FROM found WHERE id <= ?", (last,))

    def _add_page(self, page: NamedLinks) -> None:
        state, discovery = self.state, page.discovery
        if page.known is not None:
            self._db.execute(_SEE_LISTED, (key_of(self.key, page.known),))
        state.dropped += page.links.dropped
        if page.links.outside:
            state.outside += 1
            if discovery.depth == 0:
                state.starts_outside += 1
            if discovery.depth == 0 or not state.example:
                state.example = page.url[:300]
        rows = self._rows_of(page)
        if not rows:
            return
        state.deepest = max(state.deepest, discovery.depth + 1)
        self._db.execute("INSERT OR IGNORE INTO starts VALUES (?, ?)", (discovery.start, discovery.base))
        self._db.execute("INSERT OR REPLACE INTO naming VALUES (?, ?, ?)", (page.id, discovery.start, page.url))
        self._db.executemany("INSERT INTO found VALUES (?, ?, ?, ?, ?)", rows)

    def _rows_of(self, page: NamedLinks) -> list[tuple[Any, ...]]:
        """Return the new rows of a page, whose URLs are noted."""
        state, rules, execute = self.state, self.rules, self._db.execute
        depth, guarded = page.discovery.depth + 1, int(page.links.guarded)
        rows: list[tuple[Any, ...]] = []
        for url in page.links.urls:
            key = (key_of(self.key, url),)
            if state.listed + state.found >= rules.max_pages:
                if state.cut or execute(_LOOK_UP, key).fetchone() is None:
                    state.cut = True
                    break
                continue
            if rules.max_pages_per_host is not None and execute(_LOOK_UP, key).fetchone() is None:
                host = _host_of(url)
                if self._rows_of_host(host) >= rules.max_pages_per_host:
                    state.hosts_cut = True
                    continue
                self._count(host)
            if execute(_SEE_FOUND, key).rowcount == 1:
                state.found += 1
                state.patterns.add(url)
                rows.append((LISTED_IDS + state.found, page.id, depth, guarded, url))
        return rows

    def _rows_of_host(self, host: str) -> int:
        known = self._host_rows.get(host)
        if known is None:
            found = self._db.execute("SELECT rows FROM host_rows WHERE host = ?", (host,)).fetchone()
            known = found[0] if found else 0
            if len(self._host_rows) >= MAX_HOST_COUNTS:
                self._host_rows.clear()
            self._host_rows[host] = known
        return known

    def _count(self, host: str) -> None:
        rows = self._rows_of_host(host) + 1
        self._db.execute("INSERT OR REPLACE INTO host_rows VALUES (?, ?)", (host, rows))
        self._host_rows[host] = rows


def _host_of(url: str) -> str:
    """Return the host key of a URL as the standard serialises it."""
    authority = url.partition("://")[2].partition("/")[0]
    name, _, port = authority.rpartition(":")
    return (name if name and port.isdigit() else authority).rstrip(".")


def notes_of(state: FollowState, rules: Follow) -> list[str]:
    """Return what there is to say of the links of a run, a sentence each."""
    notes = []
    if state.found:
        rows = counted(state.found, "row")
        notes.append(f"{rows} found on pages, at most {counted(state.deepest, 'link')} from the list")
    if state.cut:
        notes.append(f"--max-pages {rules.max_pages:,} is reached: there are more links")
    if state.hosts_cut:
        notes.append(f"--max-pages-per-host {rules.max_pages_per_host:,} is reached: there are more links")
    if state.dropped:
        notes.append(f"{counted(state.dropped, 'link')} left out: longer than 64 KiB, or too many on one page")
    if state.outside:
        what = "of the list" if state.starts_outside else "in all"
        many = state.starts_outside or state.outside
        notes.append(
            f"{counted(many, 'page')} {what} led out of --within {rules.within}, such as to {state.example}: "
            "links there were not followed; list that URL itself, or widen --within"
        )
    return notes + state.patterns.traps(state.found, cut=state.cut or state.hosts_cut)


_LOOK_UP = "SELECT found FROM seen WHERE key = ?"
_SEE_LISTED = "INSERT OR IGNORE INTO seen VALUES (?, 0)"
_SEE_FOUND = "INSERT OR IGNORE INTO seen VALUES (?, 1)"
_COLUMNS = """
    SELECT found.id, found.url, found.depth, found.guarded, naming.url, naming.start, starts.url FROM found
    CROSS JOIN naming ON naming.id = found.page CROSS JOIN starts ON starts.id = naming.start """
_ORDER = " ORDER BY found.id LIMIT ?"
_PENDING = f"{_COLUMNS} WHERE found.id > ? {_ORDER}"
_UNFINISHED = "NOT EXISTS (SELECT 1 FROM rows WHERE rows.id = found.id)"
_PENDING_IN_JOB = f"{_COLUMNS} WHERE found.id > ? AND {_UNFINISHED} {_ORDER}"
