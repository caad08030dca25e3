"""What the page shows at one moment. ``None`` is what cannot be known: the page shows it as such, and not as nothing.

Law 3: every list has a bound, so that a state takes some ten kilobytes, however large the run is. Law 7: every text
that comes from the web or a list is escaped by whoever makes a state.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from fetcher.hosts.standing import HostStanding
from fetcher.job.report import HostFigures
from fetcher.job.shards import ShardFigures
from fetcher.request_state import InFlight

__all__ = [
    "MAX_CODES",
    "MAX_FAILURES",
    "MAX_HOSTS",
    "MAX_RUNNING",
    "Eta",
    "FailureSeen",
    "Latency",
    "LiveState",
    "Point",
    "Power",
    "ResourceUse",
    "RowCounts",
    "RunningRows",
    "WorkerSeen",
]

MAX_CODES = 40
MAX_FAILURES = 30
MAX_HOSTS = 50
MAX_RUNNING = 40

State = Literal["starting", "running", "paused", "stopping", "ended", "complete", "stopped", "interrupted"]


class RowCounts(msgspec.Struct, frozen=True):
    """The counts of law 1, and about how many rows there are in all, where that is known."""

    input: int
    ok: int
    failed: int
    skipped: int
    pending: int
    more: bool
    bytes: int
    total: int | None = None

    @property
    def done(self) -> int:
        """Rows with an outcome."""
        return self.ok + self.failed + self.skipped


class Point(msgspec.Struct, frozen=True, array_like=True):
    """The counts ``seconds`` after the start, for the chart over time."""

    seconds: float
    ok: int
    failed: int
    skipped: int
    bytes: int
    on_wire: int


class Eta(msgspec.Struct, frozen=True):
    """In how many seconds all will be done, and how that is known; or why it is not."""

    seconds: float | None
    how: str


class RunningRows(msgspec.Struct, frozen=True):
    """What is in flight: how many rows by stage, and those that have been at it for longest."""

    count: int
    stages: list[tuple[str, int]]
    rows: list[InFlight]


class Latency(msgspec.Struct, frozen=True):
    """How long rows took on the wire: ``counts`` of those between two ``edges`` (seconds), and three percentiles."""

    edges: list[float]
    counts: list[int]
    p50: float
    p95: float
    p99: float


class FailureSeen(msgspec.Struct, frozen=True):
    """A row that failed ``ago`` seconds before."""

    id: int
    url: str
    code: str
    message: str
    attempts: int
    ago: float | None


class ResourceUse(msgspec.Struct, frozen=True):
    """What a process uses: bytes of memory, file descriptors and the limit of these, seconds of CPU a second."""

    memory: int | None
    descriptors: int | None
    most_descriptors: int | None
    cpu: float | None


class WorkerSeen(msgspec.Struct, frozen=True):
    """A worker: its process, its share of the slots, the rows it has (``None`` where it asks nobody), and what it uses."""

    number: int
    pid: int | None
    slots: int | None
    held: int | None
    rows: int | None
    memory: int | None
    descriptors: int | None


class Power(msgspec.Struct, frozen=True):
    """What may be changed by now, and the limits that hold: none where nobody is asked."""

    allowed: bool
    concurrency: int | None
    rate: float | None
    per_host: int | None


class LiveState(msgspec.Struct, frozen=True):
    """All of it: of a ``run``, of a ``job`` by its ledger, or of the ``reading`` of stored pages. ``final`` is the summary of a run that has ended, ``trouble`` why nothing newer can be told."""

    name: str
    kind: Literal["run", "job", "reading"]
    state: State
    seconds: float
    counts: RowCounts
    pages_per_second: float
    bytes_per_second: float
    codes: list[tuple[str, int]]
    other_codes: int
    point: Point | None
    eta: Eta
    flight: RunningRows | None = None
    hosts: list[HostStanding] | list[HostFigures] | None = None
    known_hosts: int | None = None
    latency: Latency | None = None
    workers: list[WorkerSeen] | None = None
    failures: list[FailureSeen] | None = None
    machine: ResourceUse | None = None
    power: Power | None = None
    final: dict[str, Any] | None = None
    final_text: str | None = None
    trouble: str | None = None
    shards: list[ShardFigures] | None = None
