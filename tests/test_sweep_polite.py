"""A sample of the politeness sweep, and proof that its judges see what they look for."""

from __future__ import annotations

import os
import signal
import socket
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.sweeps import polite, ray
from tests.sweeps.limiting import limiting, monotonic_of
from tests.sweeps.limits import DELAY, KINDS, Host, Kind, hosts_of, list_of, settings_of
from tests.sweeps.politeness import TOLERANCE, Findings, Knowledge, Run, Seen, Sort, judge_host

FIRST, SECOND = Run(0.0, 50.0), Run(50.5, 100.0)


def host(per_host: int = 2, delay: float = 0.0, crawl_delay: float = 0.0) -> Host:
    return Host(1, KINDS[0], per_host, delay, crawl_delay, 0, 0, 0.0)


def page(came: float, took: float = 0.01, **more: Any) -> Seen:
    known = {"host": 1, "connection": 1, "sort": Sort.PAGE, "row": 7, "status": 200, "until": 0.0, **more}
    return Seen(came=came, answered=came + took, **known)


def robots(came: float, **more: Any) -> Seen:
    return page(came, sort=Sort.ROBOTS, **more)


def refusal(came: float, wish: float, **more: Any) -> Seen:
    return page(came, status=429, until=came + 0.01 + wish, **more)


def found(judged: Host, *seen: Seen) -> Findings:
    within = sorted(seen, key=lambda one: one.came)
    own = [one for one in within if one.host == 1]
    return judge_host(judged, own, [FIRST, SECOND], Knowledge(within))


START = robots(1.0)


@pytest.mark.parametrize(
    ("judged", "seen", "breach"),
    [
        (host(2), [page(2.0, 0.5), page(2.1, 0.5), page(2.499, 0.5)], "at once"),
        (host(1), [page(2.0, 0.5, status=0), page(2.4)], "at once"),
        (host(), [page(50.2)], "at once"),
        (host(delay=0.5), [page(2.0), page(2.49)], "delay"),
        (host(delay=0.5), [page(1.49)], "delay"),
        (host(crawl_delay=0.5), [page(2.0), page(2.49)], "delay"),
        (host(), [refusal(2.0, 1.0), page(3.0), page(4.0)], "Retry-After"),
        (host(), [refusal(2.0, 1.0), page(2.5), page(3.1)], "Retry-After"),
        (host(), [refusal(2.0, 3.0), page(2.5, host=2, connection=2), page(2.7, host=2, connection=2),
                  page(2.71, connection=3)], "Retry-After"),
        (host(), [page(2.0, sort=Sort.DENIED)], "robots"),
        (host(), [robots(2.0)], "robots"),
        (host(), [page(0.9)], "robots"),
        (host(), [page(1.005)], "robots"),
        (host(), [page(51.0)], "robots"),
        (host(delay=2.0), [page(49.9), robots(51.0)], "anew"),
        (host(crawl_delay=2.0), [page(49.9), robots(51.0)], "anew"),
        (host(), [refusal(49.9, 3.0), robots(51.0), page(51.1)], "early again"),
        (host(), [refusal(47.9, 5.0), robots(51.0)], "early again"),
    ],
)  # fmt: skip
def test_a_breach_is_seen(judged: Host, seen: list[Seen], breach: str) -> None:
    findings = found(judged, START, *seen)
    assert findings.breaches == {breach: 1}, findings.remarks
    assert len(findings.remarks) == 1


@pytest.mark.parametrize(
    ("judged", "seen", "forgiven", "crossed"),
    [
        (host(2), [page(2.0, 0.5), page(2.1, 0.5), page(2.5)], 0, 0),
        (host(delay=0.5), [page(2.0), page(2.5), page(2.999), robots(51.0), page(51.5)], 0, 0),
        (host(), [refusal(2.0, 1.0), page(3.01)], 0, 0),
        (host(3), [page(1.9, 0.5), refusal(2.0, 1.0), page(2.005, connection=2)], 0, 0),
        (host(), [refusal(2.0, 1.0), page(2.02, connection=2), page(3.1, connection=3)], 0, 1),
        (host(), [robots(51.0, status=429, until=51.5), robots(51.6), page(51.7)], 0, 0),
        (host(), [refusal(49.9, 3.0), robots(51.0, status=429, until=54.0), robots(54.1), page(54.2)], 1, 0),
        (host(crawl_delay=2.0), [robots(50.6)], 0, 0),
    ],
)
def test_good_manners_are_none(judged: Host, seen: list[Seen], forgiven: int, crossed: int) -> None:
    findings = found(judged, START, *seen)
    assert findings.breaches == {}, findings.remarks
    assert (findings.forgiven, findings.crossed) == (forgiven, crossed)


def test_a_delay_that_nobody_lived_to_write_down_is_forgiven_for_one_robots_txt() -> None:
    assert found(host(crawl_delay=2.0), robots(49.5), robots(51.0)).forgiven == 1
    assert found(host(crawl_delay=2.0), robots(49.5), robots(51.0), page(51.5)).breaches == {"delay": 1}
    assert found(host(delay=2.0), robots(49.5), robots(51.0)).breaches == {"anew": 1}


def test_a_refusal_is_known_once_a_later_answer_was_acted_upon() -> None:
    knowledge = Knowledge([page(1.0), page(2.0, connection=2), page(3.0), page(4.0, connection=2), page(5.0)])
    assert [knowledge.since(moment) for moment in (0.5, 1.5, 2.5, 3.5, 4.5)] == [
        3.0,
        4.0,
        5.0,
        float("inf"),
        float("inf"),
    ]


def test_requests_are_shared_out_and_slow_hosts_have_few() -> None:
    for count, requests in ((200, 200_000), (200, 20_000), (24, 600)):
        hosts = hosts_of(count, requests)
        assert (len(hosts), {one.kind for one in hosts}) == (count, set(KINDS))
        asked = sum(one.asked for one in hosts)
        assert 0.9 * requests <= asked <= 1.1 * requests
        assert all(one.refusing > 0 for one in hosts if one.kind.refuses)
        assert sum(one.denied for one in hosts) > 0
        assert len(list_of(hosts, 80, 1)) == asked + sum(one.denied for one in hosts)
    assert max(one.asked * one.delay for one in hosts_of(200, 200_000)) < 60
    assert settings_of(hosts).startswith(f"per-host = 6\ndelay = {DELAY}\n\n[hosts.")


def test_the_server_refuses_until_its_wait_is_over(tmp_path: Path) -> None:
    kind = next(kind for kind in KINDS if kind.refuses == 503)
    heard: list[bytes] = []
    with limiting([Host(1, kind, 1, 0.0, 0.0, 3, 0, 1.0)], tmp_path / "log", 1) as site:
        with socket.create_connection(("127.0.0.1", site.port)) as client:
            for path in ("/robots.txt", "/1", "/2", "/robots.txt"):
                client.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
                heard.append(client.recv(65_536))
    assert [answer.split(b" ")[1] for answer in heard] == [b"404", b"503", b"503", b"503"]
    seen = site.seen()
    assert [(one.sort, one.row, one.status) for one in seen] == [(1, 0, 404), (0, 1, 503), (0, 2, 503), (1, 0, 503)]
    assert all(before.came <= before.answered <= one.came for before, one in pairwise(seen))
    assert [one.until > one.answered for one in seen] == [False, True, True, True]
    assert f"Retry-After: {round(seen[1].until - seen[1].answered)}\r\n".encode() in heard[1]


def test_a_time_of_one_clock_is_not_told_by_another_that_was_read_much_later() -> None:
    """The processor was lost for half a second between the two: the request did not come that much sooner."""
    seconds = iter([10.0, 10.5, 10.5001, 10.5002])
    nanoseconds = iter([7_500_000_000, 7_500_200_000])
    came = monotonic_of(7_000_000_000, lambda: next(seconds), lambda: next(nanoseconds))
    assert came == pytest.approx(10.0, abs=0.001)
    assert next(seconds, None) is None


def test_what_the_server_is_late_to_see_did_not_happen_late(tmp_path: Path) -> None:
    slow = Kind("slow", 1.0, (60.0, 60.0))
    with limiting([Host(1, slow, 1, 0.0, 0.0, 3, 0, 0.0)], tmp_path / "log", 1) as site:
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", site.port)) as client:
            os.kill(site.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, site.pid, os.WSTOPPED)
            client.sendall(b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n")
            sent = time.monotonic()
        time.sleep(0.2)  # the kernel tells the end of a connection by its own, coarser clock
        late = time.monotonic()
        os.kill(site.pid, signal.SIGCONT)
        while not site.answers:
            time.sleep(0.01)
    (seen,) = site.seen()
    assert (seen.row, seen.status) == (1, 0)
    assert began < seen.came < sent + TOLERANCE
    assert seen.came <= seen.answered < late


def test_a_sample_of_the_sweep(tmp_path: Path) -> None:
    swept = polite.sweep(tmp_path, requests=800, hosts=24, kills=2, seed=1)
    assert swept.clean, polite.report(swept)
    assert len(swept.runs) == 3
    assert sum(one.requests for one in swept.found) >= 800


def test_what_one_worker_has_read_another_may_not_know() -> None:
    hosts = [host(), Host(2, KINDS[0], 2, 0.0, 0.0, 0, 0, 0.0)]
    refused = page(1.0, status=429, until=9.0)
    others = [page(1.0, 0.02, connection=8)._replace(host=2), page(1.05, connection=8)._replace(host=2)]
    soon = page(1.1, connection=2)
    judged = [
        polite.findings_of(hosts, sorted([refused, *others, soon], key=lambda one: one.came), [FIRST], workers=workers)[
            0
        ]
        for workers in (1, 2)
    ]
    assert [(one.breaches["Retry-After"], one.crossed) for one in judged] == [(1, 0), (0, 1)]
    again = page(1.2)  # on the connection that brought the refusal: it was read
    (own, _) = polite.findings_of(hosts, [refused, *others, soon, again], [FIRST], workers=2)
    assert (own.breaches["Retry-After"], own.crossed) == (1, 1)


def test_a_host_that_changes_its_worker_is_judged_from_its_next_robots_txt_on() -> None:
    late = [START, page(2.0), page(10.2), robots(12.0), page(13.0)]  # at 10.2 by the old worker, which has a lease
    for how in ("kill", "remove"):
        (own,), moved = ray.findings_of([host(1)], late, FIRST, 10.0, how=how)
        assert (+own.breaches, moved) == ({}, 1)
    both = [START, page(2.0), page(11.9, 0.5), robots(12.0), page(13.0)]
    (own,), moved = ray.findings_of([host(1)], both, FIRST, 10.0, how="remove")
    assert (own.breaches["at once"], moved) == (1, 1)
    (own,), moved = ray.findings_of([host(1)], [START, page(2.0), page(13.0)], FIRST, 10.0, how="remove")
    assert (+own.breaches, moved) == ({}, 0)


def test_a_sample_of_the_sweep_with_workers(tmp_path: Path) -> None:
    swept = polite.sweep(tmp_path, requests=800, hosts=24, kills=2, seed=1, workers=3, moved=0.2)
    assert swept.clean, polite.report(swept)
    assert len(swept.runs) == 3
    assert sum(one.requests for one in swept.found) >= 800
