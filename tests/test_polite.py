"""Politeness from the command line, with everything as it is by default: the server's log is the judge."""

from __future__ import annotations

import json
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.lab.command import Ended, Running, run
from tests.lab.desk import Desk
from tests.lab.exchange import Case, Exchange
from tests.lab.held_case import HeldCase
from tests.lab.ports import host_address
from tests.lab.server import LabServer

DEFAULT = {"FETCHER_ROBOTS": ""}
"""The environment in which robots.txt is obeyed, as in one with no variable of ours."""

DENY = "User-agent: *\nDisallow: /private\n"
HARDLY = 0.7  # of the second between two starts: to arrive takes a moment, more or less
ONE, TWO = host_address(1), host_address(2)


@pytest.fixture
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread() as server:
        yield server


@pytest.fixture
def desk(lab: LabServer, tmp_path: Path) -> Desk:
    return Desk(lab, tmp_path)


def crawl(desk: Desk, urls: list[str], *words: str) -> Ended:
    """Run a job over the URLs, robots.txt and all, and look at its stats."""
    desk.write(urls)
    return desk.crawl(*words, env=DEFAULT)


def codes(desk: Desk) -> list[str | None]:
    """What became of the rows, in their order."""
    return [record["error"] for record in desk.records()]


def paths(lab: LabServer, host: int) -> list[str]:
    """What was asked of a host, in the order it came."""
    return [entry.path for entry in lab.log if entry.host == host_address(host)]


def status(code: int, body: str = "", **headers: str) -> Case:
    async def reply(exchange: Exchange) -> None:
        await exchange.reply(body, code, headers=[(name.replace("_", "-"), text) for name, text in headers.items()])

    return reply


# robots.txt


def test_what_is_denied_is_a_row_without_a_request(lab: LabServer, desk: Desk) -> None:
    lab.add("/robots.txt", DENY, host=1)
    lab.add("/private", status(200))
    listed = [
        lab.url("/private"),
        lab.url("/ok?n=1"),
        lab.url("/private", 2),
        lab.url(f"/redirect?to={lab.url('/private')}", 2),
        lab.url("/ok?n=2"),
    ]
    assert crawl(desk, listed).code == 0
    denied = "robots_denied"
    assert codes(desk) == [denied, None, None, denied, None]
    records = desk.records()
    assert records[0]["message"] == f"'Disallow: /private' in line 2 of {lab.url('/robots.txt')}"
    assert (records[0]["attempts"], records[0]["status"], records[0]["elapsed"]) == (0, None, 0.0)
    assert records[3]["redirects"] == [lab.url("/private")]
    assert paths(lab, 1) == ["/robots.txt", "/ok", "/ok"]
    assert paths(lab, 2)[0] == "/robots.txt"
    assert Counter(paths(lab, 2)) == {"/robots.txt": 1, "/private": 1, "/redirect": 1}
    stats = desk.stats()
    assert (stats["ok"], stats["skipped"], stats["codes"]) == (3, 2, {denied: 2})


def test_no_robots_asks_for_none_and_fetches(lab: LabServer, desk: Desk) -> None:
    lab.add("/robots.txt", DENY)
    lab.add("/private", status(200))
    assert crawl(desk, [lab.url("/private"), lab.url("/ok")], "--no-robots").code == 0
    assert codes(desk) == [None, None]
    assert sorted(paths(lab, 1)) == ["/ok", "/private"]


@pytest.mark.parametrize("code", [503, 429])
def test_a_robots_txt_that_cannot_be_had_forbids_for_now(lab: LabServer, desk: Desk, code: int) -> None:
    lab.add("/robots.txt", status(code, retry_after="1000"), host=1)
    listed = [lab.url(f"/ok?n={n}", host) for n in range(5) for host in (1, 2)]
    assert crawl(desk, listed).code == 0
    (trouble,) = set(codes(desk)) - {None}
    assert trouble in ("robots_unreachable", "host_budget")
    assert codes(desk) == [trouble, None] * 5
    assert paths(lab, 1) == ["/robots.txt"]
    lab.add("/robots.txt", "", host=1)
    assert desk.crawl("--retry-failed", env=DEFAULT).code == 0
    assert codes(desk) == [None] * 10


def test_a_server_error_for_robots_txt_is_unreachable(lab: LabServer, desk: Desk) -> None:
    lab.add("/robots.txt", status(503), host=1)
    ended = crawl(desk, [lab.url("/ok?n=1"), lab.url("/ok?n=2"), lab.url("/ok", 2)])
    assert (ended.code, codes(desk)) == (0, ["robots_unreachable", "robots_unreachable", None])
    assert set(paths(lab, 1)) == {"/robots.txt"}


def test_a_crawl_delay_lies_between_two_starts_and_holds_nobody_else(lab: LabServer, desk: Desk) -> None:
    lab.add("/robots.txt", "User-agent: *\nCrawl-delay: 1\n", host=1)
    listed = [lab.url(f"/ok?n={n}") for n in range(3)] + [lab.url(f"/ok?n={n}", 2) for n in range(50)]
    assert crawl(desk, listed).code == 0
    slow = [entry for entry in lab.log if entry.host == ONE]
    assert [entry.path for entry in slow] == ["/robots.txt", "/ok", "/ok", "/ok"]
    gaps = [after.t - before.t for before, after in pairwise(slow)]
    assert min(gaps) > HARDLY, gaps
    assert max(entry.in_flight for entry in slow) == 1
    assert all(entry.t < slow[-1].t for entry in lab.log if entry.host == TWO)


def test_a_crawl_delay_is_obeyed_up_to_the_cap(lab: LabServer, desk: Desk) -> None:
    lab.add("/robots.txt", "User-agent: *\nCrawl-delay: 86400\n")
    assert crawl(desk, [lab.url("/ok?n=1"), lab.url("/ok?n=2")], "--max-crawl-delay", "0.2").code == 0


# What is said before


def test_a_dry_run_asks_for_robots_txt_and_nothing_else(lab: LabServer, desk: Desk) -> None:
    lab.add("/robots.txt", DENY + "Crawl-delay: 2\n", host=1)
    lab.add("/robots.txt", status(503), host=3)
    urls = [lab.url("/private"), *(lab.url(f"/ok?n={n}") for n in range(9)), lab.url("/ok", 2), lab.url("/ok", 3)]
    desk.write([*urls, "mailto:me"])
    words = ("crawl", "l.txt", "--dry-run", "--retries", "0", "--summary", "s.json")
    ended = run(*words, folder=desk.folder, env=DEFAULT)
    assert (ended.code, ended.said) == (0, "")
    assert Counter((entry.host, entry.path) for entry in lab.log) == {
        (host_address(host), "/robots.txt"): 1 for host in (1, 2, 3)
    }
    told = desk.stats()
    assert (told["rows"], told["invalid"], told["hosts"]) == (13, 1, 3)
    robots = told["robots"]
    assert robots["asked"] == 3
    assert robots["allowed"] + robots["denied"] == 2
    assert robots["unknown"] == {"robots_unreachable": 1}
    assert robots["delays"] == {ONE: 2.0}
    assert told["least"]["host"] == ONE
    assert 20 <= told["least"]["seconds"] < 21
    assert f"          {ONE} asks for 2 s between two" in ended.lines
    lab.clear()
    assert run(*words, "--no-robots", folder=desk.folder, env=DEFAULT).code == 0
    assert (lab.log, desk.stats()["robots"]) == ([], None)


def test_the_command_for_robots_says_the_same(lab: LabServer, tmp_path: Path) -> None:
    lab.add("/robots.txt", DENY, host=1)
    ended = run("robots", lab.url("/private/1"), lab.url("/ok"), lab.url("/private/1", 2), folder=tmp_path)
    assert ended.code == 0
    assert [line.split(" -> ")[1].partition(":")[0] for line in ended.lines] == ["denied", "allowed", "allowed"]
    assert [entry.path for entry in lab.log] == ["/robots.txt"] * 2


# What is said afterwards


def test_hosts_that_gave_trouble_are_named_in_the_end(lab: LabServer, desk: Desk) -> None:
    lab.add("/robots.txt", DENY, host=1)
    listed = [lab.url(f"/private?n={n}") for n in range(3)]
    listed += [lab.url(f"/retry-after/k/{n}?after=1&ms=300", 2) for n in range(4)]
    listed += [lab.url(f"/ok?n={n}", 3) for n in range(4)]
    ended = crawl(desk, listed)
    assert ended.code == 0
    assert [entry.note for entry in lab.log if entry.note] == []
    told = {host["host"]: host for host in desk.stats()["hosts"]}
    assert set(told) == {ONE, TWO}
    assert (told[ONE]["denied"], told[ONE]["requests"]) == (3, 1)
    assert told[TWO]["refused"] >= 1
    assert told[TWO]["parked"] == pytest.approx(1.0, abs=0.9)
    assert told[TWO]["requests"] == len(paths(lab, 2))
    denied = f"  {ONE}: 1 request; 3 denied by robots.txt"
    assert denied in ended.said.splitlines()
    assert any(line.startswith(f"  {TWO}: ") and " refused, parked for " in line for line in ended.said.splitlines())
    report = run("report", "pages.jsonl", "--hosts", folder=desk.folder)
    assert report.code == 0
    table = report.text.partition("\nhosts that gave trouble\n")[2].splitlines()
    assert denied in table
    assert {line.split(":")[0].strip() for line in table} == {ONE, TWO}
    troubled = json.loads(run("report", "pages.jsonl", "--json", folder=desk.folder).text)["troubled"]
    assert {host["host"]: host for host in troubled} == told


def test_without_trouble_no_host_is_named(lab: LabServer, desk: Desk) -> None:
    ended = crawl(desk, [lab.url("/ok?n=1"), lab.url("/ok?n=2", 2)])
    assert (len(ended.said.splitlines()), desk.stats()["hosts"]) == (1, [])
    assert "gave trouble" not in run("report", "pages.jsonl", "--hosts", folder=desk.folder).text


# What is remembered


def noted(desk: Desk, name: str = "parked") -> dict[str, float]:
    """Until when hosts are to be left alone, by the ledger, in seconds since the epoch; or their delays."""
    path = desk.folder / "pages.jsonl.job" / "ledger.sqlite"
    if not path.exists():
        return {}
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        found = db.execute("SELECT value FROM meta WHERE key = ?", (f"note {name}",)).fetchone()
    parked: dict[str, float] = json.loads(found[0]) if found else {}
    return parked


def until(holds: Callable[[], Any]) -> None:
    # No process tells when it has committed: the ledger is looked at again and again.
    end, pause = time.monotonic() + 60, threading.Event()
    while not holds():
        assert time.monotonic() < end, "it was never so"
        pause.wait(0.01)


class Parking:
    """A page that is refused, with a Retry-After, until ``seconds`` after its first request.

    ``early`` are the requests that came before that and after a refusal had been sent, by so many seconds: those of
    the first moment are on their way already.
    """

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        self.first = 0.0
        self.told = False
        self.early: list[float] = []

    async def __call__(self, exchange: Exchange) -> None:
        now = exchange.entry.t
        self.first = self.first or now
        left = self.first + self.seconds - now
        if left <= 0:
            await exchange.become("/ok")
            return
        if self.told:
            self.early.append(left)
        await exchange.pause(0.5)
        self.told = True
        await exchange.reply("", 429, headers=[("Retry-After", str(self.seconds))])


@pytest.mark.parametrize(
    ("end", "alone"),
    [(signal.SIGKILL, True), (signal.SIGKILL, False), (signal.SIGINT, True)],
    ids=["killed before any row is done", "killed while others go on", "interrupted"],
)
def test_a_host_that_was_parked_is_not_asked_early_by_the_next_run(
    lab: LabServer, desk: Desk, end: signal.Signals, alone: bool
) -> None:
    parking, gate = Parking(8), HeldCase()
    lab.add("/robots.txt", "")
    lab.add("/parked", parking, host=1)
    lab.add("/held", gate, host=2)
    urls = [lab.url(f"/parked?n={n}") for n in range(3)]
    urls += [] if alone else [lab.url("/held", 2), *(lab.url(f"/ok?n={n}", 2) for n in range(3))]
    desk.write(urls)
    with Running(*desk.words(), folder=desk.folder, env=DEFAULT) as running:
        if end is signal.SIGKILL:
            until(lambda: noted(desk))
        else:
            until(lambda: parking.told)
        running.send(end)
        gate.open()
        running.process.wait(60)
    assert noted(desk)[ONE] > time.time()
    before = sum(entry.host == ONE for entry in lab.log)
    assert desk.crawl(env=DEFAULT).code == 0
    again = [entry for entry in lab.log if entry.host == ONE][before:]
    assert again[0].path == "/robots.txt"
    assert again[0].t >= parking.first + parking.seconds
    assert parking.early == []
    assert codes(desk) == [None] * len(urls)


def test_a_killed_run_makes_no_crawl_delay_shorter(lab: LabServer, desk: Desk) -> None:
    rounds = 2
    lab.add("/robots.txt", "User-agent: *\nCrawl-delay: 1\n")
    desk.write([lab.url(f"/ok?n={n}") for n in range(rounds)])
    for _ in range(rounds):
        before = len(lab.log)
        with Running(*desk.words(), folder=desk.folder, env=DEFAULT) as running:
            # Killed as soon as a page was asked for, the ledger's last word being some time older.
            until(lambda: noted(desk, "delays") and len(lab.log) >= before + 2)
            running.send(signal.SIGKILL)
            running.process.wait(60)
    assert desk.crawl(env=DEFAULT).code == 0
    gaps = [after.t - before.t for before, after in pairwise(lab.log)]
    assert min(gaps) > HARDLY, gaps


def test_a_host_that_the_second_run_never_came_to_is_still_parked_for_the_third(lab: LabServer, desk: Desk) -> None:
    parking, gate = Parking(10), HeldCase()
    lab.add("/robots.txt", "")
    lab.add("/parked", parking, host=1)
    lab.add("/held", gate, host=2)
    desk.write([lab.url("/held", 2), lab.url("/parked")])
    with Running(*desk.words(), folder=desk.folder, env=DEFAULT) as running:
        until(lambda: noted(desk))
        running.send(signal.SIGKILL)
        running.process.wait(60)
    until_when = noted(desk)[ONE]
    gate.open()
    desk.write([lab.url("/held", 2)])
    assert desk.crawl("--limit", "1", env=DEFAULT).code == 0
    assert noted(desk)[ONE] == pytest.approx(until_when, abs=0.5)
    desk.write([lab.url("/held", 2), lab.url("/parked")])
    assert desk.crawl(env=DEFAULT).code == 0
    assert parking.early == []
    assert codes(desk) == [None, None]
