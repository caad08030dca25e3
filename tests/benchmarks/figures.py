"""Owns a figure of a benchmark: what was measured, and what is asked of it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Asked", "Figure", "at_least", "at_most"]


@dataclass(frozen=True)
class Asked:
    """The bounds a figure must lie in."""

    low: float
    high: float
    words: str


@dataclass(frozen=True)
class Figure:
    """A value by its name, with its unit; one of which nothing is ``asked`` is there to be read."""

    name: str
    value: float
    unit: str = ""
    asked: Asked | None = None

    @property
    def holds(self) -> bool:
        """Whether it is as asked."""
        return self.asked is None or self.asked.low <= self.value <= self.asked.high

    def __str__(self) -> str:
        value = f"{self.value:.0f}" if float(self.value).is_integer() else f"{self.value:.3f}"
        asked = "" if self.asked is None else f"{self.asked.words}: {'ok' if self.holds else 'NOT MET'}"
        return f"{self.name:<60} {value + self.unit:<28} {asked}".rstrip()


def at_least(low: float) -> Asked:
    """Ask for no less."""
    return Asked(low, float("inf"), f"at least {low:g}")


def at_most(high: float) -> Asked:
    """Ask for no more."""
    return Asked(float("-inf"), high, f"at most {high:g}")
