"""Progress as a terminal shows it, and as a log gets it; what stays behind is the summary alone."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("termios", reason="terminals are POSIX's")

from tests.lab.command import Running
from tests.lab.held_case import HeldCase
from tests.lab.server import LabServer
from tests.lab.terminal import Screen, Terminal

HELD = 3
SEQUENCE = re.compile(r"\x1b\[[?0-9;]*([A-Za-z])")
BAR = re.compile(r"\d+/~?\d+  \d+ ok  \d+ failed  \d+ in flight  (-|\d+) pages/s  \d+:\d\d elapsed  [-\d]+:[-\d]+ left")

LINE = re.compile(r"fetcher: 1 of (about )?4 rows: 1 ok, 0 failed, 3 in flight, \d+ pages/s(, about .* left)?")


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread() as server:
        yield server


@pytest.fixture
def gate(lab: LabServer, tmp_path: Path) -> Iterator[HeldCase]:
    """Return the gate before the list's pages; the first page is in front of it."""
    lab.clear()
    held = HeldCase()
    lab.add("/held", held)
    urls = [lab.url("/ok"), *(lab.url(f"/held?n={n}") for n in range(HELD))]
    (tmp_path / "l.txt").write_text("".join(f"{url}\n" for url in urls))
    yield held
    held.open()


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with Terminal() as made:
        yield made


def crawl(folder: Path, terminal: Terminal, *arguments: str, stdout: int = -1, **env: str) -> Running:
    return Running(
        "crawl",
        "l.txt",
        *arguments,
        folder=folder,
        stderr=terminal.line,
        stdout=stdout,
        env={"TERM": "xterm-256color", **env},
    )


def has_bar(text: str) -> bool:
    return any(BAR.search(line) for line in Screen(text).lines)


def test_a_bar_lives_on_a_terminal_and_leaves_it_clean(gate: HeldCase, terminal: Terminal, tmp_path: Path) -> None:
    with crawl(tmp_path, terminal) as running:
        terminal.until(lambda text: has_bar(text) and " 1 ok " in Screen(text).lines[0] and "3 in flight" in text)
        shown = terminal.screen
        assert not shown.cursor
        assert shown.colours
        assert "1/4" in shown.lines[0]
        gate.open()
        ended = running.end()
    terminal.hang_up()
    assert (ended.code, len(ended.lines)) == (0, HELD + 1)
    left = terminal.screen
    assert left.cursor
    assert re.fullmatch(r"4 rows = 4 ok \+ 0 failed \+ 0 skipped, in .+", left.lines[0])
    assert left.lines[1:] == [""]


def test_what_is_said_meanwhile_stands_above_the_bar(gate: HeldCase, terminal: Terminal, tmp_path: Path) -> None:
    with crawl(tmp_path, terminal, "-v") as running:
        terminal.until(has_bar)
        running.send(signal.SIGUSR1)
        terminal.until(lambda text: f"in flight: {HELD}" in text and has_bar(text.partition("in flight: ")[2]))
        lines = terminal.screen.lines
        table = next(at for at, line in enumerate(lines) if line.startswith(f"in flight: {HELD}"))
        assert all("/held?n=" in line for line in lines[table + 1 : table + 1 + HELD])
        assert BAR.search(lines[table + 1 + HELD])
        gate.open()
        assert running.end().code == 0
    terminal.hang_up()
    assert not any(map(BAR.search, terminal.screen.lines))


def test_no_colour_is_no_colour(gate: HeldCase, terminal: Terminal, tmp_path: Path) -> None:
    with crawl(tmp_path, terminal, NO_COLOR="1") as running:
        terminal.until(has_bar)
        gate.open()
        assert running.end().code == 0
    terminal.hang_up()
    assert not terminal.screen.colours


def test_a_dumb_terminal_gets_lines(gate: HeldCase, terminal: Terminal, tmp_path: Path) -> None:
    with crawl(tmp_path, terminal, TERM="dumb") as running:
        terminal.until(lambda text: "in flight" in text)
        gate.open()
        assert running.end().code == 0
    terminal.hang_up()
    assert "\x1b" not in terminal.written
    assert LINE.match(terminal.written)


@pytest.mark.parametrize("flags", [["--no-progress"], ["-q"], ["--log-format", "json", "-q"]], ids=" ".join)
def test_a_bar_that_is_not_wanted_is_not_drawn(
    flags: list[str], gate: HeldCase, terminal: Terminal, tmp_path: Path
) -> None:
    with crawl(tmp_path, terminal, *flags) as running:
        running.until(lambda running: b"/ok" in running.out)
        gate.open()
        assert running.end().code == 0
    terminal.hang_up()
    assert "\x1b" not in terminal.written
    assert ("rows = " in terminal.written) == (flags == ["--no-progress"])


def test_lines_on_the_same_terminal_are_their_own_progress(gate: HeldCase, terminal: Terminal, tmp_path: Path) -> None:
    with crawl(tmp_path, terminal, stdout=terminal.line) as running:
        terminal.until(lambda text: "-> " in text)
        gate.open()
        assert running.end().code == 0
    terminal.hang_up()
    assert set(SEQUENCE.findall(terminal.written)) <= {"m"}, "colours, and nothing is written over"
    assert terminal.screen.colours
    assert len([line for line in terminal.screen.lines if " -> " in line]) == HELD + 1


def test_progress_that_is_asked_for_does_not_draw_over_the_lines(
    gate: HeldCase, terminal: Terminal, tmp_path: Path
) -> None:
    with crawl(tmp_path, terminal, "--progress", stdout=terminal.line) as running:
        terminal.until(lambda text: "in flight, " in text)
        gate.open()
        assert running.end().code == 0
    terminal.hang_up()
    assert set(SEQUENCE.findall(terminal.written)) <= {"m"}


def test_a_log_has_no_progress(gate: HeldCase, tmp_path: Path) -> None:
    with Running("crawl", "l.txt", folder=tmp_path, env={"TERM": "xterm", "FORCE_COLOR": "1"}) as running:
        running.until(lambda running: b"/ok" in running.out)
        gate.open()
        ended = running.end()
    assert (ended.code, len(ended.said.splitlines())) == (0, 1)
    assert b"\x1b" not in ended.err


def test_a_log_has_lines_where_they_are_asked_for(gate: HeldCase, tmp_path: Path) -> None:
    with Running("crawl", "l.txt", "--progress", folder=tmp_path) as running:
        running.until_said("in flight")
        gate.open()
        ended = running.end()
    assert ended.code == 0
    first, *_, last = ended.said.splitlines()
    assert LINE.fullmatch(first)
    assert last.startswith("4 rows = ")
    assert b"\x1b" not in ended.err


def test_progress_speaks_json_too(gate: HeldCase, tmp_path: Path) -> None:
    with Running("crawl", "l.txt", "--progress", "--log-format", "json", folder=tmp_path) as running:
        running.until_said("in flight")
        gate.open()
        ended = running.end()
    first, *_, last = map(json.loads, ended.said.splitlines())
    assert (first["done"], first["ok"], first["failed"], first["skipped"]) == (1, 1, 0, 0)
    assert last["summary"]["ok"] == HELD + 1


def test_a_list_of_unknown_length_has_a_bar_as_well(
    gate: HeldCase, terminal: Terminal, lab: LabServer, tmp_path: Path
) -> None:
    reader = Running("crawl", "-", folder=tmp_path, stdin=-1, stderr=terminal.line, env={"TERM": "xterm"})
    with reader as running:
        assert running.process.stdin is not None
        running.process.stdin.write((tmp_path / "l.txt").read_bytes())
        running.process.stdin.flush()
        terminal.until(lambda text: "1/?" in text and "3 in flight" in text)
        running.process.stdin.close()
        gate.open()
        assert running.end().code == 0
    terminal.hang_up()
    assert terminal.screen.cursor
    assert terminal.screen.lines[1:] == [""]


# Ctrl-C


def test_a_signal_leaves_the_terminal_clean(gate: HeldCase, terminal: Terminal, tmp_path: Path) -> None:
    with crawl(tmp_path, terminal) as running:
        terminal.until(has_bar)
        running.send(signal.SIGINT)
        terminal.until(lambda text: "stopping: " in text)
        running.send(signal.SIGINT)
        assert running.end().code == 130
    terminal.hang_up()
    screen = terminal.screen
    assert screen.cursor
    assert not any(map(BAR.search, screen.lines))
    assert "begin again: " in terminal.written


def test_even_the_third_signal_gives_the_cursor_back(
    gate: HeldCase, terminal: Terminal, lab: LabServer, tmp_path: Path
) -> None:
    large = "".join(f"{lab.url('/ok')}?size=20000&n={n}\n" for n in range(30))
    (tmp_path / "l.txt").write_text(large + (tmp_path / "l.txt").read_text())
    running = Running(
        "crawl",
        "l.txt",
        "--preview",
        "20000",
        folder=tmp_path,
        stderr=terminal.line,
        reading=False,
        env={"TERM": "xterm"},
    )
    with running:
        terminal.until(has_bar)
        for word in ("stopping: ", "ending now: "):
            running.send(signal.SIGINT)
            terminal.until(lambda text, word=word: word in text)  # type: ignore[misc]  # a default binds the loop's word
        running.send(signal.SIGINT)
        assert running.process.wait(60) == 130
    terminal.hang_up()
    assert terminal.screen.cursor
    assert not any(map(BAR.search, terminal.screen.lines))


@pytest.mark.skipif(shutil.which("setsid") is None, reason="there is no setsid")
def test_ctrl_c_in_the_demo_ends_all_that_was_started(terminal: Terminal, tmp_path: Path) -> None:
    """The keyboard's signal goes to the site's process too: that one waits to be told."""
    running = Running(
        "crawl", "--demo", "--rate", "20", folder=tmp_path, stdin=terminal.line, stderr=terminal.line,
        before=["setsid", "--ctty"], env={"TERM": "xterm"},
    )  # fmt: skip
    with running:
        running.until(lambda running: b" -> " in running.out)
        terminal.press(b"\x03")
        ended = running.end()
    terminal.hang_up()  # returns when the last process has let go of the line
    assert ended.code == 130
    assert ended.lines
    assert "Traceback" not in terminal.written
    assert terminal.screen.cursor
