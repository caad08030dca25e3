"""A run in figures: the summary for people, and the same as JSON. Law 1: the books stand in both."""

from __future__ import annotations

from typing import Any

import msgspec

from fetcher.books import Books

__all__ = ["Summary", "human_bytes", "human_seconds", "summarize"]


class Summary(msgspec.Struct, frozen=True):
    """The final counts: ``input = ok + failed + skipped + pending``; ``more`` rows were never read.

    ``seconds`` is the wall time of this run, ``bytes`` the decoded bodies, ``codes`` the failures by code, most first;
    ``earlier`` of the pages were there before this run.
    """

    input: int
    ok: int
    failed: int
    skipped: int
    pending: int
    more: bool
    bytes: int
    seconds: float
    pages_per_second: float
    codes: dict[str, int]
    earlier: int = 0
    exit: int | None = None

    def as_text(self) -> str:
        """Return one or two lines for people."""
        rest = f" + {self.pending:,} pending" if self.pending else ""
        text = (
            f"{self.input:,} row{'' if self.input == 1 else 's'}{' and more' if self.more else ''} = {self.ok:,} ok + {self.failed:,} failed"
            f" + {self.skipped:,} skipped{rest}, in {human_seconds(self.seconds)}"
            f" ({self.pages_per_second:,.0f} pages/s, {human_bytes(self.bytes)})"
        )
        if self.earlier:
            text += f", {self.earlier:,} of the pages by earlier runs"
        if self.codes:
            text += "\n  " + " · ".join(f"{code} {count:,}" for code, count in self.codes.items())
        return text

    def as_json(self) -> str:
        """Return the same as one indented JSON object."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode() + "\n"


def summarize(books: Books, seconds: float, *, earlier: int = 0, **more: Any) -> Summary:
    """Close the books of a run that took ``seconds``; ``earlier`` pages were in them when it began."""
    return Summary(
        input=books.input,
        ok=books.ok,
        failed=books.failed,
        skipped=books.skipped,
        pending=books.pending,
        more=books.more,
        bytes=books.bytes,
        seconds=round(seconds, 3),
        pages_per_second=round((books.ok - earlier) / seconds, 1) if seconds > 0 else 0.0,
        earlier=earlier,
        codes=dict(books.codes.most_common()),
        **more,
    )


def human_bytes(size: float) -> str:
    """Return a size with its unit: ``3.1 MB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def human_seconds(seconds: float) -> str:
    """Return a duration: ``1.9 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"
