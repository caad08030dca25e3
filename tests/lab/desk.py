"""Owns a folder in which jobs are run by the command line, and the stats that are held against what they leave.

Law 1: the server's log is the judge of what was fetched, and at every orderly end the output has a record for each
row that the stats call done.
"""

from __future__ import annotations

import gzip
import importlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.lab.command import Ended, as_said, run
from tests.lab.held_case import HeldCase
from tests.lab.server import LabServer

ORDERLY = (0, 3, 4, 130, 143)


class Desk:
    """A folder with lists, and the jobs that are run in it."""

    def __init__(self, lab: LabServer, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        lab.clear()

    def urls(self, *names: object, path: str = "/ok") -> list[str]:
        """Return pages by these names."""
        return [self.lab.url(f"{path}?n={name}") for name in names]

    def pages(self, *names: object, to: str = "l.txt") -> None:
        """Write a list of pages by these names."""
        self.write(self.urls(*names), to=to)

    def write(self, urls: list[str], *, to: str = "l.txt") -> None:
        """Write a list."""
        text = "".join(f"{url}\n" for url in urls).encode()
        (self.folder / to).write_bytes(gzip.compress(text) if to.endswith(".gz") else text)

    def crawl(
        self,
        *words: str,
        listed: str = "l.txt",
        to: str = "pages.jsonl",
        stdin: bytes = b"",
        env: dict[str, str] | None = None,
    ) -> Ended:
        """Run the job to its end and look at its stats and its output."""
        ended = run(*self.words(*words, listed=listed, to=to), folder=self.folder, stdin=stdin, env=env)
        if ended.code in ORDERLY:
            self.balance(ended.code, to)
        return ended

    def words(self, *words: str, listed: str = "l.txt", to: str = "pages.jsonl") -> list[str]:
        """Return the command of a job."""
        given = [listed] if listed else []
        return ["crawl", *given, "-o", to, "--retries", "0", "--summary", "s.json", *words]

    def balance(self, code: int, to: str = "pages.jsonl") -> dict[str, Any]:
        """See that the stats are balanced and that the output has what they say; return them."""
        stats = self.stats()
        done = sum(stats[key] for key in ("ok", "failed", "skipped"))
        assert stats["input"] == done + stats["pending"]
        assert stats["exit"] == code
        if code in (0, 3):
            assert (stats["pending"], stats["more"]) == (0, False)
        else:
            assert stats["pending"] or stats["more"]
        if ".jsonl" in to:
            found = self.records(to)
            assert len(found) == done
            assert sum(record["error"] is None for record in found) == stats["ok"]
        return stats

    def stats(self) -> dict[str, Any]:
        """Return the summary of the last run."""
        stats: dict[str, Any] = json.loads((self.folder / "s.json").read_text())
        return stats

    def records(self, name: str = "pages.jsonl") -> list[dict[str, Any]]:
        """Return the records in the order of their rows, each of which has one at most."""
        data = plain(self.folder / name)
        assert not data or data.endswith(b"\n"), "a record is torn"
        found = sorted((json.loads(line) for line in data.splitlines()), key=lambda record: int(record["id"]))
        ids = [record["id"] for record in found]
        assert len(ids) == len(set(ids)), f"rows with two records: {ids}"
        return found

    def fetched(self, name: str = "pages.jsonl") -> list[str]:
        """Return what the pages of the output are called, in the order of the rows."""
        return [record["url"].rpartition("=")[2] for record in self.records(name)]

    def asked(self) -> list[str]:
        """Return the names of the pages that were asked for since the last time, sorted."""
        names = [entry.local.rpartition("=")[2] for entry in self.lab.log if entry.path != "/robots.txt"]
        self.lab.clear()
        return sorted(names)

    def files(self, *, but: tuple[str, ...] = ("s.json",)) -> dict[str, bytes]:
        """Return all that lies in the folder, but for the lock, which has the number of the last process."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file() and path.name not in ("lock", *but)
        }

    def refused(self, ended: Ended, message: str, code: int) -> None:
        """See that a run ended with this message, having asked for nothing."""
        assert (ended.code, ended.said.splitlines()[-1]) == (code, f"fetcher: {as_said(message)}")
        assert self.asked() == []

    def hold(self, path: str = "/held") -> HeldCase:
        """Have a page wait behind a gate."""
        gate = HeldCase()
        self.lab.add(path, gate)
        return gate

    def until_asked(self, path: str = "/held", times: int = 1) -> None:
        """Wait until so many requests for a page have come since the log was read."""
        assert self.lab.site.stats.wait(lambda: len(self.lab.requests(path)) >= times, 60)

    def until_written(self, rows: int, to: str = "pages.jsonl") -> None:
        """Wait until the ledger knows so many rows."""
        path = self.folder / f"{to}.job" / "ledger.sqlite"

        def known() -> bool:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
                return bool(db.execute("SELECT count(*) FROM rows").fetchone()[0] >= rows)

        # No process tells when it has committed: the ledger is looked at again and again.
        end, pause = time.monotonic() + 60, threading.Event()
        while not known():
            assert time.monotonic() < end, "the batch was not committed"
            pause.wait(0.01)


def plain(path: Path) -> bytes:
    """Return the bytes of an output, unpacked."""
    data = path.read_bytes()
    if path.name.endswith(".gz"):
        return gzip.decompress(data)
    if path.name.endswith(".zst"):
        decompress: Callable[[bytes], bytes] = importlib.import_module(str(zstd())).decompress
        return decompress(data)
    return data


def zstd() -> str | None:
    """Return the module that unpacks Zstandard, if one is installed."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            importlib.import_module(name)
        except ImportError:
            continue
        return name
    return None
