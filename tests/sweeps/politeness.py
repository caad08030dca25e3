"""Owns what a server's log says of a crawler's manners: each breach of a host's limits, within a run and after a kill.

Law 1: a request is judged by when it came, and an answer binds from when it was sent. Law 2: the judges are plain
functions over the log, and know nothing of the crawler.

A request is early where its sender knew that it should wait. It did when it had sent anything on a connection whose
answer before was that refusal or was sent after it, to whichever host of its process: answers are read in the order
they come. What came before that was on its way when the refusal was.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import accumulate, pairwise
from typing import NamedTuple

from tests.sweeps.limits import Host

__all__ = ["BREACHES", "RECORD", "TOLERANCE", "Findings", "Knowledge", "Run", "Seen", "Sort", "judge_host"]

RECORD = struct.Struct("<HIBIHddd")
"""One line of the log: the fields of ``Seen`` in their order."""

TOLERANCE = 0.002  # seconds: two ends of a connection read two clocks
WRITTEN = 2.0  # seconds after which what was learnt must stand in the ledger, which is written every second


class Sort(IntEnum):
    """What a request was for."""

    PAGE = 0
    ROBOTS = 1
    DENIED = 2


class Seen(NamedTuple):
    """One request: its host and connection, what for, its row, and what was answered (0: the client left before).

    ``came`` and ``answered`` are in monotonic seconds, the latter of when the client left where it had no answer;
    ``until`` is when the wait is over that the answer asked for (0.0: it asked for none).
    """

    host: int
    connection: int
    sort: int
    row: int
    status: int
    came: float
    answered: float
    until: float


class Run(NamedTuple):
    """One run of the job: from when to when. All but the last were killed."""

    began: float
    ended: float


BREACHES = ("at once", "delay", "Retry-After", "robots", "anew", "early again")
"""More at once than allowed; too soon after the one before; before a wait was over; against robots.txt, or that asked
for twice or too late; after a kill without the delay; after a kill early, more than once or against what was written.
"""


@dataclass
class Findings:
    """What was found of one host, by sort of breach, with words to each; ``forgiven`` is one early request a kill.

    ``crossed`` are requests that were on their way when their host's refusal was.
    """

    requests: int = 0
    breaches: Counter[str] = field(default_factory=Counter)
    remarks: list[str] = field(default_factory=list)
    forgiven: int = 0
    crossed: int = 0

    def charge(self, breach: str, request: Seen, words: str) -> None:
        """Note a breach."""
        self.breaches[breach] += 1
        self.remarks.append(f"{breach}: host {request.host}, row {request.row} at {request.came:.4f}: {words}")


class Knowledge:
    """When the client is first seen to have read what was sent before, from the requests to all hosts."""

    def __init__(self, seen: Iterable[Seen]) -> None:
        before: dict[int, float] = {}
        proofs: list[tuple[float, float]] = []
        for one in seen:
            if one.connection in before:
                proofs.append((before[one.connection], one.came))
            before[one.connection] = one.answered
        proofs.sort()
        self._answered = [answered for answered, _ in proofs]
        self._came = list(accumulate((came for _, came in reversed(proofs)), min))[::-1]

    def since(self, answered: float) -> float:
        """Return when it is first seen that an answer sent then had been read."""
        place = bisect_left(self._answered, answered)
        return self._came[place] if place < len(self._came) else math.inf


def judge_host(host: Host, seen: Sequence[Seen], runs: Sequence[Run], knowledge: Knowledge) -> Findings:
    """Judge what one host saw, in the order it came, over all runs of the job."""
    findings = Findings(len(seen))
    by_run = [[one for one in seen if run.began <= one.came <= run.ended] for run in runs]
    for one in set(seen).difference(*by_run):
        findings.charge("at once", one, "it came while there was no run")
    for within in by_run:
        for one, number in crowded(within, host.per_host):
            findings.charge("at once", one, f"{number} at once, {host.per_host} are allowed")
        for one, gap in hasty(within, host.delay):
            findings.charge("delay", one, f"{gap:.4f} s after the one before, {host.delay:g} are asked for")
        for one, words in unruly(within):
            findings.charge("robots", one, words)
        for one, wish in early(within):
            since, known = one.came - wish.answered, knowledge.since(wish.answered) - wish.answered
            if since < known:
                findings.crossed += 1
                continue
            words = f"{since:.4f} s after a {wish.status} that was read {known:.4f} s after it was sent"
            findings.charge("Retry-After", one, f"{words}, {wish.until - one.came:.4f} s early")
    for number, after in enumerate(by_run[1:], 1):
        before = [one for run in by_run[:number] for one in run]
        if before and after:
            _judge_kill(findings, host, before, after, runs[number - 1])
    return findings


def _judge_kill(findings: Findings, host: Host, before: Sequence[Seen], after: Sequence[Seen], killed: Run) -> None:
    gap = after[0].came - before[-1].came
    if gap < host.delay - TOLERANCE:
        if _was_unknown(host, before, after[0], gap, killed):
            findings.forgiven += 1
        else:
            words = f"{gap:.4f} s after the last before the kill, the delay is {host.delay:g} s"
            findings.charge("anew", after[0], words)
    unknown = 0
    for one, wish in early_again(before, after):
        words = f"{wish.until - one.came:.4f} s early by a {wish.status} {killed.ended - wish.answered:.3f} s before"
        if wish.answered < killed.ended - WRITTEN:
            findings.charge("early again", one, f"{words} the kill: it should have been written down")
        elif unknown:
            findings.charge("early again", one, f"{words} the kill, and not the first")
        else:
            unknown += 1
    findings.forgiven += unknown


def _was_unknown(host: Host, before: Sequence[Seen], first: Seen, gap: float, killed: Run) -> bool:
    """Whether it asked for robots.txt too soon, for nobody lived to write down what that had said of the delay."""
    told = min((one.answered for one in before if one.sort == Sort.ROBOTS and one.status == 200), default=math.inf)
    return first.sort == Sort.ROBOTS and gap >= host.own_delay - TOLERANCE and told > killed.ended - WRITTEN


# Each judge of one host's requests of one run, in the order they came


def crowded(seen: Iterable[Seen], limit: int) -> Iterator[tuple[Seen, int]]:
    """Give each request that came while ``limit`` were not answered yet, and how many there were with it."""
    open_: list[float] = []
    for one in seen:
        open_ = [answered for answered in open_ if answered > one.came]
        open_.append(one.answered)
        if len(open_) > limit:
            yield one, len(open_)


def hasty(seen: Sequence[Seen], delay: float) -> Iterator[tuple[Seen, float]]:
    """Give each request that came less than ``delay`` seconds after the one before, and how many it were."""
    for before, one in pairwise(seen):
        if one.came - before.came < delay - TOLERANCE:
            yield one, one.came - before.came


def unruly(seen: Iterable[Seen]) -> Iterator[tuple[Seen, str]]:
    """Give each request against robots.txt: for what it denies, or before it was read; and the file asked for again."""
    read: float | None = None
    for one in seen:
        if one.sort == Sort.ROBOTS:
            if read is not None:
                yield one, "robots.txt was asked for again"
            if one.status < 429:
                read = one.answered
        elif one.sort == Sort.DENIED:
            yield one, "robots.txt denies it"
        elif read is None or one.came < read:
            yield one, "robots.txt had not been read"


def early(seen: Iterable[Seen]) -> Iterator[tuple[Seen, Seen]]:
    """Give each request that came between an answer that asked to wait and the end of that wait, and that answer."""
    wishes: list[Seen] = []
    for one in seen:
        wishes = [wish for wish in wishes if wish.until - TOLERANCE > one.came]
        if broken := [wish for wish in wishes if wish.answered < one.came]:
            yield one, max(broken, key=lambda wish: wish.until)
        if one.until:
            wishes.append(one)


def early_again(before: Iterable[Seen], after: Iterable[Seen]) -> Iterator[tuple[Seen, Seen]]:
    """Give each request of a run that came before a wait was over which an earlier run was asked for, and that answer."""
    wishes = [one for one in before if one.until]
    for one in after:
        if broken := [wish for wish in wishes if wish.until - TOLERANCE > one.came]:
            yield one, max(broken, key=lambda wish: wish.until)
