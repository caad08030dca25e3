"""What is seen of a bench while it runs: a bar for the present round on a terminal, a line for each round elsewhere."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Any, Self

from fetcher.bench.formatting import mode_flag
from fetcher.bench.results import Round
from fetcher.bench.runner import ProgressUpdate
from fetcher.report.notices import Notices
from fetcher.report.summary import human_seconds

__all__ = ["BenchProgress"]


class BenchProgress:
    """A ``with`` block around a bench: ``tell`` it of every moment. The bar leaves nothing on the terminal."""

    def __init__(self, notices: Notices, *, shown: bool) -> None:
        self._notices = notices
        self._shown = shown
        self._bar: Any = None

    def __enter__(self) -> Self:
        if self._shown and self._notices.can_draw:
            self._bar = _bar()
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            with contextlib.suppress(OSError):  # the terminal is gone, and the cursor with it
                self._bar.stop()

    def tell(self, moment: ProgressUpdate) -> None:
        """Show how far it is."""
        name = mode_flag(moment.step.mode, moment.step.concurrency)
        when = "warm-up" if moment.step.warm_up else f"round {moment.step.index}"
        if self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0],
                completed=moment.done,
                total=moment.step.rows,
                description=f"{moment.number} of {moment.of}: {when}, {name}",
            )
        elif self._shown and moment.round is not None:
            self._notices.say(f"{moment.number} of {moment.of}: {when}, {name}: {_line(moment.round)}")


def _line(round_: Round) -> str:
    pages = sum(sample.code is None for sample in round_.samples)
    failed = len(round_.samples) - pages
    rate = pages / round_.wall if round_.wall else 0.0
    return f"{human_seconds(round_.wall)}, {rate:,.1f} pages/s" + (f", {failed:,} failed" if failed else "")


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        refresh_per_second=8,
        redirect_stdout=False,  # data is data; what is said on stderr is lifted above the bar
    )
    bar.add_task("starting", total=None)
    return bar
