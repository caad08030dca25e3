"""The ``Fetcher``: builds the handlers from a config and owns the session's life; and the calls for whoever does not await.

The handlers, outermost first: yours ▶ retry ▶ accept ▶ schemes ▶ redirects ▶ robots ▶ gate ▶ transport.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeAlias, TypeVar, Unpack

import msgspec

from fetcher.config import Config, ConfigOptions, Follow, LimitOptions, Limits, changed_limits, config_from
from fetcher.config.options import named, refused
from fetcher.errors import ConfigError, FetchError
from fetcher.event_loop import run_blocking
from fetcher.intake import Followed, Row, without_secrets
from fetcher.middleware.chain import Handlers
from fetcher.middleware.gate import Gate
from fetcher.middleware.robots import Verdict
from fetcher.middleware.schemes import may_do_without_tls
from fetcher.model import (
    EarlierRun,
    Exchange,
    Extractor,
    Failure,
    Middleware,
    Outcome,
    Page,
    Request,
    RetryHook,
    Sink,
    answering,
    check_callable,
)
from fetcher.page.reader import Reader, name_of
from fetcher.pipeline import Engine, OutcomeStream, concurrent, fetch_one, sequential
from fetcher.request_state import Glance, InFlight, RequestState, WorkerStanding, glance_over, together
from fetcher.sources import BadRow, ListOptions, read_lists
from fetcher.stats import Stats
from fetcher.transport import DeferredTransport
from fetcher.transport.descriptors import descriptors_for_connections, most_concurrency
from fetcher.urls import Target, parse

if TYPE_CHECKING:
    from fetcher.found.rows import FoundRows
    from fetcher.hosts.standing import HostStanding
    from fetcher.lists import ListFetcher
    from fetcher.parallel.cluster import RayCluster
    from fetcher.parallel.process import Launcher
    from fetcher.sources.network import ListStore

__all__ = ["Fetcher", "Snapshot", "fetch", "fetch_all", "judge_by_either", "robots_judge"]

log = logging.getLogger("fetcher")

T = TypeVar("T")

Source: TypeAlias = Iterable[Row] | AsyncIterable[Row] | Followed


class FetcherOptions(ConfigOptions, total=False):
    """What ``Fetcher``, ``fetch`` and ``fetch_all`` take beside the options of a ``Config``; see ``Fetcher``."""

    middleware: Sequence[Middleware]
    extract: Extractor | None
    transport: Exchange | None
    on_retry: RetryHook | None
    workers: int | str
    ray_address: str | None


_CALLABLES = frozenset(FetcherOptions.__annotations__) - frozenset(ConfigOptions.__annotations__)


class Snapshot(msgspec.Struct, frozen=True):
    """What a ``Fetcher`` is doing at one moment; ``limits`` are those that hold now."""

    flight: Glance
    hosts: list[HostStanding]
    workers: list[WorkerStanding]
    limits: Limits
    paused: bool


class Fetcher:
    """A polite, concurrent client for lists of URLs: ``fetch`` one, ``stream`` many, ``run`` into a sink.

    Open it with ``async with``; nothing touches the network before the first request. It takes a ``Config``, or the
    options of one as keywords. Raises ``ConfigError`` for an option that is unknown or wrong, and ``CallableError``, a
    ``TypeError``, for a function that cannot be called as it will be.

    Args:
        config: the options; keywords win over it.
        middleware: ``async (request, next) -> Response`` around every row, the outermost first.
        extract: ``(response) -> data`` makes ``Page.data``.
        transport: ``async (request) -> Response`` in the place of aiohttp.
        on_retry: is told of each retry before it is waited for.
        workers: how many processes share the URLs of a stream, a site to one of them each; ``auto`` for as many as its rows
            and this machine are good for, ``ray`` or ``ray:N`` for those of a Ray cluster. What they call must be found
            by its name in a module.
        ray_address: where the cluster is (``HOST:PORT``, or ``auto``).

    >>> async def titles(urls):
    ...     async with Fetcher(concurrency=20) as fetcher, fetcher.stream(urls) as outcomes:
    ...         return [outcome.title async for outcome in outcomes if isinstance(outcome, Page)]
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        middleware: Sequence[Middleware] = (),
        extract: Extractor | None = None,
        transport: Exchange | None = None,
        on_retry: RetryHook | None = None,
        workers: int | str = 1,
        ray_address: str | None = None,
        **options: Unpack[ConfigOptions],
    ) -> None:
        self.config = config_from(config, options, extra=_CALLABLES)
        self._middleware = tuple(middleware)
        for each in self._middleware:
            check_callable("middleware", each, ["request", "next"], asynchronous=True)
        if transport is not None:
            check_callable("transport", transport, ["request"], asynchronous=True)
        if on_retry is not None:
            check_callable("on_retry", on_retry, ["details"], asynchronous=False)
        self.reader = Reader(self.config, extract)
        self._workers = check_workers(workers)
        self._worker_middleware: tuple[str, ...] = ()
        if self._workers != 1:
            self._workers, self._worker_middleware = self._what_crosses(extract, transport, on_retry)
        self._given_transport = transport
        self._on_retry = on_retry
        self._transport: DeferredTransport | None = None
        self._engine: Engine | None = None
        self._handlers: Handlers | None = None
        self._streams: list[OutcomeStream] = []
        self._lists: ListFetcher | None = None
        self._ray_address = ray_address
        self._cluster: RayCluster | None = None
        if ray_address is not None and not _is_ray(self._workers):
            raise ConfigError("ray-address: is for workers that are on a cluster: give --workers ray, or leave it out")

    async def __aenter__(self) -> Self:
        if self._given_transport is None:
            if not _is_ray(self._workers):  # its connections are on other machines
                self.config = _within_limits(self.config)
            self._transport = DeferredTransport(self.config)
        locate = self._transport.address_of if self._transport is not None else None
        given = self._given_transport
        transport: Exchange | None = self._transport
        if given is not None:
            transport = answering("transport", given, given)
        elif self._transport is not None and self._workers == 1:
            transport = self._transport.make()
        assert transport is not None
        self._handlers = Handlers(self.config, self._middleware, transport, locate=locate, on_retry=self._on_retry)
        self._engine = Engine(self.config, self._handlers.exchange(), self.reader, self._handlers.gate)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._engine = None
        lists, self._lists = self._lists, None
        if lists is not None:
            await lists.close()
        handlers, self._handlers = self._handlers, None
        if handlers is not None:
            await handlers.close()
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            await cluster.close()
        await self.reader.close()

    async def fetch(self, url: str | Request) -> Page:
        """Fetch one URL and return its page. Raises ``FetchError``."""
        engine = self._ready(self._running())
        request = Request(1, url.strip()) if isinstance(url, str) else url
        target = parse(request.url, self.config.default_scheme)
        outcome = await fetch_one(engine, RequestState(without_secrets(request), target))
        if isinstance(outcome, Failure):
            raise outcome.error
        return outcome

    def read(
        self,
        inputs: Sequence[str],
        *,
        format: str | None = None,  # noqa: A002 - the name of the option
        url_column: str | None = None,
        delimiter: str | None = None,
        encoding: str | None = None,
        carry: str | Sequence[str] | None = None,
        stdin: BinaryIO | None = None,
        kept: ListStore | None = None,
    ) -> AsyncIterator[Request | BadRow]:
        """Return the rows of lists for ``stream``: as ``fetcher.read``, and where a ``format`` is given those of URLs too.

        Such lists are fetched as rows are, up to 100 MiB each, and a list on the network or a pipe keeps nobody waiting
        but who reads it. With ``format="sitemap"`` a host or a URL without a path is a site, whose robots.txt says
        where its sitemaps are. A ``Job``'s ``kept_list`` as ``kept`` has a resume go by what was read before. The other
        options are those of ``fetcher.read``. Raises ``ConfigError`` for one of no use; the rows raise ``SourceError``.

        >>> async def crawl(site):
        ...     async with Fetcher() as fetcher:
        ...         async with fetcher.stream(fetcher.read([site], format="sitemap")) as outcomes:
        ...             return [outcome.url async for outcome in outcomes]
        """
        from fetcher.lists import ListFetcher
        from fetcher.sources.network import NetworkLists
        from fetcher.sources.threaded_iterator import ThreadedIterator

        engine, handlers = self._running(), self._handlers
        assert handlers is not None
        if self._lists is None:
            self._lists = ListFetcher(engine, handlers)
        network = NetworkLists(self._lists, kept)
        options = ListOptions.of(
            format=format, url_column=url_column, delimiter=delimiter, encoding=encoding, carry=carry
        )
        return ThreadedIterator(read_lists(inputs, options, stdin=stdin, network=network))

    @asynccontextmanager
    async def stream(
        self,
        urls: Source,
        *,
        ordered: bool = False,
        sequentially: bool = False,
        stats: Stats | None = None,
        spill_folder: str | None = None,
        found: FoundRows | None = None,
    ) -> AsyncIterator[OutcomeStream]:
        """Open an async iterator of outcomes: as they complete, or ``ordered`` as the URLs are.

        ``urls`` may be any iterable, endless too: it is read as fast as outcomes are taken. ``sequentially`` fetches
        one after the other, for comparison. ``stats`` go on where earlier runs of the same list left them.
        ``spill_folder`` is where rows wait that memory has no place for, by default where the system has temporary
        files. ``urls`` of ``fetcher.follow``, or the option ``follow``, have the links of pages followed: ``found`` are
        then the rows of a ``Job``, by default kept in a temporary file. Leaving the block cancels what is still under
        way.
        """
        engine, stats = self._running(), stats or Stats()
        rules = _rules_of(urls, self.config, ordered=ordered)
        if rules is not None:
            engine = msgspec.structs.replace(engine, follow=rules)
            found = _found_rows(rules, found, stats, self.config)
        rows = urls.rows if isinstance(urls, Followed) else urls
        async with await self._flow(
            engine,
            rows,
            ordered=ordered,
            sequentially=sequentially,
            stats=stats,
            spill_folder=spill_folder,
            found=found,
        ) as outcomes:
            self._streams.append(outcomes)
            limit = self.config.limits.time
            timer = asyncio.get_running_loop().call_later(limit, outcomes.stop) if limit is not None else None
            try:
                yield outcomes
            finally:
                if timer is not None:
                    timer.cancel()
                self._streams.remove(outcomes)

    async def run(self, urls: Source, sink: Sink, *, sequentially: bool = False) -> Stats:
        """Drain all outcomes into a sink and return the stats. Raises ``SinkError`` and ``SourceError``."""
        async with sink, self.stream(urls, sequentially=sequentially) as outcomes:
            async for outcome in outcomes:
                await sink.write(outcome)
            return outcomes.stats

    @contextmanager
    def comparing(self, earlier: EarlierRun) -> Iterator[None]:
        """Within the block pages are compared with those of an earlier run, and asked for only if they have changed."""
        engine = self._running()
        assert self._handlers is not None
        self._engine = msgspec.structs.replace(engine, handle=self._handlers.exchange(earlier), earlier=earlier)
        try:
            yield
        finally:
            if self._engine is not None:
                self._engine = engine

    @property
    def gate(self) -> Gate:
        """The gate to the wire, and what is known of the hosts behind it."""
        return self._running().gate

    def in_flight(self) -> list[InFlight]:
        """Return every running request of this fetcher's streams and lists with its URL, stage and age."""
        lists = self._lists.in_flight() if self._lists is not None else []
        return lists + [row for stream in self._streams for row in stream.in_flight()]

    def snapshot(self, *, hosts: int = 50, rows: int = 50) -> Snapshot:
        """Return what is going on now: the oldest ``rows`` in flight, the ``hosts`` that will be needed for longest, the workers."""
        glances = [stream.glance(rows) for stream in self._streams]
        if self._lists is not None:
            glances.append(glance_over(self._lists.in_flight(), rows))
        return Snapshot(
            together(glances, rows),
            self.standings(hosts),
            [worker for stream in self._streams for worker in stream.worker_standings()],
            self.config.limits,
            self._running().gate.scheduler.shared.paused,
        )

    def standings(self, most: int) -> list[HostStanding]:
        """Return how the hosts stand whose rows wait or run: the ``most`` of them that will be needed for longest."""
        standings = [standing for stream in self._streams for standing in stream.standings(most)]
        if len(self._streams) <= 1:
            return standings
        from fetcher.hosts.standing import longest  # as a rule there is one stream

        return longest(standings, most)

    def set_limits(self, **options: Unpack[LimitOptions]) -> None:
        """Change ``concurrency``, ``rate`` or what holds for single ``hosts`` while streams run; what is not named stays.

        They are written as a ``Config`` takes them. What is on the wire stays there, and of many slots fewer are used
        as exchanges end. Raises ``ConfigError`` for what is no limit, and for more than there are file descriptors.

        >>> async def slower(fetcher):
        ...     fetcher.set_limits(concurrency=20, rate="5/s", hosts={"example.com": {"per_host": 1, "delay": 2}})
        """
        engine = self._running()
        config, policies = changed_limits(self.config, options)
        limits = config.limits
        if self._transport is not None:
            allowed = most_concurrency(descriptors_for_connections(), limits.concurrency)
            if allowed < limits.concurrency:
                raise ConfigError(
                    f"concurrency: {limits.concurrency} is more than the limit of file descriptors allows: {allowed} at "
                    "most; raise that limit (ulimit -n) before the run, or take fewer"
                )
        least = max((len(stream.worker_standings()) for stream in self._streams), default=1)
        if limits.concurrency < least:
            raise ConfigError(f"concurrency: {limits.concurrency} is fewer than one for each of {least} workers")
        if self._transport is not None:
            self._transport.allow(limits.concurrency)
        self.config = config
        self._engine = msgspec.structs.replace(engine, config=config)
        engine.gate.set_share(limits.concurrency, limits.rate, policies)
        for stream in self._streams:
            stream.change(config, policies)

    def pause(self, *, paused: bool = True) -> None:
        """Send nothing new until ``pause(paused=False)``: what is on the wire finishes, and no host is blamed for the time."""
        self._running().gate.pause(paused=paused)
        for stream in self._streams:
            stream.pause(paused=paused)

    def stop(self, grace: float = 5.0) -> None:
        """End all streams early: nothing new starts, what is on the wire has ``grace`` seconds to finish."""
        for stream in self._streams:
            stream.stop(grace)

    async def _flow(
        self, engine: Engine, urls: Iterable[Row] | AsyncIterable[Row], *, ordered: bool, sequentially: bool, **how: Any
    ) -> AbstractAsyncContextManager[OutcomeStream]:
        """Return the pipeline that a stream runs on."""
        workers = self._workers
        if sequentially or workers == 1:
            return (sequential if sequentially else concurrent)(self._ready(engine), urls, ordered=ordered, **how)
        from fetcher.worker_count import choose, within_limits

        launcher: Launcher | None = None
        machines = 1
        if ordered and engine.keeps and workers != "auto":
            raise ConfigError(
                "workers: in the order of the list, with bodies kept, what waits for its turn would have no bound: "
                "leave one of them out"
            )
        if workers == "auto":
            number, urls = await choose(urls, engine.config, ordered=ordered)
        elif isinstance(workers, str):
            launcher, number = await self._on_cluster(workers)
            machines = launcher.machines
        else:
            number = workers
        number = within_limits(number, engine.config.limits, machines=machines)
        if number == 1 and launcher is None:
            return concurrent(self._ready(engine), urls, ordered=ordered, **how)
        from fetcher.parallel.parent import parallel

        return parallel(
            engine, urls, workers=number, launcher=launcher, middleware=self._worker_middleware, ordered=ordered, **how
        )

    async def _on_cluster(self, workers: str) -> tuple[RayCluster, int]:
        """Return the cluster, which all streams share, and how many workers there are to be."""
        from fetcher.parallel.cluster import RayCluster, workers_of_ray

        wanted = workers_of_ray(workers) or 0
        if self._cluster is None:
            self._cluster = await RayCluster.open(self._ray_address, wanted)
        return self._cluster, wanted or max(1, self._cluster.cores)

    def _what_crosses(
        self, extract: Extractor | None, transport: Exchange | None, on_retry: RetryHook | None
    ) -> tuple[int | str, tuple[str, ...]]:
        """Return how many workers there may be, and the names by which they find the caller's middleware.

        Raises ``ConfigError`` for what cannot go to another process, where workers were asked for.
        """
        names = [name_of(each) for each in self._middleware]
        wrong = [
            f"{what} cannot go to another process"
            for what, given in (("a transport", transport), ("on_retry", on_retry))
            if given is not None
        ]
        unnamed = [each for each, name in zip(self._middleware, names, strict=True) if name is None]
        wrong += [f"the middleware {each!r:.100} has no name" for each in unnamed]
        if extract is not None and name_of(extract) is None:
            wrong.append(f"the extractor {extract!r:.100} has no name")
        if self.config.limits.per_address is not None:
            wrong.append("per-address would be counted in each of them")
        if sys.platform == "win32":
            wrong.append("on Windows there is one process")
        if self._workers == "auto":
            return (1 if wrong or names or extract is not None else "auto"), ()
        if wrong:
            raise ConfigError(
                f"workers: {wrong[0]}: each is a process of its own, and finds what it calls by its name, as a function "
                "of a module; or take one worker"
            )
        return self._workers, tuple(name for name in names if name is not None)

    def _ready(self, engine: Engine) -> Engine:
        """Return the engine over a transport that is made before a row needs it, whose time that would take."""
        handlers, deferred = self._handlers, self._transport
        if deferred is None or handlers is None or handlers.transport is not deferred:
            return engine
        handlers.transport = deferred.make()
        handle = handlers.exchange(engine.earlier)
        self._engine = msgspec.structs.replace(self._running(), handle=handle)
        return msgspec.structs.replace(engine, handle=handle)

    def _running(self) -> Engine:
        if self._engine is None:
            raise RuntimeError("the Fetcher is not open: use it as 'async with Fetcher() as fetcher'")
        return self._engine


def check_workers(workers: Any) -> int | str:
    """Return a number of processes, ``auto``, or ``ray`` with or without one. Raises ``ConfigError`` for what is neither."""
    if workers == "auto" or _is_ray(workers):
        return str(workers)
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        raise named("workers", refused(workers, "must be a number of processes, at least 1, or auto, ray or ray:N"))
    return workers


def _is_ray(workers: Any) -> bool:
    if not isinstance(workers, str) or not workers.startswith("ray"):
        return False
    from fetcher.parallel.cluster import workers_of_ray

    return workers_of_ray(workers) is not None


def _rules_of(source: object, config: Config, *, ordered: bool = False) -> Follow | None:
    """Return by which rules links are followed, ``None`` where they are not. Raises ``ConfigError`` with ``ordered``."""
    rules = source.rules if isinstance(source, Followed) else config.follow if config.follow.asked else None
    if rules is not None and ordered:
        raise ConfigError(
            "ordered: rows that are found have no place in the order of the list: leave out ordered or follow"
        )
    if rules is not None and config.head:
        raise ConfigError("follow: links are read in a page's body, and by HEAD there is none: leave one out")
    return rules


def _found_rows(rules: Follow, found: FoundRows | None, stats: Stats, config: Config) -> FoundRows:
    """Return what keeps the rows that are found: a job's where that follows by the same rules."""
    from fetcher.found.rows import TemporaryRows  # most runs follow no links

    if found is None:
        return TemporaryRows(rules, stats, concurrency=config.limits.concurrency)
    if found.rules != rules:
        raise ConfigError("follow: a job follows by its fetcher's options: Fetcher(follow=True, depth=2)")
    return found


def _within_limits(config: Config) -> Config:
    """Lower the concurrency to what the process's limit of file descriptors allows."""
    limits = config.limits
    allowed = most_concurrency(descriptors_for_connections(), limits.concurrency)
    if allowed == limits.concurrency:
        return config
    log.warning("concurrency %d is lowered to %d: there are no more file descriptors", limits.concurrency, allowed)
    return msgspec.structs.replace(config, limits=msgspec.structs.replace(limits, concurrency=allowed))


@asynccontextmanager
async def robots_judge(config: Config) -> AsyncIterator[Callable[[Target], Awaitable[Verdict]]]:
    """Open what asks the robots.txt of a URL's origin, at the pace of a crawl, whatever ``config`` says of robots."""
    transport = DeferredTransport(config)
    handlers = Handlers(msgspec.structs.replace(config, robots=True), (), transport, locate=transport.address_of)
    try:
        assert handlers.robots is not None
        yield handlers.robots.judge
    finally:
        await handlers.close()
        await transport.close()


async def judge_by_either(judge: Callable[[Target], Awaitable[T]], target: Target) -> T:
    """Judge a URL that was listed without a scheme: by http where its host does not speak https, as a crawl would.

    Raises what came of https where neither can be had.
    """
    try:
        return await judge(target)
    except FetchError as error:
        if target.scheme != "https" or not may_do_without_tls(error):
            raise
        try:
            return await judge(parse(target.wire.replace("https:", "http:", 1)))
        except FetchError:
            raise error from None


# For callers that do not await


def fetch(url: str | Request, config: Config | None = None, **options: Unpack[FetcherOptions]) -> Page:
    """Fetch one URL, blocking. Raises ``FetchError``. See ``fetch_all``.

    >>> page = fetch("https://example.com", timeout=5)  # doctest: +SKIP
    """

    async def main() -> Page:
        async with Fetcher(config, **options) as fetcher:
            return await fetcher.fetch(url)

    return run_blocking(main)


def fetch_all(
    urls: Iterable[Row] | Followed, config: Config | None = None, **options: Unpack[FetcherOptions]
) -> list[Outcome]:
    """Fetch all URLs, blocking, and return their outcomes in the order of the list: a ``Page`` or a ``Failure`` each.

    It takes a ``Config`` or its options as keywords, and whatever else a ``Fetcher`` does. All outcomes are held at
    once, with ``keep_body=True`` their bodies too: for a long list there is ``Fetcher.stream``. Where a loop is running
    (a notebook) it works in a thread of its own, in which ``urls`` is read; that loop stands still meanwhile, so a
    server has a ``Fetcher`` instead. Rows that are found (``fetcher.follow``) come behind those of the list.

    >>> pages = fetch_all(["https://example.com", "https://example.org"], concurrency=3)  # doctest: +SKIP
    """

    async def main() -> list[Outcome]:
        async with Fetcher(config, **options) as fetcher:
            ordered = _rules_of(urls, fetcher.config) is None
            async with fetcher.stream(urls, ordered=ordered) as outcomes:
                listed = [outcome async for outcome in outcomes]
        return listed if ordered else sorted(listed, key=lambda outcome: outcome.request.id)

    return run_blocking(main)
