"""The order in which admitted rows start: fair to hosts, whatever the order of the list.

Law 3: it holds the look-ahead and nothing else. Law 5: a host that cannot take a row now costs the others
nothing: it is left out of the round until its time comes or one of its rows ends. Law 9: synchronous, the
clock is a parameter.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from typing import Any

from fetcher.flight import Flight
from fetcher.hosts import Hosts

__all__ = ["Frontier"]


class Frontier:
    """Rows waiting to start, by host; ``pop`` takes the next one round robin over the hosts that may."""

    def __init__(self, hosts: Hosts[Any]) -> None:
        self._hosts = hosts
        self._queues: dict[str, deque[Flight]] = {}
        self._round: deque[str] = deque()
        self._in_round: set[str] = set()
        self._timed: list[tuple[float, str]] = []  # hosts whose time has not come
        self._asked_again: dict[str, float] = {}  # when each of them is: one live entry a host
        self._later: list[tuple[float, int, Flight]] = []  # rows whose time has not come
        self._tick = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def push(self, flight: Flight) -> None:
        """Take a row of the list."""
        self._size += 1
        self._enqueue(flight, first=False)

    def defer(self, flight: Flight, due: float) -> None:
        """Take a row back until ``due``."""
        self._size += 1
        self._tick += 1
        heapq.heappush(self._later, (due, self._tick, flight))

    def host_free(self, key: str) -> None:
        """Note that the host may take a row again."""
        if key in self._queues:
            self._enter_round(key)

    def pop(self, now: float) -> Flight | None:
        """Take the next row that may start now; its host has promised it a place."""
        if self._later and self._later[0][0] <= now:
            self._take_up(now)
        while self._timed and self._timed[0][0] <= now:
            due, key = heapq.heappop(self._timed)
            if self._asked_again.get(key) == due:
                del self._asked_again[key]
                self._enter_round(key)
        while self._round and self._hosts.room(now):
            key = self._round.popleft()
            self._in_round.discard(key)
            queue = self._queues.get(key)
            if queue is None:
                continue
            host = self._hosts.get(key, now)
            opens = self._hosts.opens(host, now)
            if opens is None:
                continue  # host_free() brings it back
            if opens > now:
                if opens < self._asked_again.get(key, math.inf):
                    self._asked_again[key] = opens
                    heapq.heappush(self._timed, (opens, key))
                continue
            flight = queue.popleft()
            self._size -= 1
            if queue:
                self._enter_round(key)
            else:
                del self._queues[key]
            self._hosts.promise(host)
            flight.promised = host
            return flight
        return None

    def due(self, now: float) -> float | None:
        """Say when time alone will let a further row start, or ``None``.

        What is due already waits for something else: whoever did not ``pop`` it has no place for it.
        """
        times = [heap[0][0] for heap in (self._later, self._timed) if heap and heap[0][0] > now]
        if self._round and (room := self._hosts.room_from(now)) is not None:
            times.append(room)
        return min(times) if times else None

    def drain(self) -> list[Flight]:
        """Give up all rows, for a run that ends early."""
        rows = [flight for queue in self._queues.values() for flight in queue]
        rows += [flight for _, _, flight in self._later]
        self._queues.clear()
        self._round.clear()
        self._in_round.clear()
        self._timed.clear()
        self._asked_again.clear()
        self._later.clear()
        self._size = 0
        return rows

    def _take_up(self, now: float) -> None:
        """Put the rows whose time has come before those of their host that never started, the oldest first."""
        due = []
        while self._later and self._later[0][0] <= now:
            due.append(heapq.heappop(self._later)[2])
        for flight in reversed(due):
            self._enqueue(flight, first=True)

    def _enqueue(self, flight: Flight, *, first: bool) -> None:
        key = flight.target.host
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = deque()
        if first:
            queue.appendleft(flight)
        else:
            queue.append(flight)
        self._enter_round(key)

    def _enter_round(self, key: str) -> None:
        if key not in self._in_round:
            self._in_round.add(key)
            self._round.append(key)
