"""One budget of descriptors: what is too much at once is lowered and said, and idle connections make room first."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fetcher.errors import ResourceError
from fetcher.transport.descriptors import (
    MAX_SHORTAGE_SECONDS,
    RESERVED_DESCRIPTORS,
    Shortage,
    most_concurrency,
    out_of_descriptors,
    out_of_memory,
)
from tests.lab.command import environment
from tests.lab.town import living_in

ROWS = 400
LIMIT = 128


def test_what_the_limit_leaves() -> None:
    assert most_concurrency(None, 500) == 500
    assert most_concurrency(192, 100) == 100
    assert most_concurrency(192, 500) == 168
    assert most_concurrency(8, 500) == 7
    assert most_concurrency(1, 5) == 1


def test_a_want_of_ours_is_told_from_a_hosts_fault() -> None:
    assert out_of_descriptors(OSError(24, "too many open files"))
    assert not out_of_descriptors(OSError(111, "refused"))
    assert not out_of_descriptors(ValueError())
    assert out_of_memory(MemoryError())
    assert out_of_memory(OSError(12, "cannot allocate"))
    assert not out_of_memory(OSError(111, "refused"))


def test_a_shortage_that_does_not_pass_ends_the_run() -> None:
    shortage = Shortage()
    assert shortage.pause("memory", 100.0) > 0
    assert shortage.pause("memory", 100.0 + MAX_SHORTAGE_SECONDS) > 0
    with pytest.raises(ResourceError, match="no memory left"):
        shortage.pause("memory", 101.0 + MAX_SHORTAGE_SECONDS)
    shortage.over()
    assert shortage.pause("memory", 300.0) > 0


@pytest.mark.parametrize("concurrency", [40, 500])
def test_a_hard_limit_loses_no_row(tmp_path: Path, concurrency: int) -> None:
    """More hosts than there are descriptors: each connection is idle when its page is there, and used by nobody."""
    with living_in() as town:
        urls = [town.url("living", f"127.3.{n // 250}.{1 + n % 250}", n, 5) for n in range(ROWS)]
        (tmp_path / "urls.txt").write_text("\n".join(urls))
        words = f"ulimit -n {LIMIT}; exec {sys.executable} -m fetcher crawl urls.txt -o pages.jsonl -c {concurrency} --summary s.json"
        done = subprocess.run(
            ["sh", "-c", words],
            cwd=tmp_path,
            env=environment(tmp_path),
            stderr=subprocess.PIPE,
            timeout=120,
            check=False,
        )
    said = done.stderr.decode()
    assert done.returncode == 0, said
    records = [json.loads(line) for line in (tmp_path / "pages.jsonl").read_text().splitlines()]
    assert [record["error"] for record in records] == [None] * ROWS
    notes = json.loads((tmp_path / "s.json").read_text())["notes"]
    allowed = most_concurrency(LIMIT - RESERVED_DESCRIPTORS, concurrency)
    if allowed < concurrency:
        assert f"-c {concurrency} is lowered to {allowed}" in said
        assert len(notes) == 1
    else:
        assert notes == []
