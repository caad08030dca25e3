"""What a crawl would be: the counts of its list, what a sample answered, and the least time that politeness allows.

Law 8: the time is that of the pace we keep, not of what hosts could bear. Law 9: plain functions of numbers. Hosts of
one site or behind one address share a limit; who is behind an address is known of a sample only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from fetcher.config import Limits
from fetcher.report.census import Census, HostRows
from fetcher.report.summary import human_seconds
from fetcher.stats import counted
from fetcher.urls import registrable_domain

__all__ = [
    "Forecast",
    "Group",
    "HostShare",
    "LeastTime",
    "NamesSampled",
    "RobotsSampled",
    "Sharing",
    "groups_of",
    "least_time",
    "sharing_of",
    "surely",
]

SHOWN = 5  # hosts, and names that did not resolve
MAX_SITES = 20  # with the most rows
SURE_DEVIATIONS = 1.645  # an estimate is too high once in twenty times

Group: TypeAlias = tuple[Literal["per_site", "per_address"], str]
"""A limit, and the site or address it is shared at."""


class LeastTime(msgspec.Struct, frozen=True):
    """At least so many ``seconds``, and what sets them; ``host`` where it is one host, site or address."""

    seconds: float
    set_by: Literal["delay", "per_host", "per_site", "per_address", "rate", "concurrency"]
    host: str | None = None


class HostShare(msgspec.Struct, frozen=True):
    """One of the largest hosts. ``delay`` is the seconds between two of its rows, ``latency`` what it took to answer."""

    host: str
    rows: int
    share: float
    delay: float
    latency: float | None = None


class NamesSampled(msgspec.Struct, frozen=True):
    """Host names of the sample that were looked up, and why some have no address."""

    asked: int
    found: int
    failed: dict[str, str] = {}


class RobotsSampled(msgspec.Struct, frozen=True):
    """Rows of the sample that were held against their robots.txt; ``unknown`` by the code of what went wrong."""

    asked: int
    allowed: int
    denied: int
    unknown: dict[str, int] = {}
    delays: dict[str, float] = {}


class Forecast(msgspec.Struct, frozen=True):
    """All that can be said before. ``rows = invalid + fetched``, and ``duplicates`` where they are left out.

    ``half`` is how few hosts have half of the rows; ``least`` is ``None`` where nothing is known that sets a time.
    ``shard`` is the share of the list that these rows are, and ``listed`` how many rows all shards have.
    """

    rows: int
    invalid: int
    duplicates: int
    left_out: bool
    fetched: int
    hosts: int
    half: int
    largest: list[HostShare]
    names: NamesSampled | None
    robots: RobotsSampled | None
    least: LeastTime | None
    shard: str | None = None
    listed: int | None = None

    def as_json(self) -> str:
        """Return it all as one indented JSON object."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode() + "\n"

    def as_text(self) -> str:
        """Return some lines for people."""
        lines = [self._rows(), *self._hosts()]
        if self.names is not None and self.names.asked:
            lines += self._names(self.names)
        if self.robots is not None:
            lines += self._robots(self.robots)
        lines.append(self._least())
        return "\n".join(lines)

    def _rows(self) -> str:
        twice = counted(self.duplicates, "duplicate")
        twice += "" if self.left_out or not self.duplicates else " (--dedupe leaves them out)"
        share = "" if self.listed is None else f" of {self.listed:,} (shard {self.shard})"
        return f"rows      {self.rows:,}{share}: {self.fetched:,} to fetch, {self.invalid:,} invalid, {twice}"

    def _hosts(self) -> list[str]:
        lines = [f"hosts     {self.hosts:,}"]
        if self.hosts > 1:
            lines[0] += f"; half of the rows are on {self.half:,}"
        for host in self.largest[:SHOWN]:
            pace = f", one every {host.delay:g} s" if host.delay else ""
            lines.append(f"          {host.host} {host.rows:,} ({host.share:.1%}{pace})")
        return lines

    def _names(self, names: NamesSampled) -> list[str]:
        lines = [f"names     {names.found} of {names.asked} looked up have an address"]
        failed = list(names.failed.items())
        lines += [f"          {host}: {why}" for host, why in failed[:SHOWN]]
        return lines + ([f"          and {len(failed) - SHOWN} more"] if len(failed) > SHOWN else [])

    def _robots(self, robots: RobotsSampled) -> list[str]:
        text = f"robots    of {counted(robots.asked, 'row')} looked up {robots.allowed} may be fetched"
        if robots.denied:
            text += f", {robots.denied} may not"
        if robots.unknown:
            text += ", " + ", ".join(f"{number} unknown ({code})" for code, number in robots.unknown.items())
        slowest = sorted(robots.delays.items(), key=lambda item: -item[1])[:SHOWN]
        return [text, *(f"          {host} asks for {delay:g} s between two" for host, delay in slowest)]

    def _least(self) -> str:
        if self.least is None:
            return "time      as fast as the hosts answer: neither --delay nor --rate sets a least time"
        return f"time      at least {human_seconds(self.least.seconds)}, set by {self._reason(self.least)}"

    def _reason(self, least: LeastTime) -> str:
        if least.host is None:
            return "--rate" if least.set_by == "rate" else "--concurrency and the latency of the sample"
        if least.set_by in ("per_site", "per_address"):
            return f"{least.host} (all its hosts, --{least.set_by.replace('_', '-')} and their latency)"
        rows = next((host.rows for host in self.largest if host.host == least.host), 0)
        limit = "the delay between two" if least.set_by == "delay" else "--per-host and its latency"
        return f"{least.host} ({counted(rows, 'row')}, {limit})"


class Sharing(NamedTuple):
    """The hosts of one group, so many ``at_once``. ``members`` are some of them, each with its rows."""

    limit: Literal["per_site", "per_address"]
    name: str
    at_once: int
    rows: int
    hosts: int
    members: Sequence[HostRows] = ()


def least_time(
    hosts: Sequence[HostRows],
    requests: int,
    limits: Limits,
    *,
    delays: Mapping[str, float] | None = None,
    at_once: Mapping[str, int] | None = None,
    latencies: Mapping[str, float] | None = None,
    sharing: Sequence[Sharing] = (),
    ahead: int = 0,
) -> LeastTime | None:
    """Return the least seconds that ``requests`` take, ``hosts`` being those with the most rows, and what sets them.

    ``delays`` and ``at_once`` are those of hosts that differ from ``limits``, ``latencies`` what was measured,
    ``sharing`` the sites and addresses with the most rows that have a limit of their own, ``ahead`` the requests to
    each host before its first row (its robots.txt). The median latency stands for hosts that were not asked.
    """
    known = latencies or {}
    usual = median(known.values()) if known else 0.0
    found: list[LeastTime] = []
    for host in hosts:
        delay = (delays or {}).get(host.host, limits.delay)
        most = (at_once or {}).get(host.host, limits.per_host)
        latency = known.get(host.host, usual)
        if delay:
            found.append(LeastTime((host.rows - 1 + ahead) * delay + latency, "delay", host.host))
        if latency:
            found.append(LeastTime((host.rows + ahead) * latency / most, "per_host", host.host))
    if usual:
        found += [LeastTime(_seconds_of(group, known, usual, ahead), group.limit, group.name) for group in sharing]
    if limits.rate:
        found.append(LeastTime(requests / limits.rate, "rate"))
    if usual:
        found.append(LeastTime(requests * usual / limits.concurrency, "concurrency"))
    return max(found, key=lambda least: least.seconds, default=None)


def _seconds_of(group: Sharing, known: Mapping[str, float], usual: float, ahead: int) -> float:
    """Return how long the rows of a group take at least."""
    seconds, others = 0.0, group.rows + ahead * group.hosts
    for member in group.members:
        if member.host in known:
            seconds += (member.rows + ahead) * known[member.host]
            others -= member.rows + ahead
    return (seconds + max(0, others) * usual) / group.at_once


# Hosts that share a limit


def groups_of(host: str, limits: Limits, addresses: Mapping[str, str]) -> list[Group]:
    """Return what a host is known to share; ``addresses`` are those of hosts that were looked up."""
    groups: list[Group] = []
    if limits.per_site is not None:
        groups.append(("per_site", registrable_domain(host)))
    if limits.per_address is not None and host in addresses:
        groups.append(("per_address", addresses[host]))
    return groups


def sharing_of(census: Census, limits: Limits, groups: Mapping[str, Sequence[Group]]) -> list[Sharing]:
    """Return the groups with the most rows; ``groups`` are those of the hosts that were asked."""
    members: dict[Group, list[HostRows]] = {}
    for host, shared in groups.items():
        for group in shared:
            members.setdefault(group, []).append(HostRows(host, census.rows_of(host), ""))
    found: list[Sharing] = []
    if limits.per_site is not None:
        for name, rows, hosts in census.largest_sites(MAX_SITES):
            found.append(Sharing("per_site", name, limits.per_site, rows, hosts, members.get(("per_site", name), ())))
    if limits.per_address is not None:
        drawn = Counter(target.host for target in census.sample)
        for (limit, name), known in members.items():
            if limit == "per_address":
                found.append(Sharing(limit, name, limits.per_address, *_behind(known, drawn, census.rows), known))
    return found


def _behind(known: Sequence[HostRows], drawn: Mapping[str, int], total: int) -> tuple[int, int]:
    """Return how many rows and hosts are behind an address at least, by the rows that were drawn from ``total``."""
    rows = sum(host.rows for host in known)
    weights = [1 / host.rows for host in known for _ in range(drawn.get(host.host, 0))]
    estimated = math.floor(surely(len(weights), sum(drawn.values())) * total)
    if estimated <= rows:
        return rows, len(known)
    return estimated, max(len(known), round(estimated * fmean(weights)))  # a host is drawn as often as it has rows


def surely(found: int, asked: int) -> float:
    """Return the least share of all at which a sample of ``asked`` would have ``found`` so many (Wilson's bound)."""
    if not found:
        return 0.0
    share, square = found / asked, SURE_DEVIATIONS * SURE_DEVIATIONS / asked
    spread = SURE_DEVIATIONS * math.sqrt((share * (1 - share) + square / 4) / asked)
    return max(0.0, (share + square / 2 - spread) / (1 + square))
