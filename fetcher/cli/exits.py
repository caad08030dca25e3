"""The exit codes, as the command line promises them."""

COMPLETE = 0
FAILED = 1
USAGE = 2
ALL_FAILED = 3
TIME_LIMIT = 4
INTERRUPTED = 130
TERMINATED = 143
PIPE_CLOSED = 141
