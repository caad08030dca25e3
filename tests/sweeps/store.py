"""Owns the sweep of a store: a job whose parts lie in S3, killed, cut off, and in the end gone on with by an empty disk.

Run it with
``python -m tests.sweeps.store [KILLS] [--rows N] [--part-rows N] [--format parquet|jsonl|csv] [--seed N] [--no-cuts]``;
it exits with 1 when a row is lost or is there twice, or when a part cannot be read by pyarrow or by duckdb.

The server is moto's, behind a line that is cut for ten seconds once, and once for good, until the run gives up.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.workers import serving
from tests.lab.bucket import Bucket, missing, serving_bucket
from tests.lab.command import argv, environment
from tests.sweeps.processes import scars

__all__ = ["Swept", "read_part", "sweep"]

HOSTS = 50
PAGE_BYTES = 200
LOOK_SECONDS = 0.3
DEADLINE = 3_600.0
PREFIX = "pages/"
SUFFIXES = {"parquet": ".parquet", "jsonl": ".jsonl.zst", "csv": ".csv.gz"}


@dataclass
class Swept:
    """What became of the job."""

    rows: int
    runs: int = 0
    kills: int = 0
    parts: int = 0
    lost: int = 0
    twice: int = 0
    unreadable: int = 0
    seconds: float = 0.0
    troubles: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.rows} rows, {self.kills} kills in {self.runs} runs, {self.parts} parts, in {self.seconds:.0f} s: {self.lost} lost, "
            f"{self.twice} twice, {self.unreadable} unreadable; {len(self.troubles)} troubles"
        )


class Sweep:
    """One job, from its first run to its last."""

    def __init__(
        self, bucket: Bucket, ground: Path, *, port: int, rows: int, part_rows: int, form: str, chance: random.Random
    ) -> None:
        self.swept = Swept(rows)
        self._chance = chance
        self._bucket = bucket
        self._ground = ground
        self._form = form
        self._list = ground / "urls.txt"
        self._list.write_text(
            "".join(f"http://127.0.0.{number % HOSTS + 1}:{port}/tiny/{number}\n" for number in range(1, rows + 1))
        )
        self._words = ["crawl", str(self._list), "-o", f"s3://{bucket.name}/{PREFIX}", "-f", form, "--no-robots"]
        self._words += ["--part-rows", str(part_rows), "--no-progress", "--per-host", "20"]

    def run(self, folder: str, *, struck_at: int | None = None, cut: tuple[int, float] | None = None) -> int:
        """Run the job, killed once so many parts are there, or with the line cut then for some seconds; return the exit code."""
        place = self._ground / folder
        place.mkdir(exist_ok=True)
        said = place / f"said-{self.swept.runs}.txt"
        self.swept.runs += 1
        with open(said, "wb") as stderr:
            process = subprocess.Popen(
                argv(*self._words),
                cwd=place,
                env=environment(place, **self._bucket.environment()),
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
            )
        began = time.monotonic()
        try:
            if cut is not None and self._reached(process, cut[0]):
                self._bucket.line.cut()
                self._waited(process, cut[1])
                self._bucket.line.mend()
            if struck_at is None:
                self._waited(process, DEADLINE)
            elif self._reached(process, struck_at) and self._waited(process, self._chance.uniform(0.0, 2.0)):
                process.send_signal(signal.SIGKILL)
                self.swept.kills += 1
        finally:
            self._bucket.line.mend()
            if process.poll() is None:
                process.kill()
            code = process.wait()
        heard = said.read_text(errors="replace")
        self.swept.troubles += scars(heard)
        if code not in (0, -signal.SIGKILL) and not (code == 1 and cut is not None):
            self.swept.troubles.append(f"it ended with {code}: {heard[-1_000:]}")
        print(
            f"run {self.swept.runs} in {folder}: {code} after {time.monotonic() - began:.0f} s, {self._parts()} parts: "
            f"{heard.strip().splitlines()[-1][:300] if heard.strip() else ''}",
            flush=True,
        )
        return code

    def judge(self) -> Swept:
        """Read every part, twice, and count the rows."""
        swept = self.swept
        seen: Counter[int] = Counter()
        suffix = SUFFIXES[self._form]
        for path in self._bucket.fetch(PREFIX, self._ground / "fetched", suffix):
            swept.parts += 1
            try:
                seen.update(read_part(path, self._form))
            except Exception as error:  # whatever it is, the part is no good
                swept.unreadable += 1
                swept.troubles.append(f"{path.name}: {error!r:.300}")
            path.unlink()
        swept.lost = sum(number not in seen for number in range(1, swept.rows + 1))
        swept.twice = sum(many > 1 for many in seen.values())
        if strangers := [number for number in seen if not 1 <= number <= swept.rows]:
            swept.troubles.append(f"rows that are not in the list: {strangers[:5]}")
        return swept

    def _reached(self, process: subprocess.Popen[bytes], parts: int) -> bool:
        """Wait until so many parts are there; say whether it still runs."""
        while self._parts() < parts:
            if not self._waited(process, LOOK_SECONDS):
                return False
        return process.poll() is None

    def _parts(self) -> int:
        return sum(name.startswith("part-") for name in self._bucket.names(PREFIX))

    @staticmethod
    def _waited(process: subprocess.Popen[bytes], seconds: float) -> bool:
        """Wait for so long; say whether it still runs."""
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False


def read_part(path: Path, form: str) -> list[int]:
    """Return the ids of a part, as pyarrow and duckdb both read them. Raises ``ValueError`` where they differ."""
    import duckdb

    reader = {"parquet": "read_parquet", "jsonl": "read_json", "csv": "read_csv"}[form]
    more = ", format='newline_delimited'" if form == "jsonl" else ""
    found = duckdb.execute(f"SELECT id FROM {reader}('{path}'{more})").fetchall()
    one = [int(row[0]) for row in found]
    two = list(_by_arrow(path, form))
    if sorted(one) != sorted(two):
        raise ValueError(f"duckdb reads {len(one)} rows, pyarrow {len(two)}")
    return one


def _by_arrow(path: Path, form: str) -> Iterable[int]:
    import pyarrow as pa
    from pyarrow import csv, json, parquet

    if form == "parquet":
        table: Any = parquet.read_table(path, columns=["id"])
    else:
        reader = csv.read_csv if form == "csv" else json.read_json
        with pa.input_stream(str(path), compression="zstd" if form == "jsonl" else "gzip") as stream:
            table = reader(stream)
    return [int(number) for number in table.column("id").to_pylist()]


def sweep(
    kills: int,
    *,
    ground: Path,
    rows: int = 200_000,
    part_rows: int = 5_000,
    form: str = "parquet",
    seed: int = 1,
    cuts: bool = True,
) -> Swept:
    """Strike a job so many times, the last time with its disk lost; return what became of it."""
    began = time.monotonic()
    with serving_bucket() as bucket, serving(PAGE_BYTES) as port:
        chance = random.Random(seed)
        job = Sweep(bucket, ground, port=port, rows=rows, part_rows=part_rows, form=form, chance=chance)
        share = max(1, rows // part_rows // (kills + 1))
        for number in range(1, kills + 1):
            cut = (share * (number - 1) + share // 2, 10.0) if cuts and number == 3 else None
            if job.run("here", struck_at=share * number, cut=cut) == 0:
                break
            if cuts and number == 5:
                job.run("here", cut=(share * number + share // 2, DEADLINE))  # for good: it gives up by itself
        shutil.rmtree(ground / "here", ignore_errors=True)
        job.run("elsewhere")
        job.run("elsewhere")  # there is nothing left to do
        swept = job.judge()
    swept.seconds = time.monotonic() - began
    return swept


def main() -> int:
    """Sweep, print what was found, and say by the exit code whether all was well."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.sweeps.store", description="SIGKILL a job whose parts are in S3."
    )
    parser.add_argument("kills", type=int, nargs="?", default=10)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--part-rows", type=int, default=5_000)
    parser.add_argument("--format", default="parquet", choices=[*SUFFIXES])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-cuts", action="store_true", help="leave the line alone")
    wanted = parser.parse_args()
    if (what := missing()) is not None:
        print(what)
        return 1
    ground = Path(tempfile.mkdtemp(prefix="fetcher-store-"))
    swept = sweep(
        wanted.kills,
        ground=ground,
        rows=wanted.rows,
        part_rows=wanted.part_rows,
        form=wanted.format,
        seed=wanted.seed,
        cuts=not wanted.no_cuts,
    )
    print("\n".join(swept.troubles))
    print(swept)
    bad = swept.lost or swept.twice or swept.unreadable or swept.troubles or swept.kills < wanted.kills
    shutil.rmtree(ground)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
