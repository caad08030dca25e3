"""Which worker asks a site, and which rows it is given next: decided in the parent, without waiting.

A site falls to one of 4,096 buckets by its hash, and a bucket belongs to one worker from its first row to the end of
the run, so that a host's state, connections and pace are one process's. Which worker that is depends on the rows that
are known by then: the look-ahead is divided as evenly as its sites allow, and a bucket that is seen later goes to
whoever has the fewest rows. (By the hash alone one of two workers would have 58 of 100 sites as often as not.)

Law 1: a row is waiting here, or given and not yet ended; what was given to a worker that died waits again. Law 3: what
is given is bounded, and of what waits only the look-ahead is in memory. Law 5: a host has few rows given until it has
shown that it ends them, so that slow hosts do not fill a worker; where a worker has too little to do the list is read
on, and what it has for the others goes to disk. Law 9: synchronous.
"""

from __future__ import annotations

import heapq
from collections import deque

from fetcher.buckets import BUCKETS, bucket_of
from fetcher.config import Limits
from fetcher.frontier.queues import HostQueue
from fetcher.frontier.spill import MAX_BATCH_ROWS, Spill
from fetcher.request_state import RequestState

__all__ = ["RowAssigner"]

FIRST_ALLOWANCE = 16  # rows of a host that a worker has at once, until it has ended some
MAX_ALLOWANCE = 512
MIN_GIVEN = 1_000  # rows that a worker may have at once, however many workers share the look-ahead
FAST_ROWS = 300_000  # rows read on as fast as they can be, until there is another host among them
ROWS_PER_SECOND = 10_000  # and from there on
ROWS_A_LOOK = 256  # read between two looks at the disk


class AssignedHost:
    """A host with rows that wait or are given: ``out`` of these, ``allowance`` at most."""

    __slots__ = ("allowance", "bucket", "out", "queue")

    def __init__(self, key: str, bucket: int) -> None:
        self.queue = HostQueue(key)
        self.bucket = bucket
        self.out = 0
        self.allowance = FIRST_ALLOWANCE


class WorkerLoad:
    """What a worker has: the rows given to it, by their keys, and in ``round`` its hosts that may be given more.

    ``idle`` says that it has slots that none of them can use; it is so where there is no process yet.
    """

    __slots__ = ("buckets", "given", "idle", "round", "waiting")

    def __init__(self) -> None:
        self.given: dict[int, tuple[RequestState, AssignedHost]] = {}
        self.round: deque[AssignedHost] = deque()
        self.waiting = 0
        self.buckets = 0
        self.idle = True

    @property
    def weight(self) -> tuple[int, int]:
        """By which the next bucket goes to one of them."""
        return self.waiting + len(self.given), self.buckets


class RowAssigner:
    """The rows of a run between its list and its workers. ``folder`` is where those go that memory has no place for."""

    def __init__(self, workers: int, limits: Limits, *, folder: str | None = None) -> None:
        self.loads = [WorkerLoad() for _ in range(workers)]
        self.most_given = max(MIN_GIVEN, limits.lookahead // workers)
        self._lookahead = limits.lookahead
        self._spill = Spill(folder)
        self._hosts: dict[str, AssignedHost] = {}
        self._owner = [-1] * BUCKETS
        self._unowned: list[int] = []  # buckets with rows, before the first row is given
        self._counts: dict[int, int] = {}  # their rows
        self._began = False
        self._memory = 0
        self._returned = 0  # rows that came back from a worker and wait: only memory can hold them
        self._reading_since: float | None = None
        self._spilled_by_then = 0
        self._next_look = 0
        self._has_room = True

    @property
    def buckets(self) -> int:
        """How many buckets have a row, or had one."""
        return len(self._unowned) + sum(load.buckets for load in self.loads)

    @property
    def given(self) -> int:
        """How many rows the workers have."""
        return sum(len(load.given) for load in self.loads)

    # Rows in

    def push(self, state: RequestState) -> None:
        """Take a row of the list."""
        host = self._host(state.target.host)
        self._memory += 1
        if host.queue.push(state):
            self._memory -= host.queue.flush(self._spill)
        self._enter(host)

    def push_again(self, state: RequestState) -> None:
        """Take a row that was given before, and goes on: before those that never were."""
        host = self._host(state.target.host)
        self._memory += 1
        self._returned += 1
        host.queue.push_again(state)
        self._enter(host)

    def is_full(self, now: float) -> bool:
        """Whether no further row of the list is needed now."""
        if self._memory < self._lookahead:
            return False
        if not self._began or not any(self._lacks(load) for load in self.loads):
            return True
        if self._reading_since is None:
            self._reading_since, self._spilled_by_then = now, self._spill.written
        read = self._spill.written - self._spilled_by_then
        if read >= self._next_look:
            self._next_look = read + ROWS_A_LOOK
            self._has_room = self._spill.has_room()
        if not self._has_room or read > FAST_ROWS + ROWS_PER_SECOND * (now - self._reading_since):
            return True
        self._unload(self._memory - self._lookahead + max(1, self._lookahead // 8))
        return self._memory >= self._lookahead

    def begin(self) -> None:
        """Divide what is known of the list: the buckets with the most rows first, each to whoever has the fewest."""
        if self._began:
            return
        self._began = True
        for bucket in sorted(self._unowned, key=lambda bucket: -self._counts[bucket]):
            self._own(bucket)
            load = self.loads[self._owner[bucket]]
            load.waiting += self._counts[bucket]
        self._unowned.clear()
        self._counts.clear()
        for host in self._hosts.values():
            if not host.queue.in_round:
                self._enter_round(host)

    def waiting(self, most: int) -> dict[str, int]:
        """Return the rows that are waiting or given by host: of the ``most`` hosts that have the most."""
        largest = heapq.nlargest(most, self._hosts.values(), key=lambda host: host.queue.count + host.out)
        return {host.queue.key: host.queue.count + host.out for host in largest}

    # Rows out

    def take(self, worker: int, most: int) -> list[RequestState]:
        """Give a worker its next rows, host by host in turn: at most so many."""
        load = self.loads[worker]
        taken: list[RequestState] = []
        passed: list[AssignedHost] = []
        crowded = self._returned > self._lookahead
        room = min(most, self.most_given - len(load.given))
        while load.round and len(taken) < room:
            host = load.round.popleft()
            queue = host.queue
            if host.out >= host.allowance:
                queue.in_round = False
                continue  # the end of one of its rows brings it back
            if crowded and not queue.returned:
                passed.append(host)
                continue
            state = self._pop(queue)
            host.out += 1
            load.waiting -= 1
            load.given[state.order] = state, host
            taken.append(state)
            if queue.count:
                load.round.append(host)
            else:
                queue.in_round = False
        load.round.extend(passed)
        return taken

    def ended(self, worker: int, key: int) -> RequestState | None:
        """Note that a row is no longer the worker's, and return it; ``None`` for one that it has not."""
        load = self.loads[worker]
        entry = load.given.pop(key, None)
        if entry is None:
            return None
        state, host = entry
        host.out -= 1
        if host.allowance < MAX_ALLOWANCE:
            host.allowance += 1
        queue = host.queue
        if queue.count:
            if not queue.in_round:
                self._enter_round(host)
        elif not host.out:
            del self._hosts[queue.key]
        return state

    def lost(self, worker: int) -> int:
        """Take back all that a worker had, which is no more; return how many rows that are."""
        load = self.loads[worker]
        given = list(load.given)
        for key in given:
            state = self.ended(worker, key)
            if state is not None:
                self.push_again(state)
        return len(given)

    def close(self) -> None:
        """Give up all rows."""
        self._hosts.clear()
        for load in self.loads:
            load.round.clear()
            load.given.clear()
        self._spill.close()

    # Within

    def _lacks(self, load: WorkerLoad) -> bool:
        return load.idle and not load.round and len(load.given) < self.most_given

    def _host(self, key: str) -> AssignedHost:
        host = self._hosts.get(key)
        if host is None:
            bucket = bucket_of(key)
            host = self._hosts[key] = AssignedHost(key, bucket)
            if self._owner[bucket] < 0:
                if self._began:
                    self._own(bucket)
                elif bucket not in self._counts:
                    self._unowned.append(bucket)
                    self._counts[bucket] = 0
            self._reading_since = None
        return host

    def _own(self, bucket: int) -> None:
        load = min(self.loads, key=lambda load: load.weight)
        load.buckets += 1
        self._owner[bucket] = self.loads.index(load)

    def _enter(self, host: AssignedHost) -> None:
        if not self._began:
            self._counts[host.bucket] += 1
            return
        self.loads[self._owner[host.bucket]].waiting += 1
        if not host.queue.in_round and host.out < host.allowance:
            self._enter_round(host)

    def _enter_round(self, host: AssignedHost) -> None:
        host.queue.in_round = True
        self.loads[self._owner[host.bucket]].round.append(host)

    def _pop(self, queue: HostQueue) -> RequestState:
        if queue.returned:
            self._returned -= 1
        elif not queue.rows:
            self._memory += queue.refill(self._spill, MAX_BATCH_ROWS // 4)
        self._memory -= 1
        return queue.pop()

    def _unload(self, rows: int) -> None:
        """Put about so many rows on disk, of the longest queues first."""
        for kept in (MAX_BATCH_ROWS, MAX_BATCH_ROWS // 8, 0):
            queues = [host.queue for host in self._hosts.values() if host.queue.held > kept and not host.queue.returned]
            queues.sort(key=lambda queue: -queue.held)
            for queue in queues:
                if rows <= 0:
                    return
                freed = queue.cut(self._spill, kept)
                self._memory -= freed
                rows -= freed
