"""What is in a list: its rows by host, its duplicates, and a fair sample, counted without fetching anything.

Law 3: exact, and bounded whatever the list: what is too much for memory goes to temporary files without a name.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import IO, NamedTuple

from fetcher.errors import SinkError
from fetcher.urls import Target, registrable_domain

__all__ = ["Census", "Distinct", "HostRows", "SiteRows"]

HOSTS_IN_MEMORY = 100_000
CACHE_BYTES = 16 * 1024 * 1024  # of the others that stay in memory
SAMPLE_ROWS = 100
BUCKETS = 256
SEGMENT_DIGESTS = 4_096  # of one bucket that are written at a time


class HostRows(NamedTuple):
    """A host of the list, how many rows it has, and the first of them as it would be asked for."""

    host: str
    rows: int
    example: str


class SiteRows(NamedTuple):
    """A registrable domain, and how many rows and hosts it has."""

    site: str
    rows: int
    hosts: int


class Census:
    """Counts rows as they come; ``close`` drops what was put on disk. Raises ``SinkError`` where that fails."""

    def __init__(self, *, seed: int = 1) -> None:
        self.rows = 0
        self.sample: list[Target] = []  # each row had the same chance
        self._draw = random.Random(seed)  # noqa: S311  (a sample is no secret, and two runs shall agree)
        self._memory: dict[str, tuple[int, str]] = {}
        self._database: sqlite3.Connection | None = None

    def add(self, target: Target) -> None:
        """Count a row that would be fetched."""
        self.rows += 1
        host = target.host
        known = self._memory.get(host)
        self._memory[host] = (1, target.wire) if known is None else (known[0] + 1, known[1])
        if len(self._memory) > HOSTS_IN_MEMORY:
            with _on_disk():
                self._write_out()
        if len(self.sample) < SAMPLE_ROWS:
            self.sample.append(target)
        elif (place := self._draw.randrange(self.rows)) < SAMPLE_ROWS:
            self.sample[place] = target

    def hosts(self) -> int:
        """Return how many hosts there are."""
        if self._database is None:
            return len(self._memory)
        with _on_disk():
            return int(self._all().execute("select count(*) from host").fetchone()[0])

    def rows_of(self, host: str) -> int:
        """Return how many rows a host has."""
        if self._database is None:
            return self._memory.get(host, (0, ""))[0]
        with _on_disk():
            found = self._all().execute("select rows from host where name = ?", (host,)).fetchone()
            return int(found[0]) if found is not None else 0

    def largest(self, most: int) -> list[HostRows]:
        """Return the hosts with the most rows."""
        if self._database is None:
            ordered = sorted(self._memory.items(), key=lambda item: (-item[1][0], item[0]))[:most]
            return [HostRows(host, rows, example) for host, (rows, example) in ordered]
        with _on_disk():
            found = self._all().execute("select * from host order by rows desc, name limit ?", (most,))
            return [HostRows(*row) for row in found]

    def largest_sites(self, most: int) -> list[SiteRows]:
        """Return the registrable domains with the most rows."""
        if self._database is None:
            rows, hosts = Counter[str](), Counter[str]()
            for host, (number, _) in self._memory.items():
                site = registrable_domain(host)
                rows[site] += number
                hosts[site] += 1
            ordered = sorted(rows.items(), key=lambda item: (-item[1], item[0]))[:most]
            return [SiteRows(site, number, hosts[site]) for site, number in ordered]
        with _on_disk():
            database = self._all()
            database.create_function("site", 1, registrable_domain, deterministic=True)
            found = database.execute(
                "select site(name) as site, sum(rows) as rows, count(*) from host"
                " group by 1 order by 2 desc, 1 limit ?",
                (most,),
            )
            return [SiteRows(*row) for row in found]

    def half(self) -> int:
        """Return how few hosts have half of the rows."""
        with _on_disk():
            sums = accumulate(self._counts())
            return next((number for number, rows in enumerate(sums, 1) if 2 * rows >= self.rows), 0)

    def close(self) -> None:
        """Drop it all."""
        self._memory.clear()
        if self._database is not None:
            self._database.close()
            self._database = None

    def _counts(self) -> Iterator[int]:
        if self._database is None:
            yield from sorted((rows for rows, _ in self._memory.values()), reverse=True)
        else:
            for (rows,) in self._all().execute("select rows from host order by rows desc"):
                yield rows

    def _all(self) -> sqlite3.Connection:
        self._write_out()
        assert self._database is not None
        return self._database

    def _write_out(self) -> None:
        if self._database is None:
            self._database = sqlite3.connect("", isolation_level=None)  # "": a file of its own, deleted by itself
            self._database.execute(f"pragma cache_size = -{CACHE_BYTES // 1024}")
            self._database.execute("pragma journal_mode = off")
            self._database.execute("create table host (name text primary key, rows integer, example text)")
            self._database.execute("begin")  # never committed: no other connection reads it
        self._database.executemany(
            "insert into host values (?, ?, ?) on conflict do update set rows = rows + excluded.rows",
            # In order: pages of the table are then gone through once.
            [(host, rows, example) for host, (rows, example) in sorted(self._memory.items())],
        )
        self._memory.clear()


class Distinct:
    """Counts how many different texts there are: by digests of 8 bytes, sorted into files part by part."""

    def __init__(self) -> None:
        self.added = 0
        self._buckets = [array("Q") for _ in range(BUCKETS)]
        self._segments: list[list[int]] = [[] for _ in range(BUCKETS)]
        self._file: IO[bytes] | None = None
        self._end = 0

    def add(self, text: str) -> None:
        """Take a text."""
        self.added += 1
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        bucket = self._buckets[digest[0]]
        bucket.append(int.from_bytes(digest, "little"))
        if len(bucket) >= SEGMENT_DIGESTS:
            with _on_disk():
                self._write_out(digest[0])

    def count(self) -> int:
        """Return how many of those taken are different."""
        found = 0
        for number, bucket in enumerate(self._buckets):
            everything = array("Q", bucket)
            with _on_disk():
                for place in self._segments[number]:
                    assert self._file is not None
                    self._file.seek(place)
                    everything.frombytes(self._file.read(SEGMENT_DIGESTS * 8))
            found += len(set(everything))
        return found

    def close(self) -> None:
        """Drop it all."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write_out(self, number: int) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="fetcher-", buffering=0)  # noqa: SIM115  (closed by close)
        self._file.seek(self._end)
        data = self._buckets[number].tobytes()
        if self._file.write(data) != len(data):
            raise OSError(28, "No space left on device")
        self._segments[number].append(self._end)
        self._end += len(data)
        self._buckets[number] = array("Q")


@contextmanager
def _on_disk() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SinkError(f"{tempfile.gettempdir()}: cannot count the list: {reason}") from None
