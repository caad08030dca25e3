"""The line of a run: what has place on it, what goes first, and what it says about the end."""

from __future__ import annotations

import re

import msgspec
import pytest

from fetcher.config import Limits, RetryPolicy
from fetcher.hosts.limits import SharedLimits
from fetcher.hosts.standing import HostStanding, standing_of, standings_of
from fetcher.hosts.table import HostTable
from fetcher.report.live_line import LiveLine
from fetcher.report.progress import ProgressLine, clock
from fetcher.stats import Stats
from tests.lab.terminal import Screen
from tests.test_frontier import row, world_of

SGR = re.compile(r"\x1b\[[0-9;]*m")


def stats_of(ok: int, failed: int = 0, skipped: int = 0, *, listed: int, more: bool = False) -> Stats:
    stats = Stats()
    stats.ok, stats.failed, stats.skipped, stats.input, stats.more = ok, failed, skipped, listed, more
    return stats


def line_of(ok: int = 1_199, failed: int = 7, *, listed: int = 2_000, seconds: float = 12.0) -> ProgressLine:
    line = ProgressLine(listed, 0.0)
    line.note(seconds, stats_of(ok, failed, listed=listed), 100)
    return line


@pytest.mark.parametrize("columns", range(1, 220))
def test_it_is_as_wide_as_it_may_be_and_never_wider(columns: int) -> None:
    for line in (line_of(), line_of(1_234_567, 89_012, listed=9_876_543, seconds=40_000)):
        line.slowest = HostStanding("a-rather-long-name.example.com", 212, delay=50_000.0)
        for coloured in (False, True):
            shown = line.as_lines(columns, coloured=coloured)
            assert len(shown) == 2
            assert all(len(SGR.sub("", each)) <= columns for each in shown)
            assert bool(SGR.search("".join(shown))) <= coloured


def test_all_of_it_where_there_is_place() -> None:
    (text,) = line_of().as_lines(120)
    assert text.endswith("  1,206/2,000  1,199 ok  7 failed  100 in flight  100 pages/s  0:12 elapsed  0:08 left")
    assert re.match("[━#]+[─-]+  ", text)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (80, "1,206/2,000  1,199 ok  7 failed  100 pages/s  0:12 elapsed  0:08 left"),
        (60, "1,206/2,000  1,199 ok  7 failed  0:12 elapsed  0:08 left"),
        (50, "1,206/2,000  1,199 ok  7 failed  0:08 left"),
        (35, "1,206/2,000  7 failed  0:08 left"),
        (25, "1,206/2,000  0:08 left"),
        (20, "1206/2000  0:08 left"),
        (15, "60%  0:08 left"),
        (8, "60%  0:…"),
        (1, "…"),
    ],
)  # fmt: skip
def test_the_rate_goes_before_the_count_and_the_time_left(columns: int, expected: str) -> None:
    assert line_of().as_lines(columns) == [expected]


def test_a_total_that_is_a_guess_or_unknown() -> None:
    line = ProgressLine(2_000, 0.0)
    line.note(2.0, stats_of(10, listed=100, more=True), 5)
    assert "10/~2,000  " in line.as_lines(200)[0]
    assert "about 2,000 rows" in line.as_text()
    line = ProgressLine(None, 0.0)
    line.note(2.0, stats_of(10, listed=100, more=True), 5)
    assert "10/?  " in line.as_lines(200)[0]
    assert " left" not in line.as_lines(200)[0]
    line.note(2.1, stats_of(10, listed=100), 5)
    assert "10/100  " in line.as_lines(200)[0], "the list has come to its end"


def test_before_anything_came_the_time_left_is_open() -> None:
    line = ProgressLine(100, 0.0)
    line.note(0.1, stats_of(0, listed=100), 5)
    assert "- pages/s" in line.as_lines(200)[0]
    assert "-:-- left" in line.as_lines(200)[0]


def test_a_slow_host_is_named_where_it_holds_up_the_end() -> None:
    line = line_of()
    line.slowest = HostStanding("example.com", 200, 12, delay=5.0)
    first, second = line.as_lines(80)
    assert second == "waiting for example.com: 212 rows, one every 5 s"
    assert first.endswith(" 17:35 left"), "211 times 5 s"
    assert line.as_text().endswith("; waiting for example.com: 212 rows, one every 5 s")


def test_a_parked_host_is_named_with_what_is_left_of_it() -> None:
    line = line_of()
    line.slowest = HostStanding("example.com", 1, parked=42.0)
    assert line.as_lines(80)[1] == "waiting for example.com: 1 row, parked for 42.0 s"


def test_a_host_that_others_take_longer_than_is_not_named() -> None:
    line = ProgressLine(100_000, 0.0)
    line.note(10.0, stats_of(1_000, listed=100_000), 100)
    line.slowest = HostStanding("example.com", 20, delay=1.0)
    assert len(line.as_lines(80)) == 1
    line.slowest = HostStanding("example.com", 2, delay=1.0)
    line.note(10.0, stats_of(99_998, listed=100_000), 2)
    assert len(line.as_lines(80)) == 1, "that is over before it is read"


def test_a_host_without_free_slots_is_named_where_all_that_is_left_is_its_own() -> None:
    line = line_of()  # of 794 rows that are left, for eight seconds
    full = HostStanding("example.com", 600, 6, on_wire=6, limit=6, delay=0.0)
    line.slowest = full
    first, second = line.as_lines(80)
    assert second == "waiting for example.com: 606 rows, 6 at once"
    assert first.endswith(" 0:08 left"), "how fast it answers is not known, but by the pace"
    for other in (
        msgspec.structs.replace(full, waiting=300),  # others have more rows
        msgspec.structs.replace(full, on_wire=5),  # the run itself has no more slots
        msgspec.structs.replace(full, waiting=0, running=400),  # it has what there is
    ):
        line.slowest = other
        assert len(line.as_lines(80)) == 1, other
    line.slowest = full
    line.note(12.0, stats_of(1_800, listed=2_000), 6)
    assert len(line.as_lines(80)) == 1, "that is over before it is read"


def test_a_hostile_name_steers_nothing() -> None:
    line = line_of()
    line.slowest = HostStanding("\x1b[31mevil\u202e", 212, delay=5.0)
    assert "\x1b" not in "".join(line.as_lines(80))


def test_clocks() -> None:
    assert [clock(each) for each in (0, 9.6, 61, 3_725, 90_000)] == ["0:00", "0:10", "1:01", "1:02:05", "25:00:00"]


def test_what_is_left_of_a_host() -> None:
    limits = Limits(delay=5.0)
    table, shared = HostTable(limits, RetryPolicy()), SharedLimits(limits)
    host = table.get("a.example", 0.0)
    host.adjust()

    def standing(waiting: int, running: int, now: float) -> HostStanding:
        return standing_of(host, "a.example", shared, waiting=waiting, running=running, now=now)

    assert (standing(200, 12, 0.0).delay, standing(200, 12, 0.0).seconds) == (5.0, 5.0 * 211)
    host.wait_until(4.0)
    assert standing(1, 0, 0.0).parked == 0.0, "that is its delay"
    host.breaker.wait_until(100.0)
    assert standing(3, 0, 10.0).seconds == 90.0 + 2 * 5.0


class Written:
    """A stream that keeps what was written."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text.replace("\n", "\r\n")  # as terminals do
        return len(text)

    def flush(self) -> None:
        pass

    def fileno(self) -> int:
        raise OSError


def test_what_is_said_in_pieces_stands_above_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Written()
    monkeypatch.setattr("sys.stderr", stream)
    import sys

    live = LiveLine(lambda _: ["first", "second"])
    live.start()
    live.draw()
    print("one", end="", file=sys.stderr)
    live.draw()
    assert Screen(stream.text).lines == ["one"], "no line is drawn into one that has not ended"
    print(" and two\nthree", file=sys.stderr)
    assert Screen(stream.text).lines == ["one and two", "three", "first", "second"]
    live.draw()
    assert Screen(stream.text).lines == ["one and two", "three", "first", "second"]
    assert not Screen(stream.text).cursor
    live.stop()
    live.stop()
    assert sys.stderr is stream
    assert Screen(stream.text).lines == ["one and two", "three", ""]
    assert Screen(stream.text).cursor


def test_a_frontier_knows_the_host_that_will_be_the_last() -> None:
    scheduler, frontier = world_of(delay=2.0)

    def last() -> HostStanding | None:
        table, shared = scheduler.table, scheduler.shared
        return next(iter(standings_of(table, shared, waiting=frontier.waiting(1), running={}, now=0.0, most=1)), None)

    assert last() is None
    for name, rows in (("few.example", 2), ("many.example", 40)):
        for _ in range(rows):
            frontier.push(row(name))
    for name in ("few.example", "many.example"):
        scheduler.get(name, 0.0).adjust()
    host = last()
    assert host is not None
    assert (host.host, host.left, host.delay) == ("many.example", 40, 2.0)
    late = row("few.example")
    frontier.defer(late, 1_000.0)
    scheduler.get("few.example", 0.0).breaker.wait_until(1_000.0)
    host = last()
    assert host is not None
    assert (host.host, host.left, host.parked) == ("few.example", 3, 1_000.0)


def test_of_very_many_hosts_some_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fetcher.frontier.frontier.MAX_COMPARED_HOSTS", 3)
    _, frontier = world_of()
    for number in range(50):
        frontier.push(row(f"h{number}.example"))
    frontier.push(row("h1.example"))
    assert frontier.waiting(1) == {"h1.example": 2}
    assert sum(frontier.waiting(50).values()) == 4
