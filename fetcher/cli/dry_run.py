"""``fetcher crawl --dry-run``: what would be done, and how long it takes at least, with no row fetched.

Law 3: the list is counted, not kept. Law 8: what is asked of the network is a sample, and bounded in time: the
addresses of some names and the robots.txt of some hosts.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Protocol, TypeAlias

from fetcher.cli.exits import COMPLETE
from fetcher.cli.outputs import open_source, reads_network, write_summary
from fetcher.cli.plan import Plan
from fetcher.client import Fetcher, judge_by_either
from fetcher.config import Config
from fetcher.errors import FetchError
from fetcher.hosts.table import HostTable
from fetcher.intake import Intake, Rejected, Row
from fetcher.report.census import Census, Distinct, HostRows
from fetcher.report.forecast import (
    Forecast,
    Group,
    HostShare,
    NamesSampled,
    RobotsSampled,
    groups_of,
    least_time,
    sharing_of,
)
from fetcher.stats import Stats, counted
from fetcher.terminal import Notices, printable
from fetcher.transport.resolver import Resolver
from fetcher.urls import Target, identity, parse

__all__ = ["Judge", "URLVerdict", "dry_run"]

LARGEST_HOSTS = 20  # shown, and asked in any case
SAMPLED_HOSTS = 50  # asked in all
MAX_REQUESTS = 10  # at once
MAX_RATE_SECONDS = 0.1  # that --rate may add to what a host seems to take
SAMPLE_SECONDS = 20.0  # for the whole sample: once for names, once for robots.txt
ROWS_BETWEEN_NOTICES = 5_000_000  # while the list is counted


class URLVerdict(Protocol):
    """What robots.txt says of one URL: whether it may be fetched, and the seconds between two requests."""

    @property
    def allowed(self) -> bool:
        """Whether it may be fetched."""
        ...

    @property
    def delay(self) -> float:
        """Seconds between two requests to its host, 0 where none are asked for."""
        ...


Judge: TypeAlias = Callable[[Target], Awaitable[URLVerdict]]
"""Asks the robots.txt of a URL's origin. Raises ``FetchError`` where it cannot be had."""

OpenJudge: TypeAlias = Callable[[Config], AbstractAsyncContextManager[Judge]]
Source: TypeAlias = Iterable[Row] | AsyncIterable[Row]


def dry_run(plan: Plan, notices: Notices, source: Source | None = None, judge: OpenJudge | None = None) -> int:
    """Print what a crawl would be, write it where ``--summary`` says, and return the exit code.

    ``source`` are the rows (else those of the plan's lists), ``judge`` opens what asks for robots.txt; without
    it none is asked for. Raises ``SourceError`` and ``SinkError``.
    """
    forecast = asyncio.run(_foresee_lists(plan, notices, source, judge))
    if plan["summary"] != "-":
        print("\n".join(map(printable, forecast.as_text().split("\n"))))
    write_summary(plan["summary"], forecast.as_json())
    sys.stdout.flush()
    return COMPLETE


async def _foresee_lists(plan: Plan, notices: Notices, source: Source | None, judge: OpenJudge | None) -> Forecast:
    """Foresee the rows of ``source``, or of the plan's lists: those on the network are fetched, and not kept."""
    if source is not None or not reads_network(plan):
        return await _foresee(plan, notices, open_source(plan) if source is None else source, judge)
    if not plan["quiet"]:
        notices.say("lists and sitemaps on the network are fetched now, and again by the crawl; no row is")
    async with Fetcher(plan.config, middleware=plan.middleware) as fetcher:
        return await _foresee(plan, notices, open_source(plan, fetcher), judge)


async def _foresee(plan: Plan, notices: Notices, source: Source, judge: OpenJudge | None) -> Forecast:
    config = plan.config
    census, distinct, stats = Census(), Distinct(), Stats()
    try:
        ended = await _count(source, config, stats, census, distinct, notices if not plan["quiet"] else None)
        largest = census.largest(LARGEST_HOSTS)
        sample = _sample(largest, census.sample, SAMPLED_HOSTS)
        # Who shares an address is to be known of every row that was drawn.
        drawn = _sample(largest, census.sample, None) if config.limits.per_address is not None else sample
        names, addresses = (None, dict[str, str]()) if config.proxy else await _look_up(drawn)
        groups = {host: groups_of(host, config.limits, addresses) for host in drawn}
        robots, latencies = await _judge(config, sample, groups, judge) if judge is not None else (None, {})
        asked = robots.delays if robots is not None else {}
        telling = _telling(largest, sample, config, census, asked)
        delays, at_once = _paces([host.host for host in telling], config, asked)
        ahead = 0 if judge is None else 1
        duplicates = ended["duplicate"] if config.dedupe else distinct.added - distinct.count()
        return Forecast(
            rows=stats.input,
            invalid=ended["invalid_url"],
            duplicates=duplicates,
            left_out=config.dedupe,
            fetched=census.rows,
            hosts=census.hosts(),
            half=census.half(),
            largest=[
                HostShare(name, rows, round(rows / census.rows, 4), delays[name], latencies.get(name))
                for name, rows, _ in largest
            ],
            names=names,
            robots=robots,
            least=least_time(
                telling,
                census.rows + ahead * census.hosts(),
                config.limits,
                delays=delays,
                at_once=at_once,
                latencies=latencies,
                sharing=sharing_of(census, config.limits, groups),
                ahead=ahead,
            ),
            shard=None if config.shard is None else str(config.shard),
            listed=None if config.shard is None else stats.input + stats.elsewhere,
        )
    finally:
        census.close()
        distinct.close()


async def _count(
    source: Source, config: Config, stats: Stats, census: Census, distinct: Distinct, notices: Notices | None
) -> Counter[str]:
    """Read the whole list; return the rows that would end without a request, by code."""
    ended: Counter[str] = Counter()
    intake = Intake(source, config, stats)
    try:
        async for row in intake:
            if isinstance(row, Rejected):
                ended[row.error.code] += 1
                continue
            census.add(row.first)
            if not config.dedupe:
                distinct.add(identity(row.request.url, config.default_scheme))
            if notices is not None and stats.input % ROWS_BETWEEN_NOTICES == 0:
                notices.say(f"{counted(stats.input, 'row')} read")
    finally:
        await intake.close()
    return ended


def _sample(largest: Sequence[HostRows], drawn: Sequence[Target], most: int | None) -> dict[str, Target]:
    """Return a row each of some hosts: the largest, then those that rows drawn from all are on."""
    sample = {host.host: parse(host.example) for host in largest}
    for target in drawn:
        if most is not None and len(sample) >= most:
            break
        sample.setdefault(target.host, target)
    return sample


def _telling(
    largest: Sequence[HostRows], sample: Mapping[str, Target], config: Config, census: Census, asked: Iterable[str]
) -> list[HostRows]:
    """Add to the largest the hosts with a pace of their own, ``asked`` for or configured: they may set the time."""
    listed = {host.host for host in largest}
    others = {
        host: census.rows_of(host) for host in (*asked, *(name for name, _ in config.hosts)) if host not in listed
    }
    return [
        *largest,
        *(HostRows(host, rows, sample[host].wire if host in sample else "") for host, rows in others.items() if rows),
    ]


def _paces(hosts: Sequence[str], config: Config, asked: Mapping[str, float]) -> tuple[dict[str, float], dict[str, int]]:
    """Return the seconds between two requests to each host, and how many at once, as a crawl would have them."""
    known = HostTable(config.limits, config.retry, config.hosts)
    delays: dict[str, float] = {}
    at_once: dict[str, int] = {}
    for key in hosts:
        host = known.get(key, 0.0)
        host.set_crawl_delay(asked.get(key, 0.0))
        delays[key], at_once[key] = host.own_delay, host.settings.per_host
    return delays, at_once


async def _look_up(sample: dict[str, Target]) -> tuple[NamesSampled, dict[str, str]]:
    """Look the names of the sample up; return their addresses, too. An address needs no look-up."""
    resolver = Resolver()
    failed: dict[str, str] = {}
    addresses: dict[str, str] = {}

    async def ask(host: str, _: Target) -> None:
        try:
            addresses[host] = str((await resolver.resolve(host, 0, socket.AF_UNSPEC))[0]["host"])
        except OSError as error:
            failed[host] = error.strerror or str(error)

    names = {host: target for host, target in sample.items() if not _is_address(host)}
    try:
        for host in await _ask_all(names, ask, MAX_REQUESTS):
            failed[host] = f"no answer in {SAMPLE_SECONDS:g} s"
    finally:
        await resolver.close()
    found = NamesSampled(len(names), len(addresses), failed)
    return found, {**addresses, **{host: host.strip("[]") for host in sample if host not in names}}


async def _judge(
    config: Config, sample: dict[str, Target], groups: Mapping[str, Sequence[Group]], open_judge: OpenJudge
) -> tuple[RobotsSampled, dict[str, float]]:
    """Hold the sample against robots.txt; return what it says, and how long the hosts took to say it.

    Who would wait for a slot or for the rate waits here: that is no latency.
    """
    limits = config.limits
    at_once = min(MAX_REQUESTS, limits.concurrency)
    if limits.rate:
        at_once = max(1, min(at_once, int(MAX_RATE_SECONDS * limits.rate)))
    slots = {"per_site": limits.per_site, "per_address": limits.per_address}
    turns = {group: asyncio.Semaphore(slots[group[0]] or 1) for shared in groups.values() for group in shared}
    verdicts: Counter[bool] = Counter()
    unknown: Counter[str] = Counter()
    delays: dict[str, float] = {}
    latencies: dict[str, float] = {}
    either = config.default_scheme == "auto"
    async with open_judge(config) as judge:

        async def ask(host: str, target: Target) -> None:
            async with AsyncExitStack() as stack:
                for group in groups[host]:
                    await stack.enter_async_context(turns[group])
                began = time.monotonic()
                try:
                    # Which of a host's rows name no scheme is not known any more: most lists are all the one or the other.
                    verdict = await (judge_by_either(judge, target) if either else judge(target))
                except FetchError as error:
                    unknown[error.code] += 1
                    return
                latencies[host] = max(0.0, time.monotonic() - began)
            verdicts[verdict.allowed] += 1
            if verdict.delay > 0:
                delays[host] = verdict.delay

        for _ in await _ask_all(sample, ask, at_once):
            unknown["total_timeout"] += 1
    return RobotsSampled(len(sample), verdicts[True], verdicts[False], dict(unknown), delays), latencies


async def _ask_all(sample: dict[str, Target], ask: Callable[[str, Target], Awaitable[None]], at_once: int) -> list[str]:
    """Ask of all hosts, a few at once; return those of which nothing came in time."""
    slots = asyncio.Semaphore(at_once)

    async def one(host: str, target: Target) -> None:
        async with slots:
            await ask(host, target)

    tasks = {asyncio.create_task(one(host, target)): host for host, target in sample.items()}
    if not tasks:
        return []
    done, late = await asyncio.wait(tasks, timeout=SAMPLE_SECONDS)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    for task in done:
        task.result()  # a bug is raised
    return [tasks[task] for task in late]


def _is_address(host: str) -> bool:
    return host.startswith("[") or not host.strip("0123456789.")
