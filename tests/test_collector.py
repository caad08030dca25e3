"""What a row leaves for the garbage collector: nothing of ours, and no more than aiohttp leaves of a failed exchange.

Law 3: memory is bounded, never by the list: a cycle for each row grows until the collector runs, which may be long.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec

from tests.lab.garbage import Found, Kind
from tests.lab.ports import black_hole
from tests.lab.server import LabServer

ROWS = 12
HOSTS = 2 * ROWS  # a row each where rows fail: a host in trouble makes its rows wait for one another
QUICK: dict[str, Any] = {"retries": 0, "robots": False, "private_network": "allow"}
DEADLINE = 300.0


def rows(lab: LabServer, path: str, *, hosts: int = 1) -> list[str]:
    return [lab.url(f"{path}{'&' if '?' in path else '?'}row={n}", n % hosts + 1) for n in range(2 * ROWS)]


def kind(name: str, urls: list[str], timeouts: dict[str, float] | None = None, **options: Any) -> Kind:
    return Kind(name, urls[:ROWS], urls, {**QUICK, **options}, timeouts or {})


@contextmanager
def what_is_left() -> Iterator[dict[str, Found]]:
    """Run rows of each kind, in a process of their own."""
    with LabServer.in_thread(hosts=HOSTS) as lab, ExitStack() as stack:
        lab.add("/robots.txt", "User-agent: *\nDisallow: /no\n")
        holes = [
            f"http://127.0.0.{host}:{stack.enter_context(black_hole(host))}/"
            for host in range(HOSTS + 1, HOSTS + 1 + 2 * ROWS)
        ]
        kinds = [
            kind("ok", rows(lab, "/ok")),
            kind("ok, with robots", rows(lab, "/ok"), robots=True),
            kind("ok, by http", [url.removeprefix("http://") for url in rows(lab, "/ok", hosts=HOSTS)]),
            kind("ok, by http, with robots", [url.removeprefix("http://") for url in rows(lab, "/ok", hosts=HOSTS)], robots=True),
            kind("connect_refused, by neither", [f"127.6.0.{n}:1" for n in range(2 * ROWS)]),
            kind("connect_refused, by neither, for robots.txt", [f"127.7.0.{n}:1" for n in range(2 * ROWS)], robots=True),
            kind("ok, redirected", rows(lab, "/hops/2")),
            kind("http_404", rows(lab, "/status/404")),
            kind("http_503, tried again", rows(lab, "/status/503", hosts=HOSTS), retries=1, backoff=0.01),
            kind("robots_denied", rows(lab, "/no"), robots=True),
            kind("connect_refused, for robots.txt", [f"http://127.5.0.{n}:1/" for n in range(2 * ROWS)], robots=True),
            kind("connect_refused", [f"http://127.3.0.{n}:1/" for n in range(2 * ROWS)]),
            kind("connect_refused, tried again", [f"http://127.4.0.{n}:1/" for n in range(2 * ROWS)], retries=1, backoff=0.01),
            kind("connect_timeout", holes, {"sock_connect": 0.5}, connect_timeout=0.5),
            kind("read_timeout", rows(lab, "/silent", hosts=HOSTS), {"sock_read": 0.5}, read_timeout=0.5),
            kind("read_timeout, tried again", rows(lab, "/silent", hosts=HOSTS), {"sock_read": 0.5}, read_timeout=0.5, retries=1, backoff=0.01),
            kind("connect_reset", rows(lab, "/reset", hosts=HOSTS)),
            kind("empty_reply", rows(lab, "/empty", hosts=HOSTS)),
            kind("truncated", rows(lab, "/cut-body", hosts=HOSTS)),
            kind("too_large", rows(lab, "/ok?size=50000"), max_size=1000),
            kind("malformed_response", rows(lab, "/bad-status-line?v=x", hosts=HOSTS)),
            kind("invalid_url", [f"ftp://127.0.0.1/{n}" for n in range(2 * ROWS)]),
        ]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "tests.lab.garbage"],
            input=msgspec.json.encode(kinds),
            capture_output=True,
            timeout=DEADLINE,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        yield {each.name: each for each in msgspec.json.decode(done.stdout, type=list[Found])}


NOTHING = ("ok", "ok, with robots", "ok, redirected", "http_404", "robots_denied", "too_large", "invalid_url")
FAILED = (
    "http_503, tried again", "connect_refused, for robots.txt", "connect_refused", "connect_refused, tried again", "connect_timeout",
    "read_timeout", "read_timeout, tried again", "connect_reset", "empty_reply", "truncated", "malformed_response",
)  # fmt: skip

BARE = (
    "ok, by http",
    "ok, by http, with robots",
    "connect_refused, by neither",
    "connect_refused, by neither, for robots.txt",
)
"""Rows that name no scheme: aiohttp takes none, so there is nothing to compare with."""


def test_what_a_row_leaves_for_the_collector() -> None:
    """One test: each process that runs a part of these tests would run all rows."""
    with what_is_left() as found:
        assert set(found) == {*NOTHING, *FAILED, *BARE}
    for name, left in found.items():
        assert set(left.codes) == {name.partition(",")[0]}
    assert {name: objects for name in NOTHING if (objects := per_row(found[name].ours))} == {}
    for name in BARE:
        assert {what: many for what, many in per_row(found[name].ours).items() if what.startswith("fetcher")} == {}, (
            name
        )
    for name in FAILED:
        left = found[name]
        assert {what: many for what, many in per_row(left.ours).items() if what.startswith("fetcher")} == {}, name
        tries = 2 if "again" in name else 1
        assert sum(left.ours.values()) <= tries * sum(left.plain.values()) + ROWS // 2, (name, left.ours, left.plain)


def per_row(objects: dict[str, int]) -> dict[str, int]:
    """What there is of for each row, not once in a while."""
    return {name: many for name, many in objects.items() if many > ROWS // 2}
