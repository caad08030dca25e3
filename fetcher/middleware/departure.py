"""The last look before a request goes: to connect takes a while, and its host may have asked us to wait meanwhile.

Law 8: a delay lies between two requests as the server sees them, and so counts from when the one before was sent, not
from when its slot was taken. Law 4: what would wait for longer than a moment gives its slot and connection back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fetcher.errors import Skipped
from fetcher.hosts.host import Host
from fetcher.request_state import RequestState, Requeue

__all__ = ["BRIEFLY", "departure"]

BRIEFLY = 0.1  # seconds it waits there with a slot and a connection


def departure(host: Host[Any], state: RequestState, clock: Callable[[], float]) -> Callable[[], float]:
    """Return what is asked once there is a connection: the seconds to wait still, or 0.0: it is taken for sent then.

    Raises ``Requeue`` for a longer wait, and ``Skipped`` where the host was given up.
    """

    def depart() -> float:
        if host.given_up is not None:
            raise Skipped("host_budget", host.given_up)
        due = max(host.asked_until, host.sent_at + host.delay if host.delay else 0.0)
        wait = due - clock()
        if wait > BRIEFLY and state.deferrable:
            raise Requeue(due)
        if wait > 0:
            return wait
        host.sent(clock())
        if host.delay or not host.robots_known:
            # A loop may write at the end of its turn what it was given, and the system may let us wait before.
            asyncio.get_running_loop().call_soon(lambda: host.sent(clock()))
        return 0.0

    return depart
