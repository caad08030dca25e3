"""What a bench is going to do: its settings, its rows, and the order of its rounds.

Laws: every wrong setting is found here, before the first request. The rounds of all modes are interleaved, so that a
change in between affects all of them. A warm-up comes first and does not count. Law 9: plain functions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice

import msgspec

from fetcher.bench.results import ModeName
from fetcher.bench.worker import Row
from fetcher.config import AddressPolicy, Config, ProxyPolicy
from fetcher.config.options import named, number_from, refused
from fetcher.demo import Site
from fetcher.demo.scenarios import SCENARIOS, Scenario
from fetcher.demo.site import MAX_HOSTS
from fetcher.errors import ConfigError, FetcherError, InvalidURL
from fetcher.model import Request
from fetcher.sources.rows import BadRow
from fetcher.urls import hide_userinfo, parse

__all__ = ["Bench", "Listing", "PlannedRound", "listing_of", "planned_rounds", "requests_by_host", "site_of"]

WARM_UP_ROWS = 20
"""Rows of the sequential warm-up. It can be short: the concurrent warm-ups have filled the caches already."""
_MIN_HOSTS = 50


class Bench(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a bench. Raises ``ConfigError`` that names the one that is wrong.

    Each ``concurrency`` is a mode; ``sequential`` adds the baseline. Each of the ``rounds`` fetches ``n`` rows.
    ``latency`` (seconds, from and to), ``seed`` and ``scenario`` are those of the built-in site. ``config`` is how
    every row is fetched, except that the bench sets its concurrency, its number of rows and its time limit, and that a
    URL listed twice is fetched twice.
    """

    concurrency: tuple[int, ...] = (10, 50, 100)
    n: int = 200
    rounds: int = 3
    sequential: bool = True
    latency: tuple[float, float] = (0.02, 0.06)
    seed: int = 1
    scenario: Scenario = "latency"
    config: Config = Config()

    def __post_init__(self) -> None:
        if not self.concurrency:
            raise ConfigError("concurrency: there is none to measure")
        for name, values in (("concurrency", self.concurrency), ("n", (self.n,)), ("rounds", (self.rounds,))):
            for value in values:
                try:
                    number_from(1, whole=True)(value)
                except ConfigError as error:
                    raise named(name, error) from None
        if self.scenario not in SCENARIOS:
            raise named("scenario", refused(self.scenario, f"must be one of {', '.join(SCENARIOS)}"))
        site_of(self)

    def config_of(self, concurrency: int, *, built_in: bool) -> Config:
        """Return the config of a round.

        The built-in site is on loopback: it is fetched without a proxy, with the default address policy and without
        robots.txt, so that its figures are those of its pages.
        """
        limits = msgspec.structs.replace(self.config.limits, concurrency=concurrency, rows=None, time=None)
        config = msgspec.structs.replace(self.config, limits=limits, dedupe=False)
        if built_in:
            config = msgspec.structs.replace(config, proxy=ProxyPolicy(), address=AddressPolicy(), robots=False)
        return config


class PlannedRound(msgspec.Struct, frozen=True):
    """One round to come: the ``index``-th of its mode (0 is the warm-up), over the first ``rows`` of the list."""

    mode: ModeName
    concurrency: int
    index: int
    rows: int

    @property
    def warm_up(self) -> bool:
        """Whether it is reported but does not count."""
        return self.index == 0


class Listing(msgspec.Struct, frozen=True):
    """The rows to fetch and the host of each; ``source`` describes where they come from.

    ``left_out`` says of each row without a URL what is wrong with it. With ``more`` the list has further rows.
    """

    source: str
    rows: list[Row]
    hosts: list[str]
    left_out: list[str] = []
    more: bool = False


def site_of(bench: Bench) -> Site:
    """Return the built-in site for a bench, with enough hosts that the per-host limit does not cut its concurrency."""
    hosts = -(-2 * max(bench.concurrency) // bench.config.limits.per_host)
    return Site(
        hosts=min(max(_MIN_HOSTS, hosts), MAX_HOSTS),
        seed=bench.seed,
        latency=bench.latency,
        failures=False,
        scenario=bench.scenario,
    )


def listing_of(urls: Iterable[str | Request | BadRow], bench: Bench, source: str) -> Listing:
    """Take the first ``n`` rows of a list that are URLs. Raises ``FetcherError`` when none is."""
    listing = Listing(source, [], [], [])
    seen: set[int] = set()
    rest = iter(urls)
    for number, row in enumerate(islice(rest, bench.n), 1):
        request = Request(number, row.strip()) if isinstance(row, str) else row
        if isinstance(request, BadRow):
            listing.left_out.append(hide_userinfo(request.error.message, "***"))
            continue
        if request.id in seen:
            raise ConfigError(f"two rows have the id {request.id}, and rows are told apart by it")
        seen.add(request.id)
        try:
            host = parse(request.url, bench.config.default_scheme).host
        except InvalidURL as error:
            listing.left_out.append(f"row {request.id}: {error.message}")
            continue
        listing.rows.append(Row(request.id, request.url, request.headers))
        listing.hosts.append(host)
    if not listing.rows:
        why = f": {listing.left_out[0]}" if listing.left_out else ""
        raise FetcherError(f"{source}: there is no URL to fetch{why}")
    return msgspec.structs.replace(listing, more=next(rest, None) is not None)


def planned_rounds(bench: Bench, rows: int) -> list[PlannedRound]:
    """Return all rounds in order: the warm-ups, then round by round every mode."""
    sweep = sorted(set(bench.concurrency))
    planned = [PlannedRound("concurrent", slots, 0, rows) for slots in sweep]
    if bench.sequential:
        planned.append(PlannedRound("sequential", 1, 0, min(rows, WARM_UP_ROWS)))
    for index in range(1, bench.rounds + 1):
        if bench.sequential:
            planned.append(PlannedRound("sequential", 1, index, rows))
        planned += [PlannedRound("concurrent", slots, index, rows) for slots in sweep]
    return planned


def requests_by_host(planned: Sequence[PlannedRound], hosts: Sequence[str]) -> Counter[str]:
    """Count the requests each host will get, without robots.txt, redirects and retries."""
    total: Counter[str] = Counter()
    for rows, times in Counter(round_.rows for round_ in planned).items():
        for host, asked in Counter(hosts[:rows]).items():
            total[host] += asked * times
    return total
