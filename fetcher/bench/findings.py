"""What a report says first: which mode stands for it, which round for a mode, and the sentences above the charts.

Laws: every figure is the report's own, only rounded; nothing here measures. A report of failures alone, of one mode,
or cut short still says something true.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from fetcher.bench.results import Mode, Report, Round, Sample
from fetcher.bench.wording import counted, duration, percent, significant

__all__ = ["KINDS", "Findings", "find", "kind_of", "on_wire", "rounds_of", "tally", "typical"]

KINDS = ("came", "status", "silent", "unasked")
"""What becomes of a request: a page, a status that is none, no whole answer, or never sent."""

_UNASKED = frozenset(
    {"invalid_url", "robots_denied", "robots_unreachable", "address_blocked", "duplicate", "host_budget"}
)


class Findings(msgspec.Struct, frozen=True):
    """The mode a report is about and its baseline, with the headline and the sentence below it (plain text)."""

    best: Mode | None
    baseline: Mode | None
    title: str
    sentence: str


def kind_of(sample: Sample) -> str:
    """Return which of ``KINDS`` a row is."""
    if sample.code is None:
        return "came"
    if sample.code.startswith("http_"):
        return "status"
    return "unasked" if sample.code in _UNASKED else "silent"


def tally(samples: Iterable[Sample]) -> Counter[str]:
    """Count rows by kind."""
    return Counter(map(kind_of, samples))


def on_wire(sample: Sample) -> tuple[float, float]:
    """Return from when to when a row was on the wire, in seconds of its round, as far as its times tell.

    What a row waited for (a slot, a host, a backoff) lies before its last try; of several tries the sum is shown as
    one, which ends when the row was done.
    """
    start = max(sample.start, sample.end - sample.latency, 0.0) if sample.latency > 0 else sample.start
    return start, max(start, sample.end)


def rounds_of(report: Report, mode: Mode) -> list[Round]:
    """Return the counted rounds of a mode that measured something."""
    return [
        round_
        for round_ in report.rounds
        if (round_.mode, round_.concurrency) == (mode.mode, mode.concurrency) and not round_.warm_up and round_.samples
    ]


def typical(report: Report, mode: Mode) -> Round | None:
    """Return the counted round nearest to the median, the one that is drawn; ``None`` where none was complete."""
    return min(rounds_of(report, mode), key=lambda round_: abs(round_.wall - mode.wall.median), default=None)


def find(report: Report) -> Findings:
    """Choose what the report is about and say it."""
    baseline = next((mode for mode in report.modes if mode.mode == "sequential"), None)
    concurrent = [mode for mode in report.modes if mode.mode == "concurrent"]
    best = next((mode for mode in concurrent if mode.concurrency == report.recommended), None)
    if best is None:
        best = min(concurrent, key=lambda mode: mode.wall.median, default=baseline)
    if best is None:
        return Findings(None, None, "Nothing was measured", "No round was complete.")
    came = any(sample.code is None for mode in report.modes for r in rounds_of(report, mode) for sample in r.samples)
    if not came:
        tried = (
            f"{counted(report.rows, 'row')}, and every one failed in every mode: the times below are those of failures."
        )
        return Findings(best, baseline, "No page came", tried)
    return Findings(best, baseline, _title(best, baseline), _sentence(report, best, baseline))


def _title(best: Mode, baseline: Mode | None) -> str:
    if best.mode == "sequential":
        return f"{significant(best.pages_per_second)} pages a second, one after another"
    if best.speed_up is None or baseline is None:
        return (
            f"{significant(best.pages_per_second)} pages a second with {counted(best.concurrency, 'request')} at once"
        )
    times = significant(best.speed_up.median)
    if best.speed_up.median < 1.05:
        return f"Side by side is no faster here: {times} times"
    return f"{times} times as fast with {counted(best.concurrency, 'request')} at once"


def _sentence(report: Report, best: Mode, baseline: Mode | None) -> str:
    rows = f"{counted(report.rows, 'row' if best.failures else 'page')} from {counted(report.hosts, 'host')}"
    took = f"{rows} took {duration(best.wall.median)}"
    if baseline is not None and best is not baseline:
        took += f" instead of {duration(baseline.wall.median)} one after another"
    least = f"Without any wait in between, the same answers could have come in {duration(best.least)}"
    return f"{took}. {least}: an efficiency of {percent(best.efficiency)}."
