"""Completion in the shells themselves: each is started on a terminal with our script, and what TAB made of a line is run."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.command import environment

DEADLINE = 60.0
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(fetcher completion bash)"'),
    "zsh": (["zsh", "-f", "-i"], 'autoload -Uz compinit; compinit -u -D; eval "$(fetcher completion zsh)"'),
    "fish": (
        ["fish", "--no-config", "-i"],
        "set -g fish_autosuggestion_enabled 0; fetcher completion fish | source",
    ),
}
STUB = """#!{python}
import json, os, sys

if "_FETCHER_COMPLETE" in os.environ or sys.argv[1:2] == ["completion"]:
    os.execv(sys.executable, [sys.executable, "-m", "fetcher", *sys.argv[1:]])
with open({log!r}, "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
"""
"""A command that completes as ours does, and notes what it was called with."""

LINES = [
    ("fetcher extr\tX", ["extract", "X"]),
    ("fetcher crawl --concurr\t5", ["crawl", "--concurrency", "5"]),
    ("fetcher crawl --max-pages-per\t7", ["crawl", "--max-pages-per-host", "7"]),
    ("fetcher crawl --log-format js\tX", ["crawl", "--log-format", "json", "X"]),
    ("fetcher crawl -f sq\tX", ["crawl", "-f", "sqlite", "X"]),
    ("fetcher crawl l.txt -f parq\tX", ["crawl", "l.txt", "-f", "parquet", "X"]),
    ("fetcher crawl sho\tX", ["crawl", "shop.txt", "X"]),
    ("fetcher crawl l.txt -o out\tX", ["crawl", "l.txt", "-o", "out.jsonl", "X"]),
    ("fetcher crawl my\tX", ["crawl", "my list.txt", "X"]),
    ("fetcher report out\tX", ["report", "out.jsonl", "X"]),
    ("fetcher extract archi\tX", ["extract", "archive.warc.gz", "X"]),
]
"""What is typed, and the words that it comes to: a command, flags, what they may be, and files."""


class Shell:
    """An interactive shell on a terminal of its own, in ``folder``, with the completion script read."""

    def __init__(self, name: str, folder: Path) -> None:
        self._log = folder / "calls.log"
        self._log.touch()
        self._seen = b""
        binary = folder / "bin"
        binary.mkdir()
        stub = binary / "fetcher"
        stub.write_text(STUB.format(python=sys.executable, log=str(self._log)))
        stub.chmod(0o755)
        words, script = SHELLS[name]
        variables = environment(folder, TERM="vt100", HOME=str(folder), XDG_DATA_HOME=str(folder / "data"))
        variables["PATH"] = f"{binary}{os.pathsep}{os.environ['PATH']}"
        self._pid, self._terminal = pty.fork()
        if not self._pid:
            os.chdir(folder)
            os.execvpe(words[0], words, variables)
        self.type("fetcher ready")  # once it reads
        assert self.calls(1) == [["ready"]]
        self.type(script)

    def type(self, line: str) -> None:
        """Type a line, TABs and all, and send it off."""
        os.write(self._terminal, line.encode() + b"\r")

    def calls(self, many: int) -> list[list[str]]:
        """Return what the command was called with, once it was so often."""
        deadline = time.monotonic() + DEADLINE
        while self._log.read_bytes().count(b"\n") < many:
            assert time.monotonic() < deadline, self._seen.decode(errors="replace")
            if select.select([self._terminal], [], [], 0.05)[0]:
                self._seen += os.read(self._terminal, 65_536)
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def close(self) -> None:
        """End it."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._terminal)


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shell]:
    if shutil.which(request.param) is None:
        pytest.skip(f"no {request.param} in PATH (Debian: apt-get install {request.param})")
    for name in ("shop.txt", "my list.txt", "out.jsonl", "archive.warc.gz"):
        (tmp_path / name).touch()
    opened = Shell(request.param, tmp_path)
    yield opened
    opened.close()


def test_tab_completes_commands_flags_choices_and_files(shell: Shell) -> None:
    for line, _ in LINES:
        shell.type(line)
    assert shell.calls(1 + len(LINES))[1:] == [words for _, words in LINES]
