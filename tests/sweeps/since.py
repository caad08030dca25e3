"""Owns the sweep of ``--since``: a site that has changed a little is fetched again by a run that is killed over and over.

Run it with ``python -m tests.sweeps.since [KILLS] [--pages N] [--format jsonl …] [--seed N]``; it exits with 1 where a
row is lost, is there twice, or has another ``change`` than the site's own history says, and where fewer kills were
struck.

Of the pages of the first run a fiftieth has changed, a hundredth is gone from the list, and as many are new there; the
list is shuffled. A kill comes at a random moment of a run, so that some strike while the earlier output is read.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.command import Running
from tests.lab.desk import Desk
from tests.lab.server import LabServer
from tests.lab.versioned import VersionedSite

__all__ = ["Played", "play"]

LONGEST_RUN_SECONDS = 1.5  # before its kill
MOST_RUNS = 3  # for each kill: one may come when the job is done


@dataclass
class Played:
    """What became of one job: the kills that struck, what the server answered, and what is wrong."""

    format: str
    kills: int = 0
    answers: Counter[int] = field(default_factory=Counter)
    share: float = 0.0  # of the first run's bytes
    changes: Counter[str] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        told = ", ".join(f"{count} answers {status}" for status, count in sorted(self.answers.items()))
        found = ", ".join(f"{count} {change}" for change, count in sorted(self.changes.items()))
        return f"{self.format}: {self.kills} kills; {told}; {self.share:.1%} of the bytes; {found}" + "".join(
            f"\n  {trouble}" for trouble in self.troubles
        )


def play(lab: LabServer, folder: Path, kills: int, *, pages: int = 500, kind: str = "jsonl", seed: int = 1) -> Played:
    """Fetch a site, change it, and fetch it again by a job that is killed so often; ``kind`` is the earlier output's."""
    folder.mkdir(parents=True, exist_ok=True)
    desk, chance, played = Desk(lab, folder), random.Random(f"{kind} {seed}"), Played(kind)
    names = [f"p{number}" for number in range(pages)]
    site = lab.site.own["", "/versioned"] = VersionedSite(*names)
    desk.write(desk.urls(*names, path="/versioned"))
    assert desk.crawl("-q", to=f"old.{kind}").code == 0
    first = site.sent
    site.sent, site.told = 0, Counter()
    few = pages // 100
    changed, new = names[: 2 * few], [f"new{number}" for number in range(few)]
    site.versions |= dict.fromkeys(changed, 2) | dict.fromkeys(new, 1)
    expected = dict.fromkeys(names[: pages - few], "unchanged") | dict.fromkeys(changed, "changed")
    expected |= dict.fromkeys(new, "new")
    listed = list(expected)
    chance.shuffle(listed)
    desk.write(desk.urls(*listed, path="/versioned"))
    words = desk.words("--since", f"old.{kind}", "-q", to="new.jsonl")
    if kills:
        rate = pages / (kills * LONGEST_RUN_SECONDS / 2)  # so slow that there is a row left for the last kill
        _kill([*words, "--rate", f"{rate:.1f}"], desk, played, kills, chance)
    ended = desk.crawl("--since", f"old.{kind}", "-q", to="new.jsonl")
    if ended.code != 0:
        played.troubles.append(f"it ended with {ended.code}: {ended.said[-500:]}")
    played.answers, played.share = site.told, site.sent / first
    _judge(desk, expected, played)
    return played


def _kill(words: list[str], desk: Desk, played: Played, kills: int, chance: random.Random) -> None:
    for _ in range(MOST_RUNS * kills):
        with Running(*words, folder=desk.folder) as running:
            try:
                running.process.wait(chance.uniform(0.0, LONGEST_RUN_SECONDS))
            except subprocess.TimeoutExpired:
                running.send(signal.SIGKILL)
            code = running.end().code
        if code == 0:
            return
        if code != -signal.SIGKILL:
            played.troubles.append(f"a run ended with {code}")
        played.kills += 1
        if played.kills == kills:
            return


def _judge(desk: Desk, expected: dict[str, str], played: Played) -> None:
    records = desk.records("new.jsonl")
    seen = Counter(str(record["url"]).rpartition("=")[2] for record in records)
    played.changes = Counter(str(record["change"]) for record in records)
    if lost := expected.keys() - seen.keys():
        played.troubles.append(f"{len(lost)} rows are lost: {sorted(lost)[:5]}")
    if twice := [name for name, count in seen.items() if count > 1]:
        played.troubles.append(f"{len(twice)} rows are there twice: {twice[:5]}")
    for record in records:
        name = str(record["url"]).rpartition("=")[2]
        if record["error"] is not None or record["change"] != expected.get(name):
            told = record["error"] or record["change"]
            played.troubles.append(f"{name} is {told}, and was {expected.get(name)}")


def main() -> int:
    """Play each format, print what was found, and say by the exit code whether all was well."""
    parser = argparse.ArgumentParser(prog="python -m tests.sweeps.since", description="Kill a run that compares.")
    parser.add_argument("kills", type=int, nargs="?", default=20)
    parser.add_argument("--pages", type=int, default=500)
    parser.add_argument("--format", nargs="+", default=["jsonl"], help="of the earlier output")
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    good = True
    with LabServer.in_thread() as lab, tempfile.TemporaryDirectory(prefix="fetcher-since-") as ground:
        for kind in wanted.format:
            began = time.monotonic()
            played = play(lab, Path(ground, kind), wanted.kills, pages=wanted.pages, kind=kind, seed=wanted.seed)
            print(f"{played}\n  {time.monotonic() - began:.0f} s", flush=True)
            good = good and not played.troubles and played.kills == wanted.kills
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
