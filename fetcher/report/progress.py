"""What a run is doing: a live line on a terminal, a line now and then elsewhere, and a table of what is in flight."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import NamedTuple, Self

from fetcher.hosts.standing import HostStanding
from fetcher.report.live_line import LiveLine
from fetcher.report.rate import RateMeter
from fetcher.report.summary import human_seconds
from fetcher.request_state import InFlight
from fetcher.stats import Stats, counted
from fetcher.terminal import Colour, has_colour, paint, printable

__all__ = ["Progress", "ProgressLine", "clock", "describe_in_flight", "describe_wait"]

DRAW_SECONDS = 0.1  # between two drawings on a terminal
FIRST_LINE_SECONDS = 1.0  # to the first line elsewhere
LINE_SECONDS = 10.0  # between two lines then
LOOK_SECONDS = 1.0  # between two looks for the host that holds up the end
RATE_SECONDS = 5.0  # the rate that is shown is the mean of so long
PACE_SECONDS = 30.0  # and the time left is told by the mean of so long: it would jump by the other
HELD_UP_SECONDS = 3.0  # that a host must take for being named
MOST_BAR, LEAST_BAR = 30, 8  # columns
GAP = "  "


class Piece(NamedTuple):
    """A piece of a line: where not all have place, the one with the lowest ``worth`` goes first."""

    text: str
    worth: int
    colour: Colour = ""


class ProgressLine:
    """Makes the lines of what it was told last. ``total`` is about how many rows there are, if that is known."""

    def __init__(self, total: int | None, began: float, done: int = 0) -> None:
        self._total = total
        self._began = began
        self._rate = RateMeter(RATE_SECONDS)
        self._pace = RateMeter(PACE_SECONDS)
        self.stats = Stats()
        self.busy = 0
        self.now = began
        self.slowest: HostStanding | None = None
        self._rate.note(began, done)
        self._pace.note(began, done)

    def note(self, now: float, stats: Stats, busy: int) -> None:
        """Take over how it stands at the time ``now``."""
        self.now, self.stats, self.busy = now, stats, busy
        self._rate.note(now, stats.done)
        self._pace.note(now, stats.done)

    @property
    def rate(self) -> float | None:
        """Rows per second over the last seconds, ``None`` while that cannot be told."""
        return self._rate.rate

    @property
    def rows(self) -> int | None:
        """How many rows there are in all, as far as known."""
        return self._total if self.stats.more else self.stats.input

    @property
    def left(self) -> float | None:
        """Seconds that are left, by the pace of the last half minute, at least those of the slowest host."""
        rows, pace = self.rows, self._pace.rate
        if rows is None or rows < self.stats.done:
            return None
        held = self.slowest.seconds if self.slowest is not None else 0.0
        left = rows - self.stats.done
        if not left:
            return 0.0
        if not pace:
            return held or None
        return max(left / pace, held)

    @property
    def held_up_by(self) -> HostStanding | None:
        """The host for which all will wait in the end, if it is one: by its pauses, or because it has no free slot."""
        host, rows, pace = self.slowest, self.rows, self._pace.rate
        if host is None:
            return None
        left = (rows - self.stats.done) if rows is not None else None
        alone = left is not None and not self.stats.more and 2 * host.left > left
        others = left / pace if left is not None and pace else 0.0
        if host.seconds >= HELD_UP_SECONDS:
            return host if alone or host.seconds >= others else None
        full = host.limit is not None and host.on_wire is not None and host.on_wire >= host.limit
        return host if alone and full and host.waiting and others >= HELD_UP_SECONDS else None

    def as_lines(self, columns: int, *, coloured: bool = False) -> list[str]:
        """Return a line of at most so many columns, and a second one where a host holds up the end."""
        lines = [fit(self._pieces(), columns, coloured=coloured, share=self._share)]
        if (host := self.held_up_by) is not None:
            lines.append(_cut(describe_wait(host), columns))
        return lines

    @property
    def _share(self) -> float | None:
        rows = self.rows
        return min(1.0, self.stats.done / rows) if rows else None

    def _pieces(self) -> list[Piece]:
        stats, rows, left = self.stats, self.rows, self.left
        total = "?" if rows is None else f"{'~' if stats.more else ''}{rows:,}"
        pieces = [
            Piece(f"{stats.done:,}/{total}", 9),
            Piece(f"{stats.ok:,} ok", 5, "green"),
            Piece(f"{stats.failed:,} failed", 6, "red" if stats.failed else ""),
        ]
        if stats.skipped:
            pieces.append(Piece(f"{stats.skipped:,} skipped", 4, "yellow"))
        pieces += [
            Piece(f"{self.busy:,} in flight", 1),
            Piece("- pages/s" if self.rate is None else f"{self.rate:,.0f} pages/s", 2),
            Piece(f"{clock(self.now - self._began)} elapsed", 3),
        ]
        if rows is not None:
            pieces.append(Piece(f"{'-:--' if left is None else clock(left)} left", 8))
        return pieces

    def as_text(self) -> str:
        """Return the same as a line for a log."""
        stats, total = self.stats, self.rows
        about = "about " if stats.more else ""
        rows = counted(stats.done, "row") if total is None else f"{stats.done:,} of {about}{counted(total, 'row')}"
        skipped = f", {stats.skipped:,} skipped" if stats.skipped else ""
        left = f", about {human_seconds(self.left)} left" if self.left else ""
        text = (
            f"{rows}: {stats.ok:,} ok, {stats.failed:,} failed{skipped}, "
            f"{self.busy:,} in flight, {self.rate or 0:,.0f} pages/s{left}"
        )
        return text if (host := self.held_up_by) is None else f"{text}; {describe_wait(host)}"


def fit(pieces: Sequence[Piece], columns: int, *, coloured: bool = False, share: float | None = None) -> str:
    """Return the pieces that have place on one line, a bar before them where there is place for all and it."""
    kept = list(pieces)
    while _width(kept) > columns and min(piece.worth for piece in kept) < 8:
        kept.remove(min(kept, key=lambda piece: piece.worth))
    if _width(kept) > columns:  # the count and the time left alone
        if share is None:
            kept = kept[:1]
        else:
            count, *rest = kept
            short = [Piece(count.text.replace(",", ""), 9), *rest]
            kept = short if _width(short) <= columns else [Piece(f"{share:.0%}", 9), *rest]
    line = GAP.join(paint(piece.text, piece.colour if coloured else "") for piece in kept)
    if _width(kept) > columns:
        return _cut(GAP.join(piece.text for piece in kept), columns)
    room = columns - _width(kept) - len(GAP)
    if share is None or len(kept) < len(pieces) or room < LEAST_BAR:
        return line
    return f"{_bar(share, min(MOST_BAR, room), coloured=coloured)}{GAP}{line}"


def _width(pieces: Sequence[Piece]) -> int:
    return sum(len(piece.text) for piece in pieces) + len(GAP) * (len(pieces) - 1)


def _bar(share: float, columns: int, *, coloured: bool) -> str:
    done = int(share * columns)
    full, rest = ("━" * done, "─" * (columns - done)) if _speaks_unicode() else ("#" * done, "-" * (columns - done))
    return paint(full, "cyan" if coloured and done else "") + rest


def _speaks_unicode() -> bool:
    return (getattr(sys.stderr, "encoding", None) or "").lower().replace("-", "") == "utf8"


def _cut(text: str, columns: int) -> str:
    return text if len(text) <= columns else text[: max(0, columns - 1)] + "…"[:columns]


def clock(seconds: float) -> str:
    """Return a time as clocks have it.

    >>> clock(3725.4)
    '1:02:05'
    """
    whole = int(max(0.0, seconds) + 0.5)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def describe_wait(host: HostStanding) -> str:
    """Return what the end waits for: a host, its rows, and what stands between two of them."""
    delay = host.delay or 0.0
    facts = [counted(host.left, "row")]
    if delay:
        facts.append(f"one every {delay:.3g} s")
    if host.parked > max(1.0, delay):
        facts.append(f"parked for {human_seconds(host.parked)}")
    if len(facts) == 1 and host.limit is not None:
        facts.append(f"{host.limit} at once")
    return f"waiting for {printable(host.host, 200)}: {', '.join(facts)}"


class Progress:
    """Shows how far a run is: a live line on the terminal where ``tell`` is ``None``, else lines that go to ``tell``.

    ``stats`` returns the counts, ``busy`` the number of requests in flight, ``standings`` the hosts that will be the
    last, at most so many. The live line leaves nothing on the terminal.
    """

    def __init__(
        self,
        stats: Callable[[], Stats],
        busy: Callable[[], int],
        total: int | None,
        *,
        tell: Callable[..., None] | None = None,
        standings: Callable[[int], Sequence[HostStanding]] = lambda _: (),
    ) -> None:
        self._stats = stats
        self._busy = busy
        self._tell = tell
        self._standings = standings
        self._line = ProgressLine(total, time.monotonic(), stats().done)
        self._live: LiveLine | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._tell is None:
            coloured = has_colour(sys.stderr)
            self._live = LiveLine(lambda columns: self._line.as_lines(columns, coloured=coloured))
            self._live.start()
            self._watch_size(on=True)
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._watch_size(on=False)
        self.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.result()

    def clear(self) -> None:
        """Take the line off the terminal and give the cursor back. Harmless twice."""
        if self._live is not None:
            self._live.stop()

    def _watch_size(self, *, on: bool) -> None:
        """Draw anew at once when the terminal's size changes."""
        loop = asyncio.get_running_loop()
        number = getattr(signal, "SIGWINCH", None)
        if number is None or self._live is None:
            return
        # Not in a thread, and not on Windows: then the next drawing sees the new size.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            if on:
                loop.add_signal_handler(number, self._live.draw)
            else:
                loop.remove_signal_handler(number)

    async def _run(self) -> None:
        line, looked = self._line, 0.0
        pause = DRAW_SECONDS if self._tell is None else FIRST_LINE_SECONDS
        while True:
            await asyncio.sleep(pause)
            now = time.monotonic()
            line.note(now, self._stats(), self._busy())
            if now - looked >= LOOK_SECONDS:
                line.slowest, looked = next(iter(self._standings(1)), None), now
            if self._live is not None:
                self._live.draw()
            elif self._tell is not None:
                stats = line.stats
                facts = {"done": stats.done, "ok": stats.ok, "failed": stats.failed, "skipped": stats.skipped}
                self._tell(line.as_text(), **facts, pages_per_second=round(line.rate or 0.0, 1))
                pause = LINE_SECONDS


def describe_in_flight(rows: Sequence[InFlight], most: int = 200) -> str:
    """Return a table of the running requests for a terminal, the oldest first, at most ``most``; URLs are escaped."""
    stages = Counter(row.stage for row in rows)
    lines = [f"in flight: {len(rows)} " + ", ".join(f"{stage} {n}" for stage, n in stages.most_common())]
    lines += [
        f"{row.age:8.2f} s  {row.stage:<18} {row.in_stage:7.2f} s  row {row.id}  {printable(row.url, 200)}"
        for row in sorted(rows, key=lambda row: -row.age)[:most]
    ]
    if len(rows) > most:
        lines.append(f"… and {len(rows) - most} more")
    return "\n".join(lines)
