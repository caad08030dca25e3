"""Lists and parts in a real S3 server on loopback; skipped, by name, without the extra ``integration``."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fetcher import Config, Fetcher, Job, JobLocked, SinkError
from fetcher.compression import compress, decompress
from fetcher.sinks.store_parts import PartMark
from fetcher.sinks.stored_parts import StoredParts
from fetcher.stats import Stats
from tests.lab.bucket import KEY, SECRET, Bucket, missing, serving_bucket
from tests.lab.command import Ended, Running, run
from tests.lab.held_case import HeldCase
from tests.lab.server import LabServer
from tests.sweeps.store import read_part, sweep

pytestmark = [
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.filterwarnings("default"),  # theirs are not ours
]

ROWS = 60
PARTS = {"jsonl": ".jsonl.zst", "csv": ".csv.gz", "parquet": ".parquet", "warc": ".warc.gz"}


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with serving_bucket() as served:
        yield served


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread() as server:
        yield server


class Place:
    """A folder on a machine, with a list of ``ROWS``, every tenth of which is missing, and a prefix of its own."""

    def __init__(self, bucket: Bucket, lab: LabServer, folder: Path, prefix: str) -> None:
        self.bucket, self.folder, self.prefix = bucket, folder, prefix
        self.urls = [lab.url("/status/404" if row % 10 == 0 else f"/ok?n={row}") for row in range(1, ROWS + 1)]
        self.url = f"s3://{bucket.name}/{prefix}/"
        self.write()

    def write(self) -> None:
        """Write the list."""
        (self.folder / "urls.txt").write_text("".join(f"{url}\n" for url in self.urls))

    def words(self, form: str, *more: str) -> tuple[str, ...]:
        return ("crawl", "urls.txt", "-o", self.url, "-f", form, "--part-rows", "25", *more)

    def run(self, form: str, *more: str, **env: str) -> Ended:
        return run(*self.words(form, *more), folder=self.folder, env={**self.bucket.environment(), **env})

    def parts(self, form: str) -> list[str]:
        return [name for name in self.bucket.names(f"{self.prefix}/") if name.endswith(PARTS[form]) and "/" not in name]

    def records(self) -> list[dict[str, Any]]:
        """The records of all parts of jsonl, in their order."""
        found = []
        for name in self.parts("jsonl"):
            data = self.bucket.get(f"{self.prefix}/{name}")
            lines = b"".join(decompress(iter([data]), "zstd", max_block=65536)).splitlines()
            found += [json.loads(line) for line in lines]
        return found

    def elsewhere(self) -> None:
        """Go to a machine with an empty disk."""
        for path in self.folder.glob("*.job"):
            shutil.rmtree(path)


@pytest.fixture
def place(bucket: Bucket, lab: LabServer, tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    return Place(bucket, lab, tmp_path, f"{request.node.name.partition('[')[0]}-{tmp_path.name}")


def whole(records: list[dict[str, Any]]) -> bool:
    """Whether each row has one record."""
    return Counter(record["id"] for record in records) == Counter(range(1, ROWS + 1))


# Lists


def test_lists_are_read_from_a_store(place: Place, bucket: Bucket) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"url": place.urls, "n": list(range(ROWS))}), place.folder / "urls.parquet")
    csv = "url,n\n" + "".join(f"{url},{n}\n" for n, url in enumerate(place.urls))
    lines = "".join(json.dumps({"url": url, "n": n}) + "\n" for n, url in enumerate(place.urls))
    lists = {
        "urls.txt": (place.folder / "urls.txt").read_bytes(),
        "urls.csv.gz": compress(csv.encode(), "gzip"),
        "urls.jsonl.zst": compress(lines.encode(), "zstd"),
        "urls.parquet": (place.folder / "urls.parquet").read_bytes(),
    }
    for name, data in lists.items():
        bucket.put(f"{place.prefix}/{name}", data)
        out = place.folder / f"{name}.jsonl"
        ended = run("crawl", place.url + name, "-o", str(out), folder=place.folder, env=bucket.environment())
        assert ended.code == 0, ended.said
        records = [json.loads(line) for line in out.read_text().splitlines()]
        assert [row["url"] for row in sorted(records, key=lambda row: row["id"])] == place.urls
        if name != "urls.txt":
            assert {int(row["fields"]["n"]) for row in records} == set(range(ROWS))


def test_a_list_that_cannot_be_had_is_told_in_one_line(place: Place, bucket: Bucket) -> None:
    bucket.put(f"{place.prefix}/pages.sqlite", b"SQLite format 3\0")
    bucket.put(f"{place.prefix}/bad.parquet", b"PAR1 is cut")
    for url, words in [
        (f"{place.url}none.txt", "no such object"),
        ("s3://no-such-bucket/urls.txt", "there is no bucket no-such-bucket"),
        (f"{place.url}pages.sqlite", "download it"),
        (f"{place.url}bad.parquet", "is cut short"),
    ]:
        ended = run("crawl", url, folder=place.folder, env=bucket.environment())
        assert ended.code == 2, ended.said
        assert words in ended.said
        assert len(ended.said.splitlines()) == 1


def test_a_list_that_has_changed_is_told(place: Place, bucket: Bucket) -> None:
    key = f"{place.prefix}/urls.txt"
    bucket.put(key, "".join(f"{url}\n" for url in place.urls[:30]).encode())
    words = ("crawl", f"s3://{bucket.name}/{key}", "-o", "pages.jsonl")
    assert run(*words, folder=place.folder, env=bucket.environment()).code == 0
    bucket.put(key, "".join(f"{url}\n" for url in place.urls).encode())  # it grew
    grown = run(*words, folder=place.folder, env=bucket.environment())
    assert grown.code == 0
    assert "is not what it was" in grown.said
    bucket.put(key, "".join(f"{url}\n" for url in place.urls[::-1]).encode())
    changed = run(*words, folder=place.folder, env=bucket.environment())
    assert changed.code == 2
    assert "row 1 of the list is another" in changed.said


# Parts


@pytest.mark.parametrize("form", PARTS)
def test_parts_are_put_and_tried_again_and_gone_on_with_elsewhere(place: Place, form: str) -> None:
    first = place.run(form)
    assert first.code == 0, first.said
    assert place.parts(form) == [f"part-0000{number}{PARTS[form]}" for number in (1, 2, 3)]
    assert list((place.folder / f"{place.prefix}.job" / "output.0").glob("part-0000[123]*")) == []
    again = place.run(form, "--retry-failed")
    assert again.code == 0, again.said
    assert "6 that failed are tried again" in again.said
    place.elsewhere()
    elsewhere = place.run(form)
    assert elsewhere.code == 0, elsewhere.said
    assert f"the {ROWS} rows in the store" in elsewhere.said
    assert "all rows were done already" in elsewhere.said
    assert f"{ROWS} rows = 54 ok + 6 failed" in elsewhere.said
    if form != "warc":
        paths = place.bucket.fetch(f"{place.prefix}/", place.folder / "fetched", PARTS[form])
        assert sorted(number for path in paths for number in read_part(path, form)) == list(range(1, ROWS + 1))
    else:
        assert f"{place.prefix}/part-00001.cdxj".rpartition("/")[2] in place.bucket.names(f"{place.prefix}/")


def test_a_killed_run_is_gone_on_with_here_and_elsewhere(place: Place, bucket: Bucket) -> None:
    words = place.words("jsonl", "--rate", "40/s")
    for elsewhere in (False, True):
        with Running(*words, folder=place.folder, env=bucket.environment()) as running:
            many = len(place.parts("jsonl"))
            while len(place.parts("jsonl")) == many and running.process.poll() is None:
                threading.Event().wait(0.05)
            running.process.send_signal(signal.SIGKILL)
            running.process.wait()
        if elsewhere:
            place.elsewhere()
            bucket.remove(f"{place.prefix}/_job/owner")  # as half a minute does
    ended = place.run("jsonl")
    assert ended.code == 0, ended.said
    assert whole(place.records())


def test_a_retry_that_is_killed_between_two_parts_is_gone_on_with(place: Place, bucket: Bucket) -> None:
    assert place.run("jsonl").code == 0
    plan = place.folder / f"{place.prefix}.job" / "rewrite.0"
    with Running(*place.words("jsonl", "--retry-failed"), folder=place.folder, env=bucket.environment()) as running:
        while len(list(plan.glob("*.kept"))) < 3 and running.process.poll() is None:
            threading.Event().wait(0.002)
        while len(list(plan.glob("*.kept"))) == 3 and running.process.poll() is None:
            threading.Event().wait(0.002)
        running.process.send_signal(signal.SIGKILL)
        running.process.wait()
    ended = place.run("jsonl")
    assert ended.code == 0, ended.said
    assert not plan.exists()
    assert whole(place.records())
    place.elsewhere()
    assert "all rows were done already" in place.run("jsonl").said


def test_a_run_that_is_stopped_leaves_all_that_it_did_in_the_store(place: Place, bucket: Bucket) -> None:
    words = place.words("jsonl", "--rate", "20/s")
    with Running(*words, folder=place.folder, env=bucket.environment()) as running:
        while not place.parts("jsonl") and running.process.poll() is None:
            threading.Event().wait(0.05)
        running.process.send_signal(signal.SIGTERM)
        stopped = running.end()
    assert stopped.code == 143, stopped.said
    done = len(place.records())
    place.elsewhere()
    ended = place.run("jsonl")
    assert f"{done} rows are done" in ended.said
    assert whole(place.records())


def test_parts_that_are_missing_or_changed_are_told_and_written_again(place: Place, bucket: Bucket) -> None:
    assert place.run("jsonl").code == 0
    bucket.remove(f"{place.prefix}/part-00001.jsonl.zst")
    changed = f"{place.prefix}/part-00002.jsonl.zst"
    bucket.put(changed, bytes(len(bucket.get(changed))))  # of the same size
    ended = place.run("jsonl")
    assert ended.code == 0, ended.said
    assert "part-00001.jsonl.zst: is missing in the store: its 25 rows are fetched again" in ended.said
    assert "part-00002.jsonl.zst: was changed since" in ended.said
    assert whole(place.records())
    bucket.put(changed, b"x")
    place.elsewhere()
    ended = place.run("jsonl")
    assert "part-00002.jsonl.zst: is not as its sidecar says" in ended.said
    assert whole(place.records())


def test_a_part_that_is_missing_costs_its_own_rows_where_the_ledger_was_made_again_too(
    place: Place, bucket: Bucket
) -> None:
    assert place.run("jsonl").code == 0
    place.elsewhere()
    assert "all rows were done already" in place.run("jsonl").said
    bucket.remove(f"{place.prefix}/part-00001.jsonl.zst")
    ended = place.run("jsonl")
    assert "part-00001.jsonl.zst: is missing in the store: its 25 rows are fetched again" in ended.said
    assert whole(place.records())


def test_the_machine_that_comes_back_goes_by_the_store(place: Place) -> None:
    assert place.run("jsonl", "--limit", "30").code == 0
    job = place.folder / f"{place.prefix}.job"
    shutil.copytree(job, place.folder / "first")
    assert place.run("jsonl").code == 0
    shutil.rmtree(job)
    shutil.move(place.folder / "first", job)
    ended = place.run("jsonl")
    assert "the store knows of more" in ended.said
    assert "all rows were done already" in ended.said
    assert whole(place.records())


def test_a_job_that_was_changed_is_told_with_what_to_do(place: Place) -> None:
    assert place.run("jsonl").code == 0
    with closing(sqlite3.connect(place.folder / f"{place.prefix}.job" / "ledger.sqlite")) as db, db:
        db.execute("UPDATE outputs SET state = '{'")
    ended = place.run("jsonl")
    assert (ended.code, len(ended.said.splitlines())) == (1, 1), ended.said
    assert f"remove {place.prefix}.job, and the same command goes on from what is in the store" in ended.said
    place.elsewhere()  # as it says
    assert "all rows were done already" in place.run("jsonl").said


def test_another_job_at_the_same_prefix_is_refused(place: Place) -> None:
    assert place.run("jsonl").code == 0
    place.elsewhere()
    other = place.run("jsonl", "--dedupe")
    assert other.code == 2
    assert "--dedupe" in other.said
    form = place.run("csv")
    assert form.code == 2, form.said
    assert place.run("jsonl", "--dedupe", "--fresh").code == 0
    assert whole(place.records())


def test_parts_of_nobody_are_not_overwritten(place: Place, bucket: Bucket) -> None:
    bucket.put(f"{place.prefix}/part-00001.jsonl.zst", b"theirs")
    ended = place.run("jsonl")
    assert ended.code == 2
    assert "use --fresh" in ended.said
    assert bucket.get(f"{place.prefix}/part-00001.jsonl.zst") == b"theirs"


def test_uploads_that_were_left_are_aborted(place: Place, bucket: Bucket) -> None:
    for name in ("part-00009.jsonl.zst", "theirs.bin"):
        bucket.client.create_multipart_upload(Bucket=bucket.name, Key=f"{place.prefix}/{name}")
    ended = place.run("jsonl")
    assert "1 uploads that an earlier run had begun are aborted" in ended.said
    left = bucket.client.list_multipart_uploads(Bucket=bucket.name, Prefix=f"{place.prefix}/")["Uploads"]
    assert [each["Key"].rpartition("/")[2] for each in left] == ["theirs.bin"]


def test_two_runs_at_one_prefix_the_second_is_refused(place: Place, bucket: Bucket) -> None:
    with Running(*place.words("jsonl", "--rate", "1/s"), folder=place.folder, env=bucket.environment()) as running:
        while "_job/owner" not in bucket.names(f"{place.prefix}/") and running.process.poll() is None:
            threading.Event().wait(0.05)
        second = place.run("jsonl", "--job", "another")
        assert second.code == 1
        assert "another run (process" in second.said
        running.process.send_signal(signal.SIGKILL)
        running.process.wait()


def test_no_bucket_and_no_credentials_are_one_line(place: Place, bucket: Bucket) -> None:
    words = ("crawl", "urls.txt", "-f", "jsonl", "-o")
    none = run(*words, "s3://no-such-bucket/pages/", folder=place.folder, env=bucket.environment())
    assert (none.code, len(none.said.splitlines())) == (1, 1)
    assert "there is no bucket no-such-bucket" in none.said
    env = {name: value for name, value in bucket.environment().items() if "KEY" not in name}
    bare = run(*words, place.url, folder=place.folder, env=env)
    assert (bare.code, len(bare.said.splitlines())) == (1, 1), bare.said
    assert "no credentials were found" in bare.said


def test_credentials_are_nowhere(place: Place, bucket: Bucket) -> None:
    said = b""
    for more in ((), ("--retry-failed",)):
        ended = place.run("jsonl", "-vv", "--summary", "summary.json", *more)
        said += ended.out + ended.err
    bucket.remove(f"{place.prefix}/part-00001.jsonl.zst")
    said += place.run("jsonl", "-vv", "--log-format", "json").err
    said += run("report", f"{place.prefix}.job", folder=place.folder).out
    files = [path.read_bytes() for path in place.folder.rglob("*") if path.is_file()]
    objects = [bucket.get(f"{place.prefix}/{name}") for name in bucket.names(f"{place.prefix}/")]
    for secret in (KEY, SECRET):
        assert not [data for data in (said, *files, *objects) if secret.encode() in data], secret


# In one process, with less patience


@pytest.fixture
def hasty(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in bucket.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("fetcher.store.calls.PATIENCE", 2.0)


def job(place: Place, after: Any = None) -> Stats:
    """Run the job; ``after`` so many rows something is done."""

    async def crawl() -> Stats:
        config = Config.of(robots=False)
        async with (
            Fetcher(config) as fetcher,
            Job(fetcher, place.url, format="jsonl", directory=place.folder / "here.job") as opened,
        ):
            count = 0
            stream = fetcher.stream(opened.left(place.urls), stats=opened.stats, spill_folder=opened.spill_folder)
            async with stream as outcomes:
                async for outcome in outcomes:
                    await opened.write(outcome)
                    count += 1
                    if after is not None and count == after[0]:
                        after[1]()
            return opened.stats

    return asyncio.run(crawl())


@pytest.mark.usefixtures("hasty")
def test_a_connection_that_is_lost_for_good_ends_the_run_and_nothing_is_lost(place: Place, bucket: Bucket) -> None:
    with pytest.raises(SinkError, match=r"connection to the store is lost.*run the same command again"):
        job(place, (30, bucket.line.cut))
    assert place.records() == []
    bucket.line.mend()
    stats = job(place)
    assert stats.done == ROWS
    assert whole(place.records())


@pytest.mark.usefixtures("hasty")
def test_a_connection_that_comes_back_is_gone_on_with(
    place: Place, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fetcher.store.calls.PATIENCE", 60.0)

    def trouble() -> None:
        bucket.line.cut()
        threading.Timer(2.0, bucket.line.mend).start()

    assert job(place, (30, trouble)).done == ROWS
    assert whole(place.records())


@pytest.mark.usefixtures("hasty")
def test_an_owner_that_was_thought_to_be_dead_puts_nothing(place: Place, bucket: Bucket) -> None:
    def taken() -> None:
        bucket.put(f"{place.prefix}/_job/owner", b'{"token":"theirs","host":"b","process":2}')

    with pytest.raises(JobLocked, match="another run goes on"):
        job(place, (30, taken))
    assert place.parts("jsonl") == []
    assert json.loads(bucket.get(f"{place.prefix}/_job/owner"))["token"] == "theirs"
    bucket.remove(f"{place.prefix}/_job/owner")
    assert job(place).done == ROWS
    assert whole(place.records())


@pytest.mark.usefixtures("hasty")
def test_a_part_that_another_run_has_put_meanwhile_is_not_overwritten(place: Place, bucket: Bucket) -> None:
    name = f"{place.prefix}/part-00001.jsonl.zst"
    with pytest.raises(JobLocked, match="another run"):
        job(place, (30, lambda: bucket.put(name, b"theirs")))
    assert bucket.get(name) == b"theirs"


# A store that makes no object on a condition


@pytest.mark.parametrize("how", ["ignores", "refuses"])
def test_a_store_without_conditions_has_one_writer(how: str, lab: LabServer, tmp_path: Path) -> None:
    """A run that lives is not displaced, what it puts is not overwritten, and the job goes on as with any store."""
    gate = HeldCase()
    lab.add("/held", gate)
    with serving_bucket(how) as plain:
        place = Place(plain, lab, tmp_path, "pages")
        place.urls[30:] = [lab.url(f"/held?n={row}") for row in range(30, ROWS)]
        place.write()
        with Running(*place.words("jsonl"), folder=tmp_path, env=plain.environment()) as running:
            while not place.parts("jsonl") and running.process.poll() is None:
                threading.Event().wait(0.05)
            second = place.run("jsonl", "--job", "another")
            assert second.code == 1, second.said
            assert "another run (process" in second.said
            running.process.send_signal(signal.SIGKILL)
            assert "makes no object on a condition" in running.end().said
        gate.open()
        place.elsewhere()
        plain.remove("pages/_job/owner")  # as half a minute does
        ended = place.run("jsonl")
        assert ended.code == 0, ended.said
        assert whole(place.records())
        again = place.run("jsonl", "--retry-failed")
        assert again.code == 0, again.said
        assert whole(place.records())


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("how", ["ignores", "refuses"])
def test_what_another_has_put_into_a_store_without_conditions_is_seen(
    how: str, lab: LabServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_bucket(how) as plain:
        monkeypatch.setenv("AWS_ENDPOINT_URL", plain.environment()["AWS_ENDPOINT_URL"])
        name, put_part = "part-00001.jsonl.zst", StoredParts.put_part
        for prefix in ("before", "behind"):
            (tmp_path / prefix).mkdir()
        place = Place(plain, lab, tmp_path / "before", "before")
        with pytest.raises(JobLocked, match="another run"):
            job(place, (30, lambda: plain.put(f"before/{name}", b"theirs")))
        assert plain.get(f"before/{name}") == b"theirs"

        def overwritten(self: StoredParts, part: PartMark, source: str, companions: Collection[str]) -> None:
            put_part(self, part, source, companions)
            if part.number == 1:
                plain.put(f"behind/{name}", b"theirs")

        place = Place(plain, lab, tmp_path / "behind", "behind")
        with monkeypatch.context() as patched, pytest.raises(JobLocked, match="is not what was put there"):
            patched.setattr(StoredParts, "put_part", overwritten)
            job(place)
        assert job(place).done == ROWS
        assert whole(place.records())


def test_a_small_sweep(tmp_path: Path) -> None:
    swept = sweep(1, ground=tmp_path, rows=600, part_rows=50, cuts=False)
    assert (swept.lost, swept.twice, swept.unreadable, swept.troubles) == (0, 0, 0, [])
