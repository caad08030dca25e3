"""Which hosts of a list share a limit, those of one site or behind one address, and how many rows they have.

Law 3: what is told of is the largest of them. Law 9: plain functions; who is behind an address is known of a sample.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Literal, NamedTuple, TypeAlias

from fetcher.config import Limits
from fetcher.report.census import Census, HostRows
from fetcher.urls import registrable_domain

__all__ = ["Group", "Sharing", "groups_of", "sharing_of", "surely"]

LARGEST = 20
SURE = 1.645  # standard deviations: an estimate is too high once in twenty times

Group: TypeAlias = tuple[Literal["per_site", "per_address"], str]
"""A limit, and the site or address it is shared at."""


class Sharing(NamedTuple):
    """The hosts of one group, so many ``at_once``. ``members`` are some of them, each with its rows."""

    limit: Literal["per_site", "per_address"]
    name: str
    at_once: int
    rows: int
    hosts: int
    members: Sequence[HostRows] = ()


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
        for name, rows, hosts in census.largest_sites(LARGEST):
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
    share, square = found / asked, SURE * SURE / asked
    spread = SURE * math.sqrt((share * (1 - share) + square / 4) / asked)
    return max(0.0, (share + square / 2 - spread) / (1 + square))
