"""The exit codes, as the command line promises them, and which of them an error ends with."""

from __future__ import annotations

import signal

from fetcher.errors import ConfigError, SourceError

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
