"""What goes on, is retried, begins again or has grown, with each option that changes what stands in an output.

One table: CONTRIBUTING.md shows it, and each of its cells is a case here. ``--shard`` has its row in ``test_shard.py``.
``--follow`` has a row, and stands in for the list in all others but ``--ordered``, which is refused with it.
"""

from __future__ import annotations

import csv
import io
import json
import signal
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fetcher.found.store import LISTED_IDS
from tests.lab.command import Ended, Running, run
from tests.lab.desk import Desk, plain
from tests.lab.held_case import HeldCase
from tests.lab.server import LabServer
from tests.lab.versioned import VersionedSite

NAMES = [f"p{number}" for number in range(8)]
HELD = ["u", "v"]
ILL = ["p2", "p5"]
ANOTHER = "another each time"
NUMBERS = cycle("3124")


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
        """Return the command, the same each time but for what may change."""
        words = [next(NUMBERS) if word == ANOTHER else word for word in self.words]
        return self.desk.words(*words, *more)

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
    "--workers": (["--workers", ANOTHER], once_each),
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


# Links in place of a list

LINKS = {
    "p0": ["p1", "p2"], "p1": ["p3", "p4"], "p2": ["p5", "p6"], "p3": ["p7", "p0"], "p7": ["u", "v"], "u": ["p1"], "n0": ["n1"],
}  # fmt: skip
"""Which page has links to which."""


class LinkedVersions(VersionedSite):
    """The same pages with other links."""

    def page(self, name: str) -> str:
        links = (f"/{'held' if other in HELD else 'versioned'}?n={other}" for other in LINKS.get(name, ()))
        return super().page(name).replace("<a href='/x'>x</a>", "") + "".join(
            f"<a href='{link}'>x</a>" for link in links
        )


def found_once(desk: Desk, names: list[str]) -> None:
    records = desk.records()
    assert sorted(map(name_of, records)) == sorted(names)
    listed = [record for record in records if record["referrer"] is None]
    assert [record["id"] for record in listed] == list(range(1, len(listed) + 1))
    assert [record["id"] for record in records[len(listed) :]] == [
        (LISTED_IDS + 1) + number for number in range(len(names) - len(listed))
    ]


def linked_and_compared(desk: Desk, names: list[str]) -> None:
    found_once(desk, names)
    assert {name_of(record): record["change"] for record in desk.records()} == {
        name: "unchanged" if name in (*NAMES, *HELD) else "new" for name in names
    }


def linked_items(desk: Desk, names: list[str]) -> None:
    lines = lines_of(desk)
    assert sorted((name_of(line), line["item"] or 0) for line in lines) == sorted(
        (name, item) for name in names for item in ((1, 2) if name not in HELD or not is_held(desk) else (0,))
    )


def is_held(desk: Desk) -> bool:
    return isinstance(desk.lab.site.own.get(("", "/held")), HeldCase)


def linked_with_bodies(desk: Desk, names: list[str]) -> None:
    found_once(desk, names)
    assert all((desk.folder / "bodies" / record["body_path"]).exists() for record in desk.records())


def linked_in_both(desk: Desk, names: list[str]) -> None:
    found_once(desk, names)
    rows = list(csv.DictReader(io.StringIO(plain(desk.folder / "second.csv.gz").decode(), newline="")))
    assert [(row["id"], row["depth"]) for row in rows] == [
        (str(line["id"]), str(line["depth"])) for line in lines_of(desk)
    ]


LINKED: dict[str, tuple[list[str], Callable[[Desk, list[str]], None]]] = {
    "--follow": ([], found_once),
    "--since": (["--since", "old.jsonl"], linked_and_compared),
    "--explode": (["--select", "mark[]=i", "--explode", "mark"], linked_items),
    "--body": (["--body", "bodies"], linked_with_bodies),
    "several -o": (["-o", "second.csv.gz"], linked_in_both),
}


@pytest.fixture(params=LINKED)
def linked(request: pytest.FixtureRequest, lab: LabServer, tmp_path: Path) -> Table:
    desk = Desk(lab, tmp_path)
    site = LinkedVersions(*NAMES, *HELD, "n0", "n1")
    desk.lab.site.own["", "/versioned"] = desk.lab.site.own["", "/held"] = site
    words, judge = LINKED[request.param]
    desk.write(desk.urls("p0", path="/versioned"))
    if request.param == "--since":
        assert run(*desk.words("--follow", to="old.jsonl"), folder=tmp_path).code == 0
        desk.asked()
    return Table(desk, site, ["--follow", *words], lambda desk, names, _: judge(desk, names))


def test_links_and_a_resume(linked: Table) -> None:
    """Killed with two found rows under way: what is done stays, and no link is lost."""
    gate = linked.desk.hold()
    with Running(*linked.command(), folder=linked.desk.folder) as running:
        linked.desk.until_asked(times=2)
        linked.desk.until_written(len(NAMES))
        running.send(signal.SIGKILL)
        running.end()
    linked.desk.asked()
    gate.open()
    linked.desk.lab.add("/held", linked.site)
    ended = linked.crawl()
    assert ended.code == 0, ended.said
    assert linked.desk.asked() == HELD
    linked.judged([*NAMES, *HELD])


def test_links_and_a_retry(linked: Table) -> None:
    """A page that fails names nothing; retried, it adds its links."""
    linked.site.versions["p2"] = None
    assert linked.crawl().code == 0
    assert linked.desk.stats()["codes"] == {"http_404": 1}
    linked.site.versions["p2"] = 1
    linked.desk.asked()
    ended = linked.crawl("--retry-failed")
    assert ended.code == 0, ended.said
    assert linked.desk.asked() == ["p2", "p5", "p6"]
    linked.judged([*NAMES, *HELD])


def test_links_begun_again(linked: Table) -> None:
    assert linked.crawl().code == 0
    linked.desk.asked()
    ended = linked.crawl("--fresh")
    assert ended.code == 0, ended.said
    assert linked.desk.asked() == sorted([*NAMES, *HELD])
    linked.judged([*NAMES, *HELD])


def test_links_and_a_grown_list(linked: Table) -> None:
    """A row more in the list: it and what it leads to are fetched, and found rows keep their numbers."""
    assert linked.crawl().code == 0
    linked.desk.asked()
    linked.desk.write(linked.desk.urls("p0", "n0", path="/versioned"))
    ended = linked.crawl()
    assert ended.code == 0, ended.said
    assert linked.desk.asked() == ["n0", "n1"]
    linked.judged([*NAMES, *HELD, "n0", "n1"])


@pytest.mark.parametrize("words", [[], ["--retry-failed"], ["--fresh"]])
def test_links_in_order_are_refused(lab: LabServer, tmp_path: Path, words: list[str]) -> None:
    desk = Desk(lab, tmp_path)
    desk.write(desk.urls("p0", path="/versioned"))
    ended = run(*desk.words("--follow", "--ordered", *words), folder=tmp_path)
    assert ended.code == 2
    assert "ordered: rows that are found have no place in the order of the list" in ended.said
    assert desk.asked() == []
