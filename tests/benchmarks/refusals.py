"""Owns what a host that refuses costs: the others where it says until when, and itself where it bears three at once.

Law 5: a host's trouble stays its own. The server's log is the judge of every figure.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from tests.benchmarks.crawling import Crawled, crawl
from tests.benchmarks.figures import Figure, at_least, at_most
from tests.benchmarks.hosts import Entry, Refusing, Scene, Street

__all__ = ["ceiling", "retry_after"]

HOST = "127.0.1.1"  # the one that refuses
ON_ITS_WAY = 0.05  # seconds after a refusal in which a request may come that was sent before the refusal was read

OTHERS, ROWS = 24, 100  # hosts beside it, and the rows of each
EVERY = 30  # requests of it, until one is refused
ABSURD = "99999999999"
PATIENT = 300.0  # --max-retry-after

CEILING, PAGES = 3, 1_500
UNSETTLED = 100  # answers until refusals are waste


class Wish(NamedTuple):
    """A Retry-After by its name: the value, and the seconds in which a request is early."""

    name: str
    value: str | None
    rest: float = 0.0


WISHES = (
    Wish("0", "0"),
    Wish("2", "2", 2.0),
    Wish("a date", "date:2", 2.0),
    Wish("a past date", "date:-3600"),
    Wish(f"absurd ({ABSURD})", ABSURD, 1e9),
    Wish("absurd (a word)", "presently"),
    Wish("absent", None),
)


def retry_after(street: Street, rounds: int) -> Iterator[Figure]:
    """Measure 429 and 503 with every wish, interleaved with runs in which all hosts answer."""
    hosts = [HOST, *(f"127.0.2.{number}" for number in range(1, OTHERS + 1))]
    urls = [f"http://{host}:{street.port}/{row}" for row in range(ROWS) for host in hosts]
    random.Random(1).shuffle(urls)
    cases: dict[str, Refusing | None] = {"none": None}
    wishes = {f"{status}, Retry-After {wish.name}": (status, wish) for status in (429, 503) for wish in WISHES}
    for name, (status, wish) in wishes.items():
        cases[name] = Refusing(HOST, status, every=EVERY, wish=wish.value, rest=wish.rest)
    fastest = dict.fromkeys(cases, 0.0)
    early = dict.fromkeys(cases, 0)
    amiss = dict.fromkeys(cases, 0)
    told = dict.fromkeys(cases, "")
    for _ in range(rounds):
        for name, refusing in cases.items():
            street.play(Scene((0.08, 0.16), refusing=refusing))
            crawled = crawl(urls, "-c", "40")
            log = street.log()
            fastest[name] = max(fastest[name], _rate_of_others(log))
            early[name] += len(early_requests(log))
            amiss[name] += _amiss(crawled, given_up=refusing is not None and refusing.rest > PATIENT)
            told[name] = f"{sum(entry.status >= 400 and entry.host == HOST for entry in log)} refused"
    yield Figure("the others' rate without it", fastest["none"], "/s")
    for name in wishes:
        yield Figure(f"{name}: early", early[name], f" ({told[name]})", at_most(0))
        yield Figure(f"{name}: rows that end otherwise", amiss[name], "", at_most(0))
        yield Figure(f"{name}: the others' rate", fastest[name] / fastest["none"], " ×", at_least(0.95))


def early_requests(log: list[Entry]) -> list[Entry]:
    """Return the requests to the host that came while a refusal held which had long been read."""
    refusals = [entry for entry in log if entry.until]
    return [
        entry
        for entry in log
        if entry.host == HOST and any(one.went + ON_ITS_WAY < entry.came < one.until - 0.001 for one in refusals)
    ]


def _rate_of_others(log: list[Entry]) -> float:
    """Return the rows a second of the hosts that do not refuse, to the last of them."""
    pages = [entry for entry in log if entry.host != HOST and entry.path != "/robots.txt"]
    assert len(pages) == OTHERS * ROWS, f"{len(pages)} pages"
    return len(pages) / (max(entry.went for entry in pages) - min(entry.came for entry in log))


def _amiss(crawled: Crawled, *, given_up: bool) -> int:
    """Count the rows that neither are a page nor, where the host asks for too much, ended for it and say so."""
    failed = [record for record in crawled.records if record["error"] is not None]
    if not given_up:
        return len(failed)
    reason = f"{HOST} asks to wait {ABSURD} s, max-retry-after is {PATIENT:g} s"
    ended = [one for one in failed if one["error"] == "host_budget" and reason in one["message"] and HOST in one["url"]]
    return len(failed) - len(ended) + (len(ended) < ROWS - EVERY)


def ceiling(street: Street, rounds: int) -> Iterator[Figure]:
    """Measure a host that bears three at once and says so with 429 or 503, beside a run that was told."""
    urls = [f"http://{HOST}:{street.port}/{row}" for row in range(PAGES)]
    cases = {"told": 429, "429": 429, "503": 503}
    least = dict.fromkeys(cases, float("inf"))
    missed = dict.fromkeys(cases, 0)
    refused = dict.fromkeys(cases, 0)
    wasted = dict.fromkeys(cases, 0.0)
    for _ in range(rounds):
        for name, status in cases.items():
            street.play(Scene((0.02, 0.04), refusing=Refusing(HOST, status, ceiling=CEILING)))
            crawled = crawl(urls, *(("--per-host", str(CEILING)) if name == "told" else ()))
            log = street.log()
            least[name] = min(least[name], max(entry.went for entry in log) - log[0].came)
            missed[name] += len(crawled.errors())
            refused[name] = max(refused[name], sum(entry.status == status for entry in log))
            wasted[name] = max(wasted[name], _wasted(log))
    yield Figure(f"told --per-host {CEILING}: time", least["told"], " s")
    for name in ("429", "503"):
        yield Figure(f"{name}: pages missed", missed[name], f" of {rounds * PAGES}", at_most(0))
        yield Figure(f"{name}: wasted once settled", 100 * wasted[name], f" % ({refused[name]} in all)", at_most(2))
        yield Figure(f"{name}: time", least[name] / least["told"], " × of one that was told", at_most(1.2))


def _wasted(log: list[Entry]) -> float:
    """Return the share of the requests that were refused, after the first hundred answers."""
    settled = sorted(log, key=lambda entry: entry.went)[UNSETTLED:]
    return sum(entry.status >= 400 for entry in settled) / len(settled)
