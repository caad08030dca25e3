"""Hosts that are dead or away, and our own network: samples of ``python -m tests.benchmarks.dead`` and ``….away``."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.dead import ABSENT, OWN, a_tenth_dead, absences, crawled, hosts_of, listed
from tests.lab.cable import apart, impossible
from tests.lab.town import living_in

WITH_ROBOTS = OWN | {"silent": "robots_unreachable"}
"""What each kind ends with where its robots.txt is asked for first: it is silence of a host that can be connected to."""

ROOT = Path(__file__).resolve().parents[1]
DEADLINE = 60.0
SHORT: dict[str, Any] = {"connect_timeout": 0.5, "read_timeout": 0.5, "backoff": 0.05}


@pytest.mark.parametrize("robots", [True, False])
async def test_a_tenth_of_dead_hosts_does_not_hold_the_others_up(robots: bool) -> None:
    living, dead = a_tenth_dead(50)
    with living_in() as town:
        async with asyncio.timeout(DEADLINE):
            alone = await crawled(listed(town, living, 12, latency=50), robots=robots, **SHORT)
            rows = listed(town, living + dead, 12, latency=50)
            beside = await crawled(rows, whole=robots, robots=robots, **SHORT)  # without, the dead take half a minute
    assert alone.codes == {("living", 200): 45 * 12}
    assert beside.codes["living", 200] == 45 * 12
    assert beside.last["living"] < 5 * alone.last["living"]
    if robots:
        assert beside.codes == {("living", 200): 45 * 12} | dict.fromkeys(WITH_ROBOTS.items(), 12)
    else:
        assert {code for kind, code in beside.codes if kind in OWN} <= {"host_budget", *OWN.values()}


async def test_a_host_that_is_away_for_a_while_loses_no_row() -> None:
    with living_in() as town:
        hosts, acts = absences(town, 1.0, 0.4)
        rows = listed(town, hosts_of("living", 10), 50, latency=50)
        rows += [row for host in hosts for row in listed(town, [host], ABSENT[host[0]] // 2, latency=50)]
        async with asyncio.timeout(DEADLINE):
            run = await crawled(rows, acts, backoff=0.1)
    assert (run.codes.total(), run.lost) == (len(rows), 0)


async def test_where_a_row_has_one_try_it_says_by_its_own_code_why_its_host_is_dead() -> None:
    living, dead = a_tenth_dead(50)
    with living_in() as town:
        async with asyncio.timeout(DEADLINE):
            run = await crawled(listed(town, living + dead, 3, latency=50), robots=False, **SHORT | {"retries": 0})
    assert run.codes == {("living", 200): 45 * 3} | dict.fromkeys(OWN.items(), 3)


async def test_a_list_of_dead_hosts_comes_to_its_end() -> None:
    _, dead = a_tenth_dead(100)
    with living_in() as town:
        async with asyncio.timeout(DEADLINE):
            run = await crawled(listed(town, dead, 20), **SHORT)
    assert run.codes == dict.fromkeys(WITH_ROBOTS.items(), 2 * 20)


@pytest.mark.parametrize(("how", "hosts"), [("here", "few"), ("here", "new"), ("dropped", "few")])
def test_no_row_fails_while_our_own_network_is_away(how: str, hosts: str) -> None:
    if (reason := impossible()) is not None:
        pytest.skip(reason)
    words = ["--inside", "--how", how, "--hosts", hosts, "--seconds", "2", "--after", "0.8", "--away", "1.5"]
    ended = subprocess.run(
        apart("tests.benchmarks.away", *words), cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
