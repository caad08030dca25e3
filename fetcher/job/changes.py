"""What has changed since the earlier run that a job compares with: read from its output and its table, changing nothing.

Law 3: neither is held in memory: which URLs were seen is noted in a temporary database.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from contextlib import closing
from typing import Annotated, get_args

import msgspec

from fetcher.errors import ConfigError, InvalidURL, LedgerError
from fetcher.job.identity import JobIdentity
from fetcher.job.paths import SINCE, has_earlier
from fetcher.job.report import COMPLETE, JobSnapshot, report
from fetcher.job.since import EarlierTable, key_of
from fetcher.model import Change
from fetcher.sources.earlier import RecordFile
from fetcher.sqlite_files import address, guard
from fetcher.terminal import printable
from fetcher.urls import parse

__all__ = ["ChangeReport", "changes_of"]

MAX_URL_CHARACTERS = 2_000
CACHE_KB = 8_192
_Count = Annotated[int, msgspec.Meta(ge=0)]


class ChangeReport(msgspec.Struct, frozen=True):
    """How many rows of ``output`` are what since ``since``, and the first URLs of each kind but of unchanged ones.

    ``unlisted`` pages of the earlier run are of no row now; ``None`` while there are rows left. ``since`` is ``None``
    where there was no earlier output.
    """

    output: str
    since: str | None
    counts: dict[str, _Count]
    unlisted: _Count | None
    urls: dict[str, list[str]]


def changes_of(folder: str, *, most: int) -> ChangeReport:
    """Read the first output of the job in ``folder``; ``most`` URLs of a kind are named.

    Raises ``ConfigError`` for a job that compares with nothing, ``LedgerError`` and ``SourceError``.
    """
    if not has_earlier(folder):
        raise ConfigError(f"{folder}: this job compares with no earlier output: it was run without --since")
    complete = report(folder, hosts=0).state == COMPLETE
    with JobSnapshot(folder) as view:
        path, identity = next(iter(view.output_paths()), ""), JobIdentity.from_json(view.identity, path=view.path)
    table_path = os.path.join(folder, SINCE)
    counts: Counter[str] = Counter()
    urls: dict[str, list[str]] = {kind: [] for kind in get_args(Change) if kind != "unchanged"}
    listed = 0
    try:
        with (
            closing(sqlite3.connect(address(table_path, "ro") + "&immutable=1", uri=True)) as table,
            closing(sqlite3.connect("", isolation_level=None)) as seen,
        ):
            guard(table)
            seen.execute(f"PRAGMA cache_size=-{CACHE_KB}")
            seen.execute("CREATE TABLE seen(key BLOB PRIMARY KEY) WITHOUT ROWID")
            seen.execute("BEGIN")
            told = msgspec.json.decode(table.execute("SELECT value FROM meta").fetchone()[0], type=EarlierTable)
            for record in RecordFile(path).records():
                change, url = str(record.get("change")), str(record.get("url"))
                if change in get_args(Change):
                    counts[change] += 1
                    if change in urls and len(urls[change]) < most:
                        urls[change].append(printable(url, MAX_URL_CHARACTERS))
                listed += _is_listed(table, seen, url, identity.default_scheme)
            (known,) = table.execute("SELECT count(DISTINCT key) FROM pages").fetchone()
    except (sqlite3.Error, ValueError, TypeError) as error:
        raise LedgerError(f"{table_path}: cannot be read: {printable(str(error), 200)}") from error
    return ChangeReport(
        printable(path, MAX_URL_CHARACTERS),
        None if told.source is None else printable(told.source, MAX_URL_CHARACTERS),
        {kind: counts[kind] for kind in get_args(Change)},
        known - listed if complete else None,
        urls,
    )


def _is_listed(table: sqlite3.Connection, seen: sqlite3.Connection, url: str, scheme: str) -> bool:
    """Say whether a URL is that of an earlier page, and the first of its kind."""
    try:
        key = key_of(parse(url, scheme).wire)
    except InvalidURL:
        return False
    if table.execute("SELECT 1 FROM pages WHERE key = ? LIMIT 1", (key,)).fetchone() is None:
        return False
    return seen.execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,)).rowcount == 1
