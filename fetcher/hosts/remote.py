"""What another process of ours says of the hosts that are its to ask, for whoever keeps it from run to run.

Law 3: what it says is bounded as what a table of hosts says is. Law 9: the clock is a parameter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fetcher.hosts.state import HostReport

__all__ = ["RemoteHosts", "worst"]

MAX_REPORTED = 1_000


class RemoteHosts:
    """The last that was heard of one process: until when its hosts are to be left alone, their delays, their troubles.

    ``on_wire`` requests of it are under way.
    """

    def __init__(self) -> None:
        self.on_wire = 0
        self.delays: dict[str, float] = {}
        self.troubled: list[HostReport] = []
        self._until: dict[str, float] = {}

    def heard(
        self, parked: Mapping[str, float], delays: Mapping[str, float], troubled: Sequence[HostReport], now: float
    ) -> None:
        """Take over what it says now; ``parked`` in seconds from now on."""
        self._until = {host: now + seconds for host, seconds in parked.items()}
        self.delays = dict(delays)
        self.troubled = list(troubled)

    def parked(self, now: float) -> dict[str, float]:
        """Return the seconds that each host must still be left alone."""
        return {host: until - now for host, until in self._until.items() if until > now}


def worst(reports: Sequence[HostReport]) -> list[HostReport]:
    """Return the reports, the worst first, at most 1,000. A host of which two are told was asked by two processes."""
    return sorted(reports, key=_weight, reverse=True)[:MAX_REPORTED]


def _weight(report: HostReport) -> float:
    return report.refused + report.failed + report.slow + report.denied + report.parked
