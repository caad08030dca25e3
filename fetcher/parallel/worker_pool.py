"""The pool of a run: the process in each worker's place, its share, and how it and its hosts stand by its own word.

Law 3, law 8: the slots and the rate are shared out, never more than there are. Which rows a worker has is not known
here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from fetcher.config.policies import Limits
from fetcher.hosts.remote import RemoteHosts
from fetcher.hosts.standing import HostStanding, longest
from fetcher.parallel.messages import FromParent, HostNews, HostStandings, LimitShare, TellHosts, WorkerStatus
from fetcher.parallel.process import WorkerProcess
from fetcher.parallel.shares import Part, move
from fetcher.request_state import InFlight, WorkerStanding

__all__ = ["SHARE_SECONDS", "WorkerPlace", "WorkerPool"]

SHARE_SECONDS = 0.1  # between two looks at the shares
ASKED_SECONDS = 3.0  # after the last question that workers go on to tell of their hosts


class WorkerPlace:
    """One worker's place: the process that is in it, what that was told to use, and what was last heard of it."""

    def __init__(self, told: int) -> None:
        self.process: WorkerProcess | None = None
        self.told = told
        self.before = told  # what it was told before that
        self.share_number = 0
        self.status: WorkerStatus | None = None
        self.running: tuple[float, list[InFlight]] = 0.0, []
        self.standings: list[HostStanding] = []
        self.remote = RemoteHosts()

    def begin_anew(self) -> None:
        """Forget what was heard of the process that was here; what it knew of its hosts stays."""
        self.status = None
        self.remote.on_wire = 0
        self.running = 0.0, []
        self.standings = []
        self.share_number = 0

    def heard(self, message: WorkerStatus | HostStandings | HostNews, now: float) -> None:
        """Take over what its process says of itself or of its hosts."""
        match message:
            case WorkerStatus():
                self.status = message
                self.remote.on_wire = message.on_wire
                if message.running is not None:
                    self.running = now, message.running
            case HostStandings():
                self.standings = message.hosts
            case HostNews():
                self.remote.heard(message.parked, message.delays, message.troubled, now)

    def tell(self, message: FromParent) -> None:
        """Tell the process something, if there is one."""
        if self.process is not None and self.process.alive:
            self.process.tell(message)

    def kill(self) -> None:
        """End the process, unless it has said its last word."""
        if self.process is not None and not self.process.finished:
            self.process.kill()
            self.process.finished = True

    @property
    def part(self) -> Part:
        """The share, with what the process may hold of an earlier one."""
        if self.process is None:
            return Part(self.told, self.told, 1)  # there is nobody to hold any
        status = self.status
        if status is None:
            return Part(self.told, max(self.told, self.before), self.told)
        if status.share != self.share_number:
            return Part(self.told, max(self.told, self.before, status.held), status.wanted)
        return Part(self.told, max(self.told, status.held), status.wanted)


class WorkerPool:
    """All workers' places, and how the limits are divided between them; ``places`` are in the order of their numbers."""

    def __init__(self, number: int, limits: Limits) -> None:
        slots = limits.concurrency
        self.places = [WorkerPlace(slots // number + (place < slots % number)) for place in range(number)]
        self._limits = limits
        self._sharing: asyncio.TimerHandle | None = None
        self._asking: asyncio.TimerHandle | None = None
        self._asked_hosts = 0  # hosts of each worker

    def __len__(self) -> int:
        return len(self.places)

    @property
    def processes(self) -> list[WorkerProcess]:
        """The processes that are in a place, dead ones too."""
        return [place.process for place in self.places if place.process is not None]

    @property
    def finished(self) -> bool:
        """Whether each process has said its last word."""
        return all(process.finished for process in self.processes)

    def has(self, process: WorkerProcess) -> bool:
        """Whether a process is in its place still: else another one is."""
        return self.places[process.number].process is process

    def tell(self, message: FromParent) -> None:
        """Tell every worker something."""
        for place in self.places:
            place.tell(message)

    # Shares

    def begin(self) -> None:
        """Give slots to those who can use them, and take them from those who cannot, from now on until ``close``."""
        self._sharing = asyncio.get_running_loop().call_later(SHARE_SECONDS, self._share)

    def close(self) -> None:
        """Share no more, and ask no more."""
        for timer in (self._sharing, self._asking):
            if timer is not None:
                timer.cancel()

    def change(self, limits: Limits) -> None:
        """Share out other limits."""
        self._limits = limits
        self._move_shares(all_of_them=True)

    def rate(self, place: WorkerPlace) -> float | None:
        """Return what a worker has of the rate: as much of it as of the slots."""
        limits = self._limits
        return None if limits.rate is None else limits.rate * place.told / limits.concurrency

    def _share(self) -> None:
        self.begin()
        self._move_shares()

    def _move_shares(self, *, all_of_them: bool = False) -> None:
        """Tell each worker its share where that is another; ``all_of_them`` where the rate is another."""
        parts = [place.part for place in self.places]
        slots = move(self._limits.concurrency, parts)
        for place, part, told in zip(self.places, parts, slots, strict=True):
            if told == place.told and not all_of_them:
                continue
            place.before = part.held
            place.told = told
            if place.process is not None and place.process.alive:
                place.share_number += 1
                place.tell(LimitShare(place.share_number, told, self.rate(place)))

    # How they stand

    def in_flight(self, now: float) -> list[InFlight]:
        """Return every row that the workers had running when they last said so, a second ago at most."""
        found = []
        for said, rows in (place.running for place in self.places):
            since = max(0.0, now - said)
            found += [msgspec.structs.replace(row, age=row.age + since, in_stage=row.in_stage + since) for row in rows]
        return found

    def ask_for_standings(self, hosts: int) -> None:
        """Have the workers tell of their hosts, as long as somebody asks: of as many as whoever asks for most wants."""
        self._asked_hosts = max(hosts, self._asked_hosts)
        self.tell(TellHosts(self._asked_hosts))
        if self._asking is not None:
            self._asking.cancel()
        self._asking = asyncio.get_running_loop().call_later(ASKED_SECONDS, self._ask_no_more)

    def _ask_no_more(self) -> None:
        self._asking = None
        self._asked_hosts = 0
        self.tell(TellHosts(0))

    def standings(self, most: int, waiting: Mapping[str, int]) -> list[HostStanding]:
        """Return how the hosts stand by what the workers said, at most ``most``; ``waiting`` are the rows of each."""
        known = {standing.host: standing for place in self.places for standing in place.standings}
        found: dict[str, HostStanding] = dict(known)
        for host, rows in waiting.items():
            standing = known.get(host)
            if standing is None:
                found[host] = HostStanding(host, rows, why="its worker has said nothing of it yet")
            else:
                found[host] = msgspec.structs.replace(standing, waiting=max(0, rows - standing.running))
        return longest(found.values(), most)

    def workers(self, rows: Sequence[int]) -> list[WorkerStanding]:
        """Return how the workers stand, of which each has its number of ``rows``."""
        return [
            WorkerStanding(
                number,
                place.process.pid if place.process is not None and place.process.alive else None,
                place.told,
                place.status.held if place.status is not None else place.told,
                given,
            )
            for number, (place, given) in enumerate(zip(self.places, rows, strict=True), 1)
        ]
