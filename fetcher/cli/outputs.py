"""The two ends of a crawl: where its rows come from, and where its outcomes and the summary go."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncIterable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import msgspec

from fetcher.cli.plan import Plan
from fetcher.client import Fetcher
from fetcher.errors import SinkError
from fetcher.files import write_all
from fetcher.job.resume import ResumeState
from fetcher.model import Outcome, Sink
from fetcher.sinks import Layout, sink_for
from fetcher.sinks.layout import ItemColumns
from fetcher.sources import Row, estimate_rows, has_free_fields, is_url_argument, is_url_list, read_lists
from fetcher.sources.inputs import format_of
from fetcher.stats import Stats
from fetcher.store import is_store_url

if TYPE_CHECKING:
    from fetcher.found.rows import FoundRows
    from fetcher.sinks.body_sink import BodySink
    from fetcher.sources.network import ListStore
    from fetcher.stored.page import StoredFile

__all__ = [
    "CrawlOutput",
    "PlainOutput",
    "estimate_total",
    "open_output",
    "open_source",
    "print_text",
    "reads_network",
    "write_summary",
    "write_text",
]


class CrawlOutput(Protocol):
    """Where the outcomes of a crawl go: a ``Job``, or plain outputs."""

    stats: Stats
    resume_state: ResumeState

    @property
    def since(self) -> str:
        """What is compared with, in words; empty where that is nothing."""
        ...

    @property
    def kept_list(self) -> ListStore | None:
        """What keeps lists that are read over the network; ``None`` for nothing."""
        ...

    @property
    def found(self) -> FoundRows | None:
        """The rows that links become, where it keeps them itself."""
        ...

    @property
    def spill_folder(self) -> str | None:
        """Where rows wait that memory has no place for; ``None`` for where the system has temporary files."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def left(self, rows: Any) -> Any:
        """Return the rows that are still to be fetched."""
        ...

    def left_pages(self, file: StoredFile) -> Any:
        """Return the pages of a file that are still to be read."""
        ...

    async def write(self, outcome: Outcome) -> None:
        """Take one outcome."""
        ...


class PlainOutput:
    """Outputs without a ledger: standard output, pipes, devices, and files where no job is wanted."""

    spill_folder: str | None = None
    found: FoundRows | None = None
    kept_list: ListStore | None = None

    def __init__(self, plan: Plan, fetcher: Fetcher) -> None:
        self.stats = Stats()
        self.resume_state = ResumeState()
        self.since = ""
        self._plan = plan
        self._fetcher = fetcher
        self._sinks: list[Sink] = []
        self._bodies: BodySink | None = None
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        plan, layout = self._plan, _layout(self._plan, self._fetcher)
        async with contextlib.AsyncExitStack() as stack:
            self.since = await self._compare(stack, layout)
            for path in plan.outputs:
                sink = sink_for(path, layout, format=plan["format"], fresh=plan["fresh"])
                self._sinks.append(await stack.enter_async_context(sink))
            if plan.body_place == "folder":
                from fetcher.sinks.body_folder import BodyFolder  # most runs keep no bodies
                from fetcher.sinks.body_sink import BodySink

                self._bodies = await stack.enter_async_context(BodySink(BodyFolder(plan["body"]), self._sinks))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def _compare(self, stack: contextlib.AsyncExitStack, layout: Layout) -> str:
        """Have pages compared with those of an earlier run, if that is asked for; return what they are in words."""
        plan = self._plan
        if plan["since"] is None:
            return ""
        from fetcher.job.since import EarlierPages
        from fetcher.sinks.body_folder import BodyFolder

        bodies = BodyFolder(plan["body"]) if plan.body_place == "folder" else None
        earlier = EarlierPages(
            self._fetcher,
            plan["since"],
            layout=layout,
            outputs=plan.outputs,
            max_age=plan["max_age"],
            bodies=bodies,
        )
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fetcher-"))
        stack.callback(earlier.close)
        await asyncio.to_thread(earlier.open, folder)
        stack.enter_context(self._fetcher.comparing(earlier))
        return earlier.about

    def left(self, rows: Any, *, stored: bool = False) -> Any:  # noqa: ARG002  (nothing is known of earlier runs)
        """Return all rows."""
        return rows

    def left_pages(self, file: StoredFile) -> Any:
        """Return all pages."""
        return file.pages()

    async def write(self, outcome: Outcome) -> None:
        """Write the outcome to every output, and its body to the folder before."""
        if self._bodies is not None:
            await self._bodies.write(outcome)
            return
        for sink in self._sinks:
            await sink.write(outcome)


def open_output(plan: Plan, fetcher: Fetcher) -> CrawlOutput:
    """Return the job of a plan, or its plain outputs."""
    if plan.job is None:
        return PlainOutput(plan, fetcher)
    from fetcher.job.job import Job

    return Job(
        fetcher,
        *plan.outputs,
        directory=plan.job,
        format=plan["format"],
        layout=_layout(plan, fetcher),
        body=plan["body"],
        fresh=plan["fresh"],
        retry=plan.retry,
        verify=plan["verify"],
        inputs=plan.inputs,
        list_options=plan.list_options,
        total=estimate_total(plan),
        since=plan["since"],
        max_age=plan["max_age"],
    )


def estimate_total(plan: Plan) -> int | None:
    """Return about how many rows a plan's lists have, ``None`` where that cannot be told without reading them."""
    total = plan.stored.total if plan.stored is not None else estimate_rows(plan.inputs, plan.list_options)
    limit, shard = plan.config.limits.rows, plan.config.shard
    if limit is not None:
        total = min(limit, total or limit)
    return total if total is None or shard is None else -(-total // shard.of)


def open_source(
    plan: Plan, fetcher: Fetcher | None = None, output: CrawlOutput | None = None
) -> Iterable[Row] | AsyncIterable[Row]:
    """Return the rows of a plan's lists; those on the network are fetched by ``fetcher``, and kept by ``output``."""
    if fetcher is not None and reads_network(plan):
        kept = output.kept_list if output is not None else None
        return fetcher.read(plan.inputs, kept=kept, **msgspec.structs.asdict(plan.list_options))
    rows = read_lists(plan.inputs, plan.list_options)
    if not any(map(_may_block, plan.inputs)):
        return rows
    from fetcher.sources.threaded_iterator import ThreadedIterator

    return ThreadedIterator(
        rows
    )  # a pipe may keep its reader waiting for as long as it likes: not the event loop's thread


def reads_network(plan: Plan) -> bool:
    """Tell whether a list, or a sitemap that one lists, may have to be fetched."""
    return plan["from"] == "sitemap" or any(is_url_list(text, plan["from"]) for text in plan.inputs)


def _may_block(path: str) -> bool:
    return (
        path == "-"
        or is_store_url(path)
        or (not is_url_argument(path) and os.path.exists(path) and not os.path.isfile(path))
    )


def write_summary(path: str | None, text: str) -> None:
    """Write the summary where ``--summary`` says, if it does. Raises ``SinkError``."""
    if path is not None:
        write_text(path, text, what="the summary")


def write_text(path: str, text: str, *, what: str) -> None:
    """Write a text to a file, or to stdout for ``-``. Raises ``SinkError`` that says ``what`` cannot be written."""
    try:
        if path == "-":
            print_text(text)
        else:
            Path(path).write_text(text, encoding="utf-8")
    except BrokenPipeError:
        raise
    except OSError as error:
        raise SinkError(f"{path}: cannot write {what}: {error.strerror or error}") from None


def print_text(text: str) -> None:
    """Write to stdout, all of it: under PYTHONUNBUFFERED ``sys.stdout`` would write once, and lose what a pipe left."""
    sys.stdout.flush()
    try:
        descriptor = sys.stdout.fileno()
    except OSError:  # it was replaced, as tests do
        sys.stdout.write(text)
        return
    write_all(descriptor, text.encode(sys.stdout.encoding or "utf-8", "replace"))


def _layout(plan: Plan, fetcher: Fetcher) -> Layout:
    """Return what the records of a plan look like."""
    return Layout.of(
        plan.config,
        plan.body_place,
        since=plan["since"] is not None,
        fields=_fields(plan),
        select=tuple(dict.fromkeys(fetcher.reader.selected_names)),
        select_lists=tuple(fetcher.reader.selected_lists),
        select_types=tuple(fetcher.reader.selected_types),
        explode=ItemColumns.of(fetcher.reader.explosion),
        free_fields=not _has_one_list(plan),
        free_data=plan.extract is not None,
        byte_order_mark=plan["csv_bom"],
        part_rows=plan["part_rows"],
    )


def _has_one_list(plan: Plan) -> bool:
    """Whether all rows have the same columns: those of one table, or none, or those that are carried of free keys."""
    if plan.stored is not None:
        return not plan.stored.free_fields
    kinds = {format_of(path, plan["from"]) for path in plan.inputs if plan["from"] or not is_url_argument(path)}
    if kinds <= {"txt"} or kinds == {"sitemap"}:
        return True
    unseen = any(_may_block(path) or is_url_list(path, plan["from"]) for path in plan.inputs)
    if len(plan.inputs) != 1 or (kinds != {"jsonl"} and unseen):
        return False
    return bool(_fields(plan)) or not has_free_fields(plan.inputs, plan.list_options)


def _fields(plan: Plan) -> tuple[str, ...] | None:
    """Return the columns a table gets of the list's own: those of the first row; of a list of free keys those carried."""
    if plan.stored is not None:
        return plan.stored.fields
    if plan["from"] == "sitemap":
        from fetcher.sources.sitemap import carried_fields

        return carried_fields(plan.list_options.carry)
    free = plan["from"] == "jsonl" or any(".jsonl" in path or ".ndjson" in path for path in plan.inputs)
    return (plan.list_options.carry or ()) if free else None
