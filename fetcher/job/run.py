"""A job: a list that survives whatever ends the process, and goes on where it was.

Law 1: the stats are the job's, not the run's. Law 6: what was acknowledged is durable; what was not is redone. One
record a row, whatever happens: the outputs are cut back to what the ledger knows, and the rest is fetched.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import AsyncIterable, Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

from fetcher.client import Fetcher
from fetcher.errors import ConfigError, InvalidURL
from fetcher.intake import Row
from fetcher.job.choice import choose_codes
from fetcher.job.ledger import Entry, Progress
from fetcher.job.memory import delays_of, remember, rests_of
from fetcher.job.open import Opened, open_job
from fetcher.job.place import folder_for
from fetcher.job.rows import Sieve, digest_of
from fetcher.job.terms import Terms
from fetcher.job.writer import Writer
from fetcher.model import Outcome, Page
from fetcher.sinks import DurableFile, format_of, open_durable
from fetcher.sinks.compress import SUFFIXES
from fetcher.stats import ResumeState, Stats
from fetcher.urls import parse

__all__ = ["Job"]

T = TypeVar("T")


class Job:
    """A list being fetched into files, that survives ``kill -9``: the same job again goes on with what is missing.

    ``outputs`` are regular files, their formats by suffix or ``format``. The ledger lies in ``directory``, by default
    beside the first output. ``fresh`` begins again. ``retry`` names codes or classes of failures to take up once more
    (``failed`` for all). ``fields`` are the list's own columns in a CSV. ``inputs``, ``input_format`` and
    ``url_column`` describe the list, for it must stay what it is. ``total`` is about how many rows it has.

    >>> async def mirror(urls):
    ...     async with Fetcher() as fetcher, Job(fetcher, "pages.jsonl") as job:
    ...         return await job.run(urls)

    Entering raises ``ConfigError`` for terms that changed, ``JobLocked``, ``LedgerError`` and ``SinkError``.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        *outputs: str | os.PathLike[str],
        directory: str | os.PathLike[str] | None = None,
        format: str | None = None,  # noqa: A002  # the option's own name
        fields: Sequence[str] | None = None,
        fresh: bool = False,
        retry: Collection[str] = (),
        inputs: Sequence[str] = (),
        input_format: str | None = None,
        url_column: str = "url",
        total: int | None = None,
    ) -> None:
        if not outputs:
            raise ConfigError("a job needs an output: give it the path of a file")
        self.stats = Stats()
        self.standing = ResumeState()
        self._fetcher = fetcher
        config = fetcher.config
        paths = [os.fspath(path) for path in outputs]
        self.directory = os.fspath(directory) if directory is not None else folder_for(paths)
        names = [rule.partition("=")[0].strip().removesuffix("[]") for rule in config.select]
        self._outputs: list[DurableFile] = [
            open_durable(path, format=format, fields=fields, select=names) for path in paths
        ]
        self._terms = Terms.of(
            config,
            inputs=inputs,
            input_format=input_format,
            url_column=url_column,
            outputs=[_format_of(path, format) for path in paths],
            extract=fetcher.reader.extractor_name,
        )
        self._choose = choose_codes(retry)
        self._asked = frozenset(name.strip().lower() for name in retry)
        self._fresh = fresh
        self._total = total
        self._thread: ThreadPoolExecutor | None = None
        self._opened: Opened | None = None
        self._writer: Writer | None = None
        self._began = 0.0

    async def __aenter__(self) -> Self:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fetcher-job")
        try:
            opened = await self._in_thread(self._open)
        except BaseException:
            if self._opened is not None:  # cancelled meanwhile
                await self._in_thread(self._opened.abandon)
            self._thread.shutdown(wait=False)
            raise
        tally = opened.ledger.tally()
        stats = self.stats
        stats.ok, stats.failed, stats.skipped, stats.bytes = tally.ok, tally.failed, tally.skipped, tally.bytes
        stats.codes = Counter(tally.codes)
        stats.input = stats.done
        left = None if self._total is None else max(0, self._total - stats.done)
        self.standing = ResumeState(opened.resumed, stats.done, stats.ok, opened.retried, opened.slot.suspect, left)
        self._began = time.monotonic()
        gate = self._fetcher.gate
        if opened.resumed:
            longest = self._fetcher.config.retry.max_retry_after
            gate.restore(
                rests_of(opened.parked, opened.delays, time.time(), longest, path=self.directory),
                delays_of(opened.delays, path=self.directory),
            )
        self._writer = Writer(
            opened.ledger,
            self._outputs,
            thread=self._thread,
            progress=self._progress,
            notes=lambda: remember(gate, time.time()),
        )
        reader = self._fetcher.reader
        reader.slot = opened.slot.mark
        reader.suspects = frozenset({opened.slot.suspect} - {0})
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._opened is not None
        assert self._writer is not None
        assert self._thread is not None
        opened = self._opened
        self._fetcher.reader.slot = None
        self._fetcher.reader.suspects = frozenset()
        complete = not self.stats.more and not self.stats.pending
        try:
            await self._writer.close()
            await self._in_thread(lambda: opened.end(self._progress(), complete=complete))
        except BaseException:
            await self._in_thread(opened.abandon)
            raise
        finally:
            self._thread.shutdown(wait=False)

    def left(self, rows: Iterable[Row] | AsyncIterable[Row]) -> Any:
        """Return the rows of the list that are still to be fetched, as a source for ``Fetcher.stream``."""
        assert self._opened is not None
        config = self._fetcher.config
        sieve = Sieve(self._opened.ledger.finished(), limit=config.limits.rows, passing=config.dedupe)
        return sieve.left_later(rows) if isinstance(rows, AsyncIterable) else sieve.left(rows)

    async def write(self, outcome: Outcome) -> None:
        """Take one outcome. Raises ``SinkError`` and ``LedgerError``, also of what was written before."""
        assert self._writer is not None
        request = outcome.request
        entry = Entry(
            id=request.id,
            digest=digest_of(request),
            code="ok" if isinstance(outcome, Page) else outcome.error.code,
            status=outcome.status,
            bytes=outcome.bytes,
            elapsed=outcome.elapsed,
            attempts=outcome.attempts,
            host=self._host_of(request.url),
        )
        await self._writer.write(entry, [output.encode(outcome) for output in self._outputs])

    async def run(self, urls: Iterable[Row] | AsyncIterable[Row]) -> Stats:
        """Fetch what is left of the list and return the stats of the whole job."""
        async with self._fetcher.stream(self.left(urls), stats=self.stats, spill_folder=self.directory) as outcomes:
            async for outcome in outcomes:
                await self.write(outcome)
        return self.stats

    def _open(self) -> Opened:
        self._opened = open_job(
            self.directory,
            self._outputs,
            terms=self._terms,
            fresh=self._fresh,
            choose=self._choose,
            asked=self._asked,
        )
        return self._opened

    def _host_of(self, url: str) -> str:
        try:
            return parse(url, self._fetcher.config.default_scheme).host
        except InvalidURL:
            return ""

    def _progress(self) -> Progress:
        stats = self.stats
        return Progress(
            taken=stats.input,
            more=stats.more,
            estimate=self._total,
            seconds=time.monotonic() - self._began,
            ok=stats.ok - self.standing.ok,
            bytes=stats.bytes,
        )

    async def _in_thread(self, act: Callable[[], T]) -> T:
        """Run ``act`` in the writer's thread, to its end even when we are cancelled meanwhile."""
        running = asyncio.get_running_loop().run_in_executor(self._thread, act)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):  # the cancellation is what is raised
                await running
            raise


def _format_of(path: str, given: str | None) -> str:
    packing = path[path.rfind(".") :].lower()
    return format_of(path, given) + (packing if packing in SUFFIXES else "")
