"""Owns the politeness sweep: one job over hosts with mixed limits, killed and resumed, judged by the server's log.

Run it with
``python -m tests.sweeps.polite [--requests N] [--hosts N] [--kills N] [--seed N] [--workers N] [--moved SHARE]``; it
exits with 1 when a host was asked more, sooner or for something else than it allows, or when a row is lost or there
twice.

A kill is SIGKILL to all processes of the run but its workers, at a time drawn uniformly from the requests of the job.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.command import argv
from tests.sweeps.judge import Row, Verdict, judge
from tests.sweeps.limiting import Limiting, limiting
from tests.sweeps.limits import Host, hosts_of, list_of, settings_of
from tests.sweeps.politeness import BREACHES, Findings, Knowledge, Run, Seen, judge_host
from tests.sweeps.processes import alive, scars, started, workers_of

__all__ = ["LOOK", "Swept", "prepare", "report", "sweep"]

LOOK = 0.01  # seconds between two looks at the log's length
PATIENCE = 5.0  # seconds in which the workers of a killed run must be gone
DEADLINE = 1_800.0  # seconds for one run


@dataclass
class Swept:
    """What a job left: its hosts with what was found of each, its rows, and all else that was wrong."""

    hosts: Sequence[Host]
    found: list[Findings] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    verdict: Verdict = field(default_factory=lambda: Verdict(0))
    troubles: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether there is nothing to blame."""
        return not self.troubles and self.verdict.clean and not any(one.breaches for one in self.found)


def sweep(
    ground: Path, *, requests: int, hosts: int, kills: int, seed: int, workers: int = 1, moved: float = 0.0
) -> Swept:
    """Run one job of about so many requests, struck so many times, and judge it; its folder is ``ground``.

    It has so many ``workers``, and of its rows the share ``moved`` redirects to another host.
    """
    swept = Swept(hosts_of(hosts, requests))
    with limiting(swept.hosts, ground / "server.log", seed) as site:
        rows = list_of(swept.hosts, site.port, seed, moved=moved)
        words = [*prepare(ground, swept.hosts, rows), "--workers", str(workers)]
        chance = random.Random(seed)
        asked = sum(host.asked for host in swept.hosts)
        for moment in sorted(chance.uniform(0.0, asked) for _ in range(kills)):
            _run(swept, words, ground, site, moment)
        _run(swept, words, ground, site, None)
    swept.verdict = judge(ground / "pages.jsonl", rows)
    swept.found = findings_of(swept.hosts, site.seen(), swept.runs, workers=workers)
    return swept


def findings_of(
    hosts: Sequence[Host], seen: Sequence[Seen], runs: Sequence[Run], *, workers: int = 1
) -> list[Findings]:
    """Judge each host by what it saw.

    That a process has read an answer shows in what it sends to any host. With several it shows in what is sent to that
    host alone: each has one worker, and another's next request proves nothing of it.
    """
    by_host: dict[int, list[Seen]] = {host.number: [] for host in hosts}
    for one in seen:
        by_host[one.host].append(one)
    if workers > 1:
        return [judge_host(host, own := by_host[host.number], runs, Knowledge(own)) for host in hosts]
    knowledge = Knowledge(seen)
    return [judge_host(host, by_host[host.number], runs, knowledge) for host in hosts]


def prepare(ground: Path, hosts: Sequence[Host], rows: Sequence[Row]) -> list[str]:
    """Write the list and the limits into the folder; return the command that crawls it."""
    (ground / "polite.toml").write_text(settings_of(hosts))
    (ground / "urls.txt").write_text("".join(f"{row.url}\n" for row in rows))
    return argv("crawl", "urls.txt", "-o", "pages.jsonl", "--config", "polite.toml", "-q")


def _run(swept: Swept, words: Sequence[str], ground: Path, site: Limiting, moment: float | None) -> None:
    """Run until so many requests of the job were answered and kill it then, or to its end."""
    with started(words, ground) as (process, said):
        began = time.monotonic()
        while process.poll() is None and time.monotonic() < began + DEADLINE:
            if moment is not None and site.answers >= moment:
                workers = workers_of(process.pid)
                os.killpg(process.pid, signal.SIGKILL)
                if alive(workers, PATIENCE):  # they have a session of their own, and see by themselves that it is over
                    swept.troubles.append(f"workers outlived their run by {PATIENCE:g} s")
                break
            time.sleep(LOOK)
        code = process.poll() if moment is None else process.wait()
        ended = time.monotonic()
        heard = said.read_text(errors="replace")
    swept.runs.append(Run(began, ended))
    swept.troubles += scars(heard)
    if code != (0 if moment is None else -signal.SIGKILL):
        swept.troubles.append(f"run {len(swept.runs)} ended with {code}: {heard[-1500:]}")


def report(swept: Swept) -> str:
    """Return a table with a line for each kind of host, what was found, and the totals in the last line."""
    lines = [f"{'kind of host':<18} {'hosts':>5} {'requests':>9} " + " ".join(f"{name:>11}" for name in BREACHES)]
    lines[0] += f" {'forgiven':>9} {'crossed':>8}"
    kinds = list(dict.fromkeys(host.kind for host in swept.hosts))
    for kind in kinds:
        found = [one for host, one in zip(swept.hosts, swept.found, strict=True) if host.kind is kind]
        lines.append(_line(kind.name, found))
    lines.append(_line("all", swept.found))
    lines += [remark for one in swept.found for remark in one.remarks[:3]][:30]
    lines += swept.troubles
    breaches = sum(one.breaches.total() for one in swept.found)
    requests = sum(one.requests for one in swept.found)
    lines.append(
        f"{requests} requests to {len(swept.hosts)} hosts in {len(swept.runs)} runs: {breaches} breaches, "
        f"{sum(one.forgiven for one in swept.found)} early after a kill and forgiven, "
        f"{sum(one.crossed for one in swept.found)} crossed a refusal; {swept.verdict}"
    )
    return "\n".join(lines)


def _line(name: str, found: Sequence[Findings]) -> str:
    breaches: Counter[str] = Counter()
    for one in found:
        breaches.update(one.breaches)
    counts = " ".join(f"{breaches[breach]:>11}" for breach in BREACHES)
    requests, forgiven = sum(one.requests for one in found), sum(one.forgiven for one in found)
    return f"{name:<18} {len(found):>5} {requests:>9} {counts} {forgiven:>9} {sum(one.crossed for one in found):>8}"


def main() -> int:
    """Sweep, print what was found, and say by the exit code whether all was well."""
    parser = argparse.ArgumentParser(prog="python -m tests.sweeps.polite", description="Judge a crawl by the servers.")
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--hosts", type=int, default=200)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--moved", type=float, default=0.0, help="share of the rows that redirect to another host")
    wanted = parser.parse_args()
    ground = Path(tempfile.mkdtemp(prefix="fetcher-polite-"))
    swept = sweep(
        ground,
        requests=wanted.requests,
        hosts=wanted.hosts,
        kills=wanted.kills,
        seed=wanted.seed,
        workers=wanted.workers,
        moved=wanted.moved,
    )
    took = sum(run.ended - run.began for run in swept.runs)
    print(f"one job, killed {len(swept.runs) - 1} times, in {took:.0f} s")
    print(report(swept))
    if not swept.clean:
        print(f"what is left of it is in {ground}", file=sys.stderr)
        return 1
    shutil.rmtree(ground)
    return 0


if __name__ == "__main__":
    sys.exit(main())
