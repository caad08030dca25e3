"""The timeline: every request a bar from when it went out to when it was done, in the slot that bore it.

Laws: all tracks of one drawing share one time axis, so lengths can be compared. A bar's slot is found again by greedy
assignment to as many slots as the mode had: the first free one, else the one soonest free. Bars too short to be told
apart are drawn as one with their neighbours of the same kind; a failure is never drawn into a success.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable

import msgspec

from fetcher.bench.drawing import Scale, details, frame, label, line, mark, stretched, table
from fetcher.bench.findings import KINDS, Findings, kind_of, on_wire, tally, typical
from fetcher.bench.results import Report, Round
from fetcher.bench.wording import counted, duration, labelled, significant, tick

__all__ = ["Bar", "assign", "draw", "merged"]

MOST_SLOTS = 100
"""More slots than this are sampled: a lane thinner than two pixels is no lane."""

CALLED = {
    "came": "page",
    "status": "error status",
    "silent": "no whole answer",
    "unasked": "not asked for",
}
_WIDE = 1000.0


class Bar(msgspec.Struct, frozen=True):
    """A request on the wire: its slot from 0, from when to when (seconds of the round), and its kind."""

    slot: int
    start: float
    end: float
    kind: str


class Track(msgspec.Struct, frozen=True):
    """A mode's typical round as bars: what it is called, and how many slots it had."""

    name: str
    slots: int
    round: Round
    bars: list[Bar]


def assign(round_: Round) -> list[Bar]:
    """Put every row of a round into a slot, at most as many as the round's concurrency."""
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


def merged(bars: Iterable[Bar], scale: Scale, least: float, gap: float = 0) -> list[tuple[int, float, float, str]]:
    """Return (slot, x, width, kind) in thousandths: neighbours of one kind as one where they are short or touch.

    ``least`` is the width under which a bar is not told apart from its neighbour; with a ``gap``, all others are.
    """
    lanes: dict[int, list[Bar]] = defaultdict(list)
    for bar in bars:
        lanes[bar.slot].append(bar)
    drawn: list[tuple[int, float, float, str]] = []
    for slot, lane in sorted(lanes.items()):
        left = right = -math.inf
        kind = ""
        for bar in sorted(lane, key=lambda bar: bar.start):
            x, end = _WIDE * scale.at(bar.start), _WIDE * scale.at(bar.end)
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


def draw(report: Report, findings: Findings) -> str:
    """Return the figure: the same stretch of time in close-up, and every mode to scale; empty without a round."""
    tracks = [
        Track(labelled(mode), mode.concurrency if mode.mode == "concurrent" else 1, round_, assign(round_))
        for mode in report.modes
        if (round_ := typical(report, mode)) is not None
    ]
    if not tracks:
        return ""
    names = [labelled(mode) for mode in (findings.baseline, findings.best) if mode is not None]
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
    """Return how many lanes a track is drawn with, and of how many slots one is."""
    used = 1 + max((bar.slot for bar in track.bars), default=0)
    every = math.ceil(used / MOST_SLOTS)
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
    body = stretched(height, _bars(merged(shown, scale, 1.5, gap=3), pitch, pitch * 0.78))
    for value in scale.ticks(3):
        body = line(scale.at(value), 0, scale.at(value), "100%", "grid") + body
        body += mark(scale.at(value), "100%", tick(value), dy=18)
    left = sum(sample.end > scale.high for sample in track.round.samples)
    if lanes == 1 and left:
        to_come, ends = f"{counted(left, 'request')} still to come,", f"done after {duration(track.round.wall)}"
        body += label(0.5, "50%", to_come, anchor="middle", look="quiet halo")
        body += label(0.5, "50%", ends, anchor="middle", dy=20, look="quiet halo")
    cut = "" if every == 1 else f", 1 in {every} slots shown"
    words = f"{track.name}: {counted(done, 'page')} in {duration(scale.high)}"
    said = f"{counted(track.slots, 'slot')}{cut}; {counted(len(track.round.samples), 'request')} in the whole run"
    head = f"<h3>{track.name.capitalize()}</h3><p><b>{counted(done, 'page')}</b> in {duration(scale.high)}{cut}</p>"
    look = "plot lone" if lanes == 1 else "plot"
    return f'<div class="panel">{head}{frame(key, words, said, height, body, look=look)}</div>'


def _to_scale(tracks: list[Track]) -> str:
    """Draw every mode over the time of the longest."""
    scale = Scale(0.0, max(track.round.wall for track in tracks) or 1.0)
    y, body = 0.0, ""
    for track in tracks:
        slots = 1 + max((bar.slot for bar in track.bars), default=0)
        thick = 12.0 if slots == 1 else 26.0
        # Lanes thinner than a pixel are drawn a little over one another: else their seams show as stripes.
        drawn = merged(track.bars, scale, 2, gap=1.2 if slots == 1 else 0)
        bars = _bars(drawn, thick / slots, thick / slots * (1.4 if slots > 12 else 1))
        end = scale.at(track.round.wall)
        body += label(0, y + 14, track.name, look="name") + stretched(thick, bars, y=y + 22)
        if end < 0.8:
            body += label(end, y + 22 + thick / 2 + 4, duration(track.round.wall), dx=8, look="value")
        else:
            body += label(1, y + 14, duration(track.round.wall), anchor="end", look="value")
        y += 22 + thick + 14
    for value in scale.ticks(5):
        body = line(scale.at(value), 0, scale.at(value), y, "grid") + body
        body += mark(scale.at(value), y + 16, tick(value))
    said = "; ".join(f"{track.name}: {duration(track.round.wall)}" for track in tracks)
    return f"<h3>The same list, to scale</h3>{frame('scale', 'How long each mode took', said, y + 22, body)}"


def _bars(drawn: list[tuple[int, float, float, str]], pitch: float, thick: float) -> str:
    """Return a path for each kind; failures last, so that they lie on top."""
    paths = ""
    for kind in KINDS:
        strokes = "".join(
            f"M{x:.1f} {slot * pitch + thick / 2:.4g}h{max(width, 0.5):.1f}" for slot, x, width, k in drawn if k == kind
        )
        if strokes:
            paths += f'<path class="{kind}" stroke-width="{thick:.4g}" d="{strokes}"/>'
    return paths


def _legend(tracks: list[Track]) -> str:
    """Return what the colours and dashes mean, of the kinds that occur."""
    seen = tally(sample for track in tracks for sample in track.round.samples)
    keys = "".join(
        f'<li><svg width="28" height="12" aria-hidden="true"><path class="{kind}" stroke-width="8" d="M1 6h26"/></svg>'
        f"{CALLED[kind]}</li>"
        for kind in KINDS
        if seen[kind]
    )
    return f'<ul class="legend" aria-label="Colours">{keys}</ul>'


def _as_table(tracks: list[Track]) -> str:
    heads = ["Mode", "Took", "Requests", "Pages", "Error status", "No whole answer", "Not asked for", "Slots", "Busy"]
    rows = []
    for track in tracks:
        kinds = tally(track.round.samples)
        slots = 1 + max((bar.slot for bar in track.bars), default=0)
        under_way = sum(bar.end - bar.start for bar in track.bars) / track.round.wall if track.round.wall > 0 else 0.0
        cells = [track.name, duration(track.round.wall), f"{len(track.round.samples):,}"]
        rows.append(
            [*cells, *(f"{kinds[kind]:,}" for kind in KINDS), f"{slots:,}", f"{significant(under_way)} on average"]
        )
    caption = "The round of each mode nearest to its median time"
    return details("The timeline as a table", table(caption, heads, rows, "timeline-table"))
