"""What goes on, is retried, begins again or has grown, with each option that changes what stands in an output.

One table: CONTRIBUTING.md shows it, and each of its cells is a case here. ``--shard`` has its row in ``test_shard.py``.
"""

from __future__ import annotations

import csv
import io
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.lab.command import Ended, Running, run
from tests.lab.desk import Desk, plain
from tests.lab.server import LabServer
from tests.lab.versioned import VersionedSite

NAMES = [f"p{number}" for number in range(8)]
HELD = ["u", "v"]
ILL = ["p2", "p5"]


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread() as server:
        yield server


class Table(NamedTuple):
    """A folder with a list, the site behind it, and the option that is tried."""

    desk: Desk
    site: VersionedSite
    words: list[str]
    judge: Callable[[Desk, list[str], list[str]], None]

    def write(self, names: list[str], held: list[str]) -> None:
        """Write the list: pages that answer, then those behind the gate."""
        self.desk.write([*self.desk.urls(*names, path="/versioned"), *self.desk.urls(*held, path="/held")])

    def command(self, *more: str) -> list[str]:
        """Return the command, the same each time."""
        return self.desk.words(*self.words, *more)

    def crawl(self, *more: str) -> Ended:
        """Run it to its end."""
        return run(*self.command(*more), folder=self.desk.folder)

    def judged(self, names: list[str], *, late: list[str] | None = None) -> None:
        """See that each row has what it must have; ``late`` rows were written by a retry, behind all others."""
        stats = self.desk.stats()
        assert (stats["input"], stats["ok"], stats["pending"], stats["more"]) == (len(names), len(names), 0, False)
        self.judge(self.desk, names, late or [])


def lines_of(desk: Desk, name: str = "pages.jsonl") -> list[dict[str, Any]]:
    data = plain(desk.folder / name)
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


def name_of(record: dict[str, Any]) -> str:
    return str(record["url"]).rpartition("=")[2]


def once_each(desk: Desk, names: list[str], _: list[str]) -> None:
    assert desk.fetched() == names
    assert [record["id"] for record in desk.records()] == list(range(1, len(names) + 1))


def compared(desk: Desk, names: list[str], late: list[str]) -> None:
    once_each(desk, names, late)
    for record in desk.records():
        known = name_of(record) in (*NAMES, *HELD)
        assert record["change"] == ("unchanged" if known else "new"), name_of(record)


def item_by_item(desk: Desk, names: list[str], _: list[str]) -> None:
    found = [(line["id"], line["item"], line["data"] and line["data"]["mark"]) for line in lines_of(desk)]
    wanted = [
        (row, item, mark)
        for row, name in enumerate(names, 1)
        for item, mark in ([(1, "x"), (2, name)] if name not in HELD else [(None, None)])
    ]
    assert [each for each in sorted(found, key=str) if each[1] is not None] == sorted(
        (each for each in wanted if each[1] is not None), key=str
    )
    assert len(found) == len(wanted)


def with_bodies(desk: Desk, names: list[str], late: list[str]) -> None:
    once_each(desk, names, late)
    for record in desk.records():
        assert (desk.folder / "bodies" / record["body_path"]).stat().st_size > 0


def in_order(desk: Desk, names: list[str], late: list[str]) -> None:
    once_each(desk, names, late)
    found = [name_of(line) for line in lines_of(desk)]
    assert found == [*(name for name in names if name not in late), *late]


def in_both(desk: Desk, names: list[str], late: list[str]) -> None:
    once_each(desk, names, late)
    rows = list(csv.DictReader(io.StringIO(plain(desk.folder / "second.csv.gz").decode(), newline="")))
    assert [(row["id"], row["digest"]) for row in rows] == [
        (str(line["id"]), line["digest"]) for line in lines_of(desk)
    ]


OPTIONS: dict[str, tuple[list[str], Callable[[Desk, list[str], list[str]], None]]] = {
    "--since": (["--since", "old.jsonl"], compared),
    "--explode": (["--select", "mark[]=i", "--explode", "mark"], item_by_item),
    "--body": (["--body", "bodies"], with_bodies),
    "--ordered": (["--ordered"], in_order),
    "several -o": (["-o", "second.csv.gz"], in_both),
}


@pytest.fixture(params=OPTIONS)
def table(request: pytest.FixtureRequest, lab: LabServer, tmp_path: Path) -> Table:
    desk = Desk(lab, tmp_path)
    site = VersionedSite(*NAMES, *HELD, "n0", "n1")
    desk.lab.site.own["", "/versioned"] = site
    words, judge = OPTIONS[request.param]
    if request.param == "--since":
        desk.lab.add("/held", site)
        table = Table(desk, site, [], judge)
        table.write(NAMES, HELD)
        assert run(*desk.words(to="old.jsonl"), folder=tmp_path).code == 0
        desk.asked()
    return Table(desk, site, words, judge)


def test_resume(table: Table) -> None:
    """Killed with two rows under way: what is done stays, what is not is fetched."""
    gate = table.desk.hold()
    table.write(NAMES, HELD)
    with Running(*table.command(), folder=table.desk.folder) as running:
        table.desk.until_asked(times=2)
        table.desk.until_written(len(NAMES))
        running.send(signal.SIGKILL)
        running.end()
    table.desk.asked()
    gate.open()
    if "--since" in table.words:
        table.desk.lab.add("/held", table.site)
    ended = table.crawl()
    assert ended.code == 0, ended.said
    assert table.desk.asked() == HELD
    table.judged([*NAMES, *HELD])


def test_retry_failed(table: Table) -> None:
    """Two rows fail, and succeed the second time: their records are replaced, and written behind the others."""
    for name in ILL:
        table.site.versions[name] = None
    table.write(NAMES, [])
    assert table.crawl().code == 0
    assert table.desk.stats()["codes"] == {"http_404": 2}
    for name in ILL:
        table.site.versions[name] = 1
    table.desk.asked()
    ended = table.crawl("--retry-failed")
    assert ended.code == 0, ended.said
    assert table.desk.asked() == ILL
    table.judged(NAMES, late=ILL)


def test_fresh(table: Table) -> None:
    """Begun again: each row is asked once more, and no record of the first run is left (a body's file may be)."""
    table.write([*NAMES, "n0"], [])
    assert table.crawl().code == 0
    table.write(NAMES, [])
    assert table.crawl().code == 2, "a list that has lost a row is another"
    table.desk.asked()
    ended = table.crawl("--fresh")
    assert ended.code == 0, ended.said
    assert table.desk.asked() == NAMES
    table.judged(NAMES)


def test_grown_list(table: Table) -> None:
    """The list has two rows more at its end: they alone are fetched."""
    table.write(NAMES, [])
    assert table.crawl().code == 0
    table.desk.asked()
    table.write([*NAMES, "n0", "n1"], [])
    ended = table.crawl()
    assert ended.code == 0, ended.said
    assert table.desk.asked() == ["n0", "n1"]
    table.judged([*NAMES, "n0", "n1"])
