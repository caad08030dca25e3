"""An output in a store with each option that changes what stands in it, on a real S3 server; CONTRIBUTING.md has the table.

A job is killed and gone on with, here and by a machine with an empty disk; it retries, grows, and begins again. What
does not go together is refused before the first request. Skipped, by name, without the extra ``test-store``.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fetcher.buckets import Shard
from fetcher.compression import decompress
from tests.lab.bucket import Bucket, missing, serving_bucket
from tests.lab.command import Ended, Running, run
from tests.lab.held_case import HeldCase
from tests.lab.server import LabServer
from tests.lab.versioned import VersionedSite

pytestmark = [
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.filterwarnings("default"),  # theirs are not ours
]

HOSTS = 6
NAMES = [f"p{number}" for number in range(24)]
HELD = ["u", "v"]
ILL = ["p2", "p13"]
SUFFIXES = {"jsonl": ".jsonl.zst", "csv": ".csv.gz", "parquet": ".parquet", "warc": ".warc.gz"}
ANOTHER = "another each time"
OLD = "the earlier output in the store"
NUMBERS = cycle("231")
DEADLINE = 60.0


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with serving_bucket() as served:
        yield served


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread(hosts=HOSTS) as server:
        yield server


class Depot:
    """A folder on a machine with a list, the site behind it, and a prefix of its own with parts of five rows."""

    def __init__(self, bucket: Bucket, lab: LabServer, folder: Path, option: Option) -> None:
        self.bucket, self.lab, self.folder, self.option = bucket, lab, folder, option
        self.prefix = f"{folder.name}/pages"
        self.url = f"s3://{bucket.name}/{self.prefix}/"
        self.old = f"s3://{bucket.name}/{folder.name}/old/"
        self.site = VersionedSite(*NAMES, *HELD, "n0", "n1")
        lab.clear()
        lab.site.own["", "/versioned"] = self.site

    def url_of(self, name: str) -> str:
        """Return the URL of a page: each host has some."""
        number = (NAMES + HELD).index(name) if name in NAMES + HELD else len(name)
        return self.lab.url(f"/{'held' if name in HELD else 'versioned'}?n={name}", 1 + number % HOSTS)

    def write(self, names: list[str]) -> None:
        """Write the list."""
        (self.folder / "urls.txt").write_text("".join(f"{self.url_of(name)}\n" for name in names))

    def command(self, *more: str) -> list[str]:
        """Return the command, the same each time but for what may change."""
        words = [next(NUMBERS) if word == ANOTHER else self.old if word == OLD else word for word in self.option.words]
        where = ["-o", self.url, "-f", self.option.form, "--part-rows", "5"]
        return ["crawl", "urls.txt", *where, "--retries", "0", "--summary", "s.json", *words, *more]

    def crawl(self, *more: str) -> Ended:
        """Run it to its end."""
        return self.run(*self.command(*more))

    def run(self, *words: str) -> Ended:
        """Run a command that reaches the store."""
        return run(*words, folder=self.folder, env=self.bucket.environment())

    def elsewhere(self) -> None:
        """Go to a machine with an empty disk, half a minute later."""
        for path in self.folder.glob("*.job"):
            shutil.rmtree(path)
        if "_job/owner" in self.bucket.names(f"{self.prefix}/"):
            self.bucket.remove(f"{self.prefix}/_job/owner")

    def asked(self) -> list[str]:
        """Return the names of the pages that were asked for since the last time, sorted."""
        names = [entry.local.rpartition("=")[2] for entry in self.lab.log]
        self.lab.clear()
        return sorted(names)

    def parts(self) -> list[str]:
        """Return the names of the parts."""
        names = self.bucket.names(f"{self.prefix}/")
        return [name for name in names if name.endswith(SUFFIXES[self.option.form]) and "/" not in name]

    def records(self) -> list[dict[str, Any]]:
        """Return the records of all parts, in their order."""
        found = []
        for name in self.parts():
            found += _read(self.bucket.get(f"{self.prefix}/{name}"), self.option.form)
        return found

    def judged(self, names: list[str]) -> None:
        """See that each row of the list has what it must have, and that the books are balanced."""
        stats = json.loads((self.folder / "s.json").read_text())
        names = [name for name in names if self.option.has(self.url_of(name))]
        assert (stats["input"], stats["ok"], stats["pending"]) == (len(names), len(names), 0)
        self.option.judge(self.records(), names)

    def has(self, names: list[str]) -> list[str]:
        """Return those of these names that the run has to fetch, sorted."""
        return sorted(name for name in names if self.option.has(self.url_of(name)))


def _read(data: bytes, form: str) -> list[dict[str, Any]]:
    if form == "parquet":
        import pyarrow as pa
        from pyarrow import parquet

        rows: list[dict[str, Any]] = parquet.read_table(pa.BufferReader(data)).to_pylist()
        return rows
    plain = b"".join(decompress(iter([data]), "zstd" if form == "jsonl" else "gzip", max_block=65536))
    if form == "csv":
        return list(csv.DictReader(io.StringIO(plain.decode(), newline="")))
    return [json.loads(line) for line in plain.splitlines()]


def name_of(record: dict[str, Any]) -> str:
    return str(record["url"]).rpartition("=")[2]


def once_each(records: list[dict[str, Any]], names: list[str]) -> None:
    assert sorted(map(name_of, records)) == sorted(names)
    assert len({record["id"] for record in records}) == len(records)


def compared(records: list[dict[str, Any]], names: list[str]) -> None:
    once_each(records, names)
    assert {name_of(record): record["change"] for record in records} == {
        name: "new" if name in ("n0", "n1") else "unchanged" for name in names
    }


def item_by_item(records: list[dict[str, Any]], names: list[str]) -> None:
    found = []
    for record in records:
        mark = record["data"] and record["data"]["mark"] if isinstance(record.get("data"), dict) else record.get("mark")
        found.append((name_of(record), str(record["item"] or ""), mark or ""))
    wanted = [
        line for name in names for line in ([(name, "", "")] if name in HELD else [(name, "1", "x"), (name, "2", name)])
    ]
    assert sorted(found) == sorted(wanted)


def in_order(records: list[dict[str, Any]], names: list[str]) -> None:
    once_each(records, names)
    order = [name_of(record) for record in records]
    late = [name for name in ILL if order.index(name) > order.index("p23")]  # a retried row stands behind the others
    assert [name for name in order if name not in late] == [name for name in names if name not in late]


class Option(NamedTuple):
    """What is given with the output, and how its records are judged."""

    words: tuple[str, ...] = ()
    judge: Callable[[list[dict[str, Any]], list[str]], None] = once_each
    form: str = "jsonl"
    shard: Shard | None = None

    def has(self, url: str) -> bool:
        """Say whether a URL is one of the run's."""
        return self.shard is None or self.shard.has(url.split("/")[2].partition(":")[0])


EXPLODE = ("--select", "mark[]=i", "--explode", "mark")
OPTIONS = {
    "alone": Option(form="parquet"),
    "--since FILE": Option(("--since", "old.jsonl"), compared),
    "--since STORE": Option(("--since", OLD), compared, "csv"),
    "--explode": Option(EXPLODE, item_by_item),
    "--explode, csv": Option(EXPLODE, item_by_item, "csv"),
    "--explode, parquet": Option(EXPLODE, item_by_item, "parquet"),
    "--ordered": Option(("--ordered",), in_order),
    "--workers": Option(("--workers", ANOTHER)),
    "--shard": Option(("--shard", "2/2"), shard=Shard(2, 2)),
}


@pytest.fixture(params=OPTIONS)
def depot(request: pytest.FixtureRequest, bucket: Bucket, lab: LabServer, tmp_path: Path) -> Depot:
    depot = Depot(bucket, lab, tmp_path, OPTIONS[request.param])
    if "--since" in depot.option.words:
        lab.add("/held", depot.site)
        depot.write([*NAMES, *HELD])
        words = ["-o", "old.jsonl"] if OLD not in depot.option.words else ["-o", depot.old, "-f", "parquet"]
        assert depot.run("crawl", "urls.txt", *words, "--part-rows", "5").code == 0
        lab.clear()
    return depot


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_a_kill(depot: Depot, where: str) -> None:
    """What stands in the store is not fetched again; here, nor is what the disk has."""
    gate = HeldCase()
    depot.lab.add("/held", gate)
    depot.write([*NAMES, *HELD])
    many = len(depot.has(NAMES))
    with Running(*depot.command(), folder=depot.folder, env=depot.bucket.environment()) as running:
        until(lambda: len(depot.parts()) == many // 5)
        until(lambda: rows_of(depot.folder / "pages.job") == many)
        running.send(signal.SIGKILL)
        running.end()
    stored = {name_of(record) for record in depot.records()}
    assert len(stored) == many // 5 * 5
    depot.asked()
    gate.open()
    if "--since" in depot.option.words:
        depot.lab.add("/held", depot.site)
    if where == "elsewhere":
        depot.elsewhere()
    ended = depot.crawl()
    assert ended.code == 0, ended.said
    again = HELD if where == "here" else [name for name in [*NAMES, *HELD] if name not in stored]
    assert depot.asked() == depot.has(again)
    depot.judged([*NAMES, *HELD])


def test_a_retry_a_grown_list_and_a_fresh_start(depot: Depot) -> None:
    """Each time those rows alone are fetched; an empty disk knows it all, and of what is begun again nothing is left."""
    for name in ILL:
        depot.site.versions[name] = None
    depot.write(NAMES)
    assert depot.crawl().code == 0
    for name in ILL:
        depot.site.versions[name] = 1
    depot.asked()
    ended = depot.crawl("--retry-failed")
    assert ended.code == 0, ended.said
    assert depot.asked() == depot.has(ILL)
    depot.judged(NAMES)
    grown = [*NAMES, "n0", "n1"]
    depot.write(grown)
    ended = depot.crawl()
    assert ended.code == 0, ended.said
    assert depot.asked() == depot.has(["n0", "n1"])
    depot.judged(grown)
    depot.elsewhere()
    ended = depot.crawl()
    assert "all rows were done already" in ended.said
    assert depot.asked() == []
    depot.judged(grown)
    depot.write(NAMES)
    ended = depot.crawl("--fresh")
    assert ended.code == 0, ended.said
    assert depot.asked() == depot.has(NAMES)
    depot.judged(NAMES)


# What has no row of its own in the table


def alone(bucket: Bucket, lab: LabServer, folder: Path, *words: str, form: str = "jsonl") -> Depot:
    depot = Depot(bucket, lab, folder, Option(words, form=form))
    depot.write(NAMES)
    return depot


@pytest.mark.parametrize("form", ["jsonl", "parquet", "csv", "warc"])
def test_an_earlier_output_in_a_store_is_read_in_each_format(
    form: str, bucket: Bucket, lab: LabServer, tmp_path: Path
) -> None:
    """Pages that have not changed are told by 304, and what has changed is counted by the report, out of the store."""
    depot = alone(bucket, lab, tmp_path, "--since", OLD)
    assert depot.run("crawl", "urls.txt", "-o", depot.old, "-f", form, "--part-rows", "5").code == 0
    depot.site.versions["p3"] = 2
    depot.site.told.clear()
    ended = depot.crawl()
    assert ended.code == 0, ended.said
    assert depot.site.told == {304: 23, 200: 1}
    assert {name_of(record) for record in depot.records() if record["change"] == "changed"} == {"p3"}
    told = json.loads(depot.run("report", "pages.job", "--changes", "--json").text)
    assert (told["counts"]["changed"], told["counts"]["unchanged"], told["unlisted"]) == (1, 23, 0)
    one = depot.run("crawl", "urls.txt", "-o", "one.jsonl", "--since", f"{depot.old}part-00001{SUFFIXES[form]}")
    assert one.code == 0, one.said
    assert "19 new" in one.said


def test_pages_of_an_archive_are_read_again_into_a_store(bucket: Bucket, lab: LabServer, tmp_path: Path) -> None:
    depot = alone(bucket, lab, tmp_path)
    assert run("crawl", "urls.txt", "-o", "pages.warc.gz", folder=tmp_path).code == 0
    words = ("extract", "pages.warc.gz", "-o", depot.url, "-f", "jsonl", "--part-rows", "5", "--select", "mark[]=i")
    for more in ((), ("--workers", "2", "--fresh")):
        ended = depot.run(*words, *more)
        assert ended.code == 0, ended.said
        once_each(depot.records(), NAMES)
        assert {record["data"]["mark"][1] for record in depot.records()} == set(NAMES)
        depot.elsewhere()
        assert "all rows were done already" in depot.run(*words).said


def test_a_report_reads_a_job_whose_parts_are_in_a_store(bucket: Bucket, lab: LabServer, tmp_path: Path) -> None:
    depot = alone(bucket, lab, tmp_path)
    depot.site.versions["p17"] = None
    assert depot.crawl().code == 0
    told = json.loads(depot.run("report", "pages.job", "--json").text)
    size = sum(len(bucket.get(f"{depot.prefix}/{name}")) for name in depot.parts())
    assert [(each["path"], each["position"]) for each in told["outputs"]] == [(depot.url, size)]
    assert depot.run("report", "pages.job", "--html", "r.html").code == 0
    page = (tmp_path / "r.html").read_text()
    assert depot.url in page
    assert depot.url_of("p17").partition("?")[2] in page, "the URL of a failure stands in the store alone"


def test_a_live_page_shows_such_a_run(bucket: Bucket, lab: LabServer, tmp_path: Path) -> None:
    depot = alone(bucket, lab, tmp_path, "--live-at", "0", "--verify")
    ended = depot.crawl()
    assert ended.code == 0, ended.said
    assert "http://127.0.0.1:" in ended.said
    depot.judged(NAMES)


REFUSED: dict[str, tuple[list[str], str]] = {
    "--follow": (["--follow"], "leave out --follow, or write to a folder here"),
    "--body DIR": (["--body", "bodies"], "keep them in the parts, with --body inline or -f warc"),
    "several -o": (["-o", "second.jsonl"], "write the others by a run of their own"),
    "--no-job": (["--no-job"], "leave out --no-job"),
    "--since, a pattern": (["--since", "s3://lab/old-*/"], "in a store name one prefix"),
    "--since, its own": (["--since", "OUTPUT"], "is an output of this run; name that of an earlier one"),
    "--since, nothing": (["--since", "s3://lab/nothing/"], "name the prefix that -o named"),
    "--since, no object": (["--since", "s3://lab/nothing.jsonl"], "no such object"),
    "--since, --explode": (["--since", "s3://lab/nothing/", *EXPLODE], "with explode"),
    "--with links": (["--with", "links", "-f", "parquet"], "write jsonl, or leave them out"),
    "a list under it": (["OUTPUTurls.txt", "--fresh"], "write to another prefix"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_go_together_is_refused(what: str, bucket: Bucket, lab: LabServer, tmp_path: Path) -> None:
    """Before the first request, in one line that says what to do, and nothing in the store is touched."""
    depot = alone(bucket, lab, tmp_path)
    bucket.put(f"{depot.prefix}/urls.txt", (tmp_path / "urls.txt").read_bytes())
    words, said = REFUSED[what]
    ended = depot.crawl(*(word.replace("OUTPUT", depot.url) for word in words))
    assert ended.code == 2, ended.said
    assert said in ended.said
    assert len(ended.said.splitlines()) == 1
    assert depot.asked() == []
    assert bucket.names(f"{depot.prefix}/") == ["urls.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["urls.txt"]


def test_pages_are_not_read_again_out_of_a_store(bucket: Bucket, lab: LabServer, tmp_path: Path) -> None:
    ended = alone(bucket, lab, tmp_path).run("extract", "s3://lab/pages.warc.gz", "-o", "again.jsonl")
    assert ended.code == 2
    assert "download it, and give the file" in ended.said


def until(there: Callable[[], bool]) -> None:
    """Wait for what another process does, of which nobody tells."""
    end, pause = time.monotonic() + DEADLINE, threading.Event()
    while not there():
        assert time.monotonic() < end, "it did not come"
        pause.wait(0.02)


def rows_of(job: Path) -> int:
    """Return how many rows a job's ledger knows."""
    with closing(sqlite3.connect(f"file:{job / 'ledger.sqlite'}?mode=ro", uri=True)) as db:
        return int(db.execute("SELECT count(*) FROM rows").fetchone()[0])
