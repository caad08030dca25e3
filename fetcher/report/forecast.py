"""What a crawl would be: the counts of its list, what a sample answered, and the least time that politeness allows.

Law 8: the time is that of the pace we keep, not of what hosts could bear. Law 9: plain functions of numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Literal

import msgspec

from fetcher.config import Limits
from fetcher.report.census import HostRows
from fetcher.report.sharing import Sharing
from fetcher.report.summary import human_seconds

__all__ = ["Forecast", "HostShare", "Least", "NamesSampled", "RobotsSampled", "least_time"]

SHOWN = 5  # hosts, and names that did not resolve


class Least(msgspec.Struct, frozen=True):
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
    least: Least | None

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
        twice = f"{self.duplicates:,} duplicate{_s(self.duplicates)}"
        twice += "" if self.left_out or not self.duplicates else " (--dedupe leaves them out)"
        return f"rows      {self.rows:,}: {self.fetched:,} to fetch, {self.invalid:,} invalid, {twice}"

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
        text = f"robots    of {robots.asked} row{_s(robots.asked)} looked up {robots.allowed} may be fetched"
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

    def _reason(self, least: Least) -> str:
        if least.host is None:
            return "--rate" if least.set_by == "rate" else "--concurrency and the latency of the sample"
        if least.set_by in ("per_site", "per_address"):
            return f"{least.host} (all its hosts, --{least.set_by.replace('_', '-')} and their latency)"
        rows = next((host.rows for host in self.largest if host.host == least.host), 0)
        limit = "the delay between two" if least.set_by == "delay" else "--per-host and its latency"
        return f"{least.host} ({rows:,} row{_s(rows)}, {limit})"


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
) -> Least | None:
    """Return the least seconds that ``requests`` take, ``hosts`` being those with the most rows, and what sets them.

    ``delays`` and ``at_once`` are those of hosts that differ from ``limits``, ``latencies`` what was measured,
    ``sharing`` the sites and addresses with the most rows that have a limit of their own, ``ahead`` the requests to
    each host before its first row (its robots.txt). The median latency stands for hosts that were not asked.
    """
    known = latencies or {}
    usual = median(known.values()) if known else 0.0
    found: list[Least] = []
    for host in hosts:
        delay = (delays or {}).get(host.host, limits.delay)
        most = (at_once or {}).get(host.host, limits.per_host)
        latency = known.get(host.host, usual)
        if delay:
            found.append(Least((host.rows - 1 + ahead) * delay + latency, "delay", host.host))
        if latency:
            found.append(Least((host.rows + ahead) * latency / most, "per_host", host.host))
    if usual:
        found += [Least(_seconds_of(group, known, usual, ahead), group.limit, group.name) for group in sharing]
    if limits.rate:
        found.append(Least(requests / limits.rate, "rate"))
    if usual:
        found.append(Least(requests * usual / limits.concurrency, "concurrency"))
    return max(found, key=lambda least: least.seconds, default=None)


def _seconds_of(group: Sharing, known: Mapping[str, float], usual: float, ahead: int) -> float:
    """Return how long the rows of a group take at least."""
    seconds, others = 0.0, group.rows + ahead * group.hosts
    for member in group.members:
        if member.host in known:
            seconds += (member.rows + ahead) * known[member.host]
            others -= member.rows + ahead
    return (seconds + max(0, others) * usual) / group.at_once


def _s(number: int) -> str:
    return "" if number == 1 else "s"
