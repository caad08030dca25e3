"""The queues of the frontier: the rows of one host, and the rows whose time has not come, in memory and on disk.

Law 1: a row that was pushed comes out once, whatever was written out and read back in between. Law 3: what can
leave memory does when it is asked to. Law 9: synchronous.
"""

from __future__ import annotations

import heapq
import math
from collections import deque

from fetcher.frontier.spill import CHUNK, Frozen, Spill, Spool, freeze
from fetcher.request_state import RequestState

__all__ = ["DelayQueue", "HostQueue"]

TOUCH = 0.001  # seconds until more of what is due is taken off the shelf
UNKNOWN_GAP = 0.01  # seconds between two rows of a host that never made us wait


class HostQueue:
    """The rows of one host, in their order: those that came back, those in memory, those on disk, and the newest.

    ``due`` is when it is asked again (infinite: not by time), ``gap`` how long its host last made us wait
    between two rows, ``listed`` whether it stands in a round.
    """

    __slots__ = ("again", "count", "due", "favoured", "gap", "key", "listed", "rows", "spool", "started", "tail")

    def __init__(self, key: str) -> None:
        self.key = key
        self.count = 0
        self.again: deque[RequestState] | None = None
        self.rows: deque[RequestState] | None = None  # a deque is 600 bytes: not for those that are on disk as a whole
        self.spool: Spool | None = None
        self.tail: list[RequestState] | None = None  # there are some only where there is a spool
        self.due = math.inf
        self.gap = 0.0
        self.started = 0.0
        self.listed = False
        self.favoured = False

    @property
    def held(self) -> int:
        """Rows in memory."""
        return self.count - self.spool.count if self.spool is not None else self.count

    @property
    def weight(self) -> float:
        """Seconds that its host will be the only one for, were all others done."""
        return self.count * (self.gap or UNKNOWN_GAP)

    def push(self, state: RequestState) -> bool:
        """Take a new row; say whether it is time to ``flush``."""
        self.count += 1
        if self.spool is not None:
            if self.tail is None:
                self.tail = []
            self.tail.append(state)
            return len(self.tail) >= CHUNK
        if self.rows is None:
            self.rows = deque()
        self.rows.append(state)
        return False

    def push_again(self, state: RequestState) -> None:
        """Take a row back: it goes before those that never started."""
        self.count += 1
        if self.again is None:
            self.again = deque()
        self.again.append(state)

    def pop(self) -> RequestState:
        """Take the next row, one in memory."""
        self.count -= 1
        if self.again:
            return self.again.popleft()
        if self.rows is None:
            raise IndexError(f"no row of {self.key} is in memory")
        return self.rows.popleft()

    def refill(self, spill: Spill, rows: int) -> int:
        """Read the next rows back, about that many; return how many have come into memory."""
        spool = self.spool
        if spool is None:
            return 0
        if self.rows is None:
            self.rows = deque()
        taken = spill.take(spool, rows)
        self.rows.extend(taken)
        if not spool.count:
            self.spool = None
            self.rows.extend(self.tail or ())
            self.tail = None
        return len(taken)

    def flush(self, spill: Spill) -> int:
        """Write the newest rows out; return how many have left memory. Those that cannot go come first now."""
        if self.spool is None or not self.tail:
            return 0
        frozen, staying = _sorted_out(self.tail)
        self.tail = None
        spill.append(self.spool, frozen)
        if staying:
            self.rows = self.rows or deque()
            self.rows.extend(staying)
        return len(frozen)

    def cut(self, spill: Spill, kept: int) -> int:
        """Write all but the first ``kept`` rows out; return how many have left memory."""
        freed = self.flush(spill)
        waiting = [*(self.again or ()), *(self.rows or ())]
        frozen, staying = _sorted_out(waiting[kept:])
        if not frozen:
            self.rows = self.rows or None
            return freed
        if self.spool is None:
            self.spool = spill.spool()
        spill.prepend(self.spool, frozen)
        self.again = None
        self.rows = deque([*waiting[:kept], *staying]) if kept or staying else None
        return freed + len(frozen)


class DelayQueue:
    """Rows until they are due. ``first`` is when the next is, infinite if none."""

    def __init__(self, spill: Spill) -> None:
        self.first = math.inf
        self._spill = spill
        self._rows: list[tuple[float, int, RequestState]] = []
        self._records: list[tuple[float, int]] = []  # when the first row of a record is due, and its place on disk
        self._tick = 0

    @property
    def held(self) -> int:
        """Rows in memory."""
        return len(self._rows)

    def push(self, state: RequestState, due: float) -> None:
        """Take a row until ``due``."""
        self._tick += 1
        heapq.heappush(self._rows, (due, self._tick, state))
        self.first = min(self.first, due)

    def pop(self, now: float, most: int) -> list[RequestState]:
        """Take rows that are due, the oldest first, with about ``most`` from disk."""
        records = self._records
        while records and records[0][0] <= now and most > 0:
            for due, state in self._spill.unshelve(heapq.heappop(records)[1]):
                self.push(state, due)
                most -= 1
        due_now = []
        while self._rows and self._rows[0][0] <= now:
            due_now.append(heapq.heappop(self._rows)[2])
        self._look()
        return due_now

    def next(self, now: float) -> float:
        """Say when to ``pop`` next, a time after ``now``."""
        if self._records and self._records[0][0] <= now:
            return now + TOUCH
        return self.first if self.first > now else math.inf

    def unload(self, rows: int) -> int:
        """Write out about ``rows`` rows, those due last; return how many have left memory."""
        if rows <= 0 or not self._rows:
            return 0
        self._rows.sort()
        start = max(0, len(self._rows) - rows)
        staying, leaving = self._rows[:start], self._rows[start:]
        frozen: list[tuple[float, Frozen]] = []
        for entry in leaving:
            row = freeze(entry[2])
            if row is None:
                staying.append(entry)
            else:
                frozen.append((entry[0], row))
        for begin in range(0, len(frozen), CHUNK):
            record = frozen[begin : begin + CHUNK]
            place = self._spill.shelve([row for _, row in record], [due for due, _ in record])
            heapq.heappush(self._records, (record[0][0], place))
        self._rows = staying  # sorted, which is a heap
        self._look()
        return len(frozen)

    def clear(self) -> None:
        """Give up all rows."""
        self._rows.clear()
        self._records.clear()
        self.first = math.inf

    def _look(self) -> None:
        self.first = min([heap[0][0] for heap in (self._rows, self._records) if heap], default=math.inf)


def _sorted_out(states: list[RequestState]) -> tuple[list[Frozen], list[RequestState]]:
    """Tell what can be written from what only memory can hold."""
    frozen: list[Frozen] = []
    staying: list[RequestState] = []
    for state in states:
        row = freeze(state)
        if row is None:
            staying.append(state)
        else:
            frozen.append(row)
    return frozen, staying
