"""A job: a list of URLs fetched into files, that survives whatever ends the process and goes on where it was.

Law 1: the counts are the job's, not the run's. Law 2: what a job is asked to write is checked before anything is opened:
what does not go together is a ``ConfigError``, before a row is fetched. Law 6: what was acknowledged is durable; what
was not is redone. A row has one record, whatever happens: at the start each output is cut back to what the ledger knows
(``opening``), and the rest is fetched.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import AsyncIterable, Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import methodcaller
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from fetcher.client import Fetcher
from fetcher.compression import SUFFIXES
from fetcher.config import Config
from fetcher.errors import ConfigError, InvalidURL
from fetcher.intake import Followed, Row
from fetcher.job.host_memory import delays_of, pauses_of, remember
from fetcher.job.identity import JobIdentity
from fetcher.job.ledger import OK, LedgerRow, RunProgress
from fetcher.job.opening import OpenJob, open_job
from fetcher.job.paths import CRASH_MARKER, folder_for, work_folder
from fetcher.job.resume import FinishedPages, ResumeFilter, ResumeState, choose_codes, digest_of
from fetcher.job.writer import Writer
from fetcher.model import Outcome, Page
from fetcher.sinks import JobOutput, Layout, check_store, format_of, needs_messages, open_job_outputs
from fetcher.sinks.layout import BodyPlace, ItemColumns, body_place
from fetcher.sources.inputs import DEFAULT_OPTIONS, ListOptions
from fetcher.sources.rows import FinishedRow
from fetcher.stats import Stats
from fetcher.store import is_store_url, parse_address
from fetcher.urls import parse

if TYPE_CHECKING:
    from fetcher.job.found_rows import LedgerRows
    from fetcher.job.kept_list import KeptList
    from fetcher.job.since import EarlierPages
    from fetcher.sinks.body_folder import BodyFolder
    from fetcher.stored.page import RowsBeingRead, StoredFile, StoredPage

__all__ = ["Job", "bodies_of", "body_shown", "check_job_outputs", "format_shown", "layout_of", "paths_of"]

T = TypeVar("T")


class Job:
    """A list being fetched into files, that survives ``kill -9``: the same job again goes on with what is missing.

    ``outputs`` are regular files, their formats by suffix or ``format``. The ledger lies in ``directory``, by default
    beside the first output. ``fresh`` begins again. ``retry`` names codes or classes of failures to take up once more
    (``failed`` for all). ``verify`` has the outputs looked at whole before anything is fetched, not their last 64 MB.
    ``fields`` are the list's own columns in a table; a ``layout`` says all that records look like. ``body`` says where
    bodies go: ``none``, ``inline`` for a column, or the path of a folder (see ``BodyFolder``); it needs a config with
    ``keep_body``. ``inputs`` and ``list_options`` (of ``fetcher.sources``) describe the list, for it must not change.
    ``total`` is about how many rows it has. ``since`` is the output of an earlier run, in a store its prefix, or a
    pattern of files of which the newest complete one counts: pages are asked for only if they have changed since,
    records say what has (``change``), and what was confirmed less than ``max_age`` seconds ago is not asked for at all.
    Where the fetcher follows links, ``found`` are the rows that they become, for ``Fetcher.stream``. ``stats`` are the
    counts of all runs, ``resume_state`` says how far the job was when it was opened. ``kept_list`` keeps lists that are
    read over the network, for ``Fetcher.read(…, kept=job.kept_list)``.

    >>> async def mirror(urls):
    ...     async with Fetcher() as fetcher, Job(fetcher, "pages.jsonl") as job:
    ...         return await job.run(urls)

    Entering raises ``ConfigError`` where what must not change has changed, ``JobLocked``, ``LedgerError`` and
    ``SinkError``.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        *outputs: str | os.PathLike[str],
        directory: str | os.PathLike[str] | None = None,
        format: str | None = None,  # noqa: A002  # the option's own name
        fields: Sequence[str] | None = None,
        layout: Layout | None = None,
        body: str | os.PathLike[str] = "none",
        fresh: bool = False,
        retry: Collection[str] = (),
        verify: bool = False,
        inputs: Sequence[str] = (),
        list_options: ListOptions = DEFAULT_OPTIONS,
        total: int | None = None,
        since: str | os.PathLike[str] | None = None,
        max_age: float | None = None,
    ) -> None:
        if not outputs:
            raise ConfigError("a job needs an output: give it the path of a file")
        self.stats = Stats()
        self.resume_state = ResumeState()
        self._fetcher = fetcher
        paths = paths_of(outputs, format, fetcher.config)
        self.directory = os.fspath(directory) if directory is not None else folder_for(paths)
        self._kept_list: KeptList | None = None
        check_job_outputs(paths, format, fetcher.config, os.fspath(body), inputs)
        self._layout = layout or layout_of(fetcher, fields, body_place(os.fspath(body)), since=since is not None)
        self._bodies = bodies_of(fetcher, os.fspath(body), self.directory)
        self._earlier = self._earlier_of(since, max_age, paths)
        self.found: LedgerRows | None = None
        self._outputs: list[JobOutput] = open_job_outputs(
            paths, self._layout, work=lambda ordinal: work_folder(self.directory, ordinal), format=format
        )
        self._identity = self._identity_of(
            inputs=inputs,
            list_options=list_options,
            outputs=[format_shown(path, format) for path in paths],
            since=None if since is None else os.fspath(since),
        )
        self._inputs = tuple(inputs)
        self._choose = choose_codes(retry)
        self._retry_names = frozenset(name.strip().lower() for name in retry)
        self._fresh, self._verify = fresh, verify
        self._total = None if fetcher.config.follow.asked else total
        self._thread: ThreadPoolExecutor | None = None
        self._opened: OpenJob | None = None
        self._marking = contextlib.ExitStack()
        self._writer: Writer | None = None
        self._began = 0.0

    def _identity_of(self, **known: Any) -> JobIdentity:
        layout, fetcher = self._layout, self._fetcher
        return JobIdentity.of(
            fetcher.config,
            extract=fetcher.reader.extractor_name,
            body=body_shown(layout, self._bodies),
            csv_bom=layout.byte_order_mark,
            one_table=not layout.free_fields,
            **known,
        )

    def _earlier_of(
        self, since: str | os.PathLike[str] | None, max_age: float | None, paths: Sequence[str]
    ) -> EarlierPages | None:
        if since is None:
            if max_age is not None:
                raise ConfigError(
                    "max_age: how old what is known of a page may be; name the output that knows it, since"
                )
            return None
        from fetcher.job.since import EarlierPages

        return EarlierPages(
            self._fetcher,
            os.fspath(since),
            layout=self._layout,
            outputs=paths,
            max_age=max_age,
            bodies=self._bodies,
        )

    async def __aenter__(self) -> Self:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fetcher-job")
        try:
            self._restore(await self._in_thread(self._open))
        except BaseException:
            self._marking.close()
            if self._earlier is not None:
                self._earlier.close()
            try:
                if self._opened is not None:  # cancelled meanwhile, or what it noted cannot be read
                    await self._in_thread(self._opened.abandon)
            finally:
                self._thread.shutdown(wait=False)
            raise
        return self

    def _restore(self, opened: OpenJob) -> None:
        """Take up what earlier runs knew, and be ready to write."""
        tally = opened.ledger.tally()
        stats = self.stats
        stats.ok, stats.failed, stats.skipped, stats.bytes = tally.ok, tally.failed, tally.skipped, tally.bytes
        stats.codes = Counter(tally.codes)
        stats.input = stats.done
        if opened.ledger.found is not None:
            from fetcher.job.found_rows import LedgerRows  # most jobs follow no links

            self.found = LedgerRows(
                opened.ledger.found.rules,
                stats,
                ledger=opened.ledger,
                concurrency=self._fetcher.config.limits.concurrency,
                in_thread=self._in_thread,
            )
            stats.input += opened.ledger.unfinished()
        left = None if self._total is None else max(0, self._total - stats.done)
        suspect = opened.marker.suspect
        self.resume_state = ResumeState(opened.resumed, stats.done, stats.ok, opened.retried, suspect, left)
        if self._earlier is not None:
            self._marking.callback(self._earlier.close)
            self._marking.enter_context(self._fetcher.comparing(self._earlier))
        self._began = time.monotonic()
        gate = self._fetcher.gate
        if opened.resumed:
            longest = self._fetcher.config.retry.max_retry_after
            gate.restore(
                pauses_of(opened.parked, opened.delays, time.time(), longest, path=self.directory),
                delays_of(opened.delays, path=self.directory),
            )
        marking = self._fetcher.reader.marking(
            opened.marker.mark, suspects=opened.marker.suspects, slots=os.path.join(self.directory, CRASH_MARKER)
        )
        self._marking.enter_context(marking)
        assert self._thread is not None
        self._writer = Writer(  # the last: it has a timer
            opened.ledger,
            self._outputs,
            thread=self._thread,
            progress=self._progress,
            notes=lambda: remember(gate, time.time()),
            folder=self._bodies,
            found=self.found,
        )
        if self.found is not None:
            self.found.commit_soon = self._writer.commit_soon

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._opened is not None
        assert self._writer is not None
        assert self._thread is not None
        opened = self._opened
        self._marking.close()
        if self._kept_list is not None:
            self._kept_list.close()
        if self.found is not None:
            self.found.close()
        try:
            await self._writer.close()
            complete = not self.stats.more and not self.stats.pending  # what was found last is counted now
            await self._in_thread(lambda: opened.end(self._progress(), complete=complete))
        except BaseException:
            await self._in_thread(opened.abandon)
            raise
        finally:
            self._thread.shutdown(wait=False)

    def left(self, rows: Iterable[Row] | AsyncIterable[Row]) -> Any:
        """Return the rows of the list that are still to be fetched, as a source for ``Fetcher.stream``.

        Give that ``stats`` and ``spill_folder`` of this job as well.
        """
        assert self._opened is not None
        config = self._fetcher.config
        if isinstance(rows, Followed):
            raise ConfigError("follow: a job follows by its fetcher's options: Fetcher(follow=True, depth=2)")
        unfinished = ResumeFilter(self._opened.ledger.finished(), limit=config.limits.rows, passing=config.dedupe)
        return unfinished.left_async(rows) if isinstance(rows, AsyncIterable) else unfinished.left(rows)

    def left_pages(self, file: StoredFile) -> Iterator[StoredPage | FinishedRow | RowsBeingRead]:
        """Return the pages of a file that are still to be read, as a source for ``Extraction.stream``."""
        assert self._opened is not None
        limit = self._fetcher.config.limits.rows
        return FinishedPages(self._opened.ledger.finished(), limit=limit).left(file)

    @property
    def kept_list(self) -> KeptList:
        """What keeps the lists that are read over the network, while the job is open."""
        from fetcher.job.kept_list import KeptList

        if self._kept_list is None:
            self._kept_list = KeptList(self.directory)
        return self._kept_list

    @property
    def since(self) -> str:
        """What the job compares with, in words; empty where that is nothing."""
        return "" if self._earlier is None else self._earlier.about

    @property
    def spill_folder(self) -> str:
        """Where rows wait that memory has no place for: on the disk of the job."""
        return self.directory

    async def write(self, outcome: Outcome) -> None:
        """Take one outcome. Raises ``SinkError`` and ``LedgerError``, also of what was written before."""
        assert self._writer is not None
        body = None
        if self._bodies is not None:
            outcome, body = await self._bodies.place(outcome)
        request = outcome.request
        named = None
        if self.found is not None:
            from fetcher.found.rows import links_of  # as above

            self.found.wrote()
            named = links_of(outcome)
        try:
            host = parse(request.url, self._fetcher.config.default_scheme).host
        except InvalidURL:
            host = ""
        chunks: list[bytes] = list(map(methodcaller("encode", outcome), self._outputs))
        row = LedgerRow(
            id=request.id,
            digest=digest_of(request),
            code=OK if isinstance(outcome, Page) else outcome.error.code,
            status=outcome.status,
            bytes=0 if isinstance(outcome, Page) and outcome.change is not None and outcome.carried else outcome.bytes,
            elapsed=outcome.elapsed,
            attempts=outcome.attempts,
            host=host,
        )
        await self._writer.write(row, chunks, body, named)

    async def run(self, urls: Iterable[Row] | AsyncIterable[Row]) -> Stats:
        """Fetch what is left of the list and return the stats of the whole job."""
        source = self.left(urls)
        stream = self._fetcher.stream(source, stats=self.stats, spill_folder=self.spill_folder, found=self.found)
        async with stream as outcomes:
            async for outcome in outcomes:
                await self.write(outcome)
        return self.stats

    def _open(self) -> OpenJob:
        self._opened = open_job(
            self.directory,
            self._outputs,
            bodies=self._bodies,
            identity=self._identity,
            fresh=self._fresh,
            verify=self._verify,
            choose=self._choose,
            retry_names=self._retry_names,
            earlier=self._earlier,
            follow=self._fetcher.config.follow if self._fetcher.config.follow.asked else None,
        )
        if any(map(is_store_url, self._inputs)):
            from fetcher.job.stored_lists import note_lists  # most lists are on this disk

            note_lists(self._opened.ledger, self._inputs)
        return self._opened

    def _progress(self) -> RunProgress:
        stats = self.stats
        return RunProgress(
            taken=stats.input,
            more=stats.more,
            estimate=self._total,
            seconds=max(0.0, time.monotonic() - self._began),
            ok=stats.ok - self.resume_state.ok,
            bytes=stats.bytes,
            on_wire=self._fetcher.gate.on_wire,
            at=time.time(),
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


def layout_of(fetcher: Fetcher, fields: Sequence[str] | None, place: BodyPlace, *, since: bool) -> Layout:
    """Return what records look like: by the config and the extractor, with the list's own ``fields``."""
    return Layout.of(
        fetcher.config,
        place,
        since=since,
        fields=None if fields is None else tuple(dict.fromkeys(fields)),
        select=tuple(dict.fromkeys(fetcher.reader.selected_names)),
        select_lists=tuple(fetcher.reader.selected_lists),
        select_types=tuple(fetcher.reader.selected_types),
        explode=ItemColumns.of(fetcher.reader.explosion),
    )


def paths_of(outputs: Sequence[str | os.PathLike[str]], given: str | None, config: Config) -> list[str]:
    """Return the outputs' paths. Raises ``ConfigError`` for one that needs what is not kept."""
    paths = [os.fspath(path) for path in outputs]
    for path in paths:
        if needs_messages(path, given) and not config.keep_messages:
            raise ConfigError(f"{path}: a WARC is made of the messages themselves: Config.of(keep_messages=True)")
    return paths


def check_job_outputs(
    paths: Sequence[str],
    format: str | None,  # noqa: A002  # the option's own name
    config: Config,
    body: str,
    inputs: Sequence[str] = (),
) -> None:
    """Raise ``ConfigError`` for what does not go together with an output in a store."""
    url = next((path for path in paths if is_store_url(path)), None)
    if url is None:
        return
    if len(paths) > 1:
        raise ConfigError(
            f"{url}: an output in a store is a job's only one, for another machine must be able to go on with it alone: "
            "write the others by a run of their own"
        )
    if config.follow.asked:
        raise ConfigError(
            f"{url}: rows that are found (--follow) are known to a ledger alone, and not yet to a store: "
            "leave out --follow, or write to a folder here (-o pages/ -f parquet) and copy it there when it is complete"
        )
    if body_place(body) == "folder":
        raise ConfigError(
            f"{url}: bodies in a folder stay on this machine: keep them in the parts, with --body inline or -f warc"
        )
    place = parse_address(url, ConfigError)
    for listed in inputs:
        if is_store_url(listed) and parse_address(listed, ConfigError).is_within(place):
            raise ConfigError(
                f"output: {listed} is a list that is to be read, and lies under {url}: write to another prefix"
            )
    check_store(url, format_of(url, format), config.content.columns)


def bodies_of(fetcher: Fetcher, body: str, directory: str) -> BodyFolder | None:
    """Return where bodies are stored, if they are. Raises ``ConfigError`` where there will be none, or no place."""
    place = body_place(body)
    if place != "none" and not fetcher.config.keep_body:
        raise ConfigError(f"body: {body!r} needs the bodies of pages: give the fetcher a config with keep_body=True")
    if place != "folder":
        return None
    if os.path.realpath(body) == os.path.realpath(directory):
        raise ConfigError(f"body: {body} is the folder of the job; name one of its own")
    from fetcher.sinks.body_folder import BodyFolder  # most runs keep no bodies

    return BodyFolder(body, owner=os.path.realpath(directory))


def body_shown(layout: Layout, bodies: BodyFolder | None) -> str:
    """Return what must not change of where bodies go: a folder may be moved, and another one has not the files."""
    if bodies is not None:
        return os.path.basename(os.path.abspath(bodies.path)) + "/"
    return "inline" if "body" in layout.columns else "none"


def format_shown(path: str, given: str | None) -> str:
    """Return what must not change of an output's format: with its packing."""
    packing = path[path.rfind(".") :].lower()
    return format_of(path, given) + (packing if packing in SUFFIXES else "")
