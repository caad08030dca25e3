"""What a run is doing: a live bar on a terminal, a line now and then elsewhere, and a table of what is in flight."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from fetcher.report.summary import human_seconds
from fetcher.request_state import InFlight
from fetcher.sinks.escape import printable
from fetcher.stats import Stats, counted

__all__ = ["Progress", "describe_in_flight"]

DRAW_SECONDS = 0.1  # between two drawings on a terminal
FIRST_LINE_SECONDS = 1.0  # to the first line elsewhere
LINE_SECONDS = 10.0  # between two lines then


class Progress:
    """Shows pages per second, ok and failed, and the time left where the ``total`` is known.

    ``stats`` returns the counts and ``busy`` the number of requests in flight. It is a bar where ``tell`` is ``None``,
    which leaves nothing on the terminal; else each line goes to ``tell``, with the counts.
    """

    def __init__(
        self,
        stats: Callable[[], Stats],
        busy: Callable[[], int],
        total: int | None,
        *,
        tell: Callable[..., None] | None = None,
    ) -> None:
        self._stats = stats
        self._busy = busy
        self._total = total
        self._tell = tell
        self._bar: Any = None
        self._task: asyncio.Task[None] | None = None
        self._began = time.monotonic()

    async def __aenter__(self) -> Self:
        if self._tell is None:
            self._bar = _bar(self._total)
            self._bar.start()
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.result()

    def clear(self) -> None:
        """Take the bar off the terminal and give the cursor back. Harmless twice."""
        bar, self._bar = self._bar, None
        if bar is not None:
            with contextlib.suppress(OSError):  # the terminal is gone, and the cursor with it
                bar.stop()

    async def _run(self) -> None:
        last_time, last_done, rate = self._began, self._stats().done, 0.0
        pause = DRAW_SECONDS if self._tell is None else FIRST_LINE_SECONDS
        while True:
            await asyncio.sleep(pause)
            stats, now = self._stats(), time.monotonic()
            if (passed := now - last_time) > 0:  # a clock may be set back
                momentary = (stats.done - last_done) / passed
                share = min(1.0, passed / 3)  # an average over some three seconds
                rate = momentary if rate <= 0 else rate + share * (momentary - rate)
            last_time, last_done = now, stats.done
            if self._tell is None:
                self._draw(stats, rate)
            else:
                facts = {"done": stats.done, "ok": stats.ok, "failed": stats.failed, "skipped": stats.skipped}
                self._tell(self._line(stats, rate), **facts, pages_per_second=round(rate, 1))
                pause = LINE_SECONDS

    def _draw(self, stats: Stats, rate: float) -> None:
        if self._bar is None:
            return
        skipped = f" {stats.skipped:,} skipped" if stats.skipped else ""
        self._bar.update(
            self._bar.task_ids[0],
            completed=stats.done,
            total=self._total if stats.more else stats.input,
            rate=f"{rate:,.0f} pages/s",
            counts=f"[green]{stats.ok:,} ok[/] [red]{stats.failed:,} failed[/]{skipped} {self._busy()} in flight",
        )

    def _line(self, stats: Stats, rate: float) -> str:
        total, about = (self._total, "about ") if stats.more else (stats.input, "")
        rows = counted(stats.done, "row") if total is None else f"{stats.done:,} of {about}{counted(total, 'row')}"
        skipped = f", {stats.skipped:,} skipped" if stats.skipped else ""
        left = ""
        if total is not None and rate > 0 and total > stats.done:
            left = f", about {human_seconds((total - stats.done) / rate)} left"
        return (
            f"{rows}: {stats.ok:,} ok, {stats.failed:,} failed{skipped}, "
            f"{self._busy():,} in flight, {rate:,.0f} pages/s{left}"
        )


def _bar(total: int | None) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    bar = RichProgress(
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[counts]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        auto_refresh=True,
        refresh_per_second=8,
        redirect_stdout=False,  # data is data; what is said on stderr is lifted above the bar
    )
    bar.add_task("", total=total, rate="", counts="")
    return bar


def describe_in_flight(rows: Sequence[InFlight], most: int = 200) -> str:
    """Return a table of the running requests for a terminal, the oldest first, at most ``most``; URLs are escaped."""
    stages = Counter(row.stage for row in rows)
    lines = [f"in flight: {len(rows)} " + ", ".join(f"{stage} {n}" for stage, n in stages.most_common())]
    lines += [
        f"{row.age:8.2f} s  {row.stage:<18} {row.in_stage:7.2f} s  row {row.id}  {printable(row.url, 200)}"
        for row in sorted(rows, key=lambda row: -row.age)[:most]
    ]
    if len(rows) > most:
        lines.append(f"… and {len(rows) - most} more")
    return "\n".join(lines)
