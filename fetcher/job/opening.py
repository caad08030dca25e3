"""A job put in order at its start: locked, and begun, gone on with, or its failures taken out to be tried once more.

One live process works on a folder, and the system lets go of its lock when that process ends: the lock is ``flock`` on
an open file, so one left by a crash refuses nobody. The file is not touched before it is ours, never removed, and never
reached through a link (law 7).

Law 6: each output is cut back to what the ledger knows, and what another program has written is never cut off. Every
step can be interrupted and done again: a rewrite that was begun is finished first.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from fetcher.config import Follow
from fetcher.errors import JobLocked, LedgerError
from fetcher.files import PRIVATE, NotRegularFileError, open_regular, try_lock
from fetcher.job.crash_marker import CrashMarker
from fetcher.job.host_memory import DELAYS, PARKED
from fetcher.job.identity import JobIdentity
from fetcher.job.ledger import PartsLedger, RunProgress
from fetcher.job.paths import BEGIN_AGAIN, CRASH_MARKER, LEDGER, clear_job, copy_of, is_job, make_folder
from fetcher.sinks import JobOutput, Mark, Rewrite
from fetcher.sinks.job_output import LedgerOutput

if TYPE_CHECKING:
    from fetcher.job.since import EarlierPages
    from fetcher.sinks.body_folder import BodyFolder

__all__ = ["CHECKED_BYTES", "Lock", "OpenJob", "open_job"]

CHECKED_BYTES = 64 * 1024 * 1024
"""Of the end of each output, looked at when a job is gone on with."""

_NAME = "lock"


class Lock:
    """The right to work on the job in ``folder``, held from ``acquire`` to ``release`` or to the process's end."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.path = os.path.join(folder, _NAME)
        self._descriptor = -1

    def acquire(self) -> None:
        """Take the lock, without waiting.

        Raises ``JobLocked`` naming the process that has it, ``LedgerError`` where the file cannot be locked.
        """
        assert self._descriptor < 0, "the lock is ours already"
        while True:
            descriptor = self._open()
            try:
                self._lock(descriptor)
                if self._stands(descriptor):
                    self._sign(descriptor)
                    self._descriptor = descriptor
                    return
            finally:
                if self._descriptor != descriptor:
                    os.close(descriptor)

    def release(self) -> None:
        """Give the lock back, if it is ours."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            try:
                os.close(descriptor)
            except OSError as error:
                raise self._trouble(error) from error

    def _open(self) -> int:
        try:
            if os.path.islink(self.path):
                raise self._foreign()
            return open_regular(self.path, os.O_RDWR | os.O_CREAT, mode=PRIVATE)
        except NotRegularFileError:
            raise self._foreign() from None
        except OSError as error:
            raise self._trouble(error) from error

    def _lock(self, descriptor: int) -> None:
        for pause in (0.02, 0.1, 0.0):  # a report looks for an instant whether somebody holds it
            try:
                if try_lock(descriptor):
                    return
            except OSError as error:
                raise self._trouble(error) from error
            time.sleep(pause)
        raise JobLocked(
            f"{self.folder}: another fetcher{self._holder(descriptor)} is working on it; wait for it or stop it"
        )

    def _holder(self, descriptor: int) -> str:
        try:
            os.lseek(descriptor, 0, os.SEEK_SET)
            word = os.read(descriptor, 32).split(b"\n", 1)[0]
        except OSError:
            return ""  # that it is locked is what matters
        return f" (process {int(word)})" if word.isdigit() else ""

    def _stands(self, descriptor: int) -> bool:
        """Say whether the file we locked is still the one at the path: whoever began again may have put a new one."""
        try:
            return os.path.samestat(os.lstat(self.path), os.fstat(descriptor))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._trouble(error) from error

    def _sign(self, descriptor: int) -> None:
        word = b"%d\n" % os.getpid()
        try:
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, word)
            os.ftruncate(descriptor, len(word))
        except OSError as error:
            raise self._trouble(error) from error

    def _foreign(self) -> LedgerError:
        return LedgerError(
            f"{self.path}: is no regular file, as a lock is: take it away and run the same command again"
        )

    def _trouble(self, error: OSError) -> LedgerError:
        return LedgerError(
            f"{self.path}: cannot lock the job: {error.strerror or error}: "
            "repair that and run the same command again, or give another --job"
        )


class OpenJob:
    """A job that is locked and ready: its ledger and crash marker. ``resumed`` says that it had begun before."""

    def __init__(
        self,
        lock: Lock,
        ledger: PartsLedger,
        marker: CrashMarker,
        outputs: Sequence[JobOutput],
        bodies: BodyFolder | None = None,
        *,
        resumed: bool = False,
    ) -> None:
        self.ledger = ledger
        self.marker = marker
        self.resumed = resumed
        self.parked = ledger.note(PARKED)
        self.delays = ledger.note(DELAYS)
        self.retried = 0
        self._lock = lock
        self._outputs = outputs
        self._bodies = bodies

    def end(self, progress: RunProgress, *, complete: bool) -> None:
        """Close the job cleanly. Raises ``LedgerError``, and ``SinkError`` where an output is no longer in its place."""
        for output in self._outputs:
            output.check_place()
        if complete or any(output.in_store for output in self._outputs):  # another machine may go on
            marks = [output.complete() for output in self._outputs]
            self.ledger.commit([], marks, progress, _news_of(self._outputs))
            for output in self._outputs:
                output.settle()
            for asking in _asking(self._outputs):
                asking.finish(complete=complete)
        if complete:
            self.ledger.retry_done()
        self.marker.close()
        self.ledger.end_run(progress, exit=None)
        for output in self._outputs:
            output.discard()
        if self._bodies is not None:
            self._bodies.close()
        self.ledger.close()
        self._lock.release()

    def abandon(self) -> None:
        """Close everything as it is: the next start will put it in order."""
        _abandon(self.ledger, self.marker, self._outputs, self._lock, self._bodies)


def open_job(
    folder: str,
    outputs: Sequence[JobOutput],
    *,
    bodies: BodyFolder | None = None,
    identity: JobIdentity,
    fresh: bool,
    verify: bool = False,
    choose: Callable[[str], bool] | None,
    retry_names: Collection[str] = (),
    earlier: EarlierPages | None = None,
    follow: Follow | None = None,
) -> OpenJob:
    """Lock the job in ``folder`` and make it ready: its outputs end where the ledger says.

    ``choose`` says which codes to retry, ``retry_names`` what the caller called them. ``verify`` has all bytes of the
    outputs looked at. ``bodies`` keeps its files whatever happens to the job. ``earlier`` is opened. ``follow`` says
    which links are followed. Raises ``ConfigError``, ``JobLocked``, ``LedgerError`` and ``SinkError``.
    """
    make_folder(folder)
    lock = Lock(folder)
    lock.acquire()
    ledger: PartsLedger | None = None
    marker: CrashMarker | None = None
    try:
        resumed = not fresh and (is_job(folder) or _is_restored(folder, outputs, identity))
        if resumed:
            ledger = _open_ledger(folder, outputs, identity)
            _check_identity(ledger, identity, follow)
            _open_earlier(earlier, folder)
            if bodies is not None:
                bodies.open(create=not ledger.tally().ok)
        else:
            if bodies is not None:
                bodies.open()
            clear_job(folder)
            _open_earlier(earlier, folder)  # before the ledger: what is wrong with it is none of the job's
            ledger = _begin(os.path.join(folder, LEDGER), outputs, identity, fresh=fresh, follow=follow)
        marker = CrashMarker(os.path.join(folder, CRASH_MARKER))
        opened = OpenJob(lock, ledger, marker, outputs, bodies, resumed=resumed)
        if resumed:
            _resume(folder, ledger, marker, outputs, last=None if verify else CHECKED_BYTES)
            opened.retried = 0 if choose is None else _retry(folder, ledger, outputs, choose, frozenset(retry_names))
        else:
            ledger.begin_run(max(0.0, time.time()))
            marker.clear()
        return opened
    except BaseException:
        _abandon(ledger, marker, outputs, lock, bodies)
        raise


def _is_restored(folder: str, outputs: Sequence[JobOutput], identity: JobIdentity) -> bool:
    """Say whether the ledger could be made again of what stands in a store, where another machine began the job."""
    if not any(output.in_store for output in outputs):
        return False
    from fetcher.job.restore import restore  # most outputs are on this disk

    return restore(folder, outputs, identity)


def _open_ledger(folder: str, outputs: Sequence[JobOutput], identity: JobIdentity) -> PartsLedger:
    from fetcher.job.restore import open_ledger  # a new job has none yet

    return open_ledger(folder, outputs, identity)


def _open_earlier(earlier: EarlierPages | None, folder: str) -> None:
    if earlier is not None:
        earlier.open(folder)


def _check_identity(ledger: PartsLedger, identity: JobIdentity, follow: Follow | None) -> None:
    before = JobIdentity.from_json(ledger.identity, path=ledger.path)
    before.check(identity)
    if identity != before:
        ledger.set_identity(identity.to_json())  # the list has more files
    if follow is not None:
        ledger.follow(follow)


def _begin(
    path: str, outputs: Sequence[JobOutput], identity: JobIdentity, *, fresh: bool, follow: Follow | None
) -> PartsLedger:
    """Make a new job. The outputs come first: from the ledger on, what is in them is ours."""
    for output in outputs:
        output.create(fresh=fresh)
    names = [output.path for output in outputs]
    ledger = PartsLedger.create(path, identity=identity.to_json(), outputs=names, follow=follow is not None)
    for asking in _asking(outputs):
        asking.attach(ledger, Mark())
    if follow is not None:
        ledger.follow(follow)
    return ledger


def _resume(
    folder: str, ledger: PartsLedger, marker: CrashMarker, outputs: Sequence[JobOutput], *, last: int | None
) -> None:
    """Put the outputs in order, and hold their ``last`` bytes, or all, against the checksums of their batches."""
    marks = ledger.marks()
    if len(marks) != len(outputs):
        raise LedgerError(
            f"{folder}: its ledger is damaged: it knows {len(marks)} outputs of {len(outputs)}; {BEGIN_AGAIN}"
        )
    for output in outputs:
        output.thorough = last is None
    _finish_rewrite(folder, ledger, outputs, marks)
    clean = ledger.ended_well
    for ordinal, (output, mark) in enumerate(zip(outputs, marks, strict=True)):
        with contextlib.closing(ledger.batches(ordinal, mark, last=last)) as batches:
            output.resume(mark, clean=clean, batches=batches)
    ledger.begin_run(max(0.0, time.time()))
    if clean:
        marker.clear()


def _finish_rewrite(folder: str, ledger: PartsLedger, outputs: Sequence[JobOutput], marks: Sequence[Mark]) -> None:
    if not ledger.pending_rewrite():
        return
    for ordinal, (output, mark) in enumerate(zip(outputs, marks, strict=True)):
        copy = copy_of(folder, output.path, ordinal)  # not the ledger's word: no other file is moved
        if os.path.exists(copy):
            output.adopt(copy, mark, list(ledger.batches(ordinal, mark, last=CHECKED_BYTES)))
            output.discard()
    ledger.end_rewrite()


def _retry(
    folder: str,
    ledger: PartsLedger,
    outputs: Sequence[JobOutput],
    choose: Callable[[str], bool],
    retry_names: frozenset[str],
) -> int:
    """Take failures out of the outputs and the ledger, so that they are missing; return how many."""
    if ledger.retrying and ledger.retry_names == retry_names:  # it was interrupted: what failed again had its turn
        return 0
    codes = {code for code in ledger.tally().codes if choose(code)}
    if not codes:
        return 0
    copies: list[str] = []
    rewrites: list[Rewrite] = []
    before = ledger.marks()
    for ordinal, output in enumerate(outputs):
        copy = copy_of(folder, output.path, ordinal)
        # Either has a connection of its own, which an error's traceback would keep open.
        with (
            contextlib.closing(ledger.order(codes)) as rows,
            contextlib.closing(ledger.batches(ordinal, before[ordinal])) as written,
        ):
            rewrites.append(output.rewrite(copy, rows, written))
        copies.append(copy)
    marks = [rewrite.mark for rewrite in rewrites]
    batches = [rewrite.batches for rewrite in rewrites]
    retried = ledger.begin_rewrite(
        codes, marks, copies, batches=batches, retry_names=retry_names, notes=_news_of(outputs)
    )
    for output, copy, mark in zip(outputs, copies, marks, strict=True):
        output.adopt(copy, mark)
    ledger.end_rewrite()
    return retried


def _asking(outputs: Iterable[JobOutput]) -> list[LedgerOutput]:
    return [output for output in outputs if isinstance(output, LedgerOutput)]


def _news_of(outputs: Iterable[JobOutput]) -> dict[str, bytes]:
    """Return what the ledger is to keep with the outputs' marks."""
    return {name: note for output in _asking(outputs) for name, note in output.take_news().items()}


def _abandon(
    ledger: PartsLedger | None,
    marker: CrashMarker | None,
    outputs: Sequence[JobOutput],
    lock: Lock,
    bodies: BodyFolder | None,
) -> None:
    for output in outputs:
        output.discard()
    if bodies is not None:
        bodies.close()
    if marker is not None:
        marker.abandon()
    if ledger is not None:
        ledger.abandon()
    lock.release()
