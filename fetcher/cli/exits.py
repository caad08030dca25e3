"""The exit codes, as the command line promises them, and which of them an error or a signal ends with."""

from __future__ import annotations

import os
import signal
import sys

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
