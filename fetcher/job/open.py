"""Opening a job: a new one is made, an old one brought back to where its ledger says it stands.

Law 6: nothing is cut that somebody else has written, and every step can be interrupted and done again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence

from fetcher.errors import LedgerError
from fetcher.job.ledger import Ledger, Progress
from fetcher.job.lock import Lock
from fetcher.job.memory import DELAYS, PARKED
from fetcher.job.place import BEGIN_AGAIN, LEDGER, SLOT, clear_job, copy_of, is_job, make_folder
from fetcher.job.slot import Slot
from fetcher.job.terms import Terms
from fetcher.sinks import DurableFile, Mark

__all__ = ["Opened", "open_job"]


class Opened:
    """A job that is ours: its lock, ledger and slot. ``resumed`` says that it had begun before."""

    def __init__(self, lock: Lock, ledger: Ledger, slot: Slot, outputs: Sequence[DurableFile]) -> None:
        self.ledger = ledger
        self.slot = slot
        self.resumed = False
        self.parked = ledger.note(PARKED)
        self.delays = ledger.note(DELAYS)
        self.retried = 0
        self._lock = lock
        self._outputs = outputs

    def end(self, progress: Progress, *, complete: bool) -> None:
        """Close the job in good order. Raises ``LedgerError``."""
        if complete:
            self.ledger.commit([], [output.complete() for output in self._outputs], progress)
            self.ledger.retry_done()
        self.slot.close()
        self.ledger.end_run(progress, exit=None)
        for output in self._outputs:
            output.discard()
        self.ledger.close()
        self._lock.release()

    def abandon(self) -> None:
        """Let go of everything as it is: the next start will put it in order."""
        _let_go(self.ledger, self.slot, self._outputs, self._lock)


def open_job(
    folder: str,
    outputs: Sequence[DurableFile],
    *,
    terms: Terms,
    fresh: bool,
    choose: Callable[[str], bool] | None,
    asked: Collection[str] = (),
) -> Opened:
    """Lock the job in ``folder`` and make it ready: its outputs stand where the ledger says.

    ``choose`` says which codes to retry, ``asked`` how the caller named them. Raises ``ConfigError``, ``JobLocked``, ``LedgerError`` and ``SinkError``.
    """
    make_folder(folder)
    lock = Lock(folder)
    lock.acquire()
    ledger: Ledger | None = None
    slot: Slot | None = None
    try:
        path = os.path.join(folder, LEDGER)
        resumed = is_job(folder) and not fresh
        if resumed:
            ledger = Ledger.open(path)
            before = Terms.from_json(ledger.terms, path=path)
            before.check(terms)
            if terms != before:
                ledger.set_terms(terms.to_json())  # the list has more files
        else:
            ledger = _begin(folder, path, outputs, terms, fresh=fresh)
        slot = Slot(os.path.join(folder, SLOT))
        opened = Opened(lock, ledger, slot, outputs)
        opened.resumed = resumed
        if resumed:
            _resume(folder, ledger, slot, outputs)
            if choose is not None:
                opened.retried = _retry(folder, ledger, outputs, choose, frozenset(asked))
        else:
            ledger.begin_run(time.time())
            slot.suspect = 0
        return opened
    except BaseException:
        _let_go(ledger, slot, outputs, lock)
        raise


def _begin(folder: str, path: str, outputs: Sequence[DurableFile], terms: Terms, *, fresh: bool) -> Ledger:
    """Make a new job. The outputs come first: from the ledger on, what is in them is ours."""
    clear_job(folder)
    for output in outputs:
        output.create(fresh=fresh)
    return Ledger.create(path, terms=terms.to_json(), outputs=[output.path for output in outputs])


def _resume(folder: str, ledger: Ledger, slot: Slot, outputs: Sequence[DurableFile]) -> None:
    marks = ledger.marks()
    if len(marks) != len(outputs):
        raise LedgerError(
            f"{folder}: its ledger is damaged: it knows {len(marks)} outputs of {len(outputs)}; {BEGIN_AGAIN}"
        )
    _finish_rewrite(folder, ledger, outputs, marks)
    clean = ledger.ended_well
    for output, mark in zip(outputs, marks, strict=True):
        output.resume(mark, clean=clean)
    ledger.begin_run(time.time())
    if clean:
        slot.suspect = 0


def _finish_rewrite(folder: str, ledger: Ledger, outputs: Sequence[DurableFile], marks: Sequence[Mark]) -> None:
    if not ledger.pending_rewrite():
        return
    for ordinal, (output, mark) in enumerate(zip(outputs, marks, strict=True)):
        copy = copy_of(folder, output.path, ordinal)  # not the ledger's word: no other file is moved
        if os.path.exists(copy):
            output.adopt(copy, mark)
            output.discard()
    ledger.end_rewrite()


def _retry(
    folder: str,
    ledger: Ledger,
    outputs: Sequence[DurableFile],
    choose: Callable[[str], bool],
    asked: frozenset[str],
) -> int:
    """Take failures out of the outputs and the ledger, so that they are missing; return how many."""
    if ledger.retrying and ledger.asked == asked:  # interrupted, it goes on: what failed again has had its turn
        return 0
    codes = {code for code in ledger.tally().codes if choose(code)}
    if not codes:
        return 0
    copies: list[str] = []
    marks: list[Mark] = []
    for ordinal, output in enumerate(outputs):
        copy = copy_of(folder, output.path, ordinal)
        keep: Iterator[bool] = ledger.order(codes)
        marks.append(output.rewrite(copy, keep))
        copies.append(copy)
    retried = ledger.begin_rewrite(codes, marks, copies, asked=asked)
    for output, copy, mark in zip(outputs, copies, marks, strict=True):
        output.adopt(copy, mark)
    ledger.end_rewrite()
    return retried


def _let_go(ledger: Ledger | None, slot: Slot | None, outputs: Sequence[DurableFile], lock: Lock) -> None:
    for output in outputs:
        output.discard()
    if slot is not None:
        slot.leave()
    if ledger is not None:
        ledger.abandon()
    lock.release()
