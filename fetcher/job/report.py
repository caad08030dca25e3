"""A job in figures, of a run that goes on or of one that has ended, from its ledger alone.

Law 1: the stats are the job's: ``input = ok + failed + skipped + pending``, and ``more`` where rows were never read.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from fetcher.hosts.state import HostReport
from fetcher.job.account import Tally
from fetcher.job.view import HostFigures, LedgerView, Output, Run
from fetcher.sinks.escape import printable

__all__ = ["MOST_HOSTS", "JobReport", "RunReport", "report"]

MOST_HOSTS = 1_000
MOST_RUNS = 1_000
COMPLETE, INTERRUPTED, RUNNING, STOPPED = "complete", "interrupted", "running", "stopped"


class RunReport(msgspec.Struct, frozen=True):
    """One run: ``began`` in UTC by ISO 8601, ``ok`` pages in ``seconds``.

    ``clean`` says that it ended in good order, ``exit`` with which code, where that was noted.
    """

    number: int
    began: str
    seconds: float
    ok: int
    pages_per_second: float
    clean: bool
    exit: int | None


class JobReport(msgspec.Struct, frozen=True):
    """How a job stands.

    ``state`` is ``running`` (by the process ``pid``, if that is known), ``complete`` (nothing is left), ``stopped`` (the
    last run ended in good order and left rows) or ``interrupted`` (it was killed). ``input`` counts the rows taken from
    the list, ``estimate`` those it has, if that is known, ``left`` those without an outcome: ``None`` where the list
    goes on and nobody knows how long. ``codes`` are failures and skipped rows, most first. ``seconds`` and
    ``pages_per_second`` are of all runs, ``last_pages_per_second`` of the last; ``runs`` the last thousand of
    ``run_count``. ``slowest`` and ``failing`` are up to a thousand hosts each, of ``hosts``; ``troubled`` are those that
    were slow, throttled, parked or denied in the last run.
    """

    job: str
    state: str
    pid: int | None
    input: int
    done: int
    ok: int
    failed: int
    skipped: int
    pending: int
    more: bool
    estimate: int | None
    left: int | None
    bytes: int
    seconds: float
    pages_per_second: float
    last_pages_per_second: float
    codes: dict[str, int]
    retrying: list[str]
    outputs: list[Output]
    run_count: int
    runs: list[RunReport]
    hosts: int
    slowest: list[HostFigures]
    failing: list[HostFigures]
    troubled: list[HostReport]


def report(folder: str, *, hosts: int = MOST_HOSTS) -> JobReport:
    """Tell how the job in ``folder`` stands, with up to ``hosts`` of its slowest and its failing hosts.

    Every name in it is harmless to a terminal. Raises ``LedgerError``.
    """
    with LedgerView(folder) as view:
        return _figures(view, hosts)


def _figures(view: LedgerView, most: int) -> JobReport:
    tally = view.tally()
    done = tally.ok + tally.failed + tally.skipped
    runs = view.runs(MOST_RUNS)
    every = view.all_runs()
    told = next((run for run in reversed(runs) if run.told), None)
    taken = max(done, told.taken if told else 0)
    more = told is None or told.more
    estimate = told.estimate if told else None
    left = _left(done, taken, estimate, more=more)
    found = view.hosts(most)
    return JobReport(
        job=printable(view.folder),
        state=_state(view, runs, complete=not more and taken == done),
        pid=view.pid or None,
        input=taken,
        done=done,
        ok=tally.ok,
        failed=tally.failed,
        skipped=tally.skipped,
        pending=taken - done,
        more=more,
        estimate=estimate,
        left=left,
        bytes=tally.bytes,
        seconds=round(every.seconds, 3),
        pages_per_second=_rate(every.ok, every.seconds),
        last_pages_per_second=_rate(told.ok, told.seconds) if told else 0.0,
        codes=_named(tally),
        retrying=view.retrying(),
        outputs=view.outputs(),
        run_count=every.count,
        runs=[_run(run) for run in runs],
        hosts=found.count,
        slowest=found.slowest,
        failing=found.failing,
        troubled=[_harmless(host) for host in view.troubled()[:most]],
    )


def _left(done: int, taken: int, estimate: int | None, *, more: bool) -> int | None:
    if not more:
        return taken - done
    return None if estimate is None else max(estimate, taken) - done


def _state(view: LedgerView, runs: list[Run], *, complete: bool) -> str:
    if view.pid is not None:
        return RUNNING
    if complete:
        return COMPLETE
    return STOPPED if runs and runs[-1].clean else INTERRUPTED


def _run(run: Run) -> RunReport:
    began = datetime.fromtimestamp(run.began, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return RunReport(run.id, began, run.seconds, run.ok, _rate(run.ok, run.seconds), run.clean, run.exit)


def _rate(pages: int, seconds: float) -> float:
    return round(pages / seconds, 1) if seconds > 0 else 0.0


def _harmless(host: HostReport) -> HostReport:
    given_up = None if host.given_up is None else printable(host.given_up, 300)
    return msgspec.structs.replace(host, host=printable(host.host, 255), given_up=given_up)


def _named(tally: Tally) -> dict[str, int]:
    """Return the codes made harmless; those that become the same are one."""
    codes: dict[str, int] = {}
    for code, many in tally.codes.items():
        shown = printable(code, 100)
        codes[shown] = codes.get(shown, 0) + many
    return codes
