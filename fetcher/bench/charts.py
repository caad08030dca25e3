"""The charts of a bench: the speed-up over the concurrency, how long requests take, and how steadily pages come.

Laws: lines and strips are named where they lie, not in a legend. Every chart has the same figures as a table. What was
not measured is not drawn: a report without a baseline has no speed-up, and no empty frame instead.
"""

from __future__ import annotations

import math

from fetcher.bench.drawing import Scale, details, fitting, frame, label, line, mark, spaced, stretched, table
from fetcher.bench.findings import Findings, rounds_of, typical
from fetcher.bench.results import Mode, Report, Round
from fetcher.bench.wording import duration, labelled, multiple, significant, spread, tick

__all__ = ["draw_latency", "draw_speed_up", "draw_throughput"]

_HEIGHT = 270.0
_MOST_BINS = 60
_STRIP = 46.0


def draw_speed_up(report: Report, findings: Findings) -> str:
    """Return the speed-up at each concurrency, with the ideal (c times at c) and what the answer times allow."""
    baseline = findings.baseline
    measured = sorted(
        (mode for mode in report.modes if mode.mode == "concurrent" and mode.speed_up is not None),
        key=lambda mode: mode.concurrency,
    )
    if baseline is None or not measured:
        return ""
    most = max(mode.concurrency for mode in measured)
    # Where nothing was measured at 1, the baseline is the first point: once as fast as itself.
    first = [(1.0, 1.0)] if measured[0].concurrency > 1 else []
    found = [
        (float(mode.concurrency), baseline.wall.median / mode.least) for mode in measured if 0 < mode.least < math.inf
    ]
    allowed = first + found
    speeds = first + [(float(mode.concurrency), mode.speed_up.median) for mode in measured if mode.speed_up]
    reached = max([speed for _, speed in [*allowed, *speeds] if math.isfinite(speed)] or [1.0])
    across = Scale(0.0, most * 1.04)
    up = Scale(0.0, max(1.0, min(most * 1.04, reached * 1.3), reached * 1.05))

    ideal = min(across.high, up.high)
    body = _grid(across, up, [mode.concurrency for mode in measured])
    body += line(0, _HEIGHT, across.at(ideal), _y(up, ideal), "ideal")
    body += stretched(_HEIGHT, _polyline(allowed, across, up, "allowed") + _polyline(speeds, across, up, "measured"))
    body += _points(measured, report.recommended, across, up)
    ends = [(_y(up, speeds[-1][1]), "measured", "strong")]
    if found:
        ends.append((_y(up, allowed[-1][1]), "possible", "quiet"))
    if ideal == across.high:
        ends.append((_y(up, ideal), "ideal", "quiet"))
    else:
        body += label(across.at(ideal), 6, "ideal", dx=8, look="quiet")
    for y, text, look in _apart(ends):
        body += label(1, y + 4, text, dx=10, look=look)
    said = "; ".join(f"{multiple(speed)} at {concurrency:,.0f}" for concurrency, speed in speeds)
    title = "Speed-up over one after another, by concurrency"
    plot = frame("speed-up-chart", title, said, _HEIGHT + 44, body, look="plot wide-right")
    return plot + _speed_up_table(measured, dict(found))


def draw_latency(report: Report) -> str:
    """Return a histogram of the times on the wire for each mode, over all counted rounds, on one axis."""
    found = [
        (mode, [s.latency for r in rounds_of(report, mode) for s in r.samples if s.latency > 0])
        for mode in report.modes
    ]
    found = [(mode, latencies) for mode, latencies in found if latencies]
    if not found:
        return ""
    scale = fitting([latency for _, latencies in found for latency in latencies])
    bins = max(20, min(_MOST_BINS, max(len(latencies) for _, latencies in found) // 6))
    body, y = "", 0.0
    for mode, latencies in found:
        counts = [0] * bins
        for latency in latencies:
            counts[min(bins - 1, int(scale.at(latency) * bins))] += 1
        heights = [count / max(counts) for count in counts]
        quantiles = [(name, mode.latency[name]) for name in ("p50", "p95", "p99") if name in mode.latency]
        body += label(0, y + 14, labelled(mode), look="name halo")
        names = [f"{name} {duration(value)}" for name, value in quantiles]
        body += label(1, y + 14, " · ".join(names), anchor="end", look="tick halo roomy")
        body += label(1, y + 14, "".join(names[:1]), anchor="end", look="tick halo tight")
        body += stretched(_STRIP, _steps(heights, mode), y=y + 22)
        for name, value in quantiles:
            body += line(scale.at(value), y + 20, scale.at(value), y + 22 + _STRIP, f"mark {name}")
        y += 22 + _STRIP + 12
    for value in _thinned(scale):
        place = scale.at(value)
        body = line(place, 0, place, y - 4, "grid") + body
        body += mark(place, y + 14, tick(value))
    said = "; ".join(f"{labelled(mode)}: half within {duration(mode.latency.get('p50'))}" for mode, _ in found)
    plot = frame("latency", "Time on the wire of a request, by mode", said, y + 20, body)
    return plot + _latency_table(found)


def draw_throughput(report: Report) -> str:
    """Return pages done per second over the time of each mode's typical round, each on its own axes."""
    drawn = [(mode, round_) for mode in report.modes if (round_ := typical(report, mode)) and round_.wall > 0]
    if not any(sample.code is None for _, round_ in drawn for sample in round_.samples):
        return ""
    body, y = "", 0.0
    for mode, round_ in drawn:
        rates = _rates(round_, max(8, min(48, len(round_.samples) // 10)))
        top = max(*rates, mode.pages_per_second) or 1.0
        body += label(0, y + 14, labelled(mode), look="name")
        mean = f"{significant(mode.pages_per_second)}/s over {duration(round_.wall)}"
        body += label(1, y + 14, mean, anchor="end", look="tick")
        body += stretched(_STRIP, _steps([rate / top for rate in rates], mode), y=y + 24)
        level = y + 24 + _STRIP * (1 - min(1.0, mode.pages_per_second / top))
        body += line(0, level, 1, level, "mark p50") + line(0, y + 24 + _STRIP, 1, y + 24 + _STRIP, "axis")
        y += 24 + _STRIP + 14
    said = "; ".join(f"{labelled(mode)}: {significant(mode.pages_per_second)} pages a second" for mode, _ in drawn)
    plot = frame("throughput", "Pages done per second over each run", said, y, body)
    return plot + _throughput_table(drawn)


def _grid(across: Scale, up: Scale, at: list[int]) -> str:
    body = ""
    for value in up.ticks(4):
        y = _y(up, value)
        body += line(0, y, 1, y, "grid" if value else "axis")
        body += label(0, y + 4, f"{value:,.4g}×", anchor="end", dx=-8, look="tick")
    for value, shown in zip(at, spaced((across.at(value) for value in at), 0.13), strict=True):
        if shown:
            body += label(across.at(value), _HEIGHT + 18, f"{value:,}", anchor="middle", look="tick")
    return body + label(0.5, _HEIGHT + 38, "requests at once", anchor="middle", look="tick")


def _points(measured: list[Mode], recommended: int | None, across: Scale, up: Scale) -> str:
    """Draw each measured point with its spread; the recommended one is labelled first, others where there is room."""
    body, taken = "", [across.at(recommended)] if recommended else []
    for mode in measured:
        if mode.speed_up is None:
            continue
        x, y = across.at(mode.concurrency), _y(up, mode.speed_up.median)
        body += line(x, _y(up, mode.speed_up.low), x, _y(up, mode.speed_up.high), "whisker")
        chosen = mode.concurrency == recommended
        body += f'<circle cx="{100 * x:.2f}%" cy="{y:.1f}" r="{6 if chosen else 4}" class="{"chosen" if chosen else "dot"}"/>'
        if chosen or all(abs(x - other) > 0.2 for other in taken):
            taken.append(x)
            said = multiple(mode.speed_up.median)
            if x < 0.8:
                body += label(x, min(y + 17, _HEIGHT - 6), said, dx=10, look="value halo")
            else:
                body += label(x, y + 26, said, anchor="middle", look="value halo")
    return body


def _steps(heights: list[float], mode: Mode) -> str:
    """Return an area of even steps; heights run from 0 to 1."""
    width = 1000 / len(heights)
    path = f"M0 {_STRIP:g}"
    for number, height in enumerate(heights):
        path += f"L{number * width:.1f} {_STRIP * (1 - height):.1f}H{(number + 1) * width:.1f}"
    return f'<path class="area {mode.mode}" d="{path}V{_STRIP:g}Z"/>'


def _rates(round_: Round, bins: int) -> list[float]:
    """Return pages done per second in even parts of the round."""
    counts = [0] * bins
    for sample in round_.samples:
        if sample.code is None:
            counts[min(bins - 1, max(0, int(sample.end / round_.wall * bins)))] += 1
    return [count * bins / round_.wall for count in counts]


def _y(up: Scale, value: float) -> float:
    return _HEIGHT * (1 - up.at(value))


def _polyline(points: list[tuple[float, float]], across: Scale, up: Scale, look: str) -> str:
    path = "L".join(f"{1000 * across.at(x):.1f} {_y(up, y):.1f}" for x, y in points)
    return f'<path class="{look}" d="M{path}"/>'


def _apart(ends: list[tuple[float, str, str]], gap: float = 16) -> list[tuple[float, str, str]]:
    """Push labels apart that would lie on one another, downwards."""
    placed: list[tuple[float, str, str]] = []
    for y, text, look in sorted(ends):
        placed.append((max(y, placed[-1][0] + gap) if placed else y, text, look))
    return placed


def _thinned(scale: Scale) -> list[float]:
    ticks = scale.ticks(5)
    return [value for value, kept in zip(ticks, spaced(map(scale.at, ticks), 0.14), strict=True) if kept]


def _speed_up_table(measured: list[Mode], allowed: dict[float, float]) -> str:
    rows = []
    for mode in measured:
        median, ends = spread(mode.speed_up, "times")
        possible = multiple(allowed.get(float(mode.concurrency)))
        rows.append([labelled(mode), f"{mode.concurrency:,}×", possible, median, ends or median])
    heads = ["Mode", "Ideal", "Possible", "Measured", "Lowest to highest"]
    return details("The speed-up as a table", table("Speed-up over one after another", heads, rows, "speed-up-table"))


def _latency_table(found: list[tuple[Mode, list[float]]]) -> str:
    rows = []
    for mode, latencies in found:
        quantiles = [duration(mode.latency.get(name)) for name in ("p50", "p95", "p99")]
        rows.append(
            [labelled(mode), f"{len(latencies):,}", duration(min(latencies)), *quantiles, duration(max(latencies))]
        )
    heads = ["Mode", "Requests", "Least", "p50", "p95", "p99", "Most"]
    return details("The answer times as a table", table("Time on the wire, all rounds", heads, rows, "latency-table"))


def _throughput_table(drawn: list[tuple[Mode, Round]]) -> str:
    heads = ["Part of the run", *(labelled(mode) for mode, _ in drawn)]
    columns = [_rates(round_, 10) for _, round_ in drawn]
    rows = [
        [f"{10 * part} to {10 * part + 10}\xa0%", *(significant(column[part]) for column in columns)]
        for part in range(10)
    ]
    return details(
        "The flow as a table", table("Pages per second, by tenths of the run", heads, rows, "throughput-table")
    )
