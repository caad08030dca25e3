"""The order in which admitted rows start: fair to hosts, the largest early, whatever the order of the list.

Law 3: the look-ahead is what it holds in memory; asked to make room it puts the rows of the longest queues on
disk, and takes them back as those run low. Law 5: a host that cannot take a row now costs the others nothing: it
is left out of the round until its time comes or one of its rows ends. Law 9: synchronous, the clock is a parameter.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from typing import Any

from fetcher.config import Limits
from fetcher.flight import Flight
from fetcher.hosts import Hosts
from fetcher.queues import Line, Shelf
from fetcher.spill import CHUNK, Spill

__all__ = ["Frontier"]

HOSTS = 100_000  # with rows that wait; some 40 MB
AT_ONCE = 300_000  # rows that are put on disk as fast as they can be read, until there is another host among them
PER_SECOND = 10_000  # and from there on: a list of few hosts must not keep the loop busy with itself
SHORTLY = 0.05  # seconds until that is asked again
DUE_AT_ONCE = 4 * CHUNK  # rows taken off the shelf before others have their turn
LEAST_TAKEN = 8  # rows off the disk at a time, however many hosts share the memory


class Frontier:
    """Rows waiting to start, by host; ``pop`` takes the next one round robin over the hosts that may.

    Those few that have by far the longest way to go are asked first, and hold at most half of the slots.
    ``folder`` is where rows go that memory has no place for.
    """

    def __init__(self, hosts: Hosts[Any], limits: Limits | None = None, *, folder: str | None = None) -> None:
        limits = limits or Limits()
        self._hosts = hosts
        self._lookahead = limits.lookahead
        self._spill = Spill(folder)
        self._lines: dict[str, Line] = {}
        self._round: deque[Line] = deque()
        self._first: deque[Line] = deque()  # the round of the favoured
        self._favoured: list[Line] = []
        self._most_favoured = max(1, limits.concurrency // (2 * limits.per_host))
        self._until_favoured = 0
        self._timed: list[tuple[float, str]] = []  # hosts whose time has not come: one live entry a host
        self._later = Shelf(self._spill)  # rows whose time has not come
        self._size = 0
        self._memory = 0  # rows of the lines that are no deeper than in memory
        self._relief = 2 * self._lookahead  # rows in memory that are too many
        self._barren_since: float | None = None  # when the list was first read on, after the last new host
        self._barren_from = 0  # rows on disk by then
        self._braked_until = 0.0
        self._looked_at = -math.inf

    def __len__(self) -> int:
        return self._size

    @property
    def held(self) -> int:
        """Rows in memory."""
        return self._memory + self._later.held

    def push(self, flight: Flight) -> None:
        """Take a row of the list."""
        self._size += 1
        self._memory += 1
        key = flight.target.host
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = Line(key)
            self._barren_since = None
        if line.push(flight):
            self._memory -= line.flush(self._spill)
        if not line.listed:
            self._enter_round(line)

    def defer(self, flight: Flight, due: float) -> None:
        """Take a row back until ``due``."""
        self._size += 1
        self._later.push(flight, due)
        self._relieve()

    def host_free(self, key: str) -> None:
        """Note that the host may take a row again."""
        line = self._lines.get(key)
        if line is not None and not line.listed:
            self._enter_round(line)

    def pop(self, now: float) -> Flight | None:
        """Take the next row that may start now; its host has promised it a place."""
        if self._later.first <= now:
            self._take_up(now)
        timed = self._timed
        while timed and timed[0][0] <= now:
            due, key = heapq.heappop(timed)
            line = self._lines.get(key)
            if line is not None and line.due == due:
                line.due = math.inf
                if not line.listed:
                    self._enter_round(line)
        hosts = self._hosts
        while (turn := self._first or self._round) and hosts.room(now):
            line = turn.popleft()
            line.listed = False
            host = hosts.get(line.key, now)
            opens = hosts.opens(host, now)
            if opens is None:
                continue  # host_free() brings it back
            if opens > now:
                line.gap = opens - line.started if line.started else 0.0
                if opens < line.due:
                    line.due = opens
                    heapq.heappush(timed, (opens, line.key))
                continue
            flight = self._take(line, now)
            hosts.promise(host)
            flight.promised = host
            return flight
        return None

    def due(self, now: float) -> float | None:
        """Say when time alone will let a further row start, or ``None``.

        What is due already waits for something else: whoever did not ``pop`` it has no place for it.
        """
        due = self._later.first
        if due != math.inf:
            due = self._later.next(now)
        if now < self._braked_until < due:
            due = self._braked_until
        if self._timed and now < self._timed[0][0] < due:
            due = self._timed[0][0]
        if (self._round or self._first) and (room := self._hosts.room_from(now)) is not None and room < due:
            due = room
        return None if due == math.inf else due

    def make_room(self, rows: int, now: float) -> int:
        """Put on disk what must go for ``rows`` more; return how many may come, none at times.

        For when there are places to fetch into, and none of the rows that wait may start.
        """
        if now < self._braked_until or len(self._lines) >= HOSTS or not self._spill.has_room():
            return 0
        if now >= self._looked_at + SHORTLY:
            self._looked_at = now
            if self._first_answers_will_do():
                self._braked_until = now + SHORTLY
                return 0
        if self._barren_since is None:
            self._barren_since, self._barren_from = now, self._spill.written
        if self._spill.written - self._barren_from > AT_ONCE + PER_SECOND * (now - self._barren_since):
            self._braked_until = now + SHORTLY
            return 0
        over = self.held + rows - self._lookahead
        if over > 0:
            self._unload(over)
        return max(0, min(rows, self._lookahead - self.held))

    def _first_answers_will_do(self) -> bool:
        """Whether hosts that have one connection until their first answer will need all slots that are idle."""
        hosts = self._hosts
        idle = hosts.concurrency - hosts.on_wire - hosts.promised
        for line in self._lines.values():
            host = hosts.find(line.key)
            if host is not None and host.awaited:
                idle -= min(line.count, host.most - 1)
                if idle <= 0:
                    return True
        return False

    def clear(self) -> None:
        """Give up all rows, for a run that ends early."""
        self._lines.clear()
        self._round.clear()
        self._first.clear()
        self._favoured.clear()
        self._timed.clear()
        self._later.clear()
        self._spill.close()
        self._size = self._memory = 0

    def _take(self, line: Line, now: float) -> Flight:
        """Take the next row of a line, and put the line where it belongs."""
        if not line.again and not line.rows:
            self._relieve()
            share = max(LEAST_TAKEN, min(CHUNK, self._lookahead // len(self._lines)))
            self._memory += line.refill(self._spill, share)
        flight = line.pop()
        self._size -= 1
        self._memory -= 1
        line.started = now
        self._until_favoured -= 1
        if self._until_favoured < 0:
            self._favour()
        if line.count:
            line.listed = True
            (self._first if line.favoured else self._round).append(line)
        else:
            del self._lines[line.key]
        return flight

    def _enter_round(self, line: Line) -> None:
        line.listed = True
        (self._first if line.favoured else self._round).append(line)

    def _favour(self) -> None:
        """Choose the hosts that would be the last: far above the mean in rows times the seconds between two of them."""
        for line in self._favoured:
            line.favoured = False
        lines = self._lines.values()
        weights = [line.weight for line in lines]
        mean = sum(weights) / len(weights)
        self._favoured.clear()
        if max(weights) > 2 * mean:
            largest = heapq.nlargest(self._most_favoured, lines, key=lambda line: line.weight)
            self._favoured = [line for line in largest if line.weight > 2 * mean]
        for line in self._favoured:
            line.favoured = True
            if line.listed and line in self._round:
                self._round.remove(line)
                self._first.append(line)
        self._until_favoured = max(256, len(lines) // 4)

    def _take_up(self, now: float) -> None:
        """Put the rows whose time has come before those of their host that never started, the oldest first.

        Where the host seems dead, those that never started go first: each probe is another row's attempt.
        """
        for flight in self._later.pop(now, DUE_AT_ONCE):
            self._memory += 1
            key = flight.target.host
            line = self._lines.get(key)
            if line is None:
                line = self._lines[key] = Line(key)
            host = self._hosts.find(key)
            if host is None or not host.suspect:
                line.push_again(flight)
            elif line.push(flight):
                self._memory -= line.flush(self._spill)
            if not line.listed:
                self._enter_round(line)
        self._relieve()

    # Memory

    def _relieve(self) -> None:
        """Law 3: what came back unasked for must not stay in memory."""
        if self.held > self._relief:
            self._unload(self.held - self._lookahead)
            # What cannot leave is not looked through again and again.
            self._relief = max(2 * self._lookahead, self.held + self._lookahead // 4)

    def _unload(self, rows: int) -> None:
        """Put at least ``rows`` rows on disk if that many can go: the longest queues first, the soonest last."""
        left = rows
        for kept in (CHUNK, CHUNK // 8):
            long = [line for line in self._lines.values() if line.held > kept]
            long.sort(key=lambda line: -line.held)
            left -= self._cut(long, kept, left)
        left -= self._later.unload(left)
        if left > 0:
            rest = list(self._lines.values())
            rest.sort(key=lambda line: 0.0 if line.due == math.inf else -line.due)
            self._cut(rest, 0, max(left, self._memory // 2))  # so that all hosts need not be looked through often

    def _cut(self, lines: list[Line], kept: int, rows: int) -> int:
        freed = 0
        for line in lines:
            if freed >= rows:
                break
            freed += line.cut(self._spill, kept)
        self._memory -= freed
        return freed
