"""How a command ends: its exit codes, which of them an error ends with, and what signals do to a crawl.

SIGINT and SIGTERM end a crawl in three steps, SIGUSR1 shows what is in flight. Law 1: the first two leave time to write
what is done and to close the counts; a signal that comes while these are closed changes neither them nor the exit code.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator

from fetcher.errors import ConfigError, SourceError

__all__ = [
    "ALL_FAILED",
    "COMPLETE",
    "FAILED",
    "INTERRUPTED",
    "PIPE_CLOSED",
    "TERMINATED",
    "TIME_LIMIT",
    "USAGE",
    "CrawlSignals",
    "discard_stdout",
    "exit_by",
    "exit_of",
]

COMPLETE = 0
FAILED = 1
USAGE = 2
ALL_FAILED = 3
TIME_LIMIT = 4
INTERRUPTED = 130
TERMINATED = 143
PIPE_CLOSED = 141


def exit_of(error: Exception) -> int:
    """Return the code of a run that an error has ended."""
    if isinstance(error, BrokenPipeError):
        return PIPE_CLOSED
    return USAGE if isinstance(error, ConfigError | SourceError) else FAILED


def exit_by(number: int) -> int:
    """Return the code of a run that a signal has stopped."""
    return INTERRUPTED if number == signal.SIGINT else TERMINATED


def discard_stdout() -> None:
    """Send to nowhere what the interpreter still flushes to stdout: its reader has left, or it cannot be written."""
    if sys.stdout is None:  # closed before we began: the descriptor is something else by now
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


class CrawlSignals:
    """The signals of one crawl; ``first`` is the number of the first SIGINT or SIGTERM, ``None`` before.

    ``interrupt`` is called for the first of them with 1 and for the second with 2; the third calls ``clear`` and ends
    the process at once. ``show`` is called for each SIGUSR1.
    """

    def __init__(
        self, *, interrupt: Callable[[int], None], show: Callable[[], None], clear: Callable[[], None]
    ) -> None:
        self.first: int | None = None
        self._interrupt = interrupt
        self._show = show
        self._clear = clear
        self._count = 0
        self._handled: list[int] = []

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals within the block; afterwards only the third of them ends the process."""
        loop = asyncio.get_running_loop()
        handlers: dict[int, Callable[[], None]] = {
            signal.SIGINT: lambda: self._end(signal.SIGINT),
            signal.SIGTERM: lambda: self._end(signal.SIGTERM),
        }
        if hasattr(signal, "SIGUSR1"):
            handlers[signal.SIGUSR1] = self._show
        try:
            for number, handler in handlers.items():
                if signal.getsignal(number) is signal.SIG_IGN:
                    continue  # by nohup, or by a shell for its background jobs: that is respected
                with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C stays KeyboardInterrupt
                    loop.add_signal_handler(number, handler)
                    self._handled.append(number)
            yield
        finally:
            for number in self._handled:
                loop.remove_signal_handler(number)
                signal.signal(number, self._end_late)

    def ignore(self) -> None:
        """Ignore the signals from now on: all is written and told, and the exit code must not change."""
        for number in self._handled:
            signal.signal(number, signal.SIG_IGN)

    def interrupt(self) -> None:
        """Do what the first SIGINT does, unless there was one."""
        if self.first is None:
            self._end(signal.SIGINT)

    def _end(self, number: int) -> None:
        self.first = self.first or number
        self._count += 1
        if self._count > 2:
            self._clear()
            os._exit(128 + number)
        self._interrupt(self._count)

    def _end_late(self, number: int, _: object) -> None:
        self._count += number in (signal.SIGINT, signal.SIGTERM)
        if self._count > 2:
            os._exit(128 + number)
