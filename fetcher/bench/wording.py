"""How a bench's figures and names are put into words: for pages, where every text is hostile until escaped.

Laws: what is not known is ``–``, never a zero and never an error (no division here, no NaN shown). Law 7: text that
came from a list, a server or a command line goes through ``escaped`` and nothing else.
"""

from __future__ import annotations

import html
import math
import re

from fetcher.bench.results import Mode, Spread
from fetcher.sinks.escape import printable

__all__ = [
    "UNKNOWN",
    "counted",
    "duration",
    "escaped",
    "labelled",
    "moment",
    "multiple",
    "percent",
    "significant",
    "size",
    "spread",
    "tick",
]

UNKNOWN = "–"
_ISO = re.compile(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d(?::\d\d)?)(?:\.\d+)?(?:Z|\+00:00)$", re.ASCII)
_NO_CHARACTER = re.compile("[\ufdd0-\ufdef\ufffe\uffff]")


def escaped(text: str, limit: int = 2_000) -> str:
    """Return ``text`` for HTML, attributes included: steering characters spelled out, at most ``limit`` characters.

    Noncharacters, which HTML calls a parse error, become U+FFFD.
    """
    return html.escape(_NO_CHARACTER.sub("\ufffd", printable(text, limit)))


def significant(value: float | None) -> str:
    """Return a figure with three digits, or all of those before the point: ``0.984``, ``46.2``, ``1,234``."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    if abs(rounded) >= 1_000:
        return f"{value:,.0f}"
    decimals = max(0, min(6, 2 - math.floor(math.log10(abs(rounded)))))
    return f"{rounded:.{decimals}f}"


def multiple(value: float | None) -> str:
    """Return how many times as fast: ``46.2×``."""
    return _with(value, significant(value), "×")


def percent(share: float | None) -> str:
    """Return a share in per cent, with one decimal: ``94.6 %``."""
    return UNKNOWN if share is None or not math.isfinite(share) else f"{share * 100:.1f}\xa0%"


def duration(seconds: float | None) -> str:
    """Return a time in its unit: ``312 ms``, ``14.3 s``, ``3 min 20 s``."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 0.9995:
        return f"{significant(seconds * 1000)}\xa0ms"
    if seconds < 99.95:
        return f"{significant(seconds)}\xa0s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:,}\xa0min\xa0{rest:02}\xa0s"


def tick(seconds: float) -> str:
    """Return a round time, as an axis is labelled with: ``0``, ``40 ms``, ``1.5 s``."""
    if seconds == 0:
        return "0"
    return f"{seconds * 1000:.4g}\xa0ms" if seconds < 0.9995 else f"{seconds:,.6g}\xa0s"


def size(bytes_: float | None) -> str:
    """Return a size in its unit: ``58.1 MB``."""
    if bytes_ is None or not math.isfinite(bytes_):
        return UNKNOWN
    for unit in ("bytes", "kB", "MB", "GB"):
        if bytes_ < 999.5:
            return f"{significant(bytes_)}\xa0{unit}"
        bytes_ /= 1000
    return f"{significant(bytes_)}\xa0TB"


def spread(value: Spread | None, words: str = "seconds") -> tuple[str, str]:
    """Return a median and its range, empty where there is none: ``46.2×`` and ``45.1–47.0×``.

    ``words`` says what the figure is: ``seconds`` or ``times``.
    """
    if value is None:
        return UNKNOWN, ""
    say = duration if words == "seconds" else multiple
    low, high = say(value.low), say(value.high)
    if low == high:
        return say(value.median), ""
    unit = high.lstrip("0123456789.,")
    return say(value.median), f"{low.removesuffix(unit)}–{high}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 page``, ``1,200 pages``."""
    return f"{number:,}\xa0{noun}{'' if number == 1 else 's'}"


def labelled(mode: Mode) -> str:
    """Return what a mode is called: ``one after another``, ``50 at once``."""
    return "one after another" if mode.mode == "sequential" else f"{mode.concurrency:,} at once"


def moment(date: str) -> str:
    """Return an ISO 8601 date and time for HTML, as people write it: ``2026-11-21 09:33:50 UTC``; else what it is."""
    return escaped(_ISO.sub(r"\1 \2 UTC", date), 60)


def _with(value: float | None, text: str, unit: str) -> str:
    return text if value is None or not math.isfinite(value) else text + unit
