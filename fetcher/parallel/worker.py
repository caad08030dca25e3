"""A worker: a process that runs ``concurrent`` for the sites it is given, until it is told that there are no more rows.

On another machine it is the same process, and a relay stands beside it (``ray_relay.py``), which gives it a file for
its crash marker (``--marker FILE``) and a lease (``--lease SECONDS``): it ends when it has been told nothing for so
long, not even an empty batch.

Law 1: a row that came in goes out as an outcome, or as a value that another worker goes on with. Law 4: what waits here
holds what it would hold in one process. Law 8: a host that is not of its sites is never asked; its slots and its rate
are what the parent says. It ends with its parent, however that one ends. Signals are the parent's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pkgutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec

from fetcher import event_loop
from fetcher.buckets import bucket_of
from fetcher.errors import ConfigError, FetcherError
from fetcher.files import open_regular
from fetcher.middleware.chain import Handlers
from fetcher.model import Middleware, Outcome, Page
from fetcher.page.messages import is_plain
from fetcher.page.reader import Reader
from fetcher.parallel.carried import placed
from fetcher.parallel.channel import SocketChannel, open_channel
from fetcher.parallel.messages import (
    ChangeHosts,
    CrawlSettings,
    FromWorker,
    HostNews,
    HostStandings,
    LimitShare,
    LogLine,
    NoMoreRows,
    OutcomeBatch,
    PauseWorker,
    RowBatch,
    RowValue,
    StopWorker,
    TellHosts,
    WorkerFinished,
    WorkerStatus,
    WorkerTrouble,
    decode_from_parent,
    encode,
    row_of,
    value_of,
)
from fetcher.parallel.parsing_marks import MARK
from fetcher.pipeline import Engine, Outcomes, concurrent
from fetcher.request_state import RequestState
from fetcher.transport.descriptors import raise_descriptors
from fetcher.transport.session import Transport

__all__ = ["Worker"]

FLUSH_SECONDS = 0.02  # from an outcome to the batch that it goes out in
MAX_BATCH_ROWS = 128
MAX_BATCH_BYTES = 512 * 1024
STATUS_SECONDS = 0.1
SNAPSHOT_STATUSES = 10  # of which one tells what is running, and what is known of the hosts
MAX_RUNNING = 2_000
LOOKAHEAD = 10_000_000  # rows: the parent bounds what is here
ORPHAN_SECONDS = 3.0
GRACE_TURNS = 4  # in which what has come is read, before a lease is held to be over: the loop may have stood still


class SentPages:
    """The pages of an earlier run, as they came with their rows. ``EarlierRun`` for the handlers and the reader."""

    max_age: float | None = None

    def __init__(self) -> None:
        self._pages: dict[str, Page] = {}
        self._rows: dict[str, int] = {}
        self._standing: set[int] = set()  # the identities of those pages that stand

    def keep(self, url: str, page: Page, *, stands: bool) -> None:
        """Keep a page for one row more."""
        if url not in self._pages:
            self._pages[url] = page
            if stands:
                self._standing.add(id(page))
        self._rows[url] = self._rows.get(url, 0) + 1

    def drop(self, url: str) -> None:
        """Let a page go where it was the last of its rows."""
        left = self._rows.get(url, 0) - 1
        if left > 0:
            self._rows[url] = left
        else:
            self._rows.pop(url, None)
            self._standing.discard(id(self._pages.pop(url, None)))

    def find(self, url: str) -> Page | None:
        """See ``EarlierRun.find``."""
        return self._pages.get(url)

    def confirmed(self, url: str) -> float | None:  # noqa: ARG002  (the parent has looked)
        """See ``EarlierRun.confirmed``: the parent has asked for those rows that need not be fetched."""
        return None

    def stands_for(self, page: Page) -> bool:
        """See ``EarlierRun.stands_for``."""
        return id(page) in self._standing


class Worker:
    """What a process has: the engine, the rows on their way in and the outcomes on their way out.

    ``marker`` is the file and the place in it that says which row is parsed; ``lease`` the seconds of silence that end
    it.
    """

    def __init__(
        self,
        settings: CrawlSettings,
        channel: SocketChannel,
        *,
        marker: tuple[str, int] | None = None,
        lease: float | None = None,
    ) -> None:
        self._settings = settings
        self._channel = channel
        self._marker = marker
        self._lease = lease
        self._heard = time.monotonic()
        self._mine: set[int] = set()  # buckets
        self._incoming: asyncio.Queue[RequestState | None] = asyncio.Queue()
        self._pages: list[Page] = []
        self._failures: list[Any] = []
        self._leaving: list[RowValue] = []
        self._size = 0
        self._sending = asyncio.Lock()
        self._flush: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._share = 0
        self._slots = settings.concurrency
        self._wanted = 0
        self._by_http = 0
        self._sent = SentPages()
        self._known: dict[int, str] = {}  # rows that came with a page, and its URL
        self._exact = settings.extract is not None
        self._stream: Outcomes | None = None
        self._transport: Transport | None = None
        self._most = settings.config.limits.concurrency  # slots that there is room for
        self._told_hosts = 0
        self._engine: Engine | None = None

    async def run(self) -> None:
        """Fetch what comes until there is no more, and tell what became of it."""
        settings = self._settings
        config = settings.config
        config = msgspec.structs.replace(config, limits=msgspec.structs.replace(config.limits, lookahead=LOOKAHEAD))
        extract = None if settings.extract is None else _imported("extract", settings.extract)
        middleware: list[Middleware] = [_imported("middleware", name) for name in settings.middleware]
        with placed(config, settings.files) as here:
            self._transport = transport = Transport(here)
            handlers = Handlers(
                here, middleware, transport, locate=transport.address_of, home=None if middleware else self._is_mine
            )
        reader = Reader(config, extract, processes=settings.parsers)
        earlier = self._sent if settings.compares else None
        follow = config.follow if config.follow.asked else None
        self._engine = engine = Engine(
            config, handlers.exchange(earlier), reader, handlers.gate, earlier, self._leave, follow
        )
        handlers.gate.restore(settings.parked, settings.delays)
        handlers.gate.set_share(settings.concurrency, settings.rate)
        handlers.gate.pause(paused=settings.paused)
        tasks: list[asyncio.Task[None]] = []
        try:
            with _marking(reader, self._marker, settings.suspects):
                async with concurrent(engine, self._rows()) as stream:
                    self._stream = stream
                    tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._report())]
                    if self._lease is not None:
                        tasks.append(asyncio.create_task(self._end_with(self._lease)))
                    for task in tasks:
                        task.add_done_callback(_end_by)
                    async for outcome in stream:
                        if self._add(outcome):
                            await self._send_outcomes()
            await self._send_outcomes()
            await self._send(self._hosts())
            await self._send(WorkerFinished(settings.epoch))
        finally:
            for task in tasks:
                task.remove_done_callback(_end_by)
                task.cancel()
            await handlers.close()
            await transport.close()
            await reader.close()

    # Rows

    def _is_mine(self, host: str) -> bool:
        return bucket_of(host) in self._mine

    async def _rows(self) -> AsyncIterator[RequestState]:
        while (state := await self._incoming.get()) is not None:
            yield state

    async def _listen(self) -> None:
        """Take in what the parent says, until it is gone."""
        while (batch := await self._channel.receive()) is not None:
            self._heard = time.monotonic()
            if not batch:
                continue  # somebody is there
            message = decode_from_parent(batch)
            if isinstance(message, RowBatch):
                self._take(message)
            elif isinstance(message, LimitShare):
                assert self._engine is not None
                self._share, self._slots = message.number, message.concurrency
                self._engine.gate.set_share(message.concurrency, message.rate)
                self._make_room(message.concurrency)
            elif isinstance(message, ChangeHosts | PauseWorker | TellHosts):
                self._obey(message)
            elif isinstance(message, StopWorker):
                assert self._stream is not None
                self._stream.stop(message.grace)
            else:
                assert isinstance(message, NoMoreRows)
                self._incoming.put_nowait(None)
        os._exit(0)  # nobody is left to tell

    async def _end_with(self, lease: float) -> None:
        """End when nobody has said anything for so long: another worker may have these sites by then. Law 8."""
        silent = 0
        while silent < GRACE_TURNS:
            await asyncio.sleep(lease / 50)
            silent = silent + 1 if time.monotonic() - self._heard > lease else 0
        os._exit(1)

    def _make_room(self, concurrency: int) -> None:
        """Have the window and the connections for more slots than there were at the beginning."""
        assert self._stream is not None
        assert self._transport is not None
        if concurrency > self._most:
            self._most = concurrency
            raise_descriptors(concurrency)
            self._transport.allow(concurrency)
            config = self._settings.config
            limits = msgspec.structs.replace(config.limits, concurrency=concurrency)
            self._stream.change(msgspec.structs.replace(config, limits=limits), ())

    def _obey(self, message: ChangeHosts | PauseWorker | TellHosts) -> None:
        assert self._engine is not None
        gate = self._engine.gate
        if isinstance(message, ChangeHosts):
            limits = gate.scheduler.shared.limits
            gate.set_share(limits.concurrency, limits.rate, message.policies)
        elif isinstance(message, PauseWorker):
            gate.pause(paused=message.paused)
        else:
            self._told_hosts = message.hosts

    def _take(self, message: RowBatch) -> None:
        for value in message.rows:
            state = row_of(value)
            self._mine.add(bucket_of(state.target.host))
            progress = value.progress
            if progress is not None and progress.known is not None:
                url = state.first.wire
                self._sent.keep(url, progress.known.page, stands=progress.known.stands)
                self._known[value.key] = url
            self._incoming.put_nowait(state)

    def _leave(self, state: RequestState) -> None:
        """Give a row back that goes on elsewhere."""
        key = state.request.tag
        self._forget(key)
        self._leaving.append(value_of(state, key))
        self._flush_soon()

    def _forget(self, key: int) -> None:
        url = self._known.pop(key, None)
        if url is not None:
            self._sent.drop(url)

    # Outcomes

    def _add(self, outcome: Outcome) -> bool:
        """Put an outcome into the batch; say whether that is full."""
        if self._known:
            self._forget(outcome.request.tag)
        if isinstance(outcome, Page):
            if self._exact and not is_plain(outcome.data, exact=True):
                raise ConfigError(
                    f"workers: the extractor returned a {type(outcome.data).__qualname__}, or something with more than "
                    "plain data in it, which cannot go from one process to another: return text, numbers, lists and "
                    "dicts, or take one worker"
                )
            self._pages.append(outcome)
            self._size += len(outcome.body or b"")
        else:
            self._failures.append(outcome)
        for message in outcome.messages:
            self._size += len(message.body)
        if len(self._pages) + len(self._failures) >= MAX_BATCH_ROWS or self._size >= MAX_BATCH_BYTES:
            return True
        self._flush_soon()
        return False

    def _flush_soon(self) -> None:
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush_now)

    def _flush_now(self) -> None:
        self._flush = None
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.get_running_loop().create_task(self._send_outcomes())
            self._flushing.add_done_callback(_end_by)
        else:
            self._flush_soon()  # the parent is behind

    async def _send_outcomes(self) -> None:
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        if not (self._pages or self._failures or self._leaving):
            return
        stats = self._stream.stats if self._stream is not None else None
        by_http = stats.by_http if stats is not None else 0
        message = OutcomeBatch(
            self._settings.epoch, self._pages, self._failures, self._leaving, by_http - self._by_http
        )
        self._pages, self._failures, self._leaving, self._size = [], [], [], 0
        self._by_http = by_http
        await self._send(message)

    async def _send(self, message: FromWorker) -> None:
        batch = encode(message)
        async with self._sending:
            await self._channel.send(batch)

    # What is told

    async def _report(self) -> None:
        """Tell how it stands, ten times a second where something has changed, and once a second all of it."""
        assert self._engine is not None
        assert self._stream is not None
        shared = self._engine.gate.scheduler.shared
        last: tuple[int, int, int] | None = None
        count = 0
        told: HostNews | None = None
        while True:
            at_work = shared.on_wire + shared.reserved
            short = (
                at_work >= self._slots
                or bool(shared.at_gate)
                or (shared.limits.rate is not None and at_work > 0 and not shared.has_room(time.monotonic()))
            )
            now = 2 * self._slots if short else at_work + 1
            self._wanted = max(now, (3 * self._wanted) // 4)
            status = self._share, max(shared.on_wire, self._slots), self._wanted
            whole = count % SNAPSHOT_STATUSES == 0
            if whole or status != last:
                running = self._stream.in_flight()[:MAX_RUNNING] if whole else None
                await self._send(WorkerStatus(self._settings.epoch, *status, running, shared.on_wire))
                last = status
            if whole and (hosts := self._hosts()) != told:
                await self._send(hosts)
                told = hosts
            if whole and self._told_hosts:
                await self._send(HostStandings(self._settings.epoch, self._stream.standings(self._told_hosts)))
            count += 1
            await asyncio.sleep(STATUS_SECONDS)

    def _hosts(self) -> HostNews:
        assert self._engine is not None
        gate = self._engine.gate
        return HostNews(self._settings.epoch, gate.parked(), gate.delays(), gate.troubled())


def _end_by(task: asyncio.Task[None]) -> None:
    """End the process by a bug in a task of its own: the parent replaces it. Without its parent it is of no use."""
    if task.cancelled() or task.exception() is None:
        return
    if not isinstance(task.exception(), ConnectionError):
        logging.getLogger("fetcher.workers").error("a worker ends", exc_info=task.exception())
    os._exit(1)


@contextlib.contextmanager
def _marking(reader: Reader, marker: tuple[str, int] | None, suspects: frozenset[int]) -> Iterator[None]:
    """Note which row is parsed here, in this worker's slot of the file; suspects are parsed apart, with it or without."""
    if marker is None:
        with reader.marking(lambda _: None, suspects=suspects):
            yield
        return
    path, slot = marker
    descriptor = open_regular(path, os.O_RDWR)
    place, pack = MARK.size * slot, MARK.pack

    def mark(row: int) -> None:
        os.pwrite(descriptor, pack(row), place)

    mark(0)
    try:
        with reader.marking(mark, suspects=suspects):
            yield
        mark(0)
    finally:
        os.close(descriptor)


def _imported(option: str, name: str) -> Any:
    try:
        return pkgutil.resolve_name(name)
    except SystemExit as error:
        raise ConfigError(f"{option}: {name}: its module ends the program ({error})") from None
    except Exception as error:  # noqa: BLE001 - whatever a module of the user's may raise
        raise ConfigError(f"{option}: {name} cannot be loaded by a worker: {type(error).__name__}: {error}") from None


class _LogForwarder(logging.Handler):
    """Has what is logged here told by the parent. Law 3: at most so many lines wait."""

    def __init__(self, channel: SocketChannel, level: int) -> None:
        super().__init__(level)
        self._channel = channel
        self._tasks: set[asyncio.Task[None]] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Send a line."""
        if len(self._tasks) > 1_000:
            return
        with contextlib.suppress(RuntimeError):  # of another thread, or after the end
            text = self.format(record)
            task = asyncio.get_running_loop().create_task(
                self._channel.send(encode(LogLine(record.name, record.levelno, text)))
            )
            self._tasks.add(task)
            task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()


async def serve(end: socket.socket, marker: str | None = None, lease: float | None = None) -> None:
    """Take the settings, do what is to be done, and tell what ends it."""
    channel = await open_channel(end, most=1 << 40)  # what the parent says is as large as it says
    while not (first := await channel.receive()):
        if first is None:
            return
    settings = decode_from_parent(first)
    assert isinstance(settings, CrawlSettings)
    _settle(settings)
    logger = logging.getLogger("fetcher")
    logger.setLevel(settings.level)
    logger.addHandler(_LogForwarder(channel, settings.level))
    logger.propagate = False
    slot = (settings.slots, settings.number + 1) if settings.slots is not None else None
    if marker is not None:
        slot = marker, 0
    try:
        await Worker(settings, channel, marker=slot, lease=lease).run()
    except FetcherError as error:
        await channel.send(encode(WorkerTrouble(settings.epoch, type(error).__name__, str(error))))
    except Exception as error:  # noqa: BLE001 - a bug is the parent's to raise
        text = "".join(traceback.format_exception(error))
        await channel.send(encode(WorkerTrouble(settings.epoch, type(error).__name__, text)))
    channel.close()


def _settle(settings: CrawlSettings) -> None:
    """Go where the parent is, and find what it finds; on another machine, as far as there is such a place."""
    with contextlib.suppress(OSError):
        os.chdir(os.fsdecode(settings.folder))
    theirs = [os.fsdecode(entry) for entry in settings.path]
    if not settings.remote:
        sys.path[:] = theirs
        return
    folder = os.fsdecode(settings.folder)
    for entry in theirs:
        if (entry or folder) not in sys.path and os.path.isdir(entry or folder):
            sys.path.append(entry or folder)


def _watch(parent: int) -> None:
    """End with the parent even where the loop stands still."""
    while os.getppid() == parent:
        time.sleep(1.0)
    time.sleep(ORPHAN_SECONDS)
    os._exit(1)


def main() -> None:
    """Run a worker whose standard input is a socket to its parent."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()
    end = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    words = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    lease = float(words["--lease"]) if "--lease" in words else None
    event_loop.run(lambda: serve(end, words.get("--marker"), lease))


if __name__ == "__main__":
    main()
