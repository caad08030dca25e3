"""What a bench measured: every raw time, and the figures computed from them.

``Report`` is the schema of ``--json`` (``schema`` 1). Times are seconds, sizes are bytes; ``None`` was not measured.

Laws: warm-ups do not count. A speed-up compares two rounds that ran next to each other, never two medians. Nothing is
divided by zero. Law 9: the figures are plain functions of the raw times.
"""

from __future__ import annotations

import math
import os
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import msgspec

from fetcher import __version__
from fetcher.bench.schedule import least_time

__all__ = [
    "Machine",
    "Mismatch",
    "Mode",
    "ModeName",
    "Report",
    "Round",
    "Sample",
    "Spread",
    "all_failed",
    "counted_rounds",
    "median",
    "mismatches",
    "percentile",
    "recommended",
    "rounds_of",
    "summarise",
    "this_machine",
    "typical_round",
]

PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
NEAR_BEST_FACTOR = 1.05
"""A concurrency counts as good as the best when it takes at most this many times as long."""

ModeName = Literal["sequential", "concurrent"]


class Sample(msgspec.Struct, frozen=True):
    """One row of one round: when it started and ended, counted from the round's start, and its outcome.

    ``latency`` is the time on the wire over all attempts, ``code`` the failure's, ``host`` the host key.
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

    ``most_in_flight`` is what the server saw (only the built-in site can tell). A ``warm_up`` is reported and does not
    count.
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
    """One mode at one concurrency, summarised over its counted rounds.

    ``latency`` holds p50, p95 and p99. ``speed_up`` is relative to the sequential round with the same index. ``least``
    is the time that greedy list scheduling needs for the same latencies, in the same order, with that many slots and
    the per-host limit; ``efficiency`` is ``least`` divided by the wall time.
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
    """A row with another outcome in another mode: what each saw (a length, a code, or nothing at all)."""

    id: int
    url: str
    expected: str
    got: str
    mode: ModeName
    concurrency: int


class Machine(msgspec.Struct, frozen=True):
    """The machine and the versions it was measured with."""

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


# The figures


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` of ``values`` lie, interpolated linearly between neighbours; 0 for no values.

    It is definition 7 of Hyndman and Fan (1996), which numpy calls ``linear``.
    """
    if not values:
        return 0.0
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def median(values: Sequence[float]) -> float:
    """Return the median of ``values``, 0 for none."""
    return percentile(values, 0.5)


def counted_rounds(rounds: Iterable[Round]) -> dict[tuple[ModeName, int], list[Round]]:
    """Group the rounds that count by mode and concurrency: sequential first, then by concurrency."""
    found: dict[tuple[ModeName, int], list[Round]] = {}
    for round_ in rounds:
        if not round_.warm_up:
            found.setdefault((round_.mode, round_.concurrency), []).append(round_)
    return dict(sorted(found.items(), key=lambda item: (item[0][0] != "sequential", item[0][1])))


def rounds_of(report: Report, mode: Mode) -> list[Round]:
    """Return the counted rounds of a mode that have samples."""
    rounds = counted_rounds(report.rounds).get((mode.mode, mode.concurrency), [])
    return [round_ for round_ in rounds if round_.samples]


def typical_round(report: Report, mode: Mode) -> Round | None:
    """Return the counted round nearest to the median time, for the charts; ``None`` where no round is complete."""
    return min(rounds_of(report, mode), key=lambda round_: abs(round_.wall - mode.wall.median), default=None)


def summarise(rounds: Sequence[Round], per_host: int) -> list[Mode]:
    """Summarise each mode and concurrency over its counted rounds."""
    by_mode = counted_rounds(rounds)
    baseline = {round_.index: round_.wall for round_ in by_mode.get(("sequential", 1), [])}
    return [_mode(of_mode, baseline, per_host) for of_mode in by_mode.values()]


def _mode(rounds: Sequence[Round], baseline: Mapping[int, float], per_host: int) -> Mode:
    first = rounds[0]
    samples = [sample for round_ in rounds for sample in round_.samples]
    wall = _spread([round_.wall for round_ in rounds])
    least = median([_least(round_, per_host) for round_ in rounds])
    latencies = [sample.latency for sample in samples if sample.latency > 0]  # the others were never sent
    speed_ups = [baseline[round_.index] / round_.wall for round_ in rounds if round_.index in baseline and round_.wall]
    memory = [round_.peak_memory for round_ in rounds if round_.peak_memory is not None]
    in_flight = [round_.most_in_flight for round_ in rounds if round_.most_in_flight is not None]
    return Mode(
        mode=first.mode,
        concurrency=first.concurrency,
        rounds=len(rounds),
        wall=wall,
        pages_per_second=median([_pages(round_) / round_.wall for round_ in rounds if round_.wall]),
        cpu_ms_per_page=1000 * sum(round_.cpu for round_ in rounds) / max(1, len(samples)),
        latency={name: percentile(latencies, share) for name, share in PERCENTILES.items()},
        bytes=sum(sample.bytes for sample in samples),
        failures=dict(Counter(sample.code for sample in samples if sample.code is not None).most_common()),
        peak_memory=max(memory, default=None),
        most_in_flight=max(in_flight, default=None),
        speed_up=_spread(speed_ups) if speed_ups else None,
        least=least,
        efficiency=least / wall.median if wall.median else 0.0,
    )


def _spread(values: Sequence[float]) -> Spread:
    return Spread(median(values), min(values), max(values))


def _pages(round_: Round) -> int:
    return sum(sample.code is None for sample in round_.samples)


def _least(round_: Round, per_host: int) -> float:
    rows = sorted(round_.samples, key=lambda sample: sample.start)
    latencies, hosts = [row.latency for row in rows], [row.host for row in rows]
    return least_time(latencies, hosts, round_.concurrency, per_host)


def recommended(modes: Sequence[Mode]) -> int | None:
    """Return the smallest concurrency that takes at most 5 % longer than the best.

    It is ``None`` when fewer than two can be compared.
    """
    compared = [mode for mode in modes if mode.mode == "concurrent" and mode.pages_per_second > 0]
    if len(compared) < 2:
        return None
    best = min(mode.wall.median for mode in compared)
    return min(mode.concurrency for mode in compared if mode.wall.median <= NEAR_BEST_FACTOR * best)


def mismatches(rounds: Sequence[Round], urls: Mapping[int, str]) -> list[Mismatch]:
    """Return every row whose outcome in another mode differs from the first mode's.

    A row that changes from round to round within a mode is compared by the set of its outcomes.
    """
    by_mode = {mode: _seen(of_mode) for mode, of_mode in counted_rounds(rounds).items()}
    if not by_mode:
        return []
    reference = next(iter(by_mode.values()))
    found = []
    for (mode, concurrency), seen in by_mode.items():
        for row in sorted(reference.keys() | seen.keys()):
            expected, got = reference.get(row, _NOTHING), seen.get(row, _NOTHING)
            if expected != got:
                words = (" or ".join(sorted(expected)), " or ".join(sorted(got)))
                found.append(Mismatch(row, urls.get(row, ""), *words, mode, concurrency))
    return found


_NOTHING = frozenset({"nothing"})


def _seen(rounds: Sequence[Round]) -> dict[int, frozenset[str]]:
    seen: dict[int, set[str]] = {}
    for round_ in rounds:
        for sample in round_.samples:
            seen.setdefault(sample.id, set()).add(_outcome_of(sample))
    return {row: frozenset(values) for row, values in seen.items()}


def _outcome_of(sample: Sample) -> str:
    if sample.code is not None:
        return sample.code
    count, unit = (sample.bytes, "byte") if sample.length is None else (sample.length, "character")
    return f"{count:,} {unit}{'' if count == 1 else 's'}"


def all_failed(rounds: Iterable[Round]) -> bool:
    """Whether there were rows and all of them failed."""
    codes = [sample.code for round_ in rounds for sample in round_.samples]
    return bool(codes) and None not in codes


# The machine


def this_machine(loop: str) -> Machine:
    """Describe this machine; ``loop`` is the module of the event loop of the rounds."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Machine(
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        fetcher=__version__,
        aiohttp=_version("aiohttp"),
        loop=f"{loop} {_version(loop)}".strip() if loop not in ("", "asyncio") else "asyncio",
        cpus=cpus or 1,
        date=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    )


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
