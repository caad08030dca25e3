"""How the reports of a bench write ranges and the names of modes, as text and in HTML."""

from __future__ import annotations

from fetcher.bench.results import Spread
from fetcher.drawing.formatting import UNKNOWN, duration, multiple

__all__ = ["mode_flag", "mode_label", "spread"]


def spread(value: Spread | None, unit: str = "seconds") -> tuple[str, str]:
    """Return a median and its range, empty where there is none: ``46.2×`` and ``45.1–47.0×``.

    ``unit`` is ``seconds`` or ``times``.
    """
    if value is None:
        return UNKNOWN, ""
    write = duration if unit == "seconds" else multiple
    low, high = write(value.low), write(value.high)
    if low == high:
        return write(value.median), ""
    suffix = high.lstrip("0123456789.,")
    return write(value.median), f"{low.removesuffix(suffix)}–{high}"


def mode_label(mode: str, concurrency: int) -> str:
    """Return what a page calls a mode: ``one after another``, ``50 at once``."""
    return "one after another" if mode == "sequential" else f"{concurrency:,} at once"


def mode_flag(mode: str, concurrency: int) -> str:
    """Return what messages call a mode, by its flag: ``sequential``, ``-c 50``."""
    return "sequential" if mode == "sequential" else f"-c {concurrency}"
