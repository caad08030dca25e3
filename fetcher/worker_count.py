"""How many workers a run has: decided once, before the first request.

More than one is worth its start for a list of some thousand rows and some sites, on a machine with a core for each.
Law 3: what is read to find out is a part of the look-ahead. Law 9: the decision is a plain function.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterable, Iterable, Iterator
from pathlib import Path

from fetcher.buckets import site_hash
from fetcher.config import Config, Limits
from fetcher.errors import InvalidURL, SourceError
from fetcher.intake import Row
from fetcher.model import Request
from fetcher.request_state import RequestState
from fetcher.sources.rows import BadRow, FinishedRow
from fetcher.urls import parse

__all__ = ["MANY", "MIN_ROWS", "choose", "cores", "how_many", "memory", "within_limits"]

log = logging.getLogger("fetcher.workers")

MIN_ROWS = 5_000
"""Rows under which one process is as fast."""
MIN_SITES = 8
MAX_WORKERS = 8
WORKER_BYTES = 150_000_000  # that a worker may take
MANY = 4
"""Workers for each core, above which more of them are a mistake."""
MAX_LOOK = 50_000  # rows that are looked at: there may be finished ones among them, and those of other shards
_SYSTEM = Path("/sys/fs/cgroup")
_PROC = Path("/proc/meminfo")


def how_many(rows: int, sites: int, cores: int, memory: int | None) -> int:
    """Return how many workers are worth their start for ``rows`` of so many ``sites``; ``memory`` is in bytes."""
    if rows < MIN_ROWS or sites < MIN_SITES:
        return 1
    by_memory = MAX_WORKERS if memory is None else memory // WORKER_BYTES
    return max(1, min(cores, MAX_WORKERS, by_memory))


def within_limits(workers: int, limits: Limits, *, machines: int = 1) -> int:
    """Return how many of so many workers have a slot each, and the memory for one page: of it, each machine has its own."""
    allowed = min(workers, limits.concurrency, machines * max(1, limits.memory // limits.max_size))
    if allowed < workers:
        log.warning(
            "workers: %d are lowered to %d: each needs a slot (-c) and the memory for one page (memory, max-size)",
            workers,
            allowed,
        )
    return allowed


async def choose(
    rows: Iterable[Row] | AsyncIterable[Row], config: Config, *, ordered: bool
) -> tuple[int, Iterable[Row] | AsyncIterable[Row]]:
    """Look at the first rows of a list; return how many workers it is worth, and all rows.

    A list that may keep its reader waiting (a pipe, the network) is not looked at: one worker, as where the outcomes
    are wanted in its order.
    """
    if ordered or isinstance(rows, AsyncIterable) or (available := cores()) < 2:
        return 1, rows
    rest, first = iter(rows), []
    sites: set[int] = set()
    found, shard = 0, config.shard
    try:
        for row in rest:
            first.append(row)
            if (host := _host_of(row, config.default_scheme)) is not None and (shard is None or shard.has(host)):
                found += 1
                if len(sites) < MIN_SITES:
                    sites.add(site_hash(host))
            if found >= MIN_ROWS or len(first) in (config.limits.rows, MAX_LOOK):
                break
    except SourceError as error:
        rest = _raising(error)  # once the rows before it have been taken
    many = found >= MIN_ROWS or len(first) == MAX_LOOK != config.limits.rows
    workers = how_many(MIN_ROWS if many else found, len(sites), available, memory())
    return workers, _together(first, rest)


def cores() -> int:
    """Return the cores that are ours: by affinity, and by the quota of the control group."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    quota = _read(_SYSTEM / "cpu.max").split()  # "200000 100000", or "max 100000"
    if len(quota) != 2:
        quota = [_read(_SYSTEM / "cpu/cpu.cfs_quota_us").strip(), _read(_SYSTEM / "cpu/cpu.cfs_period_us").strip()]
    if quota[0].isdigit() and quota[1].isdigit() and int(quota[1]):
        count = min(count, max(1, int(quota[0]) // int(quota[1])))
    return count


def memory() -> int | None:
    """Return the bytes of memory that are free for us, by the system and by the control group; ``None`` where unknown."""
    free = [1024 * int(line.split()[1]) for line in _read(_PROC).splitlines() if line.startswith("MemAvailable:")]
    most, used = _read(_SYSTEM / "memory.max").strip(), _read(_SYSTEM / "memory.current").strip()
    if most.isdigit() and used.isdigit():
        free.append(max(0, int(most) - int(used)))
    return min(free, default=None)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""


def _host_of(row: Row, default_scheme: str) -> str | None:
    if isinstance(row, RequestState):
        return row.target.host
    if isinstance(row, BadRow | FinishedRow):
        return None
    try:
        return parse(row.url if isinstance(row, Request) else row.strip(), default_scheme).host
    except InvalidURL:
        return None


def _raising(error: SourceError) -> Iterator[Row]:
    """Raise what was wrong with a list, in its place."""
    raise error
    yield


def _together(first: list[Row], rest: Iterator[Row]) -> Iterator[Row]:
    """Yield the first rows, and then those behind them. Closing it closes what they come from."""
    first.reverse()
    try:
        while first:
            yield first.pop()
        yield from rest
    finally:
        close = getattr(rest, "close", None)
        if close is not None:
            close()
