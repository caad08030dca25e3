"""How many file descriptors there are for connections: one budget for the process, shared by slots and idle pools.

Law 3: what the system allows is bounded too, and a run that reaches the end of it stands still without an error.
"""

from __future__ import annotations

import errno

__all__ = ["RESERVED_DESCRIPTORS", "descriptors_for_connections", "most_concurrency", "out_of_descriptors"]

RESERVED_DESCRIPTORS = 64  # for files (outputs, ledger, lists), streams, parsing processes, look-ups of names

_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)


def out_of_descriptors(error: BaseException) -> bool:
    """Say whether the process has no file descriptor left: our own limit, and no fault of the host."""
    return isinstance(error, OSError) and error.errno in _NO_DESCRIPTOR


def descriptors_for_connections() -> int | None:
    """Return how many connections the process may have open, at work and idle; ``None`` where there is no limit."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else max(8, soft - RESERVED_DESCRIPTORS)


def most_concurrency(descriptors: int | None, wanted: int) -> int:
    """Return how many of the ``wanted`` exchanges may be on the wire at once, with that many descriptors.

    An eighth is left over: the connection that makes room for another is closed only in the next turn of the loop.
    """
    return wanted if descriptors is None else max(1, min(wanted, descriptors - descriptors // 8))
