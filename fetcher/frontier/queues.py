"""The queues of the frontier: the rows of one host, and the rows whose time has not come, in memory and on disk.

Law 1: a row that was pushed comes out once, whatever was written out and read back in between. Law 3: what can
leave memory does when it is asked to. Law 9: synchronous.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from itertools import islice

from fetcher.frontier.spill import MAX_BATCH_ROWS, Spill, SpilledQueue, StoredRow, to_stored
from fetcher.request_state import RequestState

__all__ = ["DelayQueue", "HostQueue"]

NEXT_LOOK_SECONDS = 0.001  # seconds until more of what is due is taken off the queue
UNKNOWN_GAP_SECONDS = 0.01  # seconds between two rows of a host that never made us wait


class HostQueue:
    """The rows of one host, in their order: those that came back, those in memory, those on disk, and the newest.

    ``due`` is when it is asked again (infinite: not by time), ``gap`` how long its host last made us wait
    between two rows, ``in_round`` whether it stands in a round.
    """

    __slots__ = ("count", "due", "favoured", "gap", "in_round", "key", "returned", "rows", "spilled", "started", "tail")

    def __init__(self, key: str) -> None:
        self.key = key
        self.count = 0
        self.returned: deque[RequestState] | None = None
        self.rows: deque[RequestState] | None = None  # a deque is 600 bytes: not for those that are on disk as a whole
        self.spilled: SpilledQueue | None = None
        self.tail: list[RequestState] | None = None  # there are some only where others are spilled
        self.due = math.inf
        self.gap = 0.0
        self.started = 0.0
        self.in_round = False
        self.favoured = False

    @property
    def held(self) -> int:
        """Rows in memory."""
        return self.count - self.spilled.count if self.spilled is not None else self.count

    @property
    def weight(self) -> float:
        """Seconds that its host will be the only one for, were all others done."""
        return self.count * (self.gap or UNKNOWN_GAP_SECONDS)

    def push(self, state: RequestState) -> bool:
        """Take a new row; say whether it is time to ``flush``."""
        self.count += 1
        if self.spilled is not None:
            if self.tail is None:
                self.tail = []
            self.tail.append(state)
            return len(self.tail) >= MAX_BATCH_ROWS
        if self.rows is None:
            self.rows = deque()
        self.rows.append(state)
        return False

    def push_again(self, state: RequestState) -> None:
        """Take a row back: it goes before those that never started."""
        self.count += 1
        if self.returned is None:
            self.returned = deque()
        self.returned.append(state)

    def pop(self) -> RequestState:
        """Take the next row, one in memory."""
        self.count -= 1
        if self.returned:
            return self.returned.popleft()
        if self.rows is None:
            raise IndexError(f"no row of {self.key} is in memory")
        return self.rows.popleft()

    def refill(self, spill: Spill, rows: int) -> int:
        """Read about so many of its rows back that are on the disk, and some must be; return how many came into memory."""
        spilled = self.spilled
        assert spilled is not None
        if self.rows is None:
            self.rows = deque()
        taken = spill.take(spilled, rows)
        self.rows.extend(taken)
        if not spilled.count:
            self.spilled = None
            self.rows.extend(self.tail or ())
            self.tail = None
        return len(taken)

    def flush(self, spill: Spill) -> int:
        """Write the newest rows out; return how many have left memory. Those that cannot go come first now."""
        if self.spilled is None or not self.tail:
            return 0
        stored, staying = _storable(self.tail)
        self.tail = None
        spill.append(self.spilled, stored)
        if staying:
            self.rows = self.rows or deque()
            self.rows.extend(staying)
        return len(stored)

    def cut(self, spill: Spill, kept: int) -> int:
        """Write all but the first ``kept`` rows out; return how many have left memory."""
        freed = self.flush(spill)
        waiting = [*(self.returned or ()), *(self.rows or ())]
        stored, staying = _storable(waiting[kept:])
        if not stored:
            self.rows = self.rows or None
            return freed
        if self.spilled is None:
            self.spilled = spill.spilled()
        spill.prepend(self.spilled, stored)
        self.returned = None
        self.rows = deque([*waiting[:kept], *staying]) if kept or staying else None
        return freed + len(stored)


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

    def count_hosts(self, most: int) -> Counter[str]:
        """Count the rows in memory by host, of at most so many."""
        return Counter(state.target.host for *_, state in islice(self._rows, most))

    def push(self, state: RequestState, due: float) -> None:
        """Take a row until ``due``."""
        self._tick += 1
        heapq.heappush(self._rows, (due, self._tick, state))
        self.first = min(self.first, due)

    def pop(self, now: float, most: int) -> list[RequestState]:
        """Take rows that are due, the oldest first, with about ``most`` from disk."""
        records = self._records
        while records and records[0][0] <= now and most > 0:
            for due, state in self._spill.get_delayed(heapq.heappop(records)[1]):
                self.push(state, due)
                most -= 1
        due_now = []
        while self._rows and self._rows[0][0] <= now:
            due_now.append(heapq.heappop(self._rows)[2])
        self._update_first()
        return due_now

    def next(self, now: float) -> float:
        """Say when to ``pop`` next, a time after ``now``."""
        if self._records and self._records[0][0] <= now:
            return now + NEXT_LOOK_SECONDS
        return self.first if self.first > now else math.inf

    def unload(self, rows: int) -> int:
        """Write out about ``rows`` rows, those due last; return how many have left memory."""
        if rows <= 0 or not self._rows:
            return 0
        self._rows.sort()
        start = max(0, len(self._rows) - rows)
        staying, leaving = self._rows[:start], self._rows[start:]
        stored: list[tuple[float, StoredRow]] = []
        for entry in leaving:
            row = to_stored(entry[2])
            if row is None:
                staying.append(entry)
            else:
                stored.append((entry[0], row))
        for begin in range(0, len(stored), MAX_BATCH_ROWS):
            record = stored[begin : begin + MAX_BATCH_ROWS]
            place = self._spill.put_delayed([row for _, row in record], [due for due, _ in record])
            heapq.heappush(self._records, (record[0][0], place))
        self._rows = staying  # sorted, which is a heap
        return len(stored)

    def clear(self) -> None:
        """Give up all rows."""
        self._rows.clear()
        self._records.clear()
        self.first = math.inf

    def _update_first(self) -> None:
        self.first = min([heap[0][0] for heap in (self._rows, self._records) if heap], default=math.inf)


def _storable(states: list[RequestState]) -> tuple[list[StoredRow], list[RequestState]]:
    """Tell what can be written from what only memory can hold."""
    stored: list[StoredRow] = []
    staying: list[RequestState] = []
    for state in states:
        row = to_stored(state)
        if row is None:
            staying.append(state)
        else:
            stored.append(row)
    return stored, staying
