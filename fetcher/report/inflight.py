"""What is running right now, as a table: every request with its stage and age, the oldest first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fetcher.request_state import InFlight
from fetcher.sinks.escape import printable

__all__ = ["describe"]


def describe(rows: Sequence[InFlight], most: int = 200) -> str:
    """Return the table for a terminal; URLs are escaped, and of very many rows the oldest ``most`` are shown."""
    stages = Counter(row.stage for row in rows)
    lines = [f"in flight: {len(rows)} " + ", ".join(f"{stage} {n}" for stage, n in stages.most_common())]
    lines += [
        f"{row.age:8.2f} s  {row.stage:<18} {row.in_stage:7.2f} s  row {row.id}  {printable(row.url, 200)}"
        for row in sorted(rows, key=lambda row: -row.age)[:most]
    ]
    if len(rows) > most:
        lines.append(f"… and {len(rows) - most} more")
    return "\n".join(lines)
