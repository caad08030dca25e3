"""``--body`` from outside: in a column or in files, through kills, full disks and whatever a server calls its bodies.

Each command is a real process; what it wrote is read by the standard library and the codec alone.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from backports import zstd

from fetcher import Config, ConfigError, Fetcher, Job
from tests.lab.bodies import TEXTS
from tests.lab.command import Running, run
from tests.lab.desk import Desk
from tests.lab.server import LabServer
from tests.sweeps.judge import Row, judge


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread() as server:
        yield server


@pytest.fixture
def desk(lab: LabServer, tmp_path: Path) -> Desk:
    return Desk(lab, tmp_path)


def records(text: str) -> list[dict[str, Any]]:
    return sorted((json.loads(line) for line in text.splitlines()), key=lambda record: int(record["id"]))


def bodies_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def whole(desk: Desk, output: str = "pages.jsonl", folder: str = "bodies") -> None:
    """See that each record of the list is there once, and that each body is."""
    rows = [Row(url) for url in (desk.folder / "l.txt").read_text().split()]
    verdict = judge(desk.folder / output, rows, bodies=desk.folder / folder)
    assert verdict.clean, str(verdict)


# In a column


def test_a_text_is_a_text_and_anything_else_a_uri_with_its_type(desk: Desk) -> None:
    binary = f"/bytes?n=300&type={quote('image/png')}"
    desk.write(
        [*(desk.lab.url(f"/charset/{name}") for name in TEXTS), desk.lab.url(binary), desk.lab.url("/status/404")]
    )
    assert desk.crawl("--body", "inline").code == 0
    *texts, picture, failure = desk.records()
    for record, text in zip(texts, TEXTS.values(), strict=True):
        assert f"<body>{text}</body>" in record["body"]
        assert len(record["body"]) == record["length"]
    head, _, data = picture["body"].partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data) == (bytes(range(256)) * 2)[:300]
    assert (failure["error"], failure["body"]) == ("http_404", None)
    assert "body_path" not in failure


def test_a_csv_has_the_same_bodies(desk: Desk) -> None:
    desk.write([desk.lab.url("/charset/koi8-r"), desk.lab.url("/bytes?n=9")])
    assert desk.crawl("--body", "inline", to="pages.csv").code == 0
    with open(desk.folder / "pages.csv", encoding="utf-8", newline="") as table:
        found = sorted(csv.DictReader(table), key=lambda row: row["id"])
    assert TEXTS["koi8-r"] in found[0]["body"]
    assert found[1]["body"] == "data:application/octet-stream;base64,AAECAwQFBgcI"


def test_a_text_output_says_that_it_has_no_column(desk: Desk) -> None:
    ended = run("crawl", desk.lab.url("/ok"), "--body", "inline", folder=desk.folder)
    assert ended.code == 0
    assert "warning: --body inline: a text output has no columns; write to a .jsonl or .csv, or give -f" in ended.said


# In files


def test_each_page_names_its_body_and_equal_ones_are_one_file(desk: Desk) -> None:
    twice = desk.lab.url("/ok?title=one")
    desk.write(
        [twice, f"{twice}&x=2", desk.lab.url("/ok?title=two"), desk.lab.url("/bytes?n=9"), desk.lab.url("/status/404")]
    )
    assert desk.crawl("--body", "bodies").code == 0
    whole(desk)
    one, same, two, binary, failure = desk.records()
    assert one["body_path"] == same["body_path"] != two["body_path"]
    assert binary["body_path"].endswith(".bin")
    assert (failure["body_path"], failure["digest"]) == (None, None)
    assert len(bodies_in(desk.folder / "bodies")) == 3
    digest = hashlib.sha256(bytes(range(9))).hexdigest()
    assert (binary["body_path"], binary["digest"]) == (f"{digest[:2]}/{digest}.bin", f"sha256:{digest}")


@pytest.mark.parametrize(
    "hostile",
    [
        "text/../../../evil",
        "image/png/../../evil",
        "../evil",
        "text/html; name=../evil",
        "a/b.%2e%2e/evil",
        "x/\\..\\evil",
        "text/evil\x01",
    ],
)
def test_no_type_makes_a_path(hostile: str, desk: Desk) -> None:
    folder = desk.folder / "deep" / "down"
    folder.mkdir(parents=True)
    url = desk.lab.url(f"/bytes?n=9&type={quote(hostile)}")
    ended = run("crawl", url, "-f", "jsonl", "--body", "bodies", folder=folder)
    assert ended.code in (0, 3)  # a head may be refused
    found = [path.relative_to(desk.folder) for path in bodies_in(desk.folder)]
    assert all("evil" not in str(path) and path.parts[:3] == ("deep", "down", "bodies") for path in found)
    assert len(found) == (ended.code == 0)


def test_standard_output_names_bodies_that_are_there(desk: Desk) -> None:
    desk.pages(*"abc")
    ended = run("crawl", "l.txt", "-f", "jsonl", "--body", "bodies", folder=desk.folder)
    assert ended.code == 0
    found = records(ended.text)
    assert len(found) == 3
    for record in found:
        data = zstd.decompress((desk.folder / "bodies" / record["body_path"]).read_bytes())
        assert record["digest"] == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert not list((desk.folder / "bodies").glob(".*"))


def test_an_output_without_a_job_has_them_too(desk: Desk) -> None:
    desk.write([desk.lab.url(f"/ok?title={n}") for n in range(50)])
    assert run("crawl", "l.txt", "-o", "pages.csv", "--no-job", "--body", "bodies", folder=desk.folder).code == 0
    whole(desk, "pages.csv")
    assert len(bodies_in(desk.folder / "bodies")) == 50


def test_a_run_whose_reader_leaves_ends(desk: Desk) -> None:
    desk.write([desk.lab.url(f"/ok?title={n}") for n in range(2000)])
    with Running("crawl", "l.txt", "-f", "jsonl", "--body", "bodies", folder=desk.folder, reading=False) as running:
        assert running.process.stdout is not None
        running.process.stdout.close()
        assert running.end().code == 141


# Jobs


def test_a_killed_job_goes_on_and_what_it_was_writing_is_removed(desk: Desk) -> None:
    gate = desk.hold()
    desk.write([*(desk.lab.url(f"/ok?title={n}") for n in range(20)), *desk.urls("x", path="/held")])
    with Running(*desk.words("--body", "bodies"), folder=desk.folder) as crawl:
        desk.until_asked()
        desk.until_written(20, "pages.jsonl")
        crawl.send(signal.SIGKILL)
        assert crawl.end().code == -signal.SIGKILL
    gate.open()
    (incoming,) = (desk.folder / "bodies").glob(".incoming-*")
    (incoming / "torn.html.zst").write_bytes(b"to")
    assert desk.crawl("--body", "bodies").code == 0
    assert not incoming.exists()
    whole(desk)


def test_another_folder_is_refused_and_the_same_one_elsewhere_is_not(desk: Desk) -> None:
    desk.pages(*"ab")
    desk.crawl("--limit", "1", "--body", "bodies")
    ended = desk.crawl("--body", "others")
    assert ended.code == 2
    assert "--body was bodies/ when this job began, and is others/: give it as before" in ended.said
    assert not (desk.folder / "others").exists()
    ended = desk.crawl()
    assert (ended.code, "--body was bodies/ when this job began, and is none" in ended.said) == (2, True)
    (desk.folder / "moved").mkdir()
    shutil.move(desk.folder / "bodies", desk.folder / "moved" / "bodies")
    assert desk.crawl("--body", "moved/bodies").code == 0
    whole(desk, folder="moved/bodies")


def test_a_missing_folder_is_not_made_again(desk: Desk) -> None:
    desk.pages(*"ab")
    desk.crawl("--limit", "1", "--body", "bodies")
    shutil.rmtree(desk.folder / "bodies")
    ended = desk.crawl("--body", "bodies")
    assert ended.code == 1
    assert ended.said.splitlines()[-1] == (
        "fetcher: bodies: the folder of the bodies is missing: put it back, or begin again with --fresh"
    )


def test_fresh_keeps_the_files_and_a_retry_adds_to_them(desk: Desk) -> None:
    desk.write([desk.lab.url("/ok?title=one"), desk.lab.url("/flaky/body?fail=1")])
    desk.crawl("--body", "bodies")
    before = bodies_in(desk.folder / "bodies")
    assert desk.crawl("--body", "bodies", "--retry-failed").code == 0
    whole(desk)
    assert set(before) <= set(bodies_in(desk.folder / "bodies"))
    desk.write([desk.lab.url("/ok?title=two")])
    assert desk.crawl("--body", "bodies", "--fresh").code == 0
    assert set(before) < set(bodies_in(desk.folder / "bodies"))
    whole(desk)


def test_a_full_disk_is_named_and_the_job_goes_on_when_it_has_room(desk: Desk) -> None:
    from tests.test_cli_bad_input import small_disk

    desk.write([desk.lab.url(f"/ok?title={n}&size=5000") for n in range(200)])
    with small_disk(desk.folder / "disk", 400 * 1024) as disk:
        ended = desk.crawl("--body", "disk/bodies")
        assert ended.code == 1
        last = ended.said.splitlines()[-1]
        assert last.startswith("fetcher: disk/bodies/"), last
        assert last.endswith(": No space left on device"), last
        assert subprocess.run(["mount", "-o", f"remount,size={8 << 20}", str(disk)]).returncode == 0
        assert desk.crawl("--body", "disk/bodies").code == 0
        whole(desk, folder="disk/bodies")


# In Python


async def test_a_program_gives_a_job_its_folder(lab: LabServer, tmp_path: Path) -> None:
    config = Config.of(keep_body=True, robots=False)
    async with Fetcher(config) as fetcher, Job(fetcher, tmp_path / "p.jsonl", body=tmp_path / "bodies") as job:
        await job.run([lab.url("/ok?title=program")])
    (record,) = records((tmp_path / "p.jsonl").read_text())
    assert (tmp_path / "bodies" / record["body_path"]).is_file()
    with closing(sqlite3.connect(tmp_path / "p.jsonl.job" / "ledger.sqlite")) as ledger:
        assert ledger.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_job_without_bodies_to_keep_is_refused(tmp_path: Path) -> None:
    async with Fetcher(Config.of()) as fetcher:
        with pytest.raises(ConfigError, match="keep_body=True"):
            Job(fetcher, tmp_path / "p.jsonl", body=tmp_path / "bodies")
    async with Fetcher(Config.of(keep_body=True)) as fetcher:
        with pytest.raises(ConfigError, match="is the folder of the job"):
            Job(fetcher, tmp_path / "p.jsonl", body=tmp_path / "p.jsonl.job")
