"""How long a host will keep a run waiting: its rows, and what stands between two of them.

Law 9: nothing here waits or looks at a clock.
"""

from __future__ import annotations

import msgspec

from fetcher.hosts.state import HostState

__all__ = ["HostWait", "wait_of"]


class HostWait(msgspec.Struct, frozen=True):
    """What is left of a host: ``rows``, ``delay`` seconds between two of them, and ``parked`` for so many seconds.

    ``at_once`` is how many requests it may have side by side.
    """

    host: str
    rows: int
    delay: float = 0.0
    parked: float = 0.0
    at_once: int = 1

    @property
    def seconds(self) -> float:
        """The least time that its rows take, as far as pauses say."""
        return self.parked + self.delay * max(0, self.rows - 1)


def wait_of(host: HostState, rows: int, now: float) -> HostWait:
    """Return what is left of a host that has ``rows`` to go."""
    pause = max(host.not_before, host.breaker.open_until, host.breaker.parked_until) - now
    parked = pause if pause > max(1.0, host.delay) else 0.0
    return HostWait(host.key, rows, host.delay, parked, host.limit)
