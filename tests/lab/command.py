"""Owns the command line as a real process: run to its end, or watched and signalled while it runs.

The process is forked from one that has the command loaded; with ``anew`` an interpreter is started for it.

Law 1: a process sees nothing of this one's environment, folder or home, and none outlives its block.
Law 2: nothing is slept for: whoever waits is woken by what the process writes.
Law 3: no traceback is ever shown; whatever a test runs is judged by this.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from fetcher.topics import topics
from tests.lab.loaded import Forked, fork

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 60.0


@dataclass(frozen=True, slots=True)
class Ended:
    """What a process left: its exit code and the bytes of both streams."""

    code: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.out.decode()

    @property
    def lines(self) -> list[str]:
        """The lines of standard output, the last of them whole."""
        assert not self.out or self.out.endswith(b"\n"), f"a line is torn: {self.out[-200:]!r}"
        return self.text.split("\n")[:-1]

    @property
    def said(self) -> str:
        """Standard error as text."""
        return self.err.decode()


def argv(*arguments: str) -> list[str]:
    """Return the words that run ``fetcher`` with these arguments."""
    return [sys.executable, "-m", "fetcher", *arguments]


def as_said(message: str) -> str:
    """Return a message about an option, such as ``rate 0: must be …``, as the command line says it: the flag, the next step.

    Any other message is said as it is.
    """
    option = re.match(r"[a-z]+(?:-[a-z]+)*(?=: | .+?: )", message)
    if option is None or f"--{option[0]}" not in topics("flag"):
        return message
    return f"--{message} (see 'fetcher help --{option[0]}')"


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return an environment with a home, the way to our package, robots.txt not asked for, and nothing else of ours."""
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    return {
        **kept,
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LANG": "C.UTF-8",
        "FETCHER_ROBOTS": "0",  # each request that a test counts is a row's
        **more,
    }


def run(
    *arguments: str, folder: Path, stdin: bytes = b"", env: Mapping[str, str] | None = None, anew: bool = False
) -> Ended:
    """Run ``fetcher`` in ``folder`` to its end and return what it left."""
    with Running(*arguments, folder=folder, stdin=subprocess.PIPE, env=env, anew=anew) as running:
        running.give(stdin)
        return running.end()


def judged(ended: Ended, *, traces: bool = False) -> Ended:
    """Return it, after a look for what no user must ever see; ``traces``: who asks with ``-vv`` sees where rows failed."""
    never = (b"Exception ignored", b"never awaited", b"Fatal Python")
    for trace in never if traces else (*never, b"Traceback", b"most recent call"):
        assert trace not in ended.err + ended.out, ended.err.decode(errors="replace")
    return ended


class Running:
    """A ``fetcher`` that runs, for a ``with`` block; what it writes is collected as it comes.

    ``stdout`` and ``stderr`` may be descriptors of the caller's: nothing is collected of them then. ``reading``
    off leaves what it prints in the pipe. ``before`` are words put in front of the command. It is started anew for
    those, and for a variable that is the interpreter's.
    """

    def __init__(
        self,
        *arguments: str,
        folder: Path,
        stdin: int | IO[Any] = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        reading: bool = True,
        before: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        anew: bool = False,
    ) -> None:
        self._traces = "-vv" in arguments
        self._changed = threading.Condition()
        self._heard = {"out": bytearray(), "err": bytearray()}
        how: dict[str, Any] = {
            "cwd": folder,
            "env": environment(folder, **env or {}),
            "stdin": stdin,
            "stdout": stdout,
            "stderr": stderr,
        }
        self.process: subprocess.Popen[bytes] | Forked
        if anew or before or any(name.startswith("PYTHON") for name in env or {}) or not hasattr(os, "fork"):
            with _signals_as_a_shell_has_them():
                self.process = subprocess.Popen([*before, *argv(*arguments)], **how)
        else:
            self.process = fork(arguments, **how)
        streams = {"out": self.process.stdout if reading else None, "err": self.process.stderr}
        self._listeners = [
            threading.Thread(target=self._listen, args=(name, stream)) for name, stream in streams.items() if stream
        ]
        for listener in self._listeners:
            listener.start()

    @property
    def out(self) -> bytes:
        """What was printed so far."""
        with self._changed:
            return bytes(self._heard["out"])

    @property
    def err(self) -> bytes:
        """What was said on stderr so far."""
        with self._changed:
            return bytes(self._heard["err"])

    def until(self, holds: Callable[[Self], bool]) -> None:
        """Wait until ``holds``, looking again whenever something was written."""
        with self._changed:
            met = self._changed.wait_for(lambda: holds(self), DEADLINE)
        assert met, f"it wrote {self.out[-2000:]!r} and {self.err[-2000:]!r}"

    def until_said(self, text: str) -> None:
        """Wait for ``text`` on stderr."""
        self.until(lambda running: text.encode() in running.err)

    def until_printed(self) -> None:
        """Wait for the end of its standard output; the process may live on."""
        self._listeners[0].join(DEADLINE)
        assert not self._listeners[0].is_alive(), "its stdout is still open"

    def give(self, data: bytes) -> None:
        """Write all of its standard input and close that, though it may leave before it has read it."""
        stream = self.process.stdin
        assert stream is not None
        writer = threading.Thread(target=_pour, args=(data, stream))
        self._listeners.append(writer)
        writer.start()

    def send(self, number: int) -> None:
        """Send a signal to the process."""
        self.process.send_signal(number)

    def end(self) -> Ended:
        """Wait for the end and return what was left."""
        code = self.process.wait(DEADLINE)
        for listener in self._listeners:
            listener.join(DEADLINE)
        return judged(Ended(code, self.out, self.err), traces=self._traces)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for listener in self._listeners:
            listener.join(DEADLINE)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def _listen(self, name: str, stream: IO[bytes]) -> None:
        while data := os.read(stream.fileno(), 65_536):
            with self._changed:
                self._heard[name] += data
                self._changed.notify_all()


def _pour(data: bytes, stream: IO[bytes]) -> None:
    with suppress(BrokenPipeError), stream:
        stream.write(data)


@contextmanager
def _signals_as_a_shell_has_them() -> Iterator[None]:
    # A shell ignores Ctrl-C for its background jobs, these tests perhaps among them, and children inherit that.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
