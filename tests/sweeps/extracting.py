"""Owns the sweep of ``fetcher extract``: what reads a web archive again is killed at random times, and taken up again.

Run it with ``python -m tests.sweeps.extracting [KILLS] [--pages N] [--folder DIR] [--workers N] [--seed N]``; it exits
with 1 when a page is lost, there twice, or other than the crawl made it. The pages are the HTML files of a folder,
Debian's python3-doc by default, as often as it takes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.lab.command import argv
from tests.lab.linked import LinkedSite, folder
from tests.sweeps.processes import DEADLINE, run, scars, started

__all__ = ["MANUAL", "archive", "kills"]

MANUAL = Path("/usr/share/doc/python3-doc/html")
COMPARED = ("url", "status", "length", "content_type", "charset", "title", "links", "digest")


def paths_of(root: Path) -> Iterator[str]:
    """Give the paths of a folder's pages, again and again, each time with another query."""
    files = sorted(f"/{file.relative_to(root).as_posix()}" for file in root.rglob("*.html"))
    for turn in itertools.count():
        yield from (f"{file}?{turn}" for file in files)


def archive(ground: Path, root: Path, pages: int, *, parts: int = 1) -> list[Path]:
    """Crawl so many pages into archives, each with its records beside it as JSON Lines. Returns the archives."""
    made = []
    with LinkedSite(folder(root.resolve()), hosts=8) as site:
        urls = [
            site.url(path, host=1 + number % 8) for number, path in enumerate(itertools.islice(paths_of(root), pages))
        ]
        for part in range(parts):
            (ground / "list.txt").write_text("\n".join(urls[part::parts]))
            made.append(ground / f"pages-{part}.warc.gz")
            outputs = ["-o", str(made[-1]), "-o", str(records_of(made[-1]))]
            words = argv("crawl", "list.txt", *outputs, "-c", "20", "--per-host", "20", "--no-robots", "-q", "--fresh")
            crawled = run(words, ground, 600.0)
            assert crawled.code == 0, crawled.said
    return made


def records_of(archive: Path) -> Path:
    """Return where the records of the crawl are that made an archive."""
    return archive.with_suffix("").with_suffix(".jsonl")


def _records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def judge(read: Path, crawled: Path) -> list[str]:
    """Return what is wrong with what was read out of an archive, beside the records of the crawl."""
    wanted = {record["id"]: [record[column] for column in COMPARED] for record in _records(crawled)}
    got = _records(read)
    ids = {record["id"] for record in got}
    troubles = []
    if len(got) != len(ids) or ids != set(wanted):
        lost, strange = len(set(wanted) - ids), len(ids - set(wanted))
        troubles.append(f"{lost} lost, {len(got) - len(ids)} twice, {strange} that are no rows of the crawl")
    if changed := [
        record["id"] for record in got if [record[column] for column in COMPARED] != wanted.get(record["id"])
    ]:
        troubles.append(f"{len(changed)} are not what the crawl made of them: {changed[:5]}")
    return troubles


# What multiprocessing says in a process that it was starting when the one that starts it was killed: none of ours runs yet.
ORPHAN = re.compile(
    r'Traceback \(most recent call last\):\n  File "<string>", line 1, in <module>\n'
    r'(?:    .*\n)*  File "[^"]*/multiprocessing/spawn\.py", line \d+, in spawn_main\n(?:  .*\n)*\w+(?:: .*)?\n'
)


def _unless_ours(said: re.Match[str]) -> str:
    return said[0] if "fetcher" in said[0] else ""


def kills(
    count: int, *, ground: Path, root: Path, pages: int, workers: int = 2, seed: int = 1, a_job: int = 4
) -> tuple[int, list[str]]:
    """Strike so many times, some a job; return how many struck, and what was wrong."""
    chance = random.Random(seed)
    (source,) = archive(ground, root, pages)
    job = ground / "job"
    words = argv("extract", str(source), "-o", "read.jsonl", "--workers", str(workers), "-q")
    troubles: list[str] = []

    def run_for(seconds: float | None) -> bool:
        with started(words, job) as (process, said):
            try:
                code = process.wait(DEADLINE if seconds is None else seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
            heard = said.read_text(errors="replace")
        struck = code == -signal.SIGKILL
        troubles.extend(scars(ORPHAN.sub(_unless_ours, heard) if struck else heard))
        if (struck and seconds is None) or (not struck and code):
            troubles.append(f"it ended with {code}: {heard[-800:]}")
        return struck

    def begin() -> None:
        shutil.rmtree(job, ignore_errors=True)
        job.mkdir()

    begin()
    began = time.monotonic()
    run_for(None)
    whole = time.monotonic() - began
    troubles += judge(job / "read.jsonl", records_of(source))
    hits = tries = 0
    while hits < count and tries < count + 10:
        tries += 1
        begin()
        for _ in range(min(a_job, count - hits)):
            if not run_for(chance.uniform(0.1 * whole, 0.9 * whole)):
                break
            hits += 1
        run_for(None)
        troubles += judge(job / "read.jsonl", records_of(source))
    return hits, troubles


def main() -> int:
    """Sweep, print what was found, and say by the exit code whether all was well."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.sweeps.extracting", description="Kill what reads a web archive again."
    )
    parser.add_argument("kills", type=int, nargs="?", default=20)
    parser.add_argument("--pages", type=int, default=5_000)
    parser.add_argument("--folder", type=Path, default=MANUAL)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fetcher-extracting-") as ground:
        struck, troubles = kills(
            wanted.kills,
            ground=Path(ground),
            root=wanted.folder,
            pages=wanted.pages,
            workers=wanted.workers,
            seed=wanted.seed,
        )
    print(f"{wanted.pages} pages, {struck} kills: {len(troubles)} troubles")
    for trouble in troubles:
        print(trouble)
    return 1 if troubles or struck < wanted.kills else 0


if __name__ == "__main__":
    sys.exit(main())
