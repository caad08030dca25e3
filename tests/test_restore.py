"""A job whose output is parts in a store, on a disk that is empty, or that knows less or more than the store.

The store is a dictionary behind what a library of ``fsspec`` offers; ``test_store_server.py`` has a real one.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

import pytest

from fetcher import Config, ConfigError, Fetcher, Job, Request, Response, StatusError
from fetcher.compression import compress, decompress
from fetcher.errors import LedgerError, SourceError
from fetcher.job import restore
from fetcher.job.ledger import PartsLedger
from fetcher.job.paths import LEDGER, RESTORED
from fetcher.sinks.layout import Layout
from tests.lab.open_files import open_files

URL = "s3://lab/pages/"
MISSING = "dh"


class Shelves:
    """What ``fsspec`` calls a filesystem, in memory: objects by their path."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        data = self.cat_file(path)
        return {"name": path, "size": len(data), "ETag": f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'}

    def ls(self, path: str, **_: Any) -> list[dict[str, Any]]:
        return [self.info(name) for name in self.objects if name.rpartition("/")[0] == path]

    def cat_file(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        if path not in self.objects:
            raise FileNotFoundError(path)
        return self.objects[path][start:end]

    def pipe_file(self, path: str, data: bytes, *, mode: str) -> None:
        if mode == "create" and path in self.objects:
            raise FileExistsError(path)
        self.objects[path] = data

    def put_file(self, source: str, path: str, *, mode: str, **_: Any) -> None:
        self.pipe_file(path, Path(source).read_bytes(), mode=mode)

    def rm_file(self, path: str) -> None:
        del self.objects[path]

    def call_s3(self, name: str, **_: Any) -> dict[str, Any]:
        assert name == "list_multipart_uploads"
        return {}

    # For the tests

    def part(self, number: int) -> str:
        return f"lab/pages/part-{number:05}.jsonl.zst"

    def beside(self, number: int) -> str:
        (found,) = (path for path in self.objects if path.startswith(f"lab/pages/_job/part-{number:05}"))
        return found

    def records(self) -> dict[str, str | None]:
        """The pages of all parts by their names, with their errors; no row may be there twice."""
        found: list[dict[str, Any]] = []
        for path, data in self.objects.items():
            if path.endswith(".jsonl.zst"):
                found += map(json.loads, b"".join(decompress(iter([data]), "zstd", max_block=65_536)).splitlines())
        assert len({record["id"] for record in found}) == len(found)
        return {record["url"].rpartition("/")[2]: record["error"] for record in found}


class Machine:
    """A machine with a disk of its own, and a network where some pages are missing. ``asked`` is what it asked for."""

    def __init__(self, disk: Path) -> None:
        disk.mkdir(exist_ok=True)
        self.disk = disk / "job"
        self.asked: list[str] = []

    async def __call__(self, request: Request) -> Response:
        name = request.url.rpartition("/")[2]
        self.asked.append(name)
        if name == "a":
            await asyncio.sleep(0.01)  # or nothing would show whether the ledger has the time it took
        if name in MISSING:
            raise StatusError(404)
        return Response(request, request.url, 200, (("content-type", "text/html"),), f"<title>{name}".encode())

    async def run(self, names: str, *, dedupe: bool = False, **options: Any) -> Job:
        """Run the job over these pages, two in a part, one after the other."""
        config = Config.of(retries=0, robots=False, concurrency=1, dedupe=dedupe)
        layout = Layout.of(config, part_rows=2)
        async with Fetcher(config, transport=self) as fetcher:
            async with Job(fetcher, URL, directory=self.disk, format="jsonl", layout=layout, **options) as job:
                await job.run(f"http://127.0.0.1/{name}" for name in names)
            return job

    def taken(self) -> str:
        """Return what was asked for since the last time, sorted."""
        asked, self.asked = sorted(self.asked), []
        return "".join(asked)

    def rows(self) -> list[tuple[Any, ...]]:
        """Return the rows of the ledger as they stand in it, with the words for their numbers."""
        with closing(sqlite3.connect(self.disk / LEDGER)) as db:
            return db.execute(
                "SELECT rows.id, seq, digest, codes.name, status, bytes, elapsed, hosts.name, attempts FROM rows"
                " JOIN codes ON codes.id = code JOIN hosts ON hosts.id = host ORDER BY seq"
            ).fetchall()

    def first_run(self) -> tuple[Any, ...]:
        """Return what the ledger says of its first run."""
        with closing(sqlite3.connect(self.disk / LEDGER)) as db:
            found = db.execute(
                "SELECT clean, taken, more, estimate, seconds, ok, bytes FROM runs ORDER BY id"
            ).fetchone()
        return tuple(found)


@pytest.fixture
def shelves(monkeypatch: pytest.MonkeyPatch) -> Shelves:
    shelves = Shelves()
    monkeypatch.setattr("fetcher.store.owner.LOOK_SECONDS", 0.0)
    monkeypatch.setattr("fetcher.store.calls.StoreCalls.check_installed", lambda _: None)
    monkeypatch.setattr("fetcher.store.calls._filesystem", lambda _: shelves)
    return shelves


def pages(names: str) -> dict[str, str | None]:
    return {name: "http_404" if name in MISSING else None for name in names}


@pytest.mark.parametrize("rows_a_commit", [1, 2, 5_000])
async def test_an_empty_disk_knows_all_that_is_in_the_store(
    rows_a_commit: int, shelves: Shelves, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "ROWS_A_COMMIT", rows_a_commit)
    first, second = Machine(tmp_path / "one"), Machine(tmp_path / "two")
    done = await first.run("abcde")
    assert sorted(shelves.objects)[-3:] == [shelves.part(number) for number in (1, 2, 3)]
    for names, asked in (("abcde", ""), ("abcdefgh", "fgh")):
        job = await second.run(names)
        assert second.taken() == asked
        assert job.resume_state.resumed
        assert job.resume_state.done == 5
        assert job.stats.pending == 0
        if not asked:
            assert second.rows() == first.rows()
            assert second.first_run() == (
                1,
                5,
                1,
                None,
                0.0,
                4,
                done.stats.bytes,
            )  # as a run that did not read the list to its end
            assert (job.stats.ok, job.stats.failed, job.stats.bytes) == (4, 1, done.stats.bytes)
            assert dict(job.stats.codes) == {"http_404": 1}
    assert shelves.records() == pages("abcdefgh")
    assert [row[0] for row in second.rows()] == list(range(1, 9))
    assert [path.name for path in second.disk.iterdir() if path.name.startswith(LEDGER)] == [LEDGER]


async def test_what_was_left_of_a_ledger_that_was_being_made_is_taken_away(shelves: Shelves, tmp_path: Path) -> None:
    await Machine(tmp_path / "one").run("abcde")
    other = Machine(tmp_path / "two")
    other.disk.mkdir()
    for end in ("", "-wal", "-shm", ".new"):
        other.disk.joinpath(f"{RESTORED}{end}").write_bytes(b"half of one")
    job = await other.run("abcde")
    assert (other.taken(), job.resume_state.done) == ("", 5)
    assert [path.name for path in other.disk.iterdir() if path.name.startswith(RESTORED)] == []


async def test_a_job_whose_parts_are_gone_is_one_of_which_nothing_is_known(shelves: Shelves, tmp_path: Path) -> None:
    await Machine(tmp_path / "one").run("abcde")
    shelves.objects = {path: data for path, data in shelves.objects.items() if "part-" not in path}
    other = Machine(tmp_path / "two")
    await other.run("abcde")
    assert other.taken() == "abcde"
    assert other.first_run() == (1, 0, 1, None, 0.0, 0, 0)  # its list was not read to its end either


async def test_where_there_is_no_job_in_the_store_one_begins(shelves: Shelves, tmp_path: Path) -> None:
    job = await Machine(tmp_path).run("ab")
    assert not job.resume_state.resumed
    assert shelves.records() == pages("ab")


def cut(data: bytes) -> bytes:
    """A sidecar whose last row is missing."""
    lines = b"".join(decompress(iter([data]), "gzip", max_block=65_536)).splitlines(keepends=True)
    return compress(b"".join(lines[:-1]), "gzip")


async def test_a_part_that_is_not_as_it_was_put_is_fetched_again(
    shelves: Shelves, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await Machine(tmp_path / "one").run("abcde")
    whole = dict(shelves.objects)
    for number, (path, spoiled, asked) in enumerate([
        (shelves.part(1), b"x", "ab"),
        (shelves.part(2), b"y" * len(shelves.objects[shelves.part(2)]), "cd"),
        (shelves.beside(3), b"no sidecar", "e"),
    ]):  # fmt: skip
        shelves.objects = {**whole, path: spoiled}
        other = Machine(tmp_path / f"other-{number}")
        await other.run("abcde")
        assert other.taken() == asked
        assert shelves.records() == pages("abcde")
    shelves.objects = {**whole, shelves.beside(2): cut(whole[shelves.beside(2)])}
    left: list[PartsLedger] = []
    monkeypatch.setattr(PartsLedger, "abandon", lambda ledger: left.append(ledger))
    with pytest.raises(LedgerError, match=r"what stands beside part 2 is damaged \(.*remove that part"):
        await Machine(tmp_path / "last").run("abcde")
    monkeypatch.undo()
    assert left, "its file stays open"
    for ledger in left:
        ledger.abandon()


async def test_parts_that_went_are_fetched_again_here_too(shelves: Shelves, tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    await machine.run("abcde")
    machine.taken()
    del shelves.objects[shelves.part(2)]
    job = await machine.run("abcde")
    assert (machine.taken(), job.resume_state.done) == ("cd", 3)
    assert (job.stats.ok, job.stats.failed, job.stats.pending) == (4, 1, 0)
    assert shelves.records() == pages("abcde")
    assert sorted(row[0] for row in machine.rows()) == [1, 2, 3, 4, 5]
    await machine.run("abcde")
    assert machine.taken() == ""


async def test_a_disk_that_knows_less_than_the_store_goes_by_the_store(shelves: Shelves, tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    await machine.run("ab")
    shutil.copytree(machine.disk, tmp_path / "before")
    await machine.run("abcde")
    shutil.rmtree(machine.disk)
    (tmp_path / "before").rename(machine.disk)
    machine.taken()
    job = await machine.run("abcde")
    assert (machine.taken(), job.resume_state.done, len(machine.rows())) == ("", 5, 5)
    assert shelves.records() == pages("abcde")


async def test_what_must_not_change_is_in_the_store_as_well(shelves: Shelves, tmp_path: Path) -> None:
    await Machine(tmp_path / "one").run("ab")
    before = dict(shelves.objects)
    other = Machine(tmp_path / "two")
    with pytest.raises(ConfigError, match="--dedupe was off"):
        await other.run("ab", dedupe=True)
    assert shelves.objects == before
    assert not (other.disk / LEDGER).exists()
    await other.run("abc")
    assert other.taken() == "c"


async def test_failures_in_parts_are_tried_again(
    shelves: Shelves, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path)
    await machine.run("abcde")
    machine.taken()
    monkeypatch.setattr("tests.test_restore.MISSING", "")
    job = await machine.run("abcde", retry=["failed"])
    assert (machine.taken(), job.resume_state.retried, job.stats.ok) == ("d", 1, 5)
    assert shelves.records() == dict.fromkeys("abcde")
    elsewhere = Machine(tmp_path / "elsewhere")
    job = await elsewhere.run("abcde")
    assert (elsewhere.taken(), job.stats.ok) == ("", 5)


async def test_a_list_in_a_store_that_is_another_by_now_is_told(
    shelves: Shelves, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def told(*inputs: str) -> list[str]:
        config = Config.of(retries=0, robots=False)
        caplog.clear()
        async with Fetcher(config, transport=Machine(tmp_path)) as fetcher:
            async with Job(fetcher, tmp_path / "pages.jsonl", inputs=inputs) as job:
                await job.run(["http://127.0.0.1/a"])
        return [record.getMessage() for record in caplog.records if record.name == "fetcher.store"]

    one, two = "s3://lab/one.txt", "s3://lab/two.txt"
    with pytest.raises(SourceError, match=r"s3://lab/one\.txt: no such object"):
        await told("urls.txt", one)
    shelves.objects |= {"lab/one.txt": b"a", "lab/two.txt": b"b"}
    assert await told("urls.txt", one, two) == []
    assert await told("urls.txt", one, two) == []
    shelves.objects["lab/two.txt"] = b"b and more"
    was = "is not what it was when this job began (1 bytes, now 10)"
    assert await told("urls.txt", one, two) == [f"{two}: {was}: each row that was fetched is held against it"]
    assert await told("urls.txt", one, two) == []


@pytest.mark.usefixtures("shelves")
@pytest.mark.parametrize(
    ("outputs", "options", "job", "message"),
    [
        ([URL, "pages.jsonl"], {}, {}, "an output in a store is a job's only one"),
        ([URL], {"follow": True}, {}, r"rows that are found \(--follow\)"),
        ([URL], {"keep_body": True}, {"body": "bodies"}, "bodies in a folder stay on this machine"),
    ],
)
async def test_what_does_not_go_together_with_a_store_is_refused_by_the_job(
    outputs: list[str], options: dict[str, Any], job: dict[str, Any], message: str, tmp_path: Path
) -> None:
    async with Fetcher(Config.of(robots=False, **options), transport=Machine(tmp_path)) as fetcher:
        with pytest.raises(ConfigError, match=message):
            Job(fetcher, *outputs, directory=tmp_path / "job", format="jsonl", **job)
    assert list(tmp_path.iterdir()) == []


async def test_a_ledger_that_cannot_be_taken_up_is_not_left_open(
    shelves: Shelves, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path / "one")
    await machine.run("ab")

    def broken(*_: object) -> NoReturn:
        assert open_files(machine.disk) != []
        raise LedgerError("it is not what it was")

    monkeypatch.setattr(restore, "_attached", broken)
    with pytest.raises(LedgerError, match="not what it was"):
        await machine.run("abc")
    assert open_files(machine.disk) == []
