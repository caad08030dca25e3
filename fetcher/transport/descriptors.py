"""What the system has for us: file descriptors, one budget for slots and idle pools; and what to do when it has no more.

Law 3: what the system allows is bounded too, and a run that reaches the end of it stands still without an error. Law 5:
our own want is no fault of a host's or a row's.
"""

from __future__ import annotations

import errno
import socket

from fetcher.errors import ResourceError

__all__ = [
    "RESERVED_DESCRIPTORS",
    "Shortage",
    "descriptors_for_connections",
    "most_concurrency",
    "out_of_descriptors",
    "out_of_memory",
    "raise_descriptors",
]

RESERVED_DESCRIPTORS = 64  # for files (outputs, ledger, lists), streams, parsing processes, look-ups of names
SHORTAGE_PAUSE_SECONDS = 0.5  # until a row is tried again
MAX_SHORTAGE_SECONDS = 60.0  # without one exchange that ended otherwise: then the run ends

_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)
_NO_MEMORY = (errno.ENOMEM, errno.ENOBUFS, getattr(socket, "EAI_MEMORY", errno.ENOMEM))


def out_of_descriptors(error: BaseException) -> bool:
    """Say whether the process has no file descriptor left: our own limit, and no fault of the host."""
    return isinstance(error, OSError) and error.errno in _NO_DESCRIPTOR


def out_of_memory(error: BaseException) -> bool:
    """Say whether the system has no memory left for us."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _NO_MEMORY)


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


def raise_descriptors(concurrency: int) -> None:
    """Raise the soft limit of file descriptors to what a concurrency wants, as far as the hard one allows."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Slots, the idle pool of twice the slots, and what the rest of the process holds.
    wanted = 3 * concurrency + 200
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Shortage:
    """How long the system has had too little for us."""

    def __init__(self) -> None:
        self.since: float | None = None

    def over(self) -> None:
        """Note that an exchange ended otherwise."""
        self.since = None

    def pause(self, what: str, now: float) -> float:
        """Return the seconds until the next try. Raises ``ResourceError`` where it does not get better."""
        if self.since is None:
            self.since = now
        if now - self.since > MAX_SHORTAGE_SECONDS:
            raise ResourceError(
                f"the system has had no {what} left for {now - self.since:.0f} s; with less at once (-c) it may do: "
                "a job goes on where it stands"
            )
        return SHORTAGE_PAUSE_SECONDS
