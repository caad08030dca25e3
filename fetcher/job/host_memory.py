"""What a job remembers of hosts from run to run: until when each is to be left alone, and which gave trouble.

Law 8: a host that asked us to wait is not asked early because we were killed. One with a delay by its robots.txt waits
that delay once more, for the time of its last request is not kept. Law 3: all is bounded. Law 7: what is read back was
lying on a disk, and is checked.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from fetcher.errors import LedgerError
from fetcher.hosts.state import HostReport
from fetcher.middleware.gate import Gate

__all__ = ["DELAYS", "PARKED", "TROUBLED", "delays_of", "pauses_of", "remember", "troubled_of"]

PARKED = "parked"
DELAYS = "delays"
TROUBLED = "troubled"
T = TypeVar("T")
MAX_HOSTS_PARKED = 10_000
MAX_HOSTS_TROUBLED = 100


def remember(gate: Gate, now: float) -> dict[str, bytes]:
    """Return the notes to keep; ``now`` in seconds since the epoch, for the monotonic clock ends with the machine."""
    delays = gate.delays()
    parked = {host: seconds for host, seconds in gate.parked().items() if seconds > delays.get(host, 0.0)}
    return {
        PARKED: msgspec.json.encode({host: round(now + seconds, 3) for host, seconds in _longest(parked)}),
        DELAYS: msgspec.json.encode(dict(_longest(delays))),
        TROUBLED: msgspec.json.encode(gate.troubled()[:MAX_HOSTS_TROUBLED]),
    }


def _longest(hosts: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(hosts.items(), key=lambda item: -item[1])[:MAX_HOSTS_PARKED]


def pauses_of(parked: bytes | None, delays: bytes | None, now: float, longest: float, *, path: str) -> dict[str, float]:
    """Return the seconds each host is still to be left alone, at most ``longest`` whatever the clocks say.

    Raises ``LedgerError`` for a note that cannot be read.
    """
    until = _hosts(parked, path)
    pauses = {host: min(moment - now, longest) for host, moment in until.items() if moment > now}
    for host, delay in _hosts(delays, path).items():
        pauses[host] = max(pauses.get(host, 0.0), min(delay, longest))
    return pauses


def delays_of(note: bytes | None, *, path: str) -> dict[str, float]:
    """Return the delays by robots.txt, in seconds by host. Raises ``LedgerError`` for a note that cannot be read."""
    return _hosts(note, path)


def _hosts(note: bytes | None, path: str) -> dict[str, float]:
    hosts = _read(note, dict[str, float], path) or {}
    if len(hosts) > MAX_HOSTS_PARKED:
        raise _damaged(path, f"{len(hosts):,} hosts")
    if hosts and min(hosts.values()) < 0:
        raise _damaged(path, "less than no time")
    return hosts


def troubled_of(note: bytes | None, *, path: str) -> list[HostReport]:
    """Return the hosts that gave trouble, the worst first. Raises ``LedgerError`` for a note that cannot be read."""
    return (_read(note, list[HostReport], path) or [])[:MAX_HOSTS_TROUBLED]


def _read(note: bytes | None, kind: type[T], path: str) -> T | None:
    try:
        return None if note is None else msgspec.json.decode(note, type=kind)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from None


def _damaged(path: str, what: str) -> LedgerError:
    return LedgerError(f"{path}: is damaged ({what}): put it back as it was, or begin again with --fresh")
