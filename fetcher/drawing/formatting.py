"""How reports write figures, times, sizes and dates, as text and in HTML.

Laws: what is unknown is ``–``, never zero and never an error (nothing is divided here, and no NaN is shown). Law 7:
text from a list, a server or a command line is put into a page through ``escaped`` and in no other way. Figures and
units are joined by no-break spaces; ``plain`` makes ordinary ones of them for a terminal.
"""

from __future__ import annotations

import html
import math
import re

from fetcher.terminal import printable

__all__ = [
    "UNKNOWN",
    "counted",
    "duration",
    "escaped",
    "html_date",
    "multiple",
    "percent",
    "plain",
    "significant",
    "size",
    "tick",
]

UNKNOWN = "–"
_ISO = re.compile(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d(?::\d\d)?)(?:\.\d+)?(?:Z|\+00:00)$", re.ASCII)
_NONCHARACTERS = re.compile("[\ufdd0-\ufdef\ufffe\uffff]")


def escaped(text: str, limit: int = 2_000) -> str:
    """Return ``text`` for HTML, attributes included: control characters written out, at most ``limit`` characters.

    Noncharacters, which are a parse error in HTML, become U+FFFD.
    """
    return html.escape(_NONCHARACTERS.sub("\ufffd", printable(text, limit)))


def significant(value: float | None) -> str:
    """Return a figure with three digits, or with all digits before the point: ``0.984``, ``46.2``, ``1,234``."""
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
    """Return a time with its unit: ``312 ms``, ``14.3 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 0.9995:
        return f"{significant(seconds * 1000)}\xa0ms"
    if seconds < 99.95:
        return f"{significant(seconds)}\xa0s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60:,}\xa0h\xa0{minutes % 60:02}\xa0min"
    return f"{minutes}\xa0min\xa0{rest:02}\xa0s"


def tick(seconds: float) -> str:
    """Return a round time as an axis label: ``0``, ``40 ms``, ``1.5 s``."""
    if seconds == 0:
        return "0"
    return f"{seconds * 1000:.4g}\xa0ms" if seconds < 0.9995 else f"{seconds:,.6g}\xa0s"


def size(bytes_: float | None) -> str:
    """Return a size with its unit: ``58.1 MB``."""
    if bytes_ is None or not math.isfinite(bytes_):
        return UNKNOWN
    for unit in ("bytes", "kB", "MB", "GB"):
        if bytes_ < 999.5:
            return f"{significant(bytes_)}\xa0{unit}"
        bytes_ /= 1000
    return f"{significant(bytes_)}\xa0TB"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 page``, ``1,200 pages``."""
    return f"{number:,}\xa0{noun}{'' if number == 1 else 's'}"


def plain(text: str) -> str:
    """Return ``text`` with ordinary spaces instead of no-break spaces."""
    return text.replace("\xa0", " ")


def html_date(date: str) -> str:
    """Return an ISO 8601 time for HTML as ``2026-11-21 09:33:50 UTC``; any other text escaped, as it is."""
    return escaped(_ISO.sub(r"\1 \2 UTC", date), 60)


def _with(value: float | None, text: str, unit: str) -> str:
    return text if value is None or not math.isfinite(value) else text + unit
