"""What the page shows of a run of this process. The counts are those of its ``Stats``, and so those of its summary.

Nothing is looked at but when somebody asks: a row costs one count of its latency, a second one point of the history.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from fetcher.client import Fetcher, Snapshot
from fetcher.live.figures import ETA_SECONDS, PACE_SECONDS, History, Latencies, estimate
from fetcher.live.machine import MachineWatch
from fetcher.live.state import (
    MAX_CODES,
    MAX_FAILURES,
    MAX_HOSTS,
    MAX_RUNNING,
    Eta,
    FailureSeen,
    LiveState,
    Point,
    Power,
    RowCounts,
    RunningRows,
    State,
    WorkerSeen,
)
from fetcher.model import Failure, Outcome
from fetcher.report.summary import Summary
from fetcher.request_state import InFlight
from fetcher.stats import Stats
from fetcher.terminal import printable

__all__ = ["RunSource"]

MAX_URL_CHARACTERS = 300
MAX_MESSAGE_CHARACTERS = 300


class RunSource:
    """A run that is looked at: give it each outcome with ``saw``, and in the end the summary.

    ``redact`` takes the secrets out of a text. ``total`` is about how many rows the list has. One that ``reads`` stored
    pages has no hosts and no requests; ``pids`` returns the processes that read for it.
    """

    def __init__(
        self,
        name: str,
        *,
        total: int | None = None,
        control: bool = True,
        redact: Callable[[str], str] | None = None,
        reads: bool = False,
        pids: Callable[[], Sequence[int]] = list,
    ) -> None:
        self.history = History()
        self.marks: list[float] = []
        self.stopping = False
        self.control = control
        """Whether the buttons do something."""
        self._name = printable(name, MAX_URL_CHARACTERS)
        self._total = total
        self._reads = reads
        self._pids = pids
        self._redact = redact or (lambda text: text)
        self._fetcher: Fetcher | None = None
        self._stats = Stats()
        self._began = time.monotonic()
        self._latencies = Latencies()
        self._failures: deque[tuple[float, Failure | FailureSeen]] = deque(maxlen=MAX_FAILURES)
        self._machine = MachineWatch()
        self._last: LiveState | None = None

    def begin(self, fetcher: Fetcher, stats: Stats) -> None:
        """Note that the run has begun: what ``fetcher`` does, counted by ``stats``."""
        self._fetcher, self._stats = fetcher, stats
        self._began = time.monotonic()
        self.tick()

    def saw(self, outcome: Outcome) -> None:
        """Count an outcome."""
        if outcome.elapsed > 0 and not self._reads:  # of a stored page it is that of its crawl
            self._latencies.add(outcome.elapsed)
        if isinstance(outcome, Failure) and outcome.error.code != "duplicate":
            self._failures.append((time.monotonic(), outcome))

    def tick(self) -> None:
        """Note how far it is, once a second."""
        stats = self._stats
        on_wire = self._fetcher.gate.on_wire if self._fetcher is not None else 0
        self.history.add(Point(round(self._passed(), 2), stats.ok, stats.failed, stats.skipped, stats.bytes, on_wire))

    def leave(self) -> None:
        """Note that nothing is fetched any more: what was in flight stands as it was, while outputs are closed."""
        if self._fetcher is not None:
            self._last = self._now()
            self._fetcher = None

    def end(self, summary: Summary | None) -> None:
        """Note that the run has ended; with ``None`` it did so before it had anything to tell."""
        self._fetcher = None
        before = self._last or self._now()
        counts = self._counts()
        text = summary.as_text() if summary is not None else "the run ended with an error, which is told where it runs"
        codes = summary.codes if summary is not None else dict(self._stats.codes.most_common())
        self._last = msgspec.structs.replace(
            before,
            state="ended",
            seconds=summary.seconds if summary is not None else before.seconds,
            counts=counts,
            codes=list(codes.items())[:MAX_CODES],
            other_codes=sum(list(codes.values())[MAX_CODES:]),
            pages_per_second=summary.pages_per_second if summary is not None else 0.0,
            bytes_per_second=0.0,
            point=Point(round(self._passed(), 2), counts.ok, counts.failed, counts.skipped, counts.bytes, 0),
            eta=msgspec.structs.replace(before.eta, seconds=0.0, how="it has ended"),
            flight=None if self._reads else RunningRows(0, [], []),
            hosts=None if self._reads else [],
            workers=None,
            latency=self._latencies.as_latency(),
            failures=self._failed(),
            power=None,
            final=msgspec.to_builtins(summary) if summary is not None else {},
            final_text=self._redact(text),
        )

    async def state(self) -> LiveState:
        """Return what is to be seen now."""
        if self._fetcher is not None or self._last is None:
            self._last = self._now()
        elif self._last.state != "ended":
            self._last = msgspec.structs.replace(self._last, counts=self._counts())
        return self._last

    def points(self) -> Sequence[Point]:
        """Return how far it was over time."""
        return self.history.points

    def _passed(self) -> float:
        return max(0.0, time.monotonic() - self._began)

    def _counts(self) -> RowCounts:
        stats = self._stats
        return RowCounts(
            stats.input, stats.ok, stats.failed, stats.skipped, stats.pending, stats.more, stats.bytes, self._total
        )

    def _now(self) -> LiveState:
        fetcher, counts = self._fetcher, self._counts()
        codes = self._stats.codes.most_common()
        pages, _, size = self.history.pace(PACE_SECONDS)
        state = LiveState(
            name=self._name,
            kind="reading" if self._reads else "run",
            state="starting",
            seconds=self._passed(),
            counts=counts,
            pages_per_second=pages,
            bytes_per_second=size,
            codes=codes[:MAX_CODES],
            other_codes=sum(many for _, many in codes[MAX_CODES:]),
            point=self.history.points[-1] if self.history.points else None,
            eta=Eta(None, "it has not begun"),
            latency=self._latencies.as_latency(),
            failures=self._failed(),
            machine=self._machine.look(),
        )
        if fetcher is None:
            return state
        snapshot = fetcher.snapshot(hosts=MAX_HOSTS, rows=MAX_RUNNING)
        state = self._with_pace(state, snapshot)
        return self._with_reading(state) if self._reads else self._with_network(state, snapshot, fetcher)

    def _with_pace(self, state: LiveState, snapshot: Snapshot) -> LiveState:
        """Add how it goes, and when it will end."""
        rows = self.history.pace(ETA_SECONDS)[1]
        how: State = "stopping" if self.stopping else "paused" if snapshot.paused else "running"
        if self.stopping:
            eta = Eta(None, "it is being stopped")
        elif snapshot.paused:
            eta = Eta(None, "it is paused")
        elif self._reads and state.counts.total is None and state.counts.more:
            eta = Eta(None, "how many pages are in the file is known when it has been read")
        else:
            eta = estimate(state.counts, rows, snapshot.hosts, snapshot.limits, over=max(1.0, state.seconds))
        return msgspec.structs.replace(state, state=how, eta=eta)

    def _with_reading(self, state: LiveState) -> LiveState:
        """Add what there is where nobody is asked: the processes that read, and that it can be paused."""
        workers = [
            WorkerSeen(number, pid, None, None, None, *self._machine.look_at(pid))
            for number, pid in enumerate(self._pids(), 1)
        ]
        return msgspec.structs.replace(state, workers=workers, power=Power(self.control, None, None, None))

    def _with_network(self, state: LiveState, snapshot: Snapshot, fetcher: Fetcher) -> LiveState:
        """Add what a fetcher is doing."""
        limits = snapshot.limits
        stages = sorted(snapshot.flight.stages.items(), key=lambda stage: -stage[1])
        point = state.point
        if point is not None:
            point = msgspec.structs.replace(point, on_wire=fetcher.gate.on_wire)
        return msgspec.structs.replace(
            state,
            point=point,
            flight=RunningRows(
                sum(snapshot.flight.stages.values()), stages, [self._shown(row) for row in snapshot.flight.oldest]
            ),
            hosts=[
                msgspec.structs.replace(host, host=self._text(host.host, 255), why=self._text(host.why, 300))
                for host in snapshot.hosts
            ],
            workers=[
                WorkerSeen(each.number, each.pid, each.slots, each.held, each.rows, *self._machine.look_at(each.pid))
                for each in snapshot.workers
            ],
            power=Power(self.control, limits.concurrency, limits.rate, limits.per_host),
        )

    def _shown(self, row: InFlight) -> InFlight:
        return msgspec.structs.replace(row, url=self._text(row.url, MAX_URL_CHARACTERS))

    def _failed(self) -> list[FailureSeen]:
        now, failures = time.monotonic(), self._failures
        for place, (when, failure) in enumerate(failures):
            if isinstance(failure, Failure):  # it is put into words once, and only where somebody looks
                failures[place] = when, self._in_words(failure)
        return [
            msgspec.structs.replace(failure, ago=max(0.0, now - when))
            for when, failure in reversed(failures)
            if isinstance(failure, FailureSeen)
        ]

    def _in_words(self, failure: Failure) -> FailureSeen:
        return FailureSeen(
            failure.request.id,
            self._text(failure.url or failure.request.url, MAX_URL_CHARACTERS),
            failure.error.code,
            self._text(str(failure.error), MAX_MESSAGE_CHARACTERS),
            failure.attempts,
            None,
        )

    def _text(self, text: str, most: int) -> str:
        return printable(self._redact(text), most)
