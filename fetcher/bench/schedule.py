"""The shortest time that is possible for a list: greedy list scheduling over slots and hosts (Graham, 1969).

Law 9: plain functions of numbers.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Sequence

__all__ = ["least_time", "usable_slots"]


def least_time(latencies: Sequence[float], hosts: Sequence[str], slots: int, per_host: int) -> float:
    """Return the seconds a list takes if a free slot always takes the first row that may start.

    ``latencies`` (seconds) and ``hosts`` are those of the rows, in the order of the list. A row may start while its
    host has fewer than ``per_host`` rows running. Greedy is at most 2 - 1/slots times the optimum where hosts do not
    limit it.

    >>> least_time([3, 1, 1, 1], ["a", "b", "c", "d"], slots=2, per_host=6)
    3.0
    """
    waiting: dict[str, deque[int]] = {}
    for row, host in enumerate(hosts):
        waiting.setdefault(host, deque()).append(row)
    # The first waiting row of each host that may take one; the smallest is the next in the list.
    ready = [(rows[0], host) for host, rows in waiting.items()]
    heapq.heapify(ready)
    running_per_host = dict.fromkeys(waiting, 0)
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < slots:
            row, host = heapq.heappop(ready)
            waiting[host].popleft()
            running_per_host[host] += 1
            heapq.heappush(running, (now + latencies[row], row))
            if waiting[host] and running_per_host[host] < per_host:
                heapq.heappush(ready, (waiting[host][0], host))
        now = running[0][0]
        while running and running[0][0] == now:
            host = hosts[heapq.heappop(running)[1]]
            if waiting[host] and running_per_host[host] == per_host:
                heapq.heappush(ready, (waiting[host][0], host))
            running_per_host[host] -= 1
    return now


def usable_slots(hosts: Sequence[str], per_host: int) -> int:
    """Return how many rows of a list can run at once, with any number of slots.

    >>> usable_slots(["a", "a", "a", "b"], per_host=2)
    3
    """
    return sum(min(rows, per_host) for rows in Counter(hosts).values())
