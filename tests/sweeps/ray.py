"""Owns the sweep of a cluster: a job whose workers are on two nodes, of which one is struck midway, judged by the servers.

Run it with ``python -m tests.sweeps.ray [--requests N] [--hosts N] [--rounds N] [--seed N] [--how kill|remove]``, with
an interpreter that has Ray; it exits with 1 when a row is lost or there twice, when a host was asked more, sooner or
for something else than it allows, or when no host had to change its worker.

A strike is SIGKILL to each process of a node by its pid, the workers among them, or with ``remove`` what Ray does to a
node without grace, after which its processes may go on for as long as they have a lease. Law 1: where a host has
another worker afterwards, which is seen by its robots.txt being asked for again, that is judged as after a kill, from
that request on; what comes before it is the old worker's. All other hosts are judged as if nothing had happened. With
``remove`` two workers of one host are looked for over both, for nobody has cut the old one's connections.
"""

from __future__ import annotations

import argparse
import math
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.lab.ray_cluster import HAS_RAY, LoopbackCluster, cluster
from tests.sweeps.judge import judge
from tests.sweeps.limiting import Limiting, limiting
from tests.sweeps.limits import Host, hosts_of, list_of
from tests.sweeps.polite import LOOK, Swept, prepare, report
from tests.sweeps.politeness import Findings, Knowledge, Run, Seen, Sort, crowded, judge_host
from tests.sweeps.processes import scars, started

__all__ = ["findings_of", "sweep"]

WORKERS = 4
DEADLINE = 900.0
FEWEST_MOVED = 3  # hosts that must have changed their worker, or nothing was struck


def sweep(ground: Path, made: LoopbackCluster, *, requests: int, hosts: int, seed: int, how: str) -> tuple[Swept, int]:
    """Run one job in the folder ``ground``, struck once, and judge it; return how many hosts had another worker then."""
    swept = Swept(hosts_of(hosts, requests))
    with limiting(swept.hosts, ground / "server.log", seed) as site:
        rows = list_of(swept.hosts, site.port, seed, moved=0.0)
        words = [*prepare(ground, swept.hosts, rows), "--workers", f"ray:{WORKERS}", "--ray-address", made.address]
        asked = sum(host.asked for host in swept.hosts)
        moment = random.Random(seed).uniform(0.3, 0.6) * asked
        struck = _run(swept, words, ground, site, made, moment=moment, how=how)
    swept.verdict = judge(ground / "pages.jsonl", rows)
    swept.found, moved = findings_of(swept.hosts, site.seen(), swept.runs[0], struck, how=how)
    if moved < FEWEST_MOVED:
        swept.troubles.append(f"{moved} hosts had another worker after the strike, which is too few")
    return swept, moved


def findings_of(
    hosts: Sequence[Host], seen: Sequence[Seen], run: Run, struck: float, *, how: str
) -> tuple[list[Findings], int]:
    """Judge each host by what it saw, and count those that had another worker after the strike."""
    by_host: dict[int, list[Seen]] = {host.number: [] for host in hosts}
    for one in seen:
        by_host[one.host].append(one)
    found, moved = [], 0
    for host in hosts:
        own = by_host[host.number]
        asked = [one.came for one in own if one.sort == Sort.ROBOTS and one.status < 429]
        runs = [run]
        again = min((came for came in asked if came > struck), default=None)
        if again is not None and min(asked) < struck:
            runs = [Run(run.began, math.nextafter(again, 0.0)), Run(again, run.ended)]
            moved += 1
        findings = judge_host(host, own, runs, Knowledge(own))
        if len(runs) == 2 and how == "remove":
            own.sort(key=lambda one: one.came)
            for one, number in crowded(own, host.per_host):
                if one.came >= struck:
                    findings.charge("at once", one, f"{number} at once, of two workers perhaps")
        found.append(findings)
    return found, moved


def _run(
    swept: Swept, words: Sequence[str], ground: Path, site: Limiting, made: LoopbackCluster, *, moment: float, how: str
) -> float:
    """Run to the end, with a strike after so many answers; return when that was over."""
    struck = 0.0
    with started(words, ground) as (process, said):
        began = time.monotonic()
        while process.poll() is None and time.monotonic() < began + DEADLINE:
            if not struck and site.answers >= moment:
                made.order(how)
                struck = time.monotonic()
            time.sleep(LOOK)
        code = process.poll()
        ended = time.monotonic()
        heard = said.read_text(errors="replace")
    swept.runs.append(Run(began, ended))
    swept.troubles += scars(heard)
    if code != 0:
        swept.troubles.append(f"it ended with {code}: {heard[-1500:]}")
    if not struck:
        swept.troubles.append("it was over before the strike")
    return struck


def main() -> int:
    """Sweep, print what was found, and say by the exit code whether all was well."""
    parser = argparse.ArgumentParser(prog="python -m tests.sweeps.ray", description="Strike a node of a cluster.")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--how", choices=["kill", "remove"], default="kill")
    wanted = parser.parse_args()
    if not HAS_RAY:
        parser.error("Ray is not installed: pip install -e '.[test,ray]'")
    clean = True
    with cluster() as made:
        for number in range(wanted.rounds):
            ground = Path(tempfile.mkdtemp(prefix="fetcher-ray-"))
            swept, moved = sweep(
                ground,
                made,
                requests=wanted.requests,
                hosts=wanted.hosts,
                seed=wanted.seed + number,
                how=wanted.how,
            )
            took = swept.runs[0].ended - swept.runs[0].began
            print(f"round {number + 1}: a node of two was struck; {moved} hosts had another worker then; {took:.0f} s")
            print(report(swept), flush=True)
            if swept.clean:
                shutil.rmtree(ground)
            else:
                clean = False
                print(f"what is left of it is in {ground}", file=sys.stderr)
            made.order("add")
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
