"""The pages of an earlier run, to compare with: its output is read once into a table on the disk of the job.

Laws: neither the output nor the table is held in memory (3). The table gets its name when it is whole and on the disk,
so that a run that goes on compares with what the first one did, whatever has become of the output (6). Nothing in the
output is believed to be of its type (7).
"""

from __future__ import annotations

import glob
import hashlib
import os
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any

import msgspec

from fetcher.client import Fetcher
from fetcher.config import Config
from fetcher.errors import ConfigError, InvalidURL, LedgerError, SinkError, SourceError
from fetcher.files import PRIVATE, sync, sync_folder_of
from fetcher.job.paths import BEGIN_AGAIN, SINCE, folder_for, is_job
from fetcher.model import CONTENT_COLUMNS, RECORD_COLUMNS, Page, Request
from fetcher.sinks.body_folder import BodyFolder
from fetcher.sinks.child_tables import is_companion
from fetcher.sinks.layout import Layout
from fetcher.sources.earlier import RecordFile, SelectedName, earlier_format
from fetcher.sources.stored_parts import stored_parts
from fetcher.sqlite_files import REPAIR, address, advice_about, guard
from fetcher.store import is_store_url, parse_address
from fetcher.urls import parse

__all__ = ["EarlierPages", "EarlierTable", "find_earlier", "key_of", "refuse_kinds"]

CACHE_KB = 4_096
ROWS_A_TRANSACTION = 10_000
_NOWHERE = Request(0, "")
_OWN = frozenset({
    "id", "url", "fields", "change", "checked_at", "digest", "etag", "last_modified", "error", "message",
    "redirects", "attempts", "elapsed", "waited",
})  # fmt: skip
"""Columns that are this run's own, or that may be missing of an earlier record."""

_TEXTS = ("content_type", "charset", "title", "robots", "refresh", "body_path", "etag", "last_modified", "digest")
_NUMBERS = ("length", "links")
_TABLES = """
    CREATE TABLE pages(id INTEGER PRIMARY KEY, key BLOB NOT NULL, confirmed REAL NOT NULL, page BLOB NOT NULL);
    CREATE TABLE meta(value BLOB NOT NULL)"""
_FORMAT = 1


class EarlierTable(msgspec.Struct, frozen=True):
    """What a table says of itself."""

    source: str | None
    pages: int
    unread: int
    columns: list[str]
    names: list[str]
    format: int = _FORMAT


class EarlierPages:
    """The pages of the output that ``since`` names, for a ``Fetcher`` to compare with: see ``model.EarlierRun``.

    ``since`` is a path, or a pattern of which the newest complete output counts that is none of ``outputs``. Opening it
    makes the table in ``folder`` where there is none. ``about`` says in words what there is.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        since: str,
        *,
        layout: Layout,
        outputs: Sequence[str] = (),
        max_age: float | None = None,
        bodies: BodyFolder | None = None,
    ) -> None:
        refuse_kinds(fetcher.config)
        self.max_age = max_age
        self._content = [name for name in CONTENT_COLUMNS.values() if name in layout.columns]
        self.about = ""
        self._since, self._outputs = since, outputs
        self._scheme = fetcher.config.default_scheme
        self._shard = fetcher.config.shard
        self._selected = [
            SelectedName(each.name, each.type, each.many, each.plain) for each in fetcher.reader.selected_columns
        ]
        self._makes_data = fetcher.reader.makes_data
        self._denies = fetcher.reader.denies
        self._wanted = set(layout.columns) - _OWN
        # A body is kept whole nowhere but in an output, where it may be text of another charset.
        self._stands = "body" not in layout.columns and not fetcher.config.preview
        self._bodies = None if bodies is None else bodies.path
        self._db: sqlite3.Connection | None = None

    def open(self, folder: str) -> None:
        """Open the table in ``folder``, and make it where there is none.

        Raises ``SourceError`` for an output that cannot be read, and ``LedgerError`` where there can be no table.
        """
        path = os.path.join(folder, SINCE)
        try:
            if not os.path.exists(path):
                self._make(path)
            self._db = sqlite3.connect(address(path, "ro") + "&immutable=1", uri=True, check_same_thread=False)
            guard(self._db)
            self._db.execute(f"PRAGMA cache_size=-{CACHE_KB}")
            (told,) = self._db.execute("SELECT value FROM meta").fetchone()
            table = msgspec.json.decode(told, type=EarlierTable)
            if table.format != _FORMAT:
                raise ValueError(f"format {table.format}")
        except sqlite3.Error as error:
            raise LedgerError(
                f"{path}: cannot be made or read: {error}: {advice_about(error) or BEGIN_AGAIN}"
            ) from error
        except (OSError, ValueError, TypeError) as error:
            reason = getattr(error, "strerror", None) or error
            advice = REPAIR if isinstance(error, OSError) else BEGIN_AGAIN
            raise LedgerError(f"{path}: cannot be made or read: {reason}: {advice}") from error
        self._judge(table)

    def close(self) -> None:
        """Let go of the table. Harmless twice."""
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def find(self, url: str) -> Page | None:
        """Return the page of a row, by its URL as it is asked for. The last one where there are several."""
        found = self._ask("page", url)
        if found is None:
            return None
        try:
            page = Page(_NOWHERE, **_decode(found))
            content = {name: page.content[name] for name in self._content if name in page.content}
            return msgspec.structs.replace(page, content=content)
        except (ValueError, TypeError, KeyError) as error:
            raise LedgerError(f"{SINCE} of the job is damaged: {error}: {BEGIN_AGAIN}") from None

    def confirmed(self, url: str) -> float | None:
        """Return when it was last confirmed, in seconds since the epoch."""
        found: float | None = self._ask("confirmed", url)
        return found

    def stands_for(self, page: Page) -> bool:
        """Say whether the page has all that this run would read: if not, it is asked for whole."""
        if not self._stands or page.truncated or (page.robots and self._denies(page.robots)):
            return False
        if self._bodies is None:
            return True
        return page.body_path is not None and os.path.isfile(os.path.join(self._bodies, page.body_path))

    def _ask(self, column: str, url: str) -> Any:
        if self._db is None:
            raise RuntimeError("the earlier pages are not open")
        query = f"SELECT {column} FROM pages WHERE key = ? ORDER BY id DESC LIMIT 1"  # noqa: S608  (a name of ours)
        try:
            found = self._db.execute(query, (key_of(url),)).fetchone()
        except sqlite3.Error as error:
            raise LedgerError(f"{SINCE} of the job cannot be read: {error}") from error
        return None if found is None else found[0]

    def _judge(self, table: EarlierTable) -> None:
        """See whether the earlier records can stand for those of this run."""
        if table.source is None:
            self.about = f"--since {self._since}: there is no such output that is complete, so all pages are new"
            return
        missing = sorted(self._wanted - set(table.columns) - {"data"})
        if self._makes_data:
            names = {each.name for each in self._selected}
            missing += sorted(names - set(table.names)) if names else ["data"] * ("data" not in table.columns)
        self.about = f"--since {table.source}: {table.pages:,} pages"
        if table.unread:
            self.about += f", and {table.unread:,} lines that cannot be read"
        if missing and table.pages:
            self._stands = False
            self.about += f", without {', '.join(missing[:5])}: each page is fetched whole this time"

    def _make(self, path: str) -> None:
        source = find_earlier(self._since, self._outputs)
        new = f"{path}.new"
        with suppress(FileNotFoundError):
            os.unlink(new)
        os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, PRIVATE))
        with closing(sqlite3.connect(new, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode=OFF")
            db.execute("PRAGMA synchronous=OFF")
            db.execute("PRAGMA temp_store=FILE")
            db.executescript(_TABLES)
            table = self._fill(db, source)
            db.execute("BEGIN")
            db.execute("CREATE INDEX pages_key ON pages(key)")
            db.execute("INSERT INTO meta VALUES (?)", (msgspec.json.encode(table),))
            db.execute("COMMIT")
        descriptor = os.open(new, os.O_RDWR)
        try:
            sync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(new, path)
        sync_folder_of(path)

    def _fill(self, db: sqlite3.Connection, source: str | None) -> EarlierTable:
        if source is None:
            return EarlierTable(None, 0, 0, [], [])
        file = RecordFile(source, self._selected)
        rows = self._rows(file)
        pages = 0
        more = True
        while more:
            db.execute("BEGIN")
            more = False
            for row in rows:
                db.execute("INSERT INTO pages(key, confirmed, page) VALUES (?, ?, ?)", row)
                pages += 1
                if pages % ROWS_A_TRANSACTION == 0:
                    more = True
                    break
            db.execute("COMMIT")
        columns = [name for name in file.columns if name in _KNOWN]
        wanted = {each.name for each in self._selected}
        return EarlierTable(source, pages, file.unread, columns, [name for name in file.names if name in wanted])

    def _rows(self, file: RecordFile) -> Iterator[tuple[bytes, float, bytes]]:
        for record in file.records():
            if record.get("error") is not None or not isinstance(record.get("url"), str):
                continue
            try:
                target = parse(record["url"], self._scheme)
                if self._shard is not None and not self._shard.has(target.host):
                    continue
                page = _page_of(record)
                yield key_of(target.wire), page["checked_at"], _encode(page)
            except InvalidURL:
                pass
            except (UnicodeError, OverflowError, TypeError, ValueError):
                file.unread += 1


_KNOWN = frozenset(RECORD_COLUMNS)
_encode = msgspec.msgpack.Encoder().encode


def _decode(data: bytes) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.msgpack.decode(data)
    values["headers"] = tuple((name, value) for name, value in values["headers"])
    return values


def key_of(url: str) -> bytes:
    """Return what stands for a URL without its fragment."""
    return hashlib.blake2b(url.partition("#")[0].encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _page_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes the page of a record; a value of another type than a run writes is none."""
    page: dict[str, Any] = {name: value for name in _TEXTS if isinstance(value := record.get(name), str)}
    page |= {name: value for name in _NUMBERS if isinstance(value := record.get(name), int)}
    final = record.get("final_url")
    headers = record.get("headers")
    pairs: list[tuple[str, str]] = []
    for name, value in headers.items() if isinstance(headers, Mapping) else ():
        if isinstance(value, str):
            pairs += [(name, each) for each in (value.split("\n") if name == "set-cookie" else [value])]
    return {
        **page,
        "url": final if isinstance(final, str) else "",
        "status": record.get("status") or 0,
        "bytes": record.get("bytes") or 0,
        "data": record.get("data"),
        "content": {name: record[name] for name in CONTENT_COLUMNS.values() if name in record},
        "truncated": record["truncated"],
        "fetched_at": record["fetched_at"],
        "checked_at": record["checked_at"] or record["fetched_at"],
        "headers": pairs,
    }


def refuse_kinds(config: Config) -> None:
    """Raise ``ConfigError`` for a run whose records are not such that a page can be compared."""
    if config.explode is not None:
        raise ConfigError("since: compares whole pages, and with explode a page has a line for each item")
    if config.head:
        raise ConfigError("since: compares what pages say, and with head nothing is read of them")


def find_earlier(since: str, outputs: Collection[str]) -> str | None:
    """Return the output that ``since`` names: the newest complete one of a pattern, ``None`` where there is none.

    In a store it is a prefix with parts, or one object. Raises ``ConfigError`` for one of ``outputs``, and
    ``SourceError`` where there is no file of that name, or none of ours.
    """
    if is_store_url(since):
        return _find_stored(since, outputs)
    taken = {os.path.realpath(path) for path in outputs}
    if not glob.has_magic(since) or os.path.exists(since):
        if "\0" in since or not os.path.exists(since):
            raise SourceError(f"{since!r}: no such file" if "\0" in since else f"{since}: no such file (--since)")
        if os.path.realpath(since) in taken:
            raise ConfigError(f"since: {since} is an output of this run; name that of an earlier one")
        earlier_format(since)
        return since
    found: list[tuple[float, str]] = []
    for path in glob.glob(since):
        if os.path.realpath(path) in taken or is_companion(path) or not _is_complete(path):
            continue
        with suppress(OSError, SourceError):
            earlier_format(path)
            found.append((os.stat(path).st_mtime, path))
    return max(found)[1] if found else None


def _find_stored(since: str, outputs: Collection[str]) -> str:
    """Return the output in a store, once it was seen that it is there."""
    if glob.has_magic(since):
        raise ConfigError(
            f"since: {since}: a pattern is of files here: in a store name one prefix, s3://BUCKET/PREFIX/"
        )
    place = parse_address(since, SourceError)
    for output in outputs:
        if is_store_url(output) and place.is_within(parse_address(output, SourceError)):
            raise ConfigError(f"since: {since} is an output of this run; name that of an earlier one")
    if earlier_format(since) == "parts":
        stored_parts(since)
        return since
    from fetcher.store.reading import StoreReader

    if StoreReader(since, SourceError).info() is None:
        raise SourceError(f"{since}: no such object (--since)")
    return since


def _is_complete(path: str) -> bool:
    """Say whether an output is that of a job that came to its end, or of a run without a job."""
    folder = folder_for([path])
    if path.endswith(".job") or not is_job(folder):
        return not path.endswith(".job")
    from fetcher.job.report import COMPLETE, report

    try:
        return report(folder, hosts=0).state == COMPLETE
    except (LedgerError, SinkError, ConfigError):
        return False
