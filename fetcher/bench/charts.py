"""The charts of a bench: the timeline, the speed-up by concurrency, how long requests take, how steadily pages come.

Laws: lines and strips are labelled in place, not in a legend. Every chart has the same figures as a table. What was not
measured is not drawn: a report without a baseline has no speed-up chart, and no empty frame instead. In the timeline
all tracks share one time axis, so that lengths can be compared. Bars too short to be told apart are drawn as one with
their neighbours of the same kind; a failure is never drawn as part of a success.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Iterable

import msgspec

from fetcher.bench.conclusions import Headline
from fetcher.bench.formatting import mode_label, spread
from fetcher.bench.results import Mode, Report, Round, Sample, rounds_of, typical_round
from fetcher.drawing.formatting import counted, duration, multiple, significant, tick
from fetcher.drawing.svg import (
    Scale,
    axis_label,
    chart,
    details,
    fitting,
    label,
    line,
    spaced,
    steps,
    stretched,
    table,
    thinned_ticks,
)

__all__ = [
    "KINDS",
    "Bar",
    "assign_slots",
    "count_kinds",
    "draw_latency",
    "draw_speed_up",
    "draw_throughput",
    "draw_timeline",
    "kind_of",
    "merge_bars",
    "on_wire",
]

KINDS = {
    "ok": "page",
    "http-error": "error status",
    "incomplete": "no whole answer",
    "not-sent": "not asked for",
}
"""What becomes of a request, each with its label: a page, an error status, no complete response, or never sent."""
_NOT_SENT = frozenset(
    {"invalid_url", "robots_denied", "robots_unreachable", "address_blocked", "duplicate", "host_budget"}
)

MAX_LANES = 100
"""With more slots than this only every n-th is drawn: a lane thinner than two pixels cannot be seen."""
_WIDTH_UNITS = 1000.0
"""The width of every stretched SVG (``svg.stretched``)."""
_SPEED_UP_HEIGHT_PIXELS = 270.0
_STRIP_HEIGHT_PIXELS = 46.0
_MIN_BINS = 20
_MAX_BINS = 60


# The timeline


def kind_of(sample: Sample) -> str:
    """Return which of ``KINDS`` a row is."""
    if sample.code is None:
        return "ok"
    if sample.code.startswith("http_"):
        return "http-error"
    return "not-sent" if sample.code in _NOT_SENT else "incomplete"


def count_kinds(samples: Iterable[Sample]) -> Counter[str]:
    """Count rows by kind."""
    return Counter(map(kind_of, samples))


def on_wire(sample: Sample) -> tuple[float, float]:
    """Return from when to when a row was on the wire, in seconds of its round, as far as its times show it.

    The waits of a row (for a slot, for its host, a backoff) are before its last attempt. Several attempts are shown as
    one with their total time, which ends when the row was done.
    """
    start = max(sample.start, sample.end - sample.latency, 0.0) if sample.latency > 0 else sample.start
    return start, max(start, sample.end)


class Bar(msgspec.Struct, frozen=True):
    """A request on the wire: its slot from 0, its start and end (seconds of the round), and its kind."""

    slot: int
    start: float
    end: float
    kind: str


class Track(msgspec.Struct, frozen=True):
    """A mode's typical round as bars: its name, and how many slots it had."""

    name: str
    slots: int
    round: Round
    bars: list[Bar]


def assign_slots(round_: Round) -> list[Bar]:
    """Assign every row of a round to a slot, greedily: the first free one, else the one that is free soonest.

    There are at most as many slots as the round's concurrency.
    """
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    bars = []
    for start, end, kind in sorted((*on_wire(sample), kind_of(sample)) for sample in round_.samples):
        while busy and busy[0][0] <= start:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if free:
            slot = heapq.heappop(free)
        elif len(busy) < round_.concurrency:
            slot = len(busy)
        else:
            slot = heapq.heappop(busy)[1]
        heapq.heappush(busy, (end, slot))
        bars.append(Bar(slot, start, end, kind))
    return bars


def merge_bars(bars: Iterable[Bar], scale: Scale, least: float, gap: float = 0) -> list[tuple[int, float, float, str]]:
    """Return (slot, x, width, kind) in thousandths: neighbours of one kind as one where they are short or touch.

    A bar narrower than ``least`` is merged with its neighbour; with a ``gap``, all others are drawn apart.
    """
    lanes: dict[int, list[Bar]] = defaultdict(list)
    for bar in bars:
        lanes[bar.slot].append(bar)
    drawn: list[tuple[int, float, float, str]] = []
    for slot, lane in sorted(lanes.items()):
        left = right = -math.inf
        kind = ""
        for bar in sorted(lane, key=lambda bar: bar.start):
            x, end = _WIDTH_UNITS * scale.at(bar.start), _WIDTH_UNITS * scale.at(bar.end)
            short = not gap or end - x < least or right - left < least
            if kind == bar.kind and short and x - right < least:
                right = max(right, end)
                continue
            if kind:
                drawn.append((slot, left, right - left, kind))
            left, right, kind = x, max(end, x + least / 2), bar.kind
        if kind:
            drawn.append((slot, left, right - left, kind))
    return [(slot, x, width - min(gap, width / 4), kind) for slot, x, width, kind in drawn]


def draw_timeline(report: Report, headline: Headline) -> str:
    """Return the timeline: best mode and baseline over the same time, then every mode to scale; empty without a round."""
    tracks = [
        Track(
            mode_label(mode.mode, mode.concurrency),
            mode.concurrency if mode.mode == "concurrent" else 1,
            round_,
            assign_slots(round_),
        )
        for mode in report.modes
        if (round_ := typical_round(report, mode)) is not None
    ]
    if not tracks:
        return ""
    names = [mode_label(mode.mode, mode.concurrency) for mode in (headline.baseline, headline.best) if mode is not None]
    pair = [track for track in tracks if track.name in names]
    close = _close_up(pair)
    whole = _to_scale(tracks) if len(tracks) > 1 else ""
    return close + _legend(tracks) + whole + _as_table(tracks)


def _close_up(pair: list[Track]) -> str:
    """Draw one or two modes over the time of the shorter one."""
    shortest = min(pair, key=lambda track: track.round.wall)
    scale = Scale(0.0, shortest.round.wall or 1.0)
    height = max(112.0, min(252.0, 20.0 * max(_lanes(track)[0] for track in pair)))
    panels = [_panel(track, scale, height, key=f"close{number}") for number, track in enumerate(pair)]
    return f'<div class="pair">{"".join(panels)}</div>'


def _lanes(track: Track) -> tuple[int, int]:
    """Return how many lanes a track is drawn with, and that every n-th slot is one of them."""
    used = 1 + max((bar.slot for bar in track.bars), default=0)
    every = math.ceil(used / MAX_LANES)
    return math.ceil(used / every), every


def _panel(track: Track, scale: Scale, height: float, *, key: str) -> str:
    lanes, every = _lanes(track)
    pitch = min(18.0, height / lanes)
    done = sum(sample.code is None and sample.end <= scale.high for sample in track.round.samples)
    shown = [
        msgspec.structs.replace(bar, slot=bar.slot // every)
        for bar in track.bars
        if bar.slot % every == 0 and bar.start < scale.high
    ]
    body = stretched(height, _bars(merge_bars(shown, scale, 1.5, gap=3), pitch, pitch * 0.78))
    for value in scale.ticks(3):
        body = line(scale.at(value), 0, scale.at(value), "100%", "grid") + body
        body += axis_label(scale.at(value), "100%", tick(value), dy=18)
    left = sum(sample.end > scale.high for sample in track.round.samples)
    if lanes == 1 and left:
        to_come, ends = f"{counted(left, 'request')} still to come,", f"done after {duration(track.round.wall)}"
        body += label(0.5, "50%", to_come, anchor="middle", css="quiet halo")
        body += label(0.5, "50%", ends, anchor="middle", dy=20, css="quiet halo")
    cut = "" if every == 1 else f", 1 in {every} slots shown"
    words = f"{track.name}: {counted(done, 'page')} in {duration(scale.high)}"
    said = f"{counted(track.slots, 'slot')}{cut}; {counted(len(track.round.samples), 'request')} in the whole run"
    head = f"<h3>{track.name.capitalize()}</h3><p><b>{counted(done, 'page')}</b> in {duration(scale.high)}{cut}</p>"
    css = "plot lone" if lanes == 1 else "plot"
    return f'<div class="panel">{head}{chart(key, words, said, height, body, css=css)}</div>'


def _to_scale(tracks: list[Track]) -> str:
    """Draw every mode over the time of the longest."""
    scale = Scale(0.0, max(track.round.wall for track in tracks) or 1.0)
    y, body = 0.0, ""
    for track in tracks:
        slots = 1 + max((bar.slot for bar in track.bars), default=0)
        thick = 12.0 if slots == 1 else 26.0
        # Lanes thinner than a pixel are drawn a little over one another: else their seams show as stripes.
        drawn = merge_bars(track.bars, scale, 2, gap=1.2 if slots == 1 else 0)
        bars = _bars(drawn, thick / slots, thick / slots * (1.4 if slots > 12 else 1))
        end = scale.at(track.round.wall)
        body += label(0, y + 14, track.name, css="name") + stretched(thick, bars, y=y + 22)
        if end < 0.8:
            body += label(end, y + 22 + thick / 2 + 4, duration(track.round.wall), dx=8, css="value")
        else:
            body += label(1, y + 14, duration(track.round.wall), anchor="end", css="value")
        y += 22 + thick + 14
    for value in scale.ticks(5):
        body = line(scale.at(value), 0, scale.at(value), y, "grid") + body
        body += axis_label(scale.at(value), y + 16, tick(value))
    said = "; ".join(f"{track.name}: {duration(track.round.wall)}" for track in tracks)
    return f"<h3>The same list, to scale</h3>{chart('scale', 'How long each mode took', said, y + 22, body)}"


def _bars(drawn: list[tuple[int, float, float, str]], pitch: float, thick: float) -> str:
    """Return a path for each kind; failures last, so that they are on top."""
    paths = ""
    for kind in KINDS:
        strokes = "".join(
            f"M{x:.1f} {slot * pitch + thick / 2:.4g}h{max(width, 0.5):.1f}" for slot, x, width, k in drawn if k == kind
        )
        if strokes:
            paths += f'<path class="{kind}" stroke-width="{thick:.4g}" d="{strokes}"/>'
    return paths


def _legend(tracks: list[Track]) -> str:
    """Return a legend of the kinds that occur."""
    seen = count_kinds(sample for track in tracks for sample in track.round.samples)
    keys = "".join(
        f'<li><svg width="28" height="12" aria-hidden="true"><path class="{kind}" stroke-width="8" d="M1 6h26"/></svg>'
        f"{name}</li>"
        for kind, name in KINDS.items()
        if seen[kind]
    )
    return f'<ul class="legend" aria-label="Colours">{keys}</ul>'


def _as_table(tracks: list[Track]) -> str:
    heads = ["Mode", "Took", "Requests", "Pages", "Error status", "No whole answer", "Not asked for", "Slots", "Busy"]
    rows = []
    for track in tracks:
        kinds = count_kinds(track.round.samples)
        slots = 1 + max((bar.slot for bar in track.bars), default=0)
        in_flight = sum(bar.end - bar.start for bar in track.bars) / track.round.wall if track.round.wall > 0 else 0.0
        cells = [track.name, duration(track.round.wall), f"{len(track.round.samples):,}"]
        rows.append(
            [*cells, *(f"{kinds[kind]:,}" for kind in KINDS), f"{slots:,}", f"{significant(in_flight)} on average"]
        )
    caption = "The round of each mode nearest to its median time"
    return details("The timeline as a table", table(caption, heads, rows, "timeline-table"))


# The other charts


def draw_speed_up(report: Report, headline: Headline) -> str:
    """Return the speed-up at each concurrency, with the ideal (c times at c) and what the answer times allow."""
    baseline = headline.baseline
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
    body += line(0, _SPEED_UP_HEIGHT_PIXELS, across.at(ideal), _y(up, ideal), "ideal")
    body += stretched(
        _SPEED_UP_HEIGHT_PIXELS, _polyline(allowed, across, up, "allowed") + _polyline(speeds, across, up, "measured")
    )
    body += _points(measured, report.recommended, across, up)
    ends = [(_y(up, speeds[-1][1]), "measured", "strong")]
    if found:
        ends.append((_y(up, allowed[-1][1]), "possible", "quiet"))
    if ideal == across.high:
        ends.append((_y(up, ideal), "ideal", "quiet"))
    else:
        body += label(across.at(ideal), 6, "ideal", dx=8, css="quiet")
    for y, text, css in _apart(ends):
        body += label(1, y + 4, text, dx=10, css=css)
    said = "; ".join(f"{multiple(speed)} at {concurrency:,.0f}" for concurrency, speed in speeds)
    title = "Speed-up over one after another, by concurrency"
    plot = chart("speed-up-chart", title, said, _SPEED_UP_HEIGHT_PIXELS + 44, body, css="plot wide-right")
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
    bins = max(_MIN_BINS, min(_MAX_BINS, max(len(latencies) for _, latencies in found) // 6))
    body, y = "", 0.0
    for mode, latencies in found:
        counts = [0] * bins
        for latency in latencies:
            counts[min(bins - 1, int(scale.at(latency) * bins))] += 1
        heights = [count / max(counts) for count in counts]
        quantiles = [(name, mode.latency[name]) for name in ("p50", "p95", "p99") if name in mode.latency]
        body += label(0, y + 14, mode_label(mode.mode, mode.concurrency), css="name halo")
        names = [f"{name} {duration(value)}" for name, value in quantiles]
        body += label(1, y + 14, " · ".join(names), anchor="end", css="tick halo roomy")
        body += label(1, y + 14, "".join(names[:1]), anchor="end", css="tick halo tight")
        body += stretched(_STRIP_HEIGHT_PIXELS, _steps(heights, mode), y=y + 22)
        for name, value in quantiles:
            body += line(scale.at(value), y + 20, scale.at(value), y + 22 + _STRIP_HEIGHT_PIXELS, f"mark {name}")
        y += 22 + _STRIP_HEIGHT_PIXELS + 12
    for value in thinned_ticks(scale):
        place = scale.at(value)
        body = line(place, 0, place, y - 4, "grid") + body
        body += axis_label(place, y + 14, tick(value))
    said = "; ".join(
        f"{mode_label(mode.mode, mode.concurrency)}: half within {duration(mode.latency.get('p50'))}"
        for mode, _ in found
    )
    plot = chart("latency", "Time on the wire of a request, by mode", said, y + 20, body)
    return plot + _latency_table(found)


def draw_throughput(report: Report) -> str:
    """Return pages done per second over the time of each mode's typical round, each on its own axes."""
    drawn = [(mode, round_) for mode in report.modes if (round_ := typical_round(report, mode)) and round_.wall > 0]
    if not any(sample.code is None for _, round_ in drawn for sample in round_.samples):
        return ""
    body, y = "", 0.0
    for mode, round_ in drawn:
        rates = _rates(round_, max(8, min(48, len(round_.samples) // 10)))
        top = max(*rates, mode.pages_per_second) or 1.0
        body += label(0, y + 14, mode_label(mode.mode, mode.concurrency), css="name")
        mean = f"{significant(mode.pages_per_second)}/s over {duration(round_.wall)}"
        body += label(1, y + 14, mean, anchor="end", css="tick")
        body += stretched(_STRIP_HEIGHT_PIXELS, _steps([rate / top for rate in rates], mode), y=y + 24)
        level = y + 24 + _STRIP_HEIGHT_PIXELS * (1 - min(1.0, mode.pages_per_second / top))
        body += line(0, level, 1, level, "mark p50") + line(
            0, y + 24 + _STRIP_HEIGHT_PIXELS, 1, y + 24 + _STRIP_HEIGHT_PIXELS, "axis"
        )
        y += 24 + _STRIP_HEIGHT_PIXELS + 14
    said = "; ".join(
        f"{mode_label(mode.mode, mode.concurrency)}: {significant(mode.pages_per_second)} pages a second"
        for mode, _ in drawn
    )
    plot = chart("throughput", "Pages done per second over each run", said, y, body)
    return plot + _throughput_table(drawn)


def _grid(across: Scale, up: Scale, at: list[int]) -> str:
    body = ""
    for value in up.ticks(4):
        y = _y(up, value)
        body += line(0, y, 1, y, "grid" if value else "axis")
        body += label(0, y + 4, f"{value:,.4g}×", anchor="end", dx=-8, css="tick")
    for value, shown in zip(at, spaced((across.at(value) for value in at), 0.13), strict=True):
        if shown:
            body += label(across.at(value), _SPEED_UP_HEIGHT_PIXELS + 18, f"{value:,}", anchor="middle", css="tick")
    return body + label(0.5, _SPEED_UP_HEIGHT_PIXELS + 38, "requests at once", anchor="middle", css="tick")


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
                body += label(x, min(y + 17, _SPEED_UP_HEIGHT_PIXELS - 6), said, dx=10, css="value halo")
            else:
                body += label(x, y + 26, said, anchor="middle", css="value halo")
    return body


def _steps(heights: list[float], mode: Mode) -> str:
    """Return an area of even steps; heights run from 0 to 1."""
    return steps(heights, mode.mode, _STRIP_HEIGHT_PIXELS)


def _rates(round_: Round, bins: int) -> list[float]:
    """Return pages done per second in even parts of the round."""
    counts = [0] * bins
    for sample in round_.samples:
        if sample.code is None:
            counts[min(bins - 1, max(0, int(sample.end / round_.wall * bins)))] += 1
    return [count * bins / round_.wall for count in counts]


def _y(up: Scale, value: float) -> float:
    return _SPEED_UP_HEIGHT_PIXELS * (1 - up.at(value))


def _polyline(points: list[tuple[float, float]], across: Scale, up: Scale, css: str) -> str:
    path = "L".join(f"{1000 * across.at(x):.1f} {_y(up, y):.1f}" for x, y in points)
    return f'<path class="{css}" d="M{path}"/>'


def _apart(ends: list[tuple[float, str, str]], gap: float = 16) -> list[tuple[float, str, str]]:
    """Push labels apart that would lie on one another, downwards."""
    placed: list[tuple[float, str, str]] = []
    for y, text, css in sorted(ends):
        placed.append((max(y, placed[-1][0] + gap) if placed else y, text, css))
    return placed


def _speed_up_table(measured: list[Mode], allowed: dict[float, float]) -> str:
    rows = []
    for mode in measured:
        median, ends = spread(mode.speed_up, "times")
        possible = multiple(allowed.get(float(mode.concurrency)))
        rows.append(
            [mode_label(mode.mode, mode.concurrency), f"{mode.concurrency:,}×", possible, median, ends or median]
        )
    heads = ["Mode", "Ideal", "Possible", "Measured", "Lowest to highest"]
    return details("The speed-up as a table", table("Speed-up over one after another", heads, rows, "speed-up-table"))


def _latency_table(found: list[tuple[Mode, list[float]]]) -> str:
    rows = []
    for mode, latencies in found:
        quantiles = [duration(mode.latency.get(name)) for name in ("p50", "p95", "p99")]
        rows.append(
            [
                mode_label(mode.mode, mode.concurrency),
                f"{len(latencies):,}",
                duration(min(latencies)),
                *quantiles,
                duration(max(latencies)),
            ]
        )
    heads = ["Mode", "Requests", "Least", "p50", "p95", "p99", "Most"]
    return details("The answer times as a table", table("Time on the wire, all rounds", heads, rows, "latency-table"))


def _throughput_table(drawn: list[tuple[Mode, Round]]) -> str:
    heads = ["Part of the run", *(mode_label(mode.mode, mode.concurrency) for mode, _ in drawn)]
    columns = [_rates(round_, 10) for _, round_ in drawn]
    rows = [
        [f"{10 * part} to {10 * part + 10}\xa0%", *(significant(column[part]) for column in columns)]
        for part in range(10)
    ]
    return details(
        "The flow as a table", table("Pages per second, by tenths of the run", heads, rows, "throughput-table")
    )
