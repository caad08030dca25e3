"""What a bench measured, with every raw time kept: the values behind the table, the JSON and the picture.

``Report`` is the schema of ``--json`` (``schema`` 1). Times are seconds, sizes bytes; a ``None`` was not measured.
"""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Machine", "Mismatch", "Mode", "Report", "Round", "Sample", "Spread"]

ModeName = Literal["sequential", "concurrent"]


class Sample(msgspec.Struct, frozen=True):
    """One row of one round: when it was taken up and done, counted from the round's start, and what came.

    ``latency`` is the time on the wire over all tries, ``code`` the failure's, ``host`` the host key.
    """

    id: int
    host: str
    start: float
    end: float
    latency: float
    code: str | None = None
    status: int | None = None
    length: int | None = None
    bytes: int = 0


class Round(msgspec.Struct, frozen=True):
    """One run over all rows, in a process of its own. ``cpu`` is that process's, user and system.

    ``most_in_flight`` is what the server saw (the built-in site alone can tell). A ``warm_up`` is reported and
    not counted.
    """

    mode: ModeName
    concurrency: int
    index: int
    warm_up: bool
    wall: float
    cpu: float
    peak_memory: int | None
    most_in_flight: int | None
    samples: list[Sample]


class Spread(msgspec.Struct, frozen=True):
    """A figure over the counted rounds."""

    median: float
    low: float
    high: float


class Mode(msgspec.Struct, frozen=True):
    """One mode at one concurrency, summed up over its counted rounds.

    ``latency`` holds p50, p95 and p99. ``speed_up`` is over the sequential round beside it. ``least`` is the
    shortest time in which greedy list scheduling gets the same latencies, in the same order, through that many
    slots and the per-host limit; ``efficiency`` is ``least`` over the wall.
    """

    mode: ModeName
    concurrency: int
    rounds: int
    wall: Spread
    pages_per_second: float
    cpu_ms_per_page: float
    latency: dict[str, float]
    bytes: int
    failures: dict[str, int]
    peak_memory: int | None
    most_in_flight: int | None
    speed_up: Spread | None
    least: float
    efficiency: float


class Mismatch(msgspec.Struct, frozen=True):
    """A page that came differently in another mode: what each saw (a length, a code, or nothing at all)."""

    id: int
    url: str
    expected: str
    got: str
    mode: ModeName
    concurrency: int


class Machine(msgspec.Struct, frozen=True):
    """Where it was measured, and with what."""

    platform: str
    python: str
    fetcher: str
    aiohttp: str
    loop: str
    cpus: int
    date: str


class Report(msgspec.Struct, frozen=True):
    """A whole bench. ``recommended`` is the smallest concurrency within 5 % of the best wall time."""

    command: list[str]
    source: str
    rows: int
    hosts: int
    per_host: int
    machine: Machine
    modes: list[Mode]
    rounds: list[Round]
    recommended: int | None
    warnings: list[str]
    mismatches: list[Mismatch]
    complete: bool = True
    schema: int = 1
