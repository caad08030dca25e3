"""The few strokes that the charts are made of: a scale, a label, a path, and the frame they stand in.

Laws: a chart is as wide as its place. What is along x is in per cent (labels) or thousandths (paths, stretched); what
is along y, and every font and stroke, is in pixels: so text stays readable on a phone and nothing needs a script. No
``style`` attribute, the page's policy forbids it: classes alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

from fetcher.bench.wording import escaped

__all__ = ["Scale", "details", "fitting", "frame", "label", "line", "mark", "spaced", "stretched", "table"]

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


class Scale(msgspec.Struct, frozen=True):
    """Where a value lies between ``low`` and ``high``, evenly or by its logarithm (then both are above zero)."""

    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return the place of ``value`` from 0 to 1; what lies outside is moved to the edge."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, self.low))
        return min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.0

    def ticks(self, about: int = 5) -> list[float]:
        """Return round values within the scale, ``about`` so many."""
        if self.log:
            places = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1, 2, 5) if self.high / self.low < 300 else (1,)
            return [v for p in places for s in steps if self.low <= (v := s * 10.0**p) <= self.high * 1.000001]
        span = self.high - self.low
        if not span > 0:
            return [self.low]
        rough = span / about
        magnitude = 10.0 ** math.floor(math.log10(rough))
        step = next(s * magnitude for s in _STEPS if s * magnitude >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [round(n * step, 12) for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def fitting(values: Sequence[float]) -> Scale:
    """Return the scale that shows ``values`` (seconds): from zero, or logarithmic where a few dwarf the others."""
    positive = sorted(value for value in values if value > 0 and math.isfinite(value))
    if not positive:
        return Scale(0.0, 1.0)
    low, high = positive[0], positive[-1]
    if high > 12 * positive[len(positive) // 2]:
        return Scale(max(low * 0.9, high / 1e5), high * 1.05, log=True)
    return Scale(0.0, high * 1.03)


def spaced(places: Iterable[float], gap: float) -> list[bool]:
    """Return which of ascending places can bear a label when two need ``gap`` between them."""
    last = -math.inf
    kept = []
    for place in places:
        kept.append(place - last >= gap)
        last = place if kept[-1] else last
    return kept


def label(
    x: float, y: float | str, text: str, *, anchor: str = "start", dx: float = 0, dy: float = 0, look: str = ""
) -> str:
    """Return a text at the share ``x`` of the width and the pixel (or ``"50%"``) ``y``; ``look`` is its class."""
    shift = (f' dx="{dx:g}"' if dx else "") + (f' dy="{dy:g}"' if dy else "")
    side = f' text-anchor="{anchor}"' if anchor != "start" else ""
    named = f' class="{look}"' if look else ""
    return f'<text x="{100 * x:.2f}%" y="{_along_y(y)}"{shift}{side}{named}>{escaped(text)}</text>'


def mark(x: float, y: float | str, text: str, *, dy: float = 0) -> str:
    """Return what an axis says at ``x``, in its middle, or within the edge where it lies on one."""
    anchor = "start" if x < 0.02 else "end" if x > 0.96 else "middle"
    return label(x, y, text, anchor=anchor, dy=dy, look="tick")


def line(x1: float, y1: float, x2: float, y2: float | str, look: str) -> str:
    """Return a straight stroke; along x in shares of the width, along y in pixels (or ``"100%"``)."""
    return f'<line x1="{100 * x1:.2f}%" y1="{y1:.1f}" x2="{100 * x2:.2f}%" y2="{_along_y(y2)}" class="{look}"/>'


def stretched(height: float, paths: str, y: float = 0) -> str:
    """Return paths whose x runs from 0 to 1,000 over the width, whatever that is; ``paths`` are elements."""
    return f'<svg y="{y:g}" width="100%" height="{height:g}" viewBox="0 0 1000 {height:g}" preserveAspectRatio="none">{paths}</svg>'


def frame(key: str, title: str, description: str, height: float, body: str, *, look: str = "plot") -> str:
    """Return a chart: one image to a screen reader, with its name and what it shows in words (both plain text)."""
    return (
        f'<div class="{look}"><svg role="img" aria-labelledby="{key}-t {key}-d" width="100%" height="{height:g}">'
        f'<title id="{key}-t">{escaped(title)}</title><desc id="{key}-d">{escaped(description)}</desc>{body}</svg></div>'
    )


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], key: str) -> str:
    """Return a table that scrolls within itself; cells are HTML, the first of a row heads it, the others are figures."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in heads)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>" for row in rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-labelledby="{key}"><table><caption id="{key}">{caption}'
        f"</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def details(summary: str, content: str) -> str:
    """Return what is shown when asked for."""
    return f"<details><summary>{summary}</summary>{content}</details>"


def _along_y(y: float | str) -> str:
    return y if isinstance(y, str) else f"{y:.1f}"
