"""Owns a process that has the command line loaded, and forks one that runs it for each call.

What is forked is a process as any other: its folder, environment, streams, signals, descriptors and end are its own,
and ``__main__`` is run in it as by ``python -m fetcher``. It is spared only the start of an interpreter and the
imports, which are nine tenths of a short command: what is about those starts anew (``run(anew=True)``).

Law 1: nothing is left behind: the loaded process ends with the one that has asked for it.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from tests.lab.striker import VARIABLE, arm

__all__ = ["Forked", "fork"]

LARGEST = 1 << 20
STATUS = struct.Struct("i")
LIBRARIES = ("aiohttp", "backports.zstd", "brotli", "isal.igzip", "uvloop")
"""What the command imports when it is used, where it is installed."""


class Forked:
    """A forked process, as ``subprocess.Popen`` shows one."""

    def __init__(self, line: socket.socket) -> None:
        self.pid = 0
        self.returncode: int | None = None
        self.stdin: IO[bytes] | None = None
        self.stdout: IO[bytes] | None = None
        self.stderr: IO[bytes] | None = None
        self._line = line

    def poll(self) -> int | None:
        """Return the exit code of a process that has ended, negative for a signal."""
        return self._ask(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code. Raises ``subprocess.TimeoutExpired``."""
        code = self._ask(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("fetcher", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _ask(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            self._line.settimeout(timeout)
            try:
                told = self._line.recv(STATUS.size)
            except (TimeoutError, BlockingIOError):
                return None
            self._line.close()
            (self.returncode,) = STATUS.unpack(told)
        return self.returncode


def fork(
    words: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdin: int | IO[Any],
    stdout: int,
    stderr: int,
) -> Forked:
    """Run ``fetcher`` with these words; the rest is as ``subprocess.Popen`` has it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    forked = Forked(ours)
    given: list[int] = []
    with theirs:
        for name, stream, mode in (("stdin", stdin, "wb"), ("stdout", stdout, "rb"), ("stderr", stderr, "rb")):
            if stream == subprocess.PIPE:
                reader, writer = os.pipe()
                given.append(reader if mode == "wb" else writer)
                setattr(forked, name, open(writer if mode == "wb" else reader, mode))
            elif stream == subprocess.DEVNULL:
                given.append(os.open(os.devnull, os.O_RDWR))
            else:
                given.append(os.dup(stream if isinstance(stream, int) else stream.fileno()))
        asked = json.dumps([list(words), str(cwd), dict(env)]).encode()
        assert len(asked) < LARGEST
        socket.send_fds(_loaded(), [asked], [*given, theirs.fileno()])
    for descriptor in given:
        os.close(descriptor)
    (forked.pid,) = STATUS.unpack(ours.recv(STATUS.size))
    return forked


@cache
def _loaded() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGEST)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


# In the loaded process


def _load() -> None:
    import fetcher

    for module in pkgutil.walk_packages(fetcher.__path__, "fetcher."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    for name in LIBRARIES:
        try:
            import_module(name)
        except ImportError:
            continue
    gc.collect()
    gc.freeze()


def _serve(asking: socket.socket) -> list[str]:
    """Fork for each call, until there are no more; return the words of the command in what was forked."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for those whose it is
    signal.signal(signal.SIGCHLD, lambda *_: None)
    woken, waker = socket.socketpair()
    for end in (woken, waker):
        end.setblocking(False)
    signal.set_wakeup_fd(waker.fileno())
    lines: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([asking, woken], [], [])
        if woken in ready:
            woken.recv(4096)
            _tell_ends(lines)
        if asking not in ready:
            continue
        asked, descriptors, _, _ = socket.recv_fds(asking, LARGEST, 4)
        if not asked:
            os._exit(0)
        *streams, line = descriptors
        lines[0] = socket.socket(fileno=line)
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            for end in (asking, woken, waker, *lines.values()):
                end.close()
            words, folder, env = json.loads(asked)
            _become(folder, env, streams)
            return list(words)
        lines[pid] = lines.pop(0)
        lines[pid].send(STATUS.pack(pid))
        for descriptor in streams:
            os.close(descriptor)


def _tell_ends(lines: dict[int, socket.socket]) -> None:
    while lines:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with lines.pop(pid) as line, contextlib.suppress(BrokenPipeError):  # whoever asked may be gone
            line.send(STATUS.pack(os.waitstatus_to_exitcode(status)))


def _become(folder: str, env: dict[str, str], streams: list[int]) -> None:
    """Have the streams, folder, environment and signals of a process that was just started."""
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)
    sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)
    sys.stderr = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, f"__{name}__", getattr(sys, name))
    if sys.stdout.isatty():
        sys.stdout.reconfigure(line_buffering=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.path[0] = folder
    if VARIABLE in env:
        arm(env[VARIABLE])


def _run() -> int:
    """Run the command as a program and return its exit code, with all said that an interpreter says in the end."""
    try:
        runpy.run_module("fetcher", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    else:
        code = 0
    threading._shutdown()  # type: ignore[attr-defined]  # what the interpreter waits for, and no one else can
    atexit._run_exitfuncs()
    gc.collect()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return 120
    return code if isinstance(code, int) else 1


def main(descriptor: int) -> None:
    """Load, serve, and be what was forked: its end is not an interpreter's, which would undo all that was loaded."""
    asking = socket.socket(fileno=descriptor)
    _load()
    sys.argv[1:] = _serve(asking)
    code = 1
    try:
        code = _run()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main(int(sys.argv[1]))
