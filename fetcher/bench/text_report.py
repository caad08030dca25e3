"""The report of a bench as plain text for a terminal: a table of its figures, a bar for each mode, a recommendation.

Laws: what was not measured is ``–``. A list that failed, one mode alone and a bench cut short have a report too.
"""

from __future__ import annotations

from collections.abc import Sequence

from fetcher.bench.conclusions import NO_GAIN_SPEED_UP
from fetcher.bench.formatting import mode_flag
from fetcher.bench.results import Mismatch, Mode, Report, Spread
from fetcher.drawing.formatting import UNKNOWN, counted, duration, multiple, percent, plain, significant, size

__all__ = ["mismatch_lines", "render_text"]

BAR_CHARACTERS = 30
"""The length of the longest bar."""
MAX_MISMATCH_LINES = 20
_EIGHTHS = " ▏▎▍▌▋▊▉"


def render_text(report: Report) -> str:
    """Return the whole report as lines of at most 110 characters, the last with its newline."""
    rows, hosts = plain(counted(report.rows, "row")), plain(counted(report.hosts, "host"))
    lines = [f"{report.source}: {rows}, {hosts}, at most {report.per_host} to a host at once", *_rounds(report), ""]
    if report.modes:
        lines += [*_figures(report.modes), *_failures(report.modes), "", *_bars(report.modes), ""]
    return "\n".join([*lines, _conclusion(report), ""])


def mismatch_lines(mismatches: Sequence[Mismatch], most: int = MAX_MISMATCH_LINES) -> list[str]:
    """Return a line for each row with another outcome in another mode, at most the first ``most`` of them."""
    lines = [
        f"row {found.id} {found.url}: {found.expected}, and with {mode_flag(found.mode, found.concurrency)} {found.got}"
        for found in mismatches[:most]
    ]
    return lines + ([f"… and {len(mismatches) - most:,} more"] if len(mismatches) > most else [])


def _rounds(report: Report) -> list[str]:
    """Say how many rounds were run, and how long the warm-ups took, which do not count."""
    warm = [
        f"{mode_flag(round_.mode, round_.concurrency)} {plain(duration(round_.wall))}"
        + (f" for {plain(counted(len(round_.samples), 'row'))}" if len(round_.samples) < report.rows else "")
        for round_ in report.rounds
        if round_.warm_up
    ]
    rounds = max((mode.rounds for mode in report.modes), default=0)
    counting = [f"{plain(counted(rounds, 'round'))} of each mode, in turn"] if rounds else []
    return counting + ([f"after warm-ups that do not count: {', '.join(warm)}"] if warm else [])


def _figures(modes: Sequence[Mode]) -> list[str]:
    heads = ["", "wall", "pages/s", "CPU/page", "p50", "p95", "p99", "bytes", "memory", "in flight", "failed"]
    table = [
        [
            mode_flag(mode.mode, mode.concurrency),
            duration(mode.wall.median),
            significant(mode.pages_per_second),
            duration(mode.cpu_ms_per_page / 1000),
            *(duration(mode.latency.get(name)) for name in ("p50", "p95", "p99")),
            size(mode.bytes / mode.rounds),
            size(mode.peak_memory),
            UNKNOWN if mode.most_in_flight is None else f"{mode.most_in_flight:,}",
            f"{sum(mode.failures.values()):,}",
        ]
        for mode in modes
    ]
    return _aligned([heads, *table])


def _failures(modes: Sequence[Mode]) -> list[str]:
    return [
        f"{mode_flag(mode.mode, mode.concurrency)} failed: "
        + ", ".join(f"{code} {times:,}" for code, times in mode.failures.items())
        for mode in modes
        if mode.failures
    ]


def _bars(modes: Sequence[Mode]) -> list[str]:
    fastest = max(mode.pages_per_second for mode in modes)
    heads = ["", "speed-up", "low to high", "efficiency", f"{'pages/s':<{BAR_CHARACTERS}}"]
    table = [
        [
            mode_flag(mode.mode, mode.concurrency),
            multiple(mode.speed_up.median if mode.speed_up else None),
            _range(mode.speed_up),
            percent(mode.efficiency),
            f"{_bar(mode.pages_per_second / fastest if fastest else 0.0):<{BAR_CHARACTERS}}",
        ]
        for mode in modes
    ]
    return _aligned([heads, *table])


def _range(spread: Spread | None) -> str:
    if spread is None or spread.low == spread.high:
        return ""
    return f"{multiple(spread.low)} to {multiple(spread.high)}"


def _bar(share: float) -> str:
    eighths = max(1, round(share * BAR_CHARACTERS * 8)) if share > 0 else 0
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Align the first column to the left and the others to the right."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return [plain("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()) for row in table]


def _conclusion(report: Report) -> str:
    if not report.modes:
        return "no counted round is complete"
    measured = [mode for mode in report.modes if mode.mode == "concurrent"]
    best = next((mode for mode in measured if mode.concurrency == report.recommended), None)
    if best is None and len(measured) == 1:
        return "recommended: nothing, for one concurrency was measured (-c 10,50,100 compares three)"
    if best is None:
        return f"recommended: nothing, for no {'page came' if measured else 'concurrent round is complete'}"
    advice = f"recommended: -c {best.concurrency}, the least that is within 5 % of the best time"
    if best.speed_up is None:
        return advice
    but = ", though one by one is as fast here" if best.speed_up.median < NO_GAIN_SPEED_UP else ""
    return f"{advice}: {plain(multiple(best.speed_up.median))} as fast as one by one{but}"
