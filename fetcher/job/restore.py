"""A job whose disk is empty, or behind: its ledger is made again of what stands in the store beside the parts.

Law 6: the ledger comes into being whole, by a rename, or not at all: a kill leaves a file that the next start makes
anew. Law 1: a row counts where its part does. Law 3: one part's rows are read at a time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fetcher.errors import LedgerError
from fetcher.files import move
from fetcher.job.identity import JobIdentity
from fetcher.job.ledger import OK, LedgerRow, PartsLedger, RunProgress
from fetcher.job.paths import BEGIN_AGAIN, LEDGER, RESTORED, clear_job
from fetcher.job.schema import JOURNALS
from fetcher.sinks.job_output import JobOutput, LedgerOutput, Mark

if TYPE_CHECKING:
    from fetcher.sinks.store_parts import PartRow

__all__ = ["open_ledger", "restore"]

log = logging.getLogger("fetcher.store")

ROWS_A_COMMIT = 5_000


def open_ledger(folder: str, outputs: Sequence[JobOutput], identity: JobIdentity) -> PartsLedger:
    """Open the ledger in ``folder``; one that knows less than the store is made again. Raises ``LedgerError``."""
    ledger, behind = _open_attached(folder, outputs)
    if not behind:
        return ledger
    log.warning("%s: the store knows of more than %s: it is gone on from what is there", outputs[0].path, folder)
    ledger.abandon()
    clear_job(folder)
    restore(folder, outputs, identity)
    return _open_attached(folder, outputs)[0]


def _open_attached(folder: str, outputs: Sequence[JobOutput]) -> tuple[PartsLedger, bool]:
    """Open the ledger and let the outputs know it; say whether it is behind one of them."""
    ledger = PartsLedger.open(os.path.join(folder, LEDGER))
    try:
        return ledger, _attached(ledger, outputs)
    except BaseException:
        ledger.abandon()
        raise


def restore(folder: str, outputs: Sequence[JobOutput], identity: JobIdentity) -> bool:
    """Make the ledger of a job whose parts are in a store, in a ``folder`` that has none; say whether there is such a job.

    Raises ``ConfigError`` where what must not change has changed.
    """
    from fetcher.sinks.store_output import StoreOutput  # most outputs are on this disk

    (output,) = outputs
    assert isinstance(output, StoreOutput)
    output.stored.connect()
    note = output.stored.note
    if note is None:
        return False
    JobIdentity.from_json(note.identity.encode(), path=output.path).check(identity)
    path = os.path.join(folder, RESTORED)
    for name in (path, *(path + journal for journal in JOURNALS), f"{path}.new"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
    ledger = PartsLedger.create(path, identity=identity.to_json(), outputs=[output.path])
    try:
        rows = _fill(ledger, output)
        ledger.close()
    except BaseException:
        ledger.abandon()
        raise
    move(path, os.path.join(folder, LEDGER))
    log.warning("%s: there is no ledger in %s: it is made again of the %d rows in the store", output.path, folder, rows)
    return True


def _attached(ledger: PartsLedger, outputs: Sequence[JobOutput]) -> bool:
    """Let the outputs know the ledger; say whether it is behind one of them."""
    behind = False
    for output, mark in zip(outputs, ledger.marks(), strict=False):  # how many there are is looked at later
        if isinstance(output, LedgerOutput):
            behind |= output.attach(ledger, mark)
    return behind


def _fill(ledger: PartsLedger, output: JobOutput) -> int:
    from fetcher.sinks.store_output import StoreOutput
    from fetcher.sinks.store_parts import NOTE, PartMark, encode_part
    from fetcher.sinks.stored_parts import whole_parts

    assert isinstance(output, StoreOutput)
    ledger.begin_run(max(0.0, time.time()))
    parts: list[PartMark] = []
    progress = RunProgress(taken=0, more=True, estimate=None, seconds=0.0, ok=0, bytes=0)
    for told, rows in whole_parts(output.stored):
        first = ledger.next_number
        try:
            batch: list[LedgerRow] = []
            for row in rows:
                batch.append(_ledger_row(row))
                if len(batch) == ROWS_A_COMMIT:
                    progress = _commit(ledger, batch, progress)
                    batch = []
            progress = _commit(ledger, batch, progress)
        except ValueError as error:
            raise LedgerError(
                f"{output.path}: what stands beside part {told.number} is damaged ({error}): remove that part, and its "
                f"rows are fetched again, or {BEGIN_AGAIN}"
            ) from None
        part = PartMark(
            told.number, first, ledger.next_number - 1, told.rows, told.size, told.checksum, told.tag, told.mark
        )
        parts.append(part)
        ledger.keep_note(f"{NOTE}{part.number:09}", encode_part(part))
    mark = output.restored(parts, ledger.next_number)
    ledger.commit([], [mark], progress)
    ledger.end_run(progress, exit=None)
    return progress.taken


def _commit(ledger: PartsLedger, rows: list[LedgerRow], before: RunProgress) -> RunProgress:
    progress = RunProgress(
        taken=before.taken + len(rows),
        more=True,
        estimate=None,
        seconds=0.0,
        ok=before.ok + sum(row.code == OK for row in rows),
        bytes=before.bytes + sum(row.bytes or 0 for row in rows),
    )
    ledger.commit(rows, [Mark()], progress)
    return progress


def _ledger_row(row: PartRow) -> LedgerRow:
    return LedgerRow(row.id, row.digest, row.code, row.status, row.bytes, row.elapsed / 1000, row.attempts, row.host)
