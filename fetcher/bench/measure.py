"""What the rounds of a bench come to: figures, the best concurrency, and where modes saw different pages.

Laws: warm-ups count for nothing; a speed-up is of two rounds that ran side by side, never of two medians; what was
not measured is ``None``, and nothing is divided by nothing. Law 9: plain functions of raw times.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from fetcher.bench.results import Mismatch, Mode, ModeName, Round, Sample, Spread
from fetcher.bench.schedule import least_time

__all__ = ["all_failed", "counted_rounds", "median", "mismatches", "percentile", "recommended", "summarise"]

PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
WITHIN = 1.05
"""A concurrency is as good as the best when it takes at most this many times as long."""


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` of ``values`` lie, between neighbours by the straight line; 0 of none.

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
    """Return the middle of ``values``, 0 of none."""
    return percentile(values, 0.5)


def counted_rounds(rounds: Iterable[Round]) -> dict[tuple[ModeName, int], list[Round]]:
    """Gather the rounds that are no warm-ups by mode and concurrency: sequential first, then by concurrency."""
    found: dict[tuple[ModeName, int], list[Round]] = {}
    for round_ in rounds:
        if not round_.warm_up:
            found.setdefault((round_.mode, round_.concurrency), []).append(round_)
    return dict(sorted(found.items(), key=lambda item: (item[0][0] != "sequential", item[0][1])))


def summarise(rounds: Sequence[Round], per_host: int) -> list[Mode]:
    """Sum up each mode and concurrency over its counted rounds."""
    by_mode = counted_rounds(rounds)
    baseline = {round_.index: round_.wall for round_ in by_mode.get(("sequential", 1), [])}
    return [_mode(of_mode, baseline, per_host) for of_mode in by_mode.values()]


def _mode(rounds: Sequence[Round], baseline: Mapping[int, float], per_host: int) -> Mode:
    first = rounds[0]
    samples = [sample for round_ in rounds for sample in round_.samples]
    wall = _spread([round_.wall for round_ in rounds])
    least = median([_least(round_, per_host) for round_ in rounds])
    latencies = [sample.latency for sample in samples if sample.latency > 0]  # the others were never asked for
    beside = [baseline[round_.index] / round_.wall for round_ in rounds if round_.index in baseline and round_.wall]
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
        speed_up=_spread(beside) if beside else None,
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
    """Return the smallest concurrency that takes at most 5 % longer than the best; ``None`` where none was compared."""
    tried = [mode for mode in modes if mode.mode == "concurrent" and mode.pages_per_second > 0]
    if len(tried) < 2:
        return None
    best = min(mode.wall.median for mode in tried)
    return min(mode.concurrency for mode in tried if mode.wall.median <= WITHIN * best)


def mismatches(rounds: Sequence[Round], urls: Mapping[int, str]) -> list[Mismatch]:
    """Name every row that another mode saw differently than the first: a length, a failure, or nothing.

    A row that changes from round to round within a mode is compared by all that was seen of it.
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
            seen.setdefault(sample.id, set()).add(_what_came(sample))
    return {row: frozenset(values) for row, values in seen.items()}


def _what_came(sample: Sample) -> str:
    if sample.code is not None:
        return sample.code
    count, unit = (sample.bytes, "byte") if sample.length is None else (sample.length, "character")
    return f"{count:,} {unit}{'' if count == 1 else 's'}"


def all_failed(rounds: Iterable[Round]) -> bool:
    """Whether something was asked for, and not one page came."""
    codes = [sample.code for round_ in rounds for sample in round_.samples]
    return bool(codes) and None not in codes
