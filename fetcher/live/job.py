"""What the page shows of a job by its ledger alone: also after a crash, and while a run works on it elsewhere.

Law 6: the ledger is only read, at one moment of it each time. What is dear to read is read less often. Where it cannot
be read any more (a run begins again, a folder is moved) the last that was seen stays, with the reason.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence

import msgspec

from fetcher.errors import ConfigError, LedgerError
from fetcher.job.durations import durations_of
from fetcher.job.pace import PaceRow
from fetcher.job.paths import LEDGER, LOCK
from fetcher.job.report import COMPLETE, INTERRUPTED, RUNNING, STOPPED, JobReport, JobSnapshot, figures_of, holder_of
from fetcher.job.schema import JOURNALS
from fetcher.job.shards import ShardsReport, report_shards
from fetcher.live.figures import MAX_POINTS, Latencies, thinned
from fetcher.live.state import MAX_CODES, MAX_HOSTS, Eta, Latency, LiveState, Point, RowCounts, State
from fetcher.stats import counted
from fetcher.terminal import printable

__all__ = ["JobSource"]

REST_SHARE = 20  # a ledger is read at most so many times its own cost apart
MAX_REST_SECONDS = 30.0
PACE_SECONDS = 5.0


class JobSource:
    """The jobs in ``folders``: one, or the shards of a list. The first look raises ``LedgerError`` and ``ConfigError``."""

    def __init__(self, folders: Sequence[str], *, together: bool) -> None:
        self.marks: list[float] = []
        self._folders = list(folders)
        self._together = together
        self._points: list[Point] = []
        self._last: LiveState | None = None
        self._seen: object = None
        self._next_look = 0.0

    async def state(self) -> LiveState:
        """Return how the job stands."""
        now = time.monotonic()
        if self._last is not None and now < self._next_look:
            return self._last
        try:
            self._last = await asyncio.to_thread(self.look)
        except (LedgerError, ConfigError) as error:
            if self._last is None:
                raise
            self._last = msgspec.structs.replace(
                self._last, trouble=f"{printable(str(error), 500)}. What is shown is as it last was."
            )
        spent = time.monotonic() - now
        self._next_look = now + min(REST_SHARE * spent, MAX_REST_SECONDS)
        return self._last

    def points(self) -> Sequence[Point]:
        """Return how far the job was over its life."""
        return self._points

    def tick(self) -> None:
        """Do nothing: the ledger has it all."""

    def look(self) -> LiveState:
        """Read the ledgers, unless nothing has changed. Raises ``LedgerError`` and ``ConfigError``."""
        seen = [_stamp(folder) for folder in self._folders]
        if self._last is not None and seen == self._seen and self._last.trouble is None:
            return self._last
        latencies = Latencies()
        if self._together:
            figures: JobReport | ShardsReport = report_shards(self._folders, hosts=MAX_HOSTS)
            paces = []
            for folder in self._folders:
                with JobSnapshot(folder) as view:
                    paces.append(view.pace() or [])
                    _count(latencies, view)
        else:
            with JobSnapshot(self._folders[0]) as view:
                figures = figures_of(view, MAX_HOSTS)
                paces = [view.pace() or []]
                _count(latencies, view)
        self._points, self.marks = _life_of(paces)
        self._seen = seen
        return _state_of(figures, self._points, latencies.as_latency(), ", ".join(map(printable, self._folders)))


def _stamp(folder: str) -> tuple[object, ...]:
    """Return what changes with a ledger, and with whether a run works on it."""
    path = os.path.join(folder, LEDGER)
    stamps: list[object] = []
    for name in (path, path + JOURNALS[0], os.path.join(folder, LOCK)):
        try:
            status = os.stat(name)
        except OSError:
            stamps.append(None)
        else:
            stamps.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return (*stamps, holder_of(folder))


def _count(latencies: Latencies, view: JobSnapshot) -> None:
    for milliseconds, many in durations_of(view):
        latencies.add(milliseconds / 1000, many)


def _life_of(paces: Sequence[Sequence[PaceRow]]) -> tuple[list[Point], list[float]]:
    """Return how far the jobs were together over their life, and when runs began: by the runs' own clocks, one after another.

    Shards run side by side, so for several the system's clock says what was at one time; where it was set back, time
    stands.
    """
    moments: list[tuple[float, int, PaceRow, PaceRow | None]] = []
    marks: list[float] = []
    start = min((pace[0].at - pace[0].seconds for pace in paces if pace), default=0.0)
    for number, pace in enumerate(paces):
        when, passed, before = 0.0, 0.0, None
        for row in pace:
            if before is not None and row.run != before.run:
                passed += before.seconds
            if before is None or row.run != before.run:
                marks.append(passed if len(paces) == 1 else max(when, row.at - row.seconds - start))
            when = max(when, passed + row.seconds if len(paces) == 1 else row.at - start)
            moments.append((when, number, row, before))
            before = row
    moments.sort(key=lambda moment: (moment[0], moment[1]))
    sums = [0, 0, 0, 0]
    points = [Point(0.0, 0, 0, 0, 0, 0)] if moments else []
    on_wire = [0] * len(paces)
    for when, number, row, before in moments:
        earlier = before if before is not None and before.run == row.run else None
        for at, name in enumerate(("ok", "failed", "skipped", "bytes")):
            sums[at] += max(0, getattr(row, name) - (getattr(earlier, name) if earlier is not None else 0))
        on_wire[number] = row.on_wire
        points.append(Point(round(when, 2), sums[0], sums[1], sums[2], sums[3], sum(on_wire)))
    return thinned(points, MAX_POINTS), sorted(marks)


def _state_of(
    figures: JobReport | ShardsReport, points: Sequence[Point], latency: Latency | None, name: str
) -> LiveState:
    shards = figures if isinstance(figures, ShardsReport) else None
    estimate = figures.estimate if isinstance(figures, JobReport) else None
    total = estimate if figures.left is None or shards is None else figures.done + figures.left
    counts = RowCounts(
        figures.input, figures.ok, figures.failed, figures.skipped, figures.pending, figures.more, figures.bytes, total
    )
    running = figures.state == RUNNING
    pages, rows, size = _pace_of(points) if running else (0.0, 0.0, 0.0)
    if not running:
        pages = figures.pages_per_second if isinstance(figures, ShardsReport) else figures.last_pages_per_second
    codes = list(figures.codes.items())
    hosts = {host.host: host for host in (*figures.slowest, *figures.failing)}
    return LiveState(
        name=name,
        kind="job",
        state=_STATES.get(figures.state, "interrupted"),
        seconds=figures.seconds,
        counts=counts,
        pages_per_second=pages,
        bytes_per_second=size,
        codes=codes[:MAX_CODES],
        other_codes=sum(many for _, many in codes[MAX_CODES:]),
        point=points[-1] if points else None,
        eta=_eta(figures, rows),
        hosts=list(hosts.values())[:MAX_HOSTS],
        known_hosts=figures.hosts,
        latency=latency,
        shards=shards.shards if shards is not None else None,
        trouble="; ".join(shards.notes) or None if shards is not None else None,
    )


_STATES: dict[str, State] = {
    RUNNING: "running",
    COMPLETE: "complete",
    STOPPED: "stopped",
    INTERRUPTED: "interrupted",
}


def _pace_of(points: Sequence[Point]) -> tuple[float, float, float]:
    """Return pages, rows and bytes a second over the last commits, five seconds of them at least."""
    if len(points) < 2:
        return 0.0, 0.0, 0.0
    last = points[-1]
    first = next((point for point in reversed(points[:-1]) if last.seconds - point.seconds >= PACE_SECONDS), points[0])
    passed = last.seconds - first.seconds
    if passed <= 0:
        return 0.0, 0.0, 0.0
    rows = last.ok + last.failed + last.skipped - first.ok - first.failed - first.skipped
    return (last.ok - first.ok) / passed, rows / passed, (last.bytes - first.bytes) / passed


def _eta(figures: JobReport | ShardsReport, rows_per_second: float) -> Eta:
    if figures.state == COMPLETE:
        return Eta(0.0, "all is done")
    if figures.state != RUNNING:
        return Eta(None, "no run works on it: the same command continues")
    if figures.left is None:
        return Eta(None, "the list is still being read, and nobody knows how long it is")
    if rows_per_second <= 0:
        return Eta(None, "nothing was committed of late")
    return Eta(figures.left / rows_per_second, f"{counted(figures.left, 'row')} left, by the pace of its last commits")
