"""The ends of a crawl: its rows, where the outcomes are put, into a job or into plain outputs, and the summary."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from fetcher.cli.plan import Plan
from fetcher.client import Fetcher
from fetcher.errors import SinkError
from fetcher.model import Outcome, Sink
from fetcher.sinks import open_sink
from fetcher.sources import Row, estimate_rows, is_url_argument, read
from fetcher.sources.threaded_iterator import ThreadedIterator
from fetcher.stats import ResumeState, Stats

__all__ = ["Deposit", "Plain", "open_deposit", "open_source", "write_summary"]


class Deposit(Protocol):
    """What a crawl needs to know of where its outcomes go."""

    stats: Stats
    standing: ResumeState

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def left(self, rows: Iterable[Row] | AsyncIterable[Row]) -> Any:
        """Return the rows that are still to be fetched."""
        ...

    async def write(self, outcome: Outcome) -> None:
        """Take one outcome."""
        ...


class Plain:
    """Outputs without a ledger: standard output, pipes, devices, and files where no job is wanted."""

    def __init__(self, plan: Plan) -> None:
        self.stats = Stats()
        self.standing = ResumeState()
        self._plan = plan
        self._sinks: list[Sink] = []
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        plan = self._plan
        names = [rule.partition("=")[0].strip().removesuffix("[]") for rule in plan.config.select]
        async with contextlib.AsyncExitStack() as stack:
            for path in plan.outputs:
                sink = open_sink(path, format=plan["format"], fresh=plan["fresh"], fields=_fields(plan), select=names)
                self._sinks.append(await stack.enter_async_context(sink))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    def left(self, rows: Iterable[Row] | AsyncIterable[Row]) -> Any:
        """Return all rows."""
        return rows

    async def write(self, outcome: Outcome) -> None:
        """Write the outcome to every output."""
        for sink in self._sinks:
            await sink.write(outcome)


def open_deposit(plan: Plan, fetcher: Fetcher) -> Deposit:
    """Return the job of a plan, or its plain outputs."""
    if plan.job is None:
        return Plain(plan)
    from fetcher.job.run import Job

    total = estimate_rows(plan.inputs, format=plan["from"])
    rows = plan.config.limits.rows
    return Job(
        fetcher,
        *plan.outputs,
        directory=plan.job,
        format=plan["format"],
        fields=_fields(plan),
        fresh=plan["fresh"],
        retry=plan.retry,
        inputs=plan.inputs,
        input_format=plan["from"],
        url_column=plan["url_column"],
        total=total if rows is None else min(rows, total or rows),
    )


def open_source(plan: Plan) -> Iterable[Row] | AsyncIterable[Row]:
    """Return the rows of a plan's lists."""
    rows = read(plan.inputs, format=plan["from"], url_column=plan["url_column"])
    # A pipe may keep its reader waiting for as long as it likes: not the event loop's thread.
    return ThreadedIterator(rows) if any(map(_may_block, plan.inputs)) else rows


def _may_block(path: str) -> bool:
    return path == "-" or (not is_url_argument(path) and os.path.exists(path) and not os.path.isfile(path))


def write_summary(path: str | None, text: str) -> None:
    """Write the summary where ``--summary`` says (``-`` is stdout), if it does. Raises ``SinkError``."""
    if path is None:
        return
    try:
        if path == "-":
            sys.stdout.write(text)
            sys.stdout.flush()
        else:
            Path(path).write_text(text, encoding="utf-8")
    except BrokenPipeError:
        raise
    except OSError as error:
        raise SinkError(f"{path}: cannot write the summary: {error.strerror or error}") from None


def _fields(plan: Plan) -> tuple[str, ...] | None:
    """Return the columns a CSV gets of the list's own: those of the first row, but none of a list of free keys."""
    free = plan["from"] == "jsonl" or any(".jsonl" in path or ".ndjson" in path for path in plan.inputs)
    return () if free else None
