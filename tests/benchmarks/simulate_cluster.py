"""Owns a cluster on paper: ``python -m tests.benchmarks.simulate_cluster [--seed N] [--sites N] [--skew S] [--per-host N]``.

A list in random order flows through parents, workers and hosts in steps of time: the list is read as fast as somebody
can fetch what it names, each host is asked no faster than politeness allows, and what comes too fast for its host waits
on the parent's disk. It tells how long lists of 10^8 and 10^9 rows take, and what holds them up. Nothing is fetched;
the figures below were measured, and the hosts are drawn from the seed.

Hosts: sizes by a power law of their rank, the largest with about one row of a hundred; latency log-normal, a quarter of
a second in the median; one host in thirty asks for a delay between 1 and 10 seconds in its robots.txt.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

__all__ = ["Cluster", "Costs", "Flow", "Hosts", "flow"]

SINGLE = 1_000  # of the largest hosts, each by itself; the others in classes
CLASSES = 1_000
LATENCY_SECONDS, LATENCY_SPREAD = 0.25, 0.7
DELAYED = 1 / 30
STEP_SECONDS = 60.0
BISECTIONS = 14
DONE = 0.999999


@dataclass(frozen=True)
class Costs:
    """What was measured: seconds of a core a row, of which handshakes a connection, and the rows of a connection."""

    page: float = 755e-6  # the whole of a page of 60 KB in one process: fetched, parsed, recorded
    handshake: float = 690e-6  # TLS with its certificates verified
    pages_a_connection: float = 3.0
    parent: float = 52e-6  # a row: read, dealt, joined, encoded, written
    call: float = 0.54e-3  # of Ray's in the driver
    ledger_bytes: float = 31.5
    record_bytes: float = 500.0
    spilled_bytes: float = 120.0

    @property
    def worker(self) -> float:
        """Seconds of a worker's core a row."""
        return self.page - self.parent + self.handshake / self.pages_a_connection


@dataclass(frozen=True)
class Cluster:
    """Machines with cores, a worker each; ``parents`` share the list by ``--shard``. ``slots`` are each worker's part of -c."""

    name: str
    machines: int
    cores: int
    parents: int
    slots: int = 100

    @property
    def workers(self) -> int:
        """How many there are."""
        return self.machines * self.cores

    def limits(self, costs: Costs, latency: float) -> dict[str, float]:
        """Return the rows a second that each part of it can do."""
        return {
            "cores": self.workers / costs.worker,
            "parent": self.parents / costs.parent,
            "slots": self.workers * self.slots / latency,
        }


@dataclass(frozen=True)
class Hosts:
    """Classes of hosts: how many there are in each, the rows of one, and the seconds between two of its requests."""

    count: list[float]
    rows: list[float]
    interval: list[float]
    latency: float


def draw(rows: float, sites: int, skew: float, per_host: int, seed: int) -> Hosts:
    """Draw the hosts of a list."""
    chance = random.Random(seed)
    edges = [SINGLE * (sites / SINGLE) ** (n / CLASSES) for n in range(CLASSES + 1)]
    ranks = [(1.0, float(rank)) for rank in range(1, SINGLE + 1)]
    ranks += [(high - low, math.sqrt(low * high)) for low, high in pairwise(edges)]
    shares = [rank**-skew for _, rank in ranks]
    total = sum(many * share for (many, _), share in zip(ranks, shares, strict=True))
    latencies = [LATENCY_SECONDS * math.exp(chance.gauss(0.0, LATENCY_SPREAD)) for _ in ranks]
    delays = [chance.uniform(1.0, 10.0) if chance.random() < DELAYED else 0.0 for _ in ranks]
    return Hosts(
        [many for many, _ in ranks],
        [rows * share / total for share in shares],
        [max(latency / per_host, delay) for latency, delay in zip(latencies, delays, strict=True)],
        sum(latencies) / len(latencies),
    )


@dataclass
class Flow:
    """How a list went: the hours at which parts of it were done, what held it up, and the most that waited on disk."""

    at: dict[float, float] = field(default_factory=dict)
    held_by: Counter[str] = field(default_factory=Counter)
    most_waiting: float = 0.0
    read: float = 0.0


def flow(hosts: Hosts, cluster: Cluster, costs: Costs, parts: Sequence[float]) -> Flow:
    """Let a list flow until all of it is done."""
    limits = cluster.limits(costs, hosts.latency)
    narrowest = min(limits, key=limits.__getitem__)
    capacity = limits[narrowest]
    total = sum(many * rows for many, rows in zip(hosts.count, hosts.rows, strict=True))
    waiting = [0.0] * len(hosts.rows)  # of one host of each class
    found, left, now, done, step = Flow(), 1.0, 0.0, 0.0, STEP_SECONDS
    while done < DONE * total:
        most = [step / interval for interval in hosts.interval]
        read = _read(hosts, waiting, most, left, capacity * step)
        served = 0.0
        for place, rows in enumerate(hosts.rows):
            there = waiting[place] + read * rows
            taken = min(there, most[place])
            waiting[place] = there - taken
            served += taken * hosts.count[place]
        left -= read
        now += step
        done += served
        found.held_by[narrowest if served > 0.98 * capacity * step else "politeness"] += round(step)
        spilled = sum(many * rows for many, rows in zip(hosts.count, waiting, strict=True))
        found.most_waiting = max(found.most_waiting, spilled)
        if left <= 1e-9:
            found.read = found.read or now
            step = max(step, now / 200)
        for part in parts:
            if part not in found.at and done >= min(part, DONE) * total:
                found.at[part] = now / 3600
    return found


def _read(hosts: Hosts, waiting: Sequence[float], most: Sequence[float], left: float, room: float) -> float:
    """Return the part of the list to read in a step: as much as fills the room there is."""

    def served(read: float) -> float:
        return sum(
            many * min(there + read * rows, bound)
            for many, there, rows, bound in zip(hosts.count, waiting, hosts.rows, most, strict=True)
        )

    if served(left) <= room:
        return left
    low, high = 0.0, left
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if served(middle) <= room else (low, middle)
    return low


def main() -> int:
    """Simulate, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.simulate_cluster")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--sites", type=int, default=5_000_000, help="of a list of 10^8 rows; ten times the rows have five times"
    )
    parser.add_argument("--skew", type=float, default=0.8, help="rows of a host by its rank to this power")
    parser.add_argument("--per-host", type=int, default=6)
    wanted = parser.parse_args()
    costs = Costs()
    parts = (0.5, 0.9, 0.99, 1.0)
    print(f"a row takes a worker's core {1e6 * costs.worker:.0f} µs, the parent {1e6 * costs.parent:.0f} µs")
    for rows, sites, clusters in (
        (1e8, wanted.sites, (Cluster("1 x 16, one parent", 1, 16, 1), Cluster("20 x 16, one parent", 20, 16, 1), Cluster("20 x 16, four shards", 20, 16, 4))),
        (1e9, 5 * wanted.sites, (Cluster("20 x 16, one parent", 20, 16, 1), Cluster("20 x 16, ten shards", 20, 16, 10), Cluster("60 x 16, twenty shards", 60, 16, 20))),
    ):  # fmt: skip
        hosts = draw(rows, sites, wanted.skew, wanted.per_host, wanted.seed)
        slow = max(size * interval for size, interval in zip(hosts.rows, hosts.interval, strict=True)) / 3600
        print(
            f"\n10^{math.log10(rows):.0f} rows of {sites:,} hosts; the largest has {hosts.rows[0]:,.0f}; the slowest takes {slow:,.0f} h"
        )
        print(
            f"ledger {costs.ledger_bytes * rows / 1e9:.0f} GB, records {costs.record_bytes * rows / 1e9:.0f} GB, in all shards"
        )
        head = " ".join(f"{f'{part:.0%} at':>9}" for part in parts)
        print(f"{'':<24} {'rows/s':>8} {head} {'list read':>10} {'on disk':>9}  held up by")
        for cluster in clusters:
            went = flow(hosts, cluster, costs, parts)
            hours = " ".join(f"{went.at[part]:>7.1f} h" for part in parts)
            narrow = min(cluster.limits(costs, hosts.latency).values())
            held = ", ".join(f"{name} {seconds / 3600:.1f} h" for name, seconds in went.held_by.most_common())
            print(
                f"{cluster.name:<24} {narrow:>8,.0f} {hours} {went.read / 3600:>8.1f} h "
                f"{costs.spilled_bytes * went.most_waiting / 1e9:>6.1f} GB  {held}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
