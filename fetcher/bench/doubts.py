"""What makes a bench's figures doubtful, in words, after hyperfine's manner: each says what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fetcher.bench.measure import counted_rounds, median
from fetcher.bench.plan import Listing
from fetcher.bench.results import Round
from fetcher.bench.schedule import usable_slots
from fetcher.bench.wording import duration
from fetcher.config import Limits

__all__ = ["doubts_of", "named"]

SLOW_FIRST = 1.25  # times the median of the other rounds
SPREAD = 0.10  # of the median, between the fastest and the slowest round
OUTLYING = 3.5  # modified Z score (Iglewicz and Hoaglin, 1993)
ENOUGH = 5  # rounds to tell an outlier by
SATURATED = 0.9  # of the wall time
LONGEST = 0.75  # of the wall time, in one row


def named(mode: str, concurrency: int) -> str:
    """Return what messages call a mode: ``sequential``, ``-c 50``."""
    return "sequential" if mode == "sequential" else f"-c {concurrency}"


def doubts_of(rounds: Sequence[Round], limits: Limits, listing: Listing) -> list[str]:
    """Return all of them, those of the settings first, then mode by mode."""
    found = list(_of_settings(limits, listing))
    for (mode, concurrency), of_mode in counted_rounds(rounds).items():
        name = named(mode, concurrency)
        found += [f"{name}: {text}" for text in (*_of_walls(of_mode), *_of_load(of_mode), *_of_rows(of_mode))]
        if mode == "concurrent":
            found += [f"{name}: {text}" for text in _of_slots(concurrency, limits, listing)]
    return found


def _of_settings(limits: Limits, listing: Listing) -> Iterator[str]:
    if listing.left_out:
        rows = len(listing.left_out)
        yield f"{rows} row{'s are no URLs and were' if rows > 1 else ' is no URL and was'} left out: {listing.left_out[0]}"
    if limits.delay:
        yield f"the delay of {limits.delay:g} s between two requests to a host is in force, in every mode"
    if limits.rate:
        yield f"the rate of {limits.rate:g} requests/s is in force, in every mode"


def _of_walls(rounds: Sequence[Round]) -> Iterator[str]:
    walls = [round_.wall for round_ in rounds]
    first, rest, middle = walls[0], walls[1:], median(walls)
    if rest and first > SLOW_FIRST * median(rest):
        yield (
            f"the first round took {_time(first)} and the others {_time(median(rest))}: something was still warming "
            "up; more --rounds give it less weight"
        )
    if len(walls) > 1 and max(walls) - min(walls) > SPREAD * middle:
        yield (
            f"the rounds differ by {(max(walls) - min(walls)) / middle:.0%} ({_time(min(walls))} to {_time(max(walls))}): "
            "the machine or the servers were busy with something else; run it again on a quiet one"
        )
    deviation = median([abs(wall - middle) for wall in walls])
    if len(walls) >= ENOUGH and deviation > 0:
        for round_ in rounds:
            if 0.6745 * abs(round_.wall - middle) / deviation > OUTLYING:
                yield f"round {round_.index} ({_time(round_.wall)}) is an outlier; the median is {_time(middle)}"


def _of_load(rounds: Sequence[Round]) -> Iterator[str]:
    busy = median([round_.cpu / round_.wall for round_ in rounds if round_.wall])
    if busy > SATURATED:
        yield f"the client's CPU was busy {busy:.0%} of the time: the client is the limit, not the network"


def _of_rows(rounds: Sequence[Round]) -> Iterator[str]:
    samples = [sample for round_ in rounds for sample in round_.samples]
    failed = [sample.code for sample in samples if sample.code is not None]
    if failed:
        codes = ", ".join(f"{code} {failed.count(code):,}" for code in sorted(set(failed)))
        yield f"{len(failed):,} of {len(samples):,} rows failed ({codes})"
    wall = median([round_.wall for round_ in rounds])
    slowest = max(samples, key=lambda sample: sample.latency, default=None)
    if slowest and rounds[0].mode == "concurrent" and wall and len(rounds[0].samples) > 1:
        typical = median([sample.latency for sample in samples if sample.id == slowest.id])
        if typical > LONGEST * wall and rounds[0].concurrency > 1:
            share = min(1.0, typical / wall)
            yield f"row {slowest.id} alone took {_time(typical)}, {share:.0%} of the time: more concurrency cannot help it"


def _of_slots(concurrency: int, limits: Limits, listing: Listing) -> Iterator[str]:
    rows, hosts = len(listing.rows), len(set(listing.hosts))
    usable = usable_slots(listing.hosts, limits.per_host)
    if concurrency > rows:
        yield f"the list has {rows:,} row{'' if rows == 1 else 's'}: that many at once is all there can be"
    elif concurrency > usable:
        yield (
            f"at most {usable:,} at once with {limits.per_host} to each of {hosts:,} host{'' if hosts == 1 else 's'}: "
            "the per-host limit is in force (--per-host)"
        )


def _time(seconds: float) -> str:
    return duration(seconds).replace("\xa0", " ")
