"""The charts of a job's page: its pace with its kills and resumes, and how times, sizes and numbers are distributed.

Laws: strips are labelled in place, and every chart has the same figures as a table. What is not known is not drawn.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeAlias

from fetcher.drawing.formatting import UNKNOWN, duration, escaped, significant, size, tick
from fetcher.drawing.svg import (
    Scale,
    axis_label,
    chart,
    details,
    label,
    line,
    spaced,
    steps,
    stretched,
    table,
    thinned_ticks,
)
from fetcher.job.report import JobReport, RunReport
from fetcher.report.distributions import Distribution, histogram
from fetcher.report.job_page import JobPage

__all__ = ["draw_latency", "draw_life", "draw_numbers", "draw_sizes", "ending_of", "quantile_text"]

STRIP = 58.0
SMALL = 34.0
BINS = 160
TABLE_PARTS = 10
SHOWN_RUNS = 200
Curve: TypeAlias = tuple[list[float], list[tuple[int, int, int]]]
"""Seconds at work, and what was done by then: pages, failures, and requests on the wire just then."""


def ending_of(run: RunReport, figures: JobReport) -> str:
    """Return how a run ended, in a word or two."""
    if not run.clean:
        return "running" if figures.state == "running" and run is figures.runs[-1] else "killed"
    return "ended" if run.exit is None else f"exit {run.exit}"


# The life of a job


def draw_life(jobs: Sequence[tuple[str, JobPage]]) -> str:
    """Return pages a second over the time at work of each job, with marks where it was killed, stopped and gone on with."""
    body, y, tables = "", 0.0, ""
    said = []
    for number, (name, page) in enumerate(jobs):
        if page.pace is None or page.figures.seconds <= 0:
            continue
        drawn, height, text, listed = _life_of(name if len(jobs) > 1 else "", page, number)
        body += f'<svg y="{y:g}" width="100%" height="{height:g}">{drawn}</svg>'
        y += height + 10
        said.append(text)
        tables += listed
    if not body:
        return ""
    plot = chart("life", "Pages a second over the time at work", "; ".join(said), y, body)
    return plot + details("The pace as a table", tables)


def _life_of(name: str, page: JobPage, number: int) -> tuple[str, float, str, str]:
    """Return one job's strips, how high they are, what is said of them, and a table."""
    figures = page.figures
    shown = figures.runs[-SHOWN_RUNS:]
    seconds = sum(run.seconds for run in shown)
    curve = _curve(page, shown)
    rates = _rates(curve, seconds, BINS)
    top = max([ok for ok, _, _ in rates], default=0.0) or 1.0
    body = label(0, 14, name, css="name") if name else label(0, 14, "pages/s", css="name")
    body += label(
        1,
        14,
        f"at most {significant(top)}/s, {significant(figures.pages_per_second)}/s on average",
        anchor="end",
        css="tick",
    )
    y = 24.0
    body += _strip([ok / top for ok, _, _ in rates], "concurrent", STRIP, y)
    y += STRIP
    for index, title, css in ((1, "failures/s", "failed"), (2, "on the wire", "sequential")):
        most = max([rate[index] for rate in rates], default=0.0)
        if most > 0:
            body += label(0, y + 20, title, css="tick") + label(
                1, y + 20, f"at most {significant(most)}", anchor="end", css="tick"
            )
            body += _strip([rate[index] / most for rate in rates], css, SMALL, y + 26)
            y += 26 + SMALL
    body += _marks(shown, figures, seconds, y)
    scale = Scale(0.0, seconds or 1.0)
    for value in thinned_ticks(scale):
        body += axis_label(scale.at(value), y + 38, _clock(value))
    text = f"{name or 'the job'}: {significant(figures.pages_per_second)} pages a second in {duration(seconds)} of work"
    return body, y + 42, text, _life_table(name, curve, seconds, number)


def _strip(heights: Sequence[float], css: str, height: float, y: float) -> str:
    return stretched(height, steps(heights, css, height), y=y) + line(0, y + height, 1, y + height, "axis")


def _curve(page: JobPage, shown: Sequence[RunReport]) -> Curve:
    """Return what was done by which second at work, all runs behind one another."""
    starts: dict[int, float] = {}
    at = 0.0
    for run in shown:
        starts[run.number] = at
        at += run.seconds
    moments, values = [0.0], [(0, 0, 0)]
    before = (0, 0)
    run_now: int | None = None
    for row in page.pace or ():
        if row.run not in starts:
            continue
        if row.run != run_now:
            before = values[-1][:2]
            run_now = row.run
        moment = max(moments[-1], starts[row.run] + row.seconds)
        moments.append(moment)
        values.append((before[0] + row.ok, before[1] + row.failed, row.on_wire))
    return moments, values


def _rates(curve: Curve, seconds: float, bins: int) -> list[tuple[float, float, float]]:
    """Return pages a second, failures a second and requests on the wire, in even parts of the time."""
    width = (seconds or 1.0) / bins
    at = [_at(curve, part * width) for part in range(bins + 1)]
    return [
        (max(0.0, (after[0] - before[0]) / width), max(0.0, (after[1] - before[1]) / width), after[2])
        for before, after in pairwise(at)
    ]


def _at(curve: Curve, moment: float) -> tuple[float, float, float]:
    moments, values = curve
    place = bisect_right(moments, moment)
    if place >= len(moments):
        ok, failed, _ = values[-1]
        return ok, failed, values[-1][2] if moment <= moments[-1] else 0.0
    (ok, failed, _), after = values[place - 1], values[place]
    span = moments[place] - moments[place - 1]
    share = (moment - moments[place - 1]) / span if span > 0 else 0.0
    return ok + share * (after[0] - ok), failed + share * (after[1] - failed), after[2]


def _marks(runs: Sequence[RunReport], figures: JobReport, seconds: float, y: float) -> str:
    """Draw a line where a run ended and another began, with a word where there is room."""
    body, at, places = "", 0.0, []
    for run in runs[:-1]:
        at += run.seconds
        places.append((min(1.0, at / seconds) if seconds > 0 else 0.0, ending_of(run, figures)))
    if runs and (word := ending_of(runs[-1], figures)) in ("killed", "running"):
        places.append((1.0, word))
    for (place, word), written in zip(places, spaced((place for place, _ in places), 0.16), strict=True):
        body += line(place, 20, place, y + 6, "kill" if word == "killed" else "stop")
        if written:
            body += axis_label(place, y + 20, word)
    return body


def _clock(seconds: float) -> str:
    return tick(seconds) if seconds < 100 else duration(seconds)


def _life_table(name: str, curve: Curve, seconds: float, number: int) -> str:
    heads = ["Part of the time", "Pages/s", "Failures/s", "On the wire"]
    width = 100 // TABLE_PARTS
    rows = [
        [f"{width * part} to {width * (part + 1)}\xa0%", significant(ok), significant(failed), significant(wire)]
        for part, (ok, failed, wire) in enumerate(_rates(curve, seconds, TABLE_PARTS))
    ]
    of = f"{escaped(name, 100)}: " if name else ""
    return table(f"{of}by tenths of {duration(seconds)} at work", heads, rows, f"life-table-{number}")


# Distributions


def draw_latency(jobs: Sequence[tuple[str, JobPage]]) -> str:
    """Return a histogram of the seconds on the wire of pages, and of what failed after a try."""
    found = [
        (f"{name}{what}", css, dist)
        for name, page in jobs
        for what, css, dist in (
            ("pages" if len(jobs) == 1 else "", "concurrent", page.latency),
            ("failures" if len(jobs) == 1 else ", failures", "failed", page.failed_latency),
        )
        if dist.count
    ]
    return _draw_strips(
        "latency",
        "Seconds on the wire of a row, all its tries together",
        found,
        lambda ms: tick(ms / 1000),
        lambda ms: duration(ms / 1000),
    )


def draw_sizes(jobs: Sequence[tuple[str, JobPage]]) -> str:
    """Return a histogram of the sizes of pages."""
    found = [(name if len(jobs) > 1 else "pages", "concurrent", page.sizes) for name, page in jobs if page.sizes.count]
    return _draw_strips("sizes", "Bytes of a page, its content coding undone", found, size, size)


def _draw_strips(
    key: str,
    title: str,
    found: Sequence[tuple[str, str, Distribution]],
    write_tick: Callable[[float], str],
    write: Callable[[float], str],
) -> str:
    """Return distributions on one axis, with the lines of p50, p95 and p99, and as a table."""
    if not found:
        return ""
    whole = Distribution()
    for _, _, each in found:
        whole = whole + each
    scale, body, y, rows = whole.scale, "", 0.0, []
    for name, css, each in found:
        counts = each.bins(scale, 60)
        quantiles = [
            (short, value)
            for short, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
            if (value := each.quantile(share)) is not None
        ]
        names = [f"{short} {write(value)}" for short, value in quantiles]
        body += label(0, y + 14, f"{name} ({each.count:,})".strip(), css="name halo")
        body += label(1, y + 14, " · ".join(names), anchor="end", css="tick halo roomy")
        body += label(1, y + 14, names[0], anchor="end", css="tick halo tight")
        body += stretched(46, steps([count / max(counts) for count in counts], css, 46), y=y + 22)
        for short, value in quantiles:
            body += line(scale.at(value), y + 20, scale.at(value), y + 68, f"mark {short}")
        y += 80
        rows.append(
            [
                escaped(name, 100),
                f"{each.count:,}",
                write(each.steps[0][0]),
                *(write(value) for _, value in quantiles),
                write(each.steps[-1][0]),
            ]
        )
    for value in thinned_ticks(scale):
        place = scale.at(value)
        body = line(place, 0, place, y - 4, "grid") + body
        body += axis_label(place, y + 14, write_tick(value))
    said = "; ".join(f"{name}: half within {write(each.quantile(0.5) or 0.0)}" for name, _, each in found)
    plot = chart(key, title, said, y + 20, body)
    heads = ["", "Rows", "Least", "p50", "p95", "p99", "Most"]
    return plot + details("As a table", table(title, heads, rows, f"{key}-table"))


def draw_numbers(key: str, name: str, values: Sequence[float]) -> str:
    """Return a small histogram of a column's numbers (``name`` is plain text)."""
    counts, low, high = histogram(values, 30)
    top = max(counts)
    body = _strip([count / top for count in counts], "concurrent", SMALL, 4)
    body += label(0, SMALL + 20, significant(low), css="tick")
    body += label(1, SMALL + 20, significant(high), anchor="end", css="tick")
    middle = sorted(values)[len(values) // 2]
    place = (middle - low) / (high - low) if high > low else 0.0
    body += line(place, 2, place, 4 + SMALL, "mark p50")
    return chart(key, f"{name}: its numbers", f"half are up to {significant(middle)}", SMALL + 26, body)


def quantile_text(dist: Distribution, share: float) -> str:
    """Return a quantile of milliseconds as a time."""
    value = dist.quantile(share)
    return UNKNOWN if value is None else duration(value / 1000)
