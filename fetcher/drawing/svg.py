"""The SVG and HTML elements of a report's page: scales, labels, lines, charts and tables.

Laws: a chart is as wide as the space it has. Positions along x are in per cent (labels) or in thousandths (paths, which
are stretched); positions along y, fonts and strokes are in pixels. So text stays readable on a phone without a script.
There are only classes and no ``style`` attributes, which the page's policy forbids.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

from fetcher.drawing.formatting import escaped

__all__ = [
    "Scale",
    "axis_label",
    "chart",
    "details",
    "fitting",
    "label",
    "line",
    "spaced",
    "steps",
    "stretched",
    "table",
    "thinned_ticks",
]

_TICK_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


class Scale(msgspec.Struct, frozen=True):
    """A linear or logarithmic scale from ``low`` to ``high`` (both above zero if logarithmic)."""

    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return the position of ``value`` from 0 to 1; a value outside is moved to the edge."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, self.low))
        return min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.0

    def ticks(self, about: int = 5) -> list[float]:
        """Return about ``about`` round values within the scale."""
        if self.log:
            places = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1, 2, 5) if self.high / self.low < 300 else (1,)
            return [v for p in places for s in steps if self.low <= (v := s * 10.0**p) <= self.high * 1.000001]
        span = self.high - self.low
        if not span > 0:
            return [self.low]
        rough = span / about
        magnitude = 10.0 ** math.floor(math.log10(rough))
        step = next(s * magnitude for s in _TICK_STEPS if s * magnitude >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [round(n * step, 12) for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def fitting(values: Sequence[float]) -> Scale:
    """Return a scale for ``values`` (seconds): from zero, or logarithmic where a few are far larger than the others."""
    positive = sorted(value for value in values if value > 0 and math.isfinite(value))
    if not positive:
        return Scale(0.0, 1.0)
    low, high = positive[0], positive[-1]
    if high > 12 * positive[len(positive) // 2]:
        return Scale(max(low * 0.9, high / 1e5), high * 1.05, log=True)
    return Scale(0.0, high * 1.03)


def spaced(places: Iterable[float], gap: float) -> list[bool]:
    """Return which of ascending positions get a label when two labels need ``gap`` between them."""
    last = -math.inf
    kept = []
    for place in places:
        kept.append(place - last >= gap)
        last = place if kept[-1] else last
    return kept


def label(
    x: float, y: float | str, text: str, *, anchor: str = "start", dx: float = 0, dy: float = 0, css: str = ""
) -> str:
    """Return a text at the share ``x`` of the width and the pixel (or ``"50%"``) ``y``; ``css`` is its class."""
    shift = (f' dx="{dx:g}"' if dx else "") + (f' dy="{dy:g}"' if dy else "")
    side = f' text-anchor="{anchor}"' if anchor != "start" else ""
    classes = f' class="{css}"' if css else ""
    return f'<text x="{100 * x:.2f}%" y="{_along_y(y)}"{shift}{side}{classes}>{escaped(text)}</text>'


def axis_label(x: float, y: float | str, text: str, *, dy: float = 0) -> str:
    """Return an axis label centred at ``x``, or moved inwards at the left and right edge."""
    anchor = "start" if x < 0.02 else "end" if x > 0.96 else "middle"
    return label(x, y, text, anchor=anchor, dy=dy, css="tick")


def line(x1: float, y1: float, x2: float, y2: float | str, css: str) -> str:
    """Return a straight line; along x in shares of the width, along y in pixels (or ``"100%"``)."""
    return f'<line x1="{100 * x1:.2f}%" y1="{y1:.1f}" x2="{100 * x2:.2f}%" y2="{_along_y(y2)}" class="{css}"/>'


def stretched(height: float, paths: str, y: float = 0) -> str:
    """Return an SVG that stretches ``paths`` (elements, with x from 0 to 1,000) over the whole width."""
    return f'<svg y="{y:g}" width="100%" height="{height:g}" viewBox="0 0 1000 {height:g}" preserveAspectRatio="none">{paths}</svg>'


def steps(heights: Sequence[float], css: str, height: float) -> str:
    """Return an area of even steps, ``height`` pixels high, for ``stretched``; heights run from 0 to 1."""
    width = 1000 / len(heights)
    path = f"M0 {height:g}"
    for number, share in enumerate(heights):
        path += f"L{number * width:.1f} {height * (1 - share):.1f}H{(number + 1) * width:.1f}"
    return f'<path class="area {css}" d="{path}V{height:g}Z"/>'


def thinned_ticks(scale: Scale, about: int = 5, gap: float = 0.14) -> list[float]:
    """Return round values of a scale whose labels do not touch."""
    ticks = scale.ticks(about)
    return [value for value, kept in zip(ticks, spaced(map(scale.at, ticks), gap), strict=True) if kept]


def chart(key: str, title: str, description: str, height: float, body: str, *, css: str = "plot") -> str:
    """Return a chart: one image to a screen reader, with a title and a description (both plain text)."""
    return (
        f'<div class="{css}"><svg role="img" aria-labelledby="{key}-t {key}-d" width="100%" height="{height:g}">'
        f'<title id="{key}-t">{escaped(title)}</title><desc id="{key}-d">{escaped(description)}</desc>{body}</svg></div>'
    )


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], key: str) -> str:
    """Return a table that scrolls by itself; cells are HTML, and the first cell of a row is its heading."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in heads)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>" for row in rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-labelledby="{key}"><table><caption id="{key}">{caption}'
        f"</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def details(summary: str, content: str) -> str:
    """Return a section that the reader can open."""
    return f"<details><summary>{summary}</summary>{content}</details>"


def _along_y(y: float | str) -> str:
    return y if isinstance(y, str) else f"{y:.1f}"
