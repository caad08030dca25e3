"""What the figures of a bench mean, in words: the headline of its page, and the warnings about its figures.

Laws: every figure is the report's own, only rounded; nothing is measured here. A report of failures alone, of one mode,
or of a bench cut short gets a true headline too. Each warning says what to do about it, as hyperfine's do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from fetcher.bench.formatting import mode_flag
from fetcher.bench.plan import Listing
from fetcher.bench.results import Mode, Report, Round, counted_rounds, median, rounds_of
from fetcher.bench.schedule import usable_slots
from fetcher.config import Limits
from fetcher.drawing.formatting import counted, duration, percent, plain, significant

__all__ = ["Headline", "headline_of", "warnings_of"]

SLOW_FIRST_ROUND_FACTOR = 1.25
"""Times the median of the other rounds."""
WIDE_SPREAD_SHARE = 0.10
"""Share of the median, between the fastest and the slowest round."""
OUTLIER_Z_SCORE = 3.5
"""Modified Z score (Iglewicz and Hoaglin, 1993)."""
MIN_ROUNDS_FOR_OUTLIERS = 5
SATURATED_CPU_SHARE = 0.9
"""Share of the wall time."""
LONG_ROW_SHARE = 0.75
"""Share of the wall time that one row takes."""
NO_GAIN_SPEED_UP = 1.05


class Headline(msgspec.Struct, frozen=True):
    """The mode a report is about and its baseline, the title, and the sentence below it (plain text)."""

    best: Mode | None
    baseline: Mode | None
    title: str
    sentence: str


def headline_of(report: Report) -> Headline:
    """Choose the mode that the report is about, and say what it achieved."""
    baseline = next((mode for mode in report.modes if mode.mode == "sequential"), None)
    concurrent = [mode for mode in report.modes if mode.mode == "concurrent"]
    best = next((mode for mode in concurrent if mode.concurrency == report.recommended), None)
    if best is None:
        best = min(concurrent, key=lambda mode: mode.wall.median, default=baseline)
    if best is None:
        return Headline(None, None, "Nothing was measured", "No round was complete.")
    samples = (sample for mode in report.modes for round_ in rounds_of(report, mode) for sample in round_.samples)
    if all(sample.code is not None for sample in samples):
        rows = counted(report.rows, "row")
        sentence = f"{rows}, and every one failed in every mode: the times below are those of failures."
        return Headline(best, baseline, "No page came", sentence)
    return Headline(best, baseline, _title(best, baseline), _sentence(report, best, baseline))


def _title(best: Mode, baseline: Mode | None) -> str:
    rate = significant(best.pages_per_second)
    if best.mode == "sequential":
        return f"{rate} pages a second, one after another"
    at_once = counted(best.concurrency, "request")
    if best.speed_up is None or baseline is None:
        return f"{rate} pages a second with {at_once} at once"
    times = significant(best.speed_up.median)
    if best.speed_up.median < NO_GAIN_SPEED_UP:
        return f"Side by side is no faster here: {times} times"
    return f"{times} times as fast with {at_once} at once"


def _sentence(report: Report, best: Mode, baseline: Mode | None) -> str:
    rows = f"{counted(report.rows, 'row' if best.failures else 'page')} from {counted(report.hosts, 'host')}"
    took = f"{rows} took {duration(best.wall.median)}"
    if baseline is not None and best is not baseline:
        took += f" instead of {duration(baseline.wall.median)} one after another"
    least = f"Without any wait in between, the same answers could have come in {duration(best.least)}"
    return f"{took}. {least}: an efficiency of {percent(best.efficiency)}."


# The warnings


def warnings_of(rounds: Sequence[Round], limits: Limits, listing: Listing) -> list[str]:
    """Return all warnings, those about the settings first, then mode by mode."""
    found = list(_about_settings(limits, listing))
    for (mode, concurrency), of_mode in counted_rounds(rounds).items():
        name = mode_flag(mode, concurrency)
        found += [f"{name}: {text}" for text in (*_about_walls(of_mode), *_about_cpu(of_mode), *_about_rows(of_mode))]
        if mode == "concurrent":
            found += [f"{name}: {text}" for text in _about_slots(concurrency, limits, listing)]
    return found


def _about_settings(limits: Limits, listing: Listing) -> Iterator[str]:
    if listing.left_out:
        rows = len(listing.left_out)
        yield f"{rows} row{'s are no URLs and were' if rows > 1 else ' is no URL and was'} left out: {listing.left_out[0]}"
    if limits.delay:
        yield f"the delay of {limits.delay:g} s between two requests to a host is in force, in every mode"
    if limits.rate:
        yield f"the rate of {limits.rate:g} requests/s is in force, in every mode"


def _about_walls(rounds: Sequence[Round]) -> Iterator[str]:
    walls = [round_.wall for round_ in rounds]
    first, rest, middle = walls[0], walls[1:], median(walls)
    if rest and first > SLOW_FIRST_ROUND_FACTOR * median(rest):
        yield (
            f"the first round took {_time(first)} and the others {_time(median(rest))}: something was still warming "
            "up; more --rounds give it less weight"
        )
    if len(walls) > 1 and max(walls) - min(walls) > WIDE_SPREAD_SHARE * middle:
        yield (
            f"the rounds differ by {(max(walls) - min(walls)) / middle:.0%} ({_time(min(walls))} to {_time(max(walls))}): "
            "the machine or the servers were busy with something else; run it again on a quiet one"
        )
    deviation = median([abs(wall - middle) for wall in walls])
    if len(walls) >= MIN_ROUNDS_FOR_OUTLIERS and deviation > 0:
        for round_ in rounds:
            if 0.6745 * abs(round_.wall - middle) / deviation > OUTLIER_Z_SCORE:
                yield f"round {round_.index} ({_time(round_.wall)}) is an outlier; the median is {_time(middle)}"


def _about_cpu(rounds: Sequence[Round]) -> Iterator[str]:
    busy = median([round_.cpu / round_.wall for round_ in rounds if round_.wall])
    if busy > SATURATED_CPU_SHARE:
        yield f"the client's CPU was busy {busy:.0%} of the time: the client is the limit, not the network"


def _about_rows(rounds: Sequence[Round]) -> Iterator[str]:
    samples = [sample for round_ in rounds for sample in round_.samples]
    failed = [sample.code for sample in samples if sample.code is not None]
    if failed:
        codes = ", ".join(f"{code} {failed.count(code):,}" for code in sorted(set(failed)))
        yield f"{len(failed):,} of {plain(counted(len(samples), 'row'))} failed ({codes})"
    wall = median([round_.wall for round_ in rounds])
    slowest = max(samples, key=lambda sample: sample.latency, default=None)
    if slowest and rounds[0].mode == "concurrent" and wall and len(rounds[0].samples) > 1:
        typical = median([sample.latency for sample in samples if sample.id == slowest.id])
        if typical > LONG_ROW_SHARE * wall and rounds[0].concurrency > 1:
            share = min(1.0, typical / wall)
            yield f"row {slowest.id} alone took {_time(typical)}, {share:.0%} of the time: more concurrency cannot help it"


def _about_slots(concurrency: int, limits: Limits, listing: Listing) -> Iterator[str]:
    rows, hosts = len(listing.rows), len(set(listing.hosts))
    usable = usable_slots(listing.hosts, limits.per_host)
    if concurrency > rows:
        yield f"the list has {plain(counted(rows, 'row'))}: that many at once is all there can be"
    elif concurrency > usable:
        yield (
            f"at most {usable:,} at once with {limits.per_host} to each of {plain(counted(hosts, 'host'))}: "
            "the per-host limit is in force (--per-host)"
        )


def _time(seconds: float) -> str:
    return plain(duration(seconds))
