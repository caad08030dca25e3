"""The order in which admitted rows start: fair to hosts, the largest early, whatever the order of the list.

Law 3: the look-ahead is what it holds in memory; asked to make room it puts the rows of the longest queues on
disk, and takes them back as those run low. Law 5: a host that cannot take a row now costs the others nothing: it
is left out of the round until its time comes or one of its rows ends. Law 9: synchronous, the clock is a parameter.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable
from itertools import islice

from fetcher.config import Limits
from fetcher.frontier.queues import DelayQueue, HostQueue
from fetcher.frontier.spill import MAX_BATCH_ROWS, Spill
from fetcher.hosts.limits import block
from fetcher.hosts.scheduler import DISPATCH, WHEN_ONE_ENDS, Scheduler
from fetcher.request_state import RequestState

__all__ = ["Frontier"]

MAX_WAITING_HOSTS = 100_000  # with rows that wait; some 40 MB
FAST_SPILL_ROWS = (
    300_000  # rows that are put on disk as fast as they can be read, until there is another host among them
)
SPILL_ROWS_PER_SECOND = 10_000  # and from there on: a list of few hosts must not keep the loop busy with itself
RECHECK_SECONDS = 0.05  # seconds until that is asked again
MAX_COMPARED_HOSTS = 2_000  # a look at them takes a millisecond
MAX_DUE_ROWS = 4 * MAX_BATCH_ROWS  # rows taken off the queue before others have their turn
MIN_REFILL_ROWS = 8  # rows off the disk at a time, however many hosts share the memory


class Frontier:
    """Rows waiting to start, by host; ``pop`` takes the next one round robin over the hosts that may.

    Those few that have by far the longest way to go are asked first, and hold at most half of the slots.
    ``folder`` is where rows go that memory has no place for.
    """

    def __init__(self, scheduler: Scheduler, limits: Limits | None = None, *, folder: str | None = None) -> None:
        limits = limits or Limits()
        self._scheduler = scheduler
        self._lookahead = limits.lookahead
        self._spill = Spill(folder)
        self._queues: dict[str, HostQueue] = {}
        self._round: deque[HostQueue] = deque()
        self._favoured_round: deque[HostQueue] = deque()  # the round of the favoured
        self._favoured: list[HostQueue] = []
        self._most_favoured = max(1, limits.concurrency // (2 * limits.per_host))
        self._until_favoured = 0
        self._timed: list[tuple[float, str]] = []  # hosts whose time has not come: one live entry a host
        self._delayed = DelayQueue(self._spill)  # rows whose time has not come
        self.size = 0  # all rows, wherever they are
        self._memory = 0  # rows of the queues that are no deeper than in memory
        self._relieve_at = 2 * self._lookahead  # rows in memory that are too many
        self._no_new_host_since: float | None = None  # when the list was first read on, after the last new host
        self._spilled_by_then = 0  # rows on disk by then
        self._paused_until = 0.0
        self._checked_at = -math.inf

    def __repr__(self) -> str:
        return (
            f"<Frontier {self.size} rows of {len(self._queues)} hosts: {self.held} in memory, "
            f"{len(self._round) + len(self._favoured_round)} hosts in the round, {len(self._timed)} by time, "
            f"{self._delayed.held} rows delayed>"
        )

    @property
    def held(self) -> int:
        """Rows in memory."""
        return self._memory + self._delayed.held

    def push(self, state: RequestState) -> None:
        """Take a row of the list."""
        self.size += 1
        self._memory += 1
        key = state.target.host
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = HostQueue(key)
            self._no_new_host_since = None
        if queue.push(state):
            self._memory -= queue.flush(self._spill)
        if not queue.in_round:
            self._enter_round(queue)

    def defer(self, state: RequestState, due: float) -> None:
        """Take a row back until ``due``."""
        self.size += 1
        self._delayed.push(state, due)
        self._relieve()

    def host_free(self, key: str) -> None:
        """Note that the host may take a row again."""
        queue = self._queues.get(key)
        if queue is not None and not queue.in_round:
            self._enter_round(queue)

    def pop(self, now: float) -> RequestState | None:
        """Take the next row that may start now; its host has promised it a place."""
        if self._delayed.first <= now:
            self._take_due(now)
        if self._timed and self._timed[0][0] <= now:
            self._end_waits(now)
        scheduler = self._scheduler
        shared = scheduler.shared
        while (turn := self._favoured_round or self._round) and shared.has_room(now):
            queue = turn.popleft()
            queue.in_round = False
            host = scheduler.get(queue.key, now)
            opens = scheduler.decide(host, DISPATCH, now)
            if opens > now:
                if opens == WHEN_ONE_ENDS:
                    continue  # host_free() brings it back
                if host.groups:
                    block(host)
                queue.gap = opens - queue.started if queue.started else 0.0
                if opens < queue.due:
                    queue.due = opens
                    heapq.heappush(self._timed, (opens, queue.key))
                continue
            if not queue.returned and not queue.rows:
                self._refill(queue)
            state = queue.pop()
            self.size -= 1
            self._memory -= 1
            queue.started = now
            self._until_favoured -= 1
            if self._until_favoured < 0:
                self._favour()
            if queue.count:
                queue.in_round = True
                (self._favoured_round if queue.favoured else self._round).append(queue)
            else:
                del self._queues[queue.key]
            shared.reserve(host)
            state.admit(host, now)
            return state
        return None

    def due(self, now: float) -> float | None:
        """Say when time alone will let a further row start, or ``None``.

        What is due already waits for something else: whoever did not ``pop`` it has no place for it.
        """
        due = self._delayed.first
        if due != math.inf:
            due = self._delayed.next(now)
        if now < self._paused_until < due:
            due = self._paused_until
        if self._timed and now < self._timed[0][0] < due:
            due = self._timed[0][0]
        if (
            (self._round or self._favoured_round)
            and (room := self._scheduler.shared.room_at(now)) is not None
            and room < due
        ):
            due = room
        return None if due == math.inf else due

    def waiting(self, most: int) -> dict[str, int]:
        """Return the rows that wait by host: of the ``most`` hosts that would be the last, and of those with delayed rows.

        Of very many hosts those are compared that are known to be far from done, and some of the others.
        """
        queues: Iterable[HostQueue] = self._queues.values()
        if len(self._queues) > MAX_COMPARED_HOSTS:
            queues = {*self._favoured, *islice(queues, MAX_COMPARED_HOSTS)}
        counts = self._delayed.count_hosts(MAX_DUE_ROWS)
        largest = heapq.nlargest(most, queues, key=lambda queue: queue.weight)
        for key in {queue.key for queue in largest} | (counts.keys() & self._queues.keys()):
            counts[key] += self._queues[key].count
        return dict(counts)

    def make_room(self, rows: int, now: float) -> int:
        """Put on disk what must go for ``rows`` more; return how many may come, none at times.

        For when there are places to fetch into, and none of the rows that wait may start.
        """
        if now < self._paused_until or len(self._queues) >= MAX_WAITING_HOSTS or not self._spill.has_room():
            return 0
        if now >= self._checked_at + RECHECK_SECONDS:
            self._checked_at = now
            if self._first_answers_will_do():
                self._paused_until = now + RECHECK_SECONDS
                return 0
        if self._no_new_host_since is None:
            self._no_new_host_since, self._spilled_by_then = now, self._spill.written
        if self._spill.written - self._spilled_by_then > FAST_SPILL_ROWS + SPILL_ROWS_PER_SECOND * (
            now - self._no_new_host_since
        ):
            self._paused_until = now + RECHECK_SECONDS
            return 0
        over = self.held + rows - self._lookahead
        if over > 0:
            self._unload(over)
        return max(0, min(rows, self._lookahead - self.held))

    def _first_answers_will_do(self) -> bool:
        """Whether hosts that have one connection until their first answer will need all slots that are idle."""
        shared, table = self._scheduler.shared, self._scheduler.table
        idle = shared.concurrency - shared.on_wire - shared.reserved
        for queue in self._queues.values():
            host = table.find(queue.key)
            if host is not None and host.awaited:
                idle -= min(queue.count, host.settings.per_host - 1)
                if idle <= 0:
                    return True
        return False

    def clear(self) -> None:
        """Give up all rows, for a run that ends early."""
        self._queues.clear()
        self._round.clear()
        self._favoured_round.clear()
        self._favoured.clear()
        self._timed.clear()
        self._delayed.clear()
        self._spill.close()
        self.size = self._memory = 0

    def _end_waits(self, now: float) -> None:
        """Put the hosts back into the round whose time has come."""
        timed = self._timed
        while timed and timed[0][0] <= now:
            due, key = heapq.heappop(timed)
            queue = self._queues.get(key)
            if queue is not None and queue.due == due:
                queue.due = math.inf
                if not queue.in_round:
                    self._enter_round(queue)

    def _refill(self, queue: HostQueue) -> None:
        """Read rows of a queue back that has none in memory."""
        self._relieve()
        share = max(MIN_REFILL_ROWS, min(MAX_BATCH_ROWS, self._lookahead // len(self._queues)))
        self._memory += queue.refill(self._spill, share)

    def _enter_round(self, queue: HostQueue) -> None:
        queue.in_round = True
        (self._favoured_round if queue.favoured else self._round).append(queue)

    def _favour(self) -> None:
        """Choose the hosts that would be the last: far above the mean in rows times the seconds between two of them."""
        for queue in self._favoured:
            queue.favoured = False
        queues = self._queues.values()
        weights = [queue.weight for queue in queues]
        mean = sum(weights) / len(weights)
        self._favoured.clear()
        if max(weights) > 2 * mean:
            largest = heapq.nlargest(self._most_favoured, queues, key=lambda queue: queue.weight)
            self._favoured = [queue for queue in largest if queue.weight > 2 * mean]
        for queue in self._favoured:
            queue.favoured = True
            if queue.in_round and queue in self._round:
                self._round.remove(queue)
                self._favoured_round.append(queue)
        self._until_favoured = max(256, len(queues) // 4)

    def _take_due(self, now: float) -> None:
        """Put the rows whose time has come before those of their host that never started, the oldest first.

        Where the host seems dead, those that never started go first: each probe is another row's attempt.
        """
        for state in self._delayed.pop(now, MAX_DUE_ROWS):
            self._memory += 1
            key = state.target.host
            queue = self._queues.get(key)
            if queue is None:
                queue = self._queues[key] = HostQueue(key)
            host = self._scheduler.table.find(key)
            if host is None or not host.suspect:
                queue.push_again(state)
            elif queue.push(state):
                self._memory -= queue.flush(self._spill)
            if not queue.in_round:
                self._enter_round(queue)
        self._relieve()

    # Memory

    def _relieve(self) -> None:
        """Law 3: what came back unasked for must not stay in memory."""
        if self.held > self._relieve_at:
            self._unload(self.held - self._lookahead)
            # What cannot leave is not looked through again and again.
            self._relieve_at = max(2 * self._lookahead, self.held + self._lookahead // 4)

    def _unload(self, rows: int) -> None:
        """Put at least ``rows`` rows on disk if that many can go: the longest queues first, the soonest last."""
        left = rows
        for kept in (MAX_BATCH_ROWS, MAX_BATCH_ROWS // 8):
            long = [queue for queue in self._queues.values() if queue.held > kept]
            long.sort(key=lambda queue: -queue.held)
            left -= self._cut(long, kept, left)
        left -= self._delayed.unload(left)
        if left > 0:
            rest = list(self._queues.values())
            rest.sort(key=lambda queue: 0.0 if queue.due == math.inf else -queue.due)
            self._cut(rest, 0, max(left, self._memory // 2))  # so that all hosts need not be looked through often

    def _cut(self, queues: list[HostQueue], kept: int, rows: int) -> int:
        freed = 0
        for queue in queues:
            if freed >= rows:
                break
            freed += queue.cut(self._spill, kept)
        self._memory -= freed
        return freed
